"""The words of `map`: what they are, and what is wrong with those that are not."""

from __future__ import annotations

import argparse
import os
import sys

TYPE_CHECKING = False  # see `main`
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["Limit", "Parser", "add_map", "check", "cores"]

_FOR_EVER = float("inf")
_ENGINES = ("threads", "processes", "interpreters")
_NO_TENACITY = (
    "--retries needs tenacity, which is not installed: install the `cli` extra, "
    'in the checkout by `pip install ".[cli]"`'
)


class _Help(argparse.HelpFormatter):
    """As wide as the terminal; argparse imports four modules to find that out."""

    def __init__(self, prog: str, **more: Any) -> None:
        more.setdefault("width", _columns() - 2)
        super().__init__(prog, **more)


def _columns() -> int:
    """As `shutil.get_terminal_size` has it."""
    try:
        if (columns := int(os.environ["COLUMNS"])) > 0:
            return columns
    except (KeyError, ValueError):
        pass
    try:
        return os.get_terminal_size(sys.__stdout__.fileno()).columns or 80  # type: ignore[union-attr]
    except (AttributeError, OSError, ValueError):
        return 80


def _may_colour() -> bool:
    """Whether what argparse prints may be coloured: not where no terminal is and nobody insists.

    To find that out for itself, argparse of Python 3.14 and later imports what draws tracebacks.
    """
    if any(os.environ.get(name) for name in ("FORCE_COLOR", "PYTHON_COLORS")):
        return True
    try:
        return sys.stdout.isatty() or sys.stderr.isatty()
    except (AttributeError, OSError, ValueError):
        return False


class Parser(argparse.ArgumentParser):
    """A parser that starts fast."""

    def __init__(self, *args: Any, **more: Any) -> None:
        more.setdefault("formatter_class", _Help)
        if sys.version_info >= (3, 14):
            more.setdefault("color", _may_colour())
        super().__init__(*args, **more)


class Limit:
    """How many may fail: a number, or a share of those that are finished."""

    def __init__(self, number: int | None, percent: float | None) -> None:
        self.number = number
        self.percent = percent

    def reached(self, failed: int, done: int) -> bool:
        if self.number is not None:
            return failed >= self.number
        return failed >= 3 and failed * 100 >= (self.percent or 0) * done


def cores() -> int:
    """The cores this process may use."""
    count: Callable[[], int | None] = getattr(os, "process_cpu_count", os.cpu_count)
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return count() or 1


def _whole(minimum: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be a whole number, not {text!r}") from None
        if value < minimum:
            raise argparse.ArgumentTypeError(f"must be at least {minimum}, not {value}")
        return value

    return convert


def _positive(text: str, what: str = "a number above 0") -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < _FOR_EVER:
        raise argparse.ArgumentTypeError(f"must be {what}, not {text!r}")
    return value


def _jobs(text: str) -> int:
    if text.endswith("%"):
        share = _positive(text[:-1], "a share of the cores above 0%, as 200%")
        return max(1, round(cores() * share / 100))
    value = _whole(1)(text)
    return cores() + value if text.startswith("+") else value


def _chunksize(text: str) -> int | None:
    return None if text == "auto" else _whole(1)(text)


def _retries(text: str) -> tuple[int, float]:
    number, colon, pause = text.partition(":")
    try:
        return _whole(1)(number), _pause(pause) if colon else 1.0
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}; the form is N or N:SECONDS") from None


def _pause(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < _FOR_EVER:
        raise argparse.ArgumentTypeError(f"must be seconds, not {text!r}")
    return value


def _seconds(text: str) -> float:
    return _positive(text, "a number of seconds above 0")


def _rate(text: str) -> float:
    number, _, unit = text.partition("/")
    factors = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
    if unit not in factors:
        raise argparse.ArgumentTypeError(f"must be N/s, N/m or N/h, not {text!r}")
    return _positive(number, "N/s, N/m or N/h") / factors[unit]


def _limit(text: str) -> Limit:
    if text.endswith("%"):
        percent = _positive(text[:-1], "a number, or a share as 10%")
        if percent > 100:
            raise argparse.ArgumentTypeError(f"must be at most 100%, not {text}")
        return Limit(None, percent)
    return Limit(_whole(1)(text), None)


def _separator(text: str) -> str:
    text = text.replace("\\t", "\t").replace("\\0", "\0")
    if not text:
        raise argparse.ArgumentTypeError("must be at least one character")
    return text


def add_map(parser: argparse.ArgumentParser) -> None:
    """Add what `map` understands to its parser."""
    parser.usage = f"{parser.prog} [OPTION ...] TARGET [ITEM ...]"
    parser.description = (
        "Call the function TARGET with each ITEM, and print what it returns, as in: "
        f"ls *.csv | {parser.prog} work.py:convert --log log.jsonl"
    )
    parser.epilog = (
        "Exit status: 0; 1 if a call failed or something could not be read or written; 2 for wrong "
        "usage; 130 after Ctrl-C; 143 after SIGTERM."
    )
    add = parser.add_argument
    add("target", metavar="TARGET", help="`module:function` or `path/to/file.py:function`")
    add(
        "items",
        metavar="ITEM",
        nargs="*",
        default=[],
        help="a str for TARGET; the default is lines of stdin",
    )
    group = parser.add_argument_group("items")
    add = group.add_argument
    # `-0` is turned into this before: beside it argparse would take negative numbers for options.
    add("--null", action="store_true", help="(or -0) items on stdin end with a NUL character")
    add("--json-input", action="store_true", help="each item is a JSON value, and passed as such")
    add(
        "--colsep",
        metavar="SEP",
        type=_separator,
        help=r"columns of an item are arguments; \t: tab",
    )
    add("--dry-run", action="store_true", help="print what would be called")
    group = parser.add_argument_group("how they are worked at")
    add = group.add_argument
    add(
        *("-j", "--jobs"),
        metavar="N",
        type=_jobs,
        help="calls at a time: a number, a share of the cores (200%%), or more than them (+2); "
        "the default is the cores plus 4, at most 32, and for processes the cores",
    )
    add("--engine", choices=_ENGINES, default="threads", help="what calls TARGET (%(default)s)")
    add(
        *("-q", "--queue-size"),
        metavar="N",
        type=_whole(0),
        help="items that may wait, for a worker or for their turn to be printed (1000, and more "
        "while calls are short)",
    )
    add(
        "--chunksize",
        metavar="N",
        type=_chunksize,
        help="items that a worker takes at a time (auto: for about a millisecond of work)",
    )
    add("--rate", metavar="N/s", type=_rate, help="calls started a second (/m: a minute, /h)")
    add(
        "--retries",
        metavar="N[:SECONDS]",
        type=_retries,
        help="call again up to N times after a failure; pauses begin with SECONDS (1) and double",
    )
    add("--timeout", metavar="S", type=_seconds, help="a call that takes longer has failed")
    group = parser.add_argument_group("failures")
    add = group.add_argument
    add(
        "--on-error",
        choices=("stop", "skip"),
        help="after a failed call start no more (stop, the default) or go on (skip)",
    )
    add(
        "--max-failures",
        metavar="N|P%",
        type=_limit,
        help="go on until N calls, or P%% of those finished (and three), have failed",
    )
    group = parser.add_argument_group("results")
    add = group.add_argument
    add("--unordered", action="store_true", help="print results as they finish")
    add(
        "--json",
        action="store_true",
        help='print JSON lines: {"item": ..., "result": ...}, or "error" for a failed one',
    )
    add("--tag", action="store_true", help="print each result after its item and a tab")
    group = parser.add_argument_group("to go on later")
    add = group.add_argument
    add("--log", metavar="FILE", help="write a JSON line for each item that is settled")
    add("--resume", action="store_true", help="leave out what the log says is done or has failed")
    add("--resume-failed", action="store_true", help="leave out what the log says is done")
    group = parser.add_argument_group("what is said")
    add = group.add_argument
    add("--trace", metavar="FILE", help="write Chrome trace events, one for each call")
    add("--quiet", action="store_true", help="no progress line, no failures, no summary")
    add("-v", "--verbose", action="store_true", help="failures with tracebacks, and retries")


def check(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Refuse what does not go together, and fill in what depends on something else."""
    if (args.resume or args.resume_failed) and args.log is None:
        parser.error("--resume and --resume-failed need the --log they are to read")
    if args.max_failures is not None and args.on_error == "stop":
        parser.error("--on-error stop ends at the first failure; leave it out with --max-failures")
    if args.json_input and args.colsep is not None:
        parser.error("--json-input and --colsep exclude each other")
    if args.engine == "interpreters" and sys.version_info < (3, 14):
        parser.error("--engine interpreters needs Python 3.14 or above")
    if args.null and args.items:
        parser.error("-0 is about stdin, which is not read when there are ITEMs")
    if args.retries is not None:
        try:
            __import__("tenacity")
        except ImportError:
            parser.error(_NO_TENACITY)
    if args.jobs is None:
        args.jobs = min(32, cores() + 4) if args.engine == "threads" else cores()
