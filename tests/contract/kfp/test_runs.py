"""A run on Kubeflow, from PENDING to its end: states, steps, logs, why it failed, outputs, wait, cancel, retry."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import roblox_ml as rml
from roblox_ml._backends.kfp import submit
from roblox_ml._backends.kfp.logs import REPORT
from roblox_ml._run_protocol import AnyRun
from roblox_ml.errors import RmlSdkError, RunError, RunFailed, RunNotFound, SubmitError

sys.path.insert(0, str(Path(__file__).parent))
from support import built


class Split(NamedTuple):
    train: rml.Dataset
    rows: int


@rml.step
def split(n: int) -> Split: ...


@rml.step(retries=2)
def train(data: rml.Dataset) -> rml.Metrics: ...


@rml.step
def probe(x: int, data: rml.Dataset) -> int: ...


def training(n: int = 3) -> None:
    parts = split(n)
    train(parts.train)
    probe.map([10, 20], data=parts.train)


def sent(server: Any, **options: Any) -> tuple[Any, Any]:
    run = submit(built(training, n=3), host=server.url, **options)
    return run, server.state.runs[run.id]


def artifact(engine: Any, task: str, name: str, **metadata: Any) -> dict[str, Any]:
    """As the launcher and our executor leave one behind."""
    folder = engine.folder(task) / name
    folder.mkdir(parents=True)
    (folder / "part.txt").write_text("rows")
    return {"name": name, "uri": folder.as_uri(), "metadata": metadata}


def test_states_steps_and_times_from_beginning_to_end(server: Any) -> None:
    run, engine = sent(server)
    assert isinstance(run, AnyRun)
    assert (run.state, run.duration, run.error, run.pipeline) == ("PENDING", None, "", "training")
    assert {t.name: t.state for t in run.tasks.values()} == {"split": "PENDING", "train": "PENDING", "probe": "PENDING"}
    engine.report("split", "RUNNING")
    assert run.state == "RUNNING" and run.tasks["split"].state == "RUNNING"
    assert run.duration is not None and run.tasks["split"].attempts == 1
    engine.report("split", "SUCCEEDED")
    for index in range(2):
        engine.report(f"probe[{index}]", "SUCCEEDED")
    engine.report("train", "SUCCEEDED")
    engine.end("SUCCEEDED")
    assert list(run.tasks) == ["split", "probe[0]", "probe[1]", "train"]
    assert {t.state for t in run.tasks.values()} == {"SUCCEEDED"}
    assert run.wait() is run


def test_a_failed_step_says_why_and_the_rest_was_skipped(kept_server: Any) -> None:
    run, engine = sent(kept_server)
    engine.report("split", "RUNNING")
    trace = "loading\nTraceback (most recent call last):\n  cell 3, line 2\nValueError: no column 'text'\n"
    engine.log("split", trace)
    engine.report("split", "FAILED")
    engine.end("FAILED")
    task = run.tasks["split"]
    assert (task.state, task.error) == ("FAILED", "ValueError: no column 'text'")
    assert run.tasks["train"].state == "SKIPPED"
    assert run.error == "step split: ValueError: no column 'text'"
    assert run.logs("split") == trace
    with pytest.raises(RunFailed, match="no column 'text'") as caught:
        run.wait()
    assert caught.value.run is run and "cell 3, line 2" in str(caught.value) and run.url in str(caught.value)
    assert "no column" in run._repr_html_()


def test_the_servers_own_word_on_a_failure_goes_first(server: Any) -> None:
    run, engine = sent(server)
    engine.report("split", "FAILED", error="OOMKilled")
    engine.end("FAILED")
    assert run.tasks["split"].error == "OOMKilled"


def test_a_log_comes_from_whoever_has_it(kept_server: Any) -> None:
    run, engine = sent(kept_server)
    engine.report("split", "RUNNING")
    engine.log("split", "from the pod\n", kept=False)
    assert run.logs("split") == "from the pod\n"
    engine.pods.clear()
    with pytest.raises(RunError, match="nobody has the log") as caught:
        run.logs("split")
    assert "Failed to read logs from archive" in str(
        caught.value
    )  # what the server said, though it said it with status 200
    folder = engine.folder("split")
    folder.mkdir(parents=True)
    (folder / "executor-logs").write_text("from the store\n")
    run._connection.pipeline_root = kept_server.state.artifacts.as_uri()
    assert run.logs("split") == "from the store\n"
    with pytest.raises(RunNotFound, match="did you mean 'split'"):
        run.logs("splitt")


def test_each_of_a_fanned_out_step_has_its_log_in_the_store(kept_server: Any) -> None:
    run, engine = sent(kept_server)
    run._connection.pipeline_root = kept_server.state.artifacts.as_uri()
    for index in range(2):
        engine.log(f"probe[{index}]", f"item {index}\n")
        engine.report(f"probe[{index}]", "SUCCEEDED")
    engine.pods.clear()
    text = run.logs("probe")
    assert text.startswith("=== probe[0] ===\n") and "item 0" in text and "item 1" in text


def test_the_iterations_of_a_loop_come_in_their_own_order_and_not_in_that_of_their_ends(kept_server: Any) -> None:
    run, engine = sent(kept_server)
    run._connection.pipeline_root = kept_server.state.artifacts.as_uri()
    count = 12
    for place, index in enumerate(reversed(range(count))):  # the last item begins and ends first
        task = f"probe[{index}]"
        made = {"parameterValues": {"Output": 100 + index}, "pod": engine.pod(task)}
        engine.log(task, f"item {index}\n{REPORT}{json.dumps(made)}\n")
        kept = engine.folder(task) / "executor-logs"
        os.utime(kept, (1_000_000_000 + place, 1_000_000_000 + place))
        engine.report(task, "SUCCEEDED")
        engine.steps[task].started = engine.steps[task].finished = f"2026-01-01T00:00:{place:02}Z"
    assert [name for name in run.tasks if name.startswith("probe")] == [f"probe[{index}]" for index in range(count)]
    for _ in ("its pod", "the object store"):
        assert run.outputs["probe"] == [100 + index for index in range(count)]
        assert run.outputs["probe[3]"] == 103 and run.logs("probe[3]") == "item 3\n"
        engine.pods.clear()


def test_an_iteration_keeps_its_index_while_others_have_not_begun(server: Any) -> None:
    run, engine = sent(server)
    engine.report("probe[2]", "RUNNING")
    engine.report("probe[0]", "SUCCEEDED")
    engine.report("probe[1]", "")
    states = {name: task.state for name, task in run.tasks.items() if name.startswith("probe")}
    assert states == {"probe[0]": "SUCCEEDED", "probe[1]": "PENDING", "probe[2]": "RUNNING"}


def test_following_a_log_ends_with_the_step(server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run, engine = sent(server)
    engine.report("split", "RUNNING")
    engine.log("split", "one\n")

    def later() -> None:
        engine.log("split", "one\ntwo\n")
        engine.report("split", "SUCCEEDED")

    timer = threading.Timer(0.2, later)
    timer.start()
    assert run.logs("split", follow=True) == "one\ntwo\n"
    timer.join()
    assert capsys.readouterr().out == "one\ntwo\n"


def test_outputs_are_read_from_the_report_and_the_store(kept_server: Any) -> None:
    run, engine = sent(kept_server)
    made = {
        "parameterValues": {"rows": 3},
        "artifacts": {"train": {"artifacts": [artifact(engine, "split", "train", rows=3)]}},
    }
    engine.log("split", f"hello{REPORT}{json.dumps(made)}\n")
    engine.report("split", "SUCCEEDED")
    score = {
        "artifacts": {"Output": {"artifacts": [{"name": "Output", "uri": "minio://b/m", "metadata": {"f1": 0.8}}]}}
    }
    engine.log("train(0)", "")
    engine.report("train", "RUNNING")
    assert list(run.outputs) == ["split"]
    found = run.outputs["split"]
    assert found.rows == 3 and isinstance(found.train, rml.Dataset) and found.train.metadata == {"rows": 3}
    assert (found.train.path / "part.txt").read_text() == "rows"
    assert run.logs("split") == "hello"  # the report is between the pod and us
    engine.pods = {name.replace("retry-", ""): text for name, text in engine.pods.items()}
    engine.report("train", "SUCCEEDED")
    from roblox_ml._backends.kfp.tasks import leaves, pod_names

    leaf = next(leaf for leaf in leaves(run.spec) if leaf.name == "train")
    engine.pods[pod_names(run._look(), leaf)[-1]] = f"{REPORT}{json.dumps(score)}\n"
    metrics = run.outputs["train"]
    assert isinstance(metrics, rml.Metrics) and metrics.metadata["f1"] == 0.8  # no copy is needed for it
    with pytest.raises(KeyError, match="there are outputs of: split, train"):
        _ = run.outputs["nobody"]


def test_a_step_that_reported_nothing_says_so(server: Any) -> None:
    run, engine = sent(server)
    engine.log("split", "no report\n")
    engine.report("split", "SUCCEEDED")
    with pytest.raises(RunError, match="did not report rows, train"):
        _ = run.outputs["split"]


def test_cancel_then_retry(server: Any) -> None:
    run, engine = sent(server)
    engine.report("split", "SUCCEEDED")
    engine.report("train", "RUNNING")
    run.cancel()
    assert run.state == "CANCELLED" and run.tasks["train"].state == "CANCELLED"
    with pytest.raises(RunFailed, match="was cancelled"):
        run.wait()
    run.cancel()  # once more changes nothing
    run.retry(wait=False)
    assert run.state == "RUNNING" and run.tasks["split"].state == "SUCCEEDED"
    for task in ("train", "probe[0]", "probe[1]"):
        engine.report(task, "SUCCEEDED")
    engine.end("SUCCEEDED")
    assert run.wait().state == "SUCCEEDED"
    with pytest.raises(RunError, match="nothing to retry"):
        run.retry()


def test_what_cannot_be_retried_yet_is_refused_by_the_server(server: Any) -> None:
    run, engine = sent(server)
    with pytest.raises(SubmitError, match="manifest cannot be empty") as caught:
        run.retry()
    assert caught.value.status == 409
    engine.report("split", "RUNNING")
    with pytest.raises(SubmitError, match="must be Failed"):
        run.retry()


def test_wait_gives_up_and_the_run_goes_on(server: Any) -> None:
    run, _ = sent(server)
    with pytest.raises(TimeoutError, match="goes on"):
        run.wait(timeout=0.1)
    assert run.state == "PENDING"


def test_wait_shows_progress(server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run, engine = sent(server)
    for task in ("split", "train", "probe[0]", "probe[1]"):
        engine.report(task, "SUCCEEDED")
    engine.end("SUCCEEDED")
    run.wait(progress=True)
    assert f"run {run.id} SUCCEEDED" in capsys.readouterr().out


def test_connection_runs_by_pipeline_experiment_and_labels(server: Any) -> None:
    kubeflow = rml.connect(server.url, experiment="team")
    first = submit(built(training, n=1), labels={"ticket": "7", "team": "safety"})
    second = submit(built(training, n=2), on=kubeflow, experiment="other")
    assert [r.id for r in kubeflow.runs(labels={"ticket": "7"})] == [first.id]
    assert [r.id for r in kubeflow.runs(experiment="other")] == [second.id]
    assert kubeflow.runs("nobody") == [] and len(kubeflow.runs("training")) == 2
    assert {e.name for e in kubeflow.experiments()} == {"Default", "team", "other"}
    assert first.labels == {"ticket": "7", "team": "safety"} and second.labels == {}
    assert rml.get_run(f"kfp:{first.id}") == first and rml.get_run(first.id, on=kubeflow).arguments == {"n": 1}
    assert "training" in kubeflow.runs()._repr_html_()
    with pytest.raises(RunNotFound):
        kubeflow.run("00000000-0000-0000-0000-000000000000")


def test_lists_longer_than_a_page_are_whole(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("roblox_ml._backends.kfp.connection._PAGE", 2)
    kubeflow = rml.connect(server.url)
    ids = [submit(built(training, n=n)).id for n in range(5)]
    assert [r.id for r in kubeflow.runs()] == ids[::-1]
    assert [r.id for r in kubeflow.runs(limit=3)] == ids[:1:-1]


def test_a_run_whose_version_was_deleted_still_has_steps(server: Any) -> None:
    run, engine = sent(server)
    engine.report("split", "SUCCEEDED")
    server.state.versions.clear()
    fresh = rml.get_run(run.id, on=rml.connect(server.url))
    assert {t.name: t.state for t in fresh.tasks.values()} == {"split": "SUCCEEDED"}


def test_connection_shows_itself_and_keeps_its_token(server: Any, tmp_path: Path) -> None:
    server.state.wanted_token = "first"
    token = tmp_path / "token"
    token.write_text("first\n")
    kubeflow = rml.connect(
        server.url, token=f"file:{token}", namespace="team-a", public_url="https://kubeflow.example.com/"
    )
    assert kubeflow.health()["multi_user"] is False
    shown = kubeflow._repr_html_() + repr(kubeflow) + repr(vars(kubeflow))
    assert "https://kubeflow.example.com" in shown and "team-a" in shown and "first" not in shown
    # A projected token is replaced while we hold the connection.
    server.state.wanted_token = "second"
    with pytest.raises(SubmitError, match="401"):
        kubeflow.health()
    token.write_text("second")
    run = submit(built(training, n=1))
    assert run.url.startswith("https://kubeflow.example.com/#/runs/details/")
    assert kubeflow.health()["multi_user"] is False


def test_a_token_written_down_is_refused(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RmlSdkError, match="a reference, not a token"):
        rml.connect(server.url, token="abcdef")
    with pytest.raises(RmlSdkError, match="NO_SUCH is not set"):
        rml.connect(server.url, token="env:NO_SUCH")
    assert server.state.requests == []


def test_the_homes_own_token_goes_to_no_forwarded_port(server: Any) -> None:
    from roblox_ml._store import home

    home().mkdir(parents=True, exist_ok=True)
    (home() / "token").write_text("the administrator of this machine")
    rml.connect(server.url)
    assert set(server.state.tokens) == {None}
