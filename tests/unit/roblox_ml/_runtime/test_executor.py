"""The executor protocol in this process: what a function receives, what is written, what is refused."""

from __future__ import annotations

import json
import math
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

import roblox_ml as rml
from roblox_ml._runtime import executor, values
from roblox_ml._runtime.executor import StepError
from roblox_ml._runtime.outputs import ReturnedWrong


class Pair(NamedTuple):
    data: rml.Dataset
    n: int


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """call(function, parameters, artifacts, outputs) → the executor output."""

    def run(
        function: Any, parameters: Any = None, artifacts: Any = None, outputs: Any = None, folder: str = "o"
    ) -> Any:
        module = types.ModuleType("rml_step_under_test")
        module.step = function  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        place = tmp_path / folder
        declared: dict[str, Any] = {"outputFile": str(place / "executor_output.json")}
        for name, title in (outputs or {}).items():
            if title is None:
                declared.setdefault("parameters", {})[name] = {"outputFile": str(place / "parameters" / name)}
            else:
                artifact = {
                    "name": name,
                    "type": {"schemaTitle": title},
                    "uri": str(place / "artifacts" / name),
                    "metadata": {},
                }
                declared.setdefault("artifacts", {})[name] = {"artifacts": [artifact]}
        inputs = {
            "parameterValues": parameters or {},
            "artifacts": {k: {"artifacts": v} for k, v in (artifacts or {}).items()},
        }
        executor.call({"inputs": inputs, "outputs": declared}, "rml_step_under_test:step", "c0de", "10cc")
        return json.loads((place / "executor_output.json").read_text())

    return run


def dataset(folder: Path, text: str, **metadata: Any) -> dict[str, Any]:
    folder.mkdir(parents=True)
    (folder / "x.txt").write_text(text)
    return {"name": folder.name, "type": {"schemaTitle": "system.Dataset"}, "uri": str(folder), "metadata": metadata}


def test_one_parameter_goes_to_both_places(call: Callable[..., Any], tmp_path: Path) -> None:
    def step(a: int, b: float, c: str = "c") -> str:
        return f"{a!r} {b!r} {c}"

    said = call(step, {"a": 3.0, "b": 2}, outputs={"Output": None})
    assert said == {"parameterValues": {"Output": "3 2.0 c"}}
    assert (tmp_path / "o" / "parameters" / "Output").read_text() == "3 2.0 c"


def test_an_artifact_moves_and_carries_lineage(
    call: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RML_RUN_ID", "run-1")
    monkeypatch.setenv("RML_TASK", "task-1")
    made: list[rml.Dataset] = []

    def step(d: rml.Dataset) -> Pair:
        out = rml.Dataset(metadata={"rows": d.metadata["rows"]})
        (out.path / "y.txt").write_text((d.path / "x.txt").read_text())
        made.append(out)
        return Pair(out, 5)

    given = dataset(tmp_path / "in", "hello", rows=2.0, **{"rml.data": ["comments/1@d"]})
    said = call(step, artifacts={"d": [given]}, outputs={"data": "system.Dataset", "n": None})
    artifact = said["artifacts"]["data"]["artifacts"][0]
    assert artifact["metadata"] == {
        "rows": 2, "rml.step": "step", "rml.code": "c0de", "rml.lock": "10cc", "rml.run": "run-1", "rml.task": "task-1",
        "rml.data": ["comments/1@d"],
    }  # fmt: skip
    assert Path(artifact["uri"], "y.txt").read_text() == "hello"
    assert not made[0].path.exists()
    assert said["parameterValues"] == {"n": 5}


def test_what_belongs_to_somebody_is_copied(call: Callable[..., Any], tmp_path: Path) -> None:
    mine = tmp_path / "my-data"
    mine.mkdir()
    (mine / "precious").write_text("1")

    class Three(NamedTuple):
        same: rml.Dataset
        again: rml.Dataset
        mine: rml.Dataset

    def step(d: rml.Dataset) -> Three:
        return Three(d, d, rml.Dataset(mine))

    given = dataset(tmp_path / "in", "hello")
    said = call(step, artifacts={"d": [given]}, outputs=dict.fromkeys(("same", "again", "mine"), "system.Dataset"))
    assert (mine / "precious").exists() and (tmp_path / "in" / "x.txt").exists()
    for name, file in (("same", "x.txt"), ("again", "x.txt"), ("mine", "precious")):
        assert Path(said["artifacts"][name]["artifacts"][0]["uri"], file).exists()


def test_a_new_artifact_returned_twice_arrives_twice(call: Callable[..., Any]) -> None:
    class Both(NamedTuple):
        a: rml.Dataset
        b: rml.Dataset

    def step() -> Both:
        out = rml.Dataset()
        (out.path / "x").write_text("1")
        return Both(out, out)

    said = call(step, outputs={"a": "system.Dataset", "b": "system.Dataset"})
    assert [Path(said["artifacts"][n]["artifacts"][0]["uri"], "x").read_text() for n in "ab"] == ["1", "1"]


def test_lists_of_artifacts_and_optional_inputs(call: Callable[..., Any], tmp_path: Path) -> None:
    def step(parts: list[rml.Dataset], extra: rml.Dataset | None = None, word: str | None = None) -> str:
        return ",".join((p.path / "x.txt").read_text() for p in parts) + f" {extra} {word}"

    parts = [dataset(tmp_path / f"in{n}", str(n)) for n in range(3)]
    assert (
        call(step, artifacts={"parts": parts}, outputs={"Output": None})["parameterValues"]["Output"]
        == "0,1,2 None None"
    )

    def single(parts: rml.Dataset) -> str:
        return ""

    with pytest.raises(StepError, match=r"received 3 artifacts.*\n.*list\[rml\.Dataset\]"):
        call(single, artifacts={"parts": parts}, outputs={"Output": None})


def test_metrics_and_numbers_that_are_not_json(call: Callable[..., Any]) -> None:
    import numpy as np

    class Out(NamedTuple):
        score: rml.Metrics
        values: list
        n: int

    def step() -> Out:
        return Out(rml.Metrics(f1=np.float32(0.5), loss=math.nan), [np.int64(3), np.array([1.5, 2])], np.int64(7))

    said = call(step, outputs={"score": "system.Metrics", "values": None, "n": None})
    metadata = said["artifacts"]["score"]["artifacts"][0]["metadata"]
    assert metadata["f1"] == 0.5 and metadata["loss"] == "nan"
    assert said["parameterValues"] == {"values": [3, [1.5, 2.0]], "n": 7}


def test_all_wrong_outputs_are_told_at_once(call: Callable[..., Any], tmp_path: Path) -> None:
    def step() -> Pair:
        return Pair("text", 1.5)  # type: ignore[arg-type]

    with pytest.raises(
        ReturnedWrong, match=r"n is float 1.5, declared as int; data is str 'text', declared as rml.Dataset"
    ):
        call(step, outputs={"data": "system.Dataset", "n": None})
    assert not (tmp_path / "o" / "executor_output.json").exists()


@pytest.mark.parametrize("key", [1, 1.5, True, None, (1, 2)])
def test_a_key_that_is_no_text_is_refused_and_not_turned_into_text(
    call: Callable[..., Any], tmp_path: Path, key: Any
) -> None:
    def counts() -> dict:
        return {"per_class": [{key: 3}]}

    with pytest.raises(TypeError) as caught:
        call(counts, outputs={"Output": None})
    assert str(caught.value).startswith(f"Output['per_class'][0] has the key {key!r} ({type(key).__name__})")
    assert "str(key): value" in str(caught.value)
    assert not (tmp_path / "o" / "executor_output.json").exists()


def test_a_wrong_shape_and_a_value_that_is_no_json(call: Callable[..., Any]) -> None:
    def shapeless() -> Pair:
        return 5  # type: ignore[return-value]

    with pytest.raises(ReturnedWrong, match="its outputs are data, n"):
        call(shapeless, outputs={"data": "system.Dataset", "n": None})

    def objects() -> dict:
        return {"a": [object()]}

    with pytest.raises(TypeError, match=r"Output\['a'\]\[0\] is a builtins.object"):
        call(objects, outputs={"Output": None})


def test_missing_inputs_are_named(call: Callable[..., Any]) -> None:
    def step(a: int, b: int) -> int:
        return a + b

    with pytest.raises(StepError, match="no value arrived for b"):
        call(step, {"a": 1}, outputs={"Output": None})


def test_remote_artifacts_are_where_the_launcher_mounts_them() -> None:
    assert executor.local_path("minio://bucket/a/b") == "/minio/bucket/a/b"
    assert executor.local_path("s3://bucket/a") == "/s3/bucket/a"
    assert executor.local_path("/plain") == "/plain"


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(plain)
def test_json_values_survive_the_way_through_protobuf(value: Any) -> None:
    """Whole numbers may come back as floats from there; the step sees what it would have seen without."""
    through = json.loads(json.dumps(values.to_json(value, "v")), parse_int=float)
    expected = values.integral(value)
    found = values.integral(through)
    assert found == expected
    assert repr(found).replace("-0", "0") == repr(expected).replace("-0", "0")


@given(st.lists(st.integers(-(2**53), 2**53)))
def test_annotated_lists_have_their_items_type(items: list[int]) -> None:
    assert values.from_json([float(i) for i in items], list[int]) == items
    assert all(type(v) is float for v in values.from_json(items, list[float]))
