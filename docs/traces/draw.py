"""Makes the pictures of traces: runs each scene, records it, and draws what `Trace.save` has written.

    python docs/traces/draw.py [FOLDER]       the default is this folder

A scene is a small program whose tasks sleep, so its picture hardly differs from one run to the next.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from futurepool import BoundedExecutor, Priority, Trace, current_token

LEFT, RIGHT, ROW, TOP = 110, 36, 26, 34  # in the picture's units
WIDTH, TICKS, CHART = 760, 8, 70
BLINK = 1000  # microseconds
COLOURS = {"urgent": "#d1495b", "batch": "#30638e", "task": "#30638e", "failed": "#6b2737"}
TEXT = "#57606a"


def work(milliseconds: float) -> None:
    """Take so long."""
    time.sleep(milliseconds / 1000)


def recorded(pool: BoundedExecutor) -> Trace:
    """A recording, once all workers are there."""
    pool.prestart()
    return pool.record()


def priorities() -> Trace:
    """A batch of low priority; three urgent tasks come while it runs."""
    with BoundedExecutor(2, queue_size=20, name="pool") as pool, recorded(pool) as trace:
        batch = pool.options(priority=Priority.LOW)
        for number in range(8):
            batch.options(name=f"batch {number}").submit(work, 40)
        work(60)
        for number in range(3):
            pool.options(name=f"urgent {number}", priority=Priority.HIGH).submit(work, 20)
        pool.wait()
    return trace


def blocked_submitter() -> Trace:
    """Two workers, two places to wait: from the fifth task on, submit waits for a place."""
    with BoundedExecutor(2, queue_size=2, name="pool") as pool, recorded(pool) as trace:
        for number in range(9):
            pool.options(name=f"task {number}").submit(work, 40 + 10 * (number % 2))
        pool.wait()
    return trace


def fail() -> None:
    """After a while."""
    work(70)
    raise ValueError("no")


def until_told() -> None:
    """Work for as long as nobody says that it is enough."""
    current_token().wait(10)


def cancelled_group() -> Trace:
    """One task of a group fails: what waits is cancelled, what runs is told."""
    with BoundedExecutor(3, name="pool") as pool, recorded(pool) as trace:
        with contextlib.suppress(Exception), pool.group() as group:  # the ExceptionGroup
            group.options(name="task 0").submit(until_told)
            group.options(name="task 1").submit(work, 40)
            group.options(name="failed").submit(fail)
            for number in range(2, 7):
                group.options(name=f"task {number}").submit(until_told)
        pool.wait()
    return trace


SCENES: dict[str, Callable[[], Trace]] = {
    "priorities": priorities,
    "blocked-submitter": blocked_submitter,
    "cancelled-group": cancelled_group,
}


def draw(title: str, events: list[dict[str, Any]]) -> str:
    """The picture, as SVG: a row for submissions, one for each worker, and what waits below."""
    rows = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    rows = dict(sorted(rows.items(), key=lambda row: (row[1] != "submissions", row[1])))
    places = {tid: TOP + ROW * number for number, tid in enumerate(rows)}
    bars = [e for e in events if e["ph"] == "X" and rows[e["tid"]] != "submissions"]
    marks = [e for e in events if e["ph"] in "iX" and rows.get(e["tid"]) == "submissions"]
    counts = [(e["ts"], e["args"]["queued"]) for e in events if e["ph"] == "C"]
    # A task that is taken at once is no task that waits.
    counts = [
        count
        for count, after in itertools.pairwise([*counts, (inf, 0)])
        if after[0] - count[0] > BLINK
    ]
    end = max(e["ts"] + e.get("dur", 0) for e in events if "ts" in e)
    scale = (WIDTH - LEFT - RIGHT) / end
    chart = TOP + ROW * len(rows) + 24
    height = chart + CHART + 44

    def at(time: float) -> float:
        return round(LEFT + time * scale, 1)

    parts = [f'<text x="{LEFT}" y="20" font-weight="bold">{escape(title)}</text>']
    for tid, name in rows.items():
        y = places[tid]
        parts.append(f'<text x="{LEFT - 8}" y="{y + 15}" text-anchor="end">{escape(name)}</text>')
        parts.append(f'<path d="M{LEFT} {y + ROW - 2}H{WIDTH - RIGHT}" stroke="#d0d7de"/>')
    for event in marks:
        x, y = at(event["ts"]), places[event["tid"]]
        told = escape(event["name"])
        if event["ph"] == "i":
            cross = f"M{x - 4} {y + 6}l8 12m0 -12l-8 12"
            parts.append(f'<path d="{cross}" stroke="#d1495b"><title>{told}</title></path>')
        else:
            parts.append(
                f'<path d="M{x} {y + 4}v18" stroke="{colour(event)}" stroke-width="2">'
                f"<title>{told} is submitted</title></path>"
            )
    gone = [event for event in marks if event["ph"] == "i"]
    if gone:
        x, y = at(gone[0]["ts"]) - 8, places[gone[0]["tid"]] + 16
        parts.append(f'<text x="{x}" y="{y}" text-anchor="end">{len(gone)} cancelled</text>')
    for event in bars:
        x, width = at(event["ts"]), round(event["dur"] * scale, 1)
        y, name = places[event["tid"]], escape(event["name"])
        waited = event["args"]["waited_ms"]
        parts.append(
            f'<rect x="{x}" y="{y + 2}" width="{width}" height="{ROW - 6}" rx="2" fill="{colour(event)}">'
            f"<title>{name}: waited {waited:.0f} ms, ran {event['dur'] / 1000:.0f} ms</title></rect>"
        )
        if width > 6.5 * len(name):
            parts.append(
                f'<text x="{x + width / 2:.1f}" y="{y + 16}" text-anchor="middle" fill="white">{name}</text>'
            )
    most = max([queued for _, queued in counts] + [1])
    line, level = f"M{LEFT} {chart + CHART}", 0
    for stamp, queued in counts:
        line += f"H{at(stamp)}V{round(chart + CHART - queued * CHART / most, 1)}"
        level = queued
    line += f"H{at(end)}" + (f"V{chart + CHART}" if level else "")
    parts.append(f'<path d="{line}Z" fill="#8d96a0" fill-opacity="0.35" stroke="#8d96a0"/>')
    parts.append(f'<text x="{LEFT - 8}" y="{chart + 12}" text-anchor="end">{most} wait</text>')
    parts.append(f'<text x="{LEFT - 8}" y="{chart + CHART}" text-anchor="end">0</text>')
    step = next(step for step in (5, 10, 20, 25, 50, 100, 250, 1000) if end / 1e3 / step < TICKS)
    for number in range(int(end / 1e3 / step) + 1):
        x = at(1e3 * step * number)
        parts.append(f'<path d="M{x} {chart + CHART}v5" stroke="{TEXT}"/>')
        unit = " ms" if number else ""
        parts.append(
            f'<text x="{x}" y="{chart + CHART + 20}" text-anchor="middle">{step * number}{unit}</text>'
        )
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" font-family="sans-serif" font-size="11" fill="{TEXT}">\n{body}\n</svg>\n'
    )


def colour(event: dict[str, Any]) -> str:
    """By the first word of the task's name."""
    return COLOURS[event["name"].split()[0]]


def main(folder: Path) -> None:
    """Make all of them."""
    with tempfile.TemporaryDirectory() as place:
        for name, scene in SCENES.items():
            path = Path(place, name)
            scene().save(path)
            events = json.loads(path.read_text("utf-8"))["traceEvents"]
            title = (scene.__doc__ or "").strip()
            (folder / f"{name}.svg").write_text(draw(title, events), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
