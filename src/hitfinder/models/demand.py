"""Demand: how many units a SKU will sell in its outcome window, with all that is not known of it.

The units of past SKUs given what had been seen of them follow a negative binomial distribution: a SKU's own pace is
gamma distributed around what its shrunk rate of units and its belief say, and what comes of it is Poisson. The
regression also learns how the traffic of outcome windows differs from that of tests, and how far off early sights are.
A SKU that sold out counts for the time that it was in stock. Being gamma, the pace is updated in closed form by what
was sold since the window opened.

The width is then held against SKUs of batches that the regression had not seen: seasons and fashions move whole
batches, which no fit within batches knows of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import minimize
from scipy.special import digamma, gammaln
from scipy.stats import nbinom

__all__ = ["Demand", "Outlook", "fit_demand"]

Array = npt.NDArray[np.float64]

# Fewer SKUs than this, or units sold by all of them, say too little.
MIN_SKUS = 40
MIN_UNITS = 40
# Pull of the slopes towards "as the rate says, nothing else", in SKUs' worth of squared slope.
RIDGE = 1.0
# The logarithm of the dispersion may lie between: from nearly Poisson to nothing known.
LEAST, MOST = -9.0, 3.0


@dataclass(frozen=True)
class Outlook:
    """What will be sold in a stretch of time: negative binomial with these means and shapes, shape (n,) each."""

    mean: Array
    shape: Array

    def quantile(self, share: float) -> Array:
        """Return the units that are not passed with this chance; whole numbers."""
        known = np.isfinite(self.mean)
        mean = np.where(known, np.maximum(self.mean, 1e-12), 1.0)
        shape = np.where(known, self.shape, 1.0)
        return np.where(known, nbinom.ppf(share, shape, shape / (shape + mean)), np.nan)


@dataclass(frozen=True)
class Demand:
    """A negative binomial regression of units in the outcome window.

    Attributes
    ----------
    rate
        The rate of units whose shrunk value it reads.
    coefficients
        Of 1, the logarithm of the rate, the belief's expected standing and its square; of the logarithm of the mean.
    dispersion
        Of 1 and the rate's spread; of the logarithm of the variance of a SKU's pace over its squared mean.
    facts
        How it was learned, in plain values: `skus, sold_out`.
    """

    rate: str
    coefficients: tuple[float, ...]
    dispersion: tuple[float, ...]
    facts: dict[str, Any]

    def pace(self, table: pd.DataFrame, standing: Array) -> tuple[Array, Array]:
        """Return mean and shape of the gamma distribution of each row's units per window.

        Parameters
        ----------
        table
            Features.
        standing
            `Belief.mean` of its rows.
        """
        X, Z = _inputs(table, self.rate, standing)
        mean = np.exp((X * np.asarray(self.coefficients)).sum(axis=1))
        alpha = np.exp(np.clip((Z * np.asarray(self.dispersion)).sum(axis=1), LEAST, MOST))
        return mean, 1 / alpha

    def outlook(self, table: pd.DataFrame, standing: Array, sold: Array, in_stock: Array, windows: float) -> Outlook:
        """Return what comes over some windows' length, given what was sold since the first opened.

        Parameters
        ----------
        table, standing
            See `pace`.
        sold : array of float, shape (n,)
            Units since the window opened; NaN where it is not known: then only the test tells.
        in_stock : array of float, shape (n,)
            For how long of it the SKU was in stock, in windows.
        windows
            How far ahead, in windows.
        """
        mean, shape = self.pace(table, standing)
        told = np.isfinite(sold) & (in_stock > 0)
        more, time = np.where(told, sold, 0.0), np.where(told, in_stock, 0.0)
        return Outlook((shape + more) / (shape / mean + time) * windows, shape + more)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "rate": self.rate,
            "coefficients": list(self.coefficients),
            "dispersion": list(self.dispersion),
            "facts": self.facts,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Demand:
        """Undo `to_dict`."""
        return cls(values["rate"], tuple(values["coefficients"]), tuple(values["dispersion"]), values["facts"])


def fit_demand(
    table: pd.DataFrame,
    rate: str,
    standing: Array,
    units: Array,
    in_stock: Array,
    weight: Array,
    folds: npt.NDArray[np.int64],
) -> Demand | None:
    """Fit the regression by maximum likelihood.

    Parameters
    ----------
    table
        Features, one row per SKU and state of its test.
    rate
        The rate of units that it reads.
    standing
        `Belief.mean` of its rows, by beliefs that did not see the SKU: else early sights would seem to tell more than
        they do.
    units, in_stock, weight, folds : arrays, shape (n,)
        Of each row's SKU: units sold in its outcome window and for how much of it the SKU was in stock; NaN or 0: it
        tells nothing. A SKU's weights sum to one. Blocks of neighbouring launches.

    Returns
    -------
    Demand or None
        None where too little was sold.
    """
    told = np.isfinite(units) & (in_stock > 0)
    rows = table.loc[told].reset_index(drop=True)
    y, time, w, fold = units[told], in_stock[told], weight[told], folds[told]
    skus = rows["sku_id"].nunique()
    if skus < MIN_SKUS or float((w * y).sum()) < MIN_UNITS:
        return None
    X, Z = _inputs(rows, rate, standing[told])
    fitted = _maximise(X, Z, y, time, w)
    wider = _widen(X, Z, y, time, w, fold)
    dispersion = (float(fitted[X.shape[1]]) + wider, *map(float, fitted[X.shape[1] + 1 :]))
    sold_out = int(rows.loc[time < 1 - 1e-9, "sku_id"].nunique())
    return Demand(rate, tuple(map(float, fitted[: X.shape[1]])), dispersion, {"skus": skus, "sold_out": sold_out})


def _inputs(table: pd.DataFrame, rate: str, standing: Array) -> tuple[Array, Array]:
    shrunk = table[f"{rate}.sku_rate"].to_numpy(dtype=float, na_value=np.nan)
    spread = np.nan_to_num(table[f"{rate}.spread"].to_numpy(dtype=float, na_value=np.nan), nan=1.0)
    ones = np.ones(len(table))
    # The square, since the best stand out by more than a normal score says.
    return np.column_stack([ones, np.log(shrunk), standing, standing**2]), np.column_stack([ones, spread])


def _maximise(X: Array, Z: Array, y: Array, time: Array, weight: Array) -> Array:
    p = X.shape[1]
    rate = np.average(y / time, weights=weight * time)
    start = np.zeros(p + Z.shape[1])
    start[0] = np.log(rate) - np.average(X[:, 1], weights=weight)
    start[1] = 1.0
    # The slopes are pulled to where they start; the two levels are free.
    pull = np.full(len(start), RIDGE)
    pull[[0, p]] = 0.0
    first = start.copy()

    def loss(at: Array) -> tuple[float, Array]:
        eta = np.clip(X @ at[:p], -30, 30)
        raw = Z @ at[p:]
        log_alpha = np.clip(raw, LEAST, MOST)
        mean, k = np.exp(eta) * time, np.exp(-log_alpha)
        away = at - first
        likely = (
            gammaln(y + k) - gammaln(k) - gammaln(y + 1) + k * np.log(k / (k + mean)) + y * np.log(mean / (k + mean))
        )
        by_eta = (y - mean) * k / (k + mean)
        by_k = digamma(y + k) - digamma(k) + np.log(k / (k + mean)) + (mean - y) / (k + mean)
        inside = (raw > LEAST) & (raw < MOST)
        slope = np.concatenate([X.T @ (weight * by_eta), Z.T @ (weight * -k * by_k * inside)])
        return float(-(weight * likely).sum() + (pull * away**2).sum() / 2), -slope + pull * away

    return np.asarray(minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 500}).x)


def _widen(X: Array, Z: Array, y: Array, time: Array, weight: Array, folds: npt.NDArray[np.int64]) -> float:
    """Return what to add to the logarithm of the dispersion so that it is right for batches that were not seen."""
    blocks = np.unique(folds)
    if len(blocks) < 2:
        return 0.0
    p = X.shape[1]
    mean, raw = np.empty(len(y)), np.empty(len(y))
    for block in blocks:
        out = folds == block
        fitted = _maximise(X[~out], Z[~out], y[~out], time[~out], weight[~out])
        mean[out] = np.exp(np.clip(X[out] @ fitted[:p], -30, 30)) * time[out]
        raw[out] = Z[out] @ fitted[p:]
    tried = np.linspace(0, 2, 41)
    losses = []
    for more in tried:
        k = np.exp(-np.clip(raw + more, LEAST, MOST))
        losses.append(-(weight * nbinom.logpmf(y, k, k / (k + mean))).sum())
    return float(tried[int(np.argmin(losses))])
