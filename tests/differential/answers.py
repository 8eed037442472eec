"""Running a program, and bringing what it answers into a form that can be kept and compared."""

from __future__ import annotations

import builtins
import concurrent.futures.thread
import gc
import json
import logging
import queue
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

Program = Callable[[type], Any]

#: By name, in the order of the page.
PROGRAMS: dict[str, Program] = {}

NEWEST = Path(__file__).with_name("newest.json")

_STANDARD = (builtins, concurrent.futures, concurrent.futures.thread, queue)


def program(fn: Program) -> Program:
    """List a program; its docstring says what it does, for the page."""
    assert fn.__name__ not in PROGRAMS
    assert fn.__doc__
    PROGRAMS[fn.__name__] = fn
    return fn


def kind(error: BaseException | type) -> str:
    """The class of the standard library that an `except` clause would name."""
    cls = error if isinstance(error, type) else type(error)
    for base in cls.__mro__:
        if any(vars(module).get(base.__name__) is base for module in _STANDARD):
            return base.__name__
    return cls.__mro__[0].__name__


def outcome(call: Callable[[], Any]) -> Any:
    """What a call returns, or the error it raises as its class and text."""
    try:
        return call()
    except BaseException as error:
        return [kind(error), str(error)]


class Log(logging.Handler):
    """Notes what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Level, logger and the beginning of the message."""
        self.lines.append(f"{record.levelname} {record.name} {record.msg}")


def answer(run: Program, pool: type) -> Any:
    """What the program answers for this class, as JSON has it; an error that it raises counts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = outcome(lambda: run(pool))
    gc.collect()
    return json.loads(json.dumps(result, default=repr))


def newest() -> dict[str, Any]:
    """What the standard class of the newest Python answers."""
    found: dict[str, Any] = json.loads(NEWEST.read_text("utf-8"))
    return found
