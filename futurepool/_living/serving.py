"""A socket at which `python -m futurepool top` asks what the pools of this process are doing.

Opened by `futurepool.serve()`, or with the first pool where the environment has `FUTUREPOOL_TOP=1`; on
systems with sockets in the file system. It lies in a folder that only this user can enter (mode 0700; one
that somebody else has made is refused), has mode 0600, and whoever connects must be this user or root,
where the system says who that is. One thread serves it, one request at a time: the asker sends nothing,
reads the picture and the end of the file.

The child of a fork opens one of its own. At exit the socket is removed; one that a killed process has
left is removed by the next who looks into the folder.
"""

from __future__ import annotations

import atexit
import os
import socket
import stat
import struct
import sys
from pathlib import Path

from futurepool import _logs, _sync

__all__ = ["serve"]

_PATIENCE = 2.0  # seconds for an asker to read


def folder_of(uid: int) -> Path:
    """Where the sockets of a user's processes lie. Not by TMPDIR, which the asker may have another of."""
    return Path("/tmp") / f"futurepool-{uid}"


def path_of(pid: int, uid: int) -> Path:
    """Where a process's socket lies."""
    return folder_of(uid) / f"{pid}.sock"


def is_alive(pid: int) -> bool:
    """Whether there is such a process, and it has not ended, as far as the system says."""
    platform: str = sys.platform  # or checkers would leave out what is not for theirs
    if platform == "win32":  # there 0 is Ctrl-C
        return True
    try:
        os.kill(pid, 0)
    except PermissionError:
        pass
    except (OSError, OverflowError):
        return False
    try:
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2]
    except OSError:  # a system without it
        return True
    return not state.startswith((b"Z", b"X"))  # its parent has not asked what became of it


def living(uid: int) -> list[int]:
    """The processes of a user that have a socket; what others have left is removed."""
    found: list[int] = []
    for path in folder_of(uid).glob("*.sock"):
        if path.stem.isdecimal() and is_alive(int(path.stem)):
            found.append(int(path.stem))
        else:
            path.unlink(missing_ok=True)
    return sorted(found)


def is_private(folder: Path, uid: int) -> bool:
    """Whether nobody but the user (and root) can have put something into that folder."""
    found = folder.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == uid and not found.st_mode & 0o077


class _Server:
    """The socket of one process."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        uid = os.getuid()
        folder = folder_of(uid)
        folder.mkdir(mode=0o700, exist_ok=True)
        if not is_private(folder, uid):
            raise PermissionError(f"{folder} is not a folder that only this user can enter")
        self.path = path_of(self.pid, uid)
        living(uid)
        self.path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.bind(str(self.path))
            self.path.chmod(0o600)
            self._socket.listen()
            thread = _sync.new_thread(self._serve, name="futurepool-top", daemon=True)
            _sync.start(thread)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Take no more requests."""
        if self.pid == os.getpid():  # else it is the parent's
            self.path.unlink(missing_ok=True)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                asker, _ = self._socket.accept()
            except OSError:
                if self._socket.fileno() < 0:
                    return
                # No descriptors left, or the asker has gone: not in a rush.
                _sync.sleep_at(_sync.Parker(), 0.1, int)
                continue
            try:
                with asker:
                    asker.settimeout(_PATIENCE)
                    if _uid(asker) in (None, 0, os.getuid()):
                        from futurepool._living import picture

                        asker.sendall(picture.text())
            except OSError:  # it did not wait
                pass
            except Exception:
                _logs.log.exception("a request at the socket for `futurepool top` failed")


def _uid(asker: socket.socket) -> int | None:
    """Whose process it is; None where the system does not say."""
    platform: str = sys.platform  # or checkers would leave out what is not for theirs
    if platform == "linux":
        size = struct.calcsize("3i")
        raw = asker.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        return int(struct.unpack("3i", raw)[1])
    if platform == "darwin":  # struct xucred: version, uid, ...
        return int(struct.unpack_from("II", asker.getsockopt(0, 1, 76))[1])
    return None


_server: _Server | None = None


def serve() -> str:
    """Let `python -m futurepool top` look at this process, by a socket that only this user can reach.

    Needed where `sys.remote_exec` is not to be had: before Python 3.14, and where the main thread sleeps
    in code that is not Python's. The environment variable `FUTUREPOOL_TOP=1` does the same. Another call
    does nothing.

    Returns:
        Where the socket is.

    Raises:
        OSError: It cannot be opened, or this system has no such sockets.

    Thread safety: any thread, once a pool exists or not. Cost: a thread that sleeps.
    """
    global _server
    if not hasattr(socket, "AF_UNIX") or not hasattr(os, "getuid"):
        raise OSError("this system has no sockets in its file system")
    server = _server
    if server is None or server.pid != os.getpid():
        _server = server = _Server()
    return str(server.path)


serve.__module__ = "futurepool"


def serve_quietly() -> None:
    """The same, for nobody who could do anything about it if it fails."""
    try:
        serve()
    except (OSError, RuntimeError) as error:
        _logs.log.warning("no socket for `futurepool top`: %s", str(error))


def _after_fork() -> None:
    global _server
    if _server is not None:
        _server.close()
        _server = None
        serve_quietly()


def _at_exit() -> None:
    if _server is not None:
        _server.close()


atexit.register(_at_exit)
if sys.platform != "win32" and hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


_sync.import_now(__name__)
