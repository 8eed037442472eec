"""Everything else."""

from __future__ import annotations

import asyncio
import concurrent.futures as cf
import io
import logging
import operator
import threading
import time
from concurrent.futures import thread as cft
from typing import Any

from tests.differential.answers import kind, outcome, program
from tests.differential.programs.shared import PATIENCE, boom, busy, double, kind_of, logged

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
        while feeder.is_alive() and not (hasattr(pool, "_pool") and pool._pool.waiters.blocked):
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
    """Tasks that pass items to each other by a queue"""
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
