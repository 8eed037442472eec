"""What others look at, from outside and behind the pool's back."""

from __future__ import annotations

import concurrent.futures as cf
import copy
import pickle
import pydoc
import threading
from typing import Any

from tests.differential.answers import outcome, program
from tests.differential.programs.shared import PATIENCE, busy, double, kind_of

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
