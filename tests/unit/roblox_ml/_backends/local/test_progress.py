"""What a run looks like: in a terminal, in a notebook, in a pipe; all from the record."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest

from roblox_ml._backends.local import progress
from roblox_ml._backends.local.record import EventLog, RunFolder
from roblox_ml._runs import Run


@pytest.fixture
def run(rml_home: Path) -> Run:
    """A run with a step of every kind, recorded by hand."""
    folder = RunFolder.create("sample-1", {"pipeline": "sample", "created": 0.0, "arguments": {}}, b"")
    log = EventLog(folder)
    outputs: dict[str, Any] = {"parameters": {"Output": 1}, "artifacts": {}}
    log.append("run_started", pid=1, identity="", tasks=["load", "train", "bad", "late", "after"])
    log.append("task_cached", task="load", key="k", source="r/load", outputs=outputs)
    for task in ("train", "bad"):
        log.append("task_started", task=task, attempt=1, pid=1, identity="", key="k")
    log.append("task_finished", task="bad", state="FAILED", exit=1, reason="exit code 1")
    log.append("task_skipped", task="after", reason="bad failed")
    log.close()
    folder.log("train").write_text("epoch 1\n 10%\r 50%\r[bold]<b>loss 0.5</b>")
    folder.log("bad").write_text("Traceback\nValueError: <no>\n")
    return Run(folder)


def test_html_escapes_and_shows_the_end_of_a_failed_log(run: Run) -> None:
    text = progress.as_html(run)
    assert "ValueError: &lt;no&gt;" in text and "<no>" not in text
    assert "loss 0.5" in text and "<b>loss" not in text and "cached" in text and "bad failed" in text


def test_a_terminal_table_takes_log_lines_literally(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    from rich.console import Console

    console = Console(width=160)
    with console.capture() as captured:
        console.print(progress._table(run))
    text = captured.get()
    assert "[bold]<b>loss 0.5</b>" in text and "✗ FAILED" in text and "· PENDING" in text


def test_a_pipe_gets_one_line_per_change(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    answers = iter([False, False, True])
    progress.watch(run, lambda _: next(answers))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "run sample-1"
    assert sum("bad FAILED" in line for line in lines) == 1
    assert not any("late" in line for line in lines)


def test_a_notebook_gets_one_display_that_is_updated(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []

    class Handle:
        def update(self, html: Any) -> None:
            shown.append(html.data)

    class ZMQInteractiveShell: ...

    import IPython.display

    monkeypatch.setattr(IPython.display, "display", lambda html, display_id: Handle())
    monkeypatch.setitem(
        sys.modules,
        "IPython",
        types.SimpleNamespace(get_ipython=lambda: ZMQInteractiveShell(), display=IPython.display),
    )
    answers = iter([False, True])
    progress.watch(run, lambda _: next(answers))
    assert len(shown) == 2 and "sample" in shown[-1]


def test_of_a_large_run_what_matters_is_shown(rml_home: Path) -> None:
    folder = RunFolder.create("large-1", {"pipeline": "large", "created": 0.0, "arguments": {}}, b"")
    log = EventLog(folder)
    log.append("run_started", pid=1, identity="", tasks=[f"t{n}" for n in range(100)])
    log.append("task_started", task="t99", attempt=1, pid=1, identity="", key="k")
    log.close()
    text = progress.as_html(Run(folder))
    assert "t99" in text and "and 60 more" in text
