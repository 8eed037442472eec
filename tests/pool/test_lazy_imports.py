"""Where Python puts imports off, the package's own take place with it all the same."""

from __future__ import annotations

import sys

import pytest

from tests.programs import python

SCRIPT = """
import asyncio, concurrent.futures as cf, os, sys, types
import futurepool
from futurepool import BoundedExecutor


def put_off():
    return sorted(
        f"{name}.{each}"
        for name, module in list(sys.modules.items()) if name.partition(".")[0] == "futurepool"
        for each, value in vars(module).items() if type(value) is types.LazyImportType
    )

async def use(pool):
    async with pool:
        return [await pool.arun(abs, -1), [n async for n in pool.amap(abs, [-2])]]

futurepool.BoundedExecutor
print(put_off())
assert asyncio.run(use(BoundedExecutor(1))) == [1, [2]]
with BoundedExecutor(engine=cf.ThreadPoolExecutor(1)) as pool:
    assert pool.submit(int, "x").exception().args == ("invalid literal for int() with base 10: 'x'",)
with BoundedExecutor(1) as pool, pool.record() as trace:
    assert (pool.submit(int).result(), pool.queued()) == (0, [])
trace.save(os.devnull)
futurepool.serve
import futurepool._picture
if __name__ == "__main__":
    with BoundedExecutor(engine=cf.ProcessPoolExecutor(1)) as pool:
        assert list(pool.map(abs, [-1, 2])) == [1, 2]
assert "futurepool._engines.transport" in sys.modules
print(put_off())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info < (3, 15), reason="there imports take place where they stand")
def test_no_import_is_put_off() -> None:
    """Or it would take place in the middle of a section, in a finalizer, or at interpreter exit."""
    done = python(SCRIPT, "-X", "lazy_imports=all")
    assert (done.stdout.split("\n"), done.stderr) == (["[]", "[]", ""], "")
