"""`text.json`: read as written, refused with every finding, engines by what the processor can do."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from roblox_ml_serving.backends.rml_text_plan import (
    Cost,
    EnginePlan,
    PlanError,
    TextPlan,
    allowed,
    bucket_of,
    cpu_flags,
    read_plan,
    write_plan,
)

FAST = EnginePlan(
    "openvino-int8",
    "openvino",
    "engines/openvino-int8",
    "int8",
    ("avx512_vnni",),
    {"A": "b"},
    1e-5,
    Cost(900.0, 190.0),
    0.001,
)
ANYWHERE = EnginePlan("onnxruntime-fp32", "onnxruntime", "engines/onnxruntime-fp32", "fp32")
PLAN = TextPlan(
    "sequence", ("bad", "good"), 64, 0, (16, 32, 64), 512, (FAST, ANYWHERE), {"cpu": "x", "flags": ["avx2"], "cores": 2}
)


def changed(**fields: Any) -> bytes:
    return json.dumps(json.loads(write_plan(PLAN)) | fields).encode()


def engines(*changes: dict[str, Any]) -> list[dict[str, Any]]:
    tree = json.loads(write_plan(PLAN))["engines"]
    return [engine | change for engine, change in zip(tree, changes, strict=True)]


def test_what_is_written_is_read() -> None:
    assert read_plan(write_plan(PLAN)) == PLAN
    assert write_plan(read_plan(write_plan(PLAN))) == write_plan(PLAN)


def test_what_is_left_out_has_a_default() -> None:
    tree = {"schema": 1, "task": "token", "labels": ["O"], "max_length": 8, "engines": [
        {"name": "onnxruntime-fp32", "runtime": "onnxruntime", "folder": "engines/o", "precision": "fp32"}]}  # fmt: skip
    plan = read_plan(json.dumps(tree).encode())
    assert (plan.buckets, plan.batch_tokens, plan.pad_id, plan.engines[0].cost) == ((8,), 512, 0, Cost(1000.0, 200.0))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"{", ["not JSON"]),
        (b"[]", ["JSON object"]),
        (changed(schema=2), ["schema 2", "reads 1"]),
        (changed(task="vision", pad_id=-1, labels=[]), ["task is 'vision'", "pad_id is -1", "labels is []"]),
        (changed(labels=["a", "a"]), ["names a class twice"]),
        (changed(max_length=True), ["max_length is True"]),
        (changed(buckets=[32, 16, 64]), ["ascending"]),
        (changed(buckets=[16, 32]), ["max_length (64)"]),
        (changed(batch_tokens=0), ["batch_tokens is 0"]),
        (changed(engines=[]), ["at least one engine"]),
        (changed(engines=engines({}, {"requires": ["amx_int8"]})), ["last engine", "amx_int8"]),
        (changed(engines=engines({"folder": "../other"}, {})), ["engines[0] (openvino-int8): folder"]),
        (changed(engines=engines({"folder": "/etc"}, {"name": "openvino-int8"})), ["folder is '/etc'", "two engines are named"]),
        (changed(engines=engines({"bound": -1.0, "precision": "int4"}, {})), ["bound is -1.0", "precision is 'int4'"]),
        (changed(engines=engines({"cost": {"call_us": "a"}}, {"requires": "avx2"})), ["cost.call_us is 'a'", "requires is 'avx2'"]),
        (changed(engines=engines({"macro_f1_drop": float("nan")}, {"options": 3})), ["macro_f1_drop is nan", "options is 3"]),
    ],
)  # fmt: skip
def test_every_finding_is_said_at_once(data: bytes, words: list[str]) -> None:
    with pytest.raises(PlanError) as refused:
        read_plan(data)
    for word in words:
        assert word in str(refused.value)


def test_what_would_be_refused_is_not_written() -> None:
    with pytest.raises(PlanError):
        write_plan(TextPlan("sequence", (), 64, 0, (64,), 512, (ANYWHERE,)))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


FIELDS = (*json.loads(write_plan(PLAN)), "engine")
KEYS = tuple(json.loads(write_plan(PLAN))["engines"][0])


@settings(max_examples=200, deadline=None)
@given(field=st.sampled_from(FIELDS), key=st.sampled_from(KEYS), value=JSON)
def test_whatever_a_field_holds_the_plan_is_good_or_refused(field: str, key: str, value: object) -> None:
    data = changed(engines=engines({key: value}, {})) if field == "engine" else changed(**{field: value})
    try:
        plan = read_plan(data)
    except PlanError:
        return
    assert plan.engines[-1].requires == ()
    assert plan.buckets[-1] == plan.max_length
    assert allowed(plan, ())


@given(st.lists(st.integers(1, 512), min_size=1, max_size=6, unique=True).map(sorted), st.integers(0, 512))
def test_a_row_lies_in_the_smallest_bucket_that_holds_it(uppers: list[int], length: int) -> None:
    plan = TextPlan("sequence", ("a",), uppers[-1], 0, tuple(uppers), 512, (ANYWHERE,))
    if length > uppers[-1]:
        with pytest.raises(ValueError, match="longer than the model's max_length"):
            bucket_of(plan, length)
    else:
        assert bucket_of(plan, length) == min(upper for upper in uppers if upper >= length)


def test_a_processor_gets_the_engines_it_can_run() -> None:
    assert [engine.name for engine in allowed(PLAN, {"avx2", "avx512_vnni"})] == ["openvino-int8", "onnxruntime-fp32"]
    assert [engine.name for engine in allowed(PLAN, {"avx2"})] == ["onnxruntime-fp32"]
    assert FAST.cost.us(100) == 900.0 + 19_000.0


def test_flags_come_from_the_kernel_or_from_whoever_tries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nflags\t\t: fpu avx2 amx_int8\nprocessor\t: 1\nflags\t\t: none\n")
    assert cpu_flags(str(cpuinfo)) == {"fpu", "avx2", "amx_int8"}
    cpuinfo.write_text("Features\t: asimd i8mm\n")
    assert cpu_flags(str(cpuinfo)) == {"asimd", "i8mm"}
    assert cpu_flags(str(tmp_path / "absent")) == frozenset()
    monkeypatch.setenv("RML_CPU_FLAGS", "avx2, avx512_vnni")
    assert cpu_flags(str(cpuinfo)) == {"avx2", "avx512_vnni"}
    monkeypatch.setenv("RML_CPU_FLAGS", "")
    assert cpu_flags(str(cpuinfo)) == frozenset()


def test_the_plan_in_the_documentation_is_a_plan() -> None:
    page = (
        next(parent for parent in Path(__file__).parents if (parent / "docs").is_dir()) / "docs/formats/text-model.md"
    )
    (example,) = [
        block for block in re.findall(r"```json\n(.*?)```", page.read_text("utf-8"), re.S) if "engines" in block
    ]
    plan = read_plan(example.encode())
    assert [engine.name for engine in plan.engines] == ["openvino-int8", "onnxruntime-fp32"]
