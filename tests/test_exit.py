"""The end of the interpreter, told in small programs, each beside the standard class where it has the same."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

import futurepool
from futurepool import BoundedExecutor, _sync

HOME = Path(futurepool.__file__).parent.parent
STANDARD = "from concurrent.futures import ThreadPoolExecutor as Pool\n"
OURS = "from futurepool import BoundedExecutor as Pool\n"


def program(body: str, make: str = OURS) -> subprocess.CompletedProcess[str]:
    """Run a program of its own, with every warning an error."""
    return subprocess.run(  # noqa: PLW1510 - the caller looks
        [sys.executable, "-W", "error", "-c", make + textwrap.dedent(body)],
        capture_output=True,
        text=True,
        timeout=50,
        env={**os.environ, "PYTHONPATH": str(HOME)},
    )


def alike(body: str) -> str:
    """What a program prints that does the same with both classes, and says nothing on stderr."""
    theirs, ours = program(body, STANDARD), program(body)
    assert (ours.returncode, ours.stdout, ours.stderr) == (0, theirs.stdout, ""), theirs.stderr
    return ours.stdout


# -- threads that tasks start ----------------------------------------------------------------------


def test_a_worker_says_that_it_is_no_daemon() -> None:
    """As those of the standard class, from inside and outside; threads of a task inherit that."""
    with BoundedExecutor(1) as ex:
        worker = ex.submit(threading.current_thread).result()
        assert (worker.daemon, type(worker).__name__, "daemon" in repr(worker)) == (
            False,
            "Thread",
            False,
        )
        assert ex.submit(lambda: threading.Thread().daemon).result() is False
        assert ex.submit(lambda: threading.Thread(daemon=True).daemon).result() is True
        with pytest.raises(RuntimeError, match="active thread"):
            worker.daemon = True
    thread = _sync.new_thread(int)
    thread.daemon = True  # as any other that has not been started
    assert thread.daemon


PLACES = {
    "task": "pool.submit(start).result()",
    "callback": "pool.submit(go.wait).add_done_callback(start); go.set()",
    "initializer": "other = Pool(1, initializer=start); other.submit(int).result()",
    "grandchild": "pool.submit(lambda: threading.Thread(target=start).start()).result()",
    "timer": "pool.submit(lambda: threading.Timer(0.05, start).start()).result()",
    "pool in a task": "pool.submit(lambda: Pool(1).submit(start).result()).result()",
    "run by a waiting task": "pool.submit(lambda: pool.submit(start).result()).result()",
}


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_threads_of_tasks_finish_their_work(place: str) -> None:
    """What a task has started is waited for at exit, wherever in the pool it was started."""
    out = program(
        f"""
        import threading
        go, left = threading.Event(), threading.Event()
        def save():
            left.wait()
            threading.Event().wait(0.3)
            print("saved", flush=True)
        def start(*_):
            threading.Thread(target=save).start()
        pool = Pool(1)
        {PLACES[place]}
        left.set()
        """
    )
    assert (out.returncode, out.stdout, out.stderr) == (0, "saved\n", "")


@pytest.mark.slow
def test_daemons_that_tasks_start_do_not_keep_the_process() -> None:
    """Who asks for a daemon gets one."""
    alike(
        """
        import threading
        def start():
            threading.Thread(target=threading.Event().wait, daemon=True).start()
        Pool(1).submit(start).result()
        print("main ends")
        """
    )


@pytest.mark.slow
def test_behind_an_engine_too() -> None:
    """The thread that serves another executor runs callbacks, which may start threads."""
    out = program(
        """
        import concurrent.futures, threading
        left = threading.Event()
        def save():
            left.wait()
            threading.Event().wait(0.3)
            print("saved", flush=True)
        def start(*_):
            threading.Thread(target=save).start()
        with Pool(engine=concurrent.futures.ThreadPoolExecutor(1)) as pool:
            pool.submit(int).add_done_callback(start)
        left.set()
        """
    )
    assert (out.returncode, out.stdout, out.stderr) == (0, "saved\n", "")


@pytest.mark.slow
@pytest.mark.parametrize("use", ["", "del pool", "pool.shutdown(wait=False)"])
def test_idle_pools_do_not_keep_the_process(use: str) -> None:
    """Used, never waited for, kept or dropped: the process ends at once."""
    alike(
        f"""
        pool = Pool(3)
        print(list(pool.map(abs, range(5))))
        {use}
        """
    )


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info < (3, 13), reason="no interpreters module to speak of")
@pytest.mark.parametrize("kind", ["isolated", "legacy"])
def test_in_a_subinterpreter(kind: str) -> None:
    """It has no daemons if it is isolated, and ends like the main one: queue and threads are waited for."""
    out = program(
        f"""
        import _interpreters
        code = '''if True:
            import threading
            from futurepool import BoundedExecutor
            def save():
                threading.Event().wait(0.2)
                print("saved", flush=True)
            def task():
                threading.Thread(target=save).start()
                return threading.current_thread().daemon
            pool = BoundedExecutor(1)
            print(pool.submit(task).result(), flush=True)
            for n in range(3):
                pool.submit(print, n, flush=True)
        '''
        interpreter = _interpreters.create("{kind}")
        failed = _interpreters.exec(interpreter, code)
        assert failed is None, failed
        _interpreters.destroy(interpreter)
        print("over")
        """
    )
    assert (out.returncode, out.stderr) == (0, "")
    assert sorted(out.stdout.split()) == ["0", "1", "2", "False", "over", "saved"]
