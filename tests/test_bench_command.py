"""`python -m futurepool bench`: the table is there, whatever the figures."""

from __future__ import annotations

import importlib.util

import pytest

from futurepool.cli import main


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("rich") is None, reason="the cli extra is missing")
def test_bench_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    """Both executors, every case, versions and cores."""
    assert main(["bench", "--seconds", "1"]) == 0
    out = capsys.readouterr().out
    for part in ("ThreadPoolExecutor", "BoundedExecutor", "CPython", "cores", "memory per queued"):
        assert part in out


def test_bad_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    """Usage, with the argument and the value."""
    with pytest.raises(SystemExit) as caught:
        main(["bench", "--seconds", "nan"])
    assert caught.value.code == 2
    assert "--seconds" in capsys.readouterr().err
