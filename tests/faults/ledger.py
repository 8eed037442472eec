"""A ledger under stress: each task runs at most once, each future ends once, nothing is lost.

    python -m tests.faults.ledger --tasks 1000000
    python -m tests.faults.ledger --minutes 60        a soak; prints memory, threads and files

Producers submit with priorities, tokens, timeouts and every policy, and cancel, all at random from
a fixed seed; threads switch as often as they can.
"""

from __future__ import annotations

import argparse
import concurrent.futures as cf
import itertools
import os
import random
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from futurepool import (
    BoundedExecutor,
    CancelToken,
    Future,
    OnFull,
    QueueFullError,
    SubmitTimeoutError,
    TaskExpiredError,
    TaskTimeoutError,
)

POLICIES = [policy for policy in OnFull if policy is not OnFull.SHED]  # which is a pool's


class Ledger:
    """One run: what each task number came to."""

    def __init__(self, tasks: int, producers: int, workers: int, seed: int, **options: Any) -> None:
        self.ran = bytearray(tasks)
        self.told = bytearray(tasks)  # by callback, or as one outcome of a map
        self.refused = bytearray(tasks)
        self.mapped = bytearray(tasks)  # no task of its own, perhaps
        self.tried: list[Counter[str]] = []  # by each producer, of what
        self.producers = producers
        self.seed = seed
        # A queue that is full much of the time: the producers hardly outrun the workers.
        self.ex = BoundedExecutor(
            workers, queue_size=8, error_handler=id, enable_metrics=True, **options
        )
        # These queues know no limits.
        self.limits = options.get("order") != "adaptive" and "on_full" not in options
        self.view: Any = self.ex.options(limit=2, name="limited") if self.limits else self.ex
        self.running = 0  # of the view
        self.most = 0
        self.mutex = threading.Lock()

    def task(self, number: int) -> int:
        self.ran[number] += 1  # each number is one task's: no other thread writes there
        if number % 97 == 0:
            raise ValueError(number)
        return number

    def limited(self, number: int) -> int:
        with self.mutex:
            self.running += 1
            self.most = max(self.most, self.running)
        try:
            return self.task(number)
        finally:
            with self.mutex:
                self.running -= 1

    def tell(self, number: int) -> Any:
        def called(_future: Future[int]) -> None:
            self.told[number] += 1

        return called

    def produce(self, first: int) -> list[tuple[int, Future[int]]]:
        """Submit each `producers`-th task, checking the oldest as they get too many."""
        chance = random.Random(self.seed + first)
        flying: list[tuple[int, Future[int]]] = []
        token = CancelToken()
        tried: Counter[str] = Counter()
        self.tried.append(tried)
        numbers = iter(range(first, len(self.ran), self.producers))
        for number in numbers:
            if number % 50 == first:
                if chance.random() < 0.3:
                    token.cancel()
                    tried["tokens cancelled"] += 1
                token = CancelToken(timeout=None if chance.random() < 0.7 else chance.random())
            options: dict[str, Any] = {"priority": chance.randrange(-3, 4)}
            if chance.random() < 0.3:
                options["token"] = token
            if chance.random() < 0.2:
                options["timeout"] = chance.random() / 2000
            elif chance.random() < 0.4:
                options["on_full"] = chance.choice(POLICIES)
            if chance.random() < 0.2:
                options["max_wait"] = chance.choice([0.0005, 0.002, 10.0])
            if chance.random() < 0.1:
                options["run_timeout"] = chance.choice([0.00001, 0.0005, 10.0])
            kinds = ("token", "timeout", "max_wait", "run_timeout")
            tried.update(option for option in options if option in kinds)
            if "on_full" in options:
                tried[options["on_full"].name] += 1
            view: Any = self.ex
            task = self.task
            if not self.limits:
                pass
            elif chance.random() < 0.2:
                view, task = self.view, self.limited
                tried["limit"] += 1
            elif "run_timeout" in options and chance.random() < 0.5:
                options["abandon"] = True  # which frees a limit at once
            elif chance.random() < 0.2:
                options.update(key=number % 5, key_limit=1 + number % 2)
                tried["key"] += 1
            if chance.random() < 0.02:
                row = [number, *itertools.islice(numbers, chance.randrange(80))]
                self.draw(view.options(**options), task, row, chance, tried)
                continue
            try:
                future = view.options(**options).submit(task, number)
            except QueueFullError as error:
                self.refused[number] = 1
                tried["timed out"] += isinstance(error, SubmitTimeoutError)
                continue
            future.add_done_callback(self.tell(number))
            if chance.random() < 0.1:
                tried["cancel"] += 1
                tried["cancel in time"] += future.cancel()
            flying.append((number, future))
            if len(flying) > 300:
                for entry in flying[:150]:
                    self.check(*entry)
                del flying[:150]
        for entry in flying:
            self.check(*entry)
        return []

    def draw(
        self,
        view: Any,
        task: Callable[[int], int],
        row: list[int],
        chance: random.Random,
        tried: Counter[str],
    ) -> None:
        """All of a row by one map, whose workers draw the calls; perhaps it is left early."""
        method = chance.choice([view.map, view.map_unordered])
        shape: dict[str, Any] = {"chunksize": "auto", "buffersize": chance.choice([None, 1, 10])}
        enough = chance.randrange(len(row)) if chance.random() < 0.2 else len(row)
        tried["map"] += 1
        for number in row:
            self.mapped[number] = 1
        ordered = method == view.map
        left = deque(row)  # whose outcome is not known
        lost = 0  # outcomes that do not say whose they are
        results = None
        try:
            results = method(task, row, return_exceptions=True, **shape)
            for outcome in itertools.islice(results, enough):
                if isinstance(outcome, int):
                    number = outcome
                elif isinstance(outcome, ValueError):
                    (number,) = outcome.args
                else:
                    kinds = (cf.CancelledError, TaskExpiredError, TaskTimeoutError)
                    assert isinstance(outcome, kinds), outcome
                    tried[f"map: {type(outcome).__name__}"] += 1
                    if not ordered:
                        lost += 1
                        continue
                    number = left[0]
                    assert isinstance(outcome, TaskTimeoutError) or self.ran[number] == 0, number
                assert not ordered or number == left[0], (number, left[0])
                assert number % 97 or not isinstance(outcome, int)
                left.remove(number)  # or it has two outcomes
                self.told[number] += 1
            assert enough < len(row) or len(left) == lost, (left, lost)
        except QueueFullError:
            tried["map refused"] += 1
        finally:
            if results is not None:
                results.close()
            for number in left:
                self.refused[number] = 1

    def check(self, number: int, future: Future[int]) -> None:
        """Wait for a future and hold it against the ledger."""
        try:
            assert future.result(60) == number
        except ValueError:
            assert number % 97 == 0, number
        except cf.CancelledError:
            assert self.ran[number] == 0, f"task {number} ran and is cancelled"
            return
        except TaskExpiredError:
            assert self.ran[number] == 0, f"task {number} ran and has expired"
            return
        except TaskTimeoutError:
            return  # its function has begun, and ends at some time
        assert self.ran[number] == 1, f"task {number} ran {self.ran[number]} times"

    def run(self) -> None:
        """All of it; raises where the books do not balance."""
        errors: list[BaseException] = []

        def produce(first: int) -> None:
            try:
                self.produce(first)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=produce, args=(n,)) for n in range(self.producers)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            stats = self.ex.stats()
            parts = stats.completed_tasks + stats.cancelled_tasks
            parts += stats.active_workers + stats.queued_tasks
            assert parts == stats.submitted_tasks, stats
            threads[0].join(0.01)
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        assert self.ex.wait(60), self.ex.stats()
        self.ex.shutdown()
        patience = time.monotonic() + 60
        while self.ex._futurepool.overdue and time.monotonic() < patience:
            time.sleep(0.01)
        # Callbacks of what a deadline or a drop has ended are called by a thread that nothing waits for.
        called = len(self.told) - sum(self.refused)
        while sum(self.told) < called and time.monotonic() < patience:
            time.sleep(0.01)
        stats = self.ex.stats()
        assert (stats.abandoned_workers, stats.workers) == (0, 0)
        alone = sum(ran for ran, mapped in zip(self.ran, self.mapped, strict=True) if not mapped)
        assert stats.completed_tasks >= alone, (stats, alone)
        assert stats.completed_tasks == alone or any(self.mapped), (stats, alone)
        assert max(self.ran) == 1
        assert sum(self.told) == called, "a callback was lost or doubled"
        assert max(self.told) == 1
        assert stats.submitted_tasks == stats.completed_tasks + stats.cancelled_tasks, stats
        assert self.most <= 2, f"{self.most} of two at a time"
        if not self.limits:
            return
        view = stats.views["limited"]
        assert view.submitted_tasks == view.completed_tasks + view.cancelled_tasks, view
        limits = self.ex._pool.limits
        assert limits is not None
        assert (limits.queued, limits.held, len(limits._limiters)) == (0, 0, 0)

    def summary(self, seconds: float) -> str:
        """What was done, what was tried, and how fast."""
        tasks, stats, refused = len(self.ran), self.ex.stats(), sum(self.refused)
        # What DROP_NEW, or a token cancelled before, turns away was never submitted; of a map few are.
        away = tasks - stats.submitted_tasks - refused
        tried = sorted(sum(self.tried, Counter()).items())
        return (
            f"{tasks} tasks in {seconds:.1f} s, {tasks / seconds:.0f}/s: {stats.completed_tasks} ran, "
            f"{stats.failed_tasks} of them failed, {stats.cancelled_tasks} cancelled, "
            f"{refused} refused, {away} turned away; on the way "
            + ", ".join(f"{number} {what}" for what, number in tried)
        )


def footprint() -> str:
    """Resident memory, threads and open files, where the system tells."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        memory = f"{pages * os.sysconf('SC_PAGE_SIZE') / 2**20:.0f} MiB"
        files = sum(1 for _ in Path("/proc/self/fd").iterdir())
    except OSError:
        return f"{threading.active_count()} threads"
    return f"{memory}, {threading.active_count()} threads, {files} files"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.ledger", description=__doc__)
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--minutes", type=float, default=0.0, help="repeat for so long")
    parser.add_argument("--producers", type=int, default=8)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    sys.setswitchinterval(1e-6)
    end = time.monotonic() + 60 * options.minutes
    turn = 0
    while True:
        began = time.monotonic()
        ledger = Ledger(options.tasks, options.producers, options.workers, options.seed + turn)
        ledger.run()
        print(ledger.summary(time.monotonic() - began))
        print(f"    {footprint()}", flush=True)
        turn += 1
        if time.monotonic() >= end:
            break


if __name__ == "__main__":
    main()
