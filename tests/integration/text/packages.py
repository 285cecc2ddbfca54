"""A tiny text model with random weights, as a text-cpu package with all three runtimes: made by hand in seconds, no download."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from roblox_ml_core.package import Examples, ModelPackage, write
from roblox_ml_serving.backends import rml_text_heads
from roblox_ml_serving.backends.rml_text_engines import open_engine
from roblox_ml_serving.backends.rml_text_plan import Cost, EnginePlan, TextPlan, write_plan
from roblox_ml_serving.backends.rml_text_tokens import Tokens, as_text
from roblox_ml_serving.trial.packages import text_signature

VOCABULARY = """good bad game the very love hate a is not play players fun slow fast robux map lag team boss ever never again
ada lovelace london paris wrote code in and of with for"""
WORDS = tuple(VOCABULARY.split())
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LABELS = {"sequence": ("negative", "neutral", "positive"), "token": ("O", "B-PER", "I-PER", "B-LOC")}
TEXTS = (
    "good game",
    "the very bad game",
    "love",
    "",
    "hate hate hate the unknown",
    "ada lovelace wrote code in london",
)
MAX_LENGTH, BUCKETS = 32, (8, 16, 24, 32)
#: What each engine is: runtime, and the file that makes its folder usable.
RUNTIMES = ("openvino", "ctranslate2", "onnxruntime")


def text_cpu(
    root: Path,
    *,
    task: str = "sequence",
    engines: Sequence[str] = RUNTIMES,
    requires: Sequence[str] = (),
    seed: int = 0,
    layers: int = 2,
    width: int = 32,
    batch_tokens: int = 256,
) -> ModelPackage:
    """A package whose engines (fp32, in the given order, the last is ONNX Runtime) come from one tiny BERT.

    `requires`: processor flags that all engines but the last one ask for.
    """
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertForTokenClassification

    folder = root / "model"
    folder.mkdir(parents=True)
    tokenizer(folder)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(SPECIAL) + len(WORDS), hidden_size=width, num_hidden_layers=layers, num_attention_heads=2,
        intermediate_size=2 * width, max_position_embeddings=MAX_LENGTH, num_labels=len(LABELS[task]),
        initializer_range=0.4, attn_implementation="eager",
    )  # fmt: skip
    kind = BertForSequenceClassification if task == "sequence" else BertForTokenClassification
    model = kind(config).eval()
    order = [name for name in engines if name != "onnxruntime"] + ["onnxruntime"]
    plan = TextPlan(
        task=task,
        labels=LABELS[task],
        max_length=MAX_LENGTH,
        pad_id=0,
        buckets=BUCKETS,
        batch_tokens=batch_tokens,
        engines=tuple(
            EnginePlan(
                name=f"{name}-fp32", runtime=name, folder=f"engines/{name}-fp32", precision="fp32",
                requires=() if name == "onnxruntime" else tuple(requires),
                options={"activation": "tanh"} if name == "ctranslate2" else {},
                bound=1e-5, cost=Cost(200.0, 2.0),
            )
            for name in order
        ),
    )  # fmt: skip
    (folder / "text.json").write_bytes(write_plan(plan))
    for engine in plan.engines:
        place = folder / engine.folder
        place.mkdir(parents=True)
        WRITERS[engine.runtime](model, place)
    signature = text_signature(task, len(plan.labels))
    examples = Examples.record(
        signature, {"TEXT": list(TEXTS)}, answers(folder, plan, TEXTS), tolerance=1e-4
    ) if task == "sequence" else None  # fmt: skip
    options = {"max_length": MAX_LENGTH, "preprocess": "text"}
    return write(
        root, format="text-cpu", signature=signature, examples=examples, labels=list(plan.labels), options=options
    )


def answers(folder: Path, plan: TextPlan, texts: Sequence[str | bytes]) -> dict[str, Any]:
    """What the package must answer, by its last engine, each text alone."""
    engine = open_engine(plan.engines[-1], folder, plan)
    encoded = Tokens((folder / "tokenizer.json").read_text(), plan).encode(texts)
    logits = [engine.run([np.frombuffer(row.ids, dtype="<i4")])[0] for row in encoded]
    if plan.task == "token":
        found = [
            rml_text_heads.entities_json(row, one.offsets or (), as_text(text), plan.labels)
            for row, one, text in zip(logits, encoded, texts, strict=True)
        ]
        return {"entities": np.array(found, dtype=object)}
    scores = rml_text_heads.softmax(np.stack(logits))
    return {"label": np.array(rml_text_heads.best(scores, plan.labels), dtype=object), "scores": scores}


def tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    made = Tokenizer(models.WordPiece({word: i for i, word in enumerate((*SPECIAL, *WORDS))}, unk_token="[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    made.save(str(folder / "tokenizer.json"))


def lean(model: Any) -> tuple[Any, tuple[Any, Any]]:
    """The model as (input_ids, attention_mask) to logits, and an example."""
    import torch

    class Lean(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            # The additive mask is made here: the library's own masking does not trace with every shape.
            keep = (1.0 - attention_mask[:, None, None, :].float()) * -1e9
            bert = self.model.bert
            hidden = bert.embeddings(input_ids=input_ids)
            for layer in bert.encoder.layer:
                out = layer(hidden, keep)
                hidden = out[0] if isinstance(out, tuple) else out
            return self.model.classifier(hidden if bert.pooler is None else bert.pooler(hidden))

    return Lean().eval(), (torch.randint(4, 20, (2, 7)), torch.ones(2, 7, dtype=torch.int64))


def write_openvino(model: Any, place: Path) -> None:
    import openvino

    module, example = lean(model)
    graph = openvino.convert_model(
        module, example_input={"input_ids": example[0], "attention_mask": example[1]},
        input=[("input_ids", [-1, -1], np.int64), ("attention_mask", [-1, -1], np.int64)],
    )  # fmt: skip
    openvino.save_model(graph, str(place / "model.xml"), compress_to_fp16=False)


def write_onnxruntime(model: Any, place: Path) -> None:
    import torch

    module, example = lean(model)
    names = ["input_ids", "attention_mask"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, example, str(place / "model.onnx"), input_names=names, output_names=["logits"], dynamo=False,
            dynamic_axes={name: {0: "rows", 1: "tokens"} for name in (*names, "logits")}, opset_version=17,
        )  # fmt: skip


def write_ctranslate2(model: Any, place: Path) -> None:
    import ctranslate2

    with tempfile.TemporaryDirectory() as checkpoint:
        model.config.architectures = [type(model).__name__]
        model.save_pretrained(checkpoint)
        config = json.loads((Path(checkpoint) / "config.json").read_text())
        config["position_embedding_type"] = "absolute"  # the converter asks, the library stopped saying
        (Path(checkpoint) / "config.json").write_text(json.dumps(config))
        vocabulary = Path(checkpoint) / "vocab.txt"
        vocabulary.write_text("\n".join((*SPECIAL, *WORDS)) + "\n")
        ctranslate2.converters.TransformersConverter(checkpoint).convert(str(place), force=True)
    arrays = {"out_w": model.classifier.weight, "out_b": model.classifier.bias}
    if model.bert.pooler is not None:
        arrays |= {"dense_w": model.bert.pooler.dense.weight, "dense_b": model.bert.pooler.dense.bias}
    np.savez(place / "head.npz", **{name: value.detach().numpy() for name, value in arrays.items()})


WRITERS = {"openvino": write_openvino, "ctranslate2": write_ctranslate2, "onnxruntime": write_onnxruntime}
