"""Futures."""

from __future__ import annotations

import asyncio
import concurrent.futures as cf
import gc
import pickle
import threading
import traceback
import weakref
from typing import Any

from tests.differential.answers import kind, outcome, program
from tests.differential.programs.shared import PATIENCE, boom, busy, double, kind_of, logged, shape

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
def callback_interrupted(Pool: Any) -> Any:
    """A done-callback that raises SystemExit, in the thread that cancels, and in the one that adds it late"""

    def leave(_: Any) -> None:
        raise SystemExit("leave")

    with Pool(1) as pool:
        with busy(pool):
            future = pool.submit(int)
            future.add_done_callback(leave)
            cancelling = outcome(future.cancel)
        return [cancelling, future.cancelled(), outcome(lambda: future.add_done_callback(leave))]


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
