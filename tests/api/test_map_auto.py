"""map and map_unordered with chunksize="auto": tasks draw calls off one shared batch."""

from __future__ import annotations

import contextvars
import decimal
import gc
import itertools
import logging
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from concurrent import futures as cf
from typing import Any

import pytest

from futurepool import (
    BoundedExecutor,
    CancelToken,
    OnFull,
    PoolClosedError,
    QueueFullError,
    _sync,
    current_token,
)
from futurepool._map import batches
from futurepool._map.batches import Batch, Drawer
from futurepool._pool.pool import Pool
from tests.helpers import hold, until

METHODS = ["map", "map_unordered"]


class Clock:
    """Time that goes on when a call says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(_sync, "clock", clock)
    return clock


@pytest.mark.parametrize("before", [0, 3000])
@pytest.mark.parametrize("shape", [{}, {"buffersize": 4000}])
@pytest.mark.parametrize("method", METHODS)
def test_calls_that_block_run_side_by_side(method: str, shape: Any, before: int) -> None:
    """All of them, also those that many short calls stand in front of."""
    together = threading.Barrier(8)

    def call(number: int) -> int:
        if number >= before:
            together.wait(30)
        return number

    with BoundedExecutor(8) as ex:
        results = getattr(ex, method)(call, range(before + 8), chunksize="auto", **shape)
        assert sorted(results) == list(range(before + 8))


def test_calls_that_block_run_side_by_side_unread() -> None:
    """Nobody looks at the results."""
    together = threading.Barrier(4)
    with BoundedExecutor(4) as ex:
        ex.map(lambda n: n < 2000 or together.wait(30), range(2004), chunksize="auto")
        assert ex.wait(30)
    assert not together.broken


@pytest.mark.parametrize("place", [0, 700, 999])
def test_a_call_that_blocks_holds_up_no_other(place: int, gate: threading.Event) -> None:
    """All the others are made, and what stands before it can be read."""
    ran: list[int] = []

    def call(number: int) -> int:
        if number == place:
            gate.wait(30)
        ran.append(number)
        return number

    with BoundedExecutor(2) as ex:
        results = ex.map(call, range(1000), chunksize="auto")
        until(lambda: len(ran) == 999)
        assert [next(results) for _ in range(place)] == list(range(place))
        gate.set()
        assert list(results) == list(range(place, 1000))


@pytest.mark.parametrize("workers", [1, 2])
def test_what_stands_before_a_call_that_blocks_is_read(workers: int, gate: threading.Event) -> None:
    """Though all of it may be one piece."""
    with BoundedExecutor(workers) as ex:
        results = ex.map(lambda n: n != 500 or gate.wait(30), range(600), chunksize="auto")
        assert [next(results) for _ in range(500)] == [True] * 500
        gate.set()
        assert len(list(results)) == 100
        gate.clear()
        results = ex.map_unordered(lambda n: n != 9 or gate.wait(30), range(10), chunksize="auto")
        assert [next(results) for _ in range(9)] == [True] * 9
        gate.set()
        assert list(results) == [True]


@pytest.mark.parametrize(("waits", "place"), [(3, 5), (6, 7)])  # in one piece; in the next one
@pytest.mark.parametrize("method", METHODS)
def test_what_is_done_after_the_reader_fell_asleep_is_read(
    method: str,
    waits: int,
    place: int,
    clock: Clock,
    gate: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While the call after it blocks, though it was not done when the reader came to look."""
    looked = threading.Semaphore(0)
    sleep_at, relieve = _sync.sleep_at, Batch._relieve

    def sleep(parker: Any, timeout: float | None, _look: Callable[[], object]) -> None:
        looked.release(2)  # for good, but for who wakes it
        sleep_at(parker, timeout, bool)

    def see_to(batch: Batch) -> None:
        relieve(batch)
        looked.release()

    def call(number: int) -> bool:
        if number == waits:  # the first, or the last, of a piece of four
            looked.acquire(timeout=30)
            looked.acquire(timeout=30)
        return number != place or gate.wait(30)

    monkeypatch.setattr(_sync, "sleep_at", sleep)
    monkeypatch.setattr(Batch, "_relieve", see_to)
    with BoundedExecutor(1) as ex:
        results = getattr(ex, method)(call, range(place + 1), chunksize="auto")
        assert [next(results) for _ in range(place)] == [True] * place
        gate.set()
        assert list(results) == [True]


def test_what_was_taken_back_is_drawn_in_order() -> None:
    """Though later calls were taken back after it: else these might block all who draw."""
    with BoundedExecutor(1) as ex:
        batch = Batch(ex._pool, ex._futurepool_options, abs, True, False)
        batch.feed(range(9))
        pieces = [batch._draw(Drawer(batch), 4) for _ in range(2)]
        with batch._lock:
            for piece in pieces:
                assert piece is not None
                piece.todo.popleft()
                batch._recall(piece)
        drawn = [batch._draw(Drawer(batch), number) for number in (2, 9, 9, 9)]
        assert [piece and list(piece.todo) for piece in drawn] == [[1, 2], [3], [5, 6, 7], [8]]


def test_short_calls_cost_a_fraction_of_a_task(clock: Clock) -> None:
    """As long as they take no time there is but one task for each worker, at most."""
    with BoundedExecutor(2) as ex:
        assert list(ex.map(abs, range(20_000), chunksize="auto")) == list(range(20_000))
        assert ex.stats().submitted_tasks <= 2


def test_higher_priorities_come_in_between(clock: Clock) -> None:
    """Within a millisecond of calls; others of the same priority after them, as they came later."""
    order: list[object] = []

    def call(number: int) -> None:
        order.append(number)
        clock.now += 0.001
        if number == 5:
            ex.submit(order.append, "same")
            ex.options(priority=0).submit(order.append, "lower")
            ex.options(priority=2).submit(order.append, "higher")

    with BoundedExecutor(1) as ex:
        list(ex.map(call, range(60), chunksize="auto"))
    assert order == [*range(6), "higher", *range(6, 60), "same", "lower"]


def test_the_queue_is_looked_at_for_what_has_come(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once by each of its tasks, and after each submit: a look may hold up who submits."""
    looks: list[object] = []
    precedes = Pool.precedes

    def look(pool: Pool, task: Any) -> bool:
        looks.append(task)
        return precedes(pool, task)

    def call(number: int) -> None:
        clock.now += 0.001
        if number in {5, 7}:
            ex.submit(int)

    monkeypatch.setattr(Pool, "precedes", look)
    with BoundedExecutor(1) as ex:
        list(ex.map(call, range(60), chunksize="auto"))
        assert 0 < len(looks) <= ex.stats().submitted_tasks


def test_a_task_that_has_aged_comes_in_between(clock: Clock) -> None:
    """By the rule of its pool."""
    order: list[object] = []

    def call(number: int) -> None:
        order.append(number)
        clock.now += 0.001
        if number == 5:
            ex.submit(order.append, "same")
            ex.options(priority=4).submit(order.append, "higher")

    with BoundedExecutor(1, aging=0.005) as ex:
        list(ex.map(call, range(60), chunksize="auto"))
    assert order.index("higher") == 6
    assert order[-1] != "same"


def test_slow_calls_are_a_task_each_now_and_then(clock: Clock) -> None:
    """So that none of the map's tasks is long unless a call is."""

    def call(_: int) -> None:
        clock.now += 1.0

    with BoundedExecutor(1) as ex:
        list(ex.map(call, range(10), chunksize="auto"))
        assert ex.wait(30)
        assert ex.stats().completed_tasks == 10


@pytest.mark.parametrize("method", METHODS)
def test_a_call_that_fails_is_one_failed_task(
    method: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its handler hears of each; the calls around it are made."""
    heard: list[str] = []
    ran: list[int] = []

    def call(number: int) -> int:
        ran.append(number)
        if number % 10 == 3:
            raise LookupError(number)
        return number

    with BoundedExecutor(2, error_handler=lambda error: heard.append(str(error))) as ex:
        results = list(
            getattr(ex, method)(call, range(100), chunksize="auto", return_exceptions=True)
        )
        assert ex.stats().failed_tasks == 10
    assert sorted(map(int, heard)) == list(range(3, 100, 10))
    assert sorted(ran) == list(range(100))
    if method == "map":
        assert [each for each in results if isinstance(each, int)] == [
            number for number in range(100) if number % 10 != 3
        ]
    assert sum(isinstance(each, LookupError) for each in results) == 10


def test_a_failure_that_nobody_reads_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """As that of a single task."""
    with caplog.at_level(logging.ERROR), BoundedExecutor(1) as ex:
        ex.map(int, ["1", "x", "2"], chunksize="auto")
        assert ex.wait(30)
        gc.collect()
        assert ex.submit(int).result(30) == 0
        until(lambda: bool(caplog.records))
    assert "invalid literal" in caplog.text


def test_a_failure_that_was_read_hushes_the_others(caplog: pytest.LogCaptureFixture) -> None:
    """One is enough to hear of."""
    with caplog.at_level(logging.ERROR), BoundedExecutor(1) as ex:
        results = ex.map(int, "xxx", chunksize="auto")
        assert ex.wait(30)
        with pytest.raises(ValueError, match="invalid"):
            list(results)
        del results
        gc.collect()
    assert caplog.records == []


var: contextvars.ContextVar[int] = contextvars.ContextVar("var", default=0)


@pytest.mark.parametrize("mine", [0, 7])
def test_nothing_leaks_from_one_call_to_the_next(mine: int) -> None:
    """Each call has the caller's context to itself."""

    def call(number: int) -> int:
        found = var.get()
        var.set(number)
        return found

    if mine:
        var.set(mine)
    with BoundedExecutor(1) as ex:
        assert list(ex.map(call, range(1, 50), chunksize="auto")) == [mine] * 49
        assert list(ex.map(lambda n, _: call(n), range(1, 50), range(50), chunksize="auto")) == (
            [mine] * 49
        )
        context = decimal.getcontext().copy()
        context.prec = 11
        with decimal.localcontext(context):

            def precise(number: int) -> int:
                decimal.getcontext().prec += number
                return decimal.getcontext().prec

            assert list(ex.map(precise, [1, 2, 3], chunksize="auto")) == [12, 13, 14]


def test_nothing_leaks_out_of_an_empty_context(clock: Clock) -> None:
    """That of a program without context variables, the usual one: a call that sets one, once among others."""
    seen: list[int] = []

    def call(number: int, _: object = None) -> None:
        clock.now += 0.00001
        seen.append(var.get())
        if number % 5 == 1:
            var.set(number)

    def both() -> None:
        assert not contextvars.copy_context()
        with BoundedExecutor(1) as ex:
            list(ex.map(call, range(50), chunksize="auto"))
            list(ex.map(call, range(50), range(50), chunksize="auto"))

    contextvars.Context().run(both)
    assert seen == [0] * 100


@pytest.mark.parametrize("filled", [False, True])
@pytest.mark.parametrize("sets", [False, True])
def test_a_piece_that_takes_long_is_left(
    clock: Clock, sets: bool, filled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its own worker too: it does not make all the calls of a piece that ceased to be short ones."""
    made: list[int] = []

    class Piece(batches.Piece):
        def __init__(self, todo: deque[Any], size: int, place: int) -> None:
            made.append(size)
            super().__init__(todo, size, place)

    def call(number: int) -> None:
        clock.now += 0.00001 if number < 63 else 0.001
        if sets:
            var.set(number)

    def body() -> None:
        if filled:
            var.set(1)
        with BoundedExecutor(1) as ex:
            list(ex.map(call, range(63 + 64), chunksize="auto"))

    monkeypatch.setattr(batches, "Piece", Piece)
    contextvars.Context().run(body)
    assert made[:8] == [0, 1, 2, 4, 8, 16, 32, 64]
    assert made[8] > 40  # what was left of it


def test_initializers_of_workers_stay_apart(clock: Clock) -> None:
    """What one has set does not travel with a task that goes on elsewhere."""
    numbers = itertools.count(1)
    own: contextvars.ContextVar[int] = contextvars.ContextVar("own")
    here = threading.local()

    def begin() -> None:
        here.number = next(numbers)
        own.set(here.number)

    def call(_: int) -> bool:
        clock.now += 0.011
        return bool(own.get() == here.number)

    with BoundedExecutor(3, initializer=begin) as ex:
        assert all(ex.map(call, range(100), chunksize="auto"))


@pytest.mark.parametrize("method", METHODS)
def test_its_token_keeps_the_rest_from_starting(method: str) -> None:
    """At once: also what was drawn already."""
    token = CancelToken()
    ran: list[int] = []

    def call(number: int) -> int:
        ran.append(number)
        if number == 300:
            token.cancel("enough")
        return number

    with BoundedExecutor(1) as ex:
        results = getattr(ex.options(token=token), method)(call, range(1000), chunksize="auto")
        with pytest.raises(cf.CancelledError, match="enough"):
            list(results)
        assert ran == list(range(301))
        with pytest.raises(cf.CancelledError):
            list(getattr(ex.options(token=token), method)(call, [1], chunksize="auto"))


def test_a_range_is_not_written_out(clock: Clock) -> None:
    """Who draws its numbers makes them: a range of any length costs no memory before."""
    with BoundedExecutor(1) as ex:
        results = ex.map(abs, range(10**12), chunksize="auto", timeout=30)
        assert [next(results) for _ in range(3000)] == list(range(3000))
        results.close()  # type: ignore[attr-defined]
        assert list(ex.map(abs, range(5, 5), chunksize="auto")) == []
        assert list(ex.map(abs, range(5, -5, -4), chunksize="auto")) == [5, 1, 3]


def test_what_stands_behind_a_slow_call_is_next(clock: Clock, gate: threading.Event) -> None:
    """Once its piece takes long: it is not left for the end of all that was fed, though nobody reads."""
    ran: list[int] = []

    def call(number: int) -> None:
        ran.append(number)
        if number == 700:
            gate.wait(30)
        clock.now += 0.00001

    with BoundedExecutor(2) as ex:
        ex.map(call, range(3000), chunksize="auto")
        until(lambda: len(ran) == 3000)
        assert ran[-50:] == [*range(2950, 3000)]
        gate.set()


def test_a_failure_with_calls_behind_it_in_its_piece_unread(clock: Clock) -> None:
    """They are made by the next of its tasks, though nothing else is left and nobody reads."""
    ran: list[int] = []

    def call(number: int) -> int:
        ran.append(number)
        return 1 // (number - 1)

    with BoundedExecutor(1) as ex:
        results = ex.map(call, range(3), chunksize="auto", return_exceptions=True)
        assert ex.wait(30)
        assert ran == [0, 1, 2]
        assert isinstance([*results][1], ZeroDivisionError)


def test_no_more_tasks_than_calls(gate: threading.Event) -> None:
    """However many workers there are; nor for calls that were drawn before."""
    with BoundedExecutor(3) as ex:
        results = ex.map(abs, range(4), chunksize="auto", buffersize=1)
        assert next(results) == 0
        assert ex.wait(30)
        held = hold(ex, gate, 3)
        reader = threading.Thread(target=next, args=(results,))
        reader.start()
        until(lambda: bool(ex.stats().queued_tasks))
        single = ex.map(abs, range(1), chunksize="auto")
        assert ex.stats().queued_tasks == 2
        gate.set()
        reader.join(30)
        assert [*results, *single] == [2, 3, 0]
        assert cf.wait(held, 30).done == {*held}


def test_others_join_in_when_there_are_places(clock: Clock, gate: threading.Event) -> None:
    """After the map was begun with a single one; nobody reads."""
    together = threading.Barrier(2)
    begun = threading.Event()

    def call(number: int) -> None:
        clock.now += 0.001
        if number == 0:
            assert begun.wait(30)
            gate.set()
            assert other.result(30)
        else:
            together.wait(30)

    with BoundedExecutor(2, queue_size=0) as ex:
        (other,) = hold(ex, gate)
        ex.options(on_full=OnFull.RAISE).map(call, range(3), chunksize="auto")
        begun.set()
        assert ex.wait(60)
    assert not together.broken


@pytest.mark.parametrize("reader_is", ["looking", "asleep"])
def test_who_reads_sees_to_others(
    reader_is: str, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A place has come free while the only one of its tasks makes a call that blocks: soon, or late."""
    blocks, sleeps = threading.Event(), threading.Event()
    sleep, sleep_at, relieve = Batch.sleep, _sync.sleep_at, Batch._relieve

    def look_for_results(*args: Any) -> bool:
        sleeps.set()
        return sleep(*args)

    def fall_asleep(*args: Any) -> None:
        if threading.current_thread() is reader:
            sleeps.set()
        sleep_at(*args)

    def see_to(batch: Batch) -> None:
        if reader_is == "looking":
            assert cf.wait(held, 30).done == {*held}
        relieve(batch)

    def call(number: int) -> int:
        if number == 0:
            blocks.wait(30)
        return number

    if reader_is == "looking":
        monkeypatch.setattr(Batch, "sleep", look_for_results)
    else:
        monkeypatch.setattr(_sync, "LOOK", 0.01)
        monkeypatch.setattr(_sync, "sleep_at", fall_asleep)
    monkeypatch.setattr(Batch, "_relieve", see_to)
    with BoundedExecutor(2, queue_size=0) as ex:
        held = hold(ex, gate)
        results = ex.options(on_full=OnFull.RAISE).map_unordered(call, range(3), chunksize="auto")
        found: list[int] = []
        reader = threading.Thread(target=lambda: found.extend(results))
        reader.start()
        assert sleeps.wait(30)
        gate.set()
        assert cf.wait(held, 30).done == {*held}
        until(lambda: found == [1, 2])
        blocks.set()
        reader.join(30)
        assert found == [1, 2, 0]


def test_a_call_that_cancels_the_rest_and_fails() -> None:
    """By a shutdown: the rest has an outcome all the same."""

    def call(number: int) -> None:
        ex.shutdown(wait=False, cancel_futures=True)
        raise LookupError(number)

    ex = BoundedExecutor(1)
    found = [*ex.map(call, range(9), chunksize="auto", return_exceptions=True, timeout=30)]
    assert isinstance(found[0], LookupError)
    assert [type(each) for each in found[1:]] == [cf.CancelledError] * 8
    ex.shutdown()


@pytest.mark.parametrize("method", METHODS)
def test_what_was_read_is_let_go_of(method: str, clock: Clock) -> None:
    """A map that is read as it goes takes no more memory than its buffer."""

    class Result:
        pass

    alive: weakref.WeakSet[Result] = weakref.WeakSet()

    def call(_: int) -> Result:
        clock.now += 0.001
        result = Result()
        alive.add(result)
        return result

    with BoundedExecutor(1) as ex:
        results = getattr(ex, method)(call, itertools.count(), chunksize="auto", buffersize=5)
        for _ in range(300):
            next(results)
        gc.collect()
        assert len(alive) <= 10
        assert sum([type(each) is batches.Piece for each in gc.get_objects()]) < 100
        results.close()


def test_what_was_drawn_is_let_go_of(gate: threading.Event) -> None:
    """Though what was fed with it has not been drawn yet."""

    class Item:
        pass

    seen: list[weakref.ref[Any]] = []
    blocked = threading.Event()

    def call(item: Item) -> None:
        seen.append(weakref.ref(item))
        if len(seen) == 20:
            blocked.set()
            gate.wait(30)

    with BoundedExecutor(1) as ex:
        ex.map(call, [Item() for _ in range(500)], chunksize="auto")
        assert blocked.wait(30)
        until(lambda: gc.collect() is not None and [each() for each in seen[:19]] == [None] * 19)
        gate.set()


def test_a_reader_is_woken_for_what_it_waits_for(clock: Clock) -> None:
    """Not for each piece that somebody has done; nor for each of those while workers go on."""
    with BoundedExecutor(1) as ex:
        batch = batches.Batch(ex._pool, ex._futurepool_options, abs, True, False)
        there: list[int] = []
        sleeper = batches.Sleeper(lambda: bool(there), 0.002)
        batch._sleepers[sleeper] = None
        batch._wake()
        assert not sleeper.parker.acquire(True, 0.0)
        there.append(1)
        batch._wake(clock.now + 0.001)
        assert not sleeper.parker.acquire(True, 0.0)
        batch._wake()
        batch._wake(clock.now + 0.003)
        assert sleeper.parker.acquire(True, 30)


def test_pieces_are_a_millisecond_each(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the first, each of twice as many calls; nothing is left of one that would be a small one."""
    made: list[int] = []

    class Piece(batches.Piece):
        def __init__(self, todo: deque[Any], size: int, place: int) -> None:
            made.append(size)
            super().__init__(todo, size, place)

    def call(_: int) -> None:
        clock.now += 0.00001

    monkeypatch.setattr(batches, "Piece", Piece)
    with BoundedExecutor(1) as ex:
        list(ex.map(call, range(5000), chunksize="auto"))
    # (The first is an empty one, before all others; a hundred may be 99, by rounding.)
    assert made[:8] == [0, 1, 2, 4, 8, 16, 32, 64]
    assert all(95 <= size <= 105 for size in made[8:-1])


def test_leaving_early_tells_what_runs(gate: threading.Event) -> None:
    """And the rest never starts."""
    ran: list[int] = []
    told = threading.Event()

    def call(number: int) -> None:
        ran.append(number)
        if number == 1:
            gate.set()
            assert current_token().wait(30)
            told.set()

    with BoundedExecutor(1) as ex:
        results = ex.map(call, range(500), chunksize="auto")
        assert next(results) is None
        assert gate.wait(30)
        results.close()  # type: ignore[attr-defined]
        assert told.wait(30)
    assert ran == [0, 1]


def test_a_shutdown_that_cancels(gate: threading.Event) -> None:
    """What has not started never does."""
    ran: list[int] = []

    def call(number: int) -> int:
        ran.append(number)
        if number == 3:
            gate.wait(30)
        return number

    ex = BoundedExecutor(1)
    results = ex.map(call, range(500), chunksize="auto", return_exceptions=True)
    until(lambda: 3 in ran)
    ex.shutdown(wait=False, cancel_futures=True)
    gate.set()
    found = list(results)
    ex.shutdown()
    assert found[:4] == [0, 1, 2, 3]
    assert [type(each) for each in found[len(ran) :]] == [cf.CancelledError] * (500 - len(ran))
    assert len(ran) < 500


def test_a_shutdown_finishes_it() -> None:
    """All was accepted."""
    ran: list[int] = []
    ex = BoundedExecutor(2)
    ex.map(ran.append, range(5000), chunksize="auto")
    ex.shutdown()
    assert sorted(ran) == list(range(5000))
    with pytest.raises(PoolClosedError):
        ex.map(abs, [1], chunksize="auto")
    with pytest.raises(PoolClosedError):
        list(ex.map_unordered(abs, [1], chunksize="auto"))


def test_struck_while_it_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Right after a piece was noted: nobody waits for what will not come."""

    class Struck(dict[Any, Any]):
        def __setitem__(self, key: Any, value: Any) -> None:
            super().__setitem__(key, value)
            raise KeyboardInterrupt

    class Batch(batches.Batch):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self._pieces = Struck()

    monkeypatch.setattr(batches, "Batch", Batch)
    with BoundedExecutor(1, error_handler=id) as ex:
        with pytest.raises(KeyboardInterrupt):
            list(ex.map(abs, range(8), chunksize="auto", timeout=20))
        assert ex.submit(int).result(30) == 0


def test_more_of_its_tasks_are_no_failures(clock: Clock, gate: threading.Event) -> None:
    """There is room for a second one only when the pool is closed already, and it still helps."""
    ex = BoundedExecutor(2, queue_size=0)
    (other,) = hold(ex, gate)
    together = threading.Barrier(2)

    def call(number: int) -> int:
        clock.now += 0.011
        if number == 3:
            gate.set()
            assert other.result(30)
            ex.shutdown(wait=False)
        if number > 150:
            together.wait(30)
        return number

    results = ex.options(on_full=OnFull.RAISE).map(call, range(191), chunksize="auto")
    assert list(results) == list(range(191))
    ex.shutdown()
    stats = ex.stats()
    assert (stats.failed_tasks, stats.rejected_tasks, stats.overflow_tasks) == (0, 0, 0)


def test_with_a_full_queue(gate: threading.Event) -> None:
    """The policy decides about the first of its tasks; more are a matter of speed."""
    with BoundedExecutor(1, queue_size=1) as ex:
        hold(ex, gate)
        waiting = ex.submit(int)
        with pytest.raises(QueueFullError):
            ex.options(on_full=OnFull.RAISE).map(abs, range(9), chunksize="auto")
        dropped = ex.options(on_full=OnFull.DROP_NEW).map(abs, range(9), chunksize="auto")
        with pytest.raises(cf.CancelledError):
            list(dropped)
        assert list(ex.options(on_full=OnFull.CALLER_RUNS).map(abs, [1, 2], chunksize="auto")) == [
            1,
            2,
        ]
        waiting.cancel()
        results = ex.options(on_full=OnFull.RAISE).map(abs, range(9), chunksize="auto")
        gate.set()
        assert list(results) == list(range(9))


def test_the_bound_is_kept(clock: Clock, gate: threading.Event) -> None:
    """Its tasks take turns in one place, and none is over the bound when others wait for theirs."""
    most = 0

    def call(_: int) -> None:
        nonlocal most
        clock.now += 0.03
        stats = ex.stats()
        most = max(most, stats.active_workers + stats.queued_tasks)

    with BoundedExecutor(1, queue_size=2) as ex:
        mapped = ex.map(call, range(50), chunksize="auto")
        for _ in range(5):
            ex.submit(call, 0)
        assert len(list(mapped)) == 50
        assert ex.stats().overflow_tasks == 0
    assert most <= 3


@pytest.mark.parametrize("method", METHODS)
def test_in_a_task_of_a_pool_of_one(method: str) -> None:
    """The task that waits runs them itself, turn by turn."""
    with BoundedExecutor(1) as ex:
        inner = ex.submit(
            lambda: sum(getattr(ex, method)(abs, range(-3000, 0), chunksize="auto"))
        ).result(30)
    assert inner == sum(range(3001))


@pytest.mark.parametrize("method", METHODS)
def test_inputs_that_wait_for_a_result(method: str) -> None:
    """No call waits for the next one to be produced."""
    ran = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        assert ran.wait(30)
        yield 2

    def call(number: int) -> int:
        ran.set()
        return number

    with BoundedExecutor(2) as ex:
        assert sorted(getattr(ex, method)(call, items(), chunksize="auto")) == [1, 2]


@pytest.mark.parametrize("kind", [cf.ThreadPoolExecutor])
def test_behind_another_executor(kind: Any) -> None:
    """There calls travel in chunks: some rounds for each worker."""
    with BoundedExecutor(2, engine=kind(2)) as ex:
        assert list(ex.map(abs, range(-400, 0), chunksize="auto")) == list(range(400, 0, -1))
        assert 1 <= ex.stats().submitted_tasks <= 10
        assert list(ex.map(abs, [-1, -2], chunksize="auto")) == [1, 2]
        assert list(ex.map(abs, iter([-1, -2]), chunksize="auto")) == [1, 2]
        lazy = ex.map(abs, itertools.count(), chunksize="auto", buffersize=30)
        assert list(itertools.islice(lazy, 200)) == list(range(200))
        lazy.close()  # type: ignore[attr-defined]


def test_in_a_group(gate: threading.Event) -> None:
    """The first failure cancels the others; what is yielded as an error does not."""
    from futurepool import TaskGroup  # noqa: F401 - groups need ExceptionGroup

    ran: list[int] = []

    def call(number: int) -> int:
        ran.append(number)
        if number == 3:
            raise LookupError(number)
        return number

    with BoundedExecutor(1) as ex:
        with ex.group() as group:
            found = list(group.map(call, range(6), chunksize="auto", return_exceptions=True))
        assert isinstance(found[3], LookupError)
        assert found[4:] == [4, 5]
        ran.clear()
        with pytest.raises(BaseException) as caught, ex.group() as group:
            group.submit(gate.wait, 30)
            group.map(call, range(500), chunksize="auto")
            gate.set()
        assert type(caught.value).__name__ == "ExceptionGroup"


def test_a_name_and_a_bad_size() -> None:
    """As ever."""
    with BoundedExecutor(1) as ex:
        with pytest.raises(
            TypeError, match="chunksize must be a number or .auto., not 'automatic'"
        ):
            ex.map(abs, [1], chunksize="automatic")  # type: ignore[call-overload]
        names = list(ex.map(lambda _: ex.running()[0].name, [1], chunksize="auto"))
        assert "lambda" in names[0]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 3])
def test_it_is_a_map_whatever_happens(workers: int) -> None:
    """Calls of all lengths, failures, other tasks in between."""
    pause = threading.Event()

    def call(number: int) -> int:
        if number % 97 == 0:
            pause.wait(0.003)
        if number % 31 == 0:
            raise LookupError(number)
        return number

    def plain(number: int) -> str:
        return f"LookupError {number}" if number % 31 == 0 else str(number)

    def shown(each: Any) -> str:
        return f"LookupError {each}" if isinstance(each, LookupError) else str(each)

    with BoundedExecutor(workers, queue_size=5) as ex:
        for size in (1, 2, 50, 1500):
            for shape in ({}, {"buffersize": 40}):
                for inputs in (range(size), iter(range(size))):
                    mapped = ex.map(call, inputs, chunksize="auto", return_exceptions=True, **shape)
                    ex.options(priority=2).submit(int)
                    assert [shown(each) for each in mapped] == [plain(n) for n in range(size)]
                mixed = ex.map_unordered(
                    call, range(size), chunksize="auto", return_exceptions=True, **shape
                )
                assert sorted(map(shown, mixed)) == sorted(map(plain, range(size)))


class Changing(deque[Any]):
    """As in the free-threaded build of 3.13: a copy fails where another thread changes it just then."""

    changed = False

    def __iter__(self) -> Iterator[Any]:
        self.changed = not self.changed
        if self.changed:
            raise RuntimeError("deque mutated during iteration")
        return super().__iter__()


@pytest.mark.parametrize("way", ["leave", "token", "shutdown"])
def test_it_ends_while_others_take_calls(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """To leave it, or to cancel it, does not fail because workers take calls at the same time."""
    monkeypatch.setattr(batches, "deque", Changing)
    token = CancelToken()
    with BoundedExecutor(max_workers=1) as pool:
        gate = threading.Event()
        hold(pool, gate)
        results = pool.options(token=token).map(abs, range(5000), chunksize="auto")
        if way == "leave":
            gate.set()
            assert next(results) == 0
            results.close()  # type: ignore[attr-defined]
        elif way == "token":
            token.cancel()
        else:
            pool.shutdown(wait=False, cancel_futures=True)
        gate.set()
        assert pool.wait(10)
    if way != "leave":
        with pytest.raises(cf.CancelledError):
            list(results)


def test_contents_of_a_deque_that_changes() -> None:
    """It is read again."""
    assert _sync.contents(Changing([1, 2])) == [1, 2]
