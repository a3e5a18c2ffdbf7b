"""Off-policy estimates: what another policy would have brought, from decisions that were logged with their chances.

A policy says which SKUs of a batch are kept on (scaled, or tested further) and which are stopped. Its value for a batch
is the sum of the outcomes of those kept on, less what keeping them costs; a stopped SKU brings nothing after the
decision. So a batch's value is sum_i target_i * (outcome_i - cost_i), where `target_i` is the chance with which the
policy keeps SKU i, and all that has to be guessed are the outcomes of SKUs that were stopped and would be kept.

Chance is that of the coin alone: SKUs, outcomes and what people chose are taken as they were. Estimators:

- inverse propensity (D. G. Horvitz, D. J. Thompson, JASA 47, 1952): each outcome seen counts 1 / (chance of its having
  been seen). Without bias as long as no weight is cut.
- self-normalised (A. Swaminathan, T. Joachims, The self-normalized estimator for counterfactual learning, NeurIPS
  2015): divided by the weights that came, times those that were due. A little bias, less variance.
- doubly robust (M. Dudík, J. Langford, L. Li, ICML 2011; with D. Erhan, Statistical Science 29, 2014): a model's guess
  for every SKU, put right by the weighted errors of those seen. Without bias however bad the guess; the better it is,
  the narrower.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from hitfinder.errors import DataError

__all__ = ["ESTIMATORS", "OffPolicy", "effective_size", "estimate", "total_range"]

Array = npt.NDArray[np.float64]

ESTIMATORS = ("inverse_propensity", "self_normalised", "doubly_robust")
# Chances this small are those of rounding, not of a coin.
NEVER = 1e-12


@dataclass(frozen=True)
class OffPolicy:
    """What a policy would have brought, per batch.

    Attributes
    ----------
    table
        One row per estimator: `estimator, value, low, high, gain, gain_low, gain_high`. `gain` is over what the logged
        decisions brought. Intervals are by bootstrap over batches, NaN with fewer than two. Where bounds stand in for
        SKUs that are not covered, `value` and `gain` are NaN and the intervals hold all that the bounds allow.
    logged
        What the logged decisions brought per batch.
    batches, skus
        How many there were.
    effective
        Kish's effective sample size of the weighted outcomes, (sum of weights)^2 / sum of squares; see A. B. Owen,
        Monte Carlo theory, methods and examples (2013), chapter 9.3.
    seen
        How many outcomes that stands beside: those seen of SKUs that the policy keeps.
    clipped
        How many weights were cut to `max_weight`.
    uncovered
        The share of the SKUs that the policy keeps which could not have been seen: they were stopped for certain.
    """

    table: pd.DataFrame
    logged: float
    batches: int
    skus: int
    effective: float
    seen: int
    clipped: int
    uncovered: float


def estimate(
    logged: pd.DataFrame,
    target: npt.ArrayLike,
    *,
    predicted: npt.ArrayLike | None = None,
    max_weight: float | None = None,
    bounds: tuple[float, float] | None = None,
    level: float = 0.9,
    draws: int = 2000,
    seed: int = 0,
) -> OffPolicy:
    """Estimate what a policy would have brought, from decisions that another one took.

    Parameters
    ----------
    logged
        One row per SKU: `batch_id`, `kept` (False: stopped), `propensity` (the chance of what was done, in (0, 1];
        missing where it was chosen and not drawn, which counts as 1), `outcome` (read only where `kept`; a value, or 1
        for a hit), and, where keeping a SKU has a price known beforehand, `cost`.
    target
        For each row the chance with which the policy keeps the SKU, 0 to 1.
    predicted
        For each row what some model expects as its outcome if kept; for the doubly robust estimator, which is left out
        without. It must not have been fitted on these outcomes.
    max_weight
        The most that one outcome may count for: less variance, some bias. None cuts nothing.
    bounds
        The least and the most that a SKU which could not have been seen may bring; None refuses where there is one.
    level
        Of the intervals.
    draws, seed
        Of the bootstrap.

    Returns
    -------
    OffPolicy

    Raises
    ------
    DataError
        A column is missing, a chance is impossible, an outcome of a kept SKU is not known, or the policy keeps SKUs
        that were stopped for certain and no bounds are given for them.

    Examples
    --------
    Two SKUs were stopped but for a coin that kept one in two; the one that was kept stands for both.

    >>> logged = pd.DataFrame({"batch_id": ["a", "a", "a"], "kept": [True, True, False], "propensity": [1, 0.5, 0.5],
    ...                        "outcome": [10.0, 3.0, None]})
    >>> estimate(logged, [1, 1, 1]).table[["estimator", "value"]].to_dict("list")
    {'estimator': ['inverse_propensity', 'self_normalised'], 'value': [16.0, 16.0]}
    """
    wanted = _chances(target, "target", len(logged), above=-1.0)
    kept, chance, outcome, cost = _read(logged)
    q = None if predicted is None else _numbers(predicted, "predicted", len(logged))
    if max_weight is not None and not max_weight >= 1:
        raise DataError(f"max_weight: expected 1 or more, got {max_weight!r}")
    if not 0 < level < 1:
        raise DataError(f"level: expected a share above 0 and below 1, got {level!r}")
    keepable = chance > NEVER
    hidden = wanted * ~keepable
    uncovered = float(hidden.sum() / wanted.sum()) if wanted.sum() else 0.0
    if uncovered and bounds is None:
        raise DataError(
            f"target: {uncovered:.0%} of the SKUs that it keeps ({int((hidden > 0).sum())}) were stopped for certain, "
            "so nothing tells what they would have brought; log decisions with policy.explore_share above 0, or give "
            "bounds for them"
        )
    if bounds is not None and not bounds[0] <= bounds[1]:
        raise DataError(f"bounds: expected the least and the most that a SKU may bring, got {bounds!r}")
    due = wanted * keepable
    raw = np.divide(1.0, chance, out=np.zeros(len(chance)), where=keepable & kept)
    cut = raw if max_weight is None else np.minimum(raw, max_weight)
    weight = due * cut
    batch, names = pd.factorize(logged["batch_id"].to_numpy(), use_na_sentinel=False)

    def per_batch(values: Array) -> Array:
        return np.asarray(np.bincount(batch, weights=values, minlength=len(names)), dtype=float)

    price = per_batch(wanted * cost)
    got = per_batch(kept * (outcome - cost))
    parts: dict[str, tuple[Array, ...]] = {
        "inverse_propensity": (per_batch(weight * outcome) - price,),
        "self_normalised": (per_batch(weight * outcome), per_batch(weight), per_batch(due), price),
    }
    if q is not None:
        parts["doubly_robust"] = (per_batch(due * q + weight * (outcome - q)) - price,)
    spread = (0.0, 0.0) if bounds is None else tuple(b * hidden.sum() / max(len(names), 1) for b in bounds)
    rows = []
    for name, sums in parts.items():
        value, low, high = _interval(_mean_of(name), sums, level, draws, seed)
        gain, gain_low, gain_high = _interval(_gain_of(name), (*sums, got), level, draws, seed)
        known = 1.0 if uncovered == 0 else float("nan")
        rows.append({
            "estimator": name, "value": value * known, "low": low + spread[0], "high": high + spread[1],
            "gain": gain * known, "gain_low": gain_low + spread[0], "gain_high": gain_high + spread[1],
        })  # fmt: skip
    return OffPolicy(
        table=pd.DataFrame(rows),
        logged=float(got.mean()) if len(names) else 0.0,
        batches=len(names),
        skus=len(logged),
        effective=effective_size(weight),
        seen=int((weight > 0).sum()),
        clipped=int(((cut < raw) & (due > 0)).sum()),
        uncovered=uncovered,
    )


def effective_size(weight: npt.ArrayLike) -> float:
    """Return Kish's effective sample size: of how many equal weights the mean is as sure as of these.

    Examples
    --------
    >>> effective_size([1, 1, 1, 1]), effective_size([1, 1, 20])
    (4.0, 1.2039800995024876)
    """
    w = np.asarray(weight, dtype=float)
    squares = float((w**2).sum())
    return float(w.sum() ** 2 / squares) if squares else 0.0


def total_range(found: int, drawn: int, population: int, *, level: float = 0.9) -> tuple[int, int]:
    """Return how many hits a population may hold, after some of it were drawn at random: an exact interval.

    By inversion of the hypergeometric test, so it holds for few and for none; a bootstrap of no hits says "none" with
    certainty. Given how many were drawn, SKUs kept on by equal coins are a simple random sample.

    Parameters
    ----------
    found, drawn, population
        Hits among the drawn; how many were drawn; how many there were, the drawn included.
    level
        The chance with which the interval holds the truth, at least.

    Raises
    ------
    DataError
        Not 0 <= found <= drawn <= population.

    Examples
    --------
    >>> total_range(0, 10, 200), total_range(2, 10, 200), total_range(3, 20, 20)
    ((0, 50), (8, 100), (3, 3))
    """
    if not 0 <= found <= drawn <= population:
        raise DataError(f"expected 0 <= found <= drawn <= population, got {found}, {drawn}, {population}")
    totals = np.arange(found, population - (drawn - found) + 1)
    tail = (1 - level) / 2
    at_least = stats.hypergeom.sf(found - 1, population, totals, drawn)
    at_most = stats.hypergeom.cdf(found, population, totals, drawn)
    fits = totals[(at_least > tail) & (at_most > tail)]
    return int(fits.min()), int(fits.max())


def _mean_of(name: str) -> Any:
    """Return the statistic of one estimator: batches' sums in, the mean per batch out, along the last axis."""
    if name != "self_normalised":
        return lambda total, axis=-1: total.mean(axis=axis)

    def normalised(seen: Array, weight: Array, due: Array, price: Array, axis: int = -1) -> Array:
        came = weight.sum(axis=axis)
        # Nothing seen of what the policy keeps: all that is known is its price.
        mean = np.divide(seen.sum(axis=axis), came, out=np.zeros_like(came), where=came > 0)
        return np.asarray(mean * due.mean(axis=axis) - price.mean(axis=axis))

    return normalised


def _gain_of(name: str) -> Any:
    mean = _mean_of(name)

    def gain(*sums: Array, axis: int = -1) -> Array:
        return np.asarray(mean(*sums[:-1], axis=axis) - sums[-1].mean(axis=axis))

    return gain


def _interval(statistic: Any, sums: tuple[Array, ...], level: float, draws: int, seed: int) -> tuple[float, ...]:
    """Return the estimate and its bootstrap interval, batches drawn whole."""
    if not len(sums[0]):
        return 0.0, float("nan"), float("nan")
    value = float(statistic(*sums))
    if len(sums[0]) < 2:
        return value, float("nan"), float("nan")
    if all(np.ptp(part) == 0 for part in sums):  # SciPy warns of what needs no draw
        return value, value, value
    found = stats.bootstrap(
        sums,
        statistic,
        n_resamples=draws,
        paired=True,
        vectorized=True,
        confidence_level=_expanded(level, len(sums[0])),
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return value, float(found.confidence_interval.low), float(found.confidence_interval.high)


def _expanded(level: float, n: int) -> float:
    """Return the level at which the bootstrap's percentiles of few units hold what they should.

    They are as narrow as a normal interval with variance over n; this makes them as wide as Student's over n - 1. See
    T. C. Hesterberg, What Teachers Should Know About the Bootstrap, The American Statistician 69, 2015, section 5.3.

    >>> round(_expanded(0.9, 8), 3), round(_expanded(0.9, 1000), 3)
    (0.957, 0.9)
    """
    wide = np.sqrt(n / (n - 1)) * stats.t.ppf((1 + level) / 2, n - 1)
    return float(2 * stats.norm.cdf(wide) - 1)


def _read(logged: pd.DataFrame) -> tuple[npt.NDArray[np.bool_], Array, Array, Array]:
    """Return who was kept, with which chance each SKU was kept, the outcomes (0 where stopped) and the costs."""
    missing = [name for name in ("batch_id", "kept", "propensity", "outcome") if name not in logged.columns]
    if missing:
        raise DataError(
            f"logged: expected the columns batch_id, kept, propensity, outcome; {', '.join(missing)} missing"
        )
    if logged["kept"].isna().any() or not logged["kept"].isin([True, False]).all():
        raise DataError("logged: expected True or False in kept, got something else; it says who was not stopped")
    n = len(logged)
    kept = logged["kept"].to_numpy(dtype=bool)
    chance = _chances(logged["propensity"].astype(float).fillna(1.0), "propensity", n, above=0.0)
    outcome = pd.to_numeric(logged["outcome"]).to_numpy(dtype=float, na_value=np.nan)
    if unknown := int((~np.isfinite(outcome[kept])).sum()):
        raise DataError(
            f"logged: expected the outcome of every kept SKU, {unknown} are not known; leave these SKUs out"
        )
    cost = _numbers(logged["cost"], "cost", n) if "cost" in logged.columns else np.zeros(n)
    return kept, np.where(kept, chance, 1 - chance), np.where(kept, outcome, 0.0), cost


def _chances(values: npt.ArrayLike, name: str, n: int, *, above: float) -> Array:
    chances = _numbers(values, name, n)
    wrong = chances[(chances <= above) | (chances < 0) | (chances > 1)]
    if len(wrong):
        raise DataError(f"{name}: expected chances {'above' if above == 0 else 'from'} 0 to 1, got {wrong[0]}")
    return chances


def _numbers(values: npt.ArrayLike, name: str, n: int) -> Array:
    numbers = np.asarray(values, dtype=float)
    if numbers.shape != (n,):
        raise DataError(f"{name}: expected one number for each of the {n} rows, got the shape {numbers.shape}")
    if not np.isfinite(numbers).all():
        raise DataError(f"{name}: expected finite numbers, {int((~np.isfinite(numbers)).sum())} are not")
    return numbers
