"""gevent and eventlet, which turn threads into greenlets, also when they come after our import."""

from __future__ import annotations

import importlib.util

import pytest

from tests.programs import python

PATCH = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    # It warns of its own age, and prints of what it could not patch.
    "eventlet": "import warnings; warnings.simplefilter('ignore'); import eventlet; eventlet.monkey_patch()",
}

IMPORT = """
import concurrent.futures as cf
import threading, time
from futurepool import BoundedExecutor, CancelToken, ForcedShutdownError, SubmitTimeoutError

early = BoundedExecutor(2)
"""

STARTED = """
started = BoundedExecutor(1)
assert started.submit(int).result() == 0
assert CancelToken(0.001).wait()
"""

USE = """
import faulthandler
faulthandler.dump_traceback_later(40, exit=True)
ticks = []

def tick():
    while True:
        ticks.append(None)
        time.sleep(0.001)

threading.Thread(target=tick, daemon=True).start()

def job(n):
    time.sleep(0.01)
    return n

def others_ran(wait):
    before = len(ticks)
    result = wait()
    assert len(ticks) > before
    return result

first = early.map_unordered(job, range(4))
assert others_ran(lambda: sorted(first)) == [0, 1, 2, 3]
assert list(early.map(job, range(4))) == [0, 1, 2, 3]

pool = BoundedExecutor(2, queue_size=1)
futures = others_ran(lambda: [pool.submit(job, n) for n in range(6)])
assert [future.result() for future in futures] == list(range(6))
assert cf.wait([pool.submit(job, 1)]).not_done == set()
gate = threading.Event()
asleep = [pool.submit(gate.wait) for _ in range(3)]
for late in (lambda: asleep[0].result(0.01), lambda: pool.submit_with_timeout(0.01, int)):
    try:
        others_ran(late)
    except (cf.TimeoutError, SubmitTimeoutError):
        pass
    else:
        raise AssertionError("in time")
assert not others_ran(lambda: pool.wait(0.01))
threading.Timer(0.01, gate.set).start()
assert others_ran(pool.wait)

one = BoundedExecutor(1)
assert one.submit(lambda: one.submit(job, 5).result()).result() == 5
assert one.submit(lambda: one.submit(job, 5).result(30)).result() == 5
# Long enough for the machine to be slow: a time that is over before the wait begins lets nobody run.
assert others_ran(CancelToken(0.2).wait)
gate = threading.Event()
busy = one.submit(gate.wait)
doomed = one.submit_with_token(CancelToken(0.2), int)
assert others_ran(lambda: cf.wait([doomed], 30)).done and doomed.cancelled() and not busy.done()

engine = BoundedExecutor(2, engine=cf.ThreadPoolExecutor(2))
assert list(engine.map(job, range(4))) == [0, 1, 2, 3]
engine.shutdown()
try:
    others_ran(lambda: one.stop(0.5))
except ForcedShutdownError:
    gate.set()
else:
    raise AssertionError("in time")
assert pool.stats().completed_tasks == 10, pool.stats()
if "started" in globals():
    assert list(started.map(job, range(4))) == [0, 1, 2, 3]
    started.shutdown(wait=False)
early.shutdown()
assert busy.result()
pool.shutdown()
print("done", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "when"),
    [
        ("gevent", "patched first"),
        ("gevent", "imported first"),
        ("gevent", "started first"),
        ("eventlet", "patched first"),
        ("eventlet", "imported first"),  # its locks cannot be opened by other threads
    ],
)
def test_threads_become_greenlets(name: str, when: str) -> None:
    """Tasks run, whoever waits lets other greenlets run, and timeouts end."""
    if importlib.util.find_spec(name) is None:  # not imported here, where it would warn
        pytest.skip(f"{name} is not installed")
    if when == "started first":
        script = IMPORT + STARTED + PATCH[name] + USE
    elif when == "imported first":
        script = IMPORT + PATCH[name] + USE
    else:
        script = PATCH[name] + IMPORT + USE
    done = python(script, "-W", "default")
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr
