"""`options(max_wait=)`: a task that has waited for too long is not run, and its future says so."""

from __future__ import annotations

import asyncio
import copy
import gc
import pickle
import threading
import weakref
from collections.abc import Callable
from concurrent import futures as cf
from typing import Any

import pytest

import futurepool
from futurepool import (
    BoundedExecutor,
    CancelToken,
    FuturePoolError,
    OnFull,
    SubmitTimeoutError,
    TaskExpiredError,
    _sync,
)
from futurepool._deadlines import timer
from futurepool._foreign import aside
from futurepool._pool import expiry
from tests.helpers import hold, until

SOON = 0.01


def reasons(pool: BoundedExecutor) -> dict[str, int]:
    stats = pool.stats()
    parts = stats.completed_tasks + stats.cancelled_tasks + stats.active_workers
    assert stats.submitted_tasks == parts + stats.queued_tasks
    return {reason: count for reason, count in stats.rejections.items() if count}


async def _amap(view: Any) -> Any:
    return [result async for result in view.amap(int, "1")]


def _group(view: Any) -> Any:
    with pytest.raises(BaseException) as caught, view.group() as group:
        group.submit(int)
    raise caught.value.exceptions[0]  # type: ignore[attr-defined]


WAYS: dict[str, Callable[[Any], Any]] = {
    "submit": lambda view: view.submit(int).result(30),
    "try_submit": lambda view: view.try_submit(int).result(30),
    "under a token": lambda view: view.submit_with_token(CancelToken(), int).result(30),
    "named": lambda view: view.options(name="x").submit(int).result(30),
    "map": lambda view: list(view.map(int, ["1"])),
    "map of a generator": lambda view: list(view.map(int, iter("1"))),
    "map in chunks": lambda view: list(view.map(int, "12", chunksize=2)),
    "lazy map": lambda view: list(view.map(int, "1", buffersize=1)),
    "map_unordered": lambda view: list(view.map_unordered(int, "1")),
    "arun": lambda view: asyncio.run(view.arun(int)),
    "arun under a token": lambda view: asyncio.run(view.options(token=CancelToken()).arun(int)),
    "amap": lambda view: asyncio.run(_amap(view)),
    "in a group": _group,
}


@pytest.mark.parametrize("aging", [None, 1.0], ids=["", "with aging"])
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_it_expires_though_no_worker_comes(
    way: Callable[[Any], Any], aging: float | None, gate: threading.Event
) -> None:
    """In each way to submit; and the pool goes on."""
    with BoundedExecutor(1, aging=aging) as pool:
        hold(pool, gate)
        with pytest.raises(TaskExpiredError):
            way(pool.options(max_wait=SOON))
        assert reasons(pool) == {"expired": 1}
        assert pool.stats().queued_tasks == 0
        gate.set()
        assert pool.submit(int).result(30) == 0
        assert pool.stats().failed_tasks == 0


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_the_time_for_a_place_counts(way: Callable[[Any], Any], gate: threading.Event) -> None:
    """Whoever waits for one, as a thread or as a coroutine, is told as soon."""
    with BoundedExecutor(1, queue_size=0) as pool:
        hold(pool, gate)
        if way is WAYS["try_submit"]:
            way = WAYS["submit"]
        with pytest.raises(TaskExpiredError):
            way(pool.options(max_wait=SOON))
        assert reasons(pool) == {"expired": 1}
        stats = pool.stats()
        assert (stats.waiting_submitters, stats.submitted_tasks) == (0, 1)
        gate.set()
        assert pool.submit(int).result(30) == 0


def test_what_it_says(gate: threading.Event) -> None:
    """Which task of which pool, how long it waited; also after a journey."""
    with BoundedExecutor(1, name="db") as pool:
        hold(pool, gate)
        future = pool.options(max_wait=SOON).submit(divmod, 7, 2)
        error = future.exception(30)
        assert isinstance(error, TaskExpiredError)
        assert isinstance(error, FuturePoolError)
        assert isinstance(error, TimeoutError)
        assert (error.pool, error.task, error.max_wait) == ("db", "divmod", SOON)
        assert error.waited is not None
        assert error.waited >= SOON
        assert str(error).startswith("task 'divmod' of pool 'db' was not run: it had waited")
        assert str(error).endswith("(max_wait=0.01)")
        assert str(error) in repr(error)
        assert str(TaskExpiredError()) == "task was not run: it had waited for too long"
        for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):
            assert (str(twin), twin.waited) == (str(error), error.waited)
        assert (future.done(), future.cancelled(), future.running()) == (True, False, False)
        assert future.cancel() is False
        gate.set()


def test_the_wait_for_a_place_counts(gate: threading.Event) -> None:
    """What the error says is since the submit, not since there was a place."""
    with BoundedExecutor(1, queue_size=1) as pool:
        hold(pool, gate)
        first = pool.submit(int)
        late: list[Any] = []
        view = pool.options(max_wait=0.3)
        thread = threading.Thread(target=lambda: late.append(view.submit(int)))
        began = _sync.clock()
        thread.start()
        until(lambda: late or pool.stats().waiting_submitters)
        gate.wait(max(0.0, began + 0.1 - _sync.clock()))
        first.cancel()
        thread.join()
        error = late[0].exception(30)
        assert isinstance(error, TaskExpiredError)
        assert error.waited is not None
        assert error.waited >= 0.3
        gate.set()


def test_those_who_wait_for_it_are_told(gate: threading.Event) -> None:
    """By callback, `wait`, `as_completed`, a subscriber, all of the same future."""
    with BoundedExecutor(1) as pool:
        hold(pool, gate)
        view = pool.options(max_wait=0.05)
        futures = [view.submit(int) for _ in range(3)]
        told: list[Any] = []
        futures[0].add_done_callback(told.append)
        assert cf.wait(futures[1:], 30).done == set(futures[1:])
        assert set(cf.as_completed(futures, 30)) == set(futures)
        assert aside.join(30)
        assert told == [futures[0]]
        gate.set()


def test_one_that_starts_in_time_runs() -> None:
    """However long it takes, and however short its time was."""
    with BoundedExecutor(1) as pool:
        expired = threading.Event()
        first = pool.options(max_wait=30).submit(expired.wait, 30)
        with pytest.raises(TaskExpiredError):
            pool.options(max_wait=SOON).submit(int).result(30)
        expired.set()
        assert first.result(30) is True
        assert reasons(pool) == {"expired": 1}


def test_each_at_its_own_time(gate: threading.Event) -> None:
    """The order in which they were submitted does not matter; who has no limit waits."""
    with BoundedExecutor(1) as pool:
        hold(pool, gate)
        patient = [pool.submit(int), pool.options(max_wait=1000).submit(int)]
        late = [pool.options(max_wait=time).submit(int) for time in (0.2, SOON, 0.1)]
        done = list(cf.as_completed(late, 30))
        assert done == [late[1], late[2], late[0]]
        gate.set()
        assert [future.result(30) for future in patient] == [0, 0]


def test_a_place_comes_free(gate: threading.Event) -> None:
    """What expires hands its place to whoever waits for one."""
    with BoundedExecutor(1, queue_size=1) as pool:
        hold(pool, gate)
        first = pool.options(max_wait=0.05).submit(int)
        second = pool.submit(int)  # blocks until then
        assert isinstance(first.exception(0), TaskExpiredError)
        gate.set()
        assert second.result(30) == 0


def test_options_go_together(gate: threading.Event) -> None:
    """With a policy, a timeout for the place, another view of the view."""
    with BoundedExecutor(1, queue_size=1) as pool:
        hold(pool, gate)
        view = pool.options(max_wait=SOON).options(priority=3)
        assert isinstance(view.submit(int).exception(30), TaskExpiredError)
        assert view.options(max_wait=None)._futurepool_options.max_wait is None
        assert "max_wait=0.01" in repr(view)
        waiting = pool.options(max_wait=30).submit(int)
        with pytest.raises(SubmitTimeoutError):
            pool.options(max_wait=30, timeout=SOON).submit(int)
        assert isinstance(
            pool.options(max_wait=SOON, timeout=30).submit(int).exception(30), TaskExpiredError
        )
        newer = pool.options(max_wait=SOON, on_full=OnFull.DROP_OLDEST).submit(int)
        assert waiting.cancelled()
        assert isinstance(newer.exception(30), TaskExpiredError)
        assert reasons(pool) == {"expired": 3, "timeout": 1, "dropped": 1}
        gate.set()


def test_in_a_group_it_is_a_failure(gate: threading.Event) -> None:
    """It cancels the others."""
    with BoundedExecutor(1) as pool:
        hold(pool, gate)
        with pytest.raises(BaseException) as caught, pool.group() as group:
            other = group.submit(int)
            group.options(max_wait=SOON).submit(int)
        assert [type(error) for error in caught.value.exceptions] == [TaskExpiredError]  # type: ignore[attr-defined]
        assert other.cancelled()
        gate.set()


def test_it_lets_go_of_its_arguments(gate: threading.Event) -> None:
    """Soon, though the future lives, and with nobody heard of it: it is counted."""

    class Thing:
        pass

    thing = Thing()
    ref = weakref.ref(thing)
    heard: list[Any] = []
    with BoundedExecutor(1, error_handler=heard.append) as pool:
        hold(pool, gate)
        future = pool.options(max_wait=SOON).submit(id, thing)
        del thing
        assert isinstance(future.exception(30), TaskExpiredError)
        assert aside.join(30)
        gate.set()
        assert pool.submit(int).result(30) == 0  # drops what was queued
        gc.collect()
        assert ref() is None
    assert heard == []


def test_a_thousand_tasks_arrange_one_look(
    gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No timer for each task, nor one for each view."""
    looks: list[float] = []
    schedule = timer.schedule

    def counted(when: float, target: Any) -> None:
        if isinstance(target, expiry.Expiry):
            looks.append(when)
        schedule(when, target)

    monkeypatch.setattr(type(timer), "schedule", lambda _, when, target: counted(when, target))
    with BoundedExecutor(1, queue_size=None) as pool:
        hold(pool, gate)
        view, other = pool.options(max_wait=1000), pool.options(max_wait=2000, name="x")
        futures = list(view.map(int, [])) + [view.submit(int) for _ in range(300)]
        futures += [other.submit(int) for _ in range(300)]
        futures += [pool.options(max_wait=3000).submit(int) for _ in range(300)]
        assert len(looks) == 1
        gate.set()
        cf.wait(futures, 30)


@pytest.mark.parametrize("name", [None, "x"], ids=["the short way", "the long way"])
def test_what_has_run_leaves_nothing_behind(name: str | None) -> None:
    """No result is kept alive, and of the notes of it only so many."""

    class Result:
        pass

    with BoundedExecutor(2) as pool:
        view = pool.options(max_wait=1000, name=name)
        ref = weakref.ref(view.submit(Result).result(30))
        for _ in range(20):
            for future in [view.submit(int) for _ in range(300)]:
                future.result(30)
            timer._wake()
        pool.wait(30)
        gc.collect()
        assert ref() is None
        row = view._futurepool_options.row
        assert (row is None) is (name is not None or futurepool.form == "plain")

        def notes() -> int:
            return len(pool._futurepool.expiry._heap) + (0 if row is None else len(row))

        # It is the timer's thread that tidies.
        ended = threading.Event()
        for _ in range(3000):
            if notes() <= expiry._SWEEP + 300:
                break
            ended.wait(0.01)
        assert notes() <= expiry._SWEEP + 300


@pytest.mark.skipif(futurepool.form != "fast", reason="rows are of that form")
def test_in_the_child_of_a_fork_nothing_waits(gate: threading.Event) -> None:
    """The row of a view is used again there."""
    with BoundedExecutor(1) as pool:
        hold(pool, gate)
        view = pool.options(max_wait=1000)
        future = view.submit(int)
        row = view._futurepool_options.row
        assert (len(row), row.look_at > 0) == (1, True)
        with pool._futurepool.mutex:
            pool._futurepool.expiry.forget()
        assert (len(row), row.look_at) == (0, 0)
        assert isinstance(pool.options(max_wait=SOON).submit(int).exception(30), TaskExpiredError)
        gate.set()
        assert future.result(30) == 0
        assert view.submit(int).result(30) == 0


def test_observers_hear_of_it(gate: threading.Event) -> None:
    """As the end of the task, or as a refusal of one that had no place."""
    events: list[tuple[str, str | None]] = []

    class Ear:
        def finished(self, event: Any) -> None:
            events.append((event.kind, event.outcome))

        refused = finished

    with BoundedExecutor(1, queue_size=1) as pool:
        hold(pool, gate)
        ear: Any = Ear()
        pool.add_observer(ear)
        view = pool.options(max_wait=SOON)
        with pytest.raises(TaskExpiredError):
            view.submit(int).result(30)
        pool.submit(int)
        with pytest.raises(TaskExpiredError):
            view.submit(int).result(30)
        pool.remove_observer(ear)
        gate.set()
    assert events == [("finished", "expired"), ("refused", "expired")]


def test_a_closed_pool_runs_what_it_has_in_time(gate: threading.Event) -> None:
    """Deadlines go on after the shutdown, and it waits for nobody who has expired."""
    pool = BoundedExecutor(1)
    hold(pool, gate)
    late, early = pool.options(max_wait=0.05).submit(int), pool.submit(int)
    pool.shutdown(wait=False)
    assert isinstance(late.exception(30), TaskExpiredError)
    gate.set()
    pool.shutdown()
    assert early.result(0) == 0


def test_before_another_executor(gate: threading.Event) -> None:
    """What waits to be handed to it expires, is shed, and is handed over newest first, as ever."""
    with BoundedExecutor(1, engine=cf.ThreadPoolExecutor(1)) as pool:
        hold(pool, gate)
        assert isinstance(pool.options(max_wait=SOON).submit(int).exception(30), TaskExpiredError)
        gate.set()
    gate.clear()
    order: list[int] = []
    with BoundedExecutor(1, engine=cf.ThreadPoolExecutor(1), order="lifo") as pool:
        hold(pool, gate)
        for number in range(3):
            pool.submit(order.append, number)
        gate.set()
    assert order == [2, 1, 0]
    gate.clear()
    with BoundedExecutor(1, engine=cf.ThreadPoolExecutor(1), on_full=OnFull.SHED) as pool:
        hold(pool, gate)
        queue: Any = pool._futurepool.queue
        queue._overloaded, queue._end = True, _sync.clock() + 1000
        late = pool.submit(int)
        late._queued_at -= 1
        gate.set()
        assert isinstance(late.exception(30), TaskExpiredError)
