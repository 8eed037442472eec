"""The life of a task: run, finished, helped along, cancelled.

See `futurepool._pool.core` for the states, the sections, and why an interruption does no harm. Past 400
lines because a worker's turn is written in line.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable
from concurrent import futures as cf
from typing import Any

from futurepool import _logs, _sync
from futurepool._cancellation import CancelToken
from futurepool._errors import is_a
from futurepool._failures import Failure, failure_of
from futurepool._foreign.aside import run as run_aside
from futurepool._future import (
    CANCELLED,
    FINISHED,
    NOTIFIED,
    PENDING,
    RUNNING,
    Future,
    traceback_slot,
)
from futurepool._options import UNSET
from futurepool._pool.core import (
    BUSY,
    CHECKING,
    NOTIFYING,
    PARKED,
    UNBOUNDED,
    PoolState,
    RunState,
    WorkerSlot,
)
from futurepool._pool.histogram import BATCH
from futurepool._pool.section import NOBODY, repairing, unpark
from futurepool._pool.summaries import Latest
from futurepool._pool.task_queue import is_token_cancelled

__all__: list[str] = []  # internal

AnyFuture = Future[Any]

_NOTHING = object()
_DEEP = 50  # frames; a task that runs on top of more may miss the rest of the stack


class PoolLife(PoolState):
    """What can happen to a task that is there."""

    __slots__ = ()

    # What is written here, declared again for type checkers.
    notifying: int
    max_id: int
    limit: int
    max_workers: int
    queue_size: int | None
    broken: str | None
    completed: int
    failed: int
    caller_runs: int
    last_error: Latest | None
    run_time: float
    state: RunState
    submitted: int
    wait_time: float
    wakeup_pending: bool

    def next_task(self, slot: WorkerSlot) -> AnyFuture | None:
        """Commit what `slot` has run, if anything, and claim its next task: a worker's turn.

        The result is in the task already; one that failed was committed by `complete`.
        Returns None when there is nothing to run now: then the worker has left (`slot.leave`),
        is to sleep at its parker (`slot.status`), or has told watchers and should come again.
        The hot path of workers, one section for each task; long and flat on purpose.
        """
        task = slot.task
        now = _sync.clock()
        mutex = self.mutex
        mutex.acquire()
        subscribers = None
        if task is not None:
            subscribers = task._subscribers
            if subscribers is not None and subscribers.slow:
                mutex.release()
                self.complete(slot, task._result, None)
                return None
            # _commit, in line.
            task._state = FINISHED
            slot.task = None
            self.completed += 1
            self.max_id += 1
            started = slot.started
            waited = started - task._queued_at
            if waited < 0.0:  # noqa: PLR1730 - without a call; it was queued while this worker came
                waited = 0.0
            fresh = slot.fresh
            if fresh is None:
                self.wait_time += waited
            else:
                fresh.append(now - started)
                fresh.append(waited)
            if self.blocked or self.idle_waiters:
                self._freed()
            if (subscribers is not None and subscribers.parkers) or (
                fresh is not None and len(fresh) >= BATCH
            ):
                # Before it looks for more: somebody sleeps in result(), or there is much to count.
                self.run_time += now - slot.since
                mutex.release()
                task._announce()
                if self.deferred:
                    self.run_deferred()
                if fresh is not None and len(fresh) >= BATCH:
                    self.count_fresh(slot)
                return None
        status = slot.status
        if status:
            self._come_back(slot)
            if slot.leave:  # the pool has become smaller
                if task is not None:
                    self.run_time += now - slot.since
                mutex.release()
                if subscribers is not None and task is not None:
                    task._announce()
                self.run_deferred()
                return None
        slot.started = now
        if task is None:
            slot.since = now
        # TaskQueue.take, in line.
        queue = self.queue
        level = queue.top
        following = None
        if level or (level := queue.advance()):
            following = level[0]
            slot.task = following
            hopes = following._subscribers
            if following._state is PENDING and (hopes is None or hopes.token is None):
                following._state = RUNNING
                level.popleft()
                if task is not None:
                    # From one task to the next: nobody to wake.
                    mutex.release()
                    if subscribers is not None:
                        if subscribers.shared:
                            subscribers.post(task)
                        else:
                            task._announce()
                    if self.deferred:
                        self.run_deferred()
                    return following
            else:
                slot.task = None
                following = self._take(slot)
        else:
            following = self._take(slot)
        parker = None
        if following is not None:
            if (
                status == PARKED
                and self.parked
                and self.unfinished + self.notifying - self.caller_runs
                > self.threads - len(self.parked)
            ):
                self.wakeup_pending = True
                parker = self.parked.pop().parker
        else:
            if task is not None:
                self.run_time += now - slot.since
            if self.state or slot not in self.workers:
                self._leave(slot)
            else:
                slot.status = PARKED
                self.parked.append(slot)
        mutex.release()
        if subscribers is not None and task is not None:
            task._announce()
        if parker is not None:
            unpark(parker)
        if self.deferred:
            self.run_deferred()
        return following

    def _take(self, slot: WorkerSlot) -> AnyFuture | None:
        """The order's next task, those whose token is cancelled already set aside. Mutex held."""
        task = self.queue.take(slot)
        if self.queue.token_cancelled:
            self._cancel_set_aside()
        return task

    def _come_back(self, slot: WorkerSlot) -> None:
        """A worker that slept, or was in callbacks, takes its next turn. Mutex held."""
        if slot.status == NOTIFYING:
            self.notifying -= 1
        elif slot.status == PARKED:
            self.wakeup_pending = False
            if slot in self.parked:  # not woken by a submit, but by repair or a shutdown
                self.parked.remove(slot)
        slot.status = BUSY
        if self.threads > self.max_workers and self.threads > self.room and slot in self.workers:
            self._leave(slot)
            self.signal_work()  # what it was woken for is another's now

    def complete(
        self, slot: WorkerSlot, result: Any, error: BaseException | None, wrap: bool = True
    ) -> None:
        """Commit what `slot` has run, and tell everyone; the whole of it, for any slot."""
        self._complete(slot, result, error, wrap)
        self.run_deferred()

    def _complete(
        self,
        slot: WorkerSlot,
        result: Any,
        error: BaseException | None,
        wrap: bool = True,
        aside: bool = False,
    ) -> None:
        """`complete`, as something left to be done, which must not run what is deferred. Idempotent.

        `aside`: by whoever comes by, so what is users' to hear is told in another thread.
        """
        task = slot.task or slot.notifying
        if task is None:  # we are in the child of a fork, or this was done before
            return
        failure = latest = None
        if error is not None and task._state is RUNNING:
            failure = self._wrap(task, error) if wrap else Failure(error, task.task_id, task.name)
            latest = Latest(failure)
        while task._state is RUNNING:
            subscribers = task._subscribers
            condition = None if subscribers is None else subscribers.condition
            if condition is None:
                with self.mutex:
                    subscribers = task._subscribers
                    # Two threads may do what a section has left to be done.
                    if task._state is RUNNING and (
                        subscribers is None or subscribers.condition is None
                    ):
                        self._commit(slot, task, result, failure, latest)
            else:
                # The order of locks is condition, then mutex: see futurepool._future.
                with condition:
                    with self.mutex:
                        if task._state is RUNNING:
                            self._commit(slot, task, result, failure, latest)
                    task._tell_waiters()
        if aside:
            task._announce()
            run_aside(functools.partial(self.tell_outcome, task))
            if latest is not None and failure is not None:
                run_aside(functools.partial(latest.complete, failure))
        else:
            # First whoever has got this task's place: its submit may have been called under a lock
            # that the callbacks take.
            if self.deferred:
                self.run_deferred()
            self.tell_outcome(task)
            if latest is not None and failure is not None:
                latest.complete(failure)
        slot.notifying = None

    def complete_aside(self, slot: WorkerSlot, error: BaseException) -> None:
        """What a section may leave to be done for a task whose thread is gone."""
        self._complete(slot, None, error, aside=True)

    def tell_outcome(self, task: AnyFuture) -> None:
        """Tell everyone of a task that has run. Idempotent."""
        task._tell()
        if task._failure is not None:
            unheard = vars(task).pop("_failure", None)  # by one of them
            if unheard is not None:
                self._handle(unheard)

    def _commit(
        self,
        slot: WorkerSlot,
        task: AnyFuture,
        result: Any,
        failure: Failure | None,
        latest: Latest | None,
    ) -> None:
        """RUNNING -> FINISHED. Mutex held. The outcome is stored before the state that shows it."""
        now = _sync.clock()
        if failure is None:
            task._result = result
        else:
            if failure.seen is None:
                failure.seen = task._hushed
                if self.error_handler is not None:
                    failure.seen = True
                    task._failure = failure
            task._result = failure
        slot.notifying = task
        task._state = FINISHED
        slot.task = None
        if self.feed is not None:
            self.feed.finished(task, slot, now, failure)
        self.completed += 1
        self.max_id += 1
        waited = max(0.0, slot.started - task._queued_at)
        self.run_time += now - slot.since
        self.wait_time += waited
        if failure is not None:
            self.failed += 1
            if self.last_error is not None:
                self.last_error.dropped = True
            self.last_error = latest
        if slot.thread is None:
            if self.slots.pop(slot, _NOTHING) is None:
                self.caller_runs -= 1
        else:
            # Until its next turn the worker tells watchers, which may take long.
            slot.status = NOTIFYING
            self.notifying += 1
        self._freed()
        if self.latency is not None and self.wait is not None:
            self.latency.record(now - slot.started)
            self.wait.record(waited)

    def _wrap(self, task: AnyFuture, error: BaseException) -> Failure:
        """What a task raised, as its future keeps it."""
        failure = failure_of(error, task.task_id, task.name)
        # The first frame is ours: it would keep alive what this worker does later. (Without a GIL
        # another worker may be raising the same object. CPython 3.13 takes no lock for its
        # traceback: it survives that as long as nobody cuts it, and only then.)
        if not _sync.free_threaded:
            traceback_slot.__set__(error, failure.frames)
        # A running task that obeys its token is none to hear of.
        if self.error_handler is not None or not is_a(error, cf.CancelledError):
            failure.watch(self.name)
        return failure

    def _handle(self, failure: Failure) -> None:
        if self.error_handler is not None:
            try:
                self.error_handler(failure.task_error())
            except BaseException as error:
                _logs.desk.later(
                    functools.partial(
                        _logs.emit,
                        logging.ERROR,
                        "error_handler of the pool %r raised for task %d (%s)",
                        *(self.name, failure.task_id, failure.task_name),
                        exc_info=(type(error), error, traceback_slot.__get__(error)),
                        pool=self.name,
                        task_id=failure.task_id,
                        task_name=failure.task_name,
                    )
                )

    @repairing
    def claim(self, slot: WorkerSlot, future: AnyFuture) -> bool:
        """Claim this very task, queued or not yet, for a slot that is no worker's."""
        with self.mutex:
            if future._state is PENDING and is_token_cancelled(future):
                self._cancel_locked(future, NOBODY)
            if future._state is not PENDING or (self.state and not future.task_id):
                return False
            self.slots[slot] = None
            self.caller_runs += 1
            slot.started = slot.since = _sync.clock()
            slot.task = future
            feed = self.feed
            if future.task_id:
                self.queue.tombstones += 1
                self.queue.sweep(self.unfinished)
            else:
                future.task_id = self.submitted = self.submitted + 1
                if feed is not None:
                    feed.submitted(future)
            future._state = RUNNING
            if feed is not None:
                feed.started(future, slot)
        if feed is not None:
            self.run_deferred()
        return True

    @repairing
    def help(self, future: AnyFuture, timeout: float | None, again: bool = False, /) -> bool:
        """In a worker of this pool, which waits for `future`: see that it is run.

        A worker that is free takes it. If none is, a spare thread does: this worker runs nothing while
        it waits, so no more tasks run than there are workers, until a timeout lets it go on. The only
        worker of a pool runs it right here, in its own stack, where nobody can tell; beside others
        somebody might, as a lock that this thread may enter again, or its local data, would be shared.
        True if it was run here.
        """
        slot = self.own_slot()
        if slot is None or self.mutex._is_owned():
            return False
        if slot.thread is self.engine:
            # A dispatcher: it is the one to bring it.
            return future._state in (PENDING, RUNNING) and bool(
                self.engine.run_aside(future, timeout)
            )
        if (timeout is not None and timeout <= 0) or self._is_seen_to(future, again):
            return False
        if timeout is None and self.max_workers == 1 and _nobody_can_tell():
            return self.engine.run_here(future)
        self.engine.start_spare(future, None)
        return False

    @repairing
    def want(self, future: AnyFuture, in_loop: bool = False, /) -> None:
        """The same for a worker that may hold conditions of futures, or runs an event loop.

        It may go on to wait for many, so one spare thread runs them one after the other.
        """
        slot = self.own_slot()
        if (
            slot is not None
            and slot.thread is not self.engine
            and not (in_loop and not in_event_loop())
            and not self.mutex._is_owned()
            and not self._is_seen_to(future, False)
        ):
            self.engine.start_spare(future, slot)

    def _is_seen_to(self, future: AnyFuture, again: bool) -> bool:
        """Whether `future` is not queued, or there are workers free for all that is."""
        with self.mutex:
            if future._state is not PENDING or not future.task_id:
                return True
            free = sum([r.task is None and r.status != NOTIFYING for r in self.workers])
            running = sum([r.task is not None for r in self.slots])
            wanted = self.unfinished - running - free - self.reserved
            if wanted > 0 and not again:
                for _ in range(min(wanted, self.max_workers - self.threads)):
                    self.reserve()
                    wanted -= 1
            if self.parked and not self.wakeup_pending:
                self.signal_work()
        self.run_deferred()
        return wanted <= 0

    @repairing
    def cancel(self, future: AnyFuture, aside: bool = False, /) -> bool:
        """See `Future.cancel`. `aside` after a deadline: users' code runs in another thread."""
        if self.mutex._is_owned():
            return self._cancel_nested(future)
        if future._state is PENDING:
            with self.mutex:
                if future._state is PENDING:
                    self._cancel_locked(future, _sync.get_ident())
            self.run_deferred()
        if self.unnotified:
            self._tell_cancelled(future, aside)
        if future._state is RUNNING:
            token = self.token_of(future)
            if aside:
                token.cancel_aside("its future was cancelled")
            else:
                token.cancel("its future was cancelled")
        return future._state in (CANCELLED, NOTIFIED)

    def _cancel_locked(self, future: AnyFuture, by: int | None, grant: bool = True) -> None:
        """PENDING -> CANCELLED. Mutex held.

        `by`: the thread that is to call the callbacks and let go of the arguments when the section
        has ended (`_tell_cancelled`); NOBODY: whoever cancels its token, who is on the way; None: a
        thread aside.
        """
        self.deferred.append(future._announce)
        if by is None:
            self.deferred.append(future._tell_aside)
        else:
            self.unnotified[future] = by
        future._state = CANCELLED
        if self.feed is not None:
            self.feed.cancelled(future)
        if future.task_id:
            self.max_id += 1
            self.queue.tombstones += 1
            self.queue.sweep(self.unfinished)
            if grant:
                self._freed()
        else:
            for waiter in self.blocked:
                if waiter.future is future:  # of a line it is a tombstone now
                    self.deferred.append(waiter.open)

    def _tell_cancelled(self, future: AnyFuture, aside: bool = False) -> None:
        """Tell of a cancelled task, if this thread is the one to do it."""
        try:
            by = self.unnotified[future]
        except KeyError:
            return
        if by == NOBODY or by == _sync.get_ident():
            if aside:
                future._tell_aside()
            else:
                future._tell()
            self.unnotified.pop(future, None)

    def _cancel_nested(self, future: AnyFuture) -> bool:
        """A cancel from a finalizer or signal handler inside one of our sections.

        `TaskQueue.take` notes a task in a slot before it looks at its state; so a task noted there
        counts as started, and one that is not will be seen as cancelled.
        """
        if future._state is PENDING and not any(r.task is future for r in list(self.slots)):
            future._state = CANCELLED
            if self.feed is not None:
                self.feed.cancelled(future)
            self.deferred.append(self._rebuild)
            self.deferred.append(future._announce)
            self.deferred.append(future._tell_aside)  # this thread may be about to take locks
        return future._state in (CANCELLED, NOTIFIED)

    def report_blocked(self, future: AnyFuture, seconds: float) -> str:
        """What a submitter waits for in which nothing has moved for so many seconds."""
        from futurepool._pool import report

        what, lines = report.waited_for(self)
        head = f"the submit of {future.name} waits for a place, and no task has ended for"
        return "\n".join([f"{head} {seconds:.0f} s; there are {what}:", *lines])

    @repairing
    def token_of(self, future: AnyFuture) -> CancelToken:
        """The running task's own token: a child of the one it was submitted under, if any."""
        token = future._own_token
        if token is None:
            fresh = CancelToken(parent=future._token)
            with self.mutex:
                token = future._own_token
                if token is None:
                    future._own_token = token = fresh
        return token

    @repairing
    def cancel_queued(self) -> Callable[[float], None]:
        """Cancel all that has not started. Callbacks are called aside.

        Returns:
            What waits for them, at most so many seconds.
        """
        told: _sync.SimpleQueue[None] = _sync.SimpleQueue()
        silent: list[AnyFuture] = []
        heard: list[AnyFuture] = []
        with self.mutex:
            for future in self.queue.tasks():
                subscribers = future._subscribers
                (silent if subscribers is None or not subscribers.callbacks else heard).append(
                    future
                )
                self._cancel_locked(future, _sync.get_ident(), grant=False)
            self._freed()
        self.run_deferred()
        for future in heard:
            run_aside(functools.partial(_tell_and_note, future, told))
            self.unnotified.pop(future, None)
        if silent:
            run_aside(functools.partial(_tell_and_note_all, silent, told))
            for future in silent:
                self.unnotified.pop(future, None)
        return functools.partial(_wait_told, told, len(heard) + bool(silent))

    @repairing
    def fail_queued(self, make_error: Callable[[], BaseException]) -> None:
        """Fail all that has not started: there is no worker, and there will be none."""
        with self.mutex:
            futures = self.queue.tasks()
        for future in futures:
            slot = WorkerSlot(self)
            if self.claim(slot, future):
                self.complete(slot, None, make_error(), wrap=False)
        with self.mutex:
            self.queue.rebuild()  # no worker comes to drop what was queued

    @repairing
    def resize(self, max_workers: int | None = None, queue_size: int | None = UNSET) -> None:
        """Have another number of workers, or of tasks that may wait; exact from here on.

        What is queued stays, over the bound if need be; what runs goes on, and surplus workers leave
        after it. Submitters that have waited for a place get those that there are now.
        """
        if self.mutex._is_owned():
            self.deferred.append(functools.partial(self.resize, max_workers, queue_size))
            return
        with self.mutex:
            unfinished = self.unfinished
            if max_workers is not None:
                self.max_workers = max_workers
            if queue_size is not UNSET:
                self.queue_size = queue_size
            bound = self.queue_size
            self.limit = UNBOUNDED if bound is None else self.max_workers + bound
            self.max_id = self.submitted + self.limit - unfinished
            surplus = self.threads - self.max_workers
            if surplus > 0:
                for slot in self.workers:
                    if slot.status == BUSY:
                        slot.status = CHECKING
                self._wake_all()
            self._freed()
            for _ in range(self.unfinished + self.notifying - self.caller_runs - self.threads):
                self.reserve()
        self.run_deferred()

    @repairing
    def hand_out(
        self,
    ) -> tuple[AnyFuture, Callable[..., Any], tuple[Any, ...], dict[str, Any]] | None:
        """Cancel the queued task that is due next, and give it away; None if none is queued."""
        with self.mutex:
            future = self.queue.following()
            if future is None:
                return None
            taken = future, future._fn, future._args, future._kwargs or {}
            self._cancel_locked(future, _sync.get_ident())
        self.run_deferred()
        self._tell_cancelled(future)
        return taken

    @repairing
    def observe(self, observer: Any) -> None:
        """Tell `observer` of each task from here on, of those that run or wait, too."""
        from futurepool._pool.observing import Feed

        if self.mutex._is_owned():
            self.deferred.append(functools.partial(self.observe, observer))
            return
        with self.mutex:
            if self.feed is None:
                feed = Feed(self.name, self.deferred)
                for slot in self.slots:
                    if slot.task is not None:
                        slot.task._own_subscribers().slow = True  # see futurepool._pool.observing
                self.queue = feed.queue(self.queue)
                self.feed = feed
            self.feed.observers = (*self.feed.observers, observer)

    @repairing
    def unobserve(self, observer: Any) -> bool:
        """Tell it what there is, and no more; False if it is told nothing."""
        self.settle_observers()
        with self.mutex:
            feed = self.feed
            if feed is None or not any(each is observer for each in feed.observers):
                return False
            feed.observers = tuple([each for each in feed.observers if each is not observer])
            if not feed.observers:
                self.queue = feed.unwrapped(self.queue)
                self.feed = None
        return True

    def settle_observers(self) -> None:
        """Wait until they have been told all there is, but not for long. Not in their own thread."""
        feed = self.feed
        if feed is not None:
            self.run_deferred()
            feed.settle()

    def breaks(self, why: str) -> None:
        """No worker can run any more: what is queued fails, and so does each submit from now on."""
        self.broken = why
        self.close()
        self.fail_queued(self.closed_error)

    @repairing
    def close(self, state: RunState = RunState.DRAINING) -> None:
        """Refuse new tasks, turn blocked submitters away, let idle workers leave."""
        if self.mutex._is_owned():
            self.state = max(self.state, state)
            self.deferred.append(self._send_home)
            return
        with self.mutex:
            self.state = max(self.state, state)
        self._send_home()
        self.run_deferred()

    def _send_home(self) -> None:
        with self.mutex:
            while self.blocked:
                self.deferred.append(self.blocked[0].open)
                self.blocked.popleft()
            self._wake_all()
            self._ended()

    def _start_worker(self) -> None:
        """A worker that some section asked for; without any worker, fail what waits for one."""
        try:
            self.engine.start_worker()
        except Exception as raised:
            if not self.workers:
                # Aside, as its callbacks are users' code.
                run_aside(functools.partial(self.fail_queued, functools.partial(_same, raised)))


def _same(error: BaseException) -> BaseException:
    return error


def _tell_and_note(future: AnyFuture, told: _sync.SimpleQueue[None]) -> None:
    future._tell()
    told.put(None)


def _tell_and_note_all(futures: list[AnyFuture], told: _sync.SimpleQueue[None]) -> None:
    while futures:
        futures[-1]._tell()
        futures.pop()
    told.put(None)


def _wait_told(told: _sync.SimpleQueue[None], number: int, timeout: float) -> None:
    end = _sync.clock() + timeout
    try:
        for _ in range(number):
            _sync.get_at(told, max(0.0, end - _sync.clock()), int)
    except _sync.Empty:
        pass


_looked: tuple[int, Any, Any] = (0, None, None)  # how many modules there were, and two of them


def in_event_loop() -> bool:
    """Whether an event loop is running in this thread: asyncio's, or trio's."""
    global _looked
    looked = _looked
    # Free-threaded CPython 3.13 may take a lock to look a module up. A daemon thread that waits for
    # it as the interpreter ends keeps it, and the interpreter waits for it in vain. To import
    # one of these adds many modules, so it is enough to count them.
    if looked[0] != len(sys.modules) or not _sync.free_threaded:
        count = len(sys.modules)
        _looked = looked = (
            count,
            sys.modules.get("asyncio.events"),
            sys.modules.get("trio.lowlevel"),
        )
    _, asyncio, trio = looked
    if asyncio is not None and asyncio._get_running_loop() is not None:
        return True
    return trio is not None and getattr(trio, "in_trio_run", _no)()


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
    """Whether a task may run on top of this thread's stack: see `PoolLife.help`.

    Not while it holds a condition that whoever finishes another future waits for; nor where the task
    would see an exception of somebody else's as the one being handled, or a running loop; nor so
    deep that the rest of the stack may not do.
    """
    return not (
        _sync.here.conditions or sys.exc_info()[0] is not None or in_event_loop() or is_deep(_DEEP)
    )
