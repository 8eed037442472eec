"""Shutdown, stop, wait: life and death of a pool."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from futurepool import (
    BoundedExecutor,
    CancelToken,
    ForcedShutdownError,
    PoolClosedError,
    current_token,
)
from tests.helpers import hold

# -- shutdown --------------------------------------------------------------------------------------


def test_shutdown_finishes_what_was_accepted() -> None:
    """Everything runs, every thread has ended, and again is fine."""
    ex = BoundedExecutor(3)
    futures = [ex.submit(pow, n, 2) for n in range(100)]
    threads = ex._threads
    ex.shutdown()
    assert [future.result(0) for future in futures] == [n * n for n in range(100)]
    assert not any(thread.is_alive() for thread in threads)
    assert ex.closed
    ex.shutdown()
    ex.shutdown(wait=False)


def test_shutdown_that_cancels(gate: threading.Event) -> None:
    """What runs is finished, what has not started never does."""
    ex = BoundedExecutor(1)
    started = threading.Event()
    running = ex.submit(lambda: (started.set(), gate.wait(30))[1])
    queued = [ex.submit(int) for _ in range(5)]
    assert started.wait(30)
    ex.shutdown(wait=False, cancel_futures=True)
    assert all(future.cancelled() for future in queued)
    gate.set()
    ex.shutdown()
    assert running.result() is True
    assert ex.stats().cancelled_tasks == 5


def test_an_idle_executor_shuts_down() -> None:
    """With no thread ever made, and with one that sleeps."""
    BoundedExecutor(1).shutdown()
    ex = BoundedExecutor(1)
    ex.submit(int).result()
    ex.shutdown()
    assert ex._threads == set()


def test_a_task_that_shuts_its_pool_down(gate: threading.Event) -> None:
    """It cannot wait for itself, so it does not; the rest is still run."""
    ex = BoundedExecutor(1)
    first = ex.submit(lambda: (gate.wait(30), ex.shutdown(wait=True))[1])
    second = ex.submit(int)
    gate.set()
    assert first.result(30) is None
    assert second.result(30) == 0
    ex.shutdown()


def test_a_callback_that_shuts_its_pool_down() -> None:
    """The same there."""
    ex = BoundedExecutor(1)
    done = threading.Event()
    ex.submit(int).add_done_callback(lambda _: (ex.shutdown(), done.set()))
    assert done.wait(30)
    ex.shutdown()


def test_many_threads_shut_down_at_once() -> None:
    """Each returns when all is finished."""
    ex = BoundedExecutor(4)
    futures = [ex.submit(int) for _ in range(200)]
    left: list[bool] = []

    def shut() -> None:
        ex.shutdown()
        left.append(all(future.done() for future in futures))

    threads = [threading.Thread(target=shut) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert left == [True] * 4


@pytest.mark.parametrize("leave", [KeyboardInterrupt, SystemExit])
def test_leaving_with_by_an_interrupt_cancels(leave: type[BaseException]) -> None:
    """What has not started does not hold the user up."""
    gate = threading.Event()
    queued = []
    with pytest.raises(leave), BoundedExecutor(1) as ex:
        ex.submit(gate.wait)
        queued += [ex.submit(int) for _ in range(5)]
        queued[0].add_done_callback(lambda _: gate.set())
        raise leave
    assert all(future.cancelled() for future in queued)


def test_leaving_with_by_an_error_does_not_cancel() -> None:
    """As the standard library has it."""
    with pytest.raises(LookupError), BoundedExecutor(1) as ex:
        future = ex.submit(int)
        raise LookupError
    assert future.result(0) == 0


# -- stop and wait ------------------------------------------------------------------------------------


def test_stop_in_time() -> None:
    """Everything is finished: no error, and no thread."""
    ex = BoundedExecutor(2)
    futures = [ex.submit(int) for _ in range(50)]
    ex.stop(30)
    assert [future.result(0) for future in futures] == [0] * 50
    assert ex.closed
    ex.stop()
    ex.stop(None)


def test_stop_out_of_time(gate: threading.Event) -> None:
    """The error names what is stuck and shows where; the queue is cancelled, tokens are told."""
    ex = BoundedExecutor(2, "stuck")
    inside = threading.Semaphore(0)
    told = threading.Event()

    def deaf_task() -> None:
        inside.release()
        gate.wait(30)

    def listening_task() -> None:
        inside.release()
        current_token().wait(30)
        told.set()

    ex.options(name="deaf").submit(deaf_task)
    ex.submit(listening_task)
    inside.acquire()
    inside.acquire()
    queued = ex.submit(int)
    with pytest.raises(ForcedShutdownError) as caught:
        ex.stop(0.01)
    assert isinstance(caught.value, TimeoutError)
    assert told.wait(30)
    assert queued.cancelled()
    deaf = caught.value.unfinished[0]
    assert (deaf.task_id, deaf.name) == (1, "deaf")
    assert deaf.stack is not None
    assert "deaf_task" in deaf.stack
    for part in ("task 1", "deaf", "deaf_task", "stuck_"):
        assert part in str(caught.value)
    gate.set()
    ex.shutdown()


def test_stop_uses_the_executors_timeout(gate: threading.Event) -> None:
    """When none is given."""
    ex = BoundedExecutor(1, shutdown_timeout=0.01)
    ex.submit(gate.wait)
    with pytest.raises(ForcedShutdownError):
        ex.stop()
    gate.set()
    ex.shutdown()


def test_stop_by_token(gate: threading.Event) -> None:
    """Time is up when the token says so."""
    ex = BoundedExecutor(1)
    ex.submit(gate.wait)
    token = CancelToken()
    stopped: list[BaseException] = []

    def stop() -> None:
        try:
            ex.stop(token=token)
        except ForcedShutdownError as error:
            stopped.append(error)

    thread = threading.Thread(target=stop)
    thread.start()
    token.cancel()
    thread.join(30)
    assert len(stopped) == 1
    gate.set()
    ex.shutdown()
    ex.stop(token=token)


def test_stop_in_a_task_does_not_wait() -> None:
    """It would wait for itself."""
    ex = BoundedExecutor(1)
    assert ex.submit(ex.stop).result(30) is None
    assert ex.closed


def test_wait(gate: threading.Event) -> None:
    """True when nothing is queued or running; the pool stays open."""
    with BoundedExecutor(1) as ex:
        assert ex.wait()
        ex.submit(gate.wait)
        assert ex.wait(0) is False
        assert ex.wait(0.01) is False
        opener = threading.Timer(0.01, gate.set)
        opener.start()
        assert ex.wait(30) is True
        opener.join()
        assert ex.submit(int).result() == 0
        assert not ex.closed


def test_wait_in_a_task_is_an_error() -> None:
    """It would wait for itself, for ever; with a timeout it may."""
    with BoundedExecutor(1, error_handler=id) as ex:
        with pytest.raises(RuntimeError, match="would wait for itself"):
            ex.submit(ex.wait).result(30)
        assert ex.submit(ex.wait, 0).result(30) is False


# -- more of the same, from less usual places -------------------------------------------------------


def together(number: int, fn: Any) -> list[Any]:
    """What `fn` returns or raises in so many threads at once."""
    barrier, results = threading.Barrier(number), []

    def call() -> None:
        barrier.wait(30)
        try:
            results.append(fn())
        except Exception as error:
            results.append(error)

    threads = [threading.Thread(target=call) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return results


def test_shutdown_without_waiting(gate: threading.Event) -> None:
    """It returns with the task still running; waiting later is fine, and cancelling later too."""
    ex = BoundedExecutor(1)
    (running,) = hold(ex, gate)
    queued = [ex.submit(int) for _ in range(3)]
    ex.shutdown(wait=False)
    assert running.running()
    assert ex.closed
    assert not any(future.done() for future in queued)
    queued[0].cancel()
    ex.shutdown(wait=False, cancel_futures=True)
    assert all(future.cancelled() for future in queued)
    gate.set()
    ex.shutdown()
    assert running.result(0) is True


@pytest.mark.parametrize("end", ["shutdown", "cancel_futures", "stop"])
def test_blocked_submitters_are_turned_away(end: str, gate: threading.Event) -> None:
    """A submit that waits for a place, or comes just then, raises PoolClosedError and never runs."""
    ex = BoundedExecutor(1, queue_size=0)
    hold(ex, gate)
    ran: list[int] = []
    barrier = threading.Barrier(5)
    errors: list[BaseException] = []

    def submit() -> None:
        barrier.wait(30)
        try:
            ex.submit(ran.append, 1)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=submit) for _ in range(4)]
    for thread in threads:
        thread.start()
    barrier.wait(30)
    if end == "stop":
        with pytest.raises(ForcedShutdownError):
            ex.stop(0)
    else:
        ex.shutdown(wait=False, cancel_futures=end == "cancel_futures")
    for thread in threads:
        thread.join(30)
    gate.set()
    ex.shutdown()
    assert [type(error) for error in errors] == [PoolClosedError] * 4
    assert ran == []


def test_a_shutdown_from_everywhere_at_once(gate: threading.Event) -> None:
    """Threads, a task and a callback together: all return, no worker is left."""
    ex = BoundedExecutor(2)
    futures = hold(ex, gate, 2)
    futures[0].add_done_callback(lambda _: ex.shutdown())
    task = ex.submit(ex.shutdown)
    threads = ex._threads
    opener = threading.Thread(target=gate.set)
    opener.start()
    assert together(4, ex.shutdown) == [None] * 4
    opener.join(30)
    assert task.result(30) is None
    assert not any(thread.is_alive() for thread in threads)


@pytest.mark.parametrize("cancel", [False, True])
def test_a_task_shuts_down_with_others_queued(cancel: bool, gate: threading.Event) -> None:
    """From inside, cancel_futures cancels what is queued, and without it everything is run."""
    ex = BoundedExecutor(1)
    box: list[Any] = []

    def task() -> list[bool]:
        gate.wait(30)
        ex.shutdown(wait=True, cancel_futures=cancel)
        return [future.cancelled() for future in box]

    first = ex.submit(task)
    box += [ex.submit(int) for _ in range(3)]
    gate.set()
    assert first.result(30) == [cancel] * 3
    ex.shutdown()
    assert [future.cancelled() for future in box] == [cancel] * 3


def test_a_callback_of_a_cancelled_future_shuts_down(gate: threading.Event) -> None:
    """shutdown(cancel_futures=True) calls it, and it calls shutdown: no recursion, no hang."""
    ex = BoundedExecutor(1)
    hold(ex, gate)
    calls: list[int] = []
    for _ in range(3):
        ex.submit(int).add_done_callback(
            lambda _: (calls.append(1), ex.shutdown(wait=False, cancel_futures=True))
        )
    ex.shutdown(wait=False, cancel_futures=True)
    gate.set()
    ex.shutdown()
    assert calls == [1] * 3


def test_a_task_may_still_wait_after_shutdown() -> None:
    """Helping does not end with admission: what was accepted is run by whoever waits for it."""
    go = threading.Event()
    ex = BoundedExecutor(1)
    box: list[Any] = []

    def outer() -> int:
        go.wait(30)
        ex.shutdown(wait=False)
        return int(box[0].result()) + 1

    first = ex.submit(outer)
    box.append(ex.submit(int))
    go.set()
    assert first.result(30) == 1
    ex.shutdown()


@pytest.mark.parametrize("leave", [KeyboardInterrupt, SystemExit])
def test_leaving_with_by_a_subclass_of_an_interrupt_cancels(leave: type[BaseException]) -> None:
    """A class derived from it is one."""

    class Mine(leave):  # type: ignore[misc, valid-type]
        pass

    gate = threading.Event()
    queued: list[Any] = []
    with pytest.raises(Mine), BoundedExecutor(1) as ex:
        hold(ex, gate)
        queued += [ex.submit(int) for _ in range(3)]
        queued[-1].add_done_callback(lambda _: gate.set())
        raise Mine
    assert all(future.cancelled() for future in queued)


def test_with_gives_the_executor_and_swallows_nothing() -> None:
    """Entering a closed one is no way to open it."""
    ex = BoundedExecutor(1)
    with ex as same:
        assert same is ex
    assert ex.closed
    with ex, pytest.raises(PoolClosedError):
        ex.submit(int)


@pytest.mark.parametrize("timeout", [-1, float("nan"), float("-inf")])
def test_impossible_timeouts(timeout: float) -> None:
    """stop() and wait() refuse them, and nothing has happened."""
    with BoundedExecutor(1) as ex:
        for call in (ex.stop, ex.wait):
            with pytest.raises(ValueError, match="timeout"):
                call(timeout)
        with pytest.raises(TypeError):
            ex.stop(token=3)  # type: ignore[arg-type]
        assert not ex.closed
        assert ex.submit(int).result(30) == 0


@pytest.mark.parametrize("timeout", [float("inf"), 1e10, 1e300, None])
def test_very_long_timeouts(timeout: float | None) -> None:
    """They wait for as long as it takes."""
    ex = BoundedExecutor(1)
    future = ex.submit(int)
    assert ex.wait(timeout)
    ex.stop(timeout)
    assert future.result(0) == 0


def test_stop_with_a_cancelled_token(gate: threading.Event) -> None:
    """Time is up at once; with nothing to do there is no error."""
    token = CancelToken()
    token.cancel()
    BoundedExecutor(1).stop(token=token)
    ex = BoundedExecutor(1)
    hold(ex, gate)
    queued = ex.submit(int)
    with pytest.raises(ForcedShutdownError):
        ex.stop(token=token)
    assert queued.cancelled()
    gate.set()
    ex.shutdown()


def test_stop_by_the_sooner_of_timeout_and_token(gate: threading.Event) -> None:
    """Either of them ends it."""
    never, token = CancelToken(), CancelToken()
    token.cancel()
    for arguments in ({"timeout": 3600, "token": token}, {"timeout": 0.01, "token": never}):
        ex = BoundedExecutor(1)
        hold(ex, gate)
        with pytest.raises(ForcedShutdownError):
            ex.stop(**arguments)
    assert not never.cancelled
    gate.set()


def test_stop_by_a_deadline(gate: threading.Event) -> None:
    """A token with a timeout is as good as a timeout."""
    ex = BoundedExecutor(1)
    hold(ex, gate)
    with pytest.raises(ForcedShutdownError):
        ex.stop(token=CancelToken(timeout=0.01))
    gate.set()
    ex.shutdown()


def test_stop_after_stop(gate: threading.Event) -> None:
    """It is out of time again while something runs, and fine once that has ended."""
    ex = BoundedExecutor(1)
    (running,) = hold(ex, gate)
    for _ in range(2):
        with pytest.raises(ForcedShutdownError) as caught:
            ex.stop(0)
        assert [task.task_id for task in caught.value.unfinished] == [running.task_id]
    gate.set()
    ex.stop(30)
    assert running.result(0) is True


def test_several_threads_stop(gate: threading.Event) -> None:
    """Each is told, each within its time."""
    ex = BoundedExecutor(1)
    hold(ex, gate)
    queued = ex.submit(int)
    results = together(4, lambda: ex.stop(0.01))
    assert [type(result) for result in results] == [ForcedShutdownError] * 4
    assert queued.cancelled()
    gate.set()
    assert together(4, lambda: ex.stop(30)) == [None] * 4


def test_what_stop_cancels_is_told() -> None:
    """The callbacks of queued tasks are called; a task that heeds its token ends as it likes."""
    ex = BoundedExecutor(1)
    started = threading.Event()

    def task() -> object:
        started.set()
        current_token().wait(30)
        return current_token().reason

    running = ex.submit(task)
    assert started.wait(30)
    heard: list[Any] = []
    queued = ex.submit(int)
    queued.add_done_callback(heard.append)
    with pytest.raises(ForcedShutdownError):
        ex.stop(0)
    assert heard == [queued]
    assert "stopped" in str(running.result(30))
    ex.shutdown()
    stats = ex.stats()
    assert (stats.completed_tasks, stats.cancelled_tasks, stats.closed) == (1, 1, True)


def test_what_is_unfinished_is_listed_in_full(gate: threading.Event) -> None:
    """Each running task, oldest first, with id, name, worker, age and stack; queued ones are not."""
    ex = BoundedExecutor(3, "w")
    tasks = [*hold(ex, gate, 2)]
    named = threading.Event()

    def last() -> None:
        named.set()
        gate.wait(30)

    tasks.append(ex.options(name="the last").submit(last))
    assert named.wait(30)
    ex.submit(int)
    with pytest.raises(ForcedShutdownError) as caught:
        ex.stop(0)
    unfinished = caught.value.unfinished
    assert {entry.task_id for entry in unfinished} == {task.task_id for task in tasks}
    assert [entry.seconds for entry in unfinished] == sorted(
        (entry.seconds for entry in unfinished), reverse=True
    )
    text = str(caught.value)
    for entry in unfinished:
        assert entry.seconds > 0
        assert entry.waited >= 0
        assert entry.worker.startswith("w_")
        assert entry.stack is not None
        assert "gate.wait(30)" in entry.stack
        assert f"task {entry.task_id} " in text
        assert entry.name in text
    assert "3 tasks" in text
    assert "the last" in text
    gate.set()
    ex.shutdown()


def test_a_closed_pool_is_still_asked(gate: threading.Event) -> None:
    """stats(), running(), wait(), repr() and the old names answer after the end."""
    ex = BoundedExecutor(1)
    assert (ex.closed, ex._shutdown) == (False, False)
    hold(ex, gate)
    ex.shutdown(wait=False)
    assert (ex.closed, ex._shutdown) == (True, True)
    assert len(ex.running()) == 1
    assert ex.wait(0) is False
    gate.set()
    assert ex.wait(30) is True
    ex.shutdown()
    assert ex.running() == []
    assert ex.stats().closed
    assert repr(ex)


def test_wait_in_several_threads(gate: threading.Event) -> None:
    """All are told; tasks submitted meanwhile count as well."""
    with BoundedExecutor(2) as ex:
        hold(ex, gate)
        more: list[Any] = []
        ex.submit(lambda: more.append(ex.submit(lambda: more.append(ex.submit(int)))))
        opener = threading.Thread(target=gate.set)
        opener.start()
        assert together(4, lambda: ex.wait(30)) == [True] * 4
        opener.join(30)
        assert [future.done() for future in more] == [True, True]


def test_wait_sees_a_cancelled_queue(gate: threading.Event) -> None:
    """Cancelling the last that is queued is as good as finishing it."""
    with BoundedExecutor(1, queue_size=5) as ex:
        (running,) = hold(ex, gate)
        queued = [ex.submit(int) for _ in range(5)]
        gate.set()
        for future in queued:
            future.cancel()
        assert ex.wait(30)
        assert running.done()
