"""`python -m futurepool top`, and the two ways in: a socket, and `sys.remote_exec`."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import futurepool
from futurepool import BoundedExecutor
from futurepool._cli import main, top
from futurepool._living import picture as _picture
from futurepool._living import serving
from tests.cli.command import Terminal

pytestmark = pytest.mark.skipif(
    not hasattr(socket, "AF_UNIX") or not hasattr(os, "fork"),
    reason="a system without these sockets",
)

PACKAGE = str(Path(futurepool.__file__).parent.parent)


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the sockets lie, in place of the user's; its name is short, as the system wants it."""
    folder = Path(f"/tmp/fp-{os.getpid()}")
    monkeypatch.setattr(serving, "folder_of", lambda _uid: folder)
    monkeypatch.setattr(serving, "_server", None)
    return folder


@pytest.fixture
def served(folder: Path) -> Iterator[Path]:
    """A socket of this very process."""
    yield Path(futurepool.serve())
    assert serving._server is not None
    serving._server.close()
    folder.rmdir()


def hold(pool: BoundedExecutor, gate: threading.Event) -> None:
    entered = threading.Event()

    def stand_still() -> None:
        entered.set()
        gate.wait(30)

    def outer() -> None:
        stand_still()

    pool.submit(outer)
    assert entered.wait(30)


def command(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = main.main(["top", *words])
    return (status, *capsys.readouterr())


# -- the socket ------------------------------------------------------------------------------------


def test_what_is_there_to_be_read(
    served: Path, gate: threading.Event, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--once --json`: each pool, what runs, with the line it is at, and the queue by name."""
    with BoundedExecutor(1, queue_size=5, name="top-db", enable_metrics=True) as pool:
        hold(pool, gate)
        for name in ("load", "save", "load"):
            pool.options(name=name).submit(int)
        status, out, err = command(capsys, "--once", "--json")
        assert (status, err) == (0, "")
        picture = json.loads(out)
        assert picture["pid"] == os.getpid()
        (found,) = [each for each in picture["pools"] if each["name"] == "top-db"]
        assert (found["active_workers"], found["max_workers"], found["queue_size"]) == (1, 1, 5)
        assert found["queue"] == [{"name": "load", "count": 2}, {"name": "save", "count": 1}]
        (task,) = found["running"]
        assert (task["task_id"], task["worker"]) == (1, "top-db_0")
        assert task["name"].endswith("outer")
        assert task["at"].startswith("test_top.py:")
        assert task["at"].endswith("in stand_still")
        assert set(found["latency"]) == {"p50", "p90", "p99", "max"}
        assert found["views"] == []
        gate.set()


def test_views_are_there_to_be_read(
    served: Path, gate: threading.Event, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--once --json`: the fields of `ViewStats`, and the quantiles of its histograms."""
    with BoundedExecutor(2, name="top-views", enable_metrics=True) as pool:
        reports = pool.options(limit=1, name="reports")
        assert reports.submit(int).result(30) == 0
        started = threading.Event()
        reports.submit(lambda: (started.set(), gate.wait(30)))
        assert started.wait(30)
        reports.submit(int)
        pool.options(key="a", key_limit=1, name="tenants").submit(int).result(30)
        status, out, _ = command(capsys, "--once", "--json")
        assert status == 0
        (found,) = [each for each in json.loads(out)["pools"] if each["name"] == "top-views"]
        first, second = found["views"]
        fields = {field.name for field in dataclasses.fields(futurepool.ViewStats)}
        assert set(first) == set(second) == fields
        assert (first["name"], first["limit"]) == ("reports", 1)
        assert (first["active_tasks"], first["queued_tasks"]) == (1, 1)
        assert (first["submitted_tasks"], first["completed_tasks"]) == (3, 1)
        assert set(first["wait"]) == set(first["latency"]) == {"p50", "p90", "p99", "max"}
        assert (second["name"], second["limit"]) == ("tenants", None)
        gate.set()


def test_only_this_user_gets_at_it(served: Path) -> None:
    """The folder, the socket; another call opens no other."""
    assert stat.S_IMODE(served.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(served.stat().st_mode) == 0o600
    assert futurepool.serve() == str(served)


def test_another_user_gets_nothing(
    served: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Should he get through to the socket all the same."""
    monkeypatch.setattr(serving, "_uid", lambda _asker: os.getuid() + 1)
    status, out, err = command(capsys, str(os.getpid()), "--once")
    assert (status, out) == (1, "")
    assert "belongs to another user" in err


@pytest.mark.skipif(sys.platform != "linux", reason="other systems say it otherwise")
def test_the_system_says_who_asks(served: Path) -> None:
    """Not the asker."""
    one, other = socket.socketpair()
    with one, other:
        assert serving._uid(one) == os.getuid()


def test_a_folder_that_others_can_enter_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By who serves, and by who asks."""
    folder.mkdir()
    folder.chmod(0o755)
    try:
        with pytest.raises(PermissionError, match="only this user"):
            futurepool.serve()
        status, _, err = command(capsys, str(os.getpid()), "--once")
        assert status == 1
        assert "only the process's user can enter" in err
    finally:
        folder.rmdir()


def test_sockets_that_were_left_are_removed(
    served: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those of processes that are not there any more."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = served.with_name(f"{dead.pid}.sock")
    left.touch()
    assert command(capsys, "--once")[0] == 0
    assert not left.exists()


def test_who_opens_one_removes_what_was_left(folder: Path) -> None:
    """Processes that end without a word leave theirs; nobody may ever look."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    folder.mkdir(mode=0o700)
    left = folder / f"{dead.pid}.sock"
    left.touch()
    futurepool.serve()
    assert serving._server is not None
    serving._server.close()
    assert not left.exists()
    folder.rmdir()


def test_which_process(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With none that has a socket it has to be said; one that is not there is named."""
    status, _, err = command(capsys, "--once")
    assert (status, err) == (
        1,
        "futurepool: say which process: futurepool top PID (none has a socket)\n",
    )
    status, _, err = command(capsys, "999999999", "--once")
    assert (status, err) == (1, "futurepool: there is no process 999999999\n")


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="there is another way")
def test_no_way_in(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It says what to do."""
    status, _, err = command(capsys, str(os.getpid()), "--once")
    assert status == 1
    assert "FUTUREPOOL_TOP=1" in err
    assert "futurepool.serve()" in err


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_has_its_own(served: Path) -> None:
    """The parent's stays the parent's."""
    child = os.fork()
    if not child:
        status = 1
        try:
            mine = Path(futurepool.serve())
            there = mine != served and mine.exists() and served.exists()
            server = serving._server
            assert server is not None
            server.close()
            status = not (there and not mine.exists() and served.exists())
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert served.exists()


def test_a_process_that_ends_while_it_is_looked_at(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its socket goes some time before it does: that is its end, and no error. One that stays says why."""
    looks: list[dict[str, Any]] = []
    alive = [True, True, False]

    def look(pid: int) -> dict[str, Any]:
        if looks:
            raise top.UnreachableError(f"process {pid} has no socket")
        looks.append({"pid": pid, "command": ["app"], "clock": 0.0, "pools": []})
        return looks[-1]

    monkeypatch.setattr(top, "look", look)
    monkeypatch.setattr(serving, "is_alive", lambda _: alive.pop(0))
    assert command(capsys, "42", "--interval", "0.01") == (0, "process 42: app\nno pools\n", "")
    assert alive == []
    looks.clear()
    monkeypatch.setattr(serving, "is_alive", lambda _: True)
    monkeypatch.setattr(top, "_PATIENCE", 0.0)
    status, _, err = command(capsys, "42", "--interval", "0.01")
    assert (status, err) == (1, "futurepool: process 42 has no socket\n")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the system does not say so")
def test_a_process_that_nobody_has_waited_for_has_ended() -> None:
    """It has a number still."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    try:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not serving.is_alive(process.pid)
    finally:
        process.wait()
    assert serving.is_alive(os.getpid())


def test_where_the_signal_0_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows it is Ctrl-C."""
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("it was sent"))
    assert serving.is_alive(os.getpid())


# -- the table -------------------------------------------------------------------------------------


def picture(**more: Any) -> dict[str, Any]:
    with BoundedExecutor(1, name="a-name-that-is-rather-long-for-a-pool"):
        found = _picture.picture()
    found["pools"] = [{**found["pools"][-1], **more}]
    return found


@pytest.mark.parametrize("width", [200, 80, 40, 20])
def test_no_line_is_too_long(width: int) -> None:
    """Whatever is in it, and nothing moves the cursor."""
    task = {
        "task_id": 12345,
        "name": "f\n\x1b[2J" * 30,
        "worker": "w",
        "seconds": 1e5,
        "waited": 0.0,
    }
    now = picture(
        running=[{**task, "at": "x.py:1 in " + "g" * 300}, {**task, "at": None}],
        queue=[{"name": "load\r" * 20, "count": 1000000}],
        active_workers=2000,
        queued_tasks=1000000,
        queue_size=None,
    )
    lines = list(top.table(now, None, width))
    assert max(map(len, lines)) <= width
    assert all(line.isprintable() for line in lines)


def test_the_table() -> None:
    """In 80 columns all, in 40 the most important; the rate is of the time between."""
    task = {"task_id": 7, "name": "load", "worker": "db_0", "seconds": 1.25, "waited": 0.0}
    counts = dict(active_workers=1, queued_tasks=3, queue_size=10, max_workers=4, average_wait=0.5)
    more = dict(waiting_submitters=2, oldest_queued=12.0, failed_tasks=5, rejected_tasks=6)
    now = picture(
        name="db",
        closed=True,
        completed_tasks=30,
        running=[{**task, "at": "app.py:31 in load"}],
        queue=[{"name": "load", "count": 2}, {"name": "save", "count": 1}],
        **counts,
        **more,
    )
    now |= {"pid": 42, "command": ["python", "app.py"], "clock": 102.0}
    before = json.loads(json.dumps(now))
    before["clock"] = 100.0
    before["pools"][0] |= {"completed_tasks": 10, "uptime": 0.0}
    assert list(top.table(now, before, 80)) == [
        "process 42: python app.py",
        "POOL         BUSY  QUEUE  RATE   WAIT  WAITERS  OLDEST  FAILED  REJECTED",
        "db (closed)   1/4   3/10  10/s  0.5 s        2  12.0 s       5         6",
        "",
        "db:",
        "  7 load                    1.2 s  app.py:31 in load",
        "  queued: 2 load, 1 save",
    ]
    late = {
        **task,
        "task_id": 1,
        "name": "hang",
        "seconds": 30.0,
        "at": "app.py:9 in hang",
        "timed_out": True,
    }
    others = dict(running=[late, {**task, "at": None}], abandoned_workers=1, active_workers=2)
    then = {**now, "pools": [{**now["pools"][0], **others}]}
    assert list(top.table(then, before, 80))[5:] == [
        "  1 hang                   30.0 s  timed out, app.py:9 in hang",
        "  7 load                    1.2 s",
        "  and 1 more running",
        "  threads that were abandoned: 1",
        "  queued: 2 load, 1 save",
    ]
    now["pools"][0]["closed"] = False
    assert list(top.table(now, None, 40))[1:3] == [
        "POOL  BUSY  QUEUE  RATE",
        "db     1/4   3/10",
    ]


VIEW = {
    "name": "reports",
    "limit": 2,
    "active_tasks": 2,
    "queued_tasks": 5,
    "completed_tasks": 30,
    "failed_tasks": 1,
    "average_wait": 0.5,
}


def test_views_in_the_table() -> None:
    """Below their pool, with their limit; one of a limit for each key has none."""
    mails = {**VIEW, "name": "mails\n", "limit": None, "active_tasks": 1, "queued_tasks": 0}
    now = picture(
        **dict(name="db", active_workers=3, max_workers=4, queued_tasks=5, queue_size=10),
        **dict(completed_tasks=30, average_wait=0.5, failed_tasks=2, rejected_tasks=0),
        **dict(running=[], queue=[], views=[VIEW, mails]),
    )
    now |= {"pid": 42, "command": ["app"], "clock": 102.0}
    before = json.loads(json.dumps(now))
    before["clock"] = 100.0
    before["pools"][0] |= {"completed_tasks": 10, "uptime": 0.0}
    before["pools"][0]["views"][0] |= {"completed_tasks": 20, "average_wait": 0.7}
    assert list(top.table(now, before, 80)) == [
        "process 42: app",
        "POOL       BUSY  QUEUE  RATE   WAIT  WAITERS  OLDEST  FAILED  REJECTED",
        "db          3/4   5/10  10/s  0.5 s        0       0       2         0",
        "  reports   2/2      5   5/s  0.1 s                        1",
        "  mails\\n     1      0   0/s      0                        1",
    ]
    del before["pools"][0]["views"]  # the process had an older version
    assert list(top.table(now, before, 40))[1:] == [
        "POOL       BUSY  QUEUE  RATE",
        "db          3/4   5/10  10/s",
        "  reports   2/2      5",
        "  mails\\n     1      0",
    ]
    del now["pools"][0]["views"]
    assert list(top.table(now, None, 40))[1:] == ["POOL  BUSY  QUEUE  RATE", "db     3/4   5/10"]


def test_of_many_views_the_busiest_are_shown() -> None:
    """Ten, in the order in which they were made, and how many there are more."""
    views = [{**VIEW, "name": f"view-{number}", "queued_tasks": number} for number in range(12)]
    now = picture(name="db", running=[], queue=[], views=views[6:] + views[:6])
    lines = list(top.table(now, None, 80))
    shown = [*range(6, 12), *range(2, 6)]
    assert [line.split()[0] for line in lines[3:13]] == [f"view-{number}" for number in shown]
    assert lines[13:] == ["", "db:", "  and 2 more views"]


def test_no_pools() -> None:
    """That is said."""
    nothing = {"pid": 1, "command": ["python"], "clock": 0.0, "pools": []}
    assert list(top.table(nothing, None, 80)) == ["process 1: python", "no pools"]


# -- another process -------------------------------------------------------------------------------

SCRIPT = """
import sys, threading, time
from futurepool import BoundedExecutor
leave = threading.Event()
def stand_still():
    leave.wait(60)
pool = BoundedExecutor(1, name="other")
pool.submit(stand_still)
print("ready", flush=True)
if sys.argv[1] == "loop":
    threading.Thread(target=lambda: (sys.stdin.readline(), leave.set()), daemon=True).start()
    while not leave.is_set():
        time.sleep(0.01)
else:
    sys.stdin.readline()
leave.set()
pool.shutdown()
print(sorted(name for name in globals() if not name.startswith("__")))
"""


def other(how: str, **environment: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", SCRIPT, how],
        env={**os.environ, "PYTHONPATH": PACKAGE, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def ends_well(process: subprocess.Popen[str]) -> None:
    """It has noticed nothing."""
    out, err = process.communicate("\n", timeout=30)
    names = ["BoundedExecutor", "leave", "pool", "stand_still", "sys", "threading", "time"]
    assert (out, err, process.returncode) == (f"{names}\n", "", 0)


@pytest.mark.slow
def test_by_its_environment(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever its main thread does; the socket goes with it."""
    process = other("sleep", FUTUREPOOL_TOP="1")
    path = serving.path_of(process.pid, os.getuid())
    try:
        status, out, err = command(capsys, str(process.pid), "--once")
        assert (status, err) == (0, "")
        assert "in stand_still" in out
    finally:
        ends_well(process)
    assert not path.exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info < (3, 14), reason="there is no such way")
def test_by_remote_exec(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is not prepared for it; nothing is left in it, nor in the file system."""
    process = other("loop")
    folders = set(Path("/tmp").glob("futurepool-top-*"))
    try:
        status, out, err = command(capsys, str(process.pid), "--once")
        if "cannot be looked at" in err:
            pytest.skip("this system lets nobody do that")
        assert (status, err) == (0, "")
        assert "in stand_still" in out
        assert set(Path("/tmp").glob("futurepool-top-*")) == folders
    finally:
        ends_well(process)


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info < (3, 14), reason="there is no such way")
def test_a_main_thread_that_sleeps_in_c(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so, and names the other way in; when the thread wakes up it finds nothing to complain of."""
    monkeypatch.setattr(top, "_PATIENCE", 0.3)
    process = other("sleep")
    try:
        for _ in range(2):  # the first may come before it sleeps
            status, out, err = command(capsys, str(process.pid), "--once")
            if "cannot be looked at" in err:
                pytest.skip("this system lets nobody do that")
            if status:
                break
        assert (status, out) == (1, "")
        assert "its main thread sleeps" in err
        assert "FUTUREPOOL_TOP=1" in err
    finally:
        ends_well(process)


@pytest.mark.slow
@pytest.mark.parametrize("columns", [80, 40])
def test_at_a_terminal(columns: int, tmp_path: Path) -> None:
    """Drawn anew from the top, until Ctrl-C."""
    process = other("sleep", FUTUREPOOL_TOP="1")
    words = ("-m", "futurepool", "top", str(process.pid), "--interval", "0.1")
    shown = Terminal(*words, columns=columns, cwd=tmp_path)
    try:
        shown.wait_for(r"(?s)RATE.*RATE.*\d/s.*RATE")
        shown.type(b"\x03")
        assert shown.wait() == 130
        screens = shown.seen.split("\x1b[H\x1b[J")
        assert len(screens) >= 3
        for lines in screens[1:]:
            assert all(len(line) <= columns for line in lines.splitlines() if "^C" not in line)
        assert ("WAITERS" in screens[1]) == (columns == 80)
        assert "stand_still" in screens[1]
    finally:
        shown.close()
        ends_well(process)
