"""Break one step of some SKUs' funnels in a simulated market, to see who finds it.

What was drawn is thinned out, or refunds are added; the market behind it stays as it is. So the same shoppers come to
the same SKUs, and only the broken step differs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from hitfinder.errors import SettingsError
from hitfinder.simulate.market import Market
from hitfinder.simulate.traffic import (
    BUY_NOW_RATE,
    CART_LOAD,
    CHANNELS,
    CLOSE_LOAD,
    CLOSE_RATE,
    RETURN_FIRST,
    RETURN_LAST,
    RETURN_MEAN,
)

__all__ = ["BREAKS", "break_steps"]

# By what the rate of each step is multiplied.
BREAKS = {"click": 0.5, "cart": 0.5, "order": 0.5, "return": 2.0}
Array = np.ndarray[Any, Any]


def break_steps(market: Market, *, share: float = 0.1, seed: int = 0) -> tuple[Market, pd.Series]:
    """Break one step, drawn at random, of a random share of the SKUs.

    Parameters
    ----------
    market
        From `simulate`.
    share
        Of the SKUs, 0 to 1.
    seed
        Which SKUs, which steps, and what is lost.

    Returns
    -------
    market : Market
        With other signals, and a `truth` whose rates (and `close_rate`, orders per cart of a shopper with a cart) are
        those after the break; what is expected of outcomes is left as it was.
    broken : pandas.Series
        The broken step by `sku_id`: a key of BREAKS.

    Raises
    ------
    SettingsError
        `share` is no share.

    Examples
    --------
    >>> from hitfinder.simulate import simulate
    >>> market = simulate(weeks=2, skus_per_week=20, hits_per_week=2, complete=True)
    >>> other, broken = break_steps(market, share=0.5)
    >>> len(broken), bool(other.signals["clicks"].sum() < market.signals["clicks"].sum())
    (20, True)
    """
    if not 0 <= share <= 1:
        raise SettingsError(f"share: expected 0 to 1, got {share!r}")
    rng = np.random.default_rng(seed)
    ids = market.skus["sku_id"].to_numpy()
    chosen = rng.choice(len(ids), round(share * len(ids)), replace=False)
    broken = pd.Series(rng.choice(list(BREAKS), len(chosen)), index=ids[chosen], name="broken").sort_index()
    truth = market.truth.set_index("sku_id")
    close, through_cart = _ways_to_order(truth)
    truth["close_rate"] = close
    price = market.skus.set_index("sku_id")["price"]
    signals = market.signals.copy()
    step = signals["sku_id"].map(broken)
    for name in ("click", "cart", "order"):
        rows = (step == name).to_numpy()
        if rows.any():
            keep = 1 - (1 - BREAKS[name]) * (through_cart if name == "cart" else pd.Series(1.0, index=truth.index))
            signals.loc[rows] = _thinned(rng, signals[rows], name, price, keep)
    back = broken.index[broken == "return"]
    signals = _with_more_returns(rng, signals, back, truth["return_rate"], price)
    measures = signals.loc[:, "impressions":"spend"].to_numpy()
    signals = signals[(measures != 0).any(axis=1)].reset_index(drop=True)
    for name, column in (("click", "click_rate"), ("cart", "cart_rate"), ("return", "return_rate")):
        truth.loc[broken.index[broken == name], column] *= BREAKS[name]
    truth.loc[broken.index[broken == "order"], ["close_rate", "order_rate"]] *= BREAKS["order"]
    carts_broken = broken.index[broken == "cart"]
    truth.loc[carts_broken, "order_rate"] *= 1 - (1 - BREAKS["cart"]) * through_cart[carts_broken]
    return replace(market, signals=signals, truth=truth.reset_index()[[*market.truth.columns, "close_rate"]]), broken


def _ways_to_order(truth: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Return the rate at which carts are ordered, and the share of the orders that come through a cart.

    Both go up with the same demand, which is looked for between bounds, for all SKUs at once.
    """
    appeal, carts, orders = (truth[c].to_numpy(float) for c in ("appeal", "cart_rate", "order_rate"))
    low, high = np.full(len(truth), -10.0), np.full(len(truth), 10.0)
    for _ in range(60):
        demand = (low + high) / 2
        close = expit(logit(CLOSE_RATE) + CLOSE_LOAD * appeal + demand)
        at_once = expit(logit(BUY_NOW_RATE) + (CART_LOAD + CLOSE_LOAD) * appeal + demand)
        too_many = carts * close + (1 - carts) * at_once > orders
        low, high = np.where(too_many, low, demand), np.where(too_many, demand, high)
    return pd.Series(close, index=truth.index), pd.Series(carts * close / orders, index=truth.index)


def _thinned(
    rng: np.random.Generator, rows: pd.DataFrame, step: str, price: pd.Series, keep: pd.Series
) -> pd.DataFrame:
    """Keep what comes after a step with the chance that is left of it."""
    out = rows.copy()
    kept = rows["sku_id"].map(keep).to_numpy(float)
    clicks, carts = rows["clicks"].to_numpy(), rows["carts"].to_numpy()
    if step == "click":
        left = rng.binomial(clicks, kept)
        out["clicks"] = left
        out["visitors"] = np.clip(rng.binomial(rows["visitors"], kept), left > 0, left)
        for name in ("favorites", "carts"):
            out[name] = rng.hypergeometric(rows[name], clicks - rows[name], left)
    elif step == "cart":
        out["carts"] = rng.binomial(carts, BREAKS["cart"])
    orders, units = rows["orders"].to_numpy(), rows["units"].to_numpy()
    out["orders"] = rng.binomial(orders, kept)
    with_more = np.divide(out["orders"], orders, out=np.zeros(len(rows)), where=orders > 0)
    out["units"] = out["orders"] + rng.binomial(units - orders, with_more)
    each = rows["sku_id"].map(price).to_numpy(float)
    out["revenue"] = (out["units"] * each).round(2)
    came_back = np.rint(rows["refunds"].to_numpy(float) / each).astype(np.int64)
    out["refunds"] = (rng.binomial(came_back, kept) * each).round(2)
    return out


def _with_more_returns(
    rng: np.random.Generator, signals: pd.DataFrame, back: Any, return_rate: pd.Series, price: pd.Series
) -> pd.DataFrame:
    """Let as many of the orders come back again as did, as late as others do."""
    sold = signals[signals["sku_id"].isin(back) & (signals["units"] > 0)]
    if sold.empty:
        return signals
    extra = rng.binomial(sold["units"], sold["sku_id"].map(return_rate) * (BREAKS["return"] - 1))
    rows = sold.loc[sold.index.repeat(extra), ["sku_id", "period_start", "channel", "creative_id"]]
    waited = RETURN_FIRST + rng.gamma(2.0, (RETURN_MEAN - RETURN_FIRST) / 2, len(rows)).astype(int)
    rows["period_start"] += pd.to_timedelta(np.minimum(waited, RETURN_LAST), unit="D")
    delay = rows["channel"].map({c.name: 24 + c.delay_hours for c in CHANNELS})
    rows["known_at"] = rows["period_start"] + pd.to_timedelta(delay.to_numpy(float), unit="h")
    rows["refunds"] = rows["sku_id"].map(price).to_numpy(float)
    keys = ["sku_id", "period_start", "channel", "creative_id"]
    counts = [c for c in signals.columns if c not in (*keys, "known_at")]
    touched = signals["sku_id"].isin(back)
    both = pd.concat([signals[touched], rows.reindex(columns=signals.columns).fillna(dict.fromkeys(counts, 0))])
    summed = both.groupby(keys, as_index=False, sort=True).agg({"known_at": "min", **dict.fromkeys(counts, "sum")})
    summed = summed.astype({c: signals[c].dtype for c in signals.columns})[signals.columns]
    summed[["revenue", "refunds", "spend"]] = summed[["revenue", "refunds", "spend"]].round(2)
    return pd.concat([signals[~touched], summed], ignore_index=True)
