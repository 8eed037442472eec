"""Metrics for OpenTelemetry, by its API (the extra `opentelemetry`).

::

    from futurepool.instrumentation import opentelemetry

    opentelemetry.instrument()  # once in the process; pools may come and go

The numbers go wherever the process's `MeterProvider` sends them. `docs/observability.md` lists the
instruments. All of them are asynchronous: they are asked for when a reader collects, so nothing is
done for a task. An asynchronous histogram does not exist; in place of one there are the total of the
seconds, which with the number of tasks gives the mean over any time, and the quantiles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter_provider

from futurepool import BoundedExecutor, Histogram
from futurepool.instrumentation._samples import Sample, Sampler, key

__all__ = ["instrument"]

_Values = Iterator[tuple[float, dict[str, str]]]


def _threads(sample: Sample) -> _Values:
    yield sample.active, {"executor.thread.state": "active"}
    yield max(0, sample.workers - sample.active), {"executor.thread.state": "idle"}


def _capacity(sample: Sample) -> _Values:
    if sample.capacity is not None:
        yield sample.capacity, {}


def _completed(sample: Sample) -> _Values:
    yield sample.counts["completed",] - sample.counts["failed",], {}
    # The class of each error would have to be counted for each task: the value that the semantic
    # conventions have for "not known".
    yield sample.counts["failed",], {"error.type": "_OTHER"}


def _rejected(sample: Sample) -> _Values:
    for what, number in sample.counts.items():
        if what[0] == "rejected":
            yield number, {"reason": what[1]}


def _one(get: Callable[[Sample], float]) -> Callable[[Sample], _Values]:
    def values(sample: Sample) -> _Values:
        yield get(sample), {}

    return values


def _count(*what: str) -> Callable[[Sample], _Values]:
    return _one(lambda sample: sample.counts[what])


def _quantiles(what: str) -> Callable[[Sample], _Values]:
    return lambda sample: _quantiles_of(sample.histograms.get(what))


def _quantiles_of(histogram: Histogram | None) -> _Values:
    if histogram is not None and histogram.count:
        yield histogram.p50, {"quantile": "0.5"}
        yield histogram.p90, {"quantile": "0.9"}
        yield histogram.p99, {"quantile": "0.99"}


def _of_views(values: Callable[[Sample, str], _Values]) -> Callable[[Sample], _Values]:
    """The same of each view that has a name and a limit."""

    def every(sample: Sample) -> _Values:
        for name in sample.views:
            for value, more in values(sample, name):
                yield value, {"executor.view": name, **more}

    return every


def _view_limit(sample: Sample, name: str) -> _Values:
    limit = sample.views[name].limit
    if limit is not None:
        yield limit, {}


def _view_running(sample: Sample, name: str) -> _Values:
    yield sample.views[name].active, {}


def _view_queued(sample: Sample, name: str) -> _Values:
    yield sample.views[name].queued, {}


def _view_completed(sample: Sample, name: str) -> _Values:
    failed = sample.counts["view", name, "failed"]
    yield sample.counts["view", name, "completed"] - failed, {}
    yield failed, {"error.type": "_OTHER"}


def _view_count(*what: str) -> Callable[[Sample], _Values]:
    def values(sample: Sample, name: str) -> _Values:
        yield sample.counts[key("view", name, *what)], {}

    return _of_views(values)


def _view_quantiles(what: str) -> Callable[[Sample], _Values]:
    return _of_views(lambda sample, name: _quantiles_of(sample.views[name].histograms.get(what)))


#: Name, kind, unit, what it is, its values.
_INSTRUMENTS: list[tuple[str, str, str, str, Callable[[Sample], _Values]]] = [
    ("thread.count", "up_down_counter", "{thread}", "Threads, by state.", _threads),
    (
        *("thread.abandoned", "up_down_counter", "{thread}", "Threads written off, not ended yet."),
        _one(lambda sample: sample.abandoned),
    ),
    (
        *("thread.limit", "up_down_counter", "{thread}", "How many tasks may run at a time."),
        _one(lambda sample: sample.max_workers),
    ),
    (
        *("queue.size", "up_down_counter", "{task}", "Tasks that wait for a worker."),
        _one(lambda sample: sample.queued),
    ),
    ("queue.capacity", "up_down_counter", "{task}", "How many tasks may wait.", _capacity),
    (
        *("queue.waiters", "up_down_counter", "{waiter}", "Who waits for a place."),
        _one(lambda sample: sample.waiters),
    ),
    ("task.submitted", "counter", "{task}", "Tasks that were admitted.", _count("submitted")),
    ("task.completed", "counter", "{task}", "Tasks that ran to an end.", _completed),
    ("task.cancelled", "counter", "{task}", "Tasks cancelled unstarted.", _count("cancelled")),
    ("task.rejected", "counter", "{task}", "Tasks refused or dropped.", _rejected),
    ("task.overflow", "counter", "{task}", "Tasks over the bound.", _count("overflow")),
    ("task.run_time", "counter", "s", "Time that tasks ran, in all.", _count("latency", "sum")),
    ("task.wait_time", "counter", "s", "Time that tasks waited.", _count("wait", "sum")),
    ("task.run_time.quantile", "gauge", "s", "How long tasks run.", _quantiles("latency")),
    ("task.wait_time.quantile", "gauge", "s", "How long tasks wait.", _quantiles("wait")),
    (
        *("task.oldest", "gauge", "s", "How long the oldest queued task has waited."),
        _one(lambda sample: sample.oldest),
    ),
    (
        *("view.limit", "up_down_counter", "{task}", "How many tasks of the view may run."),
        _of_views(_view_limit),
    ),
    (
        *("view.task.running", "up_down_counter", "{task}", "Tasks of the view that run."),
        _of_views(_view_running),
    ),
    (
        *("view.task.queued", "up_down_counter", "{task}", "Tasks of the view that wait."),
        _of_views(_view_queued),
    ),
    (
        *("view.task.submitted", "counter", "{task}", "Tasks of the view that were admitted."),
        _view_count("submitted"),
    ),
    (
        *("view.task.completed", "counter", "{task}", "Tasks of the view that ran to an end."),
        _of_views(_view_completed),
    ),
    (
        *("view.task.cancelled", "counter", "{task}", "Tasks of the view cancelled unstarted."),
        _view_count("cancelled"),
    ),
    (
        *("view.task.run_time", "counter", "s", "Time that tasks of the view ran, in all."),
        _view_count("latency", "sum"),
    ),
    (
        *("view.task.wait_time", "counter", "s", "Time that tasks of the view waited."),
        _view_count("wait", "sum"),
    ),
    (
        *("view.task.run_time.quantile", "gauge", "s", "How long tasks of the view run."),
        _view_quantiles("latency"),
    ),
    (
        *("view.task.wait_time.quantile", "gauge", "s", "How long tasks of the view wait."),
        _view_quantiles("wait"),
    ),
]


class _Collection:
    """One look at the pools serves all instruments of a collection."""

    def __init__(self, select: Callable[[], Iterable[BoundedExecutor]] | None) -> None:
        self._sampler = Sampler(select, ())
        self._samples: list[Sample] = []
        self._served: set[str] | None = None

    def for_instrument(self, name: str) -> list[Sample]:
        """The samples of this collection: one in which an instrument is asked twice is another one."""
        served = self._served
        if served is None or name in served:
            self._samples = self._sampler.sample()
            self._served = served = set[str]()
        served.add(name)
        return self._samples

    def callback(
        self, name: str, values: Callable[[Sample], _Values]
    ) -> Callable[[CallbackOptions], Iterable[Observation]]:
        """What an instrument is made with."""

        def observe(_options: CallbackOptions) -> Iterator[Observation]:
            for sample in self.for_instrument(name):
                labels = {"executor.name": sample.name, "executor.type": sample.kind}
                for value, more in values(sample):
                    yield Observation(value, {**labels, **more})

        return observe


def instrument(
    provider: MeterProvider | None = None,
    *,
    select: Callable[[], Iterable[BoundedExecutor]] | None = None,
) -> None:
    """Show the pools of this process to a `MeterProvider`.

    Args:
        provider: Which is to have them; by default that of the process.
        select: Returns the pools to show; None: all of `futurepool.pools()` that were given
            a name. Pools of one name are shown as one.

    Thread safety: any thread. Cost: nothing but when a reader collects; then some 0.1 ms for each pool.
    """
    meter = (provider or get_meter_provider()).get_meter("futurepool")
    collection = _Collection(select)
    for name, kind, unit, text, values in _INSTRUMENTS:
        full = f"executor.{name}"
        create: Any = getattr(meter, f"create_observable_{kind}")
        create(full, [collection.callback(full, values)], unit, text)
