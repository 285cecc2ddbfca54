"""MLServer's Hugging Face runtime.

As its documentation has it (docs.seldon.ai/mlserver: Hugging Face runtime, adaptive batching, parallel inference): the task in
`parameters.extra`, `max_batch_size` and `max_batch_time` above 0, `parallel_workers` processes, one intra-op thread. Access and debug
logs and metrics are off. With our engine in it the model is a custom runtime (`MLModel`), as its documentation says for that.
"""

from __future__ import annotations

import json

from ..server import HERE, TORCH, Job, Launch, Peer, free_port, interpreter

__all__ = ["PEER"]

ARGUMENT = "array_inputs"  # the runtime's name for inputs that adaptive batching puts together; "args" would become many arguments


def launch(job: Job) -> Launch:
    model = job.folder / "models" / "text"
    model.mkdir(parents=True)
    server = {
        "host": "127.0.0.1",
        "http_port": job.port,
        "grpc_port": free_port(),
        "metrics_endpoint": None,
        "parallel_workers": job.workers,
        "debug": False,
        "use_structured_logging": False,
    }
    settings = {
        "name": "text",
        "implementation": f"app.{'Pipeline' if job.engine == TORCH else 'Engine'}",
        "max_batch_size": 8 if job.engine == TORCH else 32,
        "max_batch_time": 0.01,
        "parameters": {
            "extra": {
                "task": "text-classification",
                "pretrained_model": str(job.checkpoint),
                "framework": "pt",
                "intra_op_threads": 1,
            }
        },
    }
    (job.folder / "models" / "settings.json").write_text(json.dumps(server))
    (model / "model-settings.json").write_text(json.dumps(settings))
    program = interpreter("mlserver").with_name("mlserver")
    env = {"PYTHONPATH": f"{HERE / 'mlserver_hf'}:{HERE}", "TF_CPP_MIN_LOG_LEVEL": "3"}
    return Launch([[str(program), "start", str(job.folder / "models")]], env, "/v2/models/text/infer")


def body(text: str) -> bytes:
    tensor = {
        "name": ARGUMENT,
        "shape": [1, 1],
        "datatype": "BYTES",
        "parameters": {"content_type": "str"},
        "data": [text],
    }
    return json.dumps({"inputs": [tensor]}).encode()


def label(answer: bytes) -> str:
    value = json.loads(answer)["outputs"][0]["data"][0]
    return str(json.loads(value)["label"])


PEER = Peer(
    name="mlserver",
    settings="Hugging Face runtime, parallel_workers one per core, max_batch_size 8, max_batch_time 10 ms",
    launch=launch,
    body=body,
    label=label,
    engine=True,
)
