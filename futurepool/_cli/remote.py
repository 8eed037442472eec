"""Drawers that have the target called elsewhere: in a process of their own, or in an interpreter.

Each is a thread of the pool with one worker behind it, kept for the whole run. So an item has one
owner at any time, a worker that dies fails the one item it was at, and is replaced, and one that takes
too long can be killed.

To keep a worker busy while its results travel, it is sent a little more than it is at: items for about
eight milliseconds, none if they are long. When others have nothing to do, `recall` asks for those back.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

from futurepool._cli import child as protocol
from futurepool._cli.child import BACK, END, GONE, RUN, Failure, Shape, Unpacker, pack, write_all
from futurepool._cli.work import Crew, Drawer

__all__ = ["InInterpreter", "InProcess", "Setup"]

_AHEAD = 0.008  # seconds of work that a worker has in stock
_NAP = 0.006  # seconds between two looks at what a worker has done, at most
_LONG = 0.02  # seconds; calls that are longer are sent one by one
_MOST = 256  # items in stock
_STALL = 0.03  # seconds at one item, after which others get what waits behind it


class Setup:
    """What a worker is to call, and how."""

    def __init__(self, target: str, shape: Shape, as_json: bool) -> None:
        where = target.rpartition(":")[0]
        if where.endswith(".py"):  # wherever the worker is
            target = f"{Path(where).resolve()}{target[len(where) :]}"
        self.message = {
            "path": list(sys.path),
            "argv": list(sys.argv),
            "target": target,
            "shape": tuple(shape),
            "json": as_json,
        }


def _flags() -> list[str]:
    """The interpreter's options that a worker shall have, too."""
    flags = [f"-W{option}" for option in sys.warnoptions]
    for name, value in getattr(sys, "_xoptions", {}).items():
        flags.append(f"-X{name}" if value is True else f"-X{name}={value}")
    if sys.flags.optimize:
        flags.append("-" + "O" * sys.flags.optimize)
    if sys.flags.dont_write_bytecode:
        flags.append("-B")
    if sys.flags.ignore_environment:
        flags.append("-E")
    return flags


class Remote(Drawer):
    """Has somebody else call the target, over a pair of pipes."""

    def __init__(self, crew: Crew, number: int, setup: Setup) -> None:
        super().__init__(crew, number)
        self._setup = setup
        self._to: int | None = None  # where messages go; None while nobody is there
        self._sending = threading.Lock()  # a message at a time, and `_to` is not closed meanwhile
        self._messages: Unpacker | None = None
        self._stock: deque[tuple[int, str]] = deque()  # what the worker has; the first is running
        self._mean = 0.0  # seconds for an item, the latest counting most
        # (place, when it began) of the call that takes long, whose stock was asked for.
        self._recalled: tuple[object, ...] | None = None
        self._late = False
        self._ended = False
        self._call = crew.prepared(self, self._one)

    def _start(self) -> None:
        """Start the worker; sets `_to` and `_messages`."""
        raise NotImplementedError

    def _bury(self) -> Failure:
        """The worker has died: take it away, and say how."""
        raise NotImplementedError

    def _begin(self) -> None:
        self._late = False
        self._start()
        self._send(self._setup.message)
        try:
            # Its start is not part of the first call's time.
            self._messages.read()  # type: ignore[union-attr]
        except (EOFError, OSError):
            how = self._bury().message
            if not self._ended:
                raise RuntimeError(f"a worker cannot be started: {how}") from None

    def _send(self, message: object) -> None:
        with self._sending:
            self._write(message)

    def _write(self, message: object) -> None:
        if self._to is not None:
            with contextlib.suppress(OSError):  # it has died: the next read says so
                write_all(self._to, pack(message))

    def recall(self, now: float) -> None:
        crew, current = self.crew, self.current
        if current is None or len(self._stock) < 2 or not crew.auto:
            return
        late = crew.closing or now - current[2] > _STALL
        # Not if somebody is sending, who may have to wait for the worker.
        if late and self._recalled != current[::2] and self._sending.acquire(blocking=False):
            try:
                self._recalled = current[::2]
                self._write((BACK,))
            finally:
                self._sending.release()

    def _too_long(self) -> Failure:
        return Failure("TimeoutError", f"took longer than {self.crew.timeout or 0:g} s", "", "")

    # -- drawing -----------------------------------------------------------------------------------

    def run(self) -> None:
        crew = self.crew
        try:
            if crew.retries is not None or crew.limiter is not None:
                self._run_singly()
            else:
                self._run_ahead()
        except BaseException as error:
            # A process that cannot be started, say.
            crew.broken(self, error)

    def _run_ahead(self) -> None:
        """Have the child hold several items, so that it need not wait for the next one."""
        crew, stock = self.crew, self._stock
        while True:
            batch = self._draw()
            if not stock and not batch:
                if crew.leave(self):
                    return
                continue
            if self._to is None:
                self._begin()
                if self._ended:
                    crew.give_back(batch)
                    return
            if batch:
                if not stock:
                    self.current = (batch[0][0], batch[0][1], time.perf_counter())
                stock.extend(batch)
                self._send((RUN, *batch))
            if not self._listen():
                return

    def _draw(self) -> list[tuple[int, str]]:
        """As many items as there is room for in the child."""
        batch: list[tuple[int, str]] = []
        room = self._window() - len(self._stock)
        while len(batch) < room and (piece := self.crew.draw(None, room - len(batch))):
            batch.extend(enumerate(piece.items, piece.base))
        return batch

    def _listen(self) -> bool:
        """Wait for what the child says, or for its end; False if this worker was given up."""
        stock = self._stock
        if len(stock) > 1:
            # Hear of several at a time: to be woken for each holds up the workers, too.
            time.sleep(min(_NAP, 0.5 * self._mean * len(stock)))
        try:
            messages = self._messages.read()  # type: ignore[union-attr]
        except (EOFError, OSError):
            if self.gone:
                return False
            self._died()
            return True
        except Exception:
            if self.gone:  # what ended it came in the middle of a message
                return False
            raise
        if self.gone:
            return False
        for message in messages:
            self._heard(message)
        if stock:
            self.current = (*stock[0], time.perf_counter())
        else:
            self.current = None
        if self.crew.asleep:
            self.crew.rouse()
        return True

    def _window(self) -> int:
        crew = self.crew
        if not crew.auto:
            return 0 if self._stock else crew.chunksize
        if not self._mean or self._mean > _LONG:
            return 1
        share = 1 + crew.waiting // (2 * crew.jobs)
        return min(1 + int(_AHEAD / self._mean) + 1, _MOST, max(share, 1))

    def _heard(self, message: Any) -> None:
        crew, stock = self.crew, self._stock
        kind, index = message[:2]
        if kind == BACK:
            back = [stock.pop() for _ in index]
            back.reverse()
            crew.give_back(back)
            return
        _, item = stock.popleft()
        text, failure, start, seconds = message[2:]
        if failure is not None:
            crew.failed()
        self._mean = seconds if not self._mean else 0.8 * self._mean + 0.2 * seconds
        began = start - crew.epoch
        crew.report(
            index,
            item,
            text,
            None if failure is None else Failure(*failure),
            began,
            began + seconds,
            self.number,
        )

    def _died(self) -> None:
        crew, stock = self.crew, self._stock
        failure = self._bury()
        current, self.current = self.current, None
        if not stock:
            return
        index, item = stock.popleft()
        crew.give_back(stock)
        stock.clear()
        if self._ended:
            return  # we killed it; the item is among those that were abandoned
        crew.failed()
        began = time.perf_counter() if current is None else current[2]
        crew.report(index, item, None, failure, began, time.perf_counter(), self.number)
        if crew.asleep:
            crew.rouse()

    # -- one at a time, with retries or at a rate --------------------------------------------------

    def _run_singly(self) -> None:
        crew, clock = self.crew, time.perf_counter
        while True:
            piece = crew.draw(None, 1)
            if piece is None:
                if crew.leave(self):
                    return
                continue
            index, item = piece.base, piece.items[0]
            if crew.limiter is not None and not crew.limiter.wait(crew.token):
                crew.give_back([(index, item)])
                continue
            began = clock()
            self.current = (index, item, began)
            text, failure = None, None
            try:
                text = self._call(item)
            except _RemoteError as error:
                failure = error.failure
            if self._ended or not crew.claim(self):
                return
            if failure is not None:
                crew.failed()
            crew.report(index, item, text, failure, began, clock(), self.number)
            if crew.asleep:
                crew.rouse()

    def _one(self, item: str) -> str:
        current = self.current
        if current is not None:
            self.current = (current[0], item, time.perf_counter())
        if self._to is None:
            self.current = None
            self._begin()
            if current is not None:
                self.current = (current[0], item, time.perf_counter())
        self._send((RUN, (0, item)))
        try:
            while True:
                for message in self._messages.read():  # type: ignore[union-attr]
                    if message[0] == GONE:
                        raise _RemoteError(self._too_long())
                    if message[0] == RUN:
                        if message[3] is not None:
                            raise _RemoteError(Failure(*message[3]))
                        return str(message[2])
        except (EOFError, OSError):
            raise _RemoteError(self._bury()) from None


class _RemoteError(Exception):
    """A call that failed elsewhere."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class InProcess(Remote):
    """The worker is a process; it can be killed."""

    _process: subprocess.Popen[bytes] | None = None

    def _start(self) -> None:
        # The worker must not be interrupted by Ctrl-C before it has decided what that means.
        masked, old = hasattr(signal, "pthread_sigmask"), set[Any]()
        if masked:
            old = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process = process = subprocess.Popen(
                [sys.executable, *_flags(), protocol.__file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
            )
        finally:
            if masked:
                signal.pthread_sigmask(signal.SIG_SETMASK, old)
        assert process.stdin is not None
        assert process.stdout is not None
        self._to = process.stdin.fileno()
        self._messages = Unpacker(process.stdout.fileno())

    def expire(self, now: float) -> None:
        process = self._process
        if process is not None and not self._late:
            self._late = True
            process.kill()

    def end(self) -> None:
        self._ended = True
        process = self._process
        if process is not None:
            process.kill()

    def let_go(self) -> None:
        if (
            self._process is not None
        ):  # it was between two calls, and has not seen the end of the process
            self._bury()

    def close(self) -> None:
        if self._process is not None:
            self._send((END,))
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(2.0)  # what the target does at exit is done
            self._bury()

    def _bury(self) -> Failure:
        process = self._process
        assert process is not None
        if process.poll() is None:
            process.kill()
        with self._sending:
            self._process = self._messages = self._to = None
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        code = process.wait()
        if self._late:
            return self._too_long()
        how = f"exit status {code}"
        if code < 0:
            try:
                how = signal.Signals(-code).name
            except ValueError:
                how = f"signal {-code}"
        return Failure("ProcessDied", f"its process ended with {how}", "", "")


class InInterpreter(Remote):
    """The worker is an interpreter of its own, in a thread of its own; it cannot be killed."""

    _interpreter: Any = None
    _thread: threading.Thread | None = None
    _mine: tuple[int, int] = (-1, -1)  # our end of the pipe to read from, and the worker's

    def _start(self) -> None:
        interpreters: Any = importlib.import_module("concurrent.interpreters")
        source, self._to = os.pipe()
        self._mine = os.pipe()
        self._messages = Unpacker(self._mine[0])
        self._interpreter = interpreter = interpreters.create()
        code = (
            "import importlib.util, sys\n"
            f"spec = importlib.util.spec_from_file_location('_futurepool', {protocol.__file__!r})\n"
            "module = importlib.util.module_from_spec(spec)\n"
            "sys.modules['_futurepool'] = module\n"
            "spec.loader.exec_module(module)\n"
            f"module.serve({source}, {self._mine[1]})\n"
        )

        def serve() -> None:
            try:
                interpreter.exec(code)
            except Exception as error:
                sys.stderr.write(f"{error}\n")
            finally:
                os.close(source)
                os.close(self._mine[1])

        self._thread = threading.Thread(target=serve, name="interpreter", daemon=True)
        self._thread.start()

    def expire(self, now: float) -> None:
        """Somebody else goes on in its place."""
        crew = self.crew
        with crew.lock:
            current = self.current
            if self.gone or current is None or now - current[2] < (crew.timeout or 0.0):
                return
            self.gone = True
            self.current = None
            crew.active.remove(self)
            crew.written_off.append((self, current))
            stock = list(self._stock)[1:]
        write_all(self._mine[1], pack((GONE, 0)))
        crew.give_back(stock)
        crew.too_late(current, now, self.number)

    def end(self) -> None:
        self._ended = self.gone = True
        with contextlib.suppress(OSError):
            write_all(self._mine[1], pack((GONE, 0)))

    def close(self) -> None:
        if self._to is not None:
            self._send((END,))
            self._bury()

    def _bury(self) -> Failure:
        interpreter, thread = self._interpreter, self._thread
        with self._sending:
            to, self._to = self._to, None
        self._interpreter = self._thread = self._messages = None
        if thread is not None:
            thread.join(2.0)
        if to is not None:
            os.close(to)
        os.close(self._mine[0])
        with contextlib.suppress(Exception):
            interpreter.close()
        return Failure("InterpreterDied", "its interpreter has ended", "", "")
