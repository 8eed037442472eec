"""Calls from where nobody expects them: finalizers and signal handlers, inside our own calls."""

from __future__ import annotations

import gc
import random
import signal
import threading
from collections.abc import Callable
from concurrent import futures as cf
from typing import Any

from futurepool import OnFull
from tests.faults.interrupts import Case, Operation, blocking, every_point
from tests.faults.tools import (
    PATIENCE,
    NotApplicableError,
    Subject,
    check,
    healthy,
    probe,
    until,
)


@probe
def submit_in_finalizer(subject: Subject) -> None:
    """Submit from `__del__` during another submit (gc threshold 5)"""
    for full_queue in (False, True):
        ex = subject.make(2, 500)
        made: list[cf.Future[int]] = []
        alive: list[None] = []

        class Trash:
            def __init__(self, alive: Any = alive) -> None:
                self.me = self
                alive.append(None)

            def __del__(self, ex: Any = ex, made: Any = made, alive: Any = alive) -> None:
                try:
                    future = subject.try_submit(ex, int)
                    if future is not None:
                        made.append(future)
                    if made:
                        made[len(made) // 2].cancel()
                    if subject.bounded:
                        ex.stats()
                finally:
                    alive.pop()

        gate = threading.Event()
        held = []
        if full_queue and subject.bounded:
            held = [ex.submit(gate.wait) for _ in range(502)]
        old = gc.get_threshold()
        # Without the 0 a free-threaded build waits until a quarter of what lives is new, too.
        gc.set_threshold(5, 0)
        try:
            for _ in subject.rounds(5000, 600):
                Trash()
                subject.try_submit(ex, int)
        finally:
            gc.set_threshold(*old)
            gate.set()
        # A worker may be in the middle of a collection; then ours does nothing.
        check(until(lambda alive=alive: gc.collect() < 0 or not alive), "garbage is left")  # type: ignore[misc]
        check(full_queue or made, "no finalizer ran")
        check(not cf.wait([*made, *held], PATIENCE).not_done, "lost")
        healthy(subject, ex, 2, 500)
        ex.shutdown()


def _need_timers() -> None:
    if not hasattr(signal, "setitimer"):
        raise NotApplicableError("no timers on this system")


def _signals(subject: Subject, handler: Callable[[Any, list[Any]], None], full: bool) -> None:
    """Submit for a while on an empty or a full queue, with a handler called 500 times a second."""
    ex = subject.make(2, 300)
    gate = threading.Event()
    seen: list[Any] = []
    if full and subject.bounded:
        seen += [ex.submit(gate.wait) for _ in range(302)]
    calls = 0

    def handle(*_: Any) -> None:
        nonlocal calls
        calls += 1
        handler(ex, seen)

    old = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
    enough = 2500 if subject.full else 250
    try:
        while calls < enough:
            future = subject.try_submit(ex, int)
            if future is not None:
                seen.append(future)
            if len(seen) > 50 and not full:
                cf.wait([seen.pop(0)], PATIENCE)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
        gate.set()
    check(not cf.wait(seen, PATIENCE).not_done, "lost")
    healthy(subject, ex, 2, 300)
    ex.shutdown()


@probe
def submit_in_signal_handler(subject: Subject) -> None:
    """Submit from a signal handler at 500 Hz"""
    _need_timers()

    def handler(ex: Any, seen: list[Any]) -> None:
        future = subject.try_submit(ex, int)
        if future is not None:
            seen.append(future)
        if subject.bounded:
            ex.stats()
        if seen:
            seen[-1].cancel()

    for full in (False, True):
        _signals(subject, handler, full)


@probe
def shutdown_in_signal_handler(subject: Subject) -> None:
    """Shutdown from a signal handler during submits"""
    _need_timers()
    chance = random.Random(3)
    for _ in subject.rounds(300, 40):
        ex = subject.make(2, 1000)
        old = signal.signal(signal.SIGALRM, lambda *_, ex=ex: ex.shutdown(wait=False))
        futures = []
        try:
            signal.setitimer(signal.ITIMER_REAL, 1e-4 + chance.random() / 1000)
            while True:
                futures.append(ex.submit(int))
        except RuntimeError:
            pass
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, old)
        ex.shutdown()
        check(all(future.result(0) == 0 for future in futures), "lost")


# -- at every point ---------------------------------------------------------------------------------


def _operations() -> dict[str, Callable[[Case], Operation]]:
    def submit(case: Case) -> Operation:
        case.fill(2)
        return case.submit

    def first(case: Case) -> Operation:
        return case.submit

    def refused(case: Case) -> Operation:
        case.fill(4)
        return lambda: case.subject.try_submit(case.ex, case.ran.append, 1)

    def dropping(case: Case) -> Operation:
        case.fill(4)
        view = case.ex.options(on_full=OnFull.DROP_OLDEST)
        return lambda: view.submit(case.ran.append, 1)

    def cancel(case: Case) -> Operation:
        case.fill(3)
        return case.others[-1].cancel  # type: ignore[no-any-return]

    def stats(case: Case) -> Operation:
        case.fill(3)
        return case.ex.stats  # type: ignore[no-any-return]

    return {
        "first submit": first,
        "submit": submit,
        "refused": refused,
        "dropping": dropping,
        "blocking": blocking,
        "cancel": cancel,
        "stats": stats,
    }


def _act_submit(case: Case) -> None:
    future = case.subject.try_submit(case.ex, bool, 1)
    if future is not None:
        case.others.append(future)


def _act_cancel(case: Case) -> None:
    if case.others:
        case.others[-1].cancel()
    case.ex.stats()


@probe
def reentrant_calls(subject: Subject) -> None:
    """Submit, cancel and stats called at any point of a submit, cancel or stats"""
    subject.only_bounded()
    for name, prepare in _operations().items():
        every_point(subject, f"submit in {name}", 12, prepare, act=_act_submit)
        every_point(subject, f"cancel in {name}", 12, prepare, act=_act_cancel)


@probe
def reentrant_shutdown(subject: Subject) -> None:
    """Shutdown called at any point of a submit, cancel or stats"""
    subject.only_bounded()

    def act(case: Case) -> None:
        case.ex.shutdown(wait=False)

    for name, prepare in _operations().items():

        def tolerant(case: Case, prepare: Any = prepare) -> Operation:
            operation = prepare(case)

            def run() -> None:
                try:
                    operation()
                except RuntimeError:  # closed
                    pass

            return run

        every_point(subject, f"in {name}", 12, tolerant, act=act, closes=True)
