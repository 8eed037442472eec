"""Leaving: `with`, `async with`, `stopping`, and `stop` from a task, a coroutine or `to_thread`."""

from __future__ import annotations

import asyncio
import concurrent.futures as cf
import contextlib
import logging
import sys
import textwrap
import threading
from collections.abc import Callable
from typing import Any

import pytest

from futurepool import BoundedExecutor, CancelToken, ForcedShutdownError, current_token
from tests.helpers import hold
from tests.programs import python


def heed(ex: BoundedExecutor) -> Any:
    """A task that runs, surely, until its token is cancelled."""
    started = threading.Event()
    future = ex.submit(lambda: (started.set(), current_token().wait(30))[1])
    assert started.wait(30)
    return future


# -- subclasses ------------------------------------------------------------------------------------


class Logged(BoundedExecutor):
    """As programs have it that were written before Python 3.9."""

    calls: list[object]

    def shutdown(self, wait: bool = True) -> None:  # type: ignore[override]
        self.calls.append(wait)
        super().shutdown(wait)


@pytest.mark.parametrize("leave", [None, LookupError, KeyboardInterrupt, SystemExit])
def test_a_subclass_whose_shutdown_takes_only_wait(leave: type[BaseException] | None) -> None:
    """`with` calls it as the standard class does; what is left by Ctrl-C cancels the queue all the same."""
    gate = threading.Event()
    with contextlib.suppress(*([leave] if leave else [])), Logged(1) as ex:
        ex.calls = []
        hold(ex, gate)
        queued = ex.submit(int)
        queued.add_done_callback(lambda _: gate.set())
        if leave is None or leave is LookupError:
            gate.set()
        if leave is not None:
            raise leave
    assert ex.calls == [True]
    assert queued.cancelled() is (leave in (KeyboardInterrupt, SystemExit))
    assert ex.closed


@pytest.mark.parametrize("kind", [cf.ThreadPoolExecutor, BoundedExecutor])
def test_exit_says_no(kind: Callable[[int], Any]) -> None:
    """Called by hand, by the standard library's argument names, it returns False as there."""
    assert kind(1).__exit__(exc_type=None, exc_val=None, exc_tb=None) is False
    assert kind(1).__exit__(LookupError, LookupError(), None) is False


def test_async_exit_says_no_and_calls_shutdown() -> None:
    """In a thread of its own."""

    async def main() -> None:
        ex = Logged(1)
        ex.calls = []
        assert await ex.__aexit__(exc_type=None, exc_val=None, exc_tb=None) is False
        assert ex.calls == [True]

    asyncio.run(main())


def test_an_error_of_shutdown_is_raised() -> None:
    """By `async with`, as by `with`."""

    class Failing(BoundedExecutor):
        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            super().shutdown(wait, cancel_futures=cancel_futures)
            raise LookupError("my own")

    async def main() -> None:
        async with Failing(1):
            pass

    with pytest.raises(LookupError, match="my own"):
        asyncio.run(main())


# -- async with ------------------------------------------------------------------------------------


async def cancelled_by_task(main: Any) -> None:
    task = asyncio.create_task(main)
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def cancelled_by_timeout(main: Any) -> None:
    with pytest.raises((TimeoutError, asyncio.TimeoutError)):
        await asyncio.wait_for(main, 0.05)


async def cancelled_by_group(main: Any) -> None:
    async def fail() -> None:
        await asyncio.sleep(0.05)
        raise LookupError

    with pytest.raises(ExceptionGroup):  # noqa: F821 - from Python 3.11
        async with asyncio.TaskGroup() as group:
            group.create_task(main)
            group.create_task(fail())


async def cancelled_by_anyio(main: Any) -> None:
    anyio = pytest.importorskip("anyio")
    with anyio.move_on_after(0.05) as scope:
        await main
    assert scope.cancelled_caught


WAYS = [cancelled_by_task, cancelled_by_timeout, cancelled_by_anyio]
if sys.version_info >= (3, 11):
    WAYS.append(cancelled_by_group)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["in the block", "while leaving"])
@pytest.mark.parametrize("way", WAYS)
def test_a_cancellation_ends_async_with(
    way: Callable[[Any], Any], where: str, gate: threading.Event
) -> None:
    """It comes out at once: the queue is cancelled, tokens are told, and what runs on is not waited for."""
    box: list[Any] = []

    async def main() -> None:
        async with BoundedExecutor(2) as ex:
            box.extend([*hold(ex, gate), heed(ex), ex.submit(int), ex.submit(int)])
            if where == "in the block":
                await asyncio.sleep(30)

    asyncio.run(asyncio.wait_for(way(main()), 20))
    deaf, heeding, *queued = box
    assert deaf.running()
    assert heeding.result(30) is True
    assert [future.cancelled() for future in queued] == [True, True]


def test_an_error_does_not_cancel() -> None:
    """As `with`: what was accepted is finished."""
    box: list[Any] = []

    async def main() -> None:
        async with BoundedExecutor(1) as ex:
            box.extend(ex.submit(int) for _ in range(5))
            raise LookupError

    with pytest.raises(LookupError):
        asyncio.run(main())
    assert [future.result(0) for future in box] == [0] * 5


def test_a_coroutine_that_is_closed() -> None:
    """It cannot wait; the tasks go on without it, and no loop is needed."""
    box: list[Any] = []

    class Pause:
        def __await__(self) -> Any:
            yield

    async def main() -> None:
        async with BoundedExecutor(1) as ex:
            box.append(ex)
            box.append(ex.submit(int))
            await Pause()

    coroutine = main()
    coroutine.send(None)
    coroutine.close()
    assert box[0].closed
    assert box[1].result(30) == 0
    box[0].shutdown()


def test_async_with_and_no_loop_of_asyncios() -> None:
    """An error that says so, and the pool is closed."""
    ex = BoundedExecutor(1)

    async def main() -> None:
        async with ex:
            pass

    with pytest.raises(RuntimeError, match="event loop"):
        main().send(None)
    assert ex.closed


CTRL_C = """
        import asyncio, os, signal, sys, threading, time
        from futurepool import BoundedExecutor, _sync, current_token
        signal.signal(signal.SIGINT, signal.default_int_handler)
        ran = []
        def asleep():
            frame = _sync.current_frames()[threading.main_thread().ident]
            return frame.f_globals["__name__"] in ("selectors", "uvloop", "asyncio.runners")
        def job(n):
            ran.append(n)
            if n == 2:
                while not (due() and asleep()):
                    time.sleep(0.001)
                os.kill(os.getpid(), signal.SIGINT)
                # A signal in the instant before the sleep is heard when that ends.
                loop.call_soon_threadsafe(int)
            if n >= 2:
                current_token().wait(30)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT to one process")
@pytest.mark.parametrize("where", ["while True: await asyncio.sleep(0.01)", "pass"])
@pytest.mark.parametrize("leave", ["BoundedExecutor(1)", "BoundedExecutor(1).stopping(5)"])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_ctrl_c_under_asyncio_run(where: str, leave: str, loop: str) -> None:
    """In the block, and while leaving it: what has not started never does."""
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    run = "asyncio.run(main())" if loop == "asyncio" else "uvloop.run(main())"
    waits = where != "pass"
    done = python(
        textwrap.dedent(CTRL_C)
        + textwrap.dedent(
            f"""
                import {loop}
                async def main():
                    global due, loop
                    loop = asyncio.get_running_loop()
                    async with {leave} as pool:
                        due = lambda: pool.closed or {waits}
                        futures.extend(pool.submit(job, n) for n in range(20))
                        {where}
                futures = []
                try:
                    {run}
                except KeyboardInterrupt:
                    print("interrupted")
                print(sum(future.cancelled() for future in futures), ran)
                """
        ),
        "-W",
        "default",
    )
    assert (done.returncode, done.stdout) == (0, "interrupted\n17 [0, 1, 2]\n"), done.stderr


# -- stop, from inside -----------------------------------------------------------------------------


def test_stop_in_a_task_waits_for_the_others(gate: threading.Event) -> None:
    """All of them, queued ones too, though it is one of them itself."""
    ex = BoundedExecutor(2)
    others = hold(ex, gate)
    stopper = ex.submit(ex.stop, 30)
    while not ex.closed:
        pass
    assert not stopper.done()
    gate.set()
    assert stopper.result(30) is None
    assert [future.done() for future in others] == [True]
    ex.shutdown()


def test_stop_in_the_only_worker() -> None:
    """What is queued behind it runs meanwhile, in another one."""
    ex = BoundedExecutor(1)
    go = threading.Event()
    stopper = ex.submit(lambda: (go.wait(30), ex.stop(30))[1])
    queued = [ex.submit(threading.get_ident) for _ in range(5)]
    go.set()
    assert stopper.result(30) is None
    assert [future.done() for future in queued] == [True] * 5
    ex.shutdown()
    assert ex._threads == set()


def test_stop_in_a_task_runs_out_of_time(gate: threading.Event) -> None:
    """It raises as elsewhere, names the others, and leaves its own token alone."""
    ex = BoundedExecutor(2, queue_size=10)
    deaf = hold(ex, gate)[0]

    def stop() -> tuple[list[int], bool]:
        with pytest.raises(ForcedShutdownError) as caught:
            ex.stop(0.05)
        return [entry.task_id for entry in caught.value.unfinished], current_token().cancelled

    stopper = ex.submit(stop)
    assert stopper.result(30) == ([deaf.task_id], False)
    gate.set()
    ex.shutdown()


def test_several_tasks_stop_at_once() -> None:
    """None waits for another; who stops from outside waits for them all."""
    ex = BoundedExecutor(3)
    barrier = threading.Barrier(4)

    def stop() -> None:
        barrier.wait(30)
        ex.stop(30)

    stoppers = [ex.submit(stop) for _ in range(3)]
    barrier.wait(30)
    ex.stop(30)
    assert [future.result(0) for future in stoppers] == [None] * 3


def test_stop_in_a_task_inside_a_task(gate: threading.Event) -> None:
    """All that its own thread runs is no reason to wait."""
    with BoundedExecutor(1) as ex:
        assert ex.submit(lambda: ex.submit(ex.stop, 30).result()).result(30) is None


def test_stop_in_a_done_callback() -> None:
    """It waits for the tasks."""
    ex = BoundedExecutor(1)
    go = threading.Event()
    seen: list[bool] = []
    done = threading.Event()

    def callback(_: object) -> None:
        ex.stop(30)
        seen.append(last.done())
        done.set()

    ex.submit(go.wait).add_done_callback(callback)
    last = ex.submit(int)
    go.set()
    assert done.wait(30)
    assert seen == [True]
    ex.shutdown()


def test_stop_in_a_callback_behind_an_engine_does_not_wait() -> None:
    """It runs in the thread that brings what the engine has done."""
    engine = cf.ThreadPoolExecutor(1)
    ex = BoundedExecutor(engine=engine)
    go, done = threading.Event(), threading.Event()
    ex.submit(go.wait).add_done_callback(lambda _: (ex.stop(30), done.set()))
    last = ex.submit(int)
    go.set()
    assert done.wait(30)
    assert last.result(30) == 0
    ex.shutdown()


def test_stop_without_a_limit_says_what_it_waits_for(
    gate: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    """As shutdown does, once; also one that a task calls."""
    ex = BoundedExecutor(2, shutdown_timeout=0.01)
    hold(ex, gate)

    class Opener(logging.Handler):
        def emit(self, _: logging.LogRecord) -> None:
            gate.set()

    opener = Opener()
    logging.getLogger("futurepool").addHandler(opener)
    try:
        ex.submit(ex.stop, None).result(30)
        ex.stop(None)
    finally:
        logging.getLogger("futurepool").removeHandler(opener)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "task 1" in caplog.text


# -- astop -----------------------------------------------------------------------------------------


def test_astop_in_time() -> None:
    """The loop goes on meanwhile, and everything is finished."""

    async def main() -> None:
        ex = BoundedExecutor(2)
        gate = threading.Event()
        futures = [ex.submit(gate.wait, 30) for _ in range(3)]
        stop = asyncio.create_task(ex.astop(30))
        while not ex.closed:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)
        assert not stop.done()
        gate.set()
        assert await stop is None
        assert [future.result(0) for future in futures] == [True] * 3
        assert ex._threads == set()
        await ex.astop()

    asyncio.run(main())


def test_astop_out_of_time(gate: threading.Event) -> None:
    """It raises what stop raises."""

    async def main() -> None:
        ex = BoundedExecutor(1)
        hold(ex, gate)
        queued = ex.submit(int)
        with pytest.raises(ForcedShutdownError, match="1 task still running"):
            await ex.astop(0.01)
        assert queued.cancelled()
        token = CancelToken()
        token.cancel()
        with pytest.raises(ForcedShutdownError):
            await ex.astop(token=token)
        with pytest.raises(ValueError, match="timeout"):
            await ex.astop(-1)
        with pytest.raises(TypeError, match="token"):
            await ex.astop(token=3)  # type: ignore[arg-type]

    asyncio.run(main())


@pytest.mark.slow
def test_a_cancelled_astop_is_out_of_time(gate: threading.Event) -> None:
    """It comes out at once, and the rest is cancelled."""

    async def main() -> None:
        ex = BoundedExecutor(1)
        hold(ex, gate)
        queued = ex.submit(int)
        with pytest.raises((TimeoutError, asyncio.TimeoutError)):
            await asyncio.wait_for(ex.astop(None), 0.05)
        cf.wait([queued], 30)
        assert queued.cancelled()

    asyncio.run(main())


@pytest.mark.parametrize("way", ["astop", "to_thread", "run_in_executor"])
@pytest.mark.parametrize("hung", [False, True])
def test_stopping_the_default_executor(way: str, hung: bool) -> None:
    """By `asyncio.to_thread(pool.stop, 5)` too, which runs in one of the pool's own workers."""
    gate = threading.Event()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        pool = BoundedExecutor(2)
        loop.set_default_executor(pool)
        task = loop.run_in_executor(None, gate.wait, 30)
        while not pool.running():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.001)
        seconds = 0.05 if hung else 30
        if way == "astop":
            stop: Any = asyncio.create_task(pool.astop(seconds))
        elif way == "to_thread":
            stop = asyncio.create_task(asyncio.to_thread(pool.stop, seconds))
        else:
            stop = loop.run_in_executor(None, pool.stop, seconds)
        while not pool.closed:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.001)
        if hung:
            with pytest.raises(ForcedShutdownError, match="1 task still running"):
                await stop
        else:
            assert not stop.done()
            gate.set()
            assert await stop is None
            assert await task is True
        gate.set()

    asyncio.run(main())


def test_astop_in_a_loop_that_a_task_runs(gate: threading.Event) -> None:
    """It waits for the others, and not for the task that it is part of."""
    ex = BoundedExecutor(2)
    hold(ex, gate)

    async def stop() -> str:
        with pytest.raises(ForcedShutdownError) as caught:
            await ex.astop(0.05)
        gate.set()
        await ex.astop(30)
        return str([entry.task_id for entry in caught.value.unfinished])

    assert ex.submit(lambda: asyncio.run(stop())).result(30) == "[1]"
    ex.shutdown()


# -- stopping --------------------------------------------------------------------------------------


def test_stopping_in_time() -> None:
    """It gives the executor, and leaves it as `with` does if nothing hangs."""
    pool = BoundedExecutor(2)
    with pool.stopping(30) as ex:
        assert ex is pool
        futures = [ex.submit(int) for _ in range(10)]
    assert [future.result(0) for future in futures] == [0] * 10
    assert pool._threads == set()

    async def main() -> None:
        async with BoundedExecutor(2).stopping() as ex:
            future = ex.submit(int)
        assert future.result(0) == 0
        assert ex._threads == set()

    asyncio.run(main())


def test_stopping_out_of_time(gate: threading.Event) -> None:
    """The error comes out of the block."""
    with pytest.raises(ForcedShutdownError), BoundedExecutor(1).stopping(0.01) as ex:
        hold(ex, gate)

    async def main() -> None:
        async with BoundedExecutor(1).stopping(0.01) as ex:
            hold(ex, gate)

    with pytest.raises(ForcedShutdownError):
        asyncio.run(main())
    token = CancelToken()
    token.cancel()
    with pytest.raises(ForcedShutdownError), BoundedExecutor(1).stopping(token=token) as ex:
        hold(ex, gate)


@pytest.mark.parametrize("error", [LookupError, KeyboardInterrupt, asyncio.CancelledError])
@pytest.mark.parametrize("form", ["with", "async with"])
def test_stopping_by_an_exception(
    form: str,
    error: type[BaseException],
    gate: threading.Event,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """That one goes on; what did not end in time is logged. A cancelled queue is not run down first."""
    box: list[Any] = []

    def use(ex: BoundedExecutor) -> None:
        box.append(ex.submit(int) if hold(ex, gate) else None)
        raise error

    async def main() -> None:
        async with BoundedExecutor(1).stopping(0.05) as ex:
            use(ex)

    with pytest.raises(error):
        if form == "with":
            with BoundedExecutor(1).stopping(0.05) as ex:
                use(ex)
        else:
            # asyncio.run tears the loop down over a KeyboardInterrupt.
            loop = asyncio.new_event_loop()
            task = loop.create_task(main())
            try:
                loop.run_until_complete(task)
            finally:
                loop.close()
    (record,) = [record for record in caplog.records if record.name == "futurepool"]
    assert record.levelname == "WARNING"
    assert "1 task still running" in record.getMessage()
    assert box[0].cancelled()


@pytest.mark.slow
@pytest.mark.parametrize("seconds", ["0.1", ""])
def test_a_service_ends_on_sigterm(seconds: str) -> None:
    """A lifespan that is `stopping` ends although a task hangs, and so does its process."""
    if sys.platform == "win32":
        pytest.skip("sends SIGTERM")
    done = python(
        f"""
                import asyncio, contextlib, os, signal, threading
                from futurepool import BoundedExecutor, ForcedShutdownError

                @contextlib.asynccontextmanager
                async def lifespan():
                    pool = BoundedExecutor(2, shutdown_timeout=0.2)
                    async with pool.stopping({seconds}) as pool:
                        yield pool

                async def main():
                    over = asyncio.Event()
                    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
                    async with lifespan() as pool:
                        hung = pool.submit(threading.Event().wait)
                        while not hung.running():
                            await asyncio.sleep(0)
                        os.kill(os.getpid(), signal.SIGTERM)
                        await over.wait()

                try:
                    asyncio.run(main())
                except ForcedShutdownError as error:
                    print(len(error.unfinished))
                """,
        "-W",
        "default",
    )
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
    assert "tasks abandoned" in done.stderr


# -- promise 6 -------------------------------------------------------------------------------------


@pytest.mark.parametrize("ends", [("shutdown",), ("stop",), ("shutdown", "stop")])
def test_when_a_shutdown_returns_no_worker_is_alive(ends: tuple[str, ...]) -> None:
    """Whoever else shuts it down, or stops it, at the same time, from threads and callbacks."""
    for number in range(20):
        ex = BoundedExecutor(4)
        barrier = threading.Barrier(4)
        alive: list[int] = []
        seen: set[threading.Thread] = set()

        def end(how: str, ex: Any = ex, barrier: Any = barrier, alive: Any = alive) -> None:
            barrier.wait(30)
            getattr(ex, how)()
            alive.append(sum(thread.is_alive() for thread in ex._threads))

        futures = [ex.submit(lambda: seen.add(threading.current_thread())) for _ in range(20)]  # noqa: B023
        futures[number % 20].add_done_callback(lambda _: ex.shutdown())  # noqa: B023
        threads = [
            threading.Thread(target=end, args=(ends[each % len(ends)],)) for each in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert alive == [0] * 4
        assert not any(thread.is_alive() for thread in seen)
        assert all(future.done() for future in futures)
