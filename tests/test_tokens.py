"""CancelToken through the executor."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import CancelledError

import pytest

from futurepool import BoundedExecutor, CancelToken, Future, current_token


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    gate = threading.Event()
    yield gate
    gate.set()


def test_queued_tasks_are_cancelled_at_once(gate: threading.Event) -> None:
    """Without a free worker; they never start, and others are not touched."""
    ran: list[int] = []
    with BoundedExecutor(1) as ex, CancelToken() as token:
        ex.submit(gate.wait)
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
        ex.submit(gate.wait)
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
