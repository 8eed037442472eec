"""A task that waits by the functions of the standard library, which let the pool look once only."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent import futures as cf
from typing import Any

import pytest

from futurepool import BoundedExecutor, Priority, _sync
from futurepool._engines.threads import ThreadEngine
from tests.helpers import until

PATIENCE = 30.0
WAITS: list[Callable[..., Any]] = [cf.wait, lambda futures: list(cf.as_completed(futures))]


class Starting:
    """An initializer that lets the first worker pass, and holds all others."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self._first = threading.Lock()

    def __call__(self) -> None:
        if not self._first.acquire(blocking=False):
            assert self.gate.wait(PATIENCE)


def outer(ex: BoundedExecutor, wait: Callable[..., Any], inner: list[Any]) -> str:
    inner.append(ex.submit(str, 7))
    wait(inner)
    return str(inner[0].result())


def is_waited_for(futures: list[Any]) -> None:
    """Return when a thread waits for the one in there."""
    until(lambda: futures and futures[0]._waiters)


def outcome(future: Any) -> Any:
    """Its result; who waits does not look after the workers meanwhile, as `result` does."""
    done = threading.Event()
    future.add_done_callback(lambda _: done.set())
    assert done.wait(PATIENCE)
    return future.result()


@pytest.mark.parametrize("wait", WAITS, ids=["wait", "as_completed"])
def test_who_was_to_run_it_leaves(wait: Callable[..., Any]) -> None:
    """It is about to start as the pool becomes smaller."""
    starting = Starting()
    with BoundedExecutor(2, initializer=starting) as ex:
        inner: list[Any] = []
        future = ex.submit(outer, ex, wait, inner)
        is_waited_for(inner)
        ex.resize(1)
        starting.gate.set()
        assert outcome(future) == "7"


@pytest.mark.parametrize("wait", WAITS, ids=["wait", "as_completed"])
@pytest.mark.parametrize("other", [*WAITS, lambda futures: futures[0].result()])
def test_who_was_to_run_it_waits(wait: Callable[..., Any], other: Callable[..., Any]) -> None:
    """It takes another task first, which waits for the first one, or for what that one has submitted."""
    starting = Starting()
    with BoundedExecutor(2, initializer=starting) as ex:
        inner: list[Any] = []
        future = ex.submit(outer, ex, wait, inner)
        is_waited_for(inner)
        urgent = ex.options(priority=Priority.HIGH).submit(other, [future])
        starting.gate.set()
        assert outcome(future) == "7"
        urgent.result(PATIENCE)


def test_who_was_to_run_it_waits_unseen() -> None:
    """For no future: then whoever waits by `result` sees to it."""
    starting, ended = Starting(), threading.Event()
    with BoundedExecutor(2, initializer=starting) as ex:
        inner: list[Any] = []
        future = ex.submit(outer, ex, cf.wait, inner)
        future.add_done_callback(lambda _: ended.set())
        is_waited_for(inner)
        urgent = ex.options(priority=Priority.HIGH).submit(ended.wait, PATIENCE)
        starting.gate.set()
        assert future.result(PATIENCE) == "7"
        assert urgent.result(PATIENCE)


@pytest.mark.parametrize("wait", WAITS, ids=["wait", "as_completed"])
def test_somebody_else_waits_for_it_already(wait: Callable[..., Any]) -> None:
    """By the same function, so that the future has its condition."""
    with BoundedExecutor(1) as ex:
        begin = threading.Event()

        def waits() -> None:
            assert begin.wait(PATIENCE)
            wait([inner])

        ex.submit(waits)
        inner = ex.submit(str, 7)
        thread = threading.Thread(target=wait, args=([inner],))
        thread.start()
        is_waited_for([inner])
        begin.set()
        assert outcome(inner) == "7"
        thread.join()


@pytest.mark.parametrize("wait", WAITS, ids=["wait", "as_completed"])
def test_what_an_earlier_task_has_left_to_a_spare_thread_waits_for_it(
    wait: Callable[..., Any],
) -> None:
    """Nothing that a task waits for stands behind that."""
    with BoundedExecutor(1) as ex:
        queued, begun = threading.Event(), threading.Event()

        def left() -> None:
            assert begun.wait(PATIENCE)
            later.result()

        def earlier() -> None:
            assert queued.wait(PATIENCE)
            cf.wait([ex.submit(left)], timeout=0)

        def waits() -> str:
            begun.set()
            return outer(ex, wait, [])

        ex.submit(earlier)
        later = ex.submit(waits)
        queued.set()
        assert outcome(later) == "7"


def test_a_spare_thread_that_has_not_run_yet_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, gate: threading.Event
) -> None:
    """A shutdown leaves no thread behind."""
    held, spares = threading.Event(), []

    def late(*args: Any) -> None:
        spares.append(threading.current_thread())
        assert held.wait(PATIENCE)
        run_spare(*args)

    run_spare = ThreadEngine._run_spare
    monkeypatch.setattr(ThreadEngine, "_run_spare", late)
    with BoundedExecutor(2) as ex:
        ex.submit(gate.wait, PATIENCE)
        future = ex.submit(lambda: ex.submit(int).result(PATIENCE))
        until(lambda: spares)
        gate.set()
        assert future.result(PATIENCE) == 0
        known = set(ex._pool.engine.threads)
        held.set()
    assert known.issuperset(spares)
    assert not spares[0].is_alive()


def test_nothing_is_kept_of_what_was_waited_for() -> None:
    with BoundedExecutor(2) as ex:

        def waits() -> None:
            for _ in range(200):
                cf.wait([ex.submit(str, 7)])

        for future in [ex.submit(waits) for _ in range(10)]:
            future.result(PATIENCE)
        assert len(ex._pool.expected._noted) <= 65


@pytest.mark.parametrize("wait", WAITS, ids=["wait", "as_completed"])
def test_there_was_no_thread_to_be_had(
    wait: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits for a spare thread gets one as soon as somebody looks again."""
    refused = threading.Event()

    def start(thread: threading.Thread) -> None:
        if not refused.is_set():
            refused.set()
            raise RuntimeError("can't start new thread")
        started(thread)

    started = _sync.start
    with BoundedExecutor(1) as ex:
        assert ex.submit(int).result(PATIENCE) == 0  # the worker is there
        monkeypatch.setattr(_sync, "start", start)
        assert ex.submit(outer, ex, wait, []).result(PATIENCE) == "7"
    assert refused.is_set()
