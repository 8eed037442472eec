"""Resident memory over ten million tasks: `python benchmarks/memory.py`.

Two ways that must not grow, each in a process of its own: `map(..., buffersize=1000)`, and `submit`,
which blocks when the queue is full, with every result dropped. Prints the resident memory after the
first hundred thousand tasks and at each further tenth of the whole (each million, by default).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cases

from futurepool import BoundedExecutor

FIRST = 100_000
WAYS = {"map": "map(abs, range(n), buffersize=1000)", "submit": "submit(noop), results dropped"}


def resident() -> float:
    """This process's resident memory, in MiB."""
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    except OSError:  # macOS, BSD
        out = subprocess.run(
            ["ps", "-o", "rss=", "-p", str(os.getpid())], capture_output=True, text=True, check=True
        )
        return int(out.stdout) / 1024


def marks(items: int) -> list[int]:
    """Where to look."""
    return sorted({min(FIRST, max(1, items // 10)), *(items * i // 10 for i in range(1, 11))})


def run_map(pool: BoundedExecutor, items: int) -> Iterator[int]:
    """Yield after each mark."""
    results = pool.map(abs, range(items), buffersize=1000)
    done = 0
    for mark in marks(items):
        while done < mark:
            next(results)
            done += 1
        yield mark


def run_submit(pool: BoundedExecutor, items: int) -> Iterator[int]:
    """Yield after each mark."""
    submit, noop = pool.submit, cases.noop
    done = 0
    for mark in marks(items):
        for _ in range(mark - done):
            submit(noop)
        done = mark
        yield mark


def measure(way: str, items: int) -> list[tuple[int, float]]:
    """(tasks, MiB) at each mark, printed as it comes."""
    seen: list[tuple[int, float]] = []
    print(f"{WAYS[way]}, {items:,} tasks, 4 workers", flush=True)
    began = time.perf_counter()
    with BoundedExecutor(4) as pool:
        for mark in run_map(pool, items) if way == "map" else run_submit(pool, items):
            seen.append((mark, resident()))
            seconds = time.perf_counter() - began
            print(f"  {mark:>12,} tasks {seen[-1][1]:9.2f} MiB {seconds:8.1f} s", flush=True)
    grown = max(memory for _, memory in seen) - seen[0][1]
    print(f"  most after that: {grown:+.2f} MiB", flush=True)
    return seen


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--items", type=int, default=10_000_000, help="tasks (%(default)s)")
    parser.add_argument("--way", choices=WAYS, help="only this one, in this process")
    parser.add_argument("--json", type=Path, help="where to store the figures")
    args = parser.parse_args()
    if args.items < 1:
        parser.error("--items must be at least 1")
    if args.way is not None:
        seen = measure(args.way, args.items)
        if args.json is not None:
            args.json.write_text(json.dumps(seen), encoding="utf-8")
        return 0
    stored: dict[str, Any] = {
        **cases.describe(),
        "versions": {cases.OURS: cases.version(cases.rival(cases.OURS))},
        "items": args.items,
        "ways": {},
    }
    print(f"{stored['implementation']} {stored['python']}", flush=True)
    for way in WAYS:
        command = [sys.executable, __file__, "--way", way, "--items", str(args.items)]
        if args.json is not None:
            args.json.parent.mkdir(parents=True, exist_ok=True)
            command += ["--json", str(args.json)]
        subprocess.run(command, check=True)
        if args.json is not None:
            stored["ways"][way] = json.loads(args.json.read_text("utf-8"))
            args.json.write_text(json.dumps(stored, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
