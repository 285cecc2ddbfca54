"""The figures of the text benchmark that are made of other figures."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.text.__main__ import f1_keys, targets
from benchmarks.text.soak import growth


def test_the_worst_model_is_the_drop_that_counts_and_entities_stand_apart() -> None:
    proofs = {
        "a": {"f1_drop": -0.001, "f1_drop_high": 0.002},
        "b": {"f1_drop": 0.003, "f1_drop_high": 0.006},
        "e": {"f1_drop": 0.1, "f1_drop_high": 0.2},
    }
    models = [SimpleNamespace(name=name, task="token" if name == "e" else "sequence") for name in proofs]
    keys = f1_keys(models, proofs)
    assert keys["macro_f1_drop"] == 0.003 and keys["macro_f1_drop_a_high"] == 0.002
    assert keys["entity_f1_drop"] == 0.1 and "macro_f1_drop_e" not in keys


def test_a_target_is_met_from_its_own_side() -> None:
    rows = {cells[0]: cells[-1] for cells in targets({"p99_ms_served": 21.0, "inferences_per_s_core": 400.0})[2]}
    assert rows == {"inferences_per_s_core": "yes", "p99_ms_served": "no"}


def test_memory_is_flat_when_it_stopped_growing() -> None:
    early = [{"door": 100 + 10 * i} for i in range(10)]
    assert growth([*early, *[{"door": 190}] * 10])["door"] == 0.0
    assert growth([{"door": 100 * (i + 1)} for i in range(20)])["door"] == pytest.approx(5 / 13)


def test_the_page_of_the_contract_names_every_figure() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "formats" / "benchmark.md").read_text("utf-8")
    from benchmarks.text.__main__ import TARGETS

    assert [key for key in TARGETS if f"`{key}`" not in page] == []
