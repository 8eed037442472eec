"""Run the Python of one page, as a reader would who types it in: a process, a namespace, in order.

    python tests/printed/docs_page.py PAGE.md

Prints JSON: for each block its line, what it printed, and the traceback if it failed, after which there
are no more. `await` may stand outside of functions, as in `python -m asyncio`.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import importlib.util
import inspect
import io
import itertools
import json
import re
import sys
import traceback
from pathlib import Path
from typing import Any, NamedTuple

FENCE = re.compile(
    r"(?:^<!-- (?P<mark>needs|not run): (?P<words>.*?) -->\n+)?"
    r"^```(?P<language>[^\s`]*).*\n(?P<code>(?:.*\n)*?)^```$",
    re.MULTILINE,
)


class Block(NamedTuple):
    """A fence of a page."""

    line: int  # of its first line of code
    language: str
    code: str
    mark: str | None
    words: str
    printed: str | None  # what stands in the block `text` right after it


def blocks(text: str) -> list[Block]:
    """The fences of a page, in order."""
    found = list(FENCE.finditer(text))
    result: list[Block] = []
    for fence, after in itertools.zip_longest(found, found[1:]):
        printed = None
        if after is not None and after["language"] == "text":
            between = text[fence.end() : after.start()]
            printed = None if between.strip() else after["code"]
        line = text.count("\n", 0, fence.start("code")) + 1
        result.append(
            Block(line, fence["language"], fence["code"], fence["mark"], fence["words"], printed)
        )
    return result


def missing(block: Block) -> str | None:
    """The first module that it needs and that is not there."""
    if block.mark != "needs":
        return None
    for name in block.words.split(","):
        try:
            found = importlib.util.find_spec(name.strip())
        except ModuleNotFoundError:  # not even its parent is there
            found = None
        if found is None:
            return name
    return None


def execute(block: Block, page: Path, names: dict[str, Any]) -> None:
    # With the page's line numbers, so that stacks show its lines.
    code = compile(
        "\n" * (block.line - 1) + block.code,
        str(page),
        "exec",
        ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
        dont_inherit=True,
    )
    if code.co_flags & inspect.CO_COROUTINE:
        asyncio.run(eval(code, names))
    else:
        exec(code, names)


def main() -> None:
    page = Path(sys.argv[1]).resolve()
    # Classes and functions of the page are those of a module, as tasks of threads need them.
    names: dict[str, Any] = {"__name__": "__main__", "__file__": str(page)}
    results: list[dict[str, Any]] = []
    for block in blocks(page.read_text("utf-8")):
        if block.language != "python" or block.mark == "not run" or missing(block):
            continue
        result: dict[str, Any] = {"line": block.line, "error": None}
        results.append(result)
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            try:
                execute(block, page, names)
            except BaseException:
                result["error"] = traceback.format_exc()
        result["printed"] = printed.getvalue()
        if result["error"] is not None:
            break
    print(json.dumps(results))


if __name__ == "__main__":
    main()
