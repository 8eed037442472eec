"""What programs read and set of a ThreadPoolExecutor behind its back."""

from __future__ import annotations

import concurrent.futures.thread as standard
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from concurrent.futures.thread import BrokenThreadPool
from typing import Any

import pytest

from futurepool import BoundedExecutor, PoolClosedError, QueueFullError
from tests.helpers import hold, until

KINDS = [ThreadPoolExecutor, BoundedExecutor]


# -- looking -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_what_monitoring_reads(kind: type[ThreadPoolExecutor], gate: threading.Event) -> None:
    """The same from both classes: fresh, busy, idle, closed."""
    pool: Any = kind(2, "watched", initializer=int, initargs=("3",))

    def look() -> tuple[Any, ...]:
        idle = pool._idle_semaphore._value
        state = (pool._shutdown, pool._broken, pool._max_workers, pool._thread_name_prefix)
        return len(pool._threads), pool._work_queue.qsize(), pool._work_queue.empty(), idle, *state

    assert look() == (0, 0, True, 0, False, False, 2, "watched")
    running = hold(pool, gate, 2)
    queued = pool.submit(int)
    assert look() == (2, 1, False, 0, False, False, 2, "watched")
    names = {thread.name for thread in pool._threads}
    assert names == {"watched_0", "watched_1"}
    gate.set()
    for future in [*running, queued]:
        future.result(30)
    with pool._shutdown_lock:
        assert not pool._shutdown
    pool.shutdown()
    assert pool._shutdown is True
    if hasattr(pool, "_initializer"):  # gone from the standard class in 3.14
        assert (pool._initializer, pool._initargs) == (int, ("3",))


def test_no_subclass_calls_init_too_late() -> None:
    """What it sets before goes to a pool that is not there yet."""

    class Late(BoundedExecutor):
        def __init__(self) -> None:
            ThreadPoolExecutor.__init__(self, 2)

    with pytest.raises(RuntimeError, match=r"Late.__init__ has to call BoundedExecutor.__init__"):
        Late()


# -- another number of workers -------------------------------------------------------------------


def most_at_once(pool: BoundedExecutor, expected: int) -> int:
    """How many tasks run at a time, of more than enough."""
    lock = threading.Lock()
    full = threading.Event()
    running, most = 0, 0

    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
            if running >= expected:
                full.set()
        full.wait(30)
        with lock:
            running -= 1

    for future in [pool.submit(work) for _ in range(3 * expected + 3)]:
        future.result(30)
    return most


@pytest.mark.parametrize("sizes", [(1, 4), (4, 1), (3, 5, 2, 1, 6)])
def test_setting_max_workers(sizes: tuple[int, ...]) -> None:
    """So many tasks run at a time from then on, more or fewer."""
    pool: Any = BoundedExecutor(sizes[0], queue_size=None)
    with pool:
        for size in sizes:
            pool._max_workers = size
            assert pool._max_workers == pool.stats().max_workers == size
            assert most_at_once(pool, size) == size


def test_a_bound_moves_with_the_workers(gate: threading.Event) -> None:
    """It is `max_workers + queue_size`, exactly."""
    pool: Any = BoundedExecutor(1, queue_size=1)
    with pool:
        hold(pool, gate, 1)
        pool._max_workers = 3
        for _ in range(3):
            pool.try_submit(gate.wait, 30)
        with pytest.raises(QueueFullError):
            pool.try_submit(int)
        pool._max_workers = 2
        assert pool.stats().queued_tasks + pool.stats().active_workers == 4
        with pytest.raises(QueueFullError):
            pool.try_submit(int)
        gate.set()
        assert pool.wait(30)
        assert pool.try_submit(int).result(30) == 0


def test_a_larger_pool_admits_who_has_waited(gate: threading.Event) -> None:
    """At once, in the order in which they began to wait."""
    pool: Any = BoundedExecutor(1, queue_size=0)
    with pool:
        hold(pool, gate, 1)
        admitted: dict[int, Any] = {}

        def submit(number: int) -> None:
            admitted[number] = pool.submit(gate.wait, 30)

        threads = [threading.Thread(target=submit, args=(number,)) for number in range(3)]
        for number, thread in enumerate(threads, 1):
            thread.start()
            while len(pool._pool.waiters.blocked) < number:
                pass
        pool._max_workers = 3
        for thread in threads[:2]:
            thread.join(30)
        assert len(admitted) == 2
        assert len(pool._pool.waiters.blocked) == 1
        assert {number: future.task_id for number, future in admitted.items()} == {0: 2, 1: 3}
        gate.set()
        threads[2].join(30)


def test_a_worker_that_leaves_takes_nothing_with_it(gate: threading.Event) -> None:
    """What waits is run by the others, who are told."""
    pool: Any = BoundedExecutor(2)
    with pool:
        busy = hold(pool, gate, 2)
        waiting = [pool.submit(threading.get_ident) for _ in range(20)]
        pool._max_workers = 1
        assert pool.stats().active_workers == 2
        gate.set()
        assert len({future.result(30) for future in waiting}) == 1
        assert [future.result(30) for future in busy] == [True, True]
        assert pool.stats().completed_tasks == 22


def test_workers_that_are_too_many_leave(gate: threading.Event) -> None:
    """Idle ones at once, busy ones after their task."""
    pool: Any = BoundedExecutor(4)
    busy = hold(pool, gate, 4)
    threads = pool._threads
    pool._max_workers = 2
    gate.set()
    for future in busy:
        future.result(30)
    while pool._pool.workers.threads > 2:
        pass
    pool._max_workers = 1
    while pool._pool.workers.threads > 1:
        pass
    assert sum(pool.submit(int).result(30) for _ in range(5)) == 0
    pool.shutdown()
    assert not any(thread.is_alive() for thread in threads)


def test_a_smaller_pool_loses_no_task() -> None:
    """Whatever is queued while it changes its size runs."""
    pool: Any = BoundedExecutor(4, queue_size=None)
    with pool:
        futures = []
        for number in range(2000):
            futures.append(pool.submit(int, number))
            if number % 20 == 0:
                pool._max_workers = 1 + number % 7
                stats = pool.stats()
                ended = stats.completed_tasks + stats.active_workers + stats.queued_tasks
                assert stats.submitted_tasks == ended == number + 1
                assert stats.queued_tasks >= 0
        assert [future.result(30) for future in futures] == list(range(2000))


@pytest.mark.parametrize("bad", [0, -1, "4", None, float("nan")])
def test_impossible_sizes(bad: Any) -> None:
    """They are refused, and it stays as it was."""
    pool: Any = BoundedExecutor(2)
    with pool:
        with pytest.raises((TypeError, ValueError), match="max_workers"):
            pool._max_workers = bad
        assert pool._max_workers == 2


# -- the queue -----------------------------------------------------------------------------------


def drained(pool: Any) -> Iterator[Any]:
    """As google-cloud-pubsub does."""
    try:
        while True:
            item = pool._work_queue.get(block=False)
            if item is not None:
                yield item
    except queue.Empty:
        pass


def what_of(item: Any) -> tuple[Any, ...]:
    """The call, as either version of the standard class has it."""
    task: tuple[Any, ...] = getattr(item, "task", None) or (item.fn, item.args, item.kwargs)
    return task


@pytest.mark.parametrize("kind", KINDS)
def test_draining_the_queue(kind: type[ThreadPoolExecutor], gate: threading.Event) -> None:
    """In the order in which they would have run."""
    with kind(1) as pool:
        running = pool.submit(gate.wait, 30)
        until(running.running)
        futures = [pool.submit(pow, number, exp=2) for number in range(3)]
        items = list(drained(pool))
        assert [what_of(item) for item in items] == [
            (pow, (number,), {"exp": 2}) for number in range(3)
        ]
        assert [item.future for item in items] == futures
        assert pool._work_queue.qsize() == 0
        gate.set()
        assert running.result(30)
        assert pool.submit(int).result(30) == 0


def test_what_was_drained_is_cancelled(gate: threading.Event) -> None:
    """Not left pending for ever, its place is free, and callbacks are told."""
    pool: Any = BoundedExecutor(1, queue_size=2, aging=None)
    with pool:
        hold(pool, gate, 1)
        low = pool.submit_with_priority(0, int)
        high = pool.submit_with_priority(2, int)
        told: list[Any] = []
        high.add_done_callback(told.append)
        item = pool._work_queue.get_nowait()
        assert (item.future, told) == (high, [high])
        item.run()
        with pytest.raises(CancelledError):
            high.result(0)
        assert pool.try_submit(int) is not None
        assert not low.done()
        gate.set()


@pytest.mark.parametrize("options", [{}, {"aging": 100.0}])
def test_an_empty_queue(options: Any) -> None:
    """Whatever it held before."""
    pool: Any = BoundedExecutor(1, **options)
    with pool:
        pool.submit(int).result(30)
        with pytest.raises(queue.Empty):
            pool._work_queue.get_nowait()
        with pytest.raises(queue.Empty):
            pool._work_queue.get(timeout=0.02)
        with pytest.raises(ValueError, match="non-negative"):
            pool._work_queue.get(timeout=-1)
        pool._work_queue.put(None)
    assert pool._work_queue.get(timeout=5) is None  # as the mark that the standard class leaves


def test_draining_an_aging_queue_skips_the_cancelled(gate: threading.Event) -> None:
    """In order, too."""
    pool: Any = BoundedExecutor(1, aging=100.0)
    with pool:
        hold(pool, gate, 1)
        futures = [pool.submit_with_priority(number, int) for number in range(4)]
        futures[3].cancel()
        items = list(drained(pool))
        assert [item.future for item in items] == [futures[2], futures[1], futures[0]]
        gate.set()


class Copied(BoundedExecutor):
    """A subclass with the standard library's own `submit`, as many have copied it."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        with self._shutdown_lock:
            if self._broken:
                raise BrokenThreadPool(self._broken)
            if self._shutdown:
                raise RuntimeError("cannot schedule new futures after shutdown")
            future: Future[Any] = Future()
            task = (fn, args, kwargs)
            modern = sys.version_info >= (3, 14)
            make: Callable[..., Any] = standard._WorkItem  # type: ignore[attr-defined]
            item = make(future, task) if modern else make(future, *task)
            self._work_queue.put(item)
            self._adjust_thread_count()
            return future


def test_a_subclass_that_copies_submit(gate: threading.Event) -> None:
    """Results, errors and cancelling are as there."""
    with Copied(1) as pool:
        assert pool.submit(int, "3").result(30) == 3
        with pytest.raises(ValueError, match="invalid literal"):
            pool.submit(int, "x").result(30)
        hold(pool, gate, 1)
        queued, taken = pool.submit(int), pool.submit(str)
        assert queued.cancel()
        items = list(drained(pool))
        assert [what_of(item)[0] for item in items] == [int, str]
        gate.set()
        assert not taken.done()
        assert list(pool.map(abs, [-1, -2])) == [1, 2]


@pytest.mark.parametrize("bad", [3, (1, 2), object(), int])
def test_the_queue_takes_work_items_only(bad: Any) -> None:
    """And says what to use."""
    pool: Any = BoundedExecutor(1)
    with pool, pytest.raises(TypeError, match=r"work items, not .*; use submit\(\)"):
        pool._work_queue.put(bad)


class Bounded(BoundedExecutor):
    """How many bound the standard class."""

    def __init__(self, size: int) -> None:
        super().__init__(1)
        self._work_queue = queue.Queue(size)  # type: ignore[assignment, misc]


def test_a_queue_put_in_its_place_bounds_it(gate: threading.Event) -> None:
    """That is what it is put there for."""
    with Bounded(2) as pool:
        hold(pool, gate, 1)
        pool.submit(int)
        pool.submit(int)
        with pytest.raises(QueueFullError, match=r"\(1 running, 2 of 2 queued\)"):
            pool.try_submit(int)
        gate.set()
    with Bounded(0) as pool:
        assert pool.stats().queue_size is None
        with pytest.raises(TypeError, match="submit_with_priority"):
            pool._work_queue = queue.PriorityQueue()  # type: ignore[assignment, misc]


# -- the rest ------------------------------------------------------------------------------------


def test_setting_shutdown() -> None:
    """It closes the pool, without waiting; there is no way back."""
    pool: Any = BoundedExecutor(1)
    pool._shutdown = False
    assert pool.submit(int).result(30) == 0
    pool._shutdown = True
    assert pool.closed
    with pytest.raises(PoolClosedError):
        pool.submit(int)
    with pytest.raises(RuntimeError, match="cannot be opened again"):
        pool._shutdown = False
    pool.shutdown()


def test_setting_broken(gate: threading.Event) -> None:
    """What is queued fails, and so does each submit."""
    pool: Any = BoundedExecutor(1)
    hold(pool, gate, 1)
    queued = pool.submit(int)
    pool._broken = False
    pool._broken = "no more"
    gate.set()
    with pytest.raises(BrokenThreadPool, match="^no more$"):
        pool.submit(int)
    assert isinstance(queued.exception(30), BrokenThreadPool)
    with pytest.raises(RuntimeError, match="cannot be mended"):
        pool._broken = False
    pool.shutdown()


def test_setting_what_threads_are_made_with(gate: threading.Event) -> None:
    """From the next thread on."""
    pool: Any = BoundedExecutor(2, "a")
    with pool:
        hold(pool, gate, 1)
        seen: list[str] = []
        pool._thread_name_prefix = "b"
        pool._initializer, pool._initargs = seen.append, ("initialized",)
        assert pool.submit(lambda: threading.current_thread().name).result(30) == "b_1"
        assert seen == ["initialized"]
        gate.set()


def test_an_engine_has_threads_of_its_own() -> None:
    """Reading says so, setting does nothing."""
    with ThreadPoolExecutor(1) as engine:
        pool: Any = BoundedExecutor(engine=engine, close_engine=False, name="front")
        with pool:
            pool._thread_name_prefix = "x"
            assert (pool._thread_name_prefix, pool._initializer) == ("", None)
            pool._max_workers = 2
            assert pool.submit(int).result(30) == 0


# -- subclasses ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("_adjust_thread_count", "exit_timeout"),
        ("_initializer_failed", "breaks the pool"),
        ("prepare_context", "initializer="),
    ],
)
def test_overriding_what_is_never_called(name: str, advice: str) -> None:
    """It is said when the class is made, also where a mixin brings it."""
    mixin = type("Mixin", (), {name: lambda self: None})
    for bases, body in (
        ((BoundedExecutor,), {name: lambda self: None}),
        ((mixin, BoundedExecutor), {}),
    ):
        with pytest.raises(TypeError, match=rf"Mine overrides {name}, which .*{advice}"):
            type("Mine", bases, body)


def test_whatever_the_standard_class_has_of_its_own_is_known() -> None:
    """New versions of it may have more: each method is called here, or refused in a subclass."""
    for name, value in vars(ThreadPoolExecutor).items():
        if callable(value) and not isinstance(value, type) and not name.startswith("__"):
            if name in ("submit", "shutdown", "_counter"):
                continue
            with pytest.raises(TypeError, match=name):
                type("Mine", (BoundedExecutor,), {name: lambda self: None})


def test_a_subclass_with_keywords_and_a_base_of_its_own() -> None:
    """`__init_subclass__` of others is called, too."""
    seen: list[Any] = []

    class Base:
        def __init_subclass__(cls, **kwargs: Any) -> None:
            seen.append(kwargs)

    class Mine(BoundedExecutor, Base, tag=3):  # type: ignore[call-arg]
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            return super().submit(fn, *args, **kwargs)

        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            super().shutdown(wait, cancel_futures=cancel_futures)

    assert seen == [{"tag": 3}]
    with Mine(1) as pool:
        assert pool.submit(int).result(30) == 0
