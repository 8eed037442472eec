"""No file of the package imports itself by way of others, and no part of a pool writes another's fields."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.pool.test_layers import EXCEPTIONS, ROOT, imports_of

#: The parts of a pool: what they are called where they are used, their class, its file.
PARTS: dict[str, tuple[str, str]] = {
    "capacity": ("Capacity", "_pool/capacity.py"),
    "workers": ("Workers", "_pool/workers.py"),
    "waiters": ("Waiters", "_pool/waiters.py"),
    "expiry": ("Expiry", "_pool/expiry.py"),
    "row": ("Row", "_pool/expiry.py"),
    "meters": ("Meters", "_pool/meters.py"),
    "overload": ("Overload", "_pool/overload.py"),
    "queue": ("PriorityQueue", "_pool/task_queue.py"),
    "pool": ("Pool", "_pool/pool.py"),
}

#: The unrolled forms of what the parts and the pool do themselves.
UNROLLED = "_pool/fast.py"

#: Fields of the pool itself that others set all the same, and why.
ALLOWED: dict[str, str] = {
    **dict.fromkeys(("name", "adopt", "engine", "collected"), "the executor, as it makes it"),
    **dict.fromkeys(("user_closed", "wait_reported", "exit_timeout"), "whoever ends it, one step"),
    "abandoned": "whoever gives up on its end, in a section",
}


def modules() -> dict[str, tuple[str, ast.Module]]:
    """Dotted name -> path in the package, and its tree."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        relative = path.relative_to(ROOT).as_posix()
        dotted = "futurepool." + relative.removesuffix(".py").replace("/", ".")
        found[dotted.removesuffix(".__init__")] = relative, ast.parse(path.read_text("utf-8"))
    return found


def imported(known: set[str], name: str, package: str, tree: ast.Module) -> set[str]:
    """The modules that `name` imports when it runs, at whatever moment, itself left out."""
    found = set()
    group = name.split(".")[1] if "." in name else ""
    for item in imports_of(tree, package):
        if not item.type_only:
            inner = f"{item.target}.{item.name}"
            target = inner if inner in known else item.target
            other = target.split(".")[1] if "." in target else ""
            if (group, other) not in EXCEPTIONS and target != "futurepool":
                found.add(target)
    return (found & known) - {name}


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The modules from which a way leads back to them, for each a shortest one."""
    found = []
    for start in graph:
        ways = [[start]]
        seen = set()
        while ways:
            way = ways.pop(0)
            if start in graph[way[-1]]:
                found.append([*way, start])
                break
            for following in sorted(graph[way[-1]] - seen):
                seen.add(following)
                ways.append([*way, following])
    return found


def test_no_import_leads_back() -> None:
    """But for those that are only there for type checkers."""
    found = modules()
    graph = {}
    for name, (path, tree) in found.items():
        package = name if path.endswith("__init__.py") else name.rpartition(".")[0]
        graph[name] = imported(set(found), name, package, tree)
    assert circles(graph) == []


def test_a_circle_is_found() -> None:
    """The checker bites."""
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == [["b", "c", "b"], ["c", "b", "c"]]


def fields(tree: ast.Module, kind: str) -> set[str]:
    """The `__slots__` of a class."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name == kind:
            for statement in node.body:
                if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == (
                    "__slots__"
                ):
                    return set(ast.literal_eval(statement.value))
    raise AssertionError(f"no {kind}")


def written(tree: ast.Module) -> Iterator[tuple[str, str, int]]:
    """Yield (part, field, line) of each assignment to `pool.part.field`, or to that by a short name."""
    for function in ast.walk(tree):
        if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        short: dict[str, str] = {name: name for name in PARTS}
        for node in ast.walk(function):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                value = node.value
                if isinstance(value, ast.Attribute) and value.attr in PARTS:
                    short[node.targets[0].id] = value.attr
        for node in ast.walk(function):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, (ast.Store, ast.Del)):
                holder = node.value
                part = None
                if isinstance(holder, ast.Name):
                    part = short.get(holder.id)
                elif isinstance(holder, ast.Attribute):
                    part = holder.attr.lstrip("_") if holder.attr.lstrip("_") in PARTS else None
                if part is not None:
                    yield part, node.attr, node.lineno


def trespasses(path: str, tree: ast.Module, owned: dict[str, set[str]]) -> list[str]:
    """Say where a file writes a field that is another's."""
    if path == UNROLLED:
        return []
    return sorted(
        {
            f"{path}:{line}: {field} belongs to {PARTS[part][0]}"
            for part, field, line in written(tree)
            if field in owned[part]
            and path != PARTS[part][1]
            and not (part == "pool" and field in ALLOWED)
        }
    )


def test_no_part_writes_the_fields_of_another() -> None:
    """Each field is written in the file of its class, and by the unrolled forms."""
    found = dict(modules().values())
    owned = {part: fields(found[path], kind) for part, (kind, path) in PARTS.items()}
    assert [x for path, tree in found.items() for x in trespasses(path, tree, owned)] == []


@pytest.mark.parametrize(
    "source",
    [
        "def f(pool): pool.capacity.max_id += 1",
        "def f(self): self._pool.capacity.max_id = 1",
        "def f(pool):\n  places = pool.capacity\n  places.max_id += 1",
        "def f(capacity): del capacity.max_id",
    ],
)
def test_a_trespass_is_found(source: str) -> None:
    """The checker bites."""
    owned = {part: set[str]() for part in PARTS} | {"capacity": {"max_id"}}
    assert len(trespasses("_pool/meters.py", ast.parse(source), owned)) == 1
    assert trespasses(UNROLLED, ast.parse(source), owned) == []
