"""The end of pools: a bounded stop, interpreter exit, and fork.

Every core is listed here, weakly, from its construction on.

**Exit.** The hook runs before `threading` joins threads, as the standard library's does. It closes all
pools and waits for them side by side, for as long as they take, or each for its own `exit_timeout`;
what still runs then is named on stderr and left behind, which can be since nothing else waits for
threads of ours (`_sync.Thread`). A pool that is made later is closed from the start.

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
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from futurepool import _logs, _sync
from futurepool._cancellation import CancelToken
from futurepool._errors import ForcedShutdownError
from futurepool._foreign import aside
from futurepool._future import CANCELLED, FINISHED, NOTIFIED
from futurepool._pool.core import CoreState, RunState
from futurepool._pool.life import in_event_loop
from futurepool._pool.queue import Core

if TYPE_CHECKING:
    from futurepool._stats import RunningTask

__all__: list[str] = []  # internal

_log = _logs.log
_cores: dict[weakref.ref[Core], None] = {}  # in order of construction; single C calls only
TELLING = 1.0  # seconds that a shutdown waits for callbacks of the tasks it has cancelled
_CALLBACKS = 30.0  # seconds that interpreter exit waits for callbacks that are nobody's
GRACE = 0.1  # seconds for tasks to see that their token was cancelled


def register(core: Core) -> None:
    """List `core` for exit and fork; close it if exit has begun, as nobody would drain it."""
    # The callback is all C: a Ctrl-C that lands in Python code called by the collector is lost.
    _cores[weakref.ref(core, _cores.pop)] = None
    in_event_loop()  # so that no daemon thread is the first who looks modules up
    if CoreState.exiting:
        core.close()


def _live() -> list[Core]:
    return [core for ref in list(_cores) if (core := ref()) is not None]


def is_own_worker(core: Core) -> bool:
    """True in a thread that runs one of this pool's tasks: it cannot wait for itself."""
    return core.own_record() is not None


def _left(end: float | None) -> float | None:
    """The seconds until then. Not made inside `join`: see `errors.is_among`."""
    return None if end is None else max(0.0, end - _sync.clock())


def join(core: Core, timeout: float | None = None) -> bool:
    """Wait until a closed core has finished everything and its threads have ended; True if so."""
    end = None if timeout is None else _sync.clock() + timeout
    if core.abandoned or not core.wait_empty(_left(end)) or not core.wait_ended(_left(end)):
        return False
    for thread in list(core.engine.threads):
        _sync.join(thread, _left(end))
        if thread.is_alive():
            return False
        core.engine.threads.discard(thread)
    return True


def shutdown(core: Core) -> None:
    """Wait for the end of a closed core, however long that takes; say what for if it takes long."""
    if not join(core, None if core.told else core.shutdown_timeout):
        if core.abandoned:
            return
        _tell(core)
        if not join(core):
            return
    core.engine.joined(wait=True)
    _logs.desk.settle()  # so that the log has the failures of its tasks


def _tell(core: Core) -> None:
    """Say in the log, once, what is waited for."""
    from futurepool._pool.report import waited_for

    what, lines = waited_for(core)
    if core.told or not what:
        return
    core.told = True
    text = "the shutdown of %s has waited for %.1f s, and goes on waiting for %s%s"
    shown = "".join([f"\n  {line}" for line in lines])
    _log.warning(text, core.name, core.shutdown_timeout, what, shown, extra={"pool": core.name})


def stop(
    core: Core, timeout: float | None, token: CancelToken | None, ident: int | None = None
) -> None:
    """See `BoundedExecutor.stop`.

    Args:
        core: Of the executor.
        timeout: Seconds, or None.
        token: Time is up when it is cancelled.
        ident: Of the thread in which a task calls this; it does not wait for the tasks of that one.
    """
    end = None if timeout is None else _sync.clock() + timeout
    core.dismissed = True
    core.close()
    record = core.own_record()
    if record is not None and record.thread is core.engine:
        return  # a callback in the thread that brings what the engine has done: it cannot wait
    forced = not _wait_told(core, timeout, token, ident)
    if not forced:
        if ident is not None:
            return  # nor can a worker join itself
        left = _left(end)
        if join(core, None if left is None else left + GRACE):
            core.engine.joined(wait=timeout is None)
            return
    core.close(RunState.STOPPING)
    core.cancel_queued()
    cancel_running(core, "the executor was stopped", ident)
    core.wait_empty(GRACE, None, ident)
    from futurepool._pool.report import unfinished

    error = ForcedShutdownError(unfinished(core, ident))
    core.engine.joined(wait=False)  # which may end what runs
    if forced or error.unfinished:
        core.told = True
        core.exit_timeout = 0.0  # interpreter exit need not wait once more
        try:
            raise error
        finally:
            del error  # its traceback holds this frame


def _wait_told(
    core: Core, timeout: float | None, token: CancelToken | None, ident: int | None
) -> bool:
    """`wait_empty`; without a limit, say what for if it takes long."""
    if timeout is None and not core.told:
        if core.wait_empty(core.shutdown_timeout, token, ident):
            return True
        if token is not None and token.cancelled:
            return False
        _tell(core)
    return core.wait_empty(timeout, token, ident)


def cancel_queued(core: Core) -> Callable[[float], None]:
    """Take no new task, and cancel what has not started; returns what waits for its callbacks."""
    core.close(RunState.STOPPING)
    return core.cancel_queued()


def cancel_running(core: Core, why: str, ident: int | None = None) -> None:
    """Cancel the tokens of what runs, but for the tasks of the thread `ident`."""
    for record in list(core.records):
        task = record.task
        if task is not None and (ident is None or record.ident != ident):
            core.token_of(task).cancel_aside(why)


def running(core: Core, stack: bool = False) -> list[RunningTask]:
    """See `BoundedExecutor.running`."""
    from futurepool._pool.report import running

    return running(core, stack)


# -- interpreter exit ------------------------------------------------------------------------------


def _at_exit() -> None:
    if CoreState.exiting:
        return  # it is registered more than once
    # A pool made from now on sees this, or we see it: `register` lists it before it looks.
    CoreState.exiting = True
    cores = _live()
    for core in cores:
        core.close()
    began = _sync.clock()
    limit = min(_CALLBACKS, max([_seconds(core.exit_timeout) for core in cores], default=_NEVER))
    _drain(cores)
    # Who was about to tell of a cancelled task may not live to do it: the thread for deadlines does not.
    alive = {thread.ident for thread in threading.enumerate() if not thread.daemon}
    for core in cores:
        for future, by in core.untold.copy().items():
            if by not in alive:
                future._tell_aside()  # which may be done twice
    # Callbacks of what a deadline, a drop or a shutdown has ended. They belong to no pool's threads,
    # and one that blocks for ever does not keep the process: nobody asked to wait for it.
    if not aside.join(min(1.0, limit), here=True):
        _say(["interpreter exit waits for done-callbacks of cancelled or expired tasks"])
        if not aside.join(max(GRACE, began + limit - _sync.clock()), here=True):
            _say(["interpreter exit, done-callbacks abandoned"])


def _drain(cores: list[Core]) -> None:
    """Wait for all of these, side by side."""
    began = _sync.clock()
    silent = list(cores)  # nothing was said about these yet
    try:
        while cores:
            now = _sync.clock() - began
            late = [core for core in cores if _seconds(core.exit_timeout) <= now]
            slow = [core for core in silent if core.shutdown_timeout <= now]
            if late or slow:
                cores = [core for core in cores if not join(core, 0.0)]
                slow = [core for core in slow if core in cores and core not in late]
                _say_waiting(slow, now)
                _abandon([core for core in late if core in cores], now)
                cores = [core for core in cores if core not in late]
                silent = [core for core in silent if core not in slow and core in cores]
                continue
            soon = min(
                [_seconds(core.exit_timeout) for core in cores]
                + [core.shutdown_timeout for core in silent]
            )
            left = began + soon - _sync.clock()
            if join(cores[0], None if left == _NEVER else max(0.0, left)):
                silent = [core for core in silent if core is not cores[0]]
                cores = cores[1:]
    except BaseException:
        # Ctrl-C, most likely: whoever sends it does not want to wait. The standard class ends its
        # wait, too, and raising this ends that of the interpreter for other threads.
        _abandon(cores, _sync.clock() - began)
        raise


_NEVER = float("inf")


def _seconds(timeout: float | None) -> float:
    return _NEVER if timeout is None else timeout


def _say_waiting(cores: list[Core], waited: float) -> None:
    if cores:
        from futurepool._pool.report import waited_for

        what, lines = waited_for(*cores)
        if what:
            _say([f"interpreter exit waits for {what}, {waited:.1f} s so far:", *lines])


def _abandon(cores: list[Core], waited: float) -> None:
    """Leave behind what does not end, and say so."""
    queued = 0
    for core in cores:
        core.close(RunState.STOPPING)
        queued += core.queued()
        core.cancel_queued()
        cancel_running(core, "the interpreter exits")
    end = _sync.clock() + GRACE
    left = [core for core in cores if not join(core, _left(end))]
    if left or queued:
        from futurepool._pool.report import waited_for

        lines = [f"interpreter exit, tasks abandoned after {waited:.1f} s:", *waited_for(*left)[1]]
        if queued:
            lines.append(f"{queued} queued task{'s' * (queued != 1)} cancelled")
        _say(lines)
    for core in left:
        core.engine.joined(wait=False)
        core.abandon()


def _say(lines: list[str]) -> None:
    if sys.stderr is not None:
        try:
            sys.stderr.write("futurepool: " + "\n  ".join(lines) + "\n")
            sys.stderr.flush()
        except (OSError, ValueError):  # closed
            pass


def _register() -> bool:
    """False if it is too late."""
    try:
        threading._register_atexit(_at_exit)  # type: ignore[attr-defined]
    except AttributeError:  # not CPython: later than we would like, but before threads are joined
        atexit.register(_at_exit)
    except RuntimeError:
        return False
    return True


if not _register():
    CoreState.exiting = True
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
            task._why = "the process was forked, and it is the parent's"
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
