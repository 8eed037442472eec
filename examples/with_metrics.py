"""Metrics: where the time goes, in numbers, and what a pool is doing at this moment.

The work is to compress this folder's files; `wait` shows how long they queue for two workers.
"""

import argparse
import threading
import zlib
from pathlib import Path

from futurepool import BoundedExecutor, Histogram

FILES = sorted(Path(__file__).parent.glob("*.py"))


def compress(path: Path) -> int:
    return len(zlib.compress(path.read_bytes() * 20, 9))


def show(name: str, times: Histogram | None) -> None:
    assert times is not None  # there with enable_metrics=True
    print(
        f"{name:8} n={times.count}  p50={times.p50 * 1e3:.2f} ms  p99={times.p99 * 1e3:.2f} ms  "
        f"max={times.max * 1e3:.2f} ms"
    )


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()  # it takes none
    with BoundedExecutor(max_workers=2, thread_name_prefix="zip", enable_metrics=True) as pool:
        total = sum(pool.map(compress, FILES * 20))
        pool.wait()
        stats = pool.stats()
        print(f"{stats.completed_tasks} files compressed: {total > 0}")
        show("run time", stats.latency)
        show("wait", stats.wait)

        # What a stuck pool is asked: which tasks, since when, and at which line.
        entered, leave = threading.Event(), threading.Event()

        def stuck() -> None:
            entered.set()
            leave.wait()

        task = pool.options(name="stuck").submit(stuck)
        entered.wait()
        (entry,) = pool.running(stack=True)
        print(f"running: task {entry.task_id} ({entry.name}) in {entry.worker}")
        print(f"its stack shows the line: {'leave.wait()' in (entry.stack or '')}")
        leave.set()
        task.result()

        # Numbers add up at every instant.
        now = pool.stats()
        accounted = (
            now.completed_tasks + now.cancelled_tasks + now.active_workers + now.queued_tasks
        )
        print(f"every task accounted for: {now.submitted_tasks == accounted}")


if __name__ == "__main__":
    main()
