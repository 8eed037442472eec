"""CPython's own tests of ThreadPoolExecutor pass with BoundedExecutor in its place."""

from __future__ import annotations

from pathlib import Path

import cpython_suite
import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(120),
    pytest.mark.skipif(
        cpython_suite.why_missing() is not None, reason=str(cpython_suite.why_missing())
    ),
]

# Each mutant breaks one promise and names a test of the suite that must notice.
MUTANTS = {
    "forgets cancel_futures": (
        "ThreadPoolShutdownTest.test_cancel_futures",
        """
class Mutant(BoundedExecutor):
    def shutdown(self, wait=True, *, cancel_futures=False):
        super().shutdown(wait)
""",
    ),
    "loses a keyword argument": (
        "ThreadPoolExecutorTest.test_submit_keyword",
        """
class Mutant(BoundedExecutor):
    def submit(self, fn, /, *args, **kwargs):
        kwargs.pop("y", None)
        kwargs.pop("fn", None)
        return super().submit(fn, *args, **kwargs)
""",
    ),
}


def test_the_suite_passes_with_this_class_swapped_in(tmp_path: Path) -> None:
    """No test is changed, none fails, and the thread tests did run."""
    outcome = cpython_suite.run_suite(tmp_path)
    assert not outcome.failed, str(outcome)
    assert outcome.run - len(outcome.skipped) > 40, str(outcome)


@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_swap_bites(mutant: str, tmp_path: Path) -> None:
    """A class that breaks a promise fails."""
    noticed_by, body = MUTANTS[mutant]
    outcome = cpython_suite.run_suite(
        tmp_path, name="Mutant", body=body, only="ThreadPoolShutdown.*cancel|test_submit_keyword"
    )
    assert any(name.endswith(noticed_by) for name in outcome.failed), str(outcome)


def test_children_get_the_swapped_class(tmp_path: Path) -> None:
    """A mutant that drops its work at exit fails the test that runs `-I` children."""
    body = """
class Mutant(BoundedExecutor):
    def submit(self, fn, /, *args, **kwargs):
        if fn.__name__ == "sleep_and_print":
            return super().submit(int)
        return super().submit(fn, *args, **kwargs)
"""
    outcome = cpython_suite.run_suite(
        tmp_path, name="Mutant", body=body, only="ThreadPoolShutdownTest.test_interpreter_shutdown"
    )
    (text,) = outcome.failed.values()
    assert "b'apple'" in text  # what the lost task was to print
