"""KeyboardInterrupt, or another call of ours, at every instruction of every operation."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent import futures as cf
from typing import Any

from futurepool import CancelToken, ForcedShutdownError, OnFull, QueueFullError
from tests.faults.tools import PATIENCE, Subject, Tracer, check, healthy, in_thread, probe, until

Prepare = Callable[[Any, threading.Event, list[int]], Callable[[], Any]]

_FAR = 10**9  # no operation has so many instructions


def _interrupt() -> None:
    raise KeyboardInterrupt


def every_point(
    subject: Subject,
    name: str,
    sample: int,
    prepare: Prepare,
    *,
    act: Callable[[Any], Any] | None = None,
    closes: bool = False,
    **arguments: Any,
) -> None:
    """Interrupt an operation at its k-th instruction, for every k; then all must be well.

    `prepare(executor, gate, ran)` returns the operation; the gate opens after it. What `act` does
    at the instruction is called with the executor; the default raises KeyboardInterrupt.
    """
    late: set[str] = set()

    def once(k: int) -> int:
        ex = subject.make(2, 2, **arguments)
        gate = threading.Event()
        ran: list[int] = []
        operation = prepare(ex, gate, ran)
        came_out = False
        with Tracer(subject, k, _interrupt if act is None else lambda: act(ex)) as tracer:
            try:
                operation()
            except KeyboardInterrupt:
                came_out = True
        gate.set()
        if closes:
            ex.shutdown()
            check(not any(thread.is_alive() for thread in ex._threads), "a thread is alive")
        else:
            healthy(subject, ex)
            ex.shutdown()
        check(len(ran) <= 1, "ran twice")
        if came_out and ran:
            late.add(tracer.where)
        return tracer.count

    # From Python 3.13 on, code shows its instructions from the second traced call on.
    last = max(in_thread(once, _FAR) for _ in range(3))
    check(last > 20, f"{last} instructions traced")
    for k in subject.points(last, sample):
        try:
            in_thread(once, k)
        except BaseException as error:
            raise AssertionError(f"{name}, instruction {k} of {last}: {error!r}") from error
    subject.note(f"{name}: {last} points" + (f", late in {', '.join(sorted(late))}" if late else ""))


def _fill(ex: Any, gate: threading.Event, tasks: int) -> None:
    for _ in range(tasks):
        ex.submit(gate.wait, PATIENCE)


def _wait_for_room(ex: Any, gate: threading.Event, ran: list[int]) -> Any:
    """Fill the pool; a place comes free once the operation blocks, or has been interrupted."""
    first, over = threading.Event(), threading.Event()
    ex.submit(first.wait, PATIENCE)
    _fill(ex, gate, 3)

    def release() -> None:
        until(lambda: ex._core.blocked or over.is_set())
        first.set()

    threading.Thread(target=release, daemon=True).start()

    def operation() -> None:
        try:
            ex.submit(ran.append, 1)
        finally:
            over.set()

    return operation


@probe
def interrupt_submit(subject: Subject) -> None:
    """KeyboardInterrupt at any point inside submit"""

    def first(ex: Any, gate: Any, ran: Any) -> Any:
        return lambda: ex.submit(ran.append, 1)

    def idle(ex: Any, gate: Any, ran: Any) -> Any:
        ex.submit(int).result(PATIENCE)
        return lambda: ex.submit(ran.append, 1)

    def busy(ex: Any, gate: Any, ran: Any) -> Any:
        _fill(ex, gate, 2)
        return lambda: ex.submit(ran.append, 1)

    every_point(subject, "first", 20, first)
    every_point(subject, "worker idle", 20, idle)
    every_point(subject, "workers busy", 20, busy)


@probe
def interrupt_try_submit(subject: Subject) -> None:
    """KeyboardInterrupt at any point inside try_submit, with a place and without"""
    subject.only_bounded()
    for tasks in (0, 4):

        def prepare(ex: Any, gate: Any, ran: Any, tasks: int = tasks) -> Any:
            _fill(ex, gate, tasks)
            return lambda: subject.try_submit(ex, ran.append, 1)

        every_point(subject, f"{tasks} tasks", 25, prepare)


@probe
def interrupt_blocking_submit(subject: Subject) -> None:
    """KeyboardInterrupt at any point inside a submit that blocks on a full queue"""
    subject.only_bounded()
    every_point(subject, "blocking", 40, _wait_for_room)
    every_point(subject, "with aging", 20, _wait_for_room, aging=1.0)


@probe
def interrupt_policies(subject: Subject) -> None:
    """KeyboardInterrupt at any point inside a submit with any option, on a full queue"""
    subject.only_bounded()
    for options in (
        {"on_full": OnFull.DROP_OLDEST},
        {"on_full": OnFull.DROP_NEW},
        {"on_full": OnFull.CALLER_RUNS},
        {"timeout": 0.0},
        {"token": CancelToken(), "on_full": OnFull.RAISE},
    ):

        def prepare(ex: Any, gate: Any, ran: Any, options: Any = options) -> Any:
            _fill(ex, gate, 4)
            view = ex.options(**options)

            def operation() -> None:
                try:
                    view.submit(ran.append, 1)
                except QueueFullError:
                    pass

            return operation

        every_point(subject, next(iter(options)), 15, prepare)


@probe
def interrupt_result(subject: Subject) -> None:
    """KeyboardInterrupt at any point inside result"""

    def prepare(ex: Any, gate: Any, ran: Any) -> Any:
        future = ex.submit(gate.wait, PATIENCE)
        threading.Timer(0.002, gate.set).start()
        return future.result

    every_point(subject, "result", 20, prepare)


@probe
def interrupt_cancel(subject: Subject) -> None:
    """KeyboardInterrupt at any point inside cancel"""

    def prepare(ex: Any, gate: Any, ran: Any) -> Any:
        _fill(ex, gate, 2)
        future = ex.submit(ran.append, 1)
        future.add_done_callback(id)
        return future.cancel

    every_point(subject, "cancel", 20, prepare)
    if not subject.bounded:
        return

    def by_token(ex: Any, gate: Any, ran: Any) -> Any:
        _fill(ex, gate, 2)
        token = CancelToken()
        ex.submit_with_token(token, ran.append, 1)
        return token.cancel

    def running(ex: Any, gate: Any, ran: Any) -> Any:
        future = ex.submit(gate.wait, PATIENCE)
        check(until(future.running))
        return future.cancel

    every_point(subject, "by token", 20, by_token)
    every_point(subject, "running", 20, running)


@probe
def interrupt_map(subject: Subject) -> None:
    """KeyboardInterrupt at any point of a map and its iteration"""
    shapes: list[dict[str, int]] = [{}, {"chunksize": 3}]
    if subject.bounded:
        shapes.append({"buffersize": 3})
    for shape in shapes:

        def prepare(ex: Any, gate: Any, ran: Any, shape: Any = shape) -> Any:
            return lambda: list(ex.map(abs, range(8), **shape))

        every_point(subject, f"map {shape or ''}", 25, prepare)
    if subject.bounded:
        every_point(
            subject,
            "map_unordered",
            25,
            lambda ex, gate, ran: lambda: list(ex.map_unordered(abs, range(8))),
        )


@probe
def interrupt_other_methods(subject: Subject) -> None:
    """KeyboardInterrupt at any point of add_done_callback, wait, as_completed, stats"""

    def callback(ex: Any, gate: Any, ran: Any) -> Any:
        future = ex.submit(gate.wait, PATIENCE)
        return lambda: future.add_done_callback(id)

    def as_completed(ex: Any, gate: Any, ran: Any) -> Any:
        futures = [ex.submit(gate.wait, PATIENCE) for _ in range(3)]
        threading.Timer(0.002, gate.set).start()
        return lambda: list(cf.as_completed(futures, PATIENCE))

    every_point(subject, "add_done_callback", 15, callback)
    every_point(subject, "as_completed", 15, as_completed)
    if not subject.bounded:
        return

    def wait(ex: Any, gate: Any, ran: Any) -> Any:
        _fill(ex, gate, 3)
        threading.Timer(0.002, gate.set).start()
        return ex.wait

    every_point(subject, "wait", 15, wait)
    every_point(subject, "stats", 15, lambda ex, gate, ran: ex.stats)
    every_point(subject, "running", 15, lambda ex, gate, ran: lambda: ex.running(stack=True))


@probe
def interrupt_shutdown(subject: Subject) -> None:
    """KeyboardInterrupt at any point inside shutdown and stop"""

    def shutdown(ex: Any, gate: Any, ran: Any) -> Any:
        _fill(ex, gate, 3)
        threading.Timer(0.002, gate.set).start()
        return ex.shutdown

    def cancelling(ex: Any, gate: Any, ran: Any) -> Any:
        _fill(ex, gate, 4)
        return lambda: ex.shutdown(wait=False, cancel_futures=True)

    def stop(ex: Any, gate: Any, ran: Any) -> Any:
        _fill(ex, gate, 3)

        def operation() -> None:
            try:
                ex.stop(0.001)
            except ForcedShutdownError:
                pass

        return operation

    every_point(subject, "shutdown", 25, shutdown, closes=True)
    every_point(subject, "cancel_futures", 15, cancelling, closes=True)
    if subject.bounded:
        every_point(subject, "stop", 40, stop, closes=True)
