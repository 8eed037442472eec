"""How many tasks may be unfinished, and how many are.

Ids count up from 1. `submitted` is the last that was given out, `max_id` the last that may be: what lies
between them are the free places. So a submit compares the two and moves one, a task that ends moves the
other, and what is unfinished follows from them. In each section `max_id` is right; `rebuild` counts it
again after an interruption.

Guarded by the pool's mutex. Written here, and by the unrolled forms in `futurepool._pool.fast`.
"""

from __future__ import annotations

__all__ = ["UNBOUNDED", "Capacity"]

UNBOUNDED = 2**59  # tasks; more than memory holds


class Capacity:
    """The places of one pool."""

    __slots__ = ("limit", "max_id", "queue_size", "submitted")

    def __init__(self, max_workers: int, queue_size: int | None) -> None:
        self.queue_size: int | None = queue_size  # tasks that may wait; None: any number
        self.limit: int = UNBOUNDED if queue_size is None else max_workers + queue_size
        self.submitted: int = 0  # admitted; also the last task id
        self.max_id: int = self.limit

    @property
    def unfinished(self) -> int:
        """Tasks queued or running: what is not free of the `limit` places. Exact in a section."""
        return self.submitted + self.limit - self.max_id

    @property
    def full(self) -> bool:
        """Whether no place is free; some may be taken over the bound."""
        return self.submitted >= self.max_id

    def take(self) -> int:
        """Give out one place, over the bound if none is free; the id of the task that gets it."""
        self.submitted += 1
        return self.submitted

    def give(self) -> None:
        """A task has ended, or was cancelled: its place is free."""
        self.max_id += 1

    def resize(self, max_workers: int, queue_size: int | None) -> None:
        """Have another bound, from now on."""
        unfinished = self.unfinished
        self.queue_size = queue_size
        self.limit = UNBOUNDED if queue_size is None else max_workers + queue_size
        self.rebuild(unfinished)

    def rebuild(self, unfinished: int) -> None:
        """Have so many tasks hold a place."""
        self.max_id = self.submitted + self.limit - unfinished
