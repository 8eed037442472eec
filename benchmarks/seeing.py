"""What it costs a busy pool to be looked at: `python benchmarks/seeing.py`.

A pool of four workers is kept busy, by default with no-ops, submitted a thousand at a time, so that one core is in use
all the time; with `--task-ms` with tasks that wait so long for something, as those of a service do, of which always some
are queued. In half of the windows somebody looks:

    scrapes      a hundred scrapes a second: the text that is made of the pool, by `prometheus.generate_latest`; without
                 histograms, and with them (`enable_metrics=True`)
    client       the same with histograms, by the client library's own `generate_latest`; and that of the same
                 lines if they are there already: what no collector can do without
    http         the first, over HTTP, by an endpoint of a few lines; and the same endpoint with a text that is there
                 already. Then both with the endpoint of `prometheus_client`, which has nothing to show the second time
    opentelemetry   a hundred collections a second by its SDK, with histograms; and of an empty provider
    top          `python -m futurepool top`, twice a second, in a process of its own
    observer     one observer that counts what it hears of each task

Windows come in pairs, one with and one without, in changing order, so that whatever else the machine does meets both
alike; a ratio is the median of the pairs' ratios: of tasks in a second, and of tasks in a second of the process's
processor time, which others on the machine disturb less. One per cent is less than what two windows differ by, here and
there, for no reason; so what a look takes of the processor's time is measured as well, in the threads that look, and
from that and the looks a second comes the share that the pool loses.

    python benchmarks/seeing.py                           some eight minutes
    python benchmarks/seeing.py --pairs 3 scrapes         a first look
    python benchmarks/seeing.py --task-ms 10 scrapes http
"""

from __future__ import annotations

import argparse
import contextlib
import http.server
import importlib
import json
import os
import platform
import random
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
import wsgiref.simple_server
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cases

import futurepool
from futurepool import BoundedExecutor, Observer, TaskEvent

WORKERS = 4
AT_ONCE = 1000  # tasks
SCRAPES = 100.0  # a second
LOOKS = 2.0  # a second, by `top`


class Looks:
    """How often somebody has looked, and what it took."""

    def __init__(self) -> None:
        self.count = 0
        self.spent = 0.0  # seconds of the processor's time


class Speed(NamedTuple):
    """Tasks in a second: of all time, and of the processor's."""

    all: float
    processor: float


def busy(pool: BoundedExecutor, seconds: float, wait: float | None = None) -> Speed:
    """As much as it can, of no-ops or of tasks that wait so many seconds."""
    submit, task = pool.submit, cases.noop if wait is None else partial(time.sleep, wait)
    clock = time.perf_counter
    start, began = clock(), time.process_time()
    done = 0
    if wait is None:
        while (now := clock()) - start < seconds:
            for future in [submit(task) for _ in range(AT_ONCE)]:
                future.result()
            done += AT_ONCE
    else:
        futures = deque(submit(task) for _ in range(WORKERS * 4))
        while (now := clock()) - start < seconds:
            futures.popleft().result()
            futures.append(submit(task))
            done += 1
        for future in futures:
            future.result()
    return Speed(done / (now - start), done / (time.process_time() - began))


@contextlib.contextmanager
def repeating(look: Callable[[], object], rate: float, looks: Looks) -> Iterator[None]:
    """A thread that looks so many times a second."""
    begun, ended = threading.Event(), threading.Event()

    def run() -> None:
        due = time.perf_counter()
        while not ended.wait(max(0.0, due - time.perf_counter())):
            began = time.thread_time()
            look()
            looks.spent += time.thread_time() - began
            looks.count += 1
            begun.set()
            due = max(due + 1 / rate, time.perf_counter() - 1 / rate)

    thread = threading.Thread(target=run)
    thread.start()
    begun.wait()
    try:
        yield
    finally:
        ended.set()
        thread.join()


class Watcher(NamedTuple):
    """Somebody who looks."""

    key: str
    title: str
    watch: Callable[[BoundedExecutor, Looks], contextlib.AbstractContextManager[None]]
    needs: tuple[str, str] | None = None  # a module, and what has it
    histograms: bool = False


def registry_of(*pools: BoundedExecutor) -> Any:
    from prometheus_client import CollectorRegistry

    from futurepool.instrumentation import prometheus

    registry = CollectorRegistry()
    if pools:
        prometheus.instrument(registry, select=lambda: pools)
    return registry


def scraped(pool: BoundedExecutor, looks: Looks) -> contextlib.AbstractContextManager[None]:
    from futurepool.instrumentation import prometheus

    registry = registry_of(pool)
    return repeating(lambda: prometheus.generate_latest(registry), SCRAPES, looks)


def by_client(pool: BoundedExecutor, looks: Looks) -> contextlib.AbstractContextManager[None]:
    import prometheus_client

    registry = registry_of(pool)
    return repeating(lambda: prometheus_client.generate_latest(registry), SCRAPES, looks)


class Made:
    """A collector whose metrics are there already."""

    def __init__(self, metrics: list[Any]) -> None:
        for metric in metrics:
            assert metric.samples  # some make them when they are asked for
        self._metrics = metrics

    def collect(self) -> list[Any]:
        return self._metrics


def only_text(pool: BoundedExecutor, looks: Looks) -> contextlib.AbstractContextManager[None]:
    import prometheus_client

    registry = registry_of()
    registry.register(Made(list(registry_of(pool).collect())))
    return repeating(lambda: prometheus_client.generate_latest(registry), SCRAPES, looks)


def collected(*pools: BoundedExecutor) -> Callable[[], object]:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    from futurepool.instrumentation import opentelemetry

    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
    if pools:
        opentelemetry.instrument(provider, select=lambda: pools)
    return reader.get_metrics_data


def by_sdk(pool: BoundedExecutor, looks: Looks) -> contextlib.AbstractContextManager[None]:
    return repeating(collected(pool), SCRAPES, looks)


def by_empty_sdk(_: BoundedExecutor, looks: Looks) -> contextlib.AbstractContextManager[None]:
    return repeating(collected(), SCRAPES, looks)


#: Asks as Prometheus does, by one connection for as long as it stays open.
CLIENT = """
import http.client, sys, time
port, rate = int(sys.argv[1]), float(sys.argv[2])
connection = http.client.HTTPConnection("127.0.0.1", port)
due = time.perf_counter()
while True:
    connection.request("GET", "/metrics", headers={"Accept": sys.argv[3]})
    connection.getresponse().read()
    due = max(due + 1 / rate, time.perf_counter())
    time.sleep(max(0.0, due - time.perf_counter()))
"""
ACCEPT = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)


@contextlib.contextmanager
def asked(port: int) -> Iterator[None]:
    words = [sys.executable, "-c", CLIENT, str(port), str(SCRAPES), ACCEPT]
    client = subprocess.Popen(words)
    try:
        yield
    finally:
        client.kill()
        client.wait()


def endpoint(text: Callable[[], bytes], looks: Looks) -> contextlib.AbstractContextManager[None]:
    """One of a few lines, as a service has it."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body together

        def handle_one_request(self) -> None:
            began = time.thread_time()
            super().handle_one_request()
            looks.spent += time.thread_time() - began
            looks.count += 1

        def do_GET(self) -> None:
            body = text()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return serving(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler))


@contextlib.contextmanager
def serving(server: Any) -> Iterator[None]:
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # the client goes in the middle of something
    thread = threading.Thread(target=server.serve_forever, args=(0.5,))
    thread.start()
    try:
        with asked(server.server_port):
            yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def over_http(pool: BoundedExecutor, looks: Looks) -> contextlib.AbstractContextManager[None]:
    from futurepool.instrumentation import prometheus

    registry = registry_of(pool)
    return endpoint(lambda: prometheus.generate_latest(registry), looks)


def only_http(pool: BoundedExecutor, looks: Looks) -> contextlib.AbstractContextManager[None]:
    from futurepool.instrumentation import prometheus

    text = prometheus.generate_latest(registry_of(pool))
    return endpoint(lambda: text, looks)


def client_http(registry: Any, looks: Looks) -> contextlib.AbstractContextManager[None]:
    """The endpoint that `start_http_server` opens: a connection and a thread for each scrape."""
    import prometheus_client
    from prometheus_client.exposition import ThreadingWSGIServer

    class Server(ThreadingWSGIServer):
        def process_request_thread(self, *request: Any) -> None:
            super().process_request_thread(*request)
            looks.spent += time.thread_time()
            looks.count += 1

    class Handler(wsgiref.simple_server.WSGIRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    app = prometheus_client.make_wsgi_app(registry)
    return serving(wsgiref.simple_server.make_server("127.0.0.1", 0, app, Server, Handler))


def over_client_http(
    pool: BoundedExecutor, looks: Looks
) -> contextlib.AbstractContextManager[None]:
    return client_http(registry_of(pool), looks)


def only_client_http(_: BoundedExecutor, looks: Looks) -> contextlib.AbstractContextManager[None]:
    return client_http(registry_of(), looks)


@contextlib.contextmanager
def topped(_pool: BoundedExecutor, looks: Looks) -> Iterator[None]:
    from futurepool._living import picture

    text = picture.text

    def timed() -> bytes:
        began = time.thread_time()
        try:
            return text()
        finally:
            looks.spent += time.thread_time() - began
            looks.count += 1

    futurepool.serve()
    words = ["top", str(os.getpid()), "--json", "--interval", str(1 / LOOKS)]
    package = str(Path(futurepool.__file__).parent.parent)
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        [sys.executable, "-m", "futurepool", *words],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert process.stdout is not None
    process.stdout.readline()  # it has started, and that is no part of it
    reader = threading.Thread(target=process.stdout.read)
    reader.start()
    picture.text = timed
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
        reader.join()
        process.stdout.close()
        picture.text = text


class Counting(Observer):
    """The cheapest there is."""

    def __init__(self) -> None:
        self.finished_tasks = 0

    def finished(self, event: TaskEvent) -> None:
        self.finished_tasks += 1


@contextlib.contextmanager
def observed(pool: BoundedExecutor, _looks: Looks) -> Iterator[None]:
    observer = Counting()
    pool.add_observer(observer)
    try:
        yield
    finally:
        pool.remove_observer(observer)
        time.sleep(0.1)  # until all is told, which is no part of the next window


PROMETHEUS = ("prometheus_client", "prometheus-client")
SDK = ("opentelemetry.sdk", "opentelemetry-sdk")
WATCHERS = (
    Watcher("scrapes", "a hundred scrapes a second", scraped, PROMETHEUS),
    Watcher("scrapes", "the same, with histograms", scraped, PROMETHEUS, True),
    Watcher("client", "by the client library's function", by_client, PROMETHEUS, True),
    Watcher("client", "that function alone", only_text, PROMETHEUS, True),
    Watcher("http", "over HTTP, with histograms", over_http, PROMETHEUS, True),
    Watcher("http", "HTTP alone", only_http, PROMETHEUS, True),
    Watcher("http", "by the client library's server", over_client_http, PROMETHEUS, True),
    Watcher("http", "that server alone", only_client_http, PROMETHEUS, True),
    Watcher("opentelemetry", "OpenTelemetry, with histograms", by_sdk, SDK, True),
    Watcher("opentelemetry", "its SDK alone", by_empty_sdk, SDK, True),
    Watcher("top", "`top` twice a second", topped),
    Watcher("observer", "one observer", observed),
)


def missing(watcher: Watcher) -> str:
    """What it needs and does not find."""
    if watcher.needs is not None:
        try:
            importlib.import_module(watcher.needs[0])
        except ImportError:
            return watcher.needs[1]
    if watcher.watch is topped and not hasattr(socket, "AF_UNIX"):
        return "sockets in the file system"
    return ""


def measure(
    watcher: Watcher, pairs: int, seconds: float, wait: float | None = None
) -> dict[str, Any]:
    """Pairs of windows: tasks a second without, and with; what the looks took."""
    looks = Looks()
    without: list[Speed] = []
    with_it: list[Speed] = []
    spent = 0.0
    chance = random.Random(1)
    with BoundedExecutor(WORKERS, name="busy", enable_metrics=watcher.histograms) as pool:
        busy(pool, min(seconds, 0.5), wait)  # threads are there, caches are warm
        for _ in range(pairs):
            for looking in chance.sample([False, True], 2):
                if not looking:
                    without.append(busy(pool, seconds, wait))
                    continue
                with watcher.watch(pool, looks):
                    began = time.perf_counter()
                    with_it.append(busy(pool, seconds, wait))
                    spent += time.perf_counter() - began
    return {
        "title": watcher.title,
        "without": without,
        "with": with_it,
        "look": looks.spent / looks.count if looks.count else None,
        "rate": looks.count / spent,
    }


def row(found: dict[str, Any]) -> str:
    """A row of the table."""
    plain = statistics.median(speed.all for speed in found["without"])
    seen = statistics.median(speed.all for speed in found["with"])
    pairs = list(zip(found["with"], found["without"], strict=True))
    ratio = statistics.median(seen.all / plain.all for seen, plain in pairs)
    processor = statistics.median(seen.processor / plain.processor for seen, plain in pairs)
    if found["look"] is None:
        look = share = "-"
        more = f"{1e6 * (1 / seen - 1 / plain):+.1f} µs a task"
    else:
        look = f"{1e6 * found['look']:.0f} µs × {found['rate']:.3g}"
        share = f"{100 * found['look'] * found['rate']:.2f} %"
        more = ""
    cells = [found["title"], look, share, f"{plain:,.0f}", f"{seen:,.0f}", f"{ratio:.3f}"]
    cells.append(f"{processor:.3f}")
    return " | ".join(["", *cells]).strip() + f" |{' ' * bool(more)}{more}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    known = list(dict.fromkeys(watcher.key for watcher in WATCHERS))
    parser.add_argument("cases", nargs="*", help=", ".join(known))
    parser.add_argument("--pairs", type=int, default=15, help="of windows, for each case")
    parser.add_argument("--seconds", type=float, default=1.5, help="of a window")
    parser.add_argument(
        "--task-ms", type=float, help="how long a task waits; without it tasks are no-ops"
    )
    parser.add_argument("--json", type=Path, help="store the figures there")
    options = parser.parse_args()
    for case in options.cases:
        if case not in known:
            parser.error(f"there is no case {case!r}")
    if options.pairs < 1 or not options.seconds > 0:
        parser.error("--pairs and --seconds must be more than 0")
    wait = None if options.task_ms is None else options.task_ms / 1000
    if wait is not None and not wait > 0:
        parser.error("--task-ms must be more than 0")
    tasks = "no-ops" if wait is None else f"tasks that wait {options.task_ms:g} ms"
    print(
        f"CPython {platform.python_version()}, {cases.cores()} cores; {WORKERS} workers, {tasks}\n"
    )
    heads = ("a look × a second", "of the processor", "tasks/s without", "with", "ratio")
    print(f"| | {' | '.join(heads)} | of the processor's time |")
    print("|---|---|---|---|---|---|---|")
    every: list[dict[str, Any]] = []
    absent: list[str] = []
    for watcher in WATCHERS:
        if options.cases and watcher.key not in options.cases:
            continue
        if what := missing(watcher):
            absent.append(f"{watcher.title} ({what})")
            continue
        every.append(measure(watcher, options.pairs, options.seconds, wait))
        print(row(every[-1]), flush=True)
    if absent:
        print(f"\nNot there: {', '.join(absent)}")
    if options.json is not None:
        options.json.write_text(json.dumps(every), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
