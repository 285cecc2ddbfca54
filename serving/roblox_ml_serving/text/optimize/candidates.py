"""The engines that are tried for a model: how each is built, and what it needs of the processor."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from . import folders
from .source import Loaded

__all__ = ["CALIBRATION", "FALLBACK", "KNOWN", "Built", "Workshop"]

FALLBACK = "onnxruntime-fp32"
CALIBRATION = 300


@dataclass(frozen=True, slots=True)
class Built:
    """An engine's folder is written; this is what its entry in the plan says about it."""

    name: str
    runtime: str
    precision: str
    requires: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


class Workshop:
    """Builds engine folders below `root` (`engines/<name>`), from one graph."""

    def __init__(
        self, loaded: Loaded, graph: Any, root: Path, calibration: Sequence[Any], flags: frozenset[str]
    ) -> None:
        self.loaded, self.graph, self.root, self.flags = loaded, graph, root, flags
        self.calibration = calibration[:CALIBRATION]
        self._openvino: Any = None

    def folder(self, name: str) -> Path:
        return self.root / "engines" / name

    def names(self) -> list[str]:
        """What this processor can run, in the order of trying; the fallback is the reference and comes first."""
        names = [FALLBACK, "openvino-int8"]
        if "avx512_bf16" in self.flags or "amx_bf16" in self.flags:
            names.append("openvino-bf16")
        return [*names, "ctranslate2-int8", "onnxruntime-int8"]

    def build(self, name: str, attempt: int = 0) -> Built | None:
        """Write the engine's folder; None when there is no further `attempt` (other settings for the same engine)."""
        return KNOWN[name](self, attempt)

    def _fp32(self, attempt: int) -> Built | None:
        if attempt:
            return None
        folders.to_onnx(self.graph, self.folder(FALLBACK))
        return Built(FALLBACK, "onnxruntime", "fp32")

    def _ort_int8(self, attempt: int) -> Built | None:
        if attempt:
            return None
        folders.to_onnx_int8(self.folder(FALLBACK), self.folder("onnxruntime-int8"))
        return Built("onnxruntime-int8", "onnxruntime", "int8", self._int8_needs())

    def _ov_bf16(self, attempt: int) -> Built | None:
        if attempt:
            return None
        folders.write_openvino(self._graph(), self.folder("openvino-bf16"))
        return Built("openvino-bf16", "openvino", "bf16", ("avx512_bf16",))

    def _ov_int8(self, attempt: int) -> Built | None:
        """Post-training quantisation; each attempt is more careful than the one before."""
        import nncf

        alpha = nncf.AdvancedSmoothQuantParameters
        careful: tuple[Mapping[str, Any], ...] = (
            {},
            {"advanced_parameters": nncf.AdvancedQuantizationParameters(smooth_quant_alphas=alpha(matmul=0.5))},
            {"ignored_scope": self._last_down(nncf)},
        )
        if attempt >= len(careful):
            return None
        rows = [folders.padded([row], self.loaded.pad_id) for row in self.calibration]
        data = nncf.Dataset([{"input_ids": ids, "attention_mask": mask} for ids, mask in rows])
        with _quiet():
            quantised = nncf.quantize(
                self._graph(), data, model_type=nncf.ModelType.TRANSFORMER, subset_size=len(rows), **careful[attempt]
            )
        folders.write_openvino(quantised, self.folder("openvino-int8"))
        return Built("openvino-int8", "openvino", "int8", self._int8_needs())

    def _last_down(self, nncf: Any) -> Any:
        """The products that bring the feed-forward layers back to the model's width: their inputs have the wildest range."""
        names = [
            node.get_friendly_name()
            for node in self._graph().get_ordered_ops()
            if node.get_type_name() == "MatMul" and ".down" in node.get_friendly_name()
        ]
        return nncf.IgnoredScope(names=names) if names else None

    def _ct2_int8(self, attempt: int) -> Built | None:
        if attempt:
            return None
        tokenizer = _fast_tokenizer(self.loaded)
        options = folders.to_ctranslate2(
            self.loaded.model, tokenizer, self.loaded.task, self.folder("ctranslate2-int8")
        )
        return Built("ctranslate2-int8", "ctranslate2", "int8", ("avx2",) if "avx2" in self.flags else (), options)

    def _int8_needs(self) -> tuple[str, ...]:
        # Without these, products of int8 overflow 16 bits: the same file would answer differently.
        for flag in ("avx512_vnni", "avx_vnni", "avx2"):
            if flag in self.flags:
                return (flag,)
        return ()

    def _graph(self) -> Any:
        if self._openvino is None:
            self._openvino = folders.to_openvino(self.graph)
        return self._openvino.clone()


KNOWN: Mapping[str, Callable[[Workshop, int], Built | None]] = {
    FALLBACK: Workshop._fp32,
    "openvino-int8": Workshop._ov_int8,
    "openvino-bf16": Workshop._ov_bf16,
    "ctranslate2-int8": Workshop._ct2_int8,
    "onnxruntime-int8": Workshop._ort_int8,
}


def _fast_tokenizer(loaded: Loaded) -> Any:
    import transformers
    from tokenizers import Tokenizer

    plain = Tokenizer.from_str(loaded.tokenizer_json)
    known = plain.get_vocab()
    named = {"unk_token": ("[UNK]", "<unk>"), "pad_token": ("[PAD]", "<pad>")}
    special = {key: next((n for n in names if n in known), None) for key, names in named.items()}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=plain, **{k: v for k, v in special.items() if v})


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the progress bars of a library that prints one per pass."""
    logger = logging.getLogger("nncf")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(before)


def as_rows(encoded: Sequence[Any]) -> list[Any]:
    """Token ids as int32 arrays."""
    return [np.frombuffer(row.ids, dtype="<i4") for row in encoded]
