"""Code of the other packages that a built-in step needs: it travels as that step's code bundle, so that the SDK's own zip stays
what every step pays for."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from roblox_ml._capture._bundle import build_bundle
from roblox_ml._capture._types import Bundle, Slice
from roblox_ml.errors import CaptureError, Finding

__all__ = ["sibling_bundle"]


def sibling_bundle(parts: Sequence[str], imports: frozenset[str], entry: str, *, python: str, lock: str) -> Bundle:
    """The modules `parts` (paths of files or folders, `"roblox_ml_serving/text/optimize"`), with the packages around them.

    Raises:
        CaptureError: this environment does not have one of the packages.
    """
    files: dict[str, bytes] = {}
    for part in parts:
        package, _, rest = part.partition("/")
        spec = find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise CaptureError(
                [
                    Finding(
                        "missing-extra", f"{package} is not installed", entry, "this built-in step is made of its code",
                        'pip install "roblox-ml[serving,text]"',
                    )
                ]
            )  # fmt: skip
        root = Path(next(iter(spec.submodule_search_locations)))
        target = root / rest if rest else root
        found = sorted(target.rglob("*.py")) if target.is_dir() else [target]
        around = [folder / "__init__.py" for folder in target.parents if folder == root or root in folder.parents]
        for file in (*found, *around):
            files[file.relative_to(root.parent).as_posix()] = file.read_bytes()
    return build_bundle(Slice(entry=entry, files=files, imports=imports), python=python, lock=lock)
