"""What the package says in the log (logger `futurepool`), and when.

**Not from anywhere.** A log handler has a lock, and may do what it likes under it: put the record into
a queue, submit to a pool. So nothing is logged by a finalizer, which runs in the middle of whatever the
collector interrupts, nor by a worker, for whose next turn the holder of that lock may be waiting. It is
put into an inbox, by one C call, and said by a thread of its own, which nobody waits for. That thread is
started by whoever finds none, and ends when it has had nothing to do for a while:

    `later` puts, then tries the lock `_owned`; who gets it, starts the thread, which is its owner then
    the thread takes from the inbox until that stays empty, lets go of the lock, and looks once more

So what is put is found by the owner's last look, or its putter gets the lock. A finalizer must not wait
for a thread to start, nor take the locks of `threading`: it starts a bare one, which does the rest.

**Not lost.** At exit, after all threads have been joined, what is left is said by the main thread.
`before_exit` collects what would only be found out while the interpreter is being taken apart.

**Not silenced by accident.** `logging.config.dictConfig` by default disables every logger that exists and
that it does not name. So this one is asked for anew each time, and one that was disabled together with
`_witness`, which nobody knows, was not meant: its records go to the handlers above even then.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

from futurepool import _sync

_NAME = "futurepool"
_witness = logging.getLogger(f"{_NAME}.witness")
_IDLE = 0.5  # seconds without anything to say after which the thread ends
_PATIENCE = 1.0  # seconds that somebody waits for what is to be said

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]


def emit(
    level: int,
    message: str,
    *args: object,
    exc_info: ExcInfo | None = None,
    pool: str | None = None,
    task_id: int | None = None,
    task_name: str | None = None,
    depth: int = 1,
) -> None:
    """Log here and now. The record has `pool`, `task_id` and `task_name` as attributes.

    It shows the caller's line, `depth` frames up.
    """
    logger = logging.getLogger(_NAME)
    by_accident = logger.disabled and _witness.disabled
    if logger.disabled and not by_accident:
        return
    if logger.manager.disable >= level or level < logger.getEffectiveLevel():
        return
    code = sys._getframe(depth)
    record = logger.makeRecord(
        *(_NAME, level, code.f_code.co_filename, code.f_lineno, message, args, exc_info),
        func=code.f_code.co_name,
    )
    # Not as `extra`, which is refused where a record has such an attribute from elsewhere.
    vars(record).update(pool=pool, task_id=task_id, task_name=task_name)
    if not by_accident:
        logger.handle(record)
    elif logger.filter(record):
        logger.callHandlers(record)


class Log:
    """`emit`, called as a logger is."""

    def warning(self, message: str, *args: object, extra: dict[str, Any] | None = None) -> None:
        """Log a warning; `extra` has what `emit` takes."""
        emit(logging.WARNING, message, *args, depth=2, **extra or {})

    def error(self, message: str, *args: object, exc_info: BaseException | None = None) -> None:
        """Log an error, with the traceback of an exception."""
        info = None if exc_info is None else (type(exc_info), exc_info, exc_info.__traceback__)
        emit(logging.ERROR, message, *args, exc_info=info, depth=2)

    def exception(self, message: str, *args: object) -> None:
        """Log an error with the exception that is being handled."""
        kind, error, traceback = sys.exc_info()
        info = None if kind is None or error is None else (kind, error, traceback)
        emit(logging.ERROR, message, *args, exc_info=info, depth=2)


log: Log = Log()


class Desk:
    """The inbox, and the thread that serves it. There is one per process for the log, `desk`."""

    __slots__ = ("_inbox", "_name", "_owned", "_owner")

    def __init__(self, name: str = "futurepool-log") -> None:
        self._name = name  # of the thread
        self.reset()

    def reset(self) -> None:
        """Forget all: we are in the child of a fork, and what there was is the parent's to say."""
        self._inbox: _sync.SimpleQueue[Callable[[], object]] = _sync.SimpleQueue()
        self._owned: Any = _sync.Lock()
        self._owner: int | None = None

    def later(self, say: Callable[[], object]) -> None:
        """Call `say()` soon, in a thread of its own. From any thread, finalizer or signal handler."""
        self._inbox.put(say)
        self.ensure()

    def ensure(self) -> None:
        """See that there is a thread to serve the inbox. Cheap if there is."""
        owned = self._owned
        if owned.acquire(False):
            try:
                _sync.start_new_thread(self._begin, (owned,))
            except BaseException:  # there is none to be had: who comes next tries again, or the end
                owned.release()

    def settle(self) -> None:
        """Wait until all has been said that is to be, but not for long: a handler may be stuck."""
        if self._owned.locked() and self._owner != _sync.get_ident():
            parker = _sync.Parker()
            self._inbox.put(parker.release)
            parker.acquire(True, _PATIENCE)

    def drain(self) -> None:
        """Say all that is left, in this thread, but for what another is saying."""
        self.settle()
        if self._owned.acquire(False):
            try:
                while not self._inbox.empty():
                    _call(self._inbox.get_nowait())
            except _sync.Empty:
                pass
            finally:
                self._owned.release()

    def _begin(self, owned: Any) -> None:
        """In a bare thread: make one that has a name, for what the log shows of it."""
        try:
            _sync.start(_sync.new_thread(self._run, owned, name=self._name, daemon=True))
        except RuntimeError:  # no more threads, or no daemons in this subinterpreter
            self._run(owned)

    def _run(self, owned: Any) -> None:
        inbox = self._inbox
        self._owner = _sync.get_ident()
        while True:
            try:
                while True:
                    _call(inbox.get(timeout=_IDLE))
            except _sync.Empty:
                pass
            self._owner = None
            owned.release()
            if inbox.empty() or not owned.acquire(False):
                return
            self._owner = _sync.get_ident()


def _call(say: Callable[[], object]) -> None:
    try:
        say()
    except BaseException as error:  # a handler's
        threading.excepthook(
            threading.ExceptHookArgs(
                (type(error), error, error.__traceback__, threading.current_thread())
            )
        )


desk: Desk = Desk()

#: What to do before all is said that is to be.
before_exit: list[Callable[[], object]] = []


def _at_exit() -> None:
    for act in before_exit:
        act()
    desk.drain()


atexit.register(_at_exit)  # after logging's own, so it runs before that closes the handlers

if sys.platform != "win32" and hasattr(os, "register_at_fork"):  # pragma: no branch
    os.register_at_fork(after_in_child=desk.reset)
