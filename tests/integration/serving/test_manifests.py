"""From an endpoint of a real control plane to files for a cluster, and from the files' address to the package in a pod."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from roblox_ml_core.package import verify
from roblox_ml_serving.kserve import fetch
from typer.testing import CliRunner

import roblox_ml as rml
from roblox_ml.cli import app
from roblox_ml.errors import NotFound, RemoteError


@pytest.fixture(scope="module")
def plane(stack: Any, build: Any, tmp_path_factory: pytest.TempPathFactory, eventually: Any) -> Any:
    """A control plane with an endpoint that has a canary; no Triton runs, the cluster's will."""
    stack.start("control")
    with stack.client() as client:
        eventually("control plane", client.ready)
    folder = tmp_path_factory.mktemp("packages")
    for seed in (0, 1):
        stack.publish(build["text"](folder / str(seed), seed=seed), "text")
    with stack.client() as client:
        client.put_endpoint("comments", "text", version=1)
        client.start_canary("comments", 2, 500)
    return stack


@pytest.fixture(autouse=True)
def here(plane: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RML_HOME", str(plane.home))
    monkeypatch.setenv("RML_CONTROL_URL", plane.control_url)
    monkeypatch.setenv("RML_TOKEN", "serving-test-token")
    monkeypatch.delenv("RML_STORE", raising=False)


def test_an_endpoint_becomes_files(plane: Any, tmp_path: Path) -> None:
    out = tmp_path / "feed"
    arguments = ["manifests", "comments", "--out", str(out), "--control-url", "https://rml.example.com", "--mesh"]
    done = CliRunner().invoke(app, [*arguments, "--env", "AWS_ENDPOINT_URL=https://s3.example.com"])
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in out.iterdir()) == [
        "door.yaml", "endpoint.yaml", "envoy.yaml", "runtime.yaml",
    ]  # fmt: skip
    (service,) = yaml.safe_load_all((out / "endpoint.yaml").read_text())
    with plane.client() as client:
        digest = client.version("text", 1)["digest"]
    assert service["spec"]["predictor"]["model"]["storageUri"] == f"rml://text/1@{digest}"
    (envoy,) = yaml.safe_load_all((out / "envoy.yaml").read_text())
    (route,) = envoy["route_config"]["virtual_hosts"][0]["routes"]
    weights = {c["name"]: c["weight"] for c in route["route"]["weighted_clusters"]["clusters"]}
    assert weights == {"text.1": 950_000, "text.2": 50_000}
    assert "https://s3.example.com" in (out / "door.yaml").read_text()


def test_what_a_cluster_would_refuse_is_refused_here(plane: Any, tmp_path: Path) -> None:
    with pytest.raises(RemoteError, match="inside a pod that is the pod itself") as refused:
        rml.manifests("comments", out=tmp_path / "out", memory="512m")
    assert "did you mean 512Mi" in str(refused.value)
    assert not (tmp_path / "out").exists()
    with pytest.raises(NotFound):
        rml.manifests("nothing")


def test_the_address_in_the_files_gives_the_package(plane: Any, tmp_path: Path, capsys: Any) -> None:
    with plane.client() as client:
        digest = client.version("text", 2)["digest"]
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "left-by-a-first-attempt").write_text("x")
    assert fetch.main([f"rml://text/2@{digest}", str(folder)]) == 0
    assert verify(folder, digest).digest == digest
    assert fetch.main([f"rml://text/1@{digest}", str(folder)]) == 1
    assert "was written for another registry" in capsys.readouterr().err
