"""What the demo asks of a live endpoint: do all doors lead to the same model, is it better, how quickly does it answer."""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
from scoring import Difference, macro_f1, paired_bootstrap

__all__ = ["Checks", "ask"]

LABELS = ["negative", "neutral", "positive"]
BATCH = 32
CHUNK = 640
SAMPLE = 128
SECONDS = 15
REQUESTS = 500
TOLERANCE = 1e-4
GAIN = 0.05
CURL_TEXTS = ["gg, well played!", "The update broke my save, thanks for nothing.", "The bus leaves at nine."]


@dataclass(slots=True)
class Checks:
    """What came out; `problems` is empty when every target is met."""

    f1: dict[str, float]
    per_source: dict[str, dict[str, float]]
    better: str
    gain: Difference
    furthest: dict[str, float]
    latency_ms: dict[str, tuple[float, float]]
    texts: int
    held_out: int
    curl: str
    problems: list[str] = field(default_factory=list)


def ask(endpoint: Any, local: Any, answers: Any, say: Callable[[str], None]) -> Checks:
    """Ask the endpoint everything. `local` is the same version in this process, `answers` the held-out texts and labels."""
    texts = list(answers["text"])
    problems: list[str] = []
    tolerance = _tolerance(local)
    curl, by_curl = _curl(endpoint, say)
    furthest = {}
    if by_curl is not None:
        furthest["curl"] = _apart(by_curl, local.predict(CURL_TEXTS)["scores"])

    some = texts[:: max(1, len(texts) // SAMPLE)][:SAMPLE]
    say(f"{len(some)} held-out texts over REST, over gRPC and in this process")
    here = local.predict(some)["scores"]
    furthest |= {
        "REST": _apart(endpoint.predict(some).scores, here),
        "gRPC": _apart(endpoint.grpc.predict(some).scores, here),
    }
    say("largest difference to the model in this process: " + ", ".join(f"{k} {v:.1e}" for k, v in furthest.items()))
    problems += [
        f"{way} is {off:.1e} away from the model in this process" for way, off in furthest.items() if off > tolerance
    ]

    asked = _held_out(endpoint, answers)
    say(f"{len(asked)} of {len(answers)} held-out texts answered through the door, {BATCH} a request")
    names = {"door": "MiniLM, through the door", "tfidf": "TF-IDF + LR", "vader": "VADER"}
    f1 = {name: macro_f1(asked["label"], asked[name], LABELS) for name in names}
    per_source = {
        source: {name: macro_f1(part["label"], part[name], LABELS) for name in names}
        for source, part in asked.groupby("source", sort=False)
    }
    better = max(("tfidf", "vader"), key=lambda name: f1[name])
    gain = paired_bootstrap(asked["label"], asked["door"], asked[better], asked["document"], LABELS)
    if gain.gain < GAIN:
        problems.append(
            f"macro-F1 is {100 * gain.gain:.1f} points against {names[better]}; at least {100 * GAIN:.0f} were promised"
        )
    if gain.low <= 0:
        problems.append(f"the interval of that gain reaches down to {100 * gain.low:.1f} points")

    latency = {
        "REST": _latency(_rest_one(endpoint), texts),
        "gRPC": _latency(lambda text: endpoint.grpc.predict([text]), texts),
    }
    return Checks(f1, per_source, better, gain, furthest, latency, len(asked), len(answers), curl, problems)


def _tolerance(local: Any) -> float:
    """How far two answers of this model may be apart: what its engine is stated to vary with the texts beside a text."""
    plan = local.package.root / "model" / "text.json"
    if not plan.is_file():
        return TOLERANCE
    return max(TOLERANCE, float(json.loads(plan.read_text("utf-8"))["engines"][0]["bound"]))


def _curl(endpoint: Any, say: Callable[[str], None]) -> tuple[str, Any]:
    """A real curl, as anybody would type it; (the command, the scores)."""
    tensor = {"name": "TEXT", "shape": [len(CURL_TEXTS)], "datatype": "BYTES", "data": CURL_TEXTS}
    command = ["curl", "-sS", "--fail-with-body", endpoint.url, "-H", "content-type: application/json"]
    command += ["-d", json.dumps({"inputs": [tensor]}, ensure_ascii=False)]
    if shutil.which("curl") is None:
        say("curl is not installed here: that check is left out")
        return "", None
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise SystemExit(f"curl failed: {done.stderr}{done.stdout}")
    outputs = {output["name"]: output for output in json.loads(done.stdout)["outputs"]}
    for text, label in zip(CURL_TEXTS, outputs["label"]["data"], strict=True):
        say(f"curl: {text!r} → [bold]{label}[/bold]")
    return f"curl -s {endpoint.url}", np.array(outputs["scores"]["data"]).reshape(outputs["scores"]["shape"])


def _held_out(endpoint: Any, answers: Any) -> Any:
    """The held-out texts with the endpoint's labels: all of them, or those of the first SECONDS where the machine is slow.

    They come in a fixed random order, so that a part of them is a fair sample; within a chunk by length, to pad little.
    """
    order = np.random.default_rng(0).permutation(len(answers))
    begin = time.monotonic()
    chunks = []
    for start in range(0, len(order), CHUNK):
        chunk = answers.iloc[order[start : start + CHUNK]]
        chunk = chunk.iloc[np.argsort(chunk["text"].str.len(), kind="stable")]
        labels = [endpoint.predict(list(chunk["text"][i : i + BATCH])).labels for i in range(0, len(chunk), BATCH)]
        chunks.append(chunk.assign(door=np.concatenate(labels)))
        if time.monotonic() - begin > SECONDS:
            break
    return pd.concat(chunks)


def _apart(one: Any, other: Any) -> float:
    return float(np.abs(np.asarray(one) - np.asarray(other)).max())


def _rest_one(endpoint: Any) -> Callable[[str], None]:
    """One text over a connection that stays open, with nothing of the SDK between the clock and the socket."""
    parts = urlsplit(endpoint.url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=30)

    def one(text: str) -> None:
        tensor = {"name": "TEXT", "shape": [1], "datatype": "BYTES", "data": [text]}
        connection.request("POST", parts.path, json.dumps({"inputs": [tensor]}), {"content-type": "application/json"})
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise SystemExit(f"the endpoint answered {answer.status}: {body[:300]!r}")

    return one


def _latency(one: Callable[[str], Any], texts: list[str]) -> tuple[float, float]:
    """(p50, p99) in milliseconds of REQUESTS single texts, one after another."""
    for text in texts[:20]:
        one(text)
    took = []
    for i in range(REQUESTS):
        begin = time.perf_counter()
        one(texts[i * 7 % len(texts)])
        took.append(1000 * (time.perf_counter() - begin))
    p50, p99 = np.quantile(took, [0.5, 0.99])
    return float(p50), float(p99)
