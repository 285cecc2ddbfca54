"""Code capture: from a function in a notebook or file to a deterministic bundle of the source it needs.

Pure and standard library only: nothing here reaches a network or knows of pipelines. The design is in docs/design/capture.md,
the format in docs/formats/code-bundle.md.
"""

from __future__ import annotations

from roblox_ml._capture._bundle import build_bundle
from roblox_ml._capture._capture import capture, capture_name
from roblox_ml._capture._git import git_state
from roblox_ml._capture._sdk import sdk_zip
from roblox_ml._capture._siblings import sibling_bundle
from roblox_ml._capture._source import cells_source
from roblox_ml._capture._types import STEP_MODULE, Bundle, Cell, GitState, Origin, Slice, Source

__all__ = [
    "STEP_MODULE",
    "Bundle",
    "Cell",
    "GitState",
    "Origin",
    "Slice",
    "Source",
    "build_bundle",
    "capture",
    "capture_name",
    "cells_source",
    "git_state",
    "sdk_zip",
    "sibling_bundle",
]
