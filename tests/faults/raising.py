"""What tasks and done-callbacks raise, and who reads it."""

from __future__ import annotations

import pickle
import threading
from concurrent import futures as cf
from typing import Any

from tests.faults.tools import (
    PATIENCE,
    SOON,
    Subject,
    boom,
    check,
    healthy,
    probe,
)


@probe
def callback_raises(subject: Subject) -> None:
    """A done-callback raises SystemExit / a BaseException"""
    for kind in (SystemExit, KeyboardInterrupt, GeneratorExit, type("Own", (BaseException,), {})):
        ex = subject.make()
        gate = threading.Event()
        futures = [ex.submit(gate.wait, PATIENCE) for _ in range(4)]
        for future in futures:
            future.add_done_callback(lambda _, kind=kind: boom(kind()))
        gate.set()
        check(all(future.result(SOON) for future in futures))
        check(ex.submit(int).result(SOON) == 0)
        healthy(subject, ex)
        ex.shutdown()


@probe
def task_raises(subject: Subject) -> None:
    """A task raises SystemExit, KeyboardInterrupt, GeneratorExit, MemoryError and the like"""
    ex = subject.make()
    kinds = [SystemExit, KeyboardInterrupt, GeneratorExit, MemoryError, RecursionError]
    for kind in [*kinds, StopIteration, StopAsyncIteration, cf.CancelledError, AssertionError]:
        check(isinstance(ex.submit(boom, kind()).exception(PATIENCE), kind), kind)

    def recurse() -> None:
        recurse()

    check(isinstance(ex.submit(recurse).exception(PATIENCE), RecursionError))
    healthy(subject, ex)
    ex.shutdown()


@probe
def traceback_length(subject: Subject) -> None:
    """Reading one failed result 1000 times"""
    ex = subject.make()
    future = ex.submit(boom, ValueError())
    lengths = set()
    for _ in range(1000):
        try:
            future.result(PATIENCE)
        except ValueError as error:
            count, traceback = 0, error.__traceback__
            while traceback is not None:
                count, traceback = count + 1, traceback.tb_next
            lengths.add(count)
    check(len(lengths) == 1, f"a traceback of {max(lengths)} frames")
    ex.shutdown()


# -- exceptions that do not like to be wrapped ------------------------------------------------------


class KeywordOnly(Exception):
    def __init__(self, *, code: int) -> None:
        self.code = code


class Slotted(Exception):
    __slots__ = ("value",)


class Frozen(Exception):
    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(name)


class Hostile(Exception):
    __str__ = __repr__ = __hash__ = __eq__ = __bool__ = lambda *_: boom(ValueError())  # type: ignore[assignment]


class HostileRead(Exception):
    def __getattribute__(self, name: str) -> Any:
        raise SystemExit(name)


class Final(Exception):
    def __init_subclass__(cls, **_: Any) -> None:
        raise TypeError("final")


class Odd(type):
    def __call__(cls, *args: Any) -> Any:
        if cls.__dict__.get("own"):
            return super().__call__(*args)
        raise TypeError("not the class it was")


class OddlyMade(Exception, metaclass=Odd):
    own = True


class OwnNew(OSError):
    def __new__(cls, code: int) -> Any:
        return super().__new__(cls, code, "text")


class Lock(Exception):
    """Cannot be pickled."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


def odd_errors() -> list[Exception]:
    return [
        KeywordOnly(code=1),
        Slotted(),
        Frozen(),
        Hostile(),
        HostileRead(),
        Final(),
        OddlyMade(),
        OwnNew(2),
        Lock(),
        OSError(2, "x", "y"),
        ImportError("x", name="y"),
        UnicodeDecodeError("ascii", b"x", 0, 1, "y"),
        SyntaxError("x", ("f", 1, 2, "text")),
        StopIteration(1),
        *([__builtins__["ExceptionGroup"]("x", [ValueError()])] if _has_groups() else []),
    ]


def _has_groups() -> bool:
    return "ExceptionGroup" in __builtins__


@probe
def odd_exceptions(subject: Subject) -> None:
    """Exceptions that cannot be built again, compared, shown, written to, subclassed or pickled"""
    ex = subject.make()
    for error in odd_errors():
        caught = ex.submit(boom, error).exception(PATIENCE)
        kind = type(error)
        cause = BaseException.__dict__["__cause__"].__get__(caught)
        check(issubclass(type(caught), kind) or cause is error, kind)
        try:
            pickle.loads(pickle.dumps(caught))
        except BaseException:  # some cannot be pickled; what they say is theirs
            pass
    healthy(subject, ex)
    ex.shutdown()
