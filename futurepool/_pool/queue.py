"""Admission: how tasks get in, and what happens when there is no place.

See `futurepool._pool.core` for the mutex, the sections and the invariants that this keeps. Past 400 lines
because the hot path is written in line, and each way in has its own care for interruptions.
"""

from __future__ import annotations

import functools
import itertools
import sys
import warnings
import weakref
from collections.abc import Callable, Sequence
from concurrent import futures as cf
from concurrent.futures.thread import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, ParamSpec, TypeVar, cast

from futurepool import _logs, _sync
from futurepool._checks import check_callable
from futurepool._errors import FuturePoolWarning, SubmitTimeoutError
from futurepool._foreign import aside, patched
from futurepool._future import (
    CANCELLED,
    NOTIFIED,
    PENDING,
    Future,
    Subscribers,
    name_of,
    new_future,
)
from futurepool._options import Options
from futurepool._pool.core import BlockedSubmitter
from futurepool._pool.life import PoolLife, in_event_loop, is_deep
from futurepool._pool.section import repairing, unpark
from futurepool._pool.waiters import WaitingCoroutines
from futurepool._priority import OnFull

__all__: list[str] = []  # internal

AnyFuture = Future[Any]
P = ParamSpec("P")
T = TypeVar("T")

_log = _logs.log
_BATCH = 256  # tasks admitted in one section at most


_LONG_WAY: Any = (None,)  # true, as an empty context is not
# Copies the context of a submitter; or says that it has to take the long way.
_capture: Callable[[], Any] = copy_context


def _reroute(long: bool) -> None:
    global _capture
    _capture = (lambda: _LONG_WAY) if long else copy_context


patched.listeners.append(_reroute)
_reroute(patched.look())


def _make(pool: Pool, options: Options, fn: Any, args: tuple[Any, ...]) -> AnyFuture:
    """A future that is not yet queued."""
    future = new_future()
    future._pool = pool
    future._fn = fn
    future._args = args
    future._kwargs = None
    context = copy_context()
    future._context = pool.adopt(context) if context else None
    future._state = PENDING
    future._subscribers = None
    future.task_id = 0
    future.priority = options.priority
    return future


def _outside() -> int:
    """The stack level, for a warning of the caller, of the first frame that is not the package's."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(
        "futurepool."
    ):
        level, frame = level + 1, frame.f_back
    return level


class Pool(PoolLife):
    """A whole pool. `options` in signatures is what `executor.options()` collects."""

    __slots__ = ()

    # What is written here, declared again for type checkers.
    coroutines: WaitingCoroutines | None
    overflow: int
    reserved: int
    submitted: int
    threads: int
    valve: tuple[int, int]

    def submit(
        self,
        options: Options,
        fn: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        subscribers: Subscribers | None = None,
        ours: bool = True,
    ) -> AnyFuture:
        """Admit one task, or do with it what `options.on_full` says; `Submitting.submit` in short.

        With `ours` the future is, even if somebody has taken the call out of our hands.
        """
        check_callable("fn", fn)
        if _capture is not copy_context or ThreadPoolExecutor.submit is not patched.original:
            found = self._submit_through(options, fn, args, kwargs, subscribers, ours)
            if found is not None:
                return found
        return self._submit_plain(options, fn, args, kwargs, subscribers)

    def _submit_plain(
        self,
        options: Options,
        fn: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        subscribers: Subscribers | None,
        name: str | None = None,
    ) -> AnyFuture:
        future = _make(self, options, fn, args)
        future._kwargs = kwargs or None
        if name is not None:
            future._name = name
        future._subscribers = subscribers
        return self._submit(options, future)

    def _submit_through(
        self,
        options: Options,
        fn: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        subscribers: Subscribers | None,
        ours: bool,
    ) -> AnyFuture | None:
        """Submit what somebody's `ThreadPoolExecutor.submit` makes of it, see futurepool._foreign.patched.

        None if that is not to be asked. A pool that is closed refuses by itself, in its own words;
        what goes to another executor goes as it is; and inside of a section nothing foreign runs.
        """
        executor = None if self.collected is None else self.collected()
        if (
            not patched.look()
            or executor is None
            or self.state
            or self.engine.apart
            or self.mutex._is_owned()
        ):
            return None
        passed = patched.through(executor, fn, args, kwargs)
        if passed is None:
            return None
        answer, items = passed
        found: AnyFuture | None = None
        name = name_of(fn)
        for item in items:
            future = self._submit_plain(options, *patched.call_of(item), subscribers, name)
            try:
                patched.join(item.future, future, item.future is not answer)
            except BaseException:
                future.cancel()
                raise
            if found is None or item.future is answer:
                found = future
        if found is None:
            # It has gone another way, or was done on the spot.
            if not ours:
                return cast("AnyFuture", answer)
            return self._submit_plain(options, answer.result, (), {}, subscribers, name)
        return found

    def submit_many(
        self, options: Options, fn: Any, calls: Sequence[tuple[Any, ...]]
    ) -> list[AnyFuture]:
        """Admit one task for each tuple of arguments, many to a section while there is room."""
        if options.special or self.mutex._is_owned() or patched.look():
            return [self.submit(options, fn, args, {}) for args in calls]
        futures: list[AnyFuture] = []
        batch: list[AnyFuture] = []
        priority = options.priority
        try:
            while len(futures) < len(calls):
                # A guess; what finds no room goes the usual way.
                start = len(futures)
                room = max(1, min(self.max_id - self.submitted, _BATCH))
                now = _sync.clock()
                batch = []
                for args in calls[start : start + room]:
                    future = new_future()  # _make, in line
                    future._pool = self
                    future._fn = fn
                    future._args = args
                    future._kwargs = None
                    context = copy_context()
                    future._context = self.adopt(context) if context else None
                    future._state = PENDING
                    future._subscribers = None
                    future.task_id = 0
                    future.priority = priority
                    future._queued_at = now
                    batch.append(future)
                with self.mutex:
                    if not self.state:
                        self._admit_all(batch[: max(0, self.max_id - self.submitted)])
                self._start_wanted()
                self.run_deferred()
                futures += [
                    future if future.task_id else self._submit_full(options, future)
                    for future in batch
                ]
            return futures
        except BaseException:
            self.repair(*futures, *batch)
            raise

    def _admit_all(self, futures: list[AnyFuture]) -> None:
        """`_admit` for many of one priority, all of which find a place. Mutex held."""
        for future in futures:
            future.task_id = self.submitted = self.submitted + 1
        self.queue.push_all(futures)
        # The first may wake a worker, each may ask for one more.
        for _ in range(min(len(futures), 1 + self.max_workers - self.threads)):
            self.signal_work()

    def _submit(self, options: Options, future: AnyFuture) -> AnyFuture:
        """With any options, and also from inside one of our sections."""
        if options.name is not None:
            future._name = options.name
        future._queued_at = _sync.clock()
        token = options.token
        nested = self.mutex._is_owned()
        try:
            if token is not None and not self.state:
                future._token = token
                subscribers = future._own_subscribers()
                subscribers.token = token
                if not token._add_listener(future):
                    subscribers.token = None
                    if not nested:
                        with self.mutex:
                            self._given_up(future)
                    future._state = NOTIFIED
                    future._release_call()
                    future._announce()
                    return future
            if not nested:
                with self.mutex:
                    admitted = self._try_admit(future)
                self._start_wanted()
                self.run_deferred()
                if admitted:
                    return future
        except BaseException:
            self.repair(future)
            raise
        if nested:
            return self._submit_nested(options, future)
        return self._submit_full(options, future)

    def _start_wanted(self) -> None:
        """Start workers here rather than in run_deferred(): without any, the submit is to fail."""
        while self.reserved > 0:
            self.engine.start_worker()

    def _submit_nested(self, options: Options, future: AnyFuture) -> AnyFuture:
        """A submit from a finalizer or signal handler inside one of our sections.

        It can neither wait nor count; the task is admitted when the section ends, over the bound
        if need be. Policies that refuse go by what they see.
        """
        if self.state:
            raise self.closed_error()
        if options.on_full is OnFull.RAISE and self.submitted >= self.max_id:
            raise self.full_error(future)
        self.deferred.append(functools.partial(self._admit_late, future, []))
        return future

    def _submit_over(self, future: AnyFuture) -> AnyFuture:
        """Admit, over the bound if need be."""
        closed = False
        try:
            with self.mutex:
                if not self._try_admit(future):
                    if self.state:
                        closed = True
                    else:
                        self.overflow += 1
                        self._admit(future)
            self.run_deferred()
        except BaseException:
            # First by C calls only: the stack may be at its end, see `Submitting.submit`.
            self.mutex.acquire()
            self.deferred.append(self._rebuild)
            if future._state is PENDING:
                self.deferred.append(future._announce)
                future._state = CANCELLED
            while self.mutex._is_owned():
                self.mutex.release()
            self.repair(future)
            raise
        if closed:
            self._forget(future)
            raise self.closed_error()
        return future

    def _admit_late(self, future: AnyFuture, tried: list[bool]) -> None:
        """Admit, over the bound if need be; a second time only what was not queued in the first.

        Also if the pool was closed meanwhile: its submit has returned. Who closes a pool does what
        sections have left, this for one, before it waits for the tasks; so it waits for this one, too.
        """
        with self.mutex:
            if tried and future.task_id and future._state is PENDING:
                there = itertools.chain(self.queue.tasks(), self.queue.token_cancelled)
                if not any(task is future for task in there):
                    future.task_id = 0  # interrupted after it had got its id
            tried.append(True)
            if not future.task_id and not self._try_admit(future):
                self.overflow += self.submitted >= self.max_id
                self._admit(future)

    def _submit_full(self, options: Options, future: AnyFuture) -> AnyFuture:
        """The queue is full, or the pool closed: what now is the policy's to say."""
        policy = options.on_full
        if self.deferred:
            try:
                # Perhaps there is a place: a section was interrupted, and no recount came.
                self.run_deferred()
            except BaseException:
                self.repair(future)
                raise
        if self.state:
            self._forget(future)
            raise self.closed_error()
        if policy is OnFull.BLOCK or options.waits:
            if self.own_slot() is not None:
                # A place may come free only if this very worker goes on.
                self._submit_over(future)
                self._warn_worker(future)
                return future
            if options.waits:
                return self._submit_waiting(future)
            if in_event_loop():
                self._warn_loop()
                return self._submit_over(future)
            if (
                self.valve[0] == _sync.get_ident()
                and options.timeout is None
                and self.limit < self.unfinished < self.valve[1]
            ):
                return self._submit_over(future)  # see Vigil
            return self._submit_blocking(future, options.timeout)
        if policy is OnFull.CALLER_RUNS:
            if is_deep(sys.getrecursionlimit() // 2):
                return self._submit_over(future)  # tasks that submit tasks, on top of one another
            return self._run_here(future)
        try:
            with self.mutex:
                if self._try_admit(future):
                    refused = None
                elif self.state:
                    refused = self.closed_error()
                else:
                    refused = self._refuse(policy, future)
            self.run_deferred()
            if self.unnotified:
                self._tell_cancelled(future)
        except BaseException:
            # First by C calls only: the stack may be at its end, see `Submitting.submit`.
            self.mutex.acquire()
            self.deferred.append(self._rebuild)
            if future._state is PENDING:
                self.deferred.append(future._announce)
                future._state = CANCELLED
            while self.mutex._is_owned():
                self.mutex.release()
            self.repair(future)
            raise
        if refused is not None:
            self._forget(future)
            try:
                raise refused
            finally:
                del refused, future  # the traceback holds this frame
        return future

    def _forget(self, future: AnyFuture) -> None:
        """Nobody will hear of this future: its submit is about to raise."""
        if future._token is not None:
            future._token._discard_listener(future)
        future._release_call()

    def _refuse(self, policy: OnFull, future: AnyFuture) -> Exception | None:
        """Drop a task, this one or another, or say why not. Mutex held."""
        if policy is OnFull.RAISE:
            self._refused(future, "full")
            return self.full_error(future)
        victim = self.queue.victim() if policy is OnFull.DROP_OLDEST else None
        self._refused(future if victim is None else victim, "dropped")
        if victim is None:
            future._why = f"the queue was full ({policy})"
            self._cancel_locked(future, _sync.get_ident())
        else:
            victim._why = f"it was dropped for a newer one ({policy})"
            self._cancel_locked(victim, None, grant=False)
            self._admit(future)
        return None

    @repairing
    def _run_here(self, future: AnyFuture) -> AnyFuture:
        """Run a task that found no place in the thread that submits it."""
        future._queued_at = _sync.clock()
        if not self.engine.run_here(future):
            with self.mutex:
                closed = future._state is PENDING  # closed meanwhile; else its token was faster
                if not closed:
                    self._given_up(future)
            if closed:
                self._forget(future)
                raise self.closed_error()
        return future

    def _submit_blocking(self, future: AnyFuture, timeout: float | None) -> AnyFuture:
        waiter = BlockedSubmitter(future)
        began = _sync.clock()
        vigil = Vigil(self, waiter, future)
        try:
            with self.mutex:
                counted = settled = self._try_admit(future)
                if not settled and not self.state:
                    self.blocked.append(waiter)
                    settled = timeout is not None and timeout <= 0
            self.run_deferred()
            if not settled and not self.state:
                _sync.sleep_at(waiter.parker, timeout, vigil.check)
                if future.task_id:  # who admitted it has taken the waiter off
                    return future
            with self.mutex:
                if waiter in self.blocked and not waiter.admitting:
                    self.blocked.remove(waiter)
                closed = bool(self.state)
                settled = future.task_id != 0 or future._state is not PENDING
                if future.task_id or counted:
                    pass
                elif settled:
                    self._given_up(future)
                else:
                    self._refused(future, "closed" if closed else "timeout")
        except BaseException:
            with self.mutex:
                if waiter in self.blocked:
                    self.blocked.remove(waiter)
            self.repair(future)
            raise
        if settled:
            return future
        refused = self.full_error(future, _sync.clock() - began, SubmitTimeoutError)
        self.cancel(future)
        self._forget(future)
        try:
            raise self.closed_error() if closed else refused
        finally:
            del refused, future  # the traceback holds this frame

    def _submit_waiting(self, future: AnyFuture) -> AnyFuture:
        """Without a place a coroutine's future waits in line, and nobody blocks."""
        try:
            with self.mutex:
                settled = self._try_admit(future)
                if not settled and not self.state:
                    if self.coroutines is None:
                        self.coroutines = WaitingCoroutines(
                            self.aging, weakref.WeakMethod(self._turn_away)
                        )
                    self.coroutines.push(future)
                    if self.coroutines not in self.blocked:
                        self.blocked.append(self.coroutines)
                    settled = True
            self.run_deferred()
        except BaseException:
            self.repair(future)
            raise
        if not settled:
            raise self.closed_error()
        return future

    def _turn_away(self) -> None:
        """Nobody is left in the line, or the pool is closed; then none will get a place. In `deferred`."""
        with self.mutex:
            if self.state and self.coroutines is not None:
                for future in self.coroutines.tasks():
                    if future._state is PENDING and not future.task_id:
                        self._refused(future, "closed")
                        self._cancel_locked(future, None)

    @repairing
    def withdraw(self, future: AnyFuture) -> bool:
        """Cancel a future that has waited too long for its place; False if it has one."""
        with self.mutex:
            if future.task_id or future._state is not PENDING:
                return False
            self._refused(future, "timeout")
            self._cancel_locked(future, _sync.get_ident())
        self.run_deferred()
        self._tell_cancelled(future)
        return True

    def _warn_loop(self) -> None:
        if not self.warned:
            self.warned = True
            warnings.warn(
                "submit() found the queue full in a thread with a running event loop; rather than "
                "block the loop it admits the task over the bound. `await executor.arun(...)` "
                "waits for a place.",
                FuturePoolWarning,
                stacklevel=_outside(),
            )

    def _warn_worker(self, future: AnyFuture) -> None:
        if not self.warned_worker:
            self.warned_worker = True
            # Not here: the task may hold the lock of a log handler that submits to this very pool.
            aside.run(
                functools.partial(
                    _log.warning,
                    "a task submitted %s to its own executor, whose queue is full (%s tasks "
                    "unfinished); rather than block the worker, which may be the one to make room, "
                    "this task and others like it are admitted over the bound",
                    future.name,
                    self.limit,
                    extra={"pool": self.name, "task_name": future.name},
                )
            )

    @repairing
    def admit_stuck(self, waiter: BlockedSubmitter, future: AnyFuture) -> bool:
        """Admit over the bound the task of a blocked submitter; False if it does not wait any more."""
        with self.mutex:
            if self.state or waiter not in self.blocked or waiter.admitting:
                return False
            if future._state is not PENDING or future.task_id:
                return False
            waiter.admitting = True
            self.overflow += 1
            self.valve = (_sync.get_ident(), 2 * self.unfinished)
            self._place_found(future)
            self._admit(future)
            self.blocked.remove(waiter)
            waiter.admitting = False
        self.run_deferred()
        return True


class Vigil:
    """What a thread that waits for a place sees, once a second.

    **The valve.** A library may submit under a lock that its own done-callback takes, as gRPC's server
    does. On a full queue the submitter then holds up all workers, and they it. So if no task has
    ended between two looks, and every worker is inside done-callbacks, the task is admitted over the
    bound. (They have been there since before the first look: a worker comes to its callbacks by ending
    a task.)

    A server whose one thread submits and also feeds its tasks can be held up without: all workers wait
    for what that thread has for them. So if it has registered done-callbacks, a worker that waits for
    another thread without a timeout counts, too: it cannot come free by itself. And the thread may then
    go on to twice as many tasks as there are, until the pool is down to its bound again.

    **The log.** If no task has ended for ten seconds, what is waited for is logged, once. By another
    thread, as this one may hold the lock of a log handler; if that does not come through within
    a second, because the lock is held by whoever waits here, stderr gets it.
    """

    __slots__ = ("_completed", "_future", "_idle_since", "_logged", "_pool", "_report", "_waiter")

    def __init__(self, pool: Pool, waiter: BlockedSubmitter, future: AnyFuture) -> None:
        self._pool = pool
        self._waiter = waiter
        self._future = future
        self._completed = pool.completed
        self._idle_since = _sync.clock()
        self._report = ""
        self._logged: bool = False

    def check(self) -> bool:
        """True if there is nothing to wait for any more."""
        pool = self._pool
        pool.reap_dead_workers()
        completed = pool.completed
        if completed != self._completed:
            self._completed = completed
            self._idle_since = _sync.clock()
            return False
        if pool.engine.calls_back(waiting=_sync.here.registers):
            name = self._future.name
            admitted = pool.admit_stuck(self._waiter, self._future)
            if admitted:
                aside.run(functools.partial(_log.warning, _VALVE, name, extra=self._extra()))
            return admitted
        if self._report:
            if not self._logged:
                self._logged = True
                _to_stderr(self._report)
        elif _sync.clock() - self._idle_since >= _PATIENCE:
            self._report = pool.report_blocked(self._future, _sync.clock() - self._idle_since)
            aside.run(self._log)
        return False

    def _extra(self) -> dict[str, Any]:
        return {"pool": self._pool.name, "task_name": self._future.name}

    def _log(self) -> None:
        _log.warning("%s", self._report, extra=self._extra())
        self._logged = True


_VALVE = (
    "the submit of %s waited a second for a place while no task ended and every worker was inside a "
    "done-callback, or waiting for another thread; as those may be waiting for the submitter, its task "
    "is admitted over the bound. For a library that submits from a thread its tasks need, use "
    "queue_size=None and the library's own limit"
)
_PATIENCE = 10.0  # seconds


def _to_stderr(text: str) -> None:
    try:
        if sys.stderr is not None:
            sys.stderr.write(f"futurepool: {text}\n")
    except (OSError, ValueError):  # closed
        pass


class Submitting(cf.Executor):
    """The hot path of submitters."""

    # Names that no subclass of a user's has for something else.
    _futurepool: Pool
    _futurepool_options: Options

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Submit `fn(*args, **kwargs)`; it runs in a copy of the caller's context.

        With no place in the queue, `on_full` says what happens: the default waits for one.

        Returns:
            The task's future.

        Raises:
            TypeError: `fn` is not callable.
            PoolClosedError: The executor was shut down, also while waiting.
            QueueFullError: No place, and `on_full` is `RAISE`.
            SubmitTimeoutError: No place within the view's `timeout`.

        Thread safety: any thread, finalizers and signal handlers included. A worker of this
        executor and a thread with a running event loop never block here.
        Cost: one lock acquisition, plus waiting.
        """
        # Long and flat on purpose: each call less is 2 % of a task. It does what Pool.submit does.
        if not callable(fn):
            check_callable("fn", fn)  # type: ignore[unreachable]
        pool = self._futurepool
        options = self._futurepool_options
        future = new_future()
        future._pool = pool
        future._fn = fn
        future._args = args
        future._kwargs = kwargs or None
        context = _capture()
        if context:
            if context is _LONG_WAY or ThreadPoolExecutor.submit is not patched.original:
                subscribers = options.subscribers
                return pool.submit(
                    options, fn, args, kwargs, subscribers, ours=subscribers is not None
                )
            future._context = pool.adopt(context)
        else:
            future._context = None
        future._state = PENDING
        future._subscribers = options.subscribers
        future.priority = priority = options.priority
        future.task_id = 0
        mutex = pool.mutex
        if options.special or mutex._is_owned():
            return pool._submit(options, future)
        try:
            future._queued_at = _sync.clock()
            # Not `with`: that costs twice as much, and what an exception leaves is released below.
            mutex.acquire()
            submitted = pool.submitted
            if submitted < pool.max_id and not pool.state:
                future.task_id = pool.submitted = submitted = submitted + 1
                # TaskQueue.push, in line.
                try:
                    level = pool.queue.levels[priority]
                except KeyError:
                    pool.queue.push(future)
                else:
                    level.append(future)
                    if level.next_lower is None:
                        pool.queue.enlist(level)
                # signal_work, in line.
                if pool.parked and not pool.wakeup_pending:
                    pool.wakeup_pending = True
                    parker = pool.parked.pop().parker
                    mutex.release()
                    unpark(parker)
                elif (
                    pool.threads < pool.max_workers
                    and submitted + pool.limit - pool.max_id + pool.notifying - pool.caller_runs
                    > pool.threads
                ):
                    pool.reserved += 1
                    pool.threads += 1
                    mutex.release()
                    pool.engine.start_worker()
                else:
                    mutex.release()
                if pool.deferred:
                    pool.run_deferred()
                return future
            mutex.release()
        except BaseException:
            # First by C calls only: the stack may be at its end, with no room for repair().
            mutex.acquire()
            pool.deferred.append(pool._rebuild)
            if future._state is PENDING:
                pool.deferred.append(future._announce)
                future._state = CANCELLED
            while mutex._is_owned():
                mutex.release()
            pool.repair(future)
            raise
        return pool._submit_full(options, future)


#: `submit` as the public classes have it: whoever finds another has found a subclass's, or a patch.
SUBMITS: list[Any] = [Submitting.submit]
