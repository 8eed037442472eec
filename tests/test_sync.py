"""The lock that tries for a while before it sleeps."""

from __future__ import annotations

import threading

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
