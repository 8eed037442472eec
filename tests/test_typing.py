"""What type checkers make of the public API: mypy and pyright, where they are installed."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import futurepool

CASES = Path(__file__).parent / "typing"
HOME = Path(futurepool.__file__).parent.parent


def mypy(path: Path, cache: Path) -> dict[int, str]:
    """Line -> error."""
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--cache-dir"]
    config = cache / "mypy.ini"
    config.write_text("[mypy]\n")
    env = {**os.environ, "MYPYPATH": "" if "site-packages" in str(HOME) else str(HOME)}
    done = subprocess.run(  # noqa: PLW1510 - errors are what is looked for
        [*command, str(cache), "--config-file", str(config), str(path)],
        capture_output=True,
        text=True,
        env=env,
        cwd=cache,
    )
    assert done.stderr == ""
    found = re.findall(r"^.*?\.py:(\d+): error: (.*)$", done.stdout, re.MULTILINE)
    assert done.returncode == bool(found), done.stdout
    return {int(line): text for line, text in found}


def pyright(path: Path, cache: Path) -> dict[int, str]:
    """Line -> error."""
    settings = {"typeCheckingMode": "strict", "extraPaths": [str(HOME)]}
    shutil.copy(path, cache)  # it looks at nothing outside its project
    (cache / "pyrightconfig.json").write_text(json.dumps(settings))
    done = subprocess.run(  # noqa: PLW1510 - errors are what is looked for
        [sys.executable, "-m", "pyright", "--outputjson", "-p", str(cache)],
        capture_output=True,
        text=True,
    )
    answer = json.loads(done.stdout)
    assert answer["summary"]["filesAnalyzed"] == 1
    found = answer["generalDiagnostics"]
    return {
        entry["range"]["start"]["line"] + 1: entry["message"]
        for entry in found
        if entry["severity"] == "error"
    }


CHECKERS = [
    pytest.param(
        check,
        marks=pytest.mark.skipif(
            importlib.util.find_spec(check.__name__) is None, reason="checker not installed"
        ),
        id=check.__name__,
    )
    for check in (mypy, pyright)
]


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("check", CHECKERS)
def test_positive_cases(check: object, tmp_path: Path) -> None:
    """Everything in positive.py has just the types it says."""
    assert callable(check)
    assert check(CASES / "positive.py", tmp_path) == {}


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("check", CHECKERS)
def test_negative_cases(check: object, tmp_path: Path) -> None:
    """Each marked line of negative.py is an error, and no other."""
    assert callable(check)
    path = CASES / "negative.py"
    marked = [
        number
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if line.endswith("# E")
    ]
    assert sorted(check(path, tmp_path)) == marked
