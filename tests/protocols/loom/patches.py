"""Putting things in the place of others for a while: models for primitives, mutants for functions.

`threading.Lock`, `RLock` and `_allocate_lock` are replaced too while a run lasts, so that
`Condition` and `Event` objects made in it, those of `concurrent.futures` among them, are modelled.
What a module made before the run (at import) stays real: name it in `rebind`.
"""

from __future__ import annotations

import inspect
import linecache
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import CodeType, FunctionType, ModuleType
from typing import Any

from futurepool import _logs, _sync
from futurepool._executor import shutdown
from futurepool._foreign import aside

from . import models, threads

__all__ = ["Rebind", "function_of", "installed", "mutate", "rebound", "swapped"]

_MODELS = {
    "Lock": models.Lock,
    "RLock": models.RLock,
    "Parker": _sync._held_lock,
    "QuietParker": _sync._held_lock,
    "SimpleQueue": models.SimpleQueue,
    "get_ident": models.get_ident,
    "clock": threads.clock,
    "start": threads.start,
    "start_new_thread": threads.no_thread,
    "join": threads.join,
    "sleep_at": threads.sleep_at,
    "get_at": threads.get_at,
}
_THREADING = {
    "Lock": models.Lock,
    "_allocate_lock": models.Lock,
    "RLock": models.RLock,
    "_CRLock": models.RLock,
}

Rebind = Iterable[tuple[ModuleType, str, Callable[[], Any]]]


@contextmanager
def installed() -> Iterator[None]:
    """Put the models in the place of the primitives."""
    changes = [(_sync, name, model) for name, model in _MODELS.items()]
    changes += [(_sync, n, threads.Local(type(v))) for n, v in vars(_sync).items() if _is_local(v)]
    changes += [(threading, n, model) for n, model in _THREADING.items() if hasattr(threading, n)]
    with _patched(changes):
        yield


def _is_local(value: Any) -> bool:
    return isinstance(value, threading.local)


#: What the process has one of, with threads or pools: those of a run must not outlive it there.
_ALWAYS: Rebind = [
    (aside, "_runners", aside.Aside),
    (_logs, "desk", _logs.Desk),
    (shutdown, "_pools", dict),
]


@contextmanager
def rebound(rebind: Rebind) -> Iterator[None]:
    """Replace module globals by fresh objects, for one run."""
    with _patched((module, name, make()) for module, name, make in [*_ALWAYS, *rebind]):
        yield


@contextmanager
def _patched(changes: Iterable[tuple[Any, str, Any]]) -> Iterator[None]:
    saved: list[tuple[Any, str, Any]] = []
    try:
        for owner, name, new in changes:
            saved.append((owner, name, getattr(owner, name)))
            setattr(owner, name, new)
        yield
    finally:
        for owner, name, old in reversed(saved):
            setattr(owner, name, old)


@contextmanager
def mutate(owner: Any, qualname: str, old: str, new: str) -> Iterator[None]:
    """Replace `old`, which must occur exactly once, in the source of a function.

    Only the code object is swapped, so whoever holds the function sees the mutant, and defaults
    and closure stay. The whole file is compiled anew and the function looked up in it, so line
    numbers, the class cell behind `super()` and private names are as they were.

    Args:
        owner: The module (or class) in which `qualname` is looked up.
        qualname: As in `Class.method`; a property means its getter. For a nested function name the
            outermost one.
        old: Text within the function's source; may span lines.
        new: Its replacement. It must not add or drop a captured variable.
    """
    function = function_of(owner, qualname)
    original = function.__code__
    lines = list(linecache.getlines(original.co_filename))
    first = original.co_firstlineno - 1
    body = inspect.getblock(lines[first:])
    text = "".join(body)
    if text.count(old) != 1:
        raise ValueError(f"{old!r} occurs {text.count(old)} times in {qualname}, not once")
    source = "".join(lines[:first]) + text.replace(old, new) + "".join(lines[first + len(body) :])
    with swapped(function, compile(source, original.co_filename, "exec", dont_inherit=True)):
        yield


@contextmanager
def swapped(function: FunctionType, module: CodeType) -> Iterator[None]:
    """Give a function the code that stands in its place in a changed file."""
    original = function.__code__
    function.__code__ = same_code(module, original)
    try:
        yield
    finally:
        function.__code__ = original


def function_of(owner: Any, qualname: str) -> FunctionType:
    """The function that is called so in a module or class, without what decorates it."""
    found = owner
    for part in qualname.split("."):
        found = inspect.getattr_static(found, part)
    found = getattr(found, "fget", None) or getattr(found, "__func__", found)
    found = inspect.unwrap(found)
    if not isinstance(found, FunctionType):
        raise TypeError(f"{qualname} is no Python function")
    return found


def same_code(code: CodeType, wanted: CodeType) -> CodeType:
    """The code object within `code` that starts where `wanted` starts."""
    stack = [code]
    while stack:
        code = stack.pop()
        if (code.co_name, code.co_firstlineno) == (wanted.co_name, wanted.co_firstlineno):
            return code
        stack += [const for const in code.co_consts if isinstance(const, CodeType)]
    raise ValueError(f"the mutant of {wanted.co_name} cannot be found")
