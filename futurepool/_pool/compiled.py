"""The extension `_fast`, if it was built: the hot paths in C.

It finds the fields of futures, slots and parts where their classes' `__slots__` have put them, so there is
nothing to be changed for it anywhere; a class that loses a slot which it needs is noticed at import. Those that
each task changes and that are numbers hold the numbers themselves from then on (`NUMBERS`): an object
of these classes may not be made before.

Which function of `_fast.c` is whose twin:

| in C | in Python |
|---|---|
| `submit` | `fast.Submitting.submit` |
| `submit_many`, `make_batch`, `submit_batch`, `admit_all` | `fast.submit_many`, `fast._admit_all` |
| `next_task` | `fast.next_task` |
| `enqueue`, `enlist`, `advance` | `PriorityQueue.push`, `enlist`, `advance` |
| `heap_push`, `heap_pop` | `heapq.heappush`, `heappop` |
| `count_times`, `prepare_count` | `Meters.count_run`, `HistogramRecorder.record` |
| `call_result` | `Future.result` |
| `row_call`, `run_task` | the inner loop of `worker_loop.work` |
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures.thread import ThreadPoolExecutor
from types import BuiltinFunctionType
from typing import Any

from futurepool import _sync
from futurepool._errors.failures import Failure
from futurepool._foreign import patched
from futurepool._future import (
    CANCELLED,
    FINISHED,
    PENDING,
    RUNNING,
    Future,
    Subscribers,
    name_of,
)
from futurepool._options import Options
from futurepool._pool import overload
from futurepool._pool.capacity import Capacity
from futurepool._pool.meters import Meters
from futurepool._pool.pool import Pool
from futurepool._pool.section import Section
from futurepool._pool.task_queue import BOTTOM, KEEP, Level, PriorityQueue
from futurepool._pool.waiters import Waiters
from futurepool._pool.workers import Workers, WorkerSlot

__all__ = ["load"]


def load(next_task: Callable[..., Any]) -> Any:
    """The extension, ready for use; None if it was not built.

    Args:
        next_task: What does what it leaves to Python.
    """
    try:
        fast: Any = __import__("futurepool._pool._fast", fromlist=["bind"])
    except ImportError:
        return None
    queue: Any = deque
    clock: Any = _sync.clock
    native = type(clock) is BuiltinFunctionType and clock.__name__ == "perf_counter"
    fast.bind(
        {
            kind.__name__: kind
            for kind in (
                *(Future, Subscribers, WorkerSlot, Section, Pool, Capacity, Workers, Waiters),
                *(Meters, PriorityQueue, Level, Options, Failure, ThreadPoolExecutor),
            )
        }
        | {
            "CANCELLED": CANCELLED,
            "FINISHED": FINISHED,
            "PENDING": PENDING,
            "RUNNING": RUNNING,
            "BOTTOM": BOTTOM,
            "KEEP": KEEP,
            "append": queue.append,
            "pop": queue.pop,
            "popleft": queue.popleft,
            "clock": clock if native else None,
            "name_of": name_of,
            "next_task": next_task,
            "patched": patched,
            "sync": _sync,
            "without_place": overload.without_place,
        }
    )
    patched.listeners.append(fast.reroute)
    fast.reroute(patched.look())
    return fast
