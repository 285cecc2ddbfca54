"""Deployments move and processes die under load: nothing fails that need not, and everything comes back."""

from __future__ import annotations

import httpx
import pytest

pytestmark = [pytest.mark.triton, pytest.mark.slow]

BODY = {"inputs": [{"name": "TEXT", "datatype": "BYTES", "shape": [1], "data": ["good game"]}]}


def loads(world) -> int:
    return world.log("triton").count("loading: ")


def test_rollback_and_promotion_under_load_fail_nothing_and_load_nothing(world, sdk, load) -> None:
    endpoint = sdk.endpoint("text")
    assert loads(world) > 0
    before = loads(world)
    with load(f"{world.door}/v2/models/text/infer", BODY) as running:
        for version in (1, 2, 1, 2):
            if version == 1:
                assert endpoint.rollback().version == 1
            else:
                assert endpoint.promote(2).version == 2
            seen = running.versions[str(version)]
            running.wait(lambda: running.versions[str(version)] > seen)
    assert set(running.outcomes) == {"200"}, (running.outcomes, running.messages)
    assert loads(world) == before


def test_a_deployment_that_the_model_server_refuses_says_why_and_changes_nothing(world, sdk, build, tmp_path) -> None:
    from roblox_ml.errors import NotFound, RemoteError

    liar = world.publish(build["text"](tmp_path / "liar", seed=2, expected=lambda scores: scores[:, ::-1]), "text")
    said: list[str] = []
    with pytest.raises(RemoteError, match="known answer") as refused:
        sdk.deploy(f"text/{liar}", "text", say=said.append)
    assert "text/2 goes on answering" in str(refused.value)
    assert sdk.endpoint("text").status()["version"] == 2  # put back, not only answered by what was kept
    assert sdk.endpoint("text").predict(["good"]).version == 2
    deployed = sdk.deploy("text/2", "text", say=said.append)
    assert deployed.version == 2
    other = sdk.deploy("text/1", "other", say=said.append)
    assert other.predict(["good"]).version == 1
    sdk.undeploy("other")
    with pytest.raises(NotFound):
        sdk.endpoint("other")
    with pytest.raises(NotFound):
        sdk.deploy("nothing@champion", say=said.append)
    with pytest.raises(NotFound):
        while True:  # until the door has heard of it
            other.predict(["good"])


def test_a_killed_triton_is_said_clearly_and_answers_again(world, load) -> None:
    with load(f"{world.door}/v2/models/text/infer", BODY) as running:
        world.kill("triton")
        running.wait(lambda: running.outcomes["503"] > 0)
        world.start("triton")
        answered = running.outcomes["200"]
        running.wait(lambda: running.outcomes["200"] > answered, 120)
        assert world.serving_version("text") == "2"
    assert set(running.outcomes) <= {"200", "503"}, running.outcomes
    assert all("ask again in a moment" in message for message in running.messages), running.messages


def test_a_killed_door_answers_again_even_while_the_control_plane_is_dead(world, load) -> None:
    with load(f"{world.door}/v2/models/text/infer", BODY) as running:
        world.kill("control")
        world.kill("door")
        running.wait(lambda: running.outcomes.total() > running.outcomes["200"])
        world.start("door")
        answered = running.outcomes["200"]
        running.wait(lambda: running.outcomes["200"] > answered, 60)
    world.start("control")
    assert set(running.outcomes) <= {"200", "ConnectError", "ReadError", "RemoteProtocolError", "WriteError"}, (
        running.outcomes
    )
    assert httpx.get(f"{world.door}/v2/health/ready").status_code == 200
