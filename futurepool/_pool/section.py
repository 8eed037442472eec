"""Sections: the one mutex of a pool, what its sections leave to be done, and their repair.

A section is what one thread does between taking the mutex and releasing it. Rules:

1. **Nothing foreign runs inside**: no code of a user's, nothing that can block. What is left to be done
   (release a parker, wake who waits, start a thread) is appended to `deferred`; whoever leaves a section
   runs it, by `run_deferred`.
2. **A section may be interrupted at any instruction**, by Ctrl-C, an asynchronous exception or a failing
   allocation. States and containers change by single C calls, in an order in which every prefix is
   sound; the integers can be counted again from them. Everyone who enters a section ends in `repair` if
   an exception passes: `repairing` does that for methods. An exception is an interruption whatever its
   class: a refusal may come from a signal handler that asked another pool.
3. **A section may be re-entered** by a finalizer or a signal handler in the same thread. Entry points ask
   `mutex._is_owned()` first; one that finds itself inside changes nothing but `deferred`, where it leaves
   its work for the section's end (and `cancel` may turn PENDING into CANCELLED).

What is deferred has obligations of its own:

1. It may run twice: it stays in `deferred` until it has run, so an exception in between loses nothing.
2. Any thread may run it, and that thread may hold locks of a user's or run a loop. So it runs nothing of
   a user's, and does not block.
3. It is called outside of any section, and enters one if it needs to.
4. It does not call `run_deferred`: whoever runs it goes on with the rest.
5. No two are equal, as bound methods of one object are, unless it does not matter whether the second one is called at all. Two
   threads may call the same one, and each takes off one that equals it: if another was appended meanwhile, that
   goes, too, and nobody has called it since. A `functools.partial` equals itself only. (A future may be announced
   as often as one likes: its state is final.)

**Repair** has two steps. `repair` releases the mutex, withdraws the tasks whose submit is about to raise,
has the pool count everything again (`_rebuild`), and runs what is deferred. Before that it appends
`_rebuild` to what is deferred, by C calls only: the stack may be at its end, and then whoever comes by
next does the rest. Others may enter before it has counted. Wrong numbers do them no harm.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from futurepool import _sync
from futurepool._foreign import aside
from futurepool._future import CANCELLED, NOTIFIED, PENDING, Future

__all__ = ["NOBODY", "Section", "repairing", "unpark"]

AnyFuture = Future[Any]
P = ParamSpec("P")
T = TypeVar("T")

NOBODY = 0  # no thread's identifier, see `Section.unnotified`


def unpark(parker: Any) -> None:
    """Wake whoever sleeps at `parker`, or will; twice is as good as once."""
    try:
        parker.release()
    except RecursionError:  # a RuntimeError, too
        raise
    except RuntimeError:  # released already
        pass


class Section:
    """The mutex and what belongs to it. A pool is one, so that its hot paths reach both at once."""

    __slots__ = ("deferred", "mutex", "unnotified")

    def __init__(self) -> None:
        self.mutex: Any = _sync.RLock()
        self.deferred: deque[Callable[[], object]] = deque()  # any thread: single C calls only
        # Cancelled tasks -> the thread that has cancelled them and is about to call their callbacks;
        # NOBODY: whoever cancels their token. Any thread: single C calls only.
        self.unnotified: dict[AnyFuture, int] = {}

    def renew(self) -> None:
        """In the child of a fork, where no other thread is left: a free mutex, nothing to be done."""
        self.mutex = _sync.RLock()
        self.deferred.clear()
        self.unnotified.clear()

    def withdrawn(self, future: AnyFuture) -> None:
        """It is cancelled, as its submit raises; maybe said of one twice. Section held."""

    def _rebuild(self) -> None:
        """Count everything again, and act on it. Itself a section; may be deferred."""
        raise NotImplementedError

    def run_deferred(self) -> None:
        """Do what sections have left, as the head of this module says; nothing inside of one."""
        deferred = self.deferred
        if self.mutex._is_owned():
            return
        while deferred:
            try:
                act = deferred[0]
            except IndexError:  # another thread was faster
                return
            # The section that has left it may be going on, in another thread: wait for its end.
            try:
                # mutant deferred-waits-for-the-section
                self.mutex.acquire()
                # mutant deferred-waits-for-the-section
                self.mutex.release()
            except BaseException:
                # Not every caller repairs, and a repair ends with this.
                while self.mutex._is_owned():
                    self.mutex.release()
                raise
            # mutant deferred-is-done
            act()
            try:
                deferred.remove(act)
            except ValueError:
                pass

    def run_deferred_aside(self) -> None:
        """`run_deferred` for a thread that may hold conditions of futures, so in another one."""
        if self.deferred:
            aside.run(self.run_deferred)

    def repair(self, *futures: AnyFuture) -> None:
        """After an exception inside or near a section: no lock held, all counts right again.

        Those of `futures` that have not started are withdrawn: their submit is about to raise.
        """
        try:
            # First by C calls only: the stack may be at its end, with no room for the rest.
            self.mutex.__enter__()
            self.deferred.append(self._rebuild)
            for future in futures:
                if future._state is PENDING:
                    self.deferred.append(future._announce)
                    future._state = CANCELLED
            while self.mutex._is_owned():
                self.mutex.release()
            self._repair(futures)
        except BaseException:  # interrupted again
            self._repair(futures)
            raise

    def _repair(self, futures: tuple[AnyFuture, ...]) -> None:
        while self.mutex._is_owned():
            self.mutex.release()
        with self.mutex:
            for future in futures:
                if future._state is PENDING:
                    self.deferred.append(future._announce)
                    future._state = CANCELLED
                if future._state in (CANCELLED, NOTIFIED):
                    self.withdrawn(future)
            self._rebuild()
        # What this thread was about to tell when it was interrupted.
        me = _sync.get_ident()
        for future, by in self.unnotified.copy().items():
            if by == me:
                self.deferred.append(future._tell_aside)
                self.unnotified.pop(future, None)
        self.run_deferred()
        for future in futures:
            if future.cancelled():
                future._tell()


# With the class itself: a bound that is a string has annotationlib imported.
S = TypeVar("S", bound=Section)


def repairing(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    """For methods with sections: `repair` when one is interrupted.

    A `with` does not do: an exception may come just before it calls the lock's `__exit__`.
    """

    @functools.wraps(method)
    def repaired(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(self, *args, **kwargs)
        except BaseException:
            self.repair()
            raise

    return repaired
