"""`rml bench text` on a package by hand: what it prints, what it keeps, what it refuses."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from roblox_ml.cli import app

_SOURCE = Path(__file__).resolve().parents[1] / "serving" / "conftest.py"
_SPEC = importlib.util.spec_from_file_location("serving_conftest_for_bench", _SOURCE)
assert _SPEC is not None and _SPEC.loader is not None
_serving = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = _serving
_SPEC.loader.exec_module(_serving)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _serving.text_classifier(tmp_path_factory.mktemp("bench") / "package").root


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    file = tmp_path / "texts.txt"
    file.write_text("\n".join(f"{word} game {number}" for number in range(60) for word in ("good", "bad")) + "\n\n")
    return file


def bench(*arguments: object) -> object:
    return CliRunner().invoke(app, ["bench", "text", *map(str, arguments)])


@pytest.mark.triton
@pytest.mark.skipif(
    not (_serving.TRITON_DIR / ".rml-complete").is_file(), reason="no Triton environment: `make setup` installs it"
)
def test_what_is_served_is_measured_and_kept(
    package: Path, texts: Path, tmp_path: Path, rml_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RML_TRITON_DIR", str(_serving.TRITON_DIR))
    page = tmp_path / "page.html"
    short = ("--no-article", "--rounds", 1, "--seconds", 0.2, "--machine", "mine=4:0.36")
    done = bench(package, "--texts", texts, "--html", page, "--json", *short)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert {"served_per_s", "p99_ms_served", "cache_hit_speedup"} <= found["keys"].keys()
    assert all(value > 0 for value in found["keys"].values())
    assert found["lengths"]["count"] == 120 and "rml.optimize" in found["notes"][0]
    (unit,) = found["unit_costs"]
    assert set(unit["cpu_ms"]) == {"door", "triton", "instances"} and unit["instances"] >= 1
    (cost,) = found["cost_per_million_usd"]
    expected = 0.36 / 3600 / (4 * 0.5 * 1e3 / sum(unit["cpu_ms"].values())) * 1e6
    assert cost["machine"] == "mine" and cost["usd"] == pytest.approx(expected, rel=1e-2)
    (kept,) = (rml_home / "benchmarks").glob("text-*.json")
    assert json.loads(kept.read_text()) == found
    assert "<svg" in page.read_text()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "too few to measure"),
        (("--isa", "sse"), "avx512-vnni, avx2"),
        (("--machine", "mine=4"), "NAME=VCPUS:USD_PER_HOUR"),
    ],
)
def test_mistakes_are_said_before_anything_is_measured(
    package: Path, texts: Path, arguments: tuple[str, ...], says: str
) -> None:
    done = bench(package, *(("--texts", texts) if arguments else ()), *arguments)
    assert done.exit_code == 2 and says in " ".join(done.output.replace("│", " ").split())
