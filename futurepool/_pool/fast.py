"""The hot paths, unrolled: `submit`, `submit_many`, and a worker's `next_task`.

They do what the methods of `Pool` do that they name, on the same parts, with a call less for each step: by
this a task costs 1.5 us instead of 2.6. Each paragraph says whose twin it is, and why it may leave early. What
they change in the parts, nobody else changes from outside: these are the only such places.

`FUTUREPOOL_FORM` chooses the form when the package is imported: "fast", the default; "plain", which leaves
the methods of `Pool` as they are; or "compiled", the default where the extension of `futurepool._pool.compiled`
was built. Tests run over all of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent import futures as cf
from concurrent.futures.thread import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, ParamSpec, TypeVar
from weakref import ref

from futurepool import _sync
from futurepool._errors import InvalidConfigError
from futurepool._errors.checks import check_callable
from futurepool._foreign import patched
from futurepool._future import CANCELLED, FINISHED, LIMITED, PENDING, RUNNING, Future, new_future
from futurepool._options import LONG, TIMED, OnFull, Options
from futurepool._pool import overload, submission
from futurepool._pool.compiled import load
from futurepool._pool.meters import BATCH
from futurepool._pool.pool import Pool
from futurepool._pool.section import unpark
from futurepool._pool.workers import BUSY, PARKED, WorkerSlot

__all__ = [
    "SUBMITS",
    "Submitting",
    "at_priority",
    "for_so_long",
    "form",
    "put_compiled",
    "row_of",
    "without_waiting",
]

AnyFuture = Future[Any]
P = ParamSpec("P")
T = TypeVar("T")

_ADMITTED = 256  # tasks in one section at most

_LONG_WAY: Any = (None,)  # true, as an empty context is not
# Copies the context of a submitter; or says that it has to take the long way.
_capture: Callable[[], Any] = copy_context


def _reroute(long: bool) -> None:
    global _capture
    _capture = (lambda: _LONG_WAY) if long else copy_context


patched.listeners.append(_reroute)
_reroute(patched.look())


def next_task(pool: Pool, slot: WorkerSlot) -> AnyFuture | None:  # noqa: C901 - unrolled
    """Commit and take in one section; see `Pool.next_task` for what is returned.

    1. Commit the task that has run, if there is one and nobody listens who takes long.
    2. Tell whoever sleeps in `result()` before looking for more.
    3. A worker that comes back from sleep or from callbacks notes it, and may have to leave.
    4. Claim the next task. From one task to the next there is nobody to wake.
    5. Wake another worker, or go to sleep, or leave.
    """
    task = slot.task
    now = _sync.clock()
    mutex = pool.mutex
    mutex.acquire()
    if task is not None:
        # 1. twin of Pool.commit. Read inside of the section, in which the state becomes final: who has
        # subscribed in an earlier one is seen here, who comes later sees the final state.
        subscribers = task._subscribers
        if subscribers is not None and subscribers.slow:
            if subscribers.slow is not LIMITED:
                # Callbacks may take long, and a condition is taken before the mutex: the whole of it.
                mutex.release()
                pool.complete(slot, task._result, None)
                return None
            pool.free_limit(slot, task, now, False)
        task._state = FINISHED
        slot.task = None
        meters = pool.meters
        meters.completed += 1
        # mutant finished-gives-its-place-back
        pool.capacity.max_id += 1
        waited = slot.started - task._queued_at
        if waited < 0.0:  # noqa: PLR1730 - without a call; it was queued while this worker came
            waited = 0.0
        # twin of Meters.count_run. Times wait in the slot for `count_times`; run time for the row's end.
        fresh = slot.fresh
        if fresh is None:
            meters.wait_time += waited
        else:
            fresh.append(now - slot.started)
            fresh.append(waited)
        if pool.waiters.anyone:
            pool.place_freed()
        if (subscribers is not None and subscribers.parkers) or (
            fresh is not None and len(fresh) >= BATCH
        ):
            # 2. Leaves before it looks for more: somebody sleeps in result(), or there is much to count.
            meters.run_time += now - slot.since
            mutex.release()
            # mutant sleeper-is-woken-before-more-work
            task._announce()
            if pool.deferred:
                pool.run_deferred()
            if fresh is not None and len(fresh) >= BATCH:
                pool.count_times(slot)
            return None
    else:
        subscribers = None
        slot.since = now  # a new row of tasks
    # 3. A worker that has slept or told subscribers; or one that is to look whether it is one too many.
    status = slot.status
    if status:
        workers = pool.workers
        if (
            status == PARKED
            and workers.threads <= workers.max_workers
            and slot not in workers.parked
            and not pool.overdue
        ):
            # twin of Workers.come_back, for one that was woken by a submit, and is not one too many.
            # mutant woken-worker-says-so
            workers.wakeup_pending = False
            slot.status = BUSY
        else:
            pool.come_back(slot)
        if slot.leave:
            # There are too many workers: this one is gone, with its task told of.
            if task is not None:
                pool.meters.run_time += now - slot.since
            mutex.release()
            if subscribers is not None and task is not None:
                task._announce()
            pool.run_deferred()
            return None
    slot.started = now
    # 4. twin of PriorityQueue.take. The task is noted in the slot before its state is looked at: a `cancel`
    # in a finalizer or signal handler, right here, finds it noted, or comes before and is seen.
    following: AnyFuture | None
    level = pool.queue.top
    if level or (level := pool.queue.advance()):
        following = level[0]
        slot.task = following
        hopes = following._subscribers
        # mutant only-pending-is-taken
        if following._state is PENDING and (hopes is None or hopes.token is None):
            following._state = RUNNING
            level.popleft()
            if task is not None:
                # Leaves at once: this worker was awake, so it owes nobody a wake-up, and its row goes on.
                mutex.release()
                if subscribers is not None:
                    if subscribers.shared:
                        # twin of Mailbox.post. All but the first find the loop told.
                        subscribers.box.append(task)
                        if not subscribers.raised:
                            subscribers.wake()
                    else:
                        task._announce()
                if pool.deferred:
                    pool.run_deferred()
                return following
        else:
            # A tombstone, or a task under a token, which may be cancelled: not in line.
            slot.task = None
            following = pool.take(slot)
    elif pool.queue.levels and pool.limits is None and not pool.queue.token_cancelled:
        # twin of Pool.take and PriorityQueue.take, where nothing is queued: `advance` has just looked.
        following = None
    else:
        # With aging, always: that queue has no levels.
        following = pool.take(slot)
    # 5. twin of Pool._wake_next and Pool._park_or_leave.
    parker = None
    if following is not None:
        if status == PARKED:
            workers = pool.workers
            if workers.parked and (
                pool.unfinished + workers.notifying - workers.caller_runs
                > workers.threads - len(workers.parked)
            ):
                workers.wakeup_pending = True
                # mutant worker-wakes-the-next
                parker = workers.parked.pop().parker
    else:
        if task is not None:
            pool.meters.run_time += now - slot.since
        # mutant closed-sends-workers-home
        if (pool.state and not pool.workers.held) or slot not in pool.workers.listed:
            pool.leave(slot)
        else:
            slot.status = PARKED
            # mutant parked-worker-is-listed
            pool.workers.parked.append(slot)
    mutex.release()
    if subscribers is not None and task is not None:
        task._announce()
    if parker is not None:
        unpark(parker)
    if pool.deferred:
        pool.run_deferred()
    return following


def submit_many(
    pool: Pool, options: Options, fn: Any, calls: Sequence[tuple[Any, ...]]
) -> list[AnyFuture]:
    """Admit one task for each tuple of arguments, many to a section while there is room."""
    if options.special is LONG or pool.mutex._is_owned() or patched.look():
        return [pool.submit(options, fn, args, {}) for args in calls]
    futures: list[AnyFuture] = []
    batch: list[AnyFuture] = []
    priority = options.priority
    capacity = pool.capacity
    max_wait = options.max_wait
    try:
        while len(futures) < len(calls):
            # A guess; what finds no room goes the usual way.
            start = len(futures)
            room = max(1, min(capacity.max_id - capacity.submitted, _ADMITTED))
            now = _sync.clock()
            batch = []
            for args in calls[start : start + room]:
                # twin of submission.make_future.
                future = new_future()
                future._pool = pool
                future._fn = fn
                future._args = args
                future._kwargs = None
                context = copy_context()
                future._context = pool.adopt(context) if context else None
                future._state = PENDING
                future._subscribers = None
                future.task_id = 0
                future.priority = priority
                future._queued_at = now
                batch.append(future)
            with pool.mutex:
                if not pool.state:
                    admitted = batch[: max(0, capacity.max_id - capacity.submitted)]
                    _admit_all(pool, admitted)
                    if max_wait is not None:
                        row = pool.expiry.row_of(options)
                        for future in admitted:
                            row.append(ref(future))
                            if len(row) > row.look_at:
                                pool.expiry.watch(row, future)
            pool.start_reserved()
            pool.run_deferred()
            futures += [
                future if future.task_id else overload.without_place(pool, options, future)
                for future in batch
            ]
        return futures
    except BaseException:
        pool.repair(*futures, *batch)
        raise


def _admit_all(pool: Pool, futures: list[AnyFuture]) -> None:
    """Twin of Pool.admit, for many of one priority, all of which find a place. Section held."""
    capacity, workers = pool.capacity, pool.workers
    for future in futures:
        future.task_id = capacity.submitted = capacity.submitted + 1
    pool.queue.push_all(futures)
    # The first may wake a worker, each may ask for one more.
    for _ in range(min(len(futures), 1 + workers.max_workers - workers.threads)):
        pool.signal_work()


class Submitting(cf.Executor):
    """The hot path of submitters."""

    # Names that no subclass of a user's has for something else.
    _futurepool: Pool
    _futurepool_options: Options
    #: Whether what `submit` returns is a future of ours even if somebody has taken the call out of our hands.
    _futurepool_ours: bool = False

    def submit(  # noqa: C901 - unrolled
        self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]:
        """Submit `fn(*args, **kwargs)`; it runs in a copy of the caller's context.

        With no place in the queue, `on_full` says what happens: the default waits for one.

        Returns:
            The task's future.

        Raises:
            TypeError: `fn` is not callable.
            PoolClosedError: The executor was shut down, also while waiting.
            QueueFullError: No place, and `on_full` is `RAISE`.
            SubmitTimeoutError: No place within the view's `timeout`.

        Thread safety: any thread, finalizers and signal handlers included. A worker of this
        executor and a thread with a running event loop never block here.
        Cost: one lock acquisition, plus waiting.
        """
        # twin of submission.submit.
        if not callable(fn):
            check_callable("fn", fn)  # type: ignore[unreachable]
        pool = self._futurepool
        options = self._futurepool_options
        # twin of submission.make_future.
        future = new_future()
        future._pool = pool
        future._fn = fn
        future._args = args
        future._kwargs = kwargs or None
        context = _capture()
        if context:
            if context is _LONG_WAY or ThreadPoolExecutor.submit is not patched.original:
                return _plain_submit(self, fn, *args, **kwargs)
            future._context = pool.adopt(context)
        else:
            future._context = None
        future._state = PENDING
        future._subscribers = options.subscribers
        future.priority = priority = options.priority
        future.task_id = 0
        mutex = pool.mutex
        special = options.special
        if (special is not None and special is not TIMED) or mutex._is_owned():
            # A name or a token; or this is a finalizer or signal handler inside of a section.
            return submission.submit_future(pool, options, future)
        capacity = pool.capacity
        try:
            future._queued_at = _sync.clock()
            # Not `with`: that costs twice as much, and what an exception leaves is released below.
            mutex.acquire()
            submitted = capacity.submitted
            if submitted < capacity.max_id and not pool.state:
                # twin of Pool.admit and Capacity.take.
                # mutant submitted-is-stored
                future.task_id = capacity.submitted = submitted + 1
                # twin of PriorityQueue.push. A new level, and any task with aging, is pushed there.
                try:
                    level = pool.queue.levels[priority]
                except KeyError:
                    pool.queue.push(future)
                else:
                    level.append(future)
                    if level.next_lower is None:
                        pool.queue.enlist(level)
                # twin of Pool.limit_wait.
                if special is not None:
                    row = options.row
                    if row is None:
                        row = pool.expiry.row_of(options)
                    row.append(ref(future))
                    if len(row) > row.look_at:
                        pool.expiry.watch(row, future)
                # twin of Pool.signal_work. What is to be done after the section, this thread does at
                # once: no other one is to come by for it. (`stoppers` are there only once the pool is
                # closed, and then nothing gets here.)
                workers = pool.workers
                if workers.parked and not workers.wakeup_pending:
                    workers.wakeup_pending = True
                    parker = workers.parked.pop().parker
                    mutex.release()
                    # mutant submit-wakes-a-worker
                    unpark(parker)
                elif (
                    workers.threads < workers.max_workers
                    and capacity.submitted
                    + capacity.limit
                    - capacity.max_id
                    + workers.notifying
                    - workers.caller_runs
                    > workers.threads
                ):
                    workers.reserved += 1
                    workers.threads += 1
                    mutex.release()
                    pool.engine.start_worker()
                else:
                    mutex.release()
                if pool.deferred:
                    pool.run_deferred()
                return future
            mutex.release()
        except BaseException:
            # twin of Section.repair. By C calls only: the stack may be at its end, with no room for a call
            # of a function in Python.
            try:
                mutex.acquire()
                pool.deferred.append(pool._rebuild)
                if future._state is PENDING:
                    pool.deferred.append(future._announce)
                    future._state = CANCELLED
                while mutex._is_owned():
                    mutex.release()
            finally:  # interrupted again, perhaps, as it had waited for the mutex
                pool.repair(future)
            raise
        return overload.without_place(pool, options, future)


def _plain_submit(self: Submitting, fn: Any, /, *args: Any, **kwargs: Any) -> AnyFuture:
    options = self._futurepool_options
    subscribers = options.subscribers
    ours = self._futurepool_ours or subscribers is not None
    return self._futurepool.submit(options, fn, args, kwargs, subscribers, ours)


_chosen = os.environ.get("FUTUREPOOL_FORM")
# Not beside one of these: it changes how classes hold their numbers, which Python reads more slowly then.
_compiled: Any = None if _chosen in ("fast", "plain") else load(next_task)

#: The form of the hot paths that was chosen when the package was imported.
form: str = _chosen or ("fast" if _compiled is None else "compiled")

#: The row of tasks of a worker's slot: what runs them instead of the loop in Python. None for that.
row_of: Callable[..., Any] | None = None

#: For each form what takes the place of what.
_FORMS: dict[str, dict[tuple[type, str], Callable[..., Any]]] = {
    "fast": {(Pool, "next_task"): next_task, (Pool, "submit_many"): submit_many},
    "plain": {(Submitting, "submit"): _plain_submit},
}
if _compiled is not None:
    _FORMS["compiled"] = _FORMS["fast"]
if form not in _FORMS:
    raise InvalidConfigError(
        f"FUTUREPOOL_FORM must be one of {', '.join(sorted(_FORMS))}, not {form!r}"
    )
for (_owner, _name), _function in _FORMS[form].items():
    for _part in ("__name__", "__qualname__", "__doc__", "__annotations__"):
        setattr(_function, _part, getattr(getattr(_owner, _name), _part))
    setattr(_owner, _name, _function)
if form == "compiled" and _compiled is not None:
    # Over those in Python, which get what is not the plain case.
    for _owner, _name in ((Pool, "next_task"), (Pool, "submit_many"), (Future, "result")):
        setattr(_owner, _name, _compiled.twin_of(_name, vars(_owner)[_name]))
    row_of = _compiled.row_of
    _sync.RLock = _compiled.Mutex
    _state = _compiled.state_descriptor()
    if _state is not None:
        setattr(Future, "_state", _state)  # noqa: B010 - a slot, to whoever checks types

#: `submit` as the public classes have it: whoever finds another has found a subclass's, or a patch.
SUBMITS: list[Any] = [Submitting.submit]


def put_compiled(kind: type[Submitting]) -> None:
    """Put `submit` in C, if that is the form, over a public class's own; the other goes on behind it."""
    if form == "compiled":
        twin = _compiled.twin_of("submit", vars(kind)["submit"])
        kind.submit = twin  # type: ignore[method-assign]
        SUBMITS.append(twin)


_KEPT = 1024  # so many priorities and timeouts are kept for their next task


class AtPriority(Submitting):
    """What `submit_with_priority` and others submit by: the hot path, with options that are made once.

    The options it was made from keep it. It holds the pool, not the executor, which may die.
    """

    _futurepool_ours = True

    def __init__(self, pool: Pool, options: Options) -> None:
        self._futurepool = pool
        self._futurepool_options = options

    submit = Submitting.submit


put_compiled(AtPriority)


def at_priority(pool: Pool, options: Options, priority: int) -> AtPriority:
    """What submits with `options` to `pool`, but for their priority. From any thread: single C calls."""
    return _keep(pool, options, priority, options.changed(priority))


def without_waiting(pool: Pool, options: Options) -> AtPriority:
    """What submits with `options` to `pool`, or raises at once; kept for None."""
    return _keep(pool, options, None, options.changed(on_full=OnFull.RAISE))


def for_so_long(pool: Pool, options: Options, timeout: float | None) -> AtPriority:
    """What submits with `options` to `pool`, but for their timeout; kept for a row of it."""
    changed = options.changed(timeout=timeout, on_full=OnFull.BLOCK)
    return _keep(pool, options, (timeout,), changed)


def _keep(pool: Pool, options: Options, key: Any, changed: Options) -> AtPriority:
    kept = options.at_priority
    if kept is None or len(kept) >= _KEPT:
        options.at_priority = kept = {}
    kept[key] = one = AtPriority(pool, changed)
    return one
