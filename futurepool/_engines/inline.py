"""Running tasks in the threads that submit them: for tests, where no other thread is wanted.

A worker is started as `threads` starts one, but it is no thread: `start_worker` takes the queue's tasks right
there, in the stack of whoever submits, until there are none, and leaves. So all that a pool promises holds by the
same means: while a task runs there is a worker that is busy, and what that task submits waits for it. (There is
one worker only, see `futurepool.testing`. If there were more, another one would run on top of the first.)
"""

from __future__ import annotations

import functools
import logging
import threading
import weakref
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any

from futurepool import _sync
from futurepool._engines import PoolPort
from futurepool._engines.threads import BROKEN
from futurepool._engines.worker_loop import run_one
from futurepool._errors import is_a
from futurepool._foreign import contexts
from futurepool._future import Future
from futurepool._pool.workers import BUSY, PARKED, Kind, WorkerSlot

__all__ = ["InlineEngine"]

_log = logging.getLogger("concurrent.futures")


class InlineEngine:
    """See `futurepool._engines.Engine`."""

    apart = False
    writes_off = False  # a thread is its submitter's

    __slots__ = ("_initargs", "_initializer", "_local", "_pool", "threads")

    def __init__(
        self,
        pool: PoolPort,
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
    ) -> None:
        # Weak, as the pool holds this.
        self._pool: Any = weakref.ref(pool)
        self._initializer = initializer
        self._initargs = initargs
        self._local: Any = _sync.local()  # `base`, once the initializer has run in this thread
        self.threads: set[Any] = set()  # none is ours, so there is none to join

    def start_worker(self) -> None:
        """Run what is queued, in this thread.

        A KeyboardInterrupt in the main thread is the caller's as well as the task's, as in `run_one`.
        """
        pool = self._pool()
        thread = threading.current_thread()
        slot = WorkerSlot(pool, Kind.THREAD)
        slot.parker = _sync.Parker()
        slot.thread, slot.ident = thread, _sync.get_ident()
        outer, base = _sync.here.slot, _sync.here.base
        interrupt: BaseException | None = None
        try:
            with pool.mutex:
                if not pool.enlist(slot, thread):
                    return  # another one that was reserved has done it
            _sync.here.slot = slot
            if self._initialized(slot):
                interrupt = self._work(slot)
        except BaseException as raised:
            _sync.here.slot, _sync.here.base = outer, base
            # Its task fails, and another worker goes on with what is queued.
            pool.deferred.append(functools.partial(pool.replace, slot, raised))
            pool.repair()
            raise
        finally:
            _sync.here.slot, _sync.here.base = outer, base
        if interrupt is not None:
            try:
                raise interrupt
            finally:
                del interrupt  # its traceback holds this frame

    def _work(self, slot: WorkerSlot) -> BaseException | None:
        """The loop of `worker_loop.work`, written plainly, until there is nothing to do.

        Returns:
            The first interruption of the caller's among what the tasks have raised.
        """
        pool = self._pool()
        interrupt: BaseException | None = None
        while True:
            task = pool.next_task(slot)
            if task is None:
                if slot.status == PARKED:
                    self._end(slot)
                if slot.leave:
                    return interrupt
                continue
            error: BaseException | None = None
            base: Context | None = _sync.here.base
            context: Context | None = task._context
            if context is None:
                context = contexts.fresh(base)
            elif base is not None:
                contexts.complete(context, base)
            try:
                task._result = context.run(task._fn, *task._args, **task._kwargs or {})
            except BaseException as raised:
                error = raised
            task._release_call()
            del context
            if error is not None:
                if interrupt is None and is_a(error, KeyboardInterrupt) and _in_main_thread():
                    interrupt = error
                pool.complete(slot, None, error)
                del error  # its traceback leads back to this frame

    def _end(self, slot: WorkerSlot) -> None:
        """Nothing is queued, so the worker leaves: unless it was woken meanwhile, or is needed."""
        pool = self._pool()
        workers = pool.workers
        with pool.mutex:
            if slot not in workers.parked:
                return  # it was: the next look clears the note
            workers.parked.remove(slot)
            slot.status = BUSY
            if workers.missing(pool.unfinished) < 0 or pool.state:
                pool.leave(slot)
        pool.run_deferred()

    def _initialized(self, slot: WorkerSlot) -> bool:
        """Run the initializer, if there is one and it has not run here; False if it failed."""
        _sync.here.base = None
        if self._initializer is None:
            return True
        try:
            if not hasattr(self._local, "base"):
                before = copy_context()
                self._initializer(*self._initargs)
                self._local.base = contexts.added(before)
        except BaseException:
            _log.critical("Exception in initializer:", exc_info=True)
            self._pool().breaks(BROKEN, slot)
            return False
        _sync.here.base = self._local.base
        return True

    def run_here(self, future: Future[Any]) -> bool:
        return run_one(self._pool(), future)

    def run_aside(self, future: Future[Any], timeout: float | None = None) -> bool:
        return False  # no thread serves all the others

    def start_spare(self, future: Future[Any], waiting: WorkerSlot | None) -> None:
        run_one(self._pool(), future)  # there is no other thread to run it

    def read_ahead(self, max_workers: int) -> int:
        return 0

    def take_back(self, task: Future[Any], by: int | None) -> None:
        """It runs."""

    def takes_chunks(self, fn: Any) -> bool:
        return True

    def calls_back(self, waiting: bool = False) -> bool:
        return False

    def write_off(self, slot: WorkerSlot) -> None:
        """None can be."""

    def worker_name(self, slot: WorkerSlot) -> str:
        return "?" if slot.thread is None else str(slot.thread.name)

    def reap_dead_workers(self) -> None:
        """No thread is ours, so none can die."""

    def ended(self) -> None:
        """Nothing to close."""

    def joined(self, wait: bool) -> None:
        """Nothing to close."""

    def reset(self) -> None:
        """Nothing to forget."""


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


_sync.import_now(__name__)
