"""Users' code runs in its own place: not in somebody else's stack, loop or thread, under their locks.

Tasks run in workers, though their submitter is one; callbacks in the thread that finishes or
cancels, or in a thread that nobody waits for; and nobody who comes by runs anybody else's.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import threading
import time
import weakref
from collections.abc import Callable
from concurrent import futures as cf
from typing import Any

import pytest

from futurepool import (
    BoundedExecutor,
    CancelToken,
    ForcedShutdownError,
    Future,
    OnFull,
    PoolClosedError,
    SubmitTimeoutError,
    _sync,
    current_token,
)
from futurepool._deadlines import timer
from futurepool._engines.threads import ThreadEngine
from futurepool._foreign import aside
from futurepool._pool import overload
from tests.helpers import hold

PATIENCE = 30
LATER = 600  # seconds


def ident() -> int:
    return threading.get_ident()


def occupied(ex: BoundedExecutor) -> None:
    """Return when somebody waits for a place."""
    pause = threading.Event()
    while not ex.stats().waiting_submitters:
        pause.wait(0.001)


# -- a worker that submits to its own full pool ----------------------------------------------------


@pytest.mark.parametrize("how", ["submit", "timeout", "map", "arun"])
def test_a_task_submitted_by_a_worker_runs_after_it(how: str) -> None:
    """Not in its stack: a one-worker pool runs one task at a time, and its lock may be held."""
    lock = threading.Lock()
    ran: list[str] = []
    with BoundedExecutor(1, queue_size=0) as ex:

        def inner(*_: object) -> None:
            with lock:
                ran.append("inner")

        async def main() -> Any:
            return asyncio.ensure_future(ex.arun(inner))

        def outer() -> Any:
            with lock:
                if how == "submit":
                    ex.submit(inner)
                elif how == "timeout":
                    ex.submit_with_timeout(60, inner)
                elif how == "map":
                    ex.map(inner, [1])
                else:
                    loop = asyncio.new_event_loop()
                    loop.run_until_complete(main())
                    assert ran == []
                ran.append("outer")
            if how == "arun":
                loop.run_until_complete(asyncio.gather(*asyncio.all_tasks(loop)))
                loop.close()

        ex.submit(outer).result(PATIENCE)
    assert ran == ["outer", "inner"]
    assert ex.stats().overflow_tasks == 1


def test_a_crawler_ten_frames_deep_meets_no_recursion_limit() -> None:
    """Each task submits the next from deep in its code; none of 5,000 fails."""
    with BoundedExecutor(2, queue_size=0) as ex:

        def visit(left: int, frames: int = 10) -> None:
            if frames:
                visit(left, frames - 1)
            elif left:
                futures.append(ex.submit(visit, left - 1))

        futures: list[Future[None]] = []
        ex.submit(visit, 5000)
        assert ex.wait(PATIENCE)
        assert len(futures) == 5000
        assert [future.exception() for future in futures] == [None] * 5000


def test_one_warning_for_each_executor_says_that_workers_go_over_the_bound(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """And it is logged by a thread that holds no lock of the task's."""
    threads: list[int] = []

    class Noting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            threads.append(threading.get_ident())

    handler = Noting()
    logging.getLogger("futurepool").addHandler(handler)
    try:
        with BoundedExecutor(1, queue_size=0) as ex:
            worker = ex.submit(lambda: (ex.submit(int), ex.submit(int), ident())[2]).result(
                PATIENCE
            )
        assert aside.join(PATIENCE)
    finally:
        logging.getLogger("futurepool").removeHandler(handler)
    assert ex.stats().overflow_tasks == 2
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "over the bound" in warnings[0]
    assert threads
    assert worker not in threads


def test_caller_runs_is_for_who_asks_for_it(gate: threading.Event) -> None:
    """There the task does run in its submitter's thread, a worker's too."""
    with BoundedExecutor(1, queue_size=0, on_full=OnFull.CALLER_RUNS) as ex:
        worker, inner = ex.submit(lambda: (ident(), ex.submit(ident).result())).result(PATIENCE)
        assert worker == inner
        assert ex.stats().overflow_tasks == 0


def test_caller_runs_deep_in_a_stack_goes_over_the_bound() -> None:
    """Tasks on top of one another would end in RecursionErrors that they did not cause."""
    with BoundedExecutor(1, queue_size=0, on_full=OnFull.CALLER_RUNS) as ex:

        def dig(left: int) -> None:
            if left:
                futures.append(ex.submit(dig, left - 1))

        futures: list[Future[None]] = []
        ex.submit(dig, 2000)
        assert ex.wait(PATIENCE)
        assert [future.exception() for future in futures] == [None] * 2000
        assert ex.stats().overflow_tasks > 0


# -- a worker that waits for its own pool ----------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 4])
def test_a_timeout_holds_in_a_task(workers: int, gate: threading.Event) -> None:
    """Whether other workers are idle or there is none: the awaited task does not run here."""
    with BoundedExecutor(workers) as ex:
        cf.wait([ex.submit(time.sleep, 0.01) for _ in range(workers)])

        def outer() -> str:
            inner = ex.submit(gate.wait, PATIENCE)
            try:
                inner.result(timeout=0.05)
            except cf.TimeoutError:
                gate.set()  # which the inner task waits for
                return f"late, then {inner.result()}"
            return "no timeout"

        assert ex.submit(outer).result(PATIENCE) == "late, then True"


def test_an_idle_worker_runs_what_another_waits_for() -> None:
    """Then the waiting worker does not."""
    with BoundedExecutor(2) as ex:
        both = threading.Barrier(2)
        cf.wait([ex.submit(both.wait, PATIENCE) for _ in range(2)])
        outer = ex.submit(lambda: (ident(), ex.submit(ident).result()))
        here, there = outer.result(PATIENCE)
        assert here != there


def test_a_worker_that_may_be_started_runs_it() -> None:
    """Likewise."""
    with BoundedExecutor(2) as ex:
        here, there = ex.submit(lambda: (ident(), ex.submit(ident).result())).result(PATIENCE)
        assert here != there


def test_where_nobody_can_tell_the_waiting_worker_runs_it(gate: threading.Event) -> None:
    """No other worker is free, and none may be started."""
    with BoundedExecutor(1) as ex:
        here, there = ex.submit(lambda: (ident(), ex.submit(ident).result())).result(PATIENCE)
        assert here == there


def test_beside_other_workers_the_waiting_one_never_runs_it(gate: threading.Event) -> None:
    """They come free one day: until then its locks are its own, as with the standard class."""
    lock = threading.RLock()

    def audit() -> bool:
        entered = lock.acquire(blocking=False)
        if entered:
            lock.release()
        return entered

    def outer() -> tuple[bool, bool]:
        with lock:
            inner = ex.submit(lambda: (ident(), audit()))
            there, entered = inner.result()
        return there == ident(), entered

    with BoundedExecutor(2) as ex:
        hold(ex, gate)
        assert ex.submit(outer).result(PATIENCE) == (False, False)
        gate.set()


@pytest.mark.parametrize("how", ["run_in_executor", "to_thread", "wrap_future"])
def test_asyncios_own_ways_are_helped_along(how: str) -> None:
    """In a task with a loop, whose pool has no other worker."""

    async def main() -> int:
        loop = asyncio.get_running_loop()
        if how == "run_in_executor":
            return await loop.run_in_executor(ex, int, "7")
        if how == "to_thread":
            loop.set_default_executor(ex)
            result = await asyncio.to_thread(int, "7")
            loop._default_executor = None  # type: ignore[attr-defined] # or it is shut down
            return result
        return await asyncio.wrap_future(ex.submit(int, "7"))

    with BoundedExecutor(1) as ex:
        assert ex.submit(asyncio.run, main()).result(PATIENCE) == 7


def in_a_loop(inner: Future[int]) -> int:
    async def main() -> int:
        return inner.result()

    return asyncio.run(main())


def while_handling(inner: Future[int]) -> int:
    try:
        raise KeyError("the outer task's")
    except KeyError:
        return inner.result()


def under_a_condition(inner: Future[int]) -> int:
    other: Future[int] = Future()
    with other._condition:
        return inner.result()


def deep_down(inner: Future[int]) -> int:
    def down(left: int) -> int:
        return down(left - 1) if left else inner.result()

    return down(200)


def by_wait(inner: Future[int]) -> int:
    (done,) = cf.wait([inner]).done
    return done.result()


def by_as_completed(inner: Future[int]) -> int:
    return next(cf.as_completed([inner])).result()


def by_await(inner: Future[int]) -> int:
    async def main() -> int:
        return await inner

    return asyncio.run(main())


def by_wrap_future(inner: Future[int]) -> int:
    async def main() -> int:
        cf.wait([inner])
        return await asyncio.wrap_future(inner)

    return asyncio.run(main())


def with_a_timeout(inner: Future[int]) -> int:
    return inner.result(PATIENCE)


def by_exception_with_a_timeout(inner: Future[int]) -> int:
    assert inner.exception(PATIENCE) is None
    return inner.result()


@pytest.mark.parametrize(
    "ask",
    [
        in_a_loop,
        while_handling,
        under_a_condition,
        deep_down,
        by_wait,
        by_as_completed,
        by_await,
        by_wrap_future,
        with_a_timeout,
        by_exception_with_a_timeout,
    ],
)
def test_a_spare_thread_runs_it_where_somebody_could_tell(ask: Any) -> None:
    """A thread like a worker's: the initializer has run there, and it may wait in turn."""
    made = threading.local()

    def initialize() -> None:
        made.here = True

    def inner() -> tuple[int, bool, bool, object]:
        loop: object = None
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            pass
        # Nested, so that the spare thread's task waits, too.
        also = ex.submit(ident).result(PATIENCE)
        return ident(), made.here, also != ident(), (sys.exc_info()[1], loop)

    with BoundedExecutor(1, "workers", initialize) as ex:
        outer = ex.submit(lambda: (ident(), ask(ex.submit(inner)), threading.active_count()))
        here, there, _ = outer.result(PATIENCE)
        assert there == (there[0], True, True, (None, None))
        assert there[0] != here
    assert [t.name for t in threading.enumerate() if t.name.startswith("workers")] == []


def test_wait_in_a_task_for_tasks_that_need_one_another() -> None:
    """`concurrent.futures.wait` holds conditions of futures while it asks for others."""
    with BoundedExecutor(2) as ex:
        go, begun = threading.Event(), threading.Event()

        def first() -> bool:
            begun.set()
            return go.wait(PATIENCE)

        def outer() -> int:
            running = ex.submit(first)
            begun.wait(PATIENCE)
            rest = [ex.submit(running.result) for _ in range(20)]
            opener = threading.Timer(0.05, go.set)
            opener.start()
            done = len(cf.wait([running, *rest]).done)
            opener.join()
            return done

        assert ex.submit(outer).result(PATIENCE) == 21


def test_what_a_worker_waits_for_takes_no_more_threads_than_it_gives_up() -> None:
    """Twenty tasks awaited by one worker run one at a time, as with the standard class's two."""
    at_once: list[int] = []
    running: set[int] = set()

    def task(number: int) -> None:
        running.add(number)
        at_once.append(len(running))
        time.sleep(0.001)
        running.discard(number)

    with BoundedExecutor(1) as ex:
        ex.submit(lambda: cf.wait([ex.submit(task, n) for n in range(20)])).result(PATIENCE)
    assert at_once == [1] * 20


def test_an_exception_being_handled_is_not_the_context_of_the_awaited_task() -> None:
    """Nor would it be in a worker of its own."""

    def fail() -> None:
        raise ValueError

    def outer() -> BaseException | None:
        try:
            raise KeyError("mine")
        except KeyError:
            return ex.submit(fail).exception()

    with BoundedExecutor(1) as ex:
        error = ex.submit(outer).result(PATIENCE)
        assert isinstance(error, ValueError)
        assert error.__context__ is None or not isinstance(error.__context__, KeyError)


def test_a_spare_thread_that_cannot_be_started_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who waits looks once in a while."""
    monkeypatch.setattr(_sync, "LOOK", 0.01)
    start = _sync.start
    refused: list[object] = []

    def refuse(thread: threading.Thread) -> None:
        if len(refused) < 2:
            refused.append(thread)
            raise RuntimeError("can't start new thread")
        start(thread)

    def outer() -> int:
        inner = ex.submit(int, "7")
        monkeypatch.setattr(_sync, "start", refuse)
        return inner.result(PATIENCE)

    with BoundedExecutor(1) as ex:
        assert ex.submit(outer).result(PATIENCE) == 7
        assert len(refused) == 2


def test_a_worker_taken_by_another_task_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """There was a free worker; it has taken something else, which waits for this very task."""
    monkeypatch.setattr(_sync, "LOOK", 0.01)
    with BoundedExecutor(2) as ex:
        done = threading.Event()

        def outer() -> int:
            ex.submit(done.wait, PATIENCE)
            inner = ex.submit_with_priority(0, int, "7")
            result = inner.result()
            done.set()
            return result

        assert ex.submit(outer).result(PATIENCE) == 7


# -- callbacks -------------------------------------------------------------------------------------


def test_nobody_who_comes_by_runs_anothers_callbacks() -> None:
    """Futures are cancelled in one thread while others submit, look and cancel under a lock that
    the callbacks take."""
    lock = threading.Lock()
    wrong: list[str] = []
    end = threading.Event()
    cancellers: set[int] = set()

    def callback(_: object) -> None:
        if threading.get_ident() not in cancellers:
            wrong.append(threading.current_thread().name)
        with lock:
            pass

    def cancel() -> None:
        cancellers.add(threading.get_ident())
        while not end.is_set():
            future = ex.submit(int)
            future.add_done_callback(callback)
            if not future.cancel():
                return

    def come_by() -> None:
        for _ in range(2000):
            with lock:
                future = ex.submit(int)
                ex.stats()
                future.cancel()
                ex.running()
        end.set()

    gate = threading.Event()
    with BoundedExecutor(1, queue_size=None) as ex:
        hold(ex, gate)
        threads = [threading.Thread(target=f) for f in (cancel, come_by, cancel)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        gate.set()
    assert wrong == []


def stop(ex: BoundedExecutor) -> None:
    with pytest.raises(ForcedShutdownError):
        ex.stop(0.01)


class Clock:
    """One that may be put forward."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self._clock = _sync.clock

    def __call__(self) -> float:
        return self._clock() + self.ahead


def expire(token: CancelToken) -> None:
    """Have its deadline come."""
    assert isinstance(_sync.clock, Clock)
    _sync.clock.ahead += LATER
    timer._wake()
    assert token.wait(PATIENCE)


def endings() -> dict[str, Callable[[BoundedExecutor, CancelToken], object]]:
    """What ends a queued task without anybody who has asked for its cancellation."""
    return {
        "deadline": lambda ex, token: expire(token),
        "drop": lambda ex, token: ex.options(on_full=OnFull.DROP_OLDEST).submit(int),
        "shutdown": lambda ex, token: ex.shutdown(wait=False, cancel_futures=True),
        "stop": lambda ex, token: stop(ex),
    }


@pytest.mark.parametrize("ending", endings())
def test_callbacks_of_nobody_run_in_a_thread_that_nobody_waits_for(
    ending: str, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under a lock that the callback takes, nothing hangs; one that is slow holds up no other."""
    monkeypatch.setattr(_sync, "clock", Clock())
    lock = threading.Lock()
    told: dict[str, int] = {}
    heard = threading.Semaphore(0)

    def slow(_: object) -> None:
        with lock:
            told["slow"] = threading.get_ident()
        gate.wait(PATIENCE)

    def quick(_: object) -> None:
        with lock:
            told["quick"] = threading.get_ident()
        heard.release()

    with BoundedExecutor(1, queue_size=1 if ending == "drop" else 2) as ex:
        hold(ex, gate)
        token = CancelToken(LATER if ending == "deadline" else None)
        others = {threading.get_ident(), *(t.ident for t in ex._threads)}
        first = ex.submit_with_token(token, int)
        first.add_done_callback(slow)
        if ending == "drop":
            with lock:
                second = ex.options(on_full=OnFull.DROP_OLDEST).submit(int)
        else:
            second = ex.submit_with_token(token, int)
        second.add_done_callback(quick)
        with lock:
            endings()[ending](ex, token)
            ex.stats()
        assert heard.acquire(timeout=PATIENCE)
        assert first.cancelled()
        assert second.cancelled()
        assert told["quick"] not in others
        gate.set()
        if ending != "shutdown":
            ex.shutdown()
    assert aside.join(PATIENCE)
    assert told["slow"] not in others


def test_a_slow_callback_holds_up_no_other_deadline(gate: threading.Event) -> None:
    """Neither a task's nor a token's."""
    with BoundedExecutor(1) as ex, BoundedExecutor(1) as other:
        hold(ex, gate)
        hold(other, gate)
        first, second, third = (CancelToken(0.01 * n) for n in (1, 2, 3))
        ex.submit_with_token(first, int).add_done_callback(lambda _: gate.wait(PATIENCE))
        second.add_callback(lambda _: gate.wait(PATIENCE))
        late = other.submit_with_token(third, int)
        assert cf.wait([late], PATIENCE).done == {late}
        gate.set()


@pytest.mark.parametrize("look", ["cancelled", "submit", "remaining"])
def test_who_notices_a_deadline_does_not_run_its_callbacks(
    look: str, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They run aside, whoever was the first to see that it has passed."""
    now = [_sync.clock()]
    monkeypatch.setattr(_sync, "clock", lambda: now[0])
    told: list[int] = []
    heard = threading.Event()
    with BoundedExecutor(1) as ex:
        hold(ex, gate)
        token = CancelToken(1000)
        token.add_callback(lambda _: told.append(ident()))
        ex.submit_with_token(token, int).add_done_callback(
            lambda _: (told.append(ident()), heard.set())
        )
        now[0] += 2000
        if look == "submit":
            ex.submit_with_token(token, int)
        else:
            assert token.cancelled
        assert heard.wait(PATIENCE)
        assert aside.join(PATIENCE)
        assert len(told) == 2
        assert threading.get_ident() not in told
        gate.set()


def test_a_cancel_in_the_middle_of_a_submit_calls_back_elsewhere(gate: threading.Event) -> None:
    """A finalizer cancels while its thread is inside a section, perhaps under a user's lock."""
    told: list[int] = []
    with BoundedExecutor(1) as ex:
        hold(ex, gate)
        future = ex.submit(int)
        future.add_done_callback(lambda _: told.append(ident()))
        with ex._pool.mutex:
            assert future.cancel()
        ex.submit(int)
        assert aside.join(PATIENCE)
        assert len(told) == 1
        assert threading.get_ident() not in told
        gate.set()


def test_who_cancels_a_token_calls_the_callbacks_of_what_a_worker_set_aside(
    gate: threading.Event,
) -> None:
    """The worker comes to the tasks first, and does not run the callbacks before its own task."""
    told: list[int] = []
    with BoundedExecutor(1) as ex:
        hold(ex, gate)
        token = CancelToken()
        future = ex.submit_with_token(token, int)
        future.add_done_callback(lambda _: told.append(ident()))

        def in_between(_: object) -> None:
            # The token is marked, and the task not yet cancelled.
            gate.set()
            assert ex.submit(int).result(PATIENCE) == 0
            assert future.cancelled()
            assert told == []

        token._listeners.pop(future)
        token.add_callback(in_between)
        token._add_listener(future)
        token.cancel()
        assert told == [threading.get_ident()]


@pytest.mark.skipif(_sync.free_threaded, reason="there an object dies where it was made, if alive")
def test_arguments_die_in_the_thread_that_cancels(gate: threading.Event) -> None:
    """Their finalizers are users' code, too."""
    died: list[int] = []

    class Argument:
        def __del__(self) -> None:
            died.append(ident())

    with BoundedExecutor(1) as ex:
        hold(ex, gate)
        pool = ex._pool
        future = ex.submit(id, Argument())
        flushed = threading.Event()
        run_deferred = pool.run_deferred

        def intrude() -> None:
            run_deferred()
            flushed.set()

        canceller = threading.Thread(target=future.cancel)
        with pool.mutex:
            canceller.start()
            intruder = threading.Thread(target=intrude)
            intruder.start()
        canceller.join(PATIENCE)
        intruder.join(PATIENCE)
        assert died == [canceller.ident]
        gate.set()


def test_shutdown_gives_callbacks_a_moment(gate: threading.Event) -> None:
    """With wait=True those of cancelled tasks have run, as with the standard class."""
    told: list[object] = []
    ex = BoundedExecutor(1)
    hold(ex, gate)
    future = ex.submit(int)
    future.add_done_callback(told.append)
    ex.shutdown(wait=False)
    gate.set()
    ex.shutdown(wait=True, cancel_futures=True)
    assert told == [future]


def test_a_job_that_blocks_holds_up_no_other_job(gate: threading.Event) -> None:
    """However many do; and with nothing left to do no thread is left."""
    done = threading.Semaphore(0)
    for _ in range(20):
        aside.run(lambda: gate.wait(PATIENCE))
        aside.run(done.release)
    for _ in range(20):
        assert done.acquire(timeout=PATIENCE)
    assert not aside.join(0)
    gate.set()
    assert aside.join(PATIENCE)
    assert not aside._runners.threads


def test_a_job_without_a_thread_waits_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is raised, nothing is lost."""
    done: list[int] = []

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_sync, "start", refuse)
    aside.run(lambda: done.append(1))
    monkeypatch.undo()
    assert done == []
    aside.run(lambda: done.append(2))
    assert aside.join(PATIENCE)
    assert sorted(done) == [1, 2]


# -- a submitter that blocks ----------------------------------------------------------------------


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks come a hundred times as often."""
    monkeypatch.setattr(_sync, "LOOK", 0.01)
    monkeypatch.setattr(overload, "_PATIENCE", 0.1)


@pytest.mark.parametrize("workers", [1, 3])
def test_callbacks_that_wait_for_the_submitter_let_it_in(
    workers: int, soon: None, caplog: pytest.LogCaptureFixture
) -> None:
    """A library submits under the lock that its own done-callback takes."""
    lock = threading.RLock()  # a callback of a task that is done runs here
    with BoundedExecutor(workers, queue_size=1) as ex:

        def callback(_: object) -> None:
            with lock:
                pass

        with lock:
            for _ in range(20):
                ex.submit(int).add_done_callback(callback)
        assert ex.wait(PATIENCE)
        assert ex.stats().overflow_tasks > 0
        assert aside.join(PATIENCE)
    assert "inside a done-callback" in caplog.text


def test_a_task_that_waits_for_the_submitter_lets_it_in(
    soon: None, caplog: pytest.LogCaptureFixture
) -> None:
    """As a server's do whose thread submits, registers callbacks, and brings what they wait for."""
    go = threading.Event()
    with BoundedExecutor(2, queue_size=0) as ex:
        waiting = [ex.submit(go.wait) for _ in range(2)]
        waiting[0].add_done_callback(int)
        more = [ex.submit(int) for _ in range(4)]  # one by the valve, then on to twice as many
        assert ex.stats().overflow_tasks == 4
        go.set()
        assert [future.result(PATIENCE) for future in more] == [0] * 4
        assert aside.join(PATIENCE)
    assert caplog.text.count("waiting for another thread") in {1, 2}


def test_who_does_not_wait_for_a_second_is_not_let_in(gate: threading.Event) -> None:
    """For so short a time all workers may be inside done-callbacks, as they are after each task."""
    inside = threading.Event()

    def callback(_: object) -> None:
        inside.set()
        gate.wait(PATIENCE)

    with BoundedExecutor(1, queue_size=0) as ex:
        begin = threading.Event()
        ex.submit(begin.wait).add_done_callback(callback)
        begin.set()
        assert inside.wait(PATIENCE)
        queued = ex.submit(int)
        with pytest.raises(SubmitTimeoutError):
            ex.submit_with_timeout(0.01, int)
        assert ex.stats().overflow_tasks == 0
        gate.set()
        assert queued.result(PATIENCE) == 0


def test_a_task_that_waits_does_not_let_others_in(soon: None) -> None:
    """But for a while it may wait for anybody: those who register no callbacks go on waiting."""
    go = threading.Event()
    with BoundedExecutor(1, queue_size=0) as ex:
        ex.submit(go.wait)
        refused: list[BaseException] = []

        def submit() -> None:
            try:
                ex.submit_with_timeout(0.2, int)
            except SubmitTimeoutError as error:
                refused.append(error)

        other = threading.Thread(target=submit)
        other.start()
        other.join(PATIENCE)
        assert len(refused) == 1
        assert ex.stats().overflow_tasks == 0
        go.set()


def test_who_gets_a_place_is_told_before_the_callbacks(
    gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may want the lock under which it submits; no look is needed to mend that."""
    lock = threading.RLock()
    woken: list[bool] = []

    def sleep(lock: Any, timeout: float | None, look: object) -> None:
        woken.append(lock.acquire(True, PATIENCE if timeout is None else timeout))

    def callback(_: object) -> None:
        with lock:
            pass

    with BoundedExecutor(1, queue_size=0) as ex:
        first = ex.submit(gate.wait, PATIENCE)
        first.add_done_callback(callback)
        with lock:
            monkeypatch.setattr(_sync, "sleep_at", sleep)
            threading.Thread(target=lambda: (occupied(ex), gate.set())).start()
            ex.submit(int)
        monkeypatch.undo()
        assert woken == [True]
        assert ex.stats().overflow_tasks == 0


def test_a_slow_task_does_not_let_the_submitter_in(
    soon: None, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bound holds while a worker may still come free."""
    with BoundedExecutor(2, queue_size=0) as ex:
        go, held = threading.Event(), threading.Event()
        first = ex.submit(go.wait, PATIENCE)
        first.add_done_callback(lambda _: (held.set(), gate.wait(PATIENCE)))
        go.set()
        held.wait(PATIENCE)
        hold(ex, gate)
        ex.submit(int)  # the place of the one in its callback
        looks: list[int] = []
        look = ThreadEngine.reap_dead_workers

        def count(engine: ThreadEngine) -> None:
            looks.append(1)
            if len(looks) == 30:
                gate.set()
            look(engine)

        monkeypatch.setattr(ThreadEngine, "reap_dead_workers", count)
        ex.submit(int)
        assert len(looks) >= 30
        assert ex.stats().overflow_tasks == 0


def test_tasks_that_feed_a_full_queue_do_not_let_the_submitter_in(
    soon: None, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it registers callbacks: backpressure goes on through both."""
    import queue as queues

    feed: queues.Queue[int] = queues.Queue(1)
    looks: list[int] = []
    look = ThreadEngine.reap_dead_workers

    def count(engine: ThreadEngine) -> None:
        looks.append(1)
        if len(looks) == 30:
            feed.get()
        look(engine)

    with BoundedExecutor(1, queue_size=0) as ex:
        feed.put(0)
        ex.submit(feed.put, 1).add_done_callback(lambda _: None)
        monkeypatch.setattr(ThreadEngine, "reap_dead_workers", count)
        ex.submit(int)
        assert len(looks) >= 30
        assert ex.stats().overflow_tasks == 0


def test_a_submitter_that_waits_in_vain_says_what_for(
    soon: None, gate: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, with the running tasks, their age and the line they are at."""

    def stuck() -> None:
        gate.wait(PATIENCE)

    class Opening(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "waits for a place" in record.getMessage():
                gate.set()

    handler = Opening()
    logging.getLogger("futurepool").addHandler(handler)
    try:
        with BoundedExecutor(1, queue_size=0) as ex:
            ex.submit(stuck)
            ex.submit(int)
        assert aside.join(PATIENCE)
    finally:
        logging.getLogger("futurepool").removeHandler(handler)
    (message,) = [r.getMessage() for r in caplog.records if "waits for a place" in r.getMessage()]
    assert "task 1 (" in message
    assert "stuck" in message
    assert f"{__file__}:" in message


def test_where_the_log_is_stuck_too_stderr_says_it(
    soon: None, gate: threading.Event, capsys: pytest.CaptureFixture[str]
) -> None:
    """A log handler that ships through a full pool holds its own lock meanwhile."""

    class Stuck(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "waits for a place" in record.getMessage():
                gate.wait(PATIENCE)

    class Stderr:
        def write(self, text: str) -> int:
            written.append(text)
            gate.set()
            return len(text)

        def flush(self) -> None:
            pass

    written: list[str] = []
    handler = Stuck()
    logging.getLogger("futurepool").addHandler(handler)
    kept, sys.stderr = sys.stderr, Stderr()  # type: ignore[assignment]
    try:
        with BoundedExecutor(1, queue_size=0) as ex:
            ex.submit(gate.wait, PATIENCE)
            ex.submit(int)
    finally:
        sys.stderr = kept
        logging.getLogger("futurepool").removeHandler(handler)
    assert "waits for a place" in "".join(written)
    assert aside.join(PATIENCE)


def test_who_waits_for_a_place_is_counted(gate: threading.Event) -> None:
    """Threads and coroutines."""
    with BoundedExecutor(1, queue_size=0) as ex:
        hold(ex, gate)
        assert ex.stats().waiting_submitters == 0
        threads = [threading.Thread(target=ex.submit, args=(int,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        while ex.stats().waiting_submitters < 3:
            pass

        async def main() -> None:
            calls = [asyncio.ensure_future(ex.arun(int)) for _ in range(4)]
            await asyncio.sleep(0)
            assert ex.stats().waiting_submitters == 7
            calls[0].cancel()
            await asyncio.sleep(0)
            assert ex.stats().waiting_submitters == 6
            gate.set()
            await asyncio.gather(*calls[1:])

        asyncio.run(main())
        for thread in threads:
            thread.join(PATIENCE)
        assert ex.stats().waiting_submitters == 0


# -- closing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["loop", "worker", "caller_runs"])
def test_nothing_gets_in_over_the_bound_after_a_shutdown(
    way: str, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pool is closed between the look at the queue and the admission."""
    ran: list[int] = []
    policy = OnFull.CALLER_RUNS if way == "caller_runs" else OnFull.BLOCK
    ex = BoundedExecutor(1, queue_size=0, on_full=policy)

    def closing(then: Any) -> Any:
        def call(*args: Any) -> Any:
            ex.shutdown(wait=False)
            return then(*args)

        return call

    if way == "caller_runs":
        handler = closing(overload._HANDLERS[policy])
        monkeypatch.setitem(overload._HANDLERS, policy, handler)
    else:
        monkeypatch.setattr(overload, "_admit_over", closing(overload._admit_over))

    def submit() -> str:
        try:
            ex.submit(ran.append, 1)
        except PoolClosedError:
            return "refused"
        return "accepted"

    async def main() -> str:
        with pytest.warns(RuntimeWarning):
            return submit()

    if way == "worker":
        assert ex.submit(submit).result(PATIENCE) == "refused"
    else:
        hold(ex, gate)
        assert (asyncio.run(main()) if way == "loop" else submit()) == "refused"
    gate.set()
    ex.shutdown()
    assert ran == []
    stats = ex.stats()
    assert stats.submitted_tasks == stats.completed_tasks == 1


# -- what stays behind ------------------------------------------------------------------------------


class InPlace(cf.Executor):
    """An engine without threads."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        future: cf.Future[Any] = cf.Future()
        future.set_result(fn(*args, **kwargs))
        return future


class Thing:
    """Something that a weak reference can watch."""


def by_callback(ex: BoundedExecutor, give: Any, things: list[Thing]) -> None:
    future = ex.submit(give, things.pop())
    future.add_done_callback(lambda f: f.result())
    future.result()


def by_bound_callback(ex: BoundedExecutor, give: Any, things: list[Thing]) -> None:
    class Owner:
        def __init__(self) -> None:
            self.future = ex.submit(give, things.pop())
            self.future.add_done_callback(self.done)

        def done(self, future: Future[Thing]) -> None:
            del self.future

    Owner()
    ex.submit(int).result()


def in_asyncio(way: str) -> Any:
    def leave(ex: BoundedExecutor, give: Any, things: list[Thing]) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            if way == "run_in_executor":
                await loop.run_in_executor(ex, give, things.pop())
            elif way == "arun":
                await ex.arun(give, things.pop())
            elif way == "amap":
                async for _ in ex.amap(give, [things.pop()]):
                    pass
            else:
                await ex.submit(give, things.pop())

        asyncio.run(main())

    return leave


def cancelled(way: str) -> Any:
    def leave(ex: BoundedExecutor, give: Any, things: list[Thing]) -> None:
        gate = threading.Event()
        hold(ex, gate)
        if way == "map":
            iterator = ex.map(give, [things.pop()])
            iterator.close()  # type: ignore[attr-defined]
        else:
            with CancelToken() as token:
                future = ex.submit_with_token(token, give, things.pop())
                future.add_done_callback(lambda _: None)
                if way == "future":
                    future.cancel()
        gate.set()
        ex.submit(int).result()

    return leave


LEAVES: dict[str, Callable[[BoundedExecutor, Any, list[Thing]], object]] = {
    "result": lambda ex, give, things: ex.submit(give, things.pop()).result() and None,
    "callback": by_callback,
    "bound callback": by_bound_callback,
    "run_in_executor": in_asyncio("run_in_executor"),
    "arun": in_asyncio("arun"),
    "amap": in_asyncio("amap"),
    "await": in_asyncio("await"),
    "map": lambda ex, give, things: list(ex.map(give, [things.pop()])) and None,
    "chunks": lambda ex, give, things: list(ex.map(give, [things.pop()], chunksize=2)) and None,
    "lazy map": lambda ex, give, things: list(ex.map(give, [things.pop()], buffersize=1)) and None,
    "map_unordered": lambda ex, give, things: list(ex.map_unordered(give, [things.pop()])) and None,
    "wait": lambda ex, give, things: cf.wait([ex.submit(give, things.pop())]) and None,
    "as_completed": lambda ex, give, things: (
        list(cf.as_completed([ex.submit(give, things.pop())])) and None
    ),
    "cancel": cancelled("future"),
    "token": cancelled("token"),
    "left map": cancelled("map"),
}


def leave_by(way: str, ex: BoundedExecutor) -> list[Any]:
    """Weak references to an argument and to a result of a task that has ended, one way or other."""
    things, results = [Thing()], [Thing()]
    refs = [weakref.ref(things[0]), weakref.ref(results[0])]

    def give(_: object) -> Thing:
        return results.pop()

    LEAVES[way](ex, give, things)
    # The worker has let go of the last task when it has come back from another one.
    ex.submit(int).result()
    return refs


@pytest.mark.parametrize("way", LEAVES)
def test_nothing_stays_behind_for_the_collector(way: str) -> None:
    """No cycle, and nobody who keeps an argument or a result."""
    with BoundedExecutor(1) as ex:
        leave_by("result", ex)
        gc.collect()
        gc.disable()
        try:
            refs = leave_by(way, ex)
            assert aside.join(PATIENCE)
            assert [ref() for ref in refs] == [None, None]
        finally:
            gc.enable()


def forced_stop(thing: Thing) -> None:
    gate = threading.Event()
    ex = BoundedExecutor(1)
    hold(ex, gate)
    with pytest.raises(ForcedShutdownError):
        ex.stop(0.01)
    gate.set()
    ex.shutdown()
    del thing


def token_with_a_callback(thing: Thing) -> None:
    CancelToken().add_callback(lambda _: thing)
    with CancelToken() as token:
        token.add_callback(lambda _: thing)


def failing_initializer(thing: Thing) -> None:
    def fail(_: object) -> None:
        raise ValueError

    with BoundedExecutor(1, initializer=fail, initargs=(thing,)) as ex:
        try:
            ex.submit(id, thing).exception()
        except cf.BrokenExecutor:
            pass


@pytest.mark.parametrize("way", [forced_stop, token_with_a_callback, failing_initializer])
def test_ends_leave_nothing_behind(way: Callable[[Thing], None]) -> None:
    """Not even what was in the frames of those who heard of it."""
    logging.disable(logging.CRITICAL)
    gc.collect()
    gc.disable()
    try:
        thing = Thing()
        ref = weakref.ref(thing)
        way(thing)
        del thing
        assert aside.join(PATIENCE)
        assert ref() is None
    finally:
        gc.enable()
        logging.disable(logging.NOTSET)


@pytest.mark.parametrize("engine", [False, True])
@pytest.mark.parametrize("end", ["drained", "dropped"])
def test_a_pool_leaves_nothing_behind(end: str, engine: bool) -> None:
    """Neither itself, nor its pool."""
    BoundedExecutor(1).shutdown()
    gc.collect()
    gc.disable()
    try:
        # One that runs tasks in its `submit`, so that it has no thread that holds a result.
        ex = BoundedExecutor(2, engine=InPlace() if engine else None)
        ex.submit(int).add_done_callback(lambda _: None)
        ex.submit(int).result()
        refs = [weakref.ref(ex), weakref.ref(ex._pool)]
        threads = list(ex._threads)
        if end == "drained":
            ex.shutdown()
        del ex
        for thread in threads:
            thread.join(PATIENCE)
        assert aside.join(PATIENCE)
        assert [ref() for ref in refs] == [None, None]
    finally:
        gc.enable()


def test_current_token_in_a_spare_thread_is_its_tasks_own() -> None:
    """As in any worker."""
    with BoundedExecutor(1) as ex:

        def outer() -> tuple[bool, bool]:
            mine = current_token()
            return ex.submit(current_token).result(PATIENCE) is mine, current_token() is mine

        assert ex.submit(outer).result(PATIENCE) == (False, True)
