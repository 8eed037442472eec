"""What it costs a busy pool to be looked at: `python benchmarks/seeing.py`.

A pool of four workers is kept busy with no-ops, submitted a thousand at a time, so that one core is in use all
the time; in half of the windows somebody looks:

    scrapes      a hundred scrapes a second: what `prometheus_client` makes of the pool, as the text that it
                 would send; without histograms, and with them (`enable_metrics=True`)
    top          `python -m futurepool top`, twice a second, in a process of its own
    observer     one observer that counts what it hears of each task

Windows come in pairs, one with and one without, in changing order, so that whatever else the machine does meets both
alike; a ratio is the median of the pairs' ratios. One per cent is less than what two windows differ by, here and
there, for no reason; so what a look takes of the processor's time is measured as well, in the thread that looks, and
from that and the looks a second comes the share that the pool loses.

    python benchmarks/seeing.py                           some three minutes
    python benchmarks/seeing.py --pairs 3 scrapes         a first look
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import platform
import random
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cases

import futurepool
from futurepool import BoundedExecutor, Observer, TaskEvent

WORKERS = 4
AT_ONCE = 1000  # tasks
SCRAPES = 100.0  # a second
LOOKS = 2.0  # a second, by `top`


class Looks:
    """How often somebody has looked, and what it took."""

    def __init__(self) -> None:
        self.count = 0
        self.spent = 0.0  # seconds of the processor's time


def busy(pool: BoundedExecutor, seconds: float) -> float:
    """Tasks a second."""
    submit, noop = pool.submit, cases.noop
    clock = time.perf_counter
    start = clock()
    done = 0
    while (now := clock()) - start < seconds:
        for future in [submit(noop) for _ in range(AT_ONCE)]:
            future.result()
        done += AT_ONCE
    return done / (now - start)


@contextlib.contextmanager
def repeating(look: Callable[[], object], rate: float, looks: Looks) -> Iterator[None]:
    """A thread that looks so many times a second."""
    begun, ended = threading.Event(), threading.Event()

    def run() -> None:
        due = time.perf_counter()
        while not ended.wait(max(0.0, due - time.perf_counter())):
            began = time.thread_time()
            look()
            looks.spent += time.thread_time() - began
            looks.count += 1
            begun.set()
            due = max(due + 1 / rate, time.perf_counter() - 1 / rate)

    thread = threading.Thread(target=run)
    thread.start()
    begun.wait()
    try:
        yield
    finally:
        ended.set()
        thread.join()


class Watcher(NamedTuple):
    """Somebody who looks."""

    key: str
    title: str
    watch: Callable[[BoundedExecutor, Looks], contextlib.AbstractContextManager[None]]
    histograms: bool = False


def scraped(pool: BoundedExecutor, looks: Looks) -> contextlib.AbstractContextManager[None]:
    from prometheus_client import CollectorRegistry, generate_latest

    from futurepool.instrumentation import prometheus

    registry = CollectorRegistry()
    prometheus.instrument(registry, select=lambda: [pool])
    return repeating(lambda: generate_latest(registry), SCRAPES, looks)


@contextlib.contextmanager
def topped(_pool: BoundedExecutor, looks: Looks) -> Iterator[None]:
    from futurepool._living import picture

    text = picture.text

    def timed() -> bytes:
        began = time.thread_time()
        try:
            return text()
        finally:
            looks.spent += time.thread_time() - began
            looks.count += 1

    futurepool.serve()
    words = ["top", str(os.getpid()), "--json", "--interval", str(1 / LOOKS)]
    package = str(Path(futurepool.__file__).parent.parent)
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        [sys.executable, "-m", "futurepool", *words],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert process.stdout is not None
    process.stdout.readline()  # it has started, and that is no part of it
    reader = threading.Thread(target=process.stdout.read)
    reader.start()
    picture.text = timed
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
        reader.join()
        process.stdout.close()
        picture.text = text


class Counting(Observer):
    """The cheapest there is."""

    def __init__(self) -> None:
        self.finished_tasks = 0

    def finished(self, event: TaskEvent) -> None:
        self.finished_tasks += 1


@contextlib.contextmanager
def observed(pool: BoundedExecutor, _looks: Looks) -> Iterator[None]:
    observer = Counting()
    pool.add_observer(observer)
    try:
        yield
    finally:
        pool.remove_observer(observer)
        time.sleep(0.1)  # until all is told, which is no part of the next window


WATCHERS = (
    Watcher("scrapes", "a hundred scrapes a second", scraped),
    Watcher("scrapes", "the same, with histograms", scraped, histograms=True),
    Watcher("top", "`top` twice a second", topped),
    Watcher("observer", "one observer", observed),
)


def missing(watcher: Watcher) -> str:
    """What it needs and does not find."""
    if watcher.watch is scraped and importlib.util.find_spec("prometheus_client") is None:
        return "prometheus-client"
    if watcher.watch is topped and not hasattr(socket, "AF_UNIX"):
        return "sockets in the file system"
    return ""


def measure(watcher: Watcher, pairs: int, seconds: float) -> dict[str, Any]:
    """Pairs of windows: tasks a second without, and with; what the looks took."""
    looks = Looks()
    without: list[float] = []
    with_it: list[float] = []
    spent = 0.0
    chance = random.Random(1)
    with BoundedExecutor(WORKERS, name="busy", enable_metrics=watcher.histograms) as pool:
        busy(pool, min(seconds, 0.5))  # threads are there, caches are warm
        for _ in range(pairs):
            for looking in chance.sample([False, True], 2):
                if not looking:
                    without.append(busy(pool, seconds))
                    continue
                with watcher.watch(pool, looks):
                    began = time.perf_counter()
                    with_it.append(busy(pool, seconds))
                    spent += time.perf_counter() - began
    return {
        "title": watcher.title,
        "without": without,
        "with": with_it,
        "look": looks.spent / looks.count if looks.count else None,
        "rate": looks.count / spent,
    }


def row(found: dict[str, Any]) -> str:
    """A row of the table."""
    plain = statistics.median(found["without"])
    seen = statistics.median(found["with"])
    ratio = statistics.median(
        seen / plain for seen, plain in zip(found["with"], found["without"], strict=True)
    )
    if found["look"] is None:
        look = share = "-"
        more = f"{1e6 * (1 / seen - 1 / plain):+.1f} µs a task"
    else:
        look = f"{1e6 * found['look']:.0f} µs × {found['rate']:.3g}"
        share = f"{100 * found['look'] * found['rate']:.2f} %"
        more = ""
    cells = [found["title"], look, share, f"{plain:,.0f}", f"{seen:,.0f}", f"{ratio:.3f}"]
    return " | ".join(["", *cells]).strip() + f" |{' ' * bool(more)}{more}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    known = list(dict.fromkeys(watcher.key for watcher in WATCHERS))
    parser.add_argument("cases", nargs="*", help=", ".join(known))
    parser.add_argument("--pairs", type=int, default=15, help="of windows, for each case")
    parser.add_argument("--seconds", type=float, default=1.5, help="of a window")
    parser.add_argument("--json", type=Path, help="store the figures there")
    options = parser.parse_args()
    for case in options.cases:
        if case not in known:
            parser.error(f"there is no case {case!r}")
    if options.pairs < 1 or not options.seconds > 0:
        parser.error("--pairs and --seconds must be more than 0")
    print(
        f"CPython {platform.python_version()}, {cases.cores()} cores; {WORKERS} workers, no-ops\n"
    )
    print("| | a look × a second | of the processor | tasks/s without | with | ratio |")
    print("|---|---|---|---|---|---|")
    every: list[dict[str, Any]] = []
    absent: list[str] = []
    for watcher in WATCHERS:
        if options.cases and watcher.key not in options.cases:
            continue
        if what := missing(watcher):
            absent.append(f"{watcher.title} ({what})")
            continue
        every.append(measure(watcher, options.pairs, options.seconds))
        print(row(every[-1]), flush=True)
    if absent:
        print(f"\nNot there: {', '.join(absent)}")
    if options.json is not None:
        options.json.write_text(json.dumps(every), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
