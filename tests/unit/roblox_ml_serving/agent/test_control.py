"""The conversations with the control plane: an absent one stops nothing, and the last wishes survive on disk."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from roblox_ml_core.errors import Unavailable
from roblox_ml_core.registry import DesiredModel, DesiredModels, ModelState
from roblox_ml_serving.agent.control import Reporter, Wishes

MODEL = DesiredModel("a", 3, "d" * 64, {"model/x": {"sha256": "e" * 64, "size": 5}})


class FakeClient:
    """Answers from a script: a value is an answer, an exception is raised; then it waits until it is asked to end."""

    def __init__(self, *script: Any) -> None:
        self.script = list(script)
        self.asked: list[tuple[int | None, float]] = []
        self.reports: list[tuple[ModelState, ...]] = []
        self.idle = threading.Event()

    def desired(self, server: str, after: int | None = None, wait: float = 0.0, role: str = "general") -> DesiredModels:
        self.asked.append((after, wait))
        if not self.script:
            self.idle.set()
            time.sleep(0.05)
            return DesiredModels(after or 0, self.last)
        answer = self.script.pop(0)
        if isinstance(answer, Exception):
            raise answer
        self.last = answer.models
        return answer

    def report(self, server: str, http: str, grpc: str, models: Any) -> None:
        if self.script and isinstance(failure := self.script.pop(0), Exception):
            raise failure
        self.reports.append(tuple(models))


def run_wishes(client: FakeClient, path: Path, changed: Callable[[], None] = lambda: None) -> Wishes:
    wishes = Wishes(client, "local", path, 20.0, changed)  # type: ignore[arg-type]
    wishes.start()
    assert client.idle.wait(10)
    wishes.stop()
    wishes.join(10)
    return wishes


def test_wishes_are_taken_kept_on_disk_and_announced_once(tmp_path: Path) -> None:
    news: list[int] = []
    client = FakeClient(DesiredModels(4, (MODEL,)), DesiredModels(5, (MODEL,)))
    wishes = run_wishes(client, tmp_path / "desired.json", lambda: news.append(1))
    assert wishes.models == (MODEL,)
    assert wishes.confirmed
    assert news == [1]
    assert [after for after, _ in client.asked[:3]] == [None, 4, 5]
    # The first question does not wait: an agent that starts wants to know now.
    assert [wait for _, wait in client.asked[:2]] == [0.0, 20.0]
    again = Wishes(FakeClient(), "local", tmp_path / "desired.json", 1.0, lambda: None)  # type: ignore[arg-type]
    assert again.models == (MODEL,)
    assert not again.confirmed


def test_an_absent_control_plane_leaves_the_last_wishes(tmp_path: Path) -> None:
    client = FakeClient(DesiredModels(4, (MODEL,)), Unavailable("away"), DesiredModels(1, ()))
    wishes = run_wishes(client, tmp_path / "desired.json")
    # After a failure it asks from the beginning: the control plane may have been restored and count anew.
    assert [after for after, _ in client.asked[:3]] == [None, 4, None]
    assert wishes.models == ()


@pytest.mark.parametrize("text", ["", "{", "[]", '[{"model": "a"}]'])
def test_a_damaged_file_is_no_wish(tmp_path: Path, text: str) -> None:
    path = tmp_path / "desired.json"
    path.write_text(text)
    assert Wishes(FakeClient(), "local", path, 1.0, lambda: None).models == ()  # type: ignore[arg-type]


def test_a_change_is_reported_at_once_and_an_undelivered_report_again() -> None:
    state = ["loading"]
    client = FakeClient(Unavailable("away"))
    reporter = Reporter(client, "local", "h", "g", 60.0, lambda: [ModelState("a", 3, "d", state[0])])  # type: ignore[arg-type]
    reporter.start()

    def reported(word: str) -> bool:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            if client.reports and client.reports[-1][0].state == word:
                return True
            time.sleep(0.01)
        return False

    assert reported("loading")
    state[0] = "ready"
    reporter.changed()
    assert reported("ready")
    count = len(client.reports)
    reporter.changed()  # nothing is different: no report
    reporter.stop()
    reporter.join(10)
    assert len(client.reports) == count
