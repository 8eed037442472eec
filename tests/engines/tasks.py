"""What the engine tests run in other processes."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures.process import BrokenProcessPool
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


def hold(place: str) -> bool:
    """Say that it has begun, and wait to be told to go."""
    Path(place, "begun").touch()
    return wait_for(str(Path(place, "go")))


def unpicklable() -> Any:
    return lambda: None


class Stubborn(Exception):
    """Pickles, and does not unpickle."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__("stubborn")


def raise_stubborn() -> None:
    raise Stubborn(1, 2)


class StubbornBase(BaseException):
    """The same, and no Exception."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__("stubborn base")


def raise_stubborn_base() -> None:
    raise StubbornBase(1, 2)


class StubbornResult:
    """Does not pickle, for a reason that does not unpickle."""

    def __reduce__(self) -> Any:
        raise Stubborn(1, 2)


def stubborn_result() -> StubbornResult:
    return StubbornResult()


class StubbornArgument:
    """Does not unpickle, for a reason that does not unpickle."""

    def __reduce__(self) -> Any:
        return raise_stubborn, ()


class Sedentary(Exception):
    """Unpickles in the process it comes from only."""

    def __reduce__(self) -> Any:
        return load_sedentary, (os.getpid(),)


def load_sedentary(home: int) -> Sedentary:
    if os.getpid() != home:
        raise ValueError("far from home")
    return Sedentary()


def raise_sedentary() -> None:
    raise Sedentary("at home")


class Disguised(Exception):
    """Unpickles as something that is no exception."""

    def __reduce__(self) -> Any:
        return dict, ()


def raise_disguised() -> None:
    raise Disguised("well")


def raise_broken() -> None:
    raise BrokenProcessPool("a pool that the task itself uses")


def identity(value: Any) -> Any:
    return value


def lock() -> Any:
    return threading.Lock()


def get(queue: Any) -> Any:
    return queue.get()
