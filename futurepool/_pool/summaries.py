"""The latest failure, as it is kept for `stats()`: what it was and where, and nothing of the task's.

An exception and its frames hold what the task worked on: arguments, results, whole requests. So none is
kept, but what can be shown of it: the type, the text, arguments and attributes that are small plain data, the
code and the instruction of each frame. The traceback's text is made of that when somebody asks for it.

As most failures are soon no longer the latest, a `Summary` is made as late as can be: when somebody asks for
it, or when the failure dies and still is the latest. That may be in a finalizer, so it runs no code of the
user's. A text that takes a `__str__` of theirs is asked for by the worker, after the future has been told.
"""

from __future__ import annotations

import builtins
import itertools
import sys
import weakref
from collections import deque
from collections.abc import Callable
from traceback import FrameSummary, StackSummary
from types import CodeType, MappingProxyType, TracebackType, WrapperDescriptorType
from typing import Any, cast

from futurepool import _sync
from futurepool._errors import LostCauseError, is_a, is_among, safe_text
from futurepool._errors.failures import (
    Failure,
    Parts,
    TaskError,
    is_small,
    notes_of,
    original_of,
    recipe_for,
)

_FRAMES = 20  # at either end of a traceback
_LINKS = 5  # of a chain of exceptions
_TEXT = 1000  # characters
# Seconds, and how often, for a finalizer that is a matter of microseconds.
_TURN, _TURNS = 0.001, 100
_POSITIONS = sys.version_info >= (3, 11)

_mro_of: Callable[[type], tuple[type, ...]] = type.__dict__["__mro__"].__get__
_namespace_of: Callable[[type], MappingProxyType[str, Any]] = type.__dict__["__dict__"].__get__
_qualname_of: Callable[[type], str] = type.__dict__["__qualname__"].__get__
_module_of: Callable[[type], object] = type.__dict__["__module__"].__get__
_slots: Any = BaseException.__dict__
_args_of: Callable[[BaseException], tuple[Any, ...]] = _slots["args"].__get__
_cause_of: Callable[[BaseException], BaseException | None] = _slots["__cause__"].__get__
_context_of: Callable[[BaseException], BaseException | None] = _slots["__context__"].__get__
_suppress_of: Callable[[BaseException], bool] = _slots["__suppress_context__"].__get__
_traceback_of: Callable[[BaseException], TracebackType | None] = _slots["__traceback__"].__get__

# Their `__str__` are C. By identifier, as a class may have a `__hash__` of its metaclass.
_BUILTIN = {
    id(kind)
    for kind in vars(builtins).values()
    if is_a(kind, type) and issubclass(kind, BaseException)
}

_DIRECT = "\nThe above exception was the direct cause of the following exception:\n\n"
_DURING = "\nDuring handling of the above exception, another exception occurred:\n\n"


def _speaks_c(error: BaseException) -> bool:
    """Whether to ask for its text runs no Python code: not that of its `__str__`, nor of an argument.

    One string may be of any length, as its text is cut.
    """
    for base in _mro_of(type(error)):
        if id(base) in _BUILTIN:
            break
        speak = _namespace_of(base).get("__str__")
        if speak is not None:
            if type(speak) is not WrapperDescriptorType:
                return False
            break
    arguments = _args_of(error)
    if not arguments or (len(arguments) == 1 and type(arguments[0]) is str):
        return True
    return is_small(arguments)


def _kind_of(error: BaseException) -> str:
    kind = type(error)
    module = _module_of(kind)
    name = _qualname_of(kind)
    return (
        name
        if module in ("builtins", "__main__") or type(module) is not str
        else f"{module}.{name}"
    )


class _Link:
    """One exception of a chain."""

    __slots__ = ("frames", "joint", "kind", "missing", "notes", "text")

    def __init__(self, error: BaseException, traceback: TracebackType | None, joint: str) -> None:
        self.joint = joint  # what is printed between this one and the one it led to
        self.kind = _kind_of(error)
        self.text: str | None = None
        self.notes: list[str] = []
        for note in notes_of(error):
            if is_small(note):
                self.notes.append(str(note))
        self.frames: list[tuple[CodeType, int]] = []
        self.missing = 0
        while traceback is not None and len(self.frames) < _FRAMES:
            self.frames.append((traceback.tb_frame.f_code, traceback.tb_lasti))
            traceback = traceback.tb_next
        if traceback is not None:
            last: deque[tuple[CodeType, int]] = deque(maxlen=_FRAMES)
            while traceback is not None:
                last.append((traceback.tb_frame.f_code, traceback.tb_lasti))
                self.missing += 1
                traceback = traceback.tb_next
            self.missing -= len(last)
            self.frames += last

    def format(self) -> str:
        lines = ["Traceback (most recent call last):\n"] if self.frames else []
        lines += _lines(self.frames[:_FRAMES])
        if self.missing:
            lines.append(f"  [{self.missing} more frames]\n")
        lines += _lines(self.frames[_FRAMES:])
        lines.append(f"{self.kind}: {self.text}\n" if self.text else f"{self.kind}\n")
        lines += [f"{note}\n" for note in self.notes]
        return "".join(lines)


def _lines(frames: list[tuple[CodeType, int]]) -> list[str]:
    return StackSummary.from_list([_frame(*frame) for frame in frames]).format()


def _frame(code: CodeType, instruction: int) -> Any:
    line: int | None = code.co_firstlineno
    for start, end, number in code.co_lines():
        if start <= instruction < end:
            line = number
            break
    make: Any = FrameSummary
    if _POSITIONS:
        positions = itertools.islice(cast(Any, code).co_positions(), instruction // 2, None)
        first, end_line, column, end_column = next(positions, (line, None, None, None))
        return make(
            *(code.co_filename, first or line, code.co_name),
            end_lineno=end_line,
            colno=column,
            end_colno=end_column,
        )
    return make(code.co_filename, line, code.co_name)


class Summary:
    """What is kept of a failure; `ask` also for texts that take code of the user's."""

    __slots__ = ("_error", "_links", "_parts", "_task_id", "_task_name")

    def __init__(self, failure: Failure, ask: bool = False) -> None:
        self._task_id = failure.task_id
        self._task_name = failure.task_name
        self._error: TaskError | None = None
        self._parts = Parts.of(original_of(failure.cause), is_small)
        self._links: list[_Link] = []
        error: BaseException | None = failure.cause
        traceback, joint = failure.frames, ""
        met: list[BaseException] = []
        while error is not None and len(met) < _LINKS and not is_among(error, met):
            met.append(error)
            link = _Link(error, traceback, joint)
            self._links.append(link)
            if ask or _speaks_c(error):
                link.text = _cut(safe_text(str, error))
            following, joint = _cause_of(error), _DIRECT
            if following is None and not _suppress_of(error):
                following, joint = _context_of(error), _DURING
            error = following
            traceback = None if error is None else _traceback_of(error)

    def _format(self) -> str:
        return "".join(f"{link.format()}{link.joint}" for link in reversed(self._links))

    def error(self) -> TaskError:
        """The `TaskError` for `stats()`: of the original's type, if one can be made of what is kept."""
        if self._error is not None:
            return self._error
        said = self._links[0].text
        cause: BaseException | None = None
        try:
            cause = None if self._parts is None else self._parts.make()
        except Exception:  # it wants other arguments
            pass
        recipe = recipe_for(type(cause)) if is_a(cause, Exception) else None
        if cause is None:
            cause = LostCauseError(said or "", self._links[0].kind)
        failure = Failure(cause, self._task_id, self._task_name, recipe)
        failure.said = said
        failure.trace = self._format
        failure.add_notes(self._links[0].notes)
        self._error = error = failure.task_error()
        return error


class Latest:
    """A failure that is, or was, the latest of its pool. Held by the pool and by the failure."""

    __slots__ = ("_failure", "_kept", "_summary", "dropped")

    def __init__(self, failure: Failure) -> None:
        self.dropped: bool = False  # another is the latest by now
        self._summary: Summary | None = None
        self._kept: bool = False  # the finalizer has been here
        self._failure: weakref.ref[Failure] = weakref.ref(failure)
        failure.latest = self

    def keep(self, failure: Failure) -> None:
        """It dies: keep what is to be kept. Called by its finalizer."""
        if self._summary is None and not self.dropped:
            try:
                self._summary = Summary(failure)
            except Exception:  # no memory for it
                pass
        self._kept = True

    def complete(self, failure: Failure) -> None:
        """Ask for texts that take code of the user's, if there are any. Called by the worker."""
        error: BaseException | None = failure.cause
        for _ in range(_LINKS):
            if error is None:
                return
            if not _speaks_c(error):
                self._summary = Summary(failure, ask=True)
                return
            error = _cause_of(error) or _context_of(error)

    def error(self) -> TaskError | None:
        """The `TaskError` for `stats()`."""
        failure = self._failure()
        if failure is None:
            self._await_finalizer()
        elif self._summary is None:
            self.keep(failure)
        return None if self._summary is None else self._summary.error()

    def _await_finalizer(self) -> None:
        """Without a GIL what has died cannot be had any more, while another thread is about to call its finalizer."""
        for _ in range(_TURNS):
            if self._kept or self._summary is not None:
                return
            _sync.Parker().acquire(True, _TURN)


def _cut(text: str) -> str:
    # Another object, too: the text of an error may be the very argument of its task.
    return text if len(text) <= _TEXT else f"{text[:_TEXT]}..."
