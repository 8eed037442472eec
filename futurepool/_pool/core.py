"""The heart of an executor: its one mutex, the state under it, and how sections begin and end.

The class of the heart is built in three layers, one file each: `PoolState` here, `PoolLife` (what
happens to a task, in `futurepool._pool.life`), `Pool` (how tasks get in, in `futurepool._pool.queue`). Futures,
workers and the exit hook hold the pool, never the executor, so a dropped executor is collected.

**The life of a task.** All in sections of one mutex:

    admit    a place is taken, the task gets its id and is queued      (submit, or a grant)
    take     a slot notes it, PENDING -> RUNNING, off the queue      (worker, helper, caller)
    commit   outcome stored, RUNNING -> FINISHED, its place goes on    (whoever took it)
    cancel   PENDING -> CANCELLED, its place goes on                   (anyone)

A place that comes free is handed, in the same section, to the submitter that has blocked longest.
So while one is blocked no place is free, and nobody can overtake it. And whoever sees a final
state and then asks for the mutex finds the place free.

**Wake-ups.** Sleeping workers are in `parked`, each at its own parker. Invariant: if a task is queued
and a worker sleeps, then a wake-up is on its way (`wakeup_pending`). A submit that would break it wakes
one; the woken worker clears `wakeup_pending` in its first section, and wakes the next if the invariant
still asks for it. A worker goes to sleep in a section in which it found nothing queued. So no
wake-up is lost, and a burst of short tasks costs one wake-up, not one for each task.

What may happen in a section, after it, and when it is interrupted: `futurepool._pool.section`.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable
from concurrent.futures.thread import BrokenThreadPool
from contextvars import Context
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Protocol

from futurepool import _sync
from futurepool._cancellation import CancelToken, Opener
from futurepool._errors import ExitRuntimeError, PoolClosedError, QueueFullError
from futurepool._failures import TaskError
from futurepool._foreign import aside, contexts
from futurepool._future import CANCELLED, PENDING, RUNNING, Future
from futurepool._pool.histogram import HistogramRecorder, tally
from futurepool._pool.section import NOBODY, Section, repairing, unpark
from futurepool._pool.summaries import Latest
from futurepool._pool.task_queue import TaskQueue, make_queue
from futurepool._pool.waiters import WaitingCoroutines

if TYPE_CHECKING:
    from futurepool._stats import Stats

__all__: list[str] = []  # internal

AnyFuture = Future[Any]

UNBOUNDED = 2**59  # tasks; more than memory holds

#: Why tasks are refused, see `Stats.rejections`.
REASONS = ("full", "timeout", "closed", "dropped", "expired", "cancelled")


class RunState(IntEnum):
    """Only ever increases."""

    RUNNING = 0  # accept, run
    DRAINING = 1  # refuse, run backlog      <- shutdown(), collection
    STOPPING = 2  # refuse, backlog cancelled <- cancel_futures=True, stop() out of time


BUSY = 0  # a worker runs tasks, or looks for one
PARKED = 1  # it sleeps at its parker, or is about to
NOTIFYING = 2  # it tells watchers after a task: not free, though it runs nothing
CHECKING = 3  # as BUSY; at its next turn it looks whether the pool has become smaller


class WorkerSlot:
    """One place where tasks run: a worker, or a thread that runs one on the spot.

    Written by its owner only, under the mutex; `parker` is opened by others.
    """

    __slots__ = (
        "death",
        "depth",
        "fresh",
        "ident",
        "leave",
        "notifying",
        "parker",
        "pool",
        "since",
        "started",
        "status",
        "task",
        "thread",
        "wanted",
    )

    def __init__(self, pool: Any, thread: Any = None, depth: int = 0) -> None:
        self.pool: Any = pool
        self.task: AnyFuture | None = None  # claimed or running
        self.notifying: AnyFuture | None = None  # finished; its watchers may not have been told
        self.started: float = 0.0  # when it was claimed
        # When the first of the tasks was claimed that it has run one right after the other: the
        # pool's run time is added up when such a row ends.
        self.since: float = 0.0
        self.thread: Any = thread  # of a worker; None: the thread that called
        self.ident: int | None = None  # of the thread that runs it
        self.status: int = BUSY
        self.leave: bool = False  # the worker has left; its thread ends
        # With histograms: run time and waiting time of a worker's latest tasks, in turn, neither of
        # them counted yet.
        self.fresh: list[float] | None = None
        self.depth: int = depth  # how many tasks of its thread this one is nested in
        # What a spare thread is to run for it, while it waits: see `ThreadEngine.start_spare`.
        self.wanted: deque[AnyFuture] | None = None
        self.death: Any = None  # tells of a thread that ends without that
        self.parker: Any = None


class BlockedSubmitter:
    """A submitter that waits for a place. Written under the mutex."""

    __slots__ = ("admitting", "future", "parker")

    def __init__(self, future: AnyFuture) -> None:
        self.future: AnyFuture | None = future
        # While its task is being queued; if it still is in another section, that was interrupted,
        # and a recount is on its way.
        self.admitting: bool = False
        self.parker: Any = _sync.Parker()

    def choose(self) -> AnyFuture | None:
        """The task to be admitted, now that a place is free. Mutex held."""
        return self.future

    def more(self) -> bool:
        """True if it is to be served again, as a line of several coroutines is."""
        return False

    def tasks(self) -> list[AnyFuture]:
        """All that wait here."""
        return [] if self.future is None else [self.future]

    def count(self) -> int:
        """How many wait here."""
        return 1

    def open(self) -> None:
        """Let the submitter go on."""
        unpark(self.parker)


class Engine(Protocol):
    """Where tasks run: threads of ours, or another executor. See `futurepool._engines`."""

    apart: bool  # whether tasks run in another executor, most likely in another process
    threads: set[Any]  # all it has started, for those who join them

    def start_worker(self) -> None:
        """Make one more worker of those the pool has reserved (`reserved`); outside the mutex.

        Raises what the system raised if there is none left to start.
        """
        ...

    def run_here(self, future: AnyFuture) -> bool:
        """Run `future`, queued or not, in this thread; False if it is not PENDING any more."""
        ...

    def run_aside(self, future: AnyFuture, timeout: float | None = None) -> bool:
        """In the thread that serves the engine, if one does: go on serving until `future` is done."""
        ...

    def start_spare(self, future: AnyFuture, waiting: WorkerSlot | None) -> None:
        """Have `future` run beside the workers, one of which waits for it.

        With `waiting`, its slot, after what else that one waits for; without, at once.
        """
        ...

    def takes_chunks(self, fn: Any) -> bool:
        """Whether several calls of `fn` can be made by one task."""
        ...

    def calls_back(self, waiting: bool = False) -> bool:
        """Whether every worker is inside done-callbacks; with `waiting`, or waits for a thread."""
        ...

    def reap_dead_workers(self) -> None:
        """Replace workers whose threads have died unheard of; called now and then by who waits."""
        ...

    def ended(self) -> None:
        """The pool is closed and its last worker has left; outside the mutex, maybe repeatedly."""
        ...

    def joined(self, wait: bool) -> None:
        """The pool was shut down by a thread that waited for it, or gave up on it."""
        ...

    def reset(self) -> None:
        """Forget all threads: we are in the child of a fork."""
        ...


def _unpark_told(parker: Any, _token: CancelToken) -> None:
    unpark(parker)


class PoolState(Section):
    """The state of one pool, and what keeps it consistent."""

    __slots__ = (
        "__weakref__",
        "abandoned",
        "admission",
        "admission_time",
        "adopt",
        "aging",
        "blocked",
        "broken",
        "caller_runs",
        "collected",
        "completed",
        "coroutines",
        "created",
        "engine",
        "error_handler",
        "exit_timeout",
        "failed",
        "feed",
        "idle_waiters",
        "last_error",
        "latency",
        "limit",
        "max_id",
        "max_workers",
        "name",
        "notifying",
        "overflow",
        "parked",
        "queue",
        "queue_size",
        "rejections",
        "reserved",
        "run_time",
        "shutdown_timeout",
        "slots",
        "snapshot",
        "state",
        "stoppers",
        "submitted",
        "termination_waiters",
        "threads",
        "user_closed",
        "valve",
        "wait",
        "wait_reported",
        "wait_time",
        "wakeup_pending",
        "warned",
        "warned_worker",
        "workers",
    )

    if TYPE_CHECKING:

        def _start_worker(self) -> None: ...  # in PoolLife

    submitted: int
    completed: int
    failed: int
    overflow: int
    reserved: int
    max_id: int
    threads: int
    notifying: int
    caller_runs: int
    run_time: float
    wait_time: float
    admission_time: float
    last_error: Latest | None
    wakeup_pending: bool
    state: RunState

    exiting: bool = False  # of the class: the interpreter shuts down

    def __init__(
        self,
        max_workers: int,
        queue_size: int | None,
        aging: float | None,
        metrics: bool,
        error_handler: Callable[[TaskError], object] | None,
        shutdown_timeout: float,
        exit_timeout: float | None = None,
    ) -> None:
        # Late, see its head; but not so late as `stats`, which may be called by a signal handler while
        # the import goes on.
        from futurepool._stats import Stats

        super().__init__()
        # What observers are told of, if there are any: see futurepool._pool.observing.
        self.feed: Any = None
        self.snapshot: type[Stats] = Stats
        self.name: str = "ThreadPoolExecutor"  # set by the executor
        self.max_workers: int = max_workers
        self.queue_size: int | None = queue_size
        self.limit: int = UNBOUNDED if queue_size is None else max_workers + queue_size
        self.aging: float | None = aging
        # What becomes of a caller's context, unless it is empty.
        self.adopt: Callable[[Context], Context | None] = contexts.own
        self.error_handler: Callable[[TaskError], object] | None = error_handler
        self.shutdown_timeout: float = shutdown_timeout
        self.exit_timeout: float | None = exit_timeout  # seconds; None: for as long as it takes
        self.abandoned: bool = False  # at interpreter exit: nobody waits for it any more
        self.wait_reported: bool = False  # somebody who waits for its end has said what for
        self.engine: Engine
        self.collected: Any = None  # the weak reference to the executor
        self.user_closed: bool = False  # shut down by its user, not merely dropped
        self.created: float = _sync.clock()
        # Guarded by the mutex from here on.
        self.state = RunState.RUNNING
        self.broken: str | None = None  # why no worker can run: the initializer failed
        self.submitted = 0  # admitted; also the last task id
        self.completed = 0
        self.failed = 0
        self.rejections: dict[str, int] = dict.fromkeys(REASONS, 0)
        self.overflow = 0
        self.run_time = 0.0
        self.wait_time = 0.0
        self.admission_time = 0.0
        self.last_error = None
        self.latency: HistogramRecorder | None = HistogramRecorder() if metrics else None
        self.wait: HistogramRecorder | None = HistogramRecorder() if metrics else None
        self.admission: HistogramRecorder | None = HistogramRecorder() if metrics else None
        self.warned: bool = False  # of a submit in an event loop
        # The thread that a valve was last opened for, and how many unfinished tasks it may go to.
        self.valve: tuple[int, int] = (0, 0)
        self.warned_worker: bool = False  # of one in a worker
        self.reset()

    def reset(self) -> None:
        """Hold no task and no thread."""
        self.queue: TaskQueue = make_queue(self.aging)
        if self.feed is not None:  # in the child of a fork
            self.feed.reset()
            self.queue = self.feed.queue(self.queue)
        self.slots: dict[WorkerSlot, None] = {}  # all that may run a task now
        self.workers: dict[WorkerSlot, Any] = {}  # -> their threads
        # The workers that sleep; the last one is woken first.
        self.parked: deque[WorkerSlot] = deque()
        self.wakeup_pending = False
        # Who waits for a place, oldest first.
        self.blocked: deque[BlockedSubmitter | WaitingCoroutines] = deque()
        self.coroutines: WaitingCoroutines | None = None  # one of `blocked` while any waits
        self.idle_waiters: list[Any] = []  # parkers of those who wait until no task is unfinished
        # Of those parkers, the ones at which tasks of this pool stop it -> how many tasks wait there.
        self.stoppers: dict[Any, int] = {}
        self.termination_waiters: list[
            Any
        ] = []  # parkers of those who wait until no thread is left
        self.reserved = 0  # workers ordered, thread not there yet
        # These are counted again by _recount.
        self.max_id = self.submitted + self.limit  # the last id that may be given out
        self.threads = 0  # workers + starting
        self.notifying = 0  # slots in callbacks
        self.caller_runs = 0  # slots that are no worker's

    @property
    def unfinished(self) -> int:
        """Tasks queued or running: what is not free of the `limit` places. Exact in a section."""
        return self.submitted + self.limit - self.max_id

    @property
    def room(self) -> int:
        """How many workers there may be: one more for each that waits in `stop`. Mutex held."""
        return self.max_workers + len(self.stoppers)

    def _try_admit(self, future: AnyFuture) -> bool:
        """True if there is nothing left to do: admitted, or cancelled by its token. Mutex held."""
        if future._state is not PENDING:
            self._given_up(future)
            return True
        if self.submitted >= self.max_id or self.state:
            return False
        self._admit(future)
        return True

    def _refused(self, future: AnyFuture, reason: str) -> None:
        """Count a task that gets no place, or is to lose it for another one. Mutex held."""
        self.rejections[reason] += 1
        if self.feed is not None:
            self.feed.refused(future, reason)

    def _given_up(self, future: AnyFuture) -> None:
        """Count a task that was cancelled before it had a place. Mutex held."""
        token = future._token
        expired = token is not None and token.remaining == 0.0
        self._refused(future, "expired" if expired else "cancelled")

    def _place_found(self, future: AnyFuture) -> None:
        """A task that has waited for its place is about to be queued. Mutex held."""
        now = _sync.clock()
        if self.admission is not None:
            waited = max(0.0, now - future._queued_at)
            self.admission.record(waited)
            self.admission_time += waited
        future._queued_at = now

    def _admit(self, future: AnyFuture) -> None:
        """Take a place, and see that a worker comes. Mutex held."""
        future.task_id = self.submitted = self.submitted + 1
        self.queue.push(future)
        self.signal_work()

    def signal_work(self) -> None:
        """Keep the invariant of wake-ups; grow while tasks outnumber threads. Mutex held."""
        if self.parked and not self.wakeup_pending:
            self.wakeup_pending = True
            self.deferred.append(functools.partial(unpark, self.parked.pop().parker))
        elif self.unfinished + self.notifying - self.caller_runs > self.threads:
            self.reserve()

    def reserve(self) -> None:
        """One worker more, if there may be. Mutex held."""
        if self.threads < self.room:
            self.reserved += 1
            self.threads += 1
            self.deferred.append(self._start_worker)

    def _grant(self) -> None:
        """Hand free places to blocked submitters, oldest first. Mutex held."""
        blocked = self.blocked
        while blocked and self.submitted < self.max_id:
            waiter = blocked[0]
            if waiter.admitting:
                return
            future = waiter.choose()
            if future is not None and future._state is PENDING and not future.task_id:
                self._place_found(future)
                waiter.admitting = True
                self._admit(future)
                waiter.admitting = False
            if waiter.more():
                blocked.rotate(-1)
            else:
                self.deferred.append(waiter.open)
                blocked.popleft()

    def _freed(self) -> None:
        """A place came free. Mutex held."""
        if self.blocked:
            self._grant()
        if self.idle_waiters and self.unfinished <= sum(self.stoppers.values()):
            for parker in [*self.idle_waiters]:
                if not self.unfinished or parker in self.stoppers:
                    self.deferred.append(functools.partial(unpark, parker))
                    self.idle_waiters.remove(parker)

    def closed_error(self) -> Exception:
        """What a submit to a pool that is closed raises."""
        if self.broken is not None:
            return BrokenThreadPool(self.broken)
        if PoolState.exiting and not self.user_closed:
            return ExitRuntimeError()
        return PoolClosedError()

    def full_error(
        self, future: AnyFuture, waited: float = 0.0, kind: type[QueueFullError] = QueueFullError
    ) -> QueueFullError:
        """What a submit that finds no place raises. Mutex held, or the numbers are a guess."""
        idle = [slot.task for slot in list(self.slots)].count(None)
        running = len(self.slots) - idle
        return kind(
            limit=self.limit,
            waited=waited,
            pool=self.name,
            task=future.name,
            running=running,
            queued=max(0, self.unfinished - running),
            queue_size=self.queue_size,
        )

    def own_slot(self) -> WorkerSlot | None:
        """In a thread that runs one of this pool's tasks: the slot it runs under."""
        slot: WorkerSlot | None = _sync.here.slot
        return slot if slot is not None and slot.pool is self else None

    @repairing
    def stats(self) -> Stats:
        """One consistent snapshot: what is derived here makes it add up whatever was counted."""
        with self.mutex:
            active = sum([r.task is not None and r.task._state is RUNNING for r in self.slots])
            submitted, completed, unfinished = self.submitted, self.completed, self.unfinished
            failed, overflow, rejections = self.failed, self.overflow, self.rejections.copy()
            run_time, wait_time = self.run_time, self.wait_time
            workers, heads = len(self.workers), self.queue.heads()
            for slot in self.slots:
                if slot.task is not None:
                    run_time += slot.started - slot.since
            last_error, state = self.last_error, self.state
            waiting = sum([waiter.count() for waiter in self.blocked])
            latency = None if self.latency is None else self.latency.copy()
            wait = None if self.wait is None else self.wait.copy()
            admission = None if self.admission is None else self.admission.copy()
            admission_time = self.admission_time
            noted = [slot.fresh.copy() for slot in self.slots if slot.fresh]
        if latency is not None and wait is not None:
            ran = [value for fresh in noted for value in fresh[: len(fresh) // 2 * 2 : 2]]
            waited = [value for fresh in noted for value in fresh[1::2]]
            latency.add(tally(ran, latency.max))
            wait.add(tally(waited, wait.max))
            wait_time += sum(waited)
        now = _sync.clock()
        since = min([task._queued_at for task in heads if task._state is PENDING], default=now)
        return self.snapshot(
            name=self.name,
            max_workers=self.max_workers,
            workers=workers,
            active_workers=active,
            queued_tasks=unfinished - active,
            queue_size=self.queue_size,
            submitted_tasks=submitted,
            completed_tasks=completed,
            failed_tasks=failed,
            cancelled_tasks=submitted - completed - unfinished,
            rejected_tasks=sum(rejections.values()),
            overflow_tasks=overflow,
            average_latency=run_time / completed if completed else 0.0,
            average_wait=wait_time / completed if completed else 0.0,
            last_error=None if last_error is None else last_error.error(),
            uptime=now - self.created,
            closed=state > RunState.RUNNING,
            waiting_submitters=waiting,
            oldest_queued=max(0.0, now - since),
            rejections=rejections,
            latency=None if latency is None else latency.snapshot(run_time),
            wait=None if wait is None else wait.snapshot(wait_time),
            admission=None if admission is None else admission.snapshot(admission_time),
        )

    def count_fresh(self, slot: WorkerSlot) -> None:
        """Put what a worker has noted into the histograms; called by itself, or when it is gone."""
        if slot.fresh and self.latency is not None and self.wait is not None:
            # Outside the section, as that takes several times as long as all the rest.
            waited = slot.fresh[1::2]
            # One that was interrupted between the two notes has but the first.
            ran = tally(slot.fresh[: 2 * len(waited) : 2], self.latency.max)
            waits = tally(waited, self.wait.max)
            with self.mutex:
                latency, wait = self.latency.copy(), self.wait.copy()
                latency.add(ran)
                wait.add(waits)
                wait_time = self.wait_time + sum(waited)
                # These at once: no exception strikes between plain assignments.
                self.latency = latency
                self.wait = wait
                self.wait_time = wait_time
                slot.fresh = []

    @repairing
    def running(self) -> list[tuple[AnyFuture, WorkerSlot, float]]:
        """What runs now: the task, where, since when."""
        with self.mutex:
            return [(slot.task, slot, slot.started) for slot in self.slots if slot.task is not None]

    @repairing
    def waiting_tasks(self) -> list[AnyFuture]:
        """The queued tasks in the order in which they are to start. An instant later one may have."""
        with self.mutex:
            queue, rows = self.queue, self.queue.rows()
        return queue.arranged(rows)

    @repairing
    def queued(self) -> int:
        """How many tasks wait. An instant later it may be another number."""
        with self.mutex:
            return self.unfinished - sum([r.task is not None for r in self.slots])

    @repairing
    def wait_empty(
        self, timeout: float | None, token: CancelToken | None = None, ident: int | None = None
    ) -> bool:
        """Wait until nothing is queued or running; False at the timeout or when `token` says so.

        With `ident`, of a thread that runs tasks of this pool: but for those, and the tasks that
        wait like this. There may be one worker more meanwhile, as this one is not to be had.
        """
        parker = _sync.Parker()
        listener = Opener(functools.partial(_unpark_told, parker))
        self.run_deferred()
        try:
            with self.mutex:
                if not self.unfinished or self.abandoned:
                    return not self.unfinished
                self.idle_waiters.append(parker)
                if ident is not None:
                    self._make_way(parker, ident)
            self.run_deferred()
            if token is not None and not token._add_listener(listener):
                unpark(parker)
            _sync.sleep_at(parker, timeout, self.reap_dead_workers)
        finally:
            with self.mutex:
                self.stoppers.pop(parker, None)
                emptied = parker not in self.idle_waiters
                if not emptied:
                    self.idle_waiters.remove(parker)
            if token is not None:
                token._discard_listener(listener)
        return emptied

    def _make_way(self, parker: Any, ident: int) -> None:
        """A task in the thread `ident` is about to wait at `parker` for the others. Mutex held."""
        own = [slot.ident == ident and slot.task is not None for slot in self.slots]
        self.stoppers[parker] = sum(own)
        for _ in range(self.unfinished + self.notifying - self.caller_runs - self.threads):
            self.reserve()
        self._freed()

    @repairing
    def wait_ended(self, timeout: float | None) -> bool:
        """Wait until a closed pool has no worker left, started or about to be."""
        parker = _sync.Parker()
        with self.mutex:
            if not self.threads or self.abandoned:
                return not self.threads
            self.termination_waiters.append(parker)
        try:
            _sync.sleep_at(parker, timeout, self.reap_dead_workers)
        finally:
            with self.mutex:
                if parker in self.termination_waiters:
                    self.termination_waiters.remove(parker)
        return not self.threads

    @repairing
    def reap_dead_workers(self) -> None:
        """See whether the workers live: called now and then by whoever waits for them."""
        self.engine.reap_dead_workers()
        aside.ensure()

    @repairing
    def abandon(self) -> None:
        """Let go whoever waits for the end: it will not be seen."""
        with self.mutex:
            self.abandoned = True
            for parker in [*self.idle_waiters, *self.termination_waiters]:
                self.deferred.append(functools.partial(unpark, parker))
        self.run_deferred()

    def _rebuild(self) -> None:
        """Count again and act on it; also what a nested cancel leaves to be done."""
        with self.mutex:
            self._recount()
            self._cancel_set_aside()
            self._freed()
            self._ended()
            for _ in range(self.unfinished + self.notifying - self.caller_runs - self.threads):
                self.reserve()

    def _cancel_set_aside(self) -> None:
        """Cancel what the order has set aside, because its token is cancelled. Mutex held."""
        token_cancelled = self.queue.token_cancelled
        while token_cancelled:
            future = token_cancelled[-1]
            if future._state is PENDING:
                self.deferred.append(future._announce)
                self.unnotified[future] = NOBODY  # who cancels the token comes for it
                future._state = CANCELLED
                self.max_id += 1
                if self.feed is not None:
                    self.feed.cancelled(future)
            token_cancelled.pop()
        self._freed()

    def _recount(self) -> None:
        """Mutex held."""
        # A worker that is about to note that it has started finds itself gone, and leaves.
        for slot in list(self.workers):
            if slot.ident is None:
                del self.workers[slot]
                self.slots.pop(slot, None)
        for slot in self.slots:
            if slot.fresh and len(slot.fresh) % 2:
                slot.fresh.pop()  # interrupted before it noted the second
        queued = self.queue.rebuild()
        queued += sum([future._state is PENDING for future in self.queue.token_cancelled])
        running = 0
        for slot in list(self.slots):
            if slot.task is not None and slot.task._state is RUNNING:
                running += 1
            elif slot.thread is None:
                del self.slots[slot]
        self.max_id = self.submitted + self.limit - queued - running
        self.notifying = sum([slot.status == NOTIFYING for slot in self.slots])
        self.caller_runs = sum([slot.thread is None for slot in self.slots])
        # Who was about to start a worker finds that none is wanted; _mend orders new ones.
        self.reserved = 0
        self.threads = len(self.workers)
        if self.blocked:
            there = set(map(id, self.queue.tasks()))
            for waiter in self.blocked:
                for future in waiter.tasks():
                    if future._state is PENDING and id(future) not in there:
                        future.task_id = 0
                waiter.admitting = False
        # Which wake-ups were lost is not known: wake all that sleep.
        self.wakeup_pending = False
        self.parked.clear()
        self._wake_all()

    def _wake_all(self) -> None:
        """Mutex held."""
        for slot in self.workers:
            if slot.status == PARKED:
                self.deferred.append(functools.partial(unpark, slot.parker))

    def _leave(self, slot: WorkerSlot) -> None:
        """A worker goes home. Mutex held."""
        self.count_fresh(slot)
        self.slots.pop(slot, None)
        if self.workers.pop(slot, None) is not None:
            self.threads -= 1
        slot.leave = True
        self._ended()

    def _ended(self) -> None:
        """The number of threads went down, or the pool was closed. Mutex held."""
        if not self.threads:
            for parker in self.termination_waiters:
                self.deferred.append(functools.partial(unpark, parker))
            self.termination_waiters = []
            if self.state:
                self.deferred.append(self.engine.ended)
