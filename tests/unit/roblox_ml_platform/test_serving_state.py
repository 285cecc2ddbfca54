"""Endpoints, snapshot, desired models, server reports and their expiry, long polls."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from roblox_ml_platform import database as clock
from roblox_ml_platform.app import create_app

Body = Callable[..., dict[str, Any]]


@pytest.fixture
def digests(client: TestClient, body: Body) -> dict[int, str]:
    """Three versions; champion moved 1 -> 2."""
    found = {}
    for mark in ("a", "b", "c"):
        alias = "champion" if mark != "c" else None
        answer = client.post("/v1/models/scale/versions", json=body(mark, alias=alias)).json()
        found[answer["version"]] = answer["digest"]
    return found


def _ok(answer: Any) -> Any:
    assert answer.is_success, answer.text
    return answer.json()


def _report(client: TestClient, *versions: tuple[int, str], state: str = "ready", server: str = "local") -> Any:
    models = [{"model": "scale", "version": v, "digest": d, "state": state, "reason": ""} for v, d in versions]
    return _ok(client.put(f"/v1/servers/{server}/status", json={"http": "h:1", "grpc": "g:2", "models": models}))


def _needed(client: TestClient) -> list[int]:
    return [model["version"] for model in _ok(client.get("/v1/servers/local/desired"))["models"]]


@pytest.mark.parametrize("before", [{"version": 2}, {"alias": "champion"}], ids=["version", "alias"])
def test_a_refused_deployment_is_taken_back_exactly(
    client: TestClient, digests: dict[int, str], before: dict[str, Any]
) -> None:
    where = {"alias": None, "version": None, **before}
    for target in ({"version": 1}, before):
        _ok(client.put("/v1/endpoints/e", json={"model": "scale", **target}))
    put = _ok(client.put("/v1/endpoints/e", json={"model": "scale", "version": 3}))
    assert put["moved"] is True
    assert _ok(client.put("/v1/endpoints/e", json={"model": "scale", "version": 3}))["moved"] is False
    refused = {"model": "scale", "version": 3}
    answer = _ok(client.post("/v1/endpoints/e/rollback", json=refused))
    assert answer["withdrawn"] is True
    assert {"alias": answer["alias"], "version": answer["pinned"]} == where and answer["version"] == 2
    # Once; and an alias is not moved for it, nor does a rollback lead to what was refused.
    assert _ok(client.post("/v1/endpoints/e/rollback", json=refused))["withdrawn"] is False
    assert _ok(client.get("/v1/models/scale/aliases/champion"))["version"] == 2
    assert _ok(client.post("/v1/endpoints/e/rollback"))["version"] == 1
    # The first target of an endpoint has nothing behind it.
    first = _ok(client.put("/v1/endpoints/new", json={"model": "scale", "version": 3}))
    assert first["moved"] is False
    assert _ok(client.post("/v1/endpoints/new/rollback", json=refused))["withdrawn"] is False


def test_an_endpoint_follows_its_alias_and_rolls_it_back(client: TestClient, digests: dict[int, str]) -> None:
    assert _needed(client) == []
    endpoint = _ok(client.put("/v1/endpoints/e", json={"model": "scale", "alias": "champion"}))
    assert (endpoint["version"], endpoint["previous"], endpoint["digest"]) == (2, 1, digests[2])
    assert _needed(client) == [1, 2]
    _ok(client.put("/v1/models/scale/aliases/champion", json={"version": 3}))
    assert _needed(client) == [2, 3]
    assert _ok(client.get("/v1/snapshot"))["policy"]["endpoints"]["e"]["previous"] == 2
    rolled = _ok(client.post("/v1/endpoints/e/rollback"))
    assert (rolled["version"], rolled["from"], rolled["alias_moved"]) == (2, 3, "champion")
    assert _ok(client.get("/v1/models/scale/aliases/champion"))["version"] == 2
    # The version just left stays until the next move, so that coming back needs no load.
    assert _needed(client) == [1, 2, 3]
    assert _ok(client.post("/v1/endpoints/e/rollback"))["version"] == 1
    refused = client.post("/v1/endpoints/e/rollback")
    assert refused.status_code == 409
    assert "nothing to roll back to" in refused.json()["error"]["message"]


def test_a_pinned_endpoint_rolls_back_through_its_own_past(client: TestClient, digests: dict[int, str]) -> None:
    for version in (1, 3, 3):
        _ok(client.put("/v1/endpoints/e", json={"model": "scale", "version": version}))
    assert _ok(client.get("/v1/endpoints/e"))["previous"] == 1
    _ok(client.put("/v1/models/scale/aliases/champion", json={"version": 1}))
    assert _ok(client.get("/v1/endpoints/e"))["version"] == 3, "a pinned endpoint does not follow"
    assert _needed(client) == [1, 3]
    rolled = _ok(client.post("/v1/endpoints/e/rollback"))
    assert (rolled["version"], rolled["from"], rolled["alias_moved"]) == (1, 3, None)
    assert client.post("/v1/endpoints/e/rollback").status_code == 409


def test_switching_an_endpoint_keeps_the_old_model_resident(
    client: TestClient, body: Body, digests: dict[int, str]
) -> None:
    _ok(client.post("/v1/models/other/versions", json=body("z", alias="champion")))
    _ok(client.put("/v1/endpoints/e", json={"model": "scale", "alias": "champion"}))
    _ok(client.put("/v1/endpoints/e", json={"model": "other", "alias": "champion"}))
    desired = _ok(client.get("/v1/servers/local/desired"))["models"]
    assert [(m["model"], m["version"]) for m in desired] == [("other", 1), ("scale", 2)]
    assert _ok(client.post("/v1/endpoints/e/rollback"))["model"] == "scale"


def test_what_an_endpoint_cannot_point_at(client: TestClient, digests: dict[int, str]) -> None:
    for target, status in (
        ({"model": "none", "alias": "champion"}, 404),
        ({"model": "scale", "alias": "none"}, 404),
        ({"model": "scale", "version": 9}, 404),
        ({"model": "scale"}, 422),
        ({"model": "scale", "alias": "champion", "version": 1}, 422),
    ):
        answer = client.put("/v1/endpoints/e", json=target)
        assert (answer.status_code, bool(answer.json()["error"]["hint"])) == (status, True)
    assert _ok(client.get("/v1/endpoints"))["endpoints"] == []
    _ok(client.put("/v1/endpoints/e", json={"model": "scale", "alias": "champion"}))
    assert client.delete("/v1/models/scale/aliases/champion").status_code == 409
    _ok(client.delete("/v1/endpoints/e"))
    assert client.get("/v1/endpoints/e").status_code == 404
    assert _ok(client.delete("/v1/models/scale/aliases/champion"))["version"] is None
    assert client.get("/v1/models/scale/aliases/champion").status_code == 404
    assert _ok(client.put("/v1/models/scale/aliases/champion", json={"version": 1}))["generation"] == 4


def test_only_what_a_server_says_is_ready_is_ready(client: TestClient, digests: dict[int, str]) -> None:
    _report(client, (1, digests[1]), (2, digests[2]))
    assert _ok(client.get("/v1/snapshot"))["servers"] == {
        "local": {"http": "h:1", "grpc": "g:2", "ready": {"scale/1": digests[1], "scale/2": digests[2]}}
    }
    _report(client, (1, digests[1]), state="loading")
    assert _ok(client.get("/v1/snapshot"))["servers"]["local"]["ready"] == {}
    # Other bytes under a version's name are not that version.
    _report(client, (1, "f" * 64))
    assert _ok(client.get("/v1/snapshot"))["servers"]["local"]["ready"] == {}


def test_a_heartbeat_wakes_nobody_and_a_change_does(client: TestClient, digests: dict[int, str]) -> None:
    def generations() -> tuple[int, int]:
        snapshot, desired = _ok(client.get("/v1/snapshot")), _ok(client.get("/v1/servers/local/desired"))
        return snapshot["generation"], desired["generation"]

    assert _report(client, (1, digests[1]))["changed"]
    first = generations()
    assert not _report(client, (1, digests[1]))["changed"]
    assert generations() == first
    assert _report(client, (2, digests[2]))["changed"]
    second = generations()
    assert (second[0] > first[0], second[1]) == (True, first[1])
    _ok(client.put("/v1/models/scale/aliases/champion", json={"version": 3}))
    third = generations()
    assert third[0] > second[0]
    assert third[1] > second[1]


def test_a_silent_server_is_not_ready(
    client: TestClient, digests: dict[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from roblox_ml_platform import serving

    _report(client, (1, digests[1]))
    before = _ok(client.get("/v1/snapshot"))
    assert "local" in before["servers"]
    later = clock.now() + 14.9
    monkeypatch.setattr(serving, "now", lambda: later)
    assert "local" in _ok(client.get("/v1/snapshot"))["servers"]
    later += 0.2
    after = _ok(client.get("/v1/snapshot"))
    assert after["servers"] == {}
    assert after["generation"] > before["generation"]
    assert _ok(client.get("/v1/servers"))["servers"][0]["alive"] is False
    assert _report(client, (1, digests[1]))["changed"], "its return is news"
    assert "local" in _ok(client.get("/v1/snapshot"))["servers"]


def test_an_outage_of_the_control_plane_is_not_the_servers_silence(
    client: TestClient, digests: dict[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from roblox_ml_platform import context, serving

    _report(client, (1, digests[1]))
    back = clock.now() + 3600.0
    later = back
    monkeypatch.setattr(serving, "now", lambda: later)
    monkeypatch.setattr(context, "now", lambda: back)
    with TestClient(create_app()) as restarted:
        restarted.headers.update(client.headers)
        later = back + 14.9
        assert "local" in _ok(restarted.get("/v1/snapshot"))["servers"], "nobody could have reported meanwhile"
        later = back + 15.1
        assert _ok(restarted.get("/v1/snapshot"))["servers"] == {}


def test_a_deleted_version_is_no_longer_wanted_and_its_readers_are_told(
    client: TestClient, digests: dict[int, str]
) -> None:
    _ok(client.put("/v1/endpoints/e", json={"model": "scale", "alias": "champion"}))
    assert _needed(client) == [1, 2]
    before = [_ok(client.get(path))["generation"] for path in ("/v1/snapshot", "/v1/servers/local/desired")]
    _ok(client.delete("/v1/models/scale/versions/1"))
    after = [_ok(client.get(path))["generation"] for path in ("/v1/snapshot", "/v1/servers/local/desired")]
    assert after[0] > before[0]
    assert after[1] > before[1]
    assert _needed(client) == [2]
    assert _ok(client.get("/v1/snapshot"))["policy"]["endpoints"]["e"]["previous"] is None


@pytest.mark.parametrize("path", ["/v1/snapshot", "/v1/servers/local/desired"])
def test_a_long_poll_answers_when_something_changed(client: TestClient, digests: dict[int, str], path: str) -> None:
    generation = _ok(client.get(path))["generation"]
    # A generation from before a restore is not the present one either way.
    assert _ok(client.get(path, params={"after": generation + 10, "wait": 30}))["generation"] == generation
    answers: list[Any] = []
    thread = threading.Thread(
        target=lambda: answers.append(_ok(client.get(path, params={"after": generation, "wait": 30})))
    )
    thread.start()
    time.sleep(0.2)
    assert answers == [], "answered although nothing had changed"
    _ok(client.put("/v1/models/scale/aliases/champion", json={"version": 3}))
    thread.join(20)
    assert answers[0]["generation"] == generation + 1


def test_a_long_poll_without_a_change_answers_the_same(client: TestClient, digests: dict[int, str]) -> None:
    snapshot = _ok(client.get("/v1/snapshot"))
    assert _ok(client.get("/v1/snapshot", params={"after": snapshot["generation"], "wait": 0.05})) == snapshot


def test_a_policy_is_kept_part_by_part_and_told_to_doors(client: TestClient, digests: dict[int, str]) -> None:
    def put(**policy: Any) -> Any:
        target = {"model": "scale", "alias": "champion"}
        return _ok(client.put("/v1/endpoints/e", json={**target, **({"policy": policy} if policy else {})}))["policy"]

    def told() -> tuple[int, Any]:
        snapshot = _ok(client.get("/v1/snapshot"))
        return snapshot["generation"], snapshot["policy"]["endpoints"]["e"]["policy"]

    assert put() == {"cache": {"entries": 0, "bytes": 0}, "queue": {"max_wait_ms": 200, "max_rows": 10_000}}
    before, _ = told()
    assert put(cache={"entries": 5, "bytes": 6})["cache"] == {"entries": 5, "bytes": 6}
    generation, policy = told()
    assert generation == before + 1 and policy["cache"] == {"entries": 5, "bytes": 6}
    # A part that is not named stays, and so does everything when the endpoint is only pointed elsewhere.
    assert put(queue={"max_wait_ms": 50})["cache"]["entries"] == 5
    _ok(client.put("/v1/endpoints/e", json={"model": "scale", "version": 1}))
    assert told()[1] == {"cache": {"entries": 5, "bytes": 6}, "queue": {"max_wait_ms": 50, "max_rows": 10_000}}
    generation, _ = told()
    assert put(queue={"max_wait_ms": 50}) and told()[0] == generation + 1  # pointed back, the policy is the same
    assert put(queue={"max_wait_ms": 50}) and told()[0] == generation + 1
    for wrong in (
        {"cache": {"entries": -1}},
        {"queue": {"max_wait_ms": 0}},
        {"other": {}},
        {"cache": {"entries": "x"}},
    ):
        refused = client.put("/v1/endpoints/e", json={"model": "scale", "version": 1, "policy": wrong})
        assert refused.status_code == 422 and "policy" in refused.text


def test_a_text_models_files_are_named_for_doors_and_no_other_models(
    client: TestClient, digests: dict[int, str]
) -> None:
    from roblox_ml_platform.preprocess import preprocess_of

    paths = ("model/tokenizer.json", "model/text.json", "model/engines/x/model.onnx")
    manifest = {path: {"sha256": path[-1] * 64, "size": 1} for path in paths}
    assert preprocess_of({"format": "text-cpu"}, manifest) == {
        "kind": "text",
        "files": {path: path[-1] * 64 for path in paths[:2]},
    }
    assert preprocess_of({"format": "onnx"}, manifest) is None
    _ok(client.put("/v1/endpoints/e", json={"model": "scale", "version": 1}))
    assert _ok(client.get("/v1/snapshot"))["policy"]["endpoints"]["e"]["preprocess"] is None
