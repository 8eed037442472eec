"""One allocation that fails, and memory that is given back."""

from __future__ import annotations

import gc
import weakref
from concurrent import futures as cf

from tests.faults.tools import PATIENCE, NotApplicableError, Subject, check, healthy, probe


def _out_of_memory(subject: Subject, operation: str) -> None:
    try:
        import _testcapi
    except ImportError:
        subject.note("no _testcapi here")
        return
    failed = 0
    for n in range(0, 200, 1 if subject.full else 9):
        ex = subject.make(2, 2, **({"error_handler": id} if subject.bounded else {}))
        ex.submit(int).result(PATIENCE)
        ran: list[int] = []
        future = None
        try:
            if operation == "submit":
                _testcapi.set_nomemory(n, n + 1)
                future = ex.submit(ran.append, 1)
            elif operation == "run":
                future = ex.submit(lambda n=n: _testcapi.set_nomemory(n, n + 1))
                cf.wait([future], 5)
            else:
                ex.submit(int)
                _testcapi.set_nomemory(n, n + 1)
                ex.shutdown()
        except MemoryError:
            failed += 1
        finally:
            _testcapi.remove_mem_hooks()
        if operation == "submit":
            check(len(ran) <= 1)
        if future is not None:
            check(cf.wait([future], 5).done, f"allocation {n}: the task is lost")
        if operation == "shutdown":
            ex.shutdown()
        else:
            healthy(subject, ex)
            ex.shutdown()
    subject.note(f"{failed} MemoryErrors came out")


@probe
def no_memory_submit(subject: Subject) -> None:
    """One failing allocation in submit, at each n in turn"""
    _out_of_memory(subject, "submit")


@probe
def no_memory_run(subject: Subject) -> None:
    """One failing allocation in the worker, at each n in turn"""
    _out_of_memory(subject, "run")


@probe
def no_memory_shutdown(subject: Subject) -> None:
    """One failing allocation in shutdown, at each n in turn"""
    _out_of_memory(subject, "shutdown")


@probe
def memory_is_freed(subject: Subject) -> None:
    """Arguments and results freed without a gc run"""

    class Thing:
        pass

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
