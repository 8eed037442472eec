"""The end of pools: a bounded stop, interpreter exit, and fork.

Every core is listed here, weakly, from its construction on.

**Exit.** The hook runs before `threading` joins threads, as the standard library's does, and drains
all pools side by side, each for at most its own `shutdown_timeout`. Worker threads are daemons:
what still runs then is named on stderr and left behind.

**Fork.** The hooks take every core's mutex before the fork, so the child's copy is consistent. No
other lock is held while one of these is taken, but those of other cores, which are always taken
in the order of construction here and never elsewhere. In the child only the forking thread
exists: the futures it inherited are cancelled, without running callbacks, which belong to the
parent (an event loop's would write to the parent's wake-up pipe), and the core starts afresh.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any

from futurepool import _sync
from futurepool.cancellation import CancelToken
from futurepool.core import CoreState, RunState
from futurepool.errors import ForcedShutdownError
from futurepool.future import CANCELLED, FINISHED, NOTIFIED
from futurepool.queue import Core

if TYPE_CHECKING:
    from futurepool.stats import RunningTask

__all__: list[str] = []  # internal

_cores: dict[weakref.ref[Core], None] = {}  # in order of construction; single C calls only
_GRACE = 0.1  # seconds for tasks to see that their token was cancelled


def register(core: Core) -> None:
    """List `core` for exit and fork."""
    # The callback is all C: a Ctrl-C that lands in Python code called by the collector is lost.
    _cores[weakref.ref(core, _cores.pop)] = None


def _live() -> list[Core]:
    return [core for ref in list(_cores) if (core := ref()) is not None]


def is_own_worker(core: Core) -> bool:
    """True in a thread that runs one of this pool's tasks: it cannot wait for itself."""
    return core.own_record() is not None


def _left(end: float | None) -> float | None:
    """The seconds until then. Not made inside `join`: see `errors.is_among`."""
    return None if end is None else max(0.0, end - _sync.clock())


def join(core: Core, timeout: float | None = None) -> None:
    """Wait until a closed core has finished everything and its threads have ended."""
    end = None if timeout is None else _sync.clock() + timeout
    if core.wait_empty(_left(end)) and core.wait_ended(_left(end)):
        for thread in list(core.engine.threads):
            _sync.join(thread, _left(end))
            if not thread.is_alive():
                core.engine.threads.discard(thread)
        if timeout is None:
            core.engine.joined(wait=True)


def stop(core: Core, timeout: float | None, token: CancelToken | None) -> None:
    """See `BoundedExecutor.stop`."""
    core.dismissed = True
    core.close()
    if is_own_worker(core):
        return
    if core.wait_empty(timeout, token):
        join(core, _GRACE if timeout is not None else None)
        core.engine.joined(wait=timeout is None)
        return
    core.close(RunState.STOPPING)
    core.shutdown_timeout = 0.0  # interpreter exit need not wait once more
    core.cancel_queued()
    why = "the executor was stopped"
    for record in list(core.records):
        task = record.task
        if task is not None:
            core.token_of(task).cancel(why)
    core.wait_empty(_GRACE)
    error = ForcedShutdownError(running(core, stack=True))
    core.engine.joined(wait=False)  # which may end what runs
    raise error


def running(core: Core, stack: bool = False) -> list[RunningTask]:
    """One entry for each task that runs now, oldest first."""
    from futurepool.stats import RunningTask, format_stack

    now = _sync.clock()
    found = core.running()
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    entries = [
        RunningTask(
            task_id=task.task_id,
            name=task.name,
            worker=names.get(record.ident, getattr(record.thread, "name", "?")),
            seconds=now - started,
            waited=max(0.0, started - task._queued_at),
            stack=format_stack(record.ident) if stack and record.ident else None,
        )
        for task, record, started in found
    ]
    return sorted(entries, key=lambda entry: -entry.seconds)


# -- interpreter exit ------------------------------------------------------------------------------


def _at_exit() -> None:
    if CoreState.exiting:
        return  # it is registered more than once
    CoreState.exiting = True
    began = _sync.clock()
    cores = _live()
    for core in cores:
        core.close()
    interrupted = False
    for core in cores:
        left = max(0.0, began + core.shutdown_timeout - _sync.clock())
        try:
            if not interrupted and core.wait_empty(left):
                join(core, 1.0)
                continue
        except KeyboardInterrupt:
            interrupted = True
        _abandon(core, _sync.clock() - began)
        core.engine.joined(wait=False)


def _abandon(core: Core, waited: float) -> None:
    """Leave behind what does not end, and say so."""
    core.close(RunState.STOPPING)
    queued = core.queued()
    core.cancel_queued()
    lines = [f"futurepool: interpreter exit, tasks abandoned after {waited:.1f} s:"]
    lines += [f"  {entry}" for entry in running(core)]
    if queued:
        lines.append(f"  {queued} queued tasks cancelled")
    if len(lines) > 1 and sys.stderr is not None:
        try:
            sys.stderr.write("\n".join([*lines, ""]))
            sys.stderr.flush()
        except (OSError, ValueError):  # closed
            pass


def _register() -> None:
    try:
        threading._register_atexit(_at_exit)  # type: ignore[attr-defined]
    except AttributeError:  # not CPython: later than we would like, but before threads are joined
        atexit.register(_at_exit)


_register()
_preceded: set[str] = set()  # modules


def precede(executor: object) -> None:
    """Have our hook run before that of `executor`'s module, which may wait for what never ends.

    The last to be registered runs first, and it was imported after us, most likely.
    """
    module = type(executor).__module__
    if module not in _preceded:
        _preceded.add(module)
        _register()


# -- fork ----------------------------------------------------------------------------------------

_forking: list[Core] = []


def _before_fork() -> None:
    for core in _live():
        core.mutex.acquire()
        _forking.append(core)


def _after_fork_in_parent() -> None:
    while _forking:
        _forking.pop().mutex.release()


def _after_fork_in_child() -> None:
    _sync.here.record = None
    while _forking:
        _restart(_forking.pop())


def _restart(core: Core) -> None:
    tasks: list[Any] = core.order.tasks()
    tasks += [record.task for record in core.records if record.task is not None]
    tasks += [task for waiter in core.blocked for task in waiter.tasks()]
    for task in tasks:
        if task._state is not FINISHED:
            task._watch = None
            task._state = CANCELLED
            task._state = NOTIFIED
            task._drop()
    for record in core.records:
        if record.task is not None:
            core.run_time += record.started - record.since  # of its row, which ends here
        record.task = None
        record.leave = True
    core.mutex = _sync.RLock()
    for record in core.records:
        core.count_fresh(record)
    core.reset()
    core.engine.reset()


if sys.platform != "win32" and hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
