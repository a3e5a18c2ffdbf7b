"""What a typical peer would have counted in a SKU's place: same category, same channels, same weeks.

Two parts. The peers' mean rate is a product of levels (category, channel, their pair, the category's week), each
pulled towards 1 by its credibility (Bühlmann and Straub 1970): a category of three SKUs is mostly like all others.
SKUs count about alike in it however much they were shown, so that one giant is not the measure of all. Then the SKUs'
own rates are taken to be spread log-normally about a typical one, and that one, the spread, and each SKU's place in it
are found by integrating over a grid of rates: counts of 0 and 1 are used as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import minimize
from scipy.special import gammaln
from scipy.stats import norm

__all__ = ["Peers", "counts_of", "fit_peers", "log_chance", "ratios"]

Array = npt.NDArray[np.float64]

ROUNDS = 15
# Log rates against the peers' mean that are looked at.
GRID = np.linspace(-4.5, 4.5, 361)
# Something is broken at a few SKUs: without them a strong sign of it would be taken for chance where SKUs are alike.
ODD_SHARE, ODD_SD = 0.05, 0.7
FACTORS = (("category",), ("channel",), ("category", "channel"), ("category", "week"))


@dataclass(frozen=True)
class Peers:
    """What peers do at one step.

    `skus`: one row per SKU with anything due: `sku_id, category, num, den, mean, typical, doubt`: what was counted, on
    what, what a SKU of the peers' mean rate and one of their typical rate would have counted, and the variance of the
    log of the latter. `cells`: the cells given, with `expected`, the typical peer's count. `dispersion`: variance of a
    count over its mean, for one and the same SKU (1: chance alone). `centre`, `spread`: the SKUs' log rates against the
    mean rate, their middle and sd.
    """

    skus: pd.DataFrame
    cells: pd.DataFrame
    dispersion: float
    centre: float
    spread: float


def fit_peers(cells: pd.DataFrame, *, by_week: bool = True) -> Peers:
    """Fit what peers do at one step.

    Parameters
    ----------
    cells
        From `count_steps`: `sku_id, category, channel, week, num, den`, and any more.
    by_week
        Whether the peers' rate may differ from week to week.

    Examples
    --------
    Four SKUs that were clicked alike, and one half as often:

    >>> cells = pd.DataFrame({"sku_id": list("abcde"), "category": "hats", "channel": "", "week": 0,
    ...                       "num": [200.0, 205.0, 195.0, 203.0, 100.0], "den": 10000.0})
    >>> peers = fit_peers(cells)
    >>> (peers.skus["num"] / peers.skus["typical"]).round(1).tolist()
    [1.1, 1.2, 1.1, 1.1, 0.6]
    """
    cells = cells[cells["den"] > 0].reset_index(drop=True)
    sku, names = pd.factorize(cells["sku_id"], sort=True)
    num, den = cells["num"].to_numpy(float), cells["den"].to_numpy(float)
    n = len(names)
    factors = [_Factor(cells, keys, sku) for keys in FACTORS if by_week or "week" not in keys]
    counted = _sum(sku, num, n)
    expected = den * max(num.sum(), 0.5) / max(den.sum(), 1e-12)
    dispersion, spread = 1.0, 0.1
    for _ in range(ROUNDS):
        total = _sum(sku, expected, n)
        weight = 1 / (dispersion + spread * total)
        for factor in factors:
            expected = factor.update(num, expected, weight, dispersion, spread)
        total = _sum(sku, expected, n)
        weight = 1 / (dispersion + spread * total)
        level = max((weight * counted).sum(), 1e-3) / max((weight * total).sum(), 1e-12)
        expected, total = expected * level, total * level
        over = weight**2 * ((counted - total) ** 2 - dispersion * total)
        spread = min(max(over.sum() / max((weight**2 * total**2).sum(), 1e-12), 1e-4), 25.0)
        dispersion = _dispersion(cells, num, expected, sku)
    doubt = np.zeros(n)
    for factor in factors:
        doubt += factor.doubt(expected, total)
    centre, sd = _spread_of_logs(counted, total, dispersion, doubt)
    categories = pd.Series(cells["category"].to_numpy()).groupby(sku).first().to_numpy()
    skus = pd.DataFrame(
        {
            "sku_id": names,
            "category": categories,
            "num": counted,
            "den": np.bincount(sku, den, n),
            "mean": total,
            "typical": total * np.exp(centre),
            "doubt": doubt + sd**2 / max(n, 1),
        }
    )
    return Peers(skus, cells.assign(expected=expected * np.exp(centre)), dispersion, centre, sd)


class _Factor:
    """One set of levels: each multiplies the rate of its cells."""

    def __init__(self, cells: pd.DataFrame, keys: tuple[str, ...], sku: npt.NDArray[np.int64]) -> None:
        self.code = cells.groupby(list(keys), sort=True, dropna=False).ngroup().to_numpy()
        self.n = int(self.code.max()) + 1
        self.pair, pairs = pd.factorize(sku * np.int64(self.n) + self.code)
        self.pair_sku, self.pair_code = pairs // self.n, pairs % self.n
        self.effect = np.ones(self.n)
        self.variance = np.zeros(self.n)
        # Channels are few and their levels a matter of fact; the others are drawn from what such levels are like.
        self.fixed = keys == ("channel",)

    def update(self, num: Array, expected: Array, weight: Array, dispersion: float, spread: float) -> Array:
        """Fit the levels anew, all else as it stands; return what is expected then."""
        expected = expected / self.effect[self.code]
        w = weight[self.pair_sku]
        seen = np.bincount(self.pair, num, len(w))
        due = np.bincount(self.pair, expected, len(w))
        top = np.bincount(self.pair_code, w * seen, self.n)
        below = np.bincount(self.pair_code, w * due, self.n)
        noise = np.bincount(self.pair_code, w**2 * (dispersion * due + spread * due**2), self.n)
        ratio = top / np.maximum(below, 1e-300)
        noise = np.maximum(noise / np.maximum(below, 1e-300) ** 2, 1e-9)
        if self.fixed:
            # Half an event at the usual rate: a channel without one is poor, not impossible.
            half = 0.5 / np.maximum(np.bincount(self.pair_code, due, self.n), 1e-300)
            self.effect = (ratio + half) / (1 + half)
        elif self.n > 1:
            middle, variance = _between(ratio, noise)
            trust = variance / (variance + noise)
            self.effect = np.maximum(middle + trust * (ratio - middle), 0.02)
            self.variance = (1 - trust) * variance
        return np.asarray(expected * self.effect[self.code])

    def doubt(self, expected: Array, total: Array) -> Array:
        """Return the variance that doubt about the levels puts into each SKU's expectation, relative to it."""
        due = np.bincount(self.pair, expected, len(self.pair_sku)) / total[self.pair_sku]
        return _sum(self.pair_sku, due**2 * self.variance[self.pair_code], len(total))


def _sum(codes: npt.NDArray[np.int64], values: Array, n: int) -> Array:
    return np.asarray(np.bincount(codes, values, n), dtype=np.float64)


def _between(ratio: Array, noise: Array) -> tuple[float, float]:
    """Return the middle and the variance of true levels (DerSimonian and Laird 1986)."""
    weight = 1 / noise
    middle = (weight * ratio).sum() / weight.sum()
    surplus = (weight * (ratio - middle) ** 2).sum() - (len(ratio) - 1)
    variance = max(surplus / max(weight.sum() - (weight**2).sum() / weight.sum(), 1e-300), 0.0)
    weight = 1 / (noise + variance)
    return float((weight * ratio).sum() / weight.sum()), float(variance)


def _dispersion(cells: pd.DataFrame, num: Array, expected: Array, sku: npt.NDArray[np.int64]) -> float:
    """Return how much more than by chance one SKU's counts scatter over its channels and weeks; at least 1.

    Given a SKU's sum, its cells are multinomial; then Pearson's statistic has mean (cells - 1) n / (n - 1), however
    small the counts (Haldane 1937).
    """
    cell = cells.groupby(["sku_id", "channel", "week"], sort=False).ngroup().to_numpy()
    n_cells = int(cell.max()) + 1
    owner = np.zeros(n_cells, dtype=np.int64)
    owner[cell] = sku
    seen, due = np.bincount(cell, num, n_cells), np.bincount(cell, expected, n_cells)
    n = int(sku.max()) + 1
    total, of = np.bincount(owner, seen, n), np.bincount(owner, due, n)
    share = due * np.divide(total, of, out=np.zeros(n), where=of > 0)[owner]
    used = (share > 1e-9) & (total[owner] >= 2)
    terms = np.bincount(owner[used], (seen[used] - share[used]) ** 2 / share[used], n)
    free = np.maximum(np.bincount(owner[used], minlength=n) - 1, 0)
    if free.sum() < 20:
        return 1.0
    fair = np.where(total >= 2, (total - 1) / np.maximum(total, 1), 0)
    return float(max((terms * fair).sum() / free.sum(), 1.0))


def log_chance(counted: Array, mean: Array, dispersion: float, doubt: Array) -> Array:
    """Return the log chance of a count: negative binomial, variance `dispersion * mean + doubt * mean**2`."""
    size = mean / (dispersion - 1 + doubt * mean + 1e-7)
    with np.errstate(divide="ignore"):
        return np.asarray(
            gammaln(counted + size)
            - gammaln(size)
            - gammaln(counted + 1)
            + size * np.log(size / (size + mean))
            + counted * np.log(mean / (size + mean))
        )


def _over_grid(counted: Array, mean: Array, dispersion: float, doubt: Array) -> Array:
    """Return the chance of each count at each log rate of GRID, up to a factor for each row."""
    logs = log_chance(counted[:, None], mean[:, None] * np.exp(GRID), dispersion, doubt[:, None])
    return np.asarray(np.exp(logs - logs.max(axis=1, keepdims=True)))


def _spread_of_logs(counted: Array, mean: Array, dispersion: float, doubt: Array) -> tuple[float, float]:
    """Return the middle and the sd of the SKUs' log rates that make their counts likeliest."""
    chances = _over_grid(counted, mean, dispersion, doubt)

    def minus_log(at: Array) -> float:
        return -float(np.log(chances @ _weights(at[0], float(np.exp(at[1])))).sum())

    found = minimize(minus_log, [0.0, np.log(0.4)], method="Nelder-Mead", options={"xatol": 1e-3, "fatol": 1e-3},
                     bounds=[(-3, 1), (np.log(0.03), np.log(2.5))])  # fmt: skip
    return float(found.x[0]), float(np.exp(found.x[1]))


def _weights(centre: float, sd: float) -> Array:
    """Return what share of the SKUs has each log rate: most are spread as usual, a few are something else."""
    usual, odd = norm.pdf(GRID, centre, sd), norm.pdf(GRID, centre, np.hypot(sd, ODD_SD))
    weights = (1 - ODD_SHARE) * usual + ODD_SHARE * odd + 1e-300
    return np.asarray(weights / weights.sum())


def ratios(peers: Peers, level: float = 0.9) -> pd.DataFrame:
    """Estimate each SKU's rate over its typical peer's, pulled towards 1 by what is usual among SKUs.

    Returns
    -------
    pandas.DataFrame
        `ratio` (median), `ratio_low`, `ratio_high` (an interval that holds the true ratio with chance `level`), in the
        order of `peers.skus`.
    """
    skus = peers.skus
    num, mean, doubt = counts_of(skus, "num", "mean", "doubt")
    chances = _over_grid(num, mean, peers.dispersion, doubt)
    after = np.cumsum(chances * _weights(peers.centre, peers.spread), axis=1)
    after /= after[:, -1:]
    # The mass of a point of the grid lies half a step about it.
    edges = GRID + (GRID[1] - GRID[0]) / 2
    asked = (0.5, (1 - level) / 2, (1 + level) / 2)
    at = np.array([[np.interp(q, row, edges) for q in asked] for row in after]).reshape(len(skus), 3)
    return pd.DataFrame(np.exp(at - peers.centre), columns=["ratio", "ratio_low", "ratio_high"], index=skus.index)


def counts_of(skus: pd.DataFrame, *names: str) -> list[Array]:
    """Return columns as float arrays."""
    return [skus[name].to_numpy(dtype=float) for name in names]
