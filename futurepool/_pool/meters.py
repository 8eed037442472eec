"""What a pool counts, beside the places: tasks by outcome, times, refusals, the latest failure.

`completed` is kept, the running are counted off the slots, queued and cancelled tasks are differences. So a
snapshot adds up by construction. Run time is added up when a worker's row of tasks ends, one right
after the other; a snapshot adds the rows that go on.

With histograms a worker notes each task's times in a list of its slot's own (`fresh`), in the section that
commits the task, and counts some hundred at once, outside of any section: `tally`, and in another section
`add`. A snapshot does the same for each slot that has noted much, and counts the rest in its own copy, so
the histograms have every completed task, at every instant. In C a task is counted at once, by its worker.

Guarded by the pool's mutex. Written here, and by the unrolled forms in `futurepool._pool.fast`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from futurepool import _sync
from futurepool._pool.summaries import Latest

if TYPE_CHECKING:
    from futurepool._pool.histogram import HistogramRecorder, Tally
    from futurepool._pool.workers import WorkerSlot

__all__ = ["BATCH", "MUCH", "Meters", "Noted"]

#: So many values a worker notes, two for each task, before they go into the buckets.
BATCH = 1024

#: So many values a snapshot counts on the worker's behalf: else each of a hundred a second would count them anew.
MUCH = 64

#: What a slot has noted: the list, how much of it, what that adds to run times and to waits, and all waits.
Noted = tuple[list[float], int, "Tally", "Tally", float]

#: Why tasks are refused, see `Stats.rejections`.
REASONS = ("full", "timeout", "closed", "dropped", "expired", "cancelled")


class Meters:
    """The counters of one pool. Times are in seconds."""

    __slots__ = (
        "admission",
        "admission_time",
        "completed",
        "created",
        "failed",
        "last_error",
        "latency",
        "overflow",
        "rejections",
        "run_time",
        "wait",
        "wait_time",
    )

    def __init__(self, histograms: bool) -> None:
        self.created: float = _sync.clock()
        self.completed: int = 0  # ran to an end, failures included
        self.failed: int = 0
        self.rejections: dict[str, int] = dict.fromkeys(REASONS, 0)
        self.overflow: int = 0  # admitted over the bound
        self.run_time: float = 0.0
        self.wait_time: float = 0.0
        self.admission_time: float = 0.0
        self.last_error: Latest | None = None
        self.latency: HistogramRecorder | None = None
        self.wait: HistogramRecorder | None = None
        self.admission: HistogramRecorder | None = None
        if histograms:
            # Late: it takes a millisecond to import.
            from futurepool._pool.histogram import HistogramRecorder

            self.latency = HistogramRecorder()
            self.wait = HistogramRecorder()
            self.admission = HistogramRecorder()

    def count_run(self, slot: WorkerSlot, waited: float, now: float, latest: Latest | None) -> None:
        """A task has run; `latest` if it failed."""
        self.completed += 1
        self.run_time += now - slot.since
        self.wait_time += waited
        if latest is not None:
            self.failed += 1
            if self.last_error is not None:
                self.last_error.dropped = True
            self.last_error = latest
        if self.latency is not None and self.wait is not None:
            self.latency.record(now - slot.started)
            self.wait.record(waited)

    def count_row(self, slot: WorkerSlot, now: float) -> None:
        """A row of tasks has ended, the last of them before `now`."""
        self.run_time += now - slot.since

    def refuse(self, reason: str) -> None:
        """A task gets no place, or is to lose it for another one."""
        self.rejections[reason] += 1

    def count_admission(self, waited: float) -> None:
        """A task has waited so long for its place."""
        if self.admission is not None:
            self.admission.record(waited)
            self.admission_time += waited

    def overflows(self) -> None:
        """A task was admitted over the bound."""
        self.overflow += 1

    def tally(self, slot: WorkerSlot) -> Noted | None:
        """What a slot has noted, for `add`; None if that is nothing. Needs no section.

        As that takes several times as long as all the rest of a worker's turn. Any thread: notes are only
        ever appended, and a list that has been counted is in no slot any more.
        """
        fresh = slot.fresh
        if not fresh or self.latency is None or self.wait is None:
            return None
        # One that was interrupted between the two notes has but the first.
        number = len(fresh) // 2 * 2
        ran, waited = fresh[:number:2], fresh[1:number:2]
        return fresh, number, self.latency.tally(ran), self.wait.tally(waited), sum(waited)

    def add(self, slot: WorkerSlot, noted: Noted) -> None:
        """Count what the slot had noted, unless another thread has done so meanwhile. Section held."""
        fresh, number, ran, waits, waited = noted
        if slot.fresh is fresh and self.latency is not None and self.wait is not None:
            latency, wait = self.latency.copy(), self.wait.copy()
            latency.add(ran)
            wait.add(waits)
            wait_time = self.wait_time + waited
            rest = fresh[number:]
            # These at once: no exception comes between plain assignments.
            self.latency = latency
            self.wait = wait
            self.wait_time = wait_time
            slot.fresh = rest

    def copy(self, slots: Iterable[WorkerSlot]) -> Meters:
        """What is counted now, with what these slots have under way. `fill` does the slow part."""
        copy = Meters.__new__(Meters)
        copy.created, copy.completed, copy.failed = self.created, self.completed, self.failed
        copy.rejections, copy.overflow = self.rejections.copy(), self.overflow
        copy.run_time, copy.wait_time = self.run_time, self.wait_time
        copy.admission_time = self.admission_time
        for slot in slots:
            if slot.task is not None:
                copy.run_time += slot.started - slot.since
        copy.last_error = self.last_error
        copy.latency = None if self.latency is None else self.latency.copy()
        copy.wait = None if self.wait is None else self.wait.copy()
        copy.admission = None if self.admission is None else self.admission.copy()
        return copy

    def fill(self, noted: list[list[float]]) -> None:
        """Count what workers had noted, in a copy, outside of any section."""
        if self.latency is not None and self.wait is not None:
            ran: list[float] = []
            waited: list[float] = []
            for fresh in noted:
                ran += fresh[: len(fresh) // 2 * 2 : 2]
                waited += fresh[1::2]
            self.latency.add(self.latency.tally(ran))
            self.wait.add(self.wait.tally(waited))
            self.wait_time += sum(waited)

    def fields(self, now: float) -> dict[str, Any]:
        """These, as `Stats` has them."""
        completed, last_error = self.completed, self.last_error
        latency, wait, admission = self.latency, self.wait, self.admission
        return {
            "completed_tasks": completed,
            "failed_tasks": self.failed,
            "rejected_tasks": sum(self.rejections.values()),
            "rejections": self.rejections,
            "overflow_tasks": self.overflow,
            "average_latency": self.run_time / completed if completed else 0.0,
            "average_wait": self.wait_time / completed if completed else 0.0,
            "last_error": None if last_error is None else last_error.error(),
            "uptime": now - self.created,
            "latency": None if latency is None else latency.snapshot(self.run_time),
            "wait": None if wait is None else wait.snapshot(self.wait_time),
            "admission": None if admission is None else admission.snapshot(self.admission_time),
        }
