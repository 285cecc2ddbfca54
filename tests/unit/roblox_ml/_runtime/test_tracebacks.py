"""A failing step's traceback: the user's lines, by the cell they came from."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from roblox_ml._runtime import tracebacks

SOURCE = """\
def helper(n):
    return 1 / n

def step():
    try:
        helper(0)
    except ZeroDivisionError as error:
        raise ValueError('no') from error
"""


def fail(folder: Path) -> BaseException:
    path = folder / "rml_step_traced.py"
    path.write_text(SOURCE)
    sys.path.insert(0, str(folder))
    try:
        import rml_step_traced  # type: ignore[import-not-found]

        rml_step_traced.step()
    except ValueError as error:
        return error
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop("rml_step_traced", None)
    raise AssertionError


def test_lines_are_named_by_their_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "code"
    folder.mkdir()
    lines = {"rml_step_traced.py": {"2": "cell 1, line 2", "6": "cell 3, line 9", "8": "train.py:8"}}
    (tmp_path / "lines.json").write_text(json.dumps(lines))
    monkeypatch.setenv("RML_LINES", str(tmp_path / "lines.json"))
    text = tracebacks.render(fail(folder), folder)
    assert "  cell 1, line 2, in helper\n    return 1 / n\n           ~~^~~\n" in text
    assert "  cell 3, line 9, in step" in text
    assert 'File "train.py", line 8, in step' in text
    assert "direct cause" in text and text.endswith("ValueError: no")
    assert str(folder) not in text


def test_without_a_map_the_shipped_file_is_named(tmp_path: Path) -> None:
    text = tracebacks.render(fail(tmp_path), tmp_path)
    assert 'File "rml_step_traced.py", line 2, in helper' in text


def test_our_own_frames_are_left_out(tmp_path: Path) -> None:
    from roblox_ml._runtime import values

    try:
        values.to_json(object(), "x")
    except TypeError as error:
        text = tracebacks.render(error, None)
    assert "_runtime/values.py" not in text and "x is a builtins.object" in text


def test_an_error_that_explains_itself_shows_no_frame_of_the_sdk() -> None:
    import roblox_ml as rml
    from roblox_ml.errors import PackageError

    try:
        rml.Model.from_python(len, examples=[1])
    except PackageError as error:
        text = tracebacks.render(error, None)
    assert "rml.Model.from_python(len, examples=[1])" in text and "examples=: a function needs" in text
    assert "_artifacts.py" not in text and "_packaging" not in text


def test_an_error_nobody_foresaw_keeps_the_frames_of_the_sdk() -> None:
    import roblox_ml as rml

    try:
        rml.Dataset.from_pandas(3)  # type: ignore[arg-type]
    except TypeError as error:
        text = tracebacks.render(error, None)
    assert "_artifacts.py" in text
