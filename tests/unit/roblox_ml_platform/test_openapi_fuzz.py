"""Generated requests for every operation of the OpenAPI document: no answer may be a crash or an undocumented one."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from roblox_ml_core.policy import read_policy
from roblox_ml_core.settings import ControlPlaneSettings, HomeSettings, MlflowSettings
from roblox_ml_core.storage import BlobStore
from roblox_ml_platform.app import create_app

from .conftest import make_body  # type: ignore[import-not-found,unused-ignore]


@pytest.fixture(scope="module")
def served() -> Iterator[TestClient]:
    """A control plane with something in it, so that requests reach more than "not found"."""
    with tempfile.TemporaryDirectory(prefix="rml-fuzz-") as folder:
        home = HomeSettings(home=folder, store="", token=None)
        # A poll that waits would only make the test slow.
        app = create_app(ControlPlaneSettings(max_wait_s=0.01), home, MlflowSettings(enabled=False))
        with TestClient(app, raise_server_exceptions=False) as client:
            client.headers["authorization"] = f"Bearer {home.ensure_token()}"
            for mark in ("a", "b"):
                body = make_body(BlobStore(home.store_url), mark, alias="champion", tags={"0": "0"})
                client.post("/v1/models/0/versions", json=body).raise_for_status()
            client.put("/v1/endpoints/0", json={"model": "0", "alias": "champion"}).raise_for_status()
            client.put("/v1/layers/0", json={}).raise_for_status()
            client.put("/v1/holdouts/0", json={"share": 1}).raise_for_status()
            client.put("/v1/endpoints/0/shadows/0", json={"ref": "0/1"}).raise_for_status()
            client.post("/v1/endpoints/0/canary", json={"version": 1, "share": 1}).raise_for_status()
            arms = {"0": {"ref": "0@champion", "weight": 5000}, "1": {"ref": "0/1", "weight": 5000}}
            experiment = {"endpoint": "0", "layer": "0", "share": 1, "arms": arms}
            client.put("/v1/experiments/0", json=experiment).raise_for_status()
            yield client


def test_no_request_brings_it_down(served: TestClient) -> None:
    schema = schemathesis.openapi.from_dict(served.app.openapi())  # type: ignore[attr-defined]
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) > 25
    paths = {operation.path for operation in operations}
    assert {"/v1/experiments/{experiment}", "/v1/endpoints/{name}/canary", "/v1/layers/{layer}", "/v1/kill"} <= paths
    for operation in operations:
        _attack(operation, served)
    # Whatever was accepted, doors can still read what comes of it.
    assert read_policy(served.get("/v1/snapshot").raise_for_status().json()["policy"]).findings == ()


def _attack(operation: Any, served: TestClient) -> None:
    documented = operation.definition.raw["responses"]

    @settings(max_examples=12, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy())
    def attack(case: Any) -> None:
        arguments = case.as_transport_kwargs(base_url="http://testserver", headers=dict(served.headers))
        wanted = ("method", "url", "headers", "params", "json")
        sent = {key: value for key, value in arguments.items() if key in wanted}
        if arguments.get("data") is not None:
            sent["content"] = arguments["data"]
        answer = served.request(**sent)
        assert answer.status_code < 500, (sent, answer.text)
        assert str(answer.status_code) in documented, (sent, answer.status_code, answer.text)
        if answer.is_error and answer.content:
            assert {"code", "message", "hint"} <= set(answer.json()["error"])

    attack()
