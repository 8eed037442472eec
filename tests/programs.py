"""Programs that tests run in an interpreter of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import futurepool

HOME = Path(futurepool.__file__).parent.parent  # there also where it is not installed


def environment(**more: str) -> dict[str, str]:
    """This process's, with the package in reach."""
    return {**os.environ, "PYTHONPATH": str(HOME), **more}


def unmeasured() -> dict[str, str]:
    """The same without coverage, for programs that it would be in the way of.

    Its callbacks take stack, its imports are seen, and subinterpreters do not find what the script of a
    process defines that it was started in.
    """
    return {
        name: value for name, value in environment().items() if not name.startswith("COVERAGE_")
    }


def python(
    code: str, *options: str, timeout: float = 100, **more: Any
) -> subprocess.CompletedProcess[str]:
    """Run `code`, which may be indented, and wait for its end; the caller looks at how it was.

    Args:
        code: What to run.
        options: Of the interpreter. Without any, every warning is an error.
        timeout: Seconds.
        more: Other arguments of `subprocess.run`.
    """
    return subprocess.run(  # noqa: PLW1510 - the caller looks
        [sys.executable, *(options or ("-W", "error")), "-c", textwrap.dedent(code)],
        **{
            "capture_output": True,
            "text": True,
            "timeout": timeout,
            "env": environment(),
            **more,
        },
    )
