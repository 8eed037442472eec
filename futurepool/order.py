"""The order of the queue: which task comes next, which one is dropped first.

Two orders with one interface. Both hold futures; a future whose state is no longer PENDING is a
husk: cancelled, or run by a thread that waited for it. Husks are skipped when they reach the
front, and swept out together once there are more of them than of the living, so cancelling a
queued task costs O(1) and its memory is free soon after.

Everything here is called with the core's mutex held. An exception may strike between any two
steps (Ctrl-C, an asynchronous exception, a failing allocation), so each step leaves the order
usable: a level is put on the heap before it is marked as listed, and unmarked before it is taken
off; an interruption is followed by a `recount`, which rebuilds all of it. A task is noted in the
worker's record and marked RUNNING before it leaves the queue, so it is always in one of the two.
It is noted before its state is looked at: a `cancel` from a finalizer that runs between two steps
finds it noted and leaves it alone, or comes before, and is seen.
"""

from __future__ import annotations

from collections import deque
from heapq import heapify, heappop, heappush
from typing import Any, Protocol

from futurepool.future import PENDING, RUNNING, Future

__all__: list[str] = []  # internal

AnyFuture = Future[Any]

_SWEEP = 64  # fewer husks than this are not worth a sweep
KEEP = 2048  # as many empty levels are kept for their next task


class Record(Protocol):
    """What a claim writes to: whoever runs tasks has one."""

    task: AnyFuture | None


class Order(Protocol):
    """What admission and the workers need of an order."""

    doomed: list[AnyFuture]  # taken off by `take`, PENDING still: their token was cancelled
    husks: int
    levels: dict[int, Level]
    top: Level  # what is due next is in front here, if anything is

    def push(self, future: AnyFuture) -> None:
        """Queue a PENDING future."""
        ...

    def enlist(self, level: Level, priority: int) -> None:
        """A level of `levels` that was empty and forgotten has got its first task."""
        ...

    def push_all(self, futures: list[AnyFuture]) -> None:
        """Queue PENDING futures, all of one priority."""
        ...

    def advance(self) -> Level:
        """Make the next level that has tasks the top one; an empty one if there is none."""
        ...

    def take(self, record: Record) -> AnyFuture | None:
        """Claim the task that is due next for `record`, mark it RUNNING; None if there is none."""
        ...

    def victim(self) -> AnyFuture | None:
        """The task that has waited longest in the lowest priority. It stays queued."""
        ...

    def sweep(self) -> None:
        """Drop the husks if they outnumber the living."""
        ...

    def recount(self) -> int:
        """Drop the husks, mend what an interruption left half done; the number of tasks."""
        ...

    def tasks(self) -> list[AnyFuture]:
        """All queued tasks, in no particular order."""
        ...


def is_doomed(future: AnyFuture) -> bool:
    """Its token is cancelled, and about to cancel it, but has not come so far."""
    watch = future._watch
    return watch is not None and watch.token is not None and watch.token._marked()


class Level(deque[AnyFuture]):
    """The tasks of one priority, oldest first."""

    __slots__ = ("listed",)

    listed: bool  # set by whoever makes one: an `__init__` would take longer than all the rest


class Levels:
    """Highest priority first, FIFO within one: a deque per priority, a heap of those in use.

    With few distinct priorities everything is O(1); with many, O(log levels). The heap has
    priorities with their sign turned, because a heap has the smallest in front. A level that runs
    empty stays listed until it is in the way.

    `levels` and `top` are read, and their deques used, by the hot paths of `futurepool.queue` and `futurepool.life`.
    """

    __slots__ = ("_heap", "doomed", "husks", "levels", "top")

    husks: int

    def __init__(self) -> None:
        self.doomed: list[AnyFuture] = []
        self.levels: dict[int, Level] = {}  # by priority
        self._heap: list[int] = []  # of the levels that are listed
        self.top: Level = Level()  # the first level of the heap
        self.husks = 0  # a hint for when to sweep

    def push(self, future: AnyFuture) -> None:
        priority = future.priority
        level = self.levels.get(priority)
        if level is None:
            level = Level()
            level.listed = False
            self.levels[priority] = level
        level.append(future)
        if not level.listed:
            self.enlist(level, priority)

    def enlist(self, level: Level, priority: int) -> None:
        heap = self._heap
        rank = -priority
        heappush(heap, rank)
        level.listed = True
        if heap[0] == rank:
            self.top = level

    def push_all(self, futures: list[AnyFuture]) -> None:
        if futures:
            self.push(futures[0])
            self.levels[futures[0].priority].extend(futures[1:])

    def advance(self) -> Level:
        heap = self._heap
        level = self.top
        while not level and len(heap) > 1:
            level.listed = False
            priority = heappop(heap)
            if len(self.levels) > KEEP:
                del self.levels[-priority]
            self.top = level = self.levels[-heap[0]]
        return level

    def take(self, record: Record) -> AnyFuture | None:
        while level := self.advance():
            future = level[0]
            record.task = future
            if future._state is PENDING:
                if not is_doomed(future):
                    future._state = RUNNING
                    level.popleft()
                    return future
                self.doomed.append(future)
            record.task = None
            level.popleft()
            self.husks -= 1
        return None

    def victim(self) -> AnyFuture | None:
        for rank in sorted(self._heap, reverse=True):
            for future in self.levels.get(-rank, ()):
                if future._state is PENDING:
                    return future
        return None

    def sweep(self) -> None:
        if self.husks > _SWEEP and self.husks * 2 > sum(map(len, self.levels.values())):
            self.recount()

    def recount(self) -> int:
        count = 0
        levels: dict[int, Level] = {}
        for priority, old in self.levels.items():
            level = Level([future for future in old if future._state is PENDING])
            level.listed = True
            if level:
                levels[priority] = level
                count += len(level)
        heap = [-priority for priority in levels]
        heapify(heap)
        self._heap = heap
        self.levels = levels
        self.top = levels[-heap[0]] if heap else Level()
        self.husks = 0
        return count

    def tasks(self) -> list[AnyFuture]:
        return [
            future for level in self.levels.values() for future in level if future._state is PENDING
        ]


class Aged:
    """A waiting task gains one level of priority every `aging` seconds.

    Two waiting tasks gain at the same pace, so their order never changes while they wait, and a
    plain heap does: the key is the time of admission less `aging` seconds for each level of
    priority, in whole nanoseconds, as priorities may be larger than a float can tell apart.
    O(log tasks), and O(tasks) to find a victim.
    """

    __slots__ = ("_aging", "_heap", "_latest", "doomed", "husks", "levels", "top")

    husks: int

    def __init__(self, aging: float) -> None:
        self.doomed: list[AnyFuture] = []
        self.levels: dict[int, Level] = {}  # always empty: everything goes through the methods
        self.top: Level = Level()  # as is this one
        self._aging = max(1, round(aging * 1e9))
        self._latest = 0.0  # a submitter looks at the clock before it is admitted
        self._heap: list[tuple[int, int, AnyFuture]] = []
        self.husks = 0

    def push(self, future: AnyFuture) -> None:
        self._latest = admitted = max(self._latest, future._queued_at)
        key = round(admitted * 1e9) - self._aging * future.priority
        heappush(self._heap, (key, future.task_id, future))

    def enlist(self, level: Level, priority: int) -> None:
        raise AssertionError("there are no levels")

    def push_all(self, futures: list[AnyFuture]) -> None:
        for future in futures:
            self.push(future)

    def advance(self) -> Level:
        return self.top

    def take(self, record: Record) -> AnyFuture | None:
        heap = self._heap
        while heap:
            future = heap[0][2]
            record.task = future
            if future._state is PENDING:
                if not is_doomed(future):
                    future._state = RUNNING
                    heappop(heap)
                    return future
                self.doomed.append(future)
            record.task = None
            heappop(heap)
            self.husks -= 1
        return None

    def victim(self) -> AnyFuture | None:
        return min(self.tasks(), key=lambda task: (task.priority, task.task_id), default=None)

    def sweep(self) -> None:
        if self.husks > _SWEEP and self.husks * 2 > len(self._heap):
            self.recount()

    def recount(self) -> int:
        heap = [entry for entry in self._heap if entry[2]._state is PENDING]
        heapify(heap)
        self._heap = heap
        self.husks = 0
        return len(heap)

    def tasks(self) -> list[AnyFuture]:
        return [future for _, _, future in self._heap if future._state is PENDING]


def make_order(aging: float | None) -> Order:
    """The order for `BoundedExecutor(aging=)`."""
    return Levels() if aging is None else Aged(aging)
