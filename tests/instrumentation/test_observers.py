"""Observers: who is told of each task, when, of what, by whom."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import pickle
import sys
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from futurepool import (
    BoundedExecutor,
    CancelToken,
    Observer,
    OnFull,
    QueueFullError,
    TaskEvent,
    _sync,
)
from futurepool._pool import observing
from futurepool._pool.workers import WorkerSlot
from tests.helpers import hold


class Notes(Observer):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[TaskEvent] = []
        self.threads: set[str] = set()

    def submitted(self, event: TaskEvent) -> None:
        self.events.append(event)
        self.threads.add(threading.current_thread().name)

    started = finished = refused = submitted

    def of(self, task_id: int) -> list[TaskEvent]:
        return [event for event in self.events if event.task_id == task_id]

    def kinds(self) -> list[tuple[int, str, str | None]]:
        return [(event.task_id, event.kind, event.outcome) for event in self.events]


def test_what_a_task_goes_through() -> None:
    """Three events, in order, with its name, priority, times and worker."""
    notes, before = Notes(), time.time()
    with BoundedExecutor(1, name="db") as pool:
        pool.add_observer(notes)
        pool.options(name="load", priority=2).submit(time.sleep, 0.01).result()
    after = time.time()
    submitted, started, finished = notes.events
    assert [event.kind for event in notes.events] == ["submitted", "started", "finished"]
    for event in notes.events:
        assert (event.pool, event.task_id, event.name, event.priority) == ("db", 1, "load", 2)
    assert before - 1 < submitted.time <= started.time <= finished.time < after + 1
    assert (submitted.worker, started.worker, finished.worker) == (None, "db_0", "db_0")
    assert (submitted.waited, submitted.ran, submitted.outcome) == (None, None, None)
    assert (started.ran, started.outcome) == (None, None)
    assert (
        started.waited == finished.waited == pytest.approx(started.time - submitted.time, abs=1e-5)
    )
    assert finished.ran == pytest.approx(finished.time - started.time, abs=1e-5)
    assert (finished.ran or 0) >= 0.01
    assert (finished.outcome, finished.error) == ("success", None)
    assert pickle.loads(pickle.dumps(finished)) == finished
    assert notes.threads == {"futurepool-observers"}


def test_no_task_starts_before_it_is_submitted() -> None:
    """A worker reads the clock, and may then take what was submitted only after that."""
    notes = Notes()
    with BoundedExecutor(1) as pool:
        pool.add_observer(notes)
        task = pool.submit(int)
        task.result()
        slot = WorkerSlot(pool._futurepool)
        slot.started = task._queued_at - 0.5
        feed = pool._futurepool.feed
        assert feed is not None
        with pool._futurepool.mutex:
            feed.started(task, slot)
            feed.finished(task, slot, task._queued_at + 1.0, None)
            feed.taken_back(task, slot)
    submitted = notes.events[0]
    started, finished, taken_back = notes.events[3:]
    assert started.time == submitted.time
    assert finished.ran == pytest.approx(1.0)
    assert taken_back.waited == started.waited == finished.waited == 0.0


def test_each_outcome(gate: threading.Event) -> None:
    """Success, failure, cancelled before it started; and what is refused, with its reason."""
    notes = Notes()
    with BoundedExecutor(1, queue_size=1, error_handler=id) as pool:
        pool.add_observer(notes)
        pool.submit(int, "x").exception()
        hold(pool, gate)
        pool.submit(int).cancel()
        oldest = pool.submit(int)
        pool.options(on_full=OnFull.DROP_OLDEST).submit(int)
        assert oldest.cancelled()
        with pytest.raises(QueueFullError):
            pool.options(name="late", priority=-1).try_submit(int)
        token = CancelToken()
        token.cancel()
        pool.submit_with_token(token, int)
        gate.set()
    assert notes.kinds() == [
        (1, "submitted", None),
        (1, "started", None),
        (1, "finished", "error"),
        (2, "submitted", None),
        (2, "started", None),
        (3, "submitted", None),
        (3, "finished", "cancelled"),
        (4, "submitted", None),
        (4, "finished", "cancelled"),
        (5, "submitted", None),
        (0, "refused", "full"),
        (0, "refused", "cancelled"),
        (2, "finished", "success"),
        (5, "started", None),
        (5, "finished", "success"),
    ]
    assert notes.of(1)[-1].error == "ValueError"
    late = notes.of(0)[0]
    assert (late.name, late.priority) == ("late", -1)
    cancelled = notes.of(3)[-1]
    assert (cancelled.worker, cancelled.ran) == (None, None)


def caller_runs_it(pool: BoundedExecutor) -> None:
    pool._futurepool.engine.run_here(pool.submit(time.sleep, 0))


WAYS: dict[str, Callable[[BoundedExecutor], object]] = {
    "submit": lambda pool: pool.submit(int).result(),
    "with a callback": lambda pool: pool.submit(int).add_done_callback(id),
    "map": lambda pool: list(pool.map(int, ["1"])),
    "map_unordered": lambda pool: list(pool.map_unordered(int, ["1"])),
    "arun": lambda pool: asyncio.run(pool.arun(int)),
    "run_in_executor": lambda pool: asyncio.run(in_loop(pool)),
    "under a token": lambda pool: pool.submit_with_token(CancelToken(), int).result(),
    "in the caller": caller_runs_it,
}


async def in_loop(pool: BoundedExecutor) -> int:
    return await asyncio.get_running_loop().run_in_executor(pool, int)


@pytest.mark.parametrize("aging", [None, 60.0])
@pytest.mark.parametrize("way", WAYS)
def test_every_way_in(way: str, aging: float | None) -> None:
    """Whatever path the task takes, the same three events; with histograms, too."""
    for metrics in (False, True):
        notes = Notes()
        with BoundedExecutor(2, aging=aging, enable_metrics=metrics) as pool:
            pool.add_observer(notes)
            WAYS[way](pool)
        assert notes.kinds() == [
            (1, "submitted", None),
            (1, "started", None),
            (1, "finished", "success"),
        ]
        stats = pool.stats()
        assert stats.completed_tasks == 1
        assert stats.latency is None or stats.latency.count == 1


def test_a_task_that_its_submitter_runs(gate: threading.Event) -> None:
    """For want of a place: it is never queued, but told of all the same."""
    notes = Notes()
    with BoundedExecutor(1, queue_size=0, on_full=OnFull.CALLER_RUNS) as pool:
        pool.add_observer(notes)
        hold(pool, gate)
        pool.submit(int).result()
        gate.set()
    kinds = [(event.kind, event.worker) for event in notes.of(2)]
    me = threading.current_thread().name
    assert kinds == [("submitted", None), ("started", me), ("finished", me)]


@pytest.mark.parametrize("chunksize", [1, 2, "auto"])
def test_what_a_refused_map_has_withdrawn(gate: threading.Event, chunksize: Any) -> None:
    """Those of its tasks that had a place end as cancelled ones."""
    notes = Notes()
    with BoundedExecutor(1, queue_size=3, on_full=OnFull.RAISE) as pool:
        pool.add_observer(notes)
        hold(pool, gate)
        pool.submit(int)
        if chunksize == "auto":
            pool.map(abs, range(9), chunksize=chunksize).close()
        else:
            with pytest.raises(QueueFullError):
                pool.map(abs, range(9), chunksize=chunksize)
        gate.set()
    ended = Counter(event.task_id for event in notes.events if event.kind == "finished")
    begun = Counter(event.task_id for event in notes.events if event.kind == "submitted")
    assert ended == begun
    assert {*begun.values()} == {1}
    stats = pool.stats()
    assert len(begun) == stats.submitted_tasks > 2
    outcomes = [event.outcome for event in notes.events if event.kind == "finished"]
    assert outcomes.count("cancelled") == stats.cancelled_tasks


def test_a_refusal_is_told_though_nothing_else_happens() -> None:
    """Nobody has to come by for that."""
    heard = threading.Event()

    class Waits(Observer):
        def refused(self, event: TaskEvent) -> None:
            heard.set()

    token = CancelToken()
    token.cancel()
    with BoundedExecutor(1) as pool:
        pool.add_observer(Waits())
        assert pool.submit_with_token(token, int).cancelled()
        assert heard.wait(30)


def test_a_worker_that_has_ended() -> None:
    """It is called what it was called, though another thread may have got its identifier."""
    notes, feed = Notes(), observing.Feed("db", deque())
    feed.observers = (notes,)
    with BoundedExecutor(1) as pool:
        task = pool.submit(int)
    gone = threading.Thread(name="db_0")
    slot = SimpleNamespace(thread=gone, ident=threading.get_ident(), started=0.0)
    feed.started(task, slot)
    feed._tell()
    assert [event.worker for event in notes.events] == ["db_0"]


def test_one_that_comes_and_goes(gate: threading.Event) -> None:
    """It hears of what runs and waits when it comes, and of nothing once it has gone."""
    first, second = Notes(), Notes()
    with BoundedExecutor(1) as pool:
        hold(pool, gate)
        pool.submit(int)
        pool.add_observer(first)
        pool.add_observer(second)
        pool.submit(int)
        pool.remove_observer(second)
        gate.set()
        pool.wait()
        pool.remove_observer(first)
        pool.submit(int).result()
        assert pool._futurepool.feed is None
        with pytest.raises(ValueError, match="not an observer"):
            pool.remove_observer(first)
        started = pool.submit(int)
    assert started.done()
    assert first.kinds() == [
        (3, "submitted", None),
        (1, "finished", "success"),
        (2, "started", None),
        (2, "finished", "success"),
        (3, "started", None),
        (3, "finished", "success"),
    ]
    assert second.kinds() == first.kinds()[:1]


@pytest.mark.parametrize("error", [ArithmeticError(7), SystemExit(7)])
def test_what_one_raises_is_logged(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    """It goes on to be told, and so do the others."""

    class Bad(Notes):
        def started(self, event: TaskEvent) -> None:
            raise error

    bad, good = Bad(), Notes()
    with caplog.at_level(logging.ERROR, "futurepool"), BoundedExecutor(1, name="db") as pool:
        pool.add_observer(bad)
        pool.add_observer(good)
        pool.submit(int).result()
        pool.submit(int)
    assert [event.kind for event in bad.events] == ["submitted", "finished"] * 2
    assert len(good.events) == 6
    assert len(caplog.records) == 2
    for record in caplog.records:
        assert record.getMessage() == "an observer of the pool 'db' raised at started"
        assert record.exc_info is not None
        assert record.exc_info[1] is error
        assert vars(record)["pool"] == "db"


def test_a_slow_one_delays_nobody(
    gate: threading.Event, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Tasks go on; what cannot be kept for it is left out, which is said."""
    monkeypatch.setattr(observing, "MOST", 50)

    class Slow(Notes):
        def submitted(self, event: TaskEvent) -> None:
            super().submitted(event)
            assert gate.wait(30)

    slow = Slow()
    with BoundedExecutor(1, name="db") as pool:
        pool.add_observer(slow)
        pool.submit(int).result()
        while not slow.events:
            pass
        for _ in range(100):
            pool.submit(int).result()
        gate.set()
    seen = [event.task_id for event in slow.events if event.kind == "submitted"]
    assert len(seen) < 60
    messages = [record.getMessage() for record in caplog.records]
    assert [message.split(":")[0] for message in messages] == [
        "the observers of the pool 'db' are too slow"
    ]


def test_many_pools_are_told_of_together(
    gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After one pause, however many there are, and however often each has called."""
    pauses: list[float] = []
    sleep_at = _sync.sleep_at

    def pause(parker: Any, timeout: float | None, look: Callable[[], object]) -> None:
        if threading.current_thread().name == "futurepool-observers":
            pauses.append(timeout or 0.0)
        sleep_at(parker, timeout, look)

    monkeypatch.setattr(_sync, "sleep_at", pause)
    feeds = [observing.Feed(str(number), deque()) for number in range(50)]
    notes, busy = Notes(), threading.Event()
    observing.desk.later(lambda: busy.set() or gate.wait(30))  # type: ignore[func-returns-value]
    assert busy.wait(30)
    pauses.clear()  # of tests before
    for feed in feeds:
        feed.observers = (notes,)
        for number in range(1, 4):
            task = SimpleNamespace(
                task_id=number, name="x", priority=1, _queued_at=0.0, _noted=False
            )
            feed.cancelled(task)
            for _ in range(10):
                observing._call_desk()
    gate.set()
    observing.desk.settle()
    assert [event.pool for event in notes.events] == [str(n // 3) for n in range(150)]
    assert pauses == [observing._PAUSE]


def test_it_keeps_no_argument_alive(gate: threading.Event) -> None:
    """Nor the task, once it was told."""

    class Argument:
        pass

    notes, argument = Notes(), Argument()
    watched = weakref.ref(argument)
    with BoundedExecutor(1) as pool:
        pool.add_observer(notes)
        pool.submit(id, argument).result()
        del argument
        pool.wait()
        pool.shutdown()
        gc.collect()
        assert watched() is None


def test_observers_are_observers() -> None:
    """What could hear nothing is refused."""
    with BoundedExecutor(1) as pool:
        for wrong in (None, print, object()):
            with pytest.raises(TypeError, match="observer must have"):
                pool.add_observer(wrong)  # type: ignore[arg-type]


def test_under_load_none_is_missing() -> None:
    """Many tasks by many threads: each has its three events, in its order."""
    notes = Notes()
    with BoundedExecutor(4, queue_size=10, error_handler=id) as pool:
        pool.add_observer(notes)

        def submit() -> None:
            for number in range(300):
                future = pool.submit(int, "x" if number % 5 == 0 else "1")
                if number % 7 == 0:
                    future.cancel()

        threads = [threading.Thread(target=submit) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    stats = pool.stats()
    by_task: dict[int, list[str]] = {}
    for event in notes.events:
        by_task.setdefault(event.task_id, []).append(event.outcome or event.kind)
    assert sorted(by_task) == list(range(1, 901))
    ends = [words[-1] for words in by_task.values()]
    assert ends.count("cancelled") == stats.cancelled_tasks
    assert ends.count("error") == stats.failed_tasks
    assert ends.count("success") == stats.completed_tasks - stats.failed_tasks
    for words in by_task.values():
        assert words[:-1] == (
            ["submitted"] if words[-1] == "cancelled" else ["submitted", "started"]
        )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_after_a_fork(gate: threading.Event) -> None:
    """The child's observer hears of the child's tasks only."""
    notes = Notes()
    with BoundedExecutor(1) as pool:
        pool.add_observer(notes)
        hold(pool, gate)
        child = os.fork()
        if not child:
            status = 1
            try:
                notes.events.clear()
                future = pool.submit(int)
                future.result()
                pool.shutdown()
                ids = [(event.kind, event.task_id) for event in notes.events]
                wanted = [(kind, future.task_id) for kind in ("submitted", "started", "finished")]
                status = 0 if ids == wanted else 2
                if status:
                    print(ids, wanted, file=sys.stderr)
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        gate.set()
