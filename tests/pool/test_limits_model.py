"""What is counted by limits, and who is next, compared after each step with what a plain search finds."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from futurepool import BoundedExecutor
from futurepool._future import CANCELLED, FINISHED, PENDING
from futurepool._pool import submission
from futurepool._pool.limits import Keys, LimitedQueue, Limiter


class Slot:
    task: Any = None


class Model:
    """The limits of a pool that runs nothing: tasks are queued, taken, ended and cancelled by hand."""

    def __init__(self, ex: BoundedExecutor) -> None:
        outer = ex.options(limit=3, name="outer")
        keyed = outer.options(limit=2, name="inner")
        self.views: list[Any] = [ex, outer, outer.options(limit=1), ex.options(limit=2)]
        for key in "abc":
            self.views += [ex.options(key=key, key_limit=1), keyed.options(key=key, key_limit=2)]
        self.pool: Any = ex._futurepool
        limits: Any = self.pool.limits
        self.limits: LimitedQueue = limits
        self.pending: list[Any] = []
        self.running: list[Any] = []
        self.number = 0
        # (key's limiter, priority): the turns of others, by key, since it could have had one.
        self.skipped: dict[tuple[Limiter, int], Counter[object]] = {}
        self.since: dict[tuple[Limiter, int], int] = {}  # after so many submits
        self.born: dict[Limiter, int] = {}  # the same, for limiters

    def submit(self, view: Any, priority: int) -> None:
        options = view.options(priority=priority)._futurepool_options
        task: Any = submission.make_future(self.pool, options, int, ())
        self.number += 1
        task.task_id, task._queued_at = self.number, 0.0
        if options.limiter is not None:
            task._limit = options.limiter
        self.limits.push(task)
        self.pending.append(task)
        if task._limit is not None:
            self.born.setdefault(task._limit, self.number)

    def cancel(self, task: Any) -> None:
        task._state = CANCELLED
        self.pending.remove(task)
        if task._limit is not None:
            self.limits.cancelled(task)
        else:
            self.limits.note_tombstone(len(self.pending))

    def end(self, task: Any) -> None:
        task._state = FINISHED
        self.running.remove(task)
        if task._limit is not None:
            self.limits.finished(task, 0.0, 0.0, False)

    def take(self) -> None:
        """By rank; among the keys of one view that one whose turn it is, oldest first within it."""
        rank = self.limits.inner.rank
        due = sorted([task for task in self.pending if self.may_start(task)], key=rank)
        slot = Slot()
        task: Any = self.limits.take(slot)
        if not due:
            assert task is None
            return
        self.pending.remove(task)
        self.running.append(task)
        assert slot.task is task
        best = due[0]
        keys = self.keys_of(best)
        if keys is None:
            assert task is best
            return
        rivals = [each for each in due if self.keys_of(each) is keys]
        rivals = [each for each in rivals if each.priority == best.priority]
        firsts: dict[Limiter, Any] = {}
        for each in rivals:
            firsts.setdefault(each._limit, each)
        assert task is firsts[task._limit]
        self.skipped.pop((task._limit, task.priority), None)
        self.since = {key: since for key, since in self.since.items() if key[0] is not task._limit}
        for limiter in firsts:
            if limiter is not task._limit:
                waiting = limiter, task.priority
                skipped = self.skipped.setdefault(waiting, Counter())
                skipped[task._limit.key] += 1
                assert skipped[task._limit.key] == 1, "twice, while another key has waited"
                assert self.born[task._limit] <= self.since.get(waiting, self.number), (
                    "it came later"
                )

    def change_limit(self, key: str, key_limit: int) -> None:
        """The next tasks of this key name another limit, which is its limit from then on."""
        index = len(self.views) - 6 + 2 * "abc".index(key)
        self.views[index] = self.views[0].options(key=key, key_limit=key_limit)

    def interrupt(self, rng: random.Random) -> None:
        """Something was struck in the middle of its work: what it has counted is wrong, and is counted again."""
        limits = self.limits
        for limiter in [limits.root, *limits._limiters]:
            limiter.running += rng.randrange(3)
            limiter.waiting = limiter.below = limiter.due = rng.randrange(3)
            limiter.offered = None
            del limiter.heap[: rng.randrange(3)]
        for task in rng.sample(self.pending, min(2, len(self.pending))):
            task._state = CANCELLED  # and not yet taken out
            self.pending.remove(task)
        limits.recount(self.running, ())
        self.pool.queue.inner.rebuild()
        self.skipped.clear()
        self.since.clear()
        self.born.clear()  # all have entered anew
        self.born.update(
            {task._limit: self.number for task in self.pending + self.running if task._limit}
        )

    def note_turns(self) -> None:
        """A key that cannot run now begins anew when it can."""
        best: dict[Limiter, int] = {}
        for task in self.pending:
            if self.keys_of(task) is not None and self.may_start(task):
                best[task._limit] = max(task.priority, best.get(task._limit, task.priority))
        ready = set(best.items())
        self.skipped = {key: count for key, count in self.skipped.items() if key in ready}
        self.since = {key: self.since.get(key, self.number) for key in ready}

    @staticmethod
    def keys_of(task: Any) -> Keys | None:
        above = None if task._limit is None else task._limit.above
        return above if isinstance(above, Keys) else None

    def counts(self, tasks: list[Any]) -> Counter[Limiter]:
        limited = [task._limit.path for task in tasks if task._limit is not None]
        return Counter([limiter for path in limited for limiter in path])

    def may_start(self, task: Any) -> bool:
        running = self.counts(self.running)
        path = () if task._limit is None else task._limit.path
        return all(running[limiter] < limiter.limit for limiter in path)

    def check(self) -> None:
        """All that is counted."""
        limits = self.limits
        running, waiting = self.counts(self.running), self.counts(self.pending)
        limiters = {*running, *waiting} - {limits.root}
        assert {*limits._limiters} == limiters
        below: Counter[Limiter] = Counter()
        for limiter in sorted(limiters, key=lambda each: -len(each.path)):
            assert limiter.above is not None
            own = [task for task in self.pending if task._limit is limiter]
            free = max(0, limiter.limit - running[limiter])
            due = min(free, len(own) + below[limiter])
            found = (limiter.running, limiter.waiting, limiter.below, limiter.due)
            assert found == (running[limiter], len(own), below[limiter], due)
            below[limiter.above] += due
        limited = [task for task in self.pending if task._limit is not None]
        assert (limits.queued, limits.root.below) == (len(limited), below[limits.root])
        assert limits.root.running == running[limits.root]
        assert set(limits.tasks()) == set(self.pending)
        rank = limits.inner.rank
        ready = sorted([task for task in self.pending if self.may_start(task)], key=rank)
        if ready and self.keys_of(ready[0]) is None:
            assert limits.following() is ready[0]
        assert all(task._state is PENDING for task in self.pending)
        for meter in limits.meters.values():
            own = [task for task in self.pending + self.running if meter in task._meters]
            active = [task for task in self.running if meter in task._meters]
            assert (meter.unfinished, meter.active) == (len(own), len(active))
        self.note_turns()


@pytest.mark.parametrize("order", ["fifo", "lifo"])
@pytest.mark.parametrize("seed", range(6))
def test_random_programs(seed: int, order: Any) -> None:
    """Views within views, keys, priorities; now many tasks wait, now few."""
    rng = random.Random(seed)
    with BoundedExecutor(1, queue_size=None, order=order) as ex:
        model = Model(ex)
        for step in range(240):
            more = step // 60 % 2
            what = rng.random()
            if what < (0.55 if more else 0.3):
                model.submit(rng.choice(model.views), rng.choice((1, 1, 1, 0, 2)))
            elif what < 0.65:
                if model.pending:
                    model.cancel(rng.choice(model.pending))
            elif what < 0.82:
                model.take()
            elif what < 0.95:
                if model.running:
                    model.end(rng.choice(model.running))
            elif what < 0.97:
                model.change_limit(rng.choice("abc"), rng.choice((1, 2)))
            elif what < 0.98:
                model.limits._sweep()
            else:
                model.interrupt(rng)
            model.check()
        while model.pending or model.running:
            for task in model.running.copy():
                model.end(task)
            model.take()
            model.check()
        assert not model.limits._limiters


def test_a_key_catches_up() -> None:
    """One that could not have turns while it was full is next; of several, who could first."""
    with BoundedExecutor(1) as ex:
        model = Model(ex)
        views = [
            ex.options(key=key, key_limit=limit) for key, limit in (("p", 1), ("q", 1), ("h", 99))
        ]
        for view in views:
            for _ in range(9):
                model.submit(view, 1)

        def take() -> Any:
            model.take()
            return model.running[-1]

        p, q = take(), take()
        model.end(q)
        took = [take() for _ in range(4)]
        assert [task._limit.key for task in took] == ["h", "q", "h", "h"]
        model.end(took[1])
        model.end(p)
        assert [take()._limit.key for _ in range(4)] == ["q", "p", "h", "h"]
