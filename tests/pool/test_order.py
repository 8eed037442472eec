"""Which task comes next: priorities, first in first out, aging; and what cancelled tasks leave."""

from __future__ import annotations

import asyncio
import gc
import heapq
import random
import sys
import threading
import weakref
from concurrent import futures as cf
from typing import Any

import pytest

from futurepool import (
    BoundedExecutor,
    Future,
    InvalidConfigError,
    OnFull,
    Priority,
    QueueFullError,
    TaskExpiredError,
    _sync,
)
from futurepool._foreign import aside
from futurepool._pool.pool import queue_maker
from futurepool._pool.task_queue import BOTTOM, KEEP, AgingQueue, PriorityQueue
from tests.helpers import hold


def test_first_in_first_out(gate: threading.Event) -> None:
    """Within a priority the order of admission is the order of starting."""
    order: list[int] = []
    with BoundedExecutor(1, queue_size=None) as ex:
        ex.submit(gate.wait, 10)
        for number in range(100):
            ex.submit(order.append, number)
        gate.set()
    assert order == list(range(100))


def test_higher_priorities_start_sooner(gate: threading.Event) -> None:
    """Any int is a priority, however large; within one, first in first out."""
    order: list[tuple[int, int]] = []
    priorities = [0, 1, 2, -5, 10**30, -(10**30), 7, 7, 1, Priority.HIGH, Priority.LOW]
    with BoundedExecutor(1) as ex:
        ex.submit_with_priority(10**40, gate.wait, 10)
        for number, priority in enumerate(priorities):
            ex.submit_with_priority(priority, order.append, (priority, number))
        gate.set()
    assert order == sorted(order, key=lambda entry: (-entry[0], entry[1]))
    assert len(order) == len(priorities)


def test_the_default_is_normal(gate: threading.Event) -> None:
    """LOW comes after plain submits, HIGH before."""
    order: list[str] = []
    with BoundedExecutor(1) as ex:
        ex.submit(gate.wait, 10)
        ex.submit_with_priority(Priority.LOW, order.append, "low")
        ex.submit(order.append, "plain")
        ex.submit_with_priority(Priority.HIGH, order.append, "high")
        gate.set()
    assert order == ["high", "plain", "low"]


@pytest.mark.parametrize("aging", [None, 1e9])
def test_many_priorities_against_a_sort(aging: float | None, gate: threading.Event) -> None:
    """A thousand levels, a third of the tasks cancelled, the order a stable sort would give."""
    chance = random.Random(7)
    order: list[tuple[int, int]] = []
    with BoundedExecutor(1, queue_size=None, aging=aging) as ex:
        ex.submit_with_priority(10**6, gate.wait, 10)
        entries = [(chance.randrange(1000), number) for number in range(3000)]
        futures = [ex.submit_with_priority(entry[0], order.append, entry) for entry in entries]
        kept = [
            entry
            for entry, future in zip(entries, futures, strict=True)
            if chance.random() > 0.3 or not future.cancel()
        ]
        gate.set()
    assert order == sorted(kept, key=lambda entry: -entry[0])


def test_aging_lifts_what_waits(monkeypatch: pytest.MonkeyPatch, gate: threading.Event) -> None:
    """After two levels' worth of time a LOW task comes before a fresh HIGH one, not before."""
    now = [100.0]
    order: list[str] = []
    monkeypatch.setattr(_sync, "clock", lambda: now[0])
    with BoundedExecutor(1, aging=10.0) as ex:
        ex.submit_with_priority(100, gate.wait, 10)
        ex.submit_with_priority(Priority.LOW, order.append, "old low")
        now[0] += 19.0
        ex.submit_with_priority(Priority.HIGH, order.append, "high, 19 s later")
        now[0] += 2.0
        ex.submit_with_priority(Priority.HIGH, order.append, "high, 21 s later")
        gate.set()
    assert order == ["high, 19 s later", "old low", "high, 21 s later"]


class Place:
    """Stands in for a worker's record."""

    task: Any = None


def pending(priority: int, number: int) -> Future[int]:
    future: Future[int] = Future()
    future.priority = priority
    future.task_id = number
    future._queued_at = float(number)
    return future


@pytest.mark.parametrize("aging", [None, 1000.0])
def test_husks_are_skipped_and_swept(aging: float | None) -> None:
    """Cancelled tasks never come out, and do not stay in for long."""
    order = queue_maker(aging)()
    futures = [pending(number % 3, number) for number in range(300)]
    for future in futures:
        order.push(future)
    assert len(order.tasks()) == 300
    for number, future in enumerate(futures[:250], 1):
        future.cancel()
        order.note_tombstone(300 - number)
    held = sum(map(len, order.levels.values())) or len(getattr(order, "_heap", ()))
    assert held < 170
    assert order.rebuild() == 50
    victim = order.victim()
    assert victim is min(futures[250:], key=lambda f: (f.priority, f.task_id))
    out = []
    while (future := order.take(Place())) is not None:
        out.append(future)
    assert out == sorted(futures[250:], key=lambda f: (-f.priority, f.task_id))
    assert order.victim() is None
    assert order.rebuild() == 0
    assert order.take(Place()) is None


@pytest.mark.parametrize("aging", [None, 1000.0])
def test_cancelling_looks_at_no_other_task(aging: float | None) -> None:
    """Until there are more husks than tasks: or many cancels would take quadratic time."""
    order = queue_maker(aging)()
    kept = pending(1, 1)
    order.push(kept)
    tasks = "levels" if aging is None else "_heap"
    there = getattr(order, tasks)
    setattr(order, tasks, None)
    order.tombstones = 99
    order.note_tombstone(100)
    setattr(order, tasks, there)
    order.note_tombstone(99)
    assert order.tombstones == 0
    assert order.tasks() == [kept]


def test_kinds_of_order() -> None:
    """Aging needs its own."""
    assert isinstance(queue_maker(None)(), PriorityQueue)
    assert isinstance(queue_maker(1.0)(), AgingQueue)


def clocked(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still, and can be set."""
    now = [100.0]
    monkeypatch.setattr(_sync, "clock", lambda: now[0])
    return now


#: The choices of `order` that have the newest first: the third has waited for too long at once.
NEWEST: dict[str, dict[str, Any]] = {
    "lifo": {"order": "lifo"},
    "adaptive, late": {"order": "adaptive", "adaptive_wait": 1e-12},
}


@pytest.mark.parametrize("choice", NEWEST.values(), ids=NEWEST)
def test_newest_first(choice: dict[str, Any], gate: threading.Event) -> None:
    """Within a priority; in whatever way they come in, and `queued` shows them so."""
    order: list[Any] = []
    with BoundedExecutor(1, queue_size=None, **choice) as ex:
        hold(ex, gate)
        ex.submit(order.append, "a")
        ex.submit_with_priority(Priority.LOW, order.append, "low, old")
        ex.map(order.append, ["b", "c"])
        ex.options(name="d").submit(order.append, "d")
        ex.submit(order.append, "never").cancel()
        ex.submit_with_priority(Priority.LOW, order.append, "low, new")
        ex.submit_with_priority(Priority.HIGH, order.append, "high")
        assert [task.task_id for task in ex.queued()] == [9, 6, 5, 4, 2, 8, 3]
        gate.set()
    assert order == ["high", "d", "c", "b", "a", "low, new", "low, old"]


def test_oldest_first_until_that_is_late(
    monkeypatch: pytest.MonkeyPatch, gate: threading.Event
) -> None:
    """Then the newest, until the old ones have had their turn."""
    now = clocked(monkeypatch)
    queue = queue_maker(None, "adaptive", 5.0)()
    tasks = [pending(1, number) for number in range(8)]

    def push(*numbers: int) -> None:
        for number in numbers:
            tasks[number]._queued_at = now[0]
            queue.push(tasks[number])

    def take() -> int | None:
        following = queue.following()
        arranged = queue.arranged(queue.rows())
        assert arranged[:1] == ([following] if following is not None else [])
        taken = queue.take(Place())
        assert taken is following
        return None if taken is None else tasks.index(taken)

    push(0, 1, 2, 3)
    assert take() == 0
    now[0] += 4.9
    push(4, 5)
    assert take() == 1
    now[0] += 0.2
    assert [take(), take()] == [5, 4]
    push(6)
    assert [take(), take(), take()] == [6, 3, 2]
    push(7)
    assert [take(), take()] == [7, None]
    push(0, 1)
    assert [task.task_id for task in queue.heads()] == []  # both have run


@pytest.mark.parametrize("choice", NEWEST.values(), ids=NEWEST)
def test_the_oldest_is_dropped_whatever_the_order(
    choice: dict[str, Any], gate: threading.Event
) -> None:
    """And `oldest_queued` is its age."""
    with BoundedExecutor(1, queue_size=3, on_full=OnFull.DROP_OLDEST, **choice) as ex:
        hold(ex, gate)
        futures = [ex.submit(int) for _ in range(3)]
        age = _sync.clock() - futures[0]._queued_at
        assert ex.stats().oldest_queued >= age
        ex.submit(int)
        assert [future.cancelled() for future in futures] == [True, False, False]
        gate.set()


@pytest.mark.parametrize("choice", NEWEST.values(), ids=NEWEST)
def test_who_waits_for_a_place_has_it_in_order(
    choice: dict[str, Any], gate: threading.Event
) -> None:
    """Places go to whoever has waited longest, whatever the order of the tasks."""
    with BoundedExecutor(1, queue_size=1, **choice) as ex:
        hold(ex, gate)
        ex.submit(int)
        done: list[int] = []

        async def both() -> None:
            tasks = [asyncio.ensure_future(ex.arun(done.append, number)) for number in (1, 2)]
            await asyncio.sleep(0)
            gate.set()
            await asyncio.gather(*tasks)

        asyncio.run(both())
        assert done == [1, 2]


@pytest.mark.parametrize("kind", ["lifo", "adaptive"])
def test_cancelled_ones_are_dropped_in_any_order(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever they stand; rebuilding keeps the order."""
    now = clocked(monkeypatch)
    queue = queue_maker(None, kind, 1.0)()
    futures = [pending(number % 2, number) for number in range(200)]
    for future in futures:
        queue.push(future)
    now[0] += 1000
    for number, future in enumerate(futures):
        if number % 3:
            future.cancel()
            queue.note_tombstone(200)
    kept = sorted(futures[::3], key=lambda future: (-future.priority, -future.task_id))
    assert queue.victim() is min(kept, key=lambda future: (future.priority, future.task_id))
    assert queue.arranged(queue.rows()) == kept
    assert queue.take(Place()) is kept[0]
    assert queue.rebuild() == len(kept) - 1
    assert [queue.take(Place()) for _ in kept] == [*kept[1:], None]


def test_a_token_that_is_cancelled_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tasks are set aside."""
    now = clocked(monkeypatch)
    queue = queue_maker(None, "adaptive", 1.0)()
    futures = [pending(1, number) for number in range(3)]
    for future in futures:
        queue.push(future)
    now[0] += 1000
    watch: Any = Marked()
    futures[2]._subscribers = watch
    assert queue.take(Place()) is futures[1]
    assert queue.token_cancelled == [futures[2]]


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"order": "newest"}, "order must be"),
        ({"order": "lifo", "aging": 1.0}, "cannot go together"),
        ({"order": "adaptive", "aging": 1.0}, "cannot go together"),
        ({"order": "adaptive", "adaptive_wait": 0}, "adaptive_wait must be more than 0"),
        ({"adaptive_wait": 1.0}, "needs order="),
        ({"order": "lifo", "adaptive_wait": 1.0}, "needs order="),
    ],
)
def test_an_order_that_makes_no_sense(choice: dict[str, Any], message: str) -> None:
    """Is refused, as are options that cannot go together."""
    with pytest.raises(InvalidConfigError, match=message):
        BoundedExecutor(1, **choice)


@pytest.mark.parametrize("choice", [{"order": None}, {"order": "adaptive", "adaptive_wait": "1"}])
def test_what_is_no_order(choice: dict[str, Any]) -> None:
    """Likewise."""
    with pytest.raises(TypeError, match="must be"):
        BoundedExecutor(1, **choice)


class Shedding:
    """A queue of its own time: tasks come and are taken as a test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = clocked(monkeypatch)
        self.queue = queue_maker(sheds=True)()
        self.number = 0

    def push(self, priority: int = 1) -> Future[int]:
        self.number += 1
        future = pending(priority, self.number)
        future._queued_at = self.now[0]
        self.queue.push(future)
        return future

    def take_all(self) -> list[Future[int]]:
        taken = []
        while (future := self.queue.take(Place())) is not None:
            taken.append(future)
        return taken

    def shed(self) -> list[Future[int]]:
        shed = list(self.queue.shed)
        for _ in shed:
            self.queue.shed.popleft()  # type: ignore[union-attr]
        return shed


def test_what_waits_for_long_is_shed_while_all_have(monkeypatch: pytest.MonkeyPatch) -> None:
    """After an interval without a short wait; who waits for less than twice the target is not."""
    case = Shedding(monkeypatch)
    tasks = [case.push() for _ in range(9)]
    for task in tasks[:5]:  # the last of them begins another interval
        case.now[0] += 0.03
        assert case.queue.take(Place()) is task
    case.now[0] += 0.02
    fresh = case.push(), case.push()
    case.now[0] += 0.009
    assert case.queue.take(Place()) is fresh[0]
    assert case.shed() == tasks[5:]
    case.now[0] += 0.002
    assert case.queue.take(Place()) is None
    assert case.shed() == [fresh[1]]


def test_a_burst_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it is worked off, if one task now and then has hardly to wait."""
    case = Shedding(monkeypatch)
    for _ in range(20):
        burst = [case.push() for _ in range(4)]
        taken = []
        for _ in burst:
            taken.append(case.queue.take(Place()))
            case.now[0] += 0.02
        assert taken == burst
    assert case.shed() == []


def test_a_queue_that_runs_empty_is_not_overloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then a worker slept, and whatever comes next is no part of a queue that stands."""
    case = Shedding(monkeypatch)
    for _ in range(5):
        tasks = [case.push() for _ in range(3)]
        case.now[0] += 0.06
        assert case.take_all() == tasks
    assert case.shed() == []


def test_overload_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interval in which one task was quick ends it."""
    case = Shedding(monkeypatch)
    tasks = [case.push() for _ in range(8)]
    for task in tasks[:5]:
        case.now[0] += 0.03
        assert case.queue.take(Place()) is task
    quick = case.push()
    case.now[0] += 0.001
    assert case.queue.take(Place()) is quick
    assert case.shed() == tasks[5:]
    case.now[0] += 0.1
    late = [case.push() for _ in range(3)]
    case.now[0] += 0.05
    assert case.take_all() == late
    assert case.shed() == []


def test_a_queue_that_was_shed_empty_is_still_overloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """No worker had to wait for a task: what was queued had come too late to be run."""
    case = Shedding(monkeypatch)
    tasks = [case.push() for _ in range(8)]
    for task in tasks[:5]:
        case.now[0] += 0.03
        assert case.queue.take(Place()) is task
    assert (case.take_all(), case.shed()) == ([], tasks[5:])
    case.now[0] += 0.08
    late = [case.push() for _ in range(3)]
    case.now[0] += 0.03
    assert case.take_all() == late[:1]  # the first of an interval
    assert case.shed() == late[1:]


def overloaded(ex: BoundedExecutor) -> None:
    """From here on, and for long, the queue sheds what has waited for 10 ms."""
    queue: Any = ex._futurepool.queue
    queue = getattr(queue, "inner", queue) if ex._futurepool.feed is not None else queue
    queue._overloaded, queue._end = True, _sync.clock() + 1000


@pytest.mark.parametrize("way", ["", "wait", "callback", "observed"])
def test_what_is_shed_has_expired(
    way: str, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits hears of it, places come free, and it is counted; the rest runs."""
    now = clocked(monkeypatch)
    heard: list[Any] = []

    class Ear:
        def finished(self, event: Any) -> None:
            heard.append(event.outcome)

    ear: Any = Ear()
    with BoundedExecutor(1, queue_size=4, on_full=OnFull.SHED, name="web") as ex:
        if way == "observed":
            ex.add_observer(ear)
        hold(ex, gate)
        overloaded(ex)
        old = [ex.submit(int) for _ in range(3)]
        if way == "callback":
            old[1].add_done_callback(heard.append)
        now[0] += 0.02
        new = ex.submit(int)
        with pytest.raises(QueueFullError):
            ex.submit(int)
        gate.set()
        if way == "wait":
            assert cf.wait(old, 30).done == set(old)
        assert new.result(30) == 0
        for future in old:
            error = future.exception(30)
            assert isinstance(error, TaskExpiredError)
            assert (error.pool, error.task, error.max_wait) == ("web", "int", None)
            assert error.waited == pytest.approx(0.02)
        stats = ex.stats()
        assert (stats.rejections["expired"], stats.rejections["full"]) == (3, 1)
        assert (stats.cancelled_tasks, stats.completed_tasks, stats.queued_tasks) == (3, 2, 0)
        assert ex.wait(30)
        if way == "observed":
            monkeypatch.undo()  # or the observers are not waited for
            ex.remove_observer(ear)
            assert sorted(heard) == ["expired"] * 3 + ["success"] * 2
        if way == "callback":
            assert aside.join(30)
            assert heard == [old[1]]


def test_shedding_is_for_a_whole_executor() -> None:
    """Its views may have another policy for a full queue; other executors' views not this one."""
    with BoundedExecutor(1, on_full=OnFull.SHED) as ex:
        assert (
            ex.options(on_full=OnFull.BLOCK).options(on_full=OnFull.SHED).submit(int).result() == 0
        )
        assert ex.try_submit(int).result() == 0
    with BoundedExecutor(1) as ex, pytest.raises(InvalidConfigError, match="a whole executor"):
        ex.options(on_full=OnFull.SHED)
    for other in ({"aging": 1.0}, {"order": "lifo"}, {"order": "adaptive"}):
        with pytest.raises(InvalidConfigError, match="cannot go together"):
            BoundedExecutor(1, on_full=OnFull.SHED, **other)  # type: ignore[arg-type]


def test_levels_that_are_not_used_are_forgotten() -> None:
    """A million priorities used once each do not stay; what is queued does."""
    order = PriorityQueue()
    kept = [pending(-number - 10**6, number) for number in range(100)]
    for future in kept:
        order.push(future)
    for number in range(3000):
        order.push(pending(number, number))
        order.push(pending(-number, number))
        for _ in range(2):
            order.take(Place())
        assert len(order.levels) <= KEEP + 1
    assert [order.take(Place()) for _ in kept] == kept
    assert order.take(Place()) is None


@pytest.mark.parametrize("spread", [1, 3, 50, 5000])
def test_pushes_and_takes_against_a_sort(spread: int) -> None:
    """In whatever order they come and go, the highest priority is next, and in it the oldest."""
    chance = random.Random(spread)
    order = PriorityQueue()
    model: list[tuple[int, int, Future[int]]] = []
    for number in range(20_000):
        if chance.random() < (0.52 if number < 10_000 else 0.48):
            future = pending(chance.randrange(spread), number)
            order.push(future)
            heapq.heappush(model, (-future.priority, number, future))
        elif model:
            assert order.take(Place()) is heapq.heappop(model)[2]
        if number % 4999 == 4998:
            assert order.rebuild() == len(model)
        if number % 997 == 996:
            order._forget()
    while model:
        assert order.take(Place()) is heapq.heappop(model)[2]
    assert order.take(Place()) is None


def test_memory_of_cancelled_tasks_is_given_back(gate: threading.Event) -> None:
    """Arguments at once, and the futures once they outnumber the living; no gc run needed."""

    class Argument:
        pass

    gc.disable()
    try:
        with BoundedExecutor(1, queue_size=None) as ex:
            ex.submit(gate.wait, 10)
            arguments = [Argument() for _ in range(1000)]
            futures = [ex.submit(id, argument) for argument in arguments]
            watched = [weakref.ref(argument) for argument in arguments]
            seen = [weakref.ref(future) for future in futures]
            del arguments
            for future in futures[:900]:
                future.cancel()
            assert sum(ref() is not None for ref in watched) == 100
            del future, futures
            assert sum(ref() is not None for ref in seen) < 400
            gate.set()
        assert sum(ref() is not None for ref in [*watched, *seen]) == 0
    finally:
        gc.enable()


@pytest.mark.parametrize("aging", [None, 10.0])
def test_the_order_is_that_of_admission_not_of_asking(
    aging: float | None, monkeypatch: pytest.MonkeyPatch, gate: threading.Event
) -> None:
    """A submitter that is held up after it looked at the clock comes behind whoever overtook it."""
    held_up, go_on = threading.Event(), threading.Event()
    now = [100.0]
    order: list[int] = []
    ids: list[int] = []

    def clock() -> float:
        seen = now[0]
        if threading.current_thread().name == "slow":
            held_up.set()
            go_on.wait(30)
        return seen

    with BoundedExecutor(1, aging=aging) as ex:
        started = threading.Event()
        ex.submit_with_priority(100, lambda: (started.set(), gate.wait(30)))
        started.wait(30)
        monkeypatch.setattr(_sync, "clock", clock)

        def submit(number: int) -> None:
            ids.append(ex.submit(order.append, number).task_id)

        slow = threading.Thread(target=submit, args=(3,), name="slow")
        slow.start()
        held_up.wait(30)
        now[0] = 101.0
        submit(2)
        go_on.set()
        slow.join(30)
        gate.set()
        assert ex.wait(30)
        monkeypatch.undo()
    assert ids == [2, 3]
    assert order == ids


def test_any_integer_is_a_priority_with_aging_too(
    monkeypatch: pytest.MonkeyPatch, gate: threading.Event
) -> None:
    """Of two tasks that have waited equally long the higher one starts sooner, however high."""
    priorities = [10**10, 10**12, -(10**12), -(10**10), 10**40, 10**40 + 1, 2**63, 0, -(10**40)]
    order: list[int] = []
    with BoundedExecutor(1, aging=10.0) as ex:
        ex.submit_with_priority(10**50, gate.wait, 10)
        monkeypatch.setattr(_sync, "clock", lambda: 100.0)
        for priority in priorities:
            ex.submit_with_priority(priority, order.append, priority)
        monkeypatch.undo()
        gate.set()
    assert order == sorted(priorities, reverse=True)


@pytest.mark.parametrize("aging", [None, 10.0])
def test_tasks_that_a_waiting_worker_ran_do_not_stay_queued(aging: float | None) -> None:
    """Their results are given back as those of other tasks are; no gc run needed."""

    class Result:
        pass

    def outer() -> int:
        seen = []
        for _ in range(1000):
            result = ex.submit(Result).result()
            seen.append(weakref.ref(result))
            del result
        return sum(ref() is not None for ref in seen)

    with BoundedExecutor(1, queue_size=5, aging=aging) as ex:
        assert ex.submit(outer).result(30) < 200


@pytest.mark.parametrize("aging", [None, 10.0])
def test_cancelled_tasks_are_swept_whatever_the_order(
    aging: float | None, gate: threading.Event
) -> None:
    """Their futures go while the worker is still busy with something else."""
    with BoundedExecutor(1, queue_size=None, aging=aging) as ex:
        hold(ex, gate)
        futures = [ex.submit_with_priority(number % 5, int) for number in range(1000)]
        seen = [weakref.ref(future) for future in futures]
        for future in futures:
            future.cancel()
        del future, futures
        assert sum(ref() is not None for ref in seen) < 200
        assert ex.stats().queued_tasks == 0
        gate.set()


def test_several_submitters_share_one_line(gate: threading.Event) -> None:
    """The numbers tasks get are the order in which they start."""
    started: list[tuple[int, int]] = []
    ids: dict[tuple[int, int], int] = {}
    with BoundedExecutor(1, queue_size=None) as ex:
        ex.submit(gate.wait, 10)
        together = threading.Barrier(4)

        def submit(thread: int) -> None:
            together.wait(30)
            for number in range(100):
                key = (thread, number)
                ids[key] = ex.submit(started.append, key).task_id

        threads = [threading.Thread(target=submit, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        gate.set()
    assert [ids[key] for key in started] == list(range(2, 402))


class Marked:
    """Stands in for a token that is cancelled, and for the watch that knows it."""

    token: Any = None

    def __init__(self) -> None:
        self.token = self

    def _marked(self) -> bool:
        return True


@pytest.mark.parametrize("aging", [None, 1000.0])
def test_the_doomed_are_no_husks(aging: float | None) -> None:
    """Taken off before their token has cancelled them: the count of husks stays what it is."""
    order = queue_maker(aging)()
    futures = [pending(1, number) for number in range(5)]
    for future in futures:
        order.push(future)
    watch: Any = Marked()
    for future in futures[:4]:
        future._subscribers = watch
    assert order.take(Place()) is futures[4]
    assert order.token_cancelled == futures[:4]
    assert order.tombstones == 0


def test_levels_do_not_stay_when_all_are_empty() -> None:
    """But for as many as are worth keeping."""
    order = PriorityQueue()
    for number in range(3 * KEEP):
        order.push(pending(number, number))
    while order.take(Place()) is not None:
        pass
    assert len(order.levels) == 1
    for number in range(KEEP):
        order.push(pending(number, number))
    while order.take(Place()) is not None:
        pass
    assert len(order.levels) == KEEP


def test_a_task_may_go_on_the_top_level_at_every_step_of_a_rebuild() -> None:
    """As the hot path in C does, without asking what levels there are: an interruption may come there."""
    order = PriorityQueue()
    for number in range(4):
        order.push(pending(number, number))
    steps: list[bool] = []

    def look(frame: Any, event: str, _: object) -> Any:
        if frame.f_code is not PriorityQueue.rebuild.__code__:
            return None
        top = order.top
        steps.append(top is BOTTOM or order.levels.get(-int(top.key)) is top)
        return look

    before = sys.gettrace()
    sys.settrace(look)
    try:
        assert order.rebuild() == 4
    finally:
        sys.settrace(before)
    assert len(steps) > 10
    assert all(steps)
