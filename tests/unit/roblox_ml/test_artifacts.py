"""Artifacts: a directory and metadata, usable in a notebook cell as in a step."""

from __future__ import annotations

from pathlib import Path

import pytest

import roblox_ml as rml
from roblox_ml._artifacts import ARTIFACT_TYPES, artifact_type, load_artifact
from roblox_ml.errors import DatasetError


def test_a_new_one_gets_a_directory_when_it_is_needed() -> None:
    data = rml.Dataset()
    assert data.path == data.path and data.path.is_dir()
    assert data.path != rml.Dataset().path
    assert data.uri == data.path.as_uri()


def test_one_at_a_place_does_not_make_it(tmp_path: Path) -> None:
    assert not rml.Model(tmp_path / "typo").path.exists()


def test_metrics_keep_any_name_in_the_metadata() -> None:
    metrics = rml.Metrics(f1=0.8, path=1, name="n")
    metrics["loss"] = 0.1
    assert metrics.metadata == {"f1": 0.8, "path": 1, "name": "n", "loss": 0.1}
    assert metrics["f1"] == 0.8 and metrics.name == ""


@pytest.mark.parametrize("title", ARTIFACT_TYPES)
def test_what_the_runtime_loads_is_what_was_declared(title: str, tmp_path: Path) -> None:
    loaded = load_artifact(title, tmp_path, name="x", uri="minio://b/x", metadata={"f1": 1})
    assert type(loaded) is artifact_type(title)
    assert (loaded.path, loaded.name, loaded.uri, loaded.metadata) == (tmp_path, "x", "minio://b/x", {"f1": 1})


def test_titles_of_others_are_plain_artifacts() -> None:
    assert artifact_type("system.ClassificationMetrics") is rml.Artifact


def test_tables_go_in_and_out() -> None:
    import pandas as pd

    frame = pd.DataFrame({"text": ["a", "b"], "label": [0, 1]})
    data = rml.Dataset.from_pandas(frame, source="test")
    assert data.metadata == {"rows": 2, "columns": ["text", "label"], "source": "test"}
    pd.testing.assert_frame_equal(data.to_pandas(), frame)
    frame.to_csv(data.path / "more.csv", index=False)
    pd.testing.assert_frame_equal(data.to_pandas("more.csv"), frame)
    with pytest.raises(DatasetError, match=r"found 2: data\.parquet, more\.csv"):
        data.to_pandas()


def test_reports() -> None:
    report = rml.HTML("<h1>a & b</h1>")
    assert report.text == "<h1>a & b</h1>"
    assert "sandbox" in report._repr_html_() and "<h1>" not in report._repr_html_()
    note = rml.Markdown("# Title")
    assert note._repr_markdown_() == "# Title"
    assert (note.path / "README.md").read_text() == "# Title"


def test_what_a_notebook_shows_is_escaped(tmp_path: Path) -> None:
    (tmp_path / "<i>.txt").write_text("x")
    shown = rml.Dataset(tmp_path, metadata={"<b>": "<script>"})._repr_html_()
    assert "<script>" not in shown and "&lt;script&gt;" in shown and "&lt;i&gt;.txt" in shown


def test_a_models_metrics_are_its_packages(tmp_path: Path) -> None:
    assert rml.Model(tmp_path).metrics == {}
    (tmp_path / "metrics.json").write_text('{"f1": 0.8}')
    assert rml.Model(tmp_path).metrics == {"f1": 0.8}


def test_a_notebook_shows_values_first_and_lineage_folded() -> None:
    metrics = rml.Metrics(f1=0.8)
    metrics.metadata["rml.code"] = "d" * 64
    values, _, lineage = metrics._repr_html_().partition("<details>")
    assert "<code>f1</code></td><td>0.8" in values and "rml.code" not in values
    assert "rml.code" in lineage and "<details>" not in rml.Metrics(f1=1)._repr_html_()
