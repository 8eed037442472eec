"""Write docs/benchmarks.md and its plots from stored results: `python benchmarks/report.py results.json`.

The plots have no background and mid-tone colours, so they can be read on a light and a dark page;
text follows the page's colour scheme.
Without matplotlib the page has its tables only.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent.parent / "docs"
OURS, STANDARD = "futurepool", "ThreadPoolExecutor"
#: What is ours too, and what is no pool.
NO_RIVALS = ("futurepool, in Python", "SimpleQueue of callables")
TIMES = "\N{MULTIPLICATION SIGN}"
# Contrast of 3 and more with white as well as with #0d1117.
COLOURS = ["#c2701c", "#2f81c4", "#3a9a57", "#a371d7", "#d1588a", "#8a8a2e"]
# Text needs 4.5, which no grey has with both.
GREY, DARK_PAGE_GREY = "#6e7781", "#848d97"
WORDS = {
    "ratio at least": "at least " + TIMES + "{:g}",
    "value at most": "at most {:g} {}",
    "slowdown at most": "at most {:g} times slower",
}


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def heading(title: str) -> str:
    """With a capital, unless it begins with code."""
    return title[0].upper() + title[1:] if re.match(r"\w+\b(?![(=])", title) else title


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
            found = run["cases"].get(case["key"], {})
            floor = found.get("floor")
            if floor is None:
                needed = dict.fromkeys([case["subject"], case["baseline"]])
                names = [name for name in needed if name in found.get("failed", ())]
                cells.append(f"{' and '.join(names)} failed" if names else "")
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


def gain(case: dict[str, Any], found: dict[str, Any], name: str) -> float:
    """How many times better futurepool is than `name`: the median over pairs of samples."""
    if name == case["baseline"]:
        known: float = found["ratios"][OURS]
        return known
    pairs = zip(found["samples"][OURS], found["samples"][name], strict=True)
    if case["unit"] == "tasks/s":
        return statistics.median(mine / other for mine, other in pairs)
    return statistics.median(other / mine for mine, other in pairs)


def lost(results: dict[str, Any]) -> Iterator[str]:
    """Where futurepool failed, somebody else is ahead, or futurepool misses its own floor."""
    for case in results["cases"]:
        for run in results["runs"]:
            found = run["cases"].get(case["key"], {})
            for name, reason in found.get("failed", {}).items():
                if name in {OURS, case["subject"], case["baseline"]} - {STANDARD}:
                    yield f"- {case['title']}, {run['tag']}: {name} failed: `{reason}`"
            medians = found.get("medians", {})
            if OURS in medians:
                rivals = [name for name in medians if name not in (OURS, *NO_RIVALS)]
                gains = {name: gain(case, found, name) for name in rivals}
                for name in sorted(gains, key=gains.__getitem__):
                    if gains[name] < 1:
                        yield (
                            f"- {case['title']}, {run['tag']}: {name} is ahead, "
                            f"{number(medians[name])} against {number(medians[OURS])} "
                            f"{case['unit']} ({TIMES}{1 / gains[name]:.2f})"
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
    text = "\n".join(line.rstrip() for line in path.read_text("utf-8").splitlines()) + "\n"
    rules = "".join(
        f'[style*="{what}: {GREY}"] {{{what}: {DARK_PAGE_GREY} !important}}'
        for what in ("fill", "stroke")
    )
    dark = f"@media (prefers-color-scheme: dark) {{{rules}}}"
    path.write_text(text.replace("</style>", dark + "</style>", 1), "utf-8")


def legend(axes: Any, title: str | None) -> None:
    """Beside the axes, where it covers nothing."""
    place = {"loc": "upper left", "bbox_to_anchor": (1.01, 1), "borderaxespad": 0}
    axes.legend(frameon=False, title=title, labelcolor=GREY, **place)


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
        drawn = axes.barh(
            places, values, height * 0.9, color=COLOURS[index % len(COLOURS)], label=run["tag"]
        )
        axes.bar_label(drawn, [number(value) for value in values], padding=3, fontsize=9)
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
    legend(axes, "CPython")
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
        colour = COLOURS[index % len(COLOURS)]
        axes.barh(0, 0, color=colour, label=run["tag"])
        for place, one in zip(places, found, strict=True):
            value = one.get("ratios", {}).get(OURS)
            if value is None:
                continue
            axes.barh(place, value - 1, height * 0.9, left=1, color=colour)
            floor = one.get("floor")
            end = max(value, 1)
            if floor is not None and floor["kind"] == "ratio at least":
                goal = floor["floor"]
                edges = [place - height / 2, place + height / 2]
                # A light stroke in a dark one: it shows on bars and on any page.
                axes.plot([goal, goal], edges, color="#24292f", lw=4, solid_capstyle="butt")
                axes.plot([goal, goal], edges, color="#f6f8fa", lw=1.6, solid_capstyle="butt")
                end = max(end, goal)
            axes.text(end * 1.07, place, f"{TIMES}{value:.2g}", va="center", fontsize=9)
    axes.set_yticks(range(len(shown)), [case["title"] for case in shown])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.axvline(1, color=GREY, lw=1)
    axes.margins(x=0.12)
    axes.set_xlabel("times better than ThreadPoolExecutor; logarithmic; strokes are goals")
    legend(axes, "CPython")
    save(plt, figure, path)


def flat(plt: Any, memory: dict[str, Any], path: Path) -> None:
    """Resident memory over the number of tasks."""
    figure, axes = plt.subplots(figsize=(7.5, 3))
    for index, (way, seen) in enumerate(memory["ways"].items()):
        axes.plot(
            [tasks / 1e6 for tasks, _ in seen],
            [size for _, size in seen],
            # Each drawn thinner than the one before, so that lines that coincide can all be seen.
            **[{"lw": 5, "marker": "o", "ms": 10}, {"lw": 1.5, "ls": "--", "marker": "s", "ms": 4}][
                index % 2
            ],
            color=[COLOURS[1], COLOURS[0]][index % 2],
            label=way,
        )
    axes.set_ylim(0, 1.2 * max(size for seen in memory["ways"].values() for _, size in seen))
    axes.set_xlabel("million tasks")
    axes.set_ylabel("resident, MiB")
    legend(axes, None)
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
    at = f", at commit {results['commit']}" if results.get("commit") else ""
    when = (
        f"Measured on {results['date']}{at}: what was changed since then is not in these figures."
    )
    if not results.get("date"):  # as in older results
        when = "When, was not noted."
    yield f"""\
# Benchmarks

<!-- Written by benchmarks/report.py; change that instead. -->

## What is measured, and how

One machine: {machine["cpu"]}, {machine["cores"]} cores, {machine["system"]}; {pythons}.
{when}

Tasks do nothing, so what is measured is the pool alone; a task that takes a millisecond will not
notice which pool runs it. "futurepool" is the form in C where that was built, on the interpreters that have two
lines, and has the goals of that form there. `BoundedExecutor` has everything on: bounded queue, priorities, context
copy, statistics, task ids.

The case is also the cheapest there is: a call without arguments, or with one, from a context without
variables. Two arguments, keyword arguments or context variables cost more for every pool here, in
memory too.

Each library is called as its own users would, in a process of its own for {every}.
In each of {results["repetitions"]} repetitions every one takes a sample in turn, while the others
sleep; where samples differ much, or what is compared hardly does, several. Figures are medians; a
ratio ({TIMES}) is the median over the repetitions of one sample against the baseline's beside it,
{STANDARD} if not said otherwise, and above 1 is better.
Ratios carry over to other machines far better than figures.

To repeat it: `pip install ".[bench]"` in the checkout, then
`python benchmarks/run.py{mode} --json results.json`
and `python benchmarks/report.py results.json`.
For a first look: `python -m futurepool bench`.
"""
    rows = [["library", *(f"with {run['tag']}" for run in runs), "to know"]]
    measured = {
        name for run in runs for found in run["cases"].values() for name in found.get("medians", ())
    }
    for name, note in results["rivals"].items():
        versions = [run["versions"].get(name) for run in runs]
        if any(versions):
            standard = all(
                found == run["python"].split()[0] for found, run in zip(versions, runs, strict=True)
            )
            missing = "the line above" if name in NO_RIVALS else "not installed"
            cells = (
                ["standard library"] * len(runs) if standard else [v or missing for v in versions]
            )
            rows.append([name, *cells, note])
        elif name in measured:
            rows.append([name, *[""] * len(runs), note])
    lines = list(table(rows))
    lines[1] = "|---" * len(rows[0]) + "|"
    yield from lines
    yield from ["## At a glance", ""]
    yield from picture("ratios", "futurepool against ThreadPoolExecutor, all cases")
    yield from ["Measured, and the goal the project set itself:", ""]
    yield from table(floor_rows(results))
    yield from ["## Where futurepool does not win", ""]
    yield from ["Ratios are medians over pairs of samples here too, for each rival.", ""]
    yield from list(lost(results)) or ["Nowhere, in these cases."]
    yield ""
    for case in results["cases"]:
        yield from [f"## {heading(case['title'])}", ""]
        how = case["how"]
        if case["unit"] == "tasks/s":
            how += f" {case['tasks']:,} tasks at a time."
        if case["turns"] > 1:
            how += f" {case['turns']} short samples in a repetition."
        yield from [how, ""]
        yield from picture(case["key"], case["title"])
        yield from table(case_rows(case, runs))
        for run in runs:
            for name, reason in run["cases"].get(case["key"], {}).get("failed", {}).items():
                yield from [f"{name} failed on {run['tag']}: `{reason}`", ""]
        known = {name for run in runs for name in run["versions"]}
        cannot = [name for name in case.get("cannot", ()) if name in known]
        if cannot:
            yield from [f"Cannot do this: {', '.join(cannot)}.", ""]
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
            if not any(
                one.get("ratios") for run in results["runs"] for one in run["cases"].values()
            ):
                return
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


def load(path: Path, *keys: str) -> dict[str, Any]:
    """What is stored in a file; ValueError if that is something else."""
    found = json.loads(path.read_text("utf-8"))
    if not isinstance(found, dict) or not found.keys() >= set(keys):
        raise ValueError("not the results of a benchmark")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("results", type=Path, help="what run.py stored")
    parser.add_argument("--memory", type=Path, help="what memory.py stored")
    parser.add_argument("--docs", type=Path, default=DOCS, help="where to write (%(default)s)")
    args = parser.parse_args()
    path, memory = args.results, None
    try:
        results = load(path, "mode", "repetitions", "size", "machine", "rivals", "cases", "runs")
        if args.memory is not None:
            path = args.memory
            memory = load(path, "python", "items", "ways")
    except (OSError, ValueError) as error:
        parser.error(f"cannot read {path}: {error}")
    write(results, memory, args.docs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
