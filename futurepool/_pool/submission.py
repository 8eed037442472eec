"""How a task gets in, in any way: by options, through somebody's patch, from inside of a section.

The plain case of it is unrolled in `futurepool._pool.fast`.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from concurrent.futures.thread import ThreadPoolExecutor
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, cast

from futurepool import _sync
from futurepool._errors.checks import check_callable
from futurepool._foreign import patched
from futurepool._future import NOTIFIED, PENDING, Future, Subscribers, name_of, new_future
from futurepool._options import OnFull, Options
from futurepool._pool import overload
from futurepool._pool.overdue import TimedCall

if TYPE_CHECKING:
    from futurepool._pool.pool import Pool

__all__ = ["join_in", "make_future", "readmit", "submit", "submit_future", "submit_many"]

AnyFuture = Future[Any]


def make_future(pool: Pool, options: Options, fn: Any, args: tuple[Any, ...]) -> AnyFuture:
    """A future that is not yet queued. Unrolled in `Submitting.submit` and `fast.submit_many`."""
    future = new_future()
    future._pool = pool
    future._fn = fn
    future._args = args
    future._kwargs = None
    context = copy_context()
    future._context = pool.adopt(context) if context else None
    future._state = PENDING
    future._subscribers = None
    future.task_id = 0
    future.priority = options.priority
    return future


def submit(
    pool: Pool,
    options: Options,
    fn: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    subscribers: Subscribers | None = None,
    ours: bool = True,
) -> AnyFuture:
    """Admit one task, or do with it what `options.on_full` says. Unrolled in `Submitting.submit`.

    With `ours` the future is, even if somebody has taken the call out of our hands.
    """
    check_callable("fn", fn)
    if patched.theirs or ThreadPoolExecutor.submit is not patched.original:
        found = _submit_through(pool, options, fn, args, kwargs, subscribers, ours)
        if found is not None:
            return found
    return _submit_plain(pool, options, fn, args, kwargs, subscribers)


def submit_many(
    pool: Pool, options: Options, fn: Any, calls: Sequence[tuple[Any, ...]]
) -> list[AnyFuture]:
    """Admit one task for each tuple of arguments. Unrolled in `fast.submit_many`."""
    futures: list[AnyFuture] = []
    try:
        for args in calls:
            futures.append(submit(pool, options, fn, args, {}))  # noqa: PERF401 - see below
    except BaseException:
        pool.repair(*futures)
        raise
    return futures


def _submit_plain(
    pool: Pool,
    options: Options,
    fn: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    subscribers: Subscribers | None,
    name: str | None = None,
) -> AnyFuture:
    future = make_future(pool, options, fn, args)
    future._kwargs = kwargs or None
    if name is not None:
        future._name = name
    future._subscribers = subscribers
    return submit_future(pool, options, future)


def _submit_through(
    pool: Pool,
    options: Options,
    fn: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    subscribers: Subscribers | None,
    ours: bool,
) -> AnyFuture | None:
    """Submit what somebody's `ThreadPoolExecutor.submit` makes of it, see futurepool._foreign.patched.

    None if that is not to be asked. A pool that is closed refuses by itself, in its own words;
    what goes to another executor goes as it is; and inside of a section nothing foreign runs.
    """
    executor = None if pool.collected is None else pool.collected()
    if (
        not patched.look()
        or executor is None
        or pool.state
        or pool.engine.apart
        or pool.mutex._is_owned()
    ):
        return None
    passed = patched.through(executor, fn, args, kwargs)
    if passed is None:
        return None
    answer, items = passed
    found: AnyFuture | None = None
    name = name_of(fn)
    for item in items:
        future = _submit_plain(pool, options, *patched.call_of(item), subscribers, name)
        try:
            patched.join(item.future, future, item.future is not answer)
        except BaseException:
            future.cancel()
            raise
        if found is None or item.future is answer:
            found = future
    if found is None:
        # It has gone another way, or was done on the spot.
        if not ours:
            return cast("AnyFuture", answer)
        return _submit_plain(pool, options, answer.result, (), {}, subscribers, name)
    return found


def submit_future(pool: Pool, options: Options, future: AnyFuture) -> AnyFuture:
    """With any options, and also from inside one of our sections."""
    if options.name is not None:
        future._name = options.name
    if options.max_wait is not None:
        future._max_wait = options.max_wait
    if options.run_timeout is not None:
        future._name = future.name  # of what it stands for
        future._fn = TimedCall(future._fn, options.run_timeout, options.abandon)
    if options.limiter is not None:
        future._limit = options.limiter
        future._meters = options.limiter.meters
    future._queued_at = _sync.clock()
    token = options.token
    nested = pool.mutex._is_owned()
    try:
        if token is not None and not pool.state:
            future._token = token
            subscribers = future._own_subscribers()
            subscribers.token = token
            # mutant cancelled-token-refuses
            if not token._add_listener(future):
                subscribers.token = None
                if not nested:
                    with pool.mutex:
                        pool.given_up(future)
                    pool.run_deferred()
                future._state = NOTIFIED
                future._release_call()
                future._announce()
                return future
        if not nested:
            with pool.mutex:
                admitted = pool.try_admit(future)
            pool.start_reserved()
            pool.run_deferred()
            if admitted:
                return future
    except BaseException:
        pool.repair(future)
        raise
    if nested:
        return _submit_nested(pool, options, future)
    return overload.without_place(pool, options, future)


def readmit(
    pool: Pool, options: Options, fn: Any, subscribers: Subscribers, context: Context
) -> AnyFuture:
    """Queue one task more in the name of the one that runs here, and is about to end.

    It has the place of that one from then on; until then there is one task more than there may be. It stands
    in front of its priority, as the other was admitted before those that wait. Also in a pool that was
    closed meanwhile, as all this was accepted before. `context` is that of who has submitted the first.

    If the token is cancelled already, the future comes back cancelled.
    """
    future = _task_of(pool, options, fn, subscribers, context)
    try:
        if not _listed(future, options):
            return future
        with pool.mutex:
            if future._state is PENDING:
                future.task_id = pool.capacity.take()
                levels, priority = pool.queue.levels, future.priority
                level = levels[priority] if priority in levels else None  # noqa: SIM401 - see `push`
                if (
                    level and pool.order != "adaptive"
                ):  # which goes by how long the one in front waits
                    level.appendleft(future)
                else:
                    pool.queue.push(future)
                pool.signal_work()
        pool.run_deferred()
    except BaseException:
        pool.repair(future)
        raise
    return future


def join_in(
    pool: Pool, options: Options, fn: Any, subscribers: Subscribers, context: Context
) -> AnyFuture | None:
    """Queue one task more beside others of the same work, if there is a place; None if there is none.

    That is no refusal, and nothing waits. Also in a pool that was closed meanwhile, as long as anything is
    unfinished there: so a worker will come. `context` and the token are as in `readmit`.
    """
    if pool.mutex._is_owned():
        return None  # a finalizer or signal handler in one of our sections
    future = _task_of(pool, options, fn, subscribers, context)
    admitted = False
    try:
        if not _listed(future, options):
            return future
        with pool.mutex:
            if future._state is not PENDING:
                admitted = True
                pool.given_up(future)
            elif pool.takes_more():
                admitted = True
                pool.admit(future)
        pool.start_reserved()
        pool.run_deferred()
    except BaseException:
        pool.repair(future)
        raise
    if admitted:
        return future
    if future._token is not None:
        future._token._discard_listener(future)
    return None


def _task_of(
    pool: Pool, options: Options, fn: Any, subscribers: Subscribers, context: Context
) -> AnyFuture:
    future = make_future(pool, options, fn, ())
    future._context = pool.adopt(context.copy()) if context else None
    future._name = options.name
    future._subscribers = subscribers
    future._queued_at = _sync.clock()
    return future


def _listed(future: AnyFuture, options: Options) -> bool:
    """Under its token, if it has one; False if that is cancelled: then so is the future."""
    token, subscribers = options.token, future._own_subscribers()
    if token is None:
        return True
    future._token = token
    subscribers.token = token
    if token._add_listener(future):
        return True
    subscribers.token = None
    future._state = NOTIFIED
    future._release_call()
    future._announce()
    return False


def _submit_nested(pool: Pool, options: Options, future: AnyFuture) -> AnyFuture:
    """A submit from a finalizer or signal handler inside one of our sections.

    It can neither wait nor count; the task is admitted when the section ends, over the bound
    if need be. Policies that refuse go by what they see.
    """
    if pool.state:
        raise pool.closed_error()
    if options.on_full in (OnFull.RAISE, OnFull.SHED) and pool.capacity.full:
        raise pool.full_error(future)
    pool.deferred.append(functools.partial(_admit_late, pool, future, []))
    return future


def _admit_late(pool: Pool, future: AnyFuture, tried: list[bool]) -> None:
    """What `_submit_nested` has deferred: admit the task, over the bound if need be.

    Even if the pool was closed meanwhile: the submit has returned a future, which somebody waits for. Nor
    does a shutdown miss it: who closes a pool runs what is deferred before it waits for the tasks.

    `tried` is the same list in a second run, after the first was interrupted. There are three cases:

    1. no id: it did not come that far; admit it now;
    2. an id, and it is in the queue or set aside, or is PENDING no more: all is done;
    3. an id, PENDING, and in neither: interrupted in between. It loses its id, and is admitted now.
    """
    with pool.mutex:
        if tried and future.task_id and future._state is PENDING:
            queue = pool.queue
            there = itertools.chain(queue.tasks(), queue.token_cancelled, queue.shed)
            if not any(task is future for task in there):
                future.task_id = 0  # interrupted after it had got its id
        tried.append(True)
        if not future.task_id and not pool.try_admit(future):
            if pool.capacity.full:
                pool.meters.overflows()
            pool.admit(future)
