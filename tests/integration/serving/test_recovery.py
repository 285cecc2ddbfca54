"""Kill -9 of everything, one after the other: the same versions are resident again by themselves.

Also the slow ways to go wrong: a control plane that is away, a version that never loads, one nobody wants any more.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import urllib.request
from typing import Any

import psutil
import pytest

pytestmark = [pytest.mark.triton, pytest.mark.slow]


@pytest.fixture(scope="module")
def two(stack, build, tmp_path_factory, request) -> Any:
    """Two versions of one text model and one ONNX model, resident; an agent that probes and forgets quickly."""
    stack.settings |= {"RML_AGENT_PROBE_S": "2", "RML_AGENT_GRACE_S": "1", "RML_AGENT_HEARTBEAT_S": "1"}
    serving = request.getfixturevalue("serving")
    folder = tmp_path_factory.mktemp("packages")
    for seed in (0, 1):
        version = serving.publish(build["text"](folder / f"text{seed}", seed=seed), "text")
        serving.deploy("text", version)
    serving.deploy("matmul", serving.publish(build["matmul"](folder / "matmul"), "matmul"))
    serving.wait_ready(*RESIDENT)
    return serving


RESIDENT = ("text/1", "text/2", "matmul/1")


def answers(stack: Any, model: str = "text.2") -> bool:
    body = json.dumps({"inputs": [{"name": "TEXT", "datatype": "BYTES", "shape": [1], "data": ["good game"]}]}).encode()
    with urllib.request.urlopen(
        urllib.request.Request(f"http://{stack.http}/v2/models/{model}/infer", body), timeout=5
    ) as answer:
        return bool(json.load(answer)["outputs"])


def stub_pids(stack: Any, model: str) -> list[int]:
    found = []
    for child in psutil.Process(stack.running["triton"].pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):  # just killed, not yet reaped
            found += [child.pid for word in child.cmdline() if f"/{model}.batch/" in word]
    return sorted(found)


def test_a_killed_agent_adopts_what_is_loaded_without_loading_it(two, eventually) -> None:
    before = {name: stub_pids(two, name) for name in ("text.1", "text.2", "matmul.1")}
    two.kill("agent")
    assert answers(two)
    two.start("agent")
    eventually("the new agent adopted", lambda: two.log("agent").count('"adopted"') >= 3)
    two.wait_ready(*RESIDENT)
    assert {name: stub_pids(two, name) for name in before} == before
    assert '"reloading"' not in two.log("agent")


def test_a_killed_stub_is_replaced(two, eventually) -> None:
    before = stub_pids(two, "text.2")
    assert len(before) == 2
    os.kill(before[0], signal.SIGKILL)
    eventually("two living instances", lambda: len(set(stub_pids(two, "text.2")) - set(before)) == 2)
    two.wait_ready(*RESIDENT)
    # Both instances answer: the requests take turns.
    assert all(answers(two) for _ in range(6))
    assert "1 of its 2 instance processes ended" in two.log("agent")


def test_a_killed_triton_is_filled_again(two, build, tmp_path, eventually) -> None:
    """With everything that may be asked: the champion, the one before, an arm of an experiment, a shadow."""
    arm = two.publish(build["text"](tmp_path / "arm", seed=2), "text")
    shadow = two.publish(build["text"](tmp_path / "shadow", seed=3), "text")
    with two.client() as client:
        client.put_layer("ranking")
        arms = {"control": {"ref": "text/2", "weight": 5000}, "new": {"ref": f"text/{arm}", "weight": 5000}}
        client.put_experiment("newer", {"endpoint": "text", "layer": "ranking", "share": 1000, "arms": arms})
        client.put_shadow("text", "next", f"text/{shadow}")
    every = (*RESIDENT, f"text/{arm}", f"text/{shadow}")
    two.wait_ready(*every)
    two.kill("triton")
    eventually("the doors are told", lambda: two.ready() == {})
    two.start("triton")
    two.wait_ready(*every)
    assert all(answers(two, f"text.{version}") for version in (1, 2, arm, shadow))
    with two.client() as client:
        client.stop_experiment("newer", "tested")
        client.delete_shadow("text", "next")


def test_without_the_control_plane_a_restarted_triton_and_agent_serve_the_last_wishes(two, eventually) -> None:
    two.kill("control")
    two.kill("agent")
    two.kill("triton")
    two.start("triton")
    two.start("agent")
    eventually("served without a control plane", lambda: answers(two))
    two.start("control")
    two.wait_ready(*RESIDENT)


def test_one_version_that_cannot_load_holds_up_nobody(two, build, tmp_path, eventually) -> None:
    package = build["matmul"](tmp_path / "broken")
    (package.root / "model" / "model.onnx").write_bytes(b"this is no graph")
    from roblox_ml_core.package import write

    broken = write(package.root, format="onnx", signature=package.signature, examples=package.examples)
    two.deploy("broken", two.publish(broken, "broken"))
    two.deploy("late", two.publish(build["text"](tmp_path / "late", seed=5), "late"))
    two.wait_ready("late/1")

    def failure() -> str:
        state, reason = two.states().get("broken/1", ("", ""))
        return reason if state == "failed" else ""

    reason = eventually("the broken one is reported failed", failure)
    assert "model.onnx" in reason
    assert set(RESIDENT) <= set(two.ready())


def test_a_version_nobody_wants_leaves_triton_and_the_disk(two, eventually) -> None:
    with two.client() as client:
        client.delete_endpoint("late")
    eventually(
        "late/1 is gone", lambda: not stub_pids(two, "late.1") and not (two.home / "serving/models/late.1").exists()
    )
    two.wait_ready(*RESIDENT)
    with urllib.request.urlopen(urllib.request.Request(f"http://{two.http}/v2/repository/index", b"{}")) as answer:
        loaded = {model["name"] for model in json.load(answer) if model.get("state") == "READY"}
    assert loaded == {name for public in ("text.1", "text.2", "matmul.1") for name in (public, f"{public}.batch")}


def test_a_pod_brings_its_package_with_it(two, build, tmp_path, eventually) -> None:
    """As KServe starts a pod: the package lies there, no control plane answers, and another package is refused."""
    package = build["text"](tmp_path / "package", seed=7)
    version = two.publish(package, "brought")
    two.kill("control")
    two.kill("agent")
    two.settings |= {"RML_AGENT_PACKAGE": str(package.root), "RML_AGENT_PACKAGE_REF": f"brought/{version}@{'0' * 64}"}
    assert two.start("agent").wait(timeout=20) == 1
    assert "expected " + "0" * 64 in two.log("agent")
    two.settings |= {"RML_AGENT_PACKAGE_REF": f"brought/{version}@{package.digest}", "RML_AGENT_LEAVE": "true"}
    two.start("agent")
    eventually("the brought version answers", lambda: answers(two, f"brought.{version}"))
    two.start("control")
    # Doors learn of it beside everything else that is wanted, and that it leaves as soon as the pod is told to.
    two.wait_ready(f"brought/{version}", *RESIDENT)
    agent = two.running.pop("agent")
    agent.terminate()
    assert agent.wait(timeout=20) == 0
    assert two.ready() == {}
