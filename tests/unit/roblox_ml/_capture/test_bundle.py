"""Bundles: the same bytes in any process; the vectors of docs/formats/code-bundle.md; the SDK's own zip."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import zipfile

from roblox_ml._capture import Slice, build_bundle, capture_name, cells_source, sdk_zip
from roblox_ml._capture._sdk import _build, _stats

FILES = {"rml_step.py": b"def step():\n    return 1\n", "helpers/__init__.py": b""}
VECTOR = Slice("rml_step:step", FILES, frozenset({"numpy"}))
VECTOR_DIGEST = "562d685c503520cc97f45ed8c74f8042768b750845a6ef2cec63e66e2e7c1a23"

SCRIPT = """
import sys
from roblox_ml._capture import build_bundle, capture_name, cells_source
cells = ["import numpy as np, json, os", "TAGS = {'b', 'a', 'c'}\\nD = {'x': 1, **{'y': 2}}", "class A:\\n    t = TAGS",
         "def f(): return A, D, np, json", "import roblox_ml as rml\\n@rml.step(cpu=1)\\ndef step(n: int = 1) -> int:\\n    return f(), os"]
s = capture_name("step", cells_source(cells))
print(build_bundle(s, python="3.11", lock="0" * 64).digest)
"""


def test_same_bytes_with_any_hash_seed():
    digests = {
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "4242")
    }
    assert len(digests) == 1 and len(digests.pop().strip()) == 64


def test_vector():
    bundle = build_bundle(VECTOR, python="3.11", lock="a" * 64)
    assert bundle.digest == VECTOR_DIGEST == hashlib.sha256(bundle.data).hexdigest()


def test_zip_layout():
    bundle = build_bundle(VECTOR, python="3.11", lock="a" * 64)
    archive = zipfile.ZipFile(io.BytesIO(bundle.data))
    assert archive.namelist() == ["MANIFEST.json", "helpers/__init__.py", "rml_step.py"]
    for info in archive.infolist():
        assert (info.date_time, info.compress_type, info.create_system) == (
            (1980, 1, 1, 0, 0, 0),
            zipfile.ZIP_STORED,
            3,
        )
        assert info.external_attr >> 16 == 0o100644
    manifest = json.loads(archive.read("MANIFEST.json"))
    assert manifest == bundle.manifest
    assert manifest["files"] == {path: hashlib.sha256(data).hexdigest() for path, data in FILES.items()}
    assert {k: manifest[k] for k in ("schema", "entry", "python", "lock", "imports")} == {
        "schema": 1, "entry": "rml_step:step", "python": "3.11", "lock": "a" * 64, "imports": ["numpy"],
    }  # fmt: skip


def test_lock_and_python_are_part_of_the_digest():
    digests = {build_bundle(VECTOR, python=p, lock=lock).digest for p in ("3.11", "3.12") for lock in ("", "a" * 64)}
    assert len(digests) == 4


def test_unrelated_edits_change_no_byte_and_related_edits_do():
    def digest(*cells):
        return build_bundle(capture_name("step", cells_source(cells)), python="3.11", lock="").digest

    step = "def step():\n    return helper()"
    base = digest("import os", "def helper():\n    return 1", step)
    assert digest("import os  # comment", "df = read()", "def helper():\n    return 1", "other = 2", step) == base
    assert digest("import os", "def helper():\n    return 2", step) != base


def test_sdk_zip_holds_the_package_but_not_its_command_line():
    bundle = sdk_zip()
    names = zipfile.ZipFile(io.BytesIO(bundle.data)).namelist()
    assert (
        "roblox_ml/__init__.py" in names and "roblox_ml/py.typed" in names and "roblox_ml/_capture/_slicer.py" in names
    )
    assert not [
        name
        for name in names
        if name.startswith("roblox_ml/cli/") or "__pycache__" in name or not name.startswith("roblox_ml/")
    ]
    assert names == sorted(names)
    assert sdk_zip() is bundle, "built once while no file changes"
    _build.cache_clear()
    assert sdk_zip().digest == bundle.digest
    assert len(_stats()) == len(names)
