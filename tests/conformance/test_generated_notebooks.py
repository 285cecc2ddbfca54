"""The promise of capture, on notebooks nobody wrote: a fresh process gives what the kernel gives, or capture refuses rightly."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

_FOLDER = Path(__file__).with_name("notebooks")


def _load(name: str, alias: str) -> Any:
    spec = importlib.util.spec_from_file_location(alias, _FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[alias] = module
    spec.loader.exec_module(module)
    return module


generator = _load("generator", "notebook_generator")
player = _load("play", "notebook_player")
SEEDS = [int(seed) for seed in os.environ.get("RML_NOTEBOOK_SEEDS", "").split(",") if seed] or list(range(1, 201))
HEAVY_EVERY = 20


@pytest.mark.slow
def test_fresh_process_equals_kernel_or_capture_names_the_cell(tmp_path, capsys):
    notebooks = [generator.notebook(seed, heavy=seed % HEAVY_EVERY == 0) for seed in SEEDS]
    outcomes = player.play(notebooks, tmp_path)
    verdicts = Counter(outcome.verdict for outcome in outcomes)
    owed = [outcome for outcome in outcomes if outcome.owed]
    refused = [outcome for outcome in owed if outcome.verdict == "refused"]
    with capsys.disabled():
        print(f"\nseeds {SEEDS[0]}..{SEEDS[-1]}: {dict(verdicts)}")
        print(f"silent differences: {verdicts['SILENT DIFFERENCE']} of {len(outcomes)}")
        print(
            f"refused without a construct that may be: {len(refused)} of {len(owed)}, seeds {[o.seed for o in refused]}"
        )
    wrong = [outcome for outcome in outcomes if outcome.verdict not in ("same", "refused")]
    assert not wrong, "\n\n".join(f"{o.verdict}\n{o.detail}" for o in wrong[:3])
    assert len(refused) <= len(owed) / 10, "\n\n".join(o.detail for o in refused[:3])


def test_every_construct_is_drawn():
    drawn = {
        t.name for seed in range(1, 201) for t in generator.notebook(seed, heavy=seed % HEAVY_EVERY == 0).templates
    }
    missing = {template.name for template in generator.templates()} - drawn
    assert not missing
