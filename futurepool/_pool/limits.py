"""Limits: of the tasks of a view, or of a key, at most so many run at a time.

**A tree.** Each `options(limit=)` makes a `Limiter` below that of the view it was made from; under all lies the
root, which has no limit. `options(key=)` puts a `Keys` below the view's limiter, once, and below that a limiter for
each key, which is there as long as it has unfinished tasks. A task is counted by all limiters on its way
from its own one to the root (`path`).

**The queue.** `LimitedQueue` stands before the pool's queue from the first limit on. A task without a limit
goes to the inner one, as ever. One with a limit lies in the heap of its own limiter. A limiter that is not full
is, with the rank of its best task, in the heap of the one above. So a full one is in nobody's way, and
what is found from the root down is the best of all that may start. A worker takes the better of that and of
what is in front of the inner queue.

1. If a limiter that is not full has a task, the heap above has an entry for it (`offered`) that is as good as its best
   task, or better. Who finds one that is better than the truth, or one of a full limiter, puts it right (`best`).
2. That entry is made when a task comes in (`_offer`, as far up as nothing is full and as it is better than
   what was offered), and when a limiter ceases to be full (`_freed`).
3. `running` of all on the path goes up in the section in which a task becomes RUNNING, and down in that in which
   it becomes FINISHED. Only what hangs below limiters that are not full is found: so no limit is exceeded
   at any instant.
4. Each entry is pushed by a task that comes, starts or ends, at most one for each limiter on its path, and
   popped once. So a task costs the same however many limiters are full and however many tasks wait.
5. All of it can be counted again: `pending` has what is queued, the slots have what runs.

**Keys take turns.** `Keys` has a second order, of its limiters that are not full: by rounds, for each priority.
The heap, which is the same as everywhere, says when the keys are due beside others: when the oldest of their
tasks is. Whose task runs then is the turn's to say.

**Lending.** A task that cannot go on before another one has ended lends it its slots, if one of its own limits
holds the other back: of the first limiter that both have, and of all above, the other takes none. If the lender ends
first, its slots are handed on (`_bequeath`), so that no limit is exceeded.

**What is due.** `due` is how many tasks could start now: the free slots, or what is queued, whichever is less. Those
that are queued and are not due are `held`. They need no worker, so a submit that adds one wakes nobody,
and the pool subtracts them from what workers are wanted for.

Everything here is called with the pool's mutex held, and nothing foreign is called: keys are of built-in types.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict, deque
from collections.abc import Iterable
from heapq import heapify, heappop, heappush, heapreplace, merge
from typing import TYPE_CHECKING, Any

from futurepool import _sync
from futurepool._errors import InvalidConfigError
from futurepool._errors.checks import check_int, show
from futurepool._future import FINISHED, LIMITED, PENDING, RUNNING, Future
from futurepool._options import UNSET, Options
from futurepool._pool.capacity import UNBOUNDED
from futurepool._pool.histogram import HistogramRecorder
from futurepool._pool.task_queue import BOTTOM, Level, RankedQueue, is_token_cancelled

if TYPE_CHECKING:
    from futurepool._pool.pool import Pool
    from futurepool._telemetry.stats import ViewStats

__all__ = ["Key", "Keys", "LimitedQueue", "Limiter", "ViewMeter", "limited_options"]

AnyFuture = Future[Any]
Rank = tuple[int, int]

_SWEEP = 64  # fewer dead entries than this are not worth a sweep


class ViewMeter:
    """What is counted of a view that has a name. Times are in seconds."""

    __slots__ = (
        "active",
        "completed",
        "failed",
        "latency",
        "limit",
        "name",
        "run_time",
        "submitted",
        "unfinished",
        "wait",
        "wait_time",
    )

    def __init__(self, name: str, limit: int | None, histograms: bool) -> None:
        self.name: str = name
        self.limit: int | None = limit  # the latest that a view of this name had
        self.submitted: int = 0
        self.completed: int = 0
        self.failed: int = 0
        self.run_time: float = 0.0
        self.wait_time: float = 0.0
        self.latency: HistogramRecorder | None = HistogramRecorder() if histograms else None
        self.wait: HistogramRecorder | None = HistogramRecorder() if histograms else None
        # These can be counted again.
        self.unfinished: int = 0
        self.active: int = 0

    def copy(self) -> ViewMeter:
        """What is counted now."""
        copy = ViewMeter(self.name, self.limit, False)
        copy.submitted, copy.completed, copy.failed = self.submitted, self.completed, self.failed
        copy.run_time, copy.wait_time = self.run_time, self.wait_time
        copy.unfinished, copy.active = self.unfinished, self.active
        copy.latency = None if self.latency is None else self.latency.copy()
        copy.wait = None if self.wait is None else self.wait.copy()
        return copy

    def snapshot(self) -> ViewStats:
        """The same as users have it. What is derived here makes it add up whatever was counted."""
        from futurepool._telemetry.stats import ViewStats

        completed = self.completed
        return ViewStats(
            name=self.name,
            limit=self.limit,
            active_tasks=self.active,
            queued_tasks=self.unfinished - self.active,
            submitted_tasks=self.submitted,
            completed_tasks=completed,
            failed_tasks=self.failed,
            cancelled_tasks=self.submitted - completed - self.unfinished,
            average_latency=self.run_time / completed if completed else 0.0,
            average_wait=self.wait_time / completed if completed else 0.0,
            latency=None if self.latency is None else self.latency.snapshot(self.run_time),
            wait=None if self.wait is None else self.wait.snapshot(self.wait_time),
        )


class Limiter:
    """At most `limit` of its tasks, and of those of the limiters below it, run at a time."""

    __slots__ = (
        "above",
        "below",
        "changed",
        "due",
        "heap",
        "key",
        "keys",
        "limit",
        "meters",
        "offered",
        "round",
        "running",
        "turn",
        "turn_priority",
        "waiting",
    )

    def __init__(
        self,
        above: Limiter | None,
        limit: int,
        meter: ViewMeter | None = None,
        key: str | int | bytes | None = None,
    ) -> None:
        self.above: Limiter | None = above
        self.limit: int = limit
        #: Those of the views that it stands for, its own and those above.
        self.meters: tuple[ViewMeter, ...] = _with_meter(above.meters if above else (), meter)
        self.keys: Keys | None = None  # what is below it by key
        self.key: str | int | bytes | None = key  # of one of `Keys`
        self.running: int = 0  # of its tasks, and of those below
        self.changed: bool = False  # its limit, and nobody has seen to that so far
        self.forget()

    def forget(self) -> None:
        """Have nothing queued."""
        self.waiting: int = 0  # tasks queued right here
        self.below: int = 0  # what is due in the limiters below
        self.due: int = 0  # see the head of this module
        self.heap: list[tuple[Rank, int, Any]] = []  # (rank, number, task or limiter)
        self.offered: Rank | None = None  # of its entry in the heap above
        # Of one of `Keys`: the round in which it is next, 0 of a new one; and its entry there.
        self.round: int = 0
        self.turn: int = 0
        self.turn_priority: int = 0

    def __repr__(self) -> str:
        return f"limit={self.limit}"

    def leaf(self) -> Limiter:
        """The limiter that a task is to be queued at."""
        if self.key is not None and isinstance(self.above, Keys):
            return self.above.limiters.setdefault(self.key, self)
        return self

    @property
    def path(self) -> tuple[Limiter, ...]:
        """From this one to the root. Not kept: it would be a cycle, for the collector to find."""
        path: list[Limiter] = [self]
        while (above := path[-1].above) is not None:
            path.append(above)
        return tuple(path)

    @property
    def full(self) -> bool:
        """Whether it lets no other task run."""
        return self.running >= self.limit

    def best(self) -> Rank | None:
        """The rank of the best task that may start, here or below. What was wrong in the heap is right after."""
        heap = self.heap
        while heap:
            rank, _, item = heap[0]
            if not isinstance(item, Limiter):
                if item._state is PENDING:
                    return rank
                heappop(heap)
                continue
            if item.offered != rank:  # there is a better entry for it, or none is valid
                heappop(heap)
                continue
            # mutant full-limiter-is-passed
            true = None if item.running >= item.limit else item.best()
            if true == rank:
                return rank
            item.offered = true
            if true is None:
                heappop(heap)
            else:
                heapreplace(heap, (true, next(_numbers), item))
        return None

    def next_leaf(self) -> Limiter:
        """The limiter in front of whose heap lies the task that is due; after `best`."""
        item = self.heap[0][2]
        return item.next_leaf() if isinstance(item, Limiter) else self

    def sweep(self) -> None:
        """Drop what is dead."""
        heap = [
            entry
            for entry in self.heap
            if (
                entry[2].offered == entry[0]
                if isinstance(entry[2], Limiter)
                else entry[2]._state is PENDING
            )
        ]
        heapify(heap)
        self.heap = heap


_numbers = itertools.count(1)


class Keys(Limiter):
    """The limiters of the keys of one view, which take turns."""

    __slots__ = ("_now", "_turns", "limiters")

    def __init__(self, above: Limiter) -> None:
        super().__init__(above, UNBOUNDED)

    def forget(self) -> None:
        """Have nothing queued, and no key: whoever has tasks will enter again."""
        super().forget()
        self.limiters: dict[str | int | bytes, Limiter] = {}  # of keys that have unfinished tasks
        self._turns: dict[
            int, list[tuple[int, int, Limiter]]
        ] = {}  # priority -> (round, number, whose)
        self._now: int = 0  # the latest round in which somebody had a turn

    def enter(self, limiter: Limiter) -> None:
        """One that is not full has a task: it takes part, last of its round.

        A new one is last of the round to come, so that those who have had their turn in this one are not
        held up for as long as new keys come.
        """
        if limiter.running >= limiter.limit:
            return
        heap = limiter.heap
        if not heap or (heap[0][2]._state is not PENDING and limiter.best() is None):
            return
        priority = heap[0][2].priority
        if limiter.turn and limiter.turn_priority == priority:
            return
        limiter.round = max(limiter.round, self._now) if limiter.round else self._now + 1
        limiter.turn, limiter.turn_priority = next(_numbers), priority
        # Not `setdefault` or `get`: see `PriorityQueue.push`.
        try:
            turns = self._turns[priority]
        except KeyError:
            turns = self._turns[priority] = []
        heappush(turns, (limiter.round, limiter.turn, limiter))

    def next_leaf(self) -> Limiter:
        """The one whose turn it is, among those with a task of the priority that is due; after `best`."""
        first: Limiter = self.heap[0][2]
        priority = first.heap[0][2].priority
        turns = self._turns.get(priority, [])
        while turns:
            _, number, limiter = turns[0]
            if (
                limiter.turn == number
                and limiter.running < limiter.limit
                and limiter.best() is not None
            ):
                return limiter
            heappop(turns)
            if limiter.turn == number:
                limiter.turn = 0  # it takes part again when it can
        return first  # after an interruption

    def taken(self, limiter: Limiter) -> None:
        """Its turn is over."""
        turns = self._turns.get(limiter.turn_priority)
        if limiter.turn and turns and turns[0][2] is limiter:
            heappop(turns)
            if not turns:
                del self._turns[limiter.turn_priority]
        limiter.turn = 0
        self._now = max(self._now, limiter.round)
        limiter.round = self._now + 1
        self.enter(limiter)

    def sweep(self) -> None:
        """Drop what is dead."""
        super().sweep()
        turns: dict[int, list[tuple[int, int, Limiter]]] = {}
        for priority, old in self._turns.items():
            row = [entry for entry in old if entry[2].turn == entry[1]]
            heapify(row)
            if row:
                turns[priority] = row
        self._turns = turns


class Key:
    """What the tasks of `options(key=)` are submitted with; their limiter is looked up as they are queued."""

    __slots__ = ("above", "key", "key_limit", "meters")

    def __init__(
        self, above: Limiter, key: str | int | bytes, key_limit: int, meter: ViewMeter | None
    ) -> None:
        self.above: Limiter = above  # that of the view without its key
        self.key: str | int | bytes = key
        self.key_limit: int = key_limit
        self.meters: tuple[ViewMeter, ...] = _with_meter(above.meters, meter)

    def __repr__(self) -> str:
        return f"key={self.key!r}, key_limit={self.key_limit}"

    def leaf(self) -> Limiter:
        """The limiter of the key; the latest limit that was named for it is the one that counts."""
        keys = self.above.keys
        if keys is None:
            self.above.keys = keys = Keys(self.above)
        # Not `get`: see `PriorityQueue.push`.
        try:
            found = keys.limiters[self.key]
        except KeyError:
            found = keys.limiters[self.key] = Limiter(keys, self.key_limit, key=self.key)
        if found.limit != self.key_limit:
            found.limit = self.key_limit
            found.changed = True
        return found


def _with_meter(meters: tuple[ViewMeter, ...], meter: ViewMeter | None) -> tuple[ViewMeter, ...]:
    return meters if meter is None or meter in meters else (*meters, meter)


class LimitedQueue:
    """A queue in which tasks with limits wait beside others. It is the `limits` of its pool, too.

    While no task with a limit may start, the hot paths use the inner queue's levels as ever.
    """

    __slots__ = (
        "_dead",
        "_histograms",
        "_limiters",
        "awaited",
        "borrowers",
        "inner",
        "meters",
        "pending",
        "queued",
        "root",
        "token_cancelled",
    )

    shed: deque[AnyFuture] | tuple[()] = ()  # of the class

    def __init__(self, inner: RankedQueue, histograms: bool) -> None:
        self.root: Limiter = Limiter(None, UNBOUNDED)
        self.meters: dict[str, ViewMeter] = {}  # by the names of views
        self._histograms = histograms
        self._limiters: dict[Limiter, None] = {}  # all that may have tasks, but for the root
        self.renew(inner)

    def renew(self, inner: RankedQueue) -> None:
        """Hold no task, and have another queue for those without a limit."""
        self.inner: RankedQueue = inner
        self.token_cancelled: list[AnyFuture] = inner.token_cancelled  # the same list
        # By priority what is queued with a limit, oldest first. A plain dict is slow where the first
        # is taken off again and again.
        self.pending: dict[int, OrderedDict[AnyFuture, None]] = {}
        # Of these, those that workers wait for: see `futurepool._pool.helping`.
        self.awaited: dict[AnyFuture, None] = {}
        # Running tasks that have lent their slots: to whom.
        self.borrowers: dict[AnyFuture, list[AnyFuture]] = {}
        self._dead = 0  # a hint for when to sweep
        self.recount((), ())

    # -- views -----------------------------------------------------------------------------------

    def meter(self, name: str | None, limit: int | None) -> ViewMeter | None:
        """What counts the tasks of views with this name; there from now on."""
        if name is None:
            return None
        try:
            found = self.meters[name]
        except KeyError:
            found = self.meters[name] = ViewMeter(name, limit, self._histograms)
        if limit is not None:  # a view by key, made from one with a limit, has its name
            found.limit = limit
        return found

    def copies(self) -> list[ViewMeter]:
        """What is counted of each view with a name."""
        return [meter.copy() for meter in list(self.meters.values())]

    # -- what starts, and ends ---------------------------------------------------------------------

    @property
    def held(self) -> int:
        """Queued tasks that may not start now."""
        return self.queued - self.root.below

    def may_start(self, task: AnyFuture) -> bool:
        """Whether no limiter of a task that is queued, or to be, is full."""
        leaf = self._leaf(task)
        free = not any(limiter.full for limiter in _counted(task, leaf))
        self._forget_idle(leaf)  # it may have been made just now
        return free

    def lend(self, task: AnyFuture, lenders: list[AnyFuture]) -> bool:
        """If it is for one of `lenders`, which wait for it, that `task` may not start: let it run in its place.

        Its own limiters below those that the two share must not be full.
        """
        leaf = self._leaf(task)
        shared = {
            limiter: lender
            for lender in reversed(lenders)  # the nearest counts
            if lender._limit is not None
            for limiter in lender._limit.path
        }
        for limiter in leaf.path:
            if limiter in shared:
                self._lend(task, shared[limiter], limiter)
                return True
            if limiter.full:
                return False
        return False

    def _lend(self, task: AnyFuture, lender: AnyFuture, limiter: Limiter) -> None:
        """From `limiter` on upwards, the slots of `lender` are those of `task`, too."""
        task._lent, task._lender = limiter, lender
        self.borrowers.setdefault(lender, []).append(task)

    def _bequeath(self, lender: AnyFuture) -> Limiter | None:
        """It ends before those that run in its slots: it was interrupted as it waited for them, or its time was up.

        They have its slots from now on. That one which has the most of them lends them to the others. Returns the
        limiter at which they begin.
        """
        path: tuple[Limiter, ...] = lender._limit.path
        end: Limiter | None = lender._lent
        heirs: list[AnyFuture] = []
        row = self.borrowers.pop(lender)
        for task in row:
            # FINISHED if its time is up, and its function goes on.
            if task._state not in (RUNNING, FINISHED):
                task._lent = task._lender = None  # it waits for its limit, like others
            elif end is None or path.index(task._lent) < path.index(end):
                heirs.append(task)
            elif lender._lender is not None:  # those were lent to the lender, too
                self._lend(task, lender._lender, task._lent)
        if not heirs:
            return end
        heir = min(heirs, key=lambda task: (path.index(task._lent), task.task_id))
        first: Limiter = heir._lent
        heir._lent, heir._lender = end, None
        if end is not None and lender._lender is not None:
            self._lend(heir, lender._lender, end)
        for task in heirs:
            if task is not heir:
                self._lend(task, heir, task._lent)
        return first

    def _given_back(self, task: AnyFuture) -> None:
        """It needs no slots of others any more."""
        lender, task._lender = task._lender, None
        row = self.borrowers.get(lender, [])
        if task in row:
            row.remove(task)
            if not row:
                del self.borrowers[lender]

    def started(self, task: AnyFuture, new: bool = False, in_turn: bool = False) -> None:
        """It is RUNNING: claimed out of the queue, or, if it is `new`, before it was queued."""
        leaf: Limiter = task._limit
        if new:
            task._limit = leaf = self._leaf(task)
            self._count(task, leaf)
        elif self._unlist(task):
            leaf.waiting -= 1
            self._dead += 1
        for meter in task._meters:
            meter.active += 1
        self._run_more(leaf, task._lent)
        if not in_turn:
            self._take_part(leaf)

    def finished(self, task: AnyFuture, waited: float, ran: float, failed: bool) -> None:
        """It was RUNNING, and is FINISHED."""
        for meter in task._meters:
            meter.active -= 1
            meter.unfinished -= 1
            meter.completed += 1
            meter.failed += failed
            meter.run_time += ran
            meter.wait_time += waited
            if meter.latency is not None and meter.wait is not None:
                meter.latency.record(ran)
                meter.wait.record(waited)
        self._ended(task)

    def taken_back(self, task: AnyFuture) -> None:
        """It was RUNNING, and is CANCELLED: the engine had not begun with it."""
        for meter in task._meters:
            meter.active -= 1
            meter.unfinished -= 1
        self._ended(task)

    def _ended(self, task: AnyFuture) -> None:
        leaf: Limiter = task._limit
        full: list[Limiter] = []
        lent = task._lent
        if task in self.borrowers:
            # mutant ended-lender-hands-on
            lent = self._bequeath(task)
        if task._lender is not None:
            self._given_back(task)
        limiter: Limiter | None = leaf
        while limiter is not None and limiter is not lent:
            if limiter.running >= limiter.limit:
                full.append(limiter)
            # mutant ended-task-frees-its-limit
            limiter.running -= 1
            limiter = limiter.above
        for limiter in full:
            self._freed(limiter)
        self._settle(leaf, True)
        if not leaf.running and not leaf.waiting:
            self._forget_idle(leaf)

    def cancelled(self, task: AnyFuture) -> None:
        """It was PENDING and had its place."""
        leaf: Limiter = task._limit
        if task._lender is not None:
            self._given_back(task)
        for meter in task._meters:
            meter.unfinished -= 1
        if self._unlist(task):
            leaf.waiting -= 1
            self._dead += 1
            self._settle(leaf)
            self._take_part(leaf)
            self._forget_idle(leaf)
            if self._dead > max(self.queued, _SWEEP):
                self._sweep()

    def recount(self, running: Iterable[AnyFuture], set_aside: Iterable[AnyFuture]) -> None:
        """After an interruption: count again, from what runs, what is `pending`, and what is set aside."""
        self._prune()
        self.root.running = 0
        self.root.forget()
        for limiter in self._limiters:
            limiter.running = 0
            limiter.forget()
        self._limiters.clear()
        for meter in list(self.meters.values()):
            meter.unfinished = meter.active = 0
        self.queued: int = 0
        running = [task for task in running if task._limit is not None]
        self.borrowers = {}
        for task in itertools.chain(running, *self.pending.values()):
            if task._lender is not None:
                self._lend(task, task._lender, task._lent)
        for lender in [task for task in self.borrowers if task not in running]:
            self._bequeath(lender)
        for task in running:
            leaf = task._limit.leaf()
            self._limiters.update(dict.fromkeys(leaf.path[:-1]))
            for limiter in _counted(task, leaf):
                limiter.running += 1
            for meter in task._meters:
                meter.unfinished += 1
                meter.active += 1
        for task in set_aside:
            if task._limit is not None and task._state is PENDING:
                for meter in task._meters:
                    meter.unfinished += 1
        for row in self.pending.values():
            for task in row:
                task._limit = leaf = task._limit.leaf()
                self._limiters.update(dict.fromkeys(leaf.path[:-1]))
                for meter in task._meters:
                    meter.unfinished += 1
                self._enter(task, leaf)

    # -- the same, in steps --------------------------------------------------------------------------

    def _leaf(self, task: AnyFuture) -> Limiter:
        """The limiter that it is to be queued at. If it names another limit for its key, that is the limit now."""
        leaf: Limiter = task._limit.leaf()
        if leaf.changed:
            leaf.changed = False
            self._settle(leaf)
            self._freed(leaf)
        return leaf

    def _count(self, task: AnyFuture, leaf: Limiter) -> None:
        """It has its place."""
        if leaf not in self._limiters:
            self._limiters.update(dict.fromkeys(leaf.path[:-1]))
        for meter in task._meters:
            meter.submitted += 1  # first: if it stays at that, it shows as cancelled
            meter.unfinished += 1

    def _enter(self, task: AnyFuture, leaf: Limiter) -> None:
        """Put it into the heap, and have those above know."""
        rank = self.inner.rank(task)
        heappush(leaf.heap, (rank, next(_numbers), task))
        leaf.waiting += 1
        self.queued += 1
        self._settle(leaf)
        self._offer(leaf, rank)

    def _offer(self, limiter: Limiter, rank: Rank) -> None:
        """`limiter` has a task of this rank: have those above know, as far as nothing is full."""
        while (above := limiter.above) is not None and limiter.running < limiter.limit:
            if limiter.offered is None or rank < limiter.offered:
                limiter.offered = rank
                heappush(above.heap, (rank, next(_numbers), limiter))
                if isinstance(above, Keys):
                    above.enter(limiter)
            elif isinstance(above, Keys):
                above.enter(limiter)
                return
            else:
                return
            limiter = above

    def _freed(self, limiter: Limiter) -> None:
        """It may have been full, and is not."""
        if limiter.running < limiter.limit:
            rank = limiter.best()
            if rank is not None:
                # mutant freed-limiter-is-offered
                self._offer(limiter, rank)

    def _take_part(self, leaf: Limiter) -> None:
        """Its first task is gone: if it is a key's, it may wait for its turn in another priority now."""
        if isinstance(leaf.above, Keys):
            leaf.above.enter(leaf)

    def _settle(self, leaf: Limiter, whole: bool = False) -> None:
        """Say how many tasks may start, as far up as that changes; all the way, if others run now than before."""
        limiter = leaf
        while (above := limiter.above) is not None:
            due = limiter.waiting + limiter.below
            free = limiter.limit - limiter.running
            if free < due:
                due = max(free, 0)
            if due != limiter.due:
                above.below += due - limiter.due
                limiter.due = due
            elif not whole:
                return
            limiter = above

    def _run_more(self, leaf: Limiter, lent: Limiter | None) -> None:
        """One task more of the leaf runs, in slots of its own below `lent`; and `_settle`."""
        counts = True
        limiter = leaf
        while True:
            if limiter is lent:
                counts = False
            if counts:
                limiter.running += 1
            above = limiter.above
            if above is None:
                return
            due = limiter.waiting + limiter.below
            free = limiter.limit - limiter.running
            if free < due:
                due = max(free, 0)
            if due != limiter.due:
                above.below += due - limiter.due
                limiter.due = due
            limiter = above

    def _unlist(self, task: AnyFuture) -> bool:
        """It is queued no more; False if it was not."""
        priority = task.priority
        try:
            row = self.pending[priority]
            del row[task]
        except KeyError:
            return False
        self.queued -= 1
        if self.awaited:
            self.awaited.pop(task, None)
        if not row:
            del self.pending[priority]
        return True

    def _forget_idle(self, leaf: Limiter) -> None:
        """Keep no limiter that has no task: that of a key, or a view's that nobody has any more."""
        for limiter in leaf.path[:-1]:
            if limiter.running or limiter.waiting or limiter.below or limiter.due:
                return
            if isinstance(limiter, Keys) and limiter.limiters:
                return
            if limiter.key is not None and isinstance(limiter.above, Keys):
                limiter.above.limiters.pop(limiter.key, None)
            limiter.forget()
            self._limiters.pop(limiter, None)

    def _prune(self) -> None:
        """Keep no task as queued that is not."""
        pending: dict[int, OrderedDict[AnyFuture, None]] = {}
        for priority, row in self.pending.items():
            living = OrderedDict.fromkeys([task for task in row if task._state is PENDING])
            if living:
                pending[priority] = living
        self.pending = pending
        for task in list(self.awaited):
            if task._state is not PENDING:
                self.awaited.pop(task, None)

    def _sweep(self) -> None:
        self._dead = 0
        self.root.sweep()
        for limiter in self._limiters:
            limiter.sweep()

    # -- as a queue ----------------------------------------------------------------------------------

    @property
    def levels(self) -> dict[int, Level]:
        """The inner one's: a task without a limit is queued there at once."""
        return self.inner.levels

    @property
    def top(self) -> Level:
        """The inner one's, unless a task with a limit may be due."""
        return BOTTOM if self.root.heap else self.inner.top

    def push(self, future: AnyFuture) -> None:
        """Queue a PENDING future."""
        if future._limit is None:
            self.inner.push(future)
            return
        leaf = self._leaf(future)
        future._limit = leaf
        self._count(future, leaf)
        priority = future.priority
        try:
            row = self.pending[priority]
        except KeyError:
            row = self.pending[priority] = OrderedDict()
        row[future] = None
        self._enter(future, leaf)

    def push_all(self, futures: list[AnyFuture]) -> None:
        """Queue PENDING futures without a limit, all of one priority."""
        self.inner.push_all(futures)

    def enlist(self, level: Level) -> None:
        """A level of the inner one's that was not in use has got a task."""
        self.inner.enlist(level)

    def advance(self) -> Level:
        """As `top`."""
        return BOTTOM if self.root.heap else self.inner.advance()

    def take(self, slot: Any) -> AnyFuture | None:
        """The better of the inner one's next task and of those whose limits let them start."""
        while (rank := self.root.best()) is not None:
            other = self.inner.following()
            if other is not None and self.inner.rank(other) < rank:
                task = self.inner.take(slot)
                if task is not None:
                    return task
                continue  # what was in front is under a cancelled token
            leaf = self.root.next_leaf()
            future: AnyFuture = leaf.heap[0][2]
            subscribers = future._own_subscribers()
            if not subscribers.slow:
                subscribers.slow = LIMITED  # so that `free_limit` hears of its end
            slot.task = future
            if future._state is PENDING:
                if not is_token_cancelled(future):
                    future._state = RUNNING
                    heappop(leaf.heap)
                    self.started(future, in_turn=True)
                    self._dead -= 1
                    if isinstance(leaf.above, Keys):
                        leaf.above.taken(leaf)
                    return future
                self.token_cancelled.append(future)
            slot.task = None
            heappop(leaf.heap)
            if self._unlist(future):
                leaf.waiting -= 1
                self._settle(leaf)
                self._take_part(leaf)
                if not leaf.running and not leaf.waiting:
                    self._forget_idle(leaf)
        return self.inner.take(slot)

    def following(self) -> AnyFuture | None:
        """The task that is due next; if none is, one that waits for its limit."""
        rank = self.root.best()
        other = self.inner.following()
        if rank is not None and (other is None or rank < self.inner.rank(other)):
            task: AnyFuture = self.root.next_leaf().heap[0][2]
            return task
        if other is not None:
            return other
        return min(self._heads(), key=self.inner.rank, default=None)

    def victim(self) -> AnyFuture | None:
        """The task that has waited longest in the lowest priority."""
        found = [self.inner.victim()]
        for priority in sorted(self.pending):
            if (task := self._first(priority)) is not None:
                found.append(task)
                break
        return min(
            [task for task in found if task is not None],
            key=lambda task: (task.priority, task.task_id),
            default=None,
        )

    def note_tombstone(self, living: int) -> None:
        """One of the inner one's, perhaps: of its own it is told by `started` and `cancelled`."""
        self.inner.note_tombstone(living)

    def rebuild(self) -> int:
        """Drop what is dead; what is counted here is put right by `recount`."""
        self._prune()
        return self.inner.rebuild() + sum(map(len, self.pending.values()))

    def tasks(self) -> list[AnyFuture]:
        """All queued tasks, in no particular order."""
        own = [
            task for row in list(self.pending.values()) for task in row if task._state is PENDING
        ]
        return self.inner.tasks() + own

    def _first(self, priority: int) -> AnyFuture | None:
        return next((task for task in self.pending[priority] if task._state is PENDING), None)

    def _heads(self) -> list[AnyFuture]:
        heads = [self._first(priority) for priority in list(self.pending)]
        return [task for task in heads if task is not None]

    def heads(self) -> list[AnyFuture]:
        """Tasks among which is the one that has waited longest."""
        return self.inner.heads() + self._heads()

    def rows(self) -> list[Any]:
        """What is queued, for `arranged`."""
        return [self.inner.rows(), [task for row in self.pending.values() for task in row]]

    def arranged(self, rows: list[Any]) -> list[AnyFuture]:
        """In the order in which they would start if none had a limit."""
        theirs, own = rows
        rank = self.inner.rank
        own = sorted([task for task in own if task._state is PENDING], key=rank)
        return list(merge(self.inner.arranged(theirs), own, key=rank))


def _counted(task: AnyFuture, leaf: Limiter) -> tuple[Limiter, ...]:
    """The limiters that it takes a slot of: all on its way up, or up to that which another has lent it."""
    return tuple(itertools.takewhile(lambda limiter: limiter is not task._lent, leaf.path))


_DEEP = 20  # limits within one another


def limited_options(pool: Pool, options: Options, limit: Any, key: Any, key_limit: Any) -> Options:
    """`options`, with what `executor.options(limit=, key=, key_limit=)` was given; see there.

    Raises:
        InvalidConfigError: An impossible value, or options that do not go together.
        TypeError: An option has the wrong type.
    """
    if limit is not UNSET:
        limit = check_int("limit", limit, minimum=1)
    if key_limit is not UNSET:
        key_limit = check_int("key_limit", key_limit, minimum=1)
    if key is not UNSET:
        key = _checked_key(key)
    old = options.limiter
    keyed = isinstance(old, Key)
    if limit is not UNSET and (keyed or key is not UNSET or key_limit is not UNSET):
        raise InvalidConfigError(
            f"limit={show(limit)} is of a view, a key is of its tasks: make the view first, "
            "view = options(limit=...), and then view.options(key=..., key_limit=...)"
        )
    if pool.order == "adaptive":
        raise InvalidConfigError(
            'limits need a pool with order="fifo" or "lifo": with "adaptive" it changes which task comes first'
        )
    if pool.sheds:
        raise InvalidConfigError(
            "limits and on_full=OnFull.SHED cannot go together: a task that waits for its limit says nothing "
            "of how busy the workers are"
        )
    limits = pool.limited()
    above: Limiter = limits.root if old is None else old.above if keyed else old
    if limit is not UNSET:
        if len(above.path) > _DEEP:
            raise InvalidConfigError(
                f"limit={show(limit)} would be within {_DEEP} others; make such a view once, and not for each task"
            )
        meter = limits.meter(options.name, limit)
        return options.limited(Limiter(above, limit, meter))
    if key is UNSET:
        if not keyed:
            raise InvalidConfigError(f"key_limit={show(key_limit)} needs a key")
        key = old.key
    if key_limit is UNSET:
        if not keyed:
            raise InvalidConfigError(f"key={show(key)} needs a key_limit")
        key_limit = old.key_limit
    return options.limited(Key(above, key, key_limit, limits.meter(options.name, None)))


def _checked_key(key: Any) -> str | int | bytes:
    """TypeError unless it is of a type whose hash and comparison call nobody's code."""
    if isinstance(key, str):
        return str.__str__(key)
    if isinstance(key, int):
        return int.__int__(key)
    if isinstance(key, bytes):
        return bytes.__getitem__(key, slice(None))
    raise TypeError(f"key must be a str, an int or bytes, not {show(key)}; str(...) of it may do")


_sync.import_now(__name__)
