"""Shutdown, stop, exit, fork, collection, broken initializers: life and death of a pool."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, wait
from concurrent.futures.thread import BrokenThreadPool
from pathlib import Path
from typing import Any

import pytest

import futurepool
from futurepool import (
    BoundedExecutor,
    CancelToken,
    ForcedShutdownError,
    PoolClosedError,
    current_token,
)

HOME = Path(futurepool.__file__).parent.parent


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    gate = threading.Event()
    yield gate
    gate.set()


def python(code: str) -> subprocess.CompletedProcess[str]:
    """Run a script of its own, with every warning an error."""
    return subprocess.run(  # noqa: PLW1510 - the caller looks
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=50,
        env={**os.environ, "PYTHONPATH": str(HOME)},
    )


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
        ex = BoundedExecutor(1, shutdown_timeout=0.05)
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
            threading.Event().wait()
        """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(HOME)},
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
