"""asyncio: arun, amap, async with, await; and that the loop is never blocked."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import sysconfig
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from futurepool import (
    BoundedExecutor,
    CancelToken,
    Future,
    OnFull,
    PoolClosedError,
    QueueFullError,
    SubmitTimeoutError,
    TaskError,
    current_token,
)
from futurepool._aio import Mailbox


def _uvloop(main: Awaitable[Any]) -> Any:
    try:
        import uvloop
    except ImportError:
        main.close()  # type: ignore[attr-defined]
        pytest.skip("uvloop is not installed")
    loop = uvloop.new_event_loop()
    try:
        return loop.run_until_complete(asyncio.wait_for(main, 40))
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def _asyncio(main: Awaitable[Any]) -> Any:
    return asyncio.run(asyncio.wait_for(main, 40))


@pytest.fixture(params=[_asyncio, _uvloop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    return request.param


async def ticks() -> None:
    """Let everything that can happen in the loop happen."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_arun_looks_at_each_other_function(run: Any) -> None:
    """One that was submitted before need not be looked at again, while its task is there; no other passes for it."""
    go = threading.Event()

    async def wrong() -> None:
        raise AssertionError("nothing awaits this")

    async def main() -> None:
        def plain() -> int:
            assert go.wait(30)
            return 1

        async with BoundedExecutor(2) as ex:
            tasks = [asyncio.ensure_future(ex.arun(plain)) for _ in range(3)]
            await ticks()
            with pytest.raises(TypeError, match="coroutine function"):
                await ex.arun(wrong)
            go.set()
            assert await asyncio.gather(*tasks) == [1, 1, 1]
            gone = weakref.ref(plain)
            del plain
            await ex.arun(int)
            await ticks()
            assert ex.stats().completed_tasks == 4
            gc.collect()
            assert gone() is None

    run(main())


def test_no_function_is_kept_when_its_coroutine_was_cancelled(run: Any) -> None:
    """Nor one that never ran."""
    go = threading.Event()

    async def main() -> None:
        def plain() -> None:
            raise AssertionError("it was cancelled")

        async with BoundedExecutor(1) as ex:
            await ex.arun(int)
            blocking = ex.submit(go.wait, 30)
            task = asyncio.ensure_future(ex.arun(plain))
            await ticks()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await ticks()
            gone = weakref.ref(plain)
            del plain, task
            gc.collect()
            assert gone() is None
            go.set()
            assert blocking.result(30)

    run(main())


def test_arun(run: Any) -> None:
    """Arguments in, result out; a failure is of both types."""

    async def main() -> None:
        with BoundedExecutor(2) as ex:
            assert await ex.arun(dict, timeout=1, fn=2, self=3) == {
                "timeout": 1,
                "fn": 2,
                "self": 3,
            }
            assert await ex.options(name="view").arun(abs, -3) == 3
            with pytest.raises(ValueError, match="invalid literal") as caught:
                await ex.arun(int, "x")
            assert isinstance(caught.value, TaskError)
            with pytest.raises(TypeError, match="fn must be callable, not 3"):
                await ex.arun(3)  # type: ignore[arg-type]

    run(main())


@pytest.mark.slow
def test_ten_thousand_at_once_stay_within_the_bound(run: Any) -> None:
    """Never more than four unfinished, and none over the bound."""
    most = 0

    async def main() -> None:
        nonlocal most

        def task(number: int) -> int:
            nonlocal most
            most = max(most, ex._pool.unfinished)
            return number

        with BoundedExecutor(2, queue_size=2) as ex:
            results = await asyncio.gather(*(ex.arun(task, n) for n in range(10_000)))
            assert results == list(range(10_000))
            assert ex.stats().overflow_tasks == 0
            assert ex.stats().submitted_tasks == 10_000

    run(main())
    assert most <= 4


def test_served_by_priority_then_arrival(gate: threading.Event) -> None:
    """Also those who wait for a place."""
    order: list[tuple[int, int]] = []

    async def main() -> None:
        with BoundedExecutor(1, queue_size=0) as ex:
            first = asyncio.ensure_future(ex.arun(gate.wait))
            await ticks()
            entries = [(n % 3, n) for n in range(12)]
            waiting = [
                asyncio.ensure_future(ex.options(priority=p).arun(order.append, (p, n)))
                for p, n in entries
            ]
            await ticks()
            assert ex.stats().queued_tasks == 0
            with pytest.raises(QueueFullError):
                ex.try_submit(int)
            gate.set()
            await asyncio.gather(first, *waiting)

    _asyncio(main())
    assert order == sorted(order, key=lambda entry: (-entry[0], entry[1]))
    assert len(order) == 12


def test_threads_and_coroutines_wait_in_one_line(gate: threading.Event) -> None:
    """Places go round in the order of arrival; nobody starves."""
    with BoundedExecutor(1, queue_size=0) as ex:
        ex.submit(gate.wait)
        thread = threading.Thread(target=lambda: ex.submit(int))
        thread.start()
        while not ex._pool.waiters.blocked:
            ex.stats()

        async def main() -> None:
            waiting = [asyncio.ensure_future(ex.arun(int)) for _ in range(5)]
            await ticks()
            gate.set()
            assert await asyncio.gather(*waiting) == [0] * 5

        _asyncio(main())
        thread.join(30)
        assert ex.stats().submitted_tasks == 7


def test_cancelling_the_await_cancels_the_task(run: Any, gate: threading.Event) -> None:
    """Queued, or still without a place: it never runs, and its place is back at once."""
    ran: list[int] = []

    async def main() -> None:
        with BoundedExecutor(1, queue_size=1) as ex:
            first = asyncio.ensure_future(ex.arun(gate.wait))
            await ticks()
            queued, placeless = [asyncio.ensure_future(ex.arun(ran.append, n)) for n in range(2)]
            await ticks()
            for task in (placeless, queued):
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert ex.try_submit(int).cancel()
            gate.set()
            await first

    run(main())
    assert ran == []


def test_cancelling_the_await_tells_a_running_task() -> None:
    """Through its token."""
    started, told = threading.Event(), threading.Event()

    def task() -> None:
        started.set()
        if current_token().wait(30):
            told.set()

    async def main() -> None:
        async with BoundedExecutor(1) as ex:
            running = asyncio.ensure_future(ex.arun(task))
            while not started.is_set():  # noqa: ASYNC110 - a thread sets it
                await asyncio.sleep(0)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running

    _asyncio(main())
    assert told.is_set()


def test_policies_and_timeouts(gate: threading.Event) -> None:
    """RAISE raises, a timeout gives up, a token frees who waits, closing turns away."""

    async def main() -> None:
        ex = BoundedExecutor(1, queue_size=0)
        first = asyncio.ensure_future(ex.arun(gate.wait))
        await ticks()
        with pytest.raises(QueueFullError):
            await ex.options(on_full=OnFull.RAISE).arun(int)
        with pytest.raises(SubmitTimeoutError):
            await ex.options(timeout=0.01).arun(int)
        with pytest.raises(asyncio.CancelledError):
            await ex.options(on_full=OnFull.DROP_NEW).arun(int)
        token = CancelToken()
        under = asyncio.ensure_future(ex.options(token=token).arun(int))
        other = asyncio.ensure_future(ex.options(on_full=OnFull.CALLER_RUNS).arun(int))
        await ticks()
        token.cancel()
        with pytest.raises(asyncio.CancelledError):
            await under
        with pytest.raises(asyncio.CancelledError):
            await ex.options(token=token).arun(int)
        ex.shutdown(wait=False)
        with pytest.raises(PoolClosedError):
            await other
        with pytest.raises(PoolClosedError):
            await ex.arun(int)
        gate.set()
        assert await first is True

    _asyncio(main())


@pytest.mark.parametrize("ordered", [True, False])
def test_amap(run: Any, ordered: bool) -> None:
    """Plain and async inputs, in order or as they finish, and no more than asked for."""

    async def items() -> AsyncIterator[int]:
        for number in range(100):
            yield number

    async def main() -> None:
        async with BoundedExecutor(3, queue_size=2) as ex:
            for source in (range(100), items()):
                got = [r async for r in ex.amap(str, source, buffersize=7, ordered=ordered)]
                assert (got if ordered else sorted(got, key=int)) == [str(n) for n in range(100)]
            assert [r async for r in ex.options(priority=3).amap(str, [])] == []
            assert ex.stats().overflow_tasks == 0

    run(main())


@pytest.mark.parametrize("ordered", [True, False])
def test_leaving_amap_early(ordered: bool) -> None:
    """Draws no more, and cancels what has not started; works on endless inputs."""
    drawn = 0

    def numbers() -> Iterator[int]:
        nonlocal drawn
        while True:
            drawn += 1
            yield drawn

    async def main() -> None:
        async with BoundedExecutor(1) as ex:
            results = ex.amap(abs, numbers(), buffersize=5, ordered=ordered)
            async for result in results:
                if result >= 20:
                    break
            await results.aclose()  # type: ignore[attr-defined]
            assert drawn <= 26

    _asyncio(main())


def test_amap_with_a_failure() -> None:
    """It ends the iteration, with both types."""

    async def main() -> None:
        async with BoundedExecutor(1, error_handler=id) as ex:
            got = []
            with pytest.raises(ValueError, match="invalid literal"):
                async for result in ex.amap(int, ["1", "2", "x", "4"]):
                    got.append(result)
            assert got == [1, 2]
            for bad in (0, -1):
                with pytest.raises(ValueError, match=r"^buffersize must be None or > 0$"):
                    ex.amap(int, [], buffersize=bad)
            with pytest.raises(TypeError, match="items must be iterable, not 3"):
                ex.amap(int, 3)  # type: ignore[arg-type]
            with pytest.raises(TypeError, match="fn must be callable"):
                ex.amap(3, [])  # type: ignore[arg-type]

    _asyncio(main())


def test_async_with_does_not_block_the_loop(gate: threading.Event) -> None:
    """While it waits for running tasks, other coroutines go on."""

    async def main() -> None:
        async def opener() -> None:
            gate.set()

        async with BoundedExecutor(1) as ex:
            future = ex.submit(gate.wait, 30)
            other = asyncio.ensure_future(opener())
        assert future.result(0) is True
        await other
        with pytest.raises(LookupError):
            async with BoundedExecutor(1):
                raise LookupError

    _asyncio(main())


def test_await_a_future(run: Any) -> None:
    """On any loop."""

    async def main() -> None:
        with BoundedExecutor(1) as ex:
            assert await ex.submit(int, "5") == 5
            with pytest.raises(ValueError, match="invalid"):
                await ex.submit(int, "x")

    run(main())


def test_the_standard_entrances(run: Any) -> None:
    """run_in_executor, the default executor, to_thread."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ex = BoundedExecutor(2, "default")
        assert await loop.run_in_executor(ex, abs, -2) == 2
        loop.set_default_executor(ex)
        name = await asyncio.to_thread(lambda: threading.current_thread().name)
        assert name.startswith("default_")
        await loop.shutdown_default_executor()
        assert ex.closed

    run(main())


def test_two_loops_share_one_executor() -> None:
    """In two threads."""
    with BoundedExecutor(2, queue_size=2) as ex:
        totals: list[int] = []

        def loop() -> None:
            async def main() -> list[int]:
                return await asyncio.gather(*(ex.arun(abs, -n) for n in range(500)))

            totals.append(sum(asyncio.run(main())))

        threads = [threading.Thread(target=loop) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert totals == [sum(range(500))] * 2


def test_completions_that_fall_together_wake_the_loop_once() -> None:
    """Counted at the loop's door."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        box = Mailbox(loop)
        calls = 0
        original = loop.call_soon_threadsafe

        def counted(*args: Any) -> Any:
            nonlocal calls
            calls += 1
            return original(*args)

        loop.call_soon_threadsafe = counted  # type: ignore[method-assign]
        futures = [Future() for _ in range(51)]
        for future in futures:
            future._waiter = loop.create_future()
        for future in futures[1:]:
            box.post(future)
        assert calls == 1
        await asyncio.gather(*(future._waiter for future in futures[1:]))
        box.post(futures[0])
        await futures[0]._waiter
        assert calls == 2

    _asyncio(main())


def test_a_loop_that_is_gone() -> None:
    """Whoever finishes after that is not bothered."""
    gate = threading.Event()
    with BoundedExecutor(1) as ex:

        async def main() -> None:
            kept.append(asyncio.ensure_future(ex.arun(gate.wait, 30)))
            await ticks()

        kept: list[Any] = []
        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        task = kept.pop()
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        loop.close()
        gate.set()
        assert ex.wait(30)
        assert ex.submit(int).result(30) == 0
        del task
    assert sys.exc_info() == (None, None, None)


@pytest.mark.slow
def test_closing_turns_away_a_long_line(gate: threading.Event) -> None:
    """However many coroutines wait for a place, all hear of it; none is left in the pool."""

    async def main() -> None:
        ex = BoundedExecutor(1, queue_size=0)
        ex.submit(gate.wait)
        waiting = [asyncio.ensure_future(ex.arun(int)) for _ in range(3000)]
        await ticks()
        ex.shutdown(wait=False)
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {PoolClosedError}
        assert ex.stats().rejected_tasks == 3000
        gate.set()
        assert ex.wait(30)

    _asyncio(main())


def test_who_gave_up_waiting_leaves_nothing_behind(gate: threading.Event) -> None:
    """Also when no place ever comes free."""

    async def main() -> None:
        with BoundedExecutor(1, queue_size=0) as ex:
            ex.submit(gate.wait)
            for _ in range(50):
                waiting = [asyncio.ensure_future(ex.arun(int)) for _ in range(40)]
                await ticks()
                for task in waiting:
                    task.cancel()
                await asyncio.gather(*waiting, return_exceptions=True)
            assert len(ex._pool.waiters.blocked) <= 1
            assert len(ex._pool.waiters.coroutines.tasks()) <= 200
            gate.set()

    _asyncio(main())


def test_a_waiting_coroutine_ages(gate: threading.Event) -> None:
    """With `aging`, who has waited for long is not overtaken by a higher priority for ever."""
    order: list[str] = []

    async def main() -> None:
        with BoundedExecutor(1, queue_size=0, aging=1e-9) as ex:
            ex.submit(gate.wait)
            waiting = []
            for name, priority in (("old", 0), ("new", 9)):
                view = ex.options(priority=priority)
                waiting.append(asyncio.ensure_future(view.arun(order.append, name)))
                await ticks()
            gate.set()
            await asyncio.gather(*waiting)

    _asyncio(main())
    assert order == ["old", "new"]


@pytest.mark.parametrize("size", [0, 5])
def test_a_loop_inside_a_task_of_the_pool(size: int) -> None:
    """Its aruns need no second worker, with and without a place in the queue."""
    with BoundedExecutor(1, queue_size=size) as ex:

        async def inner() -> list[int]:
            return await asyncio.gather(*(ex.arun(abs, -n) for n in range(10)))

        assert ex.submit(lambda: asyncio.run(inner())).result(30) == list(range(10))


@pytest.mark.parametrize("size", [0, 5])
def test_tasks_with_loops_of_their_own(size: int) -> None:
    """Each runs a loop that awaits the next; one worker is enough, with and without a queue."""
    with BoundedExecutor(1, queue_size=size) as ex:

        def nested(depth: int) -> int:
            async def inner() -> int:
                return 1 + await ex.arun(nested, depth - 1)

            return asyncio.run(inner()) if depth else 0

        assert ex.submit(nested, 3).result(30) == 3


def test_awaiting_a_future_inside_a_task_of_the_pool() -> None:
    """Needs no second worker either."""
    with BoundedExecutor(1) as ex:

        async def inner() -> int:
            return await ex.submit(abs, -3)

        assert ex.submit(lambda: asyncio.run(asyncio.wait_for(inner(), 30))).result(40) == 3


def test_async_with_inside_a_task_of_the_pool() -> None:
    """Does not wait for itself."""
    ex = BoundedExecutor(1)

    async def inner() -> str:
        async with ex:
            pass
        return "left"

    future = ex.submit(lambda: asyncio.run(asyncio.wait_for(inner(), 20)))
    assert future.result(30) == "left"
    assert ex.closed
    assert ex.wait(30)


def test_arun_keeps_its_executor(run: Any, gate: threading.Event) -> None:
    """Nobody else need hold it; also while it waits for a place."""

    async def main() -> None:
        assert await BoundedExecutor(2).arun(abs, -1) == 1
        assert await BoundedExecutor(2).options(timeout=20).arun(abs, -1) == 1
        ex = BoundedExecutor(1, queue_size=0)
        waiting = [asyncio.ensure_future(ex.arun(gate.wait)) for _ in range(3)]
        await ticks()
        del ex
        gate.set()
        assert await asyncio.gather(*waiting) == [True] * 3
        results = BoundedExecutor(1, queue_size=0).amap(abs, [-1, -2])
        assert [result async for result in results] == [1, 2]

    run(main())


@pytest.mark.parametrize("ordered", [True, False])
def test_amap_that_finds_no_place_in_time(ordered: bool, gate: threading.Event) -> None:
    """It says so, as arun does."""

    async def main() -> None:
        with BoundedExecutor(1, queue_size=0) as ex:
            ex.submit(gate.wait)
            with pytest.raises(SubmitTimeoutError):
                async for _ in ex.options(timeout=0.01).amap(abs, [1, 2, 3], ordered=ordered):
                    pass
            gate.set()

    _asyncio(main())


@pytest.mark.parametrize("ordered", [True, False])
def test_amap_over_a_slow_source(run: Any, ordered: bool) -> None:
    """What is finished is yielded while the source takes its time."""

    async def main() -> None:
        got: list[int] = []
        more = asyncio.Event()

        async def items() -> AsyncIterator[int]:
            yield -1
            await more.wait()
            yield -2

        with BoundedExecutor(2) as ex:
            async for result in ex.amap(abs, items(), ordered=ordered):
                got.append(result)
                more.set()
        assert got == [1, 2]

    run(main())


def test_leaving_amap_while_its_source_is_asked() -> None:
    """The source is cancelled where it waits, and has cleaned up when amap is closed."""
    log: list[str] = []

    async def main() -> None:
        async def items() -> AsyncIterator[int]:
            yield -1
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                log.append("cleaned up")

        with BoundedExecutor(1) as ex:
            results: Any = ex.amap(abs, items())
            async for result in results:
                assert result == 1
                break
            await results.aclose()
            assert log == ["cleaned up"]

    _asyncio(main())


def test_closing_the_coroutine_cancels_its_task(gate: threading.Event) -> None:
    """In line, in the queue, and with a timeout; none of them runs."""
    ran: list[int] = []

    async def main() -> None:
        with BoundedExecutor(1, queue_size=1) as ex:
            ex.submit(gate.wait)
            calls: list[Any] = [
                ex.arun(ran.append, 1),
                ex.arun(ran.append, 2),
                ex.options(timeout=20).arun(ran.append, 3),
            ]
            for call in calls:
                call.send(None)
            for call in reversed(calls):
                call.close()
            gate.set()
            await ex.arun(int)
        assert ran == []

    _asyncio(main())


class Strike(Exception):
    """What a signal handler or another thread may raise anywhere."""


def test_a_mailbox_struck_while_it_calls_the_loop() -> None:
    """The next one to post calls again, for both."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        box = Mailbox(loop)
        original = loop.call_soon_threadsafe

        def struck(*_: Any) -> Any:
            loop.call_soon_threadsafe = original  # type: ignore[method-assign]
            raise Strike

        futures = [Future() for _ in range(2)]
        for future in futures:
            future._waiter = loop.create_future()
        loop.call_soon_threadsafe = struck  # type: ignore[method-assign]
        with pytest.raises(Strike):
            box.post(futures[0])
        box.post(futures[1])
        await asyncio.wait_for(asyncio.gather(*(future._waiter for future in futures)), 20)

    _asyncio(main())


def test_a_mailbox_struck_while_the_loop_empties_it() -> None:
    """The rest is delivered later, and the one in hand too."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        heard: list[Any] = []
        loop.set_exception_handler(lambda _, context: heard.append(context["exception"]))
        box = Mailbox(loop)
        futures = [Future() for _ in range(5)]
        for future in futures:
            future._waiter = loop.create_future()

        class Struck:
            _waiter: Any

            def done(self) -> bool:
                self._waiter = futures[2]._waiter
                raise Strike

        stand_in: Any = Struck()
        stand_in._waiter = stand_in
        for future in (futures[0], futures[1], stand_in, futures[3], futures[4]):
            box.post(future)
        await asyncio.wait_for(asyncio.gather(*(future._waiter for future in futures)), 20)
        assert [type(error) for error in heard] == [Strike]

    _asyncio(main())


class Thing:
    """Can be watched."""


@pytest.mark.parametrize("hold", [True, False], ids=["closed", "gone"])
def test_results_that_come_after_their_loop(hold: bool, gate: threading.Event) -> None:
    """Are not kept, though the executor still knows the loop's mailbox."""
    results: list[weakref.ref[Thing]] = []
    loops: list[Any] = []
    started = threading.Event()
    with BoundedExecutor(1) as ex:

        def late() -> Thing:
            started.set()
            gate.wait(30)
            result = Thing()
            results.append(weakref.ref(result))
            return result

        async def main() -> None:
            if hold:
                loops.append(asyncio.get_running_loop())
            for _ in range(2):
                asyncio.ensure_future(ex.arun(late))  # noqa: RUF006 - cancelled with the loop
            await ticks()
            assert started.wait(30)

        asyncio.run(main())
        gate.set()
        # When a later task has begun, the worker is through with the one before.
        for _ in range(2):
            ex.submit(int).result(30)
        gc.collect()
        assert [result() for result in results] == [None]


@pytest.mark.skipif(
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    reason="what a thread lets go of may die later there",
)
@pytest.mark.parametrize("way", ["arun", "timeout", "amap", "amap unordered", "await"])
def test_a_failure_leaves_no_cycles(way: str) -> None:
    """Arguments and exception are gone without the collector."""
    watched: list[weakref.ref[Any]] = []

    def fail(_: Thing) -> None:
        error = ValueError("as told")
        error.thing = Thing()  # type: ignore[attr-defined]
        watched.append(weakref.ref(error.thing))  # type: ignore[attr-defined]
        try:
            raise error
        finally:
            del error

    async def call(ex: BoundedExecutor, thing: Thing) -> None:
        if way == "arun":
            await ex.arun(fail, thing)
        elif way == "timeout":
            await ex.options(timeout=20).arun(fail, thing)
        elif way == "await":
            await ex.submit(fail, thing)
        else:
            async for _ in ex.amap(fail, [thing], ordered=way == "amap"):
                pass

    async def main() -> None:
        with BoundedExecutor(1, error_handler=lambda _: None) as ex:
            thing = Thing()
            watched.append(weakref.ref(thing))
            with contextlib.suppress(ValueError):
                await call(ex, thing)
            del thing
            with contextlib.suppress(ValueError):
                await ex.arun(int, "x")  # stats() keeps the latest failure
            for _ in range(2):
                await ex.arun(int)
            await ticks()
            assert [ref() for ref in watched] == [None, None]

    gc.disable()
    try:
        _asyncio(main())
    finally:
        gc.enable()


def test_awaited_futures_that_finish_together_wake_the_loop_once(gate: threading.Event) -> None:
    """Counted at the loop's door."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        calls = 0
        original = loop.call_soon_threadsafe

        def counted(*args: Any) -> Any:
            nonlocal calls
            calls += 1
            return original(*args)

        async def wait_for(future: Future[int]) -> int:
            return await future

        with BoundedExecutor(1, queue_size=None) as ex:
            ex.submit(gate.wait)
            waiting = [asyncio.ensure_future(wait_for(ex.submit(abs, -n))) for n in range(50)]
            await ticks()
            fence = threading.Event()
            ex.submit(fence.set)
            loop.call_soon_threadsafe = counted  # type: ignore[method-assign]
            gate.set()
            assert fence.wait(30)  # the loop stands still while they finish
            assert calls == 1
            assert await asyncio.gather(*waiting) == list(range(50))

    _asyncio(main())


STOPPED = "StopIteration interacts badly with generators and cannot be raised into a Future"


@pytest.mark.parametrize("error", [StopIteration(3), type("Mine", (StopIteration,), {})(3)])
def test_stop_iteration_does_not_end_a_coroutine(error: StopIteration) -> None:
    """By whichever way it comes into a loop; asyncio looks for the very class only."""

    def fail() -> None:
        raise error

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with BoundedExecutor(1) as ex:
            loop.set_default_executor(ex)
            ways: list[Any] = [
                lambda: loop.run_in_executor(ex, fail),
                lambda: asyncio.to_thread(fail),
                lambda: asyncio.wrap_future(ex.submit(fail)),
            ]
            for way in ways:
                with pytest.raises(RuntimeError, match=STOPPED) as caught:
                    await way()
                assert isinstance(caught.value.__cause__, StopIteration)
            assert isinstance(ex.submit(fail).exception(), StopIteration)
            for ours in (lambda: ex.arun(fail), lambda: awaited(ex.submit(fail))):
                with pytest.raises(RuntimeError, match="raised StopIteration"):
                    await ours()

    async def awaited(future: Any) -> Any:
        return await future

    asyncio.run(main())
