"""Sentry, OpenTelemetry and Datadog: what belongs to a request follows its tasks, and stays with them."""

from __future__ import annotations

import importlib.util

import pytest

from tests import programs
from tests.programs import python


def run(package: str, script: str, **environment: str) -> None:
    """Run `script` with `package`, alone in an interpreter: it patches what all share."""
    try:
        found = importlib.util.find_spec(package)
    except ModuleNotFoundError:
        found = None
    if found is None:
        pytest.skip(f"{package} is not installed")
    done = python(script, "-W", "ignore", env=programs.environment(**environment))
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr


WAYS = """
import asyncio, contextvars
from futurepool import BoundedExecutor

first = BoundedExecutor(2)  # before the tool is there

async def in_loop(pool, fn):
    return await asyncio.get_running_loop().run_in_executor(pool, fn)

async def to_thread(pool, fn):
    asyncio.get_running_loop().set_default_executor(pool)
    return await asyncio.to_thread(fn)

ways = [
    lambda pool, fn: pool.submit(fn).result(),
    lambda pool, fn: pool.options(priority=2).submit(fn).result(),
    lambda pool, fn: pool.try_submit(fn).result(),
    lambda pool, fn: next(pool.map(lambda _: fn(), [0])),
    lambda pool, fn: next(pool.map(lambda _: fn(), [0, 1], chunksize=2)),
    lambda pool, fn: next(pool.map_unordered(lambda _: fn(), [0])),
    lambda pool, fn: asyncio.run(pool.arun(fn)),
    lambda pool, fn: asyncio.run(in_loop(pool, fn)),
]
"""

SENTRY = """
import sentry_sdk
events = []
sentry_sdk.init(dsn="http://a@127.0.0.1:1/1", before_send=lambda event, _: events.append(event))

def task():
    scope = sentry_sdk.get_isolation_scope()
    found = dict(scope._tags), len(scope._breadcrumbs)
    sentry_sdk.set_tag("task", 1)
    sentry_sdk.add_breadcrumb(message="from the task")
    return found

def request():
    with sentry_sdk.isolation_scope() as scope:
        sentry_sdk.set_tag("request", 1)
        sentry_sdk.add_breadcrumb(message="from the request")
        for pool in (first, BoundedExecutor(1)):
            for way in ways:
                for _ in range(2):
                    assert way(pool, task) == ({"request": 1}, 1), way
        assert (scope._tags, len(scope._breadcrumbs)) == ({"request": 1}, 1)

    def fail():
        sentry_sdk.set_tag("failing", 1)
        sentry_sdk.capture_exception(ZeroDivisionError())

    first.submit(fail).result()
    assert events[-1]["tags"] == {"failing": 1}, events

contextvars.copy_context().run(request)
for pool in (first, BoundedExecutor(1)):  # nothing stays in a worker
    for way in ways:
        assert contextvars.Context().run(way, pool, task) == ({}, 0)
print("done")
"""

OPENTELEMETRY = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
exporter, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
tracer = trace.get_tracer(__name__)
INSTRUMENT

def task():
    with tracer.start_as_current_span("task") as span:
        return span.parent and span.parent.span_id

for pool in (first, BoundedExecutor(1)):
    for way in ways:
        with tracer.start_as_current_span("request") as request:
            for _ in range(2):
                assert way(pool, task) == request.context.span_id
        assert way(pool, task) is None
assert {span.name for span in exporter.get_finished_spans()} == {"task", "request"}
print("done")
"""

INSTRUMENT = """
from opentelemetry.instrumentation.threading import ThreadingInstrumentor
ThreadingInstrumentor().instrument()
"""

DATADOG = """
import ddtrace
ddtrace.patch(futures=True)
from ddtrace.trace import tracer

def task():
    with tracer.trace("task") as span:
        return span.trace_id, span.parent_id

def last(pool, way, span):
    return way(pool, task) == (span.trace_id, span.span_id)

for pool in (first, BoundedExecutor(1)):
    for way in ways:
        with tracer.trace("request") as request:
            assert last(pool, way, request) and last(pool, way, request)
        assert way(pool, task)[1] in (None, 0)
print("done", flush=True)
import os
os._exit(0)  # it would look for an agent
"""


@pytest.mark.slow
def test_sentry() -> None:
    """A task has what its request's scope held, and none sees what another adds."""
    run("sentry_sdk", WAYS + SENTRY)


@pytest.mark.slow
def test_opentelemetry() -> None:
    """Spans of tasks are children of the submitter's: its context is a context variable."""
    run("opentelemetry.sdk", WAYS + OPENTELEMETRY.replace("INSTRUMENT", ""))


@pytest.mark.slow
def test_opentelemetry_with_threads_instrumented() -> None:
    """It wraps each task, and attaches the submitter's context once more."""
    run(
        "opentelemetry.instrumentation.threading",
        WAYS + OPENTELEMETRY.replace("INSTRUMENT", INSTRUMENT),
    )


@pytest.mark.slow
def test_datadog() -> None:
    """It changes the code of the standard submit in place."""
    run(
        "ddtrace",
        WAYS + DATADOG,
        DD_TRACE_AGENT_URL="http://127.0.0.1:1",
        DD_REMOTE_CONFIGURATION_ENABLED="0",
    )
