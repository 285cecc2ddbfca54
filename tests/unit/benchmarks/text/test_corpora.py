"""The benchmark's texts: read, split and counted as the example does."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.text import corpora


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        f"{doc}_{part}\t{rating}\tText {doc} number {part} &amp; more"
        for doc in range(40)
        for part, rating in ((1, 2.1), (2, -0.4))
    ]
    made = {
        "movie.tsv": "﻿" + "\n".join(lines),
        "product.tsv": '7_1\t-3.0\tIt said "broken" on the box\n7_2\t0.5\tText 3 Number 1 & MORE!',
        "editorial.tsv": "",
        "tweet.tsv": "1\t0.51\tgg",
    }
    monkeypatch.setattr(corpora, "comments", lambda: {name: text.encode() for name, text in made.items()})
    corpora.sentiment.cache_clear()
    yield
    corpora.sentiment.cache_clear()


@pytest.mark.usefixtures("files")
def test_texts_are_read_once_and_documents_stay_whole() -> None:
    corpus = corpora.sentiment()
    rows = [*corpus.train, *corpus.test]
    assert len(rows) == 80 + 1 + 1  # the product's second text is the film's, written louder
    assert {row.document for row in corpus.train}.isdisjoint(row.document for row in corpus.test)
    assert 0 < len(corpus.test) < 40
    by_text = {row.text: row for row in rows}
    assert by_text["Text 0 number 1 & more"].label == "positive"
    assert by_text["Text 0 number 2 & more"].label == "neutral"
    assert by_text['It said "broken" on the box'].label == "negative"
    assert by_text["gg"].label == "positive"


@pytest.mark.usefixtures("files")
def test_distinct_texts_are_distinct_and_as_long_as_real_ones() -> None:
    texts = list(corpora.distinct_texts(300))
    assert len(set(texts)) == len(texts) == 300
    assert texts == list(corpora.distinct_texts(300))
    real = {len(row.text.split()) for row in (*corpora.sentiment().train, *corpora.sentiment().test)}
    assert {len(text.split()) for text in texts} <= real


def test_the_line_of_lengths() -> None:
    assert corpora.length_line(np.array([2, 4, 6])).startswith("3 texts, tokens: ")
    assert "p50 4" in corpora.length_line(np.array([2, 4, 6]))
