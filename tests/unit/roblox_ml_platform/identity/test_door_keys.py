"""What doors are told of tokens: exactly what the control plane itself would allow, and nothing that could be sent as a token."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from roblox_ml_core.auth import ROLES, Action, Grant, Limit, Resource, Scope, decide, digest_of
from roblox_ml_platform.identity.door_keys import _meet, models_of

Body = Callable[..., dict[str, Any]]
OWNED = {"safety": {"toxicity", "spam"}, "discovery": {"feed"}, "": {"stray"}}
MODELS = {model: team or None for team, models in OWNED.items() for model in models}
SCOPES = st.sampled_from(["*", "team:safety", "team:discovery", "team:gone", *(f"model:{name}" for name in MODELS)])
GRANTS = st.builds(Grant, st.sampled_from(sorted(ROLES)), SCOPES.map(Scope.parse))


@given(st.sets(GRANTS, max_size=4), GRANTS)
def test_the_sets_say_of_every_model_what_the_decision_says(held: set[Grant], most: Grant) -> None:
    told = _meet(models_of(held, OWNED), models_of([most], OWNED))
    for model, team in MODELS.items():
        allowed = decide(Action.INFER, Resource(team, model), held, Limit(most.role, most.scope)).allowed
        assert allowed == (told is None or model in told)


def token(client: TestClient, name: str, role: str, scope: str = "*", **fields: Any) -> dict[str, Any]:
    made = client.post("/v1/tokens", json={"name": name, "role": role, "scope": scope, **fields})
    assert made.status_code in (200, 201), made.text
    return made.json()


def keys(client: TestClient, **headers: str) -> dict[str, Any]:
    answer = client.get("/v1/door/keys", headers=headers)
    assert answer.status_code == 200, answer.text
    assert not any(one in answer.text for one in ("rml_", "secret"))
    return answer.json()


def test_tokens_appear_with_what_they_may_ask_and_vanish_when_revoked(client: TestClient) -> None:
    wide, narrow = token(client, "wide", "infer"), token(client, "narrow", "infer", "model:feed")
    blind, looker = token(client, "blind", "view", "model:feed"), token(client, "looker", "view")
    before = keys(client)
    found = {digest_of(made["token"]): made["name"] for made in (wide, narrow, blind, looker)}
    told = {found[digest]: entry for digest, entry in before["keys"].items()}
    assert {name: (entry["models"], entry["operator"]) for name, entry in told.items()} == {
        "wide": (None, False), "narrow": (["feed"], False), "looker": ([], True),
    }  # fmt: skip
    assert told["narrow"]["principal"] == "local with token narrow"
    assert client.delete(f"/v1/tokens/{narrow['id']}").status_code == 200
    after = keys(client)
    assert digest_of(narrow["token"]) not in after["keys"] and after["version"] != before["version"]
    # A reader who knows this version waits; one who knows another does not.
    assert client.get("/v1/door/keys", params={"after": before["version"], "wait": 5}).json() == after
    assert client.get("/v1/door/keys", params={"after": after["version"], "wait": 0.05}).json() == after


def test_a_service_s_token_follows_its_grants_its_team_s_models_and_its_owner_s_end(
    client: TestClient, body: Body
) -> None:
    client.put("/v1/teams/safety")
    made = token(client, "games", "infer", owner="service:safety/games")
    digest = digest_of(made["token"])
    assert digest not in keys(client)["keys"]
    client.post("/v1/grants", json={"principal": "service:safety/games", "scope": "team:safety", "role": "infer"})
    assert digest not in keys(client)["keys"], "the team has no model yet"
    client.post("/v1/models/toxicity/versions", json=body("a", team="safety"))
    client.post("/v1/models/feed/versions", json=body("b"))
    assert keys(client)["keys"][digest]["models"] == ["toxicity"]
    client.post("/v1/principals/revoke", json={"principal": "service:safety/games", "disable": True})
    assert digest not in keys(client)["keys"]


def test_only_who_serves_may_read_them(client: TestClient) -> None:
    for role, status in (("view", 403), ("promote", 403), ("serve", 200), ("admin", 200)):
        made = token(client, role, role)
        answer = client.get("/v1/door/keys", headers={"authorization": f"Bearer {made['token']}"})
        assert answer.status_code == status, role
    assert json.loads(client.get("/v1/door/keys").text)["schema"] == 1
