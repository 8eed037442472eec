"""What `futurepool` gets its names from, all at once, but for those that few programs need.

Whoever imports a pool comes by here, so this is where what goes with every import takes place: public
classes say where users import them from, `FUTUREPOOL_TOP` is looked at, and no import is put off.
"""

from __future__ import annotations

import os

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
from futurepool._pool.fast import form

__all__ = [
    "BoundedExecutor",
    "CancelToken",
    "ExecutorView",
    "ForcedShutdownError",
    "Future",
    "FuturePoolError",
    "FuturePoolWarning",
    "InvalidConfigError",
    "OnFull",
    "PoolClosedError",
    "Priority",
    "QueueFullError",
    "SubmitTimeoutError",
    "TaskError",
    "TaskExpiredError",
    "TaskGroup",
    "TaskTimeoutError",
    "current_token",
    "form",
    "pools",
]


# Stats and the others that are imported late do so themselves. Written out, not looked up by name: where Python
# puts imports off, only what is read here has been imported.
for _each in (
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
    _each.__module__ = "futurepool"
del _each


def _serve() -> None:
    from futurepool._living import serving

    serving.serve_quietly()


if os.environ.get("FUTUREPOOL_TOP", "") not in ("", "0"):
    _living.at_first.append(_serve)

_sync.import_now("futurepool")
