"""A champion, a later challenger and a sabotaged one on a small market, fitted once per process."""

from __future__ import annotations

from functools import cache

import pandas as pd

from hitfinder.admission import admit_signals_and_skus
from hitfinder.replays import shuffled
from hitfinder.settings import parse_settings
from hitfinder.simulate import simulate
from hitfinder.training import fit_admitted
from hitfinder.warehouse import open_warehouse

SETTINGS = parse_settings(
    {
        "label": {"outcome_window": "7d", "top_share": 0.15},
        "model": {"ages": 2, "seeds": 1, "folds": 2, "threads": 1},
    }
)
WEEK = pd.Timedelta(days=7)
START = pd.Timestamp("2025-01-06")
WEEKS = 12
# Every window has closed, and every report has come.
NOW = START + WEEK * (WEEKS + 4)


@cache
def tables():
    """Return (signals, skus). Days are the exposure: fits without impressions are quick."""
    market = simulate(weeks=WEEKS, skus_per_week=40, hits_per_week=4, complete=True, seed=3)
    return market.signals.drop(columns=["impressions", "spend"]), market.skus


@cache
def fitted_as_of(week, sabotaged=False, deal=8):
    """Fit as of the Monday of a week, with labels dealt out anew if sabotaged.

    Not every deal does damage: by some, a rule happens to look best, and a model that a rule ranks for ranks as well as
    that rule. `deal` 8 is one by which a learned model ranks.
    """
    signals, skus = tables()
    con = open_warehouse(threads=1)
    try:
        admissions = admit_signals_and_skus(con, signals, skus, period=SETTINGS.signals.period)
        relabel = shuffled(deal) if sabotaged else None
        return fit_admitted(con, SETTINGS, START + WEEK * week, admissions, outcomes_given=False, relabel=relabel)
    finally:
        con.close()
