"""Rollouts over HTTP: what a data scientist does, and what is refused with a sentence that helps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from roblox_ml_core.storage import BlobStore

from ..conftest import make_body  # type: ignore[import-not-found,unused-ignore]

Body = Callable[..., dict[str, Any]]
ARMS = {
    "control": {"ref": "scale@champion", "weight": 5000},
    "new": {"ref": "scale/2", "weight": 5000, "params": {"k": 20}},
}

ODD = {
    "inputs": [{"name": "x", "datatype": "INT64", "shape": [-1, 2]}],
    "outputs": [{"name": "z", "datatype": "FP32", "shape": [-1]}],
}


@pytest.fixture
def api(client: TestClient, body: Body) -> TestClient:
    """Three versions of a model, an endpoint that follows its champion (1), and a layer."""
    for mark in ("a", "b", "c"):
        ok(client.post("/v1/models/scale/versions", json=body(mark, alias="champion" if mark == "a" else None)))
    ok(client.put("/v1/endpoints/feed", json={"model": "scale", "alias": "champion"}))
    ok(client.put("/v1/layers/ranking", json={"unit": "user_id"}))
    return client


def ok(answer: Any) -> Any:
    assert answer.is_success, answer.text
    return answer.json()


def refused(answer: Any, status: int) -> str:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    return f"{error['message']} | {error.get('hint', '')}"


def experiment(api: TestClient, name: str = "new-ranker", **changes: Any) -> Any:
    body = {"endpoint": "feed", "layer": "ranking", "share": 1000, "arms": ARMS, **changes}
    return api.put(f"/v1/experiments/{name}", json=body)


def policy(api: TestClient) -> Any:
    return ok(api.get("/v1/snapshot"))["policy"]


def test_an_experiment_from_start_to_winner(api: TestClient) -> None:
    made = ok(
        experiment(
            api, hypothesis="better", metrics=[{"name": "ctr", "kind": "ratio", "event": "click", "per": "view"}]
        )
    )
    assert (made["running"], made["round"], made["revision"], made["ranges"]) == (True, 1, 1, [[0, 1000]])
    entry = policy(api)["experiments"]["new-ranker"]
    assert [arm["ref"] for arm in entry["arms"]] == ["scale/1", "scale/2"]
    assert ok(api.get("/v1/endpoints/feed"))["experiments"][0]["name"] == "new-ranker"
    grown = ok(experiment(api, share=3000, expect=1))
    assert grown["ranges"] == [[0, 1000], [1000, 3000]] and grown["revision"] == 2
    assert "revision 2, you expected 1" in refused(experiment(api, share=4000, expect=1), 409)
    other = {**ARMS, "new": {"ref": "scale/3", "weight": 5000}}
    assert "its arms cannot change" in refused(experiment(api, arms=other), 409)
    assert ok(api.get("/v1/layers/ranking"))["free"] == 7000
    assert "no arm nobody" in refused(api.post("/v1/experiments/new-ranker/stop", json={"winner": "nobody"}), 404)
    ended = ok(api.post("/v1/experiments/new-ranker/stop", json={"winner": "new", "reason": "it won"}))
    assert (ended["running"], ended["winner"], ended["reason"]) == (False, "new", "it won")
    assert ok(api.get("/v1/endpoints/feed"))["version"] == 2, "the alias moved with it"
    assert policy(api)["experiments"] == {}
    assert "has ended already: it won" in refused(api.post("/v1/experiments/new-ranker/stop", json={}), 409)
    again = ok(experiment(api, arms={**ARMS, "new": {"ref": "scale/3", "weight": 5000}}))
    assert again["round"] == 2 and policy(api)["experiments"]["new-ranker"]["salt"].endswith("/2")
    actions = [row["action"] for row in ok(api.get("/v1/audit", params={"subject": "new-ranker"}))["audit"]]
    assert actions == ["experiment.put", "experiment.stop", "experiment.put", "experiment.put"]


def test_what_an_experiment_is_refused_for(api: TestClient, store: BlobStore) -> None:
    assert "there is no layer pages" in refused(experiment(api, layer="pages"), 404)
    assert "there is no endpoint food" in refused(experiment(api, endpoint="food"), 404)
    assert "sum to 6000" in refused(experiment(api, arms={**ARMS, "new": {"weight": 1000}}), 422)
    assert "no such operator" in refused(experiment(api, targeting={"country": {"like": "D"}}), 422)
    assert "scale has no version 9" in refused(
        experiment(api, arms={**ARMS, "new": {"ref": "scale/9", "weight": 5000}}), 404
    )
    ok(experiment(api, "big", share=9500))
    full = refused(experiment(api), 409)
    assert "10 % of the layer are wanted and 5 % are free" in full and "big 95 %" in full
    ok(api.put("/v1/layers/other", json={}))
    owner = refused(experiment(api, layer="other"), 409)
    assert "chosen in layer ranking (experiment big)" in owner
    light = {"control": {"weight": 5000}, "new": {"weight": 5000, "params": {"k": 1}}}
    ok(experiment(api, "light", layer="other", arms=light))
    assert "running experiments: big" in refused(api.delete("/v1/layers/ranking"), 409)
    assert "running experiments: big" in refused(api.put("/v1/layers/ranking", json={"unit": "place_id"}), 409)
    assert "experiment big, arm new" in refused(api.delete("/v1/models/scale/versions/2"), 409)
    assert "experiment big" in refused(api.delete("/v1/endpoints/feed"), 409)
    # Another signature, another endpoint.
    ok(api.post("/v1/models/odd/versions", json=make_body(store, "z", tensors=ODD)))
    said = refused(api.put("/v1/endpoints/feed/shadows/s", json={"ref": "odd/1"}), 422)
    assert "input x is INT64 instead of FP32" in said and "it has no output y" in said and "it has output z" in said


def test_a_canary_grows_is_promoted_or_taken_back(api: TestClient) -> None:
    assert "answers with already" in refused(
        api.post("/v1/endpoints/feed/canary", json={"version": 1, "share": 500}), 409
    )
    first = ok(api.post("/v1/endpoints/feed/canary", json={"version": 2, "share": 500}))
    salt = policy(api)["endpoints"]["feed"]["canary"]["salt"]
    grown = ok(api.post("/v1/endpoints/feed/canary", json={"version": 2, "share": 2500, "expect": first["revision"]}))
    assert policy(api)["endpoints"]["feed"]["canary"] == {"ref": "scale/2", "share": 2500, "salt": salt}
    stale = {"version": 2, "share": 9000, "expect": first["revision"]}
    assert f"revision {grown['revision']}" in refused(api.post("/v1/endpoints/feed/canary", json=stale), 409)
    back = ok(api.post("/v1/endpoints/feed/rollback"))
    assert (back["version"], back["from"], back["canary"]["version"]) == (1, 2, 2)
    assert policy(api)["endpoints"]["feed"]["canary"] is None
    assert "has no canary" in refused(api.request("DELETE", "/v1/endpoints/feed/canary", json={}), 404)
    ok(api.post("/v1/endpoints/feed/canary", json={"version": 3, "share": 500}))
    assert [m["version"] for m in ok(api.get("/v1/servers/s/desired"))["models"]] == [1, 3]
    assert ok(api.post("/v1/endpoints/feed/canary/promote"))["version"] == 3
    assert ok(api.get("/v1/models/scale/aliases/champion"))["version"] == 3
    assert policy(api)["endpoints"]["feed"]["canary"] is None
    assert ok(api.post("/v1/endpoints/feed/rollback"))["version"] == 1, "without a canary it is the version before"


def test_shadows_holdouts_and_switches(api: TestClient) -> None:
    ok(api.put("/v1/endpoints/feed/shadows/next", json={"ref": "scale/3", "share": 2000, "isolated": True}))
    assert policy(api)["endpoints"]["feed"]["shadows"][0]["ref"] == "scale/3"
    resident = {}
    for role in ("general", "challenger"):
        resident[role] = [m["version"] for m in ok(api.get(f"/v1/servers/s/desired?role={role}"))["models"]]
    assert resident == {"general": [1], "challenger": [3]}, "a server of its own"
    assert "shadow next of endpoint feed" in refused(api.delete("/v1/models/scale/versions/3"), 409)
    ok(api.put("/v1/holdouts/nobody", json={"share": 100, "layers": ["ranking"]}))
    assert "there is no layer x" in refused(api.put("/v1/holdouts/nobody", json={"share": 1, "layers": ["x"]}), 404)
    before = ok(api.get("/v1/snapshot"))
    assert ok(api.put("/v1/kill", json={"shadows": True, "endpoints": ["feed"]})) == {
        "experiments": False, "canaries": False, "shadows": True, "endpoints": ["feed"],
    }  # fmt: skip
    after = ok(api.get("/v1/snapshot"))
    assert after["generation"] > before["generation"] and after["digest"] != before["digest"]
    assert "there is no endpoint x" in refused(api.put("/v1/kill", json={"endpoints": ["x"]}), 404)
    ok(api.put("/v1/kill", json={"shadows": False, "endpoints": []}))
    assert ok(api.get("/v1/snapshot"))["digest"] == before["digest"], "the policy is what it was"
    ok(api.delete("/v1/endpoints/feed/shadows/next"))
    assert "its shadows: none" in refused(api.delete("/v1/endpoints/feed/shadows/next"), 404)
    ok(api.delete("/v1/holdouts/nobody"))


def test_an_endpoints_unit_log_and_limits_are_kept_part_by_part(api: TestClient) -> None:
    wish = {"model": "scale", "alias": "champion"}
    ok(api.put("/v1/endpoints/feed", json={**wish, "unit": "place_id", "log": {"rate": 100}}))
    ok(api.put("/v1/endpoints/feed", json={**wish, "log": {"bodies": True}, "limits": {"concurrency": 7}}))
    entry = policy(api)["endpoints"]["feed"]
    assert entry["unit"] == "place_id" and entry["limits"] == {"concurrency": 7}
    assert entry["log"] == {"rate": 100, "data_class": "internal", "retention_days": 30, "bodies": True}


def test_what_fits_no_longer_is_left_out_and_comes_back(api: TestClient, store: BlobStore) -> None:
    """Somebody points the endpoint at a model with other tensors while all kinds of things run there."""
    ok(experiment(api))
    ok(api.post("/v1/endpoints/feed/canary", json={"version": 3, "share": 500}))
    ok(api.put("/v1/endpoints/feed/shadows/next", json={"ref": "scale/3"}))
    before = policy(api)
    assert ok(api.get("/v1/endpoints/feed"))["left_out"] == []
    ok(api.post("/v1/models/odd/versions", json=make_body(store, "z", tensors=ODD)))
    ok(api.put("/v1/endpoints/feed", json={"model": "odd", "version": 1}))
    entry = policy(api)["endpoints"]["feed"]
    assert (entry["canary"], entry["shadows"], policy(api)["experiments"]) == (None, [], {})
    why = {one["what"]: one["why"] for one in ok(api.get("/v1/endpoints/feed"))["left_out"]}
    assert set(why) == {"experiment new-ranker", "canary", "shadow next"}
    assert "input x is FP32 instead of INT64" in why["experiment new-ranker"]
    assert "the endpoint has come to odd" in refused(api.post("/v1/endpoints/feed/canary/promote"), 409)
    assert "input x is" in refused(api.post("/v1/experiments/new-ranker/stop", json={"winner": "new"}), 422)
    ok(api.put("/v1/endpoints/feed", json={"model": "scale", "alias": "champion"}))
    after = policy(api)
    assert after["experiments"] == before["experiments"]
    assert after["endpoints"]["feed"]["canary"] == before["endpoints"]["feed"]["canary"]


def test_small_print(api: TestClient) -> None:
    ok(experiment(api))
    ok(experiment(api, share=2000, arms=dict(reversed(ARMS.items()))))  # the same arms: JSON objects have no order
    long = {"country": {"in": ["x" * 100] * 200}}
    assert "targeting has" in refused(experiment(api, "long", targeting=long), 422)
    # A kill switch is the endpoint's, not its name's.
    ok(api.put("/v1/endpoints/other", json={"model": "scale", "version": 1}))
    ok(api.put("/v1/kill", json={"endpoints": ["other"]}))
    ok(api.delete("/v1/endpoints/other"))
    assert ok(api.get("/v1/kill"))["endpoints"] == []
    row = ok(api.get("/v1/audit", params={"subject": "new-ranker"}))["audit"][0]
    assert (row["detail"]["before"]["share"], row["detail"]["after"]["share"]) == (1000, 2000)
