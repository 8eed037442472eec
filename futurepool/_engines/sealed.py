"""What travels to worker processes and back, and what of this package runs there.

`transport` makes and opens these here; `run_sealed` and what unpickles run in the worker.
"""

from __future__ import annotations

import os
import pickle
import sys
import traceback
from collections.abc import Callable
from typing import Any, cast

from futurepool import _sync
from futurepool._errors import LostCauseError, safe_text

_PLAIN = (type(None), bool, int, float, complex, str, bytes)


def script() -> str | None:
    """The path of the script that this process runs, if it runs one that a worker can import."""
    main = sys.modules.get("__main__")
    path = getattr(main, "__file__", None)
    # A module run by its name (-m) keeps that for good.
    named = getattr(main, "__spec__", None) is not None
    if named or getattr(sys, "frozen", False) or not isinstance(path, str):
        return None
    return os.path.normpath(path)


class Script:
    """The path of a script. Whoever unpickles it imports that as its own `__main__` first."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path: str = path

    def __reduce__(self) -> tuple[Any, ...]:
        return _import_script, (self.path,)


def _import_script(path: str) -> Script:
    from multiprocessing import spawn

    spawn.prepare({"init_main_from_path": path})  # nothing, if it has been done
    return Script(path)


class Initializer:
    """The initializer of worker processes, if any, behind the import of their `__main__`.

    `multiprocessing` reads what that is when it starts a worker, off `__main__.__file__`. The
    interpreter takes this away when the script ends; but a pool with a queue may start workers later.
    """

    __slots__ = ("_function", "_script")

    def __init__(self, script: Script, function: Callable[..., object] | None) -> None:
        self._script = script  # unpickled before what may refer to `__main__`
        self._function = function

    def __reduce__(self) -> tuple[Any, ...]:
        return Initializer, (self._script, self._function)

    def __call__(self, *args: Any) -> None:
        if self._function is not None:
            self._function(*args)


class Sealed:
    """A pickled result."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data: bytes = data

    def __reduce__(self) -> tuple[Any, ...]:
        return Sealed, (self.data,)


class SealedFailure:
    """A pickled exception, and what can be said of it should it not unpickle. All plain data."""

    __slots__ = ("data", "remote", "text")

    def __init__(self, data: bytes | None, text: str, remote: str) -> None:
        self.data: bytes | None = data
        self.text: str = text
        self.remote: str = remote

    def __reduce__(self) -> tuple[Any, ...]:
        return SealedFailure, (self.data, self.text, self.remote)

    def open(self) -> BaseException:
        """The exception, caused by its remote traceback, as from the standard pool."""
        from concurrent.futures import process

        error: object = None
        if self.data is not None:
            try:
                error = pickle.loads(self.data)
            except Exception:
                pass
        if not isinstance(error, BaseException):
            error = LostCauseError(self.text)
        error.__cause__ = cast(Any, process)._RemoteTraceback(self.remote)
        return error


def run_sealed(data: bytes) -> Any:
    """In the worker process: open a call, make it, seal its outcome."""
    try:
        fn, args, kwargs = pickle.loads(data)
        try:
            result = fn(*args, **kwargs)
        finally:
            del fn, args, kwargs
        return result if type(result) in _PLAIN else Sealed(bytes(_dumps_here()(result)))
    except BaseException as error:
        return seal(error, _dumps_here)


def seal(error: BaseException, dumps: Callable[[], Callable[[Any], Any]]) -> SealedFailure:
    """What was raised, so that it travels whatever it is; `dumps` finds what pickles it."""
    text = f"{type(error).__name__}: {safe_text(str, error)}"
    try:
        remote = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    except Exception:
        remote = text
    try:
        data: bytes | None = bytes(dumps()(error))
    except Exception:
        data = None
    return SealedFailure(data, text, f'\n"""\n{remote}"""')


def loky_dumps() -> Callable[[Any], Any] | None:
    """In a worker process of loky's, as that pickles."""
    for package in ("loky", "joblib.externals.loky"):
        module = sys.modules.get(f"{package}.backend.reduction")
        if module is not None:
            return cast("Callable[[Any], Any]", module.dumps)
    return None


def _dumps_here() -> Callable[[Any], Any]:
    """In a worker process: as its pool pickles."""
    dumps = loky_dumps()
    if dumps is not None:
        return dumps
    from multiprocessing.reduction import ForkingPickler

    return cast("Callable[[Any], Any]", ForkingPickler.dumps)


_sync.import_now(__name__)
