"""A small run of the ledger of `tests.faults.ledger`; a million tasks is one command there."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator

import pytest

from futurepool import OnFull
from tests.faults.ledger import Ledger, footprint


@pytest.fixture
def eager_switches() -> Iterator[None]:
    """Threads switch as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.slow
@pytest.mark.thorough
@pytest.mark.usefixtures("eager_switches")
@pytest.mark.timeout(300)  # without a GIL, and on a busy machine, ten times as long
@pytest.mark.parametrize("seed", [1, 2])
def test_the_books_balance(seed: int) -> None:
    """Each id ran at most once and was told exactly once, whatever policy, token or cancel."""
    ledger = Ledger(tasks=10_000, producers=8, workers=8, seed=seed)
    ledger.run()
    assert 0 < sum(ledger.ran) < 10_000
    assert ledger.ex.stats().rejections["expired"] > 0
    tried = sum(ledger.tried, Counter())
    assert {
        "token",
        "tokens cancelled",
        "timeout",
        "max_wait",
        "cancel",
        "limit",
        "key",
        *OnFull.__members__,
    } <= set(tried)


def test_the_soak_prints_what_grows() -> None:
    """Memory, threads and files, where the system tells."""
    assert "threads" in footprint()


def test_the_summary_says_how_much_was_tried() -> None:
    """The figures that a report quotes."""
    ledger = Ledger(tasks=100, producers=1, workers=1, seed=1)
    ledger.run()
    assert ledger.summary(2.0).startswith("100 tasks in 2.0 s, 50/s: ")
    assert " CALLER_RUNS, " in ledger.summary(2.0)
