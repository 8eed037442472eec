"""Tasks that are inside an engine besides those it runs: `read_ahead`."""

from __future__ import annotations

import asyncio
import concurrent.futures as cf
import contextlib
import gc
import multiprocessing
import random
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from futurepool import (
    BoundedExecutor,
    CancelToken,
    ForcedShutdownError,
    InvalidConfigError,
    Observer,
    OnFull,
    QueueFullError,
    TaskEvent,
    _sync,
)
from futurepool._engines.delegate import DelegateEngine
from futurepool._engines.transport import Envelope
from futurepool.testing import InlineExecutor
from tests.engines import tasks
from tests.helpers import until


class Manual(cf.Executor):
    """Has what it was given lie there until the test begins or ends it, oldest first."""

    def __init__(self, workers: int = 1) -> None:
        self._max_workers = workers
        self._given: dict[cf.Future[Any], Callable[[], Any]] = {}
        self.meanwhile: Callable[[], object] = int  # called in each submit

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> cf.Future[Any]:
        self.meanwhile()
        future: cf.Future[Any] = cf.Future()
        self._given[future] = lambda: fn(*args, **kwargs)
        return future

    @property
    def inside(self) -> list[cf.Future[Any]]:
        return [future for future in self._given.copy() if not future.done()]

    def forget(self) -> None:
        for future in [future for future in self._given if future.done()]:
            del self._given[future]

    def begin(self, index: int = 0) -> None:
        assert self.inside[index].set_running_or_notify_cancel()

    def end(self) -> None:
        future = self.inside[0]
        if not future.running():
            future.set_running_or_notify_cancel()
        try:
            result = self._given[future]()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)

    def end_all(self) -> None:
        while self.inside:
            self.end()


class Steady(Manual):
    """Gives nothing back."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> cf.Future[Any]:
        future = super().submit(fn, *args, **kwargs)
        future.cancel = bool  # type: ignore[method-assign]
        return future


def finish(engine: Manual, ex: BoundedExecutor) -> None:
    """Run all there is."""

    def step() -> bool:
        engine.end_all()
        return ex.wait(0.001)

    until(step)


@contextlib.contextmanager
def behind(engine: Manual, **options: Any) -> Iterator[BoundedExecutor]:
    """A pool that ends, whatever becomes of the test."""
    ex = BoundedExecutor(engine=engine, **options)
    try:
        yield ex
    finally:
        engine.meanwhile = int
        finish(engine, ex)
        ex.shutdown()


# -- how many ----------------------------------------------------------------------------------------


class Client:
    """What dask's executor has of its client."""

    asynchronous = False

    def nthreads(self) -> dict[str, int]:
        return {"one": 2, "other": 1}


def cluster(module: str, **attributes: Any) -> cf.Executor:
    """An executor that looks like one of a library that may not be here."""
    kind = type("Elsewhere", (cf.Executor,), {"__module__": module})
    engine = kind()
    vars(engine).update(attributes)
    return engine  # type: ignore[no-any-return]


def loky() -> cf.Executor:
    return pytest.importorskip("loky").ProcessPoolExecutor(3)  # type: ignore[no-any-return]


def interpreters() -> cf.Executor:
    kind = getattr(cf, "InterpreterPoolExecutor", None)
    if kind is None:
        pytest.skip("this Python has no InterpreterPoolExecutor")
    return kind(3)  # type: ignore[no-any-return]


KINDS: dict[str, tuple[Callable[[], cf.Executor], int]] = {
    "processes": (lambda: cf.ProcessPoolExecutor(3), 3),
    "loky": (loky, 3),
    "interpreters": (interpreters, 3),
    "dask": (lambda: cluster("distributed.cfexecutor", _client=Client()), 6),
    "mpi": (lambda: cluster("mpi4py.futures.pool", _max_workers=3), 6),
    "threads": (lambda: cf.ThreadPoolExecutor(3), 0),
    "unknown": (lambda: Manual(3), 0),
}


@pytest.mark.parametrize("kind", KINDS)
def test_how_many_by_kind(kind: str) -> None:
    """One for each worker of processes, two of a cluster; none that would run, or are ahead already."""
    make, ahead = KINDS[kind]
    with BoundedExecutor(engine=make(), close_engine=False) as ex:
        workers = ex._pool.workers
        assert (ex._max_workers, workers.max_workers) == (3, 3 + ahead)
        ex.resize(2)
        assert (ex._max_workers, workers.max_workers) == (2, 2)
        ex.resize(4)
        assert (ex._max_workers, workers.max_workers) == (4, 4 + max(0, ahead - 1))
        ex._max_workers = 20
        assert (ex.stats().max_workers, workers.max_workers) == (20, 20)
    with BoundedExecutor(2, engine=make(), close_engine=False) as ex:
        assert ex._pool.workers.max_workers == 2
    with BoundedExecutor(2, engine=make(), close_engine=False, read_ahead=5) as ex:
        assert ex._pool.workers.max_workers == 7
        ex.resize(6)
        assert ex._pool.workers.max_workers == 11
        assert "max_workers=6" in repr(ex)
    with BoundedExecutor(engine=make(), close_engine=False, read_ahead=0) as ex:
        assert ex._pool.workers.max_workers == 3


def test_a_client_that_cannot_be_asked() -> None:
    """Its answers are coroutines, or it does not answer: nothing is read ahead, nothing raised."""

    class Asynchronous(Client):
        asynchronous = True

        def nthreads(self) -> dict[str, int]:
            raise AssertionError("a coroutine that nobody awaits")

    class Silent(Client):
        def nthreads(self) -> dict[str, int]:
            raise OSError("no answer")

    for client in (Asynchronous(), Silent()):
        engine = cluster("distributed.cfexecutor", _client=client)
        with BoundedExecutor(2, engine=engine, close_engine=False) as ex:
            assert ex._pool.workers.max_workers == 2


def test_bad_values() -> None:
    """Named at the constructor; 0 is what threads do."""
    with pytest.raises(TypeError, match="read_ahead must be an integer, not 1.5"):
        BoundedExecutor(engine=Manual(), read_ahead=1.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="read_ahead must be an integer, not True"):
        BoundedExecutor(engine=Manual(), read_ahead=True)
    with pytest.raises(InvalidConfigError, match="read_ahead must be at least 0, not -1"):
        BoundedExecutor(engine=Manual(), read_ahead=-1)
    for kind in (BoundedExecutor, InlineExecutor):
        with pytest.raises(InvalidConfigError, match="read_ahead=2 needs an engine"):
            kind(1, read_ahead=2)
        kind(1, read_ahead=0).shutdown()


# -- what is inside ----------------------------------------------------------------------------------


def test_what_is_inside_runs_and_the_bound_is_exact() -> None:
    """Its places are the queue's; it counts as running; it is overtaken no more, what waits here is."""
    engine = Manual()
    with behind(engine, read_ahead=2, queue_size=4) as ex:
        order: list[int] = []
        for number in range(5):
            ex.submit(order.append, number)
        with pytest.raises(QueueFullError):
            ex.try_submit(order.append, 5)
        until(lambda: len(engine.inside) == 3)
        stats = ex.stats()
        assert (stats.max_workers, stats.active_workers, stats.queued_tasks) == (1, 3, 2)
        assert [entry.task_id for entry in ex.running()] == [1, 2, 3]
        assert [entry.task_id for entry in ex.queued()] == [4, 5]
        urgent = ex.options(priority=9, on_full=OnFull.DROP_OLDEST).submit(order.append, 9)
        for _ in range(4):
            until(lambda: engine.inside)
            engine.end()
        assert urgent.result(30) is None
        finish(engine, ex)
    assert order == [0, 1, 2, 9, 4]


@pytest.mark.parametrize("queue_size", [0, 1, None])
def test_no_more_are_inside_than_are_let_in(queue_size: int | None) -> None:
    """A small queue bounds that, too."""
    engine = Manual(2)
    with behind(engine, read_ahead=3, queue_size=queue_size) as ex:
        view = ex.options(on_full=OnFull.DROP_NEW)
        futures = [view.submit(int) for _ in range(9)]
        expected = 5 if queue_size is None else 2 + queue_size
        until(lambda: len(engine.inside) == expected)
        assert ex.stats().active_workers == expected
        assert sum(future.cancelled() for future in futures) == (
            0 if queue_size is None else 9 - expected
        )
        finish(engine, ex)


def test_a_smaller_pool_reads_no_further() -> None:
    """What is inside goes on, and no more follows until there is room."""
    engine = Manual(2)
    with behind(engine, read_ahead=2, queue_size=None) as ex:
        futures = [ex.submit(int) for _ in range(8)]
        until(lambda: len(engine.inside) == 4)
        ex.resize(1)
        engine.end()
        assert futures[0].result(30) == 0
        until(lambda: len(ex._pool.workers.listed) == 3)
        engine.end()
        until(lambda: len(engine.inside) == 3)
        finish(engine, ex)
        assert [future.result(0) for future in futures] == [0] * 8


# -- cancelling --------------------------------------------------------------------------------------


def test_what_is_inside_can_be_cancelled() -> None:
    """By its future, told here; by its token, a deadline, a group, a coroutine. Its place is free."""
    engine = Manual()
    with behind(engine, read_ahead=9, queue_size=9, enable_metrics=True) as ex:
        running = ex.submit(int)
        until(lambda: engine.inside)
        engine.begin()
        told: list[Any] = []

        def tell(_: object) -> None:
            told.append(threading.current_thread())

        token = CancelToken()
        plain, under = ex.submit(int), ex.submit_with_token(token, int)
        deadline = CancelToken()
        late = ex.submit_with_token(deadline, int)
        plain.add_done_callback(tell)
        under.add_done_callback(tell)
        heard = threading.Event()
        late.add_done_callback(lambda _: heard.set())
        until(lambda: len(engine.inside) == 4)
        assert plain.cancel() is True
        token.cancel()
        assert under.cancelled()
        assert told == [threading.current_thread()] * 2
        deadline.cancel_aside("as the timer does")
        with pytest.raises(cf.CancelledError):
            late.result(30)
        assert heard.wait(30)
        with ex.group() as group:
            waits = group.submit(int)
            until(waits.running)
            group.cancel()
        assert waits.cancelled()

        async def main() -> None:
            task = asyncio.ensure_future(ex.arun(int))
            await asyncio.sleep(0)
            await asyncio.to_thread(until, lambda: len(engine.inside) == 2)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(main())
        until(lambda: ex.stats().cancelled_tasks == 5)
        assert running.cancel() is False
        stats = ex.stats()
        assert (stats.active_workers, stats.queued_tasks, stats.submitted_tasks) == (1, 0, 6)
        futures = [ex.try_submit(int) for _ in range(9)]
        finish(engine, ex)
        assert [future.result(30) for future in [running, *futures]] == [0] * 10
        stats = ex.stats()
        assert (stats.completed_tasks, stats.failed_tasks, stats.cancelled_tasks) == (10, 0, 5)
        assert stats.latency is not None
        assert stats.latency.count == 10


def test_what_is_taken_back_gives_its_place_to_who_waits() -> None:
    """A submitter that is blocked, and whoever waits for no tasks."""
    engine = Manual()
    with behind(engine, read_ahead=1, queue_size=1) as ex:
        first, second = ex.submit(int), ex.submit(int)
        until(lambda: len(engine.inside) == 2)
        third: list[Any] = []
        blocked = threading.Thread(target=lambda: third.append(ex.submit(int, "3")))
        blocked.start()
        until(lambda: ex.stats().waiting_submitters)
        assert second.cancel() is True
        blocked.join(30)
        until(lambda: len(engine.inside) == 2)
        engine.end()
        assert first.result(30) == 0
        waits = threading.Thread(target=ex.wait)
        waits.start()
        until(lambda: ex._pool.waiters.idle_waiters)
        assert third[0].cancel() is True
        waits.join(30)
        assert not waits.is_alive()


@pytest.mark.skipif(_sync.free_threaded, reason="there an object dies where it was made, if alive")
def test_a_task_that_was_inside_leaves_no_cycle() -> None:
    """Nor does one that was taken back: without the collector all of it is gone."""
    engine = Manual()
    with behind(engine, read_ahead=1) as ex:
        gc.collect()
        gc.disable()
        try:
            futures = [ex.submit(int), ex.submit(int)]
            until(lambda: len(engine.inside) == 2)
            gone = [weakref.ref(each) for each in [*futures, *engine.inside]]
            assert futures[1].cancel() is True
            finish(engine, ex)
            engine.forget()
            futures.clear()
            until(lambda: not any(ref() for ref in gone))
        finally:
            gc.enable()


def test_a_cancel_in_a_section() -> None:
    """As by a signal handler in the middle of one: it is for a thread aside."""
    engine = Manual()
    with behind(engine, read_ahead=1) as ex:
        first, second = ex.submit(int), ex.submit(int)
        until(lambda: len(engine.inside) == 2)
        pool = ex._pool
        with pool.mutex:
            pool.engine.take_back(second, threading.get_ident())
            assert second.running()
        pool.run_deferred()
        with pytest.raises(cf.CancelledError):
            second.result(30)
        finish(engine, ex)
        assert first.result(0) == 0


def test_an_engine_that_gives_nothing_back() -> None:
    """Then it is running: `cancel` says False, and the task is not lost."""
    engine = Steady()
    with behind(engine, read_ahead=1) as ex:
        first, second = ex.submit(int), ex.submit(int, "2")
        until(lambda: len(engine.inside) == 2)
        assert second.cancel() is False
        finish(engine, ex)
        assert (first.result(0), second.result(0)) == (0, 2)


def test_cancelled_on_its_way_in() -> None:
    """While the engine's `submit` runs nobody can take it back; right after it somebody does."""
    engine = Manual()
    with behind(engine, read_ahead=1) as ex:
        seen: list[bool] = []
        first = ex.submit(int)
        until(lambda: engine.inside)
        ready = threading.Event()
        future: list[Any] = []

        def meanwhile() -> None:
            ready.wait(30)
            seen.append(future[0].cancel())

        engine.meanwhile = meanwhile
        future.append(ex.submit(int))
        ready.set()
        with pytest.raises(cf.CancelledError):
            future[0].result(30)
        assert seen == [False]
        assert future[0].cancelled()
        finish(engine, ex)
        assert first.result(0) == 0
        assert ex.stats().cancelled_tasks == 1


def test_the_dispatcher_may_be_first_to_see_it() -> None:
    """Callbacks are called in the thread that cancels, before `cancel` returns, even then."""
    engine = Manual()
    with behind(engine, read_ahead=1) as ex:
        first, second = ex.submit(int), ex.submit(int)
        until(lambda: len(engine.inside) == 2)
        inner = engine.inside[1]
        real, told = inner.cancel, []
        second.add_done_callback(lambda _: told.append(threading.current_thread()))

        def cancel() -> bool:
            done = real()
            until(second.cancelled)
            return done

        inner.cancel = cancel  # type: ignore[method-assign]
        assert second.cancel() is True
        assert told == [threading.current_thread()]
        finish(engine, ex)
        assert first.result(0) == 0
        assert ex.stats().cancelled_tasks == 1


def test_what_the_engine_cancels_unasked_fails() -> None:
    """As ever; and one that was asked in vain before is no different."""
    engine = Manual()
    with behind(engine, read_ahead=1, error_handler=id) as ex:
        futures = [ex.submit(int), ex.submit(int)]
        until(lambda: len(engine.inside) == 2)
        inners = engine.inside
        real = inners[0].cancel
        inners[0].cancel = bool  # type: ignore[method-assign]
        assert futures[0].cancel() is False
        real()
        inners[1].cancel()
        for future in futures:
            assert isinstance(future.exception(30), cf.CancelledError)
        assert ex.stats().failed_tasks == 2


def test_limits_and_observers() -> None:
    """A limit counts what is inside, and gets back what was taken back; observers hear of it once."""
    heard: list[tuple[str, int, str | None]] = []

    class Hears(Observer):
        def submitted(self, event: TaskEvent) -> None:
            heard.append(("submitted", event.task_id, event.outcome))

        def started(self, event: TaskEvent) -> None:
            heard.append(("started", event.task_id, event.outcome))

        def finished(self, event: TaskEvent) -> None:
            heard.append(("finished", event.task_id, event.outcome))

    engine = Manual()
    observer = Hears()
    with behind(engine, read_ahead=5) as ex:
        ex.add_observer(observer)
        view = ex.options(limit=2, name="two")
        futures = [view.submit(int) for _ in range(3)]
        until(lambda: len(engine.inside) == 2)
        engine.begin()
        assert ex.stats().views["two"].active_tasks == 2
        assert futures[1].cancel() is True
        until(lambda: len(engine.inside) == 2)
        assert futures[2].running()
        stats = ex.stats().views["two"]
        assert (stats.active_tasks, stats.queued_tasks, stats.completed_tasks) == (2, 0, 0)
        finish(engine, ex)
        stats = ex.stats().views["two"]
        assert (stats.active_tasks, stats.completed_tasks, stats.failed_tasks) == (0, 2, 0)
        ex.remove_observer(observer)
    assert [what for what in heard if what[1] == 2] == [
        ("submitted", 2, None),
        ("started", 2, None),
        ("finished", 2, "cancelled"),
    ]


def test_a_snapshot_adds_up_while_all_of_it_happens() -> None:
    """Cancelled is what never ran, for each task; and no snapshot shows more than there may be."""
    chance = random.Random(5)
    ran: list[int] = []
    with BoundedExecutor(
        2, engine=cf.ThreadPoolExecutor(2), read_ahead=3, queue_size=5, on_full=OnFull.BLOCK
    ) as ex:
        futures = []
        for number in range(600):
            futures.append(ex.submit(ran.append, number))
            if chance.random() < 0.5:
                chance.choice(futures[-8:]).cancel()
            stats = ex.stats()
            assert stats.active_workers <= 5
            assert stats.active_workers + stats.queued_tasks <= 7
            assert stats.submitted_tasks == (
                stats.completed_tasks
                + stats.cancelled_tasks
                + stats.active_workers
                + stats.queued_tasks
            )
        assert ex.wait(60)
        stats = ex.stats()
        cancelled = [number for number, future in enumerate(futures) if future.cancelled()]
        assert stats.cancelled_tasks == len(cancelled)
        assert stats.completed_tasks == 600 - len(cancelled)
        assert sorted([*ran, *cancelled]) == list(range(600))


# -- the end -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Manual, Steady])
def test_stop_names_what_is_inside(kind: type[Manual]) -> None:
    """What the engine gives back is cancelled; the rest is named."""
    engine = kind()
    ex = BoundedExecutor(engine=engine, read_ahead=1, close_engine=False, error_handler=id)
    futures = [ex.options(name=name).submit(int) for name in ("runs", "inside", "queued")]
    until(lambda: len(engine.inside) == 2)
    engine.begin()
    with pytest.raises(ForcedShutdownError) as caught:
        ex.stop(0.0)
    names = ["runs"] if kind is Manual else ["runs", "inside"]
    assert [entry.name for entry in caught.value.unfinished] == names
    assert [future.cancelled() for future in futures] == [False, kind is Manual, True]
    engine.end_all()
    until(lambda: all(future.done() for future in futures))


def test_shutdown_runs_what_is_inside() -> None:
    """Also with `cancel_futures`: it counts as running."""
    engine = Manual()
    ex = BoundedExecutor(engine=engine, read_ahead=1, close_engine=False)
    futures = [ex.submit(int) for _ in range(3)]
    until(lambda: len(engine.inside) == 2)
    ex.shutdown(wait=False, cancel_futures=True)
    assert futures[2].cancelled()
    engine.end_all()
    ex.shutdown()
    assert [future.result(0) for future in futures[:2]] == [0, 0]


def test_all_inside_fails_with_a_broken_engine() -> None:
    """What it runs, and what it was to run next."""
    engine = Manual()
    with behind(engine, read_ahead=3, error_handler=id) as ex:
        futures = [ex.submit(int) for _ in range(4)]
        until(lambda: len(engine.inside) == 4)
        engine.inside[0].set_exception(cf.BrokenExecutor("gone"))
        for future in futures:
            with pytest.raises(cf.BrokenExecutor, match="gone"):
                future.result(30)


def test_a_callback_of_a_failure_that_waits_in_vain() -> None:
    """Its place has the next task by then, which is left alone."""
    engine = Manual()
    with behind(engine, error_handler=id) as ex:
        first, second = ex.submit(int, "no number"), ex.submit(int, "2")
        until(lambda: engine.inside)
        late: list[bool] = []

        def callback(_: object) -> None:
            try:
                second.result(0.02)
            except cf.TimeoutError:
                late.append(second.running())

        first.add_done_callback(callback)
        engine.end()
        until(lambda: late)
        finish(engine, ex)
        assert second.result(0) == 2
    assert late == [True]


@pytest.mark.slow
def test_a_process_that_has_the_next_task(tmp_path: Path) -> None:
    """By default one for each worker; all of it runs, in order, and priorities hold for the rest."""
    engine = cf.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
    with BoundedExecutor(engine=engine) as ex:
        order: list[int] = []
        held = ex.submit(tasks.hold, str(tmp_path))
        until((tmp_path / "begun").exists)
        rest = [ex.submit(tasks.square, 1)]
        until(lambda: len(ex.running()) == 2)
        rest += [ex.submit(tasks.square, 2), ex.submit_with_priority(9, tasks.square, 3)]
        assert len(ex.running()) == 2
        for number, future in enumerate(rest):
            future.add_done_callback(lambda _, number=number: order.append(number))
        (tmp_path / "go").touch()
        assert held.result(60) is True
        assert [future.result(60) for future in rest] == [1, 4, 9]
        assert ex.wait(60)
    assert order == [0, 2, 1]


def test_an_envelope_of_its_own_reads_nothing_ahead() -> None:
    """What an engine does not say, nobody guesses."""
    assert Envelope.read_ahead == 0
    with BoundedExecutor(2, engine=Manual(2)) as ex:
        engine = ex._pool.engine
        assert isinstance(engine, DelegateEngine)
        assert [engine.read_ahead(number) for number in (1, 2, 3)] == [0, 0, 0]
