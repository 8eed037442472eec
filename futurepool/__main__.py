"""`python -m futurepool`."""

from futurepool._cli.main import run

if __name__ == "__main__":
    run()
