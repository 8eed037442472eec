"""What type checkers make of the public API: mypy and pyright, where they are installed.

Both judge for the oldest and the newest supported Python. They are in the `dev` extra; `.ci/run` has
them in the environment of its checks.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import futurepool

CASES = Path(__file__).parent
PACKAGE = Path(futurepool.__file__).parent
INSTALLED = "site-packages" in PACKAGE.parts
VERSIONS = pytest.mark.parametrize("version", ["3.10", "3.13"])
MARK = re.compile(r"  # E: (?P<rule>\w+) / (?P<code>[\w|-]+)$")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def needs(checker: str) -> pytest.MarkDecorator:
    missing = importlib.util.find_spec(checker) is None
    return pytest.mark.skipif(missing, reason=f"{checker} is not installed")


def run(cwd: Path, *command: str, **env: str) -> tuple[bool, str]:
    """Whether a checker found errors, and what it printed. That it cannot run fails the test."""
    # pyright looks for packages with the first `python` there.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", *command],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PATH": path, **env},
        cwd=cwd,
        check=False,
    )
    # A checker that is not there also ends with 1, but has nothing to say on stdout.
    assert done.returncode == 0 or (done.returncode == 1 and done.stdout), done.stderr
    return done.returncode == 1, done.stdout


def mypy(case: str, tmp: Path, version: str) -> dict[int, set[str]]:
    """Line -> codes of its errors. Errors anywhere else fail the test."""
    config = tmp / "mypy.ini"
    config.write_text("[mypy]\nstrict = true\nwarn_unreachable = true\n")
    options = ["--config-file", str(config), "--cache-dir", str(tmp)]
    options += ["--output", "json", "--no-error-summary", "--python-version", version]
    path = "" if INSTALLED else str(PACKAGE.parent)  # what is installed must not be on MYPYPATH
    failed, printed = run(tmp, "mypy", *options, str(CASES / case), MYPYPATH=path)
    found: dict[int, set[str]] = {}
    for line in printed.splitlines():
        entry = json.loads(line)
        if entry["severity"] == "error":
            assert Path(entry["file"]).name == case, entry
            found.setdefault(entry["line"], set()).add(entry["code"])
    assert failed == bool(found), printed
    return found


def pyright(case: str, tmp: Path, version: str) -> dict[int, set[str]]:
    """Line -> rules of its errors."""
    settings = {
        "typeCheckingMode": "strict",
        "pythonVersion": version,
        "extraPaths": [str(PACKAGE.parent)],
    }
    # It looks at nothing outside its project.
    (tmp / case).write_text((CASES / case).read_text("utf-8"), "utf-8")
    (tmp / "pyrightconfig.json").write_text(json.dumps(settings))
    failed, printed = run(tmp, "pyright", "--outputjson", "-p", str(tmp))
    answer = json.loads(printed)
    assert answer["summary"]["filesAnalyzed"] == 1
    found: dict[int, set[str]] = {}
    for entry in answer["generalDiagnostics"]:
        if entry["severity"] == "error":
            line = entry["range"]["start"]["line"] + 1
            found.setdefault(line, set()).add(entry.get("rule", "syntax"))
    assert failed == bool(found), printed
    return found


def marked(kind: str) -> dict[int, set[str]]:
    """Line of negative.py -> the `rule` or `code` that its mark names, or several to choose from."""
    lines = (CASES / "negative.py").read_text("utf-8").splitlines()
    marks = {number: MARK.search(line) for number, line in enumerate(lines, 1)}
    return {number: set(mark[kind].split("|")) for number, mark in marks.items() if mark}


def differences(found: dict[int, set[str]], expected: dict[int, set[str]]) -> dict[int, Any]:
    """Line -> (found, expected), where these differ. Further errors in a marked line are fine."""
    return {
        line: (found.get(line, set()), expected.get(line, set()))
        for line in sorted({*found, *expected})
        if not found.get(line, set()) & expected.get(line, set())
    }


def test_every_mark_is_read() -> None:
    """A mark with a typing error would leave its line without a test."""
    text = (CASES / "negative.py").read_text("utf-8")
    code = text.split('"""', 2)[2]
    assert len(marked("rule")) == code.count("# E") > 50


@needs("mypy")
@VERSIONS
def test_mypy_accepts_the_positive_cases(version: str, tmp_path: Path) -> None:
    """Everything in positive.py has just the types it says."""
    assert mypy("positive.py", tmp_path, version) == {}


@needs("mypy")
@VERSIONS
def test_mypy_refuses_the_negative_cases(version: str, tmp_path: Path) -> None:
    """Each marked line of negative.py is an error of the kind it names, and no other line is."""
    assert differences(mypy("negative.py", tmp_path, version), marked("code")) == {}


@needs("pyright")
@VERSIONS
def test_pyright_accepts_the_positive_cases(version: str, tmp_path: Path) -> None:
    """Everything in positive.py has just the types it says."""
    assert pyright("positive.py", tmp_path, version) == {}


@needs("pyright")
@VERSIONS
def test_pyright_refuses_the_negative_cases(version: str, tmp_path: Path) -> None:
    """Each marked line of negative.py is an error of the kind it names, and no other line is."""
    assert differences(pyright("negative.py", tmp_path, version), marked("rule")) == {}


@needs("pyright")
@pytest.mark.skipif(importlib.util.find_spec("rich") is None, reason="rich is not installed")
def test_public_types_are_complete(tmp_path: Path) -> None:
    """`--verifytypes`, which also needs py.typed, finds nothing to be inferred or unknown."""
    options = ["--verifytypes", "futurepool", "--ignoreexternal"]
    path = "" if INSTALLED else str(PACKAGE.parent)
    _, printed = run(tmp_path, "pyright", "--outputjson", *options, PYTHONPATH=path)
    report = json.loads(printed)["typeCompleteness"]
    assert Path(report["pyTypedPath"]).samefile(PACKAGE / "py.typed")
    incomplete = [
        f"{symbol['name']}: {problem['message']}"
        for symbol in report["symbols"]
        for problem in symbol["diagnostics"]
        if problem["severity"] == "error"
    ]
    assert (incomplete, report["completenessScore"]) == ([], 1)
