"""One probe for each known way to die. A probe raises, hangs, or returns: then it is alive.

The first line of its docstring is its row in the scorecard.
"""

from __future__ import annotations

import concurrent.futures as cf
import ctypes
import gc
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
import weakref
from collections.abc import Callable
from typing import Any

from futurepool import CancelToken, ForcedShutdownError, QueueFullError
from tests.faults.tools import PATIENCE, Subject, check, healthy, in_thread, interrupt

PROBES: dict[str, Callable[[Subject], None]] = {}


def probe(function: Callable[[Subject], None]) -> Callable[[Subject], None]:
    PROBES[function.__name__] = function
    return function


def work(gate: threading.Event, ran: list[int], number: int) -> None:
    gate.wait(0.01)
    ran.append(number)


def boom(error: BaseException) -> None:
    raise error


# -- threads that do not start --------------------------------------------------------------------


@probe
def thread_start(subject: Subject) -> None:
    """A thread cannot be started during submit."""
    original = threading.Thread.start
    for k in range(6):
        starts = 0

        def start(thread: threading.Thread, k: int = k) -> None:
            nonlocal starts
            starts += 1
            if starts == k + 1 and thread.name != "test":
                raise RuntimeError("can't start new thread")
            original(thread)

        threading.Thread.start = start  # type: ignore[method-assign]
        ran: list[int] = []
        refused = accepted = 0
        try:
            ex = subject.make(3, 100)
            gate = threading.Event()
            for number in range(12):
                try:
                    ex.submit(work, gate, ran, number)
                    accepted += 1
                except RuntimeError:
                    refused += 1
            gate.set()
        finally:
            threading.Thread.start = original  # type: ignore[method-assign]
        ex.submit(int).result(PATIENCE)
        ex.shutdown()
        check(len(ran) == accepted, f"{accepted} accepted, {refused} refused, {len(ran)} ran")


# -- what callbacks and tasks raise --------------------------------------------------------------


@probe
def callback_raises(subject: Subject) -> None:
    """A done-callback raises SystemExit / a BaseException."""
    for kind in (SystemExit, KeyboardInterrupt, GeneratorExit, type("Own", (BaseException,), {})):
        ex = subject.make()
        for _ in range(4):
            future = ex.submit(int)
            future.add_done_callback(lambda _, kind=kind: boom(kind()))
        check(future.result(5) == 0)
        healthy(subject, ex)
        ex.shutdown()


@probe
def task_raises(subject: Subject) -> None:
    """A task raises SystemExit, KeyboardInterrupt, GeneratorExit, MemoryError and the like."""
    ex = subject.make()
    kinds = [SystemExit, KeyboardInterrupt, GeneratorExit, MemoryError, RecursionError]
    for kind in [*kinds, StopIteration, StopAsyncIteration, cf.CancelledError, AssertionError]:
        check(isinstance(ex.submit(boom, kind()).exception(PATIENCE), kind), kind)

    def recurse() -> None:
        recurse()

    check(isinstance(ex.submit(recurse).exception(PATIENCE), RecursionError))
    healthy(subject, ex)
    ex.shutdown()


# -- asynchronous exceptions ------------------------------------------------------------------


class Asynchronous(BaseException):
    pass


def strike(ident: int) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(ident), ctypes.py_object(Asynchronous)
    )


@probe
def async_exception_idle(subject: Subject) -> None:
    """An asynchronous exception hits an idle worker."""
    ex = subject.make()
    healthy(subject, ex)
    for _ in range(200 if subject.full else 50):
        for thread in list(ex._threads):
            strike(thread.ident)
        for future in [ex.submit(int) for _ in range(3)]:
            try:
                future.result(5)
            except Asynchronous:
                pass
    healthy(subject, ex)
    ex.shutdown()


@probe
def async_exception_busy(subject: Subject) -> None:
    """Asynchronous exceptions hit busy workers."""
    ex = subject.make(2, 50)
    futures = []
    ran = []
    for turn in range(4000 if subject.full else 1000):
        futures.append(ex.submit(ran.append, turn))
        if turn % 20 == 0:
            for thread in list(ex._threads):
                strike(thread.ident)
    for number, future in enumerate(futures):
        error = future.exception(10)
        check(error is None or isinstance(error, Asynchronous), error)
        check(error is not None or number in ran[-len(futures) :], "lost")
    check(len(ran) == len(set(ran)), "a task ran twice")
    # One may still be on its way.
    for _ in range(4):
        ex.submit(int).exception(PATIENCE)
    if not subject.bounded:
        ex.submit(int).result(5)
    else:
        check(ex.wait(PATIENCE), ex.stats())
        stats = ex.stats()
        check(stats.submitted_tasks == stats.completed_tasks + stats.cancelled_tasks, stats)
    ex.shutdown()


# -- fork -----------------------------------------------------------------------------------------


@probe
def fork(subject: Subject) -> None:
    """fork() while in use, then the child submits."""
    if not hasattr(os, "fork"):
        subject.note("no fork here")
        return
    warnings.simplefilter("ignore", DeprecationWarning)
    ex = subject.make(2, 20)
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            ex.submit(sum, range(50)).result(PATIENCE)

    loaders = [threading.Thread(target=load) for _ in range(2)]
    for loader in loaders:
        loader.start()
    try:
        for _ in range(200 if subject.full else 25):
            pending = [ex.submit(sum, range(100)) for _ in range(3)]
            pid = os.fork()
            if pid == 0:
                signal.alarm(5)  # a child that hangs dies of it
                alive = all(ex.submit(pow, n, 2).result() == n * n for n in range(5))
                final = all(future.done() for future in pending) or not subject.bounded
                os._exit(0 if alive and final else 1)
            status = os.waitpid(pid, 0)[1]
            check(status == 0, f"the child hangs or fails: {status}")
            check([future.result(PATIENCE) for future in pending] == [4950] * 3)
    finally:
        stop.set()
        for loader in loaders:
            loader.join(PATIENCE)
    healthy(subject, ex, 2, 20)
    ex.shutdown()


# -- re-entry -----------------------------------------------------------------------------------


@probe
def submit_in_finalizer(subject: Subject) -> None:
    """Submit from __del__ during another submit (gc threshold 5)."""
    for full_queue in (False, True):
        ex = subject.make(2, 500)
        made: list[cf.Future[int]] = []

        class Trash:
            def __init__(self) -> None:
                self.me = self

            def __del__(self, ex: Any = ex, made: Any = made) -> None:
                try:
                    made.append(subject.try_submit(ex, int))
                except QueueFullError:
                    pass
                if made:
                    made[len(made) // 2].cancel()
                if subject.bounded:
                    ex.stats()

        gate = threading.Event()
        held = []
        if full_queue and subject.bounded:
            held = [ex.submit(gate.wait) for _ in range(502)]
        old = gc.get_threshold()
        gc.set_threshold(5)
        try:
            for _ in range(3000 if subject.full else 600):
                Trash()
                try:
                    subject.try_submit(ex, int)
                except QueueFullError:
                    pass
        finally:
            gc.set_threshold(*old)
            gate.set()
        check(made or full_queue, "no finalizer ran")
        for future in [*made, *held]:
            check(cf.wait([future], PATIENCE).done, "lost")
        gc.collect()
        healthy(subject, ex, 2, 500)
        ex.shutdown()


def _signals(subject: Subject, handler: Callable[[Any, list[Any]], None], full: bool) -> None:
    if not hasattr(signal, "setitimer"):
        subject.note("no timers here")
        return
    ex = subject.make(2, 300)
    gate = threading.Event()
    seen: list[Any] = []
    if full and subject.bounded:
        seen += [ex.submit(gate.wait) for _ in range(302)]
    old = signal.signal(signal.SIGALRM, lambda *_: handler(ex, seen))
    signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
    try:
        end = time.monotonic() + (5.0 if subject.full else 1.0)
        while time.monotonic() < end:
            try:
                seen.append(subject.try_submit(ex, int))
            except QueueFullError:
                pass
            if len(seen) > 50 and not full:
                cf.wait([seen.pop(0)], PATIENCE)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
        gate.set()
    check(not cf.wait(seen, PATIENCE).not_done, "lost")
    healthy(subject, ex, 2, 300)
    ex.shutdown()


@probe
def submit_in_signal_handler(subject: Subject) -> None:
    """Submit from a signal handler at 500 Hz."""

    def handler(ex: Any, seen: list[Any]) -> None:
        try:
            seen.append(subject.try_submit(ex, int))
        except QueueFullError:
            pass
        if subject.bounded:
            ex.stats()
        seen[-1].cancel()

    for full in (False, True):
        _signals(subject, handler, full)


@probe
def shutdown_in_signal_handler(subject: Subject) -> None:
    """Shutdown from a signal handler during submits."""
    if not hasattr(signal, "setitimer"):
        return
    for _ in range(200 if subject.full else 40):
        ex = subject.make(2, 1000)
        old = signal.signal(signal.SIGALRM, lambda *_, ex=ex: ex.shutdown(wait=False))
        futures = []
        try:
            signal.setitimer(signal.ITIMER_REAL, random.Random(len(futures)).random() / 1000)
            for _ in range(100_000):
                futures.append(ex.submit(int))
        except RuntimeError:
            pass
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, old)
        ex.shutdown()
        check(all(future.result(0) == 0 for future in futures), "lost")


# -- Ctrl-C at every point ------------------------------------------------------------------------


def _interrupts(
    subject: Subject,
    name: str,
    sample: int,
    prepare: Callable[[Any, threading.Event, list[Any]], Callable[[], Any]],
    closes: bool = False,
) -> None:
    """Interrupt an operation at its k-th instruction, for every k; then all must be well."""
    late = tried = 0

    def once(k: int) -> bool:
        nonlocal late, tried
        ex = subject.make(2, 2)
        gate = threading.Event()
        ran: list[Any] = []
        operation = prepare(ex, gate, ran)
        there, came_out = interrupt(subject, k, operation)
        gate.set()
        if closes:
            ex.shutdown()
            check(not any(thread.is_alive() for thread in ex._threads), (name, k, "alive"))
        else:
            healthy(subject, ex)
            ex.shutdown()
        check(len(ran) <= 1, (name, k, "ran twice"))
        late += came_out and bool(ran)
        tried += 1
        return there

    for k in subject.points(sample):
        try:
            if not in_thread(once, k):
                break
        except BaseException as error:
            raise AssertionError(f"{name}, instruction {k}: {error!r}") from error
    subject.note(f"{tried} points" + (f", {late} after the task was admitted" if late else ""))


@probe
def interrupt_submit(subject: Subject) -> None:
    """KeyboardInterrupt at any point inside submit."""
    _interrupts(subject, "submit", 11, lambda ex, gate, ran: lambda: ex.submit(ran.append, 1))


@probe
def interrupt_try_submit(subject: Subject) -> None:
    """KeyboardInterrupt at any point inside try_submit, with a place and without."""
    for full in (False, True):

        def prepare(ex: Any, gate: Any, ran: Any, full: bool = full) -> Any:
            for _ in range(4 * full):
                ex.submit(gate.wait, PATIENCE)

            def operation() -> None:
                try:
                    subject.try_submit(ex, ran.append, 1)
                except QueueFullError:
                    pass

            return operation

        _interrupts(subject, "try_submit", 13, prepare)


@probe
def interrupt_blocking_submit(subject: Subject) -> None:
    """KeyboardInterrupt at any point inside a submit that blocks on a full queue."""

    def prepare(ex: Any, gate: Any, ran: Any) -> Any:
        first = threading.Event()
        ex.submit(first.wait, PATIENCE)
        for _ in range(3):
            ex.submit(gate.wait, PATIENCE)
        threading.Timer(0.005, first.set).start()
        return lambda: ex.submit(ran.append, 1)

    _interrupts(subject, "blocking submit", 11, prepare)


@probe
def interrupt_result(subject: Subject) -> None:
    """KeyboardInterrupt at any point inside result."""

    def prepare(ex: Any, gate: Any, ran: Any) -> Any:
        future = ex.submit(gate.wait, PATIENCE)
        threading.Timer(0.002, gate.set).start()
        return future.result

    _interrupts(subject, "result", 7, prepare)


@probe
def interrupt_cancel(subject: Subject) -> None:
    """KeyboardInterrupt at any point inside cancel."""

    def prepare(ex: Any, gate: Any, ran: Any) -> Any:
        for _ in range(2):
            ex.submit(gate.wait, PATIENCE)
        future = ex.submit(ran.append, 1)
        future.add_done_callback(id)
        return future.cancel

    _interrupts(subject, "cancel", 7, prepare)


@probe
def interrupt_map(subject: Subject) -> None:
    """KeyboardInterrupt at any point of a map and its iteration."""
    for shape in ({}, {"chunksize": 3}, *([{"buffersize": 3}] if subject.bounded else [])):

        def prepare(ex: Any, gate: Any, ran: Any, shape: Any = shape) -> Any:
            return lambda: list(ex.map(abs, range(8), **shape))

        _interrupts(subject, f"map {shape}", 61, prepare)


@probe
def interrupt_shutdown(subject: Subject) -> None:
    """KeyboardInterrupt at any point inside shutdown and stop."""

    def prepare(ex: Any, gate: Any, ran: Any) -> Any:
        for _ in range(3):
            ex.submit(gate.wait, PATIENCE)
        threading.Timer(0.002, gate.set).start()
        return ex.shutdown

    _interrupts(subject, "shutdown", 11, prepare, closes=True)
    if not subject.bounded:
        return

    def stop(ex: Any, gate: Any, ran: Any) -> Any:
        for _ in range(3):
            ex.submit(gate.wait, PATIENCE)

        def operation() -> None:
            try:
                ex.stop(0.001)
            except ForcedShutdownError:
                pass

        return operation

    _interrupts(subject, "stop", 29, stop, closes=True)


# -- out of memory ------------------------------------------------------------------------------


def _out_of_memory(subject: Subject, operation: str) -> None:
    try:
        import _testcapi
    except ImportError:
        subject.note("no _testcapi here")
        return
    failed = 0
    for n in range(0, 200, 1 if subject.full else 9):
        ex = subject.make(2, 2, **({"error_handler": id} if subject.bounded else {}))
        ex.submit(int).result(PATIENCE)
        ran: list[int] = []
        future = None
        try:
            if operation == "submit":
                _testcapi.set_nomemory(n, n + 1)
                future = ex.submit(ran.append, 1)
            elif operation == "run":
                future = ex.submit(lambda n=n: _testcapi.set_nomemory(n, n + 1))
                cf.wait([future], 5)
            else:
                ex.submit(int)
                _testcapi.set_nomemory(n, n + 1)
                ex.shutdown()
        except MemoryError:
            failed += 1
        finally:
            _testcapi.remove_mem_hooks()
        if operation == "submit":
            check(len(ran) <= 1)
        if future is not None:
            check(cf.wait([future], 5).done, f"allocation {n}: the task is lost")
        if operation == "shutdown":
            ex.shutdown()
        else:
            healthy(subject, ex)
            ex.shutdown()
    subject.note(f"{failed} MemoryErrors came out")


@probe
def no_memory_submit(subject: Subject) -> None:
    """One failing allocation in submit, at each n in turn."""
    _out_of_memory(subject, "submit")


@probe
def no_memory_run(subject: Subject) -> None:
    """One failing allocation in the worker, at each n in turn."""
    _out_of_memory(subject, "run")


@probe
def no_memory_shutdown(subject: Subject) -> None:
    """One failing allocation in shutdown, at each n in turn."""
    _out_of_memory(subject, "shutdown")


# -- waiting ------------------------------------------------------------------------------------


@probe
def huge_timeouts(subject: Subject) -> None:
    """result(timeout=1e10), inf."""
    ex = subject.make()
    for timeout in (1e10, float("inf")):
        gate = threading.Event()
        future = ex.submit(gate.wait, PATIENCE)
        threading.Timer(0.01, gate.set).start()
        check(future.result(timeout) is True)
    try:
        ex.submit(time.sleep, 0.05).result(float("nan"))
    except ValueError:
        pass
    else:
        raise AssertionError("NaN is taken for a timeout")
    ex.shutdown()


@probe
def traceback_length(subject: Subject) -> None:
    """Reading one failed result 1000 times."""
    ex = subject.make()
    future = ex.submit(boom, ValueError())
    lengths = set()
    for _ in range(1000):
        try:
            future.result(PATIENCE)
        except ValueError as error:
            count, traceback = 0, error.__traceback__
            while traceback is not None:
                count, traceback = count + 1, traceback.tb_next
            lengths.add(count)
    check(len(lengths) == 1, f"a traceback of {max(lengths)} frames")
    ex.shutdown()


@probe
def wait_for_queued(subject: Subject) -> None:
    """A worker waits for a future still queued behind it."""
    ex = subject.make(1)
    check(ex.submit(lambda: ex.submit(int).result()).result(5) == 0)
    check(ex.submit(lambda: len(cf.wait([ex.submit(int)]).done)).result(5) == 1)
    ex.shutdown()


@probe
def shutdown_in_task(subject: Subject) -> None:
    """A task calls shutdown(wait=True)."""
    ex = subject.make(1)
    future = ex.submit(lambda: ex.shutdown(wait=True))
    check(future.exception(5) is None, future.exception(0))
    ex.shutdown()


@probe
def initializer_fails(subject: Subject) -> None:
    """The initializer fails, for the first worker or a later one."""
    import logging

    logging.disable(logging.CRITICAL)
    for good in (0, 1):
        left = [good]

        def initialize(left: list[int] = left) -> None:
            if not left[0]:
                raise LookupError
            left[0] -= 1

        ex = subject.make(2, 10, initializer=initialize)
        gate = threading.Event()
        broken = 0
        futures = []
        for _ in range(4):
            try:
                futures.append(ex.submit(gate.wait, PATIENCE))
            except cf.BrokenExecutor:
                broken += 1
        gate.set()
        for future in futures:
            broken += isinstance(future.exception(PATIENCE), cf.BrokenExecutor)
        check(broken)
        ex.shutdown()


@probe
def memory_is_freed(subject: Subject) -> None:
    """Arguments and results freed without a gc run."""

    class Thing:
        pass

    gc.disable()
    ex = subject.make()
    argument = Thing()
    refs = [weakref.ref(argument)]
    future = ex.submit(lambda thing: Thing(), argument)
    del argument
    refs.append(weakref.ref(future.result(PATIENCE)))
    del future
    for _ in range(500):
        if all(ref() is None for ref in refs):
            break
        ex.submit(int).result(PATIENCE)
    check(all(ref() is None for ref in refs), "kept alive")
    ex.shutdown()


@probe
def cancel_races(subject: Subject) -> None:
    """Cancel racing with the start; a callback that submits; cancel under a token."""
    ex = subject.make(4, 1000)
    ran = bytearray(2000)
    more: list[Any] = []

    def task(number: int) -> None:
        ran[number] += 1

    futures = []
    for number in range(2000):
        if subject.bounded and number % 3 == 0:
            token = CancelToken()
            future = ex.submit_with_token(token, task, number)
            token.cancel()
        else:
            future = ex.submit(task, number)
            future.cancel()
        if number % 50 == 0:
            future.add_done_callback(lambda _: more.append(ex.submit(int)))
        futures.append(future)
    cf.wait(futures, PATIENCE)
    for number, future in enumerate(futures):
        check(ran[number] == (not future.cancelled()), f"task {number}")
    check(all(future.result(PATIENCE) == 0 for future in more))
    healthy(subject, ex, 4, 1000)
    ex.shutdown()


# -- exit ------------------------------------------------------------------------------------------


def _exit(subject: Subject, body: str, limit: float = 20.0) -> tuple[int, str, str]:
    make = (
        "from futurepool import BoundedExecutor; import threading, time\n"
        "def make(n): return BoundedExecutor(n, queue_size=100, shutdown_timeout=1.0)\n"
        if subject.bounded
        else "from concurrent.futures import ThreadPoolExecutor; import threading, time\n"
        "def make(n): return ThreadPoolExecutor(n)\n"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", make + textwrap.dedent(body)],
            capture_output=True,
            text=True,
            timeout=limit,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise AssertionError("the process does not end") from None
    return done.returncode, done.stdout, done.stderr


@probe
def exit_with_queue(subject: Subject) -> None:
    """Interpreter exit with queued tasks, and with a submit during exit."""
    code, out, err = _exit(
        subject,
        """
        ex = make(1)
        def late():
            time.sleep(0.05)
            try: ex.submit(int)
            except RuntimeError: print("refused")
        ex.submit(late)
        for n in range(3): ex.submit(print, n)
        """,
    )
    check((code, err) == (0, ""), (code, out, err))
    check(sorted(out.split()) in (["0", "1", "2", "refused"], ["0", "1", "2"]), out)


@probe
def exit_with_endless_task(subject: Subject) -> None:
    """Interpreter exit with a task that never ends."""
    code, _, err = _exit(subject, "make(1).submit(time.sleep, 3600); time.sleep(0.05)", 8.0)
    check(code == 0, (code, err))
    check("Traceback" not in err, err)


@probe
def exit_at_any_moment(subject: Subject) -> None:
    """Interpreter exit at any moment, with daemon and other submitters still running."""
    chance = random.Random(5)
    for turn in range(200 if subject.full else 12):
        pause, daemon = chance.random() / 20, turn % 2 == 0
        code, _, err = _exit(
            subject,
            f"""
            ex = make(3)
            def load():
                try:
                    while True: ex.submit(sum, range(20))
                except RuntimeError: pass
            for _ in range(2): threading.Thread(target=load, daemon={daemon}).start()
            time.sleep({pause})
            """,
        )
        check(code == 0, (turn, code, err))
        foreign = [line for line in err.splitlines() if line.strip() and "futurepool:" not in line]
        foreign = [line for line in foreign if not line.startswith("  ")]
        check(not foreign, (turn, err))


# -- neighbours ---------------------------------------------------------------------------------------


@probe
def bounded_does_not_block_others(subject: Subject) -> None:
    """A full bounded queue blocks every other executor."""
    import queue

    ex, other = subject.make(1, 1), subject.make(1, 1)
    if not subject.bounded:
        ex._work_queue = queue.Queue(1)  # what people do
    gate = threading.Event()

    def fill() -> None:
        for _ in range(3):
            ex.submit(gate.wait, PATIENCE)

    filler = threading.Thread(target=fill, daemon=True)
    filler.start()
    filler.join(0.2)
    check(filler.is_alive(), "does not block")
    thread = threading.Thread(target=lambda: other.submit(int).result(), daemon=True)
    thread.start()
    thread.join(3)
    stuck = thread.is_alive()
    gate.set()
    filler.join(PATIENCE)
    check(not stuck, "the other executor is blocked")


@probe
def refused_submits(subject: Subject) -> None:
    """Submits that raise leak no place; a task that submits to its full pool goes on."""
    if subject.bounded:
        ex = subject.make()
    else:

        class Semaphored(cf.ThreadPoolExecutor):
            places = threading.BoundedSemaphore(4)

            def submit(self, *args: Any) -> Any:
                self.places.acquire()
                future = super().submit(*args)
                future.add_done_callback(lambda _: self.places.release())
                return future

        ex = Semaphored(2)
    for _ in range(10):
        try:
            ex.submit()
        except TypeError:
            pass
    if subject.bounded:
        healthy(subject, ex)

    def nest(depth: int) -> int:
        return depth and 1 + max(ex.submit(nest, depth - 1).result() for _ in range(2))

    check(ex.submit(nest, 4).result(20) == 4)
    ex.shutdown()


@probe
def odd_exceptions(subject: Subject) -> None:
    """Exceptions that cannot be built again, compared, shown or pickled."""

    class KeywordOnly(Exception):
        def __init__(self, *, code: int) -> None:
            self.code = code

    class Slotted(Exception):
        __slots__ = ("value",)

    class Frozen(Exception):
        def __setattr__(self, name: str, value: object) -> None:
            raise AttributeError(name)

    class Hostile(Exception):
        __str__ = __repr__ = __hash__ = __eq__ = __bool__ = lambda *_: boom(ValueError())  # type: ignore[assignment]

    class Both(OSError, ImportError.__bases__[0]):
        pass

    class Meta(type):
        def __call__(cls, *args: Any) -> Any:
            if cls.__dict__.get("final"):
                return super().__call__(*args)
            raise TypeError("final")

    class Final(Exception, metaclass=Meta):
        final = True

    ex = subject.make()
    errors = [KeywordOnly(code=1), Slotted(), Frozen(), Hostile(), Both(2, "x"), Final()]
    for error in errors:
        caught = ex.submit(boom, error).exception(PATIENCE)
        check(isinstance(caught, type(error)) or caught.__cause__ is error, type(error))
    check(ex.submit(boom, UnicodeDecodeError("a", b"", 0, 0, "")).exception(PATIENCE) is not None)
    healthy(subject, ex)
    ex.shutdown()
