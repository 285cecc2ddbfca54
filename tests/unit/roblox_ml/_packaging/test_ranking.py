"""A scoring model as a ranker: what it says is what doors read, the model inside is untouched, mistakes are all said at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from roblox_ml_core.package import loaders, read
from roblox_ml_platform.preprocess import clients_signature, preprocess_of
from roblox_ml_serving.ranking.spec import FILE, RankingSpec

import roblox_ml as rml
from roblox_ml.errors import PackageError

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

VIEWS: dict[str, dict[str, Any]] = {
    "user_profile": {"of": "user", "features": {"age": 1.5}, "ttl_s": 5},
    "item_stats": {"of": "item", "features": ["ctr", "price"], "max_age_s": 60, "required": True},
}


@pytest.fixture(scope="module")
def scorer() -> rml.Model:
    return scoring(4)


def scoring(columns: int, labels: tuple[str, ...] = ()) -> rml.Model:
    outputs = max(1, len(labels))
    weights = np.arange(columns * outputs, dtype=np.float32).reshape(columns, outputs)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["X", "W"], ["score"])],
        "linear",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["rows", columns])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["rows", outputs])],
        [numpy_helper.from_array(weights, "W")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return rml.Model.from_onnx(
        model, examples=np.eye(columns, dtype=np.float32), labels=labels or None, metrics={"auc": 0.7}
    )


def test_what_the_package_says_is_what_a_door_reads(scorer: rml.Model) -> None:
    ranker = scorer.ranking(views=VIEWS, context={"hour": 12}, candidates="INT64", k=7, features_share=0.25)
    spec = RankingSpec.read((ranker.path / FILE).read_bytes())
    assert (spec.candidates, spec.k, spec.features_share, spec.is_plain) == ("INT64", 7, 0.25, True)
    assert spec.names == ["user_profile.age", "item_stats.ctr", "item_stats.price", "context.hour"]
    user, item = spec.views
    assert (user.of, user.ttl_s, user.max_age_s, user.required, user.defaults) == ("user", 5, None, False, (1.5,))
    assert (item.of, item.ttl_s, item.max_age_s, item.required, item.defaults) == ("item", 60, 60, True, (0, 0))
    assert (spec.input, spec.output, spec.column) == ("X", "score", 0)


def test_the_control_plane_tells_doors_and_clients(scorer: rml.Model) -> None:
    package = read(scorer.ranking(views=VIEWS, context={"hour": 12}).path)
    manifest = package.info["files"]
    assert preprocess_of(package.info, manifest) == {"kind": "ranking", "files": {FILE: manifest[FILE]["sha256"]}}
    spec = RankingSpec.read((package.root / FILE).read_bytes())
    assert clients_signature(package.info, package.signature.to_json()) == {
        "inputs": spec.inputs,
        "outputs": spec.outputs,
    }
    plain = read(scorer.path)
    assert preprocess_of(plain.info, plain.info["files"]) is None
    assert clients_signature(plain.info, plain.signature.to_json()) == plain.signature.to_json()


def test_the_model_inside_is_the_same_and_the_package_another(scorer: rml.Model) -> None:
    ranker = scorer.ranking(views=VIEWS, context={"hour": 12})
    assert loaders.load(ranker.path, check=True).check() == []
    assert (ranker.path / "model" / "model.onnx").read_bytes() == (scorer.path / "model" / "model.onnx").read_bytes()
    assert ranker.metrics == {"auc": 0.7}
    assert read(ranker.path).digest != read(scorer.path).digest
    assert not (scorer.path / FILE).exists()
    again = scorer.ranking(views=VIEWS, context={"hour": 12})
    assert read(again.path).digest == read(ranker.path).digest


def test_columns_say_the_model_s_order(scorer: rml.Model) -> None:
    columns = ["context.hour", "item_stats.price", "item_stats.ctr", "user_profile.age"]
    ranker = scorer.ranking(views=VIEWS, context={"hour": 12}, columns=columns)
    assert json.loads((ranker.path / FILE).read_text())["columns"] == columns
    assert RankingSpec.read((ranker.path / FILE).read_bytes()).columns == ((-1, 0), (1, 1), (1, 0), (0, 0))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"views": {}}, "no views"),
        ({"views": {**VIEWS, "shop": {"of": "shop", "features": ["x"]}}}, "'shop'"),
        ({"views": {**VIEWS, "context": {"of": "user", "features": ["x"]}}}, "another name"),
        ({"views": {**VIEWS, "a b": {"of": "user", "features": ["x"]}}}, "letters, digits"),
        ({"views": {**VIEWS, "x": {"of": "user", "features": []}}}, "no features"),
        ({"views": {**VIEWS, "x": {"of": "user", "features": ["a", "a"]}}}, "twice"),
        ({"views": {**VIEWS, "x": {"of": "user", "features": ["a"], "ttl": 5}}}, "has ttl"),
        ({"views": {**VIEWS, "x": {"of": "user", "features": ["a"], "ttl_s": -1}}}, "are seconds"),
        ({"views": {**VIEWS, "x": {"of": "user", "features": {"a": "much"}}}}, "no finite number"),
        ({"views": {**VIEWS, "x": 5}}, "is 5"),
        ({"context": {}}, "4 columns and there are 3"),
        ({"context": {"hour": 12, "day": 1}}, "4 columns and there are 5"),
        ({"columns": ["user_profile.age"] * 4}, "in no column"),
        ({"columns": ["nobody.knows"]}, "in no view"),
        ({"candidates": "FP32"}, "neither BYTES nor INT64"),
        ({"k": 0}, "k=0"),
        ({"k": True}, "k=True"),
        ({"features_share": 1}, "features_share"),
        ({"features_share": "half"}, "features_share"),
        ({"score": "yes"}, "score='yes'"),
    ],
)
def test_mistakes_are_said(scorer: rml.Model, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(PackageError, match=said):
        scorer.ranking(**{"views": VIEWS, "context": {"hour": 12}, **changes})


def test_all_at_once(scorer: rml.Model) -> None:
    with pytest.raises(PackageError) as refused:
        scorer.ranking(views={}, k=-1, candidates="FP16")
    assert all(said in str(refused.value) for said in ("no views", "k=-1", "FP16"))


def test_a_classifier_ranks_by_its_last_class_or_the_one_said() -> None:
    model = scoring(4, labels=("pass", "click"))
    for score, column in ((None, 1), ("click", 1), ("pass", 0)):
        path = model.ranking(views=VIEWS, context={"hour": 12}, score=score).path
        assert RankingSpec.read((path / FILE).read_bytes()).column == column


def test_a_folder_that_is_no_package_says_so(tmp_path: Path) -> None:
    from roblox_ml._packaging.ranking import as_ranking

    with pytest.raises(PackageError, match="no model package"):
        as_ranking(tmp_path, views=VIEWS)
