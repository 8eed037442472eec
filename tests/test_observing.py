"""stats() and running(): what the pool says it is doing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import wait

import pytest

from futurepool import BoundedExecutor, Future, QueueFullError, Stats, TaskError, _sync


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    gate = threading.Event()
    yield gate
    gate.set()


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
        stop = threading.Event()

        def load(number: int) -> None:
            kept: list[Future[object]] = []
            for turn in range(1500):
                kept.append(ex.submit(int, "x" if turn % 7 == 0 else "1"))
                if turn % 3 == number:
                    kept.pop(len(kept) // 2).cancel()

        threads = [threading.Thread(target=load, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        snapshots = []

        def watch() -> None:
            while not stop.is_set():
                snapshots.append(ex.stats())

        watcher = threading.Thread(target=watch)
        watcher.start()
        for thread in threads:
            thread.join(60)
        ex.wait(60)
        stop.set()
        watcher.join(60)
    snapshots.append(ex.stats())
    assert [snapshot for snapshot in snapshots if not adds_up(snapshot)] == []
    last = snapshots[-1]
    assert last.submitted_tasks == 3000
    assert last.active_workers == last.queued_tasks == 0
    assert last.latency is not None
    assert last.latency.count == last.completed_tasks


def test_each_counter(gate: threading.Event) -> None:
    """What the fields mean, one by one."""
    with BoundedExecutor(1, queue_size=1, error_handler=id) as ex:
        before = ex.stats()
        assert before.max_workers == 1
        assert before.queue_size == 1
        assert not before.closed
        assert before.last_error is None
        assert before.average_latency == before.average_wait == 0.0
        running, queued = ex.submit(gate.wait), ex.submit(int)
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
    futures = [ex.submit(gate.wait) for _ in range(5)]
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
