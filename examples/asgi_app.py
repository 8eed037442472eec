"""A web service whose handlers do blocking work in a bounded pool, and what happens under load.

The driver of a database blocks until the answer is there. Two endpoints call it in the same pool:

    GET /reject/{key}   503 at once when the pool is full: the caller may try elsewhere
    GET /wait/{key}     waits for a place without blocking the loop: callers slow down
    GET /health         needs no place in the pool, and answers whatever it is doing

    python examples/asgi_app.py            a server, and a crowd of clients in another process;
                                           a third asks for /health and takes the time
    python examples/asgi_app.py --serve    only the server, on port 8000, until Ctrl-C

Needs starlette and uvicorn.
"""

import argparse
import asyncio
import contextlib
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator

from futurepool import BoundedExecutor, OnFull, QueueFullError

try:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route
except ImportError as missing:
    print(f"this example needs starlette and uvicorn: {missing}")
    sys.exit(0)

CROWD = 40  # clients at a time
ROUNDS = 5  # requests of each, one after the other
PATIENCE = 10.0  # seconds that the service waits for its queries when it ends


def query(key: str) -> bool:
    """Blocks for some hundredths of a second, as a driver does that waits for its database."""
    time.sleep(0.02)
    return len(key) < 3


def make_app(
    ask: Callable[[str], bool] = query, max_workers: int = 2, queue_size: int = 6
) -> Starlette:
    """The application; the pool lives as long as it does."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        # Left by `stop`: a query that hangs does not keep the service from ending.
        pool = BoundedExecutor(max_workers, "query", queue_size=queue_size)
        async with pool.stopping(PATIENCE):
            app.state.pool = pool
            yield

    async def reject(request: Request) -> JSONResponse:
        pool = request.app.state.pool.options(on_full=OnFull.RAISE)
        try:
            future = pool.submit(ask, request.path_params["key"])
        except QueueFullError:
            return JSONResponse({"error": "busy"}, 503, {"Retry-After": "1"})
        return JSONResponse({"ok": await future})

    async def wait(request: Request) -> JSONResponse:
        ok = await request.app.state.pool.arun(ask, request.path_params["key"])
        return JSONResponse({"ok": ok})

    async def health(request: Request) -> JSONResponse:
        stats = request.app.state.pool.stats()
        return JSONResponse(
            {
                "running": stats.active_workers,
                "queued": stats.queued_tasks,
                "completed": stats.completed_tasks,
                "rejected": stats.rejected_tasks,
            }
        )

    routes = [
        Route("/reject/{key}", reject),
        Route("/wait/{key}", wait),
        Route("/health", health),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


class Server(uvicorn.Server):
    """A server that leaves Ctrl-C to the loop it runs in."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


@contextlib.asynccontextmanager
async def serving(app: Starlette) -> AsyncIterator[int]:
    """Serve `app` on a free port of the loopback interface, in this loop; yield the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(app, log_level="warning", lifespan="on", ws="none")
        server = Server(config)
        task = asyncio.create_task(server.serve([listener]))
        while not server.started and not task.done():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await task


async def get(port: int, path: str) -> int:
    """The smallest of clients; the status of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
        )
        answer = await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()
    return int(answer.split()[1])


async def one_client(port: int, path: str) -> list[int]:
    return [await get(port, f"{path}/{n}") for n in range(ROUNDS)]


async def crowd(port: int) -> None:
    for path in ("/reject", "/wait"):
        began = time.perf_counter()
        answers = await asyncio.gather(*(one_client(port, path) for _ in range(CROWD)))
        seconds = time.perf_counter() - began
        counts = Counter(status for statuses in answers for status in statuses)
        print(
            f"{path:8} {counts[200]:3} served, {counts[503]:3} told to come back, "
            f"in {seconds:.2f} s"
        )
        print(f"none lost: {counts[200] + counts[503] == CROWD * ROUNDS}")
    print(f"all who waited were served: {counts[200] == CROWD * ROUNDS}")


async def watch(port: int) -> None:
    """Ask how it is doing, again and again, until stdin is closed."""
    delays: list[float] = []
    end = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    while not end.done():
        began = time.perf_counter()
        assert await get(port, "/health") == 200
        delays.append(time.perf_counter() - began)
        await asyncio.sleep(0.01)
    print(f"/health  {len(delays)} answers, the slowest after {max(delays) * 1000:.0f} ms")


async def demonstrate() -> None:
    async with serving(make_app()) as port:
        me = (sys.executable, __file__)
        watcher = await asyncio.create_subprocess_exec(
            *me, "--watch", str(port), stdin=asyncio.subprocess.PIPE
        )
        clients = await asyncio.create_subprocess_exec(*me, "--crowd", str(port))
        await clients.wait()
        await watcher.communicate(b"")  # closes its stdin
        assert (clients.returncode, watcher.returncode) == (0, 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--serve", action="store_true", help="only the server, on port 8000")
    what.add_argument("--crowd", metavar="PORT", type=int, help=argparse.SUPPRESS)  # for itself
    what.add_argument("--watch", metavar="PORT", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        uvicorn.run(make_app(), port=8000)
    elif asked.crowd:
        asyncio.run(crowd(asked.crowd))
    elif asked.watch:
        asyncio.run(watch(asked.watch))
    else:
        asyncio.run(demonstrate())


if __name__ == "__main__":
    main()
