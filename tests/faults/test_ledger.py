"""A small run of the ledger of `tests.faults.ledger`; a million tasks is one command there."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from futurepool import OnFull, _sync
from futurepool._pool import timed_queues
from tests.faults.ledger import POLICIES, Ledger, footprint


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
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [1, 2])
def test_the_books_balance(seed: int) -> None:
    """Each id ran at most once and was told exactly once, whatever policy, token or cancel."""
    tasks = (
        4_000 if _sync.free_threaded else 10_000
    )  # there they take ten times as long on a busy machine
    ledger = Ledger(tasks=tasks, producers=8, workers=8, seed=seed)
    ledger.run()
    assert 0 < sum(ledger.ran) < tasks
    assert ledger.ex.stats().rejections["expired"] > 0
    tried = sum(ledger.tried, Counter())
    assert {
        "token",
        "tokens cancelled",
        "timeout",
        "max_wait",
        "run_timeout",
        "cancel",
        "limit",
        "key",
        "map",
        "map: CancelledError",
        *[policy.name for policy in POLICIES],
    } <= set(tried)


@pytest.mark.slow
@pytest.mark.thorough
@pytest.mark.usefixtures("eager_switches")
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "options", [{"order": "adaptive", "adaptive_wait": 0.001}, {"on_full": OnFull.SHED}]
)
def test_the_books_balance_under_overload(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a queue that looks at waiting times makes of them."""
    monkeypatch.setattr(timed_queues, "_TARGET", 1e-5)
    # Fewer: nearly each is dropped, and a thread is started to say so.
    ledger = Ledger(tasks=3_000, producers=8, workers=2, seed=3, **options)
    ledger.run()
    assert 0 < sum(ledger.ran) < 3_000


def test_the_soak_prints_what_grows() -> None:
    """Memory, threads and files, where the system tells."""
    assert "threads" in footprint()


def test_the_summary_says_how_much_was_tried() -> None:
    """The figures that a report quotes."""
    ledger = Ledger(tasks=100, producers=1, workers=1, seed=1)
    ledger.run()
    assert ledger.summary(2.0).startswith("100 tasks in 2.0 s, 50/s: ")
    assert " CALLER_RUNS, " in ledger.summary(2.0)
