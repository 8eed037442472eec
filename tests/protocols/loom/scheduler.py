"""Tasks, and the one place that decides which of them runs next.

Every "thread" of a scenario is a greenlet, a `Task`, and all of them live in the one real thread
that runs the test. So nothing ever happens at the same time, and a switch happens only where a
task asks for a decision:

- at a *point*: just before an instrumented bytecode instruction (`instrument`) or before an
  operation of a modelled primitive (`models`). The strategy may let the task go on or run another;
- in `block()`: a point with a condition, a `Gate`. A task parked there is ready only while the gate
  is open. So a task about to take a held lock is never chosen, which is the cheapest reduction of
  the state space there is, and "nothing is ready" is exactly a deadlock.

A schedule is the list of decisions that had more than one option. The default (go on with the
current task, else the lowest index) is not written down; what is left, `{decision: choice}`, is
the replay string. A choice `i` runs task i; `~i` makes task i's pending time-out happen.

Time is virtual. It moves when nothing is ready but somebody waits with a time-out (then it jumps to
the earliest deadline), by one `TICK` at each reading, and, if `early_timeouts` allows so many a
run, to a deadline at any decision: an arbitrarily slow machine.

A run has three phases: `build` and `check` run as tasks without exploration (they switch only when
they block); in between the scenario's callables are explored until they have ended and nothing else
can move. Tasks made by `start` (workers) may be left asleep then; callables may not.
"""

from __future__ import annotations

import sys
from _thread import get_ident
from bisect import insort
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

import greenlet

from .tasks import Deadlock, Gate, Livelock, Task, name_of, where

if TYPE_CHECKING:
    from .strategies import Strategy

__all__ = ["TICK", "Scheduler", "running"]

TICK = 1e-6

#: How often a task may carry on after its run, by waiting anew, and by anything at all.
_POLITE, _PATIENCE = 3, 1000
_undead: list[Task] = []

#: A switch is made inside a trace callback, where the interpreter has switched tracing off for the
#: thread. call_tracing() switches it on again for the other tasks; without it only the first one
#: would have switch points.
_call_tracing = sys.call_tracing


class Scheduler:
    """One run of one scenario under one schedule."""

    def __init__(
        self,
        chooser: Strategy,
        *,
        tracer: Any = None,
        early_timeouts: int = 0,
        max_steps: int = 20_000,
        refuse_starts: frozenset[int] = frozenset(),
        traced: bool = False,
    ) -> None:
        self.chooser = chooser
        self.tracer = tracer  # for sys.settrace, where that is how points are made
        self.early_timeouts = early_timeouts
        self.max_steps = max_steps
        self.refuse_starts = refuse_starts
        self.starts = 0
        self.hub = greenlet.getcurrent()
        self.thread = get_ident()
        self.tasks: list[Task] = []
        self.foreground: list[Task] = []
        self.ready: list[int] = []  # sorted
        self.timed: list[Task] = []  # blocked, with a deadline
        self.current: Task | None = None
        self.exploring = False
        self.ended = False
        self.error: BaseException | None = None
        self.now = 0.0
        self.steps = 0
        self.decisions = 0
        self.deviations: dict[int, int] = {}
        self.message = ""  # of the error, before unwinding changes what it shows
        self._idles = 0  # operations outside exploration
        self._refused = 0
        self.trace: list[tuple[Task, str, str]] | None = [] if traced else None

    # -- a run ----------------------------------------------------------------------------

    def run(self, build: Callable[[], Any]) -> None:
        """Build, explore, check; raises what went wrong. The scheduler is used up afterwards."""
        global _active
        previous, _active = _active, self
        Gate.numbers.clear()
        try:
            made: list[Any] = []
            self._phase([self.spawn(lambda: made.append(build()), "build")])
            callables, check = made[0]
            tasks = [self.spawn(fn, name_of(fn)) for fn in callables]
            self.exploring = True
            self._phase(tasks, settle=True)
            self.exploring = False
            if check is not None:
                self._phase([self.spawn(check, "check")])
        except BaseException as error:
            self.message = str(error)
            raise
        finally:
            try:
                self._kill()
            finally:
                _active = previous

    def spawn(self, fn: Callable[[], Any], name: str) -> Task:
        """A new task, ready to run."""
        task = Task(self, fn, name)
        self.tasks.append(task)
        self.ready.append(task.index)
        return task

    def body(self, task: Task, fn: Callable[[], Any]) -> None:
        """The outermost frame of each task."""
        if self.tracer is not None:
            sys.settrace(self.tracer)
        try:
            fn()
        except BaseException as error:
            if not self.ended and self.error is None:
                self.error = error
        if not self.ended:
            task.locals.clear()
            self.ready.remove(task.index)
            task.done = True
            task.finished.set_open()

    def _phase(self, foreground: list[Task], settle: bool = False) -> None:
        """Run until the foreground has ended and, to settle, nothing else can move."""
        self.foreground = foreground
        while settle or not all(task.done for task in foreground):
            task = self._next()
            if task is None:
                break
            self.current = task
            task.glet.switch()
            self.current = None
            if self.error is not None:
                raise self.error
        stuck = [task for task in self.tasks if not task.done]
        if any(task in foreground for task in stuck):
            lines = [f"\n  {t!r} waits for {t.gate!r} at {t.where()}" for t in stuck]
            raise Deadlock("nothing can run" + "".join(lines))

    def _kill(self) -> None:
        """Unwind the tasks that are left, so that no greenlet outlives its run.

        A worker may be written to survive any exception. If it waits again and again, every point
        raises, those in its handlers too, until one gets through.
        """
        self.ended = True
        hook, sys.unraisablehook = sys.unraisablehook, lambda _: None  # finalizers are struck too
        for task in self.tasks:
            if task.gate is not None:
                task.gate.waiters.clear()
        for task in self.tasks:
            self.current = task
            self.exploring = False
            self._refused = self._idles = 0
            if task.glet:  # started, and not ended
                with suppress(BaseException):  # whatever its finally blocks raise
                    task.glet.throw(greenlet.GreenletExit)
            task.locals.clear()
            task.call = None
        sys.unraisablehook = hook
        self.current = None
        self.exploring = False
        alive = [task for task in self.tasks if task.glet]
        self.tasks, self.foreground = [], []
        if alive:
            _undead.extend(alive)  # deallocation would wake them once more
            raise RuntimeError(f"cannot be unwound, so the scenario has to end it: {alive}")

    def _refuse(self) -> NoReturn:
        """Make a task leave that runs on after the end."""
        self._refused += 1
        self.exploring = self._refused > _POLITE
        if self._refused > _PATIENCE:
            self._switch(None)
        raise greenlet.GreenletExit

    # -- decisions ------------------------------------------------------------------------

    def _next(self) -> Task | None:
        """The task to go on with, by the strategy if there is a choice; None if nothing can."""
        options = self.ready
        if self.timed:
            if not options:
                if all(task.done for task in self.foreground):
                    return None
                first = min(t.deadline for t in self.timed if t.deadline is not None)
                self.now = max(self.now, first)
            now, early = self.now, self.early_timeouts > 0 and bool(options)
            late = [~t.index for t in self.timed if early or (t.deadline or 0.0) <= now]
            options = options + late
        if not options:
            return None
        current = self.current
        index = current.index if current is not None and current.index in self.ready else None
        choice = default = options[0] if index is None else index
        if len(options) > 1 and self.exploring:
            self.decisions += 1
            choice = self.chooser.choose(options, index)
            if choice != default:
                self.deviations[self.decisions] = choice
        if choice >= 0:
            return self.tasks[choice]
        task = self.tasks[~choice]
        if task.deadline is not None and task.deadline > self.now:
            self.now = task.deadline
            self.early_timeouts -= 1
        task.timed_out = True
        self.wake(task)
        return task

    def point(self, what: str = "") -> None:
        """A place where the running task may be interrupted."""
        task = self.current
        if task is None or not self.exploring:
            self._idle()
            return
        if self.ended:
            self._refuse()
        self._step(what)
        if len(self.ready) == 1 and not self.timed:
            return
        chosen = self._next()
        if chosen is not None and chosen is not task:
            self._switch(chosen)

    def block(self, gate: Gate, timeout: float | None = None, what: str = "") -> bool:
        """A point, then wait until the gate is open; False if the time ran out before."""
        task = self.current
        if task is None or not self.exploring:
            self._idle()
            if gate.open or task is None:
                return True
        if self.ended:
            self._refuse()
        self._step(f"{what} {gate!r}")
        gate.waiters.append(task)
        task.gate = gate
        if timeout is not None:
            task.deadline = self.now + timeout
        if not gate.open:
            self.unready(task)
        chosen = self._next()
        if chosen is not task:
            self._switch(chosen)
        gate.waiters.remove(task)
        task.gate = task.deadline = None
        timed_out, task.timed_out = task.timed_out, False
        return not timed_out

    def _idle(self) -> None:
        """An operation that is no point; only endless loops are stopped."""
        self._idles += 1
        if self.current is not None and self._idles > self.max_steps:
            if self.ended:
                self._refuse()
            self._give_up()

    def _step(self, what: str) -> None:
        self.steps += 1
        if self.trace is not None and self.exploring and self.current is not None:
            self.trace.append((self.current, where(sys._getframe(1)), what))
        if self.steps > self.max_steps:
            self._give_up()

    def _give_up(self) -> None:
        self.error = self.error or Livelock(f"no end after {self.max_steps} steps")
        self._switch(None)

    def _switch(self, task: Task | None) -> None:
        """Go on with `task`, or with the hub if there is nothing to run."""
        if task is None:
            _call_tracing(self.hub.switch, ())
        else:
            self.current = task
            _call_tracing(task.glet.switch, ())

    def unready(self, task: Task) -> None:
        if task.index in self.ready:
            self.ready.remove(task.index)
            if task.deadline is not None:
                self.timed.append(task)

    def wake(self, task: Task) -> None:
        if task.index not in self.ready:
            insort(self.ready, task.index)
            if task in self.timed:
                self.timed.remove(task)


#: The run in progress. Models and switch points ask for it at each call.
_active: Scheduler | None = None


def running() -> Scheduler | None:
    """The run in progress in this very thread, if any.

    Another one, that an earlier test has left behind, may come by at any time: the process's timer does.
    """
    run = _active
    return run if run is not None and run.thread == get_ident() else None
