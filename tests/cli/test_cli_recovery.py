"""Whatever ends the command at whichever moment: what its log says is done is in its output.

Each moment is a run that is ended, or ends itself, at a random point of time, and then resumed until
everything is done. The seed decides about the way to end, the engine, the order, and when.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import types
from collections import Counter
from pathlib import Path
from typing import Any, cast

import pytest

from futurepool._cli import journal
from futurepool._cli.journal import Entry, Log, Output
from futurepool._cli.work import Outcome
from tests.cli.command import FOREGROUND, PATIENCE, environment

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals and limits")

ITEMS = 1500
MOMENTS = 200
FEW = 12  # of these, unless all are asked for: -m exhaustive

WORK = '''
import os
import time

def work(item):
    number = int(item)
    if number % 7 == 0:
        time.sleep(0.001)
    elif number % 251 == 0:
        time.sleep(0.05)
    return f"{item} {'x' * (number % 90)}"

def fails_once(item):
    """Every 400th item fails when it is called for the first time."""
    if int(item) % 400 == 0 and not os.path.exists(f"failed{item}"):
        open(f"failed{item}", "w").close()
        raise OSError("not today")
    return work(item)
'''


class Moment:
    """A run, its files, and what must be true of them."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.chance = random.Random(seed)
        self.folder = folder
        (folder / "moment_tasks.py").write_text(WORK, "utf-8")
        (folder / "items").write_text("".join(f"{n}\n" for n in range(ITEMS)), "utf-8")
        self.output = folder / "output"
        self.log = folder / "log"
        self.way = self.chance.choice(
            ["kill", "kill", "kill", "interrupt", "terminate", "pipe", "full", "failure"]
        )
        function = "fails_once" if self.way == "failure" else "work"
        self.words = [f"moment_tasks.py:{function}", "-j3", "--log", "log"]
        if self.chance.random() < 0.3:
            self.words.append("--engine=processes")
        if self.chance.random() < 0.5:
            self.words.append("--unordered")
        if self.chance.random() < 0.2:
            self.words.append("--chunksize=20")

    def start(self, *more: str, **options: Any) -> subprocess.Popen[bytes]:
        with (self.folder / "items").open("rb") as items:
            return subprocess.Popen(
                [sys.executable, *FOREGROUND, *self.words, *more],
                stdin=items,
                stderr=subprocess.PIPE,
                cwd=self.folder,
                # Coverage, which also writes, has no words for a full disk.
                env={k: v for k, v in environment().items() if not k.startswith("COVERAGE_")},
                **options,
            )

    def to_file(self, *more: str, **options: Any) -> subprocess.Popen[bytes]:
        with self.output.open("ab") as output:
            return self.start(*more, stdout=output, **options)

    def break_off(self) -> None:
        """Run it, and end it on the way."""
        delay = self.chance.uniform(0.1, 0.9)
        if self.way == "pipe":
            process = self.start(stdout=subprocess.PIPE)
            assert process.stdout is not None
            received, wanted = b"", self.chance.randrange(1, 60_000)
            # Without a buffer: what is in one when its owner closes the pipe, he has had.
            while len(received) < wanted and (
                data := os.read(process.stdout.fileno(), wanted - len(received))
            ):
                received += data
            process.stdout.close()
            whole, end, _ = received.rpartition(b"\n")
            self.output.write_bytes(whole + end)
        elif self.way == "full":
            import resource

            limit = self.chance.randrange(100, 120_000)

            def limited() -> None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

            process = self.to_file(preexec_fn=limited)
        elif self.way == "failure":
            process = self.to_file()
        else:
            process = self.to_file()
            # Or else a Ctrl-C may end Python's own start, if that takes so long.
            while not self.log.exists() and process.poll() is None:
                time.sleep(0.005)
            time.sleep(delay)
            process.send_signal(
                {"kill": signal.SIGKILL, "interrupt": signal.SIGINT, "terminate": signal.SIGTERM}[
                    self.way
                ]
            )
        assert process.stderr is not None
        message = process.stderr.read().decode()
        process.stderr.close()
        status = process.wait(PATIENCE)
        expected = {"kill": {-9, 0}, "interrupt": {130, 0}, "terminate": {143, -15, 0}}
        expected |= {"pipe": {0}, "full": {1, 0}, "failure": {1}}
        assert status in expected[self.way], message
        assert "Traceback" not in message

    def resume(self) -> None:
        """Go on until everything is done."""
        for _ in range(10):
            process = self.to_file("--resume-failed" if self.way == "failure" else "--resume")
            assert process.stderr is not None
            message = process.stderr.read().decode()
            process.stderr.close()
            status = process.wait(PATIENCE)
            assert "Traceback" not in message
            self.check()
            if status == 0:
                return
            assert self.way == "failure", message
        raise AssertionError("it does not come to an end")

    def lines(self) -> Counter[str]:
        if not self.output.exists():
            return Counter()
        data = self.output.read_text("utf-8")
        whole, _, _ = data.rpartition("\n")
        return Counter(whole.split("\n")) if whole else Counter()

    def done(self) -> Counter[str]:
        found: Counter[str] = Counter()
        if self.log.exists():
            for line in self.log.read_text("utf-8").splitlines(keepends=True):
                if line.endswith("\n"):
                    record = json.loads(line)
                    found[record["item"]] += {"done": 1, "failed": 0, "unread": -1}[
                        record["outcome"]
                    ]
        return +found

    @staticmethod
    def line_of(item: str) -> str:
        return f"{item} {'x' * (int(item) % 90)}"

    def check(self) -> None:
        """Every item that is done has its line, once."""
        lines, done = self.lines(), self.done()
        assert set(done.values()) <= {1}
        missing = [item for item in done if lines[self.line_of(item)] != 1]
        assert missing == []

    def check_all(self) -> None:
        """Every item has its line, once, and there are no others."""
        expected = Counter({self.line_of(str(n)): 1 for n in range(ITEMS)})
        lines = self.lines()
        assert (lines - expected, expected - lines) == (Counter(), Counter())


def moments() -> list[Any]:
    return [
        pytest.param(
            seed,
            marks=[
                pytest.mark.slow,
                *([pytest.mark.thorough, pytest.mark.exhaustive] * (seed >= FEW)),
            ],
        )
        for seed in range(MOMENTS)
    ]


@posix
@pytest.mark.parametrize("seed", moments())
def test_nothing_is_lost(seed: int, tmp_path: Path) -> None:
    """Ended at a random moment, looked at, resumed, looked at again."""
    moment = Moment(seed, tmp_path)
    moment.break_off()
    moment.check()
    moment.resume()
    moment.check_all()
    assert not (tmp_path / "log.journal").exists()


# -- one step after the other ----------------------------------------------------------------------


class Killed(BaseException):
    """As if the process ended here."""


@posix
@pytest.mark.parametrize("left", range(0, 37, 4))
@pytest.mark.parametrize("step", ["journal", "output", "log"])
def test_killed_while_it_writes(
    step: str, left: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process ends in the middle of a write, after so many bytes; the log is made right."""
    output, path = tmp_path / "output", str(tmp_path / "log")
    entries = [entry(n) for n in range(6)]
    log = Log(path, str, resume=False, failed=False, as_json=False)
    fd = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    streams = types.SimpleNamespace(out=fd)

    def write(data: bytes, _waiting: object) -> None:
        os.write(fd, data[:left] if step == "output" else data)
        if step == "output":
            raise Killed

    streams.write = write
    writer = Output(cast("Any", streams), log, lambda: True)
    if step == "output":
        writer_of_all = streams.write
        streams.write = lambda data, _waiting: os.write(fd, data)
        writer.write(entries[:2])
        streams.write = writer_of_all
    else:
        writer.write(entries[:2])
        write_all = journal._write_all

        def cut(target: int, data: bytes) -> None:
            at_log = target == log._fd
            if at_log == (step == "log"):
                os.write(target, data[:left])
                raise Killed
            write_all(target, data)

        monkeypatch.setattr(journal, "_write_all", cut)
    with pytest.raises(Killed):
        writer.write(entries[2:])
    monkeypatch.undo()
    os.close(log._fd)
    os.close(cast("int", log._journal))
    os.close(fd)

    again = Log(path, str, resume=True, failed=False, as_json=False)
    settled = [n for n in range(6) if again.settled(n, str(n))]
    again.close(True)
    lines = output.read_text("utf-8").splitlines()
    assert lines == [f"line {n}" for n in settled]
    assert settled == list(range({"journal": 2, "log": 6, "output": min(6, 2 + left // 7)}[step]))


def entry(number: int) -> Entry:
    line = f"line {number}\n"
    return Entry(line.encode(), Outcome(number, str(number), line, None, 1.0, 0.5, 0))


@posix
def test_others_write_into_the_same_file(tmp_path: Path) -> None:
    """What they have written is not taken for ours, and stays."""
    output, path = tmp_path / "output", str(tmp_path / "log")
    log = Log(path, str, resume=False, failed=False, as_json=False)
    fd = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(_data: bytes, _waiting: object) -> None:
        os.write(fd, b"something else of that length, or more\n")
        raise Killed

    streams = types.SimpleNamespace(out=fd, write=write)
    with pytest.raises(Killed):
        Output(cast("Any", streams), log, lambda: True).write([entry(0), entry(1)])
    os.close(fd)
    again = Log(path, str, resume=True, failed=False, as_json=False)
    assert not again.settled(0, "0")
    assert output.read_text("utf-8") == "something else of that length, or more\n"
    for one in (log, again):
        one.close(True)
