"""Why tasks were refused, who waits, for how long: the counters beside those of `test_observing`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from futurepool import (
    BoundedExecutor,
    CancelToken,
    OnFull,
    PoolClosedError,
    QueuedTask,
    QueueFullError,
    SubmitTimeoutError,
    _sync,
)
from tests.helpers import hold


def reasons(pool: BoundedExecutor) -> dict[str, int]:
    """Those that are not zero; and they add up."""
    stats = pool.stats()
    assert set(stats.rejections) == {"full", "timeout", "closed", "dropped", "expired", "cancelled"}
    assert stats.rejected_tasks == sum(stats.rejections.values())
    return {reason: count for reason, count in stats.rejections.items() if count}


def waiting(pool: BoundedExecutor, number: int) -> None:
    while pool.stats().waiting_submitters != number:
        pass


async def late(pool: BoundedExecutor) -> None:
    with pytest.raises(SubmitTimeoutError):
        await pool.options(timeout=0.01).arun(int)


def by_token(token: CancelToken) -> Callable[[BoundedExecutor], Any]:
    return lambda pool: pool.submit_with_token(token, int)


cancelled, expired = CancelToken(), CancelToken(timeout=0)
cancelled.cancel()

WAYS: dict[str, tuple[Callable[[BoundedExecutor], Any], type[Exception] | None, str]] = {
    "try_submit": (lambda pool: pool.try_submit(int), QueueFullError, "full"),
    "RAISE": (lambda pool: pool.options(on_full=OnFull.RAISE).submit(int), QueueFullError, "full"),
    "DROP_NEW": (lambda pool: pool.options(on_full=OnFull.DROP_NEW).submit(int), None, "dropped"),
    "DROP_OLDEST": (
        lambda pool: pool.options(on_full=OnFull.DROP_OLDEST).submit(int),
        None,
        "dropped",
    ),
    "no time": (lambda pool: pool.submit_with_timeout(0, int), SubmitTimeoutError, "timeout"),
    "too little": (lambda pool: pool.submit_with_timeout(0.01, int), SubmitTimeoutError, "timeout"),
    "arun": (lambda pool: asyncio.run(late(pool)), None, "timeout"),
    "cancelled token": (by_token(cancelled), None, "cancelled"),
    "expired token": (by_token(expired), None, "expired"),
}


@pytest.mark.parametrize("way", WAYS)
def test_each_reason(way: str, gate: threading.Event) -> None:
    """One refusal, counted under one reason."""
    submit, error, reason = WAYS[way]
    with BoundedExecutor(1, queue_size=1) as pool:
        hold(pool, gate)
        pool.submit(int)
        assert reasons(pool) == {}
        if error is None:
            submit(pool)
        else:
            with pytest.raises(error):
                submit(pool)
        assert reasons(pool) == {reason: 1}
        gate.set()


def submit_soon(pool: BoundedExecutor, token: CancelToken | None = None) -> Callable[[], object]:
    """Submit in another thread, which waits for a place; returns what brings its outcome."""
    outcome: list[object] = []

    def submit() -> None:
        try:
            outcome.append(pool.options(token=token).submit(int).cancelled())
        except BaseException as error:
            outcome.append(type(error))

    thread = threading.Thread(target=submit)
    thread.start()
    while pool.stats().waiting_submitters != 1 and not outcome:  # its token may be quicker
        pass

    def end() -> object:
        thread.join(30)
        return outcome[0]

    return end


def test_a_submitter_that_waits_when_the_pool_is_closed(gate: threading.Event) -> None:
    """It is turned away for that, not for the queue."""
    with BoundedExecutor(1, queue_size=0) as pool:
        hold(pool, gate)
        end = submit_soon(pool)
        pool.shutdown(wait=False)
        assert end() is PoolClosedError
        assert reasons(pool) == {"closed": 1}
        gate.set()


@pytest.mark.parametrize(("seconds", "reason"), [(None, "cancelled"), (0.05, "expired")])
def test_a_token_ends_the_wait_for_a_place(
    seconds: float | None, reason: str, gate: threading.Event
) -> None:
    """By its deadline, or since somebody cancels it."""
    token = CancelToken(timeout=seconds)
    with BoundedExecutor(1, queue_size=0) as pool:
        hold(pool, gate)
        end = submit_soon(pool, token)
        if seconds is None:
            token.cancel()
        assert end() is True
        assert reasons(pool) == {reason: 1}
        gate.set()


@pytest.mark.parametrize("how", ["its task", "its token", "its deadline"])
def test_a_coroutine_that_waits_no_longer(how: str, gate: threading.Event) -> None:
    """It is cancelled, or its token is, before it has a place: it counts as a thread's does."""

    async def give_up(pool: BoundedExecutor) -> None:
        token = CancelToken(timeout=0.05 if how == "its deadline" else None)
        waiting = asyncio.ensure_future(pool.options(token=token).arun(int))
        # The pool has no event for it; a deadline may be quicker than we look.
        while not (pool.stats().waiting_submitters or waiting.done()):  # noqa: ASYNC110
            await asyncio.sleep(0)
        if how == "its task":
            waiting.cancel()
        elif how == "its token":
            token.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    with BoundedExecutor(1, queue_size=0) as pool:
        hold(pool, gate)
        asyncio.run(give_up(pool))
        assert reasons(pool) == {"expired" if how == "its deadline" else "cancelled": 1}
        assert pool.stats().waiting_submitters == 0
        gate.set()


def test_threads_and_the_oldest_task(gate: threading.Event, monkeypatch: Any) -> None:
    """How many threads there are, and how long the task has waited that has waited longest."""
    clock = _sync.clock
    for aging in (None, 60.0):
        with BoundedExecutor(3, name="db", aging=aging) as pool:
            stats = pool.stats()
            assert (stats.name, stats.workers, stats.oldest_queued) == ("db", 0, 0.0)
            for _ in range(3):
                pool.submit(gate.wait, 30)
            while pool.stats().active_workers < 3:
                pass
            first = pool.submit_with_priority(2, int)
            monkeypatch.setattr(_sync, "clock", lambda: clock() + 100)
            second = pool.submit_with_priority(5, int)
            monkeypatch.setattr(_sync, "clock", lambda: clock() + 110)
            assert pool.stats().workers == 3
            assert 110 <= pool.stats().oldest_queued < 120
            first.cancel()
            assert 10 <= pool.stats().oldest_queued < 20
            second.cancel()
            assert pool.stats().oldest_queued == 0.0
            monkeypatch.undo()
            gate.set()
        gate.clear()
        assert pool.stats().workers == 0


@pytest.mark.parametrize("aging", [None, 3600.0])
def test_what_is_queued_in_order(aging: float | None, gate: threading.Event) -> None:
    """As it starts: by priority, then by arrival; without what was cancelled."""
    with BoundedExecutor(1, aging=aging) as pool:
        assert pool.queued() == []
        hold(pool, gate)
        started: list[str] = []
        for name, priority in (("a", 1), ("b", 3), ("gone", 3), ("c", 1), ("d", -2), ("e", 3)):
            future = pool.options(name=name, priority=priority).submit(started.append, name)
            if name == "gone":
                future.cancel()
        queued = pool.queued()
        assert [(task.name, task.task_id, task.priority) for task in queued] == [
            ("b", 3, 3),
            ("e", 7, 3),
            ("a", 2, 1),
            ("c", 5, 1),
            ("d", 6, -2),
        ]
        assert all(isinstance(task, QueuedTask) and 0 <= task.seconds < 30 for task in queued)
        gate.set()
    assert started == [task.name for task in queued]


def test_how_long_submitters_waited_for_their_place(gate: threading.Event) -> None:
    """A thread and a coroutine that got one; who found one at once, or got none, does not count."""
    with BoundedExecutor(1, queue_size=0, enable_metrics=True) as pool:
        hold(pool, gate)
        admission = pool.stats().admission
        assert admission is not None
        assert admission.count == 0
        with pytest.raises(SubmitTimeoutError):
            pool.submit_with_timeout(0.01, int)
        end = submit_soon(pool)

        async def wait_for_a_place() -> int:
            asyncio.get_running_loop().call_later(0.02, gate.set)
            return await pool.arun(int)

        began = _sync.clock()
        assert asyncio.run(wait_for_a_place()) == 0
        took = _sync.clock() - began
        assert end() is False
        pool.wait()
        admission = pool.stats().admission
        assert admission is not None
        assert admission.count == 2
        assert 0.02 <= admission.max < took + 1
        assert admission.max <= admission.sum <= 2 * admission.max
    assert BoundedExecutor(1).stats().admission is None
