"""One daemon thread for all deadlines of the process, however many there are.

`timer.schedule(when, target)` promises that `target._expire()` is called soon after `when`, in
the timer's thread, if the target is still alive then: it is held weakly. The thread is started when
first needed and sleeps until the next deadline. Only the thread that holds `_owned` touches
`_heap`; everybody else appends to `_inbox`, one C call, and opens `_gate` if need be. So scheduling
takes no lock and is safe from finalizers, signal handlers and any thread.

No wake-up is lost: the scheduler appends, then reads `_horizon`; the timer publishes `_horizon`,
then looks into the inbox, then sleeps no longer than the horizon. If the scheduler read the old
horizon, its append came before the timer's look; if it read the new one, it opens the gate for
whatever is due sooner. An entry leaves the inbox after it is in the heap, and the heap after it has
fired, so an exception in between repeats a step (expiring twice is expiring once) and loses none.

Memory: entries of dead or cancelled targets go when the dead outnumber the living in the heap. At
any time there are at most `BATCH` such entries, plus as many as there are living ones, plus those
that came in since the timer's thread last ran.
"""

from __future__ import annotations

import os
import sys
import weakref
from collections import deque
from heapq import heapify, heappop, heappush
from typing import Any, Protocol

from futurepool import _logs, _sync

__all__ = ["Target", "Timer", "timer"]

_log = _logs.log

BATCH = 1024
NEVER = float("inf")


class Target(Protocol):
    """What has a deadline."""

    def _expire(self) -> None:
        """The deadline has passed. May be called more than once."""
        ...

    def _settled(self) -> bool:
        """True if the deadline does not matter any more."""
        ...


class Timer:
    """Calls `_expire()` of targets when they are due. There is one per process, `timer`."""

    __slots__ = ("_dead", "_gate", "_heap", "_horizon", "_inbox", "_limit", "_owned", "_warned")

    def __init__(self) -> None:
        # The tie is broken by id, so that references are never compared.
        self._inbox: deque[tuple[float, int, weakref.ref[Any]]] = deque()
        self._warned = False
        self._reset()

    def _reset(self) -> None:
        self._heap: list[tuple[float, int, weakref.ref[Any]]] = []  # guarded by _owned
        self._dead: deque[Any] = deque()  # only its length matters
        self._limit = BATCH  # so many dead are worth a purge
        self._horizon = NEVER  # when the timer wakes up by itself
        self._owned = _sync.Lock()  # held by the timer's thread as long as it lives
        self._gate = _sync.Lock()  # closed, that is held, while there is nothing to do
        self._gate.acquire()

    # -- for any thread ----------------------------------------------------------------------

    def schedule(self, when: float, target: Target) -> None:
        """Let `target` expire at `when`, on `_sync.clock`.

        If no thread can be started for it, nothing is raised: the next call tries again.

        Thread safety: any thread, finalizer or signal handler.
        Cost: below a microsecond, and 250 bytes until due, dead or cancelled.
        """
        ref = weakref.ref(target, self._gone)
        self._inbox.append((when, id(ref), ref))
        self.ensure()
        # mutant sooner-deadline-wakes-the-timer
        if when < self._horizon or len(self._inbox) >= BATCH:
            self._wake()

    def ensure(self) -> None:
        """Start the timer's thread if there is none: never was, could not be, or lost by a fork."""
        if self._owned.locked():
            return
        _sync.refresh()
        owned = self._owned
        try:
            # Should two of them be started, the one that comes second ends at once.
            _sync.start(_sync.new_thread(self._run, owned, name="futurepool-timer", daemon=True))
        except (RuntimeError, MemoryError) as error:
            if not self._warned:
                self._warned = True
                _log.warning("no thread for deadlines, they take effect late: %s", str(error))
            if len(self._inbox) >= 2 * BATCH and owned.acquire(False):
                try:
                    self._tidy()
                finally:
                    owned.release()

    def _wake(self) -> None:
        gate = self._gate
        if gate.locked():
            try:
                gate.release()
            except RuntimeError:  # another was quicker
                pass

    def _gone(self, ref: object) -> None:
        """Note that a target has died. Called by the garbage collector, at any point."""
        dead = self._dead
        dead.append(ref)
        if len(dead) > self._limit:
            self._wake()

    # -- for the owner of the heap -----------------------------------------------------------

    def _run(self, owned: Any) -> None:
        if not owned.acquire(False):
            return
        try:
            while self._owned is owned:  # else a target forked, and this is the child
                self._turn(owned)
        finally:
            owned.release()

    def _turn(self, owned: Any) -> None:
        try:
            self._tidy()
            self._fire()
            if self._owned is owned:
                self._sleep()
        except BaseException:
            # Raised into this thread from outside, or out of memory: go on, though not in a rush.
            self._horizon = NEVER  # whoever comes opens the gate
            _log.exception("exception in the timer")
            self._gate.acquire(True, 0.1)

    def _tidy(self) -> None:
        """Take over what came in, and purge."""
        inbox = self._inbox
        while inbox:
            entry = inbox[0]
            if _pending(entry[2]):
                heappush(self._heap, entry)
            inbox.popleft()
        if len(self._dead) > self._limit:
            self._dead.clear()
            heap = [entry for entry in self._heap if _pending(entry[2])]
            heapify(heap)
            self._heap = heap
        self._limit = max(BATCH, len(self._heap) // 2)

    def _fire(self) -> None:
        heap = self._heap
        now = _sync.clock()
        while heap and heap[0][0] <= now:
            target = heap[0][2]()
            if target is not None:
                target._expire()
                del target  # before it is popped, so that nobody counts it as dead
            heappop(heap)

    def _sleep(self) -> None:
        heap = self._heap
        self._horizon = horizon = heap[0][0] if heap else NEVER
        # mutant inbox-is-looked-at-before-sleep
        if self._inbox:
            return
        if horizon == NEVER:
            self._gate.acquire()
        else:
            left = horizon - _sync.clock()
            self._gate.acquire(True, min(max(left, 0.0), _sync.TIMEOUT_MAX))

    def _replaced(self) -> None:
        """Other primitives are in use: those of a thread that does not run yet are made anew."""
        if not self._owned.locked():
            self._after_fork()

    def _after_fork(self) -> None:
        """In the child: no thread yet, but all deadlines, for whoever needs the timer next."""
        pending = [*self._heap, *self._inbox]
        self._inbox.clear()
        self._reset()
        self._inbox.extend(pending)


def _pending(ref: weakref.ref[Any]) -> bool:
    target = ref()
    return target is not None and not target._settled()


timer: Timer = Timer()
_sync.replaced.append(timer._replaced)

if sys.platform != "win32" and hasattr(
    os, "register_at_fork"
):  # pragma: no branch (not on Windows)
    os.register_at_fork(after_in_child=timer._after_fork)
