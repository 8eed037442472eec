"""Making a pool, and submitting to it."""

from __future__ import annotations

import asyncio
import concurrent.futures as cf
import contextvars
import decimal
import functools
import inspect
import re
import threading
from typing import Any

from tests.differential.answers import kind, outcome, program
from tests.differential.programs.shared import PATIENCE, busy, double, kind_of, shape, who

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
