"""The line of coroutines that wait for a place.

A coroutine must not block its loop, so it does not stand among the blocked submitters itself: its
future lies in a heap, by priority, then arrival, and a stand-in takes its turn there. Stand-ins are
served like threads, in order of arrival; each admits the best of the line. All of that happens in
the sections in which places come free, so the bound holds, and no newcomer overtakes.

There are at least as many stand-ins as futures that wait. One whose future was cancelled finds
another to admit, or none, and is gone.
"""

from __future__ import annotations

import itertools
from heapq import heappop, heappush
from typing import Any

from futurepool.core import Waiter
from futurepool.future import PENDING, Future

__all__: list[str] = []  # internal

AnyFuture = Future[Any]


class Line:
    """The coroutines of one pool that wait for a place. Guarded by the core's mutex."""

    __slots__ = ("heap", "numbers")

    def __init__(self) -> None:
        self.heap: list[tuple[int, int, AnyFuture]] = []  # (-priority, arrival, future)
        self.numbers: itertools.count[int] = itertools.count()

    def push(self, future: AnyFuture) -> None:
        """Let a coroutine's task wait."""
        heappush(self.heap, (-future.priority, next(self.numbers), future))

    def first(self) -> AnyFuture | None:
        """The one to be admitted next; it leaves when it is looked at again after that."""
        while self.heap:
            future = self.heap[0][2]
            if future._state is PENDING and not future.task_id:
                return future
            heappop(self.heap)
        return None


class StandIn(Waiter):
    """Stands among the blocked submitters for one of the line."""

    __slots__ = ("_core", "_line")

    def __init__(self, core: Any, line: Line) -> None:
        self.future: AnyFuture | None = None
        self.gate: Any = None
        self._core = core
        self._line = line

    def choose(self) -> AnyFuture | None:
        """Mutex held; a place is free."""
        return self._line.first()

    def open(self) -> None:
        """A place was handed out, or the pool closed: then nobody in the line gets one any more."""
        if self._core.state:
            while (future := self._line.first()) is not None:
                self._core.cancel(future)
