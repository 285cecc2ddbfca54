"""kfp's client behind our own words: where the server is, who asks, and what it said when it refused.

A token is named, never written down: `env:NAME`, `file:PATH`, or the login for that address. It is read again for every request, so
that one which is replaced while a notebook is open (a projected service account, a login that is renewed) goes on working.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ...errors import MissingExtra, NotRunning, RmlSdkError, SubmitError

__all__ = ["client", "silent", "token_source", "told"]

Token = Callable[[], str | None]
_TOKEN_ENV = "RML_KFP_TOKEN"  # noqa: S105 - the variable's name
_NO_TEXT = 'write token="env:MY_TOKEN" or token="file:/var/run/secrets/…/token"; or set RML_KFP_TOKEN and leave it out'


def client(host: str, *, namespace: str, token: Token, verify_ssl: bool | str, ui: str) -> Any:
    """A `kfp.Client` that has heard from the server; NotRunning or SubmitError when it cannot."""
    try:
        import kfp
    except ModuleNotFoundError as error:
        raise MissingExtra(
            "kfp is not installed", why="submitting uses its client", fix='pip install "roblox-ml[kfp]"'
        ) from error
    ca = verify_ssl if isinstance(verify_ssl, str) else None
    credentials = _Credentials(token) if token() else None
    with warnings.catch_warnings(), told(host), silent():
        warnings.simplefilter("ignore", FutureWarning)
        _ask_health(host, credentials, bool(verify_ssl), ca)
        return kfp.Client(
            host=host,
            namespace=namespace or "kubeflow",
            credentials=credentials,
            verify_ssl=bool(verify_ssl),
            ssl_ca_cert=ca,
            ui_host=ui,
        )


def token_source(reference: str | None, host: str) -> Token:
    """What reads the token: a reference, RML_KFP_TOKEN, or the login for the address; checked at once, read at each request."""
    if reference is None:
        return lambda: os.environ.get(_TOKEN_ENV) or _login(host)
    kind, _, name = reference.partition(":")
    if kind == "env" and name:
        return _checked(lambda: os.environ.get(name), f"the environment variable {name} is not set")
    if kind == "file" and name:
        return _checked(lambda: _read(name), f"there is no token in {name}")
    raise RmlSdkError("token= takes a reference, not a token", why="a notebook is saved with its cells", fix=_NO_TEXT)


def _checked(read: Token, missing: str) -> Token:
    if not read():
        raise RmlSdkError(f"no token: {missing}", fix=_NO_TEXT)
    return read


def _read(name: str) -> str | None:
    try:
        return Path(name).read_text("utf-8").strip() or None
    except OSError:
        return None


def _login(host: str) -> str | None:
    """The login for exactly this address. Not the home's own token: a forwarded port leads to another's server."""
    from ..._credentials import logins, origin, token_for

    known = any(login.origin == origin(host) for login in logins())
    return token_for(host) if known else None


class _Credentials:
    """What kfp's client asks before each request."""

    def __init__(self, token: Token) -> None:
        self._token = token

    def refresh_api_key_hook(self, config: Any) -> None:
        config.api_key["authorization"] = self._token() or ""

    def __repr__(self) -> str:
        return "<token by reference>"


def _ask_health(host: str, credentials: _Credentials | None, verify: bool, ca: str | None) -> None:
    """kfp's client asks five times with pauses and prints a traceback each time; once is enough to know."""
    import kfp_server_api

    config = kfp_server_api.Configuration(host=host)
    config.verify_ssl, config.ssl_ca_cert = verify, ca
    # Refused connections are retried by urllib3 with no pause; a server that is not there is not there.
    config.retries = False
    if credentials is not None:
        config.api_key["authorization"] = ""
        config.api_key_prefix["authorization"] = "Bearer"
        config.refresh_api_key_hook = credentials.refresh_api_key_hook
    kfp_server_api.HealthzServiceApi(kfp_server_api.ApiClient(config)).healthz_service_get_healthz()


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """kfp's client prints a link for each call; the run's own link is enough."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


@contextlib.contextmanager
def told(host: str) -> Iterator[None]:
    """The client's exceptions as ours: what the server said, not a dump of its headers."""
    import urllib3
    from kfp_server_api.exceptions import ApiException

    try:
        yield
    except ApiException as error:
        message, fix = _server_message(error)
        raise SubmitError(message, status=error.status or 0, where=host, fix=fix) from error
    except (urllib3.exceptions.HTTPError, ConnectionError) as error:
        raise NotRunning(
            f"Kubeflow Pipelines at {host} does not answer",
            why=str(error),
            fix="is the address right, and is the port forwarded? (kubectl port-forward svc/ml-pipeline 8888)",
        ) from error


def _server_message(error: Any) -> tuple[str, str]:
    text = error.body.decode(errors="replace") if isinstance(error.body, bytes) else error.body or ""
    try:
        body = json.loads(text)
    except ValueError:
        body = {}
    body = body if isinstance(body, dict) else {}
    details = [d["message"] for d in body.get("details") or () if isinstance(d, dict) and d.get("message")]
    # An HTML page is a proxy's log-in page or error; its first words say enough.
    message = body.get("message") or body.get("error_message") or text[:300] or error.reason or "no reason given"
    if details and details[0] not in message:
        message = f"{message} ({details[0]})"
    fixes = {401: "set RML_KFP_TOKEN", 403: "set RML_KFP_TOKEN to a token that may do this, and namespace= to your own"}
    return f"Kubeflow Pipelines refused ({error.status}): {message}", fixes.get(error.status, "")
