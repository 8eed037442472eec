"""Standard output for results alone; everything else to standard error, past the progress line.

While `Streams` is open:

    results                          a private copy of descriptor 1
    what the target prints           descriptor 1 leads to standard error, for it and its children
    sys.stdout, sys.stderr           objects that put lines of several threads after, not into, one
                                     another (sys.stderr only where a progress line is shown)
    descriptor 2, with a progress    a pipe, whose reader writes past the line: children, C code
    what the target reads            nothing, if the items are read from descriptor 0

The progress line has no line end and the cursor is never hidden, so there is nothing to put back
however the process ends. Where the streams have no descriptors (somebody has put their own in
place) results are written to the old `sys.stdout`.

`_lock` (re-entrant, for signal handlers that print) guards the terminal and `_bar`, what it shows. The child of
a fork, in which a target may print as well, has new locks, and no progress line.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import select
import stat
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TextIO, cast

from futurepool._cli.items import descriptor

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Streams", "WriteError", "encode_anything", "is_closed_pipe"]

_ERASE = "\r\x1b[2K"


class WriteError(OSError):
    """Results could not be written; `written` bytes of them were."""

    written = 0


def encode_anything(error: UnicodeError) -> tuple[str | bytes, int]:
    """Write bytes that were no text as they were read, and escape what the encoding lacks."""
    if not isinstance(error, UnicodeEncodeError):  # pragma: no cover - for output only
        raise error
    text = error.object[error.start : error.end]
    try:
        return text.encode("ascii", "surrogateescape"), error.end
    except UnicodeEncodeError:
        return text.encode("ascii", "backslashreplace"), error.end


codecs.register_error("futurepool", encode_anything)


def is_closed_pipe(error: OSError) -> bool:
    """Whether nobody reads any more; Windows reports that as an invalid argument."""
    return error.errno == errno.EPIPE or (sys.platform == "win32" and error.errno == errno.EINVAL)


class _Aside(io.TextIOBase):
    """What the target sees as `sys.stdout` or `sys.stderr`: whole lines, one after the other."""

    def __init__(self, streams: Streams, like: TextIO | None, fd: int) -> None:
        self._streams = streams
        self._fd = fd
        self._encoding: str = getattr(like, "encoding", None) or "utf-8"
        self._tty = like is not None and like.isatty()
        self._partial: dict[int, str] = {}  # of a line, by thread
        self.renew()

    def renew(self) -> None:
        """A buffer whose lock nobody holds."""
        self.buffer = io.BufferedWriter(_Bytes(self), 1)

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding

    @property
    def errors(self) -> str:  # type: ignore[override]
        return "futurepool"

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._tty

    def fileno(self) -> int:
        if not self._streams.real:
            raise io.UnsupportedOperation("fileno")
        return self._fd

    def reconfigure(self, **_options: Any) -> None:
        """Nothing here depends on how the stream is set up."""

    def write(self, text: str) -> int:
        me = threading.get_ident()
        if text.endswith("\n"):
            self._streams.foreign(self._partial.pop(me, "") + text)
        else:
            whole, end, rest = text.rpartition("\n")
            before = self._partial.pop(me, "")
            if end:
                self._streams.foreign(before + whole + end)
                before = ""
            self._partial[me] = before + rest
        return len(text)

    def finish(self) -> None:
        """Write what has no line end."""
        for me in list(self._partial):
            rest = self._partial.pop(me, "")
            if rest:
                self._streams.foreign(f"{rest}\n")


class _Bytes(io.RawIOBase):
    def __init__(self, text: _Aside) -> None:
        self._text = text

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._text.write(bytes(data).decode(self._text.encoding, "surrogateescape"))
        return len(data)


class Streams:
    """A context in which results and everything else are kept apart.

    Args:
        live: Whether a progress line may be shown.
        reads: Whether the items are read from standard input.
    """

    def __init__(self, live: bool, reads: bool) -> None:
        self.stdout: TextIO | None = sys.stdout
        self.stderr: TextIO | None = sys.stderr
        self.stdin: TextIO | None = sys.stdin
        self.stdin_fd = descriptor(sys.stdin) if reads else None
        self.out: int | None = None  # where results go; None: to `stdout`, the object
        self.real = False  # whether the streams are the process's own
        self.live = live
        self.shared = False  # whether results go to the terminal that shows the progress
        self._lock = threading.RLock()
        self._bar = ""  # what the terminal shows
        self._err: int | None = None
        self._undo: list[Callable[[], object]] = []
        self._asides: list[_Aside] = []
        self._encoding: str = getattr(sys.stdout, "encoding", None) or "utf-8"
        self._blocks = False
        self._direct: int | None = None  # the same pipe, which does not block

    # -- putting things in place ------------------------------------------------------------------

    def __enter__(self) -> Self:
        _open.add(self)
        out, err = descriptor(self.stdout), descriptor(self.stderr)
        console = sys.platform == "win32" and self.stdout is not None and self.stdout.isatty()
        if self.stdout is not None:
            with contextlib.suppress(OSError, ValueError):
                self.stdout.flush()
        if out == 1 and not console:
            self.real = True
            self.out = os.dup(1)
            self._undo.append(self._restore_1)
            if err == 2:
                os.dup2(2, 1)
            else:
                self._to_nothing(1, os.O_WRONLY)
        elif self.stdout is None:
            self.out = os.open(os.devnull, os.O_WRONLY)
        elif hasattr(self.stdout, "reconfigure"):
            cast("Any", self.stdout).reconfigure(errors="futurepool")
        self._look_at_out()
        if self.stdin_fd == 0:
            self.stdin_fd = os.dup(0)
            self._undo.append(self._restore_0)
            self._to_nothing(0, os.O_RDONLY)
        if err == 2 and self.real:
            self._err = 2
        self.shared = self.live and self.stdout is not None and self.stdout.isatty()
        if self.live and self._err is not None:
            self._relay()
        sys.stdout = self._aside(self.stdout, self.stderr, 1)
        self._undo.append(lambda: setattr(sys, "stdout", self.stdout))
        if self.live:
            sys.stderr = self._aside(self.stderr, self.stderr, 2)
            self._undo.append(lambda: setattr(sys, "stderr", self.stderr))
        return self

    def _aside(self, _old: TextIO | None, like: TextIO | None, fd: int) -> Any:
        aside = _Aside(self, like, fd)
        self._asides.append(aside)
        return aside

    def __exit__(self, *_exc_info: object) -> None:
        self.show("")
        for aside in self._asides:
            aside.finish()
        while self._undo:
            self._undo.pop()()
        _open.discard(self)

    def after_fork(self) -> None:
        """In the child: whoever held a lock is not here."""
        self._lock = threading.RLock()
        self._bar = ""
        for aside in self._asides:
            aside.renew()

    @staticmethod
    def _to_nothing(fd: int, how: int) -> None:
        null = os.open(os.devnull, how)
        os.dup2(null, fd)
        os.close(null)

    def _restore_1(self) -> None:
        if self._direct is not None:
            os.close(self._direct)
            self._direct = None
        if self.out is not None:
            os.dup2(self.out, 1)
            os.close(self.out)
            self.out = None

    def _restore_0(self) -> None:
        # A reader that was left behind goes on with its own copy.
        os.dup2(self.stdin_fd or 0, 0)

    def _relay(self) -> None:
        """Lead descriptor 2 past the progress line."""
        self._err = os.dup(2)
        read, write = os.pipe()
        os.dup2(write, 2)
        os.close(write)
        if self.real:
            os.dup2(2, 1)
        ended = threading.Event()
        thread = threading.Thread(
            target=self._pass_on, args=(read, ended), name="stderr", daemon=True
        )
        thread.start()

        def restore() -> None:
            """What was written until now comes out first."""
            terminal = self._err or 2
            os.write(2, b"\0futurepool ends\0\n")
            ended.wait(1.0)
            os.dup2(terminal, 2)
            os.close(terminal)
            self._err = 2

        self._undo.append(restore)

    def _pass_on(self, read: int, ended: threading.Event) -> None:
        partial = b""
        while data := os.read(read, 1 << 16):
            before, mark, after = (partial + data).partition(b"\0futurepool ends\0\n")
            lines, end, partial = before.rpartition(b"\n")
            if mark:
                lines, end, partial = before, b"" if before[-1:] in (b"", b"\n") else b"\n", after
            if lines or end:
                self.foreign((lines + end).decode(self._encoding, "surrogateescape"))
            if mark:
                ended.set()
                return

    # -- writing ------------------------------------------------------------------------------------

    def encode(self, text: str) -> bytes:
        """Results as they are written."""
        if sys.platform == "win32":
            text = text.replace("\n", "\r\n")
        return text.encode(self._encoding, "futurepool")

    def is_pipe(self) -> bool:
        """Whether results go into a pipe."""
        return self.out is not None and stat.S_ISFIFO(os.fstat(self.out).st_mode)

    def write(self, data: bytes, waiting: Callable[[], bool]) -> None:
        """Write results.

        Args:
            data: Whole lines.
            waiting: Called every tenth of a second while nobody takes them; False gives up.

        Raises:
            WriteError: Not all could be written; says how much was.
        """
        with self._lock if self.shared else contextlib.nullcontext():
            if self.shared:
                self._clear()
            if self.out is None:
                self._write_text(data)
                return
            view, written = memoryview(data), 0
            try:
                while written < len(data):
                    if not self._blocks:
                        written += os.write(self.out, view[written:])
                    elif self._direct is not None:
                        try:
                            written += os.write(self._direct, view[written:])
                        except BlockingIOError:
                            self._wait(waiting)
                    else:
                        self._wait(waiting)
                        # A pipe that is ready takes as much as this without waiting.
                        written += os.write(self.out, view[written : written + select.PIPE_BUF])
            except OSError as error:
                failure = WriteError(error.errno, error.strerror)
                failure.written = written
                raise failure from None

    def _look_at_out(self) -> None:
        """Find out whether who writes may have to wait."""
        if self.out is None or not hasattr(select, "poll"):
            return
        mode = os.fstat(self.out).st_mode
        self._blocks = not stat.S_ISREG(mode) and (not stat.S_ISCHR(mode) or os.isatty(self.out))
        if stat.S_ISFIFO(mode) and sys.platform == "linux":
            # Opened once more it has flags of its own: whoever else writes there does not notice.
            with contextlib.suppress(OSError):
                self._direct = os.open(f"/proc/self/fd/{self.out}", os.O_WRONLY | os.O_NONBLOCK)

    def _wait(self, waiting: Callable[[], bool]) -> None:
        poll = select.poll()
        poll.register(self.out or 0, select.POLLOUT)
        while not poll.poll(100):
            if not waiting():
                raise OSError(errno.ETIMEDOUT, "nobody reads them")

    def _write_text(self, data: bytes) -> None:
        stdout: Any = self.stdout
        try:
            text = data.decode(self._encoding, "surrogateescape").replace("\r\n", "\n")
            for line in text.splitlines(keepends=True):
                stdout.write(line)
            stdout.flush()
        except OSError as error:
            number = errno.EPIPE if isinstance(error, BrokenPipeError) else errno.EIO
            raise WriteError(error.errno or number, error.strerror or str(error)) from None

    def gone(self) -> bool:
        """Whether the reader of our pipe has closed it; that can be known before writing."""
        if not self.is_pipe() or not hasattr(select, "poll"):
            return False
        poll = select.poll()
        poll.register(self.out or 0, 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))

    def foreign(self, text: str) -> None:
        """Write what is no result to standard error, past the progress line."""
        with self._lock:
            try:
                if self._err is not None:
                    bar, self._bar = self._bar, ""
                    data = (_ERASE if bar else "") + text + bar
                    view = memoryview(data.encode(self._encoding, "futurepool"))
                    while view:
                        view = view[os.write(self._err, view) :]
                    self._bar = bar
                elif self.stderr is not None:
                    bar, self._bar = self._bar, ""
                    self.stderr.write((_ERASE if bar else "") + text + bar)
                    self.stderr.flush()
                    self._bar = bar
            except (OSError, ValueError):
                pass  # nobody reads it

    def say(self, text: str) -> None:
        """Write a message of our own."""
        self.foreign(f"{text}\n")

    def show(self, bar: str) -> None:
        """Show this progress line; an empty one is none."""
        with self._lock:
            if bar == self._bar:
                return
            old, self._bar = self._bar, ""
            self.foreign((_ERASE if old else "") + bar)
            self._bar = bar

    def wipe(self) -> None:
        """Take the progress line away, for a signal handler: it may come while one is drawn."""
        with self._lock:
            self._bar = ""
            self.foreign(_ERASE)

    def width(self) -> int:
        """Columns of the terminal that shows the progress."""
        with contextlib.suppress(OSError, ValueError):
            fd = self._err if self._err is not None else descriptor(self.stderr)
            if fd is not None:
                columns = os.get_terminal_size(fd).columns
                if columns:
                    return columns
        return 80

    def in_foreground(self) -> bool:
        """Whether we may draw: not while another program has the terminal."""
        try:
            return self._err is None or os.tcgetpgrp(self._err) == os.getpgrp()
        except (AttributeError, OSError):
            return True

    def _clear(self) -> None:
        if self._bar:
            self.show("")


_open: set[Streams] = set()


def _after_fork() -> None:
    for streams in list(_open):
        streams.after_fork()


if sys.platform != "win32" and hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
