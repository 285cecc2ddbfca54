"""Addresses: what one may write, what is refused with what to write instead; ids of events; the guide and the format page."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from roblox_ml_platform.notifying import channels, events, intake
from roblox_ml_platform.notifying.senders.webhook import sign

import roblox_ml as rml
from roblox_ml import _events
from roblox_ml.notify import STATES, Notification

DOCS = Path(__file__).resolve().parents[3] / "docs"


def test_an_address_is_a_record() -> None:
    assert rml.slack("#ml") == Notification("slack", "#ml", ("failure",))
    assert rml.email("a@b.org", on=["success", "late", "late"]).on == ("success", "late")
    assert rml.webhook("https://example.com/x", via="ci").to_json() == {
        "kind": "webhook", "target": "https://example.com/x", "on": ["failure"], "via": "ci",
    }  # fmt: skip
    assert rml.apprise("ops-pager", on=STATES).to_json()["via"] == "ops-pager"
    assert str(rml.slack("#ml", via="team")) == "slack #ml via team on failure"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: rml.slack("ml"), 'rml.slack("#ml-alerts")'),
        (lambda: rml.slack("#ml", on="fail"), "failure"),
        (lambda: rml.slack("#ml", on=[]), "nothing"),
        (lambda: rml.slack("#ml\nx"), "no Slack channel"),
        (lambda: rml.slack("#ml", via="Team One"), "rml channels"),
        (lambda: rml.email("a@b.org, c@d.org"), "no mail address"),
        (lambda: rml.email("a@b@c.org"), "no mail address"),
        (lambda: rml.webhook("ftp://x/y"), "http(s)"),
        (lambda: rml.webhook("https://u:p@example.com/x"), "password"),
        (lambda: rml.webhook("https://hooks.slack.com/services/T/B/x"), "rml channels add"),
        (lambda: rml.webhook("https://example.com/x?token=abc"), "'token'"),
        (lambda: rml.apprise("slack://a/b/c"), "rml channels add"),
        (lambda: rml.apprise("Ops"), "ops-pager"),
    ],
)
def test_what_is_wrong_is_refused_with_what_to_write(make: Any, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        make()


@given(st.sampled_from(list(events.TYPES)), st.dictionaries(st.text(max_size=8), st.integers() | st.text(max_size=8)))
def test_both_sides_give_an_event_the_same_id(type: str, subject: dict[str, Any]) -> None:
    assert _events.event_id(type, subject) == events.event_id(type, subject)


def test_the_words_are_the_same_on_both_sides() -> None:
    assert set(STATES) == set(channels.WORDS)


def test_the_format_page_is_true() -> None:
    text = (DOCS / "formats" / "event.md").read_text("utf-8")
    (example,) = (json.loads(block) for block in re.findall(r"```json\n(.*?)```", text, re.S))
    assert intake.parse(example)["id"] == example["id"]
    vectors = re.findall(r"^\| `([a-z.]+)` \| `(\{.*\})` \| `([0-9a-f]{32})` \|$", text, re.M)
    assert len(vectors) == 4
    for type, subject, expected in vectors:
        assert _events.event_id(type, json.loads(subject)) == expected
    rows = re.findall(r"^\| `([a-z]+\.[a-z]+)` \| `([a-z]+)` \|", text, re.M)
    assert dict(rows) == {type: word for type, word in events.TYPES.items() if word != "test"}
    assert sign("shared-key-1", b'{"id":"x"}', 1795000000) in text


def test_the_guide_s_examples_are_true() -> None:
    text = (DOCS / "guides" / "notifications.md").read_text("utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.S)
    space: dict[str, Any] = {}
    exec(compile(code, "guide", "exec"), space)
    assert [one.kind for one in space["nightly"].notify] == ["slack", "email", "webhook", "apprise"]
    for word in STATES:
        assert f'"{word}"' in text
    (table,) = re.findall(r"```toml\n(.*?)```", text, re.S)
    for name, options in tomllib.loads(table).items():
        kind = options.pop("kind")
        assert channels.check(name, kind, options, settings=None, trusted=True).kind == kind
