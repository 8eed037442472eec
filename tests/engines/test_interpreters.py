"""Pools of interpreters as an engine."""

from __future__ import annotations

import concurrent.futures as cf
import gc
import importlib
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from futurepool import BoundedExecutor, CancelToken, ForcedShutdownError, TaskError
from futurepool._errors import LostCauseError
from tests.engines import tasks
from tests.helpers import until
from tests.programs import unmeasured

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(120),
    pytest.mark.skipif(
        not hasattr(cf, "InterpreterPoolExecutor"), reason="InterpreterPoolExecutor came with 3.14"
    ),
]


def pool(workers: int = 1, **options: Any) -> Any:
    return cf.InterpreterPoolExecutor(workers, **options)  # type: ignore[attr-defined,unused-ignore]


@pytest.fixture(scope="module")
def shared() -> Iterator[BoundedExecutor]:
    with BoundedExecutor(engine=pool(), queue_size=20, error_handler=id) as ex:
        yield ex


@pytest.fixture
def ex(shared: BoundedExecutor) -> Iterator[BoundedExecutor]:
    """One for all tests, with all its places free and its worker alive after each."""
    yield shared
    assert shared.wait(60)
    assert shared.submit(tasks.square, 3).result(60) == 9


class Beside(Exception):
    """Of a module that the interpreters find by our path only."""


def raise_beside(number: int) -> None:
    error = Beside("text", number)
    error.detail = [number]  # type: ignore[attr-defined]
    raise error


def make_beside() -> Any:
    return [Beside("made")]


def raise_locked() -> None:
    raise Beside(threading.Lock())


def leave(error: BaseException) -> None:
    raise error


def test_functions_of_modules_beside_the_script(ex: BoundedExecutor) -> None:
    """The executor alone does not find them."""
    assert ex.submit(tasks.square, 7).result(60) == 49
    assert list(ex.map(tasks.square, range(20), chunksize=6)) == [n * n for n in range(20)]
    made = ex.submit(make_beside).result(60)
    assert type(made[0]) is Beside


@pytest.mark.parametrize(
    "value",
    [None, True, 5, 1.5, "text", b"bytes", (1, ("futurepool.failed",)), [1], {"a": {1}}, (), 1j],
)
def test_values(ex: BoundedExecutor, value: Any) -> None:
    """What comes back is what was sent."""
    back = ex.submit(tasks.identity, value).result(60)
    assert (back, type(back)) == (value, type(value))


def test_what_only_the_executor_knows_to_share(ex: BoundedExecutor) -> None:
    """Lambdas that refer to nothing, there and back, and memory views."""
    assert ex.submit(lambda number: number + 1, 4).result(60) == 5
    assert ex.submit(lambda *, number: number + 1, number=5).result(60) == 6
    assert ex.submit(lambda: lambda: 7).result(60)() == 7
    assert ex.submit(bytes, memoryview(b"abc")).result(60) == b"abc"


def test_a_queue_between_interpreters(ex: BoundedExecutor) -> None:
    """It lives until the task has it, though the caller lets go of it."""
    queues: Any = importlib.import_module("concurrent.interpreters")
    go = queues.create_queue()
    first = ex.submit(tasks.get, go)
    left = queues.create_queue()
    left.put(8)
    second = ex.submit(tasks.get, left)
    del left
    go.put(7)
    assert (first.result(60), second.result(60)) == (7, 8)


@pytest.mark.parametrize(
    "call",
    [
        (tasks.square, threading.Lock()),
        (threading.Lock().acquire,),
        (tasks.lock,),
        (tasks.stubborn_result,),
    ],
    ids=["argument", "function", "result", "result that says why"],
)
def test_what_cannot_be_shared(ex: BoundedExecutor, call: Any) -> None:
    """That task fails with the error of the executor alone."""
    error = ex.submit(*call).exception(60)
    assert isinstance(error, TaskError)
    assert isinstance(error, TypeError)
    assert "NotShareableError" in repr(error)


def test_exceptions(ex: BoundedExecutor) -> None:
    """They are what the task raised, with the traceback of the other interpreter."""
    future = ex.submit(raise_beside, 3)
    error = future.exception(60)
    assert isinstance(error, Beside)
    assert isinstance(error, TaskError)
    assert (str(error), error.args) == ("('text', 3)", ("text", 3))
    assert error.detail == [3]  # type: ignore[attr-defined]
    assert "in raise_beside" in error.traceback
    assert type(error.__cause__).__name__ == "ExecutionFailed"


@pytest.mark.parametrize("error", [KeyboardInterrupt("key"), SystemExit(3), GeneratorExit("go")])
def test_exceptions_that_are_no_exception(ex: BoundedExecutor, error: BaseException) -> None:
    """They end their task only, and are raised as themselves."""
    back = ex.submit(leave, error).exception(60)
    assert (type(back), back.args) == (type(error), error.args)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ((tasks.raise_stubborn,), "Stubborn: stubborn"),
        ((tasks.raise_stubborn_base,), "StubbornBase: stubborn base"),
        ((tasks.raise_disguised,), "Disguised: well"),
        ((tasks.identity, tasks.StubbornArgument()), "Stubborn: stubborn"),
        ((raise_locked,), "Beside: <unlocked"),
    ],
    ids=["unpickles not", "base", "no exception", "argument", "pickles not"],
)
def test_exceptions_that_do_not_arrive(ex: BoundedExecutor, call: Any, text: str) -> None:
    """Then their type, text and traceback do; as what the executor alone raises."""
    failed = importlib.import_module("concurrent.interpreters").ExecutionFailed
    error = ex.submit(*call).exception(60)
    assert isinstance(error, LostCauseError)
    assert isinstance(error, failed)
    assert text in str(error)
    assert "in call_there" in str(error)


def _begun(place: Path, future: cf.Future[Any]) -> None:
    while not (place / "begun").exists():
        assert not future.done()
        time.sleep(0.005)


def test_cancelling(ex: BoundedExecutor, tmp_path: Path) -> None:
    """What waits here, by its future or its token; the place is free at once."""
    first = ex.submit(tasks.hold, str(tmp_path))
    _begun(tmp_path, first)
    token = CancelToken()
    one, other = ex.submit(tasks.square, 2), ex.submit_with_token(token, tasks.square, 3)
    assert one.cancel()
    token.cancel()
    assert other.cancelled()
    assert ex._work_queue.qsize() == 0
    (tmp_path / "go").touch()
    assert first.result(60) is True


def test_stop_with_a_stuck_interpreter(tmp_path: Path) -> None:
    """It returns in time and names the task; what waits is cancelled."""
    stopped = BoundedExecutor(engine=pool())
    stuck = stopped.options(name="stuck").submit(tasks.hold, str(tmp_path))
    queued = stopped.submit(tasks.square, 2)
    _begun(tmp_path, stuck)
    with pytest.raises(ForcedShutdownError, match="stuck"):
        stopped.stop(0.01)
    assert queued.cancelled()
    (tmp_path / "go").touch()
    assert stuck.result(60) is True


def test_stop_before_the_interpreter_has_begun(tmp_path: Path) -> None:
    """What has not begun is taken back."""
    stopped = BoundedExecutor(2, engine=pool())
    running = stopped.submit(tasks.hold, str(tmp_path))
    _begun(tmp_path, running)
    inside = stopped.submit(tasks.square, 2)
    until(inside.running)
    with pytest.raises(ForcedShutdownError) as raised:
        stopped.stop(0.01)
    assert [entry.name for entry in raised.value.unfinished] == ["hold"]
    assert inside.cancelled()
    (tmp_path / "go").touch()
    assert running.result(60) is True


def test_an_initializer_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    """The engine is broken, and all tasks say so, the later ones too."""
    with (
        caplog.at_level(logging.CRITICAL + 1, "concurrent.futures"),
        BoundedExecutor(engine=pool(initializer=tasks.fail, initargs=("no",))) as broken,
    ):
        for future in [broken.submit(tasks.square, number) for number in range(4)]:
            assert isinstance(future.exception(60), cf.BrokenExecutor)
        later = broken.submit(tasks.square, 5)
        assert type(later.exception(60).cause).__name__ == "BrokenInterpreterPool"  # type: ignore[union-attr]


def test_a_dropped_pool_with_an_engine_of_its_own() -> None:
    """What was accepted runs, and then the engine's threads end."""
    dropped = BoundedExecutor(engine=pool())
    futures = [dropped.submit(tasks.square, number) for number in range(5)]
    assert futures[0].result(60) == 0
    threads = list(dropped._pool.engine.executor._threads)  # type: ignore[attr-defined]
    del dropped
    assert [future.result(60) for future in futures] == [0, 1, 4, 9, 16]
    del futures
    gc.collect()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)


SCRIPT = """
import concurrent.futures as cf, sys
from futurepool import BoundedExecutor
import beside

READY = []

class Own(Exception):
    pass

class Thing:
    def __init__(self, value):
        self.value = value

    def __eq__(self, other):
        return type(self) is type(other) and self.value == other.value

    def double(self):
        return Thing(2 * self.value)

def prepare(value):
    READY.append(value)

def ready():
    return READY, beside.NAME, __name__

def fail(thing):
    raise Own(thing)

if __name__ == "__main__":
    engine = cf.InterpreterPoolExecutor(1, initializer=prepare, initargs=(1,))
    with BoundedExecutor(engine=engine) as ex:
        print(ex.submit(ready).result()[:2])
        assert ex.submit(Thing(2).double).result() == Thing(4)
        try:
            ex.submit(fail, Thing(3)).result()
        except Own as error:
            assert error.args == (Thing(3),)
            print(type(error.cause), "in fail" in error.traceback)
"""

IN_USE = """
import concurrent.futures as cf
from futurepool import BoundedExecutor

READY = []

def prepare(value):
    READY.append(value)

def ready(*more):
    return READY, more

if __name__ == "__main__":
    engine = cf.InterpreterPoolExecutor(1, initializer=prepare, initargs=(1,))
    print(engine.submit(ready).result())
    with BoundedExecutor(engine=engine) as ex:
        print(ex.submit(ready, 5).result())
"""

UNGUARDED = """
import concurrent.futures as cf
from futurepool import BoundedExecutor

def squares(count):
    return [number * number for number in range(count)]

with BoundedExecutor(engine=cf.InterpreterPoolExecutor(1)) as ex:
    print(ex.submit(squares, 4).result())
    print(list(ex.map(squares, range(3), chunksize=2)))
    print(list(ex.map_unordered(squares, range(3), chunksize=2)))
"""

AT_EXIT = """
import concurrent.futures as cf
from futurepool import BoundedExecutor

READY = []

def prepare():
    READY.append(1)

def task(number):
    return number, len(READY)

if __name__ == "__main__":
    ex = BoundedExecutor(engine=cf.InterpreterPoolExecutor(2, initializer=prepare))
    for number in range(4):
        ex.submit(task, number).add_done_callback(lambda future: print(*future.result(), flush=True))
"""


def _run(tmp_path: Path, text: str, *args: str, options: tuple[str, ...] = ()) -> list[str]:
    script = tmp_path / "the_script.py"
    script.write_text(text)
    (tmp_path / "beside.py").write_text("NAME = 'beside'")
    done = subprocess.run(
        [sys.executable, *(options or [str(script)]), *args],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        env=unmeasured(),
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.mark.parametrize("options", [(), ("-m", "the_script")], ids=["script", "module"])
def test_what_a_script_defines(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Functions, classes and exceptions of `__main__`, to which modules beside it are known."""
    lines = _run(tmp_path, SCRIPT, options=options)
    assert lines == ["([1], 'beside')", "<class '__main__.Own'> True"]


def test_an_engine_in_use_with_an_initializer(tmp_path: Path) -> None:
    """Tasks go on to see what that did."""
    assert _run(tmp_path, IN_USE) == ["([1], ())", "([1], (5,))"]


def test_an_unguarded_script(tmp_path: Path) -> None:
    """A function that refers to nothing of it does not make it run again."""
    chunks = "[[], [0], [0, 1]]"  # each call a task of its own
    assert _run(tmp_path, UNGUARDED) == ["[0, 1, 4, 9]", chunks, chunks]


def test_tasks_left_behind_by_a_script(tmp_path: Path) -> None:
    """They run at interpreter exit, where the executor alone fails them."""
    assert sorted(_run(tmp_path, AT_EXIT)) == [f"{number} 1" for number in range(4)]
