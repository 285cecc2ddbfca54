"""The routes: a small HTTP server over the state."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from . import rules
from .recording import ROOT, recorded
from .state import State

_OPERATIONS = {1: "EQUALS", "1": "EQUALS"}
_ACTIONS = {"archive": "ARCHIVED", "unarchive": "AVAILABLE"}


class Handler(BaseHTTPRequestHandler):
    """One request at a time holds the state's lock; an engine works in threads of its own."""

    protocol_version = "HTTP/1.1"
    server: KfpServer

    def log_message(self, format: str, *args: Any) -> None:
        """Silence."""

    def do_GET(self) -> None:
        self._handle("GET")

    def do_POST(self) -> None:
        self._handle("POST")

    def do_DELETE(self) -> None:
        self._handle("DELETE")

    def _handle(self, method: str) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        query = {k: v[0] for k, v in parse_qs(parts.query, keep_blank_values=True).items()}
        state = self.server.state
        with state.lock:
            state.requests.append((method, self.path))
            state.tokens.append(self.headers.get("Authorization"))
            status, response = self._answer(method, parts.path, query, body)
            for watcher in state.watchers:
                watcher(method, parts.path)
        text = isinstance(response, str)
        data = response.encode() if text else json.dumps(response).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if text else "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _answer(self, method: str, path: str, query: dict[str, str], body: bytes) -> tuple[int, Any]:
        state = self.server.state
        if state.wanted_token and self.headers.get("Authorization") != f"Bearer {state.wanted_token}":
            return 401, {"code": 16, "message": "Request is unauthenticated", "details": []}
        for route_method, pattern, answer in ROUTES:
            match = re.fullmatch(pattern, path)
            if match and route_method == method:
                return answer(self, state, query, body, *match.groups())  # type: ignore[no-any-return]
        return 404, {"code": 5, "message": "Not Found", "details": []}

    # --- pipelines -----------------------------------------------------------------------------------------------

    def healthz(self, state: State, query: dict[str, str], body: bytes) -> Any:
        return 200, recorded("GET", "/healthz", 200)

    def upload(self, state: State, query: dict[str, str], body: bytes) -> Any:
        data = self._file(body)
        spec = rules.documents(data)
        if spec is None:
            return 400, recorded("POST", "/pipelines/upload", 400, "unknown template")
        if any(p["display_name"] == query["name"] for p in state.pipelines.values()):
            return 409, recorded("POST", "/pipelines/upload", 409)
        return 200, state.add_pipeline(query["name"], query.get("description"), data, spec)

    def upload_version(self, state: State, query: dict[str, str], body: bytes) -> Any:
        data = self._file(body)
        spec = rules.documents(data)
        if spec is None:
            return 400, recorded("POST", "/pipelines/upload", 400, "unknown template")
        if query["pipelineid"] not in state.pipelines:
            return rules.not_found("pipeline", query["pipelineid"])
        if any(v["pipeline_id"] == query["pipelineid"] and v["name"] == query["name"] for v in state.versions.values()):
            return 409, recorded("POST", "/pipelines/upload", 409)
        return 200, state.add_version(query["pipelineid"], query["name"], query.get("description"), data, spec)

    def list_pipelines(self, state: State, query: dict[str, str], body: bytes) -> Any:
        return _page("pipelines", [p for p in state.pipelines.values() if _matches(p, query)], query)

    def get_pipeline(self, state: State, query: dict[str, str], body: bytes, pipeline: str) -> Any:
        return (
            (200, state.pipelines[pipeline]) if pipeline in state.pipelines else rules.not_found("pipeline", pipeline)
        )

    def list_versions(self, state: State, query: dict[str, str], body: bytes, pipeline: str) -> Any:
        found = [v for v in state.versions.values() if v["pipeline_id"] == pipeline and _matches(v, query)]
        return _page("pipeline_versions", found, query)

    def get_version(self, state: State, query: dict[str, str], body: bytes, pipeline: str, version: str) -> Any:
        return (
            (200, state.versions[version])
            if version in state.versions
            else rules.not_found("pipeline version", version)
        )

    def delete_version(self, state: State, query: dict[str, str], body: bytes, pipeline: str, version: str) -> Any:
        return (200, {}) if state.versions.pop(version, None) else rules.not_found("pipeline version", version)

    # --- experiments and runs ------------------------------------------------------------------------------------

    def list_experiments(self, state: State, query: dict[str, str], body: bytes) -> Any:
        return _page("experiments", [e for e in state.experiments.values() if _matches(e, query)], query)

    def get_experiment(self, state: State, query: dict[str, str], body: bytes, experiment: str) -> Any:
        return (
            (200, state.experiments[experiment])
            if experiment in state.experiments
            else rules.not_found("experiment", experiment)
        )

    def create_experiment(self, state: State, query: dict[str, str], body: bytes) -> Any:
        asked = json.loads(body)
        state.bodies.append(asked)
        same = [e for e in state.experiments.values() if e["display_name"] == asked["display_name"]]
        return 200, same[0] if same else state.add_experiment(asked)

    def create_run(self, state: State, query: dict[str, str], body: bytes) -> Any:
        asked = json.loads(body)
        state.bodies.append(asked)
        return state.add_run(asked)

    def list_runs(self, state: State, query: dict[str, str], body: bytes) -> Any:
        wanted = query.get("experiment_id")
        every = [r.as_json() for r in state.runs.values()]
        return _page(
            "runs", [r for r in every if wanted in (None, "", r.get("experiment_id")) and _matches(r, query)], query
        )

    def get_run(self, state: State, query: dict[str, str], body: bytes, run: str) -> Any:
        return (200, state.runs[run].as_json()) if run in state.runs else rules.not_found("run", run)

    def delete_run(self, state: State, query: dict[str, str], body: bytes, run: str) -> Any:
        return (200, {}) if state.runs.pop(run, None) else rules.not_found("run", run)

    def act_on_run(self, state: State, query: dict[str, str], body: bytes, run: str, action: str) -> Any:
        if run not in state.runs:
            return rules.not_found("run", run)
        found = state.runs[run]
        if action in _ACTIONS:
            found.raw["storage_state"] = _ACTIONS[action]
        elif action == "terminate":
            self._terminate(state, found)
        else:
            if not found.steps:
                return rules.not_retriable(run)
            if found.state not in ("FAILED", "CANCELED"):
                return rules.not_failed(run)
            found.again()
            if state.engine is not None:
                state.engine.retry(found)
        return 200, {}

    def _terminate(self, state: State, run: Any) -> None:
        if run.state in ("SUCCEEDED", "FAILED", "CANCELED"):
            return
        run.cancel()
        if state.engine is not None:
            state.engine.cancel(run)
        else:
            for name, step in list(run.steps.items()):
                if step.state in ("RUNNING", "PENDING"):
                    run.report(name, "CANCELED")
            run.end("CANCELED")

    def log(self, state: State, query: dict[str, str], body: bytes, run: str, node: str) -> Any:
        found = state.runs.get(run)
        if found is None:
            return rules.not_found("run", run)
        return (200, found.pods[node]) if node in found.pods else rules.no_log(run, node)

    # --- recurring runs ------------------------------------------------------------------------------------------

    def create_recurring(self, state: State, query: dict[str, str], body: bytes) -> Any:
        asked = json.loads(body)
        state.bodies.append(asked)
        return state.add_recurring(asked)

    def list_recurring(self, state: State, query: dict[str, str], body: bytes) -> Any:
        wanted = query.get("experiment_id")
        found = [r for r in state.recurring.values() if wanted in (None, "", r["experiment_id"]) and _matches(r, query)]
        return _page("recurringRuns", found, query)

    def get_recurring(self, state: State, query: dict[str, str], body: bytes, recurring: str) -> Any:
        return (
            (200, state.recurring[recurring])
            if recurring in state.recurring
            else rules.not_found("recurring run", recurring)
        )

    def delete_recurring(self, state: State, query: dict[str, str], body: bytes, recurring: str) -> Any:
        return (200, {}) if state.recurring.pop(recurring, None) else rules.not_found("recurring run", recurring)

    def switch_recurring(self, state: State, query: dict[str, str], body: bytes, recurring: str, action: str) -> Any:
        if recurring not in state.recurring:
            return rules.not_found("recurring run", recurring)
        on = action == "enable"
        state.recurring[recurring].update(mode="ENABLE" if on else "DISABLE", status="ENABLED" if on else "DISABLED")
        return 200, {}

    def _file(self, body: bytes) -> bytes:
        """The uploaded file in a multipart body, exactly."""
        header = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        boundary = BytesParser().parsebytes(header + body).get_boundary()
        assert boundary is not None
        _, _, rest = body.partition(b"\r\n\r\n")
        return rest[: rest.rindex(f"\r\n--{boundary}--".encode())]


_ID = "([^/:]+)"
ROUTES: list[tuple[str, str, Any]] = [
    ("GET", f"{ROOT}/healthz", Handler.healthz),
    ("POST", f"{ROOT}/pipelines/upload", Handler.upload),
    ("POST", f"{ROOT}/pipelines/upload_version", Handler.upload_version),
    ("GET", f"{ROOT}/pipelines", Handler.list_pipelines),
    ("GET", f"{ROOT}/pipelines/{_ID}", Handler.get_pipeline),
    ("GET", f"{ROOT}/pipelines/{_ID}/versions", Handler.list_versions),
    ("GET", f"{ROOT}/pipelines/{_ID}/versions/{_ID}", Handler.get_version),
    ("DELETE", f"{ROOT}/pipelines/{_ID}/versions/{_ID}", Handler.delete_version),
    ("GET", f"{ROOT}/experiments", Handler.list_experiments),
    ("GET", f"{ROOT}/experiments/{_ID}", Handler.get_experiment),
    ("POST", f"{ROOT}/experiments", Handler.create_experiment),
    ("POST", f"{ROOT}/runs", Handler.create_run),
    ("GET", f"{ROOT}/runs", Handler.list_runs),
    ("GET", f"{ROOT}/runs/{_ID}", Handler.get_run),
    ("DELETE", f"{ROOT}/runs/{_ID}", Handler.delete_run),
    ("POST", f"{ROOT}/runs/{_ID}:(archive|unarchive|terminate|retry)", Handler.act_on_run),
    ("POST", f"{ROOT}/recurringruns", Handler.create_recurring),
    ("GET", f"{ROOT}/recurringruns", Handler.list_recurring),
    ("GET", f"{ROOT}/recurringruns/{_ID}", Handler.get_recurring),
    ("DELETE", f"{ROOT}/recurringruns/{_ID}", Handler.delete_recurring),
    ("POST", f"{ROOT}/recurringruns/{_ID}:(enable|disable)", Handler.switch_recurring),
    ("GET", f"/apis/v1alpha1/runs/{_ID}/nodes/{_ID}/log", Handler.log),
]


class KfpServer(ThreadingHTTPServer):
    """The server; `url` is its address, `state` what it holds."""

    daemon_threads = True

    def __init__(self, state: State) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.state = state
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def running(engine: Any = None, artifacts: Path | None = None) -> Iterator[KfpServer]:
    """A server on a free port, for the length of a block."""
    server = KfpServer(State(engine=engine, artifacts=artifacts))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _page(key: str, found: list[dict[str, Any]], query: dict[str, str]) -> tuple[int, Any]:
    """One page of a list, in the order asked for."""
    if not found:
        return 200, {}
    field, _, direction = (query.get("sort_by") or "").partition(" ")
    # Times have no fractions; what was made later comes later.
    listed = list(reversed(found)) if direction == "desc" else list(found)
    if field and field != "created_at":
        listed.sort(key=lambda thing: str(thing.get(field)), reverse=direction == "desc")
    start = int(query.get("page_token") or 0)
    size = int(query.get("page_size") or 10)
    answer: dict[str, Any] = {key: listed[start : start + size], "total_size": len(found)}
    if start + size < len(listed):
        answer["next_page_token"] = str(start + size)
    return 200, answer


def _matches(thing: dict[str, Any], query: dict[str, str]) -> bool:
    if not query.get("filter"):
        return True
    for predicate in json.loads(query["filter"])["predicates"]:
        operation = _OPERATIONS.get(predicate["operation"], predicate["operation"])
        key = "display_name" if predicate["key"] == "name" else predicate["key"]
        if operation != "EQUALS" or thing.get(key) != predicate["stringValue"]:
            return False
    return True
