"""The command line beside other ways to run a function over many items: `python benchmarks/command_line.py`.

What is compared is a whole process, from its start to its end, that reads the items from a file on
stdin and writes the results to a file on stdout; the results must be those of the serial loop:

    for line in sys.stdin:
        print(function(line.rstrip("\\n")))

Round by round each contestant has a turn, so that whatever else the machine does meets all of them
alike; a figure is the median of the rounds, a ratio the median of the rounds' ratios to the serial loop.
Contestants that are not installed are left out and named: GNU parallel, xargs, and, of Python, what
`pip install ".[bench]"` brings.

    python benchmarks/command_line.py                       some four minutes
    python benchmarks/command_line.py --rounds 9 lines      one of the cases
    python benchmarks/command_line.py memory                ten million items, the largest process
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

PACKAGE = str(Path(__file__).resolve().parent.parent)

#: What is called; LOOPS is found out so that `burn` takes a millisecond.
WORK = """
import hashlib

def sha_of_line(line):
    return hashlib.sha256(line.encode()).hexdigest()

def sha_of_file(name):
    with open(name, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()

def burn(item):
    total = int(item)
    for number in range(LOOPS):
        total += number * number % 7
    return total
"""

#: The same in a program of its own: `python peers.py KIND FUNCTION < items`.
PEERS = '''
import sys
import work

def serial(function):
    for line in sys.stdin:
        print(function(line.rstrip("\\n")))

def lines():
    return [line.rstrip("\\n") for line in sys.stdin]

def process_map(function):
    from tqdm.contrib.concurrent import process_map
    return process_map(function, lines(), max_workers=2, chunksize=500, disable=True)

def thread_map(function):
    from tqdm.contrib.concurrent import thread_map
    return thread_map(function, lines(), max_workers=2, disable=True)

def joblib(function):
    from joblib import Parallel, delayed
    return Parallel(n_jobs=2)(delayed(function)(line) for line in lines())

def joblib_threads(function):
    from joblib import Parallel, delayed
    return Parallel(n_jobs=2, prefer="threads")(delayed(function)(line) for line in lines())

def mpire(function):
    from mpire import WorkerPool
    with WorkerPool(n_jobs=2) as pool:
        return pool.map(function, lines())

def mpire_threads(function):
    from mpire import WorkerPool
    with WorkerPool(n_jobs=2, start_method="threading") as pool:
        return pool.map(function, lines())

def words(function):
    """For those who pass items as arguments; written at once, or two processes would cut lines."""
    sys.stdout.write("".join(f"{function(word)}\\n" for word in sys.argv[3:]))

if __name__ == "__main__":
    for result in globals()[sys.argv[1]](getattr(work, sys.argv[2])) or ():
        print(result)
'''


class Contestant(NamedTuple):
    """Somebody to run: words with FUNCTION in them, and what must be there."""

    title: str
    words: tuple[str, ...]
    module: str = "sys"
    program: str = ""
    ordered: bool = True
    only: tuple[str, ...] = ("lines", "files", "burn")

    def missing(self) -> str:
        """What it needs and does not find."""
        if importlib.util.find_spec(self.module) is None:
            return self.module
        return self.program if self.program and shutil.which(self.program) is None else ""


PYTHON = sys.executable
MAP = (PYTHON, "-m", "futurepool", "map", "work.py:FUNCTION", "--quiet")
PEER = (PYTHON, "peers.py")
SERIAL = Contestant("serial loop", (*PEER, "serial", "FUNCTION"))
CONTESTANTS = (
    SERIAL,
    Contestant("futurepool map", MAP),
    Contestant("futurepool map, 2 processes", (*MAP, "--engine", "processes", "-j2")),
    Contestant(
        "`xargs -P2 -n500` with Python",
        ("xargs", "-P2", "-n500", *PEER, "words", "FUNCTION"),
        program="xargs",
        ordered=False,
    ),
    Contestant(
        "`xargs -P2 -n500 sha256sum`",
        ("xargs", "-P2", "-n500", "sha256sum"),
        program="xargs",
        ordered=False,
        only=("files",),
    ),
    Contestant(
        "`parallel -X -k` with Python",
        ("parallel", "-X", "-k", "-j2", *PEER, "words", "FUNCTION"),
        program="parallel",
    ),
    Contestant("tqdm process_map, chunksize=500", (*PEER, "process_map", "FUNCTION"), "tqdm"),
    Contestant("tqdm thread_map", (*PEER, "thread_map", "FUNCTION"), "tqdm"),
    Contestant("joblib", (*PEER, "joblib", "FUNCTION"), "joblib"),
    Contestant("joblib, threads", (*PEER, "joblib_threads", "FUNCTION"), "joblib"),
    Contestant("mpire", (*PEER, "mpire", "FUNCTION"), "mpire"),
    Contestant("mpire, threads", (*PEER, "mpire_threads", "FUNCTION"), "mpire"),
)
#: What each case calls, and with how many items.
CASES = {
    "lines": ("sha_of_line", 100_000, "SHA-256 of {} lines of 200 characters"),
    "files": ("sha_of_file", 100_000, "SHA-256 of {} files of 200 bytes"),
    "burn": ("burn", 4000, "{} calls of a millisecond of pure Python"),
}
STARTS = {
    "python -c pass": (PYTHON, "-c", "pass"),
    "futurepool map --help": (PYTHON, "-m", "futurepool", "map", "--help"),
    "futurepool map, one item": (PYTHON, "-m", "futurepool", "map", "builtins:int", "1", "--quiet"),
}


def loops(seconds: float) -> int:
    """How many turns of `burn` take so long here."""
    number = 1000
    while True:
        names: dict[str, object] = {}
        exec(WORK.replace("LOOPS", str(number)), names)
        spent: list[float] = []
        for _ in range(9):
            began = time.perf_counter()
            names["burn"]("0")  # type: ignore[operator]
            spent.append(time.perf_counter() - began)
        if min(spent) * 2 > seconds:
            return max(1, round(number * seconds / min(spent)))
        number *= 2


def prepare(folder: Path, case: str, items: int) -> None:
    """Write the items of a case into the file `items`."""
    lines: list[str] = []
    for number in range(items):
        line = str(number)
        if case == "lines":
            line = f"{number:0200}"
        elif case == "files":
            path = folder / f"{number // 1000:03}" / f"{number % 1000:03}"
            if not number % 1000:
                path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"%0200d" % number)
            line = str(path.relative_to(folder))
        lines.append(line)
    (folder / "items").write_text("".join(f"{line}\n" for line in lines), "ascii")


def turn(words: tuple[str, ...], folder: Path) -> float:
    """Run it; the seconds from its start to its end."""
    path = os.pathsep.join(filter(None, [PACKAGE, os.environ.get("PYTHONPATH")]))
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    with (folder / "items").open("rb") as items, (folder / "results").open("wb") as results:
        began = time.perf_counter()
        done = subprocess.run(
            words,
            stdin=items,
            stdout=results,
            stderr=subprocess.PIPE,
            cwd=folder,
            env=env,
            check=False,
        )
        spent = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: status {done.returncode}: {done.stderr.decode()}")
    return spent


def compare(case: str, rounds: int, share: float) -> None:
    """Measure a case, and print its table."""
    function, items, title = CASES[case]
    items = max(1, round(items * share))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "work.py").write_text(WORK.replace("LOOPS", str(loops(0.001))), "ascii")
        (folder / "peers.py").write_text(PEERS, "ascii")
        prepare(folder, case, items)
        field = [each for each in CONTESTANTS if case in each.only]
        absent = [f"{each.title} ({each.missing()})" for each in field if each.missing()]
        field = [each for each in field if not each.missing()]
        spent: dict[Contestant, list[float]] = {each: [] for each in field}
        right: list[bytes] = []
        for _ in range(rounds):
            for each in field:
                words = tuple(word.replace("FUNCTION", function) for word in each.words)
                spent[each].append(turn(words, folder))
                lines = (folder / "results").read_bytes().splitlines()
                if "sha256sum" in each.words:  # two of them cut each other's lines
                    continue
                right = right or lines
                same = lines == right if each.ordered else sorted(lines) == sorted(right)
                if not same:
                    raise SystemExit(f"{each.title}: other results than the serial loop's")
    print(f"\n{title.format(f'{items:,}')}, {rounds} rounds\n")
    print("| | seconds | times the serial loop |\n|---|---|---|")
    for each in field:
        ratio = statistics.median(
            mine / serial for mine, serial in zip(spent[each], spent[SERIAL], strict=True)
        )
        print(f"| {each.title} | {statistics.median(spent[each]):.2f} | {ratio:.2f} |")
    if absent:
        print(f"\nNot there: {', '.join(absent)}")


def start(rounds: int) -> None:
    """Measure how long it takes to start and end."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "items").touch()
        spent: dict[str, list[float]] = {title: [] for title in STARTS}
        for _ in range(rounds):
            for title, words in STARTS.items():
                spent[title].append(turn(words, folder))
    print(f"\nStart to end, {rounds} rounds\n")
    print("| | milliseconds | least |\n|---|---|---|")
    for title, times in spent.items():
        print(f"| {title} | {statistics.median(times) * 1e3:.0f} | {min(times) * 1e3:.0f} |")


def memory(share: float) -> None:
    """Ten million items from a pipe: how large it gets."""
    import resource

    items = max(1, round(10_000_000 * share))
    code = f"for number in range({items}): print(number)"
    words = (PYTHON, "-m", "futurepool", "map", "builtins:int", "--quiet")
    with tempfile.TemporaryDirectory() as name:
        began = time.perf_counter()
        with (
            subprocess.Popen([PYTHON, "-c", code], stdout=subprocess.PIPE) as source,
            (Path(name) / "results").open("wb") as results,
        ):
            env = {**os.environ, "PYTHONPATH": PACKAGE}
            subprocess.run(words, stdin=source.stdout, stdout=results, check=True, env=env)
        spent = time.perf_counter() - began
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    unit = 2**20 if sys.platform == "darwin" else 2**10
    print(f"\n{items:,} items from a pipe: {spent:.1f} s, at most {most / unit:.0f} MiB")


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "cases", nargs="*", default=[], help=f"{', '.join((*CASES, 'start', 'memory'))}"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--share", type=float, default=1.0, help="of the items of each case")
    args = parser.parse_args()
    known = (*CASES, "start", "memory")
    for case in args.cases or known:
        if case not in known:
            parser.error(f"there is no case {case!r}")
    for case in args.cases or known:
        if case == "start":
            start(max(args.rounds, 9))
        elif case == "memory":
            memory(args.share)
        else:
            compare(case, args.rounds, args.share)


if __name__ == "__main__":
    main()
