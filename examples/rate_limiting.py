"""Two limits on requests to a server: how many there are in a second, and how many may wait.

A limiter (the package pyrate-limiter) keeps to the server's limit; a small queue and `try_submit` tell a
client that sends faster than that to come back later. The server is a local one.
"""

import argparse
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from pyrate_limiter import Limiter, Rate

from futurepool import BoundedExecutor, QueueFullError

RATE = 50.0  # requests per second
BURST = 5  # requests at once, after a pause


class Handler(BaseHTTPRequestHandler):
    """Counts the requests."""

    served = 0  # guarded by mutex
    mutex = threading.Lock()

    def do_GET(self) -> None:
        with Handler.mutex:
            Handler.served += 1
        body = f"reply to {self.path}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Keep quiet."""


# Not through a proxy that the environment may name.
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def fetch(limiter: Limiter, url: str) -> str:
    limiter.try_acquire("server")  # waits for its turn
    with opener.open(url, timeout=10) as response:
        body: bytes = response.read()
    return body.decode()


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()  # it takes none
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    limiter = Limiter(Rate(BURST, int(1000 * BURST / RATE)))  # so many in so many milliseconds
    accepted, retries = [], 0

    began = time.monotonic()
    with BoundedExecutor(max_workers=4, queue_size=8) as pool:
        for number in range(40):
            while True:
                try:
                    accepted.append(pool.try_submit(fetch, limiter, f"{address}/{number}"))
                    break
                except QueueFullError:  # a web service would answer 429 here
                    retries += 1
                    time.sleep(0.02)
        replies = [future.result() for future in accepted]
    seconds = time.monotonic() - began
    server.shutdown()
    server.server_close()

    print(f"{len(replies)} replies, the last: {replies[-1]}")
    print(f"requests the server saw: {Handler.served}")
    print(f"told to come back later: {retries > 0}, {pool.stats().rejected_tasks == retries}")
    print(f"no faster than the limit: {seconds >= (len(replies) - BURST) / RATE - 0.05}")


if __name__ == "__main__":
    main()
