"""The thread engine: one thread for each worker, started when there is work for it.

The interpreter does not wait for these threads (see `_sync.Thread`), so that one which never ends
can be left behind; at interpreter exit `futurepool._executor.shutdown` drains the pools in its place. A
thread holds the pool and its slot, never the executor.

A worker is in `pool.workers.listed` before its thread starts, so that a shutdown finds it. The thread's
first section notes its ident. If the start fails or is interrupted before, the worker is taken out
again; a thread that has started even then sees that and leaves.

A thread that dies even then is replaced: `futurepool._engines.rescue`.
"""

from __future__ import annotations

import itertools
import logging
import operator
import threading
import weakref
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from types import FrameType
from typing import Any

from futurepool import _sync
from futurepool._engines import PoolPort
from futurepool._engines.rescue import Guard, Witness, dead, make_will
from futurepool._engines.worker_loop import run_one, work
from futurepool._foreign import contexts, patched
from futurepool._future import Future
from futurepool._pool.workers import NOTIFYING, OVERDUE, Kind, WorkerSlot

_log = logging.getLogger("concurrent.futures")
BROKEN = "A thread initializer failed, the thread pool is not usable anymore"


class ThreadEngine:
    """See `futurepool._engines.Engine`."""

    apart = False
    writes_off = True

    __slots__ = (
        "_initargs",
        "_initializer",
        "_numbers",
        "_pool",
        "_prefix",
        "_spares",
        "threads",
    )

    def __init__(
        self,
        pool: PoolPort,
        prefix: str,
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
    ) -> None:
        # Weak, as the pool holds this; workers hold the pool.
        self._pool: Any = weakref.ref(pool)
        self._prefix = prefix
        self._initializer = initializer
        self._initargs = initargs
        self._numbers = itertools.count()
        self.threads: set[threading.Thread] = set()  # single C calls only
        # Tasks that a thread of their own is about to run, or runs: single C calls only.
        self._spares: dict[Future[Any], threading.Thread] = {}

    def start_worker(self) -> None:
        pool = self._pool()
        if pool is None:
            raise RuntimeError("the pool is being collected")  # with whoever asks for this
        patched.look()
        slot = WorkerSlot(pool, Kind.THREAD)
        slot.parker = _sync.Parker()
        thread: threading.Thread | None = None
        try:
            slot.thread = thread = _sync.new_thread(self._run, slot, Guard(pool, slot))
            with pool.mutex:
                if not pool.enlist(slot, thread):
                    slot.thread = None  # which holds the slot, too
                    return
            thread.name = f"{self._prefix}_{next(self._numbers)}"
            _sync.start(thread)
            self.threads.add(thread)
            if slot.leave and slot.status == OVERDUE:
                self.threads.discard(thread)  # written off so soon
        except BaseException as error:
            with pool.mutex:
                started = slot.ident is not None
                others = started or pool.not_started(slot)
            pool.run_deferred()
            if others and isinstance(error, Exception):
                return  # fewer workers, that is all
            raise

    def write_off(self, slot: WorkerSlot) -> None:
        self.threads.discard(slot.thread)

    def worker_name(self, slot: WorkerSlot) -> str:
        return "?" if slot.thread is None else str(slot.thread.name)

    def reap_dead_workers(self) -> None:
        pool = self._pool()
        for slot, thread in list(pool.workers.listed.items()):
            # The order of these two matters: what has noted that it runs was alive.
            noted = slot.ident is not None
            if thread.is_alive() or not _sync.has_ended(thread):
                continue
            if noted:
                pool.deferred.append(dead(pool, slot))
            else:
                pool.repair()  # takes out what has not noted itself, alive or not
        if pool.deferred:
            pool.run_deferred()

    def ended(self) -> None:
        """Nothing to close."""

    def joined(self, wait: bool) -> None:
        """Nothing to close."""

    def reset(self) -> None:
        self.threads = set()
        self._spares = {}

    def _run(self, slot: WorkerSlot, _guard: Guard) -> None:
        pool = self._pool()
        try:
            _sync.here.witness = Witness()
            slot.death = make_will(pool, slot)
            self._live(slot)
        except BaseException as error:
            _log.error("a worker was interrupted by an exception and is replaced", exc_info=error)
            pool.repair()
            pool.deferred.append(partial(pool.replace, slot, error))
            pool.run_deferred()
        slot.death = None

    def _live(self, slot: WorkerSlot) -> None:
        pool = self._pool()
        with pool.mutex:
            if slot not in pool.workers.listed:
                return  # its starter was interrupted, and has given it up
            slot.ident = _sync.get_ident()
        # Whoever sees it there may join it, so it is listed only once it has started; by itself,
        # too, as it may leave before its starter goes on.
        if len(self.threads) > pool.workers.threads:  # some have left, as the pool became smaller
            for thread in sorted(self.threads, key=operator.attrgetter("name")):
                if _sync.has_ended(thread):
                    self.threads.discard(thread)
        self.threads.add(slot.thread)
        if self._initialized(slot):
            work(pool, slot)

    def _initialized(self, slot: WorkerSlot) -> bool:
        """Run the initializer, if there is one; False if it failed, which breaks the pool."""
        if self._initializer is None:
            return True
        # So it does not wait for itself, should it shut the pool down.
        _sync.here.slot = slot
        try:
            before = copy_context()
            self._initializer(*self._initargs)
            _sync.here.base = contexts.added(before)
        except BaseException:
            _log.critical("Exception in initializer:", exc_info=True)
            self._break(slot)
            return False
        return True

    def _break(self, slot: WorkerSlot) -> None:
        self._pool().breaks(BROKEN, slot)

    def run_here(self, future: Future[Any]) -> bool:
        return run_one(self._pool(), future)

    def run_aside(self, future: Future[Any], timeout: float | None = None) -> bool:
        return False  # no thread serves all the others

    def start_spare(self, future: Future[Any], waiting: WorkerSlot | None) -> None:
        pool = self._pool()
        wanted = deque([future])
        if waiting is None:
            runner = self._spares.get(future)
            if runner is not None and runner.is_alive():
                return  # on its way
        thread: threading.Thread | None = None
        try:
            if waiting is not None:
                with pool.mutex:
                    # What an earlier task has left there may wait for this one.
                    if waiting.wanted is not None and waiting.wanted_by == waiting.task_id:
                        waiting.wanted.append(future)
                        return
                    waiting.wanted, waiting.wanted_by = wanted, waiting.task_id
            itself: list[threading.Thread] = []
            thread = _sync.new_thread(self._run_spare, itself, wanted, waiting)
            itself.append(thread)
            thread.name = f"{self._prefix}_{next(self._numbers)}"
            for old in list(self.threads):
                if _sync.has_ended(old):
                    self.threads.discard(old)
            if waiting is None:
                self._spares[future] = thread
            _sync.start(thread)
            self.threads.add(thread)  # so that a shutdown waits for it, though it has not run yet
        except BaseException as error:
            if thread is None or thread.ident is None:
                self._give_up_spare(wanted, waiting)
            if not isinstance(error, (RuntimeError, MemoryError)):
                raise
            # There is none to be had: it is looked for again, or somebody comes free.

    def _run_spare(
        self,
        itself: list[threading.Thread],
        wanted: deque[Future[Any]],
        waiting: WorkerSlot | None,
    ) -> None:
        """A worker for some tasks only, of which `max_workers` knows nothing."""
        pool = self._pool()
        self.threads.add(itself.pop())
        slot = WorkerSlot(pool)  # so that what its tasks wait for is seen to, too
        slot.ident = _sync.get_ident()
        _sync.here.slot = slot
        try:
            try:
                initialized = self._initialized(slot)
                while wanted and initialized:
                    run_one(pool, wanted[0])
                    with pool.mutex:
                        self._spares.pop(wanted.popleft(), None)
                        if not wanted and waiting is not None and waiting.wanted is wanted:
                            waiting.wanted = None  # from here on another one is started
            finally:
                self._give_up_spare(wanted, waiting)
        except BaseException as error:
            _log.error("a spare worker was interrupted by an exception", exc_info=error)
            pool.repair()

    def _give_up_spare(self, wanted: deque[Future[Any]], waiting: WorkerSlot | None) -> None:
        """No thread runs what is in `wanted`, if anything: have it looked for again."""
        pool = self._pool()
        with pool.mutex:
            if waiting is not None and waiting.wanted is wanted:
                waiting.wanted = None
            while wanted:
                future = wanted.popleft()
                self._spares.pop(future, None)
                if waiting is not None:
                    pool.expected.note(future, waiting)

    def read_ahead(self, max_workers: int) -> int:
        return 0  # who takes a task runs it

    def take_back(self, task: Future[Any], by: int | None) -> None:
        """It runs."""

    def takes_chunks(self, fn: Any) -> bool:
        return True

    def calls_back(self, waiting: bool = False) -> bool:
        pool = self._pool()
        with pool.mutex:
            calling = [slot.status == NOTIFYING for slot in pool.workers.listed]
            others = [slot for slot in pool.workers.listed if slot.status != NOTIFYING]
            starting = pool.workers.reserved
        if not calling or starting:
            return False
        if not others:
            return True
        frames = _sync.current_frames() if waiting else {}
        return waiting and all(_waits(frames.get(slot.ident or 0)) for slot in others)


def _waits(frame: FrameType | None) -> bool:
    """Whether a thread waits for another one without a timeout, at a condition or an event.

    Not at a queue: what fills or drains that is seldom the thread that submits, and works on.
    """
    if (
        frame is None
        or frame.f_globals.get("__name__") != "threading"
        or frame.f_code.co_name != "wait"
        or frame.f_locals.get("timeout") is not None
    ):
        return False
    outer = frame.f_back
    return outer is None or outer.f_globals.get("__name__") != "queue"
