"""What is counted by limits, and who is next, compared after each step with what a plain search finds."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from futurepool import BoundedExecutor, CancelToken
from futurepool._future import CANCELLED, FINISHED, PENDING, RUNNING
from futurepool._pool import submission
from futurepool._pool.limits import Key, Keys, LimitedQueue, Limiter


class Slot:
    task: Any = None


class Model:
    """The limits of a pool that runs nothing: tasks are queued, taken, ended and cancelled by hand."""

    def __init__(self, ex: BoundedExecutor) -> None:
        outer = ex.options(limit=3, name="outer")
        keyed = outer.options(limit=2, name="inner")
        self.views: list[Any] = [ex, outer, outer.options(limit=1), ex.options(limit=2)]
        self.views += [keyed.options(key=key, key_limit=2) for key in "abc"]
        self.by_key = {key: ex.options(key=key, key_limit=1) for key in "abc"}
        self.pool: Any = ex._futurepool
        limits: Any = self.pool.limits
        self.limits: LimitedQueue = limits
        self.pending: list[Any] = []
        self.running: list[Any] = []
        # Who lends it its slots, and from where on upwards.
        self.lent: dict[Any, tuple[Any, Limiter]] = {}
        self.number = 0
        # (key's limiter, priority): the turns of others, by key, since it could have had one.
        self.skipped: dict[tuple[Limiter, int], Counter[object]] = {}
        self.since: dict[tuple[Limiter, int], int] = {}  # after so many submits
        self.born: dict[Limiter, int] = {}  # the same, for limiters

    @property
    def all_keys(self) -> list[Keys]:
        """Of all views that have keys."""
        above = {
            view._futurepool_options.limiter.above for view in [self.views[-1], self.by_key["a"]]
        }
        return [limiter.keys for limiter in above if limiter.keys is not None]

    def any_view(self, rng: random.Random) -> Any:
        return rng.choice([*self.views, *self.by_key.values()])

    def make(self, view: Any, priority: int) -> Any:
        options = view.options(priority=priority)._futurepool_options
        task: Any = submission.make_future(self.pool, options, int, ())
        self.number += 1
        task.task_id, task._queued_at = self.number, 0.0
        if options.limiter is not None:
            task._limit, task._meters = options.limiter, options.limiter.meters
        return task

    def submit(self, view: Any, priority: int) -> None:
        task = self.make(view, priority)
        self.limits.push(task)
        self.pending.append(task)
        if task._limit is not None:
            self.born.setdefault(task._limit, self.number)

    def cancel(self, task: Any) -> None:
        task._state = CANCELLED
        self.pending.remove(task)
        self.lent.pop(task, None)
        if task._limit is not None:
            self.limits.cancelled(task)
        else:
            self.limits.note_tombstone(len(self.pending))

    def forget_turns(self) -> None:
        """From now on whose turn it is says nothing about who has had one before."""
        self.skipped.clear()
        self.since.clear()
        self.born = {
            task._limit: self.number for task in self.pending + self.running if task._limit
        }

    def start(self, task: Any) -> None:
        """Somebody runs it who is no worker: it need not be the next one."""
        if self.limits.may_start(task):
            task._state = RUNNING
            self.limits.started(task)
            self.pending.remove(task)
            self.running.append(task)
            self.forget_turns()

    def start_new(self, view: Any, priority: int) -> None:
        """As `start`, instead of being queued."""
        task = self.make(view, priority)
        limit = task._limit
        if limit is None:
            return
        free = self.limits.may_start(task)
        self.check()  # nothing is left of having asked
        if isinstance(limit, Key):
            limit = next(
                (
                    limiter
                    for limiter in self.counts(self.pending + self.running)
                    if limiter.key == limit.key and limiter.above is limit.above.keys
                ),
                limit.above,
            )
        assert free == self.has_room(limit.path)
        if free:
            task._state = RUNNING
            self.limits.started(task, new=True)
            self.running.append(task)
            self.forget_turns()

    def any_lender(self, rng: random.Random) -> Any:
        """One that runs; half of the times one that has borrowed itself, if there is any."""
        borrowers = [task for task in self.running if task in self.lent]
        return rng.choice(rng.choice((borrowers, [])) or self.running)

    def lend(self, task: Any, lender: Any) -> None:
        """`lender` waits for `task`, see `futurepool._pool.helping`."""
        if task in self.lent or self.limits.may_start(task):
            return
        if self.limits.lend(task, [lender]):
            self.lent[task] = lender, task._lent
        else:
            self.limits.awaited[task] = None

    def end(self, task: Any) -> None:
        task._state = FINISHED
        self.running.remove(task)
        self.hand_on(task)
        if task._limit is not None:
            self.limits.finished(task, 0.0, 0.0, False)

    def hand_on(self, lender: Any) -> None:
        """Who runs in its slots has them now; of several, that one which has the most lends them to the others."""
        end = self.lent.pop(lender, None)
        path = () if lender._limit is None else lender._limit.path
        heirs = []
        for task, (of, first) in list(self.lent.items()):
            if of is lender:
                del self.lent[task]
                if task in self.running:
                    if end is not None and path.index(first) >= path.index(end[1]):
                        self.lent[task] = end[0], first
                    else:
                        heirs.append((path.index(first), task.task_id, task, first))
        for _, _, task, first in heirs:
            if task is not min(heirs)[2]:
                self.lent[task] = min(heirs)[2], first
            elif end is not None:
                self.lent[task] = end

    def set_aside(self, task: Any) -> None:
        """Its token is cancelled; it itself is not, until a worker comes by."""
        token = CancelToken()
        token.cancel()
        task._own_subscribers().token = token

    def cancel_set_aside(self) -> None:
        """See `Pool._cancel_set_aside`."""
        for task in self.limits.token_cancelled:
            assert task._state is PENDING
            task._state = CANCELLED
            self.lent.pop(task, None)
            if task._limit is not None:
                self.limits.cancelled(task)
        self.limits.token_cancelled.clear()

    def take(self) -> None:
        """By rank; among the keys of one view that one whose turn it is, oldest first within it."""
        rank = self.limits.inner.rank
        slot = Slot()
        before = len(self.limits.token_cancelled)
        task: Any = self.limits.take(slot)
        aside = self.limits.token_cancelled[before:]
        for each in aside:
            self.pending.remove(each)
        if aside:
            self.forget_turns()
        due = sorted([task for task in self.pending if self.may_start(task)], key=rank)
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
        self.by_key[key] = self.views[0].options(key=key, key_limit=key_limit)

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
            self.lent.pop(task, None)
        for task in rng.sample(self.running, min(1, len(self.running))):
            task._state = FINISHED  # the same
            self.running.remove(task)
            self.hand_on(task)
        limits._dead = rng.randrange(99)
        for keys in {self.keys_of(task) for task in self.pending + self.running} - {None}:
            keys.limiters.clear()
        limits.recount(self.running, limits.token_cancelled)
        self.pool.queue.inner.rebuild()
        self.forget_turns()

    def check_swept(self) -> None:
        """Of those that are not queued any more no entry is left."""
        limits = self.limits
        assert limits._dead == 0
        for limiter in [*limits._limiters, limits.root]:
            for rank, _, item in limiter.heap:
                if isinstance(item, Limiter):
                    assert item.offered == rank
                else:
                    assert item in self.pending
        for keys in self.all_keys:
            for turns in keys._turns.values():
                assert all(number == limiter.turn for _, number, limiter in turns)
                assert all(turns[(i - 1) // 2] < entry for i, entry in enumerate(turns) if i)

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

    def owner(self, task: Any, limiter: Limiter) -> Any:
        """Whose slot of this limiter it is that the task runs in."""
        path = task._limit.path
        while task in self.lent and path.index(self.lent[task][1]) <= path.index(limiter):
            task = self.lent[task][0]
            path = task._limit.path
        return task

    def slots(self) -> Counter[Limiter]:
        """How many are taken."""
        owners: dict[Limiter, set[Any]] = {}
        for task in self.running:
            for limiter in () if task._limit is None else task._limit.path:
                owners.setdefault(limiter, set()).add(self.owner(task, limiter))
        return Counter({limiter: len(tasks) for limiter, tasks in owners.items()})

    def has_room(self, path: tuple[Limiter, ...]) -> bool:
        running = self.slots()
        return all(running[limiter] < limiter.limit for limiter in path)

    def may_start(self, task: Any) -> bool:
        return task._limit is None or self.has_room(task._limit.path)

    def check(self) -> None:
        """All that is counted."""
        limits = self.limits
        running, waiting = self.slots(), self.counts(self.pending)
        limiters = {*self.counts(self.running), *waiting} - {limits.root}
        assert {*limits._limiters} == limiters
        for keys in self.all_keys:
            assert set(keys.limiters.values()) == {each for each in limiters if each.above is keys}
        for limiter in [*limiters, limits.root]:
            assert all(
                limiter.heap[(i - 1) // 2] < entry for i, entry in enumerate(limiter.heap) if i
            )
        below: Counter[Limiter] = Counter()
        for limiter in sorted(limiters, key=lambda each: -len(each.path)):
            assert limiter.above is not None
            own = [task for task in self.pending if task._limit is limiter]
            free = max(0, limiter.limit - running[limiter])
            due = min(free, len(own) + below[limiter])
            found = (limiter.running, limiter.waiting, limiter.below, limiter.due)
            assert found == (running[limiter], len(own), below[limiter], due)
            below[limiter.above] += due
        assert all(task in self.pending for task in limits.awaited)
        borrowers = {task: lender for lender, row in limits.borrowers.items() for task in row}
        assert borrowers == {task: lender for task, (lender, _) in self.lent.items()}
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
            aside = [task for task in limits.token_cancelled if task._state is PENDING]
            unfinished = self.pending + self.running + aside
            own = [task for task in unfinished if meter in task._meters]
            active = [task for task in self.running if meter in task._meters]
            assert (meter.unfinished, meter.active) == (len(own), len(active))
        self.note_turns()


@pytest.mark.parametrize("order", ["fifo", "lifo"])
@pytest.mark.parametrize("seed", range(10))
def test_random_programs(seed: int, order: Any) -> None:
    """Views within views, keys, priorities; now many tasks wait, now few."""
    rng = random.Random(seed)
    with BoundedExecutor(1, queue_size=None, order=order) as ex:
        model = Model(ex)
        for step in range(240):
            more = step // 60 % 2
            what = rng.random()
            priority = rng.choice((1, 1, 1, 0, 2))
            if what < (0.5 if more else 0.26):
                model.submit(model.any_view(rng), priority)
            elif what < 0.58:
                if model.pending:
                    model.cancel(rng.choice(model.pending))
            elif what < 0.75:
                model.take()
            elif what < 0.87:
                if model.running:
                    model.end(rng.choice(model.running))
            elif what < 0.91:
                key = rng.choice("abc")
                model.change_limit(key, rng.choice((1, 2, 3)))
                if what < 0.9:
                    (model.submit if what < 0.89 else model.start_new)(model.by_key[key], priority)
            elif what < 0.92:
                model.limits._sweep()
                model.check_swept()
            elif what < 0.93:
                model.interrupt(rng)
            elif what < 0.94:
                model.start_new(model.any_view(rng), priority)
            else:
                limited = [task for task in model.pending if task._limit is not None]
                if limited:
                    task = rng.choice(limited)
                    if what < 0.95:
                        model.start(task)
                    elif what < 0.96:
                        model.set_aside(task)
                    elif what < 0.97:
                        model.cancel_set_aside()
                    elif model.running:
                        model.lend(task, model.any_lender(rng))
                        if what < 0.99:
                            model.start(task)
            model.check()
        while model.pending or model.running:
            for task in model.running.copy():
                model.end(task)
            model.take()
            model.check()
        assert not model.limits._limiters
        assert not model.limits.borrowers


@pytest.mark.parametrize("seed", range(10))
def test_lending(seed: int) -> None:
    """Tasks of limits within limits wait for one another, and end in any order."""
    rng = random.Random(seed)
    with BoundedExecutor(1, queue_size=None) as ex:
        model = Model(ex)
        outer = model.views[1]
        middle = outer.options(limit=2, name="middle")
        inner = middle.options(limit=1, name="inner")
        views = [outer, middle, inner, middle.options(key="a", key_limit=1), model.views[3]]
        for _ in range(250):
            what = rng.random()
            if what < 0.35:
                model.submit(rng.choice(views), 1)
            elif what < 0.7 and model.pending:
                task = rng.choice(model.pending)
                if what > 0.4 and model.running:
                    model.lend(task, model.any_lender(rng))
                if what < 0.65:
                    model.start(task)
            elif what < 0.87 and model.running:
                model.end(rng.choice(model.running))
            elif what < 0.9 and model.running:
                rng.choice(model.running)._state = FINISHED  # its time is up, its function goes on
            elif what < 0.97 and model.pending:
                model.cancel(rng.choice(model.pending))
            else:
                model.interrupt(rng)
            model.check()


def test_slots_are_handed_on() -> None:
    """To who has the most of them, which lends them to the others; those that were lent stay so."""
    with BoundedExecutor(1, queue_size=None) as ex:
        model = Model(ex)
        middle = model.views[1].options(limit=2)
        inner = middle.options(limit=1)

        def start(view: Any, lender: Any = None) -> Any:
            model.submit(view, 1)
            task = model.pending[-1]
            if lender is not None:
                model.lend(task, lender)
                assert task in model.lent
            model.start(task)
            assert task in model.running
            model.check()
            return task

        def end(task: Any) -> None:
            model.end(task)
            model.check()

        first = start(middle)
        start(middle)
        second = start(inner, first)
        third = start(inner, second)  # of `inner` it has the second's slot, of `middle` the first's
        fourth = start(middle, second)
        end(second)
        end(first)
        end(third)
        end(fourth)
        first = start(inner)
        rest = [start(view, first) for view in (middle, inner)]
        end(first)
        for task in rest:
            end(task)


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


@pytest.mark.parametrize("cancelled", [True, False])
def test_a_key_waits_for_its_turn_in_another_priority(cancelled: bool) -> None:
    """Its first task is gone; those of keys that come later do not overtake what it has left."""
    with BoundedExecutor(1) as ex:
        model = Model(ex)
        views = {key: ex.options(key=key, key_limit=2) for key in "pqr"}
        model.submit(views["p"], 2)
        model.submit(views["p"], 1)
        (model.cancel if cancelled else model.start)(model.pending[0])
        for key in "qr":
            model.submit(views[key], 1)
        took = []
        for _ in range(3):
            model.take()
            took.append(model.running[-1]._limit.key)
        assert took == ["p", "q", "r"]


def test_a_key_that_was_full_at_its_turn() -> None:
    """It has its turn as soon as it is not."""
    with BoundedExecutor(1) as ex:
        model = Model(ex)
        for _ in range(3):
            model.submit(ex.options(key="p", key_limit=1), 1)
            model.submit(ex.options(key="q", key_limit=9), 1)
        first = model.pending[0]
        model.start(first)
        model.take()
        model.end(first)
        model.take()
        assert [task._limit.key for task in model.running] == ["q", "p"]


def test_what_is_set_aside_is_counted_again() -> None:
    """After an interruption; of one that its token has reached nothing is left."""
    with BoundedExecutor(1) as ex:
        model = Model(ex)
        for _ in range(3):
            model.submit(model.views[1], 1)
            model.set_aside(model.pending[-1])
        model.take()
        first = model.limits.token_cancelled[0]
        first._state = CANCELLED
        model.limits.cancelled(first)
        model.check()
        model.interrupt(random.Random(1))
        model.check()


@pytest.mark.parametrize("seed", range(4))
def test_what_is_swept(seed: int) -> None:
    """Of many keys and tasks half are cancelled."""
    rng = random.Random(seed)
    with BoundedExecutor(1, queue_size=None) as ex:
        model = Model(ex)
        for key in range(60):
            view = ex.options(key=key, key_limit=2)
            for _ in range(2):
                model.submit(view, 1)
                model.submit(model.views[1], 1)
        for _ in range(50):  # so that whose turn it is does not follow from who came first
            model.take()
            if model.running and rng.random() < 0.7:
                model.end(rng.choice(model.running))
        for task in rng.sample(model.pending, len(model.pending) // 2):
            model.cancel(task)
        model.limits._sweep()
        model.check()
        model.check_swept()
        for _ in range(3):
            model.take()
            model.check()
