"""Tasks that run for too long: `options(run_timeout=, abandon=)`.

The function of such a task is a `TimedCall`. It has the timer look in time, calls what it stands for, and says when
that has ended. So nothing of this is on the way of a task without it. Who decides:

1. The call has ended first: in a section it notes `ended`. It returns or raises what the function did, and the worker
   commits that as ever. Whoever comes later finds `ended`, and does nothing.
2. The timer is first: in a section it finds the task RUNNING in its slot and not `ended`, notes `expired`, and commits
   a TaskTimeoutError (`Pool.commit`): RUNNING -> FINISHED. The slot has no task from here on, but an entry in
   `pool.overdue`. Then the task's token is cancelled, and all are told aside.
3. The call ends after that: it finds `expired`, and raises. It never returns: what a call returns is stored in the
   future without asking, and committed likewise. What it raises finds a slot without a task (`completion._complete`),
   where the entry is taken away, and is dropped.
4. Whoever is interrupted between two of these steps repeats them: the timer, or the end of the call.

Meanwhile the thread is not to be had. After its commit a slot counts as that of a worker that tells subscribers: it runs
nothing, yet cannot take a task (`Workers.notifying`). The next section says OVERDUE, which counts alike. A limit stays
taken. With `abandon` the limit is free with the commit, and that next section takes the slot off the list of workers, as
if it had left, so another worker may be started. When the function returns one day, the worker finds `slot.leave`, and its
thread ends.

How many are abandoned follows from `overdue` and the list of workers. There are at most `_MOST` times `max_workers`
of them at a time; what runs for too long beyond that keeps its worker.

Guarded by the pool's mutex, but for `told`, which only grows.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from futurepool import _sync
from futurepool._deadlines import timer
from futurepool._errors import TaskTimeoutError
from futurepool._errors.failures import Failure
from futurepool._foreign.aside import run as run_aside
from futurepool._future import RUNNING, Future
from futurepool._pool.completion import tell_outcome
from futurepool._pool.section import repairing
from futurepool._pool.summaries import Latest
from futurepool._pool.workers import Kind, WorkerSlot

if TYPE_CHECKING:
    from futurepool._pool.pool import Pool

__all__ = ["TimedCall", "TimedRun", "abandoned", "returned"]

AnyFuture = Future[Any]

#: So many threads for each worker may be written off at a time.
_MOST = 2


class TimedCall:
    """The function of a task with a `run_timeout`, which is in seconds."""

    __slots__ = ("_abandons", "_fn", "_limit")

    def __init__(self, fn: Callable[..., Any], limit: float, abandons: bool) -> None:
        self._fn = fn
        self._limit = limit
        self._abandons = abandons

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        slot: WorkerSlot | None = _sync.here.slot
        if slot is None or slot.task is None or slot.task._fn is not self:
            return self._fn(*args, **kwargs)  # somebody has drained the queue, and calls it
        run = TimedRun(slot, slot.task, self._limit, self._abandons)
        timer.schedule(slot.started + self._limit, run)
        try:
            result = self._fn(*args, **kwargs)
        except BaseException:
            _end(slot.pool, run)
            raise
        if _end(slot.pool, run):
            return result
        del result
        raise run.error()


class TimedRun:
    """One such call. The timer holds it weakly: it dies with the call."""

    __slots__ = (
        "__weakref__",
        "abandons",
        "ended",
        "expired",
        "failure",
        "goes",
        "holds_limit",
        "limit",
        "slot",
        "started",
        "task",
        "told",
    )

    def __init__(self, slot: WorkerSlot, task: AnyFuture, limit: float, abandons: bool) -> None:
        self.slot: WorkerSlot = slot
        self.task: AnyFuture = task
        self.limit: float = limit
        self.abandons: bool = abandons
        self.started: float = slot.started
        self.ended: bool = False  # the function has, in time
        self.expired: bool = False  # the other way to end
        self.told: bool = False  # everyone, of that
        self.goes: bool = False  # its thread is written off
        self.holds_limit: bool = False  # that of its view, though the task has ended
        self.failure: Failure | None = None

    def error(self) -> TaskTimeoutError:
        """What the task fails with."""
        return TaskTimeoutError(
            pool=self.slot.pool.name,
            task=self.task.name,
            task_id=self.task.task_id,
            run_timeout=self.limit,
        )

    def _settled(self) -> bool:
        return self.ended or self.told

    def _expire(self) -> None:
        """Its time is over. In the timer's thread."""
        _time_out(self.slot.pool, self)


@repairing
def _time_out(pool: Pool, run: TimedRun) -> None:
    """RUNNING -> FINISHED though the function goes on, and everyone told. Idempotent; outside of any section.

    Once a condition exists the step to FINISHED is made while holding it: see futurepool._future.
    """
    task = run.task
    if run.failure is None:
        failure = Failure(run.error(), task.task_id, task.name)
        failure.watch(pool.name)
        run.failure = failure
    while not run.ended and task._state is RUNNING and run.slot.task is task:
        subscribers = task._subscribers
        condition = None if subscribers is None else subscribers.condition
        if condition is None:
            with pool.mutex:
                subscribers = task._subscribers
                if subscribers is None or subscribers.condition is None:
                    _commit(pool, run, run.failure)
        else:
            with condition:
                with pool.mutex:
                    _commit(pool, run, run.failure)
                if task.done():
                    task._tell_waiters()
    if run.expired and not run.told:
        with pool.mutex:
            _set_aside(pool, run)
        pool.token_of(task).cancel_aside(f"it ran for longer than run_timeout={run.limit:g} s")
        task._announce()
        run_aside(functools.partial(_tell, pool, task, run.failure))
        run.told = True
    pool.run_deferred()


def _commit(pool: Pool, run: TimedRun, failure: Failure) -> None:
    """The task has ended, with this. Section held, and the future's condition, if any."""
    slot, task = run.slot, run.task
    # mutant ended-call-does-not-expire
    if run.ended or task._state is not RUNNING or slot.task is not task:
        return
    run.expired = True
    run.goes = run.abandons and _may_go(pool, slot)
    run.holds_limit = not run.goes and task._limit is not None
    pool.overdue[slot] = run  # first: `current_token` looks there for what the slot has no more
    pool.commit(slot, task, None, failure, Latest(failure), goes_on=run.holds_limit)


def _set_aside(pool: Pool, run: TimedRun) -> None:
    """Its worker is not to be had. Section held; idempotent."""
    slot = run.slot
    if slot not in pool.overdue or slot.kind == Kind.CALLER:
        return  # it has come back; or it is none
    slot.notifying = None
    _forget(run)
    pool.workers.begin_overdue(slot)
    if run.goes and slot in pool.workers.listed:
        slot.leave = True  # first: it is not to take a task once it is not listed
        # mutant abandoned-worker-makes-room
        pool.write_off(slot)
    pool.reserve_missing()


def _may_go(pool: Pool, slot: WorkerSlot) -> bool:
    """Whether the thread of this slot can be written off. Section held."""
    workers = pool.workers
    return (
        pool.engine.writes_off
        and slot in workers.listed
        and len(abandoned(pool)) < _MOST * workers.max_workers
    )


def _tell(pool: Pool, task: AnyFuture, failure: Failure) -> None:
    """In a thread aside: callbacks and handlers are users' code."""
    tell_outcome(pool, task)
    latest = failure.latest
    if latest is not None:
        latest.complete(failure)


@repairing
def _end(pool: Pool, run: TimedRun) -> bool:
    """The function has returned, or raised. True if that is the outcome; False: the task has expired."""
    with pool.mutex:
        # mutant expired-call-does-not-end
        if not run.expired:
            run.ended = True
            return True
    _time_out(pool, run)  # whoever has begun with it may have been interrupted
    return False


def returned(pool: Pool, slot: WorkerSlot) -> None:
    """A function that ran for too long has, if one has in this slot. Section held."""
    run = pool.overdue.pop(slot, None)
    if run is not None:
        _forget(run)
        if run.holds_limit:
            run.holds_limit = False
            pool.give_limit(slot, run.task)


def _forget(run: TimedRun) -> None:
    """Its slot has no task: the commit may have been interrupted before it said so. Section held."""
    if run.slot.task is run.task and run.task._state is not RUNNING:
        run.slot.task = None


def abandoned(pool: Pool) -> list[TimedRun]:
    """Those whose thread is written off, and has not ended. Section held."""
    listed = pool.workers.listed
    return [
        run
        for slot, run in pool.overdue.items()
        if slot.kind == Kind.THREAD and slot not in listed and not _sync.has_ended(slot.thread)
    ]
