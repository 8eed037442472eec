"""Runs the interpreter's own `test.test_concurrent_futures` with another class swapped in.

The swap is made by a `.pth` file in a virtual environment of its own, because the suite starts
children with `-I`: those obey neither `PYTHONPATH` nor a working directory, but they do process
the environment's `.pth` files. Nothing of the suite is copied or changed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

import typing_extensions

import futurepool

#: Ids left out: not about threads, or checking internals of the standard class.
LEFT_OUT = "Process|Interpreter|test_deadlock|FailingInitializerResources"

_SWAP = """\
import concurrent.futures
from futurepool import BoundedExecutor
{body}
concurrent.futures.ThreadPoolExecutor = {name}
concurrent.futures.{name} = {name}  # the suite's children import the class by its own name
"""

_RUNNER = """\
import concurrent.futures, faulthandler, json, re, sys, unittest

expected, left_out, only, watchdog, report = sys.argv[1:]
faulthandler.dump_traceback_later(float(watchdog), exit=True)
swapped = concurrent.futures.ThreadPoolExecutor
assert swapped.__name__ == expected, f"the swap did not happen: {swapped!r}"


def flat(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from flat(test)
        else:
            yield test


found = flat(unittest.defaultTestLoader.loadTestsFromName("test.test_concurrent_futures"))
chosen = [t for t in found if not re.search(left_out, t.id()) and re.search(only, t.id())]
result = unittest.TextTestRunner(stream=sys.stderr, verbosity=2).run(unittest.TestSuite(chosen))
with open(report, "w") as file:
    json.dump(
        {
            "run": result.testsRun,
            "skipped": {test.id(): reason for test, reason in result.skipped},
            "failed": {test.id(): text for test, text in result.failures + result.errors},
        },
        file,
    )
"""


@dataclass(frozen=True)
class Outcome:
    """What the suite said."""

    run: int  # tests run, skipped ones included
    skipped: dict[str, str]  # id: reason
    failed: dict[str, str]  # id: traceback

    def __str__(self) -> str:
        parts = [f"{self.run} run, {len(self.skipped)} skipped, {len(self.failed)} failed"]
        parts += [f"== {name}\n{text}" for name, text in self.failed.items()]
        return "\n".join(parts)


def why_missing() -> str | None:
    """The reason why this interpreter cannot run the suite, or None."""
    try:
        spec = importlib.util.find_spec("test.test_concurrent_futures")
    except ModuleNotFoundError:
        spec = None
    if spec is None:
        return "this interpreter does not ship test.test_concurrent_futures"
    if importlib.util.find_spec("_multiprocessing") is None:
        return "the suite needs _multiprocessing"
    return None


def make_environment(folder: Path, *, name: str = "BoundedExecutor", body: str = "") -> Path:
    """Make a virtual environment in which class `name`, defined by `body`, is the thread pool.

    Returns:
        The environment's interpreter.
    """
    venv.create(folder, symlinks=os.name != "nt")
    windows = os.name == "nt"
    scheme = "nt" if windows else "posix_prefix"
    site = Path(sysconfig.get_path("purelib", scheme, {"base": str(folder)}))
    (site / "swapped_pool.py").write_text(_SWAP.format(name=name, body=body))
    # Added after the standard library, so nothing beside the packages can shadow `test`.
    homes = dict.fromkeys(
        Path(str(file)).resolve().parents[level]
        for file, level in ((futurepool.__file__, 1), (typing_extensions.__file__, 0))
    )
    lines = [*map(str, homes), "import swapped_pool"]
    (site / "swapped_pool.pth").write_text("\n".join(lines) + "\n")
    return folder / ("Scripts/python.exe" if windows else "bin/python")


def run_suite(
    folder: Path,
    *,
    name: str = "BoundedExecutor",
    body: str = "",
    only: str = "",
    watchdog: float = 100.0,
) -> Outcome:
    """Run the suite's thread tests whose ids match `only`, in a new environment in `folder`."""
    python = make_environment(folder / "env", name=name, body=body)
    report = folder / "report.json"
    runner = folder / "runner.py"
    runner.write_text(_RUNNER)
    done = subprocess.run(
        [python, "-I", runner, name, LEFT_OUT, only, str(watchdog), report],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=watchdog + 10.0,
        check=False,
    )
    if not report.exists():
        message = f"{sys.version}\nno report, exit status {done.returncode}:\n{done.stdout[-8000:]}"
        raise AssertionError(message)
    return Outcome(**json.loads(report.read_text()))
