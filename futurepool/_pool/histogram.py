"""Counting durations into the buckets of a histogram.

Buckets are fixed, so they take the same room and time however much they count; the idea and the
layout are HdrHistogram's (https://hdrhistogram.org): each octave from one microsecond up to 68
minutes is cut into sixteen equal parts, so a percentile is off by at most a sixteenth. Below and
above that range there is one bucket each. A value's bucket is then the exponent and the first four
bits of the fraction of its IEEE 754 double: its first two bytes.
"""

from __future__ import annotations

import struct
import sys
from bisect import bisect_right
from collections import Counter
from functools import lru_cache
from itertools import compress
from typing import TYPE_CHECKING

from futurepool import _sync

if TYPE_CHECKING:
    from futurepool._telemetry.stats import Histogram

_PARTS = 16  # of an octave; four bits
_FIRST, _LAST = -20, 12  # powers of two, in seconds

#: Upper bounds of the buckets, exclusive.
BOUNDS: tuple[float, ...] = (
    2.0**_FIRST,
    *(
        2.0**power * (1 + part / _PARTS)
        for power in range(_FIRST, _LAST)
        for part in range(1, _PARTS + 1)
    ),
    float("inf"),
)

_LAST_BUCKET = len(BOUNDS) - 1

#: Every bucket as a snapshot has it if nothing is in it, which is so of most: made once, not each time.
_EMPTY: tuple[tuple[float, int], ...] = tuple([(bound, 0) for bound in BOUNDS])
_INDEXES = tuple(range(len(BOUNDS)))

#: (bucket, how many), and the largest value that was ever seen.
Tally = tuple[list[tuple[int, int]], float]


def _bucket(value: float) -> int:
    return min(bisect_right(BOUNDS, value), _LAST_BUCKET)


_ALL = bytes(range(256))
_ZERO = (1023 + _FIRST) * _PARTS - 1  # what the first two bytes are in bucket 0, at most

#: Buckets by the first byte of a value, and the second.
_BUCKETS: dict[int, list[int]] = {
    first: [min(max(0, 256 * first + second - _ZERO), _LAST_BUCKET) for second in _ALL]
    for first in (0x3E, 0x3F, 0x40)  # from 0.5 ns to 36 hours
}


class _Places(dict[int, int]):
    """Buckets by the first two bytes of a value, as a number in this machine's order; filled as needed."""

    def __missing__(self, pair: int) -> int:
        place = int.from_bytes(pair.to_bytes(2, sys.byteorder), "big")
        # What is below 0, by a clock that is not quite monotonic, has the first bit set.
        self[pair] = bucket = min(max(0, place - _ZERO), _LAST_BUCKET) if place < 0x8000 else 0
        return bucket


_PLACES = _Places()


def tally(values: list[float], most: float = 0.0) -> Tally:
    """What `values` add to a histogram whose largest value is `most`.

    Some 10 microseconds for 512 values of similar size, 30 for others: no branch depends on one of them, as
    many do in sorting.
    """
    if not values:
        return [], most
    buckets: list[tuple[int, int]]
    raw = struct.pack(f">{len(values)}d", *values)
    first, seconds = raw[0], raw[1::8]
    if first in _BUCKETS and raw[::8].count(first) == len(seconds):
        absent = _ALL.translate(None, seconds)
        buckets = [
            (_BUCKETS[first][second], seconds.count(second))
            for second in _ALL.translate(None, absent)
        ]
    else:
        pairs = memoryview(raw).cast("H")[::4].tolist()
        buckets = [(_PLACES[pair], number) for pair, number in Counter(pairs).items()]
    if BOUNDS[max(buckets)[0]] > most:
        most = max(most, *values)
    return buckets, most


class HistogramRecorder:
    """Counts durations into the buckets. Not thread-safe: the caller holds its mutex."""

    __slots__ = ("counts", "max")

    def __init__(self) -> None:
        self.counts: list[int] = [0] * len(BOUNDS)
        self.max: float = 0.0

    def record(self, seconds: float) -> None:
        """Count one value."""
        self.counts[_bucket(seconds)] += 1
        self.max = max(self.max, seconds)

    def tally(self, values: list[float]) -> Tally:
        """What to `add` for many values. May be called outside of the mutex, as this takes some microseconds."""
        return tally(values, self.max)

    def add(self, more: Tally) -> None:
        """Count many. Some microseconds."""
        buckets, most = more
        for bucket, number in buckets:
            self.counts[bucket] += number
        self.max = max(self.max, most)

    def copy(self) -> HistogramRecorder:
        """Another one that has counted the same."""
        other = HistogramRecorder.__new__(HistogramRecorder)
        other.counts, other.max = self.counts.copy(), self.max
        return other

    def snapshot(self, total: float) -> Histogram:
        """The state now, `total` being the sum of the values. Some microseconds."""
        from futurepool._telemetry.stats import Histogram

        return Histogram._of(sum(self.counts), total, self.max, Counts(self.counts))


class Counts:
    """What a `Histogram` of a pool is made of. It asks for what its user asks for, which seldom is the buckets."""

    __slots__ = ("_counts",)

    def __init__(self, counts: list[int]) -> None:
        self._counts: tuple[int, ...] = tuple(counts)

    def buckets(self) -> tuple[tuple[float, int], ...]:
        """Bounds and numbers, of all buckets. Some 10 microseconds."""
        counts = self._counts
        buckets = list(_EMPTY)
        for index in compress(_INDEXES, counts):
            buckets[index] = BOUNDS[index], counts[index]
        return tuple(buckets)

    def cumulative(self, bounds: tuple[float, ...]) -> list[int]:
        """See `Histogram.cumulative`. Some 5 microseconds."""
        counts = self._counts
        found = [0] * len(bounds)
        below, begin = 0, 0
        for place, index, share in _places(bounds):
            below += sum(counts[begin:index])
            begin = index
            found[place] = below + int(share * counts[index])
        return found


@lru_cache(32)
def _places(bounds: tuple[float, ...]) -> list[tuple[int, int, float]]:
    """For each bound, in ascending order: which it is, the bucket it is in, and the share of that bucket.

    Raises:
        ValueError: A bound is not a number (NaN).
    """
    places: list[tuple[int, int, float]] = []
    for place, bound in enumerate(bounds):
        if bound != bound:  # noqa: PLR0124 - that is what NaN is
            raise ValueError("a bound must be a number, not nan")
        index = _bucket(bound)
        lower = BOUNDS[index - 1] if index else 0.0
        # Of the last bucket, which has no end, only those who ask for all get anything.
        upper = BOUNDS[index]
        share = (
            float(bound == upper) if index == _LAST_BUCKET else (bound - lower) / (upper - lower)
        )
        places.append((place, index, max(0.0, share)))
    return sorted(places, key=lambda each: each[1])


_sync.import_now(__name__)
