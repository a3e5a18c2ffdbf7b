"""Tuning: seconds per trial with and without reuse of bins, and what a search gains out of time.

    python benchmarks/tuning.py [--weeks 20] [--skus-per-week 60] [--repeats 5]
    python benchmarks/tuning.py --data FOLDER --trials 40 [--settings FILE] [--workers 1] [--study FILE]

The first form simulates a market, makes its folds once, and times one trial of the default settings on them: on bins
that are there already, on bins that are made for each trial, and with all of the folds made anew, as a search would do
that called `fit` for each trial. The second form tunes data of your own and prints what the search came to.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hitfinder.admission import admit_signals_and_skus
from hitfinder.features import moment_of_knowledge
from hitfinder.history import know
from hitfinder.models import boosted
from hitfinder.settings import Settings, load_settings, parse_settings
from hitfinder.simulate import simulate
from hitfinder.tuning import tune
from hitfinder.tuning.folds import TuningFold, tuning_folds
from hitfinder.warehouse import open_warehouse


class Unbinned:
    """Rows as they are, binned again for every fit."""

    def __init__(self, *rows: object, **lists: object) -> None:
        self.rows, self.lists = rows, lists

    def fit(self, *settings: object, **fixed: object) -> str:
        """Bin, and fit once."""
        return BINNED(*self.rows, **self.lists).fit(*settings, **fixed)


BINNED = boosted.BinnedRows


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Return the median time of a call."""
    took = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def time_trials(settings: Settings, signals: Any, sku_table: Any, repeats: int) -> None:
    """Print what one trial costs with and without reuse."""
    from hitfinder.tuning import folds as module

    con = open_warehouse(threads=settings.model.threads)
    admit_signals_and_skus(con, signals, sku_table, period=settings.signals.period, warn=False)
    history, _ = know(con, settings, moment_of_knowledge(con, None), outcomes_given=False)

    def made(rows: type) -> tuple[list[TuningFold], float]:
        module.BinnedRows = rows  # type: ignore[misc,assignment]
        began = time.perf_counter()
        folds = tuning_folds(history)[:-1]
        return folds, time.perf_counter() - began

    def trial(folds: list[TuningFold]) -> None:
        for fold in folds:
            fold.value_at_k(settings.trees, range(2))

    folds, preparing = made(BINNED)
    fresh, _ = made(Unbinned)
    module.BinnedRows = BINNED  # type: ignore[misc]
    for one, other in zip(folds, fresh, strict=True):
        if not one.value_at_k(settings.trees).equals(other.value_at_k(settings.trees)):
            raise SystemExit("bins that are used again gave another figure")
    reused, binned = (seconds(lambda made=made: trial(made), repeats) for made in (folds, fresh))
    skus = sum(fold.about["learned_from"] for fold in folds)
    print(f"{len(folds)} folds, {skus:,} SKUs to learn from, {folds[0].X.shape[1]} columns; median of {repeats}")
    print(f"{'':38}{'s per trial':>12}{'ratio':>8}")
    for what, took in (
        ("folds and bins made once", reused),
        ("bins made for each fit", binned),
        ("folds and bins made for each trial", preparing + reused),
    ):
        print(f"{what:38}{took:>12.2f}{took / reused:>8.1f}")
    history.close()
    con.close()


def parser() -> argparse.ArgumentParser:
    """Return the script's arguments."""
    out = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    out.add_argument("--weeks", type=int, default=20)
    out.add_argument("--skus-per-week", type=int, default=60)
    out.add_argument("--repeats", type=int, default=5)
    out.add_argument("--data", type=Path, help="a folder with signals.parquet and skus.parquet")
    out.add_argument("--settings", type=Path)
    out.add_argument("--trials", type=int, help="tune --data with so many trials; without, time one trial on it")
    out.add_argument("--workers", type=int, default=1)
    out.add_argument("--study", type=Path)
    return out


def main() -> None:
    """Time trials, or tune."""
    warnings.simplefilter("ignore")
    o = parser().parse_args()
    given = {"label": {"outcome_window": "14d", "top_share": 0.1}, "model": {"threads": 1}}
    settings = load_settings(o.settings) if o.settings else parse_settings(given)
    if o.data is None:
        market = simulate(weeks=o.weeks, skus_per_week=o.skus_per_week, complete=True, seed=0)
        time_trials(settings, market.signals, market.skus, o.repeats)
        return
    tables = (str(o.data / "signals.parquet"), str(o.data / "skus.parquet"))
    if o.trials is None:
        time_trials(settings, *tables, o.repeats)
        return
    tuned = tune(*tables, settings, trials=o.trials, workers=o.workers, study=o.study, progress=print)
    report = tuned.report
    print(report["note"])
    print("trials:", report["trials"], "seconds:", {name: round(took, 2) for name, took in report["seconds"].items()})
    for fold in report.get("folds", []):
        launched = f"launched {fold['first_launch'][:10]} to {fold['last_launch'][:10]}"
        learned = f"{fold['batches']} batches, learned from {fold['learned_from']} SKUs"
        print(f"  {fold['role']:9}{launched}, {learned}: as given {fold['given']:.4f}, best trial {fold['best']:.4f}")
    print("best trial's trees:", report.get("trees", {}).get("best"))
    print("importance:", {name: round(share, 2) for name, share in report.get("importance", {}).items()})


if __name__ == "__main__":
    main()
