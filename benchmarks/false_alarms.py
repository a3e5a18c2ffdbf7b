"""How often `monitor` raises a false alarm, and how soon it sees a change: many simulated markets.

    python benchmarks/false_alarms.py [--markets 12] [--looks 5] [--drifting 30] [--plain] [--jobs 2]

Markets without a change are looked at `--looks` times, two weeks apart; markets whose categories and channels get other
rates from one week on are looked at at the end of that week and of the next. One model, fitted on a market of its own,
is watched throughout. Prints the share of looks with any alarm beside what was promised, with its binomial interval
(looks of one market share their past, so it is a little narrow), the alarms by check, and the share of changes seen
within one and two weeks. With `--plain` the change leaves the channels alone.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import pandas as pd
from scipy.stats import binomtest

import hitfinder as hf
from hitfinder.monitor import monitor
from hitfinder.settings import parse_settings
from hitfinder.simulate import simulate, traffic

SETTINGS = {"label": {"top_share": 0.03}, "model": {"ages": 3, "seeds": 1, "folds": 2, "threads": 1}}
START = pd.Timestamp("2025-01-06")
WEEKS = 32
FITTED_AFTER = 18


def fitted(folder: Path, seed: int, skus: int) -> None:
    """Fit the model that is watched, on a market of its own, and save it."""
    warnings.simplefilter("ignore")
    market = simulate(weeks=FITTED_AFTER, skus_per_week=skus, complete=True, seed=seed)
    as_of = START + pd.Timedelta(days=7 * FITTED_AFTER)
    hf.fit(market.signals, market.skus, parse_settings(SETTINGS), as_of=as_of).save(folder)


def run(seed: int, folder: Path, skus: int, looks: int, drifting: bool, plain: bool, false_alarm: float) -> list[dict]:
    """Look at one market; return one row per look."""
    warnings.simplefilter("ignore")
    if plain:
        traffic.DRIFT_CHANNELS[:] = 0.0
    # Changes come after 20 to 29 weeks of history.
    change = 20 + seed % 10 if drifting else None
    ends = [change + 1, change + 2] if change is not None else [WEEKS - 2 * back for back in range(looks)][::-1]
    market = simulate(weeks=max(ends), skus_per_week=skus, complete=True, seed=seed, drift_week=change)
    model = hf.open_model(folder)
    rows = []
    for week in ends:
        began = time.perf_counter()
        health = monitor(
            model, market.signals, market.skus, as_of=START + pd.Timedelta(days=7 * week), false_alarm=false_alarm
        )
        raised = sorted(health.checks.loc[health.checks["state"] == "alarm", "check"].unique())
        rows.append(
            {
                "seed": seed,
                "week": week,
                "since": None if change is None else week - change,
                "alarm": not health.ok,
                "checks": raised,
                "drift": bool({"batch_drift", "same_skus"} & set(raised)),
                "seconds": time.perf_counter() - began,
            }
        )
    return rows


def main() -> None:
    """Run the markets and print the figures."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--markets", type=int, default=12)
    options.add_argument("--looks", type=int, default=5)
    options.add_argument("--drifting", type=int, default=30)
    options.add_argument("--skus", type=int, default=120)
    options.add_argument("--jobs", type=int, default=2)
    options.add_argument("--first", type=int, default=3000, help="first seed")
    options.add_argument("--false-alarm", type=float, default=0.05)
    options.add_argument("--plain", action="store_true", help="the change leaves the channels alone")
    o = options.parse_args()
    with tempfile.TemporaryDirectory() as home, ProcessPoolExecutor(o.jobs) as pool:
        folder = Path(home) / "model"
        pool.submit(fitted, folder, o.first - 1, o.skus).result()
        look = partial(run, folder=folder, skus=o.skus, looks=o.looks, plain=o.plain, false_alarm=o.false_alarm)
        quiet = [
            row for rows in pool.map(partial(look, drifting=False), range(o.first, o.first + o.markets)) for row in rows
        ]
        say_false(pd.DataFrame(quiet), o.false_alarm)
        first = o.first + 1000
        changed = [
            row for rows in pool.map(partial(look, drifting=True), range(first, first + o.drifting)) for row in rows
        ]
        say_delay(pd.DataFrame(changed))


def say_false(rows: pd.DataFrame, promised: float) -> None:
    """Print how often an alarm was raised where nothing had changed."""
    if rows.empty:
        return
    n, k = len(rows), int(rows["alarm"].sum())
    low, high = binomtest(k, n).proportion_ci(0.95)
    print(f"nothing changed: {k} of {n} looks raised an alarm ({k / n:.1%}; 95 % interval {low:.1%} to {high:.1%}); "
          f"promised: at most {promised:.0%}")  # fmt: skip
    for check, times in rows["checks"].explode().value_counts().items():
        print(f"  {check}: {times}")
    print(f"  {rows['seconds'].median():.1f} s a look", flush=True)


def say_delay(rows: pd.DataFrame) -> None:
    """Print how soon a change was seen."""
    if rows.empty:
        return
    for kind in ("drift", "alarm"):
        seen = rows.pivot_table(index="seed", columns="since", values=kind, aggfunc="max").astype(bool)
        first, second = seen[1].mean(), (seen[1] | seen[2]).mean()
        print(f"{len(seen)} changes: {kind} raised within one week {first:.0%}, within two {second:.0%}; "
              f"still or again in the second week {seen[2].mean():.0%}")  # fmt: skip
    for check, times in rows["checks"].explode().value_counts().items():
        print(f"  {check}: {times} of {len(rows)} looks")


if __name__ == "__main__":
    main()
