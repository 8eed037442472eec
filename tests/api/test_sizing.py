"""How many workers there are: resize, prestart, idle_timeout; and slow_task."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from concurrent import futures as cf
from types import SimpleNamespace
from typing import Any

import pytest

from futurepool import (
    BoundedExecutor,
    InvalidConfigError,
    PoolClosedError,
    QueueFullError,
    _sync,
)
from tests.helpers import hold


def end_all(threads: Any) -> None:
    """Wait until these have ended."""
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


# -- resize ----------------------------------------------------------------------------------------


def test_more_workers_take_what_waits(gate: threading.Event) -> None:
    """At once, under load; and the bound follows."""
    with BoundedExecutor(1, queue_size=2) as ex:
        hold(ex, gate)
        ran = [ex.submit(threading.get_ident) for _ in range(2)]
        with pytest.raises(QueueFullError):
            ex.try_submit(int)
        ex.resize(3)
        assert len({future.result(30) for future in ran}) <= 2
        assert ex.stats().max_workers == 3
        hold(ex, gate, 2)
        assert ex.stats().active_workers == 3
        gate.set()


def test_fewer_workers_end_after_their_task(gate: threading.Event) -> None:
    """Those that are too many; what waits is run by the others, in order."""
    with BoundedExecutor(4) as ex:
        hold(ex, gate, 4)
        threads = ex._threads
        ran: list[int] = []
        rest = [ex.submit(ran.append, number) for number in range(50)]
        ex.resize(1)
        assert ex.stats().active_workers == 4
        gate.set()
        cf.wait(rest, 30)
        assert ran == list(range(50))
        left = ex._threads
        while len(left) > 1:
            for thread in threads:
                thread.join(0.01)
            left = ex._threads
        assert left < threads
        assert ex.stats().workers == 1
        assert ex.submit(abs, -1).result(30) == 1


def test_blocked_submitters_are_admitted_when_the_queue_grows(gate: threading.Event) -> None:
    """In the order in which they came; a smaller one keeps what is there."""
    with BoundedExecutor(1, queue_size=1) as ex:
        hold(ex, gate)
        ex.submit(int)
        threads = [threading.Thread(target=ex.submit, args=(int,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        while ex.stats().waiting_submitters < 3:
            threads[0].join(0.001)
        ex.resize(queue_size=3)
        while ex.stats().waiting_submitters > 1:
            threads[0].join(0.001)
        assert ex.stats().queued_tasks == 3
        ex.resize(queue_size=None)
        end_all(threads)
        assert ex.stats().queued_tasks == 4
        ex.resize(queue_size=0)
        assert ex.stats().queued_tasks == 4
        with pytest.raises(QueueFullError):
            ex.try_submit(int)
        gate.set()
        assert ex.wait(30)
        assert ex.submit(abs, -1).result(30) == 1


def test_resize_behind_another_executor(gate: threading.Event) -> None:
    """There it is how many tasks are in there at a time."""
    with BoundedExecutor(1, engine=cf.ThreadPoolExecutor(4)) as ex:
        first = hold(ex, gate)
        more = [ex.submit(gate.wait, 30) for _ in range(3)]
        assert ex.stats().active_workers == 1
        ex.resize(3)
        while ex.stats().active_workers < 3:
            cf.wait(first, 0.001)
        ex.resize(1)
        gate.set()
        cf.wait(more, 30)
        gate.clear()
        hold(ex, gate)
        waits = ex.submit(int)
        assert ex.stats().active_workers == 1
        gate.set()
        assert waits.result(30) == 0


def test_down_and_up_under_load() -> None:
    """Nothing is lost, and all that was submitted is run once."""
    ran: list[int] = []
    with BoundedExecutor(4, queue_size=10, idle_timeout=0.001) as ex:
        for number in range(500):
            ex.submit(ran.append, number)
            if number % 7 == 0:
                ex.resize(number % 5 + 1, queue_size=number % 3)
    assert sorted(ran) == list(range(500))
    stats = ex.stats()
    assert (stats.completed_tasks, stats.queued_tasks, stats.workers) == (500, 0, 0)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"max_workers": 0}, "max_workers must be greater than 0"),
        ({"queue_size": -1}, "queue_size must be at least 0, not -1"),
        ({"max_workers": 1}, "max_workers must be at least min_workers=2, not 1"),
    ],
)
def test_a_bad_size(arguments: Any, text: str) -> None:
    """Names the argument and its value, and changes nothing."""
    with BoundedExecutor(3, idle_timeout=9, min_workers=2) as ex:
        with pytest.raises(InvalidConfigError, match=text):
            ex.resize(**arguments)
        with pytest.raises(TypeError, match="queue_size must be an integer"):
            ex.resize(2, queue_size="x")  # type: ignore[arg-type]
        assert (ex.stats().max_workers, ex.stats().queue_size) == (3, 1000)


# -- prestart --------------------------------------------------------------------------------------


def test_prestart() -> None:
    """So many threads, before any task; then no more than those."""
    began: list[str] = []
    with BoundedExecutor(3, initializer=began.append, initargs=("x",)) as ex:
        assert ex.prestart(2) == 2
        assert len(ex._threads) == 2
        assert ex.prestart(1) == 2
        assert ex.prestart() == 3
        assert ex.stats().workers == 3
        assert ex.submit(abs, -1).result(30) == 1
        assert len(ex._threads) == 3
    assert began == ["x"] * 3
    with pytest.raises(PoolClosedError):
        ex.prestart()


def test_prestart_behind_another_executor() -> None:
    """It opens the places."""
    with BoundedExecutor(2, engine=cf.ThreadPoolExecutor(2)) as ex:
        assert ex.prestart() == 2
        assert ex.submit(abs, -1).result(30) == 1


def test_a_bad_number_to_prestart() -> None:
    """At the call."""
    with BoundedExecutor(2) as ex:
        with pytest.raises(InvalidConfigError, match="number must be at most max_workers=2, not 3"):
            ex.prestart(3)
        with pytest.raises(InvalidConfigError, match="number must be at least 0, not -1"):
            ex.prestart(-1)
        with pytest.raises(TypeError, match="number must be an integer"):
            ex.prestart(1.5)  # type: ignore[arg-type]


# -- idle_timeout ----------------------------------------------------------------------------------


@pytest.mark.parametrize("least", [0, 1, 3])
def test_idle_workers_end(gate: threading.Event, least: int) -> None:
    """Down to `min_workers`, and their threads with them; the next task starts one again."""
    with BoundedExecutor(4, idle_timeout=0.01, min_workers=least) as ex:
        for _ in range(2):
            hold(ex, gate, 4)
            threads = ex._threads
            assert len(threads) == 4
            gate.set()
            while sum(thread.is_alive() for thread in threads) > least:
                for thread in threads:
                    thread.join(0.005)
            assert ex.stats().workers == least
            gate.clear()
        assert ex.submit(abs, -1).result(30) == 1
        kept = [thread for thread in threads if thread.is_alive()]
        assert len(kept) == least


def test_those_that_stay_do_not_look_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """They sleep without a time limit, until they are woken."""
    limits: list[float] = []
    asleep = threading.Event()

    class Parker:
        def __init__(self) -> None:
            self._real: Any = make()

        def release(self) -> None:
            self._real.release()

        def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
            limits.append(timeout)
            if timeout == -1:
                asleep.set()
            return bool(self._real.acquire(blocking, timeout))

    make = _sync.Parker
    monkeypatch.setattr(_sync, "Parker", Parker)
    with BoundedExecutor(1, idle_timeout=0.01, min_workers=1) as ex:
        ex.prestart()
        assert asleep.wait(30)
        assert limits == [0.01, -1]
        asleep.clear()
        ex.submit(int)
        assert asleep.wait(30)
        assert [limit for limit in limits if limit in (0.01, -1)] == [0.01, -1] * 2


def test_a_worker_that_is_being_woken_does_not_end(gate: threading.Event) -> None:
    """Its time is over, and its task is on its way: it sleeps until it is opened for."""
    from futurepool._pool import sizing

    with BoundedExecutor(1, idle_timeout=30) as ex:
        ex.prestart()
        pool: Any = ex._futurepool
        (slot,) = pool.workers.listed
        while slot not in pool.workers.parked:
            threading.Event().wait(0.001)
        with pool.mutex:
            pool.workers.parked.remove(slot)
            pool.workers.wakeup_pending = True
        assert sizing._end_idle(pool, slot)
        assert not slot.leave
        slot.parker.release()
        assert ex.submit(abs, -1).result(30) == 1


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"idle_timeout": 0}, "idle_timeout must be more than 0 seconds, or None, not 0"),
        ({"idle_timeout": -1}, "idle_timeout must be more than 0 seconds, or None, not -1"),
        ({"min_workers": -1}, "min_workers must be at least 0, not -1"),
        (
            {"idle_timeout": 1, "min_workers": 3},
            "min_workers must be at most max_workers=2, not 3",
        ),
        ({"min_workers": 1}, "min_workers=1 needs an idle_timeout"),
        ({"slow_task": 0}, "slow_task must be more than 0 seconds"),
        (
            {"idle_timeout": 1, "engine": cf.ThreadPoolExecutor()},
            "idle_timeout=1 is for threads",
        ),
    ],
)
def test_bad_values(arguments: Any, text: str) -> None:
    """When it is made, naming argument and value."""
    with pytest.raises(InvalidConfigError, match=text):
        BoundedExecutor(2, **arguments)
    for name in arguments:
        if name != "engine":
            with pytest.raises(TypeError, match=name):
                BoundedExecutor(2, **{name: "x"})


# -- slow_task -------------------------------------------------------------------------------------


class Heard(logging.Handler):
    """Records, and that one came."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.came = threading.Semaphore(0)

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        self.came.release()


@pytest.fixture
def heard() -> Iterator[Heard]:
    handler = Heard()
    logger = logging.getLogger("futurepool")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


def test_a_slow_task_is_logged(heard: Heard, gate: threading.Event) -> None:
    """With its stack, though nobody asks the pool for anything; not again, and no quick one."""
    with BoundedExecutor(2, name="db", slow_task=0.02) as ex:
        ex.submit(int).result(30)
        hold(ex, gate)
        assert heard.came.acquire(timeout=30)
        (record,) = heard.records
        text = record.getMessage()
        assert text.startswith("a task of db has run for longer than 0.02 s: task 2 (hold.<locals>")
        assert "gate.wait(30)" in text
        assert record.levelname == "WARNING"
        assert vars(record)["pool"] == "db"
        assert vars(record)["task_id"] == 2
        hold(ex, gate)
        assert heard.came.acquire(timeout=30)
        assert [vars(record)["task_id"] for record in heard.records] == [2, 3]
        gate.set()


def test_when_it_looks(monkeypatch: pytest.MonkeyPatch, gate: threading.Event) -> None:
    """When the next task may be due, as long as there are workers; and each is said once."""
    from futurepool._pool import slow

    looks: list[float] = []
    said: list[Any] = []
    now = [100.0]
    monkeypatch.setattr(_sync, "clock", lambda: now[0])
    timer = SimpleNamespace(schedule=lambda when, _target: looks.append(when))
    monkeypatch.setattr(slow, "timer", timer)
    aside = SimpleNamespace(run=lambda job: said.append(list(job.args[2])))
    monkeypatch.setattr(slow, "aside", aside)
    with BoundedExecutor(2, slow_task=10) as ex:
        assert looks == []
        one = hold(ex, gate)
        assert looks == [110.0]
        target: Any = ex._futurepool.slow
        now[0] = 109.0
        target._expire()  # arranged twice, or too early
        assert looks == [110.0]
        hold(ex, gate)
        now[0] = 110.0
        target._expire()
        assert said == [[1]]
        assert looks == [110.0, 119.0]
        now[0] = 119.0
        target._expire()
        assert said == [[1], [2]]
        assert looks == [110.0, 119.0, 129.0]
        now[0] = 129.0
        target._expire()
        assert said == [[1], [2]]
        gate.set()
        cf.wait(one, 30)
        monkeypatch.undo()
    target._due = 1.0
    target._expire()
    assert target._settled()  # no worker, no look


def test_what_is_off_costs_nothing() -> None:
    """No object, no time limit."""
    with BoundedExecutor(1) as ex:
        pool = ex._futurepool
        assert pool.slow is None
        assert pool.idle_timeout is None


@pytest.mark.skipif(not hasattr(sys, "_current_frames"), reason="no stacks there")
def test_a_task_that_has_just_ended_is_logged_all_the_same(heard: Heard) -> None:
    """It did take that long."""
    from futurepool._pool import slow

    with BoundedExecutor(1, name="db") as ex:
        slow._say(ex._futurepool, 0.5, {7: "late"})
    (record,) = heard.records
    assert record.getMessage().endswith("0.5 s: task 7 (late), which has just ended")
