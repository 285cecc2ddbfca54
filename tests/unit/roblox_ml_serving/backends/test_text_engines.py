"""Rows of any lengths to calls of an engine, and which engine is opened; the libraries themselves are asked in integration."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from roblox_ml_serving.backends import rml_text_engines as engines
from roblox_ml_serving.backends.rml_text_engines import Engine, EngineError, Grid, first_that_opens, form_calls
from roblox_ml_serving.backends.rml_text_plan import Cost, EnginePlan, TextPlan

LABELS = ("a", "b", "c")


def plan(
    *names: str, task: str = "sequence", requires: tuple[str, ...] = (), buckets: tuple[int, ...] = (8, 24, 64)
) -> TextPlan:
    """Engines of those names, the last for every processor; their files are named by the runtime openvino."""
    listed = [
        EnginePlan(
            name, "openvino", f"engines/{name}", "fp32", () if name == names[-1] else requires, cost=Cost(100, 5)
        )
        for name in names
    ]
    return TextPlan(task, LABELS, buckets[-1], 0, buckets, 128, tuple(listed))


def meaning(ids: Any, mask: Any) -> Any:
    """Logits that depend on a row's own tokens, their order and their number alone."""
    tokens = ids * mask
    places = np.arange(1, ids.shape[1] + 1)
    return np.stack([tokens.sum(1), (tokens * places).sum(1), mask.sum(1)], axis=1).astype(np.float32)


def per_token(ids: Any, mask: Any) -> Any:
    return np.stack([ids, ids * mask, np.broadcast_to(mask.sum(1)[:, None], ids.shape)], axis=2).astype(np.float32)


costs = st.tuples(st.floats(0, 5000), st.floats(0.1, 500))
grids = st.builds(
    lambda buckets, tokens, cost, coarse: Grid(tuple(sorted(buckets)), tokens, *cost, coarse),
    st.sets(st.integers(1, 200), min_size=1, max_size=5), st.integers(1, 600), costs, st.booleans(),
)  # fmt: skip


@given(grids, st.data())
def test_every_row_is_in_one_call_of_its_bucket_and_no_call_is_too_large(grid: Grid, data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(1, grid.buckets[-1]), max_size=40))
    calls = form_calls(lengths, grid)
    assert sorted(i for call in calls for i in call) == list(range(len(lengths)))
    for call in calls:
        longest = max(lengths[i] for i in call)
        assert len({min(b for b in grid.buckets if lengths[i] <= b) for i in call}) == 1
        rows, width = grid.shape(len(call), longest)
        assert rows >= len(call)
        assert longest <= width <= grid.buckets[-1]
        assert len(call) == 1 or rows * width <= grid.batch_tokens
        if grid.coarse:
            assert (rows, width) in grid.shapes()  # nothing is computed that warm-up has not seen
        else:
            assert (rows, width) == (len(call), longest)


@given(grids, st.data())
def test_the_calls_take_no_longer_than_each_row_alone_or_the_fullest_ones(grid: Grid, data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(1, grid.buckets[0]), min_size=1, max_size=20))

    def total(calls: list[list[int]]) -> float:
        return sum(grid.us(*grid.shape(len(call), max(lengths[i] for i in call))) for call in calls)

    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    fullest: list[list[int]] = []
    for i in order:
        if not fullest or grid.rows(len(fullest[-1]) + 1, grid.width(lengths[fullest[-1][0]])) is None:
            fullest.append([])
        fullest[-1].append(i)
    least = total(form_calls(lengths, grid))
    assert least <= total([[i] for i in order]) * (1 + 1e-9)
    assert least <= total(fullest) * (1 + 1e-9)


@given(
    st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=64), max_size=30), st.sampled_from(["sequence", "token"])
)
def test_each_row_gets_its_own_answer_whatever_its_company(rows: list[list[int]], task: str) -> None:
    chosen = plan("only", task=task)
    engine = Engine(chosen.engines[0], chosen, meaning if task == "sequence" else per_token)
    arrays = [np.array(row, dtype=np.int32) for row in rows]
    for row, answer in zip(arrays, engine.run(arrays), strict=True):
        np.testing.assert_array_equal(answer, engine.run([row])[0])
        assert answer.shape == ((3,) if task == "sequence" else (len(row), 3))


def test_rows_that_the_model_cannot_take_are_refused() -> None:
    chosen = plan("only")
    engine = Engine(chosen.engines[0], chosen, meaning)
    for length in (0, 65):
        with pytest.raises(ValueError, match="1 to that many"):
            engine.run([np.ones(length, dtype=np.int32)])


def test_logits_of_another_shape_than_the_plan_says_are_refused() -> None:
    chosen = plan("only")
    engine = Engine(chosen.engines[0], chosen, lambda ids, mask: meaning(ids, mask)[:, :2])
    with pytest.raises(EngineError, match=r"logits of shape \[1, 2\], not \[1, 3\]"):
        engine.run([np.ones(3, dtype=np.int32)])


def test_warm_up_computes_every_shape_once_and_stops_in_time() -> None:
    chosen, seen = plan("only"), []

    def calculate(ids: Any, mask: Any) -> Any:
        seen.append(ids.shape)
        return meaning(ids, mask)

    engine = Engine(chosen.engines[0], chosen, calculate)
    every = engine.grid.shapes()
    assert engine.warm_up() == (len(every), len(every))
    assert seen == every
    assert len(set(every)) == len(every)
    assert engine.warm_up(seconds=-1) == (0, len(every))


# -- which one is opened ---------------------------------------------------------------------------------------------------


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What opening an engine gives, by its name: something to compute with, or an exception."""
    behaviour: dict[str, Any] = {}

    def opener(engine: Any, place: Path, plan: Any, threads: int) -> Any:
        found = behaviour.get(engine.name, meaning)
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(engines, "OPENERS", {"openvino": opener})
    return behaviour


def folder(root: Path, *names: str) -> Path:
    for name in names:
        (root / "engines" / name).mkdir(parents=True)
        (root / "engines" / name / "model.xml").write_bytes(b"graph")
    return root


def test_the_preferred_engine_is_opened_without_a_word(tmp_path: Path, library: dict[str, Any]) -> None:
    said: list[str] = []
    files = folder(tmp_path, "fast", "plain")
    assert first_that_opens(plan("fast", "plain", requires=("amx",)), files, ["amx", "x"], said.append).name == "fast"
    assert said == []


def cannot(ids: Any, mask: Any) -> Any:
    raise RuntimeError("no efficient int8 on this device")


@pytest.mark.parametrize(
    ("flags", "files", "behaviour", "reason"),
    [
        ([], ("fast", "plain"), meaning, "this processor has no amx"),
        (["amx"], ("plain",), meaning, "the package has no engines/fast/model.xml"),
        (["amx"], ("fast", "plain"), ImportError("No module named 'openvino'"), "openvino is not installed here"),
        (["amx"], ("fast", "plain"), ValueError("bad graph"), "ValueError: bad graph"),
        (["amx"], ("fast", "plain"), cannot, "no efficient int8 on this device"),
    ],
)
def test_what_cannot_run_here_is_passed_over_and_said(
    tmp_path: Path, library: dict[str, Any], flags: list[str], files: tuple[str, ...], behaviour: Any, reason: str
) -> None:
    library["fast"] = behaviour
    said: list[str] = []
    wanted = plan("fast", "plain", requires=("amx",))
    assert first_that_opens(wanted, folder(tmp_path, *files), flags, said.append).name == "plain"
    assert reason in said[0]
    assert said[1] == "engine plain runs instead of fast"


def test_without_any_engine_all_reasons_are_told(tmp_path: Path, library: dict[str, Any]) -> None:
    library["plain"] = ValueError("bad graph")
    with pytest.raises(EngineError, match=r"fast: this processor has no amx; plain: ValueError: bad graph"):
        first_that_opens(plan("fast", "plain", requires=("amx",)), folder(tmp_path, "plain"), [], lambda _: None)


def test_an_instance_is_kept_on_the_core_of_its_number() -> None:
    program = (
        "import os; from roblox_ml_serving.backends.rml_text_engines import pin_to; mine = sorted(os.sched_getaffinity(0));"
        "beyond = pin_to(len(mine)); core = pin_to(len(mine) - 1);"
        "assert beyond is None and core == mine[-1] and os.sched_getaffinity(0) == {core}, (beyond, core)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env=dict(os.environ))
