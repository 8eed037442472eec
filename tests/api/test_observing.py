"""stats() and running(): what the pool says it is doing."""

from __future__ import annotations

import dataclasses
import logging
import threading
from concurrent.futures import wait
from concurrent.futures.thread import BrokenThreadPool

import pytest

from futurepool import (
    BoundedExecutor,
    Future,
    OnFull,
    QueueFullError,
    Stats,
    TaskError,
    _sync,
)
from futurepool._pool.meters import BATCH
from tests.faults.tools import until


def adds_up(stats: Stats) -> bool:
    parts = (
        stats.completed_tasks,
        stats.cancelled_tasks,
        stats.active_workers,
        stats.queued_tasks,
    )
    return min(parts) >= 0 and sum(parts) == stats.submitted_tasks


def test_a_snapshot_adds_up_at_every_instant() -> None:
    """While four workers run, others submit and cancel, and tasks fail."""
    with BoundedExecutor(4, queue_size=50, enable_metrics=True, error_handler=id) as ex:
        together = threading.Barrier(3)

        def load(number: int) -> None:
            kept: list[Future[object]] = []
            together.wait(30)
            for turn in range(1500):
                kept.append(ex.submit(int, "x" if turn % 7 == 0 else "1"))
                if turn % 3 == number:
                    kept.pop(len(kept) // 2).cancel()

        threads = [threading.Thread(target=load, args=(number,)) for number in range(2)]
        snapshots: list[Stats] = []

        def watch() -> None:
            together.wait(30)
            for _ in range(1000):
                snapshots.append(ex.stats())

        threads.append(threading.Thread(target=watch))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert ex.wait(60)
    snapshots.append(ex.stats())
    assert [snapshot for snapshot in snapshots if not adds_up(snapshot)] == []
    for snapshot in snapshots:
        assert snapshot.latency is not None
        assert snapshot.wait is not None
        assert snapshot.latency.count == snapshot.wait.count == snapshot.completed_tasks
    last = snapshots[-1]
    assert last.submitted_tasks == 3000
    assert last.active_workers == last.queued_tasks == 0


def test_each_counter(gate: threading.Event) -> None:
    """What the fields mean, one by one."""
    with BoundedExecutor(1, queue_size=1, error_handler=id) as ex:
        before = ex.stats()
        assert before.max_workers == 1
        assert before.queue_size == 1
        assert not before.closed
        assert before.last_error is None
        assert before.average_latency == before.average_wait == 0.0
        running, queued = ex.submit(gate.wait, 10), ex.submit(int)
        while not running.running():
            ex.running()
        with pytest.raises(QueueFullError):
            ex.try_submit(int)
        during = ex.stats()
        assert (during.active_workers, during.queued_tasks, during.rejected_tasks) == (1, 1, 1)
        assert ex._work_queue.qsize() == 1
        assert not ex._work_queue.empty()
        queued.cancel()
        failing = ex.submit(int, "x")
        gate.set()
        wait([failing])
        after = ex.stats()
        assert after.submitted_tasks == 3
        assert after.completed_tasks == 2
        assert after.failed_tasks == 1
        assert after.cancelled_tasks == 1
        assert after.average_latency > 0.0
        assert isinstance(after.last_error, TaskError)
        assert isinstance(after.last_error, ValueError)
        assert after.last_error.task_id == 3
        assert after.uptime >= during.uptime > 0.0
        assert after.latency is after.wait is None
    assert ex.stats().closed


def test_histograms(monkeypatch: pytest.MonkeyPatch, gate: threading.Event) -> None:
    """Run time and waiting time, of every task, in seconds."""
    with BoundedExecutor(1, enable_metrics=True) as ex:
        now = [1000.0]
        monkeypatch.setattr(_sync, "clock", lambda: now[0])
        started = threading.Event()

        def first() -> None:
            started.set()
            gate.wait(30)

        ex.submit(first)
        started.wait(30)
        second = ex.submit(int)
        now[0] += 5.0
        gate.set()
        second.result(30)
        stats = ex.stats()
        assert stats.latency is not None
        assert stats.wait is not None
        assert (stats.latency.count, stats.wait.count) == (2, 2)
        assert stats.latency.max == stats.wait.max == 5.0
        assert stats.latency.sum == stats.wait.sum == 5.0
        assert stats.average_latency == stats.average_wait == 2.5
        monkeypatch.undo()


def test_running_shows_what_a_worker_is_at(gate: threading.Event) -> None:
    """Name, id, worker, times, and the stack when it is asked for; longest first."""
    with BoundedExecutor(2, "w") as ex:
        inside = threading.Semaphore(0)

        def stuck_here() -> None:
            inside.release()
            gate.wait(30)

        ex.options(name="first").submit(stuck_here)
        inside.acquire()
        ex.submit(stuck_here)
        inside.acquire()
        first, second = ex.running(stack=True)
        assert (first.task_id, first.name) == (1, "first")
        assert second.name.endswith("stuck_here")
        assert {first.worker, second.worker} == {"w_0", "w_1"}
        assert first.seconds >= second.seconds >= 0.0
        assert first.waited >= 0.0
        assert first.stack is not None
        assert "stuck_here" in first.stack
        assert ex.running()[0].stack is None
        gate.set()
        assert ex.wait(30)
        assert ex.running() == []


def test_what_monitoring_reads_off_a_thread_pool(gate: threading.Event) -> None:
    """The private names that code in the wild looks at answer truthfully."""
    ex = BoundedExecutor(3)
    assert ex._max_workers == 3
    assert ex._threads == set()
    assert ex._broken is False
    assert ex._shutdown is False
    futures = [ex.submit(gate.wait, 10) for _ in range(5)]
    assert len(ex._threads) == 3
    assert all(thread.is_alive() for thread in ex._threads)
    gate.set()
    wait(futures)
    ex.shutdown()
    assert ex._shutdown is True
    assert ex._work_queue.qsize() == 0
    assert ex._work_queue.empty()


def test_idle_workers_are_used_before_new_ones_are_made() -> None:
    """One task at a time needs one thread."""
    with BoundedExecutor(4) as ex:
        for _ in range(50):
            ex.submit(int).result()
        assert len(ex._threads) == 1


def test_a_snapshot_adds_up_whoever_runs_the_tasks() -> None:
    """Submitters, workers that wait, workers that nest; tasks dropped, refused and cancelled."""
    policies = [OnFull.CALLER_RUNS, OnFull.DROP_OLDEST, OnFull.DROP_NEW, OnFull.RAISE]
    snapshots: list[Stats] = []
    with BoundedExecutor(4, queue_size=3) as ex:
        together = threading.Barrier(len(policies))

        def nested() -> object:
            ex.submit(int)
            return ex.submit(int).result()

        def load(policy: OnFull) -> None:
            view = ex.options(on_full=policy)
            together.wait(30)
            for turn in range(150):
                try:
                    future = view.submit(nested if turn % 3 else int)
                except QueueFullError:
                    continue
                if turn % 4 == 0:
                    future.cancel()
                snapshots.append(ex.stats())

        threads = [threading.Thread(target=load, args=(policy,)) for policy in policies]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(50)
        assert ex.wait(30)
        last = ex.stats()
    assert [snapshot for snapshot in snapshots if not adds_up(snapshot)] == []
    assert adds_up(last)
    assert last.active_workers == last.queued_tasks == 0


def test_histograms_while_and_after_they_are_counted() -> None:
    """A worker notes some hundred tasks before it counts them: no snapshot misses any, nor later."""
    with BoundedExecutor(1, enable_metrics=True) as ex:
        seen: list[Stats] = []
        for _ in range(BATCH):
            ex.submit(int)
            seen.append(ex.stats())
        assert ex.wait(30)
        (slot,) = ex._pool.workers.slots
        assert slot.fresh is not None
        # The worker counts them after the section in which the pool became idle.
        assert until(lambda: len(slot.fresh or ()) < BATCH)
        seen.append(ex.stats())
    seen.append(ex.stats())
    for stats in seen:
        assert stats.latency is not None
        assert stats.wait is not None
        assert stats.latency.count == stats.wait.count == stats.completed_tasks
        assert stats.wait.sum == pytest.approx(stats.average_wait * stats.completed_tasks)
    assert seen[-1].completed_tasks == BATCH
    assert seen[-1].wait == seen[-2].wait
    assert [stats.average_wait > 0.0 for stats in seen[-2:]] == [True, True]


def test_histograms_count_every_task_that_ran(gate: threading.Event) -> None:
    """In a worker, in the caller, helped along, failing; not the cancelled, not the refused."""
    with BoundedExecutor(1, queue_size=1, enable_metrics=True, error_handler=id) as ex:
        ex.submit(int, "x").exception(30)
        assert ex.submit(lambda: ex.submit(int).result()).result(30) == 0
        ex.submit(gate.wait, 10)
        ex.submit(int).cancel()
        ex.submit(int)
        ex.options(on_full=OnFull.CALLER_RUNS).submit(int)
        ex.options(on_full=OnFull.DROP_NEW).submit(int)
        gate.set()
        assert ex.wait(30)
        stats = ex.stats()
        assert stats.latency is not None
        assert stats.wait is not None
        assert stats.completed_tasks == 6
        assert (stats.latency.count, stats.wait.count) == (6, 6)
        for histogram in (stats.latency, stats.wait):
            assert sum(count for _, count in histogram.buckets) == 6
            assert 0.0 <= histogram.p50 <= histogram.p90 <= histogram.p99 <= histogram.max


def test_averages_and_uptime_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Means over the tasks that ran, in seconds; cancelled ones do not count."""
    now = [1000.0]
    monkeypatch.setattr(_sync, "clock", lambda: now[0])
    inside, go_on = threading.Semaphore(0), threading.Semaphore(0)

    def task() -> None:
        inside.release()
        go_on.acquire()

    with BoundedExecutor(1) as ex:
        futures = [ex.submit(task) for _ in range(3)]
        for seconds in (2.0, 4.0):
            inside.acquire()
            now[0] += seconds
            futures[2].cancel()
            go_on.release()
        wait(futures)
        stats = ex.stats()
        assert stats.average_latency == 3.0
        assert stats.average_wait == 1.0
        assert stats.uptime == 6.0
        assert (stats.completed_tasks, stats.cancelled_tasks) == (2, 1)
        monkeypatch.undo()


def test_last_error_is_the_latest(gate: threading.Event) -> None:
    """Success after it does not clear it."""
    with BoundedExecutor(1, error_handler=id) as ex:
        for text in ("x", "y"):
            ex.submit(int, text)
        ex.options(name="last").submit([].pop)
        ex.submit(int)
        assert ex.wait(30)
        error = ex.stats().last_error
        assert isinstance(error, IndexError)
        assert isinstance(error, TaskError)
        assert (error.task_id, error.task_name) == (3, "last")
        assert ex.stats().failed_tasks == 3


def test_a_snapshot_is_frozen() -> None:
    """It does not change with the pool, nor by hand."""
    with BoundedExecutor(1) as ex:
        before = ex.stats()
        ex.submit(int).result()
        assert before.submitted_tasks == 0
        with pytest.raises(dataclasses.FrozenInstanceError):
            before.submitted_tasks = 1  # type: ignore[misc]


def test_running_shows_tasks_outside_workers_and_inside_one_another(
    gate: threading.Event,
) -> None:
    """Run by their submitters, and by workers that were busy already."""
    with BoundedExecutor(1, "w", queue_size=0) as ex:

        def look() -> list[tuple[str, str]]:
            return [(entry.name, entry.worker) for entry in ex.running()]

        outer = ex.options(name="outer").submit(
            lambda: ex.options(name="inner").submit(look).result()
        )
        assert outer.result(30) == [("outer", "w_0"), ("inner", "w_0")]
        inside = threading.Event()
        ex.options(name="busy").submit(lambda: (inside.set(), gate.wait(10)))
        inside.wait(30)
        caller = ex.options(name="here", on_full=OnFull.CALLER_RUNS).submit(look)
        assert caller.result() == [("busy", "w_0"), ("here", threading.current_thread().name)]
        gate.set()


def test_monitoring_sees_the_end(gate: threading.Event) -> None:
    """Queue length while it drains, closed, no threads after."""
    ex = BoundedExecutor(1)
    inside = threading.Event()
    ex.submit(lambda: (inside.set(), gate.wait(30)))
    inside.wait(30)
    for _ in range(3):
        ex.submit(int)
    ex.shutdown(wait=False)
    assert (ex._shutdown, ex._work_queue.qsize(), len(ex._threads)) == (True, 3, 1)
    assert ex.closed
    assert ex.stats().closed
    gate.set()
    ex.shutdown()
    assert ex._work_queue.qsize() == 0
    assert [thread for thread in ex._threads if thread.is_alive()] == []


def test_monitoring_sees_a_broken_pool() -> None:
    """As in the standard library, `_broken` says why."""

    def fail() -> None:
        raise LookupError

    logging.disable(logging.CRITICAL)
    try:
        with BoundedExecutor(1, initializer=fail) as ex:
            with pytest.raises(BrokenThreadPool):
                ex.submit(int).result(30)
            assert "initializer failed" in str(ex._broken)
            with pytest.raises(BrokenThreadPool):
                ex.submit(int)
            assert adds_up(ex.stats())
    finally:
        logging.disable(logging.NOTSET)
