"""See the package's docstring."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from concurrent.futures import ThreadPoolExecutor

from futurepool import BoundedExecutor
from tests.differential import programs
from tests.differential.answers import NEWEST, PROGRAMS, answer, newest
from tests.differential.meant import MEANT
from tests.differential.page import PAGE, render


def main() -> int:
    """Show, or write."""
    parser = argparse.ArgumentParser(prog="python -m tests.differential", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write newest.json and the page")
    parser.add_argument("--newest", action="store_true", help="this is the newest Python")
    parser.add_argument("names", nargs="*", choices=[[], *PROGRAMS], help=programs.__doc__)
    args = parser.parse_args()
    logging.getLogger("futurepool").addHandler(logging.NullHandler())
    logging.getLogger("futurepool").propagate = False
    if args.write:
        if args.newest:
            found = {name: answer(run, ThreadPoolExecutor) for name, run in PROGRAMS.items()}
            lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in found.items()]
            NEWEST.write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")
        PAGE.write_text(render(), "utf-8")
        return 0
    wrong = 0
    expected = newest()
    for name in args.names or PROGRAMS:
        ours = answer(PROGRAMS[name], BoundedExecutor)
        wanted = MEANT[name].answer if name in MEANT else expected[name]
        if ours != wanted:
            wrong += 1
            print(f"{name}\n    wanted {wanted}\n    ours   {ours}")
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
