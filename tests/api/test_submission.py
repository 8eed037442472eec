"""Ways to submit, what reaches the task, and what is refused."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import CancelledError, Executor, ThreadPoolExecutor
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from futurepool import (
    BoundedExecutor,
    CancelToken,
    Future,
    FuturePoolError,
    InvalidConfigError,
    OnFull,
    PoolClosedError,
    Priority,
    QueueFullError,
    SubmitTimeoutError,
)
from tests.helpers import hold
from tests.programs import python, unmeasured


def echo(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args, kwargs


KEYWORDS = {"timeout": 1, "priority": 2, "token": 3, "fn": 4, "self": 5, "name": 6, "on_full": 7}

#: Every way to submit, as a function of the executor, the task and its arguments.
WAYS: dict[str, Callable[..., Any]] = {
    "submit": lambda ex, *a, **k: ex.submit(*a, **k),
    "try_submit": lambda ex, *a, **k: ex.try_submit(*a, **k),
    "submit_with_timeout": lambda ex, *a, **k: ex.submit_with_timeout(5, *a, **k),
    "submit_with_priority": lambda ex, *a, **k: ex.submit_with_priority(5, *a, **k),
    "submit_with_token": lambda ex, *a, **k: ex.submit_with_token(CancelToken(), *a, **k),
    "view": lambda ex, *a, **k: ex.options(priority=3, name="n").submit(*a, **k),
}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Callable[..., Any]:
    return WAYS[request.param]


def test_arguments_reach_the_task(way: Callable[..., Any]) -> None:
    """Also keywords that an option is called by."""
    with BoundedExecutor(1) as ex:
        assert way(ex, echo, 1, 2, **KEYWORDS).result() == ((1, 2), KEYWORDS)


@pytest.mark.parametrize("bad", [None, 3, "print", object()])
def test_what_cannot_be_called_is_refused(way: Callable[..., Any], bad: object) -> None:
    """The error names the argument and the value, and nothing is left behind."""
    with BoundedExecutor(1, queue_size=1) as ex:
        with pytest.raises(TypeError, match="fn must be callable, not "):
            way(ex, bad)
        assert ex.stats().submitted_tasks == 0
        assert ex.wait(0)


def test_a_missing_function_is_a_type_error(way: Callable[..., Any]) -> None:
    """As it is in the standard library."""
    with BoundedExecutor(1) as ex, pytest.raises(TypeError):
        way(ex)


def test_a_closed_executor_refuses(way: Callable[..., Any]) -> None:
    """With the standard library's words, for those who search for them."""
    ex = BoundedExecutor(1)
    ex.shutdown()
    with pytest.raises(PoolClosedError, match="cannot schedule new futures after shutdown"):
        way(ex, echo)
    assert ex.stats().submitted_tasks == 0
    assert issubclass(PoolClosedError, RuntimeError)


def test_each_task_gets_a_copy_of_the_context(way: Callable[..., Any]) -> None:
    """The task sees the submitter's context, and keeps its changes to itself."""
    var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="none")

    def task(new: str) -> str:
        old = var.get()
        var.set(new)
        return old

    with BoundedExecutor(1) as ex:
        var.set("mine")
        assert [way(ex, task, new).result() for new in ("a", "b")] == ["mine", "mine"]
        assert ex.submit(var.get).result() == "mine"
        assert var.get() == "mine"


def fill(ex: BoundedExecutor, count: int, gate: threading.Event) -> list[Any]:
    return [ex.submit(gate.wait, 10) for _ in range(count)]


def test_try_submit_refuses_at_once() -> None:
    """The error knows the limit, and the place of the refused task was never taken."""
    gate = threading.Event()
    with BoundedExecutor(1, queue_size=1) as ex:
        fill(ex, 2, gate)
        with pytest.raises(QueueFullError) as caught:
            ex.try_submit(echo)
        assert caught.value.limit == 2
        assert caught.value.waited == 0.0
        assert ex.stats().rejected_tasks == 1
        gate.set()
        assert ex.wait(10)
        assert ex.try_submit(echo).result() == ((), {})


def test_submit_with_timeout_gives_up() -> None:
    """It is a QueueFullError and a TimeoutError, and the task never runs."""
    gate = threading.Event()
    ran = []
    with BoundedExecutor(1, queue_size=0) as ex:
        fill(ex, 1, gate)
        for timeout in (0, 0.01):
            with pytest.raises(SubmitTimeoutError) as caught:
                ex.submit_with_timeout(timeout, ran.append, 1)
            assert isinstance(caught.value, TimeoutError)
            assert isinstance(caught.value, QueueFullError)
            assert caught.value.waited >= timeout
        gate.set()
    assert ran == []
    assert ex.stats().rejected_tasks == 2


def test_submit_with_timeout_waits_for_a_place() -> None:
    """A place that comes free in time is taken."""
    gate = threading.Event()
    with BoundedExecutor(1, queue_size=0) as ex:
        fill(ex, 1, gate)
        opener = threading.Timer(0.01, gate.set)
        opener.start()
        assert ex.submit_with_timeout(30, echo, 1).result() == ((1,), {})
        opener.join()


@pytest.mark.parametrize("timeout", [-1, float("nan"), -0.5])
def test_impossible_timeouts(timeout: float) -> None:
    """Named, with the value, wherever a timeout is taken."""
    with BoundedExecutor(1) as ex:
        for call in (
            lambda: ex.submit_with_timeout(timeout, echo),
            lambda: ex.options(timeout=timeout),
            lambda: ex.wait(timeout),
            lambda: ex.stop(timeout),
        ):
            with pytest.raises(ValueError, match=f"timeout .*{timeout}"):
                call()
        assert not ex.closed


@pytest.mark.parametrize("timeout", ["1", [], True, 1j])
def test_timeouts_of_a_wrong_type(timeout: Any) -> None:
    """A TypeError that names the argument."""
    with BoundedExecutor(1) as ex:
        for call in (
            lambda: ex.submit_with_timeout(timeout, echo),
            lambda: ex.options(timeout=timeout),
            lambda: ex.wait(timeout),
            lambda: ex.stop(timeout),
        ):
            with pytest.raises(TypeError, match="timeout"):
                call()


@pytest.mark.parametrize("priority", ["high", 1.5, None, True, float("nan")])
def test_priorities_are_integers(priority: Any) -> None:
    """Anything else is a TypeError that names the argument."""
    with BoundedExecutor(1) as ex:
        with pytest.raises(TypeError, match="priority"):
            ex.submit_with_priority(priority, echo)
        with pytest.raises(TypeError, match="priority"):
            ex.options(priority=priority)


def test_a_priority_that_is_known_lets_nothing_pass_that_equals_it() -> None:
    """What submits with a priority is kept for the next task; True and 1.0 are equal to 1."""
    with BoundedExecutor(1) as ex:
        for priority in (1, Priority.NORMAL, 1):
            future = ex.submit_with_priority(priority, echo)
            assert (type(future.priority), future.priority) == (int, 1)
        for wrong in (True, 1.0):
            with pytest.raises(TypeError, match="priority"):
                ex.submit_with_priority(wrong, echo)  # type: ignore[arg-type]


def test_each_view_keeps_its_options_at_any_priority() -> None:
    """And nothing but the priority is replaced."""
    with BoundedExecutor(1) as ex:
        view = ex.options(name="of the view", priority=5)
        for _ in range(2):
            task, own = view.submit_with_priority(7, echo), ex.submit_with_priority(7, echo)
            assert (task.name, task.priority, own.name, own.priority) == (
                "of the view",
                7,
                "echo",
                7,
            )
        assert view.submit(echo).priority == 5


def test_many_priorities_keep_but_so_much() -> None:
    """An executor that is given times or numbers as priorities does not grow with each."""
    with BoundedExecutor(1) as ex:
        for priority in range(3000):
            ex.submit_with_priority(priority, int)
            ex.submit_with_timeout(1.0 + priority, int)
        assert len(ex._futurepool_options.at_priority or ()) <= 1024


def test_ways_to_submit_do_not_mix(gate: threading.Event) -> None:
    """What is kept for one is not another's: None, a priority and a timeout that are equal, True."""
    with BoundedExecutor(1, queue_size=1) as ex:
        hold(ex, gate)
        assert ex.submit_with_priority(0, int).priority == 0
        for _ in range(2):
            with pytest.raises(SubmitTimeoutError):
                ex.submit_with_timeout(0, int)
            with pytest.raises(QueueFullError) as caught:
                ex.try_submit(int)
            assert not isinstance(caught.value, SubmitTimeoutError)
            with pytest.raises(SubmitTimeoutError):
                ex.submit_with_timeout(0.0, int)
            with pytest.raises(TypeError):
                ex.submit_with_timeout(True, int)
        gate.set()
        futures = [ex.submit_with_timeout(None, int), ex.submit_with_timeout(60, int)]
        assert [future.priority for future in futures] == [1, 1]


def test_what_submits_at_a_priority_keeps_no_executor_alive() -> None:
    """It is kept by the executor's own options, so it holds the pool only."""
    gc.disable()
    try:
        ex = BoundedExecutor(1)
        ex.submit_with_priority(3, int).result()
        gone = weakref.ref(ex)
        del ex
        assert gone() is None
    finally:
        gc.enable()


def test_tokens_policies_and_names_have_types() -> None:
    """Each wrong one is named."""
    with BoundedExecutor(1) as ex:
        with pytest.raises(TypeError, match="token must be a CancelToken"):
            ex.submit_with_token("token", echo)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="on_full must be an OnFull"):
            ex.options(on_full="block")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="name must be a str"):
            ex.options(name=3)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="token must be a CancelToken"):
            ex.stop(token=3)  # type: ignore[arg-type]
        assert not ex.closed


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"max_workers": 0}, InvalidConfigError, "^max_workers must be greater than 0$"),
        ({"max_workers": -1}, InvalidConfigError, "^max_workers must be greater than 0$"),
        ({"max_workers": -0.5}, InvalidConfigError, "^max_workers must be greater than 0$"),
        ({"max_workers": 1j}, TypeError, "max_workers .*1j"),
        ({"max_workers": "2"}, TypeError, "max_workers .*'2'"),
        ({"queue_size": -1}, InvalidConfigError, "queue_size .*-1"),
        ({"queue_size": 0.5}, TypeError, "queue_size .*0.5"),
        ({"queue_size": True}, TypeError, "queue_size .*True"),
        ({"queue_size": float("inf")}, TypeError, "queue_size .*inf"),
        ({"max_workers": float("nan")}, InvalidConfigError, "^max_workers must be greater than 0$"),
        ({"shutdown_timeout": True}, TypeError, "shutdown_timeout .*True"),
        ({"aging": True}, TypeError, "aging .*True"),
        ({"exit_timeout": True}, TypeError, "exit_timeout .*True"),
        ({"exit_timeout": -1}, InvalidConfigError, "exit_timeout .*-1"),
        ({"on_full": "raise"}, TypeError, "on_full .*'raise'"),
        ({"shutdown_timeout": -1}, InvalidConfigError, "shutdown_timeout .*-1"),
        ({"shutdown_timeout": float("nan")}, InvalidConfigError, "shutdown_timeout .*nan"),
        ({"shutdown_timeout": None}, TypeError, "shutdown_timeout .*None"),
        (
            {"shutdown_timeout": "1"},
            TypeError,
            "shutdown_timeout must be a number of seconds, not '1'",
        ),
        ({"aging": 0}, InvalidConfigError, "aging .*0"),
        ({"aging": -2}, InvalidConfigError, "aging .*-2"),
        ({"aging": float("nan")}, InvalidConfigError, "aging .*nan"),
        ({"aging": "1"}, TypeError, "aging .*'1'"),
        ({"enable_metrics": 1}, TypeError, "enable_metrics .*1"),
        ({"error_handler": 3}, TypeError, "error_handler .*3"),
        ({"initializer": 3}, TypeError, "^initializer must be a callable$"),
        ({"initargs": 3}, TypeError, "initargs .*3"),
        ({"name": 3}, TypeError, "name .*3"),
        ({"name": ""}, TypeError, "name must be a str that is not empty, or None, not ''"),
    ],
)
def test_nonsense_configuration(arguments: Any, error: type[Exception], text: str) -> None:
    """Every impossible argument is named with its value."""
    with pytest.raises(error, match=text):
        BoundedExecutor(**arguments)


def test_config_errors_are_value_errors() -> None:
    """As the standard library's are."""
    assert issubclass(InvalidConfigError, ValueError)
    assert issubclass(InvalidConfigError, FuturePoolError)


@pytest.mark.parametrize("option", ["max_wait", "run_timeout"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("-inf"), "1", True, 1j])
def test_what_is_no_time_for_a_task(option: str, value: Any) -> None:
    """No number of seconds, or one of which nothing could come: refused at the call."""
    kind = InvalidConfigError if type(value) in (int, float) else TypeError
    with BoundedExecutor(1) as pool, pytest.raises(kind, match=f"{option} must be"):
        pool.options(**{option: value})


def test_views_collect_options() -> None:
    """A view of a view keeps what it does not change, and the views before it stay as they were."""
    gate = threading.Event()
    with BoundedExecutor(1, queue_size=0) as ex:
        high = ex.options(priority=Priority.HIGH, name="job")
        both = high.options(on_full=OnFull.RAISE)
        future = both.submit(gate.wait, 10)
        assert (future.priority, future.name) == (2, "job")
        with pytest.raises(QueueFullError):
            both.submit(echo)
        assert high.options(timeout=0).options(priority=7)._futurepool_options.timeout == 0
        with pytest.raises(SubmitTimeoutError):
            both.options(timeout=0).submit(echo)
        with pytest.raises(QueueFullError):
            high.options(timeout=60).try_submit(echo)
        gate.set()
        assert ex.wait(10)
        later = both.options(name=None).submit(echo)
        assert (later.priority, later.name) == (2, "echo")


def test_a_timeout_contradicts_a_policy_that_does_not_wait() -> None:
    """Said at once, not found out later."""
    with BoundedExecutor(1) as ex, pytest.raises(InvalidConfigError, match="timeout=1"):
        ex.options(timeout=1, on_full=OnFull.RAISE)


def test_a_view_is_an_executor() -> None:
    """It maps, serves asyncio, and shutting it down does not touch the pool."""

    async def main(view: Executor) -> Any:
        return await asyncio.get_running_loop().run_in_executor(view, echo, 1)

    with BoundedExecutor(2) as ex:
        with ex.options(priority=5, name="v") as view:
            assert list(view.map(abs, [-1, -2])) == [1, 2]
            assert list(view.map_unordered(abs, [-1])) == [1]
            assert asyncio.run(main(view)) == ((1,), {})
        view.shutdown(wait=True, cancel_futures=True)
        assert view.submit(echo).result() == ((), {})
        assert isinstance(view, Executor)
        assert "priority=5" in repr(view)


def test_a_view_keeps_its_executor_open() -> None:
    """An executor that only a view refers to is not forgotten."""
    view = BoundedExecutor(1).options(priority=1)
    assert view.submit(echo).result() == ((), {})
    view._futurepool_owner().shutdown()


def test_it_is_a_thread_pool_executor_by_name() -> None:
    """asyncio accepts it as default executor, and to_thread uses it."""

    async def main() -> str:
        asyncio.get_running_loop().set_default_executor(BoundedExecutor(1, "mine"))
        return await asyncio.to_thread(lambda: threading.current_thread().name)

    assert asyncio.run(main()) == "mine_0"
    assert issubclass(BoundedExecutor, ThreadPoolExecutor)


def test_submitting_under_a_cancelled_token() -> None:
    """The future comes back cancelled, and counts as rejected."""
    token = CancelToken()
    token.cancel("enough")
    with BoundedExecutor(1) as ex:
        future = ex.submit_with_token(token, echo)
        assert future.cancelled()
        with pytest.raises(CancelledError):
            future.result()
        assert future.task_id == 0
        assert (ex.stats().rejected_tasks, ex.stats().submitted_tasks) == (1, 0)
    with pytest.raises(PoolClosedError):
        ex.submit_with_token(token, echo)


def test_repr_says_what_it_is() -> None:
    """Name, size, bound and state."""
    ex = BoundedExecutor(3, "fetch", queue_size=7)
    assert repr(ex) == "<BoundedExecutor 'fetch' max_workers=3 queue_size=7 running>"
    ex.shutdown(cancel_futures=True)
    assert repr(ex).endswith("stopping>")
    with BoundedExecutor(3, queue_size=None) as unbounded:
        assert "unbounded" in repr(unbounded)


#: Every public way in, on an executor or a view, that needs a pool that is open.
ENTRANCES: dict[str, Callable[..., Any]] = {
    **WAYS,
    "map": lambda ex, fn: ex.map(fn, [1]),
    "map chunks": lambda ex, fn: ex.map(fn, [1], chunksize=2),
    "map lazily": lambda ex, fn: ex.map(fn, [1], buffersize=1),
    "map_unordered": lambda ex, fn: list(ex.map_unordered(fn, [1])),
}


@pytest.mark.parametrize("entrance", ENTRANCES)
@pytest.mark.parametrize("view", [False, True])
def test_every_entrance_is_closed_after_shutdown(entrance: str, view: bool) -> None:
    """A view taken before goes with its executor."""
    ex = BoundedExecutor(1)
    entered = ex.options(priority=4) if view else ex
    ex.shutdown()
    with pytest.raises(PoolClosedError, match="cannot schedule new futures after shutdown"):
        ENTRANCES[entrance](entered, echo)
    assert (ex.stats().submitted_tasks, ex.stats().rejected_tasks) == (0, 0)


class Argument:
    """Something to hold on to."""


REFUSALS: dict[str, Callable[..., Any]] = {
    "try_submit": lambda ex, *a: ex.try_submit(*a),
    "RAISE": lambda ex, *a: ex.options(on_full=OnFull.RAISE).submit(*a),
    "DROP_NEW": lambda ex, *a: ex.options(on_full=OnFull.DROP_NEW).submit(*a),
    "DROP_OLDEST": lambda ex, *a: ex.options(on_full=OnFull.DROP_OLDEST).submit(*a),
    "timeout": lambda ex, *a: ex.submit_with_timeout(0, *a),
}


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize("under_token", [False, True])
def test_what_is_refused_leaves_nothing_behind(
    refusal: str, under_token: bool, gate: threading.Event
) -> None:
    """No place, no task, no argument, and no future in the token it was submitted under."""

    def futures() -> int:
        gc.collect()
        return sum(type(thing) is Future for thing in gc.get_objects())

    token = CancelToken()
    with BoundedExecutor(1, queue_size=0) as ex:
        running = hold(ex, gate)  # or it might be dropped itself
        entered = ex.options(token=token) if under_token else ex
        before, watched = futures(), []
        for _ in range(20):
            argument = Argument()
            watched.append(weakref.ref(argument))
            try:
                assert REFUSALS[refusal](entered, id, argument).cancelled()
            except QueueFullError:
                pass
        del argument
        assert futures() - before == 0
        assert [ref() for ref in watched] == [None] * 20
        stats = ex.stats()
        assert (stats.rejected_tasks, stats.submitted_tasks, stats.queued_tasks) == (20, 1, 0)
        gate.set()
        assert ex.wait(30)
        del running
        assert ex.try_submit(echo).result(30) == ((), {})


#: Submits ever closer to the recursion limit, each time in a new pool, and looks at the pool after.
NO_STACK_LEFT = """
import faulthandler, os, sys, threading
from futurepool import BoundedExecutor, OnFull

faulthandler.dump_traceback_later(60, exit=True)  # a leaked mutex hangs whoever looks

def descend(frames, call):
    return descend(frames - 1, call) if frames else call()

def attempt(frames):
    try:
        descend(frames, lambda: ex.submit(int))
    except RecursionError:
        refused.append(frames)

def whole():
    return ex.wait(20) and ex.stats().active_workers == 0 and ex.try_submit(int).result(20) == 0

def broken(frames):
    print("broken", frames - limit, "frames from the limit")
    os._exit(1)

limit, refused = sys.getrecursionlimit(), []
for frames in range(limit - 40, limit):
    gate = threading.Event()
    ex = BoundedExecutor(1, queue_size={size}, on_full=OnFull.{policy})
    ex.submit(int).result(30)  # its worker is there
    if {full}:
        ex.submit(gate.wait, 10)
    if {full} and {size}:
        ex.submit(int)
    thread = threading.Thread(target=attempt, args=(frames,))
    thread.start()
    thread.join()
    gate.set()
    try:
        sound = whole()
    except Exception:
        sound = False
    if not sound:
        broken(frames)
    ex.shutdown()
print("whole" if refused else "never refused")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("policy", "size", "full"),
    [
        ("BLOCK", 1, False),
        ("CALLER_RUNS", 0, True),
        ("DROP_NEW", 0, True),
        ("DROP_OLDEST", 0, True),
        ("DROP_OLDEST", 1, True),
        ("RAISE", 0, True),
    ],
)
def test_a_submit_with_no_stack_left_takes_no_place(policy: str, size: int, full: bool) -> None:
    """RecursionError at any step of it: the pool goes on, whole, with all its places."""
    script = NO_STACK_LEFT.format(policy=policy, size=size, full=full)
    ran = python(script, timeout=45, env=unmeasured())
    assert (ran.stdout.strip(), ran.returncode) == ("whole", 0), ran.stderr


#: Each task submits the next, and the submitting worker runs it, until the stack ends.
CALLER_RUNS_DOWN = """
import faulthandler, logging, os
from futurepool import BoundedExecutor, OnFull

faulthandler.dump_traceback_later(60, exit=True)
logging.disable(logging.CRITICAL)
ex = BoundedExecutor(1, queue_size=0, on_full=OnFull.CALLER_RUNS)

def dig(depth):
    if depth < 3000:
        ex.submit(dig, depth + 1)

ex.submit(dig, 0).exception()
stats = ex.wait(20) and ex.stats()
whole = bool(stats) and stats.submitted_tasks == stats.completed_tasks + stats.cancelled_tasks
print(whole, flush=True)  # _exit does not flush
os._exit(0)
"""


@pytest.mark.slow
def test_caller_runs_to_the_end_of_the_stack() -> None:
    """RecursionError ends tasks, not the pool: each future ends, each place comes back."""
    ran = subprocess.run(
        [sys.executable, "-c", CALLER_RUNS_DOWN],
        capture_output=True,
        text=True,
        timeout=45,
        check=False,
    )
    assert ran.stdout.strip() == "True", ran.stderr


def test_a_context_is_copied_when_the_task_is_submitted() -> None:
    """Not when it runs; and map takes one for each of its tasks."""
    var: contextvars.ContextVar[int] = contextvars.ContextVar("var", default=0)
    gate = threading.Event()

    def task(_: object = None) -> int:
        seen = var.get()
        var.set(99)
        return seen

    with BoundedExecutor(1) as ex:
        ex.submit(gate.wait, 10)
        var.set(1)
        first = ex.submit(task)
        var.set(2)
        several = ex.map(task, range(3))
        var.set(3)
        gate.set()
        assert first.result(30) == 1
        assert list(several) == [2, 2, 2]
        assert var.get() == 3


def test_nothing_leaks_between_tasks_without_context() -> None:
    """Their worker has one empty context for all of them, until one of them puts something in."""
    var: contextvars.ContextVar[int] = contextvars.ContextVar("var", default=0)
    tokens: list[contextvars.Token[int]] = []

    def task() -> int:
        seen = var.get()
        tokens.append(var.set(seen + 1))
        return seen

    def undo() -> None:
        with pytest.raises(ValueError, match="Context"):
            var.reset(tokens[0])

    def submit() -> None:
        with BoundedExecutor(1) as ex:
            assert [ex.submit(task).result(30) for _ in range(3)] == [0, 0, 0]
            ex.submit(undo).result(30)

    contextvars.Context().run(submit)


def test_a_task_run_by_its_submitter_keeps_its_context_to_itself() -> None:
    """With CALLER_RUNS in the calling thread, and inside another task of a full pool."""
    var: contextvars.ContextVar[int] = contextvars.ContextVar("var", default=0)
    gate = threading.Event()

    def task() -> int:
        seen = var.get()
        var.set(seen + 1)
        return seen

    def outer() -> tuple[int, int, int]:
        var.set(10)
        return ex.submit(task).result(), ex.submit(task).result(), var.get()

    with BoundedExecutor(1, queue_size=0) as ex:
        assert ex.submit(outer).result(30) == (10, 10, 10)
        ex.submit(gate.wait, 10)
        var.set(5)
        assert ex.options(on_full=OnFull.CALLER_RUNS).submit(task).result(30) == 5
        assert var.get() == 5
        gate.set()


def test_a_view_maps_with_its_options() -> None:
    """Priority decides when its tasks come; the executor's own are not affected."""
    gate, order = threading.Event(), []
    with BoundedExecutor(1) as ex:
        ex.submit(gate.wait, 10)
        ex.map(order.append, ["plain 1", "plain 2"])
        urgent = ex.options(priority=Priority.HIGH)
        urgent.map(order.append, ["urgent 1", "urgent 2"])
        urgent.options(priority=3).map(order.append, ["first"], chunksize=2)
        ex.submit(order.append, "plain 3")
        gate.set()
    assert order == ["first", "urgent 1", "urgent 2", "plain 1", "plain 2", "plain 3"]


def test_shutting_a_view_down_leaves_what_it_submitted() -> None:
    """Queued tasks included, whichever way."""
    gate = threading.Event()
    with BoundedExecutor(1) as ex:
        ex.submit(gate.wait, 10)
        with ex.options(priority=2) as view:
            future = view.submit(echo, 1)
        view.shutdown(cancel_futures=True)
        assert not future.done()
        assert not ex.closed
        gate.set()
        assert future.result(30) == ((1,), {})


@pytest.mark.parametrize(
    "timeout", [float("inf"), 1e300, 10**400, Fraction(10**9), Decimal(10**9), None]
)
def test_long_timeouts(timeout: Any) -> None:
    """However long, of whatever real type: they wait, and overflow nowhere."""
    gate, blocked = threading.Event(), threading.Event()
    done: list[Future[Any]] = []
    with BoundedExecutor(1, queue_size=0) as ex:
        ex.submit(gate.wait, 10)

        def submit() -> None:
            blocked.set()
            done.append(ex.submit_with_timeout(timeout, echo, 1))

        thread = threading.Thread(target=submit)
        thread.start()
        blocked.wait(30)
        gate.set()
        thread.join(30)
        assert done[0].result(30) == ((1,), {})


class Unshowable:
    """Its repr is as bad as its use as an argument."""

    def __repr__(self) -> str:
        raise LookupError("no repr")


@pytest.mark.parametrize(
    "argument",
    [
        "max_workers",
        "queue_size",
        "on_full",
        "shutdown_timeout",
        "exit_timeout",
        "aging",
        "enable_metrics",
        "error_handler",
        "initializer",
        "initargs",
        "name",
    ],
)
def test_a_bad_argument_does_not_hide_the_message(argument: str) -> None:
    """A repr that raises is the argument's trouble, not the reader's."""
    arguments: Any = {argument: Unshowable()}
    with pytest.raises(TypeError, match=argument):
        BoundedExecutor(**arguments)


@pytest.mark.parametrize("option", ["priority", "timeout", "token", "on_full", "name"])
def test_a_bad_option_does_not_hide_the_message(option: str) -> None:
    """The same on views."""
    arguments: Any = {option: Unshowable()}
    with BoundedExecutor(1) as ex, pytest.raises(TypeError, match=option):
        ex.options(**arguments)


def test_options_are_named() -> None:
    """Neither by position nor by a name that is none."""
    options: Any = BoundedExecutor(1).options
    with pytest.raises(TypeError):
        options(5)
    with pytest.raises(TypeError, match="prio"):
        options(prio=5)
