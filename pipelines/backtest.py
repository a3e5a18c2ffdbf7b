"""Walk through a history week by week as the routines would have run it: lists, decisions, health, retraining, gate.

    python pipelines/backtest.py --signals ... --skus ... --settings ...
    python pipelines/backtest.py --simulate-year

The second makes a year of weekly batches with a change of the market in its middle, carries every stop out, and tries
before each retraining to get a sabotaged challenger promoted. Writes tables, a picture and a summary to a folder, with
a registry of its own, and logs them as one run with its steps.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

import hitfinder as hf
from hitfinder.registry.runs import recorded
from hitfinder.registry.tracking import store_at
from hitfinder.report.walk import draw_walk
from hitfinder.report.whole import replacing
from hitfinder.routines.backtest import FROZEN, RULE, Backtest, backtest
from hitfinder.settings import parse_settings
from hitfinder.simulate import simulate

YEAR = {
    "label": {"test_window": "7d", "outcome_window": "14d", "top_share": 0.05},
    "model": {"ages": 3, "seeds": 2, "folds": 3},
}


def parser() -> argparse.ArgumentParser:
    """Return the script's arguments."""
    out = argparse.ArgumentParser(description="Walk through a history week by week, as the routines would have run it.")
    out.add_argument("--signals", help="a Parquet or CSV file, or a glob for many")
    out.add_argument("--skus", help="a Parquet or CSV file, or a glob for many")
    out.add_argument("--settings", help="the TOML file of settings")
    out.add_argument("--start", type=pd.Timestamp, help="the first list; default: when a model can be fitted")
    out.add_argument("--simulate-year", action="store_true", help="make the history instead")
    out.add_argument("--weeks", type=int, default=52, help="of the simulated history (%(default)s)")
    out.add_argument("--change-week", type=int, default=30, help="when its market changes; -1: never (%(default)s)")
    out.add_argument("--skus-per-week", type=int, default=100, help="of the simulated history (%(default)s)")
    out.add_argument("--first-week", type=int, default=16, help="of its lists (%(default)s)")
    out.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    out.add_argument("--retrain-every", type=int, default=4, help="batches (%(default)s)")
    out.add_argument("--no-watch", action="store_true", help="leave the monitor out")
    out.add_argument("--no-sabotage", action="store_true", help="leave the sabotage out")
    out.add_argument("--experiment", default="backtest", help="that holds the run (%(default)s)")
    out.add_argument("--out", type=Path, default=Path("backtest"), help="folder to write (%(default)s)")
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script; return its exit status: 0 done, 1 refused, 2 wrong usage."""
    given = parser().parse_args(arguments)
    if not given.simulate_year and not (given.signals and given.skus and given.settings):
        parser().error("give --signals, --skus and --settings, or --simulate-year")
    warnings.simplefilter("ignore", UserWarning)  # of single weeks; what counts is in the tables
    change: pd.Timestamp | None = None
    start = given.start
    try:
        if given.simulate_year:
            drift = given.change_week if given.change_week >= 0 else None
            market = simulate(weeks=given.weeks, skus_per_week=given.skus_per_week, complete=True, drift_week=drift,
                              seed=given.seed)  # fmt: skip
            signals, skus = market.signals, market.skus
            settings = parse_settings({**YEAR, "seed": given.seed})
            launches = skus["launched_at"].min() + pd.to_timedelta(range(given.weeks), unit="W")
            start = start or launches[min(given.first_week, given.weeks - 1)]
            # The first batch that was tested under the new rates is known a week later.
            change = None if drift is None or drift >= given.weeks else launches[drift]
        else:
            signals, skus, settings = given.signals, given.skus, hf.load_settings(given.settings)
        tags = {"settings_digest": settings.digest(), "seed": str(settings.seed)}
        store = {"experiment": given.experiment, "folder_for_store": given.out / "mlruns"}
        # A registry of its own, and a name of its own in it: no champion that serves, or that knows what came later.
        with store_at(given.out / "mlruns"), recorded("backtest", kind="backtest", tags=tags, **store) as run:
            done = backtest(
                signals,
                skus,
                settings,
                name=f"backtest-{run.run_id[:8]}",
                start=start,
                retrain_every=given.retrain_every,
                watch=not given.no_watch,
                carry_out=given.simulate_year,
                sabotage=given.simulate_year and not given.no_sabotage,
                parent=run,
                progress=lambda words: print(f"... {words}", file=sys.stderr),
                **store,
            )
            files = write(done, given.out, change)
            run.log(metrics=figures(done, change))
            for file in files:
                run.file(file)
    except hf.HitfinderError as refused:
        print(f"error: {' '.join(str(refused).split())}", file=sys.stderr)
        return 1
    print(say(done, change))
    for file in files:
        print(f"wrote {file}")
    return 0


def write(done: Backtest, folder: Path, change: pd.Timestamp | None) -> list[Path]:
    """Write tables, picture and figures, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        "weeks.csv": done.weeks.to_csv(index=False).encode(),
        "lists.csv": done.lists.to_csv(index=False).encode(),
        "retrainings.csv": done.retrainings.to_csv(index=False).encode(),
        "backtest.png": draw_walk(done.weeks, done.lists, done.retrainings, change=change),
        "figures.json": json.dumps(figures(done, change), indent=1).encode(),
        "summary.txt": say(done, change).encode(),
    }
    for name, content in contents.items():
        with replacing(folder / name) as partial:
            partial.write_bytes(content)
    return [folder / name for name in contents]


def figures(done: Backtest, change: pd.Timestamp | None) -> dict[str, float]:
    """Return all that the summary says as flat figures."""
    told: dict[str, Any] = {f"monitor.{name}": value for name, value in done.alarms(change).items()}
    tried, promoted = done.sabotage()
    told.update({"sabotage.tried": tried, "sabotage.promoted": promoted})
    for part, (first, last) in parts(change).items():
        for ranker, row in done.between(first, last).iterrows():
            told.update({f"{part}.{str(ranker).replace(' ', '_')}.{name}": value for name, value in row.items()})
    sums = done.weeks[["skus", "stopped", "explored", "scaled", "hits", "hits_scaled", "hits_stopped"]].sum()
    told.update({f"decided.{name}": value for name, value in sums.items()})
    return {name: float(value) for name, value in told.items() if value == value}


def parts(change: pd.Timestamp | None) -> dict[str, tuple[Any, Any]]:
    """Return the stretches that are told apart: before a change, the six weeks after it, and from then on."""
    if change is None:
        return {"all": (None, None)}
    learned = change + pd.Timedelta(weeks=7)
    return {"before": (None, change + pd.Timedelta(days=1)), "just_after": (change + pd.Timedelta(days=1), learned),
            "later": (learned, None)}  # fmt: skip


def say(done: Backtest, change: pd.Timestamp | None) -> str:
    """Return the summary."""
    lines = [f"{len(done.weeks)} weekly lists, {len(done.retrainings)} retrainings"]
    for part, (first, last) in parts(change).items():
        lines += ["", f"{part.replace('_', ' ')}:", done.between(first, last).round(3).to_string()]
    for other in (FROZEN, RULE):
        if other in set(done.lists["ranker"]):
            lead = done.lead(other)
            lines.append(
                f"lead over {other}: value at k {lead['mean']:+.3f} ({lead['low']:+.3f} to {lead['high']:+.3f})"
            )
    found = done.alarms(change)
    if found["quiet_looks"]:
        lines.append(f"monitor: {found['false_alarms']:.0f} false alarms in {found['quiet_looks']:.0f} looks")
    if change is not None and found["quiet_looks"]:
        late = found["weeks_to_alarm"]
        lines.append(
            "the change was never noticed" if late != late else f"the change was noticed after {late:.0f} weeks"
        )
    tried, promoted = done.sabotage()
    if tried:
        lines.append(f"sabotaged challengers: {tried} held against a champion, {promoted} promoted")
    sums = done.weeks[["skus", "stopped", "explored", "scaled", "hits", "hits_scaled", "hits_stopped"]].sum()
    lines.append("decided: " + ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in sums.items()))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
