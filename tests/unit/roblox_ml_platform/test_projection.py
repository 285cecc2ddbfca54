"""What reaches MLflow is always something it takes, and one model it refuses does not hold up the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException
from mlflow.utils.validation import _validate_metric_name, _validate_model_version_tag, _validate_param_name
from roblox_ml_core.settings import ControlPlaneSettings, HomeSettings
from roblox_ml_platform import projector as module
from roblox_ml_platform.database import Database
from roblox_ml_platform.projection import mlflow_key
from roblox_ml_platform.projector import Projector


@given(st.text(max_size=300) | st.text("./_a b:,", max_size=8))
def test_every_key_becomes_one_that_mlflow_takes(key: str) -> None:
    taken = mlflow_key(key)
    _validate_model_version_tag(taken, "x")
    _validate_metric_name(taken)
    _validate_param_name(taken)
    assert mlflow_key(taken) == taken


def test_a_refused_model_does_not_hold_up_the_others_and_an_absent_mlflow_is_not_asked_for_each(
    client: TestClient, body: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("first", "second", "third"):
        assert client.post(f"/v1/models/{name}/versions", json=body(name, tags={"owner,team": "x"})).status_code == 201
    asked: list[str] = []
    failure: list[Exception] = [MlflowException.invalid_parameter_value("no")]

    def project(_client: Any, wanted: Any, _written: Any) -> None:
        asked.append(wanted.name)
        assert wanted.versions[0].tags["owner_team"] == "x"
        if wanted.name == "first":
            raise failure[0]

    monkeypatch.setattr(module, "project", project)
    monkeypatch.setattr(module, "compare", lambda *_: [])
    database = Database(ControlPlaneSettings().resolve_database_url(HomeSettings()))
    projector = Projector(database, "http://127.0.0.1:9")
    monkeypatch.setattr(projector, "_mlflow", lambda: None)
    with pytest.raises(MlflowException):
        projector.work()
    assert asked == ["first", "second", "third"]
    for name, in_sync in (("first", False), ("second", True), ("third", True)):
        assert client.get(f"/v1/models/{name}").json()["mlflow"]["in_sync"] is in_sync
    client.patch("/v1/models/third/versions/1", json={"tags": {"a": "b"}})
    asked.clear()
    failure[0] = ConnectionError("nobody there")
    with pytest.raises(ConnectionError):
        projector.work()
    assert asked == ["first"]
    database.close()
