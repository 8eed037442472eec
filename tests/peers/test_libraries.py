"""Libraries that take an executor, as they are: docs/libraries.md says which pool to give them."""

from __future__ import annotations

import asyncio
import datetime as dt
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent import futures as cf
from contextlib import contextmanager
from contextvars import Context
from io import BytesIO
from typing import Any
from unittest.mock import Mock

import pytest

from futurepool import BoundedExecutor, OnFull

pytestmark = pytest.mark.slow  # their imports alone


def library(name: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs are not ours
        return pytest.importorskip(name, exc_type=ImportError)


# -- gRPC ----------------------------------------------------------------------------------------


@contextmanager
def grpc_server(
    pool: BoundedExecutor, handle: Callable[[bytes], bytes], **options: Any
) -> Iterator[Any]:
    """A call to a server that runs `handle` in `pool`."""
    grpc = library("grpc")

    class Handler(grpc.GenericRpcHandler):  # type: ignore[misc, name-defined]
        def service(self, _: object) -> Any:
            return grpc.unary_unary_rpc_method_handler(lambda request, _: handle(request))

    server = grpc.server(pool, **options)
    server.add_generic_rpc_handlers((Handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel.unary_unary("/service/method")
    server.stop(None).wait(30)


def test_grpc_with_a_bound_of_its_own() -> None:
    """It refuses what is too much, and answers all the rest; the server is alive afterwards."""
    with (
        BoundedExecutor(4, queue_size=None) as pool,
        grpc_server(pool, bytes.upper, maximum_concurrent_rpcs=50) as call,
    ):
        burst = [call.future(b"x", timeout=30) for _ in range(300)]
        codes = {answer.code().name for answer in burst}
        assert "OK" in codes
        assert codes <= {"OK", "RESOURCE_EXHAUSTED"}
        assert call(b"y", timeout=30, wait_for_ready=True) == b"Y"


def test_grpc_without() -> None:
    with BoundedExecutor(4, queue_size=None) as pool, grpc_server(pool, bytes.upper) as call:
        burst = [call.future(b"x", timeout=30) for _ in range(300)]
        assert {answer.result() for answer in burst} == {b"X"}


def test_grpc_on_a_full_queue() -> None:
    """The server submits under a lock that its done-callback takes, and brings what tasks wait for."""
    gate = threading.Event()

    def handle(request: bytes) -> bytes:
        gate.wait(30)
        return request.upper()

    with BoundedExecutor(2, queue_size=4) as pool, grpc_server(pool, handle) as call:
        burst = [call.future(b"x", timeout=50) for _ in range(20)]
        while not pool.stats().waiting_submitters:
            pass
        gate.set()
        assert {answer.result() for answer in burst} == {b"X"}
        assert call(b"y", timeout=50) == b"Y"


# -- APScheduler ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{"queue_size": None}, {"queue_size": 2, "on_full": OnFull.RAISE}, {"queue_size": 2}],
    ids=["unbounded", "RAISE", "BLOCK"],
)
def test_apscheduler(options: dict[str, Any]) -> None:
    """Every job runs again and again; with a small queue some runs are skipped, or wait a second."""
    base = library("apscheduler.executors.pool").BasePoolExecutor
    background = library("apscheduler.schedulers.background")

    class PoolExecutor(base):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__(BoundedExecutor(2, **options))

    scheduler = background.BackgroundScheduler(
        executors={"default": PoolExecutor()}, timezone=dt.timezone.utc
    )
    ran: list[int] = []
    enough = threading.Event()

    def job(number: int) -> None:
        ran.append(number)
        if len(set(ran)) == 4 and len(ran) > 8:
            enough.set()

    for number in range(4):
        scheduler.add_job(
            job,
            "interval",
            seconds=0.02,
            id=str(number),
            args=(number,),
            misfire_grace_time=None,  # late is as good
        )
    scheduler.start()
    assert enough.wait(30)
    scheduler.shutdown()


# -- Google Cloud Pub/Sub ------------------------------------------------------------------------


def test_pubsub() -> None:
    """Its scheduler takes what has not started out of our queue when it is shut down."""
    scheduler = library("google.cloud.pubsub_v1.subscriber.scheduler")
    gate, started = threading.Event(), threading.Event()

    def callback(message: str) -> None:
        started.set()
        gate.wait(30)

    pool = BoundedExecutor(1, queue_size=None)
    subscriber = scheduler.ThreadScheduler(executor=pool)
    for number in range(4):
        subscriber.schedule(callback, f"message {number}")
    assert started.wait(30)
    threading.Timer(0.05, gate.set).start()
    dropped = subscriber.shutdown(await_msg_callbacks=True)
    assert dropped == ["message 1", "message 2", "message 3"]
    assert pool.closed
    with pytest.warns(RuntimeWarning, match="after executor shutdown"):
        subscriber.schedule(callback, "late")


# -- asynchronous frameworks ---------------------------------------------------------------------


def test_tornado() -> None:
    """`run_on_executor`, `run_in_executor`, and the loop's default executor."""
    ioloop, concurrent = library("tornado.ioloop"), library("tornado.concurrent")

    class Worker:
        def __init__(self) -> None:
            self.executor = pool

        @concurrent.run_on_executor  # type: ignore[untyped-decorator]
        def work(self, number: int) -> tuple[int, str]:
            return -number, threading.current_thread().name

    async def main() -> None:
        loop = ioloop.IOLoop.current()
        loop.set_default_executor(pool)
        assert await Worker().work(3) == (-3, "tornado_0")
        assert await loop.run_in_executor(None, abs, -3) == 3
        with pytest.raises(ZeroDivisionError):
            await loop.run_in_executor(pool, divmod, 1, 0)

    with BoundedExecutor(1, "tornado") as pool:
        asyncio.run(main())


def test_asgiref() -> None:
    """`sync_to_async` with an executor; context variables go there, and come back."""
    sync = library("asgiref.sync")
    flag = library("asgiref.local").Local()

    def work(number: int) -> tuple[int, str]:
        found = flag.value
        flag.value = "task's"
        return number, found

    async def main() -> None:
        flag.value = "request's"
        run = sync.sync_to_async(work, thread_sensitive=False, executor=pool)
        assert await run(3) == (3, "request's")
        assert flag.value == "task's"

    with BoundedExecutor(1) as pool:
        asyncio.run(main())


def test_starlette_and_fastapi() -> None:
    """Endpoints that are plain functions of ours, and an app whose lifespan is the pool's."""
    fastapi = library("fastapi")
    client = library("starlette.testclient")

    @contextmanager
    def pool() -> Iterator[BoundedExecutor]:
        with BoundedExecutor(1) as pool:
            yield pool

    with pool() as executor:
        app = fastapi.FastAPI()
        app.get("/stats")(executor.stats)

        @app.get("/work")
        async def work() -> int:
            return await executor.arun(abs, -3)

        with client.TestClient(app) as browser:
            assert browser.get("/work").json() == 3
            assert browser.get("/stats").json()["submitted_tasks"] == 1


# -- context variables of theirs -----------------------------------------------------------------


def test_flask() -> None:
    """An app context goes with a request's tasks; one that the initializer pushes is in all."""
    flask = library("flask")
    app = flask.Flask("shop")

    def name_of_app(_: object = None) -> str:
        return str(flask.current_app.name)

    def test() -> None:
        with app.app_context(), BoundedExecutor(2) as pool:
            flask.g.user = "ann"
            assert pool.submit(lambda: flask.g.user).result(30) == "ann"
            assert list(pool.map(name_of_app, range(3))) == ["shop"] * 3
        with app.test_request_context("/basket?n=3"), BoundedExecutor(2) as pool:
            assert pool.submit(lambda: flask.request.args["n"]).result(30) == "3"
        with BoundedExecutor(2) as pool, pytest.raises(RuntimeError, match="application context"):
            pool.submit(name_of_app).result(30)
        with BoundedExecutor(2, initializer=lambda: app.app_context().push()) as pool:
            assert list(pool.map(name_of_app, range(3))) == ["shop"] * 3

    Context().run(test)


def test_numpy() -> None:
    """`errstate` goes with the tasks, and what they set stays with them; so does an initializer's."""
    numpy = library("numpy")
    if numpy.lib.NumpyVersion(numpy.__version__) < "2.0.0":
        pytest.skip("it was thread-local data there")

    def divide(_: object = None) -> str:
        found = str(numpy.geterr()["divide"])
        numpy.seterr(divide="print")
        return found

    def test() -> None:
        with BoundedExecutor(1) as pool:
            with numpy.errstate(divide="raise"):
                assert [pool.submit(divide).result(30) for _ in range(2)] == ["raise"] * 2
                assert numpy.geterr()["divide"] == "raise"
            assert pool.submit(divide).result(30) == "warn"
        with BoundedExecutor(1, initializer=lambda: numpy.seterr(divide="call")) as pool:
            assert list(pool.map(divide, range(3))) == ["call"] * 3

    Context().run(test)


# -- others --------------------------------------------------------------------------------------


def test_s3transfer() -> None:
    """`executor_cls` is what it makes all its pools of; their tasks submit to one another."""
    manager = library("s3transfer.manager")
    sent: list[tuple[str, bytes]] = []

    class Executor(BoundedExecutor):
        def __init__(self, max_workers: int) -> None:
            super().__init__(max_workers, queue_size=None)

    client = Mock()
    client.put_object.side_effect = lambda Key, Body, **_: sent.append((Key, Body.read()))  # noqa: N803
    with manager.TransferManager(client, executor_cls=Executor) as transfers:
        waiting = [transfers.upload(BytesIO(b"x" * n), "bucket", str(n)) for n in range(20)]
        for one in waiting:
            one.result()
    assert sorted(sent) == sorted((str(n), b"x" * n) for n in range(20))


def test_pydantic() -> None:
    """A class that cannot be subclassed: what a task raises is that very error."""
    pydantic = library("pydantic")

    class Order(pydantic.BaseModel):  # type: ignore[misc, name-defined]
        number: int

    with BoundedExecutor(1) as pool:
        future = pool.submit(Order, number="many")
        with pytest.raises(pydantic.ValidationError, match="valid integer") as caught:
            future.result(30)
        assert caught.value.error_count() == 1
        assert isinstance(future.exception(30), pydantic.ValidationError)
        assert cf.wait([future]).done == {future}
