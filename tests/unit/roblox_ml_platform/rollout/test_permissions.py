"""Who may roll out what: decided per team and model, refused with the reason, and a refusal changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

Body = Callable[..., dict[str, Any]]
Call = tuple[str, str, Any]
WEIGHTS = {"control": {"weight": 5000}, "new": {"weight": 5000}}
OWN = {"control": {"ref": "feed@champion", "weight": 5000}, "new": {"ref": "feed/2", "weight": 5000}}
MIXED = {**OWN, "new": {"ref": "chat/1", "weight": 5000}}


def experiment(arms: Any, endpoint: str = "feed") -> dict[str, Any]:
    return {"endpoint": endpoint, "layer": "ranking", "share": 1000, "arms": arms}


#: What is a promotion of team feed's model alone.
ON_FEED: dict[str, Call] = {
    "start a canary": ("POST", "/v1/endpoints/feed/canary", {"version": 2, "share": 500}),
    "promote it": ("POST", "/v1/endpoints/feed/canary/promote", None),
    "end it": ("DELETE", "/v1/endpoints/feed/canary", {"reason": "x"}),
    "shadow": ("PUT", "/v1/endpoints/feed/shadows/s", {"ref": "feed/2"}),
    "end the shadow": ("DELETE", "/v1/endpoints/feed/shadows/s", None),
    "experiment": ("PUT", "/v1/experiments/e", experiment(OWN)),
    "experiment with parameters alone": ("PUT", "/v1/experiments/f", experiment(WEIGHTS)),
    "stop": ("POST", "/v1/experiments/e/stop", {"reason": "x"}),
    "crown": ("POST", "/v1/experiments/e/stop", {"winner": "new"}),
}
#: What concerns everybody.
ON_ALL: dict[str, Call] = {
    "switch off": ("PUT", "/v1/kill", {"experiments": True}),
    "hold out": ("PUT", "/v1/holdouts/global", {"share": 100}),
    "end the holdout": ("DELETE", "/v1/holdouts/global", None),
    "remove a layer": ("DELETE", "/v1/layers/ranking", None),
}


@pytest.fixture
def api(client: TestClient, body: Body) -> TestClient:
    """Two teams with a model and an endpoint each; one model has two versions."""
    for team in ("feed", "chat"):
        client.put(f"/v1/teams/{team}", json={}).raise_for_status()
        for mark in ("a", "b"):
            sent = body(team + mark, alias="champion" if mark == "a" else None)
            client.post(f"/v1/models/{team}/versions", json=sent).raise_for_status()
        client.put(f"/v1/models/{team}/team", json={"team": team}).raise_for_status()
        client.put(f"/v1/endpoints/{team}", json={"model": team, "alias": "champion"}).raise_for_status()
    client.put("/v1/layers/ranking", json={}).raise_for_status()
    return client


def token(api: TestClient, name: str, role: str, scope: str) -> dict[str, str]:
    made = api.post("/v1/tokens", json={"name": name, "role": role, "scope": scope})
    assert made.is_success, made.text
    return {"authorization": f"Bearer {made.json()['token']}"}


def ask(api: TestClient, call: Call, headers: dict[str, str] | None = None) -> Any:
    method, path, sent = call
    return api.request(method, path, headers=headers or {}, **({} if sent is None else {"json": sent}))


def as_it_is(api: TestClient) -> Any:
    return api.get("/v1/snapshot").json()["policy"]


def test_another_team_and_a_lesser_role_are_refused(api: TestClient) -> None:
    for what in ("start a canary", "shadow", "experiment"):
        ask(api, ON_FEED[what]).raise_for_status()
    before = as_it_is(api)
    refused = {
        "other": token(api, "other", "promote", "team:chat"),
        "lesser": token(api, "less", "register", "team:feed"),
    }
    for what, call in ON_FEED.items():
        for who, headers in refused.items():
            answer = ask(api, call, headers)
            assert answer.status_code == 403, (what, who, answer.text)
            assert answer.json()["error"]["details"]["resource"], "it says on what"
            assert as_it_is(api) == before, (what, who)


def test_the_team_itself_may_do_all_of_it(api: TestClient) -> None:
    own = token(api, "own", "promote", "team:feed")
    order = ["start a canary", "end it", "shadow", "end the shadow", "experiment with parameters alone", "experiment",
             "stop", "start a canary", "promote it", "experiment", "crown"]  # fmt: skip
    assert set(order) == set(ON_FEED)
    for what in order:
        answer = ask(api, ON_FEED[what], own)
        assert answer.is_success, (what, answer.text)


def test_what_concerns_everybody_is_for_who_may_promote_everywhere(api: TestClient) -> None:
    ask(api, ON_ALL["hold out"]).raise_for_status()
    before, own = as_it_is(api), token(api, "own", "promote", "team:feed")
    for what, call in ON_ALL.items():
        assert ask(api, call, own).status_code == 403, what
    assert as_it_is(api) == before
    everywhere = token(api, "all", "promote", "*")
    for what, call in ON_ALL.items():
        answer = ask(api, call, everywhere)
        assert answer.is_success, (what, answer.text)


def test_an_arm_of_another_team_s_model_needs_promote_on_both(api: TestClient) -> None:
    own = token(api, "own", "promote", "team:feed")
    begin: Call = ("PUT", "/v1/experiments/mixed", experiment(MIXED))
    assert ask(api, begin, own).status_code == 403
    ask(api, begin).raise_for_status()  # by somebody who may
    crown: Call = ("POST", "/v1/experiments/mixed/stop", {"winner": "new"})
    assert ask(api, crown, own).status_code == 403, "to end it with that arm is to deploy chat/1"
    assert api.get("/v1/endpoints/feed").json()["model"] == "feed"
    assert ask(api, ("POST", "/v1/experiments/mixed/stop", {}), own).is_success, "to end it is theirs"


def test_a_shadow_s_model_must_be_visible_and_other_teams_experiments_are_not(api: TestClient) -> None:
    own = token(api, "own", "promote", "team:feed")
    assert ask(api, ("PUT", "/v1/endpoints/feed/shadows/s", {"ref": "chat/1"}), own).status_code == 403
    ask(api, ("PUT", "/v1/experiments/secret", experiment(WEIGHTS, "chat"))).raise_for_status()
    ask(api, ON_FEED["experiment"]).raise_for_status()
    seen = ask(api, ("GET", "/v1/experiments", None), own).json()["experiments"]
    assert [one["name"] for one in seen] == ["e"]
    assert ask(api, ("GET", "/v1/experiments/secret", None), own).status_code == 403
    assert ask(api, ON_FEED["experiment"], token(api, "reader", "view", "*")).status_code == 403


def test_refusals_are_in_the_audit_trail(api: TestClient) -> None:
    ask(api, ON_FEED["start a canary"], token(api, "other", "promote", "team:chat"))
    assert "refused" in {row["outcome"] for row in api.get("/v1/audit").json()["audit"]}
