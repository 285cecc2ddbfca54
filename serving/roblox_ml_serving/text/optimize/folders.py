"""Engine folders of a text model: OpenVINO, ONNX and CTranslate2 files from one graph.

Every graph takes `input_ids` and `attention_mask` (int64 [B, L], both dimensions free) and gives `logits`.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .graph import head_of

__all__ = ["to_ctranslate2", "to_onnx", "to_onnx_int8", "to_openvino", "write_openvino"]

_INPUTS = ("input_ids", "attention_mask")


def to_openvino(module: Any) -> Any:
    """The graph as an OpenVINO model, float32."""
    import openvino

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = openvino.convert_model(module, example_input=_example())
    for port, name in zip(graph.inputs, _INPUTS, strict=True):
        port.get_tensor().set_names({name})
        port.get_node().set_friendly_name(name)
    graph.outputs[0].get_tensor().set_names({"logits"})
    graph.reshape({0: [-1, -1], 1: [-1, -1]})
    return graph


def write_openvino(graph: Any, folder: Path) -> None:
    """`model.xml` and `model.bin`. Weights stay as they are: half precision in the file would change answers."""
    import openvino

    folder.mkdir(parents=True, exist_ok=True)
    openvino.save_model(graph, folder / "model.xml", compress_to_fp16=False)


def to_onnx(module: Any, folder: Path) -> None:
    """`model.onnx`, float32."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    batch, length = torch.export.Dim("batch", min=1, max=4096), torch.export.Dim("length", min=2, max=512)
    shapes = {name: {0: batch, 1: length} for name in _INPUTS}
    with _quiet_exporter():
        program = torch.onnx.export(
            module, (), kwargs=_example(), dynamo=True, opset_version=18, dynamic_shapes=shapes,
            input_names=list(_INPUTS), output_names=["logits"], verbose=False,
        )  # fmt: skip
    program.save(str(folder / "model.onnx"), external_data=False)


def to_onnx_int8(source: Path, folder: Path) -> None:
    """ONNX Runtime's dynamic int8 of `source/model.onnx`: weights per channel, activations when they come."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    folder.mkdir(parents=True, exist_ok=True)
    graph = onnx.load(source / "model.onnx")
    del graph.graph.value_info[:]  # shapes noted by the exporter contradict those of the quantised operators
    with tempfile.TemporaryDirectory() as place:
        onnx.save(graph, Path(place, "model.onnx"))
        logging.getLogger().setLevel(max(logging.ERROR, logging.getLogger().level))
        quantize_dynamic(
            Path(place, "model.onnx"), folder / "model.onnx", per_channel=True, weight_type=QuantType.QInt8,
            op_types_to_quantize=["MatMul", "Gemm"],
        )  # fmt: skip


def to_ctranslate2(model: Any, tokenizer: Any, task: str, folder: Path) -> Mapping[str, Any]:
    """CTranslate2's int8 encoder, and the head in numpy; returns the engine's options."""
    import ctranslate2

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place, _quiet_transformers():
        _checkpoint(model, tokenizer, Path(place))
        converter = ctranslate2.converters.TransformersConverter(place)
        converter.convert(str(folder), quantization="int8", force=True)
    head = head_of(model, task)
    arrays = {"out_w": head.out.weight, "out_b": head.out.bias}
    if head.dense is not None:
        arrays |= {"dense_w": head.dense.weight, "dense_b": head.dense.bias}
    np.savez(folder / "head.npz", **{k: v.detach().numpy().astype(np.float32) for k, v in arrays.items()})
    return {"head": "head.npz", "activation": head.activation} if head.activation else {"head": "head.npz"}


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """The exporter warns about packages that nothing here uses, and about its own internals."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    """The converter loads the encoder alone, and transformers reports the head that is left over."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _checkpoint(model: Any, tokenizer: Any, place: Path) -> None:
    import json

    model.save_pretrained(place)
    tokenizer.save_pretrained(place)
    file = place / "config.json"
    config = json.loads(file.read_text("utf-8"))
    config.setdefault("position_embedding_type", "absolute")  # the converter asks for it; newer models leave it out
    file.write_text(json.dumps(config), "utf-8")


def _example() -> dict[str, Any]:
    import torch

    ids = torch.ones(2, 8, dtype=torch.long)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def padded(rows: Sequence[Any], pad: int) -> tuple[Any, Any]:
    """Ids and mask, int64 [B, longest]."""
    width = max(len(row) for row in rows)
    ids: Any = np.full((len(rows), width), pad, dtype=np.int64)
    mask = np.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
        mask[i, : len(row)] = 1
    return ids, mask
