"""`ThreadPoolExecutor.submit` replaced by tools that want to hear of each task."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable, Iterator
from concurrent import futures as cf
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import thread as module
from contextvars import Context, ContextVar
from types import FunctionType
from typing import Any

import pytest

from futurepool import BoundedExecutor, Future, OnFull, PoolClosedError, QueueFullError
from futurepool._foreign import patched
from tests import helpers
from tests.helpers import Way

Submit = Callable[..., Any]

VAR: ContextVar[object] = ContextVar("VAR")
local = threading.local()


class Tool:
    """Hands `local.span` from the submitter to the task; notes each submission it hears of."""

    def __init__(self) -> None:
        self.heard: list[tuple[object, str]] = []

    def wrap(self, original: Submit) -> Submit:
        @functools.wraps(original)
        def submit(pool: Any, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            span = getattr(local, "span", None)
            self.heard.append((pool, fn.__name__ if isinstance(fn, FunctionType) else "?"))

            def wrapped(*args: Any, **kwargs: Any) -> Any:
                before, local.span = getattr(local, "span", None), span
                try:
                    return fn(*args, **kwargs)
                finally:
                    local.span = before

            return original(pool, wrapped, *args, **kwargs)

        return submit


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> Iterator[Tool]:
    """Installed; gone again at the end, and the submitter without a span."""
    tool = Tool()
    with monkeypatch.context() as patch:
        patch.setattr(ThreadPoolExecutor, "submit", tool.wrap(ThreadPoolExecutor.submit))
        yield tool
    local.__dict__.clear()
    assert not patched.look()


def span_of(_: object = None) -> object:
    return getattr(local, "span", None)


WAYS: dict[str, Way] = {
    **helpers.WAYS,
    # Of one call: the tools are shown each, see below.
    "map in chunks": lambda pool, fn: next(pool.map(fn, [0], chunksize=2)),
    "submit_with_timeout": lambda pool, fn: pool.submit_with_timeout(30, fn, 0).result(30),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("variables", [0, 1])
def test_every_way_in_goes_through_the_tools(tool: Tool, way: Any, variables: int) -> None:
    """Whether the submitter has context variables or not; with the pool itself."""

    def test() -> None:
        if variables:
            VAR.set(1)
        local.span = "submitter's"
        with BoundedExecutor(1) as pool:
            assert way(pool, span_of) == "submitter's"
            assert [heard[0] for heard in tool.heard] == [pool]

    Context().run(test)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_tool_that_comes_when_the_pool_is_at_work(
    monkeypatch: pytest.MonkeyPatch, way: Any
) -> None:
    """And goes again."""
    tool = Tool()

    def test() -> None:
        VAR.set(1)
        local.span = "submitter's"
        with BoundedExecutor(1) as pool:
            assert way(pool, span_of) is None
            with monkeypatch.context() as patch:
                patch.setattr(ThreadPoolExecutor, "submit", tool.wrap(ThreadPoolExecutor.submit))
                assert way(pool, span_of) == "submitter's"
                assert [heard[0] for heard in tool.heard] == [pool]
            assert way(pool, span_of) is None
            assert len(tool.heard) == 1

    Context().run(test)
    local.__dict__.clear()


def test_a_worker_that_wakes_up_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So a submitter without variables is heard of, too, but for the first."""
    tool = Tool()

    def test() -> None:
        local.span = "submitter's"
        with BoundedExecutor(1) as pool:
            pool.submit(int).result(30)
            while not pool._pool.workers.parked:
                pass
            with monkeypatch.context() as patch:
                patch.setattr(ThreadPoolExecutor, "submit", tool.wrap(ThreadPoolExecutor.submit))
                pool.submit(int).result(30)
                assert pool.submit(span_of).result(30) == "submitter's"

    Context().run(test)
    local.__dict__.clear()


def test_a_tool_that_replaces_the_code() -> None:
    """In place: the method is the same object, with a note on it."""
    method: Any = ThreadPoolExecutor.submit
    code = method.__code__
    copy = FunctionType(code, method.__globals__)
    heard: list[object] = []
    module.tool = lambda *args, **kwargs: (heard.append(args[0]), copy(*args, **kwargs))[1]  # type: ignore[attr-defined]

    def stub(*args: Any, **kwargs: Any) -> Any:
        return tool(*args, **kwargs)  # in the other module

    try:
        method.__code__, method.note = stub.__code__, "mine"
        with BoundedExecutor(1) as pool:
            assert pool.submit(abs, -1).result(30) == 1
        assert heard == [pool]
    finally:
        method.__code__ = code
        del method.note, module.tool  # type: ignore[attr-defined]
    with BoundedExecutor(1) as pool:
        assert pool.submit(abs, -1).result(30) == 1
    assert len(heard) == 1


def test_what_the_submitter_gets_is_ours(tool: Tool) -> None:
    """A future of ours, with the name of the function, and the error that it raised."""

    def fail(text: str) -> None:
        raise KeyError(text)

    with BoundedExecutor(1) as pool:
        future = pool.submit(fail, "x")
        assert type(future) is Future
        assert future.name.endswith("fail")
        with pytest.raises(KeyError, match="'x'"):
            future.result(30)
        assert pool.submit(dict, fn=1, timeout=2).result(30) == {"fn": 1, "timeout": 2}


def test_options_hold(tool: Tool) -> None:
    gate = threading.Event()
    with BoundedExecutor(1, queue_size=1) as pool:
        pool.submit(gate.wait, 60)
        low = pool.submit_with_priority(1, span_of)
        with pytest.raises(QueueFullError):
            pool.try_submit(int)
        high = pool.options(on_full=OnFull.DROP_OLDEST, priority=9, name="high").submit(int)
        assert low.cancelled()
        assert (high.priority, high.name) == (9, "high")
        gate.set()
    with pytest.raises(PoolClosedError):
        pool.submit(int)


def test_who_blocks_blocks_no_other_pool(tool: Tool) -> None:
    """The standard submit takes a lock of all pools, and has let go of it by then."""
    gate = threading.Event()
    with BoundedExecutor(1, queue_size=0) as pool, ThreadPoolExecutor(1) as other:
        pool.submit(gate.wait, 60)
        blocked = threading.Thread(target=pool.submit, args=(int,))
        blocked.start()
        while not pool._pool.waiters.blocked:
            pass
        assert other.submit(int).result(30) == 0
        gate.set()
        blocked.join(30)


def test_a_tool_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pool: Any, fn: Any, /, *args: Any) -> Any:
        raise PermissionError(fn)

    with BoundedExecutor(1) as pool:
        monkeypatch.setattr(ThreadPoolExecutor, "submit", refuse)
        patched.look()
        with pytest.raises(PermissionError):
            pool.submit(int)
        assert pool.stats().submitted_tasks == 0
        monkeypatch.undo()
        patched.look()


def test_a_tool_that_runs_it_on_the_spot(monkeypatch: pytest.MonkeyPatch) -> None:
    """As some tests have it: what it returns is what the submitter gets, and results are right."""

    def at_once(pool: Any, fn: Any, /, *args: Any) -> Any:
        future: cf.Future[Any] = cf.Future()
        future.set_result((threading.current_thread(), fn(*args)))
        return future

    monkeypatch.setattr(ThreadPoolExecutor, "submit", at_once)
    here = threading.current_thread()
    with BoundedExecutor(1) as pool:
        future = pool.submit(abs, -1)
        assert future.done()
        assert future.result() == (here, 1)
        assert list(pool.map(abs, [-1, 2])) == [(here, 1), (here, 2)]
        assert list(pool.map_unordered(abs, [-1])) == [(here, 1)]
        assert pool.try_submit(abs, -1).result(30) == (here, 1)
        ours = pool.submit_with_priority(2, abs, -1)
        assert (type(ours), ours.result(30)) == (Future, (here, 1))
        assert asyncio.run(pool.arun(abs, -1)) == (here, 1)
    monkeypatch.undo()
    patched.look()


def test_a_tool_that_watches_the_future(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a callback, or by a future of its own."""
    told: list[object] = []
    original: Any = ThreadPoolExecutor.submit

    def submit(pool: Any, fn: Any, /, *args: Any) -> Any:
        inner = original(pool, fn, *args)
        inner.add_done_callback(lambda done: told.append(done.result()))
        if fn is not abs:
            return inner
        outer: cf.Future[str] = cf.Future()
        inner.add_done_callback(lambda done: outer.set_result(f"{done.result()}!"))
        return outer

    monkeypatch.setattr(ThreadPoolExecutor, "submit", submit)
    with BoundedExecutor(1) as pool:
        assert pool.submit(int).result(30) == 0
        pool.submit(abs, -1)
    assert told == [0, 1]
    monkeypatch.undo()
    patched.look()


def test_a_tool_that_submits_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it submits to the pool does not go through it."""
    original: Any = ThreadPoolExecutor.submit
    sent: list[Any] = []

    def submit(pool: Any, fn: Any, /, *args: Any) -> Any:
        sent.append(pool.submit(len, "its own"))
        return original(pool, fn, *args)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", submit)
    with BoundedExecutor(1) as pool:
        assert pool.submit(abs, -1).result(30) == 1
        assert [future.result(30) for future in sent] == [7]
    monkeypatch.undo()
    patched.look()


@pytest.mark.parametrize("shape", [{"chunksize": 2}, {"chunksize": 2, "buffersize": 2}], ids=str)
def test_a_tool_sees_each_call_of_a_map(monkeypatch: pytest.MonkeyPatch, shape: Any) -> None:
    """Chunks or not: it may look at the function, or change the result."""
    original: Any = ThreadPoolExecutor.submit

    def submit(pool: Any, fn: Any, /, *args: Any) -> Any:
        return original(pool, lambda: (fn is abs, fn(*args)))

    monkeypatch.setattr(ThreadPoolExecutor, "submit", submit)
    with BoundedExecutor(1) as pool:
        assert list(pool.map(abs, [-1, -2, -3], **shape)) == [(True, 1), (True, 2), (True, 3)]
    monkeypatch.undo()
    patched.look()


@pytest.mark.slow
def test_a_finalizer_in_the_middle_of_another_pools_submit(tool: Tool) -> None:
    """Which holds the lock that the original takes: the task gets in without the tool."""
    with BoundedExecutor(1) as pool, module._global_shutdown_lock:
        assert pool.submit(abs, -1).result(30) == 1
    assert tool.heard == []


def test_tasks_for_other_executors_go_as_they_are(tool: Tool) -> None:
    """What a tool wraps around them may not be possible to pickle."""

    class Engine(cf.Executor):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            future: cf.Future[Any] = cf.Future()
            future.set_result((fn, args, kwargs))
            return future

    with BoundedExecutor(1, engine=Engine()) as pool:
        assert pool.submit(abs, -1).result(30) == (abs, (-1,), {})
    assert tool.heard == []


def test_the_name_of_the_class_may_be_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """`concurrent.futures.ThreadPoolExecutor = BoundedExecutor` patches no method: nothing runs twice."""
    monkeypatch.setattr(cf, "ThreadPoolExecutor", BoundedExecutor)
    VAR.set(1)  # with variables a submitter looks
    with BoundedExecutor(1) as pool:
        assert not patched.look()
        assert list(pool.map(abs, [-1, -2])) == [1, 2]
        assert pool.submit(abs, -3).result() == 3
    assert pool.stats().submitted_tasks == 3
