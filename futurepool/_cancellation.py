"""Cancellation: a token is handed down to whatever should stop, and cancelled once.

A token is cancelled by `cancel()`, by its deadline, or with its parent. That is final. Nothing here
takes a lock; every step that matters is one C call on a dict or set of the token, atomic on
free-threaded builds too, so any code may run between any two (finalizers, signal handlers).

Why each listener is called once, dropped before, or refused:
1. `_once.setdefault("reason", ...)` decides who cancels, keeps the reason and is the flag, at once.
2. Whoever takes a listener out of `_listeners` by `pop` owns it; the canceller pops and calls in one
   C call (`_fire`), so that no interrupt falls between.
3. Adding is: store, then look at the flag; if it is set, pop. The canceller sets the flag, then
   lists. So the canceller lists it, or the adder sees the flag; `pop` settles it if both do.
4. A child links itself to its parent, then looks at the parent's flag: likewise.
5. A link goes after all below it is done, so what an interrupt leaves is found by the next `cancel()`.
6. `_update_kept` after each change keeps `_kept` right: the last to write it has looked again after.

Downward links are weak. A token that somebody listens to must not vanish, so while it has
listeners it is in `_kept`: a dict in the root of its tree, which every token of the tree keeps alive,
or, with a deadline, in this module. So no chain of tokens is ever walked to listen or to look.
"""

from __future__ import annotations

import operator
import sys
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError
from functools import partial
from itertools import repeat
from typing import TYPE_CHECKING, Any, Protocol

from futurepool import _logs, _sync
from futurepool._deadlines import timer
from futurepool._errors import safe_text
from futurepool._errors.checks import NoCopy, check_callable, check_timeout
from futurepool._foreign import aside

if sys.version_info >= (3, 11):
    from typing import Self
else:
    from typing_extensions import Self

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["CancelToken"]

_log = _logs.log


class Listener(Protocol):
    """What is told of a cancellation. Hashed by identity."""

    def _token_cancelled(self, token: CancelToken, /) -> object:
        """By whoever cancels, in their thread: users' code may run."""
        ...

    def _token_expired(self, token: CancelToken, /) -> object:
        """In a thread that others wait for, as the timer's: users' code runs aside."""
        ...


class _Callback:
    """A function as a listener. It sits in the method's place, so to call it is one C call."""

    __slots__ = ("_due", "_token_cancelled")

    def __init__(self, fn: Callable[[CancelToken], object]) -> None:
        self._token_cancelled: Any = fn
        self._due = [None]

    def _token_expired(self, token: CancelToken) -> None:
        aside.run(partial(self._call_aside, token))

    def _call_aside(self, token: CancelToken) -> None:
        """Call it, if that was not done: an interruption may have handed it over twice."""
        try:
            self._due.pop()
        except IndexError:
            return
        _call(self, token)


class Opener:
    """A listener of the package's own: what it calls is quick, and calls nobody's code."""

    __slots__ = ("_token_cancelled", "_token_expired")

    def __init__(self, fn: Callable[..., object]) -> None:
        self._token_cancelled: Any = fn
        self._token_expired: Any = fn


class _Link(weakref.ref["CancelToken"]):
    """A parent's reference to a child. Compared by identity, which never runs code of a user's."""

    __slots__ = ()
    __eq__ = object.__eq__
    __ne__ = object.__ne__
    __hash__ = object.__hash__


_nobody = _Callback(id)  # stands for a listener that is gone

# Tokens with a deadline and listeners, by id: the timer alone would not keep them alive.
_timed: dict[int, CancelToken] = {}

# Who is draining what, by (thread, token): see `_drain`.
_draining: dict[tuple[int, int], FrameType] = {}


class CancelToken(NoCopy):
    """Says whether work should stop, to the work itself and to the pool.

    Tokens form trees: cancelling one cancels all below it. Leaving a `with` block over a token
    cancels it. All methods are safe from any thread, finalizer, signal handler and callback, and a
    token costs no thread: one timer thread serves all deadlines of the process.

    Args:
        timeout: Seconds until it cancels itself; None for no limit of its own, 0 for at once.
        parent: The token it is to be cancelled with, deadline included. It is kept alive.

    Raises:
        TypeError: `timeout` is no number or `parent` no token.
        ValueError: `timeout` is negative or NaN.
    """

    __slots__ = (
        "__weakref__",
        "_deadline",
        "_kept",
        "_listeners",
        "_once",
        "_parent",
        "_root",
        "_scheduled",
        "_timed_by",
        "_timeout",
    )

    #: Whether the tasks under it are one group, which has no other token.
    _gathers: bool = False

    _instead = (
        "what cancels it would not reach the other one; hand on its `remaining` seconds and make "
        "a CancelToken(timeout) of them there, or make a child()"
    )

    def __init__(self, timeout: float | None = None, *, parent: CancelToken | None = None) -> None:
        seconds = None if timeout is None else check_timeout("timeout", timeout)
        if parent is not None and not isinstance(parent, CancelToken):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"parent must be a CancelToken or None, not {safe_text(repr, parent)}")
        # Each key is set by one setdefault and stays: "reason" (a tuple of one), and, made when
        # first needed, "children" (a set of links), "kept" (in the root).
        self._once: dict[str, Any] = {}
        self._listeners: dict[Listener, Listener] = {}
        self._parent = parent
        self._timeout = seconds
        self._deadline = None if seconds is None else _sync.clock() + seconds
        self._timed_by: CancelToken | None = None  # the ancestor whose deadline it is; None: ours
        self._root: CancelToken | None = None  # None: we are the root
        self._scheduled = False  # our deadline, with the timer
        self._kept: dict[int, CancelToken] | None = None
        if parent is not None:
            self._join(parent)
        elif self._deadline is not None:
            self._kept = _timed

    def _join(self, parent: CancelToken) -> None:
        self._root = root = parent if parent._root is None else parent._root
        sooner = parent._deadline
        if sooner is not None and (self._deadline is None or sooner <= self._deadline):
            self._deadline = sooner
            self._timed_by = parent if parent._timed_by is None else parent._timed_by
        self._kept = root._once.setdefault("kept", {}) if self._deadline is None else _timed
        children = parent._once.get("children")
        if children is None:
            children = parent._once.setdefault("children", set())
        link = _Link(self, children.discard)  # a C function, which no interrupt can stop half-way
        children.add(link)
        fate = parent._once.get("reason")
        # mutant born-too-late-is-cancelled
        if fate is not None:
            self._once.setdefault("reason", fate)
            children.discard(link)

    # -- looking -----------------------------------------------------------------------------

    @property
    def cancelled(self) -> bool:
        """True once it is cancelled. Never late: looking after the deadline cancels it.

        Cost: one look into a dict, and at the clock if there is a deadline.
        """
        if "reason" in self._once:
            return True
        deadline = self._deadline
        if deadline is None or _sync.clock() < deadline:
            return False
        self._expire()
        return True

    @property
    def reason(self) -> object:
        """What `cancel` was given, or "deadline of 0.5 s passed"; None while not cancelled."""
        return self._once["reason"][0] if self.cancelled else None

    @property
    def remaining(self) -> float | None:
        """Seconds until the next deadline of its own or of any ancestor, 0.0 if that has passed.

        None if there is none. `cancel` does not change it.
        """
        deadline = self._deadline
        return None if deadline is None else max(0.0, deadline - _sync.clock())

    def raise_if_cancelled(self) -> None:
        """Raise if it is cancelled; what long-running work calls now and then.

        Raises:
            concurrent.futures.CancelledError: It is cancelled. The message is the reason; a
                reason that is an exception is also its cause.
        """
        if self.cancelled:
            reason = self.reason
            text = "cancelled" if reason is None else safe_text(str, reason)
            raise CancelledError(text) from (reason if isinstance(reason, BaseException) else None)

    def wait(self, timeout: float | None = None) -> bool:
        """Sleep until it is cancelled.

        Args:
            timeout: Seconds to wait at most; None waits for ever, and Ctrl-C interrupts it.

        Returns:
            True if it is cancelled, False if the time ran out.

        Raises:
            TypeError: `timeout` is no number.
            ValueError: `timeout` is negative or NaN.
        """
        limit = check_timeout("timeout", timeout)
        if self.cancelled:
            self._drain("_token_expired")  # what an interrupted `cancel` may have left
            return True
        if limit == 0:
            return False
        ends = [] if self._deadline is None else [self._deadline]
        if limit is not None:
            ends.append(_sync.clock() + limit)
        _sync.refresh()
        parker = _sync.Lock()
        parker.acquire()
        # A lock's `__exit__` takes three arguments: so to release it is one C call, like a listener.
        # mutant waiter-is-a-release
        waiter = Opener(partial(parker.__exit__, None, None))
        try:
            if self._listen(waiter):
                while not self.cancelled:
                    left = min(ends) - _sync.clock() if ends else None
                    if left is not None and left <= 0:
                        return self.cancelled
                    _sync.sleep_at(parker, left, int)  # there is nothing to look at
            return True
        finally:
            self._discard_listener(waiter)

    def __repr__(self) -> str:
        if "reason" in self._once:
            state = f"cancelled, reason={safe_text(repr, self._once['reason'][0])}"
        else:
            left = self.remaining
            state = "active" if left is None else f"active, {left:.3f} s remaining"
        return f"<{type(self).__name__} at {id(self):#x}: {state}>"

    # -- cancelling --------------------------------------------------------------------------

    def cancel(self, reason: object = None) -> bool:
        """Cancel it and all tokens below it.

        First all of them are marked, then the callbacks are called, here, in the order in which
        they were added to each token. What they raise is logged (logger `futurepool`), whatever it
        is. Another call, also from a callback, changes nothing, except that it finishes what an
        interrupted one left.

        Args:
            reason: Anything; `reason` and `raise_if_cancelled` show it.

        Returns:
            True if this call did it; False if it was cancelled before.
        Cost: proportional to the callbacks and the children; no recursion.
        """
        return self._cancel(reason, "_token_cancelled")

    def child(self, timeout: float | None = None) -> CancelToken:
        """Make a token that is cancelled with this one, and possibly sooner.

        Args:
            timeout: As for the class.

        Returns:
            The child. This token does not keep it alive, unless somebody listens to it.
        """
        return CancelToken(timeout, parent=self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.cancel("its with block was left")

    def _settled(self) -> bool:
        return "reason" in self._once

    def _expire(self) -> None:
        """The deadline has passed: cancel the token whose deadline it is, and so this one."""
        by = self if self._timed_by is None else self._timed_by
        by.cancel_aside(f"deadline of {by._timeout:g} s passed")
        if by is not self:  # and it was told, unless another's `cancel` of `by` is on its way here
            self.cancel_aside(by._once["reason"][0])

    def cancel_aside(self, reason: object) -> None:
        """`cancel`, by nobody who waits for callbacks: those of users run in threads of their own.

        For the package: after a deadline, whoever notices it, and when a `stop` runs out of time.
        """
        self._cancel(reason, "_token_expired")

    def _cancel(self, reason: object, tell: str) -> bool:
        fate = (reason,)
        try:
            first: bool = self._once.setdefault("reason", fate) is fate
            self._drain(tell)
        except BaseException:  # an interrupt: what has been announced is finished first
            if "reason" in self._once:
                self._drain(tell)
            raise
        return first

    def _drain(self, tell: str = "_token_cancelled") -> None:
        """Tell all below and all who listen; the flag is set. Finishes whatever others began.

        `tell` is the method of a `Listener` that is called.
        """
        if not self._listeners and not self._once.get("children"):
            self._update_kept()
            return
        # A callback that calls `cancel` again must not go deeper and deeper: the outer call does
        # the rest. The frame proves that there still is one; an interrupt may have left the note.
        place = (_sync.get_ident(), id(self))
        if _is_below(_draining.get(place)):
            return
        try:
            _draining[place] = sys._getframe()
            fate = self._once["reason"]
            tokens: list[CancelToken] = [self]
            links: list[tuple[set[_Link], _Link]] = []
            for token in tokens:  # which grows: level by level
                children: set[_Link] = token._once.get("children", set())
                for link in list(children):
                    child = link()
                    if child is not None:
                        child._once.setdefault("reason", fate)
                        tokens.append(child)
                        links.append((children, link))
            for token in tokens:
                token._fire(tell)
            while links:
                children, link = links.pop()
                children.discard(link)
        finally:
            _draining.pop(place, None)

    def _fire(self, tell: str) -> None:
        """Call all who listen, each at most once.

        In Python, but for interruptions between two of its steps::

            for listener in [*listeners]:
                if listeners.pop(listener, None) is not None:
                    try:
                        getattr(listener, tell)(self)
                    except BaseException as error:
                        report it

        Here `calls` is an iterator of which each step pops a listener and calls it, and `deque(calls, 0)`
        takes all steps. `rest` says how far it has come: by that we know whose exception it was, and
        whether it was anybody's. `_nobody` stands at the end, so that one which is left over is no
        listener, and in the place of each that somebody else has taken off.
        """
        listeners = self._listeners
        if listeners:
            call = operator.methodcaller(tell, self)
            todo = [*listeners, _nobody]
            rest = iter(todo)
            pop: Callable[[Listener, Listener], Listener] = listeners.pop
            calls = map(call, map(pop, rest, repeat(_nobody)))
            while before := operator.length_hint(rest):
                try:
                    deque(calls, maxlen=0)  # pops and calls, with no evaluation point in between
                except BaseException as error:  # noqa: PERF203 (only once for each failure)
                    left = operator.length_hint(rest)
                    if left in (before, 0):
                        raise  # from no listener: the last is `_nobody`, who raises nothing
                    listener = todo[-1 - left]
                    ours = tell != "_token_cancelled" or not isinstance(listener, _Callback)
                    if ours and not isinstance(error, Exception):
                        # One of ours raises nothing: it was interrupted, perhaps before its first
                        # step. It hears of it again, and `cancel` finishes the rest and raises.
                        getattr(listener, tell)(self)
                        raise
                    _report(listener, error)
                else:
                    left = operator.length_hint(rest)
                    if left:  # a StopIteration looks like the end to a map
                        _report(todo[-1 - left], StopIteration())
        self._update_kept()

    # -- listening ---------------------------------------------------------------------------

    def add_callback(self, fn: Callable[[CancelToken], object]) -> None:
        """Call `fn(token)` once when it is cancelled, in the thread that cancels it.

        If it is cancelled already, `fn` is called here and now. After a deadline it is called in a
        thread that nothing else waits for. What `fn` raises is logged (logger `futurepool`). Until
        then the token is kept alive by its ancestors and its deadline. A function added twice is
        called twice.

        Raises:
            TypeError: `fn` cannot be called.
        """
        check_callable("fn", fn)
        callback = _Callback(fn)
        if not self._add_listener(callback):
            _call(callback, self)

    def remove_callback(self, fn: Callable[[CancelToken], object]) -> int:
        """Take back every `add_callback` of a function equal to `fn` that was not called yet.

        Returns:
            How many there were.
        Cost: proportional to the number of callbacks and of tasks under the token.
        """
        callbacks = [x for x in list(self._listeners) if isinstance(x, _Callback)]
        mine = [x for x in callbacks if x._token_cancelled is fn or x._token_cancelled == fn]
        return sum(map(self._discard_listener, mine))

    def _marked(self) -> bool:
        """`cancelled`, without a look at the clock: it calls nobody."""
        return "reason" in self._once

    def _add_listener(self, listener: Listener, /) -> bool:
        """Call `listener._token_cancelled(self)` once when cancelled; False if it is already.

        A listener can be added once at a time. If this is interrupted, by any exception, the
        listener is not there any more. Cost: O(1), as for `_discard_listener`.
        """
        try:
            added = self._listen(listener)
            deadline = self._deadline
            if added and deadline is not None:
                by = self if self._timed_by is None else self._timed_by
                if by._scheduled:
                    timer.ensure()
                else:
                    timer.schedule(deadline, by)
                    by._scheduled = True  # after: an interrupt may make it two, but not none
        except BaseException:
            self._discard_listener(listener)
            raise
        return added

    def _listen(self, listener: Listener) -> bool:
        if self.cancelled:
            return False
        self._listeners[listener] = listener
        self._update_kept()
        # mutant too-late-to-listen-is-seen
        return "reason" not in self._once or not self._discard_listener(listener)

    def _discard_listener(self, listener: Listener, /) -> bool:
        """Forget a listener; False if it was not there (any more), so was or is being called."""
        found = self._listeners.pop(listener, None) is not None
        self._update_kept()
        return found

    def _update_kept(self) -> None:
        """Be in `_kept` while anybody listens. After every change of `_listeners`."""
        kept = self._kept
        if kept is None:
            return
        while True:
            wanted = bool(self._listeners)
            if not wanted:
                kept.pop(id(self), None)
            elif id(self) not in kept:
                kept[id(self)] = self
            # mutant kept-is-looked-at-again
            if bool(self._listeners) is wanted:
                return


def _is_below(frame: FrameType | None) -> bool:
    """True if `frame` is one of this thread's that are being executed."""
    here: FrameType | None = sys._getframe() if frame is not None else None
    while here is not None and here is not frame:
        here = here.f_back
    return here is not None


def _call(callback: _Callback, token: CancelToken) -> None:
    try:
        callback._token_cancelled(token)
    except BaseException as error:
        _report(callback, error)


def _report(listener: Any, error: BaseException) -> None:
    who = listener._token_cancelled if isinstance(listener, _Callback) else listener
    try:
        _log.error("exception in callback %s of a token", safe_text(repr, who), exc_info=error)
    except Exception:  # a handler's, or of the logging itself: the other callbacks go first
        pass
