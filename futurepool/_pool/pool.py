"""The pool: parts that know only their own data, changed together in sections of one mutex.

Futures, workers and the exit hook hold the pool, never the executor, so a dropped executor is collected.
The parts never call each other; what takes more than one of them is written here, and unrolled in
`futurepool._pool.fast` where every task comes by.

A place that comes free is handed, in the same section, to whoever has waited for one longest. So while
somebody waits no place is free, and nobody can overtake. And whoever sees a final state and then asks for
the mutex finds the place free.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures.thread import BrokenThreadPool
from contextvars import Context
from typing import TYPE_CHECKING, Any, Final

from futurepool import _sync
from futurepool._cancellation import CancelToken
from futurepool._errors import (
    ExitRuntimeError,
    PoolClosedError,
    QueueFullError,
    TaskExpiredError,
    is_among,
)
from futurepool._errors.failures import Failure, TaskError
from futurepool._foreign import aside, contexts
from futurepool._foreign.aside import run as run_aside
from futurepool._future import (
    CANCELLED,
    FINISHED,
    NOTIFIED,
    PENDING,
    RUNNING,
    Future,
)
from futurepool._options import UNSET, Config, OnFull
from futurepool._pool import completion, ending, helping, overdue, overload, sizing, submission
from futurepool._pool.capacity import Capacity
from futurepool._pool.expiry import Expiry, expire_shed, late
from futurepool._pool.meters import MUCH, Meters
from futurepool._pool.section import NOBODY, Section, repairing, unpark
from futurepool._pool.summaries import Latest
from futurepool._pool.task_queue import (
    AgingQueue,
    Level,
    NewestLevel,
    PriorityQueue,
    TaskQueue,
    is_token_cancelled,
)
from futurepool._pool.waiters import Waiters
from futurepool._pool.workers import PARKED, Kind, Workers, WorkerSlot

if TYPE_CHECKING:
    from futurepool._engines import Engine
    from futurepool._pool.limits import LimitedQueue
    from futurepool._pool.observing import Feed
    from futurepool._pool.slow import SlowTasks
    from futurepool._telemetry.stats import Stats

__all__ = ["Pool", "RunState", "queue_maker"]

AnyFuture = Future[Any]


class RunState:
    """Only ever increases. Plain numbers: an enumeration takes 170 us of each start to make."""

    RUNNING: Final = 0  # accept, run
    DRAINING: Final = 1  # refuse, run backlog      <- shutdown(), collection
    STOPPING: Final = 2  # refuse, backlog cancelled <- cancel_futures=True, stop() out of time

    NAMES: Final = ("running", "draining", "stopping")


class Pool(Section):
    """A whole pool. `options` in signatures is what `executor.options()` collects.

        admit    capacity.take    queue.push        workers: one is woken, or reserved
        take     queue.take       slot.task         PENDING -> RUNNING
        commit   slot.task=None   RUNNING -> FINISHED   meters.count_run   capacity.give -> waiters
        cancel   PENDING -> CANCELLED               a tombstone in the queue   capacity.give -> waiters
        take_back   slot.task=None   RUNNING -> CANCELLED   capacity.give -> waiters   (only from an engine)

    Methods say "section held" if they are to be called inside of one. Those that are assigned here are
    functions of the modules beside this one, with the pool as their first argument.
    """

    __slots__ = (
        "__weakref__",
        "abandoned",
        "adopt",
        "aging",
        "broken",
        "capacity",
        "collected",
        "engine",
        "error_handler",
        "exit_timeout",
        "expected",
        "expiry",
        "feed",
        "idle_timeout",
        "limits",
        "make_queue",
        "meters",
        "min_workers",
        "name",
        "order",
        "overdue",
        "overload",
        "queue",
        "sheds",
        "shutdown_timeout",
        "slow",
        "snapshot",
        "state",
        "user_closed",
        "wait_reported",
        "waiters",
        "workers",
    )

    exiting: bool = False  # of the class: the interpreter shuts down

    def __init__(self, config: Config) -> None:
        # Late, see its head; but not so late as `stats`, which may be called by a signal handler while
        # the import goes on.
        from futurepool._telemetry.stats import Stats

        super().__init__()
        self.snapshot: type[Stats] = Stats
        # Set once, by the executor.
        self.engine: Engine
        self.name: str = config.name
        # What becomes of a caller's context, unless it is empty. It is of no use in another executor.
        keeps = config.keeps_context and config.engine is None
        self.adopt: Callable[[Context], Context | None] = contexts.own if keeps else contexts.leave
        self.aging: float | None = config.aging
        self.order: str = config.order
        self.error_handler: Callable[[TaskError], object] | None = config.error_handler
        # Set by whoever ends the pool; each by one step, and read without a section.
        self.collected: Any = None  # the weak reference to the executor
        self.user_closed: bool = False  # shut down by its user, not merely dropped
        self.abandoned: bool = False  # at interpreter exit: nobody waits for it any more
        self.wait_reported: bool = False  # somebody who waits for its end has said what for
        self.shutdown_timeout: float = config.shutdown_timeout
        self.exit_timeout: float | None = config.exit_timeout  # None: for as long as it takes
        # See futurepool._pool.sizing; None: workers sleep for as long as it takes.
        self.idle_timeout: float | None = config.idle_timeout
        self.min_workers: int = config.min_workers
        self.slow: SlowTasks | None = None
        if config.slow_task is not None:
            from futurepool._pool.slow import SlowTasks

            self.slow = SlowTasks(self, config.slow_task)
        # Guarded by the mutex.
        self.state: int = RunState.RUNNING
        self.broken: str | None = None  # why no worker can run: the initializer failed
        self.capacity: Capacity = Capacity(config.max_workers, config.queue_size)
        self.sheds: bool = config.on_full is OnFull.SHED
        self.make_queue: Callable[[], TaskQueue] = queue_maker(
            config.aging, config.order, config.adaptive_wait, self.sheds
        )
        self.queue: TaskQueue = self.make_queue()
        self.limits: LimitedQueue | None = None  # before the queue, from the first limit on
        self.workers: Workers = Workers(config.max_workers)
        self.expected: helping.Expected = helping.Expected()
        self.waiters: Waiters = Waiters()
        self.expiry: Expiry = Expiry(self, self.deferred)
        self.meters: Meters = Meters(config.enable_metrics)
        self.overload: overload.Overload = overload.Overload()
        # Slots in which a function goes on though its task has ended: see futurepool._pool.overdue.
        self.overdue: dict[WorkerSlot, overdue.TimedRun] = {}
        # What observers are told of, if there are any: see futurepool._pool.observing.
        self.feed: Feed | None = None

    def renew(self) -> None:
        """In the child of a fork: hold no task and no thread."""
        super().renew()
        for slot in self.workers.slots:
            if slot.task is not None:
                self.meters.count_row(slot, slot.started)  # of its row, which ends here
            slot.task = None
            slot.leave = True
            self.count_times(slot)
        self.overdue.clear()
        self.queue = self.make_queue()
        if self.limits is not None:
            inner: Any = self.queue
            self.limits.renew(inner)
            self.queue = self.limits
        if self.feed is not None:
            self.feed.reset()
            self.queue = self.feed.queue(self.queue)
        self.workers.reset()
        self.expected.clear()
        self.waiters.reset()
        self.expiry.forget()
        self.capacity.rebuild(0)
        if self.slow is not None:
            self.slow.forget()

    @property
    def unfinished(self) -> int:
        """Tasks queued or running. Exact in a section."""
        return self.capacity.unfinished

    # -- submit, for executors -----------------------------------------------------------------

    submit = submission.submit
    submit_many = submission.submit_many
    join_in = submission.join_in

    # -- admit ---------------------------------------------------------------------------------

    def try_admit(self, future: AnyFuture) -> bool:
        """True if there is nothing left to do: admitted, or cancelled by its token. Section held."""
        if future._state is not PENDING:
            self.given_up(future)
            return True
        capacity = self.capacity
        # mutant bound-is-exact
        if capacity.submitted >= capacity.max_id or self.state:
            return False
        self.admit(future)
        return True

    def admit(self, future: AnyFuture) -> None:
        """Take a place, and see that a worker comes. Section held. Unrolled in `Submitting.submit`."""
        future.task_id = self.capacity.take()
        if self.limits is None or future._limit is None:
            self.queue.push(future)
            if future._max_wait is not None:
                self.limit_wait(future)
            self.signal_work()
        else:
            due = self.limits.root.below
            self.queue.push(future)
            self.limit_wait(future)
            self._count_held()
            for _ in range(self.limits.root.below - due):
                # mutant limited-submit-wakes-a-worker
                self.signal_work()

    def takes_more(self) -> bool:
        """Whether there is a place for a task more of work that was accepted, and will be a worker. Section held."""
        state = self.state
        going_on = not state or (state < RunState.STOPPING and self.unfinished > 0)
        return going_on and not self.capacity.full

    def limit_wait(self, future: AnyFuture) -> None:
        """A task waits from here on: see that it does not for longer than it may. Section held."""
        max_wait = future._max_wait
        if max_wait is not None:
            self.expiry.add(future, max_wait)
            future._max_wait = None

    def signal_work(self) -> None:
        """Keep the invariant of wake-ups; grow while tasks outnumber threads. Section held."""
        workers = self.workers
        if workers.parked and not workers.wakeup_pending:
            self.deferred.append(functools.partial(unpark, workers.take_parked()))
        elif (
            # Most often there may be no more, so that is asked first.
            (workers.threads < workers.max_workers or workers.stoppers)
            and workers.missing(self.capacity.unfinished) > 0
        ):
            self.reserve()

    def reserve(self) -> None:
        """One worker more, if there may be. Section held."""
        if self.workers.reserve():
            self.deferred.append(functools.partial(self._start_worker))

    def reserve_missing(self) -> None:
        """As many as would have something to do. Section held."""
        for _ in range(self.workers.missing(self.unfinished)):
            self.reserve()

    def place_freed(self) -> None:
        """A place came free: hand it on, and see who waits for no tasks. Section held."""
        waiters = self.waiters
        blocked = waiters.blocked
        if blocked:
            # mutant free-place-is-granted
            self._grant()
        if waiters.idle_waiters:
            stoppers, unfinished = self.workers.stoppers, self.capacity.unfinished
            if unfinished <= sum(stoppers.values()):
                for parker in [*waiters.idle_waiters]:
                    if not unfinished or parker in stoppers:
                        self.deferred.append(functools.partial(unpark, parker))
                        waiters.idle_waiters.remove(parker)
        if not blocked and not waiters.idle_waiters:
            waiters.nobody()

    def refused(self, future: AnyFuture, reason: str) -> None:
        """Count a task that gets no place, or is to lose it for another one. Section held."""
        self.meters.refuse(reason)
        if self.feed is not None:
            self.feed.refused(future, reason)

    def given_up(self, future: AnyFuture) -> None:
        """Count a task that was cancelled before it had a place. Section held."""
        if future._state is FINISHED:
            return  # it has expired, and was counted then
        token = future._token
        expired = token is not None and token.remaining == 0.0
        self.refused(future, "expired" if expired else "cancelled")

    def place_found(self, future: AnyFuture) -> None:
        """A task that has waited for its place is about to be queued. Section held."""
        now = _sync.clock()
        if self.meters.admission is not None:
            self.meters.count_admission(max(0.0, now - future._queued_at))
        future._queued_at = now

    def _grant(self) -> None:
        """Hand free places to whoever waits, oldest first. Section held."""
        blocked, capacity = self.waiters.blocked, self.capacity
        while blocked and capacity.submitted < capacity.max_id:
            waiter: Any = blocked[0]
            if waiter.admitting:
                return
            future: AnyFuture | None = waiter.future
            coroutines = future is None
            if coroutines:
                future = waiter.choose()
            if future is not None and future._state is PENDING and not future.task_id:
                # `place_found`, in line.
                now = _sync.clock()
                if self.meters.admission is not None:
                    self.meters.count_admission(max(0.0, now - future._queued_at))
                future._queued_at = now
                waiter.admitting = True
                self.admit(future)
                waiter.admitting = False
            if coroutines and waiter.more():
                blocked.rotate(-1)
            else:
                # mutant granted-submitter-wakes
                self.deferred.append(waiter.wake)
                blocked.popleft()

    readmit = submission.readmit

    # -- take ----------------------------------------------------------------------------------

    @repairing
    def precedes(self, task: AnyFuture) -> bool:
        """Whether something queued would go before `task`, were that queued, too."""
        with self.mutex:
            following = self.queue.following()
            if following is None:
                return False
            ahead = following.priority - task.priority
            if self.aging is None:
                return ahead > 0
            # In whole nanoseconds, as in `AgingQueue`.
            later = round((following._queued_at - task._queued_at) * 1e9)
            return later < round(self.aging * 1e9) * ahead

    def next_task(self, slot: WorkerSlot) -> AnyFuture | None:
        """Commit what `slot` has run, if anything, and claim its next task: a worker's turn.

        The result is in the task already; one that failed was committed by `complete`.
        Returns None when there is nothing to run now: then the worker has left (`slot.leave`),
        is to sleep at its parker (`slot.status`), or has told subscribers and should come again.
        Unrolled in `fast.next_task`, which does both in one section.
        """
        if slot.task is not None:
            self.complete(slot, slot.task._result, None)
            return None
        task: AnyFuture | None = None
        status = slot.status
        with self.mutex:
            if status:
                self.come_back(slot)
            if not slot.leave:
                slot.started = slot.since = _sync.clock()
                task = self.take(slot)
                if task is None:
                    self._park_or_leave(slot)
                elif status == PARKED:
                    self._wake_next()
        self.run_deferred()
        return task

    def take(self, slot: WorkerSlot) -> AnyFuture | None:
        """The queue's next task; those whose token is cancelled are cancelled, the late expire. Section held.

        Places come free by that, and who has waited for one may have got it: then there is something to take.
        """
        while True:
            submitted = self.capacity.submitted
            task = self.queue.take(slot)
            if self.limits is not None:
                self._count_held()
            if self.queue.token_cancelled:
                self._cancel_set_aside()
            if self.queue.shed:
                self._expire_set_aside()
            if task is not None or self.capacity.submitted == submitted:
                return task

    _expire_shed = expire_shed

    def come_back(self, slot: WorkerSlot) -> None:
        """A worker that slept, or told subscribers, is there again; it may have to leave. Section held."""
        if self.overdue:
            overdue.returned(self, slot)
        if self.workers.come_back(slot):
            self.leave(slot)
            self.signal_work()  # what it was woken for is another's now

    def _wake_next(self) -> None:
        """A worker that was woken has found a task: does the next one, too? Section held."""
        workers = self.workers
        if workers.parked and workers.missing(self.unfinished) > -len(workers.parked):
            self.deferred.append(functools.partial(unpark, workers.take_parked()))

    def _park_or_leave(self, slot: WorkerSlot) -> None:
        """A worker has found nothing queued. Section held."""
        # What waits for its limit will need somebody, though a pool that is closed gets nothing new.
        if (self.state and not self.workers.held) or slot not in self.workers.listed:
            self.leave(slot)
        else:
            self.workers.park(slot)

    @repairing
    def claim(self, slot: WorkerSlot, future: AnyFuture, fails: bool = False) -> bool:
        """Claim this very task, queued or not yet, for a slot that is no worker's.

        One that must wait for its limit is not to be had, unless it will not run (`fails`).
        """
        limit = future._limit
        limits = None if limit is None else self.limits
        due = 0
        with self.mutex:
            if future._state is PENDING and is_token_cancelled(future):
                self.cancel_pending(future, NOBODY)
            # mutant only-pending-is-claimed
            if future._state is not PENDING or (self.state and not future.task_id):
                return False
            if limits is not None and limit is not None:
                due = limits.root.below
                if fails:
                    future._limit = future._lent = limit.leaf()
                # mutant claim-asks-the-limit
                if not limits.may_start(future):
                    return False
            self.workers.add_caller(slot)
            slot.started = slot.since = _sync.clock()
            slot.task = future
            feed = self.feed
            queued = future.task_id != 0
            if queued:
                # mutant claimed-leaves-a-tombstone
                self.queue.note_tombstone(self.unfinished)
            else:
                future.task_id = self.capacity.take()
                if feed is not None:
                    feed.submitted(future)
            future._state = RUNNING
            if limits is not None:
                limits.started(future, new=not queued)
                self._count_held()
                for _ in range(limits.root.below - due):  # it has named a higher limit for its key
                    self.signal_work()
            if feed is not None:
                feed.started(future, slot)
        if self.deferred:
            self.run_deferred()
        return True

    # -- commit --------------------------------------------------------------------------------

    def commit(
        self,
        slot: WorkerSlot,
        task: AnyFuture,
        result: Any,
        failure: Failure | None,
        latest: Latest | None,
        goes_on: bool = False,
    ) -> None:
        """RUNNING -> FINISHED. Section held. The outcome is stored before the state that shows it.

        `goes_on`: its function does, and keeps what the task has of its limit (`give_limit`).
        Unrolled in `fast.next_task`, for tasks that nobody but a thread in `result` waits for.
        """
        now = _sync.clock()
        if failure is None:
            task._result = result
        else:
            if failure.seen is None:
                failure.seen = task._hushed
                if self.error_handler is not None:
                    failure.seen = True
                    task._failure = failure
            task._result = failure
        slot.notifying = task
        task._state = FINISHED
        slot.task = None
        self.capacity.give()
        self.meters.count_run(slot, max(0.0, slot.started - task._queued_at), now, latest)
        if self.feed is not None:
            self.feed.finished(task, slot, now, failure)
        if slot.kind == Kind.CALLER:
            self.workers.remove_caller(slot)
        else:
            self.workers.begin_notifying(slot)
        if task._limit is not None and not goes_on:
            self.free_limit(slot, task, now, failure is not None)
        self.place_freed()

    def write_off(self, slot: WorkerSlot) -> None:
        """A worker is not to be had any more; it leaves when it comes back. Section held."""
        self.count_times(slot)
        self.workers.write_off(slot)
        self.engine.write_off(slot)
        self.reserve_missing()  # first, or there may be no thread for a moment
        self.threads_changed()

    def function_ended(self, slot: WorkerSlot) -> None:
        """One in this slot that went on after its task."""
        with self.mutex:
            overdue.returned(self, slot)

    def give_limit(self, slot: WorkerSlot, task: AnyFuture) -> None:
        """A function has ended after its task, and gives back what that had of its limit. Section held."""
        # mutant overdue-gives-its-limit-back
        self.free_limit(slot, task, _sync.clock(), True)

    take_back = completion.take_back
    complete = completion.complete
    complete_aside = completion.complete_aside
    tell_outcome = completion.tell_outcome

    def count_times(self, slot: WorkerSlot) -> None:
        """Put what a worker has noted into the histograms; called by itself, by `stats`, or when it is gone."""
        noted = self.meters.tally(slot)
        if noted is not None:
            with self.mutex:
                self.meters.add(slot, noted)

    # -- limits --------------------------------------------------------------------------------

    @repairing
    def limited(self) -> LimitedQueue:
        """The limits of this pool; its tasks go by them from the first call on."""
        from futurepool._pool.limits import LimitedQueue

        with self.mutex:
            limits, feed = self.limits, self.feed
            if limits is None:
                inner: Any = self.queue if feed is None else feed.unwrapped(self.queue)
                limits = LimitedQueue(inner, self.meters.latency is not None)
                self.queue = limits if feed is None else feed.queue(limits)
                self.limits = limits
            return limits

    def _count_held(self) -> None:
        """Tasks have come to wait for their limit, or do so no more. Section held."""
        limits = self.limits
        if limits is not None:
            held = limits.queued - limits.root.below  # `LimitedQueue.held`
            if held != self.workers.held and self.workers.hold(held) and self.state:
                # mutant no-task-held-sends-home
                self._wake_all()  # those that have stayed for them may go

    def free_limit(self, slot: WorkerSlot, task: AnyFuture, now: float, failed: bool) -> None:
        """A task with a limit has run, so that another one may start. Section held.

        The worker that has run it comes back for that one at once, unless it has users' code to run before.
        """
        limits = self.limits
        if limits is None:
            return
        due = limits.root.below
        limits.finished(task, max(0.0, slot.started - task._queued_at), now - slot.started, failed)
        self._count_held()
        subscribers = task._subscribers
        told = subscribers is not None and bool(subscribers.callbacks)
        if limits.root.below > due and (failed or told or slot.kind == Kind.CALLER):
            # mutant freed-limit-wakes-a-worker
            self.signal_work()
        if limits.awaited:
            self.deferred.append(functools.partial(self.run_awaited))

    def free_limit_unused(self, limits: LimitedQueue, task: AnyFuture) -> None:
        """A task with a limit was taken back from an engine, so that another one may start. Section held."""
        due = limits.root.below
        limits.taken_back(task)
        self._count_held()
        for _ in range(limits.root.below - due):
            self.signal_work()
        if limits.awaited:
            self.deferred.append(functools.partial(self.run_awaited))

    # -- cancel --------------------------------------------------------------------------------

    @repairing
    def cancel(
        self, future: AnyFuture, aside: bool = False, raised: list[BaseException] | None = None, /
    ) -> bool:
        """See `Future.cancel`. `aside` after a deadline: users' code runs in another thread.

        `raised`: see `Future._call_all`.
        """
        if self.mutex._is_owned():
            return self._cancel_nested(future)
        if future._state is PENDING:
            with self.mutex:
                # mutant only-pending-is-cancelled
                if future._state is PENDING:
                    if future._in_line and not future.task_id:
                        self.given_up(future)  # who waits as a thread does so itself
                    self.cancel_pending(future, _sync.get_ident())
            self.run_deferred()
        if future._state is RUNNING:
            token = self.token_of(future)
            if aside:
                token.cancel_aside("its future was cancelled")
            else:
                token.cancel("its future was cancelled")
            # Only now: whoever is just handing it to an engine looks at the token after that.
            self.engine.take_back(future, None if aside else _sync.get_ident())
        if self.unnotified:
            # mutant who-cancels-tells
            self.tell_cancelled(future, aside, raised)
        return future._state in (CANCELLED, NOTIFIED)

    def cancel_pending(self, future: AnyFuture, by: int | None, grant: bool = True) -> None:
        """PENDING -> CANCELLED. Section held.

        `by`: the thread that is to call the callbacks and let go of the arguments when the section
        has ended (`tell_cancelled`); NOBODY: whoever cancels its token, who is on the way; None: a
        thread aside. `grant`: hand the place to whoever waits for one; False if the caller takes it in
        this section.
        """
        self.mark_cancelled(future, by)
        if self.feed is not None:
            self.feed.cancelled(future)
        if future.task_id:
            # mutant cancelled-gives-its-place-back
            self.capacity.give()
            self.queue.note_tombstone(self.capacity.unfinished)
            if self.limits is not None and future._limit is not None:
                self.limits.cancelled(future)
                self._count_held()
            if grant:
                # mutant cancel-frees-the-place
                self.place_freed()
        else:
            self.deferred.extend(self.waiters.waiting_for(future))

    def withdrawn(self, future: AnyFuture) -> None:
        if self.feed is not None:
            self.feed.cancelled(future)

    def mark_cancelled(self, future: AnyFuture, by: int | None) -> None:
        """It is CANCELLED, and told of when the section has ended, `by` as above. Section held."""
        self.deferred.append(future._announce)
        if by is None:
            self.deferred.append(future._tell_aside)
        else:
            self.unnotified[future] = by
        future._state = CANCELLED

    def try_expire(self, future: AnyFuture, error: TaskExpiredError) -> bool:
        """`expire_pending`, if that may be done without the future's condition. Section held."""
        subscribers = future._subscribers
        if subscribers is not None and subscribers.condition is not None:
            return False
        self.expire_pending(future, error)
        return True

    def expire_pending(self, future: AnyFuture, error: TaskExpiredError) -> None:
        """PENDING -> FINISHED, without having run. Section held, and the future's condition, if any."""
        subscribers = future._subscribers
        if subscribers is not None:
            self.deferred.append(future._announce)
        if subscribers is not None and subscribers.callbacks:
            self.deferred.append(future._tell_aside)
        else:
            self.expiry.release(future)
        future._result = Failure(error, future.task_id, future.name)
        future._state = FINISHED
        self.refused(future, "expired")
        if self.feed is not None:
            self.feed.cancelled(future, "expired")
        if future.task_id:
            # mutant expired-gives-its-place-back
            self.capacity.give()
            self.queue.note_tombstone(self.capacity.unfinished)
            if self.limits is not None and future._limit is not None:
                self.limits.cancelled(future)
                self._count_held()
            self.place_freed()
        else:
            # mutant expired-wakes-its-submitter
            self.deferred.extend(self.waiters.waiting_for(future))

    def tell_cancelled(
        self, future: AnyFuture, aside: bool = False, raised: list[BaseException] | None = None
    ) -> None:
        """Tell of a cancelled task, if this thread is the one to do it."""
        try:
            by = self.unnotified[future]
        except KeyError:
            return
        # mutant not-told-by-another
        if by == NOBODY or by == _sync.get_ident():
            if aside:
                future._tell_aside()
            else:
                future._tell(raised)
            self.unnotified.pop(future, None)

    def _cancel_nested(self, future: AnyFuture) -> bool:
        """A cancel from a finalizer or signal handler inside one of our sections.

        `TaskQueue.take` notes a task in a slot before it looks at its state; so a task noted there
        counts as started, and one that is not will be seen as cancelled.
        """
        slots = list(self.workers.slots)
        if future._state is PENDING and not any(slot.task is future for slot in slots):
            future._state = CANCELLED
            if self.feed is not None:
                self.feed.cancelled(future)
            self.deferred.append(functools.partial(self._rebuild))
            self.deferred.append(future._announce)
            self.deferred.append(future._tell_aside)  # this thread may be about to take locks
        return future._state in (CANCELLED, NOTIFIED)

    def _expire_set_aside(self) -> None:
        """Fail what the queue has set aside, because it had waited for too long. Section held."""
        shed = self.queue.shed
        while shed:
            future = shed[0]
            if future._state is PENDING and not self.try_expire(future, late(self, future)):
                self.deferred.append(functools.partial(self._expire_shed))  # it has a condition
                return
            shed.popleft()

    def _cancel_set_aside(self) -> None:
        """Cancel what the queue has set aside, because its token is cancelled. Section held."""
        set_aside = self.queue.token_cancelled
        while set_aside:
            future = set_aside[-1]
            if future._state is PENDING:
                self.deferred.append(future._announce)
                # mutant token-cancelled-is-told-by-who-cancels
                self.unnotified[future] = NOBODY  # who cancels the token comes for it
                future._state = CANCELLED
                self.capacity.give()
                if self.limits is not None and future._limit is not None:
                    self.limits.cancelled(future)
                if self.feed is not None:
                    self.feed.cancelled(future)
            set_aside.pop()
        self.place_freed()

    @repairing
    def withdraw(self, future: AnyFuture) -> bool:
        """Cancel a future that has waited too long for its place; False if it has one."""
        with self.mutex:
            if future.task_id or future._state is not PENDING:
                return False
            self.refused(future, "timeout")
            self.cancel_pending(future, _sync.get_ident())
        self.run_deferred()
        self.tell_cancelled(future)
        return True

    @repairing
    def hand_out(
        self,
    ) -> tuple[AnyFuture, Callable[..., Any], tuple[Any, ...], dict[str, Any]] | None:
        """Cancel the queued task that is due next, and give it away; None if none is queued."""
        with self.mutex:
            future = self.queue.following()
            if future is None:
                return None
            taken = future, future._fn, future._args, future._kwargs or {}
            # mutant handed-out-is-cancelled
            self.cancel_pending(future, _sync.get_ident())
        self.run_deferred()
        self.tell_cancelled(future)
        return taken

    @repairing
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

    # -- close ---------------------------------------------------------------------------------

    @repairing
    def close(self, state: int = RunState.DRAINING) -> None:
        """Refuse new tasks, turn blocked submitters away, let idle workers leave."""
        if self.mutex._is_owned():
            self.state = max(self.state, state)
            self.deferred.append(functools.partial(self._send_home))
            return
        with self.mutex:
            self.state = max(self.state, state)
        # mutant close-sends-home
        self._send_home()
        if self.deferred:
            self.run_deferred()

    def _send_home(self) -> None:
        """Turn away whoever waits for a place, and have the workers look whether they are to go."""
        blocked = self.waiters.blocked
        with self.mutex:
            while blocked:
                # mutant closed-wakes-the-blocked
                self.deferred.append(blocked[0].wake)
                blocked.popleft()
            # mutant all-parked-are-sent-home
            self._wake_all()
            self.threads_changed()

    def turn_away(self) -> None:
        """No coroutine waits any more, or the pool is closed; then none gets a place. In `deferred`."""
        with self.mutex:
            if self.state and self.waiters.coroutines is not None:
                for future in self.waiters.coroutines.tasks():
                    if future._state is PENDING and not future.task_id:
                        self.refused(future, "closed")
                        self.cancel_pending(future, None)

    def _wake_all(self) -> None:
        """Section held."""
        for parker in self.workers.parkers():
            self.deferred.append(functools.partial(unpark, parker))

    def leave(self, slot: WorkerSlot) -> None:
        """A worker goes home, or is gone. Section held."""
        self.count_times(slot)
        self.workers.leave(slot)
        # mutant last-worker-says-so
        self.threads_changed()

    def threads_changed(self) -> None:
        """The number of threads went down, or the pool was closed. Section held."""
        if self.expected:
            # mutant who-leaves-is-not-free
            self.deferred.append(functools.partial(self.run_expected))
        if not self.workers.threads:
            for parker in self.waiters.take_terminated():
                self.deferred.append(functools.partial(unpark, parker))
            if self.state:
                self.deferred.append(functools.partial(self.engine.ended))

    @repairing
    def breaks(self, why: str, slot: WorkerSlot | None = None) -> None:
        """No worker can run any more: what is queued fails, and so does each submit from now on.

        The worker that has found out, if one has, leaves.
        """
        with self.mutex:
            self.broken = why
            if slot is not None:
                self.leave(slot)
        self.close()
        ending.fail_queued(self, self.closed_error)

    @repairing
    def resize(self, max_workers: int | None = None, queue_size: int | None = UNSET) -> None:
        """Have another number of workers, or of tasks that may wait; exact from here on.

        What is queued stays, over the bound if need be; what runs goes on, and surplus workers leave
        after it. Submitters that have waited for a place get those that there are now.
        """
        if self.mutex._is_owned():
            self.deferred.append(functools.partial(self.resize, max_workers, queue_size))
            return
        with self.mutex:
            capacity, workers = self.capacity, self.workers
            if max_workers is not None:
                workers.resize(max_workers, self.engine.read_ahead(max_workers))
            if queue_size is UNSET:
                queue_size = capacity.queue_size
            capacity.resize(workers.size, queue_size)
            if workers.threads > workers.max_workers:
                self._wake_all()
            # mutant resize-frees-places
            self.place_freed()
            self.reserve_missing()
        self.run_deferred()

    def _rebuild(self) -> None:
        with self.mutex:
            running = self.workers.rebuild()
            queued = self.queue.rebuild()
            queued += sum([task._state is PENDING for task in self.queue.token_cancelled])
            if self.queue.shed:
                there = set(map(id, self.queue.tasks()))
                queued += sum(
                    [task._state is PENDING and id(task) not in there for task in self.queue.shed]
                )
                self.deferred.append(functools.partial(self._expire_shed))
            self.capacity.rebuild(queued + running)
            if self.limits is not None:
                tasks = [slot.task for slot in self.workers.slots]
                active = [task for task in tasks if task is not None and task._state is RUNNING]
                active += [
                    run.task
                    for run in self.overdue.values()
                    if run.holds_limit and run.task._state is not RUNNING
                ]
                self.limits.recount(active, self.queue.token_cancelled)
                self._count_held()
            if self.waiters.blocked:
                self.waiters.rebuild(self.queue.tasks())
            self.expiry.rebuild()
            self._wake_all()  # which wake-ups were lost is not known
            self._cancel_set_aside()
            self.place_freed()
            self.threads_changed()
            self.reserve_missing()

    # -- workers, for engines ------------------------------------------------------------------

    def _start_worker(self) -> None:
        """A worker that some section asked for; without any worker, fail what waits for one."""
        try:
            self.engine.start_worker()
        except Exception as raised:
            if not self.workers.listed:
                # Aside, as its callbacks are users' code.
                make_error = functools.partial(_same, raised)
                run_aside(functools.partial(ending.fail_queued, self, make_error))

    def start_reserved(self) -> None:
        """Start workers here rather than in `run_deferred`: without any, the submit is to fail."""
        while self.workers.reserved > 0:
            self.engine.start_worker()

    def enlist(self, slot: WorkerSlot, thread: Any) -> bool:
        """List a worker that was reserved; False if it is not wanted any more. Section held."""
        if not self.workers.use_reservation(slot):
            return False  # another thread has made it
        # It would find nothing to do, or the pool has become smaller meanwhile.
        if (self.state and not self.unfinished) or self.workers.threads > self.workers.room:
            self.workers.give_up_reservation()
            self.threads_changed()
            return False
        if self.meters.latency is not None:
            slot.fresh = []
        self.workers.add(slot, thread)
        if self.slow is not None:
            self.deferred.append(functools.partial(self.slow.arm))
        return True

    def not_started(self, slot: WorkerSlot) -> bool:
        """A worker that was reserved, perhaps listed, did not start. True if there are others."""
        with self.mutex:
            self.workers.forget(slot)
            self.threads_changed()
            return bool(self.workers.listed)

    def replace(self, slot: WorkerSlot, error: BaseException) -> None:
        """A worker is gone without having left: its task fails, and another worker is ordered.

        In `deferred`, so it does not run what is deferred, and may run twice.
        """
        if slot not in self.workers.listed:
            return
        self.complete_aside(slot, error)
        with self.mutex:
            self.leave(slot)
        self._rebuild()

    @repairing
    def reap_dead_workers(self) -> None:
        """See whether the workers live: called now and then by whoever waits for them."""
        self.engine.reap_dead_workers()
        if self.expected:
            self.run_expected()
            self.run_deferred()
        aside.ensure()

    def own_slot(self) -> WorkerSlot | None:
        """In a thread that runs one of this pool's tasks: the slot it runs under."""
        slot: WorkerSlot | None = _sync.here.slot
        return slot if slot is not None and slot.pool is self else None

    # -- for futures that are waited for -------------------------------------------------------

    help = helping.help_waiting
    run_awaited = helping.run_awaited
    run_expected = helping.run_expected
    sleep_idle = sizing.sleep_idle
    want = helping.want

    # -- observers ------------------------------------------------------------------------------

    @repairing
    def observe(self, observer: Any) -> None:
        """Tell `observer` of each task from here on, of those that run or wait, too."""
        from futurepool._pool.observing import Feed

        if self.mutex._is_owned():
            self.deferred.append(functools.partial(self.observe, observer))
            return
        with self.mutex:
            if self.feed is None:
                feed = Feed(self.name, self.deferred)
                for slot in self.workers.slots:
                    if slot.task is not None:
                        slot.task._own_subscribers().slow = True  # see futurepool._pool.observing
                self.queue = feed.queue(self.queue)
                self.feed = feed
            self.feed.observers = (*self.feed.observers, observer)

    @repairing
    def unobserve(self, observer: Any) -> bool:
        """Tell it what there is, and no more; False if it is told nothing."""
        self.settle_observers()
        with self.mutex:
            feed = self.feed
            if feed is None or not any(each is observer for each in feed.observers):
                return False
            feed.observers = tuple([each for each in feed.observers if each is not observer])
            if not feed.observers:
                self.queue = feed.unwrapped(self.queue)
                self.feed = None
        return True

    def settle_observers(self) -> None:
        """Wait until they have been told all there is, but not for long. Not in their own thread."""
        feed = self.feed
        if feed is not None:
            self.run_deferred()
            feed.settle()

    # -- what it is doing ----------------------------------------------------------------------

    @repairing
    def stats(self) -> Stats:
        """One consistent snapshot: what is derived here makes it add up whatever was counted."""
        if self.meters.latency is not None and not self.mutex._is_owned():
            for slot in list(self.workers.slots):
                if slot.fresh and len(slot.fresh) >= MUCH:
                    self.count_times(slot)  # what is counted here no worker has to count
        # mutant stats-are-one-section
        with self.mutex:
            capacity, slots = self.capacity, self.workers.slots
            active = sum([slot.task is not None and slot.task._state is RUNNING for slot in slots])
            submitted, unfinished = capacity.submitted, capacity.unfinished
            max_workers, queue_size = self.workers.size, capacity.queue_size
            waiting, state = self.waiters.count(), self.state
            workers, heads = len(self.workers.listed), self.queue.heads()
            abandoned = len(overdue.abandoned(self)) if self.overdue else 0
            meters = self.meters.copy(slots)
            noted = [slot.fresh.copy() for slot in slots if slot.fresh]
            views = [] if self.limits is None else self.limits.copies()
        meters.fill(noted)
        now = _sync.clock()
        since = min([task._queued_at for task in heads if task._state is PENDING], default=now)
        return self.snapshot(
            name=self.name,
            max_workers=max_workers,
            workers=workers,
            active_workers=active,
            queued_tasks=unfinished - active,
            queue_size=queue_size,
            submitted_tasks=submitted,
            cancelled_tasks=submitted - meters.completed - unfinished,
            waiting_submitters=waiting,
            oldest_queued=max(0.0, now - since),
            closed=state > RunState.RUNNING,
            views={view.name: view.snapshot() for view in views},
            abandoned_workers=abandoned,
            **meters.fields(now),
        )

    @repairing
    def running(self) -> list[tuple[AnyFuture, WorkerSlot, float]]:
        """What runs now: the task, where, since when."""
        with self.mutex:
            return [
                (slot.task, slot, slot.started)
                for slot in self.workers.slots
                if slot.task is not None
            ]

    def task_in(self, slot: WorkerSlot) -> AnyFuture | None:
        """What runs in a slot, also if its time is over. In its own thread, or section held."""
        task = slot.task
        if task is None:
            # The timer notes the one before it clears the other.
            try:
                task = self.overdue[slot].task
            except KeyError:
                pass
        return task

    @repairing
    def going_on(self) -> list[tuple[overdue.TimedRun, bool]]:
        """Functions that go on though their task has ended; and whether their thread is written off."""
        with self.mutex:
            gone = overdue.abandoned(self)
            return [(run, is_among(run, gone)) for run in self.overdue.values()]

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
            return self.unfinished - self.workers.active

    def closed_error(self) -> Exception:
        """What a submit to a pool that is closed raises."""
        if self.broken is not None:
            return BrokenThreadPool(self.broken)
        if Pool.exiting and not self.user_closed:
            return ExitRuntimeError()
        return PoolClosedError()

    def full_error(
        self, future: AnyFuture, waited: float = 0.0, kind: type[QueueFullError] = QueueFullError
    ) -> QueueFullError:
        """What a submit that finds no place raises. Section held, or the numbers are a guess."""
        tasks = [slot.task for slot in list(self.workers.slots)]
        running = len(tasks) - tasks.count(None)
        return kind(
            limit=self.capacity.limit,
            waited=waited,
            pool=self.name,
            task=future.name,
            running=running,
            queued=max(0, self.unfinished - running),
            queue_size=self.capacity.queue_size,
        )


def queue_maker(
    aging: float | None = None,
    order: str = "fifo",
    adaptive_wait: float = 0.0,
    sheds: bool = False,
) -> Callable[[], TaskQueue]:
    """What makes queues for `BoundedExecutor(aging=, order=, adaptive_wait=)`, with `OnFull.SHED` if it `sheds`.

    It imports nothing, as it is called in the child of a fork: without a GIL a thread that is not there may have the
    lock of `sys.modules`.
    """
    if sheds or order == "adaptive":
        # Late, as few programs have one.
        from futurepool._pool.timed_queues import AdaptiveQueue, SheddingQueue

        return SheddingQueue if sheds else functools.partial(AdaptiveQueue, adaptive_wait)
    if aging is not None:
        return functools.partial(AgingQueue, aging)
    return functools.partial(PriorityQueue, NewestLevel if order == "lifo" else Level)


def _same(error: BaseException) -> BaseException:
    return error
