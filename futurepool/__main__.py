"""`python -m futurepool`."""

import sys

from futurepool.cli import main

if __name__ == "__main__":
    sys.exit(main())
