"""What all tests share: see README.md here."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator

import pytest

from futurepool._deadlines import timer

#: Folders whose slow tests start the command line, examples and the like: they find the same on every
#: version, so `.ci/run` has them on the oldest, on the newest, and where coverage is measured.
OUTER = {"cli", "printed"}


@pytest.hookimpl(tryfirst=True)  # before those that nobody asked for are left out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent.name in OUTER and item.get_closest_marker("slow") is not None:
            item.add_marker("outer")


def pytest_collection_finish() -> None:
    """Leave modules and tests out of what collections go through: many tests collect garbage."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    gc.unfreeze()


@pytest.fixture(autouse=True)
def timer_looks_again() -> Iterator[None]:
    """A test that has changed the clock may have sent the process's timer to sleep for hours."""
    yield
    timer._wake()


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What tasks wait for. Opened at the end of the test, come what may."""
    gate = threading.Event()
    yield gate
    gate.set()


@pytest.fixture
def no_gc() -> Iterator[None]:
    """Nothing dies by the collector, only when its last reference goes away."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()
