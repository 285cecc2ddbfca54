"""When to try again: never before asked, never later than the cap, and what each answer means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from roblox_ml_platform.notifying.outcome import Again, Delivered, Refused, of_status, pause, retry_after

NOW = 1_795_000_000.0  # Wed, 18 Nov 2026 11:06:40 GMT


@given(
    st.integers(1, 10_000), st.floats(0.001, 60), st.floats(1, 1000), st.floats(0, 1), st.none() | st.floats(0, 20_000)
)
def test_a_pause_grows_to_the_cap_and_never_ends_before_asked(
    attempts: int, base: float, cap: float, draw: float, wait: float | None
) -> None:
    again = Again("busy", wait)
    found = pause(attempts, again, base=base, cap=cap, draw=draw)
    assert found >= (wait or 0.0)
    assert found <= max(cap, (wait or 0.0) + 1.0)
    assert pause(attempts + 1, again, base=base, cap=cap, draw=draw) >= found
    assert pause(attempts, Refused("no"), base=base, cap=cap, draw=draw) >= pause(
        attempts, Again("busy"), base=base, cap=cap, draw=draw
    )


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("30", 30.0), (" 1.5 ", 1.5), ("0", 0.0), ("Wed, 18 Nov 2026 11:07:40 GMT", 60.0), ("Wed, 18 Nov 2026 11:00:00 GMT", 0.0),
        ("99999999", 21600.0), ("-5", None), ("soon", None), ("", None), (None, None), ("1e5", None), ("²", None),
    ],
)  # fmt: skip
def test_retry_after_is_a_number_or_a_date(header: str | None, seconds: float | None) -> None:
    assert retry_after(header, NOW) == seconds


@given(st.text(max_size=60))
def test_retry_after_of_any_text_is_a_bounded_number_or_none(text: str) -> None:
    found = retry_after(text, NOW)
    assert found is None or 0 <= found <= 6 * 3600


def test_a_status_says_whether_to_come_again() -> None:
    assert of_status(204, "", None, NOW) == Delivered()
    assert of_status(429, "slow", "7", NOW) == Again("HTTP 429: slow", 7.0)
    for status in (500, 502, 503, 408):
        assert isinstance(of_status(status, "", None, NOW), Again)
    for status in (301, 400, 401, 403, 404, 410):
        assert isinstance(of_status(status, "", None, NOW), Refused)
