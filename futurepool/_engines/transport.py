"""How a call travels to another executor, and its outcome back.

A process pool breaks, for all its tasks and for good, when something that it received cannot be
unpickled: a function of a `__main__` that the worker does not have, or one of the many exceptions that
pickle and do not unpickle. So to pools of processes a call goes in a sealed envelope, as bytes,
which is opened inside the task; the result comes back the same way and is opened here. What cannot be
pickled or unpickled then fails its own task, with its own error, and nothing else.

Other executors get the plain call: they may be on other machines, where this package is not installed.

What travels, and what opens it over there, is in `sealed`.

**A broken pool of processes.** The thread that manages a `ProcessPoolExecutor` clears up after a
process that died, and in some versions never ends: it joins a process that was just being started and
that nobody told to go (before 3.12), or the thread that feeds a pipe which nobody reads (before
3.11.5). Whoever joins it, which interpreter exit does, hangs too. So as soon as the dispatcher hears
that the pool is broken, `end_broken` removes what the manager may be waiting for.
"""

from __future__ import annotations

import contextlib
import pickle
import sys
import threading
from collections.abc import Callable
from concurrent import futures as cf
from functools import partial
from typing import Any, cast

from futurepool import _sync
from futurepool._engines.sealed import (
    Initializer,
    Script,
    Sealed,
    SealedFailure,
    run_sealed,
    script,
)

_START = "_start_executor_manager_thread"
_START_NOW = (3, 12) <= sys.version_info < (3, 12, 2)  # no threads once a script has ended
_LOOK = 0.1  # seconds between two looks whether a pool has broken while it ends
_PATIENCE = 5.0  # seconds for a broken pool to end


class Envelope:
    """The plain call."""

    #: What the executor has not begun with can be cancelled there.
    cancels: bool = True
    #: ... and only that: what was cancelled there has never run.
    cancels_pending_only: bool = True
    #: Tasks for each of its workers that are to be there besides what they run. None: what waits in an
    #: executor that is in this process, or of which nothing is known, cannot be overtaken, and gains nothing.
    read_ahead: int = 0

    def prepare(self, executor: cf.Executor) -> None:
        """In the thread that submits first, before the dispatcher starts."""

    def submit(
        self, executor: cf.Executor, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> cf.Future[Any]:
        """Hand the call over."""
        if kwargs:  # not as keywords: dask takes `key`, `workers`, `priority`, ... for its own
            return executor.submit(partial(fn, **kwargs), *args)
        return executor.submit(fn, *args)

    def open(self, result: Any) -> Any:
        """The result that came back."""
        return result

    def takes_chunks(self, fn: Any) -> bool:
        """Whether `fn` can travel inside of something else."""
        return True

    def broken(self, executor: cf.Executor) -> bool:
        """Whether a `BrokenExecutor` that came back is the executor's own, as far as it says."""
        flags = getattr(executor, "_flags", None)  # loky's
        return bool(
            getattr(
                executor if flags is None else flags, "_broken" if flags is None else "broken", True
            )
        )

    def end_broken(self, executor: cf.Executor) -> None:
        """It is broken: see that it ends."""

    def close(self, executor: cf.Executor, wait: bool) -> None:
        """Shut the executor down."""
        executor.shutdown(wait=wait)

    def kill(self, executor: cf.Executor) -> None:
        """Shut the executor down, not waiting for what runs."""
        try:
            executor.shutdown(wait=False, cancel_futures=True)
        except TypeError:  # not all know the argument
            executor.shutdown(wait=False)


class ClusterEnvelope(Envelope):
    """For workers on other machines: what they are to run next comes over a network."""

    read_ahead: int = 2


class DaskEnvelope(ClusterEnvelope):
    """For `distributed.Client().get_executor()`, whose own futures are forgotten in two cases.

    A result that cannot be brought here leaves them pending for ever, and so does a client that is
    about to be closed.
    """

    # Whether a task has begun only its worker knows.
    cancels_pending_only: bool = False

    def submit(
        self, executor: cf.Executor, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> cf.Future[Any]:
        """Hand the call over."""
        pool = cast(Any, executor)
        client = pool._client
        if pool._shutdown:
            raise RuntimeError("cannot schedule new futures after shutdown")
        theirs = client.submit(partial(fn, **kwargs) if kwargs else fn, *args, **pool._kwargs)
        pool._futures.add(theirs)
        inner: cf.Future[Any] = cf.Future()
        inner.add_done_callback(partial(_take_back, client.loop, theirs))
        client.loop.add_callback(_bring, theirs, inner)
        if client.status in ("closing", "closed"):
            raise RuntimeError("cannot schedule new futures after the client was closed")
        return inner

    def close(self, executor: cf.Executor, wait: bool) -> None:
        """Shut it down; its own way waits for ever if the client is closed, and all is home."""
        if cast(Any, executor)._client.status in ("closing", "closed"):
            cast(Any, executor)._shutdown = True
        else:
            executor.shutdown(wait=wait)

    def broken(self, executor: cf.Executor) -> bool:
        """It never is."""
        return False


def _take_back(loop: Any, theirs: Any, inner: cf.Future[Any]) -> None:
    # Whoever cancels need not wait for dask's loop, or may be in it.
    if inner.cancelled() and theirs.status != "cancelled":
        loop.add_callback(_cancel, theirs)


async def _cancel(theirs: Any) -> None:
    with contextlib.suppress(Exception):  # the client is closed
        await theirs.cancel()


async def _bring(theirs: Any, inner: cf.Future[Any]) -> None:
    try:
        result = await theirs._result(raiseit=False)
        if theirs.status == "cancelled":
            inner.cancel()
            inner.set_running_or_notify_cancel()
        elif theirs.status == "finished":
            if inner.set_running_or_notify_cancel():
                inner.set_result(result)
        else:
            _, error, frames = result
            if inner.set_running_or_notify_cancel():
                inner.set_exception(error.with_traceback(frames))
    except cf.InvalidStateError:
        pass
    except BaseException as error:
        if not inner.cancelled():
            inner.set_exception(error)


def _start_feeder(calls: Any) -> None:
    """Start the thread that writes to a multiprocessing.Queue, if it is to be now."""
    if _START_NOW:
        with calls._notempty:
            if calls._thread is None:
                calls._start_thread()


class SealedEnvelope(Envelope):
    """For worker processes of this machine, which have what we have. `dumps` pickles."""

    read_ahead: int = 1

    def __init__(self, dumps: Callable[[Any], Any]) -> None:
        self._dumps = dumps

    def submit(
        self, executor: cf.Executor, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> cf.Future[Any]:
        """Hand the call over, sealed; raises what pickling raises."""
        return self._send(executor, bytes(self._dumps((fn, args, kwargs))))

    def _send(self, executor: cf.Executor, data: bytes) -> cf.Future[Any]:
        return executor.submit(run_sealed, data)

    def open(self, result: Any) -> Any:
        """The result that came back; raises what unpickling raises."""
        if type(result) is Sealed:
            return pickle.loads(result.data)
        if type(result) is SealedFailure:
            raise result.open()
        return result


class LokyEnvelope(SealedEnvelope):
    """For loky's pool, which clears up by itself.

    It registers its exit hook only with its first call, so later than `_executor.shutdown` does, and the last
    to be registered runs first: it would wait for what never ends. So it is registered here.
    """

    def __init__(self, dumps: Callable[[Any], Any], module: Any) -> None:
        super().__init__(dumps)
        register = getattr(threading, "_register_atexit", None)
        if register is not None and module.process_pool_executor_at_exit is None:
            register(module._python_exit)
            module.process_pool_executor_at_exit = True

    def prepare(self, executor: cf.Executor) -> None:
        """Start its threads while that can be done."""
        pool = cast(Any, executor)
        if _START_NOW and not (pool._flags.shutdown or pool._flags.broken):
            pool._ensure_executor_running()
            _start_feeder(pool._call_queue)

    def kill(self, executor: cf.Executor) -> None:
        """End the worker processes, too."""
        pool = cast(Any, executor)
        pool.shutdown(wait=False, kill_workers=True)


class StandardEnvelope(SealedEnvelope):
    """For the standard library's pool."""

    # Before 3.12 a pool that breaks while it lists a cancelled call fails to fail the others.
    cancels: bool = sys.version_info >= (3, 12)

    def __init__(self, executor: cf.Executor, dumps: Callable[[Any], Any]) -> None:
        super().__init__(dumps)
        # A shutdown lets go of it; it is the manager's too, and lists whatever is started later.
        found: dict[Any, Any] | None = getattr(executor, "_processes", None)
        self._processes: dict[Any, Any] = {} if found is None else found

        path, pool = script(), cast(Any, executor)
        context = getattr(executor, "_mp_context", None)
        if path is not None and context is not None and context.get_start_method() != "fork":
            pool._initializer = Initializer(Script(path), pool._initializer)

    def prepare(self, executor: cf.Executor) -> None:
        """Fork the processes where the executor itself would, and start its threads.

        A fork in the dispatcher would copy locks that this thread may hold just then.
        """
        pool = cast(Any, executor)
        lock = getattr(pool, "_shutdown_lock", None)
        # Do not wait for it: this may be a signal handler, in the middle of another submit.
        if lock is None or _START in _overridden(type(executor)) or not lock.acquire(False):
            return
        try:
            if not (pool._broken or pool._shutdown_thread or pool._executor_manager_thread):
                pool._start_executor_manager_thread()
                _start_feeder(pool._call_queue)
        finally:
            lock.release()

    def _send(self, executor: cf.Executor, data: bytes) -> cf.Future[Any]:
        try:
            return super()._send(executor, data)
        except Exception as error:
            broken = cast(Any, executor)._broken
            if getattr(executor, "_force_shutting_down", False):
                broken = "its workers were killed or terminated"
            if broken and not isinstance(error, cf.BrokenExecutor):
                # It broke in the middle of this, and stumbled over its own closed pipes; or it has
                # been told to, by kill_workers or terminate_workers, and has not yet found it has.
                from concurrent.futures.process import BrokenProcessPool

                raise BrokenProcessPool(broken) from error
            raise

    def end_broken(self, executor: cf.Executor) -> None:
        """End what is left of the worker processes, and wait for no thread that feeds them."""
        calls = cast(Any, executor)._call_queue
        if calls is not None:
            calls.cancel_join_thread()
            if sys.version_info < (3, 11, 5):  # later ones close it themselves
                calls._reader.close()
        for process in list(self._processes.values()):
            process.kill()

    def kill(self, executor: cf.Executor) -> None:
        """End the worker processes: nothing else stops a task there, nor lets Python exit."""
        super().kill(executor)
        self.end_broken(executor)

    def close(self, executor: cf.Executor, wait: bool) -> None:
        """Shut it down; no longer than the manager thread of a pool that is whole takes."""
        pool = cast(Any, executor)
        manager = pool._executor_manager_thread
        if "shutdown" in _overridden(type(executor)) or manager is None:
            super().close(executor, wait and not pool._broken)
            return
        if pool._broken:
            self.end_broken(executor)
        executor.shutdown(wait=False)
        patience = _PATIENCE
        while wait and manager.is_alive() and patience > 0:
            _sync.join(manager, _LOOK)
            if pool._broken:
                self.end_broken(executor)
                patience -= _LOOK


def _overridden(kind: type[Any]) -> set[str]:
    """What classes derived from the standard one define."""
    names: set[str] = set()
    for base in kind.__mro__[: kind.__mro__.index(cf.ProcessPoolExecutor)]:
        names.update(vars(base))
    return names


_sync.import_now(__name__)
