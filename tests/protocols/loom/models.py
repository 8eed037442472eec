"""Models of the primitives in `futurepool._sync` that threads wait at.

Each has the interface and the semantics of the real one, but waits in the scheduler instead of the
operating system, and gives it a switch point before each operation that other threads can see.
`get_ident` and `local` belong to one thread alone, so they need none. Outside a run (a finalizer
that comes late) they neither switch, nor block, nor complain.
"""

from __future__ import annotations

import queue
import sys
import threading
from collections import deque
from typing import Any

from . import scheduler
from .tasks import Gate

__all__ = ["Lock", "RLock", "SimpleQueue", "get_ident", "point", "wait"]

TIMEOUT_MAX = threading.TIMEOUT_MAX


def point(what: str, gate: Gate) -> None:
    """A point before an operation, unless the caller's CALL instruction was one just now."""
    run = scheduler.running()
    if run is None:
        return
    call = None if run.current is None else run.current.call
    if run.current is not None and call is not None:
        run.current.call = None
        frame = sys._getframe(2)
        if call[0] == id(frame) and call[1] <= frame.f_lasti < call[2]:
            return
    run.point(f"{what} {gate!r}" if run.trace is not None else "")


def wait(gate: Gate, timeout: float | None, what: str) -> bool:
    """Wait until the gate is open; False if the time ran out before."""
    run = scheduler.running()
    return True if run is None else run.block(gate, timeout, what)


def _check_timeout(blocking: bool, timeout: float) -> float | None:
    """The time-out to wait, None for ever, 0 not at all; complains as the real lock does."""
    if not blocking:
        if timeout != -1:
            raise ValueError("can't specify a timeout for a non-blocking call")
        return 0
    if timeout == -1:
        return None
    if not timeout >= 0:
        raise ValueError("timeout value must be a non-negative number")
    if timeout > TIMEOUT_MAX:
        raise OverflowError("timeout value is too large")
    return timeout


def get_ident() -> int:
    """1 + the index of the task, so it is the same in every replay; 0 outside every task."""
    run = scheduler.running()
    return 0 if run is None or run.current is None else run.current.index + 1


class Lock:
    """`_thread.lock`: not re-entrant, anybody may release it."""

    def __init__(self) -> None:
        self._gate = Gate("Lock", True)

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        gate = self._gate
        seconds = _check_timeout(blocking, timeout)
        if seconds == 0:
            point("try", gate)
            if not gate.open:
                return False
        elif not wait(gate, seconds, "acquire"):
            return False
        gate.shut()
        return True

    def release(self) -> None:
        point("release", self._gate)
        if self._gate.open and scheduler.running() is not None:
            raise RuntimeError("release unlocked lock")
        self._gate.set_open()

    def locked(self) -> bool:
        point("locked", self._gate)
        return not self._gate.open

    def _at_fork_reinit(self) -> None:
        self._gate.set_open()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *exc: object) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"<{'free' if self._gate.open else 'held'} {self._gate!r}>"


class RLock:
    """`_thread.RLock`, with what `threading.Condition` asks of it."""

    def __init__(self) -> None:
        self._gate = Gate("RLock", True)
        self._owner = 0
        self._count = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        seconds = _check_timeout(blocking, timeout)
        me = get_ident()
        if self._owner == me:  # nobody else can see a nested one
            self._count += 1
            return True
        if seconds == 0:
            point("try", self._gate)
            if not self._gate.open:
                return False
        elif not wait(self._gate, seconds, "acquire"):
            return False
        self._owner, self._count = me, 1
        self._gate.shut()
        return True

    def release(self) -> None:
        if self._owner != get_ident():
            raise RuntimeError("cannot release un-acquired lock")
        if self._count == 1:
            point("release", self._gate)
            self._owner = 0
            self._gate.set_open()
        self._count -= 1

    def locked(self) -> bool:
        point("locked", self._gate)
        return self._count > 0

    def _is_owned(self) -> bool:
        return self._count > 0 and self._owner == get_ident()

    def _release_save(self) -> tuple[int, int]:
        state = (self._count, self._owner)
        self._count = 1
        self.release()
        return state

    def _acquire_restore(self, state: tuple[int, int]) -> None:
        self.acquire()
        self._count, self._owner = state

    def _at_fork_reinit(self) -> None:
        self._owner = self._count = 0
        self._gate.set_open()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *exc: object) -> None:
        self.release()


class SimpleQueue:
    """`queue.SimpleQueue`: unbounded, first in first out."""

    def __init__(self) -> None:
        self._gate = Gate("SimpleQueue", False)
        self._items: deque[Any] = deque()

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        point("put", self._gate)
        self._items.append(item)
        self._gate.set_open()

    put_nowait = put

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        if timeout is not None and timeout < 0:
            raise ValueError("'timeout' must be a non-negative number")
        if not block or timeout == 0:
            point("get_nowait", self._gate)
            if not self._items:
                raise queue.Empty
        elif not wait(self._gate, timeout, "get") or not self._items:
            raise queue.Empty
        item = self._items.popleft()
        if not self._items:
            self._gate.shut()
        return item

    def get_nowait(self) -> Any:
        return self.get(False)

    def qsize(self) -> int:
        point("qsize", self._gate)
        return len(self._items)

    def empty(self) -> bool:
        return self.qsize() == 0
