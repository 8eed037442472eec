"""Shutdown, exit, and initializers."""

from __future__ import annotations

import contextvars
import gc
import sys
import threading
import weakref
from typing import Any

from tests.differential.answers import kind, outcome, program
from tests.differential.programs.shared import (
    PATIENCE,
    boom,
    busy,
    double,
    kind_of,
    logged,
    script,
    shape,
    who,
)

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
    """`shutdown(wait=False)` with a task that runs, which still ends"""
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
