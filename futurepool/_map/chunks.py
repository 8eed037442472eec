"""Several calls as one task, and what such a task hands out for a call that has failed.

What is here may run in a worker process or another interpreter.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent import futures as cf
from typing import Any

from futurepool import _sync
from futurepool._errors.failures import Failure, failure_of

__all__: list[str] = []  # internal


class Chunk:
    """Several calls as one task.

    As with single tasks, a call that fails does not keep the ones after it from being made; the
    first failure is the task's. `results` holds what came before it. If the chunk is to `keep` going,
    `results` holds something for every call: a `Raised` for one that has failed.

    `apart`: the task is not to fail. It runs where `results` is not to be seen, as in another process,
    or what it raises is nobody's but the reader's. Then what it returns has the `Raised` in it.
    """

    __slots__ = ("_apart", "_calls", "_fn", "_keep", "_single", "results", "size")

    def __init__(
        self,
        fn: Callable[..., Any],
        calls: list[Any],
        single: bool,
        keep: bool = False,
        apart: bool = False,
    ) -> None:
        self._fn = fn
        self._calls = calls
        self._single = single
        self._keep = keep
        self._apart = apart
        self.size: int = len(calls)
        self.results: list[Any] = []

    def __call__(self) -> list[Any]:
        if self._keep:
            try:
                return self._attempt_all()
            finally:
                del self  # the traceback of what it raises holds this frame
        fn, calls, results = self._fn, self._calls, self.results
        del self._fn, self._calls
        todo = iter(calls)
        append = results.append
        failure: Exception | None = None
        while True:
            try:
                # Not by way of `map`, which a StopIteration in the function would end.
                if self._single:
                    for item in todo:
                        append(fn(item))
                else:
                    for args in todo:
                        append(fn(*args))
                break
            except Exception as error:
                if failure is None:
                    failure = error
                    append = _ignore
        if failure is not None:
            try:
                raise failure
            finally:
                del failure
        return results

    def _attempt_all(self) -> list[Any]:
        fn, calls, results = self._fn, self._calls, self.results
        del self._fn, self._calls
        calls.reverse()
        failure: Exception | None = None
        single = self._single
        while calls:
            outcome = attempt(fn, (calls.pop(),) if single else calls.pop())
            if type(outcome) is Raised and failure is None:
                failure = outcome.error
            results.append(outcome)
            del outcome
        if failure is None or self._apart:
            return results
        try:
            raise failure
        finally:
            del self, results, failure  # the traceback holds this frame, and they hold the error


def _ignore(_result: object) -> None:
    pass


def attempt(fn: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """The result, or a `Raised`."""
    try:
        return fn(*args)
    except Exception as error:
        return Raised(error)


class Raised:
    """What one call of a chunk has raised.

    An exception that cannot be pickled, or not be read again, must not take the results of the other
    calls with it. So it travels sealed, as that of a single task does.
    """

    __slots__ = ("error",)

    def __init__(self, error: Exception) -> None:
        self.error: Exception = error

    def __reduce__(self) -> tuple[Any, ...]:
        from futurepool._engines.sealed import seal  # late, as pickle is

        return _open, (seal(self.error, _dumps),)


def _dumps() -> Callable[[Any], Any]:
    """As the executor pickles that this process works for."""
    from futurepool._engines.sealed import loky_dumps

    dumps = loky_dumps()
    if dumps is not None:
        return dumps
    module = sys.modules.get("cloudpickle") if "distributed" in sys.modules else None
    if module is not None:
        return module.dumps  # type: ignore[no-any-return]
    import pickle

    return pickle.dumps


def _open(sealed: Any) -> Raised:
    error: Any = sealed.open()
    return Raised(error)


def failures(results: list[Any], number: int, name: str) -> None:
    """Put in the place of each `Raised` the error that a single task would have had for it."""
    for index, result in enumerate(results):
        if type(result) is Raised:
            failure: Failure = failure_of(result.error, number, name)
            frames = failure.frames
            if frames is not None and frames.tb_frame.f_code is attempt.__code__:
                failure.frames = frames.tb_next
            results[index] = failure.raised()
            del failure, frames
        del result


def single(outcome: Any, number: int, name: str) -> Any:
    """What the only call of a chunk has come to; `outcome` is its task's, or what it was cancelled by."""
    if not issubclass(type(outcome), list):
        return outcome
    results: list[Any] = outcome
    failures(results, number, name)
    return results.pop()


def error_of(future: Any, timeout: float | None) -> BaseException | None:
    """What `future.exception(timeout)` gives; the CancelledError, not raised, if it was cancelled.

    The error of one that was not raised here leads to no frame of the reader's, which may hold it.
    """
    try:
        return future.exception(timeout)  # type: ignore[no-any-return]
    except cf.CancelledError as cancelled:
        if not future.cancelled():
            raise
        return cf.CancelledError(*cancelled.args)
    finally:
        del future


_sync.import_now(__name__)
