"""`record()`: what it writes is what the trace event format asks for, and what has happened."""

from __future__ import annotations

import gc
import itertools
import json
import os
import threading
import weakref
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from futurepool import BoundedExecutor, InvalidConfigError, QueueFullError, TaskEvent, Trace
from tests.helpers import hold

#: What each phase must have, by https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
NEEDED = {
    "M": {"name", "pid", "tid", "args"},
    "X": {"name", "cat", "ts", "dur", "pid", "tid", "args"},
    "B": {"name", "ts", "pid", "tid", "args"},
    "i": {"name", "cat", "ts", "s", "pid", "tid", "args"},
    "C": {"name", "ts", "pid", "tid", "args"},
    "s": {"name", "cat", "id", "ts", "pid", "tid"},
    "f": {"name", "cat", "id", "ts", "bp", "pid", "tid"},
}


def saved(trace: Trace, folder: Path) -> list[dict[str, Any]]:
    """The events, after a look at their form."""
    path = folder / "out.json"
    trace.save(path)
    whole = json.loads(path.read_text("utf-8"))
    assert set(whole) == {"traceEvents", "displayTimeUnit"}
    events: list[dict[str, Any]] = whole["traceEvents"]
    for event in events:
        assert set(event) == NEEDED[event["ph"]] | {"ph"}
        assert event["pid"] == os.getpid()
        assert event.get("ts", 0) >= 0
        assert event.get("dur", 0) >= 0
    return events


def rows(events: list[dict[str, Any]]) -> dict[int, str]:
    return {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}


def test_a_recording(tmp_path: Path, gate: threading.Event) -> None:
    """A bar for each task in its worker's row, an arrow to it, counters; what was cancelled or refused."""
    with BoundedExecutor(1, queue_size=3, name="db", error_handler=id) as pool:
        with pool.record() as trace:
            hold(pool.options(name="hold"), gate)
            pool.options(name="low", priority=0).submit(int)
            pool.options(name="high", priority=2).submit(int, "x")
            pool.options(name="gone").submit(int).cancel()
            pool.options(name="last").submit(int)
            with pytest.raises(QueueFullError):
                pool.options(name="refused").try_submit(int)
            gate.set()
            pool.wait()
        pool.options(name="later").submit(int).result()
    events = saved(trace, tmp_path)
    names = rows(events)
    assert list(names.values()) == ["submissions", "db_0"]
    bars = [e for e in events if e["ph"] == "X" and names[e["tid"]] == "db_0"]
    assert [(e["name"], e["cat"]) for e in bars] == [
        ("hold", "success"),
        ("high", "error"),
        ("last", "success"),
        ("low", "success"),
    ]
    assert bars[1]["args"]["error"] == "ValueError"
    assert [e["args"]["priority"] for e in bars] == [1, 2, 1, 0]
    for one, other in itertools.pairwise(bars):
        assert one["ts"] + one["dur"] <= other["ts"]
    submits = [e for e in events if e["ph"] == "X" and names[e["tid"]] == "submissions"]
    assert [e["name"] for e in submits] == ["hold", "low", "high", "gone", "last", "refused"]
    assert submits[-1]["args"]["refused"] == "full"
    assert [e["name"] for e in events if e["ph"] == "i"] == ["gone cancelled"]
    starts = {e["id"]: e for e in events if e["ph"] == "s"}
    ends = {e["id"]: e for e in events if e["ph"] == "f"}
    assert set(starts) == {1, 2, 3, 4, 5}
    assert set(ends) == {1, 2, 3, 5}
    for bar in bars:
        number = bar["args"]["task_id"]
        assert (ends[number]["ts"], ends[number]["tid"]) == (bar["ts"], bar["tid"])
        assert any(e["ts"] == starts[number]["ts"] and e["name"] == bar["name"] for e in submits)
    counts = [(e["args"]["queued"], e["args"]["running"]) for e in events if e["ph"] == "C"]
    assert max(counts) == (3, 1)
    assert counts[-1] == (0, 0)


def left_out(events: list[dict[str, Any]]) -> list[str]:
    """What Perfetto would not show: its importer keeps a stack of bars for each row, in nanoseconds."""
    found: list[str] = []
    stacks: dict[int, list[tuple[int, int]]] = {}
    bars = [event for event in events if event["ph"] == "X"]
    for event in sorted(bars, key=lambda event: event["ts"]):
        start, length = int(1000 * event["ts"]), int(1000 * event["dur"])
        stack = stacks.setdefault(event["tid"], [])
        while stack and stack[-1][1] <= start:
            stack.pop()
        if stack and start + length > stack[-1][1]:
            found.append(f"{event['name']} at {event['ts']}")
        else:
            stack.append((start, start + length))
    return found


def test_bars_do_not_overlap(tmp_path: Path) -> None:
    """Neither of short tasks nor of submissions, nor one in a task that waits for it."""
    with BoundedExecutor(1) as pool:
        with pool.record() as trace:
            for _ in pool.map(int, range(500)):
                pass
            pool.submit(lambda: [pool.submit(int).result() for _ in range(20)]).result()
            pool.wait()
        events = saved(trace, tmp_path)
    assert left_out(events) == []
    bars = [event for event in events if event["ph"] == "X"]
    assert len(bars) == 2 * 521
    submits = [event for event in bars if event["tid"] == 1]
    assert min(event["dur"] for event in submits) > 0
    assert len({event["ts"] for event in submits}) == 521
    (outer,) = [event for event in bars if "lambda" in event["name"] and event["tid"] != 1]
    inner = [event for event in bars if event["tid"] == outer["tid"] and event["ts"] > outer["ts"]]
    assert len(inner) == 20
    assert max(e["ts"] + e["dur"] for e in inner) <= outer["ts"] + outer["dur"]


def test_bars_of_tasks_shorter_than_the_clock_is_exact(tmp_path: Path) -> None:
    """Back to back, some of no time at all, by a clock in steps of a quarter of a microsecond."""
    with BoundedExecutor(1) as pool:
        trace = pool.record()
        trace.stop()
    now = 1_764_316_800.0
    for number in range(1, 400):
        ran = number % 7 * 1.1e-7
        now += ran
        about = (number, "f", 1, now, "w_0", 0.0, ran, "success", None)
        trace.finished(TaskEvent("finished", "pool", *about))
    events = saved(trace, tmp_path)
    assert left_out(events) == []
    assert len([event for event in events if event["ph"] == "X"]) == 399


def test_while_it_goes_on(tmp_path: Path, gate: threading.Event) -> None:
    """What runs has begun; what ran when it began is counted from the start."""
    with BoundedExecutor(1) as pool:
        hold(pool.options(name="before"), gate)
        pool.submit(int)
        trace = pool.record()
        gate.set()
        pool.wait()
        again = threading.Event()
        hold(pool.options(name="still"), again)
        events = saved(trace, tmp_path)
        assert [e["name"] for e in events if e["ph"] == "B"] == ["still"]
        counts = [(e["args"]["queued"], e["args"]["running"]) for e in events if e["ph"] == "C"]
        assert counts[0] == (1, 0)
        assert counts[-1] == (0, 1)
        again.set()


def test_the_latest_are_kept(tmp_path: Path) -> None:
    """Of so many tasks; fewer than one is refused."""
    with BoundedExecutor(1) as pool:
        trace = pool.record(limit=5)
        for _ in range(50):
            pool.submit(int).result()
    assert len(trace) == 15
    bars = Counter(e["ph"] for e in saved(trace, tmp_path))
    assert 4 <= bars["X"] <= 10
    with BoundedExecutor(1) as pool, pytest.raises(InvalidConfigError, match="limit"):
        pool.record(limit=0)


def test_it_keeps_no_pool_alive(tmp_path: Path) -> None:
    """And can be saved and stopped when that has gone."""
    pool = BoundedExecutor(1, name="gone")
    trace = pool.record()
    pool.submit(int).result()
    pool.shutdown()
    watched = weakref.ref(pool)
    del pool
    gc.collect()
    assert watched() is None
    trace.stop()
    assert [e["name"] for e in saved(trace, tmp_path) if e["ph"] == "X"] == ["int", "int"]
