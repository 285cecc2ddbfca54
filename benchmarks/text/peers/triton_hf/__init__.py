"""Triton with the plain Hugging Face Python backend: a transformers pipeline in `model.py`.

As its documentation has it (docs.nvidia.com: Python backend, dynamic batching, instance groups; the Hugging Face example of the
tutorials): one CPU instance per core, dynamic batching with its default delay of 0, one thread each. The stub finds torch and
transformers through PATH.
"""

from __future__ import annotations

import json
import shutil

from roblox_ml_serving.triton import find_installation

from ..server import HERE, TORCH, Job, Launch, Peer, free_port, interpreter

__all__ = ["PEER"]

CONFIG = """name: "text"
backend: "python"
max_batch_size: {largest}
input [{{ name: "TEXT" data_type: TYPE_STRING dims: [1] }}]
output [{{ name: "label" data_type: TYPE_STRING dims: [1] }}]
instance_group [{{ kind: KIND_CPU count: {workers} }}]
dynamic_batching {{ }}
"""


def launch(job: Job) -> Launch:
    installation, python = find_installation(), interpreter("main")
    model = job.folder / "models" / "text"
    (model / "1").mkdir(parents=True)
    largest = 8 if job.engine == TORCH else 32
    (model / "config.pbtxt").write_text(CONFIG.format(largest=largest, workers=job.workers))
    shutil.copyfile(HERE / "triton_hf" / "app.py", model / "1" / "model.py")
    command = [
        str(installation.binary), f"--model-repository={job.folder / 'models'}",
        f"--backend-directory={installation.backends}", "--http-address=127.0.0.1", f"--http-port={job.port}",
        "--grpc-address=127.0.0.1", f"--grpc-port={free_port()}", "--allow-metrics=false",
        "--allow-gpu-metrics=false", "--pinned-memory-pool-byte-size=0", "--disable-auto-complete-config",
        f"--backend-config=python,shm-region-prefix-name=peer-{job.port}-", "--exit-timeout-secs=2",
    ]  # fmt: skip
    path = f"{python.parent}:/usr/bin:/bin"
    return Launch([command], {"PATH": path}, "/v2/models/text/infer")


def body(text: str) -> bytes:
    tensor = {"name": "TEXT", "shape": [1, 1], "datatype": "BYTES", "data": [text]}
    return json.dumps({"inputs": [tensor]}).encode()


PEER = Peer(
    name="triton-hf",
    settings="Python backend, HF pipeline, an instance per core, dynamic batching, max_batch_size 8",
    launch=launch,
    body=body,
    label=lambda answer: str(json.loads(answer)["outputs"][0]["data"][0]),
    engine=True,
)
