"""Format text-cpu: token ids to logits for doors, TEXT to the signature's outputs for everybody else.

A door tokenises, forms batches of similar length and asks with IDS and LENGTHS; it gets LOGITS. Who asks Triton directly (and
the known-answer check) sends TEXT through the public model. Both go through the same engine, together in one batch.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rml_text_engines
import rml_text_heads
import rml_text_plan
from rml_backend import BadInput, as_bytes, check_numpy, describe
from rml_text_tokens import Tokens, as_text


class Asked(NamedTuple):
    """One request: its rows of token ids, and the texts they came from (None: it came as ids and gets logits)."""

    rows: list[Any]
    texts: list[str] | None
    encoded: list[Any]


class TritonPythonModel:
    def initialize(self, args: Mapping[str, str]) -> None:
        check_numpy(np.__version__)
        config = json.loads(args["model_config"])
        parameters = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
        instance = args.get("model_instance_name", "")
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # an instance has one core
        pinned = pin(instance, parameters)
        model = Path(args["model_repository"]) / str(args["model_version"]) / "package" / "model"
        self.plan = rml_text_plan.read_plan((model / "text.json").read_bytes())
        self.tokens = Tokens((model / "tokenizer.json").read_text(encoding="utf-8"), self.plan)
        say = teller(instance)
        self.engine = rml_text_engines.first_that_opens(self.plan, model, rml_text_plan.cpu_flags(), say)
        say(f"engine {self.engine.name}" + (f" on core {pinned}" if pinned is not None else ""), warn=False)
        started = time.monotonic()
        warm, shapes = self.engine.warm_up()
        say(f"warmed up {warm} of {shapes} shapes in {time.monotonic() - started:.1f} s", warn=warm < shapes)
        self.gauge = count_engine(str(args["model_name"]), self.engine.name, self.plan.engines[0].name)

    def finalize(self) -> None:
        if self.gauge is not None:
            self.gauge[1].increment(-1)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        import triton_python_backend_utils as pb

        asked: list[Asked | Exception] = []
        for request in requests:
            try:
                asked.append(self.read(pb, request))
            except BadInput as error:
                asked.append(error)
        responses = []
        for answer in self.answer(asked):
            if isinstance(answer, Exception):
                code = pb.TritonError.INVALID_ARG if isinstance(answer, BadInput) else pb.TritonError.INTERNAL
                responses.append(pb.InferenceResponse(output_tensors=[], error=pb.TritonError(describe(answer), code)))
            else:
                tensors = [pb.Tensor(name, array[None]) for name, array in answer.items()]
                responses.append(pb.InferenceResponse(output_tensors=tensors))
        return responses

    def read(self, pb: Any, request: Any) -> Asked:
        ids = pb.get_input_tensor_by_name(request, "IDS")
        if ids is not None:
            lengths = pb.get_input_tensor_by_name(request, "LENGTHS")
            if lengths is None:
                raise BadInput("input 'LENGTHS' is missing: how many of IDS belong to each row")
            return Asked(split(ids.as_numpy(), lengths.as_numpy(), self.plan.max_length), None, [])
        texts = pb.get_input_tensor_by_name(request, "TEXT")
        if texts is None:
            raise BadInput("send TEXT, or IDS and LENGTHS")
        return self.tokenised(texts.as_numpy())

    def tokenised(self, array: Any) -> Asked:
        if array.ndim != 2 or array.shape[0] != 1:
            raise BadInput(f"input 'TEXT' has shape {list(array.shape)}: ask the model without the suffix .batch")
        texts = [as_text(value if isinstance(value, bytes) else str(value)) for value in array[0]]
        encoded = self.tokens.encode(texts)
        return Asked([np.frombuffer(row.ids, dtype="<i4") for row in encoded], texts, encoded)

    def answer(self, asked: Sequence[Asked | Exception]) -> list[Any]:
        """Outputs by name (or the exception) per request. Should the batch fail, each is tried alone: it fails nobody else's."""
        answers: list[Any] = list(asked)
        good = [i for i, request in enumerate(asked) if isinstance(request, Asked)]
        try:
            found = self.together([answers[i] for i in good])
        except Exception as error:
            found = [error] if len(good) == 1 else [self.alone(answers[i]) for i in good]
        for i, outputs in zip(good, found):  # noqa: B905 - the same length by construction
            answers[i] = outputs
        return answers

    def alone(self, asked: Asked) -> Any:
        try:
            return self.together([asked])[0]
        except Exception as error:
            return error

    def together(self, asked: Sequence[Asked]) -> list[Any]:
        logits = iter(self.engine.run([row for request in asked for row in request.rows]))
        return [self.outputs(request, [next(logits) for _ in request.rows]) for request in asked]

    def outputs(self, asked: Asked, logits: list[Any]) -> dict[str, Any]:
        labels = self.plan.labels
        if asked.texts is None:
            lines = logits if self.plan.task == "sequence" else [line for row in logits for line in row]
            return {"LOGITS": np.stack(lines) if lines else np.empty((0, len(labels)), dtype=np.float32)}
        if self.plan.task == "token":
            found = [
                rml_text_heads.entities_json(row, encoded.offsets, text, labels)
                for row, encoded, text in zip(logits, asked.encoded, asked.texts)  # noqa: B905 - made together
            ]
            return {"entities": objects(found)}
        if not logits:
            return {"label": objects([]), "scores": np.empty((0, len(labels)), dtype=np.float32)}
        scores = rml_text_heads.softmax(np.stack(logits))
        return {"label": as_bytes(objects(rml_text_heads.best(scores, labels))), "scores": scores}


def split(ids: Any, lengths: Any, longest: int) -> list[Any]:
    """The rows of a request that came as token ids."""
    if ids.ndim != 2 or ids.shape[0] != 1 or lengths.ndim != 2 or lengths.shape[0] != 1:
        raise BadInput(
            f"IDS and LENGTHS have shapes {list(ids.shape)} and {list(lengths.shape)}: send [1, tokens], [1, rows]"
        )
    flat, counts = ids[0], lengths[0]
    ends = np.cumsum(counts, dtype=np.int64)
    if len(counts) == 0:
        if len(flat):
            raise BadInput(f"LENGTHS is empty, IDS has {len(flat)} tokens")
        return []
    if counts.min() < 1 or counts.max() > longest or ends[-1] != len(flat):
        raise BadInput(f"LENGTHS must be 1 to {longest} each and add up to the {len(flat)} tokens of IDS")
    return [flat[end - count : end] for end, count in zip(ends, counts)]  # noqa: B905 - made together


def objects(values: Sequence[Any]) -> Any:
    """An object array: texts as Triton takes them."""
    array: Any = np.empty(len(values), dtype=np.object_)
    for i, value in enumerate(values):
        array[i] = value
    return array


def pin(instance: str, parameters: Mapping[str, str]) -> int | None:
    """Each instance on a core of its own where the configuration says so: their caches stay warm and nobody moves."""
    if parameters.get("rml.pin") != "cores":
        return None
    number = instance.rpartition("_")[2]
    return rml_text_engines.pin_to(int(number)) if number.isdigit() else None


def teller(instance: str) -> Any:
    """Says something in Triton's log."""
    import triton_python_backend_utils as pb

    def say(text: str, warn: bool = True) -> None:
        (pb.Logger.log_warn if warn else pb.Logger.log_info)(f"{instance}: {text}")

    return say


def count_engine(model: str, engine: str, wanted: str) -> Any:
    """One more instance that runs this engine, in Triton's metrics; None where Triton takes no metrics of ours."""
    import triton_python_backend_utils as pb

    try:
        family = pb.MetricFamily(
            name="rml_text_engine",
            description="Instances by the engine they run and the one their package prefers",
            kind=pb.MetricFamily.GAUGE,
        )
        labels = {"model": model.rpartition(".batch")[0] or model, "engine": engine, "wanted": wanted}
        metric = family.Metric(labels=labels)
        metric.increment(1)
    except Exception as error:
        pb.Logger.log_warn(f"{model}: no metric of its engine: {error}")
        return None
    return family, metric
