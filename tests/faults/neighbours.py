"""What a bounded queue does to others, and to itself."""

from __future__ import annotations

import queue
import threading
from concurrent import futures as cf
from typing import Any

from tests.faults.tools import (
    PATIENCE,
    SOON,
    Subject,
    check,
    healthy,
    probe,
)


@probe
def bounded_does_not_block_others(subject: Subject) -> None:
    """A full bounded queue (a `queue.Queue` swapped into ThreadPoolExecutor) and other executors"""
    ex, other = subject.make(1, 1), subject.make(1, 1)
    if not subject.bounded:
        ex._work_queue = queue.Queue(1)  # what people do
    gate = threading.Event()

    def fill() -> None:
        for _ in range(3):
            ex.submit(gate.wait, PATIENCE)

    filler = threading.Thread(target=fill, daemon=True)
    filler.start()
    filler.join(0.2)
    check(filler.is_alive(), "does not block")
    thread = threading.Thread(target=lambda: other.submit(int).result(), daemon=True)
    thread.start()
    thread.join(SOON)
    stuck = thread.is_alive()
    gate.set()
    filler.join(PATIENCE)
    check(not stuck, "every other executor is blocked")


class Semaphored(cf.ThreadPoolExecutor):
    """The usual recipe for a bounded ThreadPoolExecutor."""

    def __init__(self, workers: int) -> None:
        super().__init__(workers)
        self.places = threading.BoundedSemaphore(workers + 2)

    def submit(self, *args: Any) -> Any:
        if not self.places.acquire(timeout=SOON):
            raise AssertionError("places lost")
        future = super().submit(*args)
        future.add_done_callback(lambda _: self.places.release())
        return future


def _pool(subject: Subject) -> Any:
    return subject.make() if subject.bounded else Semaphored(2)


@probe
def refused_submits(subject: Subject) -> None:
    """Submits that raise (a semaphore around `submit` leaks a place each time)"""
    ex = _pool(subject)
    for _ in range(10):
        try:
            ex.submit()
        except TypeError:
            pass
    if subject.bounded:
        healthy(subject, ex)
    check(ex.submit(int).result(SOON) == 0)
    ex.shutdown()


@probe
def nested_submits(subject: Subject) -> None:
    """Tasks that submit to their own full pool (a semaphore around `submit` deadlocks)"""
    ex = _pool(subject)

    def nest(depth: int) -> int:
        return depth and 1 + max(ex.submit(nest, depth - 1).result() for _ in range(2))

    try:
        check(ex.submit(nest, 4).result(20) == 4)
    except cf.TimeoutError:
        raise AssertionError("deadlock") from None
    if subject.bounded:
        healthy(subject, ex)
    ex.shutdown()
