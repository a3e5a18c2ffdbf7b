"""What small stocks do to labels and lists, what the completion mends, and whether stock forecasts hold.

    python benchmarks/stock.py [--seeds 3] [--stocks 20,40,80] [--weeks 18] [--skus 60]

Simulated markets get small stocks: sales stop when they are gone, pages are shown on. A model is fitted on the first
weeks three times: on the market without limits, on the limited one with `skus.stock` (what had sold out is completed),
and on the limited one without it (it is read as low demand). Each ranks the later batches at the end of their tests;
what counts is the revenue that they would have had with stock enough. Printed: the share of the true hits among those
labelled, and how the list does. Then the forecasts of the outcome windows' demand are held against the units that would
have been sold: how many ended within the 80 % interval, below and above it.
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

import hitfinder as hf
from hitfinder.admission import admit_signals_and_skus
from hitfinder.features import set_scope
from hitfinder.labels import label
from hitfinder.settings import parse_settings
from hitfinder.simulate import simulate
from hitfinder.stock import stock
from hitfinder.warehouse import open_warehouse

TEST, WINDOW = 7, 28
SETTINGS = {"label": {"top_share": 0.05}, "model": {"ages": 4, "seeds": 1, "folds": 2, "threads": 1}}
JUDGED = 4  # batches after the fit
DAY = pd.Timedelta(days=1)


def limited(signals: pd.DataFrame, stocks: pd.Series) -> pd.DataFrame:
    """Stop each SKU's sales when its stock is gone; pages are shown on."""
    rows = signals.sort_values(["sku_id", "period_start", "channel", "creative_id"]).reset_index(drop=True)
    before = rows.groupby("sku_id")["units"].cumsum() - rows["units"]
    kept = np.minimum(rows["units"], np.clip(rows["sku_id"].map(stocks) - before, 0, None))
    share = np.where(rows["units"] > 0, kept / np.maximum(rows["units"], 1), 1.0)
    return rows.assign(
        units=kept.astype("int64"),
        orders=np.where(kept > 0, np.ceil(rows["orders"] * share), 0).astype("int64"),
        revenue=(rows["revenue"] * share).round(2),
    )


def labelled(signals: pd.DataFrame, skus: pd.DataFrame, now: pd.Timestamp) -> pd.DataFrame:
    """Label the SKUs by what was known."""
    settings, con = parse_settings(SETTINGS), open_warehouse(threads=1)
    admit_signals_and_skus(con, signals, skus, period=settings.signals.period)
    set_scope(con, settings, now)
    told = label(con, settings, outcomes_given=False).set_index("sku_id")
    con.close()
    return told


def main() -> None:
    """Run the markets and print the figures."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--stocks", default="20,40,80")
    options.add_argument("--weeks", type=int, default=18)
    options.add_argument("--skus", type=int, default=60)
    given = options.parse_args()
    warnings.simplefilter("ignore")
    began = time.process_time()
    lists, forecasts = [], []
    for seed in range(given.seeds):
        market = simulate(weeks=given.weeks, skus_per_week=given.skus, complete=True, seed=100 + seed)
        launches = np.sort(market.skus["launched_at"].unique())
        now = pd.Timestamp(launches[-JUDGED])
        age = market.signals["period_start"] - market.signals["sku_id"].map(
            market.skus.set_index("sku_id")["launched_at"]
        )
        inside = market.signals[(age >= TEST * DAY) & (age < (TEST + WINDOW) * DAY)].groupby("sku_id")
        truth = inside[["revenue", "units"]].sum().reindex(market.skus["sku_id"]).fillna(0)
        models = {}
        for median in [None, *map(int, given.stocks.split(","))]:
            rng = np.random.default_rng([seed, 7])
            many = np.maximum(np.rint((median or 1e7) * np.exp(rng.normal(0, 0.3, len(market.skus)))), 1)
            stocks = pd.Series(many.astype("int64"), index=market.skus["sku_id"])
            signals = limited(market.signals, stocks)
            skus = market.skus.assign(stock=stocks.to_numpy())
            real = labelled(market.signals, skus.assign(stock=None), now)
            for how in ("no limit",) if median is None else ("completed", "read as low"):
                known = skus if how == "completed" else skus.assign(stock=None)
                told = labelled(signals, known, now).reindex(real.index)
                models[how] = hf.fit(signals, known, parse_settings(SETTINGS), as_of=now)
                row = {"stock": median or "-", "how": how, "labels found": (told["hit"] & real["hit"]).sum(),
                       "of": real["hit"].sum(), "completed": told["is_completed"].mean()}  # fmt: skip
                scores = []
                for launch in launches[-JUDGED:]:
                    batch = known[known["launched_at"] == launch]
                    mine = signals[signals["sku_id"].isin(batch["sku_id"])]
                    ranked = hf.rank(models[how], mine, batch, as_of=pd.Timestamp(launch) + TEST * DAY)
                    worth = truth["revenue"].reindex(ranked["sku_id"]).to_numpy()
                    k = max(round(0.05 * len(worth)), 1)
                    best = np.sort(worth)[::-1][:k]
                    scores.append((spearmanr(-ranked["rank"], worth)[0], worth[:k].sum() / best.sum(),
                                   (worth[:k] >= best[-1]).mean()))  # fmt: skip
                    if how != "read as low":
                        for days in (2, 4, 7):
                            at = pd.Timestamp(launch) + days * DAY
                            told = stock(models[how], mine, batch.assign(stock=stocks.reindex(batch["sku_id"]).array),
                                         as_of=at).set_index("sku_id")  # fmt: skip
                            units = truth["units"].reindex(told.index)
                            forecasts.append(told.assign(units=units, days=days, limit=median or "-"))
                row |= dict(
                    zip(
                        ("rank correlation", "revenue of the best k", "hits of k"), np.mean(scores, axis=0), strict=True
                    )
                )
                lists.append(row)
            print(f"seed {seed}, stock {median or '-'}: {time.process_time() - began:.0f} s", flush=True)
    table = pd.DataFrame(lists).groupby(["stock", "how"], sort=False).mean()
    print(table.round(3).to_string())
    every = pd.concat(forecasts)
    every["within"] = every["units"].between(every["demand_low"], every["demand_high"])
    every["below"], every["above"] = every["units"] < every["demand_low"], every["units"] > every["demand_high"]
    every["relative error"] = (every["demand"] - every["units"]).abs() / every["units"].mean()
    shown = ["within", "below", "above", "units", "demand", "relative error"]
    print(every.groupby(["limit", "days"], sort=False)[shown].mean().round(3).to_string())


if __name__ == "__main__":
    main()
