"""The command line: `python -m futurepool map` and `bench`.

`map` keeps three things apart, so that none of them waits for another without need:

    the reader (a thread)   takes items in, one at a time, and submits them
    the workers             call the target, and turn its result into a line of text
    the main thread         prints lines, notices failures, and is where Ctrl-C arrives

Every finished task is put on one queue, in whichever order; the main thread puts them in order.
The reader takes a ticket for each item, the main thread returns it with the item's line, so at most
`workers + queue_size` items, or twice `workers` if that is more, are read but not yet printed. A
reader that is blocked in a read is left behind: it is a daemon thread, and reads the descriptor
itself, because a daemon thread that holds the lock of `sys.stdin` would stop the interpreter from
ending.

Longer than most modules because the two ends of `map` share these queues.

Locks: none. Tickets and finished tasks travel in `SimpleQueue`s; everything else has one writer.
"""

from __future__ import annotations

import argparse
import codecs
import contextlib
import errno
import importlib
import importlib.util
import inspect
import json
import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from functools import partial
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO, cast

import futurepool
from futurepool import BoundedExecutor, CancelToken, ForcedShutdownError, Future, PoolClosedError

if TYPE_CHECKING:
    from futurepool._cli.rich_ui import Display

__all__ = ["main"]

_PROG = "python -m futurepool"
_BENCH = "futurepool._cli.bench"
_GRACE = 1.0  # seconds for running tasks to end when nobody waits for them any more
_PATIENCE = 30.0  # the same after a failed task, whose fellows may have something to finish
# A wait on Windows does not notice Ctrl-C before it ends, nor any wait one that came just before.
_POLL = 0.2 if sys.platform == "win32" else 1.0
_NO_RICH = (
    "the progress bar and the summary need rich, which is not installed: install the `cli` extra, "
    'in the checkout by `pip install ".[cli]"`, or run with --quiet'
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: The arguments; the default is `sys.argv[1:]`.

    Returns:
        The exit status: 0, 1 if a task failed or stdout cannot be written, 130 after Ctrl-C.

    Raises:
        SystemExit: With status 2, wrong usage, or with 0, after `--help` and `--version`.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        try:
            return _run(words)
        finally:
            if sys.stdout is not cast(object, None):
                sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        _discard(sys.stdout)
        if _is_closed_pipe(error):
            return 0
        if sys.stderr is not cast(object, None):
            with contextlib.suppress(OSError):
                print(f"futurepool: cannot write to stdout: {error}", file=sys.stderr, flush=True)
        return 1


# -- arguments -------------------------------------------------------------------------------------


def _run(words: list[str]) -> int:
    # What follows `--` is an item even if it looks like an option.
    cut = words.index("--") if "--" in words else len(words)
    words, literal = words[:cut], words[cut + 1 :]
    parser = argparse.ArgumentParser(_PROG, description="Thread pools from the command line.")
    parser.add_argument("--version", action="version", version=f"futurepool {_version()}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    mapper = _add_map(commands)
    if importlib.util.find_spec(_BENCH) is not None:
        bench = commands.add_parser(
            "bench",
            help="measure this machine",
            allow_abbrev=False,
            add_help=words[:1] == ["bench"],
        )
        if words[:1] == ["bench"]:
            module: Any = importlib.import_module(_BENCH)
            module.add_arguments(bench)
            bench.set_defaults(main=module.main)
    # argparse ends the list of ITEMs at the first option; what comes after it is left over.
    args, more = parser.parse_known_args(words)
    if args.main is not None:
        if more or literal:
            parser.error(f"unrecognized arguments: {' '.join(more + literal)}")
        status: int = args.main(args)
        return status
    unknown = [word for word in more if word[:1] == "-" and not _is_item(word)]
    if unknown:
        mapper.error(f"unrecognized arguments: {' '.join(unknown)}")
    args.items = args.items + more + literal
    return _map(args, mapper)


def _version() -> str:
    return futurepool.__version__


def _is_item(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return word == "-"
    return True


def _at_least(minimum: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be a whole number, not {text!r}") from None
        if value < minimum:
            raise argparse.ArgumentTypeError(f"must be at least {minimum}, not {value}")
        return value

    return convert


def _add_map(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "map",
        help="call a function with each item",
        description="Call TARGET with each ITEM, in threads, and print what it returns.",
        epilog="Exit status: 0; 1 if a task failed; 2 for wrong usage; 130 after Ctrl-C.",
        allow_abbrev=False,
    )
    parser.set_defaults(main=None)
    add = parser.add_argument
    add("target", metavar="TARGET", help="`module:function` or `path/to/file.py:function`")
    add(
        "items",
        metavar="ITEM",
        nargs="*",
        default=[],
        help="a str for TARGET; the default is lines of stdin",
    )
    add("-j", "--workers", metavar="N", type=_at_least(1), help="calls that run at a time")
    add(
        *("-q", "--queue-size"),
        metavar="N",
        type=_at_least(0),
        default=1000,
        help="items that may wait, for a worker or for their turn to be printed (%(default)s)",
    )
    add("--unordered", action="store_true", help="print results as they finish")
    add(
        "--json",
        action="store_true",
        help='print JSON lines: {"item": ..., "result": ...}, or "error" for a failed one',
    )
    add(
        "--on-error",
        choices=("stop", "skip"),
        default="stop",
        help="after a failed task, cancel the rest (stop, the default) or go on (skip)",
    )
    add("--quiet", action="store_true", help="no progress bar and no summary")
    return parser


# -- the target ------------------------------------------------------------------------------------


class _BadTargetError(Exception):
    """The text says what is wrong with TARGET."""


def _load(target: str) -> Callable[[str], object]:
    where, colon, name = target.rpartition(":")  # a path on Windows has a colon of its own
    if not (colon and where and name):
        raise _BadTargetError("must be `module:function` or `path/to/file.py:function`")
    value: Any = _load_file(Path(where)) if where.endswith(".py") else _load_module(where)
    try:
        value = attrgetter(name)(value)
    except AttributeError as error:
        raise _BadTargetError(str(error)) from None
    if not callable(value):
        raise _BadTargetError(f"{name} is not callable, but {value!r}")
    if inspect.iscoroutinefunction(value):
        raise _BadTargetError(f"{name} is a coroutine function; map calls plain functions")
    return cast("Callable[[str], object]", value)


def _load_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise _BadTargetError(str(error)) from None
        raise _import_failed(error) from None
    except (Exception, SystemExit) as error:
        raise _import_failed(error) from None


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise _BadTargetError(f"there is no file {str(path)!r}")
    sys.path.insert(0, str(path.parent.resolve()))
    # Under its own name, unless that would take the place of a module others have imported.
    name = path.stem if path.stem not in sys.modules else f"_futurepool_target_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:  # pragma: no cover - a .py file has a loader
        raise _BadTargetError(f"{str(path)!r} cannot be loaded")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise _import_failed(error) from None
    return module


def _import_failed(error: BaseException) -> _BadTargetError:
    frames = error.__traceback__
    # Whatever imports it (importlib, and the hooks of others) comes before the module's own frame.
    while frames is not None and frames.tb_frame.f_code.co_name != "<module>":
        frames = frames.tb_next
    text = "".join(traceback.format_exception(type(error), error, frames))
    return _BadTargetError(f"importing it failed\n{text.rstrip()}")


# -- what a worker runs ----------------------------------------------------------------------------


def _as_text(fn: Callable[[str], object], item: str) -> str:
    return str(fn(item))


def _as_json(fn: Callable[[str], object], item: str) -> str:
    result = fn(item)
    try:
        return json.dumps({"item": item, "result": result}, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"the result cannot be written as JSON: {error}") from None


# -- input and output ------------------------------------------------------------------------------


def _lines(stdin: TextIO | None) -> Iterator[str]:
    """The lines of standard input, each as soon as it is there."""
    if stdin is None:
        raise OSError(errno.EBADF, "it is closed")
    fd = _descriptor(stdin)
    if fd is None or (sys.platform == "win32" and stdin.isatty()):
        for line in stdin:
            yield line.removesuffix("\n")
        return
    encoding = stdin.encoding
    cr = b"\r" if os.linesep == "\r\n" else b""
    parts: list[bytes] = []  # of a line whose end is not there yet
    while chunk := os.read(fd, 1 << 16):
        first, *lines = chunk.split(b"\n")
        parts.append(first)
        if lines:
            lines.insert(0, b"".join(parts))
            parts = [lines.pop()]
        for raw in lines:
            yield raw.removesuffix(cr).decode(encoding, "surrogateescape")
    last = b"".join(parts)
    if last:
        yield last.decode(encoding, "surrogateescape")


def _descriptor(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except (AttributeError, OSError, ValueError):
        return None


def _encode_anything(error: UnicodeError) -> tuple[str | bytes, int]:
    """Write bytes that were no text as they were read, and escape what the encoding lacks."""
    if not isinstance(error, UnicodeEncodeError):  # pragma: no cover - for output only
        raise error
    text = error.object[error.start : error.end]
    try:
        return text.encode("ascii", "surrogateescape"), error.end
    except UnicodeEncodeError:
        return text.encode("ascii", "backslashreplace"), error.end


codecs.register_error("futurepool", _encode_anything)


def _is_closed_pipe(error: OSError) -> bool:
    # Windows reports a pipe without a reader as an invalid argument.
    return isinstance(error, BrokenPipeError) or (
        sys.platform == "win32" and error.errno == errno.EINVAL
    )


def _discard(stream: TextIO) -> None:
    """Send what is still buffered nowhere, so that the interpreter ends without a complaint."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


class _Screen:
    """Where lines and messages go: the two streams, or past the progress bar."""

    def __init__(self, display: Display | None) -> None:
        self._stdout = sys.stdout
        self._stderr = sys.stderr
        if hasattr(self._stdout, "reconfigure"):
            cast("Any", self._stdout).reconfigure(errors="futurepool")
        self._display = display
        # A terminal that shows both must not have lines written into the bar.
        self._shared = display is not None and display.live and self._stdout.isatty()

    def line(self, text: str) -> None:
        if self._shared:
            cast("Display", self._display).print(text)
        else:
            self._stdout.write(f"{text}\n")

    def flush(self) -> None:
        self._stdout.flush()

    def complain(self, text: str) -> None:
        if self._display is not None and self._display.live:
            self._display.print(text)
        elif self._stderr is not cast(object, None):
            try:
                self._stderr.write(f"{text}\n")
                self._stderr.flush()
            except OSError:
                _discard(self._stderr)


# -- map -------------------------------------------------------------------------------------------


class _Done(NamedTuple):
    """A task that is finished."""

    number: int
    item: str
    future: Future[str]


class _End(NamedTuple):
    """The reader has ended."""

    total: int
    error: Exception | None


class _Mapping:
    """One run of `map`."""

    def __init__(self, args: argparse.Namespace, fn: Callable[[str], object]) -> None:
        self.token = CancelToken()
        self.pool = BoundedExecutor(
            args.workers,
            "map",
            queue_size=args.queue_size,
            shutdown_timeout=0.0,  # what `close` gave up is not waited for again
            enable_metrics=not args.quiet,
            error_handler=_ignore,  # the main thread looks at all it wants to know of
        )
        self._args = args
        self._call = partial(_as_json if args.json else _as_text, fn)
        self._finished: queue.SimpleQueue[_Done | _End] = queue.SimpleQueue()
        self._tickets: queue.SimpleQueue[None] = queue.SimpleQueue()
        workers = self.pool.stats().max_workers
        for _ in range(workers + max(args.queue_size, workers)):
            self._tickets.put(None)

    def read(self, items: Iterable[str]) -> None:
        """The reader: submit each item. Runs in a thread of its own."""
        target = self._args.target
        options, token, call = self.pool.options, self.token, self._call
        count, failure = 0, None
        try:
            for item in items:
                self._tickets.get()
                if token.cancelled:
                    break
                short = item if len(item) <= 80 else f"{item[:77]}..."
                future = options(token=token, name=f"{target} {short!r}").submit(call, item)
                future.add_done_callback(partial(self._on_done, count, item))
                count += 1
        except PoolClosedError:
            pass
        except Exception as error:
            failure = error
        finally:
            self._finished.put(_End(count, failure))

    def _on_done(self, index: int, item: str, future: Any) -> None:
        self._finished.put(_Done(index, item, future))

    def _next(self, screen: _Screen) -> _Done | _End:
        try:
            return self._finished.get_nowait()
        except queue.Empty:
            screen.flush()  # nothing comes at once: show what there is
        while True:
            try:
                return self._finished.get(timeout=_POLL)
            except queue.Empty:  # noqa: PERF203
                continue

    def print_results(self, screen: _Screen) -> int:
        """The main thread: print results until the last or, with `stop`, the first failure."""
        ordered, skip = not self._args.unordered, self._args.on_error == "skip"
        status = 0
        count: int | None = None  # of all items, once known
        taken = printed = 0
        early: dict[int, str | None] = {}  # lines whose turn has not come
        last: int | None = None  # the item to end at
        while count is None or taken < count:
            done = self._next(screen)
            if isinstance(done, _End):
                count = done.total
                if done.error is not None:
                    screen.complain(f"futurepool: cannot read standard input: {done.error}")
                    status = 1
                continue
            taken += 1
            line, failed = self._outcome(done, screen)
            if failed:
                status = 1
                if not skip:
                    # Items before this one have started all, and may yet have something to print.
                    self.token.cancel("a task failed")
                    last = done.number if last is None else min(last, done.number)
            early[done.number if ordered else printed] = line
            while printed in early:
                line = early.pop(printed)
                if line is not None:
                    screen.line(line)
                self._tickets.put(None)
                if printed == last:
                    return status
                printed += 1
            if last is not None and not ordered:
                return status
        return status

    def _outcome(self, done: _Done, screen: _Screen) -> tuple[str | None, bool]:
        """The line to print, if any, and whether the task failed."""
        future = done.future
        if future.cancelled():
            return None, False
        error = future.exception()
        if error is None:
            return future.result(), False
        if self.token.cancelled and isinstance(error, CancelledError):
            return None, False  # it was told to end
        # The original's frames, and no note: the headline says which task it was.
        text = str(getattr(future.task_error, "traceback", ""))
        kind, said = type(error).__name__, _text_of(error)
        headline = f"task {future.task_id} ({future.name}) failed: {kind}"
        if said:
            headline = f"{headline}: {said}"
        screen.complain(f"futurepool: {headline}\n{text.rstrip()}")
        if not self._args.json:
            return None, True
        record = {"type": kind, "message": said, "traceback": text}
        return json.dumps({"item": done.item, "error": record}), True

    def run(self, display: Display | None) -> int | None:
        """Do it all; the exit status, or None if nobody reads the results any more."""
        items: Iterable[str] = self._args.items or _lines(sys.stdin)
        reader = threading.Thread(target=self.read, args=(items,), name="reader", daemon=True)
        screen = _Screen(display)
        try:
            reader.start()
            status = self.print_results(screen)
            screen.flush()
            self.close(_PATIENCE)
        except KeyboardInterrupt:
            self.close(_GRACE)
            return 130
        except OSError as error:
            _discard(sys.stdout)
            ended = self.close(_GRACE)
            if not _is_closed_pipe(error):
                screen.complain(f"futurepool: cannot write the results: {error}")
                return 1
            if not ended:
                # Nobody reads the results; what is left behind is not worth a word either.
                sys.stderr = cast("Any", None)
            return None
        return status

    def close(self, grace: float) -> bool:
        """Cancel what is left and wait for what runs; False if something runs on."""
        self.token.cancel("futurepool map ends")
        self._tickets.put(None)  # for the reader to see it
        try:
            self.pool.stop(grace)
        except ForcedShutdownError:
            return False
        return True


def _ignore(_error: object) -> None:
    pass


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return f"<unprintable {type(error).__name__} object>"


def _map(args: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    try:
        fn = _load(args.target)
    except _BadTargetError as error:
        parser.error(f"argument TARGET: {args.target!r}: {error}")
    if sys.stdout is cast(object, None):  # closed by the caller: compute, print nothing
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    if args.quiet:
        return _Mapping(args, fn).run(None) or 0
    try:
        from futurepool._cli.rich_ui import Display
    except ImportError:
        parser.error(_NO_RICH)
    mapping = _Mapping(args, fn)
    display = Display(mapping.pool.stats, len(args.items) or None)
    with display:
        status = mapping.run(display)
    if status is None:
        return 0
    try:
        display.summary()
    except (OSError, ValueError, SystemExit):  # rich exits when the pipe is closed
        _discard(sys.stderr)
    return status
