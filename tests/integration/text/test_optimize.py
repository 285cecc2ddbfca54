"""`optimize` whole, on a tiny model: every engine built, judged and timed; what it writes is what a server loads."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from roblox_ml_serving.backends import rml_text_engines as engines
from roblox_ml_serving.backends import rml_text_heads as heads
from roblox_ml_serving.backends.rml_text_plan import read_plan
from roblox_ml_serving.backends.rml_text_tokens import Tokens
from roblox_ml_serving.text.optimize import OptimizeError, Source, optimize
from roblox_ml_serving.text.optimize.trying import COMPANY
from sklearn.metrics import f1_score

FLAGS = ("avx2", "avx512_vnni", "avx512_bf16")  # said, not read: the test plans the same engines on every machine
FALLBACK = "onnxruntime-fp32"
WIDEST, TEXTS = 12, 100


class Tiny(NamedTuple):
    """A model of random weights, and texts whose labels are its own answers but for a tenth."""

    source: Source
    texts: list[str]
    labels: list[Any]


def tiny(packages: Any, place: Path, task: str) -> Tiny:
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertForTokenClassification

    packages.tokenizer(place)
    tokenizer = (place / "tokenizer.json").read_text("utf-8")
    names = packages.LABELS[task]
    torch.manual_seed(5)
    config = BertConfig(
        vocab_size=len(packages.SPECIAL) + len(packages.WORDS), hidden_size=32, num_hidden_layers=2,
        num_attention_heads=2, intermediate_size=64, max_position_embeddings=WIDEST, num_labels=len(names),
        initializer_range=0.4, id2label=dict(enumerate(names)), attn_implementation="eager",
    )  # fmt: skip
    model = (BertForSequenceClassification if task == "sequence" else BertForTokenClassification)(config).eval()
    draw = np.random.default_rng(11)
    texts = [" ".join(draw.choice(packages.WORDS, draw.integers(1, 10))) for _ in range(TEXTS)]
    source = Source(model=model, tokenizer_json=tokenizer, max_length=WIDEST)
    return Tiny(source, texts, truth_of(source, texts, names, task, draw))


def truth_of(source: Source, texts: Sequence[str], names: Sequence[str], task: str, draw: Any) -> list[Any]:
    import torch
    from tokenizers import Tokenizer

    tokens = Tokenizer.from_str(str(source.tokenizer_json))
    found: list[Any] = []
    for text in texts:
        row = tokens.encode(text)
        with torch.inference_mode():
            logits = source.model(input_ids=torch.tensor([row.ids])).logits[0].numpy()
        if task == "sequence":
            found.append(names[int(logits.argmax()) if draw.random() > 0.1 else int(draw.integers(len(names)))])
        else:
            places = heads.entities(logits, row.offsets, text, names)
            found.append([(e["start"], e["end"], e["entity"]) for e in places if draw.random() > 0.1])
    return found


@pytest.fixture(scope="module")
def sequence(packages: Any, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return tiny(packages, tmp_path_factory.mktemp("sequence"), "sequence")


@pytest.fixture(scope="module")
def made(sequence: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Everything tried, whatever it loses: what a tiny model of random weights loses says nothing."""
    said: list[str] = []
    result = optimize(
        sequence.source, sequence.texts, sequence.labels, budget=1.0, flags=FLAGS, serve=False,
        folder=tmp_path_factory.mktemp("optimized"), progress=said.append,
    )  # fmt: skip
    return result, said


def rows_of(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in report["candidates"]}


class TestEverythingTried:
    def test_every_engine_is_judged_or_the_report_says_why_not(self, made: Any) -> None:
        rows = rows_of(made[0].report)
        assert set(rows) == {
            FALLBACK, "openvino-int8", "openvino-bf16", "ctranslate2-int8", "onnxruntime-int8"
        }  # fmt: skip
        assert all(row["allowed"] or row["refused"] for row in rows.values())
        assert rows["openvino-int8"]["allowed"]
        assert rows["ctranslate2-int8"]["allowed"]
        for row in rows.values():
            if row["allowed"]:
                assert row["f1_drop_low"] <= row["f1_drop"] <= row["f1_drop_high"]
                assert 0 <= row["agreement"] <= 1
                assert row["bound"] <= COMPANY
                assert row["token_us"] > 0
                assert row["throughput"]

    def test_the_folder_is_the_plan_and_nothing_more(self, made: Any) -> None:
        result, _ = made
        root = result.folder / "model"
        plan = read_plan((root / "text.json").read_bytes())
        assert plan == result.plan
        assert {place.name for place in (root / "engines").iterdir()} == {engine.name for engine in plan.engines}
        assert plan.engines[-1].name == FALLBACK
        assert plan.engines[-1].requires == ()
        assert plan.buckets[-1] == plan.max_length == WIDEST
        assert (root / "tokenizer.json").is_file()

    def test_every_engine_opens_and_answers_as_the_model(self, made: Any, sequence: Tiny) -> None:
        import torch

        result, _ = made
        root = result.folder / "model"
        encoded = Tokens((root / "tokenizer.json").read_text("utf-8"), result.plan).encode(sequence.texts[:20])
        rows = [np.frombuffer(row.ids, dtype="<i4") for row in encoded]
        for entry in result.plan.engines:
            answers = engines.open_engine(entry, root, result.plan).run(rows)
            with torch.inference_mode():
                for row, logits in zip(rows, answers, strict=True):
                    true = sequence.source.model(input_ids=torch.tensor(row[None].astype(np.int64))).logits[0].numpy()
                    np.testing.assert_allclose(logits, true, atol=2e-3 if entry.precision == "fp32" else 1.5)

    def test_a_processor_without_the_instructions_gets_the_next_engine(self, made: Any) -> None:
        result, _ = made
        said: list[str] = []
        engine = engines.first_that_opens(result.plan, result.folder / "model", frozenset(), said.append)
        assert not next(e for e in result.plan.engines if e.name == engine.name).requires
        if result.plan.engines[0].requires:
            assert any(result.plan.engines[0].name in line for line in said)

    def test_the_report_is_json_and_a_page(self, made: Any, sequence: Tiny) -> None:
        result, said = made
        told = json.loads((result.folder / "report.json").read_text("utf-8"), parse_constant=pytest.fail)
        assert (
            told["chosen"] == result.plan.engines[0].name == next(r["name"] for r in told["candidates"] if r["chosen"])
        )
        assert told["where"] == "in process"
        assert told["machine"]["flags"] == list(FLAGS)
        page = (result.folder / "report.html").read_text("utf-8")
        assert "<svg" in page
        assert all(row["name"] in page for row in told["candidates"])
        assert not any(
            mark in page for mark in ("http-equiv", "<script src", "<link ")
        )  # nothing is loaded from elsewhere
        assert any("lean graph" in line for line in said)

    def test_f1_is_the_models_own(self, made: Any, sequence: Tiny) -> None:
        import torch
        from tokenizers import Tokenizer

        tokens = Tokenizer.from_str(str(sequence.source.tokenizer_json))
        names = made[0].plan.labels
        with torch.inference_mode():
            said = [
                names[int(sequence.source.model(input_ids=torch.tensor([tokens.encode(t).ids])).logits[0].argmax())]
                for t in sequence.texts
            ]
        whole = f1_score(sequence.labels, said, average="macro", labels=names)
        assert made[0].report["texts"] == TEXTS  # of so few texts, all judge
        assert made[0].report["reference"]["f1"] == pytest.approx(whole)
        assert made[0].report["reference"]["f1"] < 1  # a tenth of the labels is not what the model says


def test_what_loses_more_than_the_budget_is_refused(
    sequence: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The int8 file says the least likely label: refused after every attempt, the float32 engine serves."""
    from roblox_ml_serving.text.optimize import candidates

    honest = candidates.KNOWN["ctranslate2-int8"]

    def spoiled(shop: Any, attempt: int) -> Any:
        built = honest(shop, attempt)
        if built is not None:
            head = shop.folder(built.name) / "head.npz"
            arrays = dict(np.load(head))
            np.savez(head, **{**arrays, "out_w": -arrays["out_w"], "out_b": -arrays["out_b"]})
        return built

    monkeypatch.setattr(candidates, "KNOWN", {**candidates.KNOWN, "ctranslate2-int8": spoiled})
    result = optimize(
        sequence.source, sequence.texts, sequence.labels, engines=["ctranslate2-int8"], flags=FLAGS, serve=False,
        folder=tmp_path, progress=lambda line: None,
    )  # fmt: skip
    row = rows_of(result.report)["ctranslate2-int8"]
    assert not row["allowed"]
    assert "points of F1" in row["refused"]
    assert [engine.name for engine in result.plan.engines] == [FALLBACK]
    assert result.report["chosen"] == FALLBACK
    assert result.report["f1_drop"] == 0


def test_entities_are_judged_as_servers_answer_them(packages: Any, tmp_path: Path) -> None:
    place = tmp_path / "tokens"
    place.mkdir()
    model = tiny(packages, place, "token")
    result = optimize(
        model.source, model.texts, model.labels, budget=1.0, engines=["openvino-int8"], flags=FLAGS, serve=False,
        folder=tmp_path / "out", progress=lambda line: None,
    )  # fmt: skip
    rows = rows_of(result.report)
    assert result.plan.task == "token"
    assert 0.9 < rows[FALLBACK]["f1"] < 1  # all that is true is found, a tenth of what is found is not true
    assert rows["openvino-int8"]["allowed"]
    assert rows["openvino-int8"]["ece"] is None


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda texts, labels: (texts[:5], labels[:5]), "at least 20"),
        (lambda texts, labels: (texts, labels[:-1]), "100 texts and 99 labels"),
        (lambda texts, labels: (texts, ["nonsense", *labels[1:]]), "'nonsense' is none of"),
        (lambda texts, labels: (texts, [7, *labels[1:]]), "7 is none of"),
    ],
)
def test_data_that_cannot_judge_is_refused(
    sequence: Tiny, tmp_path: Path, change: Callable[[list[str], list[Any]], Any], why: str
) -> None:
    texts, labels = change(sequence.texts, sequence.labels)
    with pytest.raises(OptimizeError, match=why):
        optimize(sequence.source, texts, labels, folder=tmp_path, serve=False)
