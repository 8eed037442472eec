"""The cases of `cases.py` under pytest-benchmark: `python -m pytest benchmarks`.

For looking at one change at a time (`--benchmark-compare`, `-k "submit-4 and futurepool"`). Figures
side by side come from `run.py`, which gives each contestant a process of its own. Nothing here
asserts a time.
"""

from __future__ import annotations

import importlib
import statistics
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pytest_benchmark")
sys.path.insert(0, str(Path(__file__).parent))
cases: Any = importlib.import_module("cases")

SIZE = cases.Size(tasks=2_000, seconds=0.0, trips=200, many=1_000_000, repetitions=7, restart=False)


@pytest.mark.parametrize(
    ("case", "contestant"),
    [
        pytest.param(case, contestant, id=f"{case.key}-{contestant.name}")
        for case in cases.CASES
        for contestant in case.contestants
    ],
)
# Some rivals leave threads and sockets for the collector.
@pytest.mark.filterwarnings("default")
def test_case(benchmark: Any, case: Any, contestant: Any) -> None:
    """One contestant of one case; its rounds are acts of so many tasks."""
    if cases.version(contestant.rival) is None:
        pytest.skip(f"{contestant.rival.name} is not installed")
    benchmark.group = f"{case.title} ({case.tasks(SIZE):,} tasks)" if case.rate else case.title
    with contestant.open(SIZE) as act:
        samples: list[Any] = []
        benchmark.pedantic(lambda: samples.append(act()), rounds=SIZE.repetitions, warmup_rounds=1)
    if not case.rate:
        # What is timed is only the taking of the sample; this is the sample.
        benchmark.extra_info[case.unit] = statistics.median(samples)
