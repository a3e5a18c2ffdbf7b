"""How good a ranking is: measured list by list, as a merchant reads it, and averaged over lists."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import sklearn
from scipy.stats import norm, t
from sklearn.metrics import ndcg_score

__all__ = ["Difference", "bootstrap_difference", "calibration_error", "chance_of_top", "list_metrics", "summarise"]

Array = npt.NDArray[np.float64]


def list_metrics(
    lists: npt.ArrayLike, hit: npt.ArrayLike, value: npt.ArrayLike, score: npt.ArrayLike, *, min_size: int = 10
) -> pd.DataFrame:
    """Measure a score on each list that holds a hit, a miss, and at least `min_size` SKUs.

    Parameters
    ----------
    lists, hit, value, score
        Per row: the list it stands on, whether it became a hit, what it was worth (0 or more), and its score.

    Returns
    -------
    pandas.DataFrame
        One row per list, in order: `average_precision`, `hits_at_k` (share of the k hits found among the first k),
        `ndcg_at_k`, `value_at_k` (value of the first k over that of the best k), `k`, `found`, `size`. Ties in the
        score count as if broken at random.

    Examples
    --------
    >>> m = list_metrics([1] * 4, [1, 0, 0, 1], [9, 1, 1, 5], [4, 3, 2, 1], min_size=4)
    >>> m[["average_precision", "hits_at_k", "k"]].round(2).values.tolist()
    [[0.75, 0.5, 2.0]]
    """
    table = pd.DataFrame(
        {"hit": np.asarray(hit, float), "value": np.asarray(value, float), "score": np.asarray(score, float)}
    )
    # What goes in is checked above; checking it again for each short list would take longer than measuring it.
    with sklearn.config_context(skip_parameter_validation=True, assume_finite=True):
        rows = _measure_lists(table, lists, min_size)
    names = ["average_precision", "hits_at_k", "ndcg_at_k", "value_at_k", "k", "found", "size"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=names)


def _measure_lists(table: pd.DataFrame, lists: npt.ArrayLike, min_size: int) -> dict[Any, dict[str, float]]:
    rows = {}
    for name, group in table.groupby(np.asarray(lists), sort=True):
        hits, k = group["hit"].to_numpy(), int(group["hit"].sum())
        if len(group) < min_size or k == 0 or k == len(group):
            continue
        scores, values = group["score"].to_numpy(), np.maximum(group["value"].to_numpy(), 0.0)
        chance = chance_of_top(scores, k)
        best = np.sort(values)[::-1][:k].sum()
        rows[name] = {
            "average_precision": _average_precision(hits, scores),
            "hits_at_k": float((chance * hits).sum()) / k,
            "ndcg_at_k": ndcg_score(hits[None, :], scores[None, :], k=k),
            "value_at_k": float((chance * values).sum() / best) if best > 0 else np.nan,
            "k": k,
            "found": float((chance * hits).sum()),
            "size": len(group),
        }
    return rows


def summarise(per_list: pd.DataFrame) -> dict[str, float]:
    """Average over lists; empty where there is no list."""
    if per_list.empty:
        return {}
    means = per_list[["average_precision", "hits_at_k", "ndcg_at_k", "value_at_k"]].mean()
    return {**{str(k): float(v) for k, v in means.items()}, "lists": float(len(per_list))}


def calibration_error(
    probability: npt.ArrayLike, hit: npt.ArrayLike, weight: npt.ArrayLike, *, bins: int = 10
) -> float:
    """Return the expected calibration error over bins of equal weight, in [0, 1].

    Guo et al., "On calibration of modern neural networks" (2017), with bins by quantile, since hits are rare.

    Examples
    --------
    >>> calibration_error([0.5, 0.5], [1, 0], [1, 1])
    0.0
    """
    p, y, w = (np.asarray(a, dtype=float) for a in (probability, hit, weight))
    if w.sum() == 0:
        return float("nan")
    # Equal probabilities belong to one bin, or the order of the rows would decide.
    _, block = np.unique(p, return_inverse=True)
    weight, gap = np.bincount(block, w), np.bincount(block, (p - y) * w)
    place = np.minimum((bins * (np.cumsum(weight) - weight / 2) / w.sum()).astype(int), bins - 1)
    return float(np.abs(np.bincount(place, gap)).sum() / w.sum())


@dataclass(frozen=True)
class Difference:
    """A mean difference with its 90 % bootstrap interval and the share of draws in which it was positive."""

    mean: float
    low: float
    high: float
    positive: float


def bootstrap_difference(
    a: pd.Series, b: pd.Series, unit: pd.Series, *, seed: int, draws: int = 2000, widened: bool = False
) -> Difference:
    """Bootstrap the mean of `a - b` over lists, resampling whole units.

    Parameters
    ----------
    a, b
        One figure per list, on the same index.
    unit
        The unit of each list, such as its batch: lists of one batch are not independent.
    widened
        Draws of few units lie too near each other: two units that agree by chance, as every other pair does, leave no
        draw on the other side. So they are spread as Student's t is wider than the normal, and by the narrowness of a
        sample (Hesterberg, "What Teachers Should Know About the Bootstrap", 2015). One unit tells nothing: the interval
        is infinite, and the chance one half.

    >>> a, b, unit = pd.Series([0.5, 0.6]), pd.Series([0.52, 0.61]), pd.Series([0, 1])
    >>> bootstrap_difference(a, b, unit, seed=0).high < 0
    True
    >>> bootstrap_difference(a, b, unit, seed=0, widened=True).high < 0
    False
    """
    gap = a - b
    difference = gap.to_numpy(dtype=float)
    codes, names = pd.factorize(unit.reindex(gap.index), sort=True)
    totals = np.bincount(codes, weights=difference, minlength=len(names))
    sizes = np.bincount(codes, minlength=len(names)).astype(float)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, len(names), size=(draws, len(names)))
    means = totals[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    if widened and len(names) < 2:
        return Difference(float(difference.mean()), -np.inf, np.inf, 0.5)
    if widened:
        n = len(names)
        wider = np.sqrt(n / (n - 1)) * t.ppf(0.95, n - 1) / norm.ppf(0.95)
        means = difference.mean() + wider * (means - difference.mean())
    low, high = np.quantile(means, [0.05, 0.95])
    return Difference(float(difference.mean()), float(low), float(high), float((means > 0).mean()))


def _average_precision(hits: Array, scores: Array) -> float:
    """Return the average precision expected if ties were broken at random; scikit-learn's counts a tie as one step.

    A count of orders ties all the time and a model never does: without this, rules would look worse than they are.
    """
    _, tie = np.unique(-scores, return_inverse=True)
    size, hits_in = np.bincount(tie), np.bincount(tie, hits)
    above, found = np.cumsum(size) - size, np.cumsum(hits_in) - hits_in
    group = np.sort(tie)
    place = np.arange(len(hits))
    earlier = (place - above[group]) * (hits_in[group] - 1) / np.maximum(size[group] - 1, 1)
    # The chance that this place holds a hit, times the hits expected up to it if it does.
    precision = hits_in[group] / size[group] * (found[group] + 1 + earlier) / (place + 1)
    return float(precision.sum() / hits.sum())


def chance_of_top(scores: Array, k: int) -> Array:
    """Return the chance of each row to stand among the first k, ties broken at random."""
    edge = np.sort(scores)[::-1][k - 1]
    above, tied = scores > edge, scores == edge
    return np.where(above, 1.0, np.where(tied, (k - above.sum()) / tied.sum(), 0.0))
