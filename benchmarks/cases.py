"""What is measured, and how each library's own users would write it.

A case has contestants; the first named in `Case.baseline` is what the others are compared with. A
contestant opens a context that yields an `act`, which is called again and again:

    rate cases   an act runs `Case.tasks(size)` tasks; the sample is tasks per second
    other cases  an act returns the sample itself: microseconds, bytes, milliseconds

Used by `run.py` (each contestant in a process of its own, see `serve`) and by `test_bench.py`.
Nothing but the standard library is imported before a contestant is opened.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.metadata
import json
import multiprocessing.pool
import os
import platform
import queue
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cache, partial
from types import MappingProxyType
from typing import Any

STANDARD = "ThreadPoolExecutor"
OURS = "futurepool"
IN_PYTHON = "futurepool, in Python"
LIMIT = "SimpleQueue of callables"
WORKERS = 4  # where a case does not say otherwise
PRODUCERS, BOUND = 8, 100
PRIORITIES = 1000


def noop() -> None:
    pass


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    tasks: int  # in an act
    seconds: float  # acts are repeated for so long, and the sample is of all of them
    trips: int  # in a round trip sample
    many: int  # "the millionth"
    repetitions: int
    restart: bool  # a fresh process for every repetition, not only for every contestant


SIZES = {
    "smoke": Size(40, 0.0, 5, 400, 2, restart=False),
    "quick": Size(10_000, 0.15, 250, 1_000_000, 7, restart=False),
    "full": Size(10_000, 0.3, 250, 1_000_000, 11, restart=True),
}


# -- the rivals ------------------------------------------------------------------------------------


class Rival:
    """One library. The methods are what the cases need; those it cannot serve leave it out."""

    name = ""
    distribution: str | None = None  # None: the standard library
    module = ""  # what its users import
    loads = ""  # by this, if the import alone does not load it
    note = ""  # what a reader of the figures should know
    environment: Mapping[str, str] = MappingProxyType({})  # of its processes, beside ours

    def open(self, workers: int) -> AbstractContextManager[Any]:
        """A pool as its users would make it."""
        raise NotImplementedError

    def deep(self, n: int) -> AbstractContextManager[Any]:
        """A pool of one worker that can queue n tasks."""
        del n
        return self.open(1)

    def bounded(self) -> AbstractContextManager[Any]:
        """8 workers, and a queue of 100 where that can be said."""
        return self.open(PRODUCERS)

    def entry(self, pool: Any) -> Callable[[Callable[[], object]], Any]:
        """What submits a function: a method of the pool, no wrapper of ours."""
        method: Callable[[Callable[[], object]], Any] = pool.submit
        return method

    def bulk(self, pool: Any, n: int) -> float | None:
        """Submit n no-ops, then ask for every result."""
        submit = self.entry(pool)
        futures = [submit(noop) for _ in range(n)]
        for future in futures:
            future.result()
        return None

    def map(self, pool: Any, n: int, chunksize: int | None) -> float | None:
        """All results of abs over range(n)."""
        more = {} if chunksize is None else {"chunksize": chunksize}
        for _ in pool.map(abs, range(n), **more):
            pass
        return None

    def trips(self, pool: Any, n: int, settle: Callable[[], object]) -> list[float]:
        """Seconds of n round trips, one after the other, when `settle` has been run in the worker."""
        submit = self.entry(pool)
        submit(settle).result()
        times: list[float] = []
        for _ in range(n):
            began = time.perf_counter()
            submit(noop).result()
            times.append(time.perf_counter() - began)
        return times

    def produce(self, pool: Any, n: int) -> float | None:
        """8 threads submit n no-ops in all and drop the results; the time until all have run."""
        submit = self.entry(pool)
        share = n // PRODUCERS

        def producer() -> None:
            for _ in range(share):
                submit(noop)

        threads = [threading.Thread(target=producer) for _ in range(PRODUCERS)]
        ended: queue.SimpleQueue[None] = queue.SimpleQueue()
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        # First in, first out: when these run, all others have been taken.
        for _ in range(PRODUCERS):
            submit(partial(ended.put, None))
        for _ in range(PRODUCERS):
            ended.get()
        return time.perf_counter() - began


class Futurepool(Rival):
    name = OURS
    distribution = "futurepool"
    module = "futurepool"
    loads = "from futurepool import BoundedExecutor; BoundedExecutor(1).submit(int).result()"

    def open(self, workers: int, **options: Any) -> Any:
        from futurepool import BoundedExecutor

        return BoundedExecutor(workers, **options)

    def deep(self, n: int) -> Any:
        return self.open(1, queue_size=n)

    def bounded(self) -> Any:
        return self.open(PRODUCERS, queue_size=BOUND)


class InPython(Futurepool):
    """Without the extension in C, where that is there."""

    name = IN_PYTHON
    note = "the same without its extension in C, which wheels for all platforms do not have"
    environment = MappingProxyType({"FUTUREPOOL_FORM": "fast"})


class Limit(Rival):
    """What no pool can be faster than; for some cases only."""

    name = LIMIT
    module = "queue"
    note = "the limit: workers that call what they take; nobody gets a result, or hears of an error"

    @contextlib.contextmanager
    def open(self, workers: int) -> Iterator[Any]:
        calls: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()

        def work() -> None:
            while (call := calls.get()) is not None:
                call()

        threads = [threading.Thread(target=work) for _ in range(workers)]
        for thread in threads:
            thread.start()
        yield calls, workers
        for _ in threads:
            calls.put(None)
        for thread in threads:
            thread.join()

    def bulk(self, pool: Any, n: int) -> float | None:
        calls, workers = pool
        ended: queue.SimpleQueue[None] = queue.SimpleQueue()
        put = calls.put
        for _ in range(n):
            put(noop)
        for _ in range(workers):
            put(partial(ended.put, None))
        for _ in range(workers):
            ended.get()
        return None


class Standard(Rival):
    name = STANDARD
    module = "concurrent.futures.thread"
    note = "unbounded; its `map` ignores chunksize"

    def open(self, workers: int) -> Any:
        return ThreadPoolExecutor(workers)


class StandardBounded(Standard):
    """What people write to bound a ThreadPoolExecutor; for the case with a bound only."""

    name = "ThreadPoolExecutor + semaphore"
    note = "a semaphore of 108 around `submit`, released in a done callback"

    def entry(self, pool: Any) -> Callable[[Callable[[], object]], Any]:
        places = threading.BoundedSemaphore(PRODUCERS + BOUND)

        def release(_: Any) -> None:
            places.release()

        def submit(fn: Callable[[], object]) -> Any:
            places.acquire()
            future = pool.submit(fn)
            future.add_done_callback(release)
            return future

        return submit


class MultiprocessingPool(Rival):
    name = "multiprocessing.pool.ThreadPool"
    module = "multiprocessing.pool"
    note = "unbounded, no futures; its `map` cuts the input into 4 chunks per worker by itself"

    def open(self, workers: int) -> Any:
        return multiprocessing.pool.ThreadPool(workers)

    def entry(self, pool: Any) -> Callable[[Callable[[], object]], Any]:
        method: Callable[[Callable[[], object]], Any] = pool.apply_async
        return method

    def bulk(self, pool: Any, n: int) -> float | None:
        handles = [pool.apply_async(noop) for _ in range(n)]
        for handle in handles:
            handle.get()
        return None

    def trips(self, pool: Any, n: int, settle: Callable[[], object]) -> list[float]:
        pool.apply_async(settle).get()
        times: list[float] = []
        for _ in range(n):
            began = time.perf_counter()
            pool.apply_async(noop).get()
            times.append(time.perf_counter() - began)
        return times


class Pebble(Rival):
    name = "pebble.ThreadPool"
    distribution = "pebble"
    module = "pebble"
    note = "unbounded"

    def open(self, workers: int) -> Any:
        import pebble

        return pebble.ThreadPool(max_workers=workers)

    def entry(self, pool: Any) -> Callable[[Callable[[], object]], Any]:
        method: Callable[[Callable[[], object]], Any] = pool.schedule
        return method

    def map(self, pool: Any, n: int, chunksize: int | None) -> float | None:
        more = {} if chunksize is None else {"chunksize": chunksize}
        for _ in pool.map(abs, range(n), **more).result():
            pass
        return None


class BoundedPoolExecutor(Rival):
    name = "bounded-pool-executor"
    distribution = "bounded-pool-executor"
    module = "bounded_pool_executor"
    note = "bounded to as many tasks as there are workers, which cannot be changed"

    def open(self, workers: int) -> Any:
        from bounded_pool_executor import BoundedThreadPoolExecutor

        return BoundedThreadPoolExecutor(max_workers=workers)


class Futurist(Rival):
    name = "futurist"
    distribution = "futurist"
    module = "futurist"
    note = "unbounded, or refuses when full (unbounded here)"

    def open(self, workers: int) -> Any:
        import futurist

        return futurist.ThreadPoolExecutor(max_workers=workers)


class Joblib(Rival):
    name = "joblib (threading)"
    distribution = "joblib"
    module = "joblib"
    note = (
        "calls come as one list, and short ones are batched automatically; no single calls; "
        "one pool for all lists, by `with Parallel(...)`"
    )

    @contextlib.contextmanager
    def open(self, workers: int) -> Iterator[Any]:
        import joblib

        with contextlib.ExitStack() as stack:

            @cache  # the batch size belongs to the pool; the first, untimed act opens it
            def parallel(batch_size: int | str) -> Any:
                return stack.enter_context(
                    joblib.Parallel(n_jobs=workers, backend="threading", batch_size=batch_size)
                )

            yield parallel

    def bulk(self, pool: Any, n: int) -> float | None:
        import joblib

        pool("auto")(joblib.delayed(noop)() for _ in range(n))
        return None

    def map(self, pool: Any, n: int, chunksize: int | None) -> float | None:
        import joblib

        pool("auto" if chunksize is None else chunksize)(joblib.delayed(abs)(i) for i in range(n))
        return None


class Anyio(Rival):
    name = "anyio.to_thread"
    distribution = "anyio"
    module = "anyio.to_thread"
    note = "for coroutines: a task group on asyncio, `to_thread.run_sync` under one limiter"

    @contextlib.contextmanager
    def open(self, workers: int) -> Iterator[Any]:
        yield workers

    def _gather(self, workers: int, n: int, call: Callable[[int], Callable[[], object]]) -> float:
        import anyio
        import anyio.to_thread

        async def main() -> float:
            limiter = anyio.CapacityLimiter(workers)
            await anyio.to_thread.run_sync(noop, limiter=limiter)
            results: list[Any] = [None] * n

            async def one(i: int) -> None:
                results[i] = await anyio.to_thread.run_sync(call(i), limiter=limiter)

            began = time.perf_counter()
            async with anyio.create_task_group() as group:
                for i in range(n):
                    group.start_soon(one, i)
            return time.perf_counter() - began

        return anyio.run(main)

    def bulk(self, pool: Any, n: int) -> float | None:
        return self._gather(pool, n, lambda _: noop)

    def map(self, pool: Any, n: int, chunksize: int | None) -> float | None:
        del chunksize
        return self._gather(pool, n, lambda i: partial(abs, i))

    def trips(self, pool: Any, n: int, settle: Callable[[], object]) -> list[float]:
        import anyio
        import anyio.to_thread

        async def main() -> list[float]:
            limiter = anyio.CapacityLimiter(pool)
            await anyio.to_thread.run_sync(settle, limiter=limiter)
            times: list[float] = []
            for _ in range(n + 10):
                began = time.perf_counter()
                await anyio.to_thread.run_sync(noop, limiter=limiter)
                times.append(time.perf_counter() - began)
            return times[10:]

        return anyio.run(main)


RIVALS: list[Rival] = [
    Standard(),
    Futurepool(),
    InPython(),
    MultiprocessingPool(),
    Pebble(),
    BoundedPoolExecutor(),
    Futurist(),
    Joblib(),
    Anyio(),
]
#: In some cases only.
EXTRAS: list[Rival] = [StandardBounded(), Limit()]
#: No single calls, or no pool to queue anything in.
NO_CALLS = ("joblib (threading)",)
NO_QUEUE = (*NO_CALLS, "anyio.to_thread")


def rival(name: str) -> Rival:
    return next(one for one in RIVALS if one.name == name)


def form() -> str:
    """Of our hot paths; "" if we are not installed."""
    try:
        return str(importlib.import_module(OURS).form)
    except ModuleNotFoundError:
        return ""


def version(one: Rival) -> str | None:
    """Its version; None if it is not installed."""
    if one.name == IN_PYTHON and form() != "compiled":
        return None
    if one.distribution is None:
        return platform.python_version()
    try:
        importlib.import_module(one.module)
    except ModuleNotFoundError as error:
        if error.name != one.module.partition(".")[0]:
            raise
        return None
    if isinstance(one, Futurepool):
        compiled = one.name == OURS and form() == "compiled"
        return f"{importlib.import_module(OURS).__version__}{', in C' * compiled}"
    return importlib.metadata.version(one.distribution)


def look(one: Rival) -> dict[str, str]:
    """Its version, or the reason why there is none."""
    try:
        found = version(one)
    except Exception as error:  # rivals raise what they like
        return {"reason": f"cannot be imported ({type(error).__name__}: {error})"}
    if found is not None:
        return {"version": found}
    return {"reason": f"that is {OURS} here" if one.name == IN_PYTHON else "not installed here"}


# -- the cases -------------------------------------------------------------------------------------

Act = Callable[[], "float | None"]
Opener = Callable[[Size], "AbstractContextManager[Act]"]


@dataclass(frozen=True)
class Contestant:
    """One way to do what a case measures."""

    name: str
    open: Opener
    rival: Rival
    keep: bool = True  # open once for all repetitions in a process; some are slow to open or close


@dataclass(frozen=True)
class Case:
    """One thing to measure."""

    key: str
    title: str
    unit: str  # of a sample: "tasks/s", "µs", "B", "ms"
    how: str  # a sentence for the report
    baseline: str | None  # the contestant that ratios are taken against
    subject: str  # the contestant whose ratio, or value, the floor is for
    contestants: list[Contestant]
    floor: str = "ratio at least"  # or "value at most", "slowdown at most"
    floors: dict[str, float] = field(default_factory=dict)  # by interpreter: "3.11", "3.13t"
    compiled: dict[str, float] | None = None  # those of the form in C, if they are others
    scale: int = 1
    # Samples in a repetition; more where they differ much, or what is compared hardly does.
    turns: int = 1

    def tasks(self, size: Size) -> int:
        return size.tasks * self.scale

    @property
    def cannot(self) -> list[str]:
        """The rivals that have no way to do this; none where only futurepool is looked at."""
        present = {one.rival.name for one in self.contestants}
        if present == {OURS}:
            return []
        return [one.name for one in RIVALS if one.name not in {*present, STANDARD}]

    @property
    def rate(self) -> bool:
        """Whether more is better, and the act is timed from outside."""
        return self.unit == "tasks/s"


def _everyone(
    opener: Callable[[Rival], Opener], without: tuple[str, ...] = (), extra: tuple[Rival, ...] = ()
) -> list[Contestant]:
    rivals = [*RIVALS, *extra]
    return [Contestant(one.name, opener(one), one) for one in rivals if one.name not in without]


def _bulk(workers: int) -> Callable[[Rival], Opener]:
    def opener(one: Rival) -> Opener:
        @contextlib.contextmanager
        def opened(size: Size) -> Iterator[Act]:
            with one.open(workers) as pool:
                one.bulk(pool, size.tasks // 10)
                yield partial(one.bulk, pool, size.tasks)

        return opened

    return opener


def _map(chunksize: int | None, scale: int) -> Callable[[Rival], Opener]:
    def opener(one: Rival) -> Opener:
        @contextlib.contextmanager
        def opened(size: Size) -> Iterator[Act]:
            with one.open(WORKERS) as pool:
                one.map(pool, size.tasks // 10, chunksize)
                yield partial(one.map, pool, size.tasks * scale, chunksize)

        return opened

    return opener


@contextlib.contextmanager
def _on_core(number: int) -> Iterator[Callable[[], object]]:
    """Keep this thread, and what it starts, on the first core; yields what moves a thread to core `number`.

    Where the system cannot do that, or has but one core, threads are left alone.
    """
    mine: set[int] = getattr(os, "sched_getaffinity", lambda _: set())(0)
    if len(mine) < 2:
        yield noop
        return
    ours = sorted(mine)
    os.sched_setaffinity(0, ours[:1])
    try:
        yield partial(os.sched_setaffinity, 0, [ours[number]])
    finally:
        os.sched_setaffinity(0, mine)


def _trip(core: int) -> Callable[[Rival], Opener]:
    """The caller on core 0, the worker on core `core`."""

    def opener(one: Rival) -> Opener:
        @contextlib.contextmanager
        def opened(size: Size) -> Iterator[Act]:
            with _on_core(core) as settle, one.open(1) as pool:
                one.trips(pool, size.trips // 10 + 1, settle)
                yield lambda: statistics.median(one.trips(pool, size.trips, settle)) * 1e6

        return opened

    return opener


def _queued(one: Rival) -> Opener:
    def act(pool: Any, n: int) -> float:
        submit = one.entry(pool)
        started: queue.SimpleQueue[None] = queue.SimpleQueue()
        gate: queue.SimpleQueue[None] = queue.SimpleQueue()
        ended: queue.SimpleQueue[None] = queue.SimpleQueue()

        def hold() -> None:
            started.put(None)
            gate.get()

        submit(hold)
        started.get()
        handles: list[Any] = [None] * n  # made before: it is not the pool's memory
        gc.collect()
        tracemalloc.start()
        try:
            for i in range(n):
                handles[i] = submit(noop)
            time.sleep(0.05)  # some have a thread that moves tasks on
            gc.collect()
            used = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
            gate.put(None)
        submit(partial(ended.put, None))
        ended.get()
        return used / n

    @contextlib.contextmanager
    def opened(size: Size) -> Iterator[Act]:
        with one.deep(size.tasks) as pool:
            yield partial(act, pool, size.tasks)

    return opened


def _produce(scale: int) -> Callable[[Rival], Opener]:
    def opener(one: Rival) -> Opener:
        @contextlib.contextmanager
        def opened(size: Size) -> Iterator[Act]:
            with one.bounded() as pool:
                one.produce(pool, size.tasks // 10)
                yield partial(one.produce, pool, size.tasks * scale)

        return opened

    return opener


def _priorities(count: int, deep: bool) -> Opener:
    """As `bulk`, through views of `count` priorities; `deep`: the queue fills before it empties."""

    @contextlib.contextmanager
    def opened(size: Size) -> Iterator[Act]:
        from futurepool import BoundedExecutor

        n = size.tasks
        pool = BoundedExecutor(1 if deep else WORKERS, queue_size=n + 1 if deep else 1000)
        with pool:
            # Neither rising nor falling: 617 and 1,000 have no divisor in common.
            views = [pool.options(priority=i * 617 % PRIORITIES % count) for i in range(PRIORITIES)]

            def act() -> None:
                gate: queue.SimpleQueue[None] = queue.SimpleQueue()
                if deep:
                    # Until it has started others could overtake it.
                    started: queue.SimpleQueue[None] = queue.SimpleQueue()
                    pool.submit(lambda: (started.put(None), gate.get()))
                    started.get()
                futures = [views[i % PRIORITIES].submit(noop) for i in range(n)]
                gate.put(None)
                for future in futures:
                    future.result()

            act()
            yield act

    return opened


def _after(count: Callable[[Size], int]) -> Opener:
    @contextlib.contextmanager
    def opened(size: Size) -> Iterator[Act]:
        from futurepool import BoundedExecutor

        with BoundedExecutor(WORKERS) as pool:
            for _ in range(count(size)):
                pool.submit(noop)
            pool.wait()
            yield partial(Futurepool().bulk, pool, size.tasks)

    return opened


def _metrics(on: bool) -> Opener:
    @contextlib.contextmanager
    def opened(size: Size) -> Iterator[Act]:
        one = Futurepool()
        with one.open(WORKERS, enable_metrics=on) as pool:
            one.bulk(pool, size.tasks // 10)
            yield partial(one.bulk, pool, size.tasks)

    return opened


def _import(one: Rival) -> Opener:
    code = (
        "import os, time, concurrent.futures.thread\nout = os.dup(1)\nos.dup2(2, 1)\n"
        f"began = time.perf_counter()\n{one.loads or f'import {one.module}'}\n"
        "os.write(out, str(time.perf_counter() - began).encode())"
    )

    def act(folder: str) -> float:
        # Compiled modules, also where the checkout cannot be written to or it is switched off.
        env = {**os.environ, "PYTHONPYCACHEPREFIX": folder}
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        done = subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            capture_output=True,
            text=True,
            env=env,
            timeout=60,
        )
        return float(done.stdout) * 1e3

    @contextlib.contextmanager
    def opened(_: Size) -> Iterator[Act]:
        with tempfile.TemporaryDirectory() as folder:
            act(folder)  # compiles them
            yield lambda: min(act(folder), act(folder))

    return opened


def _ours(**openers: Opener) -> list[Contestant]:
    us = rival(OURS)
    return [
        Contestant(name.replace("_", " "), opener, us, keep=name != "after_1000")
        for name, opener in openers.items()
    ]


def _all(value: float) -> dict[str, float]:
    return dict.fromkeys(("3.11", "3.13", "3.13t", "3.15"), value)


CASES: list[Case] = [
    *(
        Case(
            f"submit-{workers}",
            f"submit then result, {workers} worker{'s' * (workers > 1)}",
            "tasks/s",
            "Submit no-ops to a warm pool, then ask each future for its result.",
            STANDARD,
            OURS,
            # With one worker joblib runs everything in the calling thread.
            _everyone(_bulk(workers), without=NO_CALLS if workers == 1 else (), extra=(Limit(),)),
            floors={"3.11": 5.5, "3.13": 4.5, "3.13t": 2.8, "3.15": 4.5},
            compiled={"3.11": 22, "3.13": 20, "3.13t": 30, "3.15": 20},
        )
        for workers in (1, 4, 16)
    ),
    Case(
        "map",
        "map(abs, range(n))",
        "tasks/s",
        "All results of `map(abs, range(n))`, 4 workers, chunks as the library makes them.",
        STANDARD,
        OURS,
        _everyone(_map(None, 1)),
        floors={"3.11": 6.0, "3.13": 5.0, "3.13t": 2.4, "3.15": 5.0},
        compiled={"3.11": 20, "3.13": 18, "3.13t": 15, "3.15": 18},
    ),
    Case(
        "map-64",
        "map(abs, range(n), chunksize=64)",
        "tasks/s",
        "The same in chunks of 64 calls, beside what `map` does with the same arguments.",
        STANDARD,
        OURS,
        _everyone(_map(64, 4), without=("anyio.to_thread",)),
        floors={"3.11": 30.0, "3.13": 25.0, "3.13t": 15.0, "3.15": 25.0},
        scale=4,
    ),
    Case(
        "round-trip",
        "round trip, p50, two cores",
        "µs",
        "`submit(noop).result()`, one after the other, the caller on one core and the worker on "
        "another; the median.",
        STANDARD,
        OURS,
        _everyone(_trip(1), without=NO_CALLS),
        floors=_all(1.0),
        turns=20,
    ),
    Case(
        "round-trip-one",
        "round trip, p50, one core",
        "µs",
        "The same with both on one core. (Left alone, the system puts them on one or on two, and "
        "changes its mind now and then: for each library that is 17 µs or 40.)",
        STANDARD,
        OURS,
        _everyone(_trip(0), without=NO_CALLS),
        floors=_all(1.0),
        turns=20,
    ),
    Case(
        "queued-bytes",
        "memory per queued task",
        "B",
        "What tracemalloc counts for no-ops queued behind a busy worker, their futures included.",
        STANDARD,
        OURS,
        _everyone(_queued, without=(*NO_QUEUE, "bounded-pool-executor")),
        "value at most",
        _all(240),
        _all(165),
    ),
    Case(
        "producers",
        "8 producers, 8 workers, queue of 100",
        "tasks/s",
        "8 threads submit no-ops and drop the results, until all have run. Pools without a bound "
        "take everything in at once. (So many, because a producer of a quarter of them is done before "
        "another gets its turn, and ThreadPoolExecutor is two to four times as fast.)",
        STANDARD,
        OURS,
        _everyone(
            _produce(4),
            without=NO_QUEUE,
            extra=(StandardBounded(),),
        ),
        floors={"3.11": 5.0, "3.13": 8.0, "3.13t": 2.3, "3.15": 8.0},
        compiled={"3.11": 10, "3.13": 12, "3.13t": 10, "3.15": 12},
        scale=4,  # or a producer is done before the next one's turn comes
    ),
    Case(
        "priorities",
        "1,000 distinct priorities, short queue",
        "tasks/s",
        "As submit then result with 4 workers, through views of one priority or of 1,000.",
        "1 priority",
        "1000 priorities",
        _ours(**{"1_priority": _priorities(1, False), "1000_priorities": _priorities(1000, False)}),
        "slowdown at most",
        _all(1.5),
        turns=5,
    ),
    Case(
        "priorities-deep",
        "1,000 distinct priorities, long queue",
        "tasks/s",
        "The same with one worker that starts when everything is queued.",
        "1 priority",
        "1000 priorities",
        _ours(**{"1_priority": _priorities(1, True), "1000_priorities": _priorities(1000, True)}),
        "slowdown at most",
        _all(1.5),
        turns=5,
    ),
    Case(
        "millionth",
        "the millionth task",
        "tasks/s",
        "As submit then result with 4 workers, in a pool that has run a thousand tasks or a "
        "million. The limit allows for noise.",
        "after 1000",
        "after 1000000",
        _ours(
            after_1000=_after(lambda size: min(1000, size.many)),
            after_1000000=_after(lambda size: size.many),
        ),
        "slowdown at most",
        _all(1.1),
    ),
    Case(
        "metrics",
        "enable_metrics=True",
        "tasks/s",
        "As submit then result with 4 workers, without and with histograms.",
        "metrics off",
        "metrics on",
        _ours(metrics_off=_metrics(False), metrics_on=_metrics(True)),
        "slowdown at most",
        _all(1.15),
        turns=5,
    ),
    Case(
        "import",
        "import time, over concurrent.futures.thread",
        "ms",
        "Fresh interpreters, compiled modules, the faster of two; what "
        "`import concurrent.futures.thread` has loaded is not counted again.",
        None,
        OURS,
        _everyone(_import, without=(STANDARD,)),
        "value at most",
        _all(15),
    ),
]  # fmt: skip


def case(key: str) -> Case:
    return next(one for one in CASES if one.key == key)


# -- in a process of its own -----------------------------------------------------------------------


def sample(one: Case, size: Size, act: Act) -> float:
    """One sample in `one.unit`."""
    if not one.rate:
        value = act()
        assert value is not None
        return value
    done, spent = 0, 0.0
    while True:
        began = time.perf_counter()
        inside = act()
        spent += time.perf_counter() - began if inside is None else inside
        done += one.tasks(size)
        if spent >= size.seconds:
            return done / spent


def serve(key: str, name: str, size: Size, answer: Callable[[object], None]) -> None:
    """Answer each line of stdin with a sample."""
    one = case(key)
    contestant = next(each for each in one.contestants if each.name == name)
    with contextlib.ExitStack() as stack:
        kept = stack.enter_context(contestant.open(size)) if contestant.keep else None
        importlib.import_module(contestant.rival.module)
        gil = getattr(sys, "_is_gil_enabled", lambda: True)()
        answer({"gil": gil})
        for _ in sys.stdin:
            gc.collect()
            if kept is not None:
                value = sample(one, size, kept)
            else:
                with contestant.open(size) as act:
                    value = sample(one, size, act)
            answer(value)


def cores() -> int:
    """Cores this process may use."""
    with contextlib.suppress(AttributeError):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu() -> str:
    """The processor's model."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def describe() -> dict[str, Any]:
    """This interpreter and this machine, without names or paths that are the user's own."""
    threaded = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
    return {
        "tag": f"{sys.version_info[0]}.{sys.version_info[1]}{'t' * threaded}",
        "python": platform.python_version() + " free-threaded" * threaded,
        "implementation": platform.python_implementation(),
        "form": form(),
        "machine": {"cpu": cpu(), "cores": cores(), "system": platform.system()},
    }


def main(words: list[str]) -> None:
    # Answers have a channel of their own: what a library prints goes to stderr.
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(value: object) -> None:
        print(json.dumps(value), file=channel, flush=True)

    if words[0] == "describe":
        answer(describe())
    elif words[0] == "look":
        answer(look(rival(words[1])))
    else:
        serve(words[1], words[2], SIZES[words[3]], answer)


if __name__ == "__main__":
    main(sys.argv[1:])
