"""Build the optional extension `futurepool._pool._fast` into the wheel, where that can be done.

`FUTUREPOOL_BUILD_C` is `auto`, the default: if the extension cannot be built, the build says so, and the wheel
is pure Python; `require`: the build fails then; or `never`: the wheel is pure Python.

By `auto` it is built only where all tests have run over it, see `untested`, and not into a checkout that is
installed to be edited: whoever changes the code there would go on with what was built before.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_VARIABLE = "FUTUREPOOL_BUILD_C"
_SOURCE = Path("futurepool", "_pool", "_fast.c")


def wanted() -> str:
    """Whether the extension is to be built, as above."""
    value = os.environ.get(_VARIABLE) or "auto"
    if value not in ("auto", "never", "require"):
        message = f"{_VARIABLE} must be one of auto, never, require, not {value!r}"
        raise ValueError(message)
    return value


def untested() -> str:
    """What keeps the extension from being built unless it is asked for; empty if nothing does."""
    free = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
    tested = [(3, 13)] if free else [(3, minor) for minor in range(10, 16)]
    if sys.implementation.name != "cpython" or sys.version_info[:2] not in tested:
        kind = sys.implementation.name + " without a GIL" * free
        return f"it was not tested on {kind}, {sys.version.split()[0]}"
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return f"it was not tested on {sys.platform}, {platform.machine()}"
    return ""


def build(source: Path, folder: Path) -> Path:
    """Compile the extension for this interpreter; the library, somewhere in `folder`."""
    from setuptools import Distribution, Extension
    from setuptools.command.build_ext import build_ext

    more = [] if sys.platform == "win32" else ["-O3", "-fno-strict-aliasing"]
    name = "futurepool._pool._fast"
    extension = Extension(name, [str(source)], extra_compile_args=more)
    command = build_ext(Distribution({"name": "futurepool", "ext_modules": [extension]}))
    command.build_lib = str(folder / "lib")
    command.build_temp = str(folder / "objects")
    command.ensure_finalized()
    command.run()
    return Path(command.get_ext_fullpath(name))


class Hook(BuildHookInterface):
    """See above."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """What is to be there beside hatchling."""
        return [] if wanted() == "never" else ["setuptools>=75"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Before the files of the wheel are gathered."""
        how = wanted()
        if how == "never":
            return
        if how == "auto":
            if version == "editable":
                return
            if why := untested():
                self._leave_out(f"{why}; {_VARIABLE}=require builds it all the same")
                return
        self.folder = Path(tempfile.mkdtemp())
        try:
            library = build(Path(self.root) / _SOURCE, self.folder)
        except Exception as error:
            # No compiler, no headers, one that does not know what is asked of it: each has its own class.
            if how == "require":
                raise
            self._leave_out(error)
            return
        assert library.name.endswith(sysconfig.get_config_var("EXT_SUFFIX"))
        if version == "editable":
            shutil.copy(library, Path(self.root) / _SOURCE.parent)
            return
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["force_include"][str(library)] = (_SOURCE.parent / library.name).as_posix()

    def _leave_out(self, why: object) -> None:
        reason = str(why).rstrip(".")
        self.app.display_warning(f"{_SOURCE} was left out: {reason}. This wheel is pure Python.")

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """After it was written."""
        folder = getattr(self, "folder", None)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
