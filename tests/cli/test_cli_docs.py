"""What docs/cli.md says: each recipe gives what stands there, and each option is named."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from futurepool._cli import options
from tests.cli.command import PATIENCE, environment

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"

pytestmark = pytest.mark.skipif(
    not PAGE.is_file(), reason="the folder `docs` was not copied along with the tests"
)


def recipes() -> list[tuple[str, str]]:
    """Title and text of each."""
    if not PAGE.is_file():
        return []
    text = PAGE.read_text("utf-8")
    part = text.partition("## Ten recipes")[2].partition("\n## ")[0]
    return re.findall(r"^### (\d+\. .*?)\n(.*?)(?=^### |\Z)", part, re.MULTILINE | re.DOTALL)


def test_there_are_ten() -> None:
    """As the heading says."""
    assert len(recipes()) == 10


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform == "win32" or shutil.which("bash") is None, reason="the recipes are for a shell"
)
@pytest.mark.parametrize(("title", "text"), [pytest.param(*each, id=each[0]) for each in recipes()])
def test_recipe(title: str, text: str, tmp_path: Path) -> None:
    """Its files are written, its commands run, one after the other; stdout is what is printed."""
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        name = re.match(r"# (\w+\.py)\n", block)
        assert name is not None, block
        (tmp_path / name[1]).write_text(block, "utf-8")
    tools = tmp_path / ".tools"
    tools.mkdir()
    for tool, words in (("futurepool", "-m futurepool"), ("python", "")):
        script = tools / tool
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n', "utf-8")
        script.chmod(0o755)
    env = environment()
    env["PATH"] = f"{tools}{os.pathsep}{env['PATH']}"
    ran = 0
    for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL):
        for command, expected in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE):
            done = subprocess.run(
                ["bash", "-c", command],
                cwd=tmp_path,
                env=env,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                timeout=PATIENCE,
                check=False,
            )
            assert done.stdout == expected, (title, command, done.stderr)
            ran += 1
    assert ran


def test_every_option_is_there() -> None:
    """In the page's table, by its name."""
    parser = argparse.ArgumentParser(add_help=False)
    options.add_map(parser)
    names = {
        name for action in parser._actions for name in action.option_strings if name[:2] == "--"
    }
    page = PAGE.read_text("utf-8")
    assert [name for name in sorted(names) if f"`{name}" not in page] == []
