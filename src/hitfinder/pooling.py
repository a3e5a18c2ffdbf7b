"""Pooling: how far each rate is pulled towards its style, category, batch and history, fitted from history.

The strength of a level is a number of pseudo-exposures. It is the one with which what had been seen of a SKU early in
its test best predicts what came later: no distribution has to be believed, and crowded days make the strengths larger
by themselves. Counts are judged by Poisson deviance; units and money on the log scale, since one bulk order would
otherwise decide alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hitfinder.features import RATES, count_pairs
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
    told = set(counted.index[(counted["num"] >= MIN_COUNTED) & (counted["den"] > 0)])
    on_impressions = any(name in told for name in RATES["impression"])
    chosen = sorted(told - set(RATES["day"] if on_impressions else RATES["impression"]))
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
        else [name, 1e-9, *[1.0] * 4]
        for name in names
    ]
    return pd.DataFrame(rows, columns=["rate", "mean", *(f"{level}_strength" for level in LEVELS)])


def _fit_one(name: str, num: Array, den: Array, codes: dict[str, npt.NDArray[np.integer[Any]]]) -> list[object]:
    """Fit one rate; `codes` numbers the rows' SKUs and pools, and a SKU's rows are in the order of their moments."""
    skus = np.unique(codes["sku"], return_inverse=True)[1]
    last = np.zeros(skus.max() + 1, dtype=np.int64)
    np.maximum.at(last, skus, np.arange(len(skus)))
    # A revised report may take back what was counted; less than nothing can't come.
    rest_num = (num[last][skus] - num).clip(min=0)
    rest_den = (den[last][skus] - den).clip(min=0)
    mean = max(float(num[last].sum()), 0.5) / max(float(den[last].sum()), 1e-9)
    # A SKU at several moments is one SKU: its moments share its weight.
    use = rest_den > 0
    share = 1 / np.bincount(skus, weights=use).clip(min=1)[skus]
    typical = max(float(den[last].mean()), 1e-9)
    rate: Array = np.full(len(num), mean)
    pool_den_above: Array | float = np.inf
    heavy = name.startswith(("units", "revenue", "refunds"))
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
        best = _best_strength(pool_num, pool_den, rate, rest_num, rest_den, share * use, typical, known, heavy=heavy)
        strengths.append(best)
        if level in ("batch", "category"):
            pool_num, pool_den = pool_num + num, pool_den + den
        rate = (pool_num + best * rate) / (pool_den + best)
        pool_den_above = pool_den + best
    return [name, mean, *strengths]


def _best_strength(
    num: Array,
    den: Array,
    parent: Array,
    rest_num: Array,
    rest_den: Array,
    weight: Array,
    typical: float,
    parent_known: Array | float,
    *,
    heavy: bool,
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
        expected = (num + pull * parent) / (den + pull) * rest_den
        # What comes later may be higher or lower for all alike; only who is above whom is asked for here.
        scale = (weight * rest_num).sum() / max((weight * expected).sum(), 1e-300)
        expected = np.maximum(expected * scale, 1e-12)
        if heavy:
            # Where nothing came, the miss is counted as if a typical SKU's hundredth had come.
            little = 0.01 * (weight * rest_num).sum() / weight.sum() + 1e-12
            miss = np.log((rest_num + little) / (expected + little))
            known_weight = weight * known
            miss -= (known_weight * miss).sum() / known_weight.sum()
            losses.append(float((known_weight * miss**2).sum()))
            continue
        log_ratio = np.where(rest_num > 0, np.log(np.maximum(rest_num, 1e-12) / expected), 0.0)
        losses.append(float((weight * (rest_num * log_ratio - rest_num + expected)).sum()))
    # Where several do as well, the stronger pull is the safer one.
    tolerable = min(losses) + 1e-9 * abs(min(losses)) + 1e-12
    return float((GRID * typical)[max(i for i, loss in enumerate(losses) if loss <= tolerable)])
