"""Context variables: what a task finds, and what it leaves behind."""

from __future__ import annotations

import decimal
import sys
import threading
from collections.abc import Callable, Iterator
from contextvars import Context, ContextVar
from decimal import Decimal
from typing import Any

import pytest

from futurepool import BoundedExecutor, InvalidConfigError, OnFull
from tests import helpers
from tests.helpers import Way
from tests.programs import python, unmeasured

VAR: ContextVar[str] = ContextVar("VAR", default="unset")


def _by_caller(pool: BoundedExecutor, fn: Any) -> Any:
    """In the submitting thread, as there is no place."""
    gate = threading.Event()
    with BoundedExecutor(1, queue_size=0) as full:
        full.submit(gate.wait, 60)
        try:
            return full.options(on_full=OnFull.CALLER_RUNS).submit(fn, 0).result(0)
        finally:
            gate.set()


def _from_a_task(pool: BoundedExecutor, fn: Any) -> Any:
    """Of a pool with one worker, which waits for it."""
    with BoundedExecutor(1) as small:
        return small.submit(lambda: small.submit(fn, 0).result()).result(30)


def _from_a_task_in_time(pool: BoundedExecutor, fn: Any) -> Any:
    with BoundedExecutor(1) as small:
        return small.submit(lambda: small.submit(fn, 0).result(30)).result(30)


def _from_a_full_pool(pool: BoundedExecutor, fn: Any) -> Any:
    with BoundedExecutor(1, queue_size=0) as small:
        return small.submit(small.submit, fn, 0).result(30).result(30)


WAYS: dict[str, Way] = {
    **helpers.WAYS,
    "CALLER_RUNS": _by_caller,
    "from a task": _from_a_task,
    "from a task, in time": _from_a_task_in_time,
    "from a task, over the bound": _from_a_full_pool,
}


@pytest.fixture
def pool() -> Iterator[BoundedExecutor]:
    with BoundedExecutor(1) as pool:
        yield pool


def aloof(test: Callable[[], None]) -> None:
    """Run `test` in an empty context."""
    Context().run(test)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_decimal_context_is_the_tasks_own(pool: BoundedExecutor, way: Way) -> None:
    """It begins as a copy of the caller's; neither sees what the other sets or raises."""

    def task(_: int) -> tuple[int, bool, bool]:
        ours = decimal.getcontext()
        found = (ours.prec, ours.traps[decimal.Inexact], ours.flags[decimal.Rounded])
        ours.prec = 3
        ours.traps[decimal.DivisionByZero] = False
        Decimal(1) / 3
        return found

    def test() -> None:
        ours = decimal.getcontext()
        ours.prec = 11
        ours.clear_flags()
        assert way(pool, task) == (11, False, False)
        assert way(pool, task) == (11, False, False)
        assert decimal.getcontext() is ours
        assert ours.prec == 11
        assert ours.traps[decimal.DivisionByZero]
        assert not ours.flags[decimal.Inexact]

    aloof(test)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_caller_without_a_decimal_context(pool: BoundedExecutor, way: Way) -> None:
    """Each task begins with Python's."""

    def task(_: int) -> int:
        found = decimal.getcontext().prec
        decimal.getcontext().prec = 3
        return found

    def test() -> None:
        VAR.set("caller's")
        assert [way(pool, task), way(pool, task)] == [28, 28]

    aloof(test)


def test_a_task_has_what_was_set_when_it_was_submitted(pool: BoundedExecutor) -> None:
    """Not what its caller has set while it waited."""

    def test() -> None:
        gate = threading.Event()
        decimal.getcontext().prec = 11
        VAR.set("before")
        pool.submit(gate.wait, 60)
        future = pool.submit(lambda: (decimal.getcontext().prec, VAR.get()))
        decimal.getcontext().prec = 5
        VAR.set("after")
        gate.set()
        assert future.result(30) == (11, "before")

    aloof(test)


def test_a_subclass_of_the_decimal_context(pool: BoundedExecutor) -> None:
    """Becomes a plain one, as in `localcontext`; no method of it is called."""

    class Mine(decimal.Context):
        def copy(self) -> decimal.Context:
            raise AssertionError("never called")

    def test() -> None:
        decimal.setcontext(Mine(prec=9))
        assert pool.submit(lambda: decimal.getcontext().prec).result(30) == 9

    aloof(test)


# -- what an initializer has set -------------------------------------------------------------------


def _initialize() -> None:
    VAR.set("initializer's")
    decimal.getcontext().prec = 50


def _look(_: int) -> tuple[str, int]:
    """What there is, and then something else."""
    found = (VAR.get(), decimal.getcontext().prec)
    VAR.set("task's")
    decimal.getcontext().prec = 3
    return found


INITIALIZED = {
    name: way for name, way in WAYS.items() if name != "CALLER_RUNS" and not name.startswith("from")
}


@pytest.fixture
def initialized() -> Iterator[BoundedExecutor]:
    with BoundedExecutor(1, initializer=_initialize) as pool:
        yield pool


@pytest.mark.parametrize("way", INITIALIZED.values(), ids=INITIALIZED)
def test_tasks_find_what_the_initializer_has_set(initialized: BoundedExecutor, way: Way) -> None:
    """Each of them, whatever another has set."""

    def test() -> None:
        assert way(initialized, _look) == ("initializer's", 50)
        assert way(initialized, _look) == ("initializer's", 50)

    aloof(test)


@pytest.mark.parametrize("way", INITIALIZED.values(), ids=INITIALIZED)
def test_the_callers_own_goes_before(initialized: BoundedExecutor, way: Way) -> None:
    def test() -> None:
        VAR.set("caller's")
        assert way(initialized, _look) == ("caller's", 50)
        decimal.getcontext().prec = 11
        assert way(initialized, _look) == ("caller's", 11)

    aloof(test)


def test_a_caller_who_has_only_computed(initialized: BoundedExecutor) -> None:
    """The decimal context that Python has made for it by itself does not count."""

    def test() -> None:
        Decimal(1) / 3
        assert decimal.getcontext().flags[decimal.Inexact]
        assert initialized.submit(_look, 0).result(30) == ("initializer's", 50)

    aloof(test)


def test_what_callbacks_set_is_not_the_initializers(initialized: BoundedExecutor) -> None:
    """They run in the worker's own context."""

    def test() -> None:
        gate = threading.Event()
        future = initialized.submit(gate.wait, 60)
        future.add_done_callback(lambda _: _look(0))
        gate.set()
        assert initialized.submit(_look, 0).result(30) == ("initializer's", 50)

    aloof(test)


def test_after_an_interruption(initialized: BoundedExecutor) -> None:
    """The worker goes on with the same."""
    assert aloof is not None
    failing = initialized.submit(sys.exit)
    assert isinstance(failing.exception(30), SystemExit)
    assert Context().run(initialized.submit, _look, 0).result(30) == ("initializer's", 50)


def test_a_task_that_waits_for_another(initialized: BoundedExecutor) -> None:
    """The other one finds what the initializer has set, wherever it runs."""

    def outer() -> Any:
        return Context().run(initialized.submit, _look, 0).result()

    assert Context().run(initialized.submit, outer).result(30) == ("initializer's", 50)


# -- context="none" ---------------------------------------------------------------------------------


@pytest.mark.parametrize("way", INITIALIZED.values(), ids=INITIALIZED)
def test_a_pool_that_leaves_contexts_behind(way: Way) -> None:
    def test() -> None:
        VAR.set("caller's")
        decimal.getcontext().prec = 11
        with BoundedExecutor(1, context="none") as pool:
            assert way(pool, _look) == ("unset", 28)
            assert way(pool, _look) == ("unset", 28)
        with BoundedExecutor(1, context="none", initializer=_initialize) as pool:
            assert way(pool, _look) == ("initializer's", 50)
        assert (VAR.get(), decimal.getcontext().prec) == ("caller's", 11)

    aloof(test)


def test_other_values_of_context() -> None:
    assert BoundedExecutor(1, context="copy").submit(int).result(30) == 0
    with pytest.raises(
        InvalidConfigError, match=r'context must be "copy" or "none", not \'share\''
    ):
        BoundedExecutor(1, context="share")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r'context must be "copy" or "none", not None'):
        BoundedExecutor(1, context=None)  # type: ignore[arg-type]


# -- in a fresh interpreter ------------------------------------------------------------------------


def run(script: str, *options: str) -> str:
    done = python(script, *options, env=unmeasured())
    assert done.stderr == ""
    return done.stdout


LATE = """
import contextvars, sys
from futurepool import BoundedExecutor
with BoundedExecutor(1) as pool:
    contextvars.ContextVar("var").set(1)
    pool.submit(int).result()
    assert "decimal" not in sys.modules
    import decimal
    decimal.getcontext().prec = 11
    print(pool.submit(lambda: setattr(decimal.getcontext(), "prec", 3)).result())
    print(decimal.getcontext().prec)
"""


@pytest.mark.slow
def test_decimal_is_imported_late() -> None:
    assert run(LATE) == "None\n11\n"


FILTERS = """
import warnings
from futurepool import BoundedExecutor

def rude():
    warnings.simplefilter("ignore")
    warnings.warn("not recorded")
    return "said"

def polite():
    warnings.warn("recorded")

with BoundedExecutor(1) as pool, warnings.catch_warnings(record=True) as log:
    warnings.simplefilter("always")
    print(pool.submit(rude).result())
    pool.submit(polite).result()
    print([str(one.message) for one in log])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info < (3, 14), reason="filters are global there")
def test_warning_filters_in_a_context() -> None:
    """A task that sets some sets its own; what it warns of is recorded for its caller."""
    assert run(FILTERS, "-X", "context_aware_warnings=1") == "said\n['recorded']\n"
