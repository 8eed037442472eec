"""Each known way to die, tried on BoundedExecutor in a process of its own; see tests/faults.

Here a fixed sample of the exhaustive ones; `python -m tests.faults --full` is the whole.
"""

from __future__ import annotations

import dis
import inspect
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from futurepool import _errors, _future
from futurepool._engines import worker_loop
from futurepool._errors import failures
from futurepool._executor import shutdown
from futurepool._pool import completion, ending, summaries
from futurepool._pool.pool import Pool
from tests.faults import __main__ as faults
from tests.faults import interrupts, memory, reentry
from tests.faults.__main__ import TOP, run
from tests.faults.probes import PROBES
from tests.faults.watchdog import barked

AT_EACH_POINT = {module.__name__ for module in (interrupts, memory, reentry)}


@pytest.mark.slow
@pytest.mark.timeout(150)
@pytest.mark.parametrize(
    "name",
    [
        # Those that go from point to point take long.
        pytest.param(name, marks=[pytest.mark.thorough] * (probe.__module__ in AT_EACH_POINT))
        for name, probe in PROBES.items()
    ],
)
def test_alive(name: str) -> None:
    """No hang, nothing lost, nothing doubled."""
    word, text = run(name, limit=110.0)
    if word == "-":
        pytest.skip(text)
    assert word == "ok", text


@pytest.mark.skipif(sys.version_info < (3, 12), reason="there a comprehension is a function")
@pytest.mark.parametrize(
    "function",
    [
        *(
            worker_loop.work,
            worker_loop.run_one,
            shutdown.join,
            _future.name_of,
            _future._class_name,
        ),
        *(_errors.is_among, failures.failure_of, failures.recipe_for, failures._new_recipe),
        *(failures._build, failures._Recipe.__init__, failures.Failure.__init__),
        *(
            failures.Failure.task_error,
            failures.Failure.raised,
            failures._make_dual,
            failures._add_note,
        ),
        *(failures.Failure.watch, summaries.Latest.__init__, summaries.Latest.complete),
        *(
            Pool.next_task,
            Pool.complete,
            completion._complete,
            Pool.commit,
            completion._wrap,
            Pool._rebuild,
        ),
        *(ending.wait_empty, ending.wait_ended, Pool.stats, Pool.queued, Pool.close, Pool.repair),
    ],
    ids=lambda function: function.__qualname__,
)
def test_no_function_is_made(function: Callable[..., Any]) -> None:
    """Where there is no memory for it, CPython may crash later: see `errors.is_among`."""
    operations = {each.opname for each in dis.get_instructions(inspect.unwrap(function))}
    assert operations
    assert "MAKE_FUNCTION" not in operations


@pytest.mark.slow
@pytest.mark.parametrize("name", ["thread_start", "traceback_length", "huge_timeouts"])
def test_the_probes_can_fail(name: str) -> None:
    """The standard library's executor does not pass what it is known not to pass."""
    word, _ = run(name, bounded=False)
    assert word not in ("ok", "-")


@pytest.mark.slow
def test_a_hang_is_an_outcome() -> None:
    """The watchdog ends a process that hangs, and says where it hung."""
    program = """
import threading
from tests.faults.watchdog import Watchdog
with Watchdog(0.2): threading.Event().wait()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=TOP, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert barked(done.stderr)
    assert "in wait" in done.stderr


def test_a_page_gets_the_table_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was there is replaced, the rest is left alone; a page without a place is refused."""
    begin = "<!-- scorecard {}.{} -->".format(*sys.version_info[:2])
    end = "<!-- end of scorecard -->"
    page = tmp_path / "page.md"
    page.write_text(f"a\n{begin}\nold\n{end}\nb\n<!-- scorecard 2.7 -->\n{end}\n")
    answers = {True: ("ok", "notes"), False: ("'<a|b>'", "all of it")}
    monkeypatch.setattr(faults, "run", lambda name, side, *_: answers[side])
    monkeypatch.setattr(sys, "argv", ["faults", "--page", str(page), "callback_raises"])
    assert faults.main() == 0
    head, _, *table, last = page.read_text().partition(f"{begin}\n")[2].splitlines()[:6]
    assert head.startswith("CPython 3.")
    assert table == [
        "| what happens | ThreadPoolExecutor | BoundedExecutor |",
        "|---|---|---|",
        "| A done-callback raises SystemExit / a BaseException | '&lt;a\\|b>' | ok |",
    ]
    assert last == end
    assert page.read_text().startswith(f"a\n{begin}\n")
    assert page.read_text().endswith(f"{end}\nb\n<!-- scorecard 2.7 -->\n{end}\n")
    page.write_text("no place")
    with pytest.raises(SystemExit, match="has no lines"):
        faults.main()


@pytest.mark.parametrize("version", ["3.13", "3.15"])
def test_the_scorecard_has_every_row(version: str) -> None:
    """`python -m tests.faults --page docs/guarantees.md` writes it anew, for its own version."""
    text = (TOP / "docs" / "guarantees.md").read_text("utf-8")
    _, _, text = text.partition(f"<!-- scorecard {version} -->")
    table = text.partition("<!-- end")[0].splitlines()[5:]
    cells = [line.strip("| ").split(" | ") for line in table]
    titles = [str(probe.__doc__).splitlines()[0] for probe in PROBES.values()]
    assert [row for row, _, _ in cells] == titles
    assert {ours for _, _, ours in cells} <= {"ok", "-"}
