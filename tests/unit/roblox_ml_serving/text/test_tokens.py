"""Text to token ids: equal to the whole tokenizer's for any text and any cut, defined for any bytes, bounded in cost.

The tokenizers are small ones of the three families that text models come with, trained here: their seams are the real ones.
"""

from __future__ import annotations

import sys
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from roblox_ml_serving.backends import rml_text_tokens
from roblox_ml_serving.backends.rml_text_tokens import HARD_LIMIT, Tokens, as_text, pad_id
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

TEXTS = [
    "the quick brown fox jumps over the lazy dog, and wins the game again and again!",
    "gg, well played! you are the best team i have ever seen; see you tomorrow at 12:30.",
    "Don't report me... it's unfair :( my account #4711 was banned for nothing?!",
    "Äpfel, Öl und Übung: naïve café déjà vu, señor. 東京へ行く。 你好世界 привет мир שלום עולם مرحبا",
] * 3
FAMILIES = ("wordpiece", "bytelevel", "unigram")


@cache
def made(family: str) -> str:
    """tokenizer.json of a BERT-like, a RoBERTa-like or an XLM-R-like tokenizer."""
    return {"wordpiece": _wordpiece, "bytelevel": _bytelevel, "unigram": _unigram}[family]().to_str()


def _wordpiece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(
        TEXTS, trainers.WordPieceTrainer(vocab_size=300, special_tokens=special, show_progress=False)
    )
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


def _bytelevel() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return tokenizer


def _unigram() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("\n", " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=200, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer


def plan(max_length: int, task: str = "sequence") -> Any:
    return SimpleNamespace(max_length=max_length, task=task, pad_id=0)


def whole(family: str, text: str) -> Any:
    """The encoding of the whole text, not cut."""
    tokenizer = Tokenizer.from_str(made(family))
    tokenizer.no_truncation()
    return tokenizer.encode(text)


def cut(family: str, max_length: int, text: str) -> list[int]:
    tokenizer = Tokenizer.from_str(made(family))
    tokenizer.enable_truncation(max_length)
    return list(tokenizer.encode(text).ids)


def ids_of(encoded: rml_text_tokens.Encoded) -> list[int]:
    return [int.from_bytes(encoded.ids[at : at + 4], "little") for at in range(0, len(encoded.ids), 4)]


PIECES = st.one_of(
    st.sampled_from(
        ["the", " ", "  ", "\n", "\t", "game", "gg!", "...", "[SEP]", "<mask>", "</s>", "é", "e\u0301", "\u200d", "\ufb01", "ǅ",
         "😀", "👩\u200d🚀", "שלום", "مرحبا", "東京", "你好", "ไทย", "\u0000", "\ufffd", "'s", "12:30", "a" * 120, "-" * 40, " " * 300,
         "\u0301" * 30, "x" * 700]
    ),
    st.text(max_size=8),
)  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_a_long_text_read_in_part_has_the_ids_of_the_whole(family: str, data: st.DataObject) -> None:
    pieces = data.draw(st.lists(PIECES, min_size=1, max_size=12))
    text = "".join(pieces) * data.draw(st.integers(1, 40))
    max_length = data.draw(st.integers(4, 24))
    tokens = Tokens(made(family), plan(max_length))
    tokens._prefix = data.draw(st.integers(1, 300))  # so that a cut falls close behind what is kept
    (encoded,) = tokens.encode([text[:HARD_LIMIT]])
    assert ids_of(encoded) == cut(family, max_length, text[:HARD_LIMIT])
    assert encoded.truncated == (len(whole(family, text[:HARD_LIMIT]).ids) > max_length)


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=40, deadline=None)
@given(texts=st.lists(st.text(max_size=30), max_size=6), binary=st.binary(max_size=30))
def test_a_row_depends_on_its_own_text_alone(family: str, texts: list[str], binary: bytes) -> None:
    tokens = Tokens(made(family), plan(16))
    together = tokens.encode([*texts, binary])
    assert together == [tokens.encode([text])[0] for text in (*texts, binary)]
    assert all(1 <= row.length <= 16 and len(row.ids) == 4 * row.length for row in together)


@pytest.mark.parametrize("family", FAMILIES)
def test_only_as_much_of_a_long_text_is_read_as_decides(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = Tokens(made(family), plan(16))
    read: list[int] = []
    tokenizer = tokens._tokenizer

    class Watched:
        def encode(self, text: str) -> Any:
            read.append(len(text))
            return tokenizer.encode(text)

        def encode_batch_fast(self, texts: list[str]) -> Any:
            read.extend(map(len, texts))
            return tokenizer.encode_batch_fast(texts)

    monkeypatch.setattr(tokens, "_tokenizer", Watched())
    (usual,) = tokens.encode(["the quick brown fox, " * 50_000])
    assert (usual.length, usual.truncated) == (16, True)
    assert sum(read) == 256
    read.clear()
    (one_word,) = tokens.encode(["a" * 1_000_000])
    assert max(read) == HARD_LIMIT
    assert sum(read) < 4 / 3 * HARD_LIMIT
    assert one_word.length <= 16


@pytest.mark.parametrize("family", FAMILIES)
def test_any_bytes_have_an_encoding(family: str) -> None:
    tokens = Tokens(made(family), plan(16))
    empty, broken, replaced, half, half_replaced, emoji, rtl = tokens.encode(
        [b"", b"gg \xff\xfe", "gg \ufffd\ufffd", "gg \ud83d!", "gg \ufffd!", "👩\u200d🚀", "שלום עולם"]
    )
    assert ids_of(empty) == cut(family, 16, "")
    assert len(ids_of(empty)) == 2  # the special tokens alone
    assert broken == replaced
    assert half == half_replaced
    assert ids_of(emoji) == cut(family, 16, "👩\u200d🚀")
    assert ids_of(rtl) == cut(family, 16, "שלום עולם")


def test_a_tokenizer_without_special_tokens_gives_the_empty_text_one_pad() -> None:
    tokenizer = Tokenizer.from_str(made("wordpiece"))
    tokenizer.post_processor = processors.TemplateProcessing(single="$A", pair="$A $B", special_tokens=[])
    for task, offsets in (("sequence", None), ("token", ((0, 0),))):
        (row,) = Tokens(tokenizer.to_str(), SimpleNamespace(max_length=8, task=task, pad_id=7)).encode([""])
        assert row == ((7).to_bytes(4, "little"), 1, False, offsets)


def test_offsets_are_code_points_of_the_text_as_it_was_read() -> None:
    text = "😀 naïve café"
    for family in FAMILIES:
        (row,) = Tokens(made(family), plan(32, "token")).encode([text.encode()])
        assert row.offsets is not None
        assert len(row.offsets) == row.length
        assert row.offsets == tuple(whole(family, text).offsets)
    (plain,) = Tokens(made("wordpiece"), plan(32)).encode([text])
    assert plain.offsets is None


def test_padding_and_truncation_of_the_file_itself_do_not_count() -> None:
    tokenizer = Tokenizer.from_str(made("wordpiece"))
    tokenizer.enable_padding(length=50, pad_id=3)
    tokenizer.enable_truncation(3)
    (row,) = Tokens(tokenizer.to_str(), plan(16)).encode(["the game"])
    assert ids_of(row) == cut("wordpiece", 16, "the game")
    assert pad_id(tokenizer.to_str()) == 3
    assert pad_id(made("wordpiece")) == 0
    assert pad_id(made("bytelevel")) == 1


@given(st.text(alphabet=st.characters(exclude_categories=()), max_size=20))
def test_every_string_becomes_one_that_utf8_can_hold(text: str) -> None:
    fixed = as_text(text)
    fixed.encode()
    assert len(fixed) == len(text)
    assert all(a == b or (b == "\ufffd" and "\ud800" <= a <= "\udfff") for a, b in zip(text, fixed, strict=True))


def test_the_bytes_are_little_endian_on_any_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = (258).to_bytes(4, "little")
    assert rml_text_tokens._int32([258]) == expected
    monkeypatch.setattr(sys, "byteorder", "big")
    assert rml_text_tokens._int32([258]) == expected[::-1]  # swapped, since this machine's own order is little
