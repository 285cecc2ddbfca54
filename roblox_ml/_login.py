"""Logging in with an OpenID provider: by a code that is typed on any device (RFC 8628), or by this machine's browser (PKCE).

The device flow needs no browser here, so it works on a remote notebook server; the browser flow is for providers without it.
Nothing secret is ever shown: the person sees an address and a short code that is worth nothing without their own log-in.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from ._credentials import expiry, origin, post_form
from .errors import NotRunning, RmlSdkError

__all__ = ["LoginFailed", "Provider", "browser_flow", "device_flow", "discover", "entry", "require_private"]

_DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
_INTERVAL = 5.0  # seconds between two questions when the provider names none (RFC 8628, 3.2)
_SLOWER = 5.0  # what slow_down adds (RFC 8628, 3.5)
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
Show = Callable[[str, str], None]


class LoginFailed(RmlSdkError):
    """The provider said no, the person did, or nobody answered in time."""


@dataclass(frozen=True, slots=True)
class Provider:
    """What its discovery document says, and the public client that we are to it."""

    name: str
    issuer: str
    client_id: str
    scopes: str
    token_endpoint: str
    device_endpoint: str
    authorization_endpoint: str
    revocation_endpoint: str


def require_private(url: str, what: str) -> None:
    """Refuse to send or fetch credentials in the clear."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
        raise LoginFailed(
            f"{what} {origin(url)} is not https",
            why="what is sent there could be read by anybody on the way",
            fix="use its https address",
        )


def discover(about: Mapping[str, Any]) -> Provider:
    """The provider that the control plane named, as it describes itself."""
    issuer = str(about["issuer"]).rstrip("/")
    require_private(issuer, "the identity provider")
    found = _get(f"{issuer}/.well-known/openid-configuration")
    if str(found.get("issuer", "")).rstrip("/") != issuer:
        raise LoginFailed(
            f"{issuer} calls itself {str(found.get('issuer'))[:200]!r}",
            why="a token of it would not be believed",
            fix="have RML_IDENTITY_ISSUERS name the issuer exactly",
        )
    ends = {name: str(found.get(name) or "") for name in (
        "token_endpoint", "device_authorization_endpoint", "authorization_endpoint", "revocation_endpoint",
    )}  # fmt: skip
    for name, url in ends.items():
        if url:
            require_private(url, f"the identity provider's {name}")
    return Provider(
        str(about["name"]), issuer, str(about["client_id"]), str(about.get("scopes") or "openid"),
        ends["token_endpoint"], ends["device_authorization_endpoint"], ends["authorization_endpoint"],
        ends["revocation_endpoint"],
    )  # fmt: skip


def device_flow(
    provider: Provider,
    show: Show,
    *,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, Any]:
    """Have the person confirm a code elsewhere, and wait for it. `show` gets the address and the code.

    Raises:
        LoginFailed: denied, expired, or refused by the provider.
    """
    fields = {"client_id": provider.client_id, "scope": provider.scopes}
    status, asked = post_form(provider.device_endpoint, fields)
    if status >= 400 or not {"device_code", "user_code", "verification_uri"} <= set(asked):
        raise _refused(provider, status, asked)
    end = clock() + float(asked.get("expires_in") or 600)
    interval = max(0.0, float(asked.get("interval") or _INTERVAL))
    show(_printable(str(asked["verification_uri"])), _printable(str(asked["user_code"])))
    fields = {"grant_type": _DEVICE_GRANT, "device_code": str(asked["device_code"]), "client_id": provider.client_id}
    while clock() < end:
        sleep(interval)
        try:
            status, answer = post_form(provider.token_endpoint, fields)
        except NotRunning:
            interval += _SLOWER  # it may be back before the code has expired
            continue
        error = answer.get("error")
        if status < 400:
            return answer
        if error == "slow_down":
            interval += _SLOWER
        elif error == "access_denied":
            raise LoginFailed("the log-in was denied", fix="rml login, and confirm it this time")
        elif error == "expired_token":
            break
        elif error != "authorization_pending" and status < 500:
            raise _refused(provider, status, answer)
    raise LoginFailed("nobody confirmed the code in time", fix="rml login, for a new code")


def browser_flow(provider: Provider, show: Show, *, wait: float = 300.0) -> dict[str, Any]:
    """Have the person log in with a browser on this machine, which comes back to a port of ours.

    PKCE makes the code useless to whoever else sees it; the state ties the answer to this question, the nonce the token.
    """
    state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    answers: list[dict[str, str]] = []

    class Back(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urllib.parse.urlsplit(self.path)
            given = dict(urllib.parse.parse_qsl(parts.query))
            mine = parts.path == "/" and secrets.compare_digest(given.get("state", "").encode(), state.encode())
            if mine:
                answers.append(given)
            text = b"Done: you can close this page." if mine else b"This is not the answer that was waited for."
            self.send_response(200 if mine else 400)
            self.send_header("content-type", "text/plain; charset=utf-8")
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: the line would hold the code."""

    with HTTPServer(("127.0.0.1", 0), Back) as server:
        here = f"http://127.0.0.1:{server.server_address[1]}/"
        query = {
            "response_type": "code", "client_id": provider.client_id, "redirect_uri": here, "scope": provider.scopes,
            "state": state, "nonce": nonce, "code_challenge": challenge, "code_challenge_method": "S256",
        }  # fmt: skip
        joint = "&" if "?" in provider.authorization_endpoint else "?"
        show(f"{provider.authorization_endpoint}{joint}{urllib.parse.urlencode(query)}", "")
        end = time.monotonic() + wait
        while not answers and (left := end - time.monotonic()) > 0:
            server.timeout = left
            server.handle_request()
    if not answers:
        raise LoginFailed("nobody logged in in time", fix="rml login, and open the address in a browser here")
    if "code" not in answers[0]:
        raise _refused(provider, 400, dict(answers[0]))
    fields = {
        "grant_type": "authorization_code", "code": answers[0]["code"], "redirect_uri": here,
        "client_id": provider.client_id, "code_verifier": verifier,
    }  # fmt: skip
    status, answer = post_form(provider.token_endpoint, fields)
    if status >= 400:
        raise _refused(provider, status, answer)
    claimed = _claims(str(answer.get("id_token", ""))).get("nonce")
    if claimed != nonce:
        raise LoginFailed("the provider's token answers another question", fix="rml login again")
    return answer


def entry(provider: Provider, answer: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a log-in."""
    token = answer.get("id_token")
    if not isinstance(token, str):
        raise LoginFailed(
            f"{provider.name} sent no identity token",
            why="the scopes that were asked for do not include openid, or it is not an OpenID provider",
            fix="have RML_IDENTITY_ISSUERS list the scope openid for it",
        )
    return {
        "kind": "oidc",
        "token": token,
        "expires_at": expiry(token),
        "refresh_token": answer.get("refresh_token"),
        "token_endpoint": provider.token_endpoint,
        "revocation_endpoint": provider.revocation_endpoint,
        "client_id": provider.client_id,
        "issuer": provider.issuer,
    }


def _get(url: str) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310 - the scheme was checked
            found: dict[str, Any] = json.loads(answer.read())
            return found
    except (urllib.error.HTTPError, ValueError) as error:
        raise LoginFailed(f"{url} is no description of an OpenID provider: {error}") from None
    except OSError as error:
        raise NotRunning(
            f"the identity provider at {origin(url)} does not answer: {getattr(error, 'reason', error)}",
            fix="try again, or use a service token: RML_TOKEN",
        ) from None


def _refused(provider: Provider, status: int, answer: Mapping[str, Any]) -> LoginFailed:
    said = _printable(str(answer.get("error_description") or answer.get("error") or f"HTTP {status}"))
    return LoginFailed(f"{provider.name} refuses the log-in", why=f"it says: {said[:300]}", fix="rml login again")


def _printable(text: str) -> str:
    """A provider's words for a terminal: nothing that moves the cursor."""
    return "".join(char for char in text if char.isprintable())[:2000]


def _claims(token: str) -> dict[str, Any]:
    try:
        part = token.split(".")[1]
        found = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (IndexError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
