"""A worker that an asynchronous exception strikes outside a task, at each place in turn."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from futurepool import BoundedExecutor
from futurepool.queue import Core


class Strike(BaseException):
    pass


@pytest.fixture
def ex() -> Any:
    with BoundedExecutor(1, queue_size=5) as ex:
        ex.submit(int).result()
        yield ex


def strike(monkeypatch: pytest.MonkeyPatch, name: str, after: bool, times: int = 1) -> None:
    """Raise in a worker, before or after a method of the core."""
    original = getattr(Core, name)
    left = [times]

    def struck(self: Core, *args: Any) -> Any:
        mine = threading.current_thread() is not threading.main_thread() and left[0] > 0
        if mine and not after:
            left[0] -= 1
            raise Strike
        result = original(self, *args)
        if mine:
            left[0] -= 1
            raise Strike
        return result

    monkeypatch.setattr(Core, name, struck)


@pytest.mark.parametrize("times", [1, 3])
def test_before_a_turn(ex: BoundedExecutor, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """The outcome is not committed yet: the task fails with the exception, or had none."""
    strike(monkeypatch, "turn", after=False, times=times)
    futures = [ex.submit(int) for _ in range(5)]
    for future in futures:
        error = future.exception(30)
        assert error is None or isinstance(error, Strike)
    assert ex.wait(30)
    assert ex.submit(int).result(30) == 0


def test_after_a_turn(ex: BoundedExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task is claimed and was not begun: it fails with the exception."""
    strike(monkeypatch, "turn", after=True)
    futures = [ex.submit(int) for _ in range(3)]
    errors = [future.exception(30) for future in futures]
    assert [error for error in errors if error is not None and type(error) is not Strike] == []
    assert ex.wait(30)
    assert ex.submit(int).result(30) == 0


@pytest.mark.parametrize("after", [False, True])
def test_around_a_commit(ex: BoundedExecutor, monkeypatch: pytest.MonkeyPatch, after: bool) -> None:
    """Before it the task fails with the exception; after it waiters are told all the same."""
    gate = threading.Event()
    told = threading.Event()
    strike(monkeypatch, "_commit", after=after)
    future = ex.submit(gate.wait, 30)
    future.add_done_callback(lambda _: told.set())
    gate.set()
    assert told.wait(30)
    error = future.exception(30)
    assert (error is None) == after
    assert after or isinstance(error, Strike)
    assert ex.wait(30)
    assert ex.submit(int).result(30) == 0


@pytest.mark.parametrize("after", [False, True])
def test_around_claiming_on_the_spot(
    ex: BoundedExecutor, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    """A task that waits for another of its pool: the exception is the waiter's, nothing is lost."""
    strike(monkeypatch, "claim", after=after)
    inner: list[Any] = []

    def outer() -> Any:
        inner.append(ex.submit(int))
        return inner[0].result()

    assert isinstance(ex.submit(outer).exception(30), Strike)
    error = inner[0].exception(30)
    assert isinstance(error, Strike) if after else error is None
    assert ex.wait(30)
    assert ex.submit(int).result(30) == 0


@pytest.mark.parametrize("after", [False, True])
def test_around_finishing_on_the_spot(
    ex: BoundedExecutor, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    """The inner task has run: it is finished, whatever strikes the one that ran it."""
    original = Core.finish
    left = [1]

    def finish(self: Core, record: Any, *args: Any) -> None:
        mine = record.thread is None and left[0] > 0
        left[0] -= mine
        if mine and not after:
            raise Strike
        original(self, record, *args)
        if mine:
            raise Strike

    monkeypatch.setattr(Core, "finish", finish)
    inner: list[Any] = []

    def outer() -> Any:
        inner.append(ex.submit(int))
        return inner[0].result()

    assert isinstance(ex.submit(outer).exception(30), Strike)
    error = inner[0].exception(30)
    assert error is None if after else isinstance(error, Strike)
    assert ex.wait(30)


def test_a_worker_that_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Struck after its last turn, it is gone all the same, and shutdown returns."""
    ex = BoundedExecutor(1)
    ex.submit(int).result()
    original = Core.turn

    def turn(self: Core, record: Any, *args: Any) -> Any:
        task = original(self, record, *args)
        if record.leave:
            raise Strike
        return task

    monkeypatch.setattr(Core, "turn", turn)
    ex.shutdown()
    assert ex._threads == set()
