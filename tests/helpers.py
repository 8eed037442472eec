"""What tests of several folders do with a pool."""

from __future__ import annotations

import threading
from typing import Any


def hold(pool: Any, gate: threading.Event, number: int = 1) -> list[Any]:
    """So many tasks that run, surely, until the gate opens."""
    running = threading.Semaphore(0)

    def held() -> bool:
        running.release()
        return gate.wait(30)

    futures = [pool.submit(held) for _ in range(number)]
    for _ in futures:
        assert running.acquire(timeout=30)
    return futures
