"""The thread engine: one thread for each worker, started when there is work for it.

The interpreter does not wait for these threads (see `_sync.Thread`), so that one which never ends
can be left behind; at interpreter exit `futurepool._shutdown` drains the pools in its place. A
thread holds the core and its record, never the executor.

A worker is in `core.workers` before its thread starts, so that a shutdown finds it. The thread's
first section notes its ident. If the start fails or is interrupted before, the worker is taken out
again; a thread that started all the same sees that and leaves.

Asynchronous exceptions may kill a thread where nothing of ours can catch them: in the standard
library's part of it, or while it deals with an earlier one. Then its guard replaces it, at once. One more
exception may end the guard's finalizer at any instruction. So the end of the thread's local data
releases the mutex, leaves an entry in `todo` and starts a thread that flushes, all by one C call.
A thread struck before it ran anything of ours has no such data. So whoever waits for a pool looks
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
from futurepool._pool.core import CALLING, Record
from futurepool._pool.queue import Core

__all__: list[str] = []  # internal

_log = logging.getLogger("concurrent.futures")
BROKEN = "A thread initializer failed, the thread pool is not usable anymore"


class ThreadEngine:
    """See `futurepool._pool.core.Engine`."""

    apart = False

    __slots__ = (
        "_core",
        "_initargs",
        "_initializer",
        "_numbers",
        "_prefix",
        "_spares",
        "threads",
    )

    def __init__(
        self,
        core: Core,
        prefix: str,
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
    ) -> None:
        # Weak, as the core holds this; workers hold the core.
        self._core: Any = weakref.ref(core)
        self._prefix = prefix
        self._initializer = initializer
        self._initargs = initargs
        self._numbers = itertools.count()
        self.threads: set[threading.Thread] = set()  # single C calls only
        # Tasks that a thread of their own is about to run, or runs: single C calls only.
        self._spares: dict[Future[Any], threading.Thread] = {}

    def start_worker(self) -> None:
        core = self._core()
        patched.look()
        record = Record(core)
        record.gate = _sync.Gate()
        listed = False
        thread: threading.Thread | None = None
        try:
            record.thread = thread = _sync.new_thread(self._run, record, _Guard(core, record))
            with core.mutex:
                if core.starting <= 0:
                    return  # another thread has made it
                listed = True
                core.starting -= 1
                if core.state and not core.unfinished:
                    core.threads -= 1  # it would find nothing to do
                    core._ended()
                    return
                if core.threads > core.room:
                    core.threads -= 1  # the pool has become smaller meanwhile
                    core._ended()
                    return
                core.records[record] = None
                core.workers[record] = thread
            thread.name = f"{self._prefix}_{next(self._numbers)}"
            _sync.start(thread)
            self.threads.add(thread)
        except BaseException as error:
            with core.mutex:
                if record.ident is None:
                    core.records.pop(record, None)
                    core.workers.pop(record, None)
                    if not listed and core.starting > 0:
                        core.starting -= 1
                    core.threads = len(core.workers) + core.starting
                    core._ended()
                others = bool(core.workers)
            core.flush()
            if others and isinstance(error, Exception):
                return  # fewer workers, that is all
            raise

    def look(self) -> None:
        core = self._core()
        for record, thread in list(core.workers.items()):
            # The order of these two matters: what has noted that it runs was alive.
            noted = record.ident is not None
            if thread.ident is None or thread.is_alive():
                continue
            if noted:
                core.todo.append(partial(_replace, core, record, RuntimeError(_DIED)))
            else:
                core.recover()  # takes out what has not noted itself, alive or not
        core.flush()

    def ended(self) -> None:
        """Nothing to close."""

    def joined(self, wait: bool) -> None:
        """Nothing to close."""

    def reset(self) -> None:
        self.threads = set()
        self._spares = {}

    def _run(self, record: Record, _guard: _Guard) -> None:
        core = self._core()
        try:
            _sync.here.witness = _Witness()
            record.death = _make_will(core, record)
            self._live(record)
        except BaseException as error:
            _log.error("a worker was struck by an exception and is replaced", exc_info=error)
            core.recover()
            core.todo.append(partial(_replace, core, record, error))
            core.flush()
        record.death = None

    def _live(self, record: Record) -> None:
        core = self._core()
        with core.mutex:
            if record not in core.workers:
                return  # its starter was interrupted, and has given it up
            record.ident = _sync.get_ident()
            if core.latency is not None:
                record.fresh = []
        # Whoever sees it there may join it, so it is listed only once it has started; by itself,
        # too, as it may leave before its starter goes on.
        if len(self.threads) > core.threads:  # some have left, as the pool became smaller
            for thread in sorted(self.threads, key=operator.attrgetter("name")):
                if thread.ident is not None and not thread.is_alive():
                    self.threads.discard(thread)
        self.threads.add(record.thread)
        if self._initialized(record):
            work(core, record)

    def _initialized(self, record: Record) -> bool:
        """Run the initializer, if there is one; False if it failed, which breaks the pool."""
        if self._initializer is None:
            return True
        # So it does not wait for itself, should it shut the pool down.
        _sync.here.record = record
        try:
            before = copy_context()
            self._initializer(*self._initargs)
            _sync.here.base = contexts.added(before)
        except BaseException:
            _log.critical("Exception in initializer:", exc_info=True)
            self._break(record)
            return False
        return True

    def _break(self, record: Record) -> None:
        core = self._core()
        with core.mutex:
            core.broken = BROKEN
            core._leave(record)
        core.breaks(BROKEN)

    def run_here(self, future: Future[Any]) -> bool:
        return run_one(self._core(), future)

    def run_aside(self, future: Future[Any], timeout: float | None = None) -> bool:
        return False  # no thread serves all the others

    def start_spare(self, future: Future[Any], waiting: Record | None) -> None:
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
        waiting: Record | None,
    ) -> None:
        """A worker for some tasks only, of which `max_workers` knows nothing."""
        core = self._core()
        self.threads.add(itself.pop())
        record = Record(core)  # so that what its tasks wait for is seen to, too
        record.ident = _sync.get_ident()
        _sync.here.record = record
        try:
            if not self._initialized(record):
                return
            while True:
                while wanted:
                    run_one(core, wanted[0])
                    self._spares.pop(wanted.popleft(), None)
                if waiting is None or waiting.wanted is not wanted:
                    return
                waiting.wanted = None
        except BaseException as error:
            _log.error("a spare worker was struck by an exception", exc_info=error)
            core.recover()
        finally:
            while wanted:
                self._spares.pop(wanted.popleft(), None)

    def takes_chunks(self, fn: Any) -> bool:
        return True

    def calls_back(self, waiting: bool = False) -> bool:
        core = self._core()
        with core.mutex:
            calling = [record.away == CALLING for record in core.workers]
            others = [record for record in core.workers if record.away != CALLING]
            starting = core.starting
        if not calling or starting:
            return False
        if not others:
            return True
        frames = sys._current_frames() if waiting else {}
        return waiting and all(_waits(frames.get(record.ident or 0)) for record in others)


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

    __slots__ = ("_core", "_record")

    def __init__(self, core: Core, record: Record) -> None:
        self._core = core
        self._record = record

    def __del__(self) -> None:
        core, record = self._core, self._record
        if record in core.workers and record.thread.ident is not None:
            # On free-threaded builds this may run in another thread than the one that died, and
            # then in the middle of a section.
            if record.ident == _sync.get_ident():
                core.recover()
            core.todo.append(partial(_replace, core, record, RuntimeError(_DIED)))
            core.flush()


class _Witness:
    """Part of a thread's local data."""

    __slots__ = ("__weakref__",)


class _Death(weakref.ref[_Witness]):
    """Executes its will when this thread's witness dies: by C alone, nothing can come in between."""

    __slots__ = ("will",)

    will: Callable[[], object]


def _make_will(core: Core, record: Record) -> _Death:
    """For a thread that dies without having left: let go of the mutex, and have it replaced."""
    death = _Death(_sync.here.witness, methodcaller("will"))
    held = filter(methodcaller("_is_owned"), itertools.repeat(core.mutex, _DEEP))
    entry = partial(_replace, core, record, RuntimeError(_DIED))
    steps = itertools.chain(
        map(methodcaller("release"), held),
        map(core.todo.append, (entry,)),
        map(_sync.start_new_thread, (core.flush,), ((),)),
    )
    # In the child of a fork, and when the interpreter ends, another thread clears the data: then
    # there is no step.
    here = map(methodcaller("__call__"), (_sync.get_ident,))
    mine = itertools.chain.from_iterable(map({_sync.get_ident(): steps}.get, here, ((),)))
    death.will = partial(deque, mine, 0)  # which takes the steps
    return death


def _replace(core: Core, record: Record, error: BaseException) -> None:
    """A worker is gone without having left: its task fails, and another worker is ordered.

    In `todo`, so it does not flush, and may run twice.
    """
    if record not in core.workers:
        return
    core.settle_aside(record, error)
    with core.mutex:
        core._leave(record)
    core._settle()
