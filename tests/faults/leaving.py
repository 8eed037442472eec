"""The end of the interpreter, at any moment."""

from __future__ import annotations

import random
import subprocess
import sys
import textwrap

from tests.faults.tools import NotApplicableError, Subject, check, probe


def _exit(subject: Subject, body: str, limit: float = 20.0) -> tuple[int, str, str]:
    """Run a program that makes its pools by `make(workers, **options)`; its status, output, errors."""
    make = (
        "from futurepool import BoundedExecutor; import threading, time\n"
        "def make(n, **more):\n"
        "    return BoundedExecutor(n, **{'queue_size': 100, 'exit_timeout': 1.0, **more})\n"
        if subject.bounded
        else "from concurrent.futures import ThreadPoolExecutor; import threading, time\n"
        "def make(n, **more): return ThreadPoolExecutor(n)\n"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", make + textwrap.dedent(body)],
            capture_output=True,
            text=True,
            timeout=limit,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise AssertionError("the process does not end") from None
    foreign = [
        line
        for line in done.stderr.splitlines()
        # Ours are one line that says so, and an indented one for each task.
        if line.strip() and not line.startswith(("futurepool:", "  task ", "  1", "  2", "  3"))
    ]
    check(not foreign, done.stderr)
    return done.returncode, done.stdout, done.stderr


@probe
def exit_with_queue(subject: Subject) -> None:
    """Interpreter exit with queued tasks, and with a submit during exit"""
    code, out, err = _exit(
        subject,
        """
        ex = make(1)
        leaving = threading.Event()
        def late():
            leaving.wait()
            try:
                for _ in range(10_000_000): ex.submit(int).cancel()
            except RuntimeError: print("refused")
        ex.submit(late)
        for n in range(3): ex.submit(print, n)
        leaving.set()
        """,
    )
    check((code, err) == (0, ""), (code, out, err))
    check(sorted(out.split()) == ["0", "1", "2", "refused"], out)


@probe
def exit_with_long_queue(subject: Subject) -> None:
    """Interpreter exit with a queue that takes longer than any time limit of the pool"""
    code, out, err = _exit(
        subject,
        """
        ex = make(1, shutdown_timeout=0.1, exit_timeout=None)
        for n in range(6):
            ex.submit(lambda n: (time.sleep(0.1), print(n, flush=True)), n)
        """,
    )
    check(code == 0, (code, err))
    check(out.split() == ["0", "1", "2", "3", "4", "5"], out)
    check(not subject.bounded or err.count("interpreter exit waits for") == 1, err)


@probe
def exit_and_late_pools(subject: Subject) -> None:
    """A pool made or used after interpreter exit has begun: refused, never dropped in silence"""
    code, out, err = _exit(
        subject,
        """
        import atexit
        early = make(1)
        def use(pool):
            try: pool().submit(print, "ran", flush=True)
            except RuntimeError: print("refused", flush=True)
        def late():
            threading.main_thread().join()
            use(lambda: make(1))
            use(lambda: early)
        threading.Thread(target=late).start()
        atexit.register(use, lambda: make(1))
        """,
    )
    check((code, err) == (0, ""), (code, out, err))
    check(out.split() == ["refused"] * 3, out)


@probe
def exit_and_threads_of_tasks(subject: Subject) -> None:
    """Interpreter exit with a thread that a task, and one that a done-callback has started"""
    if (3, 12) <= sys.version_info < (3, 12, 2):
        raise NotApplicableError("it starts no thread once exit has begun")
    code, out, err = _exit(
        subject,
        """
        left = threading.Event()
        def save(): left.wait(); time.sleep(0.3); print("saved\\n", end="", flush=True)
        def start(*_): threading.Thread(target=save).start()
        ex, go = make(1), threading.Event()
        ex.submit(start).result()
        ex.submit(go.wait).add_done_callback(start)
        go.set()
        left.set()
        """,
    )
    check((code, err) == (0, ""), (code, out, err))
    check(out.split() == ["saved"] * 2, out)


@probe
def exit_with_endless_task(subject: Subject) -> None:
    """Interpreter exit with a task that never ends (`exit_timeout=1`)"""
    code, _, err = _exit(
        subject,
        """
        started = threading.Event()
        def endless():
            started.set()
            time.sleep(3600)
        ex = make(1)
        ex.submit(endless)
        started.wait()
        """,
        12.0,
    )
    check(code == 0, (code, err))
    check("endless" in err, err)


@probe
def exit_at_any_moment(subject: Subject) -> None:
    """Interpreter exit at any moment, with daemon and other submitters, and endless tasks (`exit_timeout=1`)"""
    chance = random.Random(5)
    for turn in subject.rounds(200, 12):
        pause, daemon, endless = chance.random() / 20, turn % 2 == 0, turn % 20 == 7
        code, _, err = _exit(
            subject,
            f"""
            ex = make(3)
            if {endless}: ex.submit(time.sleep, 3600)
            def load():
                try:
                    while True: ex.submit(sum, range(20))
                except RuntimeError: pass
            for _ in range(2): threading.Thread(target=load, daemon={daemon}).start()
            time.sleep({pause})
            """,
        )
        check(code == 0, (turn, code, err))
