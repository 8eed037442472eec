"""A pool inside a subinterpreter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import futurepool

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.version_info < (3, 12), reason="the GIL of its own came with 3.12"),
]

SCRIPT = """
import sys, threading
if sys.version_info >= (3, 13):
    import _interpreters as interpreters
else:
    import _xxsubinterpreters as interpreters

def run(kind):
    if sys.version_info >= (3, 13):
        it = interpreters.create(kind)
    else:
        it = interpreters.create(isolated=kind == "isolated")
    failed = interpreters.run_string(it, CODE)
    interpreters.destroy(it)
    assert failed is None, failed

CODE = "import sys; sys.path[:] = " + repr(sys.path) + '''
from futurepool import BoundedExecutor
from pathlib import Path

with BoundedExecutor(2) as ex:
    assert list(ex.map(abs, range(-9, 0))) == list(range(9, 0, -1))

left = BoundedExecutor(1)
futures = [left.submit(abs, number) for number in range(50)]
''' + f"futures[-1].add_done_callback(lambda _: Path({sys.argv[2]!r}).open('a').write('ran'))"

threads = [threading.Thread(target=run, args=(sys.argv[1],)) for _ in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
run(sys.argv[1])
"""


@pytest.mark.parametrize("kind", ["isolated", "legacy"])
def test_pools_of_subinterpreters(tmp_path: Path, kind: str) -> None:
    """Two at a time, then one more; a pool that is left open has run all when its interpreter ends."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script), kind, str(tmp_path / "log")],
        env={"PYTHONPATH": str(Path(futurepool.__file__).parent.parent)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    # CPython 3.13.0 speaks of dummy threads there, of the standard class's too.
    noise = sys.version_info[:2] == (3, 13) and "DummyThread" in done.stderr
    assert (done.returncode, "" if noise else done.stderr) == (0, "")
    assert (tmp_path / "log").read_text() == "ran" * 3
