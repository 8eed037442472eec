"""The differences that are meant: what this class does instead, and why.

`theirs` and `ours` are for readers of the page; what is compared is `answer`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Meant:
    """One difference."""

    answer: Any  # what our class answers to the program
    theirs: str
    ours: str
    why: str


#: By the program's name.
MEANT: dict[str, Meant] = {
    "submit_without_end": Meant(
        [1000, 1100],
        "all of them",
        "as many as the queue holds (`queue_size`, 1,000 by default); then it waits for a place",
        "that is what the class is for; `queue_size=None` takes them all",
    ),
    "repr_of_a_pool": Meant(
        [True, True, False],
        "class and address",
        "class, name, size, bound and state",
        "it says what one looks for",
    ),
    "submit_not_callable": Meant(
        "submit raises TypeError",
        "the future fails with a TypeError",
        "`submit` raises it",
        "the mistake is the caller's, and is told where it was made",
    ),
    "callback_not_callable": Meant(
        "TypeError",
        "is accepted, and logged when it is called",
        "`add_done_callback` raises TypeError",
        "likewise",
    ),
    "worker_waits_for_its_pool": Meant(
        6,
        "deadlocks",
        "the task is run",
        "nobody relies on a deadlock",
    ),
    "map_signature": Meant(
        [
            ["self", "POSITIONAL_OR_KEYWORD", "-"],
            ["fn", "POSITIONAL_OR_KEYWORD", "-"],
            ["iterables", "VAR_POSITIONAL", "-"],
            ["timeout", "KEYWORD_ONLY", "None"],
            ["chunksize", "KEYWORD_ONLY", "1"],
            ["buffersize", "KEYWORD_ONLY", "None"],
            ["return_exceptions", "KEYWORD_ONLY", "False"],
        ],
        "`timeout`, `chunksize`, `buffersize`",
        "and `return_exceptions`",
        "with many calls it is the rule that some fail; False, the default, is as ever",
    ),
    "context_variables": Meant(
        "caller's",
        "not there (but for builds with `thread_inherit_context`: those of who started the thread)",
        "a copy of the submitter's",
        'request ids and tracing spans follow the work; `context="none"` leaves them behind',
    ),
    "context_variables_between_tasks": Meant(
        "default",
        "stay in the thread, for whichever task comes next",
        "end with the task",
        "nothing leaks from one task to the next; what the `initializer` sets is there in each",
    ),
    "exception_class_exactly": Meant(
        False,
        "the class that was raised",
        "a class made of that and `TaskError`",
        "`except ValueError` catches it, `isinstance` holds, and it knows its task; a test by "
        "`type(error) is` does not hold",
    ),
    "exception_identity": Meant(
        False,
        "the very object that was raised",
        "another one with its text, arguments, attributes and traceback; that object is "
        "`future.task_error.cause`",
        "several readers do not write into one object's traceback; `is` does not hold",
    ),
    "exception_traceback_does_not_grow": Meant(
        "stays",
        "longer by some frames with each reading",
        "starts again with each reading",
        "a failed future that is read often would keep more and more frames alive",
    ),
    "result_long_timeout": Meant(
        True,
        "OverflowError",
        "counts as the longest time the system can wait",
        "a time that is too long is no mistake",
    ),
    "callback_system_exit": Meant(
        2,
        "the worker dies, and a pool of one hangs for ever",
        "it is logged, and the worker goes on",
        "a callback is no reason to lose tasks",
    ),
    "exit_by_interrupt": Meant(
        ["KeyboardInterrupt", "is cancelled"],
        "everything that is queued runs first",
        "what has not started is cancelled",
        "who presses Ctrl-C wants to leave",
    ),
    "shutdown_in_a_task": Meant(
        "None",
        "RuntimeError: cannot join current thread",
        "returns; the pool ends after the task",
        "it cannot wait for itself, and need not fail",
    ),
    "script_unread_failure": Meant(
        ["is said on stderr", 0],
        "nothing",
        "logged, with its traceback, by the logger `futurepool`",
        "a task that nobody asks about should not fail in silence; the logger can be switched off",
    ),
    "script_fork": Meant(
        ["works"],
        "hangs",
        "is new there, and works",
        "a child of a fork has none of the threads",
    ),
    "internals_drained_future": Meant(
        "is cancelled",
        "stays pending for ever",
        "is cancelled",
        "who waits for it is told",
    ),
    "thread_queues": Meant(
        [False],
        "has an entry for each worker, which some take out to leave without waiting",
        "has none",
        "that table is how the standard class waits at exit; here `exit_timeout=` says how long",
    ),
    "copied": Meant(
        False,
        "gives a second object over the same threads",
        "TypeError",
        "shutting the copy down would close the original",
    ),
    "subclass_overrides_internals": Meant(
        False,
        "is called by `submit`",
        "TypeError when the class is made, with what to do instead",
        "it would never be called here, and what it is for would be missed silently",
    ),
}
