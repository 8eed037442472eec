"""What is written beside the results: the log, which `--resume` reads, and the trace.

The log has one JSON line for each item that is settled: its result written, or its failure reported.

    {"item": "a.txt", "start": 1700000000.25, "seconds": 0.012, "outcome": "done"}
    {"item": "b.txt", "start": ..., "seconds": ..., "outcome": "failed", "error": "ValueError: ..."}

`"again": true` stands in the record of an item that failed before; the outcome `"unread"` takes
back a `"done"` whose line was still in a pipe when its reader left.

An item may be logged only after its line was written, but if the process is killed between the two
the item would be done twice. So where results go to a file, what is about to be written goes into
`FILE.journal` first: where, how long each line is, a checksum, and the records. After a kill,
`--resume` looks at what got into the file, drops half a line, and completes the log.

A run locks its log, where the system can: two at a time would each do all that neither had logged yet, and
the second would take what the first is writing for what a killed one has left.

Used by the main thread only.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import sys
import time
import zlib
from collections import Counter, deque
from collections.abc import Callable
from io import BufferedReader
from itertools import accumulate
from json.encoder import encode_basestring_ascii as quote
from pathlib import Path
from typing import Any, NamedTuple

from futurepool._cli.items import to_json
from futurepool._cli.streams import Streams, WriteError
from futurepool._cli.work import Outcome

__all__ = ["Entry", "Log", "Output", "Trace", "quote"]


class Entry(NamedTuple):
    """Something to write: an item's line with its end, if it has one, and what became of it."""

    line: bytes | None
    outcome: Outcome


class Output:
    """Writes results, and logs them once they are written."""

    def __init__(self, streams: Streams, log: Log | None, waiting: Callable[[], bool]) -> None:
        self._streams = streams
        self._log = log
        self._waiting = waiting
        self.written = 0  # bytes of the latest entries

    def write(self, entries: list[Entry]) -> None:
        """Write all of them; WriteError if that fails, after what was written is logged."""
        streams, log = self._streams, self._log
        self.written = 0
        data = b"".join([entry.line for entry in entries if entry.line is not None])
        if log is None:
            if data:
                streams.write(data, self._waiting)
            return
        sizes = [0 if entry.line is None else len(entry.line) for entry in entries]
        records = [log.record(entry.outcome) for entry in entries]
        log.announce(streams.out, data, sizes, records)
        try:
            if data:
                streams.write(data, self._waiting)
        except WriteError as error:
            ends = list(accumulate(sizes))
            whole = sum(end <= error.written for end in ends)
            half = error.written - (ends[whole - 1] if whole else 0)
            log.drop_half_line(streams.out, half)
            log.append(records[:whole])
            log.remember(sizes[:whole], entries[:whole], half)
            raise
        self.written = len(data)
        log.append(records)
        log.remember(sizes, entries)


class Log:
    """The log.

    Args:
        file: Its file.
        key: What makes two items the same.
        resume: Whether the file may have records; they are read.
        failed: Whether items that failed are done again.
        as_json: Whether items are JSON already.
    """

    def __init__(
        self,
        file: str,
        key: Callable[[str], str],
        *,
        resume: bool,
        failed: bool,
        as_json: bool,
    ) -> None:
        self._path = path = Path(file).absolute()  # the target may change the directory
        self._key = key
        self._as_json = as_json
        self._again = failed
        self.skipped_failed = 0
        self._done: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self._retried: set[int] = set()
        self._journal_path = path.with_name(f"{path.name}.journal")
        self._journal: int | None = None
        self._recent: deque[tuple[int, Outcome]] = deque()  # (end, item) of what a pipe may hold
        self._written = 0
        self.piped = False
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
        self._fd = os.open(path, flags, 0o666)
        try:
            _lock(self._fd, path)
            size = os.fstat(self._fd).st_size
            if not resume:
                _must_be_empty(path, size)
            else:
                self._reconcile()
                self._read()
        except BaseException:
            os.close(self._fd)
            raise

    # -- resuming ----------------------------------------------------------------------------------

    def _read(self) -> None:
        done, failed = self._done, self._failed
        good = 0
        os.lseek(self._fd, 0, os.SEEK_SET)
        # Not by its path: to close what was opened so would end the lock.
        with open(self._fd, "rb", closefd=False) as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break  # half a record, of a full disk or a killed process
                good += len(line)
                try:
                    record = json.loads(line)
                    item, outcome = record["item"], record["outcome"]
                except (ValueError, TypeError, KeyError):
                    raise ValueError(f"{self._path} is no log: {line[:80]!r}") from None
                name = json.dumps(item, sort_keys=True) if self._as_json else item
                if not isinstance(name, str):
                    name = json.dumps(name, sort_keys=True)
                if outcome == "unread":
                    done[name] -= 1
                    continue
                if record.get("again"):
                    failed[name] -= 1
                (done if outcome == "done" else failed)[name] += 1
        if good != os.fstat(self._fd).st_size:
            os.ftruncate(self._fd, good)

    def settled(self, index: int, item: str) -> bool:
        """Whether an earlier run has done this item. Each record counts for one item."""
        name = self._key(item)
        if self._done.get(name, 0) > 0:
            self._done[name] -= 1
            return True
        if self._failed.get(name, 0) > 0:
            self._failed[name] -= 1
            if self._again:
                self._retried.add(index)
                return False
            self.skipped_failed += 1
            return True
        return False

    def _reconcile(self) -> None:
        """Find out what the killed process did last, and complete the log."""
        try:
            data = self._journal_path.read_bytes()
        except FileNotFoundError:
            return
        head, _, rest = data.partition(b"\n")
        try:
            crc, length = (int(word) for word in head.split())
            body = rest[:length]
            if len(body) != length or zlib.crc32(body) != crc:
                return  # killed while it wrote the journal: nothing came after
            first, _, text = body.partition(b"\n")
            note: dict[str, Any] = json.loads(first)
        except ValueError:
            return
        if os.fstat(self._fd).st_size < note["log"]:
            return  # another log
        written = self._look(note)
        if written is None:
            return
        records = text.splitlines(keepends=True)
        sizes: list[int] = note["sizes"]
        ends = list(accumulate(sizes))
        whole = sum(end <= written for end in ends)
        os.ftruncate(self._fd, note["log"])
        self._write(b"".join(records[:whole]))
        half = written - (ends[whole - 1] if whole else 0)
        if half:
            with contextlib.suppress(OSError):
                os.truncate(note["path"], note["at"] + written - half)

    @staticmethod
    def _look(note: dict[str, Any]) -> int | None:
        """How many bytes of the last batch are in the output; None if that cannot be told."""
        path, at, total = note["path"], note["at"], sum(note["sizes"])
        try:
            with Path(path).open("rb") as file:
                now = os.fstat(file.fileno())
                if (now.st_dev, now.st_ino) != (note["dev"], note["ino"]):
                    return None
                file.seek(at)
                found = _take(file, total)
                if len(found) == total and zlib.crc32(found) != note["crc"]:
                    return 0  # others have written there
        except (OSError, TypeError):
            return None
        return len(found)

    # -- writing -----------------------------------------------------------------------------------

    def record(self, outcome: Outcome) -> bytes:
        """The line for an item."""
        item = self._item(outcome.item)
        text = f'{{"item": {item}, "start": {outcome.start:.6f}, "seconds": {outcome.seconds:.6f}'
        failure = outcome.failure
        if failure is None:
            text += ', "outcome": "done"'
        else:
            error = f"{failure.type}: {failure.message}" if failure.message else failure.type
            text += f', "outcome": "failed", "error": {quote(error)}'
        if self._retried and outcome.place in self._retried:
            text += ', "again": true'
        return f"{text}}}\n".encode("ascii", "backslashreplace")

    def _item(self, item: str) -> str:
        return to_json(item) if self._as_json else quote(item)

    def announce(
        self, out: int | None, data: bytes, sizes: list[int], records: list[bytes]
    ) -> None:
        """Say what is about to be written, where that can be looked at later."""
        if out is None or not data:
            return
        place = os.fstat(out)
        self.piped = stat.S_ISFIFO(place.st_mode)
        if not stat.S_ISREG(place.st_mode):
            return
        note = {
            "at": place.st_size if _appends(out) else os.lseek(out, 0, os.SEEK_CUR),
            "path": _path_of(out),
            "dev": place.st_dev,
            "ino": place.st_ino,
            "crc": zlib.crc32(data),
            "log": os.fstat(self._fd).st_size,
            "sizes": sizes,
        }
        body = json.dumps(note).encode() + b"\n" + b"".join(records)
        if self._journal is None:
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
            self._journal = os.open(self._journal_path, flags, 0o666)
        os.lseek(self._journal, 0, os.SEEK_SET)
        _write_all(self._journal, b"%d %d\n" % (zlib.crc32(body), len(body)) + body)

    @staticmethod
    def drop_half_line(out: int | None, half: int) -> None:
        """Take the beginning of a line back out of a file."""
        if out is None or not half:
            return
        with contextlib.suppress(OSError):
            if stat.S_ISREG(os.fstat(out).st_mode):
                at = os.fstat(out).st_size if _appends(out) else os.lseek(out, 0, os.SEEK_CUR)
                os.ftruncate(out, at - half)
                os.lseek(out, at - half, os.SEEK_SET)

    def append(self, records: list[bytes]) -> None:
        """Add records."""
        if records:
            self._write(b"".join(records))

    def _write(self, data: bytes) -> None:
        _write_all(self._fd, data)

    def remember(self, sizes: list[int], entries: list[Entry], half: int = 0) -> None:
        """Keep the last items whose lines a pipe may hold; after them it has half a line."""
        if not self.piped:
            return
        for size, entry in zip(sizes, entries, strict=True):
            if size:
                self._written += size
                self._recent.append((self._written, entry.outcome))
        self._written += half
        while self._recent and self._recent[0][0] < self._written - (1 << 20):
            self._recent.popleft()

    def take_back(self, out: int | None) -> None:
        """The reader of our pipe has left: what it has not read is not done."""
        unread = _unread(out) if self.piped else 0
        for end, outcome in self._recent:
            if end > self._written - unread:
                record = f'{{"item": {self._item(outcome.item)}, "outcome": "unread"}}\n'
                self._write(record.encode())
        self._recent.clear()

    def wait_for_reader(self, streams: Streams, patient: Callable[[], bool]) -> None:
        """Wait until the reader of our pipe has got all; WriteError if it leaves before."""
        while self.piped and _unread(streams.out) and patient():
            if streams.gone():
                raise WriteError(errno.EPIPE, os.strerror(errno.EPIPE))
            time.sleep(0.01)

    def close(self, complete: bool) -> None:
        """The end; the journal is kept if the log could not be completed."""
        if self._journal is not None:
            os.close(self._journal)
        if complete:
            with contextlib.suppress(OSError):
                self._journal_path.unlink()
        os.close(self._fd)


def _lock(fd: int, path: Path) -> None:
    """Until it is closed, or this process ends. Children that the target forks do not have it."""
    try:
        import fcntl

        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:
        return
    except OSError as error:  # else this file cannot be locked
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise BlockingIOError(f"another run is writing {path}") from None


def _must_be_empty(path: Path, size: int) -> None:
    if size:
        raise FileExistsError(
            f"{path} has records of another run; give --resume, --resume-failed, or another file"
        )


def _take(file: BufferedReader, size: int) -> bytes:
    return file.read(size)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _appends(fd: int) -> bool:
    try:
        import fcntl
    except ImportError:
        return False
    return bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND)


def _path_of(fd: int) -> str | None:
    """The path of an open file, where the system tells."""
    if sys.platform == "darwin":
        import fcntl

        try:
            return fcntl.fcntl(fd, 50, bytes(1024)).rstrip(b"\0").decode()  # F_GETPATH
        except (OSError, ValueError):
            return None
    try:
        return str(Path(f"/proc/self/fd/{fd}").readlink())
    except OSError:
        return None


def _unread(fd: int | None) -> int:
    """Bytes in our pipe that nobody has read."""
    if fd is None:
        return 0
    try:
        import fcntl
        import termios

        answer = fcntl.ioctl(fd, termios.FIONREAD, b"\0\0\0\0")
    except (ImportError, OSError):
        return 0
    return int.from_bytes(answer, sys.byteorder)


class Trace:
    """Chrome trace events, for Perfetto or speedscope: a bar for each call, a row for each worker."""

    def __init__(self, file: str, kind: str) -> None:
        self._file = Path(file).open("w", encoding="utf-8")  # noqa: SIM115 - open for the run
        self._kind = kind
        self._rows: set[int] = set()
        self.error: OSError | None = None  # that ended it
        self._write('[\n{"name": "process_name", "ph": "M", "pid": 1, "args": {"name": "map"}}')

    def add(self, outcome: Outcome) -> None:
        """A call."""
        row = outcome.drawer + 1
        write = self._write
        if row not in self._rows:
            self._rows.add(row)
            write(
                f',\n{{"name": "thread_name", "ph": "M", "pid": 1, "tid": {row}, '
                f'"args": {{"name": "{self._kind} {row}"}}}}'
            )
        failed = "" if outcome.failure is None else f', "error": {quote(outcome.failure.message)}'
        write(
            f',\n{{"name": {quote(outcome.item)}, "ph": "X", "pid": 1, "tid": {row}, '
            f'"ts": {outcome.start * 1e6:.1f}, "dur": {outcome.seconds * 1e6:.1f}, '
            f'"args": {{"item": {outcome.place}{failed}}}}}'
        )

    def counter(self, now: float, running: int, queued: int) -> None:
        """How much runs and waits at a moment."""
        self._write(
            f',\n{{"name": "items", "ph": "C", "pid": 1, "ts": {now * 1e6:.1f}, '
            f'"args": {{"running": {running}, "queued": {queued}}}}}'
        )

    def close(self) -> None:
        """End the list."""
        self._write("\n]\n")
        try:
            self._file.close()
        except OSError as error:
            self.error = self.error or error

    def _write(self, text: str) -> None:
        if self.error is None:
            try:
                self._file.write(text)
            except OSError as error:
                self.error = error
