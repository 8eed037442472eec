"""What tests of several folders do with a pool."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from futurepool import BoundedExecutor

#: Has a pool call a function with 0, and gives what that returned.
Way = Callable[[BoundedExecutor, Callable[[Any], Any]], Any]


async def _amap(pool: BoundedExecutor, fn: Any) -> Any:
    return [result async for result in pool.amap(fn, [0])][0]


async def _in_loop(pool: BoundedExecutor, fn: Any) -> Any:
    return await asyncio.get_running_loop().run_in_executor(pool, fn, 0)


WAYS: dict[str, Way] = {
    "submit": lambda pool, fn: pool.submit(fn, 0).result(30),
    "try_submit": lambda pool, fn: pool.try_submit(fn, 0).result(30),
    "options": lambda pool, fn: pool.options(priority=7, name="x").submit(fn, 0).result(30),
    "map": lambda pool, fn: next(pool.map(fn, [0])),
    "map of a generator": lambda pool, fn: next(pool.map(fn, iter([0]))),
    "map in chunks": lambda pool, fn: next(pool.map(fn, [0, 1], chunksize=2)),
    "lazy map": lambda pool, fn: next(pool.map(fn, [0], buffersize=1)),
    "map_unordered": lambda pool, fn: next(pool.map_unordered(fn, [0])),
    "arun": lambda pool, fn: asyncio.run(pool.arun(fn, 0)),
    "amap": lambda pool, fn: asyncio.run(_amap(pool, fn)),
    "run_in_executor": lambda pool, fn: asyncio.run(_in_loop(pool, fn)),
}


def hold(pool: Any, gate: threading.Event, number: int = 1) -> list[Any]:
    """So many tasks that run, surely, until the gate opens."""
    running = threading.Semaphore(0)

    def held() -> bool:
        running.release()
        return gate.wait(30)

    futures = [pool.submit(held) for _ in range(number)]
    for _ in futures:
        assert running.acquire(timeout=30)
    return futures


def until(holds: Callable[[], object]) -> None:
    """Wait for what another thread is about to do, and nobody announces."""
    pause = threading.Event()
    for _ in range(30_000):
        if holds():
            return
        pause.wait(0.001)
    raise AssertionError("it did not happen")
