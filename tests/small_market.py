"""A small market and a model fitted on it, made once per process for the test files that need one."""

from __future__ import annotations

from functools import cache

import pandas as pd

import hitfinder as hf
from hitfinder.settings import parse_settings
from hitfinder.simulate import simulate

# One thread: the processes that serve it share the machine with the tests.
SETTINGS = {
    "label": {"outcome_window": "14d", "top_share": 0.15},
    "model": {"ages": 2, "seeds": 1, "folds": 2, "threads": 1},
}


@cache
def fitted():
    """Return (market, model)."""
    market = simulate(weeks=8, skus_per_week=40, complete=True, seed=2)
    return market, hf.fit(market.signals, market.skus, parse_settings(SETTINGS))


def newest_batch():
    """Return (signals, skus, as_of): the newest batch in mid-test, with a SKU that nobody has seen and NULL counts."""
    market, _ = fitted()
    batch = market.skus["batch_id"].max()
    skus = market.skus[market.skus["batch_id"] == batch].reset_index(drop=True)
    as_of = skus["launched_at"].max() + pd.Timedelta(days=4)
    signals = market.signals[market.signals["sku_id"].isin(skus["sku_id"])]
    signals = signals[signals["sku_id"] != skus["sku_id"].iloc[3]].reset_index(drop=True)
    signals["carts"] = signals["carts"].astype("Int64").mask(signals.index % 5 == 0)
    signals["channel"] = signals["channel"].mask(signals.index % 7 == 0)
    # A row may not repeat another's key now that some channels are gone.
    keys = ["sku_id", "period_start", "channel", "creative_id", "known_at"]
    return signals.drop_duplicates(keys).reset_index(drop=True), skus, as_of


def as_rows(signals, skus):
    """Put the SKU's columns beside its signals; a SKU without signals is a row of its own."""
    return skus.merge(signals, how="left", on="sku_id")
