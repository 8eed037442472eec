"""Worker threads that do not start, or whose initializer fails."""

from __future__ import annotations

import threading
from concurrent import futures as cf

from tests.faults.tools import PATIENCE, Subject, check, probe


@probe
def thread_start(subject: Subject) -> None:
    """A thread cannot be started during submit"""
    original = threading.Thread.start
    for k in range(6):
        starts = 0

        def start(thread: threading.Thread, k: int = k) -> None:
            nonlocal starts
            starts += 1
            if starts == k + 1 and thread.name != "test":
                raise RuntimeError("can't start new thread")
            original(thread)

        threading.Thread.start = start  # type: ignore[method-assign]
        ran: list[int] = []
        refused = accepted = 0
        try:
            ex = subject.make(3, 100)
            gate = threading.Event()
            for number in range(12):
                try:
                    ex.submit(work, gate, ran, number)
                    accepted += 1
                except RuntimeError:
                    refused += 1
            gate.set()
        finally:
            threading.Thread.start = original  # type: ignore[method-assign]
        ex.submit(int).result(PATIENCE)
        ex.shutdown()
        check(len(ran) == accepted, f"{accepted} accepted, {refused} refused, {len(ran)} ran")


@probe
def initializer_fails(subject: Subject) -> None:
    """The initializer fails, for the first worker or a later one"""
    import logging

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
        gate.set()
        for future in futures:
            broken += isinstance(future.exception(PATIENCE), cf.BrokenExecutor)
        check(broken)
        ex.shutdown()
