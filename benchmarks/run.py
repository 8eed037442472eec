"""Measure futurepool beside its rivals: `python benchmarks/run.py`.

Every contestant of a case has a process of its own. Repetition by repetition each of them, in turn,
takes one sample while the others sleep; so whatever else the machine does meets all of them alike,
and a ratio is the median over repetitions of the two samples taken one after the other. A few cases
have several samples in a repetition.

    python benchmarks/run.py                                this interpreter, about four minutes
    python benchmarks/run.py --mode full                    longer, a fresh process for each sample
    python benchmarks/run.py --python A --python B --json results.json
    python benchmarks/report.py results.json                tables and plots for docs/

Each interpreter must be able to import futurepool; rivals it lacks are left out and named.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cases

PATIENCE = 300.0  # seconds until a contestant counts as stuck
IMPORT_PATIENCE = 60.0  # the same for the import of a library
STUCK = "stuck"
SCRIPT = str(Path(__file__).with_name("cases.py"))


class Failed(Exception):  # noqa: N818 - an outcome
    """A contestant ended, or stood still."""


def ending(code: int | None) -> str:
    """How a process ended."""
    if code is None or code >= 0:
        return f"exit status {code}"
    with contextlib.suppress(ValueError):
        return f"signal {signal.Signals(-code).name}"
    return f"signal {-code}"


class Child:
    """A contestant's process."""

    def __init__(
        self, python: str, case: str, name: str, mode: str, environment: Mapping[str, str]
    ) -> None:
        self._process = subprocess.Popen(
            [python, SCRIPT, "serve", case, name, mode],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env={**os.environ, **environment},
        )
        self._errors = ""
        self._reader = threading.Thread(target=self._read_errors, daemon=True)
        self._reader.start()
        try:
            self.gil: bool = self._answer()["gil"]
        except BaseException:
            self.close()
            raise

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._errors = (self._errors + line)[-4000:]

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        timer = threading.Timer(PATIENCE, self._process.kill)
        timer.daemon = True
        timer.start()
        line = self._process.stdout.readline()
        stuck = not timer.is_alive()
        timer.cancel()
        if not line:
            self.close()
            if stuck:
                raise Failed(STUCK)
            last = self._errors.strip().rpartition("\n")[2]
            how = ending(self._process.returncode)
            raise Failed(f"{last} ({how})" if last else how)
        return json.loads(line)

    def sample(self) -> float:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # the answer tells
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        value: float = self._answer()
        return value

    def close(self) -> None:
        with contextlib.suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(5)
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()


def speedup(case: cases.Case, value: float, base: float) -> float:
    """How many times better `value` is than `base`."""
    return value / base if case.rate else base / value


def measure(
    python: str, case: cases.Case, names: list[str], mode: str, repetitions: int
) -> dict[str, Any]:
    """All samples of one case."""
    size = cases.SIZES[mode]
    samples: dict[str, list[float]] = {name: [] for name in names}
    failed: dict[str, str] = {}
    gil: dict[str, bool] = {}
    children: dict[str, Child] = {}
    environments = {one.name: one.rival.environment for one in case.contestants}
    try:
        for turn in range(repetitions * case.turns if names else 0):
            # Who goes before one leaves the machine in another state, so it is not always the same.
            for name in random.Random(turn).sample(names, len(names)):
                if name in failed:
                    continue
                try:
                    if name not in children:
                        children[name] = Child(python, case.key, name, mode, environments[name])
                        gil[name] = children[name].gil
                    samples[name].append(children[name].sample())
                    # How memory is laid out is a process's luck: some per cent of a round trip.
                    last = turn % case.turns == case.turns - 1
                    if last and (size.restart or case.turns > 1):
                        children.pop(name).close()
                except Failed as error:
                    failed[name] = str(error)
                    children.pop(name, None)
    finally:
        for child in children.values():
            child.close()
    done = {name: values for name, values in samples.items() if name not in failed}
    base = None if case.baseline is None else done.get(case.baseline)
    return {
        "samples": done,
        "medians": {name: statistics.median(values) for name, values in done.items()},
        "ratios": {
            name: statistics.median(
                speedup(case, value, other) for value, other in zip(values, base, strict=True)
            )
            for name, values in done.items()
        }
        if base
        else {},
        "failed": failed,
        "gil": gil,
    }


def verdict(
    case: cases.Case, about: dict[str, Any], result: dict[str, Any]
) -> dict[str, Any] | None:
    """The floor beside what was measured; None where there is no floor or no figure."""
    floors = case.floors if case.compiled is None or about["form"] != "compiled" else case.compiled
    floor = floors.get(about["tag"])
    if floor is None or case.subject not in result["medians"]:
        return None
    if case.floor == "value at most":
        measured = result["medians"][case.subject]
    elif case.subject not in result["ratios"]:
        return None
    elif case.floor == "slowdown at most":
        measured = 1 / result["ratios"][case.subject]
    else:
        measured = result["ratios"][case.subject]
    met = measured >= floor if case.floor == "ratio at least" else measured <= floor
    return {"floor": floor, "kind": case.floor, "measured": measured, "met": met}


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def show(case: cases.Case, result: dict[str, Any], judged: bool) -> None:
    """Print one case."""
    print(f"\n{case.title} ({case.unit})")
    width = max(map(len, [*result["medians"], *result["failed"]]))
    best = sorted(result["medians"], key=result["medians"].__getitem__, reverse=case.rate)
    for name in best:
        ratio = result["ratios"].get(name)
        against = "" if ratio is None else f"   x{ratio:.2f}"
        gil = "" if result["gil"].get(name, True) == result["gil_expected"] else "   (with the GIL)"
        print(f"  {name:<{width}}  {number(result['medians'][name]):>12}{against}{gil}")
    for name, reason in result["failed"].items():
        print(f"  {name:<{width}}  failed: {reason}")
    floor = result["floor"]
    if floor is not None and judged:
        word = "met" if floor["met"] else "NOT MET"
        unit = f" {case.unit}" if floor["kind"].startswith("value") else ""
        print(
            f"  floor: {case.subject}, {floor['kind']} {floor['floor']:g}{unit}; "
            f"measured {number(floor['measured'])}{unit}: {word}"
        )


def ask(python: str, *words: str) -> Any:
    """The answer of a process of cases.py; Failed if there is none."""
    try:
        done = subprocess.run(
            [python, SCRIPT, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            timeout=IMPORT_PATIENCE,
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"no end after {IMPORT_PATIENCE:g} s") from None
    except OSError as error:
        raise Failed(str(error)) from None
    if done.returncode or not done.stdout:
        last = done.stderr.strip().rpartition("\n")[2]
        raise Failed(f"{last}, {ending(done.returncode)}" if last else ending(done.returncode))
    return json.loads(done.stdout)


def describe(python: str, rivals: list[str] | None) -> dict[str, Any]:
    """The interpreter, and which of the libraries asked for it has."""
    try:
        about: dict[str, Any] = ask(python, "describe")
    except Failed as error:
        raise SystemExit(f"{python} cannot run the cases: {error}") from None
    about["versions"], about["missing"] = {}, {}
    for one in cases.RIVALS:
        if rivals and one.name not in [*rivals, cases.STANDARD, cases.OURS]:
            continue
        try:
            found = ask(python, "look", one.name)
        except Failed as error:
            found = {"reason": f"cannot be imported ({error})"}
        if "version" in found:
            about["versions"][one.name] = found["version"]
        else:
            about["missing"][one.name] = found["reason"]
    return about


def run(python: str, args: argparse.Namespace, runs: list[dict[str, Any]]) -> None:
    """Everything on one interpreter, added to `runs` as it comes."""
    about = describe(python, args.rival)
    if cases.OURS in about["missing"]:
        raise SystemExit(
            f"{python}: futurepool {about['missing'][cases.OURS]}: install it there, or set PYTHONPATH"
        )
    machine = about["machine"]
    print(
        f"\n=== {about['implementation']} {about['python']}, {machine['cores']} cores, {machine['cpu']}"
    )
    print("  " + ", ".join(f"{name} {version}" for name, version in about["versions"].items()))
    for name, reason in about["missing"].items():
        print(f"  {name}: {reason}, left out")
    sys.stdout.flush()
    results: dict[str, Any] = {}
    runs.append({**about, "cases": results})
    hung: set[str] = set()  # libraries
    for case in cases.CASES:
        if args.case and case.key not in args.case:
            continue
        known = [*about["versions"], *(one.name for one in cases.EXTRAS)]
        library = {
            one.name: one.rival.name
            for one in case.contestants
            if one.rival.name in known
            and (not args.rival or one.rival.name in [*args.rival, cases.STANDARD, cases.OURS])
        }
        names = [name for name in library if library[name] not in hung]
        result = measure(python, case, names, args.mode, args.repetitions)
        hung |= {library[name] for name, reason in result["failed"].items() if reason == STUCK}
        for name in library.keys() - set(names):
            result["failed"][name] = "not tried, for it was stuck before"
        result["gil_expected"] = not about["tag"].endswith("t")
        result["floor"] = verdict(case, about, result)
        results[case.key] = result
        show(case, result, judged=args.mode != "smoke")
        sys.stdout.flush()


def summary(runs: list[dict[str, Any]]) -> None:
    """Print each floor beside what was measured, interpreters side by side."""
    print("\n=== floors: measured / wanted (! not met)")
    measured = [case for case in cases.CASES if any(case.key in one["cases"] for one in runs)]
    width = max(len(case.title) for case in measured)
    print(f"  {'':<{width}}" + "".join(f"{run['tag']:>18}" for run in runs))
    for case in measured:
        cells = []
        for one in runs:
            floor = one["cases"].get(case.key, {}).get("floor")
            cells.append(
                "-"
                if floor is None
                else f"{number(floor['measured'])} / {floor['floor']:g}{' ' if floor['met'] else '!'}"
            )
        print(f"  {case.title:<{width}}" + "".join(f"{cell:>18}" for cell in cells))


def commit() -> str | None:
    """What was checked out, with "-dirty" if it was changed; None outside of a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        asked = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    except OSError:
        return None
    return asked.stdout.strip() or None


def store(args: argparse.Namespace, runs: list[dict[str, Any]], seconds: float) -> None:
    """Write what report.py reads."""
    stored = {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": commit(),
        "mode": args.mode,
        "repetitions": args.repetitions,
        "size": vars(cases.SIZES[args.mode]),
        "seconds": round(seconds),
        "machine": runs[0]["machine"],
        "rivals": {rival.name: rival.note for rival in [*cases.RIVALS, *cases.EXTRAS]},
        "cases": [
            {
                "key": case.key,
                "title": case.title,
                "unit": case.unit,
                "how": case.how,
                "baseline": case.baseline,
                "subject": case.subject,
                "tasks": case.tasks(cases.SIZES[args.mode]),
                "turns": case.turns,
                "cannot": case.cannot,
            }
            for case in cases.CASES
            if case.key in runs[0]["cases"]
        ],
        "runs": runs,
    }
    args.json.write_text(json.dumps(stored, indent=1), encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--python", action="append", help="an interpreter to run; may be given several times")
    add("--mode", choices=cases.SIZES, default="quick", help="how much (%(default)s)")
    add("--smoke", dest="mode", action="store_const", const="smoke", help="only see that it works")
    add("--repetitions", type=int, help="samples of each contestant")
    add("--json", type=Path, help="where to store the results")
    add("--case", action="append", choices=[case.key for case in cases.CASES])
    add("--rival", action="append", choices=[rival.name for rival in cases.RIVALS])
    args = parser.parse_args()
    if args.repetitions is None:
        args.repetitions = cases.SIZES[args.mode].repetitions
    if args.repetitions < 1:
        parser.error("--repetitions must be at least 1")
    pythons = args.python or [sys.executable]
    for python in pythons:
        if shutil.which(python) is None:
            parser.error(f"--python: {python} is no program")
    if args.json is not None:
        try:
            args.json.parent.mkdir(parents=True, exist_ok=True)
            args.json.open("a").close()
        except OSError as error:
            parser.error(f"--json: cannot write there: {error}")
    began = time.perf_counter()
    runs: list[dict[str, Any]] = []
    interrupted = False
    try:
        for python in pythons:
            run(python, args, runs)
    except KeyboardInterrupt:
        interrupted = True
    runs = [one for one in runs if one["cases"]]
    if runs and args.mode != "smoke":
        summary(runs)
    seconds = time.perf_counter() - began
    print(f"\n{args.repetitions} repetitions, mode {args.mode}, {seconds:.0f} s")
    if runs and args.json is not None:
        store(args, runs, seconds)
    if interrupted:
        print("interrupted", file=sys.stderr)
        return 130
    # Rivals may fail; we and what we are compared with may not.
    bad = [
        case.key
        for one in runs
        for case in cases.CASES
        if {case.baseline, case.subject} & set(one["cases"].get(case.key, {}).get("failed", ()))
    ]
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
