"""`python -m futurepool bench`: the table is there, whatever the figures."""

from __future__ import annotations

import errno
import importlib.util
import io
import sys
import types
from concurrent.futures import Executor

import pytest

from futurepool._cli import bench
from futurepool._cli.main import main


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Measure nothing; what was printed when each case began."""
    printed: list[str] = []

    def compare(_case: object, _seconds: float) -> tuple[float, float, float]:
        printed.append(capsys.readouterr().out)
        return 1_234_567.0, 123_456_789.0, 100.0

    monkeypatch.setattr(bench, "_compare", compare)
    return printed


@pytest.mark.slow
@pytest.mark.once
def test_bench_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    """Both executors, every case, versions and cores."""
    assert main(["bench", "--seconds", "1"]) == 0
    out = capsys.readouterr().out
    for part in ("ThreadPoolExecutor", "BoundedExecutor", "CPython", "core", "memory per queued"):
        assert part in out


def test_bad_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    """Usage, with the argument and the value."""
    with pytest.raises(SystemExit) as caught:
        main(["bench", "--seconds", "nan"])
    assert caught.value.code == 2
    assert "--seconds" in capsys.readouterr().err


def test_without_a_terminal_each_row_is_printed_when_it_is_known(
    measured: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """One plain line for each case, before the next begins, and a newline at the end."""
    assert main(["bench"]) == 0
    title, heading = measured[0].splitlines()
    assert title.startswith("futurepool ")
    assert heading.split()[-3:] == ["ThreadPoolExecutor", "BoundedExecutor", "gain"]
    assert (
        measured[1] == "submit/result, 1 worker             1,234,567/s     123,456,789/s    x100\n"
    )
    assert all(part.count("\n") == 1 for part in measured[1:])
    assert capsys.readouterr().out.endswith("x100\n")


def test_a_dumb_terminal_gets_plain_rows(
    measured: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No table is redrawn where it cannot be."""
    monkeypatch.setattr(bench, "_width", lambda: 100)
    monkeypatch.setenv("TERM", "dumb")
    assert main(["bench"]) == 0
    assert measured[1].startswith("submit/result, 1 worker   ")


@pytest.mark.parametrize("width", [40, 60])
def test_a_narrow_terminal_keeps_the_gain(
    width: int,
    measured: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Other columns wrap; nothing is wider than the terminal."""
    monkeypatch.setattr(bench, "_width", lambda: width)
    assert main(["bench"]) == 0
    _, *lines = ("".join(measured) + capsys.readouterr().out).splitlines()
    assert max(map(len, lines)) <= width
    ends = [line.split()[-1] for line in lines]
    assert ends.count("x100") == len(measured)


@pytest.mark.skipif(importlib.util.find_spec("rich") is None, reason="the cli extra is missing")
def test_a_wide_terminal_gets_a_table_of_rich(
    measured: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a frame, and every gain."""
    monkeypatch.setattr(bench, "_width", lambda: 80)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["bench"]) == 0
    printed = "".join(measured) + capsys.readouterr().out
    assert printed.count("x100") == len(measured)
    assert "BoundedExecutor" in printed


def test_the_width_is_that_of_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is none for a file, nor without stdout."""
    monkeypatch.setenv("COLUMNS", "50")
    assert bench._width() is None
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert bench._width() == 50
    monkeypatch.setattr(sys, "stdout", None)
    assert bench._width() is None


def test_short_turns_are_noted(measured: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Under the table, with the number of seconds from which they are long enough."""
    assert main(["bench", "--seconds", "1"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "Turns of 7.81 ms say little; for more, give --seconds 13 or above."
    assert main(["bench", "--seconds", "13"]) == 0
    assert "say little" not in capsys.readouterr().out
    assert measured


def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Give the module a clock that only moves when the one value of this list does."""
    now = [0.0]
    monkeypatch.setattr(bench, "time", types.SimpleNamespace(perf_counter=lambda: now[0]))
    return now


@pytest.mark.parametrize(("seconds", "tasks"), [(10.0, 640), (0.25, 160), (0.01, 20)])
def test_all_turns_have_the_same_pools_and_number_of_tasks(
    seconds: float, tasks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number is the case's own, unless the turns are too short for it."""
    now = clock(monkeypatch)
    runs: list[tuple[Executor, int]] = []

    def run(pool: Executor, n: int) -> float:
        now[0] += n / 1000
        runs.append((pool, n))
        return 100.0

    assert bench._compare(bench._Case("", run, 1, tasks=640), seconds) == (100, 100, 1)
    assert len({id(pool) for pool, _ in runs}) == 2
    assert {n for _, n in runs[-2 * bench._TURNS :]} == {tasks}


def test_a_turn_has_as_many_repetitions_as_fit_best(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its figure is that of all tasks in all the time, or the median of other figures."""
    now = clock(monkeypatch)
    rates: list[float] = []

    def run(_pool: Executor, n: int) -> float:
        rate = rates.pop(0)
        now[0] += n / rate
        return rate

    pool: Executor = None  # type: ignore[assignment]  # is not looked at
    rates[:] = [100.0, 50.0]  # 3 seconds for 200 tasks
    assert bench._repeat(bench._Case("", run, 1), pool, 100, 3.5) == pytest.approx(200 / 3)
    rates[:] = [100.0, 100.0, 50.0]
    assert bench._repeat(bench._Case("", run, 1, unit="s"), pool, 100, 3.0) == 100
    assert not rates


@pytest.mark.parametrize("width", [None, 80])
def test_the_micro_sign_is_written_where_it_can_be(
    width: int | None, measured: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a "u" stands for it; in a file, and in the table of rich if it is there."""
    monkeypatch.setattr(bench, "_width", lambda: width)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    for encoding, unit in (("utf-8", "µs"), ("ascii", "us")):
        written = io.BytesIO()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding))
            assert main(["bench"]) == 0
            assert f"1,234,567 {unit} " in written.getvalue().decode(encoding)
    assert measured


class _Full(io.StringIO):
    """A stream that cannot be written."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    def write(self, _text: str, /) -> int:
        raise OSError(self._number, "it is broken")


@pytest.mark.parametrize(("number", "status"), [(errno.EPIPE, 0), (errno.ENOSPC, 1)])
def test_a_stdout_that_cannot_be_written(
    number: int,
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A closed pipe ends it quietly, a full disk with a sentence and status 1."""
    monkeypatch.setattr(sys, "stdout", _Full(number))
    assert main(["bench"]) == status
    errors = capsys.readouterr().err
    assert errors.startswith("futurepool: cannot write to stdout: ") == (status == 1)
    assert errors.count("\n") == status


def test_neither_stdout_nor_stderr_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the status is left to tell."""
    monkeypatch.setattr(sys, "stdout", _Full(errno.ENOSPC))
    monkeypatch.setattr(sys, "stderr", _Full(errno.ENOSPC))
    assert main(["bench"]) == 1
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["bench"]) == 1
