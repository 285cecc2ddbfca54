"""Signed tokens at the door: asked about once a minute each; those that are invented are asked about only so often."""

from __future__ import annotations

import asyncio
import json
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from roblox_ml_serving.door import signed
from roblox_ml_serving.door.authentication import Authentication
from roblox_ml_serving.door.key import Key
from roblox_ml_serving.door.refusals import Reason, Refused
from roblox_ml_serving.door.signed import Allowance, SignedTokens, why_impossible


def token(name: str = "x", *, lives: float = 3600.0, **header: Any) -> str:
    parts = ({"alg": "RS256", **header}, {"sub": name, "exp": time.time() + lives})
    return ".".join([*(urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts), "c2ln"])


def reason(work: Callable[[], Any]) -> Reason:
    with pytest.raises(Refused) as refused:
        work()
    return refused.value.refusal.reason


class Plane:
    """The control plane's word: who is known, and what is asked of it."""

    def __init__(self, **keys: Key) -> None:
        self.keys = {token(name): key for name, key in keys.items()}
        self.asked: list[str] = []
        self.away = False

    async def who(self, shown: str) -> Key:
        self.asked.append(shown)
        await asyncio.sleep(0.001)
        if self.away:
            raise Refused(Reason.NOT_READY, "the control plane does not answer")
        if shown not in self.keys:
            raise Refused(Reason.UNAUTHENTICATED, "nobody's")
        return self.keys[shown]


def test_it_is_asked_for_once_by_all_who_come_with_it_and_again_when_its_minute_is_over() -> None:
    async def scenario() -> None:
        plane = Plane(ann=Key("ann", frozenset({"feed"}), time.time() + 60))
        (ann,) = plane.keys
        auth = Authentication("home", anonymous=True, signed=SignedTokens(plane.who))
        bearer = f"Bearer {ann}"
        assert auth.unproved(bearer) and not auth.unproved(None) and not auth.unproved("Bearer home")
        waiting = [asyncio.create_task(auth.prove(bearer)) for _ in range(5)]
        await asyncio.sleep(0)
        waiting[0].cancel()  # whoever asked first and left does not take the answer with it
        await asyncio.gather(*waiting, return_exceptions=True)
        assert plane.asked == [ann] and not auth.unproved(bearer)
        assert auth.check(bearer, "feed") == "ann"
        assert reason(lambda: auth.check(bearer, "toxicity")) is Reason.FORBIDDEN
        plane.keys[ann] = Key("ann", None, time.time() - 1)
        auth = Authentication("home", signed=SignedTokens(plane.who))
        await auth.prove(bearer)
        assert auth.unproved(bearer), "its minute is over at once"
        plane.keys.clear()
        await auth.prove(bearer)
        assert len(plane.asked) == 3 and not auth.unproved(bearer), "a refusal stands for a moment too"
        assert reason(lambda: auth.check(bearer, "feed")) is Reason.UNAUTHENTICATED

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("made", "why"),
    [
        ("eyJh.eyJz.c2ln", "no JSON objects"),
        ("ey..", "three parts"),
        ("ey\ud800.ey.x", "no JSON objects"),
        (token(alg="none"), "key pair"),
        (token(alg="HS256"), "key pair"),
        (token(alg=7), "key pair"),
        (token(lives=-4000.0), "has expired"),
        (token(lives=float("nan")), "has expired"),
        (".".join([token().split(".")[0], urlsafe_b64encode(b'{"exp": true}').decode(), "x"]), "when it expires"),
        (".".join([urlsafe_b64encode(b"[" * 60000).decode(), "e30", "x"]), "no JSON objects"),
    ],
)
def test_what_cannot_be_good_is_refused_without_asking(made: str, why: str) -> None:
    async def scenario() -> None:
        plane = Plane()
        tokens = SignedTokens(plane.who)
        assert not tokens.unproved(made)
        with pytest.raises(Refused, match=why):
            tokens.key(made)
        assert plane.asked == []

    asyncio.run(scenario())


@given(st.text(max_size=40) | st.tuples(st.text("eyJ0.", max_size=30), st.text(max_size=9)).map("".join))
def test_any_text_is_judged(text: str) -> None:
    assert isinstance(why_impossible(text, 0.0), str)


@given(
    st.lists(st.floats(0, 5), min_size=1, max_size=200),
    st.integers(1, 20).map(float),
    st.floats(0.1, 50),
)
def test_the_allowance_is_kept_in_every_stretch_of_time(pauses: list[float], most: float, rate: float) -> None:
    allowance, now, taken = Allowance(most, rate, most), 0.0, []
    for pause in pauses:
        now += pause
        before = allowance.left + min(most, pause * rate)
        if allowance.take(now):
            taken.append(now)
        else:
            assert before < 1 + 1e-6, "refused though there was one"
    for first, begin in enumerate(taken):
        for last in range(first, len(taken)):
            assert last - first + 1 <= most + rate * (taken[last] - begin) + 1e-6


def test_invented_tokens_keep_nobody_out_who_was_known_and_no_stranger_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario() -> None:
        clock, turned_away = [0.0], []
        monkeypatch.setattr(signed, "time", SimpleNamespace(monotonic=lambda: clock[0], time=time.time))
        plane = Plane(ann=Key("ann", None, 0.0), bob=Key("bob", None, time.time() + 60))
        ann, bob = plane.keys
        tokens = SignedTokens(plane.who, lambda: turned_away.append(1), Allowance(5, 2, 5))
        await tokens.prove(ann)
        flood = await asyncio.gather(*(tokens.prove(token(f"nobody{n}")) for n in range(50)), return_exceptions=True)
        refused = [one for one in flood if isinstance(one, Refused)]
        assert len(plane.asked) == 5 and len(refused) == len(turned_away) == 46
        assert {one.refusal.reason for one in refused} == {Reason.OVERLOADED} and refused[0].refusal.retry_after == 1
        await tokens.prove(ann)  # known, its minute over: asked about whatever strangers do
        assert plane.asked[-1] == ann and tokens.key(ann).principal == "ann"
        with pytest.raises(Refused):
            await tokens.prove(bob)
        clock[0] += 1.0
        await tokens.prove(bob)
        assert tokens.key(bob).principal == "bob"

    asyncio.run(scenario())


def test_who_was_known_stays_known_when_the_control_plane_is_away_for_a_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario() -> None:
        monkeypatch.setattr(signed, "_UNANSWERED_S", 0.0)
        plane = Plane(ann=Key("ann", None, 0.0))
        (ann,) = plane.keys
        tokens = SignedTokens(plane.who, allowance=Allowance(1, 0, 1))
        await tokens.prove(ann)
        plane.away = True
        await tokens.prove(ann)
        plane.away = False
        await tokens.prove(ann)  # no stranger: it takes nothing of the allowance, which is used up
        assert len(plane.asked) == 3 and tokens.key(ann).principal == "ann"

    asyncio.run(scenario())
