"""What an observer of an executor is told. Imported when it is first asked for."""

# Annotations are not postponed: see the head of `futurepool._telemetry.stats`.

from typing import NamedTuple

from futurepool import _sync

__all__ = ["Observer", "TaskEvent"]


class TaskEvent(NamedTuple):
    """What has happened to a task. It keeps nothing of the task alive.

    Attributes:
        kind: "submitted", "started", "finished" or "refused".
        pool: Name of the executor.
        task_id: Number of the task in its executor; 0 if it was refused.
        name: Name of the task.
        priority: Its priority.
        time: When that was, in seconds since the epoch, as `time.time()`.
        worker: Name of the thread it was started in, or of the class of the executor behind `engine=`;
            None before it is started.
        waited: How long it was queued before, seconds; None before it is started, cancelled or expired.
        ran: How long it ran, seconds; None unless it has finished.
        outcome: Of a finished task "success" or "error", or, if it never started, "cancelled" or "expired"
            (it had waited for longer than it may); of a refused one the reason, as in `Stats.rejections`; else None.
        error: Name of the class of what it raised, if the outcome is "error".
    """

    kind: str
    pool: str
    task_id: int
    name: str
    priority: int
    time: float
    worker: str | None
    waited: float | None
    ran: float | None
    outcome: str | None
    error: str | None


class Observer:
    """Hears of each task of the executors it is added to, by `BoundedExecutor.add_observer`.

    To be subclassed; what a method does not override it does not hear of. All are called in one thread of
    the package, one after the other, some hundredths of a second after it happened, in the order in which
    it happened. So an observer delays no task, and no submitter; if it is too slow to follow, events are
    left out, and the log says so. What it raises is logged.
    """

    __module__ = "futurepool"

    def submitted(self, event: TaskEvent) -> None:
        """A task was admitted."""

    def started(self, event: TaskEvent) -> None:
        """A task has begun to run."""

    def finished(self, event: TaskEvent) -> None:
        """A task has run, failed, or was cancelled, or has expired, before it started."""

    def refused(self, event: TaskEvent) -> None:
        """A task was not admitted."""


TaskEvent.__module__ = "futurepool"


_sync.import_now(__name__)
