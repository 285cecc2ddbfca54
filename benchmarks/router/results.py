"""From single turns to the table and the last line: medians over rounds, differences to no hop at all, ratios."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["TARGETS", "Row", "Turn", "figures", "judged", "last_line", "row_of", "table"]

#: Figure → (target, whether less is better).
TARGETS: Mapping[str, tuple[float, bool]] = {
    "router_cpu_us": (45, True),
    "router_added_p50_us": (50, True),
    "router_rps_core": (20_000, False),
    "ratio_cpu_vs_kserve_transformer": (80, False),
    "ratio_cpu_vs_envoy": (1.5, True),
}


@dataclass(frozen=True, slots=True)
class Turn:
    """One hop's figures of one round. Times in microseconds."""

    p50_alone: float  # one connection, everything on one core
    cpu_alone: float  # CPU of the hop per request, then
    rps: float  # 16 connections, the hop alone on its core
    cpu: float  # CPU of the hop per request, then
    busy: float  # which part of its core the hop used, then
    p50_rate: float  # at the fixed rate
    p99_rate: float
    rate: float


@dataclass(frozen=True, slots=True)
class Row:
    """Medians of a hop, and its turns by round. `absent` is set where there is nothing to measure, with the reason."""

    name: str
    turn: Turn | None
    absent: str = ""
    turns: tuple[Turn, ...] = ()


def row_of(name: str, turns: Sequence[Turn]) -> Row:
    """The median of every figure by itself."""
    fields = Turn.__dataclass_fields__
    return Row(
        name,
        Turn(**{field: statistics.median(getattr(turn, field) for turn in turns) for field in fields}),
        turns=tuple(turns),
    )


def figures(rows: Mapping[str, Row]) -> dict[str, float | None]:
    """The benchmark's own figures; None where something they compare with is absent.

    What compares two hops is the median of the rounds' own comparisons: a neighbour who came between two rounds hit both hops.
    """

    def compared(one: str, other: str, how: Callable[[Turn, Turn], float]) -> float | None:
        pairs = [*zip(rows[one].turns, rows[other].turns, strict=False)] if one in rows and other in rows else []
        return statistics.median(how(*pair) for pair in pairs) if pairs else None

    def cpu(one: Turn, other: Turn) -> float:
        return one.cpu / other.cpu

    door = rows["door"].turn
    return {
        "router_cpu_us": None if door is None else door.cpu,
        "router_added_p50_us": compared("door", "direct", lambda one, other: one.p50_alone - other.p50_alone),
        # What the core would give if it were busy all the time: the client's core may be the one that is full.
        "router_rps_core": None if door is None else max(door.rps, 1e6 / door.cpu if door.cpu else 0.0),
        "ratio_cpu_vs_kserve_transformer": compared("kserve-transformer", "door", cpu),
        "ratio_cpu_vs_envoy": compared("door", "envoy", cpu),
        "ratio_cpu_vs_nginx": compared("door", "nginx", cpu),
    }


def judged(found: Mapping[str, float | None]) -> list[str]:
    """A line for each target that was missed."""
    missed = []
    for name, (target, less) in TARGETS.items():
        value = found.get(name)
        if value is not None and (value > target if less else value < target):
            missed.append(f"{name} is {value:,.1f}, wanted {'at most' if less else 'at least'} {target:,g}")
    return missed


def last_line(found: Mapping[str, float | None], rows: Mapping[str, Row], chain: Mapping[str, Any]) -> dict[str, float]:
    """One flat object of what was measured: the figures, then those of every hop, then those of the chain."""
    flat: dict[str, float | None] = dict(found)
    for row in rows.values():
        if row.turn is not None:
            for field, unit in _UNITS.items():
                flat[f"{_key(row.name)}_{unit}"] = getattr(row.turn, field)
    for way, figures_ in chain.items():
        if way != "absent":
            flat |= {f"chain_{_key(way)}_{name}": figures_[name] for name in ("p50_us", "p99_us", "rps_c16")}
            flat |= {f"chain_{_key(way)}_cpu_us_{part}": value for part, value in figures_["cpu_us_c16"].items()}
    return {name: float(f"{value:.4g}") for name, value in flat.items() if value is not None}


_UNITS = {
    "cpu": "cpu_us", "cpu_alone": "cpu_us_c1", "p50_alone": "p50_us_c1", "rps": "rps_c16",
    "p50_rate": "p50_us_at_rate", "p99_rate": "p99_us_at_rate", "rate": "rate",
}  # fmt: skip


def _key(name: str) -> str:
    return name.lower().replace("-", "_").replace(" ", "_")


def table(rows: Mapping[str, Row]) -> list[str]:
    """For people."""
    head = (
        f"{'hop':<20}{'CPU µs/req':>12}{'(c=1)':>9}{'p50 µs':>10}{'added':>9}{'rps c=16':>11}{'core':>7}"
        f"{'at rps':>9}{'p50 µs':>10}{'p99 µs':>10}"
    )
    lines = [head, "-" * len(head)]
    base = rows["direct"].turn if "direct" in rows else None
    for row in rows.values():
        if row.turn is None:
            lines.append(f"{row.name:<20}  absent: {row.absent}")
            continue
        turn = row.turn
        added = "" if base is None or turn is base else f"{turn.p50_alone - base.p50_alone:+,.0f}"
        lines.append(
            f"{row.name:<20}{turn.cpu:>12,.1f}{turn.cpu_alone:>9,.1f}{turn.p50_alone:>10,.0f}{added:>9}"
            f"{turn.rps:>11,.0f}{turn.busy:>7.0%}{turn.rate:>9,.0f}{turn.p50_rate:>10,.0f}{turn.p99_rate:>10,.0f}"
        )
    return lines
