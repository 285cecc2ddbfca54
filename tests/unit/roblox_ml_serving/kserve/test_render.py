"""Files: the same bytes for the same values, what they say of each other fits, and who applies them is told the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from roblox_ml_core.settings import AgentSettings, DoorSettings, TritonSettings
from roblox_ml_serving import kserve
from roblox_ml_serving.kserve.cluster import readiness
from roblox_ml_serving.kserve.fetch import main, reference_of

DIGEST = "5b" * 32
MODEL = kserve.Model("feed", "feed-ranker", 7, DIGEST)
INSTALLATION = kserve.Installation("http://rml-control.ml.svc:18070", "ml", store="s3://models/store")


def files(**more: Any) -> dict[str, list[dict[str, Any]]]:
    return kserve.manifests(MODEL, INSTALLATION, **{"scaling": kserve.Scaling(2, 5), **more})


def test_files_are_the_objects_and_their_bytes_do_not_depend_on_the_day(tmp_path: Path) -> None:
    found = files()
    first = [path.read_bytes() for path in kserve.write(found, tmp_path / "a", ("holdout h",))]
    assert first == [path.read_bytes() for path in kserve.write(files(), tmp_path / "b", ("holdout h",))]
    assert [list(yaml.safe_load_all(text)) for text in first] == list(found.values())


def test_notes_about_the_mesh_are_in_its_files_only(tmp_path: Path) -> None:
    from roblox_ml_core.policy import read_policy

    policy = read_policy({"endpoints": {"feed": {"model": "feed-ranker", "version": 7, "digest": DIGEST}}})
    found = files(split=kserve.split_of(policy, "feed"), gateway="public")
    for path in kserve.write(found, tmp_path, ("holdout global",)):
        assert ("holdout global" in path.read_text()) == (path.name in ("route.yaml", "envoy.yaml"))


def test_every_setting_of_a_pod_is_one_that_its_program_reads() -> None:
    """A misspelt variable would be ignored, and the pod would run with a default."""
    prefixes = {"RML_TRITON_": TritonSettings, "RML_AGENT_": AgentSettings, "RML_DOOR_": DoorSettings}
    seen = 0
    (runtime, _), (door, *_) = files()["runtime.yaml"], files()["door.yaml"]
    for container in (*runtime["spec"]["containers"], *door["spec"]["template"]["spec"]["containers"]):
        for entry in container["env"]:
            for prefix, settings in prefixes.items():
                if entry["name"].startswith(prefix):
                    assert entry["name"].removeprefix(prefix).lower() in settings.model_fields, entry["name"]
                    seen += 1
    assert seen > 10


def test_one_replica_has_no_budget_and_a_fixed_count_no_autoscaler() -> None:
    (service,) = files(scaling=kserve.Scaling(1, 1))["endpoint.yaml"]
    assert service["metadata"]["annotations"]["serving.kserve.io/autoscalerClass"] == "none"
    assert "autoScaling" not in service["spec"]["predictor"]


def test_waiting_time_scales_by_keda() -> None:
    service, _ = files(scaling=kserve.Scaling(2, 9, "queue", 20, "http://prometheus:9090"))["endpoint.yaml"]
    assert service["metadata"]["annotations"]["serving.kserve.io/autoscalerClass"] == "keda"
    (metric,) = service["spec"]["predictor"]["autoScaling"]["metrics"]
    assert metric["external"]["target"] == {"type": "Value", "value": "20"}
    # The regular expression reaches Prometheus with one backslash: two in its string literal.
    assert r'{model=~"feed-ranker\\.[0-9]+"}' in metric["external"]["metric"]["query"]


@pytest.mark.parametrize("uri", ["rml://feed/3", "rml://feed@champion", f"s3://feed/3@{DIGEST}", "rml://"])
def test_only_a_pinned_version_is_fetched(
    uri: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RML_CONTROL_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("RML_HOME", str(tmp_path))
    assert main([uri, str(tmp_path / "models")]) == 1
    assert "rml://name/3@<digest>" in capsys.readouterr().err


def test_a_pinned_version_is_read() -> None:
    found = reference_of(MODEL.uri)
    assert (found.name, found.version, found.digest) == ("feed-ranker", 7, DIGEST)


def test_readiness_is_of_the_generation_that_was_applied() -> None:
    def service(generation: int, status: str, message: str = "") -> dict[str, Any]:
        conditions = [{"type": "Ready", "status": status, "message": message}]
        return {
            "kind": "InferenceService",
            "metadata": {"generation": generation},
            "status": {"observedGeneration": 1, "conditions": conditions},
        }

    assert readiness(service(1, "True")).ready
    assert not readiness(service(2, "True")).ready
    assert readiness(service(1, "False", "no runtime")).reason == "no runtime"
    assert readiness({"kind": "Service", "metadata": {}}) is None


def test_a_deployment_is_ready_when_all_its_new_replicas_are() -> None:
    def deployment(updated: int, available: int) -> dict[str, Any]:
        status = {"observedGeneration": 1, "updatedReplicas": updated, "availableReplicas": available}
        return {"kind": "Deployment", "metadata": {"generation": 1}, "spec": {"replicas": 2}, "status": status}

    assert readiness(deployment(2, 2)).ready
    assert not readiness(deployment(1, 2)).ready
    assert "1 of 2 replicas available" in readiness(deployment(2, 1)).reason
