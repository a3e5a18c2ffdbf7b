"""How often the promise about stopping is kept: many simulated markets, one new batch each.

    python benchmarks/promise.py [--markets 200] [--weeks 14] [--skus 60] [--jobs 2]

In each market a model is fitted as of the newest batch's launch; that batch's test is then played by hitfinder at a
tenth of the cost. The promise is broken where more than `policy.max_hits_lost` of the batch's hits were told to stop.
Prints the share of markets in which it was broken beside what was promised, with its binomial interval.
"""

from __future__ import annotations

import argparse
import warnings
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import pandas as pd
from scipy.stats import binomtest

from hitfinder.admission import admit_signals_and_skus
from hitfinder.blocks import block_of, play_ours
from hitfinder.features import set_scope
from hitfinder.labels import label
from hitfinder.replays import ROUNDS
from hitfinder.settings import parse_settings
from hitfinder.simulate import simulate
from hitfinder.training import fit_admitted
from hitfinder.warehouse import open_warehouse

SETTINGS = {
    "label": {"test_window": "7d", "outcome_window": "7d", "top_share": 0.05},
    "model": {"ages": 2, "seeds": 1, "folds": 2, "threads": 1},
}


def run(seed: int, weeks: int, skus: int, drift: bool) -> dict[str, object]:
    """Play the newest batch of one market; return whether something was promised, and how it went."""
    warnings.simplefilter("ignore")
    market = simulate(
        weeks=weeks,
        skus_per_week=skus,
        hits_per_week=3,
        complete=True,
        seed=seed,
        drift_week=weeks - 1 if drift else None,
    )
    settings = parse_settings(SETTINGS)
    con = open_warehouse(threads=1)
    try:
        admissions = admit_signals_and_skus(con, market.signals, market.skus, period=settings.signals.period)
        moment = market.signals["known_at"].max()
        set_scope(con, settings, moment)
        labels = label(con, settings, outcomes_given=False)
        labels = labels[labels["problem"].isna()]
        newest = labels.groupby("batch")["launched_at"].min().idxmax()
        tests = labels[labels["batch"] == newest].sort_values("sku_id").reset_index(drop=True)
        model = fit_admitted(con, settings, tests["launched_at"].min(), admissions, outcomes_given=False)
        set_scope(con, settings, moment)
        block = block_of(con, settings, tests, (0.1,), ROUNDS, 1, 0, None)
        [kept] = play_ours(block, "hitfinder", model)[1]
    finally:
        con.close()
    return {**kept, "seed": seed}


def main() -> None:
    """Run the markets and print the table."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--markets", type=int, default=200)
    options.add_argument("--weeks", type=int, default=14)
    options.add_argument("--skus", type=int, default=60)
    options.add_argument("--jobs", type=int, default=2)
    options.add_argument("--first", type=int, default=1000, help="first seed")
    options.add_argument("--drift", action="store_true", help="the newest week has other rates than all before")
    o = options.parse_args()
    play = partial(run, weeks=o.weeks, skus=o.skus, drift=o.drift)
    played = []
    with ProcessPoolExecutor(o.jobs) as pool:
        for row in pool.map(play, range(o.first, o.first + o.markets)):
            played.append(row)
            if len(played) % 10 == 0 or len(played) == o.markets:
                say(pd.DataFrame(played))


def say(rows: pd.DataFrame) -> None:
    """Print how often the promise was broken so far."""
    promised = rows[rows["promised"] & (rows["batches"] > 0)]
    broken = int(promised["broken"].sum())
    print(f"{len(rows)} markets; something was promised in {len(promised)}")
    print(f"told to stop: {promised['stopped_share'].mean():.0%} of the SKUs")
    if len(promised):
        low, high = binomtest(broken, len(promised)).proportion_ci(0.95)
        print(
            f"promise broken in {broken} ({broken / len(promised):.1%}; 95 % interval {low:.1%} to {high:.1%}); "
            "allowed 10 %",
            flush=True,
        )


if __name__ == "__main__":
    main()
