"""The queue in front of other executors: threads, processes, loky, interpreters, a dask cluster."""

from __future__ import annotations

import asyncio
import concurrent.futures as cf
import gc
import importlib.util
import multiprocessing
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest

import futurepool
from futurepool import (
    BoundedExecutor,
    CancelToken,
    ForcedShutdownError,
    InvalidConfigError,
    OnFull,
    QueueFullError,
    TaskError,
)
from futurepool._engines.delegate import DelegateEngine, capacity
from futurepool._errors import LostCauseError
from tests.engines import tasks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


class Immediate(cf.Executor):
    """Runs everything at once, in the caller: its futures are done when submit returns."""

    def __init__(self) -> None:
        self.closed: list[tuple[bool, bool]] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> cf.Future[Any]:
        if self.closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future: cf.Future[Any] = cf.Future()
        future.set_running_or_notify_cancel()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self.closed.append((wait, cancel_futures))


def test_histograms_count_what_an_engine_ran() -> None:
    """Every task, and the failures among them."""
    with BoundedExecutor(2, enable_metrics=True, engine=cf.ThreadPoolExecutor(2)) as ex:
        futures = [ex.submit(int, "0" * (number % 5)) for number in range(50)]
        failed = [future.exception(30) is not None for future in futures]
        stats = ex.stats()
    assert sum(failed) == 10
    assert stats.latency is not None
    assert stats.wait is not None
    assert stats.latency.count == stats.wait.count == stats.completed_tasks == 50


def processes(workers: int = 2) -> cf.Executor:
    return cf.ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))


def loky(workers: int = 2) -> cf.Executor:
    module = pytest.importorskip("loky")
    return module.ProcessPoolExecutor(workers)  # type: ignore[no-any-return]


def interpreters(workers: int = 2) -> cf.Executor:
    kind = getattr(cf, "InterpreterPoolExecutor", None)
    if kind is None:
        pytest.skip("this Python has no InterpreterPoolExecutor")
    return kind(workers)  # type: ignore[no-any-return]


ENGINES = {
    "threads": lambda: cf.ThreadPoolExecutor(2),
    "processes": processes,
    "loky": loky,
    "interpreters": interpreters,
}


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let worker processes import what they are to run."""
    here = os.pathsep.join(
        [str(Path(__file__).parents[2]), str(Path(futurepool.__file__).parent.parent)]
    )
    path = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", here + (os.pathsep + path if path else ""))


@pytest.fixture(params=ENGINES)
def ex(request: pytest.FixtureRequest) -> Iterator[BoundedExecutor]:
    with BoundedExecutor(engine=ENGINES[request.param](), queue_size=50) as ex:
        yield ex


def test_the_basics(ex: BoundedExecutor) -> None:
    """Results, maps, failures with the remote traceback, stats; as many at a time as it can run."""
    assert ex._max_workers == 2
    assert ex.submit(tasks.square, 7).result(60) == 49
    assert list(ex.map(tasks.square, range(60))) == [n * n for n in range(60)]
    assert sum(ex.map_unordered(tasks.square, range(60), chunksize=1)) == sum(
        n * n for n in range(60)
    )
    error = ex.submit(tasks.fail, "over there").exception(60)
    assert isinstance(error, TaskError)
    assert "over there" in str(error)
    assert "in fail" in error.traceback
    assert asyncio.run(ex.arun(tasks.square, 5)) == 25
    assert ex.wait(60)
    stats = ex.stats()
    assert (stats.submitted_tasks, stats.completed_tasks, stats.failed_tasks) == (123, 123, 1)
    assert len(ex._threads) == 1


def test_order_bound_and_cancelling(tmp_path: Path) -> None:
    """What waits here can be reordered and cancelled; the bound is exact."""
    go = tmp_path / "go"
    with BoundedExecutor(engine=processes(1), queue_size=4, max_workers=1, read_ahead=0) as ex:
        order: list[int] = []
        ex.submit(tasks.wait_for, str(go))
        token = CancelToken()
        low = ex.submit_with_priority(0, tasks.square, 1)
        high = ex.submit_with_priority(9, tasks.square, 2)
        under = ex.submit_with_token(token, tasks.square, 3)
        last = ex.submit(tasks.square, 4)
        with pytest.raises(QueueFullError):
            ex.try_submit(tasks.square, 5)
        for number, future in enumerate((low, high, last)):
            future.add_done_callback(lambda _, number=number: order.append(number))
        token.cancel()
        assert under.cancelled()
        assert ex.options(on_full=OnFull.RAISE).submit(tasks.square, 6).cancel()
        go.touch()
        assert (low.result(60), high.result(60), last.result(60)) == (1, 4, 16)
    assert order == [1, 2, 0]


def test_an_engine_that_is_done_at_once() -> None:
    """Ten thousand tasks do not recurse."""
    engine = Immediate()
    with BoundedExecutor(3, engine=engine, queue_size=None) as ex:
        assert sum(ex.map(tasks.square, range(10_000))) == sum(n * n for n in range(10_000))
        nested = ex.submit(lambda: ex.submit(tasks.square, 3).result(60))
        assert nested.result(60) == 9
    assert engine.closed


def test_closing_the_engine_or_not() -> None:
    """With the pool, unless it is to stay open."""
    engine = Immediate()
    with BoundedExecutor(1, engine=engine, close_engine=False) as ex:
        assert ex.submit(int).result() == 0
    assert engine.closed == []
    idle = BoundedExecutor(1, engine=engine)
    idle.shutdown(wait=False)
    assert engine.closed == [(False, False)]


def test_an_engine_shut_down_behind_our_back() -> None:
    """Its tasks fail, clearly, and nothing hangs."""
    engine = cf.ThreadPoolExecutor(1)
    with BoundedExecutor(1, engine=engine, error_handler=id) as ex:
        assert ex.submit(int).result(60) == 0
        engine.shutdown()
        for future in [ex.submit(int) for _ in range(5)]:
            with pytest.raises(RuntimeError, match="after shutdown"):
                future.result(60)
        assert ex.wait(60)


# loky's own management thread races with its clean-up when a process dies.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("make", [processes, loky])
def test_a_process_that_dies(make: Any) -> None:
    """Its tasks and those after them fail with the engine's error inside the pool's."""
    with BoundedExecutor(engine=make(), error_handler=id) as ex:
        assert ex.submit(tasks.square, 2).result(60) == 4
        doomed = ex.submit(tasks.die)
        after = [ex.submit(tasks.square, n) for n in range(5)]
        assert isinstance(doomed.exception(60), TaskError)
        assert isinstance(doomed.exception(60), cf.BrokenExecutor)
        for number, future in enumerate(after):
            error = future.exception(60)
            assert isinstance(error, cf.BrokenExecutor) or future.result() == number * number
        assert ex.wait(60)


@pytest.mark.skipif(
    not hasattr(cf.ProcessPoolExecutor, "kill_workers"), reason="kill_workers came with 3.14"
)
# The test process has threads of other tests; the executor alone would warn, too.
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
@pytest.mark.parametrize("way", ["kill_workers", "terminate_workers"])
def test_workers_ended_behind_our_back(tmp_path: Path, method: str, way: str) -> None:
    """All that was inside, or waited, and what follows ends, and soon; as broken, unless...

    ...the executor cancels one that it has not begun, as it does alone.
    """
    context = multiprocessing.get_context(method)
    for idle in (False, True):
        engine: Any = cf.ProcessPoolExecutor(2, mp_context=context)
        with BoundedExecutor(engine=engine, error_handler=id) as ex:
            assert ex.submit(tasks.square, 2).result(60) == 4
            never = str(tmp_path / "never")
            futures = [] if idle else [ex.submit(tasks.wait_for, never) for _ in range(5)]
            while sum(future.running() for future in futures) < 2 and not idle:
                ex.stats()
            getattr(engine, way)()
            futures += [ex.submit(tasks.square, number) for number in range(3)]
            assert not cf.wait(futures, 60).not_done
            for future in futures:
                if future.cancelled():
                    continue
                assert isinstance(future.exception(0), (BrokenProcessPool, cf.CancelledError))
            assert isinstance(futures[-1].exception(0), BrokenProcessPool)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="max_tasks_per_child came with 3.11")
def test_workers_that_are_replaced() -> None:
    """With max_tasks_per_child all tasks run."""
    context = multiprocessing.get_context("spawn")
    engine = cf.ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=2)  # type: ignore[call-arg,unused-ignore]
    with BoundedExecutor(engine=engine) as ex:
        assert list(ex.map(tasks.square, range(5))) == [0, 1, 4, 9, 16]


def test_a_broken_pool_whose_processes_stay(tmp_path: Path) -> None:
    """Shutdown does not wait for a process that the pool cannot end, as those of 3.11 may not."""
    engine: Any = processes()
    with BoundedExecutor(engine=engine, error_handler=id) as ex:
        ex.submit(tasks.square, 1).result(60)
        stuck = ex.submit(tasks.wait_for, str(tmp_path / "never"))
        while not stuck.running():
            ex.stats()
        assert [entry.worker for entry in ex.running()] == ["ProcessPoolExecutor"]
        assert ex.submit(tasks.square, 2).result(60) == 4
        for process in engine._processes.values():
            process.terminate = int
        assert isinstance(ex.submit(tasks.die).exception(60), cf.BrokenExecutor)
        assert isinstance(stuck.exception(60), cf.BrokenExecutor)
        left = list(engine._processes.values())
    assert not any(process.is_alive() for process in left)


def test_a_pool_that_breaks_in_the_middle_of_a_submit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever that stumbles over, the task fails with BrokenProcessPool."""
    engine: Any = processes(1)

    def stumble(*_: Any) -> Any:
        engine._broken = "a process died"
        raise OSError("handle is closed")

    monkeypatch.setattr(engine, "submit", stumble)
    with BoundedExecutor(engine=engine, error_handler=id) as ex:
        error = ex.submit(tasks.square, 1).exception(60)
        assert isinstance(error, cf.BrokenExecutor)
        assert isinstance(error.__cause__, OSError)


def test_what_is_away_when_the_engine_breaks_fails() -> None:
    """Also if the engine forgets about it."""

    class Forgetful(cf.Executor):
        def __init__(self) -> None:
            self.futures: list[cf.Future[Any]] = []

        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> cf.Future[Any]:
            self.futures.append(cf.Future())
            return self.futures[-1]

    engine = Forgetful()
    with BoundedExecutor(3, engine=engine, error_handler=id) as ex:
        futures = [ex.submit(int) for _ in range(3)]
        while len(engine.futures) < 3:
            ex.wait(0.01)
        engine.futures[1].set_exception(cf.BrokenExecutor("gone"))
        for future in futures:
            with pytest.raises(cf.BrokenExecutor, match="gone"):
                future.result(60)
        engine.futures[0].set_result(None)  # too late, and nobody minds
        late = ex.submit(int)
        while len(engine.futures) < 4:
            ex.wait(0.01)
        engine.futures[3].set_result(7)
        assert late.result(60) == 7


def test_a_dropped_pool_leaves_the_engine_open() -> None:
    """What was accepted runs; the engine's user may still hold it. If nobody does, it is collected."""
    engine = Immediate()
    ex = BoundedExecutor(1, engine=engine)
    pool = ex._pool
    future = ex.submit(tasks.square, 3)
    thread = next(iter(ex._threads))
    del ex
    gc.collect()
    assert future.result(60) == 9
    assert pool.state
    thread.join(60)
    assert not thread.is_alive()
    assert engine.closed == []
    gone = weakref.ref(engine)
    del engine, pool, future
    gc.collect()
    assert gone() is None


def test_what_cannot_be_pickled() -> None:
    """Function, argument, result: that task fails, and its place comes back."""
    with BoundedExecutor(engine=processes(1), queue_size=0, error_handler=id) as ex:
        lock = threading.Lock()
        for call in (
            (lambda: 1,),
            (tasks.square, lock),
            (tasks.unpicklable,),
        ):
            assert isinstance(ex.submit(*call).exception(60), TaskError)
            assert ex.try_submit(tasks.square, 3).result(60) == 9


def test_an_exception_that_does_not_unpickle() -> None:
    """It breaks the standard process pool; here that is a clear failure of each task, no hang."""
    with BoundedExecutor(engine=processes(1), error_handler=id) as ex:
        futures = [ex.submit(tasks.raise_stubborn), ex.submit(tasks.square, 2)]
        assert isinstance(futures[0].exception(60), TaskError)
        assert futures[1].exception(60) is None or isinstance(futures[1].exception(60), TaskError)
        assert ex.wait(60)


def test_stop_with_a_stuck_process() -> None:
    """Returns in time, names the task, cancels what waits."""
    ex = BoundedExecutor(engine=processes(1), read_ahead=0)
    ex.submit(tasks.square, 1).result(60)
    ex.options(name="stuck").submit(tasks.nap, 2.0)
    queued = ex.submit(tasks.square, 2)
    with pytest.raises(ForcedShutdownError, match="stuck"):
        ex.stop(0.01)
    assert queued.cancelled()


def test_cancelling_what_the_engine_has_not_begun() -> None:
    """Future.cancel takes it back: it is cancelled, as by the engine alone."""
    gate = threading.Event()
    with (
        cf.ThreadPoolExecutor(1) as engine,
        BoundedExecutor(2, engine=engine, error_handler=id) as ex,
    ):
        first, second = ex.submit(gate.wait, 30), ex.submit(int)
        while not second.running():
            ex.stats()
        told: list[Any] = []
        second.add_done_callback(lambda _: told.append(threading.current_thread()))
        assert first.cancel() is False
        assert second.cancel() is True
        assert told == [threading.current_thread()]
        with pytest.raises(cf.CancelledError, match="its future was cancelled"):
            second.result(30)
        stats = ex.stats()
        assert (stats.submitted_tasks, stats.cancelled_tasks, stats.active_workers) == (2, 1, 1)
        assert ex.submit(int).cancel() is True  # its place is free
        gate.set()
        assert first.result(30) is True
    assert (ex.stats().completed_tasks, ex.stats().failed_tasks, ex.stats().cancelled_tasks) == (
        1,
        0,
        2,
    )


def test_bad_engines() -> None:
    """Named at the constructor."""
    with pytest.raises(TypeError, match="engine must be a concurrent.futures.Executor, not 3"):
        BoundedExecutor(engine=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="close_engine must be a bool, not 1"):
        BoundedExecutor(close_engine=1)  # type: ignore[arg-type]
    with pytest.raises(InvalidConfigError, match="initializer"):
        BoundedExecutor(engine=Immediate(), initializer=print)


def test_capacity() -> None:
    """What the engine says, or the number of processors."""
    with cf.ThreadPoolExecutor(3) as engine:
        assert capacity(engine) == 3
    assert capacity(Immediate()) == (os.cpu_count() or 1)


def test_dask() -> None:
    """A real cluster of worker processes, one of which is killed; in a process of its own."""
    if importlib.util.find_spec("distributed") is None:  # importing it here would be in the way
        pytest.skip("distributed is not installed")
    script = Path(__file__).parent / "dask_cluster.py"
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "ok"


FORK = """
import os, sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from futurepool import BoundedExecutor, ForcedShutdownError
from tests.engines import tasks

if __name__ == "__main__":
    ex = BoundedExecutor(engine=ProcessPoolExecutor(1, get_context("spawn")))
    other = BoundedExecutor(engine=ThreadPoolExecutor(1))
    go = sys.argv[1]
    # A fork while another thread imports something leaves the import locked in the child.
    assert ex.submit(tasks.square, 1).result(60) == 1
    waiting, queued = ex.submit(tasks.wait_for, go), ex.submit(tasks.square, 2)
    assert other.submit(tasks.square, 3).result(60) == 9
    child = os.fork()
    if not child:
        assert waiting.cancelled() and queued.cancelled()
        assert ex.submit(tasks.square, 4).result(60) == 16
        assert "fork" in str(other.submit(tasks.square, 5).exception(60))
        # Which ends the child's own processes, and leaves the parent's alone.
        stuck = ex.submit(tasks.nap, 100)
        while not stuck.running():
            ex.stats()
        try:
            ex.stop(0.01)
        except ForcedShutdownError:
            pass
        other.shutdown()
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    open(go, "w").close()
    assert (waiting.result(60), queued.result(60)) == (True, 4)
    ex.shutdown()
    other.shutdown()
    print("ok")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_fork_with_the_pool_in_use(tmp_path: Path) -> None:
    """The child works, or fails clearly; the parent notices nothing."""
    script = tmp_path / "fork.py"
    script.write_text(FORK)
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "go")],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr


AT_EXIT = """
import concurrent.futures as cf, multiprocessing as mp, sys, threading
from futurepool import BoundedExecutor

ready = []
submitted = threading.Event()

def prepare(value):
    ready.append(value)

def task(number):
    return number, len(ready)

class Wrapper(cf.Executor):
    def __init__(self, inner):
        self.inner = inner

    def submit(self, fn, /, *args, **kwargs):
        future = self.inner.submit(fn, *args, **kwargs)
        submitted.set()
        return future

def make(kind, options):
    if kind == "wrapper":
        return Wrapper(cf.ProcessPoolExecutor(1, mp_context=mp.get_context("spawn"), **options))
    if kind == "interpreters":
        return cf.InterpreterPoolExecutor(2, **options)
    if kind == "loky":
        import loky

        return loky.ProcessPoolExecutor(2)
    return cf.ProcessPoolExecutor(2, mp_context=mp.get_context(kind), **options)

def show(future):
    print(*future.result(), flush=True)

if __name__ == "__main__":
    kind, how = sys.argv[1:]
    options = {"initializer": prepare, "initargs": (1,)} if how != "bare" else {}
    pool = BoundedExecutor(engine=make(kind, options), max_workers=2)
    if how == "warm":
        pool.submit(task, 0).result()
    if how == "gap":  # between the end of the script and the exit hook
        del __file__
    for number in range(4):
        pool.submit(task, number).add_done_callback(show)
    if kind == "wrapper":
        # In the middle of a submit of its, in which the process is started, the script must not end:
        # when that takes its `__file__` away there is nobody to give it back.
        submitted.wait()
"""


def _at_exit(tmp_path: Path, kind: str, how: str, *options: str) -> list[str]:
    """What the tasks print that a script leaves behind, having submitted them."""
    script = tmp_path / "at_exit.py"
    script.write_text(AT_EXIT)
    done = subprocess.run(
        [sys.executable, *(options or [str(script)]), kind, how],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return sorted(done.stdout.splitlines())


@pytest.mark.parametrize("how", ["bare", "cold", "warm", "gap"])
@pytest.mark.parametrize("kind", [*multiprocessing.get_all_start_methods()])
def test_tasks_left_behind_by_a_script(tmp_path: Path, kind: str, how: str) -> None:
    """They run, with the initializer, though the workers start after the script has ended."""
    ready = int(how != "bare")
    assert _at_exit(tmp_path, kind, how) == [f"{number} {ready}" for number in range(4)]


@pytest.mark.parametrize("how", ["bare", "cold"])
def test_tasks_left_behind_by_a_module(tmp_path: Path, how: str) -> None:
    """The same under `python -m`."""
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    (tmp_path / "package" / "module.py").write_text(AT_EXIT)
    ran = _at_exit(tmp_path, "spawn", how, "-m", "package.module")
    assert ran == [f"{number} {int(how == 'cold')}" for number in range(4)]


@pytest.mark.skipif(
    (3, 12) <= sys.version_info < (3, 12, 2), reason="these start no thread once a script has ended"
)
def test_tasks_left_behind_in_an_executor_of_the_users(tmp_path: Path) -> None:
    """One that hands them to a pool of processes, of which we know nothing."""
    assert _at_exit(tmp_path, "wrapper", "gap") == [f"{number} 1" for number in range(4)]


def test_tasks_left_behind_in_loky(tmp_path: Path) -> None:
    """Functions of the script travel by value there."""
    pytest.importorskip("loky")
    assert _at_exit(tmp_path, "loky", "bare") == [f"{number} 0" for number in range(4)]


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork")
def test_processes_are_forked_before_there_is_a_thread(tmp_path: Path) -> None:
    """As by the engine alone: else they would have copies of locks that other threads hold."""
    script = tmp_path / "forks.py"
    script.write_text(FORKS)
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.returncode, done.stdout) == (0, "['MainThread']\n"), done.stderr


FORKS = """
import multiprocessing, os, threading
from concurrent.futures import ProcessPoolExecutor
from futurepool import BoundedExecutor

if __name__ == "__main__":
    seen = set()
    os.register_at_fork(before=lambda: seen.update(t.name for t in threading.enumerate()))
    context = multiprocessing.get_context("fork")
    with BoundedExecutor(engine=ProcessPoolExecutor(2, context)) as ex:
        assert ex.submit(abs, -1).result(60) == 1
    print(sorted(seen))
"""


def test_a_dispatcher_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """That submit fails, and the next one works."""
    starts: list[Any] = []

    def refuse(thread: Any) -> None:
        starts.append(thread)
        raise RuntimeError("can't start new thread")

    with BoundedExecutor(2, engine=Immediate()) as ex:
        with monkeypatch.context() as patch:
            patch.setattr(futurepool._sync, "start", refuse)
            with pytest.raises(RuntimeError, match="can't start new thread"):
                ex.submit(tasks.square, 2)
        assert len(starts) == 1
        assert ex.submit(tasks.square, 3).result(60) == 9
        assert len(ex._threads) == 1


def test_a_dispatcher_that_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another takes its place, and nothing is lost."""
    lives: list[Any] = []
    real = DelegateEngine._dispatch

    def dispatch(engine: DelegateEngine, error: BaseException | None) -> None:
        lives.append(error)
        if len(lives) == 1:
            raise SystemExit
        real(engine, error)

    monkeypatch.setattr(DelegateEngine, "_dispatch", dispatch)
    with BoundedExecutor(2, engine=Immediate()) as ex:
        assert [future.result(60) for future in [ex.submit(tasks.square, 3)] * 2] == [9, 9]
        assert len(ex._threads) == 1
    assert [type(error) for error in lives] == [type(None), RuntimeError]


def test_places_that_wake_each_other_do_not_recurse() -> None:
    """More places than the stack is deep, asleep, then all wanted at once."""
    gate = threading.Event()
    with BoundedExecutor(1500, engine=cf.ThreadPoolExecutor(4), queue_size=None) as ex:
        futures = [ex.submit(gate.wait, 30) for _ in range(1500)]
        gate.set()
        assert all(future.result(60) for future in futures)
        assert len(list(ex.map(tasks.square, range(5000)))) == 5000


def test_a_callback_that_submits_to_a_full_pool() -> None:
    """It is not the engine's own thread that waits: the tasks are admitted over the bound."""
    with BoundedExecutor(engine=processes(1), queue_size=1) as ex:
        more: list[Any] = []
        first = ex.submit(tasks.square, 1)
        first.add_done_callback(lambda _: more.extend(ex.submit(tasks.square, n) for n in range(5)))
        assert ex.submit(tasks.square, 2).result(60) == 4
        assert ex.wait(60)
        assert [future.result(0) for future in more] == [0, 1, 4, 9, 16]


def test_a_callback_that_waits_for_another_task() -> None:
    """The dispatcher goes on dispatching meanwhile."""
    with BoundedExecutor(engine=processes(1)) as ex:
        seen: list[int] = []
        other: list[Any] = []
        first = ex.submit(tasks.square, 3)
        first.add_done_callback(lambda _: seen.append(ex.submit(tasks.square, 4).result(60)))
        other.append(ex.submit(tasks.square, 5))
        assert other[0].result(60) == 25
        assert ex.wait(60)
        assert seen in ([16], [])
    assert seen == [16]


def test_keywords_reach_the_task() -> None:
    """Also those that the engine's own submit knows."""
    with BoundedExecutor(engine=cf.ThreadPoolExecutor(1)) as ex:
        assert ex.submit(dict, key=1, workers=2, fn=3, self=4).result(60) == {
            "key": 1,
            "workers": 2,
            "fn": 3,
            "self": 4,
        }


POOLS = pytest.mark.parametrize("make", [processes, loky])


def _fails_alone(ex: BoundedExecutor, away: Path, fn: Any, *args: Any) -> BaseException:
    """The task's failure, after which what was away comes back, and the next runs."""
    other = ex.submit(tasks.wait_for, str(away))
    while not other.running():
        ex.stats()
    error = ex.submit(fn, *args).exception(60)
    away.touch()
    assert other.result(60) is True
    assert ex.submit(tasks.square, 3).result(60) == 9
    assert isinstance(error, TaskError)
    return error


@pytest.mark.parametrize("make", [processes, loky, ENGINES["threads"]])
def test_a_task_that_says_its_pool_is_broken(make: Any, tmp_path: Path) -> None:
    """Some other pool, that is: the engine works on."""
    with BoundedExecutor(engine=make(), error_handler=id) as ex:
        error = _fails_alone(ex, tmp_path / "go", tasks.raise_broken)
        assert isinstance(error, BrokenProcessPool)
        assert "itself uses" in str(error)


@POOLS
@pytest.mark.parametrize(
    ("call", "text"),
    [
        ((tasks.raise_stubborn,), "Stubborn: stubborn"),
        ((tasks.raise_stubborn_base,), "StubbornBase: stubborn base"),
        ((tasks.raise_sedentary,), "Sedentary: at home"),
        ((tasks.raise_disguised,), "Disguised: well"),
        ((tasks.stubborn_result,), "Stubborn: stubborn"),
        ((tasks.identity, tasks.StubbornArgument()), "Stubborn: stubborn"),
    ],
    ids=["exception", "base", "only there", "no exception", "result", "argument"],
)
def test_what_does_not_unpickle(make: Any, call: Any, text: str, tmp_path: Path) -> None:
    """Fails its own task only, with its type and text and the remote traceback."""
    with BoundedExecutor(engine=make(), error_handler=id) as ex:
        error = _fails_alone(ex, tmp_path / "go", *call)
        assert isinstance(error, LostCauseError)
        assert text in str(error)
        assert "in run_sealed" in error.traceback


def test_a_callback_that_waits_for_a_running_task() -> None:
    """The dispatcher, which runs the callback, is the one to bring its result."""
    begin, go = threading.Event(), threading.Event()
    seen: list[Any] = []
    with BoundedExecutor(engine=cf.ThreadPoolExecutor(2)) as ex:
        first, running = ex.submit(begin.wait, 30), ex.submit(go.wait, 30)

        def callback(_: Any) -> None:
            try:
                running.result(0.01)
            except cf.TimeoutError:
                seen.append("late")
            go.set()
            seen.append(running.result(40))

        first.add_done_callback(callback)
        begin.set()
        assert running.result(60) is True
        assert ex.wait(60)
    assert seen == ["late", True]


def test_a_callback_that_waits_for_a_queued_task_for_a_while() -> None:
    """It is not kept longer than it asked for."""
    begin, go = threading.Event(), threading.Event()
    seen: list[Any] = []
    with BoundedExecutor(engine=cf.ThreadPoolExecutor(1)) as ex:
        first, queued = ex.submit(begin.wait, 30), ex.submit(go.wait, 30)

        def callback(_: Any) -> None:
            try:
                seen.append(queued.result(0.01))
            except cf.TimeoutError:
                seen.append("late")
            go.set()

        first.add_done_callback(callback)
        begin.set()
        assert queued.result(60) is True
    assert seen == ["late"]


@pytest.mark.parametrize("way", ["arun", "await", "await running"])
def test_a_callback_with_a_loop_of_its_own(way: str) -> None:
    """Though there are free places, it is the dispatcher that must serve them."""
    begin, go = threading.Event(), threading.Event()
    seen: list[int] = []
    with BoundedExecutor(engine=cf.ThreadPoolExecutor(4)) as ex:
        first, other = ex.submit(begin.wait, 30), ex.submit(go.wait, 30)
        while len(ex.running()) < 2:
            ex.stats()
        for future in [ex.submit(go.wait, 0) for _ in range(2)]:
            future.result(60)
        while len(ex._pool.workers.parked) < 2:
            ex.stats()

        async def main() -> int:
            if way == "arun":
                return await ex.arun(tasks.square, 1)
            if way == "await":
                return await ex.submit(tasks.square, 1)
            go.set()
            return await other

        first.add_done_callback(lambda _: seen.append(asyncio.run(asyncio.wait_for(main(), 20))))
        begin.set()
        assert first.result(60) is True
        go.set()
        assert other.result(60) is True
        assert ex.submit(tasks.square, 1).result(60) == 1
    assert seen == [1]


def test_a_loop_in_a_task_that_its_caller_runs() -> None:
    """In the submitting thread, which is none of the engine's: its own tasks go over the bound."""
    go = threading.Event()
    with BoundedExecutor(engine=cf.ThreadPoolExecutor(1), queue_size=0) as ex:
        ex.submit(go.wait, 30)

        async def main() -> int:
            inner = asyncio.ensure_future(ex.arun(abs, -3))
            await asyncio.sleep(0)
            go.set()
            return await inner

        view = ex.options(on_full=OnFull.CALLER_RUNS)
        task = view.submit(lambda: asyncio.run(asyncio.wait_for(main(), 20)))
        assert task.result(0) == 3
        assert ex.stats().overflow_tasks == 1
        go.set()
