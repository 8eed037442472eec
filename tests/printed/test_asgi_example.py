"""A real client of the pool: an ASGI application under uvicorn, with a crowd of HTTP requests."""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import json
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

pytestmark = pytest.mark.slow

CROWD = 50


@pytest.fixture(scope="module")
def example() -> Any:
    path = Path(__file__).parents[2] / "examples" / "asgi_app.py"
    spec = importlib.util.spec_from_file_location("asgi_app", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def get(port: int, path: str) -> tuple[int, Any]:
    """Status and body of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
        )
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        writer.close()
    return int(head.split()[1]), json.loads(body)


def crowd(port: int, path: str) -> list[asyncio.Task[tuple[int, Any]]]:
    return [asyncio.create_task(get(port, f"{path}/{n}")) for n in range(CROWD)]


def run(main: Any) -> None:
    asyncio.run(asyncio.wait_for(main, 50))


def test_a_full_pool_answers_503(example: Any, gate: threading.Event) -> None:
    """With RAISE: as many as fit are served, the others refused at once; health answers meanwhile."""

    async def main() -> None:
        app = example.make_app(lambda _: gate.wait(30), max_workers=2, queue_size=3)
        async with example.serving(app) as port:
            requests = crowd(port, "/reject")
            # While nothing can finish, all but five are answered.
            for request in itertools.islice(asyncio.as_completed(requests), CROWD - 5):
                assert (await request)[0] == 503
            status, health = await get(port, "/health")
            assert status == 200
            assert health == {"running": 2, "queued": 3, "completed": 0, "rejected": CROWD - 5}
            gate.set()
            answers = await asyncio.gather(*requests)
            assert Counter(status for status, _ in answers) == {503: CROWD - 5, 200: 5}
            assert (await get(port, "/health"))[1]["completed"] == 5

    run(main())


def test_arun_slows_down_instead(example: Any, gate: threading.Event) -> None:
    """Everybody is served, and never more than five are in the pool; health answers meanwhile."""
    most = 0

    async def main() -> None:
        def check(_: str) -> bool:
            nonlocal most
            stats = app.state.pool.stats()
            most = max(most, stats.active_workers + stats.queued_tasks)
            return gate.wait(30)

        app = example.make_app(check, max_workers=2, queue_size=3)
        async with example.serving(app) as port:
            requests = crowd(port, "/wait")
            while (await get(port, "/health"))[1]["queued"] < 3:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            health = (await get(port, "/health"))[1]
            assert health == {"running": 2, "queued": 3, "completed": 0, "rejected": 0}
            gate.set()
            answers = await asyncio.gather(*requests)
            assert Counter(status for status, _ in answers) == {200: CROWD}
            assert (await get(port, "/health"))[1]["completed"] == CROWD

    run(main())
    assert most == 5


def test_a_client_that_hangs_up(example: Any, gate: threading.Event) -> None:
    """The others lose nothing, and the service shuts down in order."""

    async def main() -> None:
        app = example.make_app(lambda _: gate.wait(30), max_workers=1, queue_size=1)
        async with example.serving(app) as port:
            requests = crowd(port, "/wait")
            while (await get(port, "/health"))[1]["queued"] < 1:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            for request in requests[::2]:
                request.cancel()
            gate.set()
            answers = await asyncio.gather(*requests, return_exceptions=True)
            served = [answer for answer in answers if isinstance(answer, tuple)]
            assert Counter(status for status, _ in served) == {200: CROWD // 2}

    run(main())
