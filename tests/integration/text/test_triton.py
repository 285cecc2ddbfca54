"""Text models in a real Triton: texts and token ids, company, engines that give way, what is said about it."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import psutil
import pytest
from roblox_ml_core.errors import RmlError
from roblox_ml_serving.agent.environments import cores
from roblox_ml_serving.backends.rml_text_engines import open_engine
from roblox_ml_serving.backends.rml_text_heads import softmax
from roblox_ml_serving.backends.rml_text_plan import read_plan
from roblox_ml_serving.trial import TrialStack

pytestmark = [pytest.mark.triton, pytest.mark.slow]

BOUND = 1e-5  # of a probability, as the packages state it


@pytest.fixture(scope="module")
def served(triton_dir: Any, tiny: Callable[..., Any]) -> Iterator[TrialStack]:
    """Both tasks, every engine for a processor like this one, and one model that prefers CTranslate2."""
    models = {
        "clf": tiny().root,
        "ner": tiny(task="token").root,
        "ct2": tiny(engines=("ctranslate2", "onnxruntime")).root,
        "lost": tiny(requires=("no_such_flag",)).root,
    }
    with TrialStack(models, env={"RML_TRITON_DIR": str(triton_dir)}) as stack:
        yield stack


def ask_ids(stack: TrialStack, name: str, rows: list[np.ndarray], lengths: list[int] | None = None) -> np.ndarray:
    """As a door asks: binary tensors to the batch model."""
    ids = b"".join(row.astype("<i4").tobytes() for row in rows)
    counts = np.array([len(row) for row in rows] if lengths is None else lengths, dtype="<i4").tobytes()
    head = json.dumps(
        {
            "inputs": [
                {
                    "name": name,
                    "datatype": "INT32",
                    "shape": [1, len(data) // 4],
                    "parameters": {"binary_data_size": len(data)},
                }
                for name, data in (("IDS", ids), ("LENGTHS", counts))
            ],
            "outputs": [{"name": "LOGITS", "parameters": {"binary_data": True}}],
        }
    ).encode()
    request = urllib.request.Request(
        f"http://{stack.triton_http}/v2/models/{name}.1.batch/versions/1/infer",
        head + ids + counts,
        {"Inference-Header-Content-Length": str(len(head))},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        data = answer.read()
        skip = int(answer.headers["Inference-Header-Content-Length"])
    (output,) = json.loads(data[:skip])["outputs"]
    assert output["name"] == "LOGITS"
    assert output["shape"][0] == 1
    return np.frombuffer(data, dtype="<f4", offset=skip).reshape(output["shape"][1:])


def ask_texts(url: str, texts: list[str]) -> dict[str, list[Any]]:
    body = {"inputs": [{"name": "TEXT", "datatype": "BYTES", "shape": [len(texts)], "data": texts}]}
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode()), timeout=30) as answer:
        return {output["name"]: output["data"] for output in json.load(answer)["outputs"]}


def refusal(function: Callable[[], Any]) -> tuple[int, str]:
    with pytest.raises(urllib.error.HTTPError) as caught:
        function()
    return caught.value.code, json.loads(caught.value.read())["error"]


def some_rows(count: int, seed: int = 5) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.integers(5, 30, size=n) for n in random.integers(1, 33, size=count)]


@pytest.mark.parametrize("name", ["clf", "ner", "ct2", "lost"])
def test_texts_get_their_known_answers_from_triton_and_through_the_door(
    served: TrialStack, tiny: Callable[..., Any], packages: Any, name: str
) -> None:
    package = tiny(task="token") if name == "ner" else tiny()
    plan = read_plan((package.root / "model/text.json").read_bytes())
    texts = [*packages.TEXTS, "گیم game", "\U0001f600 good", "the " * 200]
    expected = packages.answers(package.root / "model", plan, texts)
    for url in (f"http://{served.triton_http}/v2/models/{name}.1/infer", f"{served.rest}/v2/models/{name}/infer"):
        answer = ask_texts(url, texts)
        if name == "ner":
            for found, known in zip(answer["entities"], expected["entities"], strict=True):
                left, right = json.loads(found), json.loads(known)
                assert [{**one, "score": 0} for one in left] == [{**one, "score": 0} for one in right]
                assert [one["score"] for one in left] == pytest.approx([one["score"] for one in right], abs=1e-4)
        else:
            assert answer["label"] == list(expected["label"])
            assert answer["scores"] == pytest.approx(expected["scores"].reshape(-1), abs=1e-4)


@pytest.mark.parametrize("name", ["clf", "ner", "ct2", "lost"])
def test_a_row_alone_and_among_others_gets_the_same_logits(
    served: TrialStack, tiny: Callable[..., Any], name: str
) -> None:
    rows = some_rows(60)
    alone = [ask_ids(served, name, [row]) for row in rows]
    # In one request, and in many at once that Triton puts together as it likes.
    together = ask_ids(served, name, rows)
    np.testing.assert_allclose(softmax(together), softmax(np.concatenate(alone)), atol=BOUND)
    with ThreadPoolExecutor(12) as pool:
        crowd = list(pool.map(lambda i: ask_ids(served, name, [rows[i], rows[-1 - i]]), range(len(rows))))
    for i, answer in enumerate(crowd):
        np.testing.assert_allclose(softmax(answer), softmax(np.concatenate([alone[i], alone[-1 - i]])), atol=BOUND)
    package = tiny(task="token") if name == "ner" else tiny()
    plan = read_plan((package.root / "model/text.json").read_bytes())
    reference = open_engine(plan.engines[-1], package.root / "model", plan).run(rows)
    np.testing.assert_allclose(together, np.concatenate([np.atleast_2d(line) for line in reference]), atol=1e-4)


def test_no_texts_get_no_answers(served: TrialStack) -> None:
    assert ask_texts(f"http://{served.triton_http}/v2/models/clf.1/infer", []) == {"label": [], "scores": []}
    assert ask_texts(f"http://{served.triton_http}/v2/models/ner.1/infer", []) == {"entities": []}


def test_requests_that_lie_are_refused_and_fail_nobody_else(served: TrialStack) -> None:
    rows = some_rows(8)
    whole = ask_ids(served, "clf", rows)

    def lie(lengths: list[int]) -> tuple[int, str]:
        return refusal(lambda: ask_ids(served, "clf", rows, lengths))

    with ThreadPoolExecutor(8) as pool:
        honest = [pool.submit(ask_ids, served, "clf", rows) for _ in range(12)]
        told = list(pool.map(lie, [[1], [], [0, sum(map(len, rows))], [-3, 5], [33]] * 3))
    for answer in honest:
        np.testing.assert_allclose(softmax(answer.result()), softmax(whole), atol=BOUND)
    assert all(code == 400 and "LENGTHS" in text for code, text in told), told
    code, text = refusal(lambda: ask_texts(f"http://{served.triton_http}/v2/models/clf.1.batch/infer", ["a", "b"]))
    assert code == 400, text


def test_the_log_and_the_metrics_say_which_engine_runs(served: TrialStack) -> None:
    with urllib.request.urlopen(served.triton_metrics, timeout=10) as page:
        lines = page.read().decode()
    found = {
        model: (engine, wanted, float(count))
        for engine, model, wanted, count in re.findall(
            r'^rml_text_engine\{engine="(.*?)",model="(.*?)",wanted="(.*?)"\} (\S+)$', lines, re.MULTILINE
        )
    }
    assert found == {
        "clf.1": ("openvino-fp32", "openvino-fp32", cores()),
        "ner.1": ("openvino-fp32", "openvino-fp32", cores()),
        "ct2.1": ("ctranslate2-fp32", "ctranslate2-fp32", cores()),
        "lost.1": ("onnxruntime-fp32", "openvino-fp32", cores()),
    }
    log = served.log("triton")
    assert "engine openvino-fp32 is passed over: this processor has no no_such_flag" in log
    assert "engine onnxruntime-fp32 runs instead of openvino-fp32" in log
    assert len(re.findall(r"clf\.1\.batch_0_\d: warmed up (\d+) of \1 shapes", log)) == cores()


def test_each_instance_has_a_core_of_its_own(served: TrialStack) -> None:
    taken = [tuple(psutil.Process(pid).cpu_affinity()) for pid in served.instances()]
    every = psutil.Process().cpu_affinity()
    assert sorted(taken) == sorted((core,) for core in every for _ in range(4))


def test_a_package_without_any_engine_for_this_place_does_not_load(
    triton_dir: Any, tiny: Callable[..., Any], tmp_path: Any
) -> None:
    import shutil

    folder = tmp_path / "broken"
    shutil.copytree(tiny(requires=("no_such_flag",)).root / "model", folder / "model")
    (folder / "model/engines/onnxruntime-fp32/model.onnx").write_bytes(b"no graph")
    with (
        pytest.raises(RmlError, match=r"no engine of this package runs here: openvino-fp32: this processor has no"),
        TrialStack({"broken": folder}, instances=1, env={"RML_TRITON_DIR": str(triton_dir)}),
    ):
        pass
