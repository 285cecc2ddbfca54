"""What is loaded for endpoints that preprocess, and which are ready.

An endpoint whose files are not here yet is not ready, and the version that answered before goes on answering: the same rule
as for a model server that has not loaded a version yet.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

from roblox_ml_core.errors import RmlError
from roblox_ml_core.telemetry import log

from .files import Files
from .kinds import KINDS, Handler, Kind, open_kind
from .spec import Spec

if TYPE_CHECKING:
    from ..door.service import Door
    from ..door.snapshot import Target

__all__ = ["Prepared"]

logger = logging.getLogger(__name__)


class Prepared:
    """The loaded kinds and files of one door process."""

    def __init__(self, door: Door, files: Files) -> None:
        self._door = door
        self._files = files
        self._kinds: dict[str, Kind] = {}
        self._loaded: dict[Spec, Any] = {}
        self._told: dict[Spec, str] = {}

    def __contains__(self, spec: object) -> bool:
        return spec in self._loaded

    def missing(self, specs: Iterable[Spec]) -> list[Spec]:
        """Those that are not loaded and that this door could load."""
        return [spec for spec in dict.fromkeys(specs) if spec not in self._loaded and spec.kind in KINDS]

    def load_from_disk(self, specs: Iterable[Spec]) -> None:
        """Load, without asking anybody, what lies on the disk."""
        for spec in self.missing(specs):
            try:
                paths = self._files.paths(spec)
                if paths is not None:
                    self._keep(spec, self._kind(spec.kind).load(paths))
            except (ValueError, OSError, ImportError) as error:
                self._tell(spec, str(error))

    async def prepare(self, specs: Iterable[Spec]) -> bool:
        """Fetch and load what is missing; whether all of it is there now. A failure is logged once per sentence."""
        for spec in self.missing(specs):
            try:
                self._kind(spec.kind)
                loaded = await asyncio.to_thread(self._fetch_and_load, spec)
            except (RmlError, OSError, ValueError, ImportError) as error:
                self._tell(spec, str(error))
            else:
                self._keep(spec, loaded)
        return not self.missing(specs)

    def handler(self, target: Target) -> Handler:
        """The handler of a target that preprocesses; its spec is loaded, else it would not be a target."""
        spec = target.serving.preprocess
        assert spec is not None
        return self._kind(spec.kind).handler(target, self._loaded[spec])

    def adopt(self, targets: Collection[Target]) -> None:
        """From now on these answer."""
        for name, kind in self._kinds.items():
            kind.adopt([t for t in targets if t.serving.preprocess is not None and t.serving.preprocess.kind == name])

    def retain(self, specs: Collection[Spec]) -> None:
        """Forget what no endpoint needs any more."""
        for spec in [spec for spec in self._loaded if spec not in specs]:
            del self._loaded[spec]
        self._told = {spec: text for spec, text in self._told.items() if spec in specs}
        self._files.sweep(specs)

    async def close(self) -> None:
        await asyncio.gather(*(kind.close() for kind in self._kinds.values()))

    def _kind(self, name: str) -> Kind:
        if name not in self._kinds:
            self._kinds[name] = open_kind(name, self._door)
        return self._kinds[name]

    def _fetch_and_load(self, spec: Spec) -> Any:
        self._files.fetch(spec)
        paths = self._files.paths(spec)
        if paths is None:
            raise OSError("a file vanished while it was fetched")
        return self._kind(spec.kind).load(paths)

    def _keep(self, spec: Spec, loaded: Any) -> None:
        self._loaded[spec] = loaded
        self._told.pop(spec, None)
        log(logger, logging.INFO, "preprocessing ready", kind=spec.kind, files=len(spec.files))

    def _tell(self, spec: Spec, reason: str) -> None:
        if self._told.get(spec) != reason:
            self._told[spec] = reason
            log(logger, logging.WARNING, "preprocessing not ready", kind=spec.kind, reason=reason)
