"""The lists that models and rules are judged on: batches at the moments of their test, each scored by everybody."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hitfinder.features import count_pairs, features, find_training_moments, observe, set_scope
from hitfinder.gate.unseen import learned_until
from hitfinder.history import LATE
from hitfinder.labels import label
from hitfinder.metrics import list_metrics
from hitfinder.models.hit_model import HitModel
from hitfinder.models.linear import LinearPrior
from hitfinder.models.rules import counted_names, fit_logistic_rule, plain_counts, rule_scores
from hitfinder.selection import weigh_seen

__all__ = ["Logistic", "learned_rule", "per_batch", "score_lists"]

Array = npt.NDArray[np.float64]
Logistic = tuple[LinearPrior, list[str]]

# A probability is never taken for more certain than this: one surprise must not decide.
SUREST = 1e-3


def score_lists(
    con: Any, labels: pd.DataFrame, models: dict[str, HitModel], rule: str | None, logistic: Logistic | None
) -> pd.DataFrame:
    """Score the labelled SKUs of some batches at every moment of their test after the launch.

    Parameters
    ----------
    con
        With the scope and the labels of the moment at which the batches had closed; see `unseen_batches`.
    labels
        Of whole batches; see `Unseen`.
    models
        By the names that their columns get.
    rule
        The rule to score beside them.
    logistic
        That rule, where it is the logistic regression; see `learned_rule`.

    Returns
    -------
    pandas.DataFrame
        `as_of, sku_id, batch_id, age_share, hit, value, list`, for each model its margin as `<name>` and its
        probability as `<name>.probability`, and the rule's score as `rule`.
    """
    skus = con.execute("select * from skus order by sku_id").df()
    judged = pd.DataFrame()
    for name, model in models.items():
        table = model.describe(_look_back(con, labels, model), skus)
        if judged.empty:
            judged = table[["as_of", "sku_id", "batch_id", "age_share", "age_days"]].copy()
            if rule is not None:
                judged["rule"] = _rule_score(table, rule, logistic)
        margin = model.margin(table)
        judged[name], judged[f"{name}.probability"] = margin, model.estimator.calibration_.interval(margin)[0]
    judged = judged[judged["sku_id"].isin(labels["sku_id"]) & (judged["age_days"] > 0)].drop(columns="age_days")
    truth = labels.set_index("sku_id").reindex(judged["sku_id"])
    judged = judged.assign(hit=truth["hit"].to_numpy(dtype=float), value=truth["value"].to_numpy(dtype=float))
    return judged.assign(list=judged.groupby(["as_of", "batch_id"]).ngroup()).reset_index(drop=True)


def learned_rule(con: Any, model: HitModel, *, outcomes_given: bool, decisions_given: bool = False) -> Logistic:
    """Fit the logistic rule on what the model learned from; return it and the counts that it reads.

    With `decisions_given`, outcomes that a stop cut off are left out and the others weighed, as in the model's own fit.
    It leaves the scope at the model's moment.
    """
    as_of, newest = learned_until(model)
    set_scope(con, model.settings, as_of)
    every = label(con, model.settings, outcomes_given=outcomes_given)
    usable = every[every["problem"].isna()].reset_index(drop=True).assign(weight=1.0)
    if decisions_given:
        usable, _ = weigh_seen(con, usable, model.settings)
    labels = usable[usable["launched_at"] <= newest]
    batches = con.execute("select sku_id, batch_id from catalog").df()
    rows = _look_back(con, labels.merge(batches, on="sku_id"), model)
    rows = rows[rows["sku_id"].isin(labels["sku_id"])]
    truth = labels.set_index("sku_id").reindex(rows["sku_id"])
    hit = truth["hit"].to_numpy(dtype=float)
    size = rows.groupby("sku_id")["sku_id"].transform("size").to_numpy(dtype=float)
    weight = truth["weight"].to_numpy(dtype=float) / size
    names = counted_names(rows)
    return fit_logistic_rule(plain_counts(rows, names), hit, weight), names


def per_batch(judged: pd.DataFrame, names: list[str], base: float) -> pd.DataFrame:
    """Measure every score on every list, and average the lists of a batch.

    Parameters
    ----------
    judged
        From `score_lists`.
    names
        Of the scores in it.
    base
        The share of hits among the SKUs that were learned from.

    Returns
    -------
    pandas.DataFrame
        Index `batch_id`; `<name>.hits_at_k` and `<name>.value_at_k` over all lists that hold a hit, a miss and ten
        SKUs; of models also `<name>.log_loss` and `<name>.expected_hits` over the later half of the test, the time of
        decision, and beside them `base.log_loss` and `hits`.
    """
    columns: dict[str, pd.Series] = {}
    for name in names:
        lists = list_metrics(judged["list"], judged["hit"], judged["value"], judged[name])
        batch = judged.groupby("list")["batch_id"].first().reindex(lists.index)
        for figure in ("hits_at_k", "value_at_k"):
            columns[f"{name}.{figure}"] = lists[figure].groupby(batch).mean()
    late = judged[judged["age_share"] >= LATE]
    # A SKU's moments are averaged first: some SKUs have more of them.
    late = late.groupby(["batch_id", "sku_id"], as_index=False).mean(numeric_only=True)
    batch, hit = late["batch_id"], late["hit"].to_numpy()
    columns["hits"] = late.groupby("batch_id")["hit"].sum()
    columns["base.log_loss"] = _log_loss(np.full(len(late), base), hit).groupby(batch).mean()
    for name in names:
        if f"{name}.probability" in late:
            probability = late[f"{name}.probability"]
            columns[f"{name}.log_loss"] = _log_loss(probability.to_numpy(), hit).groupby(batch.to_numpy()).mean()
            columns[f"{name}.expected_hits"] = probability.groupby(batch).sum()
    return pd.DataFrame(columns).dropna(subset=[f"{names[0]}.hits_at_k"]).rename_axis("batch_id")


def _log_loss(probability: Array, hit: Array) -> pd.Series:
    sure = np.clip(probability, SUREST, 1 - SUREST)
    return pd.Series(-(hit * np.log(sure) + (1 - hit) * np.log1p(-sure)))


def _look_back(con: Any, labels: pd.DataFrame, model: HitModel) -> pd.DataFrame:
    """Return the features of all SKUs of the labels' batches at the moments of their tests."""
    # A SKU is told by its own batch and by what models keep of others, so other batches need not be looked at.
    con.register("judged_batches", labels[["batch_id"]].drop_duplicates())
    find_training_moments(con)
    con.execute(
        "create or replace temp table moments as select training_moments.* from training_moments "
        "inner join catalog using (sku_id) semi join judged_batches using (batch_id)"
    )
    con.unregister("judged_batches")
    observe(con)
    count_pairs(con, list(model.rates["rate"]))
    return features(con, model.rates)


def _rule_score(table: pd.DataFrame, rule: str, logistic: Logistic | None) -> Array:
    if logistic is not None:
        fitted, names = logistic
        return fitted.score(plain_counts(table, names))
    return rule_scores(table)[rule]
