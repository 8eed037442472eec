"""For tests of code that uses a pool: an executor without threads, which does the same each time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from futurepool import _sync
from futurepool._engines.inline import InlineEngine
from futurepool._errors import InvalidConfigError
from futurepool._executor.public import BoundedExecutor
from futurepool._options import UNSET

if TYPE_CHECKING:
    from concurrent import futures as cf

    from futurepool._options import Config
    from futurepool._pool.pool import Pool

__all__ = ["InlineExecutor"]


class InlineExecutor(BoundedExecutor):
    """A `BoundedExecutor` that runs each task in the thread that submits it, in order, and has no threads.

    It has all of that class's methods, and keeps what that class promises: priorities, the bound,
    policies, tokens, errors, statistics, asyncio, context variables. What differs is when tasks run:

    - `submit` runs the task before it returns, so the future that it returns is done.
    - What a task submits waits until that task ends, as it waits for the one worker of a small pool; then it runs
      in order of priority. So a task is a way to fill the queue, and to look at it.
    - A task that waits for one that is queued runs that one on the spot.

    Args:
        max_workers: As there it counts for the bound, at most `max_workers + queue_size` tasks; but one task
            runs at a time. The default is 1.

    All other arguments are those of `BoundedExecutor`, but for `engine`. `initializer` is called once in each thread
    that submits, `idle_timeout` and `min_workers` mean nothing here.

    Raises:
        InvalidConfigError: As there, and for an `engine`.

    A task that waits for another thread, or for what its submitter does next, waits for ever. A KeyboardInterrupt
    that a task raises in the main thread is raised by `submit` as well.

    Thread safety: as there. What a thread submits while another one runs a task, that one runs next.
    """

    def _futurepool_workers(self, engine: cf.Executor | None) -> int:
        if engine is not None:
            raise InvalidConfigError("an InlineExecutor runs tasks itself and takes no engine")
        return 1

    def _futurepool_engine(self, pool: Pool, config: Config) -> None:
        if config.engine is not None:
            raise InvalidConfigError("an InlineExecutor runs tasks itself and takes no engine")
        pool.engine = InlineEngine(pool, config.initializer, config.initargs)
        self._futurepool_size = config.max_workers
        self._futurepool_one()

    def _futurepool_one(self) -> None:
        """One at a time: with two, what a task submits under a lock of its own would run on the spot."""
        pool = self._futurepool
        with pool.mutex:
            pool.workers.resize(1)

    def resize(self, max_workers: int | None = None, *, queue_size: int | None = UNSET) -> None:
        """As there; `max_workers` counts for the bound only."""
        size = self._futurepool_size if max_workers is None else max_workers
        super().resize(size, queue_size=queue_size)
        self._futurepool_size = self._futurepool.workers.size
        self._futurepool_one()

    def prestart(self, number: int | None = None) -> int:
        """Nothing to be done: there are no threads. Returns 0."""
        return super().prestart(0 if number is None else min(number, 1))


_sync.import_now(__name__)
