"""Text to token ids, defined for any bytes, at a cost that a long text cannot raise.

What is not UTF-8 becomes U+FFFD, the empty text is its special tokens, what is longer than `max_length` tokens is cut at the
end, as in training. Of a long text only a prefix is read: just as much as decides its first `max_length` tokens. Stands
alone because the door, Triton's stub and the optimiser share it.
"""

from __future__ import annotations

import re
import sys
from array import array
from collections.abc import Sequence
from typing import Any, NamedTuple

from tokenizers import Tokenizer

CHARACTERS_PER_TOKEN = 8  # a first prefix of this many characters a token decides all but unusual texts
GROWTH = 8
#: A text whose first tokens are not decided within this many characters (one word, or white space, of this length) is cut there.
HARD_LIMIT = 65_536
#: What a cut can change lies within this of it: tokenizers look ahead one word, normalizers over one cluster of marks.
MARGIN_CHARACTERS = 64
MARGIN_WORDS = 2
LONE_SURROGATES = re.compile("[\ud800-\udfff]")
PAD_TOKENS = ("[PAD]", "<pad>")


class Encoded(NamedTuple):
    """One text as the model sees it. `offsets`, for token classification, are (start, end) code points per token."""

    ids: bytes  # int32, little-endian, special tokens included
    length: int  # tokens
    truncated: bool
    offsets: tuple[tuple[int, int], ...] | None


class Tokens:
    """The tokenizer of one package, set to its plan's `max_length`. Threads may share it."""

    def __init__(self, tokenizer_json: str, plan: Any) -> None:
        self._tokenizer = Tokenizer.from_str(tokenizer_json)
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_length=plan.max_length)
        self._max_length: int = plan.max_length
        self._offsets: bool = plan.task == "token"
        self._prefix: int = max(256, CHARACTERS_PER_TOKEN * plan.max_length)
        # A tokenizer without special tokens encodes "" to nothing; one attended pad keeps the answer defined.
        self._nothing = Encoded(_int32([plan.pad_id]), 1, False, ((0, 0),) if self._offsets else None)

    def encode(self, texts: Sequence[str | bytes]) -> list[Encoded]:
        """One Encoded per text, in order. Each depends on its own text alone."""
        decoded = [as_text(text) for text in texts]
        short = [text for text in decoded if len(text) <= self._prefix]
        rows = iter(self._tokenizer.encode_batch(short) if self._offsets else self._tokenizer.encode_batch_fast(short))
        return [self._row(next(rows), False) if len(text) <= self._prefix else self._long(text) for text in decoded]

    def _long(self, text: str) -> Encoded:
        """Read on until more could not change the tokens kept."""
        read = self._prefix
        row = self._tokenizer.encode(text[:read])
        while not self._decided(row, text, read) and read < min(len(text), HARD_LIMIT):
            read = min(read * GROWTH, HARD_LIMIT)
            row = self._tokenizer.encode(text[:read])
        return self._row(row, len(text) > read)

    def _decided(self, row: Any, text: str, read: int) -> bool:
        if len(text) <= read:
            return True
        rest = row.overflowing
        if not rest:
            return False
        # Words count over the whole text, and a word's tokens follow one another: the last one kept is what matters.
        kept = max((word for word in row.word_ids if word is not None), default=None)
        last = max((word for part in rest for word in part.word_ids if word is not None), default=None)
        if kept is None or last is None or kept + MARGIN_WORDS > last:
            return False
        end = row.word_to_chars(kept)[1]
        return bool(end + MARGIN_CHARACTERS <= read)

    def _row(self, row: Any, more: bool) -> Encoded:
        ids = row.ids
        if not ids:
            return self._nothing
        length = len(ids)
        truncated = length >= self._max_length and (more or bool(row.overflowing))
        return Encoded(_int32(ids), length, truncated, tuple(row.offsets) if self._offsets else None)


def as_text(text: str | bytes) -> str:
    """A text that can be encoded: bytes as UTF-8 with U+FFFD for what is none, and for half a surrogate pair."""
    if isinstance(text, bytes):
        return text.decode("utf-8", "replace")
    try:
        text.encode()
    except UnicodeEncodeError:
        return LONE_SURROGATES.sub("\ufffd", text)
    return text


def pad_id(tokenizer_json: str) -> int:
    """The id that fills short rows: the tokenizer's own setting, else its pad token, else 0 (masked out anyway)."""
    tokenizer = Tokenizer.from_str(tokenizer_json)
    if tokenizer.padding:
        return int(tokenizer.padding["pad_id"])
    known = (tokenizer.token_to_id(token) for token in PAD_TOKENS)
    return next((int(found) for found in known if found is not None), 0)


def _int32(ids: list[int]) -> bytes:
    values = array("i", ids)
    if sys.byteorder == "big":
        values.byteswap()
    return values.tobytes()
