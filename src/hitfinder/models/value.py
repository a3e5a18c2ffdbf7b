"""What a SKU will be worth: the chance that it sells on at all, times what it is worth if it does.

Two parts, because most of a long tail is worth nothing and a few are worth much: one regression through both would
follow neither (Duan et al., "A comparison of alternative models for the demand for medical care", 1983). The first is
the share of past SKUs of such a margin whose outcome was above 0, the second a Gamma regression with a log link on
those that were. Intervals are for the outcome itself, by split conformal prediction within bins of the expected value
(Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World", 2005), all on out-of-fold predictions.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.exceptions import ConvergenceWarning
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import GammaRegressor
from sklearn.metrics import mean_gamma_deviance

__all__ = ["COVERAGE", "ValueModel", "fit_value"]

Array = npt.NDArray[np.float64]

# The interval is to hold the outcome of so many SKUs, or more where many are worth the same.
COVERAGE = 0.80
# What the second part may read beside the margin, of the features table.
BESIDE = ("log_price", "log_earning")
PENALTIES = (0.01, 0.1, 1.0, 10.0)
# Rows from which a second part, or a bin of the interval, can be learned.
MIN_POSITIVE = 30
# Beyond so many spreads from the middle a log link would promise the sky.
FAR = 3.0
MIN_BIN = 40
# How much faster than what is expected the upper end may grow beyond the last level, where that is next to nothing.
STEEPEST = 5.0


@dataclass(frozen=True)
class ValueModel:
    """Expected outcome and its interval.

    `margins`, `sells_on`: the first part as a curve. `columns`, `centre`, `scale`, `coefficients`, `intercept`: the
    second part, on the margin and `columns`; `coefficients` is empty where too few SKUs sold on, and `intercept` is
    then the log of their mean. `otherwise`: what those that did not sell on were worth on average, 0 or less. `levels`,
    `low`, `high`: the interval by expected value.
    """

    margins: tuple[float, ...]
    sells_on: tuple[float, ...]
    columns: tuple[str, ...]
    centre: tuple[float, ...]
    scale: tuple[float, ...]
    coefficients: tuple[float, ...]
    intercept: float
    otherwise: float
    levels: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    def expected(self, margin: Array, table: pd.DataFrame) -> Array:
        """Return the expected outcome of each row of a described table, in units of the metric."""
        chance = np.interp(margin, self.margins, self.sells_on)
        Z = _standardised(_columns(margin, table, self.columns), self.centre, self.scale)
        log_worth = self.intercept + Z @ np.asarray(self.coefficients or [0.0] * Z.shape[1])
        return np.asarray(chance * np.exp(log_worth) + (1 - chance) * self.otherwise)

    def interval(self, expected: Array) -> tuple[Array, Array]:
        """Return between what the outcomes of at least `COVERAGE` of SKUs of such expectation lay."""
        low = np.interp(expected, self.levels, self.low)
        high = np.interp(expected, self.levels, self.high)
        first, last = self.levels[0], self.levels[-1]
        if last > 0:
            # What a SKU is worth that sells on varies in proportion to what is expected of it (Gamma), beyond the last
            # level too; what one loses that does not sell on is the same for all.
            further = np.maximum(expected - last, 0.0)
            low = low + further * max(self.low[-1], 0.0) / last
            high = high + further * min(max(self.high[-1], 0.0) / last, STEEPEST)
        if self.low[0] < 0:
            # Where there are losses, the least of a SKU below the first level lies as far below what is expected of it.
            low = low - np.maximum(first - expected, 0.0)
        return np.minimum(low, expected), np.maximum(high, expected)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in self.__dict__.items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ValueModel:
        """Undo `to_dict`."""
        found: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        return cls(**found)


def fit_value(margin: Array, table: pd.DataFrame, value: Array, weight: Array, folds: Any, grid: Array) -> ValueModel:
    """Fit both parts and the interval.

    Parameters
    ----------
    margin : array of shape (rows,)
        Out-of-fold margins of past SKUs.
    table
        The described features of the rows; columns that it lacks are not read.
    value, weight : arrays of shape (rows,)
        What they were worth, and what each counts.
    folds : array of int, shape (rows,)
        Rows of one SKU, and of its batch, are in one fold.
    grid : array
        Margins at which the first part is kept.

    Returns
    -------
    ValueModel
    """
    kept = weight > 0
    margin, value, weight, folds = margin[kept], value[kept], weight[kept], np.asarray(folds)[kept]
    table = table.loc[kept]
    model = _fit_parts(margin, table, value, weight, folds, grid)
    seen = np.full(len(value), np.nan)
    for fold in np.unique(folds):
        held = folds == fold
        if held.all():
            break
        rest = _fit_parts(margin[~held], table.loc[~held], value[~held], weight[~held], folds[~held], grid)
        seen[held] = rest.expected(margin[held], table.loc[held])
    if np.isnan(seen).any():
        seen = model.expected(margin, table)
    levels, low, high = _interval_by_level(seen, value, weight)
    return replace(model, levels=levels, low=low, high=high)


def _fit_parts(margin: Array, table: pd.DataFrame, value: Array, weight: Array, folds: Any, grid: Array) -> ValueModel:
    positive = value > 0
    curve = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(margin, positive.astype(float), weight)
    columns = tuple(name for name in BESIDE if name in table and table[name].notna().any())
    X = _columns(margin, table, columns)
    centre, scale = np.nanmean(X, axis=0), np.nanstd(X, axis=0)
    scale[scale < 1e-9] = 1.0
    Z = _standardised(X, centre, scale)
    coefficients: list[float] = []
    intercept = float(np.log(np.average(value[positive], weights=weight[positive]))) if positive.any() else -np.inf
    if positive.sum() >= MIN_POSITIVE:
        best = _penalty(Z[positive], value[positive], weight[positive], np.asarray(folds)[positive])
        fitted, unit = _regression(best, Z[positive], value[positive], weight[positive])
        if fitted.coef_[0] < 0:
            # A better margin is never worth less; where it seems so, that is chance, and the rest has to explain it.
            Z[:, 0] = 0.0
            fitted, unit = _regression(best, Z[positive], value[positive], weight[positive])
        coefficients, intercept = fitted.coef_.tolist(), float(fitted.intercept_ + np.log(unit))
    others = weight[~positive].sum()
    return ValueModel(
        margins=tuple(np.asarray(grid, dtype=float).tolist()),
        sells_on=tuple(curve.predict(grid).tolist()),
        columns=columns,
        centre=tuple(centre.tolist()),
        scale=tuple(scale.tolist()),
        coefficients=tuple(coefficients),
        intercept=intercept if np.isfinite(intercept) else -700.0,
        otherwise=float((value[~positive] * weight[~positive]).sum() / others) if others > 0 else 0.0,
        levels=(0.0,),
        low=(0.0,),
        high=(0.0,),
    )


def _regression(alpha: float, Z: Array, value: Array, weight: Array) -> tuple[GammaRegressor, float]:
    """Return the worth of those that sell on, in units of its mean: its solver stalls on rates of a thousandth."""
    unit = float(np.average(value, weights=weight))
    with warnings.catch_warnings():
        # It then goes on with lbfgs by itself.
        warnings.filterwarnings("ignore", "Line search of Newton solver", ConvergenceWarning)
        return GammaRegressor(alpha=alpha, solver="newton-cholesky").fit(Z, value / unit, weight), unit


def _columns(margin: Array, table: pd.DataFrame, columns: tuple[str, ...]) -> Array:
    beside = table.reindex(columns=list(columns)).to_numpy(dtype=float, na_value=np.nan)
    return np.column_stack([margin, beside])


def _standardised(X: Array, centre: Any, scale: Any) -> Array:
    """Return columns in units of their spread; what is not known stands in the middle, what lies far out is cut."""
    Z: Array = np.nan_to_num(np.clip((X - np.asarray(centre)) / np.asarray(scale), -FAR, FAR), nan=0.0)
    return Z


def _penalty(Z: Array, value: Array, weight: Array, folds: Any) -> float:
    """Return the penalty with the least deviance on folds held out."""
    parts = [folds == fold for fold in np.unique(folds)]
    parts = [held for held in parts if held.any() and (~held).sum() >= MIN_POSITIVE]
    if not parts:
        return 1.0
    losses = []
    for alpha in PENALTIES:
        loss = 0.0
        for held in parts:
            fitted, unit = _regression(alpha, Z[~held], value[~held], weight[~held])
            loss += weight[held].sum() * mean_gamma_deviance(
                value[held], np.maximum(fitted.predict(Z[held]) * unit, 1e-12), sample_weight=weight[held]
            )
        losses.append(loss)
    return PENALTIES[int(np.argmin(losses))]


def _interval_by_level(expected: Array, value: Array, weight: Array) -> tuple[tuple[float, ...], ...]:
    order = np.argsort(expected, kind="stable")
    bins = np.array_split(order, max(1, min(10, len(order) // MIN_BIN)))
    rows = []
    for members in bins:
        # The outermost of n + 1 places: what conformal prediction asks for, so that the next one is held.
        n = len(members)
        tail = max((1 - COVERAGE) / 2 * (n + 1) / n - 1 / n, 0.0) if n else 0.0
        rows.append(
            (
                float(np.average(expected[members], weights=weight[members])),
                _quantile(value[members], weight[members], tail),
                _quantile(value[members], weight[members], 1 - tail),
            )
        )
    levels, low, high = (np.array(column) for column in zip(*rows, strict=True))
    return tuple(levels), tuple(np.maximum.accumulate(low)), tuple(np.maximum.accumulate(high))


def _quantile(values: Array, weight: Array, share: float) -> float:
    return float(np.quantile(values, share, weights=weight, method="inverted_cdf"))
