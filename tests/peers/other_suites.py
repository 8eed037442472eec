"""Runs test suites that others wrote for thread pools, with another class swapped in.

The swap is made by a `.pth` file in a virtual environment of its own, because CPython's suite starts
children with `-I`: those obey neither `PYTHONPATH` nor a working directory, but they do process
the environment's `.pth` files. Nothing of a suite is copied or changed.

A test that fails here counts only if it passes with the standard class on the same machine: some
need a network, or a kind of address, that a sandbox has not.
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

RUNNER = Path(__file__).with_name("suite_runner.py")


@dataclass(frozen=True)
class Suite:
    """Tests that others wrote."""

    name: str
    modules: tuple[str, ...]
    at_least: int  # so many tests run, or it is not the suite we mean
    later: tuple[str, ...] = ()  # modules that not all versions have
    left_out: str = ""  # ids that match are left out; say why
    needs: tuple[str, ...] = ()  # packages
    pytest: bool = False  # or unittest

    def why_missing(self) -> str | None:
        """The reason why this interpreter cannot run the suite, or None."""
        for module in (*self.modules, *self.needs):
            if not _is_there(module):
                return f"{module} is not installed"
        return None


def _is_there(module: str) -> bool:
    """Whether it can be imported; without importing its package, which may have effects here."""
    top, *rest = module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None or not rest:
        return spec is not None
    for folder in spec.submodule_search_locations or ():
        path = Path(folder, *rest)
        if path.is_dir() or path.with_suffix(".py").exists():
            return True
    return False


def _of_asyncio(*names: str) -> tuple[str, ...]:
    return tuple(f"test.test_asyncio.test_{name}" for name in names)


SUITES = (
    Suite(
        "concurrent.futures",
        ("test.test_concurrent_futures",),
        at_least=40,
        # Not about threads, or checking internals of the standard class. One of interpreters hands its
        # pool to asyncio, which asks whether that is a ThreadPoolExecutor: the swapped one it is not.
        left_out="Process|Interpreter|test_interpreter_pool|test_deadlock"
        "|FailingInitializerResources",
        needs=("_multiprocessing",),
    ),
    # Here the class is the default executor of loops, which look names up and run `to_thread` there.
    Suite(
        "asyncio",
        _of_asyncio("base_events", "threads", "runners", "futures", "futures2", "server"),
        later=_of_asyncio("timeouts", "taskgroups", "free_threading"),
        at_least=270,
    ),
    # Here the class is the base of dask's default pool, and is passed as `pool=`.
    Suite("dask.threaded", ("dask.tests.test_threaded",), at_least=15, pytest=True),
)

BY_NAME = {suite.name: suite for suite in SUITES}


@dataclass(frozen=True)
class Pool:
    """The class to put in the place of ThreadPoolExecutor, defined by `body`."""

    name: str
    body: str = ""


BOUNDED = Pool("BoundedExecutor")
STANDARD = Pool("ThreadPoolExecutor", "from concurrent.futures import ThreadPoolExecutor")

_SWAP = """\
import concurrent.futures
from futurepool import BoundedExecutor
{body}
concurrent.futures.ThreadPoolExecutor = {name}
concurrent.futures.{name} = {name}  # the suite's children import the class by its own name
"""


@dataclass(frozen=True)
class Outcome:
    """What a suite said."""

    run: list[str]  # ids, those of skipped tests included
    skipped: dict[str, str]  # id: reason
    failed: dict[str, str]  # id: traceback

    def __str__(self) -> str:
        parts = [f"{len(self.run)} run, {len(self.skipped)} skipped, {len(self.failed)} failed"]
        parts += [f"== {name}\n{text}" for name, text in self.failed.items()]
        return "\n".join(parts)


def make_environment(folder: Path, pool: Pool) -> Path:
    """Make a virtual environment in which `pool` is the thread pool.

    Returns:
        The environment's interpreter.
    """
    venv.create(folder, symlinks=os.name != "nt")
    windows = os.name == "nt"
    scheme = "nt" if windows else "posix_prefix"
    site = Path(sysconfig.get_path("purelib", scheme, {"base": str(folder)}))
    (site / "swapped_pool.py").write_text(_SWAP.format(name=pool.name, body=pool.body))
    # Added after the standard library, so nothing beside the packages can shadow `test`.
    homes: dict[Path, None] = {}
    for module in ("futurepool", "typing_extensions", "pytest", "dask"):
        spec = importlib.util.find_spec(module)
        if spec is not None and spec.origin is not None:
            homes[Path(spec.origin).resolve().parents[bool(spec.submodule_search_locations)]] = None
    lines = [*map(str, homes), "import swapped_pool"]
    (site / "swapped_pool.pth").write_text("\n".join(lines) + "\n")
    return folder / ("Scripts/python.exe" if windows else "bin/python")


def run_suite(
    folder: Path, suite: Suite, pool: Pool = BOUNDED, *, only: str = "", watchdog: float = 100.0
) -> Outcome:
    """Run the tests of `suite` whose ids match `only`, in a new environment in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    python = make_environment(folder / "env", pool)
    report = folder / "report.json"
    order = {
        "modules": [*suite.modules, *filter(_is_there, suite.later)],
        "pytest": suite.pytest,
        "left_out": suite.left_out,
        "only": only,
        "pool": pool.name,
        "watchdog": watchdog,
        "report": str(report),
    }
    done = subprocess.run(
        [python, "-I", RUNNER, json.dumps(order)],
        cwd=folder,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
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


def worse(ours: Outcome, standard: Outcome, pool: Pool = BOUNDED) -> dict[str, str]:
    """What fails with `pool` and does not with the standard class; id: traceback.

    A parameter of a test may be the class itself, whose name is then part of the id.
    """
    return {
        name: text
        for name, text in ours.failed.items()
        if name.replace(pool.name, STANDARD.name) not in standard.failed
    }


def failures(
    folder: Path, suite: Suite, pool: Pool = BOUNDED, *, only: str = ""
) -> tuple[Outcome, dict[str, str]]:
    """Run the suite with `pool`, and what fails once more with the standard class.

    Returns:
        What the suite said of `pool`, and what is worse than with the standard class.
    """
    ours = run_suite(folder / "ours", suite, pool, only=only)
    if not ours.failed:
        return ours, {}
    return ours, worse(ours, run_suite(folder / "standard", suite, STANDARD, only=only), pool)
