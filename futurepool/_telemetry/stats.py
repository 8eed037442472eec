"""Snapshots of what an executor is doing: counters, histograms, running tasks.

Everything a user gets from here is frozen. What counts is `futurepool._pool.histogram`. Imported with
the first executor: `dataclasses` takes longer to import than all the rest of the package.
"""

# Annotations are not postponed: the classes name the package as their module, and there
# `typing.get_type_hints` would look for what the texts name.

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from futurepool import _sync
from futurepool._errors.failures import TaskError

if TYPE_CHECKING:
    from futurepool._pool.histogram import Counts

__all__ = ["Histogram", "QueuedTask", "RunningTask", "Stats", "ViewStats"]

_UPPER, _COUNT = itemgetter(0), itemgetter(1)  # of a bucket
_PLAIN = ("count", "sum", "max", "_counts")  # what a histogram of a pool has from the beginning


class _Counted:
    """Beside the fields of a `Histogram` what those of a pool are made of, so that the buckets need not be."""

    __slots__ = ("_counts",)


@dataclass(frozen=True, slots=True, repr=False)
class Histogram(_Counted):
    """How a duration was distributed, counted in a fixed number of buckets. All times in seconds.

    `count`, `sum` and `max` are exact. `p50`, `p90`, `p99` and `cumulative(bounds)` are made of the
    `buckets`, to within 6.3 % from a microsecond to an hour.
    """

    __module__ = "futurepool"

    count: int
    """Number of values."""
    sum: float
    """Their sum."""
    max: float
    """The largest, exactly; 0.0 if there are none."""
    buckets: tuple[tuple[float, int], ...]
    """Pairs of upper bound (exclusive) and number of values in the bucket.

    In ascending order; the last bound is infinite.
    """

    @property
    def p50(self) -> float:
        """The median, to within 6.3 % from a microsecond to an hour; 0.0 if there are no values."""
        return self._percentile(0.50)

    @property
    def p90(self) -> float:
        """What nine in ten values stay below, as exactly as `p50`."""
        return self._percentile(0.90)

    @property
    def p99(self) -> float:
        """What 99 in a hundred values stay below, as exactly as `p50`."""
        return self._percentile(0.99)

    def cumulative(self, bounds: Iterable[float]) -> list[int]:
        """How many values are at most as large as each of `bounds`, for those who need other buckets.

        A bound inside a bucket gets its share of that bucket's values, rounded down: the error is at
        most what one bucket holds, and what counts up for one bound never counts down later.

        Args:
            bounds: Seconds, in any order. `math.inf` gives `count`.

        Returns:
            A number for each bound.

        Raises:
            ValueError: A bound is not a number (NaN).

        Cost: some 5 microseconds for one of a pool's.
        """
        counts: Counts | None = getattr(self, "_counts", None)
        if counts is not None:
            return counts.cumulative(tuple(bounds))
        buckets = self.buckets
        last = len(buckets) - 1
        below = [0, *accumulate(map(_COUNT, buckets))] if self.count else ()
        found: list[int] = []
        for bound in bounds:
            if bound != bound:  # noqa: PLR0124 - that is what NaN is
                raise ValueError("a bound must be a number, not nan")
            if not below:
                found.append(0)
                continue
            index = bisect_right(buckets, bound, key=_UPPER)
            number = below[index]
            if index < last and (inside := buckets[index][1]):
                lower = buckets[index - 1][0] if index else 0.0
                share = max(0.0, bound - lower) / (buckets[index][0] - lower)
                number += int(share * inside)
            found.append(number)
        return found

    @classmethod
    def _of(cls, count: int, total: float, most: float, counts: "Counts") -> "Histogram":
        """One whose `buckets` are made when somebody asks for them."""
        self = cls.__new__(cls)
        for name, value in zip(_PLAIN, (count, total, most, counts), strict=True):
            object.__setattr__(self, name, value)
        return self

    if not TYPE_CHECKING:  # or no checker would notice a misspelt name any more

        def __getattr__(self, name: str) -> Any:
            """The buckets, which have not been asked for."""
            if name != "buckets":
                raise AttributeError(f"a Histogram has no attribute {name!r}")
            buckets = self._counts.buckets()
            object.__setattr__(self, name, buckets)
            return buckets

    def __repr__(self) -> str:
        shown = " ".join(
            f"{name}={getattr(self, name):.3g}" for name in ("sum", "p50", "p90", "p99", "max")
        )
        return f"<Histogram count={self.count} {shown}>"

    def _percentile(self, fraction: float) -> float:
        if not self.count:
            return 0.0
        rank = fraction * self.count
        buckets = self.buckets
        below: list[int] = list(accumulate(map(_COUNT, buckets)))
        index = bisect_left(below, rank)  # the first that is not empty and comes so far
        if index == len(below):
            return 0.0
        bound, count = buckets[index]
        upper = min(bound, self.max)
        lower = min(buckets[index - 1][0], upper) if index else 0.0
        return lower + (upper - lower) * (rank - (below[index] - count)) / count


@dataclass(frozen=True, slots=True)
class RunningTask:
    """A task that is running, as one line or, with its stack, as a paragraph.

    `str()` is what errors and log records show: number, name, worker, `seconds` it has run, `waited`
    seconds before, and, if it was asked for, the `stack`.
    """

    __module__ = "futurepool"

    task_id: int
    """Number of the task in its executor."""
    name: str
    """Name of the task."""
    worker: str
    """Name of the thread it runs in, or of the class of the executor behind `engine=`."""
    seconds: float
    """How long it has run, in seconds."""
    waited: float
    """How long it was queued before, in seconds."""
    stack: str | None = None
    """Where it is now, formatted like a traceback that starts at the task.

    Without the frames of threading and of this package; empty if it is in a function that is not Python's, None if
    the stack was not asked for or is another process's. Free-threaded, of the 100 youngest threads only, all of
    which are stopped for a moment.
    """
    timed_out: bool = False
    """Whether the task has ended by its `run_timeout`, and its function goes on all the same."""

    def __str__(self) -> str:
        text = (
            f"task {self.task_id} ({self.name}) in {self.worker}: "
            f"running for {self.seconds:.3f} s after waiting for {self.waited:.3f} s"
        )
        if self.timed_out:
            text += ", its run_timeout is over"
        return f"{text}\n{self.stack.rstrip()}" if self.stack else text


@dataclass(frozen=True, slots=True)
class QueuedTask:
    """A task that waits for a worker: number, name, priority, and how many `seconds` it has waited.

    What `BoundedExecutor.queued` returns a list of.
    """

    __module__ = "futurepool"

    task_id: int
    """Number of the task in its executor."""
    name: str
    """Name of the task."""
    priority: int
    """Its priority."""
    seconds: float
    """How long it has waited since it was admitted, in seconds."""


@dataclass(frozen=True, slots=True)
class ViewStats:
    """What the tasks of a view with a name and a limit have done, and are doing: see `Stats.views`.

    It counts the tasks of all views of that name, and of views made from them. At every instant
    `submitted_tasks == completed_tasks + cancelled_tasks + active_tasks + queued_tasks`.
    """

    __module__ = "futurepool"

    name: str
    """Name of the view."""
    limit: int | None
    """How many of its tasks may run at a time; None if that is for each key. The latest that a view
    of this name had."""
    active_tasks: int
    """How many run now."""
    queued_tasks: int
    """How many wait, for a worker or for their limit."""
    submitted_tasks: int
    """Tasks that were admitted."""
    completed_tasks: int
    """Tasks that ran to an end, failures included."""
    failed_tasks: int
    """Completed tasks that raised."""
    cancelled_tasks: int
    """Tasks that were cancelled before they started."""
    average_latency: float
    """Mean run time, seconds."""
    average_wait: float
    """Mean time in the queue, seconds."""
    latency: Histogram | None = None
    """Distribution of the run time, if the executor has `enable_metrics=True`."""
    wait: Histogram | None = None
    """Distribution of the time in the queue, if the executor has `enable_metrics=True`."""


@dataclass(frozen=True, slots=True)
class Stats:
    """What an executor had done, and was doing, at one instant.

    At every instant `submitted_tasks == completed_tasks + cancelled_tasks + active_workers +
    queued_tasks`.

    - What it is: `name`, `max_workers`, `queue_size`.
    - Now: `workers`, `active_workers`, `queued_tasks`, `oldest_queued`, `waiting_submitters`, `closed`.
    - In its `uptime`: `submitted_tasks`, `completed_tasks`, of these `failed_tasks`, and
      `cancelled_tasks`; `rejected_tasks`, by reason in `rejections`; `overflow_tasks`; means in
      `average_latency` and `average_wait`; `last_error`.
    - With `enable_metrics=True`, else None: the histograms `latency`, `wait`, `admission`.
    - Of views with a name and a limit: `views`.
    - Of tasks that have run for too long: `abandoned_workers`.

    A task that has run for longer than its `run_timeout` has ended: it counts as completed and failed, though its
    function may go on. The worker it keeps is one of the `workers`, but none of the `active_workers`.
    """

    __module__ = "futurepool"

    name: str
    """Name of the executor."""
    max_workers: int
    """How many tasks may run at a time."""
    workers: int
    """How many threads there are, or places in use in the executor behind `engine=`."""
    active_workers: int
    """How many tasks run now, or are inside the executor behind `engine=`, which is to run some of them next."""
    queued_tasks: int
    """How many tasks wait for a worker."""
    queue_size: int | None
    """How many tasks may wait; None if any number may."""
    submitted_tasks: int
    """Tasks that were admitted."""
    completed_tasks: int
    """Tasks that ran to an end, failures included."""
    failed_tasks: int
    """Completed tasks that raised."""
    cancelled_tasks: int
    """Tasks that were cancelled before they started, or had waited for longer than they may."""
    rejected_tasks: int
    """Tasks that were refused or dropped, the sum of `rejections`.

    But for those that were dropped from the queue, or have expired there, they do not count as submitted.
    """
    overflow_tasks: int
    """Tasks that were admitted over the bound.

    To block their submitter could have stopped the pool.
    """
    average_latency: float
    """Mean run time, seconds."""
    average_wait: float
    """Mean time in the queue, seconds."""
    last_error: TaskError | None
    """The latest failure, if any: what can be shown of it.

    It has the original's type where one can be made of small plain data, and keeps no frame and
    no argument of the task.
    """
    uptime: float
    """Seconds since the executor was made."""
    closed: bool
    """Whether it has been shut down."""
    waiting_submitters: int = 0
    """Threads and coroutines that wait for a place."""
    oldest_queued: float = 0.0
    """How long the queued task has waited that has waited longest.

    Seconds; 0.0 if none is queued.
    """
    rejections: Mapping[str, int] = field(default_factory=dict[str, int], hash=False)
    """Rejected tasks by reason.

    "full": there was no place. "timeout": none came free in the time that the submitter gave
    it. "closed": the executor was shut down while the submitter waited. "dropped": to make room
    for another one, or by `OnFull.DROP_NEW`. "expired": it had waited for longer than its
    `max_wait`, or than `OnFull.SHED` allows; or, before it had a place, the deadline of its token had passed. "cancelled": before
    it had a place its token was cancelled.
    """
    latency: Histogram | None = None
    """Distribution of the run time, if the executor has `enable_metrics=True`."""
    wait: Histogram | None = None
    """Distribution of the time in the queue, if the executor has `enable_metrics=True`."""
    admission: Histogram | None = None
    """Distribution of how long submitters waited for a place, of those who had to and got one.

    None unless the executor has `enable_metrics=True`.
    """
    views: Mapping[str, ViewStats] = field(default_factory=dict[str, ViewStats], hash=False)
    """By name what is counted of each view that was made with a name and a limit."""
    abandoned_workers: int = 0
    """Threads that were written off (`options(run_timeout=, abandon=True)`) and have not ended yet.

    They are not among the `workers`.
    """


_sync.import_now(__name__)
