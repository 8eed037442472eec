"""The same programs for both classes; see `tests.differential`."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from futurepool import BoundedExecutor
from tests.differential import programs
from tests.differential.answers import PROGRAMS, answer, newest
from tests.differential.meant import MEANT
from tests.differential.page import PAGE, render

assert programs

NEWEST = newest()
#: The version that newest.json is of.
VERSION = (3, 15)

#: They run another interpreter, or wait for what the standard class never does.
SLOW = {name for name in PROGRAMS if name.startswith("script_")}


def each(slow: set[str]) -> list[Any]:
    marks = {name: [pytest.mark.slow] if name in slow else [] for name in PROGRAMS}
    return [pytest.param(name, marks=marks[name]) for name in PROGRAMS]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """What nobody asks about is not the subject here."""
    logger = logging.getLogger("futurepool")
    logger.propagate = False
    yield
    logger.propagate = True


@pytest.mark.parametrize("name", each(SLOW))
def test_it_answers_as_the_newest_standard_class(name: str) -> None:
    """Or as it is meant to, where that is listed."""
    expected = MEANT[name].answer if name in MEANT else NEWEST[name]
    assert answer(PROGRAMS[name], BoundedExecutor) == expected


@pytest.mark.skipif(sys.version_info[:2] != VERSION, reason="the answers are of another version")
@pytest.mark.parametrize("name", each(SLOW))
def test_the_answers_are_those_of_the_newest_standard_class(name: str) -> None:
    """Nobody has written them by hand."""
    assert answer(PROGRAMS[name], ThreadPoolExecutor) == NEWEST[name]


@pytest.mark.parametrize("name", MEANT)
def test_what_is_listed_does_differ(name: str) -> None:
    """A difference that has gone leaves the list."""
    assert MEANT[name].answer != NEWEST[name]


def test_the_page_is_made_of_the_list() -> None:
    """`python -m tests.differential --write` writes it."""
    assert PAGE.read_text("utf-8") == render()


def test_every_program_has_an_answer() -> None:
    """And each answer a program."""
    assert list(NEWEST) == list(PROGRAMS)
    assert set(MEANT) <= set(PROGRAMS)


def test_a_difference_is_found() -> None:
    """The comparison bites: this class starts its threads too early."""

    class Eager(BoundedExecutor):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.submit(int).result()

    assert answer(PROGRAMS["nothing_starts_early"], Eager) != NEWEST["nothing_starts_early"]
