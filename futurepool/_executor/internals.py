"""What programs and libraries read, and set, of a ThreadPoolExecutor behind its back.

Monitoring reads `_max_workers`, `_threads`, `_work_queue.qsize()`; some set `_max_workers` to have
more threads, drain `_work_queue`, put a `queue.Queue(n)` in its place to bound it, or take
`_shutdown_lock` while they copy what the standard `submit` does. Here each of these answers
truthfully and has the effect that was meant. What would be called by nobody is refused when a
subclass is made: the `_adjust_thread_count` of a subclass, for instance.

All of it is read off the pool; nothing is kept here but the lock. Called by users only.
"""

from __future__ import annotations

import queue
import threading
from concurrent import futures as cf
from concurrent.futures.thread import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, cast

from futurepool import _sync
from futurepool._engines.threads import BROKEN
from futurepool._errors.checks import check_workers, show
from futurepool._foreign import patched
from futurepool._options import Options
from futurepool._pool.pool import Pool, RunState

_POLL = 0.01  # seconds between two looks of a blocking `get`, which competes with the workers

#: What the standard class calls of its own, by the newest version that does, and what to do instead.
_ADVICE = {
    "_adjust_thread_count": "it starts its threads itself, and with exit_timeout=0 no task keeps "
    "the interpreter from ending",
    "_initializer_failed": "a failing initializer breaks the pool, and `submit` raises",
    "prepare_context": "use initializer= and initargs=",
}


def never_called() -> set[str]:
    """The names of the standard class's methods that this one never calls."""
    mine = {"submit", "map", "shutdown", "_counter"}
    theirs = {
        name
        for name, value in vars(ThreadPoolExecutor).items()
        if not name.startswith("__") and name not in mine and not isinstance(value, type)
    }
    return theirs | set(_ADVICE)


def refuse_overrides(cls: type) -> None:
    """TypeError if the class overrides what would never be called."""
    for name in sorted(never_called()):
        for base in cls.__mro__:
            if base is Internals or base is ThreadPoolExecutor:
                break
            if name in vars(base):
                advice = _ADVICE.get(name, "it is a part of how the standard class works")
                raise TypeError(
                    f"{cls.__qualname__} overrides {name}, which a futurepool.BoundedExecutor "
                    f"never calls: {advice}"
                )


class WorkItem:
    """A task that was taken out of the queue, as the standard class has it there.

    Its future is cancelled, so `run` does nothing, as there.
    """

    __slots__ = ("args", "fn", "future", "kwargs")

    def __init__(
        self, future: cf.Future[Any], fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.future: cf.Future[Any] = future
        self.fn: Any = fn
        self.args: tuple[Any, ...] = args
        self.kwargs: dict[str, Any] = kwargs

    @property
    def task(self) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
        """The call, as in Python 3.14 and later."""
        return self.fn, self.args, self.kwargs

    def run(self, _context: object = None) -> None:
        """Nothing: its future has been cancelled."""


def _perform(item: Any) -> None:
    """Run a work item that somebody has put into the queue; the outcome is its future's."""
    task = getattr(item, "task", None)
    if not isinstance(task, tuple):  # up to Python 3.13
        item.run()
        return
    fn, args, kwargs = cast("tuple[Any, Any, Any]", task)
    future = item.future
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = fn(*args, **kwargs)
    except BaseException as error:
        future.set_exception(error)
        del future  # the traceback holds this frame
    else:
        future.set_result(result)


class QueueView:
    """The queue as a `queue.SimpleQueue`, which it is in the standard class.

    Thread safety: any thread. Each call costs a lock acquisition or two.
    """

    __slots__ = ("_options", "_pool")

    def __init__(self, pool: Pool, options: Options) -> None:
        self._pool = pool
        self._options = options

    @property
    def maxsize(self) -> int:
        """How many tasks may wait; 0 if any number may, as in `queue.Queue`."""
        return self._pool.capacity.queue_size or 0

    def qsize(self) -> int:
        """How many tasks wait. An instant later it may be another number."""
        return self._pool.queued()

    def empty(self) -> bool:
        """True if none does."""
        return not self.qsize()

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take out the task that is due next: it is cancelled.

        Returns:
            An object with `future`, `fn`, `args`, `kwargs`; None if the pool is closed and nothing
            waits, as the standard class has it.

        Raises:
            queue.Empty: No task waits, or none came in time.
        """
        if timeout is not None and timeout < 0 and block:
            raise ValueError("'timeout' must be a non-negative number")
        end = None if timeout is None else _sync.clock() + timeout
        while True:
            taken = self._pool.hand_out()
            if taken is not None:
                fn, args = taken[1], taken[2]
                return args[0] if fn is _perform else WorkItem(*taken)
            if not block:
                raise queue.Empty
            if self._pool.state > RunState.RUNNING:
                return None
            left = None if end is None else end - _sync.clock()
            if left is not None and left <= 0:
                raise queue.Empty
            _sync.sleep_at(_sync.Parker(), _POLL if left is None else min(left, _POLL), int)

    def get_nowait(self) -> Any:
        """The same, without waiting."""
        return self.get(block=False)

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Submit a work item of the standard library's; None, which wakes threads there, does nothing.

        Raises:
            TypeError: It is neither.
        """
        if item is None:
            return
        caught = _sync.here.caught
        if caught is not None:  # see futurepool._foreign.patched
            caught.append(item)
            return
        if not isinstance(getattr(item, "future", None), cf.Future):
            raise TypeError(f"the queue takes work items, not {show(item)}; use submit()")
        self._pool.submit(self._options, _perform, (item,), {})

    def put_nowait(self, item: Any) -> None:
        """As `put`."""
        self.put(item)


class IdleView:
    """How many threads have nothing to do, as the standard class's semaphore counts them."""

    __slots__ = ("_pool",)

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @property
    def _value(self) -> int:
        return len(self._pool.workers.parked)

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        """True if one is idle; this takes none, and never waits."""
        return self._value > 0

    def release(self, n: int = 1) -> None:
        """Nothing: the pool counts them itself."""


def _part(name: str, default: object) -> Any:
    """What the threads are made with; an engine that is another executor has its own."""

    def read(self: Any) -> Any:
        return getattr(self._futurepool_pool().engine, name, default)

    def write(self: Any, value: object) -> None:
        engine = self._futurepool_pool().engine
        if hasattr(engine, name):
            setattr(engine, name, value)

    return property(read, write)


class Internals:
    """The attributes of the standard class, for `BoundedExecutor`."""

    _futurepool: Pool
    _futurepool_options: Options

    if not TYPE_CHECKING:  # pragma: no branch - typeshed has them as plain attributes

        def _futurepool_pool(self) -> Pool:
            try:
                return self.__dict__["_futurepool"]
            except KeyError:
                kind = type(self).__qualname__
                text = f"{kind}.__init__ has to call BoundedExecutor.__init__ first (use super())"
                raise RuntimeError(text) from None

        @property
        def _max_workers(self) -> int:
            return self._futurepool_pool().workers.size

        @_max_workers.setter
        def _max_workers(self, value: object) -> None:
            self._futurepool_pool().resize(check_workers(value))

        @property
        def _threads(self) -> set[threading.Thread]:
            threads = self._futurepool_pool().engine.threads
            return {each for each in set(threads) if not _sync.has_ended(each)}

        @_threads.setter
        def _threads(self, value: object) -> None:
            """Accept what code that wants to forget the threads sets; they are not forgotten."""

        @property
        def _work_queue(self) -> QueueView:
            return QueueView(self._futurepool_pool(), self._futurepool_options)

        @_work_queue.setter
        def _work_queue(self, value: object) -> None:
            # How many bound the standard class.
            if type(value) is queue.Queue:
                size = value.maxsize
                self._futurepool_pool().resize(queue_size=size if size > 0 else None)
            elif not isinstance(value, (queue.SimpleQueue, QueueView)):
                raise TypeError(
                    f"_work_queue cannot be {show(value)}: the pool has its own queue; set its size by "
                    "queue_size=, and the order by submit_with_priority()"
                )

        @property
        def _shutdown(self) -> bool:
            return self._futurepool_pool().state > RunState.RUNNING

        @_shutdown.setter
        def _shutdown(self, value: object) -> None:
            pool = self._futurepool_pool()
            if value:
                pool.user_closed = True
                pool.close()
            elif pool.state:
                raise RuntimeError("a pool that was shut down cannot be opened again")

        @property
        def _shutdown_lock(self) -> Any:
            # Theirs alone: nothing here takes it, so nothing can wait for what they do under it.
            if (
                _sync.here.caught is not None
            ):  # the standard submit, see futurepool._foreign.patched
                return patched.NO_LOCK
            return self.__dict__.setdefault("_futurepool_lock", _sync.Lock())

        @property
        def _broken(self) -> str | bool:
            return self._futurepool_pool().broken or False

        @_broken.setter
        def _broken(self, value: object) -> None:
            pool = self._futurepool_pool()
            if value:
                pool.breaks(str(value))
            elif pool.broken:
                raise RuntimeError("a broken pool cannot be mended")

        @property
        def _idle_semaphore(self) -> IdleView:
            return IdleView(self._futurepool_pool())

        _thread_name_prefix = _part("_prefix", "")
        _initializer = _part("_initializer", None)
        _initargs = _part("_initargs", ())

        def _adjust_thread_count(self) -> None:
            """Nothing: the pool starts threads when there is work for them."""

        def _resolve_work_item_task(self, fn: Any, args: Any, kwargs: Any) -> tuple[Any, Any, Any]:
            return fn, args, kwargs

        def _initializer_failed(self) -> None:
            self._futurepool_pool().breaks(BROKEN)
