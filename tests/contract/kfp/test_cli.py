"""`rml submit` and `rml runs …` for runs on Kubeflow: the same commands as for those here, the id says which."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import roblox_ml as rml
from roblox_ml._backends.kfp import submit
from roblox_ml.cli import app

sys.path.insert(0, str(Path(__file__).parent))
from support import built


@rml.step
def work(n: int) -> int: ...


def working(n: int = 1) -> None:
    work(n)


@pytest.fixture
def rml_command(server: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("RML_KFP_HOST", server.url)
    # Tables are cut to the terminal's width.
    monkeypatch.setenv("COLUMNS", "200")

    def call(*words: str) -> str:
        done = CliRunner().invoke(app, list(words))
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.output

    return call


def failed(server: Any) -> Any:
    run = submit(built(working, n=1))
    engine = server.state.runs[run.id]
    engine.log("work", "loading\nValueError: no such column\n")
    engine.report("work", "FAILED")
    engine.end("FAILED")
    return run


def test_runs_are_listed_shown_and_their_logs_printed(server: Any, rml_command: Any) -> None:
    run = failed(server)
    listed = json.loads(rml_command("runs", "--kubeflow", "--json"))
    assert [(r["id"], r["state"], r["pipeline"]) for r in listed] == [(f"kfp:{run.id}", "FAILED", "working")]
    assert f"kfp:{run.id}" in rml_command("runs", "-k")
    shown = rml_command("runs", "show", f"kfp:{run.id}")
    assert "FAILED" in shown and "ValueError: no such column" in shown
    assert rml_command("runs", "logs", f"kfp:{run.id}", "work") == "loading\nValueError: no such column\n"
    assert rml_command("runs", "logs", "-f", f"kfp:{run.id}", "work") == "loading\nValueError: no such column\n"


def test_runs_are_retried_and_cancelled(server: Any, rml_command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = failed(server)

    class Finishes:
        def retry(self, engine: Any) -> None:
            engine.report("work", "SUCCEEDED")
            engine.end("SUCCEEDED")

    server.state.engine = Finishes()
    assert "SUCCEEDED" in rml_command("runs", "retry", f"kfp:{run.id}")
    server.state.engine = None
    other = submit(built(working, n=2))
    server.state.runs[other.id].report("work", "RUNNING")
    assert "CANCELLED" in rml_command("runs", "cancel", f"kfp:{other.id}")


def test_submit_a_file(server: Any, rml_command: Any, tmp_path: Path) -> None:
    file = tmp_path / "pipe.py"
    file.write_text(
        "import roblox_ml as rml\n\n@rml.step\ndef inc(n: int) -> int:\n    return n + 1\n\n"
        "@rml.pipeline\ndef counting(n: int):\n    inc(n)\n"
    )
    said = rml_command(
        "submit", str(file), "-p", "n=3", "--name", "first", "--label", "ticket=7", "--experiment", "trial"
    )
    (run,) = server.state.runs.values()
    assert f"kfp:{run.run_id}" in said and run.arguments == {"n": 3} and run.raw["display_name"] == "first"
    assert rml.get_run(f"kfp:{run.run_id}").labels == {"ticket": "7"}
