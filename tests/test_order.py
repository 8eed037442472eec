"""Which task comes next: priorities, first in first out, aging; and what cancelled tasks leave."""

from __future__ import annotations

import gc
import random
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from futurepool import BoundedExecutor, Future, Priority, _sync
from futurepool.order import Aged, Levels, make_order


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    gate = threading.Event()
    yield gate
    gate.set()


def test_first_in_first_out(gate: threading.Event) -> None:
    """Within a priority the order of admission is the order of starting."""
    order: list[int] = []
    with BoundedExecutor(1, queue_size=None) as ex:
        ex.submit(gate.wait)
        for number in range(100):
            ex.submit(order.append, number)
        gate.set()
    assert order == list(range(100))


def test_higher_priorities_start_sooner(gate: threading.Event) -> None:
    """Any int is a priority, however large; within one, first in first out."""
    order: list[tuple[int, int]] = []
    priorities = [0, 1, 2, -5, 10**30, -(10**30), 7, 7, 1, Priority.HIGH, Priority.LOW]
    with BoundedExecutor(1) as ex:
        ex.submit_with_priority(10**40, gate.wait)
        for number, priority in enumerate(priorities):
            ex.submit_with_priority(priority, order.append, (priority, number))
        gate.set()
    assert order == sorted(order, key=lambda entry: (-entry[0], entry[1]))
    assert len(order) == len(priorities)


def test_the_default_is_normal(gate: threading.Event) -> None:
    """LOW comes after plain submits, HIGH before."""
    order: list[str] = []
    with BoundedExecutor(1) as ex:
        ex.submit(gate.wait)
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
        ex.submit_with_priority(10**6, gate.wait)
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
        ex.submit_with_priority(100, gate.wait)
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
    order = make_order(aging)
    futures = [pending(number % 3, number) for number in range(300)]
    for future in futures:
        order.push(future)
    assert len(order.tasks()) == 300
    for future in futures[:250]:
        future.cancel()
        order.husks += 1
        order.sweep()
    held = sum(map(len, order.levels.values())) or len(getattr(order, "_heap", ()))
    assert held < 170
    assert order.recount() == 50
    victim = order.victim()
    assert victim is min(futures[250:], key=lambda f: (f.priority, f.task_id))
    out = []
    while (future := order.take(Place())) is not None:
        out.append(future)
    assert out == sorted(futures[250:], key=lambda f: (-f.priority, f.task_id))
    assert order.victim() is None
    assert order.recount() == 0
    assert order.take(Place()) is None


def test_kinds_of_order() -> None:
    """Aging needs its own."""
    assert isinstance(make_order(None), Levels)
    assert isinstance(make_order(1.0), Aged)


def test_levels_that_are_not_used_are_forgotten() -> None:
    """A million priorities used once each do not stay."""
    order = Levels()
    for number in range(3000):
        order.push(pending(number, number))
        order.push(pending(-number, number))
        for _ in range(2):
            order.take(Place())
    assert len(order.levels) < 600


def test_memory_of_cancelled_tasks_is_given_back(gate: threading.Event) -> None:
    """Arguments at once, and the futures once they outnumber the living; no gc run needed."""

    class Argument:
        pass

    gc.disable()
    try:
        with BoundedExecutor(1, queue_size=None) as ex:
            ex.submit(gate.wait)
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
