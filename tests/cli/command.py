"""What the tests of the command line share: functions to call, processes, pipes and terminals."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import futurepool

PATIENCE = 50.0  # how long a test waits for what must happen
PACKAGE = str(Path(futurepool.__file__).parent.parent)  # there also where it is not installed
MAP = ("-m", "futurepool", "map")

#: The command, with signals as a shell's foreground job has them: a test may run in the
#: background, or under nohup. What comes while the package is imported is nobody's to handle.
_AS_A_SHELL = (
    "import signal; signal.signal(getattr(signal, 'SIGHUP', signal.SIGTERM), signal.SIG_DFL); "
    "signal.signal(signal.SIGINT, signal.SIG_IGN); "
    "from futurepool._cli.main import run; "
    "signal.signal(signal.SIGINT, signal.default_int_handler); run()"
)
FOREGROUND = ("-c", _AS_A_SHELL, "map")

TASKS = '''
import logging
import os
import subprocess
import sys
import threading
import time
from futurepool import current_token

went = threading.Event()

class Box:
    def __repr__(self):
        return "Box()"

    @staticmethod
    def same(item):
        return item

def same(item):
    return item

def number(item):
    return int(item)

def go(item):
    """Item `wait` ends after item `go` has come."""
    if item == "go":
        went.set()
    elif item == "wait":
        assert went.wait(50)
    return item

def stuck(item):
    """Item `stuck` says that it has started, and never ends."""
    if item.startswith("stuck"):
        print("started", flush=True)
        threading.Event().wait()
    return item

both = threading.Barrier(3)

def told(item):
    """Item `bad` fails once two others run; those do until they are told to end."""
    if item != "c":
        both.wait(50)
    if item == "bad":
        raise ValueError("bad item")
    current_token().wait()
    current_token().raise_if_cancelled()

def leave(item):
    raise SystemExit(3)

def box(item):
    return Box()

def nan(item):
    return float("nan")

class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no text")

def mute(item):
    raise Mute

async def coroutine(item):
    return item

def noisy(item):
    print("printed", item)
    sys.stdout.buffer.write(b"bytes\\n")
    sys.stdout.flush()
    os.write(1, b"descriptor\\n")
    subprocess.run([sys.executable, "-c", "print('child')"], check=True)
    logging.warning("logged %s", item)
    return item

def reads(item):
    return (sys.stdin.read(), os.read(0, 10))

def join(*words):
    return "+".join(map(str, words))

def kind(value):
    return type(value).__name__

def sleep(item):
    time.sleep(float(item))
    return item

calls = {}

def second(item):
    """Succeeds when it is called again."""
    calls[item] = calls.get(item, 0) + 1
    if calls[item] == 1:
        raise ConnectionError("first try")
    return calls[item]

def once(item):
    """The same over processes: a file remembers."""
    if not os.path.exists(item):
        open(item, "w").close()
        raise ConnectionError("first try")
    return "again"

def die(item):
    if item == "die":
        os._exit(7)
    return item

def pid(item):
    return os.getpid()

def slow_on(item):
    """Item `0` takes a while; the others do not."""
    if item == "0":
        assert went.wait(50)
    elif item == "last":
        went.set()
    return item

def wait_for_file(item):
    """The same over processes: item `0` waits for a file, and `last` makes it."""
    if item == "0":
        deadline = time.monotonic() + 40
        while not os.path.exists("last") and time.monotonic() < deadline:
            time.sleep(0.01)
    elif item == "last":
        open("last", "w").close()
    return item

def even(item):
    if int(item) % 2:
        raise ValueError(f"{item} is odd")
    return item
'''


def environment() -> dict[str, str]:
    """As a user has it, whatever the tests are run with: output is buffered."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    kept.pop("COLUMNS", None)
    return {**kept, "PYTHONPATH": PACKAGE, "PYTHONIOENCODING": "utf-8", "TERM": "xterm"}


class Terminal:
    """A pseudo-terminal of so many columns, with a process on it.

    What it has got is kept in `seen`, raw; `wait_for` waits until a pattern is in there.
    """

    def __init__(
        self,
        *words: str,
        columns: int = 80,
        cwd: Path,
        program: str = sys.executable,
        **streams: Any,
    ) -> None:
        import fcntl
        import pty
        import struct
        import termios

        self._master, slave = pty.openpty()
        self.resize = lambda columns: fcntl.ioctl(
            self._master, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0)
        )
        self.resize(columns)
        self.seen = ""
        self._news = threading.Condition()
        self._ended = False

        def lead() -> None:
            """Be the foreground job of a session on this terminal."""
            os.setsid()
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
            for name in ("SIGINT", "SIGTSTP", "SIGQUIT", "SIGTTOU"):
                signal.signal(getattr(signal, name), signal.SIG_DFL)

        places = {"stdin": subprocess.DEVNULL, "stdout": slave, "stderr": slave, **streams}
        self.process = subprocess.Popen(
            [program, *words],
            cwd=cwd,
            env=environment(),
            encoding="utf-8",
            preexec_fn=lead,  # noqa: PLW1509 - no other thread takes part
            **places,
        )
        os.close(slave)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        import codecs

        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        while True:
            try:
                data = os.read(self._master, 4096)
            except OSError:  # how Linux says that there is no more
                data = b""
            with self._news:
                self.seen += decoder.decode(data)
                self._ended = not data
                self._news.notify_all()
            if not data:
                return

    def type(self, keys: bytes) -> None:
        """Press keys: Ctrl-C is b"\\x03", Ctrl-Z b"\\x1a"."""
        os.write(self._master, keys)

    def wait_for(self, pattern: str, since: int = 0) -> None:
        """Wait until this has been shown."""
        with self._news:
            found = self._news.wait_for(
                lambda: re.search(pattern, plain(self.seen[since:])) or self._ended, PATIENCE
            )
        assert re.search(pattern, plain(self.seen[since:])), (found, self.seen)

    def wait(self) -> int:
        """The exit status, once everything has been seen."""
        status = self.process.wait(PATIENCE)
        self._thread.join(PATIENCE)
        return status

    def close(self) -> None:
        """End it, whatever it does."""
        self.process.kill()
        self.process.wait(PATIENCE)
        self._thread.join(PATIENCE)
        os.close(self._master)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()

    @property
    def lines(self) -> list[str]:
        """What stands on the screen at the end, and above it."""
        return screen(self.seen)


def plain(text: str) -> str:
    """Without colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def screen(text: str) -> list[str]:
    """What a terminal that is wide enough shows: carriage returns and erased lines obeyed."""
    lines = [""]
    at = 0
    for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", plain(text)):
        if part == "\n":
            lines.append("")
            at = 0
        elif part == "\r":
            at = 0
        elif part == "\x1b[2K":
            lines[-1] = ""
        elif part.startswith("\x1b"):
            raise AssertionError(f"the terminal got {part!r}")
        else:
            line = lines[-1].ljust(at)
            lines[-1] = line[:at] + part + line[at + len(part) :]
            at += len(part)
    return lines if lines[-1] else lines[:-1]


Popen = Callable[..., "subprocess.Popen[str]"]
Run = Callable[..., "subprocess.CompletedProcess[str]"]
