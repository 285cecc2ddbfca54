"""The fitted cost of a call: exact where calls cost what the model says, and never less than nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from roblox_ml_serving.text.optimize import timing

TOKENS = (8, 16, 24, 32, 64, 128, 256, 512)


@given(st.floats(1, 5000), st.floats(1, 500))
def test_linear_costs_are_found_again(call_us: float, token_us: float) -> None:
    points = [(n, 1e-6 * (call_us + token_us * n)) for n in TOKENS]
    assert timing._fit(points) == pytest.approx((call_us, token_us), rel=1e-3, abs=1e-2)


@given(st.lists(st.floats(1e-6, 10), min_size=len(TOKENS), max_size=len(TOKENS)))
def test_no_call_costs_less_than_nothing(seconds: list[float]) -> None:
    call_us, token_us = timing._fit(list(zip(TOKENS, seconds, strict=True)))
    assert call_us >= 0
    assert token_us > 0


class Counting:
    """An engine that only remembers the shapes it was asked."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self.batches: list[int] = []

    def call(self, ids: Any, mask: Any) -> Any:
        assert mask.all()
        self.shapes.append(ids.shape)
        return np.zeros((len(ids), 2), np.float32)

    def run(self, rows: Any) -> Any:
        self.batches.append(len(rows))
        return [np.zeros(2, np.float32) for _ in rows]


@pytest.mark.parametrize("max_length", [16, 64, 512])
def test_every_shape_is_asked_before_it_counts(max_length: int) -> None:
    engine = Counting()
    rows = [np.arange(2 + i % (max_length - 1), dtype=np.int32) for i in range(200)]
    found = timing.measure(engine, rows, max_length, 256, repeats=2)
    assert str(max_length) in found.latency_ms
    assert all(engine.shapes.count(shape) == 3 for shape in engine.shapes)  # once uncounted, twice counted
    assert all(n == 1 or n * width <= 256 for n, width in engine.shapes)
    assert set(found.throughput) == {"1", "4", "8", "16"}
    assert found.best == max(found.throughput.values())
    assert max(engine.batches) == 16
