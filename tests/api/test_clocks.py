"""Timeouts end in real time, also while a tool makes the clock stand still."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent import futures as cf
from contextlib import AbstractContextManager, contextmanager
from itertools import repeat
from typing import Any

import pytest

from futurepool import BoundedExecutor, CancelToken, ForcedShutdownError, SubmitTimeoutError
from tests.programs import python

NAMES = ["monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "time", "time_ns"]


@contextmanager
def by_hand() -> Iterator[None]:
    """In `time`, and wherever else a module of ours has one of its functions."""
    with pytest.MonkeyPatch.context() as patch:
        answers = {id(getattr(time, name)): getattr(time, name)() for name in NAMES}
        ours = [module for name, module in sys.modules.items() if name.startswith("futurepool")]
        for module in [time, *ours]:
            for name, value in list(vars(module).items()):
                if id(value) in answers:
                    patch.setattr(module, name, repeat(answers[id(value)]).__next__)
        yield


@contextmanager
def by_freezegun() -> Iterator[None]:
    with pytest.importorskip("freezegun").freeze_time("2024-01-01"):
        yield


@contextmanager
def by_time_machine() -> Iterator[None]:
    with pytest.importorskip("time_machine").travel(0, tick=False):
        yield


STOPPED = pytest.mark.parametrize("stopped", [by_hand, by_freezegun, by_time_machine])


@pytest.fixture
def end() -> Iterator[threading.Event]:
    end = threading.Event()
    yield end
    end.set()


def result(full: BoundedExecutor, running: Any) -> None:
    with pytest.raises(cf.TimeoutError):
        running.result(0.01)


def exception(full: BoundedExecutor, running: Any) -> None:
    with pytest.raises(cf.TimeoutError):
        running.exception(0.01)


def submit(full: BoundedExecutor, running: Any) -> None:
    with pytest.raises(SubmitTimeoutError):
        full.submit_with_timeout(0.01, int)


def options(full: BoundedExecutor, running: Any) -> None:
    with pytest.raises(SubmitTimeoutError):
        full.options(priority=3, token=CancelToken(), timeout=0.01).submit(int)


def map_(full: BoundedExecutor, running: Any) -> None:
    with pytest.raises(cf.TimeoutError):
        next(BoundedExecutor(1).map(running.result, [60], timeout=0.01))


def map_unordered(full: BoundedExecutor, running: Any) -> None:
    with pytest.raises(cf.TimeoutError):
        next(BoundedExecutor(1).map_unordered(running.result, [60], timeout=0.01))


def wait(full: BoundedExecutor, running: Any) -> None:
    assert not full.wait(0.01)


def stop(full: BoundedExecutor, running: Any) -> None:
    with pytest.raises(ForcedShutdownError):
        full.stop(0.01)


def token(full: BoundedExecutor, running: Any) -> None:
    assert not CancelToken().wait(0.01)
    assert CancelToken(0.01).wait()


def deadline(full: BoundedExecutor, running: Any) -> None:
    """The timer's, as that of a task that waits in the queue."""
    other = BoundedExecutor(1)
    other.submit(running.result, 60)
    with pytest.raises(cf.CancelledError):
        other.submit_with_token(CancelToken(0.01), int).result()


def arun(full: BoundedExecutor, running: Any) -> None:
    async def main() -> None:
        with pytest.raises(SubmitTimeoutError):
            await full.options(timeout=0.01).arun(int)

    asyncio.run(main())


def amap(full: BoundedExecutor, running: Any) -> None:
    async def main() -> None:
        results: AsyncIterator[int] = full.options(timeout=0.01).amap(abs, [1, 2])
        with pytest.raises(SubmitTimeoutError):
            await results.__anext__()

    asyncio.run(main())


WAYS = [result, exception, submit, options, map_, map_unordered, wait, stop, token, deadline]
WAYS += [arun, amap]


@pytest.mark.slow  # with freezegun
@pytest.mark.parametrize("way", WAYS)
@STOPPED
def test_timeouts_end(
    stopped: Callable[[], AbstractContextManager[None]],
    way: Callable[[BoundedExecutor, Any], None],
    end: threading.Event,
) -> None:
    """Within real seconds, and not because the task has ended."""
    full = BoundedExecutor(1, queue_size=1)
    running = full.submit(end.wait, 60)
    full.submit(int)
    rescue = threading.Timer(20, end.set)
    rescue.start()
    with stopped():
        assert time.time() == time.time()
        way(full, running)
    assert not end.is_set()
    rescue.cancel()
    end.set()
    full.shutdown()


@pytest.mark.slow  # with freezegun
@STOPPED
def test_what_is_told_of_times_is_real(
    stopped: Callable[[], AbstractContextManager[None]], end: threading.Event
) -> None:
    with stopped():
        pool = BoundedExecutor(1)
        pool.submit(end.wait, 60)
        threading.Event().wait(0.01)
        first, second = pool.stats().uptime, pool.stats().uptime
    assert 0.01 <= first < second
    end.set()
    pool.shutdown()


IMPORTED_LATE = """
import threading
from freezegun import freeze_time
with freeze_time("2024-01-01"):
    import futurepool
    pool, end = futurepool.BoundedExecutor(1), threading.Event()
    pool.submit(end.wait, 30)
    print(pool.wait(timeout=0.01))
    end.set()
pool.shutdown()
"""


@pytest.mark.slow
def test_a_clock_that_was_stopped_before_the_import() -> None:
    pytest.importorskip("freezegun")
    done = python(IMPORTED_LATE, "-W", "default")
    assert (done.stdout, done.stderr) == ("False\n", "")
