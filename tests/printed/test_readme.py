"""The README's code runs as printed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import futurepool

README = Path(__file__).parents[2] / "README.md"
TEXT = README.read_text("utf-8")


def blocks(language: str) -> list[str]:
    """The code of each fence in `language`."""
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize("code", blocks("python"), ids=lambda code: code.splitlines()[0])
def test_python_runs(code: str, tmp_path: Path) -> None:
    """Each block is a program that ends well."""
    script = tmp_path / "block.py"
    script.write_text(code, "utf-8")
    # From the checkout's folder, so that the package is found where it is not installed.
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"import runpy; runpy.run_path({str(script)!r})"],
        cwd=README.parent,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_two_commands() -> None:
    """There are two shell blocks, each one command: run a job, run the tests."""
    job, tests = blocks("sh")
    assert "python -m futurepool map" in job
    assert "python -m pytest" in tests
    assert [job.count("\n"), tests.count("\n")] == [1, 1]


def test_only_known_languages() -> None:
    """A fence in another language would be run by nobody."""
    assert set(re.findall(r"^```(\w*)", TEXT, re.MULTILINE)) == {"", "python", "sh", "text"}


def test_it_installs_from_the_checkout() -> None:
    """The name on the package index belongs to somebody else."""
    assert not re.search(r"pip3? install ([-\w]+ )*['\"]?futurepool", TEXT)


def test_the_addresses_of_the_project_name_pages_of_the_site() -> None:
    """What the package index links is a page that there is."""
    text = (README.parent / "pyproject.toml").read_text("utf-8")
    links = text.partition("[project.urls]\n")[2].partition("\n\n")[0]
    pages = re.findall(r'^\w+ = "https://[\w.-]+/en/stable/(?:(\w+)\.html)?"$', links, re.MULTILINE)
    assert len(pages) == links.count("\n") + 1
    assert [p for p in pages if not (README.parent / "docs" / f"{p or 'index'}.md").exists()] == []


def test_as_the_package_index_shows_it_the_links_lead_to_pages_of_the_site() -> None:
    """The index has none of the files beside it: neither pages nor pictures."""
    tomllib = pytest.importorskip("tomllib")
    hooks = tomllib.loads((README.parent / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]
    text = TEXT
    for change in hooks["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]:
        text = re.sub(change["pattern"], change["replacement"], text)
    links = re.findall(r"\]\(([^)]*)\)", text)
    site = re.compile(r"https://[\w.-]+/en/stable/(?:_images/([\w-]+)\.svg|([\w/-]+)\.html)")
    assert [link for link in links if not site.fullmatch(link)] == []
    pictures, pages = zip(*[site.fullmatch(link).groups() for link in links], strict=True)  # type: ignore[union-attr]
    docs = README.parent / "docs"
    assert [name for name in pictures if name and not [*docs.rglob(f"{name}.svg")]] == []
    assert [name for name in pages if name and not (docs / f"{name}.md").exists()] == []
    assert any(pictures)


TESTS = Path(__file__).parents[1]


def test_the_map_of_the_tests_is_complete() -> None:
    """tests/README.md names every file of tests, every part of the package, and nothing else."""
    text = (TESTS / "README.md").read_text("utf-8")
    files = {path.relative_to(TESTS).as_posix() for path in TESTS.rglob("test_*.py")}
    named = set(re.findall(r"`(\w+/test_\w+\.py)`", text))
    assert files - named == set()
    assert named - files == set()
    package = Path(futurepool.__file__).parent
    # A folder without sources is what is left of one that has been moved: Python's own files.
    parts = {
        path.stem for path in package.iterdir() if path.suffix == ".py" or [*path.glob("*.py")]
    }
    listed = text.partition("## Module, file")[2]
    known = set(re.findall(r"`(\w+)`", re.sub(r"\| [^|]* \|$", "", listed, flags=re.MULTILINE)))
    assert {part for part in parts if not part.startswith("__")} - known == set()
