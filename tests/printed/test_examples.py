"""The examples run, and print what they promise."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import futurepool

#: What `basic` reads, and how many tasks that makes: each file twice, and one that is missing.
FILES = len(list(Path(json.__file__).parent.glob("*.py")))
TASKS = 2 * FILES + 1
EXAMPLES = Path(__file__).parents[2] / "examples"
PACKAGE = str(Path(futurepool.__file__).parent.parent)  # there also where it is not installed

#: Those that take paths: any word is one, but an option.
PATHS = {"checksum", "trace"}
#: Lines that each example prints, among others.
EXPECTED = {
    "asgi_app": ["none lost: True", "all who waited were served: True"],
    "asyncio_app": ["the loop went on: True", "tasks: True"],
    "basic": [
        f"task {TASKS} (count_words) failed: FileNotFoundError",
        f"{TASKS} tasks, 1 failed",
    ],
    "checksum": [],
    "dask_engines": [
        "urgent: 1060, the last: 4269516",
        "failed as itself: True",
        "at most 2 at a time, 22 tasks in all",
    ],
    "metrics_service": [
        "at least eight were served: True",
        "the metrics say so: True",
        "nonsense is refused: True",
        "it is well: True",
        "ended: all that was accepted is done",
    ],
    "rate_limiting": [
        "40 replies, the last: reply to /39",
        "requests the server saw: 40",
        "told to come back later: True, True",
        "no faster than the limit: True",
    ],
    "trace": [
        "called off before it started: True",
        "bars of tasks that ran: 10",
        "the urgent ones overtook the batch: True",
    ],
    "with_context": [
        "hit: 000019726cf8...",
        "the rest was called off: True",
        "two tasks worked until the deadline: True",
        "the third never started: deadline of 0.2 s passed",
    ],
    "with_metrics": [
        "its stack shows the line: True",
        "every task accounted for: True",
    ],
    "with_priority": [
        "finished: viewer, preview, " + ", ".join(f"batch {number}" for number in range(6)),
    ],
}


def run(*words: str, lines: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run Python, warnings as errors."""
    return subprocess.run(
        [sys.executable, "-W", "error", *words],
        cwd=EXAMPLES.parent,
        env={**os.environ, "PYTHONPATH": PACKAGE, "PYTHONIOENCODING": "utf-8"},
        input=lines,
        capture_output=True,
        encoding="utf-8",
        timeout=50,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_example(path: Path) -> None:
    """It ends well, says nothing on stderr, and prints the lines that are expected."""
    done = run(str(path))
    assert (done.returncode, done.stderr) == (0, "")
    assert set(EXPECTED.get(path.stem, [])) - set(done.stdout.splitlines()) == set()


@pytest.mark.slow
@pytest.mark.thorough
@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_refuses_unknown_words(path: Path) -> None:
    """A misspelt word is no reason to run something else."""
    word = "--nonsense" if path.stem in PATHS else "nonsense"
    done = run(str(path), word)
    assert (done.returncode, done.stdout) == (2, "")
    assert word in done.stderr


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_uses_public_names_only(path: Path) -> None:
    """Of this package and of others: who copies an example should be able to rely on it."""
    assert re.findall(r"(?<!self)\._(?!_)\w+", path.read_text("utf-8")) == []


@pytest.mark.slow
@pytest.mark.exhaustive
def test_the_cluster_ends_quietly() -> None:
    """dask's processes and loops end with the pool, say nothing, and soon."""
    # Not imported, as that looks at the class of every exception, those of other tests too.
    if importlib.util.find_spec("distributed") is None:
        pytest.skip("dask's distributed is not installed")
    began = time.monotonic()
    done = run(str(EXAMPLES / "dask_engines.py"), "cluster")
    assert (done.returncode, done.stderr) == (0, "")
    assert set(EXPECTED["dask_engines"]) <= set(done.stdout.splitlines())
    assert time.monotonic() - began < 10


def test_none_is_missing() -> None:
    """Every example that is promised is there."""
    assert set(EXPECTED) - {path.stem for path in EXAMPLES.glob("*.py")} == set()


def checksums(paths: list[str]) -> list[str]:
    """What sha256sum prints."""
    root = EXAMPLES.parent
    return [f"{hashlib.sha256((root / path).read_bytes()).hexdigest()}  {path}" for path in paths]


@pytest.mark.slow
def test_checksum_of_its_arguments() -> None:
    """The script prints what sha256sum prints."""
    paths = [path.relative_to(EXAMPLES.parent).as_posix() for path in sorted(EXAMPLES.glob("*.py"))]
    done = run("examples/checksum.py", *paths)
    assert (done.stdout.splitlines(), done.stderr) == (checksums(paths), "")


@pytest.mark.slow
def test_checksum_as_a_job() -> None:
    """The README's job: names on stdin, a line for each, in their order."""
    paths = [path.relative_to(EXAMPLES.parent).as_posix() for path in sorted(EXAMPLES.glob("*.py"))]
    job = ("-m", "futurepool", "map", "examples/checksum.py:sha256", "--quiet")
    done = run(*job, lines="".join(f"{path}\n" for path in paths))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == checksums(paths)
