"""futurepool: a drop-in ThreadPoolExecutor with a bounded, prioritised queue."""

import os
import sys
from typing import TYPE_CHECKING, Any

from futurepool import _living, _sync
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
from futurepool._options import OnFull, Priority
from futurepool._pool.fast import form as form  # the form of the hot paths, see there

if TYPE_CHECKING:
    from futurepool._living.serving import serve
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


# They say where users import them from; Stats and the others like it do so themselves.
for _public in (
    BoundedExecutor,
    CancelToken,
    ExecutorView,
    ForcedShutdownError,
    Future,
    FuturePoolError,
    FuturePoolWarning,
    InvalidConfigError,
    OnFull,
    PoolClosedError,
    Priority,
    QueueFullError,
    SubmitTimeoutError,
    TaskError,
    TaskExpiredError,
    TaskGroup,
    TaskTimeoutError,
    current_token,
    pools,
):
    _public.__module__ = __name__
del _public


#: Public names, and the modules they are imported from when they are first asked for.
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

    def __getattr__(name: str) -> Any:
        # Late: see the head of futurepool._telemetry.stats.
        if name in _LATE:
            __import__(_LATE[name])
            value = globals()[name] = getattr(sys.modules[_LATE[name]], name)
            return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _serve() -> None:
    from futurepool._living import serving

    serving.serve_quietly()


if os.environ.get("FUTUREPOOL_TOP", "") not in ("", "0"):
    _living.at_first.append(_serve)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


_sync.import_now(__name__)
