"""`ThreadPoolExecutor.submit`, where somebody has put another in its place.

Tools that follow work from thread to thread (Sentry, OpenTelemetry, Datadog) replace that method, or
the code in it, by one that wraps the function and then calls the original: to fork a scope, to hand
on a span, to time. Our `submit` overrides it, so they would not hear of our tasks. So while it is
not the original, each submission goes through theirs first, with our executor as `self`. The
original, which stands at its end, finds in our executor all that it asks for (futurepool._executor.internals),
down to a queue; what it puts there is kept (`_sync.here.caught`), and that is what we submit, now
that it has returned and let go of its locks.

**When it is noticed.** To ask at each submit would cost two per cent of a task. What can get lost is
mostly in context variables. So a submitter asks if it has any, a worker when it starts or wakes up,
and a pool when it is made. From then on every submission takes the long way, which asks each time.

Called by `futurepool._pool`, which submits; and by workers and constructors, for a look.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent import futures as cf
from concurrent.futures import thread as _module
from concurrent.futures.thread import ThreadPoolExecutor
from contextlib import nullcontext
from types import FunctionType
from typing import Any, cast

from futurepool import _sync

#: What the original finds in the place of its pool's lock.
NO_LOCK: Any = nullcontext()
_PATIENCE = 1.0  # seconds

#: The original method, as seen last; who asks often compares with this first.
original: Any = None
_code: Any = None
theirs: bool = False  # as `look` has found it last
#: Called with True when submissions are to take the long way from now on, with False when not any more.
listeners: list[Callable[[bool], object]] = []


def _is_original(method: Any) -> bool:
    return (
        type(method) is FunctionType
        and method.__module__ == _module.__name__
        and method.__globals__.get("_WorkItem") is _module._WorkItem
        and "_work_queue" in method.__code__.co_names  # or else its code was replaced
        and not method.__dict__
    )


def look() -> bool:
    """Whether `ThreadPoolExecutor.submit` is somebody else's; who submits hears of a change.

    Thread safety: any thread. Cost: a tenth of a microsecond.
    """
    global _code, original, theirs
    # Not by the class's dictionary: without a GIL its `get` takes a lock, and the child of a fork in
    # that instant would wait for it for ever.
    method: Any = ThreadPoolExecutor.submit
    found = False
    if method is not original or method.__code__ is not _code:
        if _is_original(method):
            _code = method.__code__
            original = method
        else:
            found = True
    if found is not theirs:
        theirs = found
        for listener in listeners:
            listener(found)
    return found


def through(
    executor: Any, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, list[Any]] | None:
    """Call the method that stands in the place of the original.

    Returns:
        What it has returned, and the work items that came out at its end: one, as a rule. None if
        it was not called: this thread is in the middle of such a call, or in the original of
        another pool, which a finalizer interrupts; its lock would not come free.
    """
    here = _sync.here
    if here.caught is not None:
        return None
    lock: Any = _module._global_shutdown_lock
    if not lock.acquire(True, _PATIENCE):
        return None
    lock.release()
    caught: list[Any] = []
    here.caught = caught
    try:
        return ThreadPoolExecutor.submit(executor, fn, *args, **kwargs), caught
    finally:
        here.caught = None


def call_of(item: Any) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """What a work item of the standard library calls."""
    task: Any = getattr(item, "task", None)  # since Python 3.14
    return cast(Any, task) if type(task) is tuple else (item.fn, item.args, item.kwargs)


def join(inner: cf.Future[Any], ours: cf.Future[Any], kept: bool) -> None:
    """Let the future that the original has made, which nobody else will finish, end as ours does.

    Args:
        inner: That future.
        ours: The task's, which the submitter gets.
        kept: Whether the tool has handed out another one, that most likely waits for `inner`.
    """
    if kept or inner._done_callbacks:  # type: ignore[attr-defined]
        ours.add_done_callback(lambda done: _copy(done, inner))


def _copy(done: cf.Future[Any], inner: cf.Future[Any]) -> None:
    if done.cancelled():
        inner.cancel()
        inner.set_running_or_notify_cancel()
    elif inner.set_running_or_notify_cancel():
        error = done.exception()
        if error is None:
            inner.set_result(done.result())
        else:
            inner.set_exception(error)


look()
