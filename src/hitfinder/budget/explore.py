"""Money for SKUs not tested yet: how much a test needs to tell something, who gets it, and what it bought last."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from hitfinder.budget.responses import Responses
from hitfinder.budget.spending import Spending

__all__ = ["bought_last_week", "share_out", "test_channel", "test_cost", "untested"]

# A test gets at most this many times what it needs: more would be scaling a SKU that nobody has seen.
MOST = 4.0
AHEAD = pd.Timedelta(days=7)


def untested(spending: Spending) -> pd.DataFrame:
    """Return the SKUs on which nothing was spent so far and of which there is something to sell, newest launch first.

    SKUs that are launched within the coming week are among them.
    """
    skus = spending.skus
    waiting = skus[
        skus["first_week"].isna() & ~(skus["launched_at"] > spending.as_of + AHEAD) & ~(skus["units_left"] <= 0)
    ]
    return waiting.reset_index().sort_values(["launched_at", "sku_id"], ascending=[False, True], ignore_index=True)


def test_channel(spending: Spending, responses: Responses) -> str:
    """Return the channel on which most was spent on SKUs in their first week; it is where tests are run."""
    weeks = spending.weeks
    first = weeks[weeks["week"] == weeks["sku_id"].map(spending.skus["first_week"])]
    spent = (first if first["spend"].sum() > 0 else weeks).groupby("channel")["spend"].sum()
    spent = spent[spent.index.isin(responses.channels["channel"])]
    return str(spent.idxmax())


def test_cost(spending: Spending, slope: float, orders: float) -> float:
    """Return the spend at which an average line brings so many orders.

    With three, a SKU that brings none is below average with 95 % certainty.
    """
    weeks = spending.weeks[spending.weeks["orders"].notna()]
    counted = float(weeks["orders"].sum())
    # An order's worth, in value; without orders, the prices stand in.
    worth = float(weeks["value"].sum()) / counted if counted > 0 else float(spending.skus["unit_price"].median())
    return orders * worth / slope if slope > 0 and np.isfinite(worth) else np.inf


def share_out(waiting: pd.DataFrame, money: float, each: float, chances: pd.Series | None) -> pd.DataFrame:
    """Share the explore money out among SKUs.

    Parameters
    ----------
    waiting
        From `untested`.
    money
        What there is.
    each
        What a test needs, see `test_cost`.
    chances
        Probability of a hit by `sku_id`, where a model gave any: the likeliest are tested, and the likelier get more.
        Without, the newest launches are tested and all get the same.

    Returns
    -------
    pandas.DataFrame
        `sku_id, spend`: only SKUs that get `each` at least and MOST times that at most. Empty where the money does not
        do for one.
    """
    n = int(min(len(waiting), money // each)) if np.isfinite(each) and each > 0 else 0
    if n == 0:
        return pd.DataFrame({"sku_id": pd.Series(dtype=str), "spend": pd.Series(dtype=float)})
    if chances is None:
        chosen = waiting.head(n).assign(weight=1.0)
    else:
        known = waiting.assign(weight=waiting["sku_id"].map(chances).astype(float).fillna(0.0))
        chosen = known.sort_values(["weight", "sku_id"], ascending=[False, True]).head(n)
    weight = chosen["weight"].to_numpy(dtype=float) + 1e-12
    extra = np.zeros(n)
    left, room = money - n * each, (MOST - 1) * each
    for _ in range(n):
        open_to = extra < room - 1e-9
        if left <= 1e-9 or not open_to.any():
            break
        more = np.where(open_to, left * weight / weight[open_to].sum(), 0.0)
        given = np.minimum(extra + more, room) - extra
        extra, left = extra + given, left - given.sum()
    return pd.DataFrame({"sku_id": chosen["sku_id"].to_numpy(), "spend": np.floor((each + extra) * 100 + 1e-6) / 100})


def bought_last_week(spending: Spending, target: float | None) -> dict[str, Any]:
    """Return what was spent on SKUs that were first spent on within the last week, and what came of it.

    Returns
    -------
    dict
        `skus, spend, value, orders, roi`; `above_target`: how many brought the target or more (NULL without one);
        `best`: the three that brought most for each unit of spend, as `sku_id, spend, value`.
    """
    skus, weeks = spending.skus, spending.weeks
    # Where the log began with that week, only what was launched in it is known to be new.
    new = (skus["first_week"] == 0) & ((weeks["week"].max() > 0) | (skus["launched_at"] > spending.as_of - AHEAD))
    first = skus.index[new]
    mine = weeks[(weeks["week"] == 0) & weeks["sku_id"].isin(first)]
    summed = mine.groupby("sku_id")[["spend", "value", "orders"]].sum()
    spend, value = float(summed["spend"].sum()), float(summed["value"].sum())
    brought = summed.assign(roi=summed["value"] / summed["spend"].where(summed["spend"] > 0))
    best = brought[brought["value"] > 0].sort_values("roi", ascending=False, kind="stable").head(3)
    return {
        "skus": len(summed),
        "spend": spend,
        "value": value,
        "orders": float(summed["orders"].sum()),
        "roi": value / spend if spend > 0 else None,
        "above_target": None if target is None else int((summed["value"] >= target * summed["spend"]).sum()),
        "best": [
            {"sku_id": str(sku), "spend": float(row["spend"]), "value": float(row["value"])}
            for sku, row in best.iterrows()
        ],
    }
