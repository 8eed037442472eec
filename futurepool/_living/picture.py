"""What all pools of this process are doing, as plain data: for `python -m futurepool top`.

Asked for by a thread of `futurepool._living.serving`, or by a script that `sys.remote_exec` has run in
the main thread, at any point of whatever that does. It may hold any lock, so nothing is done there but to
start a thread that does it.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

from futurepool import _sync
from futurepool._living import pools
from futurepool._pool.report import running

if TYPE_CHECKING:
    from futurepool._executor import BoundedExecutor
    from futurepool._telemetry.stats import Histogram, ViewStats

__all__: list[str] = []  # internal

_RUNNING = 100  # tasks that are shown of each pool, those that have run longest
_NAMED = 10_000  # queued tasks whose names are looked at
_NAMES = 20  # names that are shown of each queue, the most frequent ones
_FRAME = re.compile(r'^  File "(.*)", line (\d+), in (.*)$', re.MULTILINE)


def picture() -> dict[str, Any]:
    """All pools, in the order in which they were made. A millisecond or two, unless queues are long."""
    return {
        "pid": os.getpid(),
        "command": [str(word) for word in getattr(sys, "orig_argv", sys.argv)],
        "python": ".".join(map(str, sys.version_info[:3])),
        "clock": _sync.clock(),
        "pools": [_pool(pool) for pool in pools()],
    }


def _pool(executor: BoundedExecutor) -> dict[str, Any]:
    pool = executor._futurepool
    stats = pool.stats()
    entries = running(pool, stack=True)[:_RUNNING]
    waiting = pool.waiting_tasks()
    names = Counter([task.name for task in waiting[:_NAMED]])
    return {
        "name": stats.name,
        "type": type(executor).__name__,
        "closed": stats.closed,
        "max_workers": stats.max_workers,
        "workers": stats.workers,
        "active_workers": stats.active_workers,
        "abandoned_workers": stats.abandoned_workers,
        "queued_tasks": stats.queued_tasks,
        "queue_size": stats.queue_size,
        "waiting_submitters": stats.waiting_submitters,
        "oldest_queued": stats.oldest_queued,
        "submitted_tasks": stats.submitted_tasks,
        "completed_tasks": stats.completed_tasks,
        "failed_tasks": stats.failed_tasks,
        "cancelled_tasks": stats.cancelled_tasks,
        "rejected_tasks": stats.rejected_tasks,
        "rejections": dict(stats.rejections),
        "overflow_tasks": stats.overflow_tasks,
        "average_latency": stats.average_latency,
        "average_wait": stats.average_wait,
        "uptime": stats.uptime,
        "latency": _times(stats.latency),
        "wait": _times(stats.wait),
        "running": [
            {
                "task_id": entry.task_id,
                "name": entry.name,
                "worker": entry.worker,
                "seconds": entry.seconds,
                "waited": entry.waited,
                "timed_out": entry.timed_out,
                "at": _line(entry.stack),
            }
            for entry in entries
        ],
        "queue": [{"name": name, "count": count} for name, count in names.most_common(_NAMES)],
        "views": [_view(view) for view in stats.views.values()],
    }


def _view(view: ViewStats) -> dict[str, Any]:
    return {
        "name": view.name,
        "limit": view.limit,
        "active_tasks": view.active_tasks,
        "queued_tasks": view.queued_tasks,
        "submitted_tasks": view.submitted_tasks,
        "completed_tasks": view.completed_tasks,
        "failed_tasks": view.failed_tasks,
        "cancelled_tasks": view.cancelled_tasks,
        "average_latency": view.average_latency,
        "average_wait": view.average_wait,
        "latency": _times(view.latency),
        "wait": _times(view.wait),
    }


def _times(histogram: Histogram | None) -> dict[str, float] | None:
    if histogram is None:
        return None
    return {name: getattr(histogram, name) for name in ("p50", "p90", "p99", "max")}


def _line(stack: str | None) -> str | None:
    """The innermost frame of a stack: file:line in function."""
    frames = _FRAME.findall(stack or "")
    if not frames:
        return None
    path, line, function = frames[-1]
    return f"{os.path.basename(path)}:{line} in {function}"  # noqa: PTH119 - a path of any system


def text() -> bytes:
    """The picture as JSON."""
    return json.dumps(picture()).encode()


def answer(path: str) -> None:
    """Write it to `path`, soon, in a thread of its own; called at any point of the main thread."""
    _sync.start_new_thread(_answer, (path,))


def _answer(path: str) -> None:
    part = f"{path}.part"
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(text())
        os.replace(part, path)  # noqa: PTH105 - whoever waits for it finds all of it
    except OSError:  # who asked has given up, and taken the folder away
        pass


_sync.import_now(__name__)
