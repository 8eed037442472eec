"""What programs do around a pool: their locks, loops, stacks, callbacks and contexts."""

from __future__ import annotations

import asyncio
import contextlib
import decimal
import gc
import logging
import threading
import time
import warnings
import weakref
from collections.abc import Callable
from concurrent import futures as cf
from typing import Any

from futurepool import BoundedExecutor, CancelToken, OnFull
from tests.faults.tools import (
    PATIENCE,
    SOON,
    NotApplicableError,
    Subject,
    check,
    healthy,
    probe,
)


@probe
def submit_under_a_lock(subject: Subject) -> None:
    """Tasks submit tasks that take the same lock, to a pool whose queue is full"""
    ex = subject.make(2, 1)
    lock, seen = threading.Lock(), {1}

    def crawl(node: int) -> None:
        with lock:
            for link in (2 * node, 2 * node + 1):
                if link < 500 and link not in seen:
                    seen.add(link)
                    ex.submit(crawl, link)

    ex.submit(crawl, 1)
    while len(seen) < 499:
        time.sleep(0.001)
    ex.shutdown()
    check(len(seen) == 499)


@probe
def submit_deep_down(subject: Subject) -> None:
    """Tasks submit tasks from deep in their stacks, to a pool whose queue is full"""
    ex = subject.make(2, 0)
    futures: list[Any] = []
    ended = threading.Event()

    def visit(left: int, frames: int = 20) -> None:
        if frames:
            visit(left, frames - 1)
        elif left:
            futures.append(ex.submit(visit, left - 1))
        else:
            ended.set()

    ex.submit(visit, 2000)
    check(ended.wait(PATIENCE))
    ex.shutdown()
    failed = [future for future in futures if future.exception() is not None]
    check(len(futures) == 2000 and not failed, f"{len(failed)} of {len(futures)} failed")


@probe
def timeout_in_a_task(subject: Subject) -> None:
    """In a task, result(timeout) of another task of the pool, with idle workers and without"""
    for workers in (1, 3):
        ex = subject.make(workers)
        gate = threading.Event()

        def impatient(ex: Any = ex, gate: threading.Event = gate) -> bool:
            inner = ex.submit(gate.wait, PATIENCE)
            try:
                inner.result(0.05)
            except cf.TimeoutError:
                gate.set()
                return bool(inner.result())
            return False

        check(ex.submit(impatient).result(SOON))
        ex.shutdown()


@probe
def wait_in_a_task(subject: Subject) -> None:
    """In a task, wait() for a running task and for queued ones of the same pool that need it"""
    ex = subject.make(2)
    go, begun = threading.Event(), threading.Event()

    def outer() -> int:
        first = ex.submit(lambda: (begun.set(), go.wait(PATIENCE)))
        begun.wait(PATIENCE)
        rest = [ex.submit(first.result) for _ in range(20)]
        threading.Timer(0.05, go.set).start()
        return len(cf.wait([first, *rest]).done)

    check(ex.submit(outer).result(10) == 21)
    ex.shutdown()


@probe
def loop_in_a_task(subject: Subject) -> None:
    """In a task with a running loop, submit(asyncio.run, ...).result()"""
    ex = subject.make(2)

    async def fetch() -> int:
        return 42

    async def main() -> Any:
        return ex.submit(asyncio.run, fetch()).result()

    for _ in range(50):
        check(ex.submit(asyncio.run, main()).result(10) == 42)
    ex.shutdown()


@probe
def callbacks_under_a_lock(subject: Subject) -> None:
    """Submit under a lock that done-callbacks of futures cancelled elsewhere take"""
    ex = subject.make(2, 1000)
    lock, end = threading.Lock(), threading.Event()

    def callback(_: object) -> None:
        with lock:
            pass

    def cancel() -> None:
        while not end.is_set():
            future = ex.submit(int)
            future.add_done_callback(callback)
            future.cancel()

    threads = [threading.Thread(target=cancel, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(3000):
        with lock:
            future = ex.submit(int)
        future.result(PATIENCE)
    end.set()
    for thread in threads:
        thread.join(PATIENCE)
        check(not thread.is_alive())
    healthy(subject, ex, 2, 1000)
    ex.shutdown()


@probe
def slow_callbacks(subject: Subject) -> None:
    """Done-callbacks that block, of tasks that a deadline, a drop or a shutdown has ended"""
    if not subject.bounded:
        raise NotApplicableError("it ends no task by itself")
    gate = threading.Event()

    def held(size: int) -> BoundedExecutor:
        ex = BoundedExecutor(1, queue_size=size, on_full=OnFull.DROP_OLDEST)
        begun = threading.Event()
        ex.submit(lambda: (begun.set(), gate.wait(PATIENCE)))
        begun.wait(PATIENCE)
        return ex

    def blocked(future: Any) -> None:
        future.add_done_callback(lambda _: gate.wait(PATIENCE))

    pools = [held(2), held(1), held(1)]
    blocked(pools[0].submit_with_token(CancelToken(0.01), int))
    late = pools[0].submit_with_token(CancelToken(0.05), int)
    check(cf.wait([late], 5).done == {late}, "another deadline waits")
    blocked(pools[1].submit(int))
    pools[1].submit(int)  # drops it
    blocked(pools[2].submit(int))
    pools[2].shutdown(wait=False, cancel_futures=True)
    gate.set()
    for pool in pools:
        pool.shutdown()


@probe
def callbacks_that_want_the_submitter(subject: Subject) -> None:
    """Submit, on a full queue, under a lock that the done-callbacks of all workers take"""
    ex = subject.make(2, 1)
    lock = threading.RLock()

    def callback(_: object) -> None:
        with lock:
            pass

    with lock:
        for _ in range(6):
            ex.submit(time.sleep, 0.01).add_done_callback(callback)
    ex.submit(int).result(PATIENCE)
    ex.shutdown()


@probe
def closed_while_submitting(subject: Subject) -> None:
    """Submits that never block, while the pool is shut down: none runs after shutdown(wait=True)"""
    for _ in range(100):
        ex = subject.make(1, 0)
        free, go = threading.Event(), threading.Barrier(2)
        down: list[int] = []
        late: list[int] = []
        ex.submit(free.wait, PATIENCE)

        def close(ex: Any = ex, free: Any = free, go: Any = go, down: Any = down) -> None:
            go.wait()
            free.set()
            ex.shutdown(wait=True)
            down.append(1)

        def task(down: Any = down, late: Any = late) -> None:
            late.extend(down)

        async def submit(ex: Any = ex, go: Any = go, task: Any = task) -> None:
            go.wait()
            with contextlib.suppress(RuntimeError), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                while True:
                    ex.submit(task)

        closer = threading.Thread(target=close)
        closer.start()
        asyncio.run(submit())
        closer.join(PATIENCE)
        check(not closer.is_alive(), "shutdown does not return")
        check(not late, "a task ran after the shutdown")


@probe
def nothing_stays(subject: Subject) -> None:
    """Results, arguments and pools are freed without a gc run, also after callbacks and failures"""
    ex = subject.make(1)

    class Thing:
        pass

    def fail(_: object) -> None:
        raise ValueError

    def ways() -> list[Callable[[Any, Any], object]]:
        async def awaited(thing: Any) -> None:
            await asyncio.get_running_loop().run_in_executor(ex, id, thing)

        def called_back(future: Any) -> None:
            future.add_done_callback(lambda f: f.exception())
            cf.wait([future])

        return [
            lambda thing, _: ex.submit(id, thing).result(),
            lambda thing, _: called_back(ex.submit(id, thing)),
            lambda thing, _: called_back(ex.submit(fail, thing)),
            lambda thing, _: ex.submit(fail, thing).exception(),
            lambda thing, _: list(ex.map(id, [thing])),
            lambda thing, _: asyncio.run(awaited(thing)),
        ]

    logging.disable(logging.CRITICAL)
    gc.collect()
    gc.disable()
    try:
        for number, way in enumerate(ways()):
            thing = Thing()
            ref = weakref.ref(thing)
            way(thing, None)
            del thing
            ex.submit(int).result()
            ex.submit(int).result()
            check(ref() is None, f"the argument of way {number} stays")
    finally:
        gc.enable()
    ex.shutdown()


@probe
def contexts(subject: Subject) -> None:
    """A task sets its decimal precision: nobody else's changes"""
    ex = subject.make(1)
    before = decimal.getcontext().prec

    def rough() -> int:
        decimal.getcontext().prec = 4
        return decimal.getcontext().prec

    check(ex.submit(rough).result(PATIENCE) == 4)
    check(decimal.getcontext().prec == before, "the caller's has changed")
    ex.shutdown()


@probe
def logging_through_the_pool(subject: Subject) -> None:
    """Unseen failures die in the middle of a log handler's queue"""
    ex = subject.make(1)
    lock = threading.Lock()  # what a handler may hold, not re-entrant

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            with lock:
                pass

    class Job:
        def __init__(self) -> None:
            self.me = self  # for the collector
            self.future = ex.submit(self.run)

        def run(self) -> None:
            raise ValueError

    handler = Handler()
    logging.getLogger("futurepool").addHandler(handler)
    logging.getLogger("concurrent.futures").addHandler(handler)
    for _ in range(20):
        job = Job()
        while not job.future.done():
            time.sleep(0.0001)
        del job
        with lock:
            gc.collect()
    ex.shutdown()
