"""What the options of `map` do, with each engine that this interpreter has."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from futurepool._cli import options
from futurepool._cli.child import BACK, Caller, Shape, pack
from futurepool._cli.remote import Remote, Setup
from futurepool._cli.work import Crew, Local, Slice
from tests.cli.command import MAP, PATIENCE, Popen, Run

pytest_plugins = ["tests.cli.fixtures"]

Main = Callable[..., int]

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals and descriptors")
slow = pytest.mark.slow
PROCESSES = pytest.param("processes", marks=slow)
INTERPRETERS = pytest.param(
    "interpreters",
    marks=[slow, pytest.mark.skipif(sys.version_info < (3, 14), reason="came with 3.14")],
)
engines = pytest.mark.parametrize("engine", ["threads", PROCESSES, INTERPRETERS])


# -- items -----------------------------------------------------------------------------------------


@slow
def test_nul_separated(run: Run, tasks: str) -> None:
    """`find -print0`: a name may have a line end in it."""
    done = run("map", f"{tasks}:same", "-0", "--json", "--quiet", lines="a\nb\0c\0\0d")
    assert [json.loads(line)["item"] for line in done.stdout.splitlines()] == ["a\nb", "c", "", "d"]


@engines
def test_json_input(main: Main, capsys: Any, tasks: str, engine: str) -> None:
    """Each item is a value; one that is no JSON fails."""
    words = ('{"a": [1]}', "2.5", "null", "nonsense")
    more = ("--json-input", "--json", "--on-error=skip", "--engine", engine)
    assert main("map", f"{tasks}:kind", *words, *more) == 1
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert records[:3] == [
        {"item": {"a": [1]}, "result": "dict"},
        {"item": 2.5, "result": "float"},
        {"item": None, "result": "NoneType"},
    ]
    assert records[3]["error"]["message"].startswith("the item is not JSON")


@engines
@pytest.mark.parametrize(
    ("separator", "item"), [(",", "a,b,c"), (r"\t", "a\tb\tc"), ("::", "a::b::c")]
)
def test_columns(
    main: Main, capsys: Any, tasks: str, engine: str, separator: str, item: str
) -> None:
    """Columns are arguments."""
    more = (f"--colsep={separator}", "--engine", engine, "--quiet")
    assert main("map", f"{tasks}:join", item, *more) == 0
    assert capsys.readouterr().out == "a+b+c\n"


def test_tag(main: Main, capsys: Any, tasks: str) -> None:
    """Each line of a result stands after its item and a tab."""
    assert main("map", f"{tasks}:same", "a", "b\nc", "--tag", "--quiet") == 0
    assert capsys.readouterr().out == "a\ta\nb c\tb\nb c\tc\n"


def test_dry_run(main: Main, capsys: Any, tasks: str, tmp_path: Path) -> None:
    """The calls, as Python has them; none is made."""
    assert main("map", f"{tasks}:leave", "a", "it's", "--dry-run") == 0
    assert capsys.readouterr() == ("leave('a')\nleave(\"it's\")\n", "")
    assert main("map", f"{tasks}:join", "a,b", "--colsep=,", "--dry-run") == 0
    assert main("map", f"{tasks}:join", "[1]", "x", "--json-input", "--dry-run") == 0
    out = capsys.readouterr().out.splitlines()
    assert out[:2] == ["join('a', 'b')", "join([1])"]
    assert out[2].startswith("join(<the item is not JSON")
    assert main("map", f"{tasks}:nothing", "a", "--dry-run") == 2


# -- how they are worked at --------------------------------------------------------------------------


@engines
@pytest.mark.parametrize("more", [(), ("--unordered",), ("--chunksize=7",), ("-q0", "-j1")])
def test_all_engines_do_the_same(
    main: Main, capsys: Any, tasks: str, engine: str, more: tuple[str, ...]
) -> None:
    """Every item once, in order unless that does not matter."""
    words = [str(n) for n in range(500)]
    status = main("map", f"{tasks}:number", *words, "-j3", "--engine", engine, "--quiet", *more)
    out = capsys.readouterr().out.split()
    assert status == 0
    assert (sorted(out, key=int) if more == ("--unordered",) else out) == words


@pytest.mark.parametrize("engine", [PROCESSES])
def test_processes_are_others(main: Main, capsys: Any, tasks: str, engine: str) -> None:
    """As many as there are jobs, and none of them is this one."""
    words = ("0.1", "0.1", "0.1", "0.1")
    assert main("map", f"{tasks}:sleep", *words, "-j2", "--engine", engine, "--quiet") == 0
    assert main("map", f"{tasks}:pid", *"abcdef", "-j2", "--engine", engine, "--quiet") == 0
    pids = set(capsys.readouterr().out.split()[4:])
    assert 1 <= len(pids) <= 2
    assert str(os.getpid()) not in pids


@slow
def test_a_process_that_dies(run: Run, tasks: str) -> None:
    """It fails the item that it was at; the others are done."""
    words = [*map(str, range(20)), "die", *map(str, range(20, 40))]
    done = run(*("map", f"{tasks}:die", *words, "--engine=processes", "-j2", "--on-error=skip"))
    assert done.stdout.split() == [word for word in words if word != "die"]
    assert done.returncode == 1
    assert "'die' failed: ProcessDied: its process ended with exit status 7" in done.stderr


@slow
@pytest.mark.parametrize("engine", ["threads", PROCESSES, INTERPRETERS])
def test_a_slow_call_holds_up_no_other(popen: Popen, tasks: str, engine: str) -> None:
    """The first call ends when the last one is made, which another worker does."""
    target = f"{tasks}:slow_on" if engine == "threads" else f"{tasks}:wait_for_file"
    process = popen(*MAP, target, "-j2", "--engine", engine, "--unordered", "--quiet")
    count = 4000
    words = ["0", *map(str, range(1, count)), "last"]
    out, _ = process.communicate("".join(f"{word}\n" for word in words), timeout=PATIENCE)
    assert process.returncode == 0
    lines = out.split()
    assert sorted(lines) == sorted(words)
    # A slice, of 1024 calls at most, is printed as a whole: so it may come before what `last` is in, but no other.
    assert lines.index("0") >= count - 1024


def test_what_waits_behind_a_slow_call_in_its_slice(main: Main, capsys: Any, tasks: str) -> None:
    """Another worker does it: the slow call ends when the very next item has been called."""
    words = [*map(str, range(3000)), "wait", "go", *map(str, range(3000))]
    assert main("map", f"{tasks}:go", *words, "-j2", "--quiet") == 0
    assert capsys.readouterr().out.split() == words


@pytest.mark.parametrize("more", [(), ("--json",), ("--tag",), ("--unordered",)])
def test_failures_in_the_middle_of_a_slice(
    main: Main, capsys: Any, tasks: str, more: tuple[str, ...]
) -> None:
    """Each item has its own outcome, in its place."""
    words = [f"x{n}" if n % 100 == 99 else str(n) for n in range(2000)]
    assert main("map", f"{tasks}:number", *words, "--on-error=skip", *more) == 1
    out, err = capsys.readouterr()
    lines = out.splitlines()
    if more == ("--json",):
        records = [json.loads(line) for line in lines]
        assert [record["item"] for record in records] == words
        assert ["error" in record for record in records] == [word[0] == "x" for word in words]
    else:
        good = [word for word in words if word[0] != "x"]
        found = sorted(lines, key=int) if more == ("--unordered",) else lines
        assert found == [f"{word}\t{word}" if more == ("--tag",) else word for word in good]
    bad = {word for word in words if word[0] == "x"}
    assert {re.findall("'(x.*?)'", line)[0] for line in err.splitlines()[:20]} == bad
    assert "1,980 done, 20 failed" in err


def test_nothing_is_started_after_a_failure(main: Main, capsys: Any, tasks: str) -> None:
    """Not what stands behind it in its slice, either."""
    words = [*map(str, range(700)), "x", *map(str, range(999))]
    assert main("map", f"{tasks}:number", *words, "-j1") == 1
    out, err = capsys.readouterr()
    assert out.split() == words[:700]
    assert "700 done, 1 failed, 999 not started" in err


@engines
def test_retries(main: Main, capsys: Any, tasks: str, tmp_path: Path, engine: str) -> None:
    """A call that fails is made again; -v says so."""
    names = [str(tmp_path / name) for name in "abc"]
    more = ("--retries=1:0", "--engine", engine, "-v")
    assert main("map", f"{tasks}:once", *names, *more) == 0
    out, err = capsys.readouterr()
    assert out == "again\n" * 3
    assert err.count("failed, try 1; again in") == 3
    assert main("map", f"{tasks}:number", "x", *more) == 1
    assert "'x' failed: ValueError" in capsys.readouterr().err


@slow
@pytest.mark.parametrize("engine", ["threads", "processes", INTERPRETERS])
def test_timeout(run: Run, tasks: str, engine: str) -> None:
    """A call that takes too long has failed, and the others go on, also after all jobs are stuck."""
    words = ["stuck1", "a", "stuck2", "b", "c"]
    more = ("--timeout=2", "-j2", "--on-error=skip", "--engine", engine)
    done = run("map", f"{tasks}:stuck", *words, *more)
    assert (done.returncode, done.stdout.split()) == (1, ["a", "b", "c"])
    assert "'stuck1' failed: TimeoutError: took longer than 2 s" in done.stderr
    assert "'stuck2' failed: TimeoutError: took longer than 2 s" in done.stderr
    assert "3 done, 2 failed" in done.stderr
    assert "Traceback" not in done.stderr


def crew_of_two(chunksize: int | None = None) -> Crew:
    caller = Caller(str, Shape(), False)
    return Crew(
        2,
        make=lambda crew, number: Local(crew, number, caller),
        adaptive=True,
        chunksize=chunksize,
        timeout=10.0,
        rate=None,
        retries=None,
        allowed=None,
        verbose=False,
        note=lambda _: None,
    )


def test_a_stop_takes_back_what_a_process_has_in_stock() -> None:
    """At once, not when a call takes long; once; and never in the middle of another message."""
    crew = crew_of_two()
    remote = Remote(crew, 0, Setup("work:fn", Shape(), False))
    source, remote._to = os.pipe()
    with os.fdopen(source, "rb", buffering=0) as sent, os.fdopen(remote._to, "wb"):
        os.set_blocking(source, False)
        began = time.perf_counter()
        remote._stock.extend(enumerate("abc"))
        remote.current = (0, "a", began)
        remote.recall(began)
        crew.closing = True
        with remote._sending:
            remote.recall(began)
        assert sent.read() is None
        for _ in range(2):
            remote.recall(began)
        assert sent.read() == pack((BACK,))


class Pace:
    """Time that goes by, with calls that end in it; 4 moments are enough to measure."""

    MOMENT = 1 / 128  # seconds; sums of it are exact

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._now, self._done = crew._phase = (0.0, 0)

    def go_on(self, moments: int, call: float) -> list[int]:
        """So many, with one call after the other that takes so long; how many drew after each, without repeats."""
        limits: list[int] = []
        for _ in range(moments):
            self._now += self.MOMENT
            self._done += round(self.MOMENT / call)
            self._crew.adapt(self._now, self._done, [])
            if limits[-1:] != [self._crew.limit]:
                limits.append(self._crew.limit)
        return limits


def before_the_third() -> Pace:
    """Two draw; twice before they were faster than one."""
    pace = Pace(crew_of_two())
    for _ in range(2):
        assert pace.go_on(4, 100e-6) == [1, 2]
        assert pace.go_on(4, 50e-6) == [2, 1]
    assert pace.go_on(4, 100e-6) == [1, 2]
    return pace


def test_one_lucky_measurement_sends_nobody() -> None:
    """Two draw for longer than a moment if calls went faster thrice, and one if they did not once."""
    pace = before_the_third()
    assert pace.go_on(4, 100e-6) == [2, 1]
    assert pace.go_on(127, 100e-6) == [1]
    assert pace.go_on(5, 100e-6) == [2, 1]


def test_who_was_faster_thrice_goes_on() -> None:
    """And is measured again later."""
    pace = before_the_third()
    assert pace.go_on(4 + 127, 50e-6) == [2]
    assert pace.go_on(5, 50e-6) == [1, 2]


def test_calls_that_have_become_long_are_made_by_two() -> None:
    """At once, though it was found shortly before that one makes more of them."""
    pace = Pace(crew_of_two())
    assert pace.go_on(8, 100e-6) == [1, 2, 1]
    assert pace.go_on(40, 100e-6) == [1]
    assert pace.go_on(8, 0.00125) == [1, 2]


def at_a_call(items: list[str]) -> tuple[Crew, Local, Slice]:
    """A drawer that has called the first of its items, and is at the second; nobody else may draw."""
    crew = crew_of_two(chunksize=len(items))
    caller = Caller(str, Shape(), False)
    crew.limit = 0
    drawer = Local(crew, 0, caller)
    crew.active.append(drawer)
    crew.add(0, items)
    piece = crew.draw(drawer, len(items))
    assert piece is not None
    call(piece)
    piece.todo.popleft()
    return crew, drawer, piece


def call(piece: Slice) -> None:
    piece.todo.popleft()
    end_call(piece)


def end_call(piece: Slice) -> None:
    piece.texts.append("done")
    piece.times.append(time.perf_counter())


def test_too_late_in_the_middle_of_a_slice() -> None:
    """The call has failed, whatever becomes of it; who made it takes no more, and others the rest."""
    crew, drawer, piece = at_a_call(list("abcd"))
    began = piece.times[0]
    drawer.expire(began + 10.0)
    assert [(each.base, each.ended()) for each in crew.results] == [(0, 1), (1, 1)]
    failure = crew.results[1].failures[0]
    assert failure is not None
    assert failure.message == "took longer than 10 s"
    assert (crew.running(), drawer.token.cancelled) == ([], True)

    end_call(piece)
    assert (piece.ended(), list(piece.todo)) == (1, [])
    assert (crew.draw(drawer, 4), crew.leave(drawer)) == (None, True)
    drawer.expire(began + 20.0)
    assert (len(crew.results), len(crew.written_off), crew.spare) == (2, 1, [])
    rest = crew.draw(None, 4)
    assert rest is not None
    assert (rest.base, rest.items) == (2, ["c", "d"])
    assert crew.finish()


def test_a_call_that_ends_while_it_is_found_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was in time, and the next one goes on."""
    crew, drawer, piece = at_a_call(list("abcd"))
    cut = crew.cut

    def struck(piece: Slice) -> list[str]:
        end_call(piece)
        piece.todo.popleft()
        return cut(piece)

    monkeypatch.setattr(crew, "cut", struck)
    drawer.expire(piece.times[0] + 10.0)
    assert (drawer.gone, drawer.token.cancelled, crew.active) == (False, False, [drawer])
    assert (len(crew.results), piece.ended(), piece.size) == (1, 2, 3)
    end_call(piece)
    rest = crew.draw(None, 4)
    assert rest is not None
    assert (piece.ended(), rest.base, rest.items) == (3, 3, ["d"])
    crew.active.clear()
    assert crew.finish()


def test_a_slice_of_calls_that_have_become_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others get the rest of it, though no call takes long by itself."""
    crew, drawer, piece = at_a_call(list("abcd"))
    monkeypatch.setattr(crew, "auto", True)
    began = piece.began
    piece.times[0] = began + 0.009
    drawer.recall(began + 0.0099)
    assert len(piece.todo) == 2
    drawer.recall(began + 0.0101)
    assert (len(piece.todo), piece.size, crew.waiting) == (0, 2, 2)
    crew.active.clear()
    assert crew.finish()


@slow
def test_a_timeout_is_a_failure_that_is_tried_again(run: Run, tasks: str) -> None:
    """In another thread, as the first one is stuck."""
    more = ("--timeout=1", "--retries=2:0", "-v", "-j1", "--on-error=skip")
    done = run("map", f"{tasks}:stuck", "stuck", "a", *more)
    assert (done.returncode, done.stdout) == (1, "a\n")
    assert done.stderr.count("started") == 3
    assert "1 done, 1 failed, 3 still running after their time" in done.stderr


@slow
@pytest.mark.parametrize("engine", ["threads", "processes"])
def test_rate(main: Main, capsys: Any, tasks: str, engine: str) -> None:
    """So many starts a second, whatever the number of jobs."""
    began = time.perf_counter()
    more = ("--rate=20/s", "-j8", "--quiet", "--engine", engine)
    assert main("map", f"{tasks}:same", *map(str, range(11)), *more) == 0
    assert time.perf_counter() - began >= 0.5
    assert capsys.readouterr().out.split() == [str(n) for n in range(11)]


# -- failures ----------------------------------------------------------------------------------------


@engines
def test_max_failures(main: Main, capsys: Any, tasks: str, engine: str) -> None:
    """It goes on until so many have failed."""
    words = [str(n) for n in range(1000)]
    more = ("--max-failures=3", "-j1", "--engine", engine)
    assert main("map", f"{tasks}:even", *words, *more) == 1
    out, err = capsys.readouterr()
    if engine == "threads":
        assert out.split() == ["0", "2", "4"]
        assert "3 done, 3 failed, 994 not started" in err
    assert 3 <= err.count("is odd") < 300


def test_a_share_of_failures(main: Main, capsys: Any, tasks: str) -> None:
    """P% of those finished, and three at least."""
    words = [*map(str, range(0, 40, 2)), *map(str, range(1, 9, 2)), *map(str, range(0, 2000, 2))]
    assert main("map", f"{tasks}:even", *words, "--max-failures=50%", "-j1") == 1
    assert "1,020 done, 4 failed" in capsys.readouterr().err
    limit = options.Limit(None, 10.0)
    assert [limit.reached(2, 4), limit.reached(3, 30), limit.reached(3, 31)] == [False, True, False]


# -- logs ----------------------------------------------------------------------------------------------


@engines
def test_log_and_resume(main: Main, capsys: Any, tasks: str, tmp_path: Path, engine: str) -> None:
    """What is settled is left out; what failed is done again when that is asked for."""
    log = tmp_path / "log"
    names = [str(tmp_path / name) for name in "abc"]
    more = ("--log", str(log), "--on-error=skip", "--engine", engine)
    before = time.time()
    (tmp_path / "b").touch()  # the others fail when they are called for the first time
    assert main("map", f"{tasks}:once", *names, *more) == 1
    records = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    assert [record["item"] for record in records] == names
    assert [record["outcome"] for record in records] == ["failed", "done", "failed"]
    assert records[0]["error"] == "ConnectionError: first try"
    assert all(before <= record["start"] <= time.time() for record in records)
    assert all(0 <= record["seconds"] < 50 for record in records)
    assert capsys.readouterr().out == "again\n"

    assert main("map", f"{tasks}:once", *names, *names[:1], *more, "--resume") == 0
    out, err = capsys.readouterr()
    assert out == "again\n"  # the fourth item, which is not in the log
    assert "1 done, 3 settled before" in err
    assert "2 of those had failed; --resume-failed calls them again" in err

    assert main("map", f"{tasks}:once", *names, *names[:1], *more, "--resume-failed") == 0
    assert capsys.readouterr().out == "again\n" * 2
    assert main("map", f"{tasks}:once", *names, *names[:1], *more, "--resume-failed") == 0
    assert capsys.readouterr().out == ""


def test_a_log_is_not_overwritten(main: Main, capsys: Any, tasks: str, tmp_path: Path) -> None:
    """Nor is another file taken for one; an empty file is as good as none."""
    log = tmp_path / "log"
    log.touch()
    assert main("map", f"{tasks}:same", "a", "--log", str(log)) == 0
    assert main("map", f"{tasks}:same", "a", "--log", str(log)) == 2
    assert "has records of another run; give --resume" in capsys.readouterr().err
    log.write_text("item\tstart\n", "utf-8")
    assert main("map", f"{tasks}:same", "a", "--log", str(log), "--resume") == 2
    assert "is no log" in capsys.readouterr().err
    assert main("map", f"{tasks}:same", "a", "--log", str(tmp_path / "no" / "log")) == 2


@posix
@pytest.mark.slow
def test_a_log_is_one_runs_at_a_time(
    main: Main, popen: Popen, capsys: Any, tasks: str, tmp_path: Path
) -> None:
    """Two would do what neither has logged yet twice; not after its end, whatever that was."""
    log = str(tmp_path / "log")
    more = (f"{tasks}:same", "--quiet", "--resume", "--log", log)
    first = popen("-m", "futurepool", "map", *more)
    first.stdin.write("a\n")
    first.stdin.flush()
    while not Path(log).exists() or not Path(log).stat().st_size:
        assert first.poll() is None
    for others in ((), ("--dry-run",)):
        assert main("map", *more, "a", "b", *others) == 2
        assert f"argument --log: another run is writing {log}" in capsys.readouterr().err
    first.kill()
    first.wait(PATIENCE)
    assert main("map", *more, "a", "b") == 0
    assert capsys.readouterr().out == "b\n"
    assert len(Path(log).read_text("utf-8").splitlines()) == 2


def test_resume_what_is_not_there(main: Main, capsys: Any, tasks: str, tmp_path: Path) -> None:
    """A first run may say --resume, too; JSON values are the same however they are written."""
    more = ("--log", str(tmp_path / "log"), "--resume", "--json-input", "--quiet")
    assert main("map", f"{tasks}:kind", '{"a": 1, "b": 2}', *more) == 0
    assert main("map", f"{tasks}:kind", '{"b":2,"a":1}', "3", *more) == 0
    assert capsys.readouterr().out == "dict\nint\n"
    assert main("map", f"{tasks}:kind", "3", "4", *more, "--dry-run") == 0
    assert capsys.readouterr().out == "kind(4)\n"


def test_json_that_others_could_not_read(
    main: Main, capsys: Any, tasks: str, tmp_path: Path
) -> None:
    """What Python takes for JSON and is none, or is too deep: results and log are JSON all the same."""
    log = tmp_path / "log"
    items = ["NaN", "[-Infinity]", "1e999", "[" * 100_000, "nonsense", "3"]
    more = ("--json", "--json-input", "--on-error=skip", "--quiet", "--log", str(log))

    def strict(name: str) -> None:
        raise AssertionError(name)

    assert main("map", f"{tasks}:kind", *items, *more) == 1
    for text in (capsys.readouterr().out, log.read_text("utf-8")):
        records = [json.loads(line, parse_constant=strict) for line in text.splitlines()]
        assert [record["item"] for record in records] == [*items[:-1], 3]
        assert ["error" in record for record in records] == [True, True, False, True, True, False]
    assert main("map", f"{tasks}:kind", *items, *more, "--resume") == 0
    assert capsys.readouterr().out == ""


def test_half_a_record_is_none(main: Main, capsys: Any, tasks: str, tmp_path: Path) -> None:
    """As a full disk leaves it."""
    log = tmp_path / "log"
    log.write_text(
        '{"item": "a", "start": 1, "seconds": 1, "outcome": "done"}\n{"item": "b', "utf-8"
    )
    more = ("--log", str(log), "--resume", "--quiet")
    assert main("map", f"{tasks}:same", "a", "b", *more) == 0
    assert capsys.readouterr().out == "b\n"
    assert [json.loads(line)["item"] for line in log.read_text("utf-8").splitlines()] == ["a", "b"]


def test_trace(main: Main, tasks: str, tmp_path: Path) -> None:
    """A list of Chrome trace events: a bar for each call, a name for each row."""
    trace = tmp_path / "trace.json"
    more = ("--trace", str(trace), "--on-error=skip", "--quiet", "-j1")
    assert main("map", f"{tasks}:number", "1", 'x"y', *more) == 1
    events = json.loads(trace.read_text("utf-8"))
    calls = [event for event in events if event["ph"] == "X"]
    assert [event["name"] for event in calls] == ["1", 'x"y']
    assert calls[1]["args"]["error"].startswith("invalid literal")
    assert all(event["dur"] >= 0 and event["ts"] > 1e15 for event in calls)
    assert {event["name"] for event in events} >= {"process_name", "thread_name"}
    assert main("map", f"{tasks}:number", "1", "--trace", str(tmp_path)) == 2


# -- streams ---------------------------------------------------------------------------------------


@posix
@slow
@pytest.mark.parametrize("engine", ["threads", "processes", INTERPRETERS])
def test_stdout_has_results_alone(run: Run, tasks: str, engine: str) -> None:
    """Whoever prints, and however: the target, its children, a descriptor."""
    done = run("map", f"{tasks}:noisy", "a", "b", "--json", "--engine", engine)
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"item": "a", "result": "a"},
        {"item": "b", "result": "b"},
    ]
    for text in ("printed a", "printed b", "bytes", "descriptor", "child", "logged a"):
        assert text in done.stderr


@posix
@slow
def test_the_pipe_is_left_as_it_is(run: Run, tasks: str) -> None:
    """Whoever else writes into it does not find it non-blocking; and it takes more than it holds."""
    import fcntl

    read, write = os.pipe()
    received: list[bytes] = []

    def listen() -> None:
        with os.fdopen(read, "rb") as pipe:
            received.append(pipe.read())

    thread = threading.Thread(target=listen)
    thread.start()
    lines = "".join(f"{n} {'x' * 100}\n" for n in range(5000))
    try:
        done = run(
            *("map", f"{tasks}:same"),
            lines=lines,
            capture_output=False,
            stdout=write,
            stderr=subprocess.PIPE,
        )
        flags = fcntl.fcntl(write, fcntl.F_GETFL)
    finally:
        os.close(write)
        thread.join()
    assert done.returncode == 0
    assert flags & os.O_NONBLOCK == 0
    assert received[0].decode() == lines


@slow
@pytest.mark.parametrize("engine", ["threads", "processes"])
def test_the_target_does_not_read_the_items(run: Run, tasks: str, engine: str) -> None:
    """`ssh` in a target would eat them."""
    done = run("map", f"{tasks}:reads", "--engine", engine, "--quiet", lines="a\nb\nc\n")
    assert done.stdout.splitlines() == ["('', b'')"] * 3


# -- usage -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--rate=0/s",), "--rate: must be N/s, N/m or N/h, not '0'"),
        (("--rate=5/y",), "--rate: must be N/s, N/m or N/h, not '5/y'"),
        (("--retries=x",), "the form is N or N:SECONDS"),
        (("--retries=2:soon",), "must be seconds, not 'soon'"),
        (("--timeout=0",), "--timeout: must be a number of seconds above 0, not '0'"),
        (("--max-failures=101%",), "must be at most 100%, not 101%"),
        (("--max-failures=0",), "must be at least 1, not 0"),
        (("--max-failures=3", "--on-error=stop"), "leave it out with --max-failures"),
        (("--chunksize=0",), "--chunksize: must be at least 1, not 0"),
        (("--colsep=",), "must be at least one character"),
        (("--json-input", "--colsep=,"), "exclude each other"),
        (("--resume",), "need the --log"),
        (("--jobs=0%",), "must be a share of the cores above 0%"),
        (("--engine=magic",), "invalid choice: 'magic'"),
        (("-0",), "-0 is about stdin"),
    ],
)
def test_wrong_options(main: Main, capsys: Any, words: tuple[str, ...], message: str) -> None:
    """Status 2, and what is wrong."""
    assert main("map", "builtins:len", "a", *words) == 2
    assert message in capsys.readouterr().err


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="there they exist")
def test_interpreters_need_them(main: Main, capsys: Any) -> None:
    """Said before anything is done."""
    assert main("map", "builtins:len", "a", "--engine=interpreters") == 2
    assert "needs Python 3.14" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "value"), [("3", 3), ("200%", 8), ("50%", 2), ("1%", 1), ("+2", 6)]
)
def test_jobs(text: str, value: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A number, a share of the cores, or more than them."""
    monkeypatch.setattr(options, "cores", lambda: 4)
    assert options._jobs(text) == value
