"""Registering: versions, identical packages, gates, merged facts, and everything that must be refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from fastapi.testclient import TestClient
from roblox_ml_core.storage import BlobStore, blob_key

Body = Callable[..., dict[str, Any]]
URL = "/v1/models/scale/versions"


def _post(client: TestClient, body: dict[str, Any]) -> Any:
    return client.post(URL, content=json.dumps(body))


def test_versions_count_from_one_and_an_identical_package_returns_its_own(client: TestClient, body: Body) -> None:
    first, second, again = (_post(client, body(mark)) for mark in ("a", "b", "a"))
    assert [(r.status_code, r.json()["version"], r.json()["created"]) for r in (first, second, again)] == [
        (201, 1, True), (201, 2, True), (200, 1, False),
    ]  # fmt: skip
    assert first.json()["digest"] == again.json()["digest"]


def test_what_a_second_registration_says_is_added_and_wins(client: TestClient, body: Body) -> None:
    first = {"kind": "pipeline", "run": "r1"}
    _post(
        client,
        body("a", tags={"team": "safety", "x": "1"}, metrics={"f1": 0.7, "loss": 2}, params={"lr": 1}, lineage=first),
    )
    second = {"kind": "external", "origin": "elsewhere"}
    _post(client, body("a", tags={"x": "2"}, metrics={"f1": 0.8}, lineage=second))
    version = client.get(f"{URL}/1").json()
    assert version["tags"] == {"team": "safety", "x": "2"}
    assert version["metrics"] == {"f1": 0.8, "loss": 2}
    assert version["params"] == {"lr": 1}
    assert version["lineage"] == first
    assert [call["lineage"] for call in version["registrations"]] == [first, second]
    assert [call["metrics"] for call in version["registrations"]] == [{"f1": 0.7, "loss": 2}, {"f1": 0.8}]


def test_the_gate_decides_only_about_the_alias(client: TestClient, body: Body) -> None:
    gate = {"f1": {"min": 0.75}}
    good = _post(client, body("a", metrics={"f1": 0.8}, gate=gate, alias="champion")).json()
    assert (good["gate"]["passed"], good["alias"]) == (True, {"name": "champion", "moved": True, "version": 1})
    for mark, metrics in (("b", {"f1": 0.7}), ("c", {}), ("d", {"f1": float("nan")})):
        answer = _post(client, body(mark, metrics=metrics, gate=gate, alias="champion"))
        assert answer.status_code == 201
        assert answer.json()["gate"]["passed"] is False
        assert answer.json()["alias"] == {"name": "champion", "moved": False, "version": 1}
    assert client.get("/v1/models/scale").json()["latest"] == 4
    # A gate that fails before there is any champion leaves none.
    answer = client.post("/v1/models/other/versions", content=json.dumps(body("a", gate=gate, alias="champion")))
    assert answer.json()["alias"] == {"name": "champion", "moved": False, "version": None}
    assert client.get("/v1/models/other/aliases/champion").status_code == 404


def test_missing_blobs_are_listed_and_nothing_is_registered(client: TestClient, body: Body) -> None:
    unsent = body("never sent", stored=False)
    answer = _post(client, unsent)
    assert answer.status_code == 409
    missing = answer.json()["error"]["details"]["missing"]
    assert set(missing) == {entry["sha256"] for entry in unsent["manifest"].values()}
    assert client.get("/v1/models/scale").status_code == 404


def test_a_request_must_agree_with_the_stored_files(client: TestClient, body: Body, store: BlobStore) -> None:
    good = body("a")
    entry = good["manifest"]["model/code/m.py"]
    other = {"sha256": store.put(b"other"), "size": 5}
    cases = {
        "differs": {**good, "manifest": {**good["manifest"], "model/code/m.py": other}},
        "not in package.json": {**good, "manifest": {**good["manifest"], "more": other}},
        "not in the manifest": {**good, "manifest": {"package.json": good["manifest"]["package.json"]}},
        "path inside": {**good, "manifest": {**good["manifest"], "../../up": other}},
        "stored package.json": {**good, "package": {**good["package"], "labels": ["x"]}},
        "stored signature.json": {
            **good,
            "signature": {
                "inputs": [{"name": "z", "datatype": "FP32", "shape": [-1]}],
                "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1]}],
            },
        },
        "bytes in the manifest": {
            **good,
            "package": {
                **good["package"],
                "files": {**good["package"]["files"], "model/code/m.py": {**entry, "size": 99}},
            },
            "manifest": {**good["manifest"], "model/code/m.py": {**entry, "size": 99}},
        },
        "format 'pickle'": {**good, "package": {**good["package"], "format": "pickle"}},
        "is not an alias": {**good, "alias": "latest"},
        "the gate on 'f1'": {**good, "gate": {"f1": {"least": 1}}},
        "unknown_field": {**good, "unknown_field": 1},
    }
    for part, case in cases.items():
        answer = _post(client, case)
        assert answer.status_code == 422, (part, answer.text)
        assert part in answer.json()["error"]["message"], (part, answer.text)
    assert client.get("/v1/models/scale").status_code == 404
    assert client.get("/v1/audit").json()["audit"] == []


def test_a_tampered_package_json_is_refused(client: TestClient, body: Body, store: BlobStore) -> None:
    good = body("a")
    assert store.local_root is not None
    blob = store.local_root / blob_key(good["manifest"]["package.json"]["sha256"])
    blob.write_bytes(blob.read_bytes().replace(b"m:predict", b"x:predict"))
    answer = _post(client, good)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "digest_mismatch")


def test_tags_are_set_removed_and_found(client: TestClient, body: Body) -> None:
    _post(client, body("a", tags={"team": "safety", "count": 3, "old": True}))
    assert client.get(f"{URL}/1").json()["tags"] == {"team": "safety", "count": "3", "old": "true"}
    changed = client.patch(f"{URL}/1", json={"tags": {"team": "search", "old": None}}).json()
    assert changed["tags"] == {"team": "search", "count": "3"}
    assert client.get("/v1/models", params={"q": "tag.team=safety"}).json()["models"] == []
    assert client.patch(f"{URL}/9", json={"tags": {}}).status_code == 404


def test_a_version_in_use_is_not_deleted_and_a_number_is_not_reused(client: TestClient, body: Body) -> None:
    _post(client, body("a", alias="champion"))
    _post(client, body("b"))
    client.put("/v1/endpoints/pinned", json={"model": "scale", "version": 2}).raise_for_status()
    for version, user in ((1, "alias champion"), (2, "endpoint pinned")):
        answer = client.delete(f"{URL}/{version}")
        assert answer.status_code == 409
        assert answer.json()["error"]["details"]["used_by"] == [user]
    _post(client, body("c"))
    assert client.delete(f"{URL}/3").status_code == 200
    assert client.get(f"{URL}/3").status_code == 404
    again = _post(client, body("c")).json()
    assert (again["version"], again["created"]) == (4, True)


def test_every_change_is_in_the_audit_trail(client: TestClient, body: Body) -> None:
    _post(client, body("a", alias="champion"))
    _post(client, body("b"))
    client.put("/v1/models/scale/aliases/champion", json={"version": 2, "reason": "better"})
    client.put("/v1/endpoints/e", json={"model": "scale", "alias": "champion"})
    client.post("/v1/endpoints/e/rollback")
    client.patch(f"{URL}/2", json={"tags": {"a": "b"}})
    client.delete("/v1/endpoints/e")
    client.delete(f"{URL}/2")
    client.post("/v1/gc", json={"dry_run": False})
    rows = client.get("/v1/audit").json()["audit"]
    assert [row["action"] for row in reversed(rows)] == [
        "version.register", "alias.promote", "version.register", "alias.promote", "endpoint.put", "alias.rollback",
        "version.tag", "endpoint.delete", "version.delete", "store.collect",
    ]  # fmt: skip
    assert {row["actor"] for row in rows} == {"ann"}
    only = client.get("/v1/audit", params={"subject": "scale/2", "limit": 1}).json()["audit"]
    assert [row["action"] for row in only] == ["version.delete"]
    parts = {row["subject"] for row in client.get("/v1/audit", params={"subject": "scale"}).json()["audit"]}
    assert parts == {"scale/1", "scale/2", "scale@champion"}
    assert client.get("/v1/audit", params={"subject": "scal"}).json()["audit"] == []
    assert client.get("/v1/audit", params={"subject": "scal%"}).json()["audit"] == []


def test_an_alias_of_a_model_that_does_not_exist_says_that_the_model_is_missing(client: TestClient) -> None:
    for path in ("/v1/models/nope/aliases/champion", "/v1/models/nope/aliases/champion/history"):
        answer = client.get(path)
        assert answer.status_code == 404
        assert answer.json()["error"]["message"] == "no model nope is registered"
