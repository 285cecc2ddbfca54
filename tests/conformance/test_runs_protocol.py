"""One set of assertions for a run here and a run on Kubeflow: the same words, the same answers.

On the right-hand side stands the contract server, which carries the very bytes out that it was sent; everything the client knows it
has asked of the v2beta1 API, as it would ask a real one.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import roblox_ml as rml
from roblox_ml._backends.local import LocalExecutor
from roblox_ml._graph.model import Graph
from roblox_ml._run_protocol import AnyRun
from roblox_ml.errors import RunError, RunFailed, RunNotFound

sys.path.insert(0, str(Path(__file__).parents[1] / "contract" / "kfp"))
import kfpserver
from local_engine import LocalEngine

STEPS = """
class Split(NamedTuple):
    train: rml.Dataset
    rows: int

@rml.step
def split(n: int = 3) -> Split:
    out = rml.Dataset()
    (out.path / "x.txt").write_text("x" * n)
    out.metadata["rows"] = n
    print("splitting", n)
    return Split(out, n)

@rml.step
def probe(factor: int, data: rml.Dataset) -> int:
    return factor * len((data.path / "x.txt").read_text())

@rml.step
def total(values: list) -> rml.Metrics:
    print("adding up")
    return rml.Metrics(total=float(sum(values)))

@rml.pipeline
def sample(n: int = 3):
    parts = split(n)
    total(probe.map([1, 10], data=parts.train))
"""
FRAGILE = """
@rml.step(cache=False)
def first(flag: str) -> int:
    with open(flag + ".starts", "a") as file:
        file.write("first ")
    return 1

@rml.step(cache=False)
def second(n: int, flag: str) -> int:
    print("looking for", flag)
    if not os.path.exists(flag):
        raise ValueError("the flag is not there")
    return n + 1

@rml.step
def third(n: int) -> int:
    return n + 1

@rml.pipeline
def sample(flag: str):
    third(second(first(flag), flag))
"""
SLEEPY = """
@rml.step(cache=False)
def sleeps(n: int) -> int:
    print("asleep", flush=True)
    time.sleep(60)
    return n

@rml.pipeline
def sample(n: int = 1):
    sleeps(n)
"""

Start = Callable[..., Any]


@pytest.fixture(params=["here", "kubeflow"])
def start(
    request: pytest.FixtureRequest, build: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Start]:
    """Start a pipeline in one of the two places; what comes back is a run."""
    if request.param == "here":
        yield lambda source, **given: LocalExecutor().run(build(source), given, wait=False, progress=False)
        return
    pytest.importorskip("kfp")
    from roblox_ml._backends.kfp import connection, submit
    from roblox_ml._build import Built

    monkeypatch.setattr("roblox_ml._backends.kfp.logs.kubernetes", lambda context: None)
    monkeypatch.setattr("roblox_ml._backends.kfp.run._POLL", 0.05)
    monkeypatch.setattr("roblox_ml._backends.kfp.logs._FOLLOW", 0.05)
    engine, artifacts = LocalEngine(), tmp_path / "bucket"
    with kfpserver.running(engine=engine, artifacts=artifacts) as server:
        kubeflow = rml.connect(server.url, pipeline_root=artifacts.as_uri())

        def remote(source: str, **given: Any) -> Any:
            made = build(source)
            graph: Any = Graph
            return submit(Built(made.name, made.ir, made.blobs, graph, arguments=given), on=kubeflow)

        yield remote
        engine.close()
    connection._last.clear()


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.05)


def test_a_run_that_succeeds(start: Start) -> None:
    run = start(STEPS, n=4)
    assert isinstance(run, AnyRun)
    assert run.wait(timeout=60) is run
    assert (run.state, run.error, run.pipeline, dict(run.arguments)) == ("SUCCEEDED", "", "sample", {"n": 4})
    assert run.duration is not None and run.duration >= 0 and run.url
    assert set(run.tasks) == {"split", "probe[0]", "probe[1]", "total"}
    for task in run.tasks.values():
        assert (task.state, task.error, task.reason) == ("SUCCEEDED", "", "")
        assert task.attempts == 1 and task.duration is not None
    assert "split" in run._repr_html_() and "SUCCEEDED" in run._repr_html_()


def test_outputs(start: Start) -> None:
    run = start(STEPS, n=2).wait(timeout=60)
    assert set(run.outputs) == {"split", "probe", "total"} and len(run.outputs) == 3
    parts = run.outputs["split"]
    assert parts.rows == parts["rows"] == 2 and isinstance(parts.train, rml.Dataset)
    assert parts.train.metadata["rows"] == 2 and (parts.train.path / "x.txt").read_text() == "xx"
    assert run.outputs["probe"] == [2, 20] and run.outputs["probe[1]"] == 20
    assert isinstance(run.outputs["total"], rml.Metrics) and run.outputs["total"].metadata["total"] == 22.0
    with pytest.raises(KeyError, match="there are outputs of"):
        _ = run.outputs["nobody"]


def test_logs(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    run = start(STEPS, n=2)
    assert run.wait(timeout=60).logs("split") == "splitting 2\n"
    assert run.logs("total", follow=True) == "adding up\n"
    assert capsys.readouterr().out.endswith("adding up\n")
    assert run.logs("probe").startswith("=== probe[0] ===\n")
    with pytest.raises(RunNotFound, match="did you mean 'split'"):
        run.logs("splitt")


def test_a_run_that_fails_says_why_and_is_finished_by_a_retry(start: Start, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    run = start(FRAGILE, flag=str(flag))
    with pytest.raises(RunFailed, match="the flag is not there") as caught:
        run.wait(timeout=60)
    assert caught.value.run is run
    assert {t.name: t.state for t in run.tasks.values()} == {
        "first": "SUCCEEDED",
        "second": "FAILED",
        "third": "SKIPPED",
    }
    assert run.state == "FAILED" and run.error and "the flag is not there" in run.tasks["second"].reason
    assert "looking for" in run.logs("second") and list(run.outputs) == ["first"]
    assert "the flag is not there" in run._repr_html_()
    flag.touch()
    assert run.retry(progress=False) is run
    assert run.state == "SUCCEEDED" and run.outputs["third"] == 3
    assert Path(f"{flag}.starts").read_text() == "first "  # what was done is not done again
    with pytest.raises(RunError, match="nothing to retry"):
        run.retry()


def test_a_run_that_is_cancelled(start: Start) -> None:
    run = start(SLEEPY)
    until(lambda: run.state == "RUNNING" and run.tasks["sleeps"].state == "RUNNING")
    with pytest.raises(TimeoutError, match="goes on"):
        run.wait(timeout=0.05)
    run.cancel()
    with pytest.raises(RunFailed, match="was cancelled"):
        run.wait(timeout=60)
    assert run.state == "CANCELLED" and run.tasks["sleeps"].state == "CANCELLED"
    run.cancel()
    assert run.state == "CANCELLED"


def test_a_run_is_found_again(start: Start) -> None:
    run = start(STEPS, n=1).wait(timeout=60)
    remote = run.path is None
    found = rml.get_run(f"kfp:{run.id}" if remote else run.id)
    assert (found.id, found.state, found.outputs["split"].rows) == (run.id, "SUCCEEDED", 1)
    with pytest.raises(RunNotFound):
        rml.get_run("kfp:00000000-0000-0000-0000-000000000000" if remote else "nobody")
