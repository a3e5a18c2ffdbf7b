"""A round of a running test: milliseconds of one plan for 300 SKUs, beside the textbook's step and one list.

    python benchmarks/plan.py [--skus 300] [--rounds 6] [--repeats 30]

A simulated market is learned from; its newest batch is on trial, a day a round, and each round is planned with what
was known before it. The peer is a step of top-k Thompson sampling on the same counts: it gets its arrays for nothing,
reads no table, and knows neither siblings nor funnel. The list is `rank` of the same tables. All three are called in
turn, so that whatever else the machine does is done to all of them.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import pandas as pd

import hitfinder as hf
from hitfinder.policies import TopKThompson
from hitfinder.settings import parse_settings
from hitfinder.simulate import simulate
from hitfinder.trial import View

CAP, SLOTS = 3_000, 9
SETTINGS = {"label": {"top_share": 0.03}, "model": {"ages": 4, "folds": 2}}


def milliseconds(works: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Time each work as often as asked, in turn, once it is warm."""
    took: dict[str, list[float]] = {name: [] for name in works}
    for repeat in range(repeats + 2):
        for name, work in works.items():
            began = time.perf_counter()
            work()
            if repeat >= 2:
                took[name].append((time.perf_counter() - began) * 1e3)
    return took


def view_of(signals: pd.DataFrame, batch: pd.DataFrame, left: int, place: int, rounds: int) -> View:
    """Return what the peer knows before a round."""
    sums = signals.groupby("sku_id")[["impressions", "clicks"]].sum().reindex(batch["sku_id"]).fillna(0)
    bought = sums["impressions"].to_numpy(dtype=np.int64)
    return View(
        sku_id=batch["sku_id"].to_numpy(dtype=object),
        batch=np.zeros(len(batch), dtype=np.int64),
        bought=bought,
        counts={"clicks": sums["clicks"].to_numpy(dtype=float)},
        room=np.maximum(CAP - bought, 0),
        left=np.array([left]),
        slots=np.array([SLOTS]),
        round=place,
        rounds=rounds,
    )


def parser() -> argparse.ArgumentParser:
    """Return the script's arguments."""
    out = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    out.add_argument("--skus", type=int, default=300)
    out.add_argument("--rounds", type=int, default=6)
    out.add_argument("--repeats", type=int, default=30)
    return out


def main() -> None:
    """Print the table."""
    given = parser().parse_args()
    market = simulate(weeks=10, skus_per_week=given.skus, seed=0)
    model = hf.fit(market.signals, market.skus, parse_settings(SETTINGS))
    launch = market.skus["launched_at"].max()
    batch = market.skus[market.skus["launched_at"] == launch].head(given.skus).reset_index(drop=True)
    all_signals = market.signals[market.signals["sku_id"].isin(batch["sku_id"])]
    left, peer = 500 * len(batch), TopKThompson("clicks")
    print(f"{len(batch)} SKUs, {len(model.rates)} rates, ranked by {model.winner}; milliseconds, best / median")
    print(f"{'round':>5}{'rows':>8}{'plan':>14}{'Thompson step':>16}{'rank':>14}")
    for place in range(given.rounds):
        now = launch + pd.Timedelta(days=place)
        signals = all_signals[all_signals["known_at"] <= now].reset_index(drop=True)
        view = view_of(signals, batch, left, place, given.rounds)

        def plan(
            now: pd.Timestamp = now, signals: pd.DataFrame = signals, rounds_left: int = view.rounds_left
        ) -> object:
            return hf.plan(model, signals, batch, as_of=now, exposures=left, rounds_left=rounds_left, slots=SLOTS,
                           exposure_cap=CAP)  # fmt: skip

        def step(view: View = view) -> object:
            return peer.spend(view, np.random.default_rng(0))

        def rank(now: pd.Timestamp = now, signals: pd.DataFrame = signals) -> object:
            return hf.rank(model, signals, batch, as_of=now)

        took = milliseconds({"plan": plan, "step": step, "rank": rank}, given.repeats)
        cells = [f"{min(values):.0f} / {statistics.median(values):.0f}" for values in took.values()]
        print(f"{place + 1:>5}{len(signals):>8,}{cells[0]:>14}{cells[1]:>16}{cells[2]:>14}", flush=True)


if __name__ == "__main__":
    main()
