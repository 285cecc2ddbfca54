"""The modules that door, stub and optimiser share stand alone: copied into a bare folder they work, there with Triton's numpy 1."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from roblox_ml_serving.backends import FOLDER

NAMES = ("rml_text_plan", "rml_text_tokens", "rml_text_heads")
MAY_IMPORT = {"numpy", "tokenizers"}
ROOT = Path(__file__).resolve().parents[4]
STUB = Path(os.environ.get("RML_TRITON_DIR") or ROOT / ".triton") / "be" / "bin" / "python"

SCRIPT = """
import json, sys
import numpy as np
import rml_text_heads, rml_text_plan, rml_text_tokens

plan = rml_text_plan.read_plan(sys.stdin.buffer.read())
from tokenizers import Tokenizer, models, pre_tokenizers
tokenizer = Tokenizer(models.WordPiece({"[UNK]": 0, "in": 1, "paris": 2}, unk_token="[UNK]"))
tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
(row,) = rml_text_tokens.Tokens(tokenizer.to_str(), plan).encode([b"in paris"])
logits = np.array([[9.0, 0.0], [0.0, 9.0]], np.float32)
print(json.dumps({
    "numpy": int(np.__version__.split(".")[0]),
    "length": row.length,
    "entities": rml_text_heads.entities(logits, row.offsets, "in paris", plan.labels),
    "engines": [engine.name for engine in rml_text_plan.allowed(plan, rml_text_plan.cpu_flags())],
}))
"""
PLAN = {
    "schema": 1, "task": "token", "labels": ["O", "B-LOC"], "max_length": 8, "engines": [
        {"name": "onnxruntime-fp32", "runtime": "onnxruntime", "folder": "engines/o", "precision": "fp32"}],
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_it_imports_the_standard_library_and_what_the_stub_has(name: str) -> None:
    imported: set[str] = set()
    for node in ast.walk(ast.parse((FOLDER / f"{name}.py").read_text())):
        if isinstance(node, ast.Import):
            imported.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add(str(node.module).split(".")[0])
    assert imported - set(sys.stdlib_module_names) <= MAY_IMPORT


@pytest.mark.parametrize("python", ["this", "the stub's"])
def test_copied_into_a_bare_folder_it_works(python: str, tmp_path: Path) -> None:
    interpreter = Path(sys.executable) if python == "this" else STUB
    if not interpreter.exists():
        pytest.skip(f"no Triton environment at {STUB}: `make setup` installs it")
    for name in NAMES:
        shutil.copy(FOLDER / f"{name}.py", tmp_path)
    (tmp_path / "try.py").write_text(SCRIPT)
    done = subprocess.run(
        [interpreter, tmp_path / "try.py"], input=json.dumps(PLAN).encode(), capture_output=True, check=True, timeout=60
    )
    said = json.loads(done.stdout)
    assert said["numpy"] == (1 if python == "the stub's" else said["numpy"])
    assert (said["length"], said["engines"]) == (2, ["onnxruntime-fp32"])
    assert [(entity["entity"], entity["text"], entity["start"]) for entity in said["entities"]] == [("LOC", "paris", 3)]
