"""The prior: a heavily regularised linear model of how well a SKU stands in its batch, read from its shrunk rates.

It learns from the whole outcome, not only from the few hits: where a SKU ended among its batch says far more than
whether it ended in the top twentieth.
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

# Ridge penalties tried, per unit of sample weight. The largest keeps little more than the features' common direction.
PENALTIES = (0.1, 0.3, 1.0, 3.0)
# Standardised features beyond this are cut: one odd SKU must not steer a linear model.
CLIP = 4.0


@dataclass(frozen=True)
class LinearPrior:
    """`score(X)`: expected normal score of a SKU's standing in its batch; missing features count as average."""

    mean: Array
    scale: Array
    coefficients: Array
    intercept: float

    def standardised(self, X: Array) -> Array:
        """Return features as clipped deviations from the training mean, NaN as 0; same shape as `X`."""
        return np.clip(np.nan_to_num((X - self.mean) / self.scale, nan=0.0), -CLIP, CLIP)

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


def fit_prior(X: Array, standing: Array, weight: Array, folds: npt.NDArray[np.int64]) -> tuple[LinearPrior, Array]:
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

    Returns
    -------
    (LinearPrior, array)
        The prior fitted on all rows, and for each row the score by a prior that did not see its fold.
    """
    target = norm.ppf(np.clip(standing, 1e-3, 1 - 1e-3))
    names = np.unique(folds)
    if len(names) < 2:
        only = _ridge(X, target, weight, PENALTIES[-1])
        return only, only.score(X)
    scores = {penalty: np.zeros(len(X)) for penalty in PENALTIES}
    for fold in names:
        held = folds == fold
        for penalty in PENALTIES:
            scores[penalty][held] = _ridge(X[~held], target[~held], weight[~held], penalty).score(X[held])
    errors = {p: float((weight * (target - s) ** 2).sum()) for p, s in scores.items()}
    best = min(PENALTIES, key=lambda p: errors[p])
    return _ridge(X, target, weight, best), scores[best]


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


def _ridge(X: Array, target: Array, weight: Array, penalty: float) -> LinearPrior:
    total = weight.sum()
    known = ~np.isnan(X)
    filled = np.where(known, X, 0.0)
    mass = np.maximum((weight[:, None] * known).sum(axis=0), 1e-12)
    mean = (weight[:, None] * filled).sum(axis=0) / mass
    variance = (weight[:, None] * known * (filled - mean) ** 2).sum(axis=0) / mass
    scale = np.where(variance > 1e-12, np.sqrt(np.maximum(variance, 1e-12)), np.inf)
    blank = LinearPrior(mean, scale, np.zeros(X.shape[1]), 0.0)
    Z = blank.standardised(X)
    centre = (weight[:, None] * Z).sum(axis=0) / total
    level = float((weight * target).sum() / total)
    weighted = (Z - centre) * weight[:, None]
    gram = weighted.T @ (Z - centre) + penalty * total * np.eye(X.shape[1])
    coefficients = np.linalg.solve(gram, weighted.T @ (target - level))
    return LinearPrior(mean, scale, coefficients, level - float(centre @ coefficients))
