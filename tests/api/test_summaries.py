"""`stats().last_error`: what can be shown of the latest failure, and nothing of what its task had."""

from __future__ import annotations

import pickle
import sys
import threading
import traceback
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from futurepool import BoundedExecutor, TaskError, _sync
from futurepool._errors.failures import Failure
from futurepool._pool.summaries import Latest

#: What follows a failure once everyone has been told of it: so many workers have asked for its text.
ASKED = threading.Condition()
asked = 0


@pytest.fixture(autouse=True)
def _count_the_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    """A text that takes a `__str__` in Python is there a moment after the future is done."""
    complete = Latest.complete

    def counted(self: Latest, failure: Any) -> None:
        global asked
        complete(self, failure)
        with ASKED:
            asked += 1
            ASKED.notify_all()

    monkeypatch.setattr(Latest, "complete", counted)
    monkeypatch.setattr(sys.modules[__name__], "asked", 0)


@pytest.fixture
def pool() -> Iterator[BoundedExecutor]:
    with BoundedExecutor(1, error_handler=id) as pool:
        yield pool


class Argument:
    def __repr__(self) -> str:
        return "an argument"


class Held(Exception):
    """Holds all it can get, and says so in words of its own."""

    def __init__(self, argument: object, code: int) -> None:
        super().__init__(argument, code)
        self.argument = argument
        self.code = code

    def __str__(self) -> str:
        return f"{self.argument!r} is wrong"


class Silent(Exception):
    def __str__(self) -> str:
        raise SystemExit


def fail(error: BaseException) -> None:
    raise error


def held(argument: object) -> None:
    raise Held(argument, 7)


def chained(argument: object) -> None:
    try:
        held(argument)
    except Held:
        raise KeyError(argument) from None if argument is None else ValueError(argument)


def latest(pool: BoundedExecutor) -> Any:
    assert pool.wait(30)  # what was read is counted
    with ASKED:
        assert ASKED.wait_for(lambda: asked == pool.stats().failed_tasks, 30)
    error: Any = pool.stats().last_error
    assert isinstance(error, TaskError)
    return error


@pytest.mark.parametrize("fn", [held, chained])
@pytest.mark.parametrize("read", [True, False])
def test_it_keeps_nothing_of_the_task(
    pool: BoundedExecutor, fn: Any, read: bool, no_gc: None
) -> None:
    """Neither frames nor arguments, also if they are in the error itself; a kept snapshot neither."""
    argument = Argument()
    gone = weakref.ref(argument)
    future = pool.submit(fn, argument)
    assert pool.wait(30)
    before = latest(pool) if read else None
    del argument, future
    for _ in range(3000):  # what another thread let go of last may die when that next runs
        pool.submit(int).result(30)
        if gone() is None:
            break
    assert gone() is None
    error = latest(pool)
    assert before is None or str(before) == str(error)
    assert error.__traceback__ is None
    assert "raise " in error.traceback


def test_it_shows_what_the_original_would(pool: BoundedExecutor) -> None:
    """Type, text, traceback, attributes and arguments that are small and plain."""
    future = pool.options(name="job").submit(held, Argument())
    original: Any = future.exception(30)
    expected = original.traceback
    del original
    error = latest(pool)
    assert isinstance(error, Held)
    assert (str(error), error.args, error.code) == ("an argument is wrong", (7,), 7)
    assert (error.task_id, error.task_name) == (1, "job")
    assert not hasattr(error, "argument")
    assert error.traceback == expected
    assert isinstance(error.cause, Held)
    assert latest(pool) is error
    copied = pickle.loads(pickle.dumps(error))
    assert (str(copied), copied.traceback) == (str(error), error.traceback)


@pytest.mark.parametrize("argument", [None, 5])
def test_its_traceback_has_the_chain(pool: BoundedExecutor, argument: object) -> None:
    """To the letter as the interpreter prints it."""
    error = pool.submit(chained, argument).exception(30)
    assert isinstance(error, TaskError)
    expected = error.traceback
    del error
    assert latest(pool).traceback == expected
    assert expected.count("direct cause") == (argument is not None)


def test_long_texts_and_deep_tracebacks_are_cut(pool: BoundedExecutor) -> None:
    """A text may be the very argument of its task."""

    def deep(n: int) -> None:
        if n:
            deep(n - 1)
        raise ValueError("x" * 10**6)

    assert pool.submit(deep, 100).exception(30)
    error = latest(pool)
    assert (len(str(error)), error.args) == (1003, ())
    assert "  [61 more frames]\n" in error.traceback
    assert len(error.traceback) < 5000


@pytest.mark.parametrize("error", [ValueError("x" * 1001), KeyError("k"), OSError(2, "gone")])
def test_a_text_without_code_of_theirs_is_there_at_once(
    pool: BoundedExecutor, error: BaseException
) -> None:
    """For whoever has waited for the future; the worker has not even called the callbacks."""
    gate = threading.Event()
    expected = str(error)
    try:
        future = pool.submit(lambda: [gate.wait(30), fail(error)])
        going_on = threading.Event()
        future.add_done_callback(lambda _: going_on.wait(30))
        gate.set()
        assert future.exception(30)
        text = str(pool.stats().last_error)
    finally:
        gate.set()
        going_on.set()
    assert text == (expected if len(expected) <= 1000 else expected[:1000] + "...")


def test_no_argument_is_asked_for_its_text_by_a_finalizer(pool: BoundedExecutor) -> None:
    """However many there are before it: only the worker runs code of theirs."""
    askers: list[int] = []

    class Tells:
        def __repr__(self) -> str:
            askers.append(threading.get_ident())
            return "told"

    gate = threading.Event()
    going_on = threading.Event()
    try:
        future = pool.submit(lambda: [gate.wait(30), fail(ValueError(1, 2, 3, 4, 5, Tells()))])
        future.add_done_callback(lambda _: going_on.wait(30))
        gate.set()
        assert future.exception(30)
        assert pool.stats().last_error is not None
        assert askers == []
    finally:
        gate.set()
        going_on.set()
    assert str(latest(pool)) == "(1, 2, 3, 4, 5, told)"
    assert set(askers) == {next(iter(pool._threads)).ident}


def test_what_there_can_be_no_task_error_of(pool: BoundedExecutor) -> None:
    """It stands alone, and says what the original said."""
    for raised in (SystemExit("gone"), KeyboardInterrupt("gone")):
        assert pool.submit(fail, raised).exception(30)
        error = latest(pool)
        assert (type(error), str(error)) == (TaskError, "gone")
        assert type(error.cause) is type(raised)
    assert pool.submit(fail, Silent()).exception(30)
    assert str(latest(pool)) == "<unprintable Silent object>"
    if sys.version_info >= (3, 11):
        group = eval("ExceptionGroup('g', [ValueError(1)])")
        assert pool.submit(fail, group).exception(30)
        error = latest(pool)
        assert (type(error), str(error)) == (TaskError, "g (1 sub-exception)")
        assert error.traceback.endswith("ExceptionGroup: g (1 sub-exception)\n")


def test_it_is_the_error_of_the_latest_task(pool: BoundedExecutor) -> None:
    """Not of one that was read later."""
    futures = [pool.submit(fail, ValueError(number)) for number in range(5)]
    assert pool.wait(30)
    assert latest(pool).args == (4,)
    for future in futures:
        assert future.exception()
    del future, futures
    assert latest(pool).args == (4,)


def test_it_is_there_though_it_dies_just_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GIL nobody gets hold of it any more before its finalizer, in another thread, has kept it."""
    failure = Failure(ValueError("x"))
    latest = Latest(failure)
    latest._failure = lambda: None  # type: ignore[assignment]
    looks = []

    class Parker:
        def acquire(self, *args: object) -> None:
            looks.append(args)
            if len(looks) == 3:
                latest.keep(failure)

    monkeypatch.setattr(_sync, "Parker", Parker)
    assert str(latest.error()) == "x"
    assert len(looks) == 3
    # Nor for ever: it may be that nothing can be kept.
    nothing = Latest(failure)
    nothing._failure = latest._failure
    assert nothing.error() is None


def test_notes_are_kept(pool: BoundedExecutor) -> None:
    """The original's, and the one that names the task."""
    if sys.version_info < (3, 11):
        pytest.skip("notes came with 3.11")
    error = ValueError("x")
    error.add_note("theirs")
    assert pool.submit(fail, error).exception(30)
    text = "".join(traceback.format_exception(latest(pool)))
    assert text.endswith("ValueError: x\ntheirs\ntask 1 (fail)\n")
