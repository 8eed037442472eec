"""The errors of the package: the tree under `FuturePoolError`, but for `TaskError`.

And some texts and questions that trust no class of the user's. Beside it:

- `checks`: of arguments; the errors that name the argument
- `failures`: what becomes of what a task raises; `TaskError`
"""

from __future__ import annotations

import copyreg
import queue
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar

if TYPE_CHECKING:
    import futurepool
else:
    # By this name `typing.get_type_hints` finds classes that are imported late.
    futurepool = sys.modules["futurepool"]

__all__ = [
    "ForcedShutdownError",
    "FuturePoolError",
    "FuturePoolWarning",
    "InvalidConfigError",
    "PoolClosedError",
    "QueueFullError",
    "SubmitTimeoutError",
    "TaskExpiredError",
    "TaskTimeoutError",
    "safe_text",
]

_name_of: Callable[[type], str] = type.__dict__["__name__"].__get__

# -- the tree ----------------------------------------------------------------------------------


E = TypeVar("E")


class FuturePoolError(Exception):
    """The base of every error this package raises on purpose."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Past __init__, whose arguments are not `args`; OSError's __new__ drops `args`.
        state = {**self.__dict__, "args": self.args}
        return copyreg.__newobj__, (type(self),), state  # type: ignore[attr-defined]


class PoolClosedError(FuturePoolError, RuntimeError):
    """The executor was shut down; the task will not run."""

    def __init__(self, message: str = "cannot schedule new futures after shutdown") -> None:
        super().__init__(message)


class ExitRuntimeError(PoolClosedError):
    """The interpreter shuts down, and no executor takes new tasks.

    Shown where only the name and the message are, it reads as the standard library's RuntimeError.
    """

    def __init__(
        self, message: str = "cannot schedule new futures after interpreter shutdown"
    ) -> None:
        super().__init__(message)


class QueueFullError(FuturePoolError, queue.Full):
    """There was no place for the task; it will not run.

    The text is made when it is asked for, so an error that is caught costs little.

    Attributes:
        limit: How many tasks the executor takes in at a time, running and queued (`max_workers +
            queue_size`); None where that is not known, as any of the following.
        waited: Seconds the submitter waited for a place.
        pool: Name of the executor.
        task: Name of the task.
        running: How many tasks were running.
        queued: How many were queued.
        queue_size: How many may be.
    """

    def __init__(
        self,
        *,
        limit: int | None = None,
        waited: float = 0.0,
        pool: str | None = None,
        task: str | None = None,
        running: int | None = None,
        queued: int | None = None,
        queue_size: int | None = None,
    ) -> None:
        super().__init__()
        self.limit = limit
        self.waited = waited
        self.pool = pool
        self.task = task
        self.running = running
        self.queued = queued
        self.queue_size = queue_size

    def __str__(self) -> str:
        if self.args:  # a subclass's own
            return super().__str__()
        text = "queue is full"
        if self.pool is not None:
            text = f"queue of pool {self.pool!r} is full"
        if self.task is not None:
            text += f": no place for task {self.task!r}"
        if self.waited:
            text += f", after {self.waited:.3g} s of waiting"
        if self.running is not None and self.queued is not None:
            size = "" if self.queue_size is None else f" of {self.queue_size}"
            text += f" ({self.running} running, {self.queued}{size} queued)"
        elif self.limit is not None:
            text += f" (at most {self.limit} tasks, running and queued)"
        return text

    def __repr__(self) -> str:
        return super().__repr__() if self.args else f"{type(self).__name__}({str(self)!r})"


class SubmitTimeoutError(QueueFullError, TimeoutError):
    """No place came free within the submission's timeout; the task will not run."""


class TaskExpiredError(FuturePoolError, TimeoutError):
    """The task waited for longer than it may, and was not run: see `options(max_wait=)`, `OnFull.SHED`.

    Attributes:
        pool: Name of the executor; None where that is not known, as any of the following.
        task: Name of the task.
        waited: Seconds that it waited, for a place and for a worker.
        max_wait: Seconds that it might wait; None if that was for `OnFull.SHED` to say.
    """

    def __init__(
        self,
        *,
        pool: str | None = None,
        task: str | None = None,
        waited: float | None = None,
        max_wait: float | None = None,
    ) -> None:
        super().__init__()
        self.pool = pool
        self.task = task
        self.waited = waited
        self.max_wait = max_wait

    def __str__(self) -> str:
        if self.args:  # a subclass's own
            return super().__str__()
        text = "task" if self.task is None else f"task {self.task!r}"
        if self.pool is not None:
            text += f" of pool {self.pool!r}"
        text += " was not run: it had waited for too long"
        if self.waited is not None:
            text += f", {self.waited:.3g} s"
        if self.max_wait is not None:
            text += f" (max_wait={self.max_wait:g})"
        return text

    def __repr__(self) -> str:
        return super().__repr__() if self.args else f"{type(self).__name__}({str(self)!r})"


class TaskTimeoutError(FuturePoolError, TimeoutError):
    """The task ran for longer than it may: see `options(run_timeout=)`. Its function may go on all the same.

    Attributes:
        pool: Name of the executor; None where that is not known, as any of the following.
        task: Name of the task.
        task_id: Its number in its executor.
        run_timeout: Seconds that it might run.
    """

    def __init__(
        self,
        *,
        pool: str | None = None,
        task: str | None = None,
        task_id: int | None = None,
        run_timeout: float | None = None,
    ) -> None:
        super().__init__()
        self.pool = pool
        self.task = task
        self.task_id = task_id
        self.run_timeout = run_timeout

    def __str__(self) -> str:
        if self.args:  # a subclass's own
            return super().__str__()
        text = "task" if self.task_id is None else f"task {self.task_id}"
        if self.task is not None:
            text += f" ({self.task})"
        if self.pool is not None:
            text += f" of pool {self.pool!r}"
        text += " ran for longer than it may"
        if self.run_timeout is not None:
            text += f" (run_timeout={self.run_timeout:g})"
        return text

    def __repr__(self) -> str:
        return super().__repr__() if self.args else f"{type(self).__name__}({str(self)!r})"


class FuturePoolWarning(RuntimeWarning):
    """A program does what works, but not as well as it could: the text says what would."""


class InvalidConfigError(FuturePoolError, ValueError):
    """An option has a value that makes no sense."""


class ForcedShutdownError(FuturePoolError, TimeoutError):
    """`stop()` ran out of time. The message lists what still runs, with its stack.

    Attributes:
        unfinished: The tasks that were still running, all of them; the message shows some.
    """

    def __init__(self, unfinished: Iterable[futurepool.RunningTask] = ()) -> None:
        self.unfinished: tuple[futurepool.RunningTask, ...] = tuple(unfinished)
        number = len(self.unfinished)
        lines = [f"shutdown was forced with {number} task{'s' * (number != 1)} still running"]
        super().__init__("\n".join([*lines, *shortened(self.unfinished)]))


class LostCauseError(FuturePoolError):
    """Stands in for the cause of a pickled `TaskError` that could not be pickled itself.

    It says what the original said; `kind` is the name of the original's type.
    """

    kind: str = ""

    def __init__(self, text: str = "", kind: str = "") -> None:
        super().__init__(text)
        if kind:
            self.kind = kind


MOST = 20  # entries in a message


def shortened(entries: Sequence[object]) -> list[str]:
    """At most `MOST` of them as text, and how many more there are."""
    more = len(entries) - MOST
    lines = [str(entry) for entry in entries[:MOST]]
    return [*lines, f"... and {more} more"] if more > 0 else lines


# -- texts ---------------------------------------------------------------------------------------


def is_a(error: object, kind: type[E]) -> TypeGuard[E]:
    """`isinstance`, without asking the object, whose class may answer what it likes."""
    return issubclass(type(error), kind)


def is_among(value: object, values: Iterable[object]) -> bool:
    """`in`, by identity, without asking anyone's `__eq__`, as that of a metaclass."""
    # Not `any` of a generator expression, which is a function: where there is no memory to make one,
    # CPython 3.12 and 3.13 free its code (python/cpython#122752), and crash the next time.
    for each in values:  # noqa: SIM110
        if each is value:
            return True
    return False


def safe_text(render: Callable[[object], str], value: object) -> str:
    """`render(value)`, which may run code of the user's, or a placeholder if that raises.

    Whatever it raises, as in the standard library's `traceback`: a text is not worth a thread.
    """
    try:
        return str.__str__(render(value))  # of exactly type str
    except BaseException:
        return f"<unprintable {_name_of(type(value))} object>"
