"""Runs a suite in the environment that `other_suites` has made, and writes down what it said.

A script for `python -I`, which is not imported; it can rely on the standard library alone, and on
pytest where the suite is written for that.
"""

from __future__ import annotations

import concurrent.futures
import faulthandler
import json
import re
import sys
import unittest
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


class Report:
    """See `other_suites.Outcome`."""

    def __init__(self) -> None:
        self.run: list[str] = []
        self.skipped: dict[str, str] = {}
        self.failed: dict[str, str] = {}


def with_unittest(modules: list[str], chosen: Callable[[str], bool], report: Report) -> None:
    def flat(suite: unittest.TestSuite) -> Iterator[Any]:
        for test in suite:
            if isinstance(test, unittest.TestSuite):
                yield from flat(test)
            else:
                yield test

    # Held by the suite alone, which drops each test once it has run: asyncio's collect garbage all
    # the time, and that takes as long as there are loops of earlier tests.
    loaded = flat(unittest.defaultTestLoader.loadTestsFromNames(modules))
    suite = unittest.TestSuite(test for test in loaded if chosen(test.id()))
    report.run += [test.id() for test in flat(suite)]
    result = unittest.TextTestRunner(stream=sys.stderr, verbosity=2).run(suite)
    report.skipped.update({test.id(): reason for test, reason in result.skipped})
    # A test of several subtests may fail more than once.
    for test, text in result.failures + result.errors:
        report.failed[getattr(test, "test_case", test).id()] = text


def with_pytest(modules: list[str], chosen: Callable[[str], bool], report: Report) -> None:
    import pytest

    names: dict[str, str] = {}  # by node id, which has the path of a file in it

    class Plugin:
        def pytest_collection_modifyitems(self, items: list[Any]) -> None:
            names.update({item.nodeid: f"{item.module.__name__}.{item.name}" for item in items})
            items[:] = [item for item in items if chosen(names[item.nodeid])]
            report.run += [names[item.nodeid] for item in items]

        def pytest_collectreport(self, report: Any) -> None:
            self.pytest_runtest_logreport(report)

        def pytest_runtest_logreport(self, report: Any) -> None:
            name = names.get(report.nodeid, report.nodeid)
            if report.failed:
                outcome.failed[name] = str(report.longrepr)
            elif report.skipped:
                outcome.skipped[name] = str(report.longrepr)

    outcome = report
    # Without any settings, neighbours' conftest or plugins: those of this project are not theirs.
    # Nor pytest's use of faulthandler, which would call our watchdog off.
    Path("empty.ini").touch()
    options = ["-c", "empty.ini", "--noconftest", "-p", "no:cacheprovider", "-p", "no:faulthandler"]
    pytest.main([*options, "-v", "--pyargs", *modules], plugins=[Plugin()])


def main() -> None:
    order = json.loads(sys.argv[1])
    faulthandler.dump_traceback_later(order["watchdog"], exit=True)
    pool: Any = concurrent.futures.ThreadPoolExecutor
    assert pool.__name__ == order["pool"], f"the swap did not happen: {pool!r}"

    def chosen(name: str) -> bool:
        left_out = order["left_out"] and re.search(order["left_out"], name)
        return not left_out and bool(re.search(order["only"], name))

    report = Report()
    run = with_pytest if order["pytest"] else with_unittest
    run(order["modules"], chosen, report)
    Path(order["report"]).write_text(json.dumps(vars(report)))


if __name__ == "__main__":
    main()
