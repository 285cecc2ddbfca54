"""Who may ask: laws of the check, and the keys' way from the control plane to the door and its disk."""

from __future__ import annotations

import asyncio
import json
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from roblox_ml_core.settings import ControlPlaneSettings, DoorSettings, HomeSettings
from roblox_ml_serving.door.authentication import Authentication
from roblox_ml_serving.door.key import Key
from roblox_ml_serving.door.keys import KeyFeed, KeysInvalid, read_keys
from roblox_ml_serving.door.refusals import Reason, Refused
from roblox_ml_serving.door.service import Door
from roblox_ml_serving.door.snapshot import build

TOKENS = [f"rml_{number:012}_secret" for number in range(4)]
MODELS = ["feed", "toxicity"]


def digest(token: str) -> str:
    return sha256(token.encode()).hexdigest()


def entry(models: list[str] | None = None, expires_in: float = 3600.0, *, operator: bool = False) -> dict[str, Any]:
    return {"principal": "service:a/b", "models": models, "expires_at": time.time() + expires_in, "operator": operator}


def document(version: int, **tokens: dict[str, Any]) -> dict[str, Any]:
    return {"schema": 1, "version": version, "keys": {digest(token): found for token, found in tokens.items()}}


def reason(check: Any) -> Reason | None:
    try:
        check()
    except Refused as refused:
        return refused.refusal.reason
    return None


KEYS = st.builds(
    Key, st.just("p"), st.none() | st.frozensets(st.sampled_from(MODELS)),
    st.sampled_from([0.0, float("inf")]), st.booleans(),
)  # fmt: skip


@given(
    st.lists(st.dictionaries(st.sampled_from(TOKENS), KEYS), max_size=3),
    st.lists(st.tuples(st.sampled_from([*TOKENS, "home", "other"]), st.sampled_from(MODELS)), max_size=6),
    st.booleans(),
)
def test_only_living_keys_open_only_their_models_whatever_was_asked_before(
    rounds: Any, asked: Any, anonymous: bool
) -> None:
    auth = Authentication("home", anonymous=anonymous)
    for held in [{}, *rounds]:
        auth.replace({digest(token): key for token, key in held.items()})
        for token, model in asked:
            got = reason(lambda token=token, model=model: auth.check(f"Bearer {token}", model))
            key = held.get(token)
            if token == "home":
                wanted = None
            elif key is None or key.expires_at <= time.time():
                wanted = Reason.UNAUTHENTICATED
            else:
                wanted = None if key.models is None or model in key.models else Reason.FORBIDDEN
            assert got == wanted
        assert reason(lambda: auth.check(None, "feed")) == (None if anonymous else Reason.UNAUTHENTICATED)


@pytest.mark.parametrize("text", ["", "Bearer", "Bearer ", "Basic aG9tZQ==", "bearer\thome x", "home", "Bearer a.b.c"])
def test_what_is_no_token_is_told_what_one_is(text: str) -> None:
    auth = Authentication("home", anonymous=True)
    with pytest.raises(Refused, match="rml tokens create"):
        auth.check(text, "feed")


def test_a_refused_token_s_owner_is_told_what_to_type() -> None:
    auth = Authentication(None, keys={digest("t"): Key("service:discovery/games with token games", frozenset())})
    with pytest.raises(Refused) as refused:
        auth.check("Bearer t", "feed")
    said = str(refused.value)
    assert "rml grants give service:discovery/games model:feed infer;" in said and "rml tokens list" in said


def test_an_operator_reads_metrics_and_others_do_not() -> None:
    auth = Authentication(None)
    auth.replace({digest(TOKENS[0]): Key("o", operator=True), digest(TOKENS[1]): Key("c")})
    assert auth.check_operator(f"Bearer {TOKENS[0]}") == "o"
    assert reason(lambda: auth.check_operator(f"Bearer {TOKENS[1]}")) is Reason.FORBIDDEN


NAMES = st.sampled_from(["schema", "version", "keys", "models", "principal", "expires_at", "operator"])
PLAIN = st.none() | st.booleans() | st.integers() | st.text(max_size=5)


@given(st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner)))
def test_a_document_of_another_shape_is_refused_as_a_whole(found: Any) -> None:
    try:
        version, keys = read_keys(found)
    except KeysInvalid:
        return
    assert found["schema"] == 1 and isinstance(version, int) and len(keys) == len(found["keys"])


@pytest.mark.parametrize("wrong", [
    {"models": "feed"}, {"expires_at": "soon"}, {"expires_at": float("nan")}, {"expires_at": None}, {"models": {"feed": 1}},
])  # fmt: skip
def test_one_key_that_is_not_understood_refuses_all(wrong: dict[str, Any]) -> None:
    with pytest.raises(KeysInvalid):
        read_keys({"schema": 1, "version": 1, "keys": {"a": entry(), "b": entry() | wrong}})


def test_the_feed_follows_outlives_the_control_plane_and_starts_from_disk(kit: Any, tmp_path: Path) -> None:
    current: dict[str, Any] = {"document": document(1, **{TOKENS[0]: entry(["feed"])})}
    changed = asyncio.Event()

    async def answer(request: Any) -> Any:
        if current["document"] is None:
            return None
        if f"after={current['document'].get('version')}&" in request.target:
            await asyncio.wait_for(changed.wait(), 20)
        return 200, {}, json.dumps(current["document"]).encode()

    async def until(auth: Authentication, count: int) -> None:
        while len(auth.keys) != count:
            await asyncio.sleep(0.005)

    async def scenario() -> None:
        stub = await kit.HttpStub(answer).start()
        home = HomeSettings(home=tmp_path, token=SecretStr("the-home-token"))
        control = ControlPlaneSettings(url=f"http://{stub.address}")
        auth = Authentication(None)
        feed = KeyFeed(auth, control=control, home=home)
        assert not feed.start_from_disk()
        following = asyncio.create_task(feed.run())
        await until(auth, 1)
        assert stub.requests[0].headers["authorization"] == "Bearer the-home-token"
        current["document"] = document(2, **{TOKENS[1]: entry(None), TOKENS[2]: entry(["feed"])})
        changed.set()
        await until(auth, 2)
        assert reason(lambda: auth.check(f"Bearer {TOKENS[0]}", "feed")) is Reason.UNAUTHENTICATED
        for broken in ({"schema": 9}, None):
            current["document"] = broken
            asked = len(stub.requests)
            while len(stub.requests) < asked + 2:
                await asyncio.sleep(0.005)
            assert auth.check(f"Bearer {TOKENS[1]}", "toxicity") == "service:a/b"
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await feed.close()
        await stub.stop()
        stored = tmp_path / "serving" / "keys.json"
        assert stored.stat().st_mode & 0o777 == 0o600
        assert not any(token in stored.read_text() for token in TOKENS)
        again = Authentication(None)
        assert KeyFeed(again, control=control, home=home).start_from_disk()
        assert again.keys == auth.keys
        stored.write_text("{")
        assert not KeyFeed(Authentication(None), control=control, home=home).start_from_disk()

    asyncio.run(asyncio.wait_for(scenario(), 20))


SIGNED = "eyJh.eyJz.c2ln"


def test_without_anybody_to_ask_a_signed_token_opens_nothing() -> None:
    auth = Authentication("home", anonymous=True)
    assert not auth.unproved(f"Bearer {SIGNED}")
    assert reason(lambda: auth.check(f"Bearer {SIGNED}", "feed")) is Reason.UNAUTHENTICATED


def test_what_endpoints_there_are_is_told_only_to_who_is_known() -> None:
    async def scenario() -> None:  # a door makes its clients in a running loop
        door = Door(DoorSettings())
        door.adopt(build({"schema": 2, "generation": 1, "policy": {"endpoints": {}}, "servers": {}}))
        door.auth = Authentication("home")
        for nobody in (None, "Bearer x", f"Bearer {SIGNED}"):
            assert reason(lambda nobody=nobody: door.admit(nobody, "feed")) is Reason.UNAUTHENTICATED
        assert reason(lambda: door.admit("Bearer home", "feed")) is Reason.UNKNOWN_ENDPOINT

    asyncio.run(scenario())
