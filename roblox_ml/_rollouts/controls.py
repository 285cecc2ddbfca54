"""Layers, holdouts, shadows and the switches that turn rollouts off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .._addresses import control
from .shadow_reports import ShadowReport
from .waiting import wait_for
from .wishes import SCALE, in_parts, shown_share

__all__ = ["Shadow", "holdout", "kill", "layer", "shadow"]


class Shadow:
    """A version that is asked what the champion is asked, and whose answers nobody gets."""

    def __init__(self, endpoint: str, known: dict[str, Any]) -> None:
        self.endpoint = endpoint
        self.name = str(known["name"])
        self.ref = str(known["ref"])
        self.share = float(known["share"]) / SCALE

    def report(self) -> ShadowReport:
        """How its answers differ from the champion's, and what they cost in time."""
        with control() as plane:
            return ShadowReport(plane.shadow_report(self.endpoint, self.name))

    def remove(self) -> None:
        """Ask it no more."""
        with control() as plane:
            plane.delete_shadow(self.endpoint, self.name)

    def __repr__(self) -> str:
        return f"<rml.Shadow {self.name} of {self.endpoint}: {self.ref}, {self.share:.2%} of requests>"


def shadow(
    endpoint: str,
    ref: str,
    *,
    name: str | None = None,
    share: float = 1.0,
    isolated: bool = False,
    wait: bool = True,
    timeout: float = 120.0,
    say: Callable[[str], None] | None = None,
) -> Shadow:
    """Ask `ref` (`model/9` or `model@alias`) too, for a share of the endpoint's requests; its answers are compared and kept from clients.

    Raises:
        RemoteError, NotFound, Conflict: the control plane's refusal, for example that its tensors do not fit the endpoint's.
        NotRunning: it was not ready in time.
    """
    speak = say or (lambda line: print(line, flush=True))
    named = name or ref.replace("@", "-").replace("/", "-").replace("_", "-")
    with control() as plane:
        made = Shadow(endpoint, plane.put_shadow(endpoint, named, ref, share=in_parts(share), isolated=isolated))
        if wait:
            speak(f"shadow {named} of {endpoint}: {shown_share(in_parts(share))} of requests …")
            wait_for(plane, [ref], timeout, speak)
    return made


def layer(name: str, *, unit: str = "user_id") -> dict[str, Any]:
    """Make a layer of experiments (or look at one that is there): who has which share of it, and what is free."""
    with control() as plane:
        return dict(plane.put_layer(name, unit))


def holdout(name: str, *, share: float, unit: str = "user_id", layers: Sequence[str] = ()) -> dict[str, Any]:
    """Keep a share of the units out of every experiment of the layers (none named: of all): what experiments did together shows in them."""
    with control() as plane:
        return dict(plane.put_holdout(name, in_parts(share), unit=unit, layers=layers))


def kill(
    *,
    experiments: bool | None = None,
    canaries: bool | None = None,
    shadows: bool | None = None,
    endpoints: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Switch off (True) or on again (False), everywhere and at once; `endpoints` are those where only the champion may answer.

    Without arguments: what is off.
    """
    wishes = {"experiments": experiments, "canaries": canaries, "shadows": shadows}
    asked: dict[str, Any] = {what: off for what, off in wishes.items() if off is not None}
    if endpoints is not None:
        asked["endpoints"] = list(endpoints)
    with control() as plane:
        return dict(plane.kill(**asked) if asked else plane.switched_off())
