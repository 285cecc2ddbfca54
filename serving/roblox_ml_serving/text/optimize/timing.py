"""How long an engine takes on one thread: by length, by batch, on the user's own lengths; and the plan's fitted cost.

CPU time of this process is measured, not the clock: other processes on the machine must not choose the engine. Every shape is
asked before it is timed, because some engines compile for it at the first call.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Timing", "measure"]

_LENGTHS = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
_ROWS = (1, 2, 4, 8)
_BATCHES = (1, 4, 8, 16)
_SAMPLE = 96


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds of one row by length; rows a second on one core by batch; cost of a call = call_us + token_us · tokens."""

    latency_ms: dict[str, float]
    throughput: dict[str, float]
    call_us: float
    token_us: float

    @property
    def best(self) -> float:
        """Rows a second on one core at the best batch."""
        return max(self.throughput.values())


def measure(engine: Any, rows: Sequence[Any], max_length: int, batch_tokens: int, repeats: int = 3) -> Timing:
    """Time an opened single-threaded engine; `rows` are token ids of real texts."""
    widths = [w for w in _LENGTHS if w < max_length]
    widths = [*widths, max_length][:8] if max_length <= 128 else [*widths[::2], max_length]
    shapes = [(n, w) for w in widths for n in _ROWS if n == 1 or n * w <= batch_tokens]
    took = {shape: _shape(engine, shape, rows, repeats) for shape in shapes}
    call, token = _fit([(n * w, seconds) for (n, w), seconds in took.items()])
    sample = sorted(rows[:: max(1, len(rows) // _SAMPLE)], key=len)
    throughput = {}
    for batch in _BATCHES:
        parts = [sample[i : i + batch] for i in range(0, len(sample), batch)]

        def once(parts: Sequence[Any] = parts) -> None:
            for part in parts:
                engine.run(part)

        throughput[str(batch)] = round(len(sample) / _cpu(once, 2), 1)
    latency = {str(w): round(1e3 * took[1, w], 3) for w in widths}
    return Timing(latency, throughput, round(call, 1), round(token, 2))


def _shape(engine: Any, shape: tuple[int, int], rows: Sequence[Any], repeats: int) -> float:
    pool = np.concatenate(rows[:200])
    ids: Any = np.resize(pool, shape).astype(np.int64)
    mask = np.ones_like(ids)
    return _cpu(lambda: engine.call(ids, mask), repeats)


def _cpu(work: Callable[[], Any], repeats: int) -> float:
    """The least CPU time of some runs, after one that is not counted."""
    work()
    found = []
    for _ in range(repeats):
        begun = time.process_time()
        work()
        found.append(time.process_time() - begun)
    return max(min(found), 1e-9)


def _fit(points: Sequence[tuple[int, float]]) -> tuple[float, float]:
    """Least squares of relative error; a call never costs less than nothing."""
    tokens, seconds = np.array(points, dtype=np.float64).T
    left = np.stack([np.ones_like(tokens), tokens], axis=1) / seconds[:, None]
    call, token = np.linalg.lstsq(left, np.ones_like(tokens), rcond=None)[0]
    if call < 0:
        call, token = 0.0, float(1 / np.mean(tokens / seconds))
    return max(0.0, 1e6 * float(call)), max(1e-3, 1e6 * float(token))
