"""Groups: tasks that end together.

A group has a token, and all its tasks are submitted under it; so whatever way they come in (`submit`, a
view, `map`, `arun`), it knows of them as of its listeners. The token keeps three things:

    members    tasks that are not done: a task is added before it is admitted, and goes when it is done
    failures   what they have raised; a failure is there before its task goes from `members`
    left       true once nobody is to come any more

Whoever notes the first failure marks the token, in one C call: workers that come to another task of the group
find the mark, and set that aside. To cancel them all may take long and take locks, so a thread aside does
it.

Leaving waits for each member by the means of its future. So a task that leaves a group of its own pool
waits as it does for any other future, and is helped as it is there: see `Pool.help`. The group is left
when there is no member after `left` was set; who comes later sees that and is refused, who came before is
waited for.

What is raised follows `asyncio.TaskGroup`:

    KeyboardInterrupt, SystemExit   as it is, of the body, else of whoever interrupted the waiting, else of a task
    a CancelledError of a task      is no failure
    one of the body, or of waiting  goes on, unless there are failures
    all else                        an ExceptionGroup of what tasks and body have raised

In `async with` the first failure also cancels the body, in the task that runs it. Here what the body had
to say of another cancellation at the same time is not lost: the numbers of `Task.cancelling()` add up.
"""

from __future__ import annotations

import builtins
import importlib
import sys
from collections.abc import Callable
from concurrent import futures as cf
from functools import partial
from typing import Any

from futurepool import _sync
from futurepool._cancellation import CancelToken, Opener
from futurepool._errors import PoolClosedError, is_a
from futurepool._errors.failures import Failure, failure_behind
from futurepool._foreign import aside
from futurepool._future import FINISHED, PENDING, RUNNING, Future

__all__: list[str] = []  # internal

AnyFuture = Future[Any]

_NEW, _ENTERED, _LEFT = range(3)
_MESSAGE = "unhandled errors in a group of tasks"
_UNCANCEL = sys.version_info >= (3, 11)  # asyncio counts cancellations
_ALONE = (KeyboardInterrupt, SystemExit)


def group_class() -> Any:
    """`BaseExceptionGroup`; where Python has none, that of the package `exceptiongroup`."""
    found: Any = getattr(builtins, "BaseExceptionGroup", None)
    if found is None:
        try:
            # Not by `import`: checkers of types would miss it where it is not needed.
            found = importlib.import_module("exceptiongroup").BaseExceptionGroup
        except ImportError:
            raise ImportError(
                "groups raise an ExceptionGroup, which Python has from 3.11 on; before, install the "
                "package `exceptiongroup` (the extra `groups` does)"
            ) from None
    return found


def _is_cancellation(error: BaseException) -> bool:
    """A CancelledError: the standard library's, or asyncio's, which is not imported for that."""
    if is_a(error, cf.CancelledError):
        return True
    asyncio = sys.modules.get("asyncio.exceptions")
    return asyncio is not None and issubclass(type(error), asyncio.CancelledError)


class GroupToken(CancelToken):
    """The token of a group; see the head of this module. Any thread; single C calls only."""

    __slots__ = ("_entered", "_outer", "failures", "interrupt", "left", "members")

    _gathers = True

    def __init__(self, parent: CancelToken | None, outer: CancelToken | None) -> None:
        super().__init__(parent=parent)
        self.members: dict[AnyFuture, None] = {}
        self.failures: dict[AnyFuture, Failure] = {}
        self.left: bool = False
        #: Tells the body that a task has failed.
        self.interrupt: Callable[[], object] | None = None
        self._entered: bool = False
        # The token of the task that makes the group, if the parent is another one.
        self._outer: tuple[CancelToken, Opener] | None = None
        if outer is not None:
            listener = Opener(self._outer_cancelled)
            self._outer = outer, listener
            if not outer._add_listener(listener):
                self._outer_cancelled(outer)

    def _outer_cancelled(self, outer: CancelToken) -> None:
        self.cancel_aside(outer.reason)

    def enter(self) -> None:
        """Once.

        Raises:
            RuntimeError: A second time.
        """
        if self._entered:
            raise RuntimeError("a group can be entered only once; make another one")
        self._entered = True

    def _add_listener(self, listener: Any, /) -> bool:
        if not issubclass(type(listener), Future):
            return super()._add_listener(listener)
        if not self._entered:
            raise RuntimeError("the group has to be entered first, by `with` or `async with`")
        task: AnyFuture = listener
        self.members[task] = None
        # mutant left-group-takes-nobody
        if self.left:
            self.members.pop(task, None)
            raise PoolClosedError("the group was left; it takes no more tasks")
        added = super()._add_listener(task)
        if not added:
            self.members.pop(task, None)
        return added

    def _discard_listener(self, listener: Any, /) -> bool:
        found = super()._discard_listener(listener)
        if listener in self.members:
            self.note(listener)
        return found

    def note(self, future: AnyFuture) -> None:
        """A task is done, or will never be. Idempotent; quick, and runs nothing of a user's."""
        if future._state is FINISHED:
            result = future._result
            if type(result) is Failure and not _is_cancellation(result.cause):
                self.failures.setdefault(future, result)
                why = f"task {result.task_id} ({result.task_name}) of its group has failed"
                fate = (why,)
                if self._once.setdefault("reason", fate) is fate:
                    aside.run(partial(self.cancel_aside, why))
                    interrupt = self.interrupt
                    if interrupt is not None:
                        interrupt()
        self.members.pop(future, None)

    def leave(self) -> bool:
        """True if no member is left, and none will come."""
        self.left = True
        # mutant group-with-members-is-not-left
        if self.members:
            # Who has just seen that it was left will be gone soon; and tasks may submit until then.
            self.left = False
            return False
        if self._outer is not None:
            outer, listener = self._outer
            outer._discard_listener(listener)
        return True

    def outcome(
        self, error: BaseException | None, interruption: BaseException | None
    ) -> BaseException | None:
        """What leaving is to raise; None if `error`, which the body has raised, is to go on, if any.

        `interruption` came while the tasks were waited for.
        """
        failures = list(self.failures.values())
        self.failures.clear()
        errors: list[BaseException] = []
        failure: Failure | None = None
        try:
            if error is not None and issubclass(type(error), (*_ALONE, GeneratorExit)):
                return None
            if interruption is not None and issubclass(type(interruption), _ALONE):
                return interruption
            for failure in failures:
                if issubclass(type(failure.cause), _ALONE):
                    return failure.raised()
            for failure in failures:
                if error is not None and (
                    error is failure.cause or failure_behind(error) is failure
                ):
                    failure.seen = True
                    errors.append(error)  # with the body's frames
                    error = None
                else:
                    errors.append(failure.raised())
            if error is not None and not _is_cancellation(error):
                errors.append(error)
            if interruption is not None and not _is_cancellation(interruption):
                errors.append(interruption)
            if not errors:
                return interruption
            group: BaseException = group_class()(_MESSAGE, errors)
            return group
        finally:
            # The traceback of what is raised, or of what is in it, holds who calls this, and that us.
            del self, error, interruption, failures, failure, errors


def token_for(token: CancelToken | None) -> GroupToken:
    """The token of a new group. In a task it is cancelled with the task's token, too."""
    group_class()
    slot: Any = _sync.here.slot
    here: CancelToken | None = None
    if slot is not None and (task := slot.pool.task_in(slot)) is not None:
        here = slot.pool.token_of(task)
    if token is None or here is None:
        return GroupToken(here if token is None else token, None)
    above: CancelToken | None = here
    while above is not None and above is not token:
        above = above._parent
    return GroupToken(here, None) if above is token else GroupToken(token, here)


# -- with ----------------------------------------------------------------------------------------

_BODY = "the body of its group was left by an exception"
_WAIT = "whoever waited for its group was interrupted"


def leave(token: GroupToken, error: BaseException | None) -> None:
    """Wait for all tasks, and raise what there is to be raised.

    The first interruption, as by Ctrl-C, cancels the tasks; a second one is raised at once.
    """
    interruption: BaseException | None = None
    raised_here: BaseException | None = None
    try:
        while True:
            try:
                if error is not None:
                    token.cancel(_BODY)  # again, if it was interrupted
                _wait(token)
                break
            except BaseException as raised:
                if interruption is not None:
                    raise
                interruption = raised
                token.cancel(_WAIT)
        raised_here = token.outcome(error, interruption)
        if raised_here is not None:
            if is_a(raised_here, group_class()):
                raise raised_here from None
            raise raised_here
    finally:
        del error, interruption, raised_here  # the traceback of what is raised holds this frame


def _wait(token: GroupToken) -> None:
    while True:
        for future in list(token.members):
            try:
                future._join(None)
            except cf.CancelledError:
                if not future.cancelled():
                    raise
            token.note(future)
            del future
        if token.failures:
            token.cancel_aside(None)  # there may have been no thread to do it
        if token.leave():
            return


# -- async with ----------------------------------------------------------------------------------


class Body:
    """The asyncio task in which the body of a group runs."""

    def __init__(self, token: GroupToken) -> None:
        import asyncio

        from futurepool import _aio

        self._loop = _aio.running_loop("async with")
        task: Any = asyncio.current_task()
        if task is None:
            raise RuntimeError("async with of a group needs a task of asyncio's")
        self._task = task
        self._token = token
        self._leaving = False
        self._cancelled = False  # by us; that it hears of it once is ours to see to
        token.interrupt = self._interrupt

    def _interrupt(self) -> None:
        """Any thread: a task has failed."""
        try:
            self._loop.call_soon_threadsafe(self._cancel)
        except RuntimeError:  # the loop is closed
            pass

    def _cancel(self) -> None:
        if not self._leaving and not self._cancelled and not self._task.done():
            self._cancelled = True
            self._task.cancel()

    async def leave(self, error: BaseException | None) -> None:
        """As `leave`. A cancellation counts as an interruption."""
        import asyncio

        token, task = self._token, self._task
        self._leaving = True
        token.interrupt = None
        interruption: BaseException | None = None
        raised_here: BaseException | None = None
        try:
            if error is not None:
                token.cancel_aside(_BODY)
                if is_a(error, GeneratorExit):
                    return  # it is closed, and cannot wait
            ours = self._cancelled
            if ours and not (error is not None and is_a(error, asyncio.CancelledError)):
                # The body has ended without having heard of it.
                try:
                    await asyncio.sleep(0)
                except asyncio.CancelledError:
                    pass
            while True:
                try:
                    await _wait_async(token)
                    break
                except BaseException as raised:
                    if interruption is not None or is_a(raised, GeneratorExit):
                        raise
                    interruption = raised
                    token.cancel_aside(_WAIT)
            if ours and (not _UNCANCEL or task.uncancel() == 0) and error is not None:
                error = None if is_a(error, asyncio.CancelledError) else error  # it was ours
            raised_here = token.outcome(error, interruption)
            if raised_here is None:
                return
            if not is_a(raised_here, group_class()):
                raise raised_here
            if _UNCANCEL and task.cancelling():
                # Somebody else wants it to end: it hears of that at its next step.
                task.uncancel()
                task.cancel()
            raise raised_here from None
        finally:
            del self, token, task, error, interruption, raised_here


async def _wait_async(token: GroupToken) -> None:
    from futurepool import _aio

    while True:
        for future in list(token.members):
            if future._state is PENDING or future._state is RUNNING:
                # Whoever is cancelled here cancels the group, before any of its tasks: a worker that
                # comes free by that must not start the next.
                await _aio.wait(future, cancels=False)
            token.note(future)
            del future
        if token.failures:
            token.cancel_aside(None)
        if token.leave():
            return


_sync.import_now(__name__)
