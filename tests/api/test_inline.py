"""`futurepool.testing`: an executor that runs tasks in the thread that submits them, the same each time."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from concurrent import futures as cf
from concurrent.futures.thread import BrokenThreadPool

import pytest

from futurepool import (
    BoundedExecutor,
    CancelToken,
    Future,
    InvalidConfigError,
    OnFull,
    PoolClosedError,
    Priority,
    QueueFullError,
    TaskError,
    current_token,
)
from futurepool.testing import InlineExecutor


def test_submit_returns_when_the_task_has_run() -> None:
    """In this thread; none is started, however it was submitted."""
    before = threading.active_count()
    with InlineExecutor(name="here") as pool:
        view = pool.options(priority=Priority.LOW, name="a view's")
        ways = [
            pool.submit(threading.get_ident),
            pool.try_submit(threading.get_ident),
            pool.submit_with_timeout(0, threading.get_ident),
            pool.submit_with_priority(2, threading.get_ident),
            pool.submit_with_token(CancelToken(), threading.get_ident),
            view.submit(threading.get_ident),
        ]
        assert all(future.done() for future in ways)
        assert {future.result() for future in ways} == {threading.get_ident()}
        assert threading.active_count() == before
        assert isinstance(pool, BoundedExecutor)
        assert (pool.name, pool.stats().max_workers, pool.stats().workers) == ("here", 1, 0)
    with pytest.raises(PoolClosedError):
        pool.submit(int)


def test_what_a_task_submits_waits_for_its_end() -> None:
    """So in a task the queue is full, or in order, for certain."""
    seen: list[object] = []

    def look() -> None:
        pool.submit_with_priority(Priority.LOW, seen.append, "low")
        gone = pool.submit(seen.append, "cancelled")
        assert gone.cancel()
        pool.submit_with_priority(Priority.HIGH, seen.append, "high")
        with pytest.raises(QueueFullError):
            pool.try_submit(seen.append, "refused")
        dropped = pool.options(on_full=OnFull.DROP_NEW).submit(seen.append, "dropped")
        assert dropped.cancelled()
        assert [task.priority for task in pool.queued()] == [2, 0]
        assert [task.task_id for task in pool.running()] == [1]
        seen.append("the task itself")

    with InlineExecutor(queue_size=2) as pool:
        pool.submit(look).result()
        stats = pool.stats()
    assert seen == ["the task itself", "high", "low"]
    assert (stats.completed_tasks, stats.cancelled_tasks, stats.rejected_tasks) == (3, 1, 2)


def test_one_task_runs_at_a_time() -> None:
    """Whatever `max_workers` says: what is submitted under a lock may take that lock. The bound is theirs."""
    lock = threading.Lock()
    seen: list[int] = []

    def nest(level: int) -> None:
        with lock:
            if level < 4:
                pool.submit(nest, level + 1)
            seen.append(level)

    def fill() -> int:
        futures = [pool.try_submit(int) for _ in range(4)]
        with pytest.raises(QueueFullError):
            pool.try_submit(int)
        return len(futures)

    with InlineExecutor(3, queue_size=2) as pool:
        pool.submit(nest, 1).result()
        assert seen == [1, 2, 3, 4]
        assert pool.submit(fill).result() == 4
        pool.resize(queue_size=1)
        with pytest.raises(QueueFullError):
            pool.submit(fill).result()
        pool.resize(4)
        assert pool.submit(fill).result() == 4
        assert pool.prestart() == pool.prestart(3) == 0
        pool.submit(nest, 3).result()


@pytest.mark.parametrize("workers", [1, 3])
def test_a_task_waits_for_what_is_queued(workers: int) -> None:
    """By each way there is to wait; nested deeper than there are workers."""

    def fibonacci(n: int) -> int:
        if n < 2:
            return n
        one, other = pool.submit(fibonacci, n - 1), pool.submit(fibonacci, n - 2)
        return one.result() + other.result(timeout=30)

    def others() -> list[int]:
        futures = [pool.submit(abs, -n) for n in range(3)]
        assert cf.wait(futures, 30).not_done == set()
        later = [pool.submit(abs, -n) for n in range(3)]
        return sorted(future.result() for future in cf.as_completed(later, 30))

    async def awaited() -> int:
        return await pool.submit(abs, -3) + await pool.arun(abs, -4)

    with InlineExecutor(workers) as pool:
        assert pool.submit(fibonacci, 9).result() == 34
        assert pool.submit(others).result() == [0, 1, 2]
        assert pool.submit(asyncio.run, awaited()).result() == 7
        assert pool.wait(0)


def test_map_and_asyncio() -> None:
    """Each way to have many results, in the order of the input also where that is not promised."""
    items = range(7)

    async def all_of_them() -> list[int]:
        loop = asyncio.get_running_loop()
        found = [x async for x in pool.amap(abs, items, ordered=False)]
        return [*found, await pool.arun(abs, -1), await loop.run_in_executor(pool, abs, -2)]

    with InlineExecutor(queue_size=2) as pool:
        assert list(pool.map(abs, items)) == list(items)
        assert list(pool.map(abs, items, chunksize=3)) == list(items)
        assert list(pool.map(abs, items, buffersize=1)) == list(items)
        assert list(pool.map_unordered(abs, items)) == list(items)
        assert asyncio.run(all_of_them()) == [*items, 1, 2]
        with pool.group() as group:
            group.submit(abs, 1)


def test_errors_tokens_and_contexts() -> None:
    """As in any pool."""
    variable = contextvars.ContextVar[str]("variable", default="unset")
    told: list[TaskError] = []
    with InlineExecutor(error_handler=told.append) as pool:
        future = pool.options(name="number").submit(int, "x")
        with pytest.raises(ValueError, match="invalid literal"):
            future.result()
        assert [error.task_name for error in told] == ["number"]

        variable.set("the submitter's")
        pool.submit(variable.set, "the task's").result()
        assert pool.submit(variable.get).result() == variable.get() == "the submitter's"

        token = CancelToken()
        seen = pool.submit_with_token(token, lambda: (token.cancel("why"), current_token().reason))
        assert seen.result()[1] == "why"
        assert pool.submit_with_token(token, int).cancelled()
        future = Future[int]()
        pool.submit(int).add_done_callback(lambda _: future.set_result(pool.submit(int).result()))
        assert future.result(0) == 0


def test_an_interrupt_is_the_callers_too() -> None:
    """What else ends only a task does so here; the pool works on."""

    def interrupted() -> None:
        later.append(pool.submit(abs, -1))
        raise KeyboardInterrupt

    later: list[Future[int]] = []
    with InlineExecutor(error_handler=id) as pool:
        with pytest.raises(KeyboardInterrupt):
            pool.submit(interrupted)
        assert later[0].result(0) == 1
        assert type(pool.submit(exit, 3).exception()) is SystemExit
        assert pool.submit(abs, -2).result() == 2
        assert pool.stats().failed_tasks == 2


def test_the_initializer() -> None:
    """Once in each thread; one that fails breaks the pool."""
    variable = contextvars.ContextVar[str]("variable")
    calls: list[int] = []

    def start(value: str) -> None:
        calls.append(threading.get_ident())
        variable.set(value)

    def both() -> None:
        assert pool.submit(variable.get).result() == pool.submit(variable.get).result() == "set"

    with InlineExecutor(initializer=start, initargs=("set",)) as pool:
        context = contextvars.Context()
        context.run(both)
        other = threading.Thread(target=both)
        other.start()
        other.join(30)
    assert len(calls) == len(set(calls)) == 2
    with InlineExecutor(initializer=int, initargs=("x",)) as broken:
        with pytest.raises(BrokenThreadPool):
            broken.submit(int).result()
        with pytest.raises(BrokenThreadPool):
            broken.submit(int)


def test_threads_that_submit_at_the_same_time() -> None:
    """Every task runs, once, in one of them; a full pool makes them wait."""
    ran: list[int] = []
    errors: list[BaseException] = []

    def submits() -> None:
        try:
            for _ in range(200):
                pool.submit(ran.append, threading.get_ident()).result(30)
        except BaseException as error:
            errors.append(error)

    with InlineExecutor(2, queue_size=0) as pool:
        threads = [threading.Thread(target=submits) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        stats = pool.stats()
    assert errors == []
    assert len(ran) == stats.completed_tasks == stats.submitted_tasks == 800
    assert set(ran) <= {thread.ident for thread in threads}


def test_an_engine_is_refused() -> None:
    """It has none of its own."""
    with cf.ThreadPoolExecutor(1) as engine:
        for workers in (None, 1):
            with pytest.raises(InvalidConfigError, match="no engine"):
                InlineExecutor(workers, engine=engine)
