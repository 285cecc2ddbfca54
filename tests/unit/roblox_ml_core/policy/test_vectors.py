"""The published vectors, checked by a second implementation written from the page alone: no line of the package decides here."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from roblox_ml_core.policy import bucket, decide, digest_of, read_policy, seed_of

VECTORS = json.loads(
    (Path(__file__).resolve().parents[4] / "docs/formats/policy-vectors.json").read_text(encoding="utf-8")
)
MASK = 2**64 - 1
P1, P2, P3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
P4, P5 = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5


def rotate(value: int, by: int) -> int:
    return ((value << by) | (value >> (64 - by))) & MASK


def rounded(lane: int, word: int) -> int:
    return rotate((lane + word * P2) & MASK, 31) * P1 & MASK


def plain_xxh64(data: bytes, seed: int) -> int:
    """XXH64 as its specification has it."""
    rest, length = data, len(data)
    if length >= 32:
        lanes = [(seed + P1 + P2) & MASK, (seed + P2) & MASK, seed, (seed - P1) & MASK]
        while len(rest) >= 32:
            lanes = [rounded(lane, int.from_bytes(rest[8 * i : 8 * i + 8], "little")) for i, lane in enumerate(lanes)]
            rest = rest[32:]
        value = sum(rotate(lane, by) for lane, by in zip(lanes, (1, 7, 12, 18), strict=True)) & MASK
        for lane in lanes:
            value = ((value ^ rounded(0, lane)) * P1 + P4) & MASK
    else:
        value = (seed + P5) & MASK
    value = (value + length) & MASK
    while len(rest) >= 8:
        value = (rotate(value ^ rounded(0, int.from_bytes(rest[:8], "little")), 27) * P1 + P4) & MASK
        rest = rest[8:]
    if len(rest) >= 4:
        value = (rotate(value ^ (int.from_bytes(rest[:4], "little") * P1 & MASK), 23) * P2 + P3) & MASK
        rest = rest[4:]
    for byte in rest:
        value = rotate(value ^ (byte * P5 & MASK), 11) * P1 & MASK
    value = (value ^ (value >> 33)) * P2 & MASK
    value = (value ^ (value >> 29)) * P3 & MASK
    return value ^ (value >> 32)


def plain_bucket(salt: str, unit: str) -> int:
    seed = int.from_bytes(hashlib.sha256(salt.encode()).digest()[:8], "big")
    return plain_xxh64(unit.encode(), seed) * 10_000 // 2**64


def plain_decide(policy: dict[str, Any], endpoint: str, unit_id: str | None, context: dict[str, Any]) -> dict[str, Any]:
    entry = policy["endpoints"][endpoint]
    answer = {
        "ref": f"{entry['model']}/{entry['version']}", "role": "champion", "arms": [], "params": {}, "shadows": [],
        "log_rate": entry.get("log", {}).get("rate", 10_000),
    }  # fmt: skip
    if endpoint in policy["kill"]["endpoints"]:
        return answer

    def value_of(unit: str) -> str | None:
        value = unit_id if unit == entry.get("unit", "user_id") else context.get(unit)
        return value if isinstance(value, str) and value else None

    for layer_name in sorted(policy["layers"]):
        layer, value = policy["layers"][layer_name], value_of(policy["layers"][layer_name]["unit"])
        if policy["kill"]["experiments"] or value is None:
            continue
        covering = [h for h in policy["holdouts"].values() if not h["layers"] or layer_name in h["layers"]]
        if any((held := value_of(h["unit"])) and plain_bucket(h["salt"], held) < h["share"] for h in covering):
            continue
        at = plain_bucket(layer["salt"], value)
        for name, experiment in policy["experiments"].items():
            mine = experiment["layer"] == layer_name and experiment["endpoint"] == endpoint
            if not mine or not any(low <= at < high for low, high in experiment["ranges"]):
                continue
            if not plain_holds(experiment["targeting"], context):
                continue
            spot, total = plain_bucket(experiment["salt"], value), 0
            for arm in experiment["arms"]:
                total += arm["weight"]
                if spot < total:
                    break
            answer["arms"].append([name, arm["name"]])
            answer["params"].update(arm["params"])
            if arm["ref"]:
                answer |= {"ref": arm["ref"], "role": "arm"}
    canary, request = entry.get("canary"), context.get("inference_id")
    if canary and answer["role"] == "champion" and not policy["kill"]["canaries"]:
        key = unit_id or request
        if key and plain_bucket(canary["salt"], key) < canary["share"]:
            answer |= {"ref": canary["ref"], "role": "canary"}
    for shadow in entry.get("shadows", ()):
        key = request or unit_id
        if not key or policy["kill"]["shadows"] or shadow["ref"] in (answer["ref"], *answer["shadows"]):
            continue
        if plain_bucket(shadow["salt"], key) < shadow["share"]:
            answer["shadows"].append(shadow["ref"])
    return answer


def plain_holds(targeting: dict[str, dict[str, Any]], context: dict[str, Any]) -> bool:
    def kind(value: Any) -> str:
        return "number" if type(value) in (int, float) else type(value).__name__

    def one(given: Any, name: str, value: Any) -> bool:
        if name == "exists":
            return (given is not None) == value
        if name in ("in", "not_in"):
            found = any(kind(given) == kind(v) and given == v for v in value)
            return kind(given) in ("number", "str", "bool") and found == (name == "in")
        if kind(given) != kind(value):
            return False
        return {
            "eq": lambda: given == value, "ne": lambda: given != value, "lt": lambda: given < value,
            "lte": lambda: given <= value, "gt": lambda: given > value, "gte": lambda: given >= value,
            "prefix": lambda: given.startswith(value),
        }[name]()  # fmt: skip

    return all(one(context.get(a), name, v) for a, conditions in targeting.items() for name, v in conditions.items())


def shown(decision: Any) -> dict[str, Any]:
    return {
        "ref": decision.ref.key, "role": decision.role, "arms": [list(pair) for pair in decision.arms],
        "params": dict(decision.params), "shadows": [ref.key for ref in decision.shadows], "log_rate": decision.log_rate,
    }  # fmt: skip


def test_seeds_and_buckets() -> None:
    for entry in VECTORS["seeds"]:
        assert seed_of(entry["salt"]) == int(entry["seed"])
    for entry in VECTORS["buckets"]:
        seed = seed_of(entry["salt"])
        assert plain_xxh64(entry["unit"].encode(), seed) == int(entry["xxh64"])
        assert bucket(seed, entry["unit"]) == plain_bucket(entry["salt"], entry["unit"]) == entry["bucket"]


def test_decisions() -> None:
    policy = read_policy(VECTORS["policy"])
    assert policy.findings == () and policy.digest == digest_of(VECTORS["policy"]) == VECTORS["digest"]
    roles = set()
    for entry in VECTORS["questions"]:
        question = (entry["endpoint"], entry["unit_id"], entry["context"])
        assert shown(decide(policy, *question)) == entry["decision"], question
        assert plain_decide(VECTORS["policy"], *question) == entry["decision"], question
        roles.add(entry["decision"]["role"])
    assert roles == {"champion", "canary", "arm"}


@pytest.mark.parametrize("which", range(3))
def test_what_is_switched_off(which: int) -> None:
    entry = VECTORS["killed"][which]
    document = {**VECTORS["policy"], "kill": {**VECTORS["policy"]["kill"], entry["kill"]: True}}
    policy = read_policy(document)
    for asked in entry["questions"]:
        question = (asked["endpoint"], asked["unit_id"], asked["context"])
        assert shown(decide(policy, *question)) == plain_decide(document, *question) == asked["decision"]
