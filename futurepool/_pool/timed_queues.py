"""Queues that look at how long tasks have waited. Imported with the first pool that has one.

`PriorityQueue` keeps the tasks. It stands behind methods here, so that the hot paths find no levels, as with
aging, and each take comes by. See the head of `futurepool._pool.task_queue` for what a `take` owes to interruptions.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Generic, TypeVar

from futurepool import _sync
from futurepool._future import PENDING, RUNNING, Future
from futurepool._pool.task_queue import (
    BOTTOM,
    Level,
    PriorityQueue,
    Taker,
    TaskQueue,
    is_token_cancelled,
)

__all__ = ["AdaptiveQueue", "QueueBefore", "SheddingQueue"]

AnyFuture = Future[Any]
Q = TypeVar("Q", bound=TaskQueue)


class QueueBefore(Generic[Q]):
    """A queue before another one, for a `take` of its own: everything goes through the methods."""

    __slots__ = ("inner", "levels", "shed", "token_cancelled", "top")

    def __init__(self, inner: Q) -> None:
        self.inner: Q = inner
        self.token_cancelled: list[AnyFuture] = inner.token_cancelled  # the same list
        self.shed: deque[AnyFuture] | tuple[()] = inner.shed  # likewise
        self.levels: dict[int, Level] = {}  # always empty
        self.top: Level = BOTTOM  # as is this one

    def push(self, future: AnyFuture) -> None:
        self.inner.push(future)

    def push_all(self, futures: list[AnyFuture]) -> None:
        self.inner.push_all(futures)

    def enlist(self, level: Level) -> None:
        raise AssertionError("there are no levels")

    def advance(self) -> Level:
        return self.top

    def following(self) -> AnyFuture | None:
        return self.inner.following()

    def victim(self) -> AnyFuture | None:
        return self.inner.victim()

    def note_tombstone(self, living: int) -> None:
        self.inner.note_tombstone(living)

    def rebuild(self) -> int:
        return self.inner.rebuild()

    def tasks(self) -> list[AnyFuture]:
        return self.inner.tasks()

    def heads(self) -> list[AnyFuture]:
        return self.inner.heads()

    def rows(self) -> list[Any]:
        return self.inner.rows()

    def arranged(self, rows: list[Any]) -> list[AnyFuture]:
        return self.inner.arranged(rows)


class AdaptiveQueue(QueueBefore[PriorityQueue]):
    """Within a priority oldest first, as long as that has not waited for too long; else newest first.

    Under overload the oldest never have waited less, so the newest go on to be taken first until there are
    so few tasks that the old ones have had their turn, too.
    """

    __slots__ = ("_wait",)

    def __init__(self, wait: float) -> None:
        super().__init__(PriorityQueue())
        self._wait = wait  # seconds

    def take(self, slot: Taker) -> AnyFuture | None:
        inner = self.inner
        while level := inner.advance():
            future = level[0]
            pop = level.popleft
            if future._state is PENDING and self._is_late(future):
                future = level[-1]
                pop = level.pop
            slot.task = future
            if future._state is PENDING:
                if not is_token_cancelled(future):
                    future._state = RUNNING
                    pop()
                    return future
                self.token_cancelled.append(future)
                inner.tombstones += 1
            slot.task = None
            pop()
            inner.tombstones -= 1
        return None

    def _is_late(self, future: AnyFuture) -> bool:
        return _sync.clock() - future._queued_at >= self._wait

    def following(self) -> AnyFuture | None:
        first = self.inner.following()
        if first is None or not self._is_late(first):
            return first
        # It is in front of the top level, so there is one that waits.
        return next(task for task in reversed(self.inner.top) if task._state is PENDING)

    def arranged(self, rows: list[Any]) -> list[AnyFuture]:
        arranged: list[tuple[int, list[AnyFuture]]] = []
        for rank, row in rows:
            living = [task for task in row if task._state is PENDING]
            if living and self._is_late(living[0]):
                living.reverse()
            arranged.append((rank, living))
        return self.inner.arranged(arranged)


_INTERVAL = 0.1  # seconds
_TARGET = 0.005  # seconds that a task may wait, at least now and then


class SheddingQueue(QueueBefore[PriorityQueue]):
    """Oldest first, but for those that have waited for too long while all have: CoDel.

    In each interval the shortest wait is noted. If that was longer than the target, there was a queue all the
    time, which is none of the bursts that a queue is there for. Then, in the next interval, what has waited for
    twice the target is set aside in `shed`, for the pool to let it expire. The first task of each
    interval is taken as it is. A queue that runs empty counts as no wait,
    unless what was left of it was set aside.
    """

    __slots__ = ("_end", "_least", "_overloaded", "_shed")

    def __init__(self) -> None:
        super().__init__(PriorityQueue())
        self._shed: deque[AnyFuture] = deque()
        self.shed: deque[AnyFuture] | tuple[()] = self._shed
        self._end: float = 0.0  # of the interval
        self._least: float = 0.0  # the shortest wait in it
        self._overloaded: bool = False  # in the one before

    def take(self, slot: Taker) -> AnyFuture | None:
        inner, sheds = self.inner, False
        while level := inner.advance():
            future = level[0]
            slot.task = future
            if future._state is PENDING:
                if is_token_cancelled(future):
                    self.token_cancelled.append(future)
                    inner.tombstones += 1
                elif self._is_late(future):
                    sheds = True
                    self._shed.append(future)  # as it expires it will be noted
                else:
                    future._state = RUNNING
                    level.popleft()
                    return future
            slot.task = None
            level.popleft()
            inner.tombstones -= 1
        if not sheds:
            self._least = 0.0
        return None

    def _is_late(self, future: AnyFuture) -> bool:
        """Whether it is not to be run. Notes how long it has waited."""
        now = _sync.clock()
        waited = now - future._queued_at
        if now >= self._end:
            self._overloaded = self._least > _TARGET
            self._least = waited
            self._end = now + _INTERVAL
            return False
        self._least = min(self._least, waited)
        return self._overloaded and waited > 2 * _TARGET


_sync.import_now(__name__)
