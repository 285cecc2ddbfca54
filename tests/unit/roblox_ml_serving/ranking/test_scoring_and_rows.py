"""Rows from what was gathered, and the best k of the scores."""

from __future__ import annotations

import importlib.util
import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from roblox_ml_core.http import Response
from roblox_ml_serving.ranking.cache import empty_row, row_type, rows_of
from roblox_ml_serving.ranking.features import Gathered
from roblox_ml_serving.ranking.matrix import build
from roblox_ml_serving.ranking.scoring import best, decode, encode
from roblox_ml_serving.ranking.spec import RankingSpec, SpecInvalid
from roblox_ml_serving.ranking.wire import Rows

_SPEC = importlib.util.spec_from_file_location("ranking_world", Path(__file__).with_name("world.py"))
assert _SPEC is not None and _SPEC.loader is not None
world = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = world
_SPEC.loader.exec_module(world)
SCORES = st.lists(st.floats(width=32), max_size=40)


@given(SCORES, st.integers(1, 50))
def test_the_best_are_those_of_a_plain_sort(scores: list[float], k: int) -> None:
    order, unscored = best(np.array(scores, np.float32), k)
    numbers = [place for place, value in enumerate(scores) if not math.isnan(value)]
    assert unscored == len(scores) - len(numbers)
    assert order.tolist() == sorted(numbers, key=lambda place: (-scores[place], place))[:k]


def gathered(values: Any, ages: Any, now: float = 1000.0) -> Gathered:
    rows = Rows("v", np.asarray(ages, np.float32), np.asarray(values, np.float32))
    return Gathered(np.frombuffer(b"".join(rows_of(rows, now)), row_type(len(values))))


def test_each_reason_for_a_default_is_told_from_the_others() -> None:
    views = [{**world.SPEC["views"][0]}, {**world.SPEC["views"][1], "max_age_s": 100}]
    spec = world.spec(views=views)
    items = gathered([[0.1, 0.2, np.nan, np.inf], [5, 6, 7, 8]], [10, 500, 10, 10])
    nothing = np.frombuffer(empty_row(2, answered=False), row_type(2))
    items.table = np.concatenate([items.table, nothing])
    matrix = build(spec, [gathered([[2.0]], [10]), items], {"hour": 17}, 5, 1000.0)
    assert np.allclose(
        matrix.rows, [[2, 0.1, 5, 17], [2, 0.5, 9, 17], [2, 0.5, 7, 17], [2, 0.5, 8, 17], [2, 0.5, 9, 17]]
    )
    assert set(matrix.defaulted) == {
        ("item_stats.ctr", "stale", 1), ("item_stats.price", "stale", 1), ("item_stats.ctr", "missing", 1),
        ("item_stats.ctr", "not_finite", 1), ("item_stats.ctr", "unanswered", 1), ("item_stats.price", "unanswered", 1),
    }  # fmt: skip


@pytest.mark.parametrize("hour", ["17", None, [17], math.nan, math.inf, 1e300, 10**400])
def test_a_context_that_is_no_number_is_the_default(hour: Any) -> None:
    views = [gathered([[2.0]], [0]), gathered([[0.1], [5]], [0])]
    matrix = build(world.spec(), views, {"hour": hour}, 1, 1000.0)
    assert matrix.rows[0, 3] == 12 and [one.feature for one in matrix.defaulted] == ["context.hour"]


def test_a_model_with_one_score_a_row_and_one_with_a_column_for_each_class() -> None:
    def response(values: Any) -> Response:
        data = np.asarray(values, "<f4")
        outputs = [{"name": "scores", "datatype": "FP32", "shape": list(data.shape)}]
        head = json.dumps({"outputs": outputs}).encode()
        return Response(200, [(b"inference-header-content-length", b"%d" % len(head))], head + data.tobytes())

    spec = world.spec()
    assert decode(spec, response([[0.25, 0.75], [1, 0]]), 2).tolist() == [0.75, 0]
    assert decode(spec, response([0.5, 2]), 2).tolist() == [0.5, 2]
    for wrong in ([[0.5]], [0.5], [[[1, 2]], [[1, 2]]]):
        with pytest.raises(ValueError):
            decode(spec, response(wrong), 2)
    headers, body = encode(spec, np.array([[1, 2, 3, 4]], np.float32))
    head = json.loads(body[: int(dict(headers)[b"inference-header-content-length"])])
    assert head["inputs"][0]["shape"] == [1, 4] and len(body) - 16 == int(headers[0][1])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": 2}, "schema 2"),
        ({"candidates": "FP32"}, "FP32"),
        ({"k": 0}, "out of range"),
        ({"columns": ["nobody.knows"]}, "nobody.knows"),
        ({"columns": []}, "out of range"),
        ({"views": 5}, "cannot be read"),
        ({"model": {}}, "lacks 'input'"),
        ({"context": [{"name": "hour", "default": "noon"}]}, "noon"),
        ({"views": [{**world.SPEC["views"][0], "of": "shop"}]}, "shop"),
        ({"views": [world.SPEC["views"][0]] * 2 + [world.SPEC["views"][1]]}, "twice"),
        ({"views": [{**world.SPEC["views"][0], "ttl_s": -1}, world.SPEC["views"][1]]}, "ttl_s"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(change: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecInvalid, match=said):
        world.spec(**change)
    with pytest.raises(SpecInvalid):
        RankingSpec.read(b"{")


def test_the_page_s_example_is_read() -> None:
    page = Path(__file__).resolve().parents[4] / "docs" / "formats" / "ranking-model.md"
    (example,) = re.findall(r"```json\n(.*?)```", page.read_text("utf-8"), re.S)
    spec = RankingSpec.read(example.encode())
    assert spec.names == json.loads(example)["columns"] and spec.views[1].max_age_s == 7200
    fields = {"schema", "candidates", "k", "features_share", "views", "context", "columns", "model"}
    assert set(json.loads(example)) == fields


def test_what_clients_see() -> None:
    spec = world.spec()
    assert [(one["name"], one["datatype"]) for one in spec.inputs] == [
        ("USER", "BYTES"), ("CANDIDATES", "INT64"), ("CONTEXT", "BYTES"),
    ]  # fmt: skip
    assert [one["name"] for one in world.spec(context=[], columns=["item_stats.ctr"]).inputs] == ["USER", "CANDIDATES"]
    assert spec.names == world.SPEC["columns"]
