"""Run probes, each in a process of its own."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import futurepool
from tests.faults import watchdog
from tests.faults.probes import PROBES
from tests.faults.tools import NotApplicableError, Subject, in_words

TOP = Path(__file__).parent.parent.parent
TITLES = {True: "BoundedExecutor", False: "ThreadPoolExecutor"}


def run(
    name: str, bounded: bool = True, full: bool = False, limit: float = 60.0
) -> tuple[str, str]:
    """Run one probe; (`ok`, notes), (`-`, why not), (`hangs`, where) or (what it raised, all)."""
    command = [sys.executable, "-X", "faulthandler", "-m", "tests.faults", "--run", name]
    command += ["--limit", str(limit), "--executor", "bounded" if bounded else "std"]
    command += ["--full"] * full
    # Without coverage: it is a tracer, and so are some probes; and under a tracer CPython 3.11 spins
    # for ever where an asynchronous exception is to be raised.
    env = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE_")}
    env["PYTHONPATH"] = os.pathsep.join([str(TOP), *sys.path])
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
    if watchdog.barked(done.stderr):
        return "hangs", done.stderr
    if done.returncode == 0:
        word, _, notes = done.stdout.strip().partition(" ")
        return word, notes
    if done.returncode < 0:
        return f"dies of signal {-done.returncode}", done.stderr
    lines = [line for line in done.stderr.splitlines() if line and not line.startswith(" ")]
    return (lines[-1] if lines else f"exit status {done.returncode}"), done.stderr


def run_here(name: str, bounded: bool, full: bool, limit: float) -> None:
    """Run one probe in this process, and end the process."""
    subject = Subject(bounded=bounded, full=full)
    with watchdog.Watchdog(limit):
        try:
            PROBES[name](subject)
            print("ok", "; ".join(subject.notes))
        except NotApplicableError as reason:
            print("-", reason)
        except BaseException as error:
            # Written here, and the process ended: threads that hang must not hide the error.
            sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
            print(in_words(error), file=sys.stderr)
            sys.stderr.flush()
            os._exit(1)
        sys.stdout.flush()
        os._exit(0)


def cell(text: str) -> str:
    """A text as it is, in a table."""
    return text.replace("|", "\\|").replace("<", "&lt;")


def around(page: Path) -> tuple[str, str]:
    """The text of a page before and after the place for what this minor version finds."""
    begin = "<!-- scorecard {}.{} -->\n".format(*sys.version_info[:2])
    end = "<!-- end of scorecard -->"
    before, found, rest = page.read_text("utf-8").partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise SystemExit(f"{page} has no lines {begin.strip()} and {end}")
    return before + begin, end + after


def write(page: Path, lines: list[str], full: bool) -> None:
    """Put what was found into its place."""
    before, after = around(page)
    how = "every probe in full" if full else "a sample of the exhaustive probes"
    head = f"CPython {sys.version.split()[0]}, futurepool {futurepool.__version__}, {how}."
    page.write_text("\n".join([before + head, "", *lines, after]), "utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("names", nargs="*", help="probes to run; all of them if none is named")
    parser.add_argument("--executor", choices=["bounded", "std", "both"], default="bounded")
    parser.add_argument("--full", action="store_true", help="the exhaustive ones exhaustively")
    parser.add_argument("--markdown", action="store_true", help="print a table for a page")
    parser.add_argument("--page", type=Path, help="write that table between the marks of a page")
    parser.add_argument("--limit", type=float, default=None, help="seconds for each probe")
    parser.add_argument("--jobs", type=int, default=2, help="probes at a time")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    options = parser.parse_args()
    limit = options.limit or (1500.0 if options.full else 90.0)
    if options.run:
        run_here(options.run, options.executor == "bounded", options.full, limit)
    names = options.names or list(PROBES)
    if options.page:
        options.executor, options.markdown = "both", True
        around(options.page)  # which fails at once, if it does
    sides = {"bounded": [True], "std": [False], "both": [False, True]}[options.executor]
    failed = 0
    table: list[str] = []

    def tell(line: str) -> None:
        table.append(line)
        print(line, flush=True)

    if options.markdown:
        tell("| what happens |" + "".join(f" {TITLES[side]} |" for side in sides))
        tell("|---|" + "---|" * len(sides))
    with ThreadPoolExecutor(options.jobs) as pool:

        def outcome(name: str, side: bool) -> tuple[str, str, float]:
            began = time.monotonic()
            # The other one gets the sample only: what hangs for so long hangs for ever.
            word, text = run(name, side, options.full and side, limit if side else 30.0)
            return word, text, time.monotonic() - began

        jobs: dict[tuple[str, bool], Future[tuple[str, str, float]]] = {
            (name, side): pool.submit(outcome, name, side) for name in names for side in sides
        }
        for name in names:
            row = {side: jobs[name, side].result() for side in sides}
            failed += True in row and row[True][0] not in ("ok", "-")
            if options.markdown:
                title = (PROBES[name].__doc__ or name).strip().splitlines()[0]
                words = "".join(f" {cell(word)} |" for word, _, _ in row.values())
                tell(f"| {cell(title)} |{words}")
                continue
            for side, (word, text, seconds) in row.items():
                print(f"{name:30} {TITLES[side]:18} {seconds:6.1f} s  {word}", flush=True)
                if word in ("ok", "-"):
                    print(f"    {text}\n" * bool(text), end="", flush=True)
                elif side:
                    print(f"\n{text[-3000:]}", flush=True)
    if options.page:
        write(options.page, table, options.full)
    print(f"\nPython {sys.version.split()[0]}: {len(names)} probes, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
