"""Experiments, canaries, shadows, layers and switches through the SDK, against the real control plane."""

from __future__ import annotations

import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from roblox_ml_core.records import Records
from roblox_ml_core.settings import RecordsSettings
from typer.testing import CliRunner

import roblox_ml as rml
from roblox_ml._addresses import control
from roblox_ml._rollouts.experiments import _arms
from roblox_ml._rollouts.waiting import wait_for
from roblox_ml._rollouts.wishes import SCALE, WishError, in_parts
from roblox_ml.cli import app
from roblox_ml.errors import Conflict, NotFound, NotRunning, RemoteError

ARMS = {"control": "feed@champion", "new": "feed/2"}
QUIET: dict[str, Any] = {"say": lambda line: None}


def call(*arguments: str) -> str:
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"}, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_an_experiment_begins_grows_and_is_won(plane: Any) -> None:
    said: list[str] = []
    exp = rml.experiment(
        "new-ranker", ARMS, share=0.1, metrics=["revenue", rml.metric("ctr", ratio=("click", "view"))],
        guardrails=[rml.guardrail("crash", margin=0.01)], targeting={"country": {"in": ["DE"]}}, say=said.append,
    )  # fmt: skip
    assert (
        said[0].startswith("experiment new-ranker: 10 % of user_id in layer default") and "feed/2 is ready" in said[-1]
    )
    assert (exp.name, exp.endpoint, exp.share, exp.running) == ("new-ranker", "feed", 0.1, True)
    assert exp.arms == ARMS and "10 %" in repr(exp) and "<table" in exp._repr_html_()
    before = plane.policy()["experiments"]["new-ranker"]["ranges"]
    exp.grow(0.5)
    after = plane.policy()["experiments"]["new-ranker"]["ranges"]
    held = [{bucket for low, high in ranges for bucket in range(low, high)} for ranges in (before, after)]
    assert len(held[0]) == 1000 and len(held[1]) == 5000 and held[0] <= held[1]
    with pytest.raises(WishError, match=r"10 % is less than the 50 %"):
        exp.grow(0.1)
    assert [one.name for one in rml.experiments(running=True)] == ["new-ranker"]
    assert re.search(r"<td>20\d\d-\d\d-\d\d \d\d:\d\d UTC</td>", exp._repr_html_())
    exp.stop(winner="new")
    assert not exp.running and "new won" in repr(exp) and rml.experiments(running=True) == []
    assert plane.client.endpoint("feed")["version"] == 2
    with pytest.raises(Conflict):
        rml.get_experiment("new-ranker").stop()


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"arms": {"control": "feed@champion"}}, "at least two arms"),
    ({"arms": ["feed/1", "feed/2"]}, "at least two arms"),
    ({"arms": {"a": {"ref": "feed/1", "wieght": 3}, "b": "feed/2"}}, "wieght"),
    ({"arms": {"a": {"ref": "feed/1", "weight": 3}, "b": "feed/2"}}, "some have none"),
    ({"arms": {"a": {"ref": "feed/1", "weight": 0}, "b": {"ref": "feed/2", "weight": 0}}}, "cannot be shared"),
    ({"arms": {"a": {"ref": "feed/1", "weight": "3"}, "b": {"ref": "feed/2", "weight": 3}}}, "cannot be shared"),
    (
        {"arms": {"a": {"ref": "feed/1", "weight": float("inf")}, "b": {"ref": "feed/2", "weight": 3}}},
        "cannot be shared",
    ),
    ({"arms": {"a": {"ref": "feed/1", "params": ["k"]}, "b": "feed/2"}}, "params"),
    ({"arms": {"a": None, "b": {"params": {"k": 2}}}}, "whose requests"),
    ({"share": 0}, "above 0 and at most 1"),
    ({"share": 5}, "0.05 is five percent"),
    ({"metrics": [{"name": "x", "kind": "average"}]}, "kind"),
]


def test_what_cannot_be_meant_is_refused_in_words(plane: Any) -> None:
    for changed, said in WRONG:
        with pytest.raises((WishError, RemoteError), match=said):
            rml.experiment(**{"name": "wrong", "arms": ARMS, **changed, **QUIET})
    assert rml.experiments() == []


def test_names_that_are_not_there_come_with_those_that_are(plane: Any) -> None:
    rml.experiment("new-ranker", ARMS, **QUIET)
    with pytest.raises(NotFound, match="new-ranker"):
        rml.get_experiment("new-rankr")
    with pytest.raises(NotFound, match="feed"):
        rml.experiment("other", {"a": "fed/1", "b": "fed/2"}, **QUIET)
    with pytest.raises(WishError, match="assigns by user_id, not by session_id"):
        rml.experiment("other", ARMS, unit="session_id", **QUIET)
    with pytest.raises(NotFound, match="control"):
        rml.get_experiment("new-ranker").stop(winner="nww")


def test_waiting_ends_with_the_version_or_with_why_not(plane: Any) -> None:
    plane.holds(1)
    with pytest.raises(NotRunning, match="feed/2 was not ready within 0"):
        rml.experiment("slow", ARMS, timeout=0, **QUIET)
    assert rml.get_experiment("slow").running, "the wish stays"
    plane.holds(2, state="failed", reason="out of memory")
    with pytest.raises(RemoteError, match="out of memory"):
        rml.shadow("feed", "feed/2", timeout=5, **QUIET)


def test_waiting_ends_when_the_door_has_heard_of_it(plane: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next answer of the door that this process asks is by the wish."""
    heard, asked = [plane.client.snapshot()["generation"] - 1], []

    class Door(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            if len(asked) == 4:
                heard[0] = plane.client.snapshot()["generation"]
            body = json.dumps({"ready": True, "generation": heard[0]}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Door) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("RML_DOOR_URL", f"http://127.0.0.1:{server.server_port}")
        with control() as client:
            wait_for(client, [], 60, print)
        server.shutdown()
    assert asked == ["/v2/health/ready"] * 4


@given(weights=st.lists(st.floats(0.001, 1000), min_size=2, max_size=16))
def test_weights_always_sum_to_the_whole(weights: list[float]) -> None:
    made = _arms("e", {f"a{n}": {"ref": "m/1", "weight": weight} for n, weight in enumerate(weights)})
    parts = [arm["weight"] for arm in made.values()]
    assert sum(parts) == SCALE and all(
        abs(part - w / sum(weights) * SCALE) <= 1 for part, w in zip(parts, weights, strict=True)
    )


@given(share=st.one_of(st.floats(), st.integers(), st.booleans(), st.none()))
def test_a_share_is_a_fraction_or_refused(share: Any) -> None:
    good = isinstance(share, int | float) and not isinstance(share, bool) and 0.00005 < share <= 1
    if good:
        assert 1 <= in_parts(share) <= SCALE and abs(in_parts(share) / SCALE - share) <= 0.5 / SCALE + 1e-12
    else:
        with pytest.raises(WishError):
            in_parts(share)


def test_a_canary_is_started_grown_promoted_and_taken_back(plane: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("roblox_ml._endpoint.Endpoint.wait_for", lambda self, version, *_: self)
    endpoint = rml.endpoint("feed").canary(2, share=0.05)
    endpoint.canary(2, share=0.2)
    assert plane.policy()["endpoints"]["feed"]["canary"]["share"] == 2000
    assert "version 2 for 20 % of units" in endpoint._repr_html_()
    endpoint.rollback()
    assert plane.policy()["endpoints"]["feed"]["canary"] is None and plane.client.endpoint("feed")["version"] == 1
    with pytest.raises(RemoteError, match="canary"):
        endpoint.promote()
    endpoint.canary(3).promote()
    assert plane.client.endpoint("feed")["version"] == 3
    with pytest.raises(RemoteError):
        endpoint.canary(99)


def test_layers_holdouts_and_switches(plane: Any) -> None:
    rml.experiment("new-ranker", ARMS, layer="ranking", share=0.25, **QUIET)
    assert rml.layer("ranking")["free"] == 7500
    rml.holdout("global", share=0.01)
    assert plane.policy()["holdouts"]["global"]["share"] == 100
    assert rml.kill(experiments=True)["experiments"] is True
    assert rml.kill()["experiments"] is True and rml.kill(experiments=False)["experiments"] is False
    assert "1 % of user_id" in call("holdout") and "champion only" in call("kill", "--endpoint", "feed")
    assert plane.policy()["kill"]["endpoints"] == ["feed"]
    call("kill", "--endpoint", "feed", "--on")
    assert plane.policy()["kill"]["endpoints"] == []
    assert "new-ranker" in call("layer", "ranking")
    call("holdout", "global", "--remove")
    assert "nobody is kept out" in call("holdout")


def test_the_command_line_runs_an_experiment_s_life(plane: Any, tmp_path: Any) -> None:
    rml.experiment("new-ranker", ARMS, share=0.1, metrics=["clicks"], **QUIET)
    assert "10.00%" in call("experiment", "list") and json.loads(call("experiment", "list", "--json"))[0]["running"]
    assert "feed/2" in call("experiment", "show", "new-ranker")
    assert "50 %" in call("experiment", "grow", "new-ranker", "0.5")
    assert "units" in call("experiment", "report", "new-ranker")
    call("experiment", "report", "new-ranker", "--save", str(tmp_path / "r.html"))
    assert "<h1>Experiment new-ranker" in (tmp_path / "r.html").read_text()
    assert "ended: enough" in call("experiment", "stop", "new-ranker", "--reason", "enough")
    assert "5.00%" in call("canary", "start", "feed", "2") and "ended" in call("canary", "end", "feed")
    assert "feed-3" in call("shadow", "add", "feed", "feed/3") and "0 of 0" in call(
        "shadow", "report", "feed", "feed-3"
    )
    assert "no shadow feed-3" in call("shadow", "remove", "feed", "feed-3")


def test_a_batch_job_decides_by_the_same_policy_and_says_so(plane: Any, door: Any) -> None:
    import pandas as pd

    rml.experiment(
        "new-ranker", {"control": "feed@champion", "new": {"ref": "feed/2", "params": {"k": 20}}}, share=0.5, **QUIET
    )
    snapshot = plane.client.snapshot()
    users = pd.Series(range(1000), index=range(5000, 6000))
    frame = rml.decide("feed", users, log=True)
    assert list(frame.index) == list(users.index) and frame.attrs["policy_digest"] == snapshot["digest"]
    chosen = frame["arm.new-ranker"] == "new"
    assert set(frame.loc[chosen, "version"]) == {2} and set(frame.loc[~chosen, "version"]) == {1}
    assert all(params == {"k": 20} for params in frame.loc[chosen, "params"]) and 150 < chosen.sum() < 350
    logged = {(row[6], row[4]) for row in door.rows["/v1/exposures"]}
    assert logged == set(
        frame.dropna(subset="arm.new-ranker")[["unit", "arm.new-ranker"]].itertuples(index=False, name=None)
    )
    assert frame.attrs["exposures"] == len(logged) == len(door.rows["/v1/exposures"])
    rml.get_experiment("new-ranker").stop()
    assert "arm.new-ranker" not in rml.decide("feed", users)
    assert rml.decide("feed", users, snapshot=snapshot).equals(frame), "kept, it decides as it did"
    with pytest.raises(NotFound, match="endpoints: feed"):
        rml.decide("fed", users)
    with pytest.raises(WishError, match="1000 units and 2 contexts"):
        rml.decide("feed", users, [{}, {}])


UNITS: list[Any] = [17.0, None, "", " u", "a\nb", "u" * 257, True, b"u"]


def test_a_batch_job_s_rows_are_those_of_requests_or_refused(plane: Any) -> None:
    import numpy as np
    import pandas as pd

    rml.experiment("new-ranker", ARMS, targeting={"age": {"gte": 13}}, **QUIET)
    for unit in UNITS:
        with pytest.raises(WishError, match="row 1: the unit is"):
            rml.decide("feed", ["u", unit])
    with pytest.raises(WishError, match="int64"):
        rml.decide("feed", pd.Series([17, None]))
    users = pd.Series([17, 18, None], dtype="Int64").dropna()
    contexts = pd.DataFrame({"age": np.array([12, 40])})
    frame = rml.decide("feed", users, contexts)
    assert list(frame["unit"]) == ["17", "18"] and list(frame["arm.new-ranker"].isna()) == [True, False]
    same = rml.decide("feed", ["17", "18"], [{"age": np.int64(12)}, {"age": np.float64(40)}])
    assert same["version"].tolist() == frame["version"].tolist()
    assert rml.decide("feed", ["18"], {"age": np.int64(40)})["version"].tolist() == frame["version"].tolist()[1:]
    for wrong, said in (([{}, {}, {}], "2 units and 3 contexts"), ([{}, "DE"], "row 1: the context")):
        with pytest.raises(WishError, match=said):
            rml.decide("feed", users, wrong)
    for snapshot in ({}, {"policy": 3}, [], {"policy": {"endpoints": 3}}):
        with pytest.raises(WishError, match="snapshot cannot be read"):
            rml.decide("feed", users, snapshot=snapshot)  # type: ignore[arg-type]


def test_the_planted_lift_is_in_the_report(plane: Any, rml_home: Any) -> None:
    exp = rml.experiment(
        "new-ranker", ARMS, metrics=["revenue", rml.metric("play", kind="conversion", primary=False)],
        guardrails=[rml.guardrail("crash", margin=0.5)], **QUIET,
    )  # fmt: skip
    assert exp.report().units == {"control": 0, "new": 0} and "<h1>" in exp.report().html()
    frame = rml.decide("feed", [f"u{n}" for n in range(4000)])
    records = Records(str(rml_home / "records"), door="d", settings=RecordsSettings(keep_free_bytes=0))
    records.start()
    now = int(time.time() * 1e6)
    for n, (unit, arm, version) in enumerate(frame[["unit", "arm.new-ranker", "version"]].itertuples(index=False)):
        records.exposures.offer((now + n, f"i{n}", "feed", "new-ranker", arm, "user_id", unit, version))
        value = (1.2 if arm == "new" else 1.0) * (0.5 + n % 2)
        records.events.offer((now + n + 1, f"e{n}", "user_id", unit, "revenue", value, "", ""))
        if n % 3:
            records.events.offer((now + n + 2, f"p{n}", "user_id", unit, "play", 1.0, "", ""))
        if n % 10 == 0:
            records.events.offer((now + n + 2, f"c{n}", "user_id", unit, "crash", 1.0, "", ""))
    import asyncio

    asyncio.run(records.close())
    report = exp.report()
    assert sum(report.units.values()) == 4000 and report.document["srm"]["verdict"] == "fine"
    (revenue,) = report.metrics["revenue"]
    low, high = revenue["relative"]["low"], revenue["relative"]["high"]
    assert low < 0.2 < high and low > 0 and revenue["decision"] == "better"
    (play,) = report.metrics["play"]
    assert play["decision"] not in ("better", "worse")
    text = str(report)
    assert "guardrail crash: holds" in text and re.search(r"new.*revenue|revenue.*new", text)
    page = report.html()
    assert page.count("<svg") >= 3 and "<script" not in page
    assert report._repr_html_().startswith("<iframe")
