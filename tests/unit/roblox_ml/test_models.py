"""`rml.models` against a control plane in this process: what a data scientist types, and what goes wrong on the way."""

from __future__ import annotations

import io
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from roblox_ml_core.package import Examples, Signature, TensorSpec, write
from roblox_ml_core.package import read as load_package
from roblox_ml_core.settings import HomeSettings
from roblox_ml_core.storage import BlobStore, blob_key

import roblox_ml as rml
from roblox_ml import models
from roblox_ml._model_diff import code_diff, compare
from roblox_ml.errors import Conflict, NotFound, NotRunning, PackageError, RemoteError

SIGNATURE = Signature((TensorSpec("x", "FP32", (-1, 2)),), (TensorSpec("y", "FP32", (-1, 2)),))


@pytest.fixture
def plane(rml_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a control plane that this process serves."""
    import uvicorn
    from roblox_ml_platform.app import create_app

    monkeypatch.setenv("RML_MLFLOW_ENABLED", "false")
    server = uvicorn.Server(uvicorn.Config(create_app(), port=0, log_config=None, timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    monkeypatch.setenv("RML_CONTROL_URL", url)
    monkeypatch.setenv("RML_ACTOR", "ann@desk")
    yield url
    server.should_exit = True
    thread.join(10)


@pytest.fixture
def package(tmp_path: Path) -> Callable[..., Path]:
    def build(factor: int, **fields: object) -> Path:
        root = tmp_path / f"package-{factor}"
        if not root.exists():
            (root / "model/code").mkdir(parents=True)
            (root / "model/code/scale.py").write_text(
                f"def predict(batch):\n    return {{'y': batch['x'] * {factor}}}\n"
            )
            examples = Examples.record(SIGNATURE, {"x": [[1, 2]]}, {"y": [[factor, 2 * factor]]})
            metrics = {"f1": 0.1 * factor}
            write(
                root,
                format="python",
                signature=SIGNATURE,
                examples=examples,
                options={"entry": "scale:predict"},
                metrics=metrics,
            )
        return root

    return build


def test_a_model_goes_in_and_comes_out(plane: str, package: Callable[..., Path], tmp_path: Path) -> None:
    made = models.register(package(7), "scale", tags={"team": "safety", "n": 3}, params={"lr": 0.1}, origin="a laptop")
    assert (made.name, made.version, made.aliases, made.gate["passed"]) == ("scale", 1, ("champion",), True)
    assert made.metrics["f1"] == pytest.approx(0.7)
    assert made.lineage == {"kind": "external", "origin": "a laptop", "by": "ann@desk"}
    for ref in ("scale", "scale/1", "scale@champion", f"scale/1@{made.digest}"):
        assert models.get(ref).digest == made.digest
    found = models.get("scale")
    assert (found.tags, found.params, found.format) == ({"team": "safety", "n": "3"}, {"lr": 0.1}, "python")
    assert found.signature == SIGNATURE.to_json()
    assert found.created_by == "ann@desk"
    assert "scale version 1" in found._repr_html_()
    assert found.report is None, "nobody optimised it"
    loaded = found.load()
    assert loaded.predict([[1, 2]])["y"].tolist() == [[7, 14]]
    assert loaded.check() == []
    folder = found.download(tmp_path / "out" / "copy")
    assert (folder / "model/code/scale.py").read_bytes() == (package(7) / "model/code/scale.py").read_bytes()
    (tmp_path / "empty").mkdir()
    assert found.download(tmp_path / "empty").joinpath("package.json").is_file()


def test_the_report_of_an_optimised_version_comes_from_its_package(plane: str, package: Callable[..., Path]) -> None:
    root = package(3)
    (root / "report.html").write_text("<h1>int8</h1>")
    read = load_package(root)
    write(root, format="python", signature=read.signature, examples=read.examples, options=read.options)
    made = models.register(rml.Model(root), "optimised")
    report = made.report
    assert report is not None
    assert report.text == "<h1>int8</h1>"


def test_a_model_artifact_registers_as_its_directory_does(plane: str, package: Callable[..., Path]) -> None:
    artifact = rml.Model(package(2))
    assert models.register(artifact, "scale", metrics=rml.Metrics(f1=0.9)).metrics == {"f1": 0.9}
    again = models.register(package(2), "scale")
    assert (again.version, again.metrics) == (1, {"f1": pytest.approx(0.2)})


def test_the_gate_keeps_the_champion_and_stores_the_model(plane: str, package: Callable[..., Path]) -> None:
    models.register(package(9), "scale", gate=rml.gate(f1=0.5))
    worse = models.register(package(2), "scale", gate=rml.gate(f1=0.5))
    assert (worse.version, worse.aliases, worse.gate["passed"]) == (2, (), False)
    assert "f1 is 0.2" in worse._repr_html_()
    assert models.get("scale").version == 1
    assert models.register(package(3), "scale", alias=None).aliases == ()


def test_promotions_and_rollbacks_have_a_history(plane: str, package: Callable[..., Path]) -> None:
    for factor in (1, 2, 3):
        models.register(package(factor), "scale", alias=None)
    assert models.promote("scale/1", expected=0).aliases == ("champion",)
    with pytest.raises(Conflict, match="points at version 1"):
        models.promote("scale/2", expected=0)
    models.get("scale/2").promote(expected=1, reason="better")
    with pytest.raises(Conflict) as caught:
        models.get("scale/3").promote(expected=1)
    assert "ann@desk moved it" in str(caught.value)
    assert models.rollback("scale").version == 1
    with pytest.raises(Conflict, match="nothing to roll back to"):
        models.rollback("scale")
    assert [(m["from"], m["to"], m["kind"], m["reason"]) for m in models.history("scale")] == [
        (2, 1, "rollback", "rollback"), (1, 2, "promote", "better"), (None, 1, "promote", ""),
    ]  # fmt: skip
    assert models.get("scale/3").promote("challenger").aliases == ("challenger",)
    with pytest.raises(Conflict, match="points at no version"):
        models.promote("scale/3", "blue", expected=2)


def test_searching_listing_tagging_and_deleting(plane: str, package: Callable[..., Path]) -> None:
    models.register(package(1), "scale", tags={"team": "safety"})
    models.register(package(2), "scale", alias=None)
    models.register(package(1), "other")
    assert [str(m.ref) for m in models.versions("scale")] == ["scale/2", "scale/1"]
    assert {m.ref for m in models.search()} == {"scale/1", "scale/2", "other/1"}
    assert [m.ref for m in models.search("tag.team=safety metric.f1<0.15")] == ["scale/1"]
    assert models.get("scale/2").tag(team="search", **{"a.b": "c"}).tags == {"team": "search", "a.b": "c"}
    assert models.get("scale/2").tag({"a.b": None}).tags == {"team": "search"}
    with pytest.raises(RemoteError) as caught:
        models.search("metric.f1>high")
    assert "tag.team=safety" in caught.value.fix
    with pytest.raises(Conflict, match="alias champion"):
        models.delete_version("scale/1")
    models.delete_version("scale/2")
    with pytest.raises(NotFound, match="newest version is 1"):
        models.get("scale/2")


def test_a_reference_that_means_nothing_says_what_there_is(plane: str, package: Callable[..., Path]) -> None:
    models.register(package(1), "scale")
    with pytest.raises(NotFound, match="champion"):
        models.get("scale@challenger")
    with pytest.raises(NotFound, match="rml models"):
        models.get("none/1")
    with pytest.raises(Conflict, match="demands"):
        models.get("scale/1@" + "0" * 64)
    with pytest.raises(RemoteError, match="name@alias"):
        models.get("scale/one")


def test_tampered_bytes_are_refused_and_leave_nothing(plane: str, package: Callable[..., Path], tmp_path: Path) -> None:
    made = models.register(package(1), "scale")
    store = BlobStore(HomeSettings().store_url)
    from roblox_ml_core.digests import sha256_file

    assert store.local_root is not None
    blob = store.local_root / blob_key(sha256_file(package(1) / "model/code/scale.py"))
    blob.write_bytes(blob.read_bytes().replace(b"* 1", b"* 9"))
    for act in (lambda: made.download(tmp_path / "copy"), made.load):
        with pytest.raises(PackageError, match="holds other bytes"):
            act()
    assert not (tmp_path / "copy").exists()
    # Registering the intact package again heals the store.
    models.register(package(1), "scale")
    assert made.load().predict([[1, 2]])["y"].tolist() == [[1, 2]]


def test_a_damaged_cache_is_not_loaded(plane: str, package: Callable[..., Path]) -> None:
    made = models.register(package(1), "scale")
    made.load()
    cached = HomeSettings().root / "cache/models" / made.digest / "model/code/scale.py"
    cached.write_text(cached.read_text().replace("* 1", "* 9"))
    with pytest.raises(PackageError, match=r"scale\.py was changed"):
        made.load()


def test_what_is_no_package_is_told_how_to_become_one(plane: str, tmp_path: Path, package: Callable[..., Path]) -> None:
    with pytest.raises(PackageError, match="from_sklearn"):
        models.register(tmp_path, "scale")
    (package(1) / "model/code/scale.py").write_text("changed")
    with pytest.raises(PackageError, match=r"scale\.py was changed"):
        models.register(package(1), "scale")
    with pytest.raises(RemoteError, match="my-model"):
        models.register(package(2), "My Model")


def test_without_the_shared_folder_blobs_go_through_the_control_plane(
    plane: str, package: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine: its own home and store, the control plane's token."""
    token = HomeSettings().read_token()
    monkeypatch.setenv("RML_TOKEN", str(token))
    monkeypatch.setenv("RML_HOME", str(tmp_path / "other"))
    made = models.register(package(4), "scale")
    import shutil

    shutil.rmtree(tmp_path / "other")
    assert made.load().predict([[1, 2]])["y"].tolist() == [[4, 8]]


def test_no_control_plane_is_said_plainly(monkeypatch: pytest.MonkeyPatch, free_port: Callable[[], int]) -> None:
    monkeypatch.setenv("RML_CONTROL_URL", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(NotRunning, match="rml up"):
        models.get("scale")


def _bundle(**files: str) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, text in {"MANIFEST.json": str(files), **files}.items():
            archive.writestr(name.replace("__", "."), text)
    return data.getvalue()


def test_a_diff_shows_metrics_lineage_files_and_code(plane: str, package: Callable[..., Path]) -> None:
    from roblox_ml_core.package import manifest, read
    from roblox_ml_core.registry import RegistryClient

    store = BlobStore(HomeSettings().store_url)
    for factor, source in ((1, "lr = 0.1\nsame = 1\n"), (2, "lr = 0.2\nsame = 1\n")):
        models.register(package(factor), "warm-up")  # stores the blobs
        body = {
            "package": read(package(factor)).info,
            "manifest": manifest(package(factor)),
            "metrics": {"f1": 0.5 + factor / 10},
            "lineage": {"kind": "pipeline", "run": f"r{factor}", "code": store.put(_bundle(train__py=source))},
        }
        RegistryClient().register("scale", body)
    diff = models.diff("scale/1", "scale/2")
    change = diff.of("metrics")[0]
    assert (change.key, change.a, change.b, change.delta) == ("f1", 0.6, 0.7, pytest.approx(0.1))
    assert [c.key for c in diff.of("lineage")] == ["code", "run"]
    assert "model/code/scale.py" in [c.key for c in diff.of("files")]
    assert "-lr = 0.1\n+lr = 0.2" in diff.code
    for text in (str(diff), diff._repr_html_()):
        assert "f1" in text
        assert "lr = 0.2" in text
    same = models.diff("scale/1", "scale/1")
    assert not same
    assert same.code_note == "the same bundle"
    assert models.diff("warm-up/1", "warm-up/2").code_note == "neither bundle is in the store"


def test_a_code_diff_is_bounded_and_survives_what_is_no_bundle() -> None:
    text, note = code_diff(_bundle(a__py="x\n"), _bundle(a__py="x\n", b__py="y\n" * 5000))
    assert len(text.splitlines()) == 2000
    assert "the first 2000 lines" in note
    assert "unreadable" in code_diff(b"not a zip", _bundle(a__py="x"))[0]
    big = code_diff(_bundle(a__bin="\0"), _bundle(a__bin="x" * (2 << 20)))[0]
    assert "2097152 bytes" in big
    assert len(big) < 1000


def test_html_in_names_is_text() -> None:
    side = {"name": "a", "version": 1, "manifest": {}, "tags": {"<script>": "<b>"}}
    html = compare(side, {**side, "tags": {}}, ("+<script>", "note"))._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html


def test_a_list_of_versions_has_a_short_line_each(plane: str, package: Callable[..., Path]) -> None:
    version = models.register(package(9), "scale", origin="here")
    line = repr(version)
    assert line.startswith(f"<ModelVersion scale/1@{version.digest[:12]}, aliases='champion'") and len(line) < 120
    assert version.digest not in line and "lineage" not in line
