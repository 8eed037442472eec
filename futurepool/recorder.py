"""Counting durations into the buckets of a histogram.

Buckets are fixed and logarithmic, so they take the same room and time however much they count; the
idea is HdrHistogram's (https://hdrhistogram.org). Eight to the octave, from one microsecond up to 71
minutes: neighbouring bounds differ by a factor of 2 ** (1 / 8), so a percentile is off by at most
9.1 %. Below and above that range there is one bucket each.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from futurepool.stats import Histogram

__all__: list[str] = []  # internal

#: Upper bounds of the buckets, inclusive.
BOUNDS: tuple[float, ...] = (*(1e-6 * 2 ** (i / 8) for i in range(8 * 32 + 1)), inf)

#: How many values are put into the buckets at a time: sorted first, that costs half as much.
BATCH = 1024


class HistogramRecorder:
    """Counts durations into the buckets. Not thread-safe: the caller holds its mutex."""

    __slots__ = ("counts", "fresh", "max")

    def __init__(self) -> None:
        self.counts: list[int] = [0] * len(BOUNDS)
        self.max: float = 0.0
        self.fresh: list[float] = []  # not counted yet

    def record(self, seconds: float) -> None:
        """Count one value; the hot path of `futurepool.life` has this in line."""
        self.fresh.append(seconds)
        if len(self.fresh) >= BATCH:
            self.settle()

    def settle(self) -> None:
        """Put what is fresh into the buckets. About 50 microseconds for a batch."""
        counts, most = self._sums()
        self.counts, self.fresh, self.max = counts, [], most

    def _sums(self) -> tuple[list[int], float]:
        """The buckets and the maximum, what is fresh included. Changes nothing."""
        counts, values = self.counts.copy(), sorted(self.fresh)
        start = 0
        while start < len(values):
            bucket = bisect_left(BOUNDS, values[start])
            end = bisect_right(values, BOUNDS[bucket], start)
            counts[bucket] += end - start
            start = end
        return counts, max([self.max, *values[-1:]])

    def snapshot(self, total: float) -> Histogram:
        """The state now, `total` being the sum of the values. Some tens of microseconds."""
        from futurepool.stats import Histogram

        counts, most = self._sums()
        return Histogram(sum(counts), total, most, tuple(zip(BOUNDS, counts, strict=True)))
