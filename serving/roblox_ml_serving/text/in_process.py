"""A text-cpu package in this process: the same engine and the same answers as behind an endpoint, without servers.

`roblox_ml_core.package.load` finds this opener by its entry point (group `roblox_ml.package_loaders`): the ground floor knows
the format's files, what runs them lives here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from roblox_ml_core.errors import PackageError
from roblox_ml_core.package import ModelPackage

from ..backends.rml_text_engines import EngineError, first_that_opens
from ..backends.rml_text_heads import best, entities_json, softmax
from ..backends.rml_text_plan import cpu_flags, read_plan
from ..backends.rml_text_tokens import Tokens, as_text

__all__ = ["open_model"]

logger = logging.getLogger(__name__)


def open_model(package: ModelPackage) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """`predict`: TEXT to label and scores, or to entities."""
    folder = package.root / "model"
    try:
        plan = read_plan((folder / "text.json").read_bytes())
        tokens = Tokens((folder / "tokenizer.json").read_text("utf-8"), plan)
        engine = first_that_opens(plan, folder, cpu_flags(), logger.info)
    except EngineError as error:
        raise PackageError(
            str(error), hint='pip install "roblox-ml[text]", or look at docs/formats/text-model.md'
        ) from None
    except ValueError as error:
        raise PackageError(str(error), hint="optimise the model again") from None

    def predict(inputs: Mapping[str, Any]) -> dict[str, Any]:
        texts = [as_text(text) for text in inputs["TEXT"].reshape(-1)]
        encoded = tokens.encode(texts)
        logits = engine.run([np.frombuffer(row.ids, dtype="<i4") for row in encoded])
        if plan.task == "token":
            found = [
                entities_json(row, one.offsets or (), text, plan.labels)
                for row, one, text in zip(logits, encoded, texts, strict=True)
            ]
            return {"entities": np.array(found, dtype=object)}
        scores = softmax(np.stack(logits)) if logits else np.zeros((0, len(plan.labels)), np.float32)
        return {"label": np.array(best(scores, plan.labels), dtype=object), "scores": scores}

    return predict
