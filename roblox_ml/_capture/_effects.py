"""Which touches outside the notebook's names matter: settings of the process, random draws, attributes of modules. Pure.

A touch concerns a slice that uses the same module. What all code depends on (the environment, warnings, the recursion limit) concerns
more than that.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from roblox_ml._capture._marks import CALLED, Touch, generator_of
from roblox_ml._capture._tables import EFFECT_CHAINS, EFFECTS, EVERYWHERE, SETTING_WORDS, WITH_ANY_IMPORT

_CALLED = f".{CALLED}"


def touch_of(how: Literal["call", "store"], path: str, through: str) -> Touch | None:
    """The touch a mark stands for once its path is resolved; None for what only looks."""
    if path.partition(".")[0] == "roblox_ml":
        return None  # data sets, pipelines and runs are no state of a step's process
    if _CALLED in path:
        start = path.partition(_CALLED)[0]
        return Touch(start, "store", through) if how == "store" and start in EFFECT_CHAINS else None
    if how == "call":
        if path in EFFECTS:
            return Touch(path, "set", through)
        if generator_of(path):
            return Touch(path, "draw", through)
        return Touch(path, "set", through) if path.rpartition(".")[2].startswith(SETTING_WORDS) else None
    if "." not in path or path == "sys.path" or path.startswith("sys.path."):
        return None  # the modules that `sys.path` leads to are shipped
    return Touch(path, "store", through)


def is_seed(touch: Touch) -> bool:
    """Whether the touch puts a shared generator into a known state."""
    return touch.kind == "set" and generator_of(touch.path) is not None


def concerns(touch: Touch, used: Collection[str], *, own: Collection[str] = ()) -> bool:
    """Whether a slice that imports the modules `used` can feel the touch; `own` are the notebook's local modules among them."""
    if touch.top == "roblox_ml":  # adding a data set, starting a run: done from the notebook, and no state of a step
        return False
    if touch.path.startswith(EVERYWHERE):
        return True
    if touch.path.startswith(WITH_ANY_IMPORT):
        return bool(set(used) - {"roblox_ml"})
    return touch.top in used or touch.top in own
