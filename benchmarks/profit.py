"""What ranking and stopping by expected profit earns, beside GMV, click rate and the model of hits alone.

    python benchmarks/profit.py [--markets 24] [--weeks 16] [--skus 100] [--budget 0.3] [--jobs 2]

In each simulated market with costs the newest batch's test is played again by every policy, with the same chance and
the same exposures; each scales as many SKUs as it may and earns what those really earned in their outcome windows,
after all costs, less what the test cost. Rivals: the same test made shorter, scaling by GMV or by click rate, and
hitfinder with a model that knows revenue only ("hits alone"). Markets are the unit; intervals are by bootstrap over
them. Costs and margins differ by category and style, as they do in shops: that is what profit can gain by.
"""

from __future__ import annotations

import argparse
import warnings
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import bootstrap

from hitfinder.admission import admit_signals_and_skus
from hitfinder.blocks import block_of, play_ours, play_policy
from hitfinder.features import set_scope
from hitfinder.labels import label
from hitfinder.policies import FullTest, ShorterTest
from hitfinder.replays import ROUNDS
from hitfinder.settings import Settings, parse_settings
from hitfinder.simulate import simulate
from hitfinder.training import fit_admitted
from hitfinder.warehouse import open_warehouse

COSTS = {
    "platform_fee": 0.05, "payment_fee": 0.006, "commission": 0.10, "coupons": 0.03, "shipping": 2.0,
    "freight_insurance": 0.3, "return_handling": 2.0, "resellable": 0.7,
}  # fmt: skip
OURS = "expected profit"


def settings_for(metric: str) -> Settings:
    return parse_settings(
        {
            "label": {"metric": metric, "top_share": 0.03},
            "model": {"ages": 3, "seeds": 1, "folds": 3, "threads": 1},
            "costs": COSTS,
        }
    )


def run(seed: int, weeks: int, skus: int, budget: float) -> pd.DataFrame:
    """Play the newest batch of one market; return what each policy found and earned."""
    warnings.simplefilter("ignore")
    market = simulate(weeks=weeks, skus_per_week=skus, hits_per_week=3, complete=True, seed=seed)
    # Margins differ between shops' goods by more than the market's own: some are bought dear.
    rng = np.random.default_rng([seed, 19])
    styles = market.skus["style_id"].unique()
    dear = pd.Series(np.exp(rng.normal(0, 0.25, len(styles))), index=styles)
    cost = np.minimum(market.skus["unit_cost"] * market.skus["style_id"].map(dear), 0.9 * market.skus["price"])
    about = market.skus.assign(unit_cost=cost.round(2))
    con = open_warehouse(threads=1)
    try:
        by_profit, by_revenue = settings_for("profit"), settings_for("revenue")
        admissions = admit_signals_and_skus(con, market.signals, about, period=by_profit.signals.period)
        moment = market.signals["known_at"].max()
        set_scope(con, by_profit, moment)
        labels = label(con, by_profit, outcomes_given=False)
        labels = labels[labels["problem"].isna()]
        newest = labels.groupby("batch")["launched_at"].min().idxmax()
        tests = labels[labels["batch"] == newest].sort_values("sku_id").reset_index(drop=True)
        start = tests["launched_at"].min()
        earns, sells = (
            fit_admitted(con, one, start, admissions, outcomes_given=False) for one in (by_profit, by_revenue)
        )
        set_scope(con, by_profit, moment)
        block = block_of(con, by_profit, tests, (budget,), ROUNDS, 2, 0, None)
        parts = [
            play_ours(block, OURS, earns, by_value=True)[0],
            play_ours(block, "chance of a hit by profit", earns)[0],
            play_ours(block, "the model of hits alone", sells)[0],
            play_policy(block, "GMV", ShorterTest("revenue"), block.budgets),
            play_policy(block, "click rate", ShorterTest("clicks"), block.budgets),
            play_policy(block, "GMV after the full test", FullTest("revenue"), (1.0,)),
        ]
    finally:
        con.close()
    rows = pd.concat(parts, ignore_index=True)
    rows["earned"] = rows["value_found"] - rows["money_spent"]
    columns = ["earned", "value_found", "value_best", "money_spent"]
    return rows.groupby("policy", sort=False)[columns].mean().reset_index().assign(seed=seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--markets", type=int, default=24)
    parser.add_argument("--weeks", type=int, default=16)
    parser.add_argument("--skus", type=int, default=100)
    parser.add_argument("--budget", type=float, default=0.3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--first-seed", type=int, default=700)
    asked = parser.parse_args()
    seeds = range(asked.first_seed, asked.first_seed + asked.markets)
    play = partial(run, weeks=asked.weeks, skus=asked.skus, budget=asked.budget)
    parts = []
    with ProcessPoolExecutor(asked.jobs) as pool:
        for number, part in enumerate(pool.map(play, seeds), start=1):
            parts.append(part)
            print(f"   {number} of {asked.markets} markets", end="\r", flush=True)
    say(pd.concat(parts, ignore_index=True), asked.budget)


def say(rows: pd.DataFrame, budget: float) -> None:
    earned = rows.pivot_table(index="seed", columns="policy", values="earned")
    print(
        f"{len(earned)} markets, one batch each, {budget:.0%} of a full test; per batch, after all costs and the test:"
    )
    best = rows.groupby("seed")["value_best"].first().mean()
    for name in rows["policy"].unique():
        line = f"   {name:28}{earned[name].mean():>10,.0f}"
        if name != OURS:
            lead = earned[OURS] - earned[name]
            low, high = interval(lead)
            line += f"   expected profit earns {lead.mean():+,.0f} more ({low:+,.0f} to {high:+,.0f})"
        print(line)
    print(f"   {'the best there were':28}{best:>10,.0f}   before the test's cost")


def interval(values: pd.Series) -> Any:
    found = bootstrap((values.to_numpy(),), np.mean, confidence_level=0.90, method="percentile", rng=0)
    return found.confidence_interval


if __name__ == "__main__":
    main()
