"""The `rml` command over the SDK: what it prints, how it refuses. Real runs, in a home of the test's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PIPELINE = """
import roblox_ml as rml


@rml.step
def double(n: int) -> int:
    print("doubling", n)
    return 2 * n


@rml.step
def show(n: int) -> str:
    return f"{n} it is"


@rml.pipeline
def sums(n: int = 4):
    show(double(n))
"""

BROKEN = PIPELINE.replace('return f"{n} it is"', 'return f"{m} it is"')


def rml(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "roblox_ml.cli", *arguments]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=120, env=os.environ | {"COLUMNS": "160"}, check=False
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "sums.py"
    path.write_text(PIPELINE)
    return path


def test_run_then_look_at_it(file: Path) -> None:
    done = rml("run", str(file), "-p", "n=21")
    assert done.returncode == 0, done.stdout + done.stderr
    (recorded,) = json.loads(rml("runs", "--json").stdout)
    assert recorded["pipeline"] == "sums" and recorded["state"] == "SUCCEEDED"
    shown = json.loads(rml("runs", "show", recorded["id"], "--json").stdout)
    assert {task["task"]: task["state"] for task in shown["tasks"]} == {"double": "SUCCEEDED", "show": "SUCCEEDED"}
    assert "doubling 21" in rml("runs", "logs", recorded["id"], "double").stdout
    assert recorded["id"] in rml("runs").stdout


def test_a_notebook_runs_like_a_file(tmp_path: Path) -> None:
    cells = [{"cell_type": "code", "source": part} for part in PIPELINE.split("\n\n\n")]
    notebook = tmp_path / "sums.ipynb"
    notebook.write_text(json.dumps({"cells": cells, "nbformat": 4, "nbformat_minor": 5, "metadata": {}}))
    done = rml("run", str(notebook))
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(rml("runs", "--json").stdout)[0]["state"] == "SUCCEEDED"


def test_a_notebook_finds_what_lies_beside_it(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("START = 20\n")
    (tmp_path / "start.txt").write_text("1")
    source = PIPELINE.replace("n: int = 4", "n: int = START") + "assert open('start.txt').read() == '1'\n"
    cells = [{"cell_type": "code", "source": text} for text in ("from beside import START", source)]
    notebook = tmp_path / "sums.ipynb"
    notebook.write_text(json.dumps({"cells": cells, "nbformat": 4, "nbformat_minor": 5, "metadata": {}}))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = rml("compile", str(notebook), "-o", "sums.yaml", cwd=elsewhere)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "defaultValue: 20" in (elsewhere / "sums.yaml").read_text()


def test_compile_writes_what_the_sdk_writes(file: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    for target in (first, second):
        assert rml("compile", f"{file}:sums", "-o", str(target)).returncode == 0
    assert first.read_bytes() == second.read_bytes()
    assert b"pipelineInfo" in first.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "nowhere.py"], "there is no file"),
        (["run", "{file}:other"], "has no pipeline"),
        (["run", "{file}", "-p", "n"], "name=value"),
        (["run", "{file}", "-p", "m=1"], "unknown-argument"),
        (["runs", "show", "no-such-run"], "no-such-run"),
        (["logs", "nothing"], "there is no log"),
        (["up", "dor"], "no part is called"),
        (["datasets", "add", "comments", "nowhere"], "nowhere"),
        (["predict", "comments", "--data", "{{X"], "no JSON"),
        (["run", "{file}", "-p", "m=3"], "the command line: the pipeline 'sums' has no parameter 'm'"),
    ],
)
def test_refusals_are_sentences(arguments: list[str], words: str, file: Path) -> None:
    done = rml(*[argument.format(file=file) for argument in arguments])
    assert done.returncode != 0
    assert words in (done.stderr + done.stdout).replace("\n", " ")
    assert "Traceback" not in done.stderr


def test_a_wrong_program_is_explained_without_a_traceback(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text(BROKEN)
    done = rml("run", str(path))
    assert done.returncode == 1
    assert "undefined-name" in done.stderr and "broken.py" in done.stderr and "Traceback" not in done.stderr


def test_datasets_and_gc(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.csv").write_text("x\n1\n")
    assert rml("datasets", "add", "numbers", str(tmp_path / "data"), "--tag", "team=safety").returncode == 0
    (listed,) = json.loads(rml("datasets", "list", "--json").stdout)
    assert (listed["name"], listed["version"], listed["files"]) == ("numbers", 1, 1)
    assert rml("gc").returncode == 0
    assert json.loads(rml("datasets", "list", "--json").stdout) == [listed]


def test_doctor_reports_every_check() -> None:
    checks = {line["check"]: line["state"] for line in json.loads(rml("doctor", "--json").stdout)}
    assert {"Python", "RML_HOME", "token", "uv", "CPU", "torch", "Triton", "ports"} <= set(checks)
    assert checks["Python"] == "ok" and checks["RML_HOME"] in ("ok", "warn")


def test_status_of_nothing() -> None:
    assert json.loads(rml("status", "--json").stdout) == {}
    assert rml("down").stdout.strip() == "nothing was running"


def test_an_error_s_lines_are_not_folded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from roblox_ml.cli._console import fail

    line = "    answer = " + "word " * 60
    fail(f"no\n{line}\n{' ' * 200}^^^^")
    assert capsys.readouterr().err.splitlines()[1:] == [line, " " * 200 + "^^^^"]


def test_names_in_a_table_stay_in_one_piece(capsys: pytest.CaptureFixture[str]) -> None:
    from roblox_ml.cli._console import show

    name = "recommender-20260101-115626-0c4d"
    show("", ("run", "a", "b"), [(name, "word " * 20, "x" * 60)], empty="")
    assert name in capsys.readouterr().out


def test_facts_of_a_version_are_shown_as_people_read_them() -> None:
    from roblox_ml.cli._models import _plain

    tensors = [
        {"name": "X", "datatype": "FP32", "shape": [-1, 3]},
        {"name": "TEXT", "datatype": "BYTES", "shape": [-1]},
    ]
    assert _plain({"inputs": tensors, "outputs": []}) == "inputs: X FP32 [-1, 3], TEXT BYTES [-1]"
    assert _plain({"run": "r-1", "git": {"commit": "abc", "branch": None, "dirty": False}, "data": []}) == (
        "run: r-1\ngit:\n  commit: abc\n  dirty: False"
    )
    assert _plain(["champion", "canary"]) == "champion, canary"
