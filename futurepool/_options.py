"""What can be said about a submission beside the task itself, and about a pool as it is made."""

from __future__ import annotations

from collections.abc import Callable
from concurrent import futures as cf
from enum import Enum, IntEnum
from typing import TYPE_CHECKING, Any, cast

from futurepool._cancellation import CancelToken
from futurepool._errors import InvalidConfigError, safe_text
from futurepool._errors.checks import (
    check_callable,
    check_int,
    check_priority,
    check_seconds,
    check_timeout,
    check_workers,
    show,
)

if TYPE_CHECKING:
    from dataclasses import dataclass as _record

    from futurepool._errors.failures import TaskError
else:

    def _record(cls: type) -> type:
        """As a dataclass, for keywords; to make one, or a NamedTuple, takes 4 ms of each start."""
        cls.__init__ = lambda self, **values: self.__dict__.update(values)
        return cls


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
    - SHED: raise `QueueFullError`; and drop what has waited for long, if all tasks do, before the queue is full.

    The first three lose nothing: the task runs, or its submitter is told. For `BoundedExecutor` it is
    the rule, for `options(on_full=...)` that of a view; SHED is for a whole executor. With BLOCK, a task of the same executor and a
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
    SHED = "shed"
    """Keep waiting times short: when every task that was taken in 100 ms had waited for more than 5 ms, what
    has waited for more than 10 ms is not run, for the next 100 ms.

    Its future fails with `TaskExpiredError`. A burst that the workers soon catch up with loses nothing. This is
    CoDel ("controlled delay") as servers use it. It applies to all tasks of the executor. When the queue is full, `submit`
    raises `QueueFullError` at once.
    """


class _Unset:
    def __repr__(self) -> str:
        return "<as before>"


#: Stands for an option that was not named.
UNSET: Any = _Unset()

#: How special a submission is, see `Options.special`; None if it is not.
TIMED, LONG = 1, 2


class Options:
    """The options of a submission, checked; shared by all its tasks.

    Nobody changes one after it was made, but for `loop_submitter`, a cache of what the options amount to for
    the coroutines of one event loop, `at_priority`, the same for `submit_with_priority` and the like, and `row`, where tasks with
    a `max_wait` stand: by whoever needs it next, in one step.
    """

    __slots__ = (
        "abandon",
        "at_priority",
        "limiter",
        "loop_submitter",
        "max_wait",
        "name",
        "on_full",
        "priority",
        "row",
        "run_timeout",
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
        max_wait: float | None = None,
        limiter: Any = None,
        run_timeout: float | None = None,
        abandon: bool = False,
    ) -> None:
        self.priority: int = priority
        self.timeout: float | None = timeout
        self.token: CancelToken | None = token
        self.on_full: OnFull = on_full
        self.name: str | None = name
        self.max_wait: float | None = max_wait
        self.limiter: Any = limiter  # a Limiter or Key of futurepool._pool.limits
        self.run_timeout: float | None = run_timeout  # see futurepool._pool.overdue
        self.abandon: bool = abandon  # only with a run_timeout
        # TIMED: the fast paths see to its `max_wait`; LONG: it takes the long way.
        self.special: int | None = None if max_wait is None else TIMED
        if token is not None or name is not None or limiter is not None or run_timeout is not None:
            self.special = LONG

        self.waits: bool = False  # without a place, in the line of coroutines
        self.subscribers: Any = None  # what its futures start with, see futurepool._aio
        self.loop_submitter: Any = None  # futurepool._aio's own, the latest
        self.at_priority: dict[Any, Any] | None = None  # futurepool._pool.fast's own
        self.row: Any = None  # futurepool._pool.expiry's own, guarded by the pool's mutex

    def waiting(self, subscribers: Any) -> Options:
        """The same for coroutines: BLOCK and CALLER_RUNS would stop their loop, so they wait."""
        copy = self.under(self.token)
        copy.waits = self.on_full in (OnFull.BLOCK, OnFull.CALLER_RUNS)
        copy.subscribers = subscribers
        return copy

    def under(self, token: CancelToken | None) -> Options:
        """The same under another token."""
        return Options(
            self.priority,
            self.timeout,
            token,
            self.on_full,
            self.name,
            self.max_wait,
            self.limiter,
            self.run_timeout,
            self.abandon,
        )

    def changed(
        self,
        priority: Any = UNSET,
        timeout: Any = UNSET,
        token: Any = UNSET,
        on_full: Any = UNSET,
        name: Any = UNSET,
        max_wait: Any = UNSET,
        run_timeout: Any = UNSET,
        abandon: Any = UNSET,
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
        new_max_wait = self.max_wait
        if max_wait is not UNSET:
            new_max_wait = _check_span("max_wait", max_wait)
        new_run_timeout = self.run_timeout
        if run_timeout is not UNSET:
            new_run_timeout = _check_span("run_timeout", run_timeout)
        new_abandon = self.abandon
        if abandon is not UNSET:
            new_abandon = _check_bool("abandon", abandon)
            if new_abandon and new_run_timeout is None:
                raise InvalidConfigError(
                    "abandon=True needs a run_timeout: it says what becomes of the thread when that is over"
                )
        return Options(
            new_priority,
            new_timeout,
            new_token,
            new_policy,
            new_name,
            new_max_wait,
            self.limiter,
            new_run_timeout,
            new_abandon and new_run_timeout is not None,
        )

    def limited(self, limiter: Any) -> Options:
        """A copy whose tasks are under this Limiter or Key."""
        copy = self.under(self.token)
        copy.limiter, copy.special = limiter, LONG
        return copy


def check_on_full(value: object) -> OnFull:
    """TypeError unless `value` is an `OnFull`."""
    if not isinstance(value, OnFull):
        raise TypeError(f"on_full must be an OnFull, such as OnFull.BLOCK, not {show(value)}")
    return value


@_record
class Config:
    """What a pool is made with, checked by `checked_config`. Times are in seconds."""

    max_workers: int
    prefix: str  # of the threads' names
    name: str
    initializer: Callable[..., object] | None
    initargs: tuple[Any, ...]
    queue_size: int | None
    on_full: OnFull
    shutdown_timeout: float
    enable_metrics: bool
    error_handler: Callable[[TaskError], object] | None
    aging: float | None
    engine: cf.Executor | None
    close_engine: bool
    read_ahead: int | None
    keeps_context: bool
    exit_timeout: float | None
    idle_timeout: float | None
    min_workers: int
    slow_task: float | None
    order: str
    adaptive_wait: float


def check_engine(engine: object, initializer: object, idle_timeout: object) -> None:
    """TypeError unless `engine` is an executor or None; those with one have no threads here."""
    if engine is not None:
        if not isinstance(engine, cf.Executor):
            raise TypeError(f"engine must be a concurrent.futures.Executor, not {show(engine)}")
        if initializer is not None:
            raise InvalidConfigError(
                f"initializer={show(initializer)} is for threads; give the engine its own"
            )
        if idle_timeout is not None:
            raise InvalidConfigError(
                f"idle_timeout={show(idle_timeout)} is for threads, which a pool with an engine has none of"
            )


def _check_read_ahead(read_ahead: object, engine: object) -> int | None:
    if read_ahead is None:
        return None
    number = check_int("read_ahead", read_ahead, minimum=0)
    if number and engine is None:
        raise InvalidConfigError(
            f"read_ahead={number} needs an engine: threads have nothing to wait for between two tasks"
        )
    return number


def _check_initializer(initializer: object, initargs: Any) -> tuple[Any, ...]:
    if initializer is not None and not callable(initializer):
        raise TypeError("initializer must be a callable")
    try:
        return tuple(initargs)  # as in the standard library, anything that can be unpacked
    except TypeError:
        raise TypeError(f"initargs must be a tuple, not {show(initargs)}") from None


def _check_bool(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be a bool, not {show(value)}")
    return value


def _check_span(name: str, seconds: float | None) -> float | None:
    if seconds is not None:
        rule = "more than 0 seconds, or None"
        seconds = check_timeout(name, seconds, config=True, rule=rule)
        if not seconds:
            raise InvalidConfigError(f"{name} must be more than 0 seconds, or None, not 0")
    return seconds


def _check_min_workers(min_workers: int, max_workers: int, idle_timeout: float | None) -> int:
    number = check_int("min_workers", min_workers, minimum=0)
    if number > max_workers:
        raise InvalidConfigError(
            f"min_workers must be at most max_workers={max_workers}, not {number}"
        )
    if number and idle_timeout is None:
        raise InvalidConfigError(
            f"min_workers={number} needs an idle_timeout: without one no worker ends"
        )
    return number


def _check_context(context: object) -> bool:
    if not isinstance(context, str):
        raise TypeError(f'context must be "copy" or "none", not {show(context)}')
    if context not in ("copy", "none"):
        raise InvalidConfigError(f'context must be "copy" or "none", not {context!r}')
    return context == "copy"


_ORDERS = ("fifo", "lifo", "adaptive")
_ADAPTIVE_WAIT = 0.1  # seconds


def _check_order(order: object, aging: float | None, on_full: OnFull) -> str:
    names = '"fifo", "lifo" or "adaptive"'
    if not isinstance(order, str):
        raise TypeError(f"order must be {names}, not {show(order)}")
    if order not in _ORDERS:
        raise InvalidConfigError(f"order must be {names}, not {order!r}")
    if aging is not None and order != "fifo":
        raise InvalidConfigError(
            f"order={order!r} and aging={aging:g} cannot go together: with aging, who has waited longer "
            "comes first"
        )
    if on_full is OnFull.SHED and (aging is not None or order != "fifo"):
        other = f"order={order!r}" if aging is None else f"aging={aging:g}"
        raise InvalidConfigError(
            f"{other} and on_full={on_full!s} cannot go together: that goes by how long the oldest tasks wait"
        )
    return order


def _check_adaptive_wait(wait: float | None, order: str) -> float:
    checked = _check_span("adaptive_wait", wait)
    if checked is None:
        return _ADAPTIVE_WAIT
    if order != "adaptive":
        raise InvalidConfigError(f'adaptive_wait={checked:g} needs order="adaptive"')
    return checked


def _check_exit_timeout(exit_timeout: float | None) -> float | None:
    if exit_timeout is None:
        return None
    rule = "zero or more seconds, or None"
    return check_timeout("exit_timeout", exit_timeout, config=True, rule=rule)


def checked_config(
    max_workers: object,
    thread_name_prefix: object,
    number: Callable[[], int],
    *,
    name: str | None,
    initializer: Callable[..., object] | None,
    initargs: tuple[Any, ...],
    queue_size: int | None,
    on_full: OnFull,
    shutdown_timeout: float,
    enable_metrics: bool,
    error_handler: Callable[[TaskError], object] | None,
    aging: float | None,
    engine: cf.Executor | None,
    close_engine: bool,
    read_ahead: int | None,
    context: str,
    exit_timeout: float | None,
    idle_timeout: float | None,
    min_workers: int,
    slow_task: float | None,
    order: str,
    adaptive_wait: float | None,
) -> Config:
    """What the constructor was given, checked in the order in which it is listed there.

    Args:
        max_workers: The number of workers.
        thread_name_prefix: What the threads are called; whatever is not empty will do.
        number: Called for the number of a pool without a name and a prefix.
        name: As in `BoundedExecutor`, like all that follow.
        initializer: See there.
        initargs: See there.
        queue_size: See there.
        on_full: See there.
        shutdown_timeout: See there.
        enable_metrics: See there.
        error_handler: See there.
        aging: See there.
        engine: See there; `check_engine` has looked at it.
        close_engine: See there.
        read_ahead: See there.
        context: See there.
        exit_timeout: See there.
        idle_timeout: See there.
        min_workers: See there.
        slow_task: See there.
        order: See there.
        adaptive_wait: See there.

    Raises:
        InvalidConfigError: An argument has an impossible value.
        TypeError: An argument has the wrong type.
    """
    workers = check_workers(max_workers)
    if name is not None and not (name and isinstance(cast(object, name), str)):
        raise TypeError(f"name must be a str that is not empty, or None, not {show(name)}")
    checked_initargs = _check_initializer(initializer, initargs)
    if queue_size is not None:
        queue_size = check_int("queue_size", queue_size, minimum=0)
    check_on_full(on_full)
    _check_bool("enable_metrics", enable_metrics)
    limit = check_seconds("shutdown_timeout", shutdown_timeout)
    if error_handler is not None:
        check_callable("error_handler", error_handler)
    checked_aging = _check_span("aging", aging)
    _check_bool("close_engine", close_engine)
    # As in the standard library, whatever is not empty will do.
    prefix = safe_text(str, thread_name_prefix or name or f"ThreadPoolExecutor-{number()}")
    checked_idle = _check_span("idle_timeout", idle_timeout)
    return Config(
        max_workers=workers,
        prefix=prefix,
        name=name or prefix,
        initializer=initializer,
        initargs=checked_initargs,
        queue_size=queue_size,
        on_full=on_full,
        shutdown_timeout=limit,
        enable_metrics=enable_metrics,
        error_handler=error_handler,
        aging=checked_aging,
        engine=engine,
        close_engine=close_engine,
        read_ahead=_check_read_ahead(read_ahead, engine),
        keeps_context=_check_context(context),
        exit_timeout=_check_exit_timeout(exit_timeout),
        idle_timeout=checked_idle,
        min_workers=_check_min_workers(min_workers, workers, checked_idle),
        slow_task=_check_span("slow_task", slow_task),
        order=_check_order(order, checked_aging, on_full),
        adaptive_wait=_check_adaptive_wait(adaptive_wait, order),
    )
