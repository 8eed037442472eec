"""The executors that are alive: `futurepool.pools()`.

Listed weakly, in the order in which they were made. The table changes by single C calls only: an
executor may be made, and may die, in any thread, finalizer or signal handler. The child of a fork has
the table it inherits: its executors are there, empty and ready for work.

For those who ask from outside the process (`python -m futurepool top`): `picture` is what they are told,
and `serving` by which way.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from futurepool._executor import BoundedExecutor

__all__ = ["pools"]


class _Ref(weakref.ref[Any]):
    """Equal to itself only: a subclass of a user's may have a `__hash__` and `__eq__` of its own."""

    __slots__ = ()
    __hash__ = object.__hash__
    __eq__ = object.__eq__


_executors: dict[_Ref, None] = {}

#: Called when the first executor is made.
at_first: list[Callable[[], object]] = []


def register(executor: BoundedExecutor) -> None:
    """List an executor, which is complete, until it dies."""
    # The callback is all C: a Ctrl-C that lands in Python code called by the collector is lost.
    _executors[_Ref(executor, _executors.pop)] = None
    while at_first:
        try:
            act = at_first.pop()
        except IndexError:  # another thread was faster
            return
        act()


def pools() -> list[BoundedExecutor]:
    """The executors of this process that are alive, in the order in which they were made.

    One that was shut down is alive until its last task and its last thread have ended. Of an executor
    that was dropped without that nothing can be asked any more; it is not listed.

    Returns:
        A new list. It keeps its executors alive, as any other reference does.

    Thread safety: any thread, also after a fork.
    Cost: a microsecond for each.
    """
    found: list[BoundedExecutor] = []
    for ref in list(_executors):
        executor = ref()
        if executor is not None:
            pool = executor._futurepool
            if not pool.state or pool.workers.threads or pool.unfinished:
                found.append(executor)
    return found
