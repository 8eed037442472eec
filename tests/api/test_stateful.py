"""The public API against a plain model, driven by hypothesis from one thread.

Tasks start and end only when the driver says so. After each step it waits for what the model says
happens by itself (a free worker takes the task that is due), so nothing here depends on timing.
"""

from __future__ import annotations

import threading
from collections import Counter
from concurrent import futures as cf
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from futurepool import (
    BoundedExecutor,
    CancelToken,
    ForcedShutdownError,
    OnFull,
    PoolClosedError,
    QueueFullError,
    SubmitTimeoutError,
    TaskError,
    TaskExpiredError,
    TaskTimeoutError,
    current_token,
)
from futurepool._foreign import aside

PATIENCE = 20

QUEUED, RUNNING, DONE, FAILED, CANCELLED = "queued", "running", "done", "failed", "cancelled"
EXPIRED = "expired"
OVERDUE = "overdue"  # its time is over, its function waits for the driver

POLICIES = [policy for policy in OnFull if policy is not OnFull.SHED]  # which is a pool's

#: What the constructor is given, and whether that has the newest first.
ORDERS: dict[str, tuple[dict[str, Any], bool]] = {
    "fifo": ({}, False),
    "lifo": ({"order": "lifo"}, True),
    "adaptive, in time": ({"order": "adaptive", "adaptive_wait": 1000}, False),
    "adaptive, late": ({"order": "adaptive", "adaptive_wait": 1e-12}, True),
}


class Task:
    """What runs in the pool, and what the model thinks of it."""

    def __init__(
        self, priority: int, quick: bool, fails: bool, token: CancelToken | None, of_view: bool
    ) -> None:
        self.priority = priority
        self.of_view = of_view  # of which some may run at a time
        self.quick = quick  # does not wait for the driver
        self.overruns = False  # its time is over as soon as it runs
        self.abandoned = False  # then its thread is written off
        self.fails = fails
        self.under = token
        self.state = QUEUED
        self.told = False  # its token is cancelled
        self.watched = not fails  # has a done-callback; some go without, which is the fast path
        self.calls = 0  # of the done-callback
        self.runs = 0
        self.started = threading.Event()
        self.gate = threading.Event()
        self.token: CancelToken | None = None  # its own, once it runs
        self.future: Any = None

    def __call__(self) -> str:
        self.runs += 1
        self.token = current_token()
        self.started.set()
        if not self.quick:
            assert self.gate.wait(PATIENCE)
        if self.fails:
            raise LookupError(self.priority)
        return "result"

    def called(self, _future: Any) -> None:
        self.calls += 1


class Pool(RuleBasedStateMachine):
    """One executor and its model."""

    @initialize(
        workers=st.integers(1, 3),
        queue=st.sampled_from([0, 1, 2, 5, None]),
        order=st.sampled_from([*ORDERS, "fifo", "fifo"]),
        some=st.integers(1, 2),
    )
    def make(self, workers: int, queue: int | None, order: str, some: int) -> None:
        self.workers = workers
        self.limit = float("inf") if queue is None else workers + queue
        self.newest_first = ORDERS[order][1]
        self.ex = BoundedExecutor(workers, queue_size=queue, **ORDERS[order][0])
        self.some = some  # tasks of this view may run at a time
        self.view = (
            None
            if "adaptive_wait" in ORDERS[order][0]
            else self.ex.options(limit=some, name="some")
        )
        self.made: list[Task] = []
        self.tasks: list[Task] = []  # all that were admitted, in order of admission
        self.refused: list[Any] = []  # futures that came back cancelled
        self.tokens: list[CancelToken] = []
        self.parents: list[int | None] = []
        self.rejected: Counter[str] = Counter()  # by reason
        self.drawers = 0  # tasks of maps whose workers draw the calls: all completed
        self.failed_calls = 0  # each of these has failed one
        self.closed = False

    def teardown(self) -> None:
        """Everything admitted comes to its end, and the threads too."""
        if not hasattr(self, "ex"):
            return
        for task in self.made:
            task.gate.set()
        self.ex.shutdown()
        assert not any(thread.is_alive() for thread in self.ex._threads)
        for task in self.tasks:
            assert task.future.done()
            never = task.future.cancelled() or task.state is EXPIRED
            assert never or task.future.exception(0) is None or task.fails or task.overruns
            assert task.calls == task.watched
            assert task.runs == (0 if task.state in (CANCELLED, EXPIRED) else 1)
        stats = self.ex.stats()
        assert stats.completed_tasks + stats.cancelled_tasks == len(self.tasks) + self.drawers
        self.until_back(self.tasks)

    # -- the model ---------------------------------------------------------------------------------

    def those(self, *states: str) -> list[Task]:
        return [task for task in self.tasks if task.state in states]

    def due(self) -> Task | None:
        queued = [task for task in self.those(QUEUED) if not (task.of_view and self.view_is_full())]
        if self.newest_first:
            queued.reverse()
        return max(queued, key=lambda task: task.priority) if queued else None  # the first of them

    def kept(self) -> list[Task]:
        """Those whose time is over, and whose function keeps its worker."""
        return [task for task in self.those(OVERDUE) if not task.abandoned]

    def view_is_full(self) -> bool:
        return sum(task.of_view for task in self.those(RUNNING) + self.kept()) >= self.some

    def busy(self) -> int:
        return len(self.those(RUNNING)) + len(self.kept())

    def until_back(self, tasks: list[Task]) -> None:
        """Wait until none of these functions goes on. Others may begin to meanwhile."""
        pause, pool = threading.Event(), self.ex._futurepool
        futures = [task.future for task in tasks]
        for _ in range(100 * PATIENCE):
            with pool.mutex:
                if not any(run.task in futures for run in pool.overdue.values()):
                    return
            pause.wait(0.01)
        raise AssertionError("a function does not return")

    def settle(self) -> None:
        """Let the model do what workers do by themselves, and wait until they have done it."""
        while self.busy() < self.workers and (task := self.due()) is not None:
            if task.overruns:
                task.state, task.told = OVERDUE, True
                assert task.started.wait(PATIENCE)
                assert isinstance(task.future.exception(PATIENCE), TaskTimeoutError)
                assert task.token is not None
                assert task.token.wait(PATIENCE)
            else:
                task.state = RUNNING if not task.quick else FAILED if task.fails else DONE
        for task in self.tasks:
            if task.state is RUNNING:
                assert task.started.wait(PATIENCE), "a task that is due does not start"
            elif task.state is not QUEUED:
                assert cf.wait([task.future], PATIENCE).done

    def below(self, number: int) -> list[CancelToken]:
        """A token and all its descendants."""
        found = {number}
        for child, parent in enumerate(self.parents):
            if parent in found:
                found.add(child)
        return [self.tokens[n] for n in found]

    # -- steps ----------------------------------------------------------------------------------------

    @rule(
        calls=st.lists(
            st.tuples(
                st.integers(-1, 3),
                st.sampled_from([*POLICIES, "try_submit", "timeout"]),
                st.sampled_from([False, False, False, True]),
                st.booleans(),
                st.integers(0, 5),
                st.sampled_from([False, False, True]),
                st.sampled_from([False, False, True]),
                st.sampled_from([None, None, None, None, False, True]),
            ),
            min_size=1,
            max_size=4,
        )
    )
    def submit(self, calls: list[tuple[int, Any, bool, bool, int, bool, bool, Any]]) -> None:
        """Submit a few tasks."""
        for call in calls:
            self.submit_one(*call)

    def submit_one(
        self,
        priority: int,
        policy: Any,
        quick: bool,
        fails: bool,
        token: int,
        limited: bool,
        of_view: bool,
        overruns: bool | None,
    ) -> None:
        """Submit in any way, with room or without."""
        under = self.tokens[token] if token < len(self.tokens) else None
        full = len(self.those(QUEUED, RUNNING)) >= self.limit
        # It expires for sure only where it is queued, and nothing ends before the driver says so.
        expires = limited and not full and self.busy() == self.workers
        of_view = of_view and self.view is not None
        held = of_view and self.view_is_full()
        if full and (policy is OnFull.BLOCK or (policy is OnFull.CALLER_RUNS and held)):
            policy = "timeout"  # nobody would wake the driver
        if policy is OnFull.CALLER_RUNS and full:
            quick = True  # the same
        task = Task(priority, quick, fails, under, of_view)
        task.overruns = overruns is not None and not quick
        # So many may be written off; which, if there were more at a time, nobody knows.
        written_off = [other.abandoned and other.state in (QUEUED, OVERDUE) for other in self.tasks]
        task.abandoned = bool(overruns) and sum(written_off) < 2 * self.workers
        self.made.append(task)
        options: dict[str, Any] = {"priority": priority, "token": under}
        if policy == "timeout":
            options["timeout"] = 0.0
        elif policy != "try_submit":
            options["on_full"] = policy
        if limited:
            options["max_wait"] = 0.0005 if expires else 1000
        if overruns is not None:
            options["run_timeout"] = 0.0005 if task.overruns else 1000
            options["abandon"] = task.abandoned
        view = (self.view if of_view else self.ex).options(**options)  # type: ignore[union-attr]
        send = view.try_submit if policy == "try_submit" else view.submit
        try:
            future = send(task)
        except PoolClosedError:
            assert self.closed
            return
        except SubmitTimeoutError:
            assert (full, self.closed, policy) == (True, False, "timeout")
            self.rejected["timeout"] += 1
            return
        except QueueFullError:
            assert (full, self.closed) == (True, False)
            assert policy in ("try_submit", OnFull.RAISE)
            self.rejected["full"] += 1
            return
        assert not self.closed
        if under is not None and under.cancelled:
            self.refuse(task, future, "cancelled")
            return
        if full and policy is OnFull.CALLER_RUNS:
            task.state = FAILED if fails else DONE
        elif full:
            assert policy in (OnFull.DROP_OLDEST, OnFull.DROP_NEW)
            queued = self.those(QUEUED)
            if policy is OnFull.DROP_NEW or not queued:
                self.refuse(task, future, "dropped")
                return
            self.rejected["dropped"] += 1
            min(queued, key=lambda other: other.priority).state = CANCELLED  # the first of them
        task.future = future
        self.tasks.append(task)
        assert future.task_id == len(self.tasks) + self.drawers
        if task.watched:
            future.add_done_callback(task.called)
        if expires:
            assert isinstance(future.exception(PATIENCE), TaskExpiredError)
            task.state = EXPIRED
            self.rejected["expired"] += 1
        self.settle()

    def refuse(self, task: Task, future: Any, reason: str) -> None:
        assert future.cancelled()
        assert (task.runs, future.task_id) == (0, 0)
        self.rejected[reason] += 1
        self.refused.append(future)

    @precondition(lambda self: not self.closed and self.busy() < self.workers)
    @rule(
        calls=st.lists(st.booleans(), max_size=6),
        ordered=st.booleans(),
        buffersize=st.sampled_from([None, 1, 3]),
        priority=st.integers(-1, 3),
    )
    def draw(self, calls: list[bool], ordered: bool, buffersize: int | None, priority: int) -> None:
        """A map whose workers draw the calls, some of which fail. Nobody knows how many tasks that takes."""
        if len(self.those(QUEUED, RUNNING)) >= self.limit:
            return  # nobody would wake the driver
        before = self.ex.stats().submitted_tasks
        ran: list[int] = []

        def call(number: int) -> int:
            ran.append(number)
            if calls[number]:
                raise LookupError(number)
            return number

        view = self.ex.options(priority=priority)
        outcomes = list(
            (view.map if ordered else view.map_unordered)(
                call,
                range(len(calls)),
                chunksize="auto",
                buffersize=buffersize,
                return_exceptions=True,
            )
        )
        found = [each if isinstance(each, int) else each.args[0] for each in outcomes]
        assert (found if ordered else sorted(found)) == sorted(ran) == list(range(len(calls)))
        assert sum(isinstance(each, LookupError) for each in outcomes) == sum(calls)
        unfinished = len(self.those(QUEUED, RUNNING))
        pause = threading.Event()
        for _ in range(100 * PATIENCE):
            if self.ex._pool.unfinished == unfinished:
                break
            pause.wait(0.01)
        self.drawers += self.ex.stats().submitted_tasks - before
        self.failed_calls += sum(calls)

    @precondition(lambda self: self.those(RUNNING))
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        """Let a running task end; the next one that is due starts."""
        running = self.those(RUNNING)
        task = running[data.draw(st.integers(0, len(running) - 1))]
        task.gate.set()
        error = task.future.exception(PATIENCE)
        if task.fails:
            assert isinstance(error, TaskError)
            assert isinstance(error, LookupError)
            assert (error.args, error.task_id) == ((task.priority,), task.future.task_id)
        else:
            assert (error, task.future.result(0)) == (None, "result")
        task.state = FAILED if task.fails else DONE
        self.settle()

    @precondition(lambda self: self.those(OVERDUE))
    @rule(data=st.data())
    def come_back(self, data: st.DataObject) -> None:
        """Let a function return whose time is over: what it says is dropped."""
        overdue = self.those(OVERDUE)
        task = overdue[data.draw(st.integers(0, len(overdue) - 1))]
        task.gate.set()
        self.until_back([task])
        task.state = FAILED
        self.settle()

    @precondition(lambda self: self.tasks)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """Cancel a task in any state."""
        task = self.tasks[data.draw(st.integers(0, len(self.tasks) - 1))]
        assert task.future.cancel() is (task.state in (QUEUED, CANCELLED))
        if task.state is QUEUED:
            task.state = CANCELLED
        elif task.state is RUNNING:
            task.told = True
        self.settle()

    @precondition(lambda self: len(self.tokens) < 4)
    @rule(parent=st.integers(0, 6))
    def make_token(self, parent: int) -> None:
        """One more token, perhaps below another."""
        mother = parent if parent < len(self.tokens) else None
        self.tokens.append(CancelToken(parent=None if mother is None else self.tokens[mother]))
        self.parents.append(mother)

    @precondition(lambda self: self.tokens)
    @rule(data=st.data())
    def cancel_token(self, data: st.DataObject) -> None:
        """Cancel a token: what is queued under it or below never starts, what runs is told."""
        number = data.draw(st.integers(0, len(self.tokens) - 1))
        self.tokens[number].cancel("a step")
        below = self.below(number)
        assert all(token.cancelled for token in below)
        for task in self.those(QUEUED, RUNNING):
            if task.under in below:
                task.told = task.state is RUNNING
                task.state = CANCELLED if task.state is QUEUED else RUNNING
        self.settle()

    @rule()
    def wait(self) -> None:
        """Say whether anything is unfinished."""
        assert self.ex.wait(0) is (not self.those(QUEUED, RUNNING))

    @precondition(lambda self: len(self.tasks) > 20)
    @rule(cancel_futures=st.booleans())
    def shutdown(self, cancel_futures: bool) -> None:
        """Close the pool without waiting."""
        self.ex.shutdown(wait=False, cancel_futures=cancel_futures)
        self.closed = True
        if cancel_futures:
            for task in self.those(QUEUED):
                task.state = CANCELLED
        self.settle()

    @precondition(lambda self: len(self.tasks) > 20)
    @rule()
    def stop(self) -> None:
        """Close the pool with no time left."""
        self.closed = True
        running = self.those(RUNNING)
        named = running + self.those(OVERDUE)
        if named:
            with pytest.raises(ForcedShutdownError) as caught:
                self.ex.stop(0)
            unfinished = {entry.task_id for entry in caught.value.unfinished}
            assert unfinished == {task.future.task_id for task in named}
        else:
            self.ex.stop(0)
        for task in self.those(QUEUED):
            task.state = CANCELLED
        for task in running:
            task.told = True
        self.settle()

    # -- what must hold after each step -----------------------------------------------------------------

    @invariant()
    def futures_agree(self) -> None:
        """Each future shows its task's state; nothing ran that should not have."""
        assert aside.join(30)  # callbacks of dropped tasks
        for task in getattr(self, "tasks", []):
            future = task.future
            assert future.running() is (task.state is RUNNING)
            assert future.cancelled() is (task.state is CANCELLED)
            assert future.done() is (task.state in (DONE, FAILED, CANCELLED, EXPIRED, OVERDUE))
            assert task.runs == (task.state in (RUNNING, DONE, FAILED, OVERDUE))
            assert future.priority == task.priority
            if task.state in (RUNNING, OVERDUE):
                assert task.token is not None
                assert task.token.cancelled is task.told
            if task.state in (CANCELLED, EXPIRED):
                assert task.calls == task.watched
            if task.state in (FAILED, OVERDUE):
                kind = TaskTimeoutError if task.overruns else LookupError
                assert isinstance(future.exception(0), kind)

    @invariant()
    def stats_agree(self) -> None:
        """Every counter is the model's."""
        if not hasattr(self, "ex"):
            return
        stats = self.ex.stats()
        running, queued = self.those(RUNNING), self.those(QUEUED)
        assert stats.active_workers == len(running)
        assert stats.queued_tasks == len(queued) == self.ex._work_queue.qsize()
        assert stats.submitted_tasks == len(self.tasks) + self.drawers
        assert stats.completed_tasks == len(self.those(DONE, FAILED, OVERDUE)) + self.drawers
        assert stats.failed_tasks == len(self.those(FAILED, OVERDUE)) + self.failed_calls
        assert stats.abandoned_workers == sum(task.abandoned for task in self.those(OVERDUE))
        assert stats.cancelled_tasks == len(self.those(CANCELLED, EXPIRED))
        assert {
            reason: count for reason, count in stats.rejections.items() if count
        } == self.rejected
        assert stats.rejected_tasks == sum(self.rejected.values())
        assert stats.overflow_tasks == 0
        if self.view is None:
            return
        view = stats.views["some"]
        kept = self.kept()
        assert view.active_tasks == sum(task.of_view for task in running + kept) <= self.some
        assert view.queued_tasks == sum(task.of_view for task in queued)
        assert view.submitted_tasks == sum(task.of_view for task in self.tasks)
        failed = [task for task in self.those(FAILED, OVERDUE) if task not in kept]
        assert view.failed_tasks == sum(task.of_view for task in failed)
        never = self.those(CANCELLED, EXPIRED)
        assert view.cancelled_tasks == sum(task.of_view for task in never)
        assert stats.closed is self.ex.closed is self.closed
        assert len(queued) + len(running) <= self.limit
        assert {(entry.task_id, entry.timed_out) for entry in self.ex.running()} == {
            (task.future.task_id, task.state is OVERDUE) for task in running + self.those(OVERDUE)
        }


TestPool = pytest.mark.thorough(pytest.mark.slow(pytest.mark.timeout(150)(Pool.TestCase)))
TestPool.settings = settings(
    max_examples=50,
    stateful_step_count=50,
    derandomize=True,
    database=None,
    phases=[Phase.generate],  # a failure waits for what does not come: too slow to shrink
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
