"""What a step knows and says inside a Kubeflow pod: its run from where its outputs go, its outputs in its log."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from roblox_ml._runtime import executor
from roblox_ml._runtime.bootstrap import Arguments

RUN, EXECUTION = "d86922a0-d930-4ff9-adcf-74078a1ac66f", "1a7f8c78-950e-4435-b0b7-101ad55047bf"


def test_the_recorded_place_of_outputs_names_pipeline_run_and_task() -> None:
    recorded = f"/minio/mlpipeline/v2/artifacts/live/{RUN}/count/{EXECUTION}/output_metadata.json"
    assert executor.whereabouts({"outputs": {"outputFile": recorded}}) == {
        "RML_PIPELINE": "live", "RML_RUN_ID": RUN, "RML_TASK": "count",
    }  # fmt: skip


@pytest.mark.parametrize(
    "place", ["", "/home/u/runs/live-1/tasks/count/executor_output.json", f"/minio/b/{RUN}/x.json"]
)
def test_any_other_place_names_nothing(place: str) -> None:
    assert executor.whereabouts({"outputs": {"outputFile": place}}) == {}


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Arguments:
    module = ModuleType("podstep")
    exec("def count() -> int:\n    return 7", vars(module))
    monkeypatch.setitem(sys.modules, "podstep", module)
    for name in ("RML_RUN_ID", "RML_TASK", "RML_PIPELINE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.setitem(executor.os.environ, name, "")  # so that what the step sets is taken back
        del executor.os.environ[name]
    out = tmp_path / "live" / RUN / "count" / EXECUTION / "output_metadata.json"
    given = {"outputs": {"outputFile": str(out), "parameters": {"Output": {"outputFile": str(tmp_path / "n")}}}}
    return Arguments("s", "none", "none", "podstep:count", json.dumps(given))


def test_in_a_pod_the_outputs_are_the_last_line_of_the_log(
    step: Arguments, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KFP_POD_NAME", "p")
    assert executor.run(step, None) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert json.loads(last.removeprefix("::rml outputs ")) == {"parameterValues": {"Output": 7}, "pod": "p"}
    assert executor.os.environ["RML_RUN_ID"] == RUN and executor.os.environ["RML_TASK"] == "count"


def test_elsewhere_nothing_is_said(
    step: Arguments, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("KFP_POD_NAME", raising=False)
    assert executor.run(step, None) == 0 and capsys.readouterr().out == ""
