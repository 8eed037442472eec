"""What calls the target: in this process, in an interpreter beside it, or in a process of its own.

Stands alone: it imports nothing of the package, so that a worker process that runs this very file
as a script starts in some 20 ms. The command line's own side imports it like any module.

    load(target)              the function, or BadTargetError
    Caller(fn, shape, json)   item in, line of text out
    describe(error)           a failure as strings, which travel anywhere
    main()                    the worker process

The worker process has two threads. One reads what the parent sends: items, which go on a deque, or
the request to give back those that have not been started. The main thread takes items off the same
deque, so that each is either called here or given back. It writes each result at once: what was
written survives the process. Messages are marshalled, with their length in front, on stdin and
stdout; what the target prints goes to stderr, and what it reads is empty.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import marshal
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from functools import cache, partial
from operator import attrgetter
from types import ModuleType, TracebackType
from typing import Any, NamedTuple

__all__ = [
    "BadTargetError",
    "Caller",
    "Failure",
    "Shape",
    "describe",
    "load",
    "load_target",
    "value_of",
]

#: What messages are about: an item; what was not started; the end; that nobody waits any more; that
#: the target is loaded.
RUN, BACK, END, GONE, READY = range(5)


# -- the target ------------------------------------------------------------------------------------


class BadTargetError(Exception):
    """The text says what is wrong with TARGET."""


def load(target: str) -> Callable[..., object]:
    """The function that TARGET names; BadTargetError says what is wrong with it."""
    value = load_target(target)
    name = target.rpartition(":")[2]
    if not callable(value):
        raise BadTargetError(f"{name} is not callable, but {value!r}")
    # As inspect.iscoroutinefunction has it; importing inspect takes longer than all the rest.
    flags: int = getattr(getattr(value, "__code__", None), "co_flags", 0)
    if flags & 0x80:
        raise BadTargetError(f"{name} is a coroutine function; map calls plain functions")
    return value  # type: ignore[no-any-return]


def load_target(target: str) -> Any:
    """Whatever TARGET names, callable or not."""
    where, colon, name = target.rpartition(":")  # a path on Windows has a colon of its own
    if not (colon and where and name):
        raise BadTargetError("must be `module:function` or `path/to/file.py:function`")
    module = _load_file(where) if where.endswith(".py") else _load_module(where)
    try:
        return attrgetter(name)(module)
    except AttributeError as error:
        raise BadTargetError(str(error)) from None


def _load_module(name: str) -> ModuleType:
    with contextlib.suppress(OSError):  # it may have been removed
        here = os.getcwd()  # noqa: PTH109
        if not getattr(sys.flags, "safe_path", False) and not {"", here} & set(sys.path):
            sys.path.insert(0, here)  # a script, unlike `python -m`, has its own folder there
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise BadTargetError(str(error)) from None
        raise _import_failed(error) from None
    except (Exception, SystemExit) as error:
        raise _import_failed(error) from None


def _load_file(where: str) -> ModuleType:
    from pathlib import Path

    path = Path(where)
    if not path.is_file():
        raise BadTargetError(f"there is no file {str(path)!r}")
    sys.path.insert(0, str(path.parent.resolve()))
    # Under its own name, unless that would take the place of a module others have imported.
    name = path.stem if path.stem not in sys.modules else f"_futurepool_target_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:  # pragma: no cover - a .py file has a loader
        raise BadTargetError(f"{str(path)!r} cannot be loaded")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise _import_failed(error) from None
    return module


def _import_failed(error: BaseException) -> BadTargetError:
    frames = error.__traceback__
    # Whatever imports it (importlib, and the hooks of others) comes before the module's own frame.
    while frames is not None and frames.tb_frame.f_code.co_name != "<module>":
        frames = frames.tb_next
    text = "".join(traceback.format_exception(type(error), error, frames))
    return BadTargetError(f"importing it failed\n{text.rstrip()}")


# -- a call ----------------------------------------------------------------------------------------


@cache
def _decoder() -> Callable[[str], object]:
    import json  # takes as long as all the rest of this module

    return json.JSONDecoder(parse_constant=_no_value).decode


def _no_value(name: str) -> object:
    raise ValueError(f"{name} is no value there")


def value_of(text: str) -> object:
    """What JSON stands for. ValueError if it is none: NaN is none, which Python would take."""
    return _decoder()(text)


class Shape(NamedTuple):
    """How an item becomes arguments: as it is, as JSON, or split into columns."""

    json: bool = False
    columns: str | None = None

    def arguments(self, item: str) -> list[Any]:
        """What the target is called with; ValueError if the item is no JSON."""
        if self.columns is not None:
            return list(item.split(self.columns))
        if self.json:
            try:
                return [value_of(item)]
            except ValueError as error:
                raise ValueError(f"the item is not JSON: {error}") from None
        return [item]


class Caller:
    """Calls the target with an item, and turns what it returns into text: `finish(get(item))`."""

    def __init__(self, fn: Callable[..., object], shape: Shape, as_json: bool) -> None:
        self.get: Callable[[str], object] = fn
        self.finish: Callable[[Any], str] = str
        if as_json:
            import json

            self.finish = partial(_to_json, json.dumps)
        if shape.json or shape.columns is not None:
            arguments = shape.arguments
            self.get = lambda item: fn(*arguments(item))

    def call(self, item: str) -> str:
        """Both."""
        return self.finish(self.get(item))


def _to_json(dumps: Callable[..., str], result: object) -> str:
    try:
        return dumps(result, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"the result cannot be written as JSON: {error}") from None


class Failure(NamedTuple):
    """An exception as text."""

    type: str
    message: str
    where: str  # `file.py:12`, or nothing
    traceback: str


def describe(error: BaseException, verbose: bool = True) -> Failure:
    """Say what went wrong, without the frames of whoever called; user code is not trusted."""
    frames = _own(error.__traceback__)
    try:
        message = str(error)
    except Exception:
        message = f"<unprintable {type(error).__name__} object>"
    where, last = "", frames
    while last is not None:
        where = f"{os.path.basename(last.tb_frame.f_code.co_filename)}:{last.tb_lineno}"  # noqa: PTH119
        last = last.tb_next
    text = ""
    if verbose:
        try:
            text = "".join(traceback.format_exception(type(error), error, frames))
        except Exception:
            text = f"{type(error).__name__}: {message}\n"
    return Failure(type(error).__name__, message, where, text)


_HERE = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120


def _own(frames: TracebackType | None) -> TracebackType | None:
    """The target's frames: those after the last one of the command line."""
    own = frames
    while frames is not None:
        if os.path.dirname(frames.tb_frame.f_code.co_filename) == _HERE:  # noqa: PTH120
            own = frames.tb_next
        frames = frames.tb_next
    return own


# -- the worker process ----------------------------------------------------------------------------


def pack(message: Any) -> bytes:
    """A message as bytes, with its length in front."""
    body = marshal.dumps(message)
    return len(body).to_bytes(4, "little") + body


def write_all(fd: int, data: bytes) -> None:
    """Write it to the last byte."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


class Unpacker:
    """Messages out of a stream of bytes, whole ones only."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._data = b""

    def read(self) -> list[Any]:
        """The next messages, at least one; EOFError at the end."""
        data = self._data
        while True:
            messages: list[Any] = []
            at = 0
            while len(data) - at >= 4:
                end = at + 4 + int.from_bytes(data[at : at + 4], "little")
                if end > len(data):
                    break
                messages.append(marshal.loads(data[at + 4 : end]))
                at = end
            if messages:
                self._data = data[at:]
                return messages
            more = os.read(self._fd, 1 << 16)
            if not more:
                raise EOFError
            data += more


class _Worker:
    """The two threads of a worker process, and what they share."""

    def __init__(
        self,
        source: Unpacker,
        early: list[Any],
        out: int,
        call: Callable[[str], str],
        alone: bool,
    ) -> None:
        self._source = source
        self._early = early
        self._alone = alone
        self._out = out
        self._call = call
        self._todo: deque[tuple[int, str]] = deque()
        self._ready: queue.SimpleQueue[bool] = queue.SimpleQueue()  # False: the end
        self._writing = threading.Lock()  # a message at a time

    def send(self, message: object) -> None:
        data = pack(message)
        with self._writing:
            write_all(self._out, data)

    def listen(self) -> None:
        """The reader."""
        try:
            while True:
                messages, self._early = self._early or self._source.read(), []
                for kind, *items in messages:
                    if kind == RUN:
                        self._todo.extend(items)
                        for _ in items:
                            self._ready.put(True)
                    elif kind == END:
                        self._ready.put(False)
                        return
                    else:
                        back: list[int] = []
                        with contextlib.suppress(IndexError):
                            while True:
                                back.append(self._todo.pop()[0])
                        self.send((BACK, back))
        except (EOFError, OSError):
            # The parent is gone: nobody wants what runs here.
            if self._alone:
                os._exit(1)
            self._ready.put(False)

    def work(self) -> None:
        todo, clock = self._todo, time.perf_counter
        while self._ready.get():
            try:
                index, item = todo.popleft()
            except IndexError:  # given back
                continue
            start, began = time.time(), clock()
            try:
                text, failure = self._call(item), None
            except BaseException as error:
                text, failure = None, tuple(describe(error))
            seconds = clock() - began
            self.send((RUN, index, text, failure, start, seconds))


def serve(source: int, out: int, alone: bool = False) -> None:
    """Be a worker: the first message says what to call.

    Args:
        source: The descriptor to read messages from.
        out: The one to write to.
        alone: Whether the process has no other purpose.
    """
    messages = Unpacker(source)
    try:
        setup, *early = messages.read()  # and, it may be, the first items
    except EOFError:
        return
    sys.path[:] = setup["path"]
    sys.argv[:] = setup["argv"]
    call = Caller(load(setup["target"]), Shape(*setup["shape"]), setup["json"]).call
    worker = _Worker(messages, early, out, call, alone)
    try:
        worker.send((READY,))
    except BrokenPipeError:  # the parent is gone
        return
    # An interpreter beside others has no daemon threads.
    reader = threading.Thread(target=worker.listen, name="reader", daemon=alone)
    reader.start()
    with contextlib.suppress(BrokenPipeError):
        worker.work()
    if not alone:
        reader.join()


def _not_for_us(_number: int, _frame: object) -> None:
    pass


def main() -> None:
    """Be a worker process."""
    if hasattr(signal, "pthread_sigmask"):
        # Ctrl-C is for the parent, which says what becomes of us. Not ignored: our own children
        # would inherit that.
        signal.signal(signal.SIGINT, _not_for_us)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    else:  # pragma: no cover - Windows
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    source, out = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    serve(source, out, alone=True)


if __name__ == "__main__":
    main()
