"""The error tree, and the wrapping of whatever a task may raise."""

from __future__ import annotations

import codecs
import contextlib
import copy
import functools
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
from dataclasses import FrozenInstanceError, asdict, dataclass
from email.message import Message

import pytest

from futurepool._errors import (
    ForcedShutdownError,
    FuturePoolError,
    InvalidConfigError,
    LostCauseError,
    PoolClosedError,
    QueueFullError,
    SubmitTimeoutError,
    failures,
)
from futurepool._errors.failures import Failure, TaskError, failure_of, wrap_failure
from futurepool._telemetry.stats import RunningTask

NOTES = sys.version_info >= (3, 11)


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
    """Whatever a task raises, `except TaskError` and `except E` both catch it; nothing of E runs."""
    cause = make()
    kind, args = type(cause), BaseException.args.__get__(cause)
    name = type.__dict__["__name__"].__get__(kind)
    armed()
    for number in (17, 18):  # made, then from the cache
        error = wrap_failure(cause, number, "resize")
        with pytest.raises(TaskError):
            raise error
        assert any(kind is base for base in type.__dict__["__mro__"].__get__(type(error)))
        assert type(error) is type(wrap_failure(cause, 1, ""))
        assert type.__dict__["__name__"].__get__(type(error)) == name
        assert error.__class__ is kind
        assert TaskError.task_id.__get__(error) == number
        assert TaskError.task_name.__get__(error) == "resize"
        assert TaskError.cause.__get__(error) is cause
        assert error.args == args
        assert error.__eq__(error) is True
        assert error.__ne__(error) is False
        assert bool(error)
        assert f"(task_id={number}, task_name='resize', cause=" in repr(error)
        assert name in TaskError.traceback.__get__(error)
        if sys.version_info >= (3, 11):
            assert error.__notes__ == [f"task {number} (resize)"]
    HostileMeta.armed = RefusesError.armed = False
    if kind is urllib.error.HTTPError:
        cause.close()  # from Python 3.14 on it complains if nobody does


@pytest.mark.parametrize("make", ZOO.values(), ids=ZOO)
def test_wrapped_failure_answers_the_originals_attributes(make):
    """All that can be asked of it is the original's: what it says, what it has, what it equals."""
    cause = make()
    if isinstance(cause, RefusesError):
        pytest.skip("nothing of it can be read")
    error = wrap_failure(cause, 17, "resize")
    assert str(error) == str(cause)
    assert vars(error) is vars(cause)
    assert error == cause
    assert (error != cause) is False
    assert (type(error).__hash__ is None) is (type(cause).__hash__ is None)
    if type(cause).__hash__ is not None:
        assert hash(error) == hash(cause)
    assert set(dir(cause)) - {"__weakref__"} <= set(dir(error))
    for name in set(dir(cause)) - {"split", "subgroup"}:
        # What the class of a urllib error finds in its file is closed when it is read.
        if not name.startswith("__") and not isinstance(cause, urllib.error.HTTPError):
            ours, theirs = getattr(error, name, None), getattr(cause, name, None)
            assert ours == theirs or name in ("with_traceback", "add_note")
    if isinstance(cause, urllib.error.HTTPError):
        assert (error.code, error.reason, error.read()) == (404, "gone", b"")
        cause.close()


@pytest.mark.parametrize("duplicate", COPIES)
@pytest.mark.parametrize("make", ZOO.values(), ids=ZOO)
def test_wrapped_failure_can_be_copied_and_pickled(make, duplicate):
    """A duplicate keeps id, name, text and notes; its type too, if the class can be found again."""
    error = wrap_failure(caught(make()), 17, "resize")
    if type(type(error)).__hash__ is None:
        pytest.skip("copy and pickle look up every class in a dictionary")
    other = duplicate(error)
    task_id, task_name, text = (
        TaskError.task_id.__get__,
        TaskError.task_name.__get__,
        TaskError.traceback.__get__,
    )
    assert isinstance(other, TaskError)
    assert (task_id(other), task_name(other)) == (17, "resize")
    assert (str(other), text(other)) == (str(error), text(error))
    assert "in caught" in text(other)
    if sys.version_info >= (3, 11):
        assert other.__notes__ == ["task 17 (resize)"]
    kind = error.__class__.__name__
    if kind in ("LocalError", "RefusesError") and type(other) is TaskError:
        assert isinstance(other.cause, LostCauseError)
        assert (other.cause.kind, str(other.cause)) == (kind, str(error))
    else:
        assert type(other) is type(error)
        assert repr(other.args) == repr(error.args)
    if isinstance(error, urllib.error.HTTPError):
        assert other.code == 404
        error.close()


def test_plain_reduce_is_the_same_as_with_a_protocol():
    """The old hook works as well."""
    function, args = wrap_failure(ValueError(1), 1, "f").__reduce__()
    assert function(*args).args == (1,)


def test_unpicklable_attribute_does_not_cost_the_cause():
    """What cannot be pickled is left behind, and only that."""
    error = wrap_failure(ValueError(1), 1, "f")
    error.tag = (i for i in ())
    error.code = 3
    other = pickle.loads(pickle.dumps(error))
    assert type(other) is type(error)
    assert (other.args, other.code, hasattr(other, "tag")) == ((1,), 3, False)


def test_plain_task_error_stays_plain_when_duplicated():
    """An error made by hand keeps its class, and the cause's attributes."""
    error = TaskError(3, "f", OSError(5, "io"))
    for other in (error, copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(other) is TaskError
        assert (other.errno, other.args, str(other)) == (5, (5, "io"), "[Errno 5] io")
        assert (other.task_id, other.task_name) == (3, "f")
        assert isinstance(other.__cause__, OSError)
        assert repr(other) == "TaskError(task_id=3, task_name='f', cause=OSError(5, 'io'))"


def test_text_is_the_originals():
    """To the letter: programs compare it, and send it to their clients."""
    assert str(wrap_failure(ValueError("bad"), 17, "f")) == "bad"
    assert str(wrap_failure(ValueError(), 17, "f")) == ""
    assert str(wrap_failure(KeyError("k"), 17, "f")) == "'k'"
    assert f"{wrap_failure(ValueError('bad'), 17, 'f')}" == "bad"


def test_text_survives_a_str_that_raises():
    """A broken `__str__` or `__repr__` becomes a placeholder."""

    class BrokenError(Exception):
        def __str__(self):
            raise SystemExit

        __repr__ = __str__

    error = wrap_failure(caught(BrokenError()), 1, "f")
    assert str(error) == "<unprintable BrokenError object>"
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


def test_traceback_and_chain_are_the_originals():
    """It begins with the frames of the task; context and cause are those the task had."""

    def task():
        try:
            {}["a"]
        except KeyError as error:
            raise ValueError("x") from error

    with pytest.raises(ValueError, match="x") as info:
        task()
    cause = info.value
    before = cause.__traceback__
    error = wrap_failure(cause, 1, "f")
    assert cause.__traceback__ is error.__traceback__ is before
    assert error.__cause__ is cause.__cause__
    assert error.__context__ is cause.__context__
    assert error.__suppress_context__ is True
    assert wrap_failure(KeyError(), 1, "f").__suppress_context__ is False
    text = "".join(traceback.format_exception(error))
    assert text.count("ValueError: x") == text.count("KeyError: 'a'") == 1
    assert text.endswith("\nValueError: x\ntask 1 (f)\n" if NOTES else "\nValueError: x\n")
    assert error.traceback == "".join(traceback.format_exception(cause))
    assert error.with_traceback(None) is error
    assert (error.__traceback__, cause.__traceback__) == (None, before)


def test_reading_undoes_what_readers_did_to_the_chain():
    """A failure read while another was being handled has that for a context no longer than it is read."""
    cause = caught(ValueError("x"))
    failure = failure_of(cause, 1, "f")
    for error in (failure.raised(), Failure(cause, 1, "f", frames=failure.frames).raised()):
        with contextlib.suppress(ValueError):
            try:
                raise KeyError
            finally:
                raise error
        assert isinstance(error.__context__, KeyError)
        assert failure.raised().__context__ is None or error is cause
    assert Failure.raised(failure).__context__ is None


def test_attributes_are_set_and_deleted_on_the_original():
    """As it is the same error to all who look: slots and properties of E included."""
    cause = SlottedOSError()
    error = wrap_failure(cause, 1, "f")
    error.errno = 99
    error.tag = "mine"
    assert (cause.errno, cause.tag, error.errno, error.tag) == (99, "mine", 99, "mine")
    del error.tag
    assert not hasattr(error, "tag")
    assert not hasattr(cause, "tag")
    with pytest.raises(AttributeError):
        del error.tag
    error.args = (1,)
    assert error.args == cause.args == (1,)
    error.__traceback__ = None
    with pytest.raises(TypeError):
        del error.args
    with pytest.raises(FrozenInstanceError):
        wrap_failure(FrozenError(3), 1, "f").code = 4


def test_attributes_called_as_ours_are_the_originals():
    """`name` and `cause`, and whatever else has been chosen for a TaskError."""

    class NamedError(Exception):
        traceback = "its own"

        def __init__(self):
            self.name = "Not Found"
            self.cause = "lightning"
            self.task_id = "T1000"

    cause = NamedError()
    error = wrap_failure(cause, 1, "f")
    assert (error.name, error.cause, error.task_id) == ("Not Found", "lightning", "T1000")
    assert (error.traceback, error.task_name) == ("its own", "f")
    assert TaskError.cause.__get__(error) is cause
    alone = TaskError(1, "f", cause)
    assert (alone.name, alone.cause, alone.task_id) == ("Not Found", cause, 1)
    missing = wrap_failure(ImportError("no", name="module"), 1, "f")
    assert missing.name == "module"


def test_attributes_that_answer_everything():
    """What the original answers is the answer; what it raises then is not."""

    class AnsweringError(Exception):
        def __getattr__(self, name):
            if name == "task_id":
                raise SystemExit
            return name.upper()

    error = wrap_failure(AnsweringError(), 1, "f")
    assert (error.anything, error.cause, error.task_id) == ("ANYTHING", "CAUSE", 1)


def test_fields_the_interpreter_reads_are_there():
    """Codecs read a UnicodeError past all attributes, `AttributeError` is filled in if it is empty."""
    error = wrap_failure(UnicodeEncodeError("ascii", "\xe9", 0, 1, "bad"), 1, "f")
    assert codecs.lookup_error("replace")(error) == ("?", 1)
    error = wrap_failure(AttributeError("no", name="n", obj=3), 1, "f")

    class Lazy:
        def __getattr__(self, name):
            raise error

    with pytest.raises(AttributeError) as info:
        _ = Lazy().other
    assert (info.value.name, info.value.obj) == ("n", 3)


def test_it_is_compared_and_dispatched_as_the_original():
    """`==`, `match`, `singledispatch` and `dataclasses` see what the task raised."""

    @dataclass
    class OwnError(Exception):
        code: int
        __match_args__ = ("code",)

    @functools.singledispatch
    def what(_error):
        return "another"

    what.register(OwnError)(lambda _: "own")
    error = wrap_failure(OwnError(3), 1, "f")
    assert error == OwnError(3) == error
    assert error != OwnError(4)
    assert error == wrap_failure(OwnError(3), 2, "g")
    assert what(error) == "own"
    assert asdict(error) == {"code": 3}
    with pytest.raises(TypeError):
        hash(error)
    match error:
        case OwnError(code):
            assert code == 3


def test_missing_attribute_has_the_originals_message():
    """The original is asked once, and its error is what the reader gets."""
    asked = []

    class CountingError(DictError):
        def __getattr__(self, name):
            asked.append(name)
            return super().__getattr__(name)

    error = wrap_failure(CountingError("d"), 1, "f")
    assert error.magic == 42
    with pytest.raises(AttributeError, match="no nothing here"):
        _ = error.nothing
    assert asked == ["magic", "nothing"]


def test_no_attribute_is_read_before_somebody_asks():
    """To read one may close a file, or ask a server: making, raising and copying an error do not."""
    asked = []

    class LazyError(Exception):
        def __getattribute__(self, name):
            asked.append(name)
            return super().__getattribute__(name)

    failure = failure_of(caught(LazyError("x")), 1, "f")
    asked.clear()
    for error in (failure.raised(), copy.copy(failure.raised()), copy.deepcopy(failure.raised())):
        with pytest.raises(LazyError):
            raise error
    del error
    assert asked == []


def test_unfinished_instance_is_harmless():
    """An error that was made without __init__ can still be shown."""
    error = TaskError.__new__(TaskError)
    assert (str(error), error.task_id) == ("unknown", 0)
    assert not hasattr(error, "anything")


@pytest.mark.skipif(not NOTES, reason="notes came with 3.11")
def test_notes_name_the_task_once():
    """After the original's own, which are left alone; in copies and pickles; however often it is read."""
    cause = ValueError("x")
    cause.add_note("theirs")
    failure = failure_of(cause, 1, "f")
    error = failure.raised()
    error.add_note("more")
    expected = ["theirs", "task 1 (f)", "more"]
    assert (error.__notes__, cause.__notes__) == (expected, ["theirs"])
    del error
    assert failure.raised().__notes__ == expected
    for other in (copy.copy(failure.raised()), pickle.loads(pickle.dumps(failure.raised()))):
        assert other.__notes__ == expected
        assert "".join(traceback.format_exception(other)).count("task 1 (f)") == 1
    other = copy.copy(failure.raised())
    other.add_note("its own")
    assert failure.raised().__notes__ == expected
    other.__notes__ = ["none"]
    assert other.__notes__ == ["none"]
    del other.__notes__
    assert not hasattr(other, "__notes__")


@pytest.mark.skipif(NOTES, reason="notes came with 3.11")
def test_there_are_no_notes_before_3_11():
    """Nothing is left on the error that nobody shows."""
    assert not hasattr(wrap_failure(ValueError("x"), 1, "f"), "__notes__")
    assert not hasattr(TaskError(1, "f", ValueError("x")), "__notes__")


def test_calling_the_type_makes_the_original_type():
    """`raise type(e)("more") from e` goes on working."""
    error = wrap_failure(KeywordOnlyError(code=1), 1, "f")
    again = type(error)(code=2)
    assert (type(again), again.code) == (KeywordOnlyError, 2)


def test_wrapping_again_nests_the_error_not_the_class():
    """A failure that passes through two executors is one class, two errors, one text, a note of each."""
    inner = wrap_failure(OSError(5, "io"), 1, "inner")
    outer = wrap_failure(inner, 2, "outer")
    third = wrap_failure(outer, 3, "third")
    assert type(third) is type(outer) is type(inner)
    assert (outer.cause, outer.task_id, outer.errno) == (inner, 2, 5)
    assert outer.cause is inner
    assert (str(outer), outer.__class__) == ("[Errno 5] io", OSError)
    if NOTES:
        assert third.__notes__ == ["task 1 (inner)", "task 2 (outer)", "task 3 (third)"]
    assert outer == inner == inner.cause
    assert pickle.loads(pickle.dumps(outer)).errno == 5
    plain = wrap_failure(TaskError(1, "inner", OSError(5, "io")), 2, "outer")
    assert (plain.__class__, plain.task_id, plain.errno) == (TaskError, 2, 5)


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
def test_metaclass_that_spoils_the_class_gets_the_original(outcome):
    """What a metaclass raises or returns from `mro` costs the TaskError, never the type."""

    class SpoiltError(Exception, metaclass=MroMeta):
        code = 3

    MroMeta.outcome = outcome
    try:
        cause = SpoiltError("s")
        failure = failure_of(cause, 1, "f")
        assert failure.raised() is cause
        alone = failure.task_error()
        assert alone is failure.task_error()
        assert (type(alone), alone.code, alone.args) == (TaskError, 3, ("s",))
        assert (alone.__cause__, alone.task_id, str(alone)) == (cause, 1, "s")
        MroMeta.outcome = None
        settled = isinstance(outcome, (ValueError, str))
        assert isinstance(wrap_failure(SpoiltError("s"), 1, "f"), TaskError) is not settled
    finally:
        MroMeta.outcome = None


def test_constructor_in_c_that_refuses_gets_the_original(monkeypatch):
    """A builtin base whose `__new__` raises costs the TaskError, never the type."""

    class OddError(Exception):
        pass

    cause = OddError("s")
    failure = failure_of(cause, 1, "f")
    failure.recipe.new = int
    assert failure.raised() is cause
    assert isinstance(failure.task_error(), TaskError)
    other = failure_of(cause, 1, "f")
    monkeypatch.setattr(failures, "TaskError", lambda *args: 1 // 0)
    assert other.raised() is cause
    assert other.task_error() is failures._spare


@pytest.mark.skipif(not NOTES, reason="notes came with 3.11")
def test_original_that_is_raised_itself_has_the_note_once():
    """After its own; only the latest, if one object is raised by task after task; frozen ones, too."""
    cause = FrozenError(3)
    BaseException.add_note(wrap_failure(cause, 9, "g"), "not there")
    vars(cause)["__notes__"] = ["theirs"]
    for number in (1, 1, 2):
        failure = Failure(cause, number, "f", noted=True)
        for _ in range(2):
            assert failure.raised() is cause
        assert cause.__notes__ == ["theirs", f"task {number} (f)"]
    copied = pickle.loads(pickle.dumps(cause.__notes__))
    assert (copied, {type(note) for note in copied}) == (cause.__notes__, {str})
    vars(cause)["__notes__"] = "no list"
    assert Failure(cause, 1, "f", noted=True).raised() is cause


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
    key = failures._KEY
    assert pickle.loads(pickle.dumps(vars(type(first))[key])) is None


def test_what_cannot_be_made_again_is_made_of_its_parts():
    """An exception that pickles and does not unpickle stays what it is, with what is plain data."""
    error = wrap_failure(KeywordOnlyError(code=3), 1, "f")
    other = pickle.loads(pickle.dumps(error))
    assert (other.__class__, other.code, other.args) == (KeywordOnlyError, 3, ("code 3",))
    error = wrap_failure(UnpicklableError("u"), 1, "f")
    other = pickle.loads(pickle.dumps(error))
    assert (other.__class__, str(other), hasattr(other, "open")) == (UnpicklableError, "u", False)
    error = wrap_failure(urllib.error.HTTPError("url", 404, "gone", Message(), io.BytesIO()), 1, "")
    other = pickle.loads(pickle.dumps(error))
    assert (other.__class__, other.code, str(other)) == (
        urllib.error.HTTPError,
        404,
        "HTTP Error 404: gone",
    )
    error.close()


def test_the_finalizer_is_the_originals_alone():
    """However often it is wrapped, copied and read."""
    finals = []

    class FinalError(Exception):
        def __del__(self):
            finals.append(1)

    error = wrap_failure(FinalError(), 1, "f")
    for _ in range(3):
        copy.copy(error)
        copy.deepcopy(error)
        wrap_failure(error, 2, "g")
    del error
    assert finals == [1]


def test_readers_share_an_error_as_long_as_anybody_has_it():
    """Then it goes, with the frames that are in its traceback; what was set on it stays."""
    failure = failure_of(caught(SlottedError(3)), 1, "f")
    error = failure.raised()
    assert failure.raised() is failure.task_error() is error
    error.tag = 5
    gone = weakref.ref(error)
    del error
    assert gone() is None
    assert failure.raised().tag == 5


def test_errors_make_no_garbage():
    """Wrapped failures are freed without a run of the collector."""

    class FailedError(Exception):
        pass

    gc.collect()
    error = wrap_failure(FailedError(), 1, "f")
    gone = weakref.ref(error)
    del error
    assert gone() is None
