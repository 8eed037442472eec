"""docs/differences.md, made of the programs and of the differences that are meant."""

from __future__ import annotations

from pathlib import Path

from tests.differential.answers import PROGRAMS
from tests.differential.meant import MEANT

PAGE = Path(__file__).parents[2] / "docs" / "differences.md"

HEAD = """\
# Where it differs from ThreadPoolExecutor

A program that works with `ThreadPoolExecutor` works with `BoundedExecutor`. The queue is bounded, so
`submit` may wait for a place; every other difference is in this table, with its reason. It is made by
`python -m tests.differential --write` of the programs that the tests put to both classes, and a test
holds it to what they answer.

What the standard class does differently from one version of Python to the next, this one does on every
version as the newest does.

"""

TABLE = """\
| what | ThreadPoolExecutor | BoundedExecutor | why |
|---|---|---|---|
"""

SAME = """
## What is the same

The other programs get the same answer from both classes, on every version of Python:

"""


def title(name: str) -> str:
    """What the program tries, for readers."""
    return str(PROGRAMS[name].__doc__).strip()


def render() -> str:
    """The whole page."""
    rows = [
        f"| {title(name)} | {meant.theirs} | {meant.ours} | {meant.why} |\n"
        for name, meant in MEANT.items()
    ]
    same = [f"- {title(name)}\n" for name in PROGRAMS if name not in MEANT]
    return HEAD + TABLE + "".join(rows) + SAME + "".join(same)
