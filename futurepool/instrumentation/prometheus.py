"""Metrics for Prometheus, by `prometheus_client` (the extra `prometheus`).

::

    from futurepool.instrumentation import prometheus

    prometheus.instrument()  # once in the process; pools may come and go

`docs/observability.md` lists the metrics.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from math import inf
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
)
from prometheus_client.core import Sample as Line
from prometheus_client.registry import Collector

from futurepool import BoundedExecutor
from futurepool.instrumentation._samples import BOUNDS, Counts, Sample, Sampler, key

__all__ = ["PoolCollector", "instrument", "instrument_processes"]

_TIMES = {
    "latency": ("executor_task_run_seconds", "How long tasks ran"),
    "wait": ("executor_task_wait_seconds", "How long tasks were queued before they started"),
    "admission": (
        "executor_task_admission_seconds",
        "How long submitters waited for a place, of those who had to",
    ),
}
_VIEW_TIMES = {
    "latency": ("executor_view_task_run_seconds", "How long tasks of the view ran"),
    "wait": (
        "executor_view_task_wait_seconds",
        "How long tasks of the view were queued before they started",
    ),
}


class PoolCollector(Collector):
    """Shows the pools of this process to a registry.

    Args:
        select: Returns the pools to show; None: all of `futurepool.pools()` that were given
            a name. Pools of one name are shown as one, their numbers added up.
        buckets: Upper bounds of the histograms' buckets, seconds. Pools made with
            `enable_metrics=True` have histograms.

    Thread safety: any thread, also in the child of a fork.
    Cost: nothing but when it is asked; then some 0.1 ms for each pool, 0.4 with histograms; the text takes
    0.1 and 0.3 ms more.
    """

    def __init__(
        self,
        select: Callable[[], Iterable[BoundedExecutor]] | None = None,
        buckets: Sequence[float] = BOUNDS,
    ) -> None:
        self._sampler = Sampler(select, buckets)

    def describe(self) -> Iterator[Metric]:
        """The metrics without their values, so that a registry finds names that are taken."""
        return _families([], self._sampler.bounds)

    def collect(self) -> Iterator[Metric]:
        """The metrics as they are now; without those that no pool has, which would be but their headings."""
        for metric in _families(self._sampler.sample(), self._sampler.bounds):
            if metric.samples:
                yield metric


def _families(samples: list[Sample], bounds: tuple[float, ...]) -> Iterator[Metric]:
    yield from _gauges(samples)
    yield from _counters(samples)
    names = [("+Inf" if bound == inf else repr(bound)) for bound in bounds]
    pools = [({"executor": sample.name}, sample.counts, ()) for sample in samples]
    views = [
        ({"executor": sample.name, "view": view}, sample.counts, ("view", view))
        for sample in samples
        for view in sample.views
    ]
    yield from _histograms(_TIMES, pools, bounds, names)
    yield from _views(samples)
    yield from _histograms(_VIEW_TIMES, views, bounds, names)


def _histograms(
    times: dict[str, tuple[str, str]],
    rows: Iterable[tuple[dict[str, str], Counts, tuple[str, ...]]],
    bounds: tuple[float, ...],
    names: list[str],
) -> Iterator[Metric]:
    """Of each row, its labels and what its counts' keys begin with, those that it has."""
    for what, (name, text) in times.items():
        histogram = Metric(name, f"{text}.", "histogram")
        for labels, counts, of in rows:
            if key(*of, what, inf) in counts:
                numbers = [counts[key(*of, what, bound)] for bound in bounds]
                total: Any = counts[key(*of, what, "sum")]
                buckets = zip(names, numbers, strict=True)
                histogram.samples += _lines(name, labels, buckets, total)
        yield histogram


def _lines(
    name: str, labels: dict[str, str], buckets: Iterable[tuple[str, int]], total: float
) -> list[Line]:
    """One histogram. As `HistogramMetricFamily` makes it, in half the time: most of a scrape are these."""
    bucket = f"{name}_bucket"
    lines = [Line(bucket, {**labels, "le": bound}, number) for bound, number in buckets]
    lines.append(Line(f"{name}_count", {**labels}, lines[-1].value))
    lines.append(Line(f"{name}_sum", {**labels}, total))
    return lines


def _gauges(samples: list[Sample]) -> Iterator[Metric]:
    threads = GaugeMetricFamily(
        "executor_threads",
        "Threads that run a task (active), and those that do not (idle).",
        labels=["executor", "state"],
    )
    abandoned = _gauge(
        "executor_threads_abandoned", "Threads that were written off and have not ended yet."
    )
    limit = _gauge("executor_threads_limit", "How many tasks may run at a time.")
    queue = _gauge("executor_queue_size", "Tasks that wait for a worker.")
    capacity = _gauge("executor_queue_capacity", "How many may wait; absent if any number may.")
    waiters = _gauge("executor_queue_waiters", "Threads and coroutines that wait for a place.")
    oldest = _gauge(
        "executor_task_oldest_seconds", "How long the oldest of the queued tasks has waited."
    )
    for sample in samples:
        labels = [sample.name]
        threads.add_metric([*labels, "active"], sample.active)
        threads.add_metric([*labels, "idle"], max(0, sample.workers - sample.active))
        abandoned.add_metric(labels, sample.abandoned)
        limit.add_metric(labels, sample.max_workers)
        queue.add_metric(labels, sample.queued)
        if sample.capacity is not None:
            capacity.add_metric(labels, sample.capacity)
        waiters.add_metric(labels, sample.waiters)
        oldest.add_metric(labels, sample.oldest)
    yield from (threads, abandoned, limit, queue, capacity, waiters, oldest)


def _counters(samples: list[Sample]) -> Iterator[Metric]:
    submitted = _counter("executor_tasks_submitted", "Tasks that were admitted.")
    completed = CounterMetricFamily(
        "executor_tasks_completed",
        "Tasks that ran to an end, by outcome.",
        labels=["executor", "outcome"],
    )
    cancelled = _counter("executor_tasks_cancelled", "Tasks cancelled before they started.")
    rejected = CounterMetricFamily(
        "executor_tasks_rejected",
        "Tasks that were refused or dropped, by reason.",
        labels=["executor", "reason"],
    )
    overflow = _counter("executor_tasks_overflow", "Tasks that were admitted over the bound.")
    for sample in samples:
        labels, counts = [sample.name], sample.counts
        submitted.add_metric(labels, counts["submitted",])
        completed.add_metric([*labels, "success"], counts["completed",] - counts["failed",])
        completed.add_metric([*labels, "error"], counts["failed",])
        cancelled.add_metric(labels, counts["cancelled",])
        for what, number in counts.items():
            if what[0] == "rejected":
                rejected.add_metric([*labels, what[1]], number)
        overflow.add_metric(labels, counts["overflow",])
    yield from (submitted, completed, cancelled, rejected, overflow)


def _views(samples: list[Sample]) -> Iterator[Metric]:
    names = ("executor", "view")
    limit = GaugeMetricFamily(
        "executor_view_limit",
        "How many tasks of the view may run at a time; absent if that is for each key.",
        labels=names,
    )
    running = GaugeMetricFamily(
        "executor_view_tasks_running", "Tasks of the view that run.", labels=names
    )
    queued = GaugeMetricFamily(
        "executor_view_tasks_queued",
        "Tasks of the view that wait, for a worker or for their limit.",
        labels=names,
    )
    submitted = CounterMetricFamily(
        "executor_view_tasks_submitted", "Tasks of the view that were admitted.", labels=names
    )
    completed = CounterMetricFamily(
        "executor_view_tasks_completed",
        "Tasks of the view that ran to an end, by outcome.",
        labels=(*names, "outcome"),
    )
    cancelled = CounterMetricFamily(
        "executor_view_tasks_cancelled",
        "Tasks of the view that were cancelled before they started.",
        labels=names,
    )
    for sample in samples:
        for name, view in sample.views.items():
            labels, counts = [sample.name, name], sample.counts
            failed = counts["view", name, "failed"]
            if view.limit is not None:
                limit.add_metric(labels, view.limit)
            running.add_metric(labels, view.active)
            queued.add_metric(labels, view.queued)
            submitted.add_metric(labels, counts["view", name, "submitted"])
            completed.add_metric([*labels, "success"], counts["view", name, "completed"] - failed)
            completed.add_metric([*labels, "error"], failed)
            cancelled.add_metric(labels, counts["view", name, "cancelled"])
    yield from (limit, running, queued, submitted, completed, cancelled)


def _gauge(name: str, text: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, labels=["executor"])


def _counter(name: str, text: str) -> CounterMetricFamily:
    return CounterMetricFamily(name, text, labels=["executor"])


def instrument(
    registry: CollectorRegistry = REGISTRY,
    *,
    select: Callable[[], Iterable[BoundedExecutor]] | None = None,
    buckets: Sequence[float] = BOUNDS,
) -> PoolCollector:
    """Show the pools of this process to `registry`.

    Args:
        registry: Which is to have them; by default the one that everybody uses.
        select: As in `PoolCollector`.
        buckets: As in `PoolCollector`.

    Returns:
        The collector, for `registry.unregister`.

    Raises:
        ValueError: The registry has them already.
    """
    collector = PoolCollector(select, buckets)
    registry.register(collector)
    return collector


def instrument_processes(
    every: float = 5.0,
    *,
    select: Callable[[], Iterable[BoundedExecutor]] | None = None,
    buckets: Sequence[float] = BOUNDS,
) -> None:
    """Show the pools of several processes at one port, by the client library's multiprocess mode.

    For servers with worker processes (gunicorn, uwsgi) that set `PROMETHEUS_MULTIPROC_DIR`. A thread of
    each process looks at the pools and writes what has changed; a child of a fork has one of its own. Call
    it once, before or after the fork, in place of `instrument`.

    Args:
        every: Seconds between two looks.
        select: As in `PoolCollector`.
        buckets: As in `PoolCollector`.

    Raises:
        ValueError: `every` is not more than 0, or the environment has no `PROMETHEUS_MULTIPROC_DIR`.
    """
    from futurepool.instrumentation._processes import Writer

    if not every > 0:
        raise ValueError(f"every must be more than 0 seconds, not {every}")
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        raise ValueError("PROMETHEUS_MULTIPROC_DIR is not set, so there is nothing to write to")
    sampler = Sampler(select, buckets, gone=True)
    Writer(lambda: _families(sampler.sample(), sampler.bounds), every)
