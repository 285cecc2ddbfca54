"""What the SDK's own methods import for a step: `data.to_pandas()` needs pandas although the step never says so.

A step's environment is made of what its source imports. The heavier methods of artifacts, and pandas' Parquet functions, import
more when they are called; without this table such a step would work in the notebook and fail in a fresh environment.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from importlib.util import find_spec

__all__ = ["implied_imports"]

_FRAME = ("pandas", "pyarrow")
_TRANSFORMERS = ("numpy", "onnx", "onnxruntime", "onnxscript", "safetensors", "tokenizers", "torch", "transformers")
_BY_METHOD: Mapping[str, tuple[str, ...]] = {
    "to_pandas": _FRAME,
    "from_pandas": _FRAME,
    "read_parquet": ("pyarrow",),
    "to_parquet": ("pyarrow",),
    "from_transformers": _TRANSFORMERS,
    "distill": (*_FRAME, *_TRANSFORMERS),
    "from_sklearn": ("numpy", "sklearn", "skops"),
    "from_onnx": ("numpy", "onnx", "onnxruntime"),
    "from_python": ("numpy", "packaging"),
}


def implied_imports(files: Mapping[str, bytes]) -> frozenset[str]:
    """Top-level names that a step's files need through such methods, as far as this interpreter has them."""
    called: set[str] = set()
    for path, source in files.items():
        # Parsing is the dear part, and hardly a step calls one of them.
        if path.endswith(".py") and any(method.encode() in source for method in _BY_METHOD):
            called |= {node.attr for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)}
    wanted = {name for method in called & _BY_METHOD.keys() for name in _BY_METHOD[method]}
    return frozenset(name for name in wanted if find_spec(name) is not None)
