"""Which steps are weak beyond chance, over all SKUs at once, and how much more it would take to see one that is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import false_discovery_control, nbinom

from hitfinder.funnel.counting import Step
from hitfinder.funnel.peers import Peers, counts_of, ratios
from hitfinder.settings import DiagnosisSettings

__all__ = ["find_weak", "needed", "power", "tail"]

Array = npt.NDArray[np.float64]

# A step that a SKU half as good would fail this test with less often than this can't be judged, and isn't.
BARELY = 0.10


def tail(counted: Array, mean: Array, dispersion: float, doubt: Array, *, upper: bool) -> Array:
    """Return the chance of a count as low (`upper`: as high) as this one, where `mean` was to be expected.

    The count is negative binomial with variance `dispersion * mean + doubt * mean**2`. Sums of money that were turned
    into orders are no whole numbers; the next one towards the middle is taken, which is the careful side.

    Examples
    --------
    >>> tail(np.array([0.0]), np.array([3.0]), 1.0, np.zeros(1), upper=False).round(3).tolist()
    [0.05]
    """
    mean = np.maximum(mean, 1e-12)
    size = mean / (dispersion - 1 + doubt * mean + 1e-7)
    chance = size / (size + mean)
    if upper:
        return np.asarray(nbinom.sf(np.floor(counted + 1e-6) - 1, size, chance))
    return np.asarray(nbinom.cdf(np.ceil(counted - 1e-6), size, chance))


def find_weak(fitted: list[tuple[Step, Peers]], asked: DiagnosisSettings) -> pd.DataFrame:
    """Test every step of every SKU against a rate that is only just tolerable.

    Parameters
    ----------
    fitted
        Each step measured, with its peers.
    asked
        `[diagnosis]`.

    Returns
    -------
    pandas.DataFrame
        One row per step and SKU with anything due: `sku_id, category, step, num, den, typical`; `ratio, ratio_low,
        ratio_high` (see `ratios`); `p_value` of "not materially weak"; `adjusted` (Benjamini and Hochberg 1995, over
        all rows that could be judged); `weak`: that is at most the share asked for, and `ratio` itself is past the
        tolerance; `power`: the chance that a SKU with `worth_finding` of the peers' rate is found with that much seen;
        `needed`: what a typical peer would have to have counted for it to be found with the chance asked for.
    """
    rows = []
    for step, peers in fitted:
        skus = peers.skus
        num, typical, doubt = counts_of(skus, "num", "typical", "doubt")
        edge = tolerable(step, asked)
        p = tail(num, edge * typical, peers.dispersion, doubt, upper=step.more_is_worse)
        rows.append(
            pd.concat([skus[["sku_id", "category", "num", "den", "typical", "doubt"]], ratios(peers)], axis=1).assign(
                step=step.name,
                p_value=p,
                judged=power(step, typical, peers.dispersion, doubt, asked.false_share, asked) >= BARELY,
            )
        )
    table = pd.concat(rows, ignore_index=True)
    judged = table["judged"].to_numpy(bool)
    table["adjusted"] = 1.0
    if judged.any():
        p_values = np.clip(table.loc[judged, "p_value"].to_numpy(float), 0.0, 1.0)
        table.loc[judged, "adjusted"] = false_discovery_control(p_values, method="bh")
    # What is beyond chance may still be mostly chance where SKUs are all alike: the size has to say the same.
    returns = (table["step"] == "return").to_numpy()
    edges = np.where(returns, 1 / (1 - asked.tolerance), 1 - asked.tolerance)
    sized = np.where(returns, table["ratio"] >= edges, table["ratio"] <= edges)
    table["weak"] = judged & (table["adjusted"] <= asked.false_share) & sized
    # What one more weak step would have to get below, with as many found as there are.
    level = asked.false_share * max(int(table["weak"].sum()), 1) / max(int(judged.sum()), 1)
    table["power"], table["needed"] = 0.0, np.inf
    for step, peers in fitted:
        of = (table["step"] == step.name).to_numpy()
        typical, doubt = counts_of(table[of], "typical", "doubt")
        table.loc[of, "power"] = power(step, typical, peers.dispersion, doubt, level, asked)
        table.loc[of, "needed"] = needed(step, peers.dispersion, float(np.median(doubt)), level, asked)
    return table.drop(columns=["doubt", "judged"])


def tolerable(step: Step, asked: DiagnosisSettings) -> float:
    """Return the rate over the peers' at which a step is only just not weak."""
    return 1 / (1 - asked.tolerance) if step.more_is_worse else 1 - asked.tolerance


def power(step: Step, typical: Array, dispersion: float, doubt: Array, level: float, asked: DiagnosisSettings) -> Array:
    """Return the chance that a SKU as weak as `worth_finding` is found, for what typical peers would have counted."""
    upper = step.more_is_worse
    true = typical / asked.worth_finding if upper else typical * asked.worth_finding
    edge = np.maximum(tolerable(step, asked) * typical, 1e-12)
    size = edge / (dispersion - 1 + doubt * edge + 1e-7)
    chance = size / (size + edge)
    own_size = np.maximum(true, 1e-12) / (dispersion - 1 + 1e-7)
    own_chance = own_size / (own_size + np.maximum(true, 1e-12))
    if upper:
        most = nbinom.isf(level, size, chance) + 1  # the least count that is found
        return np.asarray(nbinom.sf(most - 1, own_size, own_chance))
    least = nbinom.ppf(level, size, chance)
    least = np.where(nbinom.cdf(least, size, chance) > level, least - 1, least)  # the largest count that is found
    return np.asarray(np.where(least >= 0, nbinom.cdf(least, own_size, own_chance), 0.0))


def needed(step: Step, dispersion: float, doubt: float, level: float, asked: DiagnosisSettings) -> float:
    """Return what a typical peer has to count so that a SKU as weak as `worth_finding` is found with `power`.

    Infinite where no amount is enough: what peers do is not known well enough.
    """
    tried = np.geomspace(0.5, 1e5, 400)
    enough = power(step, tried, dispersion, np.full(len(tried), doubt), level, asked) >= asked.power
    # Whole counts make the chance go up in a zigzag: enough from here on.
    short = np.flatnonzero(~enough)
    first = 0 if not len(short) else short[-1] + 1
    return float(tried[first]) if first < len(tried) else float("inf")
