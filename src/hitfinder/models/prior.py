"""The prior: a linear model of how well a SKU stands in its batch, shrunk towards "all rates count alike".

It learns from the whole outcome, not only from the few hits: where a SKU ended among its batch says far more than
whether it ended in the top twentieth. And it is pulled not towards zero but towards the plain mean of its shrunk rates:
with little to learn from, equal weights forecast better than fitted ones (Dawes, "The robust beauty of improper linear
models in decision making", 1979), and a season later still hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import logit
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression

__all__ = ["LinearPrior", "fit_platt", "fit_prior"]

Array = npt.NDArray[np.float64]

# Ridge penalties tried, per unit of sample weight, on the departure from equal weights.
PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0)


@dataclass(frozen=True)
class LinearPrior:
    """`score(X)`: expected normal score of a SKU's standing in its batch; missing features count as average."""

    mean: Array
    scale: Array
    coefficients: Array
    intercept: float

    def standardised(self, X: Array) -> Array:
        """Return features as deviations from the training mean, NaN as 0; same shape as `X`.

        They are not cut: rates come as logs, and in a season of bigger numbers than any before the best must still
        stand above the good.
        """
        return np.nan_to_num((X - self.mean) / self.scale, nan=0.0)

    def score(self, X: Array) -> Array:
        """Return one score per row of `X`, higher is better."""
        # Summed row by row, so that a SKU's score does not depend on which others are scored beside it.
        scores: Array = (self.standardised(X) * self.coefficients).sum(axis=1) + self.intercept
        return scores

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "mean": self.mean.tolist(),
            "scale": self.scale.tolist(),
            "coefficients": self.coefficients.tolist(),
            "intercept": self.intercept,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> LinearPrior:
        """Undo `to_dict`."""
        mean, scale, coefficients = (
            np.asarray(values[name], dtype=float) for name in ("mean", "scale", "coefficients")
        )
        return cls(mean, scale, coefficients, float(values["intercept"]))


def fit_prior(
    X: Array, standing: Array, weight: Array, folds: npt.NDArray[np.int64], anchor: list[int]
) -> tuple[LinearPrior, Array]:
    """Fit the prior and its out-of-fold scores.

    Parameters
    ----------
    X
        Features, shape (rows, columns); NaN where not measured.
    standing
        Share of the batch that ended below the SKU, in (0, 1).
    weight
        Sample weights; the rows of one SKU at several ages share one unit.
    folds
        Fold of each row; the rows of a SKU and its batch stay together.
    anchor
        Columns whose mean the model departs from; none for a plain ridge.

    Returns
    -------
    (LinearPrior, array)
        The prior fitted on all rows, and for each row the score by a prior that did not see its fold. The penalty is
        the largest one whose error over the folds is within one standard error of the least.
    """
    target = norm.ppf(np.clip(standing, 1e-3, 1 - 1e-3))
    mean, scale = _location_and_scale(X, weight)
    Z = LinearPrior(mean, scale, np.zeros(X.shape[1]), 0.0).standardised(X)
    names = np.unique(folds)
    # Sums over rows add up over folds: "all but one" is the whole less that one, whatever the penalty.
    parts = {name: _moments(Z[folds == name], target[folds == name], weight[folds == name]) for name in names}
    whole = [np.sum(values, axis=0) for values in zip(*parts.values(), strict=True)]
    if len(names) < 2:
        coefficients, intercept = _solve(whole, PENALTIES[-1], anchor)
        only = LinearPrior(mean, scale, coefficients, intercept)
        return only, only.score(X)
    scores = {penalty: np.zeros(len(X)) for penalty in PENALTIES}
    for name in names:
        held = folds == name
        rest = [total - part for total, part in zip(whole, parts[name], strict=True)]
        for penalty in PENALTIES:
            coefficients, intercept = _solve(rest, penalty, anchor)
            scores[penalty][held] = Z[held] @ coefficients + intercept
    errors = {
        p: np.asarray([np.average((target - s)[folds == f] ** 2, weights=weight[folds == f]) for f in names])
        for p, s in scores.items()
    }
    least = min(PENALTIES, key=lambda p: float(errors[p].mean()))
    # The spread of the difference, not of the error: folds differ in how hard they are for every penalty.
    chosen = max(
        p
        for p in PENALTIES
        if float((errors[p] - errors[least]).mean())
        <= float((errors[p] - errors[least]).std(ddof=1)) / np.sqrt(len(names))
    )
    coefficients, intercept = _solve(whole, chosen, anchor)
    return LinearPrior(mean, scale, coefficients, intercept), scores[chosen]


def fit_platt(scores: Array, y: Array, weight: Array) -> tuple[float, float]:
    """Fit slope and intercept that turn scores into log odds; the slope is never negative.

    With hits only or none, the slope is 0 and the intercept the log odds of the shrunk base rate.
    """
    base = float((weight * y).sum() + 0.5) / float(weight.sum() + 1.0)
    if y.min() == y.max() or np.ptp(scores) == 0:
        return 0.0, float(logit(base))
    model = LogisticRegression(C=10.0, max_iter=1000).fit(scores[:, None], y, sample_weight=weight)
    slope = float(model.coef_[0, 0])
    return (slope, float(model.intercept_[0])) if slope > 0 else (0.0, float(logit(base)))


def _location_and_scale(X: Array, weight: Array) -> tuple[Array, Array]:
    """Return weighted mean and spread of each column where it is known; a constant column gets an infinite spread."""
    known = ~np.isnan(X)
    filled = np.where(known, X, 0.0)
    mass = np.maximum(weight @ known, 1e-12)
    mean = (weight @ filled) / mass
    variance = (weight @ np.where(known, (filled - mean) ** 2, 0.0)) / mass
    return mean, np.where(variance > 1e-12, np.sqrt(np.maximum(variance, 1e-12)), np.inf)


def _moments(Z: Array, target: Array, weight: Array) -> tuple[Any, ...]:
    weighted = Z * weight[:, None]
    return weight.sum(), weighted.sum(axis=0), weight @ target, weighted.T @ Z, weighted.T @ target


def _solve(moments: list[Any], penalty: float, anchor: list[int]) -> tuple[Array, float]:
    """Solve the ridge that departs from equal weights, from sums of weight, Z, target, Z'Z and Z'target."""
    total, sum_z, sum_t, gram, cross = moments
    centre, level = sum_z / total, float(sum_t / total)
    gram = gram - total * np.outer(centre, centre)
    cross = cross - total * centre * level
    equal = np.zeros(len(centre))
    # Equal coefficients on the anchor columns, together as large as the target asks for, never negative.
    power = float(gram[np.ix_(anchor, anchor)].sum())
    if power > 0:
        equal[anchor] = max(float(cross[anchor].sum()) / power, 0.0)
    coefficients = equal + np.linalg.solve(gram + penalty * total * np.eye(len(centre)), cross - gram @ equal)
    return coefficients, level - float(centre @ coefficients)
