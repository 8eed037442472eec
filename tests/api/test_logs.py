"""What is logged, when, and from where."""

from __future__ import annotations

import gc
import logging
import logging.config
import os
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

import futurepool
from futurepool import BoundedExecutor, Future, _logs
from futurepool._errors.failures import failure_of
from tests.programs import python


def fail(*_args: object) -> None:
    raise ValueError("bad")


def logged(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """What has been logged once all is said that is to be."""
    gc.collect()
    _logs.desk.settle()
    return [record for record in caplog.records if record.name == "futurepool"]


class Heard(logging.Handler):
    """Notes in which thread it hears what, while `hold` lets it."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[tuple[str, str]] = []
        self.hold = threading.Lock()

    def emit(self, record: logging.LogRecord) -> None:
        with self.hold:
            self.heard.append((threading.current_thread().name, record.getMessage()))


@pytest.fixture
def handler() -> Iterator[Heard]:
    logger = logging.getLogger("futurepool")
    handler = Heard()
    logger.addHandler(handler)
    yield handler
    _logs.desk.settle()
    logger.removeHandler(handler)


def test_records_name_pool_and_task(caplog: pytest.LogCaptureFixture) -> None:
    """As attributes, for filters and formats, also where records have such attributes from elsewhere."""

    def factory(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = logging.LogRecord(*args, **kwargs)
        record.task_id = record.pool = "another's"
        return record

    with BoundedExecutor(1, name="db") as pool:
        pool.options(name="load").submit(fail)
    logging.setLogRecordFactory(factory)
    try:
        with BoundedExecutor(1, name="web") as pool:
            pool.submit(fail)
    finally:
        logging.setLogRecordFactory(logging.LogRecord)
    found: list[Any] = logged(caplog)
    assert [(each.pool, each.task_id, each.task_name) for each in found] == [
        ("db", 1, "load"),
        ("web", 1, "fail"),
    ]
    assert found[0].exc_info[0] is ValueError


def test_nothing_is_logged_where_a_failure_dies(handler: Heard) -> None:
    """Not in the finalizer: a handler that is stuck holds nobody up, and it hears all of it in the end."""
    with BoundedExecutor(1) as pool, handler.hold:
        futures = [pool.submit(fail) for _ in range(3)]
        assert pool.wait(30)
        del futures
        gc.collect()
        assert handler.heard == []
        pool.submit(int).result(30)
    assert [name for name, _ in handler.heard] == ["futurepool-log"] * 3


def test_a_failing_error_handler_is_logged_aside(handler: Heard) -> None:
    """The worker goes on, whatever the log's handlers do."""
    with BoundedExecutor(1, error_handler=fail) as pool, handler.hold:
        pool.submit(fail)
        assert pool.submit(int).result(30) == 0
    ((name, text),) = handler.heard
    assert (name, "error_handler" in text) == ("futurepool-log", True)


def test_a_handler_that_raises_is_heard_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """By `threading.excepthook`; what is to be said after it is said."""
    seen: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: seen.append(args.exc_type))
    said = threading.Event()
    _logs.desk.later(fail)
    _logs.desk.later(said.set)
    assert said.wait(30)
    assert seen == [ValueError]


def test_without_a_thread_it_is_said_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the thread that the next one starts, or by whoever drains it."""

    def none(*_args: object) -> None:
        raise RuntimeError("can't start new thread")

    desk = _logs.Desk()
    said: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr("futurepool._sync.start_new_thread", none)
        desk.later(lambda: said.append(1))
    desk.drain()
    assert said == [1]
    with monkeypatch.context() as patch:
        patch.setattr("futurepool._sync.start_new_thread", none)
        desk.later(lambda: said.append(2))
    with monkeypatch.context() as patch:
        patch.setattr("futurepool._sync.start", none)
        desk.later(lambda: said.append(3))
        desk.settle()
    assert said == [1, 2, 3]


def test_its_own_thread_does_not_wait_for_itself() -> None:
    """A handler may shut a pool down."""
    done = threading.Event()

    def say() -> None:
        _logs.desk.settle()
        done.set()

    _logs.desk.later(say)
    assert done.wait(30)


CONFIG = {
    "version": 1,
    "handlers": {"heard": {"class": f"{__name__}.Heard"}},
    "root": {"handlers": ["heard"], "level": "INFO"},
}


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger; it and all others are put back to what they were."""
    root = logging.getLogger()
    ours = [each for each in root.manager.loggerDict.values() if isinstance(each, logging.Logger)]
    states = [(each, each.disabled, each.level) for each in ours]
    before = root.handlers[:], root.level
    yield root
    root.handlers[:], root.level = before
    for logger, disabled, level in states:
        logger.disabled = disabled
        logger.setLevel(level)


@pytest.mark.parametrize(
    ("more", "heard"),
    [
        ({}, 1),
        ({"loggers": {"futurepool": {"level": "CRITICAL"}}}, 0),
        ({"loggers": {"futurepool": {"level": "ERROR"}}}, 1),
    ],
)
def test_dict_config_does_not_silence_it(
    root: logging.Logger, more: dict[str, Any], heard: int
) -> None:
    """Its default disables every logger that exists and is not named; that was not meant for this one."""
    logging.config.dictConfig({**CONFIG, **more})
    with BoundedExecutor(1) as pool:
        pool.submit(fail)
    (handler,) = (each for each in root.handlers if type(each).__name__ == "Heard")
    assert len(handler.heard) == heard  # type: ignore[attr-defined]


def test_nor_does_it_silence_what_is_said_of_tokens(root: logging.Logger) -> None:
    """Nor anything else that is said in the package's name; the line is that which says it."""
    logging.config.dictConfig(CONFIG)
    token = futurepool.CancelToken()
    token.add_callback(fail)
    token.cancel()
    (handler,) = (each for each in root.handlers if type(each).__name__ == "Heard")
    assert len(handler.heard) == 1  # type: ignore[attr-defined]


def test_who_disables_it_is_obeyed(root: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    """By name, or all of logging."""
    with BoundedExecutor(1) as pool:
        logging.getLogger("futurepool").disabled = True
        pool.submit(fail)
    with BoundedExecutor(1) as pool:
        logging.getLogger("futurepool").disabled = False
        logging.disable(logging.CRITICAL)
        pool.submit(fail)
    logging.disable(logging.NOTSET)
    assert logged(caplog) == []


@pytest.mark.parametrize("chunksize", [1, 2])
@pytest.mark.parametrize("method", ["map", "lazy", "map_unordered", "subclass"])
def test_a_map_tells_of_its_failures_once(
    method: str, chunksize: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Who saw the first one knows; those that still run fail unheard, too."""

    class Own(BoundedExecutor):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            return super().submit(fn, *args, **kwargs)

    gate, running = threading.Event(), threading.Event()

    def call(number: int) -> None:
        if number == 2:
            running.set()
            assert gate.wait(30)
        fail()

    with (Own if method == "subclass" else BoundedExecutor)(2) as pool:
        options = {"buffersize": 6} if method == "lazy" else {}
        if method == "map_unordered":
            results = pool.map_unordered(call, range(20), chunksize=chunksize)
        else:
            results = pool.map(call, range(20), chunksize=chunksize, **options)
            assert running.wait(30)
        with pytest.raises(ValueError, match="bad"):
            next(results)
        gate.set()
        del results
    assert logged(caplog) == []


def test_a_map_that_is_not_read_logs_its_failures(caplog: pytest.LogCaptureFixture) -> None:
    """Each of them: nobody has seen any."""
    with BoundedExecutor(2) as pool:
        pool.map(fail, range(3))
        pool.wait(30)
        leaving = pool.map(lambda n: n or fail(), [1, 0, 0])
        assert next(leaving) == 1
        pool.wait(30)
        del leaving
    assert len(logged(caplog)) == 5


def test_a_waiting_failure_keeps_arguments_no_longer_than_needed() -> None:
    """What the log has been told is let go of."""

    class Argument:
        pass

    argument = Argument()
    gone = weakref.ref(argument)
    logging.disable(logging.CRITICAL)  # or pytest keeps the record
    with BoundedExecutor(1) as pool:
        pool.submit(fail, argument)
        del argument
    gc.collect()
    _logs.desk.settle()
    logging.disable(logging.NOTSET)
    assert gone() is None


def test_one_that_was_never_an_outcome_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Two threads may settle what a section has left; only one of them commits."""
    failure = failure_of(ValueError(), 1, "f")
    failure.watch("pool")
    del failure
    assert logged(caplog) == []


SCRIPTS = {
    "held at the end": """
        future = pool.submit(fail)
        """,
    "in a cycle": """
        class Job:
            def __init__(self):
                self.future = pool.submit(fail, self)
        import gc
        gc.disable()
        Job()
        pool.wait()
        """,
    "running at the end": """
        import threading
        ending = threading.Event()
        threading._register_atexit(ending.set)  # called before the pool's, which came sooner
        pool.submit(lambda: (ending.wait(), fail()))
        """,
    "in an atexit function": """
        import atexit
        future = pool.submit(fail)
        pool.wait()
        atexit.register(lambda: globals().pop("future"))
        """,
    "of a map": """
        results = pool.map(fail, [1])
        """,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_at_interpreter_exit_it_is_logged_with_its_traceback(name: str) -> None:
    """Once, whoever holds the future then."""
    script = f"""
import logging
logging.basicConfig(format="%(message)s of %(pool)s")
from futurepool import BoundedExecutor
def fail(*args):
    raise ValueError("bad")
pool = BoundedExecutor(1, name="db")
{"".join(line[8:] + chr(10) for line in SCRIPTS[name].splitlines())}
"""
    done = python(script)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.count("was never retrieved of db") == 1, done.stderr
    assert done.stderr.count("ValueError: bad") == 1
    assert "in fail" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_the_child_of_a_fork_does_not_log_what_is_the_parents() -> None:
    """It dies there, too, but only the parent is to say so."""
    script = """
import logging, os
logging.basicConfig(format="%(message)s")
from futurepool import BoundedExecutor, _logs
pool = BoundedExecutor(1)
future = pool.submit(int, "x")
pool.wait()
pid = os.fork()
del future
if pid == 0:
    _logs._at_exit()
    os._exit(0)
os.waitpid(pid, 0)
"""
    done = python(script, "-W", "ignore")  # of threads and fork
    assert (done.returncode, done.stderr.count("never retrieved")) == (0, 1), done.stderr
