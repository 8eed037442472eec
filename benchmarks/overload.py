"""A service that is asked for more than it can answer: `python benchmarks/overload.py`.

Requests come as from many clients who do not know of each other, in an open loop: at times drawn beforehand
(seeded, exponential gaps), whatever becomes of the others. Each is a task of 10 ms that waits, as for a database;
4 workers, so 400 a second can be answered. A client gives up after 200 ms: an answer that comes later was work for
nothing. The time counts from when the request was due, also if its submit was held up.

Counted are useful answers, those in time, that are given while requests come: what is still answered after
the last one would count for whoever keeps a long queue. Per second; and their median time. A figure is that of the
round which is the median of three.

    python benchmarks/overload.py                           some four minutes
    python benchmarks/overload.py --loads 1.5 --rounds 1     one load
    python benchmarks/overload.py --plot overload.svg       needs matplotlib, as in `.[bench]`
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable
from concurrent import futures as cf
from pathlib import Path
from typing import Any, NamedTuple

from futurepool import BoundedExecutor, FuturePoolError, OnFull

WORKERS = 4
RUN = 0.010  # seconds of a task
PATIENCE = 0.200  # seconds of a client
CAPACITY = WORKERS / RUN  # tasks a second, at most
LOADS = (0.5, 1.0, 1.5, 2.0, 3.0)  # times the capacity


def as_it_is(pool: Any) -> Any:
    return pool


def impatient(pool: Any) -> Any:
    """Half of what the clients wait: a task that began just in time would end too late."""
    return pool.options(max_wait=PATIENCE / 2)


class Way(NamedTuple):
    """An executor, and the `submit` of it that is used."""

    name: str
    open: Callable[[], cf.Executor]
    view: Callable[[Any], Any] = as_it_is


WAYS = (
    Way("ThreadPoolExecutor", lambda: cf.ThreadPoolExecutor(WORKERS)),
    Way("futurepool", lambda: BoundedExecutor(WORKERS)),
    Way(
        'order="lifo"',
        lambda: BoundedExecutor(WORKERS, order="lifo", on_full=OnFull.DROP_OLDEST),
    ),
    Way(
        'order="adaptive"',
        lambda: BoundedExecutor(WORKERS, order="adaptive", on_full=OnFull.DROP_OLDEST),
    ),
    Way("OnFull.SHED", lambda: BoundedExecutor(WORKERS, on_full=OnFull.SHED)),
    Way(
        f"max_wait={PATIENCE / 2:g}",
        lambda: BoundedExecutor(WORKERS, on_full=OnFull.RAISE),
        impatient,
    ),
)


class Outcome(NamedTuple):
    """What one way made of one load."""

    useful: float  # answers a second
    median: float | None  # seconds that they took; None without any
    requests: int
    answers: int  # the late ones, too


def due_times(rate: float, seconds: float, seed: int) -> list[float]:
    """When requests come, in seconds from the start: `rate` a second on average."""
    chance = random.Random(seed)
    times: list[float] = []
    now = chance.expovariate(rate)
    while now < seconds:
        times.append(now)
        now += chance.expovariate(rate)
    return times


def measure(way: Way, load: float, seconds: float, seed: int = 1) -> Outcome:
    """Put so many times the capacity to one executor, for so long."""
    times = due_times(load * CAPACITY, seconds, seed)
    took: list[tuple[float, float]] = []  # the time of an answer, and how long it took
    clock = time.perf_counter

    def answer(due: float) -> None:
        time.sleep(RUN)
        now = clock()
        took.append((now, now - due))

    pool = way.open()
    try:
        submit = way.view(pool).submit
        cf.wait([submit(time.sleep, 0.001) for _ in range(WORKERS)])  # all threads are there
        start = clock()
        for when in times:
            left = start + when - clock()
            if left > 0:
                time.sleep(left)
            elif clock() - start > seconds:
                break  # held up so long that the time is over
            try:
                submit(answer, start + when)
            except FuturePoolError:  # the client is told so
                pass
        time.sleep(PATIENCE)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    useful = [each for now, each in took if each <= PATIENCE and now <= start + seconds]
    median = statistics.median(useful) if useful else None
    return Outcome(len(useful) / seconds, median, len(times), len(took))


def shown(outcome: Outcome) -> str:
    median = "-" if outcome.median is None else f"{1e3 * outcome.median:.0f} ms"
    return f"{outcome.useful:.0f} ({median})"


def table(loads: list[float], found: dict[str, list[Outcome]]) -> list[str]:
    """Markdown: a row for each way, a column for each load."""
    heads = [f"{load:g}×" for load in loads]
    lines = ["| " + " | ".join(["", *heads]) + " |", "|---" * (len(heads) + 1) + "|"]
    for name, row in found.items():
        code = f"`{name}`"
        lines.append("| " + " | ".join([code, *[shown(each) for each in row]]) + " |")
    return lines


def shares(found: dict[str, list[Outcome]]) -> dict[str, float]:
    """For each way, its smallest share of the best way's useful answers, over all loads."""
    best = [max(column) for column in zip(*[[o.useful for o in row] for row in found.values()])]  # noqa: B905
    return {
        name: min(o.useful / top for o, top in zip(row, best, strict=True) if top)
        for name, row in found.items()
    }


def plot(loads: list[float], found: dict[str, list[Outcome]], path: Path) -> bool:
    """Useful answers and their median over the load; False without matplotlib."""
    import report

    plt = report.pyplot()
    if plt is None:
        return False
    figure, (above, below) = plt.subplots(2, 1, figsize=(7.5, 6), sharex=True)
    for index, (name, row) in enumerate(found.items()):
        style: dict[str, Any] = {
            "color": report.COLOURS[index % len(report.COLOURS)],
            "marker": "osD^vX"[index % 6],
            "ls": "--" if index < 2 else "-",
            "lw": 1.5,
            "ms": 4,
        }
        above.plot(loads, [each.useful for each in row], label=name, **style)
        some = [
            (x, 1e3 * o.median) for x, o in zip(loads, row, strict=True) if o.median is not None
        ]
        below.plot([x for x, _ in some], [y for _, y in some], **style)
    above.set_ylabel("useful answers a second")
    above.set_ylim(0, None)
    below.set_ylabel("their median, ms")
    below.set_ylim(0, 1e3 * PATIENCE)
    below.set_xlabel("requests, times what can be answered")
    report.legend(above, None)
    report.save(plt, figure, path)
    return True


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0] if __doc__ else None,
    )
    parser.add_argument("--seconds", type=float, default=2.0, help="for each way and load")
    parser.add_argument("--rounds", type=int, default=3, help="the median of so many counts")
    parser.add_argument("--loads", type=float, nargs="+", default=list(LOADS))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="store the figures there")
    parser.add_argument("--plot", type=Path, help="draw them, as SVG")
    options = parser.parse_args()
    if min(options.seconds, options.rounds, *options.loads) <= 0:
        parser.error("--seconds, --rounds and --loads must be more than 0")
    cores = os.cpu_count()
    print(f"CPython {platform.python_version()}, {cores} cores; {WORKERS} workers, ", end="")
    print(f"tasks of {1e3 * RUN:g} ms, answers useful for {1e3 * PATIENCE:g} ms")
    print("useful answers a second (their median):\n")
    found: dict[str, list[Outcome]] = {way.name: [] for way in WAYS}
    for load in options.loads:
        rounds: list[list[Outcome]] = [[] for _ in WAYS]
        for number in range(options.rounds):  # so other work on the machine meets all alike
            for row, way in zip(rounds, WAYS, strict=True):
                row.append(measure(way, load, options.seconds, options.seed + number))
        for row, way in zip(rounds, WAYS, strict=True):
            outcome = sorted(row, key=lambda each: each.useful)[len(row) // 2]
            found[way.name].append(outcome)
            print(f"{load:4g}x {way.name:20} {shown(outcome)}", file=sys.stderr, flush=True)
    print("\n".join(table(options.loads, found)))
    print("\nthe smallest share of the best, over all loads:\n")
    for name, share in shares(found).items():
        print(f"{name:20} {share:4.0%}")
    if options.json is not None:
        options.json.write_text(json.dumps({"loads": options.loads, "ways": found}), "utf-8")
    if options.plot is not None and not plot(options.loads, found, options.plot):
        print("\nno plot: matplotlib is not installed", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
