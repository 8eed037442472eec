"""A trace: what ran when, in which worker, and what waited meanwhile, to be looked at in Perfetto.

Writes trace.json to the folder that is given, or to one that is thrown away; open it at ui.perfetto.dev or in
speedscope. The work: a batch of low priority, into which a few urgent tasks come, one of them cancelled.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

from futurepool import BoundedExecutor, Priority


def work(seconds: float) -> None:
    time.sleep(seconds)


def main(folder: Path) -> None:
    path = folder / "trace.json"
    with BoundedExecutor(max_workers=2, queue_size=20, name="demo") as pool:
        with pool.record() as trace:
            batch = [
                pool.options(name=f"batch {number}", priority=Priority.LOW).submit(work, 0.01)
                for number in range(8)
            ]
            urgent = pool.options(priority=Priority.HIGH)
            replies = [urgent.options(name=f"urgent {n}").submit(work, 0.002) for n in range(3)]
            print(f"called off before it started: {batch[-1].cancel()}")
            for reply in replies:
                reply.result()
            pool.wait()
        trace.save(path)

    events = json.loads(path.read_text("utf-8"))["traceEvents"]
    rows = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    bars = [e for e in events if e["ph"] == "X" and rows[e["tid"]].startswith("demo_")]
    print(f"bars of tasks that ran: {len(bars)}")
    names = [bar["name"] for bar in sorted(bars, key=lambda bar: bar["ts"])]
    print(f"the urgent ones overtook the batch: {names.index('urgent 2') < len(names) - 3}")
    waits = [bar["args"]["waited_ms"] for bar in bars if bar["name"].startswith("batch")]
    print(f"longest wait of the batch: {max(waits):.1f} ms")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, help="where to write trace.json")
    asked = parser.parse_args()
    if asked.folder:
        main(asked.folder)
    else:
        with tempfile.TemporaryDirectory() as name:
            main(Path(name))
