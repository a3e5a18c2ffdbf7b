"""Quantiles of the share that will have come back: what is known, and the chance of the orders still out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import stats
from scipy.special import betaln, gammaln

__all__ = ["still_to_come"]

Array = npt.NDArray[np.float64]

# Up to so many orders their number is counted out; beyond, a beta of the same mean and variance is as good.
MAX_COUNTED = 60


def still_to_come(mean: Array, concentration: Array, orders: Array, chances: tuple[float, ...]) -> Array:
    """Quantiles of the share of orders still out that comes back: beta-binomial.

    Parameters
    ----------
    mean, concentration
        Of the beta from which each SKU's share is drawn.
    orders
        How many are out, whole or not. Where none, the quantiles are those of the share itself.
    chances
        Of the quantiles.

    Returns
    -------
    numpy.ndarray
        Shape `(len(chances), len(mean))`, 0 to 1.

    Examples
    --------
    >>> still_to_come(np.array([0.5]), np.array([1e9]), np.array([2.0]), (0.1, 0.5, 0.9)).ravel()
    array([0. , 0.5, 1. ])
    """
    none = orders <= 0
    n = np.where(none, 1e9, np.maximum(orders, 1.0))
    counted = n <= MAX_COUNTED
    out = np.empty((len(chances), len(mean)))
    if counted.any():
        out[:, counted] = _count_out(mean[counted], concentration[counted], np.ceil(n[counted] - 1e-9), chances)
    rest = ~counted
    if rest.any():
        # Var = m (1 - m) (1 / n + (1 - 1 / n) / (k + 1))
        spread = 1 / n[rest] + (1 - 1 / n[rest]) / (concentration[rest] + 1)
        k = np.maximum(1 / spread - 1, 1e-6)
        for place, chance in enumerate(chances):
            out[place, rest] = stats.beta.ppf(chance, mean[rest] * k, (1 - mean[rest]) * k)
    return out


def _count_out(mean: Array, concentration: Array, n: Array, chances: tuple[float, ...]) -> Array:
    x = np.arange(MAX_COUNTED + 1.0)[None, :]
    a, b = (mean * concentration)[:, None], ((1 - mean) * concentration)[:, None]
    rest = np.maximum(n[:, None] - x, 0)
    log = gammaln(n[:, None] + 1) - gammaln(x + 1) - gammaln(rest + 1) + betaln(x + a, rest + b) - betaln(a, b)
    cdf = np.cumsum(np.where(x <= n[:, None], np.exp(log), 0.0), axis=1)
    return np.stack([(cdf < chance - 1e-9).sum(axis=1) / n for chance in chances])
