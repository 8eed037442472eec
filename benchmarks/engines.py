"""What a short call costs behind an engine: `python benchmarks/engines.py`.

Two executors of a kind run side by side, each with workers of its own: one is used as it is (*alone*), the other through
a pool of this package (*behind*). The call is `abs(n)`, so nearly all that is measured is the way there and back.

    bulk     all calls are submitted, then all are awaited
    one      each is awaited before the next one
    map      `map(abs, range(n))`; behind the pool with `chunksize="auto"`

Rounds measure both, in changing order, so that whatever else the machine does meets both alike. What is shown are the medians,
microseconds a call; a ratio is the median of the rounds' ratios, more than 1 if it costs more behind the pool. Engines
that are not installed are left out, and named.

    python benchmarks/engines.py                          some three minutes
    python benchmarks/engines.py --rounds 3 processes     a first look
"""

from __future__ import annotations

import argparse
import concurrent.futures as cf
import importlib.metadata
import importlib.util
import json
import multiprocessing
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import cases

from futurepool import BoundedExecutor

WORKERS = 2


@contextmanager
def processes() -> Iterator[cf.Executor]:
    with cf.ProcessPoolExecutor(
        WORKERS, mp_context=multiprocessing.get_context("spawn")
    ) as executor:
        yield executor


@contextmanager
def interpreters() -> Iterator[cf.Executor]:
    kind: Any = getattr(cf, "InterpreterPoolExecutor", None)
    with kind(WORKERS) as executor:
        yield executor


@contextmanager
def loky() -> Iterator[cf.Executor]:
    kind: Any = importlib.import_module("loky").ProcessPoolExecutor
    with kind(WORKERS) as executor:
        yield executor


@contextmanager
def dask() -> Iterator[cf.Executor]:
    distributed: Any = importlib.import_module("distributed")
    with (
        distributed.LocalCluster(
            n_workers=WORKERS, threads_per_worker=1, dashboard_address=":0", processes=True
        ) as cluster,
        distributed.Client(cluster) as client,
        client.get_executor(pure=False) as executor,
    ):
        yield executor


class Engine(NamedTuple):
    """One kind of executor."""

    title: str
    open: Callable[[], Any]
    package: str  # that it needs
    share: int  # of the calls, in hundredths: slow ones make do with less


ENGINES = {
    "processes": Engine("`ProcessPoolExecutor` (spawn)", processes, "", 100),
    "interpreters": Engine("`InterpreterPoolExecutor`", interpreters, "", 100),
    "loky": Engine("`loky.ProcessPoolExecutor`", loky, "loky", 100),
    "dask": Engine("`dask.distributed`, worker processes", dask, "distributed", 5),
}


def missing(name: str) -> str:
    """What it needs and does not find."""
    package = ENGINES[name].package
    if package and importlib.util.find_spec(package) is None:
        return package
    if name == "interpreters" and not hasattr(cf, "InterpreterPoolExecutor"):
        return "Python 3.14"
    return ""


def version(name: str) -> str:
    """Of what is not the standard library's."""
    package = ENGINES[name].package
    return f" {importlib.metadata.version(package)}" if package else ""


def bulk(executor: cf.Executor, calls: int) -> None:
    for future in [executor.submit(abs, number) for number in range(calls)]:
        future.result()


def one(executor: cf.Executor, calls: int) -> None:
    for number in range(calls):
        executor.submit(abs, number).result()


def mapped(executor: cf.Executor, calls: int) -> None:
    options: Any = {"chunksize": "auto"} if isinstance(executor, BoundedExecutor) else {}
    for _ in executor.map(abs, range(calls), **options):
        pass


#: What is measured, with the share of the calls, in hundredths, that it makes.
WAYS: dict[str, tuple[Callable[[cf.Executor, int], None], int]] = {
    "bulk": (bulk, 20),
    "one": (one, 4),
    "map": (mapped, 100),
}


def timed(act: Callable[[cf.Executor, int], None], executor: cf.Executor, calls: int) -> float:
    """Microseconds a call."""
    began = time.perf_counter()
    act(executor, calls)
    return 1e6 * (time.perf_counter() - began) / calls


def measure(engine: Engine, rounds: int, calls: int) -> dict[str, dict[str, list[float]]]:
    """For each way, what each round has measured: alone, and behind."""
    found: dict[str, dict[str, list[float]]] = {way: {"alone": [], "behind": []} for way in WAYS}
    chance = random.Random(1)
    with ExitStack() as stack:
        alone = stack.enter_context(engine.open())
        inner = stack.enter_context(engine.open())
        behind = stack.enter_context(
            BoundedExecutor(engine=inner, close_engine=False, queue_size=None)
        )
        executors = {"alone": alone, "behind": behind}
        for executor in executors.values():  # the workers are there, and have what they import
            bulk(executor, 20 * WORKERS)
        for _ in range(rounds):
            for way, (act, share) in WAYS.items():
                count = max(WORKERS, calls * share * engine.share // 10_000)
                for which in chance.sample([*executors], 2):
                    found[way][which].append(timed(act, executors[which], count))
    return found


HEAD = "| engine, 2 workers | bulk, alone | behind | ratio | one at a time, alone | behind | ratio | `map`, alone | behind | ratio |"


def row(title: str, found: dict[str, dict[str, list[float]]]) -> str:
    """A row of the table."""
    cells = [title]
    for way in found.values():
        cells += [f"{statistics.median(way[which]):,.0f}" for which in ("alone", "behind")]
        ratios = [there / here for here, there in zip(way["alone"], way["behind"], strict=True)]
        cells.append(f"{statistics.median(ratios):.2f}")
    return f"| {' | '.join(cells)} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("engines", nargs="*", help=", ".join(ENGINES))
    parser.add_argument("--rounds", type=int, default=9, help="for each engine")
    parser.add_argument("--calls", type=int, default=10_000, help="in a `map`, fewer otherwise")
    parser.add_argument("--json", type=Path, help="store the figures there")
    options = parser.parse_args()
    for name in options.engines:
        if name not in ENGINES:
            parser.error(f"there is no engine {name!r}")
    if options.rounds < 1 or options.calls < 1:
        parser.error("--rounds and --calls must be more than 0")
    print(f"CPython {platform.python_version()}, {cases.cores()} cores; µs a call\n")
    print(HEAD)
    print("|---|" + "---|" * 9)
    every: dict[str, Any] = {}
    absent: list[str] = []
    for name, engine in ENGINES.items():
        if options.engines and name not in options.engines:
            continue
        if what := missing(name):
            absent.append(f"{name} ({what})")
            continue
        every[name] = measure(engine, options.rounds, options.calls)
        print(row(engine.title + version(name), every[name]), flush=True)
    if absent:
        print(f"\nNot there: {', '.join(absent)}")
    if options.json is not None:
        options.json.write_text(json.dumps(every), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
