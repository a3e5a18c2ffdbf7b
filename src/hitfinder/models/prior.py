"""The prior: a linear model of how well a SKU stands in its batch, shrunk towards simple scores.

It learns from the whole outcome, not only from the few hits: where a SKU ended among its batch says far more than
whether it ended in the top twentieth. And it is pulled not towards zero but towards what needs no learning. One is a
weighted sum of the logs of its shrunk rates, with weights that are given: with little to learn from, such weights
forecast better than fitted ones (Dawes, "The robust beauty of improper linear models in decision making", 1979), and a
season later still hold. The other is the product of the funnel's steps, clicks per impression x orders per click x
revenue per order, each shrunk by itself: a step that is hardly known yet stands near its pool and decides little, one
that is known counts in full. What other columns say counts for the part that is not known yet and fades with evidence,
unless the folds show that it lasts. What moves a whole list at once, a season or a sale, teaches nothing about who
stands above whom: it learns from how SKUs differ within their list.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls
from scipy.special import logit
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression

from hitfinder.models.linear import LinearPrior, fade

__all__ = ["fit_platt", "fit_prior"]

Array = npt.NDArray[np.float64]

# Ridge penalties tried, per unit of sample weight, on the departure from the simple scores.
PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0)
# A list of n rows is known by its mean for n / (n + PULL): a SKU alone on its list is still learned from.
PULL = 5.0
# A departure from what was learned within lists counts this much more there than it helps between lists; and the ridge
# penalty on it, per unit of sample weight.
GUARD = 30.0
SHIFT_PENALTY = 0.1


def fit_prior(
    X: Array,
    standing: Array,
    weight: Array,
    folds: npt.NDArray[np.int64],
    anchor: npt.ArrayLike,
    lists: npt.NDArray[np.int64] | None = None,
    funnel: Sequence[int] = (),
    unknown: Sequence[int] = (),
    floor: float = 0.0,
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
        For each column its weight in the sum that is one score that the model departs from: what is simply better where
        nothing has been learned yet.
    lists
        The list that each row stands on: coefficients and penalty are learned from the differences within lists.
        None: all rows are compared with each other.
    funnel
        Columns whose plain sum is another: logs of the steps from the exposure to what is wanted. With neither (an
        anchor of zeros and no funnel) it is a plain ridge.
    unknown
        The columns that hold the share of each of its steps that is not known yet, in [0, 1]: all but the funnel counts
        for the root of the mean share, and lasts as well where the folds show that it does. None: nothing fades.
    floor
        Up to this standing all count alike, in [0, 1): what tells them apart is not learned.

    Returns
    -------
    (LinearPrior, array)
        The prior fitted on all rows, and for each row the score by a prior that did not see its fold. The penalty is
        the largest one whose error over the folds is within one standard error of the least; columns beside the funnel
        last only where none without that is.
    """
    target = norm.ppf(np.clip(standing, max(floor, 1e-3), 1 - 1e-3))
    mean, scale = _location_and_scale(X, weight)
    scale[list(unknown)] = np.inf  # they weigh the others, and say nothing by themselves
    Z = LinearPrior(mean, scale, np.zeros(X.shape[1]), 0.0).standardised(X)
    steps, Z = _with_funnel(Z, scale, funnel, weight, fade(X, unknown))
    simple = _simple_scores(np.asarray(anchor, dtype=float) * _finite(scale), len(funnel) > 0)
    # Columns that last must show that they do.
    plain = np.arange(X.shape[1])
    every = np.arange(Z.shape[1])
    forms = [every] if steps is None else [np.append(plain, every[-1]), every]
    lasts = plain if steps is None else plain + len(plain)

    names = np.unique(folds)
    inner, aim = Z, target
    if lists is not None:
        # A list that two folds share is two lists: no mean has seen a held fold.
        both = np.column_stack([Z, target])
        less = _less_list_means(both, weight, np.unique([lists, folds], axis=1, return_inverse=True)[1])
        inner, aim = less[:, :-1], less[:, -1]
    # Sums over rows add up over folds: "all but one" is the whole less that one, whatever the penalty.
    raw = _Sums({name: _moments(Z[folds == name], target[folds == name], weight[folds == name]) for name in names})
    own = _Sums({name: _moments(inner[folds == name], aim[folds == name], weight[folds == name]) for name in names})

    def finished(coefficients: Array, left_out: Any = None) -> LinearPrior:
        """Set the level, and the levels of whole lists, by the rows as they are."""
        sums = raw.but(left_out)
        if lists is not None:
            # By what lasts alone: else a shift of whole lists would tell apart SKUs that were shown more or less.
            coefficients = _shift_lists(coefficients, sums, own.but(left_out), lasts)
        level = float((sums[2] - sums[1] @ coefficients) / sums[0])
        if steps is None:
            return LinearPrior(mean, scale, coefficients, level)
        faded, lasting = coefficients[:-1].reshape(2, -1)
        return LinearPrior(mean, scale, faded, level, lasting + coefficients[-1] * steps, tuple(unknown))

    if len(names) < 2:
        only = finished(_solve(own.but(None), PENALTIES[-1], simple, forms[0])[0])
        return only, only.score(X)
    # The simplest first: few columns, a large penalty.
    candidates = [(form, penalty) for form in range(len(forms)) for penalty in sorted(PENALTIES, reverse=True)]
    fitted: dict[tuple[Any, Any], Array] = {}
    errors = {candidate: np.zeros(len(names)) for candidate in candidates}
    for place, name in enumerate(names):
        held = folds == name
        for form, penalty in candidates:
            coefficients, intercept = _solve(own.but(name), penalty, simple, forms[form])
            missed = (aim[held] - inner[held] @ coefficients - intercept) ** 2
            errors[form, penalty][place] = weight[held] @ missed / max(float(weight[held].sum()), 1e-12)
            fitted[(form, penalty), name] = coefficients
    least = min(candidates, key=lambda c: float(errors[c].mean()))
    # The spread of the difference, not of the error: folds differ in how hard they are for every candidate.
    chosen = next(
        c
        for c in candidates
        if float((errors[c] - errors[least]).mean())
        <= float((errors[c] - errors[least]).std(ddof=1)) / np.sqrt(len(names))
    )
    scores = np.zeros(len(X))
    for name in names:
        held = folds == name
        scores[held] = finished(fitted[chosen, name], name).score(X[held])
    form, penalty = chosen
    return finished(_solve(own.but(None), penalty, simple, forms[form])[0]), scores


class _Sums:
    """Sums of each fold, and of all folds but one."""

    def __init__(self, parts: dict[Any, tuple[Any, ...]]) -> None:
        self.parts = parts
        self.whole = tuple(np.sum(values, axis=0) for values in zip(*parts.values(), strict=True))

    def but(self, left_out: Any) -> tuple[Any, ...]:
        """Return the sums without a fold; None for all of them."""
        if left_out is None:
            return self.whole
        return tuple(total - part for total, part in zip(self.whole, self.parts[left_out], strict=True))


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


def _less_list_means(values: Array, weight: Array, lists: npt.NDArray[np.int64]) -> Array:
    """Take from each row its list's weighted mean, as far as the list is long enough to know it; shape of `values`."""
    _, place, size = np.unique(lists, return_inverse=True, return_counts=True)
    total = np.zeros((len(size), values.shape[1]))
    np.add.at(total, place, values * weight[:, None])
    mass = np.maximum(np.bincount(place, weights=weight), 1e-12)
    known = size / (size + PULL)
    less: Array = values - (total * (known / mass)[:, None])[place]
    return less


def _moments(Z: Array, target: Array, weight: Array) -> tuple[Any, ...]:
    weighted = Z * weight[:, None]
    return weight.sum(), weighted.sum(axis=0), weight @ target, weighted.T @ Z, weighted.T @ target


def _shift_lists(
    coefficients: Array, raw: tuple[Any, ...], inner: tuple[Any, ...], columns: npt.NDArray[np.int64]
) -> Array:
    """Let whole lists rise and fall as their outcomes did; who stands above whom within a list hardly changes.

    `raw` are the sums over the rows as they are, `inner` those less the list means; `columns` may change. Where all
    SKUs of a list share a feature, or two features differ by a constant, differences within lists can't tell what it is
    worth; probabilities have to hold for every list.
    """
    total, sum_z, sum_t, gram, cross = raw
    centre = sum_z / total
    gram = gram - total * np.outer(centre, centre)
    cross = cross - centre * sum_t
    left = (cross - gram @ coefficients)[columns]
    own = np.ix_(columns, columns)
    held = GUARD * inner[3][own] + SHIFT_PENALTY * total * np.eye(len(columns))
    shifted = coefficients.copy()
    shifted[columns] += np.linalg.solve(gram[own] + held, left)
    return shifted


def _with_funnel(
    Z: Array, scale: Array, funnel: Sequence[int], weight: Array, fade: Array
) -> tuple[Array | None, Array]:
    """Return the funnel's coefficients on standardised columns; and the columns faded, as they are, and the funnel.

    The funnel is the plain sum of its columns as they came, in units of its own spread; None where there is none.
    """
    if len(funnel) == 0:
        return None, Z
    steps = np.zeros(Z.shape[1])
    steps[list(funnel)] = _finite(scale)[list(funnel)]
    product = Z @ steps
    spread = np.sqrt(np.average(product**2, weights=weight))
    # Steps that cancel each other tell nobody apart.
    steps = steps / spread if spread > 1e-6 else 0 * steps
    return steps, np.column_stack([Z * fade, Z, Z @ steps])


def _finite(scale: Array) -> Array:
    """Return the spread of each column, 0 for one that is constant or says nothing by itself."""
    return np.where(np.isfinite(scale), scale, 0.0)


def _simple_scores(anchor: Array, with_funnel: bool) -> Array:
    """Return the coefficients of the scores to depart from, one row each; `anchor` those of standardised columns."""
    alike = anchor[None, :]
    if not with_funnel:
        return alike
    columns = len(anchor)
    none, one = np.zeros((1, columns)), np.ones((1, 1))
    # The anchor as far as the funnel is not known, the same throughout, and the funnel.
    return np.block([[alike, none, 0 * one], [none, alike, 0 * one], [none, none, one]])


def _solve(
    moments: tuple[Any, ...], penalty: float, simple: Array, columns: npt.NDArray[np.int64]
) -> tuple[Array, float]:
    """Solve the ridge on some columns that departs from the simple scores of these alone; the others have 0.

    `moments` are the sums of weight, Z, target, Z'Z and Z'target.
    """
    total, sum_z, sum_t, gram, cross = moments
    centre, level = sum_z / total, float(sum_t / total)
    gram = (gram - total * np.outer(centre, centre))[np.ix_(columns, columns)]
    cross = (cross - total * centre * level)[columns]
    start = _as_large_as_asked_for(simple[:, columns], gram, cross)
    coefficients = np.zeros(len(centre))
    coefficients[columns] = start + np.linalg.solve(gram + penalty * total * np.eye(len(columns)), cross - gram @ start)
    return coefficients, level - float(centre @ coefficients)


def _as_large_as_asked_for(simple: Array, gram: Array, cross: Array) -> Array:
    """Return the sum of the simple scores' coefficients, each times what fits the target best, never negative."""
    between = simple @ gram @ simple.T
    size = np.sqrt(np.diag(between))
    there = size > 0
    if not there.any():
        return np.zeros(len(cross))
    # Least squares from sums alone: with root'root = between, |root a - goal| is least where the error is. The little
    # that is added shares out evenly between scores that say the same.
    unit = simple[there] / size[there, None]
    root = np.linalg.cholesky(unit @ gram @ unit.T + 1e-6 * np.eye(int(there.sum())))
    shares, _ = nnls(root.T, np.linalg.solve(root, unit @ cross))
    start: Array = shares @ unit
    return start
