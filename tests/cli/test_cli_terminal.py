"""The command line at a terminal of 80 and of 40 columns."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from futurepool._cli import progress
from futurepool._cli.streams import Streams
from tests.cli.command import MAP, Terminal, plain, screen

pytest_plugins = ["tests.cli.fixtures"]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals")

Start = Callable[..., Terminal]
HIDE_CURSOR = "\x1b[?25l"


@pytest.mark.slow
@pytest.mark.parametrize("columns", [80, 40])
def test_progress(terminal: Start, tasks: str, columns: int) -> None:
    """Done, total, failed, rate and time left, on one line; then the results and the summary."""
    words = ("0.1", "x", "0.1", "1.2", "1.5")
    shown = terminal(*MAP, f"{tasks}:sleep", *words, "--on-error=skip", "-j4", columns=columns)
    assert shown.wait() == 1
    assert re.search(r"3/5  1 failed  [\d.]+/s  0:0\d left", plain(shown.seen))
    assert HIDE_CURSOR not in shown.seen
    lines = shown.lines
    assert lines[0].startswith("futurepool: 'x' failed: ValueError: could not convert")
    assert lines[1:5] == ["0.1", "0.1", "1.2", "1.5"]
    assert lines[5].startswith("futurepool: 4 done, 1 failed, ")
    assert len(lines) == 7
    assert max(map(len, drawn(shown.seen))) < columns


def drawn(seen: str) -> list[str]:
    """The progress lines."""
    parts = re.split(r"[\r\n]+|\x1b\[2K", plain(seen))
    return [part for part in parts if re.search(r"\d/\d", part)] or [""]


@pytest.mark.slow
@pytest.mark.parametrize("columns", [80, 40])
def test_what_runs_when_little_happens(terminal: Start, tasks: str, columns: int) -> None:
    """Three long calls: from the first second on it says which, and for how long."""
    words = ("2.61", "2.62", "2.63")
    shown = terminal(*MAP, f"{tasks}:sleep", *words, columns=columns)
    shown.wait_for(r"0/3 .*2\.6\d for 0:01 and 2 more")
    shown.wait_for(r"0/3 .*2\.6\d for 0:02 and 2 more")
    assert shown.wait() == 0
    assert max(map(len, drawn(shown.seen))) < columns


@pytest.mark.slow
def test_lines_of_a_file_are_counted(terminal: Start, tasks: str, tmp_path: Path) -> None:
    """A regular file on stdin has a total, and so a time left."""
    path = tmp_path / "items"
    path.write_text("0.3\n" * 7 + "0.3", "utf-8")
    with path.open() as items:
        shown = terminal(*MAP, f"{tasks}:sleep", "-j2", stdin=items)
        assert shown.wait() == 0
    assert re.search(r"\d/8  .*/s  0:0\d left", plain(shown.seen))


@pytest.mark.slow
def test_a_pipe_has_no_total(terminal: Start, tasks: str) -> None:
    """Nobody can know; the line shows the time that has passed."""
    shown = terminal(*MAP, f"{tasks}:sleep", stdin=subprocess.PIPE, columns=40)
    assert shown.process.stdin is not None
    shown.process.stdin.write("0\n0.7\n")
    shown.process.stdin.flush()
    shown.wait_for(r"\r?(1|2)  [\d.]+/s  0:0\d")
    shown.process.stdin.close()
    assert shown.wait() == 0


@pytest.mark.slow
@pytest.mark.parametrize("both", [True, False])
def test_what_the_target_writes_goes_past_the_line(
    terminal: Start, tasks: str, tmp_path: Path, both: bool
) -> None:
    """By print, by logging, by descriptor, by a child: whole lines, none of them in the results."""
    code = (
        f"import sys; sys.path.insert(0, {str(Path(tasks).parent)!r})\n"
        "import tasks_for_cli, time\n"
        "def noisy(item):\n    time.sleep(0.8)\n    return tasks_for_cli.noisy(item)\n"
    )
    (tmp_path / "wrapper.py").write_text(code, "utf-8")
    output = tmp_path / "output"
    with output.open("w") as file:
        shown = terminal(
            *(*MAP, "wrapper.py:noisy", "a", "b", "-j1"), **({} if both else {"stdout": file})
        )
        assert shown.wait() == 0
    lines = shown.lines
    for item in ("a", "b"):
        assert f"printed {item}" in lines
        assert f"WARNING:root:logged {item}" in lines
    for line in ("bytes", "descriptor", "child"):
        assert lines.count(line) == 2
    assert [line for line in lines if re.search(r"\d/2", line)] == []  # no dead progress line
    assert re.search(r"1/2", plain(shown.seen))
    assert output.read_text().split() == ([] if both else ["a", "b"])
    assert [line for line in lines if line in ("a", "b")] == (["a", "b"] if both else [])


@pytest.mark.slow
def test_long_results_stay_whole(terminal: Start, tasks: str) -> None:
    """On the terminal that shows the progress, too."""
    line = "word " * 60
    shown = terminal(*MAP, f"{tasks}:same", line, line)
    assert shown.wait() == 0
    assert shown.lines[:2] == [line, line]


@pytest.mark.slow
def test_quiet(terminal: Start, tasks: str) -> None:
    """--quiet shows nothing, failures included."""
    shown = terminal(*MAP, f"{tasks}:sleep", "0.7", "x", "--quiet", "--on-error=skip")
    assert (shown.wait(), plain(shown.seen)) == (1, "0.7\r\n")


@pytest.mark.slow
@pytest.mark.parametrize(("keys", "status"), [(b"\x03", 130), (None, 143)])
def test_the_end_by_a_signal(terminal: Start, tasks: str, keys: bytes | None, status: int) -> None:
    """Ctrl-C and SIGTERM: the line is gone, what is finished is printed, what hangs is named."""
    words = ("stuck", *map(str, range(499)))
    shown = terminal(*MAP, f"{tasks}:stuck", *words, "-j3")
    shown.wait_for(r"499/500 .*stuck")
    if keys is None:
        shown.process.send_signal(signal.SIGTERM)
    else:
        shown.type(keys)
    assert shown.wait() == status
    lines = [line.removeprefix("^C") for line in shown.lines]
    at = lines.index("0")
    assert lines[at : at + 499] == [str(n) for n in range(499)]
    assert "futurepool: 499 done, 1 abandoned, 0 not started" in lines[at + 499]
    assert lines[-1].startswith("futurepool: abandoned after 0:0")
    assert HIDE_CURSOR not in shown.seen


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="needs a shell")
def test_items_that_are_typed(terminal: Start, tasks: str) -> None:
    """Who has forgotten the items is told what is waited for."""
    command = f"{sys.executable} -m futurepool map {tasks}:same < /dev/tty"
    shown = terminal("-c", command, program="bash")
    shown.wait_for("the items are what you type, one a line; Ctrl-D ends them")
    shown.type(b"abc\n\x04")
    assert shown.wait() == 0
    assert "futurepool: 1 done" in shown.seen


@pytest.mark.slow
def test_what_is_being_typed_is_not_wiped(terminal: Start, tasks: str) -> None:
    """The progress line comes when all is typed."""
    command = f"{sys.executable} -m futurepool map {tasks}:sleep < /dev/tty"
    shown = terminal("-c", command, program="bash")
    shown.wait_for("Ctrl-D ends them")
    shown.type(b"1.51\nab")
    shown.wait_for(r"1\.51[^$]*1\.51\r\n")  # the echo; the result
    assert "\x1b[2K" not in shown.seen
    shown.type(b"\x151.52\n\x04")
    shown.wait_for(re.escape("\x1b[2K"))
    assert shown.wait() == 0


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="needs a shell with job control")
def test_ctrl_z(terminal: Start, tasks: str) -> None:
    """The line is taken away before it stops, and is there again when it goes on."""
    command = f"set -m; {sys.executable} -m futurepool map {tasks}:sleep 1 1 1 -j1"
    then = "echo stopped $?; fg > /dev/null; echo ended $?"
    shown = terminal("--norc", "-c", f"{command}; {then}", program="bash")
    shown.wait_for(r"/3 ")
    shown.type(b"\x1a")
    shown.wait_for("stopped 148")
    before = shown.seen.partition("stopped 148")[0]
    assert [line for line in screen(before) if re.search(r"\d/3", line)] == []
    shown.wait_for(r"/3 ", len(before))
    shown.wait_for("ended 0")
    assert HIDE_CURSOR not in shown.seen


def test_ctrl_z_while_the_line_is_drawn(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is on the screen and not yet known to be there is taken away as well."""
    with Streams(True, False) as streams:
        foreign = streams.foreign

        def struck(text: str) -> None:
            foreign(text)
            monkeypatch.undo()
            streams.wipe()

        monkeypatch.setattr(streams, "foreign", struck)
        streams.show("1/3")
        assert screen(capsys.readouterr().err) == []


@pytest.mark.slow
def test_a_terminal_that_can_do_nothing(
    terminal: Start, tasks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TERM=dumb has no progress line."""
    import tests.cli.command

    plainly = {**tests.cli.command.environment(), "TERM": "dumb"}
    monkeypatch.setattr(tests.cli.command, "environment", lambda: plainly)
    shown = terminal(*MAP, f"{tasks}:sleep", "0.8")
    assert shown.wait() == 0
    assert "\x1b" not in shown.seen
    assert shown.lines[0] == "0.8"


@pytest.mark.parametrize(
    ("idle", "width", "text"),
    [
        (0.0, 79, "90/100  1 failed  9/s  0:01 left"),
        (1.0, 79, "90/100  1 failed  9/s  0:01 left  some item for 0:01 and 2 more"),
        (5.0, 79, "90/100  1 failed  9/s  some item for 0:05 and 2 more"),
        (5.0, 39, "90/100  1 failed  some item for 0:05"),
        (5.0, 33, "90/100  1 failed  some … for 0:05"),
    ],
)
def test_what_the_line_says(idle: float, width: int, text: str) -> None:
    """The most important words; no time left that has passed already."""
    running = [(idle, "some item"), (0.0, "b"), (0.0, "c")]
    state = progress.State(90, 1, 100, running, idle, "")
    assert progress.Progress(0.0).text(10.0, state, width) == text


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        ("seconds", 0.0, "0 µs"),
        ("seconds", 0.000012, "12 µs"),
        ("seconds", 0.00342, "3.42 ms"),
        ("seconds", 1.5, "1.5 s"),
        ("seconds", 4321.0, "4321 s"),
        ("duration", 0.4, "0:00"),
        ("duration", 75, "1:15"),
        ("duration", 3675, "1:01:15"),
        ("duration", 1e6, "11 days"),
        ("rate", 19400.0, "19,400/s"),
        ("rate", 0.5, "0.5/s"),
        ("rate", 0.05, "3/min"),
        ("number", 1234567, "1,234,567"),
        ("escape", "a\nb\x1b[2J\udcff", "a\\nb\\x1b[2J\\udcff"),
    ],
)
def test_figures(function: str, value: object, text: str) -> None:
    """In the unit that suits them; nothing moves the cursor."""
    assert getattr(progress, function)(value) == text
