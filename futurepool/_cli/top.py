"""`python -m futurepool top`: what the pools of a running process do, as a table that goes on.

Two ways in. A socket, where the process has one (`futurepool.serve()`, `FUTUREPOOL_TOP=1`), at which all
is there to be read. Else, on Python 3.14 and later, `sys.remote_exec`: the process runs a script of one
line, when its main thread comes by, and leaves its answer in a folder of ours, which goes with us. Nothing
stays there but the modules it has imported for it.

The table is plain text of at most the terminal's width. On a terminal it is drawn over the one before;
rates are what has changed between the two.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from futurepool._cli.progress import escape, shorten
from futurepool._living import serving

__all__ = ["add_arguments", "main"]

_PATIENCE = 3.0  # seconds for an answer
_TASKS = 10  # running tasks that are shown of each pool
_VIEWS = 10  # views that are shown of each pool, those with the most tasks now
_NOTHING = str(Path(__file__).with_name("__init__.py"))
_CLEAR = "\x1b[H\x1b[J"

Picture = dict[str, Any]


class UnreachableError(Exception):
    """There is no way in, and why."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("pid", metavar="PID", type=int, nargs="?", help="the process to look at")
    parser.add_argument("--once", action="store_true", help="look once")
    parser.add_argument("--json", action="store_true", help="print JSON, a line for each look")
    parser.add_argument(
        "--interval", metavar="S", type=_positive, default=1.0, help="seconds between looks"
    )


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e6:
        raise ValueError(text)
    return value


def main(args: argparse.Namespace) -> int:
    """Look, and show; 0 when the process has ended meanwhile, 1 if it could not be looked at."""
    before_us = signal.signal(signal.SIGTERM, _end)  # so that the folder for an answer goes, too
    try:
        pid = args.pid if args.pid is not None else _only_one()
        before: Picture | None = None
        while True:
            try:
                now = look(pid)
            except UnreachableError:
                if before is None or not _ends(pid):
                    raise
                return 0
            _show(args, now, before)
            if args.once:
                return 0
            before = now
            time.sleep(args.interval)
    except UnreachableError as error:
        print(f"futurepool: {error}", file=sys.stderr)
        return 1
    finally:
        signal.signal(signal.SIGTERM, before_us)


def _ends(pid: int) -> bool:
    """Whether a process that has answered before has ended, or does so now: its socket goes first."""
    end = time.monotonic() + _PATIENCE
    while serving.is_alive(pid):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def _end(*_: object) -> None:
    raise SystemExit(143)


def _show(args: argparse.Namespace, now: Picture, before: Picture | None) -> None:
    if args.json:
        print(json.dumps(now), flush=True)
        return
    size = shutil.get_terminal_size()
    lines = list(table(now, before, size.columns))
    if not args.once and sys.stdout.isatty():
        if len(lines) >= size.lines:
            lines = [*lines[: max(1, size.lines - 2)], "..."]
        print(_CLEAR, end="")
    print("\n".join(lines), flush=True)


# -- the ways in -----------------------------------------------------------------------------------


def look(pid: int) -> Picture:
    """What the pools of that process are doing now.

    Raises:
        UnreachableError: It cannot be asked, or does not answer.
    """
    if not serving.is_alive(pid):
        raise UnreachableError(f"there is no process {pid}")
    raw = _by_socket(pid)
    if raw is None:
        raw = _by_script(pid)
    picture: Picture = json.loads(raw)
    return picture


_OTHER_WAY = (
    "start it with FUTUREPOOL_TOP=1 in its environment, or call futurepool.serve() in it, and it "
    "answers at a socket"
)


def _uid(pid: int) -> int:
    """Whose process it is."""
    try:
        return Path(f"/proc/{pid}").stat().st_uid
    except OSError:
        return os.getuid()


def _only_one() -> int:
    """The process that can be looked at, if there is but one."""
    found = serving.living(os.getuid()) if hasattr(os, "getuid") else []
    if len(found) != 1:
        shown = ", ".join(map(str, found)) or "none has a socket"
        raise UnreachableError(f"say which process: futurepool top PID ({shown})")
    return found[0]


def _by_socket(pid: int) -> bytes | None:
    """Read it at the socket; None if it has none."""
    if not hasattr(socket, "AF_UNIX") or not hasattr(os, "getuid"):
        return None
    uid = _uid(pid)
    path = serving.path_of(pid, uid)
    try:
        if not serving.is_private(path.parent, uid):
            raise UnreachableError(
                f"{path.parent} is not a folder that only the process's user can enter"
            )
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asked:
            asked.settimeout(_PATIENCE)
            asked.connect(str(path))
            return b"".join(iter(lambda: asked.recv(1 << 16), b"")) or _refused(pid)
    except FileNotFoundError:
        return None
    except ConnectionRefusedError:  # left by another that had the same number
        return None
    except PermissionError:
        return _refused(pid)
    except TimeoutError:
        raise UnreachableError(f"process {pid} does not answer at its socket {path}") from None


def _refused(pid: int) -> bytes:
    raise UnreachableError(
        f"process {pid} belongs to another user, and answers only that one"
    ) from None


# One expression, so that it leaves no name in the `__main__` of that process. What is not there, or is
# too old, answers nothing that would end up in the other one's standard error.
_SCRIPT = """exec({text!r}, {{"path": {path!r}}})"""
_TEXT = """
import os, sys
if "futurepool" in sys.modules:
    try:
        from futurepool._living.picture import answer
    except ImportError:
        os.mkdir(path + ".old")
    else:
        answer(path)
else:
    os.mkdir(path + ".none")
"""


def _by_script(pid: int) -> bytes:
    """Have it run a script that writes the answer."""
    run: Any = getattr(sys, "remote_exec", None)
    if run is None:
        version = ".".join(map(str, sys.version_info[:2]))
        raise UnreachableError(
            f"process {pid} has no socket, and Python {version} no other way in; {_OTHER_WAY}"
        )
    folder = Path(tempfile.mkdtemp(prefix="futurepool-top-"))
    try:
        script, answer = folder / "script.py", folder / "answer"
        script.write_text(_SCRIPT.format(text=_TEXT, path=str(answer)), "utf-8")
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            _hand_over(folder, _uid(pid))
        try:
            run(pid, str(script))
        except (OSError, RuntimeError) as error:
            raise UnreachableError(
                f"process {pid} cannot be looked at ({error}); {_OTHER_WAY}"
            ) from None
        return _wait_for(pid, answer, run)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _hand_over(folder: Path, uid: int) -> None:
    for path in (folder, *folder.iterdir()):
        os.chown(path, uid, -1)


def _wait_for(pid: int, answer: Path, run: Any) -> bytes:
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        for suffix, why in (
            ("none", "has no pools: futurepool is not imported"),
            ("old", "has another version of futurepool"),
        ):
            if answer.with_suffix(f".{suffix}").exists():
                raise UnreachableError(f"process {pid} {why}")
        try:
            return answer.read_bytes()
        except FileNotFoundError:
            if not serving.is_alive(pid):
                break
            time.sleep(0.01)
    # It would run the script when it wakes up, and complain that there is none: give it an empty one.
    with contextlib.suppress(OSError, RuntimeError):
        run(pid, _NOTHING)
    raise UnreachableError(
        f"process {pid} does not answer: its main thread sleeps in code that is not Python's; {_OTHER_WAY}"
    )


# -- the table -------------------------------------------------------------------------------------

#: Heading, how narrow a terminal may be to have it, and the cell.
_COLUMNS: list[tuple[str, int]] = [
    ("POOL", 0),
    ("BUSY", 0),
    ("QUEUE", 0),
    ("RATE", 0),
    ("WAIT", 60),
    ("WAITERS", 60),
    ("OLDEST", 70),
    ("FAILED", 76),
    ("REJECTED", 80),
]


def table(now: Picture, before: Picture | None, width: int) -> Iterator[str]:
    """The lines, none of them longer than `width`."""
    for line in _lines(now, before, width):
        yield line if len(line) <= width else f"{line[: max(width - 1, 1)]}…"


def _lines(now: Picture, before: Picture | None, width: int) -> Iterator[str]:
    command = escape(" ".join(now["command"]))
    yield f"process {now['pid']}: {command}"
    if not now["pools"]:
        yield "no pools"
        return
    columns = [number for number, (_, least) in enumerate(_COLUMNS) if width >= least]
    rows = [[_COLUMNS[number][0] for number in columns]]
    for index, pool in enumerate(now["pools"]):
        earlier = _earlier(now, before, index)
        every = [_cells(pool, earlier), *_views(pool, earlier)]
        rows += [[cells[number] for number in columns] for cells in every]
    widths = [max(len(row[column]) for row in rows) for column in range(len(columns))]
    widths[0] = max(4, min(widths[0], width - sum(widths[1:]) - 2 * (len(columns) - 1)))
    for row in rows:
        name = shorten(row[0], widths[0]).ljust(widths[0])
        rest = [cell.rjust(wide) for cell, wide in zip(row[1:], widths[1:], strict=True)]
        yield "  ".join([name, *rest]).rstrip()
    for pool in now["pools"]:
        yield from _details(pool, width)


def _earlier(now: Picture, before: Picture | None, index: int) -> tuple[float, Picture] | None:
    """The same pool at the look before, and the seconds since."""
    if before is None:
        return None
    pool = now["pools"][index]
    same = [each["name"] for each in now["pools"][:index]].count(pool["name"])
    found = [each for each in before["pools"] if each["name"] == pool["name"]]
    seconds = now["clock"] - before["clock"]
    if same >= len(found) or seconds <= 0 or found[same]["uptime"] > pool["uptime"]:
        return None
    return seconds, found[same]


def _progress(now: Picture, earlier: tuple[float, Picture] | None) -> tuple[str, str]:
    """Tasks a second, and how long they had waited, of a pool or a view: since the look before."""
    if earlier is None:
        return "", _time(now["average_wait"])
    seconds, old = earlier
    done = now["completed_tasks"] - old["completed_tasks"]
    rate = f"{done / seconds:.3g}/s" if done < 1000 * seconds else f"{done / seconds:,.0f}/s"
    total = now["average_wait"] * now["completed_tasks"]
    total -= old["average_wait"] * old["completed_tasks"]
    return rate, _time(max(0.0, total / done) if done else 0.0)


def _cells(pool: Picture, earlier: tuple[float, Picture] | None) -> list[str]:
    size = "" if pool["queue_size"] is None else f"/{pool['queue_size']}"
    rate, wait = _progress(pool, earlier)
    return [
        pool["name"] + " (closed)" * pool["closed"],
        f"{pool['active_workers']}/{pool['max_workers']}",
        f"{pool['queued_tasks']}{size}",
        rate,
        wait,
        str(pool["waiting_submitters"]),
        _time(pool["oldest_queued"]),
        str(pool["failed_tasks"]),
        str(pool["rejected_tasks"]),
    ]


def _views(pool: Picture, earlier: tuple[float, Picture] | None) -> Iterator[list[str]]:
    """The rows of a pool's views, in the order of the views."""
    views = pool.get("views", [])  # not there before they were
    before: dict[str, Picture] = {}
    if earlier is not None:
        before = {view["name"]: view for view in earlier[1].get("views", [])}
    for view in _busiest(views):
        old = before.get(view["name"])
        rate, wait = _progress(view, None if earlier is None or old is None else (earlier[0], old))
        limit = "" if view["limit"] is None else f"/{view['limit']}"
        yield [
            f"  {view['name']}",
            f"{view['active_tasks']}{limit}",
            str(view["queued_tasks"]),
            *(rate, wait, "", ""),
            str(view["failed_tasks"]),
            "",
        ]


def _busiest(views: list[Picture]) -> list[Picture]:
    ranked = sorted(views, key=lambda view: -(view["active_tasks"] + view["queued_tasks"]))
    shown = {view["name"] for view in ranked[:_VIEWS]}
    return [view for view in views if view["name"] in shown]


def _time(seconds: float) -> str:
    """In at most six characters."""
    if seconds < 0.0995:
        return f"{seconds * 1e3:.1f} ms" if seconds else "0"
    return f"{seconds:.1f} s" if seconds < 99.95 else f"{seconds:,.0f} s"


def _details(pool: Picture, width: int) -> Iterator[str]:
    abandoned = pool.get("abandoned_workers", 0)  # not there before they were
    hidden = len(pool.get("views", [])) - _VIEWS
    if not pool["running"] and not pool["queue"] and hidden <= 0:
        return
    yield ""
    yield f"{shorten(pool['name'], width - 10)}:"
    room = max(14, width // 3 - 4)
    shown = pool["running"][:_TASKS]
    for task in shown:
        at = task["at"] or ""
        if task.get("timed_out", False):
            at = f"timed out, {at}".removesuffix(", ")
        label = shorten(f"{task['task_id']} {task['name']}", room)
        yield f"  {label.ljust(room)} {_time(task['seconds']):>8}  {escape(at)}".rstrip()
    overdue = sum(task.get("timed_out", False) for task in pool["running"])
    more = pool["active_workers"] + overdue - len(shown)
    if more > 0:
        yield f"  and {more} more running"
    if abandoned:
        yield f"  threads that were abandoned: {abandoned}"
    if pool["queue"]:
        names = ", ".join(f"{entry['count']} {escape(entry['name'])}" for entry in pool["queue"])
        yield f"  queued: {names}"
    if hidden > 0:
        yield f"  and {hidden} more views"
