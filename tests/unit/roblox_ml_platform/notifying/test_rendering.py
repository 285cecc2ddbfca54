"""Whatever a log holds, a message stays one: bounded, escaped, complete, and the same every time."""

from __future__ import annotations

import email
import email.policy
import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from roblox_ml_platform.notifying import rendering
from roblox_ml_platform.notifying.events import TYPES, event
from roblox_ml_platform.notifying.summary import Links, Summary, summarise
from roblox_ml_platform.notifying.text import clean, jsonable, tail

LINKS = Links(run="https://runs.example.com/{pipeline}/{run}", model="https://models.example.com/{model}/{version}")
NASTY = st.one_of(
    st.text(max_size=200),
    st.text(st.characters(), max_size=60),  # halves of surrogate pairs included
    st.sampled_from(
        [
            "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\x00", "\u202eevil\u202c", "```", "`" * 7, "<!channel> <@U1> <http://x|y>",
            "&amp;&lt;", "\r\nBcc: other@example.com\r\n\r\nbody", "50%\r60%\r100%", "\ud800", "\U0001f600" * 50, "</pre><script>",
            "x" * 200_000, "\n" * 5000, "{run}", "a\u2028b\u0085c", "é" * 4000, "\ufeff\u200b",
        ]
    ),
)  # fmt: skip
ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | NASTY,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NASTY, inner, max_size=4),
    max_leaves=8,
)
KEYS = (
    "error",
    "log",
    "step",
    "reason",
    "seconds",
    "findings",
    "by",
    "from",
    "to",
    "late_by_s",
    "host",
    "attempt",
    "failed_run",
)
EVENTS = st.fixed_dictionaries(
    {
        "id": st.just("0123456789abcdef0123456789abcdef"),
        "type": st.sampled_from([*TYPES, "something.else"]) | NASTY,
        "at": st.floats() | st.integers() | st.none(),
        "pipeline": st.none() | NASTY,
        "subject": st.dictionaries(
            st.sampled_from(["run", "pipeline", "model", "version", "alias", "due", "schedule", "channel", "task"]),
            ANYTHING,
        )
        | ANYTHING,
        "facts": st.dictionaries(st.sampled_from(KEYS), ANYTHING | st.lists(NASTY, max_size=40)) | ANYTHING,
    }
)
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2028\u2029]")


def failure(**facts: Any) -> Summary:
    subject = {"run": "nightly-1", "pipeline": "nightly", "execution": 1}
    return summarise(event("run.failed", subject, at=1_795_000_000.0, step="train", **facts), LINKS)


@settings(max_examples=150, deadline=None)
@given(EVENTS)
def test_slack_takes_any_event(document: dict[str, Any]) -> None:
    payload = rendering.slack(summarise(document, LINKS))
    assert json.loads(json.dumps(payload)) == payload
    assert len(payload["blocks"]) <= 50 and len(payload["text"]) <= 4000
    header, *rest = payload["blocks"]
    assert header["type"] == "header" and 1 <= len(header["text"]["text"]) <= 150 and "\n" not in header["text"]["text"]
    for block in rest:
        for text in ([block["text"]] if "text" in block else []) + block.get("fields", []) + block.get("elements", []):
            assert 1 <= len(text["text"]) <= (2000 if "fields" in block else 3000)
            assert not CONTROL.search(text["text"])
            if text["type"] == "mrkdwn":
                # Markup of Slack's own is nowhere but in our one link; a block of code is opened and closed once.
                outside = re.sub(r"<https://[^<>|\s]+\|Open>", "", text["text"])
                assert "<" not in outside and ">" not in outside
                assert re.fullmatch(r"[^&]*(&(amp|lt|gt);[^&]*)*", outside, re.S), "an entity was cut in half"
                assert text["text"].count("```") in (0, 2)


@settings(max_examples=100, deadline=None)
@given(EVENTS)
def test_a_mail_has_its_headers_and_no_others(document: dict[str, Any]) -> None:
    summary = summarise(document, LINKS)
    raw = rendering.mail(summary, "rml <rml@example.com>", "ada@example.org", domain="example.com").as_bytes()
    parsed = email.message_from_bytes(raw, policy=email.policy.default)
    assert sorted(parsed.keys()) == sorted(
        ["Subject", "From", "To", "Date", "Message-ID", "Auto-Submitted", "X-Rml-Event-Id", "X-Rml-Event-Type",
         "MIME-Version", "Content-Type"]
    )  # fmt: skip
    assert str(parsed["To"]) == "ada@example.org" and parsed["Bcc"] is None
    assert max(map(len, raw.split(b"\r\n"))) <= 998, "RFC 5322, 2.1.1"
    plain, page = parsed.get_body(("plain",)), parsed.get_body(("html",))
    assert plain is not None and page is not None
    assert summary.title in plain.get_content() and "<script>" not in page.get_content()
    assert page.get_content().count("<pre") == bool(summary.error) + bool(summary.tail)


@settings(max_examples=100, deadline=None)
@given(EVENTS)
def test_a_webhook_s_bytes_are_json_and_the_same_every_time(document: dict[str, Any]) -> None:
    first, second = (rendering.webhook(document, summarise(document, LINKS)) for _ in range(2))
    assert first == second and len(first.decode("utf-8")) > 0
    body = json.loads(first, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert body["schema"] == 1 and body["id"] == document["id"]


@settings(max_examples=200, deadline=None)
@given(NASTY, st.integers(1, 400))
def test_clean_text_fits_and_stays_clean(text: str, longest: int) -> None:
    once = clean(text, longest)
    assert len(once) <= longest and not CONTROL.search(once) and "\x1b" not in once
    assert clean(once, longest) == once


@settings(max_examples=100, deadline=None)
@given(st.lists(NASTY, max_size=60), st.integers(10, 3000))
def test_a_tail_is_the_last_lines_that_fit(lines: list[str], longest: int) -> None:
    kept = tail(lines, longest)
    assert len(kept) <= longest and not CONTROL.search(kept)
    if lines and 0 < len(clean(lines[-1], 300)) < longest:
        assert kept.split("\n")[-1] == clean(lines[-1], 300).replace("\n", " ").strip("\n")


@given(ANYTHING)
def test_what_is_stored_is_json_of_any_database(value: Any) -> None:
    text = json.dumps(jsonable(value), allow_nan=False)
    assert "\\u0000" not in text
    json.loads(text)["x"] if False else text.encode("utf-8")
    assert jsonable(jsonable(value)) == jsonable(value)


def test_a_failure_says_what_a_person_needs() -> None:
    log = ["epoch 1", "Traceback (most recent call last):", "ValueError: no rows"]
    text = failure(error="ValueError: no rows", log=log, seconds=75.0).plain()
    for wanted in ("nightly failed in train", "run: nightly-1", "took: 75.0 s", "ValueError: no rows", "epoch 1",
                   "https://runs.example.com/nightly/nightly-1", "rml runs logs nightly-1 train"):  # fmt: skip
        assert wanted in text


@pytest.mark.parametrize(
    ("type", "subject", "facts", "title", "command"),
    [
        ("alias.moved", {"model": "m", "alias": "champion", "generation": 3}, {"from": 1, "to": 2}, "m@champion is now version 2",
         "rml models show m/2"),
        ("alias.moved", {"model": "m", "alias": "old", "generation": 4}, {"from": 1, "to": None}, "m@old was removed",
         "rml models versions m"),
        ("gate.refused", {"model": "m", "version": 2, "registration": 9}, {"findings": [{"message": "f1 is 0.1"}]},
         "m version 2 did not pass its gate", "rml models show m/2"),
        ("run.recovered", {"run": "r", "pipeline": "p"}, {}, "p works again", "rml runs show r"),
        ("run.late", {"schedule": "p", "due": 0, "pipeline": "p"}, {"late_by_s": 7260}, "p is late", "rml schedules"),
    ],
)  # fmt: skip
def test_every_event_has_a_title_and_a_command(type: str, subject: Any, facts: Any, title: str, command: str) -> None:
    summary = summarise({**event(type, subject), "facts": facts})
    assert (summary.title, summary.command) == (title, command)


def test_a_mention_in_a_log_mentions_nobody() -> None:
    text = json.dumps(rendering.slack(failure(error="<!channel> <@U123>", log=["<!here>"])))
    assert "<!" not in text and "<@" not in text and "&lt;!channel&gt;" in text


def test_a_value_cannot_leave_its_place_in_a_link() -> None:
    subject = {"run": "../../admin?x=1#", "pipeline": "p"}
    assert (
        summarise(event("run.failed", subject), LINKS).link == "https://runs.example.com/p/..%2F..%2Fadmin%3Fx%3D1%23"
    )


def test_a_message_id_is_the_event_s_and_the_recipient_s() -> None:
    first = rendering.message_id("e1", "a@b.org", "d")
    assert first == rendering.message_id("e1", "a@b.org", "d")
    assert len({first, rendering.message_id("e2", "a@b.org", "d"), rendering.message_id("e1", "c@b.org", "d")}) == 3
