"""The server of these tests is believed because it answers the recorded requests as the real one did: all of them, whole.

Identifiers, times and the machine's part of archive errors are put in place of each other; nothing else is forgiven. The two runs that
were carried out are carried out here step by step, and must come to look the same.
"""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from typing import Any

import pytest
import yaml

STAMP = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ")
UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
LIVE = {"SUCCEEDED": "d86922a0-d930-4ff9-adcf-74078a1ac66f", "FAILED": "6bdc6783-c6b8-4409-97ff-710464a1b2f3"}


def ask(url: str, method: str, path: str, body: Any = None, kind: str | None = None) -> tuple[int, Any]:
    request = urllib.request.Request(url + path, method=method)
    if body:
        request.data = (body if isinstance(body, str) else json.dumps(body)).encode()
        request.add_header("Content-Type", kind or "application/json")
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def plain(value: Any) -> Any:
    """Without what differs between two servers: times, and the order of a list made within one second."""
    if isinstance(value, dict):
        # Defaults of numbers: 2.0 was kept as 2 by Go.
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return sorted((plain(v) for v in value), key=lambda v: json.dumps(v, sort_keys=True))
    if isinstance(value, str):
        if value == "1970-01-01T00:00:00Z":
            return value
        value = re.sub(r"RequestID: \w+, HostID: [^,]+", "RequestID", value)
        value = re.sub(r"(/artifacts/)[a-z0-9-]+?(/)", r"\1workflow\2", value)
        return STAMP.sub("<time>", value)
    return value


def renamed(value: Any, ids: dict[str, str]) -> Any:
    text = json.dumps(value)
    for old, new in ids.items():
        text = text.replace(old, new)
    return json.loads(text)


def learn(ids: dict[str, str], expected: Any, got: Any) -> None:
    """Pairs of identifiers, wherever both have one in the same place of a single object."""
    for key in ("pipeline_id", "pipeline_version_id", "experiment_id", "run_id", "recurring_run_id"):
        if isinstance(expected, dict) and isinstance(got, dict) and UUID.fullmatch(str(expected.get(key) or "")):
            ids.setdefault(expected[key], got[key])


def test_every_recorded_request_gets_the_recorded_answer(server: Any, recording: Any) -> None:
    ids = {"77faef44-7c9a-400d-9fbf-e3ec0571aacc": next(iter(server.state.experiments))}
    asked = 0
    for exchange in recording.exchanges():
        text = renamed([exchange["path"], exchange["request"]], ids)
        path, body = text
        if any(live in exchange["path"] for live in LIVE.values()):
            continue  # these two have been carried out: below
        status, response = ask(server.url, exchange["method"], path, body, exchange["request_type"])
        assert status == exchange["status"], (exchange["method"], path, response)
        learn(ids, exchange["response"], response)
        expected = renamed(exchange["response"], ids)
        if path.endswith("/versions?page_token=&page_size=10&sort_by="):
            # The upload's own version is listed there by the real server with an id that was never told before.
            first = next(v for v in expected["pipeline_versions"] if v["display_name"] == "adder")
            mine = next(v for v in response["pipeline_versions"] if v["display_name"] == "adder")
            first["pipeline_version_id"] = mine["pipeline_version_id"]
        assert plain(response) == plain(expected), (exchange["method"], path)
        asked += 1
    assert asked == len(recording.exchanges()) - 4


@pytest.mark.parametrize("ended", ["SUCCEEDED", "FAILED"])
def test_a_run_that_is_carried_out_looks_like_the_recorded_one(server: Any, recording: Any, ended: str) -> None:
    run = live_run(server, recording)
    run.workflow = {"SUCCEEDED": "live-d68ds", "FAILED": "live-2ntdp"}[ended]
    # Each step is reported by name alone; drivers, executors, DAGs and ids have to come out as Argo had them.
    if ended == "SUCCEEDED":
        for task in ("make", "count"):
            run.report(task, "RUNNING")
            run.report(task, "SUCCEEDED")
    else:
        run.report("make", "RUNNING")
        run.report("make", "FAILED")
    run.end(ended)
    expected = next(e["response"] for e in recording.exchanges() if e["path"].endswith(f"runs/{LIVE[ended]}"))
    got = renamed(run.as_json(), {run.run_id: LIVE[ended]})
    for one in (got, expected):
        for key in ("display_name", "experiment_id"):
            one.pop(key)
        for detail in one["run_details"]["task_details"]:
            detail.pop("task_id")
    assert pods(got) == pods(expected)
    assert plain(got) == plain(expected)


def test_the_archives_answer(server: Any, recording: Any) -> None:
    run = live_run(server, recording)
    for exchange in recording.exchanges():
        if exchange["path"].startswith("/apis/v1alpha1"):
            node = exchange["path"].split("/")[-2]
            status, response = ask(server.url, "GET", f"/apis/v1alpha1/runs/{run.run_id}/nodes/{node}/log")
            asked = exchange["path"].split("/")[4]
            expected = renamed(exchange["response"], {asked: run.run_id})
            # How many the real one was asked with decides nothing but its words.
            assert (status, plain(response)) == (exchange["status"], plain(expected))


def test_node_ids_are_those_of_the_finished_workflow(recording: Any) -> None:
    from roblox_ml._backends.kfp.tasks import node_id

    found = yaml.safe_load((recording.FOLDER / "workflow-finished-2.17.yaml").read_text("utf-8"))["items"][0]
    nodes = found["status"]["nodes"]
    name = found["metadata"]["name"]
    assert len(nodes) == 9
    # The root's id is the workflow's name itself.
    assert {node_id(name, n["name"]): n["displayName"] for n in nodes.values() if n["name"] != name} == {
        key: n["displayName"] for key, n in nodes.items() if key != name
    }


def live_run(server: Any, recording: Any) -> Any:
    spec = yaml.safe_load((recording.FOLDER / "live-ir.yaml").read_text("utf-8"))
    for task in spec["root"]["dag"]["tasks"].values():
        task["cachingOptions"] = {}  # the recorded ones were submitted with caching off
    experiment = next(iter(server.state.experiments))
    asked = {"display_name": "live", "experiment_id": experiment, "pipeline_spec": spec}
    status, made = ask(
        server.url, "POST", "/apis/v2beta1/runs", {**asked, "runtime_config": {"parameters": {"text": "abc"}}}
    )
    assert status == 200, made
    return server.state.runs[made["run_id"]]


def pods(run: Any) -> list[str]:
    details = run["run_details"]["task_details"]
    return sorted(child["pod_name"] for d in details for child in d.get("child_tasks") or [])
