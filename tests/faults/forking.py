"""`fork()` while a pool is in use."""

from __future__ import annotations

import os
import signal
import threading
import warnings

from tests.faults.tools import PATIENCE, NotApplicableError, Subject, check, healthy, probe


@probe
def fork(subject: Subject) -> None:
    """fork() while in use, then the child submits"""
    if not hasattr(os, "fork"):
        subject.note("no fork here")
        return
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
        for _ in range(200 if subject.full else 25):
            pending = [ex.submit(sum, range(100)) for _ in range(3)]
            pid = os.fork()
            if pid == 0:
                signal.alarm(5)  # a child that hangs dies of it
                alive = all(ex.submit(pow, n, 2).result() == n * n for n in range(5))
                final = all(future.done() for future in pending) or not subject.bounded
                os._exit(0 if alive and final else 1)
            status = os.waitpid(pid, 0)[1]
            check(status == 0, f"the child hangs or fails: {status}")
            check([future.result(PATIENCE) for future in pending] == [4950] * 3)
    finally:
        stop.set()
        for loader in loaders:
            loader.join(PATIENCE)
    healthy(subject, ex, 2, 20)
    ex.shutdown()
