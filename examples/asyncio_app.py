"""An asyncio program that does its blocking work in a bounded pool.

Three workers of a pipeline read files and parse them in threads, while the loop goes on. As the
loop's default executor the pool also serves `asyncio.to_thread` and everything built upon it.
"""

import argparse
import asyncio
import json
import tokenize
from pathlib import Path

from futurepool import BoundedExecutor, Priority

FOLDER = Path(json.__file__).parent


def count_functions(path: Path) -> int:
    with path.open("rb") as file:
        return sum(token.string == "def" for token in tokenize.tokenize(file.readline))


async def parse_all(pool: BoundedExecutor, paths: "asyncio.Queue[Path]") -> dict[str, int]:
    """Take paths from the queue until it is empty."""
    loop = asyncio.get_running_loop()
    # A view is an executor too: these tasks give way to others.
    background = pool.options(priority=Priority.LOW, name="parse")
    found: dict[str, int] = {}
    while not paths.empty():
        path = paths.get_nowait()
        found[path.name] = await loop.run_in_executor(background, count_functions, path)
    return found


async def heartbeat(beats: list[float]) -> None:
    """Show that the loop is not blocked."""
    while True:
        beats.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0.001)


async def run() -> None:
    pool = BoundedExecutor(max_workers=3, queue_size=10)
    asyncio.get_running_loop().set_default_executor(pool)
    beats: list[float] = []
    pulse = asyncio.create_task(heartbeat(beats))

    paths: asyncio.Queue[Path] = asyncio.Queue()
    for path in await asyncio.to_thread(lambda: sorted(FOLDER.glob("*.py"))):
        paths.put_nowait(path)

    functions: dict[str, int] = {}
    for found in await asyncio.gather(*(parse_all(pool, paths) for _ in range(3))):
        functions |= found
    for name in sorted(functions):
        print(f"{functions[name]:4} functions  {name}")

    pulse.cancel()
    print(f"the loop went on: {len(beats) > 0}")
    print(f"tasks: {pool.stats().completed_tasks == len(functions) + 1}")
    # asyncio.run() shuts the default executor down.


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()  # it takes none
    asyncio.run(run())


if __name__ == "__main__":
    main()
