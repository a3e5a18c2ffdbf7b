"""Whether probabilities, ranking and the promise about stopping hold on batches that closed since the fit.

The batch is the unit throughout: SKUs of one batch share a season and a crowd, so the scatter between batches is what
a figure is held against.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import floor
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from hitfinder.curves import calibration_curve
from hitfinder.metrics import calibration_error, list_metrics
from hitfinder.models.hit_model import HitModel
from hitfinder.models.rules import rule_scores
from hitfinder.promise import PATIENCE, STAKES, StopPromise, check_promise

__all__ = [
    "TOLERANCE",
    "Outcomes",
    "bet_on_losses",
    "judge_outcomes",
    "lost_by_decisions",
    "shortfall",
    "wealth_of_decisions",
]

Array = npt.NDArray[np.float64]

# Fewer closed batches than these have no scatter to speak of.
MIN_BATCHES = 4
# A model that is this much off is no alarm yet: in sums of hits, and in hits found of those promised out of time.
TOLERANCE = 0.25


@dataclass(frozen=True)
class Outcomes:
    """What became of the batches that closed since the fit.

    `batches`: one row each, oldest first: `batch_id, launched_at, n_skus, hits, expected, hits_at_k, rule_hits_at_k,
    allowed, lost, lost_too_much`. `curve`: predicted and observed shares. `error`: of calibration.
    """

    batches: pd.DataFrame
    curve: dict[str, list[float]] = field(default_factory=dict)
    error: float = float("nan")
    rule: str | None = None


def judge_outcomes(model: HitModel, later: pd.DataFrame, labels: pd.DataFrame) -> Outcomes:
    """Hold what the model says of each SKU at every moment of its test against what became of it.

    Parameters
    ----------
    model
        Whose `stop` threshold is the one that may lose hits.
    later
        The model's inputs of these SKUs at the moments of their tests.
    labels
        `sku_id, within_group, launched_at, value, hit` of the same SKUs.
    """
    if labels.empty or later.empty:
        return Outcomes(pd.DataFrame(columns=["batch_id", "launched_at", "hits", "expected"]))
    truth = labels.set_index("sku_id")
    rows = later[(later["age_days"] > 0) & later["sku_id"].isin(truth.index)].reset_index(drop=True)
    margin = model.margin(rows)
    beside = truth.reindex(rows["sku_id"])
    looks = pd.DataFrame(
        {
            "sku": rows["sku_id"],
            "batch": beside["within_group"].to_numpy(),
            "moment": rows["as_of"],
            "margin": margin,
            "probability": model.estimator.calibration_.interval(margin)[0],
            "hit": beside["hit"].to_numpy(dtype=float),
            "value": beside["value"].to_numpy(dtype=float),
        }
    )
    rule = model.report.get("best_rule")
    scores = rule_scores(rows)
    looks["rule"] = scores.get(str(rule), np.nan)
    end = looks.loc[looks.groupby("sku")["moment"].idxmax()]
    lowest = looks.groupby("sku")["margin"].min()
    lists = looks.groupby(["batch", "moment"]).ngroup()
    found = _found(looks, lists, "margin")
    ruled = _found(looks, lists, "rule") if rule in scores and rule != model.winner else {}
    out = []
    for batch, group in end.groupby("batch", sort=False):
        hits = int(group["hit"].sum())
        lost = int((lowest.reindex(group.loc[group["hit"] > 0, "sku"]) < model.thresholds["stop"]).sum())
        allowed = floor(model.settings.policy.max_hits_lost * hits + 1e-9)
        out.append(
            {
                "batch_id": batch,
                "launched_at": truth.loc[group["sku"], "launched_at"].min(),
                "n_skus": len(group),
                "hits": hits,
                "expected": float(group["probability"].sum()),
                "hits_at_k": found.get(str(batch), np.nan),
                "rule_hits_at_k": ruled.get(str(batch), np.nan),
                "allowed": allowed,
                "lost": lost,
                "lost_too_much": int(lost > allowed),
            }
        )
    batches = pd.DataFrame(out).sort_values(["launched_at", "batch_id"], kind="stable", ignore_index=True)
    p, y, one = end["probability"].to_numpy(), end["hit"].to_numpy(), np.ones(len(end))
    return Outcomes(batches, calibration_curve(p, y, one), calibration_error(p, y, one), rule if ruled else None)


def shortfall(got: npt.ArrayLike, due: npt.ArrayLike) -> float:
    """Return the p-value of "no less is got than is due", by Student's t over batches; NaN with fewer than four.

    >>> round(shortfall([1, 0, 1, 2, 1], [3.0, 3, 3, 3, 3]), 4)
    0.0016
    """
    difference = np.asarray(got, dtype=float) - np.asarray(due, dtype=float)
    difference = difference[np.isfinite(difference)]
    n = len(difference)
    if n < MIN_BATCHES:
        return float("nan")
    # Batches that are all alike have no scatter; a tenth of a hit is always doubtful.
    error = max(float(difference.std(ddof=1)), 0.1) / np.sqrt(n)
    return float(stats.t.cdf(difference.mean() / error, n - 1))


def bet_on_losses(lost_too_much: npt.ArrayLike, promise: StopPromise) -> Array:
    """Return the wealth, after each batch, of betting that a threshold loses more than it was learned to lose.

    One threshold serves all these batches, so a lucky or unlucky one is so for all of them. Where past and new batches
    are exchangeable, the next one loses too much with a chance of (k + losses so far) / (m + 1 + batches so far), the
    threshold being the k-th smallest of m scores: the urn of Pólya and Eggenberger (1923). The bets are those of
    `promise.check_promise` at these odds: by Ville's inequality the wealth ever reaches 1 / a with a chance of at most
    a, however often one looks.

    >>> promise = StopPromise(threshold=0.1, max_hits_lost=0.1, confidence=0.9, n_batches=19, needed=9)
    >>> [round(float(bet_on_losses([lost] * 5, promise)[-1]), 1) for lost in (0, 1)]
    [0.8, 11.4]
    """
    m = promise.n_batches
    k = max(floor((1 - promise.confidence) * (m + 1) + 1e-9), 1)
    pots, losses, wealth = np.zeros(len(STAKES)), 0, []
    for t, lost in enumerate(np.asarray(lost_too_much, dtype=int).tolist(), start=1):
        chance = (k + losses) / (m + t)
        pots = pots + PATIENCE / ((t + PATIENCE - 1) * (t + PATIENCE)) / len(STAKES)
        pots = pots * (1 - STAKES + STAKES * lost / chance)
        losses += lost
        wealth.append(float(pots.sum() + PATIENCE / (t + PATIENCE)))
    return np.asarray(wealth)


def lost_by_decisions(con: Any, labels: pd.DataFrame, model: HitModel, moment: pd.Timestamp) -> pd.DataFrame:
    """Count, for each closed batch with decisions, the hits that were told to stop: `batch_id, hits, lost, ...`.

    A SKU that was stopped and became a hit all the same counts as lost. One that had no chance to become a hit because
    it was stopped can't be counted; what is lost is at least this.
    """
    told = con.execute(
        "select sku_id, max(case when action = 'stop' then 1 else 0 end) as stopped from decisions "
        "where decided_at <= $moment group by sku_id",
        {"moment": moment.to_pydatetime()},
    ).df()
    rows = labels.merge(told, on="sku_id", how="inner")
    rows = rows[rows["hit"].astype(bool)]
    policy = model.settings.policy
    by_batch = rows.groupby("within_group", sort=False)
    out = by_batch.agg(launched_at=("launched_at", "min"), hits=("hit", "size"), lost=("stopped", "sum")).reset_index()
    out = out.rename(columns={"within_group": "batch_id"}).sort_values("launched_at", kind="stable", ignore_index=True)
    allowed = np.floor(policy.max_hits_lost * out["hits"].to_numpy(dtype=float) + 1e-9)
    return out.assign(lost_too_much=(out["lost"].to_numpy(dtype=float) > allowed).astype(int))


def wealth_of_decisions(lost: pd.DataFrame, model: HitModel, allowed: float) -> Array:
    """Return the wealth of `check_promise` on what decisions lost: each was taken by a threshold of its own time."""
    check = check_promise(lost["lost_too_much"], confidence=model.settings.policy.confidence, false_alarm=allowed)
    return np.asarray(check.wealth)


def _found(looks: pd.DataFrame, lists: pd.Series, score: str) -> dict[str, float]:
    """Return hits at k of each batch, averaged over its lists."""
    per_list = list_metrics(lists, looks["hit"], looks["value"], looks[score])
    batch = looks["batch"].groupby(lists).first()
    mean = per_list["hits_at_k"].groupby(batch.reindex(per_list.index)).mean()
    return {str(name): float(value) for name, value in mean.items()}
