"""The engines of a text model: token ids in, logits out, on one thread, for rows of any lengths.

Every engine has the same face, whatever library computes. What a plan prefers may not run here (another processor, a library
or a file that is missing): then the next one does, and says so. Stands alone because Triton's stub and the optimiser share it.
"""

from __future__ import annotations

import os
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Calculate = Callable[[Any, Any], Any]  # ids [B, L], mask [B, L] (both int64) to logits
#: The file that makes a folder one of the runtime's.
FILES = {"openvino": "model.xml", "onnxruntime": "model.onnx", "ctranslate2": "model.bin"}
HEAD = "head.npz"

# The grid of an engine that prepares every shape anew (OpenVINO on CPU: 4 to 40 ms and about 2 MB each): fine enough that
# little is padded, coarse enough that all of it is prepared in seconds.
MIN_WIDTH = 4
WIDTH_STEPS = ((32, 2), (64, 4), (128, 8), (512, 16))  # up to this width, in steps of
ROW_COUNTS = (1, 2, 3, 4, 5, 6, 8, 12, 16)
LIKELY = (1, 2, 4, 3, 8, 6, 5, 12, 16)  # the order of warm-up
FEW_TOKENS = 384  # the largest row counts only for short rows: beyond this a larger call gains little
MOST_ROWS = 64
WARM_UP_S = 20.0


class EngineError(RuntimeError):
    """An engine cannot run here; the message says why."""


class Engine:
    """One opened engine. Not for several threads at once: each instance has its own."""

    def __init__(self, engine: Any, plan: Any, calculate: Calculate) -> None:
        self.name: str = engine.name
        self.grid = Grid.of(engine, plan)
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
        for members in form_calls([len(row) for row in rows], self.grid):
            shape = self.grid.shape(len(members), max(len(rows[i]) for i in members))
            logits = self.call(*pad([rows[i] for i in members], self._pad_id, shape))
            for line, i in zip(logits, members):  # noqa: B905 - what is beyond the members is padding
                answers[i] = line[: len(rows[i])] if self._per_token else line
        return answers

    def try_out(self) -> None:
        """One row of every bucket: a library that opens a file may still be unable to compute it here."""
        for bucket in self.grid.buckets:
            self.call(*pad([np.full(bucket, self._pad_id, dtype=np.int32)], self._pad_id))

    def warm_up(self, seconds: float = WARM_UP_S) -> tuple[int, int]:
        """Compute the shapes of the grid once, the likely ones first, for so much CPU time; how many of how many.

        A first call of a shape takes up to 40 ms longer and keeps some megabytes: both belong before the first request.
        """
        shapes, started = self.grid.shapes(), time.process_time()
        for done, (rows, width) in enumerate(shapes):
            if time.process_time() - started > seconds:
                return done, len(shapes)
            self.call(*pad([np.full(width, self._pad_id, dtype=np.int32)], self._pad_id, (rows, width)))
        return len(shapes), len(shapes)


class Grid(NamedTuple):
    """The shapes of an engine's calls. `coarse`: of few widths and row counts, for a library that prepares every shape anew."""

    buckets: tuple[int, ...]
    batch_tokens: int
    call_us: float
    token_us: float
    coarse: bool

    @classmethod
    def of(cls, engine: Any, plan: Any) -> Grid:
        buckets = tuple(int(upper) for upper in plan.buckets)
        cost = engine.cost
        return cls(buckets, int(plan.batch_tokens), cost.call_us, cost.token_us, engine.runtime == "openvino")

    def width(self, length: int) -> int:
        """What a row of this length is padded to, when it is the longest of its call."""
        if not self.coarse:
            return length
        step = next((step for upto, step in WIDTH_STEPS if length <= upto), WIDTH_STEPS[-1][1])
        return min(max(-(-length // step) * step, MIN_WIDTH), self.buckets[-1])

    def rows(self, count: int, width: int) -> int | None:
        """How many rows a call for `count` of them has; None: more than one call should have."""
        if count == 1:
            return 1  # whatever its length
        if not self.coarse:
            return count if count <= MOST_ROWS and count * width <= self.batch_tokens else None
        return next((n for n in self._row_counts(width) if n >= count), None)

    def shape(self, count: int, longest: int) -> tuple[int, int]:
        width = self.width(longest)
        return self.rows(count, width) or count, width

    def us(self, rows: int, width: int) -> float:
        return self.call_us + self.token_us * rows * width

    def shapes(self) -> list[tuple[int, int]]:
        """All shapes of a coarse grid, (rows, width), those that come most often first; of another one, one of each bucket."""
        if not self.coarse:
            return [(1, bucket) for bucket in self.buckets]
        widths = sorted({self.width(length) for length in range(1, self.buckets[-1] + 1)})
        every = [(rows, width) for width in widths for rows in self._row_counts(width)]
        return sorted(every, key=lambda shape: (LIKELY.index(shape[0]), shape[1]))

    def _row_counts(self, width: int) -> list[int]:
        return [
            n for n in ROW_COUNTS if n == 1 or n * width <= min(self.batch_tokens, FEW_TOKENS if n > 8 else 1 << 30)
        ]


def form_calls(lengths: Sequence[int], grid: Grid) -> list[list[int]]:
    """Rows (by index) of each call: of one bucket, at most `batch_tokens` when padded, at the least expected time in all.

    Neighbours of similar length travel together. A row that alone has more tokens than a call should is a call of its own.
    """
    order = sorted(
        range(len(lengths)), key=lambda i: -lengths[i]
    )  # longest first: the first row of a call is its width
    calls: list[list[int]] = []
    start = 0
    while start < len(order):
        bucket = _bucket(grid.buckets, lengths[order[start]])
        end = start + 1
        while end < len(order) and _bucket(grid.buckets, lengths[order[end]]) == bucket:
            end += 1
        cuts = _cut([grid.width(lengths[i]) for i in order[start:end]], grid)
        calls += [order[start + left : start + right] for left, right in pairwise(cuts)]
        start = end
    return calls


def _cut(widths: Sequence[int], grid: Grid) -> list[int]:
    """Where to cut rows of falling widths into calls, so that their times add up to the least."""
    least = [0.0]
    before = [0]
    for end in range(1, len(widths) + 1):
        best, cut = float("inf"), end - 1
        for start in range(end - 1, -1, -1):
            rows = grid.rows(end - start, widths[start])
            if rows is None:
                break
            time_us = least[start] + grid.us(rows, widths[start])
            if time_us <= best:  # of equals the longest call
                best, cut = time_us, start
        least.append(best)
        before.append(cut)
    cuts = [len(widths)]
    while cuts[-1] > 0:
        cuts.append(before[cuts[-1]])
    return cuts[::-1]


def _bucket(buckets: Sequence[int], length: int) -> int:
    if not 0 < length <= buckets[-1]:
        raise ValueError(f"a row of {length} tokens: a model of max_length {buckets[-1]} takes 1 to that many")
    return bisect_left(buckets, length)


def pad(rows: Sequence[Any], pad_id: int, shape: tuple[int, int] | None = None) -> tuple[Any, Any]:
    """Ids and mask, int64 [B, L]; left out, the shape is just as large as the rows need."""
    shape = shape or (len(rows), max(len(row) for row in rows))
    ids: Any = np.full(shape, pad_id, dtype=np.int64)
    mask: Any = np.zeros(shape, dtype=np.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
        mask[i, : len(row)] = 1
    mask[len(rows) :, 0] = (
        1  # a row that attends to nothing has no defined answer, and could slow down by its infinities
    )
    return ids, mask


def first_that_opens(plan: Any, folder: Path, flags: Iterable[str], log: Callable[[str], None]) -> Engine:
    """The first engine of the plan that this machine can run, opened and tried; every one passed over is said to `log`.

    `folder` is the package's `model` folder. Raises EngineError with all reasons when none opens.
    """
    present = frozenset(flags)
    reasons: list[str] = []
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
    return Engine(engine, plan, calculate)


# -- the libraries ------------------------------------------------------------------------------------------------------


def _openvino(engine: Any, place: Path, plan: Any, threads: int) -> Calculate:
    import openvino

    core = openvino.Core()
    settings: dict[str, Any] = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        # The process is pinned, or not, as a whole; the library would choose among all cores.
        "ENABLE_CPU_PINNING": False,
        # What it prepares for a shape must still be there when the shape comes again: room for the whole grid.
        "CPU_RUNTIME_CACHE_CAPACITY": 20_000,
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
