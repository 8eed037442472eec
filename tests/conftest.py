"""What all tests share: see README.md here."""

from __future__ import annotations

import pytest

#: Folders whose slow tests start the command line, examples and the like: they find the same on every
#: version, so `.ci/run` has them on the oldest, on the newest, and where coverage is measured.
OUTER = {"cli", "printed"}


@pytest.hookimpl(tryfirst=True)  # before those that nobody asked for are left out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent.name in OUTER and item.get_closest_marker("slow") is not None:
            item.add_marker("outer")
