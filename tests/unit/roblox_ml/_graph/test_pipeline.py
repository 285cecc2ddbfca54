"""The decorator and the pipeline object: names, schedules, notifications, pictures, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import roblox_ml as rml
from roblox_ml.errors import Finding, GraphError


@rml.step
def work(n: int = 1) -> int:
    return n


def body(n: int = 1) -> None:
    work(n)


def own(**asked: Any) -> list[Finding]:
    function = asked.pop("function", body)
    return rml.pipeline(**{"name": f"own-{len(asked)}", **asked})(function).trace()[1]


def test_the_name_is_the_functions_unless_given() -> None:
    def comment_Sentiment_() -> None:
        work()

    assert rml.pipeline(comment_Sentiment_).name == "comment-sentiment"
    assert rml.pipeline(name="other")(comment_Sentiment_).name == "other"


def test_schedule_and_notify_are_carried() -> None:
    pipeline = rml.pipeline(
        name="carried", schedule="0  3 * * *", notify=[rml.slack("#a"), rml.email("a@b.org", on="success")]
    )(body)
    assert pipeline.schedule is not None and pipeline.schedule.cron == "0 3 * * *"
    assert [str(n) for n in pipeline.notify] == ["slack #a on failure", "email a@b.org on success"]
    single = rml.pipeline(name="carried-2", notify=rml.webhook("https://example.com/x", on=("start", "failure")))(body)
    assert single.notify[0].to_json() == {
        "kind": "webhook",
        "target": "https://example.com/x",
        "on": ["start", "failure"],
    }


@pytest.mark.parametrize(
    ("asked", "code", "told"),
    [
        ({"schedule": "0 3 * *"}, "bad-schedule", "4 fields"),
        ({"schedule": 3}, "bad-schedule", "no text"),
        ({"notify": "#ml"}, "bad-notify", "'#ml'"),
        ({"name": "My Pipeline"}, "bad-name", "My Pipeline"),
        ({"cpu": 2}, "unknown-option", "'cpu'"),
        ({"scedule": "0 3 * * *"}, "unknown-option", "'scedule'"),
    ],
)
def test_wrong_options(asked: dict[str, Any], code: str, told: str) -> None:
    (finding,) = own(**asked)
    assert finding.code == code and told in finding.message
    assert finding.fix and "test_pipeline.py" in finding.where


def test_parameters_run_uses_itself_are_refused() -> None:
    def pipeline(wait: int = 1) -> None:
        work(wait)

    (finding,) = own(function=pipeline)
    assert finding.code == "reserved-parameter"


def test_two_functions_with_one_name_clash_and_a_redefinition_does_not() -> None:
    def one() -> None:
        work()

    def two() -> None:
        work()

    first = rml.pipeline(name="clash")(one)
    (finding,) = rml.pipeline(name="clash")(two).trace()[1]
    assert finding.code == "duplicate-pipeline" and "one and two" in finding.message
    again = rml.pipeline(name="again")(one)
    assert rml.pipeline(name="again")(one).trace()[1] == [] and again is not first


def test_only_functions_are_decorated() -> None:
    with pytest.raises(TypeError, match="int"):
        rml.pipeline(3)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="type"):
        rml.step(rml.Dataset)


def test_a_step_decorated_twice_keeps_one_function() -> None:
    twice = rml.step(cpu=2)(rml.step(memory="1Gi")(work.function))
    assert twice.function is work.function
    assert twice.asked == {"memory": "1Gi", "cpu": 2}


def test_text_and_picture() -> None:
    def shown(n: int = 1) -> None:
        first = work(n)
        with rml.when(first > 3):
            work(first)
        work.map([1, 2])

    pipeline = rml.pipeline(schedule="0 3 * * *", notify=rml.slack("#ml"))(shown)
    assert pipeline.graph.splitlines() == [
        "shown",
        "  work",
        "  work-3 ×n",
        "  when work.Output > 3  ← work",
        "    work-2",
    ]
    drawn = pipeline._repr_html_()
    assert drawn.count("<rect") == 3 and drawn.count("<path") == 1
    assert "schedule 0 3 * * *; slack #ml on failure" in drawn
    assert repr(pipeline) == "<rml.pipeline shown>"
    assert pipeline.parameters == {"n": {"type": "int", "default": 1}}


def test_a_picture_of_a_broken_pipeline_is_its_findings() -> None:
    def broken() -> None:
        work("<b>")

    pipeline = rml.pipeline(broken)
    assert "wrong-type" in pipeline._repr_html_() and "<b>" not in pipeline._repr_html_()
    with pytest.raises(GraphError, match="wrong-type"):
        _ = pipeline.graph


def test_a_long_chain_can_be_drawn() -> None:
    def chain(n: int = 1) -> None:
        for _ in range(1200):
            n = work(n)

    assert rml.pipeline(chain)._repr_html_().count("<rect") == 1200


@pytest.mark.parametrize("make", [lambda: rml.slack("ml"), lambda: rml.slack("#")], ids=["no #", "empty"])
def test_slack_channels(make: Any) -> None:
    with pytest.raises(ValueError, match="Slack channel"):
        make()


def test_addresses_and_states() -> None:
    for wrong in ("nobody", "a b@c.org", "a@localhost"):
        with pytest.raises(ValueError, match="mail address"):
            rml.email(wrong)
    for wrong in ("ftp://x", "example.com", "https://"):
        with pytest.raises(ValueError, match="http"):
            rml.webhook(wrong)
    with pytest.raises(ValueError, match="password"):
        rml.webhook("https://user:secret@example.com/")
    with pytest.raises(ValueError, match="start, success, failure, retry"):
        rml.slack("#ml", on="sometimes")
    with pytest.raises(ValueError, match="nothing"):
        rml.slack("#ml", on=())


def test_gates() -> None:
    assert rml.gate(f1=0.75, loss=rml.at_most(0.3)) == {"f1": {"min": 0.75}, "loss": {"max": 0.3}}
    with pytest.raises(ValueError, match="at least one"):
        rml.gate()
    for wrong in (True, "0.5", float("nan")):
        with pytest.raises(ValueError, match="f1"):
            rml.gate(f1=wrong)  # type: ignore[arg-type]


def test_outside_a_pipeline_a_dataset_is_the_local_one(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x\n1\n")
    rml.datasets.add("comments", tmp_path / "a.csv")
    data = rml.dataset("comments")
    assert (data.path / "a.csv").read_text() == "x\n1\n"
    assert data.metadata["version"] == 1


def test_outside_a_pipeline_register_asks_the_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr("roblox_ml.models.register", lambda model, **about: asked.update(about, model=model) or "v3")
    model = rml.Model("folder")
    assert rml.register(model, "m", gate=rml.gate(f1=0.5), origin="elsewhere") == "v3"
    assert asked == {
        "model": model,
        "name": "m",
        "metrics": None,
        "gate": {"f1": {"min": 0.5}},
        "alias": "champion",
        "tags": None,
        "origin": "elsewhere",
    }


def test_conditions_outside_a_pipeline_say_so() -> None:
    with pytest.raises(GraphError, match="outside a pipeline"), rml.when(True):
        raise AssertionError("not reached")
    with pytest.raises(GraphError, match=r"rml\.otherwise\(\) outside"), rml.otherwise():
        raise AssertionError("not reached")
