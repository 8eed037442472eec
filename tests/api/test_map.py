"""map and map_unordered."""

from __future__ import annotations

import contextvars
import functools
import gc
import itertools
import sysconfig
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent import futures as cf
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

import pytest

from futurepool import BoundedExecutor, InvalidConfigError, TaskError, _sync
from tests.helpers import hold


@pytest.fixture
def ex() -> Iterator[BoundedExecutor]:
    with BoundedExecutor(2, queue_size=3) as ex:
        yield ex


def until_gone(ex: BoundedExecutor, seen: weakref.ref[Any]) -> None:
    """Give the workers time to let go of something they made."""
    pause = threading.Event()
    for _ in range(2000):
        if seen() is None:
            return
        if bool(sysconfig.get_config_var("Py_GIL_DISABLED")):
            # (Of the build, as an extension may have switched the GIL on.)
            # What a thread has made and another gives up dies when the first runs again, or when
            # the collector stops all threads; a ThreadPoolExecutor shows the same. So wake both,
            # and collect: there the test says only that nothing holds on to it.
            gc.collect()
            together = threading.Barrier(2)
            for future in [ex.submit(together.wait, 30) for _ in range(2)]:
                future.result(30)
        pause.wait(0.005)


SHAPES: list[dict[str, Any]] = [
    {},
    {"chunksize": 3},
    {"chunksize": 1000},
    {"buffersize": 1},
    {"buffersize": 4},
    {"buffersize": 7, "chunksize": 3},
    {"buffersize": 2, "chunksize": 50},
    {"timeout": 60},
    {"timeout": 60, "chunksize": 2, "buffersize": 5},
    {"chunksize": "auto"},
    {"chunksize": "auto", "buffersize": 1},
    {"chunksize": "auto", "buffersize": 7, "timeout": 60},
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("make", [list, iter, tuple, lambda items: (i for i in items)])
def test_results_in_input_order(ex: BoundedExecutor, shape: Any, make: Any) -> None:
    """Whatever the inputs are, and however the calls travel."""
    items = range(-50, 50)
    assert list(ex.map(abs, make(items), **shape)) == list(map(abs, items))
    assert list(ex.map(pow, make(items), itertools.repeat(2), **shape)) == [i * i for i in items]
    assert sorted(ex.map_unordered(abs, make(items), **shape)) == sorted(map(abs, items))
    assert list(ex.map(abs, make([]), **shape)) == []
    assert list(ex.map_unordered(abs, make([]), **shape)) == []


def test_the_shortest_iterable_ends_it(ex: BoundedExecutor) -> None:
    """As with the builtin."""
    assert list(ex.map(max, [1, 5, 3], (4, 2))) == [4, 5]


def test_an_eager_map_runs_what_nobody_reads(ex: BoundedExecutor) -> None:
    """Everything is submitted before map returns."""
    ran: list[int] = []
    ex.map(ran.append, range(20))
    assert ex.wait(30)
    assert sorted(ran) == list(range(20))
    ex.map(ran.append, iter(range(20)), chunksize=3)
    assert ex.wait(30)
    assert len(ran) == 40
    ex.map(ran.append, iter(range(20)), chunksize="auto")
    assert ex.wait(30)
    assert len(ran) == 60


@pytest.mark.parametrize("chunksize", [1, 2, "auto"])
def test_a_lazy_map_reads_endless_inputs(ex: BoundedExecutor, chunksize: Any) -> None:
    """With at most `buffersize` unread results."""
    drawn = itertools.count()
    results = ex.map(str, drawn, buffersize=4, chunksize=chunksize)
    assert [next(results) for _ in range(10)] == [str(n) for n in range(10)]
    results.close()  # type: ignore[attr-defined]
    assert next(drawn) <= 10 + 4


def test_map_unordered_is_always_lazy(ex: BoundedExecutor) -> None:
    """Nothing is drawn before the first result is asked for, and no more than the buffer after."""
    drawn = itertools.count()
    results = ex.map_unordered(str, drawn, buffersize=3)
    assert next(drawn) == 0
    assert {next(results) for _ in range(5)} <= {str(n) for n in range(1, 9)}
    results.close()  # type: ignore[attr-defined]


def test_unordered_results_come_as_they_finish(ex: BoundedExecutor, gate: threading.Event) -> None:
    """A slow first call does not hold the others back."""

    def call(number: int) -> int:
        if number == 0:
            gate.wait(30)
        return number

    results = ex.map_unordered(call, range(6))
    assert sorted(next(results) for _ in range(5)) == [1, 2, 3, 4, 5]
    gate.set()
    assert list(results) == [0]


@pytest.mark.parametrize("shape", [{}, {"chunksize": 2}, {"buffersize": 4}])
def test_leaving_early_cancels_the_rest(shape: Any, gate: threading.Event) -> None:
    """What has not started never does."""
    ran: list[int] = []

    def call(number: int) -> int:
        ran.append(number)
        if number > 1:
            gate.wait(30)
        return number

    with BoundedExecutor(1, queue_size=None) as ex:
        results = ex.map(call, range(20), **shape)
        assert next(results) == 0
        results.close()  # type: ignore[attr-defined]
        gate.set()
    assert len(ran) <= 6
    assert ex.stats().cancelled_tasks > 0


def test_leaving_map_unordered_early(gate: threading.Event) -> None:
    """The same there."""
    with BoundedExecutor(1) as ex:
        results = ex.map_unordered(lambda n: n and gate.wait(30), itertools.count(), buffersize=8)
        assert next(results) == 0
        results.close()  # type: ignore[attr-defined]
        gate.set()
        assert ex.wait(30)
        assert ex.stats().cancelled_tasks >= 5


@pytest.mark.parametrize(
    "shape",
    [{}, {"chunksize": 4}, {"buffersize": 5, "chunksize": 2}, {"chunksize": "auto"}],
)
def test_a_failure_comes_in_its_place(ex: BoundedExecutor, shape: Any) -> None:
    """Results before it are delivered first; it ends the iterator; both types catch it."""
    results = ex.map(int, ["0", "1", "2", "x", "4"], **shape)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="invalid literal") as caught:
        next(results)
    assert isinstance(caught.value, TaskError)
    assert list(results) == []


def test_a_failure_in_a_chunk_does_not_keep_its_other_calls() -> None:
    """They run as they would alone; the first failure is the task's, counted once."""
    ran: list[int] = []

    def call(number: int) -> int:
        ran.append(number)
        return 1 // (number % 2)

    with BoundedExecutor(1) as ex:
        with pytest.raises(ZeroDivisionError):
            list(ex.map(call, range(6), chunksize=6))
        assert ran == list(range(6))
        assert ex.stats().failed_tasks == 1
        with pytest.raises(ZeroDivisionError):
            list(ex.map_unordered(call, range(6), chunksize=6))


def test_a_chunk_is_called_what_its_function_is() -> None:
    """In errors and in running()."""
    with BoundedExecutor(1) as ex:
        with pytest.raises(TaskError) as caught:
            list(ex.map(int, "x", chunksize=2))
        assert (caught.value.task_id, caught.value.task_name) == (1, "int")
        with pytest.raises(TaskError) as caught:
            list(ex.options(name="mine").map(int, "x", chunksize=2))
        assert caught.value.task_name == "mine"


@pytest.mark.parametrize("unordered", [False, True])
def test_timeout(ex: BoundedExecutor, gate: threading.Event, unordered: bool) -> None:
    """Counted from the call; what is given up is cancelled."""
    each = ex.map_unordered if unordered else ex.map
    with pytest.raises(FutureTimeoutError):
        list(each(lambda _: gate.wait(30), range(4), timeout=0.01))
    gate.set()
    assert ex.wait(30)
    assert ex.stats().cancelled_tasks > 0


@pytest.mark.parametrize("method", ["map", "map_unordered"])
def test_bad_input(ex: BoundedExecutor, method: str) -> None:
    """At the call, naming argument and value."""
    each: Any = getattr(ex, method)
    with pytest.raises(TypeError, match="fn must be callable, not 3"):
        each(3, [1])
    with pytest.raises(TypeError, match="int"):
        each(abs, 5)
    for bad in (0, -1):
        with pytest.raises(InvalidConfigError, match=r"^buffersize must be None or > 0$"):
            each(abs, [1], buffersize=bad)
    with pytest.raises(TypeError, match=r"chunksize must be a number or .auto., not '2'"):
        each(abs, [1], chunksize="2")
    with pytest.raises(TypeError, match=r"^buffersize must be an integer or None$"):
        each(abs, [1], buffersize=1.5)
    with pytest.raises(ValueError, match="timeout .*nan"):
        each(abs, [1], timeout=float("nan"))
    assert ex.stats().submitted_tasks == 0


@pytest.mark.parametrize("method", ["map", "map_unordered"])
@pytest.mark.parametrize("size", [0, -1, 0.5, 2.5, True, None, float("inf"), float("nan"), 10**30])
def test_any_chunksize(ex: BoundedExecutor, method: str, size: Any) -> None:
    """As with the standard class, which ignores it: `len(items) // 100` is 0 for few items."""
    each: Any = getattr(ex, method)
    assert sorted(each(abs, range(5), chunksize=size)) == [0, 1, 2, 3, 4]
    stats = ex.stats()
    assert stats.submitted_tasks == {2.5: 3, float("inf"): 1, 10**30: 1}.get(size, 5)


@pytest.mark.parametrize("method", ["map", "map_unordered"])
@pytest.mark.parametrize("timeout", [-1, -0.5, float("-inf")])
def test_a_timeout_that_is_over(method: str, timeout: float) -> None:
    """What is done comes, and then a TimeoutError from the iterator, as in the standard library."""
    gate = threading.Event()
    with BoundedExecutor(1) as ex:
        results = getattr(ex, method)(gate.wait, [30, 0], timeout=timeout)
        with pytest.raises(cf.TimeoutError):
            next(results)
        gate.set()
        results = ex.map(abs, [-1, -2], timeout=timeout)
        assert ex.wait(30)
        assert list(results) == [1, 2]


@pytest.mark.parametrize("shape", [{}, {"chunksize": 2}, {"buffersize": 3}, {"chunksize": "auto"}])
def test_an_input_that_raises(ex: BoundedExecutor, shape: Any) -> None:
    """The error comes through. From `map` at once, as the standard library's: what was submitted is given up."""

    def items() -> Iterator[int]:
        yield from range(2)
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        list(ex.map(abs, items(), **shape))
    with pytest.raises(LookupError, match="no more"):
        list(ex.map_unordered(abs, items(), **shape))
    assert ex.wait(30)


class NoMore(LookupError):
    """One that can be watched."""


@pytest.mark.parametrize("shape", SHAPES)
def test_an_input_that_raises_loses_no_result(ex: BoundedExecutor, shape: Any) -> None:
    """`map_unordered` reads ahead: what was read before the error has its results before that."""
    found: list[int] = []
    seen: list[weakref.ref[Any]] = []

    def items() -> Iterator[int]:
        yield from range(5)
        error = NoMore("no more")
        seen.append(weakref.ref(error))
        try:
            raise error
        finally:
            del error

    gc.disable()
    try:
        with pytest.raises(LookupError, match="no more"):
            found.extend(ex.map_unordered(abs, items(), **shape))  # extends one by one
        assert sorted(found) == list(range(5))
        until_gone(ex, seen[0])
        assert seen[0]() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("method", ["map", "map_unordered"])
def test_a_map_inside_a_task(method: str) -> None:
    """One worker, and the task waits for tasks queued behind it: it runs them itself."""
    with BoundedExecutor(1) as ex:
        total = ex.submit(lambda: sum(getattr(ex, method)(abs, range(-50, 0)))).result(30)
        assert total == sum(range(51))


def test_a_lazy_map_keeps_its_executor() -> None:
    """Nobody else may hold on to it."""
    assert list(BoundedExecutor(2).map(abs, range(-9, 0), buffersize=2)) == list(range(9, 0, -1))
    assert sorted(BoundedExecutor(2).map_unordered(abs, range(-9, 0))) == list(range(1, 10))


def test_a_map_after_shutdown_of_its_pool(ex: BoundedExecutor) -> None:
    """Eager results are there; a lazy one cannot go on, and says so."""
    eager, lazy = ex.map(abs, range(3)), ex.map(abs, range(9), buffersize=2)
    ex.shutdown()
    assert list(eager) == [0, 1, 2]
    with pytest.raises(RuntimeError, match="after shutdown"):
        list(lazy)


def test_cancelled_under_the_reader(gate: threading.Event) -> None:
    """shutdown(cancel_futures=True) shows as CancelledError."""
    ex = BoundedExecutor(1)
    results = ex.map(lambda _: gate.wait(30), range(3))
    ex.shutdown(wait=False, cancel_futures=True)
    gate.set()
    with pytest.raises(CancelledError):
        list(results)
    ex.shutdown()


def test_results_are_not_kept(ex: BoundedExecutor) -> None:
    """Once read, nothing holds on to a result; no gc run needed."""

    class Result:
        pass

    gc.disable()
    try:
        for shape in (
            {},
            {"buffersize": 2},
            {"chunksize": 2},
            {"buffersize": 3, "chunksize": 2},
            {"chunksize": "auto"},
            {"chunksize": "auto", "buffersize": 2},
        ):
            for each in (ex.map, ex.map_unordered):
                for result in each(lambda _: Result(), range(5), **shape):
                    seen = weakref.ref(result)
                    del result
                    until_gone(ex, seen)
                    assert seen() is None, (each.__name__, shape)
    finally:
        gc.enable()


def test_results_are_moved_out_of_their_futures(ex: BoundedExecutor) -> None:
    """A worker may hold on to the future of a task for a while after it was read."""
    futures = []

    def square(number: int) -> int:
        futures.append(_sync.here.slot.task)
        return number**2

    assert list(ex.map(square, range(5))) == [0, 1, 4, 9, 16]
    assert [future._result for future in futures] == [None] * 5


@pytest.mark.parametrize("chunksize", [1, 2, 3, 5, 50, "auto"])
@pytest.mark.parametrize("buffersize", [1, 2, 5, 6])
@pytest.mark.parametrize("method", ["map", "map_unordered"])
def test_no_more_unread_results_than_the_buffer(
    ex: BoundedExecutor, method: str, buffersize: int, chunksize: Any
) -> None:
    """However the calls travel: inputs drawn less results read, at the worst."""
    drawn = 0

    def inputs() -> Iterator[int]:
        nonlocal drawn
        while True:
            drawn += 1
            yield drawn

    results = getattr(ex, method)(str, inputs(), buffersize=buffersize, chunksize=chunksize)
    worst = drawn
    for read in range(1, 31):
        next(results)
        worst = max(worst, drawn - read)
    results.close()
    assert worst <= buffersize


def test_a_lazy_map_starts_at_once(ex: BoundedExecutor) -> None:
    """It fills its buffer when it is called, and what nobody reads runs."""
    ran: list[int] = []
    results = ex.map(ran.append, itertools.count(), buffersize=3)
    assert ex.wait(30)
    assert sorted(ran) == [0, 1, 2]
    assert next(results) is None


@pytest.mark.parametrize("shape", [{}, {"chunksize": 2}, {"buffersize": 4}, {"chunksize": "auto"}])
def test_an_input_that_raises_at_the_call(shape: Any, gate: threading.Event) -> None:
    """There is no iterator to read, so what was submitted already never starts."""
    ran: list[int] = []

    def items() -> Iterator[int]:
        yield from range(3)
        raise LookupError("no more")

    with BoundedExecutor(1) as ex:
        hold(ex, gate)
        with pytest.raises(LookupError, match="no more"):
            ex.map(ran.append, items(), **shape)
        assert ex.stats().queued_tasks == 0
        gate.set()
    assert ran == []


class Answering:
    """Has an attribute of any name, as proxies of remote objects have."""

    def __getattr__(self, name: str) -> object:
        return self

    def __call__(self, number: int) -> int:
        raise LookupError(number)


@pytest.mark.parametrize("fn", [int, functools.partial(int), "x".index, Answering()])
@pytest.mark.parametrize("method", ["map", "map_unordered"])
def test_a_chunk_has_the_name_a_single_call_has(method: str, fn: Callable[..., Any]) -> None:
    """Whatever it is that is called."""
    names = []
    with BoundedExecutor(1) as ex:
        for chunksize in (1, 2):
            with pytest.raises(TaskError) as caught:
                list(getattr(ex, method)(fn, ["y"], chunksize=chunksize))
            names.append(caught.value.task_name)
    assert names[0] == names[1]


def test_a_chunk_of_map_unordered_delivers_what_came_before_its_failure() -> None:
    """The results first, then the error, then the end."""
    with BoundedExecutor(1) as ex:
        results = ex.map_unordered(int, ["1", "2", "x", "4"], chunksize=4)
        assert [next(results), next(results)] == [1, 2]
        with pytest.raises(ValueError, match="invalid literal"):
            next(results)
        assert list(results) == []


@pytest.mark.parametrize("shape", [{}, {"chunksize": 3}, {"buffersize": 2}, {"chunksize": "auto"}])
@pytest.mark.parametrize("method", ["map", "map_unordered"])
def test_what_is_no_exception_comes_as_itself(ex: BoundedExecutor, method: str, shape: Any) -> None:
    """SystemExit in a call ends the iteration, not a worker."""

    def call(number: int) -> int:
        if number == 1:
            raise SystemExit(number)
        return number

    with pytest.raises(SystemExit) as caught:
        list(getattr(ex, method)(call, range(3), **shape))
    assert type(caught.value) is SystemExit
    assert list(ex.map(call, [2, 3])) == [2, 3]


@pytest.mark.parametrize("shape", [{}, {"chunksize": 2}, {"chunksize": "auto"}])
def test_no_iterables_no_calls(ex: BoundedExecutor, shape: Any) -> None:
    """As with the standard library's."""
    assert list(ex.map(int, **shape)) == []
    assert list(ex.map_unordered(int, **shape)) == []


@pytest.mark.parametrize("shape", [{}, {"chunksize": 3}, {"buffersize": 2}, {"chunksize": "auto"}])
@pytest.mark.parametrize("method", ["map", "map_unordered"])
def test_calls_see_the_context_of_the_caller(ex: BoundedExecutor, method: str, shape: Any) -> None:
    """In each of its tasks."""
    var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="none")
    var.set("mine")
    results = getattr(ex, method)(lambda _: var.get(), range(5), **shape)
    assert list(results) == ["mine"] * 5


@pytest.mark.parametrize("method", ["map", "map_unordered"])
def test_breaking_out_of_a_loop_cancels_the_rest(method: str, gate: threading.Event) -> None:
    """Without a word from the reader, when the iterator is dropped."""
    with BoundedExecutor(1) as ex:
        for result in getattr(ex, method)(lambda n: n and gate.wait(30), range(8), buffersize=6):
            assert result == 0
            break
        gc.collect()
        assert ex.stats().queued_tasks == 0
        gate.set()


def test_a_bool_is_a_number_of_seconds(ex: BoundedExecutor) -> None:
    """As for the standard class."""
    assert list(ex.map(int, ["1"], timeout=True)) == [1]
    assert ex.submit(int, "2").result(timeout=True) == 2


def test_a_timeout_counts_from_the_call(
    ex: BoundedExecutor, monkeypatch: pytest.MonkeyPatch, gate: threading.Event
) -> None:
    """Not from the first reading; what is there already is delivered even so."""
    now = [100.0]
    monkeypatch.setattr(_sync, "clock", lambda: now[0])
    results = ex.map(lambda n: n and gate.wait(30), [0, 1], timeout=10.0)
    assert next(results) == 0
    now[0] = 111.0
    with pytest.raises(FutureTimeoutError):
        next(results)
    monkeypatch.undo()
    gate.set()


def test_a_map_of_an_aging_pool() -> None:
    """Whose queue is of another kind: no bulk there, but the same order."""
    with BoundedExecutor(1, aging=0.1) as ex:
        assert list(ex.map(abs, range(-500, 0))) == list(range(500, 0, -1))


@pytest.mark.parametrize("shape", [{}, {"chunksize": 2}, {"buffersize": 3}, {"chunksize": "auto"}])
@pytest.mark.parametrize("method", ["map", "map_unordered"])
@pytest.mark.parametrize("how", ["in a subclass", "on the instance"])
def test_map_goes_through_a_submit_that_was_overridden(how: str, method: str, shape: Any) -> None:
    """As in the standard library; whatever kind of future it returns."""
    seen: list[object] = []

    def submit(self: BoundedExecutor, fn: Any, /, *args: Any) -> cf.Future[Any]:
        seen.append(fn)
        inner = BoundedExecutor.submit(self, fn, *args)
        outer: cf.Future[Any] = cf.Future()

        def copy(_: object) -> None:
            error = inner.exception()
            if error is not None:
                outer.set_exception(error)
            else:
                outer.set_result(inner.result())

        inner.add_done_callback(copy)
        return outer

    class Mine(BoundedExecutor):
        pass

    with Mine(2) as ex:
        if how == "in a subclass":
            Mine.submit = submit  # type: ignore[method-assign, assignment]
        else:
            ex.submit = functools.partial(submit, ex)  # type: ignore[method-assign]
        mapped = getattr(ex, method)
        assert sorted(mapped(abs, range(-5, 0), **shape)) == [1, 2, 3, 4, 5]
        assert seen == [abs] * 5
        with pytest.raises(ZeroDivisionError):
            list(mapped(lambda n: 1 / n, [1, 0, 1], **shape))
