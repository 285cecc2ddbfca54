"""The article's own recipe: PyTorch's dynamic int8, no padding, one text at a time, a process per core with one thread; no batching.

Le and Kaehler, "How we scaled BERT to serve 1+ billion daily requests on CPUs" (Roblox, 2020). The server around it is uvicorn with as
many workers.
"""

from __future__ import annotations

import json

from ..server import HERE, Job, Launch, Peer, interpreter

__all__ = ["PEER"]


def launch(job: Job) -> Launch:
    command = [
        str(interpreter("main")), "-m", "uvicorn", "app:app", "--app-dir", str(HERE / "seed"), "--host", "127.0.0.1",
        "--port", str(job.port), "--workers", str(job.workers), "--no-access-log", "--log-level", "warning",
    ]  # fmt: skip
    return Launch([command], {}, "/classify")


PEER = Peer(
    name="seed",
    settings="torch quantize_dynamic int8, one text at a time unpadded, a uvicorn worker per core",
    launch=launch,
    body=lambda text: json.dumps({"text": text}).encode(),
    label=lambda answer: str(json.loads(answer)["label"]),
    default=False,
)
