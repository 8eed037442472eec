"""One allocation that fails, and memory that is given back."""

from __future__ import annotations

import gc
import os
import signal
import threading
import weakref
from collections.abc import Callable
from concurrent import futures as cf
from typing import Any

from tests.faults.tools import (
    PATIENCE,
    SOON,
    NotApplicableError,
    Subject,
    check,
    healthy,
    probe,
)

_CRASHED = "the interpreter crashes"


def _apart(function: Callable[[], str]) -> str:
    """What a function returns, or its error's text; in a process of its own where that is cheap.

    Under a failing allocation CPython itself may crash later, for reasons that are not ours.
    """
    if not hasattr(os, "fork"):
        return function()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)  # the watchdog's thread is not in the child
        try:
            text = function()
        except BaseException as error:
            text = f"{error or type(error).__name__}"
        os.write(writing, text.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    status = os.waitpid(pid, 0)[1]
    return text if status == 0 else "hangs" if status == signal.SIGALRM else _CRASHED


def _one_failure(subject: Subject, operation: str, n: int) -> str:
    """Let the n-th allocation of an operation fail: `ok`, or `came out` if it was told of it."""
    import _testcapi

    threading.excepthook = lambda _: None  # a thread may end by it
    outcome = "ok"
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
            # Not `wait`: its `Event` and `Condition` leak their locks, in the standard library's code.
            try:
                future.result(SOON)
            except cf.TimeoutError:
                check(not future.done(), "a waiter is not told")
        else:
            future = ex.submit(int)
            _testcapi.set_nomemory(n, n + 1)
            ex.shutdown()
    except (MemoryError, RuntimeError) as error:
        # The others: can't allocate lock, can't start new thread.
        check(isinstance(error, MemoryError) or "can't" in str(error), error)
        outcome = "came out"
    finally:
        _testcapi.remove_mem_hooks()
    check(len(ran) <= 1, "ran twice")
    if future is not None:
        check(cf.wait([future], 5).done, "the task is lost")
    if operation != "shutdown":
        healthy(subject, ex)
    ex.shutdown()
    return outcome


def _out_of_memory(subject: Subject, operation: str) -> None:
    try:
        import _testcapi  # noqa: F401
    except ImportError:
        raise NotApplicableError("this interpreter has no _testcapi") from None
    came_out = crashed = 0
    for n in range(0, 201, 1 if subject.full else 10):
        outcome = _apart(lambda n=n: _one_failure(subject, operation, n))  # type: ignore[misc]
        check(outcome in ("ok", "came out", _CRASHED), f"allocation {n}: {outcome}")
        came_out += outcome == "came out"
        crashed += outcome == _CRASHED
    subject.note(f"{came_out} came out")
    if crashed:
        # In C, which nothing written in Python can cause or prevent.
        subject.note(f"the interpreter itself crashed {crashed} times")


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
