"""The client without the door, against the real control plane, a stub model server and a door that takes exposures."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import roblox_ml as rml
from roblox_ml._direct import following
from roblox_ml._direct.client import Direct, NeedsDoor, SnapshotTooOld
from roblox_ml._predict import InputError
from roblox_ml._rollouts import sending
from roblox_ml._rollouts.wishes import WishError
from roblox_ml.errors import NotFound, NotRunning, RemoteError

ROWS = {"X": [[1.0, 2.0]]}
QUIET: dict[str, Any] = {"say": lambda line: None}


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exposures go when the test says so."""
    monkeypatch.setattr(sending, "_EVERY_S", 3600.0)


@pytest.fixture
def plane(shared_plane: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    shared_plane.again()
    monkeypatch.setenv("RML_HOME", str(shared_plane.home))
    monkeypatch.setenv("RML_CONTROL_URL", shared_plane.url)
    return shared_plane


@pytest.fixture
def feed(plane: Any, upstream: Any, door: Any) -> Iterator[Direct]:
    with rml.direct("feed") as client:
        yield client


def eventually(true: Callable[[], Any], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.01)


def everybody_gets(version: int, plane: Any, client: Direct, **more: Any) -> None:
    """An experiment whose only arm of weight has `version`."""
    arms = {"control": {"ref": "feed@champion", "weight": 0}, "new": {"ref": f"feed/{version}", "weight": 1}}
    rml.experiment("new-ranker", arms, wait=False, **{**QUIET, **more})
    generation = plane.client.snapshot()["generation"]
    eventually(lambda: client.stats()["snapshot"]["generation"] == generation)


def identity_holds(client: Direct) -> dict[str, Any]:
    stats = client.stats()
    exposures = stats["exposures"]
    assert exposures["offered"] == exposures["sent"] + exposures["waiting"] + exposures["dropped"]
    assert stats["requests"] == stats["errors"] + sum(stats["answered"].values())
    return stats


def test_a_prediction_is_the_doors_without_the_door(feed: Direct, upstream: Any) -> None:
    prediction = feed.predict(ROWS, unit="u1", context={"country": "DE"})
    assert prediction.outputs["y"] == [[1.0, 0.5]] and prediction.version == 1 and not prediction.fallback
    assert len(prediction.inference_id or "") == 32 and prediction.arms == {}
    assert feed.predict([[1.0, 2.0]]).version == 1, "one input needs no name"
    version, headers, body = upstream.asked[0]
    assert version == 1 and body[int(headers["inference-header-content-length"]) :] == b"\0\0\x80?\0\0\0@"
    assert not [name for name in headers if name.startswith("x-rml") or name == "authorization"]
    assert len(upstream.connections) == 1, "a connection is kept"
    assert feed.inputs() == [{"name": "X", "datatype": "FP32", "shape": [-1, 2]}]
    stats = identity_holds(feed)
    assert stats["answered"] == {1: 2} and stats["servers"]["local"]["in_flight"] == 0
    assert "version 1" in repr(feed) and "feed/1" in feed._repr_html_()


def test_a_body_as_it_is_and_an_answer_as_it_is(feed: Direct, upstream: Any) -> None:
    upstream.answers[1] = lambda: (400, {"error": "wrong <shape>"})
    answer = feed.infer(
        b"{}", {"X-RML-Unit": "spy", "Authorization": "Bearer secret", "traceparent": "00-1-2-01", "Host": "h"}
    )
    assert (answer.status, answer.version, answer.body) == (400, 1, b'{"error": "wrong <shape>"}')
    _, headers, body = upstream.asked[0]
    assert body == b"{}" and headers["content-type"] == "application/json" and headers["traceparent"] == "00-1-2-01"
    assert "x-rml-unit" not in headers and "authorization" not in headers and headers["host"] == upstream.address
    with pytest.raises(RemoteError, match="wrong <shape>") as caught:
        feed.predict(ROWS)
    assert caught.value.status == 400 and "feed/1" in str(caught.value)


def test_what_cannot_be_asked_is_refused_in_words(plane: Any, upstream: Any, door: Any, feed: Direct) -> None:
    with pytest.raises(NotFound, match="feed"):
        rml.direct("fed")
    with pytest.raises(WishError, match="max_age"):
        rml.direct("feed", max_age=0)
    for wrong in ({"unit": "a\nb"}, {"context": {"x": "y" * 5000}}, {"context": {"x": float("nan")}}):
        with pytest.raises(InputError):
            feed.predict(ROWS, **wrong)
    with pytest.raises(InputError, match="traceparent"):
        feed.infer(b"{}", {"traceparent": "0\r\nx-rml-unit: spy"})
    with pytest.raises(InputError, match="unknown 'z'"):
        feed.predict({"z": [[1.0]]})
    assert upstream.asked == []


def test_it_follows_promotions_and_undeployments(plane: Any, feed: Direct) -> None:
    rml.models.get("feed/2").promote()
    eventually(lambda: feed.predict(ROWS).version == 2)
    plane.holds(1)
    eventually(lambda: "local" in feed.stats()["servers"] and feed.stats()["champion"] is None)
    with pytest.raises(NotRunning, match="none of 1 model server"):
        feed.predict(ROWS)
    plane.holds(1, 2)
    eventually(lambda: feed.stats()["champion"])
    assert feed.predict(ROWS).version == 2
    plane.client.delete_endpoint("feed")
    eventually(lambda: feed.stats()["champion"] is None)
    with pytest.raises(NotFound, match="no endpoint 'feed'"):
        feed.predict(ROWS)
    identity_holds(feed)


def test_a_new_champion_that_is_not_ready_waits_behind_the_old_one(plane: Any, feed: Direct) -> None:
    plane.holds(1)
    eventually(lambda: plane.client.snapshot()["generation"] == feed.stats()["snapshot"]["generation"])
    rml.models.get("feed/3").promote()
    eventually(lambda: plane.client.snapshot()["generation"] == feed.stats()["snapshot"]["generation"])
    assert feed.predict(ROWS).version == 1
    plane.holds(1, 3)
    eventually(lambda: feed.predict(ROWS).version == 3)


def test_arms_are_exposed_once_where_they_were_reached(plane: Any, feed: Direct, door: Any) -> None:
    everybody_gets(2, plane, feed)
    for unit in ("u1", "u1", 17):
        prediction = feed.predict(ROWS, unit=unit)
        assert prediction.version == 2 and prediction.arms == {"new-ranker": "new"}
    assert feed.flush() == {"offered": 2, "sent": 2, "dropped": 0, "waiting": 0}
    rows = door.rows["/v1/exposures"]
    assert [(row[2], row[3], row[4], row[5], row[6], row[7]) for row in rows] == [
        ("feed", "new-ranker", "new", "user_id", unit, 2) for unit in ("u1", "17")
    ]
    identity_holds(feed)


@pytest.mark.parametrize("how", ["error", "hung up", "silent", "gone"])
def test_the_champion_answers_once_for_a_challenger(plane: Any, feed: Direct, upstream: Any, how: str) -> None:
    everybody_gets(2, plane, feed)
    released = threading.Event()

    def fail() -> Any:
        if how == "hung up":
            raise ConnectionError
        if how == "silent":
            released.wait(20)
        return (503, {"error": "unknown model"}) if how == "gone" else (500, {"error": "broken"})

    upstream.answers[2] = fail
    prediction = feed.predict(ROWS, unit="u1", timeout=1.0 if how == "silent" else 20.0)
    released.set()
    assert prediction.version == 1 and prediction.fallback and prediction.arms == {"new-ranker": "new"}
    asked = [version for version, _, _ in upstream.asked]
    assert asked.count(1) == 1 and asked[-1] == 1
    stats = identity_holds(feed)
    assert stats["fallbacks"] == 1 and stats["answered"] == {1: 1} and stats["errors"] == 0
    assert stats["exposures"]["offered"] == 0, "the unit saw no arm"


def test_a_challengers_no_to_the_clients_input_is_an_answer(plane: Any, feed: Direct, upstream: Any) -> None:
    everybody_gets(2, plane, feed)
    upstream.answers[2] = lambda: (400, {"error": "wrong shape"})
    with pytest.raises(RemoteError, match="wrong shape"):
        feed.predict(ROWS, unit="u1")
    assert [version for version, _, _ in upstream.asked] == [2]
    assert identity_holds(feed)["exposures"]["offered"] == 0


def test_when_the_champion_fails_too_it_is_said_by_whom(plane: Any, feed: Direct, upstream: Any) -> None:
    everybody_gets(2, plane, feed)
    upstream.answers[2] = lambda: (500, {"error": "broken"})
    upstream.answers[1] = lambda: (500, {"error": "broken as well"})
    with pytest.raises(RemoteError, match="broken as well"):
        feed.predict(ROWS, unit="u1")
    stats = identity_holds(feed)
    assert stats["errors"] == 1 and stats["fallbacks"] == 1


def test_a_challenger_that_no_server_has_ready_is_answered_by_the_champion(plane: Any, feed: Direct) -> None:
    plane.holds(1)
    everybody_gets(2, plane, feed)
    prediction = feed.predict(ROWS, unit="u1")
    assert prediction.version == 1 and not prediction.fallback
    stats = identity_holds(feed)
    assert stats["left_out"] == {"feed/2": "no model server has it ready"} and stats["exposures"]["offered"] == 0


def test_of_two_servers_the_one_that_died_is_left_alone(plane: Any, feed: Direct, upstream: Any) -> None:
    plane.addresses["dead"] = ("127.0.0.1:9", "127.0.0.1:9")
    plane.holds(1, server="dead")
    eventually(lambda: "dead" in feed.stats()["servers"])
    for _ in range(40):
        assert feed.predict(ROWS).version == 1
    stats = identity_holds(feed)
    assert stats["errors"] == 0 and 1 <= stats["retries"] < 40
    assert len(upstream.asked) == 40


def test_without_a_server_that_answers_it_is_said_which_were_asked(plane: Any, upstream: Any, door: Any) -> None:
    plane.addresses["local"] = ("127.0.0.1:9", "127.0.0.1:9")
    plane.holds(1)
    with rml.direct("feed") as feed:
        with pytest.raises(NotRunning, match=r"(?s)feed/1.*local: cannot connect to 127\.0\.0\.1:9"):
            feed.predict(ROWS)
        assert identity_holds(feed)["errors"] == 1


def test_no_control_plane_no_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RML_CONTROL_URL", "http://127.0.0.1:9")
    with pytest.raises(NotRunning, match=r"127\.0\.0\.1:9"):
        rml.direct("feed")


def test_it_answers_without_the_control_plane_until_max_age_and_again_when_it_is_back(
    upstream: Any, shared_plane: Any, mortal: Any, door: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    mortal.addresses["local"] = (upstream.address, "127.0.0.1:2")
    mortal.holds(1)
    feed = rml.direct("feed")
    mortal.kill()
    eventually(lambda: "Connection refused" in feed.stats()["snapshot"]["problem"])
    confirmed, after = feed._follower._confirmed, [1.0]
    monkeypatch.setattr(following, "_now", lambda: confirmed + after[0])
    assert feed.predict(ROWS).version == 1
    after[0] = 60.0
    assert feed.predict(ROWS).version == 1
    after[0] = 60.1
    with pytest.raises(SnapshotTooOld) as caught:
        feed.predict(ROWS)
    said = str(caught.value)
    assert "60.1 s old, and max_age is 60 s" in said and "Connection refused" in said and said.count("fix:") == 1
    assert "rml.endpoint('feed')" in said
    with pytest.raises(SnapshotTooOld):
        feed.grpc.predict(ROWS)
    stats = identity_holds(feed)
    assert stats["too_old"] == 2 == stats["errors"] and len(upstream.asked) == 2

    monkeypatch.setenv("RML_CONTROL_URL", shared_plane.url)  # the same as it was, elsewhere
    monkeypatch.setenv("RML_HOME", str(shared_plane.home))
    shared_plane.holds(1)
    eventually(lambda: feed.stats()["snapshot"]["age_s"] < 60 and feed.stats()["champion"])
    assert feed.predict(ROWS).version == 1
    feed.close()


def test_what_it_cannot_read_does_not_count_as_news(plane: Any, feed: Direct, monkeypatch: pytest.MonkeyPatch) -> None:
    before = feed._follower._confirmed
    monkeypatch.setattr(type(feed._follower), "_poll", lambda self, after: {"schema": 99})
    rml.models.get("feed/2").promote()
    eventually(lambda: "schema 99" in feed.stats()["snapshot"]["problem"])
    confirmed = feed._follower._confirmed
    time.sleep(0.3)
    assert feed._follower._confirmed == confirmed >= before and feed.predict(ROWS).version in (1, 2)


def test_exposures_are_exact_whatever_the_door_does(plane: Any, upstream: Any, door: Any) -> None:
    with rml.direct("feed", most_exposures=5) as feed:
        everybody_gets(2, plane, feed)
        for n in range(8):
            feed.predict(ROWS, unit=f"u{n}")
        assert identity_holds(feed)["exposures"] == {"offered": 8, "sent": 0, "dropped": 3, "waiting": 5}
        door.answers[:] = [503, 503, 503]
        with pytest.raises(NotRunning, match="5 exposures go on waiting"):
            feed.flush()
        assert identity_holds(feed)["exposures"]["waiting"] == 5
        feed.flush()
        feed.predict(ROWS, unit="u7")  # found no room: tried again
        door.answers[:] = [403]
        with pytest.raises(RemoteError, match="1 exposures, which are lost"):
            feed.flush()
        assert identity_holds(feed)["exposures"] == {"offered": 9, "sent": 5, "dropped": 4, "waiting": 0}
        feed.predict(ROWS, unit="last")
    assert [row[6] for row in door.rows["/v1/exposures"]] == ["u0", "u1", "u2", "u3", "u4", "last"]
    with pytest.raises(NotRunning, match="closed"):
        feed.predict(ROWS)


def test_a_unit_that_the_door_would_refuse_spoils_no_others(plane: Any, feed: Direct, door: Any) -> None:
    everybody_gets(2, plane, feed, unit="place", layer="places")
    for place in ("a\nb", "p" * 300, "\ud800", "fine"):
        assert feed.predict(ROWS, unit="u1", context={"place": place}).arms == {"new-ranker": "new"}
    assert feed.flush() == {"offered": 4, "sent": 1, "dropped": 3, "waiting": 0}
    assert [row[6] for row in door.rows["/v1/exposures"]] == ["fine"]


def test_many_threads_and_every_count_is_exact(plane: Any, feed: Direct, door: Any, upstream: Any) -> None:
    everybody_gets(2, plane, feed)
    wrong: list[Any] = []

    def work(worker: int) -> None:
        for n in range(25):
            try:
                if feed.predict(ROWS, unit=f"u{worker % 2}-{n}").version != 2:
                    wrong.append((worker, n))
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    stats = identity_holds(feed)
    assert stats["requests"] == 200 == len(upstream.asked) and stats["servers"]["local"]["in_flight"] == 0
    assert feed.flush()["sent"] == 50 == len({row[6] for row in door.rows["/v1/exposures"]})


def test_a_forked_process_asks_follows_and_logs_by_itself(plane: Any, feed: Direct, door: Any, upstream: Any) -> None:
    everybody_gets(2, plane, feed)
    feed.predict(ROWS, unit="parent")
    locks = [feed._asker._lock, feed._servers._lock, feed._exposures._lock, feed._follower._lock]
    for lock in locks:  # as other threads may hold them, which a child does not have
        lock.acquire()
    child = os.fork()
    if not child:  # pragma: no cover - another process
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(20)  # one that waits for a lock for ever is a failure, not a hang
        code = 1
        try:
            assert feed.predict(ROWS, unit="child").version == 2
            stats = identity_holds(feed)
            assert stats["requests"] == 1 and feed._follower._thread.is_alive()
            code = 0 if feed.close()["sent"] == 1 else 2
        finally:
            os._exit(code)
    for lock in locks:
        lock.release()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert feed.predict(ROWS, unit="parent").version == 2
    assert len(upstream.connections) == 2, "the child opened its own"
    assert feed.flush()["sent"] == 1
    assert sorted(row[6] for row in door.rows["/v1/exposures"]) == ["child", "parent"]


def test_a_client_that_nobody_holds_ends(plane: Any, upstream: Any, door: Any) -> None:
    feed = rml.direct("feed", max_age=1.0)
    follower, sender = feed._follower, feed._exposures._sender
    del feed
    gc.collect()
    assert follower._stop.is_set() and sender._closed.is_set()
    eventually(lambda: not follower._thread.is_alive())


def test_texts_are_the_doors(plane: Any, upstream: Any, door: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    document = plane.client.snapshot()
    document["policy"]["endpoints"]["feed"]["preprocess"] = {"kind": "text", "files": {}}
    monkeypatch.setattr(following.Follower, "_poll", lambda self, after: document)
    with pytest.raises(NeedsDoor, match=r"(?s)the door prepares its requests \(text\).*rml\.endpoint\('feed'\)"):
        rml.direct("feed")


def test_over_grpc(plane: Any, upstream: Any, door: Any) -> None:
    grpc = pytest.importorskip("grpc")
    from concurrent.futures import ThreadPoolExecutor

    from tritonclient.grpc import service_pb2 as v2

    asked: list[Any] = []

    def infer(request: Any, context: Any) -> Any:
        asked.append((request.model_name, request.model_version, dict(context.invocation_metadata())))
        if request.model_version == "2":
            context.abort(grpc.StatusCode.INTERNAL, "broken")
        if request.inputs[0].shape[0] == 3:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "three are too many")
        output = v2.ModelInferResponse.InferOutputTensor(name="y", datatype="FP32", shape=[1, 2])
        return v2.ModelInferResponse(outputs=[output], raw_output_contents=[b"\0\0\x80?\0\0\0@"])

    server = grpc.server(ThreadPoolExecutor(2))
    handler = grpc.unary_unary_rpc_method_handler(
        infer, v2.ModelInferRequest.FromString, v2.ModelInferResponse.SerializeToString
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("inference.GRPCInferenceService", {"ModelInfer": handler}),)
    )
    plane.addresses["local"] = (upstream.address, f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
    server.start()
    plane.holds(1, 2)
    with rml.direct("feed") as feed:
        assert feed.grpc.predict(ROWS).outputs["y"] == [[1.0, 2.0]]
        assert asked[0][:2] == ("feed.1", "1") and not [name for name in asked[0][2] if name.startswith("x-rml")]
        everybody_gets(2, plane, feed)
        prediction = feed.grpc.predict(ROWS, unit="spieler-ü")
        assert (
            prediction.version == 1
            and prediction.fallback
            and [name for name, _, _ in asked[1:]] == ["feed.2", "feed.1"]
        )
        with pytest.raises(RemoteError, match="three are too many"):
            feed.grpc.predict({"X": [[1.0, 2.0]] * 3})
        request = v2.ModelInferRequest(model_name="whatever")
        request.inputs.add(name="X", datatype="FP32", shape=[1, 2])
        assert feed.grpc.infer(request).outputs[0].name == "y" and request.model_name == "whatever"
        server.stop(0).wait()
        with pytest.raises(NotRunning, match="UNAVAILABLE"):
            feed.grpc.predict(ROWS, timeout=5)
        identity_holds(feed)
