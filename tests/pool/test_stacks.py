"""Where threads are, as a dump of faulthandler says it."""

from __future__ import annotations

import tempfile
import threading
from typing import Any

import pytest

from futurepool import BoundedExecutor
from futurepool._pool import stacks
from futurepool._pool.stacks import Stacks
from tests.helpers import hold, until

_DUMP = r"""Thread 0x00007f0000000abc (most recent call first):
  <no Python frame>

Thread 0x00007f0000000def [a "name"] (most recent call first):
  File "{threading}", line 359 in wait
  File "/d\xe9/\u4f8b \x41 "q".py", line 12 in g\xe9
  File "{workers}", line ??? in work
  ...

Current thread 0x1 (most recent call first):
  File "<stdin>", line 1 in <module>
"""


@pytest.fixture
def dumps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacks, "DUMPS", True)


def test_reading_a_dump(dumps: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """By thread, innermost first. Only what is not ASCII is escaped; what is cut off is left out."""
    text = _DUMP.replace("{threading}", str(threading.__file__))
    monkeypatch.setattr(stacks, "_dump", lambda: text)
    found = Stacks.now()
    assert 2 not in found
    assert list(found.of(2)) == list(found.of(None)) == list(found.of(0x7F0000000ABC)) == []
    assert found.of(0x7F0000000DEF) == [
        (threading.__file__, 359, "wait", "threading"),
        ('/d\xe9/\u4f8b \\x41 "q".py', 12, "g\xe9", None),
    ]
    assert found.of(1) == [("<stdin>", 1, "<module>", None)]
    found.clear()
    assert 1 not in found


def test_a_dump_says_what_frames_say(
    dumps: None, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a thread that sleeps: each frame, with its line and its module, if that is ours."""
    with BoundedExecutor(1) as pool:
        hold(pool, gate)
        (worker,) = pool._threads
        until(lambda: stack(Stacks.now(), worker)[0][2] == "wait")
        dumped = stack(Stacks.now(), worker)
        monkeypatch.setattr(stacks, "DUMPS", False)
        walked = stack(Stacks.now(), worker)
        gate.set()
    assert [step[:3] for step in dumped] == [step[:3] for step in walked]
    modules = [step[3] for step in walked]
    assert [step[3] for step in dumped] == [m if ours(m) else None for m in modules]
    assert any(map(ours, modules))


def ours(module: Any) -> bool:
    return module == "threading" or module.split(".")[0] == "futurepool"


def stack(found: Stacks, thread: threading.Thread) -> list[stacks.Step]:
    return list(found.of(thread.ident))


def test_without_a_place_for_the_dump(dumps: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it is not known where anybody is."""

    def full() -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    assert threading.get_ident() not in Stacks.now()
