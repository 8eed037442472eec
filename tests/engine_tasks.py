"""What the engine tests run in other processes."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any


def square(number: int) -> int:
    return number * number


def fail(text: str) -> None:
    raise ValueError(text)


def die() -> None:
    os._exit(3)


def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def wait_for(path: str) -> bool:
    """Until the file is there."""
    for _ in range(3000):
        if Path(path).exists():
            return True
        time.sleep(0.01)
    return False


def unpicklable() -> Any:
    return lambda: None


class Stubborn(Exception):
    """Pickles, and does not unpickle."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__("stubborn")


def raise_stubborn() -> None:
    raise Stubborn(1, 2)
