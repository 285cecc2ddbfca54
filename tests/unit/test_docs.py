"""The documentation is true as far as a test can tell: links lead somewhere, code compiles, the guide's pipeline builds."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*/*.md"), *ROOT.glob("requirements/*.md")]
)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
PATH = re.compile(r"`((?:roblox_ml|platform|serving|tests|examples|scripts|docs|benchmarks)/[\w./-]*)`")


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), re.S | re.M)


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_paths_lead_somewhere(page: Path) -> None:
    text = page.read_text("utf-8")
    missing = []
    for target in LINK.findall(text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        linked = page.parent / file if file else page
        if not linked.exists() or (anchor and anchor not in anchors(linked)):
            missing.append(target)
    missing += [path for path in PATH.findall(text) if not (ROOT / path).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_compiles_and_data_parses(page: Path) -> None:
    for number, code in enumerate(blocks(page, "python"), 1):
        compile(code, f"{page.name}, python block {number}", "exec")
    for code in blocks(page, "json"):
        json.loads(code)
    for code in blocks(page, "yaml"):
        yaml.safe_load(code)
    for code in blocks(page, "sh"):
        subprocess.run(["bash", "-n"], input=code, text=True, check=True)


def test_the_guide_s_pipeline_builds(tmp_path: Path) -> None:
    from roblox_ml.cli._load import load_pipeline

    (code,) = blocks(ROOT / "docs" / "guides" / "first-pipeline.md", "python")
    (tmp_path / "churn.py").write_text(code)
    built = load_pipeline(f"{tmp_path / 'churn.py'}:churn").build({"depth": 6})
    assert b"name: churn" in built.ir and built.arguments == {"depth": 6}


def test_readme_names_every_command() -> None:
    from roblox_ml.cli import app

    readme = (ROOT / "README.md").read_text("utf-8")
    section = readme.partition("## The command line")[2].partition("```\n")[2].partition("```")[0]
    assert [name for name in get_command(app).commands if not re.search(rf"\b{name}\b", section)] == []
