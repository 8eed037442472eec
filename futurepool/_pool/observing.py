"""Telling observers what happens to tasks. Loaded with the first observer; without one nothing of it runs.

**How the fast paths come by.** They know no observers. An observed pool has another queue, `ObservedQueue`,
which shows them no levels, as that of an aging pool does: then they go through the methods, and those note
what happens. A task that is taken from it gets subscribers that are `slow`, so its worker commits it by
`Pool.commit`, which asks for `feed`, as do `claim`, `cancel_pending`, `_cancel_set_aside`, `_cancel_nested` and
`refused`.

**What a section does.** It appends a tuple to a deque, one C call; the first since the last delivery also
leaves `_call_desk` to be done, and puts the feed among those that are due. That puts the delivery into the
inbox of the desk, if nobody has done so. Its thread waits a little, so that more comes together, and tells
all there is, of all pools. What says that somebody has called (`_due`, `_calls`) is cleared before what it stands
for is looked at: what is noted later calls again. To call twice does no harm, and two threads may.

**Limits.** So many events may wait to be told; what comes on top is left out, and counted, as an observer
that hangs would otherwise hold all futures. After a fork the child forgets what is the parent's to tell.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from futurepool import _logs, _sync
from futurepool._errors.failures import Failure
from futurepool._future import Future
from futurepool._pool.task_queue import TaskQueue
from futurepool._pool.timed_queues import QueueBefore
from futurepool._pool.workers import Kind, WorkerSlot
from futurepool._telemetry.observers import Observer, TaskEvent

AnyFuture = Future[Any]

MOST = 100_000  # events that may wait
_PAUSE = 0.02  # seconds in which more may come together

desk: _logs.Desk = _logs.Desk("futurepool-observers")
_due: dict[Feed, None] = {}  # have something to tell; single C calls only
_calls: list[None] = [None]  # who takes what is in it calls the desk; single C calls only


def _reset() -> None:
    desk.reset()
    _due.clear()
    _calls[:] = [None]


_logs.before_exit.append(desk.drain)
if sys.platform != "win32" and hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset)

# By identifier. When its task is told of, a thread may have ended, and another have its identifier.
_threads: dict[int, threading.Thread] = getattr(threading, "_active", {})

_qualname_of_class: Any = type.__dict__["__qualname__"].__get__


class _Named:
    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name: str = name


_SOMEBODY = _Named("?")


class Feed:
    """What has happened to the tasks of one pool and was not told yet. Notes are made with the mutex held."""

    __slots__ = ("_deferred", "_events", "_lost", "_name", "_offset", "observers")

    def __init__(self, name: str, deferred: deque[Callable[[], object]]) -> None:
        self.observers: tuple[Observer, ...] = ()
        self._name = name
        self._deferred = deferred
        self._offset = _sync.wall() - _sync.clock()
        self.reset()

    def reset(self) -> None:
        """Forget all."""
        self._events: deque[tuple[Any, ...]] = deque()
        self._lost = 0

    def queue(self, inner: TaskQueue) -> TaskQueue:
        """What a pool is to have in its place, while it is observed."""
        return ObservedQueue(inner, self)

    def unwrapped(self, queue: TaskQueue) -> TaskQueue:
        """What it had before."""
        return queue.inner if isinstance(queue, ObservedQueue) else queue

    def _note(self, *event: Any) -> None:
        if len(self._events) < MOST:
            self._events.append(event)
        else:
            self._lost += 1
        if self not in _due:
            self._deferred.append(functools.partial(_call_desk))
            _due[self] = None

    def submitted(self, task: AnyFuture) -> None:
        """It has its place."""
        self._note("submitted", task, task._queued_at, None, None, None, None, None)

    def started(self, task: AnyFuture, slot: Any) -> None:
        """It has been claimed by `slot`."""
        task._own_subscribers().slow = True
        began = _began(task, slot)
        self._note("started", task, began, _worker(slot), began, None, None, None)

    def finished(self, task: AnyFuture, slot: Any, now: float, failure: Failure | None) -> None:
        """It has run in `slot` until now."""
        outcome, error = "success", None
        if failure is not None:
            outcome, error = "error", _qualname_of_class(type(failure.cause))
        self._note("finished", task, now, _worker(slot), _began(task, slot), now, outcome, error)

    def taken_back(self, task: AnyFuture, slot: Any) -> None:
        """It was cancelled in an engine that had not begun with it."""
        now = _sync.clock()
        began = _began(task, slot)
        self._note("finished", task, now, _worker(slot), began, now, "cancelled", None)

    def cancelled(self, task: AnyFuture, outcome: str = "cancelled") -> None:
        """It was, before it started; without a place it is another's to say that it was refused.

        Idempotent: a repair does not know what was noted.
        """
        if task.task_id and not task._noted:
            task._noted = True
            now = _sync.clock()
            self._note("finished", task, now, None, now, None, outcome, None)

    def refused(self, task: AnyFuture, reason: str) -> None:
        """It gets no place."""
        if not task.task_id:
            self._note("refused", task, _sync.clock(), None, None, None, reason, None)

    def settle(self) -> None:
        """Wait until all that was noted is told, but not for long: an observer may be stuck."""
        desk.later(self._tell)
        desk.settle()

    def _tell(self) -> None:
        """Tell what there is. In the thread of the desk."""
        lost, self._lost = self._lost, 0
        # As many as there are now: those of other pools wait, too.
        for _ in range(len(self._events)):
            try:
                event = self._make(self._events.popleft())
            except IndexError:
                break
            for observer in self.observers:
                self._tell_one(observer, event)
        if lost:
            self._say("the observers of the pool %r are too slow: %d events were left out", lost)

    def _tell_one(self, observer: Observer, event: TaskEvent) -> None:
        try:
            tell = getattr(observer, event.kind, None)
            if tell is not None:
                tell(event)
        except BaseException as error:  # the others hear of it, and of what comes after
            self._say("an observer of the pool %r raised at %s", event.kind, error)

    def _make(self, note: tuple[Any, ...]) -> TaskEvent:
        kind, task, when, worker, started, ended, outcome, error = note
        return TaskEvent(
            kind=kind,
            pool=self._name,
            task_id=task.task_id if kind != "refused" else 0,
            name=task.name,
            priority=task.priority,
            time=when + self._offset,
            worker=None if worker is None else str(worker.name),
            waited=None if started is None else max(0.0, started - task._queued_at),
            ran=None if ended is None else max(0.0, ended - started),
            outcome=outcome,
            error=error,
        )

    def _say(self, text: str, what: object, error: BaseException | None = None) -> None:
        _logs.emit(
            logging.WARNING if error is None else logging.ERROR,
            text,
            self._name,
            what,
            exc_info=None if error is None else (type(error), error, error.__traceback__),
            pool=self._name,
        )


def _call_desk() -> None:
    """Have what is due told, unless that is about to be done.

    Left to be done by a section: runs nothing of an observer's.
    """
    try:
        _calls.pop()
        desk.later(_tell_all)
    except IndexError:
        desk.ensure()  # it may have found no thread
    except BaseException:
        _calls.append(None)  # perhaps one too many: that makes one pause more
        raise


def _tell_all() -> None:
    """In the thread of the desk."""
    try:
        _sync.sleep_at(_sync.Parker(), _PAUSE, int)
    finally:
        _calls.append(None)
    try:
        for feed in list(_due):
            _due.pop(feed, None)
            feed._tell()
    finally:
        if _due:
            _call_desk()


def _began(task: AnyFuture, slot: WorkerSlot) -> float:
    """When its worker took it: that may look at the clock first, and find what is submitted just after."""
    return max(slot.started, task._queued_at)


def _worker(slot: WorkerSlot) -> Any:
    """What has a name: a worker's thread, or the one that runs a task on the spot; else the name."""
    if slot.thread is None and slot.kind == Kind.ENGINE:
        return _Named(slot.pool.engine.worker_name(slot))
    return slot.thread or _threads.get(slot.ident or 0) or _SOMEBODY


class ObservedQueue(QueueBefore[TaskQueue]):
    """A queue that notes what goes through it. The mutex is held."""

    __slots__ = ("feed",)

    def __init__(self, inner: TaskQueue, feed: Feed) -> None:
        super().__init__(inner)
        self.feed: Feed = feed

    def push(self, future: AnyFuture) -> None:
        super().push(future)
        self.feed.submitted(future)

    def push_all(self, futures: list[AnyFuture]) -> None:
        super().push_all(futures)
        for future in futures:
            self.feed.submitted(future)

    def take(self, slot: Any) -> AnyFuture | None:
        task = self.inner.take(slot)
        if task is not None:
            self.feed.started(task, slot)
        return task


_sync.import_now(__name__)
