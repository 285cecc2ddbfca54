"""A trial with real servers: a package is asked over both protocols, its costs are counted, nothing stays behind."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import psutil
import pytest
from roblox_ml_core.errors import PackageError
from roblox_ml_serving.trial import TrialStack, closed_loop, grpc_texts, open_loop, rest_texts

_SOURCE = Path(__file__).resolve().parents[1] / "serving" / "conftest.py"
_SPEC = importlib.util.spec_from_file_location("serving_conftest_for_trials", _SOURCE)
assert _SPEC is not None and _SPEC.loader is not None
_serving = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = _serving
_SPEC.loader.exec_module(_serving)

pytestmark = [
    pytest.mark.triton,
    pytest.mark.skipif(
        not (_serving.TRITON_DIR / ".rml-complete").is_file(), reason="no Triton environment: `make setup` installs it"
    ),
]


@pytest.fixture(autouse=True)
def installation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RML_TRITON_DIR", str(_serving.TRITON_DIR))


def test_a_package_is_tried_over_both_protocols_and_nothing_stays(tmp_path: Path) -> None:
    package = _serving.text_classifier(tmp_path / "package")
    with TrialStack({"m": package.root, "n": package.root}, instances=2) as stack:
        home, instances = stack.repository.parents[1], stack.instances()
        assert len(instances) == 4
        rest = closed_loop(
            rest_texts(stack.rest, "m", _serving.TEXTS), workers=2, requests=60, keep=1, cpu=stack.cpu_seconds
        )
        assert rest.statuses == {"200": 60} and rest.cpu.keys() == {"door", "triton", "instances"}
        known = {tensor["name"]: tensor for tensor in package.examples.outputs}
        outputs = {tensor["name"]: tensor for tensor in json.loads(rest.answers[0])["outputs"]}
        assert outputs["label"]["data"] == known["label"]["data"][:1]
        grpc = open_loop(grpc_texts(stack.grpc, "n", _serving.TEXTS, rows=5), rate=50, seconds=0.4)
        assert grpc.answered == grpc.requests and grpc.rows == 5
        assert stack.cpu_seconds()["instances"] > 0 and min(stack.memory_bytes().values()) > 0
        assert 'endpoint="m"' in stack.metrics()
    assert not home.exists() and not any(psutil.pid_exists(pid) for pid in instances)


def test_a_package_that_answers_wrongly_is_not_tried(tmp_path: Path) -> None:
    liar = _serving.text_classifier(tmp_path / "package", expected=lambda scores: scores[:, ::-1])
    with pytest.raises(PackageError, match="known answer"), TrialStack({"m": liar.root}, instances=1):
        pass


def test_a_folder_that_is_no_package_is_refused_before_anything_is_started(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=r"neither package\.json nor text\.json"), TrialStack({"m": tmp_path}):
        pass
