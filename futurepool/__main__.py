"""`python -m futurepool`."""

import sys

from futurepool._cli.main import main

if __name__ == "__main__":
    sys.exit(main())
