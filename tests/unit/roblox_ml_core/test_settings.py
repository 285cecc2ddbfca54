"""Settings: loopback by default, secrets by reference, one token however many start at once."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from roblox_ml_core.settings import (
    AgentSettings,
    ControlPlaneSettings,
    DoorSettings,
    HomeSettings,
    MlflowSettings,
    TritonSettings,
)


def test_everything_listens_on_loopback_at_its_own_port() -> None:
    control, mlflow, door, triton = ControlPlaneSettings(), MlflowSettings(), DoorSettings(), TritonSettings()
    assert {control.host, mlflow.host, door.host, triton.host} == {"127.0.0.1"}
    ports = [
        control.port, mlflow.port, door.port, door.grpc_port, triton.http_port, triton.grpc_port, triton.metrics_port,
    ]  # fmt: skip
    assert ports == [18070, 18050, 18080, 18081, 18000, 18001, 18002]
    assert AgentSettings().heartbeat_s < ControlPlaneSettings().server_silence_s / 3


def test_addresses_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RML_CONTROL_URL", "http://plane:1/")
    monkeypatch.setenv("RML_DOOR_GRPC", "door:2")
    monkeypatch.setenv("RML_DOOR_PORT", "3")
    assert ControlPlaneSettings().base_url == "http://plane:1"
    assert DoorSettings().grpc_address == "door:2"
    assert DoorSettings().base_url == "http://127.0.0.1:3"


def test_the_database_url_is_a_secret_by_reference(
    rml_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = HomeSettings()
    assert ControlPlaneSettings().resolve_database_url(home) == f"sqlite:///{rml_home}/control.db"
    (tmp_path / "url").write_text("postgresql://u:secret@h/db\n")
    monkeypatch.setenv("RML_CONTROL_DATABASE_URL_FILE", str(tmp_path / "url"))
    assert ControlPlaneSettings().resolve_database_url(home) == "postgresql://u:secret@h/db"
    monkeypatch.setenv("RML_CONTROL_DATABASE_URL", "postgresql://u:other@h/db")
    assert ControlPlaneSettings().resolve_database_url(home) == "postgresql://u:other@h/db"
    assert "other" not in repr(ControlPlaneSettings())


def test_processes_that_start_at_once_agree_on_one_private_token(rml_home: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        tokens = set(pool.map(lambda _: HomeSettings().ensure_token(), range(64)))
    assert len(tokens) == 1
    assert stat.S_IMODE((rml_home / "token").stat().st_mode) == 0o600
    assert [path.name for path in rml_home.iterdir()] == ["token"], "a draft was left"


def test_the_environment_s_token_wins_and_is_not_shown(rml_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert HomeSettings().read_token() is None
    monkeypatch.setenv("RML_TOKEN", "hidden-word")
    assert HomeSettings().ensure_token() == "hidden-word"
    assert not (rml_home / "token").exists()
    assert "hidden-word" not in repr(HomeSettings())


def test_the_store_is_in_the_home_unless_named(rml_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert HomeSettings().store_url == (rml_home / "store").as_uri()
    monkeypatch.setenv("RML_STORE", "s3://bucket/x")
    assert HomeSettings().store_url == "s3://bucket/x"


def test_a_pod_s_token_is_sent_and_never_becomes_the_administrator_s(
    rml_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (rml_home / "projected").write_text("from-the-kubelet\n")
    monkeypatch.setenv("RML_TOKEN_FILE", str(rml_home / "projected"))
    assert HomeSettings().read_token() == "from-the-kubelet"
    made = HomeSettings().ensure_token()
    assert made != "from-the-kubelet" and made == HomeSettings().ensure_token()
