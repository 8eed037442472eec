"""The two small vocabularies of submission: how urgent a task is, and what a full queue does."""

from __future__ import annotations

from enum import Enum, IntEnum

__all__ = ["OnFull", "Priority"]


class Priority(IntEnum):
    """Names for the usual priorities: LOW is 0, NORMAL is 1, HIGH is 2.

    Any other `int` works too. Of the tasks that wait, those with the highest priority are taken
    first, of these the one that was admitted first. Running tasks are not interrupted.
    """

    LOW = 0
    """What can wait."""
    NORMAL = 1
    """What `submit` uses."""
    HIGH = 2
    """What somebody waits for."""


class OnFull(Enum):
    """What a submission does when the executor holds all the tasks it may hold.

    - BLOCK, the default: wait for a place.
    - RAISE: raise `QueueFullError` at once.
    - CALLER_RUNS: run the task in the submitting thread.
    - DROP_OLDEST: cancel the task that has waited longest in the lowest priority.
    - DROP_NEW: return a future that is already cancelled.

    The first three lose nothing: the task runs, or its submitter is told. For `BoundedExecutor` it is
    the rule, for `options(on_full=...)` that of a view. With BLOCK, a task of the same executor and a
    thread with a running event loop are not blocked: their tasks are admitted over the bound.
    """

    BLOCK = "block"
    """Wait for a place, in order of arrival. The default."""
    RAISE = "raise"
    """Raise `QueueFullError` at once."""
    CALLER_RUNS = "caller_runs"
    """Run the task in the submitting thread, which slows the submitter down.

    In its stack, that is: under the locks it holds, in its running event loop, past its timeouts, and
    without the `initializer`, which has run in workers only. Deep in a stack, where tasks have submitted
    tasks on top of one another, the task is admitted over the bound instead.
    """
    DROP_OLDEST = "drop_oldest"
    """Cancel the task that has waited longest in the lowest priority, and take its place."""
    DROP_NEW = "drop_new"
    """Return a future that is already cancelled."""
