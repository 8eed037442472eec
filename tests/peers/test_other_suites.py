"""Tests that others wrote for ThreadPoolExecutor pass with BoundedExecutor in its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.peers import other_suites
from tests.peers.other_suites import BY_NAME, Outcome, Pool

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


def required(name: str) -> other_suites.Suite:
    suite = BY_NAME[name]
    reason = suite.why_missing()
    if reason is not None:
        pytest.skip(reason)
    return suite


_IN_THE_CALLER = """
class Mutant(BoundedExecutor):
    def submit(self, fn, /, *args, **kwargs):
        future = super().submit(int)
        future.result()
        future._result = fn(*args, **kwargs)
        return future
"""

# Each mutant breaks one promise and names a test that must notice: (suite, test, class).
MUTANTS = {
    "forgets cancel_futures": (
        "concurrent.futures",
        "ThreadPoolShutdownTest.test_cancel_futures",
        """
class Mutant(BoundedExecutor):
    def shutdown(self, wait=True, *, cancel_futures=False):
        super().shutdown(wait)
""",
    ),
    "loses a keyword argument": (
        "concurrent.futures",
        "ThreadPoolExecutorTest.test_submit_keyword",
        """
class Mutant(BoundedExecutor):
    def submit(self, fn, /, *args, **kwargs):
        kwargs.pop("y", None)
        kwargs.pop("fn", None)
        return super().submit(fn, *args, **kwargs)
""",
    ),
    "calls nothing in the default executor": (
        "asyncio",
        "test_base_events.BaseEventLoopWithSelectorTests.test_create_connection_service_name",
        """
class Mutant(BoundedExecutor):
    def submit(self, fn, /, *args, **kwargs):
        return super().submit(int)
""",
    ),
    "calls twice": (
        "asyncio",
        "test_threads.ToThreadTests.test_to_thread_once",
        """
class Mutant(BoundedExecutor):
    def submit(self, fn, /, *args, **kwargs):
        super().submit(fn, *args, **kwargs).result()
        return super().submit(fn, *args, **kwargs)
""",
    ),
    "is not another thread": (
        "asyncio",
        "test_futures.PyFutureTests.test_wrap_future",
        _IN_THE_CALLER,
    ),
    "is not several threads": ("dask.threaded", "test_pool_kwarg[Mutant]", _IN_THE_CALLER),
    "refuses to be dask's default pool": (
        "dask.threaded",
        "test_get",
        """
class Mutant(BoundedExecutor):
    def submit(self, fn, /, *args, **kwargs):
        raise RuntimeError("refused")
""",
    ),
}


@pytest.mark.parametrize("name", BY_NAME)
def test_the_suite_passes_with_this_class_swapped_in(name: str, tmp_path: Path) -> None:
    """No test is changed, none fails that the standard class passes, and tests did run."""
    suite = required(name)
    outcome, worse = other_suites.failures(tmp_path, suite)
    assert not worse, str(outcome)
    assert len(outcome.run) - len(outcome.skipped) >= suite.at_least, str(outcome)


@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_swap_bites(mutant: str, tmp_path: Path) -> None:
    """A class that breaks a promise fails, where the standard one does not."""
    name, test, body = MUTANTS[mutant]
    suite = required(name)
    only = test.replace("[", r"\[(ThreadPoolExecutor|").replace("]", r")\]") + "$"
    outcome, worse = other_suites.failures(tmp_path, suite, Pool("Mutant", body), only=only)
    assert [failed.endswith(test) for failed in worse] == [True], str(outcome)


def test_children_get_the_swapped_class(tmp_path: Path) -> None:
    """A mutant that drops its work at exit fails the test that runs `-I` children."""
    body = """
class Mutant(BoundedExecutor):
    def submit(self, fn, /, *args, **kwargs):
        if fn.__name__ == "sleep_and_print":
            return super().submit(int)
        return super().submit(fn, *args, **kwargs)
"""
    outcome = other_suites.run_suite(
        tmp_path,
        required("concurrent.futures"),
        Pool("Mutant", body),
        only="ThreadPoolShutdownTest.test_interpreter_shutdown",
    )
    (text,) = outcome.failed.values()
    assert "b'apple'" in text  # what the lost task was to print


def test_what_fails_anyway_does_not_count() -> None:
    """A test that the standard class fails too; one with the class's name in its id; a new one."""
    run = ["needs_network", "reuse[BoundedExecutor]", "ours"]
    ours = Outcome(run, {}, dict.fromkeys(run, ""))
    standard = Outcome(run, {}, {"needs_network": "", "reuse[ThreadPoolExecutor]": ""})
    assert list(other_suites.worse(ours, standard)) == ["ours"]
