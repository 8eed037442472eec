"""The protocols between threads, under every schedule in reach; and mutants that must be caught.

Each scenario runs the real code with modelled locks, threads and time (see `loom`). Two threads are
explored exhaustively up to two preemptions, as far as the limit goes, and by thousands of PCT
schedules. FUTUREPOOL_SCHEDULES multiplies the limits.
"""

from __future__ import annotations

import concurrent.futures as cf
import contextlib
import os
import sys
from collections.abc import Callable
from typing import Any

import pytest

if hasattr(sys, "_is_gil_enabled") and not sys._is_gil_enabled():
    pytest.skip("the explorer's greenlets need the GIL", allow_module_level=True)
loom = pytest.importorskip("tests.protocols.loom")

import futurepool  # noqa: E402
from futurepool import (  # noqa: E402 - after the check above
    BoundedExecutor,
    CancelToken,
    OnFull,
    PoolClosedError,
    QueueFullError,
    TaskExpiredError,
    TaskTimeoutError,
    _sync,
)
from futurepool._deadlines import Timer  # noqa: E402
from futurepool._engines.threads import ThreadEngine  # noqa: E402
from futurepool._engines.worker_loop import run_one, work  # noqa: E402
from futurepool._executor.groups import GroupToken  # noqa: E402
from futurepool._foreign import aside  # noqa: E402
from futurepool._foreign.aside import Aside  # noqa: E402
from futurepool._future import Future, Subscribers  # noqa: E402
from futurepool._map.batches import Batch  # noqa: E402
from futurepool._options import Options  # noqa: E402
from futurepool._pool import (  # noqa: E402
    completion,
    ending,
    expiry,
    fast,
    helping,
    overdue,
    overload,
    sizing,
    submission,
)
from futurepool._pool.capacity import Capacity  # noqa: E402
from futurepool._pool.fast import Submitting  # noqa: E402
from futurepool._pool.limits import LimitedQueue  # noqa: E402
from futurepool._pool.meters import Meters  # noqa: E402
from futurepool._pool.pool import Pool  # noqa: E402
from futurepool._pool.section import Section  # noqa: E402
from futurepool._pool.task_queue import PriorityQueue  # noqa: E402
from futurepool._pool.timed_queues import SheddingQueue  # noqa: E402
from futurepool._pool.waiters import Waiters  # noqa: E402
from futurepool._pool.workers import Workers  # noqa: E402
from tests.pool import test_cancellation  # noqa: E402

MORE = float(os.environ.get("FUTUREPOOL_SCHEDULES", "1"))
#: For scenarios that depend on steps of others, too.
MORE_CODE: dict[str, list[Any]] = {
    "cancel_against_token": [CancelToken],
    "leaving_a_group_against_submit": [GroupToken],
    "drawing_beside_a_call_that_blocks": [Batch],
    "drawing_against_feeding": [Batch],
    "drawing_with_a_failure": [Batch],
    "drawing_with_a_failure_unread": [Batch],
    "drawing_without_a_place_for_more": [Batch],
    "drawing_against_dropping": [Batch],
    "drawing_against_cancel": [Batch],
    "expiry_against_start": [expiry],
    "shed_against_cancel": [expiry, SheddingQueue],
    "expiry_against_blocked_submit": [expiry],
    "limit_against_commit": [LimitedQueue],
    "abandon_against_commit": [overdue],
    "abandon_against_submit": [overdue],
    "overdue_against_limit": [overdue],
    "lending_against_timeout": [overdue, LimitedQueue],
}
CODE = [
    Aside,
    Section,
    Pool,
    Capacity,
    Meters,
    Workers,
    Waiters,
    Submitting,
    PriorityQueue,
    completion,
    ending,
    fast,
    helping,
    overload,
    sizing,
    submission,
    Future,
    Subscribers,
    ThreadEngine,
    work,
    run_one,
]

Build = Callable[[], Any]


class Gate:
    """A task that waits until it is let go, on modelled locks."""

    def __init__(self) -> None:
        self.lock = _sync.Lock()
        self.lock.acquire()
        self.began = _sync.Lock()
        self.began.acquire()

    def __call__(self) -> int:
        self.began.release()
        self.lock.acquire()
        return 0

    def open(self) -> None:
        self.lock.release()


def held(ex: BoundedExecutor) -> Gate:
    """Keep the only worker busy."""
    gate = Gate()
    ex.submit(gate)
    gate.began.acquire()
    return gate


def submit_against_idle_worker() -> Any:
    """No wake-up is lost, whether the worker sleeps or is about to."""
    ex = BoundedExecutor(1)
    ex.submit(int).result()
    futures: list[Any] = []

    def check() -> None:
        assert [future.result() for future in futures] == [0, 0]
        ex.shutdown()

    return [lambda: futures.append(ex.submit(int)), lambda: futures.append(ex.submit(int))], check


def leaving_a_group_against_submit() -> Any:
    """Whoever comes in the meantime is waited for, or refused."""
    ex = BoundedExecutor(1)
    group = ex.group()
    group.__enter__()
    ran: list[int] = []
    accepted: list[bool] = []
    seen: list[list[int]] = []

    def submit() -> None:
        try:
            group.submit(ran.append, 1)
        except PoolClosedError:
            accepted.append(False)
        else:
            accepted.append(True)

    def leave() -> None:
        group.__exit__(None, None, None)
        seen.append(ran.copy())

    def check() -> None:
        assert seen == [[1] if accepted[0] else []]
        ex.shutdown()

    return [submit, leave], check


def idle_end_against_submit() -> Any:
    """A worker whose time is up ends, or takes what comes just then; nothing is left behind."""
    ex = BoundedExecutor(2, idle_timeout=1.0)
    ex.submit(int).result()
    futures: list[Any] = []

    def submit() -> None:
        pause = _sync.Lock()
        pause.acquire()
        pause.acquire(True, 1.0)  # the very moment
        futures.append(ex.submit(int))

    def check() -> None:
        assert [future.result() for future in futures] == [0]
        ex.shutdown()
        assert ex._pool.workers.threads == 0

    return [submit], check


def two_idle_workers() -> Any:
    """The one that is woken wakes the next if there is work for two."""
    ex = BoundedExecutor(2)
    gates = [Gate(), Gate()]
    futures = [ex.submit(gate) for gate in gates]
    for gate in gates:
        gate.open()
    assert [future.result() for future in futures] == [0, 0]

    def check() -> None:
        # Both must run at the same time, or neither ends.
        one, two = _sync.Lock(), _sync.Lock()
        one.acquire()
        two.acquire()

        def meet(mine: Any, other: Any) -> None:
            other.release()
            mine.acquire()

        for future in (ex.submit(meet, one, two), ex.submit(meet, two, one)):
            future.result()
        ex.shutdown()

    return [lambda: ex.submit(int).result(), lambda: ex.submit(int).result()], check


def blocked_submit_against_completion() -> Any:
    """Whoever blocks gets the place that comes free."""
    ex = BoundedExecutor(1, queue_size=0)
    gate = held(ex)
    futures: list[Any] = []

    def check() -> None:
        assert futures[0].result() == 0
        ex.shutdown()
        assert ex._pool.unfinished == 0

    return [lambda: futures.append(ex.submit(int)), gate.open], check


def blocked_submit_against_cancel() -> Any:
    """The place of a cancelled task goes to who blocks, without a worker."""
    ex = BoundedExecutor(1, queue_size=1)
    gate = held(ex)
    queued = ex.submit(int)
    futures: list[Any] = []

    def check() -> None:
        assert queued.cancelled()
        assert len(futures) == 1
        gate.open()
        assert futures[0].result() == 0
        ex.shutdown()

    return [lambda: futures.append(ex.submit(int)), queued.cancel], check


def blocked_submit_against_shutdown() -> Any:
    """Who blocks is turned away, or got in before."""
    ex = BoundedExecutor(1, queue_size=0)
    gate = held(ex)
    outcome: list[Any] = []

    def submit() -> None:
        try:
            outcome.append(ex.submit(int))
        except PoolClosedError:
            outcome.append(None)

    def check() -> None:
        assert outcome == [None]
        gate.open()
        ex.shutdown()
        assert not ex._pool.waiters.blocked

    return [submit, lambda: ex.shutdown(wait=False)], check


def cancel_against_start() -> Any:
    """The task runs or is cancelled, never both, never neither."""
    ex = BoundedExecutor(1)
    gate = held(ex)
    ran: list[int] = []
    future = ex.submit(ran.append, 1)
    said: list[bool] = []

    def check() -> None:
        ex.shutdown()
        assert future.done()
        assert future.cancelled() == (not ran)
        assert said == [not ran]
        stats = ex.stats()
        assert (stats.completed_tasks, stats.cancelled_tasks) == (1 + len(ran), 1 - len(ran))

    return [lambda: said.append(future.cancel()), gate.open], check


def drop_against_flush() -> Any:
    """Whoever comes by to do what a section leaves does not do it before its end.

    The callbacks of a dropped task run aside: not in its dropper's thread, nor in who comes by.
    """
    ex = BoundedExecutor(1, queue_size=1, on_full=OnFull.DROP_OLDEST)
    gate = held(ex)
    future = ex.submit(int)
    told: list[int] = []
    future.add_done_callback(lambda _: told.append(_sync.get_ident()))
    here: list[int] = []

    def drop() -> None:
        here.append(_sync.get_ident())
        ex.submit(int)

    def come_by() -> None:
        here.append(_sync.get_ident())
        ex._pool.run_deferred()

    def check() -> None:
        gate.open()
        ex.shutdown()
        aside.join()
        assert len(told) == 1
        assert told[0] not in here

    return [drop, come_by], check


def cancel_against_token() -> Any:
    """Who cancels calls the callbacks, once, in its own thread, whoever comes to the task first."""
    ex = BoundedExecutor(1)
    gate = held(ex)
    token = CancelToken()
    future = ex.submit_with_token(token, int)
    told: list[int] = []
    future.add_done_callback(lambda _: told.append(_sync.get_ident()))
    here: list[int] = []

    def cancel() -> None:
        here.append(_sync.get_ident())
        token.cancel()

    def check() -> None:
        ex.shutdown()
        assert aside.join()
        assert len(told) == 1
        if future.cancelled():
            assert told == here

    return [cancel, gate.open], check


def jobs_against_jobs() -> Any:
    """Every job that is handed over is done, though another one blocks."""
    block = Gate()
    done: list[int] = []

    def check() -> None:
        assert sorted(done) == [1, 2]
        block.open()
        assert aside.join()

    def hand_over(number: int) -> Callable[[], None]:
        ended = _sync.Lock()
        ended.acquire()

        def job() -> None:
            done.append(number)
            ended.release()

        def run() -> None:
            if number == 1:
                aside.run(block)
            aside.run(job)
            ended.acquire()

        return run

    return [hand_over(1), hand_over(2)], check


def spare_against_worker() -> Any:
    """A task awaited with a timeout is run once, by a worker or by a spare thread."""
    ex = BoundedExecutor(2)
    gate = held(ex)
    ran: list[int] = []
    futures: list[Any] = []

    def outer() -> None:
        ex.submit(ran.append, 1).result(1000)

    def check() -> None:
        futures[0].result()
        ex.shutdown()
        assert ran == [1]
        assert ex.stats().completed_tasks == 3

    return [lambda: futures.append(ex.submit(outer)), gate.open], check


def spare_alone() -> Any:
    """A task awaited with a timeout by the only worker is run by a spare thread."""
    ex = BoundedExecutor(1)
    futures: list[Any] = []

    def outer() -> int:
        return ex.submit(int, "7").result(1000)

    def check() -> None:
        assert futures[0].result() == 7
        ex.shutdown()

    return [lambda: futures.append(ex.submit(outer)), lambda: ex.submit(int).result()], check


def waits_once(ex: BoundedExecutor, futures: list[Any]) -> Any:
    """In a worker: wait for a task of the same pool by `wait`, which looks for who is free only once."""

    def outer() -> int:
        inner = ex.submit(int, "7")
        cf.wait([inner])
        return inner.result()

    def check() -> None:
        cf.wait(futures)
        assert futures[0].result() == 7
        ex.shutdown()
        assert ex._pool.unfinished == 0

    return outer, check


def waiting_once_against_smaller() -> Any:
    """What a worker waits for is run, though who was to run it finds no place any more."""
    ex = BoundedExecutor(2)
    futures: list[Any] = []
    outer, check = waits_once(ex, futures)
    return [lambda: futures.append(ex.submit(outer)), lambda: ex._pool.resize(1)], check


def waiting_once_against_another() -> Any:
    """The same, as who was free runs something else first, which waits for the one that waits."""
    ex = BoundedExecutor(2)
    futures: list[Any] = []
    outer, check = waits_once(ex, futures)
    futures.append(ex.submit(outer))
    urgent = ex.options(priority=2)
    return [lambda: futures.append(urgent.submit(cf.wait, futures[:1]))], check


def over_the_bound_against_shutdown() -> Any:
    """What goes over the bound is refused, or has ended when the shutdown returns."""
    ex = BoundedExecutor(1, queue_size=0)
    gate = held(ex)
    pool = ex._pool
    late: list[bool] = []
    down: list[bool] = []

    def submit() -> None:
        future = submission.make_future(pool, Options(), lambda: late.append(bool(down)), ())
        future._queued_at = 0.0
        with contextlib.suppress(PoolClosedError):
            overload._admit_over(pool, future)

    def shut_down() -> None:
        gate.open()
        ex.shutdown()
        down.append(True)

    def check() -> None:
        assert True not in late
        assert pool.workers.threads == 0
        assert pool.unfinished == 0

    return [submit, shut_down], check


def result_against_completion() -> Any:
    """Whoever waits, or leaves a callback, is told."""
    ex = BoundedExecutor(1)
    gate = Gate()
    future = ex.submit(gate)
    told: list[Any] = []

    def look() -> None:
        future.add_done_callback(told.append)
        assert future.result() == 0

    def check() -> None:
        ex.shutdown()
        assert told == [future]

    return [look, gate.open], check


def two_results_against_completion() -> Any:
    """Each of several who wait is told."""
    ex = BoundedExecutor(1)
    gate = Gate()
    future = ex.submit(gate)
    seen: list[int] = []

    def check() -> None:
        assert seen == [0, 0]
        ex.shutdown()

    look = lambda: seen.append(future.result())  # noqa: E731
    return [look, look, gate.open], check


def token_against_start() -> Any:
    """A task submitted while its token is cancelled is cancelled, though no worker is free."""
    ex = BoundedExecutor(1)
    gate = held(ex)
    token = CancelToken()
    futures: list[Any] = []

    def check() -> None:
        assert futures[0].cancelled()
        gate.open()
        ex.shutdown()
        assert ex._pool.unfinished == 0

    return [lambda: futures.append(ex.submit_with_token(token, int)), token.cancel], check


def drop_oldest_against_start() -> Any:
    """The victim is one that has not started; nobody is lost."""
    ex = BoundedExecutor(1, queue_size=1, on_full=OnFull.DROP_OLDEST)
    gate = held(ex)
    ran: list[int] = []
    futures = [ex.submit(ran.append, 0)]

    def check() -> None:
        ex.shutdown()
        assert all(future.done() for future in futures)
        assert ran == [n for n, future in enumerate(futures) if not future.cancelled()]
        assert not futures[1].cancelled()
        stats = ex.stats()
        assert stats.rejected_tasks == stats.cancelled_tasks == 2 - len(ran)

    return [lambda: futures.append(ex.submit(ran.append, 1)), gate.open], check


def worker_exit_against_submit() -> Any:
    """What is accepted while the pool shuts down is run, what is refused is not."""
    ex = BoundedExecutor(1)
    ex._pool.wait_reported = True  # or the shutdown would look again after `shutdown_timeout`
    ex.submit(int).result()
    ran: list[int] = []
    accepted: list[bool] = []

    def submit() -> None:
        try:
            ex.submit(ran.append, 1)
        except PoolClosedError:
            accepted.append(False)
        else:
            accepted.append(True)

    def check() -> None:
        assert accepted == [bool(ran)]
        assert ex._pool.workers.threads == 0
        assert ex._pool.unfinished == 0

    return [submit, ex.shutdown], check


def snapshot_against_everything() -> Any:
    """Adds up at every instant."""
    ex = BoundedExecutor(1, queue_size=1)

    def load() -> None:
        for future in [ex.submit(int), ex.options(on_full=OnFull.DROP_NEW).submit(int)]:
            future.cancel()

    def look() -> None:
        stats = ex.stats()
        parts = (
            stats.completed_tasks,
            stats.cancelled_tasks,
            stats.active_workers,
            stats.queued_tasks,
        )
        assert min(parts) >= 0, stats
        assert sum(parts) == stats.submitted_tasks, stats

    def check() -> None:
        look()
        ex.shutdown()
        look()

    return [load, look], check


def help_against_start() -> Any:
    """A task that waits for another runs it, unless another worker does; it runs once."""
    ex = BoundedExecutor(2, queue_size=5)
    gate = held(ex)
    ran: list[int] = []

    def outer() -> None:
        ex.submit(ran.append, 1).result()

    futures: list[Any] = []

    def check() -> None:
        futures[0].result()
        ex.shutdown()
        assert ran == [1]
        assert ex.stats().completed_tasks == 3

    return [lambda: futures.append(ex.submit(outer)), gate.open], check


def bound_against_completion() -> Any:
    """A place is free for whoever has seen the result, and there is never one too many."""
    ex = BoundedExecutor(1, queue_size=0)
    gate = held(ex)
    future = next(slot.task for slot in ex._pool.workers.slots)
    assert future is not None
    taken: list[Any] = []

    def submit() -> None:
        future.result()
        taken.append(ex.try_submit(int))

    def check() -> None:
        assert taken[0].result() == 0
        again = held(ex)
        with pytest.raises(QueueFullError):
            ex.try_submit(int)
        again.open()
        ex.shutdown()

    return [submit, gate.open], check


def smaller_against_submit() -> Any:
    """A pool that becomes smaller keeps what waits, and runs no more at a time than it may."""
    ex = BoundedExecutor(2)
    gates = [Gate(), Gate()]
    futures = [ex.submit(gate) for gate in gates]
    for gate in gates:
        gate.open()
    assert [future.result() for future in futures] == [0, 0]

    def check() -> None:
        more = [Gate(), Gate()]
        later = [ex.submit(gate) for gate in more]
        more[0].began.acquire()
        stats = ex.stats()
        assert (stats.active_workers, stats.queued_tasks) == (1, 1)
        for gate in more:
            gate.open()
        assert [future.result() for future in later] == [0, 0]
        ex.shutdown()
        assert ex._pool.unfinished == 0

    return [lambda: ex._pool.resize(1), lambda: ex.submit(int).result()], check


def smaller_against_completion() -> Any:
    """A worker that runs a task while the pool becomes smaller commits it, and only then leaves."""
    ex = BoundedExecutor(2)
    gates = [Gate(), Gate()]
    futures = [ex.submit(gate) for gate in gates]
    for gate in gates:
        gate.began.acquire()
    futures.append(ex.submit(int))

    def check() -> None:
        assert [future.result() for future in futures] == [0, 0, 0]
        assert ex.submit(int).result() == 0
        ex.shutdown()
        assert ex.stats().completed_tasks == 4
        assert ex._pool.unfinished == 0

    return [lambda: ex._pool.resize(1), gates[0].open, gates[1].open], check


def larger_against_blocked_submit() -> Any:
    """Who waits for a place gets one that a larger pool has, though no task ends."""
    ex = BoundedExecutor(1, queue_size=0)
    gate = held(ex)
    futures: list[Any] = []

    def check() -> None:
        assert futures[0].result() == 0
        gate.open()
        ex.shutdown()
        assert ex._pool.unfinished == 0

    return [lambda: futures.append(ex.submit(int)), lambda: ex._pool.resize(2)], check


def hand_out_against_start() -> Any:
    """A task that is drained from the queue is cancelled, or it runs and is not drained."""
    ex = BoundedExecutor(1)
    gate = held(ex)
    ran: list[int] = []
    future = ex.submit(ran.append, 1)
    taken: list[Any] = []

    def check() -> None:
        ex.shutdown()
        assert future.done()
        assert [taken[0] is not None, bool(ran)] == [future.cancelled(), not future.cancelled()]
        assert ex._pool.unfinished == 0

    return [lambda: taken.append(ex._pool.hand_out()), gate.open], check


def expiry_against_start() -> Any:
    """A task whose time is up at the moment at which it may start has run, or has expired."""
    ex = BoundedExecutor(1, queue_size=1)
    gate = held(ex)
    ran: list[int] = []
    view = ex.options(max_wait=1.0)
    future = view.submit(ran.append, 1)

    def let_go() -> None:
        pause = _sync.Lock()
        pause.acquire()
        pause.acquire(True, 1.0)  # the very moment
        gate.open()

    def check() -> None:
        error = future.exception()
        assert [error is None, type(error) is TaskExpiredError] == [bool(ran), not ran]
        assert ex.wait()
        again = held(ex)
        assert type(view.submit(int).exception()) is TaskExpiredError
        again.open()
        ex.shutdown()
        assert ex._pool.unfinished == 0

    return [let_go], check


def at(seconds: float, act: Callable[[], object]) -> Callable[[], None]:
    """Act at this very moment."""

    def wait() -> None:
        loom.sleep(seconds)
        act()

    return wait


def all_returned(ex: BoundedExecutor) -> None:
    """Wait until no function goes on after its task."""
    while ex._pool.overdue:
        loom.sleep(0.1)


def abandon_against_commit() -> Any:
    """A call that ends as its time is over is the outcome, or has timed out; its worker is there or replaced."""
    ex = BoundedExecutor(1)
    gate = Gate()
    future = ex.options(run_timeout=1.0, abandon=True).submit(gate)
    gate.began.acquire()
    other = ex.submit(int)

    def check() -> None:
        error = future.exception()
        assert other.result() == 0
        all_returned(ex)
        ex.shutdown()
        assert future.exception() is error
        assert type(error) in (TaskTimeoutError, type(None))
        assert error is not None or future.result() == 0
        stats = ex.stats()
        assert (stats.completed_tasks, stats.failed_tasks) == (2, error is not None)
        assert (stats.submitted_tasks, stats.abandoned_workers) == (2, 0)
        workers = ex._pool.workers
        assert ex._pool.unfinished == workers.threads == workers.notifying == 0

    return [at(1.0, gate.open)], check


def abandon_against_submit() -> Any:
    """Who submits as a worker is written off, or before, is served by another one."""
    ex = BoundedExecutor(1)
    gate = Gate()
    future = ex.options(run_timeout=1.0, abandon=True).submit(gate)
    gate.began.acquire()
    others: list[Any] = []

    def check() -> None:
        assert type(future.exception()) is TaskTimeoutError
        assert [other.result() for other in others] == [0]
        ex.shutdown()
        assert ex.stats().abandoned_workers == 1
        gate.open()
        all_returned(ex)

    return [at(1.0, lambda: others.append(ex.submit(int)))], check


def another_of_its_limit(
    ex: BoundedExecutor, view: Any, tasks: Counted, gate: Gate, overdue: Any
) -> Any:
    """As what runs within the limit ends, a task comes: it starts after that, and starts."""
    others: list[Any] = []

    def check() -> None:
        assert type(overdue.exception()) is TaskTimeoutError
        assert [other.result() for other in others] == [1]
        assert tasks.most == 1
        ex.shutdown()
        assert ex._pool.unfinished == ex._pool.workers.held == 0

    return [
        at(2.0, gate.open),
        at(2.0, lambda: others.append(view.submit(tasks.short))),
    ], check


def overdue_against_limit() -> Any:
    """What waits for its limit starts when the function of a task that has timed out returns, and not before."""
    ex = BoundedExecutor(2)
    view = ex.options(limit=1)
    tasks, gate = Counted(), Gate()
    future = view.options(run_timeout=1.0).submit(tasks.long, gate)
    gate.began.acquire()
    assert ex.submit(int).result() == 0  # there is another worker, and it sleeps
    return another_of_its_limit(ex, view, tasks, gate, future)


def lending_against_timeout() -> Any:
    """What has run in the slot of a task whose time is up has that slot until it ends."""
    ex = BoundedExecutor(2)
    view = ex.options(limit=1)
    tasks, gate = Counted(), Gate()

    def outer() -> int:
        return view.submit(tasks.long, gate).result()

    lender = view.options(run_timeout=1.0, abandon=True).submit(outer)
    gate.began.acquire()
    return another_of_its_limit(ex, view, tasks, gate, lender)


def expiry_against_blocked_submit() -> Any:
    """Who waits for a place has it in time, or comes back with a task that has expired."""
    ex = BoundedExecutor(1, queue_size=0)
    gate = held(ex)
    ran: list[int] = []
    futures: list[Any] = []

    def check() -> None:
        futures.append(ex.options(max_wait=1.0).submit(ran.append, 2))
        again = held(ex)
        futures.append(ex.options(max_wait=1.0).submit(ran.append, 3))
        again.open()
        errors = [type(future.exception()) for future in futures]
        assert errors.count(TaskExpiredError) == 3 - len(ran)
        assert errors[2] is TaskExpiredError
        ex.shutdown()
        assert ex._pool.unfinished == 0
        stats = ex.stats()
        assert stats.rejected_tasks == 3 - len(ran)

    submit = lambda: futures.append(ex.options(max_wait=1.0).submit(ran.append, 1))  # noqa: E731
    return [submit, gate.open], check


class Counted:
    """Tasks of which there is to be one at a time."""

    def __init__(self) -> None:
        self.running = 0
        self.most = 0

    def begin(self) -> None:
        self.running += 1
        self.most = max(self.most, self.running)

    def short(self) -> int:
        self.begin()
        with _sync.Lock():  # another thread may come in between
            pass
        self.running -= 1
        return 1

    def long(self, gate: Gate) -> int:
        self.begin()
        gate()
        self.running -= 1
        return 0


def limit_against_commit() -> Any:
    """A task that comes while the only slot of its limit comes free starts after that, and starts."""
    ex = BoundedExecutor(2)
    view = ex.options(limit=1)
    tasks, gate = Counted(), Gate()
    futures = [view.submit(tasks.long, gate)]
    gate.began.acquire()
    assert ex.submit(int).result() == 0  # there is another worker, and it sleeps

    def check() -> None:
        assert [future.result() for future in futures] == [0, 1]
        assert tasks.most == 1
        assert view.submit(tasks.short).result() == 1
        ex.shutdown()
        assert ex._pool.unfinished == ex._pool.workers.held == 0

    return [lambda: futures.append(view.submit(tasks.short)), gate.open], check


def limit_against_two_workers() -> Any:
    """Of two workers that come free for the same limit one gets a task, the other one sleeps."""
    ex = BoundedExecutor(2)
    view = ex.options(limit=1)
    gates = [held(ex), held(ex)]
    tasks = Counted()
    futures = [view.submit(tasks.short) for _ in range(3)]

    def check() -> None:
        assert [future.result() for future in futures] == [1, 1, 1]
        assert tasks.most == 1
        ex.shutdown()
        assert ex._pool.unfinished == ex._pool.workers.held == 0

    return [gates[0].open, gates[1].open], check


def limit_of_idle_workers() -> Any:
    """A submit within its limit wakes a worker, two wake two."""
    ex = BoundedExecutor(2)
    view = ex.options(limit=2)
    gates = [Gate(), Gate()]
    futures = [ex.submit(gate) for gate in gates]
    for gate in gates:
        gate.open()
    assert [future.result() for future in futures] == [0, 0]

    def check() -> None:
        one, two = Gate(), Gate()
        both = [view.submit(one), view.submit(two)]
        one.began.acquire()
        two.began.acquire()
        one.open()
        two.open()
        assert [future.result() for future in both] == [0, 0]
        ex.shutdown()

    return [lambda: view.submit(int).result(), lambda: view.submit(int).result()], check


def limit_against_callback() -> Any:
    """What waits for its limit starts though the worker that made room is inside a done-callback."""
    ex = BoundedExecutor(2)
    view = ex.options(limit=1)
    gate, next_has_run = Gate(), _sync.Lock()
    next_has_run.acquire()
    first = view.submit(gate)
    first.add_done_callback(lambda _: next_has_run.acquire())
    gate.began.acquire()
    assert ex.submit(int).result() == 0
    futures: list[Any] = []

    def check() -> None:
        futures[0].result()
        ex.shutdown()

    return [lambda: futures.append(view.submit(next_has_run.release)), gate.open], check


def limit_against_caller_runs() -> Any:
    """A submitter that would run a task itself waits, as long as the limit says so."""
    ex = BoundedExecutor(1, queue_size=0, on_full=OnFull.CALLER_RUNS)
    view = ex.options(limit=1)
    tasks, gate = Counted(), Gate()
    futures = [view.submit(tasks.long, gate)]
    gate.began.acquire()

    def check() -> None:
        assert [future.result() for future in futures] == [0, 1]
        assert tasks.most == 1
        ex.shutdown()
        assert ex._pool.unfinished == 0

    return [lambda: futures.append(view.submit(tasks.short)), gate.open], check


def limit_against_shutdown() -> Any:
    """What waits for its limit is run before the pool ends, and then all workers leave."""
    ex = BoundedExecutor(2)
    view = ex.options(limit=1)
    gate = Gate()
    futures = [view.submit(gate), view.submit(int), view.submit(int)]
    gate.began.acquire()
    assert ex.submit(int).result() == 0

    def check() -> None:
        assert [future.result() for future in futures] == [0, 0, 0]
        assert ex._pool.unfinished == ex._pool.workers.threads == 0

    return [ex.shutdown, gate.open], check


def shed_against_cancel() -> Any:
    """A task that a worker sets aside has expired, or is cancelled; its place comes free once."""
    ex = BoundedExecutor(1, queue_size=1, on_full=OnFull.SHED)
    gate = held(ex)
    ran: list[int] = []
    future = ex.submit(ran.append, 1)
    assert future._condition  # so it expires after the section
    pause = _sync.Lock()
    pause.acquire()
    pause.acquire(True, 1.0)
    queue: Any = ex._pool.queue
    queue._overloaded, queue._end = True, 1000.0

    def check() -> None:
        assert future.cancelled() or type(future.exception()) is TaskExpiredError
        assert ran == []
        assert ex.wait()
        assert ex.stats().rejections["expired"] == (not future.cancelled())
        again = held(ex)
        late = ex.submit(int)
        assert late._condition
        pause.acquire(True, 1.0)
        again.open()
        assert type(late.exception()) is TaskExpiredError
        ex.shutdown()
        assert ex._pool.unfinished == 0

    return [future.cancel, gate.open], check


def drawing_beside_a_call_that_blocks() -> Any:
    """What stands behind it in its piece is another's, though nobody reads."""
    ex = BoundedExecutor(2)
    blocks, ran = _sync.Lock(), _sync.Lock()
    blocks.acquire()
    ran.acquire()

    def call(number: int) -> int:
        if number == 1:
            blocks.acquire()
        elif number == 2:
            ran.release()
        return number

    results: list[Any] = []

    def release() -> None:
        ran.acquire()
        blocks.release()

    def check() -> None:
        assert list(results[0]) == [0, 1, 2]
        ex.shutdown()
        assert ex._pool.unfinished == 0

    return [lambda: results.append(ex.map(call, range(3), chunksize="auto")), release], check


def drawing_against_feeding() -> Any:
    """Who leaves, or who feeds, sees the other; nobody reads."""
    ex = BoundedExecutor(1)
    ran: list[int] = []

    def check() -> None:
        ex.shutdown()
        assert ran == [0, 1]
        assert ex._pool.unfinished == 0

    return [lambda: ex.map(ran.append, iter(range(2)), chunksize="auto"), ex.stats], check


def drawing_with_a_failure() -> Any:
    """The calls after one that fails are made by the next of its tasks."""
    ex = BoundedExecutor(1)
    found: list[Any] = []
    other: list[Any] = []

    def check() -> None:
        assert [type(each) for each in found] == [type(found[0]), int]
        assert isinstance(found[0], ValueError)
        assert other[0].result() == 0
        ex.shutdown()
        assert ex._pool.unfinished == 0

    return [
        lambda: found.extend(ex.map(int, ["x", "2"], chunksize="auto", return_exceptions=True)),
        lambda: other.append(ex.submit(int)),
    ], check


def drawing_with_a_failure_unread() -> Any:
    """Likewise though nobody reads, who would see to that."""
    ex = BoundedExecutor(1)
    ran: list[int] = []
    results: list[Any] = []

    def call(number: int) -> int:
        ran.append(number)
        return 1 // number

    def check() -> None:
        ex.shutdown()
        assert ran == [0, 1]
        assert isinstance(next(results[0]), ZeroDivisionError)
        assert list(results[0]) == [1]
        assert ex._pool.unfinished == 0

    shape: Any = {"chunksize": "auto", "return_exceptions": True}
    return [lambda: results.append(ex.map(call, range(2), **shape)), ex.stats], check


def drawing_without_a_place_for_more() -> Any:
    """Who ends with nothing left, while a call is fed: it is seen, or another is asked for."""
    ex = BoundedExecutor(2, queue_size=0, on_full=OnFull.RAISE)
    gate = held(ex)
    began = _sync.Lock()
    began.acquire()
    ran: list[int] = []
    refused: list[QueueFullError] = []

    def numbers() -> Any:
        yield 0
        began.acquire()
        yield 1

    def call(number: int) -> int:
        ran.append(number)
        if number == 0:
            began.release()
        return 1 // number

    def feed() -> None:
        try:
            ex.map(call, numbers(), chunksize="auto", return_exceptions=True)
        except QueueFullError as error:  # it has ended, and holds its place yet
            refused.append(error)

    def check() -> None:
        gate.open()
        ex.shutdown()
        assert ran == [0, 1][: 2 - len(refused)]
        assert ex._pool.unfinished == 0

    return [feed], check


def drawing_against_dropping() -> Any:
    """The only one of its tasks is dropped while another one finds no place: the rest has an outcome, too."""
    ex = BoundedExecutor(2, queue_size=1, on_full=OnFull.DROP_OLDEST)
    gates = [held(ex), held(ex)]
    first = _sync.Lock()
    first.acquire()
    results: list[Any] = []

    def numbers() -> Any:
        yield 1
        first.release()
        yield 2

    def drop() -> None:
        first.acquire()
        ex.submit(int)

    def check() -> None:
        for gate in gates:
            gate.open()
        ex.shutdown()  # which is not for who reads to see to
        assert [type(each) for each in results[0]] in ([cf.CancelledError] * 2, [int] * 2)
        assert ex._pool.unfinished == 0

    shape: Any = {"chunksize": "auto", "return_exceptions": True}
    return [lambda: results.append(ex.map(int, numbers(), **shape)), drop], check


def drawing_against_cancel() -> Any:
    """Once its token is cancelled only the call that is being made is, not what its drawer is just taking."""
    ex = BoundedExecutor(1)
    token = CancelToken()
    begun, ran = _sync.Lock(), list[int]()
    begun.acquire()
    seen: list[int] = []

    def call(number: int) -> None:
        ran.append(number)
        if number == 0:
            begun.release()

    def cancel() -> None:
        begun.acquire()
        token.cancel()
        seen.append(len(ran))

    def check() -> None:
        ex.shutdown()
        assert len(ran) <= seen[0] + 1
        assert ran == [*range(len(ran))]
        assert ex._pool.unfinished == 0

    return [lambda: ex.options(token=token).map(call, range(7), chunksize="auto"), cancel], check


SCENARIOS: list[Build] = [
    drawing_against_cancel,
    drawing_without_a_place_for_more,
    drawing_against_dropping,
    shed_against_cancel,
    drawing_with_a_failure_unread,
    drawing_beside_a_call_that_blocks,
    drawing_against_feeding,
    drawing_with_a_failure,
    expiry_against_start,
    expiry_against_blocked_submit,
    abandon_against_commit,
    abandon_against_submit,
    overdue_against_limit,
    lending_against_timeout,
    limit_against_commit,
    limit_against_two_workers,
    limit_of_idle_workers,
    limit_against_callback,
    limit_against_caller_runs,
    limit_against_shutdown,
    submit_against_idle_worker,
    leaving_a_group_against_submit,
    idle_end_against_submit,
    two_idle_workers,
    blocked_submit_against_completion,
    blocked_submit_against_cancel,
    blocked_submit_against_shutdown,
    cancel_against_start,
    drop_against_flush,
    cancel_against_token,
    jobs_against_jobs,
    spare_against_worker,
    spare_alone,
    waiting_once_against_smaller,
    waiting_once_against_another,
    over_the_bound_against_shutdown,
    result_against_completion,
    two_results_against_completion,
    token_against_start,
    drop_oldest_against_start,
    worker_exit_against_submit,
    snapshot_against_everything,
    help_against_start,
    bound_against_completion,
    smaller_against_submit,
    smaller_against_completion,
    larger_against_blocked_submit,
    hand_out_against_start,
]


def scenario_of(build: Build) -> Any:
    """With the code whose instructions are switch points, and a timer of its own."""
    code = CODE + MORE_CODE.get(build.__name__, [])
    return loom.Scenario(
        build, code=code, rebind=[(expiry, "timer", Timer), (overdue, "timer", Timer)]
    )


@pytest.mark.slow
@pytest.mark.thorough
@pytest.mark.newest
@pytest.mark.timeout(60 * MORE + 60)
@pytest.mark.parametrize("build", SCENARIOS, ids=lambda build: build.__name__)
def test_no_schedule_breaks_it(build: Build) -> None:
    """All within two preemptions, up to the limit: the same ones on every version."""
    print(scenario_of(build).explore(loom.DFS(2), limit=int(1000 * MORE), seconds=2.0 * MORE))


@pytest.mark.slow
@pytest.mark.thorough
@pytest.mark.timeout(60 * MORE + 60)
@pytest.mark.parametrize("build", SCENARIOS, ids=lambda build: build.__name__)
def test_no_schedule_by_chance_breaks_it(build: Build) -> None:
    """PCT; other schedules on each version, of another depth on the newest."""
    depth = 5 if sys.version_info >= (3, 14) else 3
    strategy = loom.PCT(depth + 8 * sys.version_info.minor, depth=depth)
    print(scenario_of(build).explore(strategy, limit=int(500 * MORE), seconds=1.0 * MORE))


#: (scenario, place that is marked in the code, what is done to it): each of these must be caught.
MUTANTS: list[tuple[Build, str, Any]] = [
    (drawing_beside_a_call_that_blocks, "what-stands-behind-a-call-is-drawn", loom.DROP),
    (drawing_against_cancel, "stopped-calls-are-not-begun", loom.DROP),
    (drawing_against_feeding, "drawer-leaves-in-its-section", loom.DROP),
    (drawing_beside_a_call_that_blocks, "drawers-are-counted-in-a-section", loom.UNGUARDED),
    (drawing_with_a_failure_unread, "batch-is-passed-on", loom.NEVER),
    (drawing_without_a_place_for_more, "ended-drawer-leaves-in-its-section", loom.DROP),
    (drawing_against_dropping, "last-hope-sees-to-the-rest", loom.DROP),
    (expiry_against_start, "only-pending-expires", loom.ALWAYS),
    (shed_against_cancel, "shed-expires", loom.DROP),
    (expiry_against_start, "first-deadline-is-arranged", loom.DROP),
    (expiry_against_start, "expired-gives-its-place-back", loom.DROP),
    (expiry_against_blocked_submit, "expired-wakes-its-submitter", loom.DROP),
    (abandon_against_commit, "ended-call-does-not-expire", loom.WITHOUT_FIRST),
    (abandon_against_commit, "expired-call-does-not-end", loom.ALWAYS),
    (abandon_against_submit, "abandoned-worker-makes-room", loom.DROP),
    (overdue_against_limit, "overdue-gives-its-limit-back", loom.DROP),
    (lending_against_timeout, "ended-lender-hands-on", loom.DROP),
    (limit_against_two_workers, "full-limiter-is-passed", loom.instead("true = item.best()")),
    (limit_against_commit, "ended-task-frees-its-limit", loom.DROP),
    (limit_against_commit, "freed-limiter-is-offered", loom.DROP),
    (limit_of_idle_workers, "limited-submit-wakes-a-worker", loom.DROP),
    (limit_against_callback, "freed-limit-wakes-a-worker", loom.DROP),
    (limit_against_caller_runs, "claim-asks-the-limit", loom.NEVER),
    (limit_against_shutdown, "no-task-held-sends-home", loom.DROP),
    (smaller_against_submit, "too-many-workers-leave", loom.instead("return False")),
    (leaving_a_group_against_submit, "group-with-members-is-not-left", loom.NEVER),
    (leaving_a_group_against_submit, "left-group-takes-nobody", loom.NEVER),
    (idle_end_against_submit, "idle-end-unlists-the-worker", loom.DROP),
    (larger_against_blocked_submit, "resize-frees-places", loom.DROP),
    (hand_out_against_start, "handed-out-is-cancelled", loom.DROP),
    (submit_against_idle_worker, "submit-wakes-a-worker", loom.DROP),
    (submit_against_idle_worker, "woken-worker-says-so", loom.DROP),
    (submit_against_idle_worker, "parked-worker-is-listed", loom.DROP),
    (two_idle_workers, "worker-wakes-the-next", loom.DROP),
    (two_idle_workers, "woken-worker-says-so", loom.DROP),
    (blocked_submit_against_completion, "blocked-are-noted", loom.DROP),
    (blocked_submit_against_completion, "free-place-is-granted", loom.DROP),
    (blocked_submit_against_completion, "granted-submitter-wakes", loom.DROP),
    (blocked_submit_against_cancel, "cancel-frees-the-place", loom.DROP),
    (blocked_submit_against_cancel, "deferred-is-done", loom.DROP),
    (blocked_submit_against_shutdown, "closed-wakes-the-blocked", loom.DROP),
    (blocked_submit_against_shutdown, "close-sends-home", loom.DROP),
    (cancel_against_start, "only-pending-is-taken", loom.WITHOUT_FIRST),
    (cancel_against_start, "only-pending-is-cancelled", loom.ALWAYS),
    (cancel_against_start, "cancelled-gives-its-place-back", loom.DROP),
    (drop_against_flush, "deferred-waits-for-the-section", loom.DROP),
    (drop_against_flush, "deferred-is-done", loom.DROP),
    (drop_against_flush, "dropped-is-told-aside", loom.instead("self._tell()")),
    (cancel_against_token, "who-cancels-tells", loom.DROP),
    (cancel_against_token, "not-told-by-another", loom.WITHOUT_FIRST),
    (
        cancel_against_token,
        "token-cancelled-is-told-by-who-cancels",
        loom.instead("self.deferred.append(future._tell)"),
    ),
    (cancel_against_token, "only-finished-leaves-its-token", loom.WITHOUT_LAST),
    (jobs_against_jobs, "job-left-behind-is-seen", loom.NEVER),
    (jobs_against_jobs, "busy-runner-is-not-ready", loom.DROP),
    (jobs_against_jobs, "job-gets-a-runner", loom.DROP),
    (spare_against_worker, "only-pending-is-claimed", loom.WITHOUT_FIRST),
    (spare_alone, "help-starts-a-spare", loom.DROP),
    (waiting_once_against_smaller, "who-leaves-is-not-free", loom.DROP),
    (waiting_once_against_another, "who-waits-is-not-free", loom.DROP),
    (
        over_the_bound_against_shutdown,
        "closed-lets-nobody-over-the-bound",
        loom.instead("refused = decide(pool, future)"),
    ),
    (result_against_completion, "subscribed-in-a-section", loom.UNGUARDED),
    (result_against_completion, "outcome-is-told", loom.DROP),
    (two_results_against_completion, "sleeper-is-woken", loom.DROP),
    (two_results_against_completion, "sleeper-is-woken-before-more-work", loom.DROP),
    (token_against_start, "cancelled-token-refuses", loom.NEVER),
    (token_against_start, "token-cancels-its-task", loom.DROP),
    (drop_oldest_against_start, "room-is-taken-by-the-new", loom.DROP),
    (drop_oldest_against_start, "victim-is-cancelled", loom.DROP),
    (worker_exit_against_submit, "all-parked-are-sent-home", loom.DROP),
    (worker_exit_against_submit, "last-worker-says-so", loom.DROP),
    (worker_exit_against_submit, "closed-sends-workers-home", loom.WITHOUT_FIRST),
    (snapshot_against_everything, "stats-are-one-section", loom.UNGUARDED),
    (
        snapshot_against_everything,
        "submitted-is-stored",
        loom.instead("future.task_id = submitted = submitted + 1"),
    ),
    (help_against_start, "only-pending-is-claimed", loom.WITHOUT_FIRST),
    (help_against_start, "claimed-leaves-a-tombstone", loom.instead("self.capacity.take()")),
    (bound_against_completion, "finished-gives-its-place-back", loom.DROP),
    (bound_against_completion, "bound-is-exact", loom.LATER),
    (
        bound_against_completion,
        "submitted-is-stored",
        loom.instead("future.task_id = submitted = submitted + 1"),
    ),
]


@pytest.mark.slow
@pytest.mark.thorough
@pytest.mark.newest
@pytest.mark.skipif(futurepool.form == "plain", reason="they are mutants of the fast form")
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant[0].__name__}-{mutant[1]}")
def test_mutants_are_caught(mutant: tuple[Build, str, Any]) -> None:
    """The model is able to fail."""
    build, place, how = mutant
    scenario = scenario_of(build)
    # Of some only one schedule in hundreds tells, and which are tried is not the same in each process.
    more = [kind(seed) for seed in range(1, 6) for kind in (loom.PCT, loom.RandomWalk)]
    for strategy in (loom.DFS(2), *more):
        try:
            with loom.planted(futurepool, place, how):
                scenario.expect_failure(strategy, limit=400)
        except AssertionError as error:
            last = error
        else:
            return
    raise last


def test_every_mark_has_a_mutant() -> None:
    """And every mutant its mark: a place that is marked and not spoilt by anything proves nothing."""
    places = {place for _, place, _ in [*MUTANTS, *test_cancellation.MUTANTS]}
    assert set(loom.marks(futurepool)) == places
