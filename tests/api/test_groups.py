"""Groups: tasks that end together; leaving waits for them, and raises what has gone wrong."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import threading
import time
import weakref
from collections.abc import Callable
from concurrent import futures as cf
from typing import Any

import pytest

from futurepool import (
    BoundedExecutor,
    CancelToken,
    Future,
    InvalidConfigError,
    TaskError,
    TaskGroup,
    _logs,
    current_token,
)
from futurepool._foreign import aside

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup, ExceptionGroup


def fail(text: str = "no") -> None:
    """Raise one."""
    raise ValueError(text)


def until_cancelled() -> str:
    """What a task does that looks at its token."""
    assert current_token().wait(30)
    return "told"


def running(group: Any, last: Callable[[str], Any] = str) -> Any:
    """The future of a task that runs by now, and does so until it is told."""
    begun = threading.Event()

    def task() -> Any:
        begun.set()
        return last(until_cancelled())

    future = group.submit(task)
    assert begun.wait(30)
    return future


def texts(group: BaseExceptionGroup[BaseException]) -> list[str]:
    """What is in it, all of it flat."""
    return [repr(original(error)) for error in group.exceptions]


def original(error: BaseException) -> BaseException:
    """What a task raised."""
    return error.cause if isinstance(error, TaskError) else error


# -- waiting ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 3])
def test_leaving_waits_for_all(workers: int, gate: threading.Event) -> None:
    """Whatever way they came in, those that tasks have submitted too."""
    ran: list[int] = []
    with BoundedExecutor(workers) as ex:
        ex.submit(gate.wait, 30)
        timer = threading.Timer(0.05, gate.set)
        with ex.group() as group:

            def more(number: int) -> None:
                if number:
                    group.submit(more, number - 1)
                ran.append(number)

            group.submit(more, 3)
            group.options(priority=2).submit(ran.append, 10)
            group.try_submit(ran.append, 11)
            group.submit_with_priority(0, ran.append, 12)
            group.submit_with_timeout(9, ran.append, 13)
            group.map(ran.append, [14, 15])
            timer.start()
        assert sorted(ran) == [0, 1, 2, 3, 10, 11, 12, 13, 14, 15]
        timer.join()


def test_results_are_read_after_or_within() -> None:
    """The group changes nothing about futures."""
    with BoundedExecutor(2) as ex:
        with ex.group() as group:
            first = group.submit(abs, -1)
            assert first.result(30) == 1
            second = group.submit(abs, -2)
            assert list(group.map(abs, range(-3, 0))) == [3, 2, 1]
        assert second.done()
        assert second.result() == 2


def test_who_comes_while_it_is_left_is_waited_for() -> None:
    """The one who leaves looks twice, and tasks may go on to submit."""
    from futurepool._executor.groups import GroupToken

    token = GroupToken(None, None)
    token.enter()
    one, two = Future[int](), Future[int]()
    assert token._add_listener(one)
    assert not token.leave()
    assert token._add_listener(two)
    one.set_result(1)
    token.note(one)
    assert not token.leave()
    two.cancel()
    token.note(two)
    assert token.leave()
    with pytest.raises(RuntimeError, match="was left"):
        token._add_listener(Future[int]())
    assert not token.members


def test_an_empty_group() -> None:
    """Leaves at once."""
    with BoundedExecutor(1) as ex, ex.group():
        pass
    assert ex.stats().submitted_tasks == 0


def test_who_submits_too_late_is_refused(gate: threading.Event) -> None:
    """Before it is entered, and after it was left."""
    with BoundedExecutor(1) as ex:
        group = ex.group()
        with pytest.raises(RuntimeError, match="has to be entered first"):
            group.submit(abs, -1)
        with group:
            pass
        for submit in (group.submit, group.try_submit, group.options(priority=1).submit):
            with pytest.raises(RuntimeError, match="the group was left; it takes no more tasks"):
                submit(abs, -1)
        with pytest.raises(RuntimeError, match="the group was left"):
            group.map(abs, [1])
        with pytest.raises(RuntimeError, match="only once"):
            group.__enter__()
        assert ex.submit(abs, -3).result(30) == 3
        assert ex.stats().submitted_tasks == 1
        assert "left" in repr(group)


# -- failures --------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_the_first_failure_cancels_the_others(workers: int) -> None:
    """Those that run are told, those that wait never start; one error comes out."""
    with BoundedExecutor(workers) as ex:
        with pytest.raises(ExceptionGroup) as caught, ex.group() as group:
            others = [running(group) for _ in range(workers - 1)]
            group.submit(fail)
            waiting = [group.submit(until_cancelled) for _ in range(5)]
        assert [future.result() for future in others] == ["told"] * (workers - 1)
        assert all(future.cancelled() for future in waiting)
        with pytest.raises(cf.CancelledError, match="of its group has failed"):
            waiting[0].result()
        (error,) = caught.value.exceptions
        assert isinstance(error, ValueError)
        assert isinstance(error, TaskError)
        assert str(error) == "no"
        assert ex.submit(abs, -1).result(30) == 1


def test_a_task_that_is_next_does_not_start_after_a_failure() -> None:
    """The one worker that saw the failure comes to it before anybody has cancelled it."""
    ran: list[int] = []
    with BoundedExecutor(1) as ex:
        for _ in range(50):
            with pytest.raises(ExceptionGroup), ex.group() as group:
                group.submit(fail)
                for _ in range(3):
                    group.submit(ran.append, 1)
    assert ran == []


def test_all_that_was_raised_is_in_the_group() -> None:
    """Of tasks that failed together."""
    together = threading.Barrier(3)

    def both(text: str) -> None:
        together.wait(30)
        fail(text)

    with BoundedExecutor(3) as ex:
        with pytest.raises(ExceptionGroup) as caught, ex.group() as group:
            for text in "abc":
                group.submit(both, text)
        assert sorted(map(str, caught.value.exceptions)) == ["a", "b", "c"]


def test_the_block_fails() -> None:
    """Its exception is in the group, and the tasks are cancelled."""
    with BoundedExecutor(1) as ex:
        with pytest.raises(ExceptionGroup) as caught, ex.group() as group:
            told = running(group)
            raise LookupError("mine")
        assert texts(caught.value) == ["LookupError('mine')"]
        assert told.result() == "told"


def test_the_block_and_a_task_fail() -> None:
    """Both are in the group; the error of a task that the block has read is there once."""
    with BoundedExecutor(1) as ex:
        with pytest.raises(ExceptionGroup) as caught, ex.group() as group:
            cf.wait([group.submit(fail)])
            raise LookupError("mine")
        assert texts(caught.value) == ["ValueError('no')", "LookupError('mine')"]
        with pytest.raises(ExceptionGroup) as caught, ex.group() as group:
            group.submit(fail).result(30)
        assert texts(caught.value) == ["ValueError('no')"]
        with pytest.raises(ExceptionGroup) as caught, ex.group() as group:
            list(group.map(fail, ["one"]))
        assert texts(caught.value) == ["ValueError('one')"]


def test_a_cancelled_error_is_no_failure() -> None:
    """Neither of a task, nor of the block beside one; alone it goes on."""

    def give_up() -> None:
        raise cf.CancelledError

    with BoundedExecutor(1) as ex:
        with ex.group() as group:
            group.submit(give_up)
            assert group.submit(abs, -1).result(30) == 1
        with pytest.raises(cf.CancelledError), ex.group() as group:
            raise cf.CancelledError
        with pytest.raises(ExceptionGroup) as caught, ex.group() as group:
            failed, other = group.submit(fail), group.submit(abs, -1)
            cf.wait([failed])
            other.result(30)
        assert texts(caught.value) == ["ValueError('no')"]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("where", ["block", "task"])
def test_what_ends_programs_goes_on_as_it_is(kind: type[BaseException], where: str) -> None:
    """As with asyncio's."""

    def end() -> None:
        raise kind("now")

    with BoundedExecutor(1) as ex:
        with pytest.raises(kind, match="now") as caught, ex.group() as group:
            told = running(group)
            if where == "block":
                end()
            told.cancel()
            group.submit(end)
        assert type(caught.value) is kind
        assert told.result() == "told"


def test_other_base_exceptions_make_a_base_group() -> None:
    """As the class of the standard library says."""

    class Odd(BaseException):
        pass

    def odd() -> None:
        raise Odd

    with BoundedExecutor(1) as ex:
        with pytest.raises(BaseExceptionGroup) as caught, ex.group() as group:
            group.submit(odd)
        assert not isinstance(caught.value, Exception)
        assert type(caught.value.exceptions[0]) is Odd


@pytest.mark.skipif(sys.version_info < (3, 11), reason="`except*` came with 3.11")
def test_except_star() -> None:
    """What users write."""
    found: list[str] = []
    code = """
try:
    with ex.group() as group:
        group.submit(fail, "star")
except* ValueError as group:
    found += map(str, group.exceptions)
"""
    with BoundedExecutor(1) as ex:
        exec(code, {"ex": ex, "fail": fail, "found": found})
    assert found == ["star"]


def test_nothing_is_logged_of_what_is_raised(caplog: pytest.LogCaptureFixture) -> None:
    """The group tells of it. What Ctrl-C hides is logged, as ever."""
    with caplog.at_level(logging.ERROR):
        with BoundedExecutor(1) as ex:
            with pytest.raises(ExceptionGroup), ex.group() as group:
                group.submit(fail)
            gc.collect()
        assert caplog.records == []
        with BoundedExecutor(1) as ex:
            with pytest.raises(KeyboardInterrupt), ex.group() as group:
                cf.wait([group.submit(fail, "hidden")])
                raise KeyboardInterrupt
            del group
        while not caplog.records:  # where there is no GIL it may die later
            gc.collect()
            _logs.desk.settle()
        assert ["never retrieved" in record.getMessage() for record in caplog.records] == [True]


def test_nothing_is_kept_alive() -> None:
    """No reference cycle is left, whatever was raised."""

    class Thing:
        pass

    marks: list[weakref.ref[Thing]] = []

    def raise_mark() -> None:
        thing = Thing()
        marks.append(weakref.ref(thing))
        raise LookupError

    def use(ex: BoundedExecutor, body: Callable[[], object]) -> None:
        try:
            with ex.group() as group:
                group.submit(raise_mark)
                body()
        except (ExceptionGroup, KeyboardInterrupt):
            pass

    async def ause(ex: BoundedExecutor) -> None:
        try:
            async with ex.group() as group:
                await group.arun(raise_mark)
        except ExceptionGroup:
            pass

    gc.collect()
    gc.disable()
    try:
        with BoundedExecutor(1) as ex:
            use(ex, int)
            use(ex, raise_mark)
            asyncio.run(ause(ex))
            ex.submit(int, "x").exception()  # `last_error` is another one's
            for ref in marks:
                for _ in range(500):
                    if ref() is None:
                        break
                    if sys.version_info >= (3, 13):  # free-threaded builds need it
                        gc.collect()
                    ex.submit(time.sleep, 0.002).result(30)
            assert [ref() for ref in marks] == [None] * len(marks)
    finally:
        gc.enable()


# -- tokens and nesting ----------------------------------------------------------------------------


def test_cancel_is_no_failure(gate: threading.Event) -> None:
    """What has not started never does, what runs is told, and leaving raises nothing."""
    with BoundedExecutor(1) as ex:
        with ex.group() as group:
            told = running(group)
            never = group.submit(fail)
            assert group.cancel("enough")
            assert not group.cancel()
            late = group.submit(fail)
        assert told.result() == "told"
        assert never.cancelled()
        assert late.cancelled()
        assert group.token.reason == "enough"


def test_the_token_of_a_view_cancels_its_group() -> None:
    """And so does a deadline."""
    token = CancelToken()
    with BoundedExecutor(1) as ex:
        with ex.options(token=token, name="mine").group() as group:
            told = running(group)
            assert told.name == "mine"
            token.cancel()
        assert told.result() == "told"
        with ex.options(token=CancelToken(0.01)).group() as group:
            late = group.submit(until_cancelled)
        assert late.done()


def test_no_other_token_for_a_task_of_a_group() -> None:
    """It would not be waited for."""
    with BoundedExecutor(1) as ex, ex.group() as group:
        with pytest.raises(InvalidConfigError, match=r"make the group under yours"):
            group.options(token=CancelToken())
        with pytest.raises(InvalidConfigError, match="token=None"):
            group.options(priority=1).options(token=None)
        with pytest.raises(InvalidConfigError):
            group.submit_with_token(CancelToken(), abs, -1)


def test_a_group_in_a_group() -> None:
    """The inner one's failure is the outer one's; the outer one's cancels the inner."""
    with BoundedExecutor(2) as ex:
        with pytest.raises(ExceptionGroup) as caught, ex.group() as outer:
            told = running(outer)
            with outer.group() as inner:
                inner.submit(fail)
        assert told.result() == "told"
        (inside,) = caught.value.exceptions
        assert isinstance(inside, ExceptionGroup)
        assert texts(inside) == ["ValueError('no')"]
        with pytest.raises(ExceptionGroup) as caught, ex.group() as outer, outer.group() as inner:
            told = running(inner)
            outer.submit(fail)
        assert told.result() == "told"
        assert texts(caught.value) == ["ValueError('no')"]


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_a_group_in_a_task_of_the_same_pool(workers: int) -> None:
    """No deadlock, however few workers there are, and however deep."""

    def tree(depth: int) -> int:
        if not depth:
            return 1
        with ex.group() as group:
            parts = [group.submit(tree, depth - 1) for _ in range(2)]
        return sum(part.result() for part in parts)

    with BoundedExecutor(workers) as ex:
        assert ex.submit(tree, 3).result(30) == 8


def test_what_a_task_of_the_group_has_started_is_cancelled_with_it() -> None:
    """In a group of its own, or under its token."""
    begun = threading.Barrier(3)
    ends: list[str] = []

    def leaf() -> None:
        begun.wait(30)
        ends.append(until_cancelled())

    def branch() -> None:
        with ex.group() as inner:
            inner.submit(leaf)
            ex.submit_with_token(current_token(), leaf)

    def bad() -> None:
        begun.wait(30)
        fail()

    with BoundedExecutor(4) as ex:
        with pytest.raises(ExceptionGroup) as caught, ex.group() as group:
            group.submit(branch)
            group.submit(bad)
        assert texts(caught.value) == ["ValueError('no')"]
        assert ex.wait(30)
        assert ends == ["told", "told"]


def test_a_group_in_a_task_under_a_token_of_its_own() -> None:
    """Both cancel it."""
    for by in ("task", "token"):
        token = CancelToken()
        begun = threading.Event()

        def task(token: CancelToken = token, begun: threading.Event = begun) -> Any:
            with ex.options(token=token).group() as group:
                told = running(group)
                begun.set()
            return told.result()

        with BoundedExecutor(3) as ex:
            future = ex.submit(task)
            assert begun.wait(30)
            if by == "task":
                future.cancel()
            else:
                token.cancel()
            assert future.result(30) == "told"


def test_a_failed_group_of_a_task_fails_the_task() -> None:
    """With a group that is a TaskError as well."""

    def task() -> None:
        with ex.group() as group:
            group.submit(fail)

    with BoundedExecutor(2) as ex:
        with pytest.raises(ExceptionGroup) as caught, ex.group() as group:
            group.submit(task)
        (inside,) = caught.value.exceptions
        assert isinstance(inside, ExceptionGroup)
        assert isinstance(inside, TaskError)
        assert texts(inside) == ["ValueError('no')"]


# -- interruptions, ends ---------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="no pthread_kill there")
def test_ctrl_c_while_it_waits() -> None:
    """What runs is told and waited for, what waits never starts, KeyboardInterrupt comes out."""
    import signal

    begun = threading.Event()

    def first() -> str:
        begun.set()
        return until_cancelled()

    with BoundedExecutor(1) as ex:

        def press() -> None:
            begun.wait(30)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

        presser = threading.Thread(target=press)
        with pytest.raises(KeyboardInterrupt), ex.group() as group:
            told = group.submit(first)
            never = group.submit(fail)
            presser.start()
        assert told.result() == "told"
        assert never.cancelled()
        presser.join()


def test_a_second_interruption_ends_the_waiting(
    gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that does not look at its token may never end."""
    from futurepool._executor import groups

    with BoundedExecutor(1) as ex:
        waits = 0

        def interrupted(token: object) -> None:
            nonlocal waits
            waits += 1
            raise KeyboardInterrupt(waits)

        monkeypatch.setattr(groups, "_wait", interrupted)
        with pytest.raises(KeyboardInterrupt, match="2"), ex.group() as group:
            group.submit(gate.wait, 30)
        assert group.token.cancelled
        gate.set()


def test_shutdown_within() -> None:
    """Its tasks are cancelled; leaving does not hang, and raises nothing."""
    with BoundedExecutor(1) as ex, ex.group() as group:
        told = running(group)
        never = group.submit(fail)
        ex.shutdown(wait=False, cancel_futures=True)
        told.cancel()
    assert never.cancelled()
    assert told.result() == "told"


def test_a_group_keeps_its_executor() -> None:
    """Nobody else may hold it."""
    group = BoundedExecutor(1).group()
    gc.collect()
    with group:
        future = group.submit(abs, -1)
    assert future.result() == 1


# -- map -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [{}, {"chunksize": 2}, {"buffersize": 3}])
@pytest.mark.parametrize("method", ["map", "map_unordered"])
def test_map_with_return_exceptions_does_not_fail_the_group(method: str, shape: Any) -> None:
    """What is yielded is dealt with."""
    with BoundedExecutor(2) as ex:
        with ex.group() as group:
            mapped = getattr(group, method)
            found = list(mapped(int, ["1", "x", "3"], return_exceptions=True, **shape))
            assert group.submit(abs, -1).result(30) == 1
        errors = [error for error in found if isinstance(error, Exception)]
        assert sorted(result for result in found if result not in errors) == [1, 3]
        (error,) = errors
        assert isinstance(error, ValueError)
        assert isinstance(error, TaskError)
        assert error.task_name == "int"


def test_amap_with_return_exceptions_does_not_fail_the_group() -> None:
    """The same there."""

    async def main(ex: BoundedExecutor) -> list[Any]:
        async with ex.group() as group:
            items = ["1", "x", "3"]
            return [result async for result in group.amap(int, items, return_exceptions=True)]

    with BoundedExecutor(2) as ex:
        one, error, three = asyncio.run(main(ex))
    assert (one, three) == (1, 3)
    assert isinstance(error, ValueError)
    assert isinstance(error, TaskError)
    assert error.task_name == "int"


# -- asyncio ---------------------------------------------------------------------------------------


def test_async_with(gate: threading.Event) -> None:
    """The loop goes on meanwhile."""

    async def main(ex: BoundedExecutor) -> list[Any]:
        asyncio.get_running_loop().call_later(0.01, gate.set)
        async with ex.group() as group:
            waits = group.submit(gate.wait, 30)
            assert await group.arun(abs, -1) == 1
        assert waits.done()
        return [waits.result()]

    with BoundedExecutor(2) as ex:
        assert asyncio.run(main(ex)) == [True]


@pytest.mark.parametrize("waits_for", ["something else", "a task", "nothing"])
def test_a_failure_interrupts_the_async_body(waits_for: str) -> None:
    """Whatever it awaits; the asyncio task itself is not cancelled afterwards."""

    async def main(ex: BoundedExecutor) -> None:
        with pytest.raises(ExceptionGroup) as caught:
            async with ex.group() as group:
                group.submit(fail)
                if waits_for == "something else":
                    await asyncio.sleep(30)
                elif waits_for == "a task":
                    await group.arun(until_cancelled)
        assert texts(caught.value) == ["ValueError('no')"]
        await asyncio.sleep(0.01)  # nothing is left to be raised here
        task: Any = asyncio.current_task()
        assert sys.version_info < (3, 11) or task.cancelling() == 0

    with BoundedExecutor(2) as ex:
        asyncio.run(main(ex))


def test_cancelling_async_with() -> None:
    """Its tasks are cancelled and waited for, and the cancellation goes on."""
    ends: list[Any] = []

    async def use(ex: BoundedExecutor, inside: asyncio.Event) -> None:
        async with ex.group() as group:
            ends.append(running(group))
            ends.append(group.submit(fail))
            inside.set()
            if len(ends) == 2:
                await asyncio.sleep(30)

    async def main(ex: BoundedExecutor) -> None:
        for _ in range(2):  # in the block, and while it is left
            inside = asyncio.Event()
            task = asyncio.ensure_future(use(ex, inside))
            await inside.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    with BoundedExecutor(1) as ex:
        asyncio.run(main(ex))
    assert [ends[0].result(), ends[2].result()] == ["told", "told"]
    assert ends[1].cancelled()
    assert ends[3].cancelled()


def test_cancelling_async_with_cancels_the_group_first() -> None:
    """Not the task that it happens to wait for: its worker would go on to the next."""
    order: list[bool] = []

    async def main(ex: BoundedExecutor) -> None:
        leaving = asyncio.Event()
        begun = threading.Event()

        async def use() -> None:
            async with ex.group() as group:

                def task() -> str:
                    token = current_token()
                    token.add_callback(lambda _: order.append(group.token.cancelled))
                    begun.set()
                    return until_cancelled()

                group.submit(task)
                assert begun.wait(30)
                leaving.set()

        task = asyncio.ensure_future(use())
        await leaving.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with BoundedExecutor(1) as ex:
        asyncio.run(main(ex))
        aside.join(30)
    assert order == [True]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.timeout came with 3.11")
def test_asyncio_timeout_around_a_group() -> None:
    """It is a TimeoutError; with a failure at the same time the cancellation is not lost."""

    async def main(ex: BoundedExecutor) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01), ex.group() as group:  # type: ignore[attr-defined]
                await group.arun(until_cancelled)

        async def both() -> None:
            with pytest.raises(ExceptionGroup):
                async with ex.group() as group:
                    running(group, fail)
                    await asyncio.sleep(30)
            await asyncio.sleep(30)

        task = asyncio.ensure_future(both())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 20)

    with BoundedExecutor(2) as ex:
        asyncio.run(main(ex))


def test_an_async_body_that_fails() -> None:
    """As in a plain one."""

    async def main(ex: BoundedExecutor) -> None:
        with pytest.raises(ExceptionGroup) as caught:
            async with ex.group() as group:
                told = running(group)
                raise LookupError("mine")
        assert texts(caught.value) == ["LookupError('mine')"]
        assert told.result() == "told"

    with BoundedExecutor(1) as ex:
        asyncio.run(main(ex))


def test_closing_a_coroutine_in_a_group() -> None:
    """It cannot wait; the tasks are cancelled all the same."""

    async def use(ex: BoundedExecutor) -> None:
        async with ex.group() as group:
            futures.append(running(group))
            await asyncio.sleep(30)

    async def main(ex: BoundedExecutor) -> None:
        coroutine = use(ex)
        task = asyncio.ensure_future(asyncio.sleep(0))
        await task
        coroutine.send(None)
        coroutine.close()

    futures: list[Any] = []
    with BoundedExecutor(1) as ex:
        asyncio.run(main(ex))
        assert futures[0].result(30) == "told"


def test_an_async_group_in_a_task_of_the_same_pool() -> None:
    """With one worker, and a loop in it."""

    async def inner(ex: BoundedExecutor) -> int:
        async with ex.group() as group:
            part = group.submit(abs, -4)
        return part.result()

    with BoundedExecutor(1) as ex:
        assert ex.submit(lambda: asyncio.run(inner(ex))).result(30) == 4


# -- without ExceptionGroup ------------------------------------------------------------------------


def test_without_exception_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the call, and it says what to install."""
    from futurepool._executor import groups

    monkeypatch.setattr(groups, "builtins", object())
    monkeypatch.setitem(sys.modules, "exceptiongroup", None)
    with BoundedExecutor(1) as ex, pytest.raises(ImportError, match="install the package"):
        ex.group()


def test_it_is_an_executor() -> None:
    """For code that takes one; shutting it down does nothing."""
    with BoundedExecutor(1) as ex, ex.group() as group:
        assert isinstance(group, TaskGroup)
        assert isinstance(group, cf.Executor)

        async def main() -> int:
            return await asyncio.get_running_loop().run_in_executor(group, abs, -5)

        assert asyncio.run(main()) == 5
        group.shutdown()
        assert group.submit(abs, -6).result(30) == 6
        assert "1 tasks" not in repr(group)


def test_ctrl_c_while_it_cancels(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first interruption, wherever it comes, does not end the waiting."""
    with BoundedExecutor(1) as ex:
        group = ex.group()
        real = group.token.cancel
        calls = 0

        def cancel(token: object, reason: object = None) -> bool:
            nonlocal calls
            calls += 1
            if calls == 1:
                raise KeyboardInterrupt
            return real(reason)

        with pytest.raises(KeyboardInterrupt), group:
            told = running(group)
            monkeypatch.setattr(type(group.token), "cancel", cancel)
            raise LookupError
        assert told.done()
        assert told.result() == "told"
