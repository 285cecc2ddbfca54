"""What `rml doctor` says of the store and of the step image, before a pod has to find out."""

from __future__ import annotations

import pytest

from roblox_ml.cli import _doctor


def found(name: str) -> _doctor.Check:
    (check,) = [check for check in _doctor.findings() if check.check == name]
    return check


def test_a_folder_serves_this_machine_only() -> None:
    check = found("RML_STORE")
    assert check.state == "ok" and "pods do not" in check.found


def test_a_bucket_that_cannot_be_reached_is_a_failure_and_no_secret_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RML_STORE", "s3://models/x")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    assert "AWS_ACCESS_KEY_ID is not set" in found("RML_STORE").found
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKID")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    check = found("RML_STORE")
    assert check.state == "fail" and "http://127.0.0.1:9 cannot be reached" in check.found and "hush" not in str(check)


def test_an_image_that_pods_refuse_is_told_where_there_is_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found("step image").state == "ok"
    monkeypatch.setenv("RML_KFP_HOST", "http://kfp.example")
    assert found("step image").state == "warn" and "root" in found("step image").found
    monkeypatch.setenv("RML_STEP_IMAGE", "registry.example/rml-step:1")
    assert found("step image").found == "registry.example/rml-step:1"
