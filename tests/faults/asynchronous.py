"""Exceptions that strike a worker from outside: `PyThreadState_SetAsyncExc`, and at every point."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections import deque
from collections.abc import Iterator
from itertools import compress
from operator import gt, methodcaller, not_
from typing import Any

from futurepool import TaskError
from tests.faults.tools import (
    SOON,
    Subject,
    Tracer,
    balanced,
    check,
    healthy,
    in_thread,
    in_words,
    probe,
    until,
)


class Asynchronous(BaseException):
    pass


def strike(thread: threading.Thread) -> None:
    """Strike it if it lives: the identifier of one that has died may be another's by now.

    So nobody is struck while being born: `Thread.start` waits for such a thread for ever. Before 3.12
    a thread that is being started goes by its parent's identifier for a moment, and would be struck in
    its place: so nobody is struck meanwhile. Between the last look and the blow only C code runs, so
    where there is a GIL no other thread comes in between.
    """
    if not thread.is_alive():
        return
    lives = one_look(thread)
    blow = ctypes.pythonapi.PyThreadState_SetAsyncExc
    starting = map(bool, [threading._limbo])  # type: ignore[attr-defined]
    may = map(gt, lives, starting)  # lives, and nobody is starting
    idents = [ctypes.c_ulong(thread.ident or 0)]
    deque(map(blow, compress(idents, may), [ctypes.py_object(Asynchronous)]), maxlen=0)


def one_look(thread: Any) -> Iterator[bool]:
    """One look whether a thread that was started still has its identifier, taken when it is asked for."""
    if sys.version_info >= (3, 13):
        handle = thread._handle if sys.version_info < (3, 14) else thread._os_thread_handle
        return map(not_, map(methodcaller("is_done"), [handle]))
    # None once somebody has joined it.
    return map(methodcaller("locked"), [thread._tstate_lock or threading.Lock()])


def expected(error: BaseException | None) -> bool:
    """The exception, or nothing; a thread killed by several dies without telling of which."""
    return error is None or isinstance(error, Asynchronous) or "thread has died" in str(error)


@probe
def async_exception_idle(subject: Subject) -> None:
    """An asynchronous exception hits an idle worker"""
    ex = subject.make()
    healthy(subject, ex)
    for _ in subject.rounds(500, 50):
        for thread in list(ex._threads):
            strike(thread)
        for future in [ex.submit(int) for _ in range(3)]:
            error = future.exception(SOON)
            check(expected(error), error)
    healthy(subject, ex)
    ex.shutdown()


@probe
def async_exception_busy(subject: Subject) -> None:
    """Asynchronous exceptions hit busy workers"""
    ex = subject.make(2, 50)
    futures: list[Any] = []
    ran: list[int] = []
    for turn in subject.rounds(10_000, 1000):
        futures.append(ex.submit(ran.append, turn))
        if turn % 20 == 0:
            for thread in list(ex._threads):
                strike(thread)
    for number, future in enumerate(futures):
        error = future.exception(SOON)
        check(expected(error), error)
        check(error is not None or number in ran[-len(futures) :], "lost")
    check(len(ran) == len(set(ran)), "a task ran twice")
    # One may still be on its way.
    for _ in range(4):
        ex.submit(int).exception(SOON)
    if subject.bounded:
        balanced(ex)
    ex.shutdown()


def _worker_at_point(subject: Subject, k: int) -> int:
    """Let one worker start, run, fail, sleep and leave, with an exception at the k-th point."""

    def raising() -> None:
        raise Asynchronous

    with Tracer(subject, k, raising, threads=True) as tracer:
        ex = subject.make(1, 10)
        futures = []
        ran: list[int] = []
        told: list[Any] = []
        for number in range(3):
            future = ex.submit(ran.append, number)
            future.add_done_callback(told.append)
            futures.append(future)
            if number == 1:
                # So that it sleeps; in vain if it is dead: see Limits in docs/guarantees.md.
                until(lambda: all(future.done() for future in futures), 1)
        failing = ex.submit(divmod, 1, 0)
        for future in futures:
            error = future.exception(SOON)
            check(expected(error), error)
        error = failing.exception(SOON)
        # A plain TaskError where the exception struck while its class was made.
        check(isinstance(error, (ZeroDivisionError, Asynchronous, TaskError)), repr(error))
        last = tracer.count
    check(len(set(ran)) == len(ran), "ran twice")
    for number, future in enumerate(futures):
        check(future.exception(0) is not None or number in ran, "lost")
    healthy(subject, ex, 1, 10)
    ex.shutdown()
    check(len(told) == len(set(map(id, told))) == 3, f"{len(told)} callbacks for 3 tasks")
    check(not any(thread.is_alive() for thread in ex._threads), "a thread is alive")
    return last


@probe
def async_exception_at_any_point(subject: Subject) -> None:
    """An exception interrupts a worker at any point of its life"""
    threading.excepthook = lambda _: None  # a thread may end by it
    last = in_thread(_worker_at_point, subject, 10**9)
    for k in subject.points(last, 60):
        try:
            in_thread(_worker_at_point, subject, k)
        except BaseException as error:
            raise AssertionError(f"point {k} of {last}: {in_words(error)}") from error
    subject.note(f"{last} points")
