"""Where items come from: words, lines or NUL-separated bytes of standard input, JSON, columns.

Items stay text until they are called; the key says which of them are the same for `--resume`.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import TextIO

from futurepool._cli.child import value_of

__all__ = ["count", "descriptor", "key_of", "split", "start_of", "to_json"]

_CHUNK = 1 << 16  # bytes; a pipe has no more
_LARGE_CHUNK = 1 << 17  # of a file; yet more have to be mapped anew each time


def descriptor(stream: TextIO | None) -> int | None:
    """The stream's file descriptor; None if it has none, or is closed."""
    try:
        return None if stream is None else stream.fileno()
    except (AttributeError, OSError, ValueError):
        return None


def split(stdin: TextIO | None, fd: int | None, nul: bool) -> Iterator[list[str]]:
    """The items of standard input, as many at a time as there are, each as soon as it is there.

    Args:
        stdin: For its encoding, and to be read if there is no descriptor.
        fd: What to read, past all buffers: a thread that is left behind in a read of `sys.stdin`
            would hold its lock and keep the interpreter from ending.
        nul: Items end with a NUL character, and may have line ends in them.
    """
    if stdin is None:
        raise OSError(errno.EBADF, "it is closed")
    if fd is None or (sys.platform == "win32" and stdin.isatty()):
        if nul:
            text = stdin.read()
            yield text.removesuffix("\0").split("\0") if text else []
            return
        for line in stdin:
            yield [line.removesuffix("\n")]
        return
    encoding = stdin.encoding
    end = b"\0" if nul else b"\n"
    cr = b"\r" if os.linesep == "\r\n" and not nul else b""
    parts: list[bytes] = []  # of an item whose end is not there yet
    size = _LARGE_CHUNK if stat.S_ISREG(os.fstat(fd).st_mode) else _CHUNK
    while chunk := os.read(fd, size):
        head, found, rest = chunk.rpartition(end)
        if not found:
            parts.append(rest)
            continue
        whole = b"".join([*parts, head])
        parts = [rest]
        if cr:
            whole = whole.replace(cr + end, end).removesuffix(cr)
        # One by one the decoding would cost as much as the rest of the reading.
        yield whole.decode(encoding, "surrogateescape").split(end.decode())
    last = b"".join(parts)
    if last:
        yield [last.decode(encoding, "surrogateescape")]


def start_of(fd: int | None) -> int | None:
    """Where `split` will begin, if that is a regular file whose items can be counted."""
    try:
        if fd is None or not hasattr(os, "pread") or not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        return os.lseek(fd, 0, os.SEEK_CUR)
    except OSError:
        return None


def count(fd: int, at: int, nul: bool, stopped: Callable[[], bool]) -> int | None:
    """The number of items in a regular file, from a position on; None if it is not to be had.

    Reads the file a second time, without moving the position that `split` reads from.
    """
    pread: Callable[[int, int, int], bytes] = os.pread
    try:
        end, number, last = (b"\0" if nul else b"\n"), 0, b""
        while chunk := pread(fd, 1 << 20, at):
            if stopped():
                return None
            number += chunk.count(end)
            last = chunk[-1:]
            at += len(chunk)
    except OSError:
        return None
    return number + (last not in (b"", end))


def key_of(as_json: bool) -> Callable[[str], str]:
    """What makes two items the same: their text, or the value that it stands for."""
    return partial(to_json, sort_keys=True) if as_json else str


def to_json(item: str, sort_keys: bool = False) -> str:
    """An item that is JSON, as others may read it; one that is none, or that is too large for that, as a text."""
    import json

    try:
        return json.dumps(value_of(item), sort_keys=sort_keys, allow_nan=False)
    except (ValueError, RecursionError):
        return json.dumps(item)
