"""What the probes share: the executor under test, its health, and interrupts at every point."""

from __future__ import annotations

import concurrent.futures as cf
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import futurepool
from futurepool import BoundedExecutor, QueueFullError

PATIENCE = 30.0
HERE = str(Path(futurepool.__file__).parent)


@dataclass
class Subject:
    """The executor under test, and how much of it to try."""

    bounded: bool = True
    full: bool = False
    notes: list[str] = field(default_factory=list)

    def make(self, workers: int = 2, queue: int = 2, **arguments: Any) -> Any:
        """An executor, bounded if it can be."""
        if self.bounded:
            return BoundedExecutor(workers, queue_size=queue, **arguments)
        return ThreadPoolExecutor(workers, **arguments)

    def try_submit(self, ex: Any, *call: Any) -> Any:
        return ex.try_submit(*call) if self.bounded else ex.submit(*call)

    def files(self) -> str:
        """Where the executor's own code is."""
        return HERE if self.bounded else str(Path(str(cf.__file__)).parent)

    def points(self, sample: int) -> Iterator[int]:
        """1, 2, 3 ... or every `sample`-th of them."""
        k = 1
        while True:
            yield k
            k += 1 if self.full else sample

    def note(self, text: str) -> None:
        self.notes.append(text)


def check(condition: object, text: object = "wrong") -> None:
    if not condition:
        raise AssertionError(text)


def healthy(subject: Subject, ex: Any, workers: int = 2, queue: int = 2) -> None:
    """Every worker works, every place is there and no more, the counters add up."""
    if subject.bounded:
        check(ex.wait(PATIENCE), ("not idle", ex.stats()))
        stats = ex.stats()
        check((stats.active_workers, stats.queued_tasks) == (0, 0), stats)
        check(stats.submitted_tasks == stats.completed_tasks + stats.cancelled_tasks, stats)
        check(min(stats.completed_tasks, stats.cancelled_tasks) >= 0, stats)
    gate = threading.Event()
    started = threading.Semaphore(0)

    def hold() -> bool:
        started.release()
        return gate.wait(PATIENCE)

    futures = [ex.submit(hold) for _ in range(workers)]
    for _ in range(workers):
        check(started.acquire(timeout=PATIENCE), "a worker is missing")
    for number in range(queue):
        try:
            futures.append(subject.try_submit(ex, hold))
        except QueueFullError:
            raise AssertionError(f"{queue - number} places lost") from None
    if subject.bounded:
        try:
            ex.try_submit(hold)
        except QueueFullError:
            pass
        else:
            raise AssertionError("a place too many")
    gate.set()
    check(all(future.result(PATIENCE) for future in futures))


def interrupt(subject: Subject, k: int, operation: Callable[[], Any]) -> tuple[bool, bool]:
    """Run `operation`, with KeyboardInterrupt at the k-th instruction in the executor's code.

    In this thread, which the caller throws away: an interrupt at some instructions leaves the error
    then handled in the thread's state for ever. Returns whether there was a k-th instruction, and
    whether the interrupt came out.
    """
    files = subject.files()
    count = 0

    def local(frame: Any, event: str, _argument: Any) -> Any:
        nonlocal count
        if event == "opcode":
            count += 1
            if count == k:
                sys.settrace(None)
                raise KeyboardInterrupt
        return local

    def trace(frame: Any, _event: str, _argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(files):
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return local

    came_out = False
    sys._getframe().f_trace_opcodes = True  # or Python 3.12 and later have no such events
    sys.settrace(trace)
    try:
        operation()
    except KeyboardInterrupt:
        came_out = True
    finally:
        sys.settrace(None)
    return count >= k, came_out


def in_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run in a thread of its own; what it raises comes out here."""
    answer: list[Any] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            answer.append(function(*arguments))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(PATIENCE)
    if errors:
        raise errors[0]
    check(answer, "did not return")
    return answer[0]
