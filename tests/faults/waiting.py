"""Waiting for what cannot come, or not in time; cancelling what is about to start."""

from __future__ import annotations

import threading
from concurrent import futures as cf
from typing import Any

from futurepool import CancelToken
from tests.faults.tools import (
    PATIENCE,
    SOON,
    Subject,
    check,
    healthy,
    probe,
)


@probe
def huge_timeouts(subject: Subject) -> None:
    """result(timeout=1e10), inf; NaN is a ValueError"""
    ex = subject.make()
    for timeout in (1e10, float("inf")):
        gate = threading.Event()
        future = ex.submit(gate.wait, PATIENCE)
        threading.Timer(0.01, gate.set).start()
        check(future.result(timeout) is True)
    gate = threading.Event()
    future = ex.submit(gate.wait, PATIENCE)
    try:
        future.result(float("nan"))
    except ValueError:
        pass
    else:
        raise AssertionError("NaN is taken for a timeout")
    finally:
        gate.set()
    ex.shutdown()


@probe
def wait_for_queued(subject: Subject) -> None:
    """A worker waits for a future still queued behind it"""
    ex = subject.make(1)
    check(ex.submit(lambda: ex.submit(int).result()).result(SOON) == 0)
    check(ex.submit(lambda: len(cf.wait([ex.submit(int)]).done)).result(SOON) == 1)
    ex.shutdown()


@probe
def shutdown_in_task(subject: Subject) -> None:
    """A task calls shutdown(wait=True)"""
    ex = subject.make(1)
    future = ex.submit(lambda: ex.shutdown(wait=True))
    check(future.exception(SOON) is None, future.exception(0))
    ex.shutdown()


@probe
def cancel_races(subject: Subject) -> None:
    """Cancel racing with the start; a callback that submits; cancel under a token"""
    ex = subject.make(4, 1000)
    ran = bytearray(2000)
    more: list[Any] = []

    def task(number: int) -> None:
        ran[number] += 1

    futures = []
    for number in range(2000):
        if subject.bounded and number % 3 == 0:
            token = CancelToken()
            future = ex.submit_with_token(token, task, number)
            token.cancel()
        else:
            future = ex.submit(task, number)
            future.cancel()
        if number % 50 == 0:
            future.add_done_callback(lambda _: more.append(ex.submit(int)))
        futures.append(future)
    cf.wait(futures, PATIENCE)
    for number, future in enumerate(futures):
        check(ran[number] == (not future.cancelled()), f"task {number}")
    check(all(future.result(PATIENCE) == 0 for future in more))
    healthy(subject, ex, 4, 1000)
    ex.shutdown()
