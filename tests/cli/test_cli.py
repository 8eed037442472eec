"""The command line, in processes of its own and, for its corners, in this one."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import subprocess
import sys
import types
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

import futurepool
from futurepool._cli import items
from tests.cli.command import FOREGROUND, MAP, PATIENCE, TASKS, Popen, Run, Terminal, environment
from tests.programs import python

pytest_plugins = ["tests.cli.fixtures"]

Main = Callable[..., int]

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals and terminals")

# -- in processes of its own ---------------------------------------------------------------------


@pytest.mark.slow
def test_results_in_input_order(run: Run, tasks: str) -> None:
    """Items from stdin, results one per line in their order, a summary on stderr."""
    done = run("map", f"{tasks}:number", lines="".join(f"{n}\n" for n in range(3000)))
    assert done.stdout.split() == [str(n) for n in range(3000)]
    assert done.returncode == 0
    assert "3,000 done" in done.stderr


@pytest.mark.slow
def test_lines_come_and_go_one_by_one(popen: Popen, tasks: str) -> None:
    """A result is printed before the next item is there to be read."""
    process = popen(*MAP, f"{tasks}:same", "--quiet")
    for item in ("one", "two"):
        process.stdin.write(f"{item}\n")
        process.stdin.flush()
        assert process.stdout.readline() == f"{item}\n"
    process.stdin.close()
    assert process.wait(PATIENCE) == 0


@pytest.mark.slow
def test_unordered_prints_what_is_finished(popen: Popen, tasks: str) -> None:
    """With --unordered an item does not wait for the one before it."""
    process = popen(*MAP, f"{tasks}:go", "--unordered", "--quiet", "-j2")
    process.stdin.write("wait\nquick\n")
    process.stdin.flush()
    assert process.stdout.readline() == "quick\n"
    process.stdin.write("go\n")
    process.stdin.close()
    assert sorted(process.stdout) == ["go\n", "wait\n"]
    assert process.wait(PATIENCE) == 0


@pytest.mark.slow
def test_a_closed_pipe_ends_an_endless_input(popen: Popen, tasks: str) -> None:
    """`yes | python -m futurepool map ... | head -3`: no word on stderr, status 0."""
    source = popen("-c", "while True: print('y')", stdin=subprocess.DEVNULL)
    process = popen(*MAP, f"{tasks}:same", stdin=source.stdout)
    assert [process.stdout.readline() for _ in range(3)] == ["y\n"] * 3
    process.stdout.close()
    assert process.wait(PATIENCE) == 0
    assert process.stderr.read() == ""


@pytest.mark.slow
def test_help_into_a_closed_pipe() -> None:
    """What is printed at the very end has no traceback either."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "futurepool", "--help"],
            env=environment(),
            stdout=closed,
            stderr=subprocess.PIPE,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def nothing_said_of_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "PYTHON_COLORS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info < (3, 15), reason="there logging imports it")
@pytest.mark.usefixtures("nothing_said_of_colours")
def test_help_that_nobody_sees_in_colour_is_quick() -> None:
    """What draws colours takes as long to import as the command's own modules."""
    code = (
        "import sys; from futurepool._cli.main import main\n"
        "try: main(['--help'])\n"
        "finally: assert '_colorize' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info < (3, 14), reason="there argparse has no colours")
@pytest.mark.usefixtures("nothing_said_of_colours")
def test_help_is_coloured_where_that_is_seen_or_asked_for(
    terminal: Callable[..., Terminal],
) -> None:
    """At a terminal, and with FORCE_COLOR."""
    shown = terminal("-m", "futurepool", "--help")
    assert shown.wait() == 0
    done = subprocess.run(
        [sys.executable, "-m", "futurepool", "--help"],
        env={**environment(), "FORCE_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert "\x1b" in shown.seen
    assert "\x1b" in done.stdout


@pytest.mark.slow
def test_a_closed_pipe_leaves_stuck_tasks_behind(popen: Popen, tasks: str) -> None:
    """Nor does a task that goes on keep it alive, or make it say something."""
    process = popen(*MAP, f"{tasks}:go", "--unordered", "-j2")
    process.stdin.write("wait\nquick\n")
    process.stdin.flush()
    assert process.stdout.readline() == "quick\n"
    process.stdout.close()
    process.stdin.write("quick\n")
    process.stdin.flush()
    assert process.wait(PATIENCE) == 0
    assert process.stderr.read() == ""


@pytest.mark.slow
def test_a_failure_does_not_wait_for_more_input(popen: Popen, tasks: str) -> None:
    """It ends at the failure though stdin stays open."""
    process = popen(*MAP, f"{tasks}:number")
    process.stdin.write("1\nx\n")
    process.stdin.flush()
    assert process.stdout.read() == "1\n"
    assert process.wait(PATIENCE) == 1
    assert "'x' failed: ValueError" in process.stderr.read()


@posix
@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
@pytest.mark.parametrize("more", [(), ("--unordered",), ("--engine=processes",)])
def test_signals(popen: Popen, tasks: str, number: str, status: int, more: tuple[str, ...]) -> None:
    """It ends, stuck call and blocked read or not; what is finished is printed, the rest is named."""
    process = popen(*FOREGROUND, f"{tasks}:stuck", "-j2", *more)
    lines = ["stuck", *map(str, range(30))]
    process.stdin.write("".join(f"{line}\n" for line in lines))
    process.stdin.flush()
    assert process.stderr.readline() == "started\n"
    if more == ("--unordered",):
        assert [process.stdout.readline() for _ in range(30)] == [f"{n}\n" for n in range(30)]
    else:
        settle(process.pid)
    process.send_signal(getattr(signal, number))
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == status
    if more != ("--unordered",):
        assert out.split() == [str(n) for n in range(30)]
    assert "30 done, 1 abandoned, 0 not started" in err
    assert "abandoned after 0:0" in err
    assert "'stuck'" in err
    assert "Traceback" not in err


def settle(pid: int) -> None:
    """Wait until a process, and those it has started, do nothing but wait."""
    import time

    before, same = "", 0
    while same < 10:
        time.sleep(0.05)
        now = ""
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(stat.parent.name) == pid or int(fields[1]) == pid:
                now += f"{stat.parent.name} {fields[11]} {fields[12]} "
        same = same + 1 if now == before else 0
        before = now


@posix
@pytest.mark.slow
def test_a_second_ctrl_c_does_not_wait(popen: Popen, tasks: str) -> None:
    """After a failure running calls have half a minute; who does not want that says so."""
    process = popen(*FOREGROUND, f"{tasks}:stuck", "-j2")
    process.stdin.write("stuck\n")
    process.stdin.flush()
    assert process.stderr.readline() == "started\n"
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 130


@posix
@pytest.mark.slow
def test_names_that_are_no_text(run: Run, tasks: str) -> None:
    """Bytes that are not UTF-8 come out as they went in."""
    done = run("map", f"{tasks}:same", "--quiet", lines="a\udcffb\nü\n")
    assert (done.stdout, done.stderr) == ("a\udcffb\nü\n", "")


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_results_that_cannot_be_encoded(run: Run, tasks: str, encoding: str) -> None:
    """What the terminal's encoding lacks is escaped."""
    env = {**environment(), "PYTHONIOENCODING": encoding}
    words = ["map", f"{tasks}:same", "\u2713", "--quiet"]
    code = f"from futurepool._cli.main import main; main({words!a})"
    done = run(start=("-c", code), env=env)
    assert (done.stdout, done.stderr) == ("\\u2713\n", "")


WITHOUT_EXTRA = (
    "import sys; sys.modules['rich'] = sys.modules['tenacity'] = None; "
    "from futurepool._cli.main import run; run()"
)


@pytest.mark.slow
def test_without_the_extra(run: Run, tasks: str) -> None:
    """All but the progress line works, and retries say what they need."""
    words = (f"{tasks}:number", "1", "x", "2", "--on-error=skip")
    done = run("map", *words, start=("-c", WITHOUT_EXTRA))
    assert (done.returncode, done.stdout) == (1, "1\n2\n")
    assert "'x' failed: ValueError" in done.stderr
    assert "2 done, 1 failed" in done.stderr
    done = run("map", *words, "--retries=2", start=("-c", WITHOUT_EXTRA))
    assert (done.returncode, done.stdout) == (2, "")
    assert 'pip install ".[cli]"' in done.stderr


@pytest.mark.slow
def test_a_run_imports_what_it_needs(run: Run) -> None:
    """The start is most of a short run's time."""
    code = (
        "import sys; before = set(sys.modules); from futurepool._cli.main import main; "
        "main(['map', 'builtins:int', '1', '--quiet']); "
        "unwanted = {'asyncio', 'json', 'multiprocessing', 'rich', 'shutil', 'subprocess', 'tenacity'}; "
        "print(sorted(unwanted & set(sys.modules) - before))"
    )
    assert run(start=("-c", code)).stdout == "1\n[]\n"


@pytest.mark.slow
def test_the_collector_leaves_our_modules_alone(run: Run, tmp_path: Path) -> None:
    """It works, but on what the target makes; in a process that is not ours nothing is changed."""
    (tmp_path / "seen.py").write_text(
        "import gc\nloaded = gc.isenabled(), gc.get_freeze_count() > 5000\n"
        "def seen(item): return loaded, gc.isenabled()\n"
    )
    words = ("map", f"{tmp_path / 'seen.py'}:seen", "1", "--quiet")
    assert run(*words).stdout == "((True, True), True)\n"
    code = (
        "import gc, sys; from futurepool._cli.main import main; "
        "status = main(); sys.exit(status or gc.get_freeze_count())"
    )
    done = run(*words, start=("-c", code))
    assert (done.stdout, done.returncode) == ("((True, False), True)\n", 0)


@pytest.mark.slow
def test_help_needs_no_pool(run: Run) -> None:
    """Nor what only `map` needs."""
    code = (
        "import sys; sys.argv[0] = 'futurepool'; before = set(sys.modules)\n"
        "from futurepool._cli.main import main\n"
        "try: main(['map', '--help'])\n"
        "finally:\n"
        "    found = set(sys.modules) - before\n"
        "    print(sorted(name for name in found if name.startswith(('futurepool', 'concurrent', 'logging'))))"
    )
    done = run(start=("-c", code))
    assert done.stdout.splitlines()[-1] == str(
        ["futurepool", "futurepool._cli", "futurepool._cli.main", "futurepool._cli.options"]
    )


@pytest.mark.slow
def test_a_module_in_the_current_directory(run: Run, tasks: str) -> None:
    """A script has its own folder in sys.path, not the current one."""
    code = (
        "import sys; sys.path[0] = '/nowhere'; sys.argv[0] = '/nowhere/futurepool'; "
        "from futurepool._cli.main import run; run()"
    )
    words = ("map", "tasks_for_cli:same", "a", "--quiet")
    assert run(*words, start=("-c", code)).stdout == "a\n"
    assert run("map", start=("-c", code)).stderr == (
        "usage: futurepool map [OPTION ...] TARGET [ITEM ...]\n"
        "futurepool map: error: the following arguments are required: TARGET\n"
    )


@pytest.mark.slow
def test_version(run: Run) -> None:
    """--version names the package and its version."""
    assert run("--version").stdout == f"futurepool {futurepool.__version__}\n"


@posix
@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk(run: Run, tasks: str) -> None:
    """Results that cannot be written are an error, in one line."""
    with Path("/dev/full").open("w") as full:
        done = run(
            *("map", f"{tasks}:same", "item", "--quiet"),
            capture_output=False,
            stdout=full,
            stderr=subprocess.PIPE,
        )
    assert done.returncode == 1
    assert done.stderr.startswith("futurepool: cannot write the results:")
    assert done.stderr.count("\n") == 1


@posix
@pytest.mark.slow
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-"])
def test_closed_streams(tasks: str, closed: str) -> None:
    """A stream that is closed from the start is no reason for a traceback."""
    script = f'exec "$0" -m futurepool map "$1" item {closed}'
    done = subprocess.run(
        ["sh", "-c", script, sys.executable, f"{tasks}:same"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert done.stdout == ("" if closed == ">&-" else "item\n")


# -- in this process -----------------------------------------------------------------------------


def test_items_from_arguments(main: Main, capsys: Any, tasks: str) -> None:
    """Options may stand anywhere; negative numbers and what follows -- are items."""
    status = main(
        *("map", "-j2", f"{tasks}:same", "a", "--json", "b", "-3", "--quiet", "-", "--", "-x", "--")
    )
    out, err = capsys.readouterr()
    wanted = ["a", "b", "-3", "-", "-x", "--"]
    assert [json.loads(line)["item"] for line in out.splitlines()] == wanted
    assert (status, err) == (0, "")


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_order_does_not_depend_on_who_is_first(
    main: Main, capsys: Any, tasks: str, more: tuple[str, ...]
) -> None:
    """The first item ends after the second: the worker of that must have taken the third."""
    assert main("map", f"{tasks}:go", "wait", "quick", "go", "-j2", "--quiet", *more) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["item"] if more else line for line in lines] == ["wait", "quick", "go"]


def test_json(main: Main, capsys: Any, tasks: str) -> None:
    """A record for each item: its result, or its error."""
    status = main("map", f"{tasks}:number", "1", "x", "--json", "--on-error=skip", "--quiet")
    out, err = capsys.readouterr()
    good, bad = map(json.loads, out.splitlines())
    assert (status, err) == (1, "")
    assert good == {"item": "1", "result": 1}
    assert (bad["item"], bad["error"]["type"]) == ("x", "ValueError")
    assert bad["error"]["message"] == "invalid literal for int() with base 10: 'x'"
    assert bad["error"]["traceback"].startswith("Traceback")
    assert bad["error"]["traceback"].count("  File ") == 1


@pytest.mark.parametrize("name", ["box", "nan"])
def test_results_that_are_not_json(main: Main, capsys: Any, tasks: str, name: str) -> None:
    """They fail that item, and the message says why."""
    assert main("map", f"{tasks}:{name}", "a", "--json") == 1
    assert "the result cannot be written as JSON" in capsys.readouterr().err


def test_stop_ends_at_the_first_failure(main: Main, capsys: Any, tasks: str) -> None:
    """Nothing is started after it, what is finished is printed; it is named in one line; status 1."""
    assert main("map", f"{tasks}:number", "1", "2", "x", "3", "y", "-j1") == 1
    out, err = capsys.readouterr()
    assert out == "1\n2\n"
    first, second, _ = err.splitlines()
    assert first.startswith("futurepool: 'x' failed: ValueError: invalid literal")
    line = TASKS[: TASKS.index("    return int(item)\n")].count("\n") + 1
    assert first.endswith(f"(tasks_for_cli.py:{line})")
    assert "2 done, 1 failed, 2 not started" in second


def test_verbose_shows_tracebacks(main: Main, capsys: Any, tasks: str) -> None:
    """Of the target's own frames."""
    assert main("map", f"{tasks}:number", "x", "-v") == 1
    err = capsys.readouterr().err
    assert err.count("  File ") == 1
    assert "return int(item)" in err


@pytest.mark.parametrize("order", [(), ("--unordered",)])
def test_stop_tells_what_runs(main: Main, capsys: Any, tasks: str, order: tuple[str, ...]) -> None:
    """Tasks that look at their token end, and are no failures themselves."""
    assert main("map", f"{tasks}:told", "a", "b", "bad", "c", *order, "-j3") == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("failed: ") == 1
    assert "'bad' failed: ValueError: bad item" in err
    assert "2 cancelled, 1 not started" in err


@pytest.mark.parametrize("order", [(), ("--unordered",)])
def test_skip_goes_on(main: Main, capsys: Any, tasks: str, order: tuple[str, ...]) -> None:
    """Every failure is named, everything else printed; status 1."""
    words = ("x", "1", "y", "2")
    assert main("map", f"{tasks}:number", *words, *order, "--on-error=skip") == 1
    out, err = capsys.readouterr()
    assert sorted(out.split()) == ["1", "2"]
    assert ("'x' failed" in err, "'y' failed" in err) == (True, True)


def test_a_task_that_exits(main: Main, capsys: Any, tasks: str) -> None:
    """SystemExit ends the task only, and is a failure."""
    assert main("map", f"{tasks}:leave", "a") == 1
    assert "'a' failed: SystemExit: 3" in capsys.readouterr().err


def test_an_error_without_text(main: Main, capsys: Any, tasks: str) -> None:
    """An exception's own code is not trusted."""
    assert main("map", f"{tasks}:mute", "a", "--quiet", "--json") == 1
    record = json.loads(capsys.readouterr().out)
    assert record["error"]["message"] == "<unprintable Mute object>"


def test_summary(main: Main, capsys: Any, tasks: str) -> None:
    """At the end the figures, on stderr."""
    assert main("map", f"{tasks}:same", "a", "b", "-j3") == 0
    out, err = capsys.readouterr()
    assert out == "a\nb\n"
    for name in ("2 done", "/s", "(p50)", "(p99)", "at most", "3 workers"):
        assert name in err


def test_long_items_are_named_in_short(main: Main, capsys: Any, tasks: str) -> None:
    """A message does not repeat a page."""
    assert main("map", f"{tasks}:number", "x" * 1000) == 1
    assert f"'{'x' * 79}…' failed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "the following arguments are required: COMMAND"),
        (("map",), "the following arguments are required: TARGET"),
        (("map", "builtins:len", "-j", "0"), "-j/--jobs: must be at least 1, not 0"),
        (("map", "builtins:len", "-j", "-3"), "-j/--jobs: must be at least 1, not -3"),
        (("map", "builtins:len", "-j", "many"), "must be a whole number, not 'many'"),
        (("map", "builtins:len", "-q", "-1"), "-q/--queue-size: must be at least 0, not -1"),
        (("map", "builtins:len", "--on-error", "ask"), "--on-error: invalid choice: 'ask'"),
        (("map", "builtins:len", "--loud"), "unrecognized arguments: --loud"),
        (("map", "len"), "TARGET: 'len': must be `module:function` or"),
        (("map", "builtins:"), "must be `module:function` or"),
        (("map", "no_such_module:f"), "No module named 'no_such_module'"),
        (("map", "no_such_file.py:f"), "there is no file 'no_such_file.py'"),
        (("map", "builtins:no_such"), "module 'builtins' has no attribute 'no_such'"),
        (("map", "builtins:Ellipsis"), "Ellipsis is not callable"),
        (("map", "builtins:..x"), "has no attribute ''"),
    ],
)
def test_wrong_usage(main: Main, capsys: Any, words: tuple[str, ...], message: str) -> None:
    """Status 2, and a message that names the argument and the value."""
    assert main(*words) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert out == ""


def test_a_coroutine_function_is_no_target(main: Main, capsys: Any, tasks: str) -> None:
    """It would only make coroutines."""
    assert main("map", f"{tasks}:coroutine", "a") == 2
    assert "coroutine is a coroutine function" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["import no_such_module", "1 / 0", "raise SystemExit(0)"])
@pytest.mark.parametrize("by_name", [True, False])
def test_a_target_that_cannot_be_imported(
    main: Main, capsys: Any, tmp_path: Path, text: str, by_name: bool
) -> None:
    """Its own traceback is shown, without the machinery's."""
    path = tmp_path / "broken_tasks_for_cli.py"
    path.write_text(text, "utf-8")
    sys.path.insert(0, str(tmp_path))
    assert main("map", f"{path.stem if by_name else path}:f", "a") == 2
    err = capsys.readouterr().err
    assert "importing it failed" in err
    assert err.count("  File ") == 1
    assert text in err


def test_targets(main: Main, capsys: Any, tasks: str, tmp_path: Path) -> None:
    """A module, attributes of attributes, a file with a neighbour to import."""
    assert main("map", "os.path:basename", "a/b", "--quiet") == 0
    assert main("map", f"{tasks}:Box.same", "c", "--quiet") == 0
    neighbour = tmp_path / "neighbour.py"
    neighbour.write_text("from tasks_for_cli import same\n", "utf-8")
    assert main("map", f"{neighbour}:same", "d", "--quiet") == 0
    assert capsys.readouterr().out == "b\nc\nd\n"


def test_a_file_does_not_take_the_place_of_a_module(
    main: Main, capsys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is called like a module others have imported leaves it alone."""
    path = tmp_path / "json.py"
    path.write_text("def f(item):\n    return __name__\n", "utf-8")
    assert main("map", f"{path}:f", "a", "--quiet") == 0
    monkeypatch.delitem(sys.modules, "_futurepool_target_json")
    assert capsys.readouterr().out == "_futurepool_target_json\n"
    assert sys.modules["json"] is json


def lines_of(data: bytes, tmp_path: Path, encoding: str = "utf-8", nul: bool = False) -> list[str]:
    path = tmp_path / "input"
    path.write_bytes(data)
    with path.open(encoding=encoding) as stdin:
        return [item for part in items.split(stdin, stdin.fileno(), nul) for item in part]


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"\n", [""]),
        (b"a", ["a"]),
        (b"a\n\nb\n", ["a", "", "b"]),
        (b"a\xff\n", ["a\udcff"]),
        (b"x" * 200_000 + b"\ny", ["x" * 200_000, "y"]),
    ],
)
def test_lines(data: bytes, lines: list[str], tmp_path: Path) -> None:
    """Lines without their ends, across blocks, whatever their bytes."""
    assert lines_of(data, tmp_path) == lines


@pytest.mark.parametrize(("end", "lines"), [("\n", ["a\r", "b"]), ("\r\n", ["a", "b"])])
def test_line_ends_are_the_platforms(
    end: str, lines: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A carriage return belongs to the line end on Windows only."""
    monkeypatch.setattr(os, "linesep", end)
    assert lines_of(b"a\r\nb\n", tmp_path) == lines


def test_lines_of_what_has_no_descriptor() -> None:
    """A stream that somebody has put in the place of stdin."""
    assert list(items.split(io.StringIO("a\nb"), None, False)) == [["a"], ["b"]]
    assert list(items.split(io.StringIO("a\nb\0c\0"), None, True)) == [["a\nb", "c"]]


def test_an_input_that_cannot_be_read(
    main: Main, capsys: Any, tasks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read is finished; then status 1."""

    class Stdin(io.StringIO):
        def __next__(self) -> str:
            line = super().__next__()
            if line == "broken\n":
                raise OSError(errno.EIO, "cable cut")
            return line

    monkeypatch.setattr(sys, "stdin", Stdin("a\nbroken\n"))
    assert main("map", f"{tasks}:same", "--quiet") == 1
    out, err = capsys.readouterr()
    assert out == "a\n"
    assert err == f"futurepool: cannot read standard input: [Errno {errno.EIO}] cable cut\n"


def test_no_input(main: Main, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed stdin is an error, not an empty one."""
    monkeypatch.setattr(sys, "stdin", None)
    assert main("map", "builtins:len", "--quiet") == 1
    assert "cannot read standard input" in capsys.readouterr().err


class Endless(io.StringIO):
    """An endless input that sees how far it is ahead of the output."""

    def __init__(self) -> None:
        super().__init__()
        self.read_lines = self.written = self.ahead = 0

    def __iter__(self) -> Endless:
        return self

    def __next__(self) -> str:
        self.ahead = max(self.ahead, self.read_lines - self.written)
        self.read_lines += 1
        return "y\n"

    def write(self, text: str) -> int:
        if self.written == 2000:
            raise BrokenPipeError
        self.written += 1
        return len(text)


@pytest.mark.slow
@pytest.mark.parametrize("order", [(), ("--unordered",)])
def test_bounded_memory(
    main: Main, capsys: Any, monkeypatch: pytest.MonkeyPatch, order: tuple[str, ...]
) -> None:
    """At most workers + queue size items are read and not printed, and one in the reader's hand."""
    stream = Endless()
    monkeypatch.setattr(sys, "stdin", stream)
    monkeypatch.setattr(sys, "stdout", stream)
    assert main("map", "builtins:len", "-j2", "-q5", *order) == 0
    monkeypatch.undo()
    assert stream.written == 2000
    assert stream.ahead <= 2 + 5 + 1
    assert capsys.readouterr().err == ""


def test_output_that_fails(
    main: Main, capsys: Any, tasks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error in writing is said in one line."""

    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(sys, "stdout", Full())
    assert main("map", f"{tasks}:same", "a", "--quiet") == 1
    assert "cannot write the results" in capsys.readouterr().err


def test_a_pipe_that_closes_at_the_last_flush(
    main: Main, tasks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the help is piped into something that reads nothing."""

    class Closed(io.StringIO):
        def flush(self) -> None:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Closed())
    assert main("--version") == 0
    assert main("map", f"{tasks}:same", "a", "--quiet") == 0


def test_ctrl_c_while_it_starts(
    main: Main, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C before there is a pool is 130 as well."""
    path = tmp_path / "tasks_for_cli.py"
    path.write_text("raise KeyboardInterrupt", "utf-8")
    assert main("map", f"{path}:f", "a") == 130
    assert capsys.readouterr() == ("", "")


def test_a_closed_stderr(main: Main, tasks: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages that nobody reads keep nothing from being done."""

    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Closed())
    assert main("map", f"{tasks}:number", "x") == 1


def test_bench(main: Main, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """`bench` is a module of its own, which is imported when it is asked for."""
    bench: Any = types.ModuleType("futurepool._cli.bench")
    bench.__spec__ = ModuleSpec("futurepool._cli.bench", None)
    bench.add_arguments = lambda parser: parser.add_argument("--rounds", type=int)
    bench.main = lambda args: args.rounds
    monkeypatch.setitem(sys.modules, "futurepool._cli.bench", bench)
    monkeypatch.setattr(
        "futurepool._cli.bench", bench, raising=False
    )  # where it was imported before
    assert main("bench", "--rounds", "7") == 7
    assert main("bench", "--rounds", "7", "more") == 2
    assert "unrecognized arguments: more" in capsys.readouterr().err


@posix
@pytest.mark.slow
@pytest.mark.parametrize("limit", [1000, 1500])
@pytest.mark.parametrize("more", [(), ("--log", "log"), ("--json",)])
def test_what_is_not_written_is_counted(
    run: Run, tmp_path: Path, more: tuple[str, ...], limit: int
) -> None:
    """Whether there is no room for results, for the log, or for what is noted beside it."""
    import resource

    (tmp_path / "noisy.py").write_text("def call(item):\n    print('called')\n    return item\n")
    with (tmp_path / "out").open("w") as out:
        done = run(
            *("map", "noisy.py:call", "-j1", *more),
            lines="".join([f"{n}\n" for n in range(1000)]),
            capture_output=False,
            stdout=out,
            stderr=subprocess.PIPE,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        )
    said = [
        line for line in done.stderr.splitlines() if line.startswith("futurepool: cannot write")
    ]
    assert done.returncode == 1
    lost = int(said[0].split()[-5].replace(",", ""))
    written = (tmp_path / "out").read_text().count("\n")
    assert done.stderr.count("called\n") == written + lost
    assert lost > 0


@posix
def test_an_interrupt_when_all_is_done() -> None:
    """The exit status is what it was, and nothing is said."""
    done = python(
        """
        import os, signal
        from futurepool._cli import main

        def too_late():
            os.kill(os.getpid(), signal.SIGINT)
            ignore()
            os.kill(os.getpid(), signal.SIGINT)

        signal.signal(signal.SIGINT, signal.default_int_handler)
        ignore, main._ignore_interrupts = main._ignore_interrupts, too_late
        main.main = lambda: 3
        main.run()
        """
    )
    assert (done.returncode, done.stderr) == (3, "")


@posix
def test_what_a_target_prints_in_the_child_of_a_fork() -> None:
    """Though another thread was just printing, by text or by bytes: it is not there to go on."""
    done = python(
        r"""
        import io, os, signal, sys, threading, warnings
        from futurepool._cli.streams import Streams

        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: threads and fork do not mix
        held, gate = threading.Event(), threading.Event()

        class Slow(io.TextIOBase):
            def write(self, text):
                if text == "first\n":
                    held.set()
                    gate.wait()
                err.write(text)
                err.flush()

        err, sys.stderr = sys.stderr, Slow()
        with Streams(live=False, reads=False):
            other = threading.Thread(target=lambda: sys.stdout.buffer.write(b"first\n"))
            other.start()
            held.wait()
            pid = os.fork()
            if pid == 0:
                signal.alarm(20)
                print("second")
                sys.stdout.buffer.write(b"third\n")
                os._exit(0)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            gate.set()
            other.join()
        print(code)
        """
    )
    assert (done.stdout, done.stderr) == ("0\n", "second\nthird\nfirst\n")
