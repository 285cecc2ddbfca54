"""A real OpenID provider for tests, and what it lacks.

`oidc-provider-mock` speaks the authorization-code flow, signs its tokens, and serves discovery and keys over HTTP. It knows no
device flow (RFC 8628), sends no identity token on a refresh, does not look at PKCE and wants a client secret. This front
wraps it as WSGI middleware, with the same address and so the same issuer: it adds the two endpoints of RFC 8628, and gets
every token it hands out from the provider itself, by an authorization-code exchange for the person who confirmed. It
signs nothing. For the browser flow it checks the PKCE verifier and lets clients in that have no secret.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import oidc_provider_mock
from werkzeug.serving import make_server
from werkzeug.test import Client
from werkzeug.wrappers import Request, Response

_DEVICE = "urn:ietf:params:oauth:grant-type:device_code"
_BACK = "http://127.0.0.1/back"


@dataclass
class Pending:
    """A code that waits for somebody; `script` are answers to give before looking (slow_down, …)."""

    user_code: str
    client_id: str
    scope: str
    expires_at: float
    sub: str | None = None
    denied: bool = False
    script: list[str] = field(default_factory=list)
    asked_at: list[float] = field(default_factory=list)


class Provider:
    """The provider with its front; `url` is the issuer."""

    def __init__(self, *, token_age: float = 3600.0, interval: int = 1, expires_in: float = 60.0) -> None:
        self._mock = oidc_provider_mock.app(access_token_max_age=timedelta(seconds=token_age))
        self.interval, self.expires_in = interval, expires_in
        self.script: list[str] = []
        self.refreshes, self.revoked = 0, []  # type: int, list[str]
        self.pending: dict[str, Pending] = {}
        self._subjects: dict[str, tuple[str, str, str]] = {}  # refresh token → subject, client, scope
        self._challenge = ""
        self.url = ""

    def user(self, sub: str, **claims: Any) -> None:
        Client(self._mock).put(f"/users/{sub}", json={"email": f"{sub}@example.org", "email_verified": True, **claims})

    def confirm(self, user_code: str, sub: str) -> None:
        """What a person does at the address that was shown."""
        self._by_code(user_code).sub = sub

    def deny(self, user_code: str) -> None:
        self._by_code(user_code).denied = True

    def _by_code(self, user_code: str) -> Pending:
        return next(one for one in self.pending.values() if one.user_code == user_code)

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        request = Request(environ)
        if request.path == "/device_authorization":
            answer = self._authorize(request)
        elif request.path == "/revoke":
            self.revoked.append(request.form["token"])
            answer = _json({})
        elif request.path == "/oauth2/token" and request.form.get("grant_type") == _DEVICE:
            answer = self._poll(request)
        elif request.path == "/oauth2/token" and request.form.get("grant_type") == "refresh_token":
            answer = self._refresh(request)
        elif request.path == "/.well-known/openid-configuration":
            found = Client(self._mock).get(request.path, base_url=self.url).get_json()
            more = {"device_authorization_endpoint": "/device_authorization", "revocation_endpoint": "/revoke"}
            answer = _json({**found, **{name: self.url + path for name, path in more.items()}})
        else:
            if request.path == "/oauth2/authorize" and "code_challenge" in request.args:
                self._challenge = request.args["code_challenge"]
            if request.path == "/oauth2/token":
                if not self._proves(request.form.get("code_verifier", "")):
                    return _json({"error": "invalid_grant"}, 400)(environ, start)
                body += b"&client_secret=any"
                environ["CONTENT_LENGTH"] = str(len(body))
            environ["wsgi.input"] = io.BytesIO(body)  # whose it is was read from it
            return self._mock(environ, start)
        return answer(environ, start)

    def _proves(self, verifier: str) -> bool:
        """RFC 7636: who asks for the token is who asked for the code."""
        seen = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        return seen == self._challenge

    def _authorize(self, request: Request) -> Response:
        code, user_code = secrets.token_urlsafe(24), f"{secrets.token_hex(2)}-{secrets.token_hex(2)}".upper()
        self.pending[code] = Pending(
            user_code, request.form["client_id"], request.form["scope"], time.time() + self.expires_in,
            script=list(self.script),
        )  # fmt: skip
        return _json(
            {"device_code": code, "user_code": user_code, "verification_uri": f"{self.url}/device",
             "expires_in": int(self.expires_in), "interval": self.interval}
        )  # fmt: skip

    def _poll(self, request: Request) -> Response:
        one = self.pending.get(request.form["device_code"])
        if one is None or one.client_id != request.form["client_id"]:
            return _json({"error": "invalid_grant"}, 400)
        one.asked_at.append(time.monotonic())
        if one.script:
            said = one.script.pop(0)
            return _json({"error": said}, 503 if said == "away" else 400)
        if time.time() > one.expires_at:
            return _json({"error": "expired_token"}, 400)
        if one.denied:
            return _json({"error": "access_denied"}, 400)
        if one.sub is None:
            return _json({"error": "authorization_pending"}, 400)
        del self.pending[request.form["device_code"]]  # once
        return _json(self._tokens(one.sub, one.client_id, one.scope))

    def _refresh(self, request: Request) -> Response:
        """Rotates: the token that was used is worth nothing afterwards."""
        self.refreshes += 1
        known = self._subjects.pop(request.form["refresh_token"], None)
        if known is None or request.form["refresh_token"] in self.revoked:
            return _json({"error": "invalid_grant", "error_description": "this refresh token was used already"}, 400)
        return _json(self._tokens(*known))

    def _tokens(self, sub: str, client_id: str, scope: str) -> dict[str, Any]:
        client = Client(self._mock)
        scope = " ".join(word for word in scope.split() if word != "offline_access")
        query = {"response_type": "code", "client_id": client_id, "redirect_uri": _BACK, "scope": scope, "state": "s"}
        back = client.post("/oauth2/authorize", query_string=query, data={"sub": sub}, base_url=self.url)
        code = parse_qs(urlsplit(back.headers["location"]).query)["code"][0]
        fields = {"grant_type": "authorization_code", "code": code, "redirect_uri": _BACK, "client_id": client_id}
        found: dict[str, Any] = client.post(
            "/oauth2/token", data={**fields, "client_secret": "any"}, base_url=self.url
        ).get_json()
        self._subjects[found["refresh_token"]] = (sub, client_id, scope)
        return found


def _json(value: Any, status: int = 200) -> Response:
    return Response(json.dumps(value), status, content_type="application/json")


@contextmanager
def running(provider: Provider) -> Iterator[Provider]:
    """The provider on a free port of this machine."""
    server = make_server("127.0.0.1", 0, provider, threaded=True)
    provider.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()
