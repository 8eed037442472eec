"""Shutdown, stop, exit, fork, collection, broken initializers: life and death of a pool."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import weakref
from concurrent.futures import CancelledError, wait
from concurrent.futures.thread import BrokenThreadPool
from typing import Any

import pytest

from futurepool import (
    BoundedExecutor,
    CancelToken,
    ForcedShutdownError,
    PoolClosedError,
    _sync,
    current_token,
)
from tests.helpers import hold
from tests.programs import environment, python

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


# -- workers ------------------------------------------------------------------------------------------


def test_thread_names() -> None:
    """As the standard library's."""
    with BoundedExecutor(1, "crawl") as ex:
        assert ex.submit(lambda: threading.current_thread().name).result() == "crawl_0"
    with BoundedExecutor(1) as ex:
        name = ex.submit(lambda: threading.current_thread().name).result()
        assert name.startswith("ThreadPoolExecutor-")


def test_initializer() -> None:
    """Once in each worker, before its first task."""
    local = threading.local()

    def initialize(value: int) -> None:
        local.value = value

    with BoundedExecutor(2, initializer=initialize, initargs=(7,)) as ex:
        assert list(ex.map(lambda _: local.value, range(10))) == [7] * 10


def test_a_failing_initializer(caplog: pytest.LogCaptureFixture) -> None:
    """The pool is broken: what is queued fails, what comes is refused."""
    go = threading.Event()

    def initialize() -> None:
        go.wait(30)
        raise LookupError("no database")

    ex = BoundedExecutor(1, initializer=initialize)
    futures = [ex.submit(int) for _ in range(3)]
    go.set()
    for future in futures:
        with pytest.raises(BrokenThreadPool):
            future.result(30)
    with pytest.raises(BrokenThreadPool, match="initializer failed"):
        ex.submit(int)
    assert ex._broken
    ex.shutdown()
    assert "no database" in caplog.text


def test_a_later_worker_whose_initializer_fails(gate: threading.Event) -> None:
    """The pool breaks, what runs is finished."""
    numbers = iter(range(10))

    def initialize() -> None:
        if next(numbers):
            raise SystemExit

    ex = BoundedExecutor(2, initializer=initialize)
    first = ex.submit(gate.wait)
    while not first.running():
        ex.running()
    second = ex.submit(int)
    with pytest.raises(BrokenThreadPool):
        second.result(30)
    gate.set()
    assert first.result(30) is True
    ex.shutdown()


def test_a_dropped_executor_ends_its_threads(gate: threading.Event) -> None:
    """And runs what it has accepted first."""
    ex = BoundedExecutor(2)
    futures = [ex.submit(gate.wait), *(ex.submit(int) for _ in range(5))]
    threads = ex._threads
    del ex
    gc.collect()
    gate.set()
    wait(futures, 30)
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert [future.result(0) for future in futures[1:]] == [0] * 5


# -- the end of the process ------------------------------------------------------------------------


@pytest.mark.slow
def test_exit_drains() -> None:
    """What is queued at exit is run, as ThreadPoolExecutor does."""
    done = python(
        """
        import threading
        from futurepool import BoundedExecutor
        ex, gate = BoundedExecutor(1), threading.Event()
        ex.submit(gate.wait)
        for n in range(3):
            ex.submit(print, n)
        gate.set()
        """
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n1\n2\n", "")


@pytest.mark.slow
def test_exit_does_not_wait_for_ever() -> None:
    """A task that never ends is left behind, and named on stderr."""
    done = python(
        """
        import threading
        from futurepool import BoundedExecutor
        ex = BoundedExecutor(1, exit_timeout=0.05)
        started = threading.Event()
        def endless():
            started.set()
            threading.Event().wait()
        ex.submit(endless)
        started.wait()
        ex.submit(print, "never")
        """
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert "abandoned" in done.stderr
    assert "endless" in done.stderr
    assert "1 queued task" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_submitting_during_exit() -> None:
    """Refused, with the standard library's words."""
    done = python(
        """
        import threading
        from futurepool import BoundedExecutor
        ex = BoundedExecutor(1)
        def late():
            while not ex.closed:
                threading.Event().wait(0.01)
            try:
                ex.submit(int)
            except RuntimeError as error:
                print(error)
        ex.submit(late)
        """
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "cannot schedule new futures after interpreter shutdown\n"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT to one process")
def test_ctrl_c_out_of_a_with_block() -> None:
    """The queue is cancelled, what runs is finished, the exit is Python's usual one."""
    script = """
        import signal, threading
        from futurepool import BoundedExecutor
        signal.signal(signal.SIGINT, signal.default_int_handler)
        gate = threading.Event()
        with BoundedExecutor(1) as ex:
            ex.submit(gate.wait)
            queued = ex.submit(print, "never")
            queued.add_done_callback(lambda f: (print("cancelled", f.cancelled()), gate.set()))
            print("ready", flush=True)
            while True:  # of a signal just before a sleep Python hears after it
                threading.Event().wait(0.1)
        """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=50)
    assert out == "cancelled True\n"
    assert "KeyboardInterrupt" in err
    assert process.returncode in (-signal.SIGINT, 130, 1)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_fork() -> None:
    """The child's pool is new and works, inherited futures are cancelled, the parent goes on."""
    done = python(
        """
        import os, threading, warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: threads and fork do not mix
        from futurepool import BoundedExecutor
        ex, gate = BoundedExecutor(2, queue_size=5), threading.Event()
        told = []
        futures = [ex.submit(gate.wait) for _ in range(4)]
        futures[3].add_done_callback(told.append)
        pid = os.fork()
        if pid == 0:
            assert all(future.cancelled() for future in futures)
            assert told == []
            assert [ex.try_submit(pow, n, 2).result(20) for n in range(20)][-1] == 361
            stats = ex.stats()
            parts = stats.completed_tasks + stats.cancelled_tasks
            assert (stats.submitted_tasks, parts) == (24, 24), stats
            ex.shutdown()
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        gate.set()
        assert [future.result(20) for future in futures] == [True] * 4
        assert ex.submit(int).result(20) == 0
        ex.shutdown()
        print("ok")
        """
    )
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_fork_in_a_task() -> None:
    """The child is the task's thread alone; it can use the pool and leave."""
    done = python(
        """
        import os, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from futurepool import BoundedExecutor
        ex = BoundedExecutor(1)
        def task():
            pid = os.fork()
            if pid == 0:
                os._exit(5 if ex.submit(int).result(20) == 0 else 6)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(ex.submit(task).result(30))
        """
    )
    assert (done.returncode, done.stdout) == (0, "5\n"), done.stderr


def test_submitting_after_the_end_names_it() -> None:
    """PoolClosedError, a RuntimeError, for submit and for map."""
    ex = BoundedExecutor(1)
    ex.shutdown()
    for call in (lambda: ex.submit(int), lambda: ex.map(int, ["1"])):
        with pytest.raises(PoolClosedError, match="after shutdown"):
            call()
    assert list(ex.map(int, [])) == []


def test_results_outlive_the_pool() -> None:
    """Futures answer after shutdown, cancelled ones with CancelledError."""
    token = CancelToken()
    with BoundedExecutor(1) as ex:
        value: Any = ex.submit(pow, 2, 3)
        token.cancel()
        never = ex.submit_with_token(token, int)
    del ex
    assert value.result() == 8
    with pytest.raises(CancelledError):
        never.result()


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


# -- threads that do not start, initializers that do not work ---------------------------------------


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Lets the k-th starts fail that are listed, with the error given."""

    def refuse(numbers: set[int], error: BaseException) -> list[int]:
        start, count = _sync.start, [0]

        def sometimes(thread: threading.Thread) -> None:
            count[0] += 1
            if count[0] in numbers:
                raise error
            start(thread)

        monkeypatch.setattr(_sync, "start", sometimes)
        return count

    return refuse


NO_THREAD = [RuntimeError("can't start new thread"), MemoryError()]

ENTRANCES: dict[str, Any] = {
    "submit": lambda ex, fn: ex.submit(fn),
    "try_submit": lambda ex, fn: ex.try_submit(fn),
    "with_timeout": lambda ex, fn: ex.submit_with_timeout(0, fn),
    "with_priority": lambda ex, fn: ex.submit_with_priority(5, fn),
    "with_token": lambda ex, fn: ex.submit_with_token(CancelToken(), fn),
    "named": lambda ex, fn: ex.options(name="n").submit(fn),
}


@pytest.mark.parametrize("error", NO_THREAD, ids=repr)
@pytest.mark.parametrize("entrance", ENTRANCES)
def test_the_first_thread_does_not_start(entrance: str, error: Exception, refusing: Any) -> None:
    """The submit raises, whichever it is; the task never runs, its place is free, the next works."""
    ran: list[int] = []
    refusing({1}, error)
    with BoundedExecutor(1, queue_size=0) as ex:
        with pytest.raises(type(error)):
            ENTRANCES[entrance](ex, lambda: ran.append(1))
        assert ex.wait(0)
        assert ex.stats().queued_tasks == 0
        assert ENTRANCES[entrance](ex, lambda: 5).result(30) == 5
        stats = ex.stats()
        assert stats.submitted_tasks == stats.completed_tasks + stats.cancelled_tasks
    assert ran == []


@pytest.mark.parametrize("error", NO_THREAD, ids=repr)
@pytest.mark.parametrize("numbers", [{2}, {3}, {2, 3, 4, 5, 6, 7, 8, 9}])
def test_a_later_thread_does_not_start(
    numbers: set[int], error: Exception, refusing: Any, gate: threading.Event
) -> None:
    """With a worker there it only means fewer: the task is accepted and run."""
    refusing(numbers, error)
    with BoundedExecutor(4) as ex:
        (first,) = hold(ex, gate)
        futures = [ex.submit(pow, n, 2) for n in range(6)]
        gate.set()
        assert [future.result(30) for future in futures] == [n * n for n in range(6)]
        assert first.result(30) is True
        assert len(ex._threads) <= 4


def test_a_pool_short_of_threads_grows_later(refusing: Any, gate: threading.Event) -> None:
    """A start that failed is tried again with the next task that needs it."""
    refusing({2, 3}, RuntimeError("can't start new thread"))
    with BoundedExecutor(2) as ex:
        hold(ex, gate)
        waiting = [ex.submit(threading.get_ident) for _ in range(3)]
        assert [future.result(30) is not None for future in waiting] == [True] * 3
        assert len(ex._threads) == 2
        gate.set()


def test_no_thread_for_a_shut_down_pool(refusing: Any) -> None:
    """A refused submit leaves nothing that shutdown would wait for."""
    refusing({1}, RuntimeError("can't start new thread"))
    ex = BoundedExecutor(1)
    with pytest.raises(RuntimeError, match="new thread"):
        ex.submit(int)
    ex.shutdown()
    ex.stop(0)
    assert ex._threads == set()


def test_an_initializer_gets_its_arguments_in_every_worker(gate: threading.Event) -> None:
    """Once in each thread, in that thread."""
    seen: list[tuple[object, int]] = []
    with BoundedExecutor(
        3, "init", lambda *args: seen.append((args, threading.get_ident())), (1, "x")
    ) as ex:
        hold(ex, gate, 3)
        workers = {thread.ident for thread in ex._threads}
        gate.set()
    assert [args for args, _ in seen] == [(1, "x")] * 3
    assert {ident for _, ident in seen} == workers


@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt])
def test_whatever_the_initializer_raises(kind: type[BaseException], gate: threading.Event) -> None:
    """The pool is broken: queued futures fail with BrokenThreadPool as itself, blocked submits raise."""

    def initialize() -> None:
        gate.wait(30)
        raise kind

    ex = BoundedExecutor(1, initializer=initialize, queue_size=1)
    futures = [ex.submit(int) for _ in range(2)]
    results: list[BaseException] = []

    def blocked() -> None:
        try:
            ex.submit(int)
        except BaseException as error:
            results.append(error)

    thread = threading.Thread(target=blocked)
    thread.start()
    gate.set()
    thread.join(30)
    assert [type(error) for error in results] == [BrokenThreadPool]
    for future in futures:
        assert type(future.exception(30)) is BrokenThreadPool
    for submit in (ex.submit, ex.try_submit, ex.options(priority=2).submit):
        with pytest.raises(BrokenThreadPool):
            submit(int)
    with pytest.raises(BrokenThreadPool):
        list(ex.map(int, ["1"]))
    assert ex.closed
    assert ex.wait(30)
    ex.shutdown()
    ex.stop(0)


def test_an_initializer_that_shuts_the_pool_down() -> None:
    """It cannot wait for itself: shutdown(wait=True) there neither hangs nor loses a task."""
    ex: BoundedExecutor
    done = threading.Event()

    def initialize() -> None:
        try:
            ex.shutdown()
        finally:
            done.set()

    ex = BoundedExecutor(1, initializer=initialize, shutdown_timeout=0.1)
    future = ex.submit(int)
    assert done.wait(10)
    wait([future], 30)
    assert future.done()


# -- collection ------------------------------------------------------------------------------------


def gone(ref: weakref.ref[Any]) -> bool:
    gc.collect()
    return ref() is None


def test_an_idle_executor_is_collected() -> None:
    """No worker, future or token keeps the executor; its threads end."""
    ex = BoundedExecutor(2)
    future = ex.submit_with_token(CancelToken(), int)
    assert future.result(30) == 0
    threads = ex._threads
    ref = weakref.ref(ex)
    del ex
    assert gone(ref)
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert future.result(0) == 0


def test_an_executor_in_a_cycle_is_collected() -> None:
    """The garbage collector closes it like anybody else."""
    ex: Any = BoundedExecutor(1)
    ex.itself = ex
    assert ex.submit(int).result(30) == 0
    threads = ex._threads
    del ex
    gc.collect()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)


def test_an_executor_dropped_by_its_own_task() -> None:
    """The last reference dies inside a worker: what is queued is run, the thread ends."""
    box: list[Any] = [BoundedExecutor(1)]
    go = threading.Event()

    def task() -> None:
        go.wait(30)
        box.clear()
        gc.collect()

    first = box[0].submit(task)
    rest = [box[0].submit(int) for _ in range(5)]
    threads = box[0]._threads
    go.set()
    assert first.result(30) is None
    assert [future.result(30) for future in rest] == [0] * 5
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)


def test_a_forgotten_executor_helps_and_cancels(gate: threading.Event) -> None:
    """Its futures still cancel, wait and help each other."""
    ex = BoundedExecutor(1)
    hold(ex, gate)
    dropped, kept = ex.submit(int), ex.submit(int)
    outer = ex.submit(kept.result)
    del ex
    gc.collect()
    assert dropped.cancel()
    gate.set()
    assert outer.result(30) == 0
    assert kept.result(30) == 0


def test_a_hundred_forgotten_executors_leave_no_thread() -> None:
    """Made, used and dropped in a row."""
    threads: list[threading.Thread] = []
    for _ in range(100):
        ex = BoundedExecutor(2)
        assert ex.submit(int).result(30) == 0
        threads += ex._threads
        del ex
    gc.collect()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)


# -- the end of the process, continued -------------------------------------------------------------


@pytest.mark.slow
def test_exit_with_one_pool_stuck() -> None:
    """Others drain all the same; what is stuck is named with its id; the status is the program's."""
    done = python(
        """
        import sys, threading
        from futurepool import BoundedExecutor
        stuck = BoundedExecutor(1, exit_timeout=0.05)
        started = threading.Event()
        def endless():
            started.set()
            while True:
                threading.Event().wait()
        stuck.options(name="job-17").submit(endless)
        started.wait()
        fine = BoundedExecutor(1)
        gate = threading.Event()
        fine.submit(gate.wait)
        for n in range(3):
            fine.submit(print, n)
        gate.set()
        sys.exit(3)
        """
    )
    assert (done.returncode, done.stdout) == (3, "0\n1\n2\n")
    assert "task 1" in done.stderr
    assert "job-17" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_exit_with_a_task_stuck_in_a_loop() -> None:
    """A worker that never lets go of the processor does not keep the process, either."""
    done = python(
        """
        import threading
        from futurepool import BoundedExecutor
        ex = BoundedExecutor(1, exit_timeout=0.05)
        started = threading.Event()
        def spin():
            started.set()
            while True:
                pass
        ex.submit(spin)
        started.wait()
        """
    )
    assert done.returncode == 0, done.stderr
    assert "spin" in done.stderr


@pytest.mark.slow
def test_exit_tells_who_listens() -> None:
    """A task that heeds its token may end in time: it is told when the time is up."""
    done = python(
        """
        import threading
        from futurepool import BoundedExecutor, current_token
        ex = BoundedExecutor(1, exit_timeout=0.05)
        started = threading.Event()
        def heeds():
            token = current_token()
            started.set()
            print("told", token.wait(30), flush=True)
        ex.submit(heeds)
        started.wait()
        """
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout in ("told True\n", "")


@pytest.mark.slow
def test_exit_of_a_forgotten_pool() -> None:
    """Dropped, never shut down, with tasks queued: they are run."""
    done = python(
        """
        import gc, threading
        from futurepool import BoundedExecutor
        gate = threading.Event()
        def use():
            ex = BoundedExecutor(1)
            ex.submit(gate.wait)
            for n in range(3):
                ex.submit(print, n)
        use()
        gc.collect()
        gate.set()
        """
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n1\n2\n", "")


@pytest.mark.slow
def test_exit_runs_what_waits_inside() -> None:
    """A task that waits for queued tasks of its pool is drained, too."""
    done = python(
        """
        import threading
        from futurepool import BoundedExecutor
        ex, gate = BoundedExecutor(1), threading.Event()
        inner = []
        def outer():
            gate.wait()
            print("sum", sum(future.result() for future in inner))
        ex.submit(outer)
        inner += [ex.submit(int, n) for n in range(5)]
        gate.set()
        """
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "sum 10\n", "")


@pytest.mark.slow
def test_exit_turns_blocked_submitters_away() -> None:
    """A thread that waits for a place at exit is refused; the process ends."""
    done = python(
        """
        import threading
        from futurepool import BoundedExecutor
        ex, gate = BoundedExecutor(1, queue_size=0), threading.Event()
        ex.submit(gate.wait)
        started = threading.Event()
        def blocked():
            started.set()
            try:
                ex.submit(print, "never")
            except RuntimeError as error:
                print(error, flush=True)
            gate.set()
        threading.Thread(target=blocked, daemon=True).start()
        started.wait()
        """
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "cannot schedule new futures after interpreter shutdown\n"


@pytest.mark.slow
def test_exit_by_an_exception() -> None:
    """An uncaught error of the main thread is shown, and the pool drains."""
    done = python(
        """
        import threading
        from futurepool import BoundedExecutor
        ex, gate = BoundedExecutor(1), threading.Event()
        ex.submit(gate.wait)
        ex.submit(print, "ran")
        gate.set()
        raise LookupError("main failed")
        """
    )
    assert (done.returncode, done.stdout) == (1, "ran\n")
    assert "LookupError: main failed" in done.stderr


@pytest.mark.slow
def test_a_forgotten_failure_at_exit_is_logged() -> None:
    """The last word of a failed task does not get lost with the process."""
    done = python(
        """
        import threading
        from futurepool import BoundedExecutor
        ex, gate = BoundedExecutor(1), threading.Event()
        ex.submit(gate.wait)
        ex.submit(int, "bad input")
        gate.set()
        """
    )
    assert done.returncode == 0
    assert "bad input" in done.stderr
    assert "never retrieved" in done.stderr


def interrupt(script: str) -> tuple[str, str, int]:
    """Run a script, send it Ctrl-C at each line "now" that it prints; what it printed, and status."""
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as process:
        timer = threading.Timer(40, process.kill)
        timer.start()
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            lines = []
            for line in process.stdout:
                if line == "now\n":
                    process.send_signal(signal.SIGINT)
                else:
                    lines.append(line)
            return "".join(lines), process.stderr.read(), process.wait()
        finally:
            timer.cancel()


needs_sigint = pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT to one process")


@pytest.mark.slow
@needs_sigint
def test_ctrl_c_while_shutdown_waits() -> None:
    """shutdown(wait=True) can be interrupted; the pool goes on, and again is fine."""
    out, err, status = interrupt(
        """
        import signal, threading
        from futurepool import BoundedExecutor
        signal.signal(signal.SIGINT, signal.default_int_handler)
        ex, gate = BoundedExecutor(1), threading.Event()
        running, queued = ex.submit(gate.wait), ex.submit(int)
        try:
            print("now", flush=True)
            ex.shutdown()
        except KeyboardInterrupt:
            print("interrupted", ex.closed or "before", queued.done())
        gate.set()
        ex.shutdown()
        print(running.result(), queued.result())
        """
    )
    assert out in ("interrupted True False\nTrue 0\n", "interrupted before False\nTrue 0\n"), err
    assert status == 0


@pytest.mark.slow
@needs_sigint
@pytest.mark.parametrize(
    "call", ["ex.wait()", "ex.stop(None)", "future.result()", "ex.submit(int)"]
)
def test_ctrl_c_while_something_else_waits(call: str) -> None:
    """Whatever the main thread waits in, Ctrl-C gets it out, and the pool is sound after it."""
    out, err, status = interrupt(
        f"""
        import signal, threading
        from futurepool import BoundedExecutor
        signal.signal(signal.SIGINT, signal.default_int_handler)
        ex, gate = BoundedExecutor(1, queue_size=0), threading.Event()
        future = ex.submit(gate.wait)
        try:
            print("now", flush=True)
            {call}
        except KeyboardInterrupt:
            print("interrupted")
        gate.set()
        print(future.result())
        assert ex.wait(20)
        stats = ex.stats()
        print(stats.active_workers, stats.queued_tasks)
        if not ex.closed:
            print(ex.submit(int).result())
        ex.shutdown()
        """
    )
    assert out in ("interrupted\nTrue\n0 0\n0\n", "interrupted\nTrue\n0 0\n"), err
    assert status == 0


@pytest.mark.slow
@needs_sigint
def test_ctrl_c_at_exit() -> None:
    """While the exit drains: it stops waiting, and says what it left behind."""
    out, err, _ = interrupt(
        """
        import signal, threading
        from futurepool import BoundedExecutor
        signal.signal(signal.SIGINT, signal.default_int_handler)
        ex = BoundedExecutor(1)
        def endless():
            threading.main_thread().join(0.01)
            while not ex.closed:
                threading.Event().wait(0.001)
            print("now", flush=True)
            while True:
                threading.Event().wait()
        ex.submit(endless)
        """
    )
    assert out == ""
    assert "endless" in err or "KeyboardInterrupt" in err


# -- fork, continued -------------------------------------------------------------------------------

FORK = """
        import os, signal, sys, threading, warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: threads and fork do not mix
        from concurrent.futures import CancelledError, wait, as_completed
        from futurepool import BoundedExecutor, CancelToken, current_token

        def in_child(check):
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    signal.alarm(20)
                    check()
                    status = 0
                finally:
                    os._exit(status)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


def forking(body: str) -> None:
    done = python(textwrap.dedent(FORK) + textwrap.dedent(body))
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stdout + done.stderr


@pytest.mark.slow
@needs_fork
def test_inherited_futures_in_the_child() -> None:
    """Cancelled if they were pending or running, as they were if they were done; nothing hangs."""
    forking(
        """
        ex, gate = BoundedExecutor(1), threading.Event()
        done, failed = ex.submit(int), ex.submit(int, "x")
        wait([done, failed])
        running = ex.submit(gate.wait)
        while not running.running():
            pass
        queued = ex.submit(int)
        dropped = ex.submit(int)
        dropped.cancel()

        def check():
            assert done.result() == 0
            assert isinstance(failed.exception(), ValueError)
            for future in (running, queued, dropped):
                assert future.cancelled()
                assert future.cancel()
                try:
                    future.result()
                except CancelledError:
                    continue
                raise AssertionError(future)
            futures = {done, failed, running, queued, dropped}
            assert wait(futures).done == futures
            assert set(as_completed(futures)) == futures
            called = []
            queued.add_done_callback(called.append)
            assert called == [queued]

        assert in_child(check) == 0
        gate.set()
        assert running.result(20) is True
        assert queued.result(20) == 0
        assert failed.exception() is not None
        print("ok")
        """
    )


@pytest.mark.slow
@needs_fork
def test_histograms_in_the_child() -> None:
    """What the parent's workers had noted is counted there, too."""
    forking(
        """
        ex = BoundedExecutor(1, enable_metrics=True)
        for _ in range(10):
            ex.submit(int)
        ex.wait()

        def check():
            ex.submit(int).result(20)
            stats = ex.stats()
            assert stats.latency.count == stats.wait.count == stats.completed_tasks == 11

        assert in_child(check) == 0
        assert ex.stats().latency.count == 10
        print("ok")
        """
    )


@pytest.mark.slow
@needs_fork
def test_the_childs_executor_is_new() -> None:
    """Its place, threads, counts and tokens are its own; it can be shut down and stopped."""
    forking(
        """
        ex, gate = BoundedExecutor(1, queue_size=1), threading.Event()
        ex.submit(gate.wait)
        ex.submit(int)
        token = CancelToken()

        def check():
            assert ex._threads == set()
            assert ex.running() == []
            assert ex.wait(0)
            stats = ex.stats()
            assert (stats.active_workers, stats.queued_tasks) == (0, 0)
            here = threading.Event()
            ex.try_submit(here.wait)
            ex.try_submit(int)
            try:
                ex.try_submit(int)
            except Exception as error:
                assert type(error).__name__ == "QueueFullError"
            else:
                raise AssertionError
            here.set()
            assert ex.wait(20)
            started = threading.Event()
            task = ex.submit_with_token(token, lambda: (started.set(), current_token().wait(20))[1])
            assert started.wait(20)
            token.cancel()
            assert task.result(20) is True
            ex.stop(20)
            with BoundedExecutor(2) as other:
                assert list(other.map(int, "123")) == [1, 2, 3]

        assert in_child(check) == 0
        assert not token.cancelled
        gate.set()
        assert ex.wait(20)
        assert ex.stats().completed_tasks == 2
        print("ok")
        """
    )


@pytest.mark.slow
@needs_fork
def test_forking_in_the_middle_of_things() -> None:
    """Twenty forks while four threads submit, cancel and wait; no child and no parent hangs."""
    forking(
        """
        ex = BoundedExecutor(2, queue_size=4)
        over = threading.Event()
        counts = []

        def use():
            token = CancelToken()
            number = 0
            while not over.is_set():
                futures = [ex.submit(int), ex.submit_with_token(token, int)]
                futures[1].cancel()
                wait(futures)
                number += 2
            counts.append(number)

        threads = [threading.Thread(target=use) for _ in range(4)]
        for thread in threads:
            thread.start()

        def check():
            assert [ex.submit(pow, n, 2).result(15) for n in range(5)] == [0, 1, 4, 9, 16]
            ex.shutdown()

        try:
            codes = [in_child(check) for _ in range(20)]
        finally:
            over.set()
        for thread in threads:
            thread.join(20)
        assert codes == [0] * 20, codes
        ex.shutdown()
        stats = ex.stats()
        assert stats.submitted_tasks == sum(counts), (stats, counts)
        assert stats.completed_tasks + stats.cancelled_tasks == sum(counts)
        print("ok")
        """
    )


@pytest.mark.slow
@needs_fork
def test_a_child_that_ends_normally() -> None:
    """Its exit hook drains its own tasks and does not wait for the parent's."""
    forking(
        """
        ex, gate = BoundedExecutor(1), threading.Event()
        ex.submit(gate.wait)
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)
            here = threading.Event()
            ex.submit(here.wait)
            ex.submit(os.write, write, b"drained")
            here.set()
            sys.exit(4)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 4
        os.close(write)
        assert os.read(read, 100) == b"drained"
        gate.set()
        print("ok")
        """
    )


@pytest.mark.slow
@needs_fork
def test_a_grandchild() -> None:
    """Fork again, in the child, with its pool in use."""
    forking(
        """
        ex, gate = BoundedExecutor(1), threading.Event()
        ex.submit(gate.wait)

        def deeper():
            assert ex.submit(int).result(20) == 0

        def check():
            here = threading.Event()
            mine = ex.submit(here.wait)
            assert in_child(lambda: (deeper(), mine.cancelled() or sys.exit(1))) == 0
            here.set()
            assert mine.result(20) is True

        assert in_child(check) == 0
        gate.set()
        print("ok")
        """
    )


@pytest.mark.slow
@needs_fork
def test_fork_with_a_closed_pool() -> None:
    """Closed before, closed after; one that was draining has nothing left to drain."""
    forking(
        """
        closed, draining, gate = BoundedExecutor(1), BoundedExecutor(1), threading.Event()
        closed.shutdown()
        queued = [draining.submit(gate.wait), draining.submit(int)]
        draining.shutdown(wait=False)

        def check():
            for ex in (closed, draining):
                assert ex.closed
                try:
                    ex.submit(int)
                except RuntimeError:
                    ex.shutdown()
                    continue
                raise AssertionError
            assert all(future.cancelled() for future in queued)

        assert in_child(check) == 0
        gate.set()
        draining.shutdown()
        assert queued[1].result(0) == 0
        print("ok")
        """
    )


@pytest.mark.slow
@needs_fork
def test_fork_in_a_callback_and_in_an_initializer() -> None:
    """Wherever the fork happens, the child can use the pool."""
    forking(
        """
        codes = []

        def child(ex):
            def check():
                assert ex.submit(int).result(20) == 0
                ex.shutdown()
            codes.append(in_child(check))

        ex = BoundedExecutor(1)
        ex.submit(int).add_done_callback(lambda _: child(ex))
        assert ex.wait(20)
        ex.shutdown()
        first = []
        other = BoundedExecutor(1, initializer=lambda: first or (first.append(1), child(other)))
        assert other.submit(int).result(20) == 0
        assert codes == [0, 0], codes
        print("ok")
        """
    )
