"""The same work on threads, on processes, and on a dask cluster: one line differs.

Sums of primes, in pure Python, so threads do not help on most interpreters, and processes do.

    python examples/dask_engines.py              processes
    python examples/dask_engines.py cluster      or threads, or loky
"""

import sys
import time
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing import get_context

from futurepool import BoundedExecutor, Priority, TaskError

SHORT = 1_000


def primes_below(limit: int) -> int:
    """The sum of the primes below `limit`."""
    if limit < 0:
        raise ValueError(f"no primes below {limit}")
    return sum(n for n in range(2, limit) if all(n % d for d in range(2, int(n**0.5) + 1)))


def threads() -> Executor | None:
    return None


def processes() -> Executor | None:
    return ProcessPoolExecutor(2, mp_context=get_context("spawn"))  # fork and threads do not mix


def cluster() -> Executor | None:
    from distributed import Client  # a cluster on this machine; for another: Client("host:8786")

    return Client(n_workers=2, threads_per_worker=1, dashboard_address=None).get_executor(
        pure=False
    )


def loky() -> Executor | None:
    from loky import ProcessPoolExecutor

    return ProcessPoolExecutor(2)


ENGINE = processes  # <- the line


def main() -> None:
    engine = {"threads": threads, "cluster": cluster, "loky": loky}.get(
        "".join(sys.argv[1:]), ENGINE
    )
    began = time.perf_counter()
    with BoundedExecutor(engine=engine(), queue_size=50) as pool:
        urgent = pool.submit_with_priority(Priority.HIGH, primes_below, 100)
        results = list(pool.map(primes_below, range(1_000, 9_000, 400)))
        failed = pool.submit(primes_below, -1).exception()
        stats = pool.stats()
        seconds = time.perf_counter() - began
        began = time.perf_counter()
        list(pool.map(abs, range(SHORT)))
        cost = (time.perf_counter() - began) / SHORT
    print(f"{engine.__name__}: {len(results)} sums in {seconds:.2f} s")
    print(f"urgent: {urgent.result()}, the last: {results[-1]}")
    print(f"failed as itself: {isinstance(failed, ValueError) and isinstance(failed, TaskError)}")
    print(f"at most {stats.max_workers} at a time, {stats.completed_tasks} tasks in all")
    print(f"a task that does nothing takes {cost * 1e6:,.0f} microseconds")


if __name__ == "__main__":
    main()
