"""Peers are started, asked, watched and ended alike; what came of them becomes rows and ratios. A small server stands for one."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import psutil
import pytest

from benchmarks.text.peers.compare import PEERS, Contestant, fp32_labels, ratios, table, turn, within_limit
from benchmarks.text.peers.server import Job, Launch, Peer, PeerFailed, Server, interpreter, plain

SERVER = """
import http.server, json, os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; sum(range(10**6)); time.sleep(60)"])
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        text = json.loads(self.rfile.read(int(self.headers["content-length"])))["text"]
        answer = json.dumps({"label": "long" if len(text) > 5 else "short", "threads": os.environ["OMP_NUM_THREADS"]}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
    def log_message(self, *_): pass
print("listening", flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PEER_PORT"])), Handler).serve_forever()
"""


def peer(code: str) -> Peer:
    def launch(job: Job) -> Launch:
        return Launch([[sys.executable, "-c", code]], {}, "/classify")

    return Peer(
        "small", "", launch, lambda text: json.dumps({"text": text}).encode(), lambda body: json.loads(body)["label"]
    )


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    place = tmp_path / "checkpoint"
    place.mkdir()
    (place / "config.json").write_text("{}")
    (place / "tokenizer_config.json").write_text(json.dumps({"backend": "tokenizers", "model_max_length": 64}))
    return place


def test_a_peer_is_measured_with_its_children_checked_and_ended(checkpoint: Path) -> None:
    one = Contestant("small", "default", "", lambda: Server(peer(SERVER), checkpoint, workers=1), peer(SERVER).label)
    with Server(peer(SERVER), checkpoint, workers=1) as server:
        family = server._tree()
        assert len(family) == 2
        used = server.cpu_seconds()["server"]
        turn(one, server, ["one", "a longer text"], ["short", "short"], 0, 0.2, (1, 2))
        assert used > 0
    assert server.cpu_seconds()["server"] >= used  # what has ended is not forgotten
    assert not any(alive(process) for process in family)
    row = one.row()
    assert one.width in (1, 2)
    assert row["agreement"] == 0.5  # the truth was wrong about one of them
    assert row["requests_per_s"] > 0
    assert row["failed"] == 0


def alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_peer_that_ends_says_what_it_wrote(checkpoint: Path) -> None:
    with pytest.raises(PeerFailed, match="no model for you"):
        Server(peer("raise SystemExit('no model for you')"), checkpoint, workers=1).__enter__()


def test_a_peer_that_is_not_installed_says_how(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RML_PEERS_DIR", str(tmp_path))
    with pytest.raises(PeerFailed, match="make peers"):
        interpreter("main")
    for one in PEERS:
        with pytest.raises((PeerFailed, OSError), match="make peers"):
            one.launch(Job(tmp_path, 2, 1, tmp_path / one.name))


def test_the_checkpoint_of_peers_has_the_same_weights_and_only_the_inputs_that_the_model_takes(
    checkpoint: Path,
) -> None:
    place = plain(checkpoint, checkpoint.parent / "plain")
    assert (place / "config.json").resolve() == (checkpoint / "config.json").resolve()
    settings = json.loads((place / "tokenizer_config.json").read_text())
    assert settings == {"model_max_length": 64, "model_input_names": ["input_ids", "attention_mask"]}


@pytest.mark.parametrize("one", PEERS, ids=lambda one: one.name)
def test_a_request_holds_the_text_as_it_is(one: Peer) -> None:
    text = 'a "quoted" שלום 🎮\n'
    assert text in str_values(json.loads(one.body(text)))


def str_values(value: object) -> list[str]:
    if isinstance(value, dict):
        return [found for item in value.values() for found in str_values(item)]
    if isinstance(value, list):
        return [found for item in value for found in str_values(item)]
    return [value] if isinstance(value, str) else []


ANSWERS = {
    "triton-hf": {"outputs": [{"name": "label", "data": ["positive"]}]},
    "mlserver": {"outputs": [{"name": "output", "data": ['{"label": "positive", "score": 0.9}']}]},
    "bentoml": ["positive"],
    "ray-serve": {"label": "positive"},
    "infinity": {"data": [[{"score": 0.1, "label": "negative"}, {"score": 0.9, "label": "positive"}]]},
    "seed": {"label": "positive"},
}


@pytest.mark.parametrize("one", PEERS, ids=lambda one: one.name)
def test_labels_are_read_from_answers(one: Peer) -> None:
    assert one.label(json.dumps(ANSWERS[one.name]).encode()) == "positive"


def row(name: str, kind: str, rps: float, cpu: float, error: str = "") -> dict[str, object]:
    figures = {"requests_per_s": rps, "cpu_ms_per_inference": cpu, "p50_ms": 1.0, "p99_ms": 2.0, "agreement": 1.0}
    return {"peer": name, "kind": kind, **figures, "settings": "as is", "error": error}


def test_ratios_are_to_the_best_of_each_kind_that_was_measured() -> None:
    rows = [
        row("ours", "ours", 100.0, 10.0),
        row("a", "default", 10.0, 50.0),
        row("b", "default", 20.0, 60.0),
        row("c", "default", 0.0, 0.0, error="did not answer"),
        row("a + our engine", "same_engine", 50.0, 12.0),
    ]
    assert ratios(rows) == {
        "ratio_rps_vs_best_default_peer": 5.0,
        "ratio_cpu_vs_best_default_peer": 5.0,
        "ratio_rps_vs_best_peer_same_engine": 2.0,
        "ratio_cpu_vs_best_peer_same_engine": 1.2,
    }
    assert ratios(rows[1:]) == {}
    lines = table(rows)
    assert len(lines) == 1 + len(rows)
    assert any("not measured: did not answer" in line for line in lines)


def test_only_texts_within_the_limit_are_asked_and_fp32_is_the_truth(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "good": 1, "bad": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.enable_truncation(2)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "text.json").write_text(json.dumps({"max_length": 2}))
    assert within_limit(tmp_path, ["good bad", "good bad good", " ", "bad"]) == ["good bad", "bad"]

    config = DistilBertConfig(vocab_size=3, dim=8, n_layers=1, n_heads=2, hidden_dim=8, id2label={0: "no", 1: "yes"})
    model = DistilBertForSequenceClassification(config)
    model.classifier.weight.data.zero_()
    model.classifier.bias.data[:] = model.classifier.bias.data.new_tensor([0.0, 1.0])
    model.save_pretrained(tmp_path)
    assert fp32_labels(tmp_path, ["good bad", "bad"]) == ["yes", "yes"]
