"""Whether the extension in C is built into a wheel: the hook that the build backend calls."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

TOP = Path(__file__).parents[2]
VARIABLE = "FUTUREPOOL_BUILD_C"

pytestmark = pytest.mark.skipif(
    not (TOP / ".hatch_build.py").is_file(), reason="what builds the package is in a checkout only"
)


@pytest.fixture(name="said")
def fixture_said() -> list[str]:
    """What whoever builds is warned of."""
    return []


@pytest.fixture(name="hook")
def fixture_hook(monkeypatch: pytest.MonkeyPatch, said: list[str]) -> Any:
    """The module; its hook, on this checkout."""
    # Only the class that it derives from is the backend's.
    interface: Any = ModuleType("hatchling.builders.hooks.plugin.interface")
    interface.BuildHookInterface = object
    parts = interface.__name__.split(".")
    for end in range(1, len(parts)):
        name = ".".join(parts[:end])
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, interface.__name__, interface)
    spec = importlib.util.spec_from_file_location("hatch_build", TOP / ".hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.hook = module.Hook()
    module.hook.root = str(TOP)
    module.hook.app = SimpleNamespace(display_warning=said.append)
    return module


def build(hook: Any) -> dict[str, Any]:
    """What the backend is told of the wheel."""
    data: dict[str, Any] = {"force_include": {}, "pure_python": True, "infer_tag": False}
    try:
        hook.hook.initialize("standard", data)
    finally:
        hook.hook.finalize("standard", data, "")
    return data


@pytest.mark.parametrize("value", [None, "", "never"])
def test_it_is_not_built_unless_asked_for(
    hook: Any, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    """Nor is a compiler looked for, nor anything installed to call it with."""
    monkeypatch.delenv(VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(VARIABLE, value)
    monkeypatch.setattr(hook, "build", None)
    assert hook.hook.dependencies() == []
    assert build(hook) == {"force_include": {}, "pure_python": True, "infer_tag": False}


@pytest.mark.parametrize("value", ["auto", "require"])
def test_it_is_built_where_it_can_be(
    hook: Any, monkeypatch: pytest.MonkeyPatch, said: list[str], value: str
) -> None:
    """The wheel is one for this interpreter, and has the library beside the source."""
    monkeypatch.setenv(VARIABLE, value)
    folders: list[Path] = []

    def compiled(source: Path, folder: Path) -> Path:
        assert source.is_file()
        folders.append(folder)
        return folder / f"_fast{hook.sysconfig.get_config_var('EXT_SUFFIX')}"

    monkeypatch.setattr(hook, "build", compiled)
    assert hook.hook.dependencies() == ["setuptools>=75"]
    data = build(hook)
    assert (data["pure_python"], data["infer_tag"]) == (False, True)
    (name,) = data["force_include"].values()
    assert name.startswith("futurepool/_pool/_fast.")
    assert not folders[0].exists()
    assert said == []


@pytest.mark.parametrize("really", [False, True])
def test_without_a_compiler(
    hook: Any, monkeypatch: pytest.MonkeyPatch, said: list[str], really: bool
) -> None:
    """Where it is required the build fails; else it says so, and the wheel is pure Python."""
    if really:
        pytest.importorskip("setuptools")
        monkeypatch.setenv("CC", f"{sys.executable} -c raise(SystemExit(1))")
    else:

        def fails(source: Path, folder: Path) -> Path:
            raise OSError("no compiler")

        monkeypatch.setattr(hook, "build", fails)
    monkeypatch.setenv(VARIABLE, "require")
    with pytest.raises(Exception, match=r"no compiler|failed"):
        build(hook)
    assert said == []
    monkeypatch.setenv(VARIABLE, "auto")
    assert build(hook) == {"force_include": {}, "pure_python": True, "infer_tag": False}
    (line,) = said
    assert "_fast.c was left out: " in line
    assert line.endswith("This wheel is pure Python.")


def test_another_value_is_refused(hook: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the names of those there are."""
    monkeypatch.setenv(VARIABLE, "yes")
    with pytest.raises(ValueError, match="must be one of auto, never, require, not 'yes'"):
        build(hook)
