"""Those who do the work: drawers, each a task of the pool, take items off one shared batch.

Whoever is free takes the next items: one, or, while calls are short, a slice of them, for about a
millisecond. If a call takes longer than that, what stands behind it in its slice is given to others, so
it holds up none. How many draw at a time is decided while they work, see `Crew.adapt`: calls of a few
microseconds are done twice as fast by one thread as by two that pass the interpreter's lock to and
fro, and longer ones by all.

    reader  --add-->  todo  --draw-->  a slice, its calls  --results-->  the main thread

`lock` guards `todo`, who draws (`active`, `spare`), how many may (`limit`), and `closing`. A drawer
leaves in the section in which it sees that nothing is left, and whoever adds looks at `active` after
adding, so nothing stays behind without somebody to take it. `results`, and what several threads
touch of a slice, are deques and lists that are only touched by single C calls, which are atomic,
on free-threaded builds too.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError
from typing import Any, NamedTuple

from futurepool import BoundedExecutor, CancelToken, ForcedShutdownError
from futurepool._cli.child import Caller, Failure, describe

__all__ = ["Crew", "Drawer", "Limiter", "Local", "Outcome", "Retries", "Slice", "get_within"]

Call = Callable[[str], str]

_STALL = 0.005  # seconds in one call, after which somebody else goes on with the rest
_PROBE = 0.03  # seconds in which a way of working is measured
_SHORT = 0.0005  # seconds; longer calls are worth a thread each, whatever they do
_GAIN = 1.1  # times as many calls: worth the trouble
_WINS = 3  # in a row, before all go on
_TINY = 0.00002  # seconds; to pass the interpreter's lock on takes about as long
_HAS_GIL: bool = getattr(sys, "_is_gil_enabled", lambda: True)()
_SLICE = 0.001  # seconds of work in a slice
_MOST = 1024  # items in a slice


def get_within(inbox: queue.SimpleQueue[Any], seconds: float) -> Any:
    """`inbox.get(timeout=seconds)`; raises Empty. For one reader.

    Up to Python 3.12 a `get` that finds the queue's lock free takes it, and waits for what is left of
    its time: for ever if nothing is. A look without waiting leaves the lock taken.
    """
    try:
        return inbox.get_nowait()
    except queue.Empty:
        pass
    return inbox.get(timeout=seconds)


class Outcome(NamedTuple):
    """What became of an item."""

    place: int  # among the items
    item: str
    text: str | None  # the result, for one that was successful
    failure: Failure | None  # neither of both: it was told to end
    start: float  # on time.time()'s clock
    seconds: float
    drawer: int


class Slice:
    """Items that stand next to one another, taken by one drawer, and what became of them.

    The drawer takes from `todo`, and adds to `failures`, `texts` and, last, to `times`: what has its time
    is complete, and nothing is taken before. What it has not started may be taken back from the other
    end of `todo`, see `Crew.cut`; a call that has run out of time is none of its `size` any more.
    """

    __slots__ = (
        "base",
        "began",
        "drawer",
        "failures",
        "items",
        "printed",
        "seen",
        "size",
        "texts",
        "times",
        "todo",
    )

    def __init__(self, base: int, items: list[str], drawer: int, began: float) -> None:
        self.base = base  # the place of the first item
        self.items = items
        self.size = len(items)  # how many of them are called here; changed under the crew's lock
        self.todo = deque(items)
        self.drawer = drawer
        self.began = began  # on time.perf_counter()'s clock
        self.texts: list[str | None] = []  # None: failed, or told to end
        self.failures: dict[int, Failure | None] = {}  # by index; None: told to end
        self.times: list[float] = []  # when each call ended, which is when the next one began
        self.seen = self.printed = 0  # the main thread's

    def ended(self) -> int:
        """How many calls have ended, in time."""
        return min(len(self.times), self.size)

    def running(self) -> tuple[int, str, float] | None:
        """(place, item, when it began) of the call that is being made."""
        ended = self.ended()
        if ended >= self.size:
            return None
        began = self.times[ended - 1] if ended else self.began
        return self.base + ended, self.items[ended], began

    def outcome(self, index: int, epoch: float) -> Outcome:
        """What became of an item, in words of one."""
        began = self.times[index - 1] if index else self.began
        return Outcome(
            self.base + index,
            self.items[index],
            self.texts[index],
            self.failures.get(index),
            epoch + began,
            self.times[index] - began,
            self.drawer,
        )


class Limiter:
    """So many starts a second, evenly: each waits for a moment of its own."""

    def __init__(self, per_second: float) -> None:
        self._interval = 1 / per_second
        self._next = 0.0  # guarded by _lock
        self._lock = threading.Lock()

    def wait(self, token: CancelToken) -> bool:
        """Wait for a turn; False if the token was cancelled first."""
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next)
            self._next = turn + self._interval
        return not (token.wait(turn - now) if turn > now else token.cancelled)


class Retries:
    """How often a failed call is made again, and after which pause."""

    def __init__(self, number: int, pause: float) -> None:
        self.number = number
        self.pause = pause

    def wrap(self, call: Call, token: CancelToken, note: Callable[[int, float], object]) -> Call:
        """The call, made again while it fails. Pauses double, up to a minute, and vary a little."""
        from tenacity import RetryCallState, Retrying, retry_if_exception_type
        from tenacity.wait import wait_exponential, wait_random

        def over(state: RetryCallState) -> bool:
            return token.cancelled or state.attempt_number > self.number

        def pause(seconds: float) -> None:
            token.wait(seconds)

        def before_sleep(state: RetryCallState) -> None:
            note(state.attempt_number, state.upcoming_sleep)

        doubling = wait_exponential(multiplier=self.pause, max=max(60.0, self.pause))
        again = Retrying(
            stop=over,
            wait=doubling + wait_random(0, self.pause / 4),
            retry=retry_if_exception_type(Exception),
            reraise=True,
            sleep=pause,
            before_sleep=before_sleep,
        )
        return lambda item: again(call, item)


class Drawer:
    """One who draws. `run` is a task of the pool; it may be called again later."""

    def __init__(self, crew: Crew, number: int) -> None:
        self.crew = crew
        self.number = number
        self.token: CancelToken = crew.token.child()
        #: (place, item, when it began) of the call that is being made. Replaced, never changed.
        self.current: tuple[int, str, float] | None = None
        self.gone = False  # written off; guarded by the crew's lock
        self.slice: Slice | None = None  # what may be cut; guarded by the crew's lock

    def run(self) -> None:
        """Draw until nothing is left."""
        raise NotImplementedError

    def expire(self, now: float) -> None:
        """End the call that has taken too long."""
        raise NotImplementedError

    def at(self) -> tuple[int, str, float] | None:
        """(place, item, when it began) of the call that is being made. For any thread."""
        return self.current

    def recall(self, now: float) -> None:
        """Let others have what was taken and waits behind a call that takes long."""

    def end(self) -> None:
        """Stop at once what can be stopped."""

    def close(self) -> None:
        """Let go of what is kept for later calls; nothing runs."""

    def let_go(self) -> None:
        """It was told to `end`, and its thread makes no call any more."""


class Local(Drawer):
    """Calls the target in this very thread."""

    def __init__(self, crew: Crew, number: int, caller: Caller) -> None:
        super().__init__(crew, number)
        self._get: Callable[[str], Any] = caller.get
        self._finish: Callable[[Any], str] = caller.finish
        if crew.retries is not None:
            self._get = crew.prepared(self, caller.call)
            self._finish = str

    def run(self) -> None:
        crew = self.crew
        if crew.limiter is None and crew.retries is None:
            self._run_slices()
        else:
            self._run_singly()

    def at(self) -> tuple[int, str, float] | None:
        piece = self.slice
        return self.current if piece is None else piece.running()

    def recall(self, now: float) -> None:
        piece = self.slice
        if piece is None or not piece.todo or not self.crew.auto:
            return
        call = piece.running()
        # If its calls are no longer as short as those before, the slice as a whole takes too long.
        if call is not None and (now - call[2] > _STALL or now - piece.began > 2 * _STALL):
            self.crew.recall(piece)

    def _run_slices(self) -> None:
        """While calls are short, several for one look at everything else."""
        crew, get, finish, clock = self.crew, self._get, self._finish, time.perf_counter
        number = 1 if crew.auto else crew.chunksize
        while True:
            piece = crew.draw(self, number)
            if piece is None:
                if crew.leave(self):
                    return
                continue
            pop, put, stamp = piece.todo.popleft, piece.texts.append, piece.times.append
            while True:
                try:
                    item = pop()
                except IndexError:
                    break
                try:
                    put(finish(get(item)))
                except BaseException as error:
                    piece.failures[len(piece.times)] = crew.failure(self, error)
                    put(None)
                stamp(clock())
            if crew.asleep:
                crew.rouse()
            if crew.auto:
                times = piece.times
                spent = times[-1] - piece.began if times else _SLICE
                wanted = _SLICE / max(spent / max(len(times), 1), 1e-9)
                number = max(1, min(2 * number, int(wanted), _MOST))
            if len(crew.active) > crew.limit and crew.leave(self):
                return

    def _run_singly(self) -> None:
        """Calls that may have to wait."""
        crew, get, finish, clock = self.crew, self._get, self._finish, time.perf_counter
        limiter, bounded = crew.limiter, crew.timeout is not None
        while True:
            piece = crew.draw(None, 1, self.number)
            if piece is None:
                if crew.leave(self):
                    return
                continue
            item = piece.items[0]
            if limiter is not None and not limiter.wait(crew.token):
                crew.give_back([(piece.base, item)])
                continue
            piece.began = clock()
            self.current = (piece.base, item, piece.began)
            text: str | None = None
            try:
                text = finish(get(item))
            except BaseException as error:
                piece.failures[0] = crew.failure(self, error)
            now = clock()
            if not bounded:
                self.current = None
            elif not crew.claim(self):
                return
            piece.texts.append(text)
            piece.times.append(now)
            crew.results.append(piece)
            if crew.asleep:
                crew.rouse()
            if len(crew.active) > crew.limit and crew.leave(self):
                return

    def expire(self, now: float) -> None:
        """A thread cannot be killed: the call is told, and somebody else goes on in its place."""
        crew = self.crew
        with crew.lock:
            piece, call = self.slice, self.at()
            if self.gone or call is None or now - call[2] < (crew.timeout or 0.0):
                return
            if piece is not None:
                crew.put_back(piece)
                if len(piece.times) > call[0] - piece.base:
                    return  # it has ended while we looked
                # From here on nothing is left for it to take, and what it adds is not counted.
                piece.size = call[0] - piece.base
            self.gone = True
            self.current = None
            crew.active.remove(self)
            crew.written_off.append((self, call))
        self.token.cancel("its time is over")
        crew.too_late(call, now, self.number)


class Crew:
    """All drawers, and what they share.

    Args:
        jobs: At most so many calls at a time.
        make: Makes a drawer, for a number.
        adaptive: Whether fewer may be better.
        allowed: After so many failures no more are started.
    """

    MOST_WRITTEN_OFF = 100  # threads that may be stuck, besides as many as there are jobs

    def __init__(
        self,
        jobs: int,
        *,
        make: Callable[[Crew, int], Drawer],
        adaptive: bool,
        chunksize: int | None,
        timeout: float | None,
        rate: float | None,
        retries: Retries | None,
        allowed: int | None,
        verbose: bool,
        note: Callable[[str], object],
    ) -> None:
        self.jobs = jobs
        self.timeout = timeout
        self.retries = retries
        self.chunksize = chunksize or 1
        self.auto = chunksize is None
        self.limiter = None if rate is None else Limiter(rate)
        self.verbose = verbose
        self.token = CancelToken()
        self.todo: deque[tuple[int, list[str], int]] = deque()  # (place of the first, items, taken)
        self.waiting = 0  # items in there; guarded by lock, as all of it
        self.results: deque[Slice] = deque()  # which may still grow
        self.epoch = time.time() - time.perf_counter()
        self.lock = threading.Lock()
        self.active: list[Drawer] = []  # guarded by lock, as all below
        self.spare: list[Drawer] = []
        self.written_off: list[tuple[Drawer, tuple[int, str, float]]] = []
        self.closing = False
        self.allowed = allowed or -1  # failures until no more are started
        self.limit = 1 if adaptive and jobs > 1 else jobs
        self.asleep = False  # the main thread waits for `rouse`
        self.trouble: BaseException | None = None  # of a worker that could not even start
        self._make = make
        self._note = note
        self._made = 0
        self._tries: dict[int, int] = {}
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._adaptive = adaptive and jobs > 1
        self._alone = self._adaptive
        self._phase = (time.perf_counter(), 0)
        self._alone_rate: float | None = None
        self._won = 0  # times that all were faster
        self._hold = 0.0
        self._patience = 0.5
        most = jobs + max(jobs, self.MOST_WRITTEN_OFF) if timeout is not None else jobs
        self.pool = BoundedExecutor(
            most,
            "map",
            queue_size=None,
            exit_timeout=0.0,  # what `close` gave up is not waited for again
            error_handler=lambda _: None,  # drawers report what fails
        )

    # -- for the reader ----------------------------------------------------------------------------

    def add(self, base: int, items: list[str]) -> bool:
        """Add items to do, which stand next to one another; False if no more are wanted."""
        with self.lock:
            if self.closing:
                return False
            self.todo.append((base, items, 0))
            self.waiting += len(items)
        self.staff()
        return True

    def staff(self) -> None:
        """Let as many draw as there is work for."""
        wanted = self.waiting
        while True:
            with self.lock:
                free = self.limit - len(self.active)
                if self.closing or free <= 0 or not self.todo or len(self.active) >= self.jobs:
                    return
                if len(self.active) + len(self.written_off) >= self.jobs + max(
                    self.jobs, self.MOST_WRITTEN_OFF
                ):
                    return
                try:
                    drawer = self.spare.pop() if self.spare else self._make(self, self._made)
                    self._made += 1
                    self.pool.options(token=drawer.token, name="draw").submit(drawer.run)
                except Exception as error:  # no thread to be had, say
                    self.trouble = self.trouble or error
                    break
                self.active.append(drawer)
                wanted -= 1
            if wanted <= 0:
                return
        self.rouse()

    # -- for drawers -------------------------------------------------------------------------------

    def leave(self, drawer: Drawer) -> bool:
        """Leave, unless there is work for this one; the answer is whether it has left."""
        with self.lock:
            if drawer.gone:
                return True
            if self.todo and not self.closing and len(self.active) <= self.limit:
                return False
            self.active.remove(drawer)
            self.spare.append(drawer)
        if self.asleep:
            self.rouse()
        return True

    def draw(self, drawer: Drawer | None, number: int, by: int = 0) -> Slice | None:
        """Take so many items, or fewer; None if there are none.

        Args:
            drawer: Who calls them one after the other: he can lose those that he has not started, and
                what becomes of them is seen while it happens.
            number: So many at most. While calls are short, a share of what there is.
            by: The drawer's number, if he has the slice for himself.
        """
        with self.lock:
            if drawer is not None:
                if drawer.gone:
                    return None
                drawer.slice = None
            if not self.todo or self.closing:
                return None
            base, items, taken = self.todo[0]
            if self.auto and number > 1:
                number = min(number, 1 + self.waiting // (2 * max(len(self.active), 1)))
            if number < len(items) - taken:
                self.todo[0] = (base, items, taken + number)
                part = items[taken : taken + number]
            else:
                self.todo.popleft()
                part = items[taken:] if taken else items
            self.waiting -= len(part)
            piece = Slice(base + taken, part, by, time.perf_counter())
            if drawer is not None:
                piece.drawer = drawer.number
                drawer.slice = piece
                self.results.append(piece)
        return piece

    def cut(self, piece: Slice) -> list[str]:
        """Take back what has not been started of a slice. Lock held."""
        back: list[str] = []
        try:
            while True:
                back.append(piece.todo.pop())
        except IndexError:
            pass
        back.reverse()
        piece.size -= len(back)
        return back

    def put_back(self, piece: Slice) -> None:
        """Let others have what has not been started of a slice. Lock held."""
        back = self.cut(piece)
        if back and not self.closing:
            self.todo.appendleft((piece.base + piece.size, back, 0))
            self.waiting += len(back)

    def recall(self, piece: Slice) -> None:
        """The same, and see to it that somebody takes it."""
        with self.lock:
            self.put_back(piece)
        self.staff()

    def give_back(self, items: Iterable[tuple[int, str]]) -> None:
        """Put back what was taken and not started: places and items."""
        with self.lock:
            if not self.closing:
                for place, item in reversed(list(items)):
                    self.todo.appendleft((place, [item], 0))
                    self.waiting += 1
        self.staff()

    def claim(self, drawer: Drawer) -> bool:
        """The call has ended: whether it did so before it was written off."""
        with self.lock:
            drawer.current = None
            return not drawer.gone

    def failure(self, drawer: Drawer, error: BaseException) -> Failure | None:
        """The failure to report; None for a call that was told to end, or has failed already."""
        if drawer.gone or (isinstance(error, CancelledError) and drawer.token.cancelled):
            return None
        self.failed()
        return describe(error, self.verbose)

    def failed(self) -> None:
        """A call has failed: see at once to it that no more are started, if it was one too many."""
        with self.lock:
            self.allowed -= 1
            drawers = self._halt() if self.allowed == 0 else []
        for drawer in drawers:
            drawer.recall(time.perf_counter())

    def prepared(self, drawer: Drawer, call: Call) -> Call:
        """The call with its retries."""
        if self.retries is None:
            return call

        def note(attempt: int, pause: float) -> None:
            current = drawer.current
            if current is not None:
                self._note(f"{current[1]!r} failed, try {attempt}; again in {pause:.3g} s")
                drawer.current = (current[0], current[1], time.perf_counter() + pause)

        limiter, token = self.limiter, drawer.token
        if limiter is not None:
            first = True

            def limited(item: str) -> str:
                nonlocal first
                if not first:
                    limiter.wait(token)
                first = False
                return call(item)

            again = self.retries.wrap(limited, token, note)

            def start(item: str) -> str:
                nonlocal first
                first = True
                return again(item)

            return start
        return self.retries.wrap(call, token, note)

    def too_late(self, current: tuple[int, str, float], now: float, number: int) -> None:
        """A call has run out of time: once more, or a failure."""
        index, item, began = current
        tries = self._tries.get(index, 0)
        if self.retries is not None and tries < self.retries.number:
            self._tries[index] = tries + 1
            self._note(f"{item!r} took longer than {self.timeout:g} s, try {tries + 1}")
            self.give_back([(index, item)])
            return
        self._tries.pop(index, None)
        self.failed()
        failure = Failure("TimeoutError", f"took longer than {self.timeout:g} s", "", "")
        self.report(index, item, None, failure, began, now, number)
        self.staff()

    def report(
        self,
        place: int,
        item: str,
        text: str | None,
        failure: Failure | None,
        began: float,
        ended: float,
        by: int,
    ) -> None:
        """What became of one item, for those who do not call slices."""
        piece = Slice(place, [item], by, began)
        if text is None:
            piece.failures[0] = failure
        piece.texts.append(text)
        piece.times.append(ended)
        self.results.append(piece)

    def broken(self, drawer: Drawer, error: BaseException) -> None:
        """A drawer cannot go on, for a reason that is none of the item's."""
        with self.lock:
            if drawer in self.active:
                self.active.remove(drawer)
            self.trouble = self.trouble or error
        self.rouse()

    def rouse(self) -> None:
        """Wake the main thread."""
        self.asleep = False
        self._bell.put(None)

    # -- for the main thread -----------------------------------------------------------------------

    def sleep(self, seconds: float) -> None:
        """Wait until there is something to see, or for so long."""
        self.asleep = True
        if not self.results:
            try:
                get_within(self._bell, seconds)
                while True:
                    self._bell.get_nowait()
            except queue.Empty:
                pass
        self.asleep = False

    @property
    def nimble(self) -> bool:
        """Whether `adapt` wants to be asked every few milliseconds."""
        return self._adaptive and self._alone and bool(self.active)

    def running(self) -> list[tuple[float, str]]:
        """Seconds and item of each call that is being made, the longest first."""
        now = time.perf_counter()
        calls = [drawer.at() for drawer in list(self.active)]
        found = [(now - call[2], call[1]) for call in calls if call is not None and call[2] <= now]
        return sorted(found, key=lambda pair: -pair[0])

    def tend(self, now: float, finished: int) -> None:
        """Whatever is due: calls that are too late, how many draw, who holds what."""
        drawers = list(self.active)
        if self.timeout is not None:
            for drawer in drawers:
                call = drawer.at()
                if call is not None and now - call[2] > self.timeout:
                    drawer.expire(now)
        if self._adaptive:
            for drawer in drawers:
                drawer.recall(now)
            self.adapt(now, finished, drawers)
        elif not self.todo and len(drawers) < self.jobs:
            for drawer in drawers:
                drawer.recall(now)

    def adapt(self, now: float, finished: int, drawers: list[Drawer]) -> None:
        """Decide how many may draw: one, or all.

        One is what a run begins with. If its call is long, all may. If calls are short, both ways are measured
        in turn: all go on if they were faster `_WINS` times one after the other, as other programs on the
        machine make one measurement a matter of luck; else one does, from the first time on. The other way
        is tried again later, more rarely each time. Who is at a long call does not count.
        """
        began, before = self._phase
        spent, done = now - began, finished - before
        if self._alone:
            stalled = 0
            for drawer in drawers:
                current = drawer.at()
                stalled += current is not None and now - current[2] > _STALL
            if stalled and done * _SHORT < spent:
                self._settle(False, now, finished, 0.5)
            elif stalled or self.limit != 1:
                self.limit = min(self.jobs, 1 + stalled)
                self.staff()
            elif spent >= _PROBE and done:
                if spent / done > _SHORT:
                    self._settle(False, now, finished, 0.5)
                elif now < self._hold or (spent / done < _TINY and _HAS_GIL):
                    self._phase = (now, finished)  # of calls so short, all could not make more
                else:
                    self._alone_rate = done / spent
                    self._switch(False, now, finished, 0.0)
        elif spent >= _PROBE and now >= self._hold:
            if self._alone_rate is None:
                if done * _SHORT > spent:
                    self._switch(True, now, finished, 0.0)
                else:
                    self._switch(False, now, finished, 0.5)
            elif done / spent > self._alone_rate * _GAIN:
                self._won += 1
                if self._won < _WINS:
                    self._switch(True, now, finished, 0.0)
                else:
                    self._be_patient(False, now, finished)
            else:
                self._be_patient(True, now, finished)
        elif self._hold and now < self._hold and spent > 2 * _PROBE:
            # What is measured is the last moment before the decision.
            self._phase = (now, finished)

    def _be_patient(self, alone: bool, now: float, finished: int) -> None:
        self._patience = min(8.0, self._patience * 2)
        self._settle(alone, now, finished, self._patience)

    def _settle(self, alone: bool, now: float, finished: int, hold: float) -> None:
        """Go on so for so many seconds, before both ways are measured anew."""
        self._alone_rate = None
        self._won = 0
        self._switch(alone, now, finished, hold)

    def _switch(self, alone: bool, now: float, finished: int, hold: float) -> None:
        self._alone = alone
        self.limit = 1 if alone else self.jobs
        self._phase = (now, finished)
        self._hold = now + hold
        self.staff()

    def stuck(self) -> bool:
        """Whether so many calls ignore their time limit that nobody is left to go on."""
        return bool(self.written_off) and not self.active and bool(self.todo)

    # -- the end -----------------------------------------------------------------------------------

    def stop(self, reason: str) -> None:
        """Start nothing more, and tell what runs."""
        with self.lock:
            drawers = self._halt()
        for drawer in drawers:
            drawer.recall(time.perf_counter())
        self.token.cancel(reason)

    def _halt(self) -> list[Drawer]:
        """Start nothing more; who may have something in stock. Lock held."""
        self.closing = True
        self.todo.clear()
        self.waiting = 0
        for drawer in self.active:
            if drawer.slice is not None:
                self.cut(drawer.slice)
        return list(self.active)

    def finish(self) -> bool:
        """Let go of everything; False if something runs on that cannot be stopped."""
        with self.lock:
            self.closing = True
            drawers = [*self.active, *self.spare]
            active = list(self.active)
        for drawer in active:
            drawer.end()
        for drawer in drawers:
            if drawer not in active:
                drawer.close()
        self.token.cancel("futurepool map ends")
        try:
            self.pool.stop(0.5 if active else 0.2)
        except ForcedShutdownError:
            return False
        for drawer in active:
            drawer.let_go()
        return True
