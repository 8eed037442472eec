"""CancelToken through the executor."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from concurrent.futures import CancelledError
from typing import Any

import pytest

from futurepool import (
    BoundedExecutor,
    CancelToken,
    Future,
    OnFull,
    QueueFullError,
    current_token,
)
from futurepool._pool import overload
from tests.faults.tools import until
from tests.helpers import hold


def test_queued_tasks_are_cancelled_at_once(gate: threading.Event) -> None:
    """Without a free worker; they never start, and others are not touched."""
    ran: list[int] = []
    with BoundedExecutor(1) as ex, CancelToken() as token:
        hold(ex, gate)
        under = [ex.submit_with_token(token, ran.append, n) for n in range(20)]
        other = ex.submit(int)
        token.cancel("enough")
        assert all(future.cancelled() for future in under)
        assert ex.stats().queued_tasks == 1
        gate.set()
        assert other.result(30) == 0
    assert ran == []
    assert ex.stats().cancelled_tasks == 20


def test_running_tasks_are_told() -> None:
    """They see it in current_token(), and its reason."""
    token = CancelToken()
    started = threading.Event()

    def task() -> object:
        started.set()
        assert current_token().wait(30)
        return current_token().reason

    with BoundedExecutor(1) as ex:
        future = ex.submit_with_token(token, task)
        started.wait(30)
        token.cancel("why")
        assert future.result(30) == "why"


def test_cancelling_a_running_future_tells_its_task_only() -> None:
    """Future.cancel returns False, as the standard has it; the token above is not cancelled."""
    token = CancelToken()
    started = threading.Semaphore(0)
    release = threading.Event()

    def task() -> bool:
        mine = current_token()
        started.release()
        release.wait(30)
        return mine.cancelled

    with BoundedExecutor(2) as ex:
        first, second = [ex.submit_with_token(token, task) for _ in range(2)]
        started.acquire()
        started.acquire()
        assert first.cancel() is False
        release.set()
        assert (first.result(30), second.result(30)) == (True, False)
        assert not token.cancelled


def test_each_task_has_its_own_token() -> None:
    """The same one through the task's life."""

    def task() -> tuple[bool, CancelToken]:
        return current_token() is current_token(), current_token()

    with BoundedExecutor(1) as ex:
        (same, one), (_, two) = ex.submit(task).result(), ex.submit(task).result()
    assert same
    assert one is not two


def test_outside_a_task_nobody_cancels() -> None:
    """Code that looks at its token runs anywhere."""
    assert not current_token().cancelled
    current_token().raise_if_cancelled()


def test_a_child_token_cancels_only_below(gate: threading.Event) -> None:
    """Cancelling goes down the tree, not up."""
    root = CancelToken()
    child = root.child()
    with BoundedExecutor(1) as ex:
        ex.submit(gate.wait)
        above, below = ex.submit_with_token(root, int), ex.submit_with_token(child, int)
        child.cancel()
        assert (above.cancelled(), below.cancelled()) == (False, True)
        root.cancel()
        assert above.cancelled()
        gate.set()


def test_a_deadline_cancels_queued_tasks(gate: threading.Event) -> None:
    """When it passes, not when a worker gets there."""
    with BoundedExecutor(1) as ex:
        ex.submit(gate.wait)
        told = threading.Event()
        future = ex.submit_with_token(CancelToken(timeout=0.01), int)
        future.add_done_callback(lambda _: told.set())
        assert told.wait(30)
        assert future.cancelled()
        with pytest.raises(CancelledError):
            future.result()
        gate.set()


def test_thousands_of_tokens_cost_no_thread_each(gate: threading.Event) -> None:
    """One timer serves all deadlines."""
    with BoundedExecutor(1, queue_size=None) as ex:
        ex.submit(gate.wait)
        tokens = [CancelToken(timeout=3600) for _ in range(5000)]
        futures = [ex.submit_with_token(token, int) for token in tokens]
        before = threading.active_count()
        assert before < 20
        tokens[4321].cancel()
        assert [n for n, future in enumerate(futures) if future.cancelled()] == [4321]
        gate.set()


def test_a_token_lets_go_of_finished_tasks() -> None:
    """A long-lived token does not collect the futures of short tasks."""
    token = CancelToken()
    with BoundedExecutor(1) as ex:
        seen: list[weakref.ref[Future[int]]] = []
        for _ in range(50):
            future = ex.submit_with_token(token, int)
            future.result(30)
            seen.append(weakref.ref(future))
            del future
        assert ex.wait(30)
    gc.collect()
    assert [ref for ref in seen if ref() is not None] == []


def test_a_token_on_a_view(gate: threading.Event) -> None:
    """For maps, too: leaving the scope cancels what is left."""
    with BoundedExecutor(1) as ex:
        hold(ex, gate)
        with CancelToken() as token:
            results = ex.options(token=token).map(abs, range(5))
        with pytest.raises(CancelledError):
            next(results)
        assert ex.stats().queued_tasks == 0
        gate.set()


def test_a_token_callback_may_submit(gate: threading.Event) -> None:
    """It runs outside every lock."""
    with BoundedExecutor(1) as ex:
        ex.submit(gate.wait)
        token = CancelToken()
        more: list[Future[int]] = []
        token.add_callback(lambda _: more.append(ex.submit(int)))
        ex.submit_with_token(token, int)
        token.cancel()
        gate.set()
        assert more[0].result(30) == 0


def test_racing_a_token_against_the_start() -> None:
    """Each task either ran or was cancelled, never both, and the counters agree."""
    ran = bytearray(400)

    def task(number: int) -> None:
        ran[number] += 1

    with BoundedExecutor(4, queue_size=None) as ex:
        futures = []
        for start in range(0, 400, 20):
            token = CancelToken()
            futures += [ex.submit_with_token(token, task, start + n) for n in range(20)]
            token.cancel()
    for number, future in enumerate(futures):
        assert ran[number] == (not future.cancelled())
    stats = ex.stats()
    assert stats.completed_tasks == sum(ran)
    assert stats.cancelled_tasks == 400 - sum(ran)


def test_everybody_hears_of_it_before_cancel_returns(gate: threading.Event) -> None:
    """Callbacks are called in the thread that cancels, waiters are woken."""
    with BoundedExecutor(1) as ex:
        hold(ex, gate)
        token = CancelToken()
        future = ex.submit_with_token(token, int)
        heard: list[tuple[Future[int], int]] = []
        future.add_done_callback(lambda f: heard.append((f, threading.get_ident())))
        assert token.cancel()
        assert heard == [(future, threading.get_ident())]
        assert not token.cancel()
        assert len(heard) == 1
        gate.set()


def test_a_cancelled_task_gives_its_place_back(gate: threading.Event) -> None:
    """At once, with the worker still busy."""
    with BoundedExecutor(1, queue_size=2) as ex:
        hold(ex, gate)
        token = CancelToken()
        for _ in range(2):
            ex.submit_with_token(token, int)
        with pytest.raises(QueueFullError):
            ex.try_submit(int)
        token.cancel()
        for _ in range(2):
            ex.try_submit(int)
        with pytest.raises(QueueFullError):
            ex.try_submit(int)
        gate.set()


def test_a_blocked_submit_returns_a_cancelled_future(gate: threading.Event) -> None:
    """Whether the token is cancelled before, while or after it blocks; no place is lost."""
    with BoundedExecutor(1, queue_size=1) as ex:
        hold(ex, gate)
        queued = ex.submit(int)
        for _ in range(20):
            token = CancelToken()
            got: list[Future[int]] = []
            thread = threading.Thread(
                target=lambda token=token, got=got: got.append(ex.submit_with_token(token, int))
            )
            thread.start()
            token.cancel()
            thread.join(30)
            assert got[0].cancelled()
        gate.set()
        assert queued.result(30) == 0
        assert ex.wait(30)
        stats = ex.stats()
        assert stats.submitted_tasks == stats.completed_tasks + stats.cancelled_tasks
        assert stats.rejected_tasks + stats.cancelled_tasks == 20


def test_a_place_that_comes_free_as_nothing_is_left_finds_the_worker_awake(
    gate: threading.Event,
) -> None:
    """All that is queued is just being cancelled, and the worker drops it: who has waited is next."""
    token, told = CancelToken(), threading.Event()
    token.add_callback(lambda _: told.wait(60))  # before the tasks hear of it
    with BoundedExecutor(1, queue_size=1) as ex:
        hold(ex, gate)
        ex.submit_with_token(token, int)
        results: list[Any] = []
        first = threading.Thread(target=ex.submit_with_token, args=(token, int))
        second = threading.Thread(target=lambda: results.append(ex.submit(int).result(30)))
        for number, thread in enumerate([first, second], 1):
            thread.start()
            assert until(lambda number=number: ex._pool.waiters.count() == number)
        canceller = threading.Thread(target=token.cancel)
        canceller.start()
        assert until(lambda: token.cancelled)
        gate.set()
        second.join(60)
        assert results == [0]
        told.set()
        first.join(60)
        canceller.join(60)


def test_a_token_cancelled_on_the_way_to_the_line_counts_once(
    gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused as full, cancelled before it stands in the line: one rejected task."""
    token = CancelToken()

    class CancelFirst(overload.Vigil):
        def __init__(self, *args: Any) -> None:
            token.cancel()
            super().__init__(*args)

    monkeypatch.setattr(overload, "Vigil", CancelFirst)
    with BoundedExecutor(1, queue_size=0) as ex:
        hold(ex, gate)
        future = ex.submit_with_token(token, int)
        gate.set()
        assert future.cancelled()
        assert ex.stats().rejected_tasks == 1


def test_under_a_cancelled_token_nothing_is_run() -> None:
    """The future comes back cancelled, whichever entrance, also past the deadline."""
    token, late = CancelToken(), CancelToken(timeout=0)
    token.cancel()
    ran: list[int] = []
    policies = [policy for policy in OnFull if policy is not OnFull.SHED]  # which is a pool's
    with BoundedExecutor(1) as ex:
        for dead in (token, late, token.child(), CancelToken(parent=late)):
            assert ex.submit_with_token(dead, ran.append, 1).cancelled()
            for on_full in policies:
                view = ex.options(token=dead, on_full=on_full)
                future = view.submit(ran.append, 1)
                assert future.cancelled()
                with pytest.raises(CancelledError):
                    future.result(0)
        assert ex.stats().submitted_tasks == 0
        assert ex.stats().rejected_tasks == 4 * (1 + len(policies))
    assert ran == []


def test_a_deadline_of_an_ancestor_counts(gate: threading.Event) -> None:
    """The tasks under a grandchild are cancelled when the root's time is up."""
    with BoundedExecutor(1) as ex:
        hold(ex, gate)
        root = CancelToken(timeout=0.01)
        leaf = root.child(timeout=3600).child()
        told = threading.Event()
        future = ex.submit_with_token(leaf, int)
        future.add_done_callback(lambda _: told.set())
        assert told.wait(30)
        assert future.cancelled()
        assert "deadline" in str(leaf.reason)
        gate.set()


def test_a_deadline_nobody_else_holds(gate: threading.Event) -> None:
    """The queue keeps the token alive."""
    with BoundedExecutor(1) as ex:
        hold(ex, gate)
        told = threading.Event()
        future = ex.options(token=CancelToken(timeout=0.01)).submit(int)
        future.add_done_callback(lambda _: told.set())
        gc.collect()
        assert told.wait(30)
        assert future.cancelled()
        gate.set()


def test_a_running_task_sees_its_deadline() -> None:
    """In current_token(): how long is left, and that it has passed."""

    def task() -> tuple[float | None, bool]:
        token = current_token()
        return token.remaining, token.wait(30)

    with BoundedExecutor(1) as ex:
        # Long enough to be started in time, or it is cancelled in the queue, and tried again.
        for timeout in (0.05, 1.0, 20.0):
            future = ex.submit_with_token(CancelToken(timeout=timeout), task)
            try:
                left, cancelled = future.result(30)
            except CancelledError:
                continue
            assert left is not None
            assert 0 <= left <= timeout
            assert cancelled
            break
        else:
            raise AssertionError("never started")


def test_a_task_may_cancel_itself() -> None:
    """Its future says False, its token is cancelled; cancelling the token it was submitted under too."""
    box: list[Future[Any]] = []
    ready = threading.Event()

    def task(token: CancelToken) -> tuple[bool, bool]:
        ready.wait(30)
        answer = box[0].cancel()
        seen = current_token().cancelled
        token.cancel()
        return answer, seen

    with BoundedExecutor(1) as ex:
        token = CancelToken()
        box.append(ex.submit_with_token(token, task, token))
        ready.set()
        assert box[0].result(30) == (False, True)
        assert box[0].cancelled() is False


def test_a_task_without_a_token_has_one() -> None:
    """Future.cancel() reaches a running task that was submitted without any."""
    started = threading.Event()

    def task() -> bool:
        started.set()
        return current_token().wait(30)

    with BoundedExecutor(1) as ex:
        future = ex.submit(task)
        assert started.wait(30)
        assert future.cancel() is False
        assert future.cancel() is False
        assert future.result(30) is True
        assert future.cancel() is False


def test_cancelling_before_the_task_looks() -> None:
    """A token made only after the cancellation is cancelled all the same."""
    go, started = threading.Event(), threading.Event()

    def task() -> tuple[bool, object]:
        started.set()
        go.wait(30)
        return current_token().cancelled, current_token().reason

    for cancel in ("future", "token"):
        go.clear()
        started.clear()
        token = CancelToken()
        with BoundedExecutor(1) as ex:
            future = ex.submit_with_token(token, task)
            assert started.wait(30)
            if cancel == "token":
                token.cancel("why")
            else:
                future.cancel()
            go.set()
            cancelled, reason = future.result(30)
        assert cancelled
        assert reason == "why" if cancel == "token" else reason is not None


def test_raise_if_cancelled_fails_the_task() -> None:
    """Its future raises CancelledError, though it was not cancelled before it started."""
    started = threading.Event()

    def task() -> None:
        started.set()
        current_token().wait(30)
        current_token().raise_if_cancelled()

    with BoundedExecutor(1) as ex:
        future = ex.submit(task)
        assert started.wait(30)
        future.cancel()
        with pytest.raises(CancelledError):
            future.result(30)
        assert future.done()
        assert ex.stats().completed_tasks == 1


def test_the_token_of_an_outer_task_comes_back() -> None:
    """A task run inside another, by helping or on the spot, has its own token while it lasts."""
    with BoundedExecutor(1, queue_size=0) as ex:

        def outer() -> tuple[bool, bool, bool]:
            mine = current_token()
            helped = ex.submit(current_token).result()
            failed = ex.submit(int, "x")
            assert failed.exception() is not None
            return helped is mine, current_token() is mine, mine.cancelled

        assert ex.submit(outer).result(30) == (False, True, False)


def test_cancelling_an_outer_task_does_not_tell_the_inner() -> None:
    """Tokens follow options, not who runs whom; a token handed down is what links them."""
    started, go = threading.Event(), threading.Event()

    def inner() -> bool:
        started.set()
        go.wait(30)
        return current_token().cancelled

    with BoundedExecutor(1) as ex:

        def outer(linked: bool) -> bool:
            token = current_token() if linked else None
            return ex.options(token=token).submit(inner).result()

        for linked in (False, True):
            started.clear()
            go.clear()
            future = ex.submit(outer, linked)
            assert started.wait(30)
            assert future.cancel() is False
            go.set()
            assert future.result(30) is linked


def test_the_token_of_a_task_run_by_its_submitter(gate: threading.Event) -> None:
    """CALLER_RUNS: there is one inside the task, and none after it."""
    with BoundedExecutor(1, queue_size=0, on_full=OnFull.CALLER_RUNS) as ex:
        hold(ex, gate)
        token = CancelToken()
        cancelled: list[bool] = []

        def task() -> CancelToken:
            token.cancel()
            cancelled.append(current_token().cancelled)
            return current_token()

        mine = ex.submit_with_token(token, task).result(0)
        assert cancelled == [True]
        assert current_token() is not mine
        assert not current_token().cancelled
        gate.set()


def test_in_callbacks_and_initializers_nobody_cancels() -> None:
    """They are no task: a fresh token each time."""
    fresh: list[bool] = []

    def look(*_: object) -> None:
        fresh.append(not current_token().cancelled and current_token() is not current_token())

    started = threading.Event()

    def task() -> bool:
        started.set()
        return current_token().wait(30)

    with BoundedExecutor(1, initializer=look) as ex:
        future = ex.submit(task)
        future.add_done_callback(look)
        assert started.wait(30)
        future.cancel()
        assert future.result(30)
    assert fresh == [True, True]


ENDS: dict[str, Any] = {
    "returns": (int, False),
    "fails": (lambda: int("x"), False),
    "exits": (sys.exit, False),
    "looks": (current_token, False),
    "is cancelled": (int, True),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_token_keeps_no_ended_task(end: str, gate: threading.Event) -> None:
    """However a task ends, the token it was submitted under lets go of its future."""
    fn, cancel = ENDS[end]
    token = CancelToken()
    with BoundedExecutor(1, error_handler=id) as ex:
        hold(ex, gate)
        futures = [ex.submit_with_token(token, fn) for _ in range(20)]
        if cancel:
            assert [future.cancel() for future in futures] == [True] * 20
        gate.set()
        assert ex.wait(30)
    dead = [weakref.ref(future) for future in futures]
    del futures
    gc.collect()
    assert [ref for ref in dead if ref() is not None] == []
    assert not token.cancelled


def test_thousands_of_running_and_queued_tokens_make_no_thread(gate: threading.Event) -> None:
    """Neither children, nor deadlines of any length, nor waiting tasks."""
    with BoundedExecutor(1, queue_size=None) as ex:
        hold(ex, gate)
        CancelToken(timeout=3600).add_callback(id)  # from here on there is the timer
        before = threading.active_count()
        root = CancelToken(timeout=7200)
        futures = [ex.submit_with_token(root.child(1000 + n), int) for n in range(5000)]
        assert threading.active_count() == before
        root.cancel()
        assert all(future.cancelled() for future in futures)
        assert ex.stats().queued_tasks == 0
        gate.set()


def test_a_token_over_two_pools(gate: threading.Event) -> None:
    """One cancel reaches the queued tasks of both."""
    with BoundedExecutor(1) as one, BoundedExecutor(1) as two:
        hold(one, gate)
        hold(two, gate)
        token = CancelToken()
        futures = [pool.submit_with_token(token, int) for pool in (one, two) for _ in range(3)]
        token.cancel()
        assert [future.cancelled() for future in futures] == [True] * 6
        gate.set()


def test_a_callback_of_a_cancelled_task_may_raise(gate: threading.Event) -> None:
    """The other tasks under the token are cancelled all the same."""
    with BoundedExecutor(1) as ex:
        hold(ex, gate)
        token = CancelToken()
        futures = [ex.submit_with_token(token, int) for _ in range(3)]

        def leave(_: Future[int]) -> None:
            raise SystemExit

        for future in futures:
            future.add_done_callback(leave)
        token.cancel()
        assert all(future.cancelled() for future in futures)
        gate.set()


def test_four_threads_cancel_what_four_submit() -> None:
    """Whoever is first: every future is final in the end, no place and no listener is lost."""
    with BoundedExecutor(2, queue_size=8) as ex:
        for _ in range(10):
            token = CancelToken()
            barrier = threading.Barrier(8)
            futures: list[Future[int]] = []

            def submit(
                token: CancelToken = token, barrier: Any = barrier, out: Any = futures
            ) -> None:
                barrier.wait(30)
                out += [ex.submit_with_token(token, int) for _ in range(10)]

            def cancel(token: CancelToken = token, barrier: Any = barrier) -> None:
                barrier.wait(30)
                token.cancel()

            threads = [threading.Thread(target=t) for t in (submit, cancel) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(30)
            assert ex.wait(30)
            assert len(futures) == 40
            assert all(future.cancelled() or future.result(30) == 0 for future in futures)
        ex.shutdown()
        stats = ex.stats()
        assert stats.submitted_tasks == stats.completed_tasks + stats.cancelled_tasks
        assert stats.submitted_tasks + stats.rejected_tasks == 400
