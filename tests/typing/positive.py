"""What must type-check, and to which types. Read by mypy and pyright, never run."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor

from typing_extensions import assert_type

from futurepool import (
    BoundedExecutor,
    CancelToken,
    ExecutorView,
    Future,
    OnFull,
    Priority,
    RunningTask,
    Stats,
    TaskError,
    current_token,
)


def scale(image: str, factor: float, *, sharp: bool = False) -> bytes:
    return image.encode()


def handle(error: TaskError) -> None:
    assert_type(error.task_id, int)
    assert_type(error.name, str)
    assert_type(error.cause, BaseException)
    assert_type(error.traceback, str)


pool = BoundedExecutor(
    4, "name", print, ("x",), queue_size=None, on_full=OnFull.RAISE, error_handler=handle, aging=1.5
)
assert_type(pool.submit(scale, "a", 2.0), Future[bytes])
assert_type(pool.submit(scale, image="a", factor=2, sharp=True), Future[bytes])
assert_type(pool.try_submit(scale, "a", 2.0), Future[bytes])
assert_type(pool.submit_with_timeout(1, scale, "a", 2.0), Future[bytes])
assert_type(pool.submit_with_priority(Priority.HIGH, scale, "a", 2.0), Future[bytes])
assert_type(pool.submit_with_token(CancelToken(), scale, "a", 2.0), Future[bytes])
view = pool.options(priority=3, timeout=1.0, token=None, on_full=OnFull.BLOCK, name="n")
assert_type(view, ExecutorView)
assert_type(view.submit(scale, "a", 2.0), Future[bytes])
assert_type(view.options(name=None).submit(len, "a"), Future[int])
assert_type(pool.submit(len, "a").result(), int)
assert_type(pool.submit(len, "a").exception(1), "BaseException | None")
assert_type(pool.submit(len, "a").task_id, int)
assert_type(pool.map(len, ["a"], chunksize=2, buffersize=3), Iterator[int])
assert_type(view.map_unordered(len, ["a"], timeout=1), Iterator[int])
assert_type(pool.stats(), Stats)
assert_type(pool.stats().queued_tasks, int)
assert_type(pool.stats().last_error, "TaskError | None")
assert_type(pool.running(stack=True), list[RunningTask])
assert_type(pool.wait(), bool)
assert_type(pool.closed, bool)
assert_type(current_token().remaining, "float | None")
assert_type(CancelToken(1, parent=CancelToken()).child().wait(0), bool)
pool.submit(len, "a").add_done_callback(lambda future: assert_type(future, Future[int]))

with BoundedExecutor() as inside, CancelToken() as token:
    assert_type(inside, BoundedExecutor)
    assert_type(token, CancelToken)

executor: Executor = view
thread_pool: ThreadPoolExecutor = pool


async def main() -> None:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(pool)
    assert_type(await loop.run_in_executor(view, len, "a"), int)
    assert_type(await pool.submit(len, "a"), int)
