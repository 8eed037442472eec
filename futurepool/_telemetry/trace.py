"""A recording of what a pool does, for Perfetto, speedscope or `chrome://tracing`.

The format is the trace event format of Chrome (JSON). One row for each worker, with a bar for each task; a
row for submissions, with arrows from each to the start of its bar; two counters, of the queue and of what
runs. Imported when it is first asked for.

Two bars of a row are disjoint, or one lies in the other. Perfetto leaves out one that overlaps another in part, and
draws an arrow from the wrong bar then. Short tasks and submissions lie closer together than the clock is exact: the
time since the epoch, as a float, comes in steps of a quarter of a microsecond. So bars are moved by that much.
"""

# Annotations are not postponed: see the head of `futurepool._telemetry.stats`.

import json
import os
import weakref
from collections import deque
from collections.abc import Iterator
from itertools import pairwise
from math import inf
from typing import Any

from typing_extensions import Self

from futurepool import _sync
from futurepool._telemetry.observers import Observer, TaskEvent

__all__ = ["Trace"]

_SUBMITS = 1  # the number of their row; those of workers follow
#: Microseconds of which all times are multiples: exact as floats, also as the nanoseconds that Perfetto
#: makes of them, so that bars which touch do not overlap.
_STEP = 0.125


class Trace(Observer):
    """What the latest tasks of an executor did; made by `BoundedExecutor.record`.

    It goes on until `stop`, and as a context manager until the block is left. `save` may be called
    meanwhile, and more than once.

    Thread safety: any thread. Memory: some 300 bytes for each of at most three events a task.
    """

    __module__ = "futurepool"

    def __init__(self, pool: Any, limit: int) -> None:
        self._pool: Any = weakref.ref(pool)
        self._name: str = pool.name
        self._events: deque[TaskEvent] = deque(maxlen=3 * limit)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def __len__(self) -> int:
        """How many events there are."""
        return len(self._events)

    def submitted(self, event: TaskEvent) -> None:
        """Keep it."""
        self._events.append(event)

    def started(self, event: TaskEvent) -> None:
        """Keep it."""
        self._events.append(event)

    def finished(self, event: TaskEvent) -> None:
        """Keep it."""
        self._events.append(event)

    def refused(self, event: TaskEvent) -> None:
        """Keep it."""
        self._events.append(event)

    def stop(self) -> None:
        """Record no more."""
        pool = self._pool()
        if pool is not None:
            pool.unobserve(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all that is recorded to a file, as JSON.

        Raises:
            OSError: It cannot be written.
        """
        pool = self._pool()
        if pool is not None:
            pool.settle_observers()
        with open(path, "w", encoding="utf-8") as file:  # noqa: PTH123 - takes what open() takes
            json.dump({"traceEvents": list(self._rows()), "displayTimeUnit": "ms"}, file)

    def _rows(self) -> Iterator[dict[str, Any]]:
        """The trace events, in the order of their times."""
        events = sorted(_sync.contents(self._events), key=lambda event: event.time)
        base = {"pid": os.getpid()}
        began = min([event.time - (event.ran or 0.0) for event in events], default=0.0)
        yield base | _meta("process_name", 0, f"pool {self._name}")
        yield base | _meta("thread_name", _SUBMITS, "submissions")
        rows: dict[str, _Row] = {}
        submissions = _submissions(events, began)
        queued, running = _at_the_start(events)
        arrows: set[int] = set()
        runs: dict[int, TaskEvent] = {}
        for event in events:
            stamp = base | {"ts": _microseconds(event.time - began)}
            if event.worker is not None and event.worker not in rows:
                row = rows[event.worker] = _Row(len(rows) + 1 + _SUBMITS)
                yield base | _meta("thread_name", row.number, event.worker)
            about: dict[str, Any] = {"task_id": event.task_id, "priority": event.priority}
            if event.kind in ("submitted", "refused"):
                if event.kind == "refused":
                    about["refused"] = event.outcome
                start, seconds = next(submissions)
                bar = {"ph": "X", "dur": seconds, "tid": _SUBMITS, "cat": event.kind}
                yield base | {"ts": start} | bar | {"name": event.name, "args": about}
                if event.kind == "submitted":
                    arrows.add(event.task_id)
                    yield base | {"ts": start} | _arrow("s", _SUBMITS, event)
                    queued += 1
            elif event.kind == "started":
                queued, running = queued - 1, running + 1
                runs[event.task_id] = event
            elif event.kind == "finished" and event.worker is None:
                queued -= 1
                mark = {"ph": "i", "s": "t", "tid": _SUBMITS, "cat": event.outcome}
                yield stamp | mark | {"name": f"{event.name} {event.outcome}", "args": about}
            elif event.kind == "finished":
                running -= 1
                runs.pop(event.task_id, None)
                row, end = rows[event.worker or ""], _microseconds(event.time - began)
                start = row.place(_microseconds(event.time - (event.ran or 0.0) - began), end)
                about |= {"outcome": event.outcome, "waited_ms": 1e3 * (event.waited or 0.0)}
                if event.error is not None:
                    about["error"] = event.error
                yield base | {
                    "ph": "X",
                    "ts": start,
                    "dur": end - start,
                    "tid": row.number,
                    "cat": event.outcome,
                    "name": event.name,
                    "args": about,
                }
                if event.task_id in arrows:
                    yield base | {"ts": start, "bp": "e"} | _arrow("f", row.number, event)
            counts = {"queued": max(0, queued), "running": max(0, running)}
            yield stamp | {"ph": "C", "name": "tasks", "tid": 0, "args": counts}
        for event in runs.values():  # still
            row, start = rows[event.worker or ""], _microseconds(event.time - began)
            yield base | {
                "ph": "B",
                "ts": row.place(start, inf),
                "tid": row.number,
                "name": event.name,
                "args": {"task_id": event.task_id},
            }


class _Row:
    """The bars of a worker. They come in the order of their ends."""

    def __init__(self, number: int) -> None:
        self.number = number
        self._bars: list[tuple[float, float]] = []  # those that lie in no other

    def place(self, start: float, end: float) -> float:
        """Take in a bar; when it is to begin, which is no earlier than `start`."""
        bars = self._bars
        while bars and bars[-1][0] > start:  # a worker that waits for a task may run it
            bars.pop()
        if bars:
            start = min(end, max(start, bars[-1][1]))
        bars.append((start, end))
        return start


def _submissions(events: list[TaskEvent], began: float) -> Iterator[tuple[float, float]]:
    """When each of them is shown, and for how long: a microsecond, or until the next. In microseconds."""
    starts: list[float] = []
    for event in events:
        if event.kind in ("submitted", "refused"):
            start = _microseconds(event.time - began)
            starts.append(max(start, starts[-1] + _STEP) if starts else start)
    for start, following in pairwise([*starts, inf]):
        yield start, min(1.0, following - start)


def _microseconds(seconds: float) -> float:
    return round(max(0.0, 1e6 * seconds) / _STEP) * _STEP


def _meta(what: str, row: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": what, "tid": row, "args": {"name": name}}


def _arrow(end: str, row: int, event: TaskEvent) -> dict[str, Any]:
    return {"ph": end, "name": "start", "cat": "start", "id": event.task_id, "tid": row}


def _at_the_start(events: list[TaskEvent]) -> tuple[int, int]:
    """How many were queued, and ran, before the first of these events."""
    seen: set[int] = set()
    queued = running = 0
    for event in events:
        if event.kind == "refused" or event.task_id in seen:
            continue
        seen.add(event.task_id)
        queued += event.kind == "started" or (event.kind == "finished" and event.worker is None)
        running += event.kind == "finished" and event.worker is not None
    return queued, running


_sync.import_now(__name__)
