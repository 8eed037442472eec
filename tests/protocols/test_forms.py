"""The hot paths in another form, by FUTUREPOOL_FORM, hold what those of the default form hold."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]

#: Where the extension is there, all other tests run over it.
BUILT = importlib.util.find_spec("futurepool._pool._fast") is not None
built = pytest.mark.skipif(not BUILT, reason="the extension was not built")

#: Runs of other tests: what they are called, and what pytest is told.
RUNS: dict[str, list[str]] = {
    "what workers and submitters go through": [
        "tests/pool/test_worker.py",
        "tests/api/test_submission.py",
    ],
    "what is admitted, in which order": [
        "tests/api/test_admission.py",
        "tests/pool/test_order.py",
        "tests/api/test_tokens.py",
    ],
    "random programs": ["tests/api/test_stateful.py"],
    "schedules": ["tests/protocols/test_interleavings.py", "-k", "no_schedule"],
    "ways to die": [
        "tests/faults/test_faults.py",
        "-m",
        "not thorough",
        "-k",
        "fork or thread or exit or token",
    ],
    "the standard library's tests": [
        "tests/peers/test_other_suites.py",
        "-k",
        "swapped_in and concurrent.futures",
    ],
}


def ask(form: str, code: str) -> subprocess.CompletedProcess[str]:
    """Run some code in a process with that form."""
    env = {**os.environ, "FUTUREPOOL_FORM": form, "PYTHONPATH": str(TOP)}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=50)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["fast", "plain", pytest.param("compiled", marks=built)])
def test_the_form_is_chosen_at_import(form: str) -> None:
    """And each does what is asked for."""
    code = """
import futurepool
with futurepool.BoundedExecutor(2) as pool:
    print(futurepool.form, sum(pool.map(abs, range(-10, 0))), pool.submit.__name__)
"""
    assert ask(form, code).stdout.split() == [form, "55", "submit"]


@pytest.mark.slow
def test_another_form_is_refused() -> None:
    """By the names of those there are, with the first name that is imported."""
    forms = "compiled, fast, plain" if BUILT else "fast, plain"
    code = "from futurepool import BoundedExecutor"
    assert f"one of {forms}, not 'slow'" in ask("slow", code).stderr


@pytest.mark.slow
@pytest.mark.thorough
@pytest.mark.timeout(300)
@pytest.mark.skipif("FUTUREPOOL_FORM" in os.environ, reason="this is the run")
@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="it finds the same everywhere")
@pytest.mark.parametrize("form", ["plain", pytest.param("fast", marks=built)])
@pytest.mark.parametrize("name", RUNS)
def test_another_form_passes(name: str, form: str) -> None:
    """What is tested of the one is tested of the other."""
    env = {**os.environ, "FUTUREPOOL_FORM": form, "FUTUREPOOL_SCHEDULES": "0.03"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *RUNS[name]]
    done = subprocess.run(
        command, cwd=TOP, env=env, capture_output=True, text=True, check=False, timeout=280
    )
    assert done.returncode == 0, done.stdout[-4000:]
