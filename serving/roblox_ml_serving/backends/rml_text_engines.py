"""The engines of a text model: token ids in, logits out, on one thread, for rows of any lengths.

Every engine has the same face, whatever library computes. What a plan prefers may not run here (another processor, a library
or a file that is missing): then the next one does, and says so. Stands alone because Triton's stub and the optimiser share it.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Calculate = Callable[[Any, Any], Any]  # ids [B, L], mask [B, L] (both int64) to logits
#: The file that makes a folder one of the runtime's.
FILES = {"openvino": "model.xml", "onnxruntime": "model.onnx", "ctranslate2": "model.bin"}
HEAD = "head.npz"


class EngineError(RuntimeError):
    """An engine cannot run here; the message says why."""


class Engine:
    """One opened engine. Not for several threads at once: each instance has its own."""

    def __init__(self, name: str, plan: Any, calculate: Calculate) -> None:
        self.name = name
        self._buckets = tuple(plan.buckets)
        self._batch_tokens = int(plan.batch_tokens)
        self._pad_id = int(plan.pad_id)
        self._classes = len(plan.labels)
        self._per_token = plan.task == "token"
        self._calculate = calculate

    def call(self, ids: Any, mask: Any) -> Any:
        """Logits [B, n] (or [B, L, n] for token classification) of one padded batch, as it is."""
        logits = np.asarray(self._calculate(ids, mask), dtype=np.float32)
        shape = (*ids.shape, self._classes) if self._per_token else (len(ids), self._classes)
        if logits.shape != shape:
            raise EngineError(f"engine {self.name} answered logits of shape {list(logits.shape)}, not {list(shape)}")
        return logits

    def run(self, rows: Sequence[Any]) -> list[Any]:
        """The logits of each row ([n] or [tokens, n]), in order; rows are int32 arrays of at least one token."""
        answers: list[Any] = [None] * len(rows)
        for members in form_calls([len(row) for row in rows], self._buckets, self._batch_tokens):
            ids, mask = pad([rows[i] for i in members], self._pad_id)
            logits = self.call(ids, mask)
            for line, i in zip(logits, members):  # noqa: B905 - the same length, checked in call
                answers[i] = line[: len(rows[i])] if self._per_token else line
        return answers

    def try_out(self) -> None:
        """One row of every bucket: a library that opens a file may still be unable to compute it here."""
        for length in self._buckets:
            self.call(*pad([np.full(length, self._pad_id, dtype=np.int32)], self._pad_id))


def form_calls(lengths: Sequence[int], buckets: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Rows (by index) of each call: of one bucket, at most `batch_tokens` when padded to the longest of them.

    Neighbours of similar length travel together, so a call is padded as little as may be. A row that alone has more tokens
    than a call should is a call of its own.
    """
    calls: list[list[int]] = []
    bucket, widest = -1, 0
    for i in sorted(
        range(len(lengths)), key=lambda i: -lengths[i]
    ):  # longest first: the first row of a call is its width
        length = lengths[i]
        if not 0 < length <= buckets[-1]:
            raise ValueError(f"a row of {length} tokens: a model of max_length {buckets[-1]} takes 1 to that many")
        own = bisect_left(buckets, length)
        if own != bucket or (len(calls[-1]) + 1) * widest > batch_tokens:
            calls.append([])
            bucket, widest = own, length
        calls[-1].append(i)
    return calls


def pad(rows: Sequence[Any], pad_id: int) -> tuple[Any, Any]:
    """Ids and mask, int64 [B, longest]."""
    width = max(len(row) for row in rows)
    if all(len(row) == width for row in rows):
        return np.stack(rows).astype(np.int64), np.ones((len(rows), width), dtype=np.int64)
    ids: Any = np.full((len(rows), width), pad_id, dtype=np.int64)
    mask: Any = np.zeros((len(rows), width), dtype=np.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
        mask[i, : len(row)] = 1
    return ids, mask


def first_that_opens(plan: Any, folder: Path, flags: Iterable[str], log: Callable[[str], None]) -> Engine:
    """The first engine of the plan that this machine can run, opened and tried; every one passed over is said to `log`.

    `folder` is the package's `model` folder. Raises EngineError with all reasons when none opens.
    """
    present, reasons = frozenset(flags), []
    for engine in plan.engines:
        lacking = sorted(frozenset(engine.requires) - present)
        if lacking:
            reason = f"this processor has no {', '.join(lacking)}"
        else:
            try:
                opened = open_engine(engine, folder, plan)
                opened.try_out()
            except Exception as error:  # whatever a library raises: the next engine may do better
                reason = str(error) if isinstance(error, EngineError) else f"{type(error).__name__}: {error}"
            else:
                if reasons:
                    log(f"engine {engine.name} runs instead of {plan.engines[0].name}")
                return opened
        reasons.append(f"{engine.name}: {reason}")
        log(f"engine {engine.name} is passed over: {reason}")
    raise EngineError("no engine of this package runs here: " + "; ".join(reasons))


def open_engine(engine: Any, folder: Path, plan: Any, threads: int = 1) -> Engine:
    """The named engine of a plan, ready to compute. EngineError when its files or its library are missing."""
    place = Path(folder) / engine.folder
    if not (place / FILES[engine.runtime]).is_file():
        raise EngineError(f"the package has no {engine.folder}/{FILES[engine.runtime]}")
    try:
        calculate = OPENERS[engine.runtime](engine, place, plan, threads)
    except ImportError as error:
        raise EngineError(f"{engine.runtime} is not installed here ({error})") from error
    return Engine(engine.name, plan, calculate)


# -- the libraries ------------------------------------------------------------------------------------------------------


def _openvino(engine: Any, place: Path, plan: Any, threads: int) -> Calculate:
    import openvino

    core = openvino.Core()
    settings: dict[str, Any] = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        # The process is pinned, or not, as a whole; the library would choose among all cores.
        "ENABLE_CPU_PINNING": False,
        "INFERENCE_PRECISION_HINT": "bf16" if engine.precision == "bf16" else "f32",
        **dict(engine.options),
    }
    request = core.compile_model(
        core.read_model(str(place / FILES["openvino"])), "CPU", settings
    ).create_infer_request()
    ports = {"input_ids", "attention_mask"}
    names = [next((name for name in port.names if name in ports), "") for port in request.model_inputs]
    if set(names) != ports:
        raise EngineError(f"{engine.folder} takes inputs {names}, not input_ids and attention_mask")
    first = names[0] == "input_ids"

    def calculate(ids: Any, mask: Any) -> Any:
        request.infer({0: ids, 1: mask} if first else {0: mask, 1: ids}, share_inputs=True, share_outputs=True)
        return np.array(
            request.get_output_tensor(0).data, dtype=np.float32
        )  # its memory is written again by the next call

    return calculate


def _onnxruntime(engine: Any, place: Path, plan: Any, threads: int) -> Calculate:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Idle threads that spin take the cores from the instances that work.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    # The memory of the largest shape seen is not kept for ever.
    options.enable_mem_pattern = False
    for key, value in dict(engine.options).items():
        options.add_session_config_entry(key, str(value))
    session = onnxruntime.InferenceSession(
        str(place / FILES["onnxruntime"]), options, providers=["CPUExecutionProvider"]
    )
    known = {"input_ids", "attention_mask", "token_type_ids"}
    fed = [node.name for node in session.get_inputs()]
    if not set(fed) <= known:
        raise EngineError(f"{engine.folder} takes inputs {fed}, not input_ids and attention_mask")
    names = [node.name for node in session.get_outputs()]
    output = "logits" if "logits" in names else names[0]

    def calculate(ids: Any, mask: Any) -> Any:
        arrays = {"input_ids": ids, "attention_mask": mask}
        if "token_type_ids" in fed:
            arrays["token_type_ids"] = np.zeros_like(ids)
        return session.run([output], {name: arrays[name] for name in fed})[0]

    return calculate


def _ctranslate2(engine: Any, place: Path, plan: Any, threads: int) -> Calculate:
    import ctranslate2

    options = dict(engine.options)
    with np.load(place / str(options.pop("head", HEAD))) as arrays:
        head = {name: arrays[name] for name in arrays.files}
    activation = str(options.pop("activation", ""))
    compute = str(options.pop("compute_type", {"fp32": "float32", "bf16": "bfloat16"}.get(engine.precision, "int8")))
    encoder = ctranslate2.Encoder(
        str(place), device="cpu", compute_type=compute, intra_threads=threads, inter_threads=1, **options
    )
    per_token = plan.task == "token"

    def calculate(ids: Any, mask: Any) -> Any:
        lengths = mask.sum(axis=1)
        batch = ctranslate2.StorageView.from_array(np.ascontiguousarray(ids, dtype=np.int32))
        counts = ctranslate2.StorageView.from_array(lengths.astype(np.int32))
        hidden = np.array(encoder.forward_batch(batch, lengths=counts).last_hidden_state)
        return apply_head(hidden if per_token else hidden[:, 0], head, activation)

    return calculate


def apply_head(hidden: Any, head: Mapping[str, Any], activation: str = "") -> Any:
    """The classification head in numpy: `dense_w`, `dense_b` and an activation where the model has them, then `out_w`, `out_b`.

    Weights are as torch keeps them, [out, in]. Activations: tanh (BERT's pooler, RoBERTa), relu (DistilBERT), gelu (ELECTRA).
    """
    if "dense_w" in head:
        hidden = ACTIVATIONS[activation](hidden @ head["dense_w"].T + head["dense_b"])
    return hidden @ head["out_w"].T + head["out_b"]


def _gelu(x: Any) -> Any:
    from math import erf

    return x * 0.5 * (1.0 + np.vectorize(erf, otypes=[np.float32])(x / np.float32(np.sqrt(2.0))))


ACTIVATIONS: Mapping[str, Callable[[Any], Any]] = {
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "gelu": _gelu,
}
OPENERS: Mapping[str, Callable[[Any, Path, Any, int], Calculate]] = {
    "openvino": _openvino,
    "onnxruntime": _onnxruntime,
    "ctranslate2": _ctranslate2,
}


def pin_to(core: int) -> int | None:
    """Keep this process on one of the cores it may use (counted from 0); the core's number, None where that is not possible."""
    try:
        mine = sorted(os.sched_getaffinity(0))
        if core >= len(mine):
            return None
        os.sched_setaffinity(0, {mine[core]})
    except (AttributeError, OSError):
        return None
    return mine[core]
