"""Real texts for the benchmarks of text models: four sources, human ratings, and the lengths that people really write.

The texts are those of the example `comment_sentiment` and so is the split: equal texts are dropped, and whether a document is
held out depends on a hash of its id alone. The example's own module fetches them (from an sdist, by hash).
"""

from __future__ import annotations

import csv
import hashlib
import html
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from examples.comment_sentiment.corpus import comments, weights

__all__ = [
    "LABELS",
    "MAX_LENGTH",
    "Corpus",
    "Text",
    "distinct_texts",
    "length_line",
    "minilm",
    "sentiment",
    "token_lengths",
]

LABELS = ("negative", "neutral", "positive")
MAX_LENGTH = 64
_SOURCES = ("movie", "product", "editorial", "tweet")
_QUANTILES = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)


@dataclass(frozen=True, slots=True)
class Text:
    """One text, the mean of its human ratings (−4 to 4) and the class that follows from it."""

    text: str
    rating: float
    label: str
    source: str
    document: str


@dataclass(frozen=True, slots=True)
class Corpus:
    """Texts to train on, and texts of other documents to judge by."""

    train: tuple[Text, ...]
    test: tuple[Text, ...]


@cache
def sentiment() -> Corpus:
    """The rated texts, without repetitions, split by document: a fifth is held out."""
    files = comments()
    seen: set[str] = set()
    train: list[Text] = []
    test: list[Text] = []
    for source in _SOURCES:
        for text in _read(files[f"{source}.tsv"], source):
            key = re.sub(r"\W+", " ", text.text.lower()).strip()
            if key and key not in seen:
                seen.add(key)
                (test if _held_out(text.document) else train).append(text)
    return Corpus(tuple(train), tuple(test))


def minilm(folder: Path) -> Path:
    """The checkpoint of MiniLM-L6 as Hugging Face files, written into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in weights().items():
        (folder / name).write_bytes(content)
    return folder


def token_lengths(texts: Sequence[str], tokenizer: Any, max_length: int = MAX_LENGTH) -> np.ndarray:
    """Tokens of each text, the special ones counted, cut at `max_length`; `tokenizer` is one of the library `tokenizers`."""
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    return np.array([len(row.ids) for row in tokenizer.encode_batch_fast(list(texts))])


def length_line(lengths: np.ndarray) -> str:
    """The distribution in one line, for people."""
    parts = [f"p{100 * q:g} {np.quantile(lengths, q):.0f}" for q in _QUANTILES]
    return f"{len(lengths)} texts, tokens: " + ", ".join(parts) + f", max {lengths.max()}, mean {lengths.mean():.1f}"


def distinct_texts(count: int, seed: int = 0) -> Iterator[str]:
    """`count` different texts of real lengths: real ones first, then real ones with a word of another put in."""
    corpus = sentiment()
    texts = [row.text for row in (*corpus.test, *corpus.train)]
    yield from texts[:count]
    draw = np.random.default_rng(seed)
    seen = set(texts)
    left = count - len(texts)
    while left > 0:
        words, other = (texts[i].split() for i in draw.integers(0, len(texts), 2))
        words[draw.integers(0, len(words))] = other[draw.integers(0, len(other))]
        changed = " ".join(words)
        if changed not in seen:
            seen.add(changed)
            left -= 1
            yield changed


def _read(content: bytes, source: str) -> Iterator[Text]:
    lines = io.StringIO(content.decode("utf-8-sig"))
    for name, rating, raw in csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE):
        mean = float(rating)
        label = "negative" if mean < -0.5 else "positive" if mean > 0.5 else "neutral"
        yield Text(html.unescape(raw).strip(), mean, label, source, f"{source}:{name.split('_')[0]}")


def _held_out(document: str) -> bool:
    return int(hashlib.sha256(document.encode()).hexdigest(), 16) % 5 == 0
