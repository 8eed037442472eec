"""What pools, threads and tasks are called, and what messages call them."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import pickle
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from futurepool import BoundedExecutor, OnFull, QueueFullError, SubmitTimeoutError
from tests.helpers import hold


def work(*_: object) -> str:
    return threading.current_thread().name


# -- pools ---------------------------------------------------------------------------------------


def test_a_name_is_in_the_repr_and_the_threads() -> None:
    """Of the pool, and of its views."""
    with BoundedExecutor(2, queue_size=5, name="db") as pool:
        assert pool.name == "db"
        assert pool.submit(work).result() == "db_0"
        assert repr(pool) == "<BoundedExecutor 'db' max_workers=2 queue_size=5 running>"
        assert repr(pool) in repr(pool.options(priority=2))


def test_a_prefix_of_their_own_names_the_threads() -> None:
    """The pool keeps its name."""
    with BoundedExecutor(1, thread_name_prefix="worker", name="db") as pool:
        assert (pool.name, pool.submit(work).result()) == ("db", "worker_0")


def test_without_a_name_it_is_called_what_its_threads_are() -> None:
    """So that messages name it anyway."""
    with BoundedExecutor(1, "fetch") as pool:
        assert (pool.name, pool.submit(work).result()) == ("fetch", "fetch_0")


@pytest.mark.parametrize("prefix", [None, ""])
def test_threads_without_a_prefix(prefix: Any) -> None:
    """They are numbered together with those of the standard class: no name comes twice."""
    with ThreadPoolExecutor(1) as other, BoundedExecutor(1, prefix) as pool:
        theirs, ours = other.submit(work).result(), pool.submit(work).result()
        number = int(theirs.removeprefix("ThreadPoolExecutor-").removesuffix("_0"))
        assert ours == f"ThreadPoolExecutor-{number + 1}_0"
        assert pool._thread_name_prefix == pool.name == f"ThreadPoolExecutor-{number + 1}"


@pytest.mark.parametrize(("prefix", "name"), [(3, "3_0"), (("a", 1), "('a', 1)_0")])
def test_a_prefix_is_whatever_has_a_text(prefix: Any, name: str) -> None:
    """As in the standard library, where it is only put before the number."""
    with BoundedExecutor(1, prefix) as pool:
        assert pool.submit(work).result() == name


class Named(BoundedExecutor):
    """A subclass from before: it had these names to itself."""

    def __init__(self, name: str) -> None:
        self.name = name  # type: ignore[misc]
        super().__init__(1)
        self.closed = "not yet"  # type: ignore[assignment, misc]
        self._core = self._options = self._pool = self._queue = self._state = "its own"


def test_a_subclass_with_attributes_of_its_own() -> None:
    """They are its own, and the pool does not look at them."""
    with Named("mine") as pool:
        assert (pool.name, pool.closed, pool._pool) == ("mine", "not yet", "its own")
        assert pool.submit(int).result() == 0
        assert list(pool.map(abs, [-1])) == list(pool.options(name="n").map(abs, [-1])) == [1]
    assert pool._shutdown is True


@pytest.mark.parametrize(
    ("size", "threads"), [(1.0, 1), (2.5, 3), (True, 1), (0.5, 1), (float("inf"), 5)]
)
def test_max_workers_may_be_any_number(size: Any, threads: int) -> None:
    """`os.cpu_count() / 2` works with the standard class: threads start while they are fewer."""
    results = []
    for kind in (ThreadPoolExecutor, BoundedExecutor):
        barrier = threading.Barrier(threads)
        with kind(size) as pool:
            waiting = [pool.submit(barrier.wait, 30) for _ in range(threads)]
            results.append(sorted(future.result() for future in waiting))
    assert results == [list(range(threads))] * 2


# -- a full queue --------------------------------------------------------------------------------


def refusals(pool: BoundedExecutor) -> Iterator[tuple[Callable[[], object], str]]:
    named = pool.options(name="import of a.csv", on_full=OnFull.RAISE)
    yield (lambda: pool.try_submit(work)), "task 'work'"
    yield (lambda: named.submit(work)), "task 'import of a.csv'"
    yield (lambda: pool.submit_with_timeout(0.01, work)), "task 'work'"
    yield (lambda: asyncio.run(arun_in_time(pool))), "task 'work'"


async def arun_in_time(pool: BoundedExecutor) -> object:
    return await pool.options(timeout=0.01).arun(work)


def test_a_full_queue_says_what_it_holds(gate: threading.Event) -> None:
    """Which pool, which task, how many run and wait, how long it waited."""
    with BoundedExecutor(1, queue_size=1, name="db") as pool:
        hold(pool, gate)
        pool.submit(work)
        for submit, task in refusals(pool):
            with pytest.raises(QueueFullError) as caught:
                submit()
            error = caught.value
            start = f"queue of pool 'db' is full: no place for {task}"
            assert str(error).startswith(start)
            assert str(error).endswith("(1 running, 1 of 1 queued)")
            late = isinstance(error, SubmitTimeoutError)
            assert late == (" s of waiting " in str(error)) == (error.waited > 0)
            data = (error.pool, error.limit, error.running, error.queued, error.queue_size)
            assert data == ("db", 2, 1, 1, 1)
            assert repr(error) == f"{type(error).__name__}({str(error)!r})"
            assert str(pickle.loads(pickle.dumps(error))) == str(error)
        gate.set()


def test_a_refusal_of_a_users_own() -> None:
    """It says what it is told."""

    class Mine(QueueFullError):
        def __init__(self, text: str) -> None:
            super().__init__()
            self.args = (text,)

    assert (str(Mine("no")), repr(Mine("no"))) == ("no", "Mine('no')")
    assert str(QueueFullError()) == "queue is full"


# -- tasks that others wrap ----------------------------------------------------------------------


class SyncToAsync:
    """As asgiref's: the executor gets this method, and what it is to run as the last argument."""

    def thread_handler(self, _loop: object, fn: Callable[[], object]) -> object:
        return fn()


async def by_to_thread() -> object:
    return await asyncio.to_thread(work, 1)


async def by_sync_to_async() -> object:
    asgiref = pytest.importorskip("asgiref.sync")
    return await asgiref.sync_to_async(work, thread_sensitive=False)(1)


run = contextvars.copy_context().run
CARRIERS: dict[str, Callable[[BoundedExecutor], Any]] = {
    "context.run": lambda pool: pool.submit(contextvars.copy_context().run, work, 1),
    "partial of context.run": lambda pool: pool.submit(functools.partial(run, work, 1)),
    "context.run of a partial": lambda pool: pool.submit(run, functools.partial(work, 1)),
    "context.run of context.run": lambda pool: pool.submit(
        contextvars.copy_context().run, contextvars.copy_context().run, work
    ),
    "handler": lambda pool: pool.submit(
        functools.partial(SyncToAsync().thread_handler, None, functools.partial(work, 1))
    ),
}


@pytest.mark.parametrize("carrier", CARRIERS)
def test_a_task_is_called_what_it_runs(carrier: str, gate: threading.Event) -> None:
    """Before and after it has run, whatever carries it."""
    with BoundedExecutor(1) as pool:
        pool.submit(gate.wait, 30)
        future = CARRIERS[carrier](pool)
        assert future.name == "work"
        gate.set()
        future.result(30)
        assert future.name == "work"


@pytest.mark.parametrize("submit", [by_to_thread, by_sync_to_async])
def test_a_task_of_a_loop_is_called_what_it_runs(submit: Callable[[], Any]) -> None:
    """By the real thing; the pool is the loop's own."""
    names: list[str] = []

    class Noting(BoundedExecutor):
        def submit(self, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
            future = super().submit(*args, **kwargs)
            names.append(future.name)
            return future

    async def main() -> None:
        asyncio.get_running_loop().set_default_executor(Noting(1))
        await submit()

    asyncio.run(main())
    assert names == ["work"]


def test_each_task_of_one_context_has_its_own_name() -> None:
    """The worker keeps the name of the latest function only where that is all there is to it."""
    with BoundedExecutor(1) as pool:
        both = [pool.submit(run, work), pool.submit(run, int)]
        assert [future.result(30) for future in both][1] == 0
        assert [future.name for future in both] == ["work", "int"]


@pytest.mark.parametrize("bad", [(run,), (functools.partial(run),)])
def test_context_run_of_nothing(bad: tuple[Any, ...]) -> None:
    """It fails, and is called what it is."""
    with BoundedExecutor(1) as pool:
        future = pool.submit(*bad)
        assert isinstance(future.exception(30), TypeError)
        assert future.name == "Context.run"


# -- asynchronous functions ----------------------------------------------------------------------


async def coroutine_function() -> int:
    return 1


async def generator_function() -> AsyncIterator[int]:
    yield 1


class AsyncCallable:
    async def __call__(self) -> int:
        return 1

    async def method(self) -> int:
        return 1


ASYNC: list[tuple[Any, str]] = [
    (coroutine_function, "a coroutine function"),
    (generator_function, "an asynchronous generator function"),
    (functools.partial(coroutine_function), "a coroutine function"),
    (functools.partial(functools.partial(generator_function)), "an asynchronous generator"),
    (AsyncCallable(), "a coroutine function"),
    (functools.partial(AsyncCallable()), "a coroutine function"),
    (AsyncCallable().method, "a coroutine function"),
]
if hasattr(inspect, "markcoroutinefunction"):
    ASYNC.append((inspect.markcoroutinefunction(coroutine_function), "a coroutine"))


@pytest.mark.parametrize(("fn", "kind"), ASYNC)
def test_arun_and_amap_refuse_asynchronous_functions(fn: Any, kind: str) -> None:
    """Nothing of them would run in the pool."""

    async def main() -> None:
        with BoundedExecutor(1) as pool:
            with pytest.raises(TypeError, match=rf"^arun\(\) runs plain functions.* is {kind}"):
                await pool.arun(fn)
            with pytest.raises(TypeError, match=rf"^arun\(\) runs plain functions.* is {kind}"):
                await pool.options(timeout=5).arun(fn)
            with pytest.raises(TypeError, match=rf"^amap\(\) runs plain functions.* is {kind}"):
                pool.amap(fn, [1])
            assert pool.stats().submitted_tasks == 0

    asyncio.run(main())


@pytest.mark.parametrize("fn", [coroutine_function, AsyncCallable()])
def test_submit_returns_what_calling_returns(fn: Any) -> None:
    """A coroutine, as there: some hand it back to their loop."""
    with BoundedExecutor(1) as pool:
        assert asyncio.run(pool.submit(fn).result(30)) == 1
        (coroutine,) = pool.map(lambda call: call(), [fn])
        assert asyncio.run(coroutine) == 1


def test_arun_of_a_class_that_is_awaitable_elsewhere() -> None:
    """What only makes such an object is a plain function."""

    async def main() -> None:
        with BoundedExecutor(1) as pool:
            assert isinstance(await pool.arun(AsyncCallable), AsyncCallable)

    asyncio.run(main())


# -- without an event loop of asyncio's ----------------------------------------------------------


def test_arun_under_trio() -> None:
    """It says what to do there."""
    trio = pytest.importorskip("trio")
    with BoundedExecutor(1) as pool:

        async def await_a_future() -> None:
            gate = threading.Event()
            future = pool.submit(gate.wait, 30)
            try:
                await future
            finally:
                gate.set()

        async def leave() -> None:
            async with pool:
                pass

        for what, use in [
            (r"arun\(\)", lambda: pool.arun(work)),
            ("await of a future", await_a_future),
            ("async with", leave),
        ]:
            expected = f"^{what} needs a running asyncio event loop; under trio, `await trio"
            with pytest.raises(RuntimeError, match=expected):
                trio.run(use)


def test_arun_without_a_loop() -> None:
    """A coroutine that somebody drives by hand."""
    with BoundedExecutor(1) as pool, pytest.raises(RuntimeError, match="elsewhere, `pool.submit"):
        pool.arun(work).send(None)
