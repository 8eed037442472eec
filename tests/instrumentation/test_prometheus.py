"""`futurepool.instrumentation.prometheus`, asked as Prometheus asks: over HTTP, read by its own parser."""

from __future__ import annotations

import gc
import os
import re
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from typing import Any

import pytest

import futurepool
from futurepool import BoundedExecutor, CancelToken, OnFull, QueueFullError, SubmitTimeoutError

pytest.importorskip("prometheus_client")

from prometheus_client import CollectorRegistry, Counter, MetricsHandler, generate_latest
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_parse
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from futurepool.instrumentation import prometheus
from futurepool.instrumentation._samples import Sampler
from tests.helpers import hold

Scrape = Callable[[], dict[str, float]]


def mine() -> list[BoundedExecutor]:
    """The pools of this module's tests; others may have left some."""
    return [pool for pool in futurepool.pools() if pool.name.startswith("p-")]


def series(text: str) -> dict[str, float]:
    """name{label=value,...}: value."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        for sample in family.samples:
            labels = ",".join(f"{key}={sample.labels[key]}" for key in sorted(sample.labels))
            key = f"{sample.name}{{{labels}}}"
            assert key not in found
            found[key] = sample.value
    return found


@pytest.fixture
def scrape() -> Iterator[Scrape]:
    """By HTTP."""
    registry = CollectorRegistry()
    prometheus.instrument(registry, select=mine)
    server = ThreadingHTTPServer(("127.0.0.1", 0), MetricsHandler.factory(registry))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()

    def get() -> dict[str, float]:
        url = f"http://127.0.0.1:{server.server_port}/metrics"
        with urllib.request.urlopen(url, timeout=30) as response:
            return series(response.read().decode())

    yield get
    server.shutdown()
    server.server_close()
    thread.join(30)


def of(found: dict[str, float], pool: str) -> dict[str, float]:
    """The series of one pool, without its name; no buckets."""
    label = f"executor={pool}"
    return {
        key.replace("executor_", "", 1).replace(f"{label},", "").replace(label, ""): value
        for key, value in found.items()
        if label in key and "_bucket" not in key
    }


def test_what_a_pool_shows(scrape: Scrape, gate: threading.Event) -> None:
    """Each metric, with each kind of outcome once."""
    assert of(scrape(), "p-db") == {}
    with BoundedExecutor(1, queue_size=2, name="p-db", error_handler=id) as pool:
        pool.submit(int).result()
        pool.submit(int, "x").exception()
        hold(pool, gate)
        pool.submit(int).cancel()
        queued = [pool.submit(int), pool.submit(int)]
        with pytest.raises(QueueFullError):
            pool.try_submit(int)
        with pytest.raises(SubmitTimeoutError):
            pool.submit_with_timeout(0, int)
        assert pool.options(on_full=OnFull.DROP_NEW).submit(int).cancelled()
        token = CancelToken()
        token.cancel()
        assert pool.submit_with_token(token, int).cancelled()
        found = of(scrape(), "p-db")
        assert 0 < found.pop("task_oldest_seconds{}") < 30
        assert found == {
            "threads{state=active}": 1,
            "threads{state=idle}": 0,
            "threads_abandoned{}": 0,
            "threads_limit{}": 1,
            "queue_size{}": 2,
            "queue_capacity{}": 2,
            "queue_waiters{}": 0,
            "tasks_submitted_total{}": 6,
            "tasks_completed_total{outcome=success}": 1,
            "tasks_completed_total{outcome=error}": 1,
            "tasks_cancelled_total{}": 1,
            "tasks_overflow_total{}": 0,
            "tasks_rejected_total{reason=full}": 1,
            "tasks_rejected_total{reason=timeout}": 1,
            "tasks_rejected_total{reason=closed}": 0,
            "tasks_rejected_total{reason=dropped}": 1,
            "tasks_rejected_total{reason=expired}": 0,
            "tasks_rejected_total{reason=cancelled}": 1,
        }
        gate.set()
        assert [future.result(30) for future in queued] == [0, 0]


def test_histograms(scrape: Scrape) -> None:
    """With `enable_metrics=True`: buckets that count up, a count and a sum that are those of `stats`."""
    with BoundedExecutor(2, name="p-timed", enable_metrics=True) as pool:
        for _ in range(50):
            pool.submit(int)
        pool.wait()
        found = scrape()
        stats = pool.stats()
        assert stats.latency is not None
        for name, histogram in (("run", stats.latency), ("wait", stats.wait)):
            start = f"executor_task_{name}_seconds"
            buckets = [value for key, value in found.items() if key.startswith(f"{start}_bucket")]
            assert len(buckets) == 9
            assert buckets == sorted(buckets)
            assert buckets[-1] == found[f"{start}_count{{executor=p-timed}}"] == 50
            assert histogram is not None
            assert found[f"{start}_sum{{executor=p-timed}}"] == pytest.approx(histogram.sum)
        assert found["executor_task_admission_seconds_count{executor=p-timed}"] == 0


def test_pools_without_a_name_are_left_out() -> None:
    """They would be others after each start; one named by its threads is named."""
    with BoundedExecutor(1) as _, BoundedExecutor(1, "p-threads") as _:
        names = [sample.name for sample in Sampler().sample()]
        assert "p-threads" in names
        assert not any(name.startswith("ThreadPoolExecutor-") for name in names)


def test_two_pools_of_one_name_are_one(scrape: Scrape, gate: threading.Event) -> None:
    """Their numbers added up; no capacity if one has none."""
    with (
        BoundedExecutor(1, queue_size=3, name="p-two", enable_metrics=True) as first,
        BoundedExecutor(2, queue_size=4, name="p-two", enable_metrics=True) as second,
    ):
        first.submit(int).result()
        second.submit(int).result()
        hold(second, gate)
        found = of(scrape(), "p-two")
        assert (found["threads_limit{}"], found["queue_capacity{}"]) == (3, 7)
        assert (found["tasks_submitted_total{}"], found["threads{state=active}"]) == (3, 1)
        assert found["task_run_seconds_count{}"] == 2
        with BoundedExecutor(1, queue_size=None, name="p-two"):
            assert "queue_capacity{}" not in of(scrape(), "p-two")
        gate.set()


def test_what_counts_up_never_goes_down(scrape: Scrape) -> None:
    """A pool ends, another of its name comes: its counts are kept, to the last; others are not shown."""
    submitted = "tasks_submitted_total{}"
    with BoundedExecutor(1, name="p-again") as pool:
        pool.submit(int).result()
        assert of(scrape(), "p-again")[submitted] == 1
        pool.submit(int)
    assert of(scrape(), "p-again") == {}
    with BoundedExecutor(1, name="p-again") as again:
        assert of(scrape(), "p-again")[submitted] == 2
        again.submit(int)
        assert of(scrape(), "p-again")[submitted] == 3
    del pool, again
    gc.collect()
    with BoundedExecutor(1, name="p-again"), BoundedExecutor(1, name="p-again"):
        assert of(scrape(), "p-again")[submitted] == 3


def test_the_registry_refuses_them_twice() -> None:
    """Names are taken; `unregister` frees them."""
    registry = CollectorRegistry()
    collector = prometheus.instrument(registry)
    with pytest.raises(ValueError, match="Duplicated"):
        prometheus.instrument(registry)
    registry.unregister(collector)
    prometheus.instrument(registry)


def test_histograms_are_those_of_the_client_library() -> None:
    """Made in half the time."""
    registry = CollectorRegistry()
    prometheus.instrument(registry, select=mine, buckets=[10.0])
    with BoundedExecutor(1, name="p-lines", enable_metrics=True) as pool:
        pool.submit(int).result()
        pool.wait()
        found = {metric.name: metric for metric in registry.collect()}
        stats = pool.stats()
        assert stats.wait is not None
        whole = HistogramMetricFamily(
            "executor_task_wait_seconds",
            "How long tasks were queued before they started.",
            labels=["executor"],
        )
        whole.add_metric(["p-lines"], [("10.0", 1), ("+Inf", 1)], stats.wait.sum)
        assert whole == found[whole.name]


class Wrapped(Collector):
    """What some do with the metrics of others: each line gets a label more."""

    def __init__(self, inner: Collector) -> None:
        self._inner = inner

    def collect(self) -> Iterator[Metric]:
        for metric in self._inner.collect():
            metric.samples = [
                line._replace(labels={**line.labels, "zone": "a"}) for line in metric.samples
            ]
            yield metric


def test_the_text_is_that_of_the_client_library(gate: threading.Event) -> None:
    """Byte for byte, with views, histograms, pools that come and go, and metrics of others first."""
    registry = CollectorRegistry()
    Counter("a_requests", 'Said "no",\n or 100 %.', ["path"], registry=registry).labels("/").inc()
    prometheus.instrument(registry, select=lambda: sorted(mine(), key=lambda pool: pool.name))

    def same() -> int:
        text = generate_latest(registry).decode()
        ours = prometheus.generate_latest(registry).decode()
        oldest = r"^(executor_task_oldest_seconds.*) .*$"
        assert re.sub(oldest, r"\1", ours, flags=re.MULTILINE) == re.sub(
            oldest, r"\1", text, flags=re.MULTILINE
        )
        return len(ours.splitlines())

    empty = same()
    with (
        BoundedExecutor(2, name='p-"%s" 100 %\n\\b', enable_metrics=True, error_handler=id) as one,
        BoundedExecutor(1, name="p-any", queue_size=None) as other,
    ):
        before = same()
        assert before > empty
        one.options(limit=1, name="re%dports").submit(int, "x").exception()
        one.options(key="a", key_limit=1, name="tenants").submit(int).result()
        assert one.wait(30)
        assert same() > before
        hold(other, gate)
        other.submit(int)
        same()
        gate.set()
    assert same() == empty


def test_metrics_that_somebody_has_changed_are_shown_as_they_are() -> None:
    """By a collector that takes them from another one."""
    inner, outer = CollectorRegistry(), CollectorRegistry()
    prometheus.instrument(inner, select=mine)
    outer.register(Wrapped(inner))
    with BoundedExecutor(1, name="p-wrapped"):
        found = series(prometheus.generate_latest(outer).decode())
        assert found["executor_threads_limit{executor=p-wrapped,zone=a}"] == 1


def test_a_name_that_utf_8_does_not_have() -> None:
    """It would cost the metrics of the whole process."""
    registry = CollectorRegistry()
    prometheus.instrument(registry, select=mine)
    with BoundedExecutor(1, name="p-\udc80é") as pool:
        pool.options(limit=1, name="v\ud800").submit(int).result()
        assert pool.wait(30)
        for text in (generate_latest(registry), prometheus.generate_latest(registry)):
            found = series(text.decode())
            assert found["executor_threads_limit{executor=p-\\udc80é}"] == 1
            assert found["executor_view_limit{executor=p-\\udc80é,view=v\\ud800}"] == 1


def test_what_no_pool_has_is_left_out() -> None:
    """Not its names, when the registry asks for them: they are taken all the same."""
    registry = CollectorRegistry()
    collector = prometheus.instrument(registry, select=mine)
    assert list(registry.collect()) == []
    names = {metric.name for metric in collector.describe()}
    with BoundedExecutor(1, name="p-none", queue_size=None):
        found = {metric.name for metric in registry.collect()}
    assert names - found == {
        "executor_queue_capacity",
        "executor_task_run_seconds",
        "executor_task_wait_seconds",
        "executor_task_admission_seconds",
        *(name for name in names if name.startswith("executor_view_")),
    }


def test_views(scrape: Scrape, gate: threading.Event) -> None:
    """Each that has a name and a limit, or a key: what it does and has done, each kind of outcome once."""
    with BoundedExecutor(2, name="p-views", error_handler=id) as pool:
        view = pool.options(limit=1, name="reports")
        pool.options(key="tenant", key_limit=1, name="tenants").submit(int).result()
        pool.options(limit=1).submit(int).result()  # has no name
        pool.options(name="called").submit(int).result()  # has no limit
        view.submit(int).result()
        view.submit(int, "x").exception()
        hold(view, gate)
        waits = view.submit(int)
        view.submit(int).cancel()
        pool.submit(int).result()
        found = of(scrape(), "p-views")
        assert {key: value for key, value in found.items() if "view=" in key} == {
            "view_limit{view=reports}": 1,
            "view_tasks_running{view=reports}": 1,
            "view_tasks_running{view=tenants}": 0,
            "view_tasks_queued{view=reports}": 1,
            "view_tasks_queued{view=tenants}": 0,
            "view_tasks_submitted_total{view=reports}": 5,
            "view_tasks_submitted_total{view=tenants}": 1,
            "view_tasks_completed_total{outcome=success,view=reports}": 1,
            "view_tasks_completed_total{outcome=success,view=tenants}": 1,
            "view_tasks_completed_total{outcome=error,view=reports}": 1,
            "view_tasks_completed_total{outcome=error,view=tenants}": 0,
            "view_tasks_cancelled_total{view=reports}": 1,
            "view_tasks_cancelled_total{view=tenants}": 0,
        }
        gate.set()
        assert waits.result(30) == 0


def test_views_of_pools_of_one_name(scrape: Scrape) -> None:
    """Added up, their histograms too; what counts up goes on where it was when they come again."""

    def run(pool: BoundedExecutor, limit: int) -> None:
        pool.options(limit=limit, name="reports").submit(int).result()
        assert pool.wait(30)

    with (
        BoundedExecutor(1, name="p-both", enable_metrics=True) as one,
        BoundedExecutor(1, name="p-both", enable_metrics=True) as other,
    ):
        run(one, 3)
        run(other, 4)
        text = scrape()
        stats = [pool.stats().views["reports"].wait for pool in (one, other)]
    found = of(text, "p-both")
    assert found["view_limit{view=reports}"] == 7
    assert found["view_tasks_submitted_total{view=reports}"] == 2
    assert found["view_task_run_seconds_count{view=reports}"] == 2
    total = sum(histogram.sum for histogram in stats if histogram is not None)
    assert found["view_task_wait_seconds_sum{view=reports}"] == pytest.approx(total)
    buckets = [value for key, value in text.items() if "view_task_run_seconds_bucket" in key]
    assert len(buckets) == 9
    assert buckets == sorted(buckets)
    assert of(scrape(), "p-both") == {}
    with BoundedExecutor(1, name="p-both") as again:
        assert not any("view=" in key for key in of(scrape(), "p-both"))
        run(again, 1)
        found = of(scrape(), "p-both")
        assert found["view_limit{view=reports}"] == 1
        assert found["view_tasks_submitted_total{view=reports}"] == 3


def test_names_that_need_to_be_escaped_and_other_buckets() -> None:
    """In both formats."""
    registry = CollectorRegistry()
    prometheus.instrument(registry, select=mine, buckets=[1, 0.5])
    with BoundedExecutor(1, name='p-"a"\n\\b', enable_metrics=True):
        found = series(generate_latest(registry).decode())
        assert found['executor_threads_limit{executor=p-"a"\n\\b}'] == 1
        bounds = [key.split("le=")[1] for key in found if "task_run_seconds_bucket" in key]
        assert bounds == ["0.5}", "1.0}", "+Inf}"]
        text = openmetrics.generate_latest(registry).decode()
        assert list(openmetrics_parse(text))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_in_the_child_of_a_fork() -> None:
    """While another thread of the parent is being served, which holds the lock."""
    registry = CollectorRegistry()
    held, leave = threading.Event(), threading.Event()

    def slow() -> list[BoundedExecutor]:
        if threading.current_thread() is not threading.main_thread():
            held.set()
            leave.wait(30)
        return mine()

    collector = prometheus.instrument(registry, select=mine)
    collector._sampler._select = slow
    with BoundedExecutor(1, name="p-fork") as pool:
        scraping = threading.Thread(target=generate_latest, args=(registry,))
        scraping.start()
        assert held.wait(30)
        child = os.fork()
        if not child:
            status = 1
            try:
                pool.submit(int).result()
                found = series(generate_latest(registry).decode())
                status = (
                    found["executor_tasks_completed_total{executor=p-fork,outcome=success}"] != 1
                )
                if status:
                    print(found, file=sys.stderr)
            finally:
                os._exit(int(status))
        leave.set()
        scraping.join(30)
        assert os.waitpid(child, 0)[1] == 0


@pytest.mark.slow
def test_under_load_each_figure_agrees_with_what_happened(scrape: Scrape) -> None:
    """Every kind of outcome, by several threads, while others scrape."""
    outcomes: list[str] = []
    errors: list[BaseException] = []
    pools: dict[str, BoundedExecutor] = {}

    def load(pool: BoundedExecutor, number: int) -> None:
        try:
            cancelled = CancelToken()
            cancelled.cancel()
            for turn in range(400):
                way = (turn + number) % 6
                try:
                    if way == 0:
                        outcome = "error" if pool.submit(int, "x").exception() else ""
                    elif way == 1:
                        pool.try_submit(int)
                        outcome = "success"
                    elif way == 2:
                        pool.submit_with_token(cancelled, int)
                        outcome = "token"
                    elif way == 3:
                        outcome = "gone" if pool.submit(int).cancel() else "success"
                    elif way == 4:
                        pool.submit_with_timeout(0, int)
                        outcome = "success"
                    else:
                        pool.submit(int)
                        outcome = "success"
                except SubmitTimeoutError:
                    outcome = "timeout"
                except QueueFullError:
                    outcome = "full"
                outcomes.append(f"{pool.name} {outcome}")
        except BaseException as error:
            errors.append(error)

    with (
        BoundedExecutor(
            2, queue_size=3, name="p-one", enable_metrics=True, error_handler=id
        ) as one,
        BoundedExecutor(1, queue_size=1, name="p-other", error_handler=id) as other,
    ):
        pools = {pool.name: pool for pool in (one, other)}
        threads = [
            threading.Thread(target=load, args=(pool, number))
            for pool in (one, other)
            for number in range(3)
        ]
        for thread in threads:
            thread.start()
        before: dict[str, float] = {}
        while any(thread.is_alive() for thread in threads):
            found = scrape()
            for key, value in found.items():
                if key.split("{")[0].endswith(("_total", "_count", "_bucket", "_sum")):
                    assert value >= before.get(key, 0.0), key
            before = found
        for pool in pools.values():
            pool.wait()
        found = scrape()
    assert errors == []
    for name in pools:
        shown: dict[str, Any] = of(found, name)
        count = {
            what: outcomes.count(f"{name} {what}")
            for what in ("success", "error", "gone", "token", "full", "timeout")
        }
        assert shown["tasks_completed_total{outcome=success}"] == count["success"]
        assert shown["tasks_completed_total{outcome=error}"] == count["error"]
        assert shown["tasks_cancelled_total{}"] == count["gone"]
        assert shown["tasks_rejected_total{reason=cancelled}"] == count["token"]
        assert shown["tasks_rejected_total{reason=full}"] == count["full"]
        assert shown["tasks_rejected_total{reason=timeout}"] == count["timeout"]
        assert shown["tasks_submitted_total{}"] == count["success"] + count["error"] + count["gone"]
        assert shown["queue_size{}"] == shown["threads{state=active}"] == 0
    ran = count_of(outcomes, "p-one success") + count_of(outcomes, "p-one error")
    assert of(found, "p-one")["task_run_seconds_count{}"] == ran


def count_of(outcomes: list[str], what: str) -> int:
    return outcomes.count(what)
