"""Model package to Triton model repository: generated configuration, warm-up, files in place."""

from __future__ import annotations

from .config import Options, batch_config, config_pbtxt, public_config
from .folder import Materialised, materialise, materialised, remove
from .warmup import warmup_files

__all__ = [
    "Materialised",
    "Options",
    "batch_config",
    "config_pbtxt",
    "materialise",
    "materialised",
    "public_config",
    "remove",
    "warmup_files",
]
