"""How a call travels to an `InterpreterPoolExecutor`, and its outcome back.

That executor alone hands over what its interpreters can share, or else can pickle, and imports what
they do not find in its own way. It does not find modules that lie beside the script, cannot bring back
an object or an exception of a class of the script, and forgets an exception that it cannot share. So
a call goes as bytes here, too: opened, made, and its outcome sealed, by `call_there`. What does not
pickle goes as the executor alone sends it, which knows lambdas that refer to nothing, and memory views.

`call_there` travels with each call, by its code. So the interpreters import no more of this package
than the tasks themselves do.
"""

from __future__ import annotations

import importlib
import os
import pickle
import sys
from collections.abc import Callable
from concurrent import futures as cf
from functools import partial
from types import CodeType, FunctionType, SimpleNamespace
from typing import Any, cast

from futurepool import _sync
from futurepool._engines.transport import Envelope
from futurepool._errors import LostCauseError


def call_there(path: Any, main: Any, fn: Any, data: Any, seal: Any, /) -> Any:
    """In the other interpreter: make a call, and seal its outcome.

    Its code travels alone, so it refers to no global name and has no default values.

    Args:
        path: What is to be in the other interpreter's `sys.path`, as one string: twenty of them would cost as
            much as all the rest of a short call.
        main: How to import what is `__main__` there, if the call refers to that: a name or a path.
        fn: The function, if it travels as it is.
        data: Function, arguments and keywords, pickled.
        seal: Whether to; else the call is an initializer's, whose failure the executor handles.
    """
    try:
        import pickle
        import sys

        path = path.split("\0") if path else []
        if [entry for entry in path if entry not in sys.path]:
            sys.path[:] = [*path, *[entry for entry in sys.path if entry not in path]]
        if main is not None and "__mp_main__" not in sys.modules:
            # As multiprocessing does for its processes, and under the same name.
            import runpy

            kind, where = main
            if kind == "path":
                names = runpy.run_path(where, run_name="__mp_main__")
            else:
                names = runpy.run_module(where, run_name="__mp_main__", alter_sys=True)
            module = type(sys)("__mp_main__")
            vars(module).update(names)  # pyright: ignore[reportUnknownMemberType]
            sys.modules["__main__"] = sys.modules["__mp_main__"] = module
        pickled, args, kwargs = pickle.loads(data)
        result = (pickled if fn is None else fn)(*args, **kwargs)
        if type(result) in (type(None), bool, int, float, str, bytes):
            return result
        try:
            return "futurepool.pickled", pickle.dumps(result)
        except Exception:
            return "futurepool.as it is", result
    except BaseException as error:
        if not seal:
            raise
        import traceback

        kind = type(error)
        try:
            text = f"{kind.__name__}: {error}"
        except Exception:
            text = kind.__name__
        try:
            remote = "".join(traceback.format_exception(kind, error, error.__traceback__))
        except Exception:
            remote = text
        try:
            data = pickle.dumps(error)  # pyright: ignore[reportPossiblyUnboundVariable]
        except Exception:
            data = None
        return (
            "futurepool.failed",
            data,
            text,
            remote,
            kind.__name__,
            kind.__qualname__,
            kind.__module__,
        )


class InterpreterEnvelope(Envelope):
    """For the standard library's pool of interpreters."""

    read_ahead: int = 1

    def __init__(self, executor: cf.Executor) -> None:
        self._main = _main()
        # What comes back names the script so.
        sys.modules.setdefault("__mp_main__", sys.modules["__main__"])
        pool = cast(Any, executor)
        make: Callable[[], Any] = getattr(pool, "_create_worker_context", SimpleNamespace)
        task: Any = getattr(make(), "initdata", None)
        # An initializer of the script works on the module that the executor has made of it. If
        # workers have done that, tasks should find what it did; else it is to work on ours.
        self._plain: bool = bool(task and pool._threads)
        seal = self._seal(*task) if task and not self._plain else None
        if seal is not None:
            pool._create_worker_context = partial(_context, make, (call_there, (*seal, False), {}))

    def submit(
        self, executor: cf.Executor, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> cf.Future[Any]:
        """Hand the call over."""
        seal = None if self._plain else self._seal(fn, args, kwargs)
        if seal is None:
            return executor.submit(fn, *args, **kwargs)
        inner: cf.Future[Any] = cast(Any, executor).submit(call_there, *seal, True)
        # Until it is done: a queue among the arguments travels by its number, and ends with its
        # last owner.
        inner.add_done_callback(partial(_keep, (fn, args, kwargs)))
        return inner

    def takes_chunks(self, fn: Any) -> bool:
        """Not one that is sent as it is, as is a lambda: several calls of it are several tasks."""
        return not _is_bare(fn) and getattr(fn, "__name__", "") != "<lambda>"

    def _seal(self, fn: Any, args: tuple[Any, ...], kwargs: Any) -> tuple[Any, ...] | None:
        """All but the last of the arguments of `call_there`; None for what is to go as it is."""
        # Then it needs no import of the script there, which may be unguarded.
        sent = fn if _is_bare(fn) else None
        try:
            data = pickle.dumps((fn if sent is None else None, args, kwargs))
        except Exception:
            return None
        main = self._main if b"__main__" in data else None
        if main is None and b"__main__" in data:
            return None
        return "\0".join([entry for entry in sys.path if type(entry) is str]), main, sent, data

    def open(self, result: Any) -> Any:
        """The result that came back; raises what unpickling raises."""
        if type(result) is not tuple:
            return result
        parts: list[Any] = list(cast(Any, result))
        kind: Any = parts[0] if parts else None
        if kind == "futurepool.failed":
            raise _failure(*parts[1:])
        if kind == "futurepool.pickled":
            return pickle.loads(parts[1])
        return parts[1] if kind == "futurepool.as it is" else tuple(parts)


def _keep(_call: object, _inner: object) -> None:
    """Holds on to a call, as one of the callbacks of its future."""


def _context(make: Callable[[], Any], task: Any) -> Any:
    context = make()
    context.initdata = task
    return context


def _main() -> tuple[str, str] | None:
    """How another interpreter can import what is `__main__` here."""
    main = sys.modules["__main__"]
    name = getattr(getattr(main, "__spec__", None), "name", None)
    if isinstance(name, str) and name != "__main__":  # else a directory or archive that was run
        return "name", name
    path = getattr(main, "__file__", None)
    return ("path", os.path.normpath(path)) if isinstance(path, str) else None


def _is_bare(fn: object) -> bool:
    """Whether a function of the script refers to nothing of it, so that its code can travel alone."""
    return (
        type(fn) is FunctionType
        and fn.__module__ == "__main__"
        and not (fn.__closure__ or fn.__defaults__ or fn.__kwdefaults__)
        and _names(fn.__code__).isdisjoint(fn.__globals__)
    )


def _names(code: CodeType) -> set[str]:
    names = set(code.co_names)
    for inner in code.co_consts:
        if type(inner) is CodeType:
            names |= _names(inner)
    return names


def _failure(
    data: bytes | None, text: str, remote: str, name: str, qualname: str, module: str
) -> BaseException:
    """The exception that a task raised, caused by what the executor alone says of it."""
    failed: Any = importlib.import_module("concurrent.interpreters").ExecutionFailed
    kind = SimpleNamespace(__name__=name, __qualname__=qualname, __module__=module)
    info = SimpleNamespace(type=kind, msg=text, formatted=text, errdisplay=remote)
    error: object = None
    if data is not None:
        try:
            error = pickle.loads(data)
        except Exception:
            pass
    if not isinstance(error, BaseException):
        # The executor alone raises the second of these.
        both: Any = type("LostCauseError", (LostCauseError, failed), {"__module__": "futurepool"})
        error = both(info)
    lost = cast(BaseException, error)
    lost.__cause__ = failed(info)
    return lost


_sync.import_now(__name__)
