"""The same IR on `kfp.local` and on our executor gives the same outputs, metadata and task states.

KFP's executor is the second opinion on what the IR means. Outputs are compared task by task, from what each executor
recorded; lineage that names the run and the task differs by nature and is left out.
"""

from __future__ import annotations

import builtins
import json
import re
from pathlib import Path
from typing import Any

import pytest

from roblox_ml import get_run
from roblox_ml._artifacts import Artifact
from roblox_ml._backends.local import LocalExecutor
from roblox_ml._store import open_store
from roblox_ml.errors import RunFailed

CHAIN = """
@rml.step
def make(n: int = 3) -> rml.Dataset:
    out = rml.Dataset()
    (out.path / "x.txt").write_text("x" * n)
    out.metadata["rows"] = n
    return out

@rml.step
def count(data: rml.Dataset) -> int:
    return len((data.path / "x.txt").read_text())

@rml.step
def say(n: int, word: str = "rows") -> str:
    return f"{n} {word}"

@rml.pipeline
def chain(n: int = 3):
    say(count(make(n)))
"""

DIAMOND = """
class Halves(NamedTuple):
    left: rml.Dataset
    right: rml.Dataset
    size: int

@rml.step
def split(n: int) -> Halves:
    left, right = rml.Dataset(), rml.Dataset()
    (left.path / "part.txt").write_text("l" * n)
    (right.path / "deep").mkdir()
    (right.path / "deep" / "part.txt").write_text("r" * (n + 1))
    return Halves(left, right, n)

@rml.step
def measure_left(part: rml.Dataset) -> float:
    return len((part.path / "part.txt").read_text()) / 2

@rml.step
def measure_right(part: rml.Dataset) -> dict:
    return {"letters": len((part.path / "deep" / "part.txt").read_text()), "share": 0.5, "names": ["r", "ü"]}

@rml.step
def join(left: float, right: dict, size: int) -> list[float]:
    return [left, right["letters"], float(size)]

@rml.pipeline
def diamond(n: int):
    halves = split(n)
    join(measure_left(halves.left), measure_right(halves.right), halves.size)
"""

FAN = """
@rml.step
def items(n: int) -> list[int]:
    return list(range(n))

@rml.step
def make() -> rml.Dataset:
    out = rml.Dataset()
    out.metadata["base"] = 100
    return out

@rml.step
def probe(x: int, base: rml.Dataset) -> int:
    assert isinstance(x, int)
    return base.metadata["base"] + x * x

@rml.step
def draw(x: int) -> rml.Dataset:
    out = rml.Dataset()
    (out.path / "v.txt").write_text(str(x))
    return out

@rml.step
def total(values: list[int]) -> int:
    return sum(v * 10 ** i for i, v in enumerate(values))

@rml.step
def read(parts: list[rml.Dataset]) -> str:
    return ",".join((p.path / "v.txt").read_text() for p in parts)

@rml.pipeline
def fan(n: int = 4):
    numbers = items(n)
    total(probe.map(numbers, base=make()))
    read(draw.map([7, 8, 9]))
"""

CONDITION = """
@rml.step
def count(n: int) -> int:
    return n

@rml.step
def big(n: int) -> str:
    return "big"

@rml.step
def small(n: int) -> str:
    return "small"

@rml.pipeline
def condition(n: int = 3):
    found = count(n)
    with rml.when(found > 10):
        big(found)
    with rml.otherwise():
        small(found)
"""

RETRY = """
@rml.step(retries=2)
def flaky(place: str) -> int:
    seen = Path(place)
    tries = len(seen.read_text()) if seen.exists() else 0
    seen.write_text("x" * (tries + 1))
    if tries == 0:
        raise ConnectionError("not yet")
    return tries + 1

@rml.pipeline
def retry(place: str):
    flaky(place)
"""

METADATA = """
class Trained(NamedTuple):
    model: rml.Model
    score: rml.Metrics
    page: rml.HTML

@rml.step
def train(rate: float) -> Trained:
    model = rml.Model()
    (model.path / "weights.bin").write_bytes(bytes(range(256)))
    model.metadata.update(framework="none", layers=2, nested={"a": [1, 2.5, None, True]})
    return Trained(model, rml.Metrics(f1=0.5, loss=rate), rml.HTML("<h1>ü</h1>"))

@rml.step
def check(model: rml.Model, score: rml.Metrics) -> str:
    assert score["f1"] == 0.5
    return f"{model.metadata['nested']} {len((model.path / 'weights.bin').read_bytes())} {score.metadata['loss']}"

@rml.pipeline
def metadata(rate: float = 0.25):
    trained = train(rate)
    check(trained.model, trained.score)
"""

DEFAULTS = """
@rml.step
def many(a: int, b: float = 2, c: str = "c", d: bool = True, e: Optional[list] = None, g: Optional[str] = None) -> str:
    return repr((a, b, c, d, e, g))

@rml.step
def types(a: list[float], b: dict[str, int], c: bool, d: str) -> str:
    return repr((a, b, c, d))

@rml.pipeline
def defaults(a: int = 5, d: str = "x: '{\\"y\\"}'"):
    many(a, e=[1, 2.0, "x"])
    types(a=[1.0, 2.5], b={"n": 3}, c=False, d=d)
"""

CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("chain", CHAIN, {"n": 4}),
    ("chain by default", CHAIN, {}),
    ("diamond", DIAMOND, {"n": 6}),
    ("map and fan-in", FAN, {}),
    ("condition true", CONDITION, {"n": 11}),
    ("condition false", CONDITION, {"n": 10}),
    ("artifacts with metadata", METADATA, {"rate": 0.125}),
    ("defaults and types", DEFAULTS, {}),
]


@pytest.mark.parametrize(("source", "arguments"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_same_outputs(source: str, arguments: dict[str, Any], build: Any, tmp_path: Path) -> None:
    built = build(source)
    run = LocalExecutor().run(built, arguments, progress=False)
    assert run.state == "SUCCEEDED"
    theirs = on_kfp(built, arguments, tmp_path)
    assert theirs == of_run(run)


def test_a_step_that_fails_once_succeeds_on_both(build: Any, tmp_path: Path) -> None:
    built = build(RETRY)
    run = LocalExecutor().run(built, {"place": str(tmp_path / "ours")}, progress=False)
    theirs = on_kfp(built, {"place": str(tmp_path / "theirs")}, tmp_path)
    assert run.outputs["flaky"] == 2
    assert theirs == of_run(run)
    assert run.tasks["flaky"].attempts == 2


FAILURE = """
@rml.step
def bad() -> int:
    raise ValueError("the reason")

@rml.step
def after(n: int) -> int:
    return n

@rml.pipeline
def failure():
    after(bad())
"""


def test_a_failure_fails_on_both_and_stops_what_depends_on_it(build: Any, tmp_path: Path) -> None:
    built = build(FAILURE)
    with pytest.raises(RunFailed, match="the reason") as caught:
        LocalExecutor().run(built, {}, progress=False)
    states = {name: task.state for name, task in caught.value.run.tasks.items()}
    assert states == {"bad": "FAILED", "after": "SKIPPED"}
    with pytest.raises(RuntimeError, match="bad"):
        on_kfp(built, {}, tmp_path)


def test_the_record_is_the_same_from_another_process(build: Any) -> None:
    run = LocalExecutor().run(build(CHAIN), {"n": 2}, progress=False)
    assert of_run(get_run(run.id)) == of_run(run)


def of_run(run: Any) -> dict[str, Any]:
    """Outputs by task: parameters as they are, artifacts as (type, metadata, files)."""
    found: dict[str, Any] = {}
    for name, task in run.tasks.items():
        if task.state in ("SUCCEEDED", "CACHED"):
            value = run.outputs[name]
            fields = value if isinstance(value, dict) and type(value).__name__ == "Fields" else {"Output": value}
            found[name] = {field: plain(v) for field, v in fields.items()}
    return found


def plain(value: Any) -> Any:
    if isinstance(value, Artifact):
        return describe(value.path, value.metadata)
    return value


def describe(path: Path, metadata: dict[str, Any]) -> dict[str, Any]:
    files = {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()}
    kept = {k: v for k, v in metadata.items() if k not in ("rml.run", "rml.task")}
    return {"metadata": kept, "files": files}


def on_kfp(built: Any, arguments: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Run the IR on kfp.local; the outputs by task, read from the files its steps wrote."""
    from kfp import components, local

    store = open_store()
    for data in built.blobs.values():
        store.put(data)
    root = folder / "kfp"
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(root), raise_on_error=True)
    with pytest.MonkeyPatch.context() as patch:
        # kfp.local replaces `print` to indent logs, and leaves it so when a step fails.
        patch.setattr(builtins, "print", print)
        components.load_component_from_text(built.ir.decode())(**arguments)
    found: dict[str, Any] = {}
    for file in sorted(root.rglob("executor_output.json")):
        said = json.loads(file.read_text())
        iteration = re.search(r"-iteration-(\d+)/", file.as_posix())
        name = file.parent.name + (f"[{iteration[1]}]" if iteration else "")
        outputs = dict(said.get("parameterValues") or {})
        for field, listed in (said.get("artifacts") or {}).items():
            artifact = listed["artifacts"][0]
            outputs[field] = describe(Path(artifact["uri"]), artifact["metadata"])
        found[name] = outputs
    return found


def test_a_captured_pipeline_runs_on_both(tmp_path: Path) -> None:
    """Nothing made by hand: capture, lock, bundles and IR as `.run()` and `.submit()` use them."""
    import importlib.util
    import sys

    path = tmp_path / "captured_pipeline.py"
    path.write_text(
        f"from pathlib import Path\nimport roblox_ml as rml\n\nFACTOR = 3\n{CHAIN.replace('* n)', '* n * FACTOR)')}"
    )
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
        built = module.chain.build({"n": 2})
    finally:
        del sys.modules[path.stem]
    run = LocalExecutor().run(built, built.arguments, progress=False)
    assert run.outputs["say"] == "6 rows"
    assert run.provenance["git"] is not None and "lines" not in run.provenance
    assert on_kfp(built, dict(built.arguments), tmp_path) == of_run(run)
