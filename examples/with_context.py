"""Tokens: the first hit cancels the rest of a search, and a deadline ends work that takes too long.

The search looks for a proof of work: a number whose SHA-256, with a prefix, begins with zeros.
"""

import argparse
import hashlib
from concurrent.futures import CancelledError, as_completed

from futurepool import BoundedExecutor, CancelToken, current_token

TASKS = 200
SPAN = 20_000  # numbers that one task tries


def search(prefix: bytes, start: int, zeros: str) -> tuple[int, int | None]:
    """Try `SPAN` numbers: how many were tried, and the one that fits, if any does."""
    token = current_token()
    for number in range(start, start + SPAN):
        if number % 1000 == 0 and token.cancelled:
            return number - start, None  # nobody wants to know any more
        if hashlib.sha256(b"%s%d" % (prefix, number)).hexdigest().startswith(zeros):
            return number - start, number
    return SPAN, None


def count_until_told() -> int:
    """Work without an end of its own, which looks at its token now and then."""
    rounds = 0
    while not current_token().wait(0.01):
        rounds += 1
    return rounds


def first_hit(pool: BoundedExecutor) -> None:
    # Leaving the block cancels the token: what is queued does not start, what runs sees it.
    with CancelToken() as token:
        tasks = [
            pool.submit_with_token(token, search, b"futurepool", start, "0000")
            for start in range(0, TASKS * SPAN, SPAN)
        ]
        hit = next(hit for task in as_completed(tasks) if (hit := task.result()[1]) is not None)
    print(f"hit: {hashlib.sha256(b'futurepool%d' % hit).hexdigest()[:12]}...")
    tried = sum(task.result()[0] for task in tasks if not task.cancelled())
    print(f"the rest was called off: {tried < TASKS * SPAN}")


def deadline(pool: BoundedExecutor) -> None:
    # One more task than there are workers: the last is still queued when the time is up.
    token = CancelToken(timeout=0.2)
    tasks = [pool.submit_with_token(token, count_until_told) for _ in range(3)]
    print(f"two tasks worked until the deadline: {all(task.result() > 0 for task in tasks[:2])}")
    try:
        tasks[2].result()
    except CancelledError:
        print(f"the third never started: {token.reason}")


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()  # it takes none
    with BoundedExecutor(max_workers=2) as pool:
        first_hit(pool)
        deadline(pool)


if __name__ == "__main__":
    main()
