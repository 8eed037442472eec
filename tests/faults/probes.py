"""All probes, in the order of the scorecard: importing a family lists its probes."""

from __future__ import annotations

from tests.faults import (  # noqa: I001 - the order of the table
    threads,
    raising,
    asynchronous,
    forking,
    interrupts,
    reentry,
    memory,
    waiting,
    leaving,
    neighbours,
)
from tests.faults.tools import PROBES

__all__ = ["PROBES"]

FAMILIES = (
    threads,
    raising,
    asynchronous,
    forking,
    interrupts,
    reentry,
    memory,
    waiting,
    leaving,
    neighbours,
)
