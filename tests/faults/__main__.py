"""Run probes, each in a process of its own."""

from __future__ import annotations

import argparse
import faulthandler
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.faults.probes import PROBES
from tests.faults.tools import Subject

TOP = Path(__file__).parent.parent.parent


def run(
    name: str, bounded: bool = True, full: bool = False, limit: float = 60.0
) -> tuple[str, str]:
    """Run one probe; (`ok`, notes), (`hangs`, where), or (what went wrong, all of it)."""
    command = [sys.executable, "-X", "faulthandler", "-m", "tests.faults", "--run", name]
    command += ["--limit", str(limit)] + ["--std"] * (not bounded) + ["--full"] * full
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TOP), *sys.path])}
    if name.startswith("async_exception"):
        # Under a tracer CPython 3.11 spins for ever where such an exception is to be raised.
        env = {key: value for key, value in env.items() if not key.startswith("COVERAGE_")}
    try:
        done = subprocess.run(
            command,
            cwd=TOP,
            env=env,
            capture_output=True,
            text=True,
            timeout=limit + 20,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "hangs", "even the watchdog"
    if done.returncode == 0:
        return "ok", done.stdout.strip()
    if "Timeout (" in done.stderr:
        return "hangs", done.stderr
    lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
    return (lines[-1][:100] if lines else f"exit status {done.returncode}"), done.stderr


def run_here(name: str, bounded: bool, full: bool, limit: float) -> None:
    faulthandler.dump_traceback_later(limit, exit=True)
    subject = Subject(bounded=bounded, full=full)
    PROBES[name](subject)
    print("; ".join(subject.notes), flush=True)
    faulthandler.cancel_dump_traceback_later()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("names", nargs="*", help="probes to run; all of them if none is named")
    parser.add_argument("--full", action="store_true", help="the exhaustive ones exhaustively")
    parser.add_argument("--std", action="store_true", help="against ThreadPoolExecutor")
    parser.add_argument("--both", action="store_true", help="against both")
    parser.add_argument("--markdown", action="store_true", help="print a table for a page")
    parser.add_argument("--limit", type=float, default=None, help="seconds for each probe")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    options = parser.parse_args()
    limit = options.limit or (1500.0 if options.full else 60.0)
    if options.run:
        run_here(options.run, not options.std, options.full, limit)
        return 0
    names = options.names or list(PROBES)
    sides = [True, False] if options.both else [not options.std]
    failed = 0
    if options.markdown:
        print("| what happens |" + "".join(f" {_title(side)} |" for side in sides))
        print("|---|" + "---|" * len(sides))
    with ThreadPoolExecutor(2) as pool:

        def outcome(name: str, side: bool) -> tuple[str, str, float]:
            began = time.monotonic()
            # What hangs for long enough hangs for ever.
            word, text = run(name, side, options.full and side, limit if side else 20.0)
            return word, text, time.monotonic() - began

        jobs = {(n, side): pool.submit(outcome, n, side) for n in names for side in sides}
        for name in names:
            row = [jobs[name, side].result() for side in sides]
            failed += any(
                word != "ok" for (word, _, _), side in zip(row, sides, strict=True) if side
            )
            title = (PROBES[name].__doc__ or name).strip().splitlines()[0].rstrip(".")
            if options.markdown:
                print(f"| {title} |" + "".join(f" {word} |" for word, _, _ in row), flush=True)
                continue
            for (word, text, seconds), side in zip(row, sides, strict=True):
                print(f"{name:28} {_title(side):20} {word:20} {seconds:6.1f} s  ", end="")
                print(text if word == "ok" else "\n" + text[-3000:], flush=True)
    print(f"\nPython {sys.version.split()[0]}: {len(names)} probes, {failed} failed")
    return int(failed > 0)


def _title(bounded: bool) -> str:
    return "BoundedExecutor" if bounded else "ThreadPoolExecutor"


if __name__ == "__main__":
    sys.exit(main())
