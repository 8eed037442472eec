"""The benchmarks run, and say what they must; how fast anything is stands in no test."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import futurepool
from futurepool import BoundedExecutor
from futurepool._cli import bench

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PACKAGE = str(Path(futurepool.__file__).parent.parent)  # there also where it is not installed
TITLES = ["submit/result, 1 worker", "submit/result, 4 workers", "submit/result, 16 workers"]
TITLES += ["map(abs, range(n))", "the same, chunksize=64", "8 producers, 8 workers"]
TITLES += ["round trip, p50", "memory per queued task"]

needs_benchmarks = pytest.mark.skipif(
    not BENCHMARKS.is_dir(), reason="the folder `benchmarks` was not copied along with the tests"
)


def run(*words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([PACKAGE, *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        encoding="utf-8",
        env={
            **os.environ,
            "PYTHONPATH": path,
            "PYTHONIOENCODING": "utf-8",
            "COLUMNS": "120",
            **more,
        },
        check=False,
        timeout=150,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


# -- benchmarks/ -----------------------------------------------------------------------------------


def script(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module of the folder `benchmarks`, which is no package."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module(name)


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> Any:
    return script("run", monkeypatch)


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> Any:
    return script("report", monkeypatch)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What a tiny run prints, and where it stores its results."""
    path = tmp_path_factory.mktemp("measured") / "results.json"
    # Rivals other than the standard library's are for people: some take seconds to import.
    rival = "multiprocessing.pool.ThreadPool"
    script = str(BENCHMARKS / "run.py")
    done = run(script, "--smoke", "--rival", rival, "--json", str(path))
    return done.stdout, path


@needs_benchmarks
@pytest.mark.slow
@pytest.mark.once
@pytest.mark.timeout(170)
def test_the_runner_has_every_case(measured: tuple[str, Path]) -> None:
    """Samples of every contestant, ratios against the baseline, versions, cores, floors."""
    printed, path = measured
    stored = json.loads(path.read_text("utf-8"))
    (one,) = stored["runs"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", stored["date"])
    assert stored["commit"] is None or re.search("[0-9a-f]{7}", stored["commit"])
    version = futurepool.__version__ + ", in C" * (futurepool.form == "compiled")
    assert one["versions"]["futurepool"] == version
    assert f"futurepool {futurepool.__version__}" in printed
    assert f"{stored['machine']['cores']} cores" in printed
    assert len(stored["cases"]) == 14
    for case in stored["cases"]:
        found = one["cases"][case["key"]]
        assert found["failed"] == {}
        assert f"\n{case['title']} ({case['unit']})\n" in printed
        assert {case["subject"], case["baseline"] or case["subject"]} <= set(found["samples"])
        for name, samples in found["samples"].items():
            assert len(samples) == 2 * case["turns"]
            assert min(samples) > 0
            assert (name in found["ratios"]) == (case["baseline"] is not None)
        if case["baseline"] is not None:
            assert found["ratios"][case["baseline"]] == 1.0
        if one["tag"] in ("3.11", "3.13"):
            assert found["floor"]["measured"] > 0
    assert "floor" not in printed  # they mean nothing here


@needs_benchmarks
def test_the_summary_has_the_cases_measured(
    runner: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """And no other."""
    floor = {"floor": 5.5, "kind": "ratio at least", "measured": 5.0, "met": False}
    runner.summary([{"tag": "3.11", "cases": {"map": {"floor": floor}}}])
    first, *lines = capsys.readouterr().out.strip().splitlines()
    assert first == "=== floors: measured / wanted (! not met)"
    assert [line.split() for line in lines] == [
        ["3.11"],
        ["map(abs,", "range(n))", "5", "/", "5.5!"],
    ]


@needs_benchmarks
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--repetitions", "0"], "--repetitions must be at least 1"),
        (["--python", "/nope"], "--python: /nope is no program"),
        (["--json", str(BENCHMARKS)], "--json: cannot write there: "),
    ],
)
def test_the_runner_refuses_nonsense(
    runner: Any,
    words: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Before it measures anything."""
    monkeypatch.setattr(sys, "argv", ["run", *words])
    with pytest.raises(SystemExit) as caught:
        runner.main()
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.once
@needs_benchmarks
@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("print('hello'); 1 / 0", "cannot be imported (ZeroDivisionError: division by zero)"),
        ("import nothing_of_that_name", "cannot be imported (ModuleNotFoundError: No module"),
        ("import os; os._exit(3)", "cannot be imported (exit status 3)"),
    ],
)
def test_a_rival_that_cannot_be_imported_is_left_out(
    runner: Any, code: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it raises or prints; others are not even imported."""
    (tmp_path / "pebble.py").write_text(code, "utf-8")
    (tmp_path / "joblib.py").write_text("1 / 0", "utf-8")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), PACKAGE]))
    about = runner.describe(sys.executable, ["pebble.ThreadPool"])
    assert list(about["versions"]) == ["ThreadPoolExecutor", "futurepool"]
    assert list(about["missing"]) == ["pebble.ThreadPool"]
    assert about["missing"]["pebble.ThreadPool"].startswith(reason)


@needs_benchmarks
def test_a_child_that_prints_and_dies(
    runner: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it prints is no answer, and how it ended is said."""
    text = "import os\nprint('hello', flush=True)\nclass ThreadPool:\n"
    text += "    def __init__(self, max_workers): os._exit(3)\n"
    (tmp_path / "pebble.py").write_text(text, "utf-8")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), PACKAGE]))
    with pytest.raises(runner.Failed, match=r"^hello \(exit status 3\)$"):
        runner.Child(sys.executable, "submit-1", "pebble.ThreadPool", "smoke", {})


@needs_benchmarks
@pytest.mark.parametrize(
    ("form", "name"), [("compiled", "futurepool"), ("fast", "futurepool, in Python")]
)
def test_each_form_has_its_own_process(runner: Any, form: str, name: str) -> None:
    """That in Python is asked for there; by default it is what was built."""
    (one,) = [one for one in runner.cases.case("map").contestants if one.name == name]
    environment = dict(one.rival.environment)
    assert environment == ({} if form == "compiled" else {"FUTUREPOOL_FORM": form})
    child = runner.Child(sys.executable, "map", name, "smoke", environment)
    try:
        assert child.sample() > 0
    finally:
        child.close()


@needs_benchmarks
@pytest.mark.parametrize(("form", "goal"), [("compiled", 22), ("fast", 5.5), ("", 5.5)])
def test_the_form_in_c_has_goals_of_its_own(runner: Any, form: str, goal: float) -> None:
    """Those of the other would say nothing about it."""
    result = {"medians": {"futurepool": 1.0}, "ratios": {"futurepool": 7.0}}
    about = {"tag": "3.11", "form": form}
    found = runner.verdict(runner.cases.case("submit-1"), about, result)
    assert (found["floor"], found["met"]) == (goal, goal < 7)
    found = runner.verdict(runner.cases.case("map-64"), about, result)
    assert found["floor"] == 30


@needs_benchmarks
def test_a_library_that_hung_is_not_tried_again(
    runner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On that interpreter."""
    tried: list[list[str]] = []

    def measure(
        python: str, case: Any, names: list[str], mode: str, repetitions: int
    ) -> dict[str, Any]:
        tried.append(names)
        failed = {name: runner.STUCK for name in names if name == "pebble.ThreadPool"}
        return {"medians": {}, "ratios": {}, "gil": {}, "failed": failed}

    about = {"implementation": "CPython", "python": "3.11.0", "tag": "3.11", "missing": {}}
    about["machine"] = {"cores": 1, "cpu": "none"}
    about["form"] = "fast"
    about["versions"] = {"futurepool": "1", "pebble.ThreadPool": "1"}
    monkeypatch.setattr(runner, "measure", measure)
    monkeypatch.setattr(runner, "describe", lambda *_: about)
    args = argparse.Namespace(
        rival=None, case=["submit-1", "submit-4"], mode="smoke", repetitions=1
    )
    runs: list[dict[str, Any]] = []
    runner.run("python", args, runs)
    limit = "SimpleQueue of callables"
    assert tried == [["futurepool", "pebble.ThreadPool", limit], ["futurepool", limit]]
    failed = runs[0]["cases"]["submit-4"]["failed"]
    assert failed == {"pebble.ThreadPool": "not tried, for it was stuck before"}


@needs_benchmarks
def test_ctrl_c_keeps_what_was_measured(
    runner: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is stored, and the status is 130."""

    def run_one(python: str, args: Any, runs: list[dict[str, Any]]) -> None:
        runs.append({"tag": "3.11", "machine": {}, "cases": {"map": {"failed": {}}}})
        raise KeyboardInterrupt

    path = tmp_path / "results.json"
    monkeypatch.setattr(runner, "run", run_one)
    monkeypatch.setattr(sys, "argv", ["run", "--smoke", "--json", str(path)])
    assert runner.main() == 130
    assert [case["key"] for case in json.loads(path.read_text("utf-8"))["cases"]] == ["map"]


@needs_benchmarks
@pytest.mark.slow
@pytest.mark.once
@pytest.mark.timeout(170)
def test_a_rival_that_is_not_installed_is_named(measured: tuple[str, Path]) -> None:
    """It is left out, and said to be."""
    printed, path = measured
    (one,) = json.loads(path.read_text("utf-8"))["runs"]
    for name, reason in one["missing"].items():
        assert f"{name}: {reason}, left out" in printed
        assert name not in one["versions"]


def stored_results() -> dict[str, Any]:
    """Results of two cases on two interpreters, one of which lacks a rival and has a failed one."""

    def on(tag: str, ours: float, **failed: str) -> dict[str, Any]:
        speed: dict[str, Any] = {
            # By medians alone, `close` would be ahead of nobody.
            "samples": {
                "ThreadPoolExecutor": [50e3] * 3,
                "futurepool": [ours * 0.5, ours, ours * 2],
                "quick": [2e6] * 3,
                "close": [ours * 0.55, ours * 1.1, ours * 0.9],
                "SimpleQueue of callables": [9e6] * 3,
            },
            "medians": {
                "ThreadPoolExecutor": 50e3,
                "futurepool": ours,
                "quick": 2e6,
                "close": ours * 0.9,
                "SimpleQueue of callables": 9e6,
            },
            "ratios": {
                "ThreadPoolExecutor": 1.0,
                "futurepool": ours / 50e3,
                "quick": 40.0,
                "close": 1.0,
                "SimpleQueue of callables": 180.0,
            },
            "failed": failed,
            "gil": {"ThreadPoolExecutor": False, "futurepool": False, "quick": True},
            "floor": {
                "floor": 5.5,
                "kind": "ratio at least",
                "measured": ours / 50e3,
                "met": ours / 50e3 >= 5.5,
            },
        }
        memory: dict[str, Any] = {
            "samples": {"ThreadPoolExecutor": [1777.0] * 3, "futurepool": [290.0] * 3},
            "medians": {"ThreadPoolExecutor": 1777.0, "futurepool": 290.0},
            "ratios": {"ThreadPoolExecutor": 1.0, "futurepool": 1777 / 290},
            "failed": {},
            "gil": {},
            "floor": {"floor": 420, "kind": "value at most", "measured": 290.0, "met": True},
        }
        return {
            "tag": tag,
            "python": "3.13.0 free-threaded" if tag.endswith("t") else "3.11.7",
            "implementation": "CPython",
            "versions": {"ThreadPoolExecutor": "3.11.7", "futurepool": "0.1.0", "quick": "2.0"},
            "missing": [],
            "cases": {"speed": speed, "memory-case": memory},
        }

    def case(key: str, title: str, unit: str) -> dict[str, Any]:
        about: dict[str, Any] = {
            "key": key,
            "title": title,
            "unit": unit,
            "how": f"How {title} is measured.",
        }
        about["cannot"] = ["quick", "not known here"]
        about |= {"tasks": 5000, "turns": 20 if unit == "B" else 1}
        return {**about, "baseline": "ThreadPoolExecutor", "subject": "futurepool"}

    return {
        "date": "2026-11-27",
        "commit": "59f9bef",
        "mode": "quick",
        "repetitions": 7,
        "size": {"restart": False},
        "machine": {"cpu": "Some Model", "cores": 2, "system": "Linux"},
        "rivals": {
            "ThreadPoolExecutor": "",
            "futurepool": "",
            "quick": "unfair",
            "SimpleQueue of callables": "the limit",
        },
        "cases": [case("speed", "speed", "tasks/s"), case("memory-case", "memory", "B")],
        "runs": [on("3.11", 400e3), on("3.13t", 60e3, broken="it fell over")],
    }


@needs_benchmarks
@pytest.mark.slow
@pytest.mark.once
@pytest.mark.timeout(170)
def test_the_report(tmp_path: Path) -> None:
    """Tables of what was stored, what is lost said plainly, and plots where they can be drawn."""
    (tmp_path / "results.json").write_text(json.dumps(stored_results()), "utf-8")
    memory = {
        "python": "3.11.7",
        "items": 20,
        "ways": {"map": [[2, 20.0], [20, 20.5]], "submit": [[2, 19.0], [20, 19.0]]},
    }
    (tmp_path / "memory.json").write_text(json.dumps(memory), "utf-8")
    words = [str(tmp_path / "results.json"), "--memory", str(tmp_path / "memory.json")]
    run(str(BENCHMARKS / "report.py"), *words, "--docs", str(tmp_path / "docs"))
    page = (tmp_path / "docs" / "benchmarks.md").read_text("utf-8").replace(chr(0xD7), "x")
    assert "One machine: Some Model, 2 cores, Linux; CPython 3.11.7, CPython 3.13.0 free" in page
    assert "\nMeasured on 2026-11-27, at commit 59f9bef: " in page
    assert page.count("20 short samples in a repetition.") == 1
    assert "| speed | x8, at least x5.5 | x1.2, **not** at least x5.5 |" in page
    assert "| memory | 290 B, at most 420 B | 290 B, at most 420 B |" in page
    assert "- speed, 3.11: quick is ahead, 2,000,000 against 400,000 tasks/s (x5.00)" in page
    assert "- speed, 3.11: close is ahead, 360,000 against 400,000 tasks/s (x1.10)" in page
    assert "- speed, 3.13t: the goal was at least x5.5; measured 1.2" in page
    assert "| quick | 2,000,000 (x40.00) | 2,000,000 (x40.00) with the GIL |" in page
    assert "| SimpleQueue of callables |  |  | the limit |" in page
    assert "| SimpleQueue of callables | 9,000,000 (x180.00) | 9,000,000 (x180.00) |" in page
    assert "SimpleQueue of callables is ahead" not in page  # it is no pool
    assert "broken failed on 3.13t: `it fell over`" in page
    assert "\nCannot do this: quick.\n" in page
    assert "| 20 | 20.5 | 19.0 |" in page
    plots = re.findall(r"!\[[^]]+\]\(([^)]+)\)", page)
    if importlib.util.find_spec("matplotlib") is None:
        assert plots == []
        return
    assert plots == [f"benchmarks/{n}.svg" for n in ("ratios", "speed", "memory-case", "memory")]
    for plot in plots:
        text = (tmp_path / "docs" / plot).read_text("utf-8")
        assert "</svg>" in text
        # Nothing that only one kind of page can show.
        assert not re.search(r"(fill|stroke): #(ffffff|000000)", text)


@needs_benchmarks
def test_the_report_says_where_futurepool_failed(report: Any) -> None:
    """In the list of losses as well as in the table of floors."""
    results = stored_results()
    found = results["runs"][0]["cases"]["speed"]
    for figures in ("samples", "medians", "ratios"):
        del found[figures]["futurepool"]
    found["failed"], found["floor"] = {"futurepool": "stuck"}, None
    assert next(report.lost(results)) == "- speed, 3.11: futurepool failed: `stuck`"
    assert report.floor_rows(results)[1][:2] == ["speed", "futurepool failed"]


@needs_benchmarks
@pytest.mark.parametrize(
    ("title", "heading"),
    [
        ("submit then result", "Submit then result"),
        ("import time, all", "Import time, all"),
        ("1,000 priorities", "1,000 priorities"),
        ("map(abs, range(n))", "map(abs, range(n))"),
        ("enable_metrics=True", "enable_metrics=True"),
    ],
)
def test_a_heading_leaves_code_alone(report: Any, title: str, heading: str) -> None:
    """Words get a capital, names do not."""
    assert report.heading(title) == heading


@needs_benchmarks
@pytest.mark.parametrize("text", [None, "", "{", "[]", "{}"])
def test_the_report_refuses_what_is_no_result(
    report: Any,
    text: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With a sentence, and without writing anything."""
    path = tmp_path / "results.json"
    if text is not None:
        path.write_text(text, "utf-8")
    monkeypatch.setattr(sys, "argv", ["report", str(path), "--docs", str(tmp_path / "docs")])
    with pytest.raises(SystemExit) as caught:
        report.main()
    assert caught.value.code == 2
    assert f"cannot read {path}: " in capsys.readouterr().err
    assert not (tmp_path / "docs").exists()


@needs_benchmarks
@pytest.mark.slow
@pytest.mark.once
@pytest.mark.timeout(170)
def test_the_report_of_a_real_run(measured: tuple[str, Path], tmp_path: Path) -> None:
    """What the runner stores is what the report reads, and it names no path of this machine."""
    run(str(BENCHMARKS / "report.py"), str(measured[1]), "--docs", str(tmp_path))
    page = (tmp_path / "benchmarks.md").read_text("utf-8")
    for case in json.loads(measured[1].read_text("utf-8"))["cases"]:
        assert f"\n## {case['title']}\n".lower() in page.lower()
    assert str(Path.home()) not in page
    assert sys.prefix not in page


@needs_benchmarks
@pytest.mark.slow
@pytest.mark.once
@pytest.mark.timeout(170)
def test_memory(tmp_path: Path) -> None:
    """Both ways, at the first tasks and at each tenth."""
    path = tmp_path / "memory.json"
    done = run(str(BENCHMARKS / "memory.py"), "--items", "2000", "--json", str(path))
    assert done.stdout.count(" MiB") == 2 * 11  # ten marks and a verdict
    ways = json.loads(path.read_text("utf-8"))["ways"]
    marks = [*range(200, 2001, 200)]
    assert {way: [tasks for tasks, _ in seen] for way, seen in ways.items()} == {
        "map": marks,
        "submit": marks,
    }
    assert all(size > 0 for seen in ways.values() for _, size in seen)


@needs_benchmarks
@pytest.mark.slow
@pytest.mark.once
@pytest.mark.timeout(170)
def test_overload(tmp_path: Path) -> None:
    """Each way answers what it can, in a table and stored."""
    path = tmp_path / "overload.json"
    words = ["--loads", "0.1", "--seconds", "0.3", "--rounds", "1", "--json", str(path)]
    done = run(str(BENCHMARKS / "overload.py"), *words)
    stored = json.loads(path.read_text("utf-8"))
    assert stored["loads"] == [0.1]
    assert len(stored["ways"]) == 6
    for name, ((useful, median, requests, answers),) in stored["ways"].items():
        assert f"\n| `{name}` | {useful:.0f} (" in done.stdout
        assert 0 < answers <= requests
        assert useful <= requests / 0.3
        assert median is None or median >= 0.01


@needs_benchmarks
@pytest.mark.slow
@pytest.mark.once
@pytest.mark.timeout(170)
def test_seeing(tmp_path: Path) -> None:
    """A row for each who looks, and what was measured."""
    pytest.importorskip("prometheus_client")
    path = tmp_path / "seeing.json"
    words = ["--pairs", "1", "--seconds", "0.2", "--json", str(path)]
    done = run(str(BENCHMARKS / "seeing.py"), *words)
    stored = json.loads(path.read_text("utf-8"))
    titles = re.findall(r"^\| ([^|]+) \| .* \| [\d,]+ \| [\d,]+ \| \d", done.stdout, re.MULTILINE)
    assert titles == [each["title"] for each in stored]
    absent = sum(
        done.stdout.count(f"({what})")
        for what in ("opentelemetry-sdk", "sockets in the file system")
    )
    assert len(titles) == 12 - absent
    for each in stored:
        assert min(figure for speed in each["without"] + each["with"] for figure in speed) > 0
    # Whoever is another process may have had no time.
    assert [each["look"] > 0 for each in stored[:4]] == [True] * 4
    assert stored[-1]["look"] is None


@needs_benchmarks
@pytest.mark.slow
@pytest.mark.once
@pytest.mark.timeout(170)
def test_engines(tmp_path: Path) -> None:
    """A row for an engine, with what was measured; the page has such a table."""
    path = tmp_path / "engines.json"
    words = ["--rounds", "1", "--calls", "50", "--json", str(path), "processes"]
    done = run(str(BENCHMARKS / "engines.py"), *words)
    stored = json.loads(path.read_text("utf-8"))
    assert list(stored) == ["processes"]
    assert list(stored["processes"]) == ["bulk", "one", "map"]
    for way in stored["processes"].values():
        assert list(way) == ["alone", "behind"]
        assert all(figure > 0 for figures in way.values() for figure in figures)
    lines = done.stdout.splitlines()
    head = next(number for number, line in enumerate(lines) if line.startswith("| engine"))
    assert lines[head + 2].startswith("| `ProcessPoolExecutor` (spawn) | ")
    assert lines[head + 2].count("|") == lines[head].count("|")
    page = (BENCHMARKS.parent / "docs" / "engines.md").read_text("utf-8")
    assert "\n".join(lines[head : head + 2]) in page


@needs_benchmarks
def test_the_same_seed_makes_the_same_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that each way has the same to do; as many as were asked for."""
    overload = script("overload", monkeypatch)
    times = overload.due_times(1000, 10, 7)
    assert times == overload.due_times(1000, 10, 7) == sorted(times)
    assert 9000 < len(times) < 11_000
    row = [overload.Outcome(useful, 0.01, 10, 10) for useful in (50, 100)]
    other = [overload.Outcome(useful, None, 10, 10) for useful in (100, 20)]
    assert overload.shares({"a": row, "b": other}) == {"a": 0.5, "b": 0.2}
    lines = overload.table([1.0, 1.5], {"a": row, "b": other})
    assert lines[0] == "|  | 1\u00d7 | 1.5\u00d7 |"
    assert lines[2:] == ["| `a` | 50 (10 ms) | 100 (10 ms) |", "| `b` | 100 (-) | 20 (-) |"]


# -- python -m futurepool bench --------------------------------------------------------------------

WITHOUT_RICH = """
import sys
sys.modules["rich"] = sys.modules["rich.console"] = None
from futurepool._cli.main import main
sys.exit(main(["bench", "--seconds", "0.1"]))
"""


def rows_of(printed: str) -> dict[str, list[str]]:
    """The figures of each case, whatever surrounds them."""
    rows: dict[str, list[str]] = {}
    for line in printed.splitlines():
        cells = [cell.strip() for cell in re.split(r"[│|]|\s{2,}", line) if cell.strip()]
        if cells and cells[0] in TITLES:
            rows[cells[0]] = cells[1:]
    return rows


def check_table(printed: str) -> None:
    assert f"futurepool {futurepool.__version__}, " in printed
    rows = rows_of(printed)
    assert list(rows) == TITLES
    for figures in rows.values():
        assert len(figures) == 3
        assert re.fullmatch(r"x[\d.e+-]+", figures[2])


@pytest.mark.slow
@pytest.mark.once
def test_bench() -> None:
    """A row for each case, with both figures and the gain."""
    pytest.importorskip("rich")
    check_table(run("-m", "futurepool", "bench", "--seconds", "0.1").stdout)


@pytest.mark.slow
@pytest.mark.once
def test_bench_without_rich() -> None:
    """The same in plain text, and a word on what would be nicer."""
    done = run("-c", WITHOUT_RICH)
    check_table(done.stdout)
    assert "`cli` extra" in done.stderr


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "soon"])
def test_bench_refuses_nonsense(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Seconds are a number above 0."""
    from futurepool._cli.main import main

    with pytest.raises(SystemExit) as caught:
        main(["bench", f"--seconds={text}"])
    assert caught.value.code == 2
    assert f"must be a number of seconds above 0, not '{text}'" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_bench_ends_with_ctrl_c() -> None:
    """With 130, soon, and without a traceback."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "futurepool", "bench", "--seconds", "600"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": PACKAGE},
        encoding="utf-8",
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("futurepool ")  # it is under way
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=50)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in errors


def _affinity() -> set[int]:
    return set(os.sched_getaffinity(0))


needs_cores = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="takes two cores, and a system that can keep a thread on one",
)


@needs_cores
def test_the_command_keeps_caller_and_worker_apart() -> None:
    """On two cores while round trips are measured; then the caller is free again."""
    before = _affinity()
    with BoundedExecutor(1) as pool:
        with bench._two_cores(pool):
            caller, worker = _affinity(), pool.submit(_affinity).result(30)
        assert len(caller) == len(worker) == 1
        assert caller != worker
        assert caller | worker <= before
    assert _affinity() == before


def test_the_command_leaves_them_alone_where_it_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    """No cores known, or one: nothing is set."""
    with BoundedExecutor(1) as pool:
        for mine in (set[int](), {0}):
            monkeypatch.setattr(bench, "_cores", lambda mine=mine: mine)
            monkeypatch.delattr(bench.os, "sched_setaffinity", raising=False)
            with bench._two_cores(pool):
                assert pool.submit(int).result(30) == 0


@needs_benchmarks
@needs_cores
@pytest.mark.parametrize("core", [0, 1])
def test_the_runner_says_where_they_are(core: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both on the first core, or the worker on the second."""
    cases = script("cases", monkeypatch)
    before = _affinity()
    first, second, *_ = sorted(before)
    with cases._on_core(core) as settle, BoundedExecutor(1) as pool:
        pool.submit(settle).result(30)
        assert _affinity() == {first}
        assert pool.submit(_affinity).result(30) == {(first, second)[core]}
    assert _affinity() == before
