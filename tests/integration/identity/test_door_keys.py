"""A token's life at the door: made, asked with, limited, revoked; and no control plane needed for any of its uses."""

from __future__ import annotations

import importlib.util
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from tritonclient.grpc import service_pb2 as v2

_SOURCE = Path(__file__).resolve().parents[1] / "guarding" / "test_canary_goes_back.py"
_SPEC = importlib.util.spec_from_file_location("guarding_world", _SOURCE)
assert _SPEC is not None and _SPEC.loader is not None
guarding = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = guarding
_SPEC.loader.exec_module(guarding)


KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def signed(namespace: str, *, key: Any = KEY) -> str:
    """A pod's token: projected by a cluster whose keys the control plane has."""
    now = int(time.time())
    claims = {
        "iss": "https://cluster",
        "aud": ["rml"],
        "sub": f"system:serviceaccount:{namespace}:x",
        "iat": now,
        "exp": now + 600,
    }
    return jwt.encode(claims, key, "RS256", headers={"kid": "k"})


@pytest.fixture
def world(
    rml_home: Path, free_port: Callable[[], int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    public = {**json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(KEY.public_key())), "kid": "k"}
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": [public]}))
    cluster = {
        "name": "pods", "issuer": "https://cluster", "audience": "rml", "kind": "pod", "jwks_uri": (tmp_path / "jwks.json").as_uri(),
        "subjects": {"system:serviceaccount:games:*": ["model:feed=infer"]},
    }  # fmt: skip
    monkeypatch.setenv("RML_IDENTITY_ISSUERS", json.dumps([cluster]))
    server, address = model_server()
    found = guarding.World(rml_home, free_port, address)
    yield found
    found.close()
    server.stop(None)


def model_server() -> tuple[Any, str]:
    """What Triton answers over gRPC: the request's id, so that one sees whose answer it is."""

    def infer(request: v2.ModelInferRequest, _: Any) -> v2.ModelInferResponse:
        return v2.ModelInferResponse(model_name=request.model_name, id=request.id)

    handler = grpc.unary_unary_rpc_method_handler(
        infer, v2.ModelInferRequest.FromString, v2.ModelInferResponse.SerializeToString
    )
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("inference.GRPCInferenceService", {"ModelInfer": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, f"127.0.0.1:{port}"


def ask_grpc(address: str, token: str) -> str:
    """The status, and OK only with the answer to this very request."""
    with grpc.insecure_channel(address) as channel:
        infer = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            v2.ModelInferRequest.SerializeToString,
            v2.ModelInferResponse.FromString,
        )
        request = v2.ModelInferRequest(model_name="feed", id=token[-6:])
        try:
            answer = infer(request, metadata=[("authorization", f"Bearer {token}")], timeout=10)
        except grpc.RpcError as refused:
            return str(refused.code().name)
        assert (answer.model_name, answer.id) == ("feed", token[-6:])
        return "OK"


def test_a_token_asks_what_it_may_until_it_is_revoked_with_or_without_a_control_plane(
    world: Any, rml_home: Path
) -> None:
    control = httpx.Client(
        base_url=world.environment["RML_CONTROL_URL"],
        headers={"authorization": f"Bearer {(rml_home / 'token').read_text().strip()}"},
    )

    def make(name: str, scope: str) -> dict[str, Any]:
        return (
            control.post("/v1/tokens", json={"name": name, "role": "infer", "scope": scope}).raise_for_status().json()
        )

    def ask(token: str) -> httpx.Response:
        url = f"{world.door}/v2/models/feed/infer"
        return httpx.post(url, content=guarding.BODY, headers={"authorization": f"Bearer {token}"})

    game, other, short = make("game", "model:feed"), make("other", "model:elsewhere"), make("short", "*")
    guarding.eventually("the door knows the tokens", lambda: ask(short["token"]).status_code == 200)
    assert ask(game["token"]).status_code == 200
    refused = ask(other["token"])
    assert refused.status_code == 403 and "rml grants give" in refused.json()["error"]
    unknown = ask(game["token"][:-1] + "x")
    assert (unknown.status_code, unknown.headers["www-authenticate"]) == (401, "Bearer")
    assert httpx.get(f"{world.door}/metrics", headers={"authorization": f"Bearer {game['token']}"}).status_code == 403

    log = (rml_home / "roblox_ml_serving.door.log").read_text()
    address = next(line for line in log.splitlines() if line.startswith("door: ")).rpartition("gRPC ")[2]
    wanted = {"rml_nobody": "UNAUTHENTICATED", other["token"]: "PERMISSION_DENIED", game["token"]: "OK"}
    assert {token: ask_grpc(address, token) for token in wanted} == wanted

    pod = signed("games")
    assert [ask(token).status_code for token in (pod, pod, signed("other"))] == [200, 200, 403]
    assert ask_grpc(address, pod) == "OK"
    stranger = ask(signed("games", key=rsa.generate_private_key(public_exponent=65537, key_size=2048)))
    assert stranger.status_code == 401 and "rml login" in stranger.json()["error"]

    control.delete(f"/v1/tokens/{short['id']}").raise_for_status()
    guarding.eventually("the door hears of the revocation", lambda: ask(short["token"]).status_code == 401)

    plane, door = world.processes
    plane.send_signal(signal.SIGKILL)
    plane.wait()
    tokens = [one["token"] for one in (game, other, short)]
    assert [ask(one).status_code for one in tokens] == [200, 403, 401]
    assert [ask_grpc(address, one) for one in tokens] == ["OK", "PERMISSION_DENIED", "UNAUTHENTICATED"]
    door.terminate()
    door.wait(30)
    world.processes[:] = [world._start("roblox_ml_serving.door", rml_home)]
    guarding.eventually("a new door without a control plane", lambda: ask(game["token"]).status_code == 200)
    assert [ask(one["token"]).status_code for one in (other, short)] == [403, 401]
    assert ask(pod).status_code == 503, "nobody is there to say who it is"
    stored = (rml_home / "serving" / "keys.json").read_text()
    assert not any(one["token"] in stored for one in (game, other, short))
    control.close()
