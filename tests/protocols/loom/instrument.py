"""Switch points in front of bytecode instructions of chosen functions.

Python >= 3.12 has `sys.monitoring` for it, older ones `sys.settrace` with opcode events. Either way
the scheduler's `point()` is called from within the interpreter, just before an instruction.

Granularity "instruction" stops at all of them. "op" stops only where other threads can tell the
difference: attributes, subscripts, containers, calls, truth tests of what may be a container. Of
those it leaves out

- attributes that are assigned in constructors only (or are methods), because they cannot race: the
  names are collected over all instrumented code, so instrument everything that assigns an
  attribute. `setattr()` and `object.__setattr__` are not seen; name those in `volatile`;
- attributes of modules and enumerations;
- globals and closure variables, unless some function declares them `global`/`nonlocal`;
- the first point inside a function (and of a modelled primitive) right after the point at its
  CALL: nothing has happened in between.

A call of C code is one step, as it is for real threads.
"""

from __future__ import annotations

import collections
import dis
import enum
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any

from . import scheduler

__all__ = ["codes", "instrumented"]

_MONITORING = getattr(sys, "monitoring", None)

#: For each instrumented code object, by id(): offset -> 0, or the offset after a CALL.
_sites: dict[int, dict[int, int]] = {}

_CONSTRUCTORS = {"__init__", "__new__", "__post_init__"}
_LOADS = {"LOAD_ATTR", "LOAD_METHOD"}
_SHARED = {
    *("STORE_ATTR", "DELETE_ATTR", "STORE_GLOBAL", "DELETE_GLOBAL", "STORE_SUBSCR"),
    *("DELETE_SUBSCR", "BINARY_SUBSCR", "BINARY_SLICE", "STORE_SLICE", "CONTAINS_OP"),
    *("FOR_ITER", "LIST_EXTEND", "SET_UPDATE", "DICT_UPDATE", "DICT_MERGE", "LOAD_SUPER_ATTR"),
}
#: A truth test right after one of these looks at a fresh bool, or at what a point just loaded.
_FRESH = {"COMPARE_OP", "IS_OP", "CONTAINS_OP", "UNARY_NOT", "TO_BOOL"}
_SETUP = {"CACHE", "NOP", "NOT_TAKEN", "RESUME", "COPY_FREE_VARS", "MAKE_CELL"}
#: Calls of these without arguments end in a model, which makes its own, better point.
_MODELLED = {"acquire", "release", "locked", "get", "get_nowait", "qsize", "clock", "get_ident"}
_BUILTIN_METHODS = (
    {
        name
        for kind in (
            list,
            dict,
            set,
            tuple,
            str,
            bytearray,
            collections.deque,
            collections.OrderedDict,
        )
        for name in dir(kind)
        if not name.startswith("__")
    }
    | _MODELLED
    | {"put", "join", "start", "set_result", "add_done_callback"}
)


def codes(target: Any) -> Iterator[tuple[CodeType, dict[str, Any]]]:
    """Every code object with its globals in a module, a class, a function or a code object."""
    if isinstance(target, ModuleType):
        for value in vars(target).values():
            if getattr(value, "__module__", None) == target.__name__ and callable(value):
                yield from codes(value)
    elif isinstance(target, type):
        for value in vars(target).values():
            if isinstance(value, property):
                for accessor in (value.fget, value.fset, value.fdel):
                    yield from codes(accessor)
            elif not isinstance(value, type) or (
                value.__module__ == target.__module__
                and value.__qualname__.startswith(target.__qualname__ + ".")
            ):
                yield from codes(value)
    elif isinstance(target, CodeType):
        yield from _nested(target, {})
    else:
        target = getattr(target, "__func__", target)  # class and static methods
        while isinstance(target, FunctionType):
            yield from _nested(target.__code__, target.__globals__)
            target = getattr(target, "__wrapped__", None)


def _nested(code: CodeType, names: dict[str, Any]) -> Iterator[tuple[CodeType, dict[str, Any]]]:
    yield code, names
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from _nested(const, names)


def _instructions(code: CodeType) -> list[dis.Instruction]:
    """Those that do something, each with the offset at which its event comes."""
    found: list[dis.Instruction] = []
    start = None
    for op in dis.get_instructions(code):
        if op.opname == "EXTENDED_ARG":
            start = op.offset if start is None else start
        else:
            if start is not None and _MONITORING is None:
                found.append(op._replace(offset=start))  # the one event comes before the prefix
            elif op.opname not in _SETUP:
                found.append(op)
            start = None
    return found


class _Names:
    """Which names may change under somebody's feet, judged over all instrumented code."""

    def __init__(self, found: Iterable[CodeType], volatile: Iterable[str]) -> None:
        built: set[str] = set()
        stored: set[str] = set(volatile)
        self.variables: set[str] = set()
        for code in found:
            built.add(code.co_name)
            for op in dis.get_instructions(code):
                if op.opname in ("STORE_ATTR", "DELETE_ATTR"):
                    (built if code.co_name in _CONSTRUCTORS else stored).add(op.argval)
                elif op.opname == "STORE_GLOBAL" or (
                    op.opname == "STORE_DEREF" and op.argval in code.co_freevars
                ):
                    self.variables.add(op.argval)
        self.final = (built | _BUILTIN_METHODS) - stored


def _shared_sites(code: CodeType, names: dict[str, Any], know: _Names) -> dict[int, int]:
    """The instructions at which granularity "op" stops."""
    sites: dict[int, int] = {}
    ops = _instructions(code)
    ends = [op.offset for op in ops[1:]] + [len(code.co_code)]
    previous = None
    for number, (op, end) in enumerate(zip(ops, ends, strict=True)):
        name, before = op.opname, previous.opname if previous else ""
        previous = op
        if name in _LOADS:
            owner = ops[number - 1]
            constant = owner.opname == "LOAD_GLOBAL" and isinstance(
                names.get(owner.argval), (ModuleType, enum.EnumMeta)
            )
            if constant or op.argval in know.final:
                continue
        elif name == "STORE_ATTR" and op.argval in know.final and code.co_name in _CONSTRUCTORS:
            continue
        elif name == "PRECALL" or name.startswith("CALL"):
            if name.startswith("CALL_INTRINSIC") or before == "PRECALL":
                continue
            owner = ops[number - 1]
            if owner.opname in _LOADS and owner.argval in _MODELLED:
                continue
            if owner.opname == "LOAD_SPECIAL":  # 3.14's `with`: older ones enter without a CALL
                continue
            sites[op.offset] = ends[number + 1] if name == "PRECALL" else end
            continue
        elif name in ("TO_BOOL", "UNARY_NOT") or ("JUMP" in name and "_IF_" in name):
            if "NONE" in name or "EXC" in name or before in _FRESH or before.startswith("CALL"):
                continue
            if before in _LOADS and ops[number - 1].offset in sites:
                continue
        elif name.endswith("_DEREF") or name in ("LOAD_GLOBAL", "LOAD_NAME"):
            if op.argval not in know.variables:
                continue
        elif name not in _SHARED and not (name == "BINARY_OP" and op.argrepr == "[]"):
            continue
        sites[op.offset] = 0
    return sites


def _all_sites(code: CodeType) -> dict[int, int]:
    ops = _instructions(code)
    ends = [op.offset for op in ops[1:]] + [len(code.co_code)]
    return {
        op.offset: end * op.opname.startswith("CALL") for op, end in zip(ops, ends, strict=True)
    }


@contextmanager
def instrumented(
    targets: Iterable[Any], granularity: str = "op", volatile: Iterable[str] = ()
) -> Iterator[Any]:
    """Make points in all code of `targets`; yields the trace function each task has to set."""
    if granularity not in ("op", "instruction"):
        raise ValueError(f"no such granularity: {granularity!r}")
    found = {id(code): (code, names) for target in targets for code, names in codes(target)}
    know = _Names([code for code, _ in found.values()], volatile)
    for key, (code, names) in found.items():
        fine = granularity == "instruction"
        _sites[key] = _all_sites(code) if fine else _shared_sites(code, names, know)
    outer = sys.gettrace()
    sys.settrace(None)  # coverage or a debugger would take a switch for a return
    undo = _monitor([code for code, _ in found.values()]) if _MONITORING is not None else None
    try:
        yield None if _MONITORING is not None or not found else _trace
    finally:
        if undo is not None:
            undo()
        sys.settrace(outer)
        _sites.clear()


def _monitor(found: list[CodeType]) -> Callable[[], None]:
    assert _MONITORING is not None
    monitoring = _MONITORING
    tool = next(i for i in (4, 3, 2, 5, 1, 0) if monitoring.get_tool(i) is None)
    event = monitoring.events.INSTRUCTION
    monitoring.use_tool_id(tool, "futurepool-loom")
    monitoring.register_callback(tool, event, _on_instruction)
    for code in found:
        monitoring.set_local_events(tool, code, event)

    def undo() -> None:
        for code in found:
            monitoring.set_local_events(tool, code, 0)
        monitoring.register_callback(tool, event, None)
        monitoring.free_tool_id(tool)

    return undo


def _on_instruction(code: CodeType, offset: int) -> Any:
    end = _sites[id(code)].get(offset)
    if end is None:
        return _MONITORING.DISABLE  # type: ignore[union-attr]
    run = scheduler.running()
    if run is not None and run.exploring and run.current is not None:
        if end or run.current.call is not None:
            _stop(run, sys._getframe(1), offset, end)
        else:
            run.point()
    return None


def _trace(frame: FrameType, event: str, arg: Any) -> Any:
    sites = _sites.get(id(frame.f_code))
    if sites is None:
        return None
    if event == "opcode":
        offset = frame.f_lasti
        end = sites.get(offset)
        run = scheduler.running()
        if end is not None and run is not None and run.exploring and run.current is not None:
            if end or run.current.call is not None:
                _stop(run, frame, offset, end)
            else:
                run.point()
    elif event == "call":
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
    return _trace


def _stop(run: scheduler.Scheduler, frame: FrameType, offset: int, end: int) -> None:
    """A point, unless the one at the CALL that led straight here was the same."""
    task = run.current
    assert task is not None
    call, caller = task.call, frame.f_back
    task.call = (id(frame), offset, end) if end else None
    if call is None or caller is None or not _at(call, caller):
        run.point()


def _at(call: tuple[int, int, int], frame: FrameType) -> bool:
    """Whether `frame` still stands at that CALL."""
    return call[0] == id(frame) and call[1] <= frame.f_lasti < call[2]
