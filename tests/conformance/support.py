"""Build small pipelines for the executors: real tracing and IR, bundles made by hand (one function each, no lock)."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import io
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from roblox_ml._graph.dump import dump_ir
from roblox_ml._graph.ir import CodeRef, to_ir
from roblox_ml._graph.pipeline import Pipeline

HEADER = (
    "import time, os, sys\nfrom pathlib import Path\nfrom typing import NamedTuple, Optional\nimport roblox_ml as rml\n"
)


@dataclass(frozen=True)
class Built:
    name: str
    ir: bytes
    blobs: Mapping[str, bytes]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    schedule: str | None = None
    notify: Any = ()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def zipped(files: Mapping[str, bytes | str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(name), data)
    return buffer.getvalue()


def build(source: str, folder: Path) -> Built:
    """The one pipeline in `source` (which needs no imports of its own), ready to run."""
    source = HEADER + source
    # One module name for all: a pipeline of the same name then counts as the same one, edited.
    name = "sample"
    path = folder / f"{sha256(source.encode())[:12]}.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    (pipeline,) = (value for value in vars(module).values() if isinstance(value, Pipeline))
    graph, findings = pipeline.trace()
    assert not findings, findings
    from roblox_ml._capture import sdk_zip

    sdk = sdk_zip()
    blobs = {sdk.digest: sdk.data}
    code = {}
    for component_name, component in graph.components.items():
        if component.entry is not None:
            code[component_name] = CodeRef(sdk.digest, "none", "none", component.entry)
            continue
        function = component.function.__name__
        bundle = zipped({"rml_step.py": _slice(source, function)})
        blobs[sha256(bundle)] = bundle
        code[component_name] = CodeRef(sdk.digest, sha256(bundle), "none", f"rml_step:{function}")
    return Built(pipeline.name, dump_ir(to_ir(graph, code)), blobs)


def _slice(source: str, function: str) -> str:
    """The module without its pipeline and without the other steps: editing one step changes one bundle."""
    kept = []
    for node in ast.parse(source).body:
        decorated = isinstance(node, ast.FunctionDef) and node.decorator_list
        if decorated and node.name != function:
            continue
        if decorated:
            node.decorator_list = []
        kept.append(node)
    return ast.unparse(ast.Module(kept, []))
