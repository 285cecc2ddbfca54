"""Every package format in a real Triton, deployed through a real control plane and asked like any v2 client asks."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
from roblox_ml_core.package import compare, read

pytestmark = [pytest.mark.triton, pytest.mark.slow]

MODELS = ("text", "matmul", "points", "shout")
HOLLOW = """
import numpy as np
def predict(batch):
    return {"shout": np.array([], dtype=object), "pid": np.array([], dtype=np.int64)}
"""


@pytest.fixture(scope="module")
def deployed(serving, build, tmp_path_factory) -> Any:
    """All formats resident, and beside them a model whose recorded answer is a lie."""
    folder = tmp_path_factory.mktemp("packages")
    liar = build["text"](folder / "liar", expected=lambda scores: scores[:, ::-1])
    hollow = build["shout"](folder / "hollow", source=HOLLOW)
    for name, package in [*((name, build[name](folder / name)) for name in MODELS), ("liar", liar), ("hollow", hollow)]:
        serving.deploy(name, serving.publish(package, name))
    serving.wait_ready(*(f"{name}/1" for name in MODELS), timeout=240)
    serving.packages = folder
    return serving


def tensors(arrays: dict[str, np.ndarray], package: Any) -> list[dict[str, Any]]:
    specs = {spec.name: spec for spec in package.signature.inputs}
    return [
        {"name": name, "datatype": specs[name].datatype, "shape": list(array.shape), "data": array.ravel().tolist()}
        for name, array in arrays.items()
    ]


def over_http(stack: Any, name: str, inputs: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    url = f"http://{stack.http}/v2/models/{name}.1/versions/1/infer"
    with urllib.request.urlopen(
        urllib.request.Request(url, json.dumps({"inputs": inputs}).encode()), timeout=30
    ) as answer:
        outputs = json.load(answer)["outputs"]
    return {
        o["name"]: np.array(o["data"], dtype=object if o["datatype"] == "BYTES" else float).reshape(o["shape"])
        for o in outputs
    }


def over_grpc(
    stack: Any, name: str, inputs: list[tuple[str, str, np.ndarray]], outputs: list[str]
) -> dict[str, np.ndarray]:
    client = grpc_client.InferenceServerClient(stack.grpc)
    sent = []
    for tensor, datatype, array in inputs:
        sent.append(grpc_client.InferInput(tensor, list(array.shape), datatype))
        sent[-1].set_data_from_numpy(array)
    answer = client.infer(f"{name}.1", sent, model_version="1", client_timeout=30)
    client.close()
    return {output: answer.as_numpy(output) for output in outputs}


def ask_text(stack: Any, texts: list[bytes]) -> tuple[list[str], np.ndarray]:
    array = np.array(texts, dtype=object)
    answer = over_grpc(stack, "text", [("TEXT", "BYTES", array)], ["label", "scores"])
    return [label.decode() for label in answer["label"]], answer["scores"]


@pytest.mark.parametrize("name", MODELS)
def test_each_format_gives_its_known_answer_over_http_and_grpc(deployed, name: str) -> None:
    package = read(deployed.packages / name)
    assert package.examples is not None
    arrays, known = package.examples.input_arrays(), package.examples.output_arrays()
    http = over_http(deployed, name, tensors(arrays, package))
    assert compare(known, http, package.examples.tolerance) == []
    sent = [(spec.name, spec.datatype, arrays[spec.name]) for spec in package.signature.inputs]
    grpc = over_grpc(deployed, name, sent, [spec.name for spec in package.signature.outputs])
    assert compare(known, grpc, package.examples.tolerance) == []
    for spec in package.signature.outputs:
        if spec.datatype == "FP32":
            np.testing.assert_allclose(http[spec.name], grpc[spec.name], atol=1e-6)


def test_metadata_is_the_signature(deployed) -> None:
    with urllib.request.urlopen(f"http://{deployed.http}/v2/models/text.1") as answer:
        metadata = json.load(answer)
    assert metadata["versions"] == ["1"]
    assert metadata["inputs"] == [{"name": "TEXT", "datatype": "BYTES", "shape": [-1]}]
    shapes = {output["name"]: output["shape"] for output in metadata["outputs"]}
    assert shapes == {"label": [-1], "scores": [-1, 3]}


@pytest.mark.parametrize(
    ("name", "words"),
    [("liar", ("liar/1 does not give its known answer", "scores")), ("hollow", ("'shout' has shape [0] for 2 rows",))],
)
def test_a_model_that_answers_wrongly_or_nothing_is_refused_by_name(
    deployed, eventually, name: str, words: tuple[str, ...]
) -> None:
    reference = f"{name}/1"

    def failure() -> str:
        state, reason = deployed.states().get(reference, ("", ""))
        return reason if state == "failed" else ""

    reason = eventually("it is reported failed", failure, 120)
    for word in words:
        assert word in reason
    assert reference not in deployed.ready()


def test_zero_rows_give_zero_rows(deployed) -> None:
    labels, scores = ask_text(deployed, [])
    assert labels == []
    assert scores.shape == (0, 3)


def test_any_bytes_are_text(deployed) -> None:
    """Invalid UTF-8 is read with U+FFFD in its place, the empty text has an answer of its own."""
    broken, scores_broken = ask_text(deployed, [b"good \xff\xfe game", b""])
    spelled, scores_spelled = ask_text(deployed, ["good � game".encode(), b""])
    assert broken == spelled
    np.testing.assert_allclose(scores_broken, scores_spelled, atol=1e-6)
    assert np.isfinite(scores_broken).all()
    np.testing.assert_allclose(scores_broken.sum(axis=1), 1, atol=1e-5)


def test_requests_batched_together_answer_as_alone(deployed) -> None:
    """Ragged requests at once: Triton batches them, each gets the rows it sent, equal to asking one text at a time."""
    words = [b"good", b"bad", b"game", b"the", b"very", b"love", b"hate", b"unknown"]
    random = np.random.default_rng(7)
    texts = [b" ".join(random.choice(words, size=random.integers(0, 30)).tolist()) for _ in range(96)]
    alone = {text: ask_text(deployed, [text]) for text in set(texts)}
    requests = [texts[i : i + 1 + i % 4] for i in range(0, 90)]
    before = executions(deployed)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda request: ask_text(deployed, request), requests))
    for request, (labels, scores) in zip(requests, answers, strict=True):
        assert labels == [alone[text][0][0] for text in request]
        np.testing.assert_allclose(scores, np.concatenate([alone[text][1] for text in request]), atol=1e-5)
    assert executions(deployed) - before < len(requests)


def executions(stack: Any) -> int:
    """How often the batch model was executed: fewer times than requests means that Triton put some together."""
    with urllib.request.urlopen(f"http://{stack.http}/v2/models/text.1.batch/stats") as answer:
        return int(json.load(answer)["model_stats"][0]["execution_count"])


def test_a_plain_python_model_runs_in_its_own_environment_and_survives_itself(deployed) -> None:
    def shout(texts: list[str]) -> dict[str, np.ndarray]:
        return over_http(
            deployed, "shout", [{"name": "TEXT", "datatype": "BYTES", "shape": [len(texts)], "data": texts}]
        )

    before = shout(["hi"])["pid"][0]
    executable = Path(f"/proc/{int(before)}/cmdline").read_bytes().split(b"\0")[0].decode()
    assert executable == str(deployed.home / "envs" / Path(executable).parents[1].name / "bin" / "python")
    with pytest.raises(urllib.error.HTTPError) as raised:
        shout(["raise"])
    assert "KeyError: 'no such word'" in raised.value.read().decode()
    assert shout(["hi"])["pid"][0] == before
    with pytest.raises(urllib.error.HTTPError) as died:
        shout(["die"])
    assert "exited with status 7 during this request" in died.value.read().decode()
    assert shout(["hi"])["shout"].tolist() == ["HI!"]
    assert shout(["hi"])["pid"][0] != before


def test_inputs_that_disagree_are_refused_with_words(deployed) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        over_http(deployed, "matmul", [{"name": "X", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}])
    assert "unexpected shape for input 'X'" in refused.value.read().decode()
