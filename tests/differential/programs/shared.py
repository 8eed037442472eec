"""What the programs share."""

from __future__ import annotations

import inspect
import logging
import subprocess
import sys
import textwrap
import threading
from contextlib import contextmanager
from typing import Any

from tests.differential.answers import Log, kind

PATIENCE = 30


def boom(*_: Any) -> Any:
    raise ValueError("boom")


def double(number: int) -> int:
    return 2 * number


def who(*_: Any) -> str:
    return threading.current_thread().name


@contextmanager
def busy(pool: Any, number: int = 1) -> Any:
    """So many of the pool's workers are busy inside."""
    gate = threading.Event()
    started = threading.Barrier(number + 1)

    def work() -> None:
        started.wait(PATIENCE)
        gate.wait(PATIENCE)

    futures = [pool.submit(work) for _ in range(number)]
    started.wait(PATIENCE)
    try:
        yield gate
    finally:
        gate.set()
        for future in futures:
            future.result(PATIENCE)


def shape(function: Any) -> list[Any]:
    return [
        [p.name, p.kind.name, repr(p.default) if p.default is not p.empty else "-"]
        for p in inspect.signature(function).parameters.values()
    ]


@contextmanager
def logged(*names: str) -> Any:
    log = Log()
    loggers = [logging.getLogger(name) for name in names or ("concurrent.futures", "asyncio")]
    for logger in loggers:
        logger.addHandler(log)
        logger.propagate = False
    try:
        yield log.lines
    finally:
        for logger in loggers:
            logger.removeHandler(log)
            logger.propagate = True


def script(Pool: type, text: str) -> Any:
    """Run it as a program of its own: what it prints, and its exit status."""
    where = f"from {Pool.__module__.partition('.thread')[0]} import {Pool.__name__} as Pool\n"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", where + textwrap.dedent(text)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    said = [line for line in done.stderr.splitlines() if "Error" in line and line[0] != " "]
    return [done.stdout.split(), said, done.returncode]


def kind_of(call: Any) -> Any:
    try:
        call()
    except BaseException as error:
        return kind(error)
    return "nothing raised"
