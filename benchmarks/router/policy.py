"""A busy endpoint: 32 experiments in 8 layers, every bucket of every layer taken, one layer choosing between two versions."""

from __future__ import annotations

from typing import Any

__all__ = ["DIGESTS", "ENDPOINT", "LAYERS", "PER_LAYER", "snapshot"]

ENDPOINT = "feed"
LAYERS, PER_LAYER = 8, 4
DIGESTS = {"feed/1": "11" * 32, "feed/2": "22" * 32}


def snapshot(upstream: str, *, experiments: bool = True, log: bool = True) -> dict[str, Any]:
    """What the control plane would say, with the stub as the only server."""
    layers, running = _experiments() if experiments else ({}, {})
    endpoint = {
        "model": "feed", "alias": "champion", "version": 1, "digest": DIGESTS["feed/1"], "previous": None,
        "signature": None, "preprocess": None, "policy": {}, "unit": "user_id", "canary": None, "shadows": [],
        "log": {"rate": 10_000 if log else 0, "data_class": "internal", "retention_days": 30, "bodies": False},
        "limits": {"concurrency": 0},
    }  # fmt: skip
    policy = {
        "endpoints": {ENDPOINT: endpoint},
        "versions": {key: {"digest": digest, "preprocess": None} for key, digest in DIGESTS.items()},
        "layers": layers, "experiments": running, "holdouts": {},
        "kill": {"experiments": False, "canaries": False, "shadows": False, "endpoints": []},
    }  # fmt: skip
    servers = {"stub": {"http": upstream, "grpc": upstream, "ready": dict(DIGESTS)}}
    return {"schema": 2, "generation": 1, "digest": "", "policy": policy, "servers": servers}


def _experiments() -> tuple[dict[str, Any], dict[str, Any]]:
    """Layers and experiments."""
    layers = {f"layer-{at}": {"unit": "user_id", "salt": f"layer/layer-{at}/1"} for at in range(LAYERS)}
    width = 10_000 // PER_LAYER
    experiments: dict[str, Any] = {}
    for at in range(LAYERS):
        for number in range(PER_LAYER):
            name = f"experiment-{at}-{number}"
            refs = ("feed/1", "feed/2") if at == 0 else (None, None)
            arms = [
                {"name": arm, "weight": 5_000, "ref": ref, "params": {} if at == 0 else {f"p{at}-{number}": arm}}
                for arm, ref in zip(("control", "new"), refs, strict=True)
            ]
            experiments[name] = {
                "layer": f"layer-{at}", "endpoint": ENDPOINT, "salt": f"experiment/{name}/1",
                "ranges": [[number * width, (number + 1) * width]], "arms": arms, "targeting": {},
            }  # fmt: skip
    return layers, experiments
