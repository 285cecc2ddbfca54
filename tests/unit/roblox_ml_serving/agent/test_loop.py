"""When a look at Triton says that nothing is there any more, and when only that it is late."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from roblox_ml_core.errors import Unavailable
from roblox_ml_core.settings import AgentSettings, HomeSettings, TritonSettings
from roblox_ml_serving.agent.loop import SLOW_LOOKS, Agent
from roblox_ml_serving.agent.triton import Slow


class FakeTriton:
    """Answers, is late, or is gone, as the test says."""

    def __init__(self) -> None:
        self.fault: Exception | None = None

    def loaded(self) -> dict[Any, str]:
        if self.fault is not None:
            raise self.fault
        return {}


@pytest.fixture
def looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`looks(fault, …)`: one round each; how often the ledger was told that Triton is down."""
    agent = Agent(AgentSettings(), TritonSettings(), HomeSettings(home=tmp_path), lambda: None)  # type: ignore[arg-type,return-value]
    triton = FakeTriton()
    down: list[bool] = []
    monkeypatch.setattr(agent, "_triton", triton)
    monkeypatch.setattr(agent.ledger, "down", lambda: bool(down.append(True)))

    def look(*faults: Exception | None) -> int:
        down.clear()
        with ThreadPoolExecutor(1) as pool:
            for triton.fault in faults:
                agent.round(pool)
        return len(down)

    return look


def test_a_few_late_answers_take_nothing_out_of_service(looks: Any) -> None:
    late = [Slow("late")] * SLOW_LOOKS
    assert looks(*late, None, *late, None) == 0
    assert looks(*late, Slow("late")) == 1


def test_a_triton_that_is_gone_is_believed_at_once(looks: Any) -> None:
    assert looks(Unavailable("refused")) == 1
    assert looks(None, Slow("late"), Unavailable("refused")) == 1
