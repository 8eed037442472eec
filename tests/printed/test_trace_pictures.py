"""docs/traces: the pictures can be made again, and show what they did."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

import futurepool

FOLDER = Path(__file__).parents[2] / "docs" / "traces"


def submitted(path: Path) -> set[str]:
    """The tasks whose submission is in a picture."""
    return set(re.findall(r"<title>(.*) is submitted</title>", path.read_text("utf-8")))


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.skipif(not FOLDER.is_dir(), reason="the folder `docs` was not copied along")
def test_they_can_be_made_again(tmp_path: Path) -> None:
    """Well-formed, and of the same tasks."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(FOLDER / "draw.py"), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(Path(futurepool.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    pictures = sorted(path.name for path in FOLDER.glob("*.svg"))
    assert sorted(path.name for path in tmp_path.iterdir()) == pictures
    assert len(pictures) == 3
    for name in pictures:
        ET.parse(tmp_path / name)
        if name == "cancelled-group.svg":  # what is submitted after the failure is not
            assert "failed" in submitted(tmp_path / name)
        else:
            assert submitted(tmp_path / name) == submitted(FOLDER / name) != set()
