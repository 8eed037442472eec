"""What can be said about a submission beside the task itself, and about a pool as it is made."""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import Any

from futurepool._cancellation import CancelToken
from futurepool._checks import check_priority, check_timeout, show
from futurepool._errors import InvalidConfigError


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


class _Unset:
    def __repr__(self) -> str:
        return "<as before>"


#: Stands for an option that was not named.
UNSET: Any = _Unset()


class Options:
    """The options of a submission, checked. Immutable by convention; shared by all its tasks."""

    __slots__ = (
        "loop_submitter",
        "name",
        "on_full",
        "priority",
        "special",
        "subscribers",
        "timeout",
        "token",
        "waits",
    )

    def __init__(
        self,
        priority: int = Priority.NORMAL,
        timeout: float | None = None,
        token: CancelToken | None = None,
        on_full: OnFull = OnFull.BLOCK,
        name: str | None = None,
    ) -> None:
        self.priority: int = priority
        self.timeout: float | None = timeout
        self.token: CancelToken | None = token
        self.on_full: OnFull = on_full
        self.name: str | None = name
        self.special: bool = token is not None or name is not None  # off the fast path

        self.waits: bool = False  # without a place, in the line of coroutines
        self.subscribers: Any = None  # what its futures start with, see futurepool._aio
        self.loop_submitter: Any = None  # futurepool._aio's own

    def waiting(self, subscribers: Any) -> Options:
        """The same for coroutines: BLOCK and CALLER_RUNS would stop their loop, so they wait."""
        copy = Options(self.priority, self.timeout, self.token, self.on_full, self.name)
        copy.waits = self.on_full in (OnFull.BLOCK, OnFull.CALLER_RUNS)
        copy.subscribers = subscribers
        return copy

    def changed(
        self,
        priority: Any = UNSET,
        timeout: Any = UNSET,
        token: Any = UNSET,
        on_full: Any = UNSET,
        name: Any = UNSET,
    ) -> Options:
        """A copy with the named options replaced.

        A timeout means waiting for a place, so it brings `OnFull.BLOCK` with it, and another
        policy leaves the timeout behind; both named at once contradict each other.
        """
        new_priority = self.priority if priority is UNSET else check_priority(priority)
        new_timeout = self.timeout
        new_policy = self.on_full
        if timeout is not UNSET:
            new_timeout = check_timeout("timeout", timeout)
            if new_timeout is not None:
                new_policy = OnFull.BLOCK
        if on_full is not UNSET:
            new_policy = check_on_full(on_full)
            if new_policy is not OnFull.BLOCK:
                if timeout is not UNSET and new_timeout is not None:
                    raise InvalidConfigError(
                        f"timeout={show(timeout)} waits for a place, on_full={on_full!s} does not wait"
                    )
                new_timeout = None
        new_token = self.token
        if token is not UNSET:
            if token is not None and not isinstance(token, CancelToken):
                raise TypeError(f"token must be a CancelToken or None, not {show(token)}")
            if self.token is not None and self.token._gathers and token is not self.token:
                raise InvalidConfigError(
                    f"token={show(token)} cannot be had for a task of a group, which is under the group's "
                    "token; make the group under yours: options(token=...).group()"
                )
            new_token = token
        new_name = self.name
        if name is not UNSET:
            if name is not None and not isinstance(name, str):
                raise TypeError(f"name must be a str or None, not {show(name)}")
            new_name = name
        return Options(new_priority, new_timeout, new_token, new_policy, new_name)


def check_on_full(value: object) -> OnFull:
    """TypeError unless `value` is an `OnFull`."""
    if not isinstance(value, OnFull):
        raise TypeError(f"on_full must be an OnFull, such as OnFull.BLOCK, not {show(value)}")
    return value
