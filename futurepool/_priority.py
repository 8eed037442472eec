"""The two small vocabularies of submission: how urgent a task is, and what a full queue does."""

from __future__ import annotations

from enum import Enum, IntEnum

__all__ = ["OnFull", "Priority"]


class Priority(IntEnum):
    """Names for the usual priorities. Any other `int` works too; higher runs sooner."""

    LOW = 0
    NORMAL = 1
    HIGH = 2


class OnFull(Enum):
    """What a submission does when the executor holds all the tasks it may hold."""

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
