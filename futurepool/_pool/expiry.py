"""Tasks that have waited for too long: `options(max_wait=)`.

There is no timer for each task. The tasks of one view, which all may wait equally long, stand in a `Row` in the
order in which they were submitted, so one of them costs a weak reference and an append. Tasks that came by the long
way have an entry of their own. A heap holds what comes first of each row, and the others; and one look at it is
arranged with the timer, for the first of all.

Tasks are held weakly: who has a place is held by the queue, who waits for one by its submitter. One that has
started, or was cancelled, is dead. A look drops the dead in front; where there are many, all of them. So there are
at most `_SWEEP` of them at any time, or as many as there are tasks that wait.

What is due is looked for, in a section, by the timer's thread; no worker has to come by:

    PENDING -> FINISHED   with a TaskExpiredError; a tombstone in the queue; the place is handed on

A worker takes a task in a section, too, so a task is run or has expired, and never both. Done-callbacks are called
aside, as after any deadline.

Guarded by the pool's mutex, all of it.
"""

from __future__ import annotations

import functools
import itertools
import weakref
from collections import deque
from collections.abc import Callable
from heapq import heapify, heappop, heappush, heapreplace
from typing import TYPE_CHECKING, Any, cast

from futurepool import _sync
from futurepool._deadlines import NEVER, timer
from futurepool._errors import TaskExpiredError
from futurepool._foreign import aside
from futurepool._future import PENDING, Future
from futurepool._pool.section import repairing

if TYPE_CHECKING:
    from futurepool._options import Options
    from futurepool._pool.pool import Pool

__all__ = ["Expiry", "Row", "expire_shed", "late"]

AnyFuture = Future[Any]

_SWEEP = 1024  # fewer entries than this are not worth a look at all of them
_AT_ONCE = 64  # so many tasks expire in one section at most


_deref: Callable[[Any], Any] = weakref.ref.__call__  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]


class Row(deque["weakref.ref[AnyFuture]"]):
    """Tasks of one view, oldest first. Written here, and by the unrolled forms in `futurepool._pool.fast`."""

    __slots__ = ("look_at", "max_wait")

    max_wait: float
    look_at: (
        float  # with more tasks than that `watch` is to be called; 0: the row is not on the heap
    )

    def first(self, seen: list[AnyFuture]) -> AnyFuture | None:
        """The first that waits, those before it dropped; what was looked at is `seen`."""
        while self:
            future = self[0]()
            if future is not None:
                seen.append(future)
                # mutant only-pending-expires
                if future._state is PENDING:
                    return future
            self.popleft()
        return None


#: (when, number, a task or a row, `max_wait`)
Entry = tuple[float, int, Any, float]


class Expiry:
    """The deadlines of one pool's tasks."""

    __slots__ = (
        "__weakref__",
        "_deferred",
        "_due",
        "_ended",
        "_heap",
        "_numbers",
        "_pool",
        "_sweep_at",
    )

    def __init__(self, pool: Pool, deferred: deque[Callable[[], object]]) -> None:
        self._pool: weakref.ref[Pool] = weakref.ref(pool)
        self._deferred = deferred
        self._numbers = itertools.count()  # two tasks may be due at the same instant
        self._ended: deque[AnyFuture] = deque()  # to let go of their arguments
        self._heap: list[Entry] = []
        self._due: float = NEVER  # when the timer looks next
        self._sweep_at: float = _SWEEP  # so many entries are worth a look at all of them

    def forget(self) -> None:
        """In the child of a fork: no task waits."""
        for entry in self._heap:
            if type(entry[2]) is Row:
                entry[2].look_at = 0
                entry[2].clear()
        self._ended.clear()
        self._heap = []
        self._due = NEVER
        self._sweep_at = _SWEEP

    # -- with the mutex held -------------------------------------------------------------------

    def row_of(self, options: Options) -> Row:
        """Where the tasks of these options stand, which have a `max_wait`."""
        row: Row | None = options.row
        if row is None:
            row = Row()
            row.max_wait = cast(float, options.max_wait)
            row.look_at = 0
            options.row = row
        return row

    def watch(self, row: Row, future: AnyFuture) -> None:
        """`future` was added to `row`: which is not on the heap, or has become long."""
        if row.look_at:
            self._deferred.append(functools.partial(self._arm_now))
            row.look_at = NEVER
        else:
            self._push(future._queued_at + row.max_wait, row, row.max_wait)
            row.look_at = _SWEEP

    def add(self, future: AnyFuture, max_wait: float) -> None:
        """Have it expire if it has not started `max_wait` seconds after it was submitted."""
        self._push(future._queued_at + max_wait, weakref.ref(future), max_wait)
        if len(self._heap) > self._sweep_at:
            self._deferred.append(functools.partial(self._arm_now))
            self._sweep_at = NEVER

    def _push(self, when: float, what: Any, max_wait: float) -> None:
        heappush(self._heap, (when, next(self._numbers), what, max_wait))
        if when < self._due:
            # mutant first-deadline-is-arranged
            self._deferred.append(functools.partial(self._arm))
            self._due = when

    def rebuild(self) -> None:
        """After an interruption: whether a look is arranged is not known."""
        if self._heap:
            self._sweep_at = _SWEEP
            self._due = self._heap[0][0]
            self._deferred.append(functools.partial(self._arm))
        if self._ended:
            self._deferred.append(functools.partial(self._release_soon))

    def release(self, future: AnyFuture) -> None:
        """It has expired, and nobody wants to be called: have it let go of its arguments, aside.

        One job for all, as they may be many. Whoever does it looks again after the last; whoever finds none
        before it has another job done.
        """
        self._ended.append(future)
        if len(self._ended) == 1:
            self._deferred.append(functools.partial(self._release_soon))

    def _release_soon(self) -> None:
        aside.run(self._release_all)

    def _release_all(self) -> None:
        """In a thread aside: the finalizers of arguments are users' code."""
        ended = self._ended
        while ended:
            try:
                future = ended[0]
                future._tell()
                ended.remove(future)
            except (IndexError, ValueError):  # noqa: PERF203 - another thread was faster
                pass

    def _next(self, now: float, seen: list[AnyFuture]) -> tuple[AnyFuture, float, float] | None:
        """A task that is due, since when, and its `max_wait`; what was looked at is `seen`.

        To let go of a task that has just ended may run its result's finalizer, which is no section's to do.
        """
        heap = self._heap
        while heap:
            when, number, what, max_wait = heap[0]
            if type(what) is Row:
                if when > now:
                    return None
                future = what.first(seen)
                if future is None:
                    what.look_at = 0  # first: twice on the heap does no harm
                    heappop(heap)
                    continue
                when = future._queued_at + max_wait
                if when <= now:
                    return future, when, max_wait
                heapreplace(heap, (when, number, what, max_wait))
            else:
                future = what()
                if future is not None:
                    seen.append(future)
                    if future._state is PENDING:
                        return (future, when, max_wait) if when <= now else None
                heappop(heap)
        return None

    def _sweep(self, seen: list[AnyFuture]) -> None:
        """Drop the dead where there are many."""
        for entry in self._heap:
            row = entry[2]
            if type(row) is Row and row.look_at == NEVER:
                there = list(map(_deref, row))
                seen.extend([future for future in there if future is not None])
                living = [
                    each
                    for each, future in zip(row, there, strict=True)
                    if future is not None and future._state is PENDING
                ]
                row.look_at = max(_SWEEP, 2 * len(living))
                row.clear()
                row.extend(living)
        if self._sweep_at == NEVER:
            heap = [
                entry for entry in self._heap if type(entry[2]) is Row or _waits(entry[2], seen)
            ]
            heapify(heap)
            self._heap = heap
            self._sweep_at = max(_SWEEP, 2 * len(heap))

    # -- looking -------------------------------------------------------------------------------

    def _arm(self) -> None:
        """Left to be done by a section: have the timer look when the first task is due."""
        due = self._due
        if due != NEVER:
            timer.schedule(due, self)

    def _arm_now(self) -> None:
        """The same: have it look now, as there are many entries."""
        timer.schedule(_sync.clock(), self)

    def _settled(self) -> bool:
        return not self._heap

    def _expire(self) -> None:
        """Let what is due expire. In the timer's thread."""
        pool = self._pool()
        if pool is None:
            return
        seen: list[AnyFuture] = []
        try:
            while not self._look(pool, seen):
                pass
        except BaseException:
            pool.repair()
            raise
        finally:
            ended = [future for future in seen if future._state is not PENDING]
            seen.clear()
            if ended:
                aside.run(ended.clear)

    def _look(self, pool: Pool, seen: list[AnyFuture]) -> bool:
        """True if nothing more is due, and the next look is arranged."""
        late: tuple[AnyFuture, TaskExpiredError] | None = None
        done = False
        with pool.mutex:
            self._sweep(seen)
            now = _sync.clock()
            for _ in range(_AT_ONCE):
                found = self._next(now, seen)
                if found is None:
                    done = True
                    self._due = self._heap[0][0] if self._heap else NEVER
                    self._deferred.append(functools.partial(self._arm))
                    break
                future, when, max_wait = found
                error = TaskExpiredError(
                    pool=pool.name,
                    task=future.name,
                    # Not since it was queued: before that it may have waited for its place.
                    waited=now - when + max_wait,
                    max_wait=max_wait,
                )
                if not pool.try_expire(future, error):
                    late = (future, error)
                    break
        if late is not None:
            expire(pool, *late)
        pool.run_deferred()
        return done


def _waits(reference: weakref.ref[AnyFuture], seen: list[AnyFuture]) -> bool:
    future = reference()
    if future is None:
        return False
    seen.append(future)
    return future._state is PENDING


@repairing
def expire(pool: Pool, future: AnyFuture, error: TaskExpiredError) -> None:
    """Fail a task that has not started, and leave the rest in `deferred`. Outside of any section.

    Once a condition exists the step to FINISHED is made while holding it: see futurepool._future.
    """
    while future._state is PENDING:
        subscribers = future._subscribers
        condition = None if subscribers is None else subscribers.condition
        if condition is None:
            with pool.mutex:
                if future._state is PENDING:
                    pool.try_expire(future, error)
        else:
            with condition:
                with pool.mutex:
                    if future._state is PENDING:
                        pool.expire_pending(future, error)
                if future.done():
                    future._tell_waiters()


def late(pool: Pool, future: AnyFuture) -> TaskExpiredError:
    """What a task fails with that had waited for longer than the queue of `pool` allows."""
    waited = max(0.0, _sync.clock() - future._queued_at)
    return TaskExpiredError(pool=pool.name, task=future.name, waited=waited)


def expire_shed(pool: Pool) -> None:
    """Left to be done by a section: fail what the queue has set aside, and what has a condition."""
    shed = pool.queue.shed
    while shed:
        try:
            future = shed[0]
        except IndexError:  # another thread was faster
            return
        # mutant shed-expires
        expire(pool, future, late(pool, future))
        try:
            shed.remove(future)
        except ValueError:
            pass
