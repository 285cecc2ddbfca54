"""PyTorch classifier → ONNX graph with free batch and sequence, and the proof that both answer alike."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import PackageError

__all__ = ["agree", "clean", "export_classifier"]

Logits = Callable[[Mapping[str, Any]], Any]
Encode = Callable[[Sequence[str]], Mapping[str, Any]]
OPSET = 18


def export_classifier(model: Any, sample: Mapping[str, Any], file: Path) -> Logits:
    """Write the graph (`input_ids`, `attention_mask` → `logits`) and return it as a function in ONNX Runtime."""
    import onnx
    import torch

    class Wrapped(torch.nn.Module):  # type: ignore[misc, unused-ignore]
        """Tensors in, one tensor out: the exporter cannot name the fields of a model's output object."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return self.inner(input_ids=input_ids, attention_mask=attention_mask).logits

    # Two rows at least: a dimension of size one would be taken for a constant.
    rows = {
        name: torch.from_numpy(array if len(array) > 1 else array.repeat(2, axis=0)) for name, array in sample.items()
    }
    batch, sequence = torch.export.Dim("batch"), torch.export.Dim("sequence")
    free = {0: batch, 1: sequence}
    try:
        with _quiet():
            program = torch.onnx.export(
                Wrapped().eval(),
                (rows["input_ids"], rows["attention_mask"]),
                input_names=["input_ids", "attention_mask"],
                output_names=["logits"],
                dynamic_shapes={"input_ids": free, "attention_mask": free},
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
            )
    except Exception as error:
        raise PackageError(
            f"{type(model).__name__} cannot be exported to ONNX: {_first_line(error)}",
            where="model",
            why="its forward does something with tensors that the exporter cannot express (or depends on their values)",
            fix='load it with attn_implementation="eager"; else export it yourself and use Model.from_onnx',
        ) from error
    if program is None:
        raise PackageError(f"{type(model).__name__} gave no ONNX program", where="model", fix="use Model.from_onnx")
    graph = program.model_proto
    onnx.save_model(clean(graph), str(file))
    return _session(file)


def agree(model: Any, logits: Logits, encode: Encode, texts: Sequence[str], tolerance: float) -> None:
    """Compare graph and PyTorch on the examples: one by one, all together, padded by a long text, and in reverse."""
    import numpy as np
    import torch

    long = " ".join(texts)
    shapes: list[list[str]] = [[text] for text in texts[:4]]
    shapes += [list(texts), [texts[0], long], [*reversed(texts), long, texts[0]]]
    for batch in shapes:
        rows = encode(batch)
        with torch.inference_mode():
            want = model(**{name: torch.from_numpy(array) for name, array in rows.items()}).logits.numpy()
        got = logits(rows)
        if got.shape != want.shape:
            raise PackageError(
                f"the ONNX graph answers {list(got.shape)} where PyTorch answers {list(want.shape)}",
                where=f"a batch of {len(batch)} texts",
                why="the batch or the sequence was taken for a constant in the export",
                fix="export it yourself with dynamic shapes and use Model.from_onnx",
            )
        off = float(np.abs(got - want).max())
        if not off <= tolerance:
            raise PackageError(
                f"the ONNX graph is off by {off:.2g} (tolerance {tolerance:g})",
                where=f"a batch of {len(batch)} texts, {rows['input_ids'].shape[1]} tokens",
                why="the exported graph does not compute what PyTorch computes",
                fix='load the model with attn_implementation="eager", or use Model.from_python',
            )


def clean(graph: Any) -> Any:
    """Without the exporter's notes: they hold source lines and file names of this machine, and differ run by run."""
    for key in ("doc_string", "producer_version"):
        graph.ClearField(key)
    del graph.metadata_props[:]
    pending = [graph.graph]
    while pending:
        part = pending.pop()
        del part.metadata_props[:]
        part.ClearField("doc_string")
        for item in (*part.node, *part.input, *part.output, *part.value_info, *part.initializer):
            item.ClearField("doc_string")
            if hasattr(item, "metadata_props"):
                del item.metadata_props[:]
        for node in part.node:
            pending += [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    for function in graph.functions:
        for node in function.node:
            node.ClearField("doc_string")
            del node.metadata_props[:]
    return graph


def _session(file: Path) -> Logits:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda rows: session.run(["logits"], dict(rows))[0]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter reports its progress to stdout and warns about its own internals; neither helps the reader."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__
