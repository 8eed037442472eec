"""What a submission does that finds no place: one handler for each policy.

`without_place` is called outside of any section, by a submit that has just seen in one that no place was free,
or the pool closed. Another look may find a place: each handler begins with one, in a section of its own.

`BLOCK` never blocks two callers: a worker of this pool, which may be the one to make room, and a thread with
a running event loop. Their tasks are admitted over the bound, with a warning.
"""

from __future__ import annotations

import functools
import sys
import warnings
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from futurepool import _logs, _sync
from futurepool._errors import FuturePoolWarning, SubmitTimeoutError
from futurepool._foreign import aside
from futurepool._future import CANCELLED, PENDING, Future
from futurepool._options import OnFull, Options
from futurepool._pool.helping import in_event_loop, is_deep
from futurepool._pool.section import repairing
from futurepool._pool.waiters import BlockedSubmitter

if TYPE_CHECKING:
    from futurepool._pool.pool import Pool

__all__ = ["Overload", "without_place"]

AnyFuture = Future[Any]

_BLOCK = OnFull.BLOCK
_log = _logs.log
_SHUT = (0, 0)  # a valve that nobody passes


class Overload:
    """What a pool remembers of having been full. Read without a section: wrong by one, it warns twice."""

    __slots__ = ("valve", "warned_loop", "warned_worker")

    def __init__(self) -> None:
        # The thread that the valve was last opened for, and how many unfinished tasks it may go to:
        # see `Vigil`. Written in a section.
        self.valve: tuple[int, int] = _SHUT
        self.warned_loop: bool = False  # of a submit in an event loop
        self.warned_worker: bool = False  # of one in a worker

    def open_valve(self, most: int) -> None:
        """Let this thread go on to so many unfinished tasks."""
        self.valve = (_sync.get_ident(), most)

    def warn_loop(self) -> None:
        """Say once that a submit in an event loop went over the bound."""
        if not self.warned_loop:
            self.warned_loop = True
            warnings.warn(
                "submit() found the queue full in a thread with a running event loop; rather than "
                "block the loop it admits the task over the bound. `await executor.arun(...)` "
                "waits for a place.",
                FuturePoolWarning,
                stacklevel=_outside(),
            )

    def warn_worker(self, pool: str, name: str, limit: int) -> None:
        """Say once that a task submitted to its own full pool."""
        if not self.warned_worker:
            self.warned_worker = True
            # Not here: the task may hold the lock of a log handler that submits to this very pool.
            aside.run(
                functools.partial(
                    _log.warning,
                    "a task submitted %s to its own executor, whose queue is full (%s tasks "
                    "unfinished); rather than block the worker, which may be the one to make room, "
                    "this task and others like it are admitted over the bound",
                    name,
                    limit,
                    extra={"pool": pool, "task_name": name},
                )
            )


def _outside() -> int:
    """The stack level, for a warning of the caller, of the first frame that is not the package's."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(
        "futurepool."
    ):
        level, frame = level + 1, frame.f_back
    return level


def without_place(pool: Pool, options: Options, future: AnyFuture) -> AnyFuture:
    """The queue is full, or the pool closed: what now is the policy's to say."""
    if options.max_wait is not None:
        future._max_wait = options.max_wait
    if pool.deferred:
        try:
            # Perhaps there is a place: a section was interrupted, and no repair came.
            pool.run_deferred()
        except BaseException:
            pool.repair(future)
            raise
    if pool.state:
        _forget(future)
        raise pool.closed_error()
    # For a coroutine CALLER_RUNS, which would stop its loop, means waiting, too.
    policy = options.on_full
    if policy is _BLOCK or options.waits:
        return _block(pool, options, future)
    return _HANDLERS[policy](pool, options, future)


def _block(pool: Pool, options: Options, future: AnyFuture) -> AnyFuture:
    """BLOCK: wait for a place, unless that could stop the very thing that frees one."""
    slot = _sync.here.slot
    if slot is not None and slot.pool is pool:  # `Pool.own_slot`, in line
        # A place may come free only if this very worker goes on.
        _admit_over(pool, future)
        pool.overload.warn_worker(pool.name, future.name, pool.capacity.limit)
        return future
    if options.waits:
        return _wait_as_coroutine(pool, future)
    if in_event_loop():
        pool.overload.warn_loop()
        return _admit_over(pool, future)
    timeout = options.timeout
    if timeout is None and pool.overload.valve is not _SHUT:
        thread, most = pool.overload.valve
        if thread == _sync.get_ident() and pool.capacity.limit < pool.unfinished < most:
            return _admit_over(pool, future)  # see Vigil
    return _wait_as_thread(pool, future, timeout)


def _raise(pool: Pool, _options: Options, future: AnyFuture) -> AnyFuture:
    """RAISE, SHED: the task is refused."""
    return _decide(pool, future, _refuse)


def _drop_new(pool: Pool, _options: Options, future: AnyFuture) -> AnyFuture:
    """DROP_NEW: the new future comes back cancelled."""
    return _decide(pool, future, _drop)


def _drop_oldest(pool: Pool, _options: Options, future: AnyFuture) -> AnyFuture:
    """DROP_OLDEST: another one is cancelled to make room, if any is queued."""
    return _decide(pool, future, _replace_oldest)


@repairing
def _run_here(pool: Pool, options: Options, future: AnyFuture) -> AnyFuture:
    """CALLER_RUNS: run the task in the thread that submits it, unless it must wait for its limit."""
    if is_deep(sys.getrecursionlimit() // 2):
        return _admit_over(pool, future)  # tasks that submit tasks, on top of one another
    future._queued_at = _sync.clock()
    if not pool.engine.run_here(future):
        with pool.mutex:
            # Its limit is reached, or the pool was closed meanwhile; else its token was faster.
            pending, closed = future._state is PENDING, bool(pool.state)
            if not pending:
                pool.given_up(future)
        if pending and not closed:
            return _block(pool, options, future)  # which slows its submitter down, too
        if pending:
            _forget(future)
            raise pool.closed_error()
        pool.run_deferred()
    return future


_HANDLERS: dict[OnFull, Callable[[Pool, Options, AnyFuture], AnyFuture]] = {
    OnFull.BLOCK: _block,
    OnFull.RAISE: _raise,
    OnFull.CALLER_RUNS: _run_here,
    OnFull.DROP_OLDEST: _drop_oldest,
    OnFull.DROP_NEW: _drop_new,
    OnFull.SHED: _raise,
}


# -- what can be decided at once ---------------------------------------------------------------------


def _admit_over(pool: Pool, future: AnyFuture) -> AnyFuture:
    """Admit, over the bound if need be."""
    return _decide(pool, future, _overflow)


def _decide(
    pool: Pool, future: AnyFuture, decide: Callable[[Pool, AnyFuture], Exception | None]
) -> AnyFuture:
    """Admit the task if there is a place now; else `decide` about it.

    `decide` is called with the section held. It admits or cancels the task and returns None, or returns the
    error that submit is to raise.
    """
    refused: Exception | None = None
    try:
        with pool.mutex:
            if not pool.try_admit(future):
                # mutant closed-lets-nobody-over-the-bound
                refused = pool.closed_error() if pool.state else decide(pool, future)
        if pool.deferred:
            pool.run_deferred()
        if pool.unnotified:
            pool.tell_cancelled(future)
    except BaseException:
        # Section.repair, its first step in line: by C calls only, as the stack may be at its end, with no
        # room for a call of a function in Python. See `fast.Submitting.submit`.
        try:
            pool.mutex.acquire()
            pool.deferred.append(pool._rebuild)
            if future._state is PENDING:
                pool.deferred.append(future._announce)
                future._state = CANCELLED
            while pool.mutex._is_owned():
                pool.mutex.release()
        finally:  # interrupted again, perhaps, as it had waited for the mutex
            pool.repair(future)
        raise
    if refused is not None:
        _forget(future)
        try:
            raise refused
        finally:
            del refused, future  # the traceback holds this frame
    return future


def _overflow(pool: Pool, future: AnyFuture) -> None:
    """Section held, as for those that follow."""
    pool.meters.overflows()
    pool.admit(future)


def _refuse(pool: Pool, future: AnyFuture) -> Exception:
    pool.refused(future, "full")
    return pool.full_error(future)


def _drop(pool: Pool, future: AnyFuture, policy: OnFull = OnFull.DROP_NEW) -> None:
    pool.refused(future, "dropped")
    future._why = f"the queue was full ({policy})"
    pool.cancel_pending(future, _sync.get_ident())


def _replace_oldest(pool: Pool, future: AnyFuture) -> None:
    victim = pool.queue.victim()
    if victim is None:
        _drop(pool, future, OnFull.DROP_OLDEST)
        return
    pool.refused(victim, "dropped")
    victim._why = f"it was dropped for a newer one ({OnFull.DROP_OLDEST})"
    # mutant victim-is-cancelled
    pool.cancel_pending(victim, None, grant=False)
    # mutant room-is-taken-by-the-new
    pool.admit(future)


def _forget(future: AnyFuture) -> None:
    """Nobody will hear of this future: its submit is about to raise."""
    if future._token is not None:
        future._token._discard_listener(future)
    future._release_call()


# -- waiting -------------------------------------------------------------------------------------------


def _wait_as_coroutine(pool: Pool, future: AnyFuture) -> AnyFuture:
    """A coroutine's future waits for its place with others, and nobody blocks."""
    try:
        with pool.mutex:
            settled = pool.try_admit(future)
            if not settled and not pool.state:
                pool.waiters.push(future, pool.aging, weakref.WeakMethod(pool.turn_away))
                pool.limit_wait(future)
                settled = True
        if pool.deferred:
            pool.run_deferred()
    except BaseException:
        pool.repair(future)
        raise
    if not settled:
        raise pool.closed_error()
    return future


def _wait_as_thread(pool: Pool, future: AnyFuture, timeout: float | None) -> AnyFuture:
    """Block the submitter until its task is admitted, the pool closed, or the time up."""
    waiter = Vigil(pool, future, timeout)
    try:
        with pool.mutex:
            counted = settled = pool.try_admit(future)
            if not settled and not pool.state:
                pool.waiters.block(waiter)
                if future._max_wait is not None:
                    pool.limit_wait(future)
                settled = timeout is not None and timeout <= 0
        if pool.deferred:
            pool.run_deferred()
        if not settled and not pool.state:
            _sync.sleep_at(waiter.parker, timeout, waiter.look)
            if future.task_id:  # who admitted it has taken the waiter off
                return future
        with pool.mutex:
            if not waiter.admitting:
                pool.waiters.discard(waiter)
            closed = bool(pool.state)
            settled = future.task_id != 0 or future._state is not PENDING
            if future.task_id or counted:
                pass
            elif settled:
                pool.given_up(future)
            else:
                pool.refused(future, "closed" if closed else "timeout")
        if pool.deferred:
            pool.run_deferred()
    except BaseException:
        with pool.mutex:
            pool.waiters.discard(waiter)
        pool.repair(future)
        raise
    if settled:
        return future
    refused = pool.full_error(future, _sync.clock() - waiter.began, SubmitTimeoutError)
    pool.cancel(future)
    _forget(future)
    try:
        raise pool.closed_error() if closed else refused
    finally:
        del refused, future  # the traceback holds this frame


@repairing
def _admit_stuck(pool: Pool, waiter: BlockedSubmitter, future: AnyFuture) -> bool:
    """Admit over the bound the task of a blocked submitter; False if it does not wait any more."""
    with pool.mutex:
        if pool.state or waiter not in pool.waiters.blocked or waiter.admitting:
            return False
        if future._state is not PENDING or future.task_id:
            return False
        waiter.admitting = True
        pool.meters.overflows()
        pool.overload.open_valve(2 * pool.unfinished)
        pool.place_found(future)
        pool.admit(future)
        pool.waiters.discard(waiter)
        waiter.admitting = False
    pool.run_deferred()
    return True


class Vigil(BlockedSubmitter):
    """A blocked submitter, and what it sees, once a second.

    **The valve.** A library may submit under a lock that its own done-callback takes, as gRPC's server
    does. On a full queue the submitter then holds up all workers, and they it. So if no task has
    ended between two looks, and every worker is inside done-callbacks, the task is admitted over the
    bound. (They have been there since before the first look: a worker comes to its callbacks by ending
    a task.)

    A server whose one thread submits and also feeds its tasks can be held up without: all workers wait
    for what that thread has for them. So if it has registered done-callbacks, a worker that waits for
    another thread without a timeout counts, too: it cannot come free by itself. And the thread may then
    go on to twice as many tasks as there are, until the pool is down to its bound again.

    **The log.** If no task has ended for ten seconds, what is waited for is logged, once. By another
    thread, as this one may hold the lock of a log handler; if that does not come through within
    a second, because the lock is held by whoever waits here, stderr gets it.
    """

    __slots__ = ("_completed", "_idle_since", "_logged", "_pool", "_report", "_timeout", "began")

    def __init__(self, pool: Pool, future: AnyFuture, timeout: float | None) -> None:
        self.future = future
        self.admitting = False
        self.parker = _sync.Parker()
        self._pool = pool
        self._timeout = timeout
        self._completed = pool.meters.completed  # tasks, when the wait began
        self.began: float = _sync.clock()
        self._idle_since = self.began
        self._report = ""
        self._logged: bool = False

    def look(self) -> bool:
        """True if there is nothing to wait for any more."""
        pool = self._pool
        pool.reap_dead_workers()
        if self._timeout is not None and self._timeout < _sync.LOOK:
            return False  # it has no two looks to compare
        completed = pool.meters.completed
        if completed != self._completed:
            self._completed = completed
            self._idle_since = _sync.clock()
            return False
        if pool.engine.calls_back(waiting=_sync.here.registers):
            name = self.future.name
            admitted = _admit_stuck(pool, self, self.future)
            if admitted:
                aside.run(functools.partial(_log.warning, _VALVE, name, extra=self._extra()))
            return admitted
        if self._report:
            if not self._logged:
                self._logged = True
                _to_stderr(self._report)
        elif _sync.clock() - self._idle_since >= _PATIENCE:
            self._report = _blocked_report(pool, self.future, _sync.clock() - self._idle_since)
            aside.run(self._log)
        return False

    def _extra(self) -> dict[str, Any]:
        return {"pool": self._pool.name, "task_name": self.future.name}

    def _log(self) -> None:
        _log.warning("%s", self._report, extra=self._extra())
        self._logged = True


_VALVE = (
    "the submit of %s waited a second for a place while no task ended and every worker was inside a "
    "done-callback, or waiting for another thread; as those may be waiting for the submitter, its task "
    "is admitted over the bound. For a library that submits from a thread its tasks need, use "
    "queue_size=None and the library's own limit"
)
_PATIENCE = 10.0  # seconds


def _blocked_report(pool: Pool, future: AnyFuture, seconds: float) -> str:
    """What a submitter waits for in which nothing has moved for so many seconds."""
    from futurepool._pool import report

    what, lines = report.waited_for(pool)
    head = f"the submit of {future.name} waits for a place, and no task has ended for"
    return "\n".join([f"{head} {seconds:.0f} s; there are {what}:", *lines])


def _to_stderr(text: str) -> None:
    try:
        if sys.stderr is not None:
            sys.stderr.write(f"futurepool: {text}\n")
    except (OSError, ValueError):  # closed
        pass
