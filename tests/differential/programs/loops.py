"""asyncio."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

from tests.differential.answers import kind, program
from tests.differential.programs.shared import boom, busy, double, logged, who

# -- asyncio ---------------------------------------------------------------------------------------


@program
def run_in_executor(Pool: Any) -> Any:
    """`loop.run_in_executor`: results, errors, many at once"""

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        with Pool(2) as pool:
            first = await loop.run_in_executor(pool, double, 2)
            try:
                await loop.run_in_executor(pool, boom)
            except ValueError as error:
                second = [kind(error), str(error)]
            third = await asyncio.gather(
                *[loop.run_in_executor(pool, double, number) for number in range(100)]
            )
            return [first, second, sum(third)]

    with logged() as lines:
        return [asyncio.run(main()), lines]


@program
def default_executor(Pool: Any) -> Any:
    """`loop.set_default_executor` and `asyncio.to_thread`"""

    async def main() -> Any:
        asyncio.get_running_loop().set_default_executor(Pool(2, "default"))
        return [await asyncio.to_thread(who), await asyncio.to_thread(double, 4)]

    return asyncio.run(main())


@program
def to_thread_context(Pool: Any) -> Any:
    """Context variables through `asyncio.to_thread`"""
    var = contextvars.ContextVar("var", default="default")

    async def main() -> Any:
        asyncio.get_running_loop().set_default_executor(Pool(1))
        var.set("mine")
        return await asyncio.to_thread(var.get)

    return asyncio.run(main())


@program
def run_in_executor_cancelled(Pool: Any) -> Any:
    """Cancelling what waits for `run_in_executor` cancels the queued task"""

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        ran: list[int] = []
        pool = Pool(1)
        with busy(pool):
            waiting = loop.run_in_executor(pool, ran.append, 1)
            await asyncio.sleep(0)
            waiting.cancel()
            found = await outcome_of(waiting)
        pool.shutdown()
        return [found, ran]

    return asyncio.run(main())


async def outcome_of(awaitable: Any) -> Any:
    try:
        return await awaitable
    except asyncio.CancelledError:
        return "cancelled"


async def plain(awaitable: Any) -> Any:
    return await awaitable


@program
def run_in_executor_stop_iteration(Pool: Any) -> Any:
    """StopIteration through `run_in_executor`"""

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        with Pool(1) as pool:
            try:
                return await asyncio.wait_for(plain(loop.run_in_executor(pool, next, iter(()))), 5)
            except BaseException as error:
                return kind(error)

    with logged():
        return asyncio.run(main())


@program
def shutdown_default_executor(Pool: Any) -> Any:
    """`loop.shutdown_default_executor()` waits for the pool's tasks"""
    ran: list[int] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(Pool(1))
        loop.run_in_executor(None, ran.append, 1)
        await loop.shutdown_default_executor()

    asyncio.run(main())
    return ran
