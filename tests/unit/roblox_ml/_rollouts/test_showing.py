"""Reports as people see them: no plot without a course to show, no figure in powers of ten; who asks, refused in words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roblox_ml._asked import about
from roblox_ml._predict import InputError
from roblox_ml._rollouts.plots import narrowing
from roblox_ml._rollouts.showing import signed_share


def look(units: int, estimate: float) -> dict[str, object]:
    return {"units": units, "relative": {"estimate": estimate, "low": estimate - 0.5, "high": estimate + 0.5}}


def test_two_looks_at_the_same_units_are_no_course() -> None:
    assert narrowing([look(400, 0.1), look(400, 0.2)], "ctr") == ""
    assert "<polygon" in narrowing([look(400, 0.1), look(400, 0.2), look(800, 0.2)], "ctr")


@given(st.floats(-1e9, 1e9))
def test_a_relative_difference_is_never_written_in_powers_of_ten_where_it_is_large(value: float) -> None:
    text = signed_share(value)
    assert text.endswith(" %") and "e+" not in text
    assert float(text.removesuffix(" %").replace(",", "")) == pytest.approx(100 * value, rel=0.005, abs=1e-300)


@pytest.mark.parametrize("context", [["a"], "country", 5])
def test_a_context_that_is_no_mapping_is_said(context: object) -> None:
    with pytest.raises(InputError, match="context is"):
        about("u", context)  # type: ignore[arg-type]


def test_a_long_unit_is_not_repeated_in_full() -> None:
    with pytest.raises(InputError) as refused:
        about("x" * 300, None)
    assert len(str(refused.value)) < 250


def test_units_on_the_axis_are_whole() -> None:
    drawn = narrowing([look(221, 0.1), look(300, 0.2)], "ctr")
    assert ">221<" in drawn and ">300<" in drawn and ".0<" not in drawn
