"""What a failed run's error quotes from a log."""

from __future__ import annotations

from roblox_ml._runs import excerpt

TRACEBACK = [
    "Traceback (most recent call last):",
    "  cell 3, line 2, in train",
    "    model.fit(x, y)",
    "    ~~~~~~~~~^^^^^^",
]
DEEP = [f"    library line {n}" for n in range(30)]


def test_a_short_traceback_is_quoted_with_what_was_printed_before() -> None:
    lines = ["epoch 1", *TRACEBACK, "ValueError: no"]
    assert excerpt(lines) == lines


def test_a_long_traceback_keeps_the_user_s_line_and_the_error() -> None:
    lines = ["epoch 1", *TRACEBACK, *DEEP, "ValueError: no"]
    quoted = excerpt(lines, 12)
    assert quoted[:5] == [*TRACEBACK, "  …"]
    assert quoted[-1] == "ValueError: no" and len(quoted) == 13


def test_only_the_last_traceback_counts_and_a_log_without_one_ends_where_it_ends() -> None:
    assert excerpt([*TRACEBACK, *DEEP, "--- attempt 2 ---", *TRACEBACK, "KeyError: 1"], 5) == [
        *TRACEBACK,
        "KeyError: 1",
    ]
    assert excerpt(DEEP, 3) == DEEP[-3:]
