"""`map` and `map_unordered`: many calls of one function, results as an iterator.

The eager map admits many tasks to a section where the inputs are containers, whose items cost
nothing to produce; from other iterables it admits one task at a time, so that no task waits for
the production of the next item. A chunk is one task that makes several calls.

With `chunksize="auto"` workers draw the calls off one shared batch, see `batches`; behind an engine, and
where somebody has to see each task (a `submit` that was overridden or patched), chunks of a fixed size do,
see `chunks`. Such a `submit` sees each call, whatever `chunksize` says, but behind an engine.

With `return_exceptions` ("keep" here) an error is handed out as a result is. It is never raised on its
way, so it leads to no frame of ours or of the reader's: nothing keeps itself alive.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures as cf
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from futurepool import _sync
from futurepool._errors import is_a, is_among
from futurepool._errors.checks import (
    check_bool,
    check_buffersize,
    check_callable,
    check_chunksize,
    check_timeout,
)
from futurepool._errors.failures import Failure
from futurepool._foreign import patched
from futurepool._future import FINISHED, PENDING, Future, Subscribers, name_of
from futurepool._map.chunks import Chunk, error_of, failures
from futurepool._options import Options
from futurepool._pool.fast import SUBMITS
from futurepool._pool.pool import Pool

if TYPE_CHECKING:
    from futurepool._map.batches import Batch, Piece

T = TypeVar("T")

_CONTAINERS = (list, tuple, range, str, bytes, dict, set, frozenset, deque)
_BATCH = 256
#: Those that cannot fail while they are read.
_SAFE = (list, tuple, range, str, bytes, frozenset)


class _Inputs:
    """Inputs of `map_unordered` that may fail while they are read.

    They end there, and `end` raises the error when the results of all that was read before were handed out: none
    of those is lost.
    """

    __slots__ = ("_calls", "_error")

    def __init__(self, calls: Iterator[Any]) -> None:
        self._calls = calls
        self._error: Exception | None = None

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._error is None:
            try:
                return next(self._calls)
            except StopIteration:
                raise
            except Exception as error:
                frames = error.__traceback__
                # Without this frame, which leads to the error.
                self._error = error.with_traceback(frames and frames.tb_next)
                del frames
        raise StopIteration

    def end(self) -> None:
        """All results were handed out."""
        error, self._error = self._error, None
        try:
            if error is not None:
                raise error
        finally:
            del error


def _read_on(source: _Source | _Feed, iterables: tuple[Any, ...]) -> Callable[[], object]:
    """Let inputs that fail end there; what is returned is called when all results were handed out."""
    if all(type(iterable) in _SAFE for iterable in iterables):
        return int
    inputs = _Inputs(source.calls)
    source.calls = inputs
    return inputs.end


class _Source:
    """The calls of one map, as tasks: argument tuples, or chunks.

    `keep_going` is `return_exceptions`.
    """

    def __init__(
        self,
        pool: Pool,
        keep: Any,
        options: Options,
        fn: Any,
        iterables: tuple[Any, ...],
        chunksize: int,
        keep_going: bool,
    ) -> None:
        if chunksize > 1 and not pool.engine.takes_chunks(fn):
            chunksize = 1
        self._pool = pool
        #: The executor's `submit`, where a subclass, or someone else, has put their own.
        self.override: Callable[..., Future[Any]] | None = None
        if _overridden(keep):
            self.override = keep.submit
        # It may count the calls, look at `fn`, or return something else than that does, and so may what somebody
        # has put in the place of the standard class's: that shows it each call. Processes get their chunks
        # by way of `submit` there, too.
        if (self.override is not None or patched.look()) and not pool.engine.apart:
            chunksize = 1
        self._fn = fn
        self.chunksize: int = chunksize
        self.keep: bool = keep_going
        # In a group, what a call raises must not be a failure of its task, which would end the group.
        apart = keep_going and options.token is not None and options.token._gathers
        self._apart: bool = pool.engine.apart or apart  # see `Chunk`
        self.chunked: bool = chunksize > 1 or (apart and pool.engine.takes_chunks(fn))
        self._single = len(iterables) == 1
        self._ready = all(type(iterable) in _CONTAINERS for iterable in iterables)
        if self.chunked and options.name is None:
            options = options.changed(name=name_of(fn))
        self._options = options
        self.calls: Iterator[Any]
        if self.chunked and self._single:
            self.calls = iter(iterables[0])
        else:
            self.calls = zip(*iterables, strict=False)

    def submit(
        self, subscribers: Subscribers | None = None
    ) -> tuple[Future[Any], Chunk | None] | None:
        """Submit the next task; None at the end."""
        if not self.chunked:
            for args in self.calls:
                return self._send(self._fn, args, subscribers), None
            return None
        calls = list(islice(self.calls, self.chunksize))
        if not calls:
            return None
        chunk = Chunk(self._fn, calls, self._single, self.keep, self._apart)
        return self._send(chunk, (), subscribers), chunk

    def _send(self, fn: Any, args: tuple[Any, ...], subscribers: Subscribers | None) -> Future[Any]:
        if self.override is None:
            return self._pool.submit(self._options, fn, args, {}, subscribers)
        future = self.override(fn, *args)
        if subscribers is not None and subscribers.on_done is not None:
            future.add_done_callback(lambda _, on_done=subscribers.on_done: on_done())  # type: ignore[misc]
        return future

    def submit_all(self, done: list[Any]) -> None:
        """Submit all tasks, appending futures or (future, chunk) pairs to `done`."""
        if self.chunked:
            while (task := self.submit()) is not None:
                done.append(task)
        elif self._ready and self.override is None:
            while calls := list(islice(self.calls, _BATCH)):
                done += self._pool.submit_many(self._options, self._fn, calls)
        else:
            for args in self.calls:
                done.append(self._send(self._fn, args, None))


def _check(
    fn: object, timeout: object, chunksize: object, buffersize: object, return_exceptions: object
) -> tuple[float | None, int, int | None]:
    check_callable("fn", fn)
    check_bool("return_exceptions", return_exceptions)
    # A time that is over is one: then only results come that are there already.
    seconds = check_timeout("timeout", timeout, negative=True)
    size = AUTO if _is_auto(chunksize) else check_chunksize(chunksize)
    buffer = check_buffersize(buffersize)
    if buffer is None:
        return seconds, size, None
    return seconds, min(size, buffer), buffer


#: The chunksize "auto".
AUTO = 0


def _is_auto(chunksize: object) -> bool:
    return type(chunksize) is str and chunksize == "auto"


def _fixed(
    pool: Pool,
    keep: Any,
    options: Options,
    fn: Any,
    iterables: tuple[Any, ...],
    buffersize: int | None,
) -> int | None:
    """For "auto": how many calls are to travel together; None where workers draw them."""
    if _overridden(keep) or patched.look():
        return 1  # somebody wants to see each call
    if (
        options.max_wait is not None
        or options.limiter is not None
        or options.run_timeout is not None
        or pool.sheds
    ):
        return 1  # each has a time of its own, or is counted by itself
    if not pool.engine.apart:
        return None
    if not pool.engine.takes_chunks(fn):
        return 1
    # Four rounds for each worker: few enough to be cheap, many enough for the last to be short.
    rounds = 4 * pool.workers.size
    if buffersize is not None:
        return max(1, min(buffersize // rounds, _BATCH))
    try:
        number = min([len(each) for each in iterables])
    except (TypeError, ValueError):  # of unknown length, or there are none
        return 1
    return max(1, min(number // rounds, _BATCH))


def _overridden(keep: Any) -> bool:
    """Whether a subclass, or somebody else, has put a `submit` of their own."""
    return not is_among(cast(Any, type(keep)).submit, SUBMITS) or "submit" in vars(keep)


def map_ordered(
    pool: Pool,
    keep: object,
    options: Options,
    fn: Callable[..., T],
    iterables: tuple[Iterable[Any], ...],
    timeout: float | None,
    chunksize: int | Literal["auto"],
    buffersize: int | None,
    return_exceptions: bool,
) -> Iterator[T]:
    """See `BoundedExecutor.map`. `keep` is kept alive while a lazy iterator is."""
    timeout, size, buffersize = _check(fn, timeout, chunksize, buffersize, return_exceptions)
    end = None if timeout is None else _sync.clock() + timeout
    if size == AUTO:
        fixed = _fixed(pool, keep, options, fn, iterables, buffersize)
        if fixed is None:
            feed = _Feed(pool, options, fn, iterables, buffersize, return_exceptions)
            try:
                feed.fill()
            except BaseException:
                feed.batch.cancel()
                raise
            return _drawn(feed, keep if buffersize is not None else None, end)
        size = fixed
    source = _Source(pool, keep, options, fn, iterables, size, return_exceptions)
    if buffersize is not None:
        lazy = _Window(source, buffersize)
        try:
            lazy.fill()
        except BaseException:
            lazy.cancel()
            raise
        return _lazy(lazy, keep, end)
    tasks: list[Any] = []
    try:
        source.submit_all(tasks)
    except BaseException:
        for task in tasks:
            _future_of(task).cancel()
        raise
    tasks.reverse()
    if source.chunked:
        return _chunked(tasks, end, return_exceptions)
    ours = source.override is None
    if return_exceptions:
        return _single(tasks, end, _move_outcome if ours else _take_outcome)
    return _single(tasks, end, _move if ours else _take)


def _future_of(task: Any) -> Future[Any]:
    return cast("Future[Any]", task[0] if type(task) is tuple else task)


def _take(future: Future[Any], end: float | None, rest: Iterable[Any]) -> Any:
    """The result of a future, ours or not; one that is given up is cancelled.

    Once somebody has seen that a call of the map has failed, the log need not tell of the `rest`.
    """
    try:
        try:
            if end is None:
                return future.result()
            return future.result(end - _sync.clock())
        except BaseException:
            if future.done() and not future.cancelled():
                for task in list(rest):
                    _hush(_future_of(task))
            raise
        finally:
            future.cancel()
    finally:
        del future, rest  # the traceback holds this frame


def _hush(future: Future[Any]) -> None:
    if not future.cancel() and isinstance(cast(object, future), Future):
        future._hush()


def _move(future: Future[Any], end: float | None, rest: Iterable[Any]) -> Any:
    """`_take`, out of a future of ours: its worker may hold on to that a little longer."""
    try:
        if future._state is FINISHED and type(future._result) is not Failure:
            result = future._result  # Future.result, in line
        else:
            result = _take(future, end, rest)
        future._result = None
        return result
    finally:
        del future


def _take_outcome(future: Future[Any], end: float | None, rest: Iterable[Any]) -> Any:
    """`_take`, but an Exception that the call has raised is returned as a result is."""
    error: BaseException | None = None
    try:
        error = _error_of(future, end)
        if error is None or not is_a(error, Exception):
            return _take(future, None, rest)
        return error
    finally:
        del future, rest, error


def _error_of(future: Future[Any], end: float | None) -> BaseException | None:
    """Wait for its error, if it has one; a future that is given up is cancelled."""
    try:
        return error_of(future, None if end is None else end - _sync.clock())
    except BaseException:
        future.cancel()
        raise
    finally:
        del future


def _move_outcome(future: Future[Any], end: float | None, rest: Iterable[Any]) -> Any:
    """`_take_outcome`, out of a future of ours."""
    try:
        if future._state is FINISHED and type(future._result) is not Failure:
            outcome = future._result
        else:
            outcome = _take_outcome(future, end, rest)
        future._result = None
        return outcome
    finally:
        del future, rest


def _single(
    tasks: list[Future[Any]],
    end: float | None,
    take: Callable[[Future[Any], float | None, Iterable[Any]], Any],
) -> Iterator[Any]:
    try:
        while tasks:
            yield take(tasks.pop(), end, tasks)
    finally:
        for future in tasks:
            future.cancel()


def _chunked(
    tasks: list[tuple[Future[Any], Chunk]], end: float | None, keep_going: bool
) -> Iterator[Any]:
    try:
        while tasks:
            results, failed = _unpack(*tasks.pop(), end, tasks, keep_going)
            results.reverse()
            while results:  # holding on to none
                yield results.pop()
            if failed:
                _take(failed.pop(), None, tasks)
    finally:
        for future, _ in tasks:
            future.cancel()


def _unpack(
    future: Future[Any],
    chunk: Chunk | None,
    end: float | None,
    rest: Iterable[Any],
    keep_going: bool,
) -> tuple[list[Any], list[Future[Any]]]:
    """The results of one task; of a chunk that failed those before the failure, and its future.

    Who has delivered them raises the failure by `_take`, and lets go of the future by that. No frame
    in the error's traceback may hold the error, or what holds it: they would keep each other alive.
    """
    try:
        if keep_going:
            return _unpack_outcomes(future, chunk, end, rest)
        if chunk is not None and _has_failed(future, end):
            return chunk.results, [future]
        result = _take(future, end, rest)
        return result if chunk is not None else [result], []
    finally:
        del future


def _unpack_outcomes(
    future: Future[Any], chunk: Chunk | None, end: float | None, rest: Iterable[Any]
) -> tuple[list[Any], list[Future[Any]]]:
    """`_unpack`, with errors among the results: one for each call, whatever became of the task."""
    error: BaseException | None = None
    try:
        if chunk is None:
            return [_take_outcome(future, end, rest)], []
        error = _error_of(future, end)
        results = future.result() if error is None else chunk.results
        # One of a submit that was overridden may not know.
        failures(results, getattr(future, "task_id", 0), getattr(future, "name", "unknown"))
        if error is None:
            return results, []
        if not is_a(error, Exception):
            return results, [future]
        # The task was cancelled, or has lost its thread, or its process; else there is one for each.
        results += [error] * (chunk.size - len(results))
        return results, []
    finally:
        del future, chunk, rest, error


def _has_failed(future: Future[Any], end: float | None) -> bool:
    """Wait for it, and say whether it raised; one that is given up is cancelled."""
    try:
        left = None if end is None else end - _sync.clock()
        return future.exception(left) is not None
    except BaseException:
        future.cancel()
        raise
    finally:
        del future


class _Window:
    """What a lazy map has submitted, and how many of its results are unread."""

    def __init__(self, source: _Source, size: int) -> None:
        self._source = source
        self._size = size
        self._more = True
        self.keep: bool = source.keep
        self.unread = 0  # of what was drawn
        self.tasks: deque[tuple[Future[Any], Chunk | None]] = deque()

    def fill(self) -> None:
        """Submit as long as there is room for all the results of one more task."""
        while self._more and self.unread + self._source.chunksize <= self._size:
            task = self._source.submit()
            if task is None:
                self._more = False
            else:
                self.unread += self._source.chunksize
                self.tasks.append(task)

    def cancel(self) -> None:
        """Give up what has not started."""
        for future, _ in self.tasks:
            future.cancel()


def _lazy(window: _Window, keep: object, end: float | None) -> Iterator[Any]:
    try:
        while window.tasks:
            results, failed = _unpack(*window.tasks.popleft(), end, window.tasks, window.keep)
            results.reverse()
            while results:
                # The next one goes in before this is read, so that the workers stay busy.
                window.unread -= 1
                window.fill()
                yield results.pop()
            if failed:
                _take(failed.pop(), None, window.tasks)
    finally:
        window.cancel()
        del keep


def map_unordered(
    pool: Pool,
    keep: object,
    options: Options,
    fn: Callable[..., T],
    iterables: tuple[Iterable[Any], ...],
    timeout: float | None,
    chunksize: int | Literal["auto"],
    buffersize: int | None,
    return_exceptions: bool,
) -> Iterator[T]:
    """See `BoundedExecutor.map_unordered`."""
    timeout, size, buffersize = _check(fn, timeout, chunksize, buffersize, return_exceptions)
    end = None if timeout is None else _sync.clock() + timeout
    if size == AUTO:
        fixed = _fixed(pool, keep, options, fn, iterables, buffersize)
        if fixed is None:
            feed = _Feed(pool, options, fn, iterables, buffersize, return_exceptions)
            return _drawn_unordered(feed, _read_on(feed, iterables), keep, end)
        size = fixed
    source = _Source(pool, keep, options, fn, iterables, size, return_exceptions)
    size = source.chunksize
    width = 2 * pool.workers.size if buffersize is None else max(1, buffersize // size)
    return _unordered(pool, keep, source, _read_on(source, iterables), width, end)


def _unordered(
    pool: Pool,
    keep: object,
    source: _Source,
    at_end: Callable[[], object],
    width: int,
    end: float | None,
) -> Iterator[Any]:
    _sync.refresh()
    finished: _sync.SimpleQueue[int] = _sync.SimpleQueue()
    flying: dict[int, tuple[Future[Any], Chunk | None]] = {}  # by number
    numbers = itertools.count()
    more = True
    try:
        while more or flying:
            while more and len(flying) < width:
                number = next(numbers)
                # One C call tells us: a done-callback could be interrupted, and is not called again.
                task = source.submit(Subscribers(partial(finished.put, number)))
                if task is None:
                    more = False
                else:
                    flying[number] = task
                del task
            if not flying:
                break
            try:
                left = None if end is None else max(0.0, end - _sync.clock())
                if finished.empty():
                    _help_one(pool, flying, left, False)
                look = partial(_help_one, pool, flying, left, True)
                number = _sync.get_at(finished, left, look)
            except _sync.Empty:
                raise cf.TimeoutError from None
            done = flying.pop(number, None)
            if done is not None:
                results, failed = _unpack(*done, None, flying.values(), source.keep)
                done = None  # it holds the result
                results.reverse()
                while results:
                    yield results.pop()
                if failed:
                    _take(failed.pop(), None, flying.values())
        at_end()
    finally:
        for future, _ in list(flying.values()):
            future.cancel()
        del keep


def _help_one(
    pool: Pool,
    flying: dict[int, tuple[Future[Any], Chunk | None]],
    timeout: float | None,
    again: bool,
) -> None:
    """In a worker of this pool: nobody else may be there to run what this one waits for."""
    pool.reap_dead_workers()
    if pool.own_slot() is not None:
        for future, _ in list(flying.values()):
            if future._state is PENDING:
                pool.help(future, timeout, again)
                return


class _Feed:
    """Brings the calls of one map to its batch: all at once, or as many as results are read."""

    def __init__(
        self,
        pool: Pool,
        options: Options,
        fn: Any,
        iterables: tuple[Any, ...],
        size: int | None,
        keep_going: bool,
    ) -> None:
        if options.name is None:
            options = options.changed(name=name_of(fn))
        self.keep: bool = keep_going
        # In a group, what a call raises must not be a failure of its task, which would end the group.
        self.apart: bool = keep_going and options.token is not None and options.token._gathers
        single = len(iterables) == 1
        from futurepool._map.batches import Batch

        self.batch: Batch = Batch(pool, options, fn, single, self.apart)
        self._ready = all(type(iterable) in _CONTAINERS for iterable in iterables)
        self.calls: Iterator[Any] = iter(iterables[0]) if single else zip(*iterables, strict=False)
        self._range: range | None = iterables[0] if single and type(iterables[0]) is range else None
        self._pool = pool
        self._name: str = options.name or ""
        self._lazy = size is not None
        self._size = size
        self.more: bool = True
        self.unread: int = 0
        self._low: int = _ENDLESS  # with more unread there was no room worth filling

    def grow(self) -> None:
        """Read ahead by two pieces for each worker; for `map_unordered`, if it was not told."""
        self._lazy = True

    def _room(self) -> int:
        if not self._lazy:
            return _ENDLESS
        size = self._size
        pace = self.batch.pace
        if size is None:
            size = 2 * self._pool.workers.max_workers * pace
        # Not for each single result, while a piece is many calls.
        self._low = size - (min(2 * pace, size) + 1) // 2
        return size - self.unread if self.unread <= self._low else 0

    def fill(self) -> None:
        """Feed as many calls as there is room for results."""
        room = self._room() if self.more else 0
        if room <= 0:
            return
        batch = self.batch
        if self._ready and not self._lazy:
            if self._range:
                batch.feed(self._range)
            else:
                batch.feed_all(self.calls)
            self.more = False
            batch.staff()
            return
        if self._ready:
            while room > 0 and self.more:
                calls = list(islice(self.calls, min(room, _BATCH)))
                self._feed(calls)
                self.more = bool(calls)
                room -= len(calls)
            batch.staff()
            return
        # No call waits for the next one to be produced.
        while room > 0:
            for item in self.calls:
                self._feed([item])
                break
            else:
                self.more = False
                return
            del item
            batch.staff()
            room -= 1

    def _feed(self, calls: list[Any]) -> None:
        if calls:
            if self._pool.state:
                raise self._pool.closed_error()
            self.unread += len(calls)
            self.batch.feed(calls)

    def taken(self, piece: Piece) -> Iterator[Any]:
        """What there is of a piece, one by one."""
        closed = piece.closed
        results = piece.results
        number = len(results)
        if closed and not piece.read:
            piece.read = number
            piece.results = []
            if self.apart:
                failures(results, 0, self._name)
            results.reverse()
            if not self._lazy:
                return map(list[Any].pop, itertools.repeat(results, number))
            return self._taken_all(results)
        return self.taken_until(piece, number)

    def _taken_all(self, results: list[Any]) -> Iterator[Any]:
        while results:
            # So many need no look whether there is room.
            number = min(len(results), self.unread - self._low - 1) if self.more else len(results)
            if number > 0:
                yield from map(list[Any].pop, itertools.repeat(results, number))
                self.unread -= number
            else:
                # The next ones go in before this is read, so that the workers stay busy.
                self.unread -= 1
                self.fill()
                yield results.pop()

    def taken_until(self, piece: Piece, number: int) -> Iterator[Any]:
        """Its results up to so many, one by one."""
        results = piece.results
        while piece.read < number:
            one = [results[piece.read]]
            results[piece.read] = None
            piece.read += 1
            if self.apart:
                failures(one, 0, self._name)
            self.unread -= 1
            self.fill()
            yield one.pop()

    def missing(self, failed: Future[Any] | None) -> Any:
        """The outcome of a call without a result: an error, or that is raised."""
        batch = self.batch
        failed = failed or batch.verdict
        rest: list[Future[Any]] = [*batch.failures, *batch.tasks()]
        try:
            self.unread -= 1
            if failed is not None and not self.keep:
                _take(failed, None, rest)
            elif failed is not None:
                error = _error_of(failed, None)
                if error is not None:
                    return error if is_a(error, Exception) else _take(failed, None, rest)
            text = batch.cancelled_text()
            if self.keep:
                return cf.CancelledError(text)
            raise cf.CancelledError(text)
        finally:
            error = None
            del failed, rest, batch, self


_ENDLESS = 1 << 62


def _drawn(feed: _Feed, keep: object, end: float | None) -> Iterator[Any]:
    """The results of a batch, piece after piece."""
    batch = feed.batch
    piece = batch.first
    del batch.first  # or it would keep all that follow
    read = 0  # calls in the pieces before
    again = False
    try:
        while True:
            over = _is_over(batch, piece)
            # Of a piece that goes on, what there is only after a while: all at once is cheaper.
            if piece.read < len(piece.results) and (over or again):
                again = False
                yield from feed.taken(piece)
            elif not over:
                ready = _has_some if again else _is_over
                if not batch.sleep(partial(ready, batch, piece), piece, end, again):
                    raise cf.TimeoutError
                again = True
            elif piece.read < piece.size:
                again = False
                piece.read += 1
                failed, piece.failed = piece.failed, None
                yield feed.missing(failed)
            elif piece.following is not None:
                again = False
                read += piece.size
                piece = piece.following
            else:
                feed.fill()
                left = batch.fed - read - piece.size
                if not left and not feed.more:
                    return
                if batch.is_dead():
                    for _ in range(left):
                        read += 1
                        yield feed.missing(None)
                elif left:
                    if not batch.sleep(partial(_has_more, batch, piece), piece, end, again):
                        raise cf.TimeoutError
                    again = True
    finally:
        batch.cancel()
        del keep


def _is_over(batch: Batch, piece: Piece) -> bool:
    return piece.closed or batch.is_dead(piece)


def _has_some(batch: Batch, piece: Piece) -> bool:
    return piece.read < len(piece.results) or _is_over(batch, piece)


def _has_more(batch: Batch, piece: Piece) -> bool:
    return piece.following is not None or batch.is_dead()


def _drawn_unordered(
    feed: _Feed, at_end: Callable[[], object], keep: object, end: float | None
) -> Iterator[Any]:
    """The results of a batch as its pieces end; those in front of a call that takes long come before."""
    batch = feed.batch
    batch.keeps_closed = True
    del batch.first  # it would keep all that follow
    feed.grow()
    read = 0
    again = False
    try:
        while True:
            feed.fill()
            try:
                piece = batch.closed.popleft()
            except IndexError:
                found = batch.with_results() if again else None
                if found is not None:
                    again = False
                    number = len(found.results)  # it may go on growing
                    read += number - found.read
                    yield from feed.taken_until(found, number)
                    continue
                left = batch.fed - read
                if not left and not feed.more:
                    at_end()
                    return
                if batch.is_dead() and not batch.is_busy():
                    if not batch.closed:
                        for _ in range(left):
                            read += 1
                            yield feed.missing(None)
                    continue
                waits_for = _has_any if again else _has_closed
                if not batch.sleep(partial(waits_for, batch), None, end, again):
                    raise cf.TimeoutError from None
                again = True
                continue
            again = False
            read += piece.size - piece.read
            if piece.read < len(piece.results):
                yield from feed.taken(piece)
            while piece.read < piece.size:
                piece.read += 1
                failed, piece.failed = piece.failed, None
                yield feed.missing(failed)
            del piece
    finally:
        batch.cancel()
        del keep


def _has_closed(batch: Batch) -> bool:
    return bool(batch.closed) or (batch.is_dead() and not batch.is_busy())


def _has_any(batch: Batch) -> bool:
    return batch.with_results() is not None or _has_closed(batch)


_sync.import_now(__name__)
