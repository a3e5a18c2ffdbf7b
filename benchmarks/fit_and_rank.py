"""Fit and rank: seconds, beside one plain LightGBM on the same feature matrix.

The peer gets the matrix for nothing and fits one model. hitfinder also reads and checks the tables, makes the features,
and fits every kind of model and rule again in each fold, so as to say out of time how good each is. The ratio is the
price of all that.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import lightgbm as lgb
import numpy as np
import pandas as pd

import hitfinder as hf
from hitfinder.admission import admit
from hitfinder.features import count_pairs, features, look_back, set_scope
from hitfinder.labels import label
from hitfinder.settings import parse_settings
from hitfinder.simulate import Market, simulate
from hitfinder.tables import SIGNALS, SKUS
from hitfinder.warehouse import open_warehouse


def matrix(model: hf.HitModel, market: Market) -> tuple[np.ndarray, np.ndarray]:
    """Return what the model's fit had to learn from: a row per SKU and moment of its test, and whether it was a hit."""
    con = open_warehouse()
    try:
        admit(con, SIGNALS, market.signals, period=model.settings.signals.period)
        admit(con, SKUS, market.skus)
        set_scope(con, model.settings, market.signals["known_at"].max())
        labels = label(con, model.settings, outcomes_given=False)
        labels = labels[labels["problem"].isna()].set_index("sku_id")["hit"]
        look_back(con)
        count_pairs(con, list(model.rates["rate"]))
        table = model.describe(features(con, model.rates), con.execute("select * from skus order by sku_id").df())
    finally:
        con.close()
    table = table[table["sku_id"].isin(labels.index)]
    return model.design.matrix(table), labels.reindex(table["sku_id"]).to_numpy(dtype=float)


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Return the median time of a call."""
    took = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def parser() -> argparse.ArgumentParser:
    """Return the script's arguments."""
    out = argparse.ArgumentParser(description=__doc__)
    out.add_argument("--weeks", type=int, default=20)
    out.add_argument("--skus-per-week", type=int, default=300)
    out.add_argument("--repeats", type=int, default=10, help="of what is quick; fit runs once")
    return out


def main() -> None:
    """Print the table."""
    given = parser().parse_args()
    market = simulate(weeks=given.weeks, skus_per_week=given.skus_per_week, seed=0)
    settings = parse_settings({"label": {"top_share": 0.03}})
    fitted: list[hf.HitModel] = []
    ours_fit = seconds(lambda: fitted.append(hf.fit(market.signals, market.skus, settings)), 1)
    model = fitted[0]
    X, y = matrix(model, market)
    parameters = {"objective": "binary", "verbose": -1, "seed": 0}
    plain = lgb.train(parameters, lgb.Dataset(X, y), num_boost_round=100)
    data = {"params": parameters, "num_boost_round": 100}
    theirs_fit = seconds(lambda: lgb.train(train_set=lgb.Dataset(X, y), **data), given.repeats)

    launches = market.skus.sort_values("launched_at", kind="stable")
    batch: pd.DataFrame = launches.tail(300).reset_index(drop=True)
    signals = market.signals[market.signals["sku_id"].isin(batch["sku_id"])].reset_index(drop=True)
    rows = X[: len(batch)]
    ours_rank = seconds(lambda: hf.rank(model, signals, batch), given.repeats)
    theirs_rank = seconds(lambda: plain.predict(rows), given.repeats)

    print(f"{len(market.skus)} SKUs, {len(market.signals)} rows of signals; matrix of {X.shape[0]} x {X.shape[1]}")
    print(f"{'':24}{'hitfinder':>12}{'one LightGBM':>14}{'ratio':>8}")
    print(f"{'fit, seconds':24}{ours_fit:>12.2f}{theirs_fit:>14.2f}{ours_fit / theirs_fit:>8.0f}")
    what = f"rank {len(batch)} SKUs, ms"
    print(f"{what:24}{ours_rank * 1e3:>12.0f}{theirs_rank * 1e3:>14.2f}{ours_rank / theirs_rank:>8.0f}")


if __name__ == "__main__":
    main()
