"""Waiting for a pool's end, and cutting short what is left of it. See `futurepool._executor.shutdown` for who does."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from futurepool import _sync
from futurepool._cancellation import CancelToken, Opener
from futurepool._foreign.aside import run as run_aside
from futurepool._future import Future
from futurepool._pool.section import repairing, unpark
from futurepool._pool.workers import WorkerSlot

if TYPE_CHECKING:
    from futurepool._pool.pool import Pool

__all__ = ["abandon", "cancel_queued", "fail_queued", "wait_empty", "wait_ended"]

AnyFuture = Future[Any]


def _unpark(parker: Any, _token: CancelToken) -> None:
    unpark(parker)


@repairing
def wait_empty(
    pool: Pool,
    timeout: float | None,
    token: CancelToken | None = None,
    ident: int | None = None,
) -> bool:
    """Wait until nothing is queued or running; False at the timeout or when `token` says so.

    With `ident`, of a thread that runs tasks of this pool: but for those, and the tasks that
    wait like this. There may be one worker more meanwhile, as this one is not to be had.
    """
    parker = _sync.Parker()
    listener = None if token is None else Opener(functools.partial(_unpark, parker))
    capacity, waiters = pool.capacity, pool.waiters
    if pool.deferred:
        pool.run_deferred()
    try:
        with pool.mutex:
            if not capacity.unfinished or pool.abandoned:
                return not capacity.unfinished
            waiters.await_idle(parker)
            if ident is not None:
                _make_way(pool, parker, ident)
        if pool.deferred:
            pool.run_deferred()
        if token is not None and listener is not None and not token._add_listener(listener):
            unpark(parker)
        _sync.sleep_at(parker, timeout, pool.reap_dead_workers)
    finally:
        with pool.mutex:
            pool.workers.stoppers.pop(parker, None)
            emptied = parker not in waiters.idle_waiters
            if not emptied:
                waiters.idle_waiters.remove(parker)
        if token is not None and listener is not None:
            token._discard_listener(listener)
    return emptied


def _make_way(pool: Pool, parker: Any, ident: int) -> None:
    """A task in the thread `ident` is about to wait at `parker` for the others. Section held."""
    own = [slot.ident == ident and slot.task is not None for slot in pool.workers.slots]
    pool.workers.stoppers[parker] = sum(own)
    pool.reserve_missing()
    pool.place_freed()


@repairing
def wait_ended(pool: Pool, timeout: float | None) -> bool:
    """Wait until a closed pool has no worker left, started or about to be."""
    parker = _sync.Parker()
    workers, waiters = pool.workers, pool.waiters
    with pool.mutex:
        if not workers.threads or pool.abandoned:
            return not workers.threads
        waiters.termination_waiters.append(parker)
    try:
        _sync.sleep_at(parker, timeout, pool.reap_dead_workers)
    finally:
        with pool.mutex:
            if parker in waiters.termination_waiters:
                waiters.termination_waiters.remove(parker)
    return not workers.threads


@repairing
def abandon(pool: Pool) -> None:
    """Let go whoever waits for the end: it will not be seen."""
    with pool.mutex:
        pool.abandoned = True
        for parker in [*pool.waiters.idle_waiters, *pool.waiters.termination_waiters]:
            pool.deferred.append(functools.partial(unpark, parker))
    pool.run_deferred()


@repairing
def cancel_queued(pool: Pool) -> Callable[[float], None]:
    """Cancel all that has not started. Callbacks are called aside.

    Returns:
        What waits for them, at most so many seconds.
    """
    told: _sync.SimpleQueue[None] = _sync.SimpleQueue()
    silent: list[AnyFuture] = []
    heard: list[AnyFuture] = []
    with pool.mutex:
        for future in pool.queue.tasks():
            subscribers = future._subscribers
            has_callbacks = subscribers is not None and subscribers.callbacks
            (heard if has_callbacks else silent).append(future)
            pool.cancel_pending(future, _sync.get_ident(), grant=False)
        pool.place_freed()
    pool.run_deferred()
    for future in heard:
        run_aside(functools.partial(_tell_and_note, future, told))
        pool.unnotified.pop(future, None)
    if silent:
        run_aside(functools.partial(_tell_and_note_all, silent, told))
        for future in silent:
            pool.unnotified.pop(future, None)
    return functools.partial(_wait_told, told, len(heard) + bool(silent))


@repairing
def fail_queued(pool: Pool, make_error: Callable[[], BaseException]) -> None:
    """Fail all that has not started: there is no worker, and there will be none."""
    with pool.mutex:
        futures = pool.queue.tasks()
    for future in futures:
        slot = WorkerSlot(pool)
        if pool.claim(slot, future, True):
            pool.complete(slot, None, make_error(), wrap=False)
    with pool.mutex:
        pool.queue.rebuild()  # no worker comes to drop what was queued


def _tell_and_note(future: AnyFuture, told: _sync.SimpleQueue[None]) -> None:
    future._tell()
    told.put(None)


def _tell_and_note_all(futures: list[AnyFuture], told: _sync.SimpleQueue[None]) -> None:
    while futures:
        futures[-1]._tell()
        futures.pop()
    told.put(None)


def _wait_told(told: _sync.SimpleQueue[None], number: int, timeout: float) -> None:
    end = _sync.clock() + timeout
    try:
        for _ in range(number):
            _sync.get_at(told, max(0.0, end - _sync.clock()), int)
    except _sync.Empty:
        pass
