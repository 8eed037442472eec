"""The error tree, and the wrapping of whatever a task may raise."""

from __future__ import annotations

import copy
import gc
import io
import json
import pickle
import queue
import subprocess
import sys
import sysconfig
import traceback
import urllib.error
import weakref
from abc import ABC, ABCMeta
from dataclasses import dataclass
from email.message import Message

import pytest

from futurepool import errors
from futurepool.errors import (
    ForcedShutdownError,
    FuturePoolError,
    InvalidConfigError,
    LostCauseError,
    PoolClosedError,
    QueueFullError,
    SubmitTimeoutError,
    TaskError,
    wrap_failure,
)
from futurepool.stats import RunningTask


class KeywordOnlyError(Exception):
    def __init__(self, *, code):
        super().__init__(f"code {code}")
        self.code = code


class SlottedError(ValueError):
    __slots__ = ("code",)

    def __init__(self, code):
        super().__init__(code)
        self.code = code


class SlottedOSError(OSError):
    __slots__ = ("name", "task_id")

    def __init__(self):
        super().__init__(5, "io")
        self.name = self.task_id = "mine"


@dataclass(frozen=True)
class FrozenError(Exception):
    code: int


class NewError(Exception):
    def __new__(cls, one, two):
        return super().__new__(cls, one, two)


class RefusesError(Exception):
    """Everything that can be overridden raises once it is armed."""

    armed = False

    def __init__(self, text):
        self._check()
        super().__init__(text)

    def _check(self, *args, **kwargs):
        if RefusesError.armed:
            raise KeyboardInterrupt("a hook of the user's was called")

    def __getattribute__(self, name):
        if RefusesError.armed:
            raise KeyboardInterrupt("a hook of the user's was called")
        return super().__getattribute__(name)

    def __new__(cls, *args):
        if RefusesError.armed:
            raise KeyboardInterrupt("a hook of the user's was called")
        return super().__new__(cls, *args)

    def __init_subclass__(cls):
        raise KeyboardInterrupt("final")

    def __del__(self):
        assert type(self) is RefusesError, "finalizer called for the wrapping error"

    __setattr__ = __delattr__ = __eq__ = __str__ = __repr__ = __bool__ = __len__ = _check
    __reduce__ = __reduce_ex__ = __getattr__ = __format__ = __copy__ = __deepcopy__ = _check
    __hash__ = None
    __class__ = __traceback__ = __cause__ = __context__ = __notes__ = args = __dict__ = property(
        _check
    )
    __suppress_context__ = with_traceback = add_note = property(_check)
    task_id = name = cause = traceback = property(_check)


class HostileMeta(type):
    armed = False

    def _check(cls, *args, **kwargs):
        if HostileMeta.armed:
            raise KeyboardInterrupt("a hook of the metaclass was called")
        return NotImplemented

    def __new__(mcls, *args):
        if HostileMeta.armed:
            raise KeyboardInterrupt("final")
        return super().__new__(mcls, *args)

    def __getattribute__(cls, name):
        if HostileMeta.armed:
            raise KeyboardInterrupt("a hook of the metaclass was called")
        return super().__getattribute__(name)

    __setattr__ = __eq__ = _check
    __hash__ = None


class HostileMetaError(Exception, metaclass=HostileMeta):
    pass


class MroMeta(type):
    outcome = None

    def mro(cls):
        if isinstance(MroMeta.outcome, BaseException):
            raise MroMeta.outcome
        full = super().mro()
        return full if MroMeta.outcome is None else [*full[:1], *full[3:]]


class AbstractError(ABC, Exception):
    pass


class DictError(Exception):
    def __getattr__(self, name):
        if name == "magic":
            return 42
        raise AttributeError(f"no {name} here")


class UnpicklableError(Exception):
    def __init__(self, text):
        super().__init__(text)
        self.open = (i for i in ())


def caught(error):
    """The error as a task would have raised it, with a traceback."""
    try:
        raise error
    except type(error) as e:
        return e


def local_error():
    class LocalError(Exception):
        pass

    return LocalError("local")


ZOO = {
    "Exception": lambda: Exception("plain"),
    "ValueError": lambda: ValueError("bad size"),
    "KeyError": lambda: KeyError("k"),
    "OSError": lambda: OSError(5, "io"),
    "FileNotFoundError": lambda: FileNotFoundError(2, "none", "file", None, "other"),
    "BlockingIOError": lambda: BlockingIOError(11, "busy", 3),
    "ImportError": lambda: ImportError("no", name="module", path="p"),
    "UnicodeDecodeError": lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
    "UnicodeEncodeError": lambda: UnicodeEncodeError("ascii", "\xff", 0, 1, "bad"),
    "SyntaxError": lambda: SyntaxError("bad", ("f.py", 3, 1, "x =\n")),
    "NameError": lambda: NameError("no", name="n"),
    "AttributeError": lambda: AttributeError("no", name="n", obj=3),
    "StopIteration": lambda: StopIteration([7]),
    "StopAsyncIteration": lambda: StopAsyncIteration(1),
    "MemoryError": MemoryError,
    "RecursionError": lambda: RecursionError("deep"),
    "CalledProcessError": lambda: subprocess.CalledProcessError(3, ["cmd"], b"out", b"err"),
    "JSONDecodeError": lambda: json.JSONDecodeError("bad", "{", 1),
    "HTTPError": lambda: urllib.error.HTTPError("url", 404, "gone", Message(), io.BytesIO()),
    "keyword only": lambda: KeywordOnlyError(code=3),
    "slots": lambda: SlottedError(3),
    "slots on OSError": SlottedOSError,
    "frozen": lambda: FrozenError(3),
    "__new__": lambda: NewError(1, 2),
    "refuses": lambda: RefusesError("r"),
    "metaclass": lambda: HostileMetaError("m"),
    "abstract": lambda: AbstractError("a"),
    "__getattr__": lambda: DictError("d"),
    "unpicklable": lambda: UnpicklableError("u"),
    "local": local_error,
    "pool closed": PoolClosedError,
    "queue full": lambda: QueueFullError(limit=3, waited=0.5),
    "submit timeout": lambda: SubmitTimeoutError(limit=3, waited=0.5),
}
if sys.version_info >= (3, 11):
    from builtins import ExceptionGroup

    ZOO["ExceptionGroup"] = lambda: ExceptionGroup("g", [ValueError(1), KeyError(2)])


@pytest.fixture
def armed(monkeypatch):
    """Let the hostile classes behave until the test arms them."""

    def arm():
        type.__setattr__(RefusesError, "armed", True)
        type.__setattr__(HostileMeta, "armed", True)

    yield arm
    type.__setattr__(RefusesError, "armed", False)
    type.__setattr__(HostileMeta, "armed", False)


# -- the tree ----------------------------------------------------------------------------------

TASK = RunningTask(7, "load", "pool_0", 1.5, 0.25, "  File x\n    y()\n")
FORCED = """\
shutdown was forced with 1 task still running
task 7 (load) in pool_0: running for 1.500 s after waiting for 0.250 s
  File x
    y()"""
TREE = [
    (FuturePoolError("a", 2), (Exception,), "('a', 2)"),
    (
        PoolClosedError(),
        (FuturePoolError, RuntimeError),
        "cannot schedule new futures after shutdown",
    ),
    (
        QueueFullError(limit=64, waited=0.5),
        (FuturePoolError, queue.Full),
        "queue is full, after 0.5 s of waiting (at most 64 tasks, running and queued)",
    ),
    (
        SubmitTimeoutError(limit=None, waited=2),
        (QueueFullError, TimeoutError),
        "queue is full, after 2 s of waiting",
    ),
    (InvalidConfigError("no"), (FuturePoolError, ValueError), "no"),
    (
        ForcedShutdownError([TASK]),
        (FuturePoolError, TimeoutError),
        FORCED,
    ),
    (ForcedShutdownError(), (), "shutdown was forced with 0 tasks still running"),
]
COPIES = [
    copy.copy,
    copy.deepcopy,
    *(
        pytest.param(lambda e, p=p: pickle.loads(pickle.dumps(e, p)), id=f"pickle {p}")
        for p in range(pickle.HIGHEST_PROTOCOL + 1)
    ),
]


@pytest.mark.parametrize(("error", "bases", "text"), TREE)
def test_errors_fit_the_standard_tree_and_explain_themselves(error, bases, text):
    """Each error is of the promised types and has a helpful message."""
    assert all(isinstance(error, base) for base in bases)
    assert str(error) == text


@pytest.mark.parametrize("duplicate", COPIES)
@pytest.mark.parametrize("error", [row[0] for row in TREE], ids=lambda e: type(e).__name__)
def test_errors_keep_their_data_when_copied_and_pickled(error, duplicate):
    """Type, message, arguments and attributes survive."""
    other = duplicate(error)
    assert type(other) is type(error)
    assert (str(other), other.args, vars(other)) == (str(error), error.args, vars(error))


# -- wrapping ------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", ZOO.values(), ids=ZOO)
def test_wrapped_failure_is_a_task_error_and_what_was_raised(make, armed):
    """Whatever a task raises, `except TaskError` and `except E` both catch it."""
    cause = make()
    kind, args = type(cause), BaseException.args.__get__(cause)
    armed()
    for number in (17, 18):  # made, then from the cache
        error = wrap_failure(cause, number, "resize")
        with pytest.raises(TaskError):
            raise error
        assert any(kind is base for base in type.__dict__["__mro__"].__get__(type(error)))
        assert type(error) is type(wrap_failure(cause, 1, ""))
        assert (error.task_id, error.name, error.cause) == (number, "resize", error.__cause__)
        assert error.cause is cause
        assert error.__suppress_context__
        assert error.args == args
        assert hash(error) == object.__hash__(error)
        assert error.__eq__(error) is True
        assert bool(error)
        assert str(error).startswith(f"task {number} (resize) failed: ")
        assert "task_id=" in repr(error)
        assert type.__dict__["__name__"].__get__(kind) in error.traceback
    HostileMeta.armed = RefusesError.armed = False


@pytest.mark.parametrize("make", ZOO.values(), ids=ZOO)
def test_wrapped_failure_answers_the_originals_attributes(make):
    """Every attribute that is not TaskError's own is read from the original."""
    cause = make()
    if isinstance(cause, RefusesError):
        pytest.skip("nothing of it can be read")
    error = wrap_failure(cause, 17, "resize")
    own = {"task_id", "name", "cause", "traceback", "split", "subgroup"}
    for name in set(dir(cause)) - own:
        if not name.startswith("__"):
            ours, theirs = getattr(error, name, None), getattr(cause, name, None)
            assert ours == theirs or name in ("with_traceback", "add_note")
    assert error.name == "resize"


@pytest.mark.parametrize("duplicate", COPIES)
@pytest.mark.parametrize("make", ZOO.values(), ids=ZOO)
def test_wrapped_failure_can_be_copied_and_pickled(make, duplicate):
    """A duplicate keeps id, name and text; its type too, if the cause can be pickled at all."""
    error = wrap_failure(caught(make()), 17, "resize")
    if type(type(error)).__hash__ is None:
        pytest.skip("copy and pickle look up every class in a dictionary")
    error.tag = "mine"
    other = duplicate(error)
    assert isinstance(other, TaskError)
    assert (other.task_id, other.name) == (17, "resize")
    assert (str(other), other.traceback) == (str(error), error.traceback)
    assert "in caught" in other.traceback
    if type(other) is type(error):
        assert other.tag == "mine"
    else:
        assert type(other) is TaskError
        assert isinstance(other.cause, LostCauseError)
        kinds = (
            "KeywordOnly",
            "SlottedOS",
            "Frozen",
            "New",
            "Refuses",
            "Unpicklable",
            "Local",
            "HTTP",
        )
        assert type(error.cause).__name__.startswith((*kinds, "JSONDecode", "CalledProcess"))


def test_plain_reduce_is_the_same_as_with_a_protocol():
    """The old hook works as well."""
    function, args = wrap_failure(ValueError(1), 1, "f").__reduce__()
    assert function(*args).args == (1,)


def test_unpicklable_extra_does_not_cost_the_cause():
    """What others have set on the error is dropped if it cannot be pickled."""
    error = wrap_failure(ValueError(1), 1, "f")
    error.tag = (i for i in ())
    other = pickle.loads(pickle.dumps(error))
    assert type(other) is type(error)
    assert not hasattr(other, "tag")


def test_plain_task_error_stays_plain_when_duplicated():
    """An error made by hand keeps its class, and the cause's attributes."""
    error = TaskError(3, "f", OSError(5, "io"))
    for other in (error, copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(other) is TaskError
        assert (other.errno, other.args) == (5, (5, "io"))
        assert repr(other) == "TaskError(task_id=3, name='f', cause=OSError(5, 'io'))"


def test_exact_text():
    """The message names task, type and text; the type alone where there is no text."""
    assert str(wrap_failure(ValueError("bad"), 17, "f")) == "task 17 (f) failed: ValueError: bad"
    assert str(wrap_failure(ValueError(), 17, "f")) == "task 17 (f) failed: ValueError"


def test_text_survives_a_str_that_raises():
    """A broken `__str__` or `__repr__` becomes a placeholder."""

    class BrokenError(Exception):
        def __str__(self):
            raise SystemExit

        __repr__ = __str__

    error = wrap_failure(caught(BrokenError()), 1, "f")
    assert str(error) == "task 1 (f) failed: BrokenError: <unprintable BrokenError object>"
    assert "<unprintable BrokenError object>" in repr(error)


def test_traceback_shows_the_frames_even_if_the_chain_cannot_be_read():
    """A hostile `__cause__` costs the chain, not the frames."""

    class BrokenError(Exception):
        @property
        def __cause__(self):
            raise SystemExit

    error = wrap_failure(caught(BrokenError("x")), 1, "f")
    assert "in caught" in error.traceback
    assert error.traceback.endswith("BrokenError: x\n")
    assert error.traceback is error.traceback


def test_tracebacks_are_left_alone():
    """The cause keeps its traceback; the wrapping error starts with none."""
    cause = caught(ValueError("x"))
    before = cause.__traceback__
    error = wrap_failure(cause, 1, "f")
    assert cause.__traceback__ is before
    assert error.__traceback__ is None
    assert error.with_traceback(before) is error
    assert error.__traceback__ is before
    text = "".join(traceback.format_exception(error))
    assert "direct cause" in text
    assert "TaskError[ValueError]: task 1 (f) failed: ValueError: x" in text


def test_attributes_can_be_set_and_deleted_without_touching_the_cause():
    """Setting goes to the error itself, past slots and properties of E."""
    cause = SlottedOSError()
    error = wrap_failure(cause, 1, "f")
    error.errno = 99
    assert (error.errno, cause.errno) == (99, 5)
    del error.errno
    assert error.errno == 5
    with pytest.raises(AttributeError):
        del error.errno
    error.__traceback__ = None
    error.args = (1,)
    assert (error.args, cause.args) == ((1,), (5, "io"))
    for change in (lambda: setattr(error, "task_id", 1), lambda: delattr(error, "args")):
        with pytest.raises((AttributeError, TypeError)):
            change()


def test_missing_attribute_has_the_originals_message():
    """The original is asked once, and its error is what the reader gets."""
    error = wrap_failure(DictError("d"), 1, "f")
    assert error.magic == 42
    with pytest.raises(AttributeError, match="no nothing here"):
        _ = error.nothing
    with pytest.raises(AttributeError, match="__nothing__"):
        _ = error.__nothing__


def test_unfinished_instance_is_harmless():
    """An error that was made without __init__ can still be shown."""
    error = TaskError.__new__(TaskError)
    assert str(error) == "task 0 (unknown) failed: unknown"
    assert not hasattr(error, "anything")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="notes came with 3.11")
def test_notes_are_the_errors_own():
    """A note on the error does not get into the cause, nor is the cause's shown twice."""
    cause = ValueError("x")
    cause.add_note("theirs")
    error = wrap_failure(cause, 1, "f")
    error.add_note("ours")
    assert (error.__notes__, cause.__notes__) == (["ours"], ["theirs"])
    assert pickle.loads(pickle.dumps(error)).__notes__ == ["ours"]


def test_calling_the_type_makes_the_original_type():
    """`raise type(e)("more") from e` goes on working."""
    error = wrap_failure(KeywordOnlyError(code=1), 1, "f")
    again = type(error)(code=2)
    assert (type(again), again.code) == (KeywordOnlyError, 2)


def test_wrapping_again_nests_the_error_not_the_class():
    """A failure that passes through two executors is one class, two errors, one message."""
    inner = wrap_failure(OSError(5, "io"), 1, "inner")
    outer = wrap_failure(inner, 2, "outer")
    third = wrap_failure(outer, 3, "third")
    assert type(third) is type(outer) is type(inner)
    assert (outer.cause, outer.task_id, outer.errno) == (inner, 2, 5)
    expected = "task 2 (outer) failed: task 1 (inner) failed: OSError: [Errno 5] io"
    assert str(outer) == expected
    assert pickle.loads(pickle.dumps(outer)).errno == 5
    plain = wrap_failure(TaskError(1, "inner", OSError(5, "io")), 2, "outer")
    assert (type(plain), plain.errno) == (TaskError, 5)


def test_subclass_of_task_error_is_caught_as_itself():
    """A user's subclass of TaskError is wrapped like any other class."""

    class OwnError(TaskError):
        pass

    assert isinstance(wrap_failure(OwnError(1, "a", ValueError()), 2, "b"), OwnError)


def test_stop_iteration_carries_its_value_through_yield_from():
    """The interpreter reads the value from the C structure, past all attributes."""

    class Source:
        def __iter__(self):
            return self

        def __next__(self):
            raise wrap_failure(StopIteration([7]), 1, "f")

    def generator():
        return (yield from Source())

    with pytest.raises(StopIteration) as info:
        next(generator())
    assert info.value.value == [7]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="groups came with 3.11")
def test_exception_groups_split():
    """`except*`, `split` and `subgroup` see the members, and keep the error's traceback."""

    class Own(ExceptionGroup):
        def derive(self, excs):
            return Own(self.message, excs)

    members = ValueError(1), KeyError(2)
    error = wrap_failure(Own("g", members), 1, "f")
    assert (error.message, error.exceptions) == ("g", members)
    assert error.split(TaskError) == (error, None)
    error = caught(error)
    match, rest = error.split(ValueError)
    assert (type(match), match.exceptions, rest.exceptions) == (Own, members[:1], members[1:])
    assert match.__traceback__ is error.__traceback__
    assert error.subgroup(KeyError).exceptions == members[1:]
    scope = {"error": error, "seen": []}
    code = "try:\n raise error\nexcept* ValueError as e:\n seen.append(e.exceptions)"
    with pytest.raises(Own) as info:
        exec(code, scope)
    assert (scope["seen"], info.value.exceptions) == ([members[:1]], members[1:])


def test_abstract_class_keeps_its_own_caches():
    """Asking about `type(error)` does not change what its base answers."""
    error = wrap_failure(AbstractError("a"), 1, "f")

    class ChildError(AbstractError):
        pass

    assert isinstance(error, AbstractError)
    assert not isinstance(ChildError(), type(error))
    assert isinstance(ChildError(), AbstractError)
    assert type(type(error)) is ABCMeta


@pytest.mark.parametrize("outcome", [ValueError("no"), KeyboardInterrupt(), MemoryError(), "short"])
def test_metaclass_that_spoils_the_class_gets_a_plain_task_error(outcome):
    """What a metaclass raises or returns from `mro` only costs the type."""

    class SpoiltError(Exception, metaclass=MroMeta):
        code = 3

    MroMeta.outcome = outcome
    try:
        error = wrap_failure(SpoiltError("s"), 1, "f")
        assert (type(error), error.code, error.args) == (TaskError, 3, ("s",))
        MroMeta.outcome = None
        settled = isinstance(outcome, (ValueError, str))
        assert isinstance(wrap_failure(SpoiltError("s"), 1, "f"), SpoiltError) is not settled
    finally:
        MroMeta.outcome = None


def test_constructor_in_c_that_refuses_gets_a_plain_task_error(monkeypatch):
    """A builtin base whose `__new__` raises only costs the type."""

    class OddError(Exception):
        pass

    recipe = errors._recipe(OddError)
    recipe.new = int
    error = wrap_failure(OddError("s"), 1, "f")
    assert (type(error), error.args) == (TaskError, ("s",))
    monkeypatch.setattr(errors, "TaskError", lambda *args: 1 // 0)
    assert wrap_failure(OddError("s"), 1, "f") is errors._spare


@pytest.mark.skipif(
    sys.version_info < (3, 14) and bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    reason="free-threaded 3.13 frees no class any more once a second thread was started",
)
def test_class_lives_no_longer_than_its_errors():
    """The cache does not keep a class of the user's alive."""
    error = local_error()
    kind = weakref.ref(type(error))
    wrap_failure(error, 1, "f")
    del error
    gc.collect()
    assert kind() is None


def test_namespace_copied_into_another_class_is_not_mistaken():
    """A class made from another's namespace, as `dataclass(slots=True)` does, gets its own."""
    first = local_error()
    wrap_failure(first, 1, "f")
    space = {k: v for k, v in vars(type(first)).items() if k not in ("__dict__", "__weakref__")}
    second = type("Second", (Exception,), space)("s")
    assert isinstance(wrap_failure(second, 1, "f"), type(second))
    key = errors._KEY
    assert pickle.loads(pickle.dumps(vars(type(first))[key])) is None


def test_errors_make_no_garbage():
    """Wrapped failures are freed without a run of the collector."""

    class FailedError(Exception):
        pass

    gc.collect()
    error = wrap_failure(FailedError(), 1, "f")
    gone = weakref.ref(error)
    del error
    assert gone() is None
