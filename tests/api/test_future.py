"""Futures, as their user sees them: the standard library's contract and what is added to it."""

from __future__ import annotations

import asyncio
import concurrent.futures as cf
import contextlib
import functools
import gc
import itertools
import logging
import math
import queue
import re
import sys
import sysconfig
import threading
import weakref
from collections import deque

import pytest

import futurepool
from futurepool import BoundedExecutor, CancelToken, Future, Priority

PATIENCE = 20.0  # seconds a test waits for what must happen
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


class Busy:
    """Keeps workers of a pool busy until it is opened or left."""

    def __init__(self, executor, workers=1):
        self._gate = threading.Event()
        self._running = threading.Semaphore(0)
        self.futures = [executor.submit(self._hold) for _ in range(workers)]
        for _ in self.futures:
            assert self._running.acquire(timeout=PATIENCE)

    def _hold(self):
        self._running.release()
        return self._gate.wait(PATIENCE)

    def open(self):
        self._gate.set()

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.open()


def in_threads(*functions):
    """Call all of them at the same moment, each in its own thread; their results."""
    barrier = threading.Barrier(len(functions))

    def call(function):
        barrier.wait(PATIENCE)
        return function()

    with cf.ThreadPoolExecutor(len(functions)) as threads:
        return [future.result(PATIENCE) for future in [threads.submit(call, f) for f in functions]]


def fail(error):
    raise error


@pytest.fixture
def executor():
    with BoundedExecutor(2) as executor:
        yield executor


@pytest.fixture
def single():
    with BoundedExecutor(1) as executor:
        yield executor


# -- what it is ----------------------------------------------------------------------------------


def test_it_is_the_standard_librarys_future(single):
    """Submitting gives a futurepool.Future, which is a concurrent.futures.Future."""
    future = single.submit(int)
    assert isinstance(future, futurepool.Future)
    assert isinstance(future, cf.Future)


def test_task_ids_count_from_one_in_order_of_admission(single):
    """Each admitted task has the next number."""
    assert [single.submit(int).task_id for _ in range(3)] == [1, 2, 3]
    assert single.options(name="x").submit(int).task_id == 4
    assert single.submit_with_token(CancelToken(), int).task_id == 5


class Callable:
    def __call__(self):
        pass

    def method(self):
        pass


@pytest.mark.parametrize(
    ("fn", "name"),
    [
        (math.floor, "floor"),
        (fail, "fail"),
        (functools.partial(functools.partial(fail)), "fail"),
        (Callable, "Callable"),
        (Callable(), "Callable"),
        (Callable().method, "Callable.method"),
        (lambda: None, "<lambda>"),
        ([].append, "list.append"),
    ],
)
def test_the_name_is_the_functions(fn, name, single):
    """Without options(name=) it is the qualified name, before, while and after it runs."""
    with Busy(single):
        future = single.submit(fn)
        assert future.name == name
    future.exception(PATIENCE)
    assert future.name == name


def test_the_name_given_wins(single):
    """options(name=) names the task for good."""
    with Busy(single):
        future = single.options(name="resize").submit(int)
        assert future.name == "resize"
        assert future.cancel()
    assert future.name == "resize"


def test_the_priority_is_kept(single):
    """A future knows the priority it was submitted with."""
    assert single.submit(int).priority == Priority.NORMAL
    assert single.submit_with_priority(Priority.HIGH, int).priority == Priority.HIGH
    assert single.options(priority=-7).submit(int).priority == -7


def test_what_it_adds_cannot_shadow_a_keyword_of_the_task(single):
    """Keyword arguments all go to the task, whatever they are called."""
    future = single.submit(dict, fn=1, self=2, priority=3, timeout=4, name=5, token=6)
    assert future.result(PATIENCE) == dict(fn=1, self=2, priority=3, timeout=4, name=5, token=6)


def test_repr_shows_state_task_and_name(single):
    """As the standard one, with the task; the result's type, not its value."""
    with Busy(single):
        queued = single.options(name="resize").submit(int)
        dropped = single.submit(int)
        running = single.submit(lambda: repr(running))
        assert re.fullmatch(
            r"<Future at 0x[0-9a-f]+ state=pending task=2 name='resize'>", repr(queued)
        )
        dropped.cancel()
        assert re.fullmatch(
            r"<Future at 0x[0-9a-f]+ state=cancelled task=3 name='int'>", repr(dropped)
        )
    assert "state=running task=4" in running.result(PATIENCE)
    assert queued.result(PATIENCE) == 0
    assert repr(queued).endswith("state=finished task=2 name='resize' returned int>")
    failed = single.submit(fail, KeyError(1))
    failed.exception(PATIENCE)
    assert "state=finished" in repr(failed)
    assert "KeyError" in repr(failed)


def test_repr_trusts_no_code_of_the_users(single):
    """A result whose repr raises does no harm."""

    class Hostile:
        def __repr__(self):
            raise SystemExit

        __str__ = __repr__

    future = single.submit(Hostile)
    future.result(PATIENCE)
    assert "returned " in repr(future)


def test_one_state_at_a_time(single):
    """Pending, running, finished: running() and done() say which."""
    with Busy(single) as busy:
        queued = single.submit(int)
        (held,) = busy.futures
        assert (held.running(), held.done(), held.cancelled()) == (True, False, False)
        assert (queued.running(), queued.done(), queued.cancelled()) == (False, False, False)
    queued.result(PATIENCE)
    assert (queued.running(), queued.done(), queued.cancelled()) == (False, True, False)


# -- waiting for results -------------------------------------------------------------------------

LONG = [None, math.inf, 1e10, 1e308, threading.TIMEOUT_MAX, 10**6]


@pytest.mark.parametrize("ask", [Future.result, Future.exception])
@pytest.mark.parametrize("timeout", LONG)
def test_long_timeouts_wait(ask, timeout, single):
    """However long the timeout is, the outcome is returned as soon as it is there."""
    waits = threading.Event()
    with Busy(single) as busy:
        future = single.submit(int)
        busy_again = threading.Timer(0, lambda: waits.wait(PATIENCE) and busy.open())
        busy_again.start()
        waits.set()
        assert ask(future, timeout) in (0, None)
        busy_again.join(PATIENCE)


@pytest.mark.parametrize("ask", [Future.result, Future.exception])
@pytest.mark.parametrize("timeout", [0, 0.0, -0.0, -1, -1e10, -math.inf, 1e-9])
def test_short_timeouts_run_out(ask, timeout, single):
    """Zero and negative timeouts do not wait, as in the standard library."""
    with Busy(single) as busy, pytest.raises(cf.TimeoutError):
        ask(busy.futures[0], timeout)


@pytest.mark.parametrize("ask", [Future.result, Future.exception])
def test_a_timeout_of_nan_is_refused(ask, single):
    """NaN is a ValueError, not a wait of unknown length."""
    with Busy(single) as busy, pytest.raises(ValueError, match="timeout"):
        ask(busy.futures[0], math.nan)


@pytest.mark.parametrize("timeout", [0, -1, -math.inf, None])
def test_no_timeout_hides_an_outcome_that_is_there(timeout, single):
    """What is finished is returned whatever the timeout."""
    future = single.submit(int)
    assert future.result(PATIENCE) == 0
    assert future.result(timeout) == 0
    assert future.exception(timeout) is None


@pytest.mark.parametrize("ask", [Future.result, Future.exception])
def test_a_timeout_leaves_the_future_usable(ask, single):
    """After any number of timeouts the outcome still comes, and nothing of them is left."""
    with Busy(single):
        future = single.submit(int)
        for _ in range(100):
            with pytest.raises(cf.TimeoutError):
                ask(future, 0)
    assert ask(future, PATIENCE) in (0, None)


def test_waiting_for_a_cancelled_task_raises(single):
    """result() and exception() raise CancelledError, whether asked before or after."""
    with Busy(single):
        future = single.submit(int)
        with cf.ThreadPoolExecutor(1) as thread:
            asking = thread.submit(future.result, PATIENCE)
            assert future.cancel()
            with pytest.raises(cf.CancelledError):
                asking.result(PATIENCE)
        with pytest.raises(cf.CancelledError):
            future.result(0)
        with pytest.raises(cf.CancelledError):
            future.exception()


def test_all_who_wait_are_told(executor):
    """Four threads in result() of one task all get the very same object."""
    for _ in range(50):
        thing = object()
        future = executor.submit(lambda thing=thing: thing)
        assert in_threads(*[lambda f=future: f.result(PATIENCE)] * 4) == [thing] * 4


def test_what_the_task_did_is_visible_after_result(executor):
    """Writes of the task are seen by whoever has its result or its callback."""
    for n in range(100):
        seen, box = queue.SimpleQueue(), []
        future = executor.submit(box.append, n)
        future.add_done_callback(lambda _, box=box, seen=seen: seen.put(list(box)))
        future.result(PATIENCE)
        assert box == [n]
        assert seen.get(timeout=PATIENCE) == [n]
    executor.shutdown()
    assert seen.empty()


# -- cancelling ----------------------------------------------------------------------------------


def test_cancel_a_queued_task(single):
    """True at once and ever after, and its function never runs."""
    ran = []
    with Busy(single):
        future = single.submit(ran.append, 1)
        assert future.cancel()
        assert (future.cancelled(), future.done(), future.running()) == (True, True, False)
        assert future.cancel()
    assert single.wait(PATIENCE)
    assert ran == []
    assert single.stats().cancelled_tasks == 1


def test_cancel_a_running_task(single):
    """False, and it goes on to its end."""
    with Busy(single) as busy:
        (future,) = busy.futures
        assert not future.cancel()
        assert not future.cancelled()
        assert future.running()
    assert future.result(PATIENCE)


def test_cancel_a_finished_task(single):
    """False, and its outcome stays."""
    future, failed = single.submit(int), single.submit(fail, KeyError())
    assert future.result(PATIENCE) == 0
    failed.exception(PATIENCE)
    assert (future.cancel(), failed.cancel()) == (False, False)
    assert future.result(0) == 0
    assert (future.cancelled(), failed.cancelled()) == (False, False)


def test_a_cancelled_task_gives_its_place_back():
    """At once, though the worker is busy and the queue was full."""
    with BoundedExecutor(1, queue_size=1) as executor, Busy(executor):
        for _ in range(200):
            assert executor.try_submit(int).cancel()
        executor.try_submit(int)
        with pytest.raises(futurepool.QueueFullError):
            executor.try_submit(int)


def test_a_cancelled_task_calls_its_callbacks_once_in_the_cancelling_thread(single):
    """Callbacks of a cancelled future run where cancel() was called."""
    calls = []
    with Busy(single):
        future = single.submit(int)
        future.add_done_callback(lambda f: calls.append((f, threading.get_ident())))
        assert future.cancel()
        assert future.cancel()
        assert calls == [(future, threading.get_ident())]


def test_one_final_state_whoever_wins(executor):
    """Four threads race to cancel what two workers race to run: each task ends once, one way."""
    number = 400
    ledger = bytearray(number)
    ends = [[] for _ in range(number)]

    def run(n):
        ledger[n] += 1

    futures = [executor.submit(run, n) for n in range(number)]
    for n, future in enumerate(futures):
        future.add_done_callback(lambda f, n=n: ends[n].append(f._state))
    answers = in_threads(*[lambda: [future.cancel() for future in reversed(futures)]] * 4)
    assert executor.wait(PATIENCE)
    cf.wait(futures, PATIENCE)
    for n, future in enumerate(futures):
        cancelled = future.cancelled()
        assert ledger[n] == (not cancelled)
        assert [answer[number - 1 - n] for answer in answers] == [cancelled] * 4
    executor.shutdown()
    assert [len(end) for end in ends] == [1] * number
    stats = executor.stats()
    assert stats.completed_tasks == sum(ledger)
    assert stats.completed_tasks + stats.cancelled_tasks == number


@pytest.mark.parametrize("ask", ["callback", "wait", "memory"])
def test_a_cancel_whose_rest_another_thread_does(ask, single):
    """At whatever moment another thread comes by to do what the section leaves, nobody is forgotten."""
    pool = single._pool
    intruders = []

    class Deferred(deque):
        def append(self, act):
            super().append(act)
            intruders.append(threading.Thread(target=pool.run_deferred))
            intruders[-1].start()
            intruders[-1].join(0.03)  # it may have to wait for the end of the section

    with Busy(single):
        thing = Thing()
        dead = watched(thing)
        future = single.submit(id, thing)
        del thing
        calls = []
        if ask == "callback":
            future.add_done_callback(calls.append)
        pool.deferred = Deferred()
        assert future.cancel()
        pool.deferred = deque(pool.deferred)
        for intruder in intruders:
            intruder.join(PATIENCE)
        if ask == "callback":
            assert calls == [future]
        elif ask == "wait":
            assert cf.wait([future], 0) == ({future}, set())
        else:
            gc.collect()
            assert dead.wait(PATIENCE)


# -- callbacks -----------------------------------------------------------------------------------


def test_callbacks_are_called_in_order_with_the_finished_future(single):
    """In the order in which they were added, in the worker, with the future itself, done."""
    calls = []
    with Busy(single):
        future = single.submit(int)
        for n in range(5):
            future.add_done_callback(
                lambda f, n=n: calls.append((n, f is future, f.done(), threading.get_ident()))
            )
    worker = single.submit(threading.get_ident).result(PATIENCE)
    assert calls == [(n, True, True, worker) for n in range(5)]


def test_a_late_callback_is_called_at_once(single):
    """On a finished future, in the thread that adds it."""
    future = single.submit(int)
    future.result(PATIENCE)
    calls = []
    future.add_done_callback(lambda f: calls.append((f, threading.get_ident())))
    assert calls == [(future, threading.get_ident())]


def test_the_same_callback_twice_is_called_twice(single):
    """As in the standard library."""
    calls = []
    with Busy(single):
        future = single.submit(int)
        future.add_done_callback(calls.append)
        future.add_done_callback(calls.append)
    single.shutdown()
    assert calls == [future, future]


@pytest.mark.parametrize(
    "kind", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration, MemoryError]
)
def test_what_a_callback_raises_is_logged_and_ends_nothing(kind, single, caplog):
    """The other callbacks are called, the worker goes on, the outcome stays."""
    calls = []
    with Busy(single):
        future = single.submit(int)
        future.add_done_callback(lambda _: fail(kind("oops")))
        future.add_done_callback(calls.append)
    worker = single.submit(threading.get_ident).result(PATIENCE)
    assert calls == [future]
    assert future.result(0) == 0
    assert single.submit(threading.get_ident).result(PATIENCE) == worker
    (record,) = [r for r in caplog.records if r.name == "concurrent.futures"]
    assert record.levelno == logging.ERROR
    assert record.exc_info[0] is kind


def test_what_a_late_callback_raises_does_not_reach_who_adds_it(single, caplog):
    """A callback added to a finished future fails alone, too."""
    future = single.submit(int)
    future.result(PATIENCE)
    future.add_done_callback(lambda _: fail(ValueError("oops")))
    assert [r.exc_info[0] for r in caplog.records] == [ValueError]


def test_what_a_callback_raises_does_not_reach_who_cancels(single, caplog):
    """cancel() returns True although a callback raises."""
    with Busy(single):
        future = single.submit(int)
        future.add_done_callback(lambda _: fail(ValueError()))
        assert future.cancel()
    assert [r.exc_info[0] for r in caplog.records] == [ValueError]


class Timeout(BaseException):
    """As that of gevent."""

    @classmethod
    def come(cls, _):
        raise cls


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, Timeout])
@pytest.mark.parametrize("where", ["cancel", "late"])
def test_what_interrupts_a_callback_in_a_users_thread_is_raised_there(where, kind, single, caplog):
    """As in the standard class: a Ctrl-C is not lost. And no callback is."""
    calls = []
    with Busy(single):
        future = single.submit(int)
        if where == "late":
            future.cancel()
        else:
            future.add_done_callback(lambda _: fail(ValueError()))
            future.add_done_callback(lambda _: fail(kind("first")))
            future.add_done_callback(calls.append)
            future.add_done_callback(lambda _: fail(SystemExit("second")))
            future.add_done_callback(calls.append)
        with pytest.raises(kind, match="first"):
            if where == "late":
                future.add_done_callback(lambda _: fail(kind("first")))
            else:
                future.cancel()
        assert future.cancelled()
    assert calls == [future] * (2 if where == "cancel" else 0)
    logged = [r.exc_info[0] for r in caplog.records]
    assert logged == ([ValueError, SystemExit] if where == "cancel" else [])


def test_an_interrupt_of_a_callback_leaves_no_cycle(single):
    """It is raised, and nothing else holds it: whoever handles it lets go of the callback's frame."""
    with Busy(single):
        future = single.submit(int)
        future.add_done_callback(Timeout.come)
        gc.collect()
        gc.disable()
        try:
            with pytest.raises(Timeout) as caught:
                future.cancel()
            gone = weakref.ref(caught.value)
            del caught
            assert gone() is None
        finally:
            gc.enable()


@pytest.mark.parametrize("where", ["worker", "cancel", "late"])
def test_a_builtin_as_a_callback_may_raise_too(where, single, caplog):
    """sys.exit as a callback raises with no Python frame of its own, and is treated all the same."""
    calls = []
    with Busy(single):
        future = single.submit(int)
        if where != "late":
            future.add_done_callback(sys.exit)
            future.add_done_callback(calls.append)
        if where == "cancel":
            with pytest.raises(SystemExit):
                future.cancel()
    worker = single.submit(threading.get_ident).result(PATIENCE)
    if where == "late":
        with pytest.raises(SystemExit):
            future.add_done_callback(sys.exit)
        future.add_done_callback(calls.append)
    assert calls == [future]
    assert single.submit(threading.get_ident).result(PATIENCE) == worker
    logged = [("concurrent.futures", SystemExit)] if where == "worker" else []
    assert [(r.name, r.exc_info[0]) for r in caplog.records] == logged


def test_a_callback_may_submit(single):
    """A chain of a thousand tasks, each submitted by the callback of the one before."""
    done = threading.Event()
    left = itertools.count(1000, -1)

    def again(_):
        if next(left):
            single.submit(int).add_done_callback(again)
        else:
            done.set()

    single.submit(int).add_done_callback(again)
    assert done.wait(PATIENCE)


def test_a_callback_may_submit_to_a_full_pool():
    """The worker in the callback is not blocked by a full queue: it might have to empty it."""
    with BoundedExecutor(1, queue_size=1) as executor:
        inner = queue.SimpleQueue()
        with Busy(executor) as busy:
            busy.futures[0].add_done_callback(
                lambda _: [inner.put(executor.submit(int)) for _ in range(5)]
            )
            executor.submit(int)
        assert [inner.get(timeout=PATIENCE).result(PATIENCE) for _ in range(5)] == [0] * 5


def test_a_callback_may_add_callbacks(single):
    """To its own future, at any depth: called at once."""
    calls = []

    def first(future):
        calls.append("first")
        future.add_done_callback(lambda f: f.add_done_callback(lambda _: calls.append("third")))
        calls.append("fourth")

    with Busy(single):
        future = single.submit(int)
        future.add_done_callback(first)
        future.add_done_callback(lambda _: calls.append("last"))
    single.shutdown()
    assert sorted(calls) == ["first", "fourth", "last", "third"]
    assert calls.index("third") < calls.index("fourth")


def test_a_callback_may_ask_for_the_outcome(single):
    """result(), exception() and cancel() inside a callback neither hang nor raise."""
    answers = []
    with Busy(single):
        future = single.submit(int)
        future.add_done_callback(
            lambda f: answers.append((f.result(), f.exception(), f.cancel(), f.done()))
        )
    single.shutdown()
    assert answers == [(0, None, False, True)]


def test_callbacks_added_while_the_task_ends_are_called_once(executor):
    """Four threads add callbacks at the moment of completion: none is lost, none called twice."""
    for _ in range(25):
        calls = []
        with Busy(executor) as busy:
            future = busy.futures[0]

            def add(future=future, calls=calls):
                for _ in range(5):
                    future.add_done_callback(calls.append)

            in_threads(busy.open, add, add, add)
        future.result(PATIENCE)
        # A callback that is due in the worker has been called when its next task runs.
        with Busy(executor, 2):
            assert calls == [future] * 15


def test_only_a_callable_can_be_a_callback(single):
    """Anything else is refused when added, not when called."""
    with Busy(single) as busy, pytest.raises(TypeError):
        busy.futures[0].add_done_callback("no")


# -- concurrent.futures.wait and as_completed ------------------------------------------------------


@pytest.mark.parametrize("when", [cf.ALL_COMPLETED, cf.FIRST_COMPLETED, cf.FIRST_EXCEPTION])
def test_wait_for_what_is_done(when, executor):
    """Finished, failed and cancelled futures count at once, in every mode."""
    with Busy(executor, 2):
        cancelled = executor.submit(int)
        assert cancelled.cancel()
        done, not_done = cf.wait([cancelled], PATIENCE, when)
        assert (done, not_done) == ({cancelled}, set())
    finished, failed = executor.submit(int), executor.submit(fail, KeyError())
    finished.result(PATIENCE)
    failed.exception(PATIENCE)
    futures = [finished, failed, cancelled, finished]
    assert cf.wait(futures, PATIENCE, when) == ({finished, failed, cancelled}, set())


def test_wait_times_out_with_what_is_not_done(single):
    """A timeout returns both sets; the futures go on."""
    with Busy(single) as busy:
        queued = single.submit(int)
        futures = {*busy.futures, queued}
        assert cf.wait(futures, 0) == (set(), futures)
    assert cf.wait(futures, PATIENCE) == (futures, set())


@pytest.mark.parametrize("how", ["finish", "fail", "cancel"])
def test_wait_for_the_first(how, executor):
    """FIRST_COMPLETED returns when one of them ends, in whichever way, and not before."""
    with Busy(executor, 1) as busy, Busy(executor, 1) as other:
        first = executor.submit(fail, KeyError()) if how == "fail" else executor.submit(int)
        rest = set(busy.futures)
        with cf.ThreadPoolExecutor(1) as thread:
            waiting = thread.submit(cf.wait, [first, *rest], PATIENCE, cf.FIRST_COMPLETED)
            if how == "cancel":
                first.cancel()
            else:
                other.open()
            assert waiting.result(PATIENCE) == ({first}, rest)
        first.cancel()
        first.done() and not first.cancelled() and first.exception()


def test_wait_for_the_first_exception(executor):
    """FIRST_EXCEPTION passes over results and cancellations."""
    with Busy(executor, 1) as busy, Busy(executor, 1) as other:
        good, dropped = executor.submit(int), executor.submit(int)
        bad = executor.submit(fail, KeyError())
        futures = {good, dropped, bad, *busy.futures}
        with cf.ThreadPoolExecutor(1) as thread:
            waiting = thread.submit(cf.wait, futures, PATIENCE, cf.FIRST_EXCEPTION)
            dropped.cancel()
            other.open()
            assert waiting.result(PATIENCE) == ({good, dropped, bad}, set(busy.futures))
        assert isinstance(bad.exception(), KeyError)


def test_without_an_exception_the_first_is_waited_for_to_the_end(executor):
    """FIRST_EXCEPTION without any failure is ALL_COMPLETED."""
    with Busy(executor, 2) as busy:
        futures = {*busy.futures, *(executor.submit(int) for _ in range(3))}
        with cf.ThreadPoolExecutor(1) as thread:
            waiting = thread.submit(cf.wait, futures, PATIENCE, cf.FIRST_EXCEPTION)
            busy.open()
            assert waiting.result(PATIENCE) == (futures, set())


def test_two_pools_and_the_standard_librarys_together():
    """wait() and as_completed() take futures of all three at once."""
    with (
        BoundedExecutor(1) as one,
        BoundedExecutor(1) as two,
        cf.ThreadPoolExecutor(1) as standard,
        Busy(one) as a,
        Busy(two) as b,
        Busy(standard) as c,
    ):
        pools = (one, two, standard)
        futures = {pool.submit(int) for pool in pools for _ in range(5)}
        assert cf.wait(futures, 0) == (set(), futures)
        with cf.ThreadPoolExecutor(2) as threads:
            waiting = threads.submit(cf.wait, futures, PATIENCE)
            streaming = threads.submit(lambda: list(cf.as_completed(futures, PATIENCE)))
            for busy in (a, b, c):
                busy.open()
            assert waiting.result(PATIENCE) == (futures, set())
            stream = streaming.result(PATIENCE)
        assert len(stream) == 15
        assert set(stream) == futures


def test_as_completed_yields_in_order_of_completion(single):
    """What is done comes first, then the others as they finish; each once."""
    done = single.submit(int)
    done.result(PATIENCE)
    with Busy(single) as busy:
        futures = [single.submit_with_priority(n, int) for n in range(4)]
        futures[0].cancel()
        stream = cf.as_completed([*futures, done, done], PATIENCE)
        assert {next(stream), next(stream)} == {done, futures[0]}
        busy.open()
        assert list(stream) == futures[:0:-1]


def test_as_completed_times_out(single):
    """With the number of those that are not done in the message."""
    with Busy(single) as busy, pytest.raises(cf.TimeoutError, match=r"1 \(of 2\)"):
        dropped = single.submit(int)
        dropped.cancel()
        list(cf.as_completed([*busy.futures, dropped], 0))


def test_four_threads_wait_in_four_ways(executor):
    """The same futures through wait, as_completed and result at the same time, again and again."""
    for _ in range(40):
        futures = [executor.submit(int) for _ in range(8)]

        def stream(futures=futures):
            return set(cf.as_completed(futures, PATIENCE))

        answers = in_threads(
            lambda futures=futures: cf.wait(futures, PATIENCE).done,
            stream,
            lambda futures=futures: cf.wait(futures, PATIENCE, cf.FIRST_EXCEPTION).done,
            lambda futures=futures: {f for f in futures if f.result(PATIENCE) == 0},
        )
        assert answers == [set(futures)] * 4


def test_four_threads_wait_while_others_cancel(single):
    """Whoever waits hears of a cancellation, too, exactly once."""
    for _ in range(40):
        with Busy(single):
            futures = [single.submit(int) for _ in range(4)]
            answers = in_threads(
                lambda futures=futures: [f.cancel() for f in futures],
                lambda futures=futures: [f.cancel() for f in reversed(futures)],
                lambda futures=futures: list(cf.as_completed(futures, PATIENCE)),
                lambda futures=futures: cf.wait(futures, PATIENCE).done,
            )
            assert answers[:2] == [[True] * 4] * 2
            assert sorted(map(id, answers[2])) == sorted(map(id, futures))
            assert answers[3] == set(futures)


def test_the_first_of_four_while_two_finish(executor):
    """FIRST_COMPLETED returns at least one that is done, and reports the others truly."""
    for _ in range(40):
        futures = {executor.submit(int) for _ in range(4)}

        def first(futures=futures):
            done, rest = cf.wait(futures, PATIENCE, cf.FIRST_COMPLETED)
            assert done
            assert done | rest == futures
            return all(future.done() for future in done)

        assert in_threads(*[first] * 4) == [True] * 4


# -- asyncio -------------------------------------------------------------------------------------


def test_await(single):
    """`await future` gives its result, and raises what it raised."""

    async def main():
        assert await single.submit(int, "7") == 7
        future = single.submit(int)
        future.result(PATIENCE)
        assert await future == 0
        assert await future == 0
        with pytest.raises(KeyError):
            await single.submit(fail, KeyError("x"))

    asyncio.run(main())


def test_wrap_future(single):
    """asyncio.wrap_future, gather and wait_for take it."""

    async def main():
        futures = [single.submit(int, n) for n in range(10)]
        assert await asyncio.gather(*map(asyncio.wrap_future, futures)) == [*range(10)]
        wrapped = asyncio.wrap_future(single.submit(int))
        assert await asyncio.wait_for(wrapped, PATIENCE) == 0

    asyncio.run(main())


def test_cancelling_the_await_cancels_the_task(single):
    """A cancelled wrap_future or await cancels what is queued."""
    ran = []

    async def main():
        with Busy(single):
            first, second = single.submit(ran.append, 1), single.submit(ran.append, 2)
            wrapped = asyncio.wrap_future(first)
            wrapped.cancel()
            with pytest.raises(asyncio.CancelledError):
                await wrapped

            async def wait():
                await second

            task = asyncio.ensure_future(wait())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (first.cancelled(), second.cancelled()) == (True, True)

    asyncio.run(main())
    assert single.wait(PATIENCE)
    assert ran == []


def test_awaiting_a_cancelled_future(single):
    """It raises asyncio's CancelledError."""

    async def main():
        with Busy(single):
            future = single.submit(int)
            future.cancel()
            with pytest.raises(asyncio.CancelledError):
                await future

    asyncio.run(main())


def test_await_in_two_loops(executor):
    """One future awaited by four loops in four threads."""
    for _ in range(5):
        with Busy(executor) as busy:
            (future,) = busy.futures

            async def main(future=future):
                return await future

            def run(main=main):
                return asyncio.run(main())

            assert in_threads(run, run, run, run, busy.open)[:4] == [True] * 4


# -- futures that no executor made -----------------------------------------------------------------


def test_a_detached_future_gets_a_result():
    """futurepool.Future() is a plain pending future, as cf.Future() is."""
    future = futurepool.Future()
    calls = []
    future.add_done_callback(calls.append)
    assert (future.done(), future.task_id) == (False, 0)
    assert future.set_running_or_notify_cancel()
    assert future.running()
    assert not future.cancel()
    future.set_result(5)
    assert future.result(0) == 5
    assert future.exception(0) is None
    assert calls == [future]
    assert "returned int" in repr(future)


def test_a_detached_future_gets_an_exception():
    """It raises the very object it was given: no task failed here."""
    future = futurepool.Future()
    error = KeyError("x")
    future.set_exception(error)
    assert future.exception(0) is error
    with pytest.raises(KeyError) as caught:
        future.result(0)
    assert caught.value is error


def test_a_detached_future_is_cancelled():
    """cancel(), then set_running_or_notify_cancel() is False, as the standard has it."""
    future = futurepool.Future()
    assert future.cancel()
    assert not future.set_running_or_notify_cancel()
    assert future.cancel()
    with pytest.raises(cf.CancelledError):
        future.result(0)
    with pytest.raises(cf.InvalidStateError):
        future.set_result(1)
    with pytest.raises(cf.InvalidStateError):
        future.set_exception(KeyError())


def test_a_detached_future_is_finished_once():
    """A second outcome is an InvalidStateError and changes nothing."""
    future = futurepool.Future()
    future.set_result(1)
    with pytest.raises(cf.InvalidStateError):
        future.set_result(2)
    with pytest.raises(cf.InvalidStateError):
        future.set_exception(KeyError())
    assert future.result(0) == 1


def test_a_detached_future_starts_once():
    """Starting it twice is a RuntimeError, as in the standard library."""
    future = futurepool.Future()
    future.set_running_or_notify_cancel()
    with pytest.raises(RuntimeError):
        future.set_running_or_notify_cancel()


def test_a_detached_future_wakes_all_who_wait():
    """result(), wait(), as_completed() and callbacks in four threads."""
    for _ in range(20):
        future = futurepool.Future()
        calls = []
        future.add_done_callback(calls.append)
        answers = in_threads(
            lambda f=future: f.result(PATIENCE),
            lambda f=future: cf.wait([f], PATIENCE).done,
            lambda f=future: list(cf.as_completed([f], PATIENCE)),
            lambda f=future: f.set_result("x"),
        )
        assert answers[:3] == ["x", {future}, [future]]
        assert calls == [future]


def test_a_detached_future_has_one_winner():
    """Of four threads that finish it one succeeds; the others get InvalidStateError."""
    for _ in range(50):
        future = futurepool.Future()

        def finish(n, future=future):
            try:
                future.set_result(n)
            except cf.InvalidStateError:
                return None
            return n

        answers = in_threads(*[functools.partial(finish, n) for n in range(4)])
        assert [n for n in answers if n is not None] == [future.result(0)]


def test_only_the_pool_finishes_its_futures(single):
    """set_result, set_exception and set_running_or_notify_cancel are refused, at any time."""
    with Busy(single) as busy:
        for future in (single.submit(int), busy.futures[0]):
            with pytest.raises(cf.InvalidStateError):
                future.set_result(1)
            with pytest.raises(cf.InvalidStateError):
                future.set_exception(KeyError())
            with pytest.raises(cf.InvalidStateError):
                future.set_running_or_notify_cancel()
    assert single.wait(PATIENCE)
    assert busy.futures[0].result(PATIENCE) is True
    with pytest.raises(cf.InvalidStateError):
        busy.futures[0].set_result(1)


# -- memory --------------------------------------------------------------------------------------


class Thing:
    """Something whose death shows."""

    def __init__(self):
        self.payload = [self.__class__.__name__]


def watched(thing):
    """An event that is set when `thing` dies."""
    dead = threading.Event()
    weakref.finalize(thing, dead.set).atexit = False
    return dead


def died(dead, executor):
    """Whether it has died; without any garbage collection."""
    if not FREE_THREADED:
        return dead.wait(PATIENCE)
    # There an object that another thread has let go of last dies when its own thread next runs.
    for _ in range(3000):
        if dead.wait(0.01):
            return True
        executor.submit(int).result(PATIENCE)
    return False


def test_the_function_dies_though_its_worker_is_busy(single, no_gc):
    """A worker remembers the latest function, for its name; not while it runs another."""
    thing = Thing()
    dead = watched(thing)
    start, began, end = threading.Event(), threading.Event(), threading.Event()

    def busy():
        began.set()
        end.wait(PATIENCE)

    single.submit(start.wait, PATIENCE)
    single.submit(functools.partial(id, thing))
    last = single.submit(busy)
    del thing
    start.set()  # now one comes right after the other
    assert began.wait(PATIENCE)
    assert dead.is_set() or FREE_THREADED
    end.set()
    last.result(PATIENCE)
    assert died(dead, single)


def test_arguments_die_with_the_task(single, no_gc):
    """They are not kept by the future, nor by the worker that now sleeps."""
    one, two = Thing(), Thing()
    dead = [watched(one), watched(two)]
    future = single.submit(lambda *args, **kwargs: None, one, key=two)
    del one, two
    future.result(PATIENCE)
    assert [died(d, single) for d in dead] == [True, True]
    assert future.done()


def test_arguments_of_a_failed_task_die(single, no_gc):
    """By position and by name."""
    one, two = Thing(), Thing()
    dead = [watched(one), watched(two)]
    future = single.submit(int, one, base=two)
    del one, two
    assert isinstance(future.exception(PATIENCE), TypeError)
    assert [died(d, single) for d in dead] == [True, True]


def test_arguments_of_a_cancelled_task_die(single, no_gc):
    """Without waiting for a worker to come by."""
    with Busy(single):
        thing = Thing()
        dead = watched(thing)
        future = single.submit(id, thing)
        del thing
        assert future.cancel()
        assert dead.wait(PATIENCE)


def test_the_function_dies_with_the_task(single, no_gc):
    """A closure is let go of once it has run."""
    thing = Thing()
    dead = watched(thing)
    future = single.submit(lambda thing=thing: len(thing.payload))
    del thing
    assert future.result(PATIENCE) == 1
    assert died(dead, single)


def test_results_die_with_the_future(single, no_gc):
    """The worker that made a result does not keep it."""
    future = single.submit(Thing)
    dead = watched(future.result(PATIENCE))
    assert not dead.is_set()
    del future
    assert died(dead, single)


def collected(dead, executor):
    """The same for what is in a cycle: a reader's frame and its error, what asyncio.run leaves."""
    for _ in range(1000):
        gc.collect()  # again: the first time the worker may still have been at it
        if dead.wait(0.01):
            return True
        executor.submit(int).result(PATIENCE)
    return False


async def awaited(future):
    return await future


ASK = {
    "result": lambda future: future.result(PATIENCE),
    "exception": lambda future: fail(future.exception(PATIENCE)),
    "as_completed": lambda future: next(cf.as_completed([future])).result(),
    "await": lambda future: asyncio.run(awaited(future)),
}


def look(ask, future):
    """Read a failed future in a frame that holds something; an event for the death of that."""
    thing = Thing()
    with contextlib.suppress(KeyError):
        ASK[ask](future)
    return watched(thing)


@pytest.mark.parametrize("ask", ASK)
def test_a_failed_future_dies_when_dropped(ask, single, no_gc):
    """Neither pool nor worker keeps the future, nor the error, whoever has read it."""
    future = single.submit(fail, KeyError(1))
    dead = watched(future)
    look(ask, future)
    del future
    assert collected(dead, single)


@pytest.mark.parametrize("ask", ASK)
def test_who_read_a_failure_is_not_kept_by_the_pool(ask, single, no_gc):
    """The frames that an error went through when it was read die with the future."""
    future = single.submit(fail, KeyError(1))
    dead = look(ask, future)
    del future
    assert collected(dead, single)


def test_the_locals_of_a_failed_task_die(single, no_gc):
    """With its future: what stats() knows of the latest failure keeps none of them."""
    things = []

    def task():
        thing = Thing()
        things.append(watched(thing))
        raise KeyError(thing)

    future = single.submit(task)
    assert isinstance(future.exception(PATIENCE), KeyError)
    del future
    assert died(things[0], single)
    assert isinstance(single.stats().last_error, KeyError)


def _submitted(pool, arguments):
    future = pool.submit(fail_with, *arguments)
    future.result(PATIENCE)


def _asked(pool, arguments):
    future = pool.submit(fail_with, *arguments)
    raise future.exception(PATIENCE)


def _completed(pool, arguments):
    futures = [pool.submit(fail_with, *arguments)]
    for future in cf.as_completed(futures):
        future.result()


async def _arun(pool, arguments):
    await pool.arun(fail_with, *arguments)


async def _amap(pool, arguments):
    async for _ in pool.amap(fail_with, arguments):
        pass


async def _in_executor(pool, arguments):
    await asyncio.get_running_loop().run_in_executor(pool, fail_with, *arguments)


async def _awaited(pool, arguments):
    future = pool.submit(fail_with, *arguments)
    await future


FAILING = {
    "result": _submitted,
    "exception": _asked,
    "as_completed": _completed,
    "map": lambda pool, args: list(pool.map(fail_with, args)),
    "map in chunks": lambda pool, args: list(pool.map(fail_with, args, chunksize=2)),
    "lazy map": lambda pool, args: list(pool.map(fail_with, args, buffersize=1)),
    "lazy map in chunks": lambda pool, args: list(
        pool.map(fail_with, args, buffersize=2, chunksize=2)
    ),
    "map_unordered": lambda pool, args: list(pool.map_unordered(fail_with, args)),
    "map_unordered in chunks": lambda pool, args: list(
        pool.map_unordered(fail_with, args, chunksize=2)
    ),
}
AWAITING = {"arun": _arun, "amap": _amap, "run_in_executor": _in_executor, "await": _awaited}


def fail_with(*arguments):
    raise ValueError(arguments)


@pytest.mark.parametrize("handled", [True, False])
@pytest.mark.parametrize("how", FAILING)
def test_a_failure_leaves_no_cycle(how, handled, no_gc):
    """Whichever way it was read, also in a frame that holds the future, the arguments die with it."""
    with BoundedExecutor(1, error_handler=str if handled else None) as pool:
        things = [Thing(), Thing()]
        dead = [watched(thing) for thing in things]
        try:
            FAILING[how](pool, things)
        except ValueError:
            pass
        del things
        pool.submit(int).result(PATIENCE)
        assert [died(each, pool) for each in dead] == [True, True]


@pytest.mark.parametrize("how", AWAITING)
def test_a_failure_leaves_no_cycle_in_a_loop(how, no_gc):
    """Nor does a coroutine that awaited it."""

    async def main(pool):
        things = [Thing(), Thing()]
        dead = [watched(thing) for thing in things]
        try:
            await AWAITING[how](pool, things)
        except ValueError:
            pass
        del things
        await pool.arun(int)
        await asyncio.sleep(0)
        return dead

    with BoundedExecutor(1) as pool:
        dead = asyncio.run(main(pool))
        assert [died(each, pool) for each in dead] == [True, True]


def test_map_results_die_when_they_were_read(single, no_gc):
    """The iterator keeps no result that it has handed out."""
    results = single.map(lambda _: Thing(), range(3))
    dead = watched(next(results))
    assert died(dead, single)
    results.close()


def depth_of(error):
    traceback, depth = error.__traceback__, 0
    while traceback is not None:
        traceback, depth = traceback.tb_next, depth + 1
    return depth


def deep(n, error):
    if n:
        deep(n - 1, error)
    raise error


async def wrap(future):
    return await asyncio.wrap_future(future)


READERS = {
    "result": lambda future: future.result(PATIENCE),
    "exception": lambda future: fail(future.exception(PATIENCE)),
    "snapshot": lambda future: fail(future._get_snapshot()[3]),
    "asyncio": lambda future: asyncio.run(wrap(future)),
}


def read(reader, future):
    """How long the traceback is after reading once more."""
    try:
        READERS[reader](future)
    except BaseException as error:
        return depth_of(error)


@pytest.mark.parametrize("error", [KeyError(1), SystemExit(3)], ids=repr)
@pytest.mark.parametrize("reader", ["result", "exception", "snapshot"])
def test_a_thousand_readings_do_not_lengthen_the_traceback(reader, error, single):
    """Neither of a TaskError nor of what is raised as itself."""
    future = single.submit(deep, 3, error)
    future.exception(PATIENCE)
    first = read(reader, future)
    assert {read(reader, future) for _ in range(1000)} == {first}
    kept = future.exception(0)
    while kept is not None:
        assert depth_of(kept) < 20
        kept = kept.__cause__


def test_a_snapshot_shows_what_there_is(single):
    """Done, cancelled, the result, the error: what asyncio asks for from Python 3.15 on."""
    with Busy(single) as busy:
        queued = single.submit(int)
        assert busy.futures[0]._get_snapshot() == (False, False, None, None)
        assert queued._get_snapshot() == (False, False, None, None)
        queued.cancel()
        assert queued._get_snapshot() == (True, True, None, None)
    assert busy.futures[0].result(PATIENCE) is True
    assert busy.futures[0]._get_snapshot() == (True, False, True, None)
    failed = single.submit(deep, 1, KeyError(1))
    error = failed.exception(PATIENCE)
    assert failed._get_snapshot() == (True, False, None, error)


def test_asyncio_gets_the_outcome(single):
    """By `wrap_future`, a result as a result and an error as an error, however often it asks."""
    failed, worked = single.submit(deep, 3, KeyError(1)), single.submit(abs, -3)
    assert READERS["asyncio"](worked) == 3
    first = read("asyncio", failed)
    assert {read("asyncio", failed) for _ in range(5)} == {first}
    with pytest.raises(KeyError) as caught:
        READERS["asyncio"](failed)
    assert caught.value is failed.exception(0)


@pytest.mark.parametrize("reader", READERS)
def test_a_failure_that_was_read_is_not_logged(reader, single, caplog):
    """Nor when asyncio has read it."""
    future = single.submit(deep, 1, KeyError(1))
    cf.wait([future], PATIENCE)  # a snapshot does not wait
    with pytest.raises(KeyError):
        READERS[reader](future)
    del future
    gc.collect()
    assert single.submit(int).result(PATIENCE) == 0
    assert caplog.records == []


def test_a_thousand_awaits_do_not_lengthen_the_traceback(single):
    """Awaiting is reading, too."""
    future = single.submit(deep, 3, KeyError(1))

    async def depth():
        try:
            await future
        except KeyError as error:
            return depth_of(error)

    async def main():
        await depth()
        first = await depth()
        return first, {await depth() for _ in range(200)}

    first, rest = asyncio.run(main())
    assert rest == {first}


@pytest.mark.skipif(
    FREE_THREADED,
    reason="one exception raised in several threads at once may crash free-threaded CPython 3.13",
)
@pytest.mark.parametrize("error", [KeyError(1), SystemExit(3)], ids=repr)
def test_readings_from_several_threads_do_not_lengthen_the_traceback(error, executor):
    """A thousand in four threads at once, and then it is as long as at first."""
    future = executor.submit(deep, 3, error)
    future.exception(PATIENCE)
    first = read("result", future)

    def many():
        for n in range(250):
            read(("result", "exception")[n % 2], future)

    in_threads(many, many, many, many)
    assert read("result", future) == first


def test_the_traceback_shows_the_task(single):
    """The frames of the task are in the cause's traceback, innermost last."""
    future = single.submit(deep, 3, KeyError(1))
    error = future.exception(PATIENCE)
    assert error.traceback.count("in deep") == 4
    assert "worker_loop.py" not in error.traceback
    assert depth_of(error.cause) == 4 + FREE_THREADED  # where the worker's own frame stays


@pytest.mark.skipif(sys.version_info < (3, 13), reason="earlier classes do not know it")
def test_an_instance_has_no_room_for_attributes_that_are_slots() -> None:
    """From 3.14 on each name here makes every future 8 bytes larger."""
    assert vars(Future)["__static_attributes__"] == ()
