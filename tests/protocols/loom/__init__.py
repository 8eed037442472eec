"""An interleaving explorer: it runs a few threads' worth of code under every order of steps.

A stress test meets the schedules the operating system happens to produce; this one decides each
switch itself, so it finds in seconds what stress finds in years, proves that a deadlock is one, and
replays any failure from a short string. It works on real code: `futurepool._sync` is the only door
to threads, locks and time, and it is replaced by models that wait in our scheduler.

    def build():
        stack = Stack()
        def check():
            assert stack.items == [1]
        return [lambda: stack.push(1), stack.pop], check

    scenario = loom.Scenario(build, code=[Stack])
    report = scenario.explore(loom.DFS(2))         # raises loom.Failure: trace and replay string
    assert report.complete
    scenario.replay("17:1 40:~0")                  # that one schedule again

    with loom.mutate(stacks, "Stack.push", "self.ready.release()", "pass"):
        scenario.expect_failure(kind="deadlock")   # the model is able to fail

Where to read on: `scheduler` (how a run works), `instrument` (where it may switch), `strategies`
(how schedules are picked), `models` and `threads` (the primitives), `patches` (putting models in
place), `mutants` (of marked places), `explorer` (scenarios and reports).

Limits: switches happen between bytecode instructions, and memory is sequentially consistent, as
under the GIL. Objects whose order depends on addresses (a set of plain objects) make a scenario
differ from run to run; that is reported as `Diverged`.
"""

from __future__ import annotations

from .explorer import Failure, Report, Scenario, expect_failure, explore, replay
from .mutants import (
    ALWAYS,
    DROP,
    LATER,
    NEVER,
    UNGUARDED,
    WITHOUT_FIRST,
    WITHOUT_LAST,
    instead,
    marks,
    planted,
)
from .patches import mutate
from .strategies import DFS, PCT, Diverged, RandomWalk, Strategy
from .tasks import Deadlock, Livelock
from .threads import pause, sleep

__all__ = [
    "ALWAYS",
    "DFS",
    "DROP",
    "LATER",
    "NEVER",
    "PCT",
    "UNGUARDED",
    "WITHOUT_FIRST",
    "WITHOUT_LAST",
    "Deadlock",
    "Diverged",
    "Failure",
    "Livelock",
    "RandomWalk",
    "Report",
    "Scenario",
    "Strategy",
    "expect_failure",
    "explore",
    "instead",
    "marks",
    "mutate",
    "pause",
    "planted",
    "replay",
    "sleep",
]
