"""The end of the interpreter, told in small programs, each beside the standard class where it has the same."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
import threading

import pytest

from futurepool import BoundedExecutor, _sync
from tests.programs import python

STANDARD = "from concurrent.futures import ThreadPoolExecutor as Pool\n"
OURS = "from futurepool import BoundedExecutor as Pool\n"


needs_threads_at_exit = pytest.mark.skipif(
    (3, 12) <= sys.version_info < (3, 12, 2), reason="it starts no thread once exit has begun"
)


def program(body: str, make: str = OURS) -> subprocess.CompletedProcess[str]:
    """Run a program of its own, with every warning an error."""
    return python(make + textwrap.dedent(body))


def alike(body: str) -> None:
    """A program prints the same lines with both classes, in any order, and nothing on stderr."""
    theirs, ours = program(body, STANDARD), program(body)
    assert (ours.returncode, ours.stderr) == (0, "")
    assert sorted(ours.stdout.splitlines()) == sorted(theirs.stdout.splitlines()), theirs.stderr


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
        go, left, started = threading.Event(), threading.Event(), threading.Event()
        def save():
            left.wait()
            threading.Event().wait(0.3)
            print("saved", flush=True)
        def start(*_):
            threading.Thread(target=save).start()
            started.set()
        pool = Pool(1)
        {PLACES[place]}
        started.wait()
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


# -- what was accepted is run ----------------------------------------------------------------------

REPORT = "futurepool: interpreter exit waits for"


@pytest.mark.slow
def test_exit_waits_for_as_long_as_it_takes() -> None:
    """All that was accepted runs; what takes longer than shutdown_timeout is told of, once."""
    out = program(
        """
        import threading
        pool = Pool(1, shutdown_timeout=0.1)
        def job(n):
            threading.Event().wait(0.1)
            print(n, flush=True)
        for n in range(8):
            pool.submit(job, n)
        """
    )
    assert (out.returncode, out.stdout.split()) == (0, list("01234567"))
    first, *rest = out.stderr.splitlines()
    assert first.startswith(f"{REPORT} 1 running task and ")
    assert re.search(r" queued tasks, \d\.\d s so far:$", first)
    assert ["task" in line and "in job" in line for line in rest] == [True]


@pytest.mark.slow
def test_exit_waits_for_callbacks() -> None:
    """What a worker does after its last task was accepted, too; it is named if it takes long."""
    out = program(
        """
        import threading
        left = threading.Event()
        def slow(_):
            threading.Event().wait(1.5)
            print("called", flush=True)
        pool = Pool(1, shutdown_timeout=0.2)
        pool.submit(left.wait).add_done_callback(slow)
        left.set()
        """
    )
    assert (out.returncode, out.stdout) == (0, "called\n")
    assert re.match(rf"{REPORT} 1 done-callback, \d\.\d s so far:\n", out.stderr)
    assert "in slow" in out.stderr


@pytest.mark.slow
def test_exit_tells_of_all_pools_at_once() -> None:
    """They are waited for side by side; a message has twenty entries and counts the others."""
    out = program(
        """
        import threading
        gate = threading.Event()
        pools = [Pool(15, shutdown_timeout=0.2) for _ in range(2)]
        for pool in pools:
            for _ in range(15):
                pool.submit(gate.wait)
        pools[0].submit(int)
        threading.Timer(1.0, gate.set).start()
        """
    )
    assert out.returncode == 0
    first, *rest = out.stderr.splitlines()
    assert re.fullmatch(rf"{REPORT} 30 running tasks and 1 queued task, \d\.\d s so far:", first)
    assert [line.startswith("  task ") for line in rest] == [True] * 20 + [False]
    assert rest[-1] == "  ... and 10 more"


@pytest.mark.slow
def test_exit_timeout_bounds_the_wait_of_all_pools_at_once() -> None:
    """What is left is named and left behind, in one message, as their times do not add up."""
    out = program(
        """
        import threading
        def endless():
            threading.Event().wait()
        for _ in range(3):
            pool = Pool(1, exit_timeout=0.3)
            future = pool.submit(endless)
            while not future.running():
                pass
            pool.submit(print, "never")
        patient = Pool(1)
        def last():
            threading.Event().wait(1)
            print("last", flush=True)
        patient.submit(last)
        """
    )
    assert (out.returncode, out.stdout) == (0, "last\n")
    first, *rest = out.stderr.splitlines()
    assert first.startswith("futurepool: interpreter exit, tasks abandoned after 0.")
    assert ["in endless" in line for line in rest] == [True] * 3 + [False]
    assert rest[-1] == "  3 queued tasks cancelled"


@pytest.mark.slow
@pytest.mark.parametrize("who", ["atexit.register(pool.shutdown)", "thread.start()"])
def test_who_waits_for_an_abandoned_pool_is_let_go(who: str) -> None:
    """A shutdown that waits for it, begun before or after, does not keep the process either."""
    out = program(
        f"""
        import atexit, threading
        pool = Pool(1, exit_timeout=0.3)
        future = pool.submit(lambda: threading.Event().wait())
        while not future.running():
            pass
        thread = threading.Thread(target=pool.shutdown)
        {who}
        """
    )
    assert out.returncode == 0
    assert out.stderr.startswith("futurepool: interpreter exit, tasks abandoned after 0.")


@pytest.mark.slow
def test_after_a_stop_out_of_time_exit_does_not_wait() -> None:
    """Who asked for a bounded stop has been told what does not end; the exit says so once more."""
    out = program(
        """
        import threading
        from futurepool import ForcedShutdownError
        pool = Pool(1)
        def endless():
            threading.Event().wait()
        future = pool.submit(endless)
        while not future.running():
            pass
        try:
            pool.stop(0.01)
        except ForcedShutdownError:
            print("forced")
        """
    )
    assert (out.returncode, out.stdout) == (0, "forced\n")
    assert re.search(r"abandoned after \d\.\d s", out.stderr)
    assert "in endless" in out.stderr


@pytest.mark.slow
@pytest.mark.parametrize("stderr", ["None", "open(os.devnull)", "closed"])
def test_exit_with_nobody_to_tell(stderr: str) -> None:
    """A stderr that is missing, closed or refuses does no harm."""
    out = program(
        f"""
        import os, sys, threading
        pool = Pool(1, shutdown_timeout=0.0)
        gate = threading.Event()
        pool.submit(lambda: (gate.wait(), print("ran", flush=True)))
        closed = open(os.devnull)
        closed.close()
        sys.stderr = {stderr}
        threading.Timer(0.3, gate.set).start()
        """
    )
    assert (out.returncode, out.stdout) == (0, "ran\n")


@pytest.mark.slow
@needs_threads_at_exit
@pytest.mark.parametrize(
    "end",
    [
        "queued.cancel()",
        "pool.shutdown(wait=False, cancel_futures=True)",
        "token.cancel()",
        "soon.wait()",
    ],
)
def test_exit_waits_for_callbacks_of_what_never_ran(end: str) -> None:
    """Of a cancelled, an expired and a shut down task; and for the threads that they start."""
    out = program(
        f"""
        import threading
        from futurepool import CancelToken
        pool, gate = Pool(1, queue_size=5), threading.Event()
        pool.submit(gate.wait)
        token, soon = CancelToken(), CancelToken(timeout=0.05)
        def save():
            threading.Event().wait(0.2)
            print("saved", flush=True)
        def callback(future):
            threading.Event().wait(0.2)
            print("called", future.cancelled(), flush=True)
            threading.Thread(target=save).start()
        queued = pool.submit_with_token(soon if "soon" in {end!r} else token, int)
        queued.add_done_callback(callback)
        {end}
        gate.set()
        """
    )
    assert (out.returncode, out.stderr) == (0, "")
    assert out.stdout == "called True\nsaved\n"


@pytest.mark.slow
def test_a_callback_of_what_never_ran_that_blocks_for_ever() -> None:
    """It is nobody's, so it does not keep the process, but stderr says that it was left behind."""
    out = program(
        """
        import threading
        pool, gate = Pool(1, exit_timeout=0.5), threading.Event()
        pool.submit(gate.wait)
        pool.submit(int).add_done_callback(lambda _: threading.Event().wait())
        pool.shutdown(wait=False, cancel_futures=True)
        gate.set()
        """
    )
    assert out.returncode == 0
    assert "done-callbacks abandoned" in out.stderr


# -- too late --------------------------------------------------------------------------------------

TRY = """
        import atexit, os, threading
        early = Pool(1)
        def say(*words):
            os.write(1, (" ".join(map(str, words)) + "\\n").encode())
        def use(word, pool=None):
            try:
                pool = pool or Pool(1)
                pool.submit(say, word, "ran")
                say(word, "accepted")
            except RuntimeError as error:
                say(word, error)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "late",
    [
        "threading.Thread(target=lambda: (threading.main_thread().join(), use('thread'))).start()",
        "threading.Thread(target=lambda: (threading.main_thread().join(), use('x', early))).start()",
        "atexit.register(use, 'atexit')",
        "atexit.register(use, 'atexit', early)",
        "early.shutdown(); atexit.register(use, 'shut down before', early)",
        "threading._register_atexit(use, 'before')",
        "threading._register_atexit(use, 'before', early)",
        "early.submit(lambda: (threading.main_thread().join(0.2), use('task', early)))",
        "early.submit(lambda: (threading.main_thread().join(0.2), use('task')))",
        "atexit.register(lambda: Pool(1).shutdown())",
        "atexit.register(lambda: list(Pool(1).map(print, [])))",
    ],
)
def test_too_late_as_for_the_standard_class(late: str) -> None:
    """A pool made or used after exit has begun refuses, with the same words; else what it takes runs."""
    alike(f"{TRY}        {late}\n")


@pytest.mark.slow
@needs_threads_at_exit
def test_too_late_for_the_hook() -> None:
    """In a hook that comes after ours, and with an engine at any time after the main thread."""
    out = program(
        """
        import os, threading
        hooks = []
        threading._register_atexit(lambda: [hook() for hook in hooks])  # before our import: later
        from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
        from futurepool import BoundedExecutor

        def say(*words):
            os.write(1, (" ".join(map(str, words)) + "\\n").encode())
        def use(word, **options):
            try:
                BoundedExecutor(1, **options).submit(say, word, "ran")
                say(word, "accepted")
            except RuntimeError as error:
                say(word, error)

        class Strange(ThreadPoolExecutor):
            __module__ = "strange"

        hooks.append(lambda: use("hook"))
        hooks.append(lambda: use("engine", engine=ThreadPoolExecutor(1)))
        hooks.append(lambda: use("strange", engine=Strange(1)))
        threading._register_atexit(lambda: use("soon", engine=Strange(1)))
        """,
        make="",
    )
    words = "cannot schedule new futures after interpreter shutdown"
    assert (out.returncode, out.stderr) == (0, "")
    assert sorted(out.stdout.splitlines()) == sorted(
        ["soon accepted", "soon ran", f"hook {words}", f"engine {words}", f"strange {words}"]
    )


# -- Ctrl-C ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT to one process")
@pytest.mark.parametrize("make", [STANDARD, OURS], ids=["standard", "ours"])
def test_ctrl_c_at_exit_ends_all_waiting(make: str) -> None:
    """The pool's, and that for other threads; what is left behind is named; exit callbacks are called."""
    out = program(
        """
        import atexit, os, signal, threading
        signal.signal(signal.SIGINT, signal.default_int_handler)
        atexit.register(print, "atexit", flush=True)
        pool = Pool(1)
        def endless():
            main = threading.main_thread()
            while getattr(threading, "_SHUTTING_DOWN") is False:
                threading.Event().wait(0.01)
            threading.Event().wait(0.3)
            os.kill(os.getpid(), signal.SIGINT)
            threading.Event().wait()
        pool.submit(endless)
        threading.Thread(target=threading.Event().wait).start()
        """,
        make,
    )
    assert (out.returncode, out.stdout) == (0, "atexit\n")
    assert "KeyboardInterrupt" in out.stderr
    if make == OURS:
        assert "futurepool: interpreter exit, tasks abandoned after" in out.stderr
        assert "in endless" in out.stderr


@pytest.mark.slow
@pytest.mark.parametrize("method", ["map", "map_unordered"])
def test_a_map_that_is_half_read_at_exit(method: str) -> None:
    """Its generator, kept by the module, is closed after the modules of the package are empty: in silence."""
    ended = program(f"""
        pool = Pool(2)
        results = pool.{method}(abs, range(40000), chunksize="auto")
        next(results)
    """)
    assert (ended.returncode, ended.stderr) == (0, "")
