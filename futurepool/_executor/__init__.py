"""`BoundedExecutor` and its views: the wiring.

What happens is written elsewhere:

    taking tasks in, cancelling them  futurepool._pool
    running a task                    futurepool._engines.worker_loop
    where tasks run                   futurepool._engines
    what the constructor checks       futurepool._options
    map                               futurepool._map

Beside it is what nobody but an executor needs:

    stop, interpreter exit, fork      shutdown
    leaving `with` and `async with`   leaving
    tasks that end together           groups
    what others read and set of it    internals

An executor owns nothing but its pool. Workers hold the pool, so a dropped executor is collected,
and its weak reference closes the pool, which runs what it has accepted and ends.
"""

from __future__ import annotations

import itertools
import os
import sys
import weakref
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable, Iterator
from concurrent import futures as cf
from concurrent.futures.thread import ThreadPoolExecutor
from types import FunctionType, TracebackType
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, cast, overload

from futurepool import _living
from futurepool._cancellation import CancelToken
from futurepool._engines.threads import ThreadEngine
from futurepool._errors import InvalidConfigError
from futurepool._errors.checks import (
    NoCopy,
    check_bool,
    check_buffersize,
    check_callable,
    check_int,
    check_priority,
    check_timeout,
    check_workers,
    show,
)
from futurepool._errors.failures import TaskError
from futurepool._executor import leaving, shutdown
from futurepool._executor.internals import Internals, refuse_overrides
from futurepool._foreign import patched
from futurepool._future import Future
from futurepool._options import UNSET, Config, OnFull, Options, check_engine, checked_config
from futurepool._pool import sizing
from futurepool._pool.ending import cancel_queued, wait_empty
from futurepool._pool.fast import (
    SUBMITS,
    Submitting,
    at_priority,
    for_so_long,
    put_compiled,
    without_waiting,
)
from futurepool._pool.pool import Pool, RunState

if sys.version_info >= (3, 11):
    from typing import Self
else:
    from typing_extensions import Self

if TYPE_CHECKING:
    import futurepool
    from futurepool._executor import groups
else:
    # By this name `typing.get_type_hints` finds classes that are imported late.
    futurepool = sys.modules["futurepool"]

__all__ = ["BoundedExecutor", "ExecutorView", "TaskGroup"]

P = ParamSpec("P")
T = TypeVar("T")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")
T5 = TypeVar("T5")

#: The standard class's own count, so that no two pools have threads of the same name.
_number: Callable[[], int] = getattr(ThreadPoolExecutor, "_counter", itertools.count().__next__)


class _Alias:
    """A short name, for tests, of what is stored under one that no subclass has for its own.

    It gives way to whatever a subclass stores under the short one.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, pool: Any, owner: type) -> Any:
        return self if pool is None else getattr(pool, self._name)


class _Submitting(NoCopy, Submitting):
    """The methods that take tasks in, for the executor and its views."""

    _instead = (
        "its queue, threads and locks belong to this process and to the one object; hand on the "
        "arguments it was made with, or leave it out by a __getstate__"
    )

    if not TYPE_CHECKING:  # pragma: no branch
        _pool = _Alias("_futurepool")

    def try_submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Submit, or raise `QueueFullError` at once. Otherwise, and in cost, as `submit`."""
        options = self._futurepool_options
        kept: Any = options.at_priority
        one: Any
        try:
            one = kept[None]
        except (KeyError, TypeError):  # not asked for yet, nor any
            one = without_waiting(self._futurepool, options)
        future: Future[T] = one.submit(fn, *args, **kwargs)
        return future

    def submit_with_timeout(
        self, timeout: float | None, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]:
        """Submit, waiting at most `timeout` seconds for a place in the queue.

        Args:
            timeout: Seconds; 0 does not wait, None waits for ever. Negative or NaN: ValueError.
            fn: As in `submit`.
            *args: As in `submit`.
            **kwargs: As in `submit`; `timeout=` among them is the task's.

        Raises:
            SubmitTimeoutError: No place came free in time; the task will not run.

        Otherwise as `submit`. Cost: that of `submit`, plus waiting; a timeout that was not met before costs two microseconds.
        """
        options = self._futurepool_options
        if type(timeout) is not float:  # True would be found as 1
            timeout = check_timeout("timeout", timeout)
        kept: Any = options.at_priority
        one: Any
        try:
            one = kept[(timeout,)]
        except (KeyError, TypeError):  # not met yet, nor any
            one = for_so_long(self._futurepool, options, timeout)
        future: Future[T] = one.submit(fn, *args, **kwargs)
        return future

    def submit_with_priority(
        self, priority: int, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]:
        """Submit with a priority: a `Priority` or any int; higher runs sooner.

        Otherwise as `submit`. Cost: hardly more than `submit`, for a priority that was used before.
        """
        options = self._futurepool_options
        if type(priority) is not int:  # True and 1.0 would be found as 1
            priority = check_priority(priority)
        kept: Any = options.at_priority
        one: Any
        try:
            one = kept[priority]
        except (KeyError, TypeError):  # not met yet, nor any
            one = at_priority(self._futurepool, options, priority)
        future: Future[T] = one.submit(fn, *args, **kwargs)
        return future

    def submit_with_token(
        self, token: CancelToken, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]:
        """Submit under `token`: cancelling it cancels the task, or tells it if it runs.

        Under a token that is cancelled already the future comes back cancelled. Otherwise as `submit`.
        Cost: that of `submit`, and some microseconds for the options, which a view has made once, and for the token.
        """
        options = self._futurepool_options.changed(token=token)
        return self._futurepool.submit(options, fn, args, kwargs)

    # Narrower than the base class's, which takes any items for any function: on purpose.
    @overload  # type: ignore[override]
    def map(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        fn: Callable[[T1], T],
        iter1: Iterable[T1],
        /,
        *,
        timeout: float | None = None,
        chunksize: int | Literal["auto"] = 1,
        buffersize: int | None = None,
        return_exceptions: Literal[False] = False,
    ) -> Iterator[T]: ...

    @overload
    def map(
        self,
        fn: Callable[[T1, T2], T],
        iter1: Iterable[T1],
        iter2: Iterable[T2],
        /,
        *,
        timeout: float | None = None,
        chunksize: int | Literal["auto"] = 1,
        buffersize: int | None = None,
        return_exceptions: Literal[False] = False,
    ) -> Iterator[T]: ...

    @overload
    def map(
        self,
        fn: Callable[[T1, T2, T3], T],
        iter1: Iterable[T1],
        iter2: Iterable[T2],
        iter3: Iterable[T3],
        /,
        *,
        timeout: float | None = None,
        chunksize: int | Literal["auto"] = 1,
        buffersize: int | None = None,
        return_exceptions: Literal[False] = False,
    ) -> Iterator[T]: ...

    @overload
    def map(
        self,
        fn: Callable[[T1, T2, T3, T4], T],
        iter1: Iterable[T1],
        iter2: Iterable[T2],
        iter3: Iterable[T3],
        iter4: Iterable[T4],
        /,
        *,
        timeout: float | None = None,
        chunksize: int | Literal["auto"] = 1,
        buffersize: int | None = None,
        return_exceptions: Literal[False] = False,
    ) -> Iterator[T]: ...

    @overload
    def map(
        self,
        fn: Callable[[T1, T2, T3, T4, T5], T],
        iter1: Iterable[T1],
        iter2: Iterable[T2],
        iter3: Iterable[T3],
        iter4: Iterable[T4],
        iter5: Iterable[T5],
        /,
        *,
        timeout: float | None = None,
        chunksize: int | Literal["auto"] = 1,
        buffersize: int | None = None,
        return_exceptions: Literal[False] = False,
    ) -> Iterator[T]: ...

    @overload
    def map(
        self,
        fn: Callable[..., T],
        iter1: Iterable[Any],
        iter2: Iterable[Any],
        iter3: Iterable[Any],
        iter4: Iterable[Any],
        iter5: Iterable[Any],
        iter6: Iterable[Any],
        /,
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | Literal["auto"] = 1,
        buffersize: int | None = None,
        return_exceptions: Literal[False] = False,
    ) -> Iterator[T]: ...

    @overload
    def map(
        self,
        fn: Callable[..., T],
        iter1: Iterable[Any],
        /,
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | Literal["auto"] = 1,
        buffersize: int | None = None,
        return_exceptions: bool,
    ) -> Iterator[T | Exception]: ...

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | Literal["auto"] = 1,
        buffersize: int | None = None,
        return_exceptions: bool = False,
    ) -> Iterator[T] | Iterator[T | Exception]:
        """Like `map(fn, *iterables)`, the calls made concurrently, results in input order.

        Everything is submitted before this returns, so a result nobody reads is computed too.
        With `buffersize` it is lazy instead: inputs are read as results are, which also works
        on endless iterables. Leaving the iterator early cancels what has not started.

        Args:
            fn: Called with one item of each iterable.
            iterables: Read until the shortest ends.
            timeout: Seconds from now until the last result; None for no limit. 0 or less: only
                results that are there when they are asked for.
            chunksize: So many calls travel as one task, for when they are short; 1 for all below, and where
                a subclass, or a tool, has a `submit` of its own, which sees each call. "auto": tasks draw calls off one
                shared batch, as many at a time as take about a millisecond, so that short ones cost little
                and none waits behind a long one. See *Flow* in the docs.
            buffersize: At most so many results unread; None for no limit.
            return_exceptions: A call that raises an Exception, or is cancelled, yields that error, and
                the others go on.

        Raises:
            concurrent.futures.TimeoutError: From the iterator; a result was not there in time.
            TaskError: From the iterator; a call raised. The iterator ends.

        Thread safety: any thread; one at a time reads the iterator. Cost: a task for each chunk, somewhat
        less than by `submit`.
        """
        from futurepool import _map  # late, see `BoundedExecutor.__init__`

        return _map.map_ordered(
            self._futurepool,
            self,
            self._futurepool_options,
            fn,
            iterables,
            timeout,
            chunksize,
            buffersize,
            return_exceptions,
        )

    @overload
    def map_unordered(
        self,
        fn: Callable[[T1], T],
        iter1: Iterable[T1],
        /,
        *,
        timeout: float | None = None,
        chunksize: int | Literal["auto"] = 1,
        buffersize: int | None = None,
        return_exceptions: Literal[False] = False,
    ) -> Iterator[T]: ...

    @overload
    def map_unordered(
        self,
        fn: Callable[[T1, T2], T],
        iter1: Iterable[T1],
        iter2: Iterable[T2],
        /,
        *,
        timeout: float | None = None,
        chunksize: int | Literal["auto"] = 1,
        buffersize: int | None = None,
        return_exceptions: Literal[False] = False,
    ) -> Iterator[T]: ...

    @overload
    def map_unordered(
        self,
        fn: Callable[[T1, T2, T3], T],
        iter1: Iterable[T1],
        iter2: Iterable[T2],
        iter3: Iterable[T3],
        /,
        *,
        timeout: float | None = None,
        chunksize: int | Literal["auto"] = 1,
        buffersize: int | None = None,
        return_exceptions: Literal[False] = False,
    ) -> Iterator[T]: ...

    @overload
    def map_unordered(
        self,
        fn: Callable[[T1, T2, T3, T4], T],
        iter1: Iterable[T1],
        iter2: Iterable[T2],
        iter3: Iterable[T3],
        iter4: Iterable[T4],
        /,
        *,
        timeout: float | None = None,
        chunksize: int | Literal["auto"] = 1,
        buffersize: int | None = None,
        return_exceptions: Literal[False] = False,
    ) -> Iterator[T]: ...

    @overload
    def map_unordered(
        self,
        fn: Callable[[T1, T2, T3, T4, T5], T],
        iter1: Iterable[T1],
        iter2: Iterable[T2],
        iter3: Iterable[T3],
        iter4: Iterable[T4],
        iter5: Iterable[T5],
        /,
        *,
        timeout: float | None = None,
        chunksize: int | Literal["auto"] = 1,
        buffersize: int | None = None,
        return_exceptions: Literal[False] = False,
    ) -> Iterator[T]: ...

    @overload
    def map_unordered(
        self,
        fn: Callable[..., T],
        iter1: Iterable[Any],
        iter2: Iterable[Any],
        iter3: Iterable[Any],
        iter4: Iterable[Any],
        iter5: Iterable[Any],
        iter6: Iterable[Any],
        /,
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | Literal["auto"] = 1,
        buffersize: int | None = None,
        return_exceptions: Literal[False] = False,
    ) -> Iterator[T]: ...

    @overload
    def map_unordered(
        self,
        fn: Callable[..., T],
        iter1: Iterable[Any],
        /,
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | Literal["auto"] = 1,
        buffersize: int | None = None,
        return_exceptions: bool,
    ) -> Iterator[T | Exception]: ...

    def map_unordered(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | Literal["auto"] = 1,
        buffersize: int | None = None,
        return_exceptions: bool = False,
    ) -> Iterator[T] | Iterator[T | Exception]:
        """Like `map`, but results come as they finish, and inputs are always read lazily.

        An error of the inputs comes after the results of all that was read before it.

        Args:
            fn: As in `map`.
            *iterables: As in `map`.
            timeout: As in `map`.
            chunksize: As in `map`.
            buffersize: At most so many results under way; the default is two for each worker.
            return_exceptions: As in `map`.

        Thread safety, cost: as `map`.
        """
        from futurepool import _map

        return _map.map_unordered(
            self._futurepool,
            self,
            self._futurepool_options,
            fn,
            iterables,
            timeout,
            chunksize,
            buffersize,
            return_exceptions,
        )

    def arun(
        self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, T]:
        """Run `fn(*args, **kwargs)` in the pool and return its result, without blocking the loop.

        With no place in the queue the coroutine waits for one, by priority, then arrival
        (`OnFull.CALLER_RUNS` counts as `OnFull.BLOCK` here). Cancelling it cancels the task, or
        its token if it runs.

        Raises:
            As `submit` and `Future.result`; asyncio.CancelledError if the task was cancelled;
            TypeError for a coroutine function: nothing of it would run in the pool.

        Thread safety: any thread that runs a loop; several loops may share the executor. Cost: a few
        microseconds more than `submit`; the loop is woken once for all that ends meanwhile.
        """
        # Not a coroutine itself: a layer less for each task.
        one: Coroutine[Any, Any, T] = (_loaded or _aio()).run(
            self, self._futurepool, self._futurepool_options, fn, args, kwargs
        )
        return one

    @overload
    def amap(
        self,
        fn: Callable[[T1], T],
        items: Iterable[T1] | AsyncIterable[T1],
        *,
        buffersize: int | None = None,
        ordered: bool = True,
        return_exceptions: Literal[False] = False,
    ) -> AsyncIterator[T]: ...

    @overload
    def amap(
        self,
        fn: Callable[[T1], T],
        items: Iterable[T1] | AsyncIterable[T1],
        *,
        buffersize: int | None = None,
        ordered: bool = True,
        return_exceptions: bool,
    ) -> AsyncIterator[T | Exception]: ...

    def amap(
        self,
        fn: Callable[[T1], T],
        items: Iterable[T1] | AsyncIterable[T1],
        *,
        buffersize: int | None = None,
        ordered: bool = True,
        return_exceptions: bool = False,
    ) -> AsyncIterator[T] | AsyncIterator[T | Exception]:
        """Apply `fn` to each of `items` in the pool; `async for` over the results.

        Args:
            fn: Called with one item.
            items: Plain or async, read as results are.
            buffersize: At most so many results unread; the default is two for each worker.
            ordered: Results in input order; False: as they finish.
            return_exceptions: As in `map`.

        Leaving early (`aclose`) cancels the rest. Thread safety, cost: as `arun`, for each item.
        """
        check_callable("fn", fn)
        if not isinstance(cast(object, items), (Iterable, AsyncIterable)):
            raise TypeError(f"items must be iterable, not {show(items)}")
        buffersize = check_buffersize(buffersize)
        check_bool("return_exceptions", return_exceptions)
        _aio().check_plain("amap()", fn)
        results: AsyncIterator[T] = _aio().amap(
            self._futurepool,
            self,
            self._futurepool_options,
            fn,
            items,
            buffersize,
            ordered,
            return_exceptions,
        )
        return results

    def options(
        self,
        *,
        priority: int = UNSET,
        timeout: float | None = UNSET,
        token: CancelToken | None = UNSET,
        on_full: OnFull = UNSET,
        name: str | None = UNSET,
        max_wait: float | None = UNSET,
        run_timeout: float | None = UNSET,
        abandon: bool = UNSET,
        limit: int = UNSET,
        key: str | int | bytes = UNSET,
        key_limit: int = UNSET,
    ) -> ExecutorView:
        """A light, reusable view of this executor that submits with these options.

        Args:
            priority: A `Priority` or any int; higher runs sooner.
            timeout: Seconds to wait for a place (and so `OnFull.BLOCK`); None waits for ever.
            token: Cancelling it cancels the tasks.
            on_full: What to do without a place in the queue.
            name: What errors, `running()` and logs call the tasks; and, with a limit, the view in
                `stats().views`, which keeps each such name.
            limit: Of the tasks of this view, and of views made from it, at most so many run at a time. The
                others wait in the queue, hold no worker, and are overtaken. Make such a view once: each call
                makes a limit of its own, within that of the view it is called on.
            key: Whose the tasks are, a tenant's for instance. Keys that have tasks of one priority take turns.
                All tasks of one key count together, whether they are submitted by one view or by many.
            key_limit: At most so many tasks of this key run at a time; of the view that it is called on, or of the
                executor. The latest that is named for a key counts.
            max_wait: Seconds, more than 0, that a task may wait, for a place and for a worker, from its
                submission on. One that has not started by then is not run: its future fails with
                `TaskExpiredError`, without a worker having to come by. None: for as long as it takes.
            run_timeout: Seconds, more than 0, that a task may run. After that its token is cancelled (see
                `current_token`) and its future fails with `TaskTimeoutError`. A thread cannot be killed: the
                worker is not to be had until the function returns, and what it returns is dropped. A chunk of `map`
                is one task. None: for as long as it takes. Not with an `engine`.
            abandon: True: the thread of a task that runs for longer is written off. Another worker takes its place,
                nobody waits for it any more, and it ends when the function returns. At most twice `max_workers`
                threads are written off at a time; after that, and in a thread that is no worker's, it is as
                without. Only with a `run_timeout`.

        Raises:
            InvalidConfigError: An option has an impossible value, or two contradict each other.
            TypeError: An option has the wrong type.

        Options not named are as in the executor or view this is called on.
        Thread safety: any thread; views are immutable. Cost: about a microsecond, some more with a limit; a task
        with a limit costs some 10 microseconds more, one with a key 20, however many wait.
        """
        if on_full is OnFull.SHED and not self._futurepool.sheds:
            raise InvalidConfigError(
                f"on_full={on_full!s} is for a whole executor: BoundedExecutor(on_full=OnFull.SHED)"
            )
        options = self._futurepool_options.changed(
            priority, timeout, token, on_full, name, max_wait, run_timeout, abandon
        )
        if options.run_timeout is not None and self._futurepool.engine.apart:
            raise InvalidConfigError(
                f"run_timeout={options.run_timeout:g} is for threads: what an engine runs goes on in there, and its "
                "place cannot be had again"
            )
        if limit is not UNSET or key is not UNSET or key_limit is not UNSET:
            from futurepool._pool.limits import limited_options

            options = limited_options(self._futurepool, options, limit, key, key_limit)
        return ExecutorView(self._futurepool_owner(), options)

    def group(self) -> TaskGroup:
        """A group of tasks, for `with` and `async with`: leaving it waits for all of them.

        ::

            with pool.group() as group:
                parts = [group.submit(fetch, url) for url in urls]
            print([part.result() for part in parts])

        The first task that fails cancels the others: those that have not started never do, those that run
        are told by `current_token()`. So is what they have started in groups of their own, and
        what was submitted under that token. When all have ended, an ExceptionGroup of what was raised
        leaves the block. See `TaskGroup`.

        The group's tasks have the options of the view that it is made of; with a token, that cancels the
        group as well. A group made of a group (`group.group()`), or in a task, ends with that one.

        Raises:
            ImportError: Python 3.10 has no ExceptionGroup, and the package `exceptiongroup` is not there.
        """
        return TaskGroup(self._futurepool_owner(), self._futurepool_options)

    def _futurepool_owner(self) -> BoundedExecutor:
        raise NotImplementedError


class ExecutorView(_Submitting):
    """An executor's `submit` and `map` with other options. Shutting it down does nothing."""

    def __init__(self, executor: BoundedExecutor, options: Options) -> None:
        self._pool = executor
        self._futurepool = executor._futurepool
        self._futurepool_options = options

    def __repr__(self) -> str:
        options = self._futurepool_options
        shown = ", ".join(
            f"{name}={getattr(options, name)!r}"
            for name in (
                "priority",
                "timeout",
                "token",
                "on_full",
                "name",
                "max_wait",
                "run_timeout",
            )
            if getattr(options, name) is not None
        )
        if options.abandon:
            shown += ", abandon=True"
        if options.limiter is not None:
            shown += f", {options.limiter!r}"
        return f"<ExecutorView of {self._pool!r}: {shown}>"

    def _futurepool_owner(self) -> BoundedExecutor:
        return self._pool

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Do nothing: the executor is its owner's to shut down."""


class TaskGroup(_Submitting):
    """Tasks that end together: what `BoundedExecutor.group` makes. It submits as the executor does.

    Leaving `with` or `async with` waits for all tasks of the group, those included that its tasks have
    submitted to it meanwhile. Then it takes no more. What is raised is as with `asyncio.TaskGroup`:

    - an ExceptionGroup (a BaseExceptionGroup, if need be) of what the tasks have raised, and of what
      the block itself was left by, which cancels the tasks, too;
    - KeyboardInterrupt or SystemExit, of the block or of a task, as it is;
    - a CancelledError that the block was left by, if no task has failed. That of a task is no failure.

    In `async with` the first failure also cancels what the block awaits. A block of `with` goes on; what
    it asks of the group's futures raises, as they are cancelled. Ctrl-C while leaving waits, or a
    cancellation of `async with`, cancels the tasks and goes on waiting for those that run; a second one
    ends that, too.

    Tasks are cancelled by the group's token, which `cancel()` cancels: then leaving raises nothing. A
    thread cannot be killed, so leaving waits for a task that does not look at its token.

    Thread safety: any thread may submit and cancel; one enters and leaves, once. In a task of the same pool
    it waits as `Future.result` does. Cost: a task costs what one under a token does.
    """

    def __init__(self, executor: BoundedExecutor, options: Options) -> None:
        from futurepool._executor import groups  # late, as few programs have groups

        self._pool = executor
        self._futurepool = executor._futurepool
        self._futurepool_token = token = groups.token_for(options.token)
        self._futurepool_options = options.under(token)
        self._futurepool_body: groups.Body | None = None

    def __repr__(self) -> str:
        token = self._futurepool_token
        state = "left" if token.left else "cancelled" if token.cancelled else "active"
        return f"<TaskGroup of {self._pool!r}: {state}, {len(token.members)} tasks unfinished>"

    def _futurepool_owner(self) -> BoundedExecutor:
        return self._pool

    @property
    def token(self) -> CancelToken:
        """Cancelled with the group; the parent of `current_token()` in its tasks."""
        return self._futurepool_token

    def cancel(self, reason: object = None) -> bool:
        """Cancel all tasks of the group, and those to come: see `CancelToken.cancel`.

        Returns:
            True if this call did it; False if it was cancelled before.
        """
        return self._futurepool_token.cancel(reason)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Do nothing: the executor is its owner's to shut down."""

    def __enter__(self) -> Self:
        self._futurepool_token.enter()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> Literal[False]:
        """Wait for all tasks, and raise what has gone wrong, as the class says."""
        from futurepool._executor import groups

        try:
            groups.leave(self._futurepool_token, exc_val)
        finally:
            del exc_val, exc_tb  # the traceback of what is raised holds this frame
        return False

    async def __aenter__(self) -> Self:
        from futurepool._executor import groups

        self._futurepool_body = groups.Body(self._futurepool_token)
        self._futurepool_token.enter()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> Literal[False]:
        """The same, without blocking the loop."""
        body, self._futurepool_body = self._futurepool_body, None
        try:
            if body is not None:
                await body.leave(exc_val)
        finally:
            del body, exc_val, exc_tb
        return False


def _set_own(name: str) -> Callable[[Any, object], None]:
    """A setter for a property that a subclass may set to whatever it likes.

    A subclass of ThreadPoolExecutor may have a `name` or a `closed` of its own, and set it before it
    calls our `__init__`. What the package itself needs to know it reads from the pool.
    """

    def setter(self: Any, value: object) -> None:
        vars(self)[name] = value

    return setter


class BoundedExecutor(_Submitting, Internals, ThreadPoolExecutor):
    """A `ThreadPoolExecutor` whose queue is bounded and ordered by priority.

    Args:
        max_workers: Tasks that run at a time; the default is ThreadPoolExecutor's, and as there
            any number above 0 will do, rounded up.
        thread_name_prefix: What worker threads are called.
        initializer: Called in each worker thread before its first task. If it fails the pool is
            broken: queued tasks fail, and `submit` raises, with `BrokenThreadPool`.
        initargs: The initializer's arguments.
        queue_size: Tasks that may wait. 0 accepts a task only if a worker is free for it; None is
            unbounded. At most `max_workers + queue_size` tasks are unfinished at a time.
        on_full: What a submission does that finds no place.
        shutdown_timeout: Seconds `stop()` waits. Whoever waits longer than that in `shutdown()`,
            `with` or at interpreter exit reads what for, in the log or on stderr, once.
        enable_metrics: Also keep histograms of run and waiting times.
        error_handler: Called in the worker with the `TaskError` of each task that failed. Without
            one, failures that nobody looks at are logged (logger `futurepool`).
        aging: Seconds in which a waiting task gains one level of priority; None: never.
        engine: Another executor to run the tasks: processes, interpreters, a cluster. At most
            `max_workers` are in there at a time, by default as many as it says it can run; the
            rest wait here, where they can be cancelled and overtaken. Tasks then have no context
            of the caller's and no `current_token()`.
        close_engine: Whether to shut the engine down with this executor.
        read_ahead: How many tasks are inside the engine besides the `max_workers`, so that a worker of its
            that is done finds the next one there. They count as running; they can be cancelled if the engine can do
            that, and no longer be overtaken. None: one for each worker of processes and interpreters, two of a
            cluster (dask, MPI), none for any other executor, nor where the engine can run more than `max_workers`, as it
            would run these, too.
        name: What the pool is called: in its repr, in messages, and its threads where they have no
            `thread_name_prefix` of their own. Without one the pool is called as its threads are.
        context: "copy": a task runs in a copy of its submitter's context, see `contextvars`.
            "none": it finds no variable of the submitter's, only what the initializer has set.
        exit_timeout: Seconds that interpreter exit waits for what was accepted; then it names on
            stderr what is left, and leaves it behind. None: for as long as it takes, as
            `ThreadPoolExecutor` does.
        idle_timeout: Seconds after which a worker that has nothing to do ends; it is started again when
            there is more to do. None: it stays.
        min_workers: How many workers stay also when they have had nothing to do for `idle_timeout`.
        slow_task: A task that has run for so many seconds is logged, once, as a WARNING with its stack
            (logger `futurepool`). None: none is. Tasks cost nothing more by it.
        order: Which of the waiting tasks of one priority starts first. "fifo": the oldest. "lifo": the
            newest. "adaptive": the oldest; but once that has waited for `adaptive_wait` seconds, the
            newest, until the old ones have been served. Not with `aging`.
        adaptive_wait: Seconds, for `order="adaptive"`; None: 0.1.

    Raises:
        InvalidConfigError: An argument has an impossible value.
        TypeError: An argument has the wrong type.

    It is a ThreadPoolExecutor by name only, for code that asks for one (asyncio's
    `set_default_executor` does); none of that class's code runs.

    Thread safety: all methods, any thread. Cost: no thread before the first task, then up to `max_workers`
    of them; a task takes a microsecond or two of processor time, and some 230 bytes while it is queued.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        refuse_overrides(cls)

    def __init__(
        self,
        max_workers: int | None = None,
        thread_name_prefix: str | None = "",
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        queue_size: int | None = 1000,
        on_full: OnFull = OnFull.BLOCK,
        shutdown_timeout: float = 30.0,
        enable_metrics: bool = False,
        error_handler: Callable[[TaskError], object] | None = None,
        aging: float | None = None,
        engine: cf.Executor | None = None,
        close_engine: bool = True,
        read_ahead: int | None = None,
        name: str | None = None,
        context: Literal["copy", "none"] = "copy",
        exit_timeout: float | None = None,
        idle_timeout: float | None = None,
        min_workers: int = 0,
        slow_task: float | None = None,
        order: Literal["fifo", "lifo", "adaptive"] = "fifo",
        adaptive_wait: float | None = None,
    ) -> None:
        # Late, as whoever imports this package need not make a pool. But not so late as `map`, which may be
        # called by a finalizer or a signal handler, while the import goes on.
        from futurepool import _map  # noqa: F401  # pyright: ignore[reportUnusedImport]

        check_engine(engine, initializer, idle_timeout)
        config = checked_config(
            self._futurepool_workers(engine) if max_workers is None else max_workers,
            thread_name_prefix,
            _number,
            name=name,
            initializer=initializer,
            initargs=initargs,
            queue_size=queue_size,
            on_full=on_full,
            shutdown_timeout=shutdown_timeout,
            enable_metrics=enable_metrics,
            error_handler=error_handler,
            aging=aging,
            engine=engine,
            close_engine=close_engine,
            read_ahead=read_ahead,
            context=context,
            exit_timeout=exit_timeout,
            idle_timeout=idle_timeout,
            min_workers=min_workers,
            slow_task=slow_task,
            order=order,
            adaptive_wait=adaptive_wait,
        )
        self._futurepool = pool = Pool(config)
        self._futurepool_options = Options(on_full=on_full)
        self._futurepool_engine(pool, config)
        patched.look()
        shutdown.register(pool)
        # When the executor is collected: no new tasks, run what there is, end the threads. At exit
        # all that has been done, and by now our modules may be empty.
        self._futurepool_collected: Any = weakref.ref(self, lambda _: pool.exiting or pool.close())
        pool.collected = self._futurepool_collected
        _living.register(self)

    # What `futurepool.testing` does otherwise.

    def _futurepool_workers(self, engine: cf.Executor | None) -> int:
        """How many, if nothing was said."""
        return _default_workers(engine)

    def _futurepool_engine(self, pool: Pool, config: Config) -> None:
        """Give the new pool what runs its tasks."""
        if config.engine is None:
            pool.engine = ThreadEngine(pool, config.prefix, config.initializer, config.initargs)
        else:
            from futurepool._engines.delegate import DelegateEngine

            pool.engine = DelegateEngine(
                pool, config.engine, config.close_engine, config.read_ahead
            )
            pool.resize(config.max_workers)  # with the places that the engine has besides
            shutdown.precede(config.engine)

    def __repr__(self) -> str:
        pool = self._futurepool
        size = (
            "unbounded"
            if pool.capacity.queue_size is None
            else f"queue_size={pool.capacity.queue_size}"
        )
        state = RunState.NAMES[pool.state]
        name = show(pool.name)
        return f"<{type(self).__name__} {name} max_workers={pool.workers.size} {size} {state}>"

    def _futurepool_owner(self) -> BoundedExecutor:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> Literal[False]:
        """`shutdown()`; leaving by Ctrl-C or SystemExit also cancels what has not started."""
        leaving.leave(self, exc_type)
        return False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> Literal[False]:
        """As `with`, without blocking the loop. A cancellation ends it.

        If the block is left by one, or one comes while this waits (asyncio makes one of Ctrl-C), what
        has not started is cancelled, and so are the tokens of what runs; a tenth of a second later
        this returns, though tasks may run on.
        """
        await leaving.leave_async(self, exc_type)
        return False

    # -- its size ------------------------------------------------------------------------------

    def resize(self, max_workers: int | None = None, *, queue_size: int | None = UNSET) -> None:
        """Have another number of workers, or of tasks that may wait, from now on.

        Nothing is lost by it. With fewer workers, those that are too many end after their task. With a
        smaller queue, what waits stays, over the bound if need be. Submitters that are blocked get
        the places that are there now.

        Args:
            max_workers: As for the class; None leaves it. With an engine, how many tasks are in there at a
                time, besides `read_ahead`, which stays if it was given; its own workers are its own.
            queue_size: As for the class: None is unbounded. Not given, it stays.

        Raises:
            InvalidConfigError: An argument has an impossible value.
            TypeError: An argument has the wrong type.

        Thread safety: any thread, finalizers and signal handlers included. Cost: one lock acquisition, and
        a look at each worker.
        """
        workers = None if max_workers is None else check_workers(max_workers)
        least = self._futurepool.min_workers
        if workers is not None and workers < least:
            raise InvalidConfigError(
                f"max_workers must be at least min_workers={least}, not {workers}"
            )
        if queue_size is not UNSET and queue_size is not None:
            queue_size = check_int("queue_size", queue_size, minimum=0)
        self._futurepool.resize(workers, queue_size)

    def prestart(self, number: int | None = None) -> int:
        """Start workers now, ahead of the first tasks, which then need not wait for a thread to start.

        Args:
            number: Have at least so many of them; None: all `max_workers`.

        Returns:
            How many there are.

        Raises:
            InvalidConfigError: `number` is more than there may be.
            PoolClosedError: The executor was shut down.
            RuntimeError: There is no thread to be had.

        It does not wait for an `initializer`. With an engine, it opens places, which makes some executors
        start their workers. Thread safety: any thread. Cost: that of starting the threads.
        """
        most = self._futurepool.workers.size
        if number is None:
            number = most
        number = check_int("number", number, minimum=0)
        if number > most:
            raise InvalidConfigError(f"number must be at most max_workers={most}, not {number}")
        return sizing.prestart(self._futurepool, number)

    # -- the end -------------------------------------------------------------------------------

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Refuse new tasks and finish what was accepted, however long that takes.

        Args:
            wait: Return only when every task has finished and every thread has ended. A task of
                this executor cannot wait for itself; there this counts as False.
            cancel_futures: Cancel what has not started.

        Thread safety: any thread; with `wait=False` also finalizers and signal handlers.
        Calling it again is fine.
        """
        pool = self._futurepool
        pool.user_closed = True
        pool.close(RunState.STOPPING if cancel_futures else RunState.DRAINING)
        self._futurepool_collected = pool.collected = None  # nothing left to do for it
        told = cancel_queued(pool) if cancel_futures else None
        if wait and not shutdown.is_own_worker(pool):
            shutdown.shutdown(pool)
            if told is not None:
                told(shutdown.TELLING)

    def stop(self, timeout: float | None = UNSET, *, token: CancelToken | None = None) -> None:
        """Refuse new tasks and finish what was accepted, but for a bounded time only.

        Args:
            timeout: Seconds; the default is the executor's `shutdown_timeout`, None is no limit.
            token: Time is up when this is cancelled, too.

        Raises:
            ForcedShutdownError: Time was up. What was queued is cancelled, the tokens of running
                tasks are; the error names those that still run, with their stacks.

        Returns within `timeout` plus a fraction of a second. A thread cannot be killed: a task that
        does not look at its token runs on. A task of this executor that calls it, by way of
        `asyncio.to_thread` too, waits for all tasks but those that wait like this themselves;
        another worker takes its place meanwhile. Thread safety: any thread. Cost, when time is up: about a
        hundred microseconds for each running task, for its stack.
        """
        shutdown.stop(self._futurepool, self._stop_limit(timeout, token), token)

    async def astop(
        self, timeout: float | None = UNSET, *, token: CancelToken | None = None
    ) -> None:
        """`stop`, without blocking the loop; also where this is the loop's default executor.

        Args:
            timeout: As in `stop`.
            token: As in `stop`.

        Raises:
            ForcedShutdownError: As `stop`.

        Cancelling it says that time is up.
        """
        await leaving.stop(self, self._stop_limit(timeout, token), token)

    def stopping(
        self, timeout: float | None = UNSET, *, token: CancelToken | None = None
    ) -> leaving.Stopping[Self]:
        """For `with` and `async with`: a block that is left by `stop(timeout, token=token)`.

        For services, which are to end soon after SIGTERM even if a task hangs::

            async with BoundedExecutor(8).stopping(10.0) as pool:
                ...

        If the block is left by Ctrl-C, SystemExit or a cancellation, what has not started is
        cancelled first. `ForcedShutdownError` is raised if the block ended normally; if an exception
        leaves it that one goes on, and the other's text is logged (logger `futurepool`).

        Args:
            timeout: As in `stop`.
            token: As in `stop`.
        """
        return leaving.Stopping(self, self._stop_limit(timeout, token), token)

    def _stop_limit(self, timeout: float | None, token: CancelToken | None) -> float | None:
        if token is not None and not isinstance(cast(object, token), CancelToken):
            raise TypeError(f"token must be a CancelToken or None, not {show(token)}")
        if timeout is UNSET:
            # A token alone is limit enough.
            timeout = self._futurepool.shutdown_timeout if token is None else None
        return check_timeout("timeout", timeout)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until nothing is queued or running; the executor stays open.

        Done-callbacks of the latest tasks may still run; `shutdown` waits for those, too.

        Args:
            timeout: Seconds; None for no limit.

        Returns:
            False if the time was up first.

        Raises:
            RuntimeError: A task of this executor would wait for itself, for ever.

        Thread safety: any thread.
        """
        limit = check_timeout("timeout", timeout)
        if limit is None and shutdown.is_own_worker(self._futurepool):
            raise RuntimeError("wait() in a task of the executor would wait for itself")
        return wait_empty(self._futurepool, limit)

    @property
    def closed(self) -> bool:
        """True once the executor takes no new tasks."""
        mine = vars(self)
        if "closed" in mine:
            return cast(bool, mine["closed"])
        return self._futurepool.state > RunState.RUNNING

    if not TYPE_CHECKING:  # pragma: no branch
        closed = closed.setter(_set_own("closed"))

    @property
    def name(self) -> str:
        """What the pool was called when it was made, else what its threads are called."""
        mine = vars(self)
        if "name" in mine:
            return cast(str, mine["name"])
        return self._futurepool.name

    if not TYPE_CHECKING:  # pragma: no branch
        name = name.setter(_set_own("name"))

    # -- what it is doing ------------------------------------------------------------------------

    def stats(self) -> futurepool.Stats:
        """A snapshot of the counters, consistent in itself.

        Thread safety: any thread, finalizers and signal handlers included.
        Cost: one lock acquisition and a look at each worker, however many tasks were run. With histograms some
        50 microseconds more, and what the workers would have had to count later.
        """
        return self._futurepool.stats()

    def running(self, *, stack: bool = False) -> list[futurepool.RunningTask]:
        """The tasks that run now, longest first; with `stack`, where each is in its code.

        Args:
            stack: Whether each entry is to have the stack of its task, as text.

        Thread safety: any thread. Cost: one lock acquisition and some microseconds for each task; with `stack` about
        a hundred, as it formats the stack.
        """
        return shutdown.running(self._futurepool, stack)

    def add_observer(self, observer: futurepool.Observer) -> None:
        """Tell `observer` of each task, some hundredths of a second after something has happened to it.

        It hears of the tasks that run or wait, too, from now on. It is kept alive until
        `remove_observer`, or as long as the executor.

        Args:
            observer: Usually a subclass of `Observer`; anything with one of its methods will do.

        Raises:
            TypeError: It has none of them.

        Thread safety: any thread. Cost: a task takes some 10 microseconds more while there is an observer,
        and what that does itself; nothing once there is none.
        """
        kinds = ("submitted", "started", "finished", "refused")
        if not any(callable(getattr(observer, kind, None)) for kind in kinds):
            raise TypeError(
                f"an observer must have a method {' or '.join(kinds)}, not {show(observer)}"
            )
        self._futurepool.observe(observer)

    def remove_observer(self, observer: futurepool.Observer) -> None:
        """Tell `observer` no more, once it has heard of what has happened up to now.

        Raises:
            ValueError: It was not added, or was removed before.
        """
        if not self._futurepool.unobserve(observer):
            raise ValueError(f"{show(observer)} is not an observer of this executor")

    def record(self, limit: int = 10_000) -> futurepool.Trace:
        """Record what the tasks do, for Perfetto or another viewer of Chrome's trace events.

        For instance::

            with pool.record() as trace:
                ...
            trace.save("out.json")

        Args:
            limit: Of so many tasks; the latest are kept.

        Raises:
            InvalidConfigError: `limit` is less than 1.

        Cost: that of an observer.
        """
        from futurepool._telemetry.trace import Trace

        trace = Trace(self._futurepool, check_int("limit", limit, minimum=1))
        self._futurepool.observe(trace)
        return trace

    def queued(self) -> list[futurepool.QueuedTask]:
        """The tasks that wait for a worker, in the order in which they are to start.

        With `aging` or submissions of a higher priority that is the order as of now. Those who wait for
        a place are not among them, see `Stats.waiting_submitters`.

        Thread safety: any thread.
        Cost: the queue is copied in one section, and about a microsecond for each task after it.
        """
        from futurepool._pool.report import queued

        return queued(self._futurepool)


def _shared() -> dict[str, FunctionType]:
    """The public methods that the two classes below share, by name."""
    found = {**vars(Submitting), **vars(_Submitting)}
    return {
        name: value
        for name, value in found.items()
        if isinstance(value, FunctionType) and not name.startswith("_")
    }


def _give_own_names() -> None:
    """Have the public classes list those, and errors about wrong arguments name the class."""
    for name, method in _shared().items():
        for kind in (ExecutorView, TaskGroup):
            if name not in vars(kind):
                # These get copies, so that the executor's methods are the very ones it inherits.
                copy = FunctionType(
                    method.__code__,
                    method.__globals__,
                    name,
                    method.__defaults__,
                    method.__closure__,
                )
                copy.__kwdefaults__ = method.__kwdefaults__
                copy.__annotations__ = method.__annotations__
                copy.__doc__ = method.__doc__
                copy.__qualname__ = f"{kind.__name__}.{name}"
                setattr(kind, name, copy)
        if name not in vars(BoundedExecutor):
            method.__qualname__ = f"{BoundedExecutor.__name__}.{name}"
            setattr(BoundedExecutor, name, method)
    for public in (BoundedExecutor, ExecutorView, TaskGroup):
        put_compiled(public)
    SUBMITS.extend([ExecutorView.submit, TaskGroup.submit])


_give_own_names()


_loaded: Any = None  # what `_aio` has returned


def _aio() -> Any:
    """The module behind the async methods, loaded when first used: asyncio is slow to import."""
    global _loaded
    from futurepool import _aio as module

    _loaded = module
    return module


def _default_workers(engine: cf.Executor | None) -> int:
    """As ThreadPoolExecutor has it; before another executor, as many tasks as that says it can run."""
    if engine is not None:
        from futurepool._engines.delegate import capacity

        return capacity(engine)
    count: Callable[[], int | None] = getattr(os, "process_cpu_count", os.cpu_count)
    return min(32, (count() or 1) + 4)
