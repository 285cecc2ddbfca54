"""A text-cpu version under the agent's care: an instance killed under load is noticed, replaced, and costs few requests."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import threading
import time
import urllib.error
import urllib.request
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from roblox_ml_serving.triton.processes import stubs

pytestmark = [pytest.mark.triton, pytest.mark.slow]

TINY = Path(__file__).resolve().parents[1] / "text" / "packages.py"


@pytest.fixture(scope="module")
def text(serving: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    spec = importlib.util.spec_from_file_location("text_packages", TINY)
    assert spec is not None
    assert spec.loader is not None
    packages = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(packages)
    package = packages.text_cpu(tmp_path_factory.mktemp("text") / "package")
    serving.deploy("text", serving.publish(package, "text"))
    serving.wait_ready("text/1", timeout=240)
    return serving


class Load(threading.Thread):
    """One client that asks one row after another, as a door does."""

    def __init__(self, address: str) -> None:
        super().__init__(daemon=True)
        self._url = f"http://{address}/v2/models/text.1.batch/versions/1/infer"
        self.answers: list[bytes] = []
        self.failures: list[str] = []
        self.over = threading.Event()

    def run(self) -> None:
        ids, lengths = np.array([2, 6, 7, 3], dtype="<i4").tobytes(), np.array([4], dtype="<i4").tobytes()
        inputs = [
            {
                "name": name,
                "datatype": "INT32",
                "shape": [1, len(data) // 4],
                "parameters": {"binary_data_size": len(data)},
            }
            for name, data in (("IDS", ids), ("LENGTHS", lengths))
        ]
        head = json.dumps(
            {"inputs": inputs, "outputs": [{"name": "LOGITS", "parameters": {"binary_data": True}}]}
        ).encode()
        headers = {"Inference-Header-Content-Length": str(len(head))}
        while not self.over.is_set():
            request = urllib.request.Request(self._url, head + ids + lengths, headers)
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    data = answer.read()
                    self.answers.append(data[int(answer.headers["Inference-Header-Content-Length"]) :])
            except urllib.error.HTTPError as error:
                self.failures.append(f"{error.code} {error.read().decode()}")
            time.sleep(0.002)


def test_a_stub_killed_under_load_is_noticed_and_replaced_and_others_go_on_answering(
    text: Any, eventually: Any
) -> None:
    repository = text.home / "serving" / "models"
    before = {stub.pid for stub in stubs(repository)}
    assert len(before) == 2
    clients = [Load(text.http) for _ in range(3)]
    for client in clients:
        client.start()
    eventually("load", lambda: all(len(client.answers) > 20 for client in clients))
    os.kill(min(before), signal.SIGKILL)
    killed = time.time()
    eventually("new instances", lambda: len({stub.pid for stub in stubs(repository)} - before) == 2)
    text.wait_ready("text/1")
    sizes = [len(client.answers) for client in clients]
    eventually("load goes on", lambda: all(len(c.answers) > n + 20 for c, n in zip(clients, sizes, strict=True)))
    for client in clients:
        client.over.set()
        client.join(timeout=40)
    failures = [failure for client in clients for failure in client.failures]
    # What the dead instance held, and the little that was handed to it until it was noticed; each told clearly.
    assert all(failure.startswith("500 ") and "Stub process" in failure for failure in failures)
    assert len(failures) <= 12
    assert {answer for client in clients for answer in client.answers} == {clients[0].answers[0]}
    (noticed,) = [json.loads(line) for line in text.log("agent").splitlines() if '"reloading"' in line]
    assert "1 of its 2 instance processes ended" in noticed["reason"]
    print(f"noticed after {datetime.fromisoformat(noticed['time']).timestamp() - killed:.2f} s, {len(failures)} lost")
