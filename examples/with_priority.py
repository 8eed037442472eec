"""Priorities: tiles that somebody looks at overtake a batch that renders in the background.

Each tile is a real picture of a part of the Mandelbrot set. `aging` lifts what has waited long, so
that a stream of urgent tiles cannot keep the batch waiting for ever.
"""

import argparse
import threading
from concurrent.futures import Future

from futurepool import BoundedExecutor, Priority

WIDTH, HEIGHT = 48, 15  # characters of a tile
TILES: dict[str, str] = {}


def tile(name: str, x: float, width: float) -> str:
    """Render the tile from `x` on, a character for each pixel, and keep it; its name."""
    rows: list[str] = []
    for row in range(HEIGHT):
        line = ""
        for column in range(WIDTH):
            c = complex(x + column * width / WIDTH, (row / (HEIGHT - 1) - 0.5) * width)
            z = 0j
            steps = 0
            while abs(z) < 2 and steps < 50:
                z = z * z + c
                steps += 1
            line += " .:-=+*#%@"[min(9, steps // 2)]
        rows.append(line.rstrip())
    TILES[name] = "\n".join(rows)
    return name


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()  # it takes none
    finished: list[str] = []
    free = threading.Event()

    def note(future: Future[str]) -> None:
        finished.append(future.result())

    with BoundedExecutor(max_workers=1, aging=60.0) as pool:
        batch = pool.options(priority=Priority.LOW, name="batch")
        viewer = pool.options(priority=Priority.HIGH, name="viewer")

        # The only worker is held, so that what follows is queued, as on a busy day.
        pool.submit(free.wait)
        for number in range(6):
            batch.submit(tile, f"batch {number}", -2.0 + number / 2, 0.5).add_done_callback(note)
        pool.submit(tile, "preview", -1.0, 0.5).add_done_callback(note)
        viewer.submit(tile, "viewer", -2.2, 2.6).add_done_callback(note)
        free.set()

    print(TILES["viewer"])
    print("finished:", ", ".join(finished))


if __name__ == "__main__":
    main()
