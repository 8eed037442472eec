"""Worker threads that do not start, or whose initializer fails."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent import futures as cf
from pathlib import Path
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

# What `Thread.start` calls: the second from Python 3.13 on.
_STARTERS = ("_start_new_thread", "_start_joinable_thread")


def _submit_all(ex: Any, tasks: int) -> tuple[list[Any], list[int], int]:
    """Submit tasks that note their number: the futures, the notes, and how many were refused."""
    gate = threading.Event()
    ran: list[int] = []
    futures, refused = [], 0

    def task(number: int) -> None:
        gate.wait(PATIENCE)
        ran.append(number)

    for number in range(tasks):
        try:
            futures.append(ex.submit(task, number))
        except (RuntimeError, MemoryError):
            refused += 1
    gate.set()
    return futures, ran, refused


def _check_all(ex: Any, futures: list[Any], ran: list[int], refused: int) -> None:
    check(not cf.wait(futures, 5).not_done, "hangs")
    ex.submit(int).result(SOON)
    ex.shutdown()
    check(
        len(ran) == len(futures),
        f"{len(futures)} accepted, {refused} refused, {len(ran)} ran",
    )


def _failing_start(starts: Callable[[], bool]) -> Callable[[], None]:
    """Put something in the place of the system's call; returns what puts it back."""
    name = next(name for name in _STARTERS if hasattr(threading, name))
    original = getattr(threading, name)

    def start(*arguments: Any, **keywords: Any) -> Any:
        if not starts():
            raise RuntimeError("can't start new thread")
        return original(*arguments, **keywords)

    setattr(threading, name, start)
    return lambda: setattr(threading, name, original)


@probe
def thread_start(subject: Subject) -> None:
    """The thread cannot be started during submit, at each start in turn"""
    for good in range(6):  # this many starts go well, then one does not, or none any more
        for lasting in (False, True):
            count = 0

            def starts(good: int = good, lasting: bool = lasting) -> bool:
                nonlocal count
                count += 1
                return count <= good if lasting else count != good + 1

            restore = _failing_start(starts)
            try:
                ex = subject.make(4, 100)
                futures, ran, refused = _submit_all(ex, 12)
                if futures:
                    check(not cf.wait(futures, 5).not_done, "hangs")
            finally:
                restore()
            _check_all(ex, futures, ran, refused)


@probe
def thread_limit(subject: Subject) -> None:
    """The system has no room for another thread (RLIMIT_AS)"""
    try:
        import resource

        pages = Path("/proc/self/statm").read_text().split()[0]
    except (ImportError, OSError):
        raise NotApplicableError("no such limits on this system") from None
    size = int(pages) * resource.getpagesize()
    old = resource.getrlimit(resource.RLIMIT_AS)
    for threads in range(3):
        stack = 512 << 20
        ex = subject.make(4, 100)
        usual = threading.stack_size(stack)
        resource.setrlimit(resource.RLIMIT_AS, (size + (256 << 20) + threads * stack, old[1]))
        try:
            futures, ran, refused = _submit_all(ex, 12)
            check(not cf.wait(futures, 5).not_done, "hangs")
        finally:
            resource.setrlimit(resource.RLIMIT_AS, old)
            threading.stack_size(usual)
        _check_all(ex, futures, ran, refused)


@probe
def initializer_fails(subject: Subject) -> None:
    """The initializer fails, for the first worker or a later one"""
    logging.disable(logging.CRITICAL)
    for good in (0, 1):
        left = [good]

        def initialize(left: list[int] = left) -> None:
            if not left[0]:
                raise LookupError
            left[0] -= 1

        ex = subject.make(2, 10, initializer=initialize)
        gate = threading.Event()
        broken = 0
        futures = []
        for _ in range(4):
            try:
                futures.append(ex.submit(gate.wait, PATIENCE))
            except cf.BrokenExecutor:
                broken += 1
        # No task ends before, or one worker might run them all while the other still starts.
        check(broken or cf.wait(futures, PATIENCE, cf.FIRST_COMPLETED).done, "nobody hears of it")
        gate.set()
        for future in futures:
            broken += isinstance(future.exception(PATIENCE), cf.BrokenExecutor)
        check(broken, "nobody hears of it")
        try:
            ex.submit(int)
        except cf.BrokenExecutor:
            pass
        else:
            raise AssertionError("a broken pool takes tasks")
        ex.shutdown()
    logging.disable(logging.NOTSET)
    ex = subject.make()
    healthy(subject, ex)
    ex.shutdown()
