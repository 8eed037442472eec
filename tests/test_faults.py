"""Each known way to die, tried on BoundedExecutor in a process of its own; see tests/faults.

Here a fixed sample of the exhaustive ones; `python -m tests.faults --full` is the whole.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.faults.__main__ import TOP, run
from tests.faults.probes import PROBES
from tests.faults.watchdog import barked


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", PROBES)
def test_alive(name: str) -> None:
    """No hang, nothing lost, nothing doubled."""
    word, text = run(name)
    if word == "-":
        pytest.skip(text)
    assert word == "ok", text


@pytest.mark.slow
@pytest.mark.parametrize("name", ["thread_start", "traceback_length", "huge_timeouts"])
def test_the_probes_can_fail(name: str) -> None:
    """The standard library's executor does not pass what it is known not to pass."""
    word, _ = run(name, bounded=False)
    assert word not in ("ok", "-")


@pytest.mark.slow
def test_a_hang_is_an_outcome() -> None:
    """The watchdog ends a process that hangs, and says where it hung."""
    program = """
import threading
from tests.faults.watchdog import Watchdog
with Watchdog(0.2): threading.Event().wait()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=TOP, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert barked(done.stderr)
    assert "in wait" in done.stderr
