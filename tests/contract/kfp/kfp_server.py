"""A v2beta1 API server for tests that answers as a real Kubeflow Pipelines 2.17 did.

The bodies come from the recorded exchanges in `data/`; only identifiers, names and parameters are put in. It keeps what
it received, byte for byte.
"""

from __future__ import annotations

import json
import re
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

RECORD = Path(__file__).with_name("data") / "api-2.17-exchanges.jsonl"
ROOT = "/apis/v2beta1"


def exchanges() -> list[dict[str, Any]]:
    """The recorded request/response pairs, in order."""
    return [json.loads(line) for line in RECORD.read_text("utf-8").splitlines()]


def recorded(method: str, path: str, status: int, containing: str = "") -> Any:
    """The response of the first recorded exchange like this."""
    for exchange in exchanges():
        alike = (
            exchange["method"] == method and re.match(ROOT + path, exchange["path"]) and exchange["status"] == status
        )
        if alike and containing in json.dumps(exchange):
            return exchange["response"]
    raise LookupError(f"no recorded {method} {path} → {status}")


class State:
    """What the server knows and what it was sent."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.pipelines: dict[str, dict[str, Any]] = {}
        self.versions: dict[str, dict[str, Any]] = {}
        self.experiments: dict[str, dict[str, Any]] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.specs: dict[str, Any] = {}
        self.uploads: list[tuple[str, bytes]] = []
        self.requests: list[tuple[str, str]] = []
        self.tokens: list[str | None] = []


class Handler(BaseHTTPRequestHandler):
    """Routes of the part of the API that a client needs to submit and follow a run."""

    protocol_version = "HTTP/1.1"
    server: KfpServer

    def log_message(self, format: str, *args: Any) -> None:
        """Silence."""

    def do_GET(self) -> None:
        self._handle("GET")

    def do_POST(self) -> None:
        self._handle("POST")

    def _handle(self, method: str) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        query = {k: v[0] for k, v in parse_qs(parts.query, keep_blank_values=True).items()}
        state = self.server.state
        with state.lock:
            state.requests.append((method, self.path))
            state.tokens.append(self.headers.get("Authorization"))
            for route_method, pattern, answer in ROUTES:
                match = re.fullmatch(ROOT + pattern, parts.path)
                if match and route_method == method:
                    status, response = answer(self, state, query, body, *match.groups())
                    break
            else:
                status, response = 404, {"code": 5, "message": "Not Found", "details": []}
        data = json.dumps(response).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    # --- pipelines -----------------------------------------------------------------------------------------------

    def healthz(self, state: State, query: dict[str, str], body: bytes) -> Any:
        return 200, recorded("GET", "/healthz", 200)

    def upload(self, state: State, query: dict[str, str], body: bytes) -> Any:
        name, data = query["name"], self._file(body)
        if not _is_spec(data):
            return 400, recorded("POST", "/pipelines/upload", 400, "unknown template")
        if any(p["display_name"] == name for p in state.pipelines.values()):
            return 409, recorded("POST", "/pipelines/upload", 409)
        state.uploads.append((name, data))
        answer = dict(recorded("POST", "/pipelines/upload", 200))
        answer.update(display_name=name, name=name, pipeline_id=str(uuid.uuid4()))
        answer.pop("description", None)
        if "description" in query:
            answer["description"] = query["description"]
        state.pipelines[answer["pipeline_id"]] = answer
        self._add_version(state, answer["pipeline_id"], name, data)
        return 200, answer

    def upload_version(self, state: State, query: dict[str, str], body: bytes) -> Any:
        data = self._file(body)
        if not _is_spec(data):
            return 400, recorded("POST", "/pipelines/upload", 400, "unknown template")
        state.uploads.append((query["name"], data))
        return 200, self._add_version(state, query["pipelineid"], query["name"], data)

    def _add_version(self, state: State, pipeline: str, name: str, data: bytes) -> dict[str, Any]:
        version = dict(recorded("POST", "/pipelines/upload_version", 200))
        spec = next(yaml.safe_load_all(data))
        version.update(
            display_name=name,
            name=name,
            pipeline_id=pipeline,
            pipeline_version_id=str(uuid.uuid4()),
            pipeline_spec={"pipeline_spec": spec},
        )
        state.versions[version["pipeline_version_id"]] = version
        state.specs[version["pipeline_version_id"]] = spec
        return version

    def list_pipelines(self, state: State, query: dict[str, str], body: bytes) -> Any:
        found = [p for p in state.pipelines.values() if _matches(p, query)]
        return 200, {"pipelines": found, "total_size": len(found)} if found else {}

    def list_versions(self, state: State, query: dict[str, str], body: bytes, pipeline: str) -> Any:
        found = [v for v in state.versions.values() if v["pipeline_id"] == pipeline and _matches(v, query)]
        return 200, {"pipeline_versions": found, "total_size": len(found)} if found else {}

    # --- experiments and runs ------------------------------------------------------------------------------------

    def list_experiments(self, state: State, query: dict[str, str], body: bytes) -> Any:
        found = [e for e in state.experiments.values() if _matches(e, query)]
        return 200, {"experiments": found, "total_size": len(found)} if found else {}

    def create_experiment(self, state: State, query: dict[str, str], body: bytes) -> Any:
        answer = dict(recorded("POST", "/experiments", 200))
        answer.update(display_name=json.loads(body)["display_name"], experiment_id=str(uuid.uuid4()))
        state.experiments[answer["experiment_id"]] = answer
        return 200, answer

    def create_run(self, state: State, query: dict[str, str], body: bytes) -> Any:
        asked = json.loads(body)
        given = (asked.get("runtime_config") or {}).get("parameters") or {}
        reference = asked.get("pipeline_version_reference")
        spec = state.specs[reference["pipeline_version_id"]] if reference else _inner(asked["pipeline_spec"])
        problem = _parameter_problem(spec, given)
        if problem:
            return 400, problem
        answer = dict(recorded("POST", "/runs", 200, '"r2"'))
        answer.update(
            {k: v for k, v in asked.items() if k in ("display_name", "experiment_id", "pipeline_version_reference")},
            run_id=str(uuid.uuid4()),
            runtime_config={"parameters": given},
        )
        state.runs[answer["run_id"]] = answer
        return 200, answer

    def get_run(self, state: State, query: dict[str, str], body: bytes, run: str) -> Any:
        if run not in state.runs:
            text = json.dumps(recorded("GET", "/runs/0000", 404))
            return 404, json.loads(text.replace("00000000-0000-0000-0000-000000000000", run))
        return 200, state.runs[run]

    def retry_run(self, state: State, query: dict[str, str], body: bytes, run: str) -> Any:
        text = json.dumps(recorded("POST", "/runs/.*:retry", 409))
        return 409, json.loads(re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", run, text))

    def terminate_run(self, state: State, query: dict[str, str], body: bytes, run: str) -> Any:
        state.runs[run]["state"] = "CANCELED"
        return 200, recorded("POST", "/runs/.*:terminate", 200)

    def _file(self, body: bytes) -> bytes:
        """The uploaded file in a multipart body, exactly."""
        header = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        message = BytesParser().parsebytes(header + body)
        assert message.is_multipart()
        boundary = message.get_boundary()
        assert boundary is not None
        _, _, rest = body.partition(b"\r\n\r\n")
        return rest[: rest.rindex(f"\r\n--{boundary}--".encode())]


ROUTES: list[tuple[str, str, Any]] = [
    ("GET", "/healthz", Handler.healthz),
    ("POST", "/pipelines/upload", Handler.upload),
    ("POST", "/pipelines/upload_version", Handler.upload_version),
    ("GET", "/pipelines", Handler.list_pipelines),
    ("GET", "/pipelines/([^/]+)/versions", Handler.list_versions),
    ("GET", "/experiments", Handler.list_experiments),
    ("POST", "/experiments", Handler.create_experiment),
    ("POST", "/runs", Handler.create_run),
    ("GET", "/runs/([^/:]+)", Handler.get_run),
    ("POST", "/runs/([^/:]+):retry", Handler.retry_run),
    ("POST", "/runs/([^/:]+):terminate", Handler.terminate_run),
]


class KfpServer(ThreadingHTTPServer):
    """The server; `url` is its address, `state` what it holds."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.state = State()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def running() -> Iterator[KfpServer]:
    """A server on a free port, for the length of a block."""
    server = KfpServer()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _is_spec(data: bytes) -> bool:
    """What the server tells a template by; it does not look further at upload."""
    document = next(yaml.safe_load_all(data), None)
    return isinstance(document, dict) and document.get("schemaVersion") == "2.1.0" and "root" in document


def _inner(spec: dict[str, Any]) -> dict[str, Any]:
    inner: dict[str, Any] = spec.get("pipeline_spec", spec)
    return inner


def _matches(thing: dict[str, Any], query: dict[str, str]) -> bool:
    if not query.get("filter"):
        return True
    wanted = json.loads(query["filter"])["predicates"]
    return all(
        thing.get(p["key"].replace("name", "display_name") if p["key"] == "name" else p["key"]) == p["stringValue"]
        for p in wanted
    )


def _parameter_problem(spec: dict[str, Any], given: dict[str, Any]) -> Any:
    declared = ((spec["root"].get("inputDefinitions") or {}).get("parameters")) or {}

    def told(containing: str, old: str, new: str) -> Any:
        return json.loads(json.dumps(recorded("POST", "/runs", 400, containing)).replace(old, new))

    for name, about in declared.items():
        if name not in given and "defaultValue" not in about and not about.get("isOptional"):
            return told("is not optional", "parameter a is", f"parameter {name} is")
    unknown = sorted(set(given) - set(declared))
    if unknown:
        return told("not required by pipeline", "pipeline: zz", f"pipeline: {', '.join(unknown)}")
    for name, value in given.items():
        number = declared[name]["parameterType"].startswith("NUMBER")
        if number and (isinstance(value, bool) or not isinstance(value, int | float)):
            return told("not of number value type", "parameter a requires", f"parameter {name} requires")
    return None
