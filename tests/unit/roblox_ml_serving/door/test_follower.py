"""The door and its control plane: news is used at once, silence is survived, a restart remembers."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest
import uvloop
from roblox_ml_serving.door.follower import load_stored, store
from roblox_ml_serving.door.snapshot import SnapshotInvalid, Version


def test_an_alias_move_is_seen_without_waiting_for_the_poll_to_end(with_world, kit) -> None:
    async def scenario(world) -> None:
        # The poll waits for an hour: only the long poll's own answer can bring the news.
        await world.publish(
            {"sentiment": kit.endpoint("sentiment", 4)}, world.servers(local={"sentiment/3": "d3", "sentiment/4": "d4"})
        )
        assert (await world.infer()).headers["x-rml-model-version"] == "4"
        await world.publish(
            {"sentiment": kit.endpoint("sentiment", 3)}, world.servers(local={"sentiment/3": "d3", "sentiment/4": "d4"})
        )
        assert (await world.infer()).headers["x-rml-model-version"] == "3"

    with_world(scenario, poll_wait_s=3600)


def test_moves_under_load_fail_no_request(with_world, kit) -> None:
    async def scenario(world) -> None:
        both = {"sentiment/3": "d3", "sentiment/4": "d4"}
        stop, codes, versions = asyncio.Event(), set(), set()

        async def client() -> None:
            while not stop.is_set():
                response = await world.infer()
                codes.add(response.status_code)
                versions.add((response.headers["x-rml-model-version"], response.json()["model_version"]))

        tasks = [asyncio.create_task(client()) for _ in range(4)]
        for version in (4, 3, 4, 3):
            await world.publish({"sentiment": kit.endpoint("sentiment", version)}, world.servers(local=both))
        stop.set()
        await asyncio.gather(*tasks)
        assert codes == {200}
        assert versions <= {("3", "3"), ("4", "4")}

    with_world(scenario)


def test_a_door_outlives_its_control_plane_and_follows_the_next_one(with_world, kit) -> None:
    async def scenario(world) -> None:
        port = int(world.control.http.address.rpartition(":")[2])
        await world.control.http.stop()
        for _ in range(5):
            assert (await world.infer()).status_code == 200
        # A restored database counts from a lower generation: the door takes what is current.
        world.control.document = kit.snapshot(
            0, {"renamed": kit.endpoint("sentiment", 3)}, world.servers(local={"sentiment/3": "d3"})
        )
        await world.control.http.start(port)
        while (await world.infer("renamed")).status_code != 200:
            await asyncio.sleep(0.02)
        assert (await world.infer()).status_code == 404

    with_world(scenario, poll_wait_s=0.2)


@pytest.mark.parametrize(
    "answer", [(200, {}, b"[]"), (200, {}, b"{"), (200, {}, b"{}"), (401, {}, b"{}"), (500, {}, b""), None]
)
def test_nonsense_from_the_control_plane_changes_nothing(with_world, answer) -> None:
    async def scenario(world) -> None:
        asked = asyncio.Event()

        def nonsense(request):
            asked.set()
            return answer

        world.control.http.answer = nonsense
        await asyncio.wait_for(asked.wait(), 10)
        assert (await world.infer()).status_code == 200

    with_world(scenario, poll_wait_s=0.05)


def test_the_token_is_sent(with_world) -> None:
    async def scenario(world) -> None:
        assert {request.headers["authorization"] for request in world.control.http.requests} == {"Bearer t"}

    with_world(scenario)


def test_a_new_door_answers_from_the_stored_snapshot_when_the_control_plane_is_dead(kit, rml_home, free_port) -> None:
    dead = f"http://127.0.0.1:{free_port()}"

    async def main() -> None:
        triton, rpc = await kit.HttpStub(kit.identity_answer).start(), await kit.GrpcStub().start()
        # Version 4 is wished for and not ready, nothing is `previous`: only memory says that 3 answers.
        servers = {"local": {"http": triton.address, "grpc": rpc.address, "ready": {"m/3": "d3"}}}
        document = kit.snapshot(7, {"e": kit.endpoint("m", 4)}, servers)
        store(rml_home / "serving" / "snapshot.json", document, {"e": Version("m", 3, "d3")})
        async with kit.running_door(dead, rml_home) as (url, _), httpx.AsyncClient() as client:
            response = await client.post(f"{url}/v2/models/e/infer", json={"inputs": []})
            assert (response.status_code, response.headers["x-rml-model-version"]) == (200, "3")
            assert (await client.get(f"{url}/v2/health/ready")).status_code == 200
        await triton.stop()
        await rpc.stop()

    uvloop.run(asyncio.wait_for(main(), 30))


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"schema": 9}', '{"schema": 1, "snapshot": {}, "serving": {}, "saved_at": 0}']
)
def test_a_damaged_file_does_not_keep_the_door_from_starting(kit, rml_home, free_port, content: str) -> None:
    path = rml_home / "serving" / "snapshot.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)

    async def main() -> None:
        async with (
            kit.running_door(f"http://127.0.0.1:{free_port()}", rml_home) as (url, _),
            httpx.AsyncClient() as client,
        ):
            assert (await client.get(f"{url}/v2/health/live")).status_code == 200
            assert (await client.get(f"{url}/v2/health/ready")).status_code == 503
            refused = await client.post(f"{url}/v2/models/e/infer", json={})
            assert (refused.status_code, "no snapshot" in refused.json()["error"]) == (503, True)

    uvloop.run(asyncio.wait_for(main(), 30))


def test_the_snapshot_is_stored_whole_with_what_answered(with_world, rml_home) -> None:
    async def scenario(world) -> None:
        path = rml_home / "serving" / "snapshot.json"
        # The door may have stored the generation before this one first.
        while not path.exists() or load_stored(path)[0]["generation"] < world.control.document["generation"]:
            await asyncio.sleep(0.01)
        document, kept, _ = load_stored(path)
        assert document == world.control.document
        assert kept == {"sentiment": Version("sentiment", 3, "d3")}
        assert [entry.name for entry in path.parent.iterdir()] == ["snapshot.json"]

    with_world(scenario)


def test_a_file_of_another_schema_is_named(tmp_path) -> None:
    path = tmp_path / "snapshot.json"
    path.write_text(json.dumps({"schema": 2}))
    with pytest.raises(SnapshotInvalid, match="schema 2"):
        load_stored(path)
