"""Who is watched against whom: from what runs now to pairs of keys in the book. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .counts import Key

__all__ = ["Watch", "control_of", "watches"]

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Watch:
    """A challenger beside its baseline since `begin`. `subject` is the experiment's name, empty for canaries and promotions.

    The baseline of a promotion is what answered before it: its counts end where those of the challenger begin.
    """

    kind: str
    endpoint: str
    subject: str
    version: str
    back_to: str
    challenger: Key
    baseline: Key
    begin: float


def watches(
    endpoints: Sequence[Row], canaries: Sequence[Row], experiments: Sequence[Row], resolve: Callable[[Row], int | None]
) -> list[Watch]:
    """Every canary against its champion, every arm that changes the model against control. `resolve`: a row's version now."""
    champions = {row["name"]: row for row in endpoints}
    found = [*_canaries(champions, canaries), *_arms(champions, experiments, resolve)]
    return [one for one in found if one.version != one.back_to]


def control_of(arms: Sequence[Row]) -> Row:
    """The arm that others are compared with: the one called "control", else the first."""
    return next((arm for arm in arms if arm["name"] == "control"), arms[0])


def _canaries(champions: Mapping[str, Row], canaries: Iterable[Row]) -> Iterable[Watch]:
    for row in canaries:
        here = champions.get(row["endpoint"])
        if here is not None:
            yield Watch(
                "canary", here["name"], "", f"{row['model']}/{row['version']}", f"{here['model']}/{here['version']}",
                Key(here["name"], str(row["version"]), "canary"), Key(here["name"], str(here["version"])), row["started_at"],
            )  # fmt: skip


def _arms(
    champions: Mapping[str, Row], experiments: Iterable[Row], resolve: Callable[[Row], int | None]
) -> Iterable[Watch]:
    for row in experiments:
        here = champions.get(row["endpoint"])
        if here is None:
            continue
        control = control_of(row["arms"])
        if control["model"] is None:
            baseline, back_to = Key(here["name"], str(here["version"])), f"{here['model']}/{here['version']}"
        else:
            version = resolve(control)
            baseline = Key(here["name"], str(version), "arm", row["name"], control["name"])
            back_to = f"{control['model']}/{version}"
        for arm in row["arms"]:
            if arm["model"] is None or arm["name"] == control["name"]:
                continue
            version = resolve(arm)
            if version is not None:
                yield Watch(
                    "experiment", here["name"], row["name"], f"{arm['model']}/{version}", back_to,
                    Key(here["name"], str(version), "arm", row["name"], arm["name"]), baseline, row["started_at"],
                )  # fmt: skip
