"""What `rml.explain` tells of a step: every shipped line, every file and package, what stays behind, what stands in the way."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell

import roblox_ml as rml
from roblox_ml import _lock_history
from roblox_ml._capture import capture
from roblox_ml._explain import Explanation
from roblox_ml.errors import RmlSdkError

MODULE = """
import json

import roblox_ml as rml
from {helper} import area

RATE = 2
UNUSED = "<script>alert(1)</script>"
TABLE = {{}}
TABLE["a"] = 3
print("loaded <b>")


def scale(x):
    return x * RATE


def nobody(x):
    return x


@rml.step(system_packages=["libc6"])
def train(n: int) -> float:
    return scale(n) + area(1.0) + TABLE["a"]


client = open("/dev/null")


@rml.step
def bad(n: int) -> str:
    return client.read() + "<i>"


@rml.pipeline
def nightly():
    train(3)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import importlib

    stem = f"explained_{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{stem}_helper.py").write_text("import math\n\ndef area(r):\n    return math.pi * r * r\n")
    (tmp_path / f"{stem}.py").write_text(MODULE.format(helper=f"{stem}_helper"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    return importlib.import_module(stem)


def test_every_shipped_line_is_told_with_its_place_and_reason(module) -> None:
    told = rml.explain(module.train)
    slice_ = capture(module.train.function)
    shipped = [line for line in slice_.files["rml_step.py"].decode().splitlines() if line and not line.startswith("#")]
    assert [line.text for line in told.lines if line.text] == shipped
    assert all(re.fullmatch(rf"{module.__name__}\.py:\d+", line.where) and line.why for line in told.lines)
    text = Path(module.__file__).read_text().splitlines()
    for line in told.lines:
        assert text[int(line.where.rpartition(":")[2]) - 1] == line.text
    by_text = {line.text: line.why for line in told.lines}
    assert "`RATE`" in by_text["RATE = 2"] and "`scale`" in by_text["RATE = 2"]
    assert by_text['TABLE["a"] = 3'].startswith("changes `TABLE`")


def test_what_goes_along_and_what_stays_behind(module) -> None:
    told = rml.explain(module.train)
    assert [file.path for file in told.files] == [f"{module.__name__}_helper.py"]
    assert told.ships and len(told.bundle) == len(told.lock) == 64 and told.in_place
    assert told.system == ("libc6",) and told.packages == () and told.pins == 0
    left = {item.text: item.why for item in told.left_out}
    assert "`UNUSED`" in left['UNUSED = "<script>alert(1)</script>"'] and "`nobody`" in left["def nobody(x):"]
    assert left["def bad(n: int) -> str:"] == "another step" and "pipeline" in left["def nightly():"]
    assert not {line.text for line in told.lines} & left.keys(), "nothing is both in and out"


def test_packages_are_told_with_their_versions(module, tmp_path: Path, monkeypatch) -> None:
    import importlib
    from importlib.metadata import version

    name = f"{module.__name__}_two"
    (tmp_path / f"{name}.py").write_text("import iniconfig\n\ndef step():\n    return iniconfig.__name__\n")
    told = rml.explain(importlib.import_module(name).step)
    if not told.ships and any(finding.code == "index-unreachable" for finding in told.findings):
        pytest.skip(f"no package index answers: {told.findings[0]}")
    assert [(p.module, p.distribution, p.version) for p in told.packages] == [
        ("iniconfig", "iniconfig", version("iniconfig"))
    ]
    assert f"iniconfig=={version('iniconfig')}" in str(told) and told.pins == 1


def test_a_refusal_is_told_beside_its_line_and_does_not_raise(module) -> None:
    told = rml.explain(module.bad)
    assert not told.ships and [finding.code for finding in told.findings] == ["live-object"]
    (line,) = [line for line in told.lines if line.findings]
    assert line.text == 'client = open("/dev/null")' and line.where == told.findings[0].where
    assert any(line.text.startswith("def bad") for line in told.lines), "the step itself is shown"
    text = str(told)
    assert "cannot be shipped" in text and "✗" in text and told.findings[0].fix in text
    assert told.bundle == told.lock == ""


class _Checked(HTMLParser):
    """Balanced tags, nothing that loads or runs."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "img", "iframe", "object")
        assert not {name for name, _ in attrs} & {"src", "href", "onclick", "onload", "style"}
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("step", ["train", "bad"])
def test_the_page_is_whole_escaped_and_loads_nothing(module, step: str) -> None:
    told = rml.explain(getattr(module, step))
    page = told._repr_html_()
    parser = _Checked()
    parser.feed(page)
    assert not parser.open and "http" not in page and "url(" not in page
    for line in told.lines:
        assert line.text in parser.text
    assert "<script" not in page and ("<i>" not in page)
    assert "prefers-color-scheme" in page or "inherit" in page, "its colours come from the page around it"


def test_a_pipeline_is_not_a_step(module) -> None:
    with pytest.raises(RmlSdkError, match="step by step"):
        rml.explain(module.nightly)


def test_in_a_notebook_cells_are_named_and_repeated_ones_told_once(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    shell = InteractiveShell()
    shell.run_cell("", store_history=True)
    for cell in [
        "import roblox_ml as rml\n%who\nRATE = 3",
        "def helper(x):\n    return x * RATE",
        "def helper(x):\n    return x * RATE",
        "helper(2)\nplots = [1, 2]",
        "@rml.step\ndef train(n: int) -> int:\n    return helper(n)",
        "told = rml.explain(train)",
    ]:
        assert shell.run_cell(cell, store_history=True).success
    told = shell.user_ns["told"]
    assert isinstance(told, Explanation) and told.ships
    assert all(line.where.startswith("cell ") for line in told.lines)
    reasons = {item.text: item.why for item in told.left_out}
    assert "magic" in next(why for text, why in reasons.items() if "who" in text)
    assert reasons["helper(2)"].startswith("shows or does") and "`plots`" in reasons["plots = [1, 2]"]
    assert not any(text.startswith("def helper") for text in reasons), "it shipped, from one of its two executions"


def test_on_the_command_line(module, tmp_path: Path) -> None:
    def said(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "roblox_ml.cli", "explain", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=dict(os.environ))

    done = said(f"{module.__name__}:train")
    assert done.returncode == 0 and "RATE = 2" in done.stdout and "left out" in done.stdout, done.stderr
    file = said(f"{module.__name__}.py:bad", "--json")
    assert file.returncode == 1
    assert json.loads(file.stdout[file.stdout.index("[") :])[0]["findings"][0]["code"] == "live-object"
    assert said(f"{module.__name__}:nothing").returncode == 2
    assert said(f"{module.__name__}:train", "--html", "page.html").returncode == 0
    assert "color-scheme" in (tmp_path / "page.html").read_text()


def test_an_upgrade_since_the_last_run_is_told(monkeypatch) -> None:
    header = "# roblox-ml environment lock, schema 1\n# python 3.11\n# platform linux_x86_64\n"
    old, new = header + "numpy==1.0\nsix==1.0\n", header + "numpy==2.0\npolars==3.0\n"
    from roblox_ml._store import open_store

    digest = open_store().put(old.encode())
    last = _lock_history.LastRun("p-1", {"train": digest})
    (line,) = _lock_history.since(last, {"train": new, "other": new})
    assert line == "since run p-1: numpy 1.0 → 2.0, polars 3.0 is new, six 1.0 is gone"
    assert _lock_history.since(last, {"train": old}) == () == _lock_history.since(None, {"train": new})


def test_the_last_run_is_found_by_pipeline_and_by_step(module) -> None:
    assert _lock_history.last_run(pipeline="nightly") is None
    run = module.nightly.run(progress=False)
    told = rml.explain(module.train)
    found = _lock_history.last_run(step="train")
    assert found is not None and found.id == run.id and found.locks == {"train": told.lock}
    assert _lock_history.last_run(pipeline="nightly") == found and _lock_history.last_run(step="no_such") is None
    assert told.drift == ()


def test_the_guide_s_example_is_true(tmp_path: Path, monkeypatch) -> None:
    import importlib

    guide = Path(__file__).resolve().parents[3] / "docs" / "guides" / "explain.md"
    code = re.findall(r"^```python\n(.*?)^```", guide.read_text("utf-8"), re.S | re.M)[0]
    name = f"guide_{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    told = rml.explain(importlib.import_module(name).train)
    assert told.ships and "UNUSED = [1, 2, 3]" in [item.text for item in told.left_out]
