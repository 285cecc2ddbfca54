"""The whole local stack under load: everything that is killed comes back by itself, a rollback loses no request.

Two versions of a tiny ONNX model (one doubles, one triples) are registered, deployed and asked over REST and gRPC by
clients that never stop, while the parts are killed one after another.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
import tritonclient.grpc as triton_grpc
from tritonclient.utils import InferenceServerException

pytestmark = [pytest.mark.triton, pytest.mark.slow]

ENDPOINT = "times"
PORTS = (
    "CONTROL_PORT",
    "MLFLOW_PORT",
    "DOOR_PORT",
    "DOOR_GRPC_PORT",
    "TRITON_HTTP_PORT",
    "TRITON_GRPC_PORT",
    "TRITON_METRICS_PORT",
)
FACTORS = {1: 2.0, 2: 3.0}


def onnx_times(factor: float) -> bytes:
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("Mul", ["X", "factor"], ["Y"])],
        "times",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["batch", 2])],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, ["batch", 2])],
        [helper.make_tensor("factor", TensorProto.FLOAT, [1], [factor])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    serialized: bytes = model.SerializeToString()
    return serialized


@dataclass
class Load:
    """Clients that ask without a pause; every answer is checked, every failure kept."""

    rest: str
    grpc_address: str
    answered: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)
    threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> Load:
        for ask in (self._ask_rest, self._ask_rest, self._ask_grpc):
            thread = threading.Thread(target=self._loop, args=(ask,), daemon=True)
            thread.start()
            self.threads.append(thread)
        return self

    def stop(self) -> None:
        self.stopping.set()
        for thread in self.threads:
            thread.join(30)
            assert not thread.is_alive(), "a client hangs: a request was neither answered nor refused"

    def _loop(self, ask: Callable[[], tuple[str, list[float]]]) -> None:
        while not self.stopping.is_set():
            try:
                version, values = ask()
            except (urllib.error.URLError, OSError, InferenceServerException, grpc.RpcError) as error:
                self.failures.append(f"{type(error).__name__}: {error}")
                time.sleep(0.02)
                continue
            if values != [FACTORS[int(version)] * 1.0, FACTORS[int(version)] * 5.0]:
                self.wrong.append(f"version {version} said {values}")
            self.answered[version] += 1
            time.sleep(0.005)

    def _ask_rest(self) -> tuple[str, list[float]]:
        body = {"inputs": [{"name": "X", "shape": [1, 2], "datatype": "FP32", "data": [1.0, 5.0]}]}
        request = urllib.request.Request(f"{self.rest}/v2/models/{ENDPOINT}/infer", json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=20) as answer:
            content = json.load(answer)
        assert content["model_name"] == ENDPOINT
        return str(content["model_version"]), content["outputs"][0]["data"]

    def _ask_grpc(self) -> tuple[str, list[float]]:
        with triton_grpc.InferenceServerClient(self.grpc_address) as client:
            tensor = triton_grpc.InferInput("X", [1, 2], "FP32")
            tensor.set_data_from_numpy(np.array([[1, 5]], np.float32))
            answer = client.infer(ENDPOINT, [tensor], client_timeout=20)
        return answer.get_response().model_version, answer.as_numpy("Y")[0].tolist()


@dataclass
class Live:
    """The running stack and what a test does to it."""

    rml: Any
    env: dict[str, str]

    def status(self) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-m", "roblox_ml.cli", "status", "--json"],
            env=self.env,
            capture_output=True,
            text=True,
            check=True,
        )
        parts: dict[str, Any] = json.loads(done.stdout)
        return parts

    def load(self) -> Load:
        return Load(self.status()["door"]["url"], f"127.0.0.1:{self.env['RML_DOOR_GRPC_PORT']}").start()

    def loads_done(self) -> int:
        """How often Triton has loaded a model, from its own statistics' view: the last-inference-free counter of its log."""
        log = Path(self.env["RML_HOME"]) / "stack" / "logs" / "triton.log"
        return log.read_text(errors="replace").count("successfully loaded")

    def resident(self) -> set[str]:
        url = f"http://127.0.0.1:{self.env['RML_TRITON_HTTP_PORT']}/v2/repository/index"
        with urllib.request.urlopen(urllib.request.Request(url, b"{}"), timeout=5) as answer:
            index = json.load(answer)
        return {f"{model['name']}/{model['version']}" for model in index if model.get("state") == "READY"}

    def resident_all(self) -> set[str]:
        """What Triton has once every version is loaded: each is a public model and the batch model behind it."""
        return set(wait_for(lambda: found if len(found := self.resident()) == 2 * len(FACTORS) else None))


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    import socket

    def free() -> str:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return str(probe.getsockname()[1])

    home = tmp_path_factory.mktemp("live") / "home"
    changed = {"RML_HOME": str(home)} | {f"RML_{name}": free() for name in PORTS}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in changed.items():
            patch.setenv(name, value)
        import roblox_ml as rml

        environment = dict(os.environ)
        for factor in FACTORS.values():
            model = rml.Model.from_onnx(onnx_times(factor), examples={"X": [[1.0, 2.0]]})
            rml.models.register(model, "times", origin="a test")
        rml.models.promote("times/2")
        rml.deploy("times@champion", say=lambda line: None)
        yield Live(rml, environment)
        subprocess.run([sys.executable, "-m", "roblox_ml.cli", "down"], env=environment, check=False)


@pytest.fixture(autouse=True)
def same_home(live: Live, monkeypatch: pytest.MonkeyPatch, rml_home: Path) -> None:
    """The stack of this module is in one home; the test's own is put aside."""
    for name in ("RML_HOME", *(f"RML_{port}" for port in PORTS)):
        monkeypatch.setenv(name, live.env[name])


def wait_for(condition: Callable[[], Any], seconds: float = 120.0) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if value := condition():
                return value
        except (OSError, ValueError):
            pass
        time.sleep(0.1)
    raise AssertionError("the condition never came true")


def victims(live: Live, what: str) -> list[int]:
    parts = live.status()
    if what != "stub":
        return [parts[what]["pid"]]
    children = psutil.Process(parts["triton"]["pid"]).children(recursive=True)
    return [child.pid for child in children if "stub" in child.name() or "stub" in " ".join(child.cmdline()[:1])]


@pytest.mark.parametrize("what", ["door", "stub", "agent", "triton", "control-plane"])
def test_what_is_killed_under_load_comes_back_by_itself(live: Live, what: str) -> None:
    before = live.resident_all()
    load = live.load()
    try:
        wait_for(lambda: load.answered["2"] > 20)
        killed = victims(live, what)
        assert killed
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        wait_for(
            lambda: (
                not any(
                    psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in killed
                )
            )
        )
        wait_for(lambda: live.resident() == before and all(part["ready"] for part in live.status().values()))

        # Served again, by everybody, for a while without a failure.
        def steady() -> bool:
            failures, answers = len(load.failures), load.answered["2"]
            time.sleep(1.0)
            return len(load.failures) == failures and load.answered["2"] > answers + 20

        wait_for(steady)
    finally:
        load.stop()
    assert load.wrong == []
    assert set(load.answered) == {"2"}
    if what in ("agent", "control-plane"):
        assert load.failures == [], "nobody who only asks may notice"
    assert all(failure.strip().rstrip(":") for failure in load.failures), "a failure must say something"


def test_a_rollback_under_load_fails_nobody_and_loads_nothing(live: Live) -> None:
    endpoint = live.rml.endpoint(ENDPOINT)
    live.resident_all()
    loads = live.loads_done()
    load = live.load()
    try:
        wait_for(lambda: load.answered["2"] > 50)
        endpoint.rollback()
        assert endpoint.version == 1
        wait_for(lambda: load.answered["1"] > 50)
        endpoint.promote(2)
        after = load.answered["2"]
        wait_for(lambda: load.answered["2"] > after + 50)
    finally:
        load.stop()
    assert load.failures == []
    assert load.wrong == []
    assert live.loads_done() == loads


def test_an_experiment_is_sticky_measured_and_won(live: Live) -> None:
    rml, endpoint = live.rml, live.rml.endpoint(ENDPOINT)
    champion = endpoint.version
    other = next(version for version in FACTORS if version != champion)
    quiet = {"say": lambda line: None}
    experiment = rml.experiment(
        "other-factor", {"control": "times@champion", "new": f"times/{other}"}, metrics=[rml.metric("clicks", kind="mean")], **quiet
    )  # fmt: skip
    units = [f"user-{number}" for number in range(400)]
    frame = rml.decide(ENDPOINT, units)
    decided = dict(zip(units, frame["arm.other-factor"], strict=True))
    answered = {}
    wait_for(lambda: endpoint.predict({"X": [[1.0, 2.0]]}, unit="user-0").arms)  # the door has heard of it
    for number, unit in enumerate(units):
        ask = endpoint.grpc.predict if number % 4 == 0 else endpoint.predict
        answer = ask({"X": [[1.0, 2.0]]}, unit=unit)
        answered[unit] = answer.arms["other-factor"]
        assert answer.version == (other if answered[unit] == "new" else champion) and not answer.fallback
        assert answer.outputs["Y"] == [[FACTORS[answer.version], 2 * FACTORS[answer.version]]]
    assert answered == decided, "a batch job and both doors decide alike"
    assert endpoint.predict({"X": [[1.0, 2.0]]}).arms == {}, "nobody is assigned who does not say who he is"

    for unit in units:
        rml.track("clicks", unit=unit, value=3.0 if answered[unit] == "new" else 1.0 + (int(unit[5:]) % 2))
    sent = rml.track_flush()
    assert sent["sent"] == sent["offered"] and sent["waiting"] == sent["dropped"] == 0

    def whole() -> Any:
        found = experiment.report()
        means = [arm["mean"] for arm in found.document["metrics"][0]["arms"]]
        return found if sum(found.units.values()) == len(units) and None not in means and min(means) > 0 else None

    report = wait_for(whole, 60)
    (comparison,) = report.metrics["clicks"]
    assert comparison["arm"] == "new" and comparison["relative"]["estimate"] == pytest.approx(1.0, abs=0.15)
    assert comparison["decision"] == "better" and report.document["srm"]["verdict"] == "fine"
    assert "<svg" in report.html() and "other-factor" in str(report)

    experiment.stop(winner="new")
    wait_for(lambda: endpoint.version == other)
    assert endpoint.predict({"X": [[1.0, 2.0]]}, unit="user-1").arms == {}


def test_a_canary_is_promoted_and_a_shadow_compared(live: Live) -> None:
    rml, endpoint = live.rml, live.rml.endpoint(ENDPOINT)
    champion = endpoint.version
    other = next(version for version in FACTORS if version != champion)
    endpoint.canary(other, share=0.5)
    units = [f"place-{number}" for number in range(60)]

    def versions() -> set[int | None]:
        return {endpoint.predict({"X": [[1.0, 2.0]]}, unit=unit).version for unit in units}

    wait_for(lambda: versions() == {champion, other})
    endpoint.rollback()
    wait_for(lambda: versions() == {champion})
    endpoint.canary(other, share=0.5).promote()
    wait_for(lambda: versions() == {other})

    shadow = rml.shadow(ENDPOINT, f"times/{champion}", name="before", say=lambda line: None)

    def compared() -> Any:
        endpoint.predict({"X": [[1.0, 2.0]]}, unit="place-1")
        found = shadow.report()
        return found if found.document["compared"] >= 10 else None

    report = wait_for(compared, 60)
    relative = abs(FACTORS[champion] - FACTORS[other]) / max(FACTORS.values())
    assert report.document["same"] == 0.0 and report.document["errors"] == []
    assert report.tensors["Y"]["abs_max"]["p50"] == pytest.approx(2.0)
    assert relative / 2 < report.tensors["Y"]["rel_max"]["p50"] < 2 * relative + 0.5
    shadow.remove()
    assert "differences" in report.html().lower()
