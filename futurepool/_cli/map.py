"""`python -m futurepool map`: the main thread, which puts results in order and is told of signals.

    the reader (a thread)   takes items in and adds them to the shared batch; `items`
    the drawers (a pool)    take items off it, and call the target; `work`, `remote`
    the main thread         prints, logs, draws the progress, decides when to end; this module

Signals only leave a note, so that nothing is ever interrupted in the middle: the main thread looks at the
notes whenever it has nothing else to do, and it never waits for longer than a tenth of a second.

At most `window` items are read and not settled (printed or reported): the jobs and the queue, or as
many as were asked for. While calls are so short that workers run out of items, it grows.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import itertools
import math
import os
import queue
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from operator import sub
from typing import Any

from futurepool._cli import child, items
from futurepool._cli.child import BadTargetError, Caller, Failure, Shape
from futurepool._cli.options import Limit
from futurepool._cli.progress import (
    Progress,
    State,
    duration,
    escape,
    number,
    rate,
    seconds,
    shorten,
)
from futurepool._cli.streams import Streams, WriteError, is_closed_pipe
from futurepool._cli.work import Crew, Drawer, Local, Outcome, Retries, Slice, get_within

__all__ = ["main"]

_GRACE = 1.0  # seconds for running calls to end when nobody waits for them any more
_PATIENCE = 30.0  # the same after a failed one, whose fellows may have something to finish
_SHOWN_AFTER = 0.5  # seconds, before which there is no progress line
_WINDOW = 1000
_MOST = 1 << 16  # items, that the window may grow to
_MOST_TEXT = 32 << 20  # characters that those may have
_BATCH = 5000  # results that are handled before anything else is looked at
_NAMED = 10  # calls that a message lists
_SWITCH = 0.0005  # seconds

stuck = False  # whether something was left running that nothing can end


def main(args: argparse.Namespace, parser: argparse.ArgumentParser) -> int:  # noqa: RET503
    """Do what the arguments say; the exit status."""
    if args.dry_run:
        return _dry_run(args, parser)
    reads = not args.items
    live = not args.quiet and Progress.possible()
    message = ""
    with _swift(), Streams(live, reads) as streams:
        try:
            fn = child.load(args.target)
        except BadTargetError as error:
            message = f"argument TARGET: {args.target!r}: {error}"
        else:
            mapping = _Mapping(args, fn, streams)
            message = mapping.open()
            if not message:
                return mapping.run()
    parser.error(message)  # which does not return


@contextlib.contextmanager
def _swift() -> Generator[None, None, None]:
    """Have threads pass the interpreter's lock on sooner.

    Each block that is read or written costs whoever does so the lock, and, while a target computes, so
    many seconds until he has it back.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(min(before, _SWITCH))
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def _shape(args: argparse.Namespace) -> Shape:
    return Shape(args.json_input, args.colsep)


class _Mapping:
    """One run of `map`."""

    def __init__(self, args: argparse.Namespace, fn: Any, streams: Streams) -> None:
        self._args = args
        self._streams = streams
        self._quiet: bool = args.quiet
        self._ordered = not args.unordered
        self._shape = _shape(args)
        self._limit: Limit | None = args.max_failures
        if self._limit is None and args.on_error != "skip":
            self._limit = Limit(1, None)
        if args.engine == "threads":
            caller = Caller(fn, self._shape, args.json)

            def make(crew: Crew, number: int) -> Drawer:
                return Local(crew, number, caller)
        else:
            make = self._elsewhere
        self._crew = Crew(
            args.jobs,
            make=make,
            adaptive=args.engine == "threads",
            chunksize=args.chunksize,
            timeout=args.timeout,
            rate=args.rate,
            retries=None if args.retries is None else Retries(*args.retries),
            allowed=None if self._limit is None else self._limit.number,
            verbose=args.verbose or args.json,
            note=self._note if args.verbose else lambda _: None,
        )
        # What the reader tells: how much there was, and, last, that it has ended.
        self._read = 0
        self._ended = False
        self._at_end = False
        self._typed = False  # the items, on the terminal where the progress line would be drawn
        self._broken: Exception | None = None
        self._skipped = 0  # settled by an earlier run
        self._room: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._waits = False  # the reader, for room
        self._text = 0  # characters read
        jobs, size = args.jobs, args.queue_size
        self._window: int = jobs + (_WINDOW if size is None else max(size, jobs))
        self._grows = size is None
        # The main thread's.
        self._taken = self._failed = self._told = 0
        self._printed = 0  # or about to be
        self._settled = 0
        self._bytes = 0  # of results
        self._next = 0  # the item whose turn it is
        self._live: list[Slice] = []  # of which not all has been seen
        self._places: dict[int, Slice] = {}  # by the first place that has not been printed
        self._lines: list[str] = []  # to be printed
        self._batch: list[tuple[bytes | None, Outcome]] = []  # the same, to be logged as well
        self._due = 0  # items that are settled once those are written
        self._dressed: bool = args.json or args.tag
        self._plain = not self._dressed and args.log is None
        self._times: Counter[int] = Counter()  # seconds, in logarithmic buckets
        self._longest: tuple[float, str] = (0.0, "")
        self._total: int | None = len(args.items) or None
        self._stopped = False
        self._signals: list[int] = []
        self._status: int = 0
        self._last = 0.0
        self._drawn = self._counted = self._looked = 0.0
        self._log: Any = None
        self._trace: Any = None
        self._output: Any = None

    def _elsewhere(self, crew: Crew, number: int) -> Drawer:
        args = self._args
        from futurepool._cli.remote import InInterpreter, InProcess, Setup

        kind = InProcess if args.engine == "processes" else InInterpreter
        return kind(crew, number, Setup(args.target, self._shape, args.json))

    def open(self) -> str:
        """Open the log and the trace; what is wrong with them."""
        args = self._args
        if args.log is not None:
            from futurepool._cli.journal import Log

            try:
                self._log = Log(
                    args.log,
                    items.key_of(args.json_input),
                    resume=args.resume or args.resume_failed,
                    failed=args.resume_failed,
                    as_json=args.json_input,
                )
            except (OSError, ValueError) as error:
                return f"argument --log: {error}"
        if args.trace is not None:
            from futurepool._cli.journal import Trace

            try:
                self._trace = Trace(args.trace, args.engine.removesuffix("s"))
            except OSError as error:
                return f"argument --trace: {error}"
        return ""

    # -- the reader --------------------------------------------------------------------------------

    def _source(self) -> Iterator[list[str]]:
        if self._args.items:
            return iter([self._args.items])
        streams = self._streams
        return items.split(streams.stdin, streams.stdin_fd, self._args.null)

    def read(self) -> None:
        """Add each item to the batch. Runs in a thread of its own."""
        crew, settled = self._crew, None if self._log is None else self._log.settled
        resumes = self._args.resume or self._args.resume_failed
        try:
            for chunk in self._source():
                at = 0
                while at < len(chunk):
                    room = self._wait_for_room()
                    if not room:
                        return
                    part = chunk[at : at + room]
                    at += len(part)
                    index = self._read
                    self._text += sum(map(len, part))
                    if resumes and settled is not None:
                        new: list[str] = []
                        for item in part:
                            if settled(index + len(new), item):
                                self._skipped += 1
                            else:
                                new.append(item)
                        part = new
                    self._read += len(part)
                    if part and not crew.add(index, part):
                        return
            self._at_end = True
        except Exception as error:
            self._broken = error
        finally:
            self._ended = True
            crew.rouse()

    def _wait_for_room(self) -> int:
        """How many items may be read now; 0 once no more are wanted."""
        while not self._crew.closing:
            room = self._window - (self._read - self._settled)
            if room > 0:
                return room
            self._waits = True
            with contextlib.suppress(queue.Empty):
                get_within(self._room, 0.05)
            self._waits = False
        return 0

    def _may_grow(self) -> bool:
        """Whether workers will have nothing to do unless more is read, and there is memory."""
        size = self._text / max(self._read, 1) + self._bytes / max(self._settled, 1)
        return (
            self._grows
            and self._crew.waiting * 4 < self._window < _MOST
            and (self._taken - self._printed) * 2 < self._window
            and self._window * size < _MOST_TEXT
        )

    def _give_room(self) -> None:
        if not self._waits:
            return
        if self._may_grow():
            self._window = min(self._window * 4, _MOST)
        if not self._grows or (self._read - self._settled) * 4 <= self._window * 3:
            self._room.put(None)

    # -- results -----------------------------------------------------------------------------------

    def _take(self) -> int:
        """Handle the results that are there; how many that were."""
        live, pop, before, places = (
            self._live,
            self._crew.results.popleft,
            self._taken,
            self._places,
        )
        room = _BATCH
        try:
            while room > 0:
                piece = pop()
                live.append(piece)
                room -= len(piece.times)
                if self._ordered:
                    places[piece.base] = piece
        except IndexError:
            pass
        if not self._ordered:  # one that took long comes after those that it has outlasted
            live.sort(key=lambda piece: piece.times[-1] if piece.times else math.inf)
        for piece in live:
            number = piece.ended()
            if number > piece.seen:
                self._see(piece, number)
                if not self._ordered:
                    self._pass_on(piece)
        self._live = [piece for piece in live if piece.seen < piece.size]
        if self._ordered:
            place = self._next
            while (first := places.get(place)) is not None and first.printed < first.seen:
                del places[place]
                place = self._pass_on(first)
                if first.printed < first.size:
                    places[place] = first
                    break
            self._next = place
        return self._taken - before

    def _see(self, piece: Slice, number: int) -> None:
        """Count what has become of a slice, up to an item, and say which have failed."""
        first, times = piece.seen, piece.times
        piece.seen = number
        begun = [times[first - 1] if first else piece.began, *times[first:number]]
        spent = list(map(sub, begun[1:], begun))
        longest = max(spent)
        if longest > self._longest[0]:
            self._longest = (longest, piece.items[first + spent.index(longest)])
        if piece.failures:
            texts = piece.texts
            spent = [each for at, each in enumerate(spent, first) if texts[at] is not None]
            for index in range(first, number):
                if texts[index] is None:
                    self._no_result(piece.items[index], piece.failures.get(index))
        if self._taken >= 1000:
            spent = spent[self._taken % 16 :: 16]  # so many samples will do
        for each in spent:
            mantissa, exponent = math.frexp(each)  # mantissa: 0.5 to 1
            self._times[exponent * 16 + int(mantissa * 32) - 16] += 1
        if self._trace is not None:
            for index in range(first, number):
                self._trace.add(piece.outcome(index, self._crew.epoch))
        self._taken += number - first

    def _pass_on(self, piece: Slice) -> int:
        """Add what has been seen of a slice to what is to be written; the place after that."""
        first, end = piece.printed, piece.seen
        piece.printed = end
        texts = piece.texts[first:end]
        if self._plain and not piece.failures:
            self._lines += texts  # type: ignore[arg-type]
        else:
            for index, text in enumerate(texts, first):
                item = piece.items[index]
                line = text
                if text is None:
                    line = self._error_line(item, piece.failures.get(index))
                elif self._dressed:
                    line = self._dress(item, text)
                if self._output is not None:
                    self._put(line, piece.outcome(index, self._crew.epoch))
                elif line is not None:
                    self._lines.append(line)
        self._printed += end - first
        self._due += end - first
        return piece.base + end

    def _put(self, line: str | None, outcome: Outcome) -> None:
        """Add a line, or none, with what the log is to say; who was told to end is not logged."""
        if outcome.text is not None or outcome.failure is not None:
            encoded = None if line is None else self._streams.encode(f"{line}\n")
            self._batch.append((encoded, outcome))

    def _dress(self, item: str, text: str) -> str:
        """The line for a result that is not to stand alone."""
        if self._args.json:
            return f'{{"item": {self._json_item(item)}, "result": {text}}}'
        tag = item.replace("\n", " ")
        return "\n".join(f"{tag}\t{line}" for line in text.split("\n"))

    def _json_item(self, item: str) -> str:
        import json

        if self._shape.columns is not None:
            return json.dumps(item.split(self._shape.columns))
        return items.to_json(item) if self._shape.json else json.dumps(item)

    def _no_result(self, item: str, failure: Failure | None) -> None:
        if failure is None:
            self._told += 1
            return
        self._failed += 1
        self._status = self._status or 1
        if not self._quiet:
            message = f"{failure.type}: {failure.message}" if failure.message else failure.type
            where = f" ({failure.where})" if failure.where else ""
            text = f"{_show(item)} failed: {escape(message)}{where}"
            if self._args.verbose and failure.traceback:
                text += f"\n{failure.traceback.rstrip()}"
            self._say(text)

    def _error_line(self, item: str, failure: Failure | None) -> str | None:
        if failure is None or not self._args.json:
            return None
        import json

        record = {
            "type": failure.type,
            "message": failure.message,
            "traceback": failure.traceback,
        }
        return f'{{"item": {self._json_item(item)}, "error": {json.dumps(record)}}}'

    def _print(self) -> None:
        """Write what has come to its turn."""
        if self._batch:
            from futurepool._cli.journal import Entry

            entries = [Entry(*entry) for entry in self._batch]
            self._bytes += sum(len(entry.line or b"") for entry in entries)
            self._output.write(entries)
            self._batch.clear()
        if self._lines:
            data = self._streams.encode("\n".join(self._lines) + "\n")
            self._bytes += len(data)
            self._streams.write(data, self._may_wait)
            self._lines.clear()
        self._settled += self._due
        self._due = 0
        self._give_room()

    def _patient(self) -> bool:
        """Everything is written, but not read: whether to go on waiting."""
        now = time.perf_counter()
        self._draw(now, "waiting for the reader of the results")
        return not self._signals or now - self._last < 1

    def _may_wait(self) -> bool:
        """Nobody takes the results: whether to go on waiting."""
        now = time.perf_counter()
        self._draw(now)
        if not self._signals:
            self._last = now
            self._crew.tend(now, self._taken)
            return True
        return len(self._signals) < 2 and now - self._last < 10

    # -- messages ----------------------------------------------------------------------------------

    def _say(self, text: str) -> None:
        self._streams.say(f"futurepool: {text}")

    def _note(self, text: str) -> None:
        self._say(escape(text))

    def _draw(self, now: float, note: str = "") -> None:
        if not self._streams.live or now - self._began < _SHOWN_AFTER or now - self._drawn < 0.1:
            return
        self._drawn = now
        # What somebody is typing is not to be wiped.
        if (self._typed and not self._ended) or not self._streams.in_foreground():
            return
        total = None if self._total is None else max(self._total - self._skipped, self._taken)
        state = State(
            self._taken,
            self._failed,
            total,
            self._crew.running(),
            now - max(self._last, self._began),
            note,
        )
        line = self._progress.line(now, state, self._streams.width())
        self._streams.show(line)

    # -- the main thread ---------------------------------------------------------------------------

    def run(self) -> int:
        """Do it all; the exit status."""
        self._began = self._last = time.perf_counter()
        self._progress = Progress(self._began)
        if self._log is not None:
            from futurepool._cli.journal import Output

            self._output = Output(self._streams, self._log, self._may_wait)
        complete = False
        with self._listening():
            try:
                self._work()
                complete = True
            except WriteError as error:
                self._cannot_write(error)
                complete = is_closed_pipe(error)
            except OSError as error:
                self._cannot_log(error)
            if self._log is not None:
                self._log.close(complete)
            if self._trace is not None:
                self._trace.close()
                if self._trace.error is not None:
                    self._say(f"cannot write the trace: {self._trace.error}")
                    self._status = self._status or 1
        if self._signals:
            return 128 + self._signals[0]
        return self._status

    def _work(self) -> None:
        fd = self._streams.stdin_fd
        at = None if self._args.items else items.start_of(fd)
        self._start(fd, at)
        reason = ""
        while not (reason or (self._ended and self._taken == self._read)):
            reason = self._turn()
        if not reason:
            self._take()
        if self._broken is not None:
            self._say(f"cannot read standard input: {self._broken}")
            self._status = 1
        abandoned = self._close(reason) if reason else self._finish()
        if reason and fd is not None and at is not None and self._total is None:
            until = time.perf_counter() + _GRACE
            self._count(fd, at, lambda: time.perf_counter() > until)
        self._print_rest()
        if self._log is not None:
            self._log.wait_for_reader(self._streams, self._patient)
        self._streams.show("")
        if not self._quiet or (reason and self._signals):
            self._summary(abandoned)

    def _start(self, fd: int | None, at: int | None) -> None:
        """Have the items read; on a terminal say where they come from, or count them ahead."""
        threading.Thread(target=self.read, name="reader", daemon=True).start()
        if fd is None or not self._streams.live:
            return
        if os.isatty(fd):
            self._typed = True
            keys = "Ctrl-Z and Enter end" if sys.platform == "win32" else "Ctrl-D ends"
            self._say(f"the items are what you type, one a line; {keys} them")
        if at is not None:
            counting = (fd, at, lambda: self._crew.closing)
            threading.Thread(target=self._count, args=counting, name="counter", daemon=True).start()

    def _turn(self) -> str:
        """Take what the workers have done, and see to what is due; why it is to end now, if it is."""
        crew = self._crew
        if taken := self._take():
            self._print()
        now = time.perf_counter()
        if taken:
            self._last = now
        reason = self._reason()
        if reason:
            return reason
        crew.tend(now, self._taken)
        self._draw(now)
        if self._trace is not None and now - self._counted > 0.1:
            self._counted = now
            self._trace.counter(crew.epoch + now, len(crew.active), crew.waiting)
        if now - self._looked > 0.25:
            self._looked = now
            if self._streams.gone():
                raise WriteError(errno.EPIPE, "")
        if taken > 1 and not (self._waits and crew.waiting * 4 < self._window):
            time.sleep(0.01)  # several at a time cost less
        elif not taken:
            crew.sleep(0.005 if crew.nimble else 0.1)
        return ""

    def _reason(self) -> str:
        """Why it is to end before everything is done."""
        if self._signals:
            return "interrupted"
        if self._crew.trouble is not None:
            self._say(f"cannot go on: {self._crew.trouble}")
            self._status = 1
            return "a worker cannot be started"
        if (
            self._limit is not None
            and self._failed
            and self._limit.reached(self._failed, self._taken)
        ):
            return "a task failed"
        if self._crew.stuck():
            self._say("every worker is at a call that ignores its time limit")
            self._status = 1
            return "workers are stuck"
        return ""

    def _close(self, reason: str) -> list[tuple[float, str]]:
        """Start nothing more, wait a while for what runs; what was abandoned."""
        crew = self._crew
        self._stopped = True
        crew.stop(reason)
        begun = time.perf_counter()
        while crew.active:
            if self._take():
                self._last = time.perf_counter()
                continue
            now = time.perf_counter()
            if len(self._signals) > 1 or now - begun > (_GRACE if self._signals else _PATIENCE):
                break
            crew.tend(now, self._taken)
            left = len(crew.running())
            self._draw(now, f"waiting for {left} running call{'s' * (left != 1)}")
            crew.sleep(0.05)
        return self._finish()

    def _finish(self) -> list[tuple[float, str]]:
        global stuck
        crew = self._crew
        abandoned = crew.running()
        self._room.put(None)
        if not crew.finish() or crew.written_off:
            stuck = True
        while self._take():
            pass
        return abandoned

    def _print_rest(self) -> None:
        """Write every result there is, in order, gaps left out."""
        for place in sorted(self._places):
            self._pass_on(self._places[place])
        self._print()

    def _cannot_write(self, error: WriteError) -> None:
        self._crew.stop("nobody reads the results")
        self._finish()
        if self._log is not None:
            self._log.take_back(self._streams.out)
        if is_closed_pipe(error):
            return
        self._say_lost("results", error, error.written)

    def _cannot_log(self, error: OSError) -> None:
        """Nothing more is written, either: what the log does not have a resume does again."""
        self._crew.stop("the log cannot be written")
        self._finish()
        self._say_lost("log", error, self._output.written)

    def _say_lost(self, what: str, error: OSError, written: int) -> None:
        """Say how many are finished and not out; of those that were about to be so many bytes are."""
        lines = [line for line, _ in self._batch if line is not None]
        lines += [self._streams.encode(f"{line}\n") for line in self._lines]
        ends = itertools.accumulate([len(line) for line in lines])
        lost = sum(end > written for end in ends) + self._taken - self._printed
        self._say(f"cannot write the {what}: {error}; {number(lost)} finished but not written")
        self._status = 1

    def _count(self, fd: int, at: int, stopped: Callable[[], bool]) -> None:
        total = items.count(fd, at, self._args.null, stopped)
        if total is not None:
            self._total = total

    # -- signals -----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _listening(self) -> Generator[None, None, None]:
        """Note signals that are to end it; leave alone what somebody else has set, or ignores."""
        old: dict[int, Any] = {}
        wanted = {"SIGINT": self._on_signal, "SIGTERM": self._on_signal, "SIGHUP": self._on_signal}
        if self._streams.live:
            wanted["SIGTSTP"] = self._on_suspend
        try:
            for name, handler in wanted.items():
                number = getattr(signal, name, None)
                if number is None:
                    continue
                before = signal.getsignal(number)
                if before in (signal.SIG_DFL, signal.default_int_handler):
                    old[number] = before
                    signal.signal(number, handler)
        except ValueError:
            pass  # not the main thread, where signals do not arrive
        try:
            yield
        finally:
            for number, before in old.items():
                signal.signal(number, before)

    def _on_signal(self, number: int, _frame: object) -> None:
        self._signals.append(number)
        self._crew.rouse()
        if len(self._signals) > 3:
            os._exit(128 + number)  # whatever holds it up

    def _on_suspend(self, number: int, _frame: object) -> None:
        self._streams.wipe()
        handler = signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        signal.signal(number, handler)

    # -- the summary -------------------------------------------------------------------------------

    def _summary(self, abandoned: list[tuple[float, str]]) -> None:
        spent = max(time.perf_counter() - self._began, 1e-9)
        done = self._taken - self._failed - self._told
        parts = [f"{number(done)} done"]
        if self._failed:
            parts.append(f"{number(self._failed)} failed")
        if self._told:
            parts.append(f"{number(self._told)} cancelled")
        if abandoned:
            parts.append(f"{number(len(abandoned))} abandoned")
        if self._crew.written_off:
            parts.append(f"{number(len(self._crew.written_off))} still running after their time")
        if self._stopped:
            parts.append(self._left(len(abandoned)))
        if self._skipped:
            parts.append(f"{number(self._skipped)} settled before")
        if not self._quiet:
            parts.append(f"{seconds(spent)}, {rate(self._taken / spent)}")
        self._say(", ".join(parts))
        if self._log is not None and self._log.skipped_failed and not self._quiet:
            self._say(
                f"{number(self._log.skipped_failed)} of those had failed; "
                "--resume-failed calls them again"
            )
        if done and not self._quiet:
            p50, p99 = (min(self._percentile(share), self._longest[0]) for share in (0.5, 0.99))
            self._say(
                f"a call took {seconds(p50)} (p50), {seconds(p99)} (p99), at most "
                f"{seconds(self._longest[0])} ({_show(self._longest[1], 40)}); "
                f"{self._args.jobs} {'worker' if self._args.jobs == 1 else 'workers'}"
            )
        for age, item in abandoned[:_NAMED]:
            self._say(f"abandoned after {duration(age)}: {_show(item)}")
        if len(abandoned) > _NAMED:
            self._say(f"and {len(abandoned) - _NAMED} more")

    def _left(self, abandoned: int) -> str:
        started = self._taken + abandoned
        if self._total is not None:
            left = self._total - self._skipped - started
            return f"{number(max(left, 0))} not started"
        rest = "" if self._at_end else " of those that were read"
        return f"{number(self._read - started)} not started{rest}"

    def _percentile(self, share: float) -> float:
        wanted, seen = share * self._times.total(), 0
        for bucket in sorted(self._times):
            seen += self._times[bucket]
            if seen >= wanted:
                exponent, step = divmod(bucket, 16)
                return math.ldexp((step + 16.5) / 32, exponent)
        return 0.0


def _show(item: str, width: int = 80) -> str:
    return repr(item) if len(item) <= width else f"{shorten(item, width)!r}"


def _dry_run(args: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Print the calls, as Python has them."""
    try:
        child.load(args.target)
    except BadTargetError as error:
        parser.error(f"argument TARGET: {args.target!r}: {error}")
    log: Any = None
    if args.log is not None and (args.resume or args.resume_failed):
        from futurepool._cli.journal import Log

        try:
            log = Log(
                args.log,
                items.key_of(args.json_input),
                resume=True,
                failed=args.resume_failed,
                as_json=args.json_input,
            )
        except (OSError, ValueError) as error:
            parser.error(f"argument --log: {error}")
    shape, name = _shape(args), args.target.rpartition(":")[2]
    with Streams(False, not args.items) as streams:
        source: Any = [args.items]
        if not args.items:
            source = items.split(streams.stdin, streams.stdin_fd, args.null)
        try:
            for chunk in source:
                lines: list[bytes] = []
                for item in chunk:
                    if log is not None and log.settled(0, item):
                        continue
                    try:
                        words = ", ".join(map(repr, shape.arguments(item)))
                    except ValueError as error:
                        words = f"<{error}>"
                    lines.append(streams.encode(f"{name}({words})\n"))
                if lines:
                    streams.write(b"".join(lines), lambda: True)
        except WriteError as error:
            if not is_closed_pipe(error):
                streams.say(f"futurepool: cannot write the calls: {error}")
                return 1
        except OSError as error:
            streams.say(f"futurepool: cannot read standard input: {error}")
            return 1
        finally:
            if log is not None:
                log.close(False)
    return 0
