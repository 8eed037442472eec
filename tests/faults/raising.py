"""What tasks and done-callbacks raise, and who reads it."""

from __future__ import annotations

from concurrent import futures as cf
from typing import Any

from tests.faults.tools import PATIENCE, Subject, boom, check, healthy, probe


@probe
def callback_raises(subject: Subject) -> None:
    """A done-callback raises SystemExit / a BaseException"""
    for kind in (SystemExit, KeyboardInterrupt, GeneratorExit, type("Own", (BaseException,), {})):
        ex = subject.make()
        for _ in range(4):
            future = ex.submit(int)
            future.add_done_callback(lambda _, kind=kind: boom(kind()))
        check(future.result(5) == 0)
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


@probe
def odd_exceptions(subject: Subject) -> None:
    """Exceptions that cannot be built again, compared, shown or pickled"""

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

    class Both(OSError, ImportError.__bases__[0]):
        pass

    class Meta(type):
        def __call__(cls, *args: Any) -> Any:
            if cls.__dict__.get("final"):
                return super().__call__(*args)
            raise TypeError("final")

    class Final(Exception, metaclass=Meta):
        final = True

    ex = subject.make()
    errors = [KeywordOnly(code=1), Slotted(), Frozen(), Hostile(), Both(2, "x"), Final()]
    for error in errors:
        caught = ex.submit(boom, error).exception(PATIENCE)
        check(isinstance(caught, type(error)) or caught.__cause__ is error, type(error))
    check(ex.submit(boom, UnicodeDecodeError("a", b"", 0, 0, "")).exception(PATIENCE) is not None)
    healthy(subject, ex)
    ex.shutdown()
