"""The progress line: what is done, how fast, how long it will take, and what holds it up.

One line of at most the terminal's width, drawn with rich; rich is imported when the line is first
shown, half a second after the start, as short runs need none. Called by the main thread.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import Any, NamedTuple, cast

__all__ = ["Progress", "State", "duration", "escape", "number", "rate", "seconds", "shorten"]

LITTLE = 1.0  # seconds without a result, after which the line says what runs


def seconds(value: float) -> str:
    """A measured time in the unit that suits it.

    >>> seconds(0.00342)
    '3.42 ms'
    """
    for factor, unit in ((1, "s"), (1e3, "ms")):
        if value * factor >= 1:
            return f"{value * factor:.3g} {unit}" if value < 1000 else f"{value:.0f} s"
    return f"{value * 1e6:.3g} µs"


def duration(value: float) -> str:
    """A time that passes, as clocks show it.

    >>> duration(75)
    '1:15'
    """
    minutes, secs = divmod(int(value), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 100:
        return f"{hours // 24} days"
    return f"{hours}:{minutes:02}:{secs:02}" if hours else f"{minutes}:{secs:02}"


def number(value: int) -> str:
    """A count.

    >>> number(19400)
    '19,400'
    """
    return f"{value:,}"


def rate(value: float) -> str:
    """Items a second, or a minute where that says more.

    >>> rate(0.05)
    '3/min'
    """
    if value >= 99.5:
        return f"{value:,.0f}/s"
    return f"{value:.2g}/s" if value >= 0.095 else f"{value * 60:.2g}/min"


class State(NamedTuple):
    """What the line shows."""

    done: int
    failed: int
    total: int | None
    running: list[tuple[float, str]]
    idle: float  # seconds since the last result
    note: str = ""  # said instead of what runs


class Progress:
    """Makes the line.

    Args:
        began: When the first item was there, on the clock that `line` is told the time by.
    """

    def __init__(self, began: float) -> None:
        self._began = began
        self._marks: list[tuple[float, int]] = [(began, 0)]  # (time, done), for the rate

    @staticmethod
    def possible() -> bool:
        """Whether standard error is a terminal that can show it, and rich is there."""
        stderr: Any = sys.stderr
        if stderr is None or not stderr.isatty() or os.environ.get("TERM") in ("dumb", "unknown"):
            return False
        if "rich" in sys.modules:
            return cast(object, sys.modules["rich"]) is not None  # None bars the import
        return importlib.util.find_spec("rich") is not None

    def per_second(self, now: float, done: int) -> float:
        """Results a second, over the last 15 seconds or so."""
        marks = self._marks
        if now - marks[-1][0] >= 1.0:
            marks.append((now, done))
            del marks[:-16]
        since, before = marks[0]
        return (done - before) / max(now - since, 1e-3)

    def line(self, now: float, state: State, columns: int) -> str:
        """The line for this moment, with the terminal's escape codes."""
        from rich.cells import cell_len
        from rich.console import Console
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        width = max(columns - 1, 10)  # the last column would move the cursor to the next line
        text = self.text(now, state, width)
        room = width - cell_len(text) - 1
        cells: list[Any] = [Text(text, no_wrap=True, overflow="ellipsis")]
        if state.total and room >= 8 and not self._says_more(state):
            bar = ProgressBar(state.total, min(state.done, state.total), min(room, 40))
            cells.insert(0, bar)
        grid = Table.grid(padding=(0, 1))
        for _ in cells:
            grid.add_column(no_wrap=True)
        grid.add_row(*cells)
        console = Console(force_terminal=True, width=width, highlight=False)
        with console.capture() as capture:
            console.print(grid, end="")
        return str(capture.get()).split("\n", 1)[0].rstrip(" ")

    @staticmethod
    def _says_more(state: State) -> bool:
        return bool(state.note) or (state.idle >= LITTLE and bool(state.running))

    def text(self, now: float, state: State, width: int) -> str:
        """The words of the line: the most important ones, as many as there is room for."""
        speed = self.per_second(now, state.done)
        head = number(state.done)
        if state.total is not None:
            head += f"/{number(state.total)}"
        parts = [head]
        if state.failed:
            parts.append(f"{number(state.failed)} failed")
        optional = [rate(speed)] if speed else []
        if state.total is not None and speed and state.done < state.total:
            left = (state.total - state.done) / speed
            if state.idle < max(left, LITTLE):  # or it has been wrong already
                optional.append(f"{duration(left)} left")
        elif state.total is None:
            optional.append(duration(now - self._began))
        if self._says_more(state):
            used = sum(len(part) + 2 for part in parts)
            more = state.note or self._runs(state, width - used)
            for extra in reversed(optional):
                if used + len(extra) + 2 + min(len(more), 30) <= width:
                    parts.insert(1 + bool(state.failed), extra)
                    used += len(extra) + 2
            parts.append(more)
        else:
            for extra in reversed(optional):
                if sum(len(part) + 2 for part in [*parts, extra]) - 2 <= width:
                    parts.insert(1 + bool(state.failed), extra)
        return "  ".join(parts)

    @staticmethod
    def _runs(state: State, room: int) -> str:
        """What runs and for how long, the longest first."""
        age, item = state.running[0]
        rest = len(state.running) - 1
        more = f" and {rest} more" if rest else ""
        since = f" for {duration(age)}"
        text = f"{shorten(item, max(6, room - len(since)))}{since}"
        return f"{text}{more}" if len(text) + len(more) <= room else text


def shorten(item: str, width: int) -> str:
    """An item in a message: printable, and not longer than this."""
    text = escape(item)
    return text if len(text) <= width else f"{text[: max(width - 1, 1)]}…"


def escape(text: str) -> str:
    """Escape what would move the cursor or end the line."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
