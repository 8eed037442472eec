"""How many workers there are: some ahead of the work, and none that idle for long.

Both are off unless asked for. A pool without an `idle_timeout` never comes here: its workers sleep until
they are woken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from futurepool._pool.section import repairing
from futurepool._pool.workers import BUSY, WorkerSlot

if TYPE_CHECKING:
    from futurepool._pool.pool import Pool

__all__ = ["prestart", "sleep_idle"]


@repairing
def prestart(pool: Pool, number: int) -> int:
    """Have at least so many workers, as far as there may be; returns how many there are then.

    Raises:
        PoolClosedError: The pool is closed, or broken.
        RuntimeError: The system has no thread for even one.
    """
    workers = pool.workers
    with pool.mutex:
        closed = pool.closed_error() if pool.state else None
        if closed is None:
            while workers.threads < number and workers.reserve():
                pass
    if closed is not None:
        raise closed
    pool.start_reserved()
    pool.run_deferred()
    return workers.threads


def sleep_idle(pool: Pool, slot: WorkerSlot) -> None:
    """Sleep at its parker, as a worker that has found nothing queued; it may leave (`slot.leave`).

    A worker that must stay, as there are only `min_workers`, sleeps on without looking again. More
    workers are only started when all that sleep have been woken, and then this one has a
    time limit again when it next sleeps. So nobody looks in vain, and none idles for longer but those.
    """
    while not slot.parker.acquire(True, pool.idle_timeout):
        stays = _end_idle(pool, slot)
        if slot.leave:
            return
        if stays:
            slot.parker.acquire()
            return


@repairing
def _end_idle(pool: Pool, slot: WorkerSlot) -> bool:
    """The worker has slept for long: it leaves, unless it is needed. True if it is to sleep on."""
    workers = pool.workers
    with pool.mutex:
        if slot not in workers.parked:
            return True  # a wake-up is on its way
        if workers.threads <= pool.min_workers and not pool.state:
            return True
        # With more queued than are awake, whoever is being woken will wake this one next. In a pool that is
        # closed it stays for what waits for its limit.
        if not workers.held if pool.state else workers.missing(pool.unfinished) < 0:
            # mutant idle-end-unlists-the-worker
            workers.parked.remove(slot)
            slot.status = BUSY
            pool.leave(slot)
    pool.run_deferred()
    return False
