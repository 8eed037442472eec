"""Each known way to die, tried on BoundedExecutor in a process of its own; see tests/faults."""

from __future__ import annotations

import pytest

from tests.faults.__main__ import run
from tests.faults.probes import PROBES


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", PROBES)
def test_alive(name: str) -> None:
    """No hang, nothing lost, nothing doubled."""
    word, text = run(name)
    assert word == "ok", text
