"""Silver entities: what the rules mark, how tokens are tagged, how answers are counted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from roblox_ml_serving.backends.rml_text_heads import entities

from benchmarks.text.corpora import Text
from benchmarks.text.entities import KINDS, TAGS, Span, _mark, entity_f1, tags


def marked(*texts: str, document: str = "editorial:1") -> list[list[tuple[str, str]]]:
    rows = _mark([Text(text, 0.0, "neutral", "editorial", document) for text in texts])
    return [[(row.text[span.start : span.end], span.kind) for span in row.spans] for row in rows]


def test_each_kind_is_found() -> None:
    (found,) = marked(
        "@someone: Mr. Koch of New York asked the Transit Authority on March 3, 1988 for $4.2 million #budget http://example.org/a"
    )
    assert found == [
        ("@someone", "HANDLE"),
        ("Koch", "PER"),
        ("New York", "LOC"),
        ("Transit Authority", "ORG"),
        ("March 3, 1988", "DATE"),
        ("$4.2 million", "MONEY"),
        ("#budget", "HASHTAG"),
        ("http://example.org/a", "LINK"),
    ]


def test_a_surname_is_known_in_its_own_document_only() -> None:
    assert marked("Mayor Dinkins spoke.", "Then Dinkins left.") == [[("Dinkins", "PER")], [("Dinkins", "PER")]]
    assert marked("Then Dinkins left.", document="editorial:2") == [[]]


def test_tokens_get_iob2_tags() -> None:
    # "[CLS] new york wins [SEP]"
    offsets = [(0, 0), (0, 3), (4, 8), (9, 13), (0, 0)]
    assert [TAGS[t] if t >= 0 else None for t in tags([Span(0, 8, "LOC")], offsets)] == [
        None, "B-LOC", "I-LOC", "O", None,
    ]  # fmt: skip


@given(
    st.lists(st.tuples(st.integers(1, 4), st.sampled_from([None, *KINDS]), st.booleans()), max_size=12),
)
def test_right_tags_are_read_back_as_the_entities(words: list[tuple[int, str | None, bool]]) -> None:
    """Tagging and the server's reading of tags are inverse, whatever stands beside what."""
    text, offsets, spans = "", [], []
    for length, kind, joins in words:
        start = len(text)
        text += "a" * length + " "
        offsets.append((start, start + length))
        if kind and joins and spans and spans[-1].kind == kind and spans[-1].end == start - 1:
            spans[-1] = Span(spans[-1].start, start + length, kind)
        elif kind:
            spans.append(Span(start, start + length, kind))
    numbers = tags(spans, offsets)
    logits = np.full((len(numbers), len(TAGS)), -5.0)
    logits[np.arange(len(numbers)), numbers] = 5.0
    found = entities(logits, offsets, text, TAGS) if numbers else []
    assert [(e["start"], e["end"], e["entity"]) for e in found] == [tuple(span) for span in spans]


def test_f1_counts_exact_entities() -> None:
    here, there = Span(0, 4, "PER"), Span(6, 9, "LOC")
    assert entity_f1([[here, there]], [[here, there]]) == 1.0
    assert entity_f1([[here, there]], [[here]]) == pytest.approx(2 / 3)
    assert entity_f1([[here]], [[Span(0, 4, "LOC")]]) == 0.0
    assert entity_f1([[]], [[]]) == 0.0
