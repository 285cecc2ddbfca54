"""infinity-emb's classify endpoint, PyTorch engine.

As its command line has it: batches of 8 (as for the other pipelines, see classifier.py; it sorts what waits by length), fp32, no
BetterTransformer (there is none for this transformers version), no torch.compile (no gain on dynamic shapes on CPU), lengths not
counted by a second tokenisation, and no cache on the disk, because no other peer has one. It has one process: on CPU more devices
are "for debugging, not for performance" in its own words, so that process has a thread per core. They sleep while they wait:
spinning they took twice the CPU time of everybody else, from the core that answers.
"""

from __future__ import annotations

import json

from ..server import Job, Launch, Peer, interpreter

__all__ = ["PEER"]


def launch(job: Job) -> Launch:
    program = interpreter("main").with_name("infinity_emb")
    command = [
        str(program), "v2", "--model-id", str(job.checkpoint), "--served-model-name", "model", "--engine", "torch",
        "--device", "cpu", "--dtype", "float32", "--batch-size", "8", "--no-bettertransformer", "--no-compile",
        "--no-lengths-via-tokenize", "--no-vector-disk-cache", "--no-model-warmup", "--log-level", "error",
        "--host", "127.0.0.1", "--port", str(job.port),
    ]  # fmt: skip
    env = {"INFINITY_ANONYMOUS_USAGE_STATS": "0", "DO_NOT_TRACK": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    return Launch([command], env, "/classify", threads=job.workers)


def best(answer: bytes) -> str:
    """All labels come, the best first."""
    return str(max(json.loads(answer)["data"][0], key=lambda found: found["score"])["label"])


PEER = Peer(
    name="infinity",
    settings="--engine torch --batch-size 8 --no-compile, one process with a thread per core",
    launch=launch,
    body=lambda text: json.dumps({"model": "model", "input": [text]}).encode(),
    label=best,
)
