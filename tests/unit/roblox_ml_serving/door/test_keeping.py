"""What a door keeps: a row per request, exposures that were reached, outcomes, and how far shadows are off."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import grpc
import pytest
from roblox_ml_core.records import read, read_accounts

INPUTS = {"inputs": [{"name": "y", "datatype": "FP32", "shape": [2], "data": [1.0, 2.0]}]}
REF = {3: "sentiment/3", 8: "sentiment/8", 9: "sentiment/9"}


def experiment(arm_ref: str, weight: int = 10_000) -> dict[str, Any]:
    return {
        "layer": "l", "endpoint": "sentiment", "salt": "e/1", "ranges": [[0, 10_000]],
        "arms": [{"name": "new", "weight": weight, "ref": arm_ref, "params": {}}]
        + ([{"name": "control", "weight": 10_000 - weight, "ref": None, "params": {}}] if weight < 10_000 else []),
        "targeting": {},
    }  # fmt: skip


def document(
    kit, world, *, experiments: dict | None = None, shadows: list[str] = (), log: dict | None = None, ready=(3, 8, 9)
) -> dict:
    entry = kit.endpoint("sentiment", 3) | {
        "unit": "user_id", "log": {"rate": 10_000, "data_class": "internal", "retention_days": 5, "bodies": False} | (log or {}),
        "shadows": [{"name": "s", "ref": ref, "share": 10_000, "salt": "s"} for ref in shadows],
    }  # fmt: skip
    found = kit.snapshot(
        world.control.document["generation"] + 1, {"sentiment": entry},
        world.servers(local={REF[number]: f"d{number}" for number in ready}),
    )  # fmt: skip
    found["policy"] |= {
        "versions": {ref: {"digest": f"d{number}", "preprocess": None} for number, ref in REF.items()},
        "layers": {"l": {"unit": "user_id", "salt": "l/1"}}, "experiments": experiments or {},
    }  # fmt: skip
    return found


async def publish(world, found: dict) -> None:
    world.control.publish(found)
    wanted = f"rml_door_snapshot_generation {float(found['generation'])}"
    while wanted not in (await world.client.get(f"{world.url}/metrics")).text:
        await asyncio.sleep(0.005)


async def until(world, text: str) -> None:
    while text not in (await world.client.get(f"{world.url}/metrics")).text:
        await asyncio.sleep(0.005)


def kept(rml_home: Path, stream: str) -> list[dict[str, Any]]:
    return read(str(rml_home / "records"), stream).sort_by("at_us").to_pylist()


def balanced(rml_home: Path) -> bool:
    return all(
        account.balanced and not account.buffered
        for streams in read_accounts(str(rml_home / "records")).values()
        for account in streams.values()
    )


def test_requests_exposures_and_outcomes_are_in_files_when_the_door_has_ended(with_world, kit, rml_home) -> None:
    async def scenario(world) -> None:
        await publish(world, document(kit, world, experiments={"e": experiment("sentiment/8")}, log={"bodies": True}))
        for unit in ("u1", "u1", "u2"):
            answer = await world.infer(document=INPUTS, x_rml_unit=unit)
            assert (answer.status_code, answer.headers["x-rml-arms"]) == (200, "e=new")
        assert (await world.infer("nobody")).status_code == 404
        await world.infer(document=INPUTS)  # no unit: no experiment
        events = {"events": [{"unit": "u1", "event": "click", "id": "e1"}]}
        told = await world.client.post(f"{world.url}/v1/track", json=events)
        assert (told.status_code, told.json()) == (202, {"accepted": 1, "dropped": 0})
        told = await world.client.post(f"{world.url}/v1/track", json={"events": [{"event": "click"}]})
        assert told.status_code == 400 and "events[0].unit is missing" in told.text
        mine = {"exposures": [{"endpoint": "sentiment", "experiment": "e", "arm": "new", "unit": "u9", "version": 8}]}
        assert (await world.client.post(f"{world.url}/v1/exposures", json=mine)).json() == {"accepted": 1, "dropped": 0}

    with_world(scenario)
    rows = kept(rml_home, "requests")
    assert [(row["unit"], row["version"], row["role"], row["arms"], row["code"]) for row in rows] == [
        ("u1", 8, "arm", "e=new", 200), ("u1", 8, "arm", "e=new", 200), ("u2", 8, "arm", "e=new", 200), ("", 3, "champion", "", 200),
    ]  # fmt: skip
    assert json.loads(rows[0]["request"]) == INPUTS and b'"model_name":"sentiment"' in rows[0]["response"]
    assert all(row["latency_us"] > 0 and row["protocol"] == "rest" for row in rows)
    exposures = kept(rml_home, "exposures")
    assert [(row["unit"], row["experiment"], row["arm"], row["version"]) for row in exposures] == [
        ("u1", "e", "new", 8), ("u2", "e", "new", 8), ("u9", "e", "new", 8),
    ]  # fmt: skip
    # The arrival's time: an outcome that is told the moment the answer is there is no earlier than its exposure.
    arrived = {row["inference_id"]: row["at_us"] - row["latency_us"] for row in rows}
    assert all(row["at_us"] == arrived[row["inference_id"]] for row in exposures if row["unit"] != "u9")
    assert [row["event_id"] for row in kept(rml_home, "events")] == ["e1"]
    assert balanced(rml_home)


def test_an_arm_that_was_not_reached_is_no_exposure(with_world, kit, rml_home) -> None:
    async def scenario(world) -> None:
        def answer(request):
            if "sentiment.8" in request.target:
                return 500, {}, b'{"error": "broken"}'
            return kit.identity_answer(request)

        world.triton.answer = answer
        await publish(world, document(kit, world, experiments={"e": experiment("sentiment/8")}))
        told = await world.infer(document=INPUTS, x_rml_unit="u1")
        assert told.status_code == 200 and told.headers["x-rml-fallback"] == "1"
        await publish(world, document(kit, world, experiments={"e": experiment("sentiment/8")}, ready=(3,)))
        assert (await world.infer(document=INPUTS, x_rml_unit="u2")).headers["x-rml-model-version"] == "3"

    with_world(scenario)
    assert kept(rml_home, "exposures") == []
    assert [(row["version"], row["fallback"]) for row in kept(rml_home, "requests")] == [(3, True), (3, False)]


def test_the_rate_leaves_out_and_counts(with_world, kit, rml_home) -> None:
    async def scenario(world) -> None:
        await publish(world, document(kit, world, log={"rate": 5000}))
        for number in range(40):
            await world.infer(document=INPUTS, x_rml_inference_id=f"i{number}")

    with_world(scenario)
    (streams,) = read_accounts(str(rml_home / "records")).values()
    account = streams["requests"]
    assert account.offered == 40 and account.written + account.sampled_out == 40 and 0 < account.sampled_out < 40
    assert all(row["request"] is None for row in kept(rml_home, "requests"))


@pytest.mark.parametrize("binary", [False, True])
def test_a_shadow_is_asked_after_the_answer_and_its_difference_is_kept(with_world, kit, rml_home, binary: bool) -> None:
    async def scenario(world) -> None:
        held = asyncio.Event()

        async def answer(request):
            if "sentiment.9" in request.target:
                await held.wait()
            name = request.target.split("/")[3]
            value = 2.5 if name == "sentiment.9" else 2.0
            if not binary:
                tree = {
                    "model_name": name,
                    "outputs": [{"name": "y", "datatype": "FP32", "shape": [2], "data": [1.0, value]}],
                }
                return 200, {"Content-Type": "application/json"}, json.dumps(tree, separators=(",", ":")).encode()
            import numpy as np

            output = {"name": "y", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": 8}}
            head = json.dumps({"model_name": name, "outputs": [output]}, separators=(",", ":")).encode()
            raw = np.asarray([1.0, value], dtype="<f4").tobytes()
            return 200, {"Inference-Header-Content-Length": str(len(head))}, head + raw

        world.triton.answer = answer
        await publish(world, document(kit, world, shadows=["sentiment/9"]))
        told = await world.infer(document=INPUTS, x_rml_unit="u1", x_rml_inference_id="i1")
        assert told.headers["x-rml-model-version"] == "3"  # and it came while the shadow was held
        held.set()
        await until(world, 'rml_shadow_answers_total{code="ok",endpoint="sentiment",shadow="sentiment/9"} 1.0')

    with_world(scenario)
    (row,) = kept(rml_home, "shadows")
    assert (row["inference_id"], row["version"], row["primary_version"], row["unit"]) == ("i1", 9, 3, "u1")
    assert json.loads(row["tensors_json"])["tensors"]["y"]["abs_max"] == 0.5
    assert [one["version"] for one in kept(rml_home, "requests")] == [3]  # a shadow's answer is no request


def test_a_shadow_over_grpc_and_one_that_is_broken_or_away(with_world, kit, rml_home) -> None:
    async def scenario(world) -> None:
        v2 = kit.v2

        def answer(request: Any) -> Any:
            if request.model_name == "sentiment.8":
                return grpc.StatusCode.INTERNAL
            value = [1.0, 3.0] if request.model_name == "sentiment.9" else [1.0, 2.0]
            found = v2.ModelInferResponse(model_name=request.model_name, model_version=request.model_version)
            found.outputs.add(name="y", datatype="FP32", shape=[2]).contents.fp32_contents.extend(value)
            return found

        world.grpc.answer = answer
        await publish(world, document(kit, world, shadows=["sentiment/9", "sentiment/8"]))
        async with grpc.aio.insecure_channel(world.grpc_address) as channel:
            call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            request = v2.ModelInferRequest(model_name="sentiment")
            found = v2.ModelInferResponse.FromString(await call(request.SerializeToString()))
            assert list(found.outputs[0].contents.fp32_contents) == [1.0, 2.0]
            await until(world, 'code="refused",endpoint="sentiment",shadow="sentiment/8"')
            await until(world, 'code="ok",endpoint="sentiment",shadow="sentiment/9"')
            await publish(world, document(kit, world, shadows=["sentiment/9"], ready=(3,)))
            await call(request.SerializeToString())
            await until(world, 'code="refused",endpoint="sentiment",shadow="sentiment/9"')

    with_world(scenario)
    codes = {(row["version"], row["code"]) for row in kept(rml_home, "shadows")}
    assert codes == {(9, "ok"), (8, "refused"), (9, "refused")}
    assert [row["protocol"] for row in kept(rml_home, "requests")] == ["grpc", "grpc"]


def test_a_door_that_keeps_nothing(with_world, rml_home, monkeypatch) -> None:
    monkeypatch.setenv("RML_RECORDS_ENABLED", "false")

    async def scenario(world) -> None:
        assert (await world.infer(document=INPUTS)).status_code == 200
        told = await world.client.post(f"{world.url}/v1/track", json={"events": [{"unit": "u", "event": "x"}]})
        assert told.json() == {"accepted": 0, "dropped": 1}

    with_world(scenario)
    assert not (rml_home / "records").exists()


def test_an_exposure_that_found_no_room_is_tried_again(tmp_path) -> None:
    from roblox_ml_core.policy import Decision, Ref
    from roblox_ml_core.policy.model import Arm
    from roblox_ml_core.records import Records
    from roblox_ml_core.settings import DoorSettings, RecordsSettings
    from roblox_ml_serving.door.keeping import Keeper
    from roblox_ml_serving.door.recording import Served
    from roblox_ml_serving.door.service import Door
    from roblox_ml_serving.door.shadowing import NullShadows
    from roblox_ml_serving.door.snapshot import Target, Version

    records = Records(str(tmp_path / "r"), door="d", settings=RecordsSettings(keep_free_bytes=0, buffer_rows=1))
    keeper = Keeper(Door(DoorSettings()), records, NullShadows())
    ref = Ref("feed", 7)

    def ask(unit: str) -> int:
        arms = (Arm(("e", "a"), 10_000, None), Arm(("f", "b"), 10_000, None))
        decision = Decision("feed", ref, ref, "arm", reached=arms, subjects=(("user_id", unit),) * 2)
        served = Served("i", "rest", unit, decision)
        served.reached(Target("feed", Version("feed", 7), ("a",), True), 200, fallback=False)
        keeper.record(served, 0.001, b"", b"")
        return records.exposures.accounts().offered

    assert ask("u1") == 2  # the second found no room
    assert ask("u1") == 3  # and is offered again, alone
    records.exposures.settle(records.exposures.take(), "written")
    assert ask("u1") == 4 and ask("u1") == 4
    assert records.exposures.accounts().buffered == 1
    records._counters.release()
