"""What a bounded queue does to others, and to itself."""

from __future__ import annotations

import threading
from concurrent import futures as cf
from typing import Any

from tests.faults.tools import PATIENCE, Subject, check, healthy, probe


@probe
def bounded_does_not_block_others(subject: Subject) -> None:
    """A full bounded queue blocks every other executor"""
    import queue

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
    thread.join(3)
    stuck = thread.is_alive()
    gate.set()
    filler.join(PATIENCE)
    check(not stuck, "the other executor is blocked")


@probe
def refused_submits(subject: Subject) -> None:
    """Submits that raise leak no place; a task that submits to its full pool goes on"""
    if subject.bounded:
        ex = subject.make()
    else:

        class Semaphored(cf.ThreadPoolExecutor):
            places = threading.BoundedSemaphore(4)

            def submit(self, *args: Any) -> Any:
                self.places.acquire()
                future = super().submit(*args)
                future.add_done_callback(lambda _: self.places.release())
                return future

        ex = Semaphored(2)
    for _ in range(10):
        try:
            ex.submit()
        except TypeError:
            pass
    if subject.bounded:
        healthy(subject, ex)

    def nest(depth: int) -> int:
        return depth and 1 + max(ex.submit(nest, depth - 1).result() for _ in range(2))

    check(ex.submit(nest, 4).result(20) == 4)
    ex.shutdown()
