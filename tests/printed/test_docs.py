"""README and the pages of docs/: their code runs and prints what stands there; nothing is left out.

On the oldest and the newest Python, as what a page gets wrong is hardly ever wrong on one only.
"""

from __future__ import annotations

import ast
import dataclasses
import doctest
import enum
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import futurepool
from futurepool import testing
from tests.printed.docs_page import blocks

ROOT = Path(__file__).parents[2]
PACKAGE = Path(futurepool.__file__).parent
PAGES = sorted(
    path
    for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    if path.is_file() and path.name != "benchmarks.md"  # written by benchmarks/report.py
)
#: Pages that have tests of their own, as their code is files and commands: tests/cli/test_cli_docs.py.
ELSEWHERE = {"cli.md"}
LANGUAGES = {
    "python",
    "text",
    "sh",
    "console",
    "json",
    "toml",
    "ini",
    "yaml",
    "{toctree}",
    "{eval-rst}",
}

pytestmark = pytest.mark.skipif(
    not (ROOT / "docs").is_dir(), reason="the folder `docs` was not copied along with the tests"
)


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def wanted(path: Path) -> bool:
    return path.name not in ELSEWHERE and any(
        block.language == "python" for block in blocks(path.read_text("utf-8"))
    )


@pytest.mark.slow
@pytest.mark.skipif(
    (3, 10) < sys.version_info[:2] < (3, 15), reason="on the oldest and the newest Python only"
)
@pytest.mark.parametrize("path", [path for path in PAGES if wanted(path)], ids=name)
def test_code_runs(path: Path, tmp_path: Path) -> None:
    """Each block of Python, one after the other; what it prints is in the block after it."""
    # From elsewhere, so that nothing beside a page is imported by chance.
    done = subprocess.run(
        [sys.executable, "-W", "error", str(Path(__file__).parent / "docs_page.py"), str(path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent), "PYTHONIOENCODING": "utf-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = {result["line"]: result for result in json.loads(done.stdout)}
    assert [result["error"] for result in results.values() if result["error"]] == []
    same = doctest.OutputChecker().check_output
    for block in blocks(path.read_text("utf-8")):
        if block.line in results and block.printed is not None:
            printed = results[block.line]["printed"]
            assert same(block.printed, printed, doctest.ELLIPSIS), (
                f"{path.name}, line {block.line}: printed\n{printed}\nnot\n{block.printed}"
            )
    assert done.stderr == ""


#: The distributions of modules that are called otherwise.
DISTRIBUTIONS = {"grpc": "grpcio", "opentelemetry": "opentelemetry_api"}


@pytest.mark.once
def test_what_pages_need_is_installed_somewhere() -> None:
    """A block that needs a library which no extra of the tests names would be run by nobody."""
    tomllib = pytest.importorskip("tomllib")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lines = [
        line
        for extra in ("test", "peers", "libraries", "prometheus", "opentelemetry")
        for line in extras["optional-dependencies"][extra]
    ]
    installed = {re.split(r"[^\w-]", line)[0].replace("-", "_") for line in lines}
    modules = {
        word.strip().partition(".")[0]
        for path in PAGES
        for block in blocks(path.read_text("utf-8"))
        if block.mark == "needs"
        for word in block.words.split(",")
    }
    assert {DISTRIBUTIONS.get(module, module) for module in modules} - installed == set()


@pytest.mark.once
@pytest.mark.parametrize("path", PAGES, ids=name)
def test_only_known_languages(path: Path) -> None:
    """A fence in another language, or in none, would be checked by nobody."""
    fences = re.findall(r"^```(\S+|$)", path.read_text("utf-8"), re.MULTILINE)
    openings = fences[::2]
    assert set(openings) - LANGUAGES == set()
    assert set(fences[1::2]) <= {""}


@pytest.mark.once
def test_no_page_is_outside_the_site() -> None:
    """The site's contents name each page once."""
    index = (ROOT / "docs" / "index.md").read_text("utf-8")
    listed = [
        line
        for block in blocks(index)
        for line in block.code.splitlines()
        if block.language == "{toctree}" and re.fullmatch(r"[\w/-]+", line)
    ]
    pages = {
        path.relative_to(ROOT / "docs").with_suffix("").as_posix()
        for path in (ROOT / "docs").rglob("*.md")
    }
    assert sorted(listed) == sorted(pages - {"index"})


@pytest.mark.once
def test_every_example_is_on_its_page() -> None:
    page = (ROOT / "docs" / "examples.md").read_text("utf-8")
    named = re.findall(r"^:::{literalinclude} \.\./examples/(\w+)\.py$", page, re.MULTILINE)
    assert sorted(named) == sorted(path.stem for path in (ROOT / "examples").glob("*.py"))


# -- the reference ---------------------------------------------------------------------------------


@pytest.mark.once
def test_the_reference_has_every_public_name() -> None:
    """A directive for each."""
    page = (ROOT / "docs" / "reference.md").read_text("utf-8")
    named = re.findall(r"auto(?:class|function|exception):: futurepool\.(\w+)$", page, re.MULTILINE)
    assert sorted(named) == sorted(futurepool.__all__)
    assert {f"futurepool.testing.{name}" for name in testing.__all__} - set(page.split()) == set()


def field_docstrings() -> set[tuple[str, str]]:
    """(class, name) of each assignment in a class of the package that a string follows."""
    found: set[tuple[str, str]] = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.ClassDef):
                continue
            for field, text in zip(node.body, node.body[1:], strict=False):
                if not (isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)):
                    continue
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                    found.add((node.name, field.target.id))
                elif isinstance(field, ast.Assign) and isinstance(field.targets[0], ast.Name):
                    found.add((node.name, field.targets[0].id))
    return found


def undocumented() -> list[str]:
    fields = field_docstrings()
    bad: list[str] = []
    for public in futurepool.__all__:
        value: Any = getattr(futurepool, public)
        if not inspect.getdoc(value):
            bad.append(public)
        if not isinstance(value, type):
            continue
        if value.__doc__ is None or value.__doc__.startswith(f"{public}("):  # made by dataclasses
            bad.append(f"{public}, a text of its own")
        own = set(value.__members__) if issubclass(value, enum.Enum) else set()
        if dataclasses.is_dataclass(value):
            own |= {field.name for field in dataclasses.fields(value)}
        bad += [f"{public}.{field}" for field in sorted(own) if (public, field) not in fields]
        own |= set(getattr(value, "_fields", ()))  # of a NamedTuple, which its class describes
        said = set(re.findall(r"^ {4}(\w+): ", inspect.getdoc(value) or "", re.MULTILINE))
        bad += [f"{public}.{field}" for field in getattr(value, "_fields", ()) if field not in said]
        for attribute, member in vars(value).items():
            if attribute.startswith("_") or attribute in own:
                continue
            if inspect.ismemberdescriptor(member):  # a slot: the text of the class has it
                if attribute not in value.__doc__:
                    bad.append(f"{public}.{attribute}")
            elif not inspect.getdoc(getattr(value, attribute)):
                bad.append(f"{public}.{attribute}")
    return bad


@pytest.mark.once
def test_everything_public_is_documented() -> None:
    """Each public class, method, property, field and member of an enum says what it is."""
    assert undocumented() == []


@pytest.mark.once
@pytest.mark.parametrize("public", ["OnFull", "Priority", "Stats", "Histogram", "RunningTask"])
def test_help_says_something(public: str) -> None:
    """More than a line, and each member of an enum by name."""
    value: Any = getattr(futurepool, public)
    text = inspect.getdoc(value)
    assert text is not None
    assert len(text.splitlines()) > 2
    for member in getattr(value, "__members__", ()):
        assert member in text
