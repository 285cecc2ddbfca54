"""`prepare`: real capture, real locks; every finding of every part in one error; the same bytes for the same code."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from roblox_ml._graph.check import check_ir
from roblox_ml._graph.dump import load_ir
from roblox_ml._store import digest_of

GOOD = """
import roblox_ml as rml

FACTOR = 2

def helper(x: int) -> int:
    return FACTOR * x

@rml.step
def double(x: int) -> int:
    return helper(x)

@rml.step
def show(x: int) -> None:
    print(x)

@rml.pipeline(schedule="0 3 * * *", notify=rml.slack("#ml"))
def doubling(n: int, label: str = "x"):
    show(double(double(n)))
"""

WRONG = """
import roblox_ml as rml

def live():
    return 1

connection = open(__file__)

@rml.step
def reads() -> int:
    return len(connection.read())

@rml.step(memory="lots")
def unfinished(x: int) -> int:
    return undefined_name + x

@rml.pipeline
def wrong():
    n = reads()
    if n > 3:
        unfinished("three")
"""


def load(folder: Path, text: str, name: str):  # type: ignore[no-untyped-def]
    """A program as a module of its own, as an import makes it."""
    (folder / f"{name}.py").write_text(textwrap.dedent(text))
    sys.path.insert(0, str(folder))
    try:
        return __import__(name)
    finally:
        sys.path.remove(str(folder))


@pytest.fixture
def good(tmp_path: Path):  # type: ignore[no-untyped-def]
    yield load(tmp_path, GOOD, "good_program").doubling
    sys.modules.pop("good_program", None)


def test_everything_a_backend_needs(good) -> None:  # type: ignore[no-untyped-def]
    built = good.build({"n": 3})
    ir = load_ir(built.ir)
    assert check_ir(ir) == []
    assert (
        built.name == "doubling"
        and str(built.schedule) == "0 3 * * *"
        and str(built.notify[0]) == "slack #ml on failure"
    )
    assert built.arguments == {"n": 3}
    assert set(built.steps) == {"double", "show"}
    for digest, data in built.blobs.items():
        assert digest_of(data) == digest
    for step in built.steps.values():
        assert {step.sdk, step.code, step.lock} <= set(built.blobs)
    executors = ir["pipeline"]["deploymentSpec"]["executors"]
    assert executors["exec-double"]["container"]["args"][:8] == [
        *("--sdk", built.steps["double"].sdk, "--code", built.steps["double"].code),
        *("--lock", built.steps["double"].lock, "--entry", built.steps["double"].entry),
    ]
    assert b"helper" not in built.ir


def test_provenance_is_kept_and_not_in_the_ir(good) -> None:  # type: ignore[no-untyped-def]
    built = good.build()
    assert built.provenance["source"].endswith("good_program.py:17")
    assert set(built.provenance["git"]) >= {"commit", "branch", "dirty"}
    assert b"good_program.py" not in built.ir


def test_no_machine_path_and_no_store_in_the_ir(good, rml_home: Path) -> None:  # type: ignore[no-untyped-def]
    ir = load_ir(good.build().ir)
    # The bootstrap is a constant of the SDK and may know what URLs look like.
    for executor in ir["pipeline"]["deploymentSpec"]["executors"].values():
        del executor["container"]["command"]
    text = str(ir)
    assert str(rml_home) not in text and str(Path.home()) not in text and "file:" not in text


def test_compile_writes_the_built_bytes_whole(good, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    target = tmp_path / "deep" / "p.yaml"
    assert good.compile(target) == target
    assert target.read_bytes() == good.build().ir
    assert [p.name for p in target.parent.iterdir()] == ["p.yaml"]
    assert target.stat().st_mode & 0o444 == 0o444


def test_arguments_are_checked_with_everything_else(good) -> None:  # type: ignore[no-untyped-def]
    from roblox_ml.errors import GraphError

    with pytest.raises(GraphError) as caught:
        good.build({"m": 1, "label": 3})
    assert [f.code for f in caught.value.findings] == ["unknown-argument", "wrong-type", "missing-argument"]
    assert all(f.where.rpartition(":")[0].endswith("test_build.py") for f in caught.value.findings)


def test_all_findings_of_all_parts_in_one_error(tmp_path: Path) -> None:
    from roblox_ml.errors import PipelineError

    wrong = load(tmp_path, WRONG, "wrong_program").wrong
    try:
        with pytest.raises(PipelineError) as caught:
            wrong.build()
    finally:
        sys.modules.pop("wrong_program", None)
    findings = caught.value.findings
    lines = sorted(int(f.where.rpartition(":")[2]) for f in findings)
    assert {"bad-memory", "condition-in-python", "wrong-type"} < {f.code for f in findings}
    # The live object (line 7 or where it is used) and the unknown name (line 15) come from capture.
    assert len(findings) == 5
    assert any("connection" in f.message for f in findings) and any("undefined_name" in f.message for f in findings)
    assert lines[-2:] == [20, 21]
    assert "5 findings in pipeline 'wrong'" in str(caught.value)


def test_two_processes_with_other_hash_seeds_build_the_same(tmp_path: Path, rml_home: Path) -> None:
    (tmp_path / "program.py").write_text(
        textwrap.dedent(GOOD)
        + textwrap.dedent(
            """
            if __name__ == "__main__":
                import hashlib
                import program
                built = program.doubling.build()
                print(hashlib.sha256(built.ir).hexdigest(), *sorted(built.blobs))
            """
        )
    )
    answers = {
        subprocess.run(
            [sys.executable, "program.py"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONHASHSEED": seed, "RML_HOME": str(rml_home)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "99")
    }
    assert len(answers) == 1


def test_editing_one_step_changes_that_step_alone(tmp_path: Path) -> None:
    def built(name: str, text: str):  # type: ignore[no-untyped-def]
        try:
            return load(tmp_path, text, name).doubling.build()
        finally:
            sys.modules.pop(name, None)

    # Two modules of one folder: the step's bundle does not know the module's name.
    before = built("edit_before", GOOD)
    after = built("edit_after", GOOD.replace("print(x)", "print(x, x)"))
    assert before.steps["double"] == after.steps["double"]
    assert before.steps["show"].code != after.steps["show"].code


def test_steps_without_code_of_their_own(tmp_path: Path) -> None:
    import roblox_ml as rml

    (tmp_path / "a.csv").write_text("x\n1\n")
    rml.datasets.add("numbers", tmp_path / "a.csv")

    def only_data() -> None:
        rml.dataset("numbers")

    built = rml.pipeline(only_data).build()
    (step,) = built.steps.values()
    assert (step.code, step.lock) == ("none", "none")
    assert step.entry == "roblox_ml._runtime.system:load_dataset"
    assert list(built.blobs) == [step.sdk]
