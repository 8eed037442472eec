"""Fixtures of the tests of the command line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from futurepool._cli import main as cli
from tests.cli.command import PATIENCE, TASKS, Popen, Run, Terminal, environment


@pytest.fixture
def tasks(tmp_path: Path) -> str:
    """A file of functions to call: `path/to/tasks_for_cli.py`."""
    path = tmp_path / "tasks_for_cli.py"
    path.write_text(TASKS, "utf-8")
    return str(path)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run `python -m futurepool WORD ...` and wait for its end."""

    def run(
        *words: str, lines: str = "", start: tuple[str, ...] = ("-m", "futurepool"), **more: Any
    ) -> subprocess.CompletedProcess[str]:
        options: dict[str, Any] = {
            "cwd": tmp_path,
            "env": environment(),
            "input": lines,
            "capture_output": True,
            "encoding": "utf-8",
            "errors": "surrogateescape",
            "timeout": PATIENCE,
        }
        options.update(more)
        command = [sys.executable, "-W", "error", *start, *words]
        return subprocess.run(command, check=False, **options)

    return run


@pytest.fixture
def popen(tmp_path: Path) -> Iterator[Popen]:
    """Start `python CODE WORD ...` with pipes; killed at the end."""
    started: list[subprocess.Popen[str]] = []

    def popen(*words: str, **more: Any) -> subprocess.Popen[str]:
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        process: subprocess.Popen[str] = subprocess.Popen(
            [sys.executable, *words],
            **{"cwd": tmp_path, "env": environment(), "encoding": "utf-8", **pipes, **more},
        )
        started.append(process)
        return process

    yield popen
    for process in started:
        process.kill()
        process.wait(PATIENCE)
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                try:
                    stream.close()
                except OSError:  # what was to be flushed has no reader any more
                    pass


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    """Start a process on a pseudo-terminal; killed at the end."""
    started: list[Terminal] = []

    def terminal(*words: str, **more: Any) -> Terminal:
        started.append(Terminal(*words, cwd=tmp_path, **more))
        return started[-1]

    yield terminal
    for one in started:
        one.close()


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """`main()` with words; a usage error is its status. `sys` is put back at the end."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", sys.path[:])

    def main(*words: str) -> int:
        try:
            return cli.main(words)
        except SystemExit as end:
            return int(str(end.code))
        finally:
            for name in set(sys.modules) - before:
                if "tasks_for_cli" in name:
                    del sys.modules[name]

    return main
