"""The delegate engine: the queue, tokens and policies of this package before another executor.

Each of `max_workers` places takes one task at a time into the engine. A place is not a thread: it
is a record of the core with an inbox. What happens to it (a wake-up from the core, the end of the
engine's future) is put into the inbox, and whoever put it there does the place's next step, in
its own thread, unless another thread is doing one; then that one goes on with it.

No event is lost: it is in the inbox before the owner's lock is tried, and whoever gives the lock up
looks into the inbox again afterwards. A step of one place is done by one thread at a time. A future
that is done already calls back from within a step, which only fills the inbox: nothing recurses.

Tasks run elsewhere, so they have no context of the caller's and no `current_token()`; cancelling the
token of a task takes it back from the engine if the engine has not begun with it.
"""

from __future__ import annotations

import functools
import os
import threading
from collections import deque
from concurrent import futures as cf
from typing import Any

from futurepool import _sync
from futurepool.core import PARKED, Record
from futurepool.future import RUNNING, Future
from futurepool.queue import Core
from futurepool.worker import run_one

__all__: list[str] = []  # internal

_WAKE = object()


def capacity(engine: cf.Executor) -> int:
    """How many tasks the engine says it can run at a time."""
    client = getattr(engine, "_client", None)  # dask.distributed's ClientExecutor
    if client is not None and hasattr(client, "nthreads"):
        return sum(client.nthreads().values()) or 1
    for name in ("_max_workers", "max_workers"):
        count = getattr(engine, name, None)
        if isinstance(count, int) and count > 0:
            return count
    return os.cpu_count() or 1


class DelegateEngine:
    """See `futurepool.core.Engine`."""

    __slots__ = ("_close", "_core", "executor", "threads")

    def __init__(self, core: Core, executor: cf.Executor, close: bool) -> None:
        self._core = core
        self._close = close
        self.executor: cf.Executor = executor
        self.threads: set[Any] = set()  # always empty

    def start_worker(self) -> None:
        """Open one more place."""
        core = self._core
        record = Record(core, thread=self)
        record.ident = 0  # no thread's
        record.gate = place = _Place(core, self.executor, record)
        with core.mutex:
            if core.starting <= 0:
                return
            core.starting -= 1
            core.records[record] = None
            core.workers[record] = place
        place.release()

    def run_here(self, future: Future[Any]) -> bool:
        """Run in this thread, in this process."""
        return run_one(self._core, future)

    def run_aside(self, future: Future[Any]) -> bool:
        """The same: deep nesting is for threads."""
        return run_one(self._core, future)

    def ended(self) -> None:
        """The last place is empty, and the pool closed: close the engine, too, if we are to."""
        if self._close:
            self.executor.shutdown(wait=False)

    def joined(self, wait: bool) -> None:
        """The same for who waits; or for who gives up on what is stuck in there."""
        if self._close:
            if wait:
                self.executor.shutdown(wait=True)
            else:
                self.executor.shutdown(wait=False, cancel_futures=True)

    def reset(self) -> None:
        """We are in the child of a fork, where the engine is of no use."""


class _Place:
    """What a sleeping worker's gate is for threads: `release()` wakes it."""

    __slots__ = ("_core", "_engine", "_inbox", "_owner", "_record")

    def __init__(self, core: Core, engine: cf.Executor, record: Record) -> None:
        self._core = core
        self._engine = engine
        self._record = record
        self._inbox: deque[Any] = deque()  # single C calls only
        self._owner = _sync.Lock()

    def release(self) -> None:
        """Look for work."""
        self._inbox.append(_WAKE)
        self._run()

    def _done(self, inner: Any) -> None:
        self._inbox.append(inner)
        if not inner.cancelled() and isinstance(inner.exception(), cf.BrokenExecutor):
            # Elsewhere: CPython 3.12's process pool holds its own lock while it fails its futures,
            # and would wait for itself in submit.
            _sync.start(threading.Thread(target=self._run, daemon=True))
        else:
            self._run()

    def _run(self) -> None:
        while self._inbox and self._owner.acquire(False):
            try:
                while self._inbox:
                    self._step(self._inbox.popleft())
            finally:
                self._owner.release()

    def _step(self, event: Any) -> None:
        record = self._record
        result: Any = None
        error: BaseException | None = None
        if event is not _WAKE:
            try:
                result = event.result()
            except BaseException as raised:
                error = raised
        elif record.task is not None or record.leave:
            return  # woken while it is busy, which happens after an interruption
        try:
            while True:
                task = self._core.turn(record, result, error)
                result = error = None
                if task is not None:
                    error = self._forward(task)
                    if error is None:
                        return
                elif record.leave or record.away == PARKED:
                    return
        except BaseException as raised:
            self._core.recover()
            if record.task is not None and record.task._state is RUNNING:
                self._core.finish(record, None, raised)
                self._inbox.append(_WAKE)
            raise

    def _forward(self, task: Future[Any]) -> BaseException | None:
        """Hand a task to the engine; what that raises is the task's failure."""
        try:
            inner = self._engine.submit(task._fn, *task._args, **task._kwargs or {})
        except Exception as error:
            task._drop()
            return error
        task._drop()
        self._core.token_of(task).add_callback(functools.partial(_take_back, inner))
        inner.add_done_callback(self._done)
        return None


def _take_back(inner: Any, _token: object) -> None:
    inner.cancel()
