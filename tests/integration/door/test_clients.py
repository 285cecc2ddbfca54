"""Any Open Inference Protocol v2 client works: curl, tritonclient over HTTP and gRPC, the SDK; all agree."""

from __future__ import annotations

import json
import subprocess

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
from tritonclient.utils import InferenceServerException

pytestmark = [pytest.mark.triton, pytest.mark.slow]

TEXTS = ["good game", "hate hate the very bad game", ""]
ROWS = np.array([[1, 0, 0, 0], [0.5, 1, 2, -1]], dtype=np.float32)
PRODUCT = ROWS @ np.arange(8, dtype=np.float32).reshape(4, 2)


@pytest.fixture(scope="module")
def known(world) -> tuple[list[str], np.ndarray]:
    """What Triton itself says, without the door."""
    client = http_client.InferenceServerClient(world.http)
    return ask(http_client, client, "text.2", binary=True, version="2")


def ask(module, client, name: str, *, binary: bool, version: str = "", **arguments) -> tuple[list[str], np.ndarray]:
    tensor = module.InferInput("TEXT", [len(TEXTS)], "BYTES")
    texts = np.array([text.encode() for text in TEXTS], dtype=object)
    if module is http_client:
        tensor.set_data_from_numpy(texts, binary_data=binary)
        outputs = [module.InferRequestedOutput(name, binary_data=binary) for name in ("label", "scores")]
    else:
        tensor.set_data_from_numpy(texts)
        outputs = None
    result = client.infer(name, [tensor], outputs=outputs, model_version=version, **arguments)
    described = result.get_response()
    assert (described["model_name"] if module is http_client else described.model_name) == name
    labels = [one.decode() if isinstance(one, bytes) else one for one in result.as_numpy("label").tolist()]
    return labels, result.as_numpy("scores").astype(np.float64)


def agree(got, known) -> None:
    assert got[0] == known[0]
    np.testing.assert_allclose(got[1], known[1], atol=1e-4)


def test_curl(world, known) -> None:
    body = json.dumps(
        {"id": "7", "inputs": [{"name": "TEXT", "shape": [len(TEXTS)], "datatype": "BYTES", "data": TEXTS}]}
    )
    line = ["curl", "-sS", "-i", f"{world.door}/v2/models/text/infer", "-d", body]
    head, _, answer = subprocess.run(line, capture_output=True, text=True, check=True).stdout.partition(
        "\n\n"
    )  # text: \r\n is \n
    assert head.startswith("HTTP/1.1 200")
    assert "x-rml-model-version: 2" in head
    document = json.loads(answer)
    assert (document["model_name"], document["model_version"], document["id"]) == ("text", "2", "7")
    outputs = {output["name"]: output for output in document["outputs"]}
    agree((outputs["label"]["data"], np.array(outputs["scores"]["data"]).reshape(len(TEXTS), 3)), known)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_tritonclient_http(world, known, binary: bool, compression: str | None) -> None:
    client = http_client.InferenceServerClient(world.door.removeprefix("http://"))
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("text")
    both = {"request_compression_algorithm": compression, "response_compression_algorithm": compression}
    agree(ask(http_client, client, "text", binary=binary, **both), known)
    tensor = http_client.InferInput("X", [2, 4], "FP32").set_data_from_numpy(ROWS, binary_data=binary)
    wanted = [http_client.InferRequestedOutput("Y", binary_data=binary)]
    np.testing.assert_allclose(client.infer("matmul", [tensor], outputs=wanted).as_numpy("Y"), PRODUCT, atol=1e-6)


def test_tritonclient_grpc(world, known) -> None:
    with grpc_client.InferenceServerClient(world.door_grpc) as client:
        assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("text")
        agree(ask(grpc_client, client, "text", binary=True), known)
        agree(ask(grpc_client, client, "text", binary=True, compression_algorithm="gzip"), known)
        tensor = grpc_client.InferInput("X", [2, 4], "FP32").set_data_from_numpy(ROWS)
        np.testing.assert_allclose(client.infer("matmul", [tensor]).as_numpy("Y"), PRODUCT, atol=1e-6)


def test_descriptions_carry_the_endpoints_name(world) -> None:
    http = http_client.InferenceServerClient(world.door.removeprefix("http://"))
    with grpc_client.InferenceServerClient(world.door_grpc) as rpc:
        for metadata in (http.get_model_metadata("text"), rpc.get_model_metadata("text", as_json=True)):
            assert (metadata["name"], metadata["versions"]) == ("text", ["2"])
            assert [entry["name"] for entry in metadata["inputs"]] == ["TEXT"]
        assert http.get_model_config("text")["name"] == "text"
        assert rpc.get_model_config("text").config.name == "text"
        assert http.get_inference_statistics("text")["model_stats"][0]["name"] == "text"
        assert rpc.get_inference_statistics("text").model_stats[0].name == "text"
        assert rpc.get_server_metadata().name == http.get_server_metadata()["name"] == "roblox-ml-door"


def test_a_version_in_the_clients_hand_is_explained(world) -> None:
    http = http_client.InferenceServerClient(world.door.removeprefix("http://"))
    with pytest.raises(InferenceServerException, match="Leave the version out"):
        ask(http_client, http, "text", binary=True, version="1")
    with (
        grpc_client.InferenceServerClient(world.door_grpc) as rpc,
        pytest.raises(InferenceServerException, match="Leave the version out"),
    ):
        ask(grpc_client, rpc, "text", binary=True, version="1")


def test_tritons_own_words_reach_the_client(world) -> None:
    http = http_client.InferenceServerClient(world.door.removeprefix("http://"))
    tensor = http_client.InferInput("WRONG", [1, 4], "FP32").set_data_from_numpy(ROWS[:1])
    with pytest.raises(InferenceServerException) as refused:
        http.infer("matmul", [tensor])
    assert refused.value.status() == "400"
    assert "WRONG" in str(refused.value)
    line = ["curl", "-s", "-w", "%{http_code}", f"{world.door}/v2/models/text/infer", "-d", "{not json"]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.stdout.endswith("400")
    assert "error" in done.stdout


def test_a_stream_over_grpc(world, known) -> None:
    import queue

    answers: queue.Queue = queue.Queue()
    with grpc_client.InferenceServerClient(world.door_grpc) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        for _ in range(3):
            tensor = grpc_client.InferInput("X", [2, 4], "FP32").set_data_from_numpy(ROWS)
            client.async_stream_infer("matmul", [tensor])
        for _ in range(3):
            result, error = answers.get(timeout=20)
            assert error is None
            np.testing.assert_allclose(result.as_numpy("Y"), PRODUCT, atol=1e-6)
        client.stop_stream()


def test_the_sdk(world, known, sdk, capsys) -> None:
    endpoint = sdk.endpoint("text")
    over_rest, over_grpc = endpoint.predict(TEXTS), endpoint.grpc.predict(TEXTS)
    for answer in (over_rest, over_grpc):
        agree((answer.labels, np.array(answer.scores)), known)
        assert (answer.version, len(answer)) == (2, 3)
        assert set(answer[0]) == {"label", "scores"}
    matmul = sdk.endpoint("matmul")
    np.testing.assert_allclose(matmul.predict(ROWS).outputs["Y"], PRODUCT, atol=1e-6)
    np.testing.assert_allclose(matmul.grpc.predict({"X": ROWS.tolist()}).outputs["Y"], PRODUCT, atol=1e-6)
    endpoint.curl()
    line = capsys.readouterr().out
    answer = json.loads(subprocess.run(line, shell=True, capture_output=True, text=True, check=True).stdout)
    assert answer["model_name"] == "text"
    status = endpoint.status()
    assert (status["model"], status["version"], status["serving"]) == ("text", 2, 2)
    assert "text" in endpoint._repr_html_()


def test_the_client_without_the_door(world, known, sdk) -> None:
    import roblox_ml as rml

    with rml.direct("matmul") as matmul, rml.direct("text") as text:
        for side in (matmul, matmul.grpc):
            np.testing.assert_allclose(side.predict(ROWS, unit="u1").outputs["Y"], PRODUCT, atol=1e-6)
        for side in (text, text.grpc):
            answer = side.predict(TEXTS)
            agree((answer.labels, np.array(answer.scores)), known)
            assert answer.version == 2
        body = json.dumps({"inputs": [{"name": "X", "shape": [2, 4], "datatype": "FP32", "data": ROWS.tolist()}]})
        assert json.loads(matmul.infer(body.encode()).body)["outputs"][0]["data"] == PRODUCT.ravel().tolist()
        request = grpc_client.service_pb2.ModelInferRequest()
        request.inputs.add(name="X", datatype="FP32", shape=[1, 2])
        with pytest.raises(rml.errors.RemoteError, match="INVALID_ARGUMENT"):
            matmul.grpc.infer(request)
        wrong = matmul.infer(body.replace('"X"', '"Z"').encode())
        assert wrong.status == 400 and wrong.version == 1
        assert matmul.stats()["servers"].keys() == text.stats()["servers"].keys()
