"""Limits of views and of keys: `options(limit=)`, `options(key=, key_limit=)`, `stats().views`."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import random
import sys
import threading
from concurrent import futures as cf
from concurrent.futures.thread import BrokenThreadPool
from typing import Any

import pytest

from futurepool import (
    BoundedExecutor,
    CancelToken,
    ForcedShutdownError,
    InvalidConfigError,
    Observer,
    OnFull,
    QueueFullError,
    TaskTimeoutError,
)
from futurepool._pool.limits import Limiter
from tests.helpers import WAYS, Way, hold


class Busy:
    """Counts how many of its calls go on at a time, and waits for a gate in each."""

    def __init__(self, gate: threading.Event | None = None) -> None:
        self.gate = gate
        self.mutex = threading.Lock()
        self.running = self.most = self.calls = 0

    def __call__(self, value: Any = None) -> Any:
        with self.mutex:
            self.calls += 1
            self.running += 1
            self.most = max(self.most, self.running)
        if self.gate is not None:
            assert self.gate.wait(30)
        with self.mutex:
            self.running -= 1
        return value


def idle(ex: BoundedExecutor) -> None:
    """Nothing is left of any task, in the limits neither."""
    pool = ex._pool
    assert ex.wait(30)
    limits = pool.limits
    assert limits is not None
    with pool.mutex:
        assert (limits.queued, limits.held, limits.pending, pool.workers.held) == (0, 0, {}, 0)
        assert (limits.root.running, limits.root.below, list(limits._limiters)) == (0, 0, [])
        assert all(meter.active == meter.unfinished == 0 for meter in limits.meters.values())


# -- of a view ---------------------------------------------------------------------------------------


def test_others_overtake_what_waits_for_its_limit(gate: threading.Event) -> None:
    """Forty long tasks of which two run hold two workers, and no third thread is there for them."""
    with BoundedExecutor(4) as ex:
        slow = ex.options(limit=2)
        long = [slow.submit(gate.wait, 30) for _ in range(40)]
        assert [ex.submit(int).result(30) for _ in range(10)] == [0] * 10
        stats = ex.stats()
        assert (stats.active_workers, stats.queued_tasks, stats.workers) == (2, 38, 3)
        assert sum(future.running() for future in long) == 2
        gate.set()
        assert all(future.result(30) for future in long)
        idle(ex)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_every_way_in(way: Way) -> None:
    """A view with a limit runs what it is given, whatever way that comes."""
    with BoundedExecutor(3, enable_metrics=True) as ex:
        busy = Busy()
        view: Any = ex.options(limit=1, name="db")
        if way is not WAYS["run_in_executor"]:
            assert way(view, busy) == 0
        else:
            assert way(view, str) == "0"
        idle(ex)
        counted = ex.stats().views["db"]
        assert counted.completed_tasks == counted.submitted_tasks > 0


def test_the_limit_holds_under_load() -> None:
    """From several threads, with tasks of other views, which run beside it."""
    with BoundedExecutor(8, queue_size=50) as ex:
        busy, rest = Busy(), Busy()
        view = ex.options(limit=3)

        def submit() -> None:
            for number in range(200):
                view.submit(busy)
                ex.options(priority=number % 3).submit(rest)

        threads = [threading.Thread(target=submit) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        idle(ex)
        assert (busy.calls, rest.calls, busy.running) == (800, 800, 0)
        assert 1 <= busy.most <= 3


def test_a_view_of_a_view_counts_for_both(gate: threading.Event) -> None:
    """At most two of both, at most one of the inner; and a slot of the outer is the outer's again."""
    with BoundedExecutor(8) as ex:
        outer = ex.options(limit=2)
        inner = outer.options(limit=1)
        first = hold(inner, gate)
        waits = inner.submit(int)
        second = hold(outer.options(priority=0), gate)
        third = outer.submit(int)
        assert ex.submit(int).result(30) == 0
        assert not waits.running()
        assert not third.running()
        assert ex.stats().active_workers == 2
        gate.set()
        cf.wait([*first, *second, waits, third], 30)
        assert (waits.result(0), third.result(0)) == (0, 0)
        idle(ex)


def test_order_is_as_without_a_limit(gate: threading.Event) -> None:
    """By priority, then by admission, over all views."""
    with BoundedExecutor(1) as ex:
        ran: list[int] = []
        hold(ex, gate)
        views: list[Any] = [
            ex,
            ex.options(limit=1),
            ex.options(limit=2),
            ex.options(key=1, key_limit=1),
        ]
        expected = []
        for number in range(40):
            priority = number * 7 % 3
            view = views[number * 3 % 4]
            view.options(priority=priority).submit(ran.append, number)
            expected.append((-priority, number))
        expected.sort()
        assert [task.task_id - 2 for task in ex.queued()] == [number for _, number in expected]
        gate.set()
        idle(ex)
        assert ran == [number for _, number in expected]


def test_a_higher_priority_comes_first_within_the_limit(gate: threading.Event) -> None:
    """Also if the limit was reached when it came."""
    with BoundedExecutor(2) as ex:
        view = ex.options(limit=1)
        hold(view, gate)
        ran: list[str] = []
        view.options(priority=0).submit(ran.append, "low")
        view.submit(ran.append, "normal")
        view.options(priority=9).submit(ran.append, "high")
        gate.set()
        idle(ex)
        assert ran == ["high", "normal", "low"]


def test_aging(gate: threading.Event) -> None:
    """A task that has waited long for its limit goes before newer ones of higher priority."""
    with BoundedExecutor(2, aging=1e-9) as ex:
        view = ex.options(limit=1)
        hold(view, gate)
        ran: list[int] = []
        for number in range(5):
            view.options(priority=number).submit(ran.append, number)
        assert [task.priority for task in ex.queued()] == list(range(5))
        gate.set()
        idle(ex)
        assert ran == list(range(5))


def test_what_waits_for_its_limit_holds_a_place(gate: threading.Event) -> None:
    """It counts as queued; when one runs, a place is free, and whoever blocks for it gets it."""
    with BoundedExecutor(2, queue_size=2) as ex:
        view = ex.options(limit=1)
        hold(view, gate)
        rest = [view.submit(int) for _ in range(3)]
        with pytest.raises(QueueFullError):
            ex.try_submit(int)
        blocked: list[Any] = []
        thread = threading.Thread(target=lambda: blocked.append(view.submit(int)))
        thread.start()
        while not ex.stats().waiting_submitters:
            pass
        assert rest[0].cancel()
        thread.join(30)
        gate.set()
        assert [future.result(30) for future in [*rest[1:], *blocked]] == [0, 0, 0]
        idle(ex)


def test_the_oldest_is_dropped_whatever_it_waits_for(gate: threading.Event) -> None:
    """Of the lowest priority, of all views."""
    with BoundedExecutor(1, queue_size=3, on_full=OnFull.DROP_OLDEST) as ex:
        view = ex.options(limit=1)
        hold(view, gate)
        waiting = [
            view.options(priority=2).submit(int),
            view.options(priority=0).submit(int),
            ex.options(priority=0).submit(int),
        ]
        new = view.submit(int)
        assert [future.cancelled() for future in waiting] == [False, True, False]
        newer = view.submit(int)
        assert waiting[2].cancelled()
        newest = view.submit(int)
        assert new.cancelled()
        gate.set()
        assert [future.result(30) for future in (waiting[0], newer, newest)] == [0, 0, 0]
        idle(ex)


def test_a_submitter_does_not_run_what_must_wait(gate: threading.Event) -> None:
    """CALLER_RUNS runs it on the spot where the limit lets it, else waits for a place."""
    with BoundedExecutor(1, queue_size=1, on_full=OnFull.CALLER_RUNS) as ex:
        hold(ex, gate)
        ex.submit(int)
        view = ex.options(limit=1, name="db")
        assert view.submit(threading.get_ident).result(0) == threading.get_ident()
        inner: list[Any] = []

        def submit_within() -> None:
            def submit() -> None:
                inner.append(view.submit(int))

            thread = threading.Thread(target=submit)
            thread.start()
            while not ex.stats().waiting_submitters:
                pass
            gate.set()
            thread.join(30)

        view.submit(submit_within).result(0)
        assert inner[0].result(30) == 0
        idle(ex)
        assert ex.stats().views["db"].completed_tasks == 3


def test_cancelling_what_waits_for_its_limit(gate: threading.Event) -> None:
    """By its future, by its token, many at a time."""
    with BoundedExecutor(4, queue_size=None) as ex:
        view = ex.options(limit=1, name="db")
        hold(view, gate)
        token = CancelToken()
        under = view.options(token=token)
        waiting = [view.submit(int) for _ in range(500)]
        listed = [under.submit(int) for _ in range(100)]
        kept = view.submit(int)
        assert all(future.cancel() for future in waiting)
        token.cancel()
        assert all(future.cancelled() for future in listed)
        heaps = [len(limiter.heap) for limiter in ex._pool.limits._limiters]  # type: ignore[union-attr]
        assert sum(heaps) <= 100  # their memory is free
        counted = ex.stats().views["db"]
        assert (counted.active_tasks, counted.queued_tasks, counted.cancelled_tasks) == (1, 1, 600)
        gate.set()
        assert kept.result(30) == 0
        idle(ex)


def test_a_token_that_is_cancelled_as_its_task_comes_up(gate: threading.Event) -> None:
    """It is set aside, and the next one runs."""
    with BoundedExecutor(1) as ex:
        view = ex.options(limit=1, name="db")
        hold(view, gate)
        token = CancelToken()
        doomed = view.submit_with_token(token, int)
        kept = view.submit(int)
        # As if its canceller had come no further than to mark it.
        token._once["reason"] = None
        gate.set()
        assert kept.result(30) == 0
        assert doomed.cancelled()
        counted = ex.stats().views["db"]
        assert (counted.completed_tasks, counted.cancelled_tasks) == (2, 1)
        idle(ex)


def test_a_key_whose_last_task_is_set_aside_is_forgotten(gate: threading.Event) -> None:
    """Its token is cancelled as it comes up, and no other task of the key ends after it."""
    with BoundedExecutor(1) as ex:
        view = ex.options(key="a", key_limit=1)
        hold(view, gate)
        token = CancelToken()
        doomed = view.submit_with_token(token, int)
        token._once["reason"] = None
        gate.set()
        assert cf.wait([doomed], 30).done == {doomed}
        assert ex.submit(int).result(30) == 0
        idle(ex)


def test_shutdown_runs_what_waits_for_its_limit(gate: threading.Event) -> None:
    """And all threads end."""
    ex = BoundedExecutor(4)
    view = ex.options(limit=1)
    hold(view, gate)
    hold(ex, gate, 2)
    rest = [view.submit(int) for _ in range(20)]
    ex.shutdown(wait=False)
    gate.set()
    ex.shutdown()
    assert [future.result(0) for future in rest] == [0] * 20
    assert not ex._threads


def test_stop_cancels_what_waits_for_its_limit(gate: threading.Event) -> None:
    """It is out of time as all the rest is."""
    ex = BoundedExecutor(2)
    view = ex.options(limit=1)
    hold(view, gate)
    rest = [view.submit(int) for _ in range(5)]
    with pytest.raises(ForcedShutdownError):
        ex.stop(0)
    assert all(future.cancelled() for future in rest)
    gate.set()
    idle(ex)


def test_a_pool_that_breaks_fails_what_waits_for_its_limit(gate: threading.Event) -> None:
    """While the task that keeps it waiting goes on: no worker comes for it any more."""
    calls = itertools.count()
    broken = threading.Event()

    def initializer() -> None:
        if next(calls):
            assert broken.wait(30)
            raise LookupError

    with BoundedExecutor(2, initializer=initializer) as ex:
        view = ex.options(limit=1, name="db")
        first = hold(view, gate)
        ex.submit(int)
        rest = [view.submit(int) for _ in range(3)]
        broken.set()
        assert all(isinstance(future.exception(30), BrokenThreadPool) for future in rest)
        assert first[0].running()
        gate.set()
        assert first[0].exception(30) is None
        idle(ex)


def test_fewer_workers_and_more(gate: threading.Event) -> None:
    """What waits for its limit is not forgotten."""
    with BoundedExecutor(4) as ex:
        view = ex.options(limit=3)
        hold(view, gate, 3)
        rest = [view.submit(int) for _ in range(20)]
        ex.resize(1)
        gate.set()
        assert [future.result(30) for future in rest] == [0] * 20
        ex.resize(4)
        assert list(view.map(str, range(3))) == ["0", "1", "2"]
        idle(ex)


def test_workers_that_idle_end(gate: threading.Event) -> None:
    """Though tasks wait for their limit; and one comes back when it is needed."""
    with BoundedExecutor(4, idle_timeout=0.01) as ex:
        view = ex.options(limit=1)
        ex.prestart(4)
        hold(view, gate)
        rest = [view.submit(int) for _ in range(5)]
        while ex.stats().workers > 1:
            pass
        gate.set()
        assert [future.result(30) for future in rest] == [0] * 5
        idle(ex)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_a_task_lends_its_slot_to_one_it_waits_for(workers: int) -> None:
    """It waits without a timeout, so of the two one makes progress at a time; three deep, too."""
    with BoundedExecutor(workers) as ex:
        view = ex.options(limit=1, name="db")

        def deep(depth: int) -> int:
            return view.submit(deep, depth - 1).result() + 1 if depth else 0

        assert view.submit(deep, 3).result(30) == 3
        idle(ex)
        assert ex.stats().views["db"].completed_tasks == 4


@pytest.mark.parametrize("workers", [1, 3])
def test_a_slot_is_lent_through_tasks_in_between(workers: int) -> None:
    """The holder of the limit waits for a task without one, which waits for a task of the limit."""
    with BoundedExecutor(workers) as ex:
        view = ex.options(limit=1)
        other = ex.options(limit=1)

        def deep(row: list[Any]) -> int:
            return row[0].submit(deep, row[1:]).result() + 1 if row else 0

        assert view.submit(deep, [ex, view, other, ex, view]).result(30) == 5
        idle(ex)


def test_a_slot_is_lent_to_what_a_task_in_its_stack_waits_for(gate: threading.Event) -> None:
    """With CALLER_RUNS the holder runs a task, and cannot go on before that has what it waits for."""
    with BoundedExecutor(1, queue_size=1, on_full=OnFull.CALLER_RUNS) as ex:
        view = ex.options(limit=1)
        queued: list[Any] = []

        def inner() -> Any:
            return queued[0].result()

        def outer() -> Any:
            queued.append(view.submit(int))
            return ex.submit(inner).result(0)

        assert view.submit(outer).result(30) == 0
        idle(ex)


def test_a_slot_is_handed_on_when_its_task_ends_first(gate: threading.Event) -> None:
    """Its time is up while it waits for the one that runs in its slot: the limit is still reached."""
    with BoundedExecutor(4) as ex:
        view = ex.options(limit=1, name="db")
        runs = threading.Event()

        def inner() -> None:
            runs.set()
            assert gate.wait(30)

        def outer() -> None:
            future = view.submit(inner)
            future.add_done_callback(done.append)
            future.result()

        done: list[Any] = []
        lender = view.options(run_timeout=0.01, abandon=True).submit(outer)
        assert runs.wait(30)
        assert isinstance(lender.exception(30), TaskTimeoutError)
        last = view.submit(lambda: len(done))
        assert ex.submit(int).result(30) == 0  # a worker has looked for what may start
        assert ex.stats().views["db"].active_tasks == 1
        gate.set()
        assert last.result(30) == 1
        idle(ex)


def test_a_slot_is_not_lent_to_who_waits_for_a_time(gate: threading.Event) -> None:
    """It would go on beside the other."""
    with BoundedExecutor(4) as ex:
        view = ex.options(limit=1)

        def outer() -> Any:
            inner = view.submit(int)
            with pytest.raises(cf.TimeoutError):
                inner.result(0.01)
            assert not inner.running()
            return inner

        assert view.submit(outer).result(30).result(30) == 0
        idle(ex)


@pytest.mark.parametrize("wait", [cf.wait, lambda futures: list(cf.as_completed(futures))])
def test_the_only_worker_waits_for_what_waits_for_its_limit(wait: Any) -> None:
    """When that may start, and nobody is free, a spare thread runs it."""
    with BoundedExecutor(1, queue_size=0, on_full=OnFull.CALLER_RUNS) as ex:
        view = ex.options(limit=1)
        here = threading.Event()

        def outer() -> Any:
            assert here.wait(30)
            inner = view.options(on_full=OnFull.BLOCK).submit(int)
            wait([inner])
            return inner.result(0)

        def in_the_submitter() -> None:
            here.set()
            while not ex._pool.limits.awaited:  # type: ignore[union-attr]
                pass

        waits = ex.submit(outer)
        assert view.submit(in_the_submitter).done()
        assert waits.result(30) == 0
        idle(ex)
        assert not ex._pool.limits.awaited  # type: ignore[union-attr]


def test_a_group_within_a_limit() -> None:
    """Its tasks have the options of the view, the limit among them."""
    with BoundedExecutor(4) as ex:
        busy = Busy()
        with ex.options(limit=2).group() as group:
            futures = [group.submit(busy, number) for number in range(50)]
        assert [future.result(0) for future in futures] == list(range(50))
        assert busy.most <= 2
        idle(ex)


def test_coroutines_within_a_limit() -> None:
    """`arun` and `amap`, with a queue that is full."""

    async def main(ex: BoundedExecutor, busy: Busy) -> list[int]:
        view = ex.options(limit=2)
        gathered = await asyncio.gather(*[view.arun(busy, number) for number in range(50)])
        return [*gathered, *[number async for number in view.amap(busy, range(50))]]

    with BoundedExecutor(4, queue_size=3) as ex:
        busy = Busy()
        assert asyncio.run(main(ex, busy)) == [*range(50), *range(50)]
        assert busy.most <= 2
        idle(ex)


def test_names_resolve_while_long_tasks_wait(gate: threading.Event) -> None:
    """The default executor of a loop: `getaddrinfo` answers while 40 long tasks wait for their limit."""

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        ex = BoundedExecutor(4)
        loop.set_default_executor(ex)
        slow = ex.options(limit=2)
        long = [asyncio.create_task(slow.arun(gate.wait, 30)) for _ in range(40)]
        await asyncio.sleep(0)
        while ex.stats().active_workers < 2:  # noqa: ASYNC110 - they say nothing when they start
            await asyncio.sleep(0)
        found = await loop.getaddrinfo("127.0.0.1", 80)
        assert not any(task.done() for task in long)
        gate.set()
        await asyncio.gather(*long)
        return found[0][4]

    assert asyncio.run(main()) == ("127.0.0.1", 80)


def test_an_engine() -> None:
    """At most so many are in there at a time."""
    busy = Busy()
    with BoundedExecutor(4, engine=cf.ThreadPoolExecutor(4)) as ex:
        view = ex.options(limit=2)
        assert list(view.map(busy, range(100))) == list(range(100))
        assert list(ex.options(key="a", key_limit=1).map(busy, range(20))) == list(range(20))
        idle(ex)
    assert busy.most <= 2


def test_observers_and_limits(gate: threading.Event) -> None:
    """Whichever comes first; each hears of the tasks, and the limit holds."""

    class Seen(Observer):
        def __init__(self) -> None:
            self.kinds: list[str] = []

        def submitted(self, event: Any) -> None:
            self.kinds.append(event.kind)

        def finished(self, event: Any) -> None:
            self.kinds.append(event.kind)

    for early in (True, False):
        busy, seen = Busy(), Seen()
        with BoundedExecutor(4) as ex:
            if early:
                ex.add_observer(seen)
            view = ex.options(limit=1)
            if not early:
                ex.add_observer(seen)
            assert list(view.map(busy, range(20))) == list(range(20))
            ex.remove_observer(seen)
            assert list(view.map(busy, range(20))) == list(range(20))
            idle(ex)
        assert sorted(seen.kinds) == ["finished"] * 20 + ["submitted"] * 20
        assert busy.most == 1


def test_draining_the_queue_by_hand(gate: threading.Event) -> None:
    """`_work_queue.get_nowait()` gives out what waits for its limit, too."""
    with BoundedExecutor(2) as ex:
        view = ex.options(limit=1)
        hold(view, gate)
        hold(ex, gate)
        rest = [view.submit(int), ex.submit(int), view.submit(int)]
        for _ in rest:
            ex._work_queue.get_nowait()
        assert all(future.cancelled() for future in rest)
        gate.set()
        idle(ex)


def test_repair_counts_again(gate: threading.Event) -> None:
    """Whatever an interruption has left in the limits."""
    with BoundedExecutor(4) as ex:
        view = ex.options(limit=2, name="db")
        keyed = ex.options(key="a", key_limit=1, name="tenants")
        hold(view, gate)
        hold(keyed, gate)
        rest = [each.submit(int) for each in (view, keyed, keyed, view)]
        while ex.stats().views["db"].completed_tasks < 2:  # the others wait
            assert cf.wait([rest[0], rest[3]], 30).done
        limits: Any = ex._pool.limits
        with ex._pool.mutex:
            limits.root.heap.clear()
            for limiter in limits._limiters:
                limiter.heap.clear()
                limiter.running = limiter.waiting = limiter.below = limiter.due = 7
            for meter in limits.meters.values():
                meter.active = meter.unfinished = 7
            ex._pool.workers.held = 3
        ex._pool.repair()
        views = ex.stats().views
        assert (views["db"].active_tasks, views["tenants"].active_tasks) == (1, 1)
        assert views["tenants"].queued_tasks == 2
        gate.set()
        assert [future.result(30) for future in rest] == [0] * 4
        idle(ex)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_the_child_of_a_fork_has_its_own(gate: threading.Event) -> None:
    """The slots that the parent's tasks have are free there."""
    with BoundedExecutor(2) as ex:
        view = ex.options(limit=1)
        hold(view, gate)
        view.submit(int)
        pid = os.fork()
        if not pid:
            os._exit(0 if view.submit(int).result(20) == 0 else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        gate.set()
        idle(ex)


# -- of a key ------------------------------------------------------------------------------------------


def test_each_key_has_its_limit(gate: threading.Event) -> None:
    """However its view was made."""
    with BoundedExecutor(8) as ex:
        busy = {key: Busy() for key in ("a", "b")}
        for _ in range(50):
            for key, calls in busy.items():
                ex.options(key=key, key_limit=2).submit(calls)
        idle(ex)
        assert all(calls.most <= 2 and calls.calls == 50 for calls in busy.values())
        hold(ex.options(key="a", key_limit=2), gate, 2)
        waits = ex.options(key="a", key_limit=2).submit(int)
        assert ex.options(key="b", key_limit=2).submit(int).result(30) == 0
        assert not waits.running()
        gate.set()
        idle(ex)


def test_keys_take_turns(gate: threading.Event) -> None:
    """One that has submitted much does not hold up the others; within a key it is first come, first served."""
    with BoundedExecutor(1) as ex:
        hold(ex, gate)
        ran: list[tuple[str, int]] = []
        for key, number in (("a", 6), ("b", 3), ("c", 1)):
            for index in range(number):
                ex.options(key=key, key_limit=2).submit(ran.append, (key, index))
        ex.options(key="c", key_limit=2, priority=2).submit(ran.append, ("c", -1))
        gate.set()
        idle(ex)
        assert [key for key, _ in ran] == list("cabcabab" + "aaa")
        for key in "ab":
            indices = [index for each, index in ran if each == key]
            assert indices == sorted(indices)


@pytest.mark.parametrize("fresh", [True, False])
def test_keys_that_come_later_hold_up_nobody(gate: threading.Event, fresh: bool) -> None:
    """However many new keys come, or the same one anew: who waits already has its turn first."""
    with BoundedExecutor(1) as ex:
        hold(ex, gate)
        ran: list[str] = []

        def work(key: str, left: int) -> None:
            ran.append(key)
            if left:
                name = f"new {left}" if fresh else "new"
                ex.options(key=name, key_limit=2).submit(work, name, left - 1)

        for _ in range(4):
            ex.options(key="old", key_limit=1).submit(work, "old", 0)
        ex.options(key="new", key_limit=2).submit(work, "new", 9)
        gate.set()
        idle(ex)
        assert [key.partition(" ")[0] for key in ran] == ["old", "new"] * 4 + ["new"] * 6


def test_keys_together_come_when_their_oldest_task_does(gate: threading.Event) -> None:
    """A turn is not lost to tasks without a key that came later."""
    with BoundedExecutor(1) as ex:
        hold(ex, gate)
        ran: list[str] = []
        for key in "aa-b-":
            view = ex if key == "-" else ex.options(key=key, key_limit=1)
            view.submit(ran.append, key)
        gate.set()
        idle(ex)
        assert ran == list("aba--")


def test_the_latest_limit_of_a_key_counts(gate: threading.Event) -> None:
    """A tenant that pays for more gets it with its next task."""
    with BoundedExecutor(4) as ex:
        hold(ex.options(key="a", key_limit=1), gate)
        waits = [ex.options(key="a", key_limit=1).submit(gate.wait, 30) for _ in range(2)]
        assert not any(future.running() for future in waits)
        last = ex.options(key="a", key_limit=4).submit(gate.wait, 30)
        while not all(future.running() for future in [*waits, last]):
            pass
        gate.set()
        idle(ex)


def test_a_higher_limit_counts_for_what_waits_already() -> None:
    """Also if the submitter, which has named it, runs its task itself."""
    with BoundedExecutor(2, queue_size=1, on_full=OnFull.CALLER_RUNS) as ex:
        first, second = threading.Event(), threading.Event()
        low = ex.options(key="a", key_limit=1)
        hold(low, first)
        waits = [low.submit(second.set)]
        assert ex.submit(int).result(30) == 0  # a worker has found that the first must wait
        waits.append(low.submit(second.set))
        assert ex.options(key="a", key_limit=3).submit(int).result(0) == 0
        assert second.wait(30)
        assert [future.result(30) for future in waits] == [None, None]
        first.set()
        idle(ex)


def test_a_key_within_a_limit(gate: threading.Event) -> None:
    """Both count; the keys of another view are others."""
    with BoundedExecutor(8) as ex:
        view = ex.options(limit=3)
        hold(view.options(key="a", key_limit=2), gate, 2)
        more = view.options(key="a", key_limit=2).submit(int)
        hold(view.options(key="b", key_limit=2), gate)
        other = view.options(key="c", key_limit=2).submit(int)
        assert ex.options(key="a", key_limit=2).submit(int).result(30) == 0
        assert not more.running()
        assert not other.running()
        gate.set()
        idle(ex)


def test_a_key_changes_alone(gate: threading.Event) -> None:
    """`key=` of a view that has a `key_limit` keeps it, and the other way round."""
    with BoundedExecutor(8) as ex:
        view = ex.options(key="a", key_limit=1, name="tenants")
        assert "key='a', key_limit=1" in repr(view)
        assert "key='b', key_limit=1" in repr(view.options(key="b"))
        assert "key='a', key_limit=3" in repr(view.options(key_limit=3))
        assert "limit=3" in repr(ex.options(limit=3))
        hold(view, gate)
        assert view.options(key="b").submit(int).result(30) == 0
        gate.set()
        idle(ex)


def test_a_key_leaves_nothing_for_the_collector() -> None:
    """Its memory is free with its last task."""
    with BoundedExecutor(1) as ex:
        view = ex.options(limit=1)
        ex.submit(int).result(30)
        gc.collect()
        gc.disable()
        try:
            for number in range(50):
                view.options(key=number, key_limit=1).submit(int).result(30)
            idle(ex)
            left = [found for found in gc.get_objects() if type(found) is Limiter]
        finally:
            gc.enable()
        assert len(left) <= 2  # the root, and that of the view


def test_keys_are_equal_as_plain_values() -> None:
    """Of a subclass of str or int the plain value counts, whatever its `__eq__` says."""

    class Odd(str):
        __slots__ = ()

        def __eq__(self, other: object) -> bool:
            raise AssertionError

        def __hash__(self) -> int:
            raise AssertionError

    with BoundedExecutor(2) as ex:
        for key in (Odd("a"), 5, True, b"a"):
            assert ex.options(key=key, key_limit=1).submit(int).result(30) == 0
        idle(ex)


@pytest.mark.slow
@pytest.mark.usefixtures("no_gc")  # finalizers are steps, too
def test_a_thousand_keys_and_many_tasks(gate: threading.Event) -> None:
    """A task costs the same steps, however many limits are reached and however many tasks wait."""
    with BoundedExecutor(2, queue_size=None) as ex:
        hold(ex, gate)
        views = [ex.options(key=number, key_limit=1) for number in range(1000)]
        full = ex.options(limit=1)
        hold(full, gate)
        steps: list[int] = []
        limits: Any = ex._pool.limits
        counted = 0

        def profile(_frame: Any, event: str, _arg: Any) -> None:
            nonlocal counted
            counted += event == "call"

        def measure() -> None:
            nonlocal counted
            counted = 0
            sys.setprofile(profile)
            future = views[500].submit(int)
            waits = full.submit(int)
            sys.setprofile(None)
            steps.append(counted)
            assert not future.done()
            assert not waits.done()

        measure()
        futures = [view.submit(int) for _ in range(20) for view in views]
        waiting = [full.submit(int) for _ in range(1000)]
        measure()
        assert steps[1] <= steps[0]
        assert limits.queued == 21_004
        gate.set()
        assert all(future.result(60) == 0 for future in [*futures, *waiting])
        idle(ex)


# -- what is counted -------------------------------------------------------------------------------------


def test_what_views_have_done(gate: threading.Event) -> None:
    """Each with a name and a limit; those of views made from it among them."""
    with BoundedExecutor(4, enable_metrics=True) as ex:
        assert ex.stats().views == {}
        db = ex.options(limit=2, name="db")
        db.options(name="query").submit(int).result(30)
        db.options(limit=1, name="reports").submit(int).result(30)
        with pytest.raises(ValueError, match="invalid literal"):
            db.submit(int, "x").result(30)
        ex.options(key="a", key_limit=1, name="tenants").submit(int).result(30)
        ex.options(name="plain").submit(int).result(30)
        ex.options(limit=3).submit(int).result(30)
        assert ex.wait(30)
        hold(db, gate, 2)
        db.submit(int)
        assert db.submit(int).cancel()
        views = ex.stats().views
        assert list(views) == ["db", "reports", "tenants"]
        found = views["db"]
        assert (found.name, found.limit, views["tenants"].limit) == ("db", 2, None)
        assert (found.submitted_tasks, found.completed_tasks, found.failed_tasks) == (7, 3, 1)
        assert (found.active_tasks, found.queued_tasks, found.cancelled_tasks) == (2, 1, 1)
        assert views["reports"].completed_tasks == views["tenants"].completed_tasks == 1
        db.options(key="a", key_limit=1)  # has its name
        assert ex.stats().views["db"].limit == 2
        assert found.latency is not None
        assert found.wait is not None
        assert found.latency.count == found.wait.count == 3
        assert found.average_latency > 0
        gate.set()
        idle(ex)
    with BoundedExecutor(1) as ex:
        ex.options(limit=1, name="db").submit(int).result(30)
        assert ex.stats().views["db"].latency is None


def test_views_add_up_at_every_instant() -> None:
    """Under load, with cancellations."""
    with BoundedExecutor(4, queue_size=20) as ex:
        view = ex.options(limit=2, name="db")
        done = threading.Event()

        def submit() -> None:
            rng = random.Random(1)
            for _ in range(500):
                future = view.submit(int)
                if rng.random() < 0.3:
                    future.cancel()
            done.set()

        thread = threading.Thread(target=submit)
        thread.start()
        while not done.is_set():
            found = ex.stats().views["db"]
            assert 0 <= found.active_tasks <= 2
            assert found.queued_tasks >= 0
            assert found.cancelled_tasks >= 0
        thread.join(30)
        idle(ex)
        found = ex.stats().views["db"]
        assert found.submitted_tasks == found.completed_tasks + found.cancelled_tasks == 500


# -- what is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"limit": 0}, InvalidConfigError, "limit must be greater than 0"),
        ({"limit": 1.5}, TypeError, "limit must be"),
        ({"limit": None}, TypeError, "limit must be"),
        ({"key": "a", "key_limit": 0}, InvalidConfigError, "key_limit must be greater than 0"),
        ({"key": "a"}, InvalidConfigError, "needs a key_limit"),
        ({"key_limit": 1}, InvalidConfigError, "needs a key"),
        ({"key": 1.5, "key_limit": 1}, TypeError, "key must be a str, an int or bytes"),
        ({"limit": 1, "key": "a", "key_limit": 1}, InvalidConfigError, "make the view first"),
    ],
)
def test_bad_options(options: Any, error: type[Exception], text: str) -> None:
    """At the call, with what to do instead."""
    with BoundedExecutor(1) as ex:
        with pytest.raises(error, match=text):
            ex.options(**options)
        keyed = ex.options(key="a", key_limit=1)
        with pytest.raises(InvalidConfigError, match="make the view first"):
            keyed.options(limit=1)


def test_limits_within_limits_within_limits() -> None:
    """A view that is made from the last for each task would never end."""
    with BoundedExecutor(1) as ex:
        view: Any = ex
        with pytest.raises(InvalidConfigError, match="make such a view once"):
            for _ in range(100):
                view = view.options(limit=5)
        assert view.submit(int).result(30) == 0
        idle(ex)


def test_an_order_that_changes_has_no_limits() -> None:
    """It is said at the call; newest first does, and holds within a limit, too."""
    with (
        BoundedExecutor(1, order="adaptive") as ex,
        pytest.raises(InvalidConfigError, match='order="fifo" or "lifo"'),
    ):
        ex.options(limit=1)


def test_a_queue_that_sheds_has_no_limits() -> None:
    """Likewise."""
    with (
        BoundedExecutor(1, on_full=OnFull.SHED) as ex,
        pytest.raises(InvalidConfigError, match="cannot go together"),
    ):
        ex.options(limit=1)


def test_newest_first(gate: threading.Event) -> None:
    """Over all views, within a limit, and within a key."""
    with BoundedExecutor(1, order="lifo") as ex:
        ran: list[int] = []
        hold(ex, gate)
        views = [ex, ex.options(limit=1), ex.options(key=1, key_limit=1)]
        for number in range(30):
            views[number * 2 % 3].submit(ran.append, number)
        assert [task.task_id - 2 for task in ex.queued()] == [*reversed(range(30))]
        gate.set()
        idle(ex)
        assert ran == [*reversed(range(30))]
