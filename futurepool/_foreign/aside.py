"""Threads for what must not run in anybody else's: users' code that no thread of theirs asked for.

Done-callbacks run in the thread that finishes or cancels the future. Those of futures that a
deadline, a drop or a shutdown ends have no such thread: the one that came by may hold a lock they
want, run an event loop, or have other deadlines to see to. So they are handed to `aside.run`, and
whatever one of them waits for, nobody waits for it.

A job is run by a runner: a thread that takes one job after the other and ends when none is left. A
runner in `_ready` has still to look for a job. Nothing is forgotten, and no job stays behind one
that blocks:

    who hands over   appends the job, then looks for a ready runner; starts one if there is none
    a runner         leaves `_ready`, then takes a job; before it runs that, if there are more
                     jobs, it looks likewise; it joins `_ready` again before it takes the next

So for a job in the list there is a runner that has left `_ready` after the job came, and takes it
or another one; if another, it sees that this one is left. There is no lock, because who hands over
may be a finalizer or a signal handler: every step is one C call on a deque or a set. Interrupted
between appending and starting, a job waits for the next hand-over, or for `ensure`, which whoever
waits for a pool calls now and then. If no thread can be started, likewise.

With nothing to do there is no thread.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable

from futurepool import _logs, _sync

_log = _logs.log

Job = Callable[[], object]


class Aside:
    """Runs jobs in threads of its own. Any thread, finalizers and signal handlers included."""

    __slots__ = ("_jobs", "_ready", "threads")

    def __init__(self) -> None:
        self._jobs: deque[Job] = deque()
        self._ready: set[threading.Thread] = set()  # those that are to look for a job
        self.threads: set[threading.Thread] = set()  # all that have not ended

    def run(self, job: Job) -> None:
        """Run `job` soon, in a thread that nobody waits for. It may run twice, if interrupted."""
        self._jobs.append(job)
        # mutant job-gets-a-runner
        self.ensure()

    def ensure(self) -> None:
        """See that somebody comes for the jobs there are."""
        if not self._jobs:
            return
        for runner in self._ready.copy():
            if runner.is_alive():
                return
        itself: list[threading.Thread] = []
        runner = _sync.new_thread(self._serve, itself, name="futurepool-aside")
        itself.append(runner)
        self._ready.add(runner)
        self.threads.add(runner)
        try:
            _sync.start(runner)
        except BaseException as error:
            if runner.ident is None:
                self._ready.discard(runner)
                self.threads.discard(runner)
            if not isinstance(error, (RuntimeError, MemoryError)):
                raise
            # There is no thread to be had: the next who comes tries again.

    def _serve(self, itself: list[threading.Thread]) -> None:
        (me,) = itself
        again: Job | None = None
        try:
            while True:
                # mutant busy-runner-is-not-ready
                self._ready.discard(me)
                try:
                    job = self._jobs.popleft()
                except IndexError:
                    return
                try:
                    # mutant job-left-behind-is-seen
                    if self._jobs:
                        self.ensure()
                    job()
                except BaseException as error:
                    # Jobs deal with what users' code raises: this came from outside.
                    if job is again:
                        _log.error("a job of futurepool's was given up", exc_info=error)
                    else:
                        again = job
                        self._jobs.appendleft(job)
                del job
                self._ready.add(me)
        finally:
            self._ready.discard(me)
            self.threads.discard(me)

    def join(self, timeout: float | None = None, here: bool = False) -> bool:
        """Wait until there is nothing left to do, `timeout` seconds at most; True if so.

        Not for jobs, which would wait for themselves. `here`: where no thread can be started, this
        one does the jobs; at interpreter exit Python 3.12.0 and 3.12.1 start none.
        """
        end = None if timeout is None else _sync.clock() + timeout
        pause = _sync.Lock()
        pause.acquire()
        while True:
            self.ensure()
            runners = self.threads.copy()
            if not runners and not self._jobs:
                return True
            left = None if end is None else max(0.0, end - _sync.clock())
            if left == 0.0:
                return False
            for runner in runners:
                if runner.ident is not None:
                    _sync.join(runner, left)
                    break
            else:  # one is just being started, or none can be
                if here and not runners:
                    self._serve([threading.current_thread()])
                    continue
                # Not by `sleep_at`, which asks a clock that a test may have stopped.
                pause.acquire(True, 0.01 if left is None else min(left, 0.01))

    def _after_fork(self) -> None:
        """In the child: the jobs are the parent's, as the callbacks of its futures are."""
        self._jobs.clear()
        self._ready.clear()
        self.threads.clear()


_runners: Aside = Aside()


def run(job: Job) -> None:
    """`Aside.run` of the process's one."""
    _runners.run(job)


def ensure() -> None:
    """`Aside.ensure` of the process's one."""
    _runners.ensure()


def join(timeout: float | None = None, here: bool = False) -> bool:
    """`Aside.join` of the process's one."""
    return _runners.join(timeout, here)


def _after_fork() -> None:
    _runners._after_fork()


if sys.platform != "win32" and hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
