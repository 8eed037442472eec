"""Counting durations into the buckets of a histogram.

Buckets are fixed and logarithmic, so they take the same room and time however much they count; the
idea is HdrHistogram's (https://hdrhistogram.org). Eight to the octave, from one microsecond up to 71
minutes: neighbouring bounds differ by a factor of 2 ** (1 / 8), so a percentile is off by at most
9.1 %. Below and above that range there is one bucket each.
"""

from __future__ import annotations

from bisect import bisect_left
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from futurepool.stats import Histogram

__all__: list[str] = []  # internal

#: Upper bounds of the buckets, inclusive.
BOUNDS: tuple[float, ...] = (*(1e-6 * 2 ** (i / 8) for i in range(8 * 32 + 1)), inf)


class HistogramRecorder:
    """Counts durations into the buckets. Not thread-safe: the caller holds its mutex."""

    __slots__ = ("counts", "high", "latest", "low", "max")

    def __init__(self) -> None:
        self.counts: list[int] = [0] * len(BOUNDS)
        self.max: float = 0.0
        self.latest: int = 0  # the latest value's bucket, and its bounds
        self.low: float = inf
        self.high: float = -inf

    def record(self, seconds: float) -> None:
        """Count one value; the hot path of `futurepool.life` has this in line."""
        self.latest = latest = bisect_left(BOUNDS, seconds)
        self.high = BOUNDS[latest]
        self.low = BOUNDS[latest - 1] if latest else -inf
        self.counts[latest] += 1
        if seconds > self.max:  # noqa: PLR1730 - max() is a call more
            self.max = seconds

    def snapshot(self, total: float) -> Histogram:
        """The state now, `total` being the sum of the values. About ten microseconds."""
        from futurepool.stats import Histogram

        counts = self.counts
        return Histogram(sum(counts), total, self.max, tuple(zip(BOUNDS, counts, strict=True)))
