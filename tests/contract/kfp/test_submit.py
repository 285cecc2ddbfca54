"""`.submit()` against a server that answers as Kubeflow Pipelines 2.17 did: exactly the compiled bytes arrive."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

import roblox_ml as rml
from roblox_ml._backends.kfp import submit
from roblox_ml._build import Built
from roblox_ml._graph.dump import dump_ir, load_ir
from roblox_ml._graph.ir import CodeRef, to_ir
from roblox_ml._store import digest_of, open_store
from roblox_ml.errors import NotRunning, RunNotFound, SubmitError

CODE = b"the code of a step"


@rml.step
def double(x: int) -> int:
    return 2 * x


def built(**arguments: Any) -> Built:
    def pipeline(a: int, b: str = "x") -> None:
        double(a)

    graph, findings = rml.pipeline(name="adder")(pipeline).trace()
    assert findings == []
    digest = digest_of(CODE)
    code = {name: CodeRef(digest, digest, digest, "m:double") for name in graph.components}
    return Built(
        "adder",
        dump_ir(to_ir(graph, code, bootstrap="boot")),
        {digest: CODE},
        graph,
        provenance={"git": {"commit": "0123456789abcdef", "dirty": True}},
        schedule=rml.cron("0 3 * * *"),
        notify=(rml.slack("#ml"),),
        arguments=arguments,
    )


def test_the_bytes_received_are_the_bytes_compiled(server: Any) -> None:
    ready = built(a=5)
    run = submit(ready, host=server.url)
    ((name, received),) = server.state.uploads
    assert name == "adder"
    assert received == ready.ir
    assert server.state.runs[run.id].raw["runtime_config"] == {"parameters": {"a": 5}}
    assert server.state.runs[run.id].raw["pipeline_version_reference"] == {
        "pipeline_id": run.pipeline_id,
        "pipeline_version_id": run.version_id,
    }
    assert run.state == "PENDING"
    assert run.url == f"{server.url}/#/runs/details/{run.id}"
    assert run.id in run._repr_html_()


def test_the_code_is_in_the_store_before_the_run_is_made(server: Any) -> None:
    submit(built(a=5), host=server.url)
    assert open_store().get(digest_of(CODE)) == CODE


def test_schedule_and_notifications_travel_with_the_version(server: Any) -> None:
    submit(built(a=5), host=server.url)
    (pipeline,) = server.state.pipelines.values()
    assert pipeline["description"] == (
        "commit 0123456789ab with uncommitted changes; schedule 0 3 * * *; notify slack #ml on failure"
    )


def test_an_edited_pipeline_is_a_version_and_an_unchanged_one_is_not_sent_again(server: Any) -> None:
    first = submit(built(a=1), host=server.url)
    assert submit(built(a=1), host=server.url).version_id == first.version_id
    ready = built(a=2)
    edited = replace(ready, ir=ready.ir.replace(b"boot", b"bootstrap"))
    second = submit(edited, host=server.url)
    third = submit(edited, host=server.url)
    assert second.pipeline_id == first.pipeline_id
    assert second.version_id != first.version_id and third.version_id == second.version_id
    assert third.id != second.id
    assert [data for _, data in server.state.uploads] == [ready.ir, edited.ir]


def test_losing_the_race_for_a_name_makes_a_version(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    submit(built(a=1), host=server.url)
    import kfp

    honest = kfp.Client.get_pipeline_id
    answers = iter([None])
    # The first look-up misses the pipeline that another process is just creating: the upload then gets 409.
    monkeypatch.setattr(kfp.Client, "get_pipeline_id", lambda self, name: next(answers, "ask") and honest(self, name))
    ready = built(a=2)
    edited = replace(ready, ir=ready.ir.replace(b"boot", b"bootstrap"))
    run = submit(edited, host=server.url)
    assert [p["display_name"] for p in server.state.pipelines.values()] == ["adder"]
    assert len(server.state.uploads) == 2 and server.state.uploads[1][1] == edited.ir
    assert run.version_id in server.state.versions


def test_one_experiment_per_name(server: Any) -> None:
    runs = [submit(built(a=1), host=server.url, experiment="trial", run_name=f"r{n}") for n in range(2)]
    assert [e["display_name"] for e in server.state.experiments.values()] == ["Default", "trial"]
    assert [server.state.runs[r.id].raw["display_name"] for r in runs] == ["r0", "r1"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [({}, "parameter a is not optional"), ({"a": 1, "zz": 2}, "zz"), ({"a": "text"}, "NUMBER_INTEGER")],
)
def test_what_the_server_would_refuse_is_not_sent(server: Any, arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(SubmitError, match=told):
        submit(built(**arguments), host=server.url)
    assert server.state.requests == []


def test_a_broken_spec_is_not_sent(server: Any) -> None:
    ready = built(a=1)
    document = load_ir(ready.ir)
    document["pipeline"]["components"]["comp-nope"] = document["pipeline"]["components"].pop("comp-double")
    with pytest.raises(SubmitError, match="comp-double"):
        submit(replace(ready, ir=dump_ir(document)), host=server.url)
    assert server.state.uploads == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({}, "parameter a is not optional, yet has neither default value nor user provided value"),
        ({"a": 1, "zz": 2}, "not required by pipeline: zz"),
        ({"a": "text"}, "parameter a requires type double or integer"),
    ],
)
def test_what_the_server_refuses_is_told_in_its_words(
    server: Any, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], told: str
) -> None:
    monkeypatch.setattr("roblox_ml._backends.kfp._submit._check", lambda ir, given: None)
    with pytest.raises(SubmitError, match=re.escape(told)) as caught:
        submit(built(**arguments), host=server.url)
    assert caught.value.status == 400


def test_something_else_than_a_pipeline_is_refused(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("roblox_ml._backends.kfp._submit._check", lambda ir, given: None)
    with pytest.raises(SubmitError, match="unknown template format") as caught:
        submit(replace(built(a=1), ir=b"hello: world\n"), host=server.url)
    assert caught.value.status == 400


def test_a_run_that_has_not_started_cannot_be_retried(server: Any) -> None:
    run = submit(built(a=1), host=server.url)
    with pytest.raises(SubmitError, match="manifest cannot be empty") as caught:
        run.retry()
    assert caught.value.status == 409


def test_terminating_a_run(server: Any) -> None:
    run = submit(built(a=1), host=server.url)
    run.cancel()
    assert run.state == "CANCELLED"


def test_a_run_that_is_gone_says_so(server: Any) -> None:
    run = submit(built(a=1), host=server.url)
    server.state.runs.clear()
    with pytest.raises(RunNotFound, match="not found"):
        _ = run.state


def test_nobody_there(free_port: Any) -> None:
    with pytest.raises(NotRunning, match="does not answer"):
        submit(built(a=1), host=f"http://127.0.0.1:{free_port()}")


def test_no_address() -> None:
    with pytest.raises(NotRunning, match="RML_KFP_HOST"):
        submit(built(a=1))


def test_the_token_is_sent(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RML_KFP_TOKEN", "secret")
    submit(built(a=1), host=server.url)
    assert set(server.state.tokens) == {"Bearer secret"}


def test_a_store_that_cannot_be_written_stops_it_first(
    server: Any, monkeypatch: pytest.MonkeyPatch, free_port: Any
) -> None:
    monkeypatch.setenv("RML_STORE", f"http://127.0.0.1:{free_port()}/v1/store")
    with pytest.raises(SubmitError, match="could not be stored"):
        submit(built(a=1), host=server.url)
    assert server.state.uploads == []


def test_specs_that_kfp_wrote_are_judged_as_its_server_did(recording: Any) -> None:
    """The recorded uploads: the sound one passes our check, the one that failed at run creation does not."""
    from roblox_ml._graph.check import check_ir

    def uploaded(name: str) -> bytes:
        for exchange in recording.exchanges():
            if f"/pipelines/upload?name={name}" in exchange["path"]:
                body = exchange["request"].encode().partition(b"\r\n\r\n")[2]
                return body[: body.rindex(b"\r\n--")]
        raise LookupError(name)

    assert check_ir(load_ir(uploaded("adder"))) == []
    assert any("comp-add" in problem for problem in check_ir(load_ir(uploaded("bad"))))
    assert check_ir(load_ir(uploaded("bad2"))) != []


@rml.pipeline
def doubling(n: int, times: int = 1) -> None:
    double(double(n))


def test_from_the_decorator_to_the_server(server: Any, tmp_path: Any) -> None:
    """The whole way, with real capture and locks: what `compile` writes is what the server gets, and the code is stored."""
    run = doubling.submit(host=server.url, experiment="e", n=3)
    ((_, received),) = server.state.uploads
    assert received == doubling.compile(tmp_path / "p.yaml").read_bytes()
    assert server.state.runs[run.id].raw["runtime_config"] == {"parameters": {"n": 3}}
    store = open_store()
    assert all(store.has(digest) for digest in doubling.build().blobs)
