"""What the exporters show: the numbers of all pools, by name.

Pools of one name are shown as one: two series of the same labels would be an error. So that what counts
up never goes down when one of them ends, its last counts are kept for its name (`_retired`). They are
asked for once more when it has ended, if its executor is still there; of one that was dropped they are
those of the last look.
"""

from __future__ import annotations

import os
import re
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import inf
from typing import Any

from futurepool import BoundedExecutor, Histogram, Stats, ViewStats, pools

__all__ = ["BOUNDS", "Counts", "Sample", "Sampler", "ViewSample", "bucket_keys", "key", "printable"]

#: Upper bounds of the buckets that are shown, in seconds. Each costs a line for each histogram, and lines
#: are what a scrape costs: so each is some five times the one before, closer where people look, about a second.
BOUNDS: tuple[float, ...] = (0.001, 0.005, 0.025, 0.1, 0.25, 1.0, 5.0, 30.0)

#: What a pool is called that was given no name, nor a `thread_name_prefix`. It would be another one after
#: each start, so monitoring is not to see it.
_UNNAMED = re.compile(r"ThreadPoolExecutor-\d+")
_MOST = 1000  # names whose counts are kept

#: What counts up, by (what,), (what, reason) or (histogram, upper bound). The same of a view begins with
#: ("view", its name).
Counts = Counter[tuple[Any, ...]]

HISTOGRAMS = ("latency", "wait", "admission")
VIEW_HISTOGRAMS = ("latency", "wait")


def key(*parts: Any) -> tuple[Any, ...]:
    """One of `Counts`: `counts[*of, what]` is for Python 3.11 and later."""
    return parts


@lru_cache(1000)
def bucket_keys(of: tuple[str, ...], bounds: tuple[float, ...]) -> list[tuple[Any, ...]]:
    """Those of a histogram's buckets, in the order of `bounds`."""
    return [key(*of, bound) for bound in bounds]


def printable(name: str) -> str:
    """A name as UTF-8 can have it: one that cannot would cost the metrics of the whole process."""
    return name if name.isascii() else name.encode("utf-8", "backslashreplace").decode()


@dataclass
class ViewSample:
    """All views of one name, of all pools of one name, at one instant."""

    limit: int | None = 0  # None: it is for each key
    active: int = 0
    queued: int = 0
    histograms: dict[str, Histogram] = field(default_factory=dict[str, Histogram])

    def add(self, stats: ViewStats) -> None:
        """Take in those of one more pool."""
        self.limit = _added(self.limit, stats.limit)
        self.active += stats.active_tasks
        self.queued += stats.queued_tasks
        _take_in(self.histograms, VIEW_HISTOGRAMS, stats)


@dataclass
class Sample:
    """All pools of one name at one instant."""

    name: str
    kind: str
    workers: int = 0
    active: int = 0
    abandoned: int = 0
    max_workers: int = 0
    queued: int = 0
    capacity: int | None = 0  # None: unbounded
    waiters: int = 0
    oldest: float = 0.0
    histograms: dict[str, Histogram] = field(default_factory=dict[str, Histogram])
    counts: Counts = field(default_factory=Counter[tuple[Any, ...]])
    views: dict[str, ViewSample] = field(default_factory=dict[str, ViewSample])

    def add(self, stats: Stats, counts: Counts) -> None:
        """Take in one more pool."""
        self.workers += stats.workers
        self.abandoned += stats.abandoned_workers
        self.active += stats.active_workers
        self.max_workers += stats.max_workers
        self.queued += stats.queued_tasks
        self.capacity = _added(self.capacity, stats.queue_size)
        self.waiters += stats.waiting_submitters
        self.oldest = max(self.oldest, stats.oldest_queued)
        _take_in(self.histograms, HISTOGRAMS, stats)
        for name, view in stats.views.items():
            self.views.setdefault(printable(name), ViewSample()).add(view)
        self.counts.update(counts)


def _added(one: int | None, other: int | None) -> int | None:
    """None is as many as one likes."""
    return None if one is None or other is None else one + other


def _take_in(into: dict[str, Histogram], names: Iterable[str], stats: object) -> None:
    for what in names:
        histogram: Histogram | None = getattr(stats, what)
        if histogram is not None:
            other = into.get(what)
            into[what] = histogram if other is None else _both(histogram, other)


def _both(one: Histogram, other: Histogram) -> Histogram:
    """All histograms of pools have the same buckets."""
    pairs = zip(one.buckets, other.buckets, strict=True)
    return Histogram(
        one.count + other.count,
        one.sum + other.sum,
        max(one.max, other.max),
        tuple((bound, mine + its) for (bound, mine), (_, its) in pairs),
    )


class Sampler:
    """Looks at the pools when asked to. Thread-safe, also in the child of a fork."""

    def __init__(
        self,
        select: Callable[[], Iterable[BoundedExecutor]] | None = None,
        bounds: Sequence[float] = BOUNDS,
        gone: bool = False,
    ) -> None:
        """Args as those of the exporters; with `gone` also names of which no pool is left."""
        self.bounds: tuple[float, ...] = (*sorted({float(bound) for bound in bounds} - {inf}), inf)
        self._select = select
        self._gone = gone
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._seen: list[tuple[weakref.ref[BoundedExecutor], str, Counts]] = []
        self._retired: dict[str, Counts] = {}

    def sample(self) -> list[Sample]:
        """One for each name, in the order in which their first pools were made."""
        if self._process != os.getpid():  # another thread may have held it at the fork
            self._process, self._lock = os.getpid(), threading.Lock()
        with self._lock:
            select = self._select
            alive = pools() if select is None else list(select())
            self._retire(alive)
            samples: dict[str, Sample] = {}
            for pool in alive:
                if select is None and _UNNAMED.fullmatch(pool.name):
                    continue
                stats = pool.stats()
                name, counts = printable(stats.name), self._counts(stats)
                self._seen.append((weakref.ref(pool), name, counts))
                sample = samples.get(name)
                if sample is None:
                    sample = samples[name] = Sample(name, type(pool).__name__)
                sample.add(stats, counts)
            if self._gone:
                for name in self._retired:
                    samples.setdefault(name, Sample(name, ""))
            for name, sample in samples.items():
                sample.counts.update(self._retired.get(name, {}))
                if self._gone:
                    for what in sample.counts:
                        if what[0] == "view":
                            sample.views.setdefault(what[1], ViewSample())
            return list(samples.values())

    def _retire(self, alive: list[BoundedExecutor]) -> None:
        """Keep the counts of those that were seen last time and are not alive any more."""
        for ref, name, counts in self._seen:
            pool = ref()
            if any(pool is each for each in alive):
                continue
            last = counts if pool is None else self._counts(pool.stats())
            kept = self._retired.pop(name, Counts())
            kept.update(last)
            self._retired[name] = kept
            if len(self._retired) > _MOST:
                del self._retired[next(iter(self._retired))]
        self._seen = []

    def _counts(self, stats: Stats) -> Counts:
        completed, failed = stats.completed_tasks, stats.failed_tasks
        counts: dict[tuple[Any, ...], Any] = {
            ("submitted",): stats.submitted_tasks,
            ("completed",): completed,
            ("succeeded",): completed - failed,
            ("failed",): failed,
            ("cancelled",): stats.cancelled_tasks,
            ("overflow",): stats.overflow_tasks,
            ("latency", "sum"): stats.average_latency * completed,
            ("wait", "sum"): stats.average_wait * completed,
        }
        for reason, number in stats.rejections.items():
            counts["rejected", reason] = number
        self._count_times(counts, (), HISTOGRAMS, stats)
        for name, view in stats.views.items():
            shown = printable(name)
            completed, failed = view.completed_tasks, view.failed_tasks
            counts["view", shown, "submitted"] = view.submitted_tasks
            counts["view", shown, "completed"] = completed
            counts["view", shown, "succeeded"] = completed - failed
            counts["view", shown, "failed"] = failed
            counts["view", shown, "cancelled"] = view.cancelled_tasks
            counts["view", shown, "latency", "sum"] = view.average_latency * completed
            counts["view", shown, "wait", "sum"] = view.average_wait * completed
            self._count_times(counts, ("view", shown), VIEW_HISTOGRAMS, view)
        return Counts(counts)

    def _count_times(
        self,
        counts: dict[tuple[Any, ...], Any],
        of: tuple[str, ...],
        names: Iterable[str],
        stats: object,
    ) -> None:
        for what in names:
            histogram: Histogram | None = getattr(stats, what)
            if histogram is not None:
                counts[key(*of, what, "sum")] = histogram.sum
                keys = bucket_keys((*of, what), self.bounds)
                counts.update(zip(keys, histogram.cumulative(self.bounds), strict=True))
