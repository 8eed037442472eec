"""Where Python puts imports off, the package's own take place with it all the same."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import futurepool
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
import futurepool._living.picture
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


def test_what_is_imported_late_lets_its_imports_take_place() -> None:
    """Each module that `import futurepool` does not load says so in its last line.

    The command line and the exporters run in no section; they import when Python likes.
    """
    done = python(
        "import futurepool, json, sys; futurepool.Future; print(json.dumps([*sys.modules]))"
    )
    loaded, root = set(json.loads(done.stdout)), Path(futurepool.__file__).parent
    last = {
        name: path.read_text("utf-8").splitlines()[-1]
        for path in root.rglob("*.py")
        if (name := ".".join(path.relative_to(root.parent).with_suffix("").parts)) not in loaded
        and not name.startswith(("futurepool._cli.", "futurepool.instrumentation."))
        and path.name not in ("__init__.py", "__main__.py")
    }
    assert "futurepool._aio" in last
    assert last == dict.fromkeys(last, "_sync.import_now(__name__)")


#: What takes part of a millisecond to import, and is for few programs.
FEW = {
    *(
        "asyncio",
        "bisect",
        "dataclasses",
        "importlib.util",
        "inspect",
        "numbers",
        "pickle",
        "struct",
    ),
    *("futurepool._executor.groups", "futurepool._map", "futurepool._map.batches"),
    *("futurepool._map.chunks", "futurepool._pool.histogram", "futurepool._pool.limits"),
    *("futurepool._pool.report", "futurepool._pool.slow", "futurepool._pool.timed_queues"),
    *("futurepool._telemetry.stats", "futurepool._telemetry.trace"),
}


def test_the_import_leaves_out_what_is_for_few() -> None:
    """They are imported by who needs them, with the first pool or with a pool that has such an option."""
    done = python(
        "import concurrent.futures.thread, json, sys, typing\n"
        "if sys.version_info < (3, 11): import typing_extensions\n"
        "before = set(sys.modules)\nfrom futurepool import BoundedExecutor\n"
        "print(json.dumps([*set(sys.modules) - before]))"
    )
    assert FEW.intersection(json.loads(done.stdout)) == set()
