"""Distillation: whose layers the student gets, what it learns from, and that it is a package like any other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import roblox_ml as rml
from roblox_ml._build import prepare
from roblox_ml._distilling import Plan, chosen_layers, student_of, teach
from roblox_ml._labelled import labelled
from roblox_ml._text_training import layers_of, logits_of, padded, similar_lengths
from roblox_ml.errors import DatasetError, PackageError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

GOOD, BAD = ["good", "great", "fun"], ["bad", "lag", "broken"]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *GOOD, *BAD, "game", "the", "a", "very"]
SHAPE: dict[str, Any] = {"vocab_size": len(WORDS), "max_position_embeddings": 32}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    """Models this small gain nothing from a second core, and threads that wait for one another lose on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def texts(count: int) -> list[tuple[str, str]]:
    draw = np.random.default_rng(3)
    rows = []
    for _ in range(count):
        kind = int(draw.integers(2))
        filling = [WORDS[i] for i in draw.integers(11, 15, draw.integers(1, 8))]
        filling.insert(int(draw.integers(len(filling) + 1)), (BAD, GOOD)[kind][int(draw.integers(3))])
        rows.append((" ".join(filling), ("no", "yes")[kind]))
    return rows


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    vocabulary = {word: i for i, word in enumerate(WORDS)}
    made = transformers.BertTokenizerFast(vocab=vocabulary, model_max_length=32)
    assert made("good game")["input_ids"] == [2, 5, 11, 3]
    return made


def bert(kind: str = "BertForSequenceClassification", labels: int = 2, layers: int = 4) -> Any:
    torch.manual_seed(1)
    config = transformers.BertConfig(
        **SHAPE, hidden_size=16, num_hidden_layers=layers, num_attention_heads=2, intermediate_size=32, num_labels=labels,
        attn_implementation="eager",
    )  # fmt: skip
    return getattr(transformers, kind)(config).eval()


@pytest.fixture(scope="module")
def teacher(tokenizer: Any) -> Any:
    """A BERT that knows the good words from the bad ones."""
    model = bert()
    rows = texts(256)
    ids, mask = padded(tokenizer([text for text, _ in rows])["input_ids"])
    wanted = torch.tensor([label == "yes" for _, label in rows]).long()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(40):
        loss = torch.nn.functional.cross_entropy(model(input_ids=ids, attention_mask=mask).logits, wanted)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.config.id2label = {0: "no", 1: "yes"}
    assert loss.item() < 0.2
    return model


@given(st.integers(1, 48), st.data())
def test_a_student_keeps_first_and_last_and_no_layer_twice(have: int, data: st.DataObject) -> None:
    want = data.draw(st.integers(1, have))
    chosen = chosen_layers(have, want)
    assert len(chosen) == len(set(chosen)) == want
    assert chosen == sorted(chosen)
    assert chosen[-1] == have - 1
    assert want == 1 or chosen[0] == 0


@pytest.mark.parametrize("family", ["Bert", "Roberta", "Electra", "XLMRoberta", "DistilBert"])
def test_students_of_every_family(family: str) -> None:
    size = (
        {"dim": 16, "n_layers": 4, "n_heads": 2, "hidden_dim": 32}
        if family == "DistilBert"
        else {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 32}
    )
    config = getattr(transformers, f"{family}Config")(**SHAPE, **size)
    model = getattr(transformers, f"{family}ForSequenceClassification")(config).eval()
    student = student_of(model, 2)
    assert (len(layers_of(student)), len(layers_of(model))) == (2, 4)
    assert student.config.num_hidden_layers == 2
    assert model.config.num_hidden_layers == 4
    for kept, own in zip(layers_of(student), (0, 3), strict=True):
        theirs = layers_of(model)[own].state_dict()
        assert all(torch.equal(value, theirs[name]) for name, value in kept.state_dict().items())
    assert len(logits_of(student, [[5, 6, 7], [5]])) == 2


def test_the_student_learns_the_teachers_answers_without_labels(teacher: Any, tokenizer: Any) -> None:
    rows = tokenizer([text for text, _ in texts(400)])["input_ids"]
    student = student_of(teacher, 2)
    for parameter in [*student.classifier.parameters(), *student.bert.pooler.parameters()]:
        torch.nn.init.normal_(parameter, std=0.05)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}

    def agreement() -> float:
        pairs = zip(logits_of(teacher, rows), logits_of(student, rows), strict=True)
        return float(np.mean([a.argmax() == b.argmax() for a, b in pairs]))

    naive = agreement()
    teach(student, teacher, rows, None, Plan(epochs=3, rate=2e-3), progress=lambda _: None)
    assert agreement() > max(0.9, naive)
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


def test_distil_packages_the_student_and_measures_it(teacher: Any, tokenizer: Any) -> None:
    said: list[str] = []
    student = rml.distill(
        (teacher, tokenizer), texts(300), layers=2, epochs=2, rate=2e-3, max_length=16, progress=said.append
    )
    package = json.loads((student.path / "package.json").read_text())
    assert package["labels"] == ["no", "yes"]
    assert package["options"]["max_length"] == 16
    assert json.loads((student.path / "model/hf/config.json").read_text())["num_hidden_layers"] == 2
    assert set(student.metrics) == {"distillation_loss", "teacher_agreement", "teacher_accuracy", "accuracy"}
    assert student.metrics["teacher_agreement"] > 0.9
    assert said[0] == "student: 2 of 4 layers"
    # A student can teach.
    again = rml.distill(student, [text for text, _ in texts(64)], layers=1, progress=said.append)
    assert json.loads((again.path / "package.json").read_text())["options"]["max_length"] == 16
    assert "accuracy" not in again.metrics


def test_labels_of_tokens_are_followed_where_they_are_given() -> None:
    teacher = bert("BertForTokenClassification", labels=3)
    draw = np.random.default_rng(0)
    rows = [draw.integers(5, 15, draw.integers(1, 9)).tolist() for _ in range(200)]
    classes = [[-100 if i == 0 else token % 3 for i, token in enumerate(row)] for row in rows]
    student = student_of(teacher, 1)
    teach(student, teacher, rows, classes, Plan(epochs=12, soft=0.0, rate=2e-2, batch=16), progress=lambda _: None)
    right = [
        logit.argmax() == wanted
        for row, labels in zip(logits_of(student, rows), classes, strict=True)
        for logit, wanted in zip(row, labels, strict=True)
        if wanted >= 0
    ]
    assert np.mean(right) > 0.9


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([("good game", "maybe")], "does not fit the teacher"),
        ([("good game", [0, 1])], "does not fit the teacher"),
        ([], "there is no text"),
        ("good game", "is no set of texts"),
        ({"comment": ["good"]}, "has no column 'text'"),
        (["good", None], "row 1 is None"),
    ],
)
def test_data_that_does_not_fit_is_an_error_that_says_what(
    teacher: Any, tokenizer: Any, data: Any, message: str
) -> None:
    with pytest.raises((PackageError, DatasetError), match=message):
        rml.distill((teacher, tokenizer), data, layers=2)


@pytest.mark.parametrize("layers", [0, 5])
def test_a_student_has_no_layers_that_its_teacher_has_not(teacher: Any, layers: int) -> None:
    with pytest.raises(PackageError, match="between 1 and 4"):
        student_of(teacher, layers)


def test_a_folder_without_a_checkpoint_is_no_teacher(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="no teacher"):
        rml.distill(tmp_path, ["good game"])


def test_texts_and_labels_come_in_any_of_the_usual_forms() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"text": ["a", "b"], "label": ["yes", "no"], "more": [1, 2]})
    for data in (frame, rml.Dataset.from_pandas(frame), [("a", "yes"), ("b", "no")], frame.to_dict("list")):
        found = labelled(data)
        assert (found.texts, list(found.labels or ())) == (["a", "b"], ["yes", "no"])
    assert labelled(["a", "b"]).labels is None
    assert labelled(frame, label="none").labels is None
    assert labelled(frame.rename(columns={"text": "body"}), text="body").texts == ["a", "b"]


@given(st.lists(st.integers(1, 60), min_size=1, max_size=300), st.integers(1, 40))
def test_an_epoch_of_batches_has_every_text_once(lengths: list[int], batch: int) -> None:
    seen: list[int] = []
    for rows in similar_lengths(lengths, batch, seed=0):
        assert 1 <= len(rows) <= batch
        seen += rows.tolist()
        if len(seen) >= len(lengths):
            break
    assert sorted(seen) == list(range(len(lengths)))


@rml.step
def load() -> rml.Dataset:
    return rml.Dataset()


@rml.step
def train(data: rml.Dataset) -> rml.Model:
    return rml.Model()


@rml.pipeline
def smaller(depth: int = 2):
    data = load()
    rml.distill(train(data), data, layers=depth, epochs=2)


def test_in_a_pipeline_it_is_a_step_of_ours_with_an_environment_of_its_own() -> None:
    built = prepare(smaller)
    ref = built.steps["distill"]
    assert ref.entry == "roblox_ml._distill:step"
    assert "\ntorch==" in "\n" + built.blobs[ref.lock].decode()
    ir = next(yaml.safe_load_all(built.ir))
    given = ir["root"]["dag"]["tasks"]["distill"]["inputs"]["parameters"]
    assert given["layers"] == {"componentInputParameter": "depth"}
    assert given["epochs"]["runtimeValue"]["constant"] == 2
