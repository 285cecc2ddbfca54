"""Logits to answers: probabilities, labels, and entities as conlleval reads the tags."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from roblox_ml_serving.backends.rml_text_heads import best, entities, entities_json, softmax, split_label

LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")


def tagged(text: str, *tokens: tuple[str, str], labels: tuple[str, ...] = LABELS) -> list[Any]:
    """Entities of `text` whose tokens (surface, tag) follow one another, between two special tokens."""
    offsets, rows, at = [(0, 0)], [np.zeros(len(labels))], 0
    for surface, tag in tokens:
        start = text.index(surface, at)
        at = start + len(surface)
        offsets.append((start, at))
        rows.append(np.where(np.arange(len(labels)) == labels.index(tag), 5.0, 0.0))
    offsets.append((0, 0))
    rows.append(np.zeros(len(labels)))
    found = entities(np.array(rows, np.float32), tuple(offsets), text, labels)
    assert all(text[entity["start"] : entity["end"]] == entity["text"] for entity in found)  # type: ignore[misc]
    return [(entity["entity"], entity["text"]) for entity in found]


@given(
    arrays(
        np.float32,
        array_shapes(min_dims=1, max_dims=3, min_side=1),
        elements=st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False),
    )
)
def test_softmax_is_a_distribution_in_the_order_of_the_logits(logits: Any) -> None:
    scores = softmax(logits)
    assert scores.dtype == np.float32
    assert np.allclose(scores.sum(axis=-1), 1.0, atol=1e-5)
    assert (np.take_along_axis(scores, logits.argmax(-1)[..., None], -1)[..., 0] == scores.max(axis=-1)).all()


def test_the_best_label_and_the_first_of_equals() -> None:
    assert best(np.array([[0.1, 0.9], [0.5, 0.5]]), ["a", "b"]) == ["b", "a"]


def test_a_softmax_of_known_numbers() -> None:
    assert softmax(np.log(np.array([[1.0, 3.0]], np.float32))) == pytest.approx(np.array([[0.25, 0.75]]))


@pytest.mark.parametrize(
    ("text", "tokens", "expected"),
    [
        ("in Paris now", [("in", "O"), ("Paris", "B-LOC"), ("now", "O")], [("LOC", "Paris")]),
        ("New York Rome", [("New", "B-LOC"), ("York", "I-LOC"), ("Rome", "B-LOC")], [("LOC", "New York"), ("LOC", "Rome")]),
        ("Ann Rome", [("Ann", "B-PER"), ("Rome", "I-LOC")], [("PER", "Ann"), ("LOC", "Rome")]),
        ("a York b York", [("a", "O"), ("York", "I-LOC"), ("b", "O"), ("York", "I-LOC")], [("LOC", "York"), ("LOC", "York")]),
        # A word has the tag of its first token, whatever the others say.
        ("Parisian", [("Paris", "B-LOC"), ("ian", "O")], [("LOC", "Parisian")]),
        ("Parisian", [("Paris", "B-LOC"), ("ia", "B-LOC"), ("n", "B-PER")], [("LOC", "Parisian")]),
        ("walking", [("walk", "O"), ("ing", "B-PER")], []),
        # Punctuation is no part of the word it touches, whatever the tokenizer thinks.
        ("Paris, now", [("Paris", "B-LOC"), (",", "O"), ("now", "O")], [("LOC", "Paris")]),
        ("O'Neil", [("O", "B-PER"), ("'", "I-PER"), ("Neil", "I-PER")], [("PER", "O'Neil")]),
        # Scripts without spaces: every token stands for itself.
        ("我在北京", [("我", "O"), ("在", "O"), ("北", "B-LOC"), ("京", "I-LOC")], [("LOC", "北京")]),
        ("ילד בתל אביב", [("ילד", "O"), ("בתל", "B-LOC"), ("אביב", "I-LOC")], [("LOC", "בתל אביב")]),
        ("😀 Zoë", [("😀", "O"), ("Zo", "B-PER"), ("ë", "O")], [("PER", "Zoë")]),
        ("", [], []),
    ],
)  # fmt: skip
def test_entities(text: str, tokens: list[tuple[str, str]], expected: list[tuple[str, str]]) -> None:
    assert tagged(text, *tokens) == expected


def test_other_schemes_and_plain_kinds() -> None:
    bilou = ("O", "B-LOC", "I-LOC", "L-LOC", "U-LOC")
    assert tagged("a b c d", ("a", "B-LOC"), ("b", "L-LOC"), ("c", "I-LOC"), ("d", "U-LOC"), labels=bilou) == [
        ("LOC", "a b"), ("LOC", "c"), ("LOC", "d"),
    ]  # fmt: skip
    assert tagged("a b c", ("a", "LOC"), ("b", "LOC"), ("c", "O"), labels=("O", "LOC")) == [("LOC", "a b")]
    assert [split_label(label) for label in ("O", "B-PER", "I_PER", "X-PER", "B-")] == [
        ("", ""), ("B", "PER"), ("I", "PER"), ("I", "X-PER"), ("I", "B-"),
    ]  # fmt: skip


def test_the_score_is_the_mean_over_the_words_first_tokens() -> None:
    logits = np.log(np.array([[0.1, 0.8, 0.1], [0.9, 0.05, 0.05], [0.3, 0.1, 0.6]], np.float32))
    (entity,) = entities(logits, ((0, 3), (3, 5), (6, 10)), "Annie Hall", ("O", "B-PER", "I-PER"))
    assert entity == {
        "entity": "PER",
        "start": 0,
        "end": 10,
        "text": "Annie Hall",
        "score": pytest.approx(0.7, abs=1e-6),
    }


def test_a_space_that_a_token_holds_is_not_part_of_the_entity() -> None:
    logits = np.array([[9.0, 0.0], [0.0, 9.0]], np.float32)
    (entity,) = entities(logits, ((0, 2), (2, 8)), "in Paris", ("O", "B-LOC"))
    assert (entity["start"], entity["end"], entity["text"]) == (3, 8, "Paris")


def test_the_wire_form_is_json_in_utf8() -> None:
    logits = np.array([[0.0, 9.0]], np.float32)
    raw = entities_json(logits, ((0, 5),), "Öster", ("O", "B-LOC"))
    assert raw.startswith('[{"entity":"LOC","start":0,"end":5,"text":"Öster","score":0.99'.encode())
    assert json.loads(raw) == entities(logits, ((0, 5),), "Öster", ("O", "B-LOC"))
    assert entities_json(np.empty((0, 2), np.float32), (), "", ("O", "B-LOC")) == b"[]"


@given(st.data())
def test_entities_of_any_tags_are_ordered_spans_of_the_text(data: st.DataObject) -> None:
    words = data.draw(st.lists(st.sampled_from(["ab", "c", ",", "北", "é", "'"]), max_size=10))
    spaces = [data.draw(st.sampled_from(["", " "])) for _ in words]
    text, offsets = "", []
    for word, space in zip(words, spaces, strict=True):
        offsets.append((len(text), len(text) + len(word)))
        text += word + space
    logits = data.draw(
        arrays(np.float32, (len(words), len(LABELS)), elements=st.floats(-5, 5, width=32, allow_subnormal=False))
    )
    found = entities(logits, offsets, text, LABELS)
    for entity in found:
        assert text[entity["start"] : entity["end"]] == entity["text"] != ""  # type: ignore[misc]
        assert 0.0 < entity["score"] <= 1.0  # type: ignore[operator]
    assert all(a["end"] <= b["start"] for a, b in pairwise(found))  # type: ignore[operator]


def conlleval(tags: list[str]) -> list[tuple[str, int, int]]:
    """(kind, first word, last word) of each chunk, as the CoNLL-2000 scorer decides: a chunk starts at B-, or at I- where the word
    before is of no or another kind; it ends before the next start, O or other kind. Written from its definition, tag by tag."""
    chunks = []
    for at, tag in enumerate(tags):
        prefix, _, kind = tag.partition("-")
        before = tags[at - 1].partition("-")[2] if at else ""
        if kind and (prefix == "B" or before != kind):
            last = at
            while last + 1 < len(tags) and tags[last + 1] == f"I-{kind}":
                last += 1
            chunks.append((kind, at, last))
    return chunks


@given(st.lists(st.sampled_from(LABELS), max_size=12))
def test_words_merge_as_the_conll_scorer_reads_them(tags: list[str]) -> None:
    text = " ".join(f"w{at}" for at in range(len(tags)))
    found = entities_of(text, tags)
    words = text.split()
    expected = [(kind, " ".join(words[first : last + 1])) for kind, first, last in conlleval(tags)]
    assert found == expected


def entities_of(text: str, tags: list[str]) -> list[Any]:
    return tagged(text, *zip(text.split(), tags, strict=True))
