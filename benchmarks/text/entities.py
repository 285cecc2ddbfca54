"""Named entities in the real texts, marked by rules: silver labels, for a token classifier that is to be quantised and served.

No text of this corpus has entities marked by people, so rules find what writing shows: capitals, titles, given names, lists of places,
the marks of tweets. A surname found behind a title is a person's everywhere in the same document, which a model has to guess
from the sentence alone. The model reads lower-cased word pieces and cannot copy the rules. The labels say nothing about how good a
tagger of people's English one gets; they make "int8 loses nothing" a statement about entities.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cache
from typing import NamedTuple

from .corpora import Text, sentiment
from .gazetteer import BODIES, GIVEN_NAMES, ORGANISATIONS, PLACES

__all__ = ["KINDS", "TAGS", "EntityText", "Span", "entity_f1", "silver", "tags"]

KINDS = ("PER", "LOC", "ORG", "DATE", "MONEY", "HANDLE", "HASHTAG", "LINK")
TAGS = ("O", *(f"{prefix}-{kind}" for kind in KINDS for prefix in "BI"))


class Span(NamedTuple):
    """An entity: code points `start` to `end` of its text."""

    start: int
    end: int
    kind: str


class EntityText(NamedTuple):
    """A text and its entities, in order, none overlapping."""

    text: str
    spans: tuple[Span, ...]


_MONTHS = "January|February|March|April|June|July|August|September|October|November|December"
_DAYS = "Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday"
_TITLES = (
    r"(?:Mr|Mrs|Ms|Dr|Sen|Gov|Rep|Gen)\.|(?:Vice )?President|Senator|Governor|Mayor|Representative|Secretary|Justice|General"
    r"|Prime Minister|Chancellor|Judge|Commissioner|Officer|Detective|Director|Cardinal|Bishop|Pope|Queen|Prince|Princess"
)
_GIVEN, _PLACES, _BODY, _NAMED = (
    "|".join(map(re.escape, names)) for names in (GIVEN_NAMES, PLACES, BODIES, ORGANISATIONS)
)
_DATE = rf"(?:{_MONTHS}|May) \d{{1,2}}(?:, \d{{4}})?|(?:{_MONTHS})(?: \d{{4}})?|{_DAYS}|(?:19|20)\d\d(?:'?s)?"
_MONEY = r"\$ ?\d[\d,]*(?:\.\d+)?(?: (?:thousand|million|billion|trillion))?|\b\d[\d,.]* (?:dollars|bucks|cents)\b"
_NAME = r"[A-Z][a-z]+(?:[-'’][A-Z][a-z]+)?"
# In order: what an earlier rule has taken, a later one leaves.
_RULES: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("LINK", re.compile(r"(?:https?://|www\.)\S*[\w/]|\b(?:bit\.ly|tinyurl\.com|t\.co|twitpic\.com)/\w+")),
    ("HANDLE", re.compile(r"(?<!\w)@\w+")),
    ("HASHTAG", re.compile(r"(?<!\w)#[A-Za-z]\w*")),
    ("MONEY", re.compile(_MONEY)),
    ("DATE", re.compile(rf"\b(?:{_DATE})\b")),
    ("ORG", re.compile(rf"\b(?:{_NAMED}|(?:(?!The\b|A\b|This\b|That\b){_NAME} (?:and |of )?){{1,3}}(?:{_BODY}))\b")),
    ("PER", re.compile(rf"(?:\b(?:{_TITLES}) )((?!(?:{_BODY}|{_PLACES})\b){_NAME}(?: (?!(?:{_BODY})\b){_NAME}){{0,2}})")),
    ("PER", re.compile(rf"\b(?:{_GIVEN})(?: [A-Z]\.)?(?: (?:de|van|von|De|Van|Von|La|Le))?(?: {_NAME}){{1,2}}")),
    ("LOC", re.compile(rf"\b(?:{_PLACES})\b")),
)  # fmt: skip


@cache
def silver() -> tuple[tuple[EntityText, ...], tuple[EntityText, ...]]:
    """The texts with their entities: those to train on, and the held-out ones."""
    corpus = sentiment()
    return _mark(corpus.train), _mark(corpus.test)


def tags(spans: Iterable[Span], offsets: Sequence[tuple[int, int]]) -> list[int]:
    """The number of each token's tag (IOB2, see `TAGS`); −100 where the token stands for no text."""
    out = [0 if end > start else -100 for start, end in offsets]
    for span in spans:
        inside = [i for i, (start, end) in enumerate(offsets) if end > start and start < span.end and end > span.start]
        for place, i in enumerate(inside):
            out[i] = 1 + 2 * KINDS.index(span.kind) + (place > 0)
    return out


def entity_f1(truth: Sequence[Iterable[Span]], answers: Sequence[Iterable[Span]]) -> float:
    """Micro-F1 over entities; right is the same kind from the same place to the same place (as CoNLL-2003 counts)."""
    said = right = wanted = 0
    for true, answer in zip(truth, answers, strict=True):
        ours, theirs = set(answer), set(true)
        said, wanted, right = said + len(ours), wanted + len(theirs), right + len(ours & theirs)
    return 2 * right / max(1, said + wanted)


def _mark(texts: Sequence[Text]) -> tuple[EntityText, ...]:
    first = [_by_rules(row.text) for row in texts]
    surnames: dict[str, set[str]] = defaultdict(set)
    for row, spans in zip(texts, first, strict=True):
        people = (row.text[span.start : span.end] for span in spans if span.kind == "PER")
        surnames[row.document] |= {person.split()[-1] for person in people}
    out = []
    for row, spans in zip(texts, first, strict=True):
        known = surnames[row.document]
        if known:
            again = re.compile(rf"\b(?:{'|'.join(map(re.escape, sorted(known)))})\b")
            spans = _add(spans, "PER", again, row.text)
        out.append(EntityText(row.text, tuple(sorted(spans))))
    return tuple(out)


def _by_rules(text: str) -> list[Span]:
    spans: list[Span] = []
    for kind, pattern in _RULES:
        spans = _add(spans, kind, pattern, text)
    return spans


def _add(spans: list[Span], kind: str, pattern: re.Pattern[str], text: str) -> list[Span]:
    found = list(spans)
    for match in pattern.finditer(text):
        start, end = match.span(1) if pattern.groups else match.span()
        if all(end <= span.start or start >= span.end for span in found):
            found.append(Span(start, end, kind))
    return found
