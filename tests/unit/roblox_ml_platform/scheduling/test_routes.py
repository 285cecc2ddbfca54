"""Over HTTP: publish, schedule, look, steer; and the collector spares what a schedule needs."""

from __future__ import annotations

from typing import Any

from fastapi.testclient import TestClient
from roblox_ml_core.storage import BlobStore


def test_publish_schedule_steer(client: TestClient, store: BlobStore) -> None:
    ir, lock = store.put(b"ir"), store.put(b"lock")
    missing = client.post("/v1/pipelines/p/versions", json={"ir": "0" * 64})
    assert missing.status_code == 409 and missing.json()["error"]["details"]["missing"] == ["0" * 64]
    body: dict[str, Any] = {"ir": ir, "blobs": [lock], "arguments": {"n": 1}}
    assert client.post("/v1/pipelines/p/versions", json=body).json()["version"] == 1
    assert client.post("/v1/pipelines/p/versions", json=body).json()["created"] is False
    assert client.post("/v1/pipelines/p/versions", json={**body, "arguments": {"n": 2}}).json()["version"] == 2
    wanted = {"pipeline": "p", "schedule": {"cron": "0 3 * * *", "tz": "Europe/Berlin"}}
    made = client.put("/v1/schedules/p", json=wanted).json()
    assert len(made["next"]) == 10 and all("T03:00:00" in one["due"] for one in made["next"])
    assert client.post("/v1/schedules/p:pause").json()["paused"] is True
    assert client.get("/v1/schedules/p/next").json()["next"] == []
    assert client.post("/v1/schedules/p:resume").json()["next_due"] == made["next_due"]
    assert len(client.get("/v1/schedules/p/next?count=3").json()["next"]) == 3
    assert [one["name"] for one in client.get("/v1/schedules?pipeline=p").json()["schedules"]] == ["p"]
    wrong = {"pipeline": "p", "schedule": {"cron": "0 3 * *", "tz": "Mars"}}
    answer = client.put("/v1/schedules/p", json=wrong)
    assert answer.status_code == 422 and "Mars" in answer.text and "4 fields" in answer.text
    assert client.put("/v1/schedules/q", json={**wanted, "pipeline": "q"}).status_code == 404
    audited = {row["action"] for row in client.get("/v1/audit").json()["audit"]}
    assert {"pipeline.publish", "schedule.put", "schedule.pause", "schedule.resume"} <= audited


def test_the_collector_spares_what_is_published(client: TestClient, store: BlobStore) -> None:
    ir, lock, loose = store.put(b"ir"), store.put(b"lock"), store.put(b"nobody's")
    client.post("/v1/pipelines/p/versions", json={"ir": ir, "blobs": [lock]})
    ask = {"dry_run": False, "scope": "all", "min_age_s": 0}
    assert [blob["sha256"] for blob in client.post("/v1/gc", json=ask).json()["blobs"]] == [loose]
    client.delete("/v1/pipelines/p")
    gone = client.post("/v1/gc", json={**ask, "scope": "released"}).json()["blobs"]
    assert {blob["sha256"] for blob in gone} == {ir, lock}


def test_the_runner_s_protocol(client: TestClient, store: BlobStore) -> None:
    client.post("/v1/pipelines/p/versions", json={"ir": store.put(b"ir"), "arguments": {"n": 1}})
    asked = {"pipeline": "p", "from": "2026-01-01", "to": "2026-01-02", "arguments": {"day": "{date}"}}
    assert "no schedule" in client.post("/v1/backfills", json=asked).text
    made = client.post("/v1/backfills", json={**asked, "schedule": {"cron": "0 0 * * *"}}).json()
    me = {"runner": "r", "instance": "i"}
    (order,) = client.post("/v1/runner/claim", json={**me, "slots": 5}).json()["runs"]
    assert order["arguments"] == {"n": 1, "day": "{date}"} and order["due"] == "2026-01-01T00:00:00+00:00"
    beat = client.post("/v1/runner/heartbeat", json={**me, "runs": [order["run"], "other"]}).json()
    assert beat["runs"] == {order["run"]: "go", "other": "lost"}
    for _ in range(2):
        ended = client.post("/v1/runner/report", json={**me, "run": order["run"], "state": "SUCCEEDED"})
        assert ended.status_code == 200
    shown = client.get(f"/v1/backfills/{made['id']}").json()
    assert shown["counts"] == {"SUCCEEDED": 1, "WAITING": 1} and not shown["done"]
    text = client.get("/metrics").text
    assert 'rml_scheduler_runs{state="WAITING"} 1.0' in text and "rml_scheduler_lag_seconds 0.0" in text
