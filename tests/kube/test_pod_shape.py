"""The pod made for a task beside the one a real Kubeflow Pipelines 2.17 made: the same parts, the same locks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from pods import executor_pod


@pytest.fixture
def recorded(shared: Path) -> dict[str, Any]:
    file = shared / "data" / "kfp" / "executor-pod-2.17.yaml"
    if not file.is_file():
        pytest.skip(f"no recorded pod at {file}")
    found: dict[str, Any] = yaml.safe_load(file.read_text())
    return found


@pytest.fixture
def made(shared: Path, recorded: dict[str, Any]) -> dict[str, Any]:
    spec = yaml.safe_load((shared / "data" / "kfp" / "live-ir.yaml").read_text())
    (main,) = [c for c in recorded["spec"]["containers"] if c["name"] == "main"]
    given = json.loads(main["command"][main["command"].index("--executor_input") + 1])
    container = spec["deploymentSpec"]["executors"]["exec-count"]["container"]
    return executor_pod("p", container, {}, given, spec["components"]["comp-count"], pipeline="live", run_id="r")


def main_of(pod: dict[str, Any]) -> dict[str, Any]:
    (main,) = [c for c in pod["spec"]["containers"] if c["name"] == "main"]
    return dict(main)


def test_image_and_arguments_are_the_ir_s(made: dict[str, Any], recorded: dict[str, Any]) -> None:
    ours, theirs = main_of(made), main_of(recorded)
    assert (ours["image"], ours["args"]) == (theirs["image"], theirs["args"])
    launched = theirs["command"][theirs["command"].index("/kfp-launcher/launch") :]
    flags = [part for part in ours["command"] if part.startswith("--")]
    assert ours["command"][0] == launched[0] and set(flags) <= set(launched)


def test_volumes_and_locks(made: dict[str, Any], recorded: dict[str, Any]) -> None:
    ours, theirs = main_of(made), main_of(recorded)
    assert ours["securityContext"] == theirs["securityContext"]

    def mounts(container: dict[str, Any]) -> dict[str, str]:
        argo = ("/var/run",)  # Argo's folder and the service account's token
        return {m["mountPath"]: m["name"] for m in container["volumeMounts"] if not m["mountPath"].startswith(argo)}

    assert mounts(ours) == mounts(theirs)
    (init,) = [c for c in recorded["spec"]["initContainers"] if c["name"] == "kfp-launcher"]
    (copies,) = made["spec"]["initContainers"]
    assert copies["args"] == init["args"] and copies["securityContext"] == init["securityContext"]
    assert made["spec"]["securityContext"]["seccompProfile"] == recorded["spec"]["securityContext"]["seccompProfile"]
    assert made["spec"]["restartPolicy"] == recorded["spec"]["restartPolicy"]
    environment = {e["name"] for e in theirs["env"] if e["name"].startswith("KFP_")}
    assert environment <= {e["name"] for e in ours["env"]}
