"""All probes: importing a family lists its probes."""

from __future__ import annotations

from tests.faults import (
    asynchronous,
    clients,
    forking,
    interrupts,
    leaving,
    memory,
    neighbours,
    raising,
    reentry,
    threads,
    waiting,
)
from tests.faults.tools import PROBES as LISTED

__all__ = ["PROBES"]

_ORDER = (
    threads,
    raising,
    asynchronous,
    forking,
    reentry,
    interrupts,
    memory,
    waiting,
    clients,
    leaving,
    neighbours,
)

#: By name, in the order of the scorecard.
PROBES = {
    name: probe
    for family in _ORDER
    for name, probe in LISTED.items()
    if probe.__module__ == family.__name__
}
assert len(PROBES) == len(LISTED)
