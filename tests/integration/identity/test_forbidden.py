"""What may not be done is refused, says why, changes nothing, and is found in the audit trail under the right name."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from roblox_ml_core.auth import make
from roblox_ml_core.digests import sha256_bytes
from roblox_ml_core.storage import blob_key

from .conftest import STRANGER, World  # type: ignore[import-not-found,unused-ignore]

Attempt = Callable[[World], Any]
_CHAMPION = "/v1/models/toxicity/aliases/champion"


def _after(world: World, token: str, *preparations: tuple[str, str, Any]) -> Any:
    """Use a token that was good until the administrator did something."""
    world.ask(token, "GET", "/v1/models").raise_for_status()
    for method, path, body in preparations:
        world.ask("local", method, path, body).raise_for_status()
    return world.ask(token, "PUT", _CHAMPION, {"version": 2})


def _revoked_service_token(world: World) -> Any:
    made = world.service_token(world.fresh("promote"), "ci", role="promote", scope="team:safety")
    return _after(world, made["token"], ("DELETE", f"/v1/tokens/{made['id']}", None))


def _role_removed(world: World) -> Any:
    who = world.fresh("promote")
    query = f"/v1/grants?principal=corp:{who}&scope=team:safety&role=promote"
    return _after(world, world.token(who), ("DELETE", query, None), _viewer(who))


def _role_removed_under_a_token(world: World) -> Any:
    who = world.fresh("promote")
    made = world.service_token(who, "ci", role="promote", scope="team:safety")
    query = f"/v1/grants?principal=corp:{who}&scope=team:safety&role=promote"
    return _after(world, made["token"], ("DELETE", query, None), _viewer(who))


def _viewer(who: str) -> tuple[str, str, Any]:
    return ("POST", "/v1/grants", {"principal": f"corp:{who}", "scope": "team:safety", "role": "view"})


def _replayed_after_logout(world: World) -> Any:
    token = world.token(world.fresh("promote"))
    assert world.ask(token, "POST", "/v1/logout").json()["ended"] is True
    return world.ask(token, "PUT", _CHAMPION, {"version": 2})


def _revoked_person(world: World) -> Any:
    who = world.fresh("promote")
    return _after(world, world.token(who), ("POST", "/v1/principals/revoke", {"principal": f"corp:{who}"}))


def _disabled_person_s_service_token(world: World) -> Any:
    who = world.fresh("promote")
    made = world.service_token(who, "ci", role="promote", scope="team:safety")
    gone = {"principal": f"corp:{who}", "disable": True}
    return _after(world, made["token"], ("POST", "/v1/principals/revoke", gone))


def _expired_service_token(world: World) -> Any:
    made = world.service_token(world.fresh("promote"), "ci", role="promote", scope="team:safety", days=1)
    from roblox_ml_platform.identity import tables as i
    from sqlalchemy import update

    with world.client.app.state.context.database.write() as connection:  # type: ignore[attr-defined]
        connection.execute(update(i.tokens).where(i.tokens.c.id == made["id"][4:]).values(expires_at=time.time() - 1))
    return world.ask(made["token"], "PUT", _CHAMPION, {"version": 2})


def _narrow_token(world: World) -> Any:
    made = world.service_token(world.fresh("promote"), "reader", role="view", scope="team:safety")
    return world.ask(made["token"], "PUT", _CHAMPION, {"version": 2})


def _token_makes_token(world: World) -> Any:
    made = world.service_token(world.fresh("admin"), "ci", role="admin", scope="team:safety")
    return world.ask(made["token"], "POST", "/v1/tokens", {"name": "more"})


def _others_token(world: World) -> Any:
    made = world.service_token(world.fresh("promote"), "ci", role="promote", scope="team:safety")
    return world.ask("eve", "DELETE", f"/v1/tokens/{made['id']}")


def _foreign_blob(world: World) -> Any:
    """A digest is known from somewhere; a package that names it would make the bytes one's own."""
    secret = world.put("ann", b"the code of team safety")
    body = world.package("eve", "mine")
    body["manifest"]["model/code/stolen.py"] = {"sha256": secret, "size": 23}
    return world.ask("eve", "POST", "/v1/models/stolen/versions", body)


def _read_foreign_blob(world: World) -> Any:
    digest = world.put("ann", b"the code of team safety")
    return world.ask("eve", "GET", f"/v1/store/{blob_key(digest)}")


def _alg_none(world: World) -> Any:
    _head, body, _ = world.token("ops").split(".")
    return world.ask(f"eyJhbGciOiJub25lIiwia2lkIjoiayJ9.{body}.", "PUT", _CHAMPION, {"version": 2})


def _promote(who: str) -> Attempt:
    return lambda world: world.ask(who, "PUT", _CHAMPION, {"version": 2})


def _with(**changed: Any) -> Attempt:
    return lambda world: world.ask(world.token("ops", **changed), "PUT", _CHAMPION, {"version": 2})


def _does(who: str, method: str, path: str, body: Any = None, **more: Any) -> Attempt:
    return lambda world: world.ask(who, method, path, body, **more)


NOW = int(time.time())
# what: (attempt, status, what the reason says, who the audit trail names; None: nobody was proved)
FORBIDDEN: dict[str, tuple[Attempt, int, str, str | None]] = {
    # without the role
    "promote with register": (_promote("ann"), 403, "may not promote model toxicity of team safety", "corp:ann"),
    "promote with view": (_promote("vic"), 403, "holds view on team:safety", "corp:vic"),
    "promote another team's model": (_promote("eve"), 403, "may not promote", "corp:eve"),
    "promote with no role": (_promote("zoe"), 403, "holds no role at all", "corp:zoe"),
    "roll back another team's": (_does("eve", "POST", _CHAMPION + "/rollback"), 403, "promote", "corp:eve"),
    "see another team's model": (_does("eve", "GET", "/v1/models/toxicity"), 403, "may not view", "corp:eve"),
    "see a model that is not there": (_does("eve", "GET", "/v1/models/nothing"), 403, "may not view", "corp:eve"),
    "register into another team's model": (
        lambda world: world.register("eve", "toxicity", "trojan"), 403, "may not register model toxicity", "corp:eve"),
    "register for another team": (
        lambda world: world.register("eve", "fresh", "x", team="safety"), 403, "register team safety", "corp:eve"),
    "register with view": (
        _does("vic", "POST", "/v1/models/toxicity/versions", {"package": {}, "manifest": {}}), 403, "register",
        "corp:vic"),
    "upload with view": (
        _does("vic", "PUT", f"/v1/store/{blob_key(sha256_bytes(b'x'))}", content=b"x"), 403, "may not run", "corp:vic"),
    "upload for another team": (
        _does("eve", "PUT", f"/v1/store/{blob_key(sha256_bytes(b'x'))}", content=b"x", headers={"x-rml-team": "safety"}),
        403, "run team safety", "corp:eve"),
    "delete without admin": (_does("bob", "DELETE", "/v1/models/toxicity/versions/2"), 403, "may not admin", "corp:bob"),
    "delete an alias without admin": (_does("bob", "DELETE", _CHAMPION), 403, "may not admin", "corp:bob"),
    "tag with view": (
        _does("vic", "PATCH", "/v1/models/toxicity/versions/1", {"tags": {"ok": "yes"}}), 403, "register", "corp:vic"),
    "take down another team's endpoint": (_does("eve", "DELETE", "/v1/endpoints/toxicity"), 403, "promote", "corp:eve"),
    "point another team's endpoint at one's own model": (
        _does("eve", "PUT", "/v1/endpoints/toxicity", {"model": "ranker", "version": 1}), 403, "model toxicity",
        "corp:eve"),
    "serve another team's model": (
        _does("eve", "PUT", "/v1/endpoints/mine", {"model": "toxicity", "version": 1}), 403, "model toxicity",
        "corp:eve"),
    "take another team's model": (
        _does("eve", "PUT", "/v1/models/toxicity/team", {"team": "ads"}), 403, "may not admin", "corp:eve"),
    "give one's model to a team one does not run": (
        _does("meg", "PUT", "/v1/models/toxicity/team", {"team": "ads"}), 403, "admin team ads", "corp:meg"),
    # the platform's own
    "speak for a model server": (
        _does("meg", "PUT", "/v1/servers/local/status", {"http": "evil:1", "grpc": "evil:2", "models": []}), 403,
        "serve the whole platform", "corp:meg"),
    "read what every door reads": (_does("meg", "GET", "/v1/snapshot"), 403, "the whole platform", "corp:meg"),
    "collect garbage": (_does("meg", "POST", "/v1/gc", {"dry_run": False}), 403, "admin the whole", "corp:meg"),
    "read the whole audit trail": (_does("meg", "GET", "/v1/audit"), 403, "admin the whole platform", "corp:meg"),
    "read another team's audit trail": (_does("eve", "GET", "/v1/audit?subject=toxicity"), 403, "admin", "corp:eve"),
    "make a team": (_does("meg", "PUT", "/v1/teams/mine"), 403, "admin the whole platform", "corp:meg"),
    "shut somebody out": (
        _does("meg", "POST", "/v1/principals/revoke", {"principal": "corp:ops"}), 403, "admin", "corp:meg"),
    # roles
    "make oneself administrator": (
        _does("ann", "POST", "/v1/grants", {"principal": "corp:ann", "scope": "team:safety", "role": "admin"}), 403,
        "may not admin team safety", "corp:ann"),
    "make oneself administrator of everything": (
        _does("meg", "POST", "/v1/grants", {"principal": "corp:meg", "scope": "*", "role": "admin"}), 403,
        "admin the whole platform", "corp:meg"),
    "give roles in another team": (
        _does("eve", "POST", "/v1/grants", {"principal": "corp:eve", "scope": "team:safety", "role": "view"}), 403,
        "admin team safety", "corp:eve"),
    "give a role over another team's model": (
        _does("eve", "POST", "/v1/grants", {"principal": "corp:eve", "scope": "model:toxicity", "role": "view"}), 403,
        "admin model toxicity", "corp:eve"),
    "role removed while the login lives": (_role_removed, 403, "may not promote", "corp:fresh"),
    "role removed while the token lives": (_role_removed_under_a_token, 403, "may not promote", "corp:fresh"),
    # secrets and tokens
    "take another team's secret": (
        _does("eve", "PUT", "/v1/secrets/hub-password", {"team": "ads"}), 403, "admin team safety", "corp:eve"),
    "free another team's secret": (_does("eve", "DELETE", "/v1/secrets/hub-password"), 403, "admin team safety", "corp:eve"),
    "a token for what one may not": (
        _does("ann", "POST", "/v1/tokens", {"name": "t", "role": "promote", "scope": "team:safety"}), 403,
        "no token for what you may not do", "corp:ann"),
    "a token in another team's name": (
        _does("eve", "POST", "/v1/tokens", {"name": "t", "owner": "service:safety/ci"}), 403, "admin team safety",
        "corp:eve"),
    "a token makes a token": (_token_makes_token, 403, "a service token cannot make tokens", "corp:fresh"),
    "another's token revoked": (_others_token, 403, "admin team safety", "corp:eve"),
    "everybody's tokens listed": (_does("meg", "GET", "/v1/tokens?everybody=true"), 403, "admin", "corp:meg"),
    "more than the token's limit": (_narrow_token, 403, "limited to view on team:safety", "corp:fresh"),
    # credentials that prove nothing
    "revoked service token": (_revoked_service_token, 401, "was revoked", None),
    "expired service token": (_expired_service_token, 401, "has expired", None),
    "service token nobody made": (lambda world: _promote(make().text)(world), 401, "not known here", None),
    "mistyped service token": (lambda world: _promote(make().text[:-1] + "!")(world), 401, "not a whole service", None),
    "token of somebody shut out": (_disabled_person_s_service_token, 401, "is disabled", None),
    "replay after log-out": (_replayed_after_logout, 401, "ended by a log-out", None),
    "replay after revocation": (_revoked_person, 401, "was revoked", None),
    "expired": (_with(exp=NOW - 300, iat=NOW - 900), 401, "has expired", None),
    "not yet valid": (_with(nbf=NOW + 3600), 401, "not valid yet", None),
    "forged signature": (_with(key=STRANGER), 401, "signature", None),
    "no signature": (_alg_none, 401, "algorithm", None),
    "for another service": (_with(aud="billing"), 401, "for another service", None),
    "from another issuer": (_with(iss="https://evil.example.org"), 401, "not trusted", None),
    "with a key of its own": (_with(headers={"jku": "https://evil.example.org/keys"}), 401, "jku", None),
    "of no kind": (lambda world: _promote("x" * 50)(world), 401, "not a token of this", None),
    "in the address": (
        lambda world: world.client.put(f"{_CHAMPION}?access_token={world.admin}", json={"version": 2}), 401,
        "sent in the address", None),
    "in the address beside a good one": (
        lambda world: world.ask("local", "GET", f"/v1/models?q={make().text}"), 401, "sent in the address", None),
    "two at once": (
        lambda world: world.client.request(
            "GET", "/v1/models",
            headers=[("authorization", "Bearer x"), ("authorization", f"Bearer {world.admin}")]),
        401, "cannot be read", None),
    "with another scheme": (
        lambda world: world.client.get("/v1/models", headers={"authorization": f"Basic {world.admin}"}), 401,
        "cannot be read", None),
}  # fmt: skip


@pytest.mark.parametrize("what", FORBIDDEN)
def test_forbidden(world: World, what: str) -> None:
    attempt, status, says, principal = FORBIDDEN[what]
    before, made, champion = world.state(), world.made, world.ask("local", "GET", _CHAMPION).json()
    answer = attempt(world)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, {401: "unauthorized", 403: "forbidden"}[status])
    assert says in error["message"], error
    assert error["hint"]
    assert world.ask("local", "GET", _CHAMPION).json() == champion
    if world.made == made:  # nobody new had to be there for the attempt
        assert world.state() == before
    row = world.audit(outcome="refused")[0]
    assert row["action"] == "refused" and row["detail"]["reason"] == error["message"]
    assert row["subject"].startswith(("GET /v1/", "PUT /v1/", "POST /v1/", "DELETE /v1/", "PATCH /v1/"))
    if principal is None:
        assert (row["principal"], row["detail"]["address"]) == ("unknown", "testclient")
    else:
        assert row["principal"].startswith(principal)
        assert row["actor"] == row["principal"]
    if status == 401:
        assert answer.headers["www-authenticate"] == "Bearer"
    assert world.admin not in answer.text


def test_a_foreign_blob_is_not_there(world: World) -> None:
    """Neither to read, nor to ask about, nor to make one's own by registering a package that names it."""
    secret = b"the code of team safety"
    refused = _foreign_blob(world)
    assert (refused.status_code, refused.json()["error"]["details"]["missing"]) == (409, [sha256_bytes(secret)])
    path = f"/v1/store/{blob_key(sha256_bytes(secret))}"
    for who in ("eve", "zoe", "kay"):
        assert [world.ask(who, method, path).status_code for method in ("GET", "HEAD")] == [404, 404], who
    for who in ("vic", "meg", "ops", "local", "system:serviceaccount:ml-safety:trainer"):
        assert world.ask(who, "GET", path).content == secret, who
    # Who has the bytes may send them, and reads what they sent.
    world.put("eve", secret)
    assert world.ask("eve", "GET", path).content == secret
    # A role for one model shows that model's files, and nothing else of the team.
    files = world.ask("kay", "GET", "/v1/models/toxicity/versions/1").json()["manifest"]
    assert world.ask("kay", "GET", f"/v1/store/{blob_key(files['model/code/m.py']['sha256'])}").content == b"one"


def test_what_is_not_one_s_own_is_not_listed(world: World) -> None:
    def models(who: str) -> list[str]:
        return [model["name"] for model in world.ask(who, "GET", "/v1/models").json()["models"]]

    assert models("local") == models("ops") and {"ranker", "toxicity"} <= set(models("ops"))
    assert (models("eve"), models("kay"), models("zoe")) == (["ranker"], ["toxicity"], [])
    assert "toxicity" in models("vic") and "ranker" not in models("vic")
    assert world.ask("eve", "GET", "/v1/endpoints").json()["endpoints"] == []
    assert [team["name"] for team in world.ask("eve", "GET", "/v1/teams").json()["teams"]] == ["ads"]
    assert [one["name"] for one in world.ask("eve", "GET", "/v1/secrets").json()["secrets"]] == ["ads-key"]
    assert {one["principal"] for one in world.ask("eve", "GET", "/v1/grants").json()["grants"]} == {"corp:eve"}
    seen = world.ask("meg", "GET", "/v1/grants").json()["grants"]
    assert {one["scope"] for one in seen} == {"team:safety", "model:toxicity"}


def test_registering_without_promote_stores_and_leaves_the_alias(world: World) -> None:
    world.register("bob", "spam", "first", alias="champion").raise_for_status()
    answer = world.register("ann", "spam", "three", alias="champion").json()
    assert (answer["version"], answer["created"], answer["gate"]["passed"]) == (2, True, True)
    assert (answer["alias"]["moved"], answer["alias"]["version"]) == (False, 1)
    assert "may not promote" in answer["alias"]["reason"]
    row = world.audit(outcome="refused")[0]
    assert (row["principal"], row["subject"], row["detail"]["action"]) == ("corp:ann", "spam@champion", "promote")
    assert world.register("bob", "spam", "four", alias="champion").json()["alias"]["moved"] is True


def test_another_team_s_secret_cannot_be_named_in_a_pipeline(world: World) -> None:
    from roblox_ml_core.auth import Grant, Principal, Scope
    from roblox_ml_core.errors import Forbidden
    from roblox_ml_platform.identity.secrets import require_secrets

    runner = Principal("corp:pat", "user", grants=frozenset({Grant("run", Scope("team", "safety"))}))
    with world.client.app.state.context.database.read() as connection:  # type: ignore[attr-defined]
        require_secrets(connection, runner, ["hub-password"], "safety")
        for names, team in (
            (["ads-key"], "safety"),
            (["ads-key"], "ads"),
            (["nobody-s"], "safety"),
            (["ads-key"], None),
        ):
            with pytest.raises(Forbidden):
                require_secrets(connection, runner, names, team)
