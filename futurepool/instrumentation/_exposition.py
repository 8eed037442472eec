"""The metrics of a look at the pools, as `prometheus_client` takes them, and as the text it would make of them.

Which lines there are, and their labels, changes with the pools, and from one scrape to the next hardly ever. So a
`Layout` is made of it, and kept: what is left to do each time is to put the numbers in their places.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from math import inf
from typing import Any

from prometheus_client.core import Metric
from prometheus_client.core import Sample as Line

from futurepool.instrumentation._samples import Sample, bucket_keys, key

__all__ = ["Family", "Layouts"]

_Key = tuple[Any, ...]
#: A line: what its name ends with, its labels besides those of the row, the key of its number.
_Line = tuple[str, dict[str, str], _Key]

#: What a pool is doing, by keys like those of `Counts`, in the order of `_now`.
_NOW = ("active", "idle", "abandoned", "limit", "queued", "capacity", "waiters", "oldest")
_VIEW_NOW = ("limit", "active", "queued")
_FLOATS = ("sum", "oldest")  # all else is counted


def _now(sample: Sample) -> list[Any]:
    return [
        sample.active,
        max(0, sample.workers - sample.active),
        sample.abandoned,
        sample.max_workers,
        sample.queued,
        sample.capacity,
        sample.waiters,
        sample.oldest,
        *chain.from_iterable(
            [(view.limit, view.active, view.queued) for view in sample.views.values()]
        ),
    ]


@dataclass
class _Row:
    """A pool, or a view of one: its labels, and which numbers there are of it."""

    labels: dict[str, str]
    of: tuple[str, ...]  # what its keys begin with
    places: dict[_Key, int]  # where its numbers are


#: Which lines of a family a row has.
_Lines = Callable[[_Row, tuple[float, ...]], Iterable[_Line]]


@dataclass
class _Spec:
    """What is the same in each look."""

    name: str
    text: str
    kind: str
    lines: _Lines


def _one(*what: str, **labels: str) -> _Lines:
    """A line, if there is such a number."""

    def lines(row: _Row, _bounds: tuple[float, ...]) -> Iterator[_Line]:
        where = ("now", *row.of, *what[1:]) if what[0] == "now" else (*row.of, *what)
        if where in row.places:
            yield "", labels, where

    return lines


def _all(*parts: _Lines) -> _Lines:
    def lines(row: _Row, bounds: tuple[float, ...]) -> Iterator[_Line]:
        for part in parts:
            yield from part(row, bounds)

    return lines


def _rejected(row: _Row, _bounds: tuple[float, ...]) -> Iterator[_Line]:
    for where in row.places:
        if where[0] == "rejected":
            yield "", {"reason": where[1]}, where


def _times(what: str) -> _Lines:
    def lines(row: _Row, bounds: tuple[float, ...]) -> Iterator[_Line]:
        every = key(*row.of, what, inf)
        if every in row.places:
            for bound, where in zip(bounds, bucket_keys((*row.of, what), bounds), strict=True):
                yield "_bucket", {"le": "+Inf" if bound == inf else repr(bound)}, where
            yield "_count", {}, every
            yield "_sum", {}, key(*row.of, what, "sum")

    return lines


_COMPLETED = _all(_one("succeeded", outcome="success"), _one("failed", outcome="error"))

_POOLS = [
    _Spec(
        "executor_threads",
        "Threads that run a task (active), and those that do not (idle).",
        "gauge",
        _all(_one("now", "active", state="active"), _one("now", "idle", state="idle")),
    ),
    _Spec(
        "executor_threads_abandoned",
        "Threads that were written off and have not ended yet.",
        "gauge",
        _one("now", "abandoned"),
    ),
    _Spec(
        "executor_threads_limit",
        "How many tasks may run at a time.",
        "gauge",
        _one("now", "limit"),
    ),
    _Spec(
        "executor_queue_size",
        "Tasks that wait for a worker.",
        "gauge",
        _one("now", "queued"),
    ),
    _Spec(
        "executor_queue_capacity",
        "How many may wait; absent if any number may.",
        "gauge",
        _one("now", "capacity"),
    ),
    _Spec(
        "executor_queue_waiters",
        "Threads and coroutines that wait for a place.",
        "gauge",
        _one("now", "waiters"),
    ),
    _Spec(
        "executor_task_oldest_seconds",
        "How long the oldest of the queued tasks has waited.",
        "gauge",
        _one("now", "oldest"),
    ),
    _Spec(
        "executor_tasks_submitted",
        "Tasks that were admitted.",
        "counter",
        _one("submitted"),
    ),
    _Spec(
        "executor_tasks_completed",
        "Tasks that ran to an end, by outcome.",
        "counter",
        _COMPLETED,
    ),
    _Spec(
        "executor_tasks_cancelled",
        "Tasks cancelled before they started.",
        "counter",
        _one("cancelled"),
    ),
    _Spec(
        "executor_tasks_rejected",
        "Tasks that were refused or dropped, by reason.",
        "counter",
        _rejected,
    ),
    _Spec(
        "executor_tasks_overflow",
        "Tasks that were admitted over the bound.",
        "counter",
        _one("overflow"),
    ),
    _Spec(
        "executor_task_run_seconds",
        "How long tasks ran.",
        "histogram",
        _times("latency"),
    ),
    _Spec(
        "executor_task_wait_seconds",
        "How long tasks were queued before they started.",
        "histogram",
        _times("wait"),
    ),
    _Spec(
        "executor_task_admission_seconds",
        "How long submitters waited for a place, of those who had to.",
        "histogram",
        _times("admission"),
    ),
]
_VIEWS = [
    _Spec(
        "executor_view_limit",
        "How many tasks of the view may run at a time; absent if that is for each key.",
        "gauge",
        _one("now", "limit"),
    ),
    _Spec(
        "executor_view_tasks_running",
        "Tasks of the view that run.",
        "gauge",
        _one("now", "active"),
    ),
    _Spec(
        "executor_view_tasks_queued",
        "Tasks of the view that wait, for a worker or for their limit.",
        "gauge",
        _one("now", "queued"),
    ),
    _Spec(
        "executor_view_tasks_submitted",
        "Tasks of the view that were admitted.",
        "counter",
        _one("submitted"),
    ),
    _Spec(
        "executor_view_tasks_completed",
        "Tasks of the view that ran to an end, by outcome.",
        "counter",
        _COMPLETED,
    ),
    _Spec(
        "executor_view_tasks_cancelled",
        "Tasks of the view that were cancelled before they started.",
        "counter",
        _one("cancelled"),
    ),
    _Spec(
        "executor_view_task_run_seconds",
        "How long tasks of the view ran.",
        "histogram",
        _times("latency"),
    ),
    _Spec(
        "executor_view_task_wait_seconds",
        "How long tasks of the view were queued before they started.",
        "histogram",
        _times("wait"),
    ),
]


@dataclass
class _Kept:
    """What a layout keeps of a family: its lines without their numbers."""

    spec: _Spec
    names: list[str] = field(default_factory=list[str])
    labels: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    places: list[int] = field(default_factory=list[int])
    template: str = ""


class Family(Metric):
    """A metric that makes its lines when they are asked for: who wants the text needs none."""

    def __init__(self, kept: _Kept, numbers: tuple[Any, ...]) -> None:
        """`numbers` in the order of the lines."""
        super().__init__(kept.spec.name, kept.spec.text, kept.spec.kind)
        self._kept = kept
        self._numbers = numbers
        self._lines: list[Line] | None = None

    @property
    def is_empty(self) -> bool:
        """Whether it would be but its heading."""
        return not self._numbers

    @property
    def samples(self) -> list[Line]:
        """Its lines, as of any metric; they are whoever's has asked for them."""
        if self._lines is None:
            parts = zip(self._kept.names, self._kept.labels, self._numbers, strict=True)
            self._lines = [Line(name, {**labels}, number) for name, labels, number in parts]
        return self._lines

    @samples.setter
    def samples(self, lines: list[Line]) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        self._lines = lines

    def exposition(self) -> str | None:
        """The text of it; None if its lines may have been changed."""
        return self._kept.template % self._numbers if self._lines is None else None


class Layout:
    """The lines that pools of these shapes have, all but their numbers."""

    def __init__(self, shapes: list[Any], bounds: tuple[float, ...]) -> None:
        self.shapes = shapes
        rows: list[_Row] = []
        views: list[_Row] = []
        start = 0
        for name, unbounded, view_shapes, counted in shapes:
            keys: list[_Key] = [("now", what) for what in _NOW]
            for view, _ in view_shapes:
                keys += [("now", "view", view, what) for what in _VIEW_NOW]
            keys += counted
            places = {where: start + index for index, where in enumerate(keys)}
            start += len(keys)
            if unbounded:
                del places["now", "capacity"]
            rows.append(_Row({"executor": name}, (), places))
            for view, without in view_shapes:
                if without:
                    del places["now", "view", view, "limit"]
                views.append(_Row({"executor": name, "view": view}, ("view", view), places))
        self.families = [
            _kept(spec, of, bounds)
            for specs, of in ((_POOLS, rows), (_VIEWS, views))
            for spec in specs
        ]

    def metrics(self, samples: list[Sample]) -> Iterator[Family]:
        """All families, those without a line too."""
        flat: list[Any] = []
        for sample in samples:
            flat += _now(sample)
            flat += sample.counts.values()
        for kept in self.families:
            yield Family(kept, tuple([flat[place] for place in kept.places]))


def _kept(spec: _Spec, rows: list[_Row], bounds: tuple[float, ...]) -> _Kept:
    kept = _Kept(spec)
    title = f"{spec.name}_total" if spec.kind == "counter" else spec.name
    text = [f"# HELP {title} {spec.text}\n# TYPE {title} {spec.kind}\n".replace("%", "%%")]
    for row in rows:
        for suffix, more, where in spec.lines(row, bounds):
            labels = {**row.labels, **more}
            kept.names.append(f"{title}{suffix}")
            kept.labels.append(labels)
            kept.places.append(row.places[where])
            shown = ",".join(f'{name}="{_escaped(labels[name])}"' for name in sorted(labels))
            number = "%r" if where[-1] in _FLOATS else "%d.0"
            text.append(f"{title}{suffix}{{{shown}}} ".replace("%", "%%") + f"{number}\n")
    kept.template = "".join(text) if kept.names else ""
    return kept


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


class Layouts:
    """Remembers the latest layout. Thread-safe: who finds another one makes its own."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._latest = Layout([], bounds)

    def metrics(self, samples: list[Sample]) -> Iterator[Family]:
        """All families, those without a line too."""
        shapes = [
            (
                sample.name,
                sample.capacity is None,
                [(name, view.limit is None) for name, view in sample.views.items()],
                list(sample.counts),
            )
            for sample in samples
        ]
        layout = self._latest
        if layout.shapes != shapes:
            self._latest = layout = Layout(shapes, self._bounds)
        return layout.metrics(samples)
