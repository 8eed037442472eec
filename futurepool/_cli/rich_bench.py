"""The table of `python -m futurepool bench`, drawn with rich, on stdout.

On a terminal it grows row by row; it is drawn when a row comes and at no other time, because a
thread that refreshes it would be measured as well. Called by one thread.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.live import Live
from rich.table import Table
from typing_extensions import Self

__all__ = ["LiveTable"]


class LiveTable:
    """A context in which rows can be added.

    Args:
        title: Stands above the table.
        columns: Their headings; the first is of text, the others of numbers.
    """

    def __init__(self, title: str, columns: Sequence[str]) -> None:
        console = Console(highlight=False)
        console.print(title, soft_wrap=True)
        self._table = Table()
        for number, name in enumerate(columns):
            self._table.add_column(name, justify="right" if number else "left", no_wrap=True)
        self._live = Live(self._table, console=console, auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.start(refresh=True)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._live.stop()

    def add(self, row: Sequence[str]) -> None:
        """Add a row, and show it."""
        self._table.add_row(*row)
        self._live.refresh()
