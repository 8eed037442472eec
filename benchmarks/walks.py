"""How far one goes through the package to follow one thing.

    python benchmarks/walks.py          # prints the table; with -v also the files, in order

Counted are calls into another file than the one before (changes), and the files one has to open (files). Each walk is taken twice, and the second time counted: what is done once for all is no part of it. Threads are
counted apart, and added up: a reader follows one, then the other. Callbacks of the collector are left out.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import futurepool
from futurepool import BoundedExecutor, ForcedShutdownError

HERE = str(Path(futurepool.__file__).parent)


class Steps:
    """The files whose functions were called, by thread."""

    def __init__(self) -> None:
        self.files: dict[int, list[str]] = {}
        self.on = False

    def __call__(self, frame: object, event: str, _arg: object) -> None:
        name: str = frame.f_code.co_filename  # type: ignore[attr-defined]
        function: str = frame.f_code.co_name  # type: ignore[attr-defined]
        if self.on and event == "call" and name.startswith(HERE) and not function.startswith("<"):
            files = self.files.setdefault(threading.get_ident(), [])
            if not files or files[-1] != name:
                files.append(name)

    def take(self, walk: Callable[[], object]) -> tuple[int, int]:
        """The changes of file in one walk, entering the first is none; and how many files."""
        self.files.clear()
        self.on = True
        try:
            walk()
            time.sleep(0.05)  # until the worker sleeps again
        finally:
            self.on = False
        changes = sum(len(files) - 1 for files in self.files.values())
        return changes, len(set().union(*self.files.values()))


def submit_to_result() -> Callable[[], object]:
    pool = BoundedExecutor(1)
    return lambda: pool.submit(int).result()


def with_a_callback() -> Callable[[], object]:
    pool = BoundedExecutor(1)

    def walk() -> None:
        future = pool.submit(time.sleep, 0.01)
        future.add_done_callback(id)
        future.result()

    return walk


def blocked_submit() -> Callable[[], object]:
    pool = BoundedExecutor(1, queue_size=0)

    def walk() -> None:
        first = pool.submit(time.sleep, 0.02)
        pool.submit(int).result()
        first.result()

    return walk


def arun_without_a_place() -> Callable[[], object]:
    pool = BoundedExecutor(1, queue_size=0)
    loop = asyncio.new_event_loop()

    async def main() -> None:
        await asyncio.gather(pool.arun(time.sleep, 0.01), pool.arun(int))

    return lambda: loop.run_until_complete(main())


def stop_out_of_time() -> Callable[[], object]:
    def walk() -> None:
        pool = pools.pop()
        gate = gates.pop()
        steps.on = True
        try:
            pool.stop(0.01)
        except ForcedShutdownError:
            pass
        steps.on = False
        gate.set()

    gates = [threading.Event() for _ in range(2)]
    pools = [BoundedExecutor(1) for _ in range(2)]
    for pool, gate in zip(pools, gates, strict=True):
        pool.submit(gate.wait)
        pool.submit(int)
    return walk


steps = Steps()

WALKS: dict[str, Callable[[], Callable[[], object]]] = {
    "submit to result": submit_to_result,
    "the same with a callback": with_a_callback,
    "blocked submit": blocked_submit,
    "arun without a place": arun_without_a_place,
    "stop() out of time": stop_out_of_time,
}


def main() -> None:
    threading.setprofile(steps)
    sys.setprofile(steps)
    for name, make in WALKS.items():
        walk = make()
        steps.take(walk)
        changes, files = steps.take(walk)
        print(f"{name:26} {changes:3} changes {files:3} files")
        if "-v" in sys.argv:
            for way in steps.files.values():
                print("   ", " ".join(str(Path(file).relative_to(HERE)) for file in way))


if __name__ == "__main__":
    main()
