"""The primitives that threads meet at, all of them, in one place.

Every other module reaches them as `_sync.Lock()`, by attribute, at the moment of the call. So
the tests can put a model in their place and decide every switch between two threads; nothing
else in the package may take a lock, a thread or the time from anywhere else.
"""

from __future__ import annotations

import _thread
import contextvars
import functools
import gc
import itertools
import os
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Any, TypeVar, cast

__all__ = [
    "LOOK",
    "TIMEOUT_MAX",
    "Empty",
    "Lock",
    "Parker",
    "QuietParker",
    "RLock",
    "SimpleQueue",
    "Thread",
    "clock",
    "contents",
    "current_frames",
    "free_threaded",
    "get_at",
    "get_ident",
    "get_within",
    "here",
    "import_now",
    "join",
    "local",
    "new_thread",
    "refresh",
    "replaced",
    "sleep_at",
    "start",
    "start_new_thread",
    "wall",
]

T = TypeVar("T")

TIMEOUT_MAX: float = threading.TIMEOUT_MAX


def _private_time() -> Any:
    """The module `time` once more, or `time` itself where it cannot be made twice.

    Tools that set the clock (freezegun, a test's monkeypatch) replace the functions of `time`, here
    too, as they look for them in every module. Threads still sleep in real time, so with a
    clock that stands still no timeout would ever end. They do not know the functions of a second copy.
    """
    try:
        # Not by `importlib.util`, which is half a millisecond of each start.
        spec: Any = time.__spec__
        module = spec.loader.create_module(spec)
        spec.loader.exec_module(module)
        module.perf_counter()
    except (AttributeError, ImportError, TypeError):  # not CPython
        return time
    return module


_time: Any = _private_time()

#: Whether two threads of this interpreter can run Python code at the same instant.
free_threaded: bool = not getattr(sys, "_is_gil_enabled", lambda: True)()

#: Not re-entrant; any thread may release it, so a held one also serves as a parker to sleep at.
Lock: Callable[[], Any] = _thread.allocate_lock

#: Both RLocks: `_is_owned()` says whether this very thread is inside.
_RLock: Any = _thread.RLock
_acquire: Callable[..., bool] = _RLock.acquire
_give_way: Callable[[], object] = getattr(os, "sched_yield", functools.partial(_time.sleep, 0))

# Measured with benchmarks/ on two cores: from 30 tries on there is little to gain, and without
# giving way it gets slow when more threads run than there are cores.
_TRIES = (None,) * 50
_YIELDS = (None,) * 3
_LOOKS = (None,) * 40  # some 20 microseconds; with 20 a round trip on two cores just misses
_PATIENCE = 1e-4  # seconds; giving way took longer, so there are others


class SpinLock(_RLock):  # type: ignore[misc]
    """An RLock whose `acquire` tries for a few microseconds before it sleeps.

    For free-threaded builds: there two threads really meet at a lock, and to sleep and be woken
    takes ten times as long as what they do under it. With a GIL the holder cannot go on meanwhile.
    """

    __slots__ = ()

    def acquire(self) -> bool:
        """Take the lock, however long that takes."""
        for _ in _TRIES:
            if _acquire(self, False):
                return True
        for _ in _YIELDS:
            _give_way()
            if _acquire(self, False):
                return True
        return _acquire(self)


RLock: Callable[[], Any] = SpinLock if free_threaded else _RLock


class SpinParker(SimpleQueue[None]):
    """What a thread sleeps at until it is released; it looks for a while before it sleeps.

    For free-threaded builds. No lock: before it puts a thread to sleep, a lock of CPython 3.13 gives
    way 40 times without looking whether it has come free (Python/lock.c), and where other programs
    run each of these takes milliseconds. Released twice it may let two pass: the second time nothing
    has happened, which every sleeper can tell.
    """

    __slots__ = ("_released",)

    def __init__(self) -> None:
        self._released: bool = False  # a hint

    def release(self) -> None:
        """Let one thread pass."""
        self._released = True
        if self.empty():
            self.put(None)

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """As that of a lock, after some microseconds of looking."""
        began = clock()
        for _ in _LOOKS:
            # Not `empty()`: that takes turns with `put`.
            if self._released or clock() - began > _PATIENCE:
                break
            _give_way()
        try:
            self.get(blocking, None if timeout < 0 else timeout)
        except Empty:
            return False
        self._released = False
        return True


class QuietSpinParker(SpinParker):
    """One whose `acquire` sleeps at once: what it waits for is not a matter of microseconds."""

    __slots__ = ()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """As that of a lock."""
        try:
            self.get(blocking, None if timeout < 0 else timeout)
        except Empty:
            return False
        return True


def _held_lock() -> Any:
    # Whoever is going to sleep comes by here.
    if _thread.allocate_lock is not _seen:  # the look of `refresh`, in line
        refresh()
    lock = Lock()
    lock.acquire()
    return lock


#: What a thread sleeps at: made held, any thread may release it.
Parker: Callable[[], Any] = SpinParker if free_threaded else _held_lock

#: The same for who does not look before it sleeps: threads that work need the core.
QuietParker: Callable[[], Any] = QuietSpinParker if free_threaded else _held_lock

get_ident: Callable[[], int] = _thread.get_ident

#: Seconds, monotonic, from an arbitrary start; real ones, whatever `time` was made to say.
clock: Callable[[], float] = _time.perf_counter

#: Seconds since the epoch, likewise; for what is shown beside other systems' times.
wall: Callable[[], float] = _time.time


#: Data that each thread has of its own.
local: Callable[[], Any] = threading.local


class Here(threading.local):
    """What this thread is doing for a pool."""

    slot: Any = None  # the innermost WorkerSlot whose task runs in this thread
    witness: Any = None  # of a worker: dies with its thread
    registers: bool = False  # done-callbacks with futures of ours
    caught: Any = None  # a list: the work items of a submit that goes through somebody else's
    base: Any = None  # of a worker: the context variables that the initializer has set, if any
    conditions: int = 0  # those of futures that it holds


here: Any = Here()


LOOK: float = 1.0  # seconds between two looks of a thread that waits


def _spans(timeout: float | None) -> Iterator[float]:
    """How long to sleep at a time, in seconds, for `timeout` seconds in all; None is for ever."""
    return itertools.repeat(LOOK) if timeout is None else _spans_of(timeout)


def _spans_of(timeout: float) -> Iterator[float]:
    left = max(0.0, timeout)
    end = clock() + left
    while True:
        yield min(left, LOOK)
        left = max(0.0, end - clock())
        if not left:
            return


def sleep_at(parker: Any, timeout: float | None, look: Callable[[], object]) -> None:
    """Sleep until the lock `parker` can be taken, for at most `timeout` seconds; None is for ever.

    Meanwhile calls `look` once a second: to see what nobody announces, as a thread's sudden death;
    True from it ends the sleep.
    So the handler of a signal that came just before the sleep runs within a second, too.
    """
    # Not by `_spans`: each thread that waits for a result comes by here.
    left = LOOK if timeout is None else max(0.0, timeout)
    end = None if timeout is None else clock() + left
    # In line, as each thread that waits for a result or a place comes by here.
    while not parker.acquire(True, left if left < LOOK else LOOK) and look() is not True:  # noqa: FURB136
        if end is not None:
            left = end - clock()
            if left <= 0.0:
                return


def get_within(inbox: SimpleQueue[T], seconds: float) -> T:
    """`inbox.get(timeout=seconds)`; raises Empty. For one reader.

    Up to Python 3.12 a `get` that finds the queue's lock free, as it is after each `put` that was
    read without waiting, takes it and waits for what is left of its time: for ever if nothing is. A
    look without waiting leaves the lock taken.
    """
    try:
        return inbox.get_nowait()
    except Empty:
        pass
    return inbox.get(timeout=seconds)


def get_at(inbox: SimpleQueue[T], timeout: float | None, look: Callable[[], object]) -> T:
    """`inbox.get`, looking as `sleep_at` does; raises Empty after `timeout` seconds. For one reader."""
    for span in _spans(timeout):
        try:
            return get_within(inbox, span)
        except Empty:
            pass
        look()
    raise Empty


#: `start_new_thread(function, arguments)`: one C call.
start_new_thread: Callable[..., int] = _thread.start_new_thread


def contents(queue: deque[T]) -> list[T]:
    """What is in a deque that other threads may change meanwhile.

    In the free-threaded build of Python 3.13 neither `copy()` nor `list()` of a deque is one step: they raise
    RuntimeError if it changed. For short deques, or such as are changed now and then.
    """
    while True:
        try:
            return list(queue)
        except RuntimeError:  # noqa: PERF203 - each time
            pass


_FRAMES_ARE_SAFE = sys.version_info >= (3, 12)
# `operator.call`, which Python 3.10 lacks.
_call: Any = functools.partial.__call__  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]


def current_frames() -> dict[int, FrameType]:
    """Where all threads of this process are, by their identifiers.

    Before Python 3.12 `sys._current_frames` holds a lock of the interpreter's while it makes objects. If that
    starts a collection, and what is collected calls a function in Python, another thread may get the GIL, and
    hang with it as it starts a thread: https://github.com/python/cpython/issues/106883. So there is no
    collection meanwhile. The three calls are made by C, one after the other: no other thread comes in between.
    """
    if _FRAMES_ARE_SAFE or not gc.isenabled():
        return sys._current_frames()
    steps = map(functools.partial, (gc.disable, sys._current_frames, gc.enable))
    try:
        _, frames, _ = map(_call, tuple(steps))
    except BaseException:
        gc.enable()
        raise
    return cast("dict[int, FrameType]", frames)


def _daemons_allowed() -> bool:
    try:
        threading.Thread(daemon=True)
    except RuntimeError:  # in this subinterpreter, which would wait for every thread
        return False
    return True


_DAEMONS = _daemons_allowed()


#: The class of all threads. Not looked up for each: a test may have put a mock in its place, which runs
#: nothing, or a tool a class of its own, whose `super()` does not know our threads.
_Thread: Any = threading.Thread


class Thread(threading.Thread):
    """A thread for tasks: the interpreter does not wait for it, and it says `daemon == False`.

    The hook of `futurepool._executor.shutdown` waits instead, so that it can give up on one that never
    ends. To the interpreter it is a daemon, which is settled while it is started. From then on it
    answers as a worker of the standard library's does: threads that a task starts inherit that,
    and a daemon's would be killed at exit with their work undone.
    """

    _begun = False

    @property
    def daemon(self) -> bool:
        return _DAEMONS and not self._begun

    @daemon.setter
    def daemon(  # pyright: ignore[reportIncompatibleVariableOverride]
        self, daemonic: bool
    ) -> None:
        _Thread.daemon.__set__(self, daemonic)

    def run(self) -> None:
        self._begun = True
        _Thread.run(self)  # not `super()`: see refresh


_THREADS_TAKE_A_CONTEXT = sys.version_info >= (3, 14)


def new_thread(
    run: Callable[..., object], *args: object, name: str | None = None, daemon: bool = False
) -> threading.Thread:
    """Make a thread that will call `run(*args)`, in an empty context.

    Where `sys.flags.thread_inherit_context` is set, a thread would run in a copy of its starter's
    context, and keep alive what that holds. Whoever starts a thread of ours happens to come by.

    Args:
        run: What it does.
        args: The arguments.
        name: What it is called.
        daemon: False for a thread in which code of users runs, see `Thread`.

    Raises:
        RuntimeError: A daemon is wanted in a subinterpreter that allows none.
    """
    more: dict[str, Any] = {}
    if _THREADS_TAKE_A_CONTEXT:
        more["context"] = contextvars.Context()
    kind = _Thread if daemon else Thread
    return kind(target=run, args=args, name=name, daemon=daemon, **more)


_seen: Any = _thread.allocate_lock

#: Called when the primitives have been replaced: for who made some when it was imported.
replaced: list[Callable[[], object]] = []


def refresh() -> None:
    """Take the primitives anew if someone has put others in their place, as gevent does.

    A `patch_all` that comes after our import turns the threads that we start into greenlets. All of
    them would sleep at once if one of them slept at a lock of the system's, and nobody would be
    there to open it. Called before a thread or a lock is made that matters then.

    Cost: a look at an attribute.
    """
    global _seen, _Thread
    if _thread.allocate_lock is _seen:
        return
    _seen = _thread.allocate_lock
    _Thread = threading.Thread
    # RLocks are the system's in any case: nobody sleeps inside a section, so no greenlet ever finds
    # another one there. The classes are the same once more, on top of what is there now.
    globals().update(
        Lock=_seen,
        SimpleQueue=queue.SimpleQueue,
        Thread=_again(Thread, _Thread),
        get_ident=_thread.get_ident,
        here=_again(Here, threading.local)(),
        start_new_thread=_thread.start_new_thread,
    )
    for act in replaced:
        act()


def _again(kind: type, base: type) -> Any:
    body = {name: value for name, value in vars(kind).items() if name not in _OF_THE_CLASS}
    return type(kind.__name__, (base,), body)


_OF_THE_CLASS = ("__dict__", "__weakref__", "__doc__")


def start(thread: threading.Thread) -> None:
    """Start `thread`; RuntimeError ("can't start new thread") or MemoryError when there is none."""
    # In an empty context: tools that patch this method hand on what they find in the starter's.
    contextvars.Context().run(thread.start)


def join(thread: threading.Thread, timeout: float | None = None) -> None:
    """Wait for `thread` to end, or for `timeout` seconds. RuntimeError if nobody has started it.

    One that is just beginning has its `ident` some instructions before it counts as started, and
    `Thread.join` refuses until then.
    """
    pause = None
    if timeout is not None:
        timeout = min(timeout, threading.TIMEOUT_MAX)
    while True:
        try:
            thread.join(timeout)
            return
        except RuntimeError:
            if thread.ident is None or thread.ident == get_ident():
                raise
        if pause is None:
            pause = Lock()
            pause.acquire()
        pause.acquire(True, 0.001)


def has_ended(thread: threading.Thread) -> bool:
    """Whether `thread` was started and runs no longer.

    Not what `ident` and `is_alive` say together: of a thread that is just beginning, the one is
    there already and the other still False. `Thread.join` knows what counts as started.
    """
    if thread.is_alive():
        return False
    try:
        thread.join(0)
    except RuntimeError:  # not started, or the calling thread itself
        return False
    return not thread.is_alive()


def import_now(package: str) -> None:
    """Let the imports of all loaded modules of `package` take place, where Python has put them off.

    With `python -X lazy_imports=all` each would wait until its name is first used: within a section
    of a mutex, in a finalizer, at interpreter exit. For the last line of what is imported from outside.
    """
    if getattr(sys, "get_lazy_imports", str)() != "all":
        return
    done: set[str] = set()
    while (
        todo := {name for name in list(sys.modules) if f"{name}.".startswith(f"{package}.")} - done
    ):
        for name in todo:
            module = sys.modules[name]
            for each in list(vars(module)):
                getattr(module, each)
        done |= todo
