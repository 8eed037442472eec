"""The errors of the package, and the wrapping of a task's failure.

Two things live here: the tree under `FuturePoolError`, and `wrap_failure`, which turns what a task
raised (type E) into an error that is both a `TaskError` and an E.

What E brings along is the user's and may be anything: a keyword-only `__init__`, slots, a frozen
`__setattr__`, a `__str__` that raises, a metaclass that refuses. So:

* The class of the result, `TaskError[E]`, derives from `(_Dual, E)` and holds `_SHIELD` in its own
  namespace. Every method that Python itself calls is found there, before E's.
* The instance is made by the `__new__` of E's nearest builtin base. Nothing of E runs.
* Everything that is not the error's own is read from `cause`, the original object.
* The state of an error is read and written through the C descriptors of `BaseException`.
* Where no such class can be made, a plain `TaskError` takes its place.

The class is made once for each E and kept in E's own namespace, under one private name, so it lives
as long as E; a table here would keep E alive for ever. Classes that accept no attribute (the
builtin ones) are in `_known`. There is no lock, because a finalizer may fail a task in the middle
of all this. Reading and storing are one C call each, atomic on free-threaded builds too; two
threads that meet a new E together may both make a class, and either serves.

Called by the worker, once per failure: about a microsecond. Formatting waits until asked for.
The two parts share a module, longer than most, because a `TaskError` is copied and read from a
pickle by wrapping its cause anew.
"""

from __future__ import annotations

import builtins
import copyreg
import queue
import sys
from abc import ABCMeta
from collections.abc import Callable, Iterable
from contextlib import suppress
from traceback import TracebackException, format_tb
from types import BuiltinFunctionType, MappingProxyType
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar, cast

if TYPE_CHECKING:
    import futurepool
else:
    # By this name `typing.get_type_hints` finds classes that are imported late.
    futurepool = sys.modules["futurepool"]

__all__ = [
    "ForcedShutdownError",
    "FuturePoolError",
    "InvalidConfigError",
    "PoolClosedError",
    "QueueFullError",
    "SubmitTimeoutError",
    "TaskError",
    "safe_text",
    "wrap_failure",
]

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


class InvalidConfigError(FuturePoolError, ValueError):
    """An option has a value that makes no sense."""


class ForcedShutdownError(FuturePoolError, TimeoutError):
    """`stop()` ran out of time. The message lists what still runs, with its stack.

    Attributes:
        unfinished: The tasks that were still running.
    """

    def __init__(self, unfinished: Iterable[futurepool.RunningTask] = ()) -> None:
        self.unfinished: tuple[futurepool.RunningTask, ...] = tuple(unfinished)
        number = len(self.unfinished)
        lines = [f"shutdown was forced with {number} task{'s' * (number != 1)} still running"]
        super().__init__("\n".join([*lines, *map(str, self.unfinished)]))


class LostCauseError(FuturePoolError):
    """Stands in for the cause of a pickled `TaskError` that could not be pickled itself.

    Its text names the type of the original and what it said.
    """


# -- C entrances, which no user class can override -----------------------------------------------

_args_of: Callable[[BaseException], tuple[Any, ...]] = BaseException.__dict__["args"].__get__
_set_args: Callable[[BaseException, object], None] = BaseException.__dict__["args"].__set__
_set_cause: Callable[[BaseException, object], None] = BaseException.__dict__["__cause__"].__set__
_traceback_of: Callable[[BaseException], Any] = BaseException.__dict__["__traceback__"].__get__
_dict_of: Callable[[BaseException], dict[str, Any]] = BaseException.__dict__["__dict__"].__get__
_lookup: Callable[[BaseException, str], Any] = BaseException.__getattribute__

_mro_of: Callable[[type], tuple[type, ...]] = type.__dict__["__mro__"].__get__
_base_of: Callable[[type], type] = type.__dict__["__base__"].__get__
_bases_of: Callable[[type], tuple[type, ...]] = type.__dict__["__bases__"].__get__
_name_of: Callable[[type], str] = type.__dict__["__name__"].__get__
_namespace_of: Callable[[type], MappingProxyType[str, Any]] = type.__dict__["__dict__"].__get__

_WORKER = "futurepool.worker"
_stop_value: Any = StopIteration.__dict__["value"]
_Group: Any = getattr(builtins, "BaseExceptionGroup", None)  # from Python 3.11

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


def _summary(cause: BaseException) -> str:
    text = safe_text(str, cause)
    if issubclass(type(cause), (TaskError, LostCauseError)):  # isinstance() would ask the cause
        return text  # which names the type already
    name = _name_of(type(cause))
    return f"{name}: {text}" if text else name


def _task_frames_of(cause: BaseException) -> Any:
    """Its traceback, from the task on: on free-threaded builds the worker's frame is still there."""
    traceback = _traceback_of(cause)
    while traceback is not None and traceback.tb_frame.f_globals.get("__name__") == _WORKER:
        traceback = traceback.tb_next
    return traceback


def _frames(cause: BaseException) -> str:
    return "".join(format_tb(_task_frames_of(cause)))


def _format(cause: BaseException) -> str:
    try:
        lines = TracebackException(type(cause), cause, _task_frames_of(cause))
        return "".join(lines.format())
    except BaseException:
        return f"{safe_text(cast('Any', _frames), cause)}{_summary(cause)}\n"


def _summary_of(error: TaskError) -> str:
    return _summary(error.cause)


# -- TaskError -----------------------------------------------------------------------------------

# What a TaskError knows is one entry of its dictionary; the user may set others.
_TASK = "_futurepool_task"  # (task_id, name, cause)
_TEXT = "_futurepool_text"  # the formatted traceback
_UNKNOWN = (0, "unknown", LostCauseError("unknown"))


def _task_of(error: BaseException) -> tuple[int, str, BaseException]:
    task: tuple[int, str, BaseException] = _dict_of(error).get(_TASK, _UNKNOWN)
    return task


def _extras(error: BaseException) -> dict[str, Any]:
    """What others have set on the error, notes included."""
    return {k: v for k, v in _dict_of(error).copy().items() if k not in (_TASK, _TEXT)}


def _dumps(value: object, protocol: Any) -> bytes | None:
    try:
        import pickle

        return pickle.dumps(value, protocol)
    except Exception:
        return None


class TaskError(FuturePoolError):
    """A task failed. What futures raise is at the same time of the type the task raised.

    `args` and every attribute that is not listed here (`errno`, `response`, ...) are those of the
    original. Where both have one of the same name, `ImportError.name` for instance, this class's
    wins, and the other is at `cause.name`. Pickling keeps the traceback's text; a cause that cannot
    be pickled becomes a `LostCauseError`. Copies, deep ones too, share the cause. Not meant to be
    subclassed.

    Args:
        task_id: Number of the task in its executor.
        name: Name of the task.
        cause: What it raised.
    """

    def __init__(self, task_id: int, name: str, cause: BaseException) -> None:
        _set_args(self, _args_of(cause))
        _set_cause(self, cause)
        _dict_of(self)[_TASK] = (task_id, name, cause)

    @property
    def task_id(self) -> int:
        """Number of the task in its executor."""
        return _task_of(self)[0]

    @property
    def name(self) -> str:
        """Name of the task: from `options(name=)`, else the function's qualified name."""
        return _task_of(self)[1]

    @property
    def cause(self) -> BaseException:
        """What the task raised, the very object. Also `__cause__`."""
        return _task_of(self)[2]

    @property
    def traceback(self) -> str:
        """The formatted traceback of the cause and its chain. Made when first read, then kept."""
        data = _dict_of(self)
        text: str | None = data.get(_TEXT)
        if text is None:
            text = data[_TEXT] = _format(_task_of(self)[2])
        return text

    def __str__(self) -> str:
        task_id, name, cause = _task_of(self)
        return f"task {task_id} ({name}) failed: {_summary(cause)}"

    def __repr__(self) -> str:
        task_id, name, cause = _task_of(self)
        kind = _name_of(type(self))
        return f"{kind}(task_id={task_id}, name={name!r}, cause={safe_text(repr, cause)})"

    def __bool__(self) -> bool:
        return True

    if (
        not TYPE_CHECKING
    ):  # pragma: no branch - or no checker would notice a misspelt attribute any more

        def __getattr__(self, name):
            # Only names that were not found. What Python itself asks for is never the cause's:
            # `add_note` would write into the cause's `__notes__`.
            if name[:2] == "__" == name[-2:] or _TASK not in _dict_of(self):
                raise AttributeError(f"{_name_of(type(self))!r} object has no attribute {name!r}")
            return getattr(_task_of(self)[2], name)

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
        task_id, name, cause = _task_of(self)
        error = _make(isinstance(self, _Dual), cause, task_id, name)
        _dict_of(error).update(_dict_of(self))
        return error

    def __deepcopy__(self, memo: object) -> TaskError:
        return self.__copy__()

    def __reduce__(self) -> tuple[Any, ...]:
        return self.__reduce_ex__(4)  # pickle.DEFAULT_PROTOCOL of all versions that are supported

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        # The cause travels as bytes of its own: many exceptions can be pickled but not read back,
        # and then only the cause is lost, not the message this error is part of.
        task_id, name, cause = _task_of(self)
        blob = _dumps((cause, _extras(self)), protocol) or _dumps((cause, None), protocol)
        dual = isinstance(self, _Dual)
        return _rebuild, (blob, _summary(cause), dual, task_id, name, self.traceback)


class _Dual(TaskError):  # noqa: N818 - never raised by this name
    """The part of a `TaskError[E]` that keeps E's hooks away and answers for the cause."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Make an E, for code that does `raise type(error)("more") from error`."""
        return _bases_of(cls)[1](*args, **kwargs)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Found before E's, which may refuse to be derived from."""

    def __getattribute__(self, name: str) -> Any:
        if name in _OWN:
            return _lookup(self, name)
        if name in ("split", "subgroup") and _Group is not None and isinstance(self, _Group):
            # On this error, not on the cause, or `except*` would lose the traceback.
            return getattr(_Group, name).__get__(self)
        try:
            return _dict_of(self)[name]
        except KeyError:
            raise AttributeError(name) from None  # goes on in TaskError.__getattr__

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _OWN:
            BaseException.__setattr__(self, name, value)
        else:
            _dict_of(self)[name] = value  # not into a slot or a property of E's

    def __delattr__(self, name: str) -> None:
        if name in _OWN:
            BaseException.__delattr__(self, name)
        else:
            try:
                del _dict_of(self)[name]
            except KeyError:
                raise AttributeError(name) from None


_OWN = frozenset(dir(TaskError))

# What an Exception has and TaskError does not override, for the namespace of each TaskError[E].
_SHIELD: dict[str, Any] = {
    name: next(vars(base)[name] for base in BaseException.__mro__ if name in vars(base))
    for name in dir(BaseException)
    if not any(name in vars(base) for base in (_Dual, TaskError))
}

# -- one class for each E -------------------------------------------------------------------------


class _Recipe:
    """How to make the error for a cause of type `owner`. Immutable."""

    __slots__ = ("dual", "group", "new", "owner", "stop")

    def __init__(self, owner: type, dual: type[TaskError], new: Callable[..., TaskError]) -> None:
        self.owner = owner  # a namespace may be copied into another class
        self.dual = dual
        self.new = new
        bases = _mro_of(dual)
        self.group = _Group is not None and is_among(_Group, bases)
        self.stop = is_among(StopIteration, bases)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()  # for those that pickle a class with its namespace


_KEY = "__futurepool_recipe__"
_known: dict[int, _Recipe] = {}  # by id of the class, which its recipe keeps alive


def _plain_recipe(owner: type) -> _Recipe:
    return _Recipe(owner, TaskError, cast("Any", Exception.__new__))


def _recipe(owner: type) -> _Recipe:
    """Make the recipe for `owner` and store it for the next time."""
    if is_among(owner, _mro_of(TaskError)):
        recipe = _plain_recipe(owner)
    else:
        try:
            recipe = _build(owner)
        except BaseException as error:
            recipe = _plain_recipe(owner)
            if not isinstance(error, Exception) or isinstance(error, (MemoryError, RecursionError)):
                return recipe  # not the fault of the class, perhaps: try again next time
    _store(owner, recipe)
    return recipe


def _store(owner: type, recipe: _Recipe) -> None:
    try:
        type.__setattr__(owner, _KEY, recipe)
    except TypeError:  # an immutable type
        _known[id(owner)] = recipe


def _nothing(self: object) -> None:
    """Take the place of a finalizer that belongs to the cause alone."""


def _build(owner: type) -> _Recipe:
    namespace = dict(_SHIELD)
    name = f"TaskError[{_name_of(owner)}]"
    namespace.update(
        __module__=__name__,
        __qualname__=name,
        __doc__="A failed task's error that is also of the type the task raised.",
    )
    for base in _mro_of(owner):
        if "__del__" in _namespace_of(base):
            namespace["__del__"] = _nothing
    meta = type(owner)
    # Past the metaclass's own __new__ and __init__. An ABC without its own caches would spoil E's.
    make: Any = ABCMeta.__new__ if is_among(ABCMeta, _mro_of(meta)) else type.__new__
    dual = make(meta, name, (_Dual, owner), namespace)
    bases = _mro_of(dual)  # may be the metaclass's idea
    if bases[:2] != (dual, _Dual) or not is_among(owner, bases):
        raise TypeError("the metaclass has changed the order of the bases")
    base = _base_of(dual)
    while True:
        new = _namespace_of(base).get("__new__")
        if type(new) is BuiltinFunctionType and new.__self__ is base:
            break
        base = _base_of(base)
    _store(dual, _Recipe(dual, dual, new))  # a failure that is wrapped again
    return _Recipe(owner, dual, new)


# -- making the errors ---------------------------------------------------------------------------


def wrap_failure(cause: Exception, task_id: int, name: str) -> TaskError:
    """Make the error a future raises for a task that raised `cause`.

    Returns:
        An error that is a `TaskError` and also an instance of `type(cause)`, or a plain
        `TaskError` where there can be no such class. Its traceback is empty, and that of `cause`
        is left as it is.
    Raises no `Exception`. Thread safety: any thread, finalizers too.
    Cost: about a microsecond; the first failure of each type about fifty.
    """
    try:
        owner = type(cause)
        recipe: Any = _known.get(id(owner)) or _namespace_of(owner).get(_KEY)
        if type(recipe) is not _Recipe or recipe.owner is not owner:
            recipe = _recipe(owner)
        args = _args_of(cause)
        if recipe.group:
            message = _Group.message.__get__(cause)
            error: TaskError = recipe.new(recipe.dual, message, _Group.exceptions.__get__(cause))
        else:
            error = recipe.new(recipe.dual, *args)
            if recipe.stop:  # the interpreter reads it without a look whether it is there
                _stop_value.__set__(error, _stop_value.__get__(cause))
        _set_args(error, args)
        _set_cause(error, cause)
        _dict_of(error)[_TASK] = (task_id, name, cause)
        return error
    except Exception:
        pass
    try:
        return TaskError(task_id, name, cause)
    except Exception:
        return _spare


_spare = TaskError(0, "unknown", MemoryError("no memory was left to describe the failure"))


def _make(dual: bool, cause: Any, task_id: int, name: str) -> TaskError:
    return wrap_failure(cause, task_id, name) if dual else TaskError(task_id, name, cause)


def _rebuild(
    blob: bytes | None, summary: str, dual: bool, task_id: int, name: str, text: str
) -> TaskError:
    """Read a pickled `TaskError`."""
    cause: Any = None
    extras: dict[str, Any] | None = None
    if blob is not None:
        with suppress(Exception):
            import pickle

            cause, extras = pickle.loads(blob)
    if not isinstance(cause, BaseException):
        cause, dual = LostCauseError(summary), False
    error = _make(dual, cause, task_id, name)
    data = _dict_of(error)
    data.update(extras or {})
    data[_TEXT] = text
    return error
