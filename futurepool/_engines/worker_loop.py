"""Running tasks: the loop of a worker thread, and one task on the spot.

A worker repeats one step: `Pool.next_task` commits what it has run and claims the next task; the loop
runs that in its context. Nothing a task raises ends the loop. An asynchronous exception
(`PyThreadState_SetAsyncExc`) can come outside a task as well; where it did is read off the
slot, which always tells the truth:

    no task noted             nothing was claimed, or all is committed    -> come again
    noted, PENDING            the claim had not happened                  -> un-note, come again
    noted, RUNNING            it was about to run, or had run uncommitted -> it fails with the error
    noted, FINISHED           committed, not yet told                     -> tell, come again

A sleeping worker holds no task and no result.
"""

from __future__ import annotations

import functools
import threading
from concurrent.futures.thread import ThreadPoolExecutor
from contextvars import Context
from types import FunctionType
from typing import Any

from futurepool import _sync
from futurepool._cancellation import CancelToken
from futurepool._engines import PoolPort
from futurepool._errors import is_a
from futurepool._foreign import patched
from futurepool._foreign.contexts import complete, fresh
from futurepool._future import FINISHED, RUNNING, Future, is_context_run, name_of
from futurepool._pool import fast
from futurepool._pool.workers import PARKED, WorkerSlot

__all__ = ["current_token"]


def work(pool: PoolPort, slot: WorkerSlot) -> None:  # noqa: C901 - a call less for each step
    """The life of a worker whose `slot` is in `pool.workers.listed`; returns when it has left.

    1. Ask for a task; this commits the one before, whose result is in it already.
    2. Without one: sleep, leave, or ask again, as the slot says.
    3. Run it, in the context that it was submitted in, or in a spare one.
    4. Let go of all that is the task's: function, arguments, context.
    5. If it has failed, commit that now; what is told of it may take long.

    `run_one` is the same for one task, written plainly; `_work_in_rows` leaves the inner loop to C.
    """
    _sync.here.slot = slot
    if fast.row_of is not None and _sync.here.base is None:
        row = fast.row_of(pool, slot)
        if row is not None:
            _work_in_rows(pool, slot, row)
            return
    error: BaseException | None = None
    wrap = True
    task: Future[Any] | None = None
    next_task = pool.next_task
    base: Context | None = _sync.here.base
    spare = fresh(base)  # for tasks that were submitted without context variables
    known: Any = None  # the latest function, and what it is called: both are asked for often
    name = ""
    while True:
        try:
            if error is not None:  # an interruption's
                pool.complete(slot, None, error, wrap)
                error = None
            while True:
                # 1.
                task = next_task(slot)
                # 2.
                if task is None:
                    known = None  # a sleeping worker keeps no function of a user's alive
                    if slot.status == PARKED:
                        if pool.idle_timeout is None:
                            slot.parker.acquire()
                        else:
                            pool.sleep_idle(slot)
                        if ThreadPoolExecutor.submit is not patched.original:
                            patched.look()
                    if slot.leave:
                        return
                    continue
                # 3.
                fn = task._fn
                args = task._args
                context = task._context
                if context is None:
                    context = spare
                elif base is not None:
                    complete(context, base)
                if fn is not known:
                    known = None  # what was run before is not kept meanwhile
                try:
                    # A call with a star costs three times as much as one without.
                    # The result is safe there: nobody reads it before the state is FINISHED.
                    if task._kwargs is not None:
                        task._result = context.run(fn, *args, **task._kwargs)
                        task._kwargs = None
                    elif not args:
                        task._result = context.run(fn)
                    elif len(args) == 1:
                        task._result = context.run(fn, args[0])
                    else:
                        task._result = context.run(fn, *args)
                except BaseException as raised:
                    error = raised
                # 4. twin of Future._release_call. The name is kept, in the function's place; nearly always it
                # is that of the task before.
                if known is None:
                    known = fn
                    if type(fn) is FunctionType:
                        name = fn.__qualname__
                    else:
                        name = name_of(fn, args)
                        if args and is_context_run(fn):
                            known = None  # with other arguments it has another name
                task._fn = name
                if spare:
                    spare = fresh(base)  # nothing leaks from one task to the next
                fn = args = context = task._args = task._context = None
                # 5.
                if error is not None:
                    task._kwargs = None
                    pool.complete(slot, None, error)
                    error = None
        except BaseException as raised:
            # Also if it has left: what its last section left to be done may not be done yet.
            known = None
            spare = fresh(base)
            # If it came in the middle of `complete`, that is not to do the same again.
            wrap = error is None
            error = _after_interruption(pool, slot, task, raised)
            if slot.leave:
                return


def _work_in_rows(pool: PoolPort, slot: WorkerSlot, row: Any) -> None:
    """`work`, where tasks run one right after the other in C, see `_pool/_fast.c`.

    `row` returns when there is no task now, and now and then between two tasks, which lets the interpreter
    look at signals and who waits for its turn. It raises what a task has raised (`row.failed`), after step 4, or
    what has struck it; `row.task` is the task that it had before.
    """
    error: BaseException | None = None
    wrap = True
    while True:
        try:
            if error is not None:  # an interruption's
                pool.complete(slot, None, error, wrap)
                error = None
            while True:
                try:
                    row()
                except BaseException as raised:
                    if not row.failed:
                        raise
                    error = raised
                if error is not None:
                    pool.complete(slot, None, error)
                    error = None
                elif slot.status == PARKED:
                    if pool.idle_timeout is None:
                        slot.parker.acquire()
                    else:
                        pool.sleep_idle(slot)
                    if ThreadPoolExecutor.submit is not patched.original:
                        patched.look()
                if slot.leave:
                    return
        except BaseException as raised:  # noqa: PERF203 - as in `work`
            wrap = error is None
            error = _after_interruption(pool, slot, row.task, raised)
            row.forget()
            if slot.leave:
                return


def _after_interruption(
    pool: PoolPort, slot: WorkerSlot, last: Future[Any] | None, raised: BaseException
) -> BaseException | None:
    """Bring the slot to a state in which `next_task` can go on; the error it is to commit, if any."""
    pool.repair()
    task = slot.task
    error = None
    if task is not None:
        if task._state is RUNNING:
            error = raised
        else:
            with pool.mutex:
                slot.task = None
            last = task
    if last is not None and last._state is FINISHED:
        pool.tell_outcome(last)
    return error


def run_one(pool: PoolPort, future: Future[Any]) -> bool:
    """Run `future`, queued or not, in this thread, nested in what it runs already.

    False if it is not PENDING any more. Ctrl-C in the main thread is the caller's as well as the
    task's: the task fails with it, and it goes on.
    """
    outer = _sync.here.slot
    own = pool.own_slot()
    slot = WorkerSlot(pool, depth=1 if own is None else own.depth + 1)
    slot.beneath = own
    slot.ident = _sync.get_ident()
    error: BaseException | None = None
    interrupt: BaseException | None = None
    result: Any = None
    try:
        if not pool.claim(slot, future):
            return False
        _sync.here.slot = slot
        try:
            base: Context | None = _sync.here.base
            context: Context | None = future._context
            if context is None:
                context = fresh(base)
            elif base is not None:
                complete(context, base)
            result = context.run(future._fn, *future._args, **future._kwargs or {})
        except BaseException as raised:
            error = raised
        _sync.here.slot = outer
        future._release_call()
        pool.complete(slot, result, error)
        if error is not None:
            main = threading.current_thread() is threading.main_thread()
            interrupt = error if main and is_a(error, KeyboardInterrupt) else None
            error = None  # its traceback leads back to this frame
    except BaseException as raised:
        _sync.here.slot = outer
        # Should there be no stack left for what follows, the next section's end does it.
        pool.deferred.append(functools.partial(pool.complete_aside, slot, raised))
        pool.repair()
        if slot.task is future and future._state is RUNNING:
            pool.complete(slot, None, raised)
        elif future._state is FINISHED:
            pool.tell_outcome(future)
        error = None
        raise
    if interrupt is not None:
        try:
            raise interrupt
        finally:
            del interrupt, future
    del future  # a failure's traceback leads back to this frame
    return True


def current_token() -> CancelToken:
    """The token of the task that runs in this thread.

    It is cancelled by `Future.cancel()`, by the token the task was submitted under, when its `run_timeout` is
    over, and by a `stop()` that runs out of time. Outside any task it is a fresh token that nobody cancels, so
    code that looks at its token runs anywhere.
    """
    slot: WorkerSlot | None = _sync.here.slot
    if slot is None:
        return CancelToken()
    task = slot.task or slot.pool.task_in(slot)
    if task is None:
        return CancelToken()
    token: CancelToken = slot.pool.token_of(task)
    return token
