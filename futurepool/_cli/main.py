"""The command line: `python -m futurepool`, and the script `futurepool`.

Finds the subcommand, and turns whatever ends it into an exit status. What a subcommand needs is
imported when it is asked for.
"""

from __future__ import annotations

import gc
import os
import sys

import futurepool
from futurepool._cli import options

# `--help` takes a third of the time without `typing`, `contextlib` and `signal`, and without the pool.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, TextIO

__all__ = ["main", "run"]


def run() -> None:
    """Be the command: `main`, and the end of the process."""
    # What is made until a subcommand begins are modules, which stay: the collector would only read them,
    # again and again, which is a sixth of the time that `map` takes for one item. See `_collect`.
    gc.disable()
    status = 130
    try:
        try:
            status = main()
        finally:
            _ignore_interrupts()  # or is interrupted itself, which is caught here as well
    except SystemExit as end:
        if end.code is not None and not isinstance(end.code, int):
            raise
        status = end.code or 0
    except KeyboardInterrupt:
        pass
    module: Any = sys.modules.get("futurepool._cli.map")
    if module is not None and module.stuck:
        # A call runs on that nothing can end; a process that waited for it would be stuck as well.
        for stream in (sys.stdout, sys.stderr):
            _flush_quietly(stream)
        os._exit(status)
    sys.exit(status)


def _ignore_interrupts() -> None:
    """All is done: there is nothing left to end."""
    signal: Any = sys.modules.get("signal")
    if signal is not None and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: The arguments; the default is `sys.argv[1:]`.

    Returns:
        The exit status: 0, 1 if a task failed or stdout cannot be written, 130 after Ctrl-C, 143
        after SIGTERM.

    Raises:
        SystemExit: With status 2, wrong usage, or with 0, after `--help` and `--version`.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        try:
            return _run(words)
        finally:
            _flush(sys.stdout)
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        from futurepool._cli.streams import is_closed_pipe

        _discard(sys.stdout)
        if isinstance(error, BrokenPipeError) or is_closed_pipe(error):
            return 0
        try:
            _say(f"futurepool: cannot write to stdout: {error}", sys.stderr)
        except OSError:
            pass
        return 1


def _run(words: list[str]) -> int:
    # What follows `--` is an item even if it looks like an option.
    cut = words.index("--") if "--" in words else len(words)
    words, literal = words[:cut], words[cut + 1 :]
    words = ["--null" if word == "-0" else word for word in words]
    name = _name()
    parser = options.Parser(name, description="Thread pools from the command line.")
    parser.add_argument("--version", action="version", version=f"futurepool {_version()}")
    # Without a name argparse would format the usage to find one.
    commands = parser.add_subparsers(metavar="COMMAND", required=True, prog=name)
    mapper = commands.add_parser("map", help="call a function with each item", allow_abbrev=False)
    mapper.set_defaults(main=None)
    if "map" in words:
        options.add_map(mapper)
    bench = commands.add_parser(
        "bench", help="measure this machine", allow_abbrev=False, add_help=words[:1] == ["bench"]
    )
    if words[:1] == ["bench"]:
        from futurepool._cli import bench as module

        module.add_arguments(bench)
        bench.set_defaults(main=module.main)
    top = commands.add_parser(
        "top", help="look at a running process", allow_abbrev=False, add_help=words[:1] == ["top"]
    )
    if words[:1] == ["top"]:
        from futurepool._cli import top as module_of_top

        module_of_top.add_arguments(top)
        top.set_defaults(main=module_of_top.main)
    # argparse ends the list of ITEMs at the first option; what comes after it is left over.
    args, more = parser.parse_known_args(words)
    if args.main is not None:
        if more or literal:
            parser.error(f"unrecognized arguments: {' '.join(more + literal)}")
        _collect()
        status: int = args.main(args)
        return status
    unknown = [word for word in more if word[:1] == "-" and not _is_item(word)]
    if unknown:
        mapper.error(f"unrecognized arguments: {' '.join(unknown)}")
    args.items = args.items + more + literal
    options.check(args, mapper)
    from futurepool._cli import map as module_of_map

    _collect()
    return module_of_map.main(args, mapper)


def _collect() -> None:
    """Let the collector work from here on, on what is made from here on, the target's module included."""
    if not gc.isenabled():  # or we are a part of another program
        gc.freeze()
        gc.enable()


def _name() -> str:
    """What the command is called by: as the script, or as a module."""
    script = os.path.basename(sys.argv[0])  # noqa: PTH119
    return "futurepool" if script.partition(".")[0] == "futurepool" else "python -m futurepool"


def _version() -> str:
    return futurepool.__version__


def _is_item(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return word == "-"
    return True


def _discard(stream: TextIO) -> None:
    """Send what is still buffered nowhere, so that the interpreter ends without a complaint."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
    except (OSError, ValueError):
        pass


def _flush_quietly(stream: TextIO | None) -> None:
    try:
        _flush(stream)
    except (OSError, ValueError):
        pass


def _flush(stream: TextIO | None) -> None:
    if stream is not None:
        stream.flush()


def _say(text: str, stream: TextIO | None) -> None:
    if stream is not None:
        print(text, file=stream, flush=True)
