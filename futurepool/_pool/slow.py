"""Tasks that run for long are logged, once each, with the line they are at.

Nothing is done for a task: the timer's thread looks at what runs. At each look it knows when the next task
may be due: the oldest one that it has not logged yet, or one that starts now. So it looks once in
`limit` seconds, or as soon as one is due, and none is logged late. Looking ends with the last worker and begins
with the first:

    a worker is counted in `threads`, then it is seen whether a look is due (`arm`)
    a look that is over says that none is due, then it looks whether there are workers

So one of the two sees the other. A look that was arranged twice finds that it is not yet time.

What is found is put in words, and logged, by a thread aside: that may take long.
"""

from __future__ import annotations

import logging
import weakref
from functools import partial
from typing import Any

from futurepool import _logs, _sync
from futurepool._deadlines import timer
from futurepool._foreign import aside
from futurepool._future import Future

__all__ = ["SlowTasks"]

AnyFuture = Future[Any]


class SlowTasks:
    """Looks at the tasks of one pool."""

    __slots__ = ("__weakref__", "_due", "_limit", "_pool", "_said")

    def __init__(self, pool: Any, limit: float) -> None:
        self._pool = weakref.ref(pool)
        self._limit = limit  # seconds
        self._due: float = 0.0  # when the next look is; 0: none is
        self._said: set[int] = set()  # the running tasks that have been logged

    def arm(self) -> None:
        """There may be a first worker. Deferred; idempotent."""
        if not self._due:
            self._look_at(_sync.clock() + self._limit)

    def forget(self) -> None:
        """In the child of a fork: nothing runs."""
        self._due = 0.0
        self._said = set()

    def _look_at(self, when: float) -> None:
        self._due = when
        timer.schedule(when, self)

    def _settled(self) -> bool:
        return not self._due

    def _expire(self) -> None:
        """Look. In the timer's thread."""
        pool: Any = self._pool()
        now = _sync.clock()
        if pool is None or not self._due or now < self._due:
            return
        self._due = 0.0
        running = pool.running()
        if not pool.workers.threads and not running:
            return
        due = now + self._limit
        found: list[AnyFuture] = []
        for task, _, started in running:
            if task.task_id in self._said:
                continue
            if started + self._limit <= now:
                found.append(task)
            else:
                due = min(due, started + self._limit)
        self._said = {task.task_id for task, _, _ in running if task.task_id in self._said}
        self._said.update([task.task_id for task in found])
        self._look_at(due)
        if found:
            names = {task.task_id: task.name for task in found}
            aside.run(partial(_say, pool, self._limit, names))


def _say(pool: Any, limit: float, names: dict[int, str]) -> None:
    from futurepool._pool.report import running

    entries = {entry.task_id: entry for entry in running(pool, stack=True)}
    for number, name in names.items():
        entry = entries.get(number)
        _logs.emit(
            logging.WARNING,
            "a task of %s has run for longer than %g s: %s",
            pool.name,
            limit,
            f"task {number} ({name}), which has just ended" if entry is None else entry,
            pool=pool.name,
            task_id=number,
            task_name=name,
        )


_sync.import_now(__name__)
