"""The API: events idempotently, forged ones refused, channels without secrets, and the page behind a link."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient
from roblox_ml_core.settings import HomeSettings
from roblox_ml_platform.notifying.events import event, event_id
from roblox_ml_platform.notifying.page import linker


def document(n: int = 1, type: str = "run.failed", **fields: Any) -> dict[str, Any]:
    subject = {"pipeline": "nightly", "run": f"nightly-{n}", "execution": 1}
    facts = {"step": "train", "error": "<script>alert(1)</script>", "log": ["\x1b[31mred\x1b[0m"]}
    return {**event(type, subject, notify=[]), "facts": facts, **fields}


def test_an_event_is_taken_once(client: TestClient) -> None:
    assert client.post("/v1/events", json=document()).status_code == 202
    again = client.post("/v1/events", json=document(facts={"error": "other"}))
    assert again.status_code == 200 and again.json() == {"id": document()["id"], "created": False}
    (kept,) = client.get("/v1/events", params={"pipeline": "nightly"}).json()["events"]
    assert kept["facts"]["step"] == "train", "the first word counts"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"id": "0" * 32}, "digest"),
        ({"type": "alias.moved"}, "none of"),
        ({"type": "run.recovered"}, "none of"),
        ({"type": "channel.test"}, "none of"),
        ({"schema": 2}, "schema"),
        ({"at": 1e30}, "at must be"),
        ({"subject": {}}, "subject"),
        ({"notify": [{}] * 21}, "at most"),
        ({"pipeline": "x" * 300}, "255"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_what_is_no_event_is_refused(client: TestClient, fields: dict[str, Any], says: str) -> None:
    made = document()
    made |= fields
    if set(fields) & {"type", "subject"} and "id" not in fields:
        made["id"] = event_id(made["type"], made["subject"])
    answer = client.post("/v1/events", json=made)
    assert answer.status_code == 422 and says in answer.json()["error"]["message"]


def test_a_link_opens_its_event_and_no_other(client: TestClient, rml_home: Any) -> None:
    for n in (1, 2):
        client.post("/v1/events", json=document(n))
    first, second = (document(n)["id"] for n in (1, 2))
    link = linker("", HomeSettings())
    del client.headers["authorization"]
    page = client.get(link(first))
    assert page.status_code == 200 and "nightly-1" in page.text and "<script>" not in page.text
    assert (
        "default-src 'none'" in page.headers["content-security-policy"] and page.headers["cache-control"] == "no-store"
    )
    key = link(first).rpartition("k=")[2]
    for e, k in (
        (second, key),
        (first, ""),
        (first, "é"),
        ("", key),
        (first, key[:-1]),
        ("0" * 32, link("0" * 32)[-40:]),
    ):
        assert client.get("/n", params={"e": e, "k": k}).status_code == 404
    assert client.get(f"/v1/events/{first}").status_code == 401


def test_notifications_are_listed_with_counts(client: TestClient) -> None:
    assert client.get("/v1/notifications", params={"state": "dead"}).json() == {
        "notifications": [], "counts": {"pending": 0, "delivered": 0, "dead": 0},
    }  # fmt: skip
    assert client.get("/v1/notifications", params={"state": "lost"}).status_code == 422
    assert client.post("/v1/notifications/7/retry").status_code == 404
    assert client.post("/v1/notifications/retry").json() == {"retried": 0}
    assert client.delete("/v1/channels/none").status_code == 404
