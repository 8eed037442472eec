"""What test_engines runs against a real dask cluster."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import distributed
import engine_tasks as tasks

from futurepool import BoundedExecutor, TaskError


def add_path(path: str) -> None:
    sys.path.insert(0, path)


def main() -> None:
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, processes=True
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        client.run(add_path, str(Path(__file__).parent))
        engine = client.get_executor(pure=False)
        with BoundedExecutor(engine=engine, queue_size=20, error_handler=id) as ex:
            assert ex._max_workers == 2
            assert list(ex.map(tasks.square, range(40))) == [n * n for n in range(40)]
            error = ex.submit(tasks.fail, "far away").exception(60)
            assert isinstance(error, ValueError)
            assert isinstance(error, TaskError)
            assert "in fail" in error.traceback
            assert asyncio.run(ex.arun(tasks.square, 5)) == 25
            napping = [ex.submit(tasks.nap, 0.2) for _ in range(4)]
            os.kill(next(iter(client.run(os.getpid).values())), 9)
            # The scheduler runs the lost task again elsewhere, as it promises.
            assert [future.result(60) for future in napping] == [0.2] * 4
            assert ex.wait(60)
    print("ok")


if __name__ == "__main__":
    main()
