"""The form in C does what the form in Python does: random programs over both, compared after each step.

Two pools, one thread. Workers are slots that a program takes steps of, one by one; nothing sleeps, and the
clock stands still within a step. The one pool has a mutex of another class, which is why it gets the Python code.
"""

from __future__ import annotations

import contextvars
import functools
import gc
import heapq
import itertools
import logging
import operator
import os
import random
import signal
import sys
import threading
import weakref
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from contextvars import Context
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

import futurepool
from futurepool import BoundedExecutor, CancelToken, FuturePoolError, OnFull, _sync
from futurepool import _future as futures
from futurepool._engines import worker_loop
from futurepool._engines.threads import ThreadEngine
from futurepool._foreign import aside
from futurepool._future import Future, name_of
from futurepool._pool import completion, fast
from futurepool._pool import pool as pools
from futurepool._pool.workers import PARKED, Kind, WorkerSlot

pytestmark = pytest.mark.skipif(
    futurepool.form != "compiled", reason="the extension was not built, or another form was chosen"
)

PROGRAM = 250  # steps
VARIABLE: contextvars.ContextVar[int] = contextvars.ContextVar("VARIABLE", default=0)


class OtherRLock(type(_sync.RLock())):  # type: ignore[misc]
    """As good as the original, and not it."""


class Parker:
    """What would put a thread to sleep."""

    def __init__(self) -> None:
        self.released = 0

    def release(self) -> None:
        self.released += 1
        if self.released % 3 == 0:
            raise RuntimeError("released already")


class Engine(ThreadEngine):
    """Slots without threads."""

    def __init__(self, pool: Any) -> None:
        super().__init__(pool, "w", None, ())
        self.slots: list[WorkerSlot] = []

    def start_worker(self) -> None:
        pool = self._pool()
        slot = WorkerSlot(pool, Kind.THREAD)
        slot.parker = Parker()
        with pool.mutex:
            if pool.enlist(slot, self):
                slot.ident = 1
                self.slots.append(slot)

    def reap_dead_workers(self) -> None:
        """No thread is to be alive."""

    def worker_name(self, slot: WorkerSlot) -> str:
        return "?"

    # Of what it is listed as, which is itself.

    def is_alive(self) -> bool:
        return False

    def join(self, timeout: float | None = None) -> None:
        pass


class RowInPython:
    """twin of `_fast.Row`, in the words of `worker_loop.work`."""

    MANY = 64

    def __init__(self, pool: Any, slot: WorkerSlot) -> None:
        self.pool, self.slot = pool, slot
        self.spare = Context()
        self.failed = False

    def __call__(self) -> None:
        self.failed = False
        for _ in range(self.MANY):
            task = self.pool.next_task(self.slot)
            if task is None:
                return
            error = None
            context = task._context or self.spare
            try:
                task._result = context.run(task._fn, *task._args, **task._kwargs or {})
            except BaseException as raised:
                error = raised
            task._fn = name_of(task._fn, task._args)
            if self.spare:
                self.spare = Context()
            task._args = task._context = task._kwargs = None
            if error is not None:
                self.failed = True
                raise error


class Side:
    """One pool, and all that a program knows of it."""

    moment = 1000.0  # what the clock says

    def __init__(self, chance: random.Random, compiled: bool) -> None:
        more: Any = chance.choice([{}, {}, {"aging": 2.0}, {"order": "lifo"}])
        self.executor = BoundedExecutor(
            chance.randint(1, 4),
            queue_size=chance.choice([0, 1, 3, 10, 100, None]),
            enable_metrics=chance.random() < 0.3,
            **more,
            thread_name_prefix="w",
            name="a pool",
            error_handler=id,
        )
        self.pool: Any = self.executor._pool
        if not compiled:
            self.pool.mutex = OtherRLock()
        self.pool.engine = self.engine = Engine(self.pool)
        limited = chance.random() < 0.25 and "order" not in more
        self.limited = self.executor.options(limit=2, name="limited") if limited else None
        self.futures: list[Future[Any]] = []
        self.numbers: dict[int, int] = {}
        self.rows: dict[int, Any] = {}
        self.tokens = [CancelToken() for _ in range(3)]
        self.parkers: list[Parker] = []
        self.log: list[Any] = []
        self.compiled = compiled

    # -- what tasks do ------------------------------------------------------------------------

    def give(self, *args: Any, **kwargs: Any) -> Any:
        self.log.append(("ran", args, kwargs, VARIABLE.get()))
        return args

    def fail(self, kind: type[BaseException]) -> None:
        self.log.append(("fails", VARIABLE.get()))
        raise kind("no")

    def spoil(self, value: int) -> None:
        self.log.append(("spoils", VARIABLE.get()))
        VARIABLE.set(value)

    def more(self, count: int, priority: int) -> None:
        for number in range(count):
            self.submit(self.executor.options(priority=priority), self.give, (number,), {})

    def functions(self) -> list[tuple[Any, tuple[Any, ...], dict[str, Any]]]:
        run = Context().run
        return [
            (self.give, (1, 2), {}),
            (self.give, (), {}),
            (self.give, (), {"a": 1, "b": 2}),
            (abs, (-3,), {}),
            (abs, (-4,), {}),
            (abs, (), {}),
            (int, ("x",), {}),
            (functools.partial(self.give, 7), (8,), {"c": 9}),
            (run, (self.give, 5), {}),
            (run, (len, "five"), {}),
            (self.fail, (ValueError,), {}),
            (self.fail, (SystemExit,), {}),
            (self.fail, (StopIteration,), {}),
            (self.spoil, (3,), {}),
            (self.more, (2, 1), {}),
            (self.more, (1, 5), {}),
            (lambda: self.log.append("a lambda"), (), {}),
        ]

    # -- steps --------------------------------------------------------------------------------

    def known(self, future: Any) -> None:
        if id(future) not in self.numbers:
            self.numbers[id(future)] = len(self.futures)
            self.futures.append(future)

    def submit(self, view: Any, fn: Any, args: Any, kwargs: Any) -> None:
        try:
            future = view.submit(fn, *args, **kwargs)
        except FuturePoolError as error:
            self.log.append((type(error).__name__, str(error)))
        else:
            self.known(future)

    def row(self, slot: WorkerSlot) -> Any:
        if id(slot) not in self.rows:
            row = RowInPython(self.pool, slot)
            if self.compiled:
                assert fast.row_of is not None
                row = fast.row_of(self.pool, slot)
            else:
                assert fast.row_of is not None
                assert fast.row_of(self.pool, slot) is None
            self.rows[id(slot)] = row
        return self.rows[id(slot)]

    def work(self, index: int, whole: bool) -> None:
        """A step of a worker; nothing if it would sleep."""
        if not self.engine.slots:
            return
        slot = self.engine.slots[index % len(self.engine.slots)]
        if slot.leave or (slot.status == PARKED and not slot.parker.released):
            return
        slot.parker.released = 0
        before, _sync.here.slot = _sync.here.slot, slot
        row = self.row(slot)
        try:
            if whole:
                row()
            else:
                task = self.pool.next_task(slot)
                self.log.append(("taken", None if task is None else task.task_id))
                if task is not None:
                    task._result = "a result"
                    task._fn, task._args, task._kwargs, task._context = task.name, None, None, None
        except BaseException as error:
            assert row.failed
            self.pool.complete(slot, None, error)
        finally:
            _sync.here.slot = before

    def close(self) -> None:
        """Leave nothing that the exit of the interpreter would wait for."""
        for slot in self.engine.slots:
            slot.task = None
            with self.pool.mutex:
                self.pool.leave(slot)
        self.executor.shutdown(wait=False, cancel_futures=True)

    def visible(self) -> Iterator[Any]:
        pool = self.pool
        capacity, workers, meters, queue = pool.capacity, pool.workers, pool.meters, pool.queue
        slots = self.engine.slots
        yield capacity.submitted, capacity.max_id, capacity.limit
        yield workers.threads, workers.reserved, workers.notifying, workers.caller_runs
        yield workers.wakeup_pending, [slots.index(slot) for slot in workers.parked]
        yield meters.completed, meters.failed, meters.run_time, meters.rejections
        # The form in Python notes times in the slot, and counts them later.
        counted = meters.copy([])
        counted.fill([slot.fresh for slot in slots if slot.fresh])
        yield counted.wait_time
        for histogram in filter(None, [counted.latency, counted.wait, counted.admission]):
            yield histogram.max, histogram.counts
        yield pool.state, len(pool.deferred), pool.mutex._is_owned(), len(pool.waiters.blocked)
        yield [(key, len(level), level.next_lower is None) for key, level in queue.levels.items()]
        yield queue.top.key, getattr(queue, "tombstones", 0), len(queue.token_cancelled)
        yield [future.task_id for future in itertools.islice(pool.waiting_tasks(), 20)]
        for slot in slots:
            yield None if slot.task is None else slot.task.task_id
            yield (
                slot.status,
                slot.started,
                # Without a GIL a worker looks once more before it sleeps, which begins a row of none.
                None if _sync.free_threaded and slot.task is None else slot.since,
                slot.leave,
                slot.fresh is None,
                slot.parker.released,
            )
        for future in self.futures[-12:]:
            yield future._state, future.task_id, future.priority, future.name, future._queued_at
            yield future._args is None, future._kwargs is None, future._context is None
            if future.done() and not future.cancelled():
                error = future.exception()
                yield future.result() if error is None else (type(error).__name__, str(error))
        yield [parker.released for parker in self.parkers[-5:]]
        yield self.log[-20:]


def once(fn: Callable[[], object]) -> Any:
    fn()


def run_program(seed: int, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drive both; an AssertionError says after which step they differ."""
    for place, name in ((aside, "run"), (pools, "run_aside"), (completion, "run_aside")):
        monkeypatch.setattr(place, name, once)
    monkeypatch.setattr(_sync, "clock", lambda: Side.moment)
    monkeypatch.setattr(_sync, "sleep_at", lambda *_: None)
    sides = [Side(random.Random(seed), compiled) for compiled in (True, False)]
    try:
        compare(sides, seed, steps)
    finally:
        for side in sides:
            side.close()


def compare(sides: list[Side], seed: int, steps: int) -> None:
    """Step by step."""
    chance = random.Random(seed)
    for step in range(steps):
        Side.moment += chance.choice([0.0, 0.5, 1.25, -0.25])
        kind = chance.choices(
            [
                "submit",
                "work",
                "one",
                "cancel",
                "token",
                "callback",
                "wait",
                "many",
                "resize",
                "close",
            ],
            [40, 30, 8, 5, 1, 4, 4, 3, 0.5, 0.02 if step > steps // 2 else 0.0],
        )[0]
        numbers = [chance.randrange(1 << 30) for _ in range(6)]
        value = chance.choice([0, 0, 4])
        for side in sides:
            contextvars.Context().run(act, side, kind, numbers, value)
        ours, theirs = (list(side.visible()) for side in sides)
        assert ours == theirs, f"seed {seed}, step {step}: {kind}"
        if step % 50 == 0:
            stats = [replace(side.executor.stats(), last_error=None) for side in sides]
            assert stats[0] == stats[1]
    for side in sides:
        side.pool.close()
        for index in range(400):
            contextvars.Context().run(side.work, index, True)
    assert list(sides[0].visible()) == list(sides[1].visible())


def act(side: Side, kind: str, numbers: list[int], value: int) -> None:
    """One step, of one side."""
    if value:
        VARIABLE.set(value)
    view: Any = side.executor
    if numbers[0] % 3 == 0:
        view = view.options(priority=numbers[1] % 5 - 1)
    if numbers[2] % 7 == 0:
        view = view.options(token=side.tokens[numbers[3] % 3])
    elif numbers[2] % 7 == 1:
        view = view.options(name="named")
    elif numbers[2] % 7 == 2 and side.limited is not None:
        view = side.limited
    policies = [OnFull.RAISE, OnFull.CALLER_RUNS, OnFull.DROP_OLDEST, OnFull.DROP_NEW]
    futures = side.futures[-20:]
    if kind == "submit":
        functions = side.functions()
        view = view.options(on_full=policies[numbers[4] % 4])
        if numbers[0] % 4 == 1:
            # Some of more than one digit.
            priority = (numbers[1] % 40 - 20) << (70 if numbers[1] % 3 == 0 else 0)
            submit = functools.partial(view.submit_with_priority, priority)
            view = SimpleNamespace(submit=submit)
        side.submit(view, *functions[numbers[5] % len(functions)])
    elif kind == "many":
        options = view.options(on_full=OnFull.RAISE)._futurepool_options
        try:
            found = side.pool.submit_many(options, side.give, [(n,) for n in range(numbers[4] % 9)])
        except FuturePoolError as error:
            side.log.append(type(error).__name__)
        else:
            deque(map(side.known, found), maxlen=0)
    elif kind == "work":
        side.work(numbers[0], True)
    elif kind == "one":
        side.work(numbers[0], False)
    elif kind == "token":
        side.tokens[numbers[0] % 3].cancel("enough")
        side.tokens[numbers[0] % 3] = CancelToken()
    elif kind == "resize":
        side.executor.resize(1 + numbers[0] % 4, queue_size=numbers[1] % 12)
    elif kind == "close":
        side.pool.close()
    elif futures:
        future = futures[numbers[0] % len(futures)]
        if kind == "cancel":
            side.log.append(future.cancel())
        elif kind == "callback":
            future.add_done_callback(lambda done: side.log.append(("told", done.task_id)))
        else:
            parker = Parker()
            if future._subscribe(lambda subscribers: subscribers.add_parker(parker)):
                side.parkers.append(parker)


@pytest.mark.skipif(_sync.free_threaded, reason="the collector works in another way")
def test_the_collector_looks_at_what_only_users_have() -> None:
    """Not at what is queued or runs, which the pool has; but whatever becomes of it then, it does."""
    free = threading.Event()
    with BoundedExecutor(1, queue_size=None) as pool:
        first = pool.submit(free.wait, 30)
        while not first.running():
            pass
        futures: list[Any] = [pool.submit(abs, -1) for _ in range(5)]
        view = pool.options(max_wait=1e-9)
        futures.append(view.submit(abs, -2))
        assert not any(gc.is_tracked(future) for future in futures[:5])
        futures[0].cancel()
        assert [gc.is_tracked(future) for future in futures[:3]] == [True, False, False]
        failing = pool.submit(int, "x")
        futures[2].myself = futures[2]
        free.set()
        assert isinstance(failing.exception(), ValueError)
        assert all(gc.is_tracked(future) for future in (*futures, failing, first))
        assert futures[1].result() == futures[2].result() == 1
        gone = weakref.ref(futures[2])
        del futures
        gc.collect()
        assert gone() is None


def priorities_after(number: int) -> list[int]:
    """Of the tasks that a task submits: about one."""
    chance = random.Random(number)
    count = 300 if number == 0 else chance.choice([0, 1, 1, 2] if number < 2000 else [0])
    return [chance.randrange(-200, 200) << chance.choice([0, 0, 70]) for _ in range(count)]


def test_hundreds_of_levels_come_and_go_in_order() -> None:
    """Some of them with keys of more than one digit."""
    expected, queued, numbers = [], [(0, 0)], itertools.count(1)
    while queued:
        number = heapq.heappop(queued)[1]
        expected.append(number)
        for priority in priorities_after(number):
            heapq.heappush(queued, (-priority, next(numbers)))
    assert len(expected) > 1500
    ran: list[int] = []
    numbers = itertools.count(1)

    def run(number: int) -> None:
        ran.append(number)
        for priority in priorities_after(number):
            pool.submit_with_priority(priority, run, next(numbers))

    with BoundedExecutor(1, queue_size=None) as pool:
        pool.submit(run, 0)
        assert pool.wait(30)
    assert ran == expected


def test_a_pool_without_a_worker_is_no_reason_to_leave_it_alone() -> None:
    """What is queued in one that nobody has any more, goes with it."""
    side = Side(random.Random(1), True)
    side.submit(side.executor, abs, (-1,), {})
    gone = weakref.ref(side.futures[0])
    del side
    gc.collect()
    assert gone() is None


@pytest.fixture(name="held")
def fixture_held() -> Iterator[tuple[Any, threading.Event]]:
    """The mutex of another thread, which lets go of it when it is told to."""
    mutex: Any = _sync.RLock()
    there, free = threading.Event(), threading.Event()

    def hold() -> None:
        with mutex, mutex:
            there.set()
            free.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    assert there.wait(30)
    yield mutex, free
    free.set()
    holder.join(30)


def test_the_mutex_is_one_for_its_owner() -> None:
    """As often as that likes; and nobody else lets go of it."""
    mutex: Any = _sync.RLock()
    assert type(mutex).__name__ == "Mutex"
    with mutex:
        assert mutex.acquire() is True
        mutex.release()
        assert mutex._is_owned()
    assert not mutex._is_owned()
    with pytest.raises(RuntimeError, match="un-acquired"):
        mutex.release()
    assert mutex.acquire()


def test_the_mutex_of_another_thread(held: tuple[Any, threading.Event]) -> None:
    """Several wait for it, and each gets it."""
    mutex, free = held
    assert not mutex._is_owned()
    with pytest.raises(RuntimeError, match="un-acquired"):
        mutex.release()
    got: list[int] = []

    def take(number: int) -> None:
        with mutex:
            got.append(number)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    assert not got
    free.set()
    for thread in threads:
        thread.join(30)
    assert sorted(got) == [0, 1, 2, 3]


def test_nobody_else_is_inside() -> None:
    """However often the interpreter goes from one thread to the other in a section."""
    mutex: Any = _sync.RLock()
    interval = sys.getswitchinterval()
    inside = [0]

    def count() -> None:
        for _ in range(2000):
            with mutex:
                before = inside[0]
                for _ in range(3):
                    pass
                inside[0] = before + 1

    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=count) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    finally:
        sys.setswitchinterval(interval)
    assert inside == [8000]


@pytest.mark.skipif(_sync.free_threaded, reason="there it waits for some microseconds only")
@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs signals for a thread")
def test_a_signal_comes_while_it_waits(held: tuple[Any, threading.Event]) -> None:
    """Its handler runs; what that raises comes out, and the next one gets the mutex."""
    mutex, free = held
    main = threading.get_ident()
    seen: list[str] = []
    done = threading.Event()

    def handle(*_: object) -> None:
        seen.append("signal")
        if len(seen) == 2:
            done.set()
            raise InterruptedError

    def send() -> None:
        # One that comes just before the sleep is heard of after it, so more than one.
        while not done.wait(0.01):
            signal.pthread_kill(main, signal.SIGUSR1)

    sender = threading.Thread(target=send)
    before = signal.signal(signal.SIGUSR1, handle)
    try:
        with pytest.raises(InterruptedError):
            sender.start()
            mutex.acquire()
    finally:
        sender.join(30)
        signal.signal(signal.SIGUSR1, before)
    assert not mutex._is_owned()
    free.set()
    with mutex:
        assert mutex._is_owned()


def work_once(side: Side) -> None:
    """A worker's row of tasks, and what follows if something has struck it."""
    slot = side.engine.slots[0]
    row = side.row(slot)
    before, _sync.here.slot = _sync.here.slot, slot
    try:
        row()
    except MemoryError as error:
        left = worker_loop._after_interruption(side.pool, slot, row.task, error)
        row.forget()
        if left is not None:
            side.pool.complete(slot, None, left, True)
        raise
    finally:
        _sync.here.slot = before


def with_failing_allocation(seed: int, operation: str, n: int) -> bool:
    """Let the n-th allocation of an operation fail, then go on; whether it was heard of."""
    memory: Any = pytest.importorskip("_testcapi")
    side = Side(random.Random(seed), True)
    failed = False
    for priority in range(3):
        side.submit(side.executor.options(priority=priority), side.give, (priority,), {})
    low = side.executor.options(priority=1)
    calls = [(number,) for number in range(6)]
    options = side.executor.options(priority=7)._futurepool_options
    try:
        memory.set_nomemory(n, n + 1)
        if operation == "submit_many":
            side.futures += side.pool.submit_many(options, side.give, calls)
        elif operation == "submit":
            for number in range(4):
                side.futures.append(low.submit(side.give, number, a=number))
        else:
            work_once(side)
    except MemoryError:
        failed = True
    finally:
        memory.remove_mem_hooks()
        assert not side.pool.mutex._is_owned()
        side.pool.close()
        for index in range(100):
            side.work(index, True)
        assert side.pool.unfinished == 0
        assert all(future.done() for future in side.futures)
        side.close()
    return failed


@pytest.mark.slow
@pytest.mark.skipif(_sync.free_threaded, reason="the hooks are not for threads that run at once")
@pytest.mark.parametrize("operation", ["submit", "submit_many", "row"])
@pytest.mark.parametrize("seed", [5, 19], ids=["aging", "histograms"])
def test_any_allocation_may_fail(
    monkeypatch: pytest.MonkeyPatch, no_gc: None, seed: int, operation: str
) -> None:
    """Nothing is lost by it, nor held for ever; on a debug build of the interpreter no reference either."""
    monkeypatch.setattr(_sync, "sleep_at", lambda *_: None)
    for place, name in ((aside, "run"), (pools, "run_aside"), (completion, "run_aside")):
        monkeypatch.setattr(place, name, once)
    total: Callable[[], int] | None = getattr(sys, "gettotalrefcount", None)
    counts: list[int] = []
    for _ in range(1 if total is None else 4):
        assert sum(with_failing_allocation(seed, operation, n) for n in range(60)) > 10
        gc.collect()
        counts.append(0 if total is None else total())
    # The list itself has one number more each time.
    assert all(new - old < 3 for old, new in itertools.pairwise(counts[1:]))


def run_programs(first: int, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(first, first + count):
        with monkeypatch.context() as patch:
            run_program(seed, PROGRAM, patch)


@pytest.mark.slow
def test_ten_thousand_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every visible state is the same after each."""
    run_programs(0, 40, monkeypatch)


@pytest.mark.slow
@pytest.mark.skipif(_sync.free_threaded, reason="reference counts are spread over threads")
def test_no_reference_is_lost_or_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same programs again and again: no more blocks of memory, nor references to what all share."""
    shared = [None, True, False, 0, 1, (), *vars(fast).values(), *vars(futures).values()]

    # In arrays: a list of small numbers would hold some of what is counted.
    def count() -> tuple[int, array[int]]:
        gc.collect()
        return sys.getallocatedblocks(), array("q", map(sys.getrefcount, shared))

    monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL)  # pytest keeps records
    before = count()
    blocks: list[int] = []
    references: list[array[int]] = []
    for _ in range(12):
        for seed in range(3):
            with monkeypatch.context() as patch:
                run_program(seed, 60, patch)
        after = count()
        blocks.append(after[0] - before[0])
        references.append(array("q", map(operator.sub, after[1], before[1])))
        before = after
    # Something of the interpreter's may grow by steps, and settle late; what is lost, is lost each time.
    assert min(blocks) < 3, blocks
    for each, *steps in zip(shared, *references, strict=True):
        assert abs(min(steps, key=abs)) < 3, (each, steps)


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", range(20))
def test_a_million_steps(monkeypatch: pytest.MonkeyPatch, part: int) -> None:
    """The same, for long. FUTUREPOOL_SEED has another million."""
    seed = int(os.environ.get("FUTUREPOOL_SEED", "0")) * 20 + part
    run_programs(1000 + seed * 200, 200, monkeypatch)


def test_numbers_are_in_their_slots() -> None:
    """No object is made for them; to Python they look the same, in a subclass and to the collector, too."""

    class Sub(Future[Any]):
        __slots__ = ("more",)

    gate = threading.Event()
    with BoundedExecutor(1) as ex:
        running, queued = ex.submit(gate.wait, 30), ex.submit(int)
        assert (running.task_id, queued.task_id) == (1, 2)
        assert 0.0 < running._queued_at <= queued._queued_at <= _sync.clock()
        assert not any(isinstance(each, float) for each in gc.get_referents(queued))
        gate.set()
    assert ex.stats().completed_tasks == 2

    sub: Any = Sub.__new__(Sub)
    assert (sub.task_id, sub._queued_at) == (0, 0.0)
    sub.task_id, sub._queued_at, sub.more = 2**62, 1, sub
    assert (sub.task_id, repr(sub._queued_at)) == (2**62, "1.0")
    for name, value in (("task_id", "two"), ("_queued_at", None)):
        with pytest.raises(TypeError):
            setattr(sub, name, value)
    gone = weakref.ref(sub)
    del sub
    gc.collect()
    assert gone() is None
