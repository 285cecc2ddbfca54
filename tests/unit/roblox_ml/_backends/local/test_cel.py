"""The CEL subset: what KFP's compilers write, precedence, and refusals that quote the condition."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roblox_ml._backends.local.cel import ConditionError, evaluate

N = "inputs.parameter_values['n']"


@pytest.mark.parametrize(
    ("expression", "values", "expected"),
    [
        (f"int({N}) > 10", {"n": 11}, True),
        (f"int({N}) > 10", {"n": "10"}, False),
        (f"!(int({N}) > 10)", {"n": 10}, True),
        (f"{N} == 'a\\'b'", {"n": "a'b"}, True),
        (f"{N} == true", {"n": True}, True),
        (f"{N} != 2.5 && {N} < 3e2 || false", {"n": 2.5}, False),
        (f"{N} in ['a', 'b']", {"n": "b"}, True),
        (f"-{N} + 2 * 3 == 4", {"n": 2}, True),
        (f"size({N}) == 2", {"n": [1, 2]}, True),
        (f"string({N}) == 'true'", {"n": True}, True),
        (
            f"inputs.parameter_values['pipelinechannel--a-Output'] >= {N}",
            {"n": 1, "pipelinechannel--a-Output": 1},
            True,
        ),
        ("1 == 2 || 2 == 2 && 1 == 1", {}, True),
        ("!false && !(true && false)", {}, True),
    ],
)
def test_values(expression: str, values: dict[str, Any], expected: bool) -> None:
    assert evaluate(expression, values) is expected


@pytest.mark.parametrize(
    "expression",
    [
        "1 +",
        "1 == 1 1",
        "open('x')",
        "__import__('os')",
        "1 @ 2",
        "(1 == 1",
        "inputs.parameter_values['m'] == 1",
        "1",
        "'a' < 1",
    ],
)
def test_refusals_quote_the_condition(expression: str) -> None:
    with pytest.raises(ConditionError) as caught:
        evaluate(expression, {})
    assert expression in str(caught.value)


literals = st.integers(0, 50).map(str) | st.sampled_from(["true", "false"])
numbers = st.integers(0, 20)


@given(a=numbers, b=numbers, c=numbers, op=st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), p=st.booleans())
def test_agrees_with_python(a: int, b: int, c: int, op: str, p: bool) -> None:
    python = f"{a} + {b} * {c} {op} {b} and {p} or not ({a} - {c} {op} 0)"
    cel = f"{a} + {b} * {c} {op} {b} && {str(p).lower()} || !({a} - {c} {op} 0)"
    assert evaluate(cel, {}) is eval(python)
