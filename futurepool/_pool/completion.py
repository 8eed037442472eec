"""A task has run: its outcome is committed, and everyone told.

Whoever waits is woken by `Future._announce`, which any thread may do. Done-callbacks, the error handler and what
only a `__str__` of a user's can say are users' code: the thread that has run the task does that, or, if it is
gone, a thread aside.
"""

from __future__ import annotations

import functools
import logging
from concurrent import futures as cf
from typing import TYPE_CHECKING, Any

from futurepool import _logs, _sync
from futurepool._errors import is_a
from futurepool._errors.failures import Failure, failure_of
from futurepool._foreign.aside import run as run_aside
from futurepool._future import RUNNING, Future, traceback_slot
from futurepool._pool.summaries import Latest

if TYPE_CHECKING:
    from futurepool._pool.pool import Pool
    from futurepool._pool.workers import WorkerSlot

__all__ = ["complete", "complete_aside", "take_back", "tell_outcome"]

AnyFuture = Future[Any]


def take_back(pool: Pool, slot: WorkerSlot, task: AnyFuture, by: int | None) -> None:
    """RUNNING -> CANCELLED: the engine had not begun with it, and gave it back. Idempotent. Section held.

    `by` as in `Pool.cancel_pending`. The slot has no task from here on; it comes back as after any other.
    """
    if slot.task is not task or task._state is not RUNNING:
        if slot.task is task and task.cancelled():  # who did this before was interrupted
            slot.task = None
        return
    pool.mark_cancelled(task, by)
    slot.task = None
    pool.capacity.give()
    pool.meters.count_row(slot, slot.started)  # of what it has run before
    if pool.feed is not None:
        pool.feed.taken_back(task, slot)
    if pool.limits is not None and task._limit is not None:
        pool.free_limit_unused(pool.limits, task)
    pool.place_freed()


def complete(
    pool: Pool, slot: WorkerSlot, result: Any, error: BaseException | None, wrap: bool = True
) -> None:
    """Commit what `slot` has run, and tell everyone; the whole of it, for any slot."""
    _complete(pool, slot, result, error, wrap)
    pool.run_deferred()


def complete_aside(pool: Pool, slot: WorkerSlot, error: BaseException) -> None:
    """What a section may leave to be done for a task whose thread is gone."""
    _complete(pool, slot, None, error, aside=True)


def _complete(
    pool: Pool,
    slot: WorkerSlot,
    result: Any,
    error: BaseException | None,
    wrap: bool = True,
    aside: bool = False,
) -> None:
    """`complete`, as something deferred. Idempotent.

    `aside`: by whoever comes by, so what is users' to hear is told in another thread.
    """
    task = slot.task or slot.notifying
    if pool.overdue:
        pool.function_ended(slot)
    if task is None:  # its time was over; or we are in the child of a fork, or this was done before
        return
    failure = latest = None
    if error is not None and task._state is RUNNING:
        failure = _wrap(pool, task, error) if wrap else Failure(error, task.task_id, task.name)
        latest = Latest(failure)
    while task._state is RUNNING:
        subscribers = task._subscribers
        condition = None if subscribers is None else subscribers.condition
        if condition is None:
            with pool.mutex:
                subscribers = task._subscribers
                # Two threads may do what a section has left to be done.
                if task._state is RUNNING and (
                    subscribers is None or subscribers.condition is None
                ):
                    pool.commit(slot, task, result, failure, latest)
        else:
            # The order of locks is condition, then mutex: see futurepool._future.
            with condition:
                with pool.mutex:
                    if task._state is RUNNING:
                        pool.commit(slot, task, result, failure, latest)
                task._tell_waiters()
    if aside:
        task._announce()
        run_aside(functools.partial(tell_outcome, pool, task))
        if latest is not None and failure is not None:
            run_aside(functools.partial(latest.complete, failure))
    else:
        # First whoever has got this task's place: its submit may have been called under a lock
        # that the callbacks take.
        if pool.deferred:
            pool.run_deferred()
        tell_outcome(pool, task)
        if latest is not None and failure is not None:
            latest.complete(failure)
    slot.notifying = None


def tell_outcome(pool: Pool, task: AnyFuture) -> None:
    """Tell everyone of a task that has run. Idempotent."""
    # mutant outcome-is-told
    task._tell()
    if task._failure is not None:
        unheard = vars(task).pop("_failure", None)  # by one of them
        if unheard is not None:
            _handle(pool, unheard)


def _wrap(pool: Pool, task: AnyFuture, error: BaseException) -> Failure:
    """What a task raised, as its future keeps it."""
    failure = failure_of(error, task.task_id, task.name)
    # The first frame is ours: it would keep alive what this worker does later. (Without a GIL
    # another worker may be raising the same object. CPython 3.13 takes no lock for its
    # traceback: it survives that as long as nobody cuts it, and only then.)
    if not _sync.free_threaded:
        traceback_slot.__set__(error, failure.frames)
    # A running task that obeys its token is none to hear of.
    if pool.error_handler is not None or not is_a(error, cf.CancelledError):
        failure.watch(pool.name)
    return failure


def _handle(pool: Pool, failure: Failure) -> None:
    if pool.error_handler is not None:
        try:
            pool.error_handler(failure.task_error())
        except BaseException as error:
            _logs.desk.later(
                functools.partial(
                    _logs.emit,
                    logging.ERROR,
                    "error_handler of the pool %r raised for task %d (%s)",
                    *(pool.name, failure.task_id, failure.task_name),
                    exc_info=(type(error), error, traceback_slot.__get__(error)),
                    pool=pool.name,
                    task_id=failure.task_id,
                    task_name=failure.task_name,
                )
            )
