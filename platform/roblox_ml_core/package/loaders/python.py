"""A model that is plain Python: ``predict(batch)`` from the code in the package.

Loading runs the package's code, as importing any library does. Two versions of one model have modules of the same names, so
each keeps a module table of its own: it is swapped in while that version's code is imported or runs.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from ...errors import PackageError
from ..layout import ModelPackage
from . import Predict

__all__ = ["open_model"]

_SWAP = threading.RLock()


def open_model(package: ModelPackage) -> Predict:
    code = package.root / "model/code"
    entry = str(package.options.get("entry", ""))
    module_name, colon, function_name = entry.partition(":")
    if not (module_name and colon and function_name):
        raise PackageError(f"options.entry is {entry!r}", hint='write "entry": "module:function" into package.json')
    modules = _Modules(code)
    with modules.active():
        try:
            function: Any = importlib.import_module(module_name)
            for part in function_name.split("."):
                function = getattr(function, part)
        except (ImportError, AttributeError) as error:
            raise PackageError(
                f"the model's entry {entry} cannot be loaded here: {error}",
                hint="its libraries are in model/lock.txt; deploy it (it gets its own environment) or install them",
            ) from error

    def predict(inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        with modules.active():
            outputs = function(dict(inputs))
        if not isinstance(outputs, Mapping):
            raise PackageError(
                f"{entry} returned {type(outputs).__name__}",
                hint="predict(batch) returns a dict of arrays by output name",
            )
        return outputs

    return predict


class _Modules:
    """The modules below one code folder, in `sys.modules` only while they are needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._own: dict[str, ModuleType] = {}
        self._names = {path.stem if path.suffix == ".py" else path.name for path in self._folder.glob("*")}

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        with _SWAP:
            hidden = {name: module for name, module in sys.modules.items() if name.partition(".")[0] in self._names}
            for name in hidden:
                del sys.modules[name]
            sys.modules.update(self._own)
            sys.path.insert(0, str(self._folder))
            importlib.invalidate_caches()
            try:
                yield
            finally:
                sys.path.remove(str(self._folder))
                mine = [name for name in sys.modules if name.partition(".")[0] in self._names]
                self._own = {name: sys.modules.pop(name) for name in mine}
                sys.modules.update(hidden)
