"""Find the Triton that `make setup` put on this machine.

A container image installs it in a fixed place and says so with `RML_TRITON_DIR`; a clone has it in `.triton` at its root.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from roblox_ml_core.errors import Unavailable
from roblox_ml_core.settings import HomeSettings, TritonSettings

__all__ = ["Installation", "candidates", "find_installation"]


@dataclass(frozen=True, slots=True)
class Installation:
    """One folder with the server (`server/`) and its Python backend's environment (`be/`)."""

    root: Path

    @property
    def server(self) -> Path:
        return self.root / "server" / "pytriton" / "tritonserver"

    @property
    def binary(self) -> Path:
        return self.server / "bin" / "tritonserver"

    @property
    def backends(self) -> Path:
        return self.server / "backends"

    @property
    def caches(self) -> Path:
        return self.server / "caches"

    @property
    def python(self) -> Path:
        """The interpreter whose packages the backend's stub imports."""
        return self.root / "be" / "bin" / "python"

    @property
    def complete(self) -> bool:
        return self.binary.is_file() and self.python.exists()


def candidates(settings: TritonSettings, home: HomeSettings) -> list[Path]:
    """Where an installation may lie, in order. A folder that was named is the only one looked at."""
    if settings.dir is not None:
        return [settings.dir.expanduser()]
    return [home.root / "triton", Path(__file__).resolve().parents[3] / ".triton"]


def find_installation(settings: TritonSettings | None = None, home: HomeSettings | None = None) -> Installation:
    """The first complete installation; `Unavailable` says where it was looked for and what makes one."""
    places = candidates(settings or TritonSettings(), home or HomeSettings())
    found = first_complete(places)
    if found is None:
        raise Unavailable(
            f"Triton is not installed: looked in {', '.join(str(place) for place in places)}",
            hint="type `make setup` in the clone, or set RML_TRITON_DIR to the folder that scripts/setup_triton.py filled",
        )
    return found


def first_complete(places: Iterable[Path]) -> Installation | None:
    for place in places:
        installation = Installation(place)
        if installation.complete:
            return installation
    return None
