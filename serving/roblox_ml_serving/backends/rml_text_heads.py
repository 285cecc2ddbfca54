"""Logits to answers: probabilities, the label of a text, the named entities in it.

Door and stub answer the same bytes because both use this module; it stands alone because it is copied beside the stub's model.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

OUTSIDE = "O"
#: Prefixes of the usual schemes (IOB2, BILOU, BIOES): what begins an entity, and what ends one.
BEGINS = frozenset("BUS")
ENDS = frozenset("LEUS")
PREFIXES = frozenset("BILEUS")
SCORE_DIGITS = 6  # float32 holds no more


class _Word(NamedTuple):
    prefix: str
    kind: str
    start: int
    end: int
    scores: list[float]


def softmax(logits: Any) -> Any:
    """Over the last axis, shifted by the maximum so that no exponent overflows; computed in float64, answered in float32."""
    logits = np.asarray(logits)
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return (shifted / shifted.sum(axis=-1, keepdims=True)).astype(np.float32)


def best(scores: Any, labels: Sequence[str]) -> list[str]:
    """The label of each row of [rows, n] scores (or logits); the first of equals."""
    return [labels[index] for index in np.asarray(scores).argmax(axis=-1)]


def entities(
    logits: Any, offsets: Sequence[tuple[int, int]], text: str, labels: Sequence[str]
) -> list[dict[str, str | int | float]]:
    """The named entities of one text.

    `logits` [tokens, n] and `offsets` (code points) are of the same tokens; special tokens have empty offsets. A word takes
    the label of its first token, as taggers are trained; words merge as conlleval reads IOB2: B begins an entity, I continues
    one of its own kind and begins one where there is none. The score is the mean probability of the label over those tokens.
    """
    scores = softmax(logits)
    chosen = scores.argmax(axis=-1)
    merged: list[_Word] = []
    open_ = False  # may the next word continue the last entity?
    before = -1  # where the last token ended
    word: _Word | None = None  # the entity that the current word is part of
    for (start, end), label, row in zip(offsets, chosen, scores, strict=True):
        if start == end:
            continue
        if start == before and _joined(text, start):
            before = end
            if word is not None:
                word = merged[-1] = word._replace(end=end)
            continue
        before = end
        prefix, kind = split_label(labels[label])
        if not kind:
            word, open_ = None, False
            continue
        score = float(row[label])
        if open_ and prefix not in BEGINS and merged[-1].kind == kind:
            word = merged[-1] = merged[-1]._replace(end=end, scores=[*merged[-1].scores, score])
        else:
            word = _Word(prefix, kind, start, end, [score])
            merged.append(word)
        open_ = prefix not in ENDS
    return [_entity(found, text) for found in merged]


def entities_json(logits: Any, offsets: Sequence[tuple[int, int]], text: str, labels: Sequence[str]) -> bytes:
    """The entities of one text as the output `entities` carries them: a JSON list in UTF-8."""
    return json.dumps(entities(logits, offsets, text, labels), ensure_ascii=False, separators=(",", ":")).encode()


def split_label(label: str) -> tuple[str, str]:
    """("B", "PER") of "B-PER"; a label without a scheme's prefix is a kind of its own; ("", "") outside of entities."""
    if label == OUTSIDE:
        return "", ""
    if len(label) > 2 and label[1] in "-_" and label[0] in PREFIXES:
        return label[0], label[2:]
    return "I", label


def _entity(found: _Word, text: str) -> dict[str, str | int | float]:
    start, end = found.start, found.end
    while start < end and text[start].isspace():  # some tokenizers count the space before a word to it
        start += 1
    return {
        "entity": found.kind,
        "start": start,
        "end": end,
        "text": text[start:end],
        "score": round(sum(found.scores) / len(found.scores), SCORE_DIGITS),
    }


def _joined(text: str, at: int) -> bool:
    """Whether a token that starts `at`, where the one before ended, goes on with its word: both sides belong to one."""
    return _in_word(text[at - 1]) and _in_word(text[at])


def _in_word(character: str) -> bool:
    if character.isascii():
        return character.isalnum()
    return unicodedata.category(character)[0] in "LNM" and not _without_spaces(ord(character))


def _without_spaces(code: int) -> bool:
    """Scripts that put no space between words: a token there stands for itself."""
    return (
        0x0E00 <= code <= 0x0EFF  # Thai, Lao
        or 0x1000 <= code <= 0x109F  # Burmese
        or 0x1780 <= code <= 0x17FF  # Khmer
        or 0x2E80 <= code <= 0x9FFF  # Han, kana
        or 0xF900 <= code <= 0xFAFF
        or 0x20000 <= code <= 0x3FFFF
    )
