"""The dashboard and the alert rules in docs/monitoring: of metrics that are there, and answered by a Prometheus."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from futurepool import BoundedExecutor, QueueFullError

pytest.importorskip("prometheus_client")

from prometheus_client import CollectorRegistry, MetricsHandler, generate_latest

from futurepool.instrumentation import prometheus

pytestmark = pytest.mark.once

FOLDER = Path(__file__).parent.parent.parent / "docs" / "monitoring"
QUERIES = [
    target["expr"].replace("$executor", ".*").replace("$__rate_interval", "1m")
    for panel in json.loads((FOLDER / "dashboard.json").read_text("utf-8"))["panels"]
    for target in panel["targets"]
]
RULES = re.findall(r"^ +expr: (.*)$", (FOLDER / "alerts.yml").read_text("utf-8"), re.MULTILINE)


def mine() -> list[BoundedExecutor]:
    import futurepool

    return [pool for pool in futurepool.pools() if pool.name == "shown"]


@pytest.fixture
def registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    prometheus.instrument(registry, select=mine)
    return registry


@pytest.fixture
def pool() -> Iterator[BoundedExecutor]:
    """One in which everything has happened."""
    gate = threading.Event()
    with BoundedExecutor(
        1, queue_size=1, name="shown", enable_metrics=True, error_handler=id
    ) as pool:
        pool.options(limit=1, name="reports").submit(int, "x").exception()
        pool.submit(gate.wait, 60)
        pool.submit(int).cancel()
        while pool.stats().queued_tasks:
            pass
        pool.submit(int)
        with pytest.raises(QueueFullError):
            pool.try_submit(int)
        yield pool
        gate.set()


def test_the_metrics_that_are_asked_for_exist(registry: CollectorRegistry, pool: object) -> None:
    """Each name, and each label; and each metric that there is, is shown."""
    text = generate_latest(registry).decode()
    there = set(re.findall(r"^(executor_\w+)\{", text, re.MULTILINE))
    labels = set(re.findall(r"[{,](\w+)=", text))
    asked = {name for query in QUERIES + RULES for name in re.findall(r"executor_\w+", query)}
    assert asked - there == set()
    for query in QUERIES + RULES:
        named = re.findall(r"[{,](\w+)=", query) + re.findall(r"by \(([^)]*)\)", query)
        used = {label.strip() for part in named for label in part.split(",")}
        assert used - labels <= {"instance", "job"}
    families = {re.sub("_(bucket|count|sum)$", "", name) for name in there}
    assert families - {re.sub("_bucket$", "", name) for name in asked} == set()


@pytest.mark.slow
@pytest.mark.parametrize("words", [("check", "alerts.yml"), ("test", "alerts_test.yml")])
def test_the_rules_fire(words: tuple[str, str]) -> None:
    """By Prometheus's own tool: they are rules, and fire when they should, not before."""
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("promtool is not here")
    done = subprocess.run(
        [tool, words[0], "rules", words[1]],
        cwd=FOLDER,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout


def ask(port: int, what: str, **more: str) -> Any:
    url = f"http://127.0.0.1:{port}/api/v1/{what}?{urllib.parse.urlencode(more)}"
    with urllib.request.urlopen(url, timeout=10) as reply:
        answer = json.load(reply)
    assert answer["status"] == "success"
    return answer["data"]["result"]


@pytest.mark.slow
def test_every_panel_has_data(
    registry: CollectorRegistry, pool: BoundedExecutor, tmp_path: Path
) -> None:
    """A real Prometheus scrapes the pool; each query of the dashboard is answered."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not here")
    server = ThreadingHTTPServer(("127.0.0.1", 0), MetricsHandler.factory(registry))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    target = f"127.0.0.1:{server.server_port}"
    (tmp_path / "prometheus.yml").write_text(
        "scrape_configs: [{job_name: test, scrape_interval: 1s, scrape_timeout: 1s, "
        f"static_configs: [{{targets: ['{target}']}}]}}]\n",
        "utf-8",
    )
    process = subprocess.Popen(
        [
            program,
            f"--config.file={tmp_path / 'prometheus.yml'}",
            f"--storage.tsdb.path={tmp_path / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=error",
        ],
        cwd=tmp_path,
    )
    try:
        end = time.monotonic() + 40
        left = QUERIES
        while left and time.monotonic() < end:
            time.sleep(0.2)
            try:
                left = [query for query in left if not ask(port, "query", query=query)]
            except urllib.error.HTTPError as error:  # it has not come so far
                error.close()
            except OSError:
                pass
        assert left == []
        (found,) = ask(port, "query", query='executor_tasks_rejected_total{reason="full"}')
        assert found["metric"]["executor"] == "shown"
        assert found["value"][1] == "1"
    finally:
        process.terminate()
        process.wait(30)
        server.shutdown()
        server.server_close()
        thread.join(30)
