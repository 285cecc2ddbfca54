"""Real servers to be told: one that behaves as Slack and as a webhook, one that speaks SMTP with STARTTLS and a login."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from roblox_ml_core.registry import RegistryClient
from roblox_ml_core.settings import HomeSettings


@dataclass
class Post:
    """One request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes
    at: float

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def event(self) -> str:
        """The id of the event, wherever this protocol carries it."""
        if known := self.headers.get("x-rml-event-id"):
            return known
        return str(self.json["blocks"][-1]["elements"][0]["text"].rpartition("event ")[2])


@dataclass
class Answer:
    """What to answer; `hang` seconds of silence first, `cut` ends the connection without a word."""

    status: int = 200
    body: bytes = b"ok"
    headers: dict[str, str] = field(default_factory=dict)
    hang: float = 0.0
    cut: bool = False


class Receiver:
    """A server on a port of its own that can go away and come back. `script` holds the next answers; then `usual`."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.posts: list[Post] = []
        self.script: deque[Answer] = deque()
        self.usual = Answer()
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> Receiver:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.posts.append(Post(self.path, headers, body, time.time()))
                answer = receiver.script.popleft() if receiver.script else receiver.usual
                time.sleep(answer.hang)
                if answer.cut:
                    self.close_connection = True
                    return
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(answer.body)))
                with contextlib.suppress(OSError):  # the sender has given up
                    self.end_headers()
                    self.wfile.write(answer.body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def events(self) -> list[str]:
        return [post.event for post in self.posts]


@pytest.fixture
def receivers(free_port: Callable[[], int]) -> Iterator[Callable[[], Receiver]]:
    """A function that starts another server."""
    started: list[Receiver] = []

    def start() -> Receiver:
        started.append(Receiver(free_port()).start())
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def receiver(receivers: Callable[[], Receiver]) -> Receiver:
    return receivers()


@pytest.fixture
def make_answer() -> Callable[..., Answer]:
    def answer(status: int = 200, body: bytes = b"ok", headers: dict[str, str] | None = None, **fields: Any) -> Answer:
        return Answer(status, body, headers or {}, **fields)

    return answer


class Mailbox:
    """aiosmtpd's handler: keeps what was taken, and refuses as it is told to (`refusals`: the next answers to RCPT)."""

    def __init__(self) -> None:
        self.mails: list[Envelope] = []
        self.encrypted: list[bool] = []
        self.refusals: deque[str] = deque()

    async def handle_RCPT(
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        if self.refusals:
            return self.refusals.popleft()
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: SMTP, session: Session, envelope: Envelope) -> str:
        self.mails.append(envelope)
        self.encrypted.append(session.ssl is not None)
        return "250 taken"


@dataclass
class MailServer:
    box: Mailbox
    port: int
    ca_file: str
    logins: list[tuple[str, str]]
    password: str


PASSWORD = "correct-horse-battery"


@pytest.fixture
def mail_server(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[MailServer]:
    """SMTP that takes mail only after STARTTLS and a login."""
    certificate, key = _certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    box, logins = Mailbox(), []

    def check(_server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        logins.append((data.login.decode(), data.password.decode()))
        return AuthResult(success=data.password.decode() == PASSWORD)

    controller = Controller(
        box,
        "127.0.0.1",
        free_port(),
        tls_context=context,
        require_starttls=True,
        authenticator=check,
        auth_required=True,
    )
    controller.start()
    yield MailServer(box, controller.port, str(certificate), logins, PASSWORD)
    controller.stop()


def _certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_path, key_path = folder / "mail.crt", folder / "mail.key"
    certificate_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate_path, key_path


class Plane:
    """A control-plane process."""

    def __init__(self, home: Path, port: int, environment: dict[str, str]) -> None:
        self.home, self.port = home, port
        self.environment = {**os.environ, "RML_HOME": str(home), "RML_CONTROL_PORT": str(port), **environment}
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return (self.home / f"control-{self.port}.log").read_text()

    def start(self) -> Plane:
        with (self.home / f"control-{self.port}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "roblox_ml_platform"], env=self.environment, stderr=log
            )
        client = self.client()
        until(lambda: client.ready() or self.process is None or self.process.poll() is not None, 90)
        assert self.process.poll() is None, self.log
        return self

    def client(self) -> RegistryClient:
        return RegistryClient(self.url, HomeSettings(home=self.home).ensure_token(), actor="tester")

    def notifications(self, state: str | None = None) -> list[dict[str, Any]]:
        with self.client() as client:
            found: list[dict[str, Any]] = client.call("GET", "/v1/notifications", params={"state": state})[
                "notifications"
            ]
            return found

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.kill()


QUICK = {
    "RML_MLFLOW_ENABLED": "false", "RML_NOTIFY_TICK_S": "0.05", "RML_NOTIFY_BASE_S": "0.1", "RML_NOTIFY_CAP_S": "0.5",
    "RML_NOTIFY_TIMEOUT_S": "4", "RML_NOTIFY_LEASE_S": "8",
}  # fmt: skip


@pytest.fixture
def planes(rml_home: Path, free_port: Callable[[], int]) -> Iterator[Callable[..., Plane]]:
    """A function that makes control planes (not started yet); all of a test share one home and end with it."""
    made: list[Plane] = []

    def make(**environment: str) -> Plane:
        plane = Plane(rml_home, free_port(), {**QUICK, **environment})
        made.append(plane)
        return plane

    yield make
    for plane in made:
        plane.stop()


def until(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    """The condition's first true value; fails after so long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.03)
    raise AssertionError(f"not within {seconds:g} s")


@pytest.fixture
def wait_for() -> Callable[..., Any]:
    return until
