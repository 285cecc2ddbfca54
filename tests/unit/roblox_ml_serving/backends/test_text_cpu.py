"""The model file of text-cpu, without Triton: how requests become rows and rows become answers."""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from roblox_ml_serving.backends import FOLDER

sys.path.insert(0, str(FOLDER))
try:
    text_cpu, plans, backend = (importlib.import_module(name) for name in ("text_cpu", "rml_text_plan", "rml_backend"))
finally:
    sys.path.remove(str(FOLDER))

LABELS = ("O", "B-PER", "B-LOC")


class Words:
    """One token a word, its length the id; an empty text is one token 0."""

    def encode(self, texts: list[str]) -> list[Any]:
        from rml_text_tokens import Encoded  # as the stub's modules see it

        made = []
        for text in texts:
            ids, offsets, at = [], [], 0
            for word in text.split(" "):
                ids.append(len(word))
                offsets.append((at, at + len(word)))
                at += len(word) + 1
            made.append(Encoded(np.array(ids, dtype="<i4").tobytes(), len(ids), False, tuple(offsets)))
        return made


class Engine:
    """A row's first token decides its class; 99 cannot be computed."""

    def __init__(self, task: str) -> None:
        self.task = task
        self.runs = 0

    def run(self, rows: list[Any]) -> list[Any]:
        self.runs += 1
        if any(99 in row for row in rows):
            raise RuntimeError("no kernel for 99")
        lines = [np.eye(3, dtype=np.float32)[np.asarray(row) % 3] * 4 for row in rows]
        return lines if self.task == "token" else [line[0] for line in lines]


def model(task: str = "sequence") -> Any:
    made = text_cpu.TritonPythonModel()
    tree = {
        "schema": 1, "task": task, "labels": list(LABELS), "max_length": 8, "buckets": [8],
        "engines": [{"name": "x", "runtime": "onnxruntime", "folder": "engines/x", "precision": "fp32"}],
    }  # fmt: skip
    made.plan = plans.read_plan(json.dumps(tree).encode())
    made.tokens, made.engine = Words(), Engine(task)
    return made


def ids(*rows: list[int]) -> Any:
    flat = np.array([[token for row in rows for token in row]], dtype=np.int32)
    return text_cpu.Asked(text_cpu.split(flat, np.array([[len(row) for row in rows]], dtype=np.int32), 8), None, [])


def texts(made: Any, *values: bytes) -> Any:
    return made.tokenised(np.array([list(values)], dtype=object))


@given(st.lists(st.lists(st.integers(1, 50), min_size=1, max_size=8), max_size=12))
def test_rows_come_apart_as_they_were_put_together(rows: list[list[int]]) -> None:
    assert [row.tolist() for row in ids(*rows).rows] == rows


@given(st.lists(st.integers(-3, 12), max_size=6), st.integers(0, 20))
def test_lengths_that_do_not_fit_are_refused(lengths: list[int], tokens: int) -> None:
    fits = sum(lengths) == tokens and all(1 <= length <= 8 for length in lengths)
    arrays = np.ones((1, tokens), dtype=np.int32), np.array([lengths], dtype=np.int32).reshape(1, -1)
    if fits:
        assert len(text_cpu.split(*arrays, 8)) == len(lengths)
    else:
        with pytest.raises(backend.BadInput, match="LENGTHS"):
            text_cpu.split(*arrays, 8)


def test_texts_and_ids_of_many_requests_are_one_run_and_each_gets_its_own_outputs() -> None:
    made = model()
    first, second, third = made.answer([ids([1, 9], [2]), texts(made, b"abc", b"a bc", b""), ids()])
    assert made.engine.runs == 1
    np.testing.assert_array_equal(first["LOGITS"], [[0, 4, 0], [0, 0, 4]])
    assert second["label"].tolist() == [b"O", b"B-PER", b"O"]
    np.testing.assert_allclose(second["scores"].sum(axis=1), 1, atol=1e-6)
    assert third["LOGITS"].shape == (0, 3)


def test_tokens_get_a_line_each_and_texts_their_entities() -> None:
    made = model("token")
    by_ids, by_text, nothing = made.answer([ids([1, 3], [2]), texts(made, b"abc a ab", "größ".encode()), texts(made)])
    np.testing.assert_array_equal(by_ids["LOGITS"], [[0, 4, 0], [4, 0, 0], [0, 0, 4]])
    found = [json.loads(value) for value in by_text["entities"]]
    assert [[(one["entity"], one["start"], one["end"], one["text"]) for one in text] for text in found] == [
        [("PER", 4, 5, "a"), ("LOC", 6, 8, "ab")],
        [("PER", 0, 4, "größ")],
    ]
    assert nothing["entities"].shape == (0,)


def test_what_cannot_be_computed_fails_alone() -> None:
    made = model()
    refused = backend.BadInput("said before")
    good, bad, other, before = made.answer([ids([1]), ids([99]), texts(made, b"ab"), refused])
    assert good["LOGITS"].tolist() == [[0, 4, 0]]
    assert str(bad) == "no kernel for 99"
    assert other["label"].tolist() == [b"B-LOC"]
    assert before is refused
    assert str(made.answer([ids([99])])[0]) == "no kernel for 99"


def test_texts_of_another_shape_are_refused() -> None:
    with pytest.raises(backend.BadInput, match=r"without the suffix \.batch"):
        model().tokenised(np.array([[b"a"], [b"b"]], dtype=object))
