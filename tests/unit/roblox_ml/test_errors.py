"""Errors say what, where, why and what to type; a pipeline's error holds all of its findings."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from roblox_ml import errors
from roblox_ml.errors import CaptureError, Finding, GraphError, PipelineError, RmlSdkError, RunFailed

ONE = Finding(
    "wrong-type",
    "train(data=…) is rml.Dataset",
    "cell 3, line 2",
    "types must agree",
    "pass a dataset",
    "train(3)\n^^^^^^^^",
)
TWO = Finding("cycle", "these wait for one another", "p.py:4", "", "")


def test_a_finding_reads_from_the_place_to_the_fix() -> None:
    assert str(ONE) == (
        "cell 3, line 2: train(data=…) is rml.Dataset [wrong-type]\n"
        "    train(3)\n    ^^^^^^^^\n"
        "  why: types must agree\n  fix: pass a dataset"
    )
    assert str(TWO) == "p.py:4: these wait for one another [cycle]"


def test_one_finding_is_the_message_and_several_are_numbered() -> None:
    assert str(GraphError(ONE)) == str(ONE)
    text = str(PipelineError([ONE, TWO], subject="pipeline 'p'"))
    assert text.startswith("2 findings in pipeline 'p'\n\n1. cell 3")
    assert f"2. {TWO}" in text


def test_a_notebook_shows_the_findings_and_no_frames() -> None:
    assert CaptureError([ONE])._render_traceback_() == [f"CaptureError: {ONE}"]


def test_plain_errors_say_why_and_what_to_do() -> None:
    error = RmlSdkError("it broke", where="cell 1", why="because", fix="do this")
    assert str(error) == "cell 1: it broke\n  why: because\n  fix: do this"


def test_a_failed_run_is_attached() -> None:
    run = object()
    assert RunFailed("train failed", run=run).run is run


@pytest.mark.parametrize("name", [n for n in errors.__all__ if n not in ("Finding", "RmlSdkError")])
def test_every_error_is_in_the_tree_and_in_its_picture(name: str) -> None:
    kind = getattr(errors, name)
    assert issubclass(kind, RmlSdkError)
    assert name in (errors.__doc__ or "")


def test_the_exports_are_the_classes() -> None:
    classes = {n for n, v in vars(errors).items() if inspect.isclass(v) and v.__module__ == errors.__name__}
    assert set(errors.__all__) == classes


def test_a_notebook_shows_the_user_s_frames_and_none_of_ours(tmp_path: Path) -> None:
    import roblox_ml as rml

    path = tmp_path / "mine.py"
    path.write_text("def look(rml):\n    return rml.get_run('no-such-run')\n")
    namespace: dict[str, Any] = {}
    exec(compile(path.read_text(), str(path), "exec"), namespace)
    with pytest.raises(errors.RunNotFound) as caught:
        namespace["look"](rml)
    text = "\n".join(caught.value._render_traceback_())
    assert "mine.py:2, in look\n    return rml.get_run('no-such-run')" in text
    assert "RunNotFound: there is no run 'no-such-run'" in text and "_runs.py" not in text and "_backends" not in text
