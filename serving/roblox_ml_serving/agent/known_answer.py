"""Ask a loaded version what its package says it must answer.

The only proof that a model works where it is: Triton reports READY for a model whose stub returns empty tensors with success.
"""

from __future__ import annotations

from roblox_ml_core.errors import RmlError, Unavailable
from roblox_ml_core.package import ModelPackage

from .triton import Triton

__all__ = ["check"]

TIMEOUT_S = 60.0


def check(triton: Triton, package: ModelPackage, name: str, version: int, timeout: float = TIMEOUT_S) -> list[str]:
    """What is wrong with the answer; empty when it is the known one, or when the package has no example.

    Raises:
        Unavailable: Triton did not answer at all, which says nothing about the model.
    """
    examples = package.examples
    if examples is None:
        return []
    try:
        actual = triton.infer(name, version, package.signature, examples.input_arrays(), timeout)
    except Unavailable:
        raise
    except RmlError as error:
        return [f"its example fails: {error.message}"]
    return examples.check(actual)
