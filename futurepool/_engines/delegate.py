"""The delegate engine: the queue, policies, tokens and stats of this package before another executor.

Each of at most `max_workers + read_ahead` places is a `WorkerSlot` of the pool, with no thread. All are
served by one thread, the dispatcher: it claims tasks, hands them to the other executor, commits what has come
back. Whoever has news puts it into the inbox and goes on: a section that wakes a place (`_Gate`), a
future of the other executor that is done. So neither a submitter nor a thread of the other
executor (a process pool's manager, dask's event loop) ever runs anything of ours or of a user's
callbacks, nothing recurses, and an executor whose `submit` blocks delays only what comes after.

    asleep     in `workers.parked`                        -> claims       (wake)
    away       in `_flights`, its task is elsewhere  -> claims       (done; commits the outcome first)
    left       the pool is closed and has nothing more for it

News that does not fit the state is stale and ignored: a wake while away, a done of an earlier flight.

**Reading ahead.** An executor that has to bring each call to another process or machine is idle meanwhile, unless
the next one is there already. So there are more places than it runs tasks at a time: what is in
them waits there, no longer here. For this package it runs: it is claimed, counted, and named as what runs. Only a
cancel can tell: `take_back` asks the executor to cancel it, and if that does, nobody has begun with it. Who asks
notes first who is to tell of it (`_Flight.by`), as the dispatcher may be the first to see that it
was cancelled. What an executor cancels unasked is a failure of the task.

An asynchronous exception may come anywhere in the dispatcher; then what may be lost is asked for
again: `repair` wakes all who sleep, flights are listened to once more, and a task that was claimed
but is on no flight fails with the exception. If it comes between two instructions that catch it, the
thread ends, and another takes its place.

An executor that is broken may forget about what it was given; so when one task fails with
`BrokenExecutor`, all that are away do.

The thread starts with the first place and ends with the last one. Then, if the pool was shut down
(not merely dropped, as then its user may still hold the other executor), it shuts that one down too.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import weakref
from collections.abc import Callable
from concurrent import futures as cf
from functools import partial
from typing import Any, cast

from futurepool import _sync
from futurepool._engines import PoolPort
from futurepool._engines.sealed import script
from futurepool._engines.transport import (
    ClusterEnvelope,
    DaskEnvelope,
    Envelope,
    LokyEnvelope,
    StandardEnvelope,
)
from futurepool._engines.worker_loop import run_one
from futurepool._foreign import aside
from futurepool._future import PENDING, RUNNING, Future
from futurepool._pool.workers import NOTIFYING, PARKED, Kind, WorkerSlot

AnyFuture = Future[Any]

_log = logging.getLogger("concurrent.futures")


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


def _known_capacity(engine: cf.Executor) -> int | None:
    """The same; None if it cannot be asked, or fails to answer."""
    if getattr(getattr(engine, "_client", None), "asynchronous", False):
        return None  # it answers coroutines only
    try:
        return capacity(engine)
    except Exception:
        return None


def envelope_for(executor: cf.Executor) -> Envelope:
    """The envelope for calls to `executor`."""
    for kind in type(executor).__mro__:
        package, _, _ = kind.__module__.rpartition(".process_executor")
        if package.endswith("loky"):
            reduction = sys.modules[f"{package}.backend.reduction"]
            return LokyEnvelope(reduction.dumps, sys.modules[kind.__module__])
        if kind.__module__ == "concurrent.futures.process":
            reduction = sys.modules["multiprocessing.reduction"]
            return StandardEnvelope(executor, reduction.ForkingPickler.dumps)
        if kind.__module__ == "concurrent.futures.interpreter":
            from futurepool._engines.interpreters import InterpreterEnvelope

            return InterpreterEnvelope(executor)
        if kind.__module__ == "distributed.cfexecutor":
            return DaskEnvelope()
        if kind.__module__.startswith("mpi4py.futures."):
            return ClusterEnvelope()
    return Envelope()


class _Gate:
    """What a sleeping worker's lock is for threads."""

    __slots__ = ("release",)

    def __init__(self, release: Callable[[], object]) -> None:
        self.release = release


class _Flight:
    """A task that is in the other executor, and its future there."""

    __slots__ = ("asked", "by", "inner", "task")

    def __init__(self, task: AnyFuture, inner: cf.Future[Any]) -> None:
        self.task = task
        self.inner = inner
        # Guarded by the pool's mutex.
        self.asked: bool = False  # to have it back
        # The thread that asks; None: nobody waits for what is told of it.
        self.by: int | None = None


class _Guard:
    """Dies with the dispatcher's thread, whatever that died of."""

    __slots__ = ("_engine", "thread")

    def __init__(self, engine: DelegateEngine) -> None:
        self._engine = engine
        self.thread: Any = None

    def __del__(self) -> None:
        if self._engine._thread is self.thread is not None:
            self._engine.replace(self.thread)


class DelegateEngine:
    """See `futurepool._engines.Engine`."""

    apart = True
    writes_off = False

    __slots__ = (
        "_broken",
        "_busy",
        "_capacity",
        "_close",
        "_envelope",
        "_flights",
        "_forked",
        "_inbox",
        "_pool_ref",
        "_read_ahead",
        "_script",
        "_thread",
        "executor",
        "threads",
    )

    def __init__(
        self, pool: PoolPort, executor: cf.Executor, close: bool, read_ahead: int | None = None
    ) -> None:
        # Weak, as the pool holds this; the dispatcher and its places hold the pool.
        self._pool_ref = weakref.ref(pool)
        self._close = close
        self._forked = False
        self._broken: BaseException | None = None  # what the executor says of itself
        self._envelope: Envelope = envelope_for(executor)
        self._read_ahead = read_ahead
        wanted = read_ahead is None and self._envelope.read_ahead > 0
        self._capacity: int | None = _known_capacity(executor) if wanted else None
        self._script = script()
        self.executor: cf.Executor = executor
        self.threads: set[Any] = set()  # the dispatcher
        self._thread: Any = None  # guarded by the pool's mutex
        # The dispatcher's own, but for looks at all flights.
        self._flights: dict[WorkerSlot, _Flight] = {}
        # In the dispatcher's hands, perhaps further up its stack.
        self._busy: set[WorkerSlot] = set()
        self._inbox: _sync.SimpleQueue[Any] = _sync.SimpleQueue()

    @property
    def _pool(self) -> Any:
        return self._pool_ref()

    # -- what the pool asks for ----------------------------------------------------------------

    def start_worker(self) -> None:
        """Open one more place, with the first one the dispatcher."""
        pool = self._pool
        _sync.refresh()
        kind: Any = _sync.SimpleQueue
        if self._thread is None and not isinstance(self._inbox, kind):
            self._inbox = kind()
        slot = WorkerSlot(pool, Kind.ENGINE)
        slot.ident = 0  # no thread's
        slot.parker = _Gate(partial(self._inbox.put, (slot, None)))
        fresh: Any = None
        try:
            if self._thread is None:
                self._prepare()
            with pool.mutex:
                if not pool.enlist(slot, None):
                    return
                if self._thread is None:
                    self._thread = fresh = self._new_thread(None)
            if fresh is not None:
                self.threads.add(fresh)
                _sync.start(fresh)
            self._inbox.put((slot, None))
        except BaseException as error:
            with pool.mutex:
                if fresh is not None and self._thread is fresh and fresh.ident is None:
                    # Nobody serves any place.
                    self._thread = None
                    self.threads.discard(fresh)
                    for other in list(pool.workers.listed):
                        pool.leave(other)
                listed = slot in pool.workers.listed  # then the dispatcher runs
                others = listed or pool.not_started(slot)
            self._inbox.put((slot, None))
            pool.run_deferred()
            if others and isinstance(error, Exception):
                return  # fewer places, that is all
            raise
        pool.run_deferred()

    def _prepare(self) -> None:
        """Before the dispatcher starts; maybe in several threads at a time."""
        if self._forked:
            fresh = _reborn(self.executor)
            if fresh is None:
                return
            with self._pool.mutex:
                if self._forked:
                    self.executor = fresh
                    # With nothing of the parent's: its worker processes are not ours to end.
                    self._envelope = envelope_for(fresh)
                    self._forked = False
        self._envelope.prepare(self.executor)

    def _new_thread(self, error: BaseException | None) -> Any:
        guard = _Guard(self)
        guard.thread = thread = _sync.new_thread(
            self._run, error, guard, name="futurepool-dispatcher"
        )
        return thread

    def replace(self, dead: Any) -> None:
        """The dispatcher was interrupted where nothing could be caught; in its thread, which ends."""
        pool = self._pool
        pool.repair()
        with pool.mutex:
            if self._thread is not dead or dead.ident is None:
                return
            self._thread = fresh = self._new_thread(RuntimeError("the dispatcher has died"))
        _log.error("the dispatcher of a pool was interrupted by an exception and is replaced")
        self.threads.discard(dead)
        self.threads.add(fresh)
        _sync.start(fresh)

    def run_here(self, future: AnyFuture) -> bool:
        """Run a task that found no place, in the thread that submits it or waits for it.

        One that is queued has its place, and is for the engine: then this is False, and nothing is done.
        """
        return not future.task_id and run_one(self._pool, future)

    def run_aside(self, future: AnyFuture, timeout: float | None = None) -> bool:
        """If this is the dispatcher's thread: go on dispatching until `future` is done, then True.

        Two sorts of code wait for a future there: a done-callback, and a task of an executor that runs
        tasks in its `submit`. While the dispatcher waits nobody brings what it waits for; so it takes news
        off the inbox right here, further up its own stack. Places that are in its hands already (`_busy`)
        are left alone, but for those whose callback it is in: they are free, and take a task.

        Raises:
            concurrent.futures.TimeoutError: It was not done in time.
        """
        if threading.current_thread() is not self._thread:
            return False
        for slot in list(self._busy):
            if slot.task is None and not slot.leave:  # its place is free but for the callback
                self._serve(slot, None)
        # News for nobody, when it is done: it may be by another thread.
        stale = WorkerSlot(self._pool)
        stale.leave = True
        parker = _Gate(partial(self._inbox.put, (stale, None)))
        future._subscribe(lambda subscribers: subscribers.add_parker(parker))
        end = None if timeout is None else _sync.clock() + timeout
        while not future.done():
            try:
                if end is None:
                    slot, inner = self._inbox.get()
                else:
                    left = max(0.0, end - _sync.clock())
                    slot, inner = _sync.get_within(self._inbox, left)
            except _sync.Empty:
                raise cf.TimeoutError from None
            self._news(slot, inner)
            del inner
        return True

    def start_spare(self, future: AnyFuture, waiting: WorkerSlot | None) -> None:
        """Nothing: what is queued is for the engine, which no thread of ours holds up."""

    def read_ahead(self, max_workers: int) -> int:
        """As its user has said, or by the kind of the executor.

        An executor that can run more than `max_workers` tasks would run them, too: then none. And what is
        more than it can run is ahead already.
        """
        if self._read_ahead is not None:
            return self._read_ahead
        count = self._capacity
        if count is None or count > max_workers:
            return 0
        return max(0, self._envelope.read_ahead * count - (max_workers - count))

    def take_back(self, task: AnyFuture, by: int | None) -> None:
        """If it has not begun there: RUNNING -> CANCELLED, and `by` tells of it (None: a thread aside)."""
        if not self._envelope.cancels:
            return
        found = [item for item in self._flights.copy().items() if item[1].task is task]
        if not found:
            return  # it has come back; or is not there yet, see `_forward`
        slot, flight = found[0]
        pool = self._pool
        if pool.mutex._is_owned():
            # A finalizer's, or a signal handler's: nothing of the engine's runs here.
            pool.deferred.append(partial(aside.run, partial(self.take_back, task, None)))
            return
        if not self._envelope.cancels_pending_only:
            flight.inner.cancel()  # it may have run for a while, so it is not cancelled, but fails
            return
        with pool.mutex:
            flight.asked, flight.by = True, by
        cancelled = False
        try:
            cancelled = flight.inner.cancel()
        finally:
            with pool.mutex:
                if cancelled:
                    pool.take_back(slot, task, by)
                else:
                    flight.asked, flight.by = False, None
            pool.run_deferred()

    def takes_chunks(self, fn: Any) -> bool:
        """Not a function that travels by its code alone."""
        return self._envelope.takes_chunks(fn)

    def calls_back(self, waiting: bool = False) -> bool:
        """The dispatcher is in a callback: it serves nobody meanwhile."""
        with self._pool.mutex:
            return NOTIFYING in [slot.status for slot in self._pool.workers.listed]

    def write_off(self, slot: WorkerSlot) -> None:
        """No task here has a `run_timeout`."""

    def worker_name(self, slot: WorkerSlot) -> str:
        """The other executor's class."""
        return type(self.executor).__name__

    def reap_dead_workers(self) -> None:
        """No worker has a thread of its own."""

    def ended(self) -> None:
        """The last place is empty, and the pool closed: close the engine, too, if we are to."""
        if self._pool.user_closed and self._thread is None:
            self._shut(wait=False)

    def joined(self, wait: bool) -> None:
        """The pool has ended, and who waited for that waits for the engine too; or gives up."""
        if not wait and self._pool.unfinished:
            self._end()
        elif self._pool.user_closed and (wait or self._thread is None):
            self._shut(wait=wait)

    def reset(self) -> None:
        """The dispatcher is the parent's, and the executor most likely of no use here."""
        self.threads = set()
        self._thread = None
        self._flights = {}
        self._busy = set()
        self._inbox = _sync.SimpleQueue()
        self._forked = True
        self._broken = None

    # -- the dispatcher ------------------------------------------------------------------------

    def _run(self, error: BaseException | None, _guard: _Guard) -> None:
        try:
            self._dispatch(error)
        except BaseException:
            self.replace(_guard.thread)

    def _dispatch(self, error: BaseException | None) -> None:
        # Callbacks of users run here. A submit in one never blocks, as in a worker: a task that
        # finds no place is admitted over the bound; `shutdown` does not wait.
        _sync.here.slot = WorkerSlot(self._pool, Kind.ENGINE)
        inbox = self._inbox
        slot: WorkerSlot | None = None
        self._busy = set()
        while True:
            try:
                if error is not None:
                    self._amend(error)
                    error = None
                while not (slot is not None and slot.leave and self._is_over()):
                    place, inner = inbox.get()
                    slot = place
                    self._news(place, inner)
                    del inner
                return
            except BaseException as raised:  # noqa: PERF203 - once for each that comes
                error = raised

    def _is_over(self) -> bool:
        """All places are empty: there is no more for this thread to do."""
        pool = self._pool
        with pool.mutex:
            over = not pool.workers.listed and self._thread is threading.current_thread()
            if over:
                self._thread = None
        if over and pool.user_closed:
            self._shut(wait=True)
        return over

    def _news(self, slot: WorkerSlot, inner: cf.Future[Any] | None) -> None:
        """One place was woken, or its task has come back."""
        flight = self._flights.get(slot)
        busy = slot in self._busy
        expected = None if flight is None else flight.inner
        if slot.leave or (busy and inner is None) or expected is not inner:
            return  # stale
        self._busy.add(slot)
        try:
            self._serve(slot, flight)
        finally:
            if not busy:
                self._busy.discard(slot)

    def _serve(self, slot: WorkerSlot, flight: _Flight | None) -> None:
        """Commit what has come back, and send away the next."""
        flights = self._flights
        result: Any = None
        error: BaseException | None = None
        if flight is not None and not self._is_taken_back(slot, flight):
            result, error = self._outcome(flight.inner)
        flight = None
        next_task = self._pool.next_task
        while True:
            # Only now, so that what comes before finds the flight still to be done.
            flights.pop(slot, None)
            if error is not None:
                self._pool.complete(slot, None, error)
                if slot in flights or slot.leave:
                    return  # a callback has waited, see run_aside: the next task is away already
            elif slot.task is not None:
                slot.task._result = result
            task = next_task(slot)
            result = error = None
            if task is not None:
                error = self._forward(slot, task)
                if error is None:
                    return
            elif slot.leave:
                slot.parker = None  # which holds the slot
                return
            elif slot.status == PARKED or slot in flights:
                return  # the last if a callback waited, see run_aside

    def _forward(self, slot: WorkerSlot, task: AnyFuture) -> BaseException | None:
        """Hand a task over; what that raises is the task's failure."""
        try:
            if self._forked:
                kind = type(self.executor).__name__
                raise RuntimeError(  # noqa: TRY301 - as what the executor raises
                    f"{kind} does not work in the child of a fork"
                )
            if self._script is not None:
                # If the script has ended, what tells new processes where it is has gone with it.
                vars(sys.modules["__main__"]).setdefault("__file__", self._script)
            inner = self._envelope.submit(self.executor, task._fn, task._args, task._kwargs or {})
        except BaseException as error:
            task._release_call()
            return error
        task._release_call()
        self._flights[slot] = _Flight(task, inner)
        # Who cancels it cancels its token first, and then looks for the flight: one of the two sees the other.
        token = task._own_token
        if token is not None and token.cancelled:
            self.take_back(task, None)
        inner.add_done_callback(partial(_put, self._inbox, slot))
        return None

    def _is_taken_back(self, slot: WorkerSlot, flight: _Flight) -> bool:
        """Whether somebody has asked for it, and the executor gave it back; then it is cancelled."""
        if not (flight.asked and flight.inner.cancelled()):
            return False
        pool = self._pool
        with pool.mutex:
            if flight.asked:
                pool.take_back(slot, flight.task, flight.by)
        pool.run_deferred()
        return slot.task is None

    def _outcome(self, inner: cf.Future[Any]) -> tuple[Any, BaseException | None]:
        try:
            try:
                error = inner.exception(0)
            except cf.CancelledError:
                raise cf.CancelledError("the engine cancelled the task") from None
            except cf.TimeoutError:
                error = self._broken
            if error is not None:
                if isinstance(error, cf.BrokenExecutor) and self._envelope.broken(self.executor):
                    self._end_broken(error)
                raise error  # noqa: TRY301 - the pool takes this frame for the worker's, and off
            return self._envelope.open(inner.result(0)), None
        except BaseException as raised:
            return None, raised
        finally:
            del inner

    def _end_broken(self, error: BaseException) -> None:
        """The executor is broken: nothing comes back from it any more."""
        if error is self._broken:
            return
        self._broken = error
        self._envelope.end_broken(self.executor)
        for slot, flight in list(self._flights.items()):
            self._inbox.put((slot, flight.inner))

    def _amend(self, error: BaseException) -> None:
        """After an exception that is no task's: nothing is lost. See the head of this module."""
        pool = self._pool
        pool.repair()
        for slot in list(pool.workers.listed):
            flight = self._flights.get(slot)
            task = slot.task
            if flight is not None:
                flight.inner.add_done_callback(partial(_put, self._inbox, slot))
            elif task is None or task._state is not RUNNING:
                if task is not None and (task._state is PENDING or task.cancelled()):
                    with pool.mutex:
                        slot.task = None
                self._inbox.put((slot, None))
            else:
                pool.complete(slot, None, error)
                self._inbox.put((slot, None))
        for slot in list(self._flights):
            if slot not in pool.workers.listed:
                self._flights.pop(slot, None)
        if not pool.workers.listed:
            self._inbox.put((_sync.here.slot, None))
            _sync.here.slot.leave = True

    # -- the end -------------------------------------------------------------------------------

    def _shut(self, wait: bool) -> None:
        if self._close and not self._forked:
            self._envelope.close(self.executor, wait)

    def _end(self) -> None:
        """Time was up: take back what can be; worker processes of this machine are ended."""
        for flight in list(self._flights.values()):
            flight.inner.cancel()
        if self._close and not self._forked:
            self._envelope.kill(self.executor)


def _put(inbox: Any, slot: WorkerSlot, inner: cf.Future[Any]) -> None:
    # Not the flight: a future keeps its callbacks, and they would make a cycle.
    inbox.put((slot, inner))


def _reborn(executor: cf.Executor) -> cf.Executor | None:
    """In the child of a fork: an executor like the one the parent has, if that can be made."""
    kind = type(executor)
    old = cast(Any, executor)
    if (kind.__module__, kind.__name__) == ("concurrent.futures.process", "ProcessPoolExecutor"):
        return cf.ProcessPoolExecutor(
            old._max_workers,
            mp_context=old._mp_context,
            initializer=old._initializer,
            initargs=old._initargs,
        )
    return None


_sync.import_now(__name__)
