"""Argument checks: what passes, what does not, and what the error says."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction

import pytest

from futurepool import _sync
from futurepool._errors import InvalidConfigError
from futurepool._errors.checks import (
    check_buffersize,
    check_callable,
    check_int,
    check_priority,
    check_timeout,
)
from futurepool._options import Priority


class Hostile:
    """Raises, whatever it is asked."""

    def _refuse(self, *args):
        raise SystemExit

    __repr__ = __str__ = __getattr__ = _refuse
    __class__ = property(_refuse)


class Number:
    """Nothing but `__float__`."""

    def __init__(self, value):
        self.value = value

    def __float__(self):
        if isinstance(self.value, Exception):
            raise self.value
        return self.value

    def __repr__(self):
        return "Number"


class Index:
    def __index__(self):
        return 5


class BrokenIndex:
    def __index__(self):
        raise ValueError("no")

    def __repr__(self):
        return "BrokenIndex"


def test_callable():
    """A callable passes; anything else is a TypeError that shows it."""
    check_callable("fn", len)
    with pytest.raises(TypeError, match=r"^fn must be callable, not 3$"):
        check_callable("fn", 3)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (0, 0.0),
        (-0.0, 0.0),
        (2, 2.0),
        (0.5, 0.5),
        (Fraction(1, 2), 0.5),
        (Decimal("0.5"), 0.5),
        (Number(0.5), 0.5),
        (Index(), 5.0),
    ],
)
def test_timeout_that_passes(value, expected):
    """None and any real number, as a float."""
    got = check_timeout("timeout", value)
    assert got == expected
    assert type(got) is type(expected)


@pytest.mark.parametrize("value", [math.inf, 1e300, 10**400, Fraction(10**400), Decimal("1e999")])
def test_long_timeout_is_clamped(value, monkeypatch):
    """No timeout is too long; the limit is looked up when called."""
    assert check_timeout("timeout", value) == _sync.TIMEOUT_MAX
    monkeypatch.setattr(_sync, "TIMEOUT_MAX", 7.0)
    assert check_timeout("timeout", value) == 7.0


@pytest.mark.parametrize("value", [-1, -0.5, math.nan, -math.inf, -(10**400), Decimal("sNaN")])
@pytest.mark.parametrize(("config", "kind"), [(False, ValueError), (True, InvalidConfigError)])
def test_timeout_of_a_bad_value(value, config, kind):
    """Negative and NaN are a ValueError; of the configuration, an InvalidConfigError."""
    with pytest.raises(
        ValueError, match=r"^timeout must be zero or more seconds, or None, not "
    ) as e:
        check_timeout("timeout", value, config=config)
    assert type(e.value) is kind


@pytest.mark.parametrize(
    "value", [True, "1", b"1", 1j, [], object(), Number(TypeError()), Number(ZeroDivisionError())]
)
def test_timeout_of_a_wrong_type(value):
    """bool, text, complex and the like are a TypeError."""
    with pytest.raises(TypeError, match=r"^timeout must be a number of seconds or None, not "):
        check_timeout("timeout", value)


@pytest.mark.parametrize(("value", "expected"), [(3, 3), (Index(), 5), (10**400, 10**400)])
def test_int_that_passes(value, expected):
    """Ints of any size and what converts to them."""
    assert check_int("queue_size", value, minimum=0) == expected


def test_int_is_exactly_an_int():
    """Enum members become numbers."""
    assert type(check_int("n", Priority.HIGH)) is int


@pytest.mark.parametrize("value", [True, 1.0, "1", None, BrokenIndex()])
def test_int_of_a_wrong_type(value):
    """bool, float and text are a TypeError."""
    with pytest.raises(TypeError, match=r"^n must be an integer, not "):
        check_int("n", value)


def test_int_below_the_minimum():
    """The error names the bound, in the standard library's words where it has some."""
    with pytest.raises(InvalidConfigError, match=r"^queue_size must be at least 0, not -1$"):
        check_int("queue_size", -1, minimum=0)
    with pytest.raises(ValueError, match=r"^max_workers must be greater than 0, not 0$") as info:
        check_int("max_workers", 0, minimum=1, config=False)
    assert type(info.value) is ValueError


@pytest.mark.parametrize(
    ("value", "expected"), [(None, None), (3, 3), (True, 1), (Index(), 5), (Priority.HIGH, 2)]
)
def test_buffersize_that_passes(value, expected):
    """Whole numbers, bool among them, as for the standard library; it becomes a plain int."""
    number = check_buffersize(value)
    assert number == expected
    assert type(number) in (int, type(None))


@pytest.mark.parametrize("value", [1.0, "1", BrokenIndex()])
def test_buffersize_of_a_wrong_type(value):
    """In the newest CPython's words, on every version."""
    with pytest.raises(TypeError, match=r"^buffersize must be an integer or None$"):
        check_buffersize(value)


@pytest.mark.parametrize("value", [0, -1, False])
def test_buffersize_below_the_minimum(value):
    """Likewise."""
    with pytest.raises(InvalidConfigError, match=r"^buffersize must be None or > 0$"):
        check_buffersize(value)


def test_priority():
    """Any whole number."""
    assert check_priority(Priority.HIGH) == 2
    assert check_priority(-7) == -7
    with pytest.raises(TypeError, match=r"^priority must be an integer, not 'high'$"):
        check_priority("high")


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (Hostile, "<unprintable Hostile object>"),
        (lambda: "x" * 10_000, "'xxx"),
        (lambda: [[0] * 99] * 99, "[["),
    ],
)
def test_value_is_shown_safely_and_briefly(make, text):
    """Neither a hostile nor a huge value spoils the message."""
    with pytest.raises(TypeError) as info:
        check_int("n", make())
    assert text in str(info.value)
    assert len(str(info.value)) < 1000
