"""A real Triton, a real control plane and tiny packages of every format, built by hand: no network, no download."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from roblox_ml_core.errors import RmlError
from roblox_ml_core.package import Examples, ModelPackage, Signature, TensorSpec, upload, write
from roblox_ml_core.registry import RegistryClient
from roblox_ml_core.storage import BlobStore

ROOT = Path(__file__).resolve().parents[3]
TRITON_DIR = Path(os.environ.get("RML_TRITON_DIR") or ROOT / ".triton")
LABELS = ("negative", "neutral", "positive")
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "game", "the", "very", "love", "hate"]
TEXTS = ["good game", "the very bad game", "love", "", "hate hate hate the unknown"]


# -- packages -------------------------------------------------------------------------------------------------------------


def text_classifier(
    root: Path, *, seed: int = 0, expected: Callable[[np.ndarray], np.ndarray] = lambda scores: scores
) -> ModelPackage:
    """A bag-of-embeddings classifier behind a real WordPiece tokenizer; `expected` bends the known answer."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    folder = root / "model"
    folder.mkdir(parents=True)
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    table = np.random.default_rng(seed).normal(size=(len(WORDS), len(LABELS))).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["embedded"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["wide"]),
        helper.make_node("Mul", ["embedded", "wide"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "middle"], ["sum"], keepdims=0),
        helper.make_node("ReduceSum", ["mask", "middle"], ["count"], keepdims=1),
        helper.make_node("Div", ["sum", "count"], ["logits"]),
    ]
    ids = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["b", "t"]) for name in ("input_ids", "attention_mask")
    ]
    constants = [
        numpy_helper.from_array(table, "table"),
        numpy_helper.from_array(np.array([2]), "last"),
        numpy_helper.from_array(np.array([1]), "middle"),
    ]
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", len(LABELS)])
    save_onnx(onnx.helper.make_graph(nodes, "bag", ids, [logits], constants), folder / "model.onnx")
    signature = Signature(
        (TensorSpec("TEXT", "BYTES", (-1,)),),
        (TensorSpec("label", "BYTES", (-1,)), TensorSpec("scores", "FP32", (-1, len(LABELS)))),
    )

    def answer(text: str) -> np.ndarray:
        rows = table[tokenizer.encode(text).ids].mean(axis=0).astype(np.float64)
        powers = np.exp(rows - rows.max())
        return powers / powers.sum()

    scores = np.stack([answer(text) for text in TEXTS])
    labels = np.array(LABELS, dtype=object)[scores.argmax(axis=1)]
    examples = Examples.record(signature, {"TEXT": TEXTS}, {"label": labels, "scores": expected(scores)})
    options = {"max_length": 16}
    return write(
        root, format="hf-text-classifier", signature=signature, examples=examples, labels=LABELS, options=options
    )


def onnx_matmul(root: Path) -> ModelPackage:
    """Y = X W with a fixed W."""
    from onnx import TensorProto, helper, numpy_helper

    (root / "model").mkdir(parents=True)
    weights = np.arange(8, dtype=np.float32).reshape(4, 2)
    x = helper.make_tensor_value_info("X", TensorProto.FLOAT, ["b", 4])
    y = helper.make_tensor_value_info("Y", TensorProto.FLOAT, ["b", 2])
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["X", "W"], ["Y"])], "matmul", [x], [y], [numpy_helper.from_array(weights, "W")]
    )
    save_onnx(graph, root / "model" / "model.onnx")
    signature = Signature((TensorSpec("X", "FP32", (-1, 4)),), (TensorSpec("Y", "FP32", (-1, 2)),))
    rows = np.array([[1, 0, 0, 0], [0.5, 1, 2, -1]], dtype=np.float32)
    return write(
        root,
        format="onnx",
        signature=signature,
        examples=Examples.record(signature, {"X": rows}, {"Y": rows @ weights}),
    )


def save_onnx(graph: Any, path: Path) -> None:
    from onnx import helper, save

    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 10
    save(model, str(path))


def sklearn_classifier(root: Path) -> ModelPackage:
    """A logistic regression on two clouds of points."""
    import skops.io
    from sklearn.linear_model import LogisticRegression

    (root / "model").mkdir(parents=True)
    random = np.random.default_rng(3)
    rows = np.concatenate([random.normal(-1, 1, (20, 3)), random.normal(1, 1, (20, 3))]).astype(np.float32)
    model = LogisticRegression().fit(rows, ["down"] * 20 + ["up"] * 20)
    skops.io.dump(model, root / "model" / "model.skops")
    signature = Signature(
        (TensorSpec("X", "FP32", (-1, 3)),),
        (TensorSpec("label", "BYTES", (-1,)), TensorSpec("scores", "FP32", (-1, 2))),
    )
    outputs = {"label": model.predict(rows[:4]), "scores": model.predict_proba(rows[:4])}
    examples = Examples.record(signature, {"X": rows[:4]}, outputs)
    trusted = skops.io.get_untrusted_types(file=root / "model" / "model.skops")
    return write(
        root,
        format="sklearn-skops",
        signature=signature,
        examples=examples,
        labels=["down", "up"],
        options={"trusted": trusted},
    )


PREDICT = '''
"""Shout a text; some texts do worse."""
import os
import numpy as np
from helper import loud

def predict(batch):
    if "die" in batch["TEXT"].tolist():
        os._exit(7)
    if "raise" in batch["TEXT"].tolist():
        raise KeyError("no such word")
    pid = np.full(len(batch["TEXT"]), os.getpid())
    return {"shout": np.array([loud(text) for text in batch["TEXT"]], dtype=object), "pid": pid}
'''


def plain_python(root: Path, source: str = PREDICT) -> ModelPackage:
    """Two modules of plain Python in an environment whose lock holds numpy alone."""
    code = root / "model" / "code"
    code.mkdir(parents=True)
    (code / "shouter.py").write_text(source)
    (code / "helper.py").write_text("def loud(text):\n    return text.upper() + '!'\n")
    lock = numpy_lock()
    (root / "model" / "lock.txt").write_text(lock)
    signature = Signature(
        (TensorSpec("TEXT", "BYTES", (-1,)),), (TensorSpec("shout", "BYTES", (-1,)), TensorSpec("pid", "INT64", (-1,)))
    )
    inputs = ({"name": "TEXT", "datatype": "BYTES", "shape": [2], "data": ["hi", "größe"]},)
    outputs = ({"name": "shout", "datatype": "BYTES", "shape": [2], "data": ["HI!", "GRÖSSE!"]},)
    options = {"entry": "shouter:predict", "lock": hashlib.sha256(lock.encode()).hexdigest()}
    return write(root, format="python", signature=signature, examples=Examples(inputs, outputs), options=options)


def numpy_lock() -> str:
    """A lock with one pin: the platform's numpy, with the hashes of its lock."""
    pinned = (ROOT / "requirements" / "platform.txt").read_text()
    match = re.search(r"^numpy==\S+ \\\n(?:    --hash=\S+(?: \\)?\n)+", pinned, re.MULTILINE)
    assert match
    return f"# roblox-ml environment lock, schema 1\n# python 3.11\n# platform linux_x86_64\n{match.group(0)}"


# -- servers --------------------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(what: str, ready: Callable[[], Any], timeout: float = 60.0) -> Any:
    """Poll until `ready()` is truthy; errors of a server that is not up yet count as not ready."""
    deadline = time.monotonic() + timeout
    last: object = None
    while time.monotonic() < deadline:
        try:
            if result := ready():
                return result
        except (RmlError, OSError) as error:
            last = error
        time.sleep(0.05)
    raise AssertionError(f"{what}: not after {timeout:.0f} s ({last})")


@dataclass
class Stack:
    """Processes in one home: started as a user's stack starts them, killed and restarted as the tests please."""

    home: Path
    ports: dict[str, int] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    MODULES = {
        "control": "roblox_ml_platform",
        "triton": "roblox_ml_serving.triton",
        "agent": "roblox_ml_serving.agent",
    }

    def __post_init__(self) -> None:
        for name in ("CONTROL_PORT", "TRITON_HTTP_PORT", "TRITON_GRPC_PORT", "TRITON_METRICS_PORT"):
            self.ports[name] = free_port()
        self.home.mkdir(parents=True, exist_ok=True)
        (self.home / "token").write_text("serving-test-token\n")
        (self.home / "token").chmod(0o600)

    @property
    def env(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("RML_")}
        return {
            **kept, "RML_HOME": str(self.home), "RML_TRITON_DIR": str(TRITON_DIR), "RML_MLFLOW_ENABLED": "false",
            "RML_AGENT_TICK_S": "0.2", "RML_AGENT_INSTANCES": "2", "PYTHONUNBUFFERED": "1",
            **{f"RML_{name}": str(port) for name, port in self.ports.items()}, **self.settings,
        }  # fmt: skip

    @property
    def control_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['CONTROL_PORT']}"

    @property
    def http(self) -> str:
        return f"127.0.0.1:{self.ports['TRITON_HTTP_PORT']}"

    @property
    def grpc(self) -> str:
        return f"127.0.0.1:{self.ports['TRITON_GRPC_PORT']}"

    def start(self, name: str) -> subprocess.Popen[bytes]:
        log = (self.home / f"{name}.log").open("ab")
        with log:
            self.running[name] = subprocess.Popen(
                [sys.executable, "-m", self.MODULES[name]],
                env=self.env,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.home,
            )
        return self.running[name]

    def kill(self, name: str) -> None:
        """kill -9, and reap."""
        process = self.running.pop(name)
        process.kill()
        process.wait()

    def stop(self) -> None:
        for name in ("agent", "triton", "control"):
            process = self.running.pop(name, None)
            if process is not None:
                process.terminate()
                try:
                    process.wait(timeout=20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    # -- what a platform user does ---------------------------------------------------------------------------------------

    def client(self) -> RegistryClient:
        return RegistryClient(self.control_url, token="serving-test-token")

    def publish(self, package: ModelPackage, name: str) -> int:
        """Upload and register a package; returns its version."""
        files = upload(package.root, BlobStore((self.home / "store").as_uri()))
        with self.client() as client:
            answer = client.register(
                name,
                {
                    "package": dict(package.info),
                    "manifest": files,
                    "signature": package.signature.to_json(),
                    "metrics": {},
                    "lineage": {"kind": "external", "origin": "test", "by": "test"},
                },
            )
        return int(answer["version"])

    def deploy(self, name: str, version: int) -> None:
        with self.client() as client:
            client.put_endpoint(name, name, version=version)

    def ready(self) -> dict[str, str]:
        """What the control plane tells doors about this server."""
        with self.client() as client:
            return dict(client.snapshot()["servers"].get("local", {}).get("ready", {}))

    def states(self) -> dict[str, tuple[str, str]]:
        """State and reason of every version in the agent's last report."""
        with self.client() as client:
            servers = client.call("GET", "/v1/servers")["servers"]
        models = [model for server in servers for model in server["models"]]
        return {f"{model['model']}/{model['version']}": (model["state"], model["reason"]) for model in models}

    def reported(self) -> bool:
        with self.client() as client:
            return bool(client.call("GET", "/v1/servers")["servers"])

    def wait_ready(self, *references: str, timeout: float = 60.0) -> None:
        wait_for(f"{', '.join(references)} ready", lambda: set(references) <= set(self.ready()), timeout)

    def log(self, name: str) -> str:
        path = self.home / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """An empty home with nothing running yet."""
    if not (TRITON_DIR / ".rml-complete").is_file():
        pytest.skip(f"no Triton environment at {TRITON_DIR}: `make setup` installs it")
    stack = Stack(tmp_path_factory.mktemp("serving") / "home")
    yield stack
    stack.stop()


@pytest.fixture(scope="module")
def serving(stack: Stack) -> Stack:
    """Control plane, Triton and agent, running."""
    for name in ("control", "triton", "agent"):
        stack.start(name)
    with stack.client() as client:
        wait_for("control plane", client.ready)
    wait_for("agent's first report", stack.reported)
    return stack


@pytest.fixture(scope="session")
def build() -> dict[str, Callable[..., ModelPackage]]:
    """Builders of tiny packages, by what they are."""
    return {"text": text_classifier, "matmul": onnx_matmul, "points": sklearn_classifier, "shout": plain_python}


@pytest.fixture(scope="session")
def eventually() -> Callable[..., Any]:
    """`wait_for`, for tests."""
    return wait_for
