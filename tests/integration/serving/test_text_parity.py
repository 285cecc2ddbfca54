"""A text endpoint answers as Triton would: the same requests to a real Triton with the same signature, and to our reader and writer.

The model behind both is a function of the text's bytes, so answers are compared value by value.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import struct
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import grpc
import numpy as np
import pytest
from roblox_ml_core.errors import Unavailable
from roblox_ml_core.settings import TritonSettings
from roblox_ml_serving.text.answer import to_grpc, to_rest
from roblox_ml_serving.text.request import OUTPUTS, BadRequest, TextRequest, from_grpc, from_rest
from roblox_ml_serving.triton import find_installation
from roblox_ml_serving.triton.launch import command, environment
from tritonclient import http as client_http
from tritonclient.grpc import service_pb2 as v2

pytestmark = pytest.mark.triton

NAME = "clf.1"
SOURCE = """
import hashlib
import numpy as np


def answer(texts):
    digests = [hashlib.sha256(text).digest() for text in texts]
    scores = np.array([[d[0] / 256, d[1] / 3e5] for d in digests], np.float32).reshape(-1, 2)
    return np.array([b"tox\\xc3\\xa9" if d[2] % 2 else b'a"b' for d in digests], np.object_), scores
"""
MODEL = (
    SOURCE
    + """

import triton_python_backend_utils as pb


class TritonPythonModel:
    def execute(self, requests):
        answers = [answer(pb.get_input_tensor_by_name(request, "TEXT").as_numpy()[0]) for request in requests]
        return [pb.InferenceResponse([pb.Tensor("label", a[None]), pb.Tensor("scores", b[None])]) for a, b in answers]
"""
)
TENSORS = """
output [{ name: "label" data_type: TYPE_STRING dims: [-1] }, { name: "scores" data_type: TYPE_FP32 dims: [-1, 2] }]
"""
STEP = """ensemble_scheduling { step [{ model_name: "clf.1.batch" model_version: 1
  input_map { key: "TEXT" value: "TEXT" } output_map { key: "label" value: "label" } output_map { key: "scores" value: "scores" } }] }
"""
CONFIGS = {
    NAME: 'platform: "ensemble" max_batch_size: 0 input [{ name: "TEXT" data_type: TYPE_STRING dims: [-1] }]'
    + TENSORS
    + STEP,
    NAME + ".batch": 'backend: "python" max_batch_size: 8 '
    + 'input [{ name: "TEXT" data_type: TYPE_STRING dims: [-1] allow_ragged_batch: true }]'
    + TENSORS
    + "instance_group [{ kind: KIND_CPU count: 1 }]",
}
TENSOR = {"name": "TEXT", "datatype": "BYTES", "shape": [2], "data": ["a", "é😀"]}


class Server(NamedTuple):
    http_port: int
    grpc_port: int


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory, eventually: Callable[..., Any]) -> Iterator[Server]:
    try:
        installation = find_installation()
    except Unavailable as error:
        pytest.skip(str(error))
    repository = tmp_path_factory.mktemp("repository")
    for name, text in CONFIGS.items():
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "config.pbtxt").write_text(f'name: "{name}"\n{text}')
    (repository / (NAME + ".batch") / "1" / "model.py").write_text(MODEL)
    ports = free_ports(3)
    told = TritonSettings(http_port=ports[0], grpc_port=ports[1], metrics_port=ports[2])
    log = repository.parent / f"{repository.name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command(installation, told, repository), "--load-model=*"],
            env=environment(installation, os.environ),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        eventually("Triton with the model", lambda: ready(ports[0]), timeout=60)
        yield Server(ports[0], ports[1])
    finally:
        process.terminate()
        process.wait(20)


def free_ports(count: int) -> list[int]:
    import socket

    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/models/{NAME}/ready", timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def raw(*texts: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


def rest(tree: object, tail: bytes = b"", length: int | None = None) -> tuple[bytes, int | None]:
    head = tree if isinstance(tree, bytes) else json.dumps(tree).encode()
    return head + tail, (len(head) if length is None else length) if tail else length


def asks(**fields: Any) -> dict[str, Any]:
    return {"inputs": [TENSOR]} | fields


def binary(size: int, shape: int) -> dict[str, Any]:
    return {
        "inputs": [{"name": "TEXT", "datatype": "BYTES", "shape": [shape], "parameters": {"binary_data_size": size}}]
    }


def changed(**fields: Any) -> dict[str, Any]:
    return {"inputs": [{name: value for name, value in (TENSOR | fields).items() if value is not None}]}


ANSWERED = {
    "plain": rest(asks()),
    "id": rest(asks(id='x"é')),
    "no outputs named": rest(asks(outputs=[])),
    "an output twice": rest(asks(outputs=[{"name": "label"}, {"name": "label"}])),
    "scores": rest(asks(outputs=[{"name": "scores"}])),
    "all binary": rest(asks(parameters={"binary_data_output": True})),
    "one binary": rest(asks(outputs=[{"name": "scores", "parameters": {"binary_data": True}}, {"name": "label"}])),
    "all binary but one": rest(
        asks(parameters={"binary_data_output": True}, outputs=[{"name": "scores", "parameters": {"binary_data": False}}, {"name": "label"}])
    ),
    "binary in": rest(binary(len(raw(b"a", b"bc")), 2), raw(b"a", b"bc")),
    "not UTF-8": rest(binary(len(raw(b"\xff\x00")), 1), raw(b"\xff\x00")),
    "no texts": rest(changed(shape=[0], data=[])),
    "nested": rest(changed(data=[["a"], ["b"]])),
    "empty text": rest(changed(data=["", "a\0b"])),
    "unknown fields": rest(asks(foo=1, parameters={"x": 1})),
    "priority": rest(asks(parameters={"priority": 1, "timeout": 5})),
    "thousands": rest(changed(shape=[10_000], data=[f"text {n}" for n in range(10_000)])),
}  # fmt: skip
REFUSED = {
    "unknown output": rest(asks(outputs=[{"name": "x"}])),
    "id no text": rest(asks(id=5)),
    "two dimensions": rest(changed(shape=[2, 1])),
    "too few": rest(changed(data=["a"])),
    "too many": rest(changed(data=["a", "b", "c"])),
    "numbers": rest(changed(data=[1, 2])),
    "null": rest(changed(data=[None, "a"])),
    "a text for a list": rest(changed(data="ab")),
    "datatype": rest(changed(datatype="FP32", data=[1, 2])),
    "no datatype": rest(changed(datatype=None)),
    "no shape": rest(changed(shape=None)),
    "negative shape": rest(changed(shape=[-2])),
    "float shape": rest(changed(shape=[2.0])),
    "name": rest(changed(name="X")),
    "input twice": rest({"inputs": [TENSOR, TENSOR]}),
    "another input": rest({"inputs": [TENSOR, TENSOR | {"name": "X"}]}),
    "no input": rest({"inputs": []}),
    "no inputs": rest({}),
    "a list": rest([]),
    "broken": rest(b"{"),
    "empty": rest(b""),
    "size too small": rest(binary(9, 2), raw(b"a", b"b")),
    "size too large": rest(binary(90, 1), raw(b"a")),
    "trailing bytes": rest(binary(5, 1), raw(b"a") + b"zz"),
    "lengths that lie": rest(binary(5, 1), struct.pack("<I", 9) + b"a"),
    "header too long": rest(binary(5, 1), raw(b"a"), 9999),
    "header too short": rest(binary(5, 1), raw(b"a"), 10),
    "no header": (rest(binary(5, 1), raw(b"a"))[0], None),
    "shared memory": rest(changed(data=None, parameters={"shared_memory_region": "x", "shared_memory_byte_size": 5})),
}


def computed(request: TextRequest) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(SOURCE, names)
    label, scores = names["answer"](request.texts)
    return {"label": list(label), "scores": scores}


def ask(triton: Server, body: bytes, length: int | None) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", triton.http_port)
    connection.request(
        "POST",
        f"/v2/models/{NAME}/infer",
        body,
        {} if length is None else {"Inference-Header-Content-Length": str(length)},
    )
    response = connection.getresponse()
    answer = response.status, {key.lower(): value for key, value in response.getheaders()}, response.read()
    connection.close()
    return answer


def as_read(headers: dict[str, str], body: bytes) -> Any:
    """What Triton's client makes of an answer, without what depends on no request: sequence parameters, order of outputs."""
    length = headers.get("inference-header-content-length")
    result = client_http.InferenceServerClient.parse_response_body(body, header_length=int(length) if length else None)
    tree = result.get_response()
    values = {output["name"]: result.as_numpy(output["name"]) for output in tree["outputs"]}
    texts = {
        name: [v.encode() if isinstance(v, str) else v for v in value.ravel().tolist()]
        for name, value in values.items()
    }
    described = sorted(tree["outputs"], key=lambda output: output["name"])
    return (
        headers["content-type"], tree.get("id"), tree["model_name"], tree["model_version"], described,
        {name: (value.dtype.kind in "f", value.shape) for name, value in values.items()}, texts,
    )  # fmt: skip


@pytest.mark.parametrize("case", ANSWERED)
def test_what_triton_answers_is_answered_alike(triton: Server, case: str) -> None:
    body, length = ANSWERED[case]
    status, headers, answer = ask(triton, body, length)
    assert status == 200, answer
    request = from_rest(body, length, OUTPUTS["sequence"])
    ours, written = to_rest(request, NAME, "1", computed(request))
    assert as_read({key.decode(): value.decode() for key, value in ours}, written) == as_read(headers, answer)


@pytest.mark.parametrize("case", REFUSED)
def test_what_triton_refuses_is_refused(triton: Server, case: str) -> None:
    body, length = REFUSED[case]
    assert ask(triton, body, length)[0] >= 400
    with pytest.raises(BadRequest):
        from_rest(body, length, OUTPUTS["sequence"])


def messages() -> dict[str, v2.ModelInferRequest]:
    def make(
        shape: tuple[int, ...] = (2,),
        outputs: tuple[str, ...] = (),
        contents: tuple[bytes, ...] = (),
        raws: tuple[bytes, ...] = (),
    ) -> v2.ModelInferRequest:
        request = v2.ModelInferRequest(model_name=NAME, id="q")
        tensor = request.inputs.add(name="TEXT", datatype="BYTES", shape=shape)
        if contents:
            tensor.contents.bytes_contents.extend(contents)
        request.raw_input_contents.extend(raws)
        for name in outputs:
            request.outputs.add(name=name)
        return request

    nameless, twice, other = (
        make(raws=(raw(b"a", b"b"),)),
        make(
            contents=(
                b"a",
                b"b",
            )
        ),
        make(
            contents=(
                b"a",
                b"b",
            )
        ),
    )
    nameless.inputs[0].name = "X"
    twice.inputs.add().CopyFrom(twice.inputs[0])
    other.inputs[0].datatype = "INT32"
    return {
        "ok contents": make(
            contents=(
                b"a",
                b"\xff",
            )
        ),
        "ok raw": make(raws=(raw(b"a", b"\xff"),)),
        "ok scores": make(raws=(raw(b"a", b""),), outputs=("scores",)),
        "ok order": make(raws=(raw(b"a", b""),), outputs=("scores", "label")),
        "ok thousands": make((10_000,), raws=(raw(*(b"text %d" % n for n in range(10_000))),)),
        "shape": make(
            (2, 1),
            contents=(
                b"a",
                b"b",
            ),
        ),
        "too few": make(contents=(b"a",)),
        "too many": make(
            contents=(
                b"a",
                b"b",
                b"c",
            )
        ),
        "raw too many": make(raws=(raw(b"a", b"b", b"c"),)),
        "raw lies": make(raws=(struct.pack("<I", 99) + b"a",)),
        "output": make(raws=(raw(b"a", b"b"),), outputs=("x",)),
        "nameless": nameless,
        "input twice": twice,
        "datatype": other,
        "both": make(
            contents=(
                b"a",
                b"b",
            ),
            raws=(raw(b"a", b"b"),),
        ),
    }


@pytest.mark.parametrize("case", messages())
def test_over_grpc_too(triton: Server, case: str) -> None:
    message = messages()[case].SerializeToString()
    with grpc.insecure_channel(f"127.0.0.1:{triton.grpc_port}") as channel:
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        if not case.startswith("ok"):
            with pytest.raises(grpc.RpcError):
                infer(message)
            with pytest.raises(BadRequest):
                from_grpc(message, OUTPUTS["sequence"])
            return
        theirs = v2.ModelInferResponse.FromString(infer(message))
    request = from_grpc(message, OUTPUTS["sequence"])
    ours = v2.ModelInferResponse.FromString(to_grpc(request, NAME, "1", computed(request)))

    def tensors(response: v2.ModelInferResponse) -> Any:
        pairs = zip(response.outputs, response.raw_output_contents, strict=True)
        return {output.name: (output.datatype, list(output.shape), content) for output, content in pairs}

    assert tensors(ours) == tensors(theirs)
    assert (ours.id, ours.model_name, ours.model_version) == (theirs.id, theirs.model_name, theirs.model_version)


def test_the_model_in_triton_is_the_one_compared_with(triton: Server) -> None:
    body, length = ANSWERED["plain"]
    status, _, answer = ask(triton, body, length)
    outputs = {output["name"]: output for output in json.loads(answer)["outputs"]}
    digest = hashlib.sha256(b"a").digest()
    assert status == 200
    assert outputs["scores"]["data"][0] == float(np.float32(digest[0] / 256))
