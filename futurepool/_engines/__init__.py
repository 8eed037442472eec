"""Where tasks run, and how an engine and its pool speak to each other: both directions.

`Engine` is what a pool asks of it: `threads` runs tasks in worker threads of this process, `delegate` in another
executor. `PoolPort` is all that an engine does to the pool.

A worker's life. The pool reserves one in a section, and calls `start_worker` after it. The engine makes a
`WorkerSlot` with a parker, and has it listed (`enlist`); if it does not come that far, or does not start, it
says so (`not_started`). The worker then asks for work (`next_task`), sleeps at its parker when told to, and
goes when `slot.leave` says so. One that is gone without having left is taken off by `replace`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from futurepool._cancellation import CancelToken
from futurepool._future import Future
from futurepool._pool.workers import Workers, WorkerSlot

__all__ = ["Engine", "PoolPort"]

AnyFuture = Future[Any]


class Engine(Protocol):
    """What a pool asks of an engine."""

    apart: bool  # whether tasks run in another executor, most likely in another process
    writes_off: bool  # whether `write_off` can be
    threads: set[Any]  # all it has started, for those who join them

    def start_worker(self) -> None:
        """Make one more worker of those that are reserved; outside of any section.

        Raises what the system raised if there is none left to start.
        """
        ...

    def run_here(self, future: AnyFuture) -> bool:
        """Run `future` in this thread; False if it is not PENDING any more.

        Also if it is queued for another executor, which is to run it.
        """
        ...

    def run_aside(self, future: AnyFuture, timeout: float | None = None) -> bool:
        """In the thread that serves the engine, if one does: go on serving until `future` is done."""
        ...

    def start_spare(self, future: AnyFuture, waiting: WorkerSlot | None) -> None:
        """Have `future` run beside the workers, one of which waits for it.

        With `waiting`, its slot, after what else that one waits for; without, at once.
        """
        ...

    def read_ahead(self, max_workers: int) -> int:
        """How many workers there may be besides `max_workers`: for what is inside and runs next."""
        ...

    def take_back(self, task: AnyFuture, by: int | None) -> None:
        """Cancel a running task with which another executor has not begun, see `PoolPort.take_back`."""
        ...

    def takes_chunks(self, fn: Any) -> bool:
        """Whether several calls of `fn` can be made by one task."""
        ...

    def calls_back(self, waiting: bool = False) -> bool:
        """Whether every worker is inside done-callbacks; with `waiting`, or waits for a thread."""
        ...

    def write_off(self, slot: WorkerSlot) -> None:
        """The thread of a worker, which is to leave, is not to be joined. Section held."""
        ...

    def worker_name(self, slot: WorkerSlot) -> str:
        """What `running()` calls a worker that is no thread of this process, or has ended."""
        ...

    def reap_dead_workers(self) -> None:
        """Replace workers whose threads have died unheard of; called now and then by who waits."""
        ...

    def ended(self) -> None:
        """The pool is closed and its last worker has left; outside the mutex, maybe repeatedly."""
        ...

    def joined(self, wait: bool) -> None:
        """The pool was shut down by a thread that waited for it, or gave up on it."""
        ...

    def reset(self) -> None:
        """Forget all threads: we are in the child of a fork."""
        ...


class PoolPort(Protocol):
    """What an engine, and the loop of a worker, may do to the pool. See `futurepool._pool.pool.Pool`.

    The parts are to be read here; they change by these methods only.
    """

    mutex: Any
    deferred: deque[Callable[[], object]]
    workers: Workers
    state: int  # a RunState
    exiting: bool
    user_closed: bool
    idle_timeout: float | None

    @property
    def unfinished(self) -> int:
        """Tasks queued or running."""
        ...

    def enlist(self, slot: WorkerSlot, thread: Any) -> bool:
        """List a worker that was reserved; False if it is not wanted any more. Section held."""
        ...

    def not_started(self, slot: WorkerSlot) -> bool:
        """A worker that was reserved, perhaps listed, did not start. True if there are others."""
        ...

    def leave(self, slot: WorkerSlot) -> None:
        """A worker goes home, or is gone. Section held."""
        ...

    def replace(self, slot: WorkerSlot, error: BaseException) -> None:
        """A worker is gone without having left: its task fails, and another one is ordered."""
        ...

    def breaks(self, why: str, slot: WorkerSlot | None = None) -> None:
        """No worker can run any more; the one that has found out leaves."""
        ...

    def next_task(self, slot: WorkerSlot) -> AnyFuture | None:
        """Commit what `slot` has run, if anything, and claim its next task."""
        ...

    def sleep_idle(self, slot: WorkerSlot) -> None:
        """Sleep at its parker, in a pool with an `idle_timeout`; it may leave."""
        ...

    def claim(self, slot: WorkerSlot, future: AnyFuture) -> bool:
        """Claim this very task for a slot that is no worker's."""
        ...

    def complete(
        self, slot: WorkerSlot, result: Any, error: BaseException | None, wrap: bool = True
    ) -> None:
        """Commit what `slot` has run, and tell everyone."""
        ...

    def take_back(self, slot: WorkerSlot, task: AnyFuture, by: int | None) -> None:
        """A task that `slot` has, or had, is cancelled, as it had not begun elsewhere. Section held.

        `by`: the thread that tells of it; None: one aside.
        """
        ...

    def complete_aside(self, slot: WorkerSlot, error: BaseException) -> None:
        """The same for a task whose thread is gone; may be deferred."""
        ...

    def tell_outcome(self, task: AnyFuture) -> None:
        """Tell everyone of a task that has run. Idempotent."""
        ...

    def token_of(self, future: AnyFuture) -> CancelToken:
        """The running task's own token."""
        ...

    def task_in(self, slot: WorkerSlot) -> AnyFuture | None:
        """What runs in a slot, also if its time is over."""
        ...

    def own_slot(self) -> WorkerSlot | None:
        """In a thread that runs one of this pool's tasks: the slot it runs under."""
        ...

    def run_deferred(self) -> None:
        """Do what sections have left."""
        ...

    def repair(self) -> None:
        """After an exception inside or near a section: no lock held, all counts right again."""
        ...
