"""The interleaving explorer finds planted bugs, passes their fixes, and repeats what it found."""

from __future__ import annotations

import _thread
import gc
import importlib
import itertools
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from futurepool import BoundedExecutor, _sync
from futurepool._executor import shutdown

greenlet = pytest.importorskip("greenlet")
if not getattr(sys, "_is_gil_enabled", lambda: True)():
    pytest.skip("switches are made between bytecodes, under the GIL", allow_module_level=True)

from tests.protocols import loom  # noqa: E402 - needs greenlet

pytestmark = [pytest.mark.slow, pytest.mark.thorough]

STRATEGIES = [loom.DFS, loom.RandomWalk, loom.PCT]


# -- classic bugs, each beside its fix --------------------------------------------------------


class Parker:
    """A worker that sleeps until it is told of work. Bug: it decides to sleep on an old look."""

    def __init__(self):
        self.items = deque()
        self.got = []
        self.asleep = False
        self.gate = _sync.Lock()
        self.gate.acquire()

    def work(self):
        if not self.items:
            self.asleep = True
            self.gate.acquire()
        self.got.append(self.items.popleft())

    def submit(self, item):
        self.items.append(item)
        if self.asleep:
            self.asleep = False
            self.gate.release()


class ParkerFixed(Parker):
    def work(self):
        if not self.items:
            self.asleep = True
            if not self.items:  # look again, after saying so
                self.gate.acquire()
        self.got.append(self.items.popleft())


def parker(cls):
    def build():
        toy = cls()

        def check():
            assert toy.got == [1]

        return [toy.work, lambda: toy.submit(1)], check

    return build


class OneCondition:
    """A queue with room for one. Bug: `notify` may wake a thread on the wrong side."""

    def __init__(self):
        self.condition = threading.Condition()
        self.items = []
        self.got = []

    def put(self, item):
        with self.condition:
            while self.items:
                self.condition.wait()
            self.items.append(item)
            self.tell()

    def get(self):
        with self.condition:
            while not self.items:
                self.condition.wait()
            self.got.append(self.items.pop())
            self.tell()

    def tell(self):
        self.condition.notify()


class OneConditionFixed(OneCondition):
    def tell(self):
        self.condition.notify_all()


def one_condition(cls):
    def build():
        toy = cls()

        def check():
            assert sorted(toy.got) == [1, 2]

        return [lambda: toy.put(1), lambda: toy.put(2), toy.get, toy.get], check

    return build


class Capacity:
    """Room for one. Bug: looks, then acts."""

    def __init__(self):
        self.items = []
        self.mutex = _sync.Lock()

    def put(self):
        if len(self.items) < 1:
            self.items.append(1)


class CapacityFixed(Capacity):
    def put(self):
        with self.mutex:
            if len(self.items) < 1:
                self.items.append(1)


def capacity(cls):
    def build():
        toy = cls()

        def check():
            assert toy.items == [1]

        return [toy.put, toy.put], check

    return build


class Lazy:
    """Made at first use. Bug: does not look again under the lock."""

    def __init__(self):
        self.mutex = _sync.Lock()
        self.value = None
        self.made = 0

    def get(self):
        if self.value is None:
            with self.mutex:
                self.made += 1
                self.value = object()
        return self.value


class LazyFixed(Lazy):
    def get(self):
        if self.value is None:
            with self.mutex:
                if self.value is None:
                    self.made += 1
                    self.value = object()
        return self.value


def lazy(cls):
    def build():
        toy = cls()

        def check():
            assert toy.made == 1

        return [toy.get, toy.get], check

    return build


class Transfer:
    """Two locks. Bug: taken in either order."""

    def __init__(self):
        self.a = _sync.Lock()
        self.b = _sync.Lock()

    def there(self):
        with self.a, self.b:
            pass

    def back(self):
        with self.b, self.a:
            pass


class TransferFixed(Transfer):
    def back(self):
        with self.a, self.b:
            pass


def transfer(cls):
    def build():
        toy = cls()
        return [toy.there, toy.back], None

    return build


class Places:
    """Places, handed over to whoever waits. Bug: one handed over as the wait times out is lost."""

    def __init__(self):
        self.mutex = _sync.Lock()
        self.waiters = []
        self.free = 0
        self.taken = 0

    def take(self):
        with self.mutex:
            if self.free:
                self.free -= 1
                self.taken += 1
                return
            gate = _sync.Lock()
            gate.acquire()
            self.waiters.append(gate)
        if gate.acquire(True, 5.0):
            self.taken += 1
        else:
            self.give_up(gate)

    def give_up(self, gate):
        with self.mutex:
            if gate in self.waiters:
                self.waiters.remove(gate)

    def give(self):
        with self.mutex:
            if self.waiters:
                self.waiters.pop(0).release()
            else:
                self.free += 1


class PlacesFixed(Places):
    def give_up(self, gate):
        with self.mutex:
            if gate in self.waiters:
                self.waiters.remove(gate)
            else:  # it was handed to us in the last moment
                self.taken += 1


def places(cls):
    def build():
        toy = cls()

        def check():
            assert toy.free + toy.taken == 1

        return [toy.take, toy.give], check

    return build


BUGS = {
    "lost wake-up": (parker, Parker, ParkerFixed, "deadlock", {}),
    "one condition, two sides": (one_condition, OneCondition, OneConditionFixed, "deadlock", {}),
    "check, then act": (capacity, Capacity, CapacityFixed, "assertion", {}),
    "double-checked": (lazy, Lazy, LazyFixed, "assertion", {}),
    "lock order": (transfer, Transfer, TransferFixed, "deadlock", {}),
    "late hand-over": (places, Places, PlacesFixed, "assertion", {"early_timeouts": 1}),
}


@pytest.mark.parametrize("granularity", ["op", "instruction"])
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("bug", BUGS)
def test_finds(bug, strategy, granularity):
    """Each strategy finds each bug, and the replay string shows it again."""
    make, broken, _, kind, options = BUGS[bug]
    scenario = loom.Scenario(make(broken), code=[broken], granularity=granularity, **options)
    failure = scenario.expect_failure(strategy(), limit=5000, kind=kind)
    with pytest.raises(loom.Failure) as caught:
        scenario.replay(failure.schedule)
    assert (failure.kind, failure.trace) == (caught.value.kind, caught.value.trace)


@pytest.mark.parametrize("bug", [name for name in BUGS if name != "one condition, two sides"])
def test_passes_fixed(bug):
    """The fix of each bug passes every schedule with two preemptions."""
    make, broken, fixed, _, options = BUGS[bug]
    scenario = loom.Scenario(make(fixed), code=[broken, fixed], **options)
    report = scenario.explore(loom.DFS(2), limit=20_000)
    assert report.complete
    assert report.schedules > 5
    for strategy in (loom.RandomWalk(), loom.PCT()):
        assert scenario.explore(strategy, limit=300).schedules == 300


@pytest.mark.slow
def test_passes_fixed_condition():
    """Four threads at one condition pass, with every order in which they can block."""
    toys = [OneCondition, OneConditionFixed]
    report = loom.explore(one_condition(OneConditionFixed), loom.DFS(0), 50_000, code=toys)
    assert report.complete


# -- replay ----------------------------------------------------------------------------------


def test_same_seed_same_failure():
    """An exploration does not depend on anything but its seed."""
    scenario = loom.Scenario(parker(Parker), code=[Parker])
    found = [scenario.expect_failure(loom.RandomWalk(seed=7)) for _ in range(2)]
    assert len({(f.schedules, f.schedule, f.trace) for f in found}) == 1


def test_failure_tells_how():
    """The message says who waits where, who ran what in which order, and how to repeat it."""
    scenario = loom.Scenario(transfer(Transfer), code=[Transfer])
    with pytest.raises(loom.Failure) as caught:
        scenario.explore(loom.DFS())
    line = Transfer.there.__code__.co_firstlineno + 1
    message = str(caught.value)
    assert f"there waits for Lock#2 at test_loom.py:{line}" in message
    assert f"T1 there: test_loom.py:{line} acquire Lock#1, {line} acquire Lock#2" in message
    assert repr(caught.value.schedule) in message
    assert len(caught.value.schedule.split()) == 1  # the one switch it takes


def test_diverging_scenario_is_reported():
    """A scenario that is not the same every time is told, not misjudged."""
    builds: list[int] = []

    def build():
        builds.append(1)
        toy = CapacityFixed()
        return [toy.put] * (2 + len(builds) % 2), None

    with pytest.raises(loom.Diverged):
        loom.explore(build, loom.DFS(2), code=[CapacityFixed])


@pytest.mark.parametrize("granularity", ["op", "instruction"])
def test_every_task_has_points(granularity):
    """Later tasks are traced as the first is, and wide instructions (EXTENDED_ARG) are seen."""
    lines = [f"        self.a{n} = {n}" for n in range(300)]
    source = "\n".join(["class Wide:", "    def run(self):", *lines])
    names: dict[str, Any] = {"__name__": "wide"}
    exec(source, names)
    longest = [
        loom.explore(
            lambda n=n: ([names["Wide"]().run] * n, None),
            loom.RandomWalk(),
            limit=1,
            code=[names["Wide"]],
            granularity=granularity,
        ).longest
        for n in (1, 3)
    ]
    assert longest[1] == 3 * longest[0]
    assert longest[0] >= (300 if granularity == "op" else 900)


def test_dfs_misses_nothing():
    """Two tasks of three steps each: DFS meets all 20 orders, or those with one preemption."""

    def orders(preemptions):
        met = set()

        def build():
            order = []

            def task(name):
                for last in (False, False, True):
                    order.append(name)
                    if not last:
                        loom.pause()

            return [lambda: task("a"), lambda: task("b")], lambda: met.add("".join(order))

        assert loom.explore(build, loom.DFS(preemptions)).complete
        return met

    def switches(order):
        return sum(x != y for x, y in itertools.pairwise(order))

    every = orders(10)
    assert len(every) == 20
    few = orders(1)
    assert few == {order for order in every if preemptions_of(order) <= 1}
    assert max(map(switches, few)) == 2


def preemptions_of(order: str) -> int:
    """How often a task is left that has steps to go."""
    return sum(
        x != y and x in order[place:] for place, (x, y) in enumerate(itertools.pairwise(order), 1)
    )


def test_strategy_is_for_one_exploration():
    """An exhausted strategy is refused instead of passing without a single run."""
    strategy = loom.DFS()
    loom.explore(lazy(LazyFixed), strategy, code=[LazyFixed])
    with pytest.raises(ValueError, match="used up"):
        loom.explore(lazy(Lazy), strategy, code=[Lazy])


def test_expect_failure_insists():
    """A mutation test fails if nothing is found, or something else."""
    with pytest.raises(AssertionError, match="DFS found no failure in all"):
        loom.expect_failure(lazy(LazyFixed), code=[LazyFixed])
    with pytest.raises(AssertionError, match="another kind"):
        loom.Scenario(lazy(Lazy), code=[Lazy]).expect_failure(kind="deadlock")


def test_shrinks():
    """A schedule found at random is reported with no more deviations than it takes."""
    scenario = loom.Scenario(lazy(Lazy), code=[Lazy], granularity="instruction")
    raw = scenario.expect_failure(loom.RandomWalk(1))
    small = scenario.expect_failure(loom.RandomWalk(1), shrink=True)
    assert small.schedules == raw.schedules
    assert len(small.schedule.split()) <= 3 < len(raw.schedule.split())


# -- the models ------------------------------------------------------------------------------


def once(*callables: Any, check: Any = None, **options: Any) -> None:
    """Run every schedule without preemption."""
    loom.explore(lambda: (callables, check), loom.DFS(0), **options)


def test_time_is_virtual():
    """An hour passes at once, in the order of the deadlines."""
    woken = []

    def sleeper(seconds):
        def sleep():
            began = _sync.clock()
            loom.sleep(seconds)
            woken.append((seconds, round(_sync.clock() - began)))

        return sleep

    began = time.perf_counter()
    loom.explore(lambda: ([sleeper(3600), sleeper(60)], woken.clear), loom.DFS(0))
    loom.explore(lambda: ([sleeper(3600), sleeper(60)], None), limit=1)
    assert woken == [(60, 60), (3600, 3600)]
    assert time.perf_counter() - began < 5


def test_threads_of_others_have_no_part_in_a_run():
    """Such as the process's timer, which an earlier test may have woken."""

    class Passer:
        def __init__(self):
            self.went = _thread.allocate_lock()
            self.went.acquire()
            self.seen = []

        def go_by(self):
            self.seen = [_sync.clock(), _sync.get_ident()]
            self.went.release()

    def build():
        passer = Passer()

        def beside():
            before = _sync.clock()
            _thread.start_new_thread(passer.go_by, ())
            passer.went.acquire()  # a real one: nothing else of the run goes on
            assert 0 < _sync.clock() - before < 1e-5
            assert passer.seen[0] > before + 1
            assert passer.seen[1] == 0

        return [beside, lambda: passer.seen], None

    assert loom.Scenario(build, code=[Passer]).explore(limit=50).complete


def test_timeouts_wait_unless_told():
    """A time-out does not overtake a thread that can run, unless early ones are explored."""
    scenario = loom.Scenario(places(Places), code=[Places])
    assert scenario.explore().complete


def test_lock():
    """The lock is not re-entrant, may be released by anybody, and times out."""

    def body():
        lock = _sync.Lock()
        assert lock.acquire()
        assert lock.locked()
        assert not lock.acquire(False)
        assert not lock.acquire(timeout=0)
        before = _sync.clock()
        assert not lock.acquire(timeout=5)
        assert 5 <= _sync.clock() - before < 5.1
        with pytest.raises(ValueError, match="non-blocking"):
            lock.acquire(False, 1)
        with pytest.raises(ValueError, match="non-negative"):
            lock.acquire(True, -2)
        with pytest.raises(OverflowError):
            lock.acquire(True, 1e20)
        _sync.start(threading.Thread(target=lock.release))
        assert lock.acquire()
        lock.release()
        with pytest.raises(RuntimeError, match="unlocked"):
            lock.release()

    once(body)


def test_rlock():
    """The RLock is re-entrant for its owner only."""

    def body():
        lock = _sync.RLock()
        others = []

        def other():
            others.append((lock._is_owned(), lock.acquire(False)))
            with pytest.raises(RuntimeError):
                lock.release()

        with lock, lock:
            assert lock._is_owned()
            thread = threading.Thread(target=other)
            _sync.start(thread)
            _sync.join(thread)
        assert others == [(False, False)]
        assert not lock._is_owned()

    once(body)


def test_simple_queue():
    """Items come out in order; getting blocks, times out, or raises Empty."""
    from queue import Empty

    def body():
        queue = _sync.SimpleQueue()
        with pytest.raises(Empty):
            queue.get_nowait()
        with pytest.raises(Empty):
            queue.get(timeout=3)
        _sync.start(threading.Thread(target=lambda: [queue.put(1), queue.put(2)]))
        assert [queue.get(), queue.get()] == [1, 2]
        assert queue.qsize() == 0

    once(body)


def test_thread_identity_and_locals():
    """Each task has its own number and its own locals, with the defaults of their class."""
    seen = []

    def body():
        seen.append((_sync.get_ident(), _sync.here.slot))
        _sync.here.slot = _sync.get_ident()
        loom.pause()
        assert _sync.here.slot == _sync.get_ident()
        del _sync.here.slot
        assert _sync.here.slot is None

    loom.explore(lambda: ([body, body], None), limit=1)
    assert seen == [(2, None), (3, None)]
    assert _sync.here.slot is None


def test_threads():
    """A started thread is a task: alive until it ends, and joined in virtual time."""

    def body():
        gate = _sync.Lock()
        gate.acquire()
        thread = threading.Thread(target=gate.acquire)
        with pytest.raises(RuntimeError, match="before it is started"):
            _sync.join(thread)
        _sync.start(thread)
        _sync.join(thread, 10)
        assert thread.is_alive()
        assert thread.ident not in (None, _sync.get_ident())
        gate.release()
        thread.join()
        assert not thread.is_alive()
        with pytest.raises(RuntimeError, match="only be started once"):
            _sync.start(thread)

    once(body)


def test_a_run_leaves_nothing_behind():
    """Neither a pool that the interpreter's exit waits for, nor a worker that a finalizer replaces."""

    def body():
        pools.append(BoundedExecutor(1))
        pools[0].submit(int)
        raise AssertionError("before its thread has run")

    pools = []
    failure = loom.expect_failure(lambda: ([body], None), loom.DFS(), limit=1)
    assert pools[0]._pool not in shutdown._live()
    assert not any(thread.is_alive() for thread in pools[0]._threads)
    name = pools[0].name
    pools.clear()
    del failure
    gc.collect()
    assert not any(thread.name.startswith(f"{name}_") for thread in threading.enumerate())


def test_thread_that_cannot_start():
    """The scenario says which thread start fails."""

    def body():
        ran = []
        _sync.start(threading.Thread(target=lambda: ran.append(0)))
        with pytest.raises(RuntimeError, match="can't start new thread"):
            _sync.start(threading.Thread(target=lambda: ran.append(1)))
        third = threading.Thread(target=lambda: ran.append(2))
        _sync.start(third)
        _sync.join(third)
        assert 1 not in ran

    once(body, refuse_starts=[1])


def test_idle_workers_are_no_deadlock():
    """A worker may be left asleep; a callable of the scenario may not."""
    queue = []

    def body():
        queue[:] = [_sync.SimpleQueue()]
        _sync.start(threading.Thread(target=queue[0].get))

    once(body)

    def waits():
        queue[0].get()

    loom.expect_failure(lambda: ([body, waits], None), loom.DFS(0))


def test_check_may_use_the_package():
    """Build and check are tasks: they may block, and the workers go on meanwhile."""

    def build():
        done = _sync.SimpleQueue()
        todo = _sync.SimpleQueue()
        _sync.start(threading.Thread(target=lambda: done.put(todo.get())))
        todo.put(1)
        assert done.get() == 1
        worker = threading.Thread(target=lambda: done.put(todo.get()))
        _sync.start(worker)

        def check():
            todo.put(2)
            _sync.join(worker)
            assert done.get() == 2

        return [lambda: None], check

    assert loom.explore(build).complete


def test_exception_in_a_thread_is_a_failure():
    """What a worker raises is not lost."""

    def body():
        _sync.start(threading.Thread(target=lambda: {}["no"]))

    failure = loom.expect_failure(lambda: ([body], None), loom.DFS())
    assert failure.kind == "exception"
    assert isinstance(failure.__cause__, KeyError)


def test_endless_loop_is_a_livelock():
    """A task that spins for ever is stopped."""
    lock = []

    def spin():
        while not lock[0].acquire(False):
            pass

    def build():
        lock[:] = [_sync.Lock()]
        lock[0].acquire()
        return [spin], None

    scenario = loom.Scenario(build, max_steps=100)
    assert scenario.expect_failure(kind="livelock").kind == "livelock"

    def spins_in_build():
        built = build()
        spin()
        return built

    loom.Scenario(spins_in_build, max_steps=100).expect_failure(kind="livelock")


def test_rebind_makes_globals_anew():
    """A primitive made at import is replaced by a fresh one for each schedule."""
    module = sys.modules[__name__]
    real = module.imported_lock

    def build():
        assert not imported_lock.locked()
        return [imported_lock.acquire], None

    def make():
        return _sync.Lock()  # the model: looked up during the run

    fresh = [(module, "imported_lock", make)]
    assert loom.explore(build, loom.RandomWalk(), 5, rebind=fresh).schedules == 5
    assert imported_lock is real


imported_lock: Any = _sync.Lock()


# -- mutations -------------------------------------------------------------------------------


class Mutable(CapacityFixed):
    __secret = 1

    def put(self, times=1):
        for _ in range(times):
            super().put()
        return self.__secret

    @property
    def size(self):
        return len(self.items)

    @staticmethod
    def add(a, b):
        return a + b


def outer(x):
    def inner():
        return x + 1

    return inner


def test_mutate_finds_what_a_fix_prevents():
    """A mutant of the fixed class fails, and the original passes again afterwards."""
    module = sys.modules[__name__]
    scenario = loom.Scenario(lazy(LazyFixed), code=[LazyFixed])
    old = "with self.mutex:\n                if self.value is None:"
    new = "with self.mutex:\n                if True:"
    with loom.mutate(module, "LazyFixed.get", old, new):
        scenario.expect_failure(kind="assertion")
    assert scenario.explore().complete


def test_mutate_keeps_the_function():
    """Existing references, defaults, super(), private names and line numbers all survive."""
    module = sys.modules[__name__]
    toy = Mutable()
    put, lines = toy.put, list(Mutable.put.__code__.co_lines())
    with loom.mutate(module, "Mutable.put", "return self.__secret", "return self.__secret + 1"):
        assert put() == 2
        assert [line for *_, line in Mutable.put.__code__.co_lines()][-1] == lines[-1][-1]
    assert put() == 1
    with loom.mutate(Mutable, "size", "len(self.items)", "-1"):
        assert toy.size == -1
    with loom.mutate(module, "Mutable.add", "a + b", "a - b"):
        assert Mutable.add(3, 2) == 1
    with loom.mutate(module, "outer", "x + 1", "x - 1"):
        assert outer(1)() == 0
    assert (toy.size, Mutable.add(3, 2), outer(1)()) == (1, 5, 2)


def test_mutate_wants_one_occurrence():
    """A mutation that no longer fits its source is an error."""
    module = sys.modules[__name__]
    with pytest.raises(ValueError, match="occurs 0 times"), loom.mutate(module, "outer", "y", "z"):
        pass
    with pytest.raises(ValueError, match="occurs 2 times"), loom.mutate(module, "outer", "x", "z"):
        pass


MARKED = """
import contextlib

log = []

@contextlib.contextmanager
def guard():
    log.append("guarded")
    yield

class Marked:
    @property
    def nothing(self):
        return log

    def add(self, n):
        total = 0

        def inner(n):
            # mutant nested
            if n >= 5:
                return 100
            return n

        # mutant forgotten
        total += inner(n)
        # mutant both
        total += 1
        # mutant both
        total -= 1
        # mutant condition
        if (
            n != 3
            and n >= 2
        ):
            total += 10
        # mutant guard
        with guard():
            total += 1000
        return total

# mutant outside
add = Marked().add
"""


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("marked")
    package = folder / "package_with_marks"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "inner.py").write_text(MARKED, "utf-8")
    sys.path.insert(0, str(folder))
    yield importlib.import_module("package_with_marks.inner")
    sys.path.remove(str(folder))


@pytest.mark.parametrize(
    ("name", "how", "n", "expected"),
    [
        ("forgotten", loom.DROP, 1, 1000),
        ("forgotten", loom.instead("total -= 1"), 1, 999),
        ("both", loom.instead("total += 2"), 1, 1005),
        ("condition", loom.ALWAYS, 0, 1010),
        ("condition", loom.NEVER, 2, 1002),
        ("condition", loom.WITHOUT_FIRST, 3, 1013),
        ("condition", loom.WITHOUT_LAST, 1, 1011),
        ("condition", loom.LATER, 2, 1002),
        ("nested", loom.LATER, 5, 1015),
        ("guard", loom.UNGUARDED, 1, 1001),
    ],
)
def test_a_mutant_of_a_marked_place(
    marked: Any, name: str, how: Any, n: int, expected: int
) -> None:
    """The statement below the mark is another for a while, in any depth of its function."""
    package = sys.modules["package_with_marks"]
    before = marked.add(n)
    marked.log.clear()
    with loom.planted(package, name, how):
        assert (marked.add(n), marked.log) == (expected, ["guarded"] * (name != "guard"))
    assert before != expected or name == "guard"
    assert marked.add(n) == before


def test_a_mark_that_marks_nothing(marked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is an error: one that is not there, one outside of functions, one of the wrong kind, a twin."""
    package = sys.modules["package_with_marks"]
    with pytest.raises(KeyError), loom.planted(package, "unheard-of", loom.DROP):
        pass
    with (
        pytest.raises(ValueError, match="no statement"),
        loom.planted(package, "outside", loom.DROP),
    ):
        pass
    with (
        pytest.raises(TypeError, match="no condition"),
        loom.planted(package, "forgotten", loom.ALWAYS),
    ):
        pass
    twins = Path(package.__path__[0]) / "twins.py"
    twins.write_text("# mutant guard\n", "utf-8")
    loom.marks.cache_clear()
    with pytest.raises(ValueError, match="guard marks places in"):
        loom.marks(package)
    twins.unlink()
    loom.marks.cache_clear()


# -- housekeeping ----------------------------------------------------------------------------


def test_everything_is_put_back():
    """Primitives, the trace function and the collector are as before, after a failure too."""

    def state():
        names = ("Lock", "RLock", "SimpleQueue", "here", "get_ident", "clock", "start", "join")
        real = [getattr(_sync, name) for name in names]
        return [*real, threading.Lock, threading.RLock, sys.gettrace(), gc.isenabled()]

    before = state()
    loom.expect_failure(parker(Parker), code=[Parker])
    assert state() == before


def test_no_task_outlives_its_run():
    """Tasks left asleep are unwound, their finally blocks included."""
    unwound = []

    def sleeper():
        try:
            _sync.SimpleQueue().get()
        finally:
            unwound.append(1)

    def build():
        _sync.start(threading.Thread(target=sleeper))
        return [lambda: None], None

    def greenlets():
        gc.collect()
        return sum(isinstance(thing, greenlet.greenlet) for thing in gc.get_objects())

    before = greenlets()  # each thread that has asked for its current one has one
    loom.explore(build, loom.RandomWalk(), limit=500)
    assert greenlets() <= before + 5
    assert len(unwound) == 500


class Stubborn:
    """Survives anything that strikes while it waits."""

    def __init__(self):
        self.gate = _sync.SimpleQueue()
        self.struck = 0

    def work(self):
        while True:
            try:
                self.gate.get()
            except BaseException:
                self.struck += 1


def stubborn():
    toy = Stubborn()
    _sync.start(threading.Thread(target=toy.work))
    return [lambda: None], None


def test_unwinds_what_survives_exceptions():
    """A worker whose loop catches everything is struck in its handler in the end."""
    assert loom.explore(stubborn, loom.RandomWalk(), 20, code=[Stubborn]).schedules == 20


def test_message_is_from_before_unwinding():
    """The failure shows what the check saw, not what the tasks did as they were unwound."""

    def build():
        seen = []
        gate = _sync.SimpleQueue()

        def worker():
            try:
                gate.get()
            finally:
                seen.append("later")

        def check():
            assert seen == [1], f"{seen!r}"

        _sync.start(threading.Thread(target=worker))
        return [lambda: None], check

    assert "later" not in str(loom.expect_failure(build))


def test_tells_what_cannot_be_unwound():
    """Without instrumentation there is no place to strike it, which is an error, not a hang."""
    with pytest.raises(loom.Failure, match="scenario has to end it"):
        loom.explore(stubborn, loom.RandomWalk(), 1)
