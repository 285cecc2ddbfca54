"""Who may come in, how much they may send, blobs, garbage collection, metrics, schema."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from fastapi.testclient import TestClient
from roblox_ml_core.digests import sha256_bytes
from roblox_ml_core.settings import ControlPlaneSettings, HomeSettings, MlflowSettings
from roblox_ml_core.storage import BlobStore, blob_key
from roblox_ml_platform.app import create_app
from roblox_ml_platform.database import Database
from roblox_ml_platform.tables import metadata

Body = Callable[..., dict[str, Any]]


def test_the_migrations_make_the_tables_that_the_code_reads(database: Database) -> None:
    with database.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    database.migrate()  # a second start finds nothing to do


@pytest.mark.parametrize(
    "header", [None, "", "Bearer ", "Bearer wrong", "bearer {token}", "Bearer {token}x", "{token}"]
)
def test_without_the_token_nobody_comes_in(client: TestClient, header: str | None) -> None:
    token = HomeSettings().read_token()
    headers = {} if header is None else {"authorization": header.format(token=token)}
    del client.headers["authorization"]
    for method, path in (
        ("GET", "/v1/models"),
        ("POST", "/v1/gc"),
        ("GET", "/docs"),
        ("PUT", f"/v1/store/{blob_key('0' * 64)}"),
    ):
        answer = client.request(method, path, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized")
        assert str(token) not in answer.text


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_health_and_metrics_are_open(client: TestClient, path: str) -> None:
    del client.headers["authorization"]
    assert client.get(path).status_code == 200


@pytest.fixture
def small(rml_home: Any) -> Iterator[TestClient]:
    settings = ControlPlaneSettings(max_body_bytes=1000, max_blob_bytes=5000)
    with TestClient(create_app(settings, mlflow=MlflowSettings(enabled=False))) as client:
        client.headers["authorization"] = f"Bearer {HomeSettings().read_token()}"
        yield client


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_over_the_limit_is_refused_however_it_comes(small: TestClient, announced: bool) -> None:
    def send(size: int) -> Any:
        data = b"[" + b" " * (size - 1)
        return data if announced else iter([data[i : i + 100] for i in range(0, size, 100)])

    headers = {"content-type": "application/json"}
    answer = small.post("/v1/gc", content=send(1200), headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    assert small.post("/v1/gc", content=send(900), headers=headers).status_code == 422
    blob = b"x" * 6000
    path = f"/v1/store/{blob_key(sha256_bytes(blob))}"
    assert small.put(path, content=blob if announced else iter([blob[:3000], blob[3000:]])).status_code == 413
    assert small.head(path).status_code == 404
    assert not [p for p in (HomeSettings().root / "store").rglob("*") if p.is_file()], "a draft was left"


def test_blobs_are_verified_before_they_have_a_name(client: TestClient, store: BlobStore) -> None:
    data = os.urandom(3 << 20)
    path = f"/v1/store/{blob_key(sha256_bytes(data))}"
    refused = client.put(path, content=data[:-1])
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "digest_mismatch")
    assert client.head(path).status_code == 404
    for _ in range(2):
        assert client.put(path, content=data).json()["size"] == len(data)
    assert int(client.head(path).headers["content-length"]) == len(data)
    assert client.get(path).content == data
    assert store.verify(sha256_bytes(data))


@pytest.mark.parametrize(
    "path", ["ab/" + "0" * 64, "00/" + "0" * 63, "00/..%2f..%2ftoken", "../../../token", "00/" + "A" * 64]
)
def test_no_path_leads_out_of_the_store(client: TestClient, path: str) -> None:
    for method in ("GET", "HEAD", "PUT"):
        assert client.request(method, f"/v1/store/sha256/{path}").status_code in (404, 405, 422)


def _age(store: BlobStore, seconds: float) -> None:
    assert store.local_root is not None
    old = time.time() - seconds
    for blob in (store.local_root / "sha256").glob("*/*"):
        os.utime(blob, (old, old))


def test_garbage_is_what_deleted_versions_left_and_nobody_else_needs(
    client: TestClient, body: Body, store: BlobStore
) -> None:
    foreign = store.put(b"a code bundle the control plane knows nothing of")
    code = store.put(b"the code that trained b")
    a = body("a")
    client.post("/v1/models/scale/versions", json=a).raise_for_status()
    lineage = {"kind": "pipeline", "code": code, "data": [f"comments/1@{code}"]}
    client.post("/v1/models/scale/versions", json=body("b", lineage=lineage)).raise_for_status()
    client.delete("/v1/models/scale/versions/1").raise_for_status()
    _age(store, 2 * 86400)
    dry = client.post("/v1/gc").json()
    # signature.json is the same file in both versions and stays.
    gone = {a["manifest"][path]["sha256"] for path in ("package.json", "model/code/m.py")}
    assert {blob["sha256"] for blob in dry["blobs"]} == gone
    assert (dry["dry_run"], all(store.has(digest) for digest in gone)) == (True, True)
    kept = client.post("/v1/gc", json={"dry_run": False, "keep": sorted(gone)}).json()
    assert kept["blobs"] == []
    assert client.post("/v1/gc", json={"dry_run": False}).json()["bytes"] == dry["bytes"] > 0
    assert not any(store.has(digest) for digest in gone)
    everything = client.post("/v1/gc", json={"scope": "all", "keep": []}).json()
    assert [blob["sha256"] for blob in everything["blobs"]] == [foreign], "lineage keeps its code"


def test_a_young_blob_is_left_alone(client: TestClient, body: Body, store: BlobStore) -> None:
    client.post("/v1/models/scale/versions", json=body("a")).raise_for_status()
    client.delete("/v1/models/scale/versions/1").raise_for_status()
    answer = client.post("/v1/gc", json={"dry_run": False}).json()
    assert (answer["blobs"], answer["kept_young"]) == ([], 3)
    # Registering the same package again makes its blobs young again, even after they had aged.
    _age(store, 2 * 86400)
    client.post("/v1/models/scale/versions", json=body("a")).raise_for_status()
    client.delete("/v1/models/scale/versions/2").raise_for_status()
    assert client.post("/v1/gc", json={"dry_run": False}).json()["blobs"] == []


def test_metrics_count_requests_and_show_the_state(client: TestClient, body: Body) -> None:
    client.post("/v1/models/scale/versions", json=body("a")).raise_for_status()
    client.get("/v1/models/none").json()
    text = client.get("/metrics").text
    assert 'rml_control_versions{model="scale"} 1.0' in text
    assert 'rml_control_requests_total{method="POST",route="/v1/models/{name}/versions",status="201"} 1.0' in text
    assert 'rml_control_requests_total{method="GET",route="/v1/models/{name}",status="404"} 1.0' in text


def test_every_error_has_the_one_form(client: TestClient) -> None:
    for method, path, status in (
        ("GET", "/nowhere", 404), ("PATCH", "/v1/models", 405), ("GET", "/v1/models/UPPER", 422),
        ("GET", "/v1/models/a/versions/0", 422), ("GET", "/v1/snapshot?after=x", 422), ("POST", "/v1/models/a/versions", 422),
    ):  # fmt: skip
        answer = client.request(method, path)
        assert answer.status_code == status
        assert set(answer.json()["error"]) >= {"code", "message", "hint"}
