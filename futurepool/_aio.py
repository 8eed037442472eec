"""asyncio: waiting for places and for results without blocking the loop.

**One wake-up for many completions.** Each loop has a mailbox. Workers append to it; the first one
also asks the loop, through `call_soon_threadsafe`, to empty it. Nothing is lost:

    a poster appends, then looks at the flag; if it is down, it raises it and wakes the loop
    the loop takes the flag down, then empties the box

A poster that finds the flag up has appended before the loop took it down, or after, and then the
flag it saw was up for a wake-up that is still to come. Two posters that both find it down wake the
loop twice, which is harmless. Appending, popping, and reading or writing the flag are single steps.

A coroutine waits for its place in `futurepool._pool.waiters`, and only for the end of its task here.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import sys
import weakref
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable
from concurrent import futures as cf
from types import FunctionType
from typing import Any, Protocol, cast

from futurepool import _sync
from futurepool._deadlines import timer
from futurepool._errors import SubmitTimeoutError, is_a
from futurepool._errors.failures import Failure
from futurepool._future import FINISHED, PENDING, Future, Subscribers, name_of
from futurepool._map.chunks import Chunk, single
from futurepool._options import Options
from futurepool._pool.fast import Submitting
from futurepool._pool.pool import Pool
from futurepool._pool.workers import Kind

AnyFuture = Future[Any]


class Awaited(Protocol):
    """What can be posted: a future of ours, or what stands for one."""

    #: The loop's own future, for its end. Set and read in the loop's thread only.
    _waiter: asyncio.Future[None]


class Mailbox(Subscribers):
    """What workers tell one loop: the subscribers of all its futures. See the head of this module."""

    __slots__ = ("box", "loop", "plain", "raised")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.shared = True
        # Weak, because the loop, or the table of mailboxes, holds this one.
        self.loop: weakref.ref[asyncio.AbstractEventLoop] = weakref.ref(loop)
        self.box: deque[Awaited] = deque()
        self.raised = False
        # The latest function that `run` has submitted, which need not be looked at again. In the loop's thread
        # only. Whatever becomes of its task is posted here, and then the function is let go of.
        self.plain: Any = None

    def post(self, future: Awaited) -> None:
        """Any thread: let whoever waits for `future` go on. Unrolled in `fast.next_task`."""
        self.box.append(future)
        if not self.raised:
            self.wake()

    def wake(self) -> None:
        """Have the loop look into the box, soon."""
        loop = self.loop()
        try:
            self.raised = True
            if loop is not None:
                loop.call_soon_threadsafe(self._empty)
                return
        except BaseException:
            # Interrupted, perhaps before the loop heard: whoever posts next, or this again, wakes it.
            self.raised = False
            if loop is not None and not loop.is_closed():
                raise
        self.raised = False
        self.plain = None
        self.box.clear()  # nobody waits

    def _empty(self) -> None:
        self.raised = False
        self.plain = None
        box = self.box
        future: Awaited | None = None
        try:
            while box:
                future = box.popleft()
                try:
                    waiter = future._waiter
                except AttributeError:
                    continue
                if not waiter.done():
                    waiter.set_result(None)
        except BaseException:  # a signal handler's, in the middle of this: the rest comes later
            if future is not None:
                box.appendleft(future)
            loop = self.loop()
            if loop is not None:
                loop.call_soon(self._empty)
            raise


_mailboxes: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Mailbox] = (
    weakref.WeakKeyDictionary()
)
_mailboxes_lock = _sync.Lock()


def mailbox(loop: asyncio.AbstractEventLoop) -> Mailbox:
    """The loop's mailbox: kept on the loop, or in a table if it takes no attributes."""
    box: Mailbox | None = getattr(loop, "_futurepool_mailbox", None)
    if box is None:
        with _mailboxes_lock:
            box = _mailboxes.setdefault(loop, Mailbox(loop))
        with contextlib.suppress(AttributeError):
            loop._futurepool_mailbox = box  # type: ignore[attr-defined]
    return box


def _in_trio(trio: Any) -> bool:
    try:
        trio.lowlevel.current_task()
    except Exception:  # RuntimeError; AttributeError from a version without it
        return False
    return True


_ASYNC = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


def check_plain(who: str, fn: Any) -> None:
    """TypeError if calling `fn` only makes a coroutine, or an asynchronous generator.

    Then nothing would have run in the pool. What looks like one by `inspect`, or has such a
    `__call__`, is one.
    """
    if type(fn) is FunctionType and not fn.__code__.co_flags & _ASYNC and not fn.__dict__:
        return  # most are
    inner = cast(Any, fn)
    while (kind := cast(Any, type(inner))) is functools.partial:
        inner = inner.func
    for each in (inner, getattr(kind, "__call__", None)):  # noqa: B004 - its code is looked at
        if inspect.iscoroutinefunction(each) or inspect.isasyncgenfunction(each):
            what = "a coroutine function"
            if inspect.isasyncgenfunction(each):
                what = "an asynchronous generator function"
            raise TypeError(
                f"{who} runs plain functions in threads, and {name_of(fn)!r} is {what}, which does "
                "nothing there; use it in the event loop itself"
            )


def running_loop(who: str) -> asyncio.AbstractEventLoop:
    """The loop of this thread; a RuntimeError that says what to do where there is none."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        trio = sys.modules.get("trio")
        if trio is not None and _in_trio(trio):
            advice = "under trio, `await trio.to_thread.run_sync(pool.submit(...).result)` waits"
        else:
            advice = "elsewhere, `pool.submit(...).result()` waits"
        raise RuntimeError(f"{who} needs a running asyncio event loop; {advice}") from None


class LoopSubmitter:
    """What `Submitting.submit` needs to submit for coroutines of one loop."""

    __slots__ = ("_futurepool", "_futurepool_options", "box", "loop", "native")

    _futurepool_ours = True

    def __init__(self, pool: Pool, options: Options, box: Mailbox) -> None:
        self._futurepool = pool
        self._futurepool_options = options.waiting(box)
        self.box: Mailbox = box
        self.loop: weakref.ref[asyncio.AbstractEventLoop] = box.loop
        # Of asyncio's own kind: then some of its calls can be taken short.
        self.native: bool = isinstance(box.loop(), asyncio.BaseEventLoop)

    @property
    def waits(self) -> bool:
        """Whether a task without a place waits for one."""
        return self._futurepool_options.waits


def loop_submitter(pool: Pool, options: Options, loop: asyncio.AbstractEventLoop) -> LoopSubmitter:
    """The one for this loop; the options keep the latest."""
    found: LoopSubmitter | None = options.loop_submitter
    if found is None or found.loop() is not loop:
        options.loop_submitter = found = LoopSubmitter(pool, options, mailbox(loop))
    return found


_submit: Any = Submitting.submit
_Future: Any = asyncio.Future  # what `create_future` of asyncio's own loops makes


class PendingCall:
    """One task on its way through the pool, and the loop's future for its end."""

    __slots__ = ("__weakref__", "future", "late", "options", "pool", "waiter")

    def __init__(
        self, pool: Pool, options: Options, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        loop = running_loop("arun()")
        self.pool: Pool = pool
        self.options: Options = options
        self.late: bool = False  # gave up waiting for its place
        way = loop_submitter(pool, options, loop)
        self.future: AnyFuture = _submit(way, fn, *args, **kwargs)
        self.waiter: asyncio.Future[None] = loop.create_future()
        self.future._waiter = self.waiter
        _lend_a_hand(pool, self.future)
        if options.timeout is not None and way.waits and not self.future.task_id:
            # Not by the loop's clock: a test may have stopped that.
            timer.schedule(_sync.clock() + options.timeout, self)

    def _expire(self) -> None:
        """In the timer's thread: it has waited long enough for its place."""
        self.late = True  # before the loop hears of it
        if not self.pool.withdraw(self.future):
            self.late = False

    def _settled(self) -> bool:
        return self.future.task_id != 0 or self.future._state is not PENDING

    def cancel(self) -> None:
        """Nobody waits for the end any more."""
        self.future.cancel()

    def has_failed(self, keep_going: bool) -> bool:
        """Whether the task has raised; to `keep_going`, what ends it even then."""
        future = self.future
        if future._state is not FINISHED or type(future._result) is not Failure:
            return False
        return not (keep_going and is_a(future._result.cause, Exception))

    async def end(self, keep_going: bool = False) -> Any:
        """Wait for the result; cancelling this cancels the task, or tells it.

        To `keep_going` an Exception that it has raised is returned, and so is its cancellation: that
        as one of `concurrent.futures`, since asyncio's is no Exception.
        """
        future = self.future
        try:
            await self.waiter
        except BaseException:  # cancelled, or closed
            future.cancel()
            raise
        if future._state is FINISHED:
            try:
                if keep_going and not self.has_failed(keep_going):
                    error = future.exception()
                    return future.result() if error is None else error
                return future.result()
            finally:
                error = None
                del self, future  # a failure's traceback holds this frame
        if self.late and not future.task_id:
            raise self.pool.full_error(future, self.options.timeout or 0.0, SubmitTimeoutError)
        if self.pool.state and not future.task_id:
            raise self.pool.closed_error()
        text = future._cancelled_text()
        if keep_going:
            return cf.CancelledError(text)
        raise asyncio.CancelledError(text)


def _lend_a_hand(pool: Pool, future: AnyFuture) -> None:
    """In a loop that a task of this very pool runs: perhaps nobody else will come for `future`.

    Not in this thread, which has a running loop: the task may want one of its own. In the thread that
    serves another engine it is this thread that has to go on serving.
    """
    slot = _sync.here.slot
    if slot is not None and slot.pool is pool:
        if slot.kind == Kind.ENGINE:
            pool.engine.run_aside(future)
        else:
            pool.want(future)


async def run(
    keep: object,  # noqa: ARG001 - held, or a dropped executor would be closed
    pool: Pool,
    options: Options,
    fn: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """See `BoundedExecutor.arun`. A PendingCall in line, as this is the hot path of coroutines."""
    if options.timeout is not None:
        check_plain("arun()", fn)
        return await PendingCall(pool, options, fn, args, kwargs).end()
    way: LoopSubmitter | None = options.loop_submitter
    loop: Any = None if way is None else way.loop()
    # Up to Python 3.11 `get_running_loop` asks the system for the process's number.
    if way is None or loop is None or not way.native or loop._thread_id != _sync.get_ident():
        check_plain("arun()", fn)
        loop = running_loop("arun()")
        way = loop_submitter(pool, options, loop)
    elif fn is not way.box.plain:
        check_plain("arun()", fn)
    future: AnyFuture
    if args or kwargs:  # noqa: SIM108 - a call with stars takes twice as long
        future = _submit(way, fn, *args, **kwargs)
    else:
        future = _submit(way, fn)
    way.box.plain = fn
    # Before the loop comes to look into its mailbox, which it does in this very thread.
    future._waiter = waiter = _Future(loop=loop) if way.native else loop.create_future()
    if _sync.here.slot is not None:
        _lend_a_hand(pool, future)
    try:
        await waiter
    except BaseException:  # cancelled, or closed
        future.cancel()
        raise
    if future._state is FINISHED:
        result = future._result
        if type(result) is not Failure:
            return result
        try:
            return future.result()
        finally:
            del future, result  # a failure's traceback holds this frame
    if pool.state and not future.task_id:
        raise pool.closed_error()
    raise asyncio.CancelledError(future._cancelled_text())


class _Source:
    """The items of `amap`, plain or async. An async one may take its time: it is asked in a task."""

    def __init__(self, items: Any) -> None:
        self._plain: Any = None
        self._items: Any = None
        if isinstance(items, AsyncIterable):
            self._items = items.__aiter__()
        else:
            self._plain = iter(items)
        self.more: bool = True
        self.asking: asyncio.Future[Any] | None = None

    def ask(self) -> bool:
        """True if the next item, or the end, is there."""
        if self._plain is not None:
            return True
        if self.asking is None:
            self.asking = asyncio.ensure_future(_next(self._items))
        return self.asking.done()

    def take(self) -> tuple[Any, ...]:
        """The next item, alone in a tuple; an empty one at the end."""
        if self._plain is not None:
            for item in self._plain:
                return (item,)
            found: tuple[Any, ...] = ()
        else:
            asking, self.asking = self.asking, None
            found = () if asking is None else asking.result()
        self.more = bool(found)
        return found

    async def close(self) -> None:
        asking, self.asking = self.asking, None
        if asking is not None:
            asking.cancel()
            await asyncio.wait([asking])
            if not asking.cancelled():
                asking.exception()


async def _next(items: Any) -> tuple[Any, ...]:
    try:
        return (await items.__anext__(),)
    except StopAsyncIteration:
        return ()


async def amap(  # noqa: C901 - one loop over what is under way
    pool: Pool,
    keep: object,
    options: Options,
    fn: Any,
    items: Any,
    buffersize: int | None,
    ordered: bool,
    keep_going: bool,
) -> AsyncIterator[Any]:
    """See `BoundedExecutor.amap`. `keep` is kept alive while this is; `keep_going` is `return_exceptions`."""
    width = buffersize or 2 * pool.workers.size
    flying: dict[asyncio.Future[None], PendingCall] = {}  # in order of submission
    # In a group, what a call raises must not be a failure of its task, which would end the group.
    apart = keep_going and options.token is not None and options.token._gathers
    apart = apart and pool.engine.takes_chunks(fn)
    if apart and options.name is None:
        options = options.changed(name=name_of(fn))
    source = _Source(items)
    try:
        while True:
            while source.more and len(flying) < width and source.ask():
                item = source.take()
                if item:
                    if apart:
                        call = Chunk(fn, [item], False, True, True)
                        pending = PendingCall(pool, options, call, (), {})
                        del call
                    else:
                        pending = PendingCall(pool, options, fn, item, {})
                    flying[pending.waiter] = pending
                    del pending
                del item
            if ordered:
                due = next(iter(flying), None)
                if due is not None and not due.done():
                    due = None
            else:
                due = next((waiter for waiter in flying if waiter.done()), None)
            if due is None:
                awaited: set[asyncio.Future[Any]] = set(flying)
                if ordered and flying:
                    awaited = {next(iter(flying))}
                if source.asking is not None:
                    awaited.add(source.asking)
                if not awaited:
                    return
                await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
                del awaited
                continue
            ending = flying.pop(due)
            if ending.has_failed(keep_going):
                # The one that is raised tells of it, and the log need not tell of the others.
                for pending in flying.values():
                    pending.cancel()
                    pending.future._hush()
                    del pending
            awaiting = ending.end(keep_going)
            task = (ending.future.task_id, ending.future.name) if apart else None
            del ending  # the traceback holds this frame
            result = await awaiting
            del awaiting
            if task is not None:
                result = single(result, *task)
            yield result
            del result
    finally:
        while flying:
            flying.popitem()[1].cancel()
        await source.close()
        del keep


class _DoneHandle:
    """Stands among a future's subscribers for a coroutine that waits for it: a parker, to be released."""

    __slots__ = ("_box", "_waiter")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._box = mailbox(loop)
        self._waiter: asyncio.Future[None] = loop.create_future()

    def release(self) -> None:
        """Any thread: it is done."""
        self._box.post(self)


async def wait(future: AnyFuture, cancels: bool = True) -> None:
    """Until `future` is done. Cancelling this cancels it, too, if it `cancels`."""
    handle = _DoneHandle(running_loop("await of a future"))
    pool: Any = future._pool
    slot = _sync.here.slot
    if slot is not None and future.task_id:
        _lend_a_hand(pool, future)
    try:
        if future._subscribe(lambda subscribers: subscribers.add_parker(handle)):
            await handle._waiter
    except BaseException:
        if cancels:
            future.cancel()
        raise


class ThreadCall:
    """A call in a thread of its own."""

    def __init__(self, call: Callable[[], object], loop: asyncio.AbstractEventLoop) -> None:
        self._call = call
        self._box = mailbox(loop)
        self._waiter: asyncio.Future[None] = loop.create_future()
        self._error: BaseException | None = None

    def run(self) -> None:
        """The thread's body."""
        try:
            self._call()
        except BaseException as error:
            self._error = error
        finally:
            self._box.post(self)

    async def wait(self, timeout: float | None = None) -> None:
        """Wait for its end, or for `timeout` seconds. It goes on if this is cancelled."""
        await asyncio.wait([self._waiter], timeout=timeout)

    async def end(self, timeout: float | None = None) -> None:
        """The same, and raise what it has raised, if it is over."""
        await self.wait(timeout)
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback holds this frame


def send(word: str, call: Callable[[], object]) -> ThreadCall:
    """Have `call` called in a thread of its own; `word` is what needs a loop for that."""
    thread_call = ThreadCall(call, running_loop(word))
    _sync.start(_sync.new_thread(thread_call.run, name="futurepool-shutdown"))
    return thread_call


_sync.import_now(__name__)
