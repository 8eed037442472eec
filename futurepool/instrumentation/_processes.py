"""Metrics of several processes at one port, by the multiprocess mode of `prometheus_client`.

There each process writes its numbers into files in a folder, and whichever is asked adds up what all have
written. So a collector is of no use, which is asked in one process only: a thread looks at the pools every
few seconds and writes what has changed, and once more at exit.

The child of a fork goes on from the counts that it finds: what the parent has done is the parent's to write.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.core import Metric

__all__ = ["Writer"]

#: How the gauges of several processes make one; dead processes have none.
_MODES = {"executor_task_oldest_seconds": "livemax"}

_Key = tuple[str, tuple[str, ...]]


class Writer:
    """Writes what `collect` returns, again and again."""

    def __init__(self, collect: Callable[[], Iterable[Metric]], every: float) -> None:
        self._collect = collect
        self._every = every
        self._metrics: dict[str, Any] = {}  # of the client library, by name
        self._before: dict[_Key, float] = {}  # what has been written
        self._ended = threading.Event()
        self._start()
        self.write()
        atexit.register(self._end)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)

    def _start(self) -> None:
        self._lock = threading.Lock()
        threading.Thread(target=self._run, name="futurepool-metrics", daemon=True).start()

    def _run(self) -> None:
        while not self._ended.wait(self._every):
            self.write()

    def _end(self) -> None:
        self._ended.set()
        self.write()

    def _after_fork(self) -> None:
        self._before.clear()
        for family in self._collect():
            if family.type != "gauge":
                self._before.update(_flat(family))
        self._ended = threading.Event()
        self._start()

    def write(self) -> None:
        """Write what has changed."""
        with self._lock:
            for family in self._collect():
                now = _flat(family)
                if family.type == "gauge":
                    # Of a pool that is gone nothing is left.
                    gone = {key: 0.0 for key in self._before if key[0] == family.name}
                    for (name, labels), value in {**gone, **now}.items():
                        self._metric(family).labels(*labels).set(value)
                        self._before[name, labels] = value
                    continue
                for key, value in now.items():
                    more = value - self._before.get(key, 0.0)
                    if more > 0:
                        self._add(family, key, more)
                    self._before[key] = value

    def _add(self, family: Metric, key: _Key, more: float) -> None:
        name, labels = key
        if family.type == "counter":
            self._metric(family).labels(*labels).inc(more)
            return
        metric = self._metric(family)
        if name.endswith("_sum"):
            metric.labels(*labels)._sum.inc(more)
        else:
            *labels_alone, bucket = labels
            metric.labels(*labels_alone)._buckets[int(bucket)].inc(more)

    def _metric(self, family: Metric) -> Any:
        metric = self._metrics.get(family.name)
        if metric is None:
            names = list(next(iter(family.samples)).labels)
            # Without a registry: they are for the files only.
            if family.type == "gauge":
                mode: Any = _MODES.get(family.name, "livesum")
                metric = Gauge(
                    family.name, family.documentation, names, registry=None, multiprocess_mode=mode
                )
            elif family.type == "counter":
                metric = Counter(family.name, family.documentation, names, registry=None)
            else:
                bounds = [float(s.labels["le"]) for s in family.samples if "le" in s.labels]
                metric = Histogram(
                    family.name,
                    family.documentation,
                    [name for name in names if name != "le"],
                    registry=None,
                    buckets=list(dict.fromkeys(bounds)),
                )
            self._metrics[family.name] = metric
        return metric


def _flat(family: Metric) -> dict[_Key, float]:
    """The values of a family, by name and labels; buckets by their number, each with its own count only."""
    found: dict[_Key, float] = {}
    below, number = 0.0, 0
    for sample in family.samples:
        labels = tuple(sample.labels.values())
        if not sample.name.endswith("_bucket"):
            if not sample.name.endswith("_count"):
                found[sample.name, labels] = sample.value
            below, number = 0.0, 0
            continue
        # `le` is the last.
        found[sample.name, (*labels[:-1], str(number))] = sample.value - below
        below, number = sample.value, number + 1
    return found
