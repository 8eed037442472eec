"""What a task raises: how it comes back, who hears of it, and what it cannot break."""

from __future__ import annotations

import gc
import logging
import pickle
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ALL_COMPLETED, as_completed, wait
from typing import Any

import pytest

from futurepool import BoundedExecutor, Future, TaskError


@pytest.fixture
def ex() -> Iterator[BoundedExecutor]:
    with BoundedExecutor(1, error_handler=id) as ex:
        yield ex


class Custom(Exception):
    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code


class Hostile(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no str")

    __repr__ = __str__

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no eq")

    def __hash__(self) -> int:
        raise RuntimeError("no hash")

    def __setattr__(self, name: str, value: object) -> None:
        raise RuntimeError("no setattr")

    def __init_subclass__(cls) -> None:
        raise RuntimeError("no subclass")


ERRORS: list[Exception] = [
    ValueError("v"),
    KeyError("k"),
    OSError(2, "gone", "file"),
    StopIteration(3),
    MemoryError(),
    RecursionError("deep"),
    UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"),
    subprocess.CalledProcessError(3, ["cmd"]),
    Custom(code=7),
    Hostile("h"),
]


def fail(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_both_types_catch_it(ex: BoundedExecutor, error: Exception) -> None:
    """The error is a TaskError and an E, with E's attributes and args, and knows its task."""
    future = ex.options(name="job").submit(fail, error)
    caught = future.exception(30)
    assert isinstance(caught, TaskError)
    assert isinstance(caught, type(error))
    assert caught.cause is error
    assert caught.__cause__ is error
    assert caught.args == error.args
    assert (caught.task_id, caught.name) == (1, "job")
    assert "raise error" in caught.traceback
    with pytest.raises(TaskError):
        future.result()
    assert ex.submit(int).result() == 0


def test_attributes_of_the_original() -> None:
    """Answered as if it were the original."""
    with BoundedExecutor(1) as ex:
        error: Any = ex.submit(fail, OSError(2, "gone", "file")).exception()
        assert (error.errno, error.filename) == (2, "file")
        assert isinstance(error, FileNotFoundError)
        custom: Any = ex.submit(fail, Custom(code=7)).exception()
        assert custom.code == 7


def test_pickling_what_result_raises() -> None:
    """Types, data and text survive."""
    with BoundedExecutor(1) as ex:
        error = ex.submit(fail, OSError(2, "gone")).exception()
    assert isinstance(error, TaskError)
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, TaskError)
    assert isinstance(copy, FileNotFoundError)
    assert (copy.task_id, copy.errno) == (error.task_id, 2)
    assert copy.traceback == error.traceback


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_a_base_exception_is_raised_as_itself(kind: type[BaseException]) -> None:
    """It ends that task only; the worker goes on."""
    with BoundedExecutor(1) as ex:
        raised = kind("x")
        future = ex.submit(fail, raised)
        with pytest.raises(kind) as caught:
            future.result(30)
        assert caught.value is raised
        assert ex.submit(int).result(30) == 0
        assert ex.stats().failed_tasks == 1
        assert len(ex._threads) == 1


def test_reading_a_failure_does_not_lengthen_its_traceback(ex: BoundedExecutor) -> None:
    """However often, and from several threads."""

    def length(error: BaseException) -> int:
        count, traceback = 0, error.__traceback__
        while traceback is not None:
            count, traceback = count + 1, traceback.tb_next
        return count

    for error in (ValueError("x"), SystemExit("x")):
        future = ex.submit(fail, error)
        lengths = set()
        for _ in range(1000):
            try:
                future.result()
            except BaseException as raised:
                lengths.add(length(raised))
        assert len(lengths) == 1


def test_the_handler_hears_of_each_failure_once() -> None:
    """In the worker, with the TaskError; what it raises is logged and changes nothing."""
    heard: list[tuple[TaskError, str]] = []

    def handler(error: TaskError) -> None:
        heard.append((error, threading.current_thread().name))
        raise SystemExit

    with BoundedExecutor(1, "w", error_handler=handler) as ex:
        futures = [ex.submit(int, "x"), ex.submit(int, "1"), ex.submit(int, "y")]
        wait(futures)
    assert [error.task_id for error, _ in heard] == [1, 3]
    assert {name for _, name in heard} == {"w_0"}


def test_a_failing_handler_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """On the package's logger."""

    def handler(_error: TaskError) -> None:
        raise LookupError("handler")

    with BoundedExecutor(1, error_handler=handler) as ex:
        ex.submit(int, "x")
    assert [record.name for record in caplog.records] == ["futurepool"]
    assert "error_handler" in caplog.text
    assert "LookupError: handler" in caplog.text


def test_a_failure_nobody_looks_at_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Fire and forget never fails silently."""
    with BoundedExecutor(1) as ex:
        ex.options(name="forgotten").submit(int, "x")
    gc.collect()
    (record,) = [record for record in caplog.records if record.name == "futurepool"]
    assert record.levelno == logging.ERROR
    assert "never retrieved" in caplog.text
    assert "forgotten" in caplog.text
    assert "invalid literal" in caplog.text


def _by_result(future: Future[Any]) -> None:
    with pytest.raises(ValueError, match="invalid"):
        future.result(30)


def _by_exception(future: Future[Any]) -> None:
    assert future.exception(30) is not None


def _by_as_completed(future: Future[Any]) -> None:
    for done in as_completed([future], 30):
        assert done.exception() is not None


def _by_callback(future: Future[Any]) -> None:
    seen = threading.Event()
    future.add_done_callback(lambda done: (done.exception(), seen.set()))
    assert seen.wait(30)


@pytest.mark.parametrize("look", [_by_result, _by_exception, _by_as_completed, _by_callback])
def test_a_failure_somebody_looked_at_is_not_logged(
    look: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Whichever way."""
    with BoundedExecutor(1) as ex:
        look(ex.submit(int, "x"))
    gc.collect()
    assert caplog.records == []


def test_a_task_that_obeys_its_token_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """raise_if_cancelled is how a task ends early, not a mistake."""
    from futurepool import CancelToken, current_token

    token = CancelToken()
    started = threading.Event()

    def task() -> None:
        started.set()
        current_token().wait(30)
        current_token().raise_if_cancelled()

    with BoundedExecutor(1) as ex:
        ex.submit_with_token(token, task)
        assert started.wait(30)
        token.cancel()
    gc.collect()
    assert caplog.records == []


WAITS: dict[str, Any] = {
    "result": lambda future: future.result(),
    "exception": lambda future: future.exception() or future.result(),
    "wait": lambda future: [f.result() for f in wait([future], return_when=ALL_COMPLETED).done][0],
    "as_completed": lambda future: [f.result() for f in as_completed([future])][0],
}


@pytest.mark.parametrize("how", WAITS)
def test_a_worker_that_waits_for_its_own_pool_helps(ex: BoundedExecutor, how: str) -> None:
    """The example of the CPython documentation that never completes there, completes here."""

    def outer() -> tuple[int, bool]:
        inner = ex.submit(threading.get_ident)
        return WAITS[how](inner), inner.done()

    assert ex.submit(lambda: (outer(), threading.get_ident())).result(30)[0][1]


def test_helping_deeper_than_the_stack_allows(ex: BoundedExecutor) -> None:
    """Past a depth of 64 the task runs in a thread of its own."""

    def nested(depth: int) -> int:
        return depth if depth == 0 else 1 + ex.submit(nested, depth - 1).result()

    assert ex.submit(nested, 150).result(30) == 150


def test_a_callback_that_waits_helps_too(ex: BoundedExecutor) -> None:
    """It runs in the worker, which nobody else could replace."""
    seen: list[int] = []
    ex.submit(int).add_done_callback(lambda _: seen.append(ex.submit(int, "5").result()))
    assert ex.wait(30)
    ex.shutdown()
    assert seen == [5]


def test_polling_does_not_help(ex: BoundedExecutor) -> None:
    """result(0) in a worker asks, and does not run anything."""

    def outer() -> str:
        inner = ex.submit(int)
        try:
            inner.result(0)
        except TimeoutError:
            return "not yet"
        except Exception as error:
            return type(error).__name__
        return "ran"

    assert ex.submit(outer).result(30) in {"not yet", "TimeoutError"}
