"""Cron expressions: checked as people write them, sent as Kubeflow Pipelines reads them."""

from __future__ import annotations

import pytest

from roblox_ml._graph.cron import problem, six_fields


@pytest.mark.parametrize(
    "expression",
    ["0 3 * * *", "*/15 0-6 1,15 * mon-fri", "59 23 31 12 6", "0 0 ? * SUN", "5/10 * * jan *", " 0  3 * * * "],
)
def test_good_schedules(expression: str) -> None:
    assert problem(expression) is None


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("0 3 * *", "4 fields"),
        ("0 0 3 * * *", "6 fields"),
        ("not a cron", "3 fields"),
        ("60 3 * * *", "minute"),
        ("0 24 * * *", "hour"),
        ("0 3 0 * *", "day of month"),
        ("0 3 * foo *", "'foo'"),
        ("0 3 * * 7", "day of week"),
        ("*/0 3 * * *", "never advances"),
        ("30-10 3 * * *", "backwards"),
        ("0 3-3/2 * * *", "write 3"),
        ("0 3 * * ,", "not a number"),
        (5, "no text"),
    ],
)
def test_bad_schedules_name_the_field(expression: object, told: str) -> None:
    assert told in (problem(expression) or "")


def test_five_fields_would_mean_something_else_to_the_server() -> None:
    # KFP reads five fields as seconds first: the second 0 has to be said.
    assert six_fields("0 3  * * *") == "0 0 3 * * *"
