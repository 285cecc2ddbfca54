"""Named data sets: integer versions given atomically, digests that depend on the files alone, errors that teach."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import roblox_ml as rml
from roblox_ml._store import open_store
from roblox_ml.errors import DatasetError

FILES = {"a.csv": b"x,y\n1,2\n", "deep/b.bin": b"\x00\x01"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, data in FILES.items():
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_bytes(data)
    return tmp_path / "data"


def test_a_folder_a_mapping_and_an_artifact_with_the_same_files_have_one_digest(folder: Path) -> None:
    by_folder = rml.datasets.add("one", folder)
    by_mapping = rml.datasets.add("two", FILES)
    by_artifact = rml.datasets.add("three", rml.Dataset(folder))
    assert by_folder.digest == by_mapping.digest == by_artifact.digest
    assert by_folder.size == sum(map(len, FILES.values())) and set(by_folder.files) == set(FILES)


def test_the_digest_is_that_of_the_manifest_in_the_store(folder: Path) -> None:
    ref = rml.datasets.add("comments", folder)
    store = open_store()
    assert b'"files"' in store.get(ref.digest)
    assert all(store.verify(digest) for digest in ref.blobs)
    assert len(ref.blobs) == 1 + len(FILES)


def test_versions_count_up_and_the_same_files_keep_their_version(folder: Path) -> None:
    first = rml.datasets.add("comments", folder, description="raw")
    assert rml.datasets.add("comments", folder).version == 1
    (folder / "a.csv").write_text("changed")
    second = rml.datasets.add("comments", folder, tags={"team": "safety"})
    assert (first.version, second.version) == (1, 2)
    assert rml.datasets.get("comments") == second and rml.datasets.resolve("comments", 1) == first
    assert [ref.version for ref in rml.datasets.versions("comments")] == [1, 2]
    assert rml.datasets.list() == [second]
    # Going back to old files is a new version: the newest one must be what was added last.
    assert rml.datasets.add("comments", FILES).version == 3
    assert rml.datasets.get("comments").digest == first.digest


def test_a_new_description_of_the_same_files_is_kept(folder: Path) -> None:
    rml.datasets.add("comments", folder, description="old", tags={"a": "1"})
    ref = rml.datasets.add("comments", folder, description="new")
    assert (ref.version, ref.description, ref.tags) == (1, "new", {"a": "1"})
    assert rml.datasets.get("comments") == ref


def test_a_file_is_a_data_set_of_one(folder: Path) -> None:
    assert set(rml.datasets.add("single", folder / "a.csv").files) == {"a.csv"}


def test_a_frame_becomes_parquet_and_comes_back() -> None:
    frame = pd.DataFrame({"text": ["gg", "wp"], "label": [1, 0]})
    ref = rml.datasets.add("frame", frame)
    pd.testing.assert_frame_equal(pd.read_parquet(ref.path / "data.parquet"), frame)
    assert rml.datasets.add("frame", frame.copy()).version == 1, "the same frame is the same version"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(
    st.dictionaries(
        st.lists(st.text("abcé .", min_size=1, max_size=4).filter(lambda part: part.strip(". ")), min_size=1, max_size=3)
        .map("/".join),
        st.binary(max_size=20),
        min_size=1,
        max_size=4,
    ).filter(lambda files: not any(other.startswith(f"{name}/") for name in files for other in files))
)  # fmt: skip
def test_what_is_added_is_laid_down_again(files: dict[str, bytes]) -> None:
    ref = rml.datasets.add("any", files)
    found = {path.relative_to(ref.path).as_posix(): path.read_bytes() for path in ref.path.rglob("*") if path.is_file()}
    assert found == files


def test_a_laid_down_copy_that_lost_a_file_is_laid_down_again(folder: Path) -> None:
    ref = rml.datasets.add("comments", folder)
    (ref.path / "a.csv").unlink()
    assert (ref.path / "a.csv").read_bytes() == FILES["a.csv"]


def test_removed_versions_never_come_back_under_their_number(folder: Path) -> None:
    rml.datasets.add("comments", folder)
    rml.datasets.add("comments", {"x": b"1"})
    rml.datasets.remove("comments", 2)
    assert rml.datasets.add("comments", {"x": b"2"}).version == 3
    rml.datasets.remove("comments")
    with pytest.raises(DatasetError, match="no data set 'comments'"):
        rml.datasets.get("comments")
    assert rml.datasets.list() == [] and rml.datasets.add("comments", folder).version == 4


def test_processes_adding_at_once_get_versions_of_their_own() -> None:
    program = "import sys, roblox_ml as rml; print(rml.datasets.add('busy', {'f': sys.argv[1].encode()}).version)"
    contents = ["a", "b", "c", "d", "a", "a"]
    started = [
        subprocess.Popen([sys.executable, "-c", program, text], stdout=subprocess.PIPE, text=True) for text in contents
    ]
    given_out = [int(process.communicate()[0]) for process in started]
    stored = [ref.version for ref in rml.datasets.versions("busy")]
    assert stored == list(range(1, len(stored) + 1)), "no gap, none twice"
    by_version = {ref.version: (ref.path / "f").read_text() for ref in rml.datasets.versions("busy")}
    assert [by_version[version] for version in given_out] == contents


@pytest.mark.parametrize("name", ["", "Bad Name", "../up", "a" * 64, "-x", ".lock", None])
def test_bad_names_are_refused_with_a_better_one(name) -> None:
    with pytest.raises(DatasetError, match="no name") as error:
        rml.datasets.add(name, {"f": b""})
    assert error.value.fix


def test_unknown_names_and_versions_say_what_exists(folder: Path) -> None:
    with pytest.raises(DatasetError, match=r"rml\.datasets\.add"):
        rml.datasets.get("coments")
    rml.datasets.add("comments", folder)
    with pytest.raises(DatasetError, match="did you mean 'comments'"):
        rml.datasets.get("coments")
    with pytest.raises(DatasetError, match="its versions: 1"):
        rml.datasets.get("comments", 7)


def test_everything_that_cannot_be_stored_is_told_at_once(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("secret")
    (folder / "out").symlink_to(tmp_path / "outside")
    (folder / "broken").symlink_to(folder / "nothing")
    (folder / "loop").symlink_to(folder)
    os.mkfifo(folder / "pipe")
    with pytest.raises(DatasetError) as error:
        rml.datasets.add("comments", folder)
    for line in ("out: a link out", "broken: a link to nothing", "loop: a link to a folder", "pipe: neither"):
        assert line in str(error.value)
    assert rml.datasets.list() == []


def test_a_link_inside_the_folder_is_its_file(folder: Path) -> None:
    (folder / "again.csv").symlink_to(folder / "a.csv")
    assert (rml.datasets.add("comments", folder).path / "again.csv").read_bytes() == FILES["a.csv"]


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("no/such/path", "no file or folder"),
        ({}, "empty"),
        ({"../up": b""}, "'../up'"),
        ({"text": "not bytes"}, "'text'"),
        (42, "cannot be made of a int"),
    ],
)
def test_sources_that_are_none(source, says) -> None:
    with pytest.raises(DatasetError, match=says):
        rml.datasets.add("comments", source)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty" / "deeper").mkdir(parents=True)
    with pytest.raises(DatasetError, match="is empty"):
        rml.datasets.add("comments", tmp_path / "empty")


def test_a_record_changed_by_hand_is_refused(rml_home: Path, folder: Path) -> None:
    ref = rml.datasets.add("comments", folder)
    record = rml_home / "datasets" / "comments" / "1.json"
    record.write_text(record.read_text().replace(ref.files["a.csv"].sha256, "0" * 64))
    with pytest.raises(DatasetError, match="was changed"):
        rml.datasets.get("comments")
    record.write_text("{")
    with pytest.raises(DatasetError, match="cannot be read"):
        rml.datasets.get("comments")


def test_missing_bytes_are_named(folder: Path) -> None:
    ref = rml.datasets.add("comments", folder)
    open_store().delete(ref.files["a.csv"].sha256)
    with pytest.raises(DatasetError, match="missing"):
        _ = ref.path


def test_a_notebook_shows_identity_files_and_first_rows(folder: Path) -> None:
    shown = rml.datasets.add("comments", folder, description="<b>raw</b>")._repr_html_()
    assert "comments version 1" in shown and "deep/b.bin" in shown and "<th>x</th>" in shown
    assert "<b>raw" not in shown, "what users write is escaped"
    frame = rml.datasets.add("frame", pd.DataFrame({"z": range(100)}))
    assert frame._repr_html_().count("<td>") < 20
    broken = rml.datasets.add("broken", {"data.parquet": b"no parquet"})
    assert "no preview" in broken._repr_html_()


def test_the_documented_vector() -> None:
    digest = "c44dd461f8f2eedc6b4c2e152fdc868db42673260a3b3824f71ad0962c67b7a9"
    assert rml.datasets.add("vector", {"a.csv": b"x,y\n1,2\n"}).digest == digest
    assert digest in (Path(__file__).resolve().parents[3] / "docs" / "formats" / "dataset.md").read_text()
