"""KeyboardInterrupt at every instruction of every operation."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

import futurepool
from futurepool import (
    CancelToken,
    ForcedShutdownError,
    OnFull,
    QueueFullError,
    TaskTimeoutError,
)
from futurepool._pool import overdue
from tests.faults.tools import (
    PATIENCE,
    SOON,
    Subject,
    Tracer,
    check,
    healthy,
    in_thread,
    in_words,
    probe,
    until,
)

_FAR = 10**9  # no operation has so many instructions

Operation = Callable[[], Any]


class Case:
    """One operation on one executor, to be interrupted."""

    def __init__(self, subject: Subject, **arguments: Any) -> None:
        self.subject = subject
        self.ex = subject.make(2, 2, **arguments)
        self.gate = threading.Event()  # opens after the operation
        self.ran: list[int] = []  # by the task of `submit`
        self.numbers: list[int] = []  # what `note` has noted
        self.others: list[Any] = []  # futures that must end well, or cancelled

    def fill(self, tasks: int) -> None:
        """Submit tasks that wait for the gate."""
        self.others += [self.ex.submit(self.gate.wait, PATIENCE) for _ in range(tasks)]

    def note(self, number: int) -> None:
        """Be run, at most once for each number."""
        check(number not in self.numbers, f"{number} runs twice")
        self.numbers.append(number)

    def submit(self) -> Any:
        """Submit the task that must run at most once."""
        return self.ex.submit(self.ran.append, 1)

    def open_when(self, waits: Callable[[], object]) -> None:
        """Open the gate once the operation waits, by which it takes the same way each time."""

        def look() -> None:
            until(lambda: waits() or self.gate.is_set())
            self.gate.set()

        threading.Thread(target=look, daemon=True).start()

    def waits_for_all(self) -> bool:
        """Whether the operation waits for the end of all tasks."""
        if self.subject.bounded:
            return bool(self.ex._pool.waiters.idle_waiters)
        return bool(self.ex._shutdown)


def every_point(
    subject: Subject,
    name: str,
    sample: int,
    prepare: Callable[[Case], Operation],
    *,
    act: Callable[[Case], Any] | None = None,
    closes: bool = False,
    **arguments: Any,
) -> None:
    """Interrupt an operation at its k-th instruction, for every k; then all must be well.

    `act` happens at the instruction; the default raises KeyboardInterrupt.
    """
    late: set[str] = set()

    def once(k: int) -> int:
        case = Case(subject, **arguments)
        operation = prepare(case)
        came_out = False

        def strike() -> None:
            if act is None:
                raise KeyboardInterrupt
            act(case)

        with Tracer(subject, k, strike) as tracer:
            try:
                operation()
            except KeyboardInterrupt:
                came_out = True
        case.gate.set()
        if closes:
            case.ex.shutdown()
            check(not any(thread.is_alive() for thread in case.ex._threads), "a thread is alive")
        else:
            healthy(subject, case.ex)
            case.ex.shutdown()
        check(len(case.ran) <= 1, "ran twice")
        for future in case.others:
            check(future.done(), (tracer.where, "not done", future))
            check(future.cancelled() or future.result(0) is True, (tracer.where, future))
        if came_out and case.ran:
            late.add(tracer.where)
        return tracer.count

    last = in_thread(once, _FAR)
    # In C there is hardly any.
    check(last > 20 or futurepool.form == "compiled", f"{last} points traced")
    for k in subject.points(last, sample):
        try:
            in_thread(once, k)
        except BaseException as error:
            raise AssertionError(f"{name}, point {k} of {last}: {in_words(error)}") from error
    subject.note(
        f"{name}: {last} points" + (f", late in {', '.join(sorted(late))}" if late else "")
    )


@probe
def interrupt_submit(subject: Subject) -> None:
    """KeyboardInterrupt at any point inside submit"""

    def idle(case: Case) -> Operation:
        case.ex.submit(int).result(PATIENCE)
        return case.submit

    def busy(case: Case) -> Operation:
        case.fill(2)
        return case.submit

    every_point(subject, "first", 20, lambda case: case.submit)
    every_point(subject, "worker idle", 20, idle)
    every_point(subject, "workers busy", 20, busy)


@probe
def interrupt_try_submit(subject: Subject) -> None:
    """KeyboardInterrupt at any point inside try_submit, with a place and without"""
    subject.only_bounded()
    for tasks in (0, 4):

        def prepare(case: Case, tasks: int = tasks) -> Operation:
            case.fill(tasks)
            return lambda: subject.try_submit(case.ex, case.ran.append, 1)

        every_point(subject, f"{tasks} tasks", 25, prepare)


def blocking(case: Case) -> Operation:
    """A submit that blocks; a place comes free once it does, or has been interrupted."""
    first, over = threading.Event(), threading.Event()
    case.others.append(case.ex.submit(first.wait, PATIENCE))
    case.fill(3)

    def release() -> None:
        until(lambda: case.ex._pool.waiters.blocked or over.is_set())
        first.set()

    threading.Thread(target=release, daemon=True).start()

    def operation() -> None:
        try:
            case.submit()
        finally:
            over.set()

    return operation


@probe
def interrupt_blocking_submit(subject: Subject) -> None:
    """KeyboardInterrupt at any point inside a submit that blocks on a full queue"""
    subject.only_bounded()
    every_point(subject, "blocking", 40, blocking)
    every_point(subject, "with aging", 20, blocking, aging=1.0)


@probe
def interrupt_policies(subject: Subject) -> None:
    """KeyboardInterrupt at any point inside a submit with any option, on a full queue"""
    subject.only_bounded()
    for name, options in {
        "DROP_OLDEST": {"on_full": OnFull.DROP_OLDEST},
        "DROP_NEW": {"on_full": OnFull.DROP_NEW},
        "CALLER_RUNS": {"on_full": OnFull.CALLER_RUNS},
        "timeout": {"timeout": 0.0},
        "max_wait": {"max_wait": 0.001},
        "token": {"token": CancelToken(), "on_full": OnFull.RAISE},
        "limit": {"limit": 1, "on_full": OnFull.DROP_OLDEST},
        "key": {"key": "a", "key_limit": 1, "on_full": OnFull.DROP_OLDEST},
    }.items():

        def prepare(case: Case, options: Any = options) -> Operation:
            case.fill(4)
            view = case.ex.options(**options)

            def operation() -> None:
                try:
                    view.submit(case.ran.append, 1)
                except QueueFullError:
                    pass

            return operation

        every_point(subject, name, 15, prepare)


@probe
def interrupt_result(subject: Subject) -> None:
    """KeyboardInterrupt at any point inside result"""

    def prepare(case: Case) -> Operation:
        case.fill(1)
        (future,) = case.others

        def waits() -> object:
            if not subject.bounded:
                return future._condition._waiters
            return future._subscribers is not None and future._subscribers.parkers

        case.open_when(waits)
        return future.result  # type: ignore[no-any-return]

    every_point(subject, "result", 20, prepare)


@probe
def interrupt_cancel(subject: Subject) -> None:
    """KeyboardInterrupt at any point inside cancel"""

    def queued(case: Case) -> Operation:
        case.fill(3)
        case.others[2].add_done_callback(lambda future: check(future.done()))
        return case.others[2].cancel  # type: ignore[no-any-return]

    def running(case: Case) -> Operation:
        case.fill(1)
        check(until(case.others[0].running))
        return case.others[0].cancel  # type: ignore[no-any-return]

    def token(case: Case) -> Operation:
        case.fill(2)
        token = CancelToken()
        case.others.append(case.ex.submit_with_token(token, case.gate.wait, PATIENCE))

        def operation() -> None:
            token.cancel()
            check(case.others[2].cancelled(), "not cancelled with its token")

        return operation

    every_point(subject, "queued", 20, queued)
    every_point(subject, "running", 20, running)
    if subject.bounded:
        every_point(subject, "by token", 30, token)


@probe
def interrupt_map(subject: Subject) -> None:
    """KeyboardInterrupt at any point of a map and its iteration"""
    shapes: list[dict[str, Any]] = [{}, {"chunksize": 3}]
    if subject.bounded:
        shapes += [{"buffersize": 3}, {"chunksize": "auto"}, {"chunksize": "auto", "buffersize": 3}]
    for shape in shapes:

        def prepare(case: Case, shape: Any = shape) -> Operation:
            return lambda: list(case.ex.map(abs, range(8), **shape))

        every_point(subject, f"map {shape or ''}", 25, prepare)
    if not subject.bounded:
        return
    shapes = [{}, {"chunksize": "auto"}]
    for shape in shapes:

        def unordered(case: Case, shape: Any = shape) -> Operation:
            return lambda: list(case.ex.map_unordered(abs, range(8), **shape))

        every_point(subject, f"map_unordered {shape or ''}", 25, unordered)

    def on_the_spot(case: Case) -> Operation:
        """As a worker does, which is to draw the calls."""
        case.fill(4)
        view = case.ex.options(on_full=OnFull.CALLER_RUNS)

        def operation() -> None:
            results = view.map(case.note, range(8), chunksize="auto", return_exceptions=True)
            sys.settrace(None)
            case.gate.set()
            kinds = [type(outcome) for outcome in results]
            check(len(kinds) == 8, f"{len(kinds)} outcomes")

        return operation

    every_point(subject, "calls of a batch", 40, on_the_spot)


@probe
def interrupt_other_methods(subject: Subject) -> None:
    """KeyboardInterrupt at any point of add_done_callback, wait, stats and running"""

    def callback(case: Case) -> Operation:
        case.fill(1)
        return lambda: case.others[0].add_done_callback(id)

    every_point(subject, "add_done_callback", 15, callback)
    if not subject.bounded:
        return

    def wait(case: Case) -> Operation:
        case.fill(3)
        case.open_when(case.waits_for_all)
        return case.ex.wait  # type: ignore[no-any-return]

    every_point(subject, "wait", 15, wait)
    every_point(subject, "stats", 15, lambda case: case.ex.stats)
    every_point(subject, "running", 15, lambda case: lambda: case.ex.running(stack=True))


class _Looks:
    """In place of the timer: notes who wants it to look."""

    def __init__(self) -> None:
        self.targets: list[Any] = []

    def schedule(self, _when: float, target: Any) -> None:
        self.targets.append(target)


@probe
def interrupt_run_timeout(subject: Subject) -> None:
    """KeyboardInterrupt at any point at which a `run_timeout` ends a task, and its function returns after that"""
    subject.only_bounded()
    looks = _Looks()

    def all_back(case: Case) -> None:
        pool = case.ex._pool
        check(until(lambda: not pool.overdue), "it has not come back")
        check(case.ex.stats().abandoned_workers == 0, "one is still written off")
        check(
            pool.workers.notifying == 0 or until(lambda: pool.workers.notifying == 0), "notifying"
        )

    def in_the_timer(case: Case, abandon: bool) -> Operation:
        future = case.ex.options(run_timeout=1000, abandon=abandon).submit(case.gate.wait, PATIENCE)
        check(until(lambda: looks.targets), "it does not begin")
        run = looks.targets.pop()

        def operation() -> None:
            try:
                run._expire()
            except KeyboardInterrupt:
                run._expire()  # the timer comes for it once more
                raise
            finally:
                sys.settrace(None)
                check(type(future.exception(SOON)) is TaskTimeoutError, future)
                check(case.ex.submit(int).result(SOON) == 0, "no worker works")
                case.gate.set()
                all_back(case)

        return operation

    def in_its_thread(case: Case) -> Operation:
        case.fill(4)
        view = case.ex.options(run_timeout=1000, limit=1, on_full=OnFull.CALLER_RUNS)

        def late() -> None:
            looks.targets[-1]._expire()

        def operation() -> None:
            try:
                view.submit(late)
            finally:
                sys.settrace(None)
                looks.targets.clear()
                case.ex._pool.run_deferred()
                all_back(case)
                check(view._futurepool_options.limiter.running == 0, "it has kept its limit")

        return operation

    timer, overdue.timer = overdue.timer, looks  # type: ignore[assignment]
    try:
        every_point(subject, "kept", 40, lambda case: in_the_timer(case, False))
        every_point(subject, "abandoned", 40, lambda case: in_the_timer(case, True))
        every_point(subject, "as it returns", 60, in_its_thread)
    finally:
        overdue.timer = timer


@probe
def interrupt_shutdown(subject: Subject) -> None:
    """KeyboardInterrupt at any point inside shutdown and stop"""

    def shutdown(case: Case) -> Operation:
        case.fill(3)
        case.open_when(case.waits_for_all)
        return case.ex.shutdown  # type: ignore[no-any-return]

    def cancelling(case: Case) -> Operation:
        case.fill(4)
        return lambda: case.ex.shutdown(wait=False, cancel_futures=True)

    def stop(case: Case) -> Operation:
        case.fill(3)

        def operation() -> None:
            try:
                case.ex.stop(0.001)
            except ForcedShutdownError:
                pass

        return operation

    every_point(subject, "shutdown", 25, shutdown, closes=True)
    every_point(subject, "cancel_futures", 15, cancelling, closes=True)
    if subject.bounded:
        every_point(subject, "stop", 40, stop, closes=True)
