"""A small HTTP service that can be seen: /metrics for Prometheus, /healthz, and an end in time on SIGTERM.

Needs prometheus-client. Without arguments it serves some requests of its own, shows what was measured, and
ends itself; with `--port 8000` it serves until SIGTERM. /work?seconds=0.1 does some work in a pool of four;
what finds no place is told to come back (503), which the metrics count by reason.
"""

import argparse
import queue
import signal
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry

from futurepool import BoundedExecutor, PoolClosedError, QueueFullError
from futurepool.instrumentation import prometheus

REGISTRY = CollectorRegistry()
prometheus.instrument(REGISTRY)


class Handler(BaseHTTPRequestHandler):
    """One request; its thread waits for the pool."""

    pool: BoundedExecutor

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/metrics":
            self.answer(200, prometheus.generate_latest(REGISTRY))
        elif url.path == "/healthz":
            stats = self.pool.stats()
            well = not stats.closed and stats.oldest_queued < 5
            self.answer(200 if well else 503, f"{stats.queued_tasks} queued\n".encode())
        elif url.path == "/work":
            try:
                seconds = float(parse_qs(url.query).get("seconds", ["0"])[0])
                self.pool.try_submit(time.sleep, seconds).result()
            except (QueueFullError, PoolClosedError):
                self.answer(503, b"come back later\n")
            except (
                ValueError,
                OverflowError,
            ):  # here, or in the task: nobody can sleep for -1 seconds
                self.answer(400, b"seconds must be a number, 0 or more\n")
            else:
                self.answer(200, b"done\n")
        else:
            self.answer(404, b"")

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header(
            "Content-Type", CONTENT_TYPE_LATEST
        )  # Prometheus 3 insists; it is plain text
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing: what is worth knowing is measured."""


def serve(port: int, ports: "queue.SimpleQueue[int] | None" = None) -> None:
    """Serve until SIGTERM; what was accepted then has ten seconds to finish."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    pool = BoundedExecutor(4, queue_size=4, name="web", enable_metrics=True)
    with pool.stopping(10), ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        Handler.pool = pool
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        print(f"serving on port {server.server_port}")
        if ports is not None:
            ports.put(server.server_port)
        while not stop.wait(1):  # so that a signal's handler runs soon, on Windows too
            pass
        server.shutdown()
        thread.join()
    print("ended: all that was accepted is done")


def get(port: int, path: str) -> "tuple[int, str]":
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        error.close()
        return error.code, ""


def try_it(ports: "queue.SimpleQueue[int]") -> None:
    """Twenty requests at once, of which at least eight find a place; then what the metrics say."""
    port = ports.get()
    with ThreadPoolExecutor(20) as clients:
        replies = list(clients.map(get, [port] * 20, ["/work?seconds=0.3"] * 20))
    served = [status for status, _ in replies].count(200)
    print(f"at least eight were served: {served >= 8}")
    status, text = get(port, "/metrics")
    wanted = {
        'executor_tasks_completed_total{executor="web",outcome="success"}': served,
        'executor_tasks_rejected_total{executor="web",reason="full"}': 20 - served,
        'executor_task_run_seconds_count{executor="web"}': served,
    }
    lines = text.splitlines()
    found = all(f"{name} {float(value)}" in lines for name, value in wanted.items())
    print(f"the metrics say so: {status == 200 and found}")
    nonsense = [get(port, f"/work?seconds={text}")[0] for text in ("soon", "-1", "inf")]
    print(f"nonsense is refused: {nonsense == [400] * 3}")
    print(f"it is well: {get(port, '/healthz')[0] == 200}")
    signal.raise_signal(signal.SIGTERM)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int)
    port = parser.parse_args().port
    if port is not None:
        serve(port)
        return
    ports: queue.SimpleQueue[int] = queue.SimpleQueue()
    client = threading.Thread(target=try_it, args=(ports,))
    client.start()
    serve(0, ports)
    client.join()


if __name__ == "__main__":
    main()
