"""Around the permissions: every route has a line, the claim of a name, ownership, limits on failures, tokens in lists."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from roblox_ml_core.auth import Grant, Principal, Scope, make
from roblox_ml_core.errors import Conflict, Forbidden, Invalid
from roblox_ml_core.settings import ControlPlaneSettings, HomeSettings, IdentitySettings, MlflowSettings
from roblox_ml_core.storage import BlobStore
from roblox_ml_platform.app import create_app
from roblox_ml_platform.database import Database
from roblox_ml_platform.identity import access, teams
from roblox_ml_platform.identity.policy import POLICY
from roblox_ml_platform.identity.registering import Registrant

Body = Callable[..., dict[str, Any]]
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
CLUSTER = "https://kubernetes.default.svc"


def _routes(app: Any) -> set[tuple[str, str]]:
    open_to_all = {"/healthz", "/readyz", "/metrics", "/v1/auth"}
    found = set()
    for path, methods in app.openapi()["paths"].items():
        found |= {(method.upper(), path) for method in methods if path not in open_to_all}
    return found


def test_every_route_says_what_it_needs(client: TestClient) -> None:
    """What is not listed is for administrators of the platform: let nobody meet that by surprise."""
    listed = set(POLICY)
    # Runners act for the scheduler with the home's own token, so the default is what they need.
    assert {pair for pair in _routes(client.app) - listed if not pair[1].startswith("/v1/runner/")} <= _by_default()
    assert {path for _, path in listed} <= {path for _, path in _routes(client.app)} | {"/v1/auth"}


def _by_default() -> set[tuple[str, str]]:
    """Left to administrators on purpose: whom the platform tells, and its datasets' versions."""
    return {("POST", "/v1/notifications/retry"), ("POST", "/v1/notifications/{delivery}/retry"),
            ("PUT", "/v1/channels/{name}"), ("DELETE", "/v1/channels/{name}"), ("POST", "/v1/channels/{name}/test")}  # fmt: skip


def test_a_route_without_a_line_is_closed(client: TestClient) -> None:
    app: Any = client.app
    app.router.routes.insert(0, APIRoute("/v1/forgotten", lambda: {"open": True}, dependencies=app.router.dependencies))
    made = client.post("/v1/tokens", json={"name": "t", "role": "promote"}).json()
    assert client.get("/v1/forgotten").json() == {"open": True}
    refused = client.get("/v1/forgotten", headers={"authorization": f"Bearer {made['token']}"})
    assert refused.status_code == 403


def test_only_the_home_s_token_may_say_whom_it_acts_for(client: TestClient, body: Body) -> None:
    made = client.post("/v1/tokens", json={"name": "ci", "role": "register"}).json()
    headers = {"authorization": f"Bearer {made['token']}", "x-rml-actor": "somebody-else"}
    for name, sent, by in (("a", {}, "ann"), ("b", headers, f"local#{made['id']}")):
        client.post(f"/v1/models/{name}/versions", json=body(name), headers=sent).raise_for_status()
        assert client.get(f"/v1/models/{name}/versions/1").json()["created_by"] == by
    rows = {row["subject"]: row for row in client.get("/v1/audit").json()["audit"]}
    assert (rows["a/1"]["actor"], rows["a/1"]["principal"], rows["a/1"]["outcome"]) == ("ann", "local", "done")
    assert rows["b/1"]["actor"] == rows["b/1"]["principal"] == f"local#{made['id']}"


def test_a_token_s_text_is_nowhere_but_in_the_answer(client: TestClient, rml_home: Path) -> None:
    made = client.post("/v1/tokens", json={"name": "ci"}).json()
    secret = made["token"].rpartition("_")[2]
    for path in ("/v1/tokens", "/v1/audit", "/v1/whoami", "/metrics"):
        assert secret not in client.get(path).text
    assert not [file for file in rml_home.rglob("*") if file.is_file() and secret.encode() in file.read_bytes()]
    assert client.post("/v1/tokens", json={"name": "ci"}).status_code == 409
    assert client.post("/v1/tokens", json={"name": "long", "days": 3000}).status_code == 422
    assert client.post("/v1/tokens", json={"name": "odd", "role": "root"}).status_code == 422
    gone = client.delete(f"/v1/tokens/{made['id']}").json()
    assert gone["state"] == "revoked" and client.get("/v1/tokens").json()["tokens"][0]["state"] == "revoked"
    assert client.post("/v1/tokens", json={"name": "ci"}).status_code == 201  # the name is free again


@pytest.fixture
def guarded(rml_home: Path, tmp_path: Path) -> Iterator[TestClient]:
    public = {**json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(KEY.public_key())), "kid": "k"}
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": [public]}))
    pods = {
        "name": "pods", "issuer": CLUSTER, "audience": "roblox-ml", "kind": "pod",
        "jwks_uri": (tmp_path / "jwks.json").as_uri(), "subjects": {"system:serviceaccount:ml:*": ["team:ml=run"]},
    }  # fmt: skip
    settings = IdentitySettings(issuers=[pods], failures_per_minute=5)  # type: ignore[list-item]
    with TestClient(
        create_app(ControlPlaneSettings(), mlflow=MlflowSettings(enabled=False), identity=settings)
    ) as client:
        yield client


def _pod(sub: str) -> dict[str, str]:
    """What the kubelet puts into a pod: a projected service-account token for our audience."""
    now = int(time.time())
    claims = {"iss": CLUSTER, "aud": ["roblox-ml"], "sub": sub, "iat": now, "nbf": now, "exp": now + 3600,
              "kubernetes.io": {"namespace": "ml", "pod": {"name": "step-1"}}}  # fmt: skip
    return {"authorization": f"Bearer {jwt.encode(claims, KEY, 'RS256', headers={'kid': 'k'})}"}


def test_a_pod_is_known_by_its_service_account(guarded: TestClient) -> None:
    known = guarded.get("/v1/whoami", headers=_pod("system:serviceaccount:ml:trainer")).json()
    assert known["principal"] == "pods:system:serviceaccount:ml:trainer"
    assert (known["kind"], known["grants"]) == ("pod", ["run on team:ml"])
    assert guarded.get("/v1/whoami", headers=_pod("system:serviceaccount:other:x")).json()["grants"] == []


def test_a_door_is_told_who_a_signed_token_is_and_only_doors_may_ask(guarded: TestClient) -> None:
    home = {"authorization": f"Bearer {HomeSettings().read_token()}"}
    pod = _pod("system:serviceaccount:ml:trainer")["authorization"].removeprefix("Bearer ")

    def introspect(token: str, **headers: str) -> Any:
        return guarded.post("/v1/door/introspect", json={"token": token}, headers=headers or home)

    told = introspect(pod).json()
    assert (told["active"], told["models"], told["operator"]) == (True, [], False)
    assert time.time() < told["expires_at"] < time.time() + 61
    for nobody in (pod[:-4] + "AAAA", "a.b.c", make().text):
        answer = introspect(nobody)
        assert (answer.status_code, answer.json()["active"]) == (200, False) and answer.json()["message"]
    assert introspect(pod, authorization=f"Bearer {pod}").status_code == 403


def test_failures_are_slowed_down_and_good_clients_are_not(guarded: TestClient) -> None:
    good = _pod("system:serviceaccount:ml:trainer")
    assert guarded.get("/v1/whoami", headers=good).status_code == 200
    bad = [guarded.get("/v1/whoami", headers={"authorization": f"Bearer {make().text}"}) for _ in range(8)]
    assert [answer.status_code for answer in bad] == [401] * 5 + [429] * 3
    assert 1 <= int(bad[-1].headers["retry-after"]) <= 61 and bad[-1].json()["error"]["code"] == "throttled"
    assert guarded.get("/v1/whoami", headers=good).status_code == 200
    late = _pod("system:serviceaccount:ml:late")
    assert guarded.get("/v1/whoami", headers=late).status_code == 429
    home = {"authorization": f"Bearer {HomeSettings().read_token()}"}
    assert guarded.get("/v1/whoami", headers=home).json()["principal"] == "local"
    rows = guarded.get("/v1/audit?outcome=refused", headers=home).json()["audit"]
    assert len(rows) == 9 and {row["principal"] for row in rows} == {"unknown"}
    assert 'rml_control_refused_total{code="unauthorized"} 5.0' in guarded.get("/metrics").text


def _person(name: str, *grants: str) -> Principal:
    from roblox_ml_core.auth import parse_grant

    return Principal(f"corp:{name}", "user", grants=frozenset(map(parse_grant, grants)))


def test_who_owns_a_model_is_decided_by_its_first_registration(database: Database) -> None:
    one, two = _person("one", "team:safety=register"), _person("two", "team:safety=register", "team:ads=promote")
    with database.write() as connection:
        for team in ("safety", "ads"):
            teams.add(connection, team, "test")
        assert access.team_for_new(connection, one, "m", None) == "safety"
        with pytest.raises(Invalid, match="ads, safety"):
            access.team_for_new(connection, two, "m", None)
        assert access.team_for_new(connection, two, "m", "ads") == "ads"
        for who, team in ((one, "ads"), (_person("none"), None), (_person("viewer", "team:safety=view"), None)):
            with pytest.raises(Forbidden):
                access.team_for_new(connection, who, "m", team)
        # A role for one model alone does not make it a team's.
        assert access.team_for_new(connection, _person("guest", "model:m=register"), "m", None) is None


def test_a_group_s_role_reaches_the_service_tokens_of_its_member_for_a_while(database: Database) -> None:
    from roblox_ml_platform.identity.authenticate import add_principal

    owned = Principal("corp:ann#rml_x", "token", owner="corp:ann")
    with database.write() as connection:
        add_principal(connection, "corp:ann", mapped=["team:safety=run"], seen_at=time.time())
        assert access.grants_of(connection, owned) == {Grant("run", Scope("team", "safety"))}
        assert access.grants_of(connection, owned, mapped_days=0) == frozenset()


def test_two_teams_that_register_one_new_name_at_once_do_not_share_it(client: TestClient, body: Body) -> None:
    """The second finds that the name is taken, whatever it was told when it asked."""
    context = client.app.state.context  # type: ignore[attr-defined]
    for team in ("safety", "ads"):
        client.put(f"/v1/teams/{team}").raise_for_status()
    from roblox_ml_platform import registration

    request = registration.prepare("m", {**body("x"), "alias": None}, context.store)
    outcomes: list[str] = []
    begun = threading.Barrier(2)

    def register(team: str) -> None:
        by = Registrant(_person(team, f"team:{team}=register"))
        begun.wait()
        try:
            registration.register(context.database, context.store, request, team, by)
            outcomes.append(team)
        except (Forbidden, Conflict):
            outcomes.append("refused")

    threads = [threading.Thread(target=register, args=(team,)) for team in ("safety", "ads")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 2 and "refused" in outcomes
    (winner,) = [team for team in outcomes if team != "refused"]
    assert client.get("/v1/models/m").json()["team"] == winner


def test_an_administrator_moves_a_model_and_a_team_goes_only_when_empty(client: TestClient, body: Body) -> None:
    for team in ("safety", "ads"):
        client.put(f"/v1/teams/{team}").raise_for_status()
    client.post("/v1/models/m/versions", json=body("x", team="safety")).raise_for_status()
    assert client.post("/v1/models/m/versions", json=body("y", team="ads")).status_code == 409
    assert client.delete("/v1/teams/safety").json()["error"]["details"]["models"] == ["m"]
    assert client.put("/v1/models/m/team", json={"team": "ads"}).json() == {
        "name": "m",
        "team": "ads",
        "from": "safety",
    }
    ir = BlobStore(HomeSettings().store_url).put(b"ir of nightly")
    client.post("/v1/pipelines/nightly/versions", json={"ir": ir, "team": "safety"}).raise_for_status()
    assert client.delete("/v1/teams/safety").json()["error"]["details"]["pipelines"] == ["nightly"]
    client.delete("/v1/pipelines/nightly").raise_for_status()
    assert client.delete("/v1/teams/safety").status_code == 200
    assert client.put("/v1/models/m/team", json={"team": "safety"}).status_code == 404
    actions = [row["action"] for row in client.get("/v1/audit").json()["audit"]]
    assert actions[0] == "team.remove" and "model.team" in actions
