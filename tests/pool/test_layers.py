"""A module imports only from the layers below it, and takes locks, threads and time from `_sync`.

Read the tables first: they are the map of the package.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

#: Low to high, modules and folders. A module imports from lower layers and from its own folder, never
#: from another of its own layer or from a higher one.
LAYERS: list[set[str]] = [
    {"_sync"},
    {"_logs"},
    {"_deadlines", "_errors", "_foreign"},
    {"_cancellation", "_telemetry"},
    {"_future"},
    {"_options"},
    {"_pool"},
    {"_engines"},
    {"_living", "_map"},
    {"_aio"},
    {"_executor"},
    {"testing"},
]

#: These see what a user sees: names from `futurepool` itself, and modules of their own group.
OUTSIDE = {"_cli", "__main__", "instrumentation"}

#: (from, to) that cross a layer all the same, and why.
EXCEPTIONS: dict[tuple[str, str], str] = {
    ("__main__", "_cli"): "it is the command line's entry",
    ("_cli", "_living"): "`top` has to know where the socket lies",
    ("_future", "_aio"): "`await future`; loaded when first awaited, as asyncio is slow to import",
}

#: Third-party packages that any module may import. All others are for what stands outside.
EVERYWHERE = {"typing_extensions"}
THIRD_PARTY = {"_cli", "instrumentation"}

#: What only `_sync` may touch. `threading.Thread` may be named; `_sync` makes and starts it.
LOCKED_AWAY = {
    "_thread": None,  # None: anything in it
    "threading": {"Barrier", "BoundedSemaphore", "Condition", "Event", "Lock", "RLock"}
    | {"Semaphore", "Timer", "get_ident", "local"},
    "time": {"monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "sleep"}
    | {"thread_time", "thread_time_ns", "time", "time_ns"},
}

#: (module, what) that may be touched all the same, and why.
ALLOWED: dict[tuple[str, str], str | None] = {
    ("_future", "threading.Condition"): "`concurrent.futures` waits on a future's own Condition",
    # It stands outside, as a user does, for whom `_sync` is not there.
    **dict.fromkeys(
        ("_cli", f"{module}.{name}")
        for module, names in {
            "threading": ("Event", "Lock", "RLock", "get_ident"),
            "time": ("monotonic", "perf_counter", "sleep", "time"),
        }.items()
        for name in names
    ),
    ("instrumentation", "threading.Lock"): "it stands outside, too",
    ("instrumentation", "threading.Event"): "likewise",
    ("_future", "threading.RLock"): "the lock of that Condition, as the standard library's",
}

ROOT = Path(str(importlib.util.find_spec("futurepool").origin)).parent  # type: ignore[union-attr]


@dataclass(frozen=True)
class Import:
    """One imported name: `from target import name`, or `import target` with no name."""

    target: str  # absolute, dotted
    name: str | None
    line: int
    type_only: bool  # under `if TYPE_CHECKING:`


def imports_of(tree: ast.AST, package: str) -> Iterator[Import]:
    """Yield what a module imports, relative imports made absolute, delayed ones included."""
    type_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, None, node.lineno, id(node) in type_only)
        elif isinstance(node, ast.ImportFrom):
            target = node.module or ""
            if node.level:
                base = package.split(".")[: len(package.split(".")) - node.level + 1]
                target = ".".join([*base, target] if target else base)
            for alias in node.names:
                yield Import(target, alias.name, node.lineno, id(node) in type_only)


def touches(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield each (dotted name, line) of `LOCKED_AWAY` that a module uses, aliases resolved."""
    aliases: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name in LOCKED_AWAY:
                    aliases[alias.asname or alias.name] = alias.name
                    if LOCKED_AWAY[alias.name] is None:
                        yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module in LOCKED_AWAY and not node.level:
            names = LOCKED_AWAY[node.module]
            for alias in node.names:
                if names is None or alias.name in names or alias.name == "*":
                    yield f"{node.module}.{alias.name}", node.lineno
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = aliases.get(node.value.id)
            names = LOCKED_AWAY[module] if module else None
            if names is not None and node.attr in names:
                yield f"{module}.{node.attr}", node.lineno


def threads_made(tree: ast.Module) -> Iterator[int]:
    """The lines that make a thread; in the heart, `_sync.new_thread` gives it an empty context."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"Thread", "threading.Thread"}:
            yield node.lineno


def complaints(path: str, source: str) -> list[str]:
    """Say what is wrong with module `path` (relative to the package, with slashes)."""
    parts = path.removesuffix(".py").split("/")
    group = parts[0]
    package = ".".join(["futurepool", *parts[:-1]])
    tree = ast.parse(source)
    rank = {name: level for level, names in enumerate(LAYERS) for name in names}
    if group != "__init__" and group not in rank and group not in OUTSIDE:
        return [f"{path}: {group} stands in no layer of tests/pool/test_layers.py"]
    found: list[str] = []
    for item in imports_of(tree, package):
        where = f"{path}:{item.line}"
        top, _, rest = item.target.partition(".")
        if top != "futurepool":
            if top in sys.stdlib_module_names or top in EVERYWHERE or group in THIRD_PARTY:
                continue
            found.append(f"{where}: third-party {top} outside _cli/")
            continue
        other = rest.split(".")[0] if rest else item.name
        internal = other in rank or other in OUTSIDE
        if group == "__init__" or other == group or (group, str(other)) in EXCEPTIONS:
            continue
        if group in OUTSIDE:
            if rest or internal:
                found.append(f"{where}: {group} may use only the public API, not {other}")
        elif item.type_only and (internal or other is None):
            continue  # not there at run time
        elif not internal:
            found.append(f"{where}: {group} imports {other}, which stands in no layer")
        elif other not in rank or rank[other] >= rank[group]:
            found.append(f"{where}: {group} imports {other}, which is not below it")
    if group != "_sync":
        found += [
            f"{path}:{line}: {what} belongs to _sync"
            for what, line in touches(tree)
            if (group, what) not in ALLOWED
        ]
    if group != "_sync" and group not in OUTSIDE:
        found += [f"{path}:{line}: _sync.new_thread makes threads" for line in threads_made(tree)]
    return list(dict.fromkeys(found))  # once for each line


def test_every_module_keeps_to_its_layer() -> None:
    """No module of the package has anything to complain about."""
    found = [
        complaint
        for path in sorted(ROOT.rglob("*.py"))
        for complaint in complaints(path.relative_to(ROOT).as_posix(), path.read_text("utf-8"))
    ]
    assert found == []


def test_the_tables_name_no_module_twice() -> None:
    """A module has one place."""
    named = [name for names in [*LAYERS, OUTSIDE] for name in names]
    assert len(named) == len(set(named))


def test_the_map_is_small() -> None:
    """One has it in one's head: what belongs together has one name at the top."""
    named = {"__init__", *OUTSIDE}.union(*LAYERS)
    rooms = {path.stem for path in ROOT.glob("*.py")} | {
        path.parent.name for path in ROOT.glob("*/*.py")
    }
    assert rooms == named
    assert len(rooms - {"_cli"}) < 20


def test_few_functions_have_many_branches() -> None:
    """Those that have more than ruff allows are named: three are unrolled, one is a single loop."""
    found = {
        path.relative_to(ROOT).as_posix(): count
        for path in ROOT.rglob("*.py")
        if (count := path.read_text("utf-8").count("noqa: C901"))
    }
    assert found == {"_aio.py": 1, "_engines/worker_loop.py": 1, "_pool/fast.py": 2}


@pytest.mark.parametrize(
    ("path", "source", "complaint"),
    [
        ("_options.py", "from ._pool.queue import Pool", "_options.py:1: _options imports _pool, which is not below it"),
        ("_options.py", "from . import _pool", "_options.py:1: _options imports _pool, which is not below it"),
        ("_options.py", "import futurepool._engines.worker_loop", "_options.py:1: _options imports _engines, which is not below it"),
        ("_options.py", "def f():\n  from ._pool.core import C", "_options.py:2: _options imports _pool, which is not below it"),
        ("_engines/threads.py", "from .._executor import E", "_engines/threads.py:1: _engines imports _executor, which is not below it"),
        ("_pool/queue.py", "from futurepool import Priority", "_pool/queue.py:1: _pool imports Priority, which stands in no layer"),
        ("_cli/map.py", "from .._pool.queue import Pool", "_cli/map.py:1: _cli may use only the public API, not _pool"),
        ("_cli/x.py", "from .. import _pool", "_cli/x.py:1: _cli may use only the public API, not _pool"),
        ("_pool/queue.py", "import rich.table", "_pool/queue.py:1: third-party rich outside _cli/"),
        ("unknown.py", "", "unknown.py: unknown stands in no layer of tests/pool/test_layers.py"),
        ("_pool/queue.py", "import threading\nthreading.Lock()", "_pool/queue.py:2: threading.Lock belongs to _sync"),
        ("_pool/queue.py", "import threading as t\nt.Condition()", "_pool/queue.py:2: threading.Condition belongs to _sync"),
        ("_pool/queue.py", "from time import monotonic", "_pool/queue.py:1: time.monotonic belongs to _sync"),
        ("_pool/queue.py", "import _thread", "_pool/queue.py:1: _thread belongs to _sync"),
        ("_pool/queue.py", "import threading\nthreading.Thread()", "_pool/queue.py:2: _sync.new_thread makes threads"),
    ],
)  # fmt: skip
def test_the_checker_bites(path: str, source: str, complaint: str) -> None:
    """Each rule catches a source that breaks it."""
    assert complaints(path, source) == [complaint]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("_pool/queue.py", "from .. import _sync\nfrom .task_queue import TaskQueue\nimport threading, typing_extensions"),
        ("_pool/queue.py", "if TYPE_CHECKING:\n  from .._executor import BoundedExecutor"),
        ("_cli/map.py", "from futurepool import BoundedExecutor"),
        ("_cli/bar.py", "import rich.console\nfrom .. import BoundedExecutor\nfrom . import map"),
        ("_engines/delegate.py", "from .threads import Threads\nfrom .worker_loop import run"),
        ("__init__.py", "from ._executor import BoundedExecutor"),
    ],
)  # fmt: skip
def test_the_checker_lets_pass_what_is_right(path: str, source: str) -> None:
    """The rules allow what the design asks for."""
    assert complaints(path, source) == []
