"""What the command line draws with rich: a progress bar and a summary, both on stderr.

The bar asks for the statistics ten times a second, from rich's own thread, and costs the work
itself nothing. Called by the main thread; `print` also from others.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from typing_extensions import Self

from futurepool import Stats

__all__ = ["Display", "seconds"]


def seconds(value: float) -> str:
    """A duration in the unit that suits it.

    >>> seconds(0.00342)
    '3.42 ms'
    """
    for factor, unit in ((1, "s"), (1e3, "ms")):
        if value * factor >= 1:
            return f"{value * factor:.3g} {unit}" if value < 1000 else f"{value:.0f} s"
    return f"{value * 1e6:.3g} µs"


class _Bar(Progress):
    """A progress bar that reads its numbers whenever it is drawn."""

    def __init__(self, stats: Callable[[], Stats], total: int | None, console: Console) -> None:
        self._stats = stats
        super().__init__(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:.0f}/s, {task.fields[failed]} failed"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            # Results that go elsewhere must not be caught.
            redirect_stdout=sys.stdout.isatty(),
        )
        self._task = self.add_task("", total=total, rate=0.0, failed=0)

    def get_renderables(self) -> Iterable[RenderableType]:
        if self.task_ids:  # not while the base class is constructed
            now = self._stats()
            self.update(
                self._task,
                completed=now.completed_tasks,
                failed=now.failed_tasks,
                rate=now.completed_tasks / max(now.uptime, 1e-3),
            )
        yield from super().get_renderables()


class Display:
    """A context in which the bar is shown, if stderr is a terminal.

    Args:
        stats: Where the numbers come from.
        total: How many items there are; None if that is not known.
    """

    def __init__(self, stats: Callable[[], Stats], total: int | None) -> None:
        self._stats = stats
        self._console = Console(stderr=True, highlight=False)
        self.live: bool = self._console.file.isatty()
        self._bar = _Bar(stats, total, self._console) if self.live else None

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._bar is not None:
            with contextlib.suppress(OSError, ValueError):  # the terminal is gone
                self._bar.stop()

    def print(self, text: str) -> None:
        """Write a line above the bar, as it is."""
        self._console.out(text, highlight=False)

    def summary(self) -> None:
        """Write a table of the statistics."""
        stats = self._stats()
        table = Table(title="futurepool map", show_header=False, title_justify="left")
        table.add_column(style="bold")
        table.add_column(justify="right")
        rows = [
            ("completed", str(stats.completed_tasks)),
            ("failed", str(stats.failed_tasks)),
            ("cancelled", str(stats.cancelled_tasks)),
            ("still running", str(stats.active_workers)),
            ("workers", str(stats.max_workers)),
            ("elapsed", seconds(stats.uptime)),
            ("rate", f"{stats.completed_tasks / max(stats.uptime, 1e-9):.3g}/s"),
            ("mean run time", seconds(stats.average_latency)),
            ("mean wait", seconds(stats.average_wait)),
        ]
        if stats.latency is not None:
            rows += [
                ("run time p50", seconds(stats.latency.p50)),
                ("run time p99", seconds(stats.latency.p99)),
                ("longest run", seconds(stats.latency.max)),
            ]
        for name, value in rows:
            if name != "still running" or stats.active_workers:
                table.add_row(name, value)
        self._console.print(table)
