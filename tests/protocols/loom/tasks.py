"""The pieces a run is made of: tasks, the gates they wait at, and how a run can get stuck."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import greenlet

if TYPE_CHECKING:
    from .scheduler import Scheduler

__all__ = ["Deadlock", "Gate", "Livelock", "Task", "name_of", "where"]

_HERE = str(Path(__file__).parent)
_THREADING = threading.__file__


class Deadlock(AssertionError):
    """Nothing can run, and at least one callable of the scenario has not ended."""


class Livelock(AssertionError):
    """More than `max_steps` points in one run."""


class Gate:
    """What a task may have to wait for. Waiting tasks are ready while it is open."""

    numbers: ClassVar[Counter[str]] = Counter()  # of this run; the scheduler clears it

    def __init__(self, label: str, is_open: bool) -> None:
        self.open = is_open
        self.waiters: list[Task] = []
        self.numbers[label] += 1
        self.label = f"{label}#{self.numbers[label]}"

    def set_open(self) -> None:
        """Let those who wait be chosen again."""
        self.open = True
        for task in self.waiters:
            task.run.wake(task)

    def shut(self) -> None:
        """Take those who wait (or are parked just before) out of the ready list."""
        self.open = False
        for task in self.waiters:
            task.run.unready(task)

    def __repr__(self) -> str:
        return self.label


class Task:
    """One modelled thread."""

    def __init__(self, run: Scheduler, fn: Callable[[], Any], name: str) -> None:
        self.run = run
        self.index = len(run.tasks)
        self.name = name
        self.glet = greenlet.greenlet(lambda: run.body(self, fn), run.hub)
        self.done = False
        self.gate: Gate | None = None  # what it waits for
        self.deadline: float | None = None
        self.timed_out = False
        self.locals: dict[Any, dict[str, Any]] = {}
        self.finished = Gate("join", False)
        self.call: tuple[int, int, int] | None = None  # the CALL it just stood at; see instrument

    def where(self) -> str:
        """`file:line` of the innermost frame that is not ours."""
        return where(self.glet.gr_frame)

    def __repr__(self) -> str:
        return f"T{self.index} {self.name}"


def name_of(fn: Any) -> str:
    """What to call a task that runs `fn`."""
    fn = getattr(fn, "func", fn)
    return getattr(fn, "__name__", type(fn).__name__).strip("<>")


def where(frame: Any) -> str:
    """`file:line` of the innermost frame that belongs neither to us nor to `threading`."""
    while frame is not None and (
        frame.f_code.co_filename.startswith(_HERE) or frame.f_code.co_filename == _THREADING
    ):
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}" if frame else "its start"
