"""Where the threads of this process are, one look for all of them.

With a GIL a frame holds still while another thread looks at it. Without, its thread may go on, return or end
meanwhile, and CPython 3.13 reads memory that is gone (`frame.f_back` of another thread). So there the dump of
`faulthandler` is read, which stops all threads while it is written: it has the innermost 100 frames of the
100 youngest threads.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath
from types import FrameType
from typing import TYPE_CHECKING

from futurepool import _sync

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Stacks", "Step"]

#: A frame in words: file, line, function; and the name of its module, if that is known.
Step = tuple[str, int, str, object]

#: Whether a dump is read.
DUMPS: bool = _sync.free_threaded

_HOME = f"{Path(__file__).parents[1]}{os.sep}"
_HEADER = re.compile(r"(?:Thread|Current thread) 0x([0-9a-f]+) ")
_FRAME = re.compile(r'  File "(.*)", line (\d+) in (.*)')
_ESCAPE = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8}))")


class Stacks:
    """What there was to see at one moment. To be cleared: it may hold frames, the caller's among them."""

    def __init__(self, frames: dict[int, FrameType], dump: dict[int, list[Step]]) -> None:
        self._frames = frames
        self._dump = dump

    @classmethod
    def now(cls) -> Self:
        """Where they are now."""
        # Not in `__init__`: a dump of CPython 3.15 may end at such a frame.
        return cls({}, _read(_dump())) if DUMPS else cls(_sync.current_frames(), {})

    def clear(self) -> None:
        """Hold nothing any more."""
        self._frames.clear()
        self._dump.clear()

    def __contains__(self, ident: int | None) -> bool:
        return ident in self._frames or ident in self._dump

    def of(self, ident: int | None) -> Iterable[Step]:
        """Where that thread is, innermost first; nothing if there is none. To be read at once."""
        if ident in self._dump:
            return self._dump[ident]
        return _walk(self._frames.get(ident or 0))


def _walk(frame: FrameType | None) -> Iterator[Step]:
    while frame is not None:
        code = frame.f_code
        line = frame.f_lineno or code.co_firstlineno
        yield code.co_filename, line, code.co_name, frame.f_globals.get("__name__")
        frame = frame.f_back


def _dump() -> str:
    """What faulthandler has to say of all threads; nothing if there is no place to write it to."""
    import faulthandler
    import tempfile

    try:
        # Not a pipe, which might be full while nobody can read.
        with tempfile.TemporaryFile() as file:
            faulthandler.dump_traceback(file)
            file.seek(0)
            return file.read().decode("ascii", "replace")
    except OSError:
        return ""


def _read(dump: str) -> dict[int, list[Step]]:
    """The threads of a dump, by their identifiers."""
    found: dict[int, list[Step]] = {}
    steps: list[Step] = []
    for line in dump.splitlines():
        frame = _FRAME.fullmatch(line)
        if frame is not None:
            file, number, name = frame.groups()
            file = _ESCAPE.sub(_character, file)
            steps.append((file, int(number), _ESCAPE.sub(_character, name), _module_of(file)))
        elif (header := _HEADER.match(line)) is not None:
            steps = found[int(header[1], 16)] = []
    return found


def _module_of(file: str) -> str | None:
    """The name of the module of a file, if that is `threading` or one of ours: who asks tells those from others.

    Not by `sys.modules`, the lock of which a fork might then find taken.
    """
    if file == threading.__file__:
        return "threading"
    if not file.startswith(_HOME):
        return None
    parts = PurePath(file[len(_HOME) :]).with_suffix("").parts
    return ".".join(["futurepool", *parts]).removesuffix(".__init__")


def _character(escape: re.Match[str]) -> str:
    """Only what is not ASCII is escaped; another backslash is one."""
    code = int(next(filter(None, escape.groups())), 16)
    return chr(code) if code > 126 else escape[0]


_sync.import_now(__name__)
