"""Worker threads: their names, initializers, those that do not start; and pools that are dropped."""

from __future__ import annotations

import gc
import threading
import weakref
from concurrent.futures import wait
from concurrent.futures.thread import BrokenThreadPool
from typing import Any
from unittest import mock

import pytest

from futurepool import (
    BoundedExecutor,
    CancelToken,
    _sync,
)
from tests.helpers import hold

# -- workers ------------------------------------------------------------------------------------------


def test_thread_names() -> None:
    """As the standard library's."""
    with BoundedExecutor(1, "crawl") as ex:
        assert ex.submit(lambda: threading.current_thread().name).result() == "crawl_0"
    with BoundedExecutor(1) as ex:
        name = ex.submit(lambda: threading.current_thread().name).result()
        assert name.startswith("ThreadPoolExecutor-")


def test_initializer() -> None:
    """Once in each worker, before its first task."""
    local = threading.local()

    def initialize(value: int) -> None:
        local.value = value

    with BoundedExecutor(2, initializer=initialize, initargs=(7,)) as ex:
        assert list(ex.map(lambda _: local.value, range(10))) == [7] * 10


class Traced(threading.Thread):
    """What a tool might put in the place of `threading.Thread`."""

    def run(self) -> None:
        super().run()


@pytest.mark.parametrize("other", [Traced, mock.Mock])
def test_another_class_in_the_place_of_threads(other: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put there after the import: workers run, and so do the threads that look after deadlines and the log."""
    monkeypatch.setattr(threading, "Thread", other)
    done = threading.Event()
    _sync.start(_sync.new_thread(done.set, daemon=True))
    assert done.wait(30)
    with BoundedExecutor(1) as ex:
        assert ex.submit(abs, -1).result(10) == 1


def test_a_failing_initializer(caplog: pytest.LogCaptureFixture) -> None:
    """The pool is broken: what is queued fails, what comes is refused."""
    go = threading.Event()

    def initialize() -> None:
        go.wait(30)
        raise LookupError("no database")

    ex = BoundedExecutor(1, initializer=initialize)
    futures = [ex.submit(int) for _ in range(3)]
    go.set()
    for future in futures:
        with pytest.raises(BrokenThreadPool):
            future.result(30)
    with pytest.raises(BrokenThreadPool, match="initializer failed"):
        ex.submit(int)
    assert ex._broken
    ex.shutdown()
    assert "no database" in caplog.text


def test_a_later_worker_whose_initializer_fails(gate: threading.Event) -> None:
    """The pool breaks, what runs is finished."""
    numbers = iter(range(10))

    def initialize() -> None:
        if next(numbers):
            raise SystemExit

    ex = BoundedExecutor(2, initializer=initialize)
    first = ex.submit(gate.wait)
    while not first.running():
        ex.running()
    second = ex.submit(int)
    with pytest.raises(BrokenThreadPool):
        second.result(30)
    gate.set()
    assert first.result(30) is True
    ex.shutdown()


def test_a_dropped_executor_ends_its_threads(gate: threading.Event) -> None:
    """And runs what it has accepted first."""
    ex = BoundedExecutor(2)
    futures = [ex.submit(gate.wait), *(ex.submit(int) for _ in range(5))]
    threads = ex._threads
    del ex
    gc.collect()
    gate.set()
    wait(futures, 30)
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert [future.result(0) for future in futures[1:]] == [0] * 5


# -- threads that do not start, initializers that do not work ---------------------------------------


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Lets the k-th starts fail that are listed, with the error given."""

    def refuse(numbers: set[int], error: BaseException) -> list[int]:
        start, count = _sync.start, [0]

        def sometimes(thread: threading.Thread) -> None:
            count[0] += 1
            if count[0] in numbers:
                raise error
            start(thread)

        monkeypatch.setattr(_sync, "start", sometimes)
        return count

    return refuse


NO_THREAD = [RuntimeError("can't start new thread"), MemoryError()]

ENTRANCES: dict[str, Any] = {
    "submit": lambda ex, fn: ex.submit(fn),
    "try_submit": lambda ex, fn: ex.try_submit(fn),
    "with_timeout": lambda ex, fn: ex.submit_with_timeout(0, fn),
    "with_priority": lambda ex, fn: ex.submit_with_priority(5, fn),
    "with_token": lambda ex, fn: ex.submit_with_token(CancelToken(), fn),
    "named": lambda ex, fn: ex.options(name="n").submit(fn),
}


@pytest.mark.parametrize("error", NO_THREAD, ids=repr)
@pytest.mark.parametrize("entrance", ENTRANCES)
def test_the_first_thread_does_not_start(entrance: str, error: Exception, refusing: Any) -> None:
    """The submit raises, whichever it is; the task never runs, its place is free, the next works."""
    ran: list[int] = []
    refusing({1}, error)
    with BoundedExecutor(1, queue_size=0) as ex:
        with pytest.raises(type(error)):
            ENTRANCES[entrance](ex, lambda: ran.append(1))
        assert ex.wait(0)
        assert ex.stats().queued_tasks == 0
        assert ENTRANCES[entrance](ex, lambda: 5).result(30) == 5
        stats = ex.stats()
        assert stats.submitted_tasks == stats.completed_tasks + stats.cancelled_tasks
    assert ran == []


@pytest.mark.parametrize("error", NO_THREAD, ids=repr)
@pytest.mark.parametrize("numbers", [{2}, {3}, {2, 3, 4, 5, 6, 7, 8, 9}])
def test_a_later_thread_does_not_start(
    numbers: set[int], error: Exception, refusing: Any, gate: threading.Event
) -> None:
    """With a worker there it only means fewer: the task is accepted and run."""
    refusing(numbers, error)
    with BoundedExecutor(4) as ex:
        (first,) = hold(ex, gate)
        futures = [ex.submit(pow, n, 2) for n in range(6)]
        gate.set()
        assert [future.result(30) for future in futures] == [n * n for n in range(6)]
        assert first.result(30) is True
        assert len(ex._threads) <= 4


def test_a_pool_short_of_threads_grows_later(refusing: Any, gate: threading.Event) -> None:
    """A start that failed is tried again with the next task that needs it."""
    refusing({2, 3}, RuntimeError("can't start new thread"))
    with BoundedExecutor(2) as ex:
        hold(ex, gate)
        waiting = [ex.submit(threading.get_ident) for _ in range(3)]
        assert [future.result(30) is not None for future in waiting] == [True] * 3
        assert len(ex._threads) == 2
        gate.set()


def test_no_thread_for_a_shut_down_pool(refusing: Any) -> None:
    """A refused submit leaves nothing that shutdown would wait for."""
    refusing({1}, RuntimeError("can't start new thread"))
    ex = BoundedExecutor(1)
    with pytest.raises(RuntimeError, match="new thread"):
        ex.submit(int)
    ex.shutdown()
    ex.stop(0)
    assert ex._threads == set()


def test_an_initializer_gets_its_arguments_in_every_worker(gate: threading.Event) -> None:
    """Once in each thread, in that thread."""
    seen: list[tuple[object, int]] = []
    with BoundedExecutor(
        3, "init", lambda *args: seen.append((args, threading.get_ident())), (1, "x")
    ) as ex:
        hold(ex, gate, 3)
        workers = {thread.ident for thread in ex._threads}
        gate.set()
    assert [args for args, _ in seen] == [(1, "x")] * 3
    assert {ident for _, ident in seen} == workers


@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt])
def test_whatever_the_initializer_raises(kind: type[BaseException], gate: threading.Event) -> None:
    """The pool is broken: queued futures fail with BrokenThreadPool as itself, blocked submits raise."""

    def initialize() -> None:
        gate.wait(30)
        raise kind

    ex = BoundedExecutor(1, initializer=initialize, queue_size=1)
    futures = [ex.submit(int) for _ in range(2)]
    results: list[BaseException] = []

    def blocked() -> None:
        try:
            ex.submit(int)
        except BaseException as error:
            results.append(error)

    thread = threading.Thread(target=blocked)
    thread.start()
    gate.set()
    thread.join(30)
    assert [type(error) for error in results] == [BrokenThreadPool]
    for future in futures:
        assert type(future.exception(30)) is BrokenThreadPool
    for submit in (ex.submit, ex.try_submit, ex.options(priority=2).submit):
        with pytest.raises(BrokenThreadPool):
            submit(int)
    with pytest.raises(BrokenThreadPool):
        list(ex.map(int, ["1"]))
    assert ex.closed
    assert ex.wait(30)
    ex.shutdown()
    ex.stop(0)


def test_an_initializer_that_shuts_the_pool_down() -> None:
    """It cannot wait for itself: shutdown(wait=True) there neither hangs nor loses a task."""
    ex: BoundedExecutor
    done = threading.Event()

    def initialize() -> None:
        try:
            ex.shutdown()
        finally:
            done.set()

    ex = BoundedExecutor(1, initializer=initialize, shutdown_timeout=0.1)
    future = ex.submit(int)
    assert done.wait(10)
    wait([future], 30)
    assert future.done()


# -- collection ------------------------------------------------------------------------------------


def gone(ref: weakref.ref[Any]) -> bool:
    gc.collect()
    return ref() is None


def test_an_idle_executor_is_collected() -> None:
    """No worker, future or token keeps the executor; its threads end."""
    ex = BoundedExecutor(2)
    future = ex.submit_with_token(CancelToken(), int)
    assert future.result(30) == 0
    threads = ex._threads
    ref = weakref.ref(ex)
    del ex
    assert gone(ref)
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert future.result(0) == 0


def test_an_executor_in_a_cycle_is_collected() -> None:
    """The garbage collector closes it like anybody else."""
    ex: Any = BoundedExecutor(1)
    ex.itself = ex
    assert ex.submit(int).result(30) == 0
    threads = ex._threads
    del ex
    gc.collect()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)


def test_an_executor_dropped_by_its_own_task() -> None:
    """The last reference dies inside a worker: what is queued is run, the thread ends."""
    box: list[Any] = [BoundedExecutor(1)]
    go = threading.Event()

    def task() -> None:
        go.wait(30)
        box.clear()
        gc.collect()

    first = box[0].submit(task)
    rest = [box[0].submit(int) for _ in range(5)]
    threads = box[0]._threads
    go.set()
    assert first.result(30) is None
    assert [future.result(30) for future in rest] == [0] * 5
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)


def test_a_forgotten_executor_helps_and_cancels(gate: threading.Event) -> None:
    """Its futures still cancel, wait and help each other."""
    ex = BoundedExecutor(1)
    hold(ex, gate)
    dropped, kept = ex.submit(int), ex.submit(int)
    outer = ex.submit(kept.result)
    del ex
    gc.collect()
    assert dropped.cancel()
    gate.set()
    assert outer.result(30) == 0
    assert kept.result(30) == 0


def test_a_hundred_forgotten_executors_leave_no_thread() -> None:
    """Made, used and dropped in a row."""
    threads: list[threading.Thread] = []
    for _ in range(100):
        ex = BoundedExecutor(2)
        assert ex.submit(int).result(30) == 0
        threads += ex._threads
        del ex
    gc.collect()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
