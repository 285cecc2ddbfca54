"""The deployment, in Ray's own interpreter."""

import os
import signal
import sys
import tempfile

import ray
from classifier import BATCH, open_classifier
from ray import serve
from starlette.requests import Request

LARGEST = BATCH if os.environ["PEER_ENGINE"] == "torch" else 32
WORKERS = int(os.environ["PEER_WORKERS"])


@serve.deployment(
    num_replicas=WORKERS,
    max_ongoing_requests=64,
    ray_actor_options={"num_cpus": 1, "runtime_env": {"env_vars": {"OMP_NUM_THREADS": "1"}}},
    logging_config={"enable_access_log": False},
)
class Classifier:
    def __init__(self) -> None:
        self.classifier = open_classifier()

    @serve.batch(max_batch_size=LARGEST, batch_wait_timeout_s=0.01)
    async def classify(self, texts: list[str]) -> list[str]:
        return self.classifier(texts)

    async def __call__(self, request: Request) -> dict[str, str]:
        return {"label": await self.classify((await request.json())["text"])}


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    # Sockets below the temporary folder have paths of at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as place:
        ray.init(
            num_cpus=WORKERS,
            include_dashboard=False,
            object_store_memory=100 << 20,
            _temp_dir=place,
            log_to_driver=True,
        )
        serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["PEER_PORT"])})
        serve.run(Classifier.bind(), route_prefix="/classify")
        try:
            signal.pause()
        finally:
            ray.shutdown()


if __name__ == "__main__":
    main()
