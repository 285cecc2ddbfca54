"""The one place that loads the project's other packages into the SDK, by name and on first use.

The SDK stands beside the other packages and imports none of them; what a user reaches through `rml.` and lives
elsewhere is loaded here, or answered with the extra to install.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from .errors import MissingExtra

__all__ = ["load"]

# package → the extra that brings what it needs
_EXTRAS = {
    "roblox_ml_core": "platform",
    "roblox_ml_platform": "platform",
    "roblox_ml_serving": "serving",
}


def load(module: str) -> ModuleType:
    """Import a sibling's module (`"roblox_ml_core.storage"`), or say which extra to install."""
    package = module.partition(".")[0]
    if package not in _EXTRAS:
        raise ValueError(f"{package} is no sibling of roblox_ml")
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        extra = _EXTRAS[package]
        raise MissingExtra(
            f"{module} cannot be loaded: no module named {error.name!r}",
            why=f"it belongs to the extra {extra!r}, which this environment does not have",
            fix=f'pip install "roblox-ml[{extra}]"',
        ) from error
