"""What becomes of what a task raises.

A `Failure` keeps what a task raised (of type E) and makes of it what readers get: an error that is
both a `TaskError` and an E, and in all that programs look at is the original.

What E brings along is the user's and may be anything: a keyword-only `__init__`, slots, a frozen
`__setattr__`, a `__str__` that raises, a metaclass that refuses. So:

* The class of the result derives from `(_Dual, E)`, is called what E is called, and holds `_SHIELD` in
  its own namespace. Every method that Python itself calls is found there, before E's.
* The instance is made by the `__new__` of E's nearest builtin base. Nothing of E runs.
* It has no state but its `Failure`, in a slot of its class. Its dictionary is the original's, the
  same object. All else is read from the original, and written to it, when somebody does so: no
  attribute is read before, which could close a file, and nothing is copied that has a finalizer.
* The state of an error is read and written through the C descriptors of `BaseException`.
* Where no such class, or no object of it, can be made, the original itself is raised.

The class is made once for each E and kept in E's own namespace, under one private name, so it lives
as long as E; a table here would keep E alive for ever. Classes that accept no attribute (the
builtin ones) are in `_known`. There is no lock, because a finalizer may fail a task in the middle
of all this. Reading and storing are one C call each, atomic on free-threaded builds too; two
threads that meet a new E together may both make a class, and either serves.

**No cycles.** A traceback holds the frames of whoever reads a failure, and such a frame often holds
the future. So a `Failure` holds what it has made weakly: two readers get the same object as long as
anybody has it. What they set on it is kept, on the original, and the notes here.

A `Failure` is made by the worker, once for each failed task: about a microsecond. The error is made by the
first reader, the text when somebody asks for it. All of this shares a module, longer than most, because a
`TaskError` is copied and read from a pickle by wrapping its cause anew.
"""

from __future__ import annotations

import builtins
import functools
import logging
import os
import sys
import weakref
from abc import ABCMeta
from collections.abc import Callable
from concurrent import futures as cf
from contextlib import suppress
from traceback import TracebackException, format_exception, format_tb
from types import (
    BuiltinFunctionType,
    GetSetDescriptorType,
    MappingProxyType,
    MemberDescriptorType,
    TracebackType,
)
from typing import TYPE_CHECKING, Any, TypeGuard, cast

from futurepool import _logs
from futurepool._errors import FuturePoolError, LostCauseError, is_a, is_among, safe_text

__all__ = ["Failure", "TaskError", "failure_of", "wrap_failure"]

# -- C entrances, which no user class can override -----------------------------------------------

_slots: Any = BaseException.__dict__

_args_of: Callable[[BaseException], tuple[Any, ...]] = _slots["args"].__get__
_set_args: Callable[[BaseException, object], None] = _slots["args"].__set__
_cause_of: Callable[[BaseException], BaseException | None] = _slots["__cause__"].__get__
_set_cause: Callable[[BaseException, object], None] = _slots["__cause__"].__set__
_context_of: Callable[[BaseException], BaseException | None] = _slots["__context__"].__get__
_set_context: Callable[[BaseException, object], None] = _slots["__context__"].__set__
_suppress_of: Callable[[BaseException], bool] = _slots["__suppress_context__"].__get__
_set_suppress: Callable[[BaseException, object], None] = _slots["__suppress_context__"].__set__
_traceback_of: Callable[[BaseException], Any] = _slots["__traceback__"].__get__
_set_traceback: Callable[[BaseException, object], None] = _slots["__traceback__"].__set__
_dict_of: Callable[[BaseException], dict[str, Any]] = _slots["__dict__"].__get__
_set_dict: Callable[[BaseException, object], None] = _slots["__dict__"].__set__
_lookup: Callable[[BaseException, str], Any] = BaseException.__getattribute__

_type_of: Callable[[object], type] = type
_mro_of: Callable[[type], tuple[type, ...]] = type.__dict__["__mro__"].__get__
_base_of: Callable[[type], type] = type.__dict__["__base__"].__get__
_bases_of: Callable[[type], tuple[type, ...]] = type.__dict__["__bases__"].__get__
_qualname_of: Callable[[type], str] = type.__dict__["__qualname__"].__get__
_module_of: Callable[[type], object] = type.__dict__["__module__"].__get__
_name_of: Callable[[type], str] = type.__dict__["__name__"].__get__
_namespace_of: Callable[[type], MappingProxyType[str, Any]] = type.__dict__["__dict__"].__get__

_WORKER = ("futurepool._engines.worker_loop", "futurepool._map.batches", "futurepool._pool.overdue")
_NOTES = sys.version_info >= (3, 11)
_Group: Any = getattr(builtins, "BaseExceptionGroup", None)  # from Python 3.11

# -- texts ---------------------------------------------------------------------------------------


def _summary(cause: BaseException) -> str:
    """The type and the text of what a task raised."""
    original = original_of(cause)
    text = safe_text(str, original)
    kind = original.kind if type(original) is LostCauseError else _name_of(type(original))
    return f"{kind}: {text}" if text and kind else text or kind


def _task_frames_of(cause: BaseException) -> TracebackType | None:
    """Its traceback, from the task on: the first frame is the worker's."""
    traceback: TracebackType | None = _traceback_of(cause)
    while traceback is not None and traceback.tb_frame.f_globals.get("__name__") in _WORKER:
        traceback = traceback.tb_next
    return traceback


def _frames(failure: Failure) -> str:
    return "".join(format_tb(failure.frames))


def _format(failure: Failure) -> str:
    cause = failure.cause
    try:
        lines = TracebackException(type(cause), cause, failure.frames)
        return "".join(lines.format())
    except BaseException:
        return f"{safe_text(cast('Any', _frames), failure)}{_summary(cause)}\n"


def _summary_of(error: TaskError) -> str:
    return _summary(_failure_of(error).cause)


def _is_list(value: object) -> TypeGuard[list[Any]]:
    return type(value) is list


class _Note(str):
    """A note of ours, so that it is known again. In a pickle it is a text like any other."""

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return str, (str(self),)


def notes_of(error: BaseException) -> list[Any]:
    """The notes of an error, without asking it."""
    dual = is_a(error, _Dual)
    notes: Any = _failure_of(error).notes if dual else _dict_of(error).get("__notes__")
    return [*notes] if _is_list(notes) else []


def _add_note(error: BaseException, note: _Note) -> None:
    """Add a note to what is not ours, if it has room for one. Only the latest of ours stays."""
    data = _dict_of(error)
    if "__notes__" not in data:
        data["__notes__"] = [note]
        return
    notes: Any = data["__notes__"]
    if _is_list(notes):
        # Raised again and again, one object would collect them for ever.
        data["__notes__"] = [each for each in notes if type(each) is not _Note] + [note]


# -- what a failed task leaves -------------------------------------------------------------------


class Failure:
    """What a task raised, and all that is known of it: the outcome of a future that has failed.

    `frames` are those it came from, from the task's own on. Each reading raises from there on, or it
    would add its own frames for ever.
    """

    __slots__ = (
        "__weakref__",
        "_errors",
        "_notes",
        "_text",
        "cause",
        "context",
        "frames",
        "latest",
        "noted",
        "pool",
        "recipe",
        "said",
        "seen",
        "task_id",
        "task_name",
        "trace",
    )

    def __init__(
        self,
        cause: BaseException,
        task_id: int = 0,
        task_name: str = "unknown",
        recipe: _Recipe | None = None,
        noted: bool = False,
        frames: TracebackType | None = None,
    ) -> None:
        self.cause: BaseException = cause
        self.task_id: int = task_id
        self.task_name: str = task_name
        #: How to make an error that is also a TaskError; None: the cause itself is raised.
        self.recipe: _Recipe | None = recipe
        #: Whether that cause is to get the note.
        self.noted: bool = noted
        self.frames: TracebackType | None = frames
        self.context: BaseException | None = _context_of(cause)
        #: Whether anybody has looked at it, or need not; None before it is the outcome of a future.
        self.seen: bool | None = True
        self.pool: str | None = None
        #: While it is the latest of its pool: see `futurepool._pool.summaries`.
        self.latest: Any = None
        # For one that has been made of parts: what the cause said, and how to format where it came from.
        self.said: str | None = None
        self.trace: Callable[[], str] | None = None
        #: The one that was made of it, if it is alive; for a moment perhaps others. Single C calls only.
        self._errors: list[weakref.ref[TaskError]] = []
        self._notes: Any = None
        self._text: str | None = None

    def watch(self, pool: str) -> None:
        """Have it logged if it dies unseen, or is alive and unseen when the interpreter exits."""
        self.pool = pool
        self.seen = None
        # The callback is all C: nothing can come in between.
        forget: Any = _watched.pop
        ref: Any = weakref.ref(self, forget)
        _watched[ref] = None

    def __del__(self) -> None:
        if self.latest is not None:
            self.latest.keep(self)
        if self.seen is False:
            self.report()

    def report(self) -> None:
        """Nobody has looked at it: log it, but not from here. It lives until that is done."""
        self.seen = True
        _logs.desk.later(functools.partial(_say, self))

    def copy(self) -> Failure:
        """Another one of the same."""
        other = Failure(
            self.cause, self.task_id, self.task_name, self.recipe, self.noted, self.frames
        )
        other.context = self.context
        notes = self._notes
        other._notes = [*notes] if _is_list(notes) else notes
        other._text = self._text
        other.said, other.trace = self.said, self.trace
        return other

    @property
    def note(self) -> _Note:
        """What a printed traceback says of the task."""
        return _Note(f"task {self.task_id} ({self.task_name})")

    @property
    def notes(self) -> Any:
        """The notes of the error: the cause's, and ours, and what is added to them."""
        if self._notes is None:
            self._notes = [*notes_of(self.cause), self.note]
        return self._notes

    def add_notes(self, notes: list[str]) -> None:
        """Before ours; of a cause that has been made of parts."""
        self._notes = [*notes, *self.notes]

    @property
    def text(self) -> str:
        """The formatted traceback."""
        if self._text is None:
            self._text = _format(self) if self.trace is None else self.trace()
        return self._text

    def task_error(self) -> TaskError:
        """The `TaskError`: what is raised, if that is one; else one that stands alone.

        Everybody gets the same object, as long as anybody has it: of two threads that make one at the same
        time each adds its own to the list, and takes the first that is there.
        """
        errors = self._errors
        found = errors[0]() if errors else None
        if found is not None:
            return found
        error = None if self.recipe is None else _make_dual(self)
        if error is None:
            try:
                error = TaskError(self.task_id, self.task_name, self.cause)
                _bind(error, self)
            except Exception:
                return _spare
        errors.append(weakref.ref(error))
        # It is alive and in the list, so the search ends there at last. Nobody takes away what is alive.
        while True:
            first = errors[0]
            found = first()
            if found is not None:
                return found
            try:
                errors.remove(first)
            except ValueError:  # another thread has
                pass

    @property
    def guarded(self) -> bool:
        """Whether an event loop is to get what `for_loop` returns."""
        return self.recipe is not None and self.recipe.guarded

    def for_loop(self) -> BaseException:
        """What asyncio gets, which looks at the very type of three errors, and puts its own in their place.

        A StopIteration would end the coroutine that awaits it, as if that had returned. Up to Python
        3.12 asyncio looks at the very type of it, too, and its future hears nothing of it, for ever.
        """
        if self.recipe is None or not self.recipe.stop:
            self.seen = True
            return self._itself()
        error = self.raised()
        if sys.version_info < (3, 13):
            cause, error = (
                error,
                RuntimeError(
                    "StopIteration interacts badly with generators and cannot be raised into a Future"
                ),
            )
            error.__cause__ = cause
        return error

    def _itself(self) -> BaseException:
        error = self.cause
        if self.noted and _NOTES:
            _add_note(error, self.note)
        self._put_back(error)
        return error

    def _put_back(self, error: BaseException) -> None:
        _set_traceback(error, self.frames)
        if _context_of(error) is not self.context:
            _set_context(error, self.context)  # it was read where another was being handled

    def raised(self) -> BaseException:
        """What a reader gets, its traceback put back to what it was when the task failed."""
        self.seen = True
        if self.recipe is not None:
            error = self.task_error()
            if is_a(error, _Dual):
                self._put_back(error)
                return error
        return self._itself()


_watched: dict[Any, None] = {}  # weak references; single C calls only


def _say(failure: Failure) -> None:
    """Log a failure that nobody has looked at."""
    message = "exception of task %d (%s) was never retrieved"
    info = (type(failure.cause), failure.cause, failure.frames)
    task = (failure.task_id, failure.task_name)
    say = functools.partial(
        _logs.emit, pool=failure.pool, task_id=failure.task_id, task_name=failure.task_name
    )
    try:
        format_exception(*info)
    except BaseException:  # it cannot be shown: as text, which is made without its help
        say(logging.ERROR, f"{message}\n%s", *task, failure.text)
    else:
        say(logging.ERROR, message, *task, exc_info=info)


def _report_all() -> None:
    """At exit: futures that are still held will die when there is no logging any more."""
    for ref in list(_watched):
        failure = ref()
        if failure is not None and failure.seen is False:
            failure.report()


def _forget_all() -> None:
    """In the child of a fork: they are the parent's to report."""
    for ref in list(_watched):
        failure = ref()
        if failure is not None:
            failure.seen = True


_logs.before_exit.append(_report_all)
if sys.platform != "win32" and hasattr(os, "register_at_fork"):  # pragma: no branch
    os.register_at_fork(after_in_child=_forget_all)


# -- TaskError -----------------------------------------------------------------------------------

# Where a TaskError has its Failure: a slot of the classes made here, else in the dictionary.
_STATE = "_futurepool_failure"


def _failure_of(error: BaseException) -> Failure:
    try:
        failure: Failure = _lookup(error, _STATE)
    except AttributeError:
        return _UNKNOWN
    return failure


def _bind(error: TaskError, failure: Failure) -> None:
    """Make `error` one that stands alone."""
    data = _dict_of(error)
    data[_STATE] = failure
    if _NOTES:
        data["__notes__"] = failure.notes


def failure_behind(error: BaseException) -> Failure | None:
    """The one that an error was made for, if it was read from a future."""
    return _failure_of(error) if is_a(error, TaskError) else None


def original_of(error: BaseException) -> BaseException:
    """What was raised in the first place: a failure may have come through several executors."""
    while is_a(error, TaskError):
        error = _failure_of(error).cause
    return error


class TaskError(FuturePoolError):
    """A task failed. What futures raise is at the same time of the type the task raised.

    In all that programs look at it is the original: `str()` is its text, `args` and attributes
    (`errno`, `response`, ...) are its own, `__traceback__` begins with the frames of the task,
    `__cause__` and `__context__` are the original's. `repr()` and a note (from Python 3.11 on) name the
    task. What is listed here comes on top; where the original has an attribute of the same name,
    the original's wins.

    One that stands alone (`Future.task_error`, where the original itself is raised) has the
    original as its `__cause__`, and what is listed here is its own.

    Pickling keeps the traceback's text; a cause that cannot be pickled becomes a `LostCauseError`.
    Copies, deep ones too, share the cause. Not meant to be subclassed.

    Args:
        task_id: Number of the task in its executor.
        task_name: Name of the task.
        cause: What it raised.
    """

    def __init__(self, task_id: int, task_name: str, cause: BaseException) -> None:
        _set_args(self, _args_of(cause))
        _set_cause(self, cause)
        _bind(self, Failure(cause, task_id, task_name, frames=_task_frames_of(cause)))

    @property
    def task_id(self) -> int:
        """Number of the task in its executor."""
        return _failure_of(self).task_id

    @property
    def task_name(self) -> str:
        """Name of the task: from `options(name=)`, else the function's qualified name."""
        return _failure_of(self).task_name

    @property
    def cause(self) -> BaseException:
        """What the task raised, the very object."""
        return _failure_of(self).cause

    @property
    def traceback(self) -> str:
        """The formatted traceback of the cause and its chain. Made when first read, then kept."""
        return _failure_of(self).text

    def __str__(self) -> str:
        failure = _failure_of(self)
        return safe_text(str, failure.cause) if failure.said is None else failure.said

    def __repr__(self) -> str:
        failure = _failure_of(self)
        original = original_of(failure.cause)
        kind = "TaskError"
        if is_a(self, _Dual):
            kind = f"TaskError[{_name_of(type(original))}]"
        return (
            f"{kind}(task_id={failure.task_id}, task_name={failure.task_name!r}, "
            f"cause={safe_text(repr, failure.cause)})"
        )

    def __bool__(self) -> bool:
        return True

    if (
        not TYPE_CHECKING
    ):  # pragma: no branch - or no checker would notice a misspelt attribute any more

        def __getattr__(self, name):
            # Only names that were not found. What Python itself asks for is never the cause's.
            failure = _failure_of(self)
            if name[:2] == "__" == name[-2:] or failure is _UNKNOWN:
                raise AttributeError(f"{_name_of(type(self))!r} object has no attribute {name!r}")
            return getattr(failure.cause, name)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> dict[str, Any]:
        """For pydantic, so for FastAPI: any TaskError, in JSON its type and text."""
        text = {
            "type": "function-plain",
            "function": _summary_of,
            "return_schema": {"type": "str"},
            "when_used": "json",
        }
        return {"type": "is-instance", "cls": TaskError, "serialization": text}

    def __copy__(self) -> TaskError:
        return _again(self, is_a(self, _Dual))

    def __deepcopy__(self, memo: object) -> TaskError:
        return self.__copy__()

    def __reduce__(self) -> tuple[Any, ...]:
        return self.__reduce_ex__(4)  # pickle.DEFAULT_PROTOCOL of all versions that are supported

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        # The cause travels as bytes of its own: many exceptions can be pickled but not read back,
        # and then only the cause is lost, not the message this error is part of.
        failure = _failure_of(self)
        cause = failure.cause
        original = original_of(cause)
        whole = cause if failure.said is None else None
        blobs = _dumps(whole, protocol), _dumps(Parts.of(cause), protocol)
        kind = original.kind if type(original) is LostCauseError else _name_of(type(original))
        notes = [str(note) for note in failure.notes if isinstance(note, str)]
        return _rebuild, (
            blobs,
            (str(self), kind),
            is_a(self, _Dual),
            (failure.task_id, failure.task_name),
            failure.text,
            notes,
        )


class _Dual(TaskError):  # noqa: N818 - never raised by this name
    """The part of such a class that keeps E's hooks away and answers for the original."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Make an E, for code that does `raise type(error)("more") from error`."""
        return _bases_of(cls)[1](*args, **kwargs)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Found before E's, which may refuse to be derived from."""

    def __getattribute__(self, name: str) -> Any:
        if name in _OWN:
            return _lookup(self, name)
        if name == "__notes__" and _NOTES:
            notes = _failure_of(self).notes
            if notes is not _DELETED:
                return notes
        elif name == "__class__":
            return _bases_of(type(self))[1]
        elif name in _ADDED:
            return _added(self, name)
        elif name in ("split", "subgroup") and _Group is not None and is_a(self, _Group):
            # On this error, not on the cause, or `except*` would lose the traceback.
            return getattr(_Group, name).__get__(self)
        raise AttributeError(name)  # goes on in __getattr__

    if not TYPE_CHECKING:  # pragma: no branch

        def __getattr__(self, name):
            if name == "__notes__" and _NOTES:
                raise AttributeError(
                    f"{_name_of(type(self))!r} object has no attribute '__notes__'"
                )
            return getattr(_failure_of(self).cause, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "__notes__" and _NOTES:
            _failure_of(self)._notes = value
        elif name in _OWN:
            BaseException.__setattr__(self, name, value)
            if name == "args":
                _set_args(_failure_of(self).cause, value)
        else:
            setattr(_failure_of(self).cause, name, value)

    def __delattr__(self, name: str) -> None:
        if name == "__notes__" and _NOTES:
            _failure_of(self)._notes = _DELETED
        elif name in _OWN:
            BaseException.__delattr__(self, name)
        else:
            delattr(_failure_of(self).cause, name)

    def __dir__(self) -> Any:
        return sorted({*dir(original_of(self)), *_ADDED})

    def __eq__(self, other: object) -> Any:
        mine = original_of(self)
        theirs = original_of(other) if is_a(other, TaskError) else other
        return mine is theirs or mine == theirs

    def __ne__(self, other: object) -> Any:
        mine = original_of(self)
        theirs = original_of(other) if is_a(other, TaskError) else other
        return mine is not theirs and mine != theirs

    def __hash__(self) -> int:
        return hash(original_of(self))


_DELETED: Any = object()
_ADDED: dict[str, Any] = {
    name: vars(TaskError)[name].fget for name in ("task_id", "task_name", "cause", "traceback")
}
_OWN = frozenset(dir(TaskError)).difference(_ADDED, ("__class__",))


def _added(error: TaskError, name: str) -> Any:
    """An attribute of TaskError's, unless the original has one of that name."""
    original = original_of(error)
    found = name in _dict_of(original)
    for base in _mro_of(type(original)):
        if base is BaseException:
            break
        space = _namespace_of(base)
        found = found or name in space or "__getattr__" in space or "__getattribute__" in space
    if found:
        try:
            return getattr(original, name)
        except BaseException:  # it may answer all names, and this one badly
            pass
    return _ADDED[name](error)


# What an Exception has and TaskError does not override, for the namespace of each class made here.
# Comparisons and formats are not among it: nobody but users asks for them.
_SHIELD: dict[str, Any] = {
    name: next(vars(base)[name] for base in BaseException.__mro__ if name in vars(base))
    for name in dir(BaseException)
    if not any(name in vars(base) for base in (_Dual, TaskError))
    and name not in ("__lt__", "__le__", "__gt__", "__ge__", "__format__")
}

# -- one class for each E -------------------------------------------------------------------------


#: What `concurrent.futures` raises itself: asyncio has classes of its own in their place.
_GUARDED = (cf.CancelledError, cf.InvalidStateError) + (
    (cf.TimeoutError,) if sys.version_info < (3, 11) else ()
)


class _Recipe:
    """How to make the error for a cause of type `owner`. Immutable."""

    __slots__ = ("bind", "dual", "fields", "finalizer", "group", "guarded", "new", "owner", "stop")

    def __init__(self, owner: type, dual: Any, new: Callable[..., TaskError]) -> None:
        self.owner: type = owner  # a namespace may be copied into another class
        self.dual: type[TaskError] | None = dual  # None: there can be none
        self.new: Callable[..., TaskError] = new
        self.bind: Callable[[object, Failure], None]
        # A finalizer of E's own might find half of what it wants, where E is made of its parts.
        self.group: bool = False
        self.stop: bool = False
        self.finalizer: bool = False
        #: Whether asyncio makes something else of it, see `Failure.for_loop`.
        self.guarded: bool = is_among(owner, _GUARDED)
        # What the interpreter itself reads, past all attributes. But for `__class__`: to assign it is refused, and
        # free-threaded CPython 3.13 stops all threads before.
        self.fields: list[tuple[Any, Any]] = []
        if dual is None:
            return
        self.bind = _namespace_of(dual)[_STATE].__set__
        for base in _mro_of(dual):
            self.group = self.group or base is _Group
            self.stop = self.stop or base is StopIteration
            self.guarded = self.guarded or base is StopIteration
            self.finalizer = self.finalizer or "__del__" in _namespace_of(base)
            if not self.group and vars(builtins).get(_name_of(base)) is base:
                self.fields += [
                    (field.__get__, field.__set__)
                    for name, field in _namespace_of(base).items()
                    if is_among(_type_of(field), (MemberDescriptorType, GetSetDescriptorType))
                    and name not in _slots
                    and not name.startswith("__")
                ]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()  # for those that pickle a class with its namespace


_KEY = "__futurepool_recipe__"
_known: dict[int, _Recipe] = {}  # by id of the class, which its recipe keeps alive


def recipe_for(owner: type) -> _Recipe | None:
    """How to make an error for what is of type `owner`; None if there is no way."""
    recipe: Any = _known.get(id(owner)) or _namespace_of(owner).get(_KEY)
    if type(recipe) is not _Recipe or recipe.owner is not owner:
        recipe = _new_recipe(owner)
    return None if recipe.dual is None else recipe


def _new_recipe(owner: type) -> _Recipe:
    """Make the recipe for `owner` and store it for the next time."""
    try:
        recipe = _build(owner)
    except BaseException as error:
        recipe = _Recipe(owner, None, cast("Any", None))
        if not isinstance(error, Exception) or isinstance(error, (MemoryError, RecursionError)):
            return recipe  # not the fault of the class, perhaps: try again next time
    _store(owner, recipe)
    return recipe


def _store(owner: type, recipe: _Recipe) -> None:
    try:
        type.__setattr__(owner, _KEY, recipe)
    except TypeError:  # an immutable type
        _known[id(owner)] = recipe


def _new_of(kind: type) -> Any:
    """The `__new__` of its nearest builtin base."""
    base = kind
    while True:
        new = _namespace_of(base).get("__new__")
        if type(new) is BuiltinFunctionType and new.__self__ is base:
            return new
        base = _base_of(base)


def _nothing(self: object) -> None:
    """Take the place of a finalizer that belongs to the cause alone."""


def _build(owner: type) -> _Recipe:
    namespace = dict(_SHIELD)
    space = _namespace_of(owner)
    name = _name_of(owner)
    qualname, module = _qualname_of(owner), _module_of(owner)
    namespace.update(
        __module__=module if type(module) is str else __name__,
        __qualname__=qualname,
        __doc__=space.get("__doc__"),
    )
    for base in _mro_of(owner):
        if "__del__" in _namespace_of(base):
            namespace["__del__"] = _nothing
    for base in _mro_of(owner):
        if "__hash__" in _namespace_of(base):
            if _namespace_of(base)["__hash__"] is None:
                namespace["__hash__"] = None
            break
    meta = type(owner)
    # Past the metaclass's own __new__ and __init__. An ABC without its own caches would spoil E's.
    make: Any = ABCMeta.__new__ if is_among(ABCMeta, _mro_of(meta)) else type.__new__
    dual: Any
    try:
        slots = {"__slots__": (_STATE, "__weakref__")}
        dual = make(meta, name, (_Dual, owner), {**namespace, **slots})
    except TypeError:  # it has the other slot
        dual = make(meta, name, (_Dual, owner), {**namespace, "__slots__": (_STATE,)})
    bases = _mro_of(dual)  # may be the metaclass's idea
    if bases[:2] != (dual, _Dual) or not is_among(owner, bases):
        raise TypeError("the metaclass has changed the order of the bases")
    new = _new_of(dual)
    _store(dual, _Recipe(dual, dual, new))  # a failure that is wrapped again
    return _Recipe(owner, dual, new)


# -- making the errors ---------------------------------------------------------------------------


def _make_dual(failure: Failure) -> TaskError | None:
    """The error that is a `TaskError` and what the cause is; None if there is no memory for it."""
    cause = failure.cause
    recipe = failure.recipe
    try:
        if recipe is None or recipe.dual is None:
            return None
        args = _args_of(cause)
        if recipe.group:
            message = _Group.message.__get__(cause)
            error: TaskError = recipe.new(recipe.dual, message, _Group.exceptions.__get__(cause))
        else:
            error = recipe.new(recipe.dual, *args)
        _set_args(error, args)
        _set_dict(error, _dict_of(cause))
        recipe.bind(error, failure)
        for get, put in recipe.fields:
            _copy_field(get, put, cause, error, recipe.stop)
        _set_cause(error, _cause_of(cause))
        _set_context(error, failure.context)
        _set_suppress(error, _suppress_of(cause))
        _set_traceback(error, failure.frames)
    except Exception:  # it may refuse its arguments, too
        return None
    return error


def _copy_field(get: Any, put: Any, cause: object, error: object, always: bool) -> None:
    try:
        value = get(cause)
        if value is not None or always:
            put(error, value)
    except (AttributeError, TypeError):  # not set, or read only
        pass


def failure_of(cause: BaseException, task_id: int, task_name: str) -> Failure:
    """What a future keeps of a task that raised `cause`.

    Raises no `Exception` but for lack of memory. Thread safety: any thread, finalizers too.
    Cost: about a microsecond; the first failure of each type about a hundred.
    """
    is_exception = is_a(cause, Exception)
    recipe = recipe_for(type(cause)) if is_exception else None
    return Failure(cause, task_id, task_name, recipe, is_exception, _task_frames_of(cause))


def wrap_failure(cause: Exception, task_id: int, task_name: str) -> BaseException:
    """The error a future raises for a task that raised `cause`.

    Returns:
        An error that is a `TaskError` and also an instance of `type(cause)`, or `cause` itself
        where there can be none.
    """
    return failure_of(cause, task_id, task_name).raised()


_UNKNOWN = Failure(LostCauseError("unknown"))
_spare = TaskError(0, "unknown", MemoryError("no memory was left to describe the failure"))

# -- copies and pickles --------------------------------------------------------------------------


def _again(error: TaskError, dual: bool) -> TaskError:
    """Another error over the same cause."""
    failure = _failure_of(error).copy()
    other = _make_dual(failure) if dual else None
    if other is None:
        other = TaskError(failure.task_id, failure.task_name, failure.cause)
        data = {k: v for k, v in _dict_of(error).copy().items() if k != _STATE}
        _bind(other, failure)
        _dict_of(other).update(data)
    return other


def _dumps(value: object, protocol: Any) -> bytes | None:
    try:
        import pickle

        return pickle.dumps(value, protocol)
    except Exception:
        return None


_PLAIN = (type(None), bool, int, float, complex, str, bytes)
_BOXES = (tuple, list, set, frozenset)
_DEPTH = 5
_LONG = 1000  # characters, or bits


def _is_plain(value: Any, depth: int = 0) -> bool:
    """Whether it is data and nothing else: to make another one of it runs no code and has no effect."""
    kind = _type_of(value)
    if is_among(kind, _PLAIN):
        return True
    if depth < _DEPTH and kind is dict:
        return all(_is_plain(k) and _is_plain(value[k], depth + 1) for k in value)
    if depth < _DEPTH and is_among(kind, _BOXES):
        return all(_is_plain(each, depth + 1) for each in value)
    return False


def is_small(value: Any) -> bool:
    """Whether it is plain data, and so little that nobody minds if it is kept."""
    kind = _type_of(value)
    if kind is str or kind is bytes:
        return len(value) <= _LONG
    if kind is int:
        return bool(value.bit_length() <= _LONG)
    if kind is tuple:
        return len(value) <= _DEPTH and is_among(False, map(is_small, value)) is False
    return is_among(kind, _PLAIN)


class Parts:
    """An exception in pieces, for those that pickle and cannot be made again from that."""

    __slots__ = ("args", "data", "fields", "kind")

    def __init__(self, kind: Any, args: Any, data: Any, fields: Any) -> None:
        self.kind: Any = kind
        self.args: Any = args
        self.data: Any = data
        self.fields: Any = fields

    def __reduce__(self) -> tuple[Any, ...]:
        return Parts, (self.kind, self.args, self.data, self.fields)

    @classmethod
    def of(cls, cause: BaseException, keep: Callable[[Any], bool] = _is_plain) -> Parts | None:
        """Those of `cause` that are `keep`; None if it is none to be made without its help."""
        kind = type(cause)
        recipe = recipe_for(kind)
        if recipe is None or recipe.group or recipe.finalizer or is_a(cause, TaskError):
            return None
        # Loops: where there is no memory to make a function of a comprehension, see `is_among`.
        args: list[Any] = []
        for each in _args_of(cause):
            if keep(each):
                args.append(each)  # noqa: PERF401
        data: dict[str, Any] = {}
        for name, value in _dict_of(cause).copy().items():
            if keep(value):
                data[name] = value  # noqa: PERF403
        fields: list[Any] = []
        for get, _ in recipe.fields:
            try:
                value = get(cause)
            except (AttributeError, TypeError):
                value = None
            fields.append(value if keep(value) else None)
        return cls(kind, tuple(args), data, fields)

    def make(self) -> BaseException | None:
        """Another one like it."""
        recipe = recipe_for(self.kind)
        if recipe is None:
            return None
        error: BaseException = _new_of(self.kind)(self.kind, *self.args)
        _set_args(error, self.args)
        _dict_of(error).update(self.data)
        for (_, put), value in zip(recipe.fields, self.fields, strict=False):
            if value is not None:
                with suppress(AttributeError, TypeError):
                    put(error, value)
        return error


def _loads(blobs: tuple[bytes | None, ...]) -> tuple[BaseException | None, bool]:
    """What was raised, and whether it is in one piece."""
    for blob in blobs:
        if blob is not None:
            with suppress(Exception):
                import pickle

                found: object = pickle.loads(blob)
                whole = not isinstance(found, Parts)
                if isinstance(found, Parts):
                    found = found.make()
                if is_a(found, BaseException):
                    return found, whole
    return None, True


def _rebuild(
    blobs: tuple[bytes | None, ...],
    said: tuple[str, str],
    dual: bool,
    task: tuple[int, str],
    text: str,
    notes: list[Any],
) -> TaskError:
    """Read a pickled `TaskError`."""
    cause, whole = _loads(blobs)
    if cause is None:
        cause, dual = LostCauseError(*said), False
    recipe = recipe_for(type(cause)) if dual else None
    failure = Failure(cause, *task, recipe)
    failure.said = None if whole else said[0]
    failure._text = text
    failure._notes = notes
    return failure.task_error()
