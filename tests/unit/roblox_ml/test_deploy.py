"""`deploy` and `Endpoint` against a control plane and a door that are scripted in this process."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from typing import Any

import pytest

from roblox_ml._rollouts.wishes import WishError
from roblox_ml.errors import Conflict, NotFound, NotRunning, RemoteError

sdk = import_module("roblox_ml._deploy")
SIGNATURE = [{"name": "TEXT", "datatype": "BYTES", "shape": [-1]}]
DIGEST = "d" * 64


class Servers:
    """Both servers at one address: what was asked, and the state the answers come from."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Any]] = []
        self.endpoints: dict[str, dict[str, Any]] = {}
        self.serving: dict[str, tuple[str, int]] = {}
        self.states: list[dict[str, Any]] = []
        self.answer_infer: Any = None
        self.signature = SIGNATURE
        self.moved = True
        self.after_put = lambda name: self.serve(name)

    def serve(self, name: str) -> None:
        self.serving[name] = (self.endpoints[name]["model"], self.endpoints[name]["version"])

    def handle(self, method: str, path: str, body: bytes, headers: Any) -> tuple[int, dict[str, str], bytes]:
        parts = path.partition("?")[0].strip("/").split("/")
        document = json.loads(body) if body and "json" in headers.get("content-type", "") else None
        self.asked.append((method, path, document))
        status, answer, extra = (
            self._door(parts, body, headers) if parts[0] == "v2" else self._control(method, parts, document)
        )
        return status, extra, answer if isinstance(answer, bytes) else json.dumps(answer).encode()

    def _control(self, method: str, parts: list[str], document: Any) -> tuple[int, Any, dict[str, str]]:
        if parts[1] == "servers":
            return 200, {"servers": [{"name": "local", "alive": True, "models": self.states}]}, {}
        if parts[1] == "models" and method == "GET":
            if parts[2] == "nothing":
                return (
                    404,
                    {"error": {"code": "not_found", "message": "there is no model nothing", "hint": "register it"}},
                    {},
                )
            return 200, {"name": parts[2], "version": 7, "digest": DIGEST, "generation": 1}, {}
        if parts[1] == "models":
            self.endpoints["e"]["version"] = document["version"]
            self.after_put("e")
            return 200, {"version": document["version"]}, {}
        name = parts[2]
        if method == "PUT":
            if document["model"] == "nothing":
                return (
                    404,
                    {"error": {"code": "not_found", "message": "there is no model nothing", "hint": "register it"}},
                    {},
                )
            version = document["version"] or 7
            self.endpoints[name] = {
                "name": name,
                "model": document["model"],
                "alias": document["alias"],
                "version": version,
                "digest": "d",
                "moved": self.moved,
            }
            self.after_put(name)
        if name not in self.endpoints:
            return 404, {"error": {"code": "not_found", "message": f"there is no endpoint {name}", "hint": ""}}, {}
        if method == "DELETE":
            return 200, self.endpoints.pop(name), {}
        if parts[-1] == "rollback":
            if self.endpoints[name]["version"] == 1:
                return (
                    409,
                    {"error": {"code": "conflict", "message": "nothing to roll back to", "hint": "deploy another"}},
                    {},
                )
            self.endpoints[name]["version"] -= 1
            self.after_put(name)
        return 200, self.endpoints[name], {}

    def _door(self, parts: list[str], body: bytes, headers: Any) -> tuple[int, Any, dict[str, str]]:
        found = self.serving.get(parts[2])
        if found is None:
            return 404, {"error": f"no endpoint is called {parts[2]!r}"}, {}
        extra = {"x-rml-model": found[0], "x-rml-model-version": str(found[1]), "x-rml-inference-id": "id-1"}
        if parts[-1] == "infer":
            return (*self.answer_infer(body, headers), extra)
        return 200, {"name": parts[2], "inputs": self.signature}, extra


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Servers]:
    state = Servers()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            status, headers, payload = state.handle(self.command, self.path, body, self.headers)
            self.send_response(status)
            for name, value in {**headers, "content-length": str(len(payload))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(payload)

        do_GET = do_POST = do_PUT = do_DELETE = do

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("RML_CONTROL_URL", url)
    monkeypatch.setenv("RML_DOOR_URL", url)
    monkeypatch.setenv("RML_TOKEN", "t")
    yield state
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("ref", "sent"),
    [
        ("m@champion", {"model": "m", "alias": "champion", "version": None}),
        ("m/3", {"model": "m", "alias": None, "version": 3}),
        ("m", {"model": "m", "alias": "champion", "version": None}),
    ],
)
def test_a_reference_follows_an_alias_or_stays_at_a_version(servers: Servers, ref: str, sent: dict[str, Any]) -> None:
    said: list[str] = []
    endpoint = sdk.deploy(ref, say=said.append)
    assert servers.asked[1] == ("PUT", "/v1/endpoints/m", sent)
    assert endpoint.name == "m"
    assert endpoint.version == (sent["version"] or 7)
    assert "answers at" in said[-1] and endpoint.url in said[-1]
    assert sdk.deploy(ref, "other", say=said.append).name == "other"


def test_deploy_waits_for_the_model_and_not_only_for_its_number(servers: Servers) -> None:
    servers.serving["e"] = ("old", 7)
    servers.after_put = lambda name: None
    with pytest.raises(NotRunning, match="old/7 goes on answering"):
        sdk.deploy("m@champion", "e", timeout=0.2, say=lambda line: None)
    assert sdk.deploy("m@champion", "e", wait=False).name == "e"


@pytest.mark.parametrize("moved", [True, False])
def test_a_refused_deployment_takes_its_own_move_back(servers: Servers, moved: bool) -> None:
    servers.after_put, servers.moved = lambda name: None, moved
    servers.states = [{"model": "m", "version": 7, "state": "failed", "reason": "wrong"}]
    with pytest.raises(RemoteError, match="wrong"):
        sdk.deploy("m/7", "e", say=lambda line: None)
    posted = [(path, body) for method, path, body in servers.asked if method == "POST"]
    target = {"model": "m", "alias": None, "version": 7}
    assert posted == ([("/v1/endpoints/e/rollback", target)] if moved else [])


def test_a_refused_version_carries_the_agents_reason(servers: Servers) -> None:
    servers.after_put = lambda name: None
    servers.states = [
        {"model": "m", "version": 6, "state": "failed", "reason": "another one"},
        {"model": "m", "version": 7, "state": "failed", "reason": "the digest of the model is wrong"},
    ]
    with pytest.raises(RemoteError, match="the digest of the model is wrong") as refused:
        sdk.deploy("m@champion", say=lambda line: None)
    assert "another one" not in str(refused.value)
    assert "nothing answers yet" in str(refused.value)


def test_news_is_said_once(servers: Servers) -> None:
    servers.after_put = lambda name: None
    servers.states = [{"model": "m", "version": 7, "state": "loading", "reason": ""}]
    said: list[str] = []
    with pytest.raises(NotRunning, match="local: loading"):
        sdk.deploy("m@champion", timeout=0.3, say=said.append)
    assert said.count("  local: loading") == 1


def test_predictions_are_asked_in_binary_and_read_back(servers: Servers) -> None:
    def answer(body: bytes, headers: Any) -> tuple[int, bytes]:
        length = int(headers["inference-header-content-length"])
        assert json.loads(body[:length])["inputs"][0]["shape"] == [1]
        assert body[length:] == b"\x02\x00\x00\x00gg"
        assert headers["x-rml-timeout-ms"] == "2500"
        return 200, json.dumps(
            {"outputs": [{"name": "label", "datatype": "BYTES", "shape": [1], "data": ["nice"]}]}
        ).encode()

    servers.answer_infer = answer
    prediction = sdk.deploy("m/3", say=lambda line: None).predict(["gg"], timeout=2.5)
    assert (prediction.labels, prediction.version, prediction.inference_id) == (["nice"], 3, "id-1")


def test_the_doors_refusals_are_the_sdks_errors(servers: Servers) -> None:
    endpoint = sdk.deploy("m/3", say=lambda line: None)
    servers.answer_infer = lambda body, headers: (503, {"error": "no model server answered"})
    with pytest.raises(RemoteError, match="no model server answered") as refused:
        endpoint.predict(["gg"])
    assert refused.value.status == 503
    servers.answer_infer = lambda body, headers: (500, b"<html>")
    with pytest.raises(RemoteError, match="HTTP 500: <html>"):
        endpoint.predict(["gg"])
    servers.serving.clear()
    assert endpoint.version is None
    with pytest.raises(NotFound, match="no endpoint is called 'm'"):
        endpoint.predict(["gg"])


def test_promotion_moves_the_alias_or_the_pin(servers: Servers) -> None:
    follows = sdk.deploy("m@champion", "e", say=lambda line: None)
    assert follows.promote(9).version == 9
    moved = {"version": 9, "expected_generation": None, "reason": "promoted through endpoint e"}
    assert ("PUT", "/v1/models/m/aliases/champion", moved) in servers.asked
    pinned = sdk.deploy("m/3", "pinned", say=lambda line: None)
    assert pinned.promote(4).version == 4
    assert ("PUT", "/v1/endpoints/pinned", {"model": "m", "alias": None, "version": 4}) in servers.asked


def test_rollback_and_its_end(servers: Servers) -> None:
    endpoint = sdk.deploy("m/2", say=lambda line: None)
    assert endpoint.rollback().version == 1
    with pytest.raises(Conflict, match="nothing to roll back to"):
        endpoint.rollback()


@pytest.mark.parametrize("wish", [5, 0.05])
def test_a_number_as_canary_lets_the_reference_answer_a_share_and_moves_nothing(servers: Servers, wish: float) -> None:
    sdk.deploy("m/3", say=lambda line: None)
    said: list[str] = []
    sdk.deploy("m/8", canary=wish, wait=False, say=said.append)
    begun = {"version": 8, "share": 500, "isolated": False, "expect": None}
    assert ("POST", "/v1/endpoints/m/canary", begun) in servers.asked
    assert servers.endpoints["m"]["version"] == 3
    assert said == ["version 8 answers 5.00% of the units of endpoint 'm' as a canary"]


@pytest.mark.parametrize("wish", [0, 101, 5.0, True, "5", -1])
def test_a_canary_that_cannot_be_meant_is_refused_before_anything_is_asked(servers: Servers, wish: Any) -> None:
    with pytest.raises(WishError, match="canary is"):
        sdk.deploy("m/8", canary=wish, say=lambda line: None)
    assert servers.asked == []


def test_a_canary_of_nothing_of_another_model_or_with_more(servers: Servers) -> None:
    with pytest.raises(NotFound, match="no endpoint m"):
        sdk.deploy("m/8", canary=5, say=lambda line: None)
    sdk.deploy("other/1", "m", say=lambda line: None)
    with pytest.raises(Conflict, match="endpoint m serves other: m cannot be its canary"):
        sdk.deploy("m/8", canary=5, say=lambda line: None)
    with pytest.raises(WishError, match="canary=5 with unit"):
        sdk.deploy("m/8", canary=5, unit="user_id", say=lambda line: None)
    with pytest.raises(WishError, match="version is 'candidate'"):
        sdk.Endpoint("m").canary("candidate")
    assert not any(path.endswith("/canary") for _, path, _ in servers.asked)


def test_what_does_not_exist_is_said(servers: Servers) -> None:
    for act in (lambda: sdk.deploy("nothing@champion"), lambda: sdk.undeploy("none"), lambda: sdk.endpoint("none")):
        with pytest.raises(NotFound):
            act()
    with pytest.raises(RemoteError, match="not a model name"):
        sdk.deploy("Bad Name@champion")
    sdk.deploy("m/1", say=lambda line: None)
    sdk.undeploy("m")
    with pytest.raises(NotFound):
        sdk.endpoint("m")


def test_servers_that_are_not_there_are_named(monkeypatch: pytest.MonkeyPatch, free_port) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("RML_CONTROL_URL", dead)
    monkeypatch.setenv("RML_DOOR_URL", dead)
    monkeypatch.setenv("RML_DOOR_GRPC", dead.removeprefix("http://"))
    with pytest.raises(NotRunning, match=r"rml up"):
        sdk.deploy("m@champion")
    endpoint = sdk.Endpoint("m")
    with pytest.raises(NotRunning, match=r"RML_DOOR_URL"):
        endpoint.predict(["gg"])
    endpoint._inputs = SIGNATURE
    with pytest.raises(NotRunning, match=r"RML_DOOR_GRPC"):
        endpoint.grpc.predict(["gg"], timeout=5)
    assert "does not answer" in endpoint._repr_html_()


def test_a_version_with_other_inputs_is_noticed(servers: Servers) -> None:
    servers.answer_infer = lambda body, headers: (200, {"outputs": []})
    endpoint = sdk.deploy("m/3", say=lambda line: None)
    endpoint.predict(["gg"])
    asked = [path for _, path, _ in servers.asked].count("/v2/models/m")
    endpoint.predict(["gg"])
    assert [path for _, path, _ in servers.asked].count("/v2/models/m") == asked  # known, not asked again
    servers.signature = [{"name": "X", "datatype": "FP32", "shape": [-1, 1]}]
    servers.serving["m"] = ("m", 4)
    assert endpoint.predict([[0.5]]).version == 4


def test_views(servers: Servers, capsys: pytest.CaptureFixture[str]) -> None:
    endpoint = sdk.deploy("m/3", say=lambda line: None)
    assert {"model": "m", "version": 3, "serving": 3}.items() <= endpoint.status().items()
    assert "<td>m</td>" in endpoint._repr_html_()
    endpoint.curl()
    line = capsys.readouterr().out
    assert line.startswith(f"curl -s {endpoint.url} -H 'content-type: application/json' -d ")
    assert '"TEXT"' in line


def test_what_the_registry_does_not_know_starts_nothing(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    monkeypatch.setattr(sdk, "ensure_stack", started.append)
    with pytest.raises(NotFound, match="no model nothing"):
        sdk.deploy("nothing@champion")
    with pytest.raises(Conflict, match="has the digest"):
        sdk.deploy(f"m/7@{'e' * 64}")
    assert started == []
    assert [method for method, _, _ in servers.asked] == ["GET", "GET"]


def test_cache_and_queue_travel_with_a_deployment_and_are_left_alone_without_one(servers: Servers) -> None:
    import roblox_ml as rml

    sdk.deploy(
        "m/3", cache=rml.cache(entries=1000, megabytes=2), queue=rml.queue(max_wait_ms=50), say=lambda line: None
    )
    (sent,) = [document for method, _, document in servers.asked if method == "PUT"]
    assert sent["policy"] == {
        "cache": {"entries": 1000, "bytes": 2_000_000},
        "queue": {"max_wait_ms": 50.0, "max_rows": 10_000},
    }
    sdk.deploy("m/3", cache=rml.cache(entries=0), say=lambda line: None)
    assert [document for method, _, document in servers.asked if method == "PUT"][-1]["policy"].keys() == {"cache"}
    sdk.deploy("m/3", say=lambda line: None)
    assert "policy" not in [document for method, _, document in servers.asked if method == "PUT"][-1]


@pytest.mark.parametrize("wrong", [{"entries": -1}, {"megabytes": -1}, {"entries": 10**12}])
def test_a_cache_that_cannot_be_is_said_where_it_is_written(wrong: dict[str, Any]) -> None:
    import roblox_ml as rml

    with pytest.raises(ValueError, match=r"rml\.cache\(entries=1_000_000"):
        rml.cache(**wrong)
    with pytest.raises(ValueError, match=r"rml\.queue\(max_wait_ms=200"):
        rml.queue(max_wait_ms=0)
