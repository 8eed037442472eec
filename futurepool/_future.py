"""The future: what a submission returns, and at the same time the queue's own work item.

States are the standard library's strings and only ever move down this list:

    PENDING                 queued, or about to be              -> RUNNING, CANCELLED*, FINISHED (expired)
    RUNNING                 claimed by exactly one thread       -> FINISHED (by that one, or timed out),
                                                                   CANCELLED* (an engine gave it back)
    CANCELLED               never ran; waiters not told yet     -> CANCELLED_AND_NOTIFIED
    CANCELLED_AND_NOTIFIED  never ran; final
    FINISHED                has a result or an exception; final

Every change of `_state` happens under the mutex of the owner (its pool), so exactly one
thread makes it. Reading needs no lock: the outcome is stored before the state that announces it,
each by one C call, so whoever reads a final state reads its outcome too.

Few futures in bulk work are ever waited for, so a future starts without lock, condition, waiters
and callbacks. The first who wants to be told makes a `Subscribers` under the mutex. Whoever makes the
state final reads `_subscribers` in the same section: subscribers made earlier are seen by it, those made later
see the final state. So nobody is forgotten.

`concurrent.futures.wait` and `as_completed` reach into `_condition` and `_waiters`. They count the
futures that are not done and add their waiter under `_condition`; so once a condition exists the
change to FINISHED is made while holding it (lock order: condition, then mutex, never the other
way). Cancelling needs no such care: CANCELLED does not count as done for them,
CANCELLED_AND_NOTIFIED does, and that step is taken under the condition.
"""

from __future__ import annotations

import functools
import itertools
import logging
import operator
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator
from concurrent import futures as cf
from concurrent.futures import _base  # the state names; `wait` compares with these very strings
from contextvars import Context
from operator import methodcaller
from types import (
    BuiltinFunctionType,
    FrameType,
    FunctionType,
    MethodDescriptorType,
    MethodType,
    MethodWrapperType,
    ModuleType,
)
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast

from futurepool import _sync
from futurepool._errors import is_a, safe_text
from futurepool._errors.checks import NoCopy, check_callable, check_timeout
from futurepool._errors.failures import Failure, TaskError
from futurepool._foreign import aside

if TYPE_CHECKING:
    from futurepool._cancellation import CancelToken

__all__ = ["Future"]

T = TypeVar("T")

PENDING = _base.PENDING
RUNNING = _base.RUNNING
CANCELLED = _base.CANCELLED
NOTIFIED = _base.CANCELLED_AND_NOTIFIED
FINISHED = _base.FINISHED

#: BaseException's own `__traceback__`: no override of the user's is trusted.
traceback_slot: Any = BaseException.__dict__["__traceback__"]

_std_log = logging.getLogger("concurrent.futures")


class Owner(Protocol):
    """What a future needs of the pool that owns it."""

    mutex: Any
    deferred: Any  # what was left to be done, if it is true

    def cancel(
        self, future: Future[Any], aside: bool = False, raised: list[BaseException] | None = None, /
    ) -> bool:
        """Cancel `future` if it has not started; else tell its token. See `Future.cancel`.

        `aside`: what users are to be told is told in another thread. `raised`: see `Future._call_all`.
        """
        ...

    def help(self, future: Future[Any], timeout: float | None, again: bool = False, /) -> bool:
        """If this thread is one of the owner's workers, and waits: see that `future` is run.

        True if it was, right here. `again` is a second look at the same wait, a second later.
        """
        ...

    def want(self, future: Future[Any], in_loop: bool = False, /) -> None:
        """The same for a thread that may hold conditions of futures: never here.

        `in_loop`: if an event loop is running in this thread.
        """
        ...

    def run_deferred(self) -> None:
        """Do what was left to be done outside the mutex."""
        ...

    def run_deferred_aside(self) -> None:
        """The same in another thread, if there is anything."""
        ...

    def reap_dead_workers(self) -> None:
        """See whether those live who are to finish it; called now and then by whoever waits."""
        ...

    def repair(self) -> None:
        """After an exception in or near a section of the mutex: put everything right."""
        ...


LIMITED = 2  # of `Subscribers.slow`


class Subscribers:
    """Who wants to hear of one future. Made under the mutex; told once, outside it.

    `slow` says that telling may take long, or needs the condition: then the worker commits with
    care and tells before it claims its next task. (LIMITED: only the task's limit is to hear of its end.) One that is `shared` by many futures is an event
    loop's mailbox, which hears of all of them and has nothing else; see futurepool._aio.
    """

    __slots__ = (
        "asked_by",
        "callbacks",
        "condition",
        "notified",
        "notifying",
        "on_done",
        "parkers",
        "shared",
        "slow",
        "token",
        "waiters",
    )

    def __init__(self, on_done: Callable[[], object] | None = None) -> None:
        # Quick, never raises, may be called twice.
        self.on_done: Callable[[], object] | None = on_done
        self.slow: bool | int = False
        self.shared: bool = False
        self.parkers: list[Any] | None = None  # locks that threads in result() sleep at
        self.callbacks: deque[Callable[[Future[Any]], object]] | None = None
        self.condition: threading.Condition | None = None
        self.asked_by: int | None = None  # the latest task of the same pool that asked for it
        # concurrent.futures.wait and as_completed; these three under condition.
        self.waiters: list[Any] | None = None
        self.notifying: bool = False
        self.notified: bool = False
        self.token: CancelToken | None = None  # where the future is listed

    # If it is shared: who is done, and whether the loop has been told of it; see futurepool._aio.
    box: deque[Any]
    raised: bool

    def post(self, future: Future[Any]) -> None:
        """If it is shared: `future` is done. Quick, never raises, may be called twice."""
        raise NotImplementedError

    def wake(self) -> None:
        """If it is shared: have the loop look into `box`."""
        raise NotImplementedError

    def add_parker(self, parker: Any) -> None:
        """Open `parker` when the future is done."""
        if self.parkers is None:
            self.parkers = [parker]
        else:
            self.parkers.append(parker)

    def add_callback(self, fn: Callable[[Future[Any]], object]) -> None:
        """Call `fn` when the future is done."""
        if self.callbacks is None:
            self.callbacks = deque([fn])
        else:
            self.callbacks.append(fn)
        self.slow = True


_qualname_of_class: Any = type.__dict__["__qualname__"].__get__
_LRU = type(functools.lru_cache(int))
_LAYERS = 100  # of partials and methods; a partial may hold itself


def _class_name(value: Any) -> str:
    """A class is called what it is called, an instance what its class is."""
    kind = cast(Any, type(value))
    # Of the type, as `isinstance` would ask for the value's `__class__`. This asks nothing of a user's.
    return cast(str, _qualname_of_class(value if issubclass(kind, type) else kind))


def is_context_run(fn: Any) -> bool:
    """True for the `run` of a context: what it runs is its first argument."""
    return type(fn) is BuiltinFunctionType and type(fn.__self__) is Context and fn.__name__ == "run"


def _is_handler(fn: Any) -> bool:
    """Asgiref's `sync_to_async` hands this to the executor, and what it runs as the last argument."""
    return type(fn) is FunctionType and fn.__qualname__ == "SyncToAsync.thread_handler"


def name_of(fn: Any, args: tuple[Any, ...] | None = None) -> str:
    """The qualified name of a callable, without running any code of the user's.

    With the `args` it is to be called with, or in a partial, what is only there to call another is
    looked through: `asyncio.to_thread` and many others submit `context.run` of a function.
    """
    args = args or ()
    # By identity: `in` would ask the `__eq__` of a metaclass.
    for _ in range(_LAYERS):
        kind = cast(Any, type(fn))
        if kind is MethodType:
            fn = fn.__func__  # which may be any callable; the method's own `__qualname__` asks it
            if args and _is_handler(fn):
                fn, args = args[-1], ()
        elif kind is functools.partial:
            fn, args = fn.func, (*fn.args, *args)
        elif args and is_context_run(fn):
            fn, args = args[0], args[1:]
        else:
            break
    kind = cast(Any, type(fn))
    if kind is FunctionType:
        return str.__str__(fn.__qualname__)
    if kind is BuiltinFunctionType:
        # Its `__qualname__` asks the class of what it is bound to.
        owner = fn.__self__
        if owner is None or type(owner) is ModuleType:
            return cast(str, fn.__name__)
        return f"{_class_name(owner)}.{fn.__name__}"
    if kind is MethodWrapperType or kind is MethodDescriptorType:
        return cast(str, fn.__qualname__)
    if kind is _LRU and type(text := fn.__dict__.get("__qualname__")) is str:
        return text
    return _class_name(fn)


class FutureType(type):
    """The class of `Future`: makes those that no executor made.

    An executor fills the slots of its futures itself, and makes them by `new_future`: a call of a
    class with an `__init__` in Python would cost a tenth of a task.
    """

    def __new__(mcs, name: str, bases: tuple[type, ...], body: dict[str, Any], **words: Any) -> Any:
        # From 3.14 on an instance has room in it for each attribute that the methods of its class
        # set: 8 bytes for each of ours, though all are slots.
        body["__static_attributes__"] = ()
        return super().__new__(mcs, name, bases, body, **words)

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        own: Any = cls
        future = own.__new__(own, *args, **kwargs)
        if isinstance(future, own):
            future._pool = Detached()
            future._fn = "detached"
            future._args = future._kwargs = future._context = future._subscribers = None
            future._state = PENDING
            future._queued_at = 0.0
            future._result = None
            future.task_id = 0
            future.priority = 1
            type(future).__init__(future, *args, **kwargs)
        return future

    @property
    def __signature__(cls) -> Any:
        """For `inspect.signature`, which would show that of `__call__` above."""
        import inspect

        init: Any = vars(cls).get("__init__", cast(Any, cls).__init__)
        if init is object.__init__:
            return inspect.Signature()
        return inspect.signature(init.__get__(cls))


class Future(NoCopy, cf.Future[T], Generic[T], metaclass=FutureType):
    """The outcome of a task, to be: a `concurrent.futures.Future` that also knows its task.

    All methods are safe from any thread, from callbacks, finalizers and signal handlers.
    `await future` works on any running asyncio loop. `Future()` makes a pending one that belongs to
    no executor, for tests and adapters.

    Attributes:
        task_id: Number of the task in its executor, from 1 in order of admission; 0 while the
            task has not been admitted (refused and dropped tasks never are).
        priority: The priority it was submitted with.
    """

    __slots__ = (
        "_args",
        "_context",
        "_fn",
        "_kwargs",
        "_pool",
        "_queued_at",
        "_result",
        "_state",
        "_subscribers",
        "_waiter",
        "priority",
        "task_id",
    )

    _instead = (
        "it is the outcome of a task of this process, to be, and there is one of it; "
        "hand on its result() instead"
    )

    if TYPE_CHECKING:
        _pool: Owner
        _fn: Any  # the function; its name once it has run
        # None once the task is over, or where empty:
        _args: Any
        _kwargs: dict[str, Any] | None
        _context: Any  # a contextvars.Context; None also stands for one without variables
        _queued_at: float
        _state: str
        _subscribers: Subscribers | None
        _result: Any  # a Failure if it failed
        _waiter: Any  # an event loop's own future, see futurepool._aio; not set without one
        task_id: int
        priority: int
        _failure: Failure | None  # until the error_handler has heard of it
        _hushed: bool  # nobody need hear of its failure
        _why: str | None  # it was cancelled, if that is noted
        _name: str | None
        _token: CancelToken | None  # the one it was submitted under
        _own_token: CancelToken | None  # the task's own, made when first needed
        _noted: bool  # observers will hear that it was cancelled, or has expired
        _in_line: bool  # a coroutine's, it has begun to wait for its place
        _max_wait: float | None  # it may wait so long, and nobody sees to that yet
        # These four of one with a limit, see futurepool._pool.limits:
        _limit: Any  # what it was submitted with; once it is queued, its limiter
        _lent: Any  # the limiter from which on upwards another task's slot is its, too
        _lender: Any  # that other task, until one of the two has ended
        _meters: tuple[Any, ...]  # what counts it

        def __init__(self) -> None: ...

    else:
        # Not the base class's, nor any in Python: see FutureType.
        __init__ = object.__init__

    # Rare enough to live in the instance's dictionary, which the others never make. Declared
    # above: `typing.get_type_hints` would look for the names of their types in the package.
    _failure = None
    _hushed = False
    _why = None
    _name = None
    _token = None
    _own_token = None
    _noted = False
    _in_line = False
    _max_wait = None
    _limit = None
    _lent = None
    _lender = None
    _meters = ()

    # -- what it is --------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The name given by `options(name=)`, else the function's qualified name."""
        if self._name is not None:
            return self._name
        fn = self._fn
        return fn if type(fn) is str else name_of(fn, self._args)

    def __repr__(self) -> str:
        state = _base._STATE_TO_DESCRIPTION_MAP[self._state]
        text = f"<Future at {id(self):#x} state={state} task={self.task_id} name={self.name!r}"
        if self._state is FINISHED:
            result = self._result
            failed = type(result) is Failure
            text += f" {'raised' if failed else 'returned'} "
            text += type(result.cause if failed else result).__name__
        return text + ">"

    def cancelled(self) -> bool:
        """True if the task was cancelled before it started."""
        return self._state in (CANCELLED, NOTIFIED)

    def running(self) -> bool:
        """True while the task runs."""
        return self._state is RUNNING

    def done(self) -> bool:
        """True if the task was cancelled or has finished."""
        return self._state in (CANCELLED, NOTIFIED, FINISHED)

    # -- what users ask for ------------------------------------------------------------------

    def cancel(self) -> bool:
        """Cancel the task unless it has started.

        Returns:
            True if it is cancelled: its function never runs. False if it runs (then its token is
            cancelled, see `current_token`) or has finished.

        Raises:
            BaseException: A done-callback, which this calls, was left by what is no Exception, a Ctrl-C perhaps.
                The task is cancelled, and the other callbacks have been called.

        Cost: one lock acquisition; memory of the queue entry is given back soon after.
        """
        pending = self._state is PENDING or self._state is RUNNING
        raised: list[BaseException] = []
        cancelled = self._pool.cancel(self, False, raised)
        if pending and cancelled:
            self._why = "its future was cancelled"
        if raised:
            raise raised.pop()  # nor does the frame, which its traceback holds, hold it
        return cancelled

    def result(self, timeout: float | None = None) -> T:
        """Wait for the outcome and return it.

        A worker that asks for a task of its own executor that has not started waits for another worker
        to run it. If none is free, it is run even then: right here, where nobody can tell, or else
        by a spare thread.

        Args:
            timeout: Seconds to wait; None waits for ever. Negative counts as 0, as in the
                standard library; NaN is a ValueError.

        Raises:
            TaskError: The task raised; the error is also an instance of what it raised.
            concurrent.futures.CancelledError: The task was cancelled.
            concurrent.futures.TimeoutError: It did not finish in time.
        """
        if self._state is not FINISHED:
            self._join(timeout)
        result = self._result
        if type(result) is not Failure:
            return result  # type: ignore[no-any-return]  # a variable of the type costs each caller
        try:
            raise result.raised()
        finally:
            del self, result  # the traceback holds this frame

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the outcome and return its error, or None. Raises like `result` otherwise."""
        if self._state is not FINISHED:
            self._join(timeout)
        result = self._result
        if type(result) is not Failure:
            return None
        if result.guarded and _is_asyncio(sys._getframe(1)):
            return result.for_loop()
        return result.raised()

    @property
    def task_error(self) -> TaskError | None:
        """The `TaskError` of a task that failed; None if it did not, or has not yet. Never waits.

        It is what `exception()` returns, but for the classes of which no object can be a
        `TaskError` as well (pydantic's `ValidationError` is one) and for what is no `Exception`: there
        it stands alone, with the original as its `__cause__`.
        """
        if self._state is not FINISHED:
            return None
        result = self._result
        if type(result) is not Failure:
            return None
        result.seen = True
        return result.task_error()

    def add_done_callback(self, fn: Callable[[Future[T]], object]) -> None:
        """Call `fn(self)` once the task is done: in the thread that finishes it, or here and now.

        What `fn` raises is logged (logger `concurrent.futures`). What is no Exception, as a Ctrl-C or a
        `SystemExit`, is raised here if `fn` is called here, and by `cancel` if that calls it.
        """
        check_callable("fn", fn)
        _sync.here.registers = True
        if not self._subscribe(lambda subscribers: subscribers.add_callback(fn)):
            self._call(fn)
        elif _sync.here.slot is not None and self._state is PENDING:
            # If by asyncio's `wrap_future`, the loop of a task is about to wait for it.
            self._pool.want(self, True)

    def __await__(self) -> Generator[Any, None, T]:
        if not self.done():
            from futurepool import _aio

            yield from _aio.wait(self).__await__()
        try:
            if self.cancelled():
                import asyncio

                raise asyncio.CancelledError(self._cancelled_text())
            return self.result()
        finally:
            del self  # the traceback holds this frame

    # -- for the owner -----------------------------------------------------------------------

    def _cancelled_text(self) -> str:
        """Which task was cancelled, and why. Most that cancel many at once leave no note."""
        why, token = self._why, self._token
        if why is None:
            if token is not None and token._marked():
                why = "its token was cancelled"
                reason = token.reason
                if reason is not None:
                    why = f"{why}: {safe_text(str, reason)}"
            elif getattr(self._pool, "state", 0):
                why = "its pool was shut down"
            else:
                why = "its future was cancelled"
        number = f"task {self.task_id}" if self.task_id else "a task"
        return f"{number} ({self.name}) was cancelled: {why}"

    def _hush(self) -> None:
        """Nobody need hear in the log of its failure, now or later."""
        pool = self._pool
        if self._state is not FINISHED:
            try:
                with pool.mutex:
                    self._hushed = True  # whoever commits it reads that in a section
            except BaseException:
                pool.repair()
                raise
        if self._state is FINISHED and type(self._result) is Failure:
            self._result.seen = True

    def _own_subscribers(self) -> Subscribers:
        """Its subscribers, made or no longer shared. Mutex held, or nobody else knows the future."""
        subscribers = self._subscribers
        if subscribers is None:
            self._subscribers = subscribers = Subscribers()
        elif subscribers.shared:
            self._subscribers = subscribers = Subscribers(functools.partial(subscribers.post, self))
        return subscribers

    def _subscribe(self, add: Callable[[Subscribers], object]) -> bool:
        """Add to the subscribers under the mutex; False if the future is done already."""
        pool = self._pool
        try:
            # mutant subscribed-in-a-section
            with pool.mutex:
                state = self._state
                pending = state is PENDING or state is RUNNING or state is CANCELLED
                if pending:
                    add(self._own_subscribers())
            if pool.deferred:
                pool.run_deferred()
        except BaseException:
            pool.repair()
            raise
        return pending

    def _join(self, timeout: float | None) -> None:
        """Return when FINISHED; raise CancelledError or TimeoutError otherwise."""
        if timeout is not None:
            timeout = check_timeout("timeout", timeout, negative=True)
        look: Callable[[], bool] = self._look_again
        slot = _sync.here.slot  # of a worker's thread; asked here, as a call costs 2 %
        helped, outer = False, None if slot is None else slot.waits
        try:
            if slot is not None:
                look = functools.partial(self._look_again, timeout)
                slot.waits = self if timeout is None else None
                helped = not self.done() and self._pool.help(self, timeout)
            if not helped and not self.done():
                parker = _sync.Parker()
                if self._subscribe(lambda subscribers: subscribers.add_parker(parker)):
                    try:
                        _sync.sleep_at(parker, timeout, look)
                    finally:
                        subscribers = self._subscribers
                        if subscribers is not None and subscribers.parkers is not None:
                            _discard(subscribers.parkers, parker)
        finally:
            if slot is not None:
                slot.waits = outer
        if self._state is not FINISHED:
            if self.cancelled():
                raise cf.CancelledError(self._cancelled_text())
            raise cf.TimeoutError

    def _look_again(self, timeout: float | None = 0.0) -> bool:
        self._pool.reap_dead_workers()
        if self._state is PENDING:
            self._pool.help(self, timeout, True)
        done = self.done()
        if done:
            self._announce()  # whoever was to do it was interrupted, and interrupted again
        return done  # nobody will, in the child of a fork

    def _tell(self, raised: list[BaseException] | None = None) -> None:
        """Tell everyone that the state is final, and call the callbacks.

        A task that never ran lets go of the function and its arguments, whose finalizers are users'
        code, too. By whoever finished or cancelled it, or aside. Idempotent; outside the mutex.
        `raised`: see `_call_all`.
        """
        self._announce()
        if not self.done():
            return  # as there
        subscribers = self._subscribers
        if subscribers is not None:
            if subscribers.token is not None:
                subscribers.token._discard_listener(self)
            if subscribers.callbacks:
                self._call_all(subscribers.callbacks, raised)
        if self._state is not FINISHED or self._args is not None:
            self._release_call()

    def _tell_aside(self) -> None:
        """`_tell` in a thread that nobody waits for. What a section may leave to be done."""
        # mutant dropped-is-told-aside
        aside.run(self._tell)

    def _announce(self) -> None:
        """Wake everyone who waits for the state to be final: nothing of a user's runs here.

        Idempotent; outside the mutex; any thread. Each parker is taken off after it was opened, so a
        thread that was interrupted here and comes back, or another one, leaves nobody out.
        """
        if self._state is PENDING or self._state is RUNNING:
            return  # the section that was to change it was interrupted before
        if self._state is CANCELLED:
            with self._pool.mutex:
                # Without a condition nobody can have counted us as not done yet.
                subscribers = self._subscribers
                if subscribers is None or subscribers.condition is None:
                    self._state = NOTIFIED
        subscribers = self._subscribers
        if subscribers is None:
            return
        if subscribers.shared:
            subscribers.post(self)
            return
        if subscribers.condition is not None and not subscribers.notified:
            with subscribers.condition:
                with self._pool.mutex:
                    if self._state is CANCELLED:
                        self._state = NOTIFIED
                self._tell_waiters()
        # Who cancels a token comes for each task that is listed there: see `Pool.cancel`.
        # mutant only-finished-leaves-its-token
        if subscribers.token is not None and self._state is FINISHED:
            subscribers.token._discard_listener(self)
        on_done = subscribers.on_done
        if on_done is not None:
            on_done()  # rather twice than not at all
            subscribers.on_done = None
        while subscribers.parkers:
            # Opened first, then taken off: interrupted in between, it is opened twice.
            for parker in list(subscribers.parkers):
                try:
                    # mutant sleeper-is-woken
                    parker.release()
                except RecursionError:  # a RuntimeError, too
                    raise
                except RuntimeError:  # open already
                    pass
                _discard(subscribers.parkers, parker)

    def _call_all(
        self,
        callbacks: deque[Callable[[Future[Any]], object]],
        raised: list[BaseException] | None,
    ) -> None:
        """Call each, once: it is taken off and called inside one C call, which cannot be interrupted.

        `raised` is there where a user's thread has cancelled the future. The first that is no Exception goes
        into it instead of the log: a Ctrl-C, gevent's Timeout, or what a signal handler raises are for whoever
        runs in this thread.

        In Python, but for interruptions between two of its steps::

            while callbacks:
                try:
                    callbacks.popleft()(self)
                except BaseException:
                    log it

        Here `calls` is an iterator of which each step takes one off and calls it, and `deque(calls, 0)`
        takes all steps. It ends in one of four ways: `last` was used up, so all were called; an exception
        while `calling`, which is a callback's (those after it are called in the next round); an exception
        before or after, which has interrupted us; or what ends an iterator came out of a callback.
        """
        message = "exception calling callback for %r"
        while count := len(callbacks):
            last = iter(
                (id,)
            )  # a C function, which raises nothing: so we know that all were called
            due = itertools.chain(map(_pop_left, itertools.repeat(callbacks, count)), last)
            calls = map(methodcaller("__call__", self), due)
            while operator.length_hint(last):
                calling = False
                try:
                    calling = True
                    deque(calls, maxlen=0)
                    calling = False
                except BaseException as error:
                    if not callbacks and type(error) is IndexError and _is_of_this_frame(error):
                        return  # another thread has taken what was left
                    if not calling:
                        raise  # it interrupted us, not a callback
                    if raised is None or raised or is_a(error, Exception):
                        _std_log.exception(message, self)
                    else:
                        raised.append(error)
                else:
                    if operator.length_hint(last):
                        # Only a callback can have ended it like this.
                        _std_log.error(
                            message, self, exc_info=(StopIteration, StopIteration(), None)
                        )

    def _tell_waiters(self) -> None:
        """Tell `wait` and `as_completed`; the condition is held and the state is final."""
        subscribers = self._subscribers
        assert subscribers is not None and subscribers.condition is not None
        if not subscribers.notified:
            again, subscribers.notifying = subscribers.notifying, True  # interrupted the first time
            for waiter in subscribers.waiters or ():
                if again and any(future is self for future in waiter.finished_futures):
                    waiter.event.set()
                elif self._state is NOTIFIED:
                    waiter.add_cancelled(self)
                elif type(self._result) is Failure:
                    waiter.add_exception(self)
                else:
                    waiter.add_result(self)
            subscribers.condition.notify_all()
            subscribers.notified = True

    def _release_call(self) -> None:
        """Let go of the function and its arguments: the task has run, or never will."""
        if type(self._fn) is not str:
            self._fn = self.name
        self._args = self._kwargs = self._context = None

    def _call(self, fn: Callable[[Future[T]], object]) -> None:
        try:
            fn(self)
        except Exception:
            _std_log.exception("exception calling callback for %r", self)

    def _token_cancelled(self, _token: CancelToken) -> None:
        """The token it was submitted under was cancelled."""
        try:
            # mutant token-cancels-its-task
            self._pool.cancel(self)
        except BaseException:  # interrupted; the token will not call again
            self._pool.cancel(self)
            raise

    def _token_expired(self, _token: CancelToken) -> None:
        """The same, after a deadline."""
        try:
            self._pool.cancel(self, True)
        except BaseException:
            self._pool.cancel(self, True)
            raise

    # -- what the standard library reaches for -------------------------------------------------

    # Checkers see the attributes of the base class: with properties in their place a future would
    # not be what typeshed says `as_completed` takes.

    def _get_condition(self) -> threading.Condition:
        pool = self._pool
        task_id = None if self.done() else self._asked_by()
        subscribers = self._subscribers
        if subscribers is not None and subscribers.condition is not None:
            # The standard library asks three times in one wait.
            if task_id is not None and (not task_id or task_id != subscribers.asked_by):
                subscribers.asked_by = task_id
                pool.want(self)
            return subscribers.condition
        if task_id is not None:
            pool.want(self)
        try:
            with pool.mutex:
                subscribers = self._own_subscribers()
                if subscribers.condition is None:
                    subscribers.slow = True
                    subscribers.waiters = []
                    subscribers.asked_by = task_id
                    subscribers.notified = self._state in (NOTIFIED, FINISHED)
                    subscribers.condition = threading.Condition(_NotedLock())  # type: ignore[arg-type]
                condition = subscribers.condition
            # Not here: the standard library asks for one condition while it holds those of other
            # futures, and what is left to be done may need one that somebody else holds.
            pool.run_deferred_aside()
        except BaseException:
            pool.repair()
            raise
        return condition

    def _asked_by(self) -> int | None:
        """The id of the task that runs in this thread, if in a worker of the same pool; 0 if none runs there."""
        slot = _sync.here.slot
        return slot.task_id if slot is not None and slot.pool is self._pool else None

    def _get_waiters(self) -> list[Any]:
        subscribers = self._subscribers
        return [] if subscribers is None or subscribers.waiters is None else subscribers.waiters

    if not TYPE_CHECKING:  # pragma: no branch
        _condition = property(_get_condition)
        _waiters = property(_get_waiters)

    def _get_snapshot(self) -> tuple[bool, bool, T | None, BaseException | None]:
        """For asyncio, from Python 3.15 on: done, cancelled, the result, the error; all at once."""
        state = self._state
        if state is not FINISHED:
            cancelled = state is CANCELLED or state is NOTIFIED
            return cancelled, cancelled, None, None
        result = self._result
        if type(result) is Failure:
            return True, False, None, result.for_loop() if result.guarded else result.raised()
        return True, False, result, None

    @property
    def _exception(self) -> BaseException | None:  # type: ignore[override]
        if self._state is not FINISHED:
            return None
        result = self._result
        return result.raised() if type(result) is Failure else None

    @property
    def _done_callbacks(self) -> list[Any]:
        subscribers = self._subscribers
        return (
            []
            if subscribers is None or subscribers.callbacks is None
            else _sync.contents(subscribers.callbacks)
        )

    def set_running_or_notify_cancel(self) -> bool:
        """For executors: the standard step from PENDING to RUNNING, on a detached future."""
        return _detached(self).begin(self)

    def set_result(self, result: T) -> None:
        """For executors: finish a detached future. InvalidStateError if it is done, or a pool's."""
        _detached(self).finish(self, result, None)

    def set_exception(self, exception: BaseException | None) -> None:
        """For executors: fail a detached future. InvalidStateError if it is done, or a pool's."""
        _detached(self).finish(self, None, exception)


#: A future whose slots are still to be filled, in one C call: `object.__new__(Future)` takes longer.
new_future: Callable[[], Future[Any]] = type.__call__.__get__(Future, FutureType)


def _is_asyncio(frame: FrameType) -> bool:
    """Whether this is the code that takes the outcome over into a future of a loop's own."""
    return frame.f_globals.get("__name__") in ("asyncio.futures", "tornado.concurrent")


_pop_left = methodcaller("popleft")


def _is_of_this_frame(error: BaseException) -> bool:
    """Whether it was raised by a C call of the frame that has caught it."""
    frames = traceback_slot.__get__(error)
    return frames is None or frames.tb_next is None


class _NotedLock:
    """The lock of a future's condition: an RLock whose holder knows that it holds one.

    A thread that does must not run a task: see `Pool.help`. An interruption may leave it noted
    for ever, which does no harm: that thread then leaves its tasks to others.
    """

    __slots__ = ("_is_owned", "_lock")

    def __init__(self) -> None:
        lock: Any = threading.RLock()
        self._lock: Any = lock
        self._is_owned: Any = lock._is_owned

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        _sync.here.conditions += 1
        taken: bool = False
        try:
            taken = self._lock.acquire(blocking, timeout)
        finally:
            if not taken:
                _sync.here.conditions -= 1
        return taken

    def release(self) -> None:
        self._lock.release()
        _sync.here.conditions -= 1

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *exc_info: object) -> None:
        self.release()

    def locked(self) -> bool:
        return bool(self._lock.locked())  # asked for where an RLock has it

    def _release_save(self) -> Any:
        state = self._lock._release_save()
        _sync.here.conditions -= state[0]
        return state

    def _acquire_restore(self, state: Any) -> None:
        _sync.here.conditions += state[0]
        self._lock._acquire_restore(state)


def _discard(parkers: list[Any], parker: Any) -> None:
    try:
        parkers.remove(parker)
    except ValueError:
        pass


class Detached:
    """The owner of a future that no executor made."""

    __slots__ = ("mutex",)

    deferred: Any = ()  # of the class: it defers nothing

    def __init__(self) -> None:
        self.mutex: Any = _sync.RLock()

    def cancel(
        self, future: Future[Any], aside: bool = False, raised: list[BaseException] | None = None, /
    ) -> bool:
        with self.mutex:
            if future._state is PENDING:
                future._state = CANCELLED
        if future._state is CANCELLED:
            future._tell(raised)
        return future.cancelled()

    def help(self, future: Future[Any], timeout: float | None, again: bool = False, /) -> bool:
        return False

    def want(self, future: Future[Any], in_loop: bool = False, /) -> None:
        pass

    def run_deferred(self) -> None:
        pass

    def run_deferred_aside(self) -> None:
        pass

    def reap_dead_workers(self) -> None:
        pass

    def repair(self) -> None:
        while self.mutex._is_owned():
            self.mutex.release()

    def begin(self, future: Future[Any]) -> bool:
        with self.mutex:
            if future._state is PENDING:
                future._state = RUNNING
                return True
        if future.cancelled():
            future._tell()
            return False
        raise RuntimeError(f"future in unexpected state: {future!r}")

    def finish(self, future: Future[Any], result: Any, error: BaseException | None) -> None:
        with future._condition:
            with self.mutex:
                if future.done():
                    raise cf.InvalidStateError(f"{future._state}: {future!r}")
                if error is not None:
                    result = Failure(error, 0, future.name, frames=error.__traceback__)
                future._result = result
                future._state = FINISHED
            future._tell_waiters()
        raised: list[BaseException] = []
        future._tell(raised)
        if raised:
            raise raised.pop()


def _detached(future: Future[Any]) -> Detached:
    pool = future._pool
    if isinstance(pool, Detached):
        return pool
    raise cf.InvalidStateError(f"{future!r} belongs to an executor, which alone may finish it")
