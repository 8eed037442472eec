"""What a pool says of what it is doing: stacks that start at the task, short messages, one look."""

from __future__ import annotations

import gc
import logging
import sys
import threading
from typing import Any

import pytest

from futurepool import BoundedExecutor, ForcedShutdownError, OnFull, _sync
from futurepool._pool import report, stacks
from tests.helpers import hold, until


@pytest.fixture(autouse=True, params=["frames", "dump"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How it is found out where threads are."""
    if request.param == "frames" and _sync.free_threaded:
        pytest.skip("frames of threads that run are not to be looked at there")
    monkeypatch.setattr(stacks, "DUMPS", request.param == "dump")


def functions(stack: str | None) -> list[str]:
    """The names of the functions in a stack, outermost first."""
    assert stack is not None
    return [line.rpartition(" in ")[2] for line in stack.splitlines() if line.startswith("  File ")]


def test_a_stack_starts_at_the_task(gate: threading.Event) -> None:
    """Without the frames of threading and of this package, at either end."""
    started = threading.Event()

    def inner() -> None:
        started.set()
        gate.wait(30)

    def task() -> None:
        inner()

    with BoundedExecutor(1) as ex:
        ex.submit(task)
        assert started.wait(30)
        (entry,) = ex.running(stack=True)
        assert functions(entry.stack) == ["task", "inner"]
        assert str(entry).splitlines()[1:] == str(entry.stack).splitlines()
        assert "gate.wait(30)" in str(entry.stack)
        gate.set()


def test_a_task_that_is_all_threading(gate: threading.Event) -> None:
    """Then its own frames are shown; of one that is no Python there are none."""
    with BoundedExecutor(2) as ex:
        ex.submit(gate.wait, 30)
        lock = threading.Lock()
        lock.acquire()
        ex.submit(lock.acquire)
        until(lambda: len(ex.running()) == 2 and "wait" in str(ex.running(stack=True)[0].stack))
        waiting, locked = sorted(ex.running(stack=True), key=lambda entry: entry.task_id)
        assert functions(waiting.stack)[0] == "wait"
        assert locked.stack == ""
        assert "\n" not in str(locked)
        gate.set()
        lock.release()


def test_stacks_of_tasks_inside_tasks(gate: threading.Event) -> None:
    """Each starts at its own task, in a worker and in a thread that runs it for want of a place."""
    started = threading.Event()

    def innermost() -> None:
        started.set()
        gate.wait(30)

    def middle(ex: Any) -> None:
        ex.submit(innermost)

    def outer(ex: Any) -> None:
        ex.submit(middle, ex)

    with BoundedExecutor(1, queue_size=0, on_full=OnFull.CALLER_RUNS) as ex:
        ex.submit(outer, ex)
        assert started.wait(30)
        stacks = {entry.name.rpartition(".")[2]: entry.stack for entry in ex.running(stack=True)}
        assert functions(stacks["outer"]) == ["outer", "middle", "innermost"]
        assert functions(stacks["middle"]) == ["middle", "innermost"]
        assert functions(stacks["innermost"]) == ["innermost"]
        gate.set()
    started.clear()
    gate.clear()
    with BoundedExecutor(1, queue_size=0, on_full=OnFull.CALLER_RUNS) as ex:
        hold(ex, gate, 1)
        thread = threading.Thread(target=ex.submit, args=(middle, ex))
        thread.start()
        assert started.wait(30)
        stacks = {entry.name.rpartition(".")[2]: entry.stack for entry in ex.running(stack=True)}
        assert functions(stacks["middle"]) == ["middle", "innermost"]
        assert functions(stacks["innermost"]) == ["innermost"]
        gate.set()
        thread.join(30)


def test_ones_own_stack_keeps_nothing_alive() -> None:
    """A task may ask for its own; the frames of all threads are let go of."""

    class Canary:
        pass

    with BoundedExecutor(1) as ex:

        def task(_canary: Canary) -> str | None:
            return ex.running(stack=True)[0].stack

        gc.collect()
        gc.disable()
        try:
            assert functions(ex.submit(task, Canary()).result()) == ["task"]
            assert ex.submit(lambda: None).result() is None
            assert not [each for each in gc.get_objects() if type(each) is Canary]
        finally:
            gc.enable()


def test_a_deep_stack_is_cut(gate: threading.Event) -> None:
    """The innermost frames are shown, and alike ones are counted."""
    started = threading.Event()

    def deep(depth: int) -> None:
        if depth:
            deep(depth - 1)
        else:
            started.set()
            gate.wait(30)

    with BoundedExecutor(1) as ex:
        ex.submit(deep, 300)
        assert started.wait(30)
        text = str(ex.running(stack=True)[0].stack)
        assert "repeated" in text
        assert text.count("  File ") < 10
        gate.set()


def test_stop_looks_at_the_frames_once(
    gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many tasks run. All are in `unfinished`; the message has twenty and counts the others."""
    looks: list[str] = []

    def counted(owner: Any, name: str) -> None:
        look = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda: looks.append(name) or look())

    ex = BoundedExecutor(50)
    hold(ex, gate, 50)
    counted(sys, "_current_frames")
    counted(stacks, "_dump")
    with pytest.raises(ForcedShutdownError) as caught:
        ex.stop(0)
    assert len(looks) == 1
    unfinished = caught.value.unfinished
    assert [functions(entry.stack) for entry in unfinished] == [["held"]] * 50
    first, *lines = str(caught.value).splitlines()
    assert first == "shutdown was forced with 50 tasks still running"
    assert [line for line in lines if line.startswith("task ")] == [
        str(entry).splitlines()[0] for entry in unfinished[:20]
    ]
    assert lines[-1] == "... and 30 more"
    gate.set()
    ex.shutdown()


def test_a_done_callback_that_does_not_end_is_unfinished_too(gate: threading.Event) -> None:
    """It keeps a worker as a task does, so stop() tells of it."""
    ex = BoundedExecutor(1, "w")
    inside = threading.Event()

    def callback(_: object) -> None:
        inside.set()
        gate.wait(30)

    go = threading.Event()
    ex.submit(go.wait).add_done_callback(callback)
    go.set()
    assert inside.wait(30)
    with pytest.raises(ForcedShutdownError, match="a done-callback") as caught:
        ex.stop(0)
    (entry,) = caught.value.unfinished
    assert (entry.worker, functions(entry.stack)[0]) == ("w_0", "callback")
    gate.set()
    ex.shutdown()


@pytest.mark.parametrize("leave", ["shutdown", "with"])
def test_who_waits_long_reads_what_for_once(
    leave: str, gate: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    """As a warning with what runs and where, twenty entries at most, and how much is queued."""
    ex = BoundedExecutor(30, shutdown_timeout=0.01, name="db")
    hold(ex, gate, 30)
    ex.submit(int)
    written = threading.Event()

    class Listener(logging.Handler):
        def emit(self, _: logging.LogRecord) -> None:
            written.set()

    listener = Listener()
    logger = logging.getLogger("futurepool")
    logger.addHandler(listener)
    try:
        end, args = (ex.shutdown, ()) if leave == "shutdown" else (ex.__exit__, (None, None, None))
        threads = [threading.Thread(target=end, args=args) for _ in range(2)]
        for thread in threads:
            thread.start()
        assert written.wait(30)
        gate.set()
        for thread in threads:
            thread.join(30)
    finally:
        logger.removeHandler(listener)
    (record,) = [record for record in caplog.records if record.name == "futurepool"]
    assert (record.levelname, vars(record)["pool"]) == ("WARNING", "db")
    first, *lines = record.getMessage().splitlines()
    assert first.startswith("the shutdown of db has waited for 0.0 s")
    assert first.endswith("goes on waiting for 30 running tasks and 1 queued task")
    assert [" in held" in line for line in lines] == [True] * 20 + [False]
    assert lines[-1] == "  ... and 10 more"


def test_nothing_is_said_if_it_does_not_take_long(
    gate: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor of a pool that is empty, whatever its limit; after a forced stop all has been said."""
    with BoundedExecutor(2) as ex:
        ex.submit(int)
    with BoundedExecutor(2, shutdown_timeout=0) as ex:
        ex.submit(int).result()
        assert ex.wait(30)
    ex = BoundedExecutor(1, shutdown_timeout=0)
    hold(ex, gate, 1)
    with pytest.raises(ForcedShutdownError):
        ex.stop()
    gate.set()
    ex.shutdown()
    assert caplog.records == []


def test_what_is_waited_for_in_words(gate: threading.Event) -> None:
    """Nothing, one, or several."""
    ex = BoundedExecutor(1)
    assert report.waited_for(ex._futurepool) == ("", [])
    hold(ex, gate, 1)
    what, (line,) = report.waited_for(ex._futurepool)
    assert what == "1 running task"
    assert line.startswith("task 1 (hold.<locals>.held) in ")
    ex.submit(int)
    ex.submit(int)
    assert report.waited_for(ex._futurepool)[0] == "1 running task and 2 queued tasks"
    gate.set()
    ex.shutdown()
    assert report.waited_for(ex._futurepool) == ("", [])
