"""What test_engines runs against a real dask cluster."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import distributed

from futurepool import BoundedExecutor, TaskError
from tests.engines import tasks


def add_path(path: str) -> None:
    sys.path.insert(0, path)


def main() -> None:
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, processes=True
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        client.run(add_path, str(Path(__file__).parents[2]))
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
            taken_back(ex)
            fails_alone(ex, tasks.lock)
            fails_alone(ex, tasks.stubborn_result)
            fails_alone(ex, tasks.raise_broken)
        closed_behind_our_back(cluster)
    print("ok")


def taken_back(ex: BoundedExecutor) -> None:
    """Two of each worker's are read ahead. One is taken back: nobody can tell whether it has begun."""
    with tempfile.TemporaryDirectory() as folder:
        go = Path(folder) / "go"
        futures = [ex.submit(tasks.wait_for, str(go)) for _ in range(7)]
        while len(ex.running()) < 6:
            ex.stats()
        assert [future.running() for future in futures] == [True] * 6 + [False]
        assert futures[5].cancel() is False
        assert isinstance(futures[5].exception(60), concurrent.futures.CancelledError)
        go.touch()
        assert [future.result(60) for future in futures if future is not futures[5]] == [True] * 6


def fails_alone(ex: BoundedExecutor, fn: Callable[[], object]) -> None:
    """The task fails; what was away comes back, and the next runs."""
    with tempfile.TemporaryDirectory() as folder:
        go = Path(folder) / "go"
        away = ex.submit(tasks.wait_for, str(go))
        assert isinstance(ex.submit(fn).exception(60), TaskError)
        go.touch()
        assert away.result(60) is True
    assert ex.submit(tasks.square, 3).result(60) == 9


def closed_behind_our_back(cluster: distributed.LocalCluster) -> None:
    """All that is away or queued fails, and nothing hangs."""
    with tempfile.TemporaryDirectory() as folder, distributed.Client(cluster) as client:
        go = Path(folder) / "go"
        with BoundedExecutor(engine=client.get_executor(pure=False), error_handler=id) as ex:
            assert ex.submit(tasks.square, 3).result(60) == 9
            futures = [ex.submit(tasks.wait_for, str(go)) for _ in range(5)]
            while len(ex.running()) < 2:
                ex.stats()
            client.close()
            go.touch()
            futures.append(ex.submit(tasks.square, 4))
            errors = [future.exception(60) for future in futures]
            assert all(isinstance(error, TaskError) for error in errors), errors
            assert ex.wait(60)


if __name__ == "__main__":
    main()
