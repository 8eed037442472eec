"""For tests of code that uses a pool: an executor without threads, which does the same each time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from futurepool._engines.inline import InlineEngine
from futurepool._errors import InvalidConfigError
from futurepool._executor import BoundedExecutor

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
    - What a task submits waits until that task ends, as it would wait for the one worker of a small pool;
      then it runs in order of priority. So a task is a way to fill the queue, and to look at it.
    - A task that waits for one that is queued runs that one on the spot.

    Args:
        max_workers: The default is 1. With more, what a task submits runs at once, on top of it, as long
            as fewer tasks than that run.

    All other arguments are those of `BoundedExecutor`, but for `engine`. `initializer` is called once in each thread
    that submits, `idle_timeout` and `min_workers` mean nothing here.

    Raises:
        InvalidConfigError: As there, and for an `engine`.

    A task that waits for another thread, or for what its submitter does next, waits for ever. A KeyboardInterrupt
    that a task raises in the main thread is raised by `submit` as well.

    Thread safety: as there. Of several threads that submit at the same time, one may run what another has
    submitted.
    """

    def _futurepool_workers(self, engine: cf.Executor | None) -> int:
        if engine is not None:
            raise InvalidConfigError("an InlineExecutor runs tasks itself and takes no engine")
        return 1

    def _futurepool_engine(self, pool: Pool, config: Config) -> None:
        if config.engine is not None:
            raise InvalidConfigError("an InlineExecutor runs tasks itself and takes no engine")
        pool.engine = InlineEngine(pool, config.initializer, config.initargs)
