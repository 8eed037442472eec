"""What tests of several folders do with a pool."""

from __future__ import annotations

import threading
from typing import Any

PATIENCE = 30.0  # seconds that a test waits for what must happen


def hold(pool: Any, gate: threading.Event, number: int = 1) -> list[Any]:
    """So many tasks that run, surely, until the gate opens."""
    running = threading.Semaphore(0)
    futures = [
        pool.submit(lambda: (running.release(), gate.wait(PATIENCE))[1]) for _ in range(number)
    ]
    for _ in futures:
        assert running.acquire(timeout=PATIENCE)
    return futures
