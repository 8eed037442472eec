"""SHA-256 of files, in threads: hashing releases the interpreter's lock, so all cores work.

    python examples/checksum.py [FILE ...]
    git ls-files | python -m futurepool map examples/checksum.py:sha256

The second prints what `sha256sum` prints, and needs no more of this file than the function.
"""

import argparse
import hashlib
from pathlib import Path

from futurepool import BoundedExecutor

BLOCK = 1 << 18


def sha256(path: str) -> str:
    """Hash a file; the line that `sha256sum` prints for it."""
    with Path(path).open("rb") as file:
        if hasattr(hashlib, "file_digest"):  # from Python 3.11 on
            digest = hashlib.file_digest(file, "sha256")
        else:
            digest = hashlib.sha256()
            while block := file.read(BLOCK):
                digest.update(block)
    return f"{digest.hexdigest()}  {path}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", nargs="*", help="without one, the examples")
    paths = parser.parse_args().file or sorted(map(str, Path(__file__).parent.glob("*.py")))
    with BoundedExecutor(max_workers=4) as pool:
        for line in pool.map(sha256, paths):
            print(line)


if __name__ == "__main__":
    main()
