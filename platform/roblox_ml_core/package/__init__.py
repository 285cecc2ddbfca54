"""The model package: one directory format that the registry stores, Triton serves and a notebook loads.

>>> package = write(directory, format="onnx", signature=Signature(...), examples=Examples(...))   # after filling model/
>>> files = upload(directory, store)                                                              # the manifest
>>> materialise(files, store, elsewhere, package.digest).root                                     # verified, atomic
"""

from __future__ import annotations

from .examples import DEFAULT_TOLERANCE, Examples, compare, tensor_json
from .layout import (
    EXAMPLES,
    FORMATS,
    METRICS,
    MLMODEL,
    PACKAGE,
    SIGNATURE,
    ModelPackage,
    check_path,
    mlmodel_text,
    package_digest,
    read,
    verify,
    write,
)
from .signature import DATATYPES, Signature, TensorSpec, as_tensor
from .transfer import check_manifest, manifest, materialise, upload

__all__ = [
    "DATATYPES",
    "DEFAULT_TOLERANCE",
    "EXAMPLES",
    "FORMATS",
    "METRICS",
    "MLMODEL",
    "PACKAGE",
    "SIGNATURE",
    "Examples",
    "ModelPackage",
    "Signature",
    "TensorSpec",
    "as_tensor",
    "check_manifest",
    "check_path",
    "compare",
    "manifest",
    "materialise",
    "mlmodel_text",
    "package_digest",
    "read",
    "tensor_json",
    "upload",
    "verify",
    "write",
]
