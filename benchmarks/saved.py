"""What tests would have cost and found: `hf.replay` on real headline tests, and on simulated markets of three hits.

    python benchmarks/saved.py --archive FILE [--out FOLDER] [--no-controls]
    python benchmarks/saved.py --markets 4 [--test-impressions 2000] [--weeks 24] [--slots 10] [--first-seed 300]

FILE is a table of the Upworthy Research Archive (Matias, Munger, Le Quere and Ebersole 2021, Scientific Data 8, 195),
CSV or Parquet, with `test_week, clickability_test_id, eyecatcher_id, headline, impressions, clicks`. A headline plays a
SKU, the test it was in its style, the week its batch. A thousand of its impressions, drawn without replacement, are its
full test; the rest came later and tells which headlines were hits. Prints the README's table and draws its picture.

On simulated markets (about 200 SKUs a week, hits are the three of the greatest true expected revenue) it counts in how
many batches all hits are among the `slots` SKUs named, beside the full test, at 90 and at 70 % saved. A full test there
shows a SKU for seven days: `--test-impressions` a day (400 are about 60 clicks a SKU; 2,000 are the 300 clicks that
the merchants' rule of thumb asks for).
"""

from __future__ import annotations

import argparse
import warnings
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import binomtest

import hitfinder as hf
from hitfinder.settings import parse_settings
from hitfinder.simulate import simulate

TEST = 1_000  # impressions of a headline's full test
LOTS = 10
FEWEST = 60  # headlines of a week
HEADLINES = {
    "signals": {"period": "1h"},
    "label": {"test_window": "10h", "outcome_window": "3d", "metric": "click_rate", "top_share": 0.05},
}
MARKET = {
    "label": {"test_window": "7d", "outcome_window": "28d", "metric": "revenue", "top_share": 0.015},
    "model": {"threads": 1},
}


def headlines_as_signals(archive: pd.DataFrame, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the archive as signals (ten hourly lots of the test, then what came two days later) and skus."""
    names = ["test_week", "clickability_test_id", "eyecatcher_id", "headline"]
    shown = archive[archive["impressions"] >= 2 * TEST].sort_values(names)
    shown = shown[shown.groupby("test_week")["headline"].transform("size") >= FEWEST].reset_index(drop=True)
    week = shown["test_week"].astype(int)
    launched = pd.to_datetime((week // 100).astype(str) + "-01-01") + pd.to_timedelta(7 * (week % 100), unit="D")
    skus = pd.DataFrame(
        {
            "sku_id": [f"{w}-{n:05d}" for n, w in enumerate(week)],
            "batch_id": week.astype(str),
            "style_id": shown["clickability_test_id"].astype(str),
            "title": shown["headline"],
            "launched_at": launched,
        }
    )
    rng = np.random.default_rng(seed)
    shown_left, clicks_left = shown["impressions"].to_numpy(), shown["clicks"].to_numpy()
    lots = []
    for lot in range(LOTS + 1):
        last = lot == LOTS
        impressions = shown_left if last else np.full(len(shown), TEST // LOTS)
        clicks = clicks_left if last else rng.hypergeometric(clicks_left, shown_left - clicks_left, impressions)
        begin = launched + (pd.Timedelta(days=2) if last else pd.Timedelta(hours=lot))
        lots.append(
            pd.DataFrame(
                {"sku_id": skus["sku_id"], "period_start": begin, "impressions": impressions, "clicks": clicks}
            )
        )
        shown_left, clicks_left = shown_left - impressions, clicks_left - clicks
    return pd.concat(lots, ignore_index=True), skus


def on_archive(path: Path, out: Path | None, controls: bool) -> None:
    """Replay the archive's weeks; print and draw."""
    archive = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, low_memory=False)
    signals, skus = headlines_as_signals(archive)
    settings = parse_settings(HEADLINES)
    done = hf.replay(signals, skus, settings, controls=controls, progress=lambda words: print(words, flush=True))
    print(done.say())
    kept = done.promises[done.promises["promised"]]
    by_budget = kept.groupby("budget")[["broken", "batches"]].sum()
    print(f"promise broken in {kept['broken'].sum()} of {kept['batches'].sum()} plays:\n{by_budget.to_string()}")
    print(f"told to stop: {kept['stopped_share'].mean():.0%}")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        done.draw(out / "replay.png")


def play_market(seed: int, weeks: int, slots: int, test_impressions: float) -> pd.DataFrame:
    """Replay one market, its hits by true expected revenue; return hitfinder's and the full test's plays."""
    warnings.simplefilter("ignore")
    market = simulate(
        weeks=weeks,
        skus_per_week=200,
        hits_per_week=3,
        complete=True,
        seed=seed,
        test_impressions=test_impressions,
    )
    launched = market.truth["sku_id"].map(market.skus.set_index("sku_id")["launched_at"])
    outcomes = pd.DataFrame(
        {
            "sku_id": market.truth["sku_id"],
            "value": market.truth["expected_revenue"],
            "known_at": launched + pd.Timedelta(days=35),
        }
    )
    done = hf.replay(
        market.signals,
        market.skus,
        parse_settings(MARKET),
        outcomes,
        budgets=(0.1, 0.3),
        repeats=1,
        slots=slots,
        controls=False,
    )
    return done.results.assign(market=seed)


def on_markets(markets: int, weeks: int, slots: int, first_seed: int, jobs: int, test_impressions: float) -> None:
    """Replay simulated markets and count the batches in which all hits were found."""
    play = partial(play_market, weeks=weeks, slots=slots, test_impressions=test_impressions)
    played = []
    with ProcessPoolExecutor(jobs) as pool:
        for results in pool.map(play, range(first_seed, first_seed + markets)):
            played.append(results)
            print(f"{len(played)} of {markets} markets", flush=True)
    results = pd.concat(played)
    print(f"hits per batch: {results['hits'].mean():.1f}; SKUs named: {slots}")
    for (policy, budget), plays in results.groupby(["policy", "budget"]):
        every = plays["found"] >= plays["hits"]
        low, high = binomtest(int(every.sum()), len(every)).proportion_ci(0.90, method="wilson")
        print(
            f"{policy:20} {budget:4.0%}  all hits found in {every.sum()} of {len(every)} batches "
            f"({every.mean():.0%}; {low:.0%} to {high:.0%}), {plays['found'].sum()} of {plays['hits'].sum()} hits"
        )


def main() -> None:
    """Run what the command line asks for."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--archive", type=Path, help="a table of the Upworthy Research Archive")
    options.add_argument("--out", type=Path, help="folder for the picture")
    options.add_argument("--no-controls", action="store_true")
    options.add_argument("--markets", type=int, default=0)
    options.add_argument("--weeks", type=int, default=24)
    options.add_argument("--slots", type=int, default=10)
    options.add_argument("--first-seed", type=int, default=300)
    options.add_argument("--jobs", type=int, default=2)
    options.add_argument("--test-impressions", type=float, default=400.0, help="of a SKU and day of the full test")
    o = options.parse_args()
    if o.archive is None and o.markets < 1:
        options.error("expected --archive FILE or --markets N, got neither")
    if o.archive is not None:
        on_archive(o.archive, o.out, not o.no_controls)
    if o.markets > 0:
        on_markets(o.markets, o.weeks, o.slots, o.first_seed, o.jobs, o.test_impressions)


if __name__ == "__main__":
    main()
