"""What a task raises: how it comes back, who hears of it, and what it cannot break."""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import pickle
import subprocess
import sys
import sysconfig
import textwrap
import threading
import traceback
import types
from collections.abc import Iterator
from concurrent.futures import (
    ALL_COMPLETED,
    FIRST_COMPLETED,
    CancelledError,
    InvalidStateError,
    as_completed,
    wait,
)
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any

import pytest

import futurepool
from futurepool import BoundedExecutor, Future, OnFull, TaskError, _logs
from futurepool._errors import failures
from futurepool._future import name_of
from futurepool._pool import completion
from tests.helpers import hold
from tests.programs import python


@pytest.fixture
def ex() -> Iterator[BoundedExecutor]:
    with BoundedExecutor(1, error_handler=id) as ex:
        yield ex


def settle() -> None:
    """Let all garbage go, and all that is to be logged be."""
    gc.collect()
    _logs.desk.settle()


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
    assert caught.__cause__ is None
    assert caught.args == error.args
    assert caught == error or isinstance(error, Hostile)
    assert (caught.task_id, caught.task_name) == (1, "job")
    assert future.task_error is caught
    assert "raise error" in caught.traceback
    with pytest.raises(TaskError):
        future.result()
    assert ex.submit(int).result() == 0


@pytest.mark.parametrize("alone", [False, True])
def test_who_reads_at_the_same_time_gets_the_same_object(
    alone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with the standard class, though each has made one; and another one when nobody has it any more."""
    with BoundedExecutor(1) as ex:
        future = ex.submit(fail, LookupError(1))
    make, together = failures._make_dual, threading.Barrier(3)

    def made(failure: failures.Failure) -> TaskError | None:
        together.wait(30)
        error = None if alone else make(failure)
        together.wait(30)
        return error

    def read() -> None:
        read_there.append(future.task_error)

    for _ in range(2):
        gc.collect()
        read_there: list[TaskError | None] = []
        monkeypatch.setattr(failures, "_make_dual", made)
        threads = [threading.Thread(target=read) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        monkeypatch.setattr(failures, "_make_dual", make)
        assert read_there == [future.task_error] * 3
        assert isinstance(read_there[0], TaskError)
        assert len(set(map(id, read_there))) == 1


class SoleMeta(type):
    def mro(cls) -> Any:
        if len(cls.__bases__) > 1:
            raise TypeError("there is no other class like it")
        return super().mro()


class Sole(Exception, metaclass=SoleMeta):
    """As pydantic's ValidationError: no class can be derived from it and another."""


def test_what_can_be_no_task_error_is_raised_itself(ex: BoundedExecutor) -> None:
    """`except E` always catches; the TaskError stands beside it."""
    error = Sole("alone")
    future = ex.options(name="job").submit(fail, error)
    with pytest.raises(Sole) as caught:
        future.result(30)
    assert caught.value is error
    assert future.exception() is error
    alone = future.task_error
    assert type(alone) is TaskError
    assert alone is future.task_error
    assert alone.__cause__ is alone.cause is error
    assert (alone.task_id, alone.task_name, str(alone)) == (1, "job", "alone")
    if sys.version_info >= (3, 11):
        assert error.__notes__ == ["task 1 (job)"]
    for chunksize in (1, 2):
        with pytest.raises(Sole):
            list(ex.map(fail, [error], chunksize=chunksize))
        with pytest.raises(Sole):
            list(ex.map(fail, [error], chunksize=chunksize, buffersize=4))
        with pytest.raises(Sole):
            list(ex.map_unordered(fail, [error], chunksize=chunksize))


def test_there_is_no_task_error_without_a_failure(ex: BoundedExecutor) -> None:
    """None while the task has not failed, and then for good; nobody waits for it."""
    gate = threading.Event()
    running = ex.submit(gate.wait, 30)
    queued = ex.submit(int)
    assert (running.task_error, queued.task_error) == (None, None)
    assert queued.cancel()
    gate.set()
    assert running.result(30)
    assert (running.task_error, queued.task_error) == (None, None)
    detached: Future[int] = Future()
    assert detached.task_error is None
    detached.set_exception(KeyError("k"))
    assert isinstance(detached.task_error, TaskError)
    assert isinstance(detached.exception(), KeyError)


def test_a_printed_traceback_begins_with_the_task_and_names_it_once(ex: BoundedExecutor) -> None:
    """Whatever way it was read, and however often; the last frame is the one that raised."""
    future = ex.options(name="job").submit(fail, ValueError("bad"))
    error = future.exception(30)
    assert error is not None
    frames = traceback.extract_tb(error.__traceback__)
    assert [frame.name for frame in frames] == ["fail"]
    for _ in range(3):
        with pytest.raises(ValueError, match="^bad") as caught:
            future.result()
        assert str(caught.value) == "bad"
        text = "".join(traceback.format_exception(caught.value))
        assert text.count("ValueError: bad") == 1
        assert text.count("job") == (sys.version_info >= (3, 11))
        assert traceback.extract_tb(caught.value.__traceback__)[-1].name == "fail"


def test_attributes_of_the_original() -> None:
    """Answered as if it were the original."""
    with BoundedExecutor(1) as ex:
        error: Any = ex.submit(fail, OSError(2, "gone", "file")).exception()
        assert (error.errno, error.filename) == (2, "file")
        assert isinstance(error, FileNotFoundError)
        custom: Any = ex.submit(fail, Custom(code=7)).exception()
        assert custom.code == 7


def test_what_is_copied_past_all_attributes() -> None:
    """The fields of builtin errors, and never the class: that would be refused, after all threads were stopped."""
    for kind in (ValueError, KeyError, TaskError, type("Own", (Exception,), {})):
        recipe = failures.recipe_for(kind)
        assert recipe is None or recipe.fields == []
    recipe = failures.recipe_for(UnicodeDecodeError)
    assert recipe is not None
    names = [get.__self__.__name__ for get, _ in recipe.fields]
    assert sorted(names) == ["encoding", "end", "object", "reason", "start"]


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
    settle()
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
    settle()
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
    settle()
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
    ended = threading.Event()

    def wait(_: object) -> None:
        seen.append(ex.submit(int, "5").result())
        ended.set()

    ex.submit(int).add_done_callback(wait)
    assert ended.wait(30)
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


# -- whatever it is, it ends that task only -------------------------------------------------------


class Cancel(BaseException):
    """No Exception, and none of the interpreter's own."""


class Slotted(LookupError):
    __slots__ = ("code",)

    def __init__(self, code: int) -> None:
        self.code = code


class LyingClass(Exception):
    @property
    def __class__(self) -> Any:  # type: ignore[override]
        raise SystemExit("no class")


class Closed(Exception):
    """Answers nothing at all."""

    def __getattribute__(self, name: str) -> Any:
        raise SystemExit("no attributes")


class ExitsWhenShown(Exception):
    def __str__(self) -> str:
        raise SystemExit("no str")

    __repr__ = __str__


class RefusingMeta(type):
    def __instancecheck__(cls, instance: object) -> bool:
        raise SystemExit("no isinstance")

    def mro(cls) -> Any:
        if len(cls.__bases__) > 1:
            raise SystemExit("no subclasses")
        return super().mro()


class Refusing(Exception, metaclass=RefusingMeta):
    pass


# pytest looks at parameters, and these do not like that.
HOSTILE: dict[str, Any] = {
    "Slotted": lambda: Slotted(3),
    "LyingClass": LyingClass,
    "Closed": Closed,
    "ExitsWhenShown": ExitsWhenShown,
    "Refusing": Refusing,
    "Hostile": lambda: Hostile("h"),
    "Cancel": Cancel,
}


def raised_by(call: Any) -> BaseException | None:
    try:
        call()
    except BaseException as error:
        return error
    return None


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("handled", [True, False])
def test_the_worker_survives_hostile_errors(
    name: str, handled: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Also when the handler or the log shows them; every count is right, the same worker goes on."""
    heard: list[str] = []

    def handler(failure: TaskError) -> None:
        heard.append(f"{failure} {failure!r} {failure.traceback}")

    error = HOSTILE[name]()
    with BoundedExecutor(1, error_handler=handler if handled else None) as ex:
        worker = ex.submit(threading.get_ident).result(30)
        future = ex.submit(fail, error)
        ex.submit(fail, error)  # nobody looks at this one
        caught: Any = future.exception(30)
        task_error: Any = future.task_error
        if name in ("Cancel", "Refusing"):  # of which there can be no TaskError
            assert caught is error
            assert task_error.__cause__ is error
        else:
            assert issubclass(type(caught), TaskError)
            assert caught is task_error
        assert TaskError.cause.__get__(task_error) is error
        assert repr(future)
        assert raised_by(future.result) is caught
        assert ex.submit(threading.get_ident).result(30) == worker
        stats = ex.stats()
        assert (stats.completed_tasks, stats.failed_tasks) == (4, 2)
    del future, caught, error
    settle()
    if handled:
        assert [record.name for record in caplog.records] == []
        assert name == "Cancel" or len(heard) == 2
    else:
        assert [record.name for record in caplog.records] == ["futurepool"]


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, Cancel])
def test_a_base_exception_nobody_looks_at_is_logged(
    kind: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    """Fire and forget never fails silently, whatever the failure."""
    with BoundedExecutor(1) as ex:
        ex.options(name="forgotten").submit(fail, kind("lost"))
    settle()
    assert [record.name for record in caplog.records] == ["futurepool"]
    assert "forgotten" in caplog.text
    assert "lost" in caplog.text


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, Cancel])
def test_a_base_exception_somebody_looked_at_is_not_logged(
    kind: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    """As with any failure."""
    with BoundedExecutor(1) as ex:
        with pytest.raises(kind):
            ex.submit(fail, kind()).result(30)
        assert isinstance(ex.submit(fail, kind()).exception(30), kind)
    settle()
    assert caplog.records == []


def test_a_cancelled_task_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing failed."""
    gate = threading.Event()
    with BoundedExecutor(1) as ex:
        ex.submit(gate.wait, 30)
        ex.submit(int, "x").cancel()
        gate.set()
    settle()
    assert caplog.records == []


def test_a_failure_that_is_kept_is_not_logged_yet(caplog: pytest.LogCaptureFixture) -> None:
    """Only once nobody can look at it any more; showing the future is not looking."""
    with BoundedExecutor(1) as ex:
        future = ex.submit(int, "x")
        assert ex.wait(30)
    settle()
    assert caplog.records == []
    assert "ValueError" in repr(future)
    assert future.done()
    del future
    settle()
    assert len(caplog.records) == 1
    assert caplog.records[0].exc_info is not None
    assert caplog.records[0].exc_info[0] is ValueError


def test_await_and_map_look_at_the_failure(caplog: pytest.LogCaptureFixture) -> None:
    """And so does run_in_executor."""

    async def main(ex: BoundedExecutor) -> None:
        with pytest.raises(ValueError, match="invalid"):
            await ex.submit(int, "x")
        with pytest.raises(ValueError, match="invalid"):
            await asyncio.get_running_loop().run_in_executor(ex, int, "x")

    with BoundedExecutor(1) as ex:
        asyncio.run(main(ex))
        with pytest.raises(ValueError, match="invalid"):
            list(ex.map(int, ["x"]))
        with pytest.raises(ValueError, match="invalid"):
            list(ex.map_unordered(int, ["x"]))
    settle()
    assert caplog.records == []


def test_each_of_many_forgotten_failures_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """By its own id, each once."""
    with BoundedExecutor(4) as ex:
        futures = [ex.submit(int, "x") for _ in range(50)]
    while futures:
        futures.pop()  # one by one: a logger may drop what comes while it is logging
    settle()
    text = [record.getMessage() for record in caplog.records]
    assert sum("never retrieved" in line for line in text) == 50
    assert len(set(text)) == 50


def test_the_handler_hears_of_base_exceptions_too() -> None:
    """Once for each failed task, whatever it raised; as an error that stands alone, unless it can be both."""
    heard: list[TaskError] = []
    with BoundedExecutor(1, error_handler=heard.append) as ex:
        errors = [SystemExit(1), KeyboardInterrupt(), ValueError()]
        for error in errors:
            ex.submit(fail, error)
    assert [error.cause for error in heard] == errors
    assert [type(error) for error in heard if not isinstance(error, TaskError)] == []


def test_the_handler_may_use_the_pool() -> None:
    """It may submit, wait for that, and shut the pool down, in the only worker."""
    results: list[int] = []
    done = threading.Event()

    def handler(error: TaskError) -> None:
        results.append(ex.submit(int, "7").result())
        ex.shutdown()
        done.set()

    ex = BoundedExecutor(1, error_handler=handler)
    ex.submit(int, "x")
    assert done.wait(30)
    ex.shutdown()
    assert results == [7]


def test_the_handler_hears_of_helped_and_inline_tasks(ex: BoundedExecutor) -> None:
    """Wherever a task is run, its failure is told once."""
    heard: list[int] = []
    with BoundedExecutor(
        1,
        queue_size=0,
        on_full=OnFull.CALLER_RUNS,
        error_handler=lambda error: heard.append(error.task_id),
    ) as pool:
        gate = threading.Event()
        first = pool.submit(gate.wait, 30)
        inline = pool.submit(int, "x")
        assert inline.done()
        gate.set()
        assert first.result(30)

        def outer() -> None:
            assert isinstance(pool.options().submit(int, "y").exception(), ValueError)

        pool.submit(outer).result(30)
    assert len(heard) == len(set(heard)) == 2


@pytest.mark.parametrize("chunksize", [1, 2])
@pytest.mark.parametrize("method", ["map", "lazy", "map_unordered"])
def test_stop_iteration_does_not_pass_for_the_end(
    ex: BoundedExecutor, method: str, chunksize: int
) -> None:
    """A call that raises StopIteration is a failure, not the end of the results."""

    def call(n: int) -> int:
        if n == 1:
            raise StopIteration
        return n

    options: dict[str, Any] = {"chunksize": chunksize}
    if method == "lazy":
        options["buffersize"] = 4
    run = ex.map_unordered if method == "map_unordered" else ex.map
    with pytest.raises((StopIteration, RuntimeError)):
        list(run(call, range(4), **options))
    assert ex.stats().failed_tasks == 1


def test_awaiting_a_stop_iteration_raises(ex: BoundedExecutor) -> None:
    """It must not pass for a result."""

    async def main() -> None:
        with pytest.raises((RuntimeError, StopIteration, TaskError)):
            await ex.submit(fail, StopIteration(5))

    asyncio.run(main())


class OwnStop(StopIteration):
    """What ends a generator, too."""


@pytest.mark.parametrize("kind", [StopIteration, OwnStop])
@pytest.mark.parametrize("how", ["run_in_executor", "to_thread", "arun", "await", "wrap_future"])
def test_stop_iteration_does_not_end_who_awaits_it(
    ex: BoundedExecutor, how: str, kind: type[Exception]
) -> None:
    """A RuntimeError, as from a coroutine; the standard class hangs until Python 3.12."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ex)
        ways: dict[str, Any] = {
            "run_in_executor": lambda: loop.run_in_executor(ex, fail, kind(5)),
            "to_thread": lambda: asyncio.to_thread(fail, kind(5)),
            "arun": lambda: ex.arun(fail, kind(5)),
            "await": lambda: ex.submit(fail, kind(5)),
            "wrap_future": lambda: asyncio.wrap_future(ex.submit(fail, kind(5))),
        }
        with pytest.raises(RuntimeError, match="StopIteration") as caught:
            await ways[how]()
        assert isinstance(caught.value.__cause__, kind)
        assert isinstance(caught.value.__cause__, TaskError)

    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (CancelledError("mine"), asyncio.CancelledError),
        (InvalidStateError("mine"), asyncio.InvalidStateError),
        (FutureTimeout("mine"), asyncio.TimeoutError),
    ],
    ids=lambda each: getattr(each, "__name__", type(each).__name__),
)
def test_asyncio_puts_its_own_class_in_place_of_that_of_futures(
    ex: BoundedExecutor, raised: Exception, expected: type[BaseException]
) -> None:
    """As it does with the standard class, whose error is of the very type it asks for."""

    async def main() -> None:
        with pytest.raises(expected, match="^mine"):
            await asyncio.get_running_loop().run_in_executor(ex, fail, raised)

    asyncio.run(main())


def cancelled_text(future: Future[Any]) -> str:
    with pytest.raises(CancelledError) as caught:
        future.result(0)
    return str(caught.value)


def test_a_cancelled_error_says_which_task_and_why() -> None:
    """For each of those who may cancel it."""
    gate = threading.Event()
    texts: list[str] = []
    for policy in (OnFull.DROP_NEW, OnFull.DROP_OLDEST):
        with BoundedExecutor(1, queue_size=1, on_full=policy) as pool:
            gate.clear()
            hold(pool, gate)
            first, second = (pool.options(name="job").submit(int) for _ in range(2))
            texts.append(cancelled_text(second if policy is OnFull.DROP_NEW else first))
            gate.set()
    with BoundedExecutor(1) as pool:
        gate.clear()
        hold(pool, gate)
        token = futurepool.CancelToken()
        under = pool.options(name="job", token=token)
        queued = under.submit(int)
        token.cancel("enough")
        mine, other = (pool.options(name="job").submit(int) for _ in range(2))
        assert mine.cancel()
        pool.shutdown(wait=False, cancel_futures=True)
        assert mine.cancel()
        assert other.cancel()
        texts += [cancelled_text(future) for future in (queued, mine, other)]
        gate.set()
    assert texts == [
        "a task (job) was cancelled: the queue was full (OnFull.DROP_NEW)",
        "task 2 (job) was cancelled: it was dropped for a newer one (OnFull.DROP_OLDEST)",
        "task 2 (job) was cancelled: its token was cancelled: enough",
        "task 3 (job) was cancelled: its future was cancelled",
        "task 4 (job) was cancelled: its pool was shut down",
    ]


@pytest.mark.parametrize("how", ["arun", "await"])
def test_a_cancelled_await_says_why(how: str) -> None:
    """The task was cancelled, not who awaits it."""
    gate = threading.Event()

    async def main(pool: BoundedExecutor) -> None:
        token = futurepool.CancelToken()
        view = pool.options(name="job", token=token)
        if how == "arun":
            asyncio.get_running_loop().call_soon(token.cancel, "enough")
            with pytest.raises(asyncio.CancelledError, match="token was cancelled: enough"):
                await view.arun(int)
        else:
            future = view.submit(int)
            token.cancel("enough")
            with pytest.raises(asyncio.CancelledError, match="token was cancelled: enough"):
                await future
        gate.set()

    with BoundedExecutor(1) as pool:
        pool.submit(gate.wait, 30)
        asyncio.run(main(pool))


def test_concurrent_failures_of_a_new_type() -> None:
    """Four workers fail with the same brand-new class at once; every error is both."""
    for _ in range(20):
        kind = type("Fresh", (ValueError,), {})
        barrier = threading.Barrier(4)

        def task(kind: Any = kind, barrier: Any = barrier) -> None:
            barrier.wait(30)
            raise kind("x")

        with BoundedExecutor(4) as pool:
            futures = [pool.submit(task) for _ in range(4)]
            for future in futures:
                error = future.exception(30)
                assert isinstance(error, kind)
                assert isinstance(error, TaskError)


def test_the_same_object_raised_twice(ex: BoundedExecutor) -> None:
    """Each future has an error of its own over the one cause."""
    error = ValueError("x")
    first, second = ex.submit(fail, error), ex.submit(fail, error)
    a, b = first.exception(30), second.exception(30)
    assert isinstance(a, TaskError)
    assert isinstance(b, TaskError)
    assert a is not b
    assert a.cause is b.cause is error
    assert (a.task_id, b.task_id) == (1, 2)


def test_exception_answers_with_the_same_object(ex: BoundedExecutor) -> None:
    """result() raises the very object that exception() returns, every time."""
    future = ex.submit(int, "x")
    error = future.exception(30)
    for _ in range(3):
        assert future.exception() is error
        with pytest.raises(ValueError, match="invalid") as caught:
            future.result()
        assert caught.value is error


@pytest.mark.parametrize("kind", [CancelledError, TimeoutError, InvalidStateError])
def test_a_task_may_raise_what_futures_raise(ex: BoundedExecutor, kind: type[Exception]) -> None:
    """Its future has failed, not been cancelled; only the text tells it from a timeout of ours."""
    future = ex.submit(fail, kind("mine"))
    with pytest.raises(kind) as caught:
        future.result(30)
    assert isinstance(caught.value, TaskError)
    assert not future.cancelled()
    assert future.done()


# -- waiting inside -----------------------------------------------------------------------------------


def _first_completed(pool: BoundedExecutor) -> object:
    futures = [pool.submit(int, n) for n in range(5)]
    done, _ = wait(futures, return_when=FIRST_COMPLETED)
    return bool(done)


def _timed(pool: BoundedExecutor) -> object:
    futures = [pool.submit(int, n) for n in range(5)]
    return sorted(future.result() for future in wait(futures, 30).done) == [*range(5)]


def _many(pool: BoundedExecutor) -> object:
    futures = [pool.submit(int, n) for n in range(50)]
    return sorted(future.result() for future in as_completed(futures)) == [*range(50)]


INSIDE: dict[str, Any] = {
    "map": lambda pool: list(pool.map(int, "123")) == [1, 2, 3],
    "map in chunks": lambda pool: list(pool.map(int, "123", chunksize=2)) == [1, 2, 3],
    "lazy map": lambda pool: list(pool.map(int, "123", buffersize=1)) == [1, 2, 3],
    "map_unordered": lambda pool: sorted(pool.map_unordered(int, "123")) == [1, 2, 3],
    "first completed": _first_completed,
    "with a timeout": _timed,
    "as_completed": _many,
    "a view": lambda pool: pool.options(name="v").submit(int).result() == 0,
    "low priority": lambda pool: pool.submit_with_priority(-9, int).result() == 0,
}


@pytest.mark.parametrize("how", INSIDE)
@pytest.mark.parametrize("queue_size", [0, 1, 1000, None])
def test_waiting_inside_the_only_worker(how: str, queue_size: int | None) -> None:
    """Whichever way a task waits for tasks of its own pool, and however short the queue."""
    with BoundedExecutor(1, queue_size=queue_size) as pool:
        behind = []
        gate = threading.Event()

        def outer() -> object:
            gate.wait(30)
            return INSIDE[how](pool)

        future = pool.submit(outer)
        if queue_size is None or queue_size > 1:
            behind = [pool.submit(int) for _ in range(5)]
        gate.set()
        assert future.result(30) is True
        assert [f.result(30) for f in behind] == [0] * len(behind)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_divide_and_conquer(workers: int) -> None:
    """Each task submits two and waits for them: any number of workers gets through."""
    with BoundedExecutor(workers, queue_size=3) as pool:

        def fib(n: int) -> int:
            if n < 2:
                return n
            a, b = pool.submit(fib, n - 1), pool.submit(fib, n - 2)
            return a.result() + b.result()

        assert pool.submit(fib, 11).result(30) == 89
        assert pool.wait(30)
        stats = pool.stats()
        assert stats.submitted_tasks == stats.completed_tasks


@pytest.mark.parametrize("how", [*WAITS, "map"])
def test_deep_waiting_whichever_way(how: str) -> None:
    """A chain of 150 tasks in one worker, each waiting for the next."""
    ask: Any = WAITS.get(how)
    with BoundedExecutor(1) as pool:

        def nested(depth: int) -> int:
            if not depth:
                return 0
            if how == "map":
                return 1 + next(iter(pool.map(nested, [depth - 1])))
            return 1 + int(ask(pool.submit(nested, depth - 1)))

        assert pool.submit(nested, 150).result(30) == 150
        assert pool.submit(int).result(30) == 0


def test_a_deep_failure_comes_all_the_way_up() -> None:
    """Every level fails with the type of the lowest, each a TaskError of its own."""
    with BoundedExecutor(1, error_handler=id) as pool:

        def nested(depth: int) -> Any:
            return pool.submit(nested, depth - 1).result() if depth else int("x")

        error = pool.submit(nested, 10).exception(30)
        ids = []
        while isinstance(error, TaskError):
            assert isinstance(error, ValueError)
            ids.append(error.task_id)
            assert str(error) == str(ValueError("invalid literal for int() with base 10: 'x'"))
            error = error.cause
        assert ids == [*range(1, 12)]
        assert pool.stats().failed_tasks == 11


def test_helping_a_task_that_exits(ex: BoundedExecutor) -> None:
    """SystemExit of the inner task is raised where its result is asked for, and nowhere else."""

    def outer() -> str:
        inner = ex.submit(fail, SystemExit(3))
        after = ex.submit(int)
        with pytest.raises(SystemExit):
            inner.result()
        return f"went on {after.result()}"

    assert ex.submit(outer).result(30) == "went on 0"


def test_waiting_for_oneself_times_out(ex: BoundedExecutor) -> None:
    """A running task can be waited for with a timeout, also by itself: it is not run again."""
    box: list[Future[Any]] = []
    started = threading.Event()

    def outer() -> str:
        started.wait(30)
        try:
            box[0].result(0.001)
        except FutureTimeout:
            return "timeout"
        return "ran"

    box.append(ex.submit(outer))
    started.set()
    assert box[0].result(30) == "timeout"


def test_two_pools_wait_for_each_other() -> None:
    """A task that waits for another pool's task, which waits for a queued one of the first."""
    with BoundedExecutor(2) as one, BoundedExecutor(1) as two:

        def back() -> int:
            return one.submit(int, "4").result(30)

        assert one.submit(lambda: two.submit(back).result(30)).result(30) == 4


# -- one error, many threads: on a free-threaded build a matter of memory --------------------------

SCRIPT = """
import faulthandler, sys, threading
faulthandler.enable()
faulthandler.dump_traceback_later(60, exit=True)
from concurrent.futures import wait
from futurepool import BoundedExecutor

def in_threads(fn):
    threads = [threading.Thread(target=fn) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

def length(error):
    traceback, count = error.__traceback__, 0
    while traceback is not None:
        traceback, count = traceback.tb_next, count + 1
        assert count < 1000, "a loop, or a leak"
    return count
"""


def run_script(body: str) -> None:
    done = python(SCRIPT + textwrap.dedent(body))
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.skipif(
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    reason="one exception raised in several threads at once may crash free-threaded CPython 3.13",
)
@pytest.mark.parametrize("error", ["KeyError(1)", "SystemExit(1)"])
@pytest.mark.parametrize("ask", ["future.result()", "raise_(future.exception())"])
def test_four_threads_read_one_failure(ask: str, error: str) -> None:
    """Thousands of times at once: no crash, no endless traceback."""
    run_script(
        f"""
        ERROR = {error}
        def raise_(error):
            raise error
        ex = BoundedExecutor(1)
        future = ex.submit(raise_, ERROR)
        future.exception()

        def read():
            for _ in range(1500):
                try:
                    {ask}
                except BaseException as error:
                    assert type(ERROR) in type(error).__mro__
                    length(error)

        in_threads(read)
        ex.shutdown()
        print("ok")
        """
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["KeyError", "SystemExit"])
def test_four_workers_raise_one_object(kind: str) -> None:
    """A module-level exception that many tasks raise at once does no harm."""
    run_script(
        f"""
        ERROR = {kind}(1)
        def fail():
            raise ERROR
        with BoundedExecutor(4) as ex:
            for _ in range(20):
                futures = [ex.submit(fail) for _ in range(200)]
                wait(futures)
                assert all(type(ERROR) in type(f.exception()).__mro__ for f in futures)
        print("ok")
        """
    )


@pytest.mark.slow
def test_no_place_is_lost_at_the_end_of_the_stack() -> None:
    """However little of it is left, in whatever way the tasks get in."""
    run_script(
        """
        sys.setrecursionlimit(300)
        numbers = iter(range(10**6))
        ways = [
            lambda ex: ex.submit(int),
            lambda ex: ex.submit_with_priority(next(numbers), int),
            lambda ex: list(ex.map(int, range(3))),
            lambda ex: list(ex.map(int, range(3), chunksize=2)),
            lambda ex: list(ex.map_unordered(int, range(3))),
        ]

        def at(depth, way, ex):
            return way(ex) if depth == 0 else at(depth - 1, way, ex)

        ends = 0
        for way in ways:
            for depth in range(270, 300):
                ex = BoundedExecutor(2)
                try:
                    at(depth, way, ex)
                except RecursionError:
                    ends += 1
                ex.submit(int).result(10)
                assert ex.wait(10), (ways.index(way), depth)
                ex.shutdown()
        assert ends
        print("ok")
        """
    )


class Memo:
    """The usual descriptor that can be called."""

    def __init__(self, fn: Any) -> None:
        self._fn = fn

    def __call__(self, *args: Any) -> Any:
        return self._fn(*args)

    def __get__(self, owner: Any, _kind: Any = None) -> Any:
        return types.MethodType(self, owner)


class Memoized:
    @Memo
    def double(self, number: int) -> int:
        return 2 * number


class OddMeta(type):
    """Its classes do not compare, and say nothing about themselves."""

    __hash__ = type.__hash__

    def __eq__(cls, other: object) -> bool:
        raise LookupError

    def __getattribute__(cls, name: str) -> Any:
        if name in ("__mro__", "__qualname__", "__name__"):
            raise LookupError
        return super().__getattribute__(name)


class Odd(metaclass=OddMeta):
    def __call__(self, number: int) -> int:
        return number


class OddList(list, metaclass=OddMeta):  # type: ignore[type-arg]
    pass


def _looped() -> Any:
    loop = functools.partial(int)
    loop.__setstate__((loop, (), {}, {}))  # type: ignore[attr-defined]
    return loop


@pytest.mark.parametrize(
    ("fn", "args", "result", "name"),
    [
        (Memoized().double, (3,), 6, "Memo"),
        (types.MethodType(functools.partial(pow, 2), 3), (), 8, "pow"),
        (Odd(), (5,), 5, "Odd"),
        (OddList([1]).copy, (), [1], "OddList.copy"),
        (functools.lru_cache(abs), (-1,), 1, "abs"),
        ([1].copy, (), [1], "list.copy"),
        (dict.fromkeys, ("a",), {"a": None}, "dict.fromkeys"),
        (Memoized, (), None, "Memoized"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_whatever_can_be_called_has_a_name(fn: Any, args: Any, result: Any, name: str) -> None:
    """Without running code of the user's, which might raise, in the worker too."""
    with BoundedExecutor(1) as ex:
        future = ex.submit(fn, *args)
        assert future.name == name
        value = future.result(30)
        assert value == result or fn is Memoized
        assert future.name == name
        assert ex.submit(int).result(30) == 0


def test_a_partial_of_itself_has_a_name() -> None:
    """The names of what is wrapped are looked for only so deep."""
    assert name_of(_looped()) == "partial"


def test_an_outcome_that_cannot_be_wrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug of ours there is not tried again and again: the task fails with that."""
    monkeypatch.setattr(completion, "_wrap", lambda *_: 1 // 0)
    with BoundedExecutor(1) as ex:
        assert isinstance(ex.submit(int, "x").exception(30), ZeroDivisionError)
        assert ex.submit(int).result(30) == 0
