"""What a biased history does to a model, and what weights by inverse propensity undo of it.

    python benchmarks/selective_labels.py [--markets 4] [--explore 0.1] [--rule price|clicks]

A shop stopped the worst 70 % of each batch by a rule: the dearest, or the least clicked. Their outcomes are cut off;
a share was kept on by chance. Models learn from the whole truth, from the cut-off history as it comes, from it without
the stopped SKUs, and with the weights. All rank the same four batches to come, which nobody stopped.
"""

from __future__ import annotations

import argparse
import warnings

import numpy as np
import pandas as pd

import hitfinder as hf
from hitfinder.metrics import list_metrics
from hitfinder.settings import parse_settings
from hitfinder.simulate import cut_off, simulate

SETTINGS = {
    "label": {"test_window": "7d", "outcome_window": "14d", "top_share": 0.1},
    "model": {"ages": 2, "seeds": 1, "folds": 3, "threads": 1},
}
STOPPED = 0.7
WEEKS, SKUS, TO_COME = 16, 60, 4
TEST, OUTCOME = pd.Timedelta(days=7), pd.Timedelta(days=14)


def run(seed: int, explore: float, rule: str) -> pd.DataFrame:
    """Return one row per model and batch to come."""
    market = simulate(weeks=WEEKS + TO_COME, skus_per_week=SKUS, complete=True, seed=seed)
    skus, settings = market.skus, parse_settings({**SETTINGS, "seed": seed})
    moment = pd.Timestamp(np.sort(skus["launched_at"].unique())[WEEKS])
    dated = market.signals.merge(skus[["sku_id", "launched_at"]], on="sku_id")
    age = dated["period_start"] - dated["launched_at"]
    tested = dated[age < TEST].groupby("sku_id")[["clicks", "impressions"]].sum()
    rate = (tested["clicks"] / tested["impressions"]).reindex(skus["sku_id"]).to_numpy()
    merit = pd.Series(-skus["price"].to_numpy() if rule == "price" else rate, index=skus.index)
    worst = merit.groupby(skus["batch_id"]).rank(pct=True) <= STOPPED
    coin = np.random.default_rng(seed).random(len(skus)) < explore
    decisions = pd.DataFrame(
        {
            "sku_id": skus["sku_id"],
            "decided_at": skus["launched_at"] + TEST,
            "action": np.where(worst & ~coin, "stop", "test"),
            "propensity": np.where(worst, np.where(coin, explore, 1 - explore), 1.0),
        }
    )[skus["launched_at"] < moment]
    past, future = skus[skus["launched_at"] < moment], skus[skus["launched_at"] >= moment]
    cut = cut_off(market.signals, decisions)
    models = {
        "the whole truth": hf.fit(market.signals, past, settings, as_of=moment),
        "as it comes": hf.fit(cut, past, settings, as_of=moment),
        "stopped left out": hf.fit(cut, past, settings, as_of=moment, decisions=decisions.assign(propensity=1.0)),
        "weighted": hf.fit(cut, past, settings, as_of=moment, decisions=decisions),
    }
    later = dated[(age >= TEST) & (age < TEST + OUTCOME)]
    value = later.groupby("sku_id")["revenue"].sum().astype(float)
    rows = []
    for name, model in models.items():
        for batch, group in future.groupby("batch_id"):
            end = group["launched_at"].min() + TEST
            seen = market.signals[market.signals["sku_id"].isin(group["sku_id"])]
            ranked = hf.rank(model, seen, group, as_of=end).set_index("sku_id")
            worth = value.reindex(ranked.index).fillna(0)
            hit = worth.rank(ascending=False, method="first") <= np.ceil(0.1 * len(worth))
            like_stopped = worst.set_axis(skus["sku_id"]).reindex(ranked.index)
            measured = list_metrics(np.zeros(len(hit)), hit, worth, -ranked["rank"]).iloc[0]
            rows.append(
                {
                    "model": name,
                    "batch": batch,
                    "average_precision": measured["average_precision"],
                    "value_at_k": measured["value_at_k"],
                    "said_of_like_stopped": ranked.loc[like_stopped, "hit_probability"].mean(),
                    "true_of_like_stopped": hit[like_stopped].mean(),
                    "effective": model.report.get("selection", {}).get("effective"),
                }
            )
    return pd.DataFrame(rows)


def main() -> None:
    """Run the markets and print the table."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--markets", type=int, default=4)
    options.add_argument("--explore", type=float, default=0.1)
    options.add_argument("--rule", choices=["price", "clicks"], default="price")
    o = options.parse_args()
    warnings.simplefilter("ignore")
    rows = pd.concat([run(seed, o.explore, o.rule) for seed in range(o.markets)])
    print(rows.groupby("model", sort=False).mean(numeric_only=True).round(3).to_string())


if __name__ == "__main__":
    main()
