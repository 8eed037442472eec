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
from futurepool._future import CANCELLED, NOTIFIED, PENDING, Future, Watch, name_of, new_future
from futurepool._options import Options
from futurepool._pool.core import Waiter, mending, open_gate
from futurepool._pool.life import CoreLife, in_event_loop, is_deep
from futurepool._pool.waiters import Line
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


def _make(core: Core, options: Options, fn: Any, args: tuple[Any, ...]) -> AnyFuture:
    """A future that is not yet queued."""
    future = new_future()
    future._core = core
    future._fn = fn
    future._args = args
    future._kwargs = None
    context = copy_context()
    future._context = core.adopt(context) if context else None
    future._state = PENDING
    future._watch = None
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


class Core(CoreLife):
    """A whole pool. `options` in signatures is what `executor.options()` collects."""

    __slots__ = ()

    # What is written here, declared again for type checkers.
    line: Line | None
    overflow: int
    rejected: int
    starting: int
    submitted: int
    threads: int
    valve: tuple[int, int]

    def submit(
        self,
        options: Options,
        fn: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        watch: Watch | None = None,
        ours: bool = True,
    ) -> AnyFuture:
        """Admit one task, or do with it what `options.on_full` says; `Submitting.submit` in short.

        With `ours` the future is, even if somebody has taken the call out of our hands.
        """
        check_callable("fn", fn)
        if _capture is not copy_context or ThreadPoolExecutor.submit is not patched.original:
            found = self._submit_through(options, fn, args, kwargs, watch, ours)
            if found is not None:
                return found
        return self._submit_plain(options, fn, args, kwargs, watch)

    def _submit_plain(
        self,
        options: Options,
        fn: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        watch: Watch | None,
        name: str | None = None,
    ) -> AnyFuture:
        future = _make(self, options, fn, args)
        future._kwargs = kwargs or None
        if name is not None:
            future._name = name
        future._watch = watch
        return self._submit(options, future)

    def _submit_through(
        self,
        options: Options,
        fn: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        watch: Watch | None,
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
            future = self._submit_plain(options, *patched.call_of(item), watch, name)
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
            return self._submit_plain(options, answer.result, (), {}, watch, name)
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
                room = max(1, min(self.ceiling - self.submitted, _BATCH))
                now = _sync.clock()
                batch = []
                for args in calls[start : start + room]:
                    future = new_future()  # _make, in line
                    future._core = self
                    future._fn = fn
                    future._args = args
                    future._kwargs = None
                    context = copy_context()
                    future._context = self.adopt(context) if context else None
                    future._state = PENDING
                    future._watch = None
                    future.task_id = 0
                    future.priority = priority
                    future._queued_at = now
                    batch.append(future)
                with self.mutex:
                    if not self.state:
                        self._admit_all(batch[: max(0, self.ceiling - self.submitted)])
                self._start_wanted()
                self.flush()
                futures += [
                    future if future.task_id else self._submit_full(options, future)
                    for future in batch
                ]
            return futures
        except BaseException:
            self.recover(*futures, *batch)
            raise

    def _admit_all(self, futures: list[AnyFuture]) -> None:
        """`_admit` for many of one priority, all of which find a place. Mutex held."""
        for future in futures:
            future.task_id = self.submitted = self.submitted + 1
        self.order.push_all(futures)
        # The first may wake a worker, each may ask for one more.
        for _ in range(min(len(futures), 1 + self.max_workers - self.threads)):
            self._rouse()

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
                watch = future._own_watch()
                watch.token = token
                if not token._add_listener(future):
                    watch.token = None
                    if not nested:
                        with self.mutex:
                            self.rejected += 1
                    future._state = NOTIFIED
                    future._drop()
                    future._announce()
                    return future
            if not nested:
                with self.mutex:
                    admitted = self._try_admit(future)
                self._start_wanted()
                self.flush()
                if admitted:
                    return future
        except BaseException:
            self.recover(future)
            raise
        if nested:
            return self._submit_nested(options, future)
        return self._submit_full(options, future)

    def _start_wanted(self) -> None:
        """Start workers here rather than in flush(): without any, the submit is to fail."""
        while self.starting > 0:
            self.engine.start_worker()

    def _submit_nested(self, options: Options, future: AnyFuture) -> AnyFuture:
        """A submit from a finalizer or signal handler inside one of our sections.

        It can neither wait nor count; the task is admitted when the section ends, over the bound
        if need be. Policies that refuse go by what they see.
        """
        if self.state:
            raise self.closed_error()
        if options.on_full is OnFull.RAISE and self.submitted >= self.ceiling:
            raise self.full_error(future)
        self.todo.append(functools.partial(self._admit_late, future, []))
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
            self.flush()
        except BaseException:
            # First by C calls only: the stack may be at its end, see `Submitting.submit`.
            self.mutex.acquire()
            self.todo.append(self._settle)
            if future._state is PENDING:
                self.todo.append(future._announce)
                future._state = CANCELLED
            while self.mutex._is_owned():
                self.mutex.release()
            self.recover(future)
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
                there = itertools.chain(self.order.tasks(), self.order.doomed)
                if not any(task is future for task in there):
                    future.task_id = 0  # struck after it had got its id
            tried.append(True)
            if not future.task_id and not self._try_admit(future):
                self.overflow += self.submitted >= self.ceiling
                self._admit(future)

    def _submit_full(self, options: Options, future: AnyFuture) -> AnyFuture:
        """The queue is full, or the pool closed: what now is the policy's to say."""
        policy = options.on_full
        if self.todo:
            try:
                # Perhaps there is a place: a section was interrupted, and no recount came.
                self.flush()
            except BaseException:
                self.recover(future)
                raise
        if self.state:
            self._forget(future)
            raise self.closed_error()
        if policy is OnFull.BLOCK or options.waits:
            if self.own_record() is not None:
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
            self.flush()
            if self.untold:
                self._tell_cancelled(future)
        except BaseException:
            # First by C calls only: the stack may be at its end, see `Submitting.submit`.
            self.mutex.acquire()
            self.todo.append(self._settle)
            if future._state is PENDING:
                self.todo.append(future._announce)
                future._state = CANCELLED
            while self.mutex._is_owned():
                self.mutex.release()
            self.recover(future)
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
        future._drop()

    def _refuse(self, policy: OnFull, future: AnyFuture) -> Exception | None:
        """Drop a task, this one or another, or say why not. Mutex held."""
        self.rejected += 1
        if policy is OnFull.RAISE:
            return self.full_error(future)
        victim = self.order.victim() if policy is OnFull.DROP_OLDEST else None
        if victim is None:
            future._why = f"the queue was full ({policy})"
            self._cancel_locked(future, _sync.get_ident())
        else:
            victim._why = f"it was dropped for a newer one ({policy})"
            self._cancel_locked(victim, None, grant=False)
            self._admit(future)
        return None

    @mending
    def _run_here(self, future: AnyFuture) -> AnyFuture:
        """Run a task that found no place in the thread that submits it."""
        future._queued_at = _sync.clock()
        if not self.engine.run_here(future):
            with self.mutex:
                closed = future._state is PENDING  # closed meanwhile; else its token was faster
                self.rejected += not closed
            if closed:
                self._forget(future)
                raise self.closed_error()
        return future

    def _submit_blocking(self, future: AnyFuture, timeout: float | None) -> AnyFuture:
        waiter = Waiter(future)
        began = _sync.clock()
        vigil = Vigil(self, waiter, future)
        try:
            with self.mutex:
                counted = settled = self._try_admit(future)
                if not settled and not self.state:
                    self.blocked.append(waiter)
                    settled = timeout is not None and timeout <= 0
            self.flush()
            if not settled and not self.state:
                _sync.sleep_at(waiter.gate, timeout, vigil.look)
                if future.task_id:  # who admitted it has taken the waiter off
                    return future
            with self.mutex:
                if waiter in self.blocked and not waiter.admitting:
                    self.blocked.remove(waiter)
                settled = future.task_id != 0 or future._state is not PENDING
                if not future.task_id and not counted:
                    self.rejected += 1
        except BaseException:
            with self.mutex:
                if waiter in self.blocked:
                    self.blocked.remove(waiter)
            self.recover(future)
            raise
        if settled:
            return future
        refused = self.full_error(future, _sync.clock() - began, SubmitTimeoutError)
        self.cancel(future)
        self._forget(future)
        try:
            raise self.closed_error() if self.state else refused
        finally:
            del refused, future  # the traceback holds this frame

    def _submit_waiting(self, future: AnyFuture) -> AnyFuture:
        """Without a place a coroutine's future waits in line, and nobody blocks."""
        try:
            with self.mutex:
                settled = self._try_admit(future)
                if not settled and not self.state:
                    if self.line is None:
                        self.line = Line(self.aging, weakref.WeakMethod(self._turn_away))
                    self.line.push(future)
                    if self.line not in self.blocked:
                        self.blocked.append(self.line)
                    settled = True
            self.flush()
        except BaseException:
            self.recover(future)
            raise
        if not settled:
            raise self.closed_error()
        return future

    def _turn_away(self) -> None:
        """Nobody is left in the line, or the pool is closed; then none will get a place. In todo."""
        with self.mutex:
            if self.state and self.line is not None:
                for future in self.line.tasks():
                    if future._state is PENDING and not future.task_id:
                        self.rejected += 1
                        self._cancel_locked(future, None)

    @mending
    def withdraw(self, future: AnyFuture) -> bool:
        """Cancel a future that still waits for its place; False if it has one."""
        with self.mutex:
            if future.task_id or future._state is not PENDING:
                return False
            self.rejected += 1
            self._cancel_locked(future, _sync.get_ident())
        self.flush()
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
                )
            )

    @mending
    def admit_stuck(self, waiter: Waiter, future: AnyFuture) -> bool:
        """Admit over the bound the task of a blocked submitter; False if it does not wait any more."""
        with self.mutex:
            if self.state or waiter not in self.blocked or waiter.admitting:
                return False
            if future._state is not PENDING or future.task_id:
                return False
            waiter.admitting = True
            self.overflow += 1
            self.valve = (_sync.get_ident(), 2 * self.unfinished)
            future._queued_at = _sync.clock()
            self._admit(future)
            self.blocked.remove(waiter)
            waiter.admitting = False
        self.flush()
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

    __slots__ = ("_completed", "_core", "_future", "_idle_since", "_logged", "_report", "_waiter")

    def __init__(self, core: Core, waiter: Waiter, future: AnyFuture) -> None:
        self._core = core
        self._waiter = waiter
        self._future = future
        self._completed = core.completed
        self._idle_since = _sync.clock()
        self._report = ""
        self._logged: bool = False

    def look(self) -> bool:
        """True if there is nothing to wait for any more."""
        core = self._core
        core.look()
        completed = core.completed
        if completed != self._completed:
            self._completed = completed
            self._idle_since = _sync.clock()
            return False
        if core.engine.calls_back(waiting=_sync.here.registers):
            admitted = core.admit_stuck(self._waiter, self._future)
            if admitted:
                aside.run(functools.partial(_log.warning, _VALVE, self._future.name))
            return admitted
        if self._report:
            if not self._logged:
                self._logged = True
                _to_stderr(self._report)
        elif _sync.clock() - self._idle_since >= _PATIENCE:
            self._report = core.report_blocked(self._future, _sync.clock() - self._idle_since)
            aside.run(self._log)
        return False

    def _log(self) -> None:
        _log.warning("%s", self._report)
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
    _futurepool: Core
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
        # Long and flat on purpose: each call less is 2 % of a task. It does what Core.submit does.
        if not callable(fn):
            check_callable("fn", fn)  # type: ignore[unreachable]
        core = self._futurepool
        options = self._futurepool_options
        future = new_future()
        future._core = core
        future._fn = fn
        future._args = args
        future._kwargs = kwargs or None
        context = _capture()
        if context:
            if context is _LONG_WAY or ThreadPoolExecutor.submit is not patched.original:
                watch = options.watch
                return core.submit(options, fn, args, kwargs, watch, ours=watch is not None)
            future._context = core.adopt(context)
        else:
            future._context = None
        future._state = PENDING
        future._watch = options.watch
        future.priority = priority = options.priority
        future.task_id = 0
        mutex = core.mutex
        if options.special or mutex._is_owned():
            return core._submit(options, future)
        try:
            future._queued_at = _sync.clock()
            # Not `with`: that costs twice as much, and what an exception leaves is released below.
            mutex.acquire()
            submitted = core.submitted
            if submitted < core.ceiling and not core.state:
                future.task_id = core.submitted = submitted = submitted + 1
                # Order.push, in line.
                try:
                    level = core.order.levels[priority]
                except KeyError:
                    core.order.push(future)
                else:
                    level.append(future)
                    if level.below is None:
                        core.order.enlist(level)
                # _rouse, in line.
                if core.idle and not core.waking:
                    core.waking = True
                    gate = core.idle.pop().gate
                    mutex.release()
                    open_gate(gate)
                elif (
                    core.threads < core.max_workers
                    and submitted + core.limit - core.ceiling + core.calling - core.inline
                    > core.threads
                ):
                    core.starting += 1
                    core.threads += 1
                    mutex.release()
                    core.engine.start_worker()
                else:
                    mutex.release()
                if core.todo:
                    core.flush()
                return future
            mutex.release()
        except BaseException:
            # First by C calls only: the stack may be at its end, with no room for recover().
            mutex.acquire()
            core.todo.append(core._settle)
            if future._state is PENDING:
                core.todo.append(future._announce)
                future._state = CANCELLED
            while mutex._is_owned():
                mutex.release()
            core.recover(future)
            raise
        return core._submit_full(options, future)


#: `submit` as the public classes have it: whoever finds another has found a subclass's, or a patch.
SUBMITS: list[Any] = [Submitting.submit]
