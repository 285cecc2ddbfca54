"""`python -m benchmarks.text.soak`: many distinct texts through door and Triton, cache off; memory must stay flat.

`N` (default 200,000) texts of real lengths are sent once each, several in a request, to `MODEL` of the benchmark (or to the
package in the folder `PACKAGE`). Resident memory of door, Triton and
instances is read twenty times. Flat means: over the second half it grows by less than `GROWTH` of what it was, in every part.
The last line is JSON; the exit status says whether it held.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

from roblox_ml_serving.trial import TrialStack, closed_loop, rest_texts
from roblox_ml_serving.trial.results import line

from .corpora import distinct_texts
from .ours import optimised

COUNT = int(os.environ.get("N", "200000"))
MODEL, PACKAGE = os.environ.get("MODEL", "minilm-l6"), os.environ.get("PACKAGE", "")
READINGS, ROWS, WORKERS = 20, 8, 8
GROWTH = 0.02


def growth(readings: Sequence[Mapping[str, int]]) -> dict[str, float]:
    """By part: how much memory grew from the third to the fourth quarter, as a share (medians of the quarters)."""
    quarter = max(1, len(readings) // 4)
    third, fourth = readings[-2 * quarter : -quarter], readings[-quarter:]
    return {
        part: statistics.median(reading[part] for reading in fourth)
        / max(1.0, statistics.median(reading[part] for reading in third))
        - 1.0
        for part in readings[0]
    }


def main() -> int:
    package = Path(PACKAGE) if PACKAGE else optimised(MODEL, progress=print).package
    texts = distinct_texts(COUNT)
    queue = {"max_wait_ms": 10_000, "max_rows": 10_000}
    policy = {"cache": {"entries": 0, "bytes": 0}, "queue": queue}
    readings: list[dict[str, int]] = []
    sent = answered = 0
    seconds = 0.0
    with TrialStack({"soak": package}, policy=policy) as stack:
        while part := list(islice(texts, max(ROWS, COUNT // READINGS // ROWS * ROWS))):
            traffic = rest_texts(stack.rest, "soak", part, rows=min(ROWS, len(part)))
            found = closed_loop(traffic, workers=WORKERS, requests=len(traffic.bodies))
            sent += found.requests * found.rows
            answered += found.answered * found.rows
            seconds += found.seconds
            readings.append(stack.memory_bytes())
            memory = "  ".join(f"{name} {size / 2**20:.1f} MiB" for name, size in readings[-1].items())
            print(f"{sent:>8} texts  {found.per_second:8.1f}/s  {memory}", flush=True)
    grown = growth(readings)
    held = answered == sent and all(share < GROWTH for share in grown.values())
    keys = {f"soak_growth_{part}": share for part, share in grown.items()}
    print(line({"soak_texts": sent, "soak_answered": answered, "soak_per_s": answered / seconds, **keys, "flat": held}))
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
