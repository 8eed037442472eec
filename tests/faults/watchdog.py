"""Ends a process that hangs, saying where."""

from __future__ import annotations

import faulthandler


class Watchdog:
    """While open, the process ends after `limit` seconds, with every thread's stack on stderr."""

    def __init__(self, limit: float) -> None:
        self.limit = limit

    def __enter__(self) -> None:
        faulthandler.dump_traceback_later(self.limit, exit=True)

    def __exit__(self, *_: object) -> None:
        faulthandler.cancel_dump_traceback_later()


def barked(stderr: str) -> bool:
    """True if a watchdog has ended the process that wrote this."""
    return "Timeout (" in stderr
