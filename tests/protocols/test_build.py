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


def test_it_can_be_left_out(hook: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """No compiler is looked for then, nor is anything installed to call it with."""
    monkeypatch.setenv(VARIABLE, "never")
    monkeypatch.setattr(hook, "build", None)
    assert hook.hook.dependencies() == []
    assert build(hook) == {"force_include": {}, "pure_python": True, "infer_tag": False}


@pytest.mark.parametrize("value", [None, "", "auto", "require"])
def test_it_is_built_where_it_can_be(
    hook: Any, monkeypatch: pytest.MonkeyPatch, said: list[str], value: str | None
) -> None:
    """The wheel is one for this interpreter, and has the library beside the source."""
    monkeypatch.delenv(VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(VARIABLE, value)
    monkeypatch.setattr(hook, "untested", lambda: "")
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
    monkeypatch.setattr(hook, "untested", lambda: "")
    monkeypatch.setenv(VARIABLE, "require")
    with pytest.raises(Exception, match=r"no compiler|failed"):
        build(hook)
    assert said == []
    monkeypatch.setenv(VARIABLE, "auto")
    assert build(hook) == {"force_include": {}, "pure_python": True, "infer_tag": False}
    (line,) = said
    assert "_fast.c was left out: " in line
    assert line.endswith("This wheel is pure Python.")


def pretend(hook: Any, monkeypatch: pytest.MonkeyPatch, **what: Any) -> None:
    """The build runs elsewhere: CPython 3.11 on Linux and x86-64, but for `what`."""
    like: dict[str, Any] = {
        "free": 0,
        "machine": "x86_64",
        "implementation": SimpleNamespace(name="cpython"),
        "platform": "linux",
        "version": "3.11.7 (main)",
        "version_info": (3, 11, 7),
    }
    like.update(what)
    monkeypatch.setattr(hook, "sys", SimpleNamespace(**like))
    monkeypatch.setattr(hook.platform, "machine", lambda: like["machine"])
    monkeypatch.setattr(hook.sysconfig, "get_config_var", lambda _: like["free"])


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ({"platform": "darwin"}, "not tested on darwin, x86_64"),
        ({"machine": "aarch64"}, "not tested on linux, aarch64"),
        ({"version_info": (3, 16, 0), "version": "3.16.0 (main)"}, "not tested on cpython, 3.16.0"),
        (
            {"free": 1, "version_info": (3, 14, 0), "version": "3.14.0 (main)"},
            "not tested on cpython without a GIL, 3.14.0",
        ),
        ({"implementation": SimpleNamespace(name="pypy")}, "not tested on pypy"),
    ],
)
def test_where_it_was_not_tested(
    hook: Any, monkeypatch: pytest.MonkeyPatch, said: list[str], what: dict[str, Any], why: str
) -> None:
    """It is left out unless it is asked for, and the build says how to ask."""
    pretend(hook, monkeypatch, **what)
    monkeypatch.setenv(VARIABLE, "auto")
    monkeypatch.setattr(hook, "build", None)
    assert build(hook)["pure_python"]
    (line,) = said
    assert why in line
    assert f"{VARIABLE}=require builds it" in line


@pytest.mark.parametrize(("minor", "free"), [*((minor, 0) for minor in range(10, 16)), (13, 1)])
def test_where_it_was_tested(
    hook: Any, monkeypatch: pytest.MonkeyPatch, minor: int, free: int
) -> None:
    """On each version with a GIL, and on the one without."""
    pretend(hook, monkeypatch, version_info=(3, minor, 0), free=free)
    assert not hook.untested()


def test_a_checkout_that_is_edited_has_it_if_asked_for(
    hook: Any, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    """By default whoever changes the code would not see what the change does."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(hook, "build", None)
    hook.hook.initialize("editable", {})
    assert said == []


def test_another_value_is_refused(hook: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the names of those there are."""
    monkeypatch.setenv(VARIABLE, "yes")
    with pytest.raises(ValueError, match="must be one of auto, never, require, not 'yes'"):
        build(hook)
