"""Ray Serve with `@serve.batch`.

As its documentation has it (docs.ray.io: dynamic request batching, performance tuning): the batched method is async, the batch
waits 10 ms at most (the default), `max_ongoing_requests` is above the batch so that a next one can form, one replica with one CPU
per core, OMP_NUM_THREADS set, access logs off. The dashboard is off.
"""

from __future__ import annotations

import json

from ..server import HERE, Job, Launch, Peer, interpreter

__all__ = ["PEER"]


def launch(job: Job) -> Launch:
    env = {
        "PYTHONPATH": str(HERE),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DISABLE_IMPORT_WARNING": "1",
        "RAY_SERVE_LOG_TO_STDERR": "0",
    }
    return Launch([[str(interpreter("main")), str(HERE / "ray_serve" / "app.py")]], env, "/classify")


PEER = Peer(
    name="ray-serve",
    settings="@serve.batch(max_batch_size 8, wait 10 ms), a replica per core, max_ongoing_requests 64, HF pipeline",
    launch=launch,
    body=lambda text: json.dumps({"text": text}).encode(),
    label=lambda answer: str(json.loads(answer)["label"]),
    engine=True,
)
