"""Tests over the form in C, built with a sanitizer of the compiler's: in a copy, for this interpreter.

    python -m tests.sanitized address tests/protocols/test_compiled.py
    python3.13t -m tests.sanitized thread -m "not slow" tests/api

`address` is AddressSanitizer with UndefinedBehaviorSanitizer, and the interpreter takes its memory from `malloc`.
What they find ends the run. `thread` is ThreadSanitizer, which needs an interpreter that was built with it
(`configure --disable-gil --with-thread-sanitizer --with-pydebug`); what it finds it prints. `plain` is without any: on
a debug build of the interpreter, where `test_any_allocation_may_fail` counts all references.

It needs gcc, its sanitizers, and the interpreter's headers. What comes after the kind is pytest's.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

TOP = Path(__file__).parents[1]
FLAGS = {
    "address": ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"],
    "thread": ["-fsanitize=thread"],
    "plain": [],
}
PRELOADED = {"address": ["libasan.so", "libubsan.so"]}


def build(folder: Path, kind: str) -> None:
    """The extension, beside its source there."""
    source = folder / "futurepool" / "_pool" / "_fast.c"
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    paths = {sysconfig.get_path("include"), sysconfig.get_path("platinclude")}
    command = [
        "gcc",
        "-shared",
        "-fPIC",
        "-O1",
        "-g",
        "-fno-strict-aliasing",
        "-fno-omit-frame-pointer",
    ]
    command += [*FLAGS[kind], *(f"-I{path}" for path in paths), str(source)]
    subprocess.run([*command, "-o", str(source.with_suffix(suffix))], check=True)


def environment(folder: Path, kind: str) -> dict[str, str]:
    """What the run needs."""
    env = {**os.environ, "PYTHONPATH": str(folder), "FUTUREPOOL_FORM": "compiled"}
    libraries = [
        subprocess.run(
            ["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in PRELOADED.get(kind, [])
    ]
    if libraries:
        env["LD_PRELOAD"] = " ".join(libraries)
        env["ASAN_OPTIONS"] = "detect_leaks=0"  # the interpreter's own, at its end
        env["UBSAN_OPTIONS"] = "print_stacktrace=1"
        if not sysconfig.get_config_var(
            "Py_GIL_DISABLED"
        ):  # which has an allocator of its own only
            env["PYTHONMALLOC"] = "malloc"
    return env


def main(kind: str, arguments: list[str]) -> int:
    """What pytest returned."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ignored = shutil.ignore_patterns("*.so", "__pycache__")
        for part in ("futurepool", "tests", "docs", "examples", "benchmarks"):
            shutil.copytree(TOP / part, folder / part, ignore=ignored)
        for part in ("pyproject.toml", "README.md", ".hatch_build.py"):
            shutil.copy(TOP / part, folder)
        build(folder, kind)
        command = [sys.executable, "-X", "faulthandler", "-m", "pytest", *arguments]
        env = environment(folder, kind)
        return subprocess.run(command, cwd=folder, env=env, check=False).returncode


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in FLAGS:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], sys.argv[2:]))
