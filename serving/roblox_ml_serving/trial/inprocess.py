"""`python -m roblox_ml_serving.trial.inprocess`: one single-threaded worker that computes without any server.

Reads one JSON command a line and answers each with one line: `load` a scenario, `run` it for some seconds. Several scenarios
live in one process, so that rounds can take turns without loading anything again.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["main"]

# Computes some texts one after another or together; returns their logits.
Compute = Callable[[Sequence[str]], Any]


def torch_model(command: dict[str, Any]) -> Compute:
    """The article's model: weights of the given checkpoint, or random ones of the shape (then only speed means something)."""
    import torch
    from tokenizers import Tokenizer

    torch.set_num_threads(1)
    model = (
        _checkpoint(command) if command.get("checkpoint") else _shaped(int(command["layers"]), int(command["vocab"]))
    )
    model.eval()
    if command["int8"]:
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.ao is deprecated; it is what the article used
            model = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
    tokenizer = Tokenizer.from_file(command["tokenizer"])
    pad, limit = int(command["pad"]), int(command["max_length"])
    tokenizer.enable_truncation(pad or limit)
    tokenizer.no_padding()
    if command["device"] != "cpu":
        model = model.to(command["device"]).half()
    cache: dict[tuple[int, ...], Any] | None = {} if command["cache_share"] else None

    def logits(rows: Sequence[Sequence[int]]) -> Any:
        width = max(pad, *(len(row) for row in rows), 1)
        ids = torch.zeros((len(rows), width), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
            mask[i, : len(row)] = 1
        with torch.inference_mode():
            given = {"input_ids": ids.to(command["device"]), "attention_mask": mask.to(command["device"])}
            return model(**given).logits.float().cpu().numpy()

    def compute(texts: Sequence[str]) -> Any:
        if int(command["batch"]) > 1:
            return logits([row.ids for row in tokenizer.encode_batch_fast(list(texts))])
        answers = []
        for text in texts:
            row = tokenizer.encode(text).ids
            key = tuple(row)
            if cache is not None and key in cache:
                answers.append(cache[key])
                continue
            answers.append(logits([row])[0])
            if cache is not None:
                cache[key] = answers[-1]
        return answers

    return compute


def _shaped(layers: int, vocab: int) -> Any:
    import torch
    from transformers import BertConfig, BertForSequenceClassification, DistilBertConfig
    from transformers import DistilBertForSequenceClassification as Distil

    torch.manual_seed(0)
    if layers == 6:
        return Distil(DistilBertConfig(vocab_size=vocab, n_layers=layers, num_labels=3))
    return BertForSequenceClassification(BertConfig(vocab_size=vocab, num_hidden_layers=layers, num_labels=3))


def _checkpoint(command: dict[str, Any]) -> Any:
    from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

    family = AutoModelForTokenClassification if command.get("task") == "token" else AutoModelForSequenceClassification
    return family.from_pretrained(command["checkpoint"])


def engine_model(command: dict[str, Any]) -> Compute:
    """The plan's engine, in the very code that the Triton model runs."""
    import numpy as np

    engine, tokens = _opened(command["folder"], command["engine"])

    def rows_of(texts: Sequence[str]) -> list[Any]:
        return [np.frombuffer(encoded.ids, dtype="<i4") for encoded in tokens.encode(texts)]

    made: dict[str, Any] = {}
    if not command["tokenise"]:  # the engine alone: token ids are made before the clock starts
        made.update(zip(command["texts"], rows_of(command["texts"]), strict=True))

    def compute(texts: Sequence[str]) -> Any:
        return engine.run([made[text] for text in texts] if made else rows_of(texts))

    compute.engine = engine.name  # type: ignore[attr-defined]
    return compute


@cache
def _opened(folder: str, name: str) -> tuple[Any, Any]:
    """An engine, warmed up as in a server, and its tokenizer: once per process, whatever scenarios use it."""
    from ..backends.rml_text_engines import first_that_opens, open_engine
    from ..backends.rml_text_plan import cpu_flags, read_plan
    from ..backends.rml_text_tokens import Tokens

    place = Path(folder)
    plan = read_plan((place / "text.json").read_bytes())
    if name:
        named = {entry.name: entry for entry in plan.engines}
        if name not in named:
            raise ValueError(f"{name} is none of {', '.join(named)}")
        engine = open_engine(named[name], place, plan, threads=1)
    else:
        engine = first_that_opens(plan, place, cpu_flags(), lambda said: print(said, file=sys.stderr))
    engine.warm_up()
    return engine, Tokens((place / "tokenizer.json").read_text("utf-8"), plan)


class Worker:
    """The scenarios of one process."""

    def __init__(self) -> None:
        self._loaded: dict[str, tuple[Compute, list[str], int]] = {}
        self._turn: dict[str, int] = {}

    def load(self, command: dict[str, Any]) -> dict[str, Any]:
        started = time.perf_counter()
        compute = (torch_model if command["kind"] == "torch" else engine_model)(command)
        name, texts, batch = command["name"], list(command["texts"]), int(command["batch"])
        self._loaded[name] = compute, texts, batch
        self._turn[name] = int(command["start"])
        known = command.get("known") or []
        for text in known:  # what a cache knows before the clock starts
            compute([text])
        compute(texts[: max(2, batch)])
        return {"seconds": time.perf_counter() - started, "engine": getattr(compute, "engine", "")}

    def run(self, command: dict[str, Any]) -> dict[str, Any]:
        compute, texts, batch = self._loaded[command["name"]]
        turn = self._turn[command["name"]]
        latencies: list[float] = []
        clock = time.perf_counter
        cpu, started = time.process_time(), clock()
        until = started + float(command["seconds"])
        most = command.get("requests") or 1 << 60
        while (sent := clock()) < until and len(latencies) < most:
            chosen = [texts[(turn + i) % len(texts)] for i in range(batch)]
            turn += batch
            compute(chosen)
            latencies.append((clock() - sent) * 1e3)
        self._turn[command["name"]] = turn
        return {
            "inferences": len(latencies) * batch,
            "seconds": clock() - started,
            "cpu_s": time.process_time() - cpu,
            "latencies_ms": [round(value, 4) for value in latencies],
        }


def main() -> int:
    """Answer commands until the input ends."""
    if (core := os.environ.get("RML_TRIAL_CORE")) is not None:
        os.sched_setaffinity(0, {int(core)})
    worker = Worker()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # libraries that print must not break the protocol
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = worker.load(command) if command["do"] == "load" else worker.run(command)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
