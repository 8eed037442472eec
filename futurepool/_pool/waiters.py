"""Who waits for a place, and who waits for the end.

**For a place.** Those who wait stand in `blocked`, oldest first, and are served in the very sections in which
places come free: so while one waits no place is free, the bound holds, and no newcomer overtakes. What
stands there is a `BlockedSubmitter`, one thread; or, once at most, the pool's `WaitingCoroutines`.

A coroutine must not block its loop, so it does not stand among the blocked submitters itself: its
future lies in a heap, by priority (and age, if tasks age), then arrival. All of them together are one of the
waiters while anybody waits there, and take turns with the threads.

A future that was admitted (it has an id) or cancelled is a tombstone in that heap, dropped when it comes to the
front, or with others when there are many. One whose admission is interrupted is still here, so that
`rebuild` finds it.

**For the end.** `idle_waiters` are parkers of those who wait until no task is unfinished,
`termination_waiters` of those who wait until no thread is left.

Each task that ends asks whether anybody stands in `blocked` or `idle_waiters`, and nearly always nobody does. So it
asks `anyone` only: that is set before somebody comes to stand there, and taken back by `Pool.place_freed`, which
serves them, when it has left nobody. It may be True when all have gone, never False while one is there.

Guarded by the pool's mutex, all of it.
"""

from __future__ import annotations

import itertools
import weakref
from collections import deque
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Any

from futurepool._future import PENDING, Future
from futurepool._pool.section import unpark

__all__ = ["BlockedSubmitter", "Waiters", "WaitingCoroutines"]

AnyFuture = Future[Any]

_SWEEP = 64  # a shorter heap is not worth a sweep


class BlockedSubmitter:
    """A thread that waits for a place for its task: a `Vigil`, which makes it, and looks around meanwhile."""

    __slots__ = ("admitting", "future", "parker")

    future: AnyFuture
    # While its task is being queued; if it still is in another section, that was interrupted,
    # and a repair is on its way.
    admitting: bool
    parker: Any

    def tasks(self) -> list[AnyFuture]:
        """All that wait here."""
        return [self.future]

    def count(self) -> int:
        """How many wait here."""
        return 1

    def wake(self) -> None:
        """It has its place, or the pool is closed: let the submitter go on. In `deferred`."""
        unpark(self.parker)


class WaitingCoroutines:
    """The coroutines that wait, in the place of one `BlockedSubmitter`."""

    __slots__ = ("_aging", "_heap", "_numbers", "_sweep_at", "_turn_away", "admitting", "future")

    def __init__(
        self, aging: float | None, turn_away: weakref.WeakMethod[Callable[[], None]]
    ) -> None:
        self.future: AnyFuture | None = None  # no single one: `choose` says whose turn it is
        self.admitting: bool = False
        self._turn_away = turn_away  # weak, as the pool holds this
        # In nanoseconds, as whole numbers, which are exact for any priority.
        self._aging = None if aging is None else max(1, round(aging * 1e9))
        self._heap: list[tuple[int, int, AnyFuture]] = []  # (key, arrival, future)
        self._numbers: itertools.count[int] = itertools.count()
        self._sweep_at = _SWEEP

    def wake(self) -> None:
        """Nobody is left here, or the pool is closed. In `deferred`."""
        turn_away = self._turn_away()
        if turn_away is not None:
            turn_away()

    def push(self, future: AnyFuture) -> None:
        """Come last of those with the same key."""
        if len(self._heap) >= self._sweep_at:
            heap = [entry for entry in self._heap if _waits(entry[2])]
            heapify(heap)
            self._heap = heap
            self._sweep_at = max(_SWEEP, 2 * len(heap))
        key = -future.priority
        if self._aging is not None:
            key = round(future._queued_at * 1e9) + self._aging * key
        heappush(self._heap, (key, next(self._numbers), future))
        future._in_line = True

    def choose(self) -> AnyFuture | None:
        """The one to be admitted next; it leaves when this is asked for the next."""
        heap = self._heap
        while heap:
            future = heap[0][2]
            if _waits(future):
                return future
            heappop(heap)
        return None

    def more(self) -> bool:
        """Whether this is to be served again."""
        return self.choose() is not None

    def count(self) -> int:
        """How many wait."""
        return sum([_waits(entry[2]) for entry in self._heap])

    def tasks(self) -> list[AnyFuture]:
        """All that wait, and those whose admission was interrupted; tombstones among them."""
        return [entry[2] for entry in self._heap]


class Waiters:
    """Those of one pool."""

    __slots__ = ("anyone", "blocked", "coroutines", "idle_waiters", "termination_waiters")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Nobody waits."""
        self.blocked: deque[BlockedSubmitter | WaitingCoroutines] = deque()  # oldest first
        self.coroutines: WaitingCoroutines | None = None  # one of `blocked` while any waits
        self.idle_waiters: list[Any] = []
        self.termination_waiters: list[Any] = []
        self.anyone: bool = False  # in `blocked` or `idle_waiters`, see above

    def block(self, waiter: BlockedSubmitter | WaitingCoroutines) -> None:
        """Have it wait for a place, behind all others."""
        # mutant blocked-are-noted
        self.anyone = True
        self.blocked.append(waiter)

    def await_idle(self, parker: Any) -> None:
        """Have `parker` opened when no task is unfinished."""
        self.anyone = True
        self.idle_waiters.append(parker)

    def nobody(self) -> None:
        """All have gone from `blocked` and from `idle_waiters`."""
        self.anyone = False

    def push(
        self,
        future: AnyFuture,
        aging: float | None,
        turn_away: weakref.WeakMethod[Callable[[], None]],
    ) -> None:
        """Have the future of a coroutine wait; `turn_away` is told when nobody is left."""
        if self.coroutines is None:
            self.coroutines = WaitingCoroutines(aging, turn_away)
        self.coroutines.push(future)
        if self.coroutines not in self.blocked:
            self.block(self.coroutines)

    def discard(self, waiter: BlockedSubmitter) -> None:
        """It waits no longer."""
        if waiter in self.blocked:
            self.blocked.remove(waiter)

    def waiting_for(self, future: AnyFuture) -> list[Callable[[], None]]:
        """What wakes the submitters that wait with this very future."""
        return [waiter.wake for waiter in self.blocked if waiter.future is future]

    def tasks(self) -> list[AnyFuture]:
        """All that wait for a place."""
        return [future for waiter in self.blocked for future in waiter.tasks()]

    def count(self) -> int:
        """How many wait for a place, threads and coroutines."""
        return sum([waiter.count() for waiter in self.blocked])

    def take_terminated(self) -> list[Any]:
        """The parkers of all who wait for the last thread's end, which has come."""
        parkers, self.termination_waiters = self.termination_waiters, []
        return parkers

    def rebuild(self, queued: list[AnyFuture]) -> None:
        """After an interruption: what has its id but was not queued is not admitted."""
        there = set(map(id, queued))
        for waiter in self.blocked:
            for future in waiter.tasks():
                if future._state is PENDING and id(future) not in there:
                    future.task_id = 0
            waiter.admitting = False


def _waits(future: AnyFuture) -> bool:
    return future._state is PENDING and not future.task_id
