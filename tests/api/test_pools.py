"""`futurepool.pools()`: the executors that are alive."""

from __future__ import annotations

import gc
import os
import sys
import threading
from typing import Any

import pytest

import futurepool
from futurepool import BoundedExecutor


@pytest.fixture
def others() -> list[BoundedExecutor]:
    """Those that tests before this one have left behind."""
    gc.collect()
    return futurepool.pools()


def mine(others: list[BoundedExecutor]) -> list[str]:
    return [pool.name for pool in futurepool.pools() if not any(pool is other for other in others)]


def test_they_are_listed_in_the_order_in_which_they_were_made(
    others: list[BoundedExecutor],
) -> None:
    """Named or not, idle or busy; views are not pools."""
    with BoundedExecutor(1, name="b") as first, BoundedExecutor(1, "a") as second:
        second.options(priority=2).submit(int).result()
        assert mine(others) == ["b", "a"]
        assert first in futurepool.pools()
    assert mine(others) == []


def test_a_pool_that_is_shut_down_is_alive_until_it_has_ended(
    others: list[BoundedExecutor], gate: threading.Event
) -> None:
    """What it still does is what somebody who waits for the end of it wants to see."""
    pool = BoundedExecutor(1, name="ends")
    pool.submit(gate.wait, 30)
    pool.shutdown(wait=False)
    assert mine(others) == ["ends"]
    gate.set()
    pool.shutdown()
    assert mine(others) == []


def test_they_are_held_weakly(others: list[BoundedExecutor]) -> None:
    """Who asks keeps none alive, nor does the list."""
    pool = BoundedExecutor(1, name="dropped")
    pool.submit(int).result()
    assert mine(others) == ["dropped"]
    del pool
    gc.collect()
    assert mine(others) == []


class Odd(BoundedExecutor):
    """Equal to all of its kind, and not to be hashed."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Odd)

    __hash__ = None  # type: ignore[assignment]


def test_a_subclass_with_an_equality_of_its_own(others: list[BoundedExecutor]) -> None:
    """It is one pool all the same, beside another."""
    with Odd(1, name="odd") as _, Odd(1, name="even") as _:
        assert mine(others) == ["odd", "even"]


def test_pools_come_and_go_while_others_look(others: list[BoundedExecutor]) -> None:
    """From several threads at once."""
    stop, errors = threading.Event(), []

    def look() -> None:
        try:
            while not stop.is_set():
                for pool in futurepool.pools():
                    pool.stats()
        except BaseException as error:
            errors.append(error)

    looking = threading.Thread(target=look)
    looking.start()
    for number in range(100):
        BoundedExecutor(1, name=str(number)).shutdown()
    stop.set()
    looking.join(30)
    gc.collect()
    assert (errors, mine(others)) == ([], [])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_has_the_pools_that_it_inherits(
    others: list[BoundedExecutor], gate: threading.Event
) -> None:
    """They are empty there, and work; those that it makes come after them."""
    with BoundedExecutor(1, name="parent's") as pool:
        pool.submit(gate.wait, 30)
        child = os.fork()
        if not child:
            status = 1
            try:
                with BoundedExecutor(1, name="child's"):
                    found: list[Any] = [mine(others), pool.stats().active_workers]
                    found.append(pool.submit(int, "7").result())
                status = 0 if found == [["parent's", "child's"], 0, 7] else 2
                if status:
                    print(found, file=sys.stderr)
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        assert mine(others) == ["parent's"]
        gate.set()
