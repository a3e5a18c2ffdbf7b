"""Calibration: margins into probabilities with an interval, by Venn-Abers predictors.

Vovk, Petej and Fedorova, "Large-scale probabilistic predictors with and without guarantees of validity" (2015): the
isotonic fit is made twice for each new object, once as if it were a hit and once as if not; the two answers bound the
probability, far apart where there is little evidence.

Where some SKUs stand for others (see `selection`), the fits are weighted. The weights then add up to their effective
sample size, so that a new object weighs as much against them as against so many SKUs of equal weight: a weight of
twenty is not the evidence of twenty SKUs.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression
from venn_abers import VennAbers

__all__ = ["Calibration", "fit_calibration"]

Array = npt.NDArray[np.float64]

GRID_POINTS = 256
# So many moments of a SKU are calibrated on, spread over all that there are: neighbours say the same again.
MAX_SETS = 3
# Weights that differ by more than this matter. A row's weight is its SKU's over the number of the SKU's rows, and that
# differs by one or two between SKUs that count alike.
MATERIAL = 2.0


@dataclass(frozen=True)
class Calibration:
    """Two non-decreasing curves over the margin: the probability if the SKU were no hit (`low`), and if it were."""

    margins: Array
    low: Array
    high: Array

    def interval(self, margin: Array) -> tuple[Array, Array, Array]:
        """Return probability, low and high for each margin, all in [0, 1]."""
        low = np.interp(margin, self.margins, self.low)
        high = np.interp(margin, self.margins, self.high)
        return high / (1 - low + high), low, high

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {"margins": self.margins.tolist(), "low": self.low.tolist(), "high": self.high.tolist()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Calibration:
        """Undo `to_dict`."""
        return cls(*(np.asarray(values[name], dtype=float) for name in ("margins", "low", "high")))


def fit_calibration(margin: Array, y: Array, copy: npt.NDArray[np.int64], weight: Array | None = None) -> Calibration:
    """Calibrate on out-of-fold margins.

    Parameters
    ----------
    margin
        Out-of-fold margins, shape (rows,).
    y
        1 for a hit, 0 for none.
    copy
        Which of its moments a row is of its SKU (0, 1, ...); rows below 0 are not calibrated on. A SKU counts once in
        each set: its moments are no independent evidence, so each set is calibrated alone and the curves are averaged.
    weight
        What each row counts for, relative to the others of its set; None for all alike. Weights of a set that differ by
        less than a factor of MATERIAL are taken for alike.
    """
    used = copy >= 0
    weight = np.ones(int(used.sum())) if weight is None else weight[used]
    margin, y, copy = margin[used], y[used], copy[used]
    grid = np.unique(np.quantile(margin, np.linspace(0, 1, GRID_POINTS)))
    sets = [(margin[copy == c], y[copy == c], weight[copy == c]) for c in np.unique(copy)]
    # Sets of a few late comers would add only noise; the largest is always used.
    most = max(len(labels) for _, labels, _ in sets)
    whole = [one for one in sets if len(one[1]) >= most / 2]
    spread = np.unique(np.linspace(0, len(whole) - 1, MAX_SETS).round().astype(int))
    curves = [_calibrated(whole[place][0], whole[place][1], whole[place][2], grid) for place in spread]
    low = np.maximum.accumulate(np.mean([c[0] for c in curves], axis=0))
    high = np.maximum.accumulate(np.mean([c[1] for c in curves], axis=0))
    return Calibration(grid, np.minimum(low, high), high)


def _calibrated(margin: Array, y: Array, weight: Array, grid: Array) -> tuple[Array, Array]:
    heavy = weight > 0
    if not heavy.any() or weight.max() <= MATERIAL * weight[heavy].min() * (1 + 1e-9):
        return _venn_abers(margin, y, grid)
    return _weighted_venn_abers(margin[heavy], y[heavy], weight[heavy], grid)


def _weighted_venn_abers(margin: Array, y: Array, weight: Array, grid: Array) -> tuple[Array, Array]:
    """Make both fits at each point of the grid; the point weighs as one SKU of the effective sample size."""
    size = weight * weight.sum() / (weight**2).sum()
    at, place = np.unique(margin, return_inverse=True)
    mass = np.bincount(place, weights=size)
    share = np.bincount(place, weights=size * y) / mass
    bounds = np.empty((2, len(grid)))
    for number, point in enumerate(grid):
        here = int(np.searchsorted(at, point))
        held = here < len(at) and at[here] == point
        for guess in (0, 1):
            if held:
                values, weights = share.copy(), mass.copy()
                weights[here] += 1
                values[here] = (share[here] * mass[here] + guess) / weights[here]
            else:
                values, weights = np.insert(share, here, guess), np.insert(mass, here, 1.0)
            bounds[guess, number] = isotonic_regression(values, weights=weights).x[here]
    return bounds[0], bounds[1]


def _venn_abers(margin: Array, y: Array, grid: Array) -> tuple[Array, Array]:
    # The package wants scores in [0, 1]; only their order matters.
    span = np.ptp(np.concatenate([margin, grid])) or 1.0
    start = min(margin.min(), grid.min())
    scores, points = (margin - start) / span, (grid - start) / span
    predictor = VennAbers()
    with warnings.catch_warnings():
        # With hits only, or none, the package warns on its way to the right answer.
        warnings.simplefilter("ignore", RuntimeWarning)
        predictor.fit(np.column_stack([1 - scores, scores]), y.astype(int), precision=None)
    _, bounds = predictor.predict_proba(np.column_stack([1 - points, points]))
    return bounds[:, 0], bounds[:, 1]
