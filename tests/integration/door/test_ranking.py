"""A ranking endpoint on the real stack: control plane, Triton, agent, door, and a feature server that is slowed down and killed."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tritonclient.grpc as grpc_client

import roblox_ml as rml
from roblox_ml._endpoint import Endpoint
from roblox_ml._predict import InputError

pytestmark = pytest.mark.triton

_SPEC = importlib.util.spec_from_file_location("door_conftest", Path(__file__).with_name("conftest.py"))
assert _SPEC is not None and _SPEC.loader is not None
_door = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = _door
_SPEC.loader.exec_module(_door)
_serving = _door._serving

VIEWS = {
    "user_profile": {"of": "user", "features": {"taste": 0.5}, "ttl_s": 600},
    "item_stats": {"of": "item", "features": {"ctr": 0.25, "price": 8.0}, "ttl_s": 600},
    "item_live": {"of": "item", "features": {"heat": 2.0}, "ttl_s": 0, "max_age_s": 3600},
}
DEFAULTS = {"taste": 0.5, "ctr": 0.25, "price": 8.0, "heat": 2.0, "hour": 12.0}
WEIGHTS = {1: [4.0, 32.0, -0.5, 1.0, 0.25], 2: [4.0, -32.0, 0.5, 1.0, 0.25]}
USERS = {"ann": 2.0, "bob": -1.0}
CTR = {item: item / 64 for item in range(100)}
PRICE = {item: float(item % 7) for item in range(100) if item % 10}  # every tenth has none
HEAT = {item: item % 5 / 2 for item in range(100)}
OLD = {item for item in range(100) if item % 9 == 0}  # their heat is of yesterday


def expected(
    version: int, user: str, items: list[int], hour: float | None, gone: tuple[str, ...] = ()
) -> tuple[dict[int, float], int]:
    """Every item's score, and how many values are defaults, computed the long way; `gone`: features nobody answers for."""
    taste, scores = USERS.get(user), {}
    defaulted = (taste is None or "taste" in gone) + (hour is None)
    for item in dict.fromkeys(items):
        found: dict[str, float | None] = {
            "taste": taste, "ctr": CTR.get(item), "price": PRICE.get(item),
            "heat": None if item in OLD else HEAT.get(item), "hour": hour,
        }  # fmt: skip
        found |= dict.fromkeys(gone)
        defaulted += sum(found[name] is None for name in ("ctr", "price", "heat"))
        row = [DEFAULTS[name] if value is None else value for name, value in found.items()]
        scores[item] = float(np.dot(row, WEIGHTS[version]))
    return scores, defaulted


@dataclass
class World:
    """The stack, and the feature server beside it."""

    stack: Any
    views: Path
    port: int
    process: subprocess.Popen[str] | None = None

    def features(self, *options: str) -> None:
        """Start the feature server, in place of one that runs."""
        self.kill()
        files = [str(self.views / f"{name}.parquet") for name in VIEWS]
        command = [sys.executable, "-m", "roblox_ml_serving.ranking.stub", *files, "--port", str(self.port), *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=self.stack.env)
        assert self.process.stdout is not None and str(self.port) in self.process.stdout.readline()

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None

    def post(self, user: str, items: list[int], hour: float | None = None, **headers: str) -> httpx.Response:
        context = {} if hour is None else {"hour": hour}
        tensors = {
            "USER": ("BYTES", [user]),
            "CANDIDATES": ("INT64", items),
            "CONTEXT": ("BYTES", [json.dumps(context)]),
        }
        inputs = [
            {"name": name, "datatype": kind, "shape": [len(data)], "data": data}
            for name, (kind, data) in tensors.items()
        ]
        url = f"{self.stack.door}/v2/models/feed/infer"
        return httpx.post(
            url, json={"inputs": inputs}, timeout=20, headers={k.replace("_", "-"): v for k, v in headers.items()}
        )

    def rest(
        self, user: str, items: list[int], hour: float | None = None, **headers: str
    ) -> tuple[list[int], list[float], int]:
        answer = self.post(user, items, hour, **headers)
        assert answer.status_code == 200, answer.text
        document = answer.json()
        named = {one["name"]: one["data"] for one in document["outputs"]}
        return named["ITEMS"], named["SCORES"], document["parameters"]["features_defaulted"]

    def grpc(self, user: str, items: list[int], hour: float | None = None) -> tuple[list[int], list[float], int]:
        with grpc_client.InferenceServerClient(self.stack.door_grpc) as client:
            context = b"" if hour is None else json.dumps({"hour": hour}).encode()
            tensors = []
            for name, kind, values in (
                ("USER", "BYTES", np.array([user.encode()], object)),
                ("CANDIDATES", "INT64", np.array(items, np.int64)),
                ("CONTEXT", "BYTES", np.array([context], object)),
            ):
                tensors.append(grpc_client.InferInput(name, [len(values)], kind))
                tensors[-1].set_data_from_numpy(values)
            result = client.infer("feed", tensors)
            count = result.get_response().parameters["features_defaulted"].int64_param
            return result.as_numpy("ITEMS").tolist(), result.as_numpy("SCORES").tolist(), count

    def count(self, name: str, **labels: str) -> float:
        """A counter of the door, summed over the labels not given."""
        total = 0.0
        for line in httpx.get(f"{self.stack.door}/metrics").text.splitlines():
            match = re.fullmatch(rf"rml_door_ranking_{name}(?:{{(.*)}})? (\S+)", line)
            if match and all(f'{key}="{value}"' in (match[1] or "") for key, value in labels.items()):
                total += float(match[2])
        return total


def package(version: int, k: int = 3, **changes: dict[str, Any]) -> Any:
    from onnx import TensorProto, helper, numpy_helper
    from roblox_ml_core.package import read

    weights = np.array(WEIGHTS[version], np.float32).reshape(5, 1)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["X", "W"], ["score"])],
        "linear",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["rows", 5])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["rows", 1])],
        [numpy_helper.from_array(weights, "W")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    scorer = rml.Model.from_onnx(model, examples=np.eye(5, dtype=np.float32))
    views = {name: {**view, **changes.get(name, {})} for name, view in VIEWS.items()}
    return read(scorer.ranking(views=views, context={"hour": 12.0}, candidates="INT64", k=k).path)


def write_views(folder: Path) -> None:
    folder.mkdir()
    now = datetime.now(UTC)
    tables = {
        "user_profile": {"key": list(USERS), "taste": list(USERS.values())},
        "item_stats": {"key": list(CTR), "ctr": list(CTR.values()), "price": [PRICE.get(item) for item in CTR]},
        "item_live": {
            "key": list(HEAT), "heat": list(HEAT.values()),
            "event_time": [now - timedelta(days=1) if item in OLD else now for item in HEAT],
        },
    }  # fmt: skip
    for name, columns in tables.items():
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    if not (_serving.TRITON_DIR / ".rml-complete").is_file():
        pytest.skip(f"no Triton environment at {_serving.TRITON_DIR}: `make setup` installs it")
    root = tmp_path_factory.mktemp("ranking")
    write_views(root / "views")
    stack = _door.DoorStack(root / "home")
    world = World(stack, root / "views", _serving.free_port())
    stack.settings["RML_FEATURES_URL"] = f"http://127.0.0.1:{world.port}"
    try:
        for name in ("control", "triton", "agent", "door"):
            stack.start(name)
        world.features()
        with stack.client() as client:
            _serving.wait_for("control plane", client.ready)
        assert [stack.publish(package(version), "feed") for version in (1, 2)] == [1, 2]
        with stack.client() as client:
            client.put_endpoint("feed", "feed", version=2)
            client.put_endpoint("feed", "feed", version=1)  # both stay resident
        stack.wait_ready("feed/1", timeout=60)
        _serving.wait_for("the door answers", lambda: stack.serving_version("feed") == "1", 60)
        yield world
    finally:
        world.kill()
        stack.stop()


@pytest.fixture(autouse=True)
def fresh(world: World) -> None:
    """The feature server runs, and the door has noticed."""
    if world.process is None:
        world.features()
        _serving.wait_for("features come again", lambda: world.rest("bob", [1])[2] == 1, 20)


ITEMS = [3, 14, 15, 9, 26, 53, 58, 97, 93, 20, 90, 500, 14]  # some old, some without a price, one unknown, one twice


@pytest.mark.parametrize(("user", "hour"), [("ann", 17.0), ("bob", None), ("eve", 3.5)])
def test_rest_grpc_and_the_long_way_agree(world: World, user: str, hour: float | None) -> None:
    scores, defaulted = expected(1, user, ITEMS, hour)
    best = sorted(scores, key=lambda item: -scores[item])[:3]
    for ask in (world.rest, world.grpc):
        items, found, count = ask(user, ITEMS, hour)
        assert items == best and count == defaulted
        np.testing.assert_allclose(found, [scores[item] for item in best], rtol=1e-6)


def test_the_sdk_ranks(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RML_DOOR_URL", world.stack.door)
    monkeypatch.setenv("RML_DOOR_GRPC", world.stack.door_grpc)
    endpoint = Endpoint("feed")
    items, scores, defaulted = world.rest("ann", [11, 12, 13, 20], 17.0)
    best = endpoint.rank("ann", [11, 12, 13, 20], {"hour": 17})
    assert (best.items, best.defaulted, best.version) == (items, defaulted, 1)
    assert best.scores == pytest.approx(scores)
    over_grpc = endpoint.grpc.predict({"USER": ["ann"], "CANDIDATES": [11, 12, 13, 20], "CONTEXT": ['{"hour": 17}']})
    assert over_grpc.outputs["ITEMS"] == items and over_grpc.parameters["features_defaulted"] == defaulted
    ranked = endpoint.grpc.rank("ann", [11, 12, 13, 20], {"hour": 17})
    assert (ranked.items, ranked.defaulted, ranked.version) == (items, defaulted, 1)
    with pytest.raises(InputError, match="ids are integers"):
        endpoint.grpc.rank("ann", ["eleven"])
    nobody = endpoint.rank(None, [])
    assert list(nobody) == []


def test_what_is_a_default_is_counted_by_feature_and_reason(world: World) -> None:
    def defaulted() -> dict[str, float]:
        pairs = {"item_live.heat": "stale", "item_stats.price": "missing", "user_profile.taste": "missing"}
        return {f: world.count("defaulted_total", endpoint="feed", feature=f, reason=why) for f, why in pairs.items()}

    before = defaulted()
    world.rest("eve", [9, 10, 20, 11], 1.0)
    after = defaulted()
    assert {name: after[name] - before[name] for name in after} == {
        "item_live.heat": 1, "item_stats.price": 2, "user_profile.taste": 1,
    }  # fmt: skip


def test_clients_see_the_ranker_s_tensors(world: World) -> None:
    document = httpx.get(f"{world.stack.door}/v2/models/feed").json()
    assert [(one["name"], one["datatype"]) for one in document["inputs"]] == [
        ("USER", "BYTES"), ("CANDIDATES", "INT64"), ("CONTEXT", "BYTES"),
    ]  # fmt: skip
    with grpc_client.InferenceServerClient(world.stack.door_grpc) as client:
        outputs = client.get_model_metadata("feed").outputs
    assert [(one.name, one.datatype) for one in outputs] == [("ITEMS", "INT64"), ("SCORES", "FP32")]
    answer = world.post("ann", [])
    assert answer.status_code == 200 and [one["data"] for one in answer.json()["outputs"]] == [[], []]
    assert "more than 10000" in world.post("ann", list(range(10_001))).json()["error"]


def test_a_thousand_candidates_and_an_arm_that_shows_more(world: World) -> None:
    many = list(range(1000))
    scores, _ = expected(1, "ann", many, 1.0)
    with world.stack.client() as client:
        client.put_layer("ranking", "user_id")
        arms = {"control": {"ref": None, "weight": 0}, "wide": {"ref": None, "weight": 10_000, "params": {"k": 20}}}
        try:
            client.put_experiment("wider", {"endpoint": "feed", "layer": "ranking", "share": 10_000, "arms": arms})
            _serving.wait_for("the arm", lambda: len(world.rest("ann", many, 1.0, x_rml_unit="u1")[0]) == 20, 20)
            items, found, _ = world.rest("ann", many, 1.0, x_rml_unit="u1")
        finally:
            client.stop_experiment("wider")
    assert items == sorted(scores, key=lambda item: -scores[item])[:20]
    np.testing.assert_allclose(found, [scores[item] for item in items], rtol=1e-6)
    assert len(world.rest("ann", many, 1.0)[0]) == 3  # without a unit there is no arm


def test_a_feature_server_that_is_killed_costs_defaults_and_no_answer(world: World) -> None:
    world.rest("ann", [1, 2, 3], 1.0)
    world.kill()
    for user, items, gone in (
        ("ann", [1, 2, 3], ("heat",)),
        ("new", [2061, 2062, 2063], ("taste", "ctr", "price", "heat")),
    ):
        scores, defaulted = expected(1, user, items, 1.0, gone)
        best = sorted(scores, key=lambda item: -scores[item])
        for ask in (world.rest, world.grpc):
            found = ask(user, items, 1.0)
            assert found[0] == best and found[2] == defaulted
            np.testing.assert_allclose(found[1], [scores[item] for item in best], rtol=1e-6)
    assert world.count("defaulted_total", feature="item_live.heat", reason="unanswered") >= 12
    assert world.count("fetches_failed_total") >= 3
    world.features()
    _serving.wait_for("features come again", lambda: world.rest("new", [61], 1.0)[2] == 1, 20)


def test_a_slow_feature_server_leaves_the_model_its_part_of_the_deadline(world: World) -> None:
    world.features("--delay-ms", "3000")
    try:
        items, _, defaulted = world.rest("slow", [2071, 2072], 1.0, x_rml_timeout_ms="600")
    finally:
        world.kill()
    assert items == [2071, 2072] and defaulted == 7  # 200 with what there was, not 504
    assert world.count("rows_total", view="item_live", source="unanswered") >= 2


def test_a_promotion_keeps_what_was_fetched(world: World) -> None:
    world.rest("ann", [4, 5, 6], 1.0)
    before = world.count("rows_total", view="item_stats", source="fetched")
    with world.stack.client() as client:
        client.put_endpoint("feed", "feed", version=2)
    _serving.wait_for("version 2", lambda: world.stack.serving_version("feed") == "2", 30)
    scores, _ = expected(2, "ann", [4, 5, 6], 1.0)
    assert world.rest("ann", [4, 5, 6], 1.0)[0] == sorted(scores, key=lambda item: -scores[item])
    assert world.count("rows_total", view="item_stats", source="fetched") == before


def test_a_view_that_is_required_is_missed_aloud(world: World) -> None:
    assert world.stack.publish(package(1, user_profile={"required": True}), "feed") == 3
    with world.stack.client() as client:
        client.put_endpoint("feed", "feed", version=3)
    _serving.wait_for("version 3", lambda: world.stack.serving_version("feed") == "3", 30)
    assert world.rest("eve", [1], 1.0)[2] == 1  # unknown is an answer
    world.kill()
    answer = world.post("somebody", [1], 1.0)
    assert answer.status_code == 503 and "needs the features of user_profile" in answer.json()["error"]
    assert world.rest("eve", [1], 1.0)[0] == [1]  # hers are known to be unknown
