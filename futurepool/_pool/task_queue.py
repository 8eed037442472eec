"""The queue: which task comes next, which one is dropped first.

Two queues with one interface, and more of them in `futurepool._pool.timed_queues`, which as
`observing.ObservedQueue` are a `QueueBefore` another one; `limits.LimitedQueue` stands before any. So a change of the
interface is one of `QueueBefore` and three classes. They hold futures; a future whose state is no longer PENDING is a
tombstone: cancelled, or run by a thread that waited for it. Tombstones are skipped when they reach the
front, and swept out together once there are more of them than of the living, so cancelling a
queued task costs O(1) and its memory is free soon after.

Everything here is called with the pool's mutex held. An exception may come between any two
steps (Ctrl-C, an asynchronous exception, a failing allocation), so each step leaves the queue
usable, if not complete: an interruption is followed by a `rebuild`, which rebuilds all of it. A task
is noted in the worker's slot and marked RUNNING before it leaves the queue, so it is always in one
of the two.
It is noted before its state is looked at: a `cancel` from a finalizer that runs between two steps
finds it noted and leaves it alone, or comes before, and is seen.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from heapq import heapify, heappop, heappush
from operator import itemgetter
from typing import Any, Protocol

from futurepool._future import PENDING, RUNNING, Future

AnyFuture = Future[Any]

_SWEEP = 64  # fewer tombstones than this are not worth a sweep
KEEP = 2048  # so many levels are kept, empty or not, for their next task


class Taker(Protocol):
    """What a claim writes to: whoever runs tasks has one."""

    task: AnyFuture | None


class TaskQueue(Protocol):
    """What admission and the workers need of a queue."""

    token_cancelled: list[AnyFuture]  # set aside by `take`, PENDING still

    @property
    def shed(self) -> deque[AnyFuture] | tuple[()]:
        """Set aside likewise, as they have waited for too long."""
        ...

    @property
    def levels(self) -> dict[int, Level]:
        """By priority; empty where everything is to go through the methods."""
        ...

    @property
    def top(self) -> Level:
        """What is due next is in front here, if anything is. As `levels`."""
        ...

    def push(self, future: AnyFuture) -> None:
        """Queue a PENDING future."""
        ...

    def enlist(self, level: Level) -> None:
        """A level of `levels` that was not in use has got a task."""
        ...

    def push_all(self, futures: list[AnyFuture]) -> None:
        """Queue PENDING futures, all of one priority."""
        ...

    def advance(self) -> Level:
        """Make the next level that has tasks the top one; an empty one if there is none."""
        ...

    def take(self, slot: Taker) -> AnyFuture | None:
        """Claim the task that is due next for `slot`, mark it RUNNING; None if there is none."""
        ...

    def victim(self) -> AnyFuture | None:
        """The task that has waited longest in the lowest priority. It stays queued."""
        ...

    def following(self) -> AnyFuture | None:
        """The task that is due next. It stays queued."""
        ...

    def note_tombstone(self, living: int) -> None:
        """A queued task is no longer PENDING; with more of these than of the `living`, drop them.

        Cost: O(1), on average.
        """
        ...

    def rebuild(self) -> int:
        """Drop the tombstones, mend what an interruption left half done; the number of tasks."""
        ...

    def tasks(self) -> list[AnyFuture]:
        """All queued tasks, in no particular order."""
        ...

    def heads(self) -> list[AnyFuture]:
        """Tasks among which is the one that has waited longest."""
        ...

    def rows(self) -> list[Any]:
        """What is queued, for `arranged`: a copy, as putting a million in order is for no section."""
        ...

    def arranged(self, rows: list[Any]) -> list[AnyFuture]:
        """The tasks in `rows`, in the order in which they are to start. Needs no mutex."""
        ...


class RankedQueue(TaskQueue, Protocol):
    """A queue whose order never changes: what `LimitedQueue` can stand before."""

    def rank(self, future: AnyFuture) -> tuple[int, int]:
        """Of two queued tasks that with the lower rank comes first."""
        ...


def is_token_cancelled(future: AnyFuture) -> bool:
    """Its token is cancelled, and about to cancel it, but has not come so far."""
    subscribers = future._subscribers
    return subscribers is not None and subscribers.token is not None and subscribers.token._marked()


class Level(deque[AnyFuture]):
    """The tasks of one priority, oldest first."""

    __slots__ = ("key", "next_lower")

    # None if it is neither in the stack nor on the heap, see `PriorityQueue`.
    next_lower: Level | None
    key: float  # the priority with its sign turned, an int, but for that of BOTTOM

    def by_age(self) -> Iterator[AnyFuture]:
        """Those that have waited longest come first."""
        return iter(self)


class NewestLevel(Level):
    """The same, newest first: whoever appends a task puts it in front.

    So the hot paths, which append at one end and take from the other, need not know of it. What fills a
    new one, as `rebuild` does, keeps the order.
    """

    __slots__ = ()

    append = deque[AnyFuture].appendleft
    extend = deque[AnyFuture].extendleft

    def by_age(self) -> Iterator[AnyFuture]:
        return reversed(self)


def _make_level(key: float, tasks: Iterable[AnyFuture] = (), kind: type[Level] = Level) -> Level:
    level = kind(tasks)
    level.key = key
    level.next_lower = None
    return level


#: What lies under each stack.
BOTTOM = _make_level(float("inf"))
BOTTOM.next_lower = BOTTOM


class PriorityQueue:
    """Highest priority first, within one oldest first, or newest first: a deque for each priority.

    The levels that are in use are in one of two places:

    - a stack, each on a lower one: `top`, then `top.next_lower`, down to BOTTOM;
    - a heap, by `key`, the priority with its sign turned, as a heap has the smallest in front.

    1. A level that comes to be used (`enlist`) goes on top of the stack if it is higher than what lies
       there, and on the heap if not. So `top` is always the highest of the stack.
    2. When the top one is empty (`advance`), the next is the higher of what was under it and what is in
       front of the heap. So it is the highest of all.
    3. A level that runs empty stays where it is until it is in the way.

    A level that is used for one task, as with many priorities, comes and goes in O(1) if it is ahead of
    the others, else in O(log levels). What is twice on the heap, or on it and in the stack, does no harm:
    when its turn comes once more, it is empty.

    `levels` and `top` are read, and their deques used, by the hot paths in `futurepool._pool.fast`.
    """

    __slots__ = ("_forget_at", "_heap", "_kind", "levels", "token_cancelled", "tombstones", "top")

    tombstones: int
    shed: deque[AnyFuture] | tuple[()] = ()  # of the class

    def __init__(self, kind: type[Level] = Level) -> None:
        self._kind = kind
        self.token_cancelled: list[AnyFuture] = []
        self.levels: dict[int, Level] = {}  # by priority
        self.top: Level = BOTTOM
        self._heap: list[int] = []
        self._forget_at = KEEP
        self.tombstones = 0  # a hint for when to sweep

    def push(self, future: AnyFuture) -> None:
        priority = future.priority
        # Not `get`: on a free-threaded 3.13 that takes 15 us in another thread than the dict's.
        try:
            level = self.levels[priority]
        except KeyError:
            if len(self.levels) >= self._forget_at:
                self._forget()
            level = self.levels[priority] = _make_level(-priority, (), self._kind)
        level.append(future)
        if level.next_lower is None:
            self.enlist(level)

    def enlist(self, level: Level) -> None:
        top = self.top
        key: Any = level.key
        if key < top.key:
            level.next_lower = top
            self.top = level
        else:
            heappush(self._heap, key)
            level.next_lower = BOTTOM

    def _forget(self) -> None:
        """Drop levels that are not in use. What is on the heap is always in `levels`."""
        levels = {
            priority: level
            for priority, level in self.levels.items()
            if level.next_lower is not None
        }
        heap = [key for key in self._heap if -key in levels]
        heapify(heap)
        self._heap = heap
        self.levels = levels
        self._forget_at = max(KEEP, 2 * len(levels))

    def push_all(self, futures: list[AnyFuture]) -> None:
        if futures:
            self.push(futures[0])
            self.levels[futures[0].priority].extend(futures[1:])

    def advance(self) -> Level:
        level = self.top
        heap = self._heap
        while not level:
            following: Any = level.next_lower  # which the top one always has
            if heap and heap[0] < following.key:
                risen = self.levels[-heap[0]]
                risen.next_lower = following
                self.top = risen
                if level is not risen:
                    level.next_lower = None
                level = risen
                heappop(heap)
            elif following is BOTTOM:
                if len(self.levels) > KEEP:
                    self._forget()
                return level  # the only one: it will soon be used again
            else:
                self.top = following
                level.next_lower = None
                level = following
        return level

    def rank(self, future: AnyFuture) -> tuple[int, int]:
        number = future.task_id
        return -future.priority, number if self._kind is Level else -number

    def take(self, slot: Taker) -> AnyFuture | None:
        while level := self.advance():
            future = level[0]
            slot.task = future
            if future._state is PENDING:
                if not is_token_cancelled(future):
                    future._state = RUNNING
                    level.popleft()
                    return future
                self.token_cancelled.append(future)
                self.tombstones += 1
            slot.task = None
            level.popleft()
            self.tombstones -= 1
        return None

    def following(self) -> AnyFuture | None:
        while level := self.advance():
            if level[0]._state is PENDING:
                return level[0]
            level.popleft()
            self.tombstones -= 1
        return None

    def victim(self) -> AnyFuture | None:
        for priority in sorted([priority for priority, level in self.levels.items() if level]):
            for future in self.levels[priority].by_age():
                if future._state is PENDING:
                    return future
        return None

    def note_tombstone(self, living: int) -> None:
        self.tombstones += 1
        if self.tombstones > max(living, _SWEEP):
            self.rebuild()

    def rebuild(self) -> int:
        count = 0
        levels: dict[int, Level] = {}
        for priority, old in self.levels.items():
            living = [task for task in old if task._state is PENDING]
            level = _make_level(-priority, living, self._kind)
            if level:
                level.next_lower = BOTTOM
                levels[priority] = level
                count += len(level)
        heap = sorted([-priority for priority in levels])
        # The heap may have entries only while there is a top level of its own; and the top level is always
        # one of `levels`, or BOTTOM: a task may be put there at once.
        self._heap = []
        self.top = BOTTOM
        self.levels = levels
        self.top = levels[-heap[0]] if heap else BOTTOM
        self._heap = heap[1:]
        self.tombstones = 0
        return count

    def tasks(self) -> list[AnyFuture]:
        return [
            future for level in self.levels.values() for future in level if future._state is PENDING
        ]

    def heads(self) -> list[AnyFuture]:
        """One for each level in use; it looks past the tombstones there, which workers soon drop."""
        living = (
            next((future for future in level.by_age() if future._state is PENDING), None)
            for level in self.levels.values()
            if level
        )
        return [future for future in living if future is not None]

    def rows(self) -> list[Any]:
        return [(rank, list(level)) for rank, level in self.levels.items() if level]

    def arranged(self, rows: list[Any]) -> list[AnyFuture]:
        rows.sort(key=itemgetter(0), reverse=True)
        return [future for _, row in rows for future in row if future._state is PENDING]


class AgingQueue:
    """A waiting task gains one level of priority every `aging` seconds.

    Two waiting tasks gain at the same pace, so their order never changes while they wait, and a
    plain heap does: the key is the time of admission less `aging` seconds for each level of
    priority, in whole nanoseconds, as priorities may be larger than a float can tell apart.
    O(log tasks), and O(tasks) to find a victim.
    """

    __slots__ = ("_aging", "_heap", "_latest", "levels", "token_cancelled", "tombstones", "top")

    tombstones: int
    shed: deque[AnyFuture] | tuple[()] = ()  # of the class

    def __init__(self, aging: float) -> None:
        self.token_cancelled: list[AnyFuture] = []
        self.levels: dict[int, Level] = {}  # always empty: everything goes through the methods
        self.top: Level = BOTTOM  # as is this one
        self._aging = max(1, round(aging * 1e9))
        self._latest = 0.0  # a submitter looks at the clock before it is admitted
        self._heap: list[tuple[int, int, AnyFuture]] = []
        self.tombstones = 0

    def push(self, future: AnyFuture) -> None:
        self._latest = admitted = max(self._latest, future._queued_at)
        key = round(admitted * 1e9) - self._aging * future.priority
        heappush(self._heap, (key, future.task_id, future))

    def enlist(self, level: Level) -> None:
        raise AssertionError("there are no levels")

    def push_all(self, futures: list[AnyFuture]) -> None:
        for future in futures:
            self.push(future)

    def advance(self) -> Level:
        return self.top

    def rank(self, future: AnyFuture) -> tuple[int, int]:
        return round(future._queued_at * 1e9) - self._aging * future.priority, future.task_id

    def take(self, slot: Taker) -> AnyFuture | None:
        heap = self._heap
        while heap:
            future = heap[0][2]
            slot.task = future
            if future._state is PENDING:
                if not is_token_cancelled(future):
                    future._state = RUNNING
                    heappop(heap)
                    return future
                self.token_cancelled.append(future)
                self.tombstones += 1
            slot.task = None
            heappop(heap)
            self.tombstones -= 1
        return None

    def following(self) -> AnyFuture | None:
        heap = self._heap
        while heap:
            if heap[0][2]._state is PENDING:
                return heap[0][2]
            heappop(heap)
            self.tombstones -= 1
        return None

    def victim(self) -> AnyFuture | None:
        return min(self.tasks(), key=lambda task: (task.priority, task.task_id), default=None)

    def note_tombstone(self, living: int) -> None:
        self.tombstones += 1
        if self.tombstones > max(living, _SWEEP):
            self.rebuild()

    def rebuild(self) -> int:
        heap = [entry for entry in self._heap if entry[2]._state is PENDING]
        heapify(heap)
        self._heap = heap
        self.tombstones = 0
        return len(heap)

    def tasks(self) -> list[AnyFuture]:
        return [future for _, _, future in self._heap if future._state is PENDING]

    def heads(self) -> list[AnyFuture]:
        return list(map(itemgetter(2), self._heap))  # a million in some milliseconds

    def rows(self) -> list[Any]:
        return self._heap.copy()

    def arranged(self, rows: list[Any]) -> list[AnyFuture]:
        rows.sort()
        return [future for _, _, future in rows if future._state is PENDING]
