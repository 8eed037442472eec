"""What must type-check, and to which types. Read by mypy and pyright, never run."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor, as_completed, wait
from concurrent.futures import Future as StandardFuture
from typing import Any, TypeVar

from typing_extensions import assert_type

import futurepool
from futurepool import (
    BoundedExecutor,
    CancelToken,
    ExecutorView,
    ForcedShutdownError,
    Future,
    FuturePoolError,
    Histogram,
    Observer,
    OnFull,
    PoolClosedError,
    Priority,
    QueuedTask,
    QueueFullError,
    RunningTask,
    Stats,
    SubmitTimeoutError,
    TaskError,
    TaskEvent,
    TaskExpiredError,
    TaskGroup,
    TaskTimeoutError,
    Trace,
    ViewStats,
    current_token,
    pools,
    serve,
)

T = TypeVar("T")


def scale(image: str, factor: float, *, sharp: bool = False) -> bytes:
    return image.encode()


def keywords(*, fn: int, timeout: float, token: str, priority: str, name: str) -> None:
    """Names that the methods use themselves, and must leave to the task."""


def same(value: T) -> T:
    return value


def five(a: str, b: int, c: float, d: bytes, e: bool) -> str:
    return a


def six(a: str, b: int, c: float, d: bytes, e: bool, f: None) -> str:
    return a


async def fetch(url: str) -> bytes:
    return url.encode()


class Scaler:
    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, image: str) -> bytes:
        return image.encode()

    def scale(self, image: str) -> bytes:
        return image.encode()

    @classmethod
    def make(cls, factor: float) -> Scaler:
        return cls(factor)


# -- making an executor ----------------------------------------------------------------------------


def handle(error: TaskError) -> None:
    assert_type(error.task_id, int)
    assert_type(error.task_name, str)
    assert_type(error.cause, BaseException)
    assert_type(error.traceback, str)


pool = BoundedExecutor(
    4, "name", print, ("x",), queue_size=None, on_full=OnFull.RAISE, error_handler=handle, aging=1.5
)
BoundedExecutor(None, shutdown_timeout=1, enable_metrics=True, aging=None, engine=None)
BoundedExecutor(error_handler=print)  # its result is not looked at
assert_type(pool, BoundedExecutor)

# -- submitting ------------------------------------------------------------------------------------

assert_type(pool.submit(scale, "a", 2.0), Future[bytes])
assert_type(pool.submit(scale, image="a", factor=2, sharp=True), Future[bytes])
assert_type(pool.submit(Scaler, 2), Future[Scaler])
assert_type(pool.submit(Scaler(2), "a"), Future[bytes])
assert_type(pool.submit(Scaler(2).scale, image="a"), Future[bytes])
assert_type(pool.submit(Scaler.make, factor=2), Future[Scaler])
assert_type(pool.submit(functools.partial(scale, "a"), 2.0), Future[bytes])
assert_type(pool.submit(lambda: 3), Future[int])
assert_type(pool.submit(same, "a"), Future[str])
assert_type(pool.submit(keywords, fn=1, timeout=2, token="a", priority="b", name="c"), Future[None])
assert_type(pool.try_submit(scale, "a", 2.0), Future[bytes])
assert_type(pool.submit_with_timeout(1, scale, "a", 2.0), Future[bytes])
assert_type(pool.submit_with_timeout(None, scale, "a", factor=2), Future[bytes])
assert_type(
    pool.submit_with_timeout(1, keywords, fn=1, timeout=2, token="a", priority="b", name="c"),
    Future[None],
)
assert_type(pool.submit_with_priority(Priority.HIGH, scale, "a", 2.0), Future[bytes])
assert_type(pool.submit_with_priority(-7, scale, "a", 2.0, sharp=True), Future[bytes])
assert_type(pool.submit_with_token(CancelToken(), scale, "a", 2.0), Future[bytes])

# -- views -----------------------------------------------------------------------------------------

view = pool.options(priority=3, timeout=1.0, token=None, on_full=OnFull.BLOCK, name="n")
assert_type(view, ExecutorView)
assert_type(pool.options(), ExecutorView)
assert_type(pool.options(max_wait=0.5).options(max_wait=None), ExecutorView)
assert_type(pool.options(run_timeout=0.5, abandon=True).options(run_timeout=None), ExecutorView)
assert_type(pool.options(limit=2, name="db").options(key="a", key_limit=1), ExecutorView)
assert_type(view.options(priority=Priority.LOW, timeout=None, token=CancelToken()), ExecutorView)
assert_type(view.submit(scale, "a", 2.0), Future[bytes])
assert_type(view.try_submit(scale, "a", 2.0), Future[bytes])
assert_type(view.submit_with_timeout(1, scale, "a", 2.0), Future[bytes])
assert_type(view.submit_with_priority(1, scale, "a", 2.0), Future[bytes])
assert_type(view.submit_with_token(CancelToken(), scale, "a", 2.0), Future[bytes])
assert_type(view.options(name=None).submit(len, "a"), Future[int])

# -- map -------------------------------------------------------------------------------------------

assert_type(pool.map(len, ["a"]), Iterator[int])
assert_type(pool.map(scale, ["a"], [2.0]), Iterator[bytes])
assert_type(pool.map(scale, ("a", "b"), iter([2])), Iterator[bytes])
assert_type(pool.map(same, ["a"]), Iterator[str])
assert_type(pool.map(lambda number: number + 0.5, [1]), Iterator[float])
assert_type(pool.map(Scaler, [1.5]), Iterator[Scaler])
assert_type(pool.map(int, ["1"]), Iterator[int])
assert_type(pool.map(functools.partial(scale, "a"), [2.0]), Iterator[bytes])
assert_type(pool.map(five, ["a"], [1], [2.0], [b"a"], [True]), Iterator[str])
assert_type(pool.map(six, ["a"], [1], [2.0], [b"a"], [True], [None]), Iterator[str])
assert_type(pool.map_unordered(scale, ["a"], [2.0], chunksize=2), Iterator[bytes])
assert_type(pool.map(int, ["1"], return_exceptions=True), Iterator["int | Exception"])
assert_type(pool.map_unordered(int, ["1"], return_exceptions=True), Iterator["int | Exception"])
assert_type(pool.map(int, ["1"], return_exceptions=False), Iterator[int])
assert_type(view.map(five, "a", [1], [2.0], [b"a"], [True]), Iterator[str])
assert_type(pool.map(len, ["a"], timeout=1, chunksize=2, buffersize=3), Iterator[int])
assert_type(pool.map_unordered(len, ["a"], timeout=None, buffersize=None), Iterator[int])
assert_type(view.map(len, ["a"]), Iterator[int])
assert_type(view.map_unordered(len, ["a"], timeout=1, chunksize=2), Iterator[int])

# -- size ------------------------------------------------------------------------------------------

assert_type(BoundedExecutor(4, order="adaptive", adaptive_wait=0.05).closed, bool)
assert_type(BoundedExecutor(4, idle_timeout=60, min_workers=2, slow_task=1.5).prestart(2), int)
assert_type(pool.resize(2), None)
assert_type(pool.resize(queue_size=None), None)
assert_type(pool.map(len, ["a"], return_exceptions=True), Iterator[int | Exception])

# -- groups ----------------------------------------------------------------------------------------

with pool.group() as group:
    assert_type(group, TaskGroup)
    assert_type(group.submit(scale, "a", 2.0), Future[bytes])
    assert_type(group.map(len, ["a"]), Iterator[int])
    assert_type(group.options(name="x").submit(len, "a"), Future[int])
    assert_type(group.cancel("why"), bool)
    assert_type(group.token, CancelToken)
    with group.group() as inner:
        assert_type(inner, TaskGroup)
assert_type(view.group(), TaskGroup)

# -- futures ---------------------------------------------------------------------------------------

future = pool.submit(len, "a")
assert_type(future.result(), int)
assert_type(future.result(timeout=1.5), int)
assert_type(future.exception(1), "BaseException | None")
assert_type(future.task_id, int)
assert_type(future.name, str)
assert_type(future.priority, int)
assert_type(future.cancel(), bool)
assert_type(future.done(), bool)
future.add_done_callback(lambda done: assert_type(done, Future[int]))
standard: StandardFuture[int] = future
assert_type(wait([future]).done, set[StandardFuture[int]])
for finished in as_completed([future, future]):
    assert_type(finished.result(), int)

# -- tokens ----------------------------------------------------------------------------------------

parent = CancelToken()
assert_type(CancelToken(1, parent=parent).child(timeout=0.5), CancelToken)
assert_type(current_token(), CancelToken)
assert_type(parent.cancelled, bool)
assert_type(parent.reason, object)
assert_type(parent.remaining, "float | None")
assert_type(parent.wait(0), bool)
assert_type(parent.cancel(ValueError("any object")), bool)
parent.raise_if_cancelled()
parent.add_callback(lambda it: assert_type(it, CancelToken))
assert_type(parent.remove_callback(print), int)

# -- what it is doing, and the end -----------------------------------------------------------------

stats = pool.stats()
assert_type(stats, Stats)
assert_type(stats.name, str)
assert_type(stats.max_workers, int)
assert_type(stats.workers, int)
assert_type(stats.active_workers, int)
assert_type(stats.queued_tasks, int)
assert_type(stats.queue_size, "int | None")
assert_type(stats.submitted_tasks, int)
assert_type(stats.completed_tasks, int)
assert_type(stats.failed_tasks, int)
assert_type(stats.cancelled_tasks, int)
assert_type(stats.rejected_tasks, int)
assert_type(stats.overflow_tasks, int)
assert_type(stats.average_latency, float)
assert_type(stats.average_wait, float)
assert_type(stats.last_error, "TaskError | None")
assert_type(stats.uptime, float)
assert_type(stats.closed, bool)
assert_type(stats.waiting_submitters, int)
assert_type(stats.abandoned_workers, int)
assert_type(stats.oldest_queued, float)
assert_type(stats.rejections, Mapping[str, int])
for histogram in (stats.latency, stats.wait, stats.admission):
    if histogram is not None:
        assert_type(histogram, Histogram)
        assert_type(histogram.p50 + histogram.p90 + histogram.p99 + histogram.max, float)
        assert_type(histogram.sum, float)
        assert_type(histogram.count, int)
        assert_type(histogram.buckets, tuple[tuple[float, int], ...])
        assert_type(histogram.cumulative([0.1, 1]), list[int])
for each in pool.stats().views.values():
    assert_type(each, ViewStats)
    assert_type((each.name, each.limit), tuple[str, "int | None"])
    assert_type((each.active_tasks, each.queued_tasks, each.submitted_tasks), tuple[int, int, int])
    assert_type((each.average_latency, each.average_wait), tuple[float, float])
    assert_type(each.latency, "Histogram | None")
for running in pool.running(stack=True):
    assert_type(running, RunningTask)
    assert_type(running.task_id, int)
    assert_type((running.name, running.worker), tuple[str, str])
    assert_type((running.seconds, running.waited), tuple[float, float])
    assert_type(running.stack, "str | None")
for queued in pool.queued():
    assert_type(queued, QueuedTask)
    assert_type((queued.task_id, queued.name), tuple[int, str])
    assert_type((queued.priority, queued.seconds), tuple[int, float])
assert_type(pools(), list[BoundedExecutor])


class Counting(Observer):
    def finished(self, event: TaskEvent) -> None:
        assert_type((event.kind, event.pool, event.name), tuple[str, str, str])
        assert_type((event.task_id, event.priority, event.time), tuple[int, int, float])
        assert_type(event.worker, "str | None")
        assert_type((event.waited, event.ran), "tuple[float | None, float | None]")
        assert_type((event.outcome, event.error), "tuple[str | None, str | None]")


pool.add_observer(Counting())
pool.remove_observer(Counting())
with pool.record(limit=10) as trace:
    assert_type(trace, Trace)
trace.save("out.json")
assert_type(serve(), str)
assert_type(pool.wait(), bool)
assert_type(pool.closed, bool)
pool.stop()
pool.stop(None)
pool.stop(timeout=1, token=CancelToken())
pool.shutdown(False, cancel_futures=True)

# -- errors ----------------------------------------------------------------------------------------

try:
    future.result()
except ForcedShutdownError as forced:
    assert_type(forced.unfinished, tuple[RunningTask, ...])
except SubmitTimeoutError as late:
    full: QueueFullError = late
    timeout: TimeoutError = late
    assert_type(late.waited, float)
except QueueFullError as error:
    assert_type(error.limit, "int | None")
except TaskExpiredError as expired:
    timeout = expired
    assert_type(expired.waited, "float | None")
except TaskTimeoutError as overdue:
    timeout = overdue
    assert_type(overdue.run_timeout, "float | None")
except PoolClosedError as closed:
    base: FuturePoolError = closed
    runtime: RuntimeError = closed
except ValueError as error:
    if isinstance(error, TaskError):  # as the README has it
        assert_type(error.cause, BaseException)

# -- with blocks -----------------------------------------------------------------------------------


class Own(BoundedExecutor):
    """Subclasses stay what they are."""


with BoundedExecutor() as inside, CancelToken() as token, Own() as own, pool.options() as light:
    assert_type(inside, BoundedExecutor)
    assert_type(token, CancelToken)
    assert_type(own, Own)
    assert_type(light, ExecutorView)


def never_swallows() -> int:
    """A block that could swallow exceptions would need a return after it."""
    with BoundedExecutor() as executor, CancelToken(), executor.options():
        return executor.submit(len, "a").result()


# -- where executors go ----------------------------------------------------------------------------


def takes_executor(executor: Executor) -> StandardFuture[int]:
    return executor.submit(len, "a")


def takes_thread_pool(executor: ThreadPoolExecutor) -> StandardFuture[int]:
    return executor.submit(len, "a")


takes_executor(pool)
takes_executor(view)
takes_thread_pool(pool)
assert_type(
    futurepool.BoundedExecutor(engine=ThreadPoolExecutor(), close_engine=False), BoundedExecutor
)


async def words() -> AsyncIterator[str]:
    yield "a"


async def main() -> None:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(pool)
    assert_type(await loop.run_in_executor(pool, scale, "a", 2.0), bytes)
    assert_type(await loop.run_in_executor(view, len, "a"), int)
    assert_type(await asyncio.wrap_future(pool.submit(len, "a")), int)
    assert_type(await pool.submit(len, "a"), int)
    started: Future[Coroutine[Any, Any, bytes]] = pool.submit(fetch, "a")
    assert_type(await started.result(), bytes)
    assert_type(await view.submit(scale, "a", 2.0), bytes)
    assert_type(await asyncio.gather(pool.submit(len, "a"), pool.submit(str, 1)), tuple[int, str])
    assert_type(await pool.arun(scale, "a", factor=2.0, sharp=True), bytes)
    assert_type(await view.arun(keywords, fn=1, timeout=2, token="", priority="", name=""), None)
    assert_type(pool.amap(len, ["a"]), AsyncIterator[int])
    assert_type(pool.amap(same, words()), AsyncIterator[str])
    assert_type(pool.amap(int, ["1"], return_exceptions=True), AsyncIterator["int | Exception"])
    assert_type(view.amap(lambda number: number + 0.5, [1]), AsyncIterator[float])
    async for size in view.amap(len, words(), buffersize=3, ordered=False):
        assert_type(size, int)
    async with BoundedExecutor() as inside, Own() as own:
        assert_type(inside, BoundedExecutor)
        assert_type(own, Own)
    assert_type(await pool.astop(), None)
    await pool.astop(timeout=None, token=CancelToken())
    async with BoundedExecutor().stopping(5) as stopped, Own().stopping() as own:
        assert_type(stopped, BoundedExecutor)
        assert_type(own, Own)


def leaves_by_stop() -> int:
    with Own().stopping(timeout=1, token=CancelToken()) as own:
        assert_type(own, Own)
        return own.submit(len, "a").result()


async def never_swallows_either() -> int:
    async with BoundedExecutor() as executor:
        return await executor.arun(len, "a")
