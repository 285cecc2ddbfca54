"""The registry client: what it sends, and how the control plane's errors come back."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from roblox_ml_core.errors import Conflict, Unauthorized, Unavailable
from roblox_ml_core.registry import ModelState, RegistryClient


def _client(answer: Any, status: int = 200, seen: list[httpx.Request] | None = None) -> RegistryClient:
    def handle(request: httpx.Request) -> httpx.Response:
        if seen is not None:
            seen.append(request)
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(status, json=answer)

    return RegistryClient("http://plane/", "word", actor="ann@desk", transport=httpx.MockTransport(handle))


def test_every_call_carries_token_and_actor() -> None:
    seen: list[httpx.Request] = []
    _client({"version": 2}, seen=seen).promote("scale", "champion", 2, expected_generation=7, reason="better")
    request = seen[0]
    assert (request.method, str(request.url)) == ("PUT", "http://plane/v1/models/scale/aliases/champion")
    assert request.headers["authorization"] == "Bearer word"
    assert request.headers["x-rml-actor"] == "ann@desk"
    assert json.loads(request.content) == {"version": 2, "expected_generation": 7, "reason": "better"}


def test_a_conflict_keeps_who_won() -> None:
    body = {"error": {"code": "conflict", "message": "moved", "hint": "look", "details": {"by": "bob"}}}
    with pytest.raises(Conflict) as caught:
        _client(body, 409).promote("scale", "champion", 2)
    assert caught.value.details == {"by": "bob"}


def test_no_answer_and_no_entry_are_told_apart() -> None:
    with pytest.raises(Unavailable, match="rml up"):
        _client(httpx.ConnectError("refused")).models()
    with pytest.raises(Unauthorized):
        _client({"error": {"code": "unauthorized", "message": "no", "hint": ""}}, 401).models()
    assert not _client(httpx.ConnectError("refused")).ready()


def test_polling_states_what_is_known_and_waits_longer() -> None:
    seen: list[httpx.Request] = []
    model = {"model": "scale", "version": 1, "digest": "d", "manifest": {"a": {"sha256": "d", "size": 1}}}
    desired = _client({"generation": 4, "models": [model]}, seen=seen).desired("local", after=3, wait=20)
    assert desired.generation == 4
    assert desired.models[0].manifest["a"]["size"] == 1
    assert dict(seen[0].url.params) == {"after": "3", "wait": "20", "role": "general"}
    assert seen[0].extensions["timeout"]["read"] > 20
    _client({"generation": 1}, seen=seen).snapshot()
    assert "after" not in seen[1].url.params


def test_a_report_lists_states() -> None:
    seen: list[httpx.Request] = []
    _client({}, seen=seen).report("local", "h:1", "g:2", [ModelState("scale", 1, "d", "failed", "no memory")])
    assert json.loads(seen[0].content)["models"] == [
        {"model": "scale", "version": 1, "digest": "d", "state": "failed", "reason": "no memory"}
    ]
