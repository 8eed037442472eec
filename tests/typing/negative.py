"""What must not type-check: each line marked `# E` is an error, no other line is."""

from __future__ import annotations

from futurepool import BoundedExecutor, CancelToken


def scale(image: str, factor: float, *, sharp: bool = False) -> bytes:
    return image.encode()


pool = BoundedExecutor()
view = pool.options()
pool.submit(scale, 3, 2.0)  # E
pool.submit(scale, "a")  # E
pool.submit(scale, "a", 2.0, blurred=True)  # E
pool.submit(3)  # E
pool.submit()  # E
pool.try_submit(scale, "a", "b")  # E
pool.submit_with_timeout("1", scale, "a", 2.0)  # E
pool.submit_with_timeout(1, scale, "a")  # E
pool.submit_with_priority("high", scale, "a", 2.0)  # E
pool.submit_with_priority(1, scale, "a", sharp=3)  # E
pool.submit_with_token(None, scale, "a", 2.0)  # E
pool.submit_with_token(CancelToken(), scale, 1, 2.0)  # E
pool.options(priority="high")  # E
pool.options(timeout="1")  # E
pool.options(on_full="block")  # E
pool.options(name=3)  # E
pool.options(3)  # E
view.submit(scale, 3, 2.0)  # E
number: int = pool.submit(scale, "a", 2.0).result()  # E
BoundedExecutor(queue_size="x")  # E
BoundedExecutor(4, on_full="block")  # E
BoundedExecutor(error_handler=lambda: None)  # E
pool.map(len, ["a"], chunksize="x")  # E
pool.map(len, 3)  # E
pool.stop(token=3)  # E
pool.stats().queued_tasks = 3  # E
CancelToken("1")  # E
CancelToken(parent=3)  # E
