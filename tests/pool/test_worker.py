"""A worker that an asynchronous exception strikes outside a task, at each place in turn."""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as FutureTimeout
from concurrent.futures.thread import BrokenThreadPool
from functools import partial
from typing import Any

import pytest

import futurepool
from futurepool import BoundedExecutor, OnFull, PoolClosedError, QueueFullError, _sync
from futurepool._engines import threads
from futurepool._future import NOTIFIED, Future
from futurepool._pool.meters import MUCH
from futurepool._pool.pool import Pool
from futurepool._pool.task_queue import Level, PriorityQueue
from futurepool._pool.workers import Kind, WorkerSlot
from tests.helpers import hold, until


class Strike(BaseException):
    pass


@pytest.fixture
def ex() -> Any:
    with BoundedExecutor(1, queue_size=5) as ex:
        ex.submit(int).result()
        yield ex


def strike(monkeypatch: pytest.MonkeyPatch, name: str, after: bool, times: int = 1) -> None:
    """Raise in a worker, before or after a method of the pool."""
    original = getattr(Pool, name)
    left = [times]

    def struck(self: Pool, *args: Any) -> Any:
        mine = threading.current_thread() is not threading.main_thread() and left[0] > 0
        if mine and not after:
            left[0] -= 1
            raise Strike
        result = original(self, *args)
        if mine:
            left[0] -= 1
            raise Strike
        return result

    monkeypatch.setattr(Pool, name, struck)


@pytest.mark.parametrize("times", [1, 3])
def test_before_a_turn(ex: BoundedExecutor, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """The outcome is not committed yet: the task fails with the exception, or had none."""
    strike(monkeypatch, "next_task", after=False, times=times)
    futures = [ex.submit(int) for _ in range(5)]
    for future in futures:
        error = future.exception(30)
        assert error is None or isinstance(error, Strike)
    assert ex.wait(30)
    assert ex.submit(int).result(30) == 0


def test_after_a_turn(ex: BoundedExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task is claimed and was not begun: it fails with the exception."""
    strike(monkeypatch, "next_task", after=True)
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
    strike(monkeypatch, "commit", after=after)
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
    original = Pool.complete
    left = [1]

    def complete(self: Pool, slot: Any, *args: Any) -> None:
        mine = slot.kind == Kind.CALLER and left[0] > 0
        left[0] -= mine
        if mine and not after:
            raise Strike
        original(self, slot, *args)
        if mine:
            raise Strike

    monkeypatch.setattr(Pool, "complete", complete)
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
    original = Pool.next_task

    def next_task(self: Pool, slot: Any, *args: Any) -> Any:
        task = original(self, slot, *args)
        if slot.leave:
            raise Strike
        return task

    monkeypatch.setattr(Pool, "next_task", next_task)
    ex.shutdown()
    assert ex._threads == set()


# -- threads that die and nobody hears of it ------------------------------------------------------


def deaf(*_: object) -> None:
    """In the place of a guard: one whose finalizer was struck, too."""


WAITS: dict[str, Callable[[BoundedExecutor, Any], object]] = {
    "result": lambda ex, future: future.exception(30),
    "wait": lambda ex, future: ex.wait(30),
    "shutdown": lambda ex, future: ex.shutdown(),
    "submit": lambda ex, future: ex.submit(int).result(30),  # the queue is full
}


@pytest.mark.parametrize("wait", WAITS)
def test_a_thread_that_dies_at_once(monkeypatch: pytest.MonkeyPatch, wait: str) -> None:
    """Struck before it ran anything of ours. Whoever waits sees it, and another thread starts."""
    start = _sync.start
    dead: list[threading.Thread] = []

    def start_dead(thread: threading.Thread) -> None:
        if not dead:
            dead.append(thread)
            thread.run = lambda: None  # type: ignore[method-assign]
        start(thread)

    monkeypatch.setattr(_sync, "start", start_dead)
    monkeypatch.setattr(_sync, "LOOK", 0.01)
    with BoundedExecutor(1, queue_size=0) as ex:
        future = ex.submit(int)
        WAITS[wait](ex, future)
        assert future.result(30) == 0
    assert len(dead) == 1


def test_a_thread_that_dies_while_map_unordered_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks as well; and its own timeout holds."""
    start = _sync.start

    def start_dead(thread: threading.Thread) -> None:
        thread.run = lambda: None  # type: ignore[method-assign]
        start(thread)

    monkeypatch.setattr(_sync, "start", start_dead)
    monkeypatch.setattr(_sync, "LOOK", 0.01)
    with BoundedExecutor(1, queue_size=1) as ex:
        with pytest.raises(FutureTimeout):
            next(ex.map_unordered(abs, [-1], timeout=0.1))
        results = ex.map_unordered(abs, [-1, -2, -3])
        monkeypatch.setattr(_sync, "start", start)
        assert sorted(results) == [1, 2, 3]


@pytest.mark.parametrize("wait", WAITS)
def test_a_thread_that_dies_with_a_task(monkeypatch: pytest.MonkeyPatch, wait: str) -> None:
    """Struck as often as it takes. The task it had begun with fails; another thread starts."""
    work = threads.work
    dead: list[WorkerSlot] = []

    def work_or_die(pool: Pool, slot: WorkerSlot) -> None:
        if dead:
            work(pool, slot)
        else:
            dead.append(slot)
            assert pool.next_task(slot) is not None

    monkeypatch.setattr(threads, "work", work_or_die)
    monkeypatch.setattr(threads, "Guard", deaf)
    monkeypatch.setattr(_sync, "LOOK", 0.01)
    with BoundedExecutor(1, queue_size=0, error_handler=id) as ex:
        future = ex.submit(int)
        WAITS[wait](ex, future)
        with pytest.raises(RuntimeError, match="thread has died"):
            future.result(30)
        if wait != "shutdown":
            assert ex.submit(int).result(30) == 0
    assert ex.stats().failed_tasks == 1


def test_the_living_are_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits long looks often, and changes nothing."""
    monkeypatch.setattr(_sync, "LOOK", 0.001)
    gate = threading.Event()
    with BoundedExecutor(1) as ex:
        future = ex.submit(gate.wait, 30)
        before = set(ex._threads)
        with pytest.raises(FutureTimeout):
            future.result(0.05)
        assert ex._threads == before
        gate.set()
        assert future.result(30)


# It is the standard library's part of the thread that it dies in, as it is meant to.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_guard_that_was_struck(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its finalizer did nothing, and nobody looks: the end of the thread itself is enough.

    It died within a section; but the mutex is free.
    """
    work = threads.work
    dead: list[WorkerSlot] = []

    def work_or_die(pool: Pool, slot: WorkerSlot) -> None:
        if dead:
            work(pool, slot)
        else:
            dead.append(slot)
            assert pool.next_task(slot) is not None
            pool.mutex.acquire()
            pool.mutex.acquire()
            raise SystemExit

    monkeypatch.setattr(threads, "work", work_or_die)
    monkeypatch.setattr(threads, "Guard", deaf)
    monkeypatch.setattr(threads._log, "error", lambda *_, **__: sys.exit())
    monkeypatch.setattr(_sync, "LOOK", 3600.0)
    with BoundedExecutor(1) as ex:
        future = ex.submit(int)
        with pytest.raises(RuntimeError, match="thread has died"):
            future.result(30)
        assert ex.submit(int).result(30) == 0


def test_a_ctrl_c_during_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Struck in a section: who waited leaves no lock behind."""
    monkeypatch.setattr(_sync, "LOOK", 0.01)
    gate = threading.Event()
    with BoundedExecutor(1) as ex:
        pool = ex._pool

        def look(_: object) -> None:
            pool.mutex.acquire()
            raise KeyboardInterrupt

        future = ex.submit(gate.wait, 30)
        with monkeypatch.context() as patch:
            patch.setattr(type(pool.engine), "reap_dead_workers", look)
            for wait in (future.result, lambda: next(ex.map_unordered(int, [1]))):
                with pytest.raises(KeyboardInterrupt):
                    wait()
                assert not pool.mutex._is_owned()
        gate.set()
        assert future.result(30)


@pytest.mark.skipif(futurepool.form == "plain", reason="there the worker is struck in `complete`")
@pytest.mark.parametrize("again", ["run_deferred", "look"])
def test_a_strike_before_watchers_were_told(monkeypatch: pytest.MonkeyPatch, again: str) -> None:
    """What a section left to be done tells them the second time; so does who waits, in the end."""
    # The one who waits must not look in the other case, or it may run what was left to be done first.
    monkeypatch.setattr(_sync, "LOOK", 0.01 if again == "look" else 60.0)
    monkeypatch.setattr(threads, "Guard", deaf)
    gate, struck, called = threading.Event(), threading.Event(), threading.Event()
    announce = Future._announce

    def strike(future: Future[Any]) -> None:
        once = again == "run_deferred" and struck.is_set()
        if future is first and not once and threading.current_thread() is not waiter:
            struck.set()
            raise KeyboardInterrupt
        announce(future)

    with BoundedExecutor(1) as ex:
        pool = ex._pool
        first = ex.submit(gate.wait, 30)
        told: list[object] = []
        if again == "run_deferred":
            first.add_done_callback(told.append)
            first.add_done_callback(lambda _: called.set())
        waiter = threading.Thread(target=lambda: told.append(first.exception(30)))
        waiter.start()
        while not first.running() or first._subscribers is None or not first._subscribers.parkers:
            pass
        (slot,) = pool.workers.listed
        monkeypatch.setattr(Future, "_announce", strike)
        if again == "look":
            gate.set()
        else:
            pool.deferred.append(partial(pool.replace, slot, RuntimeError("dead")))
            with pytest.raises(KeyboardInterrupt):
                pool.run_deferred()
            assert first.done()
            pool.run_deferred()
            assert called.wait(30)  # in a thread aside
        waiter.join(30)
        assert struck.is_set()
        assert len(told) == (2 if again == "run_deferred" else 1)
        gate.set()
        assert ex.submit(int).result(30) == 0


def test_a_strike_between_two_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run time that was noted without its waiting time is dropped: they stay in turn."""

    class Struck(list[float]):
        def append(self, value: float) -> None:
            if len(self) == 3:
                raise KeyboardInterrupt
            super().append(value)

    now = [1000.0]
    monkeypatch.setattr(_sync, "clock", lambda: now[0])
    with BoundedExecutor(1, enable_metrics=True) as ex:
        ex.submit(int).result(30)
        (slot,) = ex._pool.workers.slots
        slot.fresh = Struck()
        for _ in range(5):
            ex.submit(now.__setitem__, 0, now[0] + 5.0).result(30)
        stats = ex.stats()
        assert stats.latency is not None
        assert stats.wait is not None
        assert stats.latency.max == 5.0
        assert stats.wait.max == 0.0
        assert slot.fresh is not None
        assert len(slot.fresh) % 2 == 0


def test_notes_that_nobody_put_in_order() -> None:
    """The worker was struck between two of them, and is replaced: half a pair is not counted."""
    with BoundedExecutor(1, enable_metrics=True) as ex:
        ex.submit(int).result(30)
        ex.submit(int).result(30)  # the worker has noted the first
        (slot,) = ex._pool.workers.slots
        with ex._pool.mutex:
            slot.fresh = [5.0, 2.0, 7.0]
            ex._pool.count_times(slot)
            slot.fresh = [3.0, 4.0, 6.0]
            stats = ex.stats()
            slot.fresh = []
        assert stats.latency is not None
        assert stats.wait is not None
        assert stats.latency.count == stats.wait.count
        assert (stats.latency.max, stats.wait.max) == (5.0, 4.0)


@pytest.mark.skipif(futurepool.form != "fast", reason="only there times are noted in the slot")
def test_what_a_snapshot_counts_no_other_one_counts_again() -> None:
    """It does on the worker's behalf what the worker would do later."""
    with BoundedExecutor(1, enable_metrics=True) as ex:
        for _ in range(MUCH):
            ex.submit(int).result(30)
        (slot,) = ex._pool.workers.slots
        assert slot.fresh is not None
        assert len(slot.fresh) >= MUCH
        with ex._pool.mutex:  # as a finalizer may in a section, where nothing is to be changed
            latency, fresh = ex._pool.meters.latency, slot.fresh
            assert ex.stats().latency is not None
            assert (ex._pool.meters.latency, slot.fresh) == (latency, fresh)
        for _ in range(2):
            stats = ex.stats()
            assert stats.latency is not None
            assert stats.wait is not None
            assert stats.latency.count == stats.wait.count == stats.completed_tasks
            assert len(slot.fresh) < MUCH


def test_notes_are_counted_once_though_two_count_them() -> None:
    """A worker and a snapshot count the same ones at a time; what is noted meanwhile stays."""
    with BoundedExecutor(1, enable_metrics=True) as ex:
        ex.submit(int).result(30)
        ex.submit(int).result(30)
        (slot,) = ex._pool.workers.slots
        with ex._pool.mutex:
            ex._pool.count_times(slot)
            meters = ex._pool.meters
            assert meters.latency is not None
            before = sum(meters.latency.counts)
            slot.fresh = [1.0, 2.0]
            both = [meters.tally(slot), meters.tally(slot)]
            slot.fresh += [3.0, 4.0]
            for noted in both:
                assert noted is not None
                meters.add(slot, noted)
            assert slot.fresh == [3.0, 4.0]
            assert meters.latency is not None
            assert (sum(meters.latency.counts), meters.latency.max) == (before + 1, 1.0)
            slot.fresh = []


def test_a_strike_at_the_start_of_a_task_is_no_long_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run time of a task that never got to run is counted from its claim."""

    class Struck(Level):
        def popleft(self) -> Any:
            if self[0].running() and not struck.is_set():
                struck.set()
                raise KeyboardInterrupt
            return super().popleft()

    struck = threading.Event()
    monkeypatch.setattr(_sync, "clock", lambda: 1000.0)
    with BoundedExecutor(1) as ex:
        level = Struck()
        level.key, level.next_lower = -1, None
        ex._pool.queue.levels[1] = level
        first = ex.submit(int)
        assert first.exception(30) is not None
        assert struck.is_set()
        assert ex.stats().average_latency == 0.0


REFUSALS: list[Callable[[], Exception]] = [
    partial(QueueFullError, limit=1, waited=0.0),
    PoolClosedError,
    BrokenThreadPool,
]


@pytest.mark.parametrize("refuse", REFUSALS)
def test_a_refusal_of_a_signal_handler_in_a_section_of_submit(
    refuse: Callable[[], Exception],
) -> None:
    """It may come from another pool, and strike anywhere: it is no answer of this one."""

    class Struck(Level):
        def append(self, task: Future[Any], /) -> None:
            super().append(task)
            if not struck.is_set():
                struck.set()
                raise refuse()

    struck = threading.Event()
    with BoundedExecutor(1) as ex:
        level = Struck()
        level.key, level.next_lower = -1, None
        ex._pool.queue.levels[1] = level
        with pytest.raises(type(refuse())):
            ex.submit(int)
        assert not ex._pool.mutex._is_owned()
        assert ex.submit(int).result(30) == 0
        assert ex.stats().queued_tasks == 0


def test_a_refusal_of_a_signal_handler_before_a_worker_is_woken() -> None:
    """The wake-up is not lost: somebody runs what is queued afterwards."""

    class Struck:
        def release(self) -> None:
            if not struck.is_set():
                struck.set()
                raise QueueFullError(limit=1, waited=0.0)
            gate.release()

    struck = threading.Event()
    with BoundedExecutor(1) as ex:
        ex.submit(int).result(30)
        pool = ex._pool
        until(lambda: pool.workers.parked)
        with pool.mutex:
            (slot,) = pool.workers.parked
            gate, slot.parker = slot.parker, Struck()
        with pytest.raises(QueueFullError):
            ex.submit(int)
        assert struck.is_set()
        assert ex.submit(int).result(30) == 0


@pytest.mark.parametrize("after", [False, True])
def test_a_strike_while_a_submit_of_a_finalizer_is_made_up_for(
    monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    """It was made inside a section, so it is admitted later; once, even if that is interrupted."""
    original = PriorityQueue.push
    left = [1]

    def push(self: PriorityQueue, future: Future[Any]) -> None:
        strikes = future.priority == 7 and left
        if strikes and not after:
            left.pop()
            raise KeyboardInterrupt
        original(self, future)
        if strikes:
            left.pop()
            raise KeyboardInterrupt

    monkeypatch.setattr(PriorityQueue, "push", push)
    ran: list[int] = []
    started, gate = threading.Event(), threading.Event()
    with BoundedExecutor(1) as ex:
        ex.submit(lambda: (started.set(), gate.wait(30)))
        assert started.wait(30)
        with ex._pool.mutex:
            late = ex.options(priority=7).submit(ran.append, 1)
        with pytest.raises(KeyboardInterrupt):
            ex.submit(int)
        assert not left
        gate.set()
        assert late.result(30) is None
        assert ex.submit(int).result(30) == 0
        assert ran == [1]


def test_a_strike_while_a_place_is_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task may end before the recount: what has its id, but is not queued, is not admitted."""
    started, gate = threading.Event(), threading.Event()
    original_push, original_recover = PriorityQueue.push, Pool.repair
    strikes, gaps = [1], [1]

    def push(self: PriorityQueue, future: Future[Any]) -> None:
        if future.priority == 7 and strikes:
            strikes.pop()
            raise KeyboardInterrupt
        original_push(self, future)

    def recover(self: Pool, *futures: Future[Any]) -> None:
        if not strikes and gaps:
            gaps.pop()
            with self.mutex:
                self.capacity.max_id += 1
                self.place_freed()
        original_recover(self, *futures)

    monkeypatch.setattr(PriorityQueue, "push", push)
    monkeypatch.setattr(Pool, "repair", recover)
    got: list[Any] = []
    with BoundedExecutor(1, queue_size=1) as ex:
        ex.submit(lambda: (started.set(), gate.wait(30)))
        assert started.wait(30)
        queued = ex.submit(int)
        urgent = ex.options(priority=7)
        waiting = threading.Thread(target=lambda: got.append(urgent.submit(int)))
        waiting.start()
        until(lambda: ex._pool.waiters.blocked)
        with pytest.raises(KeyboardInterrupt):
            queued.cancel()
        assert not strikes
        assert not gaps
        waiting.join(30)
        gate.set()
        assert got[0].result(30) == 0
        assert ex.wait(30)
        assert ex.stats().queued_tasks == 0


def test_a_future_that_nobody_will_tell_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the child of a fork, when the thread that forked slept in `result`: a look ends it."""
    monkeypatch.setattr(_sync, "LOOK", 0.01)
    future: Future[int] = Future()
    errors: list[BaseException | None] = []

    def wait() -> None:
        try:
            future.result()
        except CancelledError as error:
            errors.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    until(lambda: future._subscribers is not None)
    future._subscribers = None
    future._state = NOTIFIED
    waiting.join(30)
    assert len(errors) == 1


@pytest.mark.skipif(futurepool.form != "fast", reason="only there times are noted in the slot")
def test_a_place_handed_on_by_its_own_worker_is_no_time_in_advance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The worker looks at its clock before the task gets its place: it has waited for 0 seconds."""
    numbers = itertools.count(1000.0)
    monkeypatch.setattr(_sync, "clock", lambda: next(numbers))
    gate = threading.Event()
    with BoundedExecutor(1, queue_size=0, enable_metrics=True) as ex:
        ex.submit(gate.wait, 30)
        blocked = threading.Thread(target=ex.submit, args=(int,))
        blocked.start()
        until(lambda: ex._pool.waiters.blocked)
        gate.set()
        blocked.join(30)
        assert ex.wait(30)
        (slot,) = ex._pool.workers.slots
        assert slot.fresh is not None
        assert len(slot.fresh) == 4
        assert slot.fresh[3] == 0.0


def test_what_two_threads_do_at_once_is_not_taken_off_for_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A worker that is ordered while another one is being started, by two who came by, is started as well."""
    with BoundedExecutor(2) as ex:
        pool = ex._futurepool
        start = pool.engine.start_worker
        began: list[int] = []

        def start_slowly() -> None:
            began.append(1)
            first = len(began) == 1
            if first:
                other = threading.Thread(target=pool.run_deferred)  # calls the same one
                other.start()
                other.join(30)
            start()
            if first:
                with pool.mutex:
                    pool.reserve()

        monkeypatch.setattr(type(pool.engine), "start_worker", lambda _: start_slowly())
        with pool.mutex:
            pool.reserve()
        pool.run_deferred()
        there = pool.workers.reserved, len(pool.workers.listed)
        pool.repair()  # or leaving would wait for ever
        assert there == (0, 2)


class Struck:
    """A mutex whose owner is interrupted, the times it is told, right after it has got it."""

    def __init__(self, mutex: Any, times: set[int]) -> None:
        self.times = times
        self.release = mutex.release
        self._is_owned = mutex._is_owned
        self._mutex = mutex
        self._whose = threading.get_ident()
        self._number = 0

    def acquire(self) -> bool:
        self._mutex.acquire()
        if threading.get_ident() == self._whose:
            self._number += 1
            if self._number in self.times:
                raise KeyboardInterrupt
        return True

    __enter__ = acquire

    def __exit__(self, *_: object) -> None:
        self.release()


@pytest.mark.skipif(futurepool.form == "compiled", reason="there the mutex is one in C")
@pytest.mark.parametrize("first", [1, 2])
def test_a_submit_that_is_interrupted_twice(first: int) -> None:
    """The second time as it repairs what the first has left, for which it had to wait for the mutex."""
    gate = threading.Event()
    with BoundedExecutor(1, queue_size=1, on_full=OnFull.DROP_OLDEST) as ex:
        pool = ex._pool
        hold(ex, gate)
        oldest = ex.submit(int)
        pool.mutex = Struck(pool.mutex, {first, first + 1})
        with pytest.raises(KeyboardInterrupt):
            ex.submit(int)
        assert not pool.mutex._is_owned()
        gate.set()
        assert ex.wait(30)
        assert oldest.done()
        assert ex.submit(int).result(30) == 0
        stats = ex.stats()
        assert stats.submitted_tasks == stats.completed_tasks + stats.cancelled_tasks


@pytest.mark.skipif(futurepool.form == "compiled", reason="there the mutex is one in C")
def test_who_does_what_is_deferred_is_interrupted() -> None:
    """As it waits for the end of the section that has left it."""
    done: set[int] = set()  # it may be done twice, by another thread that came by
    with BoundedExecutor(1) as ex:
        pool = ex._pool
        pool.deferred.append(lambda: done.add(1))
        pool.mutex = Struck(pool.mutex, {1})
        with pytest.raises(KeyboardInterrupt):
            pool.run_deferred()
        assert not pool.mutex._is_owned()
        assert ex.submit(int).result(30) == 0
    assert done == {1}
