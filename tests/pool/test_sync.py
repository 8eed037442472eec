"""The lock and the gate at which a thread tries for a while before it sleeps."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from futurepool import _sync
from futurepool._pool.section import unpark


@pytest.fixture(name="gate")
def fixture_gate() -> threading.Event:
    """Set when a thread is about to sleep for the lock."""
    return threading.Event()


@pytest.fixture(name="asked")
def fixture_asked(monkeypatch: pytest.MonkeyPatch, gate: threading.Event) -> list[str]:
    """What `acquire` does, step by step."""
    asked: list[str] = []
    acquire = _sync._RLock.acquire

    def ask(lock: object, blocking: bool = True) -> bool:
        asked.append("sleep" if blocking else "try")
        if blocking:
            gate.set()
        return bool(acquire(lock, blocking))

    monkeypatch.setattr(_sync, "_acquire", ask)
    monkeypatch.setattr(_sync, "_give_way", lambda: asked.append("give way"))
    return asked


def test_a_free_lock_is_taken_at_once(asked: list[str]) -> None:
    """And again by its owner, as any RLock."""
    lock = _sync.SpinLock()
    assert lock.acquire()
    assert lock.acquire()
    assert asked == ["try", "try"]
    lock.release()
    assert lock._is_owned()
    lock.release()
    assert not lock._is_owned()


def test_it_sleeps_for_a_lock_that_does_not_come_free(
    asked: list[str], gate: threading.Event
) -> None:
    """After some tries, and some more with the core given to others."""
    lock, there = _sync.SpinLock(), threading.Event()

    def hold() -> None:
        with lock:
            there.set()
            gate.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    assert there.wait(30)
    assert lock.acquire()
    lock.release()
    holder.join(30)
    gifts = ["give way", "try"] * len(_sync._YIELDS)
    assert asked == ["try"] * len(_sync._TRIES) + gifts + ["sleep"]


def test_one_that_comes_free_meanwhile(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """While the core is given to others, its holder lets go."""
    lock, there, free = _sync.SpinLock(), threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            there.set()
            free.wait(30)

    holder = threading.Thread(target=hold)

    def give_way() -> None:
        free.set()
        holder.join(30)

    monkeypatch.setattr(_sync, "_give_way", give_way)
    holder.start()
    assert there.wait(30)
    assert lock.acquire()
    lock.release()
    assert asked == ["try"] * (len(_sync._TRIES) + 1)


#: It is for free-threaded builds; and before, a queue's `get` may wait for ever once its time is over.
from_313 = pytest.mark.skipif(sys.version_info < (3, 13), reason="made for Python 3.13 and later")


@pytest.fixture(name="given")
def fixture_given(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, float], list[int]]:
    """Counts how often a thread gives way; at the nth time the gate opens. Each takes so long."""

    def watch(free_at: int, takes: float) -> list[int]:
        given: list[int] = []

        def give_way() -> None:
            given.append(len(given) + 1)
            if given[-1] == free_at:
                gate.release()

        gate = _sync.SpinParker()
        monkeypatch.setattr(_sync, "_give_way", give_way)
        monkeypatch.setattr(_sync, "clock", lambda: 1000.0 + takes * len(given))
        monkeypatch.setattr(_sync, "Parker", lambda: gate)
        return given

    return watch


@pytest.mark.parametrize("free_at", [1, 2, 39])
@from_313
def test_a_gate_that_opens_while_one_looks(given: Any, free_at: int) -> None:
    """The core is given to others between two looks; nobody looks again."""
    times = given(free_at, 1e-7)
    assert _sync.Parker().acquire()
    assert len(times) == free_at


@from_313
def test_an_open_gate(given: Any) -> None:
    """Nobody gives way to anybody."""
    times = given(0, 1e-7)
    gate = _sync.Parker()
    gate.release()
    assert gate.acquire()
    assert times == []
    assert not gate.acquire(True, 0.0)
    assert len(times) == 40


@from_313
def test_a_gate_that_stays_closed(given: Any) -> None:
    """One sleeps for as long as was asked for, after all the looks."""
    times = given(0, 1e-7)
    assert not _sync.Parker().acquire(True, 0.001)
    assert len(times) == 40


@from_313
def test_a_gate_where_others_want_the_cpu(given: Any) -> None:
    """To give way takes milliseconds then: one sleeps at once."""
    times = given(0, 0.004)
    assert not _sync.Parker().acquire(True, 0.001)
    assert len(times) == 1


@pytest.mark.parametrize("make", [pytest.param(_sync.SpinParker, marks=from_313), _sync._held_lock])
def test_a_gate_is_opened_by_any_thread(make: Callable[[], Any]) -> None:
    """For one to pass, also if it is opened twice."""
    gate = make()
    assert not gate.acquire(True, 0.0)

    def open_it() -> None:
        unpark(gate)
        unpark(gate)

    opener = threading.Thread(target=open_it)
    opener.start()
    opener.join(30)
    assert gate.acquire(True, 30)
    assert not gate.acquire(True, 0.0)


class Held(threading.Event):
    """Until the gate opens, a thread that has this for its `_started` is just beginning."""

    def __init__(self, gate: threading.Event) -> None:
        super().__init__()
        self.gate = gate
        self.there = threading.Event()

    def set(self) -> None:
        self.there.set()
        self.gate.wait(30)
        super().set()


def test_a_thread_that_is_just_beginning(
    gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has its `ident`, yet does not count as started: it has not ended, and can be waited for."""
    thread = threading.Thread(target=int)
    assert not _sync.has_ended(thread)
    with pytest.raises(RuntimeError, match="before it is started"):
        _sync.join(thread)
    held = Held(gate)
    thread._started = held  # type: ignore[attr-defined]
    starter = threading.Thread(target=thread.start)
    starter.start()
    assert held.there.wait(30)
    assert thread.ident is not None
    assert not _sync.has_ended(thread)

    def get_ident() -> int:  # `join` asks, once it was refused
        gate.set()
        return threading.get_ident()

    monkeypatch.setattr(_sync, "get_ident", get_ident)
    _sync.join(thread)
    assert gate.is_set()
    assert _sync.has_ended(thread)
    starter.join(30)


def test_a_thread_cannot_wait_for_itself() -> None:
    with pytest.raises(RuntimeError, match="current thread"):
        _sync.join(threading.current_thread())
    assert not _sync.has_ended(threading.current_thread())


@pytest.mark.parametrize("timeout", [1e10, float("inf")])
def test_a_thread_is_waited_for_longer_than_a_lock_can(timeout: float) -> None:
    """What the lock within `Thread.join` would refuse."""
    gate = threading.Lock()
    gate.acquire()
    thread = threading.Thread(target=gate.acquire)
    thread.start()
    threading.Timer(0.01, gate.release).start()
    _sync.join(thread, timeout)
    assert not thread.is_alive()


@pytest.mark.parametrize("enabled", [True, False])
def test_nothing_is_collected_while_frames_are_looked_for(
    enabled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where that could hang; and it is left as it was, whatever happens."""
    seen: list[bool] = []
    look = sys._current_frames
    failing = False

    def current_frames() -> Any:
        seen.append(gc.isenabled())
        if failing:
            raise MemoryError
        return look()

    monkeypatch.setattr(sys, "_current_frames", current_frames)
    if not enabled:
        gc.disable()
    try:
        assert threading.get_ident() in _sync.current_frames()
        assert gc.isenabled() is enabled
        failing = True
        with pytest.raises(MemoryError):
            _sync.current_frames()
        assert gc.isenabled() is enabled
    finally:
        gc.enable()
    assert seen == [enabled and sys.version_info >= (3, 12)] * 2
