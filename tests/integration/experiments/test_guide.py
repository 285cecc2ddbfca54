"""The guide's examples run as they stand, and cards are kept with the run, also of failed and cached steps."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import roblox_ml as rml
from roblox_ml.cli import app
from roblox_ml.errors import RunFailed

GUIDE = Path(__file__).resolve().parents[3] / "docs/guides/experiments.md"


def module_of(code: str, name: str, folder: Path) -> Any:
    (folder / f"{name}.py").write_text(code)
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def test_the_guide_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sweeping, comparing = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text("utf-8"), re.S | re.M)
    sweep = module_of(sweeping, "guide_sweep", tmp_path).search(trials=4)
    assert len(sweep.trials) == 4 and sweep.best_run.cards["evaluate"].html.count("<dt>f1</dt>") == 1
    first, second = (t.run for t in [t for t in sweep.ranked() if t.value is not None][:2])
    page = module_of(comparing, "guide_compare", tmp_path).compared(first, second)
    assert "Same code, packages and data" in page.read_text()

    def rml_(*words: str) -> str:
        done = CliRunner().invoke(app, list(words))
        assert done.exit_code == 0, done.output
        return done.output

    assert "tune-lr" in rml_("sweeps") and "4 of 4 trials" in rml_("sweeps", "show", "tune-lr")
    assert "5 of 5 trials" in rml_("sweeps", "resume", "tune-lr", "--trials", "5")
    assert "evaluate.f1" in rml_("compare", first, second) and "same in both" in rml_(
        "compare", first, second, "--diff", "train"
    )
    assert rml_("runs", "card", first, "evaluate").strip().endswith("card.html")


EDITED = """
import roblox_ml as rml

@rml.step
def shown(n: int) -> int:
    rml.card("Shown").metric("n", n{edit}).table([{{"n": n}}])
    if n > 5:
        raise ValueError("<b>too much</b>")
    return n{edit}

@rml.step
def after(n: int) -> rml.Metrics:
    return rml.Metrics(n=n)

@rml.pipeline
def edited(n: int = 1):
    after(shown(n))
"""


def test_what_was_edited_is_named_and_shown(tmp_path: Path) -> None:
    before = module_of(EDITED.format(edit=""), "edited", tmp_path).edited
    first, again = before.run(n=2, progress=False), before.run(n=2, progress=False)
    assert again.tasks["shown"].cached and again.cards["shown"].path == first.cards["shown"].path
    second = module_of(EDITED.format(edit=" + 1"), "edited", tmp_path).edited.run(n=2, progress=False)
    compared = rml.compare(first, second)
    said = "\n".join(compared.differences)
    assert "code of shown" in said and "code of after" not in said and "packages" not in said
    assert compared.metrics == ["shown", "after.n"] and compared.table()[1]["after.n"] == 3
    diff = compared.diff("shown")
    assert "-    return n\n" in diff and "+    return n + 1\n" in diff
    assert compared.diff("after") == ""
    assert "code of shown" in str(compared) and "code of shown" in compared._repr_html_()
    with pytest.raises(RunFailed) as caught:
        sys.modules["edited"].edited.run(n=7, progress=False)
    failed = caught.value.run.cards["shown"].html
    assert "The step failed" in failed and "&lt;b&gt;too much" in failed and "<dt>n</dt><dd>8</dd>" in failed
    with pytest.raises(KeyError, match="there are cards of: shown"):
        _ = first.cards["after"]
