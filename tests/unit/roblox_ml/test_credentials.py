"""A token goes to the address it is for: not to where that address redirects."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from roblox_ml._credentials import expiry, forget, logins, remember, token_for
from roblox_ml._runtime.control import ControlPlane
from roblox_ml._store import open_store
from roblox_ml.errors import RmlSdkError


@contextmanager
def server(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_a_redirect_takes_no_token_along(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, list[str | None]] = {"asked": [], "elsewhere": []}

    def elsewhere(request: BaseHTTPRequestHandler) -> None:
        seen["elsewhere"].append(request.headers.get("Authorization"))
        request.send_response(200)
        request.send_header("content-length", "2")
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(b"{}")

    with ExitStack() as stack:
        other = stack.enter_context(server(elsewhere))

        def asked(request: BaseHTTPRequestHandler) -> None:
            seen["asked"].append(request.headers.get("Authorization"))
            request.send_response(302)
            request.send_header("location", other + request.path)
            request.end_headers()

        url = stack.enter_context(server(asked))
        monkeypatch.setenv("RML_TOKEN", "secret-word")
        ControlPlane(url).call("GET", "/v1/models")
        monkeypatch.setenv("RML_STORE", f"{url}/v1/store")
        open_store().has("0" * 64)
    assert seen["asked"] == ["Bearer secret-word"] * 2
    assert seen["elsewhere"] == [None] * 2


def test_a_login_shows_no_secret_and_is_gone_when_forgotten(rml_home: Path) -> None:
    remember("https://ml.example.org/", {"kind": "token", "token": "secret-word", "principal": "corp:ann"})
    (kept,) = logins()
    assert (kept.origin, kept.principal, "secret-word" in repr(kept)) == (
        "https://ml.example.org:443",
        "corp:ann",
        False,
    )
    assert forget("https://ml.example.org") is not None
    assert (forget("https://ml.example.org"), logins(), token_for("https://ml.example.org")) == (None, [], None)
    assert (rml_home / "credentials.json").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("text", ["", "not json", "[]", '{"origins": 5}', '{"schema": 1}'])
def test_a_damaged_file_is_named(rml_home: Path, text: str) -> None:
    (rml_home / "credentials.json").write_text(text)
    with pytest.raises(RmlSdkError, match=r"rm .*credentials\.json"):
        token_for("https://ml.example.org")


@pytest.mark.parametrize("token", ["", "a", "a.b.c", "a.bnVsbA.c", "a.e30.c", "é.é.é", "rml_x_y"])
def test_what_is_no_signed_token_never_seems_to_end(token: str) -> None:
    assert expiry(token) is None
