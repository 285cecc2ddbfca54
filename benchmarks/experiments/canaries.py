"""Many simulated canaries before the guard at once: after how many seconds each is taken back, and by which test."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from roblox_ml_platform.guarding.counts import Ticks
from roblox_ml_platform.guarding.judge import WINDOWS, Limits, look, profile, streams

from .traffic import Traffic, simulate

__all__ = ["NEVER", "Outcome", "judged"]

NEVER = 10**9
_HISTORY_S = 60


@dataclass(frozen=True, slots=True)
class Outcome:
    """Seconds from the fault (or from the beginning) to the verdict, `NEVER` where there was none."""

    seconds: np.ndarray
    by: Counter[str]

    @property
    def share(self) -> float:
        return float((self.seconds < NEVER).mean())

    def within(self, seconds: int) -> float:
        return float((self.seconds <= seconds).mean())


def judged(
    rng: np.random.Generator,
    runs: int,
    seconds: int,
    *,
    traffic: Traffic | None = None,
    limits: Limits | None = None,
    extra_errors: float = 0.0,
    slower: float = 1.0,
    begin: int = 0,
    every: int = 1,
) -> Outcome:
    """The guard's own looks on `runs` canaries; the champion was there a minute before them. `every`: seconds between two looks."""
    limits = limits or Limits()
    canary, champion = simulate(
        rng,
        runs,
        seconds + _HISTORY_S,
        traffic or Traffic(),
        extra_errors=extra_errors,
        slower=slower,
        begin=begin + _HISTORY_S,
    )
    like = profile(_cut(champion, 0, _HISTORY_S), limits)
    whole = seconds + _HISTORY_S
    found = streams(_cut(canary, _HISTORY_S, whole), _cut(champion, _HISTORY_S, whole), like, limits)
    ends, by = np.full(runs, NEVER), Counter[str]()
    for end in range(limits.min_seconds, seconds + 1, every):
        for test in found.scaled:
            first, later = limits.thresholds(test)
            for length in (end, *(one for one in WINDOWS[test] if one < end)):
                value = look(found, end - length, end, test, limits)
                hit = (value >= (first if length == end else later)) & (ends == NEVER)
                by[test] += int(hit.sum())
                ends[hit] = end - begin
    return Outcome(ends, by)


def _cut(ticks: Ticks, begin: int, end: int) -> Ticks:
    return Ticks(ticks.requests[:, begin:end], ticks.errors[:, begin:end], ticks.latency[:, begin:end])
