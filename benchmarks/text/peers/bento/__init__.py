"""BentoML with adaptive batching.

As its documentation has it (docs.bentoml.com: adaptive batching, workers, concurrency): `batchable=True` with a largest batch and a
latency goal, one worker process per core, `traffic.concurrency` no limit below what clients ask at once.
"""

from __future__ import annotations

import json

from ..server import HERE, Job, Launch, Peer, interpreter

__all__ = ["PEER"]


def launch(job: Job) -> Launch:
    python = interpreter("main")
    command = [str(python), "-m", "bentoml", "serve", "app:Classifier", "--port", str(job.port), "--host", "127.0.0.1"]
    env = {
        "PYTHONPATH": f"{HERE / 'bento'}:{HERE}",
        "BENTOML_HOME": str(job.folder / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "True",
        "PATH": f"{python.parent}:/usr/bin:/bin",
    }
    return Launch([[*command, "--working-dir", str(HERE / "bento")]], env, "/classify")


PEER = Peer(
    name="bentoml",
    settings="@bentoml.api(batchable, max_batch_size 8, max_latency_ms 10,000), a worker per core, HF pipeline",
    launch=launch,
    body=lambda text: json.dumps({"texts": [text]}).encode(),
    label=lambda answer: str(json.loads(answer)[0]),
    engine=True,
)
