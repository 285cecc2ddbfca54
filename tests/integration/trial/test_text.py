"""A text model is measured as it is served: the engine in workers of its own, then the same package behind a door."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
from roblox_ml_serving.trial import results, textbench
from roblox_ml_serving.trial.page import page
from roblox_ml_serving.trial.rounds import Pool, WorkerFailed
from roblox_ml_serving.trial.scenarios import LESS_CPU, Scenario

ROOT = Path(__file__).resolve().parents[3]
_SPEC = importlib.util.spec_from_file_location("text_packages_for_trials", ROOT / "tests/integration/text/packages.py")
assert _SPEC is not None and _SPEC.loader is not None
packages = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = packages
_SPEC.loader.exec_module(packages)

TEXTS = [f"{word} game number {number}" for number in range(100) for word in ("good", "bad", "love")]


@pytest.mark.triton
def test_engine_and_served_path_of_one_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not (ROOT / ".triton" / ".rml-complete").is_file():
        pytest.skip("no Triton environment: `make setup` installs it")
    monkeypatch.setenv("RML_TRITON_DIR", str(ROOT / ".triton"))
    package = packages.text_cpu(tmp_path / "package", engines=["onnxruntime"])
    found = textbench.run(package.root, TEXTS, rounds=1, seconds=0.2, article=False)
    keys = found.keys()
    assert {"inferences_per_s_core", "served_fraction_of_engine", "p99_ms_served", "cache_hit_speedup"} <= keys.keys()
    assert "speedup_latency_vs_bert_padded" not in keys  # there was nothing to compare with
    assert found.served is not None
    assert all(load.failed == 0 == load.refused for loads in found.served.loads.values() for load in loads)
    (unit,) = results.unit_costs(found)
    assert unit["engine"] == found.measured[textbench.ALONE].engine and unit["digest"] == package.digest
    assert unit["engine"] in page(found)
    json.dumps(results.document(found))


def test_a_token_classifier_is_measured_the_same_way_and_less_cpu_changes_the_engine(tmp_path: Path) -> None:
    package = packages.text_cpu(
        tmp_path / "package", task="token", engines=["openvino", "onnxruntime"], requires=["sse9"]
    )
    command = textbench.command_of(Scenario(textbench.ALONE, "", "engine"), package.root, TEXTS, 64, {})
    engines = []
    for env in ({"RML_CPU_FLAGS": "sse9"}, LESS_CPU["avx2"]):
        with Pool(1, env=env) as pool:
            pool.load("alone", command)
            (answer,) = pool.run("alone", 0.1)
            assert answer["inferences"] == len(answer["latencies_ms"]) > 0 and answer["cpu_s"] > 0
            engines.append(pool.engines["alone"])
    assert engines == ["openvino-fp32", "onnxruntime-fp32"]


def test_a_worker_says_what_it_cannot_load(tmp_path: Path) -> None:
    package = packages.text_cpu(tmp_path / "package", engines=["onnxruntime"])
    command = textbench.command_of(Scenario("x", "", "engine", engine="nothing"), package.root, TEXTS, 64, {})
    with Pool(1) as pool, pytest.raises(WorkerFailed, match="nothing is none of onnxruntime-fp32"):
        pool.load("x", command)
