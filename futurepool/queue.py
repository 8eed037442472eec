"""Admission: the one mutex of a pool, and everything that happens under it.

`Core` is the heart of an executor. Futures, workers and the exit hook hold the core, never the
executor, so an executor that is dropped can be collected.

**The life of a task.** All in sections of one mutex:

    admit    a place is taken, the task gets its id and is queued      (submit, or a grant)
    take     a record notes it, PENDING -> RUNNING, off the queue      (worker, helper, caller)
    commit   outcome stored, RUNNING -> FINISHED, its place goes on    (whoever took it)
    cancel   PENDING -> CANCELLED, its place goes on                   (anyone)

A place that comes free is handed, in the same section, to the submitter that has blocked longest.
So while one is blocked no place is free, and nobody can overtake it. And whoever sees a final
state and then asks for the mutex finds the place free.

**Wake-ups.** Sleeping workers are in `idle`, each at its own gate. Invariant: if a task is queued
and a worker sleeps, then a wake-up is on its way (`waking`). A submit that would break it wakes
one; the woken worker clears `waking` in its first section, and wakes the next if the invariant
still asks for it. A worker goes to sleep in a section in which it found nothing queued. So no
wake-up is lost, and a burst of short tasks costs one wake-up, not one for each task.

**After the section.** Nothing of the user's runs under the mutex, nor anything that can block.
What a section leaves to be done (open a gate, tell watchers, start a thread) it appends to `todo`;
whoever leaves a section flushes. Each entry is safe to run twice and stays in the list until it
has run, so an exception in between loses nothing.

**Interrupted sections.** Ctrl-C, an asynchronous exception or a failing allocation may strike
between any two steps. Containers and states change by single C calls, in an order in which every
prefix is sound (see `order`); the integers can be counted again from them, which `recover` does.

**Re-entry.** A finalizer or signal handler may run in the middle of a section and call us. Each
entry point asks `mutex._is_owned()` first; one that finds itself inside a section changes no
counter and no container but `todo`, where it leaves its work for the section's end.
"""

from __future__ import annotations

import functools
import itertools
import logging
import sys
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from concurrent import futures as cf
from concurrent.futures.thread import BrokenThreadPool
from contextvars import copy_context
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Protocol

from futurepool import _sync
from futurepool.cancellation import CancelToken
from futurepool.checks import check_callable
from futurepool.errors import (
    PoolClosedError,
    QueueFullError,
    SubmitTimeoutError,
    TaskError,
    wrap_failure,
)
from futurepool.future import (
    CANCELLED,
    FINISHED,
    NOTIFIED,
    PENDING,
    RUNNING,
    Future,
    Unretrieved,
    Watch,
    traceback_slot,
)
from futurepool.order import Order, make_order
from futurepool.priority import OnFull
from futurepool.stats import HistogramRecorder, Stats

if TYPE_CHECKING:
    from futurepool.options import Options

__all__ = ["Core", "Engine", "Record", "RunState"]

AnyFuture = Future[Any]

_log = logging.getLogger("futurepool")
_new: Callable[[type[AnyFuture]], AnyFuture] = object.__new__
_NOTHING = object()
_BATCH = 256  # tasks admitted in one section at most
_MAX_DEPTH = 64  # tasks that one worker runs inside one another
_UNBOUNDED = sys.maxsize


class RunState(IntEnum):
    """Only ever increases."""

    RUNNING = 0  # accept, run
    DRAINING = 1  # refuse, run backlog      <- shutdown(), collection
    STOPPING = 2  # refuse, backlog cancelled <- cancel_futures=True, stop() out of time


BUSY = 0  # a worker runs tasks, or looks for one
PARKED = 1  # it sleeps at its gate, or is about to
CALLING = 2  # it tells watchers after a task: not free, though it runs nothing


class Record:
    """One place where tasks run: a worker, or a thread that runs one on the spot.

    Written by its owner only, under the mutex; `gate` is opened by others.
    """

    __slots__ = (
        "away",
        "core",
        "depth",
        "gate",
        "ident",
        "leave",
        "started",
        "task",
        "thread",
    )

    def __init__(self, core: Core, thread: Any = None, depth: int = 0) -> None:
        self.core = core
        self.task: AnyFuture | None = None  # claimed or running
        self.started = 0.0  # when it was claimed
        self.thread = thread  # of a worker; None: the thread that called
        self.ident: int | None = None  # of the thread that runs it
        self.depth = depth  # how many tasks this one is nested in
        self.away = BUSY
        self.leave = False  # the worker has left; its thread ends
        self.gate: Any = None


class Waiter:
    """A submitter that waits for a place. Written under the mutex."""

    __slots__ = ("future", "gate")

    def __init__(self, future: AnyFuture) -> None:
        self.future = future
        self.gate = _sync.Lock()
        self.gate.acquire()

    def open(self) -> None:
        _open(self.gate)


class Engine(Protocol):
    """Where tasks run: threads of ours, or another executor. See `futurepool.engines`."""

    threads: set[Any]  # all it has started, for those who join them

    def start_worker(self) -> None:
        """Make one more worker of those the core has reserved (`starting`); outside the mutex.

        Raises what the system raised if there is none left to start.
        """
        ...

    def run_here(self, future: AnyFuture) -> bool:
        """Run `future`, queued or not, in this thread; False if it is not PENDING any more."""
        ...

    def run_aside(self, future: AnyFuture) -> bool:
        """The same in a thread of its own, waiting for it: for when the stack grows too deep."""
        ...

    def reset(self) -> None:
        """Forget all threads: we are in the child of a fork."""
        ...


def _open(gate: Any) -> None:
    try:
        gate.release()
    except RuntimeError:  # open already
        pass


def _sleep(gate: Any, timeout: float | None) -> None:
    if timeout is None:
        gate.acquire()
    else:
        gate.acquire(True, max(0.0, min(timeout, _sync.TIMEOUT_MAX)))


def _in_event_loop() -> bool:
    asyncio = sys.modules.get("asyncio.events")
    return asyncio is not None and asyncio._get_running_loop() is not None


class Core:
    """The state of one pool. `options` in signatures is what `executor.options()` collects."""

    __slots__ = (
        "__weakref__",
        "aging",
        "blocked",
        "broken",
        "calling",
        "collected",
        "completed",
        "created",
        "empties",
        "ends",
        "engine",
        "error_handler",
        "failed",
        "idle",
        "inline",
        "last_error",
        "latency",
        "limit",
        "max_workers",
        "mutex",
        "order",
        "overflow",
        "queue_size",
        "records",
        "rejected",
        "run_time",
        "shutdown_timeout",
        "starting",
        "state",
        "submitted",
        "threads",
        "todo",
        "unfinished",
        "wait",
        "wait_time",
        "waking",
        "warned",
        "workers",
    )

    exiting = False  # of the class: the interpreter shuts down

    def __init__(
        self,
        max_workers: int,
        queue_size: int | None,
        aging: float | None,
        metrics: bool,
        error_handler: Callable[[TaskError], object] | None,
        shutdown_timeout: float,
    ) -> None:
        self.max_workers = max_workers
        self.queue_size = queue_size
        self.limit = _UNBOUNDED if queue_size is None else max_workers + queue_size
        self.aging = aging
        self.error_handler = error_handler
        self.shutdown_timeout = shutdown_timeout
        self.engine: Engine
        self.collected: Any = None  # the weak reference to the executor
        self.created = _sync.clock()
        self.mutex = _sync.RLock()
        # All below is guarded by mutex.
        self.state = RunState.RUNNING
        self.broken: str | None = None  # why no worker can run: the initializer failed
        self.submitted = 0  # admitted; also the last task id
        self.completed = 0
        self.failed = 0
        self.rejected = 0
        self.overflow = 0
        self.run_time = 0.0
        self.wait_time = 0.0
        self.last_error: TaskError | None = None
        self.latency = HistogramRecorder() if metrics else None
        self.wait = HistogramRecorder() if metrics else None
        self.warned = False
        self.todo: deque[Callable[[], object]] = deque()  # any thread: single C calls only
        self.reset()

    def reset(self) -> None:
        """Hold no task and no thread."""
        self.order: Order = make_order(self.aging)
        self.records: dict[Record, None] = {}  # all that may run a task now
        self.workers: dict[Record, Any] = {}  # -> their threads
        self.idle: deque[Record] = deque()  # the workers that sleep; the last one is woken first
        self.waking = False
        self.blocked: deque[Waiter] = deque()  # submitters, oldest first
        self.empties: list[Any] = []  # gates of those who wait until no task is unfinished
        self.ends: list[Any] = []  # gates of those who wait until no thread is left
        self.todo.clear()
        self.starting = 0  # workers wanted, thread not there yet
        # These four are counted again by _recount.
        self.unfinished = 0  # queued + running
        self.threads = 0  # workers + starting
        self.calling = 0  # records in callbacks
        self.inline = 0  # records that are no worker's

    # -- submitting ----------------------------------------------------------------------------

    def submit(
        self, options: Options, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> AnyFuture:
        """Admit one task, or do with it what `options.on_full` says. The hot path of submitters.

        Long and flat on purpose: each call less is 2 % of a task.
        """
        if not callable(fn):
            check_callable("fn", fn)
        future = _new(Future)
        future._core = self
        future._fn = fn
        future._args = args
        future._kwargs = kwargs or None
        future._context = copy_context()
        future._state = PENDING
        future._watch = None
        future.priority = priority = options.priority
        mutex = self.mutex
        if options.special or mutex._is_owned():
            future.task_id = 0
            return self._submit_special(options, future)
        future._queued_at = _sync.clock()
        gate = None
        spawn = False
        try:
            # Not `with`: that costs twice as much, and recover() releases what an exception left.
            mutex.acquire()
            unfinished = self.unfinished
            if unfinished < self.limit and not self.state:
                future.task_id = self.submitted = self.submitted + 1
                self.unfinished = unfinished = unfinished + 1
                # Order.push, in line.
                level = self.order.levels.get(priority)
                if level is not None and level.listed:
                    level.append(future)
                else:
                    self.order.push(future)
                # _rouse, in line.
                if self.idle and not self.waking:
                    self.waking = True
                    gate = self.idle.pop().gate
                elif (
                    self.threads < self.max_workers
                    and unfinished + self.calling - self.inline > self.threads
                ):
                    self.starting += 1
                    self.threads += 1
                    spawn = True
                admitted = True
            else:
                future.task_id = 0
                admitted = False
            mutex.release()
            if gate is not None:
                _open(gate)
            elif spawn:
                self.engine.start_worker()
            if self.todo:
                self.flush()
            if admitted:
                return future
        except BaseException:
            self.recover(future)
            raise
        return self._submit_full(options, future)

    def submit_many(
        self, options: Options, fn: Any, calls: Sequence[tuple[Any, ...]]
    ) -> list[AnyFuture]:
        """Admit one task for each tuple of arguments, many to a section while there is room."""
        if options.special or self.mutex._is_owned():
            return [self.submit(options, fn, args, {}) for args in calls]
        futures: list[AnyFuture] = []
        batch: list[AnyFuture] = []
        try:
            while len(futures) < len(calls):
                # A guess; what finds no room goes the usual way.
                start = len(futures)
                room = max(1, min(self.limit - self.unfinished, _BATCH))
                now = _sync.clock()
                batch = []
                for args in calls[start : start + room]:
                    future = _new(Future)
                    future._core = self
                    future._fn = fn
                    future._args = args
                    future._kwargs = None
                    future._context = copy_context()
                    future._state = PENDING
                    future._watch = None
                    future.task_id = 0
                    future.priority = options.priority
                    future._queued_at = now
                    batch.append(future)
                with self.mutex:
                    for future in batch:
                        if self.unfinished >= self.limit or self.state:
                            break
                        self._admit(future)
                self.flush()
                futures += [
                    future if future.task_id else self._submit_full(options, future)
                    for future in batch
                ]
            return futures
        except BaseException:
            for future in itertools.chain(futures, batch):
                future.cancel()
            self.recover()
            raise

    def _submit_special(self, options: Options, future: AnyFuture) -> AnyFuture:
        """With the rare options, a name or a token; or from inside one of our sections."""
        if options.name is not None:
            future._name = options.name
        future._queued_at = _sync.clock()
        token = options.token
        nested = self.mutex._is_owned()
        try:
            if token is not None and not self.state:
                future._token = token
                future._watch = watch = Watch()
                watch.token = token
                if not token._add_listener(future):
                    watch.token = None
                    if not nested:
                        with self.mutex:
                            self.rejected += 1
                    future._state = NOTIFIED
                    future._drop()
                    return future
            if not nested:
                with self.mutex:
                    admitted = self._try_admit(future)
                self.flush()
                if admitted:
                    return future
        except BaseException:
            self.recover(future)
            raise
        if nested:
            return self._submit_nested(options, future)
        return self._submit_full(options, future)

    def _submit_nested(self, options: Options, future: AnyFuture) -> AnyFuture:
        """A submit from a finalizer or signal handler inside one of our sections.

        It can neither wait nor count; the task is admitted when the section ends, over the bound
        if need be. Policies that refuse go by what they see.
        """
        if self.state:
            raise self.closed_error()
        if options.on_full is OnFull.RAISE and self.unfinished >= self.limit:
            raise QueueFullError(limit=self.limit, waited=0.0)
        self.todo.append(functools.partial(self._submit_over, future))
        return future

    def _submit_over(self, future: AnyFuture) -> AnyFuture:
        """Admit, over the bound if need be."""
        try:
            with self.mutex:
                if not future.task_id and not self._try_admit(future):
                    self.overflow += 1
                    self._admit(future)
            self.flush()
        except BaseException:
            self.recover(future)
            raise
        return future

    def _try_admit(self, future: AnyFuture) -> bool:
        """True if there is nothing left to do: admitted, or cancelled by its token. Mutex held."""
        if future._state is not PENDING:
            self.rejected += 1
            return True
        if self.unfinished >= self.limit or self.state:
            return False
        self._admit(future)
        return True

    def _admit(self, future: AnyFuture) -> None:
        """Take a place, and see that a worker comes. Mutex held."""
        future.task_id = self.submitted = self.submitted + 1
        self.unfinished += 1
        self.order.push(future)
        self._rouse()

    def _rouse(self) -> None:
        """Keep the invariant of wake-ups; grow while tasks outnumber threads. Mutex held."""
        if self.idle and not self.waking:
            self.waking = True
            self.todo.append(functools.partial(_open, self.idle.pop().gate))
        elif (
            self.threads < self.max_workers
            and self.unfinished + self.calling - self.inline > self.threads
        ):
            self.starting += 1
            self.threads += 1
            self.todo.append(self._start_worker)

    def _submit_full(self, options: Options, future: AnyFuture) -> AnyFuture:
        """The queue is full, or the pool closed: what now is the policy's to say."""
        policy = options.on_full
        if self.state:
            raise self.closed_error()
        if policy is OnFull.BLOCK:
            record = self.own_record()
            if record is not None:
                # A place may come free only if this very worker goes on.
                if record.depth >= _MAX_DEPTH:
                    return self._submit_over(future)
                with self.mutex:
                    self.overflow += 1
                return self._run_here(future)
            if _in_event_loop():
                self._warn_loop()
                return self._submit_over(future)
            return self._submit_blocking(future, options.timeout)
        if policy is OnFull.CALLER_RUNS:
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
        except BaseException:
            self.recover(future)
            raise
        if refused is not None:
            future._drop()
            raise refused
        return future

    def _refuse(self, policy: OnFull, future: AnyFuture) -> Exception | None:
        """Drop a task, this one or another, or say why not. Mutex held."""
        self.rejected += 1
        if policy is OnFull.RAISE:
            return QueueFullError(limit=self.limit, waited=0.0)
        victim = self.order.victim() if policy is OnFull.DROP_OLDEST else None
        if victim is None:
            self._cancel_locked(future)
        else:
            self._cancel_locked(victim, grant=False)
            self._admit(future)
        return None

    def _run_here(self, future: AnyFuture) -> AnyFuture:
        """Run a task that found no place in the thread that submits it."""
        future._queued_at = _sync.clock()
        if not self.engine.run_here(future):
            with self.mutex:
                self.rejected += 1  # its token was faster
        return future

    def _submit_blocking(self, future: AnyFuture, timeout: float | None) -> AnyFuture:
        waiter = Waiter(future)
        began = _sync.clock()
        try:
            with self.mutex:
                settled = self._try_admit(future)
                if not settled and not self.state:
                    self.blocked.append(waiter)
                    settled = timeout is not None and timeout <= 0
            self.flush()
            if not settled and not self.state:
                _sleep(waiter.gate, timeout)
            with self.mutex:
                if waiter in self.blocked:
                    self.blocked.remove(waiter)
                settled = future.task_id != 0 or future._state is not PENDING
                if not future.task_id:
                    self.rejected += 1
        except BaseException:
            with self.mutex:
                if waiter in self.blocked:
                    self.blocked.remove(waiter)
            self.recover(future)
            raise
        if settled:
            return future
        with self.mutex:
            self._cancel_locked(future)
        self.flush()
        if self.state:
            raise self.closed_error()
        raise SubmitTimeoutError(limit=self.limit, waited=_sync.clock() - began)

    def _grant(self) -> None:
        """Hand free places to blocked submitters, oldest first. Mutex held."""
        blocked = self.blocked
        while blocked and self.unfinished < self.limit:
            waiter = blocked[0]
            future = waiter.future
            if future._state is PENDING and not future.task_id:
                future._queued_at = _sync.clock()
                self._admit(future)
            self.todo.append(waiter.open)
            blocked.popleft()

    def _warn_loop(self) -> None:
        if not self.warned:
            self.warned = True
            warnings.warn(
                "submit() found the queue full in a thread with a running event loop; rather than "
                "block the loop it admits the task over the bound. `await executor.arun(...)` "
                "waits for a place.",
                RuntimeWarning,
                stacklevel=5,
            )

    def closed_error(self) -> Exception:
        """What a submit to a pool that is closed raises."""
        if self.broken is not None:
            return BrokenThreadPool(self.broken)
        if Core.exiting:
            error = PoolClosedError("cannot schedule new futures after interpreter shutdown")
            error.__cause__ = RuntimeError(str(error))  # what a log of such an exit is searched for
            return error
        return PoolClosedError()

    # -- running -------------------------------------------------------------------------------

    def turn(self, record: Record, result: Any, error: BaseException | None) -> AnyFuture | None:
        """Commit what `record` has run, if anything, and claim its next task: a worker's turn.

        Returns None when there is nothing to run now: then the worker has left (`record.leave`),
        is to sleep at its gate (`record.away`), or has told watchers and should come again.
        The hot path of workers, one section for each task; long and flat on purpose.
        """
        task = record.task
        following = gate = None
        now = _sync.clock()
        mutex = self.mutex
        mutex.acquire()
        if task is not None:
            if error is not None or task._watch is not None:
                mutex.release()
                self.finish(record, result, error)
                return None
            # _commit, in line.
            task._result = result
            task._state = FINISHED
            record.task = None
            self.completed += 1
            self.unfinished -= 1
            started = record.started
            self.run_time += now - started
            self.wait_time += started - task._queued_at
            if self.latency is not None:
                self._measure(started - task._queued_at, now - started)
            if self.blocked or self.empties:
                self._freed()
        away = record.away
        if away:
            self._come_back(record)
        # Order.take, in line.
        level = self.order.top
        if level:
            following = level[0]
            record.task = following
            if following._state is PENDING:
                following._state = RUNNING
                level.popleft()
            else:
                record.task = None
                following = self.order.take(record)
        else:
            following = self.order.take(record)
        if following is not None:
            record.started = now
            if (
                away == PARKED
                and self.idle
                and self.unfinished + self.calling - self.inline > self.threads - len(self.idle)
            ):
                self.waking = True
                gate = self.idle.pop().gate
        elif self.state or record not in self.workers:
            self._leave(record)
        else:
            record.away = PARKED
            self.idle.append(record)
        mutex.release()
        if gate is not None:
            _open(gate)
        if self.todo:
            self.flush()
        return following

    def _come_back(self, record: Record) -> None:
        """A worker that slept, or was in callbacks, takes its next turn. Mutex held."""
        if record.away == CALLING:
            self.calling -= 1
        else:
            self.waking = False
            if record in self.idle:  # not woken by a submit, but by recover or a shutdown
                self.idle.remove(record)
        record.away = BUSY

    def finish(
        self, record: Record, result: Any, error: BaseException | None, wrap: bool = True
    ) -> None:
        """Commit what `record` has run, and tell everyone; the whole of it, for any record."""
        task = record.task
        if task is None:  # we are in the child of a fork
            return
        if wrap and error is not None and task._state is RUNNING:
            error = self._wrap(task, error)
        while task._state is RUNNING:
            watch = task._watch
            condition = None if watch is None else watch.condition
            if condition is None:
                with self.mutex:
                    watch = task._watch
                    if watch is None or watch.condition is None:
                        self._commit(record, task, result, error)
            else:
                # The order of locks is condition, then mutex: see futurepool.future.
                with condition:
                    with self.mutex:
                        self._commit(record, task, result, error)
                    task._tell_waiters()
        task._announce()
        if isinstance(error, TaskError):
            self._handle(error)
        self.flush()

    def _commit(
        self, record: Record, task: AnyFuture, result: Any, error: BaseException | None
    ) -> None:
        """RUNNING -> FINISHED. Mutex held. The outcome is stored before the state that shows it."""
        now = _sync.clock()
        if error is None:
            task._result = result
        else:
            task._exception = error
            # Each reading raises from here on: see Future.result.
            task._result = None if isinstance(error, TaskError) else error.__traceback__
        task._state = FINISHED
        record.task = None
        self.completed += 1
        self.unfinished -= 1
        self.run_time += now - record.started
        self.wait_time += record.started - task._queued_at
        if self.latency is not None:
            self._measure(record.started - task._queued_at, now - record.started)
        if error is not None:
            self.failed += 1
            if isinstance(error, TaskError):
                self.last_error = error
        if record.thread is None:
            if self.records.pop(record, _NOTHING) is None:
                self.inline -= 1
        else:
            # Until its next turn the worker tells watchers, which may take long.
            record.away = CALLING
            self.calling += 1
        self._freed()

    def _freed(self) -> None:
        """A place came free. Mutex held."""
        if self.blocked:
            self._grant()
        if self.empties and not self.unfinished:
            for gate in self.empties:
                self.todo.append(functools.partial(_open, gate))
            self.empties = []

    def _measure(self, waited: float, ran: float) -> None:
        assert self.wait is not None and self.latency is not None
        self.wait.record(max(0.0, waited))
        self.latency.record(ran)

    def _wrap(self, task: AnyFuture, error: BaseException) -> BaseException:
        """Turn what a task raised into what its future will raise."""
        # The first frame is ours: it would keep the future alive from its own traceback.
        traceback = traceback_slot.__get__(error)
        if traceback is not None:
            traceback_slot.__set__(error, traceback.tb_next)
        if isinstance(error, Exception):
            quiet = isinstance(error, cf.CancelledError)  # a running task that obeys its token
            error = wrap_failure(error, task.task_id, task.name)
            if self.error_handler is None and not quiet:
                task._unretrieved = Unretrieved(error, task.task_id, task.name)
        return error

    def _handle(self, error: TaskError) -> None:
        if self.error_handler is not None:
            try:
                self.error_handler(error)
            except BaseException:
                _log.exception("error_handler of a futurepool executor raised for %s", error)

    def claim(self, record: Record, future: AnyFuture) -> bool:
        """Claim this very task, queued or not yet, for a record that is no worker's."""
        with self.mutex:
            if future._state is not PENDING:
                return False
            self.records[record] = None
            self.inline += 1
            record.started = _sync.clock()
            record.task = future
            if future.task_id:
                self.order.husks += 1
            else:
                future.task_id = self.submitted = self.submitted + 1
                self.unfinished += 1
            future._state = RUNNING
        return True

    def own_record(self) -> Record | None:
        """In a thread that runs one of this pool's tasks: the record it runs under."""
        record: Record | None = _sync.here.record
        return record if record is not None and record.core is self else None

    def help(self, future: AnyFuture, timeout: float | None, /) -> bool:
        """In a worker of this pool: run `future` here if it is queued. True if it was."""
        record = self.own_record()
        if (
            record is None
            or future._state is not PENDING
            or not future.task_id
            or (timeout is not None and timeout <= 0)
            or self.mutex._is_owned()
        ):
            return False
        if record.depth < _MAX_DEPTH:
            return self.engine.run_here(future)
        return self.engine.run_aside(future)

    # -- cancelling ----------------------------------------------------------------------------

    def cancel(self, future: AnyFuture, /) -> bool:
        """See `Future.cancel`."""
        if self.mutex._is_owned():
            return self._cancel_nested(future)
        if future._state is PENDING:
            try:
                with self.mutex:
                    if future._state is PENDING:
                        self._cancel_locked(future)
                self.flush()
            except BaseException:
                self.recover()
                raise
        if future._state is RUNNING:
            self.token_of(future).cancel("its future was cancelled")
        return future._state in (CANCELLED, NOTIFIED)

    def _cancel_locked(self, future: AnyFuture, grant: bool = True) -> None:
        """PENDING -> CANCELLED. Mutex held; the task's arguments die after the section."""
        self.todo.append(future._announce)
        self.todo.append(future._drop)
        future._state = CANCELLED
        if future.task_id:
            self.unfinished -= 1
            self.order.husks += 1
            self.order.sweep()
            if grant:
                self._freed()
        else:
            for waiter in self.blocked:
                if waiter.future is future:
                    self.todo.append(waiter.open)

    def _cancel_nested(self, future: AnyFuture) -> bool:
        """A cancel from a finalizer or signal handler inside one of our sections.

        `Order.take` notes a task in a record before it looks at its state; so a task noted there
        counts as started, and one that is not will be seen as cancelled.
        """
        if future._state is PENDING and not any(r.task is future for r in list(self.records)):
            future._state = CANCELLED
            self.todo.append(self.recover)
            self.todo.append(future._announce)
            self.todo.append(future._drop)
        return future._state in (CANCELLED, NOTIFIED)

    def token_of(self, future: AnyFuture) -> CancelToken:
        """The running task's own token: a child of the one it was submitted under, if any."""
        token = future._own_token
        if token is None:
            fresh = CancelToken(parent=future._token)
            with self.mutex:
                token = future._own_token
                if token is None:
                    future._own_token = token = fresh
        return token

    def cancel_queued(self) -> None:
        """Cancel all that has not started."""
        try:
            with self.mutex:
                for future in self.order.tasks():
                    self._cancel_locked(future, grant=False)
                self._freed()
            self.flush()
        except BaseException:
            self.recover()
            raise

    def fail_queued(self, make_error: Callable[[], BaseException]) -> None:
        """Fail all that has not started: there is no worker, and there will be none."""
        with self.mutex:
            futures = self.order.tasks()
        for future in futures:
            record = Record(self)
            if self.claim(record, future):
                self.finish(record, None, make_error(), wrap=False)

    # -- closing and asking ----------------------------------------------------------------------

    def close(self, state: RunState = RunState.DRAINING) -> None:
        """Refuse new tasks, turn blocked submitters away, let idle workers leave."""
        if self.mutex._is_owned():
            self.state = max(self.state, state)
            self.todo.append(self._send_home)
            return
        try:
            with self.mutex:
                self.state = max(self.state, state)
            self._send_home()
        except BaseException:
            self.recover()
            raise

    def _send_home(self) -> None:
        with self.mutex:
            while self.blocked:
                self.todo.append(self.blocked[0].open)
                self.blocked.popleft()
            self._wake_all()
        self.flush()

    def _wake_all(self) -> None:
        """Mutex held."""
        for record in self.workers:
            if record.away == PARKED:
                self.todo.append(functools.partial(_open, record.gate))

    def wait_empty(self, timeout: float | None, token: CancelToken | None = None) -> bool:
        """Wait until nothing is queued or running; False at the timeout or when `token` says so."""
        gate = _sync.Lock()
        gate.acquire()
        with self.mutex:
            if not self.unfinished:
                return True
            self.empties.append(gate)

        def listen(_token: CancelToken) -> None:
            _open(gate)

        try:
            if token is not None:
                token.add_callback(listen)
            _sleep(gate, timeout)
        finally:
            with self.mutex:
                if gate in self.empties:
                    self.empties.remove(gate)
            if token is not None:
                token.remove_callback(listen)
        return not self.unfinished

    def wait_ended(self, timeout: float | None) -> bool:
        """Wait until a closed pool has no worker left, started or about to be."""
        gate = _sync.Lock()
        gate.acquire()
        with self.mutex:
            if not self.threads:
                return True
            self.ends.append(gate)
        try:
            _sleep(gate, timeout)
        finally:
            with self.mutex:
                if gate in self.ends:
                    self.ends.remove(gate)
        return not self.threads

    def stats(self) -> Stats:
        """One consistent snapshot: what is derived here makes it add up whatever was counted."""
        with self.mutex:
            active = sum(
                record.task is not None and record.task._state is RUNNING for record in self.records
            )
            submitted, completed, unfinished = self.submitted, self.completed, self.unfinished
            failed, rejected, overflow = self.failed, self.rejected, self.overflow
            run_time, wait_time = self.run_time, self.wait_time
            last_error, state = self.last_error, self.state
            latency = None if self.latency is None else self.latency.snapshot()
            wait = None if self.wait is None else self.wait.snapshot()
        return Stats(
            max_workers=self.max_workers,
            active_workers=active,
            queued_tasks=unfinished - active,
            queue_size=self.queue_size,
            submitted_tasks=submitted,
            completed_tasks=completed,
            failed_tasks=failed,
            cancelled_tasks=submitted - completed - unfinished,
            rejected_tasks=rejected,
            overflow_tasks=overflow,
            average_latency=run_time / completed if completed else 0.0,
            average_wait=max(0.0, wait_time / completed) if completed else 0.0,
            last_error=last_error,
            uptime=_sync.clock() - self.created,
            closed=state > RunState.RUNNING,
            latency=latency,
            wait=wait,
        )

    def queued(self) -> int:
        """How many tasks wait. An instant later it may be another number."""
        with self.mutex:
            return self.unfinished - sum(r.task is not None for r in self.records)

    # -- sections and their ends ---------------------------------------------------------------

    def flush(self) -> None:
        """Do what sections have left. Each entry stays until it is done, and may run twice."""
        todo = self.todo
        if self.mutex._is_owned():
            return
        while todo:
            try:
                act = todo[0]
            except IndexError:  # another thread was faster
                return
            act()
            try:
                todo.remove(act)
            except ValueError:
                pass

    def _start_worker(self) -> None:
        """A worker that some section asked for; without any worker, fail what waits for one."""
        try:
            self.engine.start_worker()
        except Exception as raised:
            error = raised
            if not self.workers:
                self.fail_queued(lambda: error)

    def recover(self, future: AnyFuture | None = None) -> None:
        """After an exception inside or near a section: no lock held, all counts right again.

        A `future` whose submit is about to raise is withdrawn, so that it never runs.
        """
        try:
            self._mend(future)
        except BaseException:  # interrupted again
            self._mend(future)
            raise

    def _mend(self, future: AnyFuture | None) -> None:
        while self.mutex._is_owned():
            self.mutex.release()
        with self.mutex:
            if future is not None and future._state is PENDING:
                self.todo.append(future._announce)
                self.todo.append(future._drop)
                future._state = CANCELLED
            self._recount()
            self._freed()
            self._ended()
            if self.unfinished:
                self._rouse()
        self.flush()

    def _recount(self) -> None:
        """Mutex held."""
        queued = self.order.recount()
        running = 0
        for record in list(self.records):
            if record.task is not None and record.task._state is RUNNING:
                running += 1
            elif record.thread is None:
                del self.records[record]
        self.unfinished = queued + running
        self.calling = sum(record.away == CALLING for record in self.records)
        self.inline = sum(record.thread is None for record in self.records)
        self.threads = len(self.workers) + self.starting
        if self.blocked:
            there = set(map(id, self.order.tasks()))
            for waiter in self.blocked:
                if waiter.future._state is PENDING and id(waiter.future) not in there:
                    waiter.future.task_id = 0
        # Which wake-ups were lost is not known: wake all that sleep.
        self.waking = False
        self.idle.clear()
        self._wake_all()

    def _leave(self, record: Record) -> None:
        """A worker goes home. Mutex held."""
        self.records.pop(record, None)
        if self.workers.pop(record, None) is not None:
            self.threads -= 1
        record.leave = True
        self._ended()

    def _ended(self) -> None:
        """The number of threads went down. Mutex held."""
        if self.ends and not self.threads:
            for gate in self.ends:
                self.todo.append(functools.partial(_open, gate))
            self.ends = []
