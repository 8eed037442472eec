"""The bound, what happens at it, and who is never blocked by it."""

from __future__ import annotations

import asyncio
import threading
import warnings
from concurrent.futures import CancelledError, wait
from typing import Any

import pytest

from futurepool import (
    BoundedExecutor,
    CancelToken,
    Future,
    FuturePoolWarning,
    OnFull,
    PoolClosedError,
    QueueFullError,
    SubmitTimeoutError,
    _sync,
)
from tests.helpers import until


class Gate:
    """Tasks that wait until they are let go; opened at the end of the test, come what may."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.started = threading.Semaphore(0)

    def __call__(self) -> bool:
        self.started.release()
        return self.event.wait(30)

    def open(self) -> None:
        self.event.set()


@pytest.fixture
def gate() -> Any:
    gate = Gate()
    yield gate
    gate.open()


def until_blocked(ex: BoundedExecutor, count: int) -> None:
    """Return when `count` submitters wait for a place."""
    until(lambda: len(ex._pool.waiters.blocked) >= count)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("size", [0, 1, 2, 5])
def test_the_bound_is_exact(workers: int, size: int, gate: Gate) -> None:
    """However fast the workers wake up: the next one is refused, every time."""
    with BoundedExecutor(workers, queue_size=size) as ex:
        for _ in range(20):
            gate.event.clear()
            futures = [ex.try_submit(gate) for _ in range(workers + size)]
            with pytest.raises(QueueFullError):
                ex.try_submit(gate)
            gate.open()
            wait(futures)
        assert ex.stats().rejected_tasks == 20
        assert ex.stats().overflow_tasks == 0


def test_a_seen_result_is_a_free_place(gate: Gate) -> None:
    """Whoever has a result in hand can submit the next task, always."""
    with BoundedExecutor(1, queue_size=0) as ex:
        for number in range(500):
            assert ex.try_submit(int, number).result() == number


def test_without_a_bound(gate: Gate) -> None:
    """queue_size=None takes everything."""
    with BoundedExecutor(1, queue_size=None) as ex:
        futures = [ex.try_submit(gate), *(ex.try_submit(int, n) for n in range(5000))]
        assert ex.stats().queued_tasks >= 4999
        gate.open()
        assert futures[-1].result() == 4999
        assert ex.stats().queue_size is None


def test_a_cancelled_task_gives_its_place_back_at_once(gate: Gate) -> None:
    """No worker has to come by first."""
    with BoundedExecutor(1, queue_size=2) as ex:
        _, second, third = [ex.submit(gate) for _ in range(3)]
        for future in (second, third):
            with pytest.raises(QueueFullError):
                ex.try_submit(gate)
            assert future.cancel()
            ex.try_submit(gate)
        assert ex.stats().cancelled_tasks == 2
        gate.open()


def test_caller_runs(gate: Gate) -> None:
    """The submitting thread runs the task, whatever it raises is in the future."""
    with BoundedExecutor(1, queue_size=0, on_full=OnFull.CALLER_RUNS) as ex:
        ex.submit(gate)
        here = ex.submit(threading.get_ident)
        assert here.done()
        assert here.result() == threading.get_ident()
        failed = ex.submit(int, "x")
        assert isinstance(failed.exception(), ValueError)
        assert ex.submit(BaseException("odd").__str__).result() == "odd"
        stats = ex.stats()
        assert (stats.rejected_tasks, stats.submitted_tasks, stats.completed_tasks) == (0, 4, 3)
        gate.open()


def test_caller_runs_hands_ctrl_c_on(gate: Gate) -> None:
    """In the main thread it may be meant for the caller: both have it."""

    def interrupted() -> None:
        raise KeyboardInterrupt

    with BoundedExecutor(1, queue_size=0, on_full=OnFull.CALLER_RUNS) as ex:
        ex.submit(gate)
        with pytest.raises(KeyboardInterrupt):
            ex.submit(interrupted)
        assert ex.stats().failed_tasks == 1
        gate.open()


def test_drop_oldest_drops_from_the_lowest_priority(gate: Gate) -> None:
    """The one that has waited longest there; it is cancelled, and counted."""
    with BoundedExecutor(1, queue_size=3, on_full=OnFull.DROP_OLDEST) as ex:
        ex.submit(gate)
        gate.started.acquire()
        high = ex.submit_with_priority(9, int)
        low_old = ex.submit_with_priority(-3, int)
        low_new = ex.submit_with_priority(-3, int)
        new = ex.submit_with_priority(5, int)
        assert [f.cancelled() for f in (high, low_old, low_new, new)] == [False, True, False, False]
        with pytest.raises(CancelledError):
            low_old.result(0)
        ex.submit(int)
        assert low_new.cancelled()
        stats = ex.stats()
        assert (stats.rejected_tasks, stats.cancelled_tasks, stats.queued_tasks) == (2, 2, 3)
        gate.open()
        assert (high.result(), new.result()) == (0, 0)


def test_drop_oldest_with_nothing_to_drop(gate: Gate) -> None:
    """Running tasks are not dropped, so the new one is."""
    with BoundedExecutor(1, queue_size=0, on_full=OnFull.DROP_OLDEST) as ex:
        running = ex.submit(gate)
        assert gate.started.acquire(timeout=30)  # or it would be the oldest that waits
        assert ex.submit(int).cancelled()
        assert not running.cancelled()
        assert (ex.stats().rejected_tasks, ex.stats().submitted_tasks) == (1, 1)
        gate.open()


def test_drop_new(gate: Gate) -> None:
    """The future comes back cancelled, and its waiters are told."""
    with BoundedExecutor(1, queue_size=0, on_full=OnFull.DROP_NEW) as ex:
        ex.submit(gate)
        dropped = ex.submit(int)
        assert dropped.cancelled()
        assert wait([dropped], timeout=10).done == {dropped}
        assert ex.stats().rejected_tasks == 1
        gate.open()
        assert ex.wait(10)
        assert ex.submit(int).result() == 0


def test_raise_as_the_executors_own_policy(gate: Gate) -> None:
    """Then map raises, too, and cancels what it had submitted."""
    with BoundedExecutor(1, queue_size=2, on_full=OnFull.RAISE) as ex:
        ex.submit(gate)
        with pytest.raises(QueueFullError):
            ex.map(abs, range(3))
        assert ex.stats().queued_tasks == 0
        assert [ex.submit(int).cancelled() for _ in range(2)] == [False, False]
        gate.open()


def test_blocked_submitters_are_served_in_order(gate: Gate) -> None:
    """The order in which they began to wait is the order of their task ids."""
    ids: list[tuple[int, int]] = []
    with BoundedExecutor(1, queue_size=0) as ex:
        ex.submit(gate)

        def submit(number: int) -> None:
            ids.append((ex.submit(int).task_id, number))

        threads = []
        for number in range(6):
            thread = threading.Thread(target=submit, args=(number,))
            thread.start()
            threads.append(thread)
            until_blocked(ex, number + 1)
        with pytest.raises(QueueFullError):
            ex.try_submit(int)
        gate.open()
        for thread in threads:
            thread.join(30)
    assert [number for _, number in sorted(ids)] == list(range(6))


@pytest.mark.parametrize("how", ["shutdown", "stop", "cancel_futures"])
def test_blocked_submitters_are_turned_away(how: str, gate: Gate) -> None:
    """When the pool is shut down under them they get PoolClosedError."""
    ex = BoundedExecutor(1, queue_size=0)
    ex.submit(gate)
    errors: list[BaseException] = []

    def submit() -> None:
        try:
            ex.submit(int)
        except PoolClosedError as error:
            errors.append(error)

    threads = [threading.Thread(target=submit) for _ in range(3)]
    for thread in threads:
        thread.start()
    until_blocked(ex, 3)
    if how == "stop":
        gate.open()
        ex.stop()
    else:
        ex.shutdown(wait=False, cancel_futures=how == "cancel_futures")
    for thread in threads:
        thread.join(30)
    assert len(errors) == 3
    gate.open()
    ex.shutdown()
    assert ex.stats().submitted_tasks == 1


def test_a_blocked_submitter_gets_the_place_of_a_cancelled_task(gate: Gate) -> None:
    """At once, not when a worker comes by."""
    with BoundedExecutor(1, queue_size=1) as ex:
        ex.submit(gate)
        queued = ex.submit(int)
        done: list[Future[int]] = []
        thread = threading.Thread(target=lambda: done.append(ex.submit(int)))
        thread.start()
        until_blocked(ex, 1)
        assert queued.cancel()
        thread.join(30)
        assert done[0].task_id == 3
        gate.open()


def test_a_token_frees_a_blocked_submitter(gate: Gate) -> None:
    """Its future comes back cancelled; it was never admitted."""
    token = CancelToken()
    with BoundedExecutor(1, queue_size=0) as ex:
        ex.submit(gate)
        done: list[Future[int]] = []
        thread = threading.Thread(target=lambda: done.append(ex.submit_with_token(token, int)))
        thread.start()
        until_blocked(ex, 1)
        token.cancel()
        thread.join(30)
        assert done[0].cancelled()
        assert (ex.stats().rejected_tasks, ex.stats().submitted_tasks) == (1, 1)
        gate.open()


def test_a_timed_out_submitter_leaves_the_line(gate: Gate) -> None:
    """The next place goes to the next in line."""
    with BoundedExecutor(1, queue_size=0) as ex:
        ex.submit(gate)
        with pytest.raises(SubmitTimeoutError):
            ex.submit_with_timeout(0.01, int)
        assert len(ex._pool.waiters.blocked) == 0
        gate.open()
        assert ex.submit(int).result() == 0


def test_a_recursive_crawler_finishes(gate: Gate) -> None:
    """Two workers, a queue of one, tasks that submit tasks: no deadlock, all of it counted."""
    with BoundedExecutor(2, queue_size=1) as ex:
        seen: list[int] = []

        def visit(node: int) -> None:
            seen.append(node)
            for child in (2 * node, 2 * node + 1):
                if child < 256:
                    ex.submit(visit, child)

        ex.submit(visit, 1)
        assert ex.wait(30)
        assert sorted(seen) == list(range(1, 256))
        assert ex.stats().overflow_tasks > 0
        # What went over the bound has left it: the bound is exact again.
        ex.submit(gate)
        ex.submit(gate)
        ex.submit(gate)
        with pytest.raises(QueueFullError):
            ex.try_submit(gate)
        gate.open()


def test_a_chain_of_tasks_goes_over_the_bound(gate: Gate) -> None:
    """However long it is, each runs after the one that has submitted it."""
    with BoundedExecutor(1, queue_size=0) as ex:
        depths: list[int] = []

        def dig(depth: int) -> None:
            if depth < 200:
                ex.submit(dig, depth + 1)
            depths.append(depth)

        ex.submit(dig, 0)
        assert ex.wait(30)
        assert depths == list(range(201))
        assert ex.stats().overflow_tasks == 200


def test_own_workers_get_the_other_policies_as_anyone(gate: Gate) -> None:
    """try_submit in a task raises when the queue is full."""
    with BoundedExecutor(1, queue_size=0) as ex:

        def task() -> str:
            try:
                ex.try_submit(int)
            except QueueFullError:
                return "full"
            return "taken"

        assert ex.submit(task).result() == "full"


def test_an_event_loop_is_never_blocked(gate: Gate) -> None:
    """Over the bound, counted, and one warning for each executor that names arun."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        first = loop.run_in_executor(ex, gate)
        with pytest.warns(RuntimeWarning, match=r"arun\("):
            second = loop.run_in_executor(ex, int)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            third = loop.run_in_executor(ex, int)
        assert ex.stats().overflow_tasks == 2
        gate.open()
        assert await asyncio.gather(first, second, third) == [True, 0, 0]

    with BoundedExecutor(1, queue_size=0) as ex:
        asyncio.run(main())


def test_one_executor_at_its_bound_does_not_block_another(gate: Gate) -> None:
    """No lock is shared between pools."""
    with BoundedExecutor(1, queue_size=0) as full, BoundedExecutor(1, queue_size=0) as other:
        full.submit(gate)
        thread = threading.Thread(target=full.submit, args=(int,))
        thread.start()
        until_blocked(full, 1)
        assert other.submit(int).result(30) == 0
        gate.open()
        thread.join(30)


def test_a_thread_that_cannot_start(monkeypatch: pytest.MonkeyPatch, gate: Gate) -> None:
    """Without any worker the submit fails and leaves nothing; with one there are just fewer."""
    start, fail = _sync.start, [True]

    def sometimes(thread: threading.Thread) -> None:
        if fail[0]:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(_sync, "start", sometimes)
    ran: list[int] = []
    with BoundedExecutor(2, queue_size=1) as ex:
        for _ in range(3):
            with pytest.raises(RuntimeError, match="can't start new thread"):
                ex.submit(ran.append, 0)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            list(ex.map(ran.append, [0]))
        assert ex.wait(0)
        fail[0] = False
        ex.submit(gate)
        gate.started.acquire()
        fail[0] = True
        futures = [ex.submit(ran.append, 1) for _ in range(2)]
        with pytest.raises(QueueFullError):
            ex.try_submit(int)
        gate.open()
        wait(futures)
        assert ran == [1, 1]
        assert len(ex._threads) == 1


@pytest.mark.parametrize(
    ("policy", "outcome", "counts"),
    [
        (OnFull.RAISE, "raised", (1, 2, 0)),
        (OnFull.DROP_NEW, "dropped", (1, 2, 0)),
        (OnFull.DROP_OLDEST, "waits", (1, 3, 1)),
        (OnFull.CALLER_RUNS, "ran", (0, 3, 0)),
    ],
)
def test_what_each_policy_counts(policy: OnFull, outcome: str, counts: Any, gate: Gate) -> None:
    """Rejected, submitted and cancelled tasks after one submission too many."""
    with BoundedExecutor(1, queue_size=1, on_full=policy) as ex:
        ex.submit(gate)
        gate.started.acquire()
        oldest = ex.submit(int)
        try:
            new = ex.submit(int, "7")
        except QueueFullError:
            assert outcome == "raised"
        else:
            states = {"dropped": new.cancelled(), "ran": new.done() and not new.cancelled()}
            assert [state for state, true in states.items() if true] == (
                [] if outcome == "waits" else [outcome]
            )
        assert oldest.cancelled() == (outcome == "waits")
        stats = ex.stats()
        assert (stats.rejected_tasks, stats.submitted_tasks, stats.cancelled_tasks) == counts
        assert stats.overflow_tasks == 0
        gate.open()


@pytest.mark.parametrize("aging", [None, 10.0])
def test_drop_oldest_goes_through_the_line(aging: float | None, gate: Gate) -> None:
    """Drop after drop, in order of waiting; what was cancelled is not dropped again."""
    with BoundedExecutor(1, queue_size=3, on_full=OnFull.DROP_OLDEST, aging=aging) as ex:
        ex.submit_with_priority(100, gate)
        gate.started.acquire()
        futures = [ex.submit(int) for _ in range(3)]
        futures[0].cancel()
        futures += [ex.submit(int) for _ in range(20)]
        assert [f.cancelled() for f in futures] == [True] * 20 + [False] * 3
        assert ex.stats().rejected_tasks == 19
        assert ex.stats().cancelled_tasks == 20
        assert ex.stats().queued_tasks == 3
        gate.open()


def test_who_leaves_the_line_does_not_disturb_it(gate: Gate) -> None:
    """The second of four blocked submitters gives up; the others keep their order."""
    token = CancelToken()
    admitted: dict[int, Future[int]] = {}
    with BoundedExecutor(1, queue_size=0) as ex:
        ex.submit(gate)

        def submit(number: int) -> None:
            entered = ex.options(token=token) if number == 1 else ex
            admitted[number] = entered.submit(int)

        threads = []
        for number in range(4):
            threads.append(threading.Thread(target=submit, args=(number,)))
            threads[-1].start()
            until_blocked(ex, number + 1)
        token.cancel()
        threads[1].join(30)
        assert admitted[1].cancelled()
        gate.open()
        for thread in threads:
            thread.join(30)
        assert [admitted[number].task_id for number in (0, 2, 3)] == [2, 3, 4]
        assert ex.wait(30)
        stats = ex.stats()
        assert (stats.submitted_tasks, stats.rejected_tasks, stats.cancelled_tasks) == (4, 1, 0)


def test_priority_does_not_overtake_the_blocked(gate: Gate) -> None:
    """Places go by waiting; the order of starting is another matter."""
    ids: dict[str, int] = {}
    with BoundedExecutor(1, queue_size=0) as ex:
        ex.submit(gate)
        threads = []
        for name, priority in (("low", 0), ("high", 9)):
            thread = threading.Thread(
                target=lambda name=name, priority=priority: ids.update(
                    {name: ex.submit_with_priority(priority, int).task_id}
                )
            )
            thread.start()
            threads.append(thread)
            until_blocked(ex, len(threads))
        gate.open()
        for thread in threads:
            thread.join(30)
    assert ids == {"low": 2, "high": 3}


def test_a_crawler_whose_pages_fail(gate: Gate) -> None:
    """Tasks that submit tasks and then raise, under a bound, with a map among them."""
    with BoundedExecutor(2, queue_size=1, error_handler=id) as ex:
        seen: list[int] = []

        def visit(node: int) -> None:
            seen.append(node)
            if node < 64:
                ex.submit(visit, 2 * node)
                list(ex.map(visit_leaf, [2 * node + 1]))
            raise LookupError(node)

        def visit_leaf(node: int) -> None:
            seen.append(node)

        ex.submit(visit, 1)
        assert ex.wait(30)
        stats = ex.stats()
    assert sorted(seen) == sorted([2**n for n in range(7)] + [2 ** (n + 1) + 1 for n in range(6)])
    assert (stats.failed_tasks, stats.completed_tasks) == (7, 13)


@pytest.mark.parametrize("named", [False, True])
def test_the_warning_shows_the_line_that_submits(named: bool, gate: Gate) -> None:
    """Not a line of the library, also through a view."""

    async def main() -> None:
        entered = ex.options(name="mine") if named else ex
        ex.submit(gate)
        with pytest.warns(RuntimeWarning, match=r"arun\(") as caught:
            entered.submit(int)
        assert [warning.filename for warning in caught] == [__file__]
        gate.open()

    with BoundedExecutor(1, queue_size=0) as ex:
        asyncio.run(main())


def test_where_warnings_are_errors_one_task_is_refused(gate: Gate) -> None:
    """It never runs, and the others go over the bound as ever."""
    ran: list[int] = []

    async def main() -> None:
        ex.submit(gate)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(FuturePoolWarning):
                ex.submit(ran.append, 1)
            ex.submit(ran.append, 2)
        gate.open()

    with BoundedExecutor(1, queue_size=0) as ex:
        asyncio.run(main())
    assert ran == [2]


def test_an_event_loop_gets_the_other_policies_as_anyone(gate: Gate) -> None:
    """Those do not block it."""

    async def main() -> None:
        with pytest.raises(QueueFullError):
            ex.try_submit(int)
        assert ex.options(on_full=OnFull.DROP_NEW).submit(int).cancelled()
        assert ex.options(on_full=OnFull.CALLER_RUNS).submit(threading.get_ident).result() == (
            threading.get_ident()
        )
        assert ex.stats().overflow_tasks == 0

    with BoundedExecutor(1, queue_size=0) as ex:
        ex.submit(gate)
        asyncio.run(main())
        gate.open()
