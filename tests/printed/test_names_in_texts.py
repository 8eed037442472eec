"""What comments, docstrings and pages name of the package is there.

Modules and functions move; texts that go on naming the old place mislead whoever reads them.
"""

from __future__ import annotations

import ast
import asyncio
import builtins
import concurrent.futures
import contextvars
import decimal
import functools
import gc
import inspect
import keyword
import logging
import os
import pickle
import queue
import re
import signal
import sys
import threading
import time
import types
import typing
import warnings
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import futurepool

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "futurepool"  # with what is in no wheel

#: Words that others gave: libraries, the interpreter, pyproject.toml.
OTHERS = {
    *("HistogramMetricFamily", "PyThreadState_SetAsyncExc", "ValidationError", "aclose", "cli"),
    *("patch_all", "prometheus_client", "response", "set_default_executor", "sync_to_async"),
    *("thread_inherit_context", "InterpreterPoolExecutor"),
    *keyword.kwlist,
    *sys.stdlib_module_names,
}
for module in (asyncio, builtins, concurrent.futures, contextvars, decimal, gc, inspect, logging):
    OTHERS.update(dir(module))
for module in (os, pickle, queue, signal, sys, threading, time, types, typing, warnings, weakref):
    OTHERS.update(dir(module))

#: What dotted names begin with that are variables, or the standard library's.
VARIABLES = {
    "Thread",
    "__main__",
    "items",
    "limits",
    "options",
    "pool",
    "top",
    "trace",
    "waiters",
    "workers",
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PACKAGE.is_dir(), reason="what is read is in a checkout only"),
]


def sources() -> list[Path]:
    return sorted(path for kind in ("*.py", "*.c", "*.h") for path in PACKAGE.rglob(kind))


def pages() -> list[Path]:
    return [
        ROOT / "README.md",
        ROOT / "tests" / "README.md",
        *sorted((ROOT / "docs").rglob("*.md")),
    ]


def code_in(path: Path) -> Iterator[tuple[str, str]]:
    """(where, text) of all that stands between single backticks."""
    text = path.read_text("utf-8")
    if path.suffix == ".md":  # without blocks, but with as many lines
        text = re.sub(
            r"^```.*?^```$", lambda m: "\n" * m[0].count("\n"), text, flags=re.DOTALL | re.MULTILINE
        )
    for number, line in enumerate(text.splitlines(), 1):
        for code in re.findall(r"(?<!`)`([^`]+)`(?!`)", line):
            yield f"{path.name}:{number}", code


class Words(ast.NodeVisitor):
    """The identifiers of a module, and its short strings: slots, keys, names of options."""

    def __init__(self, tree: ast.AST) -> None:
        self.found: set[str] = set()
        self.classes: dict[str, set[str]] = {}
        self.depth = 0
        self.outside: set[str] = set()  # what is no function's and no class's
        self.visit(tree)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self.outside |= set() if self.depth else {node.name}
        self.depth += 1
        self.generic_visit(node)
        self.depth -= 1

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.outside |= set() if self.depth else {node.name}
        outer, self.found = self.found, set()
        self.depth += 1
        self.generic_visit(node)
        self.depth -= 1
        self.classes.setdefault(node.name, set()).update(self.found)
        self.found |= outer | {node.name}

    def generic_visit(self, node: ast.AST) -> None:
        for field in ("id", "attr", "name", "arg", "asname", "value"):
            word: Any = getattr(node, field, None)
            if isinstance(word, str) and len(word) < 60:
                self.found.update(word.split("."))
                self.outside.update([] if self.depth or field == "attr" else word.split("."))
        super().generic_visit(node)


@functools.cache
def modules() -> dict[str, Words]:
    """By dotted name."""
    return {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(
            ".__init__"
        ): Words(ast.parse(path.read_text("utf-8")))
        for path in sources()
        if path.suffix == ".py"
    }


def is_there(code: str, parts: dict[str, Words]) -> bool:
    """Whether a dotted name is one, if it begins with a module or a class of the package."""
    words = code.removesuffix("()").split(".")
    if words[0] in VARIABLES:
        return True
    for length in range(len(words), 0, -1):
        module, rest = ".".join(words[:length]), words[length:]
        named = [inside for name, inside in parts.items() if f".{name}".endswith(f".{module}")]
        if named:
            return not rest or any(rest[0] in inside.outside for inside in named)
    kinds = [inside.classes[words[0]] for inside in parts.values() if words[0] in inside.classes]
    inherited = dir(getattr(futurepool, words[0], None))
    return not kinds or words[1] in inherited or any(words[1] in kind for kind in kinds)


def test_files_that_are_named_are_there() -> None:
    """By a path from some folder; or by the name alone, wherever in the package it lies."""
    alone = {path.name for path in sources()}
    folders = (ROOT, PACKAGE, ROOT / "tests", ROOT / "docs")
    missing = [
        f"{where}: {code}"
        for path in [*sources(), *pages()]
        for where, code in code_in(path)
        if re.fullmatch(r"[\w.-]+(/[\w.-]+)*\.(py|c|h|md|toml|yml)", code)
        and code not in alone
        and not code.startswith(("path/to/", "gunicorn"))
        and not any((folder / code).exists() for folder in (*folders, path.parent))
    ]
    assert missing == []


def test_dotted_names_are_there() -> None:
    """`module.name`, `Class.name` and `futurepool.module.name`."""
    parts = modules()
    missing = [
        f"{where}: {code}"
        for path in [*sources(), *pages()]
        if path.name != "changelog.md"  # which tells of what was
        for where, code in code_in(path)
        if re.fullmatch(r"[A-Za-z_]\w*(\.\w+)+(\(\))?", code)
        and not re.search(r"\.(py|c|h|md|json|yml|toml|svg)$", code)
        and not is_there(code, parts)
    ]
    assert missing == []


def test_single_names_in_the_package_are_there() -> None:
    known = set(OTHERS)
    for words in modules().values():
        known |= words.found
    for path in sources():
        known.add(path.stem)
        if path.suffix != ".py":
            known.update(re.findall(r"\w+", path.read_text("utf-8")))
    missing = [
        f"{where}: {code}"
        for path in sources()
        for where, code in code_in(path)
        if re.fullmatch(r"[A-Za-z_]\w+(\(\))?", code) and code.removesuffix("()") not in known
    ]
    assert missing == []
