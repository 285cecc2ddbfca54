"""From comparisons to a report."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from roblox_ml_core.records import SHADOWS
from roblox_ml_core.records.shadow_report import shadow_report


def row(
    number: int, tensor: dict | None, *, code: str = "ok", shadow_us: int = 2000, distance: float = 0.0, error: str = ""
) -> tuple:
    told = {"distance": distance, "tensors": {"y": tensor}} if tensor is not None else {"error": error}
    return (number, f"i{number}", "feed", "feed/9", 9, 7, 1000, shadow_us, code, json.dumps(told), "")  # fmt: skip


def table(*rows: tuple) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(SHADOWS.names, one, strict=True)) for one in rows], schema=SHADOWS.arrow())


SCORES = {
    "kind": "number",
    "values": 4,
    "rows": 2,
    "flips": 0,
    "nan": 0,
    "abs_max": 0.0,
    "rel_max": 0.0,
    "rank": 1.0,
    "overlap": 1.0,
}


def test_what_a_person_asks_before_a_launch() -> None:
    other = SCORES | {"flips": 1, "abs_max": 0.5, "rel_max": 0.1, "rank": -0.5, "overlap": 0.2}
    report = shadow_report(
        table(
            *(row(n, SCORES) for n in range(8)),
            row(8, other, distance=0.8, shadow_us=9000),
            row(9, {"kind": "mismatch", "mismatch": "shape [3], the primary's is [2]"}, distance=1.0),
            row(10, None, code="error", error="OSError: gone"),
            row(11, None, code="error", error="OSError: gone"),
        )
    )  # fmt: skip
    assert (report["asked"], report["compared"], report["codes"]) == (12, 10, {"ok": 10, "error": 2})
    assert report["error_rate"] == 2 / 12 and report["same"] == 0.8 and report["within_tolerance"] == 0.8
    assert report["latency"]["shadow"] == {"p50": 2000, "p90": 2000, "p99": 9000, "max": 9000}
    assert report["latency"]["difference"]["max"] == 8000 and report["latency"]["primary"]["p99"] == 1000
    tensor = report["tensors"]["y"]
    assert (tensor["rows"], tensor["flips"], tensor["flip_share"], tensor["answers"]) == (18, 1, 1 / 18, 10)
    assert tensor["mismatches"] == {"shape [3], the primary's is [2]": 1} and tensor["within_tolerance"] == 0.8
    assert tensor["rank"]["min"] == -0.5 and tensor["overlap"]["min"] == 0.2 and tensor["abs_max"]["p99"] == 0.5
    assert report["errors"] == [{"message": "OSError: gone", "count": 2}]
    assert [one["inference_id"] for one in report["examples"]] == ["i9", "i8"]
    assert report["versions"] == [{"primary": 7, "shadow": 9, "asked": 12}]
    json.dumps(report)


def test_the_tolerance_is_for_numbers_and_a_text_is_the_same_or_not() -> None:
    near, text = SCORES | {"rel_max": 0.01, "flips": 1}, {"kind": "text", "values": 2, "rows": 2, "flips": 1}
    rows = table(row(0, near, distance=0.1), row(1, text, distance=0.5))
    assert shadow_report(rows, tolerance=0.02)["within_tolerance"] == 0.5
    assert shadow_report(rows, tolerance=0.001)["within_tolerance"] == 0.0


def test_nothing_asked_is_a_report_too() -> None:
    report = shadow_report(SHADOWS.arrow().empty_table())
    assert (
        report["asked"] == 0
        and report["error_rate"] is None
        and report["tensors"] == {}
        and report["latency"]["shadow"] == {}
    )


def test_a_row_of_a_newer_door_is_no_reason_to_fail() -> None:
    odd = {**dict(zip(SHADOWS.names, row(1, None), strict=True)), "tensors_json": "not json"}
    assert shadow_report([odd])["compared"] == 0


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=50))
def test_quantiles_are_values_that_were_there_and_grow(values: list[int]) -> None:
    spread = shadow_report(
        [dict(zip(SHADOWS.names, row(n, SCORES, shadow_us=us), strict=True)) for n, us in enumerate(values)]
    )
    found = spread["latency"]["shadow"]
    assert found["p50"] <= found["p90"] <= found["p99"] <= found["max"] == max(values)
    assert set(found.values()) <= set(values)
    assert (
        sum(value <= found["p50"] for value in values)
        >= len(values) / 2
        > sum(value < found["p50"] for value in values) - 1e-9
    )
    assert found["p50"] == pytest.approx(sorted(values)[(len(values) + 1) // 2 - 1])
