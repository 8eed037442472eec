"""The heart of an executor: its one mutex, the state under it, and how sections begin and end.

The class of the heart is built in three layers, one file each: `CoreState` here, `CoreLife` (what
happens to a task, in `futurepool._pool.life`), `Core` (how tasks get in, in `futurepool._pool.queue`). Futures,
workers and the exit hook hold the core, never the executor, so a dropped executor is collected.

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
What a section leaves to be done (open a gate, wake who waits, start a thread) it appends to `todo`;
whoever leaves a section flushes. Each entry is safe to run twice and stays in the list until it
has run, so an exception in between loses nothing. No entry runs anything of a user's: who comes by may
hold locks of theirs. Callbacks are called by who has finished or cancelled the task (`untold` notes
who that is), or aside.

**Interrupted sections.** Ctrl-C, an asynchronous exception or a failing allocation may strike
between any two steps. Containers and states change by single C calls, in an order in which every
prefix is sound (see `order`); the integers can be counted again from them, which `recover` does.

**Re-entry.** A finalizer or signal handler may run in the middle of a section and call us. Each
entry point asks `mutex._is_owned()` first; one that finds itself inside a section changes no
counter and no container but `todo`, where it leaves its work for the section's end.

Past 400 lines because all that mends an interrupted section has to know all of the state.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable
from concurrent.futures.thread import BrokenThreadPool
from contextvars import Context
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar

from futurepool import _sync
from futurepool._cancellation import CancelToken, Opener
from futurepool._errors import ExitRuntimeError, PoolClosedError, QueueFullError
from futurepool._failures import TaskError
from futurepool._foreign import aside, contexts
from futurepool._future import CANCELLED, PENDING, RUNNING, Future
from futurepool._pool.histogram import HistogramRecorder, tally
from futurepool._pool.summaries import Latest
from futurepool._pool.task_queue import Order, make_order
from futurepool._pool.waiters import Line

if TYPE_CHECKING:
    from futurepool._stats import Stats

__all__: list[str] = []  # internal

AnyFuture = Future[Any]
P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S", bound="CoreState")

UNBOUNDED = 2**59  # tasks; more than memory holds


class RunState(IntEnum):
    """Only ever increases."""

    RUNNING = 0  # accept, run
    DRAINING = 1  # refuse, run backlog      <- shutdown(), collection
    STOPPING = 2  # refuse, backlog cancelled <- cancel_futures=True, stop() out of time


BUSY = 0  # a worker runs tasks, or looks for one
PARKED = 1  # it sleeps at its gate, or is about to
CALLING = 2  # it tells watchers after a task: not free, though it runs nothing
LOOKING = 3  # as BUSY; at its next turn it looks whether the pool has become smaller

NOBODY = 0  # no thread's identifier, see `CoreState.untold`


class Record:
    """One place where tasks run: a worker, or a thread that runs one on the spot.

    Written by its owner only, under the mutex; `gate` is opened by others.
    """

    __slots__ = (
        "away",
        "core",
        "death",
        "depth",
        "fresh",
        "gate",
        "ident",
        "leave",
        "since",
        "started",
        "task",
        "telling",
        "thread",
        "wanted",
    )

    def __init__(self, core: Any, thread: Any = None, depth: int = 0) -> None:
        self.core: Any = core
        self.task: AnyFuture | None = None  # claimed or running
        self.telling: AnyFuture | None = None  # finished; its watchers may not have been told
        self.started: float = 0.0  # when it was claimed
        # When the first of the tasks was claimed that it has run one right after the other: the
        # pool's run time is added up when such a row ends.
        self.since: float = 0.0
        self.thread: Any = thread  # of a worker; None: the thread that called
        self.ident: int | None = None  # of the thread that runs it
        self.away: int = BUSY
        self.leave: bool = False  # the worker has left; its thread ends
        # With histograms: run time and waiting time of a worker's latest tasks, in turn, neither of
        # them counted yet.
        self.fresh: list[float] | None = None
        self.depth: int = depth  # how many tasks of its thread this one is nested in
        # What a spare thread is to run for it, while it waits: see `ThreadEngine.start_spare`.
        self.wanted: deque[AnyFuture] | None = None
        self.death: Any = None  # tells of a thread that ends without that
        self.gate: Any = None


class Waiter:
    """A submitter that waits for a place. Written under the mutex."""

    __slots__ = ("admitting", "future", "gate")

    def __init__(self, future: AnyFuture) -> None:
        self.future: AnyFuture | None = future
        # While its task is being queued; if it still is in another section, that was interrupted,
        # and a recount is on its way.
        self.admitting: bool = False
        self.gate: Any = _sync.Gate()

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
        open_gate(self.gate)


class Engine(Protocol):
    """Where tasks run: threads of ours, or another executor. See `futurepool._engines`."""

    apart: bool  # whether tasks run in another executor, most likely in another process
    threads: set[Any]  # all it has started, for those who join them

    def start_worker(self) -> None:
        """Make one more worker of those the core has reserved (`starting`); outside the mutex.

        Raises what the system raised if there is none left to start.
        """
        ...

    def run_here(self, future: AnyFuture) -> bool:
        """Run `future`, queued or not, in this thread; False if it is not PENDING any more."""
        ...

    def run_aside(self, future: AnyFuture, timeout: float | None = None) -> bool:
        """In the thread that serves the engine, if one does: go on serving until `future` is done."""
        ...

    def start_spare(self, future: AnyFuture, waiting: Record | None) -> None:
        """Have `future` run beside the workers, one of which waits for it.

        With `waiting`, its record, after what else that one waits for; without, at once.
        """
        ...

    def takes_chunks(self, fn: Any) -> bool:
        """Whether several calls of `fn` can be made by one task."""
        ...

    def calls_back(self, waiting: bool = False) -> bool:
        """Whether every worker is inside done-callbacks; with `waiting`, or waits for a thread."""
        ...

    def look(self) -> None:
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


def mending(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    """For methods with sections: `recover` when one is interrupted.

    A `with` does not do: an exception may strike just before it calls the lock's `__exit__`.
    """

    @functools.wraps(method)
    def mended(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(self, *args, **kwargs)
        except BaseException:
            self.recover()
            raise

    return mended


def open_gate(gate: Any) -> None:
    """Wake whoever sleeps at `gate`, or will; twice is as good as once."""
    try:
        gate.release()
    except RecursionError:  # a RuntimeError, too
        raise
    except RuntimeError:  # open already
        pass


def _open_told(gate: Any, _token: CancelToken) -> None:
    open_gate(gate)


class CoreState:
    """The state of one pool, and what keeps it consistent."""

    __slots__ = (
        "__weakref__",
        "abandoned",
        "adopt",
        "aging",
        "blocked",
        "broken",
        "calling",
        "ceiling",
        "collected",
        "completed",
        "created",
        "dismissed",
        "empties",
        "ends",
        "engine",
        "error_handler",
        "exit_timeout",
        "failed",
        "idle",
        "inline",
        "last_error",
        "latency",
        "limit",
        "line",
        "max_workers",
        "mutex",
        "name",
        "order",
        "overflow",
        "queue_size",
        "records",
        "rejected",
        "run_time",
        "shutdown_timeout",
        "snapshot",
        "starting",
        "state",
        "stoppers",
        "submitted",
        "threads",
        "todo",
        "told",
        "untold",
        "valve",
        "wait",
        "wait_time",
        "waking",
        "warned",
        "warned_worker",
        "workers",
    )

    if TYPE_CHECKING:

        def _start_worker(self) -> None: ...  # in CoreLife

    submitted: int
    completed: int
    failed: int
    rejected: int
    overflow: int
    starting: int
    ceiling: int
    threads: int
    calling: int
    inline: int
    run_time: float
    wait_time: float
    last_error: Latest | None
    waking: bool
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
        self.told: bool = False  # somebody who waits for its end has said what for
        self.engine: Engine
        self.collected: Any = None  # the weak reference to the executor
        self.dismissed: bool = False  # shut down by its user, not merely dropped
        self.created: float = _sync.clock()
        self.mutex: Any = _sync.RLock()
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
        self.last_error = None
        self.latency: HistogramRecorder | None = HistogramRecorder() if metrics else None
        self.wait: HistogramRecorder | None = HistogramRecorder() if metrics else None
        self.warned: bool = False  # of a submit in an event loop
        # The thread that a valve was last opened for, and how many unfinished tasks it may go to.
        self.valve: tuple[int, int] = (0, 0)
        self.warned_worker: bool = False  # of one in a worker
        self.todo: deque[Callable[[], object]] = deque()  # any thread: single C calls only
        # Cancelled tasks -> the thread that has cancelled them and is about to call their callbacks.
        self.untold: dict[AnyFuture, int] = {}  # any thread: single C calls only
        self.reset()

    def reset(self) -> None:
        """Hold no task and no thread."""
        self.order: Order = make_order(self.aging)
        self.records: dict[Record, None] = {}  # all that may run a task now
        self.workers: dict[Record, Any] = {}  # -> their threads
        self.idle: deque[Record] = deque()  # the workers that sleep; the last one is woken first
        self.waking = False
        self.blocked: deque[Waiter | Line] = deque()  # submitters, oldest first
        self.line: Line | None = None  # of coroutines; one of `blocked` while any waits
        self.empties: list[Any] = []  # gates of those who wait until no task is unfinished
        # Of those gates, the ones at which tasks of this pool stop it -> how many tasks wait there.
        self.stoppers: dict[Any, int] = {}
        self.ends: list[Any] = []  # gates of those who wait until no thread is left
        self.todo.clear()
        self.untold.clear()
        self.starting = 0  # workers wanted, thread not there yet
        # These are counted again by _recount.
        self.ceiling = self.submitted + self.limit  # the last id that may be given out
        self.threads = 0  # workers + starting
        self.calling = 0  # records in callbacks
        self.inline = 0  # records that are no worker's

    @property
    def unfinished(self) -> int:
        """Tasks queued or running: what is not free of the `limit` places. Exact in a section."""
        return self.submitted + self.limit - self.ceiling

    @property
    def room(self) -> int:
        """How many workers there may be: one more for each that waits in `stop`. Mutex held."""
        return self.max_workers + len(self.stoppers)

    def _try_admit(self, future: AnyFuture) -> bool:
        """True if there is nothing left to do: admitted, or cancelled by its token. Mutex held."""
        if future._state is not PENDING:
            self.rejected += 1
            return True
        if self.submitted >= self.ceiling or self.state:
            return False
        self._admit(future)
        return True

    def _admit(self, future: AnyFuture) -> None:
        """Take a place, and see that a worker comes. Mutex held."""
        future.task_id = self.submitted = self.submitted + 1
        self.order.push(future)
        self._rouse()

    def _rouse(self) -> None:
        """Keep the invariant of wake-ups; grow while tasks outnumber threads. Mutex held."""
        if self.idle and not self.waking:
            self.waking = True
            self.todo.append(functools.partial(open_gate, self.idle.pop().gate))
        elif self.unfinished + self.calling - self.inline > self.threads:
            self._grow()

    def _grow(self) -> None:
        """One worker more, if there may be. Mutex held."""
        if self.threads < self.room:
            self.starting += 1
            self.threads += 1
            self.todo.append(self._start_worker)

    def _grant(self) -> None:
        """Hand free places to blocked submitters, oldest first. Mutex held."""
        blocked = self.blocked
        while blocked and self.submitted < self.ceiling:
            waiter = blocked[0]
            if waiter.admitting:
                return
            future = waiter.choose()
            if future is not None and future._state is PENDING and not future.task_id:
                future._queued_at = _sync.clock()
                waiter.admitting = True
                self._admit(future)
                waiter.admitting = False
            if waiter.more():
                blocked.rotate(-1)
            else:
                self.todo.append(waiter.open)
                blocked.popleft()

    def _freed(self) -> None:
        """A place came free. Mutex held."""
        if self.blocked:
            self._grant()
        if self.empties and self.unfinished <= sum(self.stoppers.values()):
            for gate in [*self.empties]:
                if not self.unfinished or gate in self.stoppers:
                    self.todo.append(functools.partial(open_gate, gate))
                    self.empties.remove(gate)

    def closed_error(self) -> Exception:
        """What a submit to a pool that is closed raises."""
        if self.broken is not None:
            return BrokenThreadPool(self.broken)
        if CoreState.exiting and not self.dismissed:
            return ExitRuntimeError()
        return PoolClosedError()

    def full_error(
        self, future: AnyFuture, waited: float = 0.0, kind: type[QueueFullError] = QueueFullError
    ) -> QueueFullError:
        """What a submit that finds no place raises. Mutex held, or the numbers are a guess."""
        idle = [record.task for record in list(self.records)].count(None)
        running = len(self.records) - idle
        return kind(
            limit=self.limit,
            waited=waited,
            pool=self.name,
            task=future.name,
            running=running,
            queued=max(0, self.unfinished - running),
            queue_size=self.queue_size,
        )

    def own_record(self) -> Record | None:
        """In a thread that runs one of this pool's tasks: the record it runs under."""
        record: Record | None = _sync.here.record
        return record if record is not None and record.core is self else None

    @mending
    def stats(self) -> Stats:
        """One consistent snapshot: what is derived here makes it add up whatever was counted."""
        with self.mutex:
            active = sum([r.task is not None and r.task._state is RUNNING for r in self.records])
            submitted, completed, unfinished = self.submitted, self.completed, self.unfinished
            failed, rejected, overflow = self.failed, self.rejected, self.overflow
            run_time, wait_time = self.run_time, self.wait_time
            for record in self.records:
                if record.task is not None:
                    run_time += record.started - record.since
            last_error, state = self.last_error, self.state
            waiting = sum([waiter.count() for waiter in self.blocked])
            latency = None if self.latency is None else self.latency.copy()
            wait = None if self.wait is None else self.wait.copy()
            noted = [record.fresh.copy() for record in self.records if record.fresh]
        if latency is not None and wait is not None:
            ran = [value for fresh in noted for value in fresh[: len(fresh) // 2 * 2 : 2]]
            waited = [value for fresh in noted for value in fresh[1::2]]
            latency.add(tally(ran, latency.max))
            wait.add(tally(waited, wait.max))
            wait_time += sum(waited)
        return self.snapshot(
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
            waiting_submitters=waiting,
            average_latency=run_time / completed if completed else 0.0,
            average_wait=wait_time / completed if completed else 0.0,
            last_error=None if last_error is None else last_error.error(),
            uptime=_sync.clock() - self.created,
            closed=state > RunState.RUNNING,
            latency=None if latency is None else latency.snapshot(run_time),
            wait=None if wait is None else wait.snapshot(wait_time),
        )

    def count_fresh(self, record: Record) -> None:
        """Put what a worker has noted into the histograms; called by itself, or when it is gone."""
        if record.fresh and self.latency is not None and self.wait is not None:
            # Outside the section, as that takes several times as long as all the rest.
            waited = record.fresh[1::2]
            # One that was struck between the two notes has but the first.
            ran = tally(record.fresh[: 2 * len(waited) : 2], self.latency.max)
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
                record.fresh = []

    @mending
    def running(self) -> list[tuple[AnyFuture, Record, float]]:
        """What runs now: the task, where, since when."""
        with self.mutex:
            return [
                (record.task, record, record.started)
                for record in self.records
                if record.task is not None
            ]

    @mending
    def queued(self) -> int:
        """How many tasks wait. An instant later it may be another number."""
        with self.mutex:
            return self.unfinished - sum([r.task is not None for r in self.records])

    @mending
    def wait_empty(
        self, timeout: float | None, token: CancelToken | None = None, ident: int | None = None
    ) -> bool:
        """Wait until nothing is queued or running; False at the timeout or when `token` says so.

        With `ident`, of a thread that runs tasks of this pool: but for those, and the tasks that
        wait like this. There may be one worker more meanwhile, as this one is not to be had.
        """
        gate = _sync.Gate()
        listener = Opener(functools.partial(_open_told, gate))
        self.flush()
        try:
            with self.mutex:
                if not self.unfinished or self.abandoned:
                    return not self.unfinished
                self.empties.append(gate)
                if ident is not None:
                    self._make_way(gate, ident)
            self.flush()
            if token is not None and not token._add_listener(listener):
                open_gate(gate)
            _sync.sleep_at(gate, timeout, self.look)
        finally:
            with self.mutex:
                self.stoppers.pop(gate, None)
                emptied = gate not in self.empties
                if not emptied:
                    self.empties.remove(gate)
            if token is not None:
                token._discard_listener(listener)
        return emptied

    def _make_way(self, gate: Any, ident: int) -> None:
        """A task in the thread `ident` is about to wait at `gate` for the others. Mutex held."""
        own = [record.ident == ident and record.task is not None for record in self.records]
        self.stoppers[gate] = sum(own)
        for _ in range(self.unfinished + self.calling - self.inline - self.threads):
            self._grow()
        self._freed()

    @mending
    def wait_ended(self, timeout: float | None) -> bool:
        """Wait until a closed pool has no worker left, started or about to be."""
        gate = _sync.Gate()
        with self.mutex:
            if not self.threads or self.abandoned:
                return not self.threads
            self.ends.append(gate)
        try:
            _sync.sleep_at(gate, timeout, self.look)
        finally:
            with self.mutex:
                if gate in self.ends:
                    self.ends.remove(gate)
        return not self.threads

    @mending
    def look(self) -> None:
        """See whether the workers live: called now and then by whoever waits for them."""
        self.engine.look()
        aside.ensure()

    @mending
    def abandon(self) -> None:
        """Let go whoever waits for the end: it will not be seen."""
        with self.mutex:
            self.abandoned = True
            for gate in [*self.empties, *self.ends]:
                self.todo.append(functools.partial(open_gate, gate))
        self.flush()

    def flush(self) -> None:
        """Do what sections have left. Each entry stays until it is done, and may run twice.

        Whoever comes by does it, so no entry runs anything of a user's, nor does one flush.
        """
        todo = self.todo
        if self.mutex._is_owned():
            return
        while todo:
            try:
                act = todo[0]
            except IndexError:  # another thread was faster
                return
            # The section that has left it may be going on, in another thread: wait for its end.
            self.mutex.acquire()
            self.mutex.release()
            act()
            try:
                todo.remove(act)
            except ValueError:
                pass

    def flush_aside(self) -> None:
        """`flush` for a thread that may hold conditions of futures, so in another one."""
        if self.todo:
            aside.run(self.flush)

    def recover(self, *futures: AnyFuture) -> None:
        """After an exception inside or near a section: no lock held, all counts right again.

        Those of `futures` that have not started are withdrawn: their submit is about to raise.
        """
        try:
            # First by C calls only: the stack may be at its end, with no room for the rest.
            self.mutex.__enter__()
            self.todo.append(self._settle)
            for future in futures:
                if future._state is PENDING:
                    self.todo.append(future._announce)
                    future._state = CANCELLED
            while self.mutex._is_owned():
                self.mutex.release()
            self._mend(futures)
        except BaseException:  # interrupted again
            self._mend(futures)
            raise

    def _mend(self, futures: tuple[AnyFuture, ...]) -> None:
        while self.mutex._is_owned():
            self.mutex.release()
        with self.mutex:
            for future in futures:
                if future._state is PENDING:
                    self.todo.append(future._announce)
                    future._state = CANCELLED
            self._settle()
        # What this thread was about to tell when it was struck.
        me = _sync.get_ident()
        for future, by in self.untold.copy().items():
            if by == me:
                self.todo.append(future._tell_aside)
                self.untold.pop(future, None)
        self.flush()
        for future in futures:
            if future.cancelled():
                future._tell()

    def _settle(self) -> None:
        """Count again and act on it; also what a nested cancel leaves to be done."""
        with self.mutex:
            self._recount()
            self._cancel_doomed()
            self._freed()
            self._ended()
            for _ in range(self.unfinished + self.calling - self.inline - self.threads):
                self._grow()

    def _cancel_doomed(self) -> None:
        """Cancel what the order has set aside, because its token is cancelled. Mutex held."""
        doomed = self.order.doomed
        while doomed:
            future = doomed[-1]
            if future._state is PENDING:
                self.todo.append(future._announce)
                self.untold[future] = NOBODY  # who cancels the token comes for it
                future._state = CANCELLED
                self.ceiling += 1
            doomed.pop()
        self._freed()

    def _recount(self) -> None:
        """Mutex held."""
        # A worker that is about to note that it has started finds itself gone, and leaves.
        for record in list(self.workers):
            if record.ident is None:
                del self.workers[record]
                self.records.pop(record, None)
        for record in self.records:
            if record.fresh and len(record.fresh) % 2:
                record.fresh.pop()  # struck before it noted the second
        queued = self.order.recount()
        queued += sum([future._state is PENDING for future in self.order.doomed])
        running = 0
        for record in list(self.records):
            if record.task is not None and record.task._state is RUNNING:
                running += 1
            elif record.thread is None:
                del self.records[record]
        self.ceiling = self.submitted + self.limit - queued - running
        self.calling = sum([record.away == CALLING for record in self.records])
        self.inline = sum([record.thread is None for record in self.records])
        # Who was about to start a worker finds that none is wanted; _mend orders new ones.
        self.starting = 0
        self.threads = len(self.workers)
        if self.blocked:
            there = set(map(id, self.order.tasks()))
            for waiter in self.blocked:
                for future in waiter.tasks():
                    if future._state is PENDING and id(future) not in there:
                        future.task_id = 0
                waiter.admitting = False
        # Which wake-ups were lost is not known: wake all that sleep.
        self.waking = False
        self.idle.clear()
        self._wake_all()

    def _wake_all(self) -> None:
        """Mutex held."""
        for record in self.workers:
            if record.away == PARKED:
                self.todo.append(functools.partial(open_gate, record.gate))

    def _leave(self, record: Record) -> None:
        """A worker goes home. Mutex held."""
        self.count_fresh(record)
        self.records.pop(record, None)
        if self.workers.pop(record, None) is not None:
            self.threads -= 1
        record.leave = True
        self._ended()

    def _ended(self) -> None:
        """The number of threads went down, or the pool was closed. Mutex held."""
        if not self.threads:
            for gate in self.ends:
                self.todo.append(functools.partial(open_gate, gate))
            self.ends = []
            if self.state:
                self.todo.append(self.engine.ended)
