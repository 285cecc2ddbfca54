"""The outbox over both databases: two control planes, one of them killed in between, and nobody is told twice or never."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from roblox_ml import _events

_QUICK = {
    "RML_NOTIFY_TICK_S": "0.05", "RML_NOTIFY_BASE_S": "0.1", "RML_NOTIFY_CAP_S": "0.5",
    "RML_NOTIFY_TIMEOUT_S": "1", "RML_NOTIFY_LEASE_S": "2",
}  # fmt: skip


def test_two_control_planes_share_one_outbox(planes: Callable[..., Any], database: dict[str, str]) -> None:
    posts: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            posts.append((self.path, self.headers["x-rml-event-id"]))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hooks = [
        {"kind": "webhook", "target": f"http://127.0.0.1:{server.server_port}/{n}", "on": ["failure"]} for n in range(3)
    ]
    try:
        first, second = planes(**database, **_QUICK), planes(**database, **_QUICK)
        with second.client() as client:
            for n in range(20):
                subject = {"run": f"r-{n}", "pipeline": "p", "execution": 1}
                document = {
                    "schema": 1, "id": _events.event_id("run.failed", subject), "type": "run.failed", "at": time.time(),
                    "pipeline": "p", "subject": subject, "facts": {"log": ["\x1b[31m odd"]}, "notify": hooks,
                }  # fmt: skip
                if n == 10:
                    first.kill()
                client.call("POST", "/v1/events", document)
            for _ in range(600):
                found = client.call("GET", "/v1/notifications")
                if found["counts"] == {"pending": 0, "delivered": 60, "dead": 0}:
                    break
                time.sleep(0.1)
            assert found["counts"] == {"pending": 0, "delivered": 60, "dead": 0}
    finally:
        server.shutdown()
        server.server_close()
    told = Counter(posts)
    assert len(told) == 60
    # What the killed one had sent and not recorded is sent again under the same id: at most what it had in hand.
    assert sum(told.values()) - 60 <= 4
