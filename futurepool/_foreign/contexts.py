"""The context variables that a task finds.

They are those of its submitter, copied when it submits: what either of them sets afterwards the
other does not see. Some values can be changed in place, though, and a copied context has the same
object. Those that the standard library itself keeps there, behind functions whose users never see
a variable, are copied too: `getcontext().prec = 4` in a task is the task's own affair. With what
users and other packages keep in variables of theirs, sharing may be meant.

Then there is what the initializer has set in its thread's context. Tasks run in contexts of their
own, so these are handed to each, where the submitter has no value of its own.

Most contexts are empty, and an empty one costs a task nothing: it is None here, and its worker
makes a fresh one when a task has left something in the last.

All of it runs in the thread that submits or runs the task, outside of any section, and calls no
code of users.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context
from operator import methodcaller
from typing import Any

# A variable of the standard library with a value that is changed in place, how that is copied, and
# whether one is what Python puts there by itself: then nobody has set it.
_Shared = tuple[ContextVar[Any], Callable[[Any], Any], Callable[[Any], bool]]


def _decimal(module: Any) -> _Shared | None:
    """The variable has no public name, and in C none at all."""
    probe = Context()
    probe.run(module.getcontext)
    if len(probe) != 1:  # built to keep it in thread-local data, which nobody shares
        return None
    default = module.DefaultContext

    def untouched(value: Any) -> bool:
        return all(getattr(value, name) == getattr(default, name) for name in _DECIMAL)

    # A subclass becomes a plain one, as in `localcontext`. By the class: nothing of the user's runs.
    return next(iter(probe)), module.Context.copy, untouched


_DECIMAL = ("prec", "rounding", "Emin", "Emax", "capitals", "clamp", "traps")  # all but the flags


def _warnings() -> _Shared:
    """The filters in a `catch_warnings`, since 3.14; the list it records to goes on being shared."""
    import warnings

    module: Any = warnings  # whose variable may be C's, or Python's
    return module._warnings_context, methodcaller("copy"), lambda _: False


def _found() -> tuple[bool, tuple[_Shared, ...]]:
    """Whether `decimal` is still to be looked at, and what there is."""
    decimal = _modules.get("decimal")
    # Another thread may be importing it; then nobody has used it yet.
    awaited = not all(
        hasattr(decimal, name) for name in ("Context", "DefaultContext", "getcontext")
    )
    found = [None if awaited else _decimal(decimal)]
    if getattr(sys.flags, "context_aware_warnings", False):
        found.append(_warnings())
    return awaited, tuple([shared for shared in found if shared is not None])


_modules: dict[str, Any] = sys.modules
# One object, never changed: two threads may look at the same time.
_state: tuple[bool, tuple[_Shared, ...]] = _found()


def _look() -> tuple[_Shared, ...]:
    global _state
    if _state[0]:
        _state = _found()
    return _state[1]


def own(context: Context) -> Context:
    """Give `context`, a copy of the caller's that has variables, copies of shared values; return it.

    Cost: a tenth of a microsecond if there are none, half a microsecond for a decimal context.
    """
    awaited, known = _state
    if awaited and "decimal" in _modules:
        known = _look()
    for variable, copy, _ in known:
        if variable in context:
            context.run(variable.set, copy(context[variable]))
    return context


def leave(_context: Context) -> None:
    """In the place of `own`: the task does without the caller's."""
    return


def added(before: Context) -> Context | None:
    """What has been set in this thread's context since the copy `before` was made; None: nothing.

    Not what was there already: tools that patch `Thread.run` set variables of theirs in it. As
    copies, where values are shared: callbacks run in the thread's own context and may change them.
    """
    base = Context()
    for variable, value in copy_context().items():
        if variable not in before or before[variable] is not value:
            base.run(variable.set, value)
    return own(base) if base else None


def fresh(base: Context | None) -> Context:
    """For a task that was submitted without variables; `base` is what an initializer has left."""
    return Context() if base is None else own(base.copy())


def complete(context: Context, base: Context) -> None:
    """Set in a task's own `context` what an initializer has left and the caller has not set."""
    shared = {known[0]: known for known in _look()}
    for variable, value in base.items():
        known = shared.get(variable)
        if known is not None:
            _, copy, untouched = known
            if variable not in context or untouched(context[variable]):
                context.run(variable.set, copy(value))
        elif variable not in context:
            context.run(variable.set, value)
