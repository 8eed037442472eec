"""docs/logging.md and docs/observability.md say what is so."""

from __future__ import annotations

import ast
import io
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import futurepool
from futurepool import BoundedExecutor

pytestmark = pytest.mark.once

DOCS = Path(__file__).parent.parent.parent / "docs"
PACKAGE = Path(str(futurepool.__file__)).parent
LOGGING = (DOCS / "logging.md").read_text("utf-8")
SEEING = (DOCS / "observability.md").read_text("utf-8")
#: What the first column of the tables has, by the logger of the chapter.
MESSAGES = {
    chapter.split("`")[0]: re.findall(
        r"^\| `(.*?)` \| (?:ERROR|WARNING|CRITICAL) ", chapter, re.MULTILINE
    )
    for chapter in LOGGING.split("## Logger `")[1:]
}


def strings() -> Iterator[tuple[str, bool]]:
    """Every constant text of the package, and whether it is handed to something that logs."""
    for path in PACKAGE.rglob("*.py"):
        if path.parent.name == "_cli":
            continue
        tree = ast.parse(path.read_text("utf-8"))
        logged = {
            id(argument)
            for node in ast.walk(tree)
            if isinstance(node, ast.Call)
            and re.search(
                r"log|emit", ast.unparse(node.func) + "".join(map(ast.unparse, node.args[:1]))
            )
            for argument in node.args
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value, id(node) in logged


def test_messages_are_what_the_page_says() -> None:
    """Each that is on the page is in the package, and each that is logged is on the page."""
    assert list(MESSAGES) == ["futurepool", "concurrent.futures"]
    told = [message for messages in MESSAGES.values() for message in messages]
    assert len(told) == 21
    found = list(strings())
    for message in told:
        assert any(message in text for text, _ in found), message
    for text, logged in found:
        if logged and " " in text:
            assert any(message in text for message in told), text


def blocks(page: str, chapter: str) -> list[str]:
    part = page.split(f"## {chapter}\n")[1].split("\n## ", maxsplit=1)[0]
    return re.findall(r"```python\n(.*?)```", part, re.DOTALL)


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    before = root.handlers[:]
    yield root
    root.handlers[:] = before


def logged(root: logging.Logger, block: str) -> str:
    """What a failure nobody looks at looks like, with what a block of the page sets up."""
    names: dict[str, Any] = {}
    exec(block, names)
    stream = io.StringIO()
    names["handler"].setStream(stream)
    with BoundedExecutor(1, name="db") as pool:
        pool.options(name="load").submit(int, "x")
    return stream.getvalue()


def test_the_standard_library_s_formatter(root: logging.Logger) -> None:
    (block,) = blocks(LOGGING, "The standard library")
    assert logged(root, block).splitlines()[0] == (
        "ERROR db: exception of task 1 (load) was never retrieved"
    )


def test_structlog(root: logging.Logger) -> None:
    pytest.importorskip("structlog")
    (block,) = blocks(LOGGING, "structlog")
    line = logged(root, block).splitlines()[0]
    assert '"event": "exception of task 1 (load) was never retrieved' in line
    assert '"level": "error", "pool": "db", "task_id": 1, "task_name": "load"' in line


def test_metrics_are_those_that_the_page_lists() -> None:
    """By both names."""
    pytest.importorskip("prometheus_client")
    from futurepool.instrumentation import opentelemetry, prometheus

    families = {
        metric.name + "_total" * (metric.type == "counter")
        for metric in prometheus.PoolCollector().describe()
    }
    assert set(re.findall(r"^\| `(executor_\w+)", SEEING, re.MULTILINE)) == families
    instruments = {f"executor.{entry[0]}" for entry in opentelemetry._INSTRUMENTS}
    listed = set(re.findall(r"`(executor\.(?:thread|queue|task|view(?:\.task)?)\.\w+)", SEEING))
    listed |= {f"{name}.quantile" for name in listed if name.endswith("_time")}
    assert listed - {"executor.thread.state"} == instruments


def test_an_observer(capsys: pytest.CaptureFixture[str]) -> None:
    """The page's own is called."""
    (block,) = blocks(SEEING, "Observers")
    with BoundedExecutor(1) as pool:
        exec(block.replace("> 1:", "> -1:"), {"futurepool": futurepool, "pool": pool})
        pool.submit(int).result()
    assert re.match(r"int ThreadPoolExecutor-\d+_0 [\d.e-]+ success\n", capsys.readouterr().out)
