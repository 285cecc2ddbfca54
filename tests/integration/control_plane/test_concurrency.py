"""Many writers at once: real processes, two replicas, both databases."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from roblox_ml_core.digests import canonical_json, sha256_bytes, sha256_json
from roblox_ml_core.errors import Conflict
from roblox_ml_core.registry import RegistryClient
from roblox_ml_core.settings import HomeSettings
from roblox_ml_core.storage import BlobStore

WRITERS, EACH = 16, 20


def _write(index: int, urls: list[str], token: str, template: dict[str, Any], results: Any) -> None:
    """One process: registers its own packages, sometimes the same as its neighbour's, under two names."""
    client = RegistryClient(urls[index % len(urls)], token, actor=f"writer-{index}")
    store = BlobStore(HomeSettings().store_url)
    for number in range(EACH):
        # Every fifth package is one that some other process registers too.
        mark = f"shared-{number}" if number % 5 == 0 else f"{index}-{number}"
        info = {**template["package"], "options": {**template["package"]["options"], "mark": mark}}
        data = canonical_json(info)
        store.put(data)
        manifest = {**template["manifest"], "package.json": {"sha256": sha256_bytes(data), "size": len(data)}}
        body = {**template, "package": info, "manifest": manifest, "alias": "champion"}
        answer = client.register(f"model-{number % 2}", body)
        results.put((answer["name"], answer["version"], answer["digest"], answer["created"], sha256_json(info)))


@pytest.mark.slow
def test_sixteen_writers_get_unique_ordered_versions(
    planes: Callable[..., Any], database: dict[str, str], package: Callable[..., dict[str, Any]]
) -> None:
    replicas = [planes(**database), planes(**database)]
    token = HomeSettings().read_token()
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    urls = [f"http://127.0.0.1:{plane.port}" for plane in replicas]
    arguments = [(index, urls, token, package(1.0), results) for index in range(WRITERS)]
    writers = [context.Process(target=_write, args=values) for values in arguments]
    for writer in writers:
        writer.start()
    answers = [results.get(timeout=240) for _ in range(WRITERS * EACH)]
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    client = replicas[0].client()
    for name in ("model-0", "model-1"):
        mine = [answer for answer in answers if answer[0] == name]
        created = {version: digest for _, version, digest, new, _ in mine if new}
        assert sum(new for *_, new, _ in mine) == len(created), "two writers were told the same new version"
        assert all(digest == asked for _, _, digest, _, asked in mine)
        # An identical package got the version that exists, from whichever process it came.
        assert all(created[version] == digest for _, version, digest, _, _ in mine)
        listed = client.versions(name)
        assert [row["version"] for row in listed] == list(range(len(created), 0, -1)), "a gap or a wrong order"
        assert {row["version"]: row["digest"] for row in listed} == created
        times = [row["created_at"] for row in reversed(listed)]
        assert times == sorted(times)
        generations = [move["generation"] for move in client.alias_history(name, "champion")]
        assert generations == list(range(len(generations), 0, -1))


def test_of_two_promotions_one_wins_and_the_other_is_told(
    planes: Callable[..., Any], database: dict[str, str], package: Callable[..., dict[str, Any]]
) -> None:
    plane = planes(**database)
    for factor in (1.0, 2.0, 3.0):
        plane.client().register("scale", package(factor, alias="champion" if factor == 1.0 else None))
    for _ in range(5):
        generation = plane.client().alias("scale", "champion")["generation"]
        plane.client().promote("scale", "champion", 1)
        generation = plane.client().alias("scale", "champion")["generation"]
        start, outcomes = threading.Barrier(2), {}

        def promote(who: str, version: int) -> None:
            client = plane.client(who)
            start.wait()
            try:
                outcomes[who] = client.promote("scale", "champion", version, expected_generation=generation)
            except Conflict as conflict:
                outcomes[who] = conflict

        threads = [threading.Thread(target=promote, args=pair) for pair in (("ann", 2), ("bob", 3))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        lost = [who for who, outcome in outcomes.items() if isinstance(outcome, Conflict)]
        assert len(lost) == 1
        winner = ({"ann", "bob"} - set(lost)).pop()
        told = outcomes[lost[0]].details
        assert (told["by"], told["version"]) == (winner, outcomes[winner]["version"])
        assert plane.client().alias("scale", "champion")["version"] == outcomes[winner]["version"]


def test_two_who_create_one_endpoint_at_once_both_get_an_answer(
    planes: Callable[..., Any], database: dict[str, str], package: Callable[..., dict[str, Any]]
) -> None:
    """Each holds the lock of the model it points at, so on PostgreSQL only the table itself is between them."""
    replicas = [planes(**database), planes(**database)]
    for number, model in enumerate(("scale", "shift")):
        replicas[0].client().register(model, package(float(number + 1)))
    refused = 0
    for number in range(12):
        name, start, outcomes = f"e{number}", threading.Barrier(2), {}

        def create(model: str, plane: Any, name: str = name, start: Any = start, outcomes: Any = outcomes) -> None:
            client = plane.client(model)
            start.wait()
            try:
                outcomes[model] = client.put_endpoint(name, model, version=1)["model"]
            except Conflict as conflict:
                outcomes[model] = conflict

        threads = [
            threading.Thread(target=create, args=pair) for pair in zip(("scale", "shift"), replicas, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(outcomes) == {"scale", "shift"}, "one of them got neither an endpoint nor a refusal"
        refused += sum(isinstance(outcome, Conflict) for outcome in outcomes.values())
        assert replicas[0].client().endpoint(name)["model"] in [o for o in outcomes.values() if isinstance(o, str)]
        url = f"http://127.0.0.1:{replicas[0].port}/v1/audit"
        told = httpx.get(
            url, params={"subject": name}, headers={"authorization": f"Bearer {HomeSettings().read_token()}"}
        )
        befores = [row["detail"]["before"] for row in reversed(told.json()["audit"]) if row["outcome"] == "done"]
        assert befores[0] is None and all(before["model"] in outcomes for before in befores[1:])
    print(f"\n{refused} of 12 were refused")
