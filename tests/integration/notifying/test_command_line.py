"""`rml channels` and `rml notifications` against a control plane that runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner

import roblox_ml as rml
from roblox_ml import _events
from roblox_ml.cli import app


def test_a_channel_from_the_command_line(
    planes: Any, receiver: Any, wait_for: Callable[..., Any], make_answer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane = planes(RML_CHANNEL_ML=f"{receiver.url}/services/T/B/very-secret", RML_NOTIFY_DEAD_AFTER_S="0.5").start()
    monkeypatch.setenv("RML_CONTROL_URL", plane.url)
    monkeypatch.setenv("COLUMNS", "250")

    def typed(*arguments: str, code: int = 0) -> str:
        done = CliRunner().invoke(app, list(arguments))
        assert done.exit_code == code, done.output + repr(done.exception)
        return done.output

    assert "rml channels test slack" in typed(
        "channels", "add", "slack", "--kind", "slack", "--url-env", "RML_CHANNEL_ML"
    )
    shown = typed("channels")
    assert "env RML_CHANNEL_ML" in shown and "very-secret" not in shown
    assert "took the message" in typed("channels", "test", "slack")
    receiver.usual = make_answer(404, b"no_service")
    assert "HTTP 404: no_service" in typed("channels", "test", "slack", code=1)
    wait_for(lambda: plane.notifications("dead"))
    receiver.usual = make_answer()
    listed = json.loads(typed("notifications", "--state", "dead", "--json"))
    (dead,) = listed["notifications"]
    assert listed["counts"] == {"pending": 0, "delivered": 1, "dead": 1}
    assert "is tried again" in typed("notifications", "retry", str(dead["id"]))
    wait_for(lambda: len(plane.notifications("delivered")) == 2)
    _events.emit("run.failed", {"run": "r-9", "pipeline": "nightly", "execution": 1}, [rml.slack("#ml")]).trouble(10)
    wait_for(lambda: len(plane.notifications("delivered")) == 3)
    table = typed("notifications")
    assert "run.failed" in table and "r-9" in table and "slack #ml" in table and "3 delivered" in table
    assert "0 are tried again" in typed("notifications", "retry", "--dead")
    assert "is removed" in typed("channels", "remove", "slack")
