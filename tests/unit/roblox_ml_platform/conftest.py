"""A control plane inside the test's process, and packages small enough to register by the dozen."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from roblox_ml_core.digests import canonical_json
from roblox_ml_core.settings import HomeSettings
from roblox_ml_core.storage import BlobStore
from roblox_ml_platform.app import create_app
from roblox_ml_platform.database import Database

SIGNATURE = {
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
}


def make_body(
    store: BlobStore, mark: str, *, stored: bool = True, tensors: Any = SIGNATURE, **fields: Any
) -> dict[str, Any]:
    """The body of a registration whose package differs from another one by `mark`; its blobs are in the store."""

    def entry(data: bytes) -> dict[str, Any]:
        from roblox_ml_core.digests import sha256_bytes

        if stored:
            store.put(data)
        return {"sha256": sha256_bytes(data), "size": len(data)}

    files = {"signature.json": entry(canonical_json(tensors)), "model/code/m.py": entry(mark.encode())}
    info = {"schema": 1, "format": "python", "files": files, "labels": None, "options": {"entry": "m:predict"}}
    return {"package": info, "manifest": {**files, "package.json": entry(canonical_json(info))}, **fields}


@pytest.fixture
def store(rml_home: Path) -> BlobStore:
    return BlobStore(HomeSettings().store_url)


@pytest.fixture
def body(store: BlobStore) -> Callable[..., dict[str, Any]]:
    return lambda mark, **fields: make_body(store, mark, **fields)


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database that all migrations made, once: a test's control plane begins with a copy of it."""
    found = tmp_path_factory.mktemp("migrated") / "empty.db"
    database = Database(f"sqlite:///{found}")
    database.migrate()
    database.close()
    assert not found.with_name(f"{found.name}-wal").exists(), "a part of it is still in the journal"
    return found


@pytest.fixture
def client(rml_home: Path, monkeypatch: pytest.MonkeyPatch, migrated: Path) -> Iterator[TestClient]:
    monkeypatch.setenv("RML_MLFLOW_ENABLED", "false")
    shutil.copy(migrated, rml_home / "control.db")
    with TestClient(create_app()) as client:
        client.headers["authorization"] = f"Bearer {HomeSettings().read_token()}"
        client.headers["x-rml-actor"] = "ann"
        client.headers["content-type"] = "application/json"
        yield client


@pytest.fixture
def database(tmp_path: Path, migrated: Path) -> Iterator[Database]:
    shutil.copy(migrated, tmp_path / "unit.db")
    database = Database(f"sqlite:///{tmp_path}/unit.db")
    database.migrate()
    yield database
    database.close()
