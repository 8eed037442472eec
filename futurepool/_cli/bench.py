"""`python -m futurepool bench`: this machine, this executor beside ThreadPoolExecutor.

The two take turns, seven times for each case; a speed-up is the median of the seven pairs, so that
whatever else the machine does meets both alike. In a turn a case is repeated, always with the same
pool, until the turn's time is over; a turn's figure is of all repetitions.

How many tasks a repetition has matters: ThreadPoolExecutor is slower when its backlog is long and
its submitters meet one another, which they do once each needs more than the interpreter's switch
interval. So the number is fixed, and smaller only if the turns are too short for it. In `benchmarks/`
stands the development version, with more cases, more rivals and a process for each.

Uses the public API only. Called by `_cli.main`, which also turns Ctrl-C into status 130. Past
400 lines because the command is to be read, and to run, without `benchmarks/`.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import itertools
import math
import os
import platform
import queue
import shutil
import signal
import statistics
import sys
import textwrap
import threading
import time
import tracemalloc
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, TextIO, cast

from typing_extensions import Self

import futurepool
from futurepool import BoundedExecutor

__all__ = ["add_arguments", "main"]

_TURNS = 7
_SHORT = 0.1  # seconds; a turn that is shorter says little
_PRODUCERS = 8
_COLUMNS = ("no-op tasks", "ThreadPoolExecutor", "BoundedExecutor", "gain")
_NARROW_COLUMNS = ("no-op tasks", "ThreadPool\nExecutor", "Bounded\nExecutor", "gain")
_RICH_WIDTH = 80  # columns that a table of rich may need
_HINT = 'A nicer table comes with the `cli` extra: in the checkout, pip install ".[cli]"'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `bench` understands to its parser."""
    parser.description = "Measure this executor beside ThreadPoolExecutor on this machine."
    parser.add_argument(
        "--seconds",
        metavar="S",
        type=_seconds,
        default=40.0,
        help="about how long it may take (%(default)g)",
    )


def main(args: argparse.Namespace) -> int:
    """Measure, and print a table on stdout, each row as soon as it is known.

    Returns:
        The exit status, 0. Raises KeyboardInterrupt after Ctrl-C.
    """
    seconds = _turn_seconds(args.seconds)
    micro = _micro()  # asked now, because rich puts a stream of its own in the place of stdout
    with _between_repetitions(), _table(_title()) as table:
        for case in _CASES:
            theirs, ours, factor = _compare(case, seconds)
            gain = f"x{factor:{'.2f' if factor < 0.1 else '.2g' if factor < 99 else '.0f'}}"
            row = [case.title, case.show(theirs), case.show(ours), gain]
            table.add([cell.replace("µ", micro) for cell in row])
    if seconds < _SHORT:
        _print(
            f"Turns of {seconds * 1000:.3g} ms say little; "
            f"for more, give --seconds {math.ceil(_SHORT / _turn_seconds(1))} or above."
        )
    return 0


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of seconds above 0, not {text!r}")
    return value


# -- the cases -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Case:
    """A thing to measure: `run` takes a pool and a number of tasks, and returns its figure."""

    title: str
    run: Callable[[Executor, int], float]
    workers: int
    queue_size: int | None = 1000
    tasks: int = 5_000  # in a repetition
    unit: str = ""  # none: tasks a second, of which more is better

    def show(self, value: float) -> str:
        if self.unit:
            return f"{value:,.0f} {self.unit}" if value >= 100 else f"{value:.3g} {self.unit}"
        return f"{value:,.0f}/s"

    def open(self, ours: bool) -> AbstractContextManager[Executor]:
        if ours:
            return BoundedExecutor(self.workers, queue_size=self.queue_size)
        return ThreadPoolExecutor(self.workers)


def _noop() -> None:
    pass


def _submit(pool: Executor, n: int) -> float:
    began = time.perf_counter()
    futures = [pool.submit(_noop) for _ in range(n)]
    for future in futures:
        future.result()
    return n / (time.perf_counter() - began)


def _map(pool: Executor, n: int, chunksize: int = 1) -> float:
    began = time.perf_counter()
    for _ in pool.map(abs, range(n), chunksize=chunksize):
        pass
    return n / (time.perf_counter() - began)


def _map_chunks(pool: Executor, n: int) -> float:
    return _map(pool, n, 64)


def _round_trip(pool: Executor, n: int) -> float:
    times: list[float] = []
    with _two_cores(pool):
        for _ in range(n):
            began = time.perf_counter()
            pool.submit(_noop).result()
            times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e6


def _cores() -> set[int]:
    """The cores this thread may use; none where the system does not tell."""
    try:
        return os.sched_getaffinity(0)
    except AttributeError:
        return set()


@contextlib.contextmanager
def _two_cores(pool: Executor) -> Generator[None, None, None]:
    """Keep this thread on one core and the pool's only worker on another, where that can be done.

    Left alone the system puts both on one or on two, as it pleases, and that makes more of a
    difference than any pool.
    """
    mine = _cores()
    if len(mine) < 2:
        yield
        return
    first, second, *_ = sorted(mine)
    try:
        os.sched_setaffinity(0, {first})
        pool.submit(os.sched_setaffinity, 0, {second}).result()
        yield
    finally:
        os.sched_setaffinity(0, mine)


def _produce(pool: Executor, n: int) -> float:
    """8 threads submit, and drop the results."""
    share = n // _PRODUCERS
    submit = pool.submit

    def producer() -> None:
        with contextlib.suppress(RuntimeError):  # Ctrl-C shut the pool down
            for _ in range(share):
                submit(_noop)

    # Ctrl-C ends the main thread's waiting; nothing is to wait for these then.
    threads = [threading.Thread(target=producer, daemon=True) for _ in range(_PRODUCERS)]
    ended: queue.SimpleQueue[None] = queue.SimpleQueue()
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # First in, first out: when these run, all the others have been taken.
    for _ in range(_PRODUCERS):
        submit(ended.put, None)
    for _ in range(_PRODUCERS):
        ended.get()
    return share * _PRODUCERS / (time.perf_counter() - began)


def _queued(pool: Executor, n: int) -> float:
    """Bytes for each task that waits behind one that runs."""
    gate: queue.SimpleQueue[None] = queue.SimpleQueue()
    running = pool.submit(gate.get)
    kept: list[object] = [None] * n  # made before: the list is not the pool's memory
    try:
        gc.collect()
        tracemalloc.start()
        for i in range(n):
            kept[i] = pool.submit(_noop)
        used = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
        gate.put(None)
    running.result()
    return used / n


_CASES: Sequence[_Case] = (
    *(_Case(f"submit/result, {n} worker{'s' * (n > 1)}", _submit, n) for n in (1, 4, 16)),
    _Case("map(abs, range(n))", _map, 4),
    _Case("the same, chunksize=64", _map_chunks, 4, tasks=20_000),
    _Case("8 producers, 8 workers", _produce, 8, queue_size=100),
    _Case("round trip, p50", _round_trip, 1, tasks=500, unit="µs"),
    _Case("memory per queued task", _queued, 1, queue_size=5_000, unit="bytes"),
)


# -- measuring -------------------------------------------------------------------------------------


def _turn_seconds(seconds: float) -> float:
    """How long a turn may take, when all may take so long."""
    return seconds / len(_CASES) / (2 * _TURNS + 2)  # two for finding the number of tasks


def _compare(case: _Case, seconds: float) -> tuple[float, float, float]:
    """Medians of theirs and ours, and how many times better ours is, in turns of so many seconds."""
    theirs: list[float] = []
    ours: list[float] = []
    with case.open(ours=False) as their_pool, case.open(ours=True) as our_pool:
        both = ((their_pool, theirs), (our_pool, ours))
        n, spent = case.tasks // 64, 0.0
        for pool, _ in both:
            _run(case, pool, n)  # starts the threads
        while n < case.tasks and spent < seconds:
            n = min(2 * n, case.tasks)
            began = time.perf_counter()
            for pool, _ in both:
                _run(case, pool, n)
            spent = time.perf_counter() - began
        for turn in range(_TURNS):
            for pool, figures in both if turn % 2 else both[::-1]:
                figures.append(_repeat(case, pool, n, seconds))
    pairs = zip(ours, theirs, strict=True)
    factors = [b / a for a, b in pairs] if case.unit else [a / b for a, b in pairs]
    return statistics.median(theirs), statistics.median(ours), statistics.median(factors)


def _repeat(case: _Case, pool: Executor, n: int, seconds: float) -> float:
    """A turn: the figure of as many repetitions as fit best, which is one at least."""
    gc.collect()
    figures: list[float] = []
    began = time.perf_counter()
    spent = 0.0
    # Another one, if more than half of it is likely to fit.
    while not figures or spent + spent / len(figures) / 2 < seconds:
        figures.append(_run(case, pool, n))
        spent = time.perf_counter() - began
    return statistics.median(figures) if case.unit else statistics.harmonic_mean(figures)


def _run(case: _Case, pool: Executor, n: int) -> float:
    if _interrupted:
        raise KeyboardInterrupt
    return case.run(pool, n)


@contextlib.contextmanager
def _between_repetitions() -> Generator[None, None, None]:
    """Let the first Ctrl-C end the repetition, a second at most, before it ends the rest.

    Interrupted at the wrong moment ThreadPoolExecutor keeps a semaphore for ever, or a finalizer
    swallows the interruption. A second Ctrl-C ends it at once.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield  # somebody has plans of their own, or it is ignored
        return
    _interrupted.clear()

    def note(_number: int, _frame: object) -> None:
        _interrupted.append(None)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    try:
        signal.signal(signal.SIGINT, note)
    except ValueError:  # not the main thread, where Ctrl-C does not arrive
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


_interrupted: list[None] = []


# -- the table -------------------------------------------------------------------------------------


class _Table(Protocol):
    """A context in which rows can be added."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...

    def add(self, row: Sequence[str]) -> None: ...


class _Plain:
    """The table where rich is missing, or what is written is kept or read by a program."""

    _WIDTHS = (27, 20, 18, 8)
    _NARROW = (11, 13, 8)  # the figures, under headings of two lines

    def __init__(self, title: str, hint: str = "") -> None:
        self._title = title
        self._hint = hint
        width = _width()
        self._widths = self._WIDTHS
        if width is not None and width < sum(self._WIDTHS):
            self._widths = (max(8, width - sum(self._NARROW)), *self._NARROW)

    def __enter__(self) -> Self:
        _print(self._title)
        self.add(_COLUMNS if self._widths is self._WIDTHS else _NARROW_COLUMNS)
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *_: object) -> None:
        if exc_type is None and self._hint:
            _print(self._hint, sys.stderr)

    def add(self, row: Sequence[str]) -> None:
        first, *others = [
            [line for part in text.split("\n") for line in textwrap.wrap(part, width - (i == 0))]
            for i, (text, width) in enumerate(zip(row, self._widths, strict=True))
        ]
        left, *widths = self._widths
        for cells in itertools.zip_longest(first, *others, fillvalue=""):
            figures = zip(cells[1:], widths, strict=True)
            line = cells[0].ljust(left) + "".join(text.rjust(width) for text, width in figures)
            _print(line.rstrip())


def _print(text: str, stream: TextIO | None = None) -> None:
    print(text, file=stream, flush=True)


def _micro() -> str:
    """The micro sign, or what stands for it where stdout cannot have it."""
    try:
        "µ".encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return "u"
    return "µ"


def _table(title: str) -> _Table:
    try:
        from futurepool._cli.rich_bench import LiveTable
    except ImportError:
        return _Plain(title, _HINT)
    width = _width()
    if width is None or width < _RICH_WIDTH or os.environ.get("TERM") in ("dumb", "unknown"):
        return _Plain(title)
    return LiveTable(title, _COLUMNS)


def _width() -> int | None:
    """Columns of the terminal on stdout; None if it is no terminal."""
    if sys.stdout is cast(object, None) or not sys.stdout.isatty():
        return None
    return shutil.get_terminal_size().columns


def _title() -> str:
    cores = len(_cores()) or os.cpu_count() or 1
    gil: Any = getattr(sys, "_is_gil_enabled", None)
    without = "" if gil is None or gil() else " without the GIL"
    return (
        f"futurepool {futurepool.__version__}, {platform.python_implementation()} "
        f"{platform.python_version()}{without}, {cores} core{'s' * (cores > 1)}; "
        f"medians of {_TURNS} turns"
    )
