"""Imports that a step has without saying so."""

from __future__ import annotations

import pytest

from roblox_ml._packaging._needs import implied_imports

CASES = [
    (b"def f(data):\n    return data.to_pandas()", {"pandas", "pyarrow"}),
    (b"import pandas as pd\nx = pd.read_parquet('x')", {"pyarrow"}),
    (b"m = rml.Model.from_sklearn(e, examples=X)", {"numpy", "sklearn", "skops"}),
    (b"def to_pandas(): ...\nx = 'to_pandas'", set()),
]


@pytest.mark.parametrize(("source", "wanted"), CASES)
def test_methods_bring_what_they_import(source: bytes, wanted: set[str]) -> None:
    assert implied_imports({"rml_step.py": source, "data/notes.txt": b"not python ("}) == wanted


def test_what_is_not_installed_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from roblox_ml._packaging import _needs

    monkeypatch.setattr(_needs, "find_spec", lambda name: None if name == "pyarrow" else object())
    assert implied_imports({"step.py": b"x.to_pandas()"}) == {"pandas"}
