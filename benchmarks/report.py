"""Write docs/benchmarks.md and its plots from stored results: `python benchmarks/report.py results.json`.

The plots have no background and mid-tone colours, so they can be read on a light and a dark page.
Without matplotlib the page has its tables only.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent.parent / "docs"
OURS, STANDARD = "futurepool", "ThreadPoolExecutor"
# Contrast of 3 and more with white as well as with #0d1117.
TIMES = "\N{MULTIPLICATION SIGN}"
GREY, COLOURS = "#808080", ["#c2701c", "#2f81c4", "#3a9a57"]
WORDS = {
    "ratio at least": "at least " + TIMES + "{:g}",
    "value at most": "at most {:g} {}",
    "slowdown at most": "at most {:g} times slower",
}


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table(rows: list[list[str]]) -> Iterator[str]:
    yield "| " + " | ".join(rows[0]) + " |"
    yield "|---" + "|---:" * (len(rows[0]) - 1) + "|"
    for row in rows[1:]:
        yield "| " + " | ".join(row) + " |"
    yield ""


def names_of(case: dict[str, Any], runs: list[dict[str, Any]]) -> list[str]:
    """The contestants of a case, the best on the first interpreter first."""
    names: dict[str, float] = {}
    more = case["unit"] == "tasks/s"
    for run in runs:
        for name, value in run["cases"].get(case["key"], {}).get("medians", {}).items():
            names.setdefault(name, value)
    return sorted(names, key=names.__getitem__, reverse=more)


def floor_rows(results: dict[str, Any]) -> list[list[str]]:
    """One row for each case with a floor; what is not met is said as plainly as what is."""
    runs = results["runs"]
    rows = [["", *(f"CPython {run['python']}" for run in runs)]]
    for case in results["cases"]:
        cells: list[str] = []
        for run in runs:
            floor = run["cases"].get(case["key"], {}).get("floor")
            if floor is None:
                cells.append("")
                continue
            measured = number(floor["measured"])
            if floor["kind"] == "ratio at least":
                measured = f"{TIMES}{measured}"
            elif floor["kind"] == "value at most":
                measured += f" {case['unit']}"
            else:
                measured += " times slower" if floor["measured"] > 1 else " (no slower)"
            wanted = WORDS[floor["kind"]].format(floor["floor"], case["unit"])
            cells.append(f"{measured}, {'' if floor['met'] else '**not** '}{wanted}")
        if any(cells):
            rows.append([case["title"], *cells])
    return rows


def lost(results: dict[str, Any]) -> Iterator[str]:
    """Where somebody else is ahead of futurepool, or futurepool misses its own floor."""
    for case in results["cases"]:
        more = case["unit"] == "tasks/s"
        for run in results["runs"]:
            found = run["cases"].get(case["key"], {})
            medians = found.get("medians", {})
            mine = medians.get(OURS)
            if mine is not None:
                ahead = {
                    name: value
                    for name, value in medians.items()
                    if name != OURS and (value > mine if more else value < mine)
                }
                for name, value in sorted(ahead.items(), key=lambda item: item[1], reverse=more):
                    factor = value / mine if more else mine / value
                    yield (
                        f"- {case['title']}, {run['tag']}: {name} is ahead, {number(value)} against "
                        f"{number(mine)} {case['unit']} ({TIMES}{factor:.2f})"
                    )
            floor = found.get("floor")
            if floor is not None and not floor["met"]:
                yield (
                    f"- {case['title']}, {run['tag']}: the goal was "
                    f"{WORDS[floor['kind']].format(floor['floor'], case['unit'])}; "
                    f"measured {number(floor['measured'])}"
                )


def case_rows(case: dict[str, Any], runs: list[dict[str, Any]]) -> list[list[str]]:
    rows = [[case["unit"], *(f"CPython {run['python']}" for run in runs)]]
    for name in names_of(case, runs):
        cells: list[str] = []
        for run in runs:
            found = run["cases"].get(case["key"], {})
            value = found.get("medians", {}).get(name)
            if value is None:
                cells.append("failed" if name in found.get("failed", ()) else "")
                continue
            ratio = found["ratios"].get(name)
            gil = run["tag"].endswith("t") and found.get("gil", {}).get(name, False)
            cells.append(
                number(value)
                + ("" if ratio is None or name == case["baseline"] else f" ({TIMES}{ratio:.2f})")
                + (" with the GIL" if gil else "")
            )
        rows.append([f"**{name}**" if name == case["subject"] else name, *cells])
    return rows


# -- plots -----------------------------------------------------------------------------------------


def pyplot() -> Any:
    """matplotlib, set up; None where it is missing."""
    if importlib.util.find_spec("matplotlib") is None:
        return None
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    plt.rcParams.update(
        {
            "svg.fonttype": "none",  # text stays text: it is small, and can be searched
            "svg.hashsalt": "futurepool",  # the same figures give the same file
            "font.family": "sans-serif",
            "font.size": 10,
            "text.color": GREY,
            "axes.edgecolor": GREY,
            "axes.labelcolor": GREY,
            "xtick.color": GREY,
            "ytick.color": GREY,
            "axes.spines.top": False,
            "axes.spines.right": False,
        }
    )
    return plt


def save(plt: Any, figure: Any, path: Path) -> None:
    figure.savefig(path, transparent=True, bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    # matplotlib names no generic family last, and leaves spaces at line ends.
    lines = path.read_text("utf-8").splitlines()
    path.write_text("\n".join(line.rstrip() for line in lines) + "\n", "utf-8")


def bars(plt: Any, case: dict[str, Any], runs: list[dict[str, Any]], path: Path) -> None:
    """A bar for each contestant and interpreter, the best on top."""
    names = names_of(case, runs)
    figure, axes = plt.subplots(figsize=(7.5, 0.6 + 0.18 * len(names) * (len(runs) + 1)))
    height = 0.8 / len(runs)
    every: list[float] = []
    for index, run in enumerate(runs):
        medians = run["cases"].get(case["key"], {}).get("medians", {})
        places = [
            i + (index - (len(runs) - 1) / 2) * height
            for i, name in enumerate(names)
            if name in medians
        ]
        values = [medians[name] for name in names if name in medians]
        drawn = axes.barh(places, values, height * 0.9, color=COLOURS[index % 3], label=run["tag"])
        axes.bar_label(drawn, [number(value) for value in values], padding=3, fontsize=8)
        every += values
    axes.set_yticks(range(len(names)), names)
    for label in axes.get_yticklabels():
        if label.get_text() == case["subject"]:
            label.set_fontweight("bold")
    axes.invert_yaxis()
    scale = ""
    if max(every) > 200 * min(every):
        axes.set_xscale("log")
        axes.set_xlim(min(every) / 2, max(every) * 4)
        scale = ", logarithmic"
    else:
        axes.set_xlim(0, max(every) * 1.15)
    better = "more" if case["unit"] == "tasks/s" else "less"
    axes.set_xlabel(f"{case['unit']}, {better} is better{scale}")
    axes.set_title(case["title"], loc="left", color=GREY)
    corner = "lower right" if better == "more" else "upper right"  # where bars are short
    axes.legend(frameon=False, title="CPython", labelcolor=GREY, loc=corner)
    save(plt, figure, path)


def ratios(plt: Any, results: dict[str, Any], path: Path) -> None:
    """futurepool against ThreadPoolExecutor in every case that has both."""
    shown = [case for case in results["cases"] if case["baseline"] == STANDARD]
    runs = results["runs"]
    figure, axes = plt.subplots(figsize=(7.5, 0.8 + 0.18 * len(shown) * (len(runs) + 1)))
    height = 0.8 / len(runs)
    for index, run in enumerate(runs):
        found = [run["cases"].get(case["key"], {}) for case in shown]
        places = [i + (index - (len(runs) - 1) / 2) * height for i in range(len(shown))]
        values = [one.get("ratios", {}).get(OURS, 0.0) for one in found]
        axes.barh(places, values, height * 0.9, color=COLOURS[index % 3], label=run["tag"])
        for place, value, one in zip(places, values, found, strict=True):
            floor = one.get("floor")
            end = value
            if floor is not None and floor["kind"] == "ratio at least":
                goal = floor["floor"]
                edges = [place - height / 2, place + height / 2]
                axes.plot([goal, goal], edges, color=GREY, lw=2)
                end = max(value, goal)
            axes.text(end * 1.05, place, f"{TIMES}{value:.2g}", va="center", fontsize=8)
    axes.set_yticks(range(len(shown)), [case["title"] for case in shown])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.axvline(1, color=GREY, lw=1, ls=":")
    axes.margins(x=0.12)
    axes.set_xlabel("times better than ThreadPoolExecutor; logarithmic; grey strokes are goals")
    axes.legend(frameon=False, title="CPython", labelcolor=GREY, loc="lower right")
    save(plt, figure, path)


def flat(plt: Any, memory: dict[str, Any], path: Path) -> None:
    """Resident memory over the number of tasks."""
    figure, axes = plt.subplots(figsize=(7.5, 3))
    for index, (way, seen) in enumerate(memory["ways"].items()):
        axes.plot(
            [tasks / 1e6 for tasks, _ in seen],
            [size for _, size in seen],
            marker="o",
            color=COLOURS[index],
            label=way,
        )
    axes.set_ylim(0, 1.2 * max(size for seen in memory["ways"].values() for _, size in seen))
    axes.set_xlabel("million tasks")
    axes.set_ylabel("resident, MiB")
    axes.legend(frameon=False, labelcolor=GREY)
    save(plt, figure, path)


# -- the page --------------------------------------------------------------------------------------


def page(
    results: dict[str, Any],
    memory: dict[str, Any] | None,
    picture: Callable[[str, str], Iterator[str]],
) -> Iterator[str]:
    """The lines of the page. `picture(key, description)` yields a plot, or nothing."""
    runs, machine = results["runs"], results["machine"]
    pythons = ", ".join(f"{run['implementation']} {run['python']}" for run in runs)
    mode = "" if results["mode"] == "quick" else f" --mode {results['mode']}"
    every = "every case and repetition" if results["size"]["restart"] else "every case"
    yield f"""\
# Benchmarks

<!-- Written by benchmarks/report.py; change that instead. -->

## What is measured, and how

One machine: {machine["cpu"]}, {machine["cores"]} cores, {machine["system"]}; {pythons}.

Tasks do nothing, so what is measured is the pool alone; a task that takes a millisecond will not
notice which pool runs it. `BoundedExecutor` has everything on: bounded queue, priorities, context
copy, statistics, task ids.

Each library is called as its own users would, in a process of its own for {every}.
In each of {results["repetitions"]} repetitions every one takes a sample in turn, while the others
sleep. Figures are medians; a ratio ({TIMES}) is the median over the repetitions of one sample
against the baseline's beside it, {STANDARD} if not said otherwise, and above 1 is better.
Ratios carry over to other machines far better than figures.

To repeat it: `pip install ".[bench]"` in the checkout, then
`python benchmarks/run.py{mode} --json results.json`
and `python benchmarks/report.py results.json`.
For a first look: `python -m futurepool bench`.
"""
    rows = [["library", *(f"with {run['tag']}" for run in runs), "to know"]]
    for name, note in results["rivals"].items():
        if any(name in run["versions"] for run in runs):
            versions = [run["versions"].get(name, "not installed") for run in runs]
            standard = all(
                found == run["python"].split()[0] for found, run in zip(versions, runs, strict=True)
            )
            cells = ["standard library"] * len(runs) if standard else versions
            rows.append([name, *cells, note])
    lines = list(table(rows))
    lines[1] = "|---" * len(rows[0]) + "|"
    yield from lines
    yield from ["## At a glance", ""]
    yield from picture("ratios", "futurepool against ThreadPoolExecutor, all cases")
    yield from ["Measured, and the goal the project set itself:", ""]
    yield from table(floor_rows(results))
    yield from ["## Where futurepool does not win", ""]
    yield from list(lost(results)) or ["Nowhere, in these cases."]
    yield ""
    for case in results["cases"]:
        yield from [f"## {case['title'][0].upper()}{case['title'][1:]}", ""]
        how = case["how"]
        if case["unit"] == "tasks/s":
            how += f" {case['tasks']:,} tasks at a time."
        yield from [how, ""]
        yield from picture(case["key"], case["title"])
        yield from table(case_rows(case, runs))
        for run in runs:
            for name, reason in run["cases"].get(case["key"], {}).get("failed", {}).items():
                yield from [f"{name} failed on {run['tag']}: `{reason}`", ""]
    if memory is not None:
        yield f"""\
## Resident memory over many tasks

{memory["items"]:,} tasks on CPython {memory["python"]}, 4 workers:
`map(abs, range(n), buffersize=1000)`, and blocking `submit` with every result dropped; MiB.
By `python benchmarks/memory.py`.
"""
        yield from picture("memory", "resident memory over the number of tasks")
        ways = list(memory["ways"])
        rows = [["tasks", *ways]]
        for seen in zip(*memory["ways"].values(), strict=True):
            rows.append([f"{seen[0][0]:,}", *(f"{size:.1f}" for _, size in seen)])
        yield from table(rows)


def write(results: dict[str, Any], memory: dict[str, Any] | None, docs: Path) -> None:
    plt = pyplot()
    folder = docs / "benchmarks"
    docs.mkdir(parents=True, exist_ok=True)
    if plt is not None:
        folder.mkdir(exist_ok=True)

    def picture(key: str, description: str) -> Iterator[str]:
        if plt is None:
            return
        path = folder / f"{key}.svg"
        if key == "ratios":
            ratios(plt, results, path)
        elif key == "memory":
            flat(plt, memory or {}, path)
        else:
            case = next(one for one in results["cases"] if one["key"] == key)
            if not names_of(case, results["runs"]):
                return
            bars(plt, case, results["runs"], path)
        yield from [f"![{description}](benchmarks/{key}.svg)", ""]

    text = "\n".join(page(results, memory, picture)).rstrip("\n") + "\n"
    (docs / "benchmarks.md").write_text(text, encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("results", type=Path, help="what run.py stored")
    parser.add_argument("--memory", type=Path, help="what memory.py stored")
    parser.add_argument("--docs", type=Path, default=DOCS, help="where to write (%(default)s)")
    args = parser.parse_args()
    memory = None if args.memory is None else json.loads(args.memory.read_text("utf-8"))
    write(json.loads(args.results.read_text("utf-8")), memory, args.docs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
