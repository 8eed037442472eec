"""`futurepool.instrumentation.opentelemetry`, read by the SDK's in-memory reader."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

import futurepool
from futurepool import BoundedExecutor, QueueFullError

pytest.importorskip("opentelemetry.sdk.metrics")

from opentelemetry.sdk.metrics import Counter, MeterProvider, ObservableCounter
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader

from futurepool.instrumentation import opentelemetry
from tests.helpers import hold


def mine() -> list[BoundedExecutor]:
    """The pools of this module's tests; others may have left some."""
    return [pool for pool in futurepool.pools() if pool.name.startswith("o-")]


def points(reader: InMemoryMetricReader) -> dict[str, float]:
    """instrument{attribute=value,...}: value."""
    data = reader.get_metrics_data()
    found: dict[str, float] = {}
    if data is None:
        return found
    for resource in data.resource_metrics:
        for scope in resource.scope_metrics:
            assert scope.scope.name == "futurepool"
            for metric in scope.metrics:
                assert metric.description
                assert metric.unit
                for point in metric.data.data_points:
                    attributes: Any = dict(point.attributes or {})
                    assert attributes.pop("executor.type") == "BoundedExecutor"
                    name = attributes.pop("executor.name")
                    labels = ",".join(f"{key}={attributes[key]}" for key in sorted(attributes))
                    key = f"{name} {metric.name.removeprefix('executor.')}{{{labels}}}"
                    found[key] = point.value  # type: ignore[union-attr]
    return found


@pytest.fixture
def reader() -> Iterator[InMemoryMetricReader]:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    opentelemetry.instrument(provider, select=mine)
    yield reader
    provider.shutdown()


def test_what_pools_show(reader: InMemoryMetricReader, gate: threading.Event) -> None:
    """Each instrument, of two pools."""
    with (
        BoundedExecutor(1, queue_size=1, name="o-db", error_handler=id) as pool,
        BoundedExecutor(2, queue_size=None, name="o-web", enable_metrics=True) as other,
    ):
        pool.submit(int).result()
        pool.submit(int, "x").exception()
        entered = threading.Event()
        pool.submit(lambda: (entered.set(), gate.wait(30)))
        assert entered.wait(30)
        pool.submit(int).cancel()
        pool.submit(int)
        with pytest.raises(QueueFullError):
            pool.try_submit(int)
        other.submit(int).result()
        other.wait()
        found = points(reader)
        times = {key: found.pop(key) for key in list(found) if "_time" in key or "oldest" in key}
        assert found == {
            "o-db thread.count{executor.thread.state=active}": 1,
            "o-db thread.count{executor.thread.state=idle}": 0,
            "o-db thread.abandoned{}": 0,
            "o-db thread.limit{}": 1,
            "o-db queue.size{}": 1,
            "o-db queue.capacity{}": 1,
            "o-db queue.waiters{}": 0,
            "o-db task.submitted{}": 5,
            "o-db task.completed{}": 1,
            "o-db task.completed{error.type=_OTHER}": 1,
            "o-db task.cancelled{}": 1,
            "o-db task.overflow{}": 0,
            "o-db task.rejected{reason=full}": 1,
            **{
                f"o-db task.rejected{{reason={reason}}}": 0
                for reason in ("timeout", "closed", "dropped", "expired", "cancelled")
            },
            "o-web thread.count{executor.thread.state=active}": 0,
            "o-web thread.count{executor.thread.state=idle}": 1,
            "o-web thread.abandoned{}": 0,
            "o-web thread.limit{}": 2,
            "o-web queue.size{}": 0,
            "o-web queue.waiters{}": 0,
            "o-web task.submitted{}": 1,
            "o-web task.completed{}": 1,
            "o-web task.completed{error.type=_OTHER}": 0,
            "o-web task.cancelled{}": 0,
            "o-web task.overflow{}": 0,
            **{
                f"o-web task.rejected{{reason={reason}}}": 0
                for reason in ("full", "timeout", "closed", "dropped", "expired", "cancelled")
            },
        }
        stats = other.stats()
        assert stats.latency is not None
        assert times["o-web task.run_time{}"] == pytest.approx(stats.latency.sum)
        assert times["o-web task.run_time.quantile{quantile=0.9}"] == stats.latency.p90
        assert times["o-db task.oldest{}"] > times["o-web task.oldest{}"] == 0
        assert "o-db task.run_time.quantile{quantile=0.9}" not in times
        gate.set()


def test_views(reader: InMemoryMetricReader, gate: threading.Event) -> None:
    """Each that has a name and a limit, or a key."""
    with BoundedExecutor(2, name="o-views", enable_metrics=True, error_handler=id) as pool:
        pool.options(key="tenant", key_limit=1, name="tenants").submit(int).result()
        view = pool.options(limit=1, name="reports")
        view.submit(int).result()
        view.submit(int, "x").exception()
        hold(view, gate)
        waits = view.submit(int)
        view.submit(int).cancel()
        found = {
            key.removeprefix("o-views view."): value
            for key, value in points(reader).items()
            if " view." in key
        }
        stats = pool.stats().views["reports"]
        gate.set()
        assert waits.result(30) == 0
    times = {key: found.pop(key) for key in list(found) if "_time" in key}
    reports, tenants = "{executor.view=reports}", "{executor.view=tenants}"
    assert found == {
        f"limit{reports}": 1,
        f"task.running{reports}": 1,
        f"task.running{tenants}": 0,
        f"task.queued{reports}": 1,
        f"task.queued{tenants}": 0,
        f"task.submitted{reports}": 5,
        f"task.submitted{tenants}": 1,
        f"task.completed{reports}": 1,
        f"task.completed{tenants}": 1,
        "task.completed{error.type=_OTHER,executor.view=reports}": 1,
        "task.completed{error.type=_OTHER,executor.view=tenants}": 0,
        f"task.cancelled{reports}": 1,
        f"task.cancelled{tenants}": 0,
    }
    assert stats.latency is not None
    assert times[f"task.run_time{reports}"] == pytest.approx(stats.latency.sum)
    assert times["task.run_time.quantile{executor.view=reports,quantile=0.9}"] == stats.latency.p90
    assert f"task.wait_time{tenants}" in times


def test_a_pool_that_comes_and_goes() -> None:
    """What counts up goes on where it was, also for who reads differences."""
    cumulative = InMemoryMetricReader()
    delta = InMemoryMetricReader(
        preferred_temporality={
            Counter: AggregationTemporality.DELTA,
            ObservableCounter: AggregationTemporality.DELTA,
        }
    )
    provider = MeterProvider([cumulative, delta])
    opentelemetry.instrument(provider, select=mine)
    key = "o-goes task.submitted{}"
    for total in (1, 3):
        with BoundedExecutor(1, name="o-goes") as pool:
            pool.submit(int).result()
            assert points(cumulative)[key] == total
            assert points(delta)[key] == 1 + (total > 1)
            pool.submit(int).result()
        assert key not in points(cumulative)
        assert key not in points(delta)
    provider.shutdown()


def test_one_look_serves_a_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    """So the figures belong together, and a pool is asked once."""
    looks: list[int] = []

    def look() -> list[BoundedExecutor]:
        looks.append(1)
        return mine()

    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    opentelemetry.instrument(provider, select=look)
    with BoundedExecutor(1, name="o-once"):
        for number in (1, 2, 3):
            assert points(reader)["o-once thread.limit{}"] == 1
            assert len(looks) == number
    provider.shutdown()
