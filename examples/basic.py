"""Count the words in a package of the standard library, a file at a time, in threads.

It shows `submit`, the order in which futures finish, `map`, and what a failed task looks like.
"""

import argparse
import collections
import json
import re
from concurrent.futures import as_completed
from pathlib import Path

from futurepool import BoundedExecutor, TaskError

FOLDER = Path(json.__file__).parent


def count_words(path: Path) -> collections.Counter[str]:
    return collections.Counter(re.findall(r"[a-z]{5,}", path.read_text("utf-8").lower()))


def count_lines(path: Path) -> int:
    with path.open(encoding="utf-8") as file:
        return sum(1 for _ in file)


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()  # it takes none
    paths = sorted(FOLDER.glob("*.py"))
    words: collections.Counter[str] = collections.Counter()
    # At most 4 + 16 files are unfinished at a time; past that, `submit` waits.
    with BoundedExecutor(max_workers=4, queue_size=16) as pool:
        for future in as_completed([pool.submit(count_words, path) for path in paths]):
            words += future.result()

        # Results of `map` come in the order of the input.
        for path, lines in zip(paths, pool.map(count_lines, paths), strict=True):
            print(f"{lines:6} lines  {path.name}")

        # The error is a FileNotFoundError as usual, and says which task it comes from.
        try:
            pool.submit(count_words, FOLDER / "missing.py").result()
        except FileNotFoundError as error:
            if isinstance(error, TaskError):
                print(
                    f"task {error.task_id} ({error.task_name}) failed: {type(error.cause).__name__}"
                )

        stats = pool.stats()

    print("most frequent:", ", ".join(word for word, _ in words.most_common(3)))
    print(f"{stats.completed_tasks} tasks, {stats.failed_tasks} failed")


if __name__ == "__main__":
    main()
