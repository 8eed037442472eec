"""A worker that waits for a task of its own pool: somebody has to run that task.

Free workers are left to take it. If none is free, and none may be started, a spare thread runs it: the worker
that waits runs nothing meanwhile, so no more tasks run than there are workers, until a timeout lets it
go on. The only worker of a pool runs it right here, in its own stack, where nobody can tell; beside others
somebody might, as a lock that this thread may enter again, or its local data, would be shared.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from futurepool import _sync
from futurepool._future import PENDING, RUNNING, Future
from futurepool._pool.section import repairing
from futurepool._pool.workers import NOTIFYING, OVERDUE, Kind, WorkerSlot

if TYPE_CHECKING:
    from futurepool._pool.pool import Pool

__all__ = [
    "Expected",
    "help_waiting",
    "in_event_loop",
    "is_deep",
    "run_awaited",
    "run_expected",
    "want",
]

AnyFuture = Future[Any]

_FREE_THREADED = _sync.free_threaded
_DEEP = 50  # frames; a task that runs on top of more may miss the rest of the stack


class Expected:
    """Queued tasks for which workers wait that look once only: somebody was free to run them.

    So there are no more of these than workers. Whoever that was may take another task which waits as well, or
    leave as the pool becomes smaller: `run_expected` looks again when a task begins to wait, or a worker has
    left. (Who waits by `result` looks again by itself, each second.) Section held.
    """

    __slots__ = ("_bound", "_noted")

    def __init__(self) -> None:
        self.clear()

    def __bool__(self) -> bool:
        return bool(self._noted)

    def clear(self) -> None:
        # A task and who waits for it -> what that one runs; the task's result is not kept.
        self._noted: dict[tuple[weakref.ref[AnyFuture], WorkerSlot], int] = {}
        self._bound = 64  # of how many: then what is over is struck out

    def note(self, future: AnyFuture, slot: WorkerSlot) -> None:
        self._noted[weakref.ref(future), slot] = slot.task_id
        if len(self._noted) > self._bound:
            self._bound = max(64, 2 * len(self.due()))

    def strike(self, future: AnyFuture, slot: WorkerSlot) -> None:
        self._noted.pop((weakref.ref(future), slot), None)

    def due(self) -> list[tuple[AnyFuture, WorkerSlot]]:
        """Those that are queued, and waited for, still; the others are struck out."""
        noted: dict[tuple[weakref.ref[AnyFuture], WorkerSlot], int] = {}
        due: list[tuple[AnyFuture, WorkerSlot]] = []
        for key, task_id in self._noted.items():
            future, slot = key[0](), key[1]
            if future is not None and future._state is PENDING and task_id == slot.task_id:
                noted[key] = task_id
                due.append((future, slot))
        self._noted = noted
        return due


@repairing
def help_waiting(
    pool: Pool, future: AnyFuture, timeout: float | None, again: bool = False, /
) -> bool:
    """In a worker of this pool, which waits for `future`: see that it is run.

    True if it was run in this stack or, in the thread that serves an engine, is done now; False: wait for
    it. `again` is a second look at the same wait, a second later.
    """
    slot = pool.own_slot()
    if slot is None or pool.mutex._is_owned():
        return False
    if pool.expected and not again:
        _begin_to_wait(pool, slot)
    if slot.kind == Kind.ENGINE:
        # The dispatcher: it is the one to bring it.
        return future._state in (PENDING, RUNNING) and bool(pool.engine.run_aside(future, timeout))
    # Who waits without a timeout does nothing else until `future` is done.
    waits = slot if timeout is None else None
    if (timeout is not None and timeout <= 0) or _is_seen_to(pool, future, again, waits):
        return False
    if timeout is None and pool.workers.max_workers == 1 and _nobody_can_tell():
        return pool.engine.run_here(future)
    # mutant help-starts-a-spare
    pool.engine.start_spare(future, None)
    return False


@repairing
def want(pool: Pool, future: AnyFuture, in_loop: bool = False, /) -> None:
    """The same for a worker that may hold conditions of futures, or (`in_loop`) runs an event loop.

    It may go on to wait for many, so one spare thread runs them one after the other.
    """
    slot = pool.own_slot()
    if (
        slot is None
        or slot.kind == Kind.ENGINE
        or (in_loop and not in_event_loop())
        or pool.mutex._is_owned()
    ):
        return
    if pool.expected:
        _begin_to_wait(pool, slot)
    if not _is_seen_to(pool, future, False, once=slot):
        pool.engine.start_spare(future, slot)


def _is_seen_to(
    pool: Pool,
    future: AnyFuture,
    again: bool,
    waits: WorkerSlot | None = None,
    once: WorkerSlot | None = None,
) -> bool:
    """Whether `future` is not queued, or there are workers free for all that is.

    Or it waits for its limit: then for a task that ends. But if that limit is the one of a task that cannot
    go on before `future` is done, for which `waits` waits, it gets that one's slot. `once` waits for it, and
    does not look again.
    """
    limits = pool.limits
    with pool.mutex:
        if future._state is not PENDING or not future.task_id:
            return True
        if future._lent is not None:
            return False
        if limits is not None and future._limit is not None and not limits.may_start(future):
            if waits is not None and limits.lend(future, _held_up(pool, waits)):
                return False
            # Who waits may not look again, and then the workers may all wait as this one does.
            limits.awaited[future] = None
            return True
        seen = _are_enough(pool, again)
        if once is not None and seen:
            pool.expected.note(future, once)
    pool.run_deferred()
    return seen


def _are_enough(pool: Pool, again: bool) -> bool:
    """Whether as many workers are free, or about to start, as tasks are due. Section held."""
    workers = pool.workers
    taken = (NOTIFYING, OVERDUE)
    free = sum([slot.task is None and slot.status not in taken for slot in workers.listed])
    wanted = pool.unfinished - workers.active - workers.held - free - workers.reserved
    if wanted > 0 and not again:
        for _ in range(min(wanted, workers.max_workers - workers.threads)):
            pool.reserve()
            wanted -= 1
    if workers.parked and not workers.wakeup_pending:
        pool.signal_work()
    return wanted <= 0


def _begin_to_wait(pool: Pool, slot: WorkerSlot) -> None:
    """What `slot` runs waits: maybe this worker was to run what another one waits for.

    Once for each task is enough: what is noted later knows that this worker is not free.
    """
    task_id = slot.task_id
    if slot.waited != task_id or not task_id:
        slot.waited = task_id
        # mutant who-waits-is-not-free
        run_expected(pool)
        pool.run_deferred()


def _held_up(pool: Pool, slot: WorkerSlot) -> list[AnyFuture]:
    """The task of a slot, and those that cannot go on before it has ended. Section held.

    It runs in their stack, or they wait without a timeout for it, or for one of the others.
    """
    waiting: dict[AnyFuture, list[WorkerSlot]] = {}
    for other in pool.workers.slots:
        if (future := other.waits) is not None:
            waiting.setdefault(future, []).append(other)
    found: dict[AnyFuture, None] = {}
    row: list[WorkerSlot | None] = [slot]
    while row:
        held = row.pop()
        if held is None or held.task in found:
            continue
        row.append(held.beneath)
        if held.task is not None:
            found[held.task] = None
            row += waiting.get(held.task, [])
    return list(found)


def run_awaited(pool: Pool) -> None:
    """Some tasks for which workers wait may be due: see that they are run. In `deferred`.

    Those that find their limit reached once more stay noted.
    """
    limits = pool.limits
    if limits is not None:
        with pool.mutex:
            due = [task for task in list(limits.awaited) if limits.may_start(task)]
        for task in due:
            pool.engine.start_spare(task, None)


def run_expected(pool: Pool) -> None:
    """Somebody who was free may not run what workers wait for: see that it is run. In `deferred`."""
    with pool.mutex:
        due = pool.expected.due()
        if due and _are_enough(pool, False):
            return
    for future, slot in due:
        with pool.mutex:
            pool.expected.strike(future, slot)
        pool.engine.start_spare(future, slot)  # notes it again if there is no thread to be had


_module: Callable[[str], Any] = sys.modules.get
_looked: tuple[int, Any, Any] = (0, None, None)  # how many modules there were, and two of them


def in_event_loop() -> bool:
    """Whether an event loop is running in this thread: asyncio's, or trio's."""
    global _looked
    if not _FREE_THREADED:
        asyncio, trio = _module("asyncio.events"), _module("trio.lowlevel")
    else:
        # Free-threaded CPython 3.13 may take a lock to look a module up. A daemon thread that waits for
        # it as the interpreter ends keeps it, and the interpreter waits for it in vain. To import
        # one of these adds many modules, so it is enough to count them.
        count, asyncio, trio = _looked
        if count != len(sys.modules):
            count = len(sys.modules)
            asyncio, trio = _module("asyncio.events"), _module("trio.lowlevel")
            _looked = (count, asyncio, trio)
    if asyncio is not None and asyncio._get_running_loop() is not None:
        return True
    return trio is not None and bool(getattr(trio, "in_trio_run", _no)())


def _no() -> bool:
    return False


def is_deep(frames: int) -> bool:
    """Whether the stack of this thread is deeper than that."""
    try:
        sys._getframe(frames + 1)
    except ValueError:
        return False
    return True


def _nobody_can_tell() -> bool:
    """Whether a task may run on top of this thread's stack.

    Not while it holds a condition that whoever finishes another future waits for; nor where the task
    would see an exception of somebody else's as the one being handled, or a running loop; nor so
    deep that the rest of the stack may not do.
    """
    return not (
        _sync.here.conditions or sys.exc_info()[0] is not None or in_event_loop() or is_deep(_DEEP)
    )
