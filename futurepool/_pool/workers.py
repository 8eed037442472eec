"""Where tasks run: the slots of a pool, and which of its workers sleep.

**Wake-ups.** Workers that sleep are in `parked`, each at a parker of its own. Invariant, at the end of
each section:

> if a task is due and a worker sleeps, `wakeup_pending` is set, and then some worker has been taken
> off `parked` and its parker is or will be released.

(Due is what is queued and need not wait for its limit.)

1. A submit adds a task: if a worker sleeps and no wake-up is on its way, it takes one worker off and notes
   the wake-up (`take_parked`), and releases the parker after the section.
2. The woken worker clears the note in its first section (`come_back`), claims a task, and if tasks outnumber
   the workers that are awake, does for the next one what the submit did.
3. A worker goes to `parked` in a section in which it found nothing due.
4. A task that ends, so that another one need not wait for its limit any more, wakes a worker as a submit does;
   but not if its own worker is about to come back.

Nothing else touches any of these, so no wake-up is lost; and a burst of short tasks costs one wake-up, not
one for each task.

**New workers.** A worker is reserved in a section (`reserve`), and started after it by the engine, which
lists its slot in another one: `threads` counts those that are listed and those that are reserved, so two
submits never order the same one.

Guarded by the pool's mutex. Written here, and by the unrolled forms in `futurepool._pool.fast`.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from futurepool._future import RUNNING, Future

__all__ = [
    "BUSY",
    "CHECKING",
    "NOTIFYING",
    "OVERDUE",
    "PARKED",
    "Kind",
    "WorkerSlot",
    "Workers",
]

AnyFuture = Future[Any]

# The status of a slot. The first is not called RUNNING: tasks and pools have states of that name.
BUSY = 0  # a worker runs tasks, or looks for one
PARKED = 1  # it sleeps at its parker, or is about to
NOTIFYING = 2  # it tells subscribers after a task: not free, though it runs nothing
CHECKING = 3  # as BUSY; in its next section it looks whether the pool has become smaller
OVERDUE = 4  # what it runs goes on though its task has ended, see `futurepool._pool.overdue`


class Kind:
    """Whose a slot is. Plain numbers: an enumeration takes 160 us of each start to make."""

    THREAD: Final = 0  # a worker thread's
    ENGINE: Final = 1  # a place in another executor
    CALLER: Final = 2  # no worker's: a thread runs one task on the spot


class WorkerSlot:
    """One place where tasks run.

    Its task and status change under the mutex: in the thread it belongs to, as it takes and commits; by
    others only to mark it (CHECKING), and to take a task off it whose thread is gone, or whose time is over
    (OVERDUE). So does `wanted`: who wants a task run for it adds that, and the spare thread that runs the last one
    takes the row away. `parker` is released by others.
    """

    __slots__ = (
        "beneath",
        "death",
        "depth",
        "enlisted",
        "fresh",
        "ident",
        "kind",
        "leave",
        "notifying",
        "parker",
        "pool",
        "since",
        "started",
        "status",
        "task",
        "thread",
        "waited",
        "waits",
        "wanted",
        "wanted_by",
    )

    def __init__(self, pool: Any, kind: int = Kind.CALLER, depth: int = 0) -> None:
        self.pool: Any = pool
        self.kind: int = kind
        self.thread: Any = None  # of a worker thread's
        self.ident: int | None = None  # of the thread that runs it; 0 for a place elsewhere
        self.task: AnyFuture | None = None  # claimed or running
        self.notifying: AnyFuture | None = None  # finished; its subscribers may not have been told
        self.started: float = 0.0  # when it was claimed
        # When the first of the tasks was claimed that it has run one right after the other: the
        # pool's run time is added up when such a row ends.
        self.since: float = 0.0
        self.status: int = BUSY
        self.enlisted: bool = False  # the reservation it was made for is used up
        self.leave: bool = False  # the worker has left; its thread ends
        # With histograms: run time and waiting time of a worker's latest tasks, in turn, neither of
        # them counted yet.
        self.fresh: list[float] | None = None
        self.depth: int = depth  # how many tasks of its thread this one is nested in
        self.beneath: WorkerSlot | None = None  # the nearest of these of the same pool
        # What its task waits for, without a timeout. Written by its thread, read by who looks for a lender.
        self.waits: AnyFuture | None = None
        self.waited: int = 0  # the latest of its tasks to begin to wait, see `helping.Expected`
        # What a spare thread is to run for it, while this task of it waits: see `ThreadEngine.start_spare`.
        self.wanted: deque[AnyFuture] | None = None
        self.wanted_by: int = 0
        self.death: Any = None  # tells of a thread that ends without that
        self.parker: Any = None

    @property
    def task_id(self) -> int:
        """Of what it runs, or tells subscribers of; 0 if nothing."""
        task = self.task or self.notifying
        return 0 if task is None else task.task_id


class Workers:
    """The slots of one pool."""

    __slots__ = (
        "caller_runs",
        "held",
        "listed",
        "max_workers",
        "notifying",
        "parked",
        "read_ahead",
        "reserved",
        "slots",
        "stoppers",
        "threads",
        "wakeup_pending",
    )

    def __init__(self, max_workers: int) -> None:
        self.max_workers: int = max_workers
        # How many of them are places in an engine for what it is to run next.
        self.read_ahead: int = 0
        self.reset()

    def reset(self) -> None:
        """Have no worker."""
        self.slots: dict[WorkerSlot, None] = {}  # all that may run a task now
        self.listed: dict[WorkerSlot, Any] = {}  # those of workers -> their threads
        self.parked: deque[WorkerSlot] = deque()  # those that sleep; the last one is woken first
        self.wakeup_pending: bool = False
        # Parkers at which tasks of this pool stop it -> how many tasks wait there.
        self.stoppers: dict[Any, int] = {}
        self.reserved: int = 0  # workers ordered, thread not there yet
        # These can be counted again.
        self.threads: int = 0  # listed + reserved
        self.notifying: int = 0  # slots in callbacks, and those that are OVERDUE
        self.held: int = 0  # queued tasks that wait for their limit
        # Unfinished tasks that no worker is needed for: those of slots that are no worker's, and the held ones.
        self.caller_runs: int = 0

    @property
    def size(self) -> int:
        """What its user calls `max_workers`: how many tasks are to run at a time."""
        return self.max_workers - self.read_ahead

    @property
    def room(self) -> int:
        """How many workers there may be: one more for each that waits in `stop`."""
        return self.max_workers + len(self.stoppers)

    @property
    def active(self) -> int:
        """How many run a task, or have claimed one."""
        return sum([slot.task is not None for slot in self.slots])

    def missing(self, unfinished: int) -> int:
        """How many more workers would have something to do, with so many unfinished tasks.

        Needed are: a thread for each unfinished task, queued or running; plus one for each worker that
        has finished its task but is still inside done-callbacks, or whose task has run for too long
        (`notifying`: it cannot take a task); less the tasks that run in their submitter's own thread, or wait for their
        limit (`caller_runs`).
        """
        return unfinished + self.notifying - self.caller_runs - self.threads

    def take_parked(self) -> Any:
        """The parker of a worker that is to be woken, of those that sleep; the wake-up is on its way."""
        self.wakeup_pending = True
        return self.parked.pop().parker

    def reserve(self) -> bool:
        """One worker more, if there may be; it is to be started after the section."""
        if self.threads >= self.room:
            return False
        self.reserved += 1
        self.threads += 1
        return True

    def use_reservation(self, slot: WorkerSlot) -> bool:
        """For a slot that is about to be listed; False if none is reserved (any more)."""
        if self.reserved <= 0:
            return False
        slot.enlisted = True
        self.reserved -= 1
        return True

    def give_up_reservation(self) -> None:
        """The worker is not wanted any more; after `use_reservation`."""
        self.threads -= 1

    def add(self, slot: WorkerSlot, thread: Any) -> None:
        """List a worker; after `use_reservation`."""
        self.slots[slot] = None
        self.listed[slot] = thread

    def forget(self, slot: WorkerSlot) -> None:
        """A worker was not started: as if it had not been listed."""
        self.slots.pop(slot, None)
        self.listed.pop(slot, None)
        if not slot.enlisted and self.reserved > 0:
            self.reserved -= 1
        self.threads = len(self.listed) + self.reserved

    def leave(self, slot: WorkerSlot) -> None:
        """A worker goes home, or is gone."""
        self.slots.pop(slot, None)
        if slot in self.listed:
            del self.listed[slot]
            self.threads -= 1
        slot.leave = True

    def add_caller(self, slot: WorkerSlot) -> None:
        """A thread runs a task on the spot."""
        self.slots[slot] = None
        self.caller_runs += 1

    def remove_caller(self, slot: WorkerSlot) -> None:
        """It has run it."""
        if slot in self.slots:
            del self.slots[slot]
            self.caller_runs -= 1

    def hold(self, number: int) -> bool:
        """So many queued tasks wait for their limit; True if there were some, and are none any more."""
        ended = self.held > 0 and not number
        self.caller_runs += number - self.held
        self.held = number
        return ended

    def begin_notifying(self, slot: WorkerSlot) -> None:
        """Until its next section the worker tells subscribers, which may take long."""
        slot.status = NOTIFYING
        self.notifying += 1

    def park(self, slot: WorkerSlot) -> None:
        """The worker has found nothing queued, and is about to sleep."""
        slot.status = PARKED
        self.parked.append(slot)

    def come_back(self, slot: WorkerSlot) -> bool:
        """A worker that slept, or told subscribers, is there again; True if there are too many.

        Unrolled in `fast.next_task`, for one that was woken.
        """
        if slot.status == NOTIFYING:
            self.notifying -= 1
        elif slot.status == PARKED:
            self.wakeup_pending = False
            if slot in self.parked:  # not woken by a submit, but by a repair or a shutdown
                self.parked.remove(slot)
        elif slot.status == OVERDUE:
            if slot.leave:  # written off
                slot.status = BUSY
                return slot in self.listed  # whoever wrote it off was interrupted
            self.notifying -= 1
        slot.status = BUSY
        # mutant too-many-workers-leave
        return self.threads > self.max_workers and self.threads > self.room and slot in self.listed

    def begin_overdue(self, slot: WorkerSlot) -> None:
        """Its task has ended, and its function has not; instead of `begin_notifying`, or after it. Idempotent."""
        if slot.status not in (NOTIFYING, OVERDUE):
            self.notifying += 1
        slot.status = OVERDUE

    def write_off(self, slot: WorkerSlot) -> None:
        """An OVERDUE worker counts no more; its thread ends when it comes back."""
        counted = slot in self.slots  # not if an interruption came, and all was counted again
        self.leave(slot)
        self.notifying -= counted

    def parkers(self) -> list[Any]:
        """Those of all that sleep, or are about to."""
        return [slot.parker for slot in self.listed if slot.status == PARKED]

    def resize(self, size: int, read_ahead: int = 0) -> None:
        """Have another number of workers; those that run a task look whether they are to leave."""
        self.max_workers = size + read_ahead
        self.read_ahead = read_ahead
        if self.threads > self.max_workers:
            for slot in self.listed:
                if slot.status == BUSY:
                    slot.status = CHECKING

    def rebuild(self) -> int:
        """Count again after an interruption; the number of running tasks.

        Who was about to start a worker finds that none is reserved. A worker that is about to note that it
        has started finds itself gone, and leaves. Which wake-ups were lost is not known: all that sleep
        are to be woken.
        """
        for slot in list(self.listed):
            if slot.ident is None:
                del self.listed[slot]
                self.slots.pop(slot, None)
        running = 0
        for slot in list(self.slots):
            if slot.fresh and len(slot.fresh) % 2:
                slot.fresh.pop()  # interrupted before it noted the second
            if slot.task is not None and slot.task._state is RUNNING:
                running += 1
            elif slot.kind == Kind.CALLER:
                del self.slots[slot]
        self.notifying = sum([slot.status in (NOTIFYING, OVERDUE) for slot in self.slots])
        self.caller_runs = sum([slot.kind == Kind.CALLER for slot in self.slots])
        self.held = 0
        self.reserved = 0
        self.threads = len(self.listed)
        self.wakeup_pending = False
        self.parked.clear()
        return running
