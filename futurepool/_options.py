"""What can be said about a submission beside the task itself."""

from __future__ import annotations

from typing import Any

from futurepool._cancellation import CancelToken
from futurepool._checks import check_priority, check_timeout, show
from futurepool._errors import InvalidConfigError
from futurepool._priority import OnFull, Priority

__all__: list[str] = []  # internal


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
