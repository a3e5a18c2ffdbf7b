"""Whether probabilities, ranking and the promise about stopping hold on batches that closed since the fit.

The batch is the unit throughout: SKUs of one batch share a season and a crowd, so the scatter between batches is what
a figure is held against.

Where it is told what was decided, only outcomes that were not cut off by a stop count, and the SKUs that chance kept on
stand in for the stopped ones (see `hitfinder.selection`).
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
from hitfinder.selection import weigh_seen
from hitfinder.settings import Settings
from hitfinder.warehouse import frame, load_sql

__all__ = [
    "TOLERANCE",
    "Outcomes",
    "Seen",
    "bet_on_losses",
    "judge_outcomes",
    "lost_by_decisions",
    "seen_outcomes",
    "shortfall",
    "wealth_of_decisions",
]

Array = npt.NDArray[np.float64]

# Fewer closed batches than these have no scatter to speak of.
MIN_BATCHES = 4
# A model that is this much off is no alarm yet: in sums of hits, and in hits found of those promised out of time.
TOLERANCE = 0.25
# The estimate of what a batch lost is rough: one SKU may stand for twenty. It counts as too much only where a batch
# that lost no more than allowed would show so many with at most this chance; the bets are made at odds that know it.
LUCK = 0.01


@dataclass(frozen=True)
class Seen:
    """Outcomes that were not cut off.

    `labels`: of these, with `weight`: how many SKUs of its group each stands for, 1 or more; and `decided`: whether
    anything was decided about it in time. `n_blind`: groups left out, since SKUs were stopped there and nobody could
    stand in for them.
    """

    labels: pd.DataFrame
    n_blind: int = 0


def seen_outcomes(con: Any, labels: pd.DataFrame, settings: Settings, *, decisions_given: bool) -> Seen:
    """Leave out labels that a stop cut off, weigh the others, and judge anew who was a hit.

    A group that hits are taken in (the batch, or what `label.within` names) and in which SKUs were stopped is judged
    only where chance could have kept them on, and only if it did keep on somebody, in whatever group: those that are
    left otherwise are the model's own choice and would prove it right.

    Parameters
    ----------
    con
        After `labels.label`; with `decisions_given` also with the admitted table `decisions`.
    labels
        Usable rows of `labels.label`.
    """
    if labels.empty or not decisions_given:
        return Seen(labels.assign(weight=1.0, decided=False))
    seen, _ = weigh_seen(con, labels.assign(weight=1.0), settings)
    paths = frame(con, f"select * from ({load_sql('paths')}) order by sku_id, decided_at")
    stop = paths["action"] == "stop"
    stopped = labels["sku_id"].isin(paths.loc[stop & (paths["place"] == 1), "sku_id"])
    cut = set(labels.loc[stopped, "within_group"])
    chance = paths["propensity"].astype(float).fillna(1.0)
    kept = chance[~stop].groupby(paths["sku_id"]).prod().reindex(seen["sku_id"]).fillna(1.0).to_numpy()
    # A coin is thrown at a SKU's first stop; what follows from it is certain.
    tossed = labels["sku_id"].isin(paths.loc[stop & (chance < 1), "sku_id"])
    by_chance = seen.loc[kept < 1, "within_group"]
    fair = set(by_chance) | set(labels.loc[stopped & tossed, "within_group"]) if len(by_chance) else set()
    blind = cut - fair
    seen = seen.assign(
        weight=np.minimum(1 / kept, settings.policy.max_weight), decided=seen["sku_id"].isin(paths["sku_id"])
    )
    return Seen(seen[~seen["within_group"].isin(blind)].reset_index(drop=True), len(blind))


@dataclass(frozen=True)
class Outcomes:
    """What became of the batches that closed since the fit.

    `batches`: one row each, oldest first: `batch_id, launched_at, n_skus, hits, expected, hits_at_k, rule_hits_at_k,
    allowed, lost, lost_too_much`; counts are by weight. `curve`: predicted and observed shares. `error`: of
    calibration. `n_blind`: closed groups that can't be judged; see `Seen`.
    """

    batches: pd.DataFrame
    curve: dict[str, list[float]] = field(default_factory=dict)
    error: float = float("nan")
    rule: str | None = None
    n_blind: int = 0


def judge_outcomes(model: HitModel, later: pd.DataFrame, seen: Seen) -> Outcomes:
    """Hold what the model says of each SKU at every moment of its test against what became of it.

    Parameters
    ----------
    model
        Whose `stop` threshold is the one that may lose hits.
    later
        The model's inputs of these SKUs at the moments of their tests.
    seen
        `sku_id, batch, launched_at, value, hit, weight` of the same SKUs.
    """
    labels = seen.labels
    if labels.empty or later.empty:
        return Outcomes(pd.DataFrame(columns=["batch_id", "launched_at", "hits", "expected"]), n_blind=seen.n_blind)
    truth = labels.set_index("sku_id")
    rows = later[(later["age_days"] > 0) & later["sku_id"].isin(truth.index)].reset_index(drop=True)
    margin = model.margin(rows)
    beside = truth.reindex(rows["sku_id"])
    looks = pd.DataFrame(
        {
            "sku": rows["sku_id"],
            "batch": beside["batch"].to_numpy(),
            "moment": rows["as_of"],
            "margin": margin,
            "probability": model.estimator.calibration_.interval(margin)[0],
            "hit": beside["hit"].to_numpy(dtype=float),
            "value": beside["value"].to_numpy(dtype=float),
            "weight": beside["weight"].to_numpy(dtype=float),
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
        of_hits = group["weight"] * group["hit"]
        hits = float(of_hits.sum())
        lost = float(of_hits[(lowest.reindex(group["sku"]) < model.thresholds["stop"]).to_numpy()].sum())
        allowed = model.settings.policy.max_hits_lost * hits
        out.append(
            {
                "batch_id": batch,
                "launched_at": truth.loc[group["sku"], "launched_at"].min(),
                "n_skus": len(group),
                "hits": hits,
                "expected": float((group["weight"] * group["probability"]).sum()),
                "hits_at_k": found.get(str(batch), np.nan),
                "rule_hits_at_k": ruled.get(str(batch), np.nan),
                "allowed": allowed,
                "lost": lost,
                "lost_too_much": int(lost > allowed + 1e-9),
            }
        )
    batches = pd.DataFrame(out).sort_values(["launched_at", "batch_id"], kind="stable", ignore_index=True)
    p, y, weight = (end[name].to_numpy() for name in ("probability", "hit", "weight"))
    error = calibration_error(p, y, weight)
    return Outcomes(batches, calibration_curve(p, y, weight), error, rule if ruled else None, seen.n_blind)


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


def lost_by_decisions(seen: Seen, settings: Settings) -> pd.DataFrame:
    """Estimate, for each closed batch with decisions, the hits that were told to stop: `batch_id, hits, lost, ...`.

    A stop that is carried out cuts off the outcome, so what the stopped would have become is known only from those
    that chance kept on: one that stands for w SKUs stands for w - 1 stopped ones (Horvitz and Thompson, 1952). A stop
    that came when half of the outcome window was over, to sell off what is left, loses nothing. A batch lost too much
    where the estimated share is above `max_hits_lost` and that is not the luck of the draw.
    """
    rows = seen.labels[seen.labels["decided"] & seen.labels["hit"].astype(bool)]
    rows = rows.assign(stopped=rows["weight"] - 1, drawn=rows["weight"] > 1 + 1e-9)
    rows["chance"] = (1 / rows["weight"]).where(rows["drawn"])
    by_batch = rows.groupby("batch", sort=False)
    out = by_batch.agg(
        launched_at=("launched_at", "min"), hits=("weight", "sum"), lost=("stopped", "sum"), drawn=("drawn", "sum"),
        chance=("chance", "mean"),
    )  # fmt: skip
    out = (
        out.rename_axis("batch_id")
        .reset_index()
        .sort_values(["launched_at", "batch_id"], kind="stable", ignore_index=True)
    )
    allowed = settings.policy.max_hits_lost * out["hits"] + 1e-9
    luck = stats.binom.sf(out["drawn"] - 1, np.floor(allowed), out["chance"].fillna(1.0))
    return out.assign(lost_too_much=((out["lost"] > allowed) & (luck <= LUCK)).astype(int))


def wealth_of_decisions(lost: pd.DataFrame, model: HitModel, allowed: float) -> Array:
    """Return the wealth of `check_promise` on what decisions lost: each was taken by a threshold of its own time."""
    confidence = max(model.settings.policy.confidence - LUCK, LUCK)
    check = check_promise(lost["lost_too_much"], confidence=confidence, false_alarm=allowed)
    return np.asarray(check.wealth)


def _found(looks: pd.DataFrame, lists: pd.Series, score: str) -> dict[str, float]:
    """Return hits at k of each batch, averaged over its lists."""
    per_list = list_metrics(lists, looks["hit"], looks["value"], looks[score])
    batch = looks["batch"].groupby(lists).first()
    mean = per_list["hits_at_k"].groupby(batch.reindex(per_list.index)).mean()
    return {str(name): float(value) for name, value in mean.items()}
