"""futurepool: a drop-in ThreadPoolExecutor with a bounded, prioritised queue.

Whoever imports it gets all of a pool at once. Only the command waits until it needs one, as `--help` does
not. Programs that test may replace functions of the standard library, or `sys.modules`, for a while; what was first
imported in such a while would keep what it found then, so a program is not to find out late.
"""

import sys

# Or, first used at interpreter exit, a pool would not know that exit has begun.
import threading  # noqa: F401  # pyright: ignore[reportUnusedImport]

TYPE_CHECKING = False  # as that of `typing`, which would have to be imported
if TYPE_CHECKING:
    from futurepool._cancellation import CancelToken
    from futurepool._engines.worker_loop import current_token
    from futurepool._errors import (
        ForcedShutdownError,
        FuturePoolError,
        FuturePoolWarning,
        InvalidConfigError,
        PoolClosedError,
        QueueFullError,
        SubmitTimeoutError,
        TaskExpiredError,
        TaskTimeoutError,
    )
    from futurepool._errors.failures import TaskError
    from futurepool._executor import BoundedExecutor, ExecutorView, TaskGroup
    from futurepool._future import Future
    from futurepool._living import pools
    from futurepool._living.serving import serve
    from futurepool._options import OnFull, Priority
    from futurepool._pool.fast import form as form  # the form of the hot paths, see there
    from futurepool._telemetry.observers import Observer, TaskEvent
    from futurepool._telemetry.stats import Histogram, QueuedTask, RunningTask, Stats, ViewStats
    from futurepool._telemetry.trace import Trace

__version__ = "0.1.0"

__all__ = [
    "BoundedExecutor",
    "CancelToken",
    "ExecutorView",
    "ForcedShutdownError",
    "Future",
    "FuturePoolError",
    "FuturePoolWarning",
    "Histogram",
    "InvalidConfigError",
    "Observer",
    "OnFull",
    "PoolClosedError",
    "Priority",
    "QueueFullError",
    "QueuedTask",
    "RunningTask",
    "Stats",
    "SubmitTimeoutError",
    "TaskError",
    "TaskEvent",
    "TaskExpiredError",
    "TaskGroup",
    "TaskTimeoutError",
    "Trace",
    "ViewStats",
    "current_token",
    "pools",
    "serve",
]


#: Public names that few programs need, and the modules they are imported from one by one.
_LATE = {
    **dict.fromkeys(
        ("Histogram", "QueuedTask", "RunningTask", "Stats", "ViewStats"),
        "futurepool._telemetry.stats",
    ),
    **dict.fromkeys(("Observer", "TaskEvent"), "futurepool._telemetry.observers"),
    "Trace": "futurepool._telemetry.trace",
    "serve": "futurepool._living.serving",
}

if not TYPE_CHECKING:  # or no checker would notice a misspelt name any more

    def __getattr__(name: str) -> object:
        if name not in __all__ and name != "form":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        try:
            from futurepool._executor import public
        except AttributeError as error:
            # `from futurepool import ...` would only say that there is no such name.
            raise ImportError(
                f"a module that futurepool needs is not what it was: {error}"
            ) from error
        for each in public.__all__:
            globals().setdefault(each, getattr(public, each))  # a test may have put a mock there
        module: object = public
        if name in _LATE:
            __import__(_LATE[name])
            module = sys.modules[_LATE[name]]
            globals().setdefault(name, getattr(module, name))
        return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _is_the_command() -> bool:
    """Whether `python -m futurepool` or the script `futurepool` is what this process runs."""
    command: str = (getattr(sys, "argv", None) or [""])[0]
    if command == "-m":  # Python is looking for the module that it is to run
        return __name__ in sys.orig_argv
    return command.replace("\\", "/").rpartition("/")[2].partition(".")[0] == __name__


if not TYPE_CHECKING and not _is_the_command():
    __getattr__("BoundedExecutor")  # which brings all the others, too
