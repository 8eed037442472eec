"""`map`."""

from __future__ import annotations

import itertools
import threading
import types
from typing import Any

from tests.differential.answers import outcome, program
from tests.differential.programs.shared import PATIENCE, double, kind_of, shape

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
def map_chunks_by_submit_of_subclass(Pool: Any) -> Any:
    """`map(chunksize=2)` by way of a subclass's `submit`, which changes the result"""
    seen: list[bool] = []

    class Labelling(Pool):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            seen.append(fn is double)
            return super().submit(lambda: ("label", fn(*args, **kwargs)))

    with Labelling(1) as pool:
        return [list(pool.map(double, range(3), chunksize=2)), seen]


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
