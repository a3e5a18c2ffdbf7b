"""The verdict: whether the best trial's settings replace those that were given, and in which words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from hitfinder.metrics import bootstrap_difference
from hitfinder.settings import TreeSettings
from hitfinder.tuning.folds import TuningFold

__all__ = ["judge", "said"]


def judge(
    searched: Sequence[TuningFold],
    newest: TuningFold,
    given: TreeSettings,
    best: TreeSettings,
    *,
    members: Sequence[int],
    seed: int,
) -> dict[str, Any]:
    """Hold the best trial's settings against the given ones, on the folds of the search and on the newest.

    Both are fitted anew, by `members` (as many as the final model has) whose seeds the search did not use: in a search
    the luck of a member's draws counts as skill. The best of many trials also looks better on the folds of
    the search than it is. So it replaces what was given only where, on those folds, the bootstrap over batches puts the
    whole of its 90 % interval above 0, and where on the newest fold, which the search never saw, it is not worse.

    Returns
    -------
    dict
        `helped`; `search` and `out_of_time`, each with `given`, `best`, `gain`, its `low`, `high` and `chance`, and
        `batches`; `folds`, one entry each.
    """
    folds = [*searched, newest]
    values = {
        name: [fold.value_at_k(trees, members) for fold in folds] for name, trees in (("given", given), ("best", best))
    }
    told = [
        {
            **fold.about,
            "role": "search" if fold is not newest else "held out",
            "given": float(values["given"][n].mean()),
            "best": float(values["best"][n].mean()),
        }
        for n, fold in enumerate(folds)
    ]
    search = _gain(values["given"][:-1], values["best"][:-1], seed)
    after = _gain(values["given"][-1:], values["best"][-1:], seed)
    helped = best != given and search["low"] > 0 and after["gain"] >= 0
    return {"helped": helped, "search": search, "out_of_time": after, "folds": told}


def _gain(given: list[pd.Series], best: list[pd.Series], seed: int) -> dict[str, float]:
    a, b = pd.concat(best, ignore_index=True), pd.concat(given, ignore_index=True)
    gain = bootstrap_difference(a, b, pd.Series(range(len(a))), seed=seed)
    return {
        "given": float(b.mean()),
        "best": float(a.mean()),
        "gain": gain.mean,
        "low": gain.low,
        "high": gain.high,
        "chance": gain.positive,
        "batches": float(len(a)),
    }


def said(verdict: dict[str, Any], *, same: bool) -> str:
    """Put a verdict into words."""
    if same:
        return "tuning did not help: no trial beat the settings that were given; they stay"
    search, after = verdict["search"], verdict["out_of_time"]
    figures = (
        f"value captured at k {search['best']:.3f} on the folds searched, {search['given']:.3f} as given "
        f"({_words(search)}); on the newest fold, which the search did not see, {after['best']:.3f} and "
        f"{after['given']:.3f} ({_words(after)})"
    )
    if verdict["helped"]:
        return f"tuning helped: {figures}; the tuned settings are used"
    if search["low"] <= 0:
        why = "the best trial is not better beyond its bootstrap error"
    else:
        why = "the best trial is worse where the search did not look"
    return f"tuning did not help: {why}: {figures}; the settings that were given stay"


def _words(gain: dict[str, float]) -> str:
    return f"{gain['gain']:+.3f}, 90 % interval {gain['low']:+.3f} to {gain['high']:+.3f}"
