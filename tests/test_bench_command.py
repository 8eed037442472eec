"""`python -m futurepool bench`: the table is there, whatever the figures."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from futurepool import bench
from futurepool.cli import main


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
