"""Histograms, snapshots, and the stacks of running threads."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
import pickle
import random

import pytest

from futurepool import BoundedExecutor
from futurepool._errors.failures import wrap_failure
from futurepool._pool.histogram import BOUNDS, HistogramRecorder, tally
from futurepool._telemetry.stats import Histogram, RunningTask, Stats


def histogram(*values):
    recorder = HistogramRecorder()
    for value in values:
        recorder.record(value)
    return recorder.snapshot(sum(values))


def test_empty_histogram_is_all_zero():
    """No values: no division by zero."""
    empty = histogram()
    assert (empty.count, empty.sum, empty.max) == (0, 0.0, 0.0)
    assert (empty.p50, empty.p90, empty.p99) == (0.0, 0.0, 0.0)


def test_bounds_reach_from_a_microsecond_past_an_hour():
    """The buckets are ascending, finely spaced, and open at the end."""
    bounds = [bound for bound, _ in histogram().buckets]
    assert bounds == sorted(bounds)
    assert 0.9e-6 < bounds[0] < 1e-6
    assert bounds[-1] == math.inf
    assert bounds[-2] > 3600
    assert max(b / a for a, b in itertools.pairwise(bounds[:-1])) < 1.0626


@pytest.mark.parametrize("value", [0.0, 1e-9, 1e-6, 0.001, 1.0, 3600.0, 1e6])
def test_single_value_is_every_percentile(value):
    """One value: percentiles are near it and never above the maximum."""
    one = histogram(value)
    assert (one.count, one.sum, one.max) == (1, value, value)
    assert sum(count for _, count in one.buckets) == 1
    assert next(bound for bound, count in one.buckets if count) > value
    for got in (one.p50, one.p90, one.p99):
        assert 0.0 <= got <= value
        if 1e-6 < value <= 3600:
            assert got == pytest.approx(value, rel=0.0625)


def test_percentiles_are_within_the_stated_error():
    """Against a sorted list, for a distribution over many magnitudes."""
    chance = random.Random(1)
    values = sorted(chance.lognormvariate(-6, 2) for _ in range(5000))
    many = histogram(*values)
    for fraction, got in ((0.5, many.p50), (0.9, many.p90), (0.99, many.p99)):
        assert got == pytest.approx(values[int(fraction * 5000)], rel=0.07)
    assert many.sum == pytest.approx(math.fsum(values))
    assert many.max == values[-1]


_SIZES = {
    "one size": [1.01e-6 * 1.001**i for i in range(700)],
    "many sizes": [1e-10 * 1.1**i for i in range(500)],
    "bounds": list(BOUNDS[:-1]),
    "next to bounds": [math.nextafter(bound, 0.0) for bound in BOUNDS[:-1]],
    "one bound": [BOUNDS[300]] * 3,
    "below zero": [-1e-6, -0.0, 0.0, 1e-300],
    "all below zero": [-1e-6, -2e-6],
    "very long": [1e5, 1e6, 3e100, math.inf, math.inf],
    "long": [5000.0, 6000.0],
    "near what was there": [0.2501, 0.2509, 0.2505],
    "none": [],
}


@pytest.mark.parametrize("values", _SIZES.values(), ids=_SIZES)
def test_many_at_once_are_counted_as_one_by_one(values):
    """Whether they are of one size or of many, in any order."""
    shuffled = values.copy()
    random.Random(2).shuffle(shuffled)
    one_by_one, at_once = HistogramRecorder(), HistogramRecorder()
    for value in [0.25, *values]:
        one_by_one.record(value)
    at_once.record(0.25)
    at_once.add(tally(shuffled, at_once.max))
    assert at_once.counts == one_by_one.counts
    assert at_once.max == one_by_one.max
    assert tally(shuffled)[1] == max(0.0, *values) if values else tally(shuffled)[1] == 0.0


def test_other_bounds_at_the_edges_of_buckets_are_exact():
    """As many as are below; the last one has all of them."""
    values = [2.0**power for power in range(-18, 10)]
    many = histogram(*values)
    bounds = [0.0, -1.0, 2.0**-20, 2.0**-17, 1.0, 2.0**9, 4000.0, math.inf]
    # A value that lies on a bound is in the bucket above it.
    assert many.cumulative(bounds) == [0, 0, 0, 1, 18, 27, 28, 28]
    assert many.cumulative([]) == []
    assert histogram().cumulative([1.0, math.inf]) == [0, 0]


def test_other_bounds_are_off_by_a_bucket_at_most():
    """Against the values themselves, in any order, and never more for a lower bound."""
    chance = random.Random(3)
    values = [chance.lognormvariate(-6, 2) for _ in range(5000)]
    many = histogram(*values)
    most = max(count for _, count in many.buckets)
    bounds = [0.001, 0.3, 0.005, 5.0, 0.07]
    found = many.cumulative(bounds)
    for bound, number in zip(bounds, found, strict=True):
        assert abs(number - sum(value <= bound for value in values)) <= most
    ascending = many.cumulative([0.0001 * 1.01**i for i in range(1200)])
    assert ascending == sorted(ascending)


def test_a_count_for_a_bound_never_goes_down():
    """What was counted stays counted, whatever comes: it is what monitoring takes it for."""
    chance = random.Random(4)
    recorder = HistogramRecorder()
    bounds = [1e-7, 0.0012, 0.77, 3.3, 5000.0, math.inf]
    before = [0] * len(bounds)
    for _ in range(200):
        for _ in range(5):
            recorder.record(chance.lognormvariate(0, 5))
        now = recorder.snapshot(0.0).cumulative(bounds)
        assert all(new >= old for new, old in zip(now, before, strict=True))
        before = now


def test_a_bound_is_a_number():
    """NaN is none."""
    with pytest.raises(ValueError, match="nan"):
        histogram(1.0).cumulative([math.nan])


def test_a_histogram_of_a_pool_is_like_one_of_its_buckets():
    """It has its buckets when asked for them, and only then; all else is the same either way."""
    chance = random.Random(5)
    edges = [-1.0, 0, 2.0**-20, 0.75, 4096.0, 1e300, math.inf, -math.inf]
    for number in (0, 1, 300):
        values = [chance.lognormvariate(-8, 4) for _ in range(number)] + [5000.0, 0.0] * (
            number > 1
        )
        bounds = edges + [chance.lognormvariate(-8, 4) for _ in range(20)]
        one = histogram(*values)
        plain = Histogram(one.count, one.sum, one.max, histogram(*values).buckets)
        assert one.cumulative(bounds) == plain.cumulative(bounds)
        assert copy.deepcopy(histogram(*values)) == plain
        assert pickle.loads(pickle.dumps(one)).cumulative(bounds) == plain.cumulative(bounds)
        assert dataclasses.replace(one, count=number) == dataclasses.replace(plain, count=number)
        assert repr(one) == repr(plain)
        assert (one == plain, hash(one)) == (True, hash(plain))
    many = histogram(1.0)
    many.cumulative(bounds)
    with pytest.raises(AttributeError):  # the slot of the field, behind what fills it
        Histogram.__dict__["buckets"].__get__(many)
    with pytest.raises(AttributeError, match="'p95'"):
        many.p95  # noqa: B018


def test_histograms_and_snapshots_are_shown_in_a_line():
    """With what matters, not with five hundred buckets."""
    one = histogram(0.5, 2.0)
    assert repr(one) == "<Histogram count=2 sum=2.5 p50=0.531 p90=2 p99=2 max=2>"
    assert repr(histogram()) == "<Histogram count=0 sum=0 p50=0 p90=0 p99=0 max=0>"
    with BoundedExecutor(1, name="db", enable_metrics=True, error_handler=id) as pool:
        pool.submit(int, "a\nb")
    shown = repr(pool.stats())
    assert shown.startswith("Stats(name='db', max_workers=1, workers=0, ")
    assert "latency=<Histogram count=1 " in shown
    assert "\n" not in shown
    assert len(shown) < 1500


def test_snapshot_does_not_change_any_more():
    """A snapshot is a copy, and frozen."""
    recorder = HistogramRecorder()
    before = recorder.snapshot(1.0)
    recorder.record(1.0)
    assert before.count == 0
    assert recorder.snapshot(2.0).count == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        before.count = 3


def test_stats_has_the_promised_fields_in_order():
    """The order is part of the contract; the metrics are optional."""
    assert [field.name for field in dataclasses.fields(Stats)] == [
        "name",
        "max_workers",
        "workers",
        "active_workers",
        "queued_tasks",
        "queue_size",
        "submitted_tasks",
        "completed_tasks",
        "failed_tasks",
        "cancelled_tasks",
        "rejected_tasks",
        "overflow_tasks",
        "average_latency",
        "average_wait",
        "last_error",
        "uptime",
        "closed",
        "waiting_submitters",
        "oldest_queued",
        "rejections",
        "latency",
        "wait",
        "admission",
        "views",
        "abandoned_workers",
    ]


def test_stats_can_be_copied_and_pickled():
    """Snapshots travel, with the last error and the histograms."""
    error = wrap_failure(ValueError("x"), 1, "f")
    counts = (1, 2, None, 9, 5, 1, 1, 0, 0)
    stats = Stats(
        *("db", 4, 4, *counts, 0.1, 0.2, error, 3.0, False),
        rejections={"full": 0},
        latency=histogram(1.0),
    )
    assert stats.wait is None
    assert copy.copy(stats) == stats
    assert hash(stats) == hash(copy.copy(stats))
    other = pickle.loads(pickle.dumps(stats))
    assert other.latency == stats.latency
    assert str(other.last_error) == str(error)
    assert dataclasses.asdict(stats)["last_error"].args == ("x",)
    assert not hasattr(stats, "__dict__")
    assert isinstance(stats.latency, Histogram)


def test_running_task_reads_well():
    """One line, or with the stack a paragraph."""
    task = RunningTask(7, "load", "pool_0", 1.5, 0.25)
    line = "task 7 (load) in pool_0: running for 1.500 s after waiting for 0.250 s"
    assert str(task) == line
    assert str(dataclasses.replace(task, stack="  File x\n")) == f"{line}\n  File x"
