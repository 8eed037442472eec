"""Threads of the package begin with an empty context, wherever Python hands contexts down."""

from __future__ import annotations

import sys

import pytest

from tests.programs import python

SCRIPT = """
import asyncio, concurrent.futures as cf, contextvars, threading, time, weakref
from futurepool import BoundedExecutor, CancelToken


began = {}
run = threading.Thread.run

def noting(thread):
    began[thread.name.rstrip("_0123456789")] = len(contextvars.copy_context())
    run(thread)

threading.Thread.run = noting
var = contextvars.ContextVar("var")

class Kept:
    pass

async def leave(pool):
    async with pool:
        await pool.arun(int)

def use_all():
    kept = Kept()
    var.set(kept)
    control = threading.Thread(target=int, name="control")
    control.start()
    control.join()
    pool = BoundedExecutor(1, thread_name_prefix="worker", initializer=int)
    # One that waits, with a timeout, for what is queued behind it.
    pool.submit(lambda: cf.wait([pool.submit(int)], 20)).result(20)
    # A deadline that may have passed before anybody starts the timer does not take it.
    patient = CancelToken(3600)
    patient.add_callback(print)
    while "futurepool-timer" not in began:
        time.sleep(0.001)
    rung = threading.Event()
    token = CancelToken(0.001)
    token.add_callback(lambda _: rung.set())
    assert rung.wait(20)
    with cf.ThreadPoolExecutor(1, "engine") as engine, BoundedExecutor(1, engine=engine) as front:
        assert front.submit(int).result(20) == 0
    asyncio.run(leave(BoundedExecutor(1, thread_name_prefix="loop")))
    return pool, weakref.ref(kept)

pool, kept = contextvars.Context().run(use_all)
assert kept() is None, "a thread keeps the context of whoever started it alive"
pool.shutdown()
print(began.pop("control"), *(f"{name}={size}" for name, size in sorted(began.items()) if name != "engine"))
"""


@pytest.mark.slow
@pytest.mark.parametrize("inherit", [0, 1])
def test_threads_begin_with_an_empty_context(inherit: int) -> None:
    """Workers, the timer, the dispatcher, and those that close a pool for a coroutine."""
    done = python(SCRIPT, "-X", f"thread_inherit_context={inherit}")
    assert done.stderr == ""
    control, *threads = done.stdout.split()
    assert control == str(inherit if sys.version_info >= (3, 14) else 0)
    assert {name.split("=")[1] for name in threads} == {"0"}
    assert {"futurepool-dispatcher=0", "futurepool-shutdown=0", "futurepool-timer=0", "loop=0"} | {
        "worker=0"
    } <= set(threads)
