"""The thread engine: one thread for each worker, started when there is work for it.

The interpreter does not wait for these threads (see `_sync.Thread`), so that one which never ends
can be left behind; at interpreter exit `futurepool._shutdown` drains the pools in its place. A
thread holds the pool and its slot, never the executor.

A worker is in `pool.workers` before its thread starts, so that a shutdown finds it. The thread's
first section notes its ident. If the start fails or is interrupted before, the worker is taken out
again; a thread that started all the same sees that and leaves.

Asynchronous exceptions may kill a thread where nothing of ours can catch them: in the standard
library's part of it, or while it deals with an earlier one. Then its guard replaces it, at once. One more
exception may end the guard's finalizer at any instruction. So the end of the thread's local data
releases the mutex, leaves an entry in `deferred` and starts a thread that flushes, all by one C call.
A thread interrupted before it ran anything of ours has no such data. So whoever waits for a pool looks
once in a while for workers whose threads are dead.
"""

from __future__ import annotations

import itertools
import logging
import operator
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from operator import methodcaller
from types import FrameType
from typing import Any

from futurepool import _sync
from futurepool._engines.worker_loop import run_one, work
from futurepool._foreign import contexts, patched
from futurepool._future import Future
from futurepool._pool.core import NOTIFYING, WorkerSlot
from futurepool._pool.queue import Pool

__all__: list[str] = []  # internal

_log = logging.getLogger("concurrent.futures")
BROKEN = "A thread initializer failed, the thread pool is not usable anymore"


class ThreadEngine:
    """See `futurepool._pool.core.Engine`."""

    apart = False

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
        pool: Pool,
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
        patched.look()
        slot = WorkerSlot(pool)
        slot.parker = _sync.Parker()
        listed = False
        thread: threading.Thread | None = None
        try:
            slot.thread = thread = _sync.new_thread(self._run, slot, _Guard(pool, slot))
            with pool.mutex:
                if pool.reserved <= 0:
                    return  # another thread has made it
                listed = True
                pool.reserved -= 1
                if pool.state and not pool.unfinished:
                    pool.threads -= 1  # it would find nothing to do
                    pool._ended()
                    return
                if pool.threads > pool.room:
                    pool.threads -= 1  # the pool has become smaller meanwhile
                    pool._ended()
                    return
                pool.slots[slot] = None
                pool.workers[slot] = thread
            thread.name = f"{self._prefix}_{next(self._numbers)}"
            _sync.start(thread)
            self.threads.add(thread)
        except BaseException as error:
            with pool.mutex:
                if slot.ident is None:
                    pool.slots.pop(slot, None)
                    pool.workers.pop(slot, None)
                    if not listed and pool.reserved > 0:
                        pool.reserved -= 1
                    pool.threads = len(pool.workers) + pool.reserved
                    pool._ended()
                others = bool(pool.workers)
            pool.run_deferred()
            if others and isinstance(error, Exception):
                return  # fewer workers, that is all
            raise

    def reap_dead_workers(self) -> None:
        pool = self._pool()
        for slot, thread in list(pool.workers.items()):
            # The order of these two matters: what has noted that it runs was alive.
            noted = slot.ident is not None
            if thread.ident is None or thread.is_alive():
                continue
            if noted:
                pool.deferred.append(partial(_replace, pool, slot, RuntimeError(_DIED)))
            else:
                pool.repair()  # takes out what has not noted itself, alive or not
        pool.run_deferred()

    def ended(self) -> None:
        """Nothing to close."""

    def joined(self, wait: bool) -> None:
        """Nothing to close."""

    def reset(self) -> None:
        self.threads = set()
        self._spares = {}

    def _run(self, slot: WorkerSlot, _guard: _Guard) -> None:
        pool = self._pool()
        try:
            _sync.here.witness = _Witness()
            slot.death = _make_will(pool, slot)
            self._live(slot)
        except BaseException as error:
            _log.error("a worker was struck by an exception and is replaced", exc_info=error)
            pool.repair()
            pool.deferred.append(partial(_replace, pool, slot, error))
            pool.run_deferred()
        slot.death = None

    def _live(self, slot: WorkerSlot) -> None:
        pool = self._pool()
        with pool.mutex:
            if slot not in pool.workers:
                return  # its starter was interrupted, and has given it up
            slot.ident = _sync.get_ident()
            if pool.latency is not None:
                slot.fresh = []
        # Whoever sees it there may join it, so it is listed only once it has started; by itself,
        # too, as it may leave before its starter goes on.
        if len(self.threads) > pool.threads:  # some have left, as the pool became smaller
            for thread in sorted(self.threads, key=operator.attrgetter("name")):
                if thread.ident is not None and not thread.is_alive():
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
        pool = self._pool()
        with pool.mutex:
            pool.broken = BROKEN
            pool._leave(slot)
        pool.breaks(BROKEN)

    def run_here(self, future: Future[Any]) -> bool:
        return run_one(self._pool(), future)

    def run_aside(self, future: Future[Any], timeout: float | None = None) -> bool:
        return False  # no thread serves all the others

    def start_spare(self, future: Future[Any], waiting: WorkerSlot | None) -> None:
        # Only the worker itself appends to its `wanted`. Either its spare thread has not yet put None
        # there, and then looks once more, or a new one is started.
        if waiting is None:
            runner = self._spares.get(future)
            if runner is not None and runner.is_alive():
                return  # on its way
        elif (wanted := waiting.wanted) is not None:
            wanted.append(future)
            if waiting.wanted is wanted:
                return
        wanted = deque([future])
        itself: list[threading.Thread] = []
        thread = _sync.new_thread(self._run_spare, itself, wanted, waiting)
        itself.append(thread)
        thread.name = f"{self._prefix}_{next(self._numbers)}"
        for old in list(self.threads):
            if old.ident is not None and not old.is_alive():
                self.threads.discard(old)
        if waiting is None:
            self._spares[future] = thread
        else:
            waiting.wanted = wanted
        try:
            _sync.start(thread)
        except BaseException as error:
            if thread.ident is None:
                if waiting is None:
                    self._spares.pop(future, None)
                else:
                    waiting.wanted = None
            if not isinstance(error, (RuntimeError, MemoryError)):
                raise
            # There is none to be had: who waits looks again, or somebody comes free.

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
            if not self._initialized(slot):
                return
            while True:
                while wanted:
                    run_one(pool, wanted[0])
                    self._spares.pop(wanted.popleft(), None)
                if waiting is None or waiting.wanted is not wanted:
                    return
                waiting.wanted = None
        except BaseException as error:
            _log.error("a spare worker was struck by an exception", exc_info=error)
            pool.repair()
        finally:
            while wanted:
                self._spares.pop(wanted.popleft(), None)

    def takes_chunks(self, fn: Any) -> bool:
        return True

    def calls_back(self, waiting: bool = False) -> bool:
        pool = self._pool()
        with pool.mutex:
            calling = [slot.status == NOTIFYING for slot in pool.workers]
            others = [slot for slot in pool.workers if slot.status != NOTIFYING]
            starting = pool.reserved
        if not calling or starting:
            return False
        if not others:
            return True
        frames = sys._current_frames() if waiting else {}
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


_DIED = "the worker's thread has died"
_DEEP = 100  # sections are nested less deep


class _Guard:
    """Dies with its worker's thread, whatever that died of: even of its very first instruction."""

    __slots__ = ("_pool", "_slot")

    def __init__(self, pool: Pool, slot: WorkerSlot) -> None:
        self._pool = pool
        self._slot = slot

    def __del__(self) -> None:
        pool, slot = self._pool, self._slot
        if slot in pool.workers and slot.thread.ident is not None:
            # On free-threaded builds this may run in another thread than the one that died, and
            # then in the middle of a section.
            if slot.ident == _sync.get_ident():
                pool.repair()
            pool.deferred.append(partial(_replace, pool, slot, RuntimeError(_DIED)))
            pool.run_deferred()


class _Witness:
    """Part of a thread's local data."""

    __slots__ = ("__weakref__",)


class _Death(weakref.ref[_Witness]):
    """Executes its will when this thread's witness dies: by C alone, nothing can come in between."""

    __slots__ = ("will",)

    will: Callable[[], object]


def _make_will(pool: Pool, slot: WorkerSlot) -> _Death:
    """For a thread that dies without having left: let go of the mutex, and have it replaced."""
    death = _Death(_sync.here.witness, methodcaller("will"))
    held = filter(methodcaller("_is_owned"), itertools.repeat(pool.mutex, _DEEP))
    entry = partial(_replace, pool, slot, RuntimeError(_DIED))
    steps = itertools.chain(
        map(methodcaller("release"), held),
        map(pool.deferred.append, (entry,)),
        map(_sync.start_new_thread, (pool.run_deferred,), ((),)),
    )
    # In the child of a fork, and when the interpreter ends, another thread clears the data: then
    # there is no step.
    here = map(methodcaller("__call__"), (_sync.get_ident,))
    mine = itertools.chain.from_iterable(map({_sync.get_ident(): steps}.get, here, ((),)))
    death.will = partial(deque, mine, 0)  # which takes the steps
    return death


def _replace(pool: Pool, slot: WorkerSlot, error: BaseException) -> None:
    """A worker is gone without having left: its task fails, and another worker is ordered.

    In `deferred`, so it does not run what is deferred, and may run twice.
    """
    if slot not in pool.workers:
        return
    pool.complete_aside(slot, error)
    with pool.mutex:
        pool._leave(slot)
    pool._rebuild()
