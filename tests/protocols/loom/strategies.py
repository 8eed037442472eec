"""Who runs next: at random, by priorities (PCT), or every possibility in turn (DFS).

A strategy lives for a whole exploration. `begin()` prepares one more schedule, or says there is
none left; `choose()` is asked at each decision of it; `end()` learns that it is over. All are
deterministic: the same seed gives the same schedules, in the same order.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple

__all__ = ["DFS", "PCT", "Diverged", "RandomWalk", "Replay", "Strategy", "parse", "render"]


class Diverged(RuntimeError):
    """The scenario did not do what it did before under the same schedule."""


class Strategy:
    """The base, and the simplest one: a single schedule, without preemption."""

    #: True once every schedule in reach has been tried.
    complete = False

    def begin(self) -> bool:
        if self.complete:
            return False
        self.complete = True
        return True

    def choose(self, options: Sequence[int], current: int | None) -> int:
        return options[0] if current is None else current

    def end(self) -> None:
        """The schedule has been run."""


class RandomWalk(Strategy):
    """Switch at random, in some schedules at every other point, in some rarely."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)
        self._eager = 1.0

    def begin(self) -> bool:
        self._eager = self._random.choice((1.0, 0.5, 0.2, 0.08))
        return True

    def choose(self, options: Sequence[int], current: int | None) -> int:
        draw = self._random.random
        if current is not None and self._eager < 1.0 and draw() >= self._eager:
            return current
        return options[int(draw() * len(options))]


class PCT(Strategy):
    """Probabilistic concurrency testing (Burckhardt et al., 2010).

    The task with the highest priority runs; priorities are random, and at `depth - 1` random
    decisions the running task falls to the bottom. It finds a bug that needs `depth` orderings with
    probability of at least 1/(n·k^(depth-1)) for each schedule: n tasks, k decisions.
    """

    def __init__(self, seed: int = 0, depth: int = 3) -> None:
        self._random = random.Random(seed)
        self._depth = depth
        self._longest = 20  # decisions in a schedule, as far as we know
        self._priority: dict[int, float] = {}
        self._falls: set[int] = set()
        self._count = 0

    def begin(self) -> bool:
        draw = self._random.random
        self._priority.clear()
        self._falls = {int(draw() * self._longest) for _ in range(self._depth - 1)}
        self._count = 0
        return True

    def choose(self, options: Sequence[int], current: int | None) -> int:
        priority = self._priority
        for option in options:
            if option not in priority:
                priority[option] = self._random.random()
        if self._count in self._falls and current is not None:
            priority[current] = -1.0 - self._count
        self._count += 1
        return max(options, key=priority.__getitem__)

    def end(self) -> None:
        self._longest = max(self._longest, self._count)


class _Node(NamedTuple):
    choice: int
    others: list[int]  # still to be tried here
    options: tuple[int, ...]
    current: int | None
    spent: int  # preemptions before this decision


class DFS(Strategy):
    """Every schedule with at most `preemptions` switches away from a task that could go on.

    First all without any, then with one, and so on: the bug found has the fewest. Most bugs need
    no more than two.
    """

    def __init__(self, preemptions: int = 2) -> None:
        self._most = preemptions
        self._bound = 0
        self._path: list[_Node] = []
        self._depth = 0
        self._cut = False  # the bound kept us from something
        self._started = False

    def begin(self) -> bool:
        if self._started and not self._backtrack():
            if not self._cut or self._bound == self._most:
                self.complete = True
                return False
            self._bound += 1
        self._cut = self._cut and bool(self._path)
        self._started = True
        self._depth = 0
        return True

    def _backtrack(self) -> bool:
        path = self._path
        while path:
            node = path.pop()
            if node.others:
                choice = node.others.pop()
                path.append(node._replace(choice=choice))
                return True
        return False

    def choose(self, options: Sequence[int], current: int | None) -> int:
        depth, path = self._depth, self._path
        self._depth = depth + 1
        if depth < len(path):
            node = path[depth]
            if node.current != current or node.options != tuple(options):
                raise Diverged(f"decision {depth + 1}: {options}, before {node.options}")
            return node.choice
        spent = 0
        if path:
            last = path[-1]
            spent = last.spent + (last.current is not None and last.choice != last.current)
        choice = options[0] if current is None else current
        others = [option for option in options if option != choice]
        if current is not None and spent >= self._bound:
            self._cut = self._cut or bool(others)
            others = []
        path.append(_Node(choice, others[::-1], tuple(options), current, spent))
        return choice


class Replay(Strategy):
    """One schedule, as `Failure.schedule` gives it."""

    def __init__(self, schedule: str | Mapping[int, int]) -> None:
        self._choices = parse(schedule) if isinstance(schedule, str) else dict(schedule)
        self._count = 0

    def choose(self, options: Sequence[int], current: int | None) -> int:
        self._count += 1
        choice = self._choices.get(self._count)
        if choice in options:
            return choice  # type: ignore[return-value]
        return super().choose(options, current)


def render(deviations: Mapping[int, int]) -> str:
    """`{3: 1, 8: ~0}` as "3:1 8:~0"."""
    return " ".join(f"{k}:{c}" if c >= 0 else f"{k}:~{~c}" for k, c in sorted(deviations.items()))


def parse(schedule: str) -> dict[int, int]:
    """The inverse of `render`."""
    found: dict[int, int] = {}
    for part in schedule.split():
        number, _, choice = part.partition(":")
        found[int(number)] = ~int(choice[1:]) if choice.startswith("~") else int(choice)
    return found
