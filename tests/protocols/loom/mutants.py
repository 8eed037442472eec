"""Mutants of marked places: what a protocol needs is spoilt, and its scenario must notice.

A comment `# mutant lost-wakeup`, on a line of its own, marks the statement below it. So a mutant is tied
to a place, not to the words that stand there. One that takes several statements has as many marks, in
one function.

    with loom.planted(futurepool, "lost-wakeup", loom.DROP):
        scenario.expect_failure(loom.DFS(2))

Only the code object of the function around it is swapped, see `patches`.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType

from .patches import function_of, swapped

__all__ = [
    "ALWAYS",
    "DROP",
    "LATER",
    "NEVER",
    "UNGUARDED",
    "WITHOUT_FIRST",
    "WITHOUT_LAST",
    "How",
    "instead",
    "marks",
    "planted",
]

_MARK = re.compile(r"^ *# mutant ([\w-]+)$")

#: Makes of a statement those that stand in its place.
How = Callable[[ast.stmt], list[ast.stmt]]


def DROP(statement: ast.stmt) -> list[ast.stmt]:  # noqa: N802 - a constant to who uses it
    """Do nothing there."""
    return [ast.Pass()]


def _with_test(statement: ast.stmt, change: Callable[[ast.expr], ast.expr]) -> list[ast.stmt]:
    if not isinstance(statement, (ast.If, ast.While)):
        raise TypeError(f"line {statement.lineno} has no condition")
    statement.test = change(statement.test)
    return [statement]


def ALWAYS(statement: ast.stmt) -> list[ast.stmt]:  # noqa: N802
    """Take the condition for true."""
    return _with_test(statement, lambda _: ast.Constant(True))


def NEVER(statement: ast.stmt) -> list[ast.stmt]:  # noqa: N802
    """Take the condition for false."""
    return _with_test(statement, lambda _: ast.Constant(False))


def _operands(test: ast.expr, kept: slice) -> ast.expr:
    if not isinstance(test, ast.BoolOp):
        raise TypeError(f"line {test.lineno} has one condition only")
    test.values = test.values[kept]
    return test if len(test.values) > 1 else test.values[0]


def WITHOUT_FIRST(statement: ast.stmt) -> list[ast.stmt]:  # noqa: N802
    """Leave out the first of its conditions."""
    return _with_test(statement, lambda test: _operands(test, slice(1, None)))


def WITHOUT_LAST(statement: ast.stmt) -> list[ast.stmt]:  # noqa: N802
    """Leave out the last of its conditions."""
    return _with_test(statement, lambda test: _operands(test, slice(None, -1)))


def LATER(statement: ast.stmt) -> list[ast.stmt]:  # noqa: N802
    """Let `>=` come true one step later, as `>`."""

    def shift(test: ast.expr) -> ast.expr:
        (compare,) = (
            each
            for each in ast.walk(test)
            if isinstance(each, ast.Compare) and isinstance(each.ops[0], ast.GtE)
        )
        compare.ops[0] = ast.Gt()
        return test

    return _with_test(statement, shift)


def UNGUARDED(statement: ast.stmt) -> list[ast.stmt]:  # noqa: N802
    """Do what is in the `with` without it."""
    if not isinstance(statement, ast.With):
        raise TypeError(f"line {statement.lineno} is no `with`")
    return statement.body


def instead(code: str) -> How:
    """Do something else."""
    return lambda _: ast.parse(code).body


@cache
def marks(package: ModuleType) -> dict[str, tuple[Path, tuple[int, ...]]]:
    """Name -> file and lines of each mark in a package."""
    found: dict[str, tuple[Path, tuple[int, ...]]] = {}
    for folder in package.__path__:
        for path in sorted(Path(folder).rglob("*.py")):
            for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
                if mark := _MARK.match(line):
                    where, lines = found.get(mark[1], (path, ()))
                    if where != path:
                        raise ValueError(f"{mark[1]} marks places in {where} and in {path}")
                    found[mark[1]] = path, (*lines, number)
    return found


@contextmanager
def planted(package: ModuleType, name: str, how: How) -> Iterator[None]:
    """Spoil what is marked `name`, for a while."""
    path, lines = marks(package)[name]
    tree = ast.parse(path.read_text("utf-8"))
    functions: set[str] = set()
    for line in reversed(lines):  # those above keep their lines
        place = _Place(line, how)
        place.visit(tree)
        functions.add(place.qualname)
    if len(functions) != 1 or "" in functions:
        raise ValueError(f"{path}: {name} marks no statement of one function, but {functions}")
    ast.fix_missing_locations(tree)
    function = function_of(_module_of(package, path), functions.pop())
    with swapped(function, compile(tree, function.__code__.co_filename, "exec", dont_inherit=True)):
        yield


def _module_of(package: ModuleType, path: Path) -> ModuleType:
    for folder in map(Path, package.__path__):
        if path.is_relative_to(folder):
            parts = path.relative_to(folder).with_suffix("").parts
            kept = [part for part in parts if part != "__init__"]
            return importlib.import_module(".".join([package.__name__, *kept]))
    raise ValueError(f"{path} is not in {package}")


class _Place(ast.NodeTransformer):
    """Changes the first statement that begins below a line, and notes the function around it."""

    def __init__(self, line: int, how: How) -> None:
        self.line = line
        self.how = how
        self.qualname = ""
        self._around: list[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef] = []

    def visit(self, node: ast.AST) -> ast.AST | list[ast.stmt]:
        scope = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
        if isinstance(node, ast.stmt) and not self.qualname and node.lineno > self.line:
            functions = [
                number
                for number, each in enumerate(self._around)
                if not isinstance(each, ast.ClassDef)
            ]
            if not functions:
                return node
            # The outermost function: of one that is nested in it no object is there yet.
            self.qualname = ".".join(each.name for each in self._around[: functions[0] + 1])
            made = self.how(node)
            for each in made:
                if each is not node:
                    for inner in ast.walk(each):
                        ast.copy_location(inner, node)
            return made
        if scope:
            self._around.append(node)  # type: ignore[arg-type]
        self.generic_visit(node)
        if scope:
            self._around.pop()
        return node
