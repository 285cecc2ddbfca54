"""A control plane with an issuer, two teams and the people in them, over SQLite and over PostgreSQL."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from fastapi.testclient import TestClient
from roblox_ml_core.digests import canonical_json, sha256_bytes
from roblox_ml_core.settings import ControlPlaneSettings, HomeSettings, IdentitySettings, MlflowSettings
from roblox_ml_core.storage import blob_key
from roblox_ml_platform.app import create_app

from ..control_plane.conftest import postgres  # type: ignore[import-not-found,unused-ignore]  # noqa: F401

KEY, STRANGER = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))
CORP, CLUSTER = "https://id.example.org", "https://kubernetes.default.svc"
SIGNATURE = {
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
}
ROLES = {
    "corp:ann": [("team:safety", "register")],
    "corp:bob": [("team:safety", "promote")],
    "corp:vic": [("team:safety", "view")],
    "corp:meg": [("team:safety", "admin")],
    "corp:eve": [("team:ads", "admin")],
    "corp:ops": [("*", "admin")],
    "corp:kay": [("model:toxicity", "view")],
}


class World:
    """The control plane, and what everybody in it sends."""

    def __init__(self, client: TestClient, admin: str) -> None:
        self.client, self.admin = client, admin
        self.made = 0

    def fresh(self, role: str) -> str:
        """Somebody new with a role in team safety, whom an attempt may ruin."""
        self.made += 1
        body = {"principal": f"corp:fresh{self.made}", "scope": "team:safety", "role": role}
        self.ask("local", "POST", "/v1/grants", body).raise_for_status()
        return f"fresh{self.made}"

    def token(self, sub: str, key: Any = KEY, headers: dict[str, Any] | None = None, **changed: Any) -> str:
        now = int(time.time())
        claims = {"iss": CORP, "aud": "roblox-ml", "sub": sub, "iat": now, "exp": now + 600, **changed}
        return jwt.encode(claims, key, "RS256", headers={"kid": "k", **(headers or {})})

    def bearer(self, who: str) -> str:
        """`local`, a subject of the company's issuer, or a whole token."""
        if who == "local":
            return self.admin
        if who.startswith("system:"):
            return self.token(who, iss=CLUSTER)
        return who if len(who) > 40 else self.token(who)

    def ask(self, who: str, method: str, path: str, body: Any = None, **more: Any) -> Any:
        headers = {"authorization": f"Bearer {self.bearer(who)}", **more.pop("headers", {})}
        content = more.pop("content", None)
        if body is not None:
            content, headers["content-type"] = json.dumps(body).encode(), "application/json"
        return self.client.request(method, path, content=content, headers=headers, **more)

    def put(self, who: str, data: bytes, **headers: str) -> str:
        digest = sha256_bytes(data)
        self.ask(who, "PUT", f"/v1/store/{blob_key(digest)}", content=data, headers=headers).raise_for_status()
        return digest

    def package(self, who: str, mark: str) -> dict[str, Any]:
        """The body of a registration whose blobs `who` uploaded."""

        def entry(data: bytes) -> dict[str, Any]:
            return {"sha256": self.put(who, data), "size": len(data)}

        files = {"signature.json": entry(canonical_json(SIGNATURE)), "model/code/m.py": entry(mark.encode())}
        info = {"schema": 1, "format": "python", "files": files, "labels": None, "options": {"entry": "m:predict"}}
        return {"package": info, "manifest": {**files, "package.json": entry(canonical_json(info))}}

    def register(self, who: str, model: str, mark: str, **fields: Any) -> Any:
        return self.ask(who, "POST", f"/v1/models/{model}/versions", {**self.package(who, mark), **fields})

    def service_token(self, who: str, name: str, **fields: Any) -> dict[str, Any]:
        answer = self.ask(who, "POST", "/v1/tokens", {"name": name, **fields})
        answer.raise_for_status()
        return dict(answer.json())

    def audit(self, **query: Any) -> list[dict[str, Any]]:
        answer = self.ask("local", "GET", "/v1/audit", params={"limit": 1000, **query})
        return list(answer.json()["audit"])

    def state(self) -> Any:
        """What a refused attempt must leave as it is."""
        paths = ["/v1/models", "/v1/endpoints", "/v1/grants", "/v1/teams", "/v1/secrets", "/v1/models/toxicity"]
        found = [self.ask("local", "GET", path).json() for path in paths]
        tokens = self.ask("local", "GET", "/v1/tokens", params={"everybody": "true"}).json()["tokens"]
        # That a token was used is no change of what it may do.
        return [*found, [{key: value for key, value in token.items() if key != "used_at"} for token in tokens]]


def issuers(folder: Path) -> list[dict[str, Any]]:
    public = {**json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(KEY.public_key())), "kid": "k", "use": "sig"}
    keys = folder / "jwks.json"
    keys.write_text(json.dumps({"keys": [public]}))
    groups = {"ml-ads": ["team:ads=register"]}
    pods = {"system:serviceaccount:ml-safety:*": ["team:safety=register"]}
    common = {"audience": "roblox-ml", "jwks_uri": keys.as_uri()}
    return [
        {**common, "name": "corp", "issuer": CORP, "groups": groups, "client_id": "rml"},
        {**common, "name": "pods", "issuer": CLUSTER, "kind": "pod", "subjects": pods},
    ]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    return "" if request.param == "sqlite" else str(request.getfixturevalue("postgres")())


@pytest.fixture(scope="module")
def make_world(tmp_path_factory: pytest.TempPathFactory, database_url: str) -> Iterator[Callable[..., World]]:
    """A function that starts control planes; those of one module share a database where that is PostgreSQL."""
    opened: list[TestClient] = []

    def make(**identity: Any) -> World:
        folder = tmp_path_factory.mktemp("home")
        home = HomeSettings(home=folder, store="", token=None)
        settings = IdentitySettings(issuers=issuers(folder), **identity)  # type: ignore[arg-type]
        control = ControlPlaneSettings(database_url=database_url, max_wait_s=0.01)  # type: ignore[arg-type]
        app = create_app(control, home, MlflowSettings(enabled=False), settings)
        client = TestClient(app)
        client.__enter__()
        opened.append(client)
        world = World(client, home.ensure_token())
        for team in ("safety", "ads"):
            world.ask("local", "PUT", f"/v1/teams/{team}").raise_for_status()
        for principal, held in ROLES.items():
            for scope, role in held:
                body = {"principal": principal, "scope": scope, "role": role}
                world.ask("local", "POST", "/v1/grants", body).raise_for_status()
        return world

    yield make
    for client in opened:
        client.__exit__(None, None, None)


@pytest.fixture(scope="module")
def world(make_world: Callable[..., World]) -> World:
    """Model toxicity (two versions, champion is the first) and endpoint of team safety, model ranker of team ads."""
    world = make_world(failures_per_minute=1000)
    for mark in ("one", "two"):
        world.register("bob", "toxicity", mark).raise_for_status()
    world.ask("bob", "PUT", "/v1/models/toxicity/aliases/champion", {"version": 1}).raise_for_status()
    world.ask("bob", "PUT", "/v1/endpoints/toxicity", {"model": "toxicity", "alias": "champion"}).raise_for_status()
    world.register("eve", "ranker", "r").raise_for_status()
    world.ask("meg", "PUT", "/v1/secrets/hub-password", {"team": "safety"}).raise_for_status()
    world.ask("eve", "PUT", "/v1/secrets/ads-key", {"team": "ads"}).raise_for_status()
    return world
