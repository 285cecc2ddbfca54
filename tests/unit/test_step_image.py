"""The step image's recipe: pinned like everything else, numeric user, and the base can be chosen."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1].parent
IMAGE = ROOT / "deploy" / "images" / "step"


def pins(text: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for block in re.findall(r"^(\S+==\S+) \\\n((?:    --hash=\S+(?: \\)?\n)+)", text, re.MULTILINE):
        found[block[0]] = set(re.findall(r"sha256:[0-9a-f]{64}", block[1]))
    return found


def test_the_image_s_pins_are_the_project_s() -> None:
    ours, all_of_them = pins((IMAGE / "uv.txt").read_text()), pins((ROOT / "requirements" / "platform.txt").read_text())
    assert ours and {name: all_of_them.get(name) for name in ours} == ours


def test_the_user_is_a_number_and_not_root() -> None:
    recipe = (IMAGE / "Containerfile").read_text()
    (user,) = re.findall(r"^USER (\S+)$", recipe, re.MULTILINE)
    assert re.fullmatch(r"[1-9]\d*:\d+", user)
    assert f"step:x:{user.split(':')[0]}:" in recipe
    assert recipe.index("ARG BASE=") < recipe.index("FROM ${BASE} AS tools") < recipe.rindex("FROM ${BASE}\n")
