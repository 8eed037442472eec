"""Checks of arguments, with errors that name the argument and show its value.

Each check returns the value in the one type the rest of the package works with. A wrong type is a
TypeError. A wrong value is a ValueError, and where `config` says that the argument configures
something, an `InvalidConfigError`, which is one. Showing a value runs its `__repr__`, so that is
shortened, and guarded: a bad argument must not hide the message about it.

Called at the entrances of the public API, never per task on the fast path.
"""

from __future__ import annotations

import operator
import reprlib
import sys
from typing import TYPE_CHECKING, Any, ClassVar, cast

from futurepool import _sync
from futurepool._errors import InvalidConfigError, safe_text

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "NoCopy",
    "check_bool",
    "check_buffersize",
    "check_callable",
    "check_chunksize",
    "check_int",
    "check_priority",
    "check_seconds",
    "check_timeout",
    "check_workers",
    "show",
]


class NoCopy:
    """For what holds threads and locks: pickling and copying are a TypeError that says what to do."""

    __slots__ = ()

    #: What to do instead, for the message.
    _instead: ClassVar[str]

    def __reduce_ex__(self, protocol: Any, /) -> Any:
        kind = type(self)
        for base in kind.__mro__[:-1]:
            if "__getstate__" in vars(base) or "__reduce__" in vars(base):
                return object.__reduce_ex__(self, protocol)  # a subclass that knows how
        name = f"{kind.__module__}.{kind.__qualname__}"
        raise TypeError(f"{name} cannot be pickled or copied: {self._instead}")


_shortener = reprlib.Repr()
_shortener.maxstring = _shortener.maxother = 60


def show(value: object) -> str:
    """A short `repr` that never raises."""
    return safe_text(_shortener.repr, value)


def _kind(config: bool) -> Callable[[str], ValueError]:
    return InvalidConfigError if config else ValueError


def check_callable(name: str, value: object) -> None:
    """TypeError unless `value` can be called."""
    if not callable(value):
        raise TypeError(f"{name} must be callable, not {show(value)}")


def check_bool(name: str, value: object) -> None:
    """TypeError unless `value` is True or False."""
    if type(value) is not bool:
        raise TypeError(f"{name} must be a bool, not {show(value)}")


def check_timeout(
    name: str,
    value: object,
    *,
    config: bool = False,
    rule: str = "zero or more seconds, or None",
    negative: bool = False,
    none: bool = True,
) -> float | None:
    """Check a number of seconds, or None for no limit.

    Args:
        name: What the argument is called.
        value: Any real number; infinite and very long ones become `_sync.TIMEOUT_MAX`.
        config: Whether a bad value is an `InvalidConfigError`.
        rule: What it must be, for the message.
        negative: Whether a negative one counts as 0, and a bool as the number it is, as in the
            standard library.
        none: Whether None may be given.

    Raises:
        TypeError: Not a real number; bool counts as none.
        ValueError: Negative or NaN.
    """
    if value is None and none:
        return None
    if negative and type(value) is bool:
        return float(value)
    seconds = _seconds(name, value, none)
    if negative and seconds < 0:
        return 0.0
    if not seconds >= 0:  # NaN too
        raise _kind(config)(f"{name} must be {rule}, not {show(value)}")
    return min(seconds, _sync.TIMEOUT_MAX)


def check_seconds(name: str, value: object) -> float:
    """`check_timeout` of a number that configures something, where None is no answer."""
    rule = "zero or more seconds"
    return cast(float, check_timeout(name, value, config=True, rule=rule, none=False))


def _seconds(name: str, value: object, none: bool) -> float:
    if not _is_real(type(value)):  # isinstance() would ask the value
        raise _not_seconds(name, value, none)
    try:
        return float(value)  # type: ignore[arg-type]
    except OverflowError:
        return float("-inf" if value < 0 else "inf")  # type: ignore[operator]
    except ValueError:  # a signalling NaN
        return float("nan")
    except Exception as error:
        raise _not_seconds(name, value, none) from error


def _is_real(kind: type[Any]) -> bool:
    if kind is float or kind is int:
        return True  # nearly always, and an ABC is slow to ask
    if kind is bool or _is_complex(kind):
        return False
    return hasattr(kind, "__float__") or hasattr(kind, "__index__")


def _is_complex(kind: type[Any]) -> bool:
    # Whoever is registered there has loaded it, which takes half a millisecond.
    if "numbers" not in sys.modules:
        return False
    import numbers

    return issubclass(kind, numbers.Complex) and not issubclass(kind, numbers.Real)


def _not_seconds(name: str, value: object, none: bool) -> TypeError:
    what = "a number of seconds or None" if none else "a number of seconds"
    return TypeError(f"{name} must be {what}, not {show(value)}")


def check_int(name: str, value: object, *, minimum: int | None = None, config: bool = True) -> int:
    """Check a whole number, of any size, and return it as exactly an `int`.

    Args:
        name: What the argument is called.
        value: An int or anything with `__index__`.
        minimum: The smallest value allowed; None allows all.
        config: Whether a bad value is an `InvalidConfigError`.

    Raises:
        TypeError: Not a whole number; bool counts as none.
        ValueError: Below `minimum`.
    """
    if type(value) is bool:
        raise TypeError(f"{name} must be an integer, not {show(value)}")
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except Exception as error:
        raise TypeError(f"{name} must be an integer, not {show(value)}") from error
    if minimum is not None and number < minimum:
        # The second wording is the standard library's for `max_workers`.
        bound = f"at least {minimum}" if minimum != 1 else "greater than 0"
        raise _kind(config)(f"{name} must be {bound}, not {show(value)}")
    return number


def check_buffersize(value: object) -> int | None:
    """Check how many results a `map` may hold unread; None for no limit.

    The messages are those of the newest CPython, also where Python itself knows no `buffersize`.

    Raises:
        TypeError: Not a whole number.
        ValueError: Below 1, as an `InvalidConfigError`.
    """
    if value is None:
        return None
    try:
        number = int(operator.index(value))  # type: ignore[arg-type]
    except Exception as error:
        raise TypeError("buffersize must be an integer or None") from error
    if number < 1:
        raise InvalidConfigError("buffersize must be None or > 0")
    return number


def check_chunksize(value: object) -> int:
    """Check how many calls travel as one task: any number, or None; what is below 1 counts as 1.

    The standard class takes whatever it is given, so `chunksize=len(items) // 100` works there with
    few items, too.
    """
    if value is None:
        return 1
    if not isinstance(value, int) and not _is_real(type(value)):
        raise TypeError(f'chunksize must be a number or "auto", not {show(value)}')
    size = _seconds("chunksize", int(value) if isinstance(value, bool) else value, none=False)
    return max(1, int(min(size, sys.maxsize))) if size >= 1 else 1


def check_workers(value: object) -> int:
    """Check `max_workers` as the standard class does: any number above 0, rounded up.

    There `max_workers=os.cpu_count() / 2` starts threads while they are fewer than that. The text of
    the error is the standard library's.
    """
    refusal = "max_workers must be greater than 0"
    if _is_real(type(value)) and not isinstance(value, int):
        number = _seconds("max_workers", value, none=False)
        if number > 0:
            return int(-(-min(number, 2**31) // 1))  # rounded up
        raise InvalidConfigError(refusal)
    number = check_int("max_workers", int(value) if type(value) is bool else value)
    if number < 1:
        raise InvalidConfigError(refusal)
    return number


def check_priority(value: object) -> int:
    """Check a priority: any whole number. TypeError otherwise."""
    return check_int("priority", value)
