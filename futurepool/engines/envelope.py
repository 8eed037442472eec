"""How a call travels to another executor, and its outcome back.

A process pool breaks, for all its tasks and for good, when something that it received cannot be
unpickled: a function of a `__main__` that the worker does not have, or one of the many exceptions that
pickle and do not unpickle. So to pools of processes a call goes in a sealed envelope, as bytes,
which is opened inside the task; the result comes back the same way and is opened here. What cannot be
pickled or unpickled then fails its own task, with its own error, and nothing else.

Other executors get the plain call: they may be on other machines, where this package is not installed.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from concurrent import futures as cf
from functools import partial
from typing import Any, cast

from futurepool.errors import LostCauseError, safe_text

__all__: list[str] = []  # internal

_PLAIN = (type(None), bool, int, float, complex, str, bytes)


class Envelope:
    """The plain call."""

    def submit(
        self, executor: cf.Executor, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> cf.Future[Any]:
        """Hand the call over."""
        if kwargs:  # not as keywords: dask takes `key`, `workers`, `priority`, ... for its own
            return executor.submit(partial(fn, **kwargs), *args)
        return executor.submit(fn, *args)

    def open(self, result: Any) -> Any:
        """The result that came back."""
        return result

    def kill(self, executor: cf.Executor) -> None:
        """Do not wait for what runs."""
        try:
            executor.shutdown(wait=False, cancel_futures=True)
        except TypeError:  # not all know the argument
            executor.shutdown(wait=False)


class SealedEnvelope(Envelope):
    """For worker processes of this machine, which have what we have. `dumps` pickles."""

    def __init__(self, dumps: Callable[[Any], Any]) -> None:
        self._dumps = dumps

    def submit(
        self, executor: cf.Executor, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> cf.Future[Any]:
        """Hand the call over, sealed; raises what pickling raises."""
        return executor.submit(run_sealed, bytes(self._dumps((fn, args, kwargs))))

    def open(self, result: Any) -> Any:
        """The result that came back; raises what unpickling raises."""
        return pickle.loads(result.data) if type(result) is Sealed else result

    def kill(self, executor: cf.Executor) -> None:
        """End the worker processes: nothing else stops a task there, nor lets Python exit."""
        pool = cast(Any, executor)
        listed: dict[Any, Any] = getattr(pool, "_processes", None) or {}
        processes = list(listed.values())
        super().kill(executor)
        for process in processes:
            process.kill()


class Sealed:
    """A pickled result."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __reduce__(self) -> tuple[Any, ...]:
        return Sealed, (self.data,)


def run_sealed(data: bytes) -> Any:
    """In the worker process: open a call, make it, seal its result."""
    fn, args, kwargs = pickle.loads(data)
    try:
        result = fn(*args, **kwargs)
    except Exception as error:
        try:
            pickle.loads(_dumps_here()(error))
        except Exception:
            text = safe_text(str, error)
            raise LostCauseError(f"{type(error).__name__}: {text}") from error
        raise
    finally:
        del fn, args, kwargs
    return result if type(result) in _PLAIN else Sealed(bytes(_dumps_here()(result)))


def _dumps_here() -> Callable[[Any], Any]:
    """In a worker process: as its pool pickles."""
    for package in ("loky", "joblib.externals.loky"):
        module = sys.modules.get(f"{package}.backend.reduction")
        if module is not None:
            return cast("Callable[[Any], Any]", module.dumps)
    from multiprocessing.reduction import ForkingPickler

    return cast("Callable[[Any], Any]", ForkingPickler.dumps)


def envelope_for(executor: cf.Executor) -> Envelope:
    """The envelope for calls to `executor`."""
    for kind in type(executor).__mro__:
        package, _, _ = kind.__module__.rpartition(".process_executor")
        if package.endswith("loky"):
            return SealedEnvelope(sys.modules[f"{package}.backend.reduction"].dumps)
        if kind.__module__ == "concurrent.futures.process":
            return SealedEnvelope(sys.modules["multiprocessing.reduction"].ForkingPickler.dumps)
    return Envelope()
