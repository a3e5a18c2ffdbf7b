"""What two models cost for the same hits, when both play the same past tests again."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hitfinder.blocks import block_of, play_ours
from hitfinder.models.hit_model import HitModel
from hitfinder.report.break_even import isotonic
from hitfinder.settings import Settings

__all__ = ["cost_at_equal_hits", "cost_ratio"]

Array = npt.NDArray[np.float64]

BUDGETS = (0.05, 0.1, 0.2, 0.4)
ROUNDS = 6
REPEATS = 2
DRAWS = 1000
# Between the fewest and the most hits that both find, cost is read off at so many heights.
HEIGHTS = 9


def cost_at_equal_hits(
    con: Any, settings: Settings, labels: pd.DataFrame, challenger: HitModel, champion: HitModel
) -> tuple[float, float, float] | str:
    """Play the tests of labelled SKUs again by both models.

    Parameters
    ----------
    con
        With the scope of the moment at which the batches had closed.
    labels
        Of whole batches; see `Unseen`.

    Returns
    -------
    (mean, low, high) or str
        What the challenger costs for the same hits, as a multiple of what the champion does, with the 90 % interval of
        a bootstrap over batches; or why that can't be said.
    """
    block = block_of(con, settings, labels, BUDGETS, ROUNDS, REPEATS, 1, None)
    if block is None or block.pool.by_period:
        return "cost at equal hits was not compared: impressions were not counted in these tests"
    if challenger.belief is None or champion.belief is None:
        return "cost at equal hits was not compared: one of the models holds nothing to plan a test by"
    played = [play_ours(block, name, model)[0] for name, model in (("own", challenger), ("other", champion))]
    return cost_ratio(*played, seed=settings.seed)


def cost_ratio(own: pd.DataFrame, other: pd.DataFrame, *, seed: int) -> tuple[float, float, float]:
    """Return what one policy costs for the same hits, as a multiple of the other, and its 90 % interval.

    Both curves of hits over cost are made monotone and joined by straight lines over the log of the cost. The costs are
    read off at heights between the fewest and the most hits that both reach, and their logs' differences are averaged.
    Where one finds more at its smallest budget than the other at its largest, the ratio is that of these budgets.

    Parameters
    ----------
    own, other
        `budget, batch_id, found, spent`, a row per batch, budget and repeat; see `blocks.play_ours`.
    """
    sums = [_by_batch(rows) for rows in (own, other)]
    n = len(sums[0][0])
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=DRAWS)
    weights = np.vstack([np.ones(n), drawn]).astype(float)
    curves = [(isotonic(weights @ found), np.log(np.maximum(weights @ spent, 1.0))) for found, spent in sums]
    ratios = np.array([_log_ratio(*(part[draw] for curve in curves for part in curve)) for draw in range(len(weights))])
    low, high = np.quantile(ratios[1:], [0.05, 0.95])
    return float(np.exp(ratios[0])), float(np.exp(low)), float(np.exp(high))


def _by_batch(rows: pd.DataFrame) -> tuple[Array, Array]:
    """Return hits and exposures, shape (batches, budgets), repeats averaged."""
    found = rows.pivot_table(index="batch_id", columns="budget", values="found", aggfunc="mean")
    spent = rows.pivot_table(index="batch_id", columns="budget", values="spent", aggfunc="mean")
    return found.to_numpy(dtype=float), spent.to_numpy(dtype=float)


def _log_ratio(found: Array, cost: Array, others: Array, others_cost: Array) -> float:
    low, high = max(found[0], others[0]), min(found[-1], others[-1])
    if low > high:
        gap = cost[-1] - others_cost[0] if found[-1] < others[0] else cost[0] - others_cost[-1]
        return float(gap)
    heights = np.linspace(low, high, HEIGHTS)
    # A rise too small to matter, so that a level stretch is entered at its cheapest end.
    ramp = 1e-9 * np.arange(len(found))
    own = np.interp(heights, found + ramp, cost)
    return float((own - np.interp(heights, others + ramp, others_cost)).mean())
