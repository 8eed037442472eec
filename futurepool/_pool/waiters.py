"""The line of coroutines that wait for a place.

A coroutine must not block its loop, so it does not stand among the blocked submitters itself: its
future lies in a heap, by priority (and age, if tasks age), then arrival. The line as a whole is one
of the waiters in `pool.blocked` while anybody stands in it, and takes turns with the threads there.
It is served in the very sections in which places come free, so the bound holds, and no newcomer
overtakes.

Guarded by the pool's mutex, all of it. A future that was admitted (it has an id) or cancelled is a
tombstone, dropped when it comes to the front, or with others when there are many. One whose admission
is interrupted is still here, so that a recount finds it.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Any

from futurepool._future import PENDING, Future

__all__: list[str] = []  # internal

AnyFuture = Future[Any]

_SWEEP = 64  # a shorter heap is not worth a sweep


class WaitingCoroutines:
    """Stands in the place of a futurepool._pool.core.BlockedSubmitter."""

    __slots__ = ("_aging", "_heap", "_numbers", "_sweep_at", "_turn_away", "admitting", "future")

    def __init__(
        self, aging: float | None, turn_away: weakref.WeakMethod[Callable[[], None]]
    ) -> None:
        self.future: AnyFuture | None = None  # no single one waits behind this
        self.admitting: bool = False
        self._turn_away = turn_away  # weak, as the pool holds this
        # In nanoseconds, as whole numbers, which are exact for any priority.
        self._aging = None if aging is None else max(1, round(aging * 1e9))
        self._heap: list[tuple[int, int, AnyFuture]] = []  # (key, arrival, future)
        self._numbers: itertools.count[int] = itertools.count()
        self._sweep_at = _SWEEP

    def open(self) -> None:
        """Nobody is left here, or the pool is closed."""
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

    def choose(self) -> AnyFuture | None:
        """The one to be admitted next; it leaves when the line is looked at after that."""
        heap = self._heap
        while heap:
            future = heap[0][2]
            if _waits(future):
                return future
            heappop(heap)
        return None

    def more(self) -> bool:
        """True while the line is to be served again."""
        return self.choose() is not None

    def count(self) -> int:
        """How many wait."""
        return sum([_waits(entry[2]) for entry in self._heap])

    def tasks(self) -> list[AnyFuture]:
        """All that wait, and those whose admission was interrupted; tombstones among them."""
        return [entry[2] for entry in self._heap]


def _waits(future: AnyFuture) -> bool:
    return future._state is PENDING and not future.task_id
