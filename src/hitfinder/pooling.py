"""Pooling: how far each rate is pulled towards its style, category, batch and history, fitted from history.

The strength of a level is a number of pseudo-exposures. It is the one with which what had been seen of a SKU early in
its test best predicts what came later: no distribution has to be believed, and crowded days make the strengths larger
by themselves. Counts are judged by Poisson deviance; units and money on the log scale, since one bulk order would
otherwise decide alone. Typical sizes of orders are pooled as logs for the same reason, and judged by their squares.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hitfinder.features import RATES, count_pairs, is_size, on_impressions
from hitfinder.warehouse import frame

__all__ = ["LEVELS", "choose_rates", "fit_rates", "load_pairs"]

LEVELS = ("batch", "category", "style", "sku")

Array = npt.NDArray[np.float64]

# Strengths tried, as multiples of the mean exposure of a SKU: from "believe the SKU" to "believe the pool". The ends
# are short of 0 and infinity, since a few batches can't prove either.
GRID = np.geomspace(0.05, 20, 14)
# Whose counts are added up.
TOGETHER = {
    "batch": ["as_of", "batch_id"],
    "category": ["as_of", "batch_id", "category"],
    "style": ["as_of", "batch_id", "style_id"],
    "sku": ["sku_id"],
}
# Where exposures are days, typical sizes take their place.
MEAN_SIZES = ("revenue_per_order", "units_per_order")
# Fewer things counted than this say nothing about a rate.
MIN_COUNTED = 10


def choose_rates(con: Any) -> list[str]:
    """Name the rates that the signals looked at can tell: on impressions where they are counted, else on days.

    Leaves the table `pairs` with these rates.

    Returns
    -------
    list of str
        Sorted names; empty where nothing was counted.
    """
    count_pairs(con, sorted(name for group in RATES.values() for name in group))
    counted = frame(con, "select rate, sum(num) as num, sum(den) as den from pairs group by rate").set_index("rate")
    # Of a size what is counted are orders.
    sizes = [is_size(name) for name in counted.index]
    things = np.where(sizes, counted["den"], counted["num"])
    told = set(counted.index[(things >= MIN_COUNTED) & (counted["den"] > 0)])
    # Tests that are played again deal money out evenly, so typical sizes are for shops without impressions.
    left_out = {*RATES["day"], *RATES["typical order"]} if on_impressions(told) else {*RATES["impression"], *MEAN_SIZES}
    chosen = sorted(told - left_out)
    con.execute("delete from pairs where rate not in (select unnest($chosen))", {"chosen": chosen})
    return chosen


def load_pairs(con: Any) -> pd.DataFrame:
    """Return what was counted of every rate, SKU and moment: what `fit_rates` reads."""
    return frame(con, "select * from pairs where is_measured order by rate, sku_id, as_of")


def fit_rates(pairs: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Fit the mean and the four strengths of each rate.

    Parameters
    ----------
    pairs
        From `load_pairs`; only rows of SKUs that may be learned from.
    names
        Rates to fit, see `choose_rates`. One of which nothing was counted gets the strongest pull.

    Returns
    -------
    pandas.DataFrame
        One row per rate: `rate`, `mean`, and `<level>_strength` for each of `LEVELS`, in units of what the rate is
        counted on.
    """
    # What belongs together is numbered once for all rates: grouping by text is most of the time a fit would take.
    codes = {level: pairs.groupby(keys).ngroup().to_numpy() for level, keys in TOGETHER.items()}
    num, den = (pairs[column].to_numpy(dtype=np.float64) for column in ("num", "den"))
    places = pairs.groupby("rate").indices
    rows = [
        _fit_one(name, num[at], den[at], {level: each[at] for level, each in codes.items()})
        if (at := places.get(name)) is not None
        else [name, 1.0 if is_size(name) else 1e-9, *[1.0] * 4]
        for name in names
    ]
    return pd.DataFrame(rows, columns=["rate", "mean", *(f"{level}_strength" for level in LEVELS)])


def _fit_one(name: str, num: Array, den: Array, codes: dict[str, npt.NDArray[np.integer[Any]]]) -> list[object]:
    """Fit one rate; `codes` numbers the rows' SKUs and pools, and a SKU's rows are in the order of their moments."""
    skus = np.unique(codes["sku"], return_inverse=True)[1]
    last = np.zeros(skus.max() + 1, dtype=np.int64)
    np.maximum.at(last, skus, np.arange(len(skus)))
    size = is_size(name)
    # A revised report may take back what was counted; less than nothing can't come.
    rest_num = num[last][skus] - num
    rest_num = rest_num if size else rest_num.clip(min=0)
    rest_den = (den[last][skus] - den).clip(min=0)
    counted = float(num[last].sum()) if size else max(float(num[last].sum()), 0.5)
    mean = counted / max(float(den[last].sum()), 1e-9)
    # A SKU at several moments is one SKU: its moments share its weight.
    use = rest_den > 0
    share = 1 / np.bincount(skus, weights=use).clip(min=1)[skus]
    typical = max(float(den[last].mean()), 1e-9)
    rate: Array = np.full(len(num), mean)
    pool_den_above: Array | float = np.inf
    loss = _log_size_loss if size else _log_loss if name.startswith(("units", "revenue", "refunds")) else _poisson_loss
    strengths = []
    for level in LEVELS:
        if level == "sku":
            pool_num, pool_den = num, den
        else:
            # The pools leave the SKU out here, so that a strength is never rewarded for knowing the SKU itself.
            pool = codes[level]
            pool_num, pool_den = (np.bincount(pool, weights=own)[pool] - own for own in (num, den))
        # A SKU is pulled towards its style only as hard as the style is known (see sql/shrunk.sql).
        known = pool_den_above if level == "sku" else np.inf
        best = _best_strength(pool_num, pool_den, rate, rest_num, rest_den, share * use, typical, known, loss)
        strengths.append(best)
        if level in ("batch", "category"):
            pool_num, pool_den = pool_num + num, pool_den + den
        rate = (pool_num + best * rate) / (pool_den + best)
        pool_den_above = pool_den + best
    return [name, np.exp(mean) if size else mean, *strengths]


def _best_strength(
    num: Array,
    den: Array,
    parent: Array,
    rest_num: Array,
    rest_den: Array,
    weight: Array,
    typical: float,
    parent_known: Array | float,
    loss: Callable[[Array, Array, Array, Array, Array], float],
) -> float:
    """Return the strength whose estimate from `num`, `den` and `parent` best predicts the rest; the largest if none.

    `parent_known` is what the parent rests on, in pseudo-exposures: no pull is stronger than that.
    """
    known = den > 0
    if not (weight * known).sum():
        return float(GRID[-1] * typical)
    losses = []
    for strength in GRID * typical:
        pull = 1 / (1 / strength + 1 / parent_known)
        losses.append(loss((num + pull * parent) / (den + pull), rest_num, rest_den, weight, weight * known))
    # Where several do as well, the stronger pull is the safer one.
    tolerable = min(losses) + 1e-9 * abs(min(losses)) + 1e-12
    return float((GRID * typical)[max(i for i, lost in enumerate(losses) if lost <= tolerable)])


# What comes later may be higher or lower for all alike: each loss asks only for who is above whom. `weight` counts all
# that was there later, `known` only those of which something had been seen.


def _poisson_loss(rate: Array, rest_num: Array, rest_den: Array, weight: Array, known: Array) -> float:
    """Return the deviance of counts."""
    del known
    expected = _brought_to(rate * rest_den, rest_num, weight)
    log_ratio = np.where(rest_num > 0, np.log(np.maximum(rest_num, 1e-12) / expected), 0.0)
    return float((weight * (rest_num * log_ratio - rest_num + expected)).sum())


def _log_loss(rate: Array, rest_num: Array, rest_den: Array, weight: Array, known: Array) -> float:
    """Return the squared error of the logs of money or units."""
    expected = _brought_to(rate * rest_den, rest_num, weight)
    # Where nothing came, the miss is counted as if a typical SKU's hundredth had come.
    little = 0.01 * (weight * rest_num).sum() / weight.sum() + 1e-12
    miss = np.log((rest_num + little) / (expected + little))
    return _scatter(miss, known)


def _log_size_loss(size: Array, rest_num: Array, rest_den: Array, weight: Array, known: Array) -> float:
    """Return the squared error of the log sizes of orders; one that is the mean of many counts little more than one."""
    del weight
    later = rest_num / np.maximum(rest_den, 1e-9)
    if (known > 0).any():
        # A revision of many old orders beside one new one looks like an order of any size.
        later = np.clip(later, *np.quantile(later[known > 0], (0.005, 0.995)))
    return _scatter(later - size, known * rest_den / (1 + rest_den))


def _brought_to(expected: Array, rest_num: Array, weight: Array) -> Array:
    """Scale what was expected to the sum of what came."""
    scale = (weight * rest_num).sum() / max((weight * expected).sum(), 1e-300)
    brought: Array = np.maximum(expected * scale, 1e-12)
    return brought


def _scatter(miss: Array, weight: Array) -> float:
    """Return the weighted sum of squares around the weighted mean; 0 without weight."""
    total = weight.sum()
    return float((weight * (miss - (weight * miss).sum() / total) ** 2).sum()) if total > 0 else 0.0
