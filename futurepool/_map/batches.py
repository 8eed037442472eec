"""`map(chunksize="auto")`: workers draw calls off one shared batch, as fast as those are short.

A *drawer* is a task of the pool. It takes a *piece* off the batch: one call at first, and while calls are
short as many as take about a millisecond. There are as many drawers as workers could use. The order of
the results is that of the pieces, each of which leads to the next:

    feed --todo--> draw --piece--> its calls, one by one --results--> the reader, piece after piece

**No call waits behind a slow one.** Of a piece only the call that is being made is its drawer's own: what stands
behind it is taken back (`_recall`) and goes to others as a piece of its own (`spare`), as soon as a drawer
finds nothing else, or finds that the piece takes long; or the reader finds that, who waits. A drawer
leaves in the section in which it sees that there is nothing to draw, not even behind a call. So what has
not started always has somebody to come for it.

**Others come in between.** After each piece, so about each millisecond, a drawer looks whether something
queued goes before it. If so it ends, and another one is queued in its place, in front of its priority
(`Pool.readmit`). It also ends after a fiftieth of a second: no task of a map is long unless a call is.

**The reader comes seldom**, since the drawers need the cores: for pieces that are done, not for single results, and
while drawers go on for several at a time. When one of them finds nothing to draw, or after five milliseconds,
it comes for whatever is there.

**A call that fails ends its drawer**, whose future then has the failure: so it is told of, counted and
logged as that of any other task. Another one goes on with the rest.

`lock` guards who has drawn what: the row of pieces, `spare`, and what is taken off `todo`. Nothing of a user's
runs under it. It is never held together with a pool's mutex. What readers, feeders and cancellers touch besides
they touch by single C calls: a list or dict that is changed before something else is looked at, which
the other side does the other way round.

Whoever is interrupted within a section ends the batch (`_give_up`): what is left of it has that outcome.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Callable, Iterator
from contextvars import Context, copy_context
from functools import partial
from itertools import islice, repeat
from operator import attrgetter
from types import BuiltinFunctionType, MethodDescriptorType
from typing import Any, cast

from futurepool import _sync
from futurepool._cancellation import Opener
from futurepool._errors import PoolClosedError, QueueFullError, safe_text
from futurepool._foreign import aside, contexts
from futurepool._future import PENDING, Future, Subscribers, name_of
from futurepool._map.chunks import attempt
from futurepool._options import OnFull, Options
from futurepool._pool.helping import in_event_loop
from futurepool._pool.pool import Pool, RunState
from futurepool._pool.section import unpark

__all__: list[str] = []  # internal

AnyFuture = Future[Any]

own = contexts.own

_SLICE = 0.001  # seconds of work in a piece
_MOST = 1024  # calls in a piece
_BITE = 64  # calls between two looks at the clock, at most, and an eighth of a piece
_STALL = 0.002  # seconds in a piece, after which its drawer leaves the rest, and others may have it
_PAUSE = 0.002  # seconds a reader may go on sleeping though something is ready, while drawers go on
_LOOK = 0.005  # seconds a reader sleeps before it sees to that
_TURN = 0.02  # seconds after which a drawer ends, for the next one to go on


class Piece:
    """Calls that stand next to one another, for one drawer, and what became of them."""

    __slots__ = (
        "began",
        "closed",
        "failed",
        "following",
        "place",
        "read",
        "results",
        "size",
        "todo",
    )

    def __init__(self, todo: deque[Any], size: int, place: int) -> None:
        self.size: int = size  # calls, without those that were taken back; lock held
        self.place: int = place  # of the first one, among all
        self.todo: deque[Any] = todo  # not started: taken from the front, and back from the end
        self.results: list[Any] = []
        self.failed: AnyFuture | None = None  # has the outcome of the call after those results
        self.began: float = 0.0
        self.closed: bool = False  # nothing more becomes of it; lock held
        self.following: Piece | None = None  # final once it is closed; lock held
        self.read: int = 0  # the reader's


_PLACE = attrgetter("place")


def _drain(todo: deque[Any], into: list[Any]) -> None:
    """Move all to the list, last one first, each by one C call: others may take some of them meanwhile."""
    take = todo.pop
    try:
        while True:
            into.append(take())
    except IndexError:
        pass


class Block:
    """Calls that were fed together, and are drawn piece by piece. Lock held.

    They are moved, not copied: none is kept alive here, and no references are counted, which is slow
    without a GIL where another thread has made the object. The numbers of a range are made by who draws them.
    """

    __slots__ = ("_calls", "_numbers", "_turned", "left")

    def __init__(self, calls: list[Any] | range) -> None:
        self.left: int = len(calls)
        self._numbers: Iterator[int] | None = iter(calls) if isinstance(calls, range) else None
        self._calls: list[Any] = [] if isinstance(calls, range) else calls
        self._turned = False  # the list, so that its end is what comes next

    def move(self, number: int, into: deque[Any]) -> int:
        """Move so many, or all that are left; how many those were."""
        number = min(number, self.left)
        if self._numbers is not None:
            into.extend(islice(self._numbers, number))
        elif number == self.left and not self._turned:
            into.extend(self._calls)
        else:
            if not self._turned:
                self._calls.reverse()
                self._turned = True
            into.extend(map(list[Any].pop, repeat(self._calls, number)))
        self.left -= number
        return number


class Sleeper:
    """A reader, and what it waits for: asked by who may have brought that about, too."""

    __slots__ = ("parker", "pause", "ready", "since")

    def __init__(self, ready: Callable[[], bool], pause: float) -> None:
        self.parker: Any = _sync.QuietParker()
        self.ready: Callable[[], bool] = ready
        self.pause: float = pause  # seconds it may go on sleeping though something is ready
        self.since: float = _sync.clock()


class Drawer:
    """What a task of the map calls."""

    __slots__ = ("_batch", "future", "piece", "started")

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self.future: AnyFuture | None = None  # set by who submits it, and by itself
        self.piece: Piece | None = None
        self.started: bool = False

    def __call__(self) -> None:
        batch = self._batch
        try:
            batch.work(self)
        finally:
            del self, batch  # the traceback of what a call raises holds this frame

    def ended(self) -> None:
        """Its future is done. Told once or twice, by any thread."""
        self._batch.drawer_ended(self)


class Batch:
    """The calls of one map.

    Args:
        pool: Where they run.
        options: What the drawers are submitted with.
        fn: What is called.
        single: With one argument, the item; else items are tuples of arguments.
        apart: What a call raises is no failure of its task; results have a `Raised` for it.
    """

    def __init__(self, pool: Pool, options: Options, fn: Any, single: bool, apart: bool) -> None:
        self._pool = pool
        self._options = options
        self._fn = fn
        self._call, self._called = _way(fn, single, apart)
        self._mutex = pool.mutex
        self._context: Context = copy_context()  # of who calls `map`
        self._lock: Any = _sync.RLock()
        self._todo: deque[Block] = deque()
        self._spare: deque[Piece] = deque()  # by their places
        self._pieces: dict[Piece, None] = {}  # those that are under way
        self._drawers: dict[Drawer, None] = {}  # queued or running
        self._sleepers: dict[Sleeper, None] = {}
        self.closed: deque[Piece] = deque()  # in the order in which they were, if anybody reads so
        self.keeps_closed: bool = False
        self.failures: list[AnyFuture] = []
        #: The outcome of all that nobody comes for any more.
        self.verdict: AnyFuture | None = None
        self._fallen: AnyFuture | None = None  # the latest that never ran, or was struck
        self.stopped: bool = False  # no call is to start any more
        # An empty one, so that each has one before it. There until somebody reads.
        self.first: Piece = Piece(deque(), 0, 0)
        self.first.closed = True
        self._last = self.first
        self._number = 1  # calls in the latest full piece
        self.fed: int = 0  # the feeder's
        self._drawn = 0
        # Cancels what is queued by itself, and what runs by the token of that.
        self._listens: bool = options.token is not None

    # -- for who feeds ---------------------------------------------------------------------------

    def feed(self, calls: list[Any] | range) -> None:
        """Add calls, a list of which is the batch's from now on; `staff` is to follow."""
        self.fed += len(calls)
        self._todo.append(Block(calls))

    def feed_all(self, calls: Iterator[Any]) -> None:
        """The same for an iterator whose items cost nothing to produce."""
        while block := list(islice(calls, _MOST)):
            self.feed(block)

    def staff(self, may_wait: bool = True) -> None:
        """See that there are as many drawers as have something to do. May wait for places.

        The first one is submitted as the options say; if that raises nothing was started. More of them
        are a matter of speed only: without a place they are left out, or waited for, where a
        submit would wait.
        """
        while self._add_drawer(may_wait):
            pass

    def _list(self, drawer: Drawer) -> bool | None:
        """List it if one drawer more would have something to do, else None; True if it is the only one.

        In a section: what a drawer is just taking is neither in `todo` nor in its piece, and one that is just
        leaving either sees what was fed before, or is seen to be gone.
        """
        if self.stopped or self._mutex is not self._pool.mutex:
            return None
        try:
            # mutant drawers-are-counted-in-a-section
            with self._lock:
                if len(self._drawers) >= self._pool.workers.max_workers:
                    return None
                queued = sum([not each.started for each in list(self._drawers)])
                behind = [len(piece.todo) for piece in self._known()]
                if queued >= self.fed - self._drawn + sum(behind):
                    return None
                first = not self._drawers
                self._drawers[drawer] = None
                return first
        except BaseException:
            self._unlock()
            raise

    def _add_drawer(self, may_wait: bool) -> bool:
        """One drawer more; False if there is to be none."""
        pool, options = self._pool, self._options
        waits = may_wait and options.on_full is OnFull.BLOCK and options.timeout is None
        drawer = Drawer(self)
        future: AnyFuture | None = None
        try:
            first = self._list(drawer)
            if first is None:
                return False
            if first or (waits and pool.own_slot() is None and not in_event_loop()):
                # A worker's context has what its initializer has set; the drawer may be another's.
                submit = partial(pool.submit, options, drawer, (), {}, Subscribers(drawer.ended))
                future = self._context.copy().run(submit)
            else:
                # Also if the pool was closed meanwhile: the calls were accepted before.
                future = pool.join_in(options, drawer, Subscribers(drawer.ended), self._context)
        finally:
            if future is None:
                self._drawers.pop(drawer, None)
        if future is None:
            # mutant last-hope-sees-to-the-rest
            self._see_to_the_rest()
            return False
        self._submitted(drawer, future)
        return not future.done()  # it was dropped, say

    def _submitted(self, drawer: Drawer, future: AnyFuture) -> None:
        drawer.future = future
        if future.done():  # perhaps before its drawer knew it
            self.drawer_ended(drawer)

    @property
    def pace(self) -> int:
        """How many calls make a piece now."""
        return self._number

    # -- for drawers -----------------------------------------------------------------------------

    def work(self, drawer: Drawer) -> None:
        """Draw, and call, until nothing is left, or it is another's turn. The body of a task."""
        pool, clock = self._pool, _sync.clock
        task: AnyFuture = _sync.here.slot.task
        drawer.future = task
        drawer.started = True
        piece: Piece | None = None
        call, fn = self._call, self._called
        try:
            if self._listens:
                pool.token_of(task)._add_listener(Opener(self._token_cancelled))
            looked = clock()
            end = looked + _TURN
            number = self._number
            seen = -1  # tasks admitted before the latest look at the queue
            while True:
                piece = self._draw(drawer, number)
                if piece is None:
                    return
                began = piece.began
                pop, put = piece.todo.popleft, piece.results.append
                now = call(fn, pop, put, max(1, min(_BITE, number // 8)), began + _STALL)
                made = len(piece.results)
                if made:
                    wanted = int(_SLICE * made / max(now - began, 1e-9))
                    self._number = number = max(1, min(2 * number, wanted, _MOST))
                if pool.state >= RunState.STOPPING:
                    self.stop()
                elif now - looked >= _SLICE / 2:
                    looked = now
                    # What was queued before does not come before this one, unless the order changes by itself. A
                    # look at the queue may hold up a submit for as long as this thread waits for the GIL.
                    submitted = pool.capacity.submitted
                    stays = submitted == seen and pool.aging is None and pool.limits is None
                    if now >= end or (not stays and pool.precedes(task)):
                        self._pass_on(drawer)
                        return
                    seen = submitted
                    if self._todo:
                        self.staff(may_wait=False)
        except BaseException:
            if drawer.piece is not None:
                self.failures.append(task)
                drawer.piece.failed = task
            self._pass_on(drawer)
            raise
        finally:
            # The traceback of what was raised holds this frame.
            del self, drawer, task, piece, call, fn
            pop = put = cast("Any", None)

    def _draw(self, drawer: Drawer, number: int) -> Piece | None:
        """Close the piece it has, and take the next; None if there is nothing to do: then it has left."""
        piece: Piece | None = None
        if self._lock._is_owned():
            return None  # in a finalizer, inside of a section of this very thread
        try:
            with self._lock:
                self._close(drawer)
                piece = self._take(number)
                if piece is None:
                    # mutant drawer-leaves-in-its-section
                    self._drawers.pop(drawer, None)
                else:
                    piece.began = _sync.clock()
                    drawer.piece = piece  # first: what is under way is its drawer's
                    self._pieces[piece] = None
        except BaseException:
            self._give_up(drawer)
            raise
        self._wake(None if piece is None else piece.began)
        # mutant stopped-calls-are-not-begun
        if piece is not None and self.stopped:
            piece.todo.clear()
        return piece

    def _close(self, drawer: Drawer) -> None:
        """Nothing more becomes of the drawer's piece; what it has not started is others'. Lock held."""
        piece = drawer.piece
        if piece is not None:
            if piece.todo and not self.stopped:
                self._recall(piece)
            self._pieces.pop(piece, None)
            piece.closed = True
            drawer.piece = None
            if self.keeps_closed:
                self.closed.append(piece)

    def _recall(self, piece: Piece) -> None:
        """Take back what has not been started of a piece. Lock held; its drawer goes on meanwhile."""
        calls: list[Any] = []
        _drain(piece.todo, calls)
        if calls:
            calls.reverse()
            rest = self._insert(piece, deque(calls), len(calls))
            # So that no call that comes before those that block all drawers is left for after them.
            insort(self._spare, rest, key=_PLACE)

    def _recall_late(self) -> None:
        """The same of the pieces that take long. Lock held."""
        long_ago = _sync.clock() - _STALL
        for piece in list(self._pieces):
            if piece.began < long_ago and piece.todo:
                self._recall(piece)

    def _insert(self, piece: Piece, todo: deque[Any], size: int) -> Piece:
        """A piece of its own for the last calls of another one. Lock held."""
        rest = Piece(todo, size, piece.place + piece.size - size)
        rest.following = piece.following
        piece.following = rest
        piece.size -= size
        if self._last is piece:
            self._last = rest
        return rest

    def _take(self, number: int) -> Piece | None:
        """Some calls that nobody has. Lock held."""
        if self.stopped:
            return None
        if not self._spare:
            self._recall_late()
        if not self._spare and not self._todo:
            # mutant what-stands-behind-a-call-is-drawn
            for piece in list(self._pieces):
                self._recall(piece)
        if self._spare:
            return self._take_spare(number)
        todo: deque[Any] = deque()
        size = 0
        try:
            while size < number:
                block = self._todo[0]
                size += block.move(number - size, todo)
                if not block.left:
                    self._todo.popleft()
        except IndexError:  # there is no more; or not any more, as it was stopped meanwhile
            if not size:
                return None
        piece = Piece(todo, size, self._drawn)
        self._drawn += size
        self._last.following = piece
        self._last = piece
        return piece

    def _take_spare(self, number: int) -> Piece:
        """The first of the spare pieces, or some of it. Lock held."""
        piece = self._spare.popleft()
        share = number
        if not self._todo:
            # There is no more: for each drawer some, but no crumbs, which would cost more than they are worth.
            share = max(piece.size // max(1, len(self._drawers)), number // 8)
            share = max(1, min(number, share))
        if share < piece.size:
            first: deque[Any] = deque()
            todo, piece.todo = piece.todo, first
            rest = self._insert(piece, todo, piece.size - share)
            try:
                for _ in range(share):
                    first.append(todo.popleft())
            except IndexError:  # `stop` is emptying it
                pass
            self._spare.appendleft(rest)
        return piece

    def _pass_on(self, drawer: Drawer) -> None:
        """The drawer is about to end: another one goes on, if anything is left."""
        if self._lock._is_owned():
            return
        try:
            with self._lock:
                self._close(drawer)
                left = self._is_left()
                if not left:
                    # mutant ended-drawer-leaves-in-its-section
                    self._drawers.pop(drawer, None)
        except BaseException:
            self._give_up(drawer)
            raise
        # mutant batch-is-passed-on
        if left and not self.stopped and self._pool.state < RunState.STOPPING:
            successor = Drawer(self)
            self._drawers[successor] = None
            future = self._pool.readmit(
                self._options, successor, Subscribers(successor.ended), self._context
            )
            self._submitted(successor, future)
        self._drawers.pop(drawer, None)
        if left and self._pool.state >= RunState.STOPPING:
            self.stop()
        self._wake()

    def _unlock(self) -> None:
        """After an interruption, where it is not known whether the lock was released."""
        while self._lock._is_owned():
            self._lock.release()

    def _give_up(self, drawer: Drawer) -> None:
        """A section was interrupted: what it was about to do is lost. This ends it all."""
        self._unlock()
        self.verdict = drawer.future
        piece, drawer.piece = drawer.piece, None
        if piece is not None:
            piece.failed = drawer.future
            self._pieces.pop(piece, None)
        self._drawers.pop(drawer, None)
        self.stop()

    def drawer_ended(self, drawer: Drawer) -> None:
        """Its future is done. Idempotent; quick.

        Nothing is left to do unless it never ran, or its thread was struck outside of a call.
        """
        piece = drawer.piece
        gone = drawer in self._drawers
        future = drawer.future
        if (piece is not None or gone) and future is not None:
            if piece is not None:
                piece.failed = future
                with self._lock:
                    self._close(drawer)
            self._fallen = future
            self._drawers.pop(drawer, None)
            self._see_to_the_rest(struck=piece is not None)
        self._wake()

    def _see_to_the_rest(self, struck: bool = False) -> None:
        """One that never ran, or found no place, is off the list: was it the last hope of what is left?

        Each looks when it is off the list itself, so of two at a time the later one finds none.
        """
        fallen = self._fallen
        if fallen is None or self._drawers or not self._is_left():
            return
        if struck and self._pool.state < RunState.STOPPING:
            aside.run(partial(self._go_on_after, fallen))
        else:
            self.verdict = fallen
            self.stop()

    def _go_on_after(self, future: AnyFuture) -> None:
        """The last drawer was struck: have another one, or all that is left has the outcome of that one."""
        try:
            self.staff(may_wait=False)
        except (PoolClosedError, QueueFullError):
            self.verdict = future
            self.stop()

    def _is_left(self) -> bool:
        return bool(self._todo or self._spare) or any(piece.todo for piece in list(self._pieces))

    # -- cancelling ------------------------------------------------------------------------------

    def _token_cancelled(self, _token: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Start no call any more. Any thread; runs nothing of a user's."""
        self.stopped = True
        kept: list[Any] = []  # to be let go of where finalizers may run
        _drain(self._todo, kept)
        for piece in self._known():
            _drain(piece.todo, kept)
        aside.run(kept.clear)
        self._wake()

    def cancel(self) -> None:
        """Give up what has not started, and tell what runs, if anything does."""
        self.stopped = True
        self._todo.clear()
        pieces = self._known()
        for piece in pieces:
            piece.todo.clear()
        for future in self.tasks():
            if pieces or future._state is PENDING:
                future.cancel()

    def _known(self, contents: Any = _sync.contents) -> list[Piece]:
        """Those in which a call may not have started. Others may add to them meanwhile.

        `contents`: a generator may be closed when the interpreter has already emptied this module.
        """
        return [*list(self._pieces), *contents(self._spare)]

    def tasks(self) -> list[AnyFuture]:
        """Those that are under way."""
        futures = [drawer.future for drawer in list(self._drawers)]
        return [future for future in futures if future is not None]

    # -- for readers -----------------------------------------------------------------------------

    def _wake(self, now: float | None = None) -> None:
        """Wake the readers for whom there is something now.

        `now`: the time, if this drawer goes on. Then it will be back, and a reader need not come for each piece.
        """
        if self._sleepers:
            for sleeper in list(self._sleepers):
                if sleeper.ready() and (now is None or now - sleeper.since >= sleeper.pause):
                    unpark(sleeper.parker)

    def is_busy(self) -> bool:
        """Whether a call is being made."""
        return bool(self._pieces) and self._mutex is self._pool.mutex

    def with_results(self) -> Piece | None:
        """A piece that is not closed, and has results that were not read."""
        for piece in list(self._pieces):
            if piece.read < len(piece.results):
                return piece
        return None

    def is_dead(self, piece: Piece | None = None) -> bool:
        """Whether nobody will come for what is left, of the piece or at all."""
        if self._mutex is not self._pool.mutex:
            return True  # the child of a fork
        return self.stopped and (piece is None or piece not in self._pieces)

    def cancelled_text(self) -> str:
        """Why what is left was cancelled."""
        if self.verdict is not None and self.verdict.cancelled():
            return self.verdict._cancelled_text()
        why, token = "its pool was shut down", self._options.token
        if token is not None and token.cancelled:
            why = "its token was cancelled"
            if token.reason is not None:
                why = f"{why}: {safe_text(str, token.reason)}"
        name = self._options.name or name_of(self._fn)
        return f"a call of {name} was cancelled: {why}"

    def _grows(self, piece: Piece | None) -> bool:
        """Whether it, or any if it is None, may have results more while nobody tells of them."""
        if piece is not None:
            return piece in self._pieces and piece.size > 1 and bool(piece.todo)
        return any(piece.size > 1 and piece.todo for piece in list(self._pieces))

    def _is_ready_or_grows(self, ready: Callable[[], bool], piece: Piece | None) -> bool:
        return ready() or self._grows(piece)

    def sleep(
        self, ready: Callable[[], bool], piece: Piece | None, end: float | None, again: bool
    ) -> bool:
        """Sleep until there may be something; False if that was not before `end`.

        `piece` is the one that is waited for; None is any.

        The first time not for long: what stands behind a call that takes long is given to others then. Nor
        `again`, while results come of which nobody tells (`_grows`). Else nothing is to be had before a piece
        is closed, or one is drawn that grows.
        """
        sleeper = Sleeper(ready, _PAUSE)
        parker = sleeper.parker
        # Before it looks whether it is ready: others look for sleepers when they have changed something.
        self._sleepers[sleeper] = None
        try:
            if again:
                sleeper.ready = partial(self._is_ready_or_grows, ready, piece)
                sleeper.pause = 0.0
                # Before it looks for results: a drawer notes one before it takes off the next call.
                if self._grows(piece):
                    again, sleeper.ready, sleeper.pause = False, ready, _PAUSE
            if ready():
                return True
            left = None if end is None else end - _sync.clock()
            if left is not None and left <= 0:
                return False
            self._help(left, False)
            if ready():
                return True
            if not again:
                if not parker.acquire(True, _LOOK if left is None else min(left, _LOOK)):
                    self._relieve()
                return True
            _sync.sleep_at(parker, left, partial(self._look, sleeper.ready))
            return True
        finally:
            self._sleepers.pop(sleeper, None)

    def _look(self, ready: Callable[[], bool]) -> bool:
        self._pool.reap_dead_workers()
        # A place may have come free that was wanted for one drawer more, while those that are there are blocked.
        self._relieve()
        self._help(None, True)
        return ready()

    def _help(self, timeout: float | None, again: bool) -> None:
        """In a worker of this pool: nobody else may be there to run what this one waits for."""
        if self._pool.own_slot() is not None:
            for future in self.tasks():
                if future._state is PENDING:
                    self._pool.help(future, timeout, again)
                    return

    def _relieve(self) -> None:
        """See that nothing waits behind a call that takes long."""
        if self._lock._is_owned():
            return
        try:
            with self._lock:
                self._recall_late()
        except BaseException:
            self._unlock()
            self.stop()
            raise
        self.staff(may_wait=False)


# -- calling ---------------------------------------------------------------------------------------
#
# Each makes the calls of a piece, with a look at the clock after each `bite` of them: past `late` it leaves the
# rest. Not at once: what would be left of nearly all pieces is too little to be worth one. It returns the time.
#
# A call is taken off before it is made, and noted after: what is taken and not noted when one of these raises is
# what has raised.

Pop = Callable[[], Any]
Put = Callable[[Any], object]


def _call_each(fn: Any, pop: Pop, put: Put, bite: int, late: float) -> float:
    clock = _sync.clock
    try:
        while True:
            for _ in repeat(None, bite):
                try:
                    item = pop()
                except IndexError:
                    return clock()
                put(fn(item))
            if (now := clock()) >= late:
                return now
    finally:
        del fn, pop, put
        item = None


def _run_each(fn: Any, pop: Pop, put: Put, bite: int, late: float) -> float:
    """Each as if in a context of its own: nothing leaks from one call to the next."""
    try:
        context = copy_context()
        if context:
            return _run_copies(context, fn, pop, put, bite, late)
        now: float | None = None
        while now is None:
            fresh = Context()
            now = fresh.run(_call_until_set, fresh, fn, pop, put, bite, late)
        return now
    finally:
        del fn, pop, put


def _call_until_set(
    fresh: Context, fn: Any, pop: Pop, put: Put, bite: int, late: float
) -> float | None:
    """`_call_each` in an empty context, up to a call that has left something there: None after that."""
    clock = _sync.clock
    try:
        while True:
            for _ in repeat(None, bite):
                try:
                    item = pop()
                except IndexError:
                    return clock()
                put(fn(item))
                if fresh:
                    return now if (now := clock()) >= late else None
            if (now := clock()) >= late:
                return now
    finally:
        del fn, pop, put
        item = None


def _run_copies(context: Context, fn: Any, pop: Pop, put: Put, bite: int, late: float) -> float:
    clock = _sync.clock
    try:
        while True:
            for _ in repeat(None, bite):
                try:
                    item = pop()
                except IndexError:
                    return clock()
                put(own(context.copy()).run(fn, item))
            if (now := clock()) >= late:
                return now
    finally:
        del fn, pop, put
        item = None


def _call_star(fn: Any, args: tuple[Any, ...]) -> Any:
    try:
        return fn(*args)
    finally:
        del fn, args


def _attempt_one(fn: Any, item: Any) -> Any:
    return attempt(fn, (item,))


def _way(fn: Any, single: bool, apart: bool) -> tuple[Callable[..., float], Any]:
    """How calls are made, and what is called so."""
    if apart:
        return _run_each, partial(_attempt_one if single else attempt, fn)
    if not single:
        return _run_each, partial(_call_star, fn)
    kind = type(cast(object, fn))
    if kind is BuiltinFunctionType or kind is MethodDescriptorType:
        return _call_each, fn  # has no context variables to set
    return _run_each, fn


_sync.import_now(__name__)
