"""Models of threads: starting and joining them, who they are, their local data, and the time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from . import scheduler
from .models import TIMEOUT_MAX, get_ident, point, wait
from .scheduler import TICK
from .tasks import Gate

__all__ = ["Local", "clock", "get_at", "join", "no_thread", "pause", "sleep", "sleep_at", "start"]


def pause(what: str = "pause") -> None:
    """A switch point of its own, for code that is not instrumented."""
    run = scheduler.running()
    if run is not None:
        run.point(what)


class Local:
    """A `threading.local`: one namespace for each task, which dies with the task.

    Args:
        kind: The class whose attributes are the defaults.
    """

    def __init__(self, kind: type = object) -> None:
        object.__setattr__(self, "_kind", kind)

    def __getattribute__(self, name: str) -> Any:
        mine = _namespace(self)
        if name == "__dict__":
            return mine
        if name in mine:
            return mine[name]
        return getattr(object.__getattribute__(self, "_kind"), name)

    def __setattr__(self, name: str, value: Any) -> None:
        _namespace(self)[name] = value

    def __delattr__(self, name: str) -> None:
        try:
            del _namespace(self)[name]
        except KeyError:
            raise AttributeError(name) from None


def _namespace(owner: Local) -> dict[str, Any]:
    run = scheduler.running()
    if run is None or run.current is None:
        return {}  # nobody is here to remember it for
    return run.current.locals.setdefault(owner, {})


def no_thread(function: Callable[..., object], arguments: tuple[object, ...]) -> int:
    """Nobody: who asks for one has died without a word, and a model's threads do so after the run."""
    del function, arguments
    return 0


def clock() -> float:
    """Virtual seconds; strictly increasing. Real ones outside a run."""
    run = scheduler.running()
    if run is None:
        return time.perf_counter()
    point("clock", _TIME)
    run.now += TICK
    return run.now


def sleep(seconds: float) -> None:
    """Let that much virtual time pass. For scenarios; the package does not sleep."""
    wait(Gate("sleep", False), seconds, "sleep")


_TIME = Gate("time", True)


def sleep_at(gate: Any, timeout: float | None, look: Callable[[], object]) -> None:
    """Without the looks: they are for threads that die, and would hide a lost wake-up."""
    if timeout is None:
        gate.acquire()
    else:
        gate.acquire(True, max(0.0, min(timeout, TIMEOUT_MAX)))


def get_at(inbox: Any, timeout: float | None, look: Callable[[], object]) -> Any:
    """Likewise."""
    return inbox.get() if timeout is None else inbox.get(timeout=timeout)


def start(thread: threading.Thread) -> None:
    """Run `thread.run` in a new task; raise if the scenario refuses this (the n-th) start."""
    run = scheduler.running()
    if run is None:
        raise RuntimeError("a thread was started outside a run")
    run.point("start")
    run.starts += 1
    if run.starts - 1 in run.refuse_starts:
        raise RuntimeError("can't start new thread")
    if "_loom_task" in vars(thread):
        raise RuntimeError("threads can only be started once")
    vars(thread)["_loom_task"] = run.spawn(thread.run, thread.name)
    thread.__class__ = _modelled(type(thread))


def join(thread: threading.Thread, timeout: float | None = None) -> None:
    """Wait for the task of a thread started by `start`."""
    task = vars(thread).get("_loom_task")
    if task is None:
        raise RuntimeError("cannot join thread before it is started")
    if task.index + 1 == get_ident():
        raise RuntimeError("cannot join current thread")
    wait(task.finished, None if timeout is None else max(timeout, 0), "join")


def _number(thread: Any) -> int | None:
    """None once the run is over: a finalizer would replace what has died in it by a real thread."""
    task = thread._loom_task
    return task.index + 1 if task.run is scheduler.running() else None


_classes: dict[type, type] = {}


def _modelled(base: type) -> type:
    """A subclass of a thread class that answers for a task instead of a thread."""
    if base not in _classes:

        def is_alive(self: Any) -> bool:
            pause("is_alive")
            return self.ident is not None and not self._loom_task.done

        body = {
            "is_alive": is_alive,
            "join": join,
            "ident": property(_number),
            "native_id": property(_number),
        }
        _classes[base] = type(base.__name__, (base,), body)
    return _classes[base]
