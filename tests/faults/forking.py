"""`fork()` while a pool is in use."""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from typing import Any

from tests.faults.tools import PATIENCE, NotApplicableError, Subject, check, healthy, probe


def _child(subject: Subject, ex: Any, pending: list[Any]) -> None:
    """In the child: use the pool; never returns."""
    status = 1
    try:
        signal.alarm(5)  # a child that hangs dies of it
        final = all(future.done() for future in pending) or not subject.bounded
        alive = all(ex.submit(pow, n, 2).result() == n * n for n in range(5))
        if subject.bounded:
            healthy(subject, ex, 2, 20)
        status = 0 if alive and final else 2
        ex.shutdown()
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
    finally:
        sys.stderr.flush()
        os._exit(status)


def _fork(subject: Subject, ex: Any) -> None:
    pending = [ex.submit(sum, range(100)) for _ in range(3)]
    pid = os.fork()
    if pid == 0:
        _child(subject, ex, pending)
    status = os.waitpid(pid, 0)[1]
    check(status == 0, "the child hangs" if status == signal.SIGALRM else "the child fails")
    check([future.result(PATIENCE) for future in pending] == [4950] * 3, "the parent")


@probe
def fork(subject: Subject) -> None:
    """fork() while in use: the child submits, the parent goes on"""
    if not hasattr(os, "fork"):
        raise NotApplicableError("no fork on this system")
    warnings.simplefilter("ignore", DeprecationWarning)
    ex = subject.make(2, 20)
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            ex.submit(sum, range(50)).result(PATIENCE)

    loaders = [threading.Thread(target=load) for _ in range(2)]
    for loader in loaders:
        loader.start()
    try:
        for turn in subject.rounds(200, 25):
            if subject.bounded and turn % 4 == 3:
                ex.submit(_fork, subject, ex).result(PATIENCE)  # from a worker
            else:
                _fork(subject, ex)
    finally:
        stop.set()
        for loader in loaders:
            loader.join(PATIENCE)
    healthy(subject, ex, 2, 20)
    ex.shutdown()
