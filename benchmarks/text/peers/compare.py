"""Ours and the peers in the same rounds: started, asked, stopped, one after the other; medians over the rounds.

Only one server is up at a time, so none takes another's core, and every round starts all of them anew. Every other round goes
the other way round. All texts are within the model's limit, where no server truncates. What a peer answers is compared with the
fp32 model's labels: nobody is quick with rubbish.
"""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from roblox_ml_core.errors import RmlError
from roblox_ml_serving.trial import LoadResult, Traffic, TrialStack, closed_loop, rest_texts
from roblox_ml_serving.trial.load import LoadFailed
from roblox_ml_serving.trial.served import PLAIN, policies, turned

from ..ours import Optimised
from . import bento, infinity, mlserver_hf, ray_serve, seed, triton_hf
from .server import TORCH, Peer, PeerFailed, Server

__all__ = ["OURS", "PEERS", "SAME_ENGINE", "Contestant", "compare", "measure", "ratios"]

PEERS = (triton_hf.PEER, mlserver_hf.PEER, bento.PEER, ray_serve.PEER, infinity.PEER, seed.PEER)
OURS = "ours"
SAME_ENGINE = " + our engine"
CHECKED, TEXTS = 50, 2000
Say = Callable[[str], None]


class Running(Protocol):
    """A server that is up."""

    def traffic(self, texts: Sequence[str]) -> Traffic: ...
    def cpu_seconds(self) -> dict[str, float]: ...


@dataclass(slots=True)
class Contestant:
    """One row of the table, and what was seen of it."""

    name: str
    kind: str  # "ours", "default", "seed", "same_engine"
    settings: str
    start: Callable[[], AbstractContextManager[Running]]
    label: Callable[[bytes], str]
    width: int = 0
    agreement: float = 0.0
    error: str = ""
    seen: list[LoadResult] = field(default_factory=list)

    def row(self) -> dict[str, Any]:
        def median(value: Callable[[LoadResult], float]) -> float:
            return statistics.median(value(result) for result in self.seen) if self.seen else 0.0

        return {
            "peer": self.name,
            "kind": self.kind,
            "default": self.kind == "default",
            "requests_per_s": median(lambda r: r.per_second),
            "cpu_ms_per_inference": median(lambda r: r.cpu_ms_per_inference),
            "p50_ms": median(lambda r: r.p50_ms),
            "p99_ms": median(lambda r: r.p99_ms),
            "workers": self.width,
            "failed": sum(result.failed for result in self.seen),
            "agreement": self.agreement,
            "rounds": [result.per_second for result in self.seen],
            "settings": self.settings,
            "error": self.error,
        }


class Ours:
    """A trial's Triton and door, cache off, asked as everybody is."""

    def __init__(self, package: Path) -> None:
        self._stack = TrialStack({PLAIN: package}, policy={PLAIN: policies()[PLAIN]})

    def __enter__(self) -> Ours:
        self._stack.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.close()

    def traffic(self, texts: Sequence[str]) -> Traffic:
        return rest_texts(self._stack.rest, PLAIN, texts)

    def cpu_seconds(self) -> dict[str, float]:
        return self._stack.cpu_seconds()

    @staticmethod
    def label(answer: bytes) -> str:
        outputs = {output["name"]: output["data"] for output in json.loads(answer)["outputs"]}
        return str(outputs["label"][0])


def compare(
    ours: Optimised, texts: Sequence[str], say: Say, *, rounds: int = 3, seconds: float = 4.0
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Rows for the table and the ratios by their public names."""
    rows = measure(ours.checkpoint, ours.package, texts, rounds=rounds, seconds=seconds, say=say)
    found = ratios(rows)
    for line in table(rows):
        say(line)
    return rows, found


def measure(
    checkpoint: Path,
    package: Path,
    texts: Sequence[str],
    *,
    rounds: int = 3,
    seconds: float = 4.0,
    workers: Sequence[int] = (16, 32),
    only: Sequence[str] = (),
    say: Say = print,
) -> list[dict[str, Any]]:
    """One row for each contestant (`only`: of these names), ours among them."""
    chosen = [one for one in contestants(checkpoint, package) if not only or one.name in only]
    asked = within_limit(package / "model", texts)[:TEXTS]
    truth = fp32_labels(checkpoint, asked[:CHECKED])
    for number in range(rounds):
        for one in chosen if number % 2 == 0 else reversed(chosen):
            if one.error:
                continue
            try:
                with one.start() as server:
                    turn(one, server, asked, truth, number, seconds, workers)
            except (PeerFailed, LoadFailed, RmlError, OSError, ValueError, LookupError) as error:
                one.error = f"{type(error).__name__}: {str(error)[-600:]}"
            if one.error:
                say(f"round {number + 1} of {rounds}: {one.name}: {one.error}")
            else:
                last = one.seen[-1]
                say(
                    f"round {number + 1} of {rounds}: {one.name}: {last.per_second:.1f}/s, "
                    f"{last.cpu_ms_per_inference:.1f} ms of CPU, p50 {last.p50_ms:.0f} ms"
                )
    return [one.row() for one in chosen]


def turn(
    one: Contestant,
    server: Running,
    texts: Sequence[str],
    truth: Sequence[str],
    number: int,
    seconds: float,
    workers: Sequence[int],
) -> None:
    """A round of one: the first also finds how many clients at once bring most, and checks the answers."""
    traffic = server.traffic(texts)
    if not one.width:
        checked = closed_loop(traffic, workers=min(workers), requests=len(truth), keep=len(truth))
        labels = [one.label(answer) for answer in checked.answers]
        one.agreement = sum(a == b for a, b in zip(labels, truth, strict=True)) / len(truth)

    def ask(width: int) -> LoadResult:
        found = closed_loop(
            turned(traffic, 499 * number), workers=width, seconds=seconds, warmup=width, cpu=server.cpu_seconds
        )
        if not found.answered:
            raise PeerFailed(f"{one.name} answered nothing in {seconds:.0f} s: {dict(found.statuses)}")
        return found

    if one.width:
        one.seen.append(ask(one.width))
        return
    tried = {width: ask(width) for width in workers}
    one.width = max(tried, key=lambda width: tried[width].per_second)
    one.seen.append(tried[one.width])


def contestants(checkpoint: Path, package: Path) -> list[Contestant]:
    """Ours, every peer as its documentation has it, and every peer that takes our engine with it."""
    workers = len(os.sched_getaffinity(0))
    found = [Contestant(OURS, "ours", "door and Triton, REST, cache off", lambda: Ours(package), Ours.label)]

    def add(peer: Peer, name: str, kind: str, engine: str, settings: str) -> None:
        found.append(
            Contestant(
                name, kind, settings, lambda: Server(peer, checkpoint, workers=workers, engine=engine), peer.label
            )
        )

    for peer in PEERS:
        add(peer, peer.name, "default" if peer.default else "seed", TORCH, peer.settings)
    for peer in PEERS:
        if peer.engine:
            settings = f"{peer.name} with {preferred(package)} by our engine code, batches of 32"
            add(peer, peer.name + SAME_ENGINE, "same_engine", str(package / "model"), settings)
    return found


def ratios(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Ours by the best of each kind: requests per second, and CPU time per inference the other way round."""
    by_kind: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if not row["error"]:
            by_kind.setdefault(row["kind"], []).append(row)
    if not by_kind.get("ours"):
        return {}
    ours, found = by_kind["ours"][0], {}
    keys = {"default": "best_default_peer", "seed": "seed_recipe", "same_engine": "best_peer_same_engine"}
    for kind, key in keys.items():
        if others := by_kind.get(kind):
            found[f"ratio_rps_vs_{key}"] = ours["requests_per_s"] / max(row["requests_per_s"] for row in others)
            least = min(row["cpu_ms_per_inference"] for row in others)
            found[f"ratio_cpu_vs_{key}"] = least / ours["cpu_ms_per_inference"]
    return found


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines for people."""
    lines = [f"{'server':28} {'/s':>7} {'CPU ms':>7} {'p50 ms':>7} {'p99 ms':>7} {'agree':>6}  settings"]
    for row in sorted(rows, key=lambda row: -row["requests_per_s"]):
        figures = (
            f"{row['requests_per_s']:7.1f} {row['cpu_ms_per_inference']:7.1f} {row['p50_ms']:7.0f} "
            f"{row['p99_ms']:7.0f} {row['agreement']:6.0%}  {row['settings']}"
        )
        lines.append(f"{row['peer']:28} " + (f"not measured: {row['error']}" if row["error"] else figures))
    return lines


def preferred(package: Path) -> str:
    return str(json.loads((package / "model" / "text.json").read_bytes())["engines"][0]["name"])


def within_limit(model: Path, texts: Sequence[str]) -> list[str]:
    """Texts that the model reads to their end."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    limit = int(json.loads((model / "text.json").read_bytes())["max_length"])
    rows = tokenizer.encode_batch_fast(list(texts))
    return [text for text, row in zip(texts, rows, strict=True) if text.strip() and len(row.ids) <= limit]


def fp32_labels(checkpoint: Path, texts: Sequence[str]) -> list[str]:
    """What the checkpoint itself says, one text at a time."""
    import torch
    from tokenizers import Tokenizer
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    tokenizer.no_padding()
    names = model.config.id2label
    with torch.inference_mode():
        rows = [torch.tensor([row.ids]) for row in tokenizer.encode_batch(list(texts))]
        return [str(names[int(model(row).logits.argmax())]) for row in rows]
