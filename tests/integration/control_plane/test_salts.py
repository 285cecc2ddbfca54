"""Layers and holdouts that are made again draw their units anew: a real control plane, over both databases, also after it restarted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from roblox_ml_core.policy import decide, read_policy
from roblox_ml_core.registry import RegistryClient

UNITS = [f"user-{number}" for number in range(20_000)]
ARMS: dict[str, Any] = {"control": {"weight": 5000}, "new": {"weight": 5000, "params": {"k": 20}}}
SHARE = 2000  # of 10,000


def begin(client: RegistryClient) -> None:
    client.put_layer("ranking", "user_id")
    client.put_experiment("ranker", {"endpoint": "feed", "layer": "ranking", "share": SHARE, "arms": ARMS})


def inside(client: RegistryClient) -> set[str]:
    """The units that are in any arm."""
    policy = read_policy(client.snapshot()["policy"])
    assert policy.findings == ()
    return {unit for unit in UNITS if decide(policy, "feed", unit).arms}


def test_units_of_a_layer_or_holdout_made_again_are_drawn_anew_and_nobody_moves_before(
    planes: Callable[..., Any], database: dict[str, str], package: Callable[..., dict[str, Any]]
) -> None:
    plane = planes(**database)
    client = plane.client()
    client.register("scale", {**package(1.0), "alias": "champion"})
    client.put_endpoint("feed", "scale", alias="champion")
    begin(client)
    first = inside(client)
    assert client.snapshot()["policy"]["layers"]["ranking"]["salt"] == "layer/ranking", "as it always was"

    client.put_layer("other", "user_id")
    client.delete_layer("other")
    plane.stop()
    plane = planes(**database)
    client = plane.client()
    assert inside(client) == first, "another layer's end moves nobody, nor does a restart"

    client.stop_experiment("ranker", "enough")
    client.delete_layer("ranking")
    begin(client)
    second = inside(client)
    assert client.snapshot()["policy"]["layers"]["ranking"]["salt"] == "layer/ranking/1"
    # Independent: a fifth of a fifth is in both. (All of them are, where the salt is the same.)
    expected = len(UNITS) * (SHARE / 10_000) ** 2
    assert abs(len(first & second) - expected) < 6 * expected**0.5

    client.put_holdout("nobody", SHARE)
    held = second - inside(client)
    client.delete_holdout("nobody")
    assert inside(client) == second
    client.put_holdout("nobody", SHARE)
    again = second - inside(client)
    expected = len(second) * (SHARE / 10_000) ** 2
    assert held and again and abs(len(held & again) - expected) < 6 * expected**0.5
