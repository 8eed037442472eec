"""What the probes share: the executor under test, its health, and events at any instruction."""

from __future__ import annotations

import concurrent.futures as cf
import dis
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType
from typing import Any

from typing_extensions import Self

import futurepool
from futurepool import BoundedExecutor, QueueFullError, _sync

PATIENCE = 30.0
SOON = 20.0  # how long a probe waits for what is due at once: that much later it hangs
#: Instructions at which nothing can happen: the interpreter does not even look for signals. It leaves
#: some out of the `try` they are in, so what a tracer raised there would pass by the handler.
#: NOT_TAKEN marks a branch for tracers, from Python 3.14 on.
_NOTHING = {dis.opmap[name] for name in ("NOP", "NOT_TAKEN") if name in dis.opmap}
HERE = str(Path(futurepool.__file__).parent)

#: In the order of the table. The first line of a probe's docstring is its row.
PROBES: dict[str, Callable[[Subject], None]] = {}


class NotApplicableError(Exception):
    """The probe says nothing about this executor, or cannot be run here; the text says why."""


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
        """Submit without waiting for a place; None if there is none."""
        if not self.bounded:
            return ex.submit(*call)
        try:
            return ex.try_submit(*call)
        except QueueFullError:
            return None

    def files(self) -> str:
        """Where the executor's own code is."""
        return HERE if self.bounded else str(Path(str(cf.__file__)).parent)

    def points(self, last: int, sample: int) -> Iterator[int]:
        """1, 2, 3 ... last, or `sample` of them, evenly spread."""
        step = 1 if self.full else max(1, last // sample)
        return iter(range(1, last + 1, step))

    def rounds(self, full: int, sample: int) -> range:
        return range(full if self.full else sample)

    def only_bounded(self) -> None:
        if not self.bounded:
            raise NotApplicableError("it has nothing like it")

    def note(self, text: str) -> None:
        self.notes.append(text)


def probe(function: Callable[[Subject], None]) -> Callable[[Subject], None]:
    """List a probe. It raises, hangs, or returns: then the executor is alive."""
    PROBES[function.__name__] = function
    return function


def check(condition: object, text: object = "wrong") -> None:
    if not condition:
        raise AssertionError(text)


def in_words(error: BaseException) -> str:
    """An error for a table: one line."""
    if isinstance(error, cf.TimeoutError):  # what does not come within seconds never comes
        return "hangs"
    text = " ".join(str(error).split())
    if not isinstance(error, AssertionError) or not text:
        text = f"{type(error).__name__}: {text}".rstrip(": ")
    return text if len(text) <= 120 else text[:117] + "..."


def boom(error: BaseException) -> None:
    raise error


def balanced(ex: Any) -> None:
    """Nothing is queued or runs, and the counters of a BoundedExecutor add up."""
    check(ex.wait(PATIENCE), ("not idle", ex.stats()))
    stats = ex.stats()
    check((stats.active_workers, stats.queued_tasks) == (0, 0), stats)
    check(stats.submitted_tasks == stats.completed_tasks + stats.cancelled_tasks, stats)
    check(min(stats.completed_tasks, stats.cancelled_tasks) >= 0, stats)


def healthy(subject: Subject, ex: Any, workers: int = 2, queue: int = 2) -> None:
    """Every worker works, every place is there and no more, the counters add up."""
    if subject.bounded:
        balanced(ex)
    gate = threading.Event()
    started = threading.Semaphore(0)

    def hold() -> bool:
        started.release()
        return gate.wait(PATIENCE)

    futures = [ex.submit(hold) for _ in range(workers)]
    for _ in range(workers):
        check(started.acquire(timeout=PATIENCE), "a worker is missing")
    for number in range(queue):
        future = subject.try_submit(ex, hold)
        check(future is not None, f"{queue - number} places lost")
        futures.append(future)
    if subject.bounded:
        check(subject.try_submit(ex, hold) is None, "a place too many")
    gate.set()
    check(all(future.result(PATIENCE) for future in futures))
    if subject.bounded:
        balanced(ex)


def until(condition: Callable[[], Any], patience: float = PATIENCE) -> bool:
    """Wait until something becomes true that nobody announces; False if it does not in that time."""
    nobody = threading.Event()
    end = time.monotonic() + patience
    while not condition():
        # Not so many times: on a busy machine each takes several times as long.
        if time.monotonic() > end:
            return False
        nobody.wait(0.0005)
    return True


class Tracer:
    """Calls `act` before the k-th point (instruction, or call) of the executor's own code.

    With `threads` in every thread that starts meanwhile, else in the calling one only.
    """

    def __init__(
        self, subject: Subject, k: int, act: Callable[[], Any], threads: bool = False
    ) -> None:
        self.files = subject.files()
        self.k = k
        self.act = act
        self.threads = threads
        # Python 3.12 crashes where several threads run code that is traced by the instruction.
        self.event = "line" if threads and sys.version_info[:2] == (3, 12) else "opcode"
        self.count = 0
        self.lock = threading.Lock()
        self.where = ""  # the function of the k-th instruction
        self.codes: dict[CodeType, bytes] = {}
        # Each one object for good: the interpreter calls them through borrowed references.
        self.enter, self.step = self._enter, self._step

    def __enter__(self) -> Self:
        if self.event == "opcode":
            sys._getframe().f_trace_opcodes = True  # or Python 3.12 has no such events
        if self.threads:
            threading.settrace(self.enter)
        else:
            sys.settrace(self.enter)
        return self

    def __exit__(self, *_: object) -> None:
        self.k = 0  # threads that are traced see that, and stop
        threading.settrace(None)  # type: ignore[arg-type]
        sys.settrace(None)

    def _enter(self, frame: Any, _event: str, _argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(self.files):
            return None
        frame.f_trace = self.step  # first, or Python 3.13 has none in the first call
        frame.f_trace_opcodes = self.event == "opcode"
        frame.f_trace_lines = self.event == "line"
        self._point(frame)  # where the interpreter looks for signals
        return self.step

    def _step(self, frame: Any, event: str, _argument: Any) -> Any:
        if event == self.event and self._code(frame.f_code)[frame.f_lasti] not in _NOTHING:
            self._point(frame)
        return self.step

    def _code(self, code: CodeType) -> bytes:
        text = self.codes.get(code)
        if text is None:
            text = self.codes[code] = code.co_code
        return text

    def _point(self, frame: Any) -> None:
        if not self.k:
            sys.settrace(None)
            return
        with self.lock:
            self.count += 1
            mine = self.count == self.k
        if mine:
            self.where = frame.f_code.co_name
            sys.settrace(None)
            self.act()


def in_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run in a thread of its own; what it raises comes out here.

    To be thrown away: an exception raised at some instructions leaves the error that is handled
    there in the thread's state for ever.
    """
    answer: list[Any] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            answer.append(function(*arguments))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    if errors:
        raise errors[0]
    if not answer:
        frame = _sync.current_frames().get(thread.ident or 0)
        raise AssertionError(f"did not return, is at\n{''.join(traceback.format_stack(frame))}")
    return answer[0]
