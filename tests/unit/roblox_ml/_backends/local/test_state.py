"""The fold over events: any prefix of a valid log is a consistent state, and folding in pieces changes nothing."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from roblox_ml._backends.local.state import DONE, TERMINAL, RunState, apply, fold

NAMES = ["a", "b", "c[0]", "c[1]"]


@st.composite
def logs(draw: st.DrawFn) -> list[dict[str, Any]]:
    """A log as the executor writes it: executions, each with tasks that start, are retried, end, are cached or skipped."""
    events: list[dict[str, Any]] = []
    done: set[str] = set()

    def add(kind: str, **fields: Any) -> None:
        events.append({"seq": len(events) + 1, "time": float(len(events)), "event": kind, **fields})

    attempts = dict.fromkeys(NAMES, 0)
    for _ in range(draw(st.integers(1, 3))):
        add("run_started", pid=1, identity="x", tasks=NAMES[:2])
        add("loop_started", task="c", count=2, tasks=NAMES[2:])
        running: set[str] = set()
        waiting = [name for name in NAMES if name not in done]
        failed = False
        while waiting or running:
            if draw(st.integers(0, 9)) == 0:
                break  # killed
            name = draw(st.sampled_from(sorted({*waiting, *running})))
            if name in running:
                running.discard(name)
                end = draw(st.sampled_from(["SUCCEEDED", "FAILED", "CANCELLED", "retry"]))
                if end == "retry":
                    add("task_retrying", task=name, exit=1, reason="r", delay=0.1)
                    waiting.append(name)
                else:
                    outputs = {"parameters": {}, "artifacts": {}} if end == "SUCCEEDED" else None
                    add("task_finished", task=name, state=end, exit=0, reason="", outputs=outputs)
                    done |= {name} if end == "SUCCEEDED" else set()
                    failed |= end != "SUCCEEDED"
                continue
            waiting.remove(name)
            how = draw(st.sampled_from(["start", "start", "cache", "skip"]))
            if how == "start":
                attempts[name] += 1
                add("task_started", task=name, attempt=attempts[name], pid=7, identity="i", key="k")
                running.add(name)
            elif how == "cache":
                add("task_cached", task=name, key="k", source="r/t", outputs={"parameters": {}, "artifacts": {}})
                done.add(name)
            else:
                add("task_skipped", task=name, reason="upstream")
        else:
            add("run_finished", state="FAILED" if failed else "SUCCEEDED", reason="", outputs={})
    return events


@given(logs(), st.data())
def test_any_prefix_folds_to_a_consistent_state(events: list[dict[str, Any]], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(events)))
    state = fold(events[:cut])
    assert state.seq == cut
    for name, task in state.tasks.items():
        assert task.name == name
        assert (task.outputs is not None) == (task.state in DONE)
        if task.state == "RUNNING":
            assert task.attempts and task.attempts[-1].finished is None
        if task.state in TERMINAL and task.attempts and not task.attempts[-1].reason:
            assert task.state in ("SKIPPED", "CACHED") or task.attempts[-1].finished is not None
    if state.state in ("SUCCEEDED", "FAILED"):
        assert state.finished is not None
        assert all(task.state in TERMINAL for task in state.tasks.values())


@given(logs(), st.data())
def test_folding_in_two_pieces_is_folding_at_once(events: list[dict[str, Any]], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(events)))
    state = fold(events[:cut])
    for event in events[cut:]:
        apply(state, event)
    assert state == fold(events)


@given(logs())
def test_what_is_done_is_never_undone_by_a_retry(events: list[dict[str, Any]]) -> None:
    state = RunState()
    done: set[str] = set()
    for event in events:
        apply(state, event)
        if event["event"] == "run_started":
            assert done <= {name for name, task in state.tasks.items() if task.state in DONE}
        done = {name for name, task in state.tasks.items() if task.state in DONE}


def test_an_event_of_a_later_version_is_passed_over() -> None:
    started = {"seq": 1, "time": 0.0, "event": "run_started", "pid": 1, "identity": "", "tasks": ["a"]}
    later = {"seq": 2, "time": 1.0, "event": "task_paused", "task": "a"}
    state = fold([started, later, {"seq": 3, "time": 1.0, "event": "weather_changed"}])
    assert state.seq == 3 and state.tasks["a"].state == "PENDING"
