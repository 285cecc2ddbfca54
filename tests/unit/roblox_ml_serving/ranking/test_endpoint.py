"""A ranking from a client's bytes to the best candidates: features over HTTP, defaults, k, deadlines."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from roblox_ml_serving.door.refusals import Reason, Refused

_SPEC = importlib.util.spec_from_file_location("ranking_world", Path(__file__).with_name("world.py"))
assert _SPEC is not None and _SPEC.loader is not None
world = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = world
_SPEC.loader.exec_module(world)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


def test_the_best_come_first_and_rows_have_the_features_in_the_package_s_order() -> None:
    async def check() -> None:
        async with world.opened() as feed:
            answer = await feed.rank("ann", [10, 90, 50, 70])
            assert answer["ITEMS"] == [90, 70, 50]
            assert np.allclose(answer["SCORES"], [1.8, 1.4, 1.0])
            # The context was not sent: its hour is the one default.
            assert np.allclose(feed.rows[0], [[2, 0.1, 5, 12], [2, 0.9, 5, 12], [2, 0.5, 5, 12], [2, 0.7, 5, 12]])
            assert answer["defaulted"] == 1
            assert (await feed.rank("bob", [10, 90, 50, 70]))["ITEMS"] == [10, 50, 70]

    run(check)


def test_what_is_fresh_is_not_asked_again() -> None:
    async def check() -> None:
        async with world.opened() as feed:
            await feed.rank("ann", [1, 2, 3])
            await feed.rank("ann", [1, 2, 3])
            assert feed.features.requests == 1
            await feed.rank("ann", [3, 4])
            assert feed.features.requests == 2
            assert feed.count("rml_door_ranking_rows_total", view="item_stats", source="fetched") == 4
            assert feed.count("rml_door_ranking_rows_total", view="item_stats", source="cache") == 4
            assert feed.count("rml_door_ranking_cache_rows") == 5

    run(check)


def test_without_time_to_live_everything_is_asked_every_time() -> None:
    async def check() -> None:
        every = [{**view, "ttl_s": 0} for view in world.SPEC["views"]]
        async with world.opened(world.spec(views=every)) as feed:
            await feed.rank("ann", [1])
            await feed.rank("ann", [1])
            assert feed.features.requests == 2

    run(check)


def test_requests_at_the_same_time_ask_once() -> None:
    async def check() -> None:
        async with world.opened() as feed:
            feed.features.delay_s = 0.05
            answers = await asyncio.gather(*(feed.rank("ann", [1, 2, 3]) for _ in range(20)))
            assert feed.features.requests == 1
            assert all(answer["ITEMS"] == [3, 2, 1] and answer["defaulted"] == 1 for answer in answers)

    run(check)


@pytest.mark.parametrize(
    ("candidates", "items"),
    [([], []), ([7], [7]), ([7, 9, 7, 9, 9], [9, 7]), ([1, 2], [2, 1])],
    ids=["none", "one", "duplicates", "fewer than k"],
)
def test_each_candidate_ranks_once(candidates: list[int], items: list[int]) -> None:
    async def check() -> None:
        async with world.opened() as feed:
            answer = await feed.rank("ann", candidates)
            assert answer["ITEMS"] == items and len(answer["SCORES"]) == len(items)
            assert len(feed.rows) == (1 if items else 0)  # nobody is asked about nothing

    run(check)


def test_ten_thousand_candidates_and_one_more() -> None:
    async def check() -> None:
        async with world.opened() as feed:
            answer = await feed.rank("ann", list(range(10_000)), 30.0)
            # Items from 100 on are unknown: the default rate of 0.5 ranks them behind 51 to 99.
            assert answer["ITEMS"] == [99, 98, 97]
            assert answer["defaulted"] == 2 * 9_900 + 1
            with pytest.raises(Refused, match="more than 10000") as refused:
                await feed.rank("ann", list(range(10_001)))
            assert refused.value.refusal.reason is Reason.BAD_REQUEST

    run(check)


def test_an_unknown_user_and_an_unknown_item_have_defaults_and_are_counted() -> None:
    async def check() -> None:
        async with world.opened() as feed:
            answer = await feed.rank("eve", [40, 60, 1000])
            assert answer["ITEMS"] == [60, 1000, 40]
            assert answer["defaulted"] == 4

            def defaulted(feature: str) -> float:
                return feed.count(
                    "rml_door_ranking_defaulted_total", endpoint="feed", feature=feature, reason="missing"
                )

            assert [defaulted(name) for name in ("user_profile.taste", "item_stats.ctr", "context.hour")] == [1, 1, 1]
            assert feed.count("rml_door_ranking_values_total", endpoint="feed") == 1 + 2 * 3 + 1

    run(check)


def test_nobody_in_particular_is_not_asked_for() -> None:
    async def check() -> None:
        async with world.opened() as feed:
            assert (await feed.rank("", [40, 60]))["ITEMS"] == [60, 40]
            assert feed.count("rml_door_ranking_rows_total", view="user_profile", source="fetched") == 0

    run(check)


def test_an_arm_s_k_overrides_the_package_s_and_nonsense_does_not() -> None:
    async def check() -> None:
        async with world.opened() as feed:
            many = list(range(50))
            assert len((await feed.rank("ann", many, k=20))["ITEMS"]) == 20
            assert len((await feed.rank("ann", many, k=1000))["ITEMS"]) == 50
            for nonsense in (0, -1, "20", True, 2.5, None):
                assert len((await feed.rank("ann", many, k=nonsense))["ITEMS"]) == 3
            assert feed.count("rml_door_ranking_bad_params_total", endpoint="feed") == 6

    run(check)


def test_a_dead_feature_server_costs_defaults_and_no_error() -> None:
    async def check() -> None:
        async with world.opened(url="http://127.0.0.1:9") as feed:
            for _ in range(10):
                answer = await feed.rank("ann", [1, 2])
                assert answer["ITEMS"] == [1, 2]  # equal scores: in the order asked
                assert answer["defaulted"] == 6
            failed = "rml_door_ranking_fetches_failed_total"
            assert feed.count(failed, reason="unreachable") == 3  # then it is left alone for a while
            assert feed.count(failed, reason="paused") == 7
            reason = {"endpoint": "feed", "feature": "item_stats.ctr", "reason": "unanswered"}
            assert feed.count("rml_door_ranking_defaulted_total", **reason) == 20

    run(check)


def test_a_slow_feature_server_has_its_share_of_the_deadline_and_its_answer_serves_the_next() -> None:
    async def check() -> None:
        async with world.opened(world.spec(features_share=0.01)) as feed:
            feed.features.delay_s = 0.4
            answer = await feed.rank("ann", [10, 20], 10.0)
            assert answer["defaulted"] == 6
            assert feed.left[0] > 10.0 * 0.5  # the model has what features did not need, nearly all of it
            while feed.count("rml_door_ranking_cache_rows") < 3:
                await asyncio.sleep(0.02)
            assert (await feed.rank("ann", [10, 20], 10.0))["defaulted"] == 1
            assert feed.features.requests == 1

    run(check)


def test_a_required_view_that_nobody_answers_for_refuses_the_request() -> None:
    async def check() -> None:
        needed = [{**view, "required": view["name"] == "user_profile"} for view in world.SPEC["views"]]
        async with world.opened(world.spec(views=needed), url="http://127.0.0.1:9") as feed:
            with pytest.raises(Refused, match="needs the features of user_profile") as refused:
                await feed.rank("ann", [1])
            assert refused.value.refusal.reason is Reason.UPSTREAM_LOST
        async with world.opened(world.spec(views=needed)) as feed:
            assert (await feed.rank("eve", [1]))["ITEMS"] == [1]  # unknown is an answer

    run(check)


def test_a_view_that_the_server_has_not_takes_no_other_down() -> None:
    async def check() -> None:
        other = {"name": "new", "of": "item", "ttl_s": 60, "features": [{"name": "heat", "default": 3.0}]}
        columns = [*world.SPEC["columns"], "new.heat"]
        async with world.opened(world.spec(views=[*world.SPEC["views"], other], columns=columns)) as feed:
            for _ in range(3):
                answer = await feed.rank("ann", [10, 90])
                assert answer["ITEMS"] == [90, 10] and answer["defaulted"] == 3
            assert feed.rows[-1][:, 4].tolist() == [3.0, 3.0]
            assert feed.features.requests == 1  # what is not there is not asked for again and again

    run(check)


def test_columns_may_come_in_any_order() -> None:
    async def check() -> None:
        columns = ["item_stats.price", "context.hour", "user_profile.taste", "item_stats.ctr"]
        async with world.opened(world.spec(columns=columns)) as feed:
            await feed.rank("ann", [10])
            assert np.allclose(feed.rows[0], [[5, 12, 2, 0.1]])

    run(check)


def test_scores_that_are_no_numbers_rank_nobody() -> None:
    def model(rows: Any) -> Any:
        return np.where(rows[:, 1] > 0.5, np.nan, rows[:, 1])

    async def check() -> None:
        async with world.opened(model=model) as feed:
            assert (await feed.rank("ann", [90, 10, 30]))["ITEMS"] == [30, 10]
            assert feed.count("rml_door_ranking_unscored_total", endpoint="feed") == 1
            with pytest.raises(Refused, match="no number"):
                await feed.rank("ann", [90, 80])

    run(check)


def test_a_token_goes_along() -> None:
    async def check() -> None:
        async with world.opened(token="secret") as feed:
            assert (await feed.rank("ann", [10]))["defaulted"] == 1

    run(check)


def test_what_may_not_be_kept_is_not_shared_with_a_request_that_began_earlier() -> None:
    async def check() -> None:
        every = [{**view, "ttl_s": 0} for view in world.SPEC["views"]]
        async with world.opened(world.spec(views=every)) as feed:
            feed.features.delay_s = 0.05
            answers = await asyncio.gather(*(feed.rank("ann", [1, 2]) for _ in range(3)))
            assert feed.features.requests == 3
            assert [answer["defaulted"] for answer in answers] == [1, 1, 1]

    run(check)


def test_one_request_that_is_refused_does_not_pause_the_others() -> None:
    class Picky(world.FeatureServer):
        async def answer(self, request: Any) -> Any:
            reply = await super().answer(request)
            return reply._replace(status=413, body=b"{}") if b'"count":5,' in request.body else reply

    async def check() -> None:
        async with world.opened() as feed:
            feed.features.__class__ = Picky
            for start in range(0, 50, 5):
                assert (await feed.rank("ann", list(range(start, start + 5))))["defaulted"] > 1
            assert (await feed.rank("ann", [60, 61]))["defaulted"] == 1
            assert feed.count("rml_door_ranking_fetches_failed_total", reason="refused") == 10

    run(check)


def test_keys_of_another_type_are_no_answer_rather_than_unknown_items() -> None:
    async def check() -> None:
        async with world.opened(world.spec(candidates="BYTES")) as feed:
            answer = await feed.rank("ann", ["10", "90"])
            assert answer["ITEMS"] == ["10", "90"] and answer["defaulted"] == 5
            assert feed.count("rml_door_ranking_fetches_failed_total", reason="view") == 1

    run(check)


def test_a_user_and_an_item_of_one_key_are_not_mixed_up() -> None:
    people = {"name": "people", "ttl_s": 60, "features": [{"name": "age", "default": 0.0}]}
    sides = [world.spec(views=[{**people, "of": of}], columns=["people.age"], context=[]) for of in ("user", "item")]
    assert sides[0].views[0].table != sides[1].views[0].table


def test_more_views_than_one_request_may_ask_for_are_asked_in_several(monkeypatch: pytest.MonkeyPatch) -> None:
    from roblox_ml_serving.ranking import features

    async def check() -> None:
        async with world.opened() as feed:
            monkeypatch.setattr(features, "MAX_KEYS", 3)
            assert (await feed.rank("ann", [1, 2, 3]))["defaulted"] == 1
            assert feed.features.requests == 2
            monkeypatch.setattr(features, "MAX_VALUES", 6)
            assert (await feed.rank("bob", [4, 5, 6]))["defaulted"] == 1
            assert feed.features.requests == 4

    run(check)


def test_a_promotion_does_not_empty_the_cache() -> None:
    from roblox_ml_serving.door.snapshot import Target, Version

    async def check() -> None:
        async with world.opened() as feed:
            await feed.rank("ann", [1, 2])
            target = Target("feed", Version("feed", 2, "d2"), ("triton",), True)
            feed.kind.adopt([target])  # nobody has asked version 2 yet
            feed.endpoint = feed.kind.handler(target, world.spec())
            await feed.rank("ann", [1, 2])
            assert feed.features.requests == 1
            other = Target("feed", Version("feed", 3, "d3"), ("triton",), True)
            feed.kind.adopt([other])
            views = [{**world.SPEC["views"][0], "name": "users"}]
            feed.kind.handler(other, world.spec(views=views, columns=["users.taste"], context=[]))
            assert feed.count("rml_door_ranking_cache_rows") == 0  # now it is known that these views have gone

    run(check)


def test_versions_with_the_same_views_share_what_was_fetched() -> None:
    from roblox_ml_serving.door.snapshot import Target, Version

    async def check() -> None:
        async with world.opened() as feed:
            await feed.rank("ann", [1, 2])
            target = Target("feed", Version("feed", 2, "d2"), ("triton",), True)
            feed.endpoint = feed.kind.handler(target, world.spec(k=1))
            assert (await feed.rank("ann", [1, 2]))["ITEMS"] == [2]
            assert feed.features.requests == 1
            feed.kind.adopt([])  # nobody ranks any more: nothing is kept
            assert feed.count("rml_door_ranking_cache_rows") == 0

    run(check)
