"""What is asked of a ranker, and how its answer looks: pure; the whole way is tests/integration/door/test_ranking.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from roblox_ml._predict import InputError, Prediction, Tensor
from roblox_ml._ranking import Ranking, inputs_of

WANTED = [
    {"name": "USER", "datatype": "BYTES", "shape": [1]}, {"name": "CANDIDATES", "datatype": "INT64", "shape": [-1]},
    {"name": "CONTEXT", "datatype": "BYTES", "shape": [1]},
]  # fmt: skip
TEXTS = [WANTED[0], {**WANTED[1], "datatype": "BYTES"}]


def test_a_question_becomes_tensors() -> None:
    assert inputs_of("feed", WANTED, "u", (3, 1), {"hour": 17}) == {
        "USER": ["u"], "CANDIDATES": [3, 1], "CONTEXT": ['{"hour": 17}'],
    }  # fmt: skip
    assert inputs_of("feed", TEXTS, 7, ["a"], None) == {"USER": ["7"], "CANDIDATES": ["a"]}
    assert inputs_of("feed", WANTED, None, [], None)["USER"] == [""]


@pytest.mark.parametrize(
    ("wanted", "candidates", "features", "says"),
    [
        (
            [{"name": "TEXT", "datatype": "BYTES", "shape": [-1]}],
            [1],
            None,
            "ranks nothing: its model takes TEXT BYTES",
        ),
        (WANTED, "abc", None, "a list of ids"),
        (WANTED, [1, "a"], None, "candidate 'a' is a str"),
        (WANTED, [True], None, "integers"),
        (TEXTS, [1], None, "texts"),
        (WANTED, [1], {"hour": "late"}, "feature 'hour' is 'late'"),
        (WANTED, [1], {"hour": float("nan")}, "finite"),
        (WANTED, [1], {"hour": True}, "feature 'hour'"),
        (TEXTS, ["a"], {"hour": 1}, "takes no features of the caller's, and was given hour"),
        (WANTED, [1], ["hour"], "features is a list"),
        (WANTED, None, None, "a list of ids"),
        (WANTED, 5, None, "a list of ids"),
    ],
)
def test_what_is_no_question_is_told_before_anything_is_asked(
    wanted: Any, candidates: Any, features: Any, says: str
) -> None:
    with pytest.raises(InputError, match=says.replace("(", r"\(")):
        inputs_of("feed", wanted, "u", candidates, features)


@pytest.mark.parametrize("user", [7.0, float("nan"), True, ["u"]])
def test_a_user_who_is_no_key_is_told_so(user: Any) -> None:
    with pytest.raises(InputError, match="a text or an integer"):
        inputs_of("feed", WANTED, user, [1], None)


def test_numbers_of_numpy_are_numbers() -> None:
    asked = inputs_of("feed", WANTED, np.int64(7), [np.int64(3), 4], {"hour": np.float32(0.5), "slot": np.int16(2)})
    assert asked == {"USER": ["7"], "CANDIDATES": [3, 4], "CONTEXT": ['{"hour": 0.5, "slot": 2}']}
    assert inputs_of("feed", WANTED, "u", np.array([3, 4]), None)["CANDIDATES"] == [3, 4]


def ranking(items: list[str], scores: list[float], **parameters: Any) -> Ranking:
    import struct

    packed = b"".join(struct.pack("<I", len(one)) + one.encode() for one in items)
    tensors = [
        Tensor("ITEMS", "BYTES", (len(items),), packed),
        Tensor("SCORES", "FP32", (len(scores),), struct.pack(f"<{len(scores)}f", *scores)),
    ]
    return Ranking(Prediction(tensors, version=3, inference_id="i", arms={"e": "new"}, parameters=parameters))


def test_an_answer_is_a_sequence_that_can_be_looked_at() -> None:
    best = ranking(["<b>", "c"], [0.5, -0.25], features_defaulted=2)
    assert list(best) == [("<b>", 0.5), ("c", -0.25)] and best[0] == ("<b>", 0.5) and best[-1:] == [("c", -0.25)]
    assert (len(best), best.defaulted, best.version, best.arms) == (2, 2, 3, {"e": "new"})
    assert repr(best) == "<Ranking {'<b>': 0.5, 'c': -0.25}, 2 defaults, version 3>"
    page = best._repr_html_()
    assert "&lt;b&gt;" in page and "<b>" not in page and "2 features' values were defaults" in page


def test_scores_that_are_all_alike_or_not_finite_can_be_shown_too() -> None:
    for scores in ([], [0.0, 0.0], [float("inf"), 1.0], [-3.0]):
        best = ranking([str(at) for at in range(len(scores))], scores)
        assert best.scores == scores and best._repr_html_().count("<tr><td>") == len(scores)
