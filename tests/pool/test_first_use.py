"""In the command, public names come with the first use of one: who may be there, and what goes wrong."""

from __future__ import annotations

import json

import pytest

from tests.programs import python


def said(code: str, argv: str = "/usr/bin/futurepool") -> list[object]:
    """What a program of that name prints: a value in JSON on each line."""
    done = python(f"import json, sys\nsys.argv[0] = {argv!r}\n{code}")
    assert done.stderr == ""
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_import_alone_loads_no_pool() -> None:
    """All names can be seen; the first that is used brings all but what few programs need."""
    code = """
import threading
before = set(sys.modules)
import futurepool
print(json.dumps(sorted(set(sys.modules) - before)))
print(json.dumps(sorted(set(futurepool.__all__) - set(dir(futurepool)))))
print(json.dumps([hasattr(futurepool, name) for name in ("_executor", "Executor", "__path__")]))
futurepool.Priority
print(json.dumps(["BoundedExecutor" in vars(futurepool), "Stats" in vars(futurepool)]))
names = {}
exec("from futurepool import *", names)
print(json.dumps(sorted(set(futurepool.__all__) - set(names))))
"""
    assert said(code) == [["futurepool"], [], [False, False, True], [True, False], []]


@pytest.mark.parametrize("argv", ["", "-c", "-m", "/srv/app.py", "/srv/futurepool_app"])
def test_a_program_gets_all_at_once(argv: str) -> None:
    """Later it may be within somebody's `patch.dict(sys.modules)`, or while `Thread` is a mock."""
    code = """
import futurepool
print(json.dumps(["BoundedExecutor" in vars(futurepool), "Stats" in vars(futurepool)]))
"""
    assert said(code, argv) == [[True, False]]


@pytest.mark.parametrize("argv", ["-m", "/usr/bin/futurepool", "futurepool.exe"])
def test_the_command_does_not(argv: str) -> None:
    """Python says `-m` while it looks for the module."""
    code = """
sys.orig_argv = ["python", "-X", "utf8", "-m", "futurepool", "--help"]
import futurepool
print(json.dumps("BoundedExecutor" in vars(futurepool)))
"""
    assert said(code, argv) == [False]


def test_a_first_use_by_many_threads() -> None:
    """Each gets the same class."""
    code = """
import threading, futurepool
barrier, found = threading.Barrier(8), []
def use(name):
    barrier.wait(30)
    found.append((name, getattr(futurepool, name)))
names = ["BoundedExecutor", "Stats", "Future", "OnFull"] * 2
threads = [threading.Thread(target=use, args=(name,)) for name in names]
for each in threads: each.start()
for each in threads: each.join(30)
print(json.dumps([len(found), all(getattr(futurepool, name) is value for name, value in found)]))
"""
    assert said(code) == [[8, True]]


@pytest.mark.parametrize("before", ["", "import concurrent.futures.thread"])
def test_a_first_use_at_interpreter_exit(before: str) -> None:
    """No pool is made whose tasks nobody would wait for any more."""
    code = f"""
import atexit
import futurepool
{before}
def late():
    try:
        futurepool.BoundedExecutor(1).submit(print, "ran")
    except RuntimeError as error:
        print(json.dumps("shutdown" in str(error)))
atexit.register(late)
"""
    assert said(code) == [True]


def test_what_a_test_has_put_in_place_stays() -> None:
    """And what it takes away again is as before."""
    code = """
from unittest import mock
import futurepool
futurepool.BoundedExecutor = "theirs"
print(json.dumps([futurepool.Future.__name__, futurepool.BoundedExecutor]))
del futurepool.BoundedExecutor
print(json.dumps(futurepool.BoundedExecutor.__name__))
with mock.patch("futurepool.CancelToken", "theirs"):
    print(json.dumps(futurepool.CancelToken))
print(json.dumps(futurepool.CancelToken.__name__))
with mock.patch("futurepool.Stats", "theirs"):
    print(json.dumps(futurepool.Stats))
print(json.dumps(futurepool.Stats.__name__))
"""
    names = ["BoundedExecutor", "theirs", "CancelToken", "theirs", "Stats"]
    assert said(code) == [["Future", "theirs"], *names]


def test_a_module_that_is_not_what_it_was() -> None:
    """As a file `weakref.py` of the user's own: the error says so, not that there is no such name."""
    code = """
import types
sys.modules["weakref"] = types.ModuleType("weakref")
import futurepool
try:
    from futurepool import BoundedExecutor
except ImportError as error:
    print(json.dumps(str(error)))
"""
    [text] = said(code)
    assert "weakref" in str(text)


def test_public_classes_say_so_whichever_way_they_come() -> None:
    """Also where `futurepool.testing` is all that a program imports; and `FUTUREPOOL_TOP` is looked at."""
    code = """
from futurepool.testing import InlineExecutor
from futurepool import _living
print(json.dumps([InlineExecutor.__mro__[1].__module__, len(_living.at_first)]))
"""
    done = python(f"import json, os\nos.environ['FUTUREPOOL_TOP'] = '1'\n{code}")
    assert (done.stdout, done.stderr) == ('["futurepool", 1]\n', "")
