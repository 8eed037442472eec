"""Leaving `with` and `async with`: by `shutdown`, or by `stop` for those who say `stopping`.

What the block is left by decides what becomes of the tasks:

    its end, or an error    all that was accepted runs, as the standard class has it
    Ctrl-C, SystemExit      what has not started is cancelled, what runs is waited for
    a cancellation          what has not started is cancelled, what runs has its token cancelled and a
                            tenth of a second to see that: whoever cancels a coroutine (asyncio on
                            Ctrl-C, `asyncio.timeout`, a TaskGroup) expects it to end, and does not
                            do so twice

A coroutine never blocks its loop: a thread of its own waits, and goes on with it if the coroutine
is cancelled. One that is closed (`coroutine.close()`) cannot wait at all: all goes on without it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from futurepool import _logs, _sync
from futurepool._cancellation import CancelToken
from futurepool._errors import ForcedShutdownError
from futurepool._executor import shutdown
from futurepool._pool.workers import Kind

if TYPE_CHECKING:
    import futurepool

    E = TypeVar("E", bound="futurepool.BoundedExecutor")
else:
    E = TypeVar("E")  # a bound that is a string has annotationlib imported
Raised = type[BaseException] | None

_log = _logs.log


def _is(exc_type: Raised, *kinds: type[BaseException]) -> bool:
    return exc_type is not None and issubclass(exc_type, kinds)


def leave(executor: Any, exc_type: Raised) -> None:
    """`with`. Calls `shutdown` as the standard class does: a subclass may have one of its own."""
    told = None
    if _is(exc_type, KeyboardInterrupt, SystemExit):
        told = shutdown.cancel_queued(executor._futurepool)
    executor.shutdown(wait=True)
    if told is not None and not shutdown.is_own_worker(executor._futurepool):
        told(shutdown.TELLING)


async def leave_async(executor: Any, exc_type: Raised) -> None:
    """`async with`."""
    import asyncio

    pool = executor._futurepool
    cancelled = _is(exc_type, asyncio.CancelledError)
    if cancelled:
        _cut_short(pool)
    if _is(exc_type, GeneratorExit):
        executor.shutdown(wait=False)
        return
    if shutdown.is_own_worker(pool):
        leave(executor, exc_type)  # which does not wait for itself
        return
    thread_call = _send(executor, partial(leave, executor, exc_type), "async with")
    try:
        await thread_call.end(shutdown.GRACE if cancelled else None)
    except asyncio.CancelledError:
        if not cancelled:
            _cut_short(pool)
            await thread_call.wait(shutdown.GRACE)
        raise


async def stop(
    executor: Any, timeout: float | None, token: CancelToken | None, word: str = "astop()"
) -> None:
    """See `BoundedExecutor.astop`."""
    import asyncio

    pool = executor._futurepool
    slot = pool.own_slot()
    if slot is not None and slot.kind == Kind.ENGINE:
        # In a callback, in the thread that brings what the engine has done: it cannot wait.
        executor.stop(timeout, token=token)
        return
    time_is_up = CancelToken(parent=token)
    call: Callable[[], object] = partial(executor.stop, timeout, token=time_is_up)
    if slot is not None:
        # A task of this pool that runs a loop, and cannot wait for itself.
        call = partial(shutdown.stop, pool, timeout, time_is_up, _sync.get_ident())
    thread_call = _send(executor, call, word)
    try:
        await thread_call.end()
    except asyncio.CancelledError:
        time_is_up.cancel("whoever waited for the executor to stop was cancelled")
        _cut_short(pool)
        await thread_call.wait(shutdown.GRACE)
        raise


def _cut_short(pool: Any) -> None:
    """Cancel what has not started, and the tokens of what runs, but for the task that runs the loop."""
    why = "whoever waited for the executor's end was cancelled"
    shutdown.cancel_queued(pool)
    shutdown.cancel_running(pool, why, _sync.get_ident())


def _send(executor: Any, call: Callable[[], object], word: str) -> Any:
    from futurepool import _aio

    try:
        return _aio.send(word, call)
    except BaseException:
        executor.shutdown(wait=False)  # there is no loop to wait in, or no thread to wait
        raise


class Stopping(Generic[E]):
    """See `BoundedExecutor.stopping`."""

    __slots__ = ("_executor", "_timeout", "_token")

    def __init__(self, executor: E, timeout: float | None, token: CancelToken | None) -> None:
        self._executor = executor
        self._timeout = timeout
        self._token = token

    def __enter__(self) -> E:
        return self._executor

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> Literal[False]:
        if _is(exc_type, KeyboardInterrupt, SystemExit):
            shutdown.cancel_queued(self._executor._futurepool)
        try:
            self._executor.stop(self._timeout, token=self._token)
        except ForcedShutdownError as error:
            self._log_unless_alone(exc_type, error)
        return False

    async def __aenter__(self) -> E:
        return self._executor

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> Literal[False]:
        import asyncio

        executor = self._executor
        if _is(exc_type, asyncio.CancelledError):
            _cut_short(executor._futurepool)
        if _is(exc_type, KeyboardInterrupt, SystemExit):
            shutdown.cancel_queued(executor._futurepool)
        if _is(exc_type, GeneratorExit):
            executor.shutdown(wait=False)
            return False
        try:
            await stop(executor, self._timeout, self._token, "async with")
        except ForcedShutdownError as error:
            self._log_unless_alone(exc_type, error)
        return False

    def _log_unless_alone(self, exc_type: Raised, error: ForcedShutdownError) -> None:
        """What the block was left by goes on; to take its place would hide a cancellation."""
        if exc_type is None:
            raise error
        name = self._executor._futurepool.name
        _log.warning("leaving %s: %s", name, error, extra={"pool": name})
