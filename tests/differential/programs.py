"""The programs. Each gets the pool's class and answers with plain data.

They wait for events, never for time to pass, and each ends by itself.
"""

from __future__ import annotations

import asyncio
import concurrent.futures as cf
import contextvars
import copy
import decimal
import functools
import gc
import inspect
import io
import itertools
import logging
import operator
import pickle
import pydoc
import re
import subprocess
import sys
import textwrap
import threading
import time
import traceback
import types
import weakref
from concurrent.futures import thread as cft
from contextlib import contextmanager
from typing import Any

from tests.differential.answers import Log, kind, outcome, program

PATIENCE = 30


def boom(*_: Any) -> Any:
    raise ValueError("boom")


def double(number: int) -> int:
    return 2 * number


def who(*_: Any) -> str:
    return threading.current_thread().name


@contextmanager
def busy(pool: Any, number: int = 1) -> Any:
    """So many of the pool's workers are busy inside."""
    gate = threading.Event()
    started = threading.Barrier(number + 1)

    def work() -> None:
        started.wait(PATIENCE)
        gate.wait(PATIENCE)

    futures = [pool.submit(work) for _ in range(number)]
    started.wait(PATIENCE)
    try:
        yield gate
    finally:
        gate.set()
        for future in futures:
            future.result(PATIENCE)


def shape(function: Any) -> list[Any]:
    return [
        [p.name, p.kind.name, repr(p.default) if p.default is not p.empty else "-"]
        for p in inspect.signature(function).parameters.values()
    ]


@contextmanager
def logged(*names: str) -> Any:
    log = Log()
    loggers = [logging.getLogger(name) for name in names or ("concurrent.futures", "asyncio")]
    for logger in loggers:
        logger.addHandler(log)
        logger.propagate = False
    try:
        yield log.lines
    finally:
        for logger in loggers:
            logger.removeHandler(log)
            logger.propagate = True


def script(Pool: type, text: str) -> Any:
    """Run it as a program of its own: what it prints, and its exit status."""
    where = f"from {Pool.__module__.partition('.thread')[0]} import {Pool.__name__} as Pool\n"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", where + textwrap.dedent(text)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    said = [line for line in done.stderr.splitlines() if "Error" in line and line[0] != " "]
    return [done.stdout.split(), said, done.returncode]


# -- making one ------------------------------------------------------------------------------------


@program
def constructor_parameters(Pool: Any) -> Any:
    """The positional parameters of the constructor"""
    positional = inspect.Parameter.POSITIONAL_OR_KEYWORD
    found = inspect.signature(Pool).parameters.values()
    return [[p.name, repr(p.default)] for p in found if p.kind is positional]


@program
def constructor_positional(Pool: Any) -> Any:
    """All arguments by position"""
    seen: list[Any] = []
    with Pool(2, "prefix", seen.append, (3,)) as pool:
        return [pool.submit(who).result(), seen]


@program
def default_size(Pool: Any) -> Any:
    """How many workers without a number"""
    count = getattr(__import__("os"), "process_cpu_count", __import__("os").cpu_count)()
    return Pool()._max_workers == min(32, count + 4)


@program
def size_zero(Pool: Any) -> Any:
    """`max_workers=0`"""
    return outcome(lambda: Pool(0))


@program
def size_negative(Pool: Any) -> Any:
    """`max_workers=-3`"""
    return outcome(lambda: Pool(-3))


@program
def size_text(Pool: Any) -> Any:
    """`max_workers="2"` is refused"""
    return kind_of(lambda: Pool("2"))


def kind_of(call: Any) -> Any:
    try:
        call()
    except BaseException as error:
        return kind(error)
    return "nothing raised"


@program
def size_float(Pool: Any) -> Any:
    """`max_workers=2.5`"""
    barrier = threading.Barrier(3)
    with Pool(2.5) as pool:
        return sorted(f.result() for f in [pool.submit(barrier.wait, 30) for _ in range(3)])


@program
def size_bool(Pool: Any) -> Any:
    """`max_workers=True`"""
    with Pool(True) as pool:
        return pool.submit(double, 2).result()


@program
def initializer_not_callable(Pool: Any) -> Any:
    """An `initializer` that cannot be called"""
    return outcome(lambda: Pool(initializer=3))


@program
def initargs_list(Pool: Any) -> Any:
    """`initargs` as a list"""
    seen: list[Any] = []
    with Pool(1, initializer=lambda *a: seen.append(a), initargs=[1, 2]) as pool:
        pool.submit(int).result()
    return seen


@program
def unknown_keyword(Pool: Any) -> Any:
    """A keyword that the constructor does not have"""
    return kind_of(lambda: Pool(no_such=1))


@program
def prefix_none(Pool: Any) -> Any:
    """`thread_name_prefix=None`"""
    with Pool(1, None) as pool:
        return pool.submit(who).result().partition("-")[0]


@program
def thread_names(Pool: Any) -> Any:
    """The names of threads, with a prefix"""
    with Pool(3, "worker") as pool, busy(pool, 3):
        return sorted(thread.name for thread in pool._threads)


@program
def thread_names_default(Pool: Any) -> Any:
    """The names of threads, without a prefix"""
    with Pool(1) as pool:
        name = pool.submit(who).result()
    return re.sub(r"\d+", "N", name)


@program
def nothing_starts_early(Pool: Any) -> Any:
    """Threads before the first task"""
    pool = Pool(3)
    return len(pool._threads)


@program
def threads_are_reused(Pool: Any) -> Any:
    """Tasks one after the other use one thread"""
    with Pool(4) as pool:
        return len({pool.submit(threading.get_ident).result() for _ in range(20)})


@program
def threads_are_not_daemons_for_tasks(Pool: Any) -> Any:
    """A thread that a task starts is no daemon"""
    with Pool(1) as pool:
        return pool.submit(lambda: threading.Thread(target=int).daemon).result()


@program
def is_an_executor(Pool: Any) -> Any:
    """`isinstance` and `issubclass`"""
    pool = Pool(1)
    return [
        isinstance(pool, cf.Executor),
        isinstance(pool, cf.ThreadPoolExecutor),
        issubclass(Pool, cf.Executor),
        isinstance(pool, cf.ProcessPoolExecutor),
    ]


# -- submit ----------------------------------------------------------------------------------------


@program
def submit_signature(Pool: Any) -> Any:
    """The signature of `submit`"""
    return shape(Pool.submit)


@program
def submit_arguments(Pool: Any) -> Any:
    """Arguments reach the function, also those called `fn`, `self`, `timeout`"""
    with Pool(1) as pool:
        return pool.submit(lambda *a, **k: [a, k], 1, 2, fn=3, self=4, timeout=5).result()


@program
def submit_nothing(Pool: Any) -> Any:
    """`submit()` without a function"""
    with Pool(1) as pool:
        return outcome(pool.submit)[1].replace(Pool.__name__, "Pool")


@program
def submit_fn_keyword(Pool: Any) -> Any:
    """`submit(fn=...)`"""
    with Pool(1) as pool:
        return kind_of(lambda: pool.submit(fn=int))


@program
def submit_not_callable(Pool: Any) -> Any:
    """`submit` of what cannot be called"""
    with Pool(1) as pool:
        try:
            future = pool.submit(3)
        except TypeError:
            return "submit raises TypeError"
        return kind(future.exception())


@program
def submit_coroutine_function(Pool: Any) -> Any:
    """`submit` of a coroutine function"""

    async def fetch() -> int:
        return 3

    with Pool(1) as pool:
        coroutine = pool.submit(fetch).result()
    return [type(coroutine).__name__, asyncio.run(coroutine)]


@program
def submit_generator_function(Pool: Any) -> Any:
    """`submit` of a generator function"""

    def count() -> Any:
        yield from range(3)

    with Pool(1) as pool:
        return list(pool.submit(count).result())


@program
def submit_class_method_partial(Pool: Any) -> Any:
    """Other callables: class, bound method, partial, builtin, callable object"""

    class Adder:
        def __init__(self, start: int = 1) -> None:
            self.start = start

        def add(self, number: int) -> int:
            return self.start + number

        __call__ = add

    with Pool(1) as pool:
        calls = [(Adder().add, 1), (Adder(2), 1), (functools.partial(pow, 2), 3), (abs, -1)]
        found = [pool.submit(fn, value).result() for fn, value in calls]
        return [*found, type(pool.submit(Adder).result()).__name__]


@program
def order_of_starts(Pool: Any) -> Any:
    """Tasks start in the order in which they were submitted"""
    done: list[int] = []
    with Pool(1) as pool:
        with busy(pool):
            futures = [pool.submit(done.append, number) for number in range(50)]
        for future in futures:
            future.result(PATIENCE)
    return done == list(range(50))


@program
def many_tasks_at_once(Pool: Any) -> Any:
    """2,000 tasks submitted without reading a result"""
    with Pool(4) as pool:
        futures = [pool.submit(double, number) for number in range(2000)]
        return sum(future.result() for future in futures)


@program
def submit_from_task(Pool: Any) -> Any:
    """A task submits another and does not wait"""
    with Pool(1) as pool:
        inner = pool.submit(lambda: pool.submit(double, 4)).result()
        return inner.result(PATIENCE)


@program
def submit_from_callback(Pool: Any) -> Any:
    """A done-callback submits"""
    with Pool(1) as pool:
        found: list[Any] = []
        done = threading.Event()

        def again(_: Any) -> None:
            found.append(pool.submit(double, 5))
            done.set()

        pool.submit(int).add_done_callback(again)
        done.wait(PATIENCE)
        return found[0].result(PATIENCE)


@program
def nested_pools(Pool: Any) -> Any:
    """A task that uses a pool of its own"""

    def work() -> list[int]:
        with Pool(2) as inner:
            return list(inner.map(double, range(3)))

    with Pool(2) as pool:
        return pool.submit(work).result()


@program
def worker_waits_for_its_pool(Pool: Any) -> Any:
    """A task waits for another task of its one-worker pool"""
    pool = Pool(1)

    def outer() -> Any:
        return pool.submit(double, 3).result(timeout=0.2 if Pool is cf.ThreadPoolExecutor else 30)

    found = pool.submit(outer)
    error = found.exception(PATIENCE)
    pool.shutdown()
    return "TimeoutError: it waits for ever" if error is not None else found.result()


@program
def thread_locals_stay(Pool: Any) -> Any:
    """Thread-local data stays with the worker"""
    local = threading.local()

    def count() -> int:
        local.value = getattr(local, "value", 0) + 1
        return local.value

    with Pool(1) as pool:
        return [pool.submit(count).result() for _ in range(3)]


@program
def context_variables(Pool: Any) -> Any:
    """The caller's context variables in a task"""
    var = contextvars.ContextVar("var", default="default")
    var.set("caller's")
    with Pool(1) as pool:
        return pool.submit(var.get).result()


@program
def context_variables_between_tasks(Pool: Any) -> Any:
    """A context variable that one task sets, in the next task"""
    var = contextvars.ContextVar("var", default="default")
    with Pool(1) as pool:
        pool.submit(var.set, "set by a task").result()
        return pool.submit(var.get).result()


@program
def context_run(Pool: Any) -> Any:
    """`submit(copy_context().run, ...)`"""
    var = contextvars.ContextVar("var", default="default")
    var.set("mine")
    with Pool(1) as pool:
        return pool.submit(contextvars.copy_context().run, var.get).result()


@program
def decimal_precision_of_caller(Pool: Any) -> Any:
    """A task that changes its decimal precision leaves the caller's alone"""

    def change() -> int:
        decimal.getcontext().prec = 5
        return decimal.getcontext().prec

    with decimal.localcontext() as context:
        context.prec = 17
        with Pool(1) as pool:
            return [pool.submit(change).result(), decimal.getcontext().prec]


# -- futures ---------------------------------------------------------------------------------------


@program
def future_class(Pool: Any) -> Any:
    """What `submit` returns is a `concurrent.futures.Future`"""
    with Pool(1) as pool:
        return isinstance(pool.submit(int), cf.Future)


@program
def future_states(Pool: Any) -> Any:
    """The states of a future, seen from outside"""

    def look(future: Any) -> list[bool]:
        return [future.running(), future.done(), future.cancelled()]

    with Pool(1) as pool:
        with busy(pool):
            queued, dropped = pool.submit(int), pool.submit(int)
            seen = [look(queued), dropped.cancel(), look(dropped)]
        queued.result(PATIENCE)
        return [*seen, look(queued), queued.cancel()]


@program
def future_state_names(Pool: Any) -> Any:
    """`future._state`, as libraries read it"""
    with Pool(1) as pool:
        with busy(pool):
            queued, dropped = pool.submit(int), pool.submit(int)
            dropped.cancel()
            seen = [queued._state, dropped._state.partition("_")[0]]
        queued.result(PATIENCE)
        return [*seen, queued._state]


@program
def future_repr(Pool: Any) -> Any:
    """The beginning of a future's `repr`, done and failed"""
    with Pool(1) as pool:
        both = [pool.submit(double, 1), pool.submit(boom)]
        cf.wait(both)
        return [
            [text.split(" at ")[0], "state=finished" in text, text.split()[-1]]
            for text in map(repr, both)
        ]


@program
def result_of_failure(Pool: Any) -> Any:
    """What `result()` raises: class, text, arguments"""
    with Pool(1) as pool:
        try:
            pool.submit(boom).result()
        except ValueError as error:
            return [kind(error), str(error), list(error.args), error.__cause__ is None]


@program
def exception_of_failure(Pool: Any) -> Any:
    """What `exception()` returns"""
    with Pool(1) as pool:
        error = pool.submit(boom).exception()
        return [isinstance(error, ValueError), str(error)]


@program
def exception_class_exactly(Pool: Any) -> Any:
    """`type(error) is ValueError`"""
    with Pool(1) as pool:
        return type(pool.submit(boom).exception()) is ValueError


@program
def exception_identity(Pool: Any) -> Any:
    """The error is the very object that the task raised"""
    original = KeyError("k")

    def fail() -> None:
        raise original

    with Pool(1) as pool:
        return pool.submit(fail).exception() is original


@program
def exception_equal_repeat(Pool: Any) -> Any:
    """Asking twice gives the same object"""
    with Pool(1) as pool:
        future = pool.submit(boom)
        return future.exception() is future.exception()


@program
def exception_attributes(Pool: Any) -> Any:
    """Attributes of an error: `errno`, `filename`, one's own"""

    def fail() -> None:
        error = FileNotFoundError(2, "No such file", "a.txt")
        error.extra = 5  # type: ignore[attr-defined]
        raise error

    with Pool(1) as pool:
        error: Any = pool.submit(fail).exception()
        return [error.errno, error.strerror, error.filename, error.extra, str(error)]


@program
def exception_own_name_and_cause(Pool: Any) -> Any:
    """Attributes of an error called `name` and `cause`"""

    class HttpError(Exception):
        name = "Not Found"
        cause = "a typo"

    def fail() -> None:
        raise HttpError(404)

    with Pool(1) as pool:
        error: Any = pool.submit(fail).exception()
        return [error.name, error.cause]


@program
def exception_chain(Pool: Any) -> Any:
    """`__cause__`, `__context__` and `__suppress_context__` of an error"""

    def fail() -> None:
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise ValueError("outer") from error

    with Pool(1) as pool:
        error: Any = pool.submit(fail).exception()
        return [repr(error.__cause__), repr(error.__context__), error.__suppress_context__]


@program
def exception_traceback(Pool: Any) -> Any:
    """The traceback of an error ends in the task's function"""
    with Pool(1) as pool:
        try:
            pool.submit(boom).result()
        except ValueError as error:
            return traceback.extract_tb(error.__traceback__)[-1].name


@program
def exception_printed(Pool: Any) -> Any:
    """The line with the error in a printed traceback"""
    with Pool(1) as pool:
        try:
            pool.submit(boom).result()
        except ValueError as error:
            lines = traceback.format_exception(type(error), error, error.__traceback__)
            return [line for line in "".join(lines).splitlines() if "Error" in line]


@program
def exception_traceback_does_not_grow(Pool: Any) -> Any:
    """The length of the traceback after reading a failed result 50 times"""
    with Pool(1) as pool:
        future = pool.submit(boom)
        for _ in range(50):
            kind_of(future.result)
        frames = len(list(traceback.walk_tb(future.exception().__traceback__)))
        return "stays" if frames < 10 else "grows with each reading"


@program
def exception_compared(Pool: Any) -> Any:
    """`==` of errors that define it"""

    class Same(Exception):
        def __eq__(self, other: object) -> bool:
            return isinstance(other, Same) and self.args == other.args

        def __hash__(self) -> int:
            return 1

    def fail() -> None:
        raise Same(1)

    with Pool(1) as pool:
        return [pool.submit(fail).exception() == Same(1), pool.submit(fail).exception() == Same(2)]


@program
def exception_raised_again(Pool: Any) -> Any:
    """`raise type(error)(...) from error`"""
    with Pool(1) as pool:
        error: Any = pool.submit(boom).exception()
        try:
            raise type(error)("more") from error
        except ValueError as again:
            return [str(again), str(again.__cause__)]


@program
def exception_pickled(Pool: Any) -> Any:
    """An error that is pickled and read again"""
    with Pool(1) as pool:
        error = pickle.loads(pickle.dumps(pool.submit(boom).exception()))
        return [kind(error), str(error), list(error.args)]


@program
def exception_groups(Pool: Any) -> Any:
    """An exception group of a task, split"""
    group: Any = getattr(__builtins__, "ExceptionGroup", None)
    if isinstance(__builtins__, dict):
        group = __builtins__.get("ExceptionGroup")
    if group is None:  # Python 3.10
        return ["ValueError('a')", "KeyError('b')"]

    def fail() -> None:
        raise group("both", [ValueError("a"), KeyError("b")])

    with Pool(1) as pool:
        error: Any = pool.submit(fail).exception()
        yes, no = error.split(ValueError)
        return [repr(each) for each in (*yes.exceptions, *no.exceptions)]


@program
def base_exceptions(Pool: Any) -> Any:
    """A task that raises SystemExit, KeyboardInterrupt, GeneratorExit; the pool works on"""

    def fail(error: BaseException) -> None:
        raise error

    with Pool(1) as pool:
        errors = [SystemExit(3), KeyboardInterrupt(), GeneratorExit()]
        found = [type(pool.submit(fail, error).exception()).__name__ for error in errors]
        return [*found, pool.submit(double, 2).result()]


@program
def stop_iteration(Pool: Any) -> Any:
    """A task that raises StopIteration"""
    with Pool(1) as pool:
        error: Any = pool.submit(next, iter(())).exception()
        return [kind(error), error.value]


@program
def result_timeout(Pool: Any) -> Any:
    """`result(timeout=0)` of a running task"""
    with Pool(1) as pool, busy(pool):
        future = pool.submit(int)
        return [outcome(lambda: future.result(0)), outcome(lambda: future.exception(timeout=0))]


@program
def result_negative_timeout(Pool: Any) -> Any:
    """`result(timeout=-1)`, running and done"""
    with Pool(1) as pool:
        with busy(pool):
            future = pool.submit(int)
            early = outcome(lambda: future.result(-1))
        future.result(PATIENCE)
        return [early, future.result(-1)]


@program
def result_long_timeout(Pool: Any) -> Any:
    """`result(timeout=1e10)`"""
    gate = threading.Event()
    with Pool(1) as pool:
        future = pool.submit(gate.wait, PATIENCE)
        threading.Timer(0.05, gate.set).start()
        try:
            return future.result(1e10)
        except OverflowError:
            gate.set()
            return "OverflowError"


@program
def result_timeout_text(Pool: Any) -> Any:
    """`result(timeout="1")`"""
    with Pool(1) as pool, busy(pool):
        return kind_of(lambda: pool.submit(int).result("1"))


@program
def result_of_cancelled(Pool: Any) -> Any:
    """`result()` and `exception()` of a cancelled future"""
    with Pool(1) as pool, busy(pool):
        future = pool.submit(int)
        future.cancel()
        return [kind_of(future.result), kind_of(future.exception)]


@program
def cancel_running(Pool: Any) -> Any:
    """`cancel()` of a running and of a finished task"""
    with Pool(1) as pool:
        started, gate = threading.Event(), threading.Event()

        def work() -> int:
            started.set()
            gate.wait(PATIENCE)
            return 7

        future = pool.submit(work)
        started.wait(PATIENCE)
        running = future.cancel()
        gate.set()
        return [running, future.result(PATIENCE), future.cancel()]


@program
def cancelled_never_runs(Pool: Any) -> Any:
    """A cancelled task does not run"""
    ran: list[int] = []
    with Pool(1) as pool:
        with busy(pool):
            futures = [pool.submit(ran.append, number) for number in range(4)]
            cancelled = [futures[1].cancel(), futures[3].cancel()]
        cf.wait(futures)
    return [cancelled, ran]


@program
def callbacks(Pool: Any) -> Any:
    """Done-callbacks: order, argument, one that is added late"""
    seen: list[Any] = []
    with Pool(1) as pool:
        with busy(pool):
            future = pool.submit(double, 3)
            for number in range(3):
                future.add_done_callback(lambda f, n=number: seen.append([n, f.result()]))
        future.result(PATIENCE)
    future.add_done_callback(lambda f: seen.append(["late", f is future]))
    return seen


@program
def callback_threads(Pool: Any) -> Any:
    """The thread of a done-callback: finished, cancelled, added late"""
    seen: list[bool] = []
    me = threading.current_thread()
    with Pool(1, "worker") as pool:
        with busy(pool):
            finished, cancelled = pool.submit(int), pool.submit(int)
            finished.add_done_callback(
                lambda _: seen.append(threading.current_thread().name == "worker_0")
            )
            cancelled.add_done_callback(lambda _: seen.append(threading.current_thread() is me))
            cancelled.cancel()
        finished.result(PATIENCE)
    finished.add_done_callback(lambda _: seen.append(threading.current_thread() is me))
    return seen


@program
def callback_raises(Pool: Any) -> Any:
    """A done-callback that raises: what is logged, and the others"""
    seen: list[int] = []
    with logged() as lines, Pool(1) as pool:
        with busy(pool):
            future = pool.submit(int)
            future.add_done_callback(boom)
            future.add_done_callback(lambda _: seen.append(1))
        future.result(PATIENCE)
        pool.submit(int).result(PATIENCE)
    return [lines, seen]


@program
def callback_not_callable(Pool: Any) -> Any:
    """`add_done_callback` of what cannot be called"""
    with logged(), Pool(1) as pool:
        future = pool.submit(int)
        future.result(PATIENCE)
        return kind_of(lambda: future.add_done_callback(3))


@program
def callback_system_exit(Pool: Any) -> Any:
    """A done-callback that raises SystemExit: the pool afterwards"""
    if Pool is cf.ThreadPoolExecutor:
        return "its worker is dead"  # and the pool hangs: see the scorecard

    def leave(_: Any) -> None:
        raise SystemExit

    with logged(), Pool(1) as pool:
        with busy(pool):
            pool.submit(int).add_done_callback(leave)
        return pool.submit(double, 1).result(PATIENCE)


@program
def wait_first_completed(Pool: Any) -> Any:
    """`concurrent.futures.wait` in its three modes"""
    with Pool(2) as pool:
        with busy(pool):
            slow = pool.submit(int)
            gate = threading.Event()
            stuck = pool.submit(gate.wait, PATIENCE)
            failed = pool.submit(boom)
            first = cf.wait([slow, stuck], PATIENCE, cf.FIRST_COMPLETED)
            late = cf.wait([stuck], 0)
            gate.set()
            thrown = cf.wait([failed, stuck], PATIENCE, cf.FIRST_EXCEPTION)
        every = cf.wait([slow, stuck, failed], PATIENCE)
        return [
            [f is slow for f in first.done],
            [len(late.done), len(late.not_done)],
            failed in thrown.done,
            [len(every.done), len(every.not_done)],
        ]


@program
def as_completed(Pool: Any) -> Any:
    """`concurrent.futures.as_completed`, with failed, cancelled and repeated futures"""
    with Pool(1) as pool:
        with busy(pool):
            futures = [pool.submit(double, 1), pool.submit(boom), pool.submit(int)]
            futures[2].cancel()
            futures.append(futures[0])
        return len(list(cf.as_completed(futures, timeout=PATIENCE)))


@program
def as_completed_timeout(Pool: Any) -> Any:
    """`as_completed(timeout=0)` with one done and one not"""
    with Pool(1) as pool:
        done = pool.submit(int)
        done.result()
        with busy(pool):
            return outcome(lambda: list(cf.as_completed([done, pool.submit(int)], timeout=0)))


@program
def wait_across_pools(Pool: Any) -> Any:
    """Futures of both classes in one `wait`"""
    with Pool(1) as pool, cf.ThreadPoolExecutor(1) as other:
        futures = [pool.submit(double, 1), other.submit(double, 2)]
        return sorted(f.result() for f in cf.wait(futures, PATIENCE).done)


@program
def future_set_result(Pool: Any) -> Any:
    """`set_result` on a future that is finished"""
    with Pool(1) as pool:
        future = pool.submit(int)
        future.result()
        return kind_of(lambda: future.set_result(3))


@program
def future_await(Pool: Any) -> Any:
    """`await asyncio.wrap_future(future)`"""

    async def main() -> Any:
        with Pool(1) as pool:
            return await asyncio.wrap_future(pool.submit(double, 4))

    return asyncio.run(main())


@program
def future_generic(Pool: Any) -> Any:
    """`Future[int]` of the class of a future"""
    with Pool(1) as pool:
        return type(pool.submit(int))[int].__origin__ is type(pool.submit(int))


@program
def future_attributes(Pool: Any) -> Any:
    """A future takes attributes of one's own, and weak references, and is hashable"""
    with Pool(1) as pool:
        future = pool.submit(int)
        future.tag = 3
        return [future.tag, weakref.ref(future)() is future, len({future, future})]


@program
def future_public_methods(Pool: Any) -> Any:
    """Every public method of the standard future is there, with its parameters"""
    with Pool(1) as pool:
        cls = type(pool.submit(int))
    return [
        [name, shape(getattr(cls, name))]
        for name in ("add_done_callback", "cancel", "cancelled", "done", "exception", "result")
    ]


@program
def results_are_freed(Pool: Any) -> Any:
    """Arguments and results die with the last reference, without the collector"""

    class Thing:
        pass

    gc.disable()
    try:
        with Pool(1) as pool:
            thing = Thing()
            alive = [weakref.ref(thing)]
            future = pool.submit(lambda value: [Thing(), id(value)], thing)
            del thing
            alive.append(weakref.ref(future.result()[0]))
            del future
            pool.submit(int).result()
            return [ref() is None for ref in alive]
    finally:
        gc.enable()


# -- map -------------------------------------------------------------------------------------------


@program
def map_signature(Pool: Any) -> Any:
    """The signature of `map`"""
    return shape(Pool.map)


@program
def map_order(Pool: Any) -> Any:
    """`map` yields in input order, of the shortest input"""
    with Pool(3) as pool:
        return list(pool.map(pow, range(5), itertools.repeat(2)))


@program
def map_returns(Pool: Any) -> Any:
    """What `map` returns"""
    with Pool(1) as pool:
        results = pool.map(double, [1])
        return [isinstance(results, types.GeneratorType), iter(results) is results]


@program
def map_nothing(Pool: Any) -> Any:
    """`map` over nothing, and of no iterable at all"""
    with Pool(1) as pool:
        return [list(pool.map(double, [])), outcome(lambda: list(pool.map(double)))]


@program
def map_is_eager(Pool: Any) -> Any:
    """All calls are submitted before `map` returns, unread ones run too"""
    ran: list[int] = []
    with Pool(1) as pool:
        results = pool.map(ran.append, range(5))
    del results
    return ran


@program
def map_of_generator(Pool: Any) -> Any:
    """`map` reads a generator in the calling thread, at once"""
    readers: set[str] = set()

    def items() -> Any:
        for number in range(3):
            readers.add(threading.current_thread().name)
            yield number

    with Pool(2) as pool:
        results = pool.map(double, items())
        early = len(readers)
        return [early, list(results)]


@program
def map_failure(Pool: Any) -> Any:
    """A call of `map` that fails ends the iterator where it stands"""

    def check(number: int) -> int:
        if number == 2:
            raise ValueError("two")
        return number

    with Pool(1) as pool:
        results = pool.map(check, range(5))
        seen = [next(results), next(results), outcome(lambda: next(results))]
        return [*seen, outcome(lambda: next(results, "end"))]


@program
def map_failure_cancels(Pool: Any) -> Any:
    """After a failure in `map`, what has not started is cancelled"""
    ran: list[int] = []
    gate = threading.Event()

    def check(number: int) -> int:
        if number == 0:
            raise ValueError("zero")
        gate.wait(PATIENCE)
        ran.append(number)
        return number

    with Pool(1) as pool:
        results = pool.map(check, range(10))
        error = kind_of(lambda: list(results))
        gate.set()
    return [error, len(ran) <= 1]


@program
def map_leaving_early(Pool: Any) -> Any:
    """Leaving `map`'s iterator early cancels what has not started"""
    ran: list[int] = []
    gate = threading.Event()

    def work(number: int) -> int:
        if number:
            gate.wait(PATIENCE)
        ran.append(number)
        return number

    with Pool(1) as pool:
        results = pool.map(work, range(10))
        first = next(results)
        results.close()
        gate.set()
    return [first, len(ran) <= 2]


@program
def map_timeout(Pool: Any) -> Any:
    """`map(timeout=0)` with a call that does not end"""
    gate = threading.Event()
    with Pool(1) as pool:
        results = pool.map(gate.wait, [PATIENCE], timeout=0)
        found = outcome(lambda: next(results))
        gate.set()
        return found


@program
def map_timeout_negative(Pool: Any) -> Any:
    """`map(timeout=-1)`"""
    gate = threading.Event()
    with Pool(1) as pool:
        results = pool.map(gate.wait, [PATIENCE], timeout=-1)
        found = outcome(lambda: next(results))
        gate.set()
        return found


@program
def map_timeout_done(Pool: Any) -> Any:
    """`map(timeout=-1)` of calls that are done yields their results"""
    with Pool(1) as pool:
        results = pool.map(double, [1, 2], timeout=-1)
        pool.submit(int).result(PATIENCE)
        return list(results)


@program
def map_timeout_text(Pool: Any) -> Any:
    """`map(timeout="1")`"""
    with Pool(1) as pool:
        return kind_of(lambda: list(pool.map(double, [1], timeout="1")))


@program
def map_chunksizes(Pool: Any) -> Any:
    """`map(chunksize=)` of 3, 0, -1, 2.5 and None"""
    with Pool(2) as pool:
        return [
            outcome(lambda size=size: list(pool.map(double, range(5), chunksize=size)))
            for size in (3, 0, -1, 2.5, None)
        ]


@program
def map_chunk_failure(Pool: Any) -> Any:
    """With `chunksize`, the results before a failure come, and it where it stands"""

    def check(number: int) -> int:
        if number == 3:
            raise ValueError("three")
        return number

    seen: list[Any] = []
    with Pool(1) as pool:
        try:
            for result in pool.map(check, range(8), chunksize=5):
                seen.append(result)
        except ValueError as error:
            seen.append(str(error))
    return seen


@program
def map_buffersize(Pool: Any) -> Any:
    """`map(buffersize=2)` over an endless input"""
    with Pool(2) as pool:
        results = pool.map(double, itertools.count(), buffersize=2)
        found = list(itertools.islice(results, 5))
        results.close()
        return found


@program
def map_buffersize_is_lazy(Pool: Any) -> Any:
    """`map(buffersize=2)` reads that many inputs before it returns"""
    read: list[int] = []

    def items() -> Any:
        for number in range(10):
            read.append(number)
            yield number

    with Pool(1) as pool:
        results = pool.map(double, items(), buffersize=2)
        early = len(read)
        next(results)
        later = len(read)
        results.close()
        return [early, later]


@program
def map_buffersize_bad(Pool: Any) -> Any:
    """`map(buffersize=)` of 0, -1, 1.5 and text"""
    with Pool(1) as pool:
        return [
            outcome(lambda size=size: list(pool.map(double, [1], buffersize=size)))
            for size in (0, -1, 1.5, "2")
        ]


@program
def map_not_iterable(Pool: Any) -> Any:
    """`map` of what cannot be iterated"""
    with Pool(1) as pool:
        return kind_of(lambda: pool.map(double, 3))


@program
def map_input_fails(Pool: Any) -> Any:
    """An input of `map` that raises while it is read"""

    def items() -> Any:
        yield 1
        raise KeyError("input")

    with Pool(1) as pool:
        return outcome(lambda: list(pool.map(double, items())))


@program
def map_not_callable(Pool: Any) -> Any:
    """`map` of what cannot be called"""
    with Pool(1) as pool:
        return kind_of(lambda: list(pool.map(3, [1])))


@program
def map_after_shutdown(Pool: Any) -> Any:
    """`map` on a pool that is shut down"""
    pool = Pool(1)
    pool.shutdown()
    return outcome(lambda: pool.map(double, [1]))


@program
def map_uses_submit_of_subclass(Pool: Any) -> Any:
    """`map` goes by way of a subclass's `submit`"""
    seen: list[int] = []

    class Counting(Pool):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            seen.append(1)
            return super().submit(fn, *args, **kwargs)

    with Counting(1) as pool:
        return [list(pool.map(double, range(3))), len(seen)]


@program
def map_stop_iteration(Pool: Any) -> Any:
    """A call of `map` that raises StopIteration"""
    with Pool(1) as pool:
        return outcome(lambda: list(pool.map(next, [iter(())])))


@program
def map_in_a_task(Pool: Any) -> Any:
    """A task that maps over its own pool, with workers to spare"""
    with Pool(3) as pool:
        return pool.submit(lambda: list(pool.map(double, range(4)))).result(PATIENCE)


@program
def map_iterator_outlives_pool(Pool: Any) -> Any:
    """Results of `map` after the pool was shut down"""
    with Pool(1) as pool:
        results = pool.map(double, range(3))
    return list(results)


# -- the end ---------------------------------------------------------------------------------------


@program
def shutdown_signature(Pool: Any) -> Any:
    """The signature of `shutdown`"""
    return shape(Pool.shutdown)


@program
def shutdown_positional(Pool: Any) -> Any:
    """`shutdown(True)`, `shutdown(wait=False)`, twice, and what it returns"""
    pool = Pool(1)
    return [pool.shutdown(True), pool.shutdown(wait=False), pool.shutdown()]


@program
def shutdown_finishes(Pool: Any) -> Any:
    """`shutdown` finishes what was accepted"""
    ran: list[int] = []
    pool = Pool(1)
    for number in range(20):
        pool.submit(ran.append, number)
    pool.shutdown()
    return len(ran)


@program
def shutdown_cancels(Pool: Any) -> Any:
    """`shutdown(cancel_futures=True)`"""
    pool = Pool(1)
    with busy(pool):
        futures = [pool.submit(int) for _ in range(3)]
        pool.shutdown(wait=False, cancel_futures=True)
        return [future.cancelled() for future in futures]


@program
def shutdown_does_not_wait(Pool: Any) -> Any:
    """`shutdown(wait=False)` with a task that runs; it ends all the same"""
    pool = Pool(1)
    with busy(pool):
        queued = pool.submit(double, 2)
        pool.shutdown(wait=False)
        early = queued.done()
    return [early, queued.result(PATIENCE)]


@program
def submit_after_shutdown(Pool: Any) -> Any:
    """`submit` on a pool that is shut down"""
    pool = Pool(1)
    pool.shutdown()
    return outcome(lambda: pool.submit(int))


@program
def threads_after_shutdown(Pool: Any) -> Any:
    """Threads after `shutdown()`: none is alive"""
    pool = Pool(3)
    with busy(pool, 3):
        threads = set(pool._threads)
    pool.shutdown()
    return [len(threads), any(thread.is_alive() for thread in threads)]


@program
def with_returns(Pool: Any) -> Any:
    """`with` gives the pool, and leaving swallows nothing"""
    pool = Pool(1)

    def leave() -> None:
        with pool as entered:
            assert entered is pool
            raise KeyError("body")

    return [outcome(leave), kind_of(lambda: pool.submit(int))]


@program
def exit_value(Pool: Any) -> Any:
    """`__exit__(None, None, None)` returns"""
    pool = Pool(1)
    return pool.__exit__(None, None, None)


@program
def exit_by_keyword(Pool: Any) -> Any:
    """`__exit__` by the names of its parameters"""
    return outcome(lambda: Pool(1).__exit__(exc_type=None, exc_val=None, exc_tb=None))


@program
def exit_calls_shutdown(Pool: Any) -> Any:
    """`with` leaves by a subclass's `shutdown`, also of the old signature"""
    seen: list[Any] = []

    class Old(Pool):
        def shutdown(self, wait: bool = True) -> None:
            seen.append(wait)
            super().shutdown(wait)

    with Old(1) as pool:
        pool.submit(int).result()
    return seen


@program
def exit_by_error_runs_the_rest(Pool: Any) -> Any:
    """Leaving `with` by an error: what is queued runs"""
    ran: list[int] = []
    gate = threading.Event()

    def leave() -> None:
        with Pool(1) as pool:
            pool.submit(gate.wait, PATIENCE)
            pool.submit(ran.append, 1)
            gate.set()
            raise KeyError

    return [kind_of(leave), ran]


@program
def exit_by_interrupt(Pool: Any) -> Any:
    """Leaving `with` by KeyboardInterrupt: what is queued"""
    ran: list[int] = []
    gate = threading.Event()
    started = threading.Event()

    def first() -> None:
        started.set()
        gate.wait(PATIENCE)

    def leave() -> None:
        with Pool(1) as pool:
            pool.submit(first)
            started.wait(PATIENCE)
            pool.submit(ran.append, 1)
            threading.Timer(0.05, gate.set).start()
            raise KeyboardInterrupt

    return [kind_of(leave), "runs" if ran else "is cancelled"]


@program
def shutdown_in_a_task(Pool: Any) -> Any:
    """A task that shuts its own pool down and waits"""
    pool = Pool(1)
    error = pool.submit(pool.shutdown).exception(PATIENCE)
    pool.shutdown()
    return repr(error) if error is None else kind(error)


@program
def dropped_pool_finishes(Pool: Any) -> Any:
    """A pool that is dropped without shutdown runs what it has accepted"""
    futures = []
    pool = Pool(1)
    for number in range(10):
        futures.append(pool.submit(double, number))
    del pool
    gc.collect()
    return [future.result(PATIENCE) for future in futures]


@program
def dropped_pool_ends_threads(Pool: Any) -> Any:
    """A pool that is dropped ends its threads"""
    pool = Pool(2)
    with busy(pool, 2):
        threads = set(pool._threads)
    del pool
    gc.collect()
    for thread in threads:
        thread.join(PATIENCE)
    return any(thread.is_alive() for thread in threads)


@program
def weak_reference(Pool: Any) -> Any:
    """A weak reference to a pool dies with it"""
    pool = Pool(1)
    pool.submit(int).result()
    ref = weakref.ref(pool)
    alive = ref() is pool
    del pool
    gc.collect()
    return [alive, ref() is None]


@program
def script_exit_runs_all(Pool: Any) -> Any:
    """At the end of a script what was accepted runs"""
    return script(
        Pool,
        """
        pool = Pool(2)
        for number in range(5):
            pool.submit(print, number, flush=True)
        """,
    )[2]


@program
def script_submit_at_exit(Pool: Any) -> Any:
    """A task that submits while the interpreter ends"""
    return script(
        Pool,
        """
        import threading, time
        pool = Pool(1)
        ending = threading.Event()
        threading._register_atexit(ending.set)
        def work():
            ending.wait(30)
            time.sleep(0.2)
            try: pool.submit(int)
            except RuntimeError as error: print(*str(error).split())
        pool.submit(work)
        """,
    )


@program
def script_thread_of_a_task(Pool: Any) -> Any:
    """A thread that a task starts ends its work at exit"""
    return script(
        Pool,
        """
        import threading, time
        def work():
            time.sleep(0.2)
            print("done", flush=True)
        Pool(1).submit(lambda: threading.Thread(target=work).start()).result()
        """,
    )


@program
def script_uncaught(Pool: Any) -> Any:
    """A script that ends by the error of a task"""
    return script(Pool, "Pool(1).submit(int, 'x').result()")[1:]


@program
def script_unread_failure(Pool: Any) -> Any:
    """A script that ends with a failure nobody has looked at: what stderr says"""
    out = script(Pool, "with Pool(1) as pool: pool.submit(int, 'x')")
    return ["is said on stderr" if out[1] else "nothing", out[2]]


@program
def script_fork(Pool: Any) -> Any:
    """A pool in the child of a fork"""
    if sys.platform == "win32":
        return "hangs"
    return script(
        Pool,
        """
        import os, sys, time, concurrent.futures, threading, warnings
        pool = Pool(1)
        pool.submit(int).result()
        child = os.fork()
        if not child:
            try: pool.submit(int).result(1); text = "works"
            except concurrent.futures.TimeoutError: text = "hangs"
            print(text, flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        """,
    )[0]


# -- initializers ----------------------------------------------------------------------------------


@program
def initializer_each_thread(Pool: Any) -> Any:
    """The initializer runs once in each thread, before its first task"""
    seen: list[str] = []
    with Pool(3, "w", initializer=lambda: seen.append(who())) as pool, busy(pool, 3):
        pass
    return sorted(seen)


@program
def initializer_fails(Pool: Any) -> Any:
    """An initializer that raises: the future, later submits, the log"""
    with logged() as lines:
        pool = Pool(1, initializer=boom)
        first = outcome(lambda: pool.submit(int).result(PATIENCE))
        second = outcome(lambda: pool.submit(int))
        pool.shutdown()
    return [first, second, lines]


@program
def initializer_fails_broken(Pool: Any) -> Any:
    """`_broken` after a failed initializer"""
    with logged():
        pool = Pool(1, initializer=boom)
        before = pool._broken
        kind_of(lambda: pool.submit(int).result(PATIENCE))
        pool.shutdown()
    return [before, pool._broken]


@program
def initializer_thread_locals(Pool: Any) -> Any:
    """Thread-local data of the initializer is there in tasks"""
    local = threading.local()

    def prepare() -> None:
        local.connection = "open"

    with Pool(1, initializer=prepare) as pool:
        return pool.submit(lambda: local.connection).result()


@program
def initializer_context_variables(Pool: Any) -> Any:
    """Context variables that the initializer sets are there in tasks"""
    var = contextvars.ContextVar("var", default="default")
    with Pool(1, initializer=var.set, initargs=("prepared",)) as pool:
        return [pool.submit(var.get).result() for _ in range(2)]


# -- what others look at ---------------------------------------------------------------------------


@program
def internals_idle(Pool: Any) -> Any:
    """`_max_workers`, `_threads`, `_work_queue`, `_shutdown`, `_broken` of an idle pool"""
    pool = Pool(2)
    with busy(pool, 2):
        queued = pool.submit(int)
        seen = [pool._max_workers, len(pool._threads), pool._work_queue.qsize()]
    queued.result(PATIENCE)
    seen += [pool._work_queue.empty(), pool._shutdown, pool._broken]
    pool.shutdown()
    return [*seen, pool._shutdown]


@program
def internals_prefix(Pool: Any) -> Any:
    """`_thread_name_prefix`"""
    return Pool(1, "p")._thread_name_prefix


@program
def internals_lock(Pool: Any) -> Any:
    """`with pool._shutdown_lock`"""
    pool = Pool(1)
    with pool._shutdown_lock:
        seen = pool._shutdown
    return [seen, pool.submit(int).result()]


@program
def internals_idle_semaphore(Pool: Any) -> Any:
    """`_idle_semaphore._value` of a fresh pool"""
    return Pool(2)._idle_semaphore._value


@program
def internals_grow(Pool: Any) -> Any:
    """`_max_workers` set to more: so many tasks run at a time"""
    barrier = threading.Barrier(3)
    with Pool(1) as pool:
        pool._max_workers = 3
        return sorted(f.result() for f in [pool.submit(barrier.wait, 30) for _ in range(3)])


@program
def internals_drain(Pool: Any) -> Any:
    """Items taken out of `_work_queue`"""
    pool = Pool(1)
    found = []
    with busy(pool):
        futures = [pool.submit(double, number) for number in range(3)]
        while not pool._work_queue.empty():
            item = pool._work_queue.get_nowait()
            found.append((getattr(item, "task", None) or (0, item.args))[1])
        same = [item.future is futures[-1]]
    pool.shutdown()
    return [found, same]


@program
def internals_drained_future(Pool: Any) -> Any:
    """The future of an item taken out of `_work_queue`"""
    pool = Pool(1)
    with busy(pool):
        future = pool.submit(int)
        pool._work_queue.get_nowait()
    pool.shutdown()
    return "is cancelled" if future.cancelled() else "stays pending for ever"


@program
def internals_set_shutdown(Pool: Any) -> Any:
    """`pool._shutdown = True`"""
    pool = Pool(1)
    pool._shutdown = True
    found = outcome(lambda: pool.submit(int))
    pool.shutdown()
    return found


@program
def internals_bounded_queue(Pool: Any) -> Any:
    """`_work_queue = queue.Queue(5)` in a subclass"""
    import queue

    class Bounded(Pool):
        def __init__(self) -> None:
            super().__init__(1)
            self._work_queue = queue.Queue(5)

    with Bounded() as pool:
        return [pool.submit(double, number).result() for number in range(10)]


@program
def thread_list(Pool: Any) -> Any:
    """Workers are in `threading.enumerate()`, and are `threading.Thread`"""
    with Pool(1, "listed") as pool:
        pool.submit(int).result()
        return [type(t).__name__ for t in threading.enumerate() if t.name == "listed_0"]


@program
def thread_in_task(Pool: Any) -> Any:
    """`threading.current_thread()` in a task is one of `_threads`"""
    with Pool(1) as pool:
        return pool.submit(threading.current_thread).result() in pool._threads


@program
def public_names(Pool: Any) -> Any:
    """Every public name of the standard class is there"""
    theirs = {name for name in dir(cf.ThreadPoolExecutor) if not name.startswith("_")}
    return sorted(theirs & set(dir(Pool)) & {"map", "shutdown", "submit"})


@program
def docstrings(Pool: Any) -> Any:
    """Its public methods have docstrings, and `help` shows them"""
    text = pydoc.render_doc(Pool, renderer=pydoc.plaintext)
    return [
        bool(Pool.__doc__ or Pool.__init__.__doc__),
        *[bool(getattr(Pool, name).__doc__) for name in ("submit", "map", "shutdown")],
        *[f" {name}(" in text for name in ("submit", "map", "shutdown")],
    ]


@program
def pickled(Pool: Any) -> Any:
    """A pool and a future cannot be pickled or deep-copied"""
    with Pool(1) as pool:
        future = pool.submit(int)
        return [
            kind_of(lambda value=value, act=act: act(value)) != "nothing raised"
            for value in (pool, future)
            for act in (pickle.dumps, copy.deepcopy)
        ]


@program
def copied(Pool: Any) -> Any:
    """`copy.copy(pool)`"""
    pool = Pool(1)
    return outcome(lambda: type(copy.copy(pool)).__name__ == Pool.__name__) is True


@program
def subclass_init(Pool: Any) -> Any:
    """A subclass with attributes of its own, called as ours are"""

    class Mine(Pool):
        def __init__(self) -> None:
            self.name, self.closed = "mine", "no"
            super().__init__(1)
            self.stats, self.running, self.options = {"a": 1}, True, [1]

    with Mine() as pool:
        found = [pool.name, pool.closed, pool.stats, pool.running, pool.options]
        return [found, pool.submit(double, 1).result(), list(pool.map(double, [2]))]


@program
def subclass_private_names(Pool: Any) -> Any:
    """A subclass with private attributes called `_core`, `_options`, `_pool`, `_name`"""

    class Mine(Pool):
        def __init__(self) -> None:
            super().__init__(1)
            self._core = self._options = self._pool = self._name = self._collected = "mine"

    with Mine() as pool:
        return [pool.submit(double, 1).result(), list(pool.map(double, [2])), pool._pool]


@program
def subclass_overrides_internals(Pool: Any) -> Any:
    """A subclass that overrides `_adjust_thread_count`"""
    return outcome(lambda: type("Mine", (Pool,), {"_adjust_thread_count": int}).__name__) == "Mine"


@program
def patched_submit(Pool: Any) -> Any:
    """`submit` replaced on the instance, as some tools do"""
    with Pool(1) as pool:
        original = pool.submit
        seen: list[Any] = []

        def submit(fn: Any, *args: Any, **kwargs: Any) -> Any:
            seen.append(fn is double)
            return original(fn, *args, **kwargs)

        pool.submit = submit
        return [pool.submit(double, 1).result(), list(pool.map(double, [2])), seen]


@program
def pool_attributes(Pool: Any) -> Any:
    """A pool takes attributes, is hashable, true, and equal to itself only"""
    pool = Pool(1)
    pool.tag = 3
    return [pool.tag, bool(pool), pool == pool, pool == Pool(1), len({pool, pool})]


@program
def generic(Pool: Any) -> Any:
    """Futures in type hints: `Future[int]`"""
    return str(cf.Future[int]).endswith("Future[int]") and callable(Pool)


# -- asyncio ---------------------------------------------------------------------------------------


@program
def run_in_executor(Pool: Any) -> Any:
    """`loop.run_in_executor`: results, errors, many at once"""

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        with Pool(2) as pool:
            first = await loop.run_in_executor(pool, double, 2)
            try:
                await loop.run_in_executor(pool, boom)
            except ValueError as error:
                second = [kind(error), str(error)]
            third = await asyncio.gather(
                *[loop.run_in_executor(pool, double, number) for number in range(100)]
            )
            return [first, second, sum(third)]

    with logged() as lines:
        return [asyncio.run(main()), lines]


@program
def default_executor(Pool: Any) -> Any:
    """`loop.set_default_executor` and `asyncio.to_thread`"""

    async def main() -> Any:
        asyncio.get_running_loop().set_default_executor(Pool(2, "default"))
        return [await asyncio.to_thread(who), await asyncio.to_thread(double, 4)]

    return asyncio.run(main())


@program
def to_thread_context(Pool: Any) -> Any:
    """Context variables through `asyncio.to_thread`"""
    var = contextvars.ContextVar("var", default="default")

    async def main() -> Any:
        asyncio.get_running_loop().set_default_executor(Pool(1))
        var.set("mine")
        return await asyncio.to_thread(var.get)

    return asyncio.run(main())


@program
def run_in_executor_cancelled(Pool: Any) -> Any:
    """Cancelling what waits for `run_in_executor` cancels the queued task"""

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        ran: list[int] = []
        pool = Pool(1)
        with busy(pool):
            waiting = loop.run_in_executor(pool, ran.append, 1)
            await asyncio.sleep(0)
            waiting.cancel()
            found = await outcome_of(waiting)
        pool.shutdown()
        return [found, ran]

    return asyncio.run(main())


async def outcome_of(awaitable: Any) -> Any:
    try:
        return await awaitable
    except asyncio.CancelledError:
        return "cancelled"


async def plain(awaitable: Any) -> Any:
    return await awaitable


@program
def run_in_executor_stop_iteration(Pool: Any) -> Any:
    """StopIteration through `run_in_executor`"""

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        with Pool(1) as pool:
            try:
                return await asyncio.wait_for(plain(loop.run_in_executor(pool, next, iter(()))), 5)
            except BaseException as error:
                return kind(error)

    with logged():
        return asyncio.run(main())


@program
def shutdown_default_executor(Pool: Any) -> Any:
    """`loop.shutdown_default_executor()` waits for the pool's tasks"""
    ran: list[int] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(Pool(1))
        loop.run_in_executor(None, ran.append, 1)
        await loop.shutdown_default_executor()

    asyncio.run(main())
    return ran


# -- other -----------------------------------------------------------------------------------------


@program
def recursion_error(Pool: Any) -> Any:
    """A task that recurses without end; the pool works on"""

    def again(number: int) -> int:
        return again(number + 1)

    with Pool(1) as pool:
        return [kind(pool.submit(again, 0).exception(PATIENCE)), pool.submit(double, 1).result()]


@program
def memory_error(Pool: Any) -> Any:
    """A task that raises MemoryError"""

    def fail() -> None:
        raise MemoryError("none left")

    with Pool(1) as pool:
        return outcome(lambda: pool.submit(fail).result())


@program
def warnings_of_tasks(Pool: Any) -> Any:
    """Output of a task goes where the process's goes"""
    text = io.StringIO()
    with Pool(1) as pool:
        pool.submit(print, "hello", file=text).result()
    return text.getvalue()


@program
def attrgetter_results(Pool: Any) -> Any:
    """Results of any kind come back as they are"""
    values = [None, Ellipsis, NotImplemented, ValueError("x"), int, (), float("inf")]
    with Pool(1) as pool:
        found = [pool.submit(lambda value=value: value).result() for value in values]
    return list(map(operator.is_, found, values))


@program
def returned_exception(Pool: Any) -> Any:
    """A task that returns an exception has not failed"""
    with Pool(1) as pool:
        future = pool.submit(lambda: ValueError("value"))
        return [repr(future.result()), future.exception()]


@program
def current_thread_is_alive_in_callback(Pool: Any) -> Any:
    """A done-callback runs before the pool's shutdown returns"""
    order: list[str] = []
    pool = Pool(1)
    pool.submit(int).add_done_callback(lambda _: order.append("callback"))
    pool.shutdown()
    order.append("shutdown")
    return order


@program
def time_is_not_wasted(Pool: Any) -> Any:
    """`result()` of a sleeping task returns when it ends, and `wait` in time"""
    with Pool(2) as pool:
        sleeping = [pool.submit(time.sleep, 0.01) for _ in range(2)]
        return [future.result(PATIENCE) for future in sleeping]


@program
def broken_class(Pool: Any) -> Any:
    """What a broken pool raises can be caught as `BrokenExecutor` and `RuntimeError`"""
    with logged():
        pool = Pool(1, initializer=boom)
        error = pool.submit(int).exception(PATIENCE)
        pool.shutdown()
    return [
        isinstance(error, each) for each in (cf.BrokenExecutor, cft.BrokenThreadPool, RuntimeError)
    ]


@program
def submit_without_end(Pool: Any) -> Any:
    """1,100 tasks behind one that does not end: how many `submit` takes in"""
    pool = Pool(1)
    futures: list[Any] = []
    with busy(pool):
        feeder = threading.Thread(
            target=lambda: [futures.append(pool.submit(int)) for _ in range(1100)]
        )
        feeder.start()
        while feeder.is_alive() and not getattr(getattr(pool, "_pool", None), "blocked", ()):
            time.sleep(0.001)
        taken = len(futures)
    feeder.join(PATIENCE)
    pool.shutdown()
    return [taken, len(futures)]


@program
def submit_from_many_threads(Pool: Any) -> Any:
    """Eight threads submit at once"""
    futures: list[Any] = []
    with Pool(3) as pool:
        feeders = [
            threading.Thread(
                target=lambda: futures.extend([pool.submit(double, n) for n in range(100)])
            )
            for _ in range(8)
        ]
        for feeder in feeders:
            feeder.start()
        for feeder in feeders:
            feeder.join(PATIENCE)
        return sum(future.result() for future in futures)


@program
def growth(Pool: Any) -> Any:
    """Threads start one by one, as many as there are tasks at a time"""
    counts = []
    with Pool(4) as pool:
        for number in range(1, 4):
            with busy(pool, number):
                counts.append(len(pool._threads))
    return counts


@program
def repr_of_a_pool(Pool: Any) -> Any:
    """`repr(pool)`"""
    text = repr(Pool(2, "p"))
    return [text.startswith("<"), Pool.__name__ in text, " object at 0x" in text]


@program
def autospec(Pool: Any) -> Any:
    """`unittest.mock.create_autospec` of the class"""
    from unittest import mock

    fake = mock.create_autospec(Pool, instance=True)
    fake.submit(int, 1)
    fake.map(int, [1], timeout=3)
    fake.shutdown(wait=False, cancel_futures=True)
    return [fake.submit.call_count, kind_of(fake.submit), kind_of(lambda: fake.nothing)]


@program
def patched_class(Pool: Any) -> Any:
    """`unittest.mock.patch.object` of a method"""
    from unittest import mock

    with mock.patch.object(Pool, "submit", autospec=True, side_effect=Pool.submit) as spy:
        pool = Pool(1)
        found = [pool.submit(double, 2).result(), list(pool.map(double, [1, 2]))]
        pool.shutdown()
        return [found, spy.call_count]


@program
def context_manager(Pool: Any) -> Any:
    """It counts as a context manager, and works in an ExitStack"""
    import contextlib

    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(Pool(1))
        future = pool.submit(double, 2)
    return [isinstance(pool, contextlib.AbstractContextManager), future.done()]


@program
def log_records(Pool: Any) -> Any:
    """The thread's name in log records of a task"""
    names: list[str] = []

    class Names(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            names.append(record.threadName or "")

    logger = logging.getLogger("tests.differential.task")
    handler = Names()
    logger.addHandler(handler)
    logger.propagate = False
    try:
        with Pool(1, "logs") as pool:
            pool.submit(logger.warning, "hello").result()
    finally:
        logger.removeHandler(handler)
        logger.propagate = True
    return names


@program
def profilers(Pool: Any) -> Any:
    """`threading.setprofile` sees tasks"""
    seen: set[str] = set()
    threading.setprofile(lambda frame, *_: seen.add(frame.f_code.co_name))
    try:
        with Pool(1) as pool:
            pool.submit(double, 1).result()
    finally:
        threading.setprofile(None)  # type: ignore[arg-type]
    return "double" in seen


@program
def threadsafe_coroutines(Pool: Any) -> Any:
    """A task that runs a coroutine in the loop of another thread"""

    async def answer() -> int:
        return 42

    async def main() -> Any:
        loop = asyncio.get_running_loop()

        def work() -> int:
            return asyncio.run_coroutine_threadsafe(answer(), loop).result(PATIENCE)

        with Pool(1) as pool:
            return await loop.run_in_executor(pool, work)

    return asyncio.run(main())


@program
def loop_in_a_task(Pool: Any) -> Any:
    """A task that has an event loop of its own"""

    async def answer() -> int:
        await asyncio.sleep(0)
        return 42

    with Pool(1) as pool:
        return [pool.submit(asyncio.run, answer()).result(PATIENCE) for _ in range(2)]


@program
def wait_with_plain_future(Pool: Any) -> Any:
    """`wait` over a future of the pool and one made by hand"""
    by_hand: Any = cf.Future()
    with Pool(1) as pool:
        ours = pool.submit(double, 1)
        ours.add_done_callback(by_hand.set_result)
        done = cf.wait([ours, by_hand], PATIENCE).done
        return [len(done), by_hand.result() is ours]


@program
def producers_and_consumers(Pool: Any) -> Any:
    """Tasks that hand on to each other by a queue"""
    import queue

    items: Any = queue.Queue(2)
    with Pool(2) as pool:
        consumer = pool.submit(lambda: [items.get(timeout=PATIENCE) for _ in range(10)])
        pool.submit(lambda: [items.put(number, timeout=PATIENCE) for number in range(10)])
        return consumer.result(PATIENCE)


@program
def locks_around_submit(Pool: Any) -> Any:
    """`submit` under a lock that the done-callback takes"""
    lock = threading.RLock()
    count = [0]

    def done(_: Any) -> None:
        with lock:
            count[0] += 1

    with Pool(2) as pool:
        for _ in range(200):
            with lock:
                pool.submit(int).add_done_callback(done)
    return count


@program
def crawler(Pool: Any) -> Any:
    """Tasks that submit tasks, breadth first, under a lock of theirs"""
    lock = threading.Lock()
    seen: set[int] = set()
    finished = threading.Event()
    open_tasks = [1]

    with Pool(3) as pool:

        def visit(node: int) -> None:
            with lock:
                for child in (2 * node, 2 * node + 1):
                    if child < 500 and child not in seen:
                        seen.add(child)
                        open_tasks[0] += 1
                        pool.submit(visit, child)
                open_tasks[0] -= 1
                if not open_tasks[0]:
                    finished.set()

        pool.submit(visit, 1)
        finished.wait(PATIENCE)
    return len(seen)


@program
def worker_daemon_flag(Pool: Any) -> Any:
    """`daemon` of the worker threads, seen from outside and in a task"""
    with Pool(1) as pool:
        inside = pool.submit(lambda: threading.current_thread().daemon).result()
        return [inside, [thread.daemon for thread in pool._threads]]


@program
def thread_queues(Pool: Any) -> Any:
    """`concurrent.futures.thread._threads_queues`, for code that forgets threads there"""
    with Pool(1) as pool:
        pool.submit(int).result()
        return [cft._threads_queues.pop(thread, None) is not None for thread in pool._threads]
