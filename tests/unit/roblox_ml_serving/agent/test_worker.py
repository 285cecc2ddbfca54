"""The worker's dealings with the disk and with failures; Triton is a stand-in here, the real one is asked in integration."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from roblox_ml_core.errors import RmlError, Unavailable
from roblox_ml_core.package import Examples, ModelPackage, Signature, TensorSpec, upload, write
from roblox_ml_core.registry import DesiredModel
from roblox_ml_core.storage import BlobStore
from roblox_ml_serving.agent.ledger import Ledger
from roblox_ml_serving.agent.plan import Key, Wanted
from roblox_ml_serving.agent.worker import Worker
from roblox_ml_serving.repository import materialised

KEY = Key("m", 1)


class StandIn:
    """Loads anything and answers what it was told to."""

    def __init__(self) -> None:
        self.answer: dict[str, Any] | Exception = {"Y": np.array([3.0], dtype=np.float32)}
        self.refusal: Exception | None = None
        self.loaded: set[str] = set()

    def load(self, name: str) -> None:
        if self.refusal:
            raise self.refusal
        self.loaded.add(name)

    def unload(self, name: str) -> None:
        self.loaded.discard(name)

    def infer(self, *_: object) -> dict[str, Any]:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def make(root: Path) -> ModelPackage:
    (root / "model").mkdir(parents=True)
    (root / "model" / "model.onnx").write_bytes(b"graph")
    signature = Signature((TensorSpec("X", "FP32", (-1, 2)),), (TensorSpec("Y", "FP32", (-1,)),))
    inputs = ({"name": "X", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]},)
    outputs = ({"name": "Y", "datatype": "FP32", "shape": [1], "data": [3.0]},)
    return write(root, format="onnx", signature=signature, examples=Examples(inputs, outputs))


@pytest.fixture
def world(tmp_path: Path) -> Any:
    class World:
        store = BlobStore((tmp_path / "store").as_uri())
        triton = StandIn()
        ledger = Ledger(60.0, lambda: None)
        package = make(tmp_path / "source")
        wish = DesiredModel("m", 1, package.digest, upload(package.root, store))
        worker = Worker(triton, store, ledger, tmp_path / "home", 2, clock=lambda: 0.0)  # type: ignore[arg-type]

        def reason(self) -> str:
            self.ledger.end(KEY)  # as the loop does when an action ends
            self.ledger.observe(0.0, {}, (), frozenset(), (KEY,), {})
            (state,) = self.ledger.states([Wanted(KEY, self.package.digest)])
            assert state.state == "failed"
            return state.reason

    return World()


def test_a_loaded_version_is_proved_and_on_disk(world) -> None:
    world.worker.load(world.wish)
    assert world.ledger.proof(KEY) == world.package.digest
    assert world.triton.loaded == {"m.1"}
    found = materialised(world.worker.repository, "m.1")
    assert found is not None
    assert found.instances == 2


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"Y": np.array([], dtype=np.float32)}, r"Y has shape \[0\], expected \[1\]"),
        ({}, "output Y is missing"),
        ({"Y": np.array([3.1], dtype=np.float32)}, "off by up to 0.1"),
        ({"Y": np.array([np.nan], dtype=np.float32)}, "not a finite number"),
        (RmlError("boom"), "its example fails: boom"),
    ],
)
def test_a_wrong_answer_unloads_and_is_told_by_name(world, answer, words: str) -> None:
    world.triton.answer = answer
    world.worker.load(world.wish)
    assert world.triton.loaded == set()
    assert world.ledger.proof(KEY) is None
    reason = world.reason()
    assert reason.startswith("m/1 does not give its known answer")
    assert re.search(words, reason)


def test_a_missing_blob_fails_this_version_with_its_digest(world, tmp_path) -> None:
    shutil.rmtree(tmp_path / "store")
    world.worker.load(world.wish)
    assert "is not in" in world.reason()


def test_a_blob_with_other_bytes_never_reaches_triton(world, tmp_path) -> None:
    blob = next(path for path in (tmp_path / "store").rglob("*") if path.is_file() and path.read_bytes() == b"graph")
    blob.chmod(0o644)
    blob.write_bytes(b"grapf")
    world.worker.load(world.wish)
    assert "holds other bytes" in world.reason()
    assert materialised(world.worker.repository, "m.1") is None


def test_a_damaged_local_copy_is_fetched_again(world) -> None:
    copy = world.worker.packages / world.package.digest
    shutil.copytree(world.package.root, copy)
    (copy / "model" / "model.onnx").write_bytes(b"rotten")
    world.worker.load(world.wish)
    assert world.ledger.proof(KEY) == world.package.digest
    assert (copy / "model" / "model.onnx").read_bytes() == b"graph"


def test_triton_going_away_is_not_the_model_s_fault(world) -> None:
    world.worker.load(world.wish)
    world.triton.answer = Unavailable("away")
    world.worker.check(KEY, world.package.digest)
    assert world.ledger.proof(KEY) == world.package.digest


def test_a_wrong_answer_later_leads_to_a_reload_then_to_failure(world) -> None:
    world.worker.load(world.wish)
    world.triton.answer = {}
    world.worker.check(KEY, world.package.digest)
    observed = world.ledger.observe(0.0, {KEY: (world.package.digest, 0)}, (), frozenset(), (KEY,), {})
    assert "known answer" in observed.residents[KEY].broken
    world.worker.reload(KEY, world.package.digest, "test")
    assert world.triton.loaded == set()
    assert world.reason().startswith("after a reload (test)")


def test_unload_removes_model_and_package_unless_another_version_needs_it(world) -> None:
    world.worker.load(world.wish)
    world.worker.unload(KEY, "test", lambda: {world.package.digest})
    assert (world.worker.packages / world.package.digest).is_dir()
    world.worker.load(world.wish)
    world.worker.unload(KEY, "test", set)
    assert list(world.worker.packages.iterdir()) == []
    assert list(world.worker.repository.iterdir()) == []


def test_the_sweep_spares_what_is_loaded_or_wanted(world) -> None:
    world.worker.load(world.wish)
    for name in (".m.2.abc.new", "old.1", "old.1.batch"):
        (world.worker.repository / name).mkdir()
    (world.worker.packages / "stale").mkdir()
    world.worker.sweep({"m.1"}, {world.package.digest})
    assert {path.name for path in world.worker.repository.iterdir()} == {"m.1", "m.1.batch"}
    assert [path.name for path in world.worker.packages.iterdir()] == [world.package.digest]
