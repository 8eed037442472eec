"""The lock and the gate at which a thread tries for a while before it sleeps."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from futurepool import _sync


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


class Watched:
    """A held lock that notes what it is asked, and comes free at one of the questions."""

    def __init__(self, asked: list[str], free_at: int) -> None:
        self.asked, self.free_at = asked, free_at

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        self.asked.append(f"sleep {timeout:g}" if blocking else "look")
        return self.asked.count("look") >= self.free_at

    def release(self) -> None:
        self.asked.append("release")


@pytest.fixture(name="gates")
def fixture_gates(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], tuple[Any, list[str]]]:
    """Makes gates that come free at the nth look, and what was done with each."""

    def make(free_at: int) -> tuple[Any, list[str]]:
        asked: list[str] = []
        monkeypatch.setattr(_sync, "Lock", lambda: Watched(asked, free_at))
        monkeypatch.setattr(_sync, "_give_way", lambda: asked.append("give way"))
        gate = _sync.SpinGate()
        assert asked == ["sleep -1"]  # it is made held
        asked.clear()
        return gate, asked

    return make


@pytest.mark.parametrize("free_at", [1, 2, 40])
def test_a_gate_that_opens_while_one_looks(gates: Any, free_at: int) -> None:
    """The core is given to others between two looks; nobody sleeps."""
    gate, asked = gates(free_at)
    assert gate.acquire()
    assert asked == ["look", "give way"] * (free_at - 1) + ["look"]


def test_a_gate_that_stays_closed(gates: Any) -> None:
    """One sleeps for as long as was asked for, after all the looks."""
    gate, asked = gates(41)
    assert not gate.acquire(True, 0.5)
    assert asked == ["look", "give way"] * 40 + ["sleep 0.5"]


@pytest.mark.parametrize("make", [_sync.SpinGate, _sync._held_lock])
def test_a_gate_is_opened_by_any_thread(make: Callable[[], Any]) -> None:
    """For one to pass; to open it twice is an error, as for any lock."""
    gate = make()
    assert not gate.acquire(True, 0.0)
    opener = threading.Thread(target=gate.release)
    opener.start()
    assert gate.acquire(True, 30)
    opener.join(30)
    gate.release()
    with pytest.raises(RuntimeError):
        gate.release()
