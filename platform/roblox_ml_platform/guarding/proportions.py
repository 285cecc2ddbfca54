"""Is one share larger than another by more than a margin? A sequential test of two Bernoulli streams, valid at every look.

The hypothesis "p_c ≤ p_b + m" has two unknowns. Against each of its points the ratio

    E = BB(x_c, n_c) BB(x_b, n_b) / ( p_c^x_c (1 − p_c)^(n_c − x_c) · p_b^x_b (1 − p_b)^(n_b − x_b) ),   BB(x, n) = B(a
    + x, b + n − x) / B(a, b)

is a test martingale (a mixture over alternatives, beta-distributed, over the likelihood: Robbins 1970; Lindon & Malek
2022 for counts), so its
smallest value over the hypothesis is an e-process: it exceeds 1/α at any time with a probability of at most α. The smallest value is where
the likelihood within the hypothesis is largest, on the line p_c = p_b + m, and there it has one maximum.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..analysis.special import log_beta

__all__ = ["log_e_value"]

_HALVINGS = 45
_TINY = 1e-12
Prior = tuple[Any, Any]


def log_e_value(
    xc: Any, nc: Any, xb: Any, nb: Any, margin: float = 0.0, prior: Prior = (0.5, 0.5), prior_b: Prior | None = None
) -> Any:
    """Logarithm of E; −∞ where the challenger's share is not above the baseline's by more than the margin. Arrays or numbers.

    Counts may be fractions: counts that are not independent are scaled down beforehand. `prior` says where shares are expected.
    """
    xc, nc, xb, nb = np.broadcast_arrays(*(np.asarray(part, dtype=float) for part in (xc, nc, xb, nb)))
    share_c, share_b = xc / np.maximum(nc, _TINY), xb / np.maximum(nb, _TINY)
    found = np.full(share_c.shape, -np.inf)
    above = (nc > 0) & (nb > 0) & (share_c > share_b + margin)
    if not above.any():
        return found
    xc, nc, xb, nb = (part[above] for part in (xc, nc, xb, nb))
    first, second = (
        tuple(np.broadcast_to(part, above.shape)[above] for part in one) for one in (prior, prior_b or prior)
    )
    p = _most_likely(xc, nc, xb, nb, margin)
    likelihood = _log_likelihood(xc, nc, p + margin) + _log_likelihood(xb, nb, p)
    found[above] = _log_mixture(xc, nc, first) + _log_mixture(xb, nb, second) - likelihood
    return found


def _most_likely(xc: Any, nc: Any, xb: Any, nb: Any, margin: float) -> Any:
    """The p_b of the likelihood's maximum on p_c = p_b + m: between the two shares, where its derivative crosses zero."""
    if margin == 0:
        return (xc + xb) / (nc + nb)
    low, high = xb / nb, np.minimum(xc / nc - margin, 1 - margin - _TINY)
    for _ in range(_HALVINGS):
        p = (low + high) / 2
        slope = _slope(xb, nb, p) + _slope(xc, nc, p + margin)
        low, high = np.where(slope > 0, p, low), np.where(slope > 0, high, p)
    return (low + high) / 2


def _slope(x: Any, n: Any, p: Any) -> Any:
    return x / np.maximum(p, _TINY) - (n - x) / np.maximum(1 - p, _TINY)


def _log_likelihood(x: Any, n: Any, p: Any) -> Any:
    p = np.clip(p, _TINY, 1 - _TINY)
    return x * np.log(p) + (n - x) * np.log1p(-p)


def _log_mixture(x: Any, n: Any, prior: Prior) -> Any:
    a, b = prior
    return log_beta(a + x, b + n - x) - log_beta(a, b)
