"""A market whose rates change in its last week, and what a monitor saw before and after; made once per process."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pandas as pd
from small_market import fitted

from hitfinder.monitor import monitor
from hitfinder.simulate import simulate

START = pd.Timestamp("2025-01-06")
WEEKS = 20


def end_of(week):
    """Return the moment at which a week, counted from 1, is over."""
    return START + pd.Timedelta(days=7 * week)


@cache
def market():
    """Return the market; its last week, the 20th, has other rates."""
    return simulate(weeks=WEEKS, skus_per_week=40, hits_per_week=4, seed=11, drift_week=WEEKS - 1)


@cache
def model():
    """Return the model that is watched: of another market of the same kind, said to be fitted after six weeks."""
    made = fitted()[1]
    return replace(made, report={**made.report, "as_of": end_of(6).isoformat()})


@cache
def seen(week):
    """Return the health as of the end of a week."""
    return monitor(model(), market().signals, market().skus, as_of=end_of(week))


def raised(health):
    """Return the checks that raised an alarm."""
    return set(health.checks.loc[health.checks["state"] == "alarm", "check"])
