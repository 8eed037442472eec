"""What the process does to a pool: exit, Ctrl-C, fork."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any

import pytest

import futurepool
from futurepool import (
    BoundedExecutor,
    CancelToken,
    PoolClosedError,
)
from futurepool._executor import shutdown
from tests.programs import environment, python

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
    """Run a script, send it Ctrl-C at each line "now" that it prints; what it printed, and status.

    One that has not ended in time is, in a way that has it print where its threads are.
    """
    command = [sys.executable, "-X", "faulthandler", "-W", "error", "-c", textwrap.dedent(script)]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as process:
        timer = threading.Timer(90, process.send_signal, [signal.SIGABRT])
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
def test_several_threads_fork_at_once() -> None:
    """Workers of two pools among them: each lets go of what it has held, and of nothing else."""
    forking(
        """
        pools = [BoundedExecutor(3), BoundedExecutor(3)]

        def fork(_):
            pid = os.fork()
            if pid == 0:
                os._exit(0)
            return os.waitpid(pid, 0)[1]

        maps = [ex.map(fork, range(300)) for ex in pools]
        assert [*maps[0], *maps[1]] == [0] * 600
        for ex in pools:
            assert ex.submit(int).result(20) == 0
            ex.shutdown()
        assert in_child(lambda: BoundedExecutor(1).submit(int).result(20)) == 0
        print("ok")
        """
    )


class Watched:
    """A lock that says when it is asked for, and let go of by the thread that has made this."""

    def __init__(self, lock: Any) -> None:
        self._lock = lock
        self._whose = threading.get_ident()
        self._is_owned = lock._is_owned
        self.comes: Callable[[], object] = int
        self.leaves: Callable[[], object] = int

    def acquire(self) -> None:
        self.comes()
        self._lock.acquire()

    def release(self) -> None:
        self._lock.release()
        if threading.get_ident() == self._whose:
            leaves, self.leaves = self.leaves, int
            leaves()

    __enter__ = acquire

    def __exit__(self, *_: object) -> None:
        self.release()


@needs_fork
@pytest.mark.skipif(futurepool.form == "compiled", reason="there the mutex is one in C")
def test_a_fork_that_begins_as_another_one_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each lets go of the mutexes that it holds, and of no other's."""
    came, gone = threading.Event(), threading.Event()

    class Forking(list[Any]):
        def append(self, pool: object) -> None:
            super().append(pool)
            if threading.current_thread() is other:  # in spite of the lock
                came.set()

    def fork() -> None:
        shutdown._before_fork()
        assert gone.wait(30)
        shutdown._after_fork_in_parent()

    other = threading.Thread(target=fork)

    def meet() -> None:
        one.comes = came.set
        other.start()
        assert came.wait(30)

    with BoundedExecutor(1) as ex:
        assert ex.submit(int).result(30) == 0
        mutex: Any = Watched(ex._pool.mutex)
        one: Any = Watched(shutdown._fork)
        monkeypatch.setattr(ex._pool, "mutex", mutex)
        monkeypatch.setattr(shutdown, "_fork", one)
        monkeypatch.setattr(shutdown, "_forking", Forking())
        shutdown._before_fork()
        assert ex._pool in shutdown._forking
        mutex.leaves = meet
        shutdown._after_fork_in_parent()
        gone.set()
        other.join(30)
        assert not other.is_alive()
        assert ex.submit(int).result(30) == 0


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
def test_fork_while_something_is_used_for_the_first_time() -> None:
    """In another thread, which has begun to import what that needs: the child needs it, too."""
    forking(
        """
        begun, gate = threading.Event(), threading.Event()

        class Slow:
            @staticmethod
            def find_spec(name, path, target=None):
                if name == "futurepool._pool.limits" and threading.current_thread() is other:
                    begun.set()
                    gate.wait()

        ex = BoundedExecutor(1)
        other = threading.Thread(target=lambda: ex.options(limit=1))
        sys.meta_path.insert(0, Slow)
        sys.setswitchinterval(1000)  # it goes on when this thread waits, and not before
        other.start()
        begun.wait()
        os.register_at_fork(before=gate.set)  # runs before ours
        assert in_child(lambda: ex.options(limit=1).submit(int).result(20)) == 0
        other.join()
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
        while not codes:  # or the pool might be shut down before the callback forks
            threading.Event().wait(0.001)
        ex.shutdown()
        first = []
        other = BoundedExecutor(1, initializer=lambda: first or (first.append(1), child(other)))
        assert other.submit(int).result(20) == 0
        assert codes == [0, 0], codes
        print("ok")
        """
    )
