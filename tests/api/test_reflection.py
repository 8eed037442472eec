"""What `inspect`, `typing`, `pickle`, `copy` and `help` see of the public classes."""

from __future__ import annotations

import abc
import copy
import inspect
import pickle
import pydoc
import typing
from collections.abc import Callable, Iterator
from concurrent import futures as cf
from enum import Enum
from types import FunctionType
from typing import Any

import pytest

import futurepool
from futurepool import BoundedExecutor, CancelToken, ExecutorView, Future, OnFull, Priority, Stats

PUBLIC = [getattr(futurepool, name) for name in futurepool.__all__]
CLASSES = [value for value in PUBLIC if isinstance(value, type)]


def functions_of(cls: type) -> Iterator[tuple[str, Any]]:
    """The functions that users call or that the language calls for them."""
    for name in dir(cls):
        value = inspect.getattr_static(cls, name)
        value = getattr(value, "__func__", getattr(value, "fget", value))
        dunder = name.startswith("__") and name.endswith("__")
        if isinstance(value, FunctionType) and (dunder or not name.startswith("_")):
            yield name, value


FUNCTIONS = [
    pytest.param(value, id=f"{cls.__name__}.{name}")
    for cls in CLASSES
    if not issubclass(cls, Enum)
    for name, value in functions_of(cls)
    if value.__module__.startswith("futurepool")
]


@pytest.fixture
def pool() -> Iterator[BoundedExecutor]:
    with BoundedExecutor(1) as pool:
        yield pool


@pytest.mark.parametrize("function", FUNCTIONS)
def test_type_hints_of_every_method(function: FunctionType) -> None:
    """Each name in them can be found."""
    typing.get_type_hints(function)
    inspect.signature(function, eval_str=True)


@pytest.mark.parametrize("cls", CLASSES)
def test_type_hints_of_every_class(cls: type) -> None:
    """Those of the standard library's classes have none."""
    typing.get_type_hints(cls)


def test_hints_are_the_classes() -> None:
    """Also of those that are imported late."""
    assert typing.get_type_hints(BoundedExecutor.stats) == {"return": Stats}
    expected = list[futurepool.RunningTask]
    assert typing.get_type_hints(BoundedExecutor.running)["return"] == expected


@pytest.mark.parametrize("value", PUBLIC)
def test_public_names_say_where_they_are(value: Any) -> None:
    """Not in which module they happen to be written."""
    assert value.__module__ == "futurepool"
    assert getattr(futurepool, value.__qualname__) is value


def test_a_future_is_of_the_class_that_is_public(pool: BoundedExecutor) -> None:
    """By every way in."""
    view = pool.options(name="n")
    futures = [pool.submit(int), view.submit(int), pool.try_submit(int), Future()]
    assert [type(future) for future in futures] == [Future] * 4


def test_a_future_of_ones_own() -> None:
    """Pending, and usable as the standard class's."""
    future: Future[int] = Future[int]()
    assert not future.done()
    future.set_result(3)
    assert future.result() == 3
    with pytest.raises(TypeError, match="argument"):
        Future(1)  # type: ignore[call-arg]


def test_a_subclass_of_future() -> None:
    """Its `__init__` gets its arguments."""

    class Tagged(Future[int]):
        def __init__(self, tag: str, *, size: int = 1) -> None:
            super().__init__()
            self.tag = tag, size

    future = Tagged("a", size=2)
    assert future.tag == ("a", 2)
    assert future.cancel()
    assert str(inspect.signature(Tagged)) == "(tag: 'str', *, size: 'int' = 1) -> 'None'"


def test_signatures() -> None:
    """Those that people read in their editor."""
    assert str(inspect.signature(Future)) == "()"
    assert list(inspect.signature(BoundedExecutor).parameters)[:4] == [
        "max_workers",
        "thread_name_prefix",
        "initializer",
        "initargs",
    ]
    ours, theirs = (inspect.signature(c.submit) for c in (BoundedExecutor, cf.ThreadPoolExecutor))
    assert list(ours.parameters) == list(theirs.parameters)


@pytest.mark.parametrize("cls", [BoundedExecutor, ExecutorView])
def test_help_lists_the_methods_with_their_class(cls: type) -> None:
    """Not as those of an internal base."""
    text = pydoc.render_doc(cls, renderer=pydoc.plaintext)
    here = text.split("Methods inherited from")[0]
    for name in ("submit", "try_submit", "map", "options", "arun"):
        assert f"\n |  {name}(" in here


@pytest.mark.parametrize("name", ["submit", "try_submit", "map", "options", "amap", "shutdown"])
def test_wrong_arguments_name_the_public_class(name: str, pool: BoundedExecutor) -> None:
    """Views call themselves views."""
    for target in (pool, pool.options(priority=2)):
        method: Callable[..., Any] = getattr(target, name)
        expected = f"{type(target).__name__}.{name}() "
        bad: dict[str, Any] = {} if "submit" in name else {"no_such_argument": 1}
        with pytest.raises(TypeError) as caught:
            method(**bad)
        assert str(caught.value).startswith(expected)


class Config:
    """Holds one, as an application's settings do."""

    def __init__(self, held: Any) -> None:
        self.held = held


COPIES = {
    "pickle": pickle.dumps,
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle a holder": lambda value: pickle.dumps(Config(value)),
    "deepcopy a holder": lambda value: copy.deepcopy(Config(value)),
}
KEPT: dict[str, tuple[Callable[[BoundedExecutor], object], str]] = {
    "BoundedExecutor": (lambda pool: pool, "the arguments it was made with"),
    "ExecutorView": (lambda pool: pool.options(priority=2), "the arguments it was made with"),
    "Future": (lambda pool: pool.submit(int), r"hand on its result\(\)"),
    "CancelToken": (lambda _: CancelToken(5), "remaining"),
}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("kind", KEPT)
def test_what_lives_here_is_not_copied(kind: str, how: str, pool: BoundedExecutor) -> None:
    """The message names it and says what to do; a copy would share its threads."""
    make, advice = KEPT[kind]
    expected = rf"^futurepool\.{kind} cannot be pickled or copied: .*{advice}"
    with pytest.raises(TypeError, match=expected):
        COPIES[how](make(pool))
    assert pool.submit(int).result() == 0


class Portable(BoundedExecutor):
    """A subclass that knows how to be made again."""

    def __reduce__(self) -> Any:
        return Portable, (self._max_workers,)


class Stateful(BoundedExecutor):
    """The same by its state."""

    def __getstate__(self) -> Any:
        return {"size": self._max_workers}

    def __setstate__(self, state: Any) -> None:
        self.__init__(state["size"])  # type: ignore[misc]


@pytest.mark.parametrize("cls", [Portable, Stateful])
def test_a_subclass_may_know_how_to_be_pickled(cls: type[BoundedExecutor]) -> None:
    """As one of the standard class may."""
    with cls(3) as pool, pickle.loads(pickle.dumps(pool)) as other, copy.copy(pool) as third:
        assert type(other) is cls
        assert other._max_workers == third._max_workers == 3
        assert other is not pool
        assert other.submit(int).result() == third.submit(int).result() == 0


@pytest.mark.parametrize("member", [*OnFull, *Priority])
def test_enums_are_pickled_by_their_public_name(member: Any) -> None:
    """Which will stay, unlike the module."""
    data = pickle.dumps(member, 0)
    assert pickle.loads(data) is member
    assert b"futurepool\n" in data


@pytest.mark.parametrize(
    "error", [futurepool.QueueFullError(limit=3, waited=0.5), futurepool.PoolClosedError()]
)
def test_errors_are_pickled_by_their_public_name(error: Exception) -> None:
    """With what they say."""
    data = pickle.dumps(error, 0)
    assert b"futurepool\n" in data
    again = pickle.loads(data)
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


def test_statistics_for_pydantic() -> None:
    """So that FastAPI takes `pool.stats` for a route: the latest error is shown as text."""
    pydantic = pytest.importorskip("pydantic")
    with BoundedExecutor(1, enable_metrics=True) as pool:
        pool.submit(int, "x").exception()
        adapter = pydantic.TypeAdapter(Stats)
        text = adapter.dump_json(pool.stats()).decode()
    assert '"last_error":"ValueError: invalid literal for int() with base 10: \'x\'"' in text
    assert adapter.json_schema(mode="serialization")["type"] == "object"


def test_a_route_of_fastapi(pool: BoundedExecutor) -> None:
    """`app.get(...)(pool.stats)`, and what tells which tasks run."""
    fastapi = pytest.importorskip("fastapi")
    app = fastapi.FastAPI()
    app.get("/stats")(pool.stats)
    app.get("/running")(pool.running)
    assert {"/stats", "/running"} <= set(app.openapi()["paths"])


def test_registered_as_abstract_classes_they_work(pool: BoundedExecutor) -> None:
    """`isinstance` of what is asked for most."""

    class Anything(abc.ABC):
        @abc.abstractmethod
        def anything(self) -> None: ...

    Anything.register(BoundedExecutor)
    assert isinstance(pool, Anything)
    assert isinstance(pool, cf.ThreadPoolExecutor)
    assert isinstance(pool.submit(int), cf.Future)
