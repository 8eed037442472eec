"""The same work on threads, on processes, and on a dask cluster: one line differs.

Sums of primes, in pure Python, so threads do not help on most interpreters, and processes do.

    python examples/dask_engines.py              processes
    python examples/dask_engines.py cluster      or threads, or loky
"""

import argparse
import contextlib
import logging
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing import get_context

from futurepool import BoundedExecutor, Priority, TaskError

SHORT = 20  # tasks that do nothing, in a round
ENOUGH = 0.2  # seconds of such rounds, which the price of one task is taken from


def primes_below(limit: int) -> int:
    """The sum of the primes below `limit`."""
    if limit < 0:
        raise ValueError(f"no primes below {limit}")
    return sum(n for n in range(2, limit) if all(n % d for d in range(2, int(n**0.5) + 1)))


@contextlib.contextmanager
def threads() -> Iterator[Executor | None]:
    yield None


@contextlib.contextmanager
def processes() -> Iterator[Executor | None]:
    yield ProcessPoolExecutor(2, mp_context=get_context("spawn"))  # fork and threads do not mix


@contextlib.contextmanager
def cluster() -> Iterator[Executor | None]:
    from distributed import Client, LocalCluster

    machines = LocalCluster(  # on this machine; for another: Client("host:8786")
        n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=logging.CRITICAL
    )
    with machines, Client(machines) as client:
        yield client.get_executor(pure=False)


@contextlib.contextmanager
def loky() -> Iterator[Executor | None]:
    from loky import ProcessPoolExecutor

    yield ProcessPoolExecutor(2)


ENGINE = processes  # <- the line


def main() -> None:
    engines = {engine.__name__: engine for engine in (threads, processes, cluster, loky)}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", nargs="?", choices=engines, default=ENGINE.__name__)
    engine = engines[parser.parse_args().engine]
    began = time.perf_counter()
    with engine() as other, BoundedExecutor(engine=other, queue_size=50) as pool:
        urgent = pool.submit_with_priority(Priority.HIGH, primes_below, 100)
        results = list(pool.map(primes_below, range(1_000, 9_000, 400)))
        failed = pool.submit(primes_below, -1).exception()
        first = urgent.result()
        stats = pool.stats()
        seconds = time.perf_counter() - began
        began, short, spent = time.perf_counter(), 0, 0.0
        while spent < ENOUGH:
            short += len(list(pool.map(abs, range(SHORT))))
            spent = time.perf_counter() - began
        cost = spent / short
    print(f"{engine.__name__}: {len(results)} sums in {seconds:.2f} s")
    print(f"urgent: {first}, the last: {results[-1]}")
    print(f"failed as itself: {isinstance(failed, ValueError) and isinstance(failed, TaskError)}")
    print(f"at most {stats.max_workers} at a time, {stats.completed_tasks} tasks in all")
    print(f"a task that does nothing takes {cost * 1e6:,.0f} microseconds")


if __name__ == "__main__":
    main()
