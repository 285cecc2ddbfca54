"""From a run or a registration to a person: recovery, gates, aliases, a control plane that was down, a run that was killed."""

from __future__ import annotations

import dataclasses
import importlib.util
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import roblox_ml as rml
from roblox_ml import _events
from roblox_ml._backends.local import LocalExecutor
from roblox_ml.errors import RunFailed

Wait = Callable[..., Any]
SUPPORT = Path(__file__).resolve().parents[2] / "conformance"
SOURCE = """
@rml.step(cache=False)
def work(place: str) -> int:
    Path(place, "began").touch()
    if Path(place, "hang").exists():
        time.sleep(600)
    if not Path(place, "good").exists():
        raise ValueError("no rows")
    return 1

@rml.pipeline
def nightly(place: str):
    work(place)
"""
PROGRAM = """
import dataclasses, sys
sys.path.insert(0, {support!r})
from pathlib import Path
import support
import roblox_ml as rml
from roblox_ml._backends.local import LocalExecutor
built = dataclasses.replace(support.build({source!r}, Path({place!r})), notify=(rml.webhook({url!r}, on=["failure", "start"]),))
LocalExecutor().run(built, {{"place": {place!r}}}, progress=False)
"""


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., Any]:
    spec = importlib.util.spec_from_file_location("notifying_support", SUPPORT / "support.py")
    assert spec is not None and spec.loader is not None
    support = importlib.util.module_from_spec(spec)
    sys.modules["notifying_support"] = support
    spec.loader.exec_module(support)
    return lambda *notify: dataclasses.replace(support.build(SOURCE, tmp_path), notify=notify)


def test_what_happened_while_the_control_plane_was_down_is_told_when_it_is_back(
    build: Any, planes: Any, receiver: Any, wait_for: Wait, tmp_path: Path
) -> None:
    built = build(rml.webhook(f"{receiver.url}/hook", on=["failure", "success", "recovery", "start"]))
    executor, arguments = LocalExecutor(), {"place": str(tmp_path)}
    for good in (False, True, True):
        if good:
            (tmp_path / "good").touch()
            executor.run(built, arguments, progress=False)
        else:
            with pytest.raises(RunFailed):
                executor.run(built, arguments, progress=False)
    plane = planes().start()
    wait_for(lambda: len(receiver.posts) == 6 and not plane.notifications("pending"), 60)
    types = [post.json["type"] for post in receiver.posts]
    # The second run is told of as a recovery, and not as a success as well.
    assert sorted(types) == sorted(["run.started"] * 3 + ["run.failed", "run.recovered", "run.succeeded"])
    assert types.index("run.failed") < types.index("run.recovered")
    (recovered,) = (post.json for post in receiver.posts if post.json["type"] == "run.recovered")
    (failed,) = (post.json for post in receiver.posts if post.json["type"] == "run.failed")
    assert recovered["facts"]["failed_run"] == failed["subject"]["run"] != recovered["subject"]["run"]
    assert (
        "ValueError: no rows" in failed["text"] and f"rml runs logs {failed['subject']['run']} work" in failed["text"]
    )
    assert not list(_events.spool().glob("*.json"))


def test_a_control_plane_elsewhere_is_told_over_http(
    build: Any, planes: Any, receiver: Any, wait_for: Wait, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane = planes().start()
    elsewhere = tmp_path / "another-machine"
    monkeypatch.setenv("RML_TOKEN", plane.client()._http.headers["authorization"].removeprefix("Bearer "))
    monkeypatch.setenv("RML_HOME", str(elsewhere))
    monkeypatch.setenv("RML_CONTROL_URL", plane.url)
    with pytest.raises(RunFailed):
        LocalExecutor().run(build(rml.webhook(f"{receiver.url}/hook")), {"place": str(tmp_path)}, progress=False)
    wait_for(lambda: receiver.posts)
    assert [post.json["type"] for post in receiver.posts] == ["run.failed"]
    wait_for(lambda: not list(_events.spool().glob("*.json")))


def test_a_run_that_is_killed_is_told_of(planes: Any, receiver: Any, wait_for: Wait, tmp_path: Path) -> None:
    plane = planes().start()
    (tmp_path / "hang").touch()
    program = PROGRAM.format(support=str(SUPPORT), source=SOURCE, place=str(tmp_path), url=f"{receiver.url}/hook")
    process = subprocess.Popen([sys.executable, "-c", program], start_new_session=True)
    try:
        wait_for(lambda: (tmp_path / "began").exists() and receiver.posts, 60)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    wait_for(lambda: len(receiver.posts) == 2)
    assert [post.json["type"] for post in receiver.posts] == ["run.started", "run.failed"]
    assert "killed" in receiver.posts[-1].json["facts"]["error"]
    assert receiver.posts[-1].json["subject"] == receiver.posts[0].json["subject"]
    assert plane.notifications("pending") == []


def test_gates_and_aliases_reach_those_who_hear_of_the_pipeline_and_channels_that_asked(
    planes: Any, receiver: Any, wait_for: Wait, rml_home: Path
) -> None:
    from roblox_ml_core.digests import canonical_json, sha256_bytes
    from roblox_ml_core.settings import HomeSettings
    from roblox_ml_core.storage import BlobStore

    store = BlobStore(HomeSettings(home=rml_home).store_url)
    tensor = {"name": "x", "datatype": "FP32", "shape": [-1, 2]}

    def entry(data: bytes) -> dict[str, Any]:
        store.put(data)
        return {"sha256": sha256_bytes(data), "size": len(data)}

    def body(mark: str, f1: float) -> dict[str, Any]:
        files = {
            "signature.json": entry(canonical_json({"inputs": [tensor], "outputs": [{**tensor, "name": "y"}]})),
            "model/code/m.py": entry(mark.encode()),
        }
        info = {"schema": 1, "format": "python", "files": files, "labels": None, "options": {"entry": "m:predict"}}
        lineage = {"kind": "pipeline", "pipeline": "nightly", "run": f"nightly-{mark}", "step": "train"}
        manifest = {**files, "package.json": entry(canonical_json(info))}
        gate = {"f1": {"min": 0.75}}
        return {
            "package": info,
            "manifest": manifest,
            "metrics": {"f1": f1},
            "lineage": lineage,
            "gate": gate,
            "alias": "champion",
        }

    plane = planes(RML_CHANNEL_AUDIT=f"{receiver.url}/audit").start()
    with plane.client() as client:
        options = {"url": {"env": "RML_CHANNEL_AUDIT"}}
        client.call(
            "PUT", "/v1/channels/audit", {"kind": "webhook", "options": options, "on": ["alias"], "match": "senti*"}
        )
        hook = rml.webhook(f"{receiver.url}/team", on=["gate", "alias"])
        said = _events.emit("run.started", {"pipeline": "nightly", "run": "nightly-1", "execution": 1}, [hook])
        assert said.trouble(60) == ""
        client.register("sentiment", body("1", 0.8))
        client.register("sentiment", body("2", 0.5))
        client.register("other", body("3", 0.9))
        client.promote("sentiment", "champion", 2)
        client.rollback("sentiment", "champion")
    # Each once, however often it was sent: a receiver that is slow to answer is told again.
    wait_for(
        lambda: len({(post.path, post.event) for post in receiver.posts}) == 8 and not plane.notifications("pending")
    )
    posts = {(post.path, post.event): post.json for post in receiver.posts}
    told = [(path, post["title"]) for (path, _), post in posts.items()]
    moves = [
        "sentiment@champion is now version 1",
        "sentiment@champion is now version 2",
        "sentiment@champion is now version 1",
    ]
    assert [title for path, title in told if path == "/audit"] == moves
    team = [title for path, title in told if path == "/team"]
    assert sorted(team) == sorted(
        [*moves, "other@champion is now version 1", "sentiment version 2 did not pass its gate"]
    )
    (gate,) = (post for post in posts.values() if post["type"] == "gate.refused")
    assert "f1 is 0.5, the gate asks for 0.75 or more" in gate["text"] and gate["facts"]["run"] == "nightly-2"


def test_secrets_are_named_and_never_sent(planes: Any, rml_home: Path) -> None:
    from roblox_ml_core.errors import Invalid

    plane = planes(RML_CONTROL_SOMETHING="private").start()
    wrong = [
        {"kind": "slack", "options": {"url": "https://hooks.slack.com/services/T/B/x"}},
        {"kind": "slack", "options": {"url": {"env": "RML_CONTROL_SOMETHING"}}},
        {"kind": "slack", "options": {}},
        {
            "kind": "email",
            "options": {"host": "h", "sender": "s@d.org", "security": "none", "password": {"env": "RML_CHANNEL_X"}},
        },
        {"kind": "webhook", "options": {"secret": {"value": "x"}}},
        {"kind": "apprise", "options": {"url": {"file": "x"}, "colour": "red"}},
    ]
    with plane.client() as client:
        for body in wrong:
            with pytest.raises(Invalid):
                client.call("PUT", "/v1/channels/c", body)
        outside = {"kind": "slack", "options": {"url": {"file": "../token"}}}
        client.call("PUT", "/v1/channels/c", outside)
        event = client.call("POST", "/v1/channels/c/test")["event"]
        deliveries: list[Any] = []
        for _ in range(200):
            deliveries = client.call("GET", f"/v1/events/{event}")["deliveries"]
            if deliveries and deliveries[0]["attempts"]:
                break
        assert "only" in deliveries[0]["error"]
        assert client.call("GET", "/v1/channels")["channels"][0]["secrets"] == {"url": "file ../token"}
