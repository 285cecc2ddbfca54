"""Logging in against a real OpenID provider, as a person does: the command shows a code, somebody confirms it, it works."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from roblox_ml_core.settings import ControlPlaneSettings, HomeSettings, IdentitySettings, MlflowSettings
from roblox_ml_platform.app import create_app

from roblox_ml import _credentials, _login

from .provider import Provider, running  # type: ignore[import-not-found,unused-ignore]


class Site:
    """A provider and a control plane that trusts it; the person's home is another than the control plane's."""

    def __init__(self, provider: Provider, url: str, admin: str, home: Path) -> None:
        self.provider, self.url, self.admin, self.home = provider, url, admin, home

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "RML_HOME": str(self.home), "RML_CONTROL_URL": self.url, "COLUMNS": "200"}

    def rml(self, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "roblox_ml.cli", *arguments]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=120, **more)

    def begin(self, *arguments: str) -> tuple[subprocess.Popen[str], str]:
        """Start `rml login` and return it with what it shows: the code, or the address."""
        command = [sys.executable, "-m", "roblox_ml.cli", "login", *arguments]
        process = subprocess.Popen(command, env=self.environment, text=True, stdout=-1, stderr=subprocess.STDOUT)
        assert process.stdout is not None
        for line in process.stdout:
            if found := re.search(r"confirm the code (\S+)", line) or re.search(r"^(http\S+authorize\S+)$", line):
                return process, found[1]
        raise AssertionError(f"rml login ended with {process.wait()}")

    def finish(self, process: subprocess.Popen[str]) -> tuple[int, str]:
        assert process.stdout is not None
        said = process.stdout.read()
        return process.wait(60), said

    def log_in(self, sub: str) -> str:
        process, code = self.begin()
        self.provider.confirm(code, sub)
        status, said = self.finish(process)
        assert status == 0, said
        return said

    def ask(self, method: str, path: str, body: Any = None, token: str | None = None) -> Any:
        request = urllib.request.Request(
            self.url + path, method=method, data=json.dumps(body).encode() if body else None
        )
        request.add_header("Authorization", f"Bearer {token or self.admin}")
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())

    @property
    def kept(self) -> dict[str, Any]:
        (entry,) = json.loads((self.home / "credentials.json").read_text())["origins"].values()
        return dict(entry)


@pytest.fixture
def site(
    tmp_path: Path, rml_home: Path, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Site]]:
    monkeypatch.setenv("AUTHLIB_INSECURE_TRANSPORT", "1")  # the provider's library wants https even on loopback
    ends: list[Callable[[], None]] = []

    def start(**options: Any) -> Site:
        context = running(Provider(**options))
        provider = context.__enter__()
        ends.append(lambda: context.__exit__(None, None, None))
        home = HomeSettings(home=tmp_path / "server", store="", token=None)
        one = {"name": "corp", "issuer": provider.url, "audience": "rml-cli", "client_id": "rml-cli"}
        groups = {"groups_claim": "groups", "groups": {"ml-safety": ["team:safety=register"]}, "scopes": "openid email"}
        identity = IdentitySettings(issuers=[{**one, **groups}], leeway_s=0)  # type: ignore[list-item]
        control = ControlPlaneSettings(port=free_port())
        app = create_app(control, home, MlflowSettings(enabled=False), identity)
        server = uvicorn.Server(uvicorn.Config(app, port=control.port, log_config=None, timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run)
        thread.start()

        def stop() -> None:
            server.should_exit = True
            thread.join(20)

        ends.append(stop)
        while not server.started:
            time.sleep(0.02)
        return Site(provider, control.base_url, home.ensure_token(), rml_home)

    yield start
    for end in reversed(ends):
        end()


def test_a_code_is_confirmed_elsewhere_and_the_login_works_until_logout(site: Callable[..., Site]) -> None:
    here = site()
    here.provider.user("ann")
    here.ask("PUT", "/v1/teams/safety")
    here.ask("POST", "/v1/grants", {"principal": "corp:ann", "scope": "team:safety", "role": "register"})
    process, code = here.begin()
    # Its arguments are everybody's to read; the code is worth nothing without a log-in of one's own.
    assert code not in Path(f"/proc/{process.pid}/cmdline").read_text()
    here.provider.confirm(code, "ann")
    status, said = here.finish(process)
    assert (status, "logged in" in said and "corp:ann" in said) == (0, True), said
    assert stat.S_IMODE((here.home / "credentials.json").stat().st_mode) == 0o600
    kept = here.kept
    for secret in (kept["token"], kept["refresh_token"], kept["token"].rpartition(".")[2]):
        assert secret not in said
    who = json.loads(here.rml("whoami", "--json").stdout)
    assert (who["principal"], who["grants"], who["teams"]) == ("corp:ann", ["register on team:safety"], ["safety"])
    made = here.rml("tokens", "create", "ci", "--role", "register", "--scope", "team:safety")
    token = made.stdout.strip()
    assert re.fullmatch(r"rml_[0-9A-Za-z]{12}_[0-9A-Za-z]{46}", token), made.stderr
    listed = here.rml("tokens", "list").stdout
    assert "ci" in listed and token[:16] in listed and token not in listed
    out = here.rml("logout")
    assert "at the control plane and the provider" in out.stdout
    assert here.provider.revoked == [kept["refresh_token"]]
    with pytest.raises(urllib.error.HTTPError) as replayed:
        here.ask("GET", "/v1/whoami", token=kept["token"])
    assert replayed.value.code == 401 and "log-out" in replayed.value.read().decode()
    assert here.ask("GET", "/v1/whoami", token=token)["owner"] == "corp:ann"  # ended by revoking it, not by a log-out
    refused = here.rml("whoami")
    assert refused.returncode == 1 and "rml login" in refused.stderr


def test_denied_expired_and_slowed_down(site: Callable[..., Site]) -> None:
    here = site(expires_in=4)
    here.provider.user("ann")
    process, code = here.begin()
    here.provider.deny(code)
    status, said = here.finish(process)
    assert (status, "denied" in said) == (1, True), said
    process, _ = here.begin()
    status, said = here.finish(process)
    assert (status, "nobody confirmed the code in time" in said) == (1, True), said
    assert not (here.home / "credentials.json").exists()


def test_the_pace_of_asking_is_the_provider_s(site: Callable[..., Site]) -> None:
    """The time is the test's own: what is looked at is what was waited for between two questions."""
    here = site(interval=3)
    here.provider.script = ["authorization_pending", "slow_down", "away", "slow_down"]
    here.provider.user("ann")
    about = here.ask("GET", "/v1/auth", token="nobody-s")["issuers"][0]
    slept: list[float] = []
    answer = _login.device_flow(
        _login.discover(about), lambda _url, code: here.provider.confirm(code, "ann"),
        sleep=slept.append, clock=lambda: sum(slept),
    )  # fmt: skip
    assert slept == [3, 3, 8, 8, 13]
    assert answer["id_token"].count(".") == 2
    here.provider.script = ["invalid_client"]
    with pytest.raises(_login.LoginFailed, match="refuses"):
        _login.device_flow(_login.discover(about), lambda *_: None, sleep=slept.append, clock=lambda: 0.0)


def test_a_login_is_renewed_before_it_ends_once_for_all_who_wait(site: Callable[..., Site]) -> None:
    here = site(token_age=90)
    here.provider.user("ann")
    here.log_in("ann")
    first = here.kept
    assert _credentials.token_for(here.url) == first["token"] and here.provider.refreshes == 0
    _credentials.remember(here.url, {**first, "expires_at": time.time() + 20})
    got: list[str | None] = []
    threads = [threading.Thread(target=lambda: got.append(_credentials.token_for(here.url))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    renewed = here.kept
    # A second use of a rotated refresh token would have been refused.
    assert (len(set(got)), here.provider.refreshes) == (1, 1)
    assert renewed["refresh_token"] != first["refresh_token"] and renewed["expires_at"] > time.time() + 60
    assert here.ask("GET", "/v1/whoami", token=got[0])["principal"] == "corp:ann"
    _credentials.remember(here.url, {**renewed, "refresh_token": first["refresh_token"], "expires_at": time.time() - 1})
    with pytest.raises(_credentials.LoginExpired, match="rml login"):
        _credentials.token_for(here.url)
    _credentials.remember(here.url, {**renewed, "token_endpoint": "http://127.0.0.1:9", "expires_at": time.time() + 20})
    assert _credentials.token_for(here.url) == renewed["token"]  # the provider is away, the token is still good


def test_a_browser_on_this_machine_with_pkce(site: Callable[..., Site]) -> None:
    """The second way, against the provider as it comes: its own page, its own redirect."""
    here = site()
    here.provider.user("bob")
    process, address = here.begin("--browser")
    query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(address).query))
    assert query["code_challenge_method"] == "S256" and len(query["code_challenge"]) == 43 and query["nonce"]
    back = query["redirect_uri"]
    with pytest.raises(urllib.error.HTTPError):  # an answer to a question that was not asked
        urllib.request.urlopen(f"{back}?code=evil&state=guessed", timeout=10)
    form = urllib.parse.urlencode({"sub": "bob"}).encode()
    with urllib.request.urlopen(urllib.request.Request(address, data=form), timeout=30) as page:
        assert b"close this page" in page.read()
    status, said = here.finish(process)
    assert (status, "corp:bob" in said) == (0, True), said
    assert here.kept["token"] not in said


def test_a_service_token_is_kept_from_standard_input(site: Callable[..., Site]) -> None:
    here = site()
    here.ask("PUT", "/v1/teams/safety")
    made = here.ask("POST", "/v1/tokens", {"name": "ci", "role": "view", "scope": "team:safety"})
    done = here.rml("login", "--token", input=made["token"] + "\n")
    assert done.returncode == 0 and made["token"] not in done.stdout + done.stderr
    who = json.loads(here.rml("whoami", "--json").stdout)
    assert (who["owner"], who["limit"]) == ("local", {"role": "view", "scope": "team:safety"})
    refused = here.rml("teams", "add", "mine")
    assert refused.returncode == 1 and "limited to view on team:safety" in refused.stderr
    wrong = here.rml("login", "--token", input="rml_nonsense\n")
    assert wrong.returncode == 1 and here.kept["token"] == made["token"]


def test_credentials_are_for_their_origin(rml_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (rml_home / "token").write_text("home-token\n")
    _credentials.remember("https://ml.example.org", {"kind": "token", "token": "for-ml", "principal": "x"})
    wanted = {
        "https://ml.example.org/v1": "for-ml", "https://ML.example.org:443": "for-ml", "http://ml.example.org": None,
        "https://ml.example.org:8443": None, "https://ml.example.org.evil.org": None, "https://other.org": None,
        "http://127.0.0.1:18070": "home-token", "http://localhost:1": "home-token", "http://[::1]:5": "home-token",
        "http://127.0.0.1.evil.org": None, "http://user@evil.org@127.0.0.1:5": "home-token",
    }  # fmt: skip
    assert {url: _credentials.token_for(url) for url in wanted} == wanted
    monkeypatch.setenv("RML_CONTROL_URL", "https://ml.example.org")
    monkeypatch.setenv("RML_TOKEN", "from-environment")
    assert _credentials.token_for("https://ml.example.org") == "from-environment"
    assert _credentials.token_for("https://other.org") is None
    monkeypatch.delenv("RML_TOKEN")
    (rml_home / "pod").write_text("projected\n")
    monkeypatch.setenv("RML_TOKEN_FILE", str(rml_home / "pod"))
    assert _credentials.token_for("https://ml.example.org") == "projected"
    for unsafe in ("http://id.example.org", "http://10.0.0.1"):
        with pytest.raises(_login.LoginFailed, match="not https"):
            _login.require_private(unsafe, "the identity provider")
