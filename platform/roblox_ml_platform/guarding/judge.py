"""Is a challenger worse than what it stands beside? Pure: from counts by second to a verdict with its evidence.

Three shares are compared, each by the sequential test of `proportions`: requests that failed (with a margin in points), and requests
slower than the baseline's median and than its 95th percentile, both stretched by the latency margin. "At most r times as slow" means
P(challenger > r t) ≤ P(baseline > t) for every t; so the challenger's bins from an edge on are held against the baseline's from r below it.

Looks: one test begins with the rollout, and others begin at every second since and end now (a fault after a good hour must not drown in
that hour). A test that starts at a given second is valid at all later looks; the first start has half of the error
budget, and the other half is
shared by the 86,400 starts of a day. So a rollout that is exactly as much worse as is allowed is taken back in its first day with a
probability of at most `alpha`; one that is no worse at all is far inside the hypothesis, and is taken back far more rarely than that.

Requests of one second share their fate: a stall slows all of them. Counts are scaled to what they are worth under an intraclass
correlation, measured on the baseline and never taken as less than a floor. And one bad second is never enough: in every
window the worst one counts like the second worst (of the tail, which one stalled second fills: the worst tenth of all and one more).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log, log2
from typing import Any

import numpy as np

from .counts import BINS, Ticks
from .proportions import Prior, log_e_value

__all__ = ["DAY_S", "Finding", "Limits", "Profile", "Streams", "judge", "look", "profile", "streams"]

DAY_S = 86_400
#: Seconds of the tests that began after the rollout did.
WINDOWS: Mapping[str, tuple[int, ...]] = {
    "errors": (6, 10, 16, 30, 60, 120, 300),
    "median latency": (6, 10, 16, 30, 60, 120, 300),
    "tail latency": (30, 60, 120, 300),
}
_FLOORS = {"errors": 0.001, "median latency": 0.01, "tail latency": 0.01}
_PRIORS: Mapping[str, tuple[Prior, Prior]] = {
    "errors": ((1.0, 10.0), (0.5, 100.0)),
    "median latency": ((0.5, 0.5), (0.5, 0.5)),
    "tail latency": ((1.0, 5.0), (0.5, 9.5)),
}
_SHARES = {"median latency": 0.5, "tail latency": 0.05}
_HIGHEST_CORRELATION = 0.25
_MOST_EXPECTED = 500.0
_PAIRS = 20  # fewer neighbouring seconds say nothing about correlation
_CHI2_MEDIAN = 0.4549


@dataclass(frozen=True, slots=True)
class Limits:
    """What counts as worse, and how sure one must be. `error_points`: 0.01 is one point; `latency_ratio`: times."""

    error_points: float = 0.01
    latency_ratio: float = 1.5
    alpha: float = 0.05
    min_requests: int = 50
    min_errors: int = 5
    min_seconds: int = 3

    def thresholds(self, test: str) -> tuple[float, float]:
        """Logarithms of 1/α: of the test that began with the rollout, and of one that began later."""
        level = self.alpha / 2 if test == "errors" else self.alpha / 4
        return -log(level / 2), -log(level / 2 / DAY_S)


@dataclass(frozen=True, slots=True)
class Profile:
    """What a baseline is like: challenger's bins at which its median and tail are asked, how much one second's
    requests go together, and the
    shares to expect of it, as the numbers of a beta distribution (they sharpen the test; a wrong guess costs power. They are learnt from
    seconds that may be judged too, so the level is what simulations say, not what a theorem does)."""

    edges: Mapping[str, Any]
    correlation: Mapping[str, Any]
    priors: Mapping[str, tuple[Any, Any]]


@dataclass(frozen=True, slots=True)
class Streams:
    """Of each test, by second: hits and requests of challenger and baseline, scaled; and the challenger's unscaled."""

    scaled: Mapping[str, tuple[Any, Any, Any, Any]]
    priors: Mapping[str, tuple[Any, Any]]
    requests: Any
    errors: Any


@dataclass(frozen=True, slots=True)
class Finding:
    """One test of one window that found the challenger worse."""

    test: str
    seconds: int
    from_start: bool
    log_e: float
    threshold: float
    challenger_share: float
    baseline_share: float
    margin: float
    edge: int | None


def profile(baseline: Ticks, limits: Limits) -> Profile:
    """Look at a baseline's last minutes; leading axes stay."""
    hist = baseline.latency.sum(axis=-2)
    tail = _tails(hist) / np.maximum(hist.sum(axis=-1, keepdims=True), 1)
    shift = 4 * log2(limits.latency_ratio)
    edges, correlation, priors = {}, {}, {}
    for test, share in _SHARES.items():
        positions = np.arange(BINS) - shift
        stretched = _interpolated(tail, positions)
        # The bin whose stretched share is nearest, and not so small that there is nothing to compare.
        edges[test] = np.argmin(np.abs(np.log((stretched + 1e-3) / share)), axis=-1)
        hits = _interpolated_at(_tails(baseline.latency), (edges[test] - shift)[..., None])
        correlation[test] = _correlation(hits, baseline.requests, _FLOORS[test], stalls=test == "tail latency")
        priors[test] = _expected(hits, baseline.requests, correlation[test], _PRIORS[test][1])
    correlation["errors"] = _correlation(baseline.errors, baseline.requests, _FLOORS["errors"], stalls=False)
    priors["errors"] = _expected(baseline.errors, baseline.requests, correlation["errors"], _PRIORS["errors"][1])
    return Profile(edges, correlation, priors)


def streams(challenger: Ticks, baseline: Ticks, like: Profile, limits: Limits) -> Streams:
    """The three comparisons by second."""
    shift = 4 * log2(limits.latency_ratio)
    nc, nb = challenger.requests, baseline.requests
    raw = {"errors": (challenger.errors, baseline.errors)}
    tails_c, tails_b = _tails(challenger.latency), _tails(baseline.latency)
    for test, edge in like.edges.items():
        raw[test] = (
            _interpolated_at(tails_c, np.asarray(edge, dtype=float)[..., None]),
            _interpolated_at(tails_b, (np.asarray(edge) - shift)[..., None]),
        )
    scaled = {}
    for test, (xc, xb) in raw.items():
        rho = np.asarray(like.correlation[test])[..., None]
        fc, fb = (1 / (1 + np.maximum(n - 1, 0) * rho) for n in (nc, nb))
        scaled[test] = (xc * fc, nc * fc, xb * fb, nb * fb)
    return Streams(scaled, like.priors, nc, challenger.errors)


def look(found: Streams, begin: int, end: int, test: str, limits: Limits) -> Any:
    """The logarithm of the e-value of one test over the seconds [begin, end), its worst ones calmed; −∞ with too few counts."""
    part = slice(begin, end)
    xc, nc, xb, nb = (series[..., part] for series in found.scaled[test])
    requests = found.requests[..., part]
    worst = 1 + (end - begin) // 10 if test == "tail latency" else 1
    enough = (requests.sum(axis=-1) >= limits.min_requests) & ((requests > 0).sum(axis=-1) >= limits.min_seconds)
    if test == "errors":
        enough &= _calmed(found.errors[..., part], worst) >= limits.min_errors
    sums = [
        np.where(enough, series, 0.0) for series in (_calmed(xc, worst), *(one.sum(axis=-1) for one in (nc, xb, nb)))
    ]
    margin = limits.error_points if test == "errors" else 0.0
    return log_e_value(sums[0], sums[1], sums[2], sums[3], margin, _PRIORS[test][0], found.priors[test])


def _calmed(hits: Any, worst: int) -> Any:
    """The sum of a window's hits, were its worst seconds like the next worst: what one stall did is not evidence."""
    length = hits.shape[-1]
    if length <= worst:
        return np.zeros(hits.shape[:-1])
    top = np.partition(hits, length - worst - 1, axis=-1)[..., length - worst - 1 :]
    return hits.sum(axis=-1) - top[..., 1:].sum(axis=-1) + worst * top[..., 0]


def judge(
    challenger: Ticks, baseline: Ticks, limits: Limits, *, like: Profile | None = None, from_start: bool = True
) -> Finding | None:
    """The strongest finding of all tests on counts that end now, or None. `from_start`: the first second is the rollout's first."""
    seconds = len(challenger.requests)
    if challenger.requests.sum() < limits.min_requests or baseline.requests.sum() < limits.min_requests:
        return None
    like = like or profile(baseline, limits)
    found = streams(challenger, baseline, like, limits)
    best: Finding | None = None
    for test in found.scaled:
        first, later = limits.thresholds(test)
        windows = [(seconds, True)] if from_start else []
        windows += [(length, False) for length in WINDOWS[test] if length < seconds or not from_start]
        for length, whole in windows:
            value = float(look(found, seconds - length, seconds, test, limits))
            threshold = first if whole else later
            if value >= threshold and (best is None or value - threshold > best.log_e - best.threshold):
                best = _finding(found, seconds - length, test, whole, value, threshold, limits, like)
    return best


def _finding(
    found: Streams, begin: int, test: str, whole: bool, value: float, threshold: float, limits: Limits, like: Profile
) -> Finding:
    xc, nc, xb, nb = (float(series[begin:].sum()) for series in found.scaled[test])
    edge = None if test == "errors" else int(like.edges[test])
    margin = limits.error_points if test == "errors" else limits.latency_ratio
    return Finding(test, len(found.requests) - begin, whole, value, threshold, xc / nc, xb / nb, margin, edge)


def _expected(hits: Any, requests: Any, correlation: Any, vague: Prior) -> tuple[Any, Any]:
    n = requests.sum(axis=-1)
    share = hits.sum(axis=-1) / np.maximum(n, 1)
    size = np.maximum(n / np.maximum((requests > 0).sum(axis=-1), 1) - 1, 0)
    weight = np.minimum(_MOST_EXPECTED, n / (1 + size * correlation) / 4)
    return vague[0] + share * weight, vague[1] + (1 - share) * weight


def _tails(hist: Any) -> Any:
    """How many are in each bin or a later one; one more for "beyond the last"."""
    tail = np.cumsum(hist[..., ::-1], axis=-1)[..., ::-1]
    return np.concatenate([tail, np.zeros((*tail.shape[:-1], 1), dtype=tail.dtype)], axis=-1)


def _interpolated(tails: Any, positions: Any) -> Any:
    """Tails at bin positions that are no edges, linear in the logarithm of time; all of them below the first edge."""
    low = np.clip(np.floor(positions), 0, BINS - 1).astype(int)
    part = np.clip(positions - low, 0.0, 1.0)
    return tails[..., low] * (1 - part) + tails[..., low + 1] * part


def _interpolated_at(tails: Any, position: Any) -> Any:
    """The same at one position per leading axis: (…, time, bins) and (…, 1) to (…, time)."""
    position = np.broadcast_to(position, tails.shape[:-1])
    low = np.clip(np.floor(position), 0, BINS - 1).astype(int)[..., None]
    part = np.clip(position - low[..., 0], 0.0, 1.0)
    here, beyond = (np.take_along_axis(tails, index, -1)[..., 0] for index in (low, low + 1))
    return here * (1 - part) + beyond * part


def _correlation(hits: Any, requests: Any, floor: float, *, stalls: bool) -> Any:
    """The intraclass correlation of one second's requests, from differences of neighbouring seconds (a slow drift is no correlation).

    With `stalls`, by the mean of their squares: for the tail, which a stalled second fills by itself. Without, by
    their median: such seconds
    are few, move a median's test by half a second's requests at most, and the worst of them is calmed anyway.
    """
    if requests.shape[-1] < 2:  # no neighbours yet
        return np.full(requests.shape[:-1], floor)
    n = np.maximum(requests, 1).astype(float)
    share = hits / n
    both = (requests[..., 1:] > 1) & (requests[..., :-1] > 1)
    mean = hits.sum(axis=-1) / np.maximum(requests.sum(axis=-1), 1)
    expected = (mean * (1 - mean))[..., None] * (1 / n[..., 1:] + 1 / n[..., :-1])
    pairs = both.sum(axis=-1)
    ratio = np.where(both, np.diff(share, axis=-1) ** 2 / np.maximum(expected, 1e-12), np.nan)
    some = np.where((pairs >= _PAIRS)[..., None], ratio, 1.0 if stalls else _CHI2_MEDIAN)
    dispersion = np.nanmean(some, axis=-1) if stalls else np.nanmedian(some, axis=-1) / _CHI2_MEDIAN
    size = np.maximum(requests.sum(axis=-1) / np.maximum((requests > 0).sum(axis=-1), 1) - 1, 1)
    return np.clip((dispersion - 1) / size, floor, _HIGHEST_CORRELATION)
