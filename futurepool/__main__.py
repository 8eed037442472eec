"""`python -m futurepool`."""

import sys

if __name__ == "__main__":
    try:
        from futurepool._cli.main import run
    except KeyboardInterrupt:
        sys.exit(130)
    run()
