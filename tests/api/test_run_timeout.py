"""`options(run_timeout=, abandon=)`: a task that runs for too long fails, whatever its function does after that."""

from __future__ import annotations

import asyncio
import copy
import gc
import pickle
import threading
import traceback
import weakref
from collections.abc import Callable
from concurrent import futures as cf
from typing import Any

import pytest

from futurepool import (
    BoundedExecutor,
    CancelToken,
    ForcedShutdownError,
    FuturePoolError,
    InvalidConfigError,
    OnFull,
    TaskError,
    TaskTimeoutError,
    _sync,
    current_token,
)
from futurepool._deadlines import timer
from futurepool._foreign import aside
from futurepool.testing import InlineExecutor
from tests.helpers import WAYS
from tests.programs import python

SOON = 0.01
HOW = pytest.mark.parametrize("abandon", [False, True], ids=["", "abandon"])


def adds_up(pool: BoundedExecutor) -> Any:
    stats = pool.stats()
    parts = stats.completed_tasks + stats.cancelled_tasks + stats.active_workers
    assert stats.submitted_tasks == parts + stats.queued_tasks
    return stats


def comes_back(pool: BoundedExecutor) -> None:
    """Wait until no function goes on after its task."""
    pause = threading.Event()
    for _ in range(3000):
        if not pool._futurepool.overdue:
            return
        pause.wait(0.01)
    raise AssertionError("it did not come back")


@HOW
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_it_fails_though_its_function_goes_on(
    way: Callable[[Any, Any], Any], abandon: bool, gate: threading.Event
) -> None:
    """In each way to submit; and the pool goes on when the function has returned, or at once."""
    with BoundedExecutor(1) as pool:
        with pytest.raises(TaskTimeoutError):
            way(pool.options(run_timeout=SOON, abandon=abandon), lambda _: gate.wait(30))
        if not abandon:
            gate.set()
        assert pool.submit(int).result(30) == 0
        stats = adds_up(pool)
        assert stats.failed_tasks >= 1
        gate.set()
        comes_back(pool)
        assert adds_up(pool).failed_tasks == stats.failed_tasks


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_what_ends_in_time_is_as_ever(way: Callable[[Any, Any], Any]) -> None:
    """Results, errors with the frames of the task alone, names."""

    def fails(_: Any) -> None:
        raise KeyError("x")

    with BoundedExecutor(1) as pool:
        view = pool.options(run_timeout=1000, abandon=True)
        assert way(view, str) == "0"
        with pytest.raises(KeyError) as caught:
            way(view, fails)
        assert isinstance(caught.value, TaskError)
        frames = traceback.extract_tb(caught.value.cause.__traceback__)
        if (
            not _sync.free_threaded
        ):  # as of the import: an extension may have brought the GIL back since
            assert "overdue.py" not in "".join(frame.filename for frame in frames)
        stats = adds_up(pool)
        assert (stats.abandoned_workers, stats.workers) == (0, 1)


def test_arguments_and_context_go_through() -> None:
    """As without."""
    with BoundedExecutor(1) as pool:
        view = pool.options(run_timeout=1000)
        assert view.submit(dict, [(1, 2)], a=3).result(30) == {1: 2, "a": 3}
        assert view.submit(divmod, 7, 2).name == "divmod"
        assert pool.options(run_timeout=1000, name="n").submit(int).name == "n"


def test_what_it_says(gate: threading.Event) -> None:
    """Which task of which pool, and its limit; also after a journey."""
    with BoundedExecutor(1, name="db") as pool:
        future = pool.options(run_timeout=SOON).submit(gate.wait, 30)
        error = future.exception(30)
        assert isinstance(error, TaskTimeoutError)
        assert isinstance(error, FuturePoolError)
        assert isinstance(error, TimeoutError)
        assert (error.pool, error.task, error.task_id) == ("db", "Event.wait", 1)
        assert str(error) == (
            "task 1 (Event.wait) of pool 'db' ran for longer than it may (run_timeout=0.01)"
        )
        assert str(error) in repr(error)
        assert str(TaskTimeoutError()) == "task ran for longer than it may"
        for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):
            assert (str(twin), twin.run_timeout) == (str(error), SOON)
        assert (future.done(), future.cancelled(), future.running()) == (True, False, False)
        assert future.cancel() is False
        assert future.task_error is not None
        assert future.task_error.task_id == 1
        gate.set()
        last = pool.stats().last_error
        assert isinstance(last, TaskError)


@HOW
def test_its_token_is_cancelled(abandon: bool) -> None:
    """After its future has failed: what the function says of that is dropped."""
    seen: list[Any] = []

    def obeys() -> None:
        token = current_token()
        seen.append(token.wait(30))
        seen.append(current_token() is token)
        seen.append(token.reason)
        token.raise_if_cancelled()

    with BoundedExecutor(1) as pool:
        future = pool.options(run_timeout=SOON, abandon=abandon).submit(obeys)
        assert isinstance(future.exception(30), TaskTimeoutError)
        comes_back(pool)
        assert seen == [True, True, "it ran for longer than run_timeout=0.01 s"]
        assert isinstance(future.exception(0), TaskTimeoutError)
        assert adds_up(pool).failed_tasks == 1


def test_what_it_asks_for_afterwards_is_under_its_token(gate: threading.Event) -> None:
    """The token is the task's as long as its function runs, in groups too."""
    tokens: list[CancelToken] = []

    def late() -> None:
        gate.wait(30)
        tokens.append(current_token())

    with BoundedExecutor(1) as pool:
        future = pool.options(run_timeout=SOON).submit(late)
        assert isinstance(future.exception(30), TaskTimeoutError)
        gate.set()
        comes_back(pool)
        assert tokens[0].wait(30)


@HOW
def test_all_who_wait_are_told(abandon: bool, gate: threading.Event) -> None:
    """By `result`, callback, `wait`, `as_completed`, asyncio; each once."""
    told: list[Any] = []
    with BoundedExecutor(3) as pool:
        view = pool.options(run_timeout=0.05, abandon=abandon)
        futures = [view.submit(gate.wait, 30) for _ in range(3)]
        futures[0].add_done_callback(told.append)
        assert cf.wait(futures, 30).done == set(futures)
        assert set(cf.as_completed(futures, 30)) == set(futures)
        assert aside.join(30)
        gate.set()
        comes_back(pool)
        assert aside.join(30)
        assert told == [futures[0]]

        async def awaits() -> None:
            with pytest.raises(TaskTimeoutError):
                await view.submit(lambda: current_token().wait(30))

        asyncio.run(awaits())


@HOW
def test_it_is_heard_of_once(abandon: bool, gate: threading.Event) -> None:
    """The error_handler, and observers."""
    heard: list[Any] = []
    events: list[Any] = []

    class Ear:
        def finished(self, event: Any) -> None:
            events.append((event.task_id, event.outcome, event.error))

    with BoundedExecutor(1, error_handler=heard.append) as pool:
        ear: Any = Ear()
        pool.add_observer(ear)
        future = pool.options(run_timeout=SOON, abandon=abandon).submit(gate.wait, 30)
        assert isinstance(future.exception(30), TaskTimeoutError)
        gate.set()
        comes_back(pool)
        assert pool.submit(int).result(30) == 0
        assert aside.join(30)
        pool.remove_observer(ear)
    assert [type(error.cause) for error in heard] == [TaskTimeoutError]
    assert events == [(1, "error", "TaskTimeoutError"), (2, "success", None)]


def test_a_failure_nobody_looks_at_is_logged(
    gate: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    """As any other."""
    pool = BoundedExecutor(1)
    told = threading.Event()
    future = pool.options(run_timeout=SOON).submit(gate.wait, 30)
    future.add_done_callback(lambda _: told.set())
    assert told.wait(30)
    gate.set()
    comes_back(pool)
    pool.shutdown()
    assert aside.join(30)
    del future
    gc.collect()
    from futurepool import _logs

    _logs.desk.settle()
    assert "TaskTimeoutError" in caplog.text


def test_the_worker_it_keeps_is_no_free_one(gate: threading.Event) -> None:
    """Without `abandon`: what is queued waits, `running()` says for what."""
    with BoundedExecutor(1, enable_metrics=True) as pool:
        future = pool.options(run_timeout=SOON).submit(gate.wait, 30)
        assert isinstance(future.exception(30), TaskTimeoutError)
        other = pool.submit(int)
        stats = adds_up(pool)
        assert (stats.workers, stats.active_workers, stats.queued_tasks) == (1, 0, 1)
        assert stats.latency is not None
        assert stats.latency.count == 1
        assert stats.latency.max >= SOON
        (entry,) = pool.running(stack=True)
        assert (entry.task_id, entry.timed_out) == (1, True)
        assert "wait" in str(entry.stack)
        assert "overdue" not in str(entry.stack)
        assert "its run_timeout is over" in str(entry)
        assert not other.done()
        gate.set()
        assert other.result(30) == 0
        assert pool.running() == []


def test_eight_that_hang_leave_a_pool_of_four(gate: threading.Event) -> None:
    """And `stop` names them, in time."""
    pool = BoundedExecutor(4)
    view = pool.options(run_timeout=SOON, abandon=True)
    hanging = [view.submit(gate.wait, 60) for _ in range(8)]
    for future in hanging:
        assert isinstance(future.exception(30), TaskTimeoutError)
    stats = adds_up(pool)
    assert (stats.abandoned_workers, stats.active_workers) == (8, 0)
    together = threading.Barrier(4)
    works = [pool.submit(together.wait, 30) for _ in range(4)]
    assert sorted(future.result(30) for future in works) == [0, 1, 2, 3]
    assert pool.stats().workers == 4
    assert len(pool._threads) == 4
    with pytest.raises(ForcedShutdownError) as caught:
        pool.stop(30)
    assert sorted(entry.task_id for entry in caught.value.unfinished) == list(range(1, 9))
    assert all("wait" in str(entry.stack) for entry in caught.value.unfinished)
    gate.set()
    comes_back(pool)
    assert pool.stats().abandoned_workers == 0


def test_no_more_are_abandoned_than_may_be(gate: threading.Event) -> None:
    """Twice as many as there are workers; the next one keeps its worker."""
    with BoundedExecutor(1) as pool:
        view = pool.options(run_timeout=SOON, abandon=True)
        for number in range(1, 4):
            future = view.submit(gate.wait, 30)
            assert isinstance(future.exception(30), TaskTimeoutError)
            assert adds_up(pool).abandoned_workers == min(number, 2)
        other = pool.submit(int)
        assert (pool.stats().workers, pool.stats().queued_tasks) == (1, 1)
        gate.set()
        assert other.result(30) == 0
        comes_back(pool)
        again = view.submit(lambda: current_token().wait(30))
        assert isinstance(again.exception(30), TaskTimeoutError)


def test_when_it_returns_its_thread_ends(gate: threading.Event) -> None:
    """It takes no other task, and what it returns is dropped."""
    ident: list[threading.Thread] = []

    def hangs() -> str:
        ident.append(threading.current_thread())
        gate.wait(30)
        return "late"

    with BoundedExecutor(1) as pool:
        future = pool.options(run_timeout=SOON, abandon=True).submit(hangs)
        assert isinstance(future.exception(30), TaskTimeoutError)
        gate.set()
        ident[0].join(30)
        assert not ident[0].is_alive()
        assert pool.submit(threading.current_thread).result(30) is not ident[0]
        assert isinstance(future.exception(0), TaskTimeoutError)
        assert adds_up(pool).abandoned_workers == 0


def test_a_shutdown_does_not_wait_for_what_is_abandoned(gate: threading.Event) -> None:
    """Their futures are final; what they keep is a thread."""
    pool = BoundedExecutor(2)
    view = pool.options(run_timeout=SOON, abandon=True)
    future = view.submit(gate.wait, 60)
    pool.shutdown()
    assert isinstance(future.exception(0), TaskTimeoutError)
    assert pool.stats().abandoned_workers == 1
    gate.set()
    comes_back(pool)


def test_a_closed_pool_replaces_it(gate: threading.Event) -> None:
    """What was accepted runs."""
    pool = BoundedExecutor(1)
    hangs = pool.options(run_timeout=0.05, abandon=True).submit(gate.wait, 60)
    others = [pool.submit(int) for _ in range(3)]
    pool.shutdown()
    assert isinstance(hangs.exception(0), TaskTimeoutError)
    assert [future.result(0) for future in others] == [0, 0, 0]
    gate.set()
    comes_back(pool)


def test_stop_names_a_worker_that_is_kept(gate: threading.Event) -> None:
    """Without `abandon`, too."""
    pool = BoundedExecutor(1)
    future = pool.options(run_timeout=SOON).submit(gate.wait, 60)
    assert isinstance(future.exception(30), TaskTimeoutError)
    with pytest.raises(ForcedShutdownError) as caught:
        pool.stop(0.01)
    assert [(entry.task_id, entry.timed_out) for entry in caught.value.unfinished] == [(1, True)]
    gate.set()
    comes_back(pool)


@HOW
def test_a_limit_is_given_back(abandon: bool, gate: threading.Event) -> None:
    """At once if the thread is written off, else when the function returns."""
    with BoundedExecutor(2) as pool:
        view = pool.options(limit=1, name="one", run_timeout=SOON, abandon=abandon)
        first = view.submit(gate.wait, 30)
        assert isinstance(first.exception(30), TaskTimeoutError)
        second = view.options(run_timeout=None).submit(int)
        if not abandon:
            assert pool.submit(int).result(30) == 0  # another worker has looked
            assert not second.done()
            assert pool.stats().views["one"].active_tasks == 1
            pool._futurepool.repair()
            assert pool.stats().views["one"].active_tasks == 1
            gate.set()
        assert second.result(30) == 0
        gate.set()
        comes_back(pool)
        stats = pool.stats().views["one"]
        assert (stats.active_tasks, stats.completed_tasks, stats.failed_tasks) == (0, 2, 1)
        adds_up(pool)


@HOW
def test_where_its_submitter_runs_it(abandon: bool, gate: threading.Event) -> None:
    """That thread cannot be written off: `submit` returns when the function does."""
    with BoundedExecutor(1, queue_size=0, on_full=OnFull.CALLER_RUNS) as pool:
        held = pool.submit(gate.wait, 30)
        while not held.running():
            pass
        token = pool.options(run_timeout=SOON, abandon=abandon).submit(
            lambda: current_token().wait(30)
        )
        assert isinstance(token.exception(0), TaskTimeoutError)
        assert pool.stats().abandoned_workers == 0
        assert not pool._futurepool.overdue
        gate.set()
        assert held.result(30) is True
        adds_up(pool)


@HOW
def test_without_threads(abandon: bool) -> None:
    """There is no other thread to go on in: the task fails all the same, after its function has returned."""
    with InlineExecutor() as pool:
        view = pool.options(run_timeout=SOON, abandon=abandon)
        future = view.submit(lambda: current_token().wait(30))
        assert isinstance(future.exception(0), TaskTimeoutError)
        assert pool.submit(int).result(0) == 0
        assert adds_up(pool).abandoned_workers == 0


def test_a_task_that_waits_for_another_one() -> None:
    """The outer one's time is over, the inner one runs to its end."""
    with BoundedExecutor(1) as pool:
        inner: list[Any] = []

        def outer() -> Any:
            inner.append(pool.submit(current_token().wait, 30))
            return inner[0].result()

        future = pool.options(run_timeout=0.02, abandon=True).submit(outer)
        assert isinstance(future.exception(30), TaskTimeoutError)
        assert inner[0].result(30) is True  # the outer one's token
        comes_back(pool)
        adds_up(pool)


def test_a_blocked_submitter_gets_the_place(gate: threading.Event) -> None:
    """The task has ended, so its place is free."""
    with BoundedExecutor(1, queue_size=0) as pool:
        pool.options(run_timeout=0.05, abandon=True).submit(gate.wait, 30)
        assert pool.submit(int).result(30) == 0
        gate.set()


def test_a_smaller_pool(gate: threading.Event) -> None:
    """A resize, and idle workers that end, count what is there."""
    with BoundedExecutor(3, idle_timeout=0.02) as pool:
        view = pool.options(run_timeout=SOON, abandon=True)
        hanging = [view.submit(gate.wait, 30) for _ in range(2)]
        kept = pool.options(run_timeout=SOON).submit(gate.wait, 30)
        for future in (*hanging, kept):
            assert isinstance(future.exception(30), TaskTimeoutError)
        pool.resize(1)
        other = pool.submit(int)
        assert pool.stats().workers == 1
        gate.set()
        assert other.result(30) == 0
        comes_back(pool)
        adds_up(pool)


def test_an_engine_has_none() -> None:
    """What runs in there cannot be given up; said at the call."""
    with (
        BoundedExecutor(1, engine=cf.ThreadPoolExecutor(1)) as pool,
        pytest.raises(InvalidConfigError, match=r"run_timeout=1 is for threads"),
    ):
        pool.options(run_timeout=1)


def test_abandon_is_a_bool_and_needs_a_time() -> None:
    """Of this view, or of the one it is made of; without the one the other is off again."""
    with BoundedExecutor(1) as pool:
        for value in (1, None, "yes"):
            odd: Any = value
            with pytest.raises(TypeError, match="abandon must be a bool"):
                pool.options(run_timeout=1, abandon=odd)
        with pytest.raises(InvalidConfigError, match="abandon=True needs a run_timeout"):
            pool.options(abandon=True)
        view = pool.options(run_timeout=2).options(abandon=True).options(priority=3)
        assert "run_timeout=2" in repr(view)
        assert "abandon=True" in repr(view)
        assert view._futurepool_options.special
        none = view.options(run_timeout=None)._futurepool_options
        assert (none.run_timeout, none.abandon) == (None, False)


def test_it_leaves_nothing_behind() -> None:
    """No result is kept alive, and nothing for the timer to do."""

    class Result:
        pass

    with BoundedExecutor(2) as pool:
        view = pool.options(run_timeout=1000, abandon=True)
        ref = weakref.ref(view.submit(Result).result(30))
        for future in [view.submit(int) for _ in range(100)]:
            future.result(30)
        pool.wait(30)
        timer._wake()
        gc.collect()
        assert ref() is None


def test_the_queue_can_be_drained(gate: threading.Event) -> None:
    """Whoever takes a task off it gets what can be called."""
    with BoundedExecutor(1) as pool:
        pool.submit(gate.wait, 30)
        view = pool.options(run_timeout=1000)
        view.submit(divmod, 7, 2)
        item: Any = pool._work_queue.get_nowait()
        assert item is not None
        gate.set()


@pytest.mark.slow
def test_the_process_ends_while_they_hang() -> None:
    """Interpreter exit waits for nobody who was written off."""
    source = """
import threading
from futurepool import BoundedExecutor, TaskTimeoutError
pool = BoundedExecutor(2)
view = pool.options(run_timeout=0.01, abandon=True)
for future in [view.submit(threading.Event().wait) for _ in range(4)]:
    assert type(future.exception(30)) is TaskTimeoutError
print(pool.stats().abandoned_workers, pool.submit(int).result(30))
"""
    result = python(source)
    assert (result.returncode, result.stdout.split(), result.stderr) == (0, ["4", "0"], "")
