"""The Envoy configuration that is written for a mesh, run by a real Envoy: it loads, it is sticky, it finds the version."""

from __future__ import annotations

import collections
import http.server
import json
import os
import shutil
import socket
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from roblox_ml_core.policy import read_policy
from roblox_ml_serving.kserve import envoy_route, split_of

ROOT = Path(__file__).resolve().parents[3]
PEERS = Path(os.environ.get("RML_PEERS_DIR") or ROOT / ".peers")
SHARE = 0.3
POLICY = {
    "endpoints": {
        "feed": {
            "model": "feed", "version": 1, "digest": "1a" * 32,
            "canary": {"ref": "feed/2", "share": int(SHARE * 10_000), "salt": "canary/feed/1"},
        }
    },
    "versions": {"feed/1": {"digest": "1a" * 32}, "feed/2": {"digest": "2b" * 32}},
}  # fmt: skip


class Echo(http.server.BaseHTTPRequestHandler):
    """Says which path it was asked."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        body = self.path.encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing: pytest shows the failures."""


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an Envoy in front of the echo."""
    binary = shutil.which("envoy") or next(
        map(str, PEERS.glob("router/lib/python3*/site-packages/envoy/_bin/envoy")), ""
    )
    if not binary:
        pytest.skip("no Envoy: `python scripts/setup_peers.py router` installs one")
    upstream = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=upstream.serve_forever, daemon=True).start()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path_factory.mktemp("envoy")
    written = envoy_route(split_of(read_policy(POLICY), "feed"), ("127.0.0.1", upstream.server_port))
    (folder / "envoy.json").write_text(json.dumps(around(written, port)))
    process = subprocess.Popen(
        [binary, "-c", str(folder / "envoy.json"), "--concurrency", "1", "--disable-hot-restart", "-l", "error"],
        stderr=(folder / "log").open("wb"),
    )
    try:
        while process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
        assert process.poll() is None, (folder / "log").read_text()
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=10)
        upstream.shutdown()


def around(written: dict[str, Any], port: int) -> dict[str, Any]:
    """A whole Envoy around the route and the clusters."""
    kind = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{kind}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "mesh",
        "route_config": written["route_config"],
        "http_filters": [{"name": "router", "typed_config": {"@type": f"{kind}.http.router.v3.Router"}}],
    }
    listener = {
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    return {"static_resources": {"listeners": [listener], "clusters": written["clusters"]}}


def test_envoy_sends_a_user_to_one_version_and_the_canary_gets_its_share(mesh: str) -> None:
    users, seen = 400, collections.defaultdict(set)
    for turn in range(2 * users):
        user = f"user-{turn % users}"
        request = urllib.request.Request(
            f"http://{mesh}/v2/models/feed/infer", b"{}", {"x-rml-unit": user}, method="POST"
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            seen[user].add((answer.read().decode(), answer.headers["x-rml-model-version"]))
    assert {len(ways) for ways in seen.values()} == {1}
    counted = collections.Counter(ways.pop() for ways in seen.values())
    champion, canary = ("/v2/models/feed.1/versions/1/infer", "1"), ("/v2/models/feed.2/versions/2/infer", "2")
    assert set(counted) == {champion, canary}
    # Six standard deviations; the users and Envoy's hash are always the same.
    assert abs(counted[canary] - SHARE * users) < 6 * (users * SHARE * (1 - SHARE)) ** 0.5
