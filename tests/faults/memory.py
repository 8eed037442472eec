"""One allocation that fails, and memory that is given back."""

from __future__ import annotations

import gc
import threading
import weakref
from concurrent import futures as cf
from typing import Any

from tests.faults.tools import PATIENCE, NotApplicableError, Subject, check, healthy, probe


def _out_of_memory(subject: Subject, operation: str) -> None:
    """Let the n-th allocation of an operation fail, for each n from 0 to 200."""
    try:
        import _testcapi
    except ImportError:
        raise NotApplicableError("this interpreter has no _testcapi") from None
    threading.excepthook = lambda _: None  # a thread may end by it
    failed = 0
    # Some come out as RuntimeError: can't allocate lock, can't start new thread.
    for n in range(0, 201, 1 if subject.full else 10):
        ex = subject.make(2, 2, **({"error_handler": id} if subject.bounded else {}))
        ex.submit(int).result(PATIENCE)
        ran: list[int] = []
        future: Any = None
        try:
            if operation == "submit":
                _testcapi.set_nomemory(n, n + 1)
                future = ex.submit(ran.append, 1)
            elif operation == "run":
                future = ex.submit(_testcapi.set_nomemory, n, n + 1)
                told = cf.wait([future], 3).done
                check(told or not future.done(), f"allocation {n}: a waiter is not told")
            else:
                future = ex.submit(int)
                _testcapi.set_nomemory(n, n + 1)
                ex.shutdown()
        except (MemoryError, RuntimeError) as error:
            check(isinstance(error, MemoryError) or "can't" in str(error), error)
            failed += 1
        finally:
            _testcapi.remove_mem_hooks()
        check(len(ran) <= 1, f"allocation {n}: ran twice")
        if future is not None:
            check(cf.wait([future], 5).done, f"allocation {n}: the task is lost")
        if operation == "shutdown":
            ex.shutdown()
        else:
            healthy(subject, ex)
            ex.shutdown()
    subject.note(f"{failed} came out")


@probe
def no_memory_submit(subject: Subject) -> None:
    """One failing allocation in submit, at each n from 0 to 200"""
    _out_of_memory(subject, "submit")


@probe
def no_memory_run(subject: Subject) -> None:
    """One failing allocation in the worker, at each n from 0 to 200"""
    _out_of_memory(subject, "run")


@probe
def no_memory_shutdown(subject: Subject) -> None:
    """One failing allocation in shutdown, at each n from 0 to 200"""
    _out_of_memory(subject, "shutdown")


class Thing:
    pass


@probe
def memory_is_freed(subject: Subject) -> None:
    """Arguments and results are freed without a gc run"""
    gc.disable()
    ex = subject.make()
    argument = Thing()
    refs = [weakref.ref(argument)]
    future = ex.submit(lambda thing: Thing(), argument)
    del argument
    refs.append(weakref.ref(future.result(PATIENCE)))
    del future
    for _ in range(500):
        if all(ref() is None for ref in refs):
            break
        ex.submit(int).result(PATIENCE)
    check(all(ref() is None for ref in refs), "kept alive")
    ex.shutdown()
