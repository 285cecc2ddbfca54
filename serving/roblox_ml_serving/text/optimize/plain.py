"""A text model as it is, in float32: one engine that runs everywhere, nothing tried, nothing lost.

What packaging writes for a tagger before anybody optimises it; the optimiser keeps the same engine as its last resort.
"""

from __future__ import annotations

from pathlib import Path

from ...backends.rml_text_plan import EnginePlan, TextPlan, write_plan
from .folders import to_onnx
from .graph import Generic, NotLean, lean
from .source import Source

__all__ = ["PLAIN", "write_plain"]

PLAIN = "onnxruntime-fp32"
_BUCKETS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384)
_BATCH_TOKENS = 512


def write_plain(source: Source, folder: Path) -> Path:
    """`model/text.json`, `model/tokenizer.json` and the one engine below `folder`; returns `folder`."""
    loaded = source.load()
    try:
        graph = lean(loaded.model, loaded.task)
    except NotLean:
        graph = Generic(loaded.model)
    place = folder / "model"
    to_onnx(graph, place / "engines" / PLAIN)
    (place / "tokenizer.json").write_text(loaded.tokenizer_json, encoding="utf-8")
    plan = TextPlan(
        task=loaded.task,
        labels=loaded.labels,
        max_length=loaded.max_length,
        pad_id=loaded.pad_id,
        buckets=(*(upper for upper in _BUCKETS if upper < loaded.max_length), loaded.max_length),
        batch_tokens=max(_BATCH_TOKENS, loaded.max_length),
        engines=(EnginePlan(PLAIN, "onnxruntime", f"engines/{PLAIN}", "fp32"),),
    )
    (place / "text.json").write_bytes(write_plan(plan))
    return folder
