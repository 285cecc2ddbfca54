"""How far two answers are from one another."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from roblox_ml_serving.shadow import Comparison, Tensor, Worst, compare_answers, compare_tensors
from roblox_ml_serving.shadow.ranks import overlap, spearman


def number(values, datatype: str = "FP32") -> dict[str, Tensor]:
    return {"y": Tensor(datatype, np.asarray(values, dtype=np.float32 if datatype == "FP32" else np.int64))}


def texts(*values: str, shape=None) -> dict[str, Tensor]:
    array = np.empty(len(values), dtype=object)
    array[:] = [value.encode() for value in values]
    return {"y": Tensor("BYTES", array.reshape(shape or (len(values),)))}


FLOATS = arrays.arrays(np.float32, st.tuples(st.integers(0, 4), st.integers(1, 6)), elements=st.floats(width=32))


@given(FLOATS)
def test_an_answer_is_at_no_distance_from_itself(values) -> None:
    one = compare_tensors(number(values), number(values)).tensors["y"]
    assert one.distance == 0 and one.flips == one.nan == 0
    assert (
        one.abs_max in (None, 0) and one.rel_max in (None, 0) and one.rank in (None, 1.0) and one.overlap in (None, 1.0)
    )


@given(st.data())
def test_comparing_is_symmetric_and_bounded_and_can_always_be_written(data) -> None:
    a = data.draw(FLOATS)
    b = data.draw(arrays.arrays(np.float32, a.shape, elements=st.floats(width=32)))
    there, back = compare_tensors(number(a), number(b)), compare_tensors(number(b), number(a))
    assert 0 <= there.distance <= 1 and there.distance == pytest.approx(back.distance)
    assert json.loads(there.to_text(), parse_constant=pytest.fail)["tensors"]["y"]["values"] == a.size


def test_differences_flips_and_the_label_that_wins() -> None:
    found = compare_tensors(number([[0.6, 0.4], [0.9, 0.1]]), number([[0.4, 0.6], [0.8, 0.2]])).tensors["y"]
    assert (found.kind, found.rows, found.flips, found.values) == ("number", 2, 1, 4)
    assert found.abs_max == pytest.approx(0.2) and found.abs_mean == pytest.approx(0.15)
    assert found.rel_max == pytest.approx(0.5) and found.overlap is None  # two scores have no order worth a number
    assert found.distance == 0.5


def test_orders_of_scores_and_of_ids() -> None:
    scores = np.linspace(0, 1, 20)
    turned = compare_tensors(number(scores), number(scores[::-1])).tensors["y"]
    assert turned.rank == -1 and turned.overlap == 0
    same = compare_tensors(number(scores), number(scores * 3 + 1)).tensors["y"]
    assert same.rank == 1 and same.overlap == 1 and same.rel_max > 0
    ids = compare_tensors(number([[1, 2, 3, 4]], "INT64"), number([[2, 1, 3, 9]], "INT64")).tensors["y"]
    assert (ids.kind, ids.flips, ids.overlap) == ("whole", 1, 0.75)
    names = compare_tensors(texts("a", "b", "c", shape=(1, 3)), texts("c", "b", "a", shape=(1, 3))).tensors["y"]
    assert (names.kind, names.flips, names.overlap) == ("text", 1, 1.0)


def test_labels_that_flip() -> None:
    found = compare_tensors(texts("good", "bad", "bad"), texts("good", "good", "bad"))
    assert (found.flips, found.rows, found.distance) == (1, 3, pytest.approx(1 / 3))


def test_nan_in_one_alone_is_counted_and_infinities_compare() -> None:
    nan, inf = math.nan, math.inf
    found = compare_tensors(number([1, nan, nan, inf, -inf]), number([1, nan, 2, inf, 1])).tensors["y"]
    assert (found.nan, found.abs_max, found.rel_max, found.distance) == (1, 0, 2, 1)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (number([1, 2, 3]), "shape [3], the primary's is [2]"),
        ({"y": Tensor("FP64", np.zeros(2))}, "datatype FP64"),
        ({"z": Tensor("FP32", np.zeros(2))}, "only the primary has it"),
    ],
)
def test_what_cannot_be_compared_is_as_far_as_can_be(other, words: str) -> None:
    found = compare_tensors(number([1, 2]), other)
    assert words in found.tensors["y"].mismatch and found.distance == 1 and found.mismatches >= 1


def test_answers_are_read_and_what_cannot_be_is_the_finding() -> None:
    body = b'{"outputs": [{"name": "y", "datatype": "FP32", "shape": [1], "data": [1.5]}]}'
    shown = compare_answers("rest", (body, None), (body, None), True).to_json()
    assert shown["values"] == {"y": {"primary": [1.5], "shadow": [1.5]}} and shown["distance"] == 0
    assert "values" not in compare_answers("rest", (body, None), (body, None)).to_json()
    assert "the shadow's answer" in compare_answers("rest", (body, None), (b"{}", None)).error
    assert "the primary's answer" in compare_answers("rest", (b"{}", None), (body, None)).error


@given(st.lists(st.integers(0, 5), min_size=2, max_size=12), st.randoms())
def test_ranks_agree_with_their_definition(values, random) -> None:
    others = list(values)
    random.shuffle(others)

    def ranks(row):
        return [sum(x < y for x in row) + (sum(x == y for x in row) + 1) / 2 for y in row]

    found = spearman(values, others)
    if len(set(values)) == 1:
        assert found is None
    else:
        assert found == pytest.approx(np.corrcoef(ranks(values), ranks(others))[0, 1])
        assert spearman(values, [-x for x in values]) == pytest.approx(-1)
    assert overlap(values, values, 3) == 1 and 0 <= overlap(values, others, 3) <= 1


@given(st.lists(st.floats(0, 1, width=16), max_size=30), st.integers(1, 5))
def test_the_worst_are_the_largest_and_of_equal_ones_the_first(distances, most: int) -> None:
    worst = Worst(most)
    for number_, distance in enumerate(distances):
        shown = Comparison({"y": compare_tensors(texts("a"), texts("a")).tensors["y"]})
        worst.add(str(number_), _At(distance, shown))
    ordered = sorted((-distance, number_) for number_, distance in enumerate(distances) if distance > 0)
    assert [entry["inference_id"] for entry in worst.listed()] == [str(number_) for _, number_ in ordered[:most]]


class _At:
    """A comparison at a given distance."""

    def __init__(self, distance: float, shown: Comparison) -> None:
        self.distance, self._shown = distance, shown

    def to_json(self):
        return self._shown.to_json()
