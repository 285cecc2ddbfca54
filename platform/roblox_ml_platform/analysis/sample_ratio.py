"""Do the arms get the units they should? A sequential multinomial test on exposures, to be looked at as often as one likes.

Lindon & Malek, "Anytime-valid inference for multinomial count data" (NeurIPS 2022, arXiv 2011.03567): with the intended shares θ, a
Dirichlet(k θ) prior around them and counts n,

    E = B(k θ + n) / B(k θ) / Π θᵢ^nᵢ

is an e-value against "the shares are θ". k says how large a deviation is looked for: about 1/√k of a share of one half.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .special import log_gamma

__all__ = ["CONCENTRATION", "log_e_value"]

#: Finds deviations of about half a point out of fifty best.
CONCENTRATION = 10_000.0


def log_e_value(counts: Any, shares: Any, concentration: float = CONCENTRATION) -> Any:
    """Logarithm of the e-value; `counts` may have leading axes (times, simulations), the last one is the arms."""
    counts, shares = np.asarray(counts, dtype=float), np.asarray(shares, dtype=float)
    if np.any(shares <= 0):
        raise ValueError(f"shares are {shares.tolist()}: an arm that should get nobody cannot be tested")
    shares = shares / shares.sum()
    prior = concentration * shares
    total = log_gamma(concentration) - log_gamma(concentration + counts.sum(axis=-1))
    return total + (log_gamma(prior + counts) - log_gamma(prior) - counts * np.log(shares)).sum(axis=-1)
