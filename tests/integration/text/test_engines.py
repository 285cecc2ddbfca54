"""The three libraries that compute text models: the same logits, with and without company."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from roblox_ml_serving.backends.rml_text_engines import Engine, open_engine
from roblox_ml_serving.backends.rml_text_heads import softmax
from roblox_ml_serving.backends.rml_text_plan import TextPlan, read_plan


def opened(package: Any) -> tuple[TextPlan, dict[str, Engine]]:
    plan = read_plan((package.root / "model/text.json").read_bytes())
    return plan, {engine.runtime: open_engine(engine, package.root / "model", plan) for engine in plan.engines}


def rows(plan: TextPlan, count: int) -> list[np.ndarray]:
    random = np.random.default_rng(1)
    return [
        random.integers(5, 30, size=n).astype(np.int32) for n in random.integers(1, plan.max_length + 1, size=count)
    ]


@pytest.mark.parametrize("task", ["sequence", "token"])
def test_all_runtimes_agree_and_no_row_depends_on_its_company(tiny: Callable[..., Any], task: str) -> None:
    plan, engines = opened(tiny(task=task))
    assert set(engines) == {"openvino", "ctranslate2", "onnxruntime"}
    asked = rows(plan, 40)
    reference = engines["onnxruntime"].run(asked)
    # Random weights whose answers were all alike would prove nothing.
    assert np.ptp([line.reshape(-1, 3 if task == "sequence" else 4)[0].max() for line in reference]) > 0.1
    for engine in engines.values():
        together = engine.run(asked)
        for row, answer, expected in zip(asked, together, reference, strict=True):
            np.testing.assert_allclose(answer, expected, atol=1e-4)
            alone = engine.run([row])[0]
            np.testing.assert_allclose(softmax(answer), softmax(alone), atol=plan.engines[0].bound)


def test_a_folder_without_its_head_or_with_other_inputs_says_so(
    tiny: Callable[..., Any], packages: Any, tmp_path: Any
) -> None:
    import shutil

    package = tiny()
    plan = read_plan((package.root / "model/text.json").read_bytes())
    broken = tmp_path / "model"
    shutil.copytree(package.root / "model", broken)
    (broken / "engines/ctranslate2-fp32/head.npz").unlink()
    (broken / "engines/openvino-fp32/model.xml").write_text("<net/>")
    by_runtime = {engine.runtime: engine for engine in plan.engines}
    with pytest.raises(FileNotFoundError, match=r"head\.npz"):
        open_engine(by_runtime["ctranslate2"], broken, plan)
    with pytest.raises(RuntimeError):
        open_engine(by_runtime["openvino"], broken, plan)
