"""futurepool: a drop-in ThreadPoolExecutor with a bounded, prioritised queue."""

from futurepool.cancellation import CancelToken
from futurepool.errors import (
    ForcedShutdownError,
    FuturePoolError,
    InvalidConfigError,
    PoolClosedError,
    QueueFullError,
    SubmitTimeoutError,
    TaskError,
)
from futurepool.executor import BoundedExecutor, ExecutorView
from futurepool.future import Future
from futurepool.priority import OnFull, Priority
from futurepool.stats import Histogram, RunningTask, Stats
from futurepool.worker import current_token

__version__ = "0.1.0"

__all__ = [
    "BoundedExecutor",
    "CancelToken",
    "ExecutorView",
    "ForcedShutdownError",
    "Future",
    "FuturePoolError",
    "Histogram",
    "InvalidConfigError",
    "OnFull",
    "PoolClosedError",
    "Priority",
    "QueueFullError",
    "RunningTask",
    "Stats",
    "SubmitTimeoutError",
    "TaskError",
    "current_token",
]
