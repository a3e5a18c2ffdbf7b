"""Thresholds: from which margin a SKU is scaled, below which it is stopped, and what is promised about it.

All from out-of-fold margins of past SKUs. The promise about stopping takes a SKU's lowest margin over every look at
which it could have been stopped: the ages of its test for the weekly list, the rounds of tests played again under small
budgets for the plan of a running test. Where there is too little history for a promise, or the market has broken it,
the threshold below which at most `policy.max_hits_lost` of all past hits fell, each by its weight, stands in on the
list, a running test stops nobody, and nothing is promised.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hitfinder.history import Examples
from hitfinder.promise import (
    ScalePromise,
    StopPromise,
    check_promise,
    forward_losses,
    promise_needs,
    promise_scale,
    promise_stop,
    withdraw_promise,
)
from hitfinder.settings import PolicySettings

__all__ = ["learn_thresholds"]

Array = npt.NDArray[np.float64]


def learn_thresholds(
    train: Examples, margin: Array, shown: Array, probability: Array, labels: pd.DataFrame, policy: PolicySettings
) -> tuple[dict[str, float], dict[str, StopPromise | ScalePromise]]:
    """Learn from which margin to scale, and below which to stop, on the weekly list and in a running test.

    Parameters
    ----------
    train
        The rows learned from.
    margin, shown, probability
        Their out-of-fold margins, the same titles aside, and what the former are as probabilities.
    labels
        `sku_id, batch, launched_at, weight`.
    policy
        What is to be promised.

    Returns
    -------
    (thresholds, promises)
        `scale` (from it on), `stop` (below it, on a list) and `plan_stop` (below it, in a running test) as margins;
        the promises of the same names.
    """
    own = np.where(train.trial < 0, margin, shown)
    about = labels.set_index("sku_id").reindex(train.table["sku_id"])
    rows = pd.DataFrame(
        {
            "sku": train.table["sku_id"].to_numpy(),
            "batch": about["batch"].to_numpy(),
            "launched": about["launched_at"].to_numpy(),
            "hit": train.hit,
            "weight": about["weight"].to_numpy(dtype=float),
            "place": _places(own),
            "margin": own,
            "probability": probability,
            "age": train.table["age_days"].to_numpy(dtype=float),
            "exposed": train.table["impressions"].to_numpy(dtype=float, na_value=0.0),
            "budget": train.table["budget"].to_numpy(dtype=float),
        }
    )
    really = rows[(train.trial < 0) & (rows["age"] > 0)]
    really = really if really["hit"].any() else rows
    played = rows[(train.trial >= 0) & (rows["exposed"] > 0)]
    thresholds: dict[str, float] = {}
    promises: dict[str, StopPromise | ScalePromise] = {}
    thresholds["stop"], promises["stop"] = _stop(really, policy)
    thresholds["plan_stop"], promises["plan_stop"] = min(
        (_stop(part, policy, played) for part in _budgets_apart(played, policy)),
        key=lambda found: (found[1].holds, found[0]),
    )
    if not promises["plan_stop"].holds:
        # A running test need not give anybody up: who gets no exposures this round may get some in the next.
        thresholds["plan_stop"] = -np.inf
    thresholds["scale"], promises["scale"] = _scale(really, policy)
    # Nobody is told to stop and to scale.
    thresholds["scale"] = max(thresholds["scale"], thresholds["stop"], thresholds["plan_stop"])
    return thresholds, promises


def _budgets_apart(played: pd.DataFrame, policy: PolicySettings) -> list[pd.DataFrame]:
    """Return the looks of tests played under smaller and under larger budgets, for a promise that holds on both.

    Learned on a mixture of budgets, a promise holds on the mixture and is broken more often at those that lose most;
    the stricter of two, each learned on its own half of the budgets, holds on either half (conditional conformal
    prediction, see `hitfinder.promise` [1]), not at each budget in it. Where every batch was played under all budgets
    it is one batch at its worst, and the promise holds at each. Where either half has too few batches for a promise,
    there is one for the mixture.
    """
    budgets = np.unique(played["budget"])
    small = played["budget"] <= np.median(budgets) if len(budgets) else played["budget"] > 0
    halves = [played[small], played[~small]]
    enough = min(half.loc[half["hit"] > 0, "batch"].nunique() for half in halves) >= promise_needs(policy.confidence)
    at_each = len(played) > 0 and played.groupby("batch")["budget"].nunique().min() == len(budgets)
    return halves if enough and not at_each else [played]


def _stop(looks: pd.DataFrame, policy: PolicySettings, every: pd.DataFrame | None = None) -> tuple[float, StopPromise]:
    """Learn a threshold and its promise from `looks`; whether such promises were kept is checked on `every` look.

    So two promises learned apart share one check, with one chance of a false alarm.
    """
    skus, checked = (_lowest(rows) for rows in (looks, looks if every is None else every))
    allowed: dict[str, Any] = {
        "max_hits_lost": policy.max_hits_lost,
        "confidence": policy.confidence,
    }
    promise = promise_stop(skus["batch"], skus["hit"], skus["place"], weight=skus["weight"], **allowed)
    losses = forward_losses(
        checked["batch"], checked["launched"], checked["hit"], checked["place"], weight=checked["weight"], **allowed
    )
    promise = withdraw_promise(promise, check_promise(losses["lost_too_much"], confidence=policy.confidence))
    if promise.holds and promise.threshold is not None:
        return float(skus.loc[skus["place"] == promise.threshold, "margin"].min()), promise
    hits = skus[skus["hit"] > 0].sort_values("margin", kind="stable")
    if hits.empty:
        return -np.inf, promise
    # In hits of mean weight. The first that may not be lost: what is below it may.
    lost = (hits["weight"] / hits["weight"].mean()).cumsum().to_numpy()
    first = int(np.argmax(lost > policy.max_hits_lost * len(hits) + 1e-9))
    return float(hits["margin"].iloc[first]), promise


def _lowest(looks: pd.DataFrame) -> pd.DataFrame:
    return looks.loc[looks.groupby("sku")["place"].idxmin()] if len(looks) else looks


def _scale(looks: pd.DataFrame, policy: PolicySettings) -> tuple[float, ScalePromise]:
    # A lucky look is enough to be scaled.
    best = looks.loc[looks.groupby("sku")["probability"].idxmax()]
    promise = promise_scale(
        best["batch"], best["hit"], best["probability"],
        max_false_scaled=policy.max_false_scaled, confidence=policy.confidence,
    )  # fmt: skip
    if promise.holds and promise.threshold is not None:
        return float(best.loc[best["probability"] >= promise.threshold, "margin"].min()), promise
    # The F1 of scaling from here on: hits and misses balance best. Equal margins are scaled together.
    order = best.sort_values("margin", ascending=False, kind="stable")
    weight = order["weight"].to_numpy() / order["weight"].max()  # equal weights are ones, to the last bit
    found = np.cumsum(order["hit"].to_numpy() * weight)
    named = np.cumsum(weight)
    whole = np.append(order["margin"].to_numpy()[1:], -np.inf) < order["margin"].to_numpy()
    balance = np.where(whole, 2 * found / (named + found[-1]), 0.0)
    return float(order["margin"].iloc[int(np.argmax(balance))]), promise


def _places(margin: Array) -> Array:
    """Return each margin's place among all, in (0, 1): a scale that any score has."""
    values = np.unique(margin)
    places: Array = (np.searchsorted(values, margin) + 1) / (len(values) + 1)
    return places
