"""A worker's thread that dies without having left: somebody has to notice, and replace it.

Asynchronous exceptions may kill a thread where nothing of ours can catch them: in the standard library's
part of it, or while it deals with an earlier one. There are four nets, each below the one before:

1. `ThreadEngine._run` catches what comes out of the worker's loop, and replaces the worker at once.
2. The thread's arguments hold a `Guard`. When they go, its finalizer does the same.
3. One more exception may end that finalizer at any instruction. So the thread's local data hold a witness,
   and when that goes a weak reference executes its will, all of it by one C call: see `make_will`.
4. A thread interrupted before it ran anything of ours has no such data. So whoever waits for a pool looks
   once in a while for workers whose threads are dead: `ThreadEngine.reap_dead_workers`.

**By C calls only.** Between two instructions of Python an exception may come, or the stack be at its end;
inside of one C call nothing of that happens. So what must not be interrupted is put together beforehand, of
`map`, `filter` and `itertools.chain` over C functions: an iterator in which each step is one call. One C call
that exhausts it, as `deque(steps, 0)`, takes all of them. This is so here, in `Future._call_all`, which calls
done-callbacks, and in `CancelToken._fire`, which tells listeners; each says in Python what it does.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable
from functools import partial
from operator import countOf, methodcaller

from futurepool import _sync
from futurepool._engines import PoolPort
from futurepool._pool.workers import WorkerSlot

__all__ = ["Guard", "Witness", "dead", "make_will"]

_DIED = "the worker's thread has died"
_DEEP = 100  # sections are nested less deep


def dead(pool: PoolPort, slot: WorkerSlot) -> Callable[[], None]:
    """What is to be deferred for a worker whose thread is gone."""
    return partial(pool.replace, slot, RuntimeError(_DIED))


class Guard:
    """Dies with its worker's thread, whatever that died of: even of its very first instruction."""

    __slots__ = ("_pool", "_slot")

    def __init__(self, pool: PoolPort, slot: WorkerSlot) -> None:
        self._pool = pool
        self._slot = slot

    def __del__(self) -> None:
        pool, slot = self._pool, self._slot
        if slot in pool.workers.listed and slot.thread.ident is not None:
            # On free-threaded builds this may run in another thread than the one that died, and
            # then in the middle of a section.
            if slot.ident == _sync.get_ident():
                pool.repair()
            pool.deferred.append(dead(pool, slot))
            pool.run_deferred()


class Witness:
    """Part of a thread's local data."""

    __slots__ = ("__weakref__",)


def make_will(pool: PoolPort, slot: WorkerSlot) -> weakref.ref[Witness]:
    """For this thread, should it die without having left: let go of the mutex, and have it replaced.

    It is executed when the thread's witness dies: by C alone, nothing can come in between.

    In Python, the will is::

        if _sync.get_ident() == mine:
            for _ in range(_DEEP):
                if pool.mutex._is_owned():
                    pool.mutex.release()
            pool.deferred.append(dead(pool, slot))
            _sync.start_new_thread(pool.run_deferred, ())

    In the child of a fork, and when the interpreter ends, another thread clears the data of this one:
    hence the question whose thread it is. Another thread does what is deferred, as this one can run no
    Python any more.
    """
    held = filter(methodcaller("_is_owned"), itertools.repeat(pool.mutex, _DEEP))
    steps = itertools.chain(
        map(methodcaller("release"), held),
        map(pool.deferred.append, (dead(pool, slot),)),
        map(_sync.start_new_thread, (pool.run_deferred,), ((),)),
    )
    # The question, as the first step: its answer picks the others, or none.
    asked = map(methodcaller("__call__"), (_sync.get_ident,))
    picked = map({_sync.get_ident(): steps}.get, asked, ((),))
    # It is called with the reference; `countOf` takes all steps, and counts those that have given that.
    return weakref.ref(_sync.here.witness, partial(countOf, itertools.chain.from_iterable(picked)))
