"""map, map_unordered and amap with return_exceptions: an item that fails yields its error."""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import sys
import sysconfig
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent import futures as cf
from typing import Any

import pytest

from futurepool import BoundedExecutor, CancelToken, OnFull, QueueFullError, TaskError

SHAPES: list[dict[str, Any]] = [
    {},
    {"chunksize": 2},
    {"chunksize": 9},
    {"buffersize": 2},
    {"buffersize": 6, "chunksize": 3},
    {"timeout": 60},
    {"chunksize": "auto"},
    {"chunksize": "auto", "buffersize": 3},
]
METHODS = ["map", "map_unordered"]


@pytest.fixture
def ex() -> Iterator[BoundedExecutor]:
    with BoundedExecutor(2, queue_size=3) as ex:
        yield ex


def until_gone(ex: BoundedExecutor, seen: weakref.ref[Any]) -> None:
    """Give the workers time to let go of something they made; see the one in test_map."""
    for _ in range(2000):
        if seen() is None:
            return
        if bool(sysconfig.get_config_var("Py_GIL_DISABLED")):
            gc.collect()
            ex.submit(int).result(30)
        threading.Event().wait(0.005)


def odd(number: int) -> int:
    """The number, if it is odd."""
    if number % 2 == 0:
        raise ValueError(number)
    return number


def seen(results: list[Any]) -> list[Any]:
    """What came, an error as its argument alone, after it was looked at."""
    found: list[Any] = []
    for result in results:
        if isinstance(result, Exception):
            assert isinstance(result, ValueError)
            assert isinstance(result, TaskError)
            assert result.task_name == "odd"
            assert "in odd" in result.traceback
            found.append(str(result))
        else:
            found.append(result)
    return found


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("make", [list, iter])
def test_an_error_comes_in_its_place(ex: BoundedExecutor, shape: Any, make: Any) -> None:
    """And the others go on, however the calls travel."""
    expected = ["0", 1, "2", 3, "4", 5, "6"]
    assert seen(list(ex.map(odd, make(range(7)), return_exceptions=True, **shape))) == expected
    results = list(ex.map_unordered(odd, make(range(7)), return_exceptions=True, **shape))
    assert sorted(map(str, seen(results))) == list("0123456")
    two = list(ex.map(divmod, make([7, 8]), make([0, 3]), return_exceptions=True, **shape))
    assert isinstance(two[0], ZeroDivisionError)
    assert two[1] == (2, 2)


@pytest.mark.parametrize("ordered", [True, False])
def test_amap_does_the_same(ex: BoundedExecutor, ordered: bool) -> None:
    """As they finish, too."""

    async def main() -> list[Any]:
        results = ex.amap(odd, range(7), ordered=ordered, return_exceptions=True)
        return [result async for result in results]

    found = seen(asyncio.run(main()))
    assert (found if ordered else sorted(found, key=str)) == ["0", 1, "2", 3, "4", 5, "6"]


@pytest.mark.parametrize("chunksize", [1, 3, "auto"])
@pytest.mark.parametrize("method", METHODS)
def test_the_error_begins_where_the_task_does(
    ex: BoundedExecutor, method: str, chunksize: Any
) -> None:
    """No frame of this package, nor of the reader, is in its traceback."""
    errors = list(getattr(ex, method)(odd, [0, 2, 4], chunksize=chunksize, return_exceptions=True))
    for error in errors[1:]:  # the first of a chunk is the task's own
        names = []
        frames = error.__traceback__
        while frames is not None:
            names.append(frames.tb_frame.f_code.co_name)
            frames = frames.tb_next
        assert names == ["odd"]


@pytest.mark.parametrize(
    "shape", [{}, {"chunksize": 2}, {"buffersize": 9, "chunksize": 3}, {"chunksize": "auto"}]
)
@pytest.mark.parametrize("method", METHODS)
def test_a_cancelled_item_yields_its_cancellation(method: str, shape: Any) -> None:
    """One for each item, so that results and items can be put side by side."""
    token = CancelToken()

    def stop(number: int) -> int:
        token.cancel("enough")
        return number

    with BoundedExecutor(1) as ex:
        mapped = getattr(ex.options(token=token), method)
        found = list(mapped(stop, range(6), return_exceptions=True, **shape))
    done = max(1, shape.get("chunksize", 1) if shape.get("chunksize") != "auto" else 1)
    errors = [result for result in found if type(result) is cf.CancelledError]
    assert [result for result in found if result not in errors] == list(range(done))
    assert len(errors) == 6 - done
    assert all("enough" in str(error) for error in errors)


@pytest.mark.parametrize("ordered", [True, False])
def test_a_cancelled_item_of_amap(ordered: bool) -> None:
    """An Exception, as all that is yielded, which asyncio's own is not."""
    token = CancelToken()

    def stop(number: int) -> int:
        token.cancel()
        return number

    async def main() -> list[Any]:
        with BoundedExecutor(1) as ex:
            results = ex.options(token=token).amap(
                stop, range(4), buffersize=4, ordered=ordered, return_exceptions=True
            )
            return [result async for result in results]

    found = asyncio.run(main())
    assert 0 in found
    assert [type(each) for each in found if each != 0] == [cf.CancelledError] * 3


@pytest.mark.parametrize("method", METHODS)
def test_a_timeout_is_raised_all_the_same(
    ex: BoundedExecutor, method: str, gate: threading.Event
) -> None:
    """It is no item's. A TimeoutError that a task raises is."""
    results = getattr(ex, method)(
        lambda _: gate.wait(30), range(3), timeout=0.01, return_exceptions=True
    )
    with pytest.raises(cf.TimeoutError) as caught:
        list(results)
    assert not isinstance(caught.value, TaskError)
    gate.set()

    def late(_: int) -> None:
        raise cf.TimeoutError

    (error,) = getattr(ex, method)(late, [1], timeout=30, return_exceptions=True)
    assert isinstance(error, cf.TimeoutError)


@pytest.mark.parametrize("shape", [{}, {"chunksize": 3}, {"buffersize": 2}, {"chunksize": "auto"}])
@pytest.mark.parametrize("method", METHODS)
def test_what_is_no_exception_is_raised(ex: BoundedExecutor, method: str, shape: Any) -> None:
    """What came before it is delivered first, and it ends the iterator."""

    def call(number: int) -> int:
        if number == 2:
            raise SystemExit(number)
        return odd(number)

    results = getattr(ex, method)(call, range(3), return_exceptions=True, **shape)
    found = []
    with pytest.raises(SystemExit):
        for result in results:
            found.append(result)
    if method == "map":
        assert isinstance(found[0], ValueError)
        assert found[1:] == [1]
    assert list(results) == []

    async def main() -> None:
        async for _ in ex.amap(call, [2], return_exceptions=True):
            pass

    with pytest.raises(SystemExit):
        asyncio.run(main())


def test_a_refused_task_is_no_item_that_has_failed(gate: threading.Event) -> None:
    """What the pool refuses is raised, as ever; what it drops is yielded as cancelled."""
    with BoundedExecutor(1, queue_size=1) as ex:
        refusing = ex.options(on_full=OnFull.RAISE)
        with pytest.raises(QueueFullError):
            refusing.map(lambda _: gate.wait(30), range(9), return_exceptions=True)
        gate.set()
        assert ex.wait(30)
        gate.clear()
        dropping = ex.options(on_full=OnFull.DROP_NEW)
        results = dropping.map(lambda _: gate.wait(30), range(5), return_exceptions=True)
        gate.set()
        kinds = [type(result) for result in results]
    assert kinds[2:] == [cf.CancelledError] * 3


@pytest.mark.parametrize("shape", [{}, {"chunksize": 2}, {"buffersize": 3}, {"chunksize": "auto"}])
@pytest.mark.parametrize("method", METHODS)
def test_a_submit_that_was_overridden(method: str, shape: Any) -> None:
    """Whatever kind of future it returns: its own error is yielded, its cancellation too."""

    class Mine(BoundedExecutor):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            outer: cf.Future[Any] = cf.Future()
            if args == (4,):
                outer.cancel()
                outer.set_running_or_notify_cancel()
                return outer
            inner = super().submit(fn, *args, **kwargs)
            error = inner.exception()
            if error is None:
                outer.set_result(inner.result())
            else:
                outer.set_exception(error)
            return outer

    with Mine(2) as ex:
        found = list(getattr(ex, method)(odd, range(5), return_exceptions=True, **shape))
    assert sorted(map(str, found[:4])) == ["0", "1", "2", "3"]
    assert type(found[4]) is cf.CancelledError


@pytest.mark.parametrize(
    "shape", [{}, {"chunksize": 3}, {"buffersize": 4, "chunksize": 2}, {"chunksize": "auto"}]
)
def test_behind_another_executor(shape: Any) -> None:
    """A chunk's errors come back by what it returns."""
    with BoundedExecutor(engine=cf.ThreadPoolExecutor(2)) as ex:
        found = list(ex.map(odd, range(5), return_exceptions=True, **shape))
    assert seen(found) == ["0", 1, "2", 3, "4"]


class Awkward(Exception):
    """Pickles, and does not unpickle."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(one)
        self.two = two


def fail(number: int) -> int:
    """All but 1 in a way of their own."""
    if number == 0:
        raise Awkward(1, 2)
    if number == 2:
        raise ValueError(threading.Lock())
    if number == 3:
        raise LookupError(number)
    return number


@pytest.mark.slow
@pytest.mark.parametrize("chunksize", [1, 4])
def test_from_worker_processes(chunksize: int) -> None:
    """An error that does not travel takes nothing else with it."""
    with BoundedExecutor(engine=cf.ProcessPoolExecutor(1)) as ex:
        found: Any = list(ex.map(fail, range(4), chunksize=chunksize, return_exceptions=True))
    assert found[1] == 1
    assert [isinstance(error, TaskError) for error in found] == [True, False, True, True]
    assert isinstance(found[3], LookupError)
    assert "Awkward" in repr(found[0])
    assert "ValueError" in repr(found[2])
    assert "in fail" in found[3].traceback


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info < (3, 14), reason="pools of interpreters came with 3.14")
def test_from_interpreters() -> None:
    """The same there."""
    from concurrent.futures import InterpreterPoolExecutor

    with BoundedExecutor(engine=InterpreterPoolExecutor(1)) as ex:
        for chunksize in (1, 3):
            found: Any = list(ex.map(fail, range(4), chunksize=chunksize, return_exceptions=True))
            assert found[1] == 1
            assert isinstance(found[3], LookupError)


def test_a_chunk_whose_process_dies() -> None:
    """The error of the task, once for each of its calls."""

    class Broken(cf.Executor):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            future: cf.Future[Any] = cf.Future()
            future.set_exception(ConnectionError("gone"))
            return future

    with BoundedExecutor(1, engine=Broken()) as ex:
        found = list(ex.map(abs, range(5), chunksize=3, return_exceptions=True))
    assert [str(error) for error in found] == ["gone"] * 5


@pytest.mark.parametrize("chunksize", [1, 4])
def test_a_chunk_with_errors_counts_as_failed(chunksize: int) -> None:
    """Once, as ever; and the error_handler hears of it."""
    heard: list[str] = []
    with BoundedExecutor(1, error_handler=lambda error: heard.append(str(error))) as ex:
        list(ex.map(odd, range(4), chunksize=chunksize, return_exceptions=True))
    assert heard == ["0", "2"][: 3 - min(chunksize, 2)]
    assert ex.stats().failed_tasks == len(heard)


@pytest.mark.parametrize("shape", [{}, {"chunksize": 2}, {"buffersize": 2}, {"chunksize": "auto"}])
def test_what_was_yielded_is_not_logged(shape: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Somebody has seen it, whatever they did with it."""
    with caplog.at_level(logging.ERROR), BoundedExecutor(1) as ex:
        for method in METHODS:
            for _ in getattr(ex, method)(odd, range(4), return_exceptions=True, **shape):
                pass

        async def main() -> None:
            async for _ in ex.amap(odd, range(4), return_exceptions=True):
                pass

        asyncio.run(main())
        gc.collect()
    assert caplog.records == []


class Mark(Exception):
    """One that can be watched."""


@pytest.mark.parametrize(
    "shape", [{}, {"chunksize": 2}, {"buffersize": 2}, {"timeout": 30}, {"chunksize": "auto"}]
)
@pytest.mark.parametrize("method", [*METHODS, "amap"])
def test_an_error_keeps_nothing_alive(method: str, shape: Any) -> None:
    """Once it was read and dropped it is gone, with what its frames held; no gc run needed."""

    class Thing:
        pass

    things: list[weakref.ref[Thing]] = []

    def fail(number: int) -> None:
        thing = Thing()
        things.append(weakref.ref(thing))
        raise Mark(number)

    def read(ex: BoundedExecutor) -> None:
        for result in getattr(ex, method)(fail, range(4), return_exceptions=True, **shape):
            assert isinstance(result, Mark)

    async def aread(ex: BoundedExecutor) -> None:
        async for result in ex.amap(fail, range(4), return_exceptions=True):
            assert isinstance(result, Mark)

    gc.collect()
    gc.disable()
    try:
        with BoundedExecutor(1) as ex:
            if method == "amap":
                if shape:
                    return
                asyncio.run(aread(ex))
            else:
                read(ex)
            ex.submit(int, "x").exception()  # so that `last_error` is another one's
            for ref in things:
                until_gone(ex, ref)
            assert [ref() for ref in things] == [None] * 4
    finally:
        gc.enable()


@pytest.mark.parametrize("value", [1, None, "yes"])
def test_a_bad_value(ex: BoundedExecutor, value: Any) -> None:
    """At the call."""
    calls: list[Callable[..., Any]] = [ex.map, ex.map_unordered, ex.amap]
    for call in calls:
        with pytest.raises(TypeError, match=f"return_exceptions must be a bool, not {value!r}"):
            call(abs, [1], return_exceptions=value)


def test_a_view_and_a_partial_take_it(ex: BoundedExecutor) -> None:
    """As every other argument."""
    view = ex.options(priority=2)
    mapped = functools.partial(view.map, odd, return_exceptions=True)
    assert seen(list(mapped(range(3)))) == ["0", 1, "2"]
