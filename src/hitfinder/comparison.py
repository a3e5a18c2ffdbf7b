"""Comparison: learned models and simple rules held against each other, list by list, and which of them ranks."""

from __future__ import annotations

from typing import Any

import pandas as pd

from hitfinder.metrics import bootstrap_difference, calibration_error, list_metrics, summarise

__all__ = ["LEARNED", "MIN_BATCHES", "compare", "simplest_good", "units_of"]

LEARNED = ("prior", "boosted", "ranker")
# Fewer batches than these can't tell luck from skill, nor a title's worth from its season's.
MIN_BATCHES = 6
# A rule that is ahead by more than this need not be so beyond all doubt: it is enough that the model was ahead in less
# than such a share of the draws of a plain bootstrap.
MARGIN = 0.1
FAIR_CHANCE = 0.2


def compare(judged: pd.DataFrame, test_window: pd.Timedelta, seed: int) -> dict[str, Any]:
    """Hold every score against every other, list by list.

    The best of many rules always looks a little better than it is. So a rule takes over only where it is better beyond
    its bootstrap error, or by more than a margin in most draws; the report says whether the model beat it, it the
    model, or neither the other.
    """
    names = [
        c.removeprefix("score:") for c in map(str, judged) if c.startswith("score:") and not c.endswith(".probability")
    ]
    per_list = {
        name: list_metrics(judged["list"], judged["hit"], judged["value"], judged[f"score:{name}"])
        for name in names
        if judged[f"score:{name}"].notna().all()
    }
    metrics = {name: summarise(table) for name, table in per_list.items()}
    for name in per_list:
        probability = judged[f"score:{name}.probability"]
        metrics[name]["calibration_error"] = calibration_error(probability, judged["hit"], judged["weight"])
    ranked = {name: m["average_precision"] for name, m in metrics.items() if m.get("lists")}
    rules = {name: score for name, score in ranked.items() if name not in LEARNED}
    kinds = {name: score for name, score in ranked.items() if name in LEARNED}
    if not kinds:  # lists too short to judge by: the plainest learned model
        return {"ranked_by": "prior", "metrics": metrics, "note": "too few lists to compare by"}
    units = units_of(judged, test_window)
    best_kind = simplest_good(per_list, units, seed)
    best_rule = max(sorted(rules), key=lambda name: rules[name]) if rules else None
    report: dict[str, Any] = {"metrics": metrics, "best_kind": best_kind, "best_rule": best_rule}
    if best_rule is None:
        return {**report, "ranked_by": best_kind, "note": "no simple rule could be scored"}
    own, its = (per_list[name]["average_precision"] for name in (best_kind, best_rule))
    lead = bootstrap_difference(own, its, units, seed=seed, widened=True)
    plain = bootstrap_difference(own, its, units, seed=seed)
    far_behind = lead.mean < -MARGIN and plain.positive < FAIR_CHANCE
    low, high = max(lead.low, -1.0), min(lead.high, 1.0)  # no average precision is further from another
    report["lead_over_best_rule"] = {"mean": lead.mean, "low": low, "high": high, "chance": lead.positive}
    said = f"by {lead.mean:+.3f} average precision ({low:+.3f} to {high:+.3f})"
    if low > 0:
        note = f"the model ({best_kind}) beats the best rule ({best_rule}) {said}; it ranks"
        return {**report, "ranked_by": best_kind, "note": note}
    if high >= 0 and not far_behind:
        side = "ahead of" if lead.mean > 0 else "behind"
        note = f"the model ({best_kind}) is {side} the best rule ({best_rule}) {said}, within the error; it ranks"
        return {**report, "ranked_by": best_kind, "note": note}
    note = f"the model ({best_kind}) does not beat the best rule ({best_rule}), {said}; that rule ranks"
    return {**report, "ranked_by": best_rule, "note": note}


def units_of(judged: pd.DataFrame, test_window: pd.Timedelta) -> pd.Series:
    """Return what is resampled for each list: its batch or, where batches are few, its stretch of time."""
    batch = judged.groupby("list")["batch_id"].max()
    if batch.nunique() >= MIN_BATCHES:
        return batch
    moments = judged.groupby("list")["as_of"].first()
    stretches: pd.Series = (moments - moments.min()) // test_window
    return stretches


def simplest_good(per_list: dict[str, pd.DataFrame], units: pd.Series, seed: int) -> str:
    """Return the last of `prior`, `boosted`, `ranker` that beats the one chosen so far beyond its bootstrap error.

    With few batches the most flexible model often looks best by luck, and the next season shows it; with fewer than
    MIN_BATCHES there is no telling.
    """
    chosen = LEARNED[0]
    if units.nunique() < MIN_BATCHES or pd.api.types.is_numeric_dtype(units):
        return chosen
    for kind in LEARNED[1:]:
        a, b = per_list[kind]["average_precision"], per_list[chosen]["average_precision"]
        if bootstrap_difference(a, b, units, seed=seed).low > 0:
            chosen = kind
    return chosen
