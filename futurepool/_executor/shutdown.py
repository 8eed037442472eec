"""The end of pools: a bounded stop, interpreter exit, and fork.

Every pool is listed here, weakly, from its construction on.

**Exit.** The hook runs before `threading` joins threads, as the standard library's does. It closes all
pools and waits for them side by side, for as long as they take, or each for its own `exit_timeout`;
what still runs then is named on stderr and left behind, which can be since nothing else waits for
threads of ours (`_sync.Thread`). A pool that is made later is closed from the start.

**Fork.** The hooks take every pool's mutex before the fork, so the child's copy is consistent. No
other lock is held while one of these is taken, but those of other pools, which are always taken
in the order of construction here and never elsewhere. In the child only the forking thread
exists: the futures it inherited are cancelled, without running callbacks, which belong to the
parent (an event loop's would write to the parent's wake-up pipe), and the pool starts afresh.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from futurepool import _logs, _sync
from futurepool._cancellation import CancelToken
from futurepool._errors import ForcedShutdownError, is_among
from futurepool._foreign import aside
from futurepool._future import CANCELLED, FINISHED, NOTIFIED
from futurepool._pool.ending import abandon, wait_empty, wait_ended
from futurepool._pool.ending import cancel_queued as _cancel_queued
from futurepool._pool.helping import in_event_loop
from futurepool._pool.pool import Pool, RunState
from futurepool._pool.workers import Kind

if TYPE_CHECKING:
    from futurepool._telemetry.stats import RunningTask

_log = _logs.log
_pools: dict[weakref.ref[Pool], None] = {}  # in order of construction; single C calls only
TELLING = 1.0  # seconds that a shutdown waits for callbacks of the tasks it has cancelled
_CALLBACKS = 30.0  # seconds that interpreter exit waits for callbacks that are nobody's
GRACE = 0.1  # seconds for tasks to see that their token was cancelled


def register(pool: Pool) -> None:
    """List `pool` for exit and fork; close it if exit has begun, as nobody would drain it."""
    # The callback is all C: a Ctrl-C that lands in Python code called by the collector is lost.
    _pools[weakref.ref(pool, _pools.pop)] = None
    in_event_loop()  # so that no daemon thread is the first who looks modules up
    if Pool.exiting:
        pool.close()


def _live() -> list[Pool]:
    return [pool for ref in list(_pools) if (pool := ref()) is not None]


def is_own_worker(pool: Pool) -> bool:
    """True in a thread that runs one of this pool's tasks: it cannot wait for itself."""
    return pool.own_slot() is not None


def _left(end: float | None) -> float | None:
    """The seconds until then. Not made inside `join`: see `_errors.is_among`."""
    return None if end is None else max(0.0, end - _sync.clock())


def _written_off(pool: Pool) -> list[threading.Thread]:
    """Threads that nobody waits for: `options(run_timeout=, abandon=True)`."""
    return [run.slot.thread for run, gone in pool.going_on() if gone] if pool.overdue else []


def join(pool: Pool, timeout: float | None = None) -> bool:
    """Wait until a closed pool has finished everything and its threads have ended; True if so."""
    end = None if timeout is None else _sync.clock() + timeout
    if pool.abandoned or not wait_empty(pool, _left(end)) or not wait_ended(pool, _left(end)):
        return False
    written_off = _written_off(pool)
    for thread in list(pool.engine.threads):
        if is_among(thread, written_off):
            continue
        _sync.join(thread, _left(end))
        if thread.is_alive():
            return False
        pool.engine.threads.discard(thread)
    return True


def shutdown(pool: Pool) -> None:
    """Wait for the end of a closed pool, however long that takes; say what for if it takes long."""
    if not join(pool, None if pool.wait_reported else pool.shutdown_timeout):
        if pool.abandoned:
            return
        _tell(pool)
        if not join(pool):
            return
    pool.engine.joined(wait=True)
    _logs.desk.settle()  # so that the log has the failures of its tasks
    pool.settle_observers()


def _tell(pool: Pool) -> None:
    """Say in the log, once, what is waited for."""
    from futurepool._pool.report import waited_for

    what, lines = waited_for(pool)
    if pool.wait_reported or not what:
        return
    pool.wait_reported = True
    text = "the shutdown of %s has waited for %.1f s, and goes on waiting for %s%s"
    shown = "".join([f"\n  {line}" for line in lines])
    _log.warning(text, pool.name, pool.shutdown_timeout, what, shown, extra={"pool": pool.name})


def stop(
    pool: Pool, timeout: float | None, token: CancelToken | None, ident: int | None = None
) -> None:
    """See `BoundedExecutor.stop`.

    Args:
        pool: Of the executor.
        timeout: Seconds, or None.
        token: Time is up when it is cancelled.
        ident: Of the thread in which a task calls this; it does not wait for the tasks of that one. This
            thread, if it runs one.
    """
    end = None if timeout is None else _sync.clock() + timeout
    pool.user_closed = True
    pool.close()
    slot = pool.own_slot()
    if slot is not None:
        if slot.kind == Kind.ENGINE:
            return  # a callback in the thread that brings what the engine has done: it cannot wait
        ident = _sync.get_ident()
    forced = not _wait_told(pool, timeout, token, ident)
    if not forced:
        if ident is not None:
            return  # nor can a worker join itself
        left = _left(end)
        if join(pool, None if left is None else left + GRACE) and _gone(pool):
            pool.engine.joined(wait=timeout is None)
            return
    pool.close(RunState.STOPPING)
    _cancel_queued(pool)
    cancel_running(pool, "the executor was stopped", ident)
    wait_empty(pool, GRACE, None, ident)
    from futurepool._pool.report import unfinished

    error = ForcedShutdownError(unfinished(pool, ident))
    pool.engine.joined(wait=False)  # which may end what runs
    if forced or error.unfinished:
        pool.wait_reported = True
        pool.exit_timeout = 0.0  # interpreter exit need not wait once more
        try:
            raise error
        finally:
            del error  # its traceback holds this frame


def _gone(pool: Pool) -> bool:
    """Whether no function goes on after its task has ended; those that are about to return may."""
    end = _sync.clock() + GRACE
    for thread in _written_off(pool):
        _sync.join(thread, _left(end))
    return not pool.overdue


def _wait_told(
    pool: Pool, timeout: float | None, token: CancelToken | None, ident: int | None
) -> bool:
    """`wait_empty`; without a limit, say what for if it takes long."""
    if timeout is None and not pool.wait_reported:
        if wait_empty(pool, pool.shutdown_timeout, token, ident):
            return True
        if token is not None and token.cancelled:
            return False
        _tell(pool)
    return wait_empty(pool, timeout, token, ident)


def cancel_queued(pool: Pool) -> Callable[[float], None]:
    """Take no new task, and cancel what has not started; returns what waits for its callbacks."""
    pool.close(RunState.STOPPING)
    return _cancel_queued(pool)


def cancel_running(pool: Pool, why: str, ident: int | None = None) -> None:
    """Cancel the tokens of what runs, but for the tasks of the thread `ident`.

    With what an engine has not begun, it does not begin.
    """
    for slot in list(pool.workers.slots):
        task = slot.task
        if task is not None and (ident is None or slot.ident != ident):
            pool.token_of(task).cancel_aside(why)
            pool.engine.take_back(task, None)


def running(pool: Pool, stack: bool = False) -> list[RunningTask]:
    """See `BoundedExecutor.running`."""
    from futurepool._pool.report import running

    return running(pool, stack)


# -- interpreter exit ------------------------------------------------------------------------------


def _at_exit() -> None:
    if Pool.exiting:
        return  # it is registered more than once
    # A pool made from now on sees this, or we see it: `register` lists it before it looks.
    Pool.exiting = True
    pools = _live()
    for pool in pools:
        pool.close()
    began = _sync.clock()
    limit = min(_CALLBACKS, max([_seconds(pool.exit_timeout) for pool in pools], default=_NEVER))
    _drain(pools)
    # Who was about to tell of a cancelled task may not live to do it: the thread for deadlines does not.
    alive = {thread.ident for thread in threading.enumerate() if not thread.daemon}
    for pool in pools:
        for future, by in pool.unnotified.copy().items():
            if by not in alive:
                future._tell_aside()  # which may be done twice
    # Callbacks of what a deadline, a drop or a shutdown has ended. They belong to no pool's threads,
    # and one that blocks for ever does not keep the process: nobody asked to wait for it.
    if not aside.join(min(1.0, limit), here=True):
        _say(["interpreter exit waits for done-callbacks of cancelled or expired tasks"])
        if not aside.join(max(GRACE, began + limit - _sync.clock()), here=True):
            _say(["interpreter exit, done-callbacks abandoned"])


def _drain(pools: list[Pool]) -> None:
    """Wait for all of these, side by side."""
    began = _sync.clock()
    silent = list(pools)  # nothing was said about these yet
    try:
        while pools:
            now = _sync.clock() - began
            late = [pool for pool in pools if _seconds(pool.exit_timeout) <= now]
            slow = [pool for pool in silent if pool.shutdown_timeout <= now]
            if late or slow:
                pools = [pool for pool in pools if not join(pool, 0.0)]
                slow = [pool for pool in slow if pool in pools and pool not in late]
                _say_waiting(slow, now)
                _abandon([pool for pool in late if pool in pools], now)
                pools = [pool for pool in pools if pool not in late]
                silent = [pool for pool in silent if pool not in slow and pool in pools]
                continue
            soon = min(
                [_seconds(pool.exit_timeout) for pool in pools]
                + [pool.shutdown_timeout for pool in silent]
            )
            left = began + soon - _sync.clock()
            if join(pools[0], None if left == _NEVER else max(0.0, left)):
                silent = [pool for pool in silent if pool is not pools[0]]
                pools = pools[1:]
    except BaseException:
        # Ctrl-C, most likely: whoever sends it does not want to wait. The standard class ends its
        # wait, too, and raising this ends that of the interpreter for other threads.
        _abandon(pools, _sync.clock() - began)
        raise


_NEVER = float("inf")


def _seconds(timeout: float | None) -> float:
    return _NEVER if timeout is None else timeout


def _say_waiting(pools: list[Pool], waited: float) -> None:
    if pools:
        from futurepool._pool.report import waited_for

        what, lines = waited_for(*pools)
        if what:
            _say([f"interpreter exit waits for {what}, {waited:.1f} s so far:", *lines])


def _abandon(pools: list[Pool], waited: float) -> None:
    """Leave behind what does not end, and say so."""
    queued = 0
    for pool in pools:
        pool.close(RunState.STOPPING)
        queued += pool.queued()
        _cancel_queued(pool)
        cancel_running(pool, "the interpreter exits")
    end = _sync.clock() + GRACE
    left = [pool for pool in pools if not join(pool, _left(end))]
    if left or queued:
        from futurepool._pool.report import waited_for

        lines = [f"interpreter exit, tasks abandoned after {waited:.1f} s:", *waited_for(*left)[1]]
        if queued:
            lines.append(f"{queued} queued task{'s' * (queued != 1)} cancelled")
        _say(lines)
    for pool in left:
        pool.engine.joined(wait=False)
        abandon(pool)


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
    Pool.exiting = True
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

#: One fork at a time: of two, each would wait for a mutex of the other's, or release one.
_fork: Any = _sync.RLock()
_forking: list[Pool] = []  # whose mutexes the fork holds; guarded by _fork


def _await_imports() -> None:
    """Let the imports of this package's modules end that are going on: many are imported when first needed.

    The child would have the lock of such an import, and nobody to release it, and wait for that when it needs
    the module itself. (Python has no public way to ask; the dict is empty but for that time.)
    """
    locks = getattr(sys.modules.get("_frozen_importlib"), "_module_locks", ())
    for name in list(locks):
        if name.startswith("futurepool."):
            with suppress(ImportError):  # whoever imports it is told
                __import__(name)


def _before_fork() -> None:
    _await_imports()  # first: what comes in between may want a pool
    _fork.acquire()
    for pool in _live():
        pool.mutex.acquire()
        _forking.append(pool)


def _after_fork_in_parent() -> None:
    if _fork._is_owned():  # else it was interrupted before it had anything
        while _forking:
            _forking.pop().mutex.release()
        _fork.release()


def _after_fork_in_child() -> None:
    global _fork
    _fork = _sync.RLock()
    _sync.here.slot = None
    while _forking:
        _restart(_forking.pop())


def _restart(pool: Pool) -> None:
    tasks: list[Any] = pool.queue.tasks()
    tasks += [slot.task for slot in pool.workers.slots if slot.task is not None]
    tasks += pool.waiters.tasks()
    for task in tasks:
        if task._state is not FINISHED:
            task._subscribers = None
            task._why = "the process was forked, and it is the parent's"
            task._state = CANCELLED
            task._state = NOTIFIED
            task._release_call()
    pool.renew()
    pool.engine.reset()


if sys.platform != "win32" and hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
