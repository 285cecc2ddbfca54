"""What runs inside Triton, run here: batching of requests, the wire to a worker, the worker itself.

The modules are imported as the stub imports them, from their folder. Triton's own part (tensors, responses) is tested with the
real server in tests/integration/serving.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from roblox_ml_serving.backends import FOLDER

SIGNATURE = {
    "inputs": [{"name": "TEXT", "datatype": "BYTES", "shape": [-1]}],
    "outputs": [
        {"name": "text", "datatype": "BYTES", "shape": [-1]},
        {"name": "n", "datatype": "INT64", "shape": [-1]},
    ],
}


def module(name: str) -> Any:
    sys.path.insert(0, str(FOLDER))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(FOLDER))


backend, frames, python_model = module("rml_backend"), module("rml_frames"), module("python_model")


class Echo(backend.Model):
    """Answers each text and its length; fails on a batch that holds "poison"."""

    signature = SIGNATURE
    text = ("TEXT",)

    def __init__(self, max_rows: int | None = None) -> None:
        self.max_rows = max_rows
        self.calls: list[int] = []

    def predict(self, batch: dict[str, Any]) -> dict[str, Any]:
        self.calls.append(len(batch["TEXT"]))
        if "poison" in batch["TEXT"]:
            raise KeyError("poison")
        return {"text": batch["TEXT"], "n": [len(text) for text in batch["TEXT"]]}


def request(*texts: bytes) -> dict[str, Any]:
    return {"TEXT": np.array(texts, dtype=object)}


@given(st.lists(st.lists(st.binary(max_size=4), max_size=5), max_size=6), st.one_of(st.none(), st.integers(1, 4)))
@settings(deadline=None)
def test_each_request_gets_its_own_rows_in_order(texts: list[list[bytes]], max_rows: int | None) -> None:
    model = Echo(max_rows)
    answers = model.answer([request(*rows) for rows in texts])
    for rows, answer in zip(texts, answers, strict=True):
        decoded = [text.decode("utf-8", "replace") for text in rows]
        assert [text.decode() for text in answer["text"]] == decoded
        assert answer["n"].tolist() == [len(text) for text in decoded]
    assert not max_rows or all(call <= max_rows for call in model.calls)


def test_requests_are_answered_in_one_call() -> None:
    model = Echo()
    model.answer([request(b"a"), request(b"b", b"c")])
    assert model.calls == [3]


def test_a_poisonous_request_fails_alone() -> None:
    good, bad, refused = Echo().answer([request(b"a"), request(b"poison"), backend.BadInput("too few rows")])
    assert good["text"].tolist() == [b"a"]
    assert isinstance(bad, KeyError)
    assert backend.describe(bad) == "KeyError: 'poison'"
    assert backend.describe(refused) == "too few rows"


def test_requests_of_different_width_are_not_concatenated() -> None:
    groups = backend.same_trailing_shape(
        {0: {"X": np.zeros((1, 2))}, 1: {"X": np.zeros((1, 3))}, 2: {"X": np.zeros((4, 2))}}
    )
    assert groups == [[0, 2], [1]]


def test_a_request_loses_its_leading_one_or_is_refused() -> None:
    assert backend.rows_of({"X": np.zeros((1, 5, 2))})["X"].shape == (5, 2)
    for wrong, words in (
        ({"X": np.zeros((2, 5))}, "without the suffix .batch"),
        ({"X": None}, "'X' is missing"),
        ({"X": np.zeros((1, 2)), "Y": np.zeros((1, 3))}, "differ in their number of rows"),
    ):
        with pytest.raises(backend.BadInput, match=words):
            backend.rows_of(wrong)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ([1], "returned list"),
        ({"text": ["a"]}, "gave no output 'n'"),
        ({"text": ["a"], "n": []}, r"'n' has shape \[0\] for 1 rows"),
        ({"text": ["a"], "n": [[1]]}, r"'n' has shape \[1, 1\]"),
    ],
)
def test_an_answer_outside_the_signature_is_an_error(answer: Any, words: str) -> None:
    with pytest.raises(backend.BadOutput, match=words):
        backend.checked(answer, SIGNATURE["outputs"], 1)


def test_numpy_2_is_refused_with_the_reason() -> None:
    backend.check_numpy("1.26.4")
    with pytest.raises(RuntimeError, match="empty tensors"):
        backend.check_numpy("2.4.6")


@given(arrays(st.sampled_from([np.float32, np.int64, np.bool_]), st.lists(st.integers(0, 3), max_size=3).map(tuple)))
@settings(deadline=None)
def test_numbers_survive_the_wire(array: np.ndarray) -> None:
    stream = io.BytesIO()
    frames.send(stream, "predict", {"x": array})
    stream.seek(0)
    kind, received, _ = frames.receive(stream)
    assert kind == "predict"
    assert received["x"].dtype == array.dtype
    np.testing.assert_array_equal(received["x"], array)


@given(st.lists(st.text(), max_size=5))
@settings(deadline=None)
def test_texts_survive_the_wire(texts: list[str]) -> None:
    clean = [text.encode("utf-8", "replace").decode() for text in texts]
    stream = io.BytesIO()
    frames.send(stream, "answer", {"t": np.array(clean, dtype=object)}, text="note")
    stream.seek(0)
    _, received, note = frames.receive(stream)
    assert received["t"].tolist() == clean
    assert note == "note"


def test_half_a_frame_is_a_closed_connection() -> None:
    stream = io.BytesIO()
    frames.send(stream, "predict", {"x": np.arange(9)})
    for cut in (2, 10, len(stream.getvalue()) - 1):
        with pytest.raises(frames.Closed):
            frames.receive(io.BytesIO(stream.getvalue()[:cut]))


def test_objects_are_never_pickled() -> None:
    class Trap:
        def __reduce__(self) -> Any:
            raise AssertionError("pickled")

        def __str__(self) -> str:
            return "as text"

    stream = io.BytesIO()
    frames.send(stream, "answer", {"x": np.array([Trap()], dtype=object)})
    stream.seek(0)
    assert frames.receive(stream)[1]["x"].tolist() == ["as text"]


CODE = """
import os, time
import numpy as np
def predict(batch):
    text = batch["TEXT"][0]
    if text == "die": os._exit(3)
    if text == "kill": os.kill(os.getpid(), 9)
    if text == "hang": time.sleep(60)
    if text == "raise": raise ValueError("bad luck")
    if text == "list": return [1]
    if text == "ragged": return {"y": [[1], [1, 2]]}
    if text == "novel": raise ValueError("x" * 3_000_000)
    if text == "exit": raise SystemExit(5)
    print("a model may print", flush=True)
    return {"pid": np.array([os.getpid()])}
"""


@pytest.fixture
def worker(tmp_path: Path) -> Any:
    (tmp_path / "scorer.py").write_text(CODE)
    worker = python_model.Worker(sys.executable, tmp_path, "scorer:predict")
    worker.start()
    yield worker
    worker.stop()


def say(text: str) -> dict[str, Any]:
    return {"TEXT": np.array([text], dtype=object)}


def test_a_worker_answers_from_another_process(worker: Any) -> None:
    pid = worker.ask(say("hi"), 10)["pid"][0]
    assert pid == worker.process.pid != os.getpid()
    for word, message in (
        ("raise", "ValueError: bad luck"),
        ("list", "returned list"),
        ("ragged", "inhomogeneous"),
        ("novel", "ValueError: xxx"),
    ):
        with pytest.raises(backend.ModelError, match=message):
            worker.ask(say(word), 10)
    assert worker.ask(say("hi"), 10)["pid"][0] == pid


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("die", "exited with status 3"),
        ("exit", "exited with status 5"),
        ("kill", "ended by SIGKILL"),
        ("hang", "in time"),
    ],
)
def test_a_worker_that_dies_or_hangs_is_told_and_replaced(worker: Any, word: str, message: str) -> None:
    model = python_model.TritonPythonModel()
    model.worker, model.timeout = worker, 1.0
    before = worker.process.pid
    with pytest.raises(python_model.WorkerDied, match=message):
        model.predict(say(word))
    after = int(model.predict(say("hi"))["pid"][0])
    assert after != before
    assert not Path(f"/proc/{before}").exists()


def test_a_worker_killed_between_requests_is_replaced_silently(worker: Any) -> None:
    model = python_model.TritonPythonModel()
    model.worker, model.timeout = worker, 10.0
    worker.process.kill()
    worker.process.wait()
    assert model.predict(say("hi"))["pid"][0] == worker.process.pid


@pytest.mark.parametrize(
    ("entry", "message"), [("nothing:predict", "No module named 'nothing'"), ("scorer:absent", "no attribute 'absent'")]
)
def test_an_entry_that_cannot_be_loaded_says_why(tmp_path: Path, entry: str, message: str) -> None:
    (tmp_path / "scorer.py").write_text(CODE)
    worker = python_model.Worker(sys.executable, tmp_path, entry)
    with pytest.raises(RuntimeError, match=message):
        worker.start()
    worker.stop()


def test_types_are_trusted_by_the_server_not_by_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    refused_types = module("sklearn_skops").refused_types
    found = ["sklearn.tree._tree.Tree", "os.system", "numpy.dtype", "my.Model"]
    assert refused_types(found, found) == ["os.system", "my.Model"]
    assert refused_types(["numpy.dtype"], []) == ["numpy.dtype"]
    monkeypatch.setenv("RML_TRUSTED_TYPES", "my.Model")
    assert refused_types(found, found) == ["os.system"]


def test_the_server_trusts_what_the_notebook_trusts() -> None:
    """The rule is written twice, because the stub cannot import the platform; it must stay one rule."""
    from roblox_ml_core.package.loaders import sklearn_skops as notebook

    assert module("sklearn_skops").KNOWN.pattern == notebook._KNOWN.pattern
