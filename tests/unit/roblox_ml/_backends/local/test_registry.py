"""A run that registers gets a control plane before its first step; any other run starts nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import roblox_ml._stack as stack
from roblox_ml._backends.local.registry import control_plane_url, ensure_control_plane
from roblox_ml._backends.local.spec import Component, Container, PipelineSpec


def spec(entry: str) -> PipelineSpec:
    container = Container("python:3.11-slim", ("python3",), ("--sdk", "0", "--entry", entry), {})
    step = Component("comp-step", {}, {}, {}, {}, container)
    return PipelineSpec("p", Component("root", {}, {}, {}, {}), {"comp-step": step})


REGISTERS = spec("roblox_ml._runtime.system:register")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, free_port: Callable[[], int]) -> list[Any]:
    calls: list[Any] = []
    monkeypatch.setenv("RML_CONTROL_PORT", str(free_port()))  # nobody answers there
    monkeypatch.setattr(stack, "ensure", lambda *names, **_: calls.append(names))
    return calls


def test_only_a_run_that_registers_starts_it(started: list[Any]) -> None:
    ensure_control_plane(spec("rml_step:train"))
    assert started == []
    ensure_control_plane(REGISTERS)
    assert started == [("control-plane",)]


def test_an_address_somebody_set_is_used_and_never_started(started: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RML_CONTROL_URL", "http://registry.example")
    ensure_control_plane(REGISTERS)
    assert started == []
    assert control_plane_url() == "http://registry.example"


def test_steps_hear_where_the_local_one_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack, "address", lambda name: f"http://127.0.0.1:1234/{name}")
    assert control_plane_url() == "http://127.0.0.1:1234/control-plane"
