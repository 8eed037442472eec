"""Running a scenario under many schedules, and telling what went wrong under one of them."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from .instrument import instrumented
from .patches import Rebind, installed, rebound
from .scheduler import Scheduler
from .strategies import DFS, PCT, Diverged, RandomWalk, Replay, Strategy, render
from .tasks import Deadlock, Livelock

__all__ = ["Failure", "Report", "Scenario", "expect_failure", "explore", "replay"]

#: What a scenario's `build` returns: the callables to interleave, and what must hold afterwards.
Build = Callable[[], tuple[Sequence[Callable[[], Any]], "Callable[[], Any] | None"]]

_COLLECT_EVERY = 200  # schedules


class Failure(AssertionError):
    """A schedule under which the scenario fails.

    Attributes:
        kind: "deadlock", "livelock", "assertion" or "exception".
        schedule: The replay string.
        schedules: How many were run to find it.
        trace: Who ran what, one line for each turn. The last step of a turn is the one it stood
            before when another took over.
    """

    def __init__(self, error: BaseException, run: Scheduler, schedules: int) -> None:
        kinds = {Deadlock: "deadlock", Livelock: "livelock", AssertionError: "assertion"}
        self.kind = next((k for c, k in kinds.items() if isinstance(error, c)), "exception")
        self.schedule = render(run.deviations)
        self.schedules = schedules
        self.trace = _readable(run)
        super().__init__(
            f"{self.kind}: {run.message or str(error) or type(error).__name__}\n"
            f"{self.trace}\n"
            f"found by schedule {schedules}; replay it with schedule {self.schedule!r}"
        )


@dataclass(frozen=True)
class Report:
    """What an exploration without a failure has covered."""

    schedules: int
    seconds: float
    complete: bool  # every schedule in reach of the strategy was run
    longest: int  # points in the longest run

    @property
    def rate(self) -> float:
        """Schedules a second."""
        return self.schedules / self.seconds if self.seconds else float("inf")

    def __str__(self) -> str:
        extent = "all" if self.complete else "the first"
        return (
            f"{extent} {self.schedules} schedules in {self.seconds:.2f} s "
            f"({self.rate:.0f}/s), up to {self.longest} points"
        )


@dataclass(frozen=True)
class Scenario:
    """What to run, and how finely.

    Args:
        build: Called anew for each schedule, in a task: it may use the package, and block. It
            returns the callables to interleave, and a check for the end (or None), which may also.
        code: Modules, classes or functions whose instructions are switch points.
        granularity: "op" for the instructions that touch shared state, or "instruction" for all.
        volatile: Attribute names assigned where `code` does not show it; see `instrument`.
        early_timeouts: How many time-outs a run may let happen before their time.
        max_steps: The longest a run may be; beyond that it is a livelock.
        rebind: (module, name, factory) of globals to make anew for each schedule.
        refuse_starts: Which thread starts, counted from 0, fail.
    """

    build: Build
    code: Iterable[Any] = ()
    granularity: str = "op"
    volatile: Iterable[str] = ()
    early_timeouts: int = 0
    max_steps: int = 20_000
    rebind: Rebind = ()
    refuse_starts: Iterable[int] = ()

    def explore(
        self,
        strategy: Strategy | None = None,
        limit: int = 10_000,
        seconds: float | None = None,
        shrink: bool = True,
    ) -> Report:
        """Run up to `limit` schedules; the first that fails raises `Failure`.

        Args:
            strategy: `DFS(2)` unless told otherwise.
            limit: How many schedules at most.
            seconds: How long at most.
            shrink: Look for a simpler failing schedule before reporting it.
        """
        strategy = DFS() if strategy is None else strategy
        began = time.perf_counter()
        count = longest = 0
        if strategy.complete:
            raise ValueError("the strategy is used up; make a new one for each exploration")
        with self._prepared() as tracer:
            while count < limit and strategy.begin():
                count += 1
                error, run = self._once(strategy, tracer)
                strategy.end()
                longest = max(longest, run.steps)
                if isinstance(error, Diverged):
                    raise error
                if error is not None:
                    self._report(error, run, tracer, count, shrink)
                if count % _COLLECT_EVERY == 0:
                    gc.collect()
                    if seconds is not None and time.perf_counter() - began >= seconds:
                        break
            if count == limit and isinstance(strategy, DFS):
                strategy.begin()  # was that all?
        return Report(count, time.perf_counter() - began, strategy.complete, longest)

    def replay(self, schedule: str) -> None:
        """Run one schedule; raises `Failure` if it fails."""
        with self._prepared() as tracer:
            error, run = self._once(Replay(schedule), tracer, traced=True)
            if error is not None:
                raise Failure(error, run, 1) from error

    def expect_failure(
        self,
        *strategies: Strategy,
        limit: int = 10_000,
        kind: str | None = None,
        shrink: bool = False,
    ) -> Failure:
        """Insist that each strategy (DFS, random and PCT unless told otherwise) finds a failure.

        Returns:
            The failure found by the last one.
        """
        failure = None
        for strategy in strategies or (DFS(), RandomWalk(), PCT()):
            name = type(strategy).__name__
            try:
                report = self.explore(strategy, limit, shrink=shrink)
            except Failure as caught:
                failure = caught
            else:
                raise AssertionError(f"{name} found no failure in {report}")
            if kind not in (None, failure.kind):
                raise AssertionError(f"{name} found another kind of failure") from failure
        assert failure is not None
        return failure

    @contextmanager
    def _prepared(self) -> Iterator[Any]:
        """Instrument and put the models in place; keep the collector out of the runs."""
        enabled = gc.isenabled()
        frozen = gc.get_freeze_count() > 0
        gc.collect()
        gc.freeze()  # so that collecting between runs looks at theirs only
        gc.disable()
        try:
            with instrumented(self.code, self.granularity, self.volatile) as tracer, installed():
                yield tracer
        finally:
            if not frozen:  # else somebody else wants to have it so
                gc.unfreeze()
            if enabled:
                gc.enable()

    def _once(
        self, strategy: Strategy, tracer: Any, traced: bool = False
    ) -> tuple[BaseException | None, Scheduler]:
        run = Scheduler(
            strategy,
            tracer=tracer,
            early_timeouts=self.early_timeouts,
            max_steps=self.max_steps,
            refuse_starts=frozenset(self.refuse_starts),
            traced=traced,
        )
        with rebound(self.rebind):
            try:
                run.run(self.build)
            except BaseException as error:
                return error, run
        return None, run

    def _report(
        self, error: BaseException, run: Scheduler, tracer: Any, count: int, shrink: bool
    ) -> None:
        """Raise the failure, by as few deviations as we can find, traced."""
        best = dict(run.deviations)
        for number in sorted(best, reverse=True) if shrink else ():
            fewer = {k: c for k, c in best.items() if k != number}
            if self._once(Replay(fewer), tracer)[0] is not None:
                best = fewer
        again, traced = self._once(Replay(best), tracer, traced=True)
        if again is None:
            raise Diverged("the failure does not repeat under the same schedule") from error
        raise Failure(again, traced, count) from again


def explore(
    build: Build, strategy: Strategy | None = None, limit: int = 10_000, **options: Any
) -> Report:
    """`Scenario(build, **options).explore(strategy, limit)`."""
    return Scenario(build, **options).explore(strategy, limit)


def replay(build: Build, schedule: str, **options: Any) -> None:
    """`Scenario(build, **options).replay(schedule)`."""
    Scenario(build, **options).replay(schedule)


def expect_failure(
    build: Build, *strategies: Strategy, limit: int = 10_000, **options: Any
) -> Failure:
    """`Scenario(build, **options).expect_failure(*strategies, limit=limit)`."""
    return Scenario(build, **options).expect_failure(*strategies, limit=limit)


def _readable(run: Scheduler) -> str:
    """One line for each turn of a task: the lines it ran, and the operations on primitives."""
    turns: list[tuple[Any, list[str]]] = []
    for task, place, what in run.trace or ():
        if not turns or turns[-1][0] is not task:
            turns.append((task, []))
        step = f"{place} {what}".rstrip()
        steps = turns[-1][1]
        if not steps or steps[-1] != step:
            steps.append(step)
    lines = []
    for task, steps in turns:
        file = ""
        short = []
        for step in steps:
            name, _, rest = step.partition(":")
            short.append(rest if name == file else step)
            file = name
        lines.append(f"  {task!r}: " + ", ".join(short))
    return "\n".join(lines)
