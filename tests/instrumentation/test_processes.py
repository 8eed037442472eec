"""Several processes at one port: `instrument_processes`, by `prometheus_client`'s multiprocess mode."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.programs import environment, python

pytest.importorskip("prometheus_client")

from futurepool.instrumentation import prometheus

SERVER = """
import os, sys
from futurepool import BoundedExecutor
from futurepool.instrumentation import prometheus, _processes
from prometheus_client import CollectorRegistry, generate_latest, multiprocess

writers = []
start = _processes.Writer.__init__
_processes.Writer.__init__ = lambda self, *args: (writers.append(self), start(self, *args))[1]

def report():
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)
    for line in sorted(generate_latest(registry).decode().splitlines()):
        if not line.startswith("#") and not line.endswith(" 0.0"):
            print(line)
    print()

pool = BoundedExecutor(2, name="web", queue_size=7, enable_metrics=True)
view = pool.options(limit=1, name="reports")
[view.submit(int).result() for _ in range(3)]
prometheus.instrument_processes(every=1000)
writers[0].write()
pool.submit(int).result()  # not written before the fork
pool.wait()
children = []
for tasks in (10, 20):
    child = os.fork()
    if not child:
        [view.submit(int).result() for _ in range(tasks)]
        pool.submit(int, "x").exception()
        pool.wait()
        writers[0].write()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    children.append(child)
report()
for child in children:
    multiprocess.mark_process_dead(child)
pool.shutdown()
writers[0].write()
report()
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_workers_of_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What each has done is counted once; what they are is added up, for those that live."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    done = python(SERVER, "-W", "ignore")
    assert (done.returncode, done.stderr) == (0, "")
    before, after = done.stdout.strip().split("\n\n")
    label = 'executor="web"'
    lines = before.splitlines()
    # The parent has written three of its four.
    assert f'executor_tasks_completed_total{{{label},outcome="success"}} 33.0' in lines
    assert f'executor_tasks_completed_total{{{label},outcome="error"}} 2.0' in lines
    assert f"executor_tasks_submitted_total{{{label}}} 35.0" in lines
    assert f"executor_task_run_seconds_count{{{label}}} 35.0" in lines
    assert f'executor_task_run_seconds_bucket{{{label},le="+Inf"}} 35.0' in lines
    assert f"executor_queue_capacity{{{label}}} 21.0" in lines
    assert f"executor_threads_limit{{{label}}} 6.0" in lines
    view = f'{label},view="reports"'
    assert f"executor_view_tasks_submitted_total{{{view}}} 33.0" in lines
    assert f"executor_view_limit{{{view}}} 3.0" in lines
    assert f"executor_view_task_run_seconds_count{{{view}}} 33.0" in lines
    infinite = f'{label},le="+Inf",view="reports"'
    assert f"executor_view_task_run_seconds_bucket{{{infinite}}} 33.0" in lines
    lines = after.splitlines()
    assert not any(line.startswith(("executor_threads_limit", "executor_queue")) for line in lines)
    assert f'executor_tasks_completed_total{{{label},outcome="error"}} 2.0' in lines
    assert f"executor_view_task_run_seconds_count{{{view}}} 33.0" in lines


@pytest.mark.slow
def test_the_last_counts_are_written_at_exit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the pool has ended."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    program = """
from futurepool import BoundedExecutor
from futurepool.instrumentation import prometheus
pool = BoundedExecutor(1, name="late")
prometheus.instrument_processes(every=1000)
pool.submit(int).result()
pool.wait()
"""
    assert python(program).returncode == 0
    report = (
        "from prometheus_client import CollectorRegistry, generate_latest, multiprocess\n"
        "registry = CollectorRegistry()\n"
        "multiprocess.MultiProcessCollector(registry)\n"
        "print(generate_latest(registry).decode())"
    )
    done = python(report)
    assert 'executor_tasks_submitted_total{executor="late"} 1.0' in done.stdout


def test_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A time, and a folder."""
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    with pytest.raises(ValueError, match="PROMETHEUS_MULTIPROC_DIR"):
        prometheus.instrument_processes()
    for wrong in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="every"):
            prometheus.instrument_processes(wrong)


APP = """
import os
from futurepool import BoundedExecutor
from prometheus_client import CollectorRegistry, generate_latest, multiprocess

pool = BoundedExecutor(3, name="web")  # in the parent, with preload_app

def application(environ, start_response):
    if environ["PATH_INFO"] == "/metrics":
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)
        body = generate_latest(registry)
    else:
        body = str(pool.submit(os.getpid).result()).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""

CONFIG = """
from futurepool.instrumentation import prometheus
from prometheus_client import multiprocess

bind = "127.0.0.1:0"
workers = 2
preload_app = True
control_socket_disable = True

def post_fork(server, worker):
    prometheus.instrument_processes(every=0.05)

def worker_exit(server, worker):
    from app import pool
    pool.stop(10)

def child_exit(server, worker):
    multiprocess.mark_process_dead(worker.pid)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="gunicorn forks")
def test_gunicorn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its workers at one port; one that ends leaves what it has counted, and another one comes."""
    pytest.importorskip("gunicorn")
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "gunicorn.conf.py").write_text(CONFIG)
    server = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "app:application"],
        cwd=tmp_path,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    end = time.monotonic() + 40
    reader: threading.Thread | None = None
    assert server.stderr is not None
    try:
        said = next(line for line in server.stderr if "Listening at" in line)
        port = int(re.findall(r"http://127\.0\.0\.1:(\d+)", said)[0])
        reader = threading.Thread(target=server.stderr.read)  # so that it never waits to say more
        reader.start()

        def get(path: str) -> str:
            while True:
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as at:
                        text: str = at.read().decode()
                        return text
                except urllib.error.URLError as error:
                    if isinstance(error, urllib.error.HTTPError):
                        error.close()
                    # Status 500: the client library cannot read a file that a new worker has opened and
                    # not filled yet. Or nobody was there to connect to. Nothing was counted then.
                    if time.monotonic() > end:
                        raise
                    time.sleep(0.02)

        def until(name: str, value: int) -> str:
            """What the metrics are once this one has that value."""
            while time.monotonic() < end:
                found = get("/metrics")
                if f"{name} {value}.0" in found.splitlines():
                    return found
                time.sleep(0.02)
            raise AssertionError(found)

        done = 'executor_tasks_completed_total{executor="web",outcome="success"}'
        limit = 'executor_threads_limit{executor="web"}'
        pids = {int(get("/")) for _ in range(10)}
        until(done, 10)
        until(limit, 6)
        last = pids.pop()
        os.kill(last, signal.SIGTERM)
        with pytest.raises(ProcessLookupError):
            while time.monotonic() < end:
                os.kill(last, 0)
                time.sleep(0.02)
        until(limit, 6)  # it has gone, and there is another one
        get("/")
        until(done, 11)
    finally:
        server.terminate()
        status = server.wait(30)
        if reader is not None:
            reader.join(30)
        server.stderr.close()
    assert status == 0
