"""Build the optional extension `futurepool._pool._fast` into the wheel, if it is asked for.

`FUTUREPOOL_BUILD_C` is `never`, the default: the wheel is pure Python; `require`: the build fails if the
extension cannot be built; or `auto`: it then says so, and the wheel is pure Python.
"""

from __future__ import annotations

import os
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
    value = os.environ.get(_VARIABLE) or "never"
    if value not in ("auto", "never", "require"):
        message = f"{_VARIABLE} must be one of auto, never, require, not {value!r}"
        raise ValueError(message)
    return value


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
        self.folder = Path(tempfile.mkdtemp())
        try:
            library = build(Path(self.root) / _SOURCE, self.folder)
        except Exception as error:
            # No compiler, no headers, one that does not know what is asked of it: each has its own class.
            if how == "require":
                raise
            self.app.display_warning(f"{_SOURCE} was left out: {error}. This wheel is pure Python.")
            return
        assert library.name.endswith(sysconfig.get_config_var("EXT_SUFFIX"))
        if version == "editable":
            shutil.copy(library, Path(self.root) / _SOURCE.parent)
            return
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["force_include"][str(library)] = (_SOURCE.parent / library.name).as_posix()

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """After it was written."""
        folder = getattr(self, "folder", None)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
