"""What a pool is busy with, in words: for `running()`, and for whoever waits or gives up waiting.

One look at the frames of all threads serves all running tasks, and stacks that are alike are
formatted once: the cost is linear in the number of tasks, some 10 microseconds each. A message shows
at most `_errors.MOST` entries and counts the others. Frames belong to threads that go on meanwhile:
what is wanted of them is read at once, and none is kept (see `futurepool._pool.stacks`).
"""

from __future__ import annotations

import linecache
import threading
import traceback
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from futurepool import _sync
from futurepool._errors import shortened
from futurepool._future import PENDING
from futurepool._pool.stacks import Stacks, Step
from futurepool._telemetry.stats import QueuedTask, RunningTask

if TYPE_CHECKING:
    from typing_extensions import Self

_RUNNER = "futurepool._engines.worker_loop"  # the module whose frames call tasks
_TIMED = "futurepool._pool.overdue"  # the module whose frame stands between, with a `run_timeout`
_DEEP = 100  # innermost frames of a stack that are shown

#: A frame in words: file, line, function.
Place = tuple[str, int, str]


def running(pool: Any, stack: bool = False) -> list[RunningTask]:
    """One entry for each task that runs now, oldest first."""
    entries = _running(pool)
    if not stack:
        return [entry for entry, _ in entries]
    with _Frames() as frames:
        return [replace(entry, stack=frames.text(slot)) for entry, slot in entries]


def queued(pool: Any) -> list[QueuedTask]:
    """One entry for each task that waits, in the order in which they are to start."""
    tasks = pool.waiting_tasks()
    now = _sync.clock()
    return [
        QueuedTask(task.task_id, task.name, task.priority, max(0.0, now - task._queued_at))
        for task in tasks
        if task._state is PENDING
    ]


def unfinished(pool: Any, ident: int | None = None) -> list[RunningTask]:
    """The same with stacks, and after it what keeps the other workers, a done-callback each.

    Without what the thread `ident` is doing.
    """
    with _Frames() as frames:
        entries = [*_running(pool), *_calling(pool, frames)]
        return [
            replace(entry, stack=frames.text(slot))
            for entry, slot in entries
            if ident is None or slot.ident != ident
        ]


def waited_for(*pools: Any) -> tuple[str, list[str]]:
    """What these pools have still to do: how much of what, and a line for each thing under way.

    Both are empty if all they have to do is to end their threads.
    """
    tasks, queued, calls = 0, 0, 0
    lines: list[str] = []
    with _Frames() as frames:
        for pool in pools:
            entries, callers = _running(pool, False), _calling(pool, frames)
            tasks += len(entries)
            calls += len(callers)
            queued += pool.queued()
            lines += [f"{entry}{frames.line(slot)}" for entry, slot in entries + callers]
    counts = {"running task": tasks, "queued task": queued, "done-callback": calls}
    parts = [f"{count} {what}{'s' * (count != 1)}" for what, count in counts.items() if count]
    return " and ".join(parts), shortened(lines)


def _running(pool: Any, all_threads: bool = True) -> list[tuple[RunningTask, Any]]:
    """What runs, and the slot it runs under; also what goes on though its task has ended.

    Without `all_threads` not in threads that are written off.
    """
    found = pool.running()
    overdue = (
        [run for run, gone in pool.going_on() if all_threads or not gone] if pool.overdue else []
    )
    now = _sync.clock()
    names: dict[Any, str] = {thread.ident: thread.name for thread in threading.enumerate()}
    late = {run.slot for run in overdue}
    found += [(run.task, run.slot, run.started) for run in overdue]
    entries = [
        (
            RunningTask(
                task_id=task.task_id,
                name=task.name,
                worker=names.get(slot.ident) or pool.engine.worker_name(slot),
                seconds=max(0.0, now - started),
                waited=max(0.0, started - task._queued_at),
                timed_out=slot in late,
            ),
            slot,
        )
        for task, slot, started in found
    ]
    return sorted(entries, key=lambda entry: -entry[0].seconds)


def _calling(pool: Any, frames: _Frames) -> list[tuple[RunningTask, Any]]:
    """The workers that run no task, but code that is not ours."""
    now = _sync.clock()
    entries: list[tuple[RunningTask, Any]] = []
    for slot in list(pool.workers.listed):
        if slot.task is None and slot not in pool.overdue and frames.calls(slot):
            told = slot.notifying
            entry = RunningTask(
                task_id=told.task_id if told is not None else 0,
                name="a done-callback" if told is None else f"a done-callback of {told.name}",
                worker=pool.engine.worker_name(slot),
                seconds=max(0.0, now - slot.started),
                waited=0.0,
            )
            entries.append((entry, slot))
    return entries


class _Frames:
    """Where all threads are now, one look for all of them. To be left: it holds their frames."""

    def __enter__(self) -> Self:
        self._stacks = Stacks.now()
        self._texts: dict[tuple[Place, ...], str] = {}
        return self

    def __exit__(self, *_: object) -> None:
        self._stacks.clear()  # our own frame is among them, and would keep itself alive

    def text(self, slot: Any) -> str | None:
        """Where it is, formatted like a traceback; None if that is no thread of this process."""
        if slot.ident not in self._stacks:
            return None
        places = tuple(_places(self._stacks.of(slot.ident), slot.depth))
        if places not in self._texts:
            for filename in {place[0] for place in places}:
                linecache.checkcache(filename)
            summary = [traceback.FrameSummary(*place, lookup_line=False) for place in places]
            self._texts[places] = "".join(traceback.StackSummary.from_list(summary).format())
        return self._texts[places]

    def line(self, slot: Any) -> str:
        """The line it is at, to be put after what it is."""
        places = _places(self._stacks.of(slot.ident), slot.depth)
        return ", at {}:{} in {}".format(*places[-1]) if places else ""

    def calls(self, slot: Any) -> bool:
        """True if the worker's loop has called anything that is not ours."""
        called = False
        for _, _, _, module in self._stacks.of(slot.ident):
            if module == _RUNNER:
                return called
            called = called or not _is_ours(module)
        return False


def _places(stack: Iterable[Step], depth: int) -> list[Place]:
    """Where a task is, outermost first, from its own first frame on.

    Without the frames of threading and of this package, unless there are no others. `depth` tells
    how many tasks of the thread the wanted one is nested in.
    """
    every: list[Place] = []
    theirs: list[Place] = []
    runners: list[tuple[int, int, str]] = []  # what was called by a frame that runs tasks
    for filename, line, name, module in stack:
        if module == _TIMED:
            continue
        if module == _RUNNER:
            if runners and runners[-1][2] == "_work_in_rows":
                runners[-1] = (*runners[-1][:2], name)  # its loop in C
            else:
                runners.append((len(every), len(theirs), name))
        place = filename, line, name
        every.append(place)
        if not _is_ours(module):
            theirs.append(place)
    if runners:
        runners.reverse()
        # The outermost is the loop of a worker, or what runs a first task in another thread.
        index = depth if runners[0][2] == "work" else depth - 1
        some, others, _ = runners[min(max(index, 0), len(runners) - 1)]
        every, theirs = every[:some], theirs[:others]
    places = (theirs or every)[:_DEEP]
    places.reverse()
    return places


def _is_ours(module: object) -> bool:
    return type(module) is str and (
        module in ("threading", "futurepool") or module.startswith("futurepool.")
    )


_sync.import_now(__name__)
