"""What clients may report, and that they are told everything that is wrong with it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from roblox_ml_core.errors import Invalid, RmlError, TooLarge
from roblox_ml_core.records import EVENTS, EXPOSURES, MAX_BODY_BYTES, parse_events, parse_exposures
from roblox_ml_core.records.tables import table_of

NOW = 1_790_000_000.0


def events(*entries) -> bytes:
    return json.dumps({"events": entries}).encode()


def test_an_event_becomes_a_row_with_what_was_left_out() -> None:
    (plain, full) = parse_events(
        events(
            {"unit": "u1", "event": "click"},
            {"unit": "é", "event": "buy", "value": 2, "at": "2026-09-21T13:46:39+00:00", "unit_kind": "place_id",
             "inference_id": "i-1", "id": "e-1", "attributes": {"b": 1, "a": [None]}},
        ),
        now_s=NOW,
    )  # fmt: skip
    row = dict(zip(EVENTS.names, plain, strict=True))
    assert len(row.pop("event_id")) == 32
    assert row == {"at_us": int(NOW * 1e6), "unit_kind": "user_id", "unit": "u1", "event": "click", "value": 1.0,
                   "inference_id": "", "attributes_json": ""}  # fmt: skip
    assert full[1:] == ("e-1", "place_id", "é", "buy", 2.0, "i-1", '{"a":[null],"b":1}')
    assert table_of(EVENTS, [plain, full]).num_rows == 2


def test_all_findings_at_once_and_nothing_is_taken() -> None:
    body = events(
        {"event": "click"}, {"unit": "u", "event": "no spaces", "value": True}, 7,
        {"unit": "u", "event": "x", "at": "2026-01-01T00:00:00"}, {"unit": "u", "event": "x", "at": 5, "vlaue": 1},
        {"unit": "u\n", "event": "x", "attributes": []},
    )  # fmt: skip
    with pytest.raises(Invalid) as told:
        parse_events(body, now_s=NOW)
    findings = told.value.details["findings"]
    assert [finding.split(" ")[0] for finding in findings] == [
        "events[0].unit", "events[1].event", "events[1].value", "events[2]", "events[3].at", "events[4].vlaue", "events[4].at",
        "events[5].unit", "events[5].attributes",
    ]  # fmt: skip
    assert all(finding in str(told.value) for finding in findings)


@pytest.mark.parametrize(
    ("body", "error", "words"),
    [
        (b" " * (MAX_BODY_BYTES + 1), TooLarge, "several requests"),
        (events(*[{}] * 10_001), Invalid, "10001 events"),
        (b'{"events": [{"unit": "u", "event": "x", "value": NaN}]}', Invalid, "NaN is not JSON"),
        (b'{"events": [{"unit": "u", "event": "x", "value": 1e999}]}', Invalid, "finite"),
        (b'{"events": {}}', Invalid, "a list"),
        (b"[]", Invalid, "one field"),
        (b"\xff", Invalid, "not JSON"),
        (b"[" * 100_000, Invalid, "not JSON"),
    ],
)
def test_bodies_that_are_none(body: bytes, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        parse_events(body, now_s=NOW)


def test_exposures_of_a_client_that_decides_itself() -> None:
    body = {"exposures": [{"endpoint": "feed", "experiment": "e", "arm": "new", "unit": "u", "version": 8}]}
    (row,) = parse_exposures(json.dumps(body).encode(), now_s=NOW)
    assert row == (int(NOW * 1e6), "", "feed", "e", "new", "user_id", "u", 8)
    assert table_of(EXPOSURES, [row]).num_rows == 1
    body["exposures"][0] |= {"endpoint": "../x", "version": 0}
    with pytest.raises(Invalid, match=r"\.endpoint .*\.version "):
        parse_exposures(json.dumps(body).encode())


VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=2), max_leaves=3
)  # fmt: skip


@given(
    entry=st.dictionaries(
        st.sampled_from(["unit", "event", "value", "at", "unit_kind", "inference_id", "id", "attributes", "x"]), VALUE
    )
)
def test_whatever_comes_it_is_a_row_that_can_be_written_or_a_refusal(entry) -> None:
    try:
        rows = parse_events(json.dumps({"events": [entry]}).encode(), now_s=NOW)
    except RmlError as error:
        assert error.hint
    else:
        assert table_of(EVENTS, rows).num_rows == 1
        EVENTS.partition(rows[0])
