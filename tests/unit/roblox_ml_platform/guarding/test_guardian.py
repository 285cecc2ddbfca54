"""The guard before a whole control plane, with a clock of its own: canaries, arms, promotions, warnings, evidence, people told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry
from roblox_ml_core.settings import GuardSettings
from roblox_ml_platform.database import now
from roblox_ml_platform.guarding.counts import BINS
from roblox_ml_platform.guarding.guardrails import Guardrails
from roblox_ml_platform.guarding.service import Guardian

Body = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control plane's own guard does not look; these tests do."""
    monkeypatch.setenv("RML_GUARD_ACTION", "off")


class World:
    """Three versions of a model behind the endpoint `feed`, a guard with its own clock, and doors that report through the route."""

    def __init__(self, client: TestClient, body: Body, action: str = "rollback", **settings: Any) -> None:
        self.client = client
        for mark in "abc":
            client.post("/v1/models/feed/versions", json=body(mark)).raise_for_status()
        self.promote(1)
        self.put("/v1/endpoints/feed", {"model": "feed", "alias": "champion"})
        app: Any = client.app
        self.time = now()
        self.began = self.time
        self.context = replace(app.state.context, metrics=CollectorRegistry())
        self.guard = Guardian(self.context, GuardSettings(action=action, **settings), clock=lambda: self.time)
        app.state.guardian = self.guard
        self.counts: dict[tuple[str, ...], list[Any]] = {}

    def put(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = self.client.put(path, json=body)
        assert answer.status_code in (200, 201), answer.text
        return dict(answer.json())

    def promote(self, version: int) -> None:
        self.put("/v1/models/feed/aliases/champion", {"version": version, "reason": "t"})

    def serve(self, *key: str, requests: int, errors: int = 0, bin: int = 20) -> None:
        """Count; `key` is version, role, experiment, arm."""
        found = self.counts.setdefault((*key, *("champion", "", "")[len(key) - 1 :]), [0, 0, [0] * BINS])
        found[0] += requests
        found[1] += errors
        found[2][bin] += requests

    def report(self) -> None:
        counts = [
            {"endpoint": "feed", "version": v, "role": role, "experiment": experiment, "arm": arm,
             "requests": n, "errors": e, "latency": bins}
            for (v, role, experiment, arm), (n, e, bins) in self.counts.items()
        ]  # fmt: skip
        self.put("/v1/doors/d1/counts", {"started_at": self.began, "counts": counts})

    def second(self, *served: tuple[tuple[str, ...], int, int]) -> list[Any]:
        """One second: (key, requests, errors) each; what the guard found then."""
        self.time += 1
        for key, requests, errors in served:
            self.serve(*key, requests=requests, errors=errors)
        self.report()
        return self.guard.step()

    def rollbacks(self) -> list[dict[str, Any]]:
        return list(self.client.get("/v1/endpoints/feed/rollbacks").json()["rollbacks"])


@pytest.fixture
def world(client: TestClient, body: Body) -> World:
    return World(client, body)


def canary(world: World) -> None:
    world.client.post("/v1/endpoints/feed/canary", json={"version": 2, "share": 500}).raise_for_status()


def test_a_bad_canary_is_ended_with_evidence_audit_and_an_event(world: World) -> None:
    canary(world)
    found, seconds = [], 0
    while not found:
        seconds += 1
        assert seconds <= 10
        found = world.second((("1",), 900, 1), (("2", "canary"), 50, 5))
    assert world.client.post("/v1/endpoints/feed/canary/promote").status_code == 404
    [one] = world.rollbacks()
    assert (one["kind"], one["action"], one["version"], one["back_to"]) == ("canary", "rolled_back", "feed/2", "feed/1")
    proof = one["evidence"]
    assert proof["challenger"]["requests"] == 50 * seconds and proof["challenger"]["errors"] == 5 * seconds
    assert proof["baseline"]["requests"] == 900 * seconds and proof["baseline"]["errors"] == seconds
    assert proof["log_e_value"] >= proof["threshold"] and proof["test"] == "errors"
    assert [row["challenger"][:2] for row in proof["time_line"]] == [[50, 5]] * seconds
    assert sum(row["baseline"][0] for row in proof["time_line"]) == 900 * seconds
    assert "failed 10 % of" in one["reason"]
    audit = world.client.get("/v1/audit").json()["audit"]
    assert {"guard.rolled_back", "canary.end"} <= {row["action"] for row in audit if row["actor"] == "guard"}
    assert world.second((("1",), 900, 1)) == [], "what was taken back is not taken back again"
    from roblox_ml_platform.notifying import tables
    from sqlalchemy import select

    with world.context.database.read() as connection:
        told = [row for row in connection.execute(select(tables.events)).mappings() if row["type"] == "rollout.guarded"]
    assert [row["subject"]["rollback"] for row in told] == [one["id"]]


def test_a_healthy_canary_and_one_that_is_only_young_stay(world: World) -> None:
    canary(world)
    for _ in range(30):
        assert world.second((("1",), 900, 2), (("2", "canary"), 50, 0)) == []
    assert world.rollbacks() == []


def test_warn_writes_down_once_and_changes_nothing(client: TestClient, body: Body) -> None:
    world = World(client, body, action="warn")
    canary(world)
    for _ in range(12):
        world.second((("1",), 900, 1), (("2", "canary"), 50, 10))
    assert [one["action"] for one in world.rollbacks()] == ["warned"]
    assert client.request("DELETE", "/v1/endpoints/feed/canary").status_code == 200


def test_an_arm_that_changes_the_model_is_held_against_control(world: World) -> None:
    world.put("/v1/layers/l", {"unit": "user_id"})
    arms = {"control": {"ref": "feed@champion", "weight": 5000}, "new": {"ref": "feed/3", "weight": 5000}}
    world.put("/v1/experiments/e", {"endpoint": "feed", "layer": "l", "share": 5000, "arms": arms})
    found: list[Any] = []
    for _ in range(10):
        found += world.second(
            (("1",), 500, 100), (("1", "arm", "e", "control"), 100, 0), (("3", "arm", "e", "new"), 100, 10)
        )
    assert [(one.kind, one.subject) for one in found] == [("experiment", "e")]
    experiment = world.client.get("/v1/experiments/e").json()
    assert not experiment["running"] and "arm new of e feed/3" in experiment["reason"]


def test_a_new_champion_that_fails_is_rolled_back_and_the_way_back_is_not_judged(world: World) -> None:
    for _ in range(40):
        world.second((("1",), 100, 0))
    world.promote(2)
    found: list[Any] = []
    for _ in range(10):
        found += world.second((("2",), 100, 8))
        if found:
            break
    assert [one.kind for one in found] == ["promotion"]
    assert world.client.get("/v1/endpoints/feed").json()["version"] == 1
    for _ in range(10):
        assert world.second((("1",), 100, 20)) == []
    assert [one["back_to"] for one in world.rollbacks()] == ["feed/1"]


def test_a_rollback_by_a_person_is_not_judged(world: World) -> None:
    world.promote(2)
    for _ in range(20):
        world.second((("2",), 100, 0))
    world.client.post("/v1/endpoints/feed/rollback").raise_for_status()
    for _ in range(10):
        assert world.second((("1",), 100, 20)) == []


def test_after_the_bake_time_a_champion_is_on_its_own(client: TestClient, body: Body) -> None:
    world = World(client, body, bake_s=5)
    for _ in range(20):
        world.second((("1",), 100, 0))
    world.promote(2)
    for _ in range(7):
        assert world.second((("2",), 100, 0)) == []
    for _ in range(5):
        assert world.second((("2",), 100, 30)) == []


def test_what_was_ended_meanwhile_is_left_alone(world: World) -> None:
    from roblox_ml_platform.guarding import acting
    from roblox_ml_platform.guarding.counts import Key
    from roblox_ml_platform.guarding.watches import Watch

    watch = Watch("canary", "feed", "", "feed/2", "feed/1", Key("feed", "2", "canary"), Key("feed", "1"), 0.0)
    for one in (watch, Watch("promotion", "feed", "", "feed/9", "feed/1", Key("feed", "9"), Key("feed", "1"), 0.0)):
        with world.context.database.write() as connection:
            assert acting.take_back(connection, one, "late", {}) is None
    assert world.rollbacks() == []


def test_what_cannot_be_taken_back_is_written_down(world: World) -> None:
    from roblox_ml_platform.guarding import acting
    from roblox_ml_platform.guarding.counts import Key
    from roblox_ml_platform.guarding.watches import Watch

    watch = Watch("promotion", "feed", "", "feed/1", "feed/0", Key("feed", "1"), Key("feed", "0"), 0.0)
    with world.context.database.write() as connection:  # version 1 is all there ever was
        done = acting.take_back(connection, watch, "worse", {})
    assert done is not None and done["action"] == "refused" and "nothing to roll back to" in done["reason"]


def test_a_breached_guardrail_stops_the_experiment(world: World) -> None:
    world.put("/v1/layers/l", {"unit": "user_id"})
    arms = {"control": {"weight": 5000}, "new": {"weight": 5000, "params": {"k": 2}}}
    rail = {"name": "crash", "kind": "conversion", "event": "crash", "direction": "down", "margin": 0.1}
    world.put("/v1/experiments/e", {"endpoint": "feed", "layer": "l", "share": 100, "arms": arms, "guardrails": [rail]})
    said = {"breached": False}

    def report(experiment: Any) -> dict[str, Any]:
        arm = {"arm": "new", "mean": 0.3, "control": 0.1, "excess": 0.2, "bound": 0.1, **said}
        return {
            "guardrails": [{**rail, "arms": [arm], **said}],
            "units": [],
            "until": 1.0,
            "alpha": 0.05,
            "control": "control",
        }

    rails = Guardrails(world.context, GuardSettings(action="rollback"), report)
    assert rails.step() == []
    said["breached"] = True
    assert rails.step() == ["e"] and rails.step() == []
    assert "guardrail crash" in world.client.get("/v1/experiments/e").json()["reason"]
    [one] = world.rollbacks()
    assert (one["kind"], one["subject"], one["action"]) == ("guardrail", "e", "rolled_back")


def test_counts_that_cannot_be_are_refused(world: World) -> None:
    entry = {
        "endpoint": "feed",
        "version": "1",
        "role": "champion",
        "requests": 4,
        "errors": 0,
        "latency": [4] + [0] * (BINS - 1),
    }

    def answer(**change: Any) -> int:
        counts = [{**entry, **change}]
        return world.client.put("/v1/doors/d/counts", json={"started_at": 1.0, "counts": counts}).status_code

    assert answer() == 200
    for change in (
        {"requests": -1}, {"errors": 5}, {"latency": [4] + [0] * (BINS - 2)}, {"role": "king"}, {"endpoint": "../x"}, {"more": 1},
    ):  # fmt: skip
        assert answer(**change) == 422, change


def test_a_report_over_http(world: World) -> None:
    world.put("/v1/layers/l", {"unit": "user_id"})
    arms = {"control": {"weight": 5000}, "new": {"weight": 5000, "params": {"k": 2}}}
    metric = {"name": "clicks", "kind": "count", "event": "click"}
    world.put("/v1/experiments/e", {"endpoint": "feed", "layer": "l", "share": 100, "arms": arms, "metrics": [metric]})
    found = world.client.get("/v1/experiments/e/report").json()
    assert found["experiment"] == "e" and found["metrics"][0]["name"] == "clicks"
    assert "Nobody has been exposed yet." in found["warnings"]
    assert world.client.get("/v1/experiments/none/report").status_code == 404
    world.put("/v1/endpoints/feed/shadows/s", {"ref": "feed/2"})
    assert world.client.get("/v1/endpoints/feed/shadows/s/report").json()["asked"] == 0
    assert world.client.get("/v1/endpoints/feed/shadows/none/report").status_code == 404
